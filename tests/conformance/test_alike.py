"""What a client of the reference could tell from ours: cases found by running both side by side with the same requests."""
import http.server, json, re, subprocess, sys
from concurrent import futures

import grpc
import pytest

from conftest import ROOT, Web, component

STORE = component("store", "state.in-memory")
JSON = {"content-type": "application/json"}


class App(Web):
    """Answers by path: path -> (status, body, headers); else 200 with nothing. What came is in got."""

    def __init__(self, answers):
        app = self
        self.got = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.split("?")[0]
                if not path.startswith("/dapr/"):
                    app.got.append((self.command, self.path, dict(self.headers), body))
                status, out, headers = answers.get(path, (404 if path.startswith("/dapr/") else 200, b"", {}))
                self.send_response(status)
                for k, v in headers.items():
                    self.send_header(k, v)
                if status not in (204, 304):
                    self.send_header("content-length", str(len(out)))
                self.end_headers()
                if self.command != "HEAD" and status not in (204, 304):
                    self.wfile.write(out)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = answer

            def log_message(self, *args):
                pass
        super().__init__(Handler)


@pytest.fixture
def app():
    made = []

    def make(answers=()):
        made.append(App(dict(answers)))
        return made[-1]
    yield make
    for a in made:
        a.close()


def config(**spec):
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}, "spec": spec})


# ---- what an app answers through invocation ----

BODIES = {"/text": (b"hello", "text/plain; charset=utf-8"), "/json": (b'{"a":1}', "text/plain; charset=utf-8"), "/html": (b" <!DOCTYPE html><p>", "text/html; charset=utf-8"),
          "/xml": (b"<?xml version='1.0'?>", "text/xml; charset=utf-8"), "/png": (b"\x89PNG\r\n\x1a\n\x00", "image/png"), "/jpeg": (b"\xff\xd8\xff\xe0", "image/jpeg"),
          "/pdf": (b"%PDF-1.7", "application/pdf"), "/gzip": (b"\x1f\x8b\x08\x00", "application/x-gzip"), "/bytes": (b"\x00\x01\x02", "application/octet-stream"),
          "/webp": (b"RIFF1234WEBPVP8 ", "image/webp"), "/mp4": (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "video/mp4"), "/utf16": (b"\xff\xfeh\x00", "text/plain; charset=utf-16le")}


def test_a_body_without_a_type_gets_one_by_its_first_bytes(daprd, app):
    a = app({p: (200, b, {}) for p, (b, _) in BODIES.items()} | {"/coded": (200, b"x", {"Content-Encoding": "br"}), "/none": (200, b"", {})})
    d = daprd(args=[f"--app-port={a.port}"])
    got = {p: d.request("GET", f"/v1.0/invoke/app/method{p}").headers["content-type"] for p in BODIES}
    assert got == {p: t for p, (_, t) in BODIES.items()}
    for p in ("/coded", "/none"):
        assert d.request("GET", f"/v1.0/invoke/app/method{p}").headers["content-type"] is None


def test_failures_without_a_type_are_json_and_counted(daprd, app):
    a = app({"/bad": (400, b"no", {}), "/worse": (503, b"", {}), "/typed": (500, b"x", {"Content-Type": "text/x-y"}), "/same": (304, b"", {"Content-Type": "text/plain"})})
    d = daprd(args=[f"--app-port={a.port}"], config=config(metrics={"recordErrorCodes": True}))
    types = {p: d.request("GET", f"/v1.0/invoke/app/method{p}").headers["content-type"] for p in ("/bad", "/worse", "/typed", "/same")}
    assert types == {"/bad": "application/json", "/worse": "application/json", "/typed": "text/x-y", "/same": None}
    assert 'error_code="ERR_DIRECT_INVOKE"} 3\n' in d.metric_text()


def test_names_of_grpc_do_not_reach_http_apps(daprd, app):
    a = app({"/x": (200, b"", {"X-Y-Bin": "AA==", "Grpc-Thing": "1"})})
    d = daprd(args=[f"--app-port={a.port}"])
    r = d.request("GET", "/v1.0/invoke/app/method/x", headers={"X-Q-Bin": "AA==", "Grpc-Timeout": "1S", "destination-app-id": "q"})
    headers = {k.lower(): v for k, v in a.got[-1][2].items()}
    assert headers["dapr-grpc-timeout"] == "1S" and not {"grpc-timeout", "x-q-bin", "destination-app-id"} & headers.keys()
    assert r.headers["x-y-bin"] is None and r.headers["dapr-grpc-thing"] == "1"


