"""Publish and subscribe through the sidecar: routes, answers of the app, dead letters, bulks, flow control, streams, the outbox, and
what happens when the app, the plugin or the sidecar goes away with messages in hand."""
import collections, http.server, json, os, pathlib, queue, shutil, signal, subprocess, sys, tempfile, threading, time

import grpc
import pytest

from conftest import ROOT, Web, component, wait_until


class App(Web):
    """An HTTP app. handlers: path -> fn(event, headers) giving (status, body); all that came is in got[path]."""

    def __init__(self, subscriptions=(), handlers=None):
        self.subscriptions, self.handlers = list(subscriptions), handlers or {}
        self.got = collections.defaultdict(list)
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.healthy = True
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if self.path == "/dapr/subscribe":
                    self.answer(200, json.dumps(app.subscriptions).encode())
                else:
                    self.answer(404 if self.path.startswith("/dapr") else 200 if app.healthy else 500, b"")

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                with app.lock:
                    app.running += 1
                    app.most = max(app.most, app.running)
                try:
                    event = json.loads(body) if body else None
                    status, out = app.handlers.get(self.path, lambda e, h: (200, b""))(event, self.headers)
                finally:
                    with app.lock:
                        app.running -= 1
                        app.got[self.path].append(event)
                if status is None:
                    self.close_connection = True
                    self.connection.close()
                else:
                    self.answer(status, out)
        super().__init__(Handler)

    def data(self, path):
        return [e["data"] for e in list(self.got[path])]


@pytest.fixture
def app():
    made = []

    def make(*a, **kw):
        made.append(App(*a, **kw))
        return made[-1]
    yield make
    for a in made:
        a.close()


def status(text):
    return 200, json.dumps({"status": text}).encode()


def memory(*metadata, name="pub"):
    return component(name, "pubsub.in-memory", metadata)


def redis_pub(redis, *metadata):
    return component("pub", "pubsub.redis", [("redisHost", redis.addr), ("processingTimeout", "2s"), ("redeliverInterval", "500ms"), *metadata])


def start(daprd, app, *resources, **kw):
    args = [f"--app-port={app.port}", *kw.pop("args", [])]
    return daprd(resources=resources, args=args, **kw)


def publish(d, topic, data, query="", content_type="application/json"):
    body = data if isinstance(data, (bytes, str)) else json.dumps(data)
    r = d.request("POST", f"/v1.0/publish/pub/{topic}{query}", body, {"content-type": content_type})
    assert r.status == 204, r.body


def declared(version, name, topic, **spec):
    return json.dumps({"apiVersion": f"dapr.io/{version}", "kind": "Subscription", "metadata": {"name": name},
                       "spec": {"pubsubname": "pub", "topic": topic, **spec}})


def test_each_way_to_subscribe_and_who_wins(daprd, app):
    a = app([{"pubsubname": "pub", "topic": "both", "route": "/mine"}, {"pubsubname": "nobody", "topic": "x", "route": "/x"}])
    d = start(daprd, a, memory(), declared("v1alpha1", "one", "first", route="/v1"),
              declared("v2alpha1", "two", "second", routes={"rules": [{"match": 'event.type == "a" && event.data.n > 1', "path": "/a"},
                                                                     {"match": 'event.data.n == 1', "path": "/one"}], "default": "/rest"}),
              declared("v2alpha1", "three", "both", routes={"default": "/not"}))
    publish(d, "first", {"n": 0})
    publish(d, "second", {"n": 2}, "?metadata.cloudevent.type=a")
    publish(d, "second", {"n": 1})
    publish(d, "second", {"n": 5})
    publish(d, "both", {"n": 9})
    for path, n in (("/v1", 0), ("/a", 2), ("/one", 1), ("/rest", 5), ("/mine", 9)):
        wait_until(f"{path} was called", lambda: a.data(path) == [{"n": n}])
    assert not a.got["/not"]
    subs = {(s["topic"], s["type"]) for s in d.metadata()["subscriptions"]}
    assert subs == {("first", "DECLARATIVE"), ("second", "DECLARATIVE"), ("both", "PROGRAMMATIC"), ("x", "PROGRAMMATIC")}


