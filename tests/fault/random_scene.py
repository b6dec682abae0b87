"""Where random_requests.py speaks: sidecars with nearly every kind of component, and peers that answer badly: an app over HTTP or gRPC, a
sidecar, a pluggable component, a collector of spans. Peers run in processes of their own: `random_scene.py app|grpc-app|proxy|sentry ...`. While
a file CALM lies in their folder they answer well, so that what waits for them can end: memory is read then."""
import asyncio, datetime, ipaddress, json, os, pathlib, random, shutil, signal, socket, sqlite3, struct, subprocess, sys, time, urllib.request

import random_grammar as grammar

ROOT = grammar.ROOT
HERE = pathlib.Path(__file__).resolve().parent
TOKEN = "token-of-the-api"
# scene: the app's protocol, and what else is on. Each has an own app and sidecar ("app"), and a second sidecar ("peer") that calls it.
SCENES = {"http": ("http", set()), "grpc": ("grpc", set()), "mtls": ("http", {"mtls", "uds", "acl"}), "walls": ("http", {"walls", "acl"}),
          "walls-grpc": ("grpc", {"walls", "mtls", "acl"})}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- peers ----

def calm():
    return os.path.exists("CALM")


class App:
    """An HTTP server whose answers come from the grammar; right ones to what daprd asks at its start."""

    def __init__(self, seed):
        self.r, self.subscribed = random.Random(seed), False

    def subscriptions(self):
        if self.subscribed and self.r.random() < 0.5:
            return grammar.mutate(self.r, b'[{"pubsubname":"pub","topic":"t","route":"/t"}]')
        self.subscribed = True
        return json.dumps([{"pubsubname": "pub", "topic": "t", "routes": {"rules": [{"match": "event.type == 't'", "path": "/typed"}], "default": "/t"},
                            "deadLetterTopic": "dead"}, {"pubsubname": "redpub", "topic": "bulk", "route": "/bulk",
                           "bulkSubscribe": {"enabled": True, "maxMessagesCount": 5, "maxAwaitDurationMs": 20}}]).encode()

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                verb, path = head.split(b" ", 2)[:2]
                lower = head.lower()
                if b"content-length:" in lower:
                    await reader.readexactly(int(lower.split(b"content-length:")[1].split(b"\r\n")[0]))
                elif b"transfer-encoding:" in lower:
                    while (line := await reader.readuntil(b"\r\n")) != b"0\r\n":
                        await reader.readexactly(int(line, 16) + 2)
                    while await reader.readuntil(b"\r\n") != b"\r\n":
                        pass
                if path == b"/dapr/subscribe":
                    body = self.subscriptions()
                    data, last = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body, False
                elif path.startswith((b"/dapr/", b"/healthz")) or verb == b"OPTIONS" or calm():
                    data, last = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", False
                else:
                    data, last = grammar.answer(self.r, verb.decode())
                    if self.r.random() < 0.02:
                        await asyncio.sleep(self.r.choice((0.01, 0.1, 0.6)))
                if self.r.random() < 0.1:  # in pieces
                    cut = self.r.randrange(len(data) + 1)
                    writer.write(data[:cut])
                    await asyncio.sleep(0.001)
                    data = data[cut:]
                writer.write(data)
                await asyncio.wait_for(writer.drain(), 5)
                if last:
                    break
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass
        if self.r.random() < 0.3:
            reset(writer)
        writer.close()


