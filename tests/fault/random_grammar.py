"""What random_requests.py says: requests built from the route table and from the descriptors of proto/, and the same with bytes changed.
Everything comes from one random.Random: a seed repeats it."""
import pathlib, struct, sys, tempfile, urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STORES = ["store", "lite", "remote", "secrets", "vault", "pub", "redpub", "echo", "conf", "locks", "tick", "web", "files", "odd", "outside", "nobody", ""]
APPS = ["app", "peer", "app", "peer", "evil", "nobody", "outside", "http://127.0.0.1:1", "app.default", "app.other", "", "x" * 300, "é"]
KEYS = ["k", "l", "key", "a/b", "a||b", "%2e%2e", "..", "%00", "", "é", "x" * 300, "k?x=1", "*"]
TOPICS = ["t", "raw", "bulk", "dead", "a/b", "t/%23", "", "x" * 300]
METHODS_OF_APPS = ["m", "a/b/c", "%2e%2e/m", "../../m", "m?q=1", "", "deny", "Deny/x", "//m", "%2F", "m%00", "test.Echo/Unary", "x" * 3000]
OPERATIONS = ["create", "get", "delete", "list", "post", "patch", "head", "options", "trace", "put", "upsert", "Nothing", ""]
WORDS = KEYS + ["metadata.ttlInSeconds=1", "{}", "store", "pub", "1", "-1", "true", "99999999999999999999", "A256KW", "application/json", "@every 1s",
                "PT1S", "aes256", "\x01", "{{uuid}}"]
VERBS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "QUERY", "TRACE", "CONNECT"]
# {s} a component, {k} a key, {t} a topic, {a} an app, {m} a method of an app, {w} any word; the verbs that fit
ROUTES = [("GET DELETE", "/v1.0/state/{s}/{k}"), ("POST PUT", "/v1.0/state/{s}"), ("POST PUT", "/v1.0/state/{s}/bulk"),
          ("POST PUT", "/v1.0/state/{s}/transaction"), ("POST PUT", "/v1.0-alpha1/state/{s}/query"), ("POST PUT", "/v1.0/publish/{s}/{t}"),
          ("POST PUT", "/v1.0/publish/bulk/{s}/{t}"), ("POST PUT", "/v1.0-alpha1/publish/bulk/{s}/{t}"), ("GET", "/v1.0/secrets/{s}/{k}"),
          ("GET", "/v1.0/secrets/{s}/bulk"), ("POST PUT", "/v1.0/bindings/{s}"), ("GET", "/v1.0/metadata"), ("PUT", "/v1.0/metadata/{k}"),
          ("GET", "/v1.0/healthz"), ("GET", "/v1.0/healthz?appid={a}"), ("GET", "/v1.0/healthz/outbound"),
          ("GET POST PUT DELETE PATCH HEAD OPTIONS", "/v1.0/invoke/{a}/method/{m}"), ("GET POST", "/v1.0/invoke/{a}/method/{m}"),
          ("GET POST", "/v1.0/invoke/{a}/method/{m}"), ("GET POST", "/v1.0/invoke/http://127.0.0.1:9/method/{m}"), ("GET", "/v1.0/configuration/{s}?key={k}"),
          ("GET", "/v1.0/configuration/{s}/subscribe?key={k}"), ("GET", "/v1.0-alpha1/configuration/{s}/{w}/unsubscribe"),
          ("POST", "/v1.0-alpha1/lock/{s}"), ("POST", "/v1.0-alpha1/unlock/{s}"), ("PUT", "/v1.0-alpha1/crypto/{s}/encrypt"),
          ("PUT", "/v1.0-alpha1/crypto/{s}/decrypt"), ("POST", "/v1.0-alpha1/subtlecrypto/{s}/{w}"), ("POST", "/v1.0-alpha1/subtlecrypto/vault/encrypt"),
          ("POST", "/v1.0-alpha1/conversation/{s}/converse"), ("POST", "/v1.0-alpha2/conversation/{s}/converse"),
          ("GET POST", "/v1.0/actors/{w}/{w}/method/m"), ("POST GET", "/v1.0/actors/{w}/{w}/state"), ("POST GET DELETE", "/v1.0/actors/{w}/{w}/reminders/{w}"),
          ("POST DELETE", "/v1.0/actors/{w}/{w}/timers/{w}"), ("POST", "/v1.0/workflows/{w}/{w}/start"), ("GET", "/v1.0-beta1/workflows/{w}/{w}"),
          ("POST", "/v1.0/workflows/{w}/{w}/raiseEvent/{w}"), ("POST GET DELETE", "/v1.0-alpha1/jobs/{w}"), ("GET POST", "/{w}"), ("GET", "/v1.0/{w}"),
          ("GET", "/hello/{w}"), ("POST", "/{m}")]
