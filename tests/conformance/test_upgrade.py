"""The kernel takes another program in place, under load: the same process, the same plugin processes, no failed request.
Numbers of a drill: UPGRADES (4), UPGRADE_CALLERS (8) on state, UPGRADE_PUBLISHERS (2), UPGRADE_STREAMS (1)."""
import http.client, http.server, os, shutil, socket, subprocess, threading, time

import grpc
import pytest

from conftest import BUILD, component, free_port, wait_until
from lean_load import LeanLoad
from test_mesh import grpc_app, http_app, pair, start  # noqa: F401  (fixtures)
from test_pubsub import app, declared, redis_pub  # noqa: F401  (a fixture)
from test_swap import version_of

UPGRADES, CALLERS = int(os.environ.get("UPGRADES", 4)), int(os.environ.get("UPGRADE_CALLERS", 8))
PUBLISHERS, STREAMS = int(os.environ.get("UPGRADE_PUBLISHERS", 2)), int(os.environ.get("UPGRADE_STREAMS", 1))
APP = f"upgrade-{os.getpid()}"


def upgrade(*args):
    return subprocess.run([str(BUILD / "bin/daprctl"), "upgrade", "--app-id", APP, *args], env={"NO_COLOR": "1"}, capture_output=True, text=True,
                          timeout=100)


def test_upgrades_under_load(daprd, redis, folder):
    """CPU-lean callers, so that times are the sidecar's; the app is the load's own."""
    port = free_port()
    d = daprd([component("store", "state.sqlite", [("connectionString", str(folder / "u.db"))]), component("memory", "state.in-memory"),
               redis_pub(redis), declared("v2alpha1", "s", "t", routes={"default": "/got"})], app_id=APP, args=(f"--app-port={port}",), healthy=False)
    with LeanLoad(d, port, CALLERS, PUBLISHERS, STREAMS) as load:
        d.wait_healthy()
        assert d.request("POST", "/v1.0/state/memory", [{"key": "k", "value": "kept"}]).status == 204
        assert d.request("PUT", "/v1.0/metadata/note", "mine").status == 204
        wait_until("the resolver runs", lambda: len(d.children(resolver=True)) == 4)
        plugins, pid = d.children(resolver=True), d.proc.pid
        load.phase("without")
        time.sleep(0.5)
        load.phase("upgrades")
        for n in range(UPGRADES):
            r = upgrade()
            assert r.returncode == 0, r.stderr
        r = load.stop()
    assert (r["failed"], r["failures"], r["lost"]) == (0, [], 0)
    assert d.proc.poll() is None and d.proc.pid == pid
    assert d.children(resolver=True) == plugins, "no plugin was restarted"
    assert d.request("GET", "/v1.0/state/memory/k").json() == "kept"
    assert d.metadata()["extended"]["note"] == "mine"
    assert r["pauses"]["n"] >= UPGRADES * STREAMS
    calls = {name: r["phases"][name] for name in ("without", "upgrades")}
    print(f"\n{UPGRADES} upgrades, {CALLERS}+{PUBLISHERS} callers: {sum(c['n'] for c in calls.values())} calls, 0 failed; {r['sent']} messages, 0 lost, "
          f"{r['doubled']} twice; streams back after p50 {r['pauses']['p50']:.0f} ms, p99 {r['pauses']['p99']:.0f}, at most {r['pauses']['max']:.0f} ms; "
          f"calls p99 {calls['without']['p99']:.1f} ms without, {calls['upgrades']['p99']:.1f} ms during upgrades, at most {calls['upgrades']['max']:.0f} ms")


