"""Configuration over HTTP, gRPC and the official Python SDK, on a real Redis server: reading, subscriptions, faults."""
import http.server, json, os, queue, signal, threading, time

import grpc, pytest
from dapr.clients import DaprClient
from dapr.conf import settings
from dapr.proto import api_service_v1, api_v1

from conftest import Web, component, free_port, wait_until

STORE = "/v1.0/configuration/cfg"


def config_store(redis, name="cfg", *metadata):
    return component(name, "configuration.redis", [("redisHost", redis.addr), *metadata])


class App(Web):
    """An HTTP app that takes configuration updates; got: (path, body) in order."""

    def __init__(self):
        self.got, self.status, self.gate = [], 200, threading.Event()
        self.gate.set()
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def answer(self, status):
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self):
                self.answer(404)

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                app.got.append((self.path, json.loads(body), self.headers["content-type"]))
                app.gate.wait(20)
                self.answer(app.status)
        super().__init__(Handler)

    def last(self, path):
        return next((b for p, b, _ in reversed(self.got) if p == path), None)

    def items(self, path):
        return (self.last(path) or {}).get("items")

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def app():
    a = App()
    yield a
    a.close()


@pytest.fixture
def sidecar(daprd, redis, app):
    return daprd([config_store(redis)], args=[f"--app-port={app.port}"])


def stub(d):
    return api_service_v1.DaprStub(grpc.insecure_channel(f"127.0.0.1:{d.grpc}"))


def listening(redis, channel=None, n=1):
    """Waits for the server to know the subscription: an HTTP caller is told its id, but cannot see the server."""
    channel = f"__keyspace@0__:{channel}"
    words = ["PUBSUB", "NUMPAT"] if channel.endswith(":None") else ["PUBSUB", "NUMSUB", channel]
    wait_until("the server is listened to", lambda: redis.cli(*words).split()[-1] == str(n))


def items(m):
    return {k: (v.value, v.version) for k, v in m.items.items()}


class Watch:
    """A gRPC subscription; updates come into `got`."""

    def __init__(self, d, keys, method="SubscribeConfiguration", store="cfg"):
        self.got, self.error, self.ended = queue.Queue(), None, threading.Event()
        self.call = getattr(stub(d), method)(api_v1.SubscribeConfigurationRequest(store_name=store, keys=keys))
        first = next(self.call)
        assert not first.items
        self.id = first.id
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            for m in self.call:
                self.got.put((m.id, items(m)))
        except grpc.RpcError as e:
            self.error = e
        self.ended.set()

    def until(self, want, limit=10):
        end = time.monotonic() + limit
        seen = []
        while time.monotonic() < end:
            try:
                id, m = self.got.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                break
            assert id == self.id
            seen.append(m)
            if m == want:
                return seen
        raise AssertionError(f"{want} did not come, but {seen}")


# ---- reading ----

def test_reading_items_over_http(daprd, redis):
    d = daprd([config_store(redis)])
    for k, v in {"a": "1||v1", "b": "two", "c": "3||v||x", "empty": "", "bars": "||v", "html": "<&>"}.items():
        redis.cli("SET", k, v)
    redis.cli("LPUSH", "list", "x")
    for version in ["v1.0", "v1.0-alpha1"]:
        r = d.request("GET", f"/{version}/configuration/cfg?key=a&key=b&key=absent&key=list&key=empty&key=bars&key=a")
        assert r.status == 200 and r.json() == {"a": {"value": "1", "version": "v1"}, "b": {"value": "two"}}
    assert d.request("GET", f"{STORE}?key=c").body == b'{"c":{"value":"3","version":"v"}}\n'
    assert d.request("GET", f"{STORE}?key=html").body == b'{"html":{"value":"\\u003c\\u0026\\u003e"}}\n'
    r = d.request("GET", f"{STORE}?key=absent")
    assert r.status == 204 and r.body == b""
    assert set(d.request("GET", STORE).json()) == {"a", "b", "c", "html"}


