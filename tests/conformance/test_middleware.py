"""HTTP middleware: both pipelines, their order, filters that see heads only, bodies, the end of a filter's process, wrong answers."""
import concurrent.futures, http.client, json, os, pathlib, signal, subprocess, sys, threading

import pytest

from conftest import ROOT, Web, component, wait_until
from test_invoke import HttpApp

HERE = pathlib.Path(__file__).resolve().parent
INVOKE = "/v1.0/invoke/app/method"


def pipelines(server=(), app=()):
    """Handlers as (name, type[, version]); the type's middle part is left out."""
    def rows(list):
        return {"handlers": [{"name": h[0], "type": f"middleware.http.{h[1]}", **({"version": h[2]} if len(h) > 2 else {})} for h in list]}
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"},
                       "spec": {"httpPipeline": rows(server), "appHttpPipeline": rows(app)}})


def alias(name, routes):
    return component(name, "middleware.http.routeralias", [("routes", json.dumps(routes))])


@pytest.fixture
def app():
    a = HttpApp()
    yield a
    a.close()


@pytest.fixture
def start(daprd, app):
    def make(resources, server=(), over_app=(), args=(), **kw):
        d = daprd(resources=resources, config=pipelines(server, over_app), args=[f"--app-port={app.port}", *args], **kw)
        wait_until("the app is known", lambda: "application discovered" in d.log())
        return d
    return make


def echo(r):
    return 200, {"content-type": r["headers"].get("content-type", "")}, r["body"]


# ---- order ----

def test_filters_run_in_the_order_of_the_configuration(start, app):
    d = start([alias("one", {"/hello": f"{INVOKE}/first", "/x": f"{INVOKE}/y"}),
               alias("two", {"/hello": f"{INVOKE}/wrong", f"{INVOKE}/first": f"{INVOKE}/second"})],
              server=[("one", "routeralias"), ("two", "routeralias")])
    assert d.request("GET", "/hello").status == 200
    assert d.request("GET", "/x?q=1").status == 200
    assert [g["path"] for g in app.got] == ["/second", "/y?q=1"]
    log = d.log()
    assert 'Building pipeline server' in log and 'Building pipeline app' not in log


def test_a_handler_without_its_component_is_left_out(start, app):
    d = start([alias("one", {"/a": "/b"}), alias("v2", {"/a": "/c"})],
              over_app=[("gone", "uppercase"), ("one", "uppercase"), ("v2", "routeralias", "v2"), ("one", "routeralias", "v1")])
    assert d.request("POST", f"{INVOKE}/a", b"x").status == 200
    assert app.got[-1]["path"] == "/b" and app.got[-1]["body"] == b"x"


def test_templates_of_paths(start, app):
    d = start([alias("a", {"/item/{id:[0-9]+}": "/number", "/item/{name}": "/name", "/{a}/{b}/end": "/both", "/plain": "/with space"})],
              over_app=[("a", "routeralias")])
    for path, want in (("/item/12", "/number?id=12"), ("/item/x%20y?b=2&a=1", "/name?a=1&b=2&name=x+y"), ("/item/a/b", "/item/a/b"),
                       ("/1/2/end", "/both?a=1&b=2"), ("/plain?q", "/with%20space?q")):
        assert d.request("GET", INVOKE + path).status == 200
        assert app.got[-1]["path"] == want, path


def test_calls_of_the_runtime_go_through_the_apps_pipeline(start, app):
    app.handlers["/aliased"] = lambda r: (200, {}, b"{}")
    sub = json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "s"},
                      "spec": {"pubsubname": "broker", "topic": "t", "routes": {"default": "/orders"}}})
    d = start([alias("a", {"/orders": "/aliased"}), component("broker", "pubsub.in-memory"), sub], over_app=[("a", "routeralias")])
    assert d.request("POST", "/v1.0/publish/broker/t", {"n": 1}, {"content-type": "application/json"}).status == 204
    wait_until("the event came", lambda: any(g["path"] == "/aliased" for g in app.got))
    assert not any(g["path"] == "/orders" for g in app.got)


