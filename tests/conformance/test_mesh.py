"""Invocation between two sidecars: HTTP and gRPC on either side, bodies in pieces, proxying, access control, retries, what breaks."""
import http.client, json, os, socket, socketserver, threading, uuid

import grpc
import pytest

from conftest import Reply, Web, wait_until
from test_invoke import GrpcApp, HttpApp, details, grpc_app, http_app, invoke, start  # noqa: F401: fixtures


def name(prefix):
    """No other test's sidecar on this network has it."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def rss_kb(pid):
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))


@pytest.fixture
def pair(start, daprd):
    """callee, caller = pair(app, *args of the callee): the caller has no app."""
    def make(app, *args, caller_args=(), caller_resources=(), **kw):
        callee = start(app, *args, app_id=name("callee"), **kw)
        caller = daprd(resources=caller_resources, app_id=name("caller"), args=list(caller_args))
        caller.channel = grpc.insecure_channel(f"127.0.0.1:{caller.grpc}")
        channels.append(caller.channel)
        return callee, caller
    channels = []
    yield make
    for c in channels:
        c.close()


class RawApp(Web):
    """An HTTP app whose every connection is handled by fn(reader, socket, head): for what http.server cannot do."""

    def __init__(self, fn):
        app = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    while head := self.read_head():
                        if head.startswith(b"GET /dapr/") or head.startswith(b"GET /healthz"):
                            self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                        elif not fn(self.rfile, self.request, head):
                            return
                except OSError:
                    pass

            def read_head(self):
                head = b""
                while line := self.rfile.readline():
                    head += line
                    if line == b"\r\n":
                        return head
                return b""
        super().__init__(Handler)


@pytest.fixture
def raw_app():
    made = []

    def make(fn):
        made.append(RawApp(fn))
        return made[-1]
    yield make
    for a in made:
        a.close()


def plain(d, verb, path, body, headers):
    """As Daprd.request, with the headers as they are given."""
    c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=20)
    c.request(verb, path, body, headers)
    r = c.getresponse()
    out = Reply(r.status, r.headers, r.read())
    c.close()
    return out


def url(d, path, id=None):
    return f"/v1.0/invoke/{id or d.app_id}/method{path}"


# ---- HTTP ----

@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_http_to_http(pair, http_app, verb):
    callee, caller = pair(http_app)
    http_app.handlers["/a/b"] = lambda r: (418, {"x-out": "o", "keep-alive": "timeout=1", "content-type": "text/y"}, b"tea")
    r = plain(caller, verb, url(callee, "/a/../a/b?q=1&r=%20"), b"in" if verb in ("POST", "PUT", "PATCH") else None,
                       {"x-in": "i", "content-type": "text/x", "te": "trailers", "connection": "x-hop", "x-hop": "1", "dapr-caller-app-id": "forged"})
    assert (r.status, r.headers["x-out"], r.headers["content-type"], r.headers.get("keep-alive")) == (418, "o", "text/y", None)
    assert r.body == (b"" if verb == "HEAD" else b"tea")
    got = http_app.got[0]
    assert (got["method"], got["path"], got["body"]) == (verb, "/a/b?q=1&r=%20", b"in" if verb in ("POST", "PUT", "PATCH") else b"")
    h = got["headers"]
    assert (h["x-in"], h["content-type"], h["dapr-caller-app-id"], h["dapr-callee-app-id"]) == ("i", "text/x", caller.app_id, callee.app_id)
    assert h["x-forwarded-host"] == socket.gethostname() and "for=" in h["forwarded"] and h["x-forwarded-for"]
    assert not {"x-hop", "te", "destination-app-id"} & set(h)


def test_whom_an_id_means(pair, http_app):
    callee, caller = pair(http_app)
    http_app.handlers["/m"] = lambda r: (200, {}, b"ok")
    assert caller.request("GET", url(callee, "/m", f"{callee.app_id}.default")).body == b"ok"
    assert caller.request("GET", "/m", headers={"dapr-app-id": callee.app_id}).body == b"ok"
    r = caller.request("GET", url(callee, "/m", f"{callee.app_id}.a.b"))
    assert r.status == 500 and "invalid app id" in r.json()["message"]
    r = caller.request("GET", url(callee, "/m", "nobody-" + callee.app_id))
    assert r.status == 500 and r.json()["errorCode"] == "ERR_DIRECT_INVOKE"


def test_bodies_of_all_sizes(pair, http_app):
    callee, caller = pair(http_app, "--max-body-size=64Mi", caller_args=["--max-body-size=64Mi"])
    http_app.handlers["/echo"] = lambda r: (200, {}, r["body"])
    for n in (0, 1, 16383, 16384, 16385, 100_000, 1 << 20, (1 << 20) + 1, 20_000_000):
        body = os.urandom(n)
        r = caller.request("POST", url(callee, "/echo"), body)
        assert r.status == 200 and r.body == body, n


def test_streams_stay_flat(pair, raw_app):
    """300 MB (MESH_STREAM_BYTES) up and down through both sidecars: their memory stays what it was."""
    n, piece = int(os.environ.get("MESH_STREAM_BYTES", 300_000_000)), b"x" * 65536
    counted = []

    def app(reader, sock, head):
        if head.startswith(b"POST"):
            size = 0
            while length := int(reader.readline(), 16):
                left = length
                while left:
                    left -= len(got := reader.read(min(left, 1 << 20)))
                    assert got
                size += length
                reader.readline()
            reader.readline()
            counted.append(size)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
            for i in range(0, n, len(piece)):
                sock.sendall(piece[:n - i])
        return True
    callee, caller = pair(raw_app(app), "--max-body-size=4Gi", caller_args=["--max-body-size=4Gi"])
    c = http.client.HTTPConnection("127.0.0.1", caller.http, timeout=60)
    c.request("GET", url(callee, "/warm"))
    r = c.getresponse()
    size = 0
    peaks = [rss_kb(callee.proc.pid), rss_kb(caller.proc.pid)]
    while got := r.read(1 << 20):
        size += len(got)
    assert size == n
    c.request("POST", url(callee, "/up"), (piece for _ in range(n // len(piece))), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert c.getresponse().read() == b"ok"
    assert counted == [n // len(piece) * len(piece)]
    now = [rss_kb(callee.proc.pid), rss_kb(caller.proc.pid)]
    limit = 400_000 if "asan" in os.environ.get("BUILD", "") else 30_000  # ASan keeps what was freed
    print("RSS in KB, before and after:", peaks, now)
    assert all(b - a < limit for a, b in zip(peaks, now)), (peaks, now)
    c.close()


def test_events_arrive_one_by_one(pair, raw_app):
    go = threading.Semaphore(0)

    def app(reader, sock, head):
        assert b"text/event-stream" in head
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(3):
            assert go.acquire(timeout=20)
            sock.sendall(b"9\r\ndata: %d\n\n\r\n" % i)
        sock.sendall(b"0\r\nx-trailer: t\r\n\r\n")
        return True
    callee, caller = pair(raw_app(app))
    c = http.client.HTTPConnection("127.0.0.1", caller.http, timeout=20)
    c.request("GET", url(callee, "/events"), headers={"Accept": "text/event-stream"})
    r = c.getresponse()
    assert (r.status, r.headers["content-type"], r.headers["cache-control"]) == (200, "text/event-stream", "no-cache")
    for i in range(3):
        go.release()
        assert r.readline() + r.readline() == b"data: %d\n\n" % i
    assert r.read() == b""
    c.close()


def test_an_answer_before_the_request_has_ended(pair, raw_app):
    def app(reader, sock, head):
        reader.readline()
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
        return False
    callee, caller = pair(raw_app(app))
    c = http.client.HTTPConnection("127.0.0.1", caller.http, timeout=20)
    c.putrequest("POST", url(callee, "/x"))
    c.putheader("Transfer-Encoding", "chunked")
    c.endheaders()
    c.send(b"3\r\nabc\r\n")
    r = c.getresponse()
    assert (r.status, r.read()) == (403, b"no!")
    c.close()


def test_an_answer_that_breaks_off(pair, raw_app):
    def app(reader, sock, head):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50000)
        return False
    callee, caller = pair(raw_app(app))
    c = http.client.HTTPConnection("127.0.0.1", caller.http, timeout=20)
    c.request("GET", url(callee, "/x"))
    with pytest.raises(http.client.IncompleteRead):
        c.getresponse().read()
    c.close()


def test_a_caller_that_goes_away_ends_the_call(pair, raw_app):
    gone = threading.Event()

    def app(reader, sock, head):
        sock.settimeout(20)
        if sock.recv(1) == b"":
            gone.set()
        return False
    callee, caller = pair(raw_app(app))
    c = http.client.HTTPConnection("127.0.0.1", caller.http, timeout=20)
    c.request("GET", url(callee, "/x"))
    wait_until("the app is asked", lambda: 'dapr_runtime_service_invocation_req_recv_total' in callee.metric_text())
    c.close()
    assert gone.wait(20)


def test_trailers_of_http(pair, raw_app):
    def app(reader, sock, head):
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n")
        return True
    callee, caller = pair(raw_app(app))
    with socket.create_connection(("127.0.0.1", caller.http), 20) as s:
        s.sendall(f"GET {url(callee, '/x')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        text = b""
        while got := s.recv(4096):
            text += got
    assert text.endswith(b"1\r\na\r\n0\r\nx-sum: 7\r\n\r\n"), text


def reply_of(status, *lines, body=b""):
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}"]).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("answer,status,type_", [
    (reply_of("200 OK", body=b"text"), 200, "text/plain; charset=utf-8"), (reply_of("200 OK", body=b" <html>"), 200, "text/html; charset=utf-8"),
    (reply_of("200 OK"), 200, None), (reply_of("200 OK", "Content-Encoding: x", body=b"text"), 200, None),
    (reply_of("404 Not Found", body=b"text"), 404, "application/json"), (reply_of("500 Oops"), 500, "application/json"),
    (reply_of("302 Found", body=b"\0"), 302, "application/octet-stream"), (reply_of("500 Oops", "Content-Type: a/b", body=b"x"), 500, "a/b"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%PDF-\r\n0\r\n\r\n", 200, "application/pdf")])
def test_the_type_of_an_answer(pair, raw_app, answer, status, type_):
    def app(reader, sock, head):
        sock.sendall(answer)
        return True
    callee, caller = pair(raw_app(app))
    for d in caller, callee:
        r = d.request("GET", url(callee, "/x")) if status != 302 else plain(d, "GET", url(callee, "/x"), None, {})
        assert (r.status, r.headers["content-type"]) == (status, type_)


def test_names_of_the_grpc_wire_are_marked(pair, raw_app):
    heads = []

    def app(reader, sock, head):
        heads.append(head.lower())
        sock.sendall(reply_of("200 OK", "grpc-status: 3", "y-bin: AA==", body=b"x"))
        return True
    callee, caller = pair(raw_app(app))
    for d in caller, callee:
        r = d.request("GET", url(callee, "/x"), headers={"grpc-timeout": "1S", "X-Bin": "AA=="})
        assert r.headers["dapr-grpc-status"] == "3" and not {"grpc-status", "y-bin"} & set(r.headers)
        assert b"dapr-grpc-timeout: 1s" in heads[-1] and b"\r\ngrpc-timeout" not in heads[-1] and b"x-bin" not in heads[-1]


def test_a_request_over_the_limit(pair, http_app):
    callee, caller = pair(http_app, caller_args=["--max-body-size=1Mi"])
    r = caller.request("POST", url(callee, "/m"), b"x" * 1_100_000)
    text = f"failed to invoke, id: {callee.app_id}, err: stream too large"
    assert (r.status, r.json()) == (500, {"errorCode": "ERR_DIRECT_INVOKE", "message": text})
    assert not http_app.got


def test_a_loop_of_invocations_ends(pair, http_app):
    callee, caller = pair(http_app)
    c = http.client.HTTPConnection("127.0.0.1", caller.http, timeout=20)
    c.putrequest("GET", url(callee, "/x"))
    for _ in range(32):
        c.putheader("Forwarded", "for=1")
    c.endheaders()
    r = c.getresponse()
    assert r.status == 500 and b"loop of invocations" in r.read()
    c.close()


@pytest.mark.parametrize("path", ["a%23b", "a%3Fb", "a%00b", "a%0Db"])
def test_forbidden_characters(pair, http_app, path):
    callee, caller = pair(http_app)
    assert caller.request("GET", url(callee, "/" + path)).status == 500
    assert not http_app.got


# ---- gRPC apps and callers ----

def test_http_to_grpc(pair, grpc_app):
    callee, caller = pair(grpc_app)
    grpc_app.on_invoke = lambda q, c: grpc_app.common.InvokeResponse(content_type=q.content_type, data={"value": q.data.value * 2})
    r = caller.request("PUT", url(callee, "/m?a=b"), b"in", {"content-type": "text/x", "x-in": "i"})
    assert (r.status, r.headers["content-type"], r.body) == (200, "text/x", b"inin")
    q = grpc_app.seen[0]
    assert (q.method, q.content_type, q.http_extension.verb, q.http_extension.querystring) == ("m", "text/x", 4, "a=b")
    assert grpc_app.metadata["x-in"] == "i" and grpc_app.metadata["dapr-content-type"] == "text/x"
    assert grpc_app.metadata["dapr-caller-app-id"] == caller.app_id

    def fails(q, c):
        c.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    grpc_app.on_invoke = fails
    r = caller.request("GET", url(callee, "/m"))
    assert (r.status, r.json()) == (404, {"code": 5, "message": "no such thing"})


def test_grpc_to_http(pair, http_app):
    callee, caller = pair(http_app)
    http_app.handlers["/m"] = lambda r: (200, {"x-out": "o"}, b"<" + r["body"] + b">")
    out, head, tail = invoke(caller, callee.app_id, "m", b"in", "PUT", "q=1", "text/x", (("x-in", "i"), ("x-bin", b"\0")))
    assert (out.data.value, head["x-out"], head["dapr-http-status"]) == (b"<in>", "o", "200")
    got = http_app.got[0]
    assert (got["method"], got["path"], got["headers"]["x-in"], got["headers"]["content-type"]) == ("PUT", "/m?q=1", "i", "text/x")
    http_app.handlers["/m"] = lambda r: (409, {}, b"why")
    with pytest.raises(grpc.RpcError) as e:
        invoke(caller, callee.app_id, "m")
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.ALREADY_EXISTS, "Conflict")


def test_grpc_to_grpc(pair, grpc_app):
    callee, caller = pair(grpc_app)

    def answer(q, c):
        c.send_initial_metadata((("head", "h"), ("head-bin", b"\0\1")))
        c.set_trailing_metadata((("tail", "t"), ("tail-bin", b"\2")))
        return grpc_app.common.InvokeResponse(content_type="a/b", data={"value": q.data.value, "type_url": "u/x"})
    grpc_app.on_invoke = answer
    body = os.urandom(100_000)
    out, head, tail = invoke(caller, callee.app_id, "m", body, "", metadata=(("x-bin", b"\3\4"),), type_url="u/x")
    assert (out.data.value, out.data.type_url, out.content_type) == (body, "u/x", "a/b")
    assert (head["head"], head["head-bin"], tail["tail"], tail["tail-bin"]) == ("h", b"\0\1", "t", b"\2")
    assert grpc_app.metadata["x-bin"] == b"\3\4"


def test_proxying(pair, grpc_app):
    callee, caller = pair(grpc_app)
    md = (("dapr-app-id", callee.app_id), ("x", "y"), ("x-bin", b"\0\xff"))
    ch = caller.channel
    out, call = ch.unary_unary("/test.Echo/Unary").with_call(b"a" * 1000, metadata=md, timeout=20)
    assert out == b"a" * 1000
    head, tail = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (head["head"], head["head-bin"], tail["tail"], tail["tail-bin"]) == ("h", b"\0\1", "t", b"\2\3")
    got = grpc_app.metadata
    assert (got["x"], got["x-bin"], got["dapr-caller-app-id"], got["dapr-callee-app-id"]) == ("y", b"\0\xff", caller.app_id, callee.app_id)
    assert "dapr-app-id" not in got
    assert list(ch.unary_stream("/test.Echo/ServerStream")(b"50", metadata=md, timeout=20)) == [b"%d" % i for i in range(50)]
    assert ch.stream_unary("/test.Echo/ClientStream")((b"x" * 1000 for _ in range(200)), metadata=md, timeout=20) == b"200000"
    assert list(ch.stream_stream("/test.Echo/Both")((b"%d" % i for i in range(20)), metadata=md, timeout=20)) == [b"%d" % i for i in range(20)]
    with pytest.raises(grpc.RpcError) as e:
        ch.unary_unary("/test.Echo/Unary")(b"fail", metadata=md, timeout=20)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.DATA_LOSS, "lost é")
    with pytest.raises(grpc.RpcError) as e:
        ch.unary_unary("/test.Echo/Hang")(b"", metadata=md, timeout=0.3)
    assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert grpc_app.cancelled.wait(20)


def test_a_proxied_conversation(pair, grpc_app):
    """Answers come while the caller has not ended: each side waits for the other's message."""
    callee, caller = pair(grpc_app)
    go, out = threading.Semaphore(1), []

    def requests():
        for i in range(5):
            assert go.acquire(timeout=20)
            yield b"%d" % i
    for answer in caller.channel.stream_stream("/test.Echo/Both")(requests(), metadata=(("dapr-app-id", callee.app_id),), timeout=20):
        out.append(answer)
        go.release()
    assert out == [b"%d" % i for i in range(5)]