HEADERS = ["content-type: application/json", "content-type: application/cloudevents+json", "content-type: application/octet-stream", "content-type: ;;",
           "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "traceparent: x", "tracestate: a=b,c=d", "baggage: a=b;c=d,e=%ff",
           "baggage: ;;=", "grpc-trace-bin: AAAK92UZFs1D3YRI6yEcgDGcAbetaxaSMzEC", "dapr-app-id: app", "dapr-app-id: peer", "dapr-app-id: evil",
           "dapr-app-id: nobody", "authorization: Basic ZGFwci1hcHAtaWQ6YXBw", "accept-encoding: gzip", "accept: text/event-stream",
           "expect: 100-continue", "x-y: \xff", "metadata.a: b", "if-match: 1", "if-match: \"", "connection: close", "connection: keep-alive, x-y",
           "grpc-timeout: 1m", "dapr-key-name: aes256", "dapr-key-wrap-algorithm: A256KW", "dapr-key-wrap-algorithm: x", "dapr-omit-decryption-key-name: maybe",
           "dapr-data-encryption-cipher: chacha20-poly1305", "cookie: " + "c" * 500, "x-big: " + "b" * 5000, "origin: http://x", "te: trailers",
           "access-control-request-method: PUT", "forwarded: for=x", "x-forwarded-for: 1.2.3.4", "upgrade: h2c", "upgrade: websocket", "range: bytes=0-1"]
ENDING = ("connection", "x-big", "upgrade", "expect", "x-y", "te:", "content-type: ;;")
TAME = [h for h in HEADERS if not h.startswith(ENDING)]
JSONS = ['[{"key":"k","value":1}]', '[{"key":"k","value":{"a":[1,2,{"b":null}]},"etag":"1","options":{"concurrency":"first-write","consistency":"strong"},'
         '"metadata":{"ttlInSeconds":"1"}}]', '{"keys":["k","l","x"],"parallelism":2}',
         '{"operations":[{"operation":"upsert","request":{"key":"k","value":2}},{"operation":"delete","request":{"key":"k"}}],"metadata":{"a":"b"}}',
         '{"a":1}', '"text"', '{"filter":{"AND":[{"EQ":{"a":1}},{"OR":[{"IN":{"b":[1,2]}}]}]},"sort":[{"key":"a","order":"DESC"}],"page":{"limit":2}}',
         '[{"entryId":"1","event":"a","contentType":"text/plain"},{"entryId":"2","event":{},"contentType":"application/json"},'
         '{"entryId":"3","event":"AAE=","contentType":"application/octet-stream"}]', "",
         '{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"x":1},"expiration":"2020-01-01T00:00:00Z"}',
         '{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"a/b","data_base64":"!!"}',
         '{"operation":"create","data":"x","metadata":{"a":"b","fileName":"f","path":"/x"}}', '{"operation":"get","metadata":{"fileName":"../f"}}',
         '{"operation":"get","metadata":{"path":"m"}}', '{"operation":"list","data":{"maxResults":1}}', '{"resourceId":"k","lockOwner":"o","expiryInSeconds":1}',
         '{"resourceId":"k","lockOwner":"o"}', '{"inputs":[{"content":"call 555-123-4567","role":"user","scrubPII":true}],"parameters":{"a":{"@type":"x"}}}',
         '{"inputs":[{"messages":[{"ofUser":{"content":[{"text":"hi"}]}},{"ofTool":{"toolId":"1","content":[{"text":"r"}]}}]}],'
         '"tools":[{"function":{"name":"f","description":"d","parameters":{"type":"object"}}}],"toolChoice":"auto"}',
         '{"keyName":"aes256","algorithm":"A256GCM","plaintext":"AAE=","nonce":"AAAAAAAAAAAAAAAA"}', '{"schedule":"@every 1s","data":{"a":1}}',
         '{"dueTime":"1s","failurePolicy":{"constant":{"interval":"1s","maxRetries":2}}}', "[" * 200, '{"a":' * 60, "\x00" * 50, "[1,2", '{"k":"\\ud800"}',
         '{"a":1e999,"b":-0,"c":"' + "y" * 3000 + '"}', "dapr.io/enc/v1\n{\"k\":\"aes256\",\"kw\":1,\"wfk\":\"AAAA\",\"cph\":1,\"np\":\"AAAAAAAAAA==\"}\nAAAA\nzzzz"]