class SlowApp(http.server.BaseHTTPRequestHandler):
    """/slow answers after a while, /events never ends, /upload answers with the length of the body."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/events":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while not self.server.over.wait(0.02):
                    self.wfile.write(b"3\r\nev\n\r\n")
            except OSError:
                pass
            self.close_connection = True
            return
        if self.path == "/slow":
            self.server.asked.set()
            self.server.let_go.wait(20)
        self.answer(b"done")

    def do_POST(self):
        self.answer(str(len(self.rfile.read(int(self.headers["content-length"])))).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def slow_app():
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowApp)
    s.daemon_threads, s.over, s.asked, s.let_go = True, threading.Event(), threading.Event(), threading.Event()
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.over.set()
    s.shutdown()
    s.server_close()


def in_background(fn):
    got = []
    t = threading.Thread(target=lambda: got.append(fn()), daemon=True)
    t.start()
    return t, got


def test_what_runs_long_gets_its_time_and_holds_up_nobody(daprd, slow_app):
    """A slow call, half an upload: they end as they would, and others are served meanwhile. Only what goes on for ever is cut."""
    d = daprd([component("store", "state.in-memory")], app_id=APP, args=(f"--app-port={slow_app.server_port}", "--dapr-graceful-shutdown-seconds=3"))
    events = socket.create_connection(("127.0.0.1", d.http))
    events.sendall(b"GET /v1.0/invoke/%s/method/events HTTP/1.1\r\nHost: x\r\n\r\n" % APP.encode())
    assert events.recv(4096).startswith(b"HTTP/1.1 200")
    upload = http.client.HTTPConnection("127.0.0.1", d.http, timeout=30)
    upload.putrequest("POST", f"/v1.0/invoke/{APP}/method/upload")
    upload.putheader("content-length", "200000")
    upload.endheaders()
    upload.send(b"x" * 100000)
    slow, slow_got = in_background(lambda: d.request("GET", f"/v1.0/invoke/{APP}/method/slow", timeout=30))
    assert slow_app.asked.wait(10)
    done, done_got = in_background(upgrade)
    wait_until("the upgrade was asked for", lambda: "takes over" in d.log() or not done.is_alive() or d.request("GET", "/v1.0/healthz").status == 204)
    for n in range(50):
        assert d.request("POST", "/v1.0/state/store", [{"key": "k", "value": n}]).status == 204, "it serves as ever"
    assert done.is_alive() and not slow_got, "it still waits for them"
    upload.send(b"x" * 100000)
    r = upload.getresponse()
    assert (r.status, r.read()) == (200, b"200000")
    slow_app.let_go.set()
    slow.join(20)
    assert slow_got and slow_got[0].status == 200 and slow_got[0].body == b"done"
    done.join(30)
    assert done_got and done_got[0].returncode == 0, done_got
    assert d.request("GET", "/v1.0/state/store/k").json() == 49
    upload.request("POST", f"/v1.0/invoke/{APP}/method/upload", b"again")
    assert upload.getresponse().status == 200, "on the same connection"
    events.settimeout(10)
    while events.recv(65536):
        pass
    events.close()


def test_programs_that_cannot_take_over_are_refused(daprd, folder):
    d = daprd([component("store", "state.in-memory")], app_id=APP)
    d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1}])
    other = folder / "other"
    other.write_text("#!/bin/sh\necho microdapr-ledger 99\n")
    other.chmod(0o755)
    for path, text in ((other, "knows version 99 of the ledger, this daprd writes version 2"), ("/bin/true", "is no daprd that can take over"),
                       (folder / "none", "cannot be run: No such file"), (folder, "cannot be run")):
        r = upgrade("--binary", str(path))
        assert r.returncode == 1 and text in r.stderr, r.stderr
    assert d.request("GET", "/v1.0/state/store/k").json() == 1
    copy = folder / "bin"
    copy.mkdir()
    shutil.copy(BUILD / "bin/daprd", copy / "daprd")
    os.symlink(BUILD / "plugins", folder / "plugins")
    assert upgrade("--binary", str(copy / "daprd")).returncode == 0
    assert os.readlink(f"/proc/{d.proc.pid}/exe") == str(copy / "daprd") and d.request("GET", "/v1.0/state/store/k").json() == 1


def test_a_component_that_changed_meanwhile_is_started_anew(daprd):
    d = daprd([component("a", "state.in-memory"), component("b", "state.in-memory")], app_id=APP)
    for name in "ab":
        d.request("POST", f"/v1.0/state/{name}", [{"key": "k", "value": 1}])
    (d.resources / "r1.yaml").write_text(component("b", "state.in-memory", [("cleanupInterval", "30s")]))
    assert upgrade().returncode == 0
    assert d.request("GET", "/v1.0/state/a/k").json() == 1
    assert d.request("GET", "/v1.0/state/b/k").status == 204, "a new process"
    wait_until("the old one has gone", lambda: len(d.children()) == 2)


def test_what_was_decided_before_counts_afterwards(daprd, app, redis, folder):
    """A disabled component, a paused subscription, the version to go back to, an HTTP app's subscription to a configuration."""
    def ctl(*args):
        return subprocess.run([str(BUILD / "bin/daprctl"), *args, "--app-id", APP], env={"NO_COLOR": "1"}, capture_output=True, text=True, timeout=60)
    a = app()
    host, port = redis.addr.split(":")
    d = daprd([component("off", "state.in-memory"), component("newer", "state.in-memory"), redis_pub(redis),
               component("settings", "configuration.redis", [("redisHost", redis.addr)]), declared("v2alpha1", "s", "t", routes={"default": "/got"})],
              app_id=APP, args=(f"--app-port={a.port}",))
    wait_until("the subscription stands", lambda: "active" in ctl("subscription", "list").stdout)
    watch = d.request("GET", "/v1.0/configuration/settings/subscribe?key=color").json()["id"]
    assert ctl("plugin", "disable", "off").returncode == 0
    assert ctl("plugin", "upgrade", "newer", "--path", str(version_of(folder, "state.in-memory", "9.0.0"))).returncode == 0
    assert ctl("subscription", "pause", "pub", "t").returncode == 0
    assert upgrade().returncode == 0
    r = d.request("GET", "/v1.0/state/off/k")
    assert r.status == 500 and b"is disabled by the operator" in r.body
    assert "paused" in ctl("subscription", "list").stdout
    assert ctl("plugin", "rollback", "newer").returncode == 0
    with socket.create_connection((host, int(port))) as s:
        def told():
            s.sendall(b"SET color blue%d\r\n" % time.monotonic_ns())
            s.recv(100)
            return a.got["/configuration/settings/color"]
        wait_until("the app is told of a change", told)
    assert d.request("GET", f"/v1.0/configuration/settings/{watch}/unsubscribe").json() == {"ok": True}


