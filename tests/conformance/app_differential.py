"""The app's side beside the reference's sidecar: protocols and certificates, health checks, the limit of calls at a time, the app's and the
API's tokens. What the app is sent, what callers get and what the log says must be the same. OTHER_DAPRD = path of the reference's daprd."""
import collections, json, os, re, subprocess, threading, time

import grpc
import pytest
from dapr.proto import api_service_v1, api_v1, common_v1

from conftest import ROOT, component, free_port, wait_until
from test_bindings import App, certificate
from test_invoke import GrpcApp as EchoApp
from twins import KINDS, ask, compare, needs_other, sidecar, stop, tried

pytestmark = needs_other
ME = f"app-{os.getpid()}"  # nobody else's on this machine
DROPPED = ("traceparent", "tracestate", "date", "connection", "user-agent", "accept-encoding", "content-length", "transfer-encoding", "grpc-trace-bin", "http2-settings")


# What differs, and why it may: (fact, reason) as regular expressions.
KNOWN = [
    ("passed on", "a body's length is known"),
    (r"(grpc|internal) reflection, .*", "this sidecar answers reflection of its own services"),
    (r"(grpc|internal) proxied, .*", "an app that does not speak gRPC is told by its name"),
    (r"/dapr.proto.runtime.v1.AppCallback/List(TopicSubscriptions|InputBindings)", "the app's token goes with these calls too"),
]


@pytest.fixture
def pair(tmp_path):
    """pair(run, known=()): run(kind, start) -> facts, for either runtime; start(...) as sidecar()."""
    def run_both(run, known=[]):
        facts = {}
        for kind in KINDS:
            made = []

            def start(*resources, sub="d", **kw):
                (tmp_path / kind).mkdir(exist_ok=True)
                made.append(sidecar(kind, tmp_path / kind / f"{sub}{len(made)}", resources, app_id=ME, **kw))
                return made[-1]
            try:
                facts[kind] = run(kind, start)
            finally:
                for d in made:
                    stop(kind, d)
        compare(facts["other"], facts["ours"], known + KNOWN)
    return run_both


def lines(d, scope, *more):
    """(level, text) of the log's lines of a scope."""
    out = []
    for x in d.log().splitlines():
        m = re.match(r'time="[^"]*" level=(\w+) msg="((?:[^"\\]|\\.)*)" .*scope=(\S+)', x)
        if m and re.fullmatch(scope, m[3]):
            out.append((m[1], plain(d, m[2])))
    return out


def plain(d, text):
    for p, name in ((d.http, "HTTP"), (d.grpc, "GRPC"), (d.internal, "INTERNAL"), (d.metrics, "METRICS")):
        text = text.replace(f":{p}", f":{name}")
    text = re.sub(r"Retrying in [\d.]+m?s", "Retrying", text)
    return re.sub(r"127\.0\.0\.1:\d+", "ADDR", re.sub(r"port \d+", "port N", text))


def invoke_grpc(d, method="m", data=b"in", timeout=10):
    m = common_v1.InvokeRequest(method=method, http_extension=common_v1.HTTPExtension(verb=common_v1.HTTPExtension.POST))
    m.data.value = data
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
        r = tried(api_service_v1.DaprStub(ch).InvokeService, api_v1.InvokeServiceRequest(id=d.app_id, message=m), timeout=timeout)
    return json.loads(re.sub(r"127\.0\.0\.1:\d+", "ADDR", json.dumps(r)))


# ---- protocols ----

@pytest.fixture
def node(tmp_path):
    made = []

    def make(protocol):
        files = [str(x) for x in certificate(tmp_path)] if protocol.startswith("https") else []
        p = subprocess.Popen(["node", str(ROOT / "tests/conformance/app_server.mjs"), protocol, *files], stdout=subprocess.PIPE, text=True)
        p.got, p.port = [], json.loads(p.stdout.readline())["port"]
        threading.Thread(target=lambda: p.got.extend(json.loads(x) for x in iter(p.stdout.readline, "")), daemon=True).start()
        made.append(p)
        return p
    yield make
    for p in made:
        p.kill()
        p.wait()


PROTOCOLS = [("http", "http"), ("https", "https"), ("https1", "https"), ("h2c", "h2c"), ("http", "https"), ("https", "http"), ("h2c", "http"), ("http", "h2c"), ("h2c", "grpc"), ("http", "grpc"), ("https", "grpcs")]