CONTROL = ["GET /v1/plugins", "GET /v1/plugins/{s}", "GET /v1/plugins/{s}/logs", "GET /v1/plugins/{s}/history", "POST /v1/plugins/{s}/enable",
           "POST /v1/plugins/{s}/upgrade?path=/nowhere", "POST /v1/plugins/{s}/upgrade?version=9", "POST /v1/plugins/{s}/rollback",
           "POST /v1/plugins/{s}/fault?delay=1ms&rate=0.1&for=1s", "POST /v1/plugins/{s}/fault?error=UNAVAILABLE&rate=0.2&for=1s",
           "POST /v1/plugins/{s}/fault?error=x", "POST /v1/plugins/{s}/unfault", "POST /v1/plugins/{s}/tap?for=1s", "GET /v1/plugins/{s}/tap",
           "POST /v1/plugins/{s}/untap", "POST /v1/plugins/{s}/call?method=/dapr.proto.components.v1.StateStore/Get",
           "POST /v1/plugins/{s}/call?method=/plugin.v1.Lifecycle/Hello", "GET /v1/subscriptions", "POST /v1/subscriptions/*/*/pause",
           "POST /v1/subscriptions/*/*/resume", "POST /v1/subscriptions/{s}/{t}/resume", "GET /v1/metrics", "GET /v1/requests", "GET /v1/{w}"]
HINTS = {"store_name": STORES + ["store", "lite", "remote", "odd", "store", "conf", "locks", "secrets"], "pubsub_name": ["pub", "pub", "redpub", "nobody", ""], "name": STORES, "component_name": ["vault", "vault", "odd", ""], "topic": TOPICS,
         "dead_letter_topic": ["", "dead"], "key": KEYS, "keys": KEYS, "id": APPS, "method": METHODS_OF_APPS, "operation": OPERATIONS,
         "operation_type": ["upsert", "delete", "x"], "key_name": ["aes256", "nokey", ""], "key_wrap_algorithm": ["A256KW", "AES", "RSA", ""],
         "algorithm": ["A256GCM", "A256KW", "x"], "data_encryption_cipher": ["", "aes-gcm", "x"], "content_type": ["application/json", "", "a/b", "\u00e9"],
         "data_content_type": ["application/json", "application/cloudevents+json", "", "text/plain"], "schedule": ["@every 1s", "* * * * * *", "x"],
         "resource_id": ["k"], "lock_owner": ["o", ""], "querystring": ["", "a=b", "%"], "query": JSONS[6:7] + ["", "{"],
         "service": ["dapr.proto.runtime.v1.Dapr"], "type_url": ["type.googleapis.com/google.protobuf.StringValue", "x", ""]}
# how a method is reached: services of the API port, of the internal port, and those that an app would have
API = ["dapr.proto.runtime.v1.Dapr", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "TaskHubSidecarService"]
INTERNAL = ["dapr.proto.internals.v1.ServiceInvocation"]
PROXIED = ["/test.Echo/Unary", "/test.Echo/Both", "/x/y", "//", "/", "/dapr.proto.runtime.v1.AppCallback/OnInvoke", "/grpc.health.v1.Health/Check"]
LEFT_OUT = {"/dapr.proto.runtime.v1.Dapr/Shutdown"}  # what would end the run is left out