@pytest.mark.parametrize("ledger", ["9999", "0", "text"])
def test_a_ledger_that_is_none_stops_the_start(daprd, folder, ledger):
    d = daprd([], start=False, env={"MICRODAPR_LEDGER": ledger})
    d.start(healthy=False)
    assert d.wait_exit() == 1
    assert "cannot be used" in d.log()
    d.proc = None


def test_calls_between_sidecars_survive_upgrades_of_either(pair, http_app):
    """Upgrades of the caller and of the called one in turns."""
    callee, caller = pair(http_app)
    done, failures, calls = threading.Event(), [], []

    def call(i):
        while not done.is_set():
            r = caller.request("POST", f"/v1.0/invoke/{callee.app_id}/method/echo", {"n": i})
            calls.append(r.status)
            if r.status != 200:
                failures.append((r.status, r.body))
    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(4)]
    for t in threads:
        t.start()
    for n in range(UPGRADES):
        before = len(calls)
        wait_until("calls are answered", lambda: len(calls) > before + 20)
        r = subprocess.run([str(BUILD / "bin/daprctl"), "upgrade", "--app-id", (callee, caller)[n % 2].app_id], env={"NO_COLOR": "1"}, capture_output=True,
                           text=True, timeout=100)
        assert r.returncode == 0, r.stderr
    before = len(calls)
    wait_until("calls are answered", lambda: len(calls) > before + 20)
    done.set()
    for t in threads:
        t.join(20)
    assert failures == []


def test_a_proxied_conversation_is_told_to_connect_anew(start, daprd, grpc_app):
    d = start(grpc_app, "--dapr-graceful-shutdown-seconds=1", app_id=APP)
    channel = grpc.insecure_channel(f"127.0.0.1:{d.grpc}")
    md = (("dapr-app-id", APP),)

    def conversation():
        more = threading.Event()

        def requests():
            yield b"1"
            more.wait(60)
        return more, channel.stream_stream("/test.Echo/Both")(requests(), metadata=md)
    more, answers = conversation()
    assert next(answers) == b"1"
    assert upgrade().returncode == 0
    with pytest.raises(grpc.RpcError) as e:
        next(answers)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE, e.value
    more.set()
    again, answers = conversation()
    assert next(answers) == b"1"
    again.set()
    assert list(answers) == []
    channel.close()
