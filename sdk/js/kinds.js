'use strict';
// What authors inherit from, one class a kind, and how its calls become messages.
const {Code, PluginError} = require('./server');
const {protos} = require('./contracts');

const C = 'dapr.proto.components.v1.', P = 'microdapr.plugin.v1.', FIRST_WRITE = 1, DETAILS_MAX = 5000; // details travel as headers

class Component {
  static features = [];
  name = ''; // metadata.name of the YAML, set before init
  async init(metadata) {} // the component's settings, as the manifest has checked them; an older process may serve meanwhile, and write
  async ping() {} // throws when the backend cannot be reached; asked every 10 s
  async close() {} // after the last call; a newer process may serve already: release, write nothing back
}
// get(request) gives {value, etag, contentType, metadata} or null; set(request) and delete(request) keep request.etag and
// request.firstWrite. Optional: transact(operations, metadata), keysLike(pattern, token, pageSize) -> {keys, next},
// deleteWithPrefix(prefix) -> count.
class StateStore extends Component { static kind = 'state'; }
// get(name, metadata) gives an object of values; bulkGet(metadata) an object of such objects.
class SecretStore extends Component { static kind = 'secretstores'; }
// publish(request); subscribe(topic, metadata, deliver, signal): deliver(message) resolves when the runtime has answered and rejects
// when the message must come again; resolve when signal is aborted.
class PubSub extends Component { static kind = 'pubsub'; }
// operations: names; invoke(request) gives a Buffer, or {data, metadata, contentType}.
class OutputBinding extends Component { static kind = 'bindings'; operations = []; }
// read(deliver, signal): deliver(event) gives the app's answer, or rejects when the app failed.
class InputBinding extends Component { static kind = 'bindings'; }

// get(keys, metadata) gives an object of {value, version, metadata} by key, all when keys is empty. subscribe(keys, metadata, changed, signal):
// await changed({}) once the watch stands, then changed(items) at each change; an item without value and version: the key is gone.
// It resolves when signal is aborted.
class Configuration extends Component { static kind = 'configuration'; }
// tryLock(resource, owner, expiryS) gives true when it was taken; unlock(resource, owner) gives one of Unlock. Neither is ever sent twice.
class Lock extends Component { static kind = 'lock'; }
const Unlock = {DONE: 0, MISSING: 1, OF_OTHERS: 2};
// getKey(name, asJson) gives the public key's text. encrypt, decrypt, wrapKey, unwrapKey(request) give a Buffer, or {data, tag}; sign(request)
// a Buffer, verify(request) a boolean. Requests: {data or digest, algorithm, keyName, nonce, tag, associatedData, signature}.
class Crypto extends Component { static kind = 'crypto'; }
// converse(request): {messages, tools, tool_choice, temperature, metadata, response_format, ...} as the contract has them. Gives a text, or
// the whole answer as the contract's ConverseResponse.
class Conversation extends Component { static kind = 'conversation'; }
// this.sidecar {app_id, namespace, address, internal_port, ...} is the own one, set before init, which makes it known; close takes that back.
// resolve({id, namespace, port, failed}) gives an array of "host:port"; throws NOT_FOUND for an app that nobody knows.
class NameResolver extends Component { static kind = 'nameresolution'; ttlMs = 0; sidecar = null; }
// A filter of heads: request({method, path, query, authority, peer, headers}) gives nothing to let it pass, {answer: {status, headers, body}},
// or what it changes: {method, path, query, setHeaders, removeHeaders, responseHeaders}. Bodies never come to the process.
class Middleware extends Component { static kind = 'middleware'; }

// ---- errors ----

const any = (name, m) => Buffer.concat([lead(1, Buffer.from(`type.googleapis.com/${name}`)), lead(2, protos().encode(name, m))]);

// A field of bytes: what google.protobuf.Any is made of.
function lead(number, data) {
  const n = [];
  let size = data.length;
  for (; size > 0x7f; size >>= 7) n.push((size & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([number << 3 | 2, ...n, size]), data]);
}

const statusOf = (code, message, details) => protos().encode('google.rpc.Status', {code, message, details});

function etagError(code, etag, prefix, text) {
  const full = prefix + (text ? `: ${text}` : '');
  const bad = any('google.rpc.BadRequest', {field_violations: [{field: 'etag', description: text}]});
  return new PluginError(code, full, {details: statusOf(code, full, [bad]), etag});
}
// The ETag is not the item's current one, or a first write found an item.
const etagMismatch = (text = '') => etagError(Code.FAILED_PRECONDITION, 'mismatch', 'possible etag mismatch. error from state store', text);
// The text cannot be an ETag of this store.
const etagInvalid = (text = '') => etagError(Code.INVALID_ARGUMENT, 'invalid', 'invalid etag value', text);