@pytest.mark.parametrize("speaks, told", PROTOCOLS, ids=lambda x: x)
def test_protocols(pair, node, speaks, told):
    def run(kind, start):
        app = node(speaks)
        d = start(component("ps", "pubsub.in-memory"), json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "s"}, "spec": {
            "pubsubname": "ps", "topic": "t", "routes": {"default": "/event"}}}), component("tick", "bindings.cron", [("schedule", "@every 1h")]),
            args=[f"--app-port={app.port}", f"--app-protocol={told}", "--app-health-probe-interval=1"], healthy=speaks == told or (speaks, told) == ("https1", "https"))
        if speaks != told and speaks != "https1":
            wait_until("calls are taken", lambda: len(ask(d, "GET", "/v1.0/healthz")) > 1)
            time.sleep(2)
        f = {}
        for name, (method, path, body) in {"get": ("GET", "/m?q=1", None), "post": ("POST", "/m", b"body"), "fail": ("POST", "/fail", b"x"), "large": ("GET", "/large", None), "sent large": ("POST", "/m", b"y" * 1_000_000),
                                           "reset": ("POST", "/reset", b"x"), "after": ("GET", "/m", None), "root": ("GET", "/", None)}.items():
            r = ask(d, method, f"/v1.0/invoke/{d.app_id}/method{path}", body, {"x-in": "1", "content-type": "c/d"})
            f[f"http {name}"] = r if len(str(r)) < 500 else (r[0], len(str(r[1])))
            f[f"http {name}"] = json.loads(plain(d, json.dumps(f[f"http {name}"])))
        f["grpc"] = invoke_grpc(d)
        f["publish"] = ask(d, "POST", "/v1.0/publish/ps/t", b"1", {"content-type": "application/json"})
        if speaks != "h2c" or told != "grpc":
            try:
                wait_until("the event", lambda: any(g["path"] == "/event" for g in app.got) or told != speaks.rstrip("1"), 5)
            except AssertionError:
                f["event"] = "missing"
        for g in sorted(app.got, key=lambda g: (g["path"], g["method"])):
            f.setdefault(f"told {g['path']}", []).append((g["version"], g["method"], "HOST" if g["host"] else None, g["scheme"], g["size"] > 0,
                                                        sorted((k, plain(d, v) if isinstance(v, str) else v) for k, v in g["headers"].items() if k not in DROPPED and k not in (":authority", "host"))))
        f["health"] = ask(d, "GET", "/v1.0/healthz")
        f["metadata"] = {k: v if k != "port" else "N" for k, v in (ask(d, "GET", "/v1.0/metadata")[1] or {}).get("appConnectionProperties", {}).items()}
        f["log"] = [x for x in lines(d, r"dapr\.runtime") if "discovered" in x[1] or "waiting on port" in x[1] or x[0] not in ("info", "debug")]
        return f
    known = [("told .*OnInvoke", "a deadline of the caller goes to the app")]
    if speaks.rstrip("1") != told:
        known += [(r"http .*|grpc|log", "what speaks another protocol is told in other words, or its retries are not over yet"), ("health|told .*", "how far the retries are")]
    elif told == "h2c":
        known += [("http reset", "told in other words")]
    pair(run, known)


# ---- health ----

class Healthy(App):
    """Answers probes by a script, the last word of it for ever: a status, "slow", "close"."""

    def __init__(self, script, path="/healthz"):
        self.script, self.probes, self.held = list(script), [], threading.Event()

        def probe(call):
            word = self.script[min(len(self.probes), len(self.script) - 1)]
            self.probes.append((call.method, call.path, sorted((k.lower(), v) for k, v in call.headers.items() if k.lower() not in DROPPED + ("host",)), len(call.body)))
            if word == "slow":
                self.held.wait(1.2)
                return 200, {}, b""
            return (None, {}, b"") if word == "close" else (word, {"location": "/elsewhere"} if 300 <= word < 400 else {}, b"why" if word not in (204, 304) else b"")
        super().__init__({path: probe, "/elsewhere": (200, {}, b""), "/tick": (200, {}, b"")})


