'use strict';
// gRPC over Node's own HTTP/2: length-prefixed messages, status in trailers.
const http2 = require('http2');

const Code = {OK: 0, CANCELED: 1, UNKNOWN: 2, INVALID_ARGUMENT: 3, DEADLINE_EXCEEDED: 4, NOT_FOUND: 5, ALREADY_EXISTS: 6, PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8, FAILED_PRECONDITION: 9, UNIMPLEMENTED: 12, INTERNAL: 13, UNAVAILABLE: 14};
const UNITS = {n: 1e-6, u: 1e-3, m: 1, S: 1e3, M: 6e4, H: 36e5}; // in milliseconds
const MAX_STREAMS = 10000, WINDOW = 1 << 20;

// A documented outcome: what the caller sees. Anything else that is thrown is answered as INTERNAL with its text.
class PluginError extends Error {
  constructor(code, message, {details = null, etag = ''} = {}) {
    super(message);
    Object.assign(this, {code, details, etag});
  }
}

// One call in progress.
class Call {
  constructor(stream, headers) {
    Object.assign(this, {stream, headers, queue: [], wake: null, ended: false, chunks: [], have: 0});
    stream.on('data', (d) => this.feed(d));
    stream.on('end', () => this.end());
    stream.on('close', () => this.end());
    stream.on('error', () => this.end());
  }

  // Name of the component that the call is for; undefined for a caller by hand.
  get instance() {
    const raw = this.headers['x-component-instance-bin'];
    return this.headers['x-component-instance'] ?? (raw && Buffer.from(raw, 'base64').toString());
  }

  feed(d) {
    this.chunks.push(d);
    this.have += d.length;
    while (this.have >= 5) {
      if (this.chunks[0].length < 5) this.chunks = [Buffer.concat(this.chunks)];
      const size = this.chunks[0].readUInt32BE(1);
      if (this.have < 5 + size) return;
      const all = Buffer.concat(this.chunks);
      this.put(all[0] ? new PluginError(Code.UNIMPLEMENTED, 'compressed messages are not taken') : all.subarray(5, 5 + size));
      this.chunks = [all.subarray(5 + size)];
      this.have -= 5 + size;
    }
  }

  put(m) {
    this.queue.push(m);
    this.wake?.();
  }

  end() {
    if (!this.ended) { this.ended = true; this.put(null); }
  }

  // The next message's bytes; null when the caller has sent its last.
  async recv() {
    while (!this.queue.length) await new Promise((done) => { this.wake = done; });
    const m = this.queue[0];
    if (m !== null) this.queue.shift();
    if (m instanceof Error) throw m;
    return m;
  }

  begin() {
    if (!this.stream.headersSent) this.stream.respond({':status': 200, 'content-type': 'application/grpc'}, {waitForTrailers: true});
  }

  // Resolves when the runtime has taken it: a slow reader slows its writer.
  send(data) {
    if (this.stream.destroyed) return Promise.reject(new PluginError(Code.CANCELED, 'the caller is gone'));
    this.begin();
    const head = Buffer.alloc(5);
    head.writeUInt32BE(data.length, 1);
    return new Promise((done, fail) => this.stream.write(Buffer.concat([head, data]), (e) => (e ? fail(e) : done())));
  }

  finish(error) {
    const status = {'grpc-status': String(error ? error.code : 0)};
    if (error) status['grpc-message'] = encodeURIComponent(error.message).replace(/%20/g, ' ');
    if (error?.details) status['grpc-status-details-bin'] = error.details.toString('base64').replace(/=+$/, '');
    if (this.stream.destroyed) return;
    if (!this.stream.headersSent) {
      this.stream.respond({':status': 200, 'content-type': 'application/grpc', ...status}, {endStream: true});
      return;
    }
    this.stream.on('wantTrailers', () => this.stream.sendTrailers(status));
    this.stream.end();
  }
}

function timeoutMs(text) {
  const m = /^(\d{1,8})([numSMH])$/.exec(text || '');
  return m ? Math.min(+m[1] * UNITS[m[2]], 2 ** 31 - 1) : 0;
}

async function run(stream, headers, serve) {
  const call = new Call(stream, headers), ms = timeoutMs(headers['grpc-timeout']);
  let error = null, timer;
  try {
    const late = new Promise((_, fail) => {
      if (ms) timer = setTimeout(() => fail(new PluginError(Code.DEADLINE_EXCEEDED, 'the call took longer than its caller waits')), ms);
    });
    await Promise.race([serve(call, headers[':path']), late]);
  } catch (e) {
    error = e instanceof PluginError ? e : new PluginError(Code.INTERNAL, e?.message || String(e));
  }
  clearTimeout(timer);
  call.finish(error);
}

// where: {fd} or {path}. Gives the server once it listens.
function listen(where, serve) {
  const server = http2.createServer({settings: {maxConcurrentStreams: MAX_STREAMS, initialWindowSize: WINDOW}});
  server.on('stream', (stream, headers) => run(stream, headers, serve));
  server.on('session', (s) => { s.setLocalWindowSize?.(16 * WINDOW); s.on('error', () => {}); });
  return new Promise((done, fail) => {
    server.on('error', fail);
    server.listen(where, () => done(server));
  });
}

module.exports = {Code, PluginError, listen};
