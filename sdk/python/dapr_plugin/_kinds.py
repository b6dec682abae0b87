"""What authors inherit from, one class a kind, and how its calls become messages."""
from dataclasses import dataclass, field
from types import SimpleNamespace

from ._server import FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, PluginError, UNIMPLEMENTED

_DETAILS_MAX = 5000  # they travel as headers
_COMPONENTS = "dapr.proto.components.v1."
_PLUGIN = "microdapr.plugin.v1."
_FIRST_WRITE = 1


def EtagMismatch(text=""):
    """The ETag is not the item's current one, or a first write found an item."""
    return _etag_error(FAILED_PRECONDITION, "mismatch", "possible etag mismatch. error from state store", text)


def EtagInvalid(text=""):
    """The text cannot be an ETag of this store."""
    return _etag_error(INVALID_ARGUMENT, "invalid", "invalid etag value", text)


def _etag_error(code, etag, prefix, text):
    from ._runtime import protos
    full = prefix + (": " + text if text else "")
    bad = protos().encode("google.rpc.BadRequest", {"field_violations": [{"field": "etag", "description": text}]})
    return PluginError(code, full, _status(code, full, [("google.rpc.BadRequest", bad)]), etag)


def _status(code, text, details):
    from ._runtime import protos
    anys = [_any(name, data) for name, data in details]
    return protos().encode("google.rpc.Status", {"code": code, "message": text, "details": anys})


def _any(name, data):
    url = b"type.googleapis.com/" + name.encode()
    return b"\x0a" + bytes([len(url)]) + url + b"\x12" + _length(len(data)) + data


def _length(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


@dataclass
class Item:
    value: bytes
    etag: str = ""
    content_type: str = ""
    metadata: dict = field(default_factory=dict)


@dataclass
class Message:
    """One message of a subscription, or one event of a binding."""
    data: bytes
    topic: str = ""
    metadata: dict = field(default_factory=dict)
    content_type: str = ""


class Component:
    features = ()
    name = ""  # metadata.name of the YAML, set before init

    def init(self, metadata):
        """metadata: the component's settings, as the manifest has checked them. An older process of the component may serve meanwhile, and write."""

    def ping(self):
        """Raises when the backend cannot be reached; asked every 10 s."""

    def close(self):
        """After the last call. A newer process may serve already: release, write nothing back."""


class StateStore(Component):
    """get(request) gives an Item or None; set(request) and delete(request) keep request.etag and request.first_write.
    Optional: transact(operations, metadata), keys_like(pattern, token, page_size) -> (keys, next), delete_with_prefix(prefix) -> count."""
    kind = "state"


class SecretStore(Component):
    """get(name, metadata) gives a dict of values; bulk_get(metadata) a dict of such dicts."""
    kind = "secretstores"


class PubSub(Component):
    """publish(request); subscribe(topic, metadata, deliver, stop): deliver(Message) returns when the runtime has answered and raises when
    the message must come again; stop is a threading.Event that ends the subscription."""
    kind = "pubsub"


class OutputBinding(Component):
    """operations: names; invoke(request) gives bytes, or a Message with metadata."""
    kind = "bindings"
    operations = ()


class InputBinding(Component):
    """read(deliver, stop): deliver(Message) gives the app's answer as bytes, or raises when the app failed."""
    kind = "bindings"


class Configuration(Component):
    """get(keys, metadata) gives a dict of Entry by key, all when keys is empty. subscribe(keys, metadata, changed, stop): calls changed({})
    once the watch stands, then changed({key: Entry}) at each change; an Entry without value and version: the key is gone. It returns
    when stop, a threading.Event, is set."""
    kind = "configuration"


class Lock(Component):
    """try_lock(resource, owner, expiry_s) gives True when it was taken; unlock(resource, owner) gives UNLOCKED, LOCK_MISSING or
    LOCK_OF_OTHERS. Neither is ever sent twice by the runtime."""
    kind = "lock"


class Crypto(Component):
    """get_key(name, as_json) gives the public key's text, PEM or JWK. encrypt, decrypt, wrap_key, unwrap_key(request) with request.data,
    algorithm, key_name, nonce, tag, associated_data give bytes, or (bytes, tag). sign(request) with request.digest gives bytes;
    verify(request) with request.signature a bool. What is not defined is not served."""
    kind = "crypto"


class Conversation(Component):
    """converse(request): request.messages (dicts: role, name, parts), tools, tool_choice, temperature, metadata, response_format. Gives a
    text, or the whole answer as a dict of the contract's ConverseResponse."""
    kind = "conversation"


class NameResolver(Component):
    """self.sidecar (app_id, namespace, address, internal_port, ...) is the own one, set before init, which makes it known; close takes that
    back. resolve(request) with request.id, namespace, port, failed gives a list of "host:port"; raises NOT_FOUND for an app that
    nobody knows. ttl_ms: for so long an answer may be used again."""
    kind = "nameresolution"
    ttl_ms, sidecar = 0, None


@dataclass
class Answer:
    """A filter's own answer: what stands behind it never sees the request."""
    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)


