"""pubsub.jetstream against a real nats-server: consumers as the component describes them, logins, failures of either side."""
import base64, hashlib, json, subprocess, threading, time

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from brokers import Collector, Nats, check_nothing_is_lost, publish_all
from conftest import component, free_port, wait_until


@pytest.fixture
def stream(nats):
    """A fresh stream T with the topics t, t.> and u."""
    nats.stream("T", "t", "t.>", "u")
    yield nats
    nats.delete("T")


def jetstream(plugin, server, init=True, **settings):
    return plugin("pubsub.jetstream", {"natsURL": server.url, "concurrency": "parallel", **settings}, init=init)


def refusal(plugin, **metadata):
    p = plugin("pubsub.jetstream", metadata, init=False)
    with pytest.raises(grpc.RpcError) as e:
        p.init()
    return e.value.details()


@pytest.mark.parametrize("wrong, text", [
    ({"natsURL": ""}, "missing nats URL"), ({"natsURL": "http://x"}, "natsURL is http://"), ({"natsURL": "nats://"}, "names no host"),
    ({"jwt": "x"}, "missing seed key"), ({"seedKey": "SUx"}, "missing jwt"), ({"jwt": "x", "seedKey": "SUx"}, "seedKey is no seed"),
    ({"tls_client_cert": "-----BEGIN CERTIFICATE-----"}, "missing tls client key"), ({"tls_client_key": "-----BEGIN"}, "missing tls client cert"),
    ({"tls_client_cert": "/no/such/file"}, "tls_client_cert: neither a PEM text nor a file"),
    ({"deliverPolicy": "some"}, "deliver policy some is not one of: all, last, new, sequence, time"),
    ({"durableName": "a.b"}, "durableName is a.b"), ({"streamName": "a b"}, "streamName is a b"), ({"queueGroupName": "a b"}, "queueGroupName is a b"),
    ({"backOff": "1s,soon"}, "backOff is 1s,soon"), ({"maxDeliver": "many"}, "maxDeliver is many"), ({"replicas": "-1"}, "replicas is -1"),
    ({"concurrency": "x"}, "concurrency is x"), ({"domain": "a b"}, "domain makes no subject"), ({"apiPrefix": "$JS..API"}, "apiPrefix makes no subject")])
def test_wrong_settings_are_named(plugin, wrong, text):
    assert text in refusal(plugin, **{"natsURL": "nats://127.0.0.1:1", **wrong})


def test_a_field_that_does_not_fit_is_named_with_its_line(daprd):
    d = daprd([component("broker", "pubsub.jetstream", [("natsURL", "nats://127.0.0.1:1"), ("ackWait", "soon")])], start=False)
    d.start(healthy=False)
    assert d.wait_exit() != 0
    assert "ackWait" in d.log() and "r0.yaml:1" in d.log()
    d.proc.wait()
    d.proc = None


def test_the_consumer_is_as_the_component_says(plugin, stream):
    p = jetstream(plugin, stream, durableName="d", queueGroupName="g", ackWait="5s", maxDeliver="4", backOff="[5s, 6s, 7s]", maxAckPending="7",
                  replicas="1", memoryStorage="true", rateLimit="1000000", deliverPolicy="sequence", startSequence="3", ackPolicy="all",
                  name="tests")
    for i in range(5):
        p.publish("t", f"m{i}")
    s = p.subscribe("t")
    wait_until("three have come", lambda: len(s.got) == 3)
    assert s.data() == ["m2", "m3", "m4"] and dict(s.got[0].metadata) == {"Topic": "t"}
    c = stream.consumer("T", "d")["config"]
    want = {"durable_name": "d", "deliver_group": "g", "ack_wait": 5 * 10**9, "max_deliver": 4, "backoff": [5 * 10**9, 6 * 10**9, 7 * 10**9],
            "max_ack_pending": 7, "num_replicas": 1, "mem_storage": True, "rate_limit_bps": 1000000, "deliver_policy": "by_start_sequence",
            "opt_start_seq": 3, "ack_policy": "all", "filter_subject": "t"}
    assert want.items() <= c.items()
    names = [x["name"] for x in stream.request("$JS.API.CONSUMER.LIST.T", {})["consumers"]]
    assert names == ["d"]


@pytest.mark.parametrize("policy, more, want", [("all", {}, [0, 1, 2]), ("last", {}, [2]), ("new", {}, []), ("time", {"startTime": "1"}, [0, 1, 2])])
def test_where_a_consumer_begins(plugin, stream, policy, more, want):
    p = jetstream(plugin, stream, deliverPolicy=policy, **more)
    for i in range(3):
        p.publish("t", f"m{i}")
    s = p.subscribe("t")
    p.publish("t", "later")
    wait_until("the last has come", lambda: "later" in s.data())
    assert s.data() == [f"m{i}" for i in want] + ["later"]


