#!/usr/bin/env node
'use strict';
// A secret store with one fixed secret: put your backend in its place.
const {main, manifestVersion, SecretStore, PluginError, Code} = require('microdapr-plugin');

class Store extends SecretStore {
  async init(metadata) {} // read settings here: metadata.url

  async get(name) {
    if (name !== 'hello') throw new PluginError(Code.NOT_FOUND, `there is no secret ${name}`);
    return {hello: 'world'};
  }

  async bulkGet() {
    return {hello: {hello: 'world'}};
  }
}

main('secretstores.jsstore', manifestVersion(), {'secretstores.jsstore': Store});