@pytest.mark.parametrize("answer", [status("DROP"), (404, b""), (500, b"x"), status("RETRY"), status("WHAT"), (None, b"")],
                         ids=["drop", "404", "500", "retry", "unknown", "reset"])
def test_what_the_app_does_not_take_goes_to_the_dead_letter_topic(daprd, app, answer):
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t", "deadLetterTopic": "dead"},
             {"pubsubname": "pub", "topic": "dead", "route": "/dead"}], {"/t": lambda e, h: answer})
    d = start(daprd, a, memory())
    publish(d, "t", "one")
    wait_until("the dead letter has come", lambda: len(a.got["/dead"]) == 1)
    assert a.got["/dead"][0]["id"] == a.got["/t"][0]["id"]


@pytest.mark.parametrize("answer", [(200, b""), (204, b""), status("SUCCESS"), (200, b"garbage{"), (200, b'{"status":""}'), (200, b"[1]")])
def test_what_counts_as_taken(daprd, app, answer):
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t", "deadLetterTopic": "dead"},
             {"pubsubname": "pub", "topic": "dead", "route": "/dead"}], {"/t": lambda e, h: answer})
    d = start(daprd, a, memory())
    for i in range(3):
        publish(d, "t", i)
    wait_until("all came", lambda: sorted(a.data("/t")) == [0, 1, 2])
    time.sleep(0.1)
    assert not a.got["/dead"] and len(a.got["/t"]) == 3


def test_events_that_cannot_be_delivered(daprd, app):
    a = app([{"pubsubname": "pub", "topic": "t", "routes": {"rules": [{"match": "event.data.x == 1", "path": "/t"}]}, "deadLetterTopic": "dead"},
             {"pubsubname": "pub", "topic": "raw", "route": "/raw", "metadata": {"rawPayload": "true"}},
             {"pubsubname": "pub", "topic": "dead", "route": "/dead", "metadata": {"rawPayload": "true"}}])
    d = start(daprd, a, memory())
    publish(d, "t", b"no event at all", "?metadata.rawPayload=true")
    wait_until("1", lambda: len(a.got["/dead"]) == 1)
    publish(d, "t", {"x": 2})  # no route
    wait_until("2", lambda: len(a.got["/dead"]) == 2)
    publish(d, "t", "a string")  # the rule cannot be evaluated
    wait_until("3", lambda: len(a.got["/dead"]) == 3)
    publish(d, "t", {"x": 1}, "?metadata.ttlInSeconds=1")
    wait_until("in time", lambda: len(a.got["/t"]) == 1)
    publish(d, "raw", b"\x00\xff", "?metadata.rawPayload=true")
    wait_until("raw bytes came", lambda: a.got["/raw"])
    assert a.got["/raw"][0]["data_base64"] == "AP8=" and a.got["/raw"][0]["source"] == "Dapr"


def test_a_rule_that_does_not_compile_stops_the_start(daprd, app):
    a = app()
    d = start(daprd, a, memory(), declared("v2alpha1", "bad", "t", routes={"rules": [{"match": "event.type ==", "path": "/t"}]}), healthy=False)
    assert d.wait_exit() == 1
    assert "error in Subscription bad" in d.log() and "Syntax error" in d.log()


def test_bulk_subscription_and_bulk_publish(daprd, app, redis):
    def answer(e, h):
        return 200, json.dumps({"statuses": [{"entryId": x["entryId"], "status": "RETRY" if x["event"]["data"] == 7 and tries.append(1) is None and
                                              len(tries) < 2 else "SUCCESS"} for x in e["entries"]]}).encode()
    tries = []
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t",
              "bulkSubscribe": {"enabled": True, "maxMessagesCount": 50, "maxAwaitDurationMs": 200}}], {"/t": answer})
    d = start(daprd, a, redis_pub(redis))
    entries = [{"entryId": str(i), "event": i, "contentType": "application/json"} for i in range(60)]
    assert d.request("POST", "/v1.0/publish/bulk/pub/t", entries, {"content-type": "application/json"}).status == 204

    def seen():
        return [x["event"]["data"] for e in list(a.got["/t"]) for x in e["entries"]]
    wait_until("all came, the failed one twice", lambda: set(seen()) == set(range(60)) and seen().count(7) == 2)
    first = a.got["/t"][0]
    assert first["type"] == "com.dapr.event.sent.bulk" and first["topic"] == "t" and first["pubsubname"] == "pub"
    assert 1 < max(len(e["entries"]) for e in a.got["/t"]) <= 50


