'use strict';
// Dapr components in JavaScript, each its own process.
//
//   const {main, manifestVersion, StateStore} = require('microdapr-plugin');
//   class Store extends StateStore {
//     static features = ['ETAG'];
//     async get(request) {}
//     async set(request) {}
//     async delete(request) {}
//   }
//   main('state.mine', manifestVersion(), {'state.mine': Store}); // the version is that of plugin.yaml
//
// The base class decides the kind: StateStore, SecretStore, PubSub, OutputBinding, InputBinding, Configuration, Lock, Crypto, Conversation,
// NameResolver, Middleware. main() takes the listening socket from descriptor 3, tells the runtime who it is and how it is, and ends when the runtime does (end of file on descriptor 4). Started by
// hand with --socket PATH it serves there instead, for a debugger or as a pluggable component.
const fs = require('fs');
const net = require('net');
const path = require('path');
const kinds = require('./kinds');
const {Code, PluginError, listen} = require('./server');
const {protos} = require('./contracts');
const {WireError} = require('./proto');

const CONTRACT_VERSION = 1, FD_LISTEN = 3, FD_CONTROL = 4, EXIT_GRACE_MS = 3000, LINGER_MAX_MS = 3600 * 1000, PING_MS = 10000, PING_TIMEOUT_MS = 5000;
const LEVELS = {debug: 7, info: 6, warn: 4, warning: 4, error: 3, fatal: 3};
let maxLevel = LEVELS.info, current = null;

// One line that the runtime makes its own log line of.
function log(level, text) {
  if ((LEVELS[level] ?? 6) > maxLevel) return;
  try {
    fs.writeSync(2, `<${LEVELS[level] ?? 6}>${String(text).replace(/\n/g, ' ')}\n`);
  } catch { /* there is no runtime just now */ }
}

// Tell the runtime whether what stands behind the component can be reached. For changes; a component with ping() is asked besides.
const backendUp = (component) => current?.backend(component, '');
const backendDown = (component, reason) => current?.backend(component, String(reason) || 'not reachable');

class Runtime {
  constructor(name, version, types) {
    Object.assign(this, {name, version, types, instances: new Map(), wanted: '', down: new Map(), calls: 0, errors: 0, inflight: 0, running: new Set(), pings: new Map(), hangAfterMs: 0, lastError: '',
      draining: false, lost: false, lingerMs: 0, token: '', started: Date.now(), methods: new Map(), readers: new Set(), waiters: new Set()});
    const life = '/microdapr.plugin.v1.Lifecycle/';
    for (const m of ['Hello', 'Accept', 'Drain', 'Stats', 'SetLogLevel']) this.unary(life + m, this[m].bind(this));
    this.methods.set(`${life}Health`, {run: this.health.bind(this)});
    this.methods.set(`${life}Attach`, {run: this.attach.bind(this)});
    for (const [kind, services] of Object.entries(kinds.CALLS)) this.addKind(kind, services);
    for (const v of ['v1', 'v1alpha']) this.methods.set(`/grpc.reflection.${v}.ServerReflection/ServerReflectionInfo`, {run: this.reflect.bind(this)});
  }

  addKind(kind, services) {
    const classes = Object.values(this.types).filter((c) => c.kind === kind);
    for (const [service, calls] of Object.entries(services)) {
      const have = Object.entries(calls).filter(([, c]) => classes.some((x) => x.prototype[c.needs]));
      if (!have.length) continue;
      const base = {Init: this.init, Ping: this.ping, Features: this.features};
      for (const [m, fn] of Object.entries(base))
        if (protos().methods.has(`/${service}/${m}`)) this.unary(`/${service}/${m}`, fn.bind(this, kind), m !== 'Init');
      for (const [m, c] of have) {
        const path = `/${service}/${m}`;
        if (c.fn) this.unary(path, this.operate.bind(this, kind, c), c.idempotent);
        else if (m === 'Subscribe') this.methods.set(path, {run: (call) => this.watch(this.find(kind, call), call, path)});
        else this.methods.set(path, {run: (call) => new Reader(this, call, path).run(this.find(kind, call))});
      }
    }
  }

