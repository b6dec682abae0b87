"""Swapping plugins under load: no call fails, no message is lost, candidates that are wrong never come to serve.
Numbers of a drill: SWAP_CALLERS (8) on state, SWAP_PUBLISHERS (4) on publish/subscribe, SWAPS (6); SWAP_BROKEN (4) wrong candidates,
SWAP_CRASHES (2) of those that die after the shift, SWAP_SHADOWS (2) of healthy ones under shadow for SWAP_SHADOW_TIME (700ms)."""
import http.client, json, os, shutil, signal, subprocess, threading, time

import pytest

from conftest import BUILD, ROOT, component, free_port, wait_until
from lean_load import LeanLoad
from test_pubsub import declared, redis_pub

CALLERS, PUBLISHERS = int(os.environ.get("SWAP_CALLERS", 8)), int(os.environ.get("SWAP_PUBLISHERS", 4))
SWAPS, BROKEN = int(os.environ.get("SWAPS", 6)), int(os.environ.get("SWAP_BROKEN", 4))
CRASHES = int(os.environ.get("SWAP_CRASHES", 2))
SHADOWS, SHADOW_TIME = int(os.environ.get("SWAP_SHADOWS", 2)), os.environ.get("SWAP_SHADOW_TIME", "700ms")
APP = f"swap-{os.getpid()}"


def ctl(*args, limit=90):
    return subprocess.run([str(BUILD / "bin/daprctl"), "plugin", *args, "--app-id", APP], env={"NO_COLOR": "1"}, capture_output=True, text=True,
                          timeout=limit)


def version_of(folder, plugin, version):
    """The plugin again, as another version."""
    to = folder / f"{plugin}-{version}"
    shutil.copytree(BUILD / "plugins" / plugin, to)
    text = (to / "plugin.yaml").read_text()
    (to / "plugin.yaml").write_text("\n".join(f"version: {version}" if l.startswith("version:") else l for l in text.splitlines()) + "\n")
    return to


def wrong_candidate(folder, how):
    to = folder / f"wrong-{how}"
    to.mkdir()
    sanitize = ["-fsanitize=address,undefined"] if BUILD.name == "asan" else []
    subprocess.run(["gcc", "-std=gnu17", "-O1", "-Wall", "-Werror", f"-DWRONG=BAD_{how.upper()}", f"-I{BUILD}/include", *sanitize, "-o", str(to / "wrong"),
                    str(ROOT / "tests/conformance/wrong_store.c"), str(BUILD / "lib/libdapr-plugin.a"), "-lm", "-lpthread"], check=True)
    text = (BUILD / "plugins/state.sqlite/plugin.yaml").read_text()
    (to / "plugin.yaml").write_text("\n".join("version: 9.9.9" if l.startswith("version:") else "executable: wrong" if l.startswith("executable:") else l
                                              for l in text.splitlines()) + "\n")
    return to


class Load:
    """Callers that write, read back and compare."""

    def __init__(self, d, callers=CALLERS):
        self.d, self.done, self.failures = d, threading.Event(), []
        self.threads = [threading.Thread(target=self.guard, args=(self.call, i), daemon=True) for i in range(callers)]
        for t in self.threads:
            t.start()

    def guard(self, fn, i):
        c = http.client.HTTPConnection("127.0.0.1", self.d.http, timeout=30)
        n = 0
        while not self.done.is_set():
            n += 1
            try:
                fn(c, i, n)
            except Exception as e:
                self.failures.append((i, n, repr(e)))
                c.close()
                if len(self.failures) > 1000:
                    return
        c.close()

    def ask(self, c, method, path, body=None):
        c.request(method, path, body, {"content-type": "application/json"})
        r = c.getresponse()
        return r.status, r.read()

    def call(self, c, i, n):
        status, data = self.ask(c, "POST", "/v1.0/state/store", json.dumps([{"key": f"k{i}", "value": n}]))
        assert status == 204, (status, data)
        status, data = self.ask(c, "GET", f"/v1.0/state/store/k{i}")
        assert status == 200 and json.loads(data) == n, (status, data)

    def stop(self):
        self.done.set()
        for t in self.threads:
            t.join()
        return self.failures[:5]