def test_reading_thousands_of_items(daprd, redis):
    d = daprd([config_store(redis)])
    want = {f"key{i}": {"value": f"v{i}", "version": str(i)} for i in range(3000)}
    for at in range(0, 3000, 500):
        redis.cli("MSET", *[x for i in range(at, at + 500) for x in (f"key{i}", f"v{i}||{i}")])
    assert d.request("GET", STORE).json() == want
    assert d.request("GET", STORE + "?" + "&".join(f"key=key{i}" for i in range(700))).json() == {f"key{i}": want[f"key{i}"] for i in range(700)}


def test_reading_items_over_grpc(daprd, redis):
    d = daprd([config_store(redis)])
    redis.cli("MSET", "a", "1||v1", "b", "two")
    for method in [stub(d).GetConfiguration, stub(d).GetConfigurationAlpha1]:
        assert items(method(api_v1.GetConfigurationRequest(store_name="cfg", keys=["a", "none"]))) == {"a": ("1", "v1")}
        assert items(method(api_v1.GetConfigurationRequest(store_name="cfg"))) == {"a": ("1", "v1"), "b": ("two", "")}
    line = next(x for x in d.metric_text().splitlines() if x.startswith("dapr_component_configuration_count{"))
    assert line.endswith(" 4") and 'component="cfg"' in line and 'operation="get"' in line and 'success="true"' in line


def test_another_database(daprd, redis, app):
    d = daprd([config_store(redis, "cfg", ("redisDB", "3"))], args=[f"--app-port={app.port}"])
    redis.cli("-n", "3", "SET", "a", "1")
    assert d.request("GET", STORE).json() == {"a": {"value": "1"}}
    assert d.request("GET", f"{STORE}/subscribe?key=a").status == 200
    wait_until("the server is listened to", lambda: redis.cli("PUBSUB", "NUMSUB", "__keyspace@3__:a").split()[-1] == "1")
    redis.cli("SET", "a", "other database")
    redis.cli("-n", "3", "SET", "a", "2")
    wait_until("the update", lambda: app.items("/configuration/cfg/a") == {"a": {"value": "2"}})
    assert all(b["items"] == {"a": {"value": "2"}} for _, b, _ in app.got)


# ---- what is refused ----

