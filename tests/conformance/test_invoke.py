"""Invocation of the own app through both doors, whichever protocol it speaks: what goes to it, what comes back, policies, proxying."""
import http.server, json, threading, time
from concurrent import futures

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from conftest import Web, free_port, wait_until

ME = ("dapr-app-id", "app")


class HttpApp(Web):
    """Answers by handlers: path -> fn(request) giving (status, headers, body); all that came is in got."""

    def __init__(self):
        self.got, self.handlers, self.healthy = [], {}, True
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def any(self):
                path = self.path.partition("?")[0]
                if self.headers.get("transfer-encoding") == "chunked":
                    pieces = []
                    while n := int(self.rfile.readline(), 16):
                        pieces.append(self.rfile.read(n))
                        self.rfile.readline()
                    self.rfile.readline()
                    body = b"".join(pieces)
                else:
                    body = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = {"method": self.command, "path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}
                if path == "/healthz":
                    status, headers, out = 200 if app.healthy else 500, {}, b""
                elif path.startswith("/dapr/"):
                    status, headers, out = 404, {}, b""
                else:
                    app.got.append(request)
                    status, headers, out = app.handlers.get(path, lambda r: (200, {}, b""))(request)
                self.send_response(status)
                for k, v in headers.items():
                    self.send_header(k, v)
                self.send_header("content-length", str(len(out)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(out)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_TRACE = any
        super().__init__(Handler)


class GrpcApp(grpc.GenericRpcHandler):
    """AppCallback.OnInvoke by self.on_invoke(request, context); /test.Echo/* of every kind, on bytes."""

    def __init__(self, *options):
        from dapr.proto import common_v1
        self.common, self.seen, self.cancelled, self.metadata = common_v1, [], threading.Event(), {}
        self.on_invoke = lambda request, context: common_v1.InvokeResponse()
        self.server = grpc.server(futures.ThreadPoolExecutor(16), options=options)
        self.server.add_generic_rpc_handlers([self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        name = details.method
        same = {"request_deserializer": None, "response_serializer": None}

        def call(request, context):
            self.metadata = dict(context.invocation_metadata())
            self.seen.append(request)
            return self.on_invoke(request, context)
        if name.endswith("/OnInvoke"):
            return grpc.unary_unary_rpc_method_handler(call, self.common.InvokeRequest.FromString, self.common.InvokeResponse.SerializeToString)

        def begin(context):
            self.metadata = dict(context.invocation_metadata())
            context.send_initial_metadata((("head", "h"), ("head-bin", b"\0\1")))
            context.set_trailing_metadata((("tail", "t"), ("tail-bin", b"\2\3")))

        def unary(request, context):
            begin(context)
            if request == b"fail":
                context.abort(grpc.StatusCode.DATA_LOSS, "lost é")
            return request

        def server_stream(request, context):
            begin(context)
            n, _, size = request.partition(b" ")
            for i in range(int(n)):
                yield (b"%d" % i).ljust(int(size or 0))

        def client_stream(requests, context):
            begin(context)
            return b"%d" % sum(len(r) for r in requests)

        def both(requests, context):
            begin(context)
            for r in requests:
                if r == b"stop":
                    return
                yield r

        def hang(request, context):
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(20)
            return b""
        return {"/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary, **same),
                "/test.Echo/ServerStream": grpc.unary_stream_rpc_method_handler(server_stream, **same),
                "/test.Echo/ClientStream": grpc.stream_unary_rpc_method_handler(client_stream, **same),
                "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(both, **same),
                "/test.Echo/Hang": grpc.unary_unary_rpc_method_handler(hang, **same)}.get(name)

    def close(self):
        self.cancelled.set()
        self.server.stop(None).wait()


@pytest.fixture
def http_app():
    a = HttpApp()
    yield a
    a.close()


@pytest.fixture
def grpc_app():
    a = GrpcApp()
    yield a
    a.close()


@pytest.fixture
def start(daprd):
    channels = []

    def make(app, *args, resources=(), **kw):
        protocol = ["--app-protocol=grpc"] if isinstance(app, GrpcApp) else []
        d = daprd(resources=resources, args=[f"--app-port={app.port}", *protocol, *args], **kw)
        d.channel = grpc.insecure_channel(f"127.0.0.1:{d.grpc}")
        channels.append(d.channel)
        # the API may serve before the app was found
        wait_until("the app is known", lambda: "application discovered" in d.log())
        return d
    yield make
    for c in channels:
        c.close()


def invoke(d, id="app", method="m", data=b"", verb="POST", query="", content_type="", metadata=(), type_url="", timeout=15):
    """InvokeService: (response, headers, trailers)."""
    from dapr.proto import api_service_v1, api_v1, common_v1
    message = common_v1.InvokeRequest(method=method, content_type=content_type, data=any_pb2.Any(value=data, type_url=type_url))
    if verb:
        message.http_extension.CopyFrom(common_v1.HTTPExtension(verb=verb, querystring=query))
    out, call = api_service_v1.DaprStub(d.channel).InvokeService.with_call(api_v1.InvokeServiceRequest(id=id, message=message),
                                                                         metadata=metadata, timeout=timeout)
    return out, dict(call.initial_metadata()), dict(call.trailing_metadata())


def details(error):
    raw = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    return status_pb2.Status.FromString(raw).details if raw else []


def resiliency(retries="", **policies):
    spec = {"policies": {"timeouts": {"short": "300ms"}, "retries": {"again": {"policy": "constant", "duration": "10ms", "maxRetries": 3}},
                         "circuitBreakers": {"quick": {"maxRequests": 1, "timeout": "60s", "trip": "consecutiveFailures >= 2"}}},
            "targets": {"apps": {"app": policies}}}
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "r"}, "spec": spec})


# ---- HTTP caller, HTTP app ----

def test_http_to_http(start, http_app):
    d = start(http_app)
    http_app.handlers["/a/b"] = lambda r: (207, {"x-one": "1", "content-type": "text/x", "connection": "keep-alive"}, b"out")
    r = d.request("PUT", "/v1.0/invoke/app/method/a/../a/b?q=1&r=%20", b"in", {"x-two": "2", "content-type": "text/y", "te": "trailers"})
    assert (r.status, r.body, r.headers["x-one"], r.headers["content-type"]) == (207, b"out", "1", "text/x")
    got = http_app.got[-1]
    assert (got["method"], got["path"], got["body"]) == ("PUT", "/a/b?q=1&r=%20", b"in")
    assert got["headers"]["x-two"] == "2" and got["headers"]["content-type"] == "text/y" and "te" not in got["headers"]
    assert d.request("GET", "/v1.0/invoke/app.default/method/a/b").status == 207
    assert d.request("GET", "/a/b", headers={"dapr-app-id": "app"}).status == 207


@pytest.mark.parametrize("path,says", [("a%23b", 'invalid method: method contains forbidden character: \\"a#b\\"'),
                                       ("a%09b", 'invalid method: method contains control character at position 1: \\"a\\\\tb\\"')])
def test_methods_that_are_refused(start, http_app, path, says):
    d = start(http_app)
    r = d.request("GET", f"/v1.0/invoke/app/method/{path}")
    assert r.status == 500 and says in r.body.decode()
    assert r.json()["errorCode"] == "ERR_DIRECT_INVOKE" and not http_app.got


def test_an_app_that_is_not_there_yet(daprd):
    port = free_port()
    d = daprd(args=[f"--app-port={port}"], healthy=False)
    wait_until("calls are taken", lambda: d.request("GET", "/v1.0/healthz").status)
    message = f'failed to invoke, id: app, err: Get "http://127.0.0.1:{port}/m": dial tcp 127.0.0.1:{port}: connect: connection refused'
    assert d.request("GET", "/v1.0/invoke/app/method/m").json() == {"errorCode": "ERR_DIRECT_INVOKE", "message": message}


def test_an_app_that_is_not_healthy(start, http_app):
    d = start(http_app, "--enable-app-health-check", "--app-health-check-path=/healthz", "--app-health-probe-interval=1", "--app-health-threshold=1")
    wait_until("healthy", lambda: d.request("GET", "/v1.0/invoke/app/method/m").status == 200)
    http_app.healthy = False
    wait_until("not healthy", lambda: d.request("GET", "/v1.0/invoke/app/method/m").status == 500)
    text = "rpc error: code = Internal desc = app is not in a healthy state"
    assert d.request("GET", "/v1.0/invoke/app/method/m").json()["message"] == f"failed to invoke, id: app, err: {text}"
    with pytest.raises(grpc.RpcError) as e:
        invoke(d)
    assert e.value.code() == grpc.StatusCode.INTERNAL and e.value.details() == f"failed to invoke, id: app, err: {text}"


def test_retries_of_the_app_policy(start, http_app):
    d = start(http_app, resources=[resiliency(retry="again")])
    tries = []

    def third_time(r):
        tries.append(r["body"])
        return (503, {"x-try": str(len(tries))}, b"no") if len(tries) < 3 else (200, {}, b"yes")
    http_app.handlers["/m"] = third_time
    r = d.request("POST", "/v1.0/invoke/app/method/m", b"in")
    assert (r.status, r.body, tries) == (200, b"yes", [b"in"] * 3)
    http_app.handlers["/m"] = lambda r: (tries.append(r["body"]), (503, {"x-try": "x"}, b"never"))[1]
    tries.clear()
    r = d.request("POST", "/v1.0/invoke/app/method/m", b"in")
    assert (r.status, r.body, r.headers["x-try"], len(tries)) == (503, b"never", "x", 4)
    tries.clear()
    with pytest.raises(grpc.RpcError) as e:
        invoke(d, data=b"in")
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE and len(tries) == 4


def test_a_body_without_length_goes_out_once(start, http_app):
    import http.client
    d = start(http_app, resources=[resiliency(retry="again")])
    http_app.handlers["/m"] = lambda r: (503, {}, b"no")
    c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=10)
    c.request("POST", "/v1.0/invoke/app/method/m", body=iter([b"ab", b"cd"]), encode_chunked=True, headers={"transfer-encoding": "chunked"})
    r = c.getresponse()
    assert (r.status, r.read(), [g["body"] for g in http_app.got]) == (503, b"no", [b"abcd"])
    c.close()


def test_timeout_and_circuit_breaker(start, http_app):
    d = start(http_app, resources=[resiliency(timeout="short", circuitBreaker="quick")])
    http_app.handlers["/slow"] = lambda r: (time.sleep(1), (200, {}, b""))[1]
    for says in ("context deadline exceeded", "context deadline exceeded", "circuit breaker is open"):
        r = d.request("POST", "/v1.0/invoke/app/method/slow", b"in")
        assert r.status == 500 and r.json()["message"] == f"failed to invoke, id: app, err: {says}"
    assert d.request("POST", "/v1.0/invoke/app/method/quick", b"in").status == 200
    for code, says in ((grpc.StatusCode.UNKNOWN, "circuit breaker is open"),):
        with pytest.raises(grpc.RpcError) as e:
            invoke(d, method="slow")
        assert (e.value.code(), e.value.details()) == (code, says)


# ---- HTTP caller, gRPC app ----

def test_http_to_grpc(start, grpc_app):
    d = start(grpc_app, env={"APP_API_TOKEN": "secret"})

    def answer(request, context):
        context.send_initial_metadata((("x-one", "1"), ("x-bin", b"\0"),))
        context.set_trailing_metadata((("x-tail", "t"),))
        return grpc_app.common.InvokeResponse(data=any_pb2.Any(value=b"out"), content_type="text/x")
    grpc_app.on_invoke = answer
    r = d.request("PATCH", "/v1.0/invoke/app/method/a/b?q=1", b"in", {"x-two": "2", "accept": "text/z", "content-type": "text/y"})
    assert (r.status, r.body, r.headers["content-type"], r.headers["x-one"]) == (200, b"out", "text/x", "1")
    assert "x-bin" not in r.headers and "x-tail" not in r.headers
    m = grpc_app.seen[-1]
    assert (m.method, m.data.value, m.content_type) == ("a/b", b"in", "text/y")
    assert (m.http_extension.verb, m.http_extension.querystring) == (grpc_app.common.HTTPExtension.PATCH, "q=1")
    md = grpc_app.metadata
    assert (md["x-two"], md["dapr-accept"], md["dapr-content-type"], md["dapr-api-token"]) == ("2", "text/z", "text/y", "secret")
    grpc_app.on_invoke = lambda r, c: grpc_app.common.InvokeResponse(data=any_pb2.Any(value=b"p", type_url="u/t"))
    assert d.request("GET", "/v1.0/invoke/app/method/p").headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("code,status", [("NOT_FOUND", 404), ("INVALID_ARGUMENT", 400), ("UNKNOWN", 500), ("CANCELLED", 408),
                                         ("DEADLINE_EXCEEDED", 504), ("ALREADY_EXISTS", 409), ("PERMISSION_DENIED", 403),
                                         ("UNAUTHENTICATED", 401), ("RESOURCE_EXHAUSTED", 429), ("ABORTED", 409), ("UNIMPLEMENTED", 501),
                                         ("INTERNAL", 500), ("UNAVAILABLE", 503), ("DATA_LOSS", 500)])
def test_the_status_of_a_grpc_app_over_http(start, grpc_app, code, status):
    d = start(grpc_app)
    grpc_app.on_invoke = lambda r, c: c.abort(grpc.StatusCode[code], "not so")
    r = d.request("POST", "/v1.0/invoke/app/method/m", b"in")
    assert r.status == status and r.json() == {"code": grpc.StatusCode[code].value[0], "message": "not so"}


def test_details_of_a_status_over_http(start, grpc_app):
    d = start(grpc_app)

    def answer(request, context):
        st = status_pb2.Status(code=5, message="gone")
        st.details.add().Pack(error_details_pb2.ErrorInfo(reason="R", domain="D", metadata={"k": "v"}))
        context.set_trailing_metadata((("grpc-status-details-bin", st.SerializeToString()),))
        context.abort(grpc.StatusCode.NOT_FOUND, "gone")
    grpc_app.on_invoke = answer
    r = d.request("POST", "/v1.0/invoke/app/method/m", b"in")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "domain": "D", "metadata": {"k": "v"}}
    assert (r.status, r.json()) == (404, {"code": 5, "message": "gone", "details": [info]})
    with pytest.raises(grpc.RpcError) as e:
        invoke(d)
    assert e.value.code() == grpc.StatusCode.NOT_FOUND and details(e.value)[0].type_url.endswith("ErrorInfo")


