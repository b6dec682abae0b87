#!/usr/bin/env node
'use strict';
// Names of sidecars in this process only: put your registry in its place.
const {main, manifestVersion, NameResolver, PluginError, Code} = require('microdapr-plugin');

const registry = new Map(); // component -> app id and address

class Resolver extends NameResolver {
  ttlMs = 1000;

  async init() {
    const {app_id: id, address, internal_port: port} = this.sidecar;
    registry.set(this, {id, address: `${address}:${port}`});
  }

  async close() {
    registry.delete(this);
  }

  async resolve({id}) {
    const found = [...registry.values()].filter((x) => x.id === id).map((x) => x.address);
    if (!found.length) throw new PluginError(Code.NOT_FOUND, `no host found for ${id}`);
    return found;
  }
}

main('nameresolution.jsstore', manifestVersion(), {'nameresolution.jsstore': Resolver});