def test_calls_to_http_endpoints_go_through_the_apps_pipeline(start, app):
    other = HttpApp()
    try:
        other.handlers["/base/new"] = lambda r: (302, {"location": "/base/old"}, b"")
        endpoint = json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "HTTPEndpoint", "metadata": {"name": "out"},
                               "spec": {"baseUrl": f"http://127.0.0.1:{other.port}/base"}})
        d = start([alias("a", {"/base/old": "/base/new"}), component("u", "middleware.http.uppercase", [("direction", "both")]), endpoint],
                  over_app=[("a", "routeralias"), ("u", "uppercase")])
        other.handlers["/base/old"] = lambda r: (200, {}, b"answer:" + r["body"])
        r = d.request("GET", "/v1.0/invoke/out/method/old")
        assert (r.status, r.body) == (200, b"ANSWER:")
        assert [g["path"] for g in other.got] == ["/base/new", "/base/old"], "a redirect is not aliased again"
        other.handlers["/base/new"] = echo
        assert d.request("POST", "/v1.0/invoke/out/method/old", b"text").body == b"TEXT"
        assert d.request("POST", f"/v1.0/invoke/http://127.0.0.1:{other.port}/method/base/old", b"text").body == b"TEXT"
        assert not app.got
    finally:
        other.close()


# ---- bodies ----

@pytest.mark.parametrize("where,direction,up,down", [("server", "request", True, False), ("server", "response", False, True), ("server", "both", True, True),
                                                     ("app", "both", True, True), ("app", "", True, False)])
def test_bodies_pass_a_filter(start, app, where, direction, up, down):
    app.handlers["/echo"] = lambda r: (200, {}, b"answer:" + r["body"])
    d = start([component("u", "middleware.http.uppercase", [("direction", direction)] if direction else [])],
              **{"server" if where == "server" else "over_app": [("u", "uppercase")]})
    text = "aBc äÖü ω Ж 𐐨 " * 30000 # characters across pieces
    want = "answer:" + (text.upper() if up else text)
    want = want.upper() if down else want
    r = d.request("POST", f"{INVOKE}/echo", text.encode(), {"content-type": "text/plain"})
    assert r.status == 200 and r.body.decode() == want
    r = d.request("POST", f"{INVOKE}/echo", b"")
    assert r.body == (b"ANSWER:" if down else b"answer:")
    app.handlers["/none"] = lambda r: (204, {}, b"")
    assert d.request("GET", f"{INVOKE}/none").status == 204
    r = d.request("HEAD", f"{INVOKE}/echo")
    assert r.status == 200 and r.body == b""
    r = d.request("GET", "/v1.0/healthz")
    assert r.status == 204


def rss_kib(pid):
    return int(next(l for l in open(f"/proc/{pid}/status") if l.startswith("VmRSS")).split()[1])


def read_bytes(pid):
    return int(open(f"/proc/{pid}/io").readline().split()[1])


class SinkApp(Web):
    """Counts what it is sent, 50 MB at a time, and answers with as much."""

    def __init__(self):
        import socketserver
        app = self
        self.sums = []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while line := self.rfile.readline():
                    headers = {}
                    while (h := self.rfile.readline().strip()):
                        k, _, v = h.partition(b":")
                        headers[k.lower()] = v.strip()
                    n = 0
                    if headers.get(b"transfer-encoding") == b"chunked":
                        while size := int(self.rfile.readline(), 16):
                            self.rfile.read(size)
                            n += size
                            self.rfile.readline()
                        self.rfile.readline()
                    else:
                        left = int(headers.get(b"content-length", 0))
                        while left:
                            n += (got := len(self.rfile.read(min(left, 1 << 20))))
                            left -= got
                    app.sums.append(n)
                    if line.split()[1].startswith(b"/dapr"):
                        self.wfile.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                        continue
                    self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % n)
                    for at in range(0, n, 1 << 20):
                        self.wfile.write(b"a" * min(1 << 20, n - at))
        super().__init__(Handler)