SCRIPTS = {"200": [200], "204": [204], "299": [299], "302": [302], "404": [404], "500": [500], "slow": ["slow"], "close": ["close"],
           "down and up": [200, 500, 500, 200], "one bad": [200, 500, 200], "bad first": [500, 200], "slow once": [200, "slow", 200], "slow twice": [200, "slow", "slow", 200], "closed twice": [200, "close", "close", 200]}


@pytest.mark.parametrize("script", SCRIPTS)
def test_health_of_http_apps(pair, script):
    def run(kind, start):
        app = Healthy(SCRIPTS[script])
        d = start(component("tick", "bindings.cron", [("schedule", "@every 1h")]), args=[f"--app-port={app.port}", "--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-probe-timeout=400", "--app-health-threshold=2"],
                  healthy=False)
        f = {}
        n = len(SCRIPTS[script])
        wait_until("probes", lambda: len(app.probes) >= min(n + 1, n + 1), 15)
        time.sleep(0.6)
        f["log"] = [x for x in lines(d, r"dapr\.apphealth") if x[0] != "debug"]
        f["first probe"] = app.probes[0]
        for what in ("/v1.0/healthz", "/v1.0/healthz/outbound", f"/v1.0/invoke/{ME}/method/m", "/v1.0/metadata"):
            r = ask(d, "GET", what)
            f[what] = r if "metadata" not in what else r[1].get("appConnectionProperties", {}).get("health")
        f["grpc"] = invoke_grpc(d)
        f["asked of the app"] = sorted({(c.method, c.path) for c in app.calls if c.path not in ("/healthz",)})
        app.held.set()
        app.close()
        return f
    pair(run)


@pytest.mark.parametrize("args", [[], ["--app-health-check-path=health"], ["--app-health-check-path=/a/b?c=d"], ["--app-health-check-path="], ["--app-health-threshold=0"], ["--app-health-threshold=-1"], ["--app-health-probe-interval=0"],
                                  ["--app-health-probe-timeout=0"], ["--app-health-probe-timeout=1500", "--app-health-probe-interval=1"]], ids=lambda a: " ".join(a) or "none")
def test_settings_of_health(pair, args):
    def run(kind, start):
        app = Healthy([200])
        app.answers |= {p: (200, {}, b"") for p in ("/health", "/a/b", "/")}
        d = start(args=[f"--app-port={app.port}", "--enable-app-health-check", *args], healthy=False)
        f = {}
        wait_until("started or ended", lambda: d.proc.poll() is not None or "application discovered" in d.log(), 15)
        time.sleep(1)
        f["code"] = d.proc.poll()
        if d.proc.poll() is None:
            f["asked"] = sorted({(c.method, c.path) for c in app.calls})
            f["log"] = [x for x in lines(d, r"dapr\.apphealth") if x[0] != "debug"]
            f["metadata"] = {k: v for k, v in ask(d, "GET", "/v1.0/metadata")[1]["appConnectionProperties"].items() if k != "port"}
        else:
            f["log"] = [x for x in lines(d, ".*") if x[0] in ("fatal", "error")]
        app.close()
        return f
    pair(run)


class HealthyGrpc:
    """AppCallbackHealthCheck by a script: a code, "slow", or None for well; with no script the service is unknown."""

    def __init__(self, script):
        from concurrent import futures
        outer, self.probes, self.calls = self, [], []

        class All(grpc.GenericRpcHandler):
            def service(self, details):
                def health(q, c):
                    outer.probes.append((details.method, sorted((k, v) for k, v in c.invocation_metadata() if k not in DROPPED)))
                    word = script[min(len(outer.probes) - 1, len(script) - 1)]
                    if word == "slow":
                        time.sleep(1.2)
                    elif word:
                        c.abort(getattr(grpc.StatusCode, word), "why")
                    return b""

                def other(q, c):
                    outer.calls.append((details.method, sorted((k, v) for k, v in c.invocation_metadata() if k not in DROPPED)))
                    return b""
                if "HealthCheck" in details.method:
                    return grpc.unary_unary_rpc_method_handler(health) if script else None
                return grpc.unary_unary_rpc_method_handler(other)
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers([All()])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()


GRPC_SCRIPTS = {"well": [None], "unknown": [], "unavailable": ["UNAVAILABLE"], "slow": ["slow"], "down and up": [None, "INTERNAL", "INTERNAL", None], "one bad": [None, "INTERNAL", None], "slow twice": [None, "slow", "slow", None]}