# ---- InvokeService ----

def test_service_to_http(start, http_app):
    d = start(http_app)
    http_app.handlers["/a/b"] = lambda r: (201, {"x-one": "1", "content-type": "text/x"}, b"out")
    out, headers, trailers = invoke(d, method="a/b", data=b"in", verb="PUT", query="q=1", content_type="text/y", metadata=(("x-two", "2"), ("b-bin", b"\0")))
    assert (out.data.value, out.content_type) == (b"out", "text/x")
    assert (headers["dapr-http-status"], headers["x-one"], headers["dapr-content-type"]) == ("201", "1", "text/x")
    got = http_app.got[-1]
    assert (got["method"], got["path"], got["body"]) == ("PUT", "/a/b?q=1", b"in")
    assert (got["headers"]["content-type"], got["headers"]["x-two"]) == ("text/y", "2") and "b-bin" not in got["headers"]
    assert got["headers"]["dapr-authority"] == f"127.0.0.1:{d.grpc}"


@pytest.mark.parametrize("status,code,text", [(400, "INTERNAL", "Bad Request"), (401, "UNAUTHENTICATED", "Unauthorized"),
                                              (403, "PERMISSION_DENIED", "Forbidden"), (404, "NOT_FOUND", "Not Found"),
                                              (409, "ALREADY_EXISTS", "Conflict"), (429, "RESOURCE_EXHAUSTED", "Too Many Requests"),
                                              (500, "UNKNOWN", "Internal Server Error"), (501, "UNIMPLEMENTED", "Not Implemented"),
                                              (503, "UNAVAILABLE", "Service Unavailable"), (504, "DEADLINE_EXCEEDED", "Gateway Timeout"),
                                              (302, "UNKNOWN", "Found"), (418, "UNKNOWN", "I'm a teapot")])