def test_brackets_in_a_path_stay_when_nothing_else_needs_an_escape(daprd, app):
    a = app()
    d = daprd(args=[f"--app-port={a.port}"])
    for path, want in (("/a[b]", "/a[b]"), ("/a[b]%7C", "/a%5Bb%5D%7C")):
        d.request("GET", f"/v1.0/invoke/app/method{path}")
        assert a.got[-1][1] == want


def test_app_ids_differ_by_case(daprd, app):
    a = app()
    d = daprd(app_id="casing", args=[f"--app-port={a.port}"])
    assert d.request("GET", "/v1.0/invoke/casing.other/method/x").status in (200, 500)  # known to the resolver from here on
    r = d.request("GET", "/v1.0/invoke/CASING/method/x")
    assert r.status == 500 and r.json()["errorCode"] == "ERR_DIRECT_INVOKE"


# ---- gRPC ----

def rpc(d, method, md=(), body=b"", timeout=10):
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
        try:
            return "OK", ch.unary_unary(method)(body, metadata=md, timeout=timeout)
        except grpc.RpcError as e:
            return e.code().name, e.details()


def test_a_proxied_call_of_oneself_is_counted_and_needs_an_app(daprd, app):
    a = app()
    d = daprd(args=[f"--app-port={a.port}"])
    assert rpc(d, "/my.Service/Method", [("dapr-app-id", "app")])[0] == "UNAVAILABLE"
    text = d.metric_text()
    assert 'dapr_runtime_service_invocation_req_sent_total{app_id="app",dst_app_id="app",type="unary"} 1' in text
    assert 'dapr_runtime_service_invocation_res_recv_total{app_id="app",src_app_id="app",status="14",type="unary"} 1' in text
    assert rpc(daprd(app_id="alone"), "/my.Service/Method", [("dapr-app-id", "alone")])[0] == "UNAVAILABLE"


def test_services_of_other_ports_are_proxied_names_here(daprd):
    code, text = rpc(daprd(), "/dapr.proto.internals.v1.ServiceInvocation/CallLocal")
    assert code == "UNKNOWN" and "required metadata dapr-callee-app-id or dapr-app-id not found" in text


@pytest.mark.parametrize("method,answer", [
    ("Hello", ("OK", b"")), ("CompleteActivityTask", ("OK", b"")),
    ("StartInstance", ("UNAVAILABLE", "failed to create orchestration instance: api error: code = Unavailable desc = placement service is not configured")),
    ("GetInstance", ("UNAVAILABLE", "placement service is not configured")),
])
def test_the_workflow_service_without_placement(daprd, method, answer):
    assert rpc(daprd(), f"/TaskHubSidecarService/{method}") == answer


# ---- blocks whose control plane is not there: the request is looked at first ----

@pytest.mark.parametrize("method,path,body,status,code,text", [
    ("POST", "/v1.0/actors/t/i/state", "", 400, "ERR_MALFORMED_REQUEST", "EOF"),
    ("POST", "/v1.0/actors/t/i/state", "{}", 400, "ERR_MALFORMED_REQUEST", "json: cannot unmarshal object into Go value of type []api.TransactionalOperation"),
    ("POST", "/v1.0/actors/t/i/state", "[]", 400, "ERR_ACTOR_NO_PLACEMENT", "placement service is not configured"),
    ("POST", "/v1.0/actors/t/i/reminders/r", "{bad", 400, "ERR_MALFORMED_REQUEST", "invalid character 'b' looking for beginning of object key string"),
    ("POST", "/v1.0/actors/t/i/reminders/a%5Cb", "{}", 400, "ERR_BAD_REQUEST", "name contains forbidden character"),
    ("POST", "/v1.0/actors/t/i/timers/r", "{}", 400, "ERR_ACTOR_NO_PLACEMENT", "placement service is not configured"),
    ("POST", "/v1.0/workflows/dapr/i/pause", "[]", 400, "ERR_MALFORMED_REQUEST", ""),
    ("POST", "/v1.0/workflows/dapr/i/pause", "", 400, "ERR_ACTOR_NO_PLACEMENT", ""),
    ("POST", "/v1.0/workflows/dapr/w/start", "[", 400, "ERR_ACTOR_NO_PLACEMENT", ""),
    ("POST", "/v1.0-alpha1/subtlecrypto/c/sign", "[]", 400, "ERR_MALFORMED_REQUEST", ""),
    ("POST", "/v1.0-alpha1/subtlecrypto/c/sign", "{}", 501, "ERR_API_UNIMPLEMENTED", ""),
    ("POST", "/v1.0-alpha1/jobs/j", "", 400, "DAPR_SCHEDULER_SCHEDULE_EMPTY", "Schedule is empty"),
    ("POST", "/v1.0-alpha1/jobs/a%7Cb", "", 400, "DAPR_SCHEDULER_JOB_NAME_EMPTY", "Name is empty"),
    ("GET", "/v1.0-alpha1/jobs/a%7Cb", None, 500, "DAPR_SCHEDULER_GET_JOB", "scheduler clients are disabled"),
])
def test_requests_to_absent_control_planes(daprd, method, path, body, status, code, text):
    r = daprd().request(method, path, body, JSON)
    assert (r.status, r.json()["errorCode"]) == (status, code) and text in r.json()["message"], r.body


