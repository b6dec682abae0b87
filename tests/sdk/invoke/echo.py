"""echo.proto's service on grpcio, and a caller of it that names the app by a client interceptor."""
import collections, threading, time

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

import echo_pb2, echo_pb2_grpc
from echo_pb2 import Text

LIMIT = 4 * 1024 * 1024  # what gRPC libraries and the sidecar take for one message


class Echo(echo_pb2_grpc.EchoServicer):
    def __init__(self):
        self.given_up = 0

    def Say(self, request, context):
        md = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-head", md.get("x-in", "")), ("x-head-bin", md.get("x-in-bin", b""))])
        context.set_trailing_metadata([("x-tail", md.get("x-in", "")), ("x-tail-bin", md.get("x-in-bin", b""))])
        left = context.time_remaining()
        return Text(text=request.text, data=request.data, n=request.n, left_ms=int(left * 1000) if left and left < 1e6 else 0)

    def Count(self, request, context):
        for i in range(request.n):
            yield Text(n=i)

    def Gather(self, requests, context):
        n = size = 0
        for r in requests:
            n, size = n + 1, size + len(r.data)
        return Text(n=n, text=str(size))

    def Chat(self, requests, context):
        for r in requests:
            yield Text(text=r.text, n=r.n)

    def Refuse(self, request, context):
        yield from self.Count(request, context)
        details = [any_pb2.Any(), any_pb2.Any()]
        details[0].Pack(error_details_pb2.ErrorInfo(reason="CLOSED", domain="polyglot", metadata={"till": "montag"}))
        details[1].Pack(error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="text", description="zu früh")]))
        context.abort_with_status(rpc_status.to_status(
            status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="not today, 今日は休み", details=details)))

    def Hang(self, request, context):
        over = threading.Event()

        def end():
            self.given_up += 1
            over.set()
        if not context.add_callback(end):
            end()
        yield Text()
        over.wait()

    def GivenUp(self, request, context):
        return Text(n=self.given_up)


class Details(collections.namedtuple("Details", "method timeout metadata credentials wait_for_ready compression"), grpc.ClientCallDetails):
    pass


class ToApp(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor,
            grpc.StreamStreamClientInterceptor):
    """Adds dapr-app-id to calls of every kind."""

    def __init__(self, app_id):
        self.app_id = app_id

    def intercept_unary_unary(self, go, call, request):
        md = [*(call.metadata or ()), ("dapr-app-id", self.app_id)]
        return go(Details(call.method, call.timeout, md, call.credentials, call.wait_for_ready, call.compression), request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary


def refused(call):
    """The error of a call, which must come."""
    try:
        call()
    except grpc.RpcError as e:
        return e
    raise AssertionError("the error did not come")


def metadata(stub):
    md = [("x-in", "plain"), ("x-in-bin", bytes(range(256)))]
    out, call = stub.Say.with_call(Text(text="ü", n=7), metadata=md, timeout=20)
    head, tail = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (out.text, out.n) == ("ü", 7)
    assert (head["x-head"], head["x-head-bin"]) == md[0][1:] + md[1][1:], head
    assert (tail["x-tail"], tail["x-tail-bin"]) == md[0][1:] + md[1][1:], tail


def streams(stub):
    assert [t.n for t in stub.Count(Text(n=1000), timeout=20)] == list(range(1000))
    got = stub.Gather((Text(data=b"x" * 1000) for _ in range(500)), timeout=20)
    assert (got.n, got.text) == (500, "500000")
    heard = []

    def speak():
        for i in range(50):
            assert len(heard) == i, "an answer did not come before the next message"
            yield Text(n=i, text=str(i))
            end = time.monotonic() + 20
            while len(heard) == i and time.monotonic() < end:
                time.sleep(0.001)
    for t in stub.Chat(speak(), timeout=60):
        heard.append((t.n, t.text))
    assert heard == [(i, str(i)) for i in range(50)]


def errors(stub):
    for n in (0, 3):
        call, got = stub.Refuse(Text(n=n), timeout=20), []
        try:
            for t in call:
                got.append(t.n)
            raise AssertionError("the error did not come")
        except grpc.RpcError as e:
            assert got == list(range(n)) and (e.code(), e.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today, 今日は休み"), e
            s = rpc_status.from_call(e)
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            assert s.details[0].Unpack(info) and s.details[1].Unpack(bad)
            assert (info.reason, info.metadata["till"], bad.field_violations[0].description) == ("CLOSED", "montag", "zu früh")


def deadlines(stub):
    before = stub.GivenUp(Text(), timeout=20).n
    left = stub.Say(Text(), timeout=20).left_ms
    assert 0 < left < 20500, left  # grpcio sends 20 s as up to 20.1
    assert stub.Say(Text()).left_ms == 0
    for timeout, code in ((1, grpc.StatusCode.DEADLINE_EXCEEDED), (None, grpc.StatusCode.CANCELLED)):
        call = stub.Hang(Text(), timeout=timeout)
        if timeout is None:
            next(call)
            call.cancel()
        assert refused(lambda: list(call)).code() == code
        before, end = before + 1, time.monotonic() + 20
        while stub.GivenUp(Text(), timeout=20).n < before:
            assert time.monotonic() < end, f"the service did not hear of the end: {code}"
            time.sleep(0.01)


def sizes(stub):
    for size in (0, 1, 65535, LIMIT - 32):
        data = bytes(size)
        assert stub.Say(Text(data=data), timeout=30).data == data, size
    assert refused(lambda: stub.Say(Text(data=bytes(LIMIT)), timeout=30)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def call(port, app_id):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
        stub = echo_pb2_grpc.EchoStub(grpc.intercept_channel(plain, ToApp(app_id)))
        for step in (metadata, streams, errors, deadlines, sizes):
            step(stub)