@dataclass
class Edits:
    """What a filter changes of a request. set_headers, response_headers: by name; None: as it was."""
    method: str = None
    path: bytes = None
    query: bytes = None
    set_headers: dict = field(default_factory=dict)
    remove_headers: tuple = ()
    response_headers: dict = field(default_factory=dict)


class Middleware(Component):
    """A filter of heads: request(request) with request.method, path, query, authority, peer, headers (a list of name and bytes) gives None
    to let it pass, Edits, or an Answer. Bodies never come to the process."""
    kind = "middleware"


UNLOCKED, LOCK_MISSING, LOCK_OF_OTHERS = range(3)


@dataclass
class Entry:
    """An item of a configuration store."""
    value: str = ""
    version: str = ""
    metadata: dict = field(default_factory=dict)


# ---- calls ----

def entries(items):
    return {"items": [{"key": k, "value": e.value, "version": e.version, "metadata": e.metadata} for k, e in items.items()]}


def _lock(o, m):
    return {"success": bool(o.try_lock(m["resource"], m["owner"], m["expiry_s"]))}


def _crypt(name):
    def run(o, m):
        out = getattr(o, name)(SimpleNamespace(**m))
        return {"data": out[0], "tag": out[1]} if isinstance(out, tuple) else {"data": out}
    return run


def _get_key(o, m):
    return {"name": m["key_name"], "public_key": o.get_key(m["key_name"], m["format"] == 1)}


def _converse(o, m):
    out = o.converse(SimpleNamespace(**m))
    return out if isinstance(out, dict) else {"outputs": [{"choices": [{"finish_reason": "stop", "content": out}]}]}


def _resolve(o, m):
    return {"addresses": list(o.resolve(SimpleNamespace(**m))), "ttl_ms": o.ttl_ms}


def _header_list(headers):
    return [{"name": k, "value": v if isinstance(v, bytes) else str(v).encode()} for k, v in headers.items()]


def _filter(o, m):
    r = SimpleNamespace(**{**m, "headers": [(h["name"], h["value"]) for h in m["headers"]]})
    x = o.request(r) or Edits()
    if isinstance(x, Answer):
        body = x.body if isinstance(x.body, bytes) else str(x.body).encode()
        return {"answer": {"status": x.status, "headers": _header_list(x.headers), "body": body}}
    return {"proceed": {"method": x.method, "path": x.path, "query": x.query, "response_headers": _header_list(x.response_headers),
                        "headers": {"remove": list(x.remove_headers), "set": _header_list(x.set_headers)}}}


def _etag(v):
    return {"value": v} if v else None