def mutate(r, data):
    data = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 5, 20))):
        at = r.randrange(len(data) + 1)
        what = r.randrange(6)
        if what == 0 and at < len(data):
            data[at] = r.randrange(256)
        elif what == 1:
            data[at:at] = r.randbytes(r.randrange(1, 9))
        elif what == 2:
            del data[at:at + r.randrange(1, 9)]
        elif what == 3:
            data[at:at] = data[at:at + r.randrange(1, 60)]
        elif what == 4:
            data[at:at] = r.choice((b"\r\n", b"\r\n\r\n", b"\0", b"%", b"\xff\xff\xff\xff", b":", b"0\r\n\r\n", b"\x80\x80\x80\x80\x10"))
        elif at < len(data):
            data[at] ^= 1 << r.randrange(8)
    return bytes(data)


# ---- HTTP/1.1 ----

STATE, KINDS = ["store", "lite", "remote", "odd"], {"secrets": "secrets", "configuration": "conf", "lock": "locks", "unlock": "locks", "crypto": "vault",
                                                    "subtlecrypto": "vault", "conversation": "echo"}
# what fits a route best, by words of its path: bodies by their number in JSONS
BODIES = [("/transaction", (3,)), ("/query", (6,)), ("/bulk/", (7,)), ("/bulk", (2,)), ("/state", (0, 1)), ("/publish", (4, 5, 9, 10)), ("/bindings", (11, 12, 13, 14)),
          ("/lock", (15,)), ("/unlock", (16,)), ("alpha1/conversation", (17,)), ("alpha2/conversation", (18,)), ("/subtle", (19,)), ("/jobs", (20, 21)), ("/decrypt", (27,))]


def fitting(r, path):
    """The same path, its component one of the route's kind; and a body that the route takes."""
    block = path.split("/")[2] if path.count("/") > 2 else ""
    names = STATE if block == "state" else ["pub", "redpub"] if block == "publish" else ["web", "files", "web", "tick"] if block == "bindings" else [KINDS.get(block, "store")]
    body = next((numbers for word, numbers in BODIES if word in path), (4, 5, 8))
    return path.replace("{s}", r.choice(names)).replace("{a}", r.choice(("app", "app", "peer", "evil", "outside"))), JSONS[r.choice(body)].encode()


def fill_path(r, path):
    for mark, words in (("{s}", STORES), ("{k}", KEYS), ("{t}", TOPICS), ("{a}", APPS), ("{m}", METHODS_OF_APPS), ("{w}", WORDS)):
        while mark in path:
            path = path.replace(mark, r.choice(words), 1)
    if r.random() < 0.15:
        path += ("&" if "?" in path else "?") + r.choice(("metadata.rawPayload=true", "metadata.ttlInSeconds=1", "metadata.a=%zz", "consistency=strong", "a=b&a=c"))
    return path.replace(" ", "%20") or "/"


def request(r, wild):
    """(verb, path, headers, body) of the HTTP API. Not wild: nothing in it ends the connection, others can follow."""
    verbs, path = r.choice(ROUTES)
    if "/subscribe" in path and r.random() < 0.97:
        verbs, path = "GET", "/v1.0/metadata"  # each that succeeds stays until it is taken back: memory would tell nothing else
    body = r.choice(JSONS).encode()
    if r.random() < 0.6:
        path, body = fitting(r, path)
    verb, path = r.choice(verbs.split()), fill_path(r, path)
    if not wild:
        return verb, urllib.parse.quote(path, safe="/%?&=:.*|@{}+,", encoding="utf-8"), r.sample(TAME, r.choice((0, 0, 1, 2, 4))), body
    return r.choice((verb, verb, r.choice(VERBS))), path, r.sample(HEADERS, r.choice((1, 2, 4))), body