  // One watch of a configuration store, until its caller gives it up.
  async watch(o, call, path) {
    const {input, output} = protos().methods.get(path), abort = new AbortController();
    const m = this.decode(input, (await call.recv()) || Buffer.alloc(0));
    call.stream.on('close', () => abort.abort());
    await o.subscribe(m.keys, m.metadata, async (items) => {
      if (!abort.signal.aborted) await call.send(protos().encode(output, kinds.entries(items)));
    }, abort.signal);
  }

  unary(path, fn, idempotent = false) {
    const {input, output} = protos().methods.get(path);
    this.methods.set(path, {idempotent, run: async (call) => {
      const data = await call.recv();
      if (data === null) throw new PluginError(Code.INTERNAL, 'the call has no request message');
      await call.send(protos().encode(output, (await fn(call, this.decode(input, data))) || {}));
    }});
  }

  decode(name, data) {
    try {
      return protos().decode(name, data);
    } catch (e) {
      throw e instanceof WireError ? new PluginError(Code.INVALID_ARGUMENT, 'the request is not a valid message') : e;
    }
  }

  async serve(call, path) {
    const m = this.methods.get(path);
    if (!m) throw new PluginError(Code.UNIMPLEMENTED, `unknown method ${path}`);
    this.calls++;
    try {
      await m.run(call);
    } catch (e) {
      this.errors++;
      throw e;
    }
  }

  // ---- lifecycle ----

  Hello(call, m) {
    this.wanted = m.component_type;
    return {plugin_name: this.name, plugin_version: this.version, contract_versions: [CONTRACT_VERSION],
      component_types: Object.entries(this.types).map(([type, c]) => ({type, versions: ['v1'], features: kinds.featuresOf(c)})),
      idempotent_methods: [...this.methods].filter(([, x]) => x.idempotent).map(([p]) => p)};
  }

  Accept(call, m) {
    if (!m.accepted) log('error', `refused by the runtime: ${m.refusal}; ${m.fix}`);
    else if (m.linger_ms && m.linger_token) Object.assign(this, {lingerMs: Math.min(m.linger_ms, LINGER_MAX_MS), token: m.linger_token});
  }

  // Ends the process; or, when the runtime wished so, waits for another one to attach.
  runtimeGone() {
    if (this.draining || !this.lingerMs) return end(this);
    this.lost = true;
    this.over = setTimeout(() => end(this), this.lingerMs);
  }

  async attach(call) {
    const m = this.decode('microdapr.plugin.v1.AttachRequest', (await call.recv()) || Buffer.alloc(0));
    if (!this.lost) throw new PluginError(Code.FAILED_PRECONDITION, 'the process has a runtime');
    if (m.token !== this.token) throw new PluginError(Code.PERMISSION_DENIED, 'the token is another one');
    this.lost = false;
    clearTimeout(this.over);
    try {
      await call.send(protos().encode('microdapr.plugin.v1.AttachResponse', {instances: [...this.instances.keys()].map((k) => k.split('\0')[1])}));
      while ((await call.recv()) !== null);
    } finally {
      this.runtimeGone();
    }
  }

  // Resolves at the next change, or after ms.
  change(ms) {
    return new Promise((done) => {
      const wake = () => { clearTimeout(timer); this.waiters.delete(wake); done(); };
      const timer = setTimeout(wake, ms);
      this.waiters.add(wake);
    });
  }

  changed() {
    for (const wake of [...this.waiters]) wake();
  }

