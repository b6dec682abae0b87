"""Traces to real receivers (OTLP over gRPC and HTTP, Zipkin, the log), what goes to apps and components, metrics that are this
runtime's own, and the commands that show them."""
import http.server, json, os, re, socket, subprocess, threading
from concurrent import futures

import grpc
import pytest

from conftest import BUILD, Daprd, Web, component, wait_until

MEM = component("mem", "state.in-memory")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def config(tracing=None, **spec):
    doc = {"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}, "spec": dict(spec)}
    if tracing is not None:
        doc["spec"]["tracing"] = tracing
    return json.dumps(doc)


@pytest.fixture(scope="session")
def otlp():
    """The official messages of OTLP (PyPI opentelemetry-proto)."""
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
    return trace_service_pb2


class Span:
    def __init__(self, resource, scope, s):
        text = lambda attrs: {a.key: a.value.string_value for a in attrs}
        self.service, self.resource, self.scope = text(resource.attributes).get("service.name"), text(resource.attributes), scope.name
        self.name, self.kind, self.status, self.attrs = s.name, s.kind, (s.status.code, s.status.message), text(s.attributes)
        self.trace, self.id, self.parent, self.state = s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), s.trace_state
        self.flags, self.took = s.flags, s.end_time_unix_nano - s.start_time_unix_nano

    def __repr__(self):
        return f"{self.service}:{self.name} {self.id}<-{self.parent}"