def reset(writer):
    s = writer.get_extra_info("socket")
    if s.fileno() >= 0 and s.family != socket.AF_UNIX:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def grpc_app(port, seed):
    """Answers of every method: right messages, junk, errors; of a service test.Echo too."""
    import concurrent.futures
    import grpc
    messages, r = grammar.Messages(), random.Random(seed)
    out = {f"/{s}/{m.name}": m.output_type for s, d in messages.services.items() if "AppCallback" in s for m in d.methods}

    class Any(grpc.GenericRpcHandler):
        def service(self, details):
            def call(requests, context):
                if details.method.endswith(("ListTopicSubscriptions", "HealthCheck")) and r.random() < 0.8:
                    from dapr.proto.runtime.v1 import appcallback_pb2
                    yield b"" if details.method.endswith("Check") else appcallback_pb2.ListTopicSubscriptionsResponse(subscriptions=[
                        appcallback_pb2.TopicSubscription(pubsub_name="pub", topic="t", dead_letter_topic="dead")]).SerializeToString()
                    return
                if details.method.endswith("ListInputBindings"):
                    yield b"\n\4tick"
                    return
                if r.random() < 0.02:
                    time.sleep(r.choice((0.01, 0.1, 0.6)))
                if r.random() < 0.2:
                    context.send_initial_metadata((("x-head", "h"), ("x-bin", r.randbytes(9))))
                if r.random() < 0.2:
                    context.set_trailing_metadata((("x-tail", "t" * r.choice((1, 3000))), ("grpc-status-details-bin", r.randbytes(20))))
                if r.random() < 0.2:
                    context.abort(r.choice(list(grpc.StatusCode)[1:]), r.choice(("", "é", "x" * 2000, "%zz")))
                if details.method in out and r.random() < 0.7:
                    yield messages.one(r, out[details.method])
                    return
                for _ in range(r.choice((0, 1, 1, 1, 2))):
                    yield grammar.junk_protobuf(r)
            return grpc.stream_stream_rpc_method_handler(call)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers([Any()])
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    server.wait_for_termination()


class Proxy:
    """Passes bytes on, some of them changed, and ends some connections. The first bytes of each are left alone: a good beginning leads further."""

    def __init__(self, seed, to, rate, calm):
        self.r, self.to, self.rate, self.until = random.Random(seed), to, rate, time.monotonic() + calm

    async def serve(self, reader, writer):
        try:
            there = await (asyncio.open_unix_connection(self.to) if "/" in self.to else asyncio.open_connection("127.0.0.1", int(self.to)))
        except OSError:
            writer.close()
            return
        up = asyncio.ensure_future(self.pump(reader, there[1], 0))
        await self.pump(there[0], writer, self.rate)
        up.cancel()
        for w in (writer, there[1]):
            if self.r.random() < 0.3:
                reset(w)
            w.close()

    async def pump(self, reader, writer, rate):
        first = True
        try:
            while data := await reader.read(1 << 16):
                if not first and self.r.random() < rate and time.monotonic() > self.until and not calm():
                    what = self.r.random()
                    data = grammar.mutate(self.r, data) if what < 0.6 else self.r.randbytes(60) if what < 0.7 else data[:len(data) // 2]
                    writer.write(data)
                    if what > 0.9:
                        break
                else:
                    writer.write(data)
                first = False
                await writer.drain()
        except OSError:
            pass
        writer.close()


def certificate(name, issuer, key, by, ca=False, days=30):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    now = datetime.datetime.now(datetime.timezone.utc)
    b = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(issuer).public_key(key).serial_number(x509.random_serial_number())
    b = b.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=days))
    b = b.add_extension(x509.BasicConstraints(ca, None), True)
    if name:
        b = b.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), True)
    return b.sign(by, hashes.SHA256())


