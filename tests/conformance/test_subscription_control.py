"""Subscriptions paused and resumed by daprctl, above every broker; bulks in one call; a broker that does not confirm a subscription."""
import json, os, signal, socket, subprocess, threading, time

import pytest

from conftest import BUILD, component, free_port, wait_until
from test_bindings import App, app  # noqa: F401

JSON = {"content-type": "application/json"}


def ctl(*args):
    return subprocess.run([str(BUILD / "bin/daprctl"), "subscription", *args], capture_output=True, text=True, timeout=30, env={**os.environ, "NO_COLOR": "1"})


def rows(app_id):
    r = ctl("list", "--app-id", app_id, "-o", "json")
    assert r.returncode == 0, r.stderr
    return {x["subscription"]["topic"]: x["subscription"] for x in json.loads(r.stdout)}


def subscription(topic, pubsub="b", **spec):
    return json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "s-" + topic.replace("/", "-").replace(" ", "-")},
                       "spec": {"pubsubname": pubsub, "topic": topic, "routes": {"default": "/take"}, **spec}})


def broker_component(request, kind):
    if kind == "in-memory":
        return component("b", "pubsub.in-memory")
    if kind == "redis":
        return component("b", "pubsub.redis", [("redisHost", request.getfixturevalue("redis").addr), ("processingTimeout", "1s"), ("redeliverInterval", "200ms")])
    if kind == "mqtt3":
        return component("b", "pubsub.mqtt3", [("url", request.getfixturevalue("mosquitto").url()), ("consumerID", "app")])
    if kind == "rabbitmq":
        return component("b", "pubsub.rabbitmq", list(request.getfixturevalue("rabbitmq").settings(consumerID=f"c{os.urandom(4).hex()}").items()))
    n = request.getfixturevalue("nats")
    n.stream("CONTROL", "orders", "other")
    request.addfinalizer(lambda: n.delete("CONTROL"))
    return component("b", "pubsub.jetstream", [("natsURL", n.url), ("durableName", "x"), ("concurrency", "parallel"), ("ackWait", "1s")])


class Sidecar:
    def __init__(self, daprd, app, broker, *more, app_id="paused", **spec):
        self.app = app({"OPTIONS /take": (200, {}, b"")})
        self.id = f"{app_id}{os.getpid()}"
        self.d = daprd([broker, subscription("orders", **spec), *more], app_id=self.id, args=[f"--app-port={self.app.port}"])
        wait_until("the subscription is active", lambda: rows(self.id).get("orders", {}).get("state") == "active")

    def publish(self, *data):
        for x in data:
            assert self.d.request("POST", "/v1.0/publish/b/orders", json.dumps(x), JSON).status == 204

    def got(self):
        return [json.loads(c.body)["data"] for c in self.app.of("/take")]


@pytest.mark.parametrize("kind", ["in-memory", "redis", "mqtt3", "rabbitmq", "jetstream"])
def test_a_paused_subscription_gets_nothing_until_it_is_resumed(daprd, app, request, kind):
    s = Sidecar(daprd, app, broker_component(request, kind))
    s.publish("before")
    wait_until("it has come", lambda: s.got() == ["before"])
    r = ctl("pause", "b", "orders", "--app-id", s.id)
    assert r.returncode == 0 and "Paused topic orders of b" in r.stdout + r.stderr
    assert rows(s.id)["orders"]["state"] == "paused"
    s.publish(*range(20))
    if kind != "in-memory":  # which keeps nothing for a process that is gone
        pid = next(p for p, n in s.d.children().items() if n == f"pubsub.{kind}")
        os.kill(pid, signal.SIGKILL)
        wait_until("a new process serves it", lambda: pid not in s.d.children() and s.d.request(
            "POST", "/v1.0/publish/b/orders", '"after"', JSON).status == 204)
    time.sleep(0.5)
    assert s.got() == ["before"] and rows(s.id)["orders"]["state"] == "paused"
    assert ctl("resume", "b", "orders", "--app-id", s.id).returncode == 0
    wait_until("all have come", lambda: set(range(20)) <= set(s.got()), 40)
    wait_until("it is active", lambda: rows(s.id)["orders"]["state"] == "active")


def test_a_bulk_subscription_and_all_of_an_app(daprd, app, redis):
    broker = component("b", "pubsub.redis", [("redisHost", redis.addr)])
    s = Sidecar(daprd, app, broker, app_id="bulk", bulkSubscribe={"enabled": True, "maxMessagesCount": 10, "maxAwaitDurationMs": 50})
    bodies = lambda: [e["event"]["data"] for c in s.app.of("/take") for e in json.loads(c.body)["entries"]]
    s.app.answers["/take"] = lambda call: (200, {}, json.dumps({"statuses": [
        {"entryId": e["entryId"], "status": "SUCCESS"} for e in json.loads(call.body)["entries"]]}).encode())
    assert ctl("pause", "--all", "--app-id", s.id).returncode == 0
    s.publish(*range(30))
    time.sleep(0.4)
    assert not s.app.of("/take")
    assert ctl("resume", "--all", "--app-id", s.id).returncode == 0
    wait_until("all have come", lambda: set(bodies()) == set(range(30)))


