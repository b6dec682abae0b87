"""Broker plugins driven directly through their socket, and real brokers for them: what the tests of brokers share."""
import collections, json, os, pathlib, queue, shutil, signal, socket, subprocess, sys, tempfile, threading, time

import grpc
import pytest

from conftest import BUILD, ROOT, free_port, wait_until

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
        self.code = self.details = None
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
            self.code, self.details = e.code(), e.details()

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

    def bulk(self, topic, entries, metadata=None):
        """metadata: a dict for each entry."""
        p = self.pb.pubsub
        list_ = [p.BulkMessageEntry(entry_id=str(i), event=e.encode(), content_type="text/plain", metadata=metadata[i] if metadata else {})
                 for i, e in enumerate(entries)]
        return self.call("BulkPublish", p.BulkPublishRequest(topic=topic, entries=list_), p.BulkPublishResponse).failed_entries

    def drain(self, ms=1000):
        return self.call("/microdapr.plugin.v1.Lifecycle/Drain", self.pb.lifecycle.DrainRequest(timeout_ms=ms),
                         self.pb.lifecycle.DrainResponse).handed_back

    def subscribe(self, topic, *a, **kw):
        return Subscription(self, topic, *a, **kw).wait_active()

    def refused(self, topic, **metadata):
        """Why a subscription is not to be had."""
        s = Subscription(self, topic, metadata=metadata)
        s.thread.join(15)
        assert s.code, "the subscription was taken"
        return s.details

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


@pytest.fixture(scope="session")
def rabbitmq():
    r = RabbitMQ()
    yield r
    r.close()


class Nats:
    """A NATS server with JetStream, and the little of a client that tests need to make streams."""

    def __init__(self, *lines, login=None, domain=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nats-"))
        self.port, self.login = free_port(), {} if login is None else login
        self.conf = self.folder / "nats.conf"
        self.conf.write_text("\n".join([f"listen: 127.0.0.1:{self.port}", "max_payload: 8MB", f'jetstream {{ store_dir: "{self.folder}/js", domain: {domain} }}' if domain else f'jetstream {{ store_dir: "{self.folder}/js" }}', *lines]) + "\n")
        self.start()

    url = property(lambda self: f"nats://127.0.0.1:{self.port}")

    def start(self):
        self.proc = subprocess.Popen(["nats-server", "-c", str(self.conf)], stdout=subprocess.DEVNULL, stderr=open(self.folder / "log", "ab"))
        try:
            wait_until("nats-server listens", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)
            if self.login is not False:
                wait_until("JetStream answers", lambda: "error" not in self.request("$JS.API.INFO"))
        except AssertionError:
            self.kill()
            raise AssertionError((self.folder / "log").read_text()) from None

    def request(self, subject, body=None):
        """One request by a connection of its own; JSON both ways."""
        data = json.dumps(body).encode() if body is not None else b""
        connect = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "headers": True, "no_responders": True, **self.login}
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.settimeout(5)
            f = s.makefile("rb")
            f.readline()
            s.sendall(b"CONNECT " + json.dumps(connect).encode() + b"\r\nSUB _INBOX.test 1\r\n" +
                      f"PUB {subject} _INBOX.test {len(data)}\r\n".encode() + data + b"\r\n")
            while True:
                words = f.readline().split()
                assert words and words[0] not in (b"-ERR", b"HMSG"), (subject, words)
                if words[0] == b"MSG":
                    return json.loads(f.read(int(words[-1])))

    def stream(self, name, *subjects, **config):
        r = self.request(f"$JS.API.STREAM.CREATE.{name}", {"name": name, "subjects": list(subjects), "retention": "limits", "storage": "file",
                                                           "num_replicas": 1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, **config})
        assert "error" not in r, r
        return r

    def delete(self, stream):
        return self.request(f"$JS.API.STREAM.DELETE.{stream}")

    def consumer(self, stream, name):
        return self.request(f"$JS.API.CONSUMER.INFO.{stream}.{name}")

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def nats():
    n = Nats()
    yield n
    n.close()