class Collector:
    """Takes spans by OTLP over gRPC and over HTTP, and Zipkin's JSON. fail: how many exports are refused first."""

    def __init__(self, messages):
        self.messages, self.spans, self.headers, self.zipkin, self.fail, self.exports = messages, [], [], [], 0, 0
        self.lock = threading.Lock()
        self.grpc = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(self.export)
        self.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EXPORT.split("/")[1], {"Export": handler}),))
        self.grpc_port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *a):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collector.take_http(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http_port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def take(self, body, headers):
        with self.lock:
            self.exports += 1
            if self.fail:
                self.fail -= 1
                return False
            self.headers.append(headers)
            for r in self.messages.ExportTraceServiceRequest.FromString(body).resource_spans:
                assert r.schema_url.startswith("https://opentelemetry.io/schemas/")
                self.spans += [Span(r.resource, s.scope, x) for s in r.scope_spans for x in s.spans]
            return True

    def export(self, body, context):
        if not self.take(body, dict(context.invocation_metadata())):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return b""

    def take_http(self, path, headers, body):
        if path.startswith("/api/v2/spans"):
            self.zipkin += json.loads(body)
            return 202
        assert path == "/v1/traces" and headers["content-type"] == "application/x-protobuf"
        return 200 if self.take(body, headers) else 503

    def wait(self, *names, limit=10):
        """The spans once there is one of each of these names; {name: span} of the latest."""
        wait_until(f"spans {names} among {self.spans}", lambda: set(names) <= {s.name for s in self.spans}, limit)
        return {s.name: s for s in self.spans}

    def close(self):
        self.grpc.stop(None)
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def collector(otlp):
    c = Collector(otlp)
    yield c
    c.close()


def to(collector, protocol="grpc", **more):
    port = collector.grpc_port if protocol == "grpc" else collector.http_port
    return {"samplingRate": "1", "otel": {"endpointAddress": f"127.0.0.1:{port}", "protocol": protocol, "isSecure": False, **more}}


class App(Web):
    """An HTTP app that remembers what came."""

    def __init__(self):
        self.got, self.on = [], {}  # on: path -> fn(headers), run before the answer
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def any(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if not self.path.startswith("/dapr/"):
                    app.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                    app.on.get(self.path, lambda h: None)(app.got[-1][1])
                self.send_response(404 if self.path.startswith("/dapr/") else 500 if self.path == "/fail" else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_POST = do_OPTIONS = do_PUT = any
        super().__init__(Handler)

    def headers(self, path):
        wait_until(f"the app gets {path}", lambda: any(p == path for p, _, _ in self.got))
        return [h for p, h, _ in self.got if p == path][-1]


@pytest.fixture
def app():
    a = App()
    yield a
    a.close()


# ---- spans ----

def test_api_calls_are_spans_of_the_callers_trace(daprd, collector, app):
    d = daprd([MEM], config=config(to(collector, headers=[{"name": "X-Key", "value": "secret"}], timeout="5s")), env=FAST,
              args=(f"--app-port={app.port}",))
    r = d.request("GET", "/v1.0/state/mem/k?metadata.x=1", headers={"traceparent": PARENT, "tracestate": "a=b", "dapr-team": "blue"})
    assert r.status == 204
    d.request("GET", "/v1.0/state/nope/k")
    d.request("POST", "/v1.0/invoke/app/method/fail", "x")
    spans = collector.wait("/v1.0/state/mem/k", "/v1.0/state/nope/k", "CallLocal/app/fail")
    s = spans["/v1.0/state/mem/k"]
    assert (s.service, s.scope, s.kind, s.state, s.flags) == ("app", "dapr-diagnostics", 3, "a=b", 0x301)
    assert s.trace == PARENT[3:35] and s.parent == PARENT[36:52] and 0 < s.took < 5e9
    assert r.headers["traceparent"] == f"00-{s.trace}-{s.id}-01" and r.headers["tracestate"] == "a=b"
    assert s.attrs["db.system"] == "state" and s.attrs["db.name"] == "mem" and s.attrs["db.statement"] == "GET /v1.0/state/mem/k"
    assert s.attrs["dapr.protocol"] == "http" and s.attrs["dapr.api"] == "GET /v1.0/state/mem/k" and s.attrs["dapr.status_code"] == "204"
    assert s.attrs["url.full"] == "/v1.0/state/mem/k?metadata.x=1" and s.attrs["http.request.method"] == "GET"
    assert s.attrs["dapr-team"] == "blue" and s.attrs["server.address"] == "127.0.0.1" and s.status == (0, "")
    assert spans["/v1.0/state/nope/k"].status == (2, "Code(400): Bad Request") and spans["/v1.0/state/nope/k"].parent == ""
    call = spans["CallLocal/app/fail"]
    assert call.attrs["rpc.service"] == "ServiceInvocation" and call.attrs["net.peer.name"] == "app" and call.status[0] == 2
    assert app.headers("/fail")["traceparent"] == f"00-{call.trace}-{call.id}-01"
    assert collector.headers[-1]["x-key"] == "secret" and "secret" not in d.log()
    assert not any("healthz" in s.name for s in collector.spans)


def test_grpc_calls_are_spans_too(daprd, collector):
    from dapr.proto import api_service_v1, api_v1
    d = daprd([MEM], config=config(to(collector, "http")), env=FAST)
    binary = bytes.fromhex("0000" + PARENT[3:35] + "01" + PARENT[36:52] + "0201")
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
        stub = api_service_v1.DaprStub(ch)
        _, call = stub.GetState.with_call(api_v1.GetStateRequest(store_name="mem", key="k"),
                                          metadata=(("grpc-trace-bin", binary), ("dapr-team", "blue"), ("baggage", "a=b")))
        with pytest.raises(grpc.RpcError):
            stub.GetState(api_v1.GetStateRequest(store_name="nope", key="k"), metadata=(("traceparent", PARENT),))
        with pytest.raises(grpc.RpcError) as e:
            stub.GetState(api_v1.GetStateRequest(store_name="mem", key="k"), metadata=(("baggage", "no"),))
        assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "invalid baggage header" in e.value.details()
    back = {k: v for k, v in call.initial_metadata()}
    wait_until("both spans", lambda: len(collector.spans) == 2)
    good, bad = sorted(collector.spans, key=lambda s: s.status[0])
    assert good.name == bad.name == "/dapr.proto.runtime.v1.Dapr/GetState" and good.trace == bad.trace == PARENT[3:35]
    assert good.parent == bad.parent == PARENT[36:52] and good.kind == 3
    assert back["baggage"] == "a=b"  # grpc-trace-bin comes too, but gRPC core keeps it to itself
    assert good.attrs["rpc.service"] == "Dapr" and good.attrs["db.name"] == "mem" and good.attrs["dapr-team"] == "blue"
    assert bad.status[0] == 2 and "nope" in bad.status[1]


def test_events_carry_their_trace_to_the_app(daprd, collector, app):
    sub = json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "s"},
                      "spec": {"topic": "t", "pubsubname": "ps", "routes": {"default": "/event"}}})
    d = daprd([component("ps", "pubsub.in-memory"), sub], config=config(to(collector)), env=FAST, args=(f"--app-port={app.port}",))
    assert d.request("POST", "/v1.0/publish/ps/t", "hi", {"traceparent": PARENT, "content-type": "text/plain"}).status == 204
    spans = collector.wait("/v1.0/publish/ps/t", "pubsub/t")
    publish, delivery = spans["/v1.0/publish/ps/t"], spans["pubsub/t"]
    assert delivery.parent == publish.id and delivery.trace == publish.trace == PARENT[3:35]
    assert delivery.attrs == {"messaging.system": "pubsub", "messaging.destination.name": "t"}
    assert publish.attrs["messaging.destination.name"] == "t"
    event = json.loads(app.got[-1][2])
    assert event["traceparent"] == event["traceid"] == f"00-{publish.trace}-{publish.id}-01"
    assert app.headers("/event")["traceparent"] == f"00-{delivery.trace}-{delivery.id}-01"
    entries = [{"entryId": str(i), "event": "x", "contentType": "text/plain"} for i in range(3)]
    d.request("POST", "/v1.0/publish/bulk/ps/t", entries, {"traceparent": PARENT})
    wait_until("a producer's span for each entry", lambda: sum(s.kind == 4 for s in collector.spans) == 3)
    producers = {s.id for s in collector.spans if s.kind == 4}
    wait_until("three more deliveries", lambda: sum(s.parent in producers for s in collector.spans) == 3)