def test_a_pause_outlives_the_apps_illness_and_ends_with_the_sidecar(daprd, app, redis):
    a = app({"OPTIONS /take": (200, {}, b""), "/health": (200, {}, b"")})
    app_id = f"ill{os.getpid()}"
    broker = component("b", "pubsub.redis", [("redisHost", redis.addr)])
    d = daprd([broker, subscription("orders")], app_id=app_id,
              args=[f"--app-port={a.port}", "--enable-app-health-check", "--app-health-check-path=/health", "--app-health-probe-interval=1",
                    "--app-health-probe-timeout=200", "--app-health-threshold=1"])
    wait_until("the subscription is active", lambda: rows(app_id).get("orders", {}).get("state") == "active")
    assert ctl("pause", "b", "orders", "--app-id", app_id).returncode == 0
    a.answers["/health"] = (500, {}, b"")
    wait_until("the app is ill", lambda: not rows(app_id))
    a.answers["/health"] = (200, {}, b"")
    wait_until("it is well again", lambda: rows(app_id).get("orders", {}).get("state") == "paused")
    assert d.request("POST", "/v1.0/publish/b/orders", '"x"', JSON).status == 204
    d.close()
    assert not a.of("/take")
    d = daprd([broker, subscription("orders")], app_id=app_id, args=[f"--app-port={a.port}"])
    wait_until("what waited comes", lambda: a.of("/take"))


def test_what_daprctl_says(daprd, app, redis):
    s = Sidecar(daprd, app, component("b", "pubsub.redis", [("redisHost", redis.addr)]), subscription("a/b c"), app_id="says")
    wait_until("both are active", lambda: all(x["state"] == "active" for x in rows(s.id).values()) and len(rows(s.id)) == 2)
    r = ctl("list", "--app-id", s.id)
    assert r.returncode == 0 and "orders" in r.stdout and "declarative" in r.stdout and "s-orders" in r.stdout and "active" in r.stdout
    assert ctl("pause", "b", "a/b c", "--app-id", s.id).returncode == 0
    assert {t: x["state"] for t, x in rows(s.id).items()} == {"orders": "active", "a/b c": "paused"}
    for args, text in ((("pause", "b", "none", "--app-id", s.id), "no such subscription runs"), (("pause", "b", "--app-id", s.id), "Say which subscription"),
                       (("resume", "b", "orders"), "Say which subscription"), (("list", "--app-id", "nobody"), "couldn't find app id nobody"),
                       (("stop",), "unknown command")):
        r = ctl(*args)
        assert r.returncode == 1 and text in r.stdout + r.stderr, (args, r)
    assert "pause" in ctl("--help").stdout


@pytest.mark.parametrize("kind", ["in-memory", "redis", "mqtt3", "rabbitmq", "jetstream"])
def test_a_bulk_goes_to_every_plugin_in_one_call(daprd, app, request, kind):
    s = Sidecar(daprd, app, broker_component(request, kind), app_id="many")
    entries = [{"entryId": str(i), "event": f"m{i}", "contentType": "text/plain"} for i in range(150)]
    if kind == "mqtt3":
        entries[7]["metadata"] = {"retain": "perhaps"}
    r = s.d.request("POST", "/v1.0-alpha1/publish/bulk/b/orders", entries, JSON)
    if kind == "mqtt3":  # one that the broker's plugin refuses does not hold up the others
        assert r.status == 500 and [e["entryId"] for e in r.json()["failedEntries"]] == ["7"] and "invalid retain perhaps" in r.body.decode()
    else:
        assert r.status == 204, r.body
    want = {f"m{i}" for i in range(150)} - ({"m7"} if kind == "mqtt3" else set())
    wait_until("all have come", lambda: set(s.got()) == want)


class Proxy:
    """TCP in front of a server; while it holds, new connections are taken and nothing goes through them."""

    def __init__(self, port):
        self.to, self.hold, self.open = port, False, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(c)
            if not self.hold:
                s = socket.create_connection(("127.0.0.1", self.to))
                self.open.append(s)
                for a, b in ((c, s), (s, c)):
                    threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for x in (a, b):
            try:
                x.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        for c in self.open:
            c.close()


def test_a_subscription_that_the_broker_does_not_confirm_is_tried_again(daprd, app, nats):
    nats.stream("SILENT", "orders")
    proxy = Proxy(nats.port)
    a = app({"OPTIONS /take": (200, {}, b"")})
    try:
        d = daprd([component("b", "pubsub.jetstream", [("natsURL", f"nats://127.0.0.1:{proxy.port}")]),
                   subscription("orders", metadata={"subscribeTimeout": "500ms"})], start=False)
        d.argv.append(f"--app-port={a.port}")
        gate = threading.Event()
        a.answers["GET /dapr/config"] = lambda call: (setattr(proxy, "hold", True), gate.wait(0), (404, {}, b""))[-1]  # init has connected by now
        d.start()
        wait_until("it says so", lambda: "the broker has not confirmed the subscription within 0.5s" in d.log())
        proxy.hold = False
        wait_until("it is subscribed after all", lambda: d.request("POST", "/v1.0/publish/b/orders", '"x"', JSON).status == 204 and a.of("/take"))
    finally:
        proxy.close()
        nats.delete("SILENT")