def test_the_status_of_an_http_app_over_grpc(start, http_app, status, code, text):
    d = start(http_app)
    http_app.handlers["/m"] = lambda r: (status, {"x-one": "1"}, b"why " * 30)
    with pytest.raises(grpc.RpcError) as e:
        invoke(d)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode[code], text)
    headers = dict(e.value.initial_metadata())
    assert headers["dapr-http-status"] == str(status) and headers["x-one"] == "1"
    info = error_details_pb2.ErrorInfo()
    assert details(e.value)[0].Unpack(info)
    assert (info.reason, info.domain) == (text, "dapr.io")
    assert dict(info.metadata) == {"http.code": str(status), "http.error_message": ("why " * 30)[:63]}


@pytest.mark.parametrize("kw,says", [({"verb": ""}, "rpc error: code = InvalidArgument desc = missing HTTP extension field"),
                                     ({"verb": "CONNECT"}, "rpc error: code = InvalidArgument desc = invalid HTTP verb"),
                                     ({"method": "a?b"}, 'rpc error: code = InvalidArgument desc = invalid method: method contains forbidden character: "a?b"'),
                                     ({"id": ""}, "app id is empty"), ({"id": "a.b.c"}, "invalid app id a.b.c")])
def test_service_calls_that_are_refused(start, http_app, kw, says):
    d = start(http_app)
    with pytest.raises(grpc.RpcError) as e:
        invoke(d, **kw)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.INTERNAL, f"failed to invoke, id: {kw.get('id', 'app')}, err: {says}")
    assert not http_app.got