def test_flow_control_is_the_same_above_every_broker(daprd, app):
    order, busy, lock = collections.defaultdict(list), collections.Counter(), threading.Lock()
    clash = []

    def ordered(e, h):
        k = e["data"]["k"]
        with lock:
            busy[k] += 1
            if busy[k] > 1:
                clash.append(k)
        time.sleep(0.01)
        with lock:
            busy[k] -= 1
            order[k].append(e["data"]["i"])
        return 200, b""

    def slow(e, h):
        time.sleep(0.05)
        return 200, b""
    a = app([{"pubsubname": "pub", "topic": "few", "route": "/few", "metadata": {"maxConcurrency": "3"}},
             {"pubsubname": "pub", "topic": "lanes", "route": "/lanes", "metadata": {"orderingKey": "data.k", "maxConcurrency": "20"}}],
            {"/few": slow, "/lanes": ordered})
    d = start(daprd, a, memory())
    for i in range(20):
        publish(d, "few", i)
    wait_until("all came", lambda: len(a.got["/few"]) == 20)
    assert a.most == 3
    for i in range(60):
        publish(d, "lanes", {"k": i % 4, "i": i})
    wait_until("all came", lambda: len(a.got["/lanes"]) == 60)
    assert not clash and all(v == sorted(v) for v in order.values())


def test_bodies_that_are_too_large_or_end_early(daprd):
    d = daprd(resources=[memory()])
    r = d.request("POST", "/v1.0/publish/pub/t", b"x" * (5 << 20))
    assert (r.status, r.json()["errorCode"]) == (500, "ERR_PUBSUB_PUBLISH_MESSAGE")
    for body in (b"", b"{", b"[", b"[{\"entryId\":1}]", b"[1]", b"[{\"event\":1,\"contentType\":\"application/json\"}]",
                 b"[{\"entryId\":\"1\",\"event\":\"%\",\"contentType\":\"application/octet-stream\"}]", b"[{\"entryId\":\"1\",\"event\":1}]"):
        r = d.request("POST", "/v1.0/publish/bulk/pub/t", body)
        assert (r.status, r.json()["errorCode"]) == (400, "ERR_PUBSUB_EVENTS_SER"), body


def test_scopes_and_namespaced_topics(daprd, app):
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t"}, {"pubsubname": "closed", "topic": "t", "route": "/no"}])
    d = start(daprd, a, memory(("consumerID", "{namespace}")), memory(("subscriptionScopes", "app=u"), ("publishingScopes", "app=u"), name="closed"))
    publish(d, "t", 1)
    wait_until("came", lambda: a.data("/t") == [1])
    assert a.got["/t"][0]["topic"] == "t"
    r = d.request("POST", "/v1.0/publish/closed/t", "1")
    assert (r.status, r.json()["message"]) == (403, "topic t is not allowed for app id app")
    assert "subscription to topic 't' on pubsub 'closed' is not allowed" in d.log()


def test_every_message_comes_although_the_plugin_is_killed(daprd, app, redis):
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t", "deadLetterTopic": "dead"}, {"pubsubname": "pub", "topic": "dead", "route": "/dead"}])
    d = start(daprd, a, redis_pub(redis))
    sent = []
    for i in range(600):
        r = d.request("POST", "/v1.0/publish/pub/t", str(i), {"content-type": "application/json"})
        if r.status == 204:
            sent.append(i)
        if i % 150 == 75:
            for pid, exe in d.children().items():
                if exe == "pubsub.redis":
                    os.kill(pid, signal.SIGKILL)
    wait_until("all came", lambda: set(sent) <= set(a.data("/t")), 60)
    assert len(sent) > 500 and not a.got["/dead"]


