"""Spans of the same calls by this sidecar and by the reference's, side by side: names, parents, kinds, attributes, and what apps and callers
are told. OTHER_DAPRD = path of the reference's daprd; skipped without it."""
import json, os, re, sys

import grpc
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, component, wait_until
from test_invoke import GrpcApp, HttpApp, invoke
from test_mesh import name
from test_traces import tracing
from trace_receiver import Receiver

OTHER = os.environ.get("OTHER_DAPRD", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to compare with")
SUB = json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "s"}, "spec": {"topic": "t", "pubsubname": "ps", "routes": {"default": "/event"}}})


class World:
    """One runtime: front (an HTTP app), back (HTTP) and gback (gRPC), all traced to the receiver. call(n) gives headers of a trace of its own."""

    def __init__(self, kind, folder, receiver, protocol):
        self.kind, self.receiver, self.made, self.n = kind, receiver, [], 0
        self.http_app, self.grpc_app = HttpApp(), GrpcApp()
        self.grpc_app.on_invoke = lambda q, c: self.grpc_app.common.InvokeResponse(content_type="a/b", data={"value": b"x"})
        (folder / f"{kind}-secrets.json").write_text('{"k": "v"}')
        resources = [component("mem", "state.in-memory"), component("ps", "pubsub.in-memory"), SUB,
                     component("hb", "bindings.http", [("url", f"http://127.0.0.1:{self.http_app.port}/out")]),
                     component("file", "secretstores.local.file", [("secretsFile", str(folder / f"{kind}-secrets.json"))])]
        for role, app in ("front", self.http_app), ("back", self.http_app), ("gback", self.grpc_app):
            sub = folder / f"{kind}-{role}"
            sub.mkdir()
            d = Daprd(sub, resources if role == "front" else [], app_id=name(role), config=tracing(receiver, protocol), env={"OTEL_BSP_SCHEDULE_DELAY": "50"},
                      args=[f"--app-port={app.port}", "--app-protocol=" + ("grpc" if role == "gback" else "http")])
            if kind == "other":
                d.argv[0] = OTHER
                d.env |= {"HOME": str(sub), "PATH": os.environ.get("PATH", "")}
            self.made.append(d)
            d.start()
            d.channel = grpc.insecure_channel(f"127.0.0.1:{d.grpc}")
            setattr(self, role, d)
            wait_until("the app is known", lambda: "application discovered" in d.log())

    def headers(self):
        self.n += 1
        self.trace = f"{1 if self.kind == 'ours' else 2:x}{self.n:031x}"
        return {"traceparent": f"00-{self.trace}-00f067aa0ba902b7-01"}

    def clean(self, text):
        for d, role in zip(self.made, ("FRONT", "BACK", "GBACK")):
            text = text.replace(d.app_id, role).replace(str(d.http), "HTTP").replace(str(d.grpc), "GRPC").replace(str(d.internal), "INTERNAL")
        return re.sub(r"\b\d{5}\b", "PORT", text)

    def facts(self, n):
        """The spans of the last call, told by names: {"service name <- parent": {...}}."""
        spans = self.receiver.of(self.trace, n)
        names = {s.id: self.clean(s.name) for s in spans} | {"00f067aa0ba902b7": "CLIENT", "": "none"}
        out = {}
        for s in sorted(spans, key=lambda s: (self.clean(s.name), s.kind)):
            key = self.clean(f"{s.service} {s.name} <- {names.get(s.parent, 'unknown')}")
            out[key] = {"kind": s.kind, "scope": s.scope, "status": tuple(self.clean(str(x)) for x in s.status), "resource": {k: self.clean(str(v)) for k, v in s.resource.items()},
                        "attrs": {k: self.clean(str(v)) for k, v in s.attrs.items()}}
        self.names = names
        return out

    def parent_of(self, value):
        """Whose span a traceparent names."""
        m = re.fullmatch(r"00-(\w{32})-(\w{16})-\w\w", value or "")
        return self.names.get(m[2], "another") if m and m[1] == self.trace else value and "another trace"

    def grpc_facts(self):
        """Whose span the gRPC app was told."""
        got = self.grpc_app.metadata
        return {"app": self.parent_of(got.get("traceparent")), "app, binary": self.names.get(got["grpc-trace-bin"][19:27].hex(), "another") if "grpc-trace-bin" in got else None}

    def close(self):
        for d in self.made:
            if getattr(d, "channel", None):
                d.channel.close()
            d.close()
        self.http_app.close()
        self.grpc_app.server.stop(None)