def test_wildcards_heartbeats_and_flow_control(plugin, stream):
    p = jetstream(plugin, stream, flowControl="true", hearbeat="200ms", maxAckPending="5000")
    s = p.subscribe("t.>")
    for i in range(20):
        assert not p.bulk("t.a.b", [f"{i}-{j}" + "x" * 5000 for j in range(100)])
    wait_until("all have come", lambda: len(s.got) == 2000)
    time.sleep(0.5)
    p.publish("t.c", "later")
    wait_until("it goes on behind heartbeats", lambda: len(s.got) == 2001)
    assert {m.topic_name for m in s.got} == {"t.>"} and s.got[-1].metadata["Topic"] == "t.c"


def test_one_at_a_time_is_the_default(plugin, stream):
    p = jetstream(plugin, stream, concurrency="single")
    s = p.subscribe("t", lambda m: False)
    assert not p.bulk("t", ["1", "2", "3"])
    wait_until("one has come", lambda: s.got)
    time.sleep(0.3)
    assert len(s.got) == 1
    s.ack(s.got[0].id)
    wait_until("the next has come", lambda: len(s.got) == 2)


def test_the_cloudevents_id_drops_repetitions(plugin, stream):
    p = jetstream(plugin, stream)
    s = p.subscribe("t")
    for id in ("1", "2", "1", "with\nbreak", "with\nbreak"):
        p.publish("t", json.dumps({"id": id, "data": "x"}))
    p.publish("t", "end")
    wait_until("the last has come", lambda: "end" in s.data())
    assert [json.loads(x)["id"] for x in s.data()[:-1]] == ["1", "2", "with\nbreak"]


def test_publishing_without_a_stream_or_to_no_subject(plugin, stream):
    p = jetstream(plugin, stream)
    for topic, text in (("nowhere", "nats: no response from stream"), ("a b", "blanks"), ("a..b", "empty part"), ("t.*", "wildcards"), ("", "is empty")):
        with pytest.raises(grpc.RpcError) as e:
            p.publish(topic, "x")
        assert text in e.value.details()
    with pytest.raises(grpc.RpcError) as e:
        p.publish("t", "x" * (9 << 20))
    assert "maximum payload exceeded" in e.value.details()
    for topic, text in (("nowhere", "no stream matches subject"), ("a b", "blanks")):
        assert text in p.refused(topic)


def test_a_consumer_with_other_settings_is_not_taken(plugin, stream):
    jetstream(plugin, stream, durableName="d", ackWait="5s").subscribe("t").end()
    for other, text in (({"ackWait": "6s"}, "ackWait"), ({"ackPolicy": "all"}, "ackPolicy"), ({"queueGroupName": "g"}, "queueGroupName")):
        p = jetstream(plugin, stream, **{"durableName": "d", "ackWait": "5s", **other})
        why = p.refused("t")
        assert "consumer name already in use" in why and text in why


def test_a_group_shares_the_messages(plugin, stream):
    apps = [jetstream(plugin, stream, durableName="d", queueGroupName="g") for _ in range(2)]
    subs = [p.subscribe("t") for p in apps]
    assert not apps[0].bulk("t", [f"m{i}" for i in range(200)])
    wait_until("all have come", lambda: sum(len(s.got) for s in subs) == 200)
    assert all(s.got for s in subs) and sorted(subs[0].data() + subs[1].data()) == sorted(f"m{i}" for i in range(200))


def test_a_durable_consumer_goes_on_where_it_was(plugin, stream):
    p = jetstream(plugin, stream, durableName="d", ackWait="2s") # what the server sends after those who leave comes again then
    s = p.subscribe("t")
    p.publish("t", "1")
    wait_until("it has come", lambda: s.got)
    wait_until("it is acknowledged", lambda: stream.consumer("T", "d")["num_ack_pending"] == 0)
    s.end()
    p.publish("t", "2")
    again = p.subscribe("t")
    wait_until("the next has come", lambda: again.got)
    assert again.data() == ["2"]


def test_unanswered_messages_go_to_the_next_subscription_at_once(plugin, stream):
    p = jetstream(plugin, stream, durableName="d")
    s = p.subscribe("t", lambda m: False, metadata={"microdapr.maxInFlight": "2"})
    assert not p.bulk("t", [f"m{i}" for i in range(5)])
    wait_until("two have come", lambda: len(s.got) == 2)
    s.end()
    t0 = time.monotonic()
    again = p.subscribe("t")
    wait_until("all have come", lambda: len(again.got) == 5)
    assert time.monotonic() - t0 < 10 and sorted(again.data()) == [f"m{i}" for i in range(5)]