def test_bindings_get_the_trace(daprd, collector, app):
    d = daprd([component("hb", "bindings.http", [("url", f"http://127.0.0.1:{app.port}/out")])], config=config(to(collector)), env=FAST)
    r = d.request("POST", "/v1.0/bindings/hb", {"operation": "post", "data": 1}, {"traceparent": PARENT, "baggage": "k=v"})
    assert r.status == 200 and r.headers["baggage"] == "k=v"
    span = collector.wait("/v1.0/bindings/hb")["/v1.0/bindings/hb"]
    assert app.headers("/out")["traceparent"] == f"00-{PARENT[3:35]}-{span.id}-01" and app.headers("/out")["baggage"] == "k=v"
    assert span.attrs["db.system"] == "bindings" and span.attrs["db.name"] == "hb"


def test_hops_to_plugins_are_spans_when_asked_for(daprd, collector):
    d = daprd([MEM], config=config(to(collector)), env=FAST | {"MICRODAPR_TRACE_PLUGINS": "true"})
    d.request("GET", "/v1.0/state/mem/k")
    spans = collector.wait("/v1.0/state/mem/k", "plugin/mem/StateStore/Get")
    hop = spans["plugin/mem/StateStore/Get"]
    assert hop.parent == spans["/v1.0/state/mem/k"].id and hop.attrs["microdapr.component"] == "mem"


def test_the_environment_of_opentelemetry_suffices(daprd, collector):
    d = daprd([MEM], env=FAST | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc_port}", "OTEL_EXPORTER_OTLP_INSECURE": "true",
                                 "OTEL_EXPORTER_OTLP_HEADERS": "x-team=a%20b", "OTEL_SERVICE_NAME": "shop", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                                 "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,k8s.pod.name=p-1"})
    d.request("GET", "/v1.0/state/mem/k")
    s = collector.wait("/v1.0/state/mem/k")["/v1.0/state/mem/k"]
    assert s.resource == {"service.name": "shop", "deployment.environment": "test", "k8s.pod.name": "p-1"}
    assert collector.headers[-1]["x-team"] == "a b"


def test_the_environment_fills_what_an_endpoint_leaves_open(daprd, collector):
    """Headers and time limit of OTEL_EXPORTER_OTLP_* go with a Configuration's endpoint, unless it has its own."""
    env = FAST | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_HEADERS": "x-team=a%20b", "OTEL_EXPORTER_OTLP_TIMEOUT": "5000"}
    for own, team in ([], "a b"), ([{"name": "x-own", "value": "1"}], None):
        d = daprd([MEM], config=config(to(collector, headers=own)), env=env)
        d.request("GET", "/v1.0/state/mem/k")
        wait_until("spans of this one", lambda: collector.spans)
        assert (collector.headers[-1].get("x-team"), collector.headers[-1].get("x-own")) == (team, "1" if own else None)
        collector.spans.clear()


