"""Our sidecar and the reference's call each other's apps, found by multicast DNS: HTTP and gRPC, unary and streams, 1 KB and 50 MB, plain
and by mutual TLS; streams whose memory stays flat (MESH_STREAM_BYTES each way, else 300 MB). OTHER_DAPRD = path of the reference's daprd; skipped without it. OTHER_SENTRY = path of its sentry, for the TLS half."""
import http.client, os, subprocess, sys, threading, time

import grpc
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, free_port, wait_until
from test_invoke import GrpcApp, HttpApp, invoke
from test_mesh import RawApp, access, name, rss_kb, url

OTHER = os.environ.get("OTHER_DAPRD", "")
SENTRY = os.environ.get("OTHER_SENTRY", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to call and be called by")
PAIRS = [("ours", "other"), ("other", "ours"), ("ours", "ours")]
SIZES = [0, 1000, 50_000_000]
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
def sidecar(folder):
    """(kind, app or None, ...) -> a running sidecar with .channel."""
    running, n = [], [0]

    def start(kind, app=None, tls=None, **kw):
        sub = folder / f"{kind}{len(running)}"
        sub.mkdir()
        args = ["--max-body-size=8Gi" if isinstance(app, RawApp) or app is None else "--max-body-size=100Mi"]
        if app:
            args += [f"--app-port={app.port}", "--app-protocol=" + ("grpc" if isinstance(app, GrpcApp) else "http")]
        if tls:
            args += ["--enable-mtls", f"--sentry-address=127.0.0.1:{tls[0]}", "--control-plane-trust-domain=mixed.test", "--control-plane-namespace=default"]
        d = Daprd(sub, app_id=name(kind), args=args, env={"DAPR_TRUST_ANCHORS": tls[1]} if tls else None, **kw)
        if kind == "other":
            d.argv[0] = OTHER
            d.env |= {"HOME": str(sub), "PATH": os.environ.get("PATH", "")}
        running.append(d)
        d.start()
        d.channel = grpc.insecure_channel(f"127.0.0.1:{d.grpc}", NO_LIMIT)
        if app:
            wait_until("the app is known", lambda: "application discovered" in d.log())
        return d
    yield start
    for d in running:
        if getattr(d, "channel", None):
            d.channel.close()
        d.close()


@pytest.fixture
def sentry(folder):
    if not os.access(SENTRY, os.X_OK):
        pytest.skip("OTHER_SENTRY does not name a sentry")
    port, creds = free_port(), folder / "creds"
    creds.mkdir()
    (folder / "sentry.yaml").write_text("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: sentry\nspec:\n  mtls:\n    enabled: true\n")
    p = subprocess.Popen([SENTRY, f"--port={port}", f"--metrics-port={free_port()}", f"--healthz-port={free_port()}", f"--issuer-credentials={creds}",
                          "--trust-domain=mixed.test", f"--config={folder / 'sentry.yaml'}", "--mode=standalone", "--listen-address=127.0.0.1"],
                         stdout=open(folder / "sentry.log", "wb"), stderr=subprocess.STDOUT,
                         env={"HOME": str(folder), "PATH": os.environ.get("PATH", ""), "NAMESPACE": "default"})
    wait_until("sentry has made its authority", lambda: (creds / "ca.crt").exists() and b"running" in (folder / "sentry.log").read_bytes().lower(), 30)
    yield port, (creds / "ca.crt").read_text()
    p.terminate()
    p.wait(20)


@pytest.fixture(params=["plain", "tls"])
def tls(request):
    return request.getfixturevalue("sentry") if request.param == "tls" else None


@pytest.fixture
def apps():
    made = [HttpApp(), GrpcApp(*NO_LIMIT)]
    yield made
    for a in made:
        a.close()


@pytest.mark.parametrize("caller_kind,callee_kind", PAIRS)
def test_http(sidecar, apps, tls, caller_kind, callee_kind):
    app = apps[0]
    app.handlers["/echo"] = lambda r: (201, {"x-out": "o"}, r["body"])
    callee, caller = sidecar(callee_kind, app, tls=tls), sidecar(caller_kind, tls=tls)
    for n in SIZES:
        body = os.urandom(n)
        r = caller.request("POST", url(callee, "/echo?q=1"), body, {"x-in": "i", "content-type": "a/b"}, timeout=60)
        assert (r.status, r.headers["x-out"], r.body == body) == (201, "o", True), n
    got = app.got[-1]
    assert (got["path"], got["headers"]["x-in"], got["headers"]["content-type"]) == ("/echo?q=1", "i", "a/b")
    assert got["headers"]["dapr-caller-app-id"] == caller.app_id
    assert caller.request("GET", url(callee, "/echo")).status == 201
    c = http.client.HTTPConnection("127.0.0.1", caller.http, timeout=60)
    c.request("POST", url(callee, "/echo"), (b"x" * 5000 for _ in range(1000)), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert c.getresponse().read() == b"x" * 5_000_000
    c.close()
    app.handlers["/echo"] = lambda r: (404, {}, b"none")
    r = caller.request("GET", url(callee, "/echo"))
    assert (r.status, r.body) == (404, b"none")


@pytest.mark.parametrize("caller_kind,callee_kind", PAIRS)
def test_http_to_grpc_and_back(sidecar, apps, tls, caller_kind, callee_kind):
    http_app, grpc_app = apps
    to_grpc, to_http, caller = sidecar(callee_kind, grpc_app, tls=tls), sidecar(callee_kind, http_app, tls=tls), sidecar(caller_kind, tls=tls)
    grpc_app.on_invoke = lambda q, c: grpc_app.common.InvokeResponse(content_type=q.content_type, data={"value": q.data.value})
    http_app.handlers["/m"] = lambda r: (200, {"x-out": "o"}, r["body"])
    for n in SIZES:
        body = os.urandom(n)
        r = caller.request("POST", url(to_grpc, "/m"), body, {"content-type": "a/b"}, timeout=60)
        assert (r.status, r.headers["content-type"], r.body == body) == (200, "a/b", True), n
        out, head, _ = invoke(caller, to_http.app_id, "m", body, "PUT", timeout=60)
        assert (out.data.value == body, head["x-out"]) == (True, "o"), n
        assert invoke(caller, to_grpc.app_id, "m", body, "", timeout=60)[0].data.value == body, n


@pytest.mark.parametrize("caller_kind,callee_kind", PAIRS)
def test_proxying(sidecar, apps, tls, caller_kind, callee_kind):
    callee, caller = sidecar(callee_kind, apps[1], tls=tls), sidecar(caller_kind, tls=tls)
    md = (("dapr-app-id", callee.app_id), ("x-bin", b"\0\xff"))
    ch = caller.channel
    for n in SIZES:
        body = os.urandom(n)
        out, call = ch.unary_unary("/test.Echo/Unary").with_call(body, metadata=md, timeout=60)
        head, tail = dict(call.initial_metadata()), dict(call.trailing_metadata())
        assert (out == body, head["head-bin"], tail["tail-bin"]) == (True, b"\0\1", b"\2\3"), n
    assert apps[1].metadata["x-bin"] == b"\0\xff"
    assert list(ch.unary_stream("/test.Echo/ServerStream")(b"200", metadata=md, timeout=60)) == [b"%d" % i for i in range(200)]
    assert ch.stream_unary("/test.Echo/ClientStream")((b"x" * 100_000 for _ in range(500)), metadata=md, timeout=60) == b"50000000"
    assert list(ch.stream_stream("/test.Echo/Both")((b"%d" % i for i in range(50)), metadata=md, timeout=60)) == [b"%d" % i for i in range(50)]
    assert [int(p) for p in ch.unary_stream("/test.Echo/ServerStream")(b"50 1000000", metadata=md, timeout=60) if len(p) == 1_000_000] == list(range(50))
    for n, size in (50, 1_000_000), (1, 50_000_000):
        pieces = [os.urandom(1000) * (size // 1000) for _ in range(n)]
        assert list(ch.stream_stream("/test.Echo/Both")(iter(pieces), metadata=md, timeout=60)) == pieces
    with pytest.raises(grpc.RpcError) as e:
        ch.unary_unary("/test.Echo/Unary")(b"fail", metadata=md, timeout=60)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.DATA_LOSS, "lost é")


# ---- streams ----

PIECE = b"x" * 65536


class StreamApp(RawApp):
    """POST: counts what comes. GET /n: n bytes, counted as they leave. GET /events: one event for each time that go is released."""

    def __init__(self):
        self.count, self.go = 0, threading.Semaphore(0)
        super().__init__(self.serve)

    def serve(self, reader, sock, head):
        self.count = 0
        if head.startswith(b"POST"):
            while n := int(reader.readline(), 16):
                while n:
                    n -= len(got := reader.read(min(n, 1 << 20)))
                    self.count += len(got)
                reader.readline()
            reader.readline()
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nok")
        elif head.startswith(b"GET /events"):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(5):
                assert self.go.acquire(timeout=20)
                sock.sendall(b"9\r\ndata: %d\n\n\r\n" % i)
            sock.sendall(b"0\r\n\r\n")
        else:
            n = int(head.split()[1][1:])
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: %d\r\n\r\n" % n)
            while self.count < n:
                sock.sendall(PIECE[:n - self.count])
                self.count += len(PIECE[:n - self.count])
        return True


@pytest.fixture
def streams(sidecar):
    """(caller, callee, app, rss of those that are ours)."""
    def make(caller_kind, callee_kind, tls=None):
        made.append(app := StreamApp())
        callee, caller = sidecar(callee_kind, app, tls=tls), sidecar(caller_kind, tls=tls)
        ours = [d.proc.pid for d, kind in ((caller, caller_kind), (callee, callee_kind)) if kind == "ours"]
        return caller, callee, app, lambda: [rss_kb(pid) for pid in ours]
    made = []
    yield make
    for a in made:
        a.close()


def connection(d):
    return http.client.HTTPConnection("127.0.0.1", d.http, timeout=60)


@pytest.mark.parametrize("caller_kind,callee_kind", PAIRS)
def test_streams_stay_flat(streams, caller_kind, callee_kind):
    n = int(os.environ.get("MESH_STREAM_BYTES", 300_000_000)) // len(PIECE) * len(PIECE)
    caller, callee, app, rss = streams(caller_kind, callee_kind)
    c, size, at, marks = connection(caller), 0, time.monotonic(), []
    c.request("GET", url(callee, f"/{n}"))
    r = c.getresponse()
    while got := r.read(1 << 20):
        if not size:
            marks.append(rss())
        size += len(got)
    assert size == n
    down, at = time.monotonic() - at, time.monotonic()
    c.request("POST", url(callee, "/up"), (PIECE for _ in range(n // len(PIECE))), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    r = c.getresponse()
    assert (r.status, r.read(), app.count) == (200, b"ok", n)
    marks.append(rss())
    print(f"{caller_kind} -> {callee_kind}: {n} bytes down {down:.1f} s, up {time.monotonic() - at:.1f} s, RSS in KB of ours {marks[0]} -> {marks[1]}")
    assert all(b - a < 16_000 for a, b in zip(*marks)), marks
    c.close()


@pytest.mark.parametrize("caller_kind,callee_kind", PAIRS)
def test_events_arrive_one_by_one(streams, tls, caller_kind, callee_kind):
    caller, callee, app, _ = streams(caller_kind, callee_kind, tls)
    c = connection(caller)
    app.go.release()
    c.request("GET", url(callee, "/events"), headers={"Accept": "text/event-stream"})
    r = c.getresponse()
    assert (r.status, r.headers["content-type"]) == (200, "text/event-stream")
    for i in range(5):
        assert r.readline() + r.readline() == b"data: %d\n\n" % i
        app.go.release()
    assert r.read() == b""
    c.close()


@pytest.mark.parametrize("caller_kind,callee_kind", PAIRS)
def test_a_slow_reader_stops_the_app(streams, caller_kind, callee_kind):
    """Who does not read holds up the app, not the memory between them; and gets all of it in the end."""
    n = 200_000_000
    caller, callee, app, rss = streams(caller_kind, callee_kind)
    before = rss()
    c = connection(caller)
    c.request("GET", url(callee, f"/{n}"))
    r = c.getresponse()
    assert len(r.read(1000)) == 1000
    seen = []

    def stands():
        seen.append(app.count)
        return len(seen) > 50 and len(set(seen[-50:])) == 1
    wait_until("the app stands still", stands)
    print(f"{caller_kind} -> {callee_kind}: {app.count} bytes are on their way, RSS in KB of ours {before} -> {rss()}")
    assert app.count < 60_000_000 and all(b - a < 16_000 for a, b in zip(before, rss()))
    assert len(r.read()) == n - 1000
    c.close()


@pytest.mark.parametrize("caller_kind,callee_kind", PAIRS)
def test_access_control_by_identity(sidecar, sentry, apps, caller_kind, callee_kind):
    """The policy names the caller; what it does not allow is refused, encoded or not."""
    app = apps[0]
    for path in ("/open", "/open/a", "/closed", "/admin"):
        app.handlers[path] = lambda r: (200, {}, b"ok")
    caller = sidecar(caller_kind, tls=sentry)
    rules = [{"name": "/open", "httpVerb": ["GET"], "action": "allow"}, {"name": "/star/*", "httpVerb": ["*"], "action": "allow"}]
    policy = {"appId": caller.app_id, "namespace": "default", "trustDomain": "public", "defaultAction": "deny", "operations": rules}
    callee = sidecar(callee_kind, app, tls=sentry, config=access(defaultAction="deny", trustDomain="public", policies=[policy]))
    want = {("GET", "/open"): 200, ("GET", "/OPEN/a"): 404, ("GET", "/open/a"): 200, ("POST", "/open"): 403, ("GET", "/closed"): 403,
            ("GET", "/open/../closed"): 403, ("GET", "/open/%2e%2e/closed"): 403, ("GET", "/open%2F..%2Fclosed"): 403, ("GET", "/open/a/b"): 200, ("POST", "/open/a/b"): 403, ("PUT", "/star/a"): 200,
            ("GET", "/star/a/b"): 403}
    app.handlers["/OPEN/a"] = lambda r: (404, {}, b"")
    for (verb, path), status in want.items():
        assert caller.request(verb, url(callee, path)).status == status, (verb, path)