def http1_bytes(r, verb, path, headers, body, token="", last=False):
    lines = [f"{verb} {path} HTTP/1.{0 if last and r.random() < 0.1 else 1}", "host: x"] + headers + ([f"dapr-api-token: {token}"] if token and r.random() < 0.97 else [])
    if last:
        lines.append("connection: close")
    if r.random() < 0.15:
        cut = r.randrange(len(body) + 1)
        parts = [p for p in (body[:cut], body[cut:]) if p]
        return "\r\n".join(lines + ["transfer-encoding: chunked", "", ""]).encode("utf-8", "replace") + b"".join(
            b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + r.choice((b"0\r\n\r\n", b"0\r\nx-t: 1\r\n\r\n"))
    return "\r\n".join(lines + [f"content-length: {len(body)}", "", ""]).encode("utf-8", "replace") + body


def http1(r, count, token=""):
    """A connection's bytes; the last request may have bytes changed."""
    wild = r.random() < 0.5
    all = [http1_bytes(r, *request(r, wild and i == count - 1), token, i == count - 1) for i in range(count)]
    if r.random() < 0.02:
        return b"GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n" \
            + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
    return b"".join(all[:-1]) + (mutate(r, all[-1]) if r.random() < 0.4 else all[-1])


def control(r, count):
    out = []
    for _ in range(count):
        verb, path = r.choice(CONTROL).split(" ", 1)
        data = http1_bytes(r, verb, fill_path(r, path), [], r.choice((b"", b"", b"\x0a\x01k", r.randbytes(9))))
        out.append(mutate(r, data) if r.random() < 0.3 else data)
        if out[-1] is not data:
            break
    return b"".join(out)


# ---- HTTP/2 ----

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags & 255]) + struct.pack(">I", stream) + payload


def number(n, bits, first):
    top = (1 << bits) - 1
    if n < top:
        return bytes([first | n])
    out, n = [first | top], n - top
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + [n])


def hpack(pairs):
    return b"".join(b"\x10" + number(len(k), 7, 0) + k + number(len(v), 7, 0) + v for k, v in pairs)


def junk_protobuf(r, depth=0):
    out = b""
    for _ in range(r.randrange(6)):
        n, kind = r.randrange(1, 15), r.choice((0, 2, 2, 2, 1, 5))
        out += bytes([n << 3 | kind])
        if kind == 0:
            out += r.choice((b"\0", b"\1", b"\x7f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"))
        elif kind == 2:
            inner = junk_protobuf(r, depth + 1) if depth < 4 and r.random() < 0.5 else r.choice(WORDS).encode("utf-8", "replace")[:100]
            out += number(len(inner), 7, 0)[:1] + inner if len(inner) < 127 else b"\0"
        else:
            out += r.randbytes(8 if kind == 1 else 4)
    return out


