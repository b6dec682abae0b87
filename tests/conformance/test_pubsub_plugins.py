"""Broker plugins driven directly through their socket: what each promises, crashes of the plugin, restarts of the broker."""
import collections, os, pathlib, queue, shutil, signal, socket, subprocess, sys, tempfile, threading, time

import grpc
import pytest

from conftest import BUILD, ROOT, Redis, free_port, wait_until

SERVICE = "/dapr.proto.components.v1.PubSub/"


@pytest.fixture(scope="session")
def pb(tmp_path_factory):
    """Messages of the contract, in modules of their own: the SDK's package is called dapr too."""
    out = tmp_path_factory.mktemp("brokerpb")
    for f in ("dapr/proto/components/v1/pubsub.proto", "dapr/proto/components/v1/common.proto", "plugin/v1/lifecycle.proto"):
        text = (ROOT / "proto" / f).read_text().replace('import "dapr/proto/components/v1/common.proto"', 'import "broker_common.proto"')
        (out / ("broker_" + f.rsplit("/", 1)[1])).write_text(text)
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{out}", f"--python_out={out}", *map(str, out.glob("*.proto"))], check=True)
    sys.path.insert(0, str(out))
    import broker_common_pb2, broker_lifecycle_pb2, broker_pubsub_pb2
    return collections.namedtuple("PB", "pubsub common lifecycle")(broker_pubsub_pb2, broker_common_pb2, broker_lifecycle_pb2)


class Subscription:
    """A PullMessages stream. answer(message) -> None: ack, text: failed, False: no answer."""

    def __init__(self, plugin, topic, answer=lambda m: None, metadata=None):
        self.pb, self.out, self.got, self.answer = plugin.pb.pubsub, queue.Queue(), [], answer
        self.out.put(self.pb.PullMessagesRequest(topic=self.pb.Topic(name=topic, metadata=metadata or {})))
        self.call = plugin.rpc("PullMessages", "stream_stream", self.pb.PullMessagesResponse)(iter(self.out.get, None))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.code = None
        self.thread.start()

    def wait_active(self):
        self.call.initial_metadata()
        return self

    def run(self):
        try:
            for m in self.call:
                self.got.append(m)
                r = self.answer(m)
                if r is not False:
                    self.ack(m.id, r)
        except grpc.RpcError as e:
            self.code = e.code()

    def ack(self, id, error=None):
        r = self.pb.PullMessagesRequest(ack_message_id=id)
        if error:
            r.ack_error.message = error
        self.out.put(r)

    def data(self):
        return [m.data.decode() for m in list(self.got)]

    def end(self):
        self.out.put(None)
        self.call.cancel()
        self.thread.join(10)


class Plugin:
    """One plugin process on a socket, as a debugger or another runtime starts it."""

    def __init__(self, pb, folder, name, metadata=None, init=True):
        self.pb, self.folder, self.name, self.metadata = pb, folder, name, metadata or {}
        self.socket = folder / f"{name}.sock"
        self.start(init)

    def start(self, init=True):
        exe = BUILD / "plugins" / self.name / self.name
        self.log = open(self.folder / "plugin.log", "ab")
        self.proc = subprocess.Popen([str(exe), "--socket", str(self.socket)], stdout=self.log, stderr=self.log)
        wait_until("the plugin listens", self.socket.exists)
        self.channel = grpc.insecure_channel(f"unix:{self.socket}")
        grpc.channel_ready_future(self.channel).result(10)
        if init:
            self.init()

    def rpc(self, method, how, resp):
        path = method if method.startswith("/") else SERVICE + method
        return getattr(self.channel, how)(path, lambda m: m.SerializeToString(), resp.FromString)

    def call(self, method, req, resp, timeout=15):
        return self.rpc(method, "unary_unary", resp)(req, timeout=timeout, metadata=[("x-component-instance", "broker")])

    def init(self):
        r = self.pb.pubsub.PubSubInitRequest()
        r.metadata.properties.update(self.metadata)
        self.call("Init", r, self.pb.pubsub.PubSubInitResponse, 30)

    def features(self):
        return list(self.call("Features", self.pb.common.FeaturesRequest(), self.pb.common.FeaturesResponse).features)

    def publish(self, topic, data, content_type="", **metadata):
        p = self.pb.pubsub
        self.call("Publish", p.PublishRequest(topic=topic, data=data.encode(), metadata=metadata, content_type=content_type), p.PublishResponse)

    def bulk(self, topic, entries):
        p = self.pb.pubsub
        list_ = [p.BulkMessageEntry(entry_id=str(i), event=e.encode(), content_type="text/plain") for i, e in enumerate(entries)]
        return self.call("BulkPublish", p.BulkPublishRequest(topic=topic, entries=list_), p.BulkPublishResponse).failed_entries

    def drain(self, ms=1000):
        return self.call("/microdapr.plugin.v1.Lifecycle/Drain", self.pb.lifecycle.DrainRequest(timeout_ms=ms),
                         self.pb.lifecycle.DrainResponse).handed_back

    def subscribe(self, topic, *a, **kw):
        return Subscription(self, topic, *a, **kw).wait_active()

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        self.channel.close()
        self.socket.unlink(missing_ok=True)

    def close(self):
        self.channel.close()
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            assert self.proc.wait(10) == 0, "the plugin ends by itself with 0"


