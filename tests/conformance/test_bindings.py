"""The app channel and bindings: protocols, token, health, concurrency; cron, HTTP and files; replies of gRPC apps; foreign bindings; what
happens when the app, a plugin or the sidecar goes away."""
import base64, collections, concurrent.futures, http.server, json, os, pathlib, re, shutil, signal, ssl, subprocess, sys, tempfile, threading, time

import grpc
import pytest
from dapr.proto import api_service_v1, api_v1, appcallback_service_v1
from dapr.proto.runtime.v1 import appcallback_pb2
from google.protobuf import empty_pb2

from conftest import BUILD, ROOT, Web, component, free_port, wait_until

HERE = pathlib.Path(__file__).parent
Call = collections.namedtuple("Call", "method path headers body at")


class App(Web):
    """An HTTP app. answers: "METHOD /path" or "/path" -> (status, headers, body), or fn(call) giving that. All calls stand in `calls`."""

    def __init__(self, answers=None, tls=None):
        self.answers, self.calls = answers or {}, []
        self.lock, self.running, self.most = threading.Lock(), 0, 0
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                call = Call(self.command, self.path, self.headers, body, time.monotonic())
                with app.lock:
                    app.calls.append(call)
                    app.running += 1
                    app.most = max(app.most, app.running)
                path = self.path.split("?")[0]
                a = app.answers.get(f"{self.command} {path}", app.answers.get(path, (404 if path.startswith("/dapr/") else 200, {}, b"")))
                try:
                    status, headers, body = a(call) if callable(a) else a
                finally:
                    with app.lock:
                        app.running -= 1
                if status is None:
                    self.close_connection = True
                    return self.connection.close()
                self.send_response(status)
                for k, v in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(k, v)
                self.end_headers()
                self.wfile.write(body if self.command != "HEAD" else b"")

            do_GET = do_POST = do_PUT = do_OPTIONS = do_DELETE = do_PATCH = do_HEAD = do_TRACE = serve

            def log_message(self, *a):
                pass
        super().__init__(Handler, tls)

    def of(self, path, method="POST"):
        with self.lock:
            return [c for c in self.calls if c.path.split("?")[0] == path and c.method == method]


class GrpcApp(appcallback_service_v1.AppCallbackServicer):
    def __init__(self, bindings=(), reply=None, tls=None):
        self.bindings, self.reply, self.events, self.md = list(bindings), reply, [], []
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
        appcallback_service_v1.add_AppCallbackServicer_to_server(self, self.server)
        if tls:
            cert, key = (p.read_bytes() for p in tls)
            self.port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
        else:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def ListInputBindings(self, req, ctx):
        return appcallback_pb2.ListInputBindingsResponse(bindings=self.bindings)

    def ListTopicSubscriptions(self, req, ctx):
        return appcallback_pb2.ListTopicSubscriptionsResponse()

    def OnBindingEvent(self, req, ctx):
        self.md.append(dict(ctx.invocation_metadata()))
        self.events.append(req)
        return self.reply(req, ctx) if self.reply else appcallback_pb2.BindingEventResponse()

    def close(self):
        self.server.stop(0)


@pytest.fixture
def app():
    made = []

    def make(*a, grpc_app=False, **kw):
        made.append((GrpcApp if grpc_app else App)(*a, **kw))
        return made[-1]
    yield make
    for a in made:
        a.close()


@pytest.fixture
def h2c_port():
    """Of an app that speaks HTTP/2 by prior knowledge and echoes at /echo."""
    port = free_port()
    p = subprocess.Popen([str(BUILD / "bin/httpd_bench"), f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    yield port
    p.kill()
    p.wait()


def start(daprd, a, *resources, args=(), **kw):
    return daprd(resources=resources, args=[f"--app-port={a.port}", *args], **kw)


def cron(name="tick", schedule="@every 50ms", *metadata):
    return component(name, "bindings.cron", [("schedule", schedule), *metadata])


def invoke(d, name, operation, data=None, headers=None, **metadata):
    return d.request("POST", f"/v1.0/bindings/{name}", {"operation": operation, "data": data, "metadata": metadata}, headers)


# ---- the app channel ----

def certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "k.pem", "-out", folder / "c.pem",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], check=True, capture_output=True)
    return folder / "c.pem", folder / "k.pem"