class Messages:
    """Random messages of the methods in proto/, from their descriptors. Needs grpc_tools."""

    def __init__(self):
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        self.get_class = message_factory.GetMessageClass
        from grpc_tools import protoc
        files = [str(p.relative_to(ROOT / "proto")) for d in ("dapr/proto/runtime", "dapr/proto/internals", "dapr/proto/components", "dapr/proto/sentry", "grpc/reflection",
                 "durabletask") for p in sorted((ROOT / "proto" / d).rglob("*.proto"))]
        with tempfile.NamedTemporaryFile(suffix=".pb") as f:
            wkt = pathlib.Path(sys.modules["grpc_tools"].__file__).parent / "_proto"
            if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{wkt}", "--include_imports", f"-o{f.name}", *files]):
                raise SystemExit("proto/ cannot be read")
            all = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(f.name).read_bytes())
        pool = descriptor_pool.DescriptorPool()
        self.services = {}
        for file in all.file:
            pool.Add(file)
        for file in all.file:
            for s in file.service:
                self.services[pool.FindFileByName(file.name).services_by_name[s.name].full_name] = pool.FindFileByName(file.name).services_by_name[s.name]
        self.methods = {group: [(f"/{s}/{m.name}", m.input_type, m.client_streaming) for s in names if s in self.services
                                for m in self.services[s].methods if f"/{s}/{m.name}" not in LEFT_OUT]
                        for group, names in (("api", API), ("internal", INTERNAL))}

    def value(self, r, f, depth, seq):
        t = f.cpp_type
        if t == f.CPPTYPE_MESSAGE:
            m = self.get_class(f.message_type)()
            self.fill(r, m, depth + 1, seq)
            return m
        if t == f.CPPTYPE_ENUM:
            return r.choice(f.enum_type.values).number if r.random() < 0.9 or f.enum_type.is_closed else 77
        if t == f.CPPTYPE_BOOL:
            return r.random() < 0.5
        if t in (f.CPPTYPE_FLOAT, f.CPPTYPE_DOUBLE):
            return r.choice((0.0, 1.5, -1.0, float("inf"), float("nan")))
        if t != f.CPPTYPE_STRING:
            return seq if f.name == "seq" and r.random() < 0.8 else r.choice((0, 1, 2, 5, 0x7fffffff))
        if f.type == f.TYPE_BYTES:
            return r.choice((r.choice(JSONS).encode(), b"", r.randbytes(r.randrange(40)), b"\0"))
        return r.choice(HINTS.get(f.name, WORDS))

    def fill(self, r, m, depth, seq):
        fields = m.DESCRIPTOR.fields
        for f in fields:
            if depth > 5 or r.random() > (0.85 if f.name in HINTS or depth == 0 else 0.5):
                continue
            if f.containing_oneof and m.WhichOneof(f.containing_oneof.name) and not (depth == 0 and seq):
                continue  # the first of a oneof mostly: what streams begin with
            if f.message_type and f.message_type.GetOptions().map_entry:
                kf, vf = f.message_type.fields_by_name["key"], f.message_type.fields_by_name["value"]
                for _ in range(r.randrange(3)):
                    k = r.choice(("a", "ttlInSeconds", "rawPayload", "contentType", "x-y", ":path", "dapr-caller-app-id", "host", "k-bin")) \
                        if kf.cpp_type == kf.CPPTYPE_STRING else 1
                    if vf.cpp_type == vf.CPPTYPE_MESSAGE:
                        self.fill(r, getattr(m, f.name)[k], depth + 1, seq)
                    else:
                        getattr(m, f.name)[k] = self.value(r, vf, depth, seq)
            elif f.is_repeated:
                items = [self.value(r, f, depth, seq) for _ in range(r.choice((0, 1, 1, 2, 4)))]
                getattr(m, f.name).extend(items)
            elif f.cpp_type == f.CPPTYPE_MESSAGE:
                self.fill(r, getattr(m, f.name), depth + 1, seq)
                getattr(m, f.name).SetInParent()
            else:
                setattr(m, f.name, self.value(r, f, depth, seq))

    def one(self, r, input_type, seq=0):
        m = self.get_class(input_type)()
        self.fill(r, m, 0, seq)
        return m.SerializeToString()

    def stream(self, r, group):
        """(path, messages) of a call."""
        if r.random() < 0.12:
            return r.choice(PROXIED), [junk_protobuf(r) for _ in range(r.choice((1, 1, 3)))]
        path, input_type, streams = r.choice(self.methods[group])
        if r.random() < 0.08:
            return path, [junk_protobuf(r)]
        all = [self.one(r, input_type, i) for i in range(r.choice((1, 2, 2, 4)) if streams else 1)]
        if r.random() < 0.25:
            i = r.randrange(len(all))
            all[i] = mutate(r, all[i])
        return path, all


