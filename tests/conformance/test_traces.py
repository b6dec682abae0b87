"""One connected trace over two sidecars and two apps, which use the OpenTelemetry SDK and its exporters, by each protocol.
traces_differential.py compares spans with those of another daprd."""
import json

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from conftest import component
from test_invoke import HttpApp
from test_mesh import name, url
from trace_receiver import Receiver

W3C = TraceContextTextMapPropagator()


@pytest.fixture
def receiver(folder):
    r = Receiver(folder)
    yield r
    r.close()


def tracing(receiver, protocol):
    if protocol == "zipkin":
        spec = {"samplingRate": "1", "zipkin": {"endpointAddress": receiver.zipkin}}
    else:
        spec = {"samplingRate": "1", "otel": {"endpointAddress": getattr(receiver, protocol), "protocol": protocol, "isSecure": False}}
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}, "spec": {"tracing": spec}})


def exporter(receiver, protocol):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        return OTLPSpanExporter(endpoint=f"http://{receiver.grpc}", insecure=True)
    if protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        return OTLPSpanExporter(endpoint=f"http://{receiver.http}/v1/traces")
    from opentelemetry.exporter.zipkin.json import ZipkinExporter
    return ZipkinExporter(endpoint=receiver.zipkin)


class TracedApp(HttpApp):
    """An app whose requests are spans of the SDK, children of what the headers name; next(headers): what it does inside of one."""

    def __init__(self, service, out):
        super().__init__()
        self.provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self.provider.add_span_processor(SimpleSpanProcessor(out))
        self.tracer = self.provider.get_tracer("app")

    def serve(self, path, then):
        def handler(r):
            with self.tracer.start_as_current_span(f"handle {path}", W3C.extract(r["headers"]), trace.SpanKind.SERVER):
                headers = {}
                W3C.inject(headers)
                then(headers)
            return 200, {}, b"ok"
        self.handlers[path] = handler

    def close(self):
        self.provider.shutdown()
        super().close()


@pytest.mark.parametrize("protocol", ["grpc", "http", "zipkin"])
def test_one_trace_over_two_sidecars_and_two_apps(daprd, receiver, protocol):
    front, back = (TracedApp(n, exporter(receiver, protocol)) for n in ("front-app", "back-app"))
    make = lambda app, n: daprd([component("mem", "state.in-memory")], app_id=name(n), config=tracing(receiver, protocol),
                                env={"OTEL_BSP_SCHEDULE_DELAY": "50"}, args=(f"--app-port={app.port}",))
    try:
        a, b = make(front, "front"), make(back, "back")
        front.serve("/start", lambda h: a.request("POST", url(b, "/order"), b"x", h))
        back.serve("/order", lambda h: b.request("GET", "/v1.0/state/mem/stock", headers=h))
        with front.tracer.start_as_current_span("click") as click:
            headers = {}
            W3C.inject(headers)
            assert a.request("POST", url(a, "/start"), b"x", headers).status == 200
        spans = receiver.of(f"{click.get_span_context().trace_id:032x}", 7)
        by_id = {s.id: s for s in spans}
        path = [next(s for s in spans if "stock" in s.name)]
        while path[-1].parent:
            path.append(by_id[path[-1].parent])
        lower = str.lower if protocol == "zipkin" else str
        assert [(s.service, s.name) for s in path] == [(lower(x), lower(y)) for x, y in [
            (b.app_id, "/v1.0/state/mem/stock"), ("back-app", "handle /order"), (b.app_id, f"CallLocal/{b.app_id}/order"),
            (a.app_id, f"CallLocal/{b.app_id}/order"), ("front-app", "handle /start"), (a.app_id, f"CallLocal/{a.app_id}/start"), ("front-app", "click")]]
        assert len(spans) == len({s.id for s in spans}) == 7
    finally:
        front.close()
        back.close()