def test_errors(daprd, sidecar):
    bare = daprd()
    for path in ["x", "x/subscribe", "x/y/unsubscribe"]:
        r = bare.request("GET", f"/v1.0/configuration/{path}")
        assert (r.status, r.json()) == (500, {"errorCode": "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "message": "configuration stores not configured"})
        r = sidecar.request("GET", f"/v1.0/configuration/{path}")
        assert (r.status, r.json()) == (400, {"errorCode": "ERR_CONFIGURATION_STORE_NOT_FOUND", "message": "configuration store x not found"})
    for d, code in [(bare, grpc.StatusCode.FAILED_PRECONDITION), (sidecar, grpc.StatusCode.INVALID_ARGUMENT)]:
        with pytest.raises(grpc.RpcError) as e:
            stub(d).GetConfiguration(api_v1.GetConfigurationRequest(store_name="x"))
        assert e.value.code() == code
        with pytest.raises(grpc.RpcError) as e:
            next(stub(d).SubscribeConfiguration(api_v1.SubscribeConfigurationRequest(store_name="x")))
        assert e.value.code() == code
    r = stub(sidecar).UnsubscribeConfiguration(api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id="none"))
    assert not r.ok and r.message == "failed to unsubscribe to configuration request none: subscription does not exist"
    r = sidecar.request("GET", f"{STORE}/none/unsubscribe")
    assert r.status == 500 and r.json() == {
        "message": "failed to unsubscribe to configuration request none: subscription with id none does not exist"}


def test_http_subscriptions_need_an_app(daprd, redis):
    r = daprd([config_store(redis)]).request("GET", f"{STORE}/subscribe?key=a")
    assert (r.status, r.json()) == (500, {"errorCode": "ERR_APP_CHANNEL_NIL",
                                          "message": "app channel is not initialized. cannot subscribe to configuration updates"})


# ---- subscriptions ----

def test_changes_are_pushed_to_an_http_app(sidecar, redis, app):
    r = sidecar.request("GET", f"{STORE}/subscribe?key=a&key=b%20c")
    assert r.status == 200 and set(r.json()) == {"id"}
    id = r.json()["id"]
    listening(redis, "a")
    listening(redis, "b c")
    redis.cli("SET", "a", "1||v1")
    wait_until("a", lambda: app.last("/configuration/cfg/a") == {"id": id, "items": {"a": {"value": "1", "version": "v1"}}})
    redis.cli("SET", "b c", "2")
    wait_until("b c", lambda: app.last("/configuration/cfg/b%20c") == {"id": id, "items": {"b c": {"value": "2"}}})
    redis.cli("DEL", "a")
    wait_until("the end of a", lambda: app.last("/configuration/cfg/a") == {"id": id, "items": {"a": {}}})
    sidecar.request("GET", f"{STORE}/subscribe?key=x%2Fy%3Az")
    listening(redis, "x/y:z")
    redis.cli("SET", "x/y:z", "3")
    wait_until("a key with slashes", lambda: app.items("/configuration/cfg/x/y:z") == {"x/y:z": {"value": "3"}})
    redis.cli("SET", "other", "x")
    assert all(t.startswith("application/json") for _, _, t in app.got)
    assert sidecar.request("GET", f"{STORE}/{id}/unsubscribe").json() == {"ok": True}
    n = len(app.got)
    assert sidecar.request("GET", f"{STORE}/{id}/unsubscribe").status == 500
    w = Watch(sidecar, ["a"])
    redis.cli("SET", "a", "late")
    w.until({"a": ("late", "")})
    assert len(app.got) == n and not app.last("/configuration/cfg/other")


def test_all_keys_over_http(sidecar, redis, app):
    id = sidecar.request("GET", "/v1.0-alpha1/configuration/cfg/subscribe").json()["id"]
    listening(redis)
    redis.cli("MSET", "x", "1", "y", "2||v")
    wait_until("both", lambda: {p for p, _, _ in app.got} == {"/configuration/cfg/x", "/configuration/cfg/y"})
    assert app.last("/configuration/cfg/y") == {"id": id, "items": {"y": {"value": "2", "version": "v"}}}


def test_an_app_that_fails_gets_the_next_change(sidecar, redis, app):
    app.status = 500
    sidecar.request("GET", f"{STORE}/subscribe?key=a")
    listening(redis, "a")
    redis.cli("SET", "a", "1")
    wait_until("the line in the log", lambda: "error sending configuration item to the app: error sending configuration item to "
                                              "application, status 500" in sidecar.log())
    app.status = 200
    redis.cli("SET", "a", "2")
    wait_until("the next", lambda: app.items("/configuration/cfg/a") == {"a": {"value": "2"}})


def test_a_grpc_stream_tells_changes_until_it_is_left(sidecar, redis):
    one, alpha, everything = Watch(sidecar, ["a"]), Watch(sidecar, ["b", "a"], "SubscribeConfigurationAlpha1"), Watch(sidecar, [])
    assert len({one.id, alpha.id, everything.id}) == 3
    redis.cli("SET", "a", "1||v")
    for w in (one, alpha, everything):
        w.until({"a": ("1", "v")})
    redis.cli("SET", "b", "2")
    for w in (alpha, everything):
        w.until({"b": ("2", "")})
    redis.cli("DEL", "b")
    alpha.until({"b": ("", "")})
    one.call.cancel()
    assert one.ended.wait(5) and one.got.empty()
    redis.cli("SET", "a", "3")
    alpha.until({"a": ("3", "")})
    listening(redis, "a")  # by one


def test_unsubscribe_ends_the_grpc_stream(sidecar, redis):
    w = Watch(sidecar, ["a"])
    r = stub(sidecar).UnsubscribeConfiguration(api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id=w.id))
    assert r.ok and not r.message
    assert w.ended.wait(5) and w.error is None
    assert not stub(sidecar).UnsubscribeConfigurationAlpha1(api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id=w.id)).ok