def test_service_to_grpc(start, grpc_app):
    d = start(grpc_app, env={"APP_API_TOKEN": "secret"})

    def answer(request, context):
        context.send_initial_metadata((("x-one", "1"), ("x-bin", b"\0\xff")))
        context.set_trailing_metadata((("x-tail", "t"),))
        if request.method == "fail":
            context.abort(grpc.StatusCode.ABORTED, "no é")
        return grpc_app.common.InvokeResponse(data=any_pb2.Any(value=b"out", type_url="u/t"), content_type="text/x")
    grpc_app.on_invoke = answer
    out, headers, trailers = invoke(d, method="x/../y", data=b"in", verb="", type_url="v/t", metadata=(("x-two", "2"), ("b-bin", b"\0"), ("accept", "a")))
    assert (out.data.value, out.data.type_url, out.content_type) == (b"out", "u/t", "text/x")
    assert (headers["x-one"], headers["x-bin"], trailers["x-tail"]) == ("1", b"\0\xff", "t")
    m, md = grpc_app.seen[-1], grpc_app.metadata
    assert (m.method, m.data.value, m.data.type_url, m.HasField("http_extension")) == ("y", b"in", "v/t", False)
    assert (md["x-two"], md["b-bin"], md["accept"], md["dapr-api-token"]) == ("2", b"\0", "a", "secret")
    with pytest.raises(grpc.RpcError) as e:
        invoke(d, method="fail")
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.ABORTED, "no é")
    assert dict(e.value.initial_metadata())["x-one"] == "1" and dict(e.value.trailing_metadata())["x-tail"] == "t"