# ---- metrics ----

def test_sizes_are_counted_in_front_of_the_filters_and_filters_are_no_components(daprd):
    d = daprd([STORE, component("up", "middleware.http.uppercase")], config=config(httpPipeline={"handlers": [{"name": "up", "type": "middleware.http.uppercase"}]}))
    before = float(re.search(r"dapr_http_server_request_bytes_sum\S* (\S+)", d.metric_text())[1])
    d.request("POST", "/v1.0/state/store", '[{"KEY":"k"}]', JSON)
    text = d.metric_text()
    assert float(re.search(r"dapr_http_server_request_bytes_sum\S* (\S+)", text)[1]) - before == 13
    assert not re.search(r"component_init_total.*middleware", text) and "dapr_runtime_component_loaded" in text


# ---- state ----

def test_seconds_to_live_of_the_in_memory_store(daprd):
    d = daprd([STORE])

    def save(ttl):
        return d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1, "metadata": {"ttlInSeconds": ttl}}], JSON)
    assert save("-2").status == 204 and d.request("GET", "/v1.0/state/store/k").body == b"1"
    assert 'strconv.Atoi: parsing "soon": invalid syntax' in save("soon").json()["message"]


# ---- starting ----

def subscription(version, **spec):
    return json.dumps({"apiVersion": f"dapr.io/{version}", "kind": "Subscription", "metadata": {"name": "s"}, "spec": {"pubsubname": "ps", "topic": 5, **spec}})


@pytest.mark.parametrize("doc,rules", [
    (subscription("v1alpha1", route="/a"), [{"path": "/a"}]), (subscription("v1alpha1", routes={"default": "/a"}), None), (subscription("v2alpha1", route="/a"), None),
    (subscription("v2alpha1", routes={"default": "/a", "rules": [{"match": True, "path": "/b"}]}), [{"match": "true", "path": "/b"}, {"path": "/a"}]),
])
def test_each_version_of_a_subscription_has_its_own_routes(daprd, doc, rules):
    got = daprd([component("ps", "pubsub.in-memory"), doc]).metadata()["subscriptions"]
    assert [s.get("rules") for s in got] == [rules] and got[0]["topic"] == "5"


def test_a_subscription_with_ill_typed_fields_is_left_out(daprd):
    d = daprd([component("ps", "pubsub.in-memory"), subscription("v2alpha1", routes={"default": "/a"}, bulkSubscribe={"enabled": "yes"})])
    assert not d.metadata().get("subscriptions")
    assert "cannot unmarshal string into Go struct field BulkSubscribe.spec.bulkSubscribe.enabled of type bool" in d.log()


def test_of_listen_addresses_given_twice_the_last_ones_count(daprd):
    d = daprd(start=False, args=["--dapr-listen-addresses=192.0.2.1"])
    d.start(healthy=False)
    assert d.wait_exit() == 1 and "could not listen on any endpoint" in d.log()
    d.proc = None


@pytest.mark.parametrize("resource", [component("a", "bogus.bogus"), component("a", "state.bogus"), component("a", "state.sqlite")])
def test_a_start_that_fails_early_exits_with_1(daprd, resource):
    d = daprd([resource], start=False)
    d.start(healthy=False)
    assert d.wait_exit() == 1 and "Fatal error from runtime: process component a error: " in d.log()
    d.proc = None


@pytest.mark.parametrize("type_,text", [
    ("middleware.http.routerchecker", "error creating HTTP middleware middleware.http.routerchecker/v1: failed to compile rule regexp"),
    ("middleware.http.bogus", "HTTP middleware middleware.http.bogus/v1 has not been registered"),
])
def test_a_filter_that_cannot_be_made_ends_the_start(daprd, type_, text):
    d = daprd([component("f", type_, [("rule", "(")])], start=False)
    d.start(healthy=False)
    assert d.wait_exit() == 1
    assert f"[CREATE_COMPONENT_FAILURE]: initialization error occurred for f ({type_}/v1): process component f error: {text}" in d.log()
    d.proc = None


