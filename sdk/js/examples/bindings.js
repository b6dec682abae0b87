#!/usr/bin/env node
'use strict';
// A binding in both directions: what the app creates comes back as an event. Put your system in its place.
const {setTimeout: sleep} = require('timers/promises');
const {main, manifestVersion, OutputBinding, PluginError, Code} = require('microdapr-plugin');

class Binding extends OutputBinding { // with read() it is an input binding, too
  operations = ['create', 'get', 'delete'];
  items = new Map();
  events = [];

  async invoke({operation, data, metadata}) {
    const key = metadata.key ?? '';
    if (operation === 'create') {
      this.items.set(key, data);
      this.events.push(data);
    } else if (operation === 'delete') this.items.delete(key);
    else if (!this.items.has(key)) throw new PluginError(Code.NOT_FOUND, `there is nothing at ${key}`);
    return operation === 'get' ? this.items.get(key) : Buffer.alloc(0);
  }

  async read(deliver, signal) {
    while (!signal.aborted) {
      const data = this.events.shift();
      if (!data) await sleep(50);
      else await deliver({data}).catch(() => this.events.push(data)); // the app failed: again
    }
  }
}

main('bindings.jsstore', manifestVersion(), {'bindings.jsstore': Binding});