def _write_request(m):
    r = SimpleNamespace(key=m["key"], metadata=m["metadata"], etag=(m["etag"] or {}).get("value", ""),
                        first_write=bool(m["options"]) and m["options"]["concurrency"] == _FIRST_WRITE)
    if "value" in m:
        r.value, r.content_type, r.ttl_seconds = m["value"], m["content_type"], 0
        ttl = m["metadata"].get("ttlInSeconds")
        if ttl:
            try:
                r.ttl_seconds = int(ttl)
            except ValueError:
                raise PluginError(INVALID_ARGUMENT, f"incorrect value for metadata 'ttlInSeconds': '{ttl}' is no number") from None
            if r.ttl_seconds < -1:
                raise PluginError(INVALID_ARGUMENT, "incorrect value for metadata 'ttlInSeconds': must be -1 or greater")
    return r


def _get(o, m):
    x = o.get(SimpleNamespace(key=m["key"], metadata=m["metadata"]))
    return {"data": x.value, "etag": _etag(x.etag), "content_type": x.content_type, "metadata": x.metadata} if x else {}


def _bulk_get(o, m):
    out = []
    for one in m["items"]:
        try:
            row = _get(o, one)
        except Exception as e:  # of this key only
            row = {"error": str(e)}
        out.append(dict(row, key=one["key"]))
    return {"items": out}


def _bulk(fn):
    def run(o, m):
        from ._runtime import protos
        failed = []
        for one in m["items"]:
            try:
                fn(o)(_write_request(one))
            except PluginError as e:
                failed.append((one["key"], e))
            except Exception as e:
                failed.append((one["key"], PluginError(INTERNAL, str(e))))
        if len(failed) == 1 and failed[0][1].etag:
            raise failed[0][1]
        if failed:
            details, size = [], 0
            for key, e in failed:
                md = {"key": key, "code": str(e.code), "message": e.message, **({"etag": e.etag} if e.etag else {})}
                details.append(("google.rpc.ErrorInfo", protos().encode("google.rpc.ErrorInfo", {"reason": "ITEM_FAILED", "domain": "microdapr", "metadata": md})))
                size += len(details[-1][1])
                if size > _DETAILS_MAX:
                    break
            text = "\n".join(e.message for _, e in failed)[:_DETAILS_MAX]
            raise PluginError(failed[0][1].code, text, _status(failed[0][1].code, text, details))
        return {}
    return run


def _transact(o, m):
    ops = [SimpleNamespace(set=_write_request(x["set"]) if x["set"] else None, delete=_write_request(x["delete"]) if x["delete"] else None)
           for x in m["operations"]]
    o.transact(ops, m["metadata"])
    return {}


def _keys_like(o, m):
    if not m["pattern"]:
        raise PluginError(INVALID_ARGUMENT, "keys like pattern cannot be empty")
    keys, token = o.keys_like(m["pattern"], m["continuation_token"], m["page_size"] or 0)
    return {"keys": keys, "continuation_token": token}


def _delete_with_prefix(o, m):
    if not m["prefix"]:
        raise PluginError(INVALID_ARGUMENT, "a prefix is required for deleteWithPrefix request")
    return {"count": o.delete_with_prefix(m["prefix"])}


def _publish(o, m):
    o.publish(SimpleNamespace(data=m["data"], topic=m["topic"], metadata=m["metadata"], content_type=m["content_type"]))
    return {}


def _bulk_publish(o, m):
    failed = []
    for e in m["entries"]:
        try:
            o.publish(SimpleNamespace(data=e["event"], topic=m["topic"], metadata={**m["metadata"], **e["metadata"]}, content_type=e["content_type"]))
        except Exception as x:
            failed.append({"entry_id": e["entry_id"], "error": str(x)})
    return {"failed_entries": failed}


def _invoke(o, m):
    if m["operation"] not in o.operations:
        raise PluginError(INVALID_ARGUMENT, f"the binding has no operation '{m['operation']}'")
    x = o.invoke(SimpleNamespace(data=m["data"], metadata=m["metadata"], operation=m["operation"]))
    x = x if isinstance(x, Message) else Message(x or b"")
    return {"data": x.data, "metadata": x.metadata, "content_type": x.content_type}