  async health(call) {
    const m = this.decode('microdapr.plugin.v1.HealthRequest', (await call.recv()) || Buffer.alloc(0));
    if (this.hangAfterMs !== Number(m.hang_after_ms)) {
      this.hangAfterMs = Number(m.hang_after_ms);
      this.pingAll();
    }
    while (!call.stream.destroyed) {
      const stuck = this.stuck();
      await call.send(protos().encode('microdapr.plugin.v1.HealthReport', {alive: true, backend_reachable: this.down.size === 0,
        last_error: this.lastError, at_unix_ms: Date.now(), calls: this.calls, inflight: this.inflight,
        ...stuck}));
      await this.change(Math.max(m.interval_ms || 1000, 20));
    }
  }

  async Drain(call, m) {
    this.draining = true;
    const end = Date.now() + m.timeout_ms;
    let handed = 0;
    for (const r of [...this.readers]) handed += r.handBack();
    while (this.inflight && Date.now() < end) await this.change(end - Date.now());
    return {handed_back: handed};
  }

  Stats() {
    const u = process.resourceUsage();
    return {calls: this.calls, errors: this.errors, inflight: this.inflight, rss_bytes: process.memoryUsage.rss(),
      cpu_ms: Math.floor((u.userCPUTime + u.systemCPUTime) / 1000), uptime_ms: Date.now() - this.started, open_fds: fs.readdirSync('/proc/self/fd').length};
  }

  SetLogLevel(call, m) {
    const level = LEVELS[m.level.toLowerCase()];
    if (!level) throw new PluginError(Code.INVALID_ARGUMENT, `unknown log level '${m.level}': debug, info, warn, error or fatal`);
    maxLevel = level;
  }

  async reflect(call) {
    const p = 'grpc.reflection.v1.ServerReflection';
    for (let data; (data = await call.recv()) !== null;) {
      const m = this.decode(`${p}Request`, data), out = {valid_host: m.host, original_request: m};
      if (m.list_services !== null) {
        const names = new Set([...this.methods.keys()].map((x) => x.split('/')[1]));
        out.list_services_response = {service: [...names].map((name) => ({name}))};
      } else out.error_response = {error_code: Code.NOT_FOUND, error_message: 'descriptors are not served: the .proto files are public'};
      await call.send(protos().encode(`${p}Response`, out));
    }
  }

  backend(name, reason) {
    if (reason) { this.down.set(name, reason); this.lastError = reason; }
    else this.down.delete(name);
    this.changed();
  }

  // A part of the manifest's hangAfter, the most of which is given.
  part(n, most) {
    const ms = this.hangAfterMs / n;
    return ms > 0 && ms < most ? ms : most;
  }

  // What does not come back, for the reports: the runtime takes a ping that stays away for half of hangAfter for a hang of the process.
  stuck() {
    const now = Date.now(), out = {ping_ms: 0, abandoned: 0, abandoned_ms: 0, busy_with: ''}, texts = [];
    for (const [o, since] of this.pings) {
      const ms = now - since;
      out.ping_ms = Math.max(out.ping_ms, ms);
      if (ms >= this.part(12, PING_TIMEOUT_MS) && !this.down.has(o.name)) {
        this.down.set(o.name, `its ping has not come back for ${(ms / 1000).toPrecision(2)} s`);
        this.lastError = this.down.get(o.name);
      }
    }
    for (const c of this.running) {
      if (!c.call.stream.destroyed) continue;
      if (!out.abandoned++) {
        out.abandoned_ms = now - c.began;
        texts.push(`the oldest call without a caller is one of component ${c.call.instance ?? ''}, for ${Math.round(out.abandoned_ms / 1000)} s`);
      }
    }
    if (out.ping_ms) texts.push(`a ping has not come back for ${(out.ping_ms / 1000).toPrecision(2)} s`);
    out.busy_with = texts.join(', ');
    return out;
  }

  pingAll() {
    for (const o of this.instances.values()) if (!this.pings.has(o)) this.pingOne(o);
    clearTimeout(this.pingTimer);
    this.pingTimer = setTimeout(() => this.pingAll(), this.part(6, PING_MS));
  }