def test_an_https_app_needs_no_known_certificate(daprd, app, folder):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate(folder))
    a = app(tls=tls)
    d = start(daprd, a, cron(), args=["--app-protocol=https"])
    wait_until("the app was called", lambda: len(a.of("/tick")) > 2)
    assert d.metadata()["appConnectionProperties"]["protocol"] == "https"


def test_an_h2c_app(daprd, h2c_port):
    d = daprd(resources=[cron("echo", "@every 20ms", ("direction", "input"))], args=[f"--app-port={h2c_port}", "--app-protocol=h2c"])
    wait_until("the app was called", lambda: re.search(r'http_client_completed_count\{app_id="app",method="POST",path="/echo",status="200"\} [1-9]', d.metric_text()))


def test_token_and_app_id_reach_the_app(daprd, app):
    a = app({"/dapr/config": (200, {}, b'{"entities":["cat"]}')})
    d = start(daprd, a, cron(), env={"APP_API_TOKEN": "secret"})
    wait_until("the app was called", lambda: a.of("/tick"))
    (config,) = a.of("/dapr/config", "GET")
    assert config.headers["dapr-app-id"] == "app"
    for c in (config, a.of("/tick", "OPTIONS")[0], a.of("/tick")[0]):
        assert c.headers.get_all("dapr-api-token") == ["secret"]
    assert 'dapr_http_client_completed_count{app_id="app",method="GET",path="/dapr/config",status="200"} 1' in d.metric_text()


def test_the_config_endpoint_can_be_disabled(daprd, app):
    a = app()
    d = start(daprd, a, args=["--disable-init-endpoints=config"])
    assert not a.of("/dapr/config", "GET")
    assert "Skipping programmatic dapr configuration loading" in d.log()


def test_redirects_of_the_app_are_not_followed(daprd, app):
    a = app({"POST /tick": (307, {"location": "/elsewhere"}, b"")})
    d = start(daprd, a, cron())
    wait_until("events failed", lambda: 'input_binding_count{app_id="app",component="tick",namespace="",success="false"}' in d.metric_text())
    assert not a.of("/elsewhere")


def test_no_more_calls_at_once_than_allowed(daprd, app):
    def slow(call):
        time.sleep(0.05)
        return 200, {}, b""
    a = app({"POST /tick": slow, "POST /tock": slow})
    start(daprd, a, cron("tick", "@every 5ms"), cron("tock", "@every 5ms"), args=["--app-max-concurrency=2"])
    wait_until("the app was called", lambda: len(a.of("/tick")) + len(a.of("/tock")) > 20)
    assert a.most == 2


def test_waits_for_the_port_and_for_health(daprd, app):
    health = {"/healthz": (500, {}, b"")}
    a = app(health)
    d = start(daprd, a, cron(), args=["--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-threshold=1"])
    wait_until("the app was probed", lambda: len(a.of("/healthz", "GET")) > 1)
    assert not a.of("/dapr/config", "GET") and not a.of("/tick")
    r = d.request("GET", "/v1.0/invoke/app/method/x")
    assert r.status == 500 and "app is not in a healthy state" in r.json()["message"]
    a.answers["/healthz"] = (200, {}, b"")
    wait_until("events came", lambda: a.of("/tick"))
    assert len(a.of("/dapr/config", "GET")) == 1
    a.answers["/healthz"] = (503, {}, b"")
    wait_until("the log says so", lambda: "App entered un-healthy status: Health check failed with status code: 503" in d.log())
    time.sleep(0.3)
    n = len(a.of("/tick"))
    time.sleep(0.4)
    assert len(a.of("/tick")) == n
    a.answers["/healthz"] = (200, {}, b"")
    wait_until("events came again", lambda: len(a.of("/tick")) > n)
    assert re.search(r'dapr_http_healthprobes_completed_count\{app_id="app",status="503"\} [1-9]', d.metric_text())