def _do(name):
    def run(o, m):
        getattr(o, name)(_write_request(m))
        return {}
    return run


# kind -> service -> method -> (function, idempotent, attribute that the class must have); a function None is a stream of events
CALLS = {
    "state": {
        _COMPONENTS + "StateStore": {
            "Get": (_get, True, "get"), "Set": (_do("set"), False, "set"), "Delete": (_do("delete"), False, "delete"),
            "BulkGet": (_bulk_get, True, "get"), "BulkSet": (_bulk(lambda o: o.set), False, "set"),
            "BulkDelete": (_bulk(lambda o: o.delete), False, "delete")},
        _COMPONENTS + "TransactionalStateStore": {"Transact": (_transact, False, "transact")},
        "microdapr.plugin.v1.StateStoreExtra": {"KeysLike": (_keys_like, True, "keys_like"),
                                                "DeleteWithPrefix": (_delete_with_prefix, True, "delete_with_prefix")}},
    "secretstores": {
        _COMPONENTS + "SecretStore": {
            "Get": (lambda o, m: {"data": o.get(m["key"], m["metadata"])}, True, "get"),
            "BulkGet": (lambda o, m: {"data": {k: {"secrets": v} for k, v in o.bulk_get(m["metadata"]).items()}}, True, "bulk_get")}},
    "pubsub": {
        _COMPONENTS + "PubSub": {"Publish": (_publish, False, "publish"), "BulkPublish": (_bulk_publish, False, "publish"),
                                 "PullMessages": (None, False, "subscribe")}},
    "bindings": {
        _COMPONENTS + "OutputBinding": {"Invoke": (_invoke, False, "invoke"),
                                        "ListOperations": (lambda o, m: {"operations": list(o.operations)}, True, "invoke")},
        _COMPONENTS + "InputBinding": {"Read": (None, False, "read")}},
    "configuration": {
        _PLUGIN + "ConfigurationStore": {"Get": (lambda o, m: entries(o.get(m["keys"], m["metadata"])), True, "get"), "Subscribe": (None, False, "subscribe")}},
    "lock": {
        _PLUGIN + "Lock": {"TryLock": (_lock, False, "try_lock"), "Unlock": (lambda o, m: {"status": o.unlock(m["resource"], m["owner"])}, False, "unlock")}},
    "crypto": {
        _PLUGIN + "Crypto": {"GetKey": (_get_key, True, "get_key"), "Encrypt": (_crypt("encrypt"), True, "encrypt"), "Decrypt": (_crypt("decrypt"), True, "decrypt"),
                             "WrapKey": (_crypt("wrap_key"), True, "wrap_key"), "UnwrapKey": (_crypt("unwrap_key"), True, "unwrap_key"),
                             "Sign": (lambda o, m: {"signature": o.sign(SimpleNamespace(**m))}, True, "sign"),
                             "Verify": (lambda o, m: {"valid": bool(o.verify(SimpleNamespace(**m)))}, True, "verify")}},
    "conversation": {_PLUGIN + "Conversation": {"Converse": (_converse, False, "converse")}},
    "nameresolution": {_PLUGIN + "NameResolution": {"Resolve": (_resolve, True, "resolve")}},
    "middleware": {_PLUGIN + "HttpMiddleware": {"Request": (_filter, True, "request")}},
}
FEATURES = {"transact": "TRANSACTIONAL", "keys_like": "KEYS_LIKE", "delete_with_prefix": "DELETE_WITH_PREFIX", "invoke": "OUTPUT_BINDING",
            "read": "INPUT_BINDING"}


def features_of(cls):
    return list(cls.features) + [f for attr, f in FEATURES.items() if hasattr(cls, attr) and f not in cls.features]


def serves(cls, method):
    return hasattr(cls, method)


def unsupported(name):
    return PluginError(UNIMPLEMENTED, f"{name} does not support this operation")