def store(d_folder):
    return component("store", "state.sqlite", [("connectionString", str(d_folder / "swap.db"))])


@pytest.fixture
def loaded(daprd, redis, folder):
    """A sidecar with a store and a broker under lean callers, and two versions of either's plugin."""
    port = free_port()
    d = daprd([store(folder), redis_pub(redis), declared("v2alpha1", "s", "t", routes={"default": "/got"})], app_id=APP, args=(f"--app-port={port}",),
              healthy=False)
    versions = {"store": [version_of(folder, "state.sqlite", v) for v in ("1.1.0", "1.2.0")],
                "pub": [version_of(folder, "pubsub.redis", v) for v in ("1.1.0", "1.2.0")]}
    with LeanLoad(d, port, CALLERS, PUBLISHERS) as load:
        d.wait_healthy()
        load.phase("without")
        time.sleep(0.5 + SWAPS / 10)
        yield d, load, versions


def fds(d):
    return len(os.listdir(f"/proc/{d.proc.pid}/fd"))


def test_swaps_under_load_lose_nothing(loaded):
    d, load, versions = loaded
    load.phase("swaps")
    for n in range(SWAPS):
        name = ("store", "pub")[n % 2]
        path = versions[name][n // 2 % 2]
        r = ctl("upgrade", name, "--path", str(path))
        assert r.returncode == 0, r.stderr
        assert f"{name} is served by" in r.stdout and path.name.split("-")[-1] in r.stdout
    r = load.stop()
    assert (r["failed"], r["failures"], r["lost"]) == (0, [], 0)
    calls = {name: r["phases"][name] for name in ("without", "swaps")}
    print(f"\n{SWAPS} swaps, {CALLERS}+{PUBLISHERS} callers: {sum(c['n'] for c in calls.values())} calls, 0 failed; {r['sent']} messages, 0 lost, "
          f"{r['doubled']} twice; p99 {calls['without']['p99']:.1f} ms without, {calls['swaps']['p99']:.1f} ms during swaps, at most "
          f"{calls['swaps']['max']:.0f} ms; {fds(d)} descriptors")
    assert len(d.children()) <= 6  # those that stand by for a moment


def test_a_new_version_that_dies_under_calls_costs_none(loaded):
    """SWAP_CRASHES (2) times: the new version is killed while callers write to it; the one before takes over what was in its hands."""
    d, load, versions = loaded
    load.phase("crashes")
    for n in range(CRASHES):
        name = ("store", "pub")[n % 2]
        before = set(d.children())
        r = ctl("upgrade", name, "--path", str(versions[name][n // 2 % 2]))
        assert r.returncode == 0, r.stderr
        new = set(d.children()) - before
        assert len(new) == 1
        os.kill(new.pop(), signal.SIGABRT)
        wait_until("it is told", lambda: sum(e["event"] == "rolled back" and "signal 6" in e["detail"] for e in events(name)) == n // 2 + 1)
    r = load.stop()
    assert (r["failed"], r["failures"], r["lost"]) == (0, [], 0)


def events(name):
    r = ctl("history", name, "-o", "json")
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)["events"]


def test_candidates_that_are_wrong_never_come_to_serve(daprd, folder):
    d = daprd([store(folder)], app_id=APP)
    ways = {"hello": "does not serve state.sqlite", "init": "this build knows no connection string", "crash": "was killed by signal 11",
            "answers": "wrong answers under shadow"}
    candidates = {how: wrong_candidate(folder, how) for how in ways}
    pid = list(d.children())
    load = Load(d)
    for n in range(BROKEN):
        how = list(ways)[n % len(ways)]
        r = ctl("upgrade", "store", "--path", str(candidates[how]), *(["--shadow", "300ms"] if how == "answers" else []))
        assert r.returncode == 1 and ways[how] in r.stderr, (how, r.stderr)
    assert load.stop() == []
    assert list(d.children()) == pid, "it was never moved"
    events = [e for e in json.loads(ctl("history", "store", "-o", "json").stdout)["events"] if e["event"] == "rolled back"]
    assert len(events) == BROKEN and all(ways[list(ways)[n % len(ways)]] in e["detail"] for n, e in enumerate(events))


class Readers(Load):
    """They ask for what is not there, which any store answers alike."""

    def call(self, c, i, n):
        status, data = self.ask(c, "GET", f"/v1.0/state/store/none{i}")
        assert status == 204, (status, data)


def test_candidates_that_are_slow_leak_or_crash_under_shadow_are_told_apart(daprd, folder):
    d = daprd([store(folder)], app_id=APP)
    ways = {"slow": ("1500ms", "slower under shadow: p"), "leak": ("2s", "leaks under shadow: it has grown by"), "read": ("2s", "was killed by signal 6")}
    pid = list(d.children())
    load = Readers(d, 8)
    for how, (window, text) in ways.items():
        r = ctl("upgrade", "store", "--path", str(wrong_candidate(folder, how)), "--shadow", window)
        assert r.returncode == 1 and text in r.stderr, (how, r.stdout, r.stderr)
    assert load.stop() == []
    assert list(d.children()) == pid, "it was never moved"
    details = [e["detail"] for e in json.loads(ctl("history", "store", "-o", "json").stdout)["events"] if e["event"] == "rolled back"]
    assert len(details) == len(ways) and all(text in detail for (_, text), detail in zip(ways.values(), details))


def test_a_healthy_candidate_passes_the_shadow_under_writes(daprd, folder):
    """SWAP_SHADOWS (2) times, with SWAP_CALLERS writing and reading."""
    d = daprd([store(folder)], app_id=APP)
    others = [version_of(folder, "state.sqlite", v) for v in ("1.1.0", "1.2.0")]
    with LeanLoad(d, callers=CALLERS) as load:
        load.phase("shadow")
        for n in range(SHADOWS):
            r = ctl("upgrade", "store", "--path", str(others[n % 2]), "--shadow", SHADOW_TIME)
            assert r.returncode == 0 and ", 0 differ" in r.stdout, (n, r.stdout, r.stderr)
        r = load.stop()
    assert r["failed"] == 0, r["failures"]


def test_a_new_version_that_dies_after_the_shift_gives_the_calls_back(daprd, folder):
    d = daprd([store(folder)], app_id=APP)
    old = list(d.children())
    d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1}])
    assert ctl("upgrade", "store", "--path", str(version_of(folder, "state.sqlite", "2.0.0"))).returncode == 0
    new = [p for p in d.children() if p not in old]
    assert len(new) == 1
    os.kill(new[0], signal.SIGABRT)
    wait_until("the old one serves again", lambda: list(d.children()) == old)
    assert d.request("GET", "/v1.0/state/store/k").json() == 1
    assert "signal 6" in [e for e in json.loads(ctl("history", "store", "-o", "json").stdout)["events"] if e["event"] == "rolled back"][0]["detail"]


def test_upgrade_compare_roll_back_disable(daprd, folder):
    d = daprd([store(folder)], app_id=APP)
    other = version_of(folder, "state.sqlite", "2.0.0")
    d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1}])
    load = Load(d, 2)
    r = ctl("upgrade", "store", "--path", str(other), "--shadow", "500ms")
    assert r.returncode == 0 and "state.sqlite 2.0.0" in r.stdout and "0 differ" in r.stdout, (r.stdout, r.stderr)
    r = ctl("rollback", "store")
    assert r.returncode == 0 and "2.0.0" not in r.stdout, r.stderr
    assert load.stop() == []
    assert ctl("disable", "store").returncode == 0
    r = d.request("GET", "/v1.0/state/store/k")
    assert r.status == 500 and b"is disabled by the operator" in r.body
    wait_until("its processes are gone", lambda: len(d.children()) <= 1)
    assert ctl("enable", "store").returncode == 0
    assert d.request("GET", "/v1.0/state/store/k").json() == 1
    events = [e["event"] for e in json.loads(ctl("history", "store", "-o", "json").stdout)["events"]]
    assert events == ["started", "shadowed", "swapped", "swapped", "disabled", "enabled"]