MB50 = 50 << 20


def exchange_50mb(d):
    c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=60)
    c.putrequest("POST", f"{INVOKE}/big")
    c.putheader("content-length", str(MB50))
    c.endheaders()
    for _ in range(MB50 >> 20):
        c.send(b"b" * (1 << 20))
    r = c.getresponse()
    n = 0
    while piece := r.read(1 << 20):
        n += len(piece)
    c.close()
    return r.status, n


@pytest.mark.parametrize("kind", ["heads", "bodies"])
def test_50_mb_pass_with_flat_memory(daprd, kind):
    app = SinkApp()
    try:
        if kind == "heads":
            resources = [component("r", "middleware.http.ratelimit", [("maxRequestsPerSecond", "1000")]),
                         component("c", "middleware.http.routerchecker", [("rule", "^/")])]
            chain = [("r", "ratelimit"), ("c", "routerchecker")]
        else:
            resources, chain = [component("u", "middleware.http.uppercase", [("direction", "both")])], [("u", "uppercase")]
        d = daprd(resources=resources, config=pipelines(chain, chain), args=[f"--app-port={app.port}", "--max-body-size=100Mi"])
        wait_until("the app is known", lambda: "application discovered" in d.log())
        d.request("POST", f"{INVOKE}/small", b"x")
        pids = [d.proc.pid, *d.children()]
        before, read = {p: rss_kib(p) for p in pids}, {p: read_bytes(p) for p in d.children()}
        peak, stop = dict(before), threading.Event()

        def watch():
            while not stop.wait(0.02):
                for p in pids:
                    peak[p] = max(peak[p], rss_kib(p))
        t = threading.Thread(target=watch)
        t.start()
        try:
            assert exchange_50mb(d) == (200, MB50)
        finally:
            stop.set()
            t.join()
        assert app.sums[-1] == MB50
        grown = {p: peak[p] - before[p] for p in pids}
        limit = (400 if "asan" in os.environ.get("BUILD", "") else 12) * 1024  # ASan keeps what was freed
        assert all(g < limit for g in grown.values()), grown
        if kind == "heads": # the filters' processes saw no body
            assert all(read_bytes(p) - read[p] < 64 * 1024 for p in read), "a body went through a filter of heads"
    finally:
        app.close()


# ---- single filters ----

def test_routerchecker_refuses(start, app):
    d = start([component("c", "middleware.http.routerchecker", [("rule", r"^/v1\.0/(invoke/[a-z]+/method/[A-Z]+\d?(\?x=1)?|healthz)$")])],
              server=[("c", "routerchecker")])
    assert d.request("GET", f"{INVOKE}/ABC1?x=1").status == 200
    for path in (f"{INVOKE}/abc", f"{INVOKE}/ABC1?x=2", "/", f"{INVOKE}/ABC/.."):
        r = d.request("GET", path)
        assert (r.status, r.body, r.headers["content-type"]) == (400, b"invalid router", "text/plain; charset=utf-8"), path
    assert len(app.got) == 1


def test_ratelimit_counts_each_client_and_path(start, app):
    d = start([component("r", "middleware.http.ratelimit", [("maxRequestsPerSecond", "0.001")])], over_app=[("r", "ratelimit")])

    def ask(path, **headers):
        return d.request("GET", INVOKE + path, headers=headers)
    first, second = ask("/a"), ask("/a")
    assert first.status == 200 and first.headers["ratelimit-remaining"] == "0" and first.headers["x-rate-limit-limit"] == "0.00"
    assert (second.status, second.body) == (429, b"You have reached maximum request limit.")
    assert ask("/b").status == 200 # another path
    assert ask("/a", **{"x-forwarded-for": "1.2.3.4, 2001:db8::1"}).status == 200 # another client
    assert ask("/a", **{"x-forwarded-for": "2001:db8::ffff"}).status == 429 # of the same network
    assert ask("/a", **{"x-real-ip": "9.9.9.9"}).status == 200
    assert sum(g["path"] == "/a" for g in app.got) == 3