@pytest.mark.parametrize("script", GRPC_SCRIPTS)
def test_health_of_grpc_apps(pair, script):
    def run(kind, start):
        app = HealthyGrpc(GRPC_SCRIPTS[script])
        d = start(args=[f"--app-port={app.port}", "--app-protocol=grpc", "--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-probe-timeout=400", "--app-health-threshold=2"], healthy=False)
        n = len(GRPC_SCRIPTS[script])
        wait_until("probes", lambda: len(app.probes) >= n + 1 or not n and d.log().count("Probing app health") > 2, 15)
        time.sleep(0.6)
        f = {"log": [x for x in lines(d, r"dapr\.apphealth") if x[0] != "debug"], "first probe": app.probes[:1]}
        if script in ("unknown", "slow", "unavailable"):
            f["log"] = [x for i, x in enumerate(f["log"]) if x not in f["log"][:i]]
        f["log"] = [(lv, t.replace("desc = Deadline Exceeded", "desc = context deadline exceeded")) for lv, t in f["log"]]  # whichever side sees it first
        for what in ("/v1.0/healthz", f"/v1.0/invoke/{ME}/method/m"):
            f[what] = ask(d, "GET", what)
        f["grpc"] = invoke_grpc(d)
        f["asked"] = sorted({c[0] for c in app.calls})
        app.server.stop(None)
        return f
    pair(run)


# ---- calls at a time ----

@pytest.mark.parametrize("limit", [0, 1, 3, -5])
def test_calls_at_a_time(pair, limit):
    def run(kind, start):
        gate = threading.Event()

        def slow(call):
            gate.wait(5)
            return 200, {}, b"ok"
        app = App({"/slow": slow, "/event": slow, "/tick": slow, "/dapr/subscribe": (200, {}, json.dumps([{"pubsubname": "ps", "topic": "t", "route": "/event"}]).encode())})
        d = start(component("ps", "pubsub.in-memory"), args=[f"--app-port={app.port}", f"--app-max-concurrency={limit}"])
        f = {}

        def most(name, call, n=6):
            app.most, answers = 0, []
            gate.clear()
            threads = [threading.Thread(target=lambda: answers.append(call())) for _ in range(n)]
            for t in threads:
                t.start()
            want = min(n, limit) if limit > 0 else n
            wait_until("calls in the app", lambda: app.running >= want, 5)
            time.sleep(0.4)
            f[f"{name}, running"] = app.running
            gate.set()
            for t in threads:
                t.join()
            f[f"{name}, most"], f[f"{name}, answers"] = app.most, collections.Counter(map(str, answers))
        most("http", lambda: ask(d, "POST", f"/v1.0/invoke/{ME}/method/slow", b"x"))
        most("grpc", lambda: invoke_grpc(d, "slow"))
        return f
    pair(run)


@pytest.mark.parametrize("limit", [1, 2])
def test_calls_at_a_time_of_grpc_apps(pair, limit):
    def run(kind, start):
        app, gate, lock, now = EchoApp(), threading.Event(), threading.Lock(), []

        def slow(request, context):
            with lock:
                now.append(1)
            gate.wait(3)
            with lock:
                now.pop()
            return common_v1.InvokeResponse()
        app.on_invoke = slow
        d = start(args=[f"--app-port={app.port}", "--app-protocol=grpc", f"--app-max-concurrency={limit}"])
        calls, answers = [threading.Thread(target=lambda: answers.append(str(invoke_grpc(d, timeout=4)))) for _ in range(5)], []
        for t in calls:
            t.start()
        wait_until("calls in the app", lambda: len(now) >= limit, 5)
        time.sleep(0.4)
        f = {"running": len(now)}
        gate.set()
        for t in calls:
            t.join()
        with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
            f |= {"answers": collections.Counter(answers), "proxied": tried(ch.unary_unary("/test.Echo/Unary"), b"in", metadata=(("dapr-app-id", ME),), timeout=4)}
        app.close()
        return f
    pair(run, [("answers", "the reference gives a slot back twice and then waits for ever")])


