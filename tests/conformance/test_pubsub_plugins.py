"""Broker plugins driven directly through their socket: what each promises, crashes of the plugin, restarts of the broker."""
import collections, os, subprocess, threading, time

import grpc
import pytest

from brokers import Collector, Mosquitto, RabbitMQ, check_nothing_is_lost, publish_all
from conftest import Redis, wait_until

# ---- what every broker does ----

@pytest.fixture(params=["in-memory", "redis", "mqtt3", "rabbitmq", "jetstream"])
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
    elif kind == "jetstream":
        n = request.getfixturevalue("nats")
        n.stream("T", "orders", "a", "b", "bulk", "sizes", "errors", "limit", "drained", "odd", max_msg_size=4 << 20)
        request.addfinalizer(lambda: n.delete("T"))
        p = plugin("pubsub.jetstream", {"natsURL": n.url, "concurrency": "parallel"})
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


def test_entries_of_a_bulk_fail_each_with_their_own_words(plugin, mosquitto):
    p = plugin("pubsub.mqtt3", {"url": mosquitto.url(), "consumerID": "app"})
    s = p.subscribe("mixed")
    wishes = ["false", "perhaps", "", "maybe", "false", "never"] * 20
    failed = p.bulk("mixed", [f"e{i}" for i in range(len(wishes))], [{"retain": w} for w in wishes])
    assert {e.entry_id: e.error for e in failed} == {
        str(i): f"mqtt invalid retain {w}: write true or false" for i, w in enumerate(wishes) if w not in ("false", "")}
    wait_until("the others have come", lambda: len(s.got) == 60)


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
