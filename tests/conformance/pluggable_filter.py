"""HTTP middleware as an author without our SDK writes it, in Python on grpcio, for tests: a component named heads serves Request and does what
the header x-play says; one named bodies serves Exchange and does what x-exchange says. Without its header a request just passes.
usage: pluggable_filter.py SOCKET GENERATED_PROTO_FOLDER"""
import concurrent.futures, json, sys

import grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, sys.argv[2])
from dapr.proto.components.v1 import common_pb2  # noqa: E402
from plugin.v1 import middleware_pb2 as m, middleware_pb2_grpc  # noqa: E402

H = m.HttpHeader
ANSWERS = {
    "status": m.HttpDecision(answer=m.HttpAnswer(status=99)),
    "nothing": m.HttpDecision(),
    "method": m.HttpDecision(proceed=m.HttpRequestEdits(method="GE T")),
    "path": m.HttpDecision(proceed=m.HttpRequestEdits(path=b"no-slash")),
    "smuggled path": m.HttpDecision(proceed=m.HttpRequestEdits(path=b"/a HTTP/1.1\r\nx: y")),
    "query": m.HttpDecision(proceed=m.HttpRequestEdits(query=b"a b")),
    "header name": m.HttpDecision(proceed=m.HttpRequestEdits(headers=m.HttpHeaderEdits(add=[H(name="a b", value=b"x")]))),
    "header value": m.HttpDecision(proceed=m.HttpRequestEdits(headers=m.HttpHeaderEdits(set=[H(name="a", value=b"x\r\ny: z")]))),
    "answer's header": m.HttpDecision(answer=m.HttpAnswer(status=200, headers=[H(name="a", value=b"\x00")])),
    "response header": m.HttpDecision(proceed=m.HttpRequestEdits(response_headers=[H(name="", value=b"x")])),
    "many headers": m.HttpDecision(proceed=m.HttpRequestEdits(headers=m.HttpHeaderEdits(add=[H(name="a", value=b"x")] * 1001))),
    "body": m.HttpDecision(need_body=m.HttpNeedBody()),
    "edits": m.HttpDecision(proceed=m.HttpRequestEdits(
        method="PUT", query=b"z=1", response_headers=[H(name="x-after", value=b"1")],
        headers=m.HttpHeaderEdits(remove=["X-Gone", "Content-Length"], set=[H(name="x-set", value=b"new"), H(name="content-length", value=b"3")],
                                  add=[H(name="x-add", value=b"1"), H(name="x-add", value=b"2")]))),
}


def whole_body(turns, kind):
    """need_body until the end; yields what is to be sent, returns the body."""
    body = b""
    while True:
        yield m.HttpTurnAnswer(request=m.HttpDecision(need_body=m.HttpNeedBody())) if kind == "request_body" else \
            m.HttpTurnAnswer(response=m.HttpResponseDecision(need_body=m.HttpNeedBody()))
        chunk = getattr(next(turns), kind)
        assert len(chunk.data) <= 65536
        body += chunk.data
        if chunk.end:
            return body


def give(turns, kind, body):
    """The body in pieces, asked for by empty chunks."""
    for at in range(0, max(len(body), 1), 1 << 20):
        turn = next(turns)
        assert turn.WhichOneof("turn") == kind, turn
        piece = m.HttpChunk(data=body[at:at + (1 << 20)], more=at + (1 << 20) < len(body))
        yield m.HttpTurnAnswer(**{kind: piece})


def needs_request(turns):
    """Decides by the body: refuses "bad", answers "echo", else appends an exclamation mark."""
    body = yield from whole_body(turns, "request_body")
    if body == b"bad":
        yield m.HttpTurnAnswer(request=m.HttpDecision(answer=m.HttpAnswer(status=403, body=b"refused")))
        return
    yield m.HttpTurnAnswer(request=m.HttpDecision(proceed=m.HttpRequestEdits(headers=m.HttpHeaderEdits(set=[H(name="x-size", value=b"%d" % len(body))]))))
    yield from give(turns, "request_body", body + b"!")