def test_zipkin_and_the_log(daprd, collector):
    d = daprd([MEM], config=config({"samplingRate": "1", "stdout": True,
                                    "zipkin": {"endpointAddress": f"http://127.0.0.1:{collector.http_port}/api/v2/spans"}}), env=FAST)
    d.request("GET", "/v1.0/state/mem/K", headers={"traceparent": PARENT})
    wait_until("zipkin has it", lambda: collector.zipkin)
    s = collector.zipkin[0]
    assert s["traceId"] == PARENT[3:35] and s["parentId"] == PARENT[36:52] and s["name"] == "/v1.0/state/mem/k" and s["kind"] == "CLIENT"
    assert s["localEndpoint"] == {"serviceName": "app"} and s["tags"]["db.name"] == "mem" and s["tags"]["service.name"] == "app"
    wait_until("the log has it", lambda: f"Trace: {PARENT[3:35]} Span: {PARENT[36:52]}/{s['id']}" in d.log())


def test_sampling_follows_the_caller_and_zero_is_off(daprd, collector, app):
    rate = to(collector) | {"samplingRate": "0.000001"}
    d = daprd([MEM], config=config(rate), env=FAST, args=(f"--app-port={app.port}",))
    for i in range(50):
        r = d.request("GET", f"/v1.0/state/mem/new{i}")
        assert r.headers["traceparent"].endswith("-00")
    d.request("GET", "/v1.0/state/mem/not", headers={"traceparent": PARENT[:-1] + "0"})
    d.request("GET", "/v1.0/state/mem/sampled", headers={"traceparent": PARENT})
    collector.wait("/v1.0/state/mem/sampled")
    assert [s.name for s in collector.spans] == ["/v1.0/state/mem/sampled"]
    off = daprd([MEM], config=config(to(collector) | {"samplingRate": "0"}), env=FAST, app_id="off", args=(f"--app-port={app.port}",))
    r = off.request("POST", "/v1.0/invoke/off/method/raw", "x", {"traceparent": "whatever", "baggage": "no check"})
    assert r.status == 200 and "traceparent" not in r.headers
    assert app.headers("/raw")["traceparent"] == "whatever" and app.headers("/raw")["baggage"] == "no check"


def test_a_collector_that_fails_costs_no_request_and_gets_its_spans_later(daprd, collector):
    collector.fail = 1
    d = daprd([MEM], config=config(to(collector)), env=FAST)
    d.request("GET", "/v1.0/state/mem/k")
    collector.wait("/v1.0/state/mem/k")
    assert collector.exports >= 2
    wait_until("it is counted", lambda: re.search(r'microdapr_trace_spans_exported_total\{app_id="app",exporter="otlp_grpc"\} 1\b', d.metric_text()))


def test_without_a_collector_the_queue_is_bounded_and_a_stop_is_quick(daprd, folder):
    taken = socket.socket()  # bound, but nobody listens, and nobody else can
    taken.bind(("127.0.0.1", 0))
    nobody = {"samplingRate": "1", "otel": {"endpointAddress": f"127.0.0.1:{taken.getsockname()[1]}", "protocol": "http", "isSecure": False}}
    d = daprd([MEM], config=config(nobody), env={"OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"})
    for _ in range(20):
        assert d.request("GET", "/v1.0/state/mem/k").status == 204
    lost = re.search(r'microdapr_trace_spans_dropped_total\{[^}]*reason="queue_full"\} (\d+)', d.metric_text())
    assert int(lost.group(1)) >= 14
    d.close()  # fails when it takes long
    taken.close()


def test_spans_that_wait_are_sent_at_the_stop(daprd, collector):
    d = daprd([MEM], config=config(to(collector)), env={"OTEL_BSP_SCHEDULE_DELAY": "3600000"})
    d.request("GET", "/v1.0/state/mem/last")
    d.close()
    collector.wait("/v1.0/state/mem/last", limit=1)