def test_components_that_share_a_process_move_together(daprd, folder):
    """Not by themselves; with --all they do, and come back with it. One that cannot brings all back."""
    d = daprd([component(n, "secretstores.local.env", [("prefix", f"{n}_")]) for n in ("one", "two")], app_id=APP)
    other = version_of(folder, "secretstores.local.env", "2.0.0")
    first = list(d.children())
    assert len(first) == 1
    for args in (("upgrade", "one", "--path", str(other)), ("rollback", "two")):
        r = ctl(*args)
        assert r.returncode == 1 and f"shares its process with {'two' if args[1] == 'one' else 'one'}" in r.stderr and "--all" in r.stderr
    assert list(d.children()) == first
    r = ctl("upgrade", "one", "--path", str(other), "--all")
    assert r.returncode == 0 and "one is served by secretstores.local.env 2.0.0" in r.stdout, r.stderr
    second = [p for p in d.children() if p not in first]
    assert len(second) == 1, "one new process for both"
    for n in ("one", "two"):
        assert d.request("GET", f"/v1.0/secrets/{n}/none").status == 200
        assert [e["event"] for e in events(n)] == ["started", "swapped"]
    assert ctl("rollback", "two", "--all").returncode == 0
    assert all([e["event"] for e in events(n)] == ["started", "swapped", "swapped"] for n in ("one", "two"))
    wrong = version_of(folder, "secretstores.local.env", "3.0.0")
    (wrong / "secretstores.local.env").write_text("#!/bin/sh\nexit 3\n")
    r = ctl("upgrade", "one", "--path", str(wrong), "--all")
    assert r.returncode == 1 and "exit code 3" in r.stderr, r.stderr


