"""Fixtures: daprd with its plugins as a process, Redis servers, temporary folders. One spawn helper for all black-box tests."""
import copy, http.server, json, os, pathlib, random, re, shutil, signal, socket, subprocess, tempfile, threading, time, urllib.error, urllib.request

import pytest

pytest_plugins = ["brokers"]  # fixtures of brokers and their plugins
ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("BUILD", "build/release")


def free_port():
    """Below the ports that the system gives to outgoing connections: none of those takes it before it is used."""
    while True:
        with socket.socket() as s:
            port = random.randrange(10000, 32000)
            try:
                s.bind(("", port))
                return port
            except OSError:
                pass


SLOW = float(os.environ.get("SLOW", 1))  # so many times as slow as usual is the machine


def wait_until(what, check, limit=20.0):
    """Polls check() until it is true; what it waits for goes into the failure."""
    limit *= SLOW
    end = time.monotonic() + limit
    while True:
        try:
            r = check()
            if r:
                return r
        except (OSError, AssertionError):
            pass
        if time.monotonic() > end:
            raise AssertionError(f"gave up after {limit} s: {what}")
        time.sleep(0.01)


def component(name, type_, metadata=(), **spec):
    """A Component as YAML text (JSON is YAML). metadata: pairs, or dicts for secretKeyRef and envRef."""
    items = [m if isinstance(m, dict) else {"name": m[0], "value": m[1]} for m in metadata]
    doc = {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name},
           "spec": {"type": type_, "version": "v1", "metadata": items}}
    for k, v in spec.items():
        if k in ("scopes", "auth"):
            doc[k] = v
        else:
            doc["spec"][k] = v
    return json.dumps(doc)


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Web:
    """A server of any protocol for tests: `handler` (of socketserver) in a thread for each connection. .port; close()."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 200

        def handle_error(self, request, address):
            pass # clients that go away are what is tested

    def __init__(self, handler, tls=None):
        self.server = self.Server(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Daprd:
    """One sidecar. Leaves no process behind: close() fails the test if it does not exit by itself with 0."""

    def __init__(self, folder, resources=(), app_id="app", config=None, args=(), env=None, plugins_path=None, user=None):
        self.folder = pathlib.Path(folder)
        self.resources = self.folder / "resources"
        self.resources.mkdir(exist_ok=True)
        for i, text in enumerate(resources):
            (self.resources / f"r{i}.yaml").write_text(text)
        self.http, self.grpc, self.internal, self.metrics = (free_port() for _ in range(4))
        self.app_id, self.log_path = app_id, self.folder / f"daprd-{app_id}.log"
        self.argv = [str(BUILD / "bin/daprd"), f"--app-id={app_id}", f"--dapr-http-port={self.http}", f"--dapr-grpc-port={self.grpc}",
                     f"--dapr-internal-grpc-port={self.internal}", f"--metrics-port={self.metrics}",
                     "--dapr-listen-addresses=127.0.0.1", "--dapr-internal-grpc-listen-address=127.0.0.1",
                     "--metrics-listen-address=127.0.0.1", f"--resources-path={self.resources}", "--log-level=debug"]
        if config:
            (self.folder / "config.yaml").write_text(config)
            self.argv.append(f"--config={self.folder / 'config.yaml'}")
        self.argv += args
        self.env = dict(env or {})
        for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if k in os.environ:
                self.env[k] = os.environ[k]
        if plugins_path:
            self.env["DAPR_PLUGINS_PATH"] = str(plugins_path)
        self.proc, self.user = None, {"user": user, "group": user, "extra_groups": []} if user else {}

    def start(self, healthy=True):
        self.out = open(self.log_path, "ab")
        self.proc = subprocess.Popen(self.argv, stdout=self.out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self.env,
                                     cwd=self.folder, **self.user)
        if healthy:
            self.wait_healthy()
        return self

    def wait_healthy(self):
        def up():
            assert self.proc.poll() is None or pytest.fail(f"daprd ended with {self.proc.returncode}:\n{self.log()[-3000:]}")
            return self.request("GET", "/v1.0/healthz").status == 204
        wait_until("daprd is healthy", up)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def request(self, method, path, body=None, headers=None, timeout=15):
        data = body if body is None or isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        r = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(r, timeout=timeout * SLOW) as f:
                return Reply(f.status, f.headers, f.read())
        except urllib.error.HTTPError as e:
            with e:
                return Reply(e.code, e.headers, e.read())

    def metadata(self):
        return self.request("GET", "/v1.0/metadata").json()

    def metric_text(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/", timeout=10) as f:
            return f.read().decode()

    def children(self, resolver=False):
        """pid -> program of the plugin processes; the name resolver's, which every sidecar has, only when asked for."""
        out = {}
        for d in os.listdir("/proc"):
            if not d.isdigit():
                continue
            try:
                stat = open(f"/proc/{d}/stat").read()
                if int(stat[stat.rindex(")") + 2:].split()[1]) == self.proc.pid and stat[stat.rindex(")") + 2] != "Z":
                    out[int(d)] = os.path.basename(os.readlink(f"/proc/{d}/exe"))
            except OSError:
                pass
        return {pid: exe for pid, exe in out.items() if resolver or not exe.startswith("nameresolution.")}

    def wait_exit(self, limit=20):
        return self.proc.wait(limit)

    def close(self):
        if not self.proc:
            return
        if self.proc.poll() is None:
            kids = self.children(resolver=True)
            self.proc.send_signal(signal.SIGINT)
            try:
                code = self.proc.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
                pytest.fail(f"daprd did not stop within 20 s:\n{self.log()[-3000:]}")
            assert code == 0, f"daprd exited with {code}:\n{self.log()[-3000:]}"
            wait_until("all plugin processes are gone", lambda: not any(os.path.exists(f"/proc/{p}") for p in kids), 5)
        self.out.close()
        if BUILD.name in ("asan", "tsan"):  # an exit code of 1 may have been wanted
            assert not (found := re.search(r"(\w+Sanitizer|runtime error): .*", self.log())), f"{found[0]}:\n{self.log()[-9000:]}"