def test_failures_of_a_grpc_app_are_tried_again(start, grpc_app):
    d = start(grpc_app, resources=[resiliency(retry="again")])

    def third_time(request, context):
        if len(grpc_app.seen) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        return grpc_app.common.InvokeResponse(data=any_pb2.Any(value=b"yes"))
    grpc_app.on_invoke = third_time
    assert invoke(d, data=b"in")[0].data.value == b"yes" and [m.data.value for m in grpc_app.seen] == [b"in"] * 3


# ---- proxying ----

def test_every_kind_of_call_is_proxied(start, grpc_app):
    d = start(grpc_app, env={"APP_API_TOKEN": "secret"})
    md = (ME, ("x-two", "2"), ("b-bin", b"\0\xff"), ("dapr-api-token", "mine"))
    big = b"x" * 3_000_000
    for request in (b"", b"in", big):
        out, call = d.channel.unary_unary("/test.Echo/Unary").with_call(request, metadata=md, timeout=15)
        assert out == request
    head, tail = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (head["head"], head["head-bin"], tail["tail"], tail["tail-bin"]) == ("h", b"\0\1", "t", b"\2\3")
    seen = grpc_app.metadata
    assert (seen["x-two"], seen["b-bin"], seen["dapr-api-token"]) == ("2", b"\0\xff", "secret") and "dapr-app-id" not in seen
    assert list(d.channel.unary_stream("/test.Echo/ServerStream")(b"500", metadata=md, timeout=15)) == [b"%d" % i for i in range(500)]
    assert list(d.channel.unary_stream("/test.Echo/ServerStream")(b"0", metadata=md, timeout=15)) == []
    assert d.channel.stream_unary("/test.Echo/ClientStream")(iter([big] * 5), metadata=md, timeout=15) == b"15000000"
    both = d.channel.stream_stream("/test.Echo/Both")
    assert list(both(iter([b"%d" % i for i in range(500)]), metadata=md, timeout=15)) == [b"%d" % i for i in range(500)]
    assert list(both(iter([big] * 5), metadata=md, timeout=15)) == [big] * 5