def test_proxying_stops_going_round(pair, grpc_app):
    callee, caller = pair(grpc_app)
    md = (("dapr-app-id", callee.app_id),) + (("dapr-caller-app-id", "x"),) * 16
    with pytest.raises(grpc.RpcError) as e:
        caller.channel.unary_unary("/test.Echo/Unary")(b"", metadata=md, timeout=20)
    assert e.value.code() == grpc.StatusCode.ABORTED and "loop" in e.value.details()


# ---- policies ----

def resiliency(app, **target):
    spec = {"policies": {"timeouts": {"short": "300ms"}, "retries": {"again": {"policy": "constant", "duration": "10ms", "maxRetries": 3}}},
            "targets": {"apps": {app: target}}}
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "r"}, "spec": spec})


def test_retries_of_a_policy(start, daprd, http_app):
    callee = start(http_app, app_id=name("callee"))
    caller = daprd(resources=[resiliency(callee.app_id, retry="again")], app_id=name("caller"))
    answers = [500, 503, 200]
    http_app.handlers["/m"] = lambda r: (answers.pop(0), {}, r["body"])
    r = caller.request("POST", url(callee, "/m"), b"body")
    assert (r.status, r.body, len(http_app.got)) == (200, b"body", 3)
    answers[:] = [500] * 4
    assert caller.request("POST", url(callee, "/m"), b"body").status == 500
    assert not answers