@pytest.fixture
def plugin(pb, folder):
    made = []

    def make(name, metadata=None, init=True):
        sub = folder / f"p{len(made)}"
        sub.mkdir()
        made.append(Plugin(pb, sub, name, metadata, init))
        return made[-1]
    yield make
    for p in made:
        p.close()


# ---- what every broker does ----

class Mosquitto:
    def __init__(self, folder, *lines):
        self.port, self.folder = free_port(), folder
        self.conf = folder / "mosquitto.conf"
        self.conf.write_text("\n".join([f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence true",
                                        f"persistence_location {folder}/", "max_queued_messages 0", f"user {os.environ.get('USER', 'root')}", *lines]) + "\n")
        self.start()

    def start(self):
        self.proc = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(self.conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("mosquitto listens", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)

    def url(self, login=""):
        return f"tcp://{login}127.0.0.1:{self.port}"

    def stop(self):
        self.proc.terminate()
        self.proc.wait(10)

    close = stop


@pytest.fixture
def mosquitto(folder):
    m = Mosquitto(folder)
    yield m
    m.close()


class RabbitMQ:
    """A node of its own: ports, folders and even the Erlang port mapper."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rabbit-"))
        self.port, dist, self.epmd = free_port(), free_port(), free_port()
        (self.folder / "plugins").write_text("[].")
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", "RABBITMQ_NODENAME": f"t{self.port}@localhost",
                    "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(dist),
                    "RABBITMQ_MNESIA_BASE": str(self.folder / "db"), "RABBITMQ_LOG_BASE": str(self.folder / "log"),
                    "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"), "RABBITMQ_CONFIG_FILE": str(self.folder / "none"),
                    "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"), "ERL_EPMD_PORT": str(self.epmd),
                    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1 +sbwt none", "ERL_EPMD_ADDRESS": "127.0.0.1"}
        self.start()

    def start(self):
        self.proc = subprocess.Popen(["/usr/lib/rabbitmq/bin/rabbitmq-server"], env=self.env, cwd=self.folder, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until("rabbitmq answers", self.answers, 60)

    def answers(self):
        with socket.create_connection(("127.0.0.1", self.port), 2) as s:
            s.settimeout(2)
            s.sendall(b"AMQP\0\0\x09\x01")
            return s.recv(1) == b"\x01"

    def kill(self):
        os.killpg(self.proc.pid, signal.SIGKILL)
        self.proc.wait()

    def close(self):
        self.kill()
        wait_until("the port mapper has gone", lambda: "Killed" in subprocess.run(["epmd", "-port", str(self.epmd), "-kill"], env=self.env,
                                                                                  capture_output=True, text=True).stdout)
        shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self, **more):
        return {"connectionString": f"amqp://guest:guest@127.0.0.1:{self.port}", "consumerID": "app", "deletedWhenUnused": "false",
                "deliveryMode": "2", "requeueInFailure": "true", **more}


@pytest.fixture(scope="module")
def rabbitmq():
    r = RabbitMQ()
    yield r
    r.close()


@pytest.fixture(params=["in-memory", "redis", "mqtt3", "rabbitmq"])
def broker(request, plugin):
    """A plugin with its broker: fast redelivery where there is any."""
    kind = request.param
    if kind == "in-memory":
        p = plugin("pubsub.in-memory")
    elif kind == "redis":
        r = request.getfixturevalue("redis")
        p = plugin("pubsub.redis", {"redisHost": r.addr, "consumerID": "app", "processingTimeout": "300ms", "redeliverInterval": "100ms"})
    elif kind == "mqtt3":
        p = plugin("pubsub.mqtt3", {"url": request.getfixturevalue("mosquitto").url(), "consumerID": "app"})
    elif kind == "rabbitmq":
        p = plugin("pubsub.rabbitmq", request.getfixturevalue("rabbitmq").settings(consumerID=f"app{os.urandom(4).hex()}", deletedWhenUnused="true"))
    p.kind = kind
    return p


def test_messages_arrive_once_and_in_order(broker):
    s = broker.subscribe("orders")
    for i in range(10):
        broker.publish("orders", f"m{i}")
    wait_until("all have come", lambda: len(s.got) == 10)
    time.sleep(0.2)
    assert s.data() == [f"m{i}" for i in range(10)]
    assert {m.topic_name for m in s.got} == {"orders"}
    s.end()


def test_topics_are_apart(broker):
    a, b = broker.subscribe("a"), broker.subscribe("b")
    for i in range(5):
        broker.publish("a", f"a{i}")
        broker.publish("b", f"b{i}")
    wait_until("all have come", lambda: len(a.got) == 5 and len(b.got) == 5)
    assert a.data() == [f"a{i}" for i in range(5)] and b.data() == [f"b{i}" for i in range(5)]


def test_bulk_publish(broker):
    s = broker.subscribe("bulk")
    assert not broker.bulk("bulk", [f"e{i}" for i in range(50)])
    wait_until("all have come", lambda: len(s.got) == 50)
    assert sorted(s.data()) == sorted(f"e{i}" for i in range(50))


def test_a_large_message_and_an_empty_one(broker):
    s = broker.subscribe("sizes")
    big = "x" * 3_000_000
    broker.publish("sizes", big)
    broker.publish("sizes", "")
    wait_until("both have come", lambda: len(s.got) == 2)
    assert s.data() == [big, ""]


def test_failed_messages_come_again_or_are_dropped_as_documented(broker):
    failed = set()

    def answer(m):
        if m.data in (b"m2", b"m5") and m.data not in failed:
            failed.add(m.data)
            return "simulated"
    s = broker.subscribe("errors", answer)
    for i in range(10):
        broker.publish("errors", f"m{i}")
    wait_until("all have come", lambda: set(s.data()) == {f"m{i}" for i in range(10)})
    if broker.kind == "in-memory":
        time.sleep(0.3)
        assert len(s.got) == 10
    else:
        wait_until("the failed ones have come again", lambda: len(s.got) == 12)
        assert collections.Counter(s.data())["m2"] == collections.Counter(s.data())["m5"] == 2


def test_no_more_than_the_limit_is_in_flight(broker):
    s = broker.subscribe("limit", lambda m: False, metadata={"microdapr.maxInFlight": "3"})
    t = [threading.Thread(target=broker.publish, args=("limit", f"m{i}")) for i in range(6)]
    for x in t:
        x.start()
    wait_until("three have come", lambda: len(s.got) == 3)
    time.sleep(0.2)
    assert len(s.got) == 3
    seen = 0
    while seen < 6:
        wait_until("one more has come", lambda: len(s.got) > seen)
        s.ack(s.got[seen].id)
        seen += 1
    for x in t:
        x.join()


def test_a_drain_hands_back_what_nobody_answered(broker):
    s = broker.subscribe("drained", lambda m: False)
    for i in range(5):
        broker.publish("drained", f"m{i}")
    wait_until("all have come", lambda: len(s.got) == 5)
    s.ack(s.got[0].id)
    time.sleep(0.1)
    assert broker.drain(300) == 4


def test_acknowledgements_that_mean_nothing(broker):
    s = broker.subscribe("odd", lambda m: False)
    broker.publish("odd", "m")
    wait_until("it has come", lambda: s.got)
    for id in ("", "x", "-1", "99999999999999999999", "1", "1023", s.got[0].id, s.got[0].id):
        s.ack(id)
    broker.publish("odd", "n")
    wait_until("the next has come", lambda: len(s.got) == 2)


# ---- in-memory ----

def test_in_memory_wildcards_and_several_subscribers(plugin):
    p = plugin("pubsub.in-memory")
    assert p.features() == ["SUBSCRIBE_WILDCARDS"]
    exact, again, wild = p.subscribe("topic"), p.subscribe("topic"), p.subscribe("topic*")
    p.publish("topic", "1", test="yes")
    p.publish("topicX", "2")
    p.publish("other", "3")
    wait_until("they have come", lambda: exact.got and again.got and wild.got)
    time.sleep(0.1)
    assert exact.data() == again.data() == ["1"] and wild.data() == ["2"]
    assert dict(exact.got[0].metadata) == {"test": "yes"} and wild.got[0].topic_name == "topic*"


def test_in_memory_publishers_wait_no_longer_when_the_subscription_ends(plugin):
    p = plugin("pubsub.in-memory")
    s = p.subscribe("t", lambda m: False, metadata={"microdapr.maxInFlight": "1"})
    p.publish("t", "1")
    late = threading.Thread(target=p.publish, args=("t", "2"))
    late.start()
    time.sleep(0.1)
    assert late.is_alive()
    s.end()
    late.join(5)
    assert not late.is_alive()


# ---- Redis ----

FAST = {"consumerID": "app", "processingTimeout": "300ms", "redeliverInterval": "100ms"}


def test_redis_layout_is_the_references(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, "maxLenApprox": "100000", **FAST})
    assert p.features() == []
    p.publish("orders", "hello", key="v\"1")
    assert redis.cli("XRANGE", "orders", "-", "+").split("\n")[1:] == ["data", "hello", "metadata", '{"key":"v\\"1"}']
    redis.cli("XADD", "orders", "*", "data", "from elsewhere", "metadata", '{"a":"b"}')
    redis.cli("XADD", "orders", "*", "data", "odd metadata", "metadata", '[1]')
    redis.cli("XADD", "orders", "*", "nothing", "here")
    s = p.subscribe("orders")
    wait_until("all have come", lambda: len(s.got) == 4)
    assert s.data() == ["hello", "from elsewhere", "odd metadata", ""]
    assert [dict(m.metadata) for m in s.got] == [{"key": 'v"1'}, {"a": "b"}, {}, {}]
    wait_until("all are acknowledged", lambda: redis.cli("XPENDING", "orders", "app").split("\n")[0] == "0")


def test_redis_unanswered_messages_go_to_the_next_subscription_at_once(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, "consumerID": "app"})
    s = p.subscribe("t", lambda m: False, metadata={"microdapr.maxInFlight": "2"})
    for i in range(5):
        p.publish("t", f"m{i}")
    wait_until("two have come", lambda: len(s.got) == 2)
    s.end()
    t0 = time.monotonic()
    again = p.subscribe("t")
    wait_until("all have come", lambda: len(again.got) == 5)
    assert time.monotonic() - t0 < 5 and sorted(again.data()) == [f"m{i}" for i in range(5)]


def test_redis_a_slow_app_gets_nothing_twice(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, **FAST})
    s = p.subscribe("t", lambda m: False)
    p.publish("t", "m")
    wait_until("it has come", lambda: s.got)
    time.sleep(1)
    s.ack(s.got[0].id)
    time.sleep(0.6)
    assert len(s.got) == 1


def test_redis_concurrency_counts_for_the_whole_component(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, "concurrency": "2", **FAST})
    a, b = p.subscribe("a", lambda m: False), p.subscribe("b", lambda m: False)
    for t in ("a", "b"):
        assert not p.bulk(t, ["1", "2", "3"])
    wait_until("two have come", lambda: len(a.got) + len(b.got) == 2)
    time.sleep(0.3)
    assert len(a.got) + len(b.got) == 2


def test_redis_trimmed_messages_do_not_stay_pending(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, **FAST})
    s = p.subscribe("t", lambda m: "no")
    p.publish("t", "m")
    wait_until("it has come", lambda: s.got)
    redis.cli("XTRIM", "t", "MAXLEN", "0")
    wait_until("it is not pending", lambda: redis.cli("XPENDING", "t", "app").split("\n")[0] == "0")


def test_redis_paused_subscriptions_take_nothing(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, **FAST})
    s = p.subscribe("t")
    p.call("Pause", p.pb.pubsub.PauseRequest(), p.pb.pubsub.PauseResponse)
    p.publish("t", "m")
    time.sleep(0.3)
    assert not s.got
    p.call("Resume", p.pb.pubsub.ResumeRequest(), p.pb.pubsub.ResumeResponse)
    wait_until("it has come", lambda: s.got)


@pytest.mark.parametrize("field, value", [("processingTimeout", "soon"), ("redeliverInterval", "-1s"), ("queueDepth", "many"), ("concurrency", "x")])
def test_redis_wrong_settings_are_named(plugin, redis, field, value):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, "consumerID": "app", field: value}, init=False)
    with pytest.raises(grpc.RpcError) as e:
        p.init()
    assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT and f"{field} is {value}" in e.value.details()


class Collector:
    """Follows a subscription through deaths of its plugin: subscribes again and again, gathers what came."""

    def __init__(self, plugin, topic):
        self.plugin, self.topic, self.all, self.stop = plugin, topic, [], False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop:
            s = None
            try:
                s = Subscription(self.plugin, self.topic, self.take)
                while s.thread.is_alive() and not self.stop:
                    s.thread.join(0.02)
            except (grpc.RpcError, ValueError):
                pass
            time.sleep(0.05)
        if s:
            s.end()

    def take(self, m):
        self.all.append(m.data.decode())

    def end(self):
        self.stop = True
        self.thread.join(10)


def publish_all(plugin, topic, n):
    """Until each was accepted, as a publisher with retries does."""
    for i in range(n):
        while True:
            try:
                plugin.publish(topic, f"m{i}")
                break
            except (grpc.RpcError, ValueError):
                time.sleep(0.02)


def check_nothing_is_lost(collector, n, limit=60):
    want = {f"m{i}" for i in range(n)}
    wait_until("every message has come", lambda: want <= set(collector.all), limit)
    print(f"{n} messages, {len(collector.all) - n} duplicates")
    collector.end()


def test_redis_nothing_is_lost_when_the_plugin_is_killed(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, **FAST})
    c = Collector(p, "t")
    t = threading.Thread(target=publish_all, args=(p, "t", 3000))
    t.start()
    for _ in range(5):
        time.sleep(0.4)
        p.kill()
        p.start()
    t.join()
    check_nothing_is_lost(c, 3000)


def test_redis_nothing_is_lost_when_the_server_is_killed(plugin, folder):
    r = Redis(folder, "--appendonly", "yes", "--appendfsync", "always")
    try:
        p = plugin("pubsub.redis", {"redisHost": r.addr, **FAST})
        c = Collector(p, "t")
        t = threading.Thread(target=publish_all, args=(p, "t", 2000))
        t.start()
        for _ in range(2):
            time.sleep(0.5)
            r.kill()
            time.sleep(0.3)
            r.start()
        t.join()
        check_nothing_is_lost(c, 2000)
    finally:
        r.close()


def test_redis_a_server_that_lost_its_data_gets_its_groups_again(plugin, redis):
    p = plugin("pubsub.redis", {"redisHost": redis.addr, **FAST})
    s = p.subscribe("t")
    p.publish("t", "before")
    wait_until("it has come", lambda: s.got)
    redis.cli("FLUSHALL")
    p.publish("t", "after")
    wait_until("the one behind the loss has come", lambda: s.data() == ["before", "after"])


# ---- MQTT ----

@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mqtt3_every_quality_of_service(plugin, mosquitto, qos):
    p = plugin("pubsub.mqtt3", {"url": mosquitto.url(), "consumerID": "app", "qos": qos})
    s = p.subscribe("t")
    for i in range(200):
        p.publish("t", f"m{i}")
    wait_until("all have come", lambda: len(s.got) == 200)
    time.sleep(0.2)
    assert s.data() == [f"m{i}" for i in range(200)]


def test_mqtt3_wildcards_and_retained_messages(plugin, mosquitto):
    p = plugin("pubsub.mqtt3", {"url": mosquitto.url(), "consumerID": "app"})
    assert p.features() == ["SUBSCRIBE_WILDCARDS"]
    p.publish("house/kitchen/light", "on", retain="true")
    one, rest = p.subscribe("house/+/light"), p.subscribe("garden/#")
    p.publish("house/cellar/light", "off")
    p.publish("garden/pond/fish", "3")
    wait_until("all have come", lambda: len(one.got) == 2 and rest.got)
    assert [(m.topic_name, m.data, m.metadata["retained"]) for m in one.got] == [
        ("house/kitchen/light", b"on", "true"), ("house/cellar/light", b"off", "false")]
    assert rest.got[0].topic_name == "garden/pond/fish"
    for bad in ("a/+", "a/#", ""):
        with pytest.raises(grpc.RpcError) as e:
            p.publish(bad, "x")
        assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_mqtt3_unanswered_messages_go_to_the_next_subscription(plugin, mosquitto):
    p = plugin("pubsub.mqtt3", {"url": mosquitto.url(), "consumerID": "app"})
    s = p.subscribe("t", lambda m: False, metadata={"microdapr.maxInFlight": "2"})
    for i in range(5):
        p.publish("t", f"m{i}")
    wait_until("two have come", lambda: len(s.got) == 2)
    s.end()
    again = p.subscribe("t")
    wait_until("all have come", lambda: len(again.got) == 5)
    assert sorted(again.data()) == [f"m{i}" for i in range(5)]


def test_mqtt3_nothing_is_lost_when_the_plugin_is_killed(plugin, mosquitto):
    p = plugin("pubsub.mqtt3", {"url": mosquitto.url(), "consumerID": "app"})
    c = Collector(p, "t")
    wait_until("the session knows the subscription", lambda: publish_all(p, "t", 1) or c.all)
    t = threading.Thread(target=publish_all, args=(p, "t", 2000))
    t.start()
    for _ in range(4):
        time.sleep(0.4)
        p.kill()
        p.start()
    t.join()
    check_nothing_is_lost(c, 2000)


def test_mqtt3_nothing_is_lost_when_the_broker_restarts(plugin, mosquitto):
    p = plugin("pubsub.mqtt3", {"url": mosquitto.url(), "consumerID": "app"})
    c = Collector(p, "t")
    wait_until("the session knows the subscription", lambda: publish_all(p, "t", 1) or c.all)
    t = threading.Thread(target=publish_all, args=(p, "t", 2000))
    t.start()
    for _ in range(2):
        time.sleep(0.4)
        mosquitto.stop()
        mosquitto.start()
    t.join()
    check_nothing_is_lost(c, 2000)


@pytest.mark.parametrize("metadata, text", [
    ({"consumerID": "a"}, "missing url"), ({"url": "tcp://127.0.0.1:1"}, "missing consumerID"),
    ({"url": "http://x", "consumerID": "a"}, "url must begin with"), ({"url": "tcp://", "consumerID": "a"}, "names no host"),
    ({"url": "tcp://127.0.0.1:1", "consumerID": "a", "qos": "3"}, "invalid qos 3")])
def test_mqtt3_wrong_settings_are_named(plugin, metadata, text):
    p = plugin("pubsub.mqtt3", metadata, init=False)
    with pytest.raises(grpc.RpcError) as e:
        p.init()
    assert text in e.value.details()


def test_mqtt3_wrong_password(plugin, folder):
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(folder / "pw"), "me", "a:b@c"], check=True)
    m = Mosquitto(folder, "allow_anonymous false", f"password_file {folder / 'pw'}")
    try:
        good = plugin("pubsub.mqtt3", {"url": m.url("me:a%3Ab%40c@"), "consumerID": "app"})
        good.publish("t", "x")
        bad = plugin("pubsub.mqtt3", {"url": m.url("me:wrong@"), "consumerID": "other"}, init=False)
        with pytest.raises(grpc.RpcError) as e:
            bad.init()
        assert e.value.code() == grpc.StatusCode.UNAVAILABLE and "not authorized" in e.value.details() or "password" in e.value.details()
    finally:
        m.close()


# ---- RabbitMQ ----

def test_rabbitmq_failed_messages_go_to_the_dead_letter_queue(plugin, rabbitmq):
    p = plugin("pubsub.rabbitmq", rabbitmq.settings(requeueInFailure="false", enableDeadLetter="true", consumerID="dead"))
    assert p.features() == ["MESSAGE_TTL"]
    s = p.subscribe("letters", lambda m: "no" if m.data == b"bad" else None)
    dead = p.subscribe("dlx-dead-letters", metadata={"queueName": "of-the-dead"})
    p.publish("letters", "good")
    p.publish("letters", "bad")
    wait_until("both have come", lambda: len(s.got) == 2)
    wait_until("the bad one is a dead letter", lambda: dead.data() == ["bad"])


def test_rabbitmq_routing_keys_priorities_and_ttl(plugin, rabbitmq):
    p = plugin("pubsub.rabbitmq", rabbitmq.settings(exchangeKind="topic", consumerID="keys", publishMessagePropertiesToMetadata="true"))
    s = p.subscribe("routed", metadata={"routingKey": "a.*,b", "queueName": "keys-q"})
    p.publish("routed", "1", routingKey="a.x", messageID="id1", type="order")
    p.publish("routed", "2", routingKey="c")
    p.publish("routed", "3", routingKey="b")
    wait_until("two have come", lambda: len(s.got) == 2)
    assert s.data() == ["1", "3"]
    assert dict(s.got[0].metadata) == {"metadata.messageid": "id1", "metadata.type": "order", "metadata.contenttype": "text/plain"}
    s.end()
    p.publish("routed", "late", routingKey="b", ttlInSeconds="1")
    p.publish("routed", "stays", routingKey="b")
    time.sleep(1.3)
    again = p.subscribe("routed", metadata={"routingKey": "a.*,b", "queueName": "keys-q"})
    wait_until("one has come", lambda: again.got)
    time.sleep(0.2)
    assert again.data() == ["stays"]


def test_rabbitmq_single_means_one_at_a_time(plugin, rabbitmq):
    p = plugin("pubsub.rabbitmq", rabbitmq.settings(concurrencyMode="single", consumerID="single", deletedWhenUnused="true"))
    s = p.subscribe("singles", lambda m: False)
    assert not p.bulk("singles", ["1", "2", "3"])
    wait_until("one has come", lambda: s.got)
    time.sleep(0.3)
    assert len(s.got) == 1
    s.ack(s.got[0].id)
    wait_until("the next has come", lambda: len(s.got) == 2)


def test_rabbitmq_refusals_are_told(plugin, rabbitmq):
    p = plugin("pubsub.rabbitmq", rabbitmq.settings(consumerID="refused"))
    p.publish("fanned", "x")
    other = plugin("pubsub.rabbitmq", rabbitmq.settings(consumerID="refused", exchangeKind="topic"))
    with pytest.raises(grpc.RpcError) as e:
        other.publish("fanned", "x")
    assert "inequivalent arg" in e.value.details()
    for wrong, text in (({"connectionString": f"amqp://guest:wrong@127.0.0.1:{rabbitmq.port}"}, "ACCESS_REFUSED"),
                        ({"exchangeKind": "round"}, "invalid RabbitMQ exchange kind round"), ({"deliveryMode": "3"}, "deliveryMode is 3"),
                        ({"connectionString": "http://x"}, "AMQP scheme")):
        bad = plugin("pubsub.rabbitmq", rabbitmq.settings(**wrong), init=False)
        with pytest.raises(grpc.RpcError) as e:
            bad.init()
        assert text in e.value.details()


def test_rabbitmq_unanswered_messages_go_to_the_next_subscription(plugin, rabbitmq):
    p = plugin("pubsub.rabbitmq", rabbitmq.settings(consumerID="back"))
    s = p.subscribe("backs", lambda m: False, metadata={"microdapr.maxInFlight": "2"})
    assert not p.bulk("backs", [f"m{i}" for i in range(5)])
    wait_until("two have come", lambda: len(s.got) == 2)
    s.end()
    again = p.subscribe("backs")
    wait_until("all have come", lambda: len(again.got) == 5)
    assert sorted(again.data()) == [f"m{i}" for i in range(5)]


def test_rabbitmq_nothing_is_lost_when_the_plugin_is_killed(plugin, rabbitmq):
    p = plugin("pubsub.rabbitmq", rabbitmq.settings(consumerID="killed"))
    c = Collector(p, "kills")
    wait_until("the queue is there", lambda: publish_all(p, "kills", 1) or c.all)
    t = threading.Thread(target=publish_all, args=(p, "kills", 2000))
    t.start()
    for _ in range(4):
        time.sleep(0.5)
        p.kill()
        p.start()
    t.join()
    check_nothing_is_lost(c, 2000)


def test_rabbitmq_nothing_is_lost_when_the_broker_is_killed(plugin):
    r = RabbitMQ()
    try:
        p = plugin("pubsub.rabbitmq", r.settings(reconnectWaitSeconds="1s"))
        c = Collector(p, "restarts")
        wait_until("the queue is there", lambda: publish_all(p, "restarts", 1) or c.all)
        t = threading.Thread(target=publish_all, args=(p, "restarts", 1000))
        t.start()
        time.sleep(0.5)
        r.kill()
        r.start()
        t.join()
        check_nothing_is_lost(c, 1000)
    finally:
        r.close()