@pytest.mark.parametrize("limit", [1, 3])
def test_events_at_a_time(pair, limit):
    def run(kind, start):
        gate = threading.Event()
        app = App({"/event": lambda call: (gate.wait(5) and 200 or 200, {}, b""), "/dapr/subscribe": (200, {}, json.dumps([{"pubsubname": "ps", "topic": f"t{i}", "route": "/event"} for i in range(4)]).encode())})
        d = start(component("ps", "pubsub.in-memory"), args=[f"--app-port={app.port}", f"--app-max-concurrency={limit}"])
        wait_until("subscribed", lambda: len(ask(d, "GET", "/v1.0/metadata")[1].get("subscriptions", [])) == 4)
        for i in range(4):
            ask(d, "POST", f"/v1.0/publish/ps/t{i}", b"1", {"content-type": "application/json"})
        wait_until("events in the app", lambda: app.running >= limit, 5)
        time.sleep(0.4)
        f = {"running": app.running}
        gate.set()
        wait_until("all of them", lambda: len([c for c in app.calls if c.path == "/event"]) == 4, 5)
        app.close()
        return f
    pair(run)


# ---- tokens ----

ROUTES = ["GET /v1.0/healthz", "GET /v1.0/healthz/outbound", "GET /v1.0/metadata", "PUT /v1.0/metadata/x", "GET /v1.0/state/store/k", "POST /v1.0/publish/ps/t", f"POST /v1.0/invoke/{ME}/method/m", "GET /v1.0/secrets/none/x", "GET /v1.0/configuration/c",
          "POST /v1.0-alpha1/lock/l", "GET /m", "GET /nothing", "OPTIONS /v1.0/metadata", "GET /v1.0/actors/a/b/state/c", "GET /dapr/config", "GET /v1.0//healthz", "GET /v1.0/healthz/", "GET /V1.0/healthz", "GET /v1.0/healthz/x", "POST /v1.0/healthz"]
TOKENS = {"none": {}, "right": {"dapr-api-token": "secret"}, "wrong": {"dapr-api-token": "no"}, "empty": {"dapr-api-token": ""}, "longer": {"dapr-api-token": "secretx"}, "capitals": {"Dapr-Api-Token": "secret"}, "bearer": {"authorization": "Bearer secret"},
          "case": {"dapr-api-token": "SECRET"}, "spaces": {"dapr-api-token": " secret "}}