  async pingOne(o) {
    this.pings.set(o, Date.now());
    try {
      await o.ping();
      if (this.down.has(o.name)) this.backend(o.name, '');
    } catch (e) {
      this.backend(o.name, e?.message || String(e));
    } finally {
      this.pings.delete(o);
    }
  }

  // ---- components ----

  classFor(kind, call) {
    const all = Object.entries(this.types).filter(([, c]) => c.kind === kind);
    for (const name of [call.headers['x-component-type'], this.wanted])
      for (const [t, c] of all) if (name && t.toLowerCase() === name.toLowerCase()) return c;
    return all[0][1];
  }

  async init(kind, call, m) {
    const o = new (this.classFor(kind, call))(), key = `${kind}\0${call.instance ?? ''}`, old = this.instances.get(key);
    o.name = call.instance ?? '';
    if (m.instance) Object.assign(o, {sidecar: m.instance, configuration: m.configuration}); // of a name resolver
    await o.init(m.metadata?.properties ?? {});
    this.instances.set(key, o);
    this.backend(o.name, '');
    await old?.close();
  }

  features(kind, call) {
    return {features: kinds.featuresOf(this.classFor(kind, call))};
  }

  async ping(kind, call) {
    await this.instances.get(`${kind}\0${call.instance ?? ''}`)?.ping();
  }

  find(kind, call) {
    if (this.draining) throw new PluginError(Code.UNAVAILABLE, 'the plugin is being stopped');
    if (this.lost) throw new PluginError(Code.UNAVAILABLE, 'the plugin has no runtime: attach first');
    let o = this.instances.get(`${kind}\0${call.instance ?? ''}`);
    if (!o && call.instance === undefined) { // a caller by hand, without the metadata
      const all = [...this.instances].filter(([k]) => k.startsWith(`${kind}\0`));
      if (all.length === 1) o = all[0][1];
    }
    if (!o) throw new PluginError(Code.FAILED_PRECONDITION, `component '${call.instance ?? ''}' was not initialised in this process`);
    return o;
  }

  async operate(kind, c, call, m) {
    const o = this.find(kind, call);
    if (!o[c.needs]) throw new PluginError(Code.UNIMPLEMENTED, `${o.constructor.name} does not support this operation`);
    const one = {call, began: Date.now()};
    this.running.add(one);
    try {
      return await this.count(() => c.fn(o, m));
    } finally {
      this.running.delete(one);
    }
  }

  async count(fn) {
    this.inflight++;
    try {
      return await fn();
    } finally {
      if (--this.inflight === 0) this.changed();
    }
  }
}

// One stream of events: each waits for its own answer.
class Reader {
  constructor(rt, call, path) {
    Object.assign(this, {rt, call, ...protos().methods.get(path), isTopic: path.endsWith('PullMessages'), waiting: new Map(), last: 0,
      abort: new AbortController()});
  }

  async run(o) {
    if (this.isTopic) {
      this.topic = this.rt.decode(this.input, (await this.call.recv()) || Buffer.alloc(0)).topic;
      if (!this.topic) throw new PluginError(Code.INVALID_ARGUMENT, 'the first message of the stream names the topic');
    }
    const deliver = this.deliver.bind(this), signal = this.abort.signal;
    this.rt.readers.add(this);
    try {
      const op = this.isTopic ? o.subscribe(this.topic.name, this.topic.metadata, deliver, signal) : o.read(deliver, signal);
      await Promise.race([op, this.answers()]);
    } finally {
      this.rt.readers.delete(this);
      this.handBack();
    }
  }