def test_reflection_of_the_app_that_is_named(start, grpc_app):
    from grpc_reflection.v1alpha import reflection, reflection_pb2
    reflection.enable_server_reflection(("test.Echo",), grpc_app.server)
    d = start(grpc_app)

    def services(*metadata):
        ask = d.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflection_pb2.ServerReflectionRequest.SerializeToString,
                                      reflection_pb2.ServerReflectionResponse.FromString)
        answer = next(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=metadata, timeout=15))
        return {s.name for s in answer.list_services_response.service}
    assert services(ME) == {"test.Echo"} and "dapr.proto.runtime.v1.Dapr" in services()


def test_streams_speak_in_turn(start, grpc_app):
    import queue
    d = start(grpc_app)
    out = queue.Queue()
    call = d.channel.stream_stream("/test.Echo/Both")(iter(out.get, None), metadata=(ME,), timeout=15)
    assert dict(call.initial_metadata())["head"] == "h"  # before any message, where the reference waits for one
    for i in range(20):
        out.put(b"%d" % i)
        assert next(call) == b"%d" % i
    out.put(b"stop")  # the app ends first
    assert list(call) == [] and dict(call.trailing_metadata())["tail"] == "t"
    out.put(None)


def test_failures_and_cancellation_are_proxied(start, grpc_app):
    d = start(grpc_app)
    with pytest.raises(grpc.RpcError) as e:
        d.channel.unary_unary("/test.Echo/Unary")(b"fail", metadata=(ME,), timeout=15)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.DATA_LOSS, "lost é")
    assert dict(e.value.trailing_metadata())["tail"] == "t"
    with pytest.raises(grpc.RpcError) as e:
        d.channel.unary_unary("/test.Echo/None")(b"", metadata=(ME,), timeout=15)
    assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as e:
        d.channel.unary_unary("/test.Echo/Hang")(b"", metadata=(ME,), timeout=0.5)
    assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert grpc_app.cancelled.wait(10)
    with pytest.raises(grpc.RpcError) as e:
        d.channel.unary_unary("/test.Echo/Unary")(b"", timeout=15)
    assert e.value.code() == grpc.StatusCode.UNKNOWN and "missing dapr-callee-app-id or dapr-app-id" in e.value.details()
    # dapr-callee-app-id comes first
    assert d.channel.unary_unary("/test.Echo/Unary")(b"1", metadata=(("dapr-callee-app-id", "app"), ("dapr-app-id", "other")), timeout=15) == b"1"


def test_an_app_that_is_away(start, grpc_app):
    d = start(grpc_app)
    assert d.channel.unary_unary("/test.Echo/Unary")(b"1", metadata=(ME,), timeout=15) == b"1"
    grpc_app.server.stop(None).wait()
    with pytest.raises(grpc.RpcError) as e:
        d.channel.unary_unary("/test.Echo/Unary")(b"1", metadata=(ME,), timeout=15)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError) as e:
        invoke(d)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    assert d.request("POST", "/v1.0/invoke/app/method/m", b"in").status == 503
