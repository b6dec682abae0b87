#!/usr/bin/env node
'use strict';
// A state store in memory: the whole of a plugin.
const {main, manifestVersion, StateStore, etagInvalid, etagMismatch} = require('microdapr-plugin');

class Store extends StateStore {
  static features = ['ETAG', 'TTL'];
  items = new Map();
  last = 0;

  find(key) {
    const x = this.items.get(key);
    return x && x.expires && Date.now() >= x.expires ? null : x;
  }

  check(item, {etag, firstWrite}) {
    if (etag && !/^\d+$/.test(etag)) throw etagInvalid(`${etag} is not a number`);
    if ((etag && item?.etag !== etag) || (!etag && firstWrite && item)) throw etagMismatch('it is not the current one');
  }

  async get({key}) {
    return this.find(key);
  }

  async set(request) {
    this.check(this.find(request.key), request);
    const expires = request.ttlSeconds > 0 ? Date.now() + request.ttlSeconds * 1000 : 0;
    this.items.set(request.key, {value: request.value, etag: String(++this.last), contentType: request.contentType, expires});
  }

  async delete(request) {
    if (request.etag) this.check(this.find(request.key), request);
    this.items.delete(request.key);
  }
}

main('state.jsstore', manifestVersion(), {'state.jsstore': Store});