def test_retries_of_proxied_calls(start, daprd, grpc_app):
    callee = start(grpc_app, app_id=name("callee"))
    caller = daprd(resources=[resiliency(callee.app_id, retry="again")], app_id=name("caller"))
    md = (("dapr-app-id", callee.app_id),)
    with grpc.insecure_channel(f"127.0.0.1:{caller.grpc}") as ch:
        assert ch.unary_unary("/test.Echo/Unary")(b"one", metadata=md, timeout=20) == b"one"
        with pytest.raises(grpc.RpcError) as e:
            ch.unary_unary("/test.Echo/Unary")(b"fail", metadata=md, timeout=20)
        assert e.value.code() == grpc.StatusCode.DATA_LOSS
        assert "Error processing operation endpoint" in caller.log(), "a status is tried again, whatever metadata come with it"
        with pytest.raises(grpc.RpcError) as e:
            ch.stream_unary("/test.Echo/ClientStream")(iter([b"1", b"2"]), metadata=md, timeout=20)
        assert e.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        out = ch.stream_unary("/test.Echo/ClientStream")(iter([b"1", b"2"]), metadata=md + (("dapr-stream", "true"),), timeout=20)
        assert out == b"2"


def test_a_sidecar_that_comes_back(pair, http_app):
    """The built-in retries: the callee's sidecar is gone while the call is made."""
    callee, caller = pair(http_app)
    http_app.handlers["/m"] = lambda r: (200, {}, r["body"])
    assert caller.request("POST", url(callee, "/m"), b"1").body == b"1"
    callee.close()
    answer = []
    t = threading.Thread(target=lambda: answer.append(caller.request("POST", url(callee, "/m"), b"2", timeout=30)))
    t.start()
    callee.start()
    t.join(30)
    assert (answer[0].status, answer[0].body) == (200, b"2")