def pem(x):
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    return x.public_bytes(Encoding.PEM) if hasattr(x, "public_bytes") else x.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def authority(folder):
    """root.pem, ca.key, and client.pem/.key of a stranger in the same domain."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    now = datetime.datetime.now(datetime.timezone.utc)
    root, client = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.key").write_bytes(pem(root))
    cert = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(root.public_key()).serial_number(1).not_valid_before(
        now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=30)).add_extension(x509.BasicConstraints(True, None), True).sign(root, hashes.SHA256())
    (folder / "root.pem").write_bytes(pem(cert))
    (folder / "client.pem").write_bytes(pem(certificate("spiffe://public/ns/default/stranger", name, client.public_key(), root)))
    (folder / "client.key").write_bytes(pem(client))


def sentry(port, folder):
    """Signs whatever is asked for: SVIDs for the scenes with mutual TLS."""
    import concurrent.futures
    import grpc
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    root, ca = load_pem_private_key((folder / "ca.key").read_bytes(), None), (folder / "root.pem").read_bytes()
    issuer = x509.load_pem_x509_certificate(ca).subject
    messages = grammar.Messages()
    method = messages.services["dapr.proto.sentry.v1.CA"].methods[0]
    asked, signed = messages.get_class(method.input_type), messages.get_class(method.output_type)

    def sign(data, context):
        req = asked.FromString(data)
        csr = req.certificate_signing_request
        key = (x509.load_pem_x509_csr(csr) if b"BEGIN" in csr else x509.load_der_x509_csr(csr)).public_key()
        leaf = certificate(f"spiffe://{req.trust_domain or 'public'}/ns/{req.namespace}/{req.id}", issuer, key, root)
        out = signed(workload_certificate=pem(leaf), trust_chain_certificates=[ca])
        out.valid_until.FromDatetime(leaf.not_valid_after_utc.replace(tzinfo=None))
        return out.SerializeToString()
    own = ec.generate_private_key(ec.SECP256R1())
    cert = certificate("spiffe://localhost/ns/default/dapr-sentry", issuer, own.public_key(), root)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("dapr.proto.sentry.v1.CA", {"SignCertificate": grpc.unary_unary_rpc_method_handler(sign)})])
    assert server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(pem(own), pem(cert) + ca)])) == port
    server.start()
    server.wait_for_termination()


def peer(argv):
    async def listen(where, fn):
        server = await (asyncio.start_unix_server(fn, where) if "/" in where else asyncio.start_server(fn, "127.0.0.1", int(where), limit=1 << 22))
        async with server:
            await server.serve_forever()
    if argv[0] == "app":
        asyncio.run(listen(argv[1], App(argv[2]).serve))
    elif argv[0] == "proxy":
        asyncio.run(listen(argv[1], Proxy(argv[3], argv[2], float(argv[4]), float(argv[5])).serve))
    elif argv[0] == "grpc-app":
        grpc_app(int(argv[1]), argv[2])
    elif argv[0] == "sentry":
        sentry(int(argv[1]), pathlib.Path(argv[2]))


# ---- resources ----

def resource(kind, name, spec, **more):
    return json.dumps({"apiVersion": f"dapr.io/{more.pop('api', 'v1alpha1')}", "kind": kind, "metadata": {"name": name}, "spec": spec, **more})


def component(name, kind, **md):
    return resource("Component", name, {"type": kind, "version": "v1", "metadata": [{"name": k, "value": v} for k, v in md.items()]})


def resources(folder, app_port, redis, walls, odd):
    (folder / "secrets.json").write_text('{"k":"v","nested":{"a":{"b":"c"}}}')
    (folder / "keys").mkdir()
    (folder / "keys/aes256").write_bytes(bytes(range(32)))
    (folder / "files").mkdir()
    web = f"http://127.0.0.1:{app_port}"
    out = [component("store", "state.in-memory"), component("lite", "state.sqlite", connectionString=str(folder / "lite.db")), component("pub", "pubsub.in-memory"),
           component("echo", "conversation.echo"), component("secrets", "secretstores.local.file", secretsFile=str(folder / "secrets.json"), multiValued="false"),
           component("vault", "crypto.dapr.localstorage", path=str(folder / "keys")), component("files", "bindings.localstorage", rootPath=str(folder / "files")),
           component("web", "bindings.http", url=web, responseTimeout="300ms", maxResponseBodySize="1Mi"), component("tick", "bindings.cron", schedule="@every 1s"),
           resource("HTTPEndpoint", "outside", {"baseUrl": web, "headers": [{"name": "x-e", "value": "1"}]}),
           resource("Subscription", "declared", {"pubsubname": "pub", "topic": "raw", "routes": {"rules": [
               {"match": "event.data.a == 1 || has(event.data.b)", "path": "/a"}, {"match": "event.type.startsWith('t')", "path": "/b"}], "default": "/raw"},
               "metadata": {"rawPayload": "true"}, "deadLetterTopic": "dead"}, api="v2alpha1"),
           resource("Subscription", "bulky", {"pubsubname": "pub", "topic": "bulk", "route": "/bulk", "bulkSubscribe": {"enabled": True, "maxMessagesCount": 10,
                    "maxAwaitDurationMs": 20}}),
           resource("Resiliency", "policies", {"policies": {"retries": {"r": {"policy": "constant", "duration": "5ms", "maxRetries": 2}}, "timeouts": {"t": "300ms"},
                    "circuitBreakers": {"b": {"maxRequests": 1, "timeout": "100ms", "trip": "consecutiveFailures > 20"}}},
                    "targets": {"apps": {x: {"retry": "r", "timeout": "t", **({"circuitBreaker": "b"} if x == "evil" else {})} for x in ("app", "peer", "evil", "outside")},
                                "components": {x: {"outbound": {"retry": "r", "timeout": "t"}, "inbound": {"retry": "r", "timeout": "t"}}
                                               for x in ("store", "lite", "odd", "pub", "redpub", "web", "tick", "remote")}}})]
    if redis:
        at = f"127.0.0.1:{redis}"
        out += [component("remote", "state.redis", redisHost=at), component("redpub", "pubsub.redis", redisHost=at, processingTimeout="1s", redeliverInterval="1s"),
                component("conf", "configuration.redis", redisHost=at), component("locks", "lock.redis", redisHost=at)]
    if odd:
        out += [resource("Component", "odd", {"type": "state.odd", "version": "v1", "ignoreErrors": True, "metadata": []})]
    if walls:
        out += [component("alias", "middleware.http.routeralias", routes=json.dumps({"/hello/{w}": "/v1.0/invoke/app/method/{w}", "/x": "/v1.0/metadata"})),
                component("loud", "middleware.http.uppercase"), component("limit", "middleware.http.ratelimit", maxRequestsPerSecond="100000"),
                component("check", "middleware.http.routerchecker", rule="^[^<>]*$")]
    return out


def configuration(names, marks, scene, spans):
    spec = {"nameResolution": {"component": "sqlite", "version": "v1", "configuration": {"connectionString": str(names)}},
            # without it each unknown path would be a label value of its own
            "metrics": {"recordErrorCodes": True, "http": {"increasedCardinality": "walls" in marks, "pathMatching": ["/v1.0/invoke/{a}/method/{m}", "/m/{x}"]},
                        "rules": [{"name": "dapr_http_server_request_count", "labels": [{"name": "path", "regex": {"long": "/v1.0/.{20,}", "state": "/v1.0/state/.*"}}]}]},
            "tracing": {"samplingRate": "1", "otel": {"endpointAddress": f"127.0.0.1:{spans}", "isSecure": False, "protocol": "grpc" if scene == "grpc" else "http"}},
            "secrets": {"scopes": [{"storeName": "secrets", "defaultAccess": "allow", "deniedSecrets": ["l"]}]}}
    if scene == "http":
        spec["tracing"] = {"samplingRate": "0.5", "zipkin": {"endpointAddress": f"http://127.0.0.1:{spans}/api/v2/spans"}}
    if "acl" in marks:
        spec["accessControl"] = {"defaultAction": "allow", "trustDomain": "public", "policies": [{"appId": "peer", "defaultAction": "allow", "trustDomain": "public",
            "namespace": "default", "operations": [{"name": "/deny/**", "httpVerb": ["*"], "action": "deny"}, {"name": "/a/*/c", "httpVerb": ["GET", "POST"], "action": "deny"}]}]}
    if "walls" in marks:
        handlers = [{"name": n, "type": f"middleware.http.{t}"} for n, t in (("limit", "ratelimit"), ("alias", "routeralias"), ("check", "routerchecker"), ("loud", "uppercase"))]
        spec |= {"httpPipeline": {"handlers": handlers}, "appHttpPipeline": {"handlers": handlers[3:]},
                 "api": {"denied": [{"name": "lock", "version": "v1alpha1", "protocol": "http"}, {"name": "secrets", "version": "v1", "protocol": "grpc"}]},
                 "logging": {"apiLogging": {"enabled": True, "obfuscateURLs": True}}}
    return resource("Configuration", "c", spec)


class Scene:
    """Everything of one scene in a folder; ends with its context."""

    def __init__(self, folder, build, name, seed):
        self.folder, self.build, self.name, self.seed = folder, (ROOT / build).resolve(), name, seed
        self.protocol, self.marks = SCENES[name]
        self.procs, self.daprds = [], {}
        self.token = TOKEN if "walls" in self.marks else ""
        self.tls = None

    def spawn(self, *argv, env=None, log=None):
        p = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=open(self.folder / (log or "peers.log"), "ab"), stderr=subprocess.STDOUT, cwd=self.folder, env=env)
        self.procs.append(p)
        return p

    def peer(self, *argv):
        return self.spawn(sys.executable, HERE / "random_scene.py", *argv)

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self):
        f = self.folder
        app, raw, evil, spans, sockets = free_port(), free_port(), free_port(), free_port(), f / "sockets"
        sockets.mkdir()
        self.peer("app", raw, f"{self.seed}/app")
        if self.protocol == "grpc":
            real = free_port()
            self.peer("grpc-app", real, f"{self.seed}/grpc")
            self.peer("proxy", app, real, f"{self.seed}/appproxy", 0.01, 5)
        else:
            app = raw
        redis = free_port() if shutil.which("redis-server") else 0
        if redis:
            self.spawn("redis-server", "--port", redis, "--save", "", "--bind", "127.0.0.1", log="redis.log")
        odd = self.odd(sockets)
        if "mtls" in self.marks:
            authority(f)
            self.sentry = free_port()
            self.peer("sentry", self.sentry, f)
        self.targets = {}
        names = f / "names.db"
        for who in ("app", "peer"):
            self.sidecar(who, app if who == "app" else 0, raw, redis, odd and who == "app", names, spans)
        # a sidecar that answers badly, and a collector that does
        self.peer("proxy", evil, self.internal["app"], f"{self.seed}/evil", 0.05, 0)
        self.peer("proxy", spans, self.internal["peer"] if self.name == "grpc" else raw, f"{self.seed}/spans", 0.05, 0)
        self.wait()
        with sqlite3.connect(names, timeout=20) as db:
            db.execute("INSERT OR REPLACE INTO hosts VALUES ('evil', ?, 'evil', ?, ?)", (f"127.0.0.1:{evil}", self.namespace(db), 1 << 60))
        db.close()

    def namespace(self, db):
        """The one under which the sidecars are registered, a moment after their start."""
        for _ in range(500):
            try:
                if row := db.execute("SELECT namespace FROM hosts WHERE app_id = 'app'").fetchone():
                    return row[0]
            except sqlite3.OperationalError:
                pass  # not even the table yet
            time.sleep(0.02)
        raise SystemExit("the name resolver has registered nobody")

    def odd(self, sockets):
        """A pluggable store behind a proxy that changes its answers."""
        gen = self.folder / "gen"
        gen.mkdir()
        protos = [str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto/dapr/proto/components/v1").glob("*.proto")] + ["dapr/proto/common/v1/common.proto"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={gen}", f"--grpc_python_out={gen}", *protos], check=True)
        for d in [gen / "dapr", *(gen / "dapr").rglob("*/")]:
            (d / "__init__.py").touch()  # a package of its own, before the SDK's of the same name
        self.spawn(sys.executable, ROOT / "tests/conformance/pluggable_store.py", self.folder / "real.sock", gen)
        self.peer("proxy", sockets / "odd.sock", self.folder / "real.sock", f"{self.seed}/odd", 0.02, 8)
        return True

    def sidecar(self, who, app_port, raw, redis, odd, names, spans):
        f = self.folder / who
        (f / "resources").mkdir(parents=True)
        for i, text in enumerate(resources(f, raw, redis, "walls" in self.marks, odd)):
            (f / f"resources/{i}.yaml").write_text(text)
        (f / "config.yaml").write_text(configuration(names, self.marks, self.name, spans))
        ports = {k: free_port() for k in ("http", "grpc", "internal", "metrics", "public", "profile")}
        argv = [self.build / "bin/daprd", f"--app-id={who}", f"--dapr-http-port={ports['http']}", f"--dapr-grpc-port={ports['grpc']}",
                f"--dapr-internal-grpc-port={ports['internal']}", f"--metrics-port={ports['metrics']}", "--dapr-listen-addresses=127.0.0.1",
                "--dapr-internal-grpc-listen-address=127.0.0.1", "--metrics-listen-address=127.0.0.1", f"--dapr-public-port={ports['public']}",
                "--dapr-public-listen-address=127.0.0.1", f"--profile-port={ports['profile']}", "--enable-profiling", f"--resources-path={f}/resources",
                f"--config={f}/config.yaml", "--log-level=error", "--enable-subtle-crypto", "--max-body-size=1Mi", "--dapr-graceful-shutdown-seconds=30"]
        if app_port:
            argv += [f"--app-port={app_port}", f"--app-protocol={self.protocol}", "--app-max-concurrency=20"]
            argv += ["--enable-app-health-check", "--app-health-probe-interval=1"] if "walls" in self.marks else []
        (f / "run").mkdir(mode=0o700)
        env = {"PATH": os.environ["PATH"], "DAPR_COMPONENTS_SOCKETS_FOLDER": str(self.folder / "sockets") if odd else "/nonexistent", "XDG_RUNTIME_DIR": str(f / "run"),
               "ASAN_OPTIONS": "detect_leaks=1:malloc_context_size=6:quarantine_size_mb=1:thread_local_quarantine_size_kb=64", "UBSAN_OPTIONS": "print_stacktrace=1",
               "OTEL_BSP_SCHEDULE_DELAY": "500", "OTEL_BSP_MAX_QUEUE_SIZE": "512", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "256"}
        if self.token:
            env |= {"DAPR_API_TOKEN": self.token, "APP_API_TOKEN": "other"}
        if "mtls" in self.marks:
            argv += ["--enable-mtls", f"--sentry-address=127.0.0.1:{self.sentry}", "--control-plane-trust-domain=localhost", "--control-plane-namespace=default"]
            env["DAPR_TRUST_ANCHORS"] = (self.folder / "root.pem").read_text()
        if "uds" in self.marks:
            argv.append(f"--unix-domain-socket={f}")
            ports["http"], ports["grpc"] = str(f / f"dapr-{who}-http.socket"), str(f / f"dapr-{who}-grpc.socket")
        self.daprds[who] = self.spawn(*argv, env=env, log=f"{who}.log")
        self.internal = getattr(self, "internal", {}) | {who: ports["internal"]}
        self.targets |= {(who, k): p for k, p in ports.items()}

    def wait(self):
        for who, d in self.daprds.items():
            end = time.monotonic() + 120
            while not self.healthy(who):
                if d.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{who} does not start:\n" + (self.folder / f"{who}.log").read_text(errors="replace")[-4000:])
                time.sleep(0.05)
            while not (run := list((self.folder / who / "run").rglob(f"{who}.*.sock"))) and time.monotonic() < end:
                time.sleep(0.05)
            self.targets[who, "control"] = str(run[0])
        if "mtls" in self.marks:
            import ssl
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
            self.tls.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
            self.tls.set_alpn_protocols(["h2"])

    def calm(self, on):
        (self.folder / "CALM").touch() if on else (self.folder / "CALM").unlink()

    def healthy(self, who):
        at = self.targets[who, "http"]
        try:
            s = socket.socket(socket.AF_UNIX) if isinstance(at, str) else socket.socket()
            s.settimeout(20)
            with s:
                s.connect(at if isinstance(at, str) else ("127.0.0.1", at))
                s.sendall(b"GET /v1.0/healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                return b" 204 " in s.recv(100)
        except OSError:
            return False

    def metrics(self, who):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.targets[who, 'metrics']}/", timeout=60).read().decode(errors="replace")
        except OSError:
            return ""

    def log(self, who):
        return (self.folder / f"{who}.log").read_text(errors="replace")

    def stop(self):
        """Exit codes of the sidecars."""
        for d in self.daprds.values():
            if d.poll() is None:
                d.send_signal(signal.SIGTERM)
        codes = {}
        for who, d in self.daprds.items():
            try:
                codes[who] = d.wait(90)
            except subprocess.TimeoutExpired:
                d.kill()
                codes[who] = "did not stop"
        return codes

    def __exit__(self, *_):
        for p in reversed(self.procs):
            if p.poll() is None:
                p.kill()
            p.wait()


if __name__ == "__main__":
    peer(sys.argv[1:])