def test_a_stop_finishes_what_the_app_has_and_hands_back_the_rest(daprd, app, redis):
    release = threading.Event()

    def hold(e, h):
        release.wait(10)
        return 200, b""
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t", "deadLetterTopic": "dead", "metadata": {"maxConcurrency": "2"}},
             {"pubsubname": "pub", "topic": "dead", "route": "/dead"}], {"/t": hold})
    d = start(daprd, a, redis_pub(redis))
    for i in range(10):
        publish(d, "t", i)
    wait_until("two are in the app's hands", lambda: a.running == 2)
    d.proc.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert d.proc.poll() is None
    release.set()
    assert d.wait_exit() == 0
    seen = list(a.data("/t"))
    d.start()
    wait_until("the others come to the next one", lambda: set(a.data("/t")) == set(range(10)), 30)
    assert not a.got["/dead"] and collections.Counter(a.data("/t"))[seen[0]] == 1


def test_an_unhealthy_app_gets_nothing_and_loses_nothing(daprd, app, redis):
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t"}])
    d = start(daprd, a, redis_pub(redis), args=["--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-threshold=1",
                                                 "--app-health-check-path=/healthz"])
    wait_until("subscribed", lambda: d.metadata().get("subscriptions"))
    publish(d, "t", 1)
    wait_until("came", lambda: a.data("/t") == [1])
    a.healthy = False
    wait_until("unhealthy", lambda: "un-healthy" in d.log() or "unhealthy" in d.log())
    time.sleep(0.5)
    publish(d, "t", 2)
    time.sleep(0.3)
    assert a.data("/t") == [1]
    a.healthy = True
    wait_until("came to the app that is well again", lambda: a.data("/t") == [1, 2], 30)


def stream(d):
    from dapr.proto import api_service_v1, api_v1
    out = queue.Queue()
    channel = grpc.insecure_channel(f"127.0.0.1:{d.grpc}")
    call = api_service_v1.DaprStub(channel).SubscribeTopicEventsAlpha1(iter(out.get, None))
    return api_v1, out, call, channel


def test_streams_of_one_connection(daprd):
    d = daprd(resources=[memory()])
    api, out, call, channel = stream(d)
    out.put(api.SubscribeTopicEventsRequestAlpha1(initial_request=api.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name="pub", topic="t")))
    assert next(call).WhichOneof("subscribe_topic_events_response_type") == "initial_response"
    assert [s["type"] for s in d.metadata()["subscriptions"]] == ["STREAMING"]
    for i in range(50):
        publish(d, "t", i)
    seen = []
    for _ in range(50):
        e = next(call).event_message
        seen.append(json.loads(e.data))
        out.put(api.SubscribeTopicEventsRequestAlpha1(event_processed=api.SubscribeTopicEventsRequestProcessedAlpha1(
            id=e.id, status=api.TopicEventResponse(status=0))))
    assert sorted(seen) == list(range(50))
    out.put(None)  # the client says that it has said all: no success
    with pytest.raises(grpc.RpcError) as e:
        next(call)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.UNKNOWN, "EOF")
    wait_until("the subscription is gone", lambda: "subscriptions" not in d.metadata())
    channel.close()


@pytest.mark.parametrize("first, text", [({}, "initial request is required"), ({"topic": "t"}, "pubsubName is required"),
                                         ({"pubsub_name": "pub"}, "topic is required"),
                                         ({"pubsub_name": "none", "topic": "t"}, "pubsub none is not found")])
def test_streams_that_begin_wrong(daprd, first, text):
    d = daprd(resources=[memory()])
    api, out, call, channel = stream(d)
    out.put(api.SubscribeTopicEventsRequestAlpha1(initial_request=api.SubscribeTopicEventsRequestInitialAlpha1(**first)) if first else
            api.SubscribeTopicEventsRequestAlpha1())
    with pytest.raises(grpc.RpcError) as e:
        next(call)
    assert e.value.details() == text
    channel.close()