// One error for the items that failed; a single ETag error keeps the form that all runtimes know.
function bulkError(failed) {
  if (failed.length === 1 && failed[0].error.etag) return failed[0].error;
  const details = [];
  let size = 0;
  for (const {key, error} of failed) {
    const metadata = {key, code: String(error.code), message: error.message, ...(error.etag ? {etag: error.etag} : {})};
    details.push(any('google.rpc.ErrorInfo', {reason: 'ITEM_FAILED', domain: 'microdapr', metadata}));
    size += details[details.length - 1].length;
    if (size > DETAILS_MAX) break;
  }
  const text = failed.map((f) => f.error.message).join('\n').slice(0, DETAILS_MAX), {code} = failed[0].error;
  return new PluginError(code, text, {details: statusOf(code, text, details)});
}

// ---- calls ----

function writeRequest(m) {
  const r = {key: m.key, metadata: m.metadata, etag: m.etag?.value ?? '', firstWrite: m.options?.concurrency === FIRST_WRITE};
  if (!('value' in m)) return r;
  const ttl = m.metadata.ttlInSeconds || '0';
  if (!/^-?\d{1,10}$/.test(ttl)) throw new PluginError(Code.INVALID_ARGUMENT, `incorrect value for metadata 'ttlInSeconds': '${ttl}' is no number`);
  if (+ttl < -1) throw new PluginError(Code.INVALID_ARGUMENT, "incorrect value for metadata 'ttlInSeconds': must be -1 or greater");
  return Object.assign(r, {value: m.value, contentType: m.content_type, ttlSeconds: +ttl});
}

async function get(o, m) {
  const x = await o.get({key: m.key, metadata: m.metadata});
  return x ? {data: x.value, etag: x.etag ? {value: x.etag} : null, content_type: x.contentType, metadata: x.metadata} : {};
}

async function bulkGet(o, m) {
  const items = [];
  for (const one of m.items) items.push({...await get(o, one).catch((e) => ({error: e.message})), key: one.key});
  return {items};
}

const bulk = (op) => async (o, m) => {
  const failed = [];
  for (const one of m.items) {
    try {
      await o[op](writeRequest(one));
    } catch (e) {
      failed.push({key: one.key, error: e instanceof PluginError ? e : new PluginError(Code.INTERNAL, e.message)});
    }
  }
  if (failed.length) throw bulkError(failed);
};

const transact = (o, m) => o.transact(m.operations.map((x) => ({set: x.set && writeRequest(x.set), delete: x.delete && writeRequest(x.delete)})), m.metadata);

async function keysLike(o, m) {
  if (!m.pattern) throw new PluginError(Code.INVALID_ARGUMENT, 'keys like pattern cannot be empty');
  const {keys, next} = await o.keysLike(m.pattern, m.continuation_token, m.page_size ?? 0);
  return {keys, continuation_token: next};
}

async function deleteWithPrefix(o, m) {
  if (!m.prefix) throw new PluginError(Code.INVALID_ARGUMENT, 'a prefix is required for deleteWithPrefix request');
  return {count: await o.deleteWithPrefix(m.prefix)};
}

async function bulkSecrets(o, m) {
  return {data: Object.fromEntries(Object.entries(await o.bulkGet(m.metadata)).map(([k, secrets]) => [k, {secrets}]))};
}

const publish = (o, m) => o.publish({data: m.data, topic: m.topic, metadata: m.metadata, contentType: m.content_type});

async function bulkPublish(o, m) {
  const failed = [];
  for (const e of m.entries) {
    await Promise.resolve(o.publish({data: e.event, topic: m.topic, metadata: {...m.metadata, ...e.metadata}, contentType: e.content_type}))
      .catch((x) => failed.push({entry_id: e.entry_id, error: x.message}));
  }
  return {failed_entries: failed};
}

async function invoke(o, m) {
  if (!o.operations.includes(m.operation)) throw new PluginError(Code.INVALID_ARGUMENT, `the binding has no operation '${m.operation}'`);
  const x = await o.invoke({data: m.data, metadata: m.metadata, operation: m.operation});
  return Buffer.isBuffer(x) || !x ? {data: x} : {data: x.data, metadata: x.metadata, content_type: x.contentType};
}

const entries = (items) => ({items: Object.entries(items).map(([key, e]) => ({key, ...e}))});
const cryptRequest = (m) => ({data: m.data, digest: m.digest, algorithm: m.algorithm, keyName: m.key_name, nonce: m.nonce, tag: m.tag,
  associatedData: m.associated_data, signature: m.signature});

const crypt = (op) => async (o, m) => {
  const x = await o[op](cryptRequest(m));
  return Buffer.isBuffer(x) ? {data: x} : x;
};

async function converse(o, m) {
  const x = await o.converse(m);
  return typeof x === 'string' ? {outputs: [{choices: [{finish_reason: 'stop', content: x}]}]} : x;
}

const headerList = (headers) => Object.entries(headers ?? {}).map(([name, value]) => ({name, value: Buffer.from(value)}));