@pytest.mark.parametrize("tracing, said", [
    ({"otel": {"endpointAddress": "h:1", "protocol": "udp"}}, "invalid protocol udp provided for Otel endpoint"),
    ({"zipkin": {"endpointAddress": "collector:9411"}}, "spec.tracing.zipkin.endpointAddress \\\"collector:9411\\\" is no URL"),
])
def test_wrong_exporters_end_the_start(folder, tracing, said):
    d = Daprd(folder, [MEM], config=config(tracing)).start(healthy=False)
    assert d.wait_exit() == 1
    assert said in d.log() or said.replace("\\", "") in d.log()


def test_one_trace_over_two_sidecars_and_two_apps(daprd, collector, app):
    """front's app asks back's app, which reads its state: each app passes on the trace that it got, and nothing else."""
    other = App()
    front, back = (f"{n}-{os.getpid()}" for n in ("front", "back"))
    a = daprd([MEM], app_id=front, config=config(to(collector)), env=FAST, args=(f"--app-port={app.port}",))
    b = daprd([MEM], app_id=back, config=config(to(collector, "http")), env=FAST, args=(f"--app-port={other.port}",))
    app.on["/start"] = lambda h: a.request("POST", f"/v1.0/invoke/{back}/method/order", "x", {"traceparent": h["traceparent"]})
    other.on["/order"] = lambda h: b.request("GET", "/v1.0/state/mem/stock", headers={"traceparent": h["traceparent"]})
    try:
        assert a.request("POST", f"/v1.0/invoke/{front}/method/start", "x").status == 200
        wait_until("four spans", lambda: len(collector.spans) == 4)
        by_id = {s.id: s for s in collector.spans}
        leaf = next(s for s in collector.spans if s.name == "/v1.0/state/mem/stock")
        path = [leaf]
        while path[-1].parent:
            path.append(by_id[path[-1].parent])
        assert [(s.service, s.name, s.kind) for s in path] == [
            (back, "/v1.0/state/mem/stock", 3), (back, f"CallLocal/{back}/order", 2), (front, f"CallLocal/{back}/order", 3),
            (front, f"CallLocal/{front}/start", 3)]
        assert len({s.trace for s in path}) == 1 and path[1].attrs["dapr.invoke_method"] == "order"
        assert path[1].attrs["dapr.api"] == "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream"
    finally:
        other.close()


# ---- metrics ----

def test_rules_rewrite_labels(daprd):
    rules = [{"name": "dapr_http_server_request_count", "labels": [{"name": "path", "regex": {"/state/*": "/v1.0/state/.+", "any": "^/v1.0/meta.*$"}}]}]
    d = daprd([MEM], config=config(metric={"rules": rules}))
    for path in ("/v1.0/state/mem/a", "/v1.0/state/nope/b", "/v1.0/metadata"):
        d.request("GET", path)
    text = d.metric_text()
    paths = set(re.findall(r'dapr_http_server_request_count\{[^}]*path="([^"]*)"', text))
    assert {"/state/*", "any"} <= paths and not any("mem" in p for p in paths)
    assert 'dapr_http_server_latency_count{app_id="app",method="GET",path="/v1.0/state/mem",status="204"} 1' in text


def test_a_wrong_rule_is_left_out(daprd):
    rules = [{"name": "dapr_http_server_request_count", "labels": [{"name": "path", "regex": {"x": "a("}}]}]
    assert "missing closing )" in daprd([MEM], config=config(metric={"rules": rules})).log()


def test_plugins_are_measured(daprd):
    d = daprd([MEM])
    for _ in range(3):
        d.request("GET", "/v1.0/state/mem/k")
    text = d.metric_text()
    labels = 'app_id="app",component="mem",type="state.in-memory"'
    value = lambda name: float(re.search(re.escape(f"microdapr_plugin_{name}{{{labels}}}") + r" (\S+)", text).group(1))
    assert 'microdapr_plugin_call_duration_seconds_count{app_id="app",component="mem",method="StateStore/Get"} 3' in text
    assert 'microdapr_plugin_call_duration_seconds_bucket{app_id="app",component="mem",method="StateStore/Get",le="5e-05"}' in text
    assert value("resident_memory_bytes") > 1e5 and value("open_fds") > 2 and value("restarts_total") == 0


# ---- commands ----