def test_the_python_sdk(sidecar, redis):
    redis.cli("MSET", "a", "1||v1", "b", "2")
    settings.DAPR_HTTP_PORT = sidecar.http
    got = []
    with DaprClient(f"127.0.0.1:{sidecar.grpc}") as c:
        r = c.get_configuration("cfg", ["a", "b"])
        assert {k: (v.value, v.version) for k, v in r.items.items()} == {"a": ("1", "v1"), "b": ("2", "")}
        id = c.subscribe_configuration("cfg", ["a"], lambda id, resp: got.append((id, {k: v.value for k, v in resp.items.items()})))
        redis.cli("SET", "a", "new||v2")
        wait_until("the handler is called", lambda: (id, {"a": "new"}) in got)
        assert c.unsubscribe_configuration("cfg", id)


# ---- faults ----

def test_a_restarted_plugin_follows_on(sidecar, redis, app):
    id = sidecar.request("GET", f"{STORE}/subscribe?key=a").json()["id"]
    w = Watch(sidecar, ["a"])
    pid = next(p for p, name in sidecar.children().items() if name == "configuration.redis")
    os.kill(pid, signal.SIGKILL)
    listening(redis, "a", 2)
    redis.cli("SET", "a", "after")
    w.until({"a": ("after", "")})
    wait_until("the push", lambda: app.last("/configuration/cfg/a") == {"id": id, "items": {"a": {"value": "after"}}})


def test_a_restarted_server_is_followed_and_nothing_is_missed(sidecar, redis):
    w = Watch(sidecar, ["a"])
    redis.kill()
    r = sidecar.request("GET", f"{STORE}?key=a")
    assert r.status == 500 and r.json()["errorCode"] == "ERR_CONFIGURATION_GET"
    assert r.json()["message"].startswith("failed to get [a] from Configuration store cfg: ")
    redis.start()
    redis.cli("SET", "a", "meanwhile")
    w.until({"a": ("meanwhile", "")})
    redis.cli("SET", "a", "later")
    w.until({"a": ("later", "")})


def test_a_slow_app_gets_the_latest_value(sidecar, redis, app):
    sidecar.request("GET", f"{STORE}/subscribe")
    listening(redis)
    app.gate.clear()
    for i in range(300):
        redis.cli("SET", "a", str(i))
    app.gate.set()
    wait_until("the last value", lambda: app.items("/configuration/cfg/a") == {"a": {"value": "299"}})


def test_the_stop_ends_open_streams(daprd, redis):
    d = daprd([config_store(redis)])
    w = Watch(d, ["a"])
    began = time.monotonic()
    d.close()
    d.proc = None
    assert w.ended.wait(5) and time.monotonic() - began < 4


def test_settings_of_others_stay(daprd, redis):
    redis.cli("CONFIG", "SET", "notify-keyspace-events", "KEh")
    d = daprd([config_store(redis)])
    Watch(d, ["a"])
    flags = redis.cli("CONFIG", "GET", "notify-keyspace-events").split("\n")[-1]
    assert set("KEhg$xe") <= set(flags)


def test_changes_reach_a_grpc_app_as_invocations(daprd, redis):
    from concurrent import futures
    from dapr.proto import appcallback_service_v1, common_v1
    from google.protobuf import empty_pb2
    from dapr.proto.runtime.v1 import appcallback_pb2
    got = []

    class Servicer(appcallback_service_v1.AppCallbackServicer):
        def OnInvoke(self, request, context):
            got.append((request.method, request.content_type, json.loads(request.data.value)))
            return common_v1.InvokeResponse()

        def ListTopicSubscriptions(self, request, context):
            return appcallback_pb2.ListTopicSubscriptionsResponse()

        def ListInputBindings(self, request, context):
            return appcallback_pb2.ListInputBindingsResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    appcallback_service_v1.add_AppCallbackServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        d = daprd([config_store(redis)], args=[f"--app-port={port}", "--app-protocol=grpc"])
        id = d.request("GET", f"{STORE}/subscribe?key=a%20b").json()["id"]
        listening(redis, "a b")
        redis.cli("SET", "a b", "1||v")
        wait_until("the invocation", lambda: got)
        assert got == [("/configuration/cfg/a b", "application/json", {"id": id, "items": {"a b": {"value": "1", "version": "v"}}})]
    finally:
        server.stop(None)
