#!/usr/bin/env node
'use strict';
// A broker in memory: put yours in its place.
const {main, manifestVersion, PubSub} = require('microdapr-plugin');

class Broker extends PubSub {
  topics = new Map();
  wake = new Set();

  queue(topic) {
    if (!this.topics.has(topic)) this.topics.set(topic, []);
    return this.topics.get(topic);
  }

  async publish(message) {
    this.queue(message.topic).push(message);
    for (const wake of this.wake) wake();
  }

  async subscribe(topic, metadata, deliver, signal) {
    const queue = this.queue(topic);
    while (!signal.aborted) {
      const message = queue.shift();
      if (!message) {
        await new Promise((done) => {
          const wake = () => { this.wake.delete(wake); done(); };
          this.wake.add(wake);
          signal.addEventListener('abort', wake, {once: true});
        });
      } else await deliver(message).catch(() => queue.unshift(message)); // the app failed: again, to whoever comes
    }
  }
}

main('pubsub.jsstore', manifestVersion(), {'pubsub.jsstore': Broker});