def ctl(*words):
    return subprocess.run([str(BUILD / "bin/daprctl"), *map(str, words)], capture_output=True, text=True, timeout=30)


def test_daprctl_trace_shows_where_the_time_went(daprd):
    d = daprd([MEM], app_id=f"tr{os.getpid()}")
    for i in range(30):
        d.request("GET", f"/v1.0/state/mem/k{i}", headers={"traceparent": PARENT})
    out = ctl("trace", "-a", d.app_id, "-o", "json", "--limit", 5)
    rows = json.loads(out.stdout)
    assert len(rows) == 5 and rows == sorted(rows, key=lambda r: -r["durationMs"]) and all(0 < r["componentMs"] <= r["durationMs"] for r in rows)
    assert rows[0]["traceId"] == PARENT[3:35] and rows[0]["operation"].startswith("GET /v1.0/state/mem/k") and rows[0]["status"] == 204
    table = ctl("trace", "-a", d.app_id, "--sort", "time").stdout
    assert table.split()[:2] == ["TIME", "MS"] and "healthz" not in table and len(table.splitlines()) == 17
    assert "No requests" in ctl("trace", "-a", d.app_id, "--min", "1h").stdout
    assert ctl("trace", "-a", "nobody").returncode == 1 and ctl("trace", "-a", d.app_id, "--sort", "size").returncode == 1


def test_daprctl_metrics_is_a_table_and_json(daprd):
    d = daprd([MEM], app_id=f"me{os.getpid()}", args=("--enable-metrics=false",))
    d.request("GET", "/v1.0/state/nope/k")
    for _ in range(4):
        d.request("GET", "/v1.0/state/mem/k")
    lines = {tuple(l.split()[:4]): l.split() for l in ctl("metrics", "-a", d.app_id).stdout.splitlines()}
    assert ("http", "GET", "/v1.0/state/mem", "4") in lines and lines["http", "GET", "/v1.0/state/nope", "1"][4] == "1"
    assert ("mem", "StateStore/Get", "4") == next(k for k in lines if k[:2] == ("mem", "StateStore/Get"))[:3]
    assert any(k[:3] == ("mem", "state.in-memory", "READY") for k in lines)
    rows = json.loads(ctl("metrics", "-a", d.app_id, "-o", "json", "--filter", "plugin_call_duration").stdout)
    assert rows[0]["labels"]["component"] == "mem" and rows[0]["count"] == 4 and 0 < rows[0]["p50"] < 1
    p = subprocess.Popen([str(BUILD / "bin/daprctl"), "metrics", "-a", d.app_id, "--watch", "--interval", "100ms"], stdout=subprocess.PIPE, text=True)
    seen = []
    threading.Thread(target=lambda: seen.extend(p.stdout), daemon=True).start()
    wait_until("rates", lambda: d.request("GET", "/v1.0/state/mem/k") and any("PER SECOND" in l for l in seen))
    p.terminate()
    p.wait(10)


def test_daprctl_invoke(daprd, app, folder):
    d = daprd(app_id=f"in{os.getpid()}", args=(f"--app-port={app.port}",))
    done = ctl("invoke", "--app-id", d.app_id, "--method", "orders", "--data", '{"a":1}')
    assert done.returncode == 0 and "App invoked successfully" in done.stdout
    path, headers, body = app.got[-1]
    assert (path, body, headers["content-type"]) == ("/orders", b'{"a":1}', "application/json")
    (folder / "data").write_text("from a file")
    assert ctl("invoke", "-a", d.app_id, "-m", "/put?x=1", "-v", "PUT", "-f", folder / "data").returncode == 0
    assert app.got[-1][0] == "/put?x=1" and app.got[-1][2] == b"from a file"
    bad = ctl("invoke", "-a", d.app_id, "-m", "fail", "-o", "json")
    assert bad.returncode == 1 and json.loads(bad.stdout)["status"] == 500
    none = ctl("invoke", "-a", "nobody", "-m", "x")
    assert none.returncode == 1 and "app ID nobody not found" in none.stderr
    both = ctl("invoke", "-a", d.app_id, "-m", "x", "-d", "1", "-f", folder / "data")
    assert both.returncode == 1 and "Only one of --data and --data-file" in both.stderr