def test_metrics(pair, http_app):
    callee, caller = pair(http_app)
    caller.request("GET", url(callee, "/m"))
    sent = f'dapr_runtime_service_invocation_req_sent_total{{app_id="{caller.app_id}",dst_app_id="{callee.app_id}",type="unary"}} 1'
    assert sent in caller.metric_text()
    assert f'src_app_id="{callee.app_id}",status="200",type="unary"}} 1' in caller.metric_text()
    received = f'dapr_runtime_service_invocation_req_recv_total{{app_id="{callee.app_id}",src_app_id="{caller.app_id}"}} 1'
    wait_until("the callee has counted", lambda: received in callee.metric_text())


# ---- access control ----

def access(**spec):
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}, "spec": {"accessControl": spec}})


def test_denied_without_an_identity(pair, http_app, grpc_app):
    callee, caller = pair(http_app, config=access(defaultAction="deny", trustDomain="public"))
    r = caller.request("GET", url(callee, "/m"))
    assert r.status == 403 and r.json()["errorCode"] == "ERR_DIRECT_INVOKE" and "access control policy has denied access" in r.json()["message"]
    assert not http_app.got
    assert "dapr_runtime_acl_global_policy_action_blocked_total" in callee.metric_text()
    http_app.handlers["/m"] = lambda r: (200, {}, b"ok")
    assert callee.request("GET", url(callee, "/m")).body == b"ok", "calls of the own app are not subject to it"