def test_a_slow_app_gets_nothing_twice(plugin, stream):
    p = jetstream(plugin, stream, durableName="d", ackWait="500ms")
    s = p.subscribe("t", lambda m: False, metadata={"microdapr.maxInFlight": "1"})
    assert not p.bulk("t", ["a", "b"])
    wait_until("one has come", lambda: s.got)
    time.sleep(1.5)
    s.ack(s.got[0].id)
    wait_until("the other has come", lambda: len(s.got) == 2)
    s.ack(s.got[1].id)
    wait_until("both are acknowledged", lambda: stream.consumer("T", "d")["num_ack_pending"] == 0)
    assert sorted(s.data()) == ["a", "b"] and stream.consumer("T", "d")["num_redelivered"] == 0


def test_ack_all_never_acknowledges_what_failed(plugin, stream):
    failed = []

    def answer(m):
        if m.data in (b"m3", b"m5") and failed.count(m.data) < 2:
            failed.append(m.data)
            return "no"
    p = jetstream(plugin, stream, durableName="d", ackPolicy="all", ackWait="300ms")
    s = p.subscribe("t", answer)
    for i in range(10):
        p.publish("t", f"m{i}")
    wait_until("the failed ones came again", lambda: s.data().count("m3") == 3 and s.data().count("m5") == 3)
    wait_until("all are acknowledged", lambda: stream.consumer("T", "d")["ack_floor"]["stream_seq"] == 10)
    assert set(s.data()) == {f"m{i}" for i in range(10)}


def test_deliveries_end_at_max_deliver(plugin, stream):
    p = jetstream(plugin, stream, durableName="d", maxDeliver="3", ackPolicy="all", ackWait="300ms")
    s = p.subscribe("t", lambda m: "no" if m.data == b"bad" else None)
    p.publish("t", "bad")
    p.publish("t", "good")
    wait_until("three tries", lambda: s.data().count("bad") == 3)
    wait_until("it holds up nobody", lambda: stream.consumer("T", "d")["ack_floor"]["stream_seq"] == 2)


def test_no_acknowledgement_no_redelivery(plugin, stream):
    p = jetstream(plugin, stream, ackPolicy="none")
    s = p.subscribe("t", lambda m: "no")
    for i in range(5):
        p.publish("t", f"m{i}")
    wait_until("all have come", lambda: len(s.got) == 5)
    time.sleep(0.3)
    assert len(s.got) == 5


# ---- failures ----

@pytest.mark.parametrize("durable", [True, False])
def test_nothing_is_lost_when_the_server_is_killed(plugin, durable):
    n = Nats()
    try:
        n.stream("T", "t")
        p = jetstream(plugin, n, ackWait="1s", **({"durableName": "d"} if durable else {"memoryStorage": "true"}))
        c = Collector(p, "t")
        t = threading.Thread(target=publish_all, args=(p, "t", 3000))
        t.start()
        for _ in range(2):
            time.sleep(0.5)
            n.kill()
            n.start()
        t.join()
        check_nothing_is_lost(c, 3000)
    finally:
        n.close()


def test_nothing_is_lost_when_the_plugin_is_killed(plugin, stream):
    p = jetstream(plugin, stream, durableName="d", ackWait="1s")
    c = Collector(p, "t")
    t = threading.Thread(target=publish_all, args=(p, "t", 3000))
    t.start()
    for _ in range(5):
        time.sleep(0.4)
        p.kill()
        p.start()
    t.join()
    check_nothing_is_lost(c, 3000)


def test_a_consumer_that_the_server_lost_is_made_again(plugin):
    n = Nats()
    try:
        n.stream("T", "t")
        p = jetstream(plugin, n, durableName="d", memoryStorage="true")
        s = p.subscribe("t")
        p.publish("t", "1")
        wait_until("it has come", lambda: s.got)
        n.kill()
        n.start()
        assert "error" in n.consumer("T", "d") or n.consumer("T", "d")["config"]["mem_storage"]
        p.publish("t", "2")
        wait_until("the next has come", lambda: "2" in s.data())
    finally:
        n.close()


# ---- logins ----

@pytest.mark.parametrize("conf, login, good, bad", [
    ('authorization { token: "s3cret" }', {"auth_token": "s3cret"}, {"token": "s3cret"}, {"token": "wrong"}),
    ('authorization { user: "me", password: "a:b@c" }', {"user": "me", "pass": "a:b@c"}, "nats://me:a%3Ab%40c@", "nats://me:wrong@")])
