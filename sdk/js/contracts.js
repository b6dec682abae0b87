'use strict';
// The .proto files: beside this file in an installed package, in the repository's proto/ otherwise. Read at the first use.
const fs = require('fs');
const path = require('path');
const {Protos} = require('./proto');

const FILES = [...['lifecycle', 'state', 'configuration', 'lock', 'crypto', 'conversation', 'nameresolution', 'middleware'].map((n) => `plugin/v1/${n}.proto`),
  'grpc/reflection/v1/reflection.proto', 'grpc/reflection/v1alpha/reflection.proto',
  'google/rpc/status.proto', 'google/rpc/error_details.proto',
  ...['common', 'state', 'secretstore', 'pubsub', 'bindings'].map((n) => `dapr/proto/components/v1/${n}.proto`)];
let loaded = null;

function protos() {
  if (!loaded) {
    const folder = ['proto', '../../proto'].map((d) => path.join(__dirname, d)).find((d) => fs.existsSync(d));
    if (!folder) throw new Error(`${__dirname}/proto is missing: install the package again`);
    loaded = new Protos(folder, FILES);
  }
  return loaded;
}

module.exports = {protos};