def test_the_apis_token(pair):
    def run(kind, start):
        app = App({"/m": (200, {}, b"ok")})
        public = free_port()
        d = start(component("store", "state.in-memory"), component("ps", "pubsub.in-memory"), env={"DAPR_API_TOKEN": "secret"}, healthy=False,
                  args=[f"--app-port={app.port}", f"--dapr-public-port={public}", "--dapr-public-listen-address=127.0.0.1", "--enable-profiling", f"--profile-port={free_port()}"])
        wait_until("up", lambda: ask(d, "GET", "/v1.0/healthz")[0] == 204 or ask(d, "GET", "/v1.0/healthz", headers=TOKENS["right"])[0] == 204)
        f = {}
        for route in ROUTES:
            method, path = route.split()
            for name, headers in TOKENS.items():
                r = ask(d, method, path, None, headers)
                f[f"{route}, {name}"] = r if "metadata" not in path or r[0] != 200 else 200
                if name in ("none", "right"):
                    r = ask(d, method, path, None, headers, port=public)
                    f[f"public {route}, {name}"] = r if "metadata" not in path or r[0] != 200 else 200
        f["passed on"] = sorted({k.lower() for c in app.calls for k in c.headers})
        for name, headers in TOKENS.items():
            if name != "spaces":
                md = tuple((k.lower(), v) for k, v in headers.items())
                for port in ("grpc", "internal"):
                    with grpc.insecure_channel(f"127.0.0.1:{getattr(d, port)}") as ch:
                        s = api_service_v1.DaprStub(ch)
                        f[f"{port} state, {name}"] = tried(s.GetState, api_v1.GetStateRequest(store_name="store", key="k"), metadata=md)
                        f[f"{port} metadata, {name}"] = str(tried(s.GetMetadata, api_v1.GetMetadataRequest(), metadata=md))[:9] if name in ("right", "capitals") and port == "grpc" else tried(s.GetMetadata, api_v1.GetMetadataRequest(), metadata=md)
                        f[f"{port} health, {name}"] = tried(ch.unary_unary("/grpc.health.v1.Health/Check"), b"", metadata=md)
                        f[f"{port} unknown, {name}"] = tried(ch.unary_unary("/no.Such/Thing"), b"", metadata=md)
                        f[f"{port} reflection, {name}"] = tried(lambda *a, **kw: list(ch.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(iter([b"\x3a\x00"]), **kw)) and "ok", metadata=md)
                        f[f"{port} proxied, {name}"] = tried(ch.unary_unary("/x.Y/Z"), b"", metadata=md + (("dapr-app-id", ME),))
        app.close()
        return f
    pair(run)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_apps_token(pair, protocol):
    def run(kind, start):
        if protocol == "http":
            app = App({"/dapr/subscribe": (200, {}, json.dumps([{"pubsubname": "ps", "topic": "t", "route": "/event"}]).encode()), "/healthz": (200, {}, b"")})
        else:
            app = HealthyGrpc([None])
        d = start(component("ps", "pubsub.in-memory"), component("tick", "bindings.cron", [("schedule", "@every 1s")]),
                  json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "s"}, "spec": {"pubsubname": "ps", "topic": "u", "routes": {"default": "/event2"}}}),
                  env={"APP_API_TOKEN": "app secret", "DAPR_API_TOKEN": "secret"}, healthy=False,
                  args=[f"--app-port={app.port}", f"--app-protocol={protocol}", "--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-probe-timeout=900"])
        wait_until("up", lambda: ask(d, "GET", "/v1.0/healthz")[0] == 204 or ask(d, "GET", "/v1.0/healthz", headers=TOKENS["right"])[0] == 204)
        wait_until("ready", lambda: any("m" in str(c) for c in app.calls), 10)
        time.sleep(0.5)
        h = {"dapr-api-token": "secret", "content-type": "application/json"}
        ask(d, "POST", "/v1.0/publish/ps/t", b"1", h)
        ask(d, "POST", "/v1.0/publish/ps/u", b"1", h)
        ask(d, "POST", f"/v1.0/invoke/{ME}/method/m", b"1", h)
        with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
            m = common_v1.InvokeRequest(method="n", http_extension=common_v1.HTTPExtension(verb=common_v1.HTTPExtension.POST))
            tried(api_service_v1.DaprStub(ch).InvokeService, api_v1.InvokeServiceRequest(id=ME, message=m), metadata=(("dapr-api-token", "secret"),))
            tried(ch.unary_unary("/x.Y/Proxied"), b"", metadata=(("dapr-api-token", "secret"), ("dapr-app-id", ME)))
        time.sleep(2.5)
        f = {}
        if protocol == "http":
            for c in app.calls:
                f[f"{c.method} {c.path}"] = sorted((k.lower(), v) for k, v in c.headers.items() if "token" in k.lower() or k.lower() == "authorization")
        else:
            for method, md in app.calls + app.probes:
                f[method] = [x for x in md if "token" in x[0]]
        f.pop("OPTIONS /tick", None)
        (app.close if protocol == "http" else lambda: app.server.stop(None))()
        return f
    pair(run)


# ---- the app's address ----

@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "::1", "[::1]", "127.0.0.2", "no.such.host.invalid", ""])
def test_the_apps_address(pair, address):
    def run(kind, start):
        app = App({"/m": (200, {}, b"ok")})
        d = start(args=[f"--app-port={app.port}", f"--app-channel-address={address}"], healthy=False)
        wait_until("up", lambda: d.proc.poll() is not None or "HTTP server is running" in d.log() or "server is running" in d.log() or "waiting on port" in d.log(), 10)
        time.sleep(2)
        f = {"code": d.proc.poll(), "log": sorted({x for x in lines(d, r"dapr\.runtime") if "discovered" in x[1] or "waiting" in x[1] or x[0] in ("error", "fatal", "warning")})}
        if d.proc.poll() is None:
            f["invoke"] = json.loads(plain(d, json.dumps(ask(d, "GET", f"/v1.0/invoke/{ME}/method/m")).replace(f":{app.port}", ":APP")))
            f["health"] = ask(d, "GET", "/v1.0/healthz")
            f["host"] = [re.sub(r":\d+$", ":N", c.headers["host"]) for c in app.calls if c.path == "/m"]
            f["metadata"] = {k: v for k, v in ask(d, "GET", "/v1.0/metadata")[1]["appConnectionProperties"].items() if k != "port"}
        app.close()
        return f
    pair(run, [("invoke", "an address without brackets works, a name server is not named")] if address in ("::1", "no.such.host.invalid") else [])