def test_token_and_password(plugin, conf, login, good, bad):
    n = Nats(conf, login=login)
    try:
        n.stream("T", "t")
        as_settings = lambda x: {"natsURL": x + n.url[7:]} if isinstance(x, str) else {"natsURL": n.url, **x}
        p = plugin("pubsub.jetstream", as_settings(good))
        p.publish("t", "x")
        p = plugin("pubsub.jetstream", as_settings(bad), init=False)
        with pytest.raises(grpc.RpcError) as e:
            p.init()
        assert e.value.code() == grpc.StatusCode.PERMISSION_DENIED and "Authorization Violation" in e.value.details()
    finally:
        n.close()


def test_client_certificates(plugin, folder):
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2")
    for who in ("server", "client"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1")
        openssl("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{who}.crt", "-days", "2", "-extfile", "ext")
    n = Nats(f'tls {{ cert_file: "{folder}/server.crt", key_file: "{folder}/server.key", ca_file: "{folder}/ca.crt", verify: true }}', login=False)
    try:
        tls = {"natsURL": n.url, "caCert": (folder / "ca.crt").read_text()}
        p = plugin("pubsub.jetstream", {**tls, "tls_client_cert": (folder / "client.crt").read_text(), "tls_client_key": (folder / "client.key").read_text()})
        with pytest.raises(grpc.RpcError) as e:
            p.publish("t", "x")
        assert "no response from stream" in e.value.details()
        plugin("pubsub.jetstream", {**tls, "tls_client_cert": str(folder / "client.crt"), "tls_client_key": str(folder / "client.key")})
        assert "not trusted" in refusal(plugin, natsURL=n.url)
    finally:
        n.close()


class Key:
    """An nkey: Ed25519 as NATS writes it."""

    def __init__(self, kind):
        self.key, self.kind = Ed25519PrivateKey.generate(), kind

    @staticmethod
    def text(raw):
        crc = 0
        for x in raw:
            crc ^= x << 8
            for _ in range(8):
                crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xffff
        return base64.b32encode(raw + crc.to_bytes(2, "little")).decode().rstrip("=")

    @property
    def public(self):
        return self.text(bytes([self.kind << 3]) + self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def seed(self):
        return self.text(bytes([18 << 3 | (self.kind << 3) >> 5, ((self.kind << 3) & 31) << 3]) +
                         self.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))

    def jwt(self, subject, name, claims):
        b64 = lambda x: base64.urlsafe_b64encode(x).decode().rstrip("=")
        body = {"iat": 1700000000, "iss": self.public, "name": name, "sub": subject, "nats": {"version": 2, **claims}}
        body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        head = b64(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode()) + "." + b64(json.dumps(body).encode())
        return head + "." + b64(self.key.sign(head.encode()))


def test_a_jwt_with_its_seed(plugin):
    operator, account, system, user, stranger = Key(14), Key(0), Key(0), Key(20), Key(20)
    free = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1, "mem_storage": -1,
            "disk_storage": -1, "streams": -1, "consumer": -1}
    no_streams = {"mem_storage": 0, "disk_storage": 0, "streams": 0, "consumer": 0}
    of_account = operator.jwt(account.public, "A", {"type": "account", "limits": free})
    of_user = account.jwt(user.public, "U", {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1})
    n = Nats(f'operator: {operator.jwt(operator.public, "O", {"type": "operator"})}', "resolver: MEMORY", f"system_account: {system.public}",
             f"resolver_preload: {{ {account.public}: {of_account}\n {system.public}: {operator.jwt(system.public, 'S', {'type': 'account', 'limits': {**free, **no_streams}})} }}",
             login=False)
    try:
        good = {"natsURL": n.url, "jwt": of_user, "seedKey": user.seed}
        p = plugin("pubsub.jetstream", good)
        with pytest.raises(grpc.RpcError) as e:
            p.publish("t", "x")
        assert "no response from stream" in e.value.details()
        assert "Authorization Violation" in refusal(plugin, **{**good, "seedKey": stranger.seed})
    finally:
        n.close()


def test_a_domain_and_a_prefix(plugin):
    n = Nats(domain="hub")
    try:
        n.stream("T", "t")
        for where in ({"domain": "hub"}, {"apiPrefix": "$JS.hub.API"}, {}):
            p = jetstream(plugin, n, **where)
            s = p.subscribe("t")
            p.publish("t", "x")
            wait_until("it has come", lambda: s.got)
            s.end()
        other = jetstream(plugin, n, domain="moon")
        assert "JetStream not enabled" in other.refused("t")
    finally:
        n.close()


def test_a_broker_that_is_not_there(plugin):
    assert "cannot connect to nats at 127.0.0.1" in refusal(plugin, natsURL=f"nats://127.0.0.1:{free_port()}")
