"""The kernel takes another program in place, under load: the same process, the same plugin processes, no failed request.
Numbers of a drill: UPGRADES (4), UPGRADE_CALLERS (8) on state, UPGRADE_PUBLISHERS (2), UPGRADE_STREAMS (1)."""
import json, os, shutil, subprocess, threading, time

import grpc
import pytest

from conftest import BUILD, component, wait_until
from test_pubsub import app, declared, redis_pub  # noqa: F401  (a fixture)
from test_swap import Load

UPGRADES, CALLERS = int(os.environ.get("UPGRADES", 4)), int(os.environ.get("UPGRADE_CALLERS", 8))
PUBLISHERS, STREAMS = int(os.environ.get("UPGRADE_PUBLISHERS", 2)), int(os.environ.get("UPGRADE_STREAMS", 1))
APP = f"upgrade-{os.getpid()}"


def upgrade(*args):
    return subprocess.run([str(BUILD / "bin/daprctl"), "upgrade", "--app-id", APP, *args], env={"NO_COLOR": "1"}, capture_output=True, text=True,
                          timeout=100)


class Stream:
    """A streaming subscription that connects again when it ends, and notes how long each pause was."""

    def __init__(self, d, topic):
        from dapr.proto import api_service_v1, api_v1
        self.d, self.topic, self.api, self.service = d, topic, api_v1, api_service_v1
        self.pauses, self.got, self.done, self.standing = [], set(), False, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.standing.wait(10)

    def run(self):
        ended = None
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.d.grpc}", options=[("grpc.initial_reconnect_backoff_ms", 10), ("grpc.min_reconnect_backoff_ms", 10)])
        while not self.done:
            answers = __import__("queue").Queue()
            r = self.api.SubscribeTopicEventsRequestAlpha1()
            r.initial_request.pubsub_name, r.initial_request.topic = "pub", self.topic
            answers.put(r)
            try:
                for m in self.service.DaprStub(self.channel).SubscribeTopicEventsAlpha1(iter(answers.get, None)):
                    if m.HasField("initial_response"):
                        if ended:
                            self.pauses.append(time.perf_counter() - ended)
                        self.standing.set()
                        continue
                    self.got.add(json.loads(m.event_message.data)["n"])
                    r = self.api.SubscribeTopicEventsRequestAlpha1()
                    r.event_processed.id, r.event_processed.status.status = m.event_message.id, 0
                    answers.put(r)
            except grpc.RpcError:
                pass
            ended = time.perf_counter()
            answers.put(None)

    def close(self):
        self.done = True
        self.channel.close()
        self.thread.join(10)


def test_upgrades_under_load(daprd, app, redis, folder):
    a = app()
    d = daprd([component("store", "state.sqlite", [("connectionString", str(folder / "u.db"))]), component("memory", "state.in-memory"),
               redis_pub(redis), declared("v2alpha1", "s", "t", routes={"default": "/got"})], app_id=APP, args=(f"--app-port={a.port}",))
    assert d.request("POST", "/v1.0/state/memory", [{"key": "k", "value": "kept"}]).status == 204
    assert d.request("PUT", "/v1.0/metadata/note", "mine").status == 204
    wait_until("the resolver runs", lambda: len(d.children(resolver=True)) == 4)
    plugins, pid = d.children(resolver=True), d.proc.pid
    streams = [Stream(d, "u") for _ in range(STREAMS)]
    load = Load(d, CALLERS, PUBLISHERS)
    begin = time.perf_counter()
    time.sleep(0.5)
    middle = time.perf_counter()
    for n in range(UPGRADES):
        r = upgrade()
        assert r.returncode == 0, r.stderr
    end = time.perf_counter()
    assert load.stop() == []
    assert d.proc.poll() is None and d.proc.pid == pid
    assert d.children(resolver=True) == plugins, "no plugin was restarted"
    assert d.request("GET", "/v1.0/state/memory/k").json() == "kept"
    assert d.metadata()["extended"]["note"] == "mine"
    wait_until("every message has come", lambda: set(load.sent) <= {e["n"] for e in a.data("/got")}, 30)
    pauses = sorted(p for s in streams for p in s.pauses)
    for s in streams:
        s.close()
    assert len(pauses) >= UPGRADES * STREAMS
    doubled = len(a.data("/got")) - len(set(load.sent))
    print(f"\n{UPGRADES} upgrades, {CALLERS}+{PUBLISHERS} callers: {len(load.times)} calls, 0 failed; {len(load.sent)} messages, 0 lost, {doubled} twice; "
          f"streams back after p50 {pauses[len(pauses) // 2] * 1e3:.0f} ms, at most {pauses[-1] * 1e3:.0f} ms; "
          f"p99 {load.p99(begin, middle) * 1e3:.1f} ms without, {load.p99(middle, end) * 1e3:.1f} ms during upgrades")


def test_programs_that_cannot_take_over_are_refused(daprd, folder):
    d = daprd([component("store", "state.in-memory")], app_id=APP)
    d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1}])
    other = folder / "other"
    other.write_text("#!/bin/sh\necho microdapr-ledger 99\n")
    other.chmod(0o755)
    for path, text in ((other, "knows version 99 of the ledger, this daprd writes version 1"), ("/bin/true", "is no daprd that can take over"),
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


@pytest.mark.parametrize("ledger", ["9999", "0", "text"])
def test_a_ledger_that_is_none_stops_the_start(daprd, folder, ledger):
    d = daprd([], start=False, env={"MICRODAPR_LEDGER": ledger})
    d.start(healthy=False)
    assert d.wait_exit() == 1
    assert "cannot be used" in d.log()
    d.proc = None