def test_wrong_access_control_stops_the_start(daprd):
    d = daprd(start=False, config=access(defaultAction="deny", policies=[{"appId": "a", "namespace": "n"}]))
    d.start(healthy=False)
    assert d.wait_exit() == 1
    assert "missing trustdomain for apps: [a]" in d.log()


# ---- servers outside ----

def endpoint(base, **spec):
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "HTTPEndpoint", "metadata": {"name": "site"}, "spec": {"baseUrl": base, **spec}})


def test_redirects_of_an_endpoint(daprd, http_app):
    """By GET, to other servers too; of another host's name neither Authorization nor Cookie are sent, the endpoint's or the caller's."""
    other = HttpApp()
    try:
        other.handlers["/there"] = lambda r: (302, {"location": f"http://127.0.0.1:{http_app.port}/end?q=1#part"}, b"")
        http_app.handlers["/m"] = lambda r: (303, {"location": f"//localhost:{other.port}/there"}, b"")
        http_app.handlers["/loop"] = lambda r: (301, {"location": "loop"}, b"")
        http_app.handlers["/kept"] = lambda r: (307, {"location": "/end"}, b"kept")
        http_app.handlers["/end"] = lambda r: (200, {}, b"end")
        d = daprd(resources=[endpoint(f"http://127.0.0.1:{http_app.port}", headers=[{"name": "Authorization", "value": "Bearer v"}, {"name": "x-key", "value": "v"}])])
        r = d.request("POST", "/v1.0/invoke/site/method/m", b"in", {"cookie": "a=1", "content-type": "a/b", "x-in": "i"})
        assert (r.status, r.body) == (200, b"end")
        first, there, end = http_app.got[0], other.got[0], http_app.got[1]
        assert (first["method"], first["headers"]["authorization"], first["headers"]["cookie"]) == ("POST", "Bearer v", "a=1")
        for got, path in (there, "/there"), (end, "/end?q=1"):
            assert (got["method"], got["path"], got["headers"]["x-key"], got["headers"]["x-in"]) == ("GET", path, "v", "i")
            assert not {"authorization", "cookie", "content-type"} & set(got["headers"])
        assert there["headers"]["referer"] == f"http://127.0.0.1:{http_app.port}/m"
        assert "stopped after 10 redirects" in d.request("GET", "/v1.0/invoke/site/method/loop").json()["message"]
        r = plain(d, "POST", "/v1.0/invoke/site/method/kept", b"in", {})
        assert (r.status, r.body, r.headers["location"]) == (307, b"kept", "/end")
    finally:
        other.close()


