"""Delivery under faults: messages are published by many callers while the broker's plugin is killed again and again, the app is
restarted twice (once by SIGKILL), the broker is killed and started again, and the sidecar is stopped by SIGTERM and started again. Every
message whose publishing succeeded must reach the app, none the dead letter topic; duplicates are allowed and counted.

DELIVERY_MESSAGES (2000), DELIVERY_KILL_S (0.5: seconds between two kills of the plugin) and DELIVERY_CALLERS (8) make it larger; the figures
are printed. While the broker itself is down the plugin is left alone: ten deaths before it could connect would count as a plugin that
cannot run."""
import collections, http.client, json, os, signal, socket, subprocess, sys, threading, time

import pytest

from conftest import BUILD, ROOT, Redis, component, free_port, wait_until

from brokers import RabbitMQ

MESSAGES = int(os.environ.get("DELIVERY_MESSAGES", "2000"))
KILL_S = float(os.environ.get("DELIVERY_KILL_S", "0.5"))
CALLERS = int(os.environ.get("DELIVERY_CALLERS", "8"))
LIMIT_S = 60 + MESSAGES / 100


class PersistentRedis(Redis):
    def __init__(self, folder):
        super().__init__(folder, "--appendonly", "yes", "--appendfsync", "everysec")

    def settings(self):
        return "pubsub.redis", [("redisHost", self.addr), ("processingTimeout", "2s"), ("redeliverInterval", "500ms")]

    restart = lambda self: (self.kill(), self.start())


class PersistentRabbit(RabbitMQ):
    def __init__(self, folder):
        super().__init__()

    def settings(self):
        return "pubsub.rabbitmq", [
            ("connectionString", super().settings()["connectionString"]), ("durable", "true"), ("deletedWhenUnused", "false"),
            ("deliveryMode", "2"), ("reconnectWaitSeconds", "1")]

    restart = lambda self: (self.kill(), self.start())