@pytest.mark.parametrize("type,metadata,text", [
    ("routerchecker", [("rule", "(")], "missing closing )"),
    ("ratelimit", [("maxRequestsPerSecond", "-1")], "must be a positive value"),
    ("ratelimit", [("maxRequestsPerSecond", "fast")], "no number: fast"),
    ("routeralias", [("routes", "[1]")], "failed to decode 'routes' property"),
    ("routeralias", [("routes", "{\"/a/{x\": \"/b\"}")], "unbalanced braces"),
])
def test_wrong_metadata_keeps_daprd_from_starting(daprd, type, metadata, text):
    d = daprd(resources=[component("m", f"middleware.http.{type}", metadata)], healthy=False)
    assert d.wait_exit() == 1
    assert text in d.log()
    d.proc = None


# ---- the end of a filter's process ----

def test_a_guard_that_is_killed_lets_nothing_through(start, app):
    d = start([component("c", "middleware.http.routerchecker", [("rule", "method/allowed$|healthz")])], over_app=[("c", "routerchecker")],
              server=[("c", "routerchecker")])
    stop, seen = threading.Event(), []

    def ask(path):
        c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=20)
        while not stop.is_set():
            c.request("GET", INVOKE + path)
            r = c.getresponse()
            seen.append((path, r.status, r.read()))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask, p) for p in ("/allowed", "/forbidden") * 2]
        try:
            for _ in range(3):
                os.kill(wait_until("the guard runs", lambda: next(iter(d.children()), None)), signal.SIGKILL)
                n = len(seen)
                wait_until("requests go on", lambda: len(seen) > n + 100)
        finally:
            stop.set()
        for f in running:
            f.result()
    # a guard sees the path of the API and that of the app
    assert {s for p, s, _ in seen if p == "/forbidden"} == {400}
    assert {s for p, s, _ in seen if p == "/allowed"} == {400}, "the app's pipeline checks /allowed, which the rule does not match"
    assert not app.got


def test_a_filter_killed_while_a_body_passes_cuts_the_request_off(daprd):
    app = SinkApp()
    try:
        d = daprd(resources=[component("u", "middleware.http.uppercase")], config=pipelines([("u", "uppercase")]),
                  args=[f"--app-port={app.port}", "--max-body-size=100Mi"])
        wait_until("the app is known", lambda: "application discovered" in d.log())
        c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=20)
        c.putrequest("POST", f"{INVOKE}/big")
        c.putheader("content-length", str(MB50))
        c.endheaders()
        c.send(b"b" * (1 << 20))
        pid = next(iter(d.children()))
        wait_until("the filter has read", lambda: read_bytes(pid) > 1 << 19)
        os.kill(pid, signal.SIGKILL)
        try:
            for _ in range(8):
                c.send(b"b" * (1 << 20))
            r = c.getresponse()
            assert r.status == 503 and json.loads(r.read())["errorCode"] == "ERR_MIDDLEWARE"
        except (BrokenPipeError, ConnectionResetError):
            pass # the answer may be lost with the rest of the body
        c.close()
        assert "middleware u (middleware.http.uppercase)" in d.log()
        wait_until("it is there again", lambda: d.request("POST", f"{INVOKE}/x", b"x").status == 200)
    finally:
        app.close()


# ---- a filter of somebody else's ----

@pytest.fixture(scope="module")
def protos(tmp_path_factory):
    out = tmp_path_factory.mktemp("protos")
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}",
                    "dapr/proto/components/v1/common.proto", "plugin/v1/middleware.proto"], check=True, capture_output=True)
    for d in [out / "dapr", *(out / "dapr").rglob("*/")]:
        (d / "__init__.py").touch()  # a package of its own, before the SDK's of the same name
    return out