def http2(r, count, messages, group, token=""):
    """A connection's bytes: `count` requests, mostly gRPC of that group ("api", "internal")."""
    out = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0), frame(8, 0, 0, struct.pack(">I", 1 << 24))]
    for i in range(count):
        id = 2 * i + 1
        if r.random() < 0.8:
            path, all = messages.stream(r, group)
            head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]
            body = b"".join(struct.pack(">BI", r.choice((0,) * 30 + (1, 7)), len(m) + (r.random() < 0.02)) + m for m in all)
            if path in PROXIED or r.random() < 0.2:
                head.append((b"dapr-app-id", r.choice(APPS).encode()))
        else:
            verb, path, headers, body = request(r, r.random() < 0.05)
            head = [(b":method", verb.encode()), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x")]
            head += [tuple(x.encode() for x in h.split(": ", 1)) for h in headers if not h.startswith(("connection", "upgrade", "te:", "expect"))]
        if token and r.random() < 0.97:
            head.append((b"dapr-api-token", token.encode()))
        if r.random() < 0.1:
            head.append(r.choice(((b"grpc-timeout", b"1m"), (b"grpc-timeout", b"0n"), (b"grpc-timeout", b"99999999H"), (b"grpc-timeout", b"x"), (b"dapr-stream", b"true"),
                                  (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), (b"grpc-trace-bin", b"!!"), (b"x-bin", b"AAE"),
                                  (b"x-y", b"\xff\xfe"), (b"grpc-encoding", b"gzip"), (b"dapr-callee-app-id", b"app"), (b"baggage", b";"))))
        out.append(frame(1, 4, id, hpack(head)))
        if r.random() < (0.15 if i == count - 1 else 0.002):
            out.append(frame(r.randrange(12), r.randrange(256), r.choice((0, id)), r.randbytes(r.randrange(20))))
        last = 0 if r.random() < 0.01 else 1  # streams that their caller leaves open
        out.append(frame(0, last, id, body) if r.random() < 0.95 else frame(3, 0, id, b"\0\0\0\x08"))
    data = b"".join(out[:-2])
    return data + (mutate(r, b"".join(out[-2:])) if r.random() < 0.4 else b"".join(out[-2:]))


# ---- answers of apps ----

STATUSES = [200, 200, 200, 200, 201, 204, 302, 304, 400, 403, 404, 404, 409, 429, 500, 500, 502, 503, 504, 101, 999, 99]
ANSWERS = [b'{"status":"SUCCESS"}', b'{"status":"RETRY"}', b'{"status":"DROP"}', b'{"status":7}', b'{"statuses":[{"entryId":"1","status":"SUCCESS"}]}', b'{"statuses":{}}',
           b"", b"ok", b'{"a":1}', b"{", b"\xff\xfe", b"y" * 70000, b'{"state":[{"key":"k","value":1}],"to":["files"],"operation":"create","data":"x"}']


def answer(r, verb="GET"):
    """(bytes, close afterwards?) of an HTTP/1.1 answer, mostly a right one."""
    body = r.choice(ANSWERS)
    status = r.choice(STATUSES)
    head = [f"HTTP/1.1 {status} X", r.choice(("content-type: application/json", "content-type: text/event-stream", "x-a: b", "content-type: \xff"))]
    right = "\r\n".join(head + [f"content-length: {len(body)}", "", ""]).encode("latin-1") + (b"" if verb == "HEAD" or status in (204, 304) or status < 200 else body)
    if r.random() < 0.6:
        return right, status < 200
    chunks = b"%x\r\n%s\r\n" % (len(body) or 1, body or b"z")
    head = "\r\n".join(head).encode("latin-1") + b"\r\n"
    return r.choice((
        lambda: head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\nx-t: 1\r\n\r\n",
        lambda: head + b"transfer-encoding: chunked\r\n\r\n" + chunks,                       # ends in the middle
        lambda: head + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        lambda: head + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n" + body,
        lambda: head + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        lambda: head + b"content-length: 99999\r\n\r\n" + body,
        lambda: head + b"content-length: -1\r\n\r\n",
        lambda: head + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        lambda: head + b"\r\n" + body,                                                        # until the end
        lambda: head + b"x-big: " + b"b" * r.choice((5000, 70000, 2000000)) + b"\r\ncontent-length: 0\r\n\r\n",
        lambda: head + b"".join(b"x-%d: %d\r\n" % (i, i) for i in range(r.choice((90, 2000)))) + b"content-length: 0\r\n\r\n",
        lambda: b"HTTP/1.1 100 Continue\r\n\r\n" * r.choice((1, 3, 500)) + right,
        lambda: b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + right,
        lambda: b"HTTP/0.9 200\n\nx", lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0), lambda: r.randbytes(200), lambda: b"",
        lambda: head + b"connection: close\r\ncontent-length: 2\r\n\r\nok", lambda: head + b"grpc-status: 0\r\nx:y\r\n\tfolded\r\ncontent-length: 0\r\n\r\n",
        lambda: right + right, lambda: mutate(r, right), lambda: right[:r.randrange(len(right))]))(), True