def test_the_outbox_publishes_what_was_committed(daprd, app):
    a = app([{"pubsubname": "pub", "topic": "orders", "route": "/orders"}])
    d = start(daprd, a, memory(), component("store", "state.in-memory", [("outboxPublishPubsub", "pub"), ("outboxPublishTopic", "orders")]))
    ops = [{"operation": "upsert", "request": {"key": "1", "value": "kept", "metadata": {"cloudevent.type": "x", "myattr": "y"}}},
           {"operation": "upsert", "request": {"key": "1", "value": "told", "metadata": {"outbox.projection": "true"}}},
           {"operation": "upsert", "request": {"key": "2", "value": {"a": 1}, "contentType": "application/json"}},
           {"operation": "delete", "request": {"key": "3"}}]
    assert d.request("POST", "/v1.0/state/store/transaction", {"operations": ops}).status == 204
    wait_until("both events came", lambda: len(a.got["/orders"]) == 2)
    events = {json.dumps(e["data"]): e for e in a.got["/orders"]}
    assert set(events) == {'"told"', '{"a": 1}'}
    assert events['"told"']["myattr"] == "y" and events['"told"']["id"].startswith("outbox-") and events['"told"']["topic"] == "orders"
    assert d.request("GET", "/v1.0/state/store/1").json() == "kept"


@pytest.fixture
def broker():
    """Starts an existing pluggable broker: broker() -> its process; broker.env is for daprd."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    protos, running = ROOT / "build/pyproto", []
    protos.mkdir(parents=True, exist_ok=True)
    files = [str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto/dapr/proto/components/v1").glob("*.proto")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={protos}", f"--grpc_python_out={protos}",
                    *files, "dapr/proto/common/v1/common.proto"], check=True)
    for d in [protos / "dapr", *(protos / "dapr").rglob("*/")]:
        (d / "__init__.py").touch()

    def run():
        p = subprocess.Popen([sys.executable, str(pathlib.Path(__file__).parent / "pluggable_broker.py"), str(folder / "pybroker.sock"), str(protos)],
                             stdout=subprocess.PIPE, text=True)
        running.append(p)
        assert p.stdout.readline() == "ready\n"
        return p
    run.env = {"DAPR_COMPONENTS_SOCKETS_FOLDER": str(folder)}
    yield run
    for p in running:
        p.kill()
        p.wait()
        p.stdout.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_an_existing_broker(daprd, app, broker):
    tries = collections.Counter()

    def second_time(e, h):
        tries[e["data"]] += 1
        return (500, b"") if tries[e["data"]] == 1 else (200, b"")
    broker()
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t"}], {"/t": second_time})
    d = start(daprd, a, component("pub", "pubsub.pybroker"), env=broker.env)
    publish(d, "t", "one", content_type="text/plain")
    wait_until("refused once, taken the second time", lambda: a.data("/t") == ["one", "one"])
    r = d.request("POST", "/v1.0/publish/pub/refused", "x")
    assert (r.status, r.json()["message"]) == (
        500, "error when publishing to topic refused in pubsub pub: rpc error: code = ResourceExhausted desc = too much")
    assert d.request("POST", "/v1.0/publish/pub/metadata", "x").status == 204
    wait_until("the consumer's default is the app", lambda: "app" in a.data("/t"))
    assert d.metadata()["components"][0]["capabilities"] == ["MESSAGE_TTL"]


def test_an_existing_broker_comes_late_and_again(daprd, app, broker):
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t"}])
    d = start(daprd, a, component("pub", "pubsub.pybroker", ignoreErrors=True), env=broker.env)
    assert d.request("POST", "/v1.0/publish/pub/t", "x").status == 404
    p = broker()
    wait_until("it takes messages", lambda: d.request("POST", "/v1.0/publish/pub/t", "1", {"content-type": "application/json"}).status == 204)
    wait_until("the app gets them", lambda: 1 in a.data("/t"))
    p.kill()
    p.wait()
    broker()
    wait_until("it takes messages again", lambda: d.request("POST", "/v1.0/publish/pub/t", "2", {"content-type": "application/json"}).status == 204)
    wait_until("the app gets them again", lambda: 2 in a.data("/t"))
