#!/usr/bin/env node
'use strict';
// Locks in memory: put your server in their place.
const {main, manifestVersion, Lock, Unlock} = require('microdapr-plugin');

class Locks extends Lock {
  held = new Map();

  owner(resource) {
    const x = this.held.get(resource);
    return x && Date.now() < x.end ? x.owner : null;
  }

  async tryLock(resource, owner, expiryS) {
    if (this.owner(resource)) return false;
    this.held.set(resource, {owner, end: Date.now() + expiryS * 1000});
    return true;
  }

  async unlock(resource, owner) {
    const have = this.owner(resource);
    if (!have) return Unlock.MISSING;
    if (have !== owner) return Unlock.OF_OTHERS;
    this.held.delete(resource);
    return Unlock.DONE;
  }
}

main('lock.jsstore', manifestVersion(), {'lock.jsstore': Locks});
