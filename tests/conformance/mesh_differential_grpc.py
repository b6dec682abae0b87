"""Calls from or to gRPC through four pairs of sidecars (this one and the reference's, each calling each): what the app is sent and what the
client gets must be the same. OTHER_DAPRD = path of the reference's daprd; skipped without it."""
import http.client, os, re, sys

import grpc
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, wait_until
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from test_invoke import GrpcApp, HttpApp, details
from test_mesh import name

OTHER = os.environ.get("OTHER_DAPRD", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to call and be called by")
PAIRS = [("other", "ours"), ("ours", "other"), ("ours", "ours")]  # compared with ("other", "other")
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
SIZES = {"narrow": "4Mi", "wide": "64Mi"}


class App(GrpcApp):
    """As GrpcApp, and remembers all metadata in order, the peer's deadline and its compression."""

    def service(self, details):
        self.got = sorted((k, v) for k, v in details.invocation_metadata)
        return super().service(details)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """.callers and .callees: {(kind, "narrow" or "wide"): sidecar}; callees of .grpc_app, .http_callees of .http_app."""
    class World:
        pass
    w = World()
    w.grpc_app, w.http_app, w.callers, w.callees, w.http_callees, made = App(*NO_LIMIT), HttpApp(), {}, {}, {}, []

    def start(kind, size, app=None):
        folder = tmp_path_factory.mktemp(f"{kind}-{size}")
        args = [f"--max-body-size={SIZES[size]}"] + ([f"--app-port={app.port}", "--app-protocol=" + ("grpc" if app is w.grpc_app else "http")] if app else [])
        d = Daprd(folder, app_id=name(kind), args=args)
        if kind == "other":
            d.argv[0] = OTHER
            d.env |= {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
        made.append(d)
        d.start()
        d.channel = grpc.insecure_channel(f"127.0.0.1:{d.grpc}", NO_LIMIT)
        if app:
            wait_until("the app is known", lambda: "application discovered" in d.log())
        return d
    try:
        for kind in ("ours", "other"):
            for size in SIZES:
                w.callers[kind, size] = start(kind, size)
                w.callees[kind, size] = start(kind, size, w.grpc_app)
            w.http_callees[kind, "wide"] = w.http_callees[kind, "narrow"] = start(kind, "narrow", w.http_app)
        yield w
    finally:
        for d in made:
            if getattr(d, "channel", None):
                d.channel.close()
            d.close()
        w.grpc_app.server.stop(None)
        w.http_app.close()


class Pair:
    """One caller and one callee, and what a case needs of them."""

    def __init__(self, w, caller, callee, http_app, sizes):
        self.w, self.caller, self.callee = w, w.callers[caller, sizes[0]], (w.http_callees if http_app else w.callees)[callee, sizes[1]]
        self.app = w.http_app if http_app else w.grpc_app

    def clean(self, text):
        text = text if isinstance(text, str) else repr(text)
        for group in (self.w.callers, self.w.callees, self.w.http_callees):
            for d in group.values():
                text = text.replace(d.app_id, "ID").replace(str(d.internal), "PORT").replace(str(d.grpc), "PORT").replace(str(d.http), "PORT")
        text = re.sub(r"received message larger than max \(\d+ vs", "received message larger than max (N vs", text)  # with the app id's length
        return re.sub(r"127\.0\.0\.1:\d+", "ADDR", text)

    def words(self, md):
        dropped = ("traceparent", "grpc-trace-bin", "date", "dapr-date", "user-agent", "accept-encoding", "content-length", "transfer-encoding")
        return sorted((k, self.clean(v)) for k, v in md or () if k not in dropped)

    def told(self):
        """What the app was sent."""
        if self.app is self.w.http_app:
            return [(g["method"], g["path"], self.words(g["headers"].items()), len(g["body"])) for g in self.app.got]
        return self.words(self.app.got) if self.app.got else None

    def http(self, verb="POST", path="/m", body=b"", headers=()):
        c = http.client.HTTPConnection("127.0.0.1", self.caller.http, timeout=20)
        c.request(verb, f"/v1.0/invoke/{self.callee.app_id}/method{path}", body, dict(headers))
        r = c.getresponse()
        data = r.read()
        c.close()
        kept = sorted((k.lower(), self.clean(v)) for k, v in r.getheaders() if k.lower() not in ("date", "traceparent", "content-length", "transfer-encoding", "connection"))
        return {"status": r.status, "headers": kept, "body": self.clean(data.decode("latin-1")) if len(data) < 600 else len(data), "told": self.told()}

    def unary(self, path, request, md=(), **kw):
        """A call that may fail, with all that came back."""
        kw.setdefault("timeout", 20)
        try:
            out, call = self.caller.channel.unary_unary(path).with_call(request, metadata=md, **kw)
            error = None
        except grpc.RpcError as e:
            out, call, error = b"", e, (e.code().name, self.clean(e.details() or ""), [d.type_url for d in details(e)])
        return {"error": error, "size": len(out), "out": out if len(out) < 200 else "", "head": self.words(call.initial_metadata()), "tail": self.words(call.trailing_metadata()), "told": self.told()}

    def proxied(self, method="Unary", request=b"in", md=(), **kw):
        return self.unary(f"/test.Echo/{method}", request, (("dapr-app-id", self.callee.app_id),) + tuple(md), **kw)

    def invoke(self, method="m", data=b"in", verb="POST", query="", content_type="a/b", md=(), type_url="", **kw):
        from dapr.proto import api_v1, common_v1
        m = common_v1.InvokeRequest(method=method, content_type=content_type, data=any_pb2.Any(value=data, type_url=type_url))
        if verb:
            m.http_extension.CopyFrom(common_v1.HTTPExtension(verb=verb, querystring=query))
        r = self.unary("/dapr.proto.runtime.v1.Dapr/InvokeService", api_v1.InvokeServiceRequest(id=self.callee.app_id, message=m).SerializeToString(), md, **kw)
        if self.app is self.w.grpc_app and self.app.seen:
            q = self.app.seen[-1]
            r["request"] = (q.method, len(q.data.value), q.data.type_url, q.content_type, str(q.http_extension)) if hasattr(q, "method") else q
        return r


def stream(p, requests, method, md=(), **kw):
    out, error = [], None
    call = getattr(p.caller.channel, {"ServerStream": "unary_stream", "ClientStream": "stream_unary", "Both": "stream_stream"}[method])(f"/test.Echo/{method}")
    try:
        got = call(requests, metadata=(("dapr-app-id", p.callee.app_id),) + tuple(md), timeout=20, **kw)
        out = [len(x) for x in got] if method != "ClientStream" else got
    except grpc.RpcError as e:
        error = (e.code().name, p.clean(e.details() or ""))
    return {"out": out, "error": error, "told": p.told()}


def answers(code=None, text="", details_=b"", head=(), tail=(), **response):
    """OnInvoke: an answer or a status."""
    def on_invoke(w):
        def run(q, c):
            c.send_initial_metadata(tuple(head))
            c.set_trailing_metadata(tuple(tail) + ((("grpc-status-details-bin", details_),) if details_ else ()))
            if code:
                c.abort(getattr(grpc.StatusCode, code), text)
            made = w.grpc_app.common.InvokeResponse(content_type=response.get("content_type", ""))
            made.data.value = response.get("data", b"")
            made.data.type_url = response.get("type_url", "")
            return made
        w.grpc_app.on_invoke = run
    return on_invoke


def serves(status=200, headers=(), body=b"ok"):
    def set_(w):
        w.http_app.handlers["/m"] = lambda r: (status, dict(headers), body)
    return set_


ST = status_pb2.Status(code=5, message="gone")
ST.details.add().Pack(error_details_pb2.ErrorInfo(reason="R", domain="D", metadata={"k": "v"}))
MD = (("x-one", "1"), ("x-one", "2"), ("x-bin", b"\0\xff"), ("x-bin", b"\1"), ("x-empty", ""), ("x-spaces", "a  b"), ("grpc-x", "1"), ("dapr-x", "1"), ("accept", "a/b"), ("accept-encoding", "gzip"),
      ("cookie", "a=1"), ("authorization", "Bearer x"), ("forwarded", "for=1"), ("x-forwarded-for", "1.2.3.4"), ("content-length", "7"))
MB5 = b"x" * 5_000_000
# name -> (what the app does, the call, options): to = "http" for an HTTP app; sizes: of caller and callee
CASES = {
    "http": (answers(data=b"out", content_type="a/b"), lambda p: p.http(body=b"in", headers={"content-type": "c/d", "x-a": "1"})),
    "http, no types": (answers(data=b"out"), lambda p: p.http(body=b"in")), "http, json": (answers(data=b"{}"), lambda p: p.http(body=b"in")), "http, nothing": (answers(), lambda p: p.http("GET", body=None)),
    "http, type url": (answers(data=b"out", type_url="u/t", content_type="a/b"), lambda p: p.http(body=b"in")), "http, query": (answers(), lambda p: p.http("GET", "/a/../b?q=1&r=%20", None)),
    "http, headers": (answers(head=(("x-h", "1"), ("x-h", "2"), ("x-h-bin", b"\0"), ("content-encoding", "x"), ("set-cookie", "a=1")), tail=(("x-t", "1"),), data=b"x"),
                      lambda p: p.http(headers={"Accept": "a/b", "Cookie": "a=1", "X-Y-Bin": "AAE=", "Connection": "x-hop", "x-hop": "1", "Authorization": "b", "If-None-Match": "e", "grpc-x": "1"})),
    "http, delete": (answers(), lambda p: p.http("DELETE", body=None)), "http, options": (answers(), lambda p: p.http("OPTIONS", body=None)), "http, head": (answers(data=b"x"), lambda p: p.http("HEAD", body=None)),
    "http, not found": (answers("NOT_FOUND", "gone é", ST.SerializeToString(), head=(("x-h", "1"),)), lambda p: p.http()), "http, unknown": (answers("UNKNOWN", "x"), lambda p: p.http()),
    "http, exhausted": (answers("RESOURCE_EXHAUSTED", ""), lambda p: p.http()), "http, unavailable": (answers("UNAVAILABLE", "later"), lambda p: p.http()),
    "http, 5 MB": (answers(data=MB5), lambda p: p.http(body=MB5) | {"told": None}, {"sizes": ("wide", "wide")}), "http, 5 MB to a narrow one": (answers(), lambda p: p.http(body=MB5) | {"told": None}, {"sizes": ("wide", "narrow")}),
    "http, 5 MB from a narrow one": (answers(), lambda p: p.http(body=MB5) | {"told": None}, {"sizes": ("narrow", "wide")}), "http, 5 MB back to a narrow one": (answers(data=MB5), lambda p: p.http() | {"told": None}, {"sizes": ("narrow", "wide")}),
    "http, 5 MB back through a narrow one": (answers(data=MB5), lambda p: p.http() | {"told": None}, {"sizes": ("wide", "narrow")}),
    "grpc": (answers(data=b"out", content_type="a/b", type_url="u/t", head=(("x-h", "1"), ("x-h-bin", b"\0")), tail=(("x-t", "1"), ("x-t-bin", b"\1"))), lambda p: p.invoke(md=MD, type_url="v/t")),
    "grpc, no verb": (answers(data=b"out"), lambda p: p.invoke(verb="")), "grpc, get": (answers(data=b"out"), lambda p: p.invoke(verb="GET", query="a=b", data=b"")),
    "grpc, not found": (answers("NOT_FOUND", "gone é", ST.SerializeToString(), head=(("x-h", "1"),), tail=(("x-t", "1"),)), lambda p: p.invoke()), "grpc, internal": (answers("INTERNAL", ""), lambda p: p.invoke()),
    "grpc, unavailable": (answers("UNAVAILABLE", "later"), lambda p: p.invoke()), "grpc, gzip": (answers(data=b"out" * 100), lambda p: p.invoke(data=b"in" * 500, compression=grpc.Compression.Gzip)),
    "grpc, 5 MB": (answers(data=MB5), lambda p: p.invoke(data=MB5), {"sizes": ("wide", "wide")}), "grpc, 5 MB to a narrow one": (answers(), lambda p: p.invoke(data=MB5) | {"request": None, "told": None}, {"sizes": ("wide", "narrow")}),
    "grpc, 5 MB from a narrow one": (answers(), lambda p: p.invoke(data=MB5) | {"request": None, "told": None}, {"sizes": ("narrow", "wide")}), "grpc, 5 MB back to a narrow one": (answers(data=MB5), lambda p: p.invoke(), {"sizes": ("narrow", "wide")}),
    "grpc, 5 MB back through a narrow one": (answers(data=MB5), lambda p: p.invoke(), {"sizes": ("wide", "narrow")}),
    "to http": (serves(201, {"x-a": "1", "content-type": "a/b"}), lambda p: p.invoke(md=[m for m in MD if "forwarded" not in m[0]], query="q=1"), {"to": "http"}), "to http, no type": (serves(), lambda p: p.invoke(content_type=""), {"to": "http"}),
    "to http, get": (serves(), lambda p: p.invoke(verb="GET", data=b"", query="a=%20b"), {"to": "http"}), "to http, head": (serves(), lambda p: p.invoke(verb="HEAD", data=b""), {"to": "http"}),
    "to http, no verb": (serves(), lambda p: p.invoke(verb=""), {"to": "http"}), "to http, 204": (serves(204, body=b""), lambda p: p.invoke(), {"to": "http"}), "to http, 302": (serves(302, {"location": "/x"}), lambda p: p.invoke(), {"to": "http"}),
    "to http, 404": (serves(404, {"x-a": "1"}, b"none"), lambda p: p.invoke(), {"to": "http"}), "to http, 500": (serves(500, body=b"oops " * 100), lambda p: p.invoke(), {"to": "http"}),
    "to http, names": (serves(200, {"grpc-status": "5", "x-y-bin": "AAE=", "Accept": "x", "Date": "d", "Server": "s", "Content-Encoding": "x"}), lambda p: p.invoke(), {"to": "http"}),
    "to http, 5 MB back": (serves(body=MB5), lambda p: p.invoke(), {"to": "http", "sizes": ("wide", "narrow")}), "to http, 5 MB back to a narrow one": (serves(body=MB5), lambda p: p.invoke(), {"to": "http"}),
    "to http, 5 MB": (serves(), lambda p: p.invoke(data=MB5), {"to": "http", "sizes": ("wide", "narrow")}),
    "proxied": (answers(), lambda p: p.proxied(md=MD)), "proxied, nothing": (answers(), lambda p: p.proxied(request=b"")), "proxied, failing": (answers(), lambda p: p.proxied(request=b"fail")),
    "proxied, unknown": (answers(), lambda p: p.proxied("None")), "proxied, no service": (answers(), lambda p: p.unary("/no.Such/Thing", b"", (("dapr-app-id", p.callee.app_id),))),
    "proxied, gzip": (answers(), lambda p: p.proxied(request=b"in" * 500, compression=grpc.Compression.Gzip)), "proxied, deflate": (answers(), lambda p: p.proxied(request=b"in" * 500, compression=grpc.Compression.Deflate)),
    "proxied, namespace": (answers(), lambda p: p.unary("/test.Echo/Unary", b"x", (("dapr-app-id", p.callee.app_id + ".default"),))),
    "proxied, callee": (answers(), lambda p: p.unary("/test.Echo/Unary", b"x", (("dapr-callee-app-id", p.callee.app_id), ("dapr-caller-app-id", "forged")))),
    "proxied, nobody named": (answers(), lambda p: p.unary("/test.Echo/Unary", b"x")), "proxied, deadline": (answers(), lambda p: p.proxied("Hang", timeout=0.5) | {"told": None}),
    "proxied, large metadata": (answers(), lambda p: p.proxied(md=(("x-large", "v" * 6000),))), "proxied, stream header": (answers(), lambda p: p.proxied(md=(("dapr-stream", "true"),))),
    "proxied, to http": (serves(), lambda p: p.proxied(), {"to": "http"}),
    "proxied, 5 MB": (answers(), lambda p: p.proxied(request=MB5), {"sizes": ("wide", "wide")}), "proxied, 5 MB to a narrow one": (answers(), lambda p: p.proxied(request=MB5) | {"told": None}, {"sizes": ("wide", "narrow")}),
    "proxied, 5 MB from a narrow one": (answers(), lambda p: p.proxied(request=MB5) | {"told": None}, {"sizes": ("narrow", "wide")}),
    "proxied, 5 MB back to a narrow one": (answers(), lambda p: stream(p, b"1 5000000", "ServerStream"), {"sizes": ("narrow", "wide")}), "proxied, 5 MB back through a narrow one": (answers(), lambda p: stream(p, b"1 5000000", "ServerStream"), {"sizes": ("wide", "narrow")}),
    "server stream": (answers(), lambda p: stream(p, b"20 100", "ServerStream", MD)), "client stream": (answers(), lambda p: stream(p, iter([b"a"] * 20), "ClientStream", MD)),
    "both": (answers(), lambda p: stream(p, iter([b"a" * 10] * 20), "Both", MD)), "both, early end": (answers(), lambda p: stream(p, iter([b"a", b"stop", b"b"]), "Both")), "both, gzip": (answers(), lambda p: stream(p, iter([b"a" * 1000] * 3), "Both", compression=grpc.Compression.Gzip)),
    "no messages": (answers(), lambda p: stream(p, iter([]), "ClientStream")), "both, nothing": (answers(), lambda p: stream(p, iter([]), "Both")),
}
# What differs, and why it may: (case, fact, reason) as regular expressions.
KNOWN = [
    ("http, headers", "told.(dapr-connection|x-hop)", "what belongs to the hop stays on it"),
    ("http, head", "headers.content-type", "a body that is not sent is not looked at"),
    ("http, (not found|unknown|exhausted|unavailable|5 MB (to|back through) a narrow one)", "headers.content-type", "a status in JSON is called application/json"),
    ("grpc", "told.x-forwarded-for", "the reference keeps two of them, in no order"),
    ("proxied, failing", "head.*", "what the app has said before it failed comes through"),
    ("proxied, (deadline|to http)", "error", "told in other words"),
]


def is_known(case, fact):
    return any(re.fullmatch(c, case) and re.fullmatch(f, fact) for c, f, _ in KNOWN)


def outcome(w, caller, callee, case):
    prepare, call, *more = case
    options = more[0] if more else {}
    p = Pair(w, caller, callee, options.get("to") == "http", options.get("sizes", ("narrow", "narrow")))
    w.http_app.got, w.grpc_app.got, w.grpc_app.seen = [], None, []
    w.grpc_app.cancelled.clear()
    prepare(w)
    return call(p)


def split(facts):
    """Lists of words one by one."""
    out = {}
    for k, v in facts.items():
        if k in ("head", "tail", "told", "headers") and isinstance(v, list) and v and len(v[0]) == 2:
            for name_, word in v:
                out.setdefault(f"{k}.{name_}", []).append(word)
        else:
            out[k] = v
    return out


@pytest.mark.parametrize("case", CASES)
def test_same_as_the_reference(world, case):
    want, found = split(outcome(world, "other", "other", CASES[case])), []
    for pair in PAIRS:
        got = split(outcome(world, *pair, CASES[case]))
        found += [f"{'->'.join(pair)}: {k}: reference {want.get(k, 'none')!r}, here {got.get(k, 'none')!r}" for k in sorted(want.keys() | got.keys())
                  if want.get(k, "none") != got.get(k, "none") and not is_known(case, k)]
    assert not found, "\n".join(found)