def http_call(verb, role, path, body=None, app=None, spans=1):
    """A call over HTTP; app: the path at which the app is then asked."""
    def run(w):
        w.http_app.got.clear()
        h = w.headers()
        r = w.front.request(verb, path.replace("BACK", w.back.app_id).replace("GB", w.gback.app_id).replace("FRONT", w.front.app_id), body, h | {"content-type": "text/plain", "dapr-team": "blue"})
        facts = {"status": r.status, "spans": w.facts(spans)}
        facts["answer"] = w.parent_of(r.headers.get("traceparent"))
        if app == "grpc":
            facts |= w.grpc_facts()
        elif app:
            wait_until("the app is asked", lambda: any(g["path"] == app for g in w.http_app.got))
            facts["app"] = w.parent_of(next(g for g in w.http_app.got if g["path"] == app)["headers"].get("traceparent"))
        return facts
    return run


def grpc_call(fn, spans=1, app=None):
    def run(w):
        w.http_app.got.clear()
        md = tuple(w.headers().items()) + (("dapr-team", "blue"),)
        error = ""
        try:
            fn(w, md)
        except grpc.RpcError as e:
            error = f"{e.code()} {w.clean(e.details())}"
        facts = {"error": error, "spans": w.facts(spans)}
        if app == "grpc":
            facts |= w.grpc_facts()
        elif app:
            facts["app"] = w.parent_of(next(g for g in w.http_app.got if g["path"] == app)["headers"].get("traceparent"))
        return facts
    return run


def dapr(w, method, request, md):
    from dapr.proto import api_service_v1
    return getattr(api_service_v1.DaprStub(w.front.channel), method)(request, metadata=md, timeout=10)


def api():
    from dapr.proto import api_v1
    return api_v1