class JetStream:
    """nats-server with JetStream; the stream is made by hand as its users do."""

    def __init__(self, folder):
        self.port, self.folder = free_port(), folder
        self.start()
        self.stream()

    def start(self):
        self.proc = subprocess.Popen(["nats-server", "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder / "js")],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("nats answers", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)

    def stream(self):
        body = json.dumps({"name": "orders", "subjects": ["orders", "orders-dead"], "storage": "file", "retention": "limits", "num_replicas": 1,
                           "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0})
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.recv(4096)
            s.sendall(b'CONNECT {"verbose":false}\r\nSUB inbox 1\r\nPUB $JS.API.STREAM.CREATE.orders inbox %d\r\n%s\r\n'
                      % (len(body), body.encode()))
            seen = b""
            while b"MSG inbox" not in seen or not seen.endswith(b"\r\n"):
                seen += s.recv(65536)
            assert b'"error"' not in seen, seen

    def settings(self):
        return "pubsub.jetstream", [("natsURL", f"nats://127.0.0.1:{self.port}"), ("durableName", "app"), ("streamName", "orders"),
                                    ("deliverPolicy", "all"), ("ackWait", "5s")]

    def restart(self):
        self.proc.kill()
        self.proc.wait()
        self.start()

    def close(self):
        self.proc.terminate()
        self.proc.wait(10)


@pytest.fixture(params=["redis", "rabbitmq", "jetstream"])
def broker(request, folder):
    if not (BUILD / f"plugins/pubsub.{request.param}").is_dir():
        pytest.skip("no such plugin in this build")
    if request.param == "rabbitmq" and "DELIVERY_MESSAGES" not in os.environ:
        pytest.skip("its broker takes too long to come back; only with DELIVERY_MESSAGES")
    b = {"redis": PersistentRedis, "rabbitmq": PersistentRabbit, "jetstream": JetStream}[request.param](folder)
    b.name = request.param
    yield b
    b.close()


class App:
    def close(self):
        if self.proc.poll() is None:
            self.end(signal.SIGKILL)

    def __init__(self, folder):
        self.port, self.files = free_port(), (folder / "taken", folder / "dead")
        self.start()

    def start(self):
        self.proc = subprocess.Popen([sys.executable, str(ROOT / "tests/fault/delivery_app.py"), str(self.port), "pub", *map(str, self.files)])
        wait_until("the app listens", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)

    def end(self, how):
        self.proc.send_signal(how)
        self.proc.wait(10)

    def numbers(self, i=0):
        return [int(x) for x in self.files[i].read_text().split("\n")[:-1]]


class Publishers:
    """Callers that publish 0 … n-1, each number until it was taken (204). `sent` counts those; they go no further than `allowed`."""

    def __init__(self, port, n):
        self.port, self.todo, self.sent, self.retries, self.allowed = port, collections.deque(range(n)), 0, 0, 0
        self.lock, self.stop = threading.Lock(), False
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(CALLERS)]
        for t in self.threads:
            t.start()

    def one(self, c, i):
        c.request("POST", "/v1.0/publish/pub/orders", str(i), {"content-type": "application/json"})
        r = c.getresponse()
        r.read()
        return r.status == 204

    def run(self):
        c = None
        while not self.stop:
            try:
                i = self.todo.popleft()
            except IndexError:
                return
            while i >= self.allowed and not self.stop:
                time.sleep(0.01)
            ok = False
            while not ok and not self.stop:
                try:
                    c = c or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                    ok = self.one(c, i)
                except (OSError, http.client.HTTPException):
                    c.close()
                    c = None
                if not ok:
                    self.retries += 1
                    time.sleep(0.05)
            with self.lock:
                self.sent += ok


def kill_plugins(d, name, stop, spare, kills):
    while not stop.wait(KILL_S):
        for pid, exe in d.children().items() if d.proc.poll() is None and not spare.is_set() else ():
            if exe == name:
                try:
                    os.kill(pid, signal.SIGKILL)
                    kills.append(pid)
                except OSError:
                    pass


@pytest.fixture
def app(folder):
    a = App(folder)
    yield a
    a.close()


@pytest.mark.timeout(LIMIT_S * 2 + 120)
def test_every_message_is_delivered_whatever_dies(daprd, app, broker):
    kind, settings = broker.settings()
    # the dead letter topic is read by a component of its own: a durable consumer of JetStream has one subject
    dead = [(k, "dead" if k == "durableName" else v) for k, v in settings]
    d = daprd(resources=[component("pub", kind, settings), component("dead", kind, dead)], args=[f"--app-port={app.port}", "--log-level=info"])
    wait_until("subscribed", lambda: len(d.metadata().get("subscriptions", ())) == 2)
    began, stop, spare, kills = time.monotonic(), threading.Event(), threading.Event(), []
    killer = threading.Thread(target=kill_plugins, args=(d, kind, stop, spare, kills), daemon=True)
    publishers = Publishers(d.http, MESSAGES)
    killer.start()
    try:
        def restart_app(how):
            app.end(how)
            time.sleep(0.3)
            app.start()

        def restart_broker():
            spare.set()
            broker.restart()
            wait_until("the plugin has found the broker again", lambda: d.request("POST", "/v1.0/publish/pub/orders", "-1", {"content-type": "application/json"}).status == 204, 120)
            spare.clear()

        def restart_sidecar():
            d.proc.send_signal(signal.SIGTERM)
            assert d.wait_exit(60) == 0, d.log()[-3000:]
            d.start()
        # Each fault happens when its part is published, and while the next part is.
        faults = [(0.2, lambda: restart_app(signal.SIGTERM)), (0.4, restart_broker), (0.6, restart_sidecar), (0.8, lambda: restart_app(signal.SIGKILL))]
        for part, fault in faults:
            publishers.allowed = int(MESSAGES * part)
            wait_until(f"{part:.0%} are published", lambda: publishers.sent >= publishers.allowed - CALLERS, LIMIT_S)
            publishers.allowed = int(MESSAGES * (part + 0.2))
            fault()
        wait_until("all are published", lambda: publishers.sent == MESSAGES, LIMIT_S)
        wait_until("the plugin has died a few times more", lambda: len(kills) >= 3, LIMIT_S)
    finally:
        stop.set()
        killer.join()
        publishers.stop = True
    want = set(range(MESSAGES))
    try:
        wait_until("all have come", lambda: want <= set(app.numbers()), 90)
    except AssertionError:
        missing = sorted(want - set(app.numbers()))
        pytest.fail(f"{len(missing)} of {MESSAGES} did not come, such as {missing[:20]}; dead: {len(app.numbers(1))}\n" + "\n".join(x for x in d.log().split("\n") if "level=debug" not in x)[-6000:])
    finally:
        app_end = time.monotonic()
        got = app.numbers()
        print(f"\n{broker.name}: {MESSAGES} messages, {len(got) - len(set(got))} duplicates, {len(app.numbers(1))} dead letters, "
              f"{len(kills)} kills of the plugin, {publishers.retries} publishes tried again, {app_end - began:.1f} s")
    assert not app.numbers(1), [x for x in d.log().split("\n") if "retriable" in x][:20]
    # and one that is sent there would have been seen
    assert d.request("POST", "/v1.0/publish/pub/orders-dead", "-2", {"content-type": "application/json"}).status == 204
    wait_until("the dead letter topic is read", lambda: app.numbers(1) == [-2], 30)
