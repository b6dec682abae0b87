#!/usr/bin/env node
'use strict';
// A filter of heads: it wants the header x-key where the setting `key` says which, and marks what passes.
const {main, manifestVersion, Middleware} = require('microdapr-plugin');

class Filter extends Middleware {
  async init(metadata) { this.key = metadata.key; }

  async request({headers}) {
    const given = headers.find((h) => h.name.toLowerCase() === 'x-key')?.value.toString();
    if (this.key && given !== this.key) return {answer: {status: 401, body: 'say x-key'}};
    return {setHeaders: {'x-seen-by': this.name}, responseHeaders: {'x-filtered': 'yes'}};
  }
}

main('middleware.jsstore', manifestVersion(), {'middleware.jsstore': Filter});