def needs_response(turns):
    yield m.HttpTurnAnswer(request=m.HttpDecision(proceed=m.HttpRequestEdits(), wants=m.HTTP_WANT_RESPONSE_BODY))
    assert next(turns).response.status
    body = yield from whole_body(turns, "response_body")
    if body == b"replace me":
        yield m.HttpTurnAnswer(response=m.HttpResponseDecision(answer=m.HttpAnswer(status=418, body=b"tea", headers=[H(name="x-r", value=b"1")])))
        return
    yield m.HttpTurnAnswer(response=m.HttpResponseDecision(proceed=m.HttpResponseEdits(status=201)))
    yield from give(turns, "response_body", body[::-1])


def wrong_kind(turns):
    yield m.HttpTurnAnswer(response_body=m.HttpChunk())


def ends_early(turns):
    return
    yield


def large_chunk(turns):
    yield m.HttpTurnAnswer(request=m.HttpDecision(proceed=m.HttpRequestEdits(), wants=m.HTTP_WANT_REQUEST_BODY))
    next(turns)
    yield m.HttpTurnAnswer(request_body=m.HttpChunk(data=b"x" * ((1 << 20) + 1)))


def never_content(turns):
    body = yield from whole_body(turns, "request_body")
    while True:
        yield m.HttpTurnAnswer(request=m.HttpDecision(need_body=m.HttpNeedBody()))
        next(turns)


def bad_response(turns):
    yield m.HttpTurnAnswer(request=m.HttpDecision(proceed=m.HttpRequestEdits(), wants=m.HTTP_WANT_RESPONSE))
    next(turns)
    yield m.HttpTurnAnswer(response=m.HttpResponseDecision(proceed=m.HttpResponseEdits(status=7)))


def counts(turns):
    """Sees heads and the end only."""
    yield m.HttpTurnAnswer(request=m.HttpDecision(proceed=m.HttpRequestEdits(), wants=m.HTTP_WANT_RESPONSE | m.HTTP_WANT_END))
    status = next(turns).response.status
    yield m.HttpTurnAnswer(response=m.HttpResponseDecision(proceed=m.HttpResponseEdits(headers=m.HttpHeaderEdits(
        set=[H(name="x-status", value=b"%d" % status)])), wants=m.HTTP_WANT_END))


def passes(turns):
    yield m.HttpTurnAnswer(request=m.HttpDecision(proceed=m.HttpRequestEdits()))


def header(req, name):
    return next((h.value.decode() for h in req.headers if h.name.lower() == name), None)


class Filter(middleware_pb2_grpc.HttpMiddlewareServicer):
    def Init(self, req, ctx):
        return m.HttpMiddlewareInitResponse()

    def Features(self, req, ctx):
        name = dict(ctx.invocation_metadata()).get("x-component-instance")
        return common_pb2.FeaturesResponse(features=["HTTP_EXCHANGE"] if name == "bodies" else [])

    def Ping(self, req, ctx):
        return common_pb2.PingResponse()

    def Request(self, req, ctx):
        play = header(req, "x-play")
        if play == "fail":
            ctx.abort(grpc.StatusCode.INTERNAL, "as told")
        if play == "tell":
            text = {"method": req.method, "path": req.path.decode(), "query": req.query.decode(), "peer": req.peer, "scheme": req.scheme,
                    "version": req.version, "authority": req.authority.decode(), "length": req.content_length, "body": req.has_body}
            return m.HttpDecision(answer=m.HttpAnswer(status=200, body=json.dumps(text).encode()))
        return ANSWERS[play] if play else m.HttpDecision(proceed=m.HttpRequestEdits())

    def Exchange(self, turns, ctx):
        first = next(turns)
        assert first.WhichOneof("turn") == "request"
        yield from globals()[header(first.request, "x-exchange") or "passes"](turns)


server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
middleware_pb2_grpc.add_HttpMiddlewareServicer_to_server(Filter(), server)
reflection.enable_server_reflection(("microdapr.plugin.v1.HttpMiddleware", reflection.SERVICE_NAME), server)
server.add_insecure_port(f"unix:{sys.argv[1]}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