def test_trace_headers_of_the_caller_reach_app_and_binding(daprd, app):
    a = app()
    d = start(daprd, a, component("out", "bindings.http", [("url", f"http://127.0.0.1:{a.port}/out")]))
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "k=v"}
    assert d.request("GET", "/v1.0/invoke/app/method/own", headers=trace).status == 200
    assert invoke(d, "out", "get", headers=trace).status == 200
    for c in (a.of("/own", "GET")[0], a.of("/out", "GET")[0]):
        assert c.headers["traceparent"] == trace["traceparent"] and c.headers["baggage"] == "k=v"


# ---- input ----

def test_only_wanted_bindings_are_read(daprd, app):
    a = app({"OPTIONS /no": (404, {}, b""), "OPTIONS /maybe": (405, {}, b""), "OPTIONS /forced": (404, {}, b"")})
    d = start(daprd, a, cron("no"), cron("maybe"), cron("forced", "@every 50ms", ("direction", "input")), cron("routed", "@every 50ms", ("route", "/a/b")))
    wait_until("three are read", lambda: a.of("/maybe") and a.of("/forced") and a.of("/a/b"))
    assert not a.of("/no") and not a.of("/forced", "OPTIONS") and len(a.of("/a/b", "OPTIONS")) == 1
    assert "app has not subscribed to binding no." in d.log()
    c = a.of("/maybe")[0]
    assert c.headers["timezone"] == "Local" and c.headers["readtimeutc"].endswith("+0000 UTC") and c.headers["content-type"] == "application/json"
    assert {x["name"]: x["capabilities"] for x in d.metadata()["components"]}["no"] == ["INPUT_BINDING"]
    assert re.search(r'dapr_component_input_binding_count\{app_id="app",component="maybe",namespace="",success="true"\} [1-9]', d.metric_text())


def test_a_fast_schedule_is_fast(daprd, app):
    a = app()
    start(daprd, a, cron("tick", "@every 1ms", ("direction", "input")))
    wait_until("the app was called often", lambda: len(a.of("/tick")) > 100, 10)


@pytest.mark.parametrize("schedule, why", [("", "schedule not set"), ("* * *", "expected 5 to 6 fields, found 3: [* * *]"),
                                           ("@every x", "failed to parse duration @every x"), ("61 * * * *", "end of range (61) above maximum (59): 61")])
def test_a_wrong_schedule_stops_the_start(daprd, app, schedule, why):
    a = app()
    d = start(daprd, a, cron("tick", schedule), healthy=False)
    assert d.wait_exit() == 1
    d.proc = None
    assert why in d.log() and "INIT_COMPONENT_FAILURE" in d.log()


def test_a_killed_plugin_goes_on(daprd, app):
    a = app()
    d = start(daprd, a, cron())
    wait_until("the app was called", lambda: a.of("/tick"))
    (pid,) = d.children()
    os.kill(pid, signal.SIGKILL)
    n = len(a.of("/tick"))
    wait_until("the app was called again", lambda: len(a.of("/tick")) > n + 3)


def test_events_in_the_apps_hands_are_finished_at_the_end(daprd, app):
    ended = []

    def slow(call):
        time.sleep(1)
        ended.append(call)
        return 200, {}, b""
    a = app({"POST /tick": slow})
    d = start(daprd, a, cron("tick", "@every 100ms"))
    wait_until("the app is busy", lambda: a.running > 2)
    d.proc.send_signal(signal.SIGTERM)
    assert d.wait_exit() == 0
    d.proc = None
    assert len(ended) == len(a.of("/tick")) and a.running == 0


@pytest.mark.parametrize("protocol", ["grpc", "grpcs"])
def test_grpc_apps_say_which_bindings_they_want(daprd, app, folder, protocol):
    a = app(["tick"], grpc_app=True, tls=certificate(folder) if protocol == "grpcs" else None)
    d = start(daprd, a, cron(), cron("other"), args=[f"--app-protocol={protocol}"], env={"APP_API_TOKEN": "secret"})
    wait_until("events came", lambda: len(a.events) > 3)
    assert {e.name for e in a.events} == {"tick"} and a.events[0].metadata["timeZone"] == "Local"
    assert a.md[0]["dapr-api-token"] == "secret"
    assert 'dapr_grpc_io_client_completed_rpcs{app_id="app",grpc_client_method="/dapr.proto.runtime.v1.AppCallback/OnBindingEvent",grpc_client_status="OK"}' in d.metric_text()


@pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
def test_replies_of_grpc_apps_save_state_and_call_bindings(daprd, app, folder, parallel):
    reply = appcallback_pb2.BindingEventResponse(store_name="store", to=["file1", "file2"], data=b'{"a": 1}', concurrency=1 if parallel else 0)
    reply.states.add(key="k", value=b'"v"')
    a = app(["tick"], lambda req, ctx: reply, grpc_app=True)
    files = [component(f"file{i}", "bindings.localstorage", [("rootPath", str(folder / f"f{i}"))]) for i in (1, 2)]
    d = start(daprd, a, cron("tick", "@every 300ms"), component("store", "state.in-memory"), *files, args=["--app-protocol=grpc"])
    wait_until("the files are there", lambda: list((folder / "f1").iterdir()) and list((folder / "f2").iterdir()))
    wait_until("it is written", lambda: next((folder / "f2").iterdir()).read_bytes() == b'{"a":1}')
    wait_until("state is there", lambda: d.request("GET", "/v1.0/state/store/k").body == b'"v"')


# ---- output ----

def files(folder, *metadata):
    return component("files", "bindings.localstorage", [("rootPath", str(folder / "root")), *metadata])


def test_local_storage(daprd, folder):
    d = daprd(resources=[files(folder)])
    root = folder / "root"
    r = invoke(d, "files", "create", "hello", fileName="a/b.txt")
    assert (r.status, r.json()) == (200, {"fileName": "a/b.txt"}) and (root / "a/b.txt").read_text() == "hello"
    r = invoke(d, "files", "get", fileName="a/b.txt")
    assert (r.status, r.body, r.headers["content-type"]) == (200, b"hello", "application/json")
    binary = bytes(range(256)) * 1000
    invoke(d, "files", "create", base64.b64encode(binary).decode(), fileName="bin")
    assert (root / "bin").read_bytes() == binary and invoke(d, "files", "get", fileName="bin").body == binary
    assert invoke(d, "files", "list").json() == [str(root / "a/b.txt"), str(root / "bin")]
    name = invoke(d, "files", "create", {"x": 1}).json()["fileName"]
    assert re.fullmatch(r"[0-9a-f-]{36}", name) and (root / name).read_bytes() == b'{"x":1}'
    r = invoke(d, "files", "delete", fileName=name)
    assert (r.status, r.body) == (204, b"") and not (root / name).exists()
    r = invoke(d, "files", "get", fileName=name)
    assert r.status == 500 and r.json() == {"errorCode": "ERR_INVOKE_OUTPUT_BINDING",
                                            "message": f"error invoking output binding files: file not found: {root / name}"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "link/secret", "up/secret"])
def test_local_storage_stays_below_its_root(daprd, folder, name):
    d = daprd(resources=[files(folder)])
    root, outside = folder / "root", folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "link").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    assert invoke(d, "files", "get", fileName=name).status == 500
    assert invoke(d, "files", "create", "mine", fileName=name).status in (200, 500)
    assert (outside / "secret").read_text() == "secret" and pathlib.Path("/etc/passwd").read_text() != "mine"
    assert invoke(d, "files", "delete", fileName=name).status in (204, 500)
    assert (outside / "secret").exists() and pathlib.Path("/etc/passwd").exists()


@pytest.mark.parametrize("root, why", [("", "property rootPath must not be empty"), ("/proc/x", "property rootPath points to a disallowed location"),
                                       ("/etc/passwd", "property rootPath represents a file and not a directory")])
def test_local_storage_refuses_some_roots(daprd, root, why):
    d = daprd(resources=[component("files", "bindings.localstorage", [("rootPath", root)])], healthy=False)
    assert d.wait_exit() == 1
    d.proc = None
    assert why in d.log()