@pytest.fixture
def folder():
    d = tempfile.mkdtemp(prefix="microdapr-")
    yield pathlib.Path(d)
    shutil.rmtree(d, ignore_errors=True)


@pytest.fixture
def daprd(folder):
    """Makes sidecars: daprd(resources=[...], ...) -> a started Daprd; all are closed at the end."""
    made = []

    def make(resources=(), start=True, healthy=True, **kw):
        sub = folder / f"d{len(made)}"
        sub.mkdir()
        d = Daprd(sub, resources, **kw)
        made.append(d)
        if start:
            d.start(healthy)
        return d
    yield make
    for d in reversed(made):
        d.close()


class Redis:
    def __init__(self, folder, *args):
        self.port = free_port()
        self.addr = f"127.0.0.1:{self.port}"
        self.folder, self.args = folder, args
        self.start()

    def start(self):
        self.proc = subprocess.Popen(["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", str(self.folder),
                                      "--bind", "127.0.0.1", *self.args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("redis answers", lambda: self.cli("PING") == "PONG")

    def cli(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, timeout=10).stdout.strip()

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def close(self):
        self.proc.terminate()
        self.proc.wait(10)


@pytest.fixture
def redis(folder):
    r = Redis(folder)
    yield r
    r.close()


class Etcd:
    """A one-node etcd server."""

    def __init__(self, folder):
        self.port, peer = free_port(), free_port()
        self.addr = f"127.0.0.1:{self.port}"
        self.argv = ["etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", f"http://{self.addr}", "--advertise-client-urls",
                     f"http://{self.addr}", "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls",
                     f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}"]
        self.proc = None

    def start(self):
        self.proc = subprocess.Popen(self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("etcd answers", lambda: b"true" in urllib.request.urlopen(f"http://{self.addr}/health", timeout=2).read())
        return self

    def close(self):
        if self.proc:
            self.proc.terminate()
            self.proc.wait(10)


@pytest.fixture
def etcd(folder):
    """Not started yet: call start()."""
    e = Etcd(folder)
    yield e
    e.close()


class Postgres:
    """A PostgreSQL server of Debian with trust on 127.0.0.1 and its own socket. initdb and the server refuse to run as root."""

    def __init__(self, folder, *args):
        self.bin = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))[-1]
        self.port, self.args = free_port(), args
        self.home = folder / "pg"
        self.home.mkdir()
        if os.getuid() == 0:
            os.chmod(folder, 0o755)
            shutil.chown(self.home, "postgres")
        self.tool("initdb", "-D", self.data, "-U", "dapr", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        self.proc = None

    data = property(lambda self: str(self.home / "data"))
    db = "postgres"
    dsn = property(lambda self: f"host=127.0.0.1 port={self.port} user=dapr dbname={self.db}")

    def command(self, name, *args):
        words = [str(self.bin / name), *args]
        return ["runuser", "-u", "postgres", "--", *words] if os.getuid() == 0 else words

    def tool(self, name, *args):
        return subprocess.run(self.command(name, *args), check=True, capture_output=True, text=True, timeout=60, cwd=self.home).stdout

    def start(self):
        self.tool("pg_ctl", "-D", self.data, "-s", "-w", "-l", str(self.home / "log"), "-o",
                  f"-p {self.port} -k {self.home} -c listen_addresses=127.0.0.1 -c fsync=off {' '.join(self.args)}", "start")
        self.proc = True
        return self

    def stop(self, mode="fast"):
        if self.proc:
            self.proc = None
            self.tool("pg_ctl", "-D", self.data, "-s", "-w", "-m", mode, "stop")

    def sql(self, text):
        """Rows as psql -At prints them."""
        return subprocess.run([str(self.bin / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "dapr", "-d", self.db, "-X", "-q", "-At",
                               "-v", "ON_ERROR_STOP=1", "-c", text], check=True, capture_output=True, text=True, timeout=30).stdout.strip()


@pytest.fixture
def own_postgres(folder):
    """A server of the test's own, to be stopped and changed."""
    p = Postgres(folder)
    yield p.start()
    p.stop("immediate")


@pytest.fixture(scope="session")
def postgres_server():
    folder = tempfile.mkdtemp(prefix="microdapr-pg-")
    p = Postgres(pathlib.Path(folder))
    yield p.start()
    p.stop("immediate")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server):
    """An empty database of its own on the server that all tests share."""
    p = copy.copy(postgres_server)
    p.db = f"test_{os.urandom(4).hex()}"
    postgres_server.sql(f"CREATE DATABASE {p.db}")
    yield p
    postgres_server.sql(f"DROP DATABASE {p.db} WITH (FORCE)")