  async answers() {
    for (let data; (data = await this.call.recv()) !== null;) {
      const m = this.rt.decode(this.input, data), id = this.isTopic ? m.ack_message_id : m.message_id;
      const error = this.isTopic ? m.ack_error : m.response_error, w = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) w?.fail(new PluginError(Code.UNKNOWN, error.message));
      else w?.done(this.isTopic ? Buffer.alloc(0) : m.response_data);
    }
  }

  // Takes no more messages; those without an answer were not processed.
  handBack() {
    const n = this.waiting.size;
    this.abort.abort();
    for (const w of this.waiting.values()) w.fail(new PluginError(Code.CANCELED, 'the runtime has ended the subscription'));
    this.waiting.clear();
    return n;
  }

  // Resolves with the answer; rejects when the message must come again.
  deliver(x) {
    if (this.abort.signal.aborted) return Promise.reject(new PluginError(Code.CANCELED, 'the runtime has ended the subscription'));
    const id = String(++this.last), row = {data: x.data, metadata: x.metadata, content_type: x.contentType};
    Object.assign(row, this.isTopic ? {topic_name: x.topic || this.topic.name, id} : {message_id: id});
    return this.rt.count(() => new Promise((done, fail) => {
      this.waiting.set(id, {done, fail});
      this.call.send(protos().encode(this.output, row)).catch(fail);
    }));
  }
}

// ---- the process ----

function isSocket(fd) {
  try {
    return fs.fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

function printManifest(name, version, types) {
  const rows = Object.entries(types).map(([t, c]) => `  - type: ${t}\n    versions: [v1]\n    features: [${kinds.featuresOf(c).join(', ')}]\n`);
  process.stdout.write(`name: ${name}\nversion: ${version}\ncontractVersions: [${CONTRACT_VERSION}]\ntypes:\n${rows.join('')}`);
}

async function end(rt, path) {
  setTimeout(() => process.exit(0), EXIT_GRACE_MS);
  rt.draining = true;
  for (const r of [...rt.readers]) r.handBack();
  for (const o of rt.instances.values()) await Promise.resolve(o.close()).catch((e) => log('warn', `close: ${e.message}`));
  if (path) fs.rmSync(path, {force: true});
  process.exit(0);
}

// Serves component types (an object from type to class) until the runtime ends. Exits: 0 done, 1 could not start, 2 wrong use.
async function main(name, version, types) {
  const args = process.argv.slice(2), path = args.length === 2 && args[0] === '--socket' ? args[1] : null;
  if (args.length === 1 && args[0] === '--manifest') return printManifest(name, version, types);
  if (!path && (args.length || !isSocket(FD_LISTEN))) {
    process.stderr.write(`${name} ${version} is a plugin: daprd starts it when a component of its type is loaded.\n`
      + 'By hand:  --socket PATH   serve on a Unix socket (a debugger, or a pluggable component of another runtime)\n'
      + '          --manifest      print what it serves\n');
    process.exit(args[0] === '--help' ? 0 : 2);
  }
  const rt = current = new Runtime(name, version, types);
  if (path) fs.rmSync(path, {force: true});
  else new net.Socket({fd: FD_CONTROL, readable: true, writable: false}).on('close', () => rt.runtimeGone()).on('error', () => {}).resume();
  process.on('SIGTERM', () => end(rt, path));
  process.on('SIGINT', () => path && end(rt, path)); // of a terminal: for the runtime, which ends us
  try {
    await listen(path ? {path} : {fd: FD_LISTEN}, rt.serve.bind(rt));
  } catch (e) {
    log('error', `cannot listen: ${e.message}`);
    process.exit(1);
  }
  rt.pingAll();
  if (path) log('info', `${name} ${version} serves on ${path}`);
}

// The version that plugin.yaml beside the program says; 0.0.0 where there is none.
function manifestVersion() {
  try {
    const file = path.join(path.dirname(fs.realpathSync(process.argv[1])), 'plugin.yaml');
    const m = /^version:[ "']*([^\s"'#]+)/m.exec(fs.readFileSync(file, 'utf8'));
    return m ? m[1] : '0.0.0';
  } catch {
    return '0.0.0';
  }
}

module.exports = {main, manifestVersion, log, backendUp, backendDown, Code, PluginError, ...kinds.public};