def test_wrong_requests(daprd, folder):
    d = daprd(resources=[files(folder), cron()])
    prefix = "error invoking output binding "
    for name, body, status, code, text in (
            ("files", b"", 400, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: EOF"),
            ("files", b"[]", 400, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: json: cannot unmarshal array into Go value of type http.OutputBindingRequest"),
            ("files", b'{"operation": 1}', 400, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: json: cannot unmarshal number into Go struct field OutputBindingRequest.operation of type string"),
            ("files", b"{}", 500, "ERR_INVOKE_OUTPUT_BINDING", prefix + "files: operation field is missing from request"),
            ("nobody", b'{"operation": "get"}', 500, "ERR_INVOKE_OUTPUT_BINDING", prefix + "nobody: couldn't find output binding nobody"),
            ("tick", b'{"operation": "get"}', 500, "ERR_INVOKE_OUTPUT_BINDING", prefix + "tick: couldn't find output binding tick"),
            ("files", b'{"operation": "x"}', 500, "ERR_INVOKE_OUTPUT_BINDING",
             prefix + "files: binding files does not support operation x. supported operations:create get list delete")):
        r = d.request("PUT", f"/v1.0/bindings/{name}", body)
        assert (r.status, r.json()) == (status, {"errorCode": code, "message": text})
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
        with pytest.raises(grpc.RpcError) as e:
            api_service_v1.DaprStub(ch).InvokeBinding(api_v1.InvokeBindingRequest(name="nobody", operation="get"))
        assert e.value.code() == grpc.StatusCode.INTERNAL and e.value.details() == prefix + "nobody: couldn't find output binding nobody"


def echo(call):
    return 201, {"x-one": "1", "content-type": "text/plain"}, f"{call.method} {call.path} ".encode() + call.body


def web(a, *metadata, path="/base"):
    return component("web", "bindings.http", [("url", f"http://127.0.0.1:{a.port}{path}"), *metadata])


def test_http_binding(daprd, app):
    a = app({"/base": echo, "/base/sub": echo})
    d = daprd(resources=[web(a, ("securityToken", "t0ken"), ("securityTokenHeader", "X-Token"))])
    r = invoke(d, "web", "post", {"b": [1, "<"]}, **{"X-Custom": "yes", "path": "/sub?q=1"})
    assert (r.status, r.body) == (200, b'POST /base/sub?q=1 {"b":[1,"\\u003c"]}')
    assert (r.headers["metadata.statuscode"], r.headers["metadata.status"], r.headers["metadata.x-one"]) == ("201", "201 Created", "1")
    c = a.of("/base/sub")[0]
    assert (c.headers["x-custom"], c.headers["x-token"], c.headers["content-type"], c.headers["accept"]) == \
        ("yes", "t0ken", "application/json; charset=utf-8", "application/json; charset=utf-8")
    for op in ("get", "delete", "options", "put", "patch", "create"):
        r = invoke(d, "web", op, 5)
        assert r.body == {"create": b"POST /base 5", "put": b"PUT /base 5", "patch": b"PATCH /base 5"}.get(op, f"{op.upper()} /base ".encode())
    assert invoke(d, "web", "head").headers["metadata.statuscode"] == "201"
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
        out, call = api_service_v1.DaprStub(ch).InvokeBinding.with_call(
            api_v1.InvokeBindingRequest(name="web", operation="post", data=b"\xff\x00", metadata={"Content-Type": "x/y"}))
        assert out.data == b"POST /base \xff\x00" and out.metadata["statusCode"] == "201"
        assert dict(call.initial_metadata())["metadata.statuscode"] == "201"


def test_http_binding_failures(daprd, app):
    a = app({"/404": (404, {"x-why": "gone"}, b"no"), "/slow": lambda c: (time.sleep(2), (200, {}, b""))[1], "/big": (200, {}, b"x" * 5000),
             "/cut": lambda c: (None, {}, b""), "/loop": (302, {"location": "/loop"}, b""), "/moved": (303, {"location": "target"}, b""),
             "/target": echo})
    d = daprd(resources=[web(a, ("responseTimeout", "500ms"), ("maxResponseBodySize", "1k"), path=""),
                         component("down", "bindings.http", [("url", f"http://127.0.0.1:{free_port()}")])])
    r = invoke(d, "web", "get", path="404")
    assert r.status == 500 and r.json()["message"] == "error invoking output binding web: received status code 404"
    assert r.headers["metadata.statuscode"] == "404" and r.headers["metadata.x-why"] == "gone"
    r = invoke(d, "web", "get", path="404", errorIfNot2XX="false")
    assert (r.status, r.body) == (200, b"no")
    r = invoke(d, "web", "get", path="slow")
    assert r.status == 500 and "context deadline exceeded" in r.json()["message"]
    assert len(invoke(d, "web", "get", path="big").body) == 1000
    assert "EOF" in invoke(d, "web", "post", path="cut").json()["message"]
    assert "stopped after 10 redirects" in invoke(d, "web", "get", path="loop").json()["message"]
    assert invoke(d, "web", "post", 1, path="moved").body == b"GET /target "
    assert "connect: connection refused" in invoke(d, "down", "get").json()["message"]


def test_http_binding_over_tls(daprd, app, folder):
    cert, key = certificate(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    a = app({"/x": echo}, tls=tls)
    url = ("url", f"https://localhost:{a.port}/x")
    d = daprd(resources=[component("trusted", "bindings.http", [url, ("MTLSRootCA", cert.read_text())]),
                         component("file", "bindings.http", [url, ("MTLSRootCA", str(cert))]), component("unknown", "bindings.http", [url])])
    assert invoke(d, "trusted", "get").body == b"GET /x " and invoke(d, "file", "get").body == b"GET /x "
    assert "certificate" in invoke(d, "unknown", "get").json()["message"]


# ---- foreign bindings ----

@pytest.fixture(scope="session")
def protos():
    out = ROOT / "build/pyproto"
    out.mkdir(parents=True, exist_ok=True)
    names = [str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto/dapr/proto/components/v1").glob("*.proto")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}",
                    "dapr/proto/common/v1/common.proto", *names], check=True)
    for d in [out / "dapr", *(out / "dapr").rglob("*/")]:
        (d / "__init__.py").touch()
    return out


@pytest.fixture
def foreign(protos):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    p = subprocess.Popen([sys.executable, str(HERE / "pluggable_binding.py"), str(folder / "pybind.sock"), str(protos)], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "ready\n"
    p.env = {"DAPR_COMPONENTS_SOCKETS_FOLDER": str(folder)}
    yield p
    p.kill()
    p.wait()
    p.stdout.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_foreign_binding_delivers_until_the_app_takes_it(daprd, app, foreign):
    answers = [(500, {}, b"not now"), (200, {}, b"thanks")]
    a = app({"POST /py": lambda c: answers.pop(0)})
    d = start(daprd, a, component("py", "bindings.pybind"), env=foreign.env)
    assert {x["name"]: x["capabilities"] for x in d.metadata()["components"]}["py"] == ["INPUT_BINDING", "OUTPUT_BINDING"]
    r = invoke(d, "py", "send", "event", k="v")
    assert (r.status, r.body, r.headers["metadata.seen"]) == (200, b'"sent"', "v")
    first, second = json.loads(foreign.stdout.readline()), json.loads(foreign.stdout.readline())
    assert first == {"data": '"event"', "reply": "", "error": "fails to send binding event to http app channel, status code: 500 body: not now"}
    assert second == {"data": '"event"', "reply": "thanks", "error": None}
    assert [c.headers["origin"] for c in a.of("/py")] == ["py", "py"]
    r = invoke(d, "py", "fail")
    assert r.json()["message"] == "error invoking output binding py: rpc error: code = Aborted desc = as told"


def test_direction_decides_what_a_binding_does(daprd, app, foreign):
    a = app()
    d = start(daprd, a, component("in", "bindings.pybind", [("direction", "input")]), component("out", "bindings.pybind", [("direction", "output")]),
              env=foreign.env)
    assert {x["name"]: x["capabilities"] for x in d.metadata()["components"]} == {"in": ["INPUT_BINDING"], "out": ["OUTPUT_BINDING"]}
    assert "couldn't find output binding in" in invoke(d, "in", "send", 1).json()["message"]
    assert invoke(d, "out", "send", 1).status == 200
    wait_until("the app got it", lambda: a.of("/in"))
    assert not a.of("/out") and not a.of("/out", "OPTIONS")