def test_endpoints_and_urls(daprd, http_app):
    http_app.handlers["/base/m"] = lambda r: (201, {"x-out": "o"}, r["body"])
    http_app.handlers["/moved"] = lambda r: (302, {"location": "/base/m"}, b"")
    base = f"http://127.0.0.1:{http_app.port}"
    d = daprd(resources=[endpoint(base + "/base", headers=[{"name": "x-key", "value": "v"}])])
    r = d.request("POST", "/v1.0/invoke/site/method/m?q=1", b"in", {"x-key": "forged", "x-in": "i"})
    assert (r.status, r.headers["x-out"], r.body) == (201, "o", b"in")
    got = http_app.got[-1]
    assert (got["path"], got["headers"]["x-key"], got["headers"]["x-in"]) == ("/base/m?q=1", "v", "i")
    assert d.request("PUT", f"/v1.0/invoke/{base}/base/method/m", b"2").body == b"2"
    assert d.request("PUT", f"/v1.0/invoke/{base.replace(':', '%3A').replace('/', '%2F')}/method/base/m", b"3").body == b"3"
    assert d.request("GET", "/v1.0/invoke/http://127.0.0.1:1/method/m").json()["errorCode"] == "ERR_DIRECT_INVOKE"
    assert d.metadata()["httpEndpoints"] == [{"name": "site"}]