def test_rules_of_metrics_and_endpoints_that_are_wrong_are_left_out(daprd):
    endpoint = {"apiVersion": "dapr.io/v1alpha1", "kind": "HTTPEndpoint", "metadata": {"name": "e"}, "spec": {"baseUrl": "https://127.0.0.1:1"}}
    docs = [json.dumps({**endpoint, "metadata": {"name": n}, "spec": {**endpoint["spec"], "clientTLS": tls}})
            for n, tls in (("e", {"rootCA": {"value": "bad"}}), ("f", {"renegotiation": "bogus"}))]
    d = daprd(docs, config=config(metric={"rules": [{"name": "x", "labels": [{"name": "l", "regex": {"a": "("}}]}]}))
    log = d.log()
    assert "failed to compile regex for rule xl/a: error parsing regexp: missing closing ): `(`" in log
    assert "http endpoint e is left out" in log and "http endpoint f is left out" in log
    for name in "ef":
        assert d.request("GET", f"/v1.0/invoke/{name}/method/x").status == 500


def test_seconds_to_live_of_redis(daprd, redis):
    d = daprd([component("store", "state.redis", [("redisHost", redis.addr)])])

    def save(ttl):
        return d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1, "metadata": {"ttlInSeconds": ttl}}], JSON)
    assert save("99999999999").status == 204 and int(redis.cli("TTL", "app||k")) > 10 ** 9
    assert save("-5").status == 204 and redis.cli("TTL", "app||k") == "-1"
    assert 'failed to parse ttl from metadata: strconv.ParseInt: parsing "soon": invalid syntax' in save("soon").json()["message"]


# ---- apps that speak gRPC ----

PROTO = ROOT / "proto/dapr/proto"


@pytest.fixture
def grpc_app(tmp_path):
    """An app whose OnInvoke answers by method; what came as metadata is in got."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={tmp_path}", str(PROTO / "common/v1/common.proto")],
                   check=True, capture_output=True)
    sys.path.insert(0, str(tmp_path))
    try:
        from dapr.proto.common.v1 import common_pb2 as common
    finally:
        sys.path.remove(str(tmp_path))
    got = []

    def on_invoke(req, ctx):
        request = common.InvokeRequest.FromString(req)
        got.append(dict(ctx.invocation_metadata()))
        if request.method == "bad":
            ctx.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
        answer = common.InvokeResponse()
        answer.data.value = b"plain"
        return answer.SerializeToString()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("dapr.proto.runtime.v1.AppCallback", {
        "OnInvoke": grpc.unary_unary_rpc_method_handler(on_invoke)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, got, common
    server.stop(0)


def test_a_grpc_app_behind_another_sidecar(daprd, grpc_app):
    port, got, common = grpc_app
    daprd(app_id="behind", args=[f"--app-port={port}", "--app-protocol=grpc"])
    d = daprd(app_id="front")
    r = d.request("GET", "/v1.0/invoke/behind/method/x", headers={"X-B-Bin": "AQI="})
    assert (r.status, r.body, r.headers["content-type"]) == (200, b"plain", "text/plain; charset=utf-8") and got[-1]["x-b-bin"] == b"AQI="
    r = d.request("GET", "/v1.0/invoke/behind/method/bad")
    assert (r.status, r.headers["content-type"]) == (400, "text/plain; charset=utf-8") and r.json() == {"code": 9, "message": "no"}
    ask = common.InvokeRequest(method="bad")
    ask.http_extension.verb = 1
    body = b"\x0a\x06behind\x1a" + bytes([len(ask.SerializeToString())]) + ask.SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch, pytest.raises(grpc.RpcError) as e:
        ch.unary_unary("/dapr.proto.runtime.v1.Dapr/InvokeService")(body, timeout=10)
    assert e.value.code() == grpc.StatusCode.FAILED_PRECONDITION and "grpc-status-details-bin" not in dict(e.value.trailing_metadata())


def test_a_trust_domain_has_few_characters_and_numbers_are_text_in_policies(daprd):
    d = daprd(start=False, args=["--control-plane-trust-domain=x y"])
    d.start(healthy=False)
    assert d.wait_exit() == 1 and "invalid control plane trust domain: trust domain characters are limited to" in d.log()
    d.proc = None
    daprd(app_id="numbers", config=config(accessControl={"defaultAction": 5, "policies": [{"appId": 7, "namespace": "default", "trustDomain": "public"}]}))