CALLS = {
    "invoke, http to http": http_call("POST", "front", "/v1.0/invoke/BACK/method/a/b?q=1", b"x", "/a/b?q=1", 2),
    "invoke, http to grpc": http_call("POST", "front", "/v1.0/invoke/GB/method/m", b"x", "grpc", 2),
    "invoke, own app": http_call("GET", "front", "/v1.0/invoke/FRONT/method/m", None, "/m"),
    "invoke, nobody": http_call("GET", "front", "/v1.0/invoke/nobody-here/method/m"),
    "invoke, failing": http_call("GET", "front", "/v1.0/invoke/BACK/method/fail", None, "/fail", 2),
    "invoke, grpc to http": grpc_call(lambda w, md: invoke(w.front, w.back.app_id, "m", b"x", metadata=md), 2, "/m"),
    "invoke, grpc to grpc": grpc_call(lambda w, md: invoke(w.front, w.gback.app_id, "m", b"x", "", metadata=md), 2, "grpc"),
    "invoke, grpc, nobody": grpc_call(lambda w, md: invoke(w.front, "nobody-here", "m", b"x", metadata=md)),
    "proxied": grpc_call(lambda w, md: w.front.channel.unary_unary("/test.Echo/Unary")(b"x", metadata=md + (("dapr-app-id", w.gback.app_id),), timeout=10), 2, "grpc"),
    "proxied stream": grpc_call(lambda w, md: list(w.front.channel.unary_stream("/test.Echo/ServerStream")(b"3", metadata=md + (("dapr-app-id", w.gback.app_id),), timeout=10)), 2, "grpc"),
    "proxied, failing": grpc_call(lambda w, md: w.front.channel.unary_unary("/test.Echo/Unary")(b"fail", metadata=md + (("dapr-app-id", w.gback.app_id),), timeout=10), 2),
    "save state": http_call("POST", "front", "/v1.0/state/mem", b'[{"key": "k", "value": 1}]'),
    "get state": http_call("GET", "front", "/v1.0/state/mem/k?metadata.a=b"), "no state": http_call("GET", "front", "/v1.0/state/mem/none"),
    "delete state": http_call("DELETE", "front", "/v1.0/state/mem/k"), "no store": http_call("GET", "front", "/v1.0/state/nope/k"),
    "bulk state": http_call("POST", "front", "/v1.0/state/mem/bulk", b'{"keys": ["a"]}'),
    "transaction": http_call("POST", "front", "/v1.0/state/mem/transaction", b'{"operations": [{"operation": "upsert", "request": {"key": "t", "value": 1}}]}'),
    "get state, grpc": grpc_call(lambda w, md: dapr(w, "GetState", api().GetStateRequest(store_name="mem", key="k"), md)),
    "no store, grpc": grpc_call(lambda w, md: dapr(w, "GetState", api().GetStateRequest(store_name="nope", key="k"), md)),
    "delete state, grpc": grpc_call(lambda w, md: dapr(w, "DeleteState", api().DeleteStateRequest(store_name="mem", key="k"), md)),
    "publish": http_call("POST", "front", "/v1.0/publish/ps/t", b"hi", "/event", 2), "no pubsub": http_call("POST", "front", "/v1.0/publish/nope/t", b"hi"),
    "publish, grpc": grpc_call(lambda w, md: dapr(w, "PublishEvent", api().PublishEventRequest(pubsub_name="ps", topic="t", data=b"hi", data_content_type="text/plain"), md), 2),
    "secret": http_call("GET", "front", "/v1.0/secrets/file/k"), "no secret": http_call("GET", "front", "/v1.0/secrets/file/none"), "all secrets": http_call("GET", "front", "/v1.0/secrets/file/bulk"),
    "secret, grpc": grpc_call(lambda w, md: dapr(w, "GetSecret", api().GetSecretRequest(store_name="file", key="k"), md)),
    "binding": http_call("POST", "front", "/v1.0/bindings/hb", b'{"operation": "get"}', "/out"),
    "binding, grpc": grpc_call(lambda w, md: dapr(w, "InvokeBinding", api().InvokeBindingRequest(name="hb", operation="get"), md), 1, "/out"),
    "metadata": http_call("GET", "front", "/v1.0/metadata"), "metadata, grpc": grpc_call(lambda w, md: dapr(w, "GetMetadata", api().GetMetadataRequest(), md)),
    "no route": http_call("GET", "front", "/v1.0/nothing/here"),
}


@pytest.fixture(scope="module", params=["grpc", "zipkin"])
def worlds(request, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("traces"), []
    r = Receiver(folder)
    try:
        for kind in ("other", "ours"):
            made.append(World(kind, folder, r, request.param))
            made[-1].http_app.handlers["/fail"] = lambda q: (500, {}, b"oops")
        yield made
    finally:
        for w in made:
            w.close()
        r.close()


def flat(x, at=""):
    return {k: v for n, y in x.items() for k, v in flat(y, f"{at}/{n}").items()} if isinstance(x, dict) else {at: x}


# What differs, and why it may: (call, fact, reason) as regular expressions.
KNOWN = [
    ("publish|no pubsub", ".*/messaging.destination.name", "the topic is told over HTTP too"),
    ("invoke, http to grpc", "/app", "traceparent names the span that grpc-trace-bin names, not the caller's"),
    ("invoke, grpc, nobody", ".*/(error|status)", "a resolver that finds nobody is told in its own words"),
    ("binding, grpc", "/app", "the server behind an output binding is below the sidecar's span, as it is over HTTP"),
]


@pytest.mark.parametrize("call", CALLS)
def test_spans_are_those_of_the_reference(worlds, call):
    a, b = (flat(CALLS[call](w)) for w in worlds)
    found = [f"ours->: {k}: reference {a.get(k, 'none')!r}, here {b.get(k, 'none')!r}" for k in sorted(a.keys() | b.keys())
             if a.get(k, "none") != b.get(k, "none") and not any(re.fullmatch(c, call) and re.fullmatch(f, k) for c, f, _ in KNOWN)]
    assert not found, "\n".join(found)
