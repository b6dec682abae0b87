#!/usr/bin/env node
'use strict';
// A model that repeats the last words: put yours in its place.
const {main, manifestVersion, Conversation} = require('microdapr-plugin');

class Model extends Conversation {
  async converse({messages}) {
    const texts = messages.flatMap((m) => m.parts).map((p) => p.text).filter((t) => t);
    return texts.length ? `You said: ${texts.at(-1)}` : 'Say something.';
  }
}

main('conversation.jsstore', manifestVersion(), {'conversation.jsstore': Model});
