"""Takes spans by the official messages of OTLP (PyPI opentelemetry-proto): over gRPC, over HTTP, and Zipkin's JSON. With OTEL_COLLECTOR = path
of an OpenTelemetry Collector with the receivers otlp and zipkin and the exporter otlp_http, that program stands before it."""
import http.server, json, os, subprocess, threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from conftest import free_port, wait_until

KINDS = {"SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5, None: 0}


class Span:
    """Of any protocol: .service .resource .scope .name .kind .status .attrs .trace .id .parent .state"""

    def __init__(self, resource, scope, s):
        def value(v):
            kind = v.WhichOneof("value")
            return getattr(v, kind) if kind else ""
        self.resource = {a.key: value(a.value) for a in resource.attributes}
        self.attrs = {a.key: value(a.value) for a in s.attributes}
        self.service, self.scope = self.resource.get("service.name"), scope
        self.name, self.kind, self.status, self.state = s.name, s.kind, (s.status.code, s.status.message), s.trace_state
        self.trace, self.id, self.parent = s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex()

    def __repr__(self):
        return f"{self.service}:{self.name} {self.id}<-{self.parent}"


class ZipkinSpan(Span):
    def __init__(self, s):
        tags = s.get("tags", {})
        self.resource, self.attrs, self.scope = {}, tags, tags.get("otel.library.name", "")
        self.service, self.name, self.kind = s["localEndpoint"]["serviceName"], s["name"], KINDS[s.get("kind")]
        self.status, self.state = (tags.get("otel.status_code", ""), tags.get("error", "")), ""
        self.trace, self.id, self.parent = s["traceId"], s["id"], s.get("parentId", "")


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """.grpc, .http, .zipkin: what to tell a sender, "host:port" or a URL. .spans is what came."""

    def __init__(self, folder):
        self.spans, receiver = [], self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    assert self.headers["content-type"] == "application/x-protobuf"
                    receiver.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                else:
                    receiver.spans += [ZipkinSpan(s) for s in json.loads(body)]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.rpc = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.rpc)
        grpc_port = self.rpc.add_insecure_port("127.0.0.1:0")
        self.rpc.start()
        self.grpc, self.http = f"127.0.0.1:{grpc_port}", f"127.0.0.1:{self.server.server_address[1]}"
        self.zipkin = f"http://{self.http}/api/v2/spans"
        self.program = None
        if os.environ.get("OTEL_COLLECTOR"):
            self.start_collector(os.environ["OTEL_COLLECTOR"], folder)

    def start_collector(self, program, folder):
        ports = [free_port() for _ in range(3)]
        (folder / "collector.yaml").write_text(json.dumps({
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{ports[0]}"}, "http": {"endpoint": f"127.0.0.1:{ports[1]}"}}},
                          "zipkin": {"endpoint": f"127.0.0.1:{ports[2]}"}},
            "exporters": {"otlp_http": {"endpoint": f"http://{self.http}", "compression": "none"}},
            "service": {"telemetry": {"metrics": {"level": "none"}}, "pipelines": {"traces": {"receivers": ["otlp", "zipkin"], "exporters": ["otlp_http"]}}}}))
        log = folder / "collector.log"
        self.program = subprocess.Popen([program, f"--config=file:{folder / 'collector.yaml'}"], stdout=open(log, "wb"), stderr=subprocess.STDOUT)
        wait_until("the collector is ready", lambda: "Everything is ready" in log.read_text())
        self.grpc, self.http = (f"127.0.0.1:{p}" for p in ports[:2])
        self.zipkin = f"http://127.0.0.1:{ports[2]}/api/v2/spans"

    def take(self, request):
        self.spans += [Span(r.resource, s.scope.name, x) for r in request.resource_spans for s in r.scope_spans for x in s.spans]

    def Export(self, request, context):
        self.take(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace, n):
        """The n spans of a trace."""
        mine = lambda: [s for s in list(self.spans) if s.trace == trace]
        wait_until(f"{n} spans of {trace}", lambda: len(mine()) >= n, 10)
        return mine()

    def close(self):
        if self.program:
            self.program.terminate()
            self.program.wait(20)
        self.rpc.stop(None)
        self.server.shutdown()
        self.server.server_close()
