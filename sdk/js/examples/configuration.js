#!/usr/bin/env node
'use strict';
// A configuration store on a file of lines KEY=VALUE (setting `file`): put yours in its place.
const fs = require('fs');
const {setTimeout: sleep} = require('timers/promises');
const {main, manifestVersion, Configuration} = require('microdapr-plugin');

class Store extends Configuration {
  async init(metadata) { this.file = metadata.file ?? ''; }

  async get(keys) {
    const lines = fs.existsSync(this.file) ? fs.readFileSync(this.file, 'utf8').split('\n') : [];
    const pairs = lines.map((l) => /^([^=]+)=(.*)$/.exec(l)).filter((m) => m && (!keys.length || keys.includes(m[1])));
    return Object.fromEntries(pairs.map(([, key, value]) => [key, {value}]));
  }

  async subscribe(keys, metadata, changed, signal) {
    let before = await this.get(keys);
    await changed({}); // the watch stands
    while (!signal.aborted) {
      const now = await this.get(keys), names = Object.keys({...before, ...now}).filter((k) => now[k]?.value !== before[k]?.value);
      if (names.length) await changed(Object.fromEntries(names.map((k) => [k, now[k] ?? {}])));
      before = now;
      await sleep(100);
    }
  }
}

main('configuration.jsstore', manifestVersion(), {'configuration.jsstore': Store});