@pytest.fixture
def foreign(folder, protos, start):
    sockets = folder / "sockets"
    sockets.mkdir()
    p = subprocess.Popen([sys.executable, str(HERE / "pluggable_filter.py"), str(sockets / "http.py.sock"), str(protos)],
                         stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline().strip() == "ready"

    def make(side):
        return start([component("heads", "middleware.http.py"), component("bodies", "middleware.http.py")],
                     env={"DAPR_COMPONENTS_SOCKETS_FOLDER": str(sockets)}, **{side: [("heads", "py"), ("bodies", "py")]})
    yield make
    p.kill()
    p.wait()
    p.stdout.close()


PLAYS = ["status", "nothing", "method", "path", "smuggled path", "query", "header name", "header value", "answer's header", "response header",
         "many headers", "body", "fail"]
EXCHANGES = ["wrong_kind", "ends_early", "large_chunk", "never_content", "bad_response"]


@pytest.mark.parametrize("side", ["server", "over_app"])
def test_wrong_answers_end_the_request(foreign, app, side):
    d = foreign(side)
    for kind, name, play in [("x-play", "heads", p) for p in PLAYS] + [("x-exchange", "bodies", e) for e in EXCHANGES]:
        r = d.request("POST", f"{INVOKE}/m", b"x" * 100000, {kind: play})
        assert r.status == 500 and r.json()["errorCode"] == "ERR_MIDDLEWARE", (play, r.status, r.body)
        assert r.json()["message"].startswith(f"middleware {name} (middleware.http.py): "), play
        if play not in ("bad_response", "large_chunk"): # those two fail when the request is on its way
            assert not [g for g in app.got if g["path"] == "/m"], play
    app.handlers["/m"] = echo
    assert d.request("POST", f"{INVOKE}/m", b"fine").body == b"fine"


def test_heads_as_a_filter_sees_them(foreign, app):
    d = foreign("server")
    told = d.request("POST", "/a%20b/c?x=%31", b"123", {"x-play": "tell"}).json()
    assert told.pop("peer").startswith("127.0.0.1:") and told.pop("authority") == f"127.0.0.1:{d.http}"
    assert told == {"method": "POST", "path": "/a%20b/c", "query": "x=%31", "scheme": "http", "version": "HTTP/1.1", "length": 3, "body": True}
    assert d.request("GET", "/", headers={"x-play": "tell"}).json()["body"] is False


@pytest.mark.parametrize("side", ["server", "over_app"])
def test_decisions_of_a_filter(foreign, app, side):
    app.handlers["/m"] = echo
    d = foreign(side)
    # edits of the head
    r = d.request("POST", f"{INVOKE}/m?old=1", b"body", {"x-play": "edits", "x-gone": "1", "x-set": "old", "x-add": "0"})
    assert (r.status, r.body, r.headers["x-after"]) == (200, b"body", "1")
    got = app.got[-1]
    assert (got["method"], got["path"], got["body"]) == ("PUT", "/m?z=1", b"body")
    assert "x-gone" not in got["headers"] and got["headers"]["x-set"] == "new" and got["headers"]["content-length"] == "4"
    # by the request's body
    n = len(app.got)
    r = d.request("POST", f"{INVOKE}/m", b"bad", {"x-exchange": "needs_request"})
    assert (r.status, r.body) == (403, b"refused") and len(app.got) == n
    for body in (b"good", b"", os.urandom(3 << 20)):
        r = d.request("POST", f"{INVOKE}/m", body, {"x-exchange": "needs_request"})
        assert r.status == 200 and r.body == body + b"!"
        assert app.got[-1]["headers"]["x-size"] == str(len(body))
    # of the response, by its body
    for body in (b"abc", os.urandom(3 << 20)):
        r = d.request("POST", f"{INVOKE}/m", body, {"x-exchange": "needs_response"})
        assert r.status == 201 and r.body == body[::-1]
    r = d.request("POST", f"{INVOKE}/m", b"replace me", {"x-exchange": "needs_response"})
    assert (r.status, r.body, r.headers["x-r"]) == (418, b"tea", "1")
    r = d.request("POST", f"{INVOKE}/m", b"x", {"x-exchange": "counts"})
    assert (r.status, r.body, r.headers["x-status"]) == (200, b"x", "200")