def test_the_folder_of_the_sources_does_for_the_built_one(daprd, folder):
    """...and that a store keeps its values in memory only is told when they are gone."""
    d = daprd([component("store", "state.in-memory")], app_id=APP)
    sources = folder / "sources"
    sources.mkdir()
    version_of(folder, "state.in-memory", "2.0.0").rename(sources / "state.in-memory")
    shutil.copy(sources / "state.in-memory/plugin.yaml", sources)
    d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1}])
    r = ctl("upgrade", "store", "--path", str(sources))
    assert r.returncode == 0 and "store is served by state.in-memory 2.0.0" in r.stdout and "What store held is gone" in r.stderr, r.stdout + r.stderr
    assert d.request("GET", "/v1.0/state/store/k").status == 204


def test_what_cannot_be_swapped_says_why(daprd, folder):
    d = daprd([store(folder)], app_id=APP)
    unbuilt = folder / "unbuilt"
    unbuilt.mkdir()
    shutil.copy(BUILD / "plugins/state.sqlite/plugin.yaml", unbuilt)
    for args, text in ((("upgrade", "store"), "Say to what"), (("upgrade", "store", "--version", "7.7.7"), "version 7.7.7 of a plugin for state.sqlite is not installed"),
                       (("upgrade", "store@7.7.7"), "version 7.7.7 of a plugin for state.sqlite is not installed"),
                       (("upgrade", "store", "--path", str(folder)), "does not exist"), (("rollback", "store"), "no version before"),
                       (("upgrade", "store", "--path", str(unbuilt)), f"neither {unbuilt}/state.sqlite nor {unbuilt}/state.sqlite/state.sqlite; build the plugin first"),
                       (("upgrade", "none", "--version", "1.0.0"), "no such component"), (("history", "none"), "nothing is known"),
                       (("upgrade", "store", "--path", str(BUILD / "plugins/state.in-memory")), "does not serve state.sqlite")):
        r = ctl(*args)
        assert r.returncode == 1 and text in r.stderr, (args, r.stderr)
    assert d.request("GET", "/v1.0/state/store/k").status == 204