async function filter(o, m) {
  const x = (await o.request(m)) ?? {};
  if (x.answer) return {answer: {status: x.answer.status ?? 200, headers: headerList(x.answer.headers), body: Buffer.from(x.answer.body ?? '')}};
  const bytes = (v) => (v === undefined ? null : Buffer.from(v));
  return {proceed: {method: x.method ?? null, path: bytes(x.path), query: bytes(x.query), response_headers: headerList(x.responseHeaders),
    headers: {set: headerList(x.setHeaders), remove: x.removeHeaders ?? []}}};
}

// kind -> service -> method -> what runs, whether it may be sent again, the method that the class must have; without fn: a stream
const CALLS = {
  state: {
    [`${C}StateStore`]: {
      Get: {fn: get, idempotent: true, needs: 'get'}, Set: {fn: (o, m) => o.set(writeRequest(m)), needs: 'set'},
      Delete: {fn: (o, m) => o.delete(writeRequest(m)), needs: 'delete'}, BulkGet: {fn: bulkGet, idempotent: true, needs: 'get'},
      BulkSet: {fn: bulk('set'), needs: 'set'}, BulkDelete: {fn: bulk('delete'), needs: 'delete'}},
    [`${C}TransactionalStateStore`]: {Transact: {fn: transact, needs: 'transact'}},
    'microdapr.plugin.v1.StateStoreExtra': {KeysLike: {fn: keysLike, idempotent: true, needs: 'keysLike'},
      DeleteWithPrefix: {fn: deleteWithPrefix, idempotent: true, needs: 'deleteWithPrefix'}},
  },
  secretstores: {
    [`${C}SecretStore`]: {Get: {fn: async (o, m) => ({data: await o.get(m.key, m.metadata)}), idempotent: true, needs: 'get'},
      BulkGet: {fn: bulkSecrets, idempotent: true, needs: 'bulkGet'}},
  },
  pubsub: {
    [`${C}PubSub`]: {Publish: {fn: publish, needs: 'publish'}, BulkPublish: {fn: bulkPublish, needs: 'publish'}, PullMessages: {needs: 'subscribe'}},
  },
  bindings: {
    [`${C}OutputBinding`]: {Invoke: {fn: invoke, needs: 'invoke'},
      ListOperations: {fn: (o) => ({operations: o.operations}), idempotent: true, needs: 'invoke'}},
    [`${C}InputBinding`]: {Read: {needs: 'read'}},
  },
  configuration: {
    [`${P}ConfigurationStore`]: {Get: {fn: async (o, m) => entries(await o.get(m.keys, m.metadata)), idempotent: true, needs: 'get'}, Subscribe: {needs: 'subscribe'}},
  },
  lock: {
    [`${P}Lock`]: {TryLock: {fn: async (o, m) => ({success: await o.tryLock(m.resource, m.owner, m.expiry_s)}), needs: 'tryLock'},
      Unlock: {fn: async (o, m) => ({status: await o.unlock(m.resource, m.owner)}), needs: 'unlock'}},
  },
  crypto: {
    [`${P}Crypto`]: {
      GetKey: {fn: async (o, m) => ({name: m.key_name, public_key: await o.getKey(m.key_name, m.format === 1)}), idempotent: true, needs: 'getKey'},
      Encrypt: {fn: crypt('encrypt'), idempotent: true, needs: 'encrypt'}, Decrypt: {fn: crypt('decrypt'), idempotent: true, needs: 'decrypt'},
      WrapKey: {fn: crypt('wrapKey'), idempotent: true, needs: 'wrapKey'}, UnwrapKey: {fn: crypt('unwrapKey'), idempotent: true, needs: 'unwrapKey'},
      Sign: {fn: async (o, m) => ({signature: await o.sign(cryptRequest(m))}), idempotent: true, needs: 'sign'},
      Verify: {fn: async (o, m) => ({valid: await o.verify(cryptRequest(m))}), idempotent: true, needs: 'verify'}},
  },
  conversation: {[`${P}Conversation`]: {Converse: {fn: converse, needs: 'converse'}}},
  nameresolution: {
    [`${P}NameResolution`]: {Resolve: {fn: async (o, m) => ({addresses: await o.resolve(m), ttl_ms: o.ttlMs}), idempotent: true, needs: 'resolve'}},
  },
  middleware: {[`${P}HttpMiddleware`]: {Request: {fn: filter, idempotent: true, needs: 'request'}}},
};
const FEATURES = {transact: 'TRANSACTIONAL', keysLike: 'KEYS_LIKE', deleteWithPrefix: 'DELETE_WITH_PREFIX', invoke: 'OUTPUT_BINDING', read: 'INPUT_BINDING'};

function featuresOf(c) {
  return [...new Set([...c.features, ...Object.keys(FEATURES).filter((m) => c.prototype[m]).map((m) => FEATURES[m])])];
}

module.exports = {CALLS, featuresOf, entries, public: {StateStore, SecretStore, PubSub, OutputBinding, InputBinding, Configuration, Lock, Unlock, Crypto,
  Conversation, NameResolver, Middleware, etagMismatch, etagInvalid}};
