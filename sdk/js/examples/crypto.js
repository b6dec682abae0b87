#!/usr/bin/env node
'use strict';
// Signatures by HMAC with one key: put your provider in its place.
const {createHmac, timingSafeEqual} = require('crypto');
const {main, manifestVersion, Crypto, PluginError, Code} = require('microdapr-plugin');

const HASHES = {RS256: 'sha256', RS384: 'sha384', RS512: 'sha512'}; // as the API names them

class Provider extends Crypto {
  keys = new Map([['hello', 'a secret that never leaves this process']]);

  mac({keyName, algorithm, digest}) {
    if (!this.keys.has(keyName)) throw new PluginError(Code.NOT_FOUND, 'key not found');
    if (!HASHES[algorithm]) throw new PluginError(Code.INVALID_ARGUMENT, 'unsupported algorithm');
    return createHmac(HASHES[algorithm], this.keys.get(keyName)).update(digest).digest();
  }

  async sign(request) {
    return this.mac(request);
  }

  async verify(request) {
    const right = this.mac(request);
    return right.length === request.signature.length && timingSafeEqual(right, request.signature);
  }
}

main('crypto.jsstore', manifestVersion(), {'crypto.jsstore': Provider});
