"""Hot reload: what changes in the resources folder changes in the sidecar, under running calls, and nothing that is wrong takes away
what works. Numbers: RELOAD_CHANGES (10) changes while RELOAD_CALLERS (8) read and write; RELOAD_STORM_S (1.5) seconds of 50 changes each;
RELOAD_EVERY: each kind in each way, not in turns."""
import json, os, pathlib, shutil, signal, threading, time

import pytest

from conftest import component, wait_until
from lean_load import LeanLoad
from test_pubsub import app, declared, memory, publish, redis_pub  # noqa: F401  (a fixture)

STORM_S = float(os.environ.get("RELOAD_STORM_S", 1.5))
EVERY = "RELOAD_EVERY" in os.environ
CHANGES, CALLERS = int(os.environ.get("RELOAD_CHANGES", 10)), int(os.environ.get("RELOAD_CALLERS", 8))
HOT = json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"},
                  "spec": {"features": [{"name": "HotReload", "enabled": True}]}})


def write(d, name, *docs):
    """As a careful writer does it: beside, then in its place."""
    new = d.resources / (name + ".new")
    new.write_text("\n---\n".join(docs))
    new.rename(d.resources / name)


def names(d):
    return sorted(c["name"] for c in d.metadata().get("components", []))


def sqlite(d, **metadata):
    return component("store", "state.sqlite", [("connectionString", str(d.folder / "s.db")), *metadata.items()])


def pid_of(d, program):
    return next((p for p, exe in d.children().items() if exe == program), None)


class Callers:
    """Write and read back in a loop, and note everything that is not as it must be."""

    def __init__(self, d, n):
        self.d, self.done, self.calls, self.failures = d, threading.Event(), 0, []
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(n)]
        for t in self.threads:
            t.start()

    def run(self, i):
        n = 0
        while not self.done.is_set():
            n += 1
            try:
                r = self.d.request("POST", "/v1.0/state/store", [{"key": f"k{i}", "value": n}])
                if r.status == 204:
                    r = self.d.request("GET", f"/v1.0/state/store/k{i}")
                if r.status != 200 or r.json() != n:
                    self.failures.append((n, r.status, r.body))
            except OSError as e:
                self.failures.append((n, e))
            if len(self.failures) > 1000:
                return
            self.calls += 2

    def stop(self):
        self.done.set()
        for t in self.threads:
            t.join()
        return self.failures


def test_components_change_under_calls_and_a_broken_change_is_not_taken(daprd):
    d = daprd(config=HOT)
    write(d, "store.yaml", sqlite(d))
    wait_until("the store is there", lambda: names(d) == ["store"])
    callers = Callers(d, CALLERS)
    for n in range(CHANGES):
        write(d, "store.yaml", sqlite(d, busyTimeout=f"{2000 + n}ms"))
        wait_until("another process serves", lambda: d.log().count("Component updated: store (state.sqlite/v1)") == n + 2)
    write(d, "store.yaml", component("store", "state.sqlite", [("connectionString", str(d.folder / "none/such/s.db"))]))
    wait_until("the broken change is told of", lambda: "Component store stays as it was" in d.log())
    assert callers.stop() == []
    assert callers.calls > 0 and d.request("GET", "/v1.0/state/store/k0").status == 200


def test_half_written_files_keep_what_was_there(daprd):
    d = daprd(config=HOT)
    whole = component("a", "state.in-memory") + "\n---\n" + component("b", "state.in-memory")
    write(d, "two.yaml", whole)
    wait_until("both are there", lambda: names(d) == ["a", "b"])
    d.request("POST", "/v1.0/state/b", [{"key": "k", "value": 1}])
    (d.resources / "two.yaml").write_text(whole[:len(whole) - 30])
    wait_until("the place is told", lambda: "two.yaml could not be read as a whole" in d.log())
    assert "Component b stays as it was" in d.log() and f"{d.resources}/two.yaml:3" in d.log()
    assert names(d) == ["a", "b"] and d.request("GET", "/v1.0/state/b/k").json() == 1  # the same process still
    (d.resources / "two.yaml").write_text(component("a", "state.in-memory"))
    wait_until("only one is left", lambda: names(d) == ["a"])
    (d.resources / "two.yaml").unlink()
    wait_until("none is left", lambda: names(d) == [])
    wait_until("its process is gone", lambda: d.children() == {})


def test_new_components_that_fail_stop_nothing(daprd):
    d = daprd([component("good", "state.in-memory")], config=HOT)
    write(d, "bad.yaml", component("bad", "state.sqlite"), component("typo", "state.sqlight"))
    wait_until("both are told of", lambda: d.log().count("Ignoring error processing component") >= 2)
    assert names(d) == ["good"]
    write(d, "bad.yaml", sqlite(d))
    wait_until("it is put right", lambda: names(d) == ["good", "store"])


def test_sighup_reads_the_resources_without_the_feature(daprd):
    d = daprd([component("a", "state.in-memory")])
    write(d, "b.yaml", component("b", "state.in-memory"))
    d.proc.send_signal(signal.SIGHUP)
    wait_until("the new one is there", lambda: names(d) == ["a", "b"])
    assert "Hot reloading enabled" not in d.log()


def test_secrets_that_change_reach_the_component(daprd, redis):
    d = daprd(config=HOT)
    secrets = d.folder / "secrets.json"
    secrets.write_text(json.dumps({"host": redis.addr}))
    store = component("store", "state.redis", [{"name": "redisHost", "secretKeyRef": {"name": "host", "key": "host"}}], auth={"secretStore": "vault"})
    def vault(file):
        return component("vault", "secretstores.local.file", [("secretsFile", str(file))])
    write(d, "all.yaml", vault(secrets), store)
    wait_until("both are there", lambda: names(d) == ["store", "vault"])
    before = pid_of(d, "state.redis")
    others = d.folder / "others.json"
    others.write_text(json.dumps({"host": redis.addr.replace("127.0.0.1", "localhost")}))
    write(d, "all.yaml", vault(others), store)
    wait_until("the store was exchanged", lambda: "Component updated: store" in d.log() and pid_of(d, "state.redis") != before)


@pytest.mark.parametrize("broker", ["memory", "redis"])
def test_a_broker_that_changes_loses_no_message(daprd, app, redis, broker):
    def pub(n):
        extra = ("redeliverInterval", f"{20 + n}s")
        return memory(extra) if broker == "memory" else redis_pub(redis, extra)
    a = app()
    d = daprd(config=HOT, args=(f"--app-port={a.port}",))
    write(d, "all.yaml", pub(0), declared("v2alpha1", "s", "t", routes={"default": "/got"}))
    wait_until("the subscription is there", lambda: len(d.metadata().get("subscriptions", [])) == 1)
    sent, done = [], threading.Event()

    def send(i):
        n = 0
        while not done.is_set():
            n += 1
            publish(d, "t", {"n": f"{i}-{n}"})
            sent.append(f"{i}-{n}")
    threads = [threading.Thread(target=send, args=(i,), daemon=True) for i in range(4)]
    for t in threads:
        t.start()
    for n in range(1, CHANGES // 2 + 1):
        write(d, "all.yaml", pub(n), declared("v2alpha1", "s", "t", routes={"default": "/got"}))
        wait_until("it was exchanged", lambda: d.log().count("Component updated: pub") == n + 1)
    done.set()
    for t in threads:
        t.join()
    wait_until("every message has come", lambda: set(sent) <= {e["n"] for e in a.data("/got")})


def test_subscriptions_come_change_and_go(daprd, app):
    a = app()
    d = daprd([memory()], config=HOT, args=(f"--app-port={a.port}",))

    def topics():
        return [(s["topic"], s["rules"][0]["path"]) for s in d.metadata().get("subscriptions", [])]
    write(d, "s.yaml", declared("v2alpha1", "one", "a", routes={"default": "/a"}))
    wait_until("it is there", lambda: topics() == [("a", "/a")])
    publish(d, "a", {"n": 1})
    wait_until("it works", lambda: a.data("/a"))
    write(d, "s.yaml", declared("v2alpha1", "one", "a", routes={"default": "/b"}), declared("v2alpha1", "two", "c", routes={"default": "/c"}))
    wait_until("both are there", lambda: topics() == [("a", "/b"), ("c", "/c")])
    publish(d, "a", {"n": 2})
    wait_until("by its new route", lambda: a.data("/b"))
    write(d, "s.yaml", declared("v2alpha1", "one", "a", routes={"rules": [{"match": "event.(", "path": "/x"}], "default": "/b"}),
          declared("v2alpha1", "two", "c", routes={"default": "/c"}))
    wait_until("a rule that is wrong is told", lambda: "error in Subscription one" in d.log())
    write(d, "s.yaml", "")
    wait_until("they are gone", lambda: topics() == [])


def resiliency(attempts):
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "r"},
                       "spec": {"policies": {"timeouts": {"t": f"{attempts}s"}}, "targets": {"components": {"store": {"outbound": {"timeout": "t"}}}}}})


def test_other_kinds_are_taken_by_a_start_in_place(daprd):
    d = daprd([component("store", "state.in-memory")], config=HOT)
    pid, plugins = d.proc.pid, d.children()
    callers = Callers(d, 4)
    write(d, "r.yaml", resiliency(3))
    wait_until("it starts in place", lambda: d.log().count("Took over from the program before") == 1)
    wait_until("it watches again", lambda: d.log().count("Hot reloading enabled") == 2)
    write(d, "r.yaml", resiliency(4))
    wait_until("and again", lambda: d.log().count("Took over from the program before") == 2 and d.log().count("Hot reloading enabled") == 3)
    config = d.folder / "config.yaml"
    config.write_text("kind: [")
    d.proc.send_signal(signal.SIGHUP)
    wait_until("a wrong Configuration is told of", lambda: "The Configuration stays as it was" in d.log())
    config.write_text(HOT.replace('"HotReload"', '"HotReload", "enabled": true}, {"name": "Other"'))
    d.proc.send_signal(signal.SIGHUP)
    wait_until("the Configuration is taken", lambda: "Enabled features: HotReload Other" in d.log() and d.log().count("Hot reloading enabled") == 4)
    assert callers.stop() == []
    assert d.proc.poll() is None and d.proc.pid == pid and d.children() == plugins


# ---- the ways in which files change ----

def by_rename(folder, name, text):
    (folder / f".{name}.tmp").write_text(text)
    (folder / f".{name}.tmp").rename(folder / name)


def in_halves(folder, name, text):
    """As a slow writer: what stands there between is no YAML of its kind."""
    with open(folder / name, "w") as f:
        for part in (text[:len(text) // 2], text[len(text) // 2:]):
            f.write(part)
            f.flush()
            time.sleep(0.05)


def in_halves_slowly(folder, name, text):
    """The half is read, and not taken."""
    (folder / name).write_text(text[:len(text) - 20])
    time.sleep(0.4)
    (folder / name).write_text(text)


def by_editor(folder, name, text):
    """A swap file, a probe, a backup, the old file moved away, a new one in its place."""
    (folder / f".{name}.swp").write_bytes(b"b0VIM 9.0" + bytes(range(256)))
    (folder / "4913").write_text("")
    (folder / "4913").unlink()
    if (folder / name).exists():
        (folder / name).rename(folder / f"{name}~")
    (folder / f"#{name}#").write_text(text[:40])
    (folder / name).write_text(text)
    for left in (f".{name}.swp", f"{name}~", f"#{name}#"):
        (folder / left).unlink(missing_ok=True)


def by_delete(folder, name, text):
    (folder / name).unlink(missing_ok=True)
    time.sleep(0.02)
    (folder / name).write_text(text)


def by_link(folder, name, text):
    """As Kubernetes does it: files are links into ..data, which is a link that is turned over."""
    version = folder / f"..v{time.monotonic_ns()}"
    old = (folder / os.readlink(folder / "..data")) if (folder / "..data").is_symlink() else None
    version.mkdir() if not old else shutil.copytree(old, version)
    (version / name).write_text(text)
    (folder / "..tmp").symlink_to(version.name)
    os.rename(folder / "..tmp", folder / "..data")
    if not (folder / name).is_symlink():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(pathlib.Path("..data") / name)
    if old:
        shutil.rmtree(old)


WAYS = [by_rename, in_halves, in_halves_slowly, by_editor, by_delete, by_link, by_link, by_rename]


def endpoint(n):
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "HTTPEndpoint", "metadata": {"name": "ep"}, "spec": {"baseUrl": f"http://127.0.0.1:{9000 + n}"}})


def test_whatever_way_a_file_changes_no_call_fails(daprd, folder):
    """A component, a resiliency policy, an HTTPEndpoint and a subscription, each changed in each way, then 50 times a second."""
    d = daprd([memory()], config=HOT)
    files = {"store.yaml": lambda n: sqlite(d, busyTimeout=f"{2000 + n}ms"), "r.yaml": lambda n: resiliency(n + 3), "e.yaml": endpoint,
             "s.yaml": lambda n: declared("v2alpha1", "one", "a", routes={"default": f"/p{n}"})}
    texts = ("Component updated: store ", "Took over from the program before", "Took over from the program before", "Adding Subscription for processing: one")

    def told():
        log = d.log()
        return [log.count(t) for t in texts]

    def changed(i, before):
        wait_until(f"{list(files)[i]} is taken", lambda: told()[i] > before[i])
        if i in (1, 2):  # by a start in place, which watches again
            wait_until("it watches", lambda: d.log().count("Hot reloading enabled") == told()[1] + 1)
    for i, name in enumerate(files):
        before = told()
        by_rename(d.resources, name, files[name](0))
        changed(i, before)
    plugins = d.children()
    with LeanLoad(d, callers=CALLERS) as load:
        load.phase("changes")
        for n, way in enumerate(WAYS, 1):
            for i, name in enumerate(files):
                if i and i != 1 + n % 3 and not EVERY:
                    continue
                before = told()
                way(d.resources, name, files[name](n))
                changed(i, before)
        before, end, n = told(), time.monotonic() + STORM_S, 100
        while time.monotonic() < end:
            n += 1
            for name in files:
                by_rename(d.resources, name, files[name](n))
            time.sleep(0.02)
        wait_until("the last is taken", lambda: all(a > b for a, b in zip(told(), before)))
        skipped = "Component update skipped: no changes detected: store "

        def nothing_new():
            now, seen = told(), d.log().count(skipped)
            d.proc.send_signal(signal.SIGHUP)
            wait_until("everything is read again", lambda: d.log().count(skipped) > seen or told() != now)
            return told() == now
        wait_until("it rests", nothing_new)
        r = load.stop()
    assert (r["failed"], r["failures"]) == (0, [])
    took = [a - b for a, b in zip(told(), before)]
    assert max(took) <= 4 + STORM_S * 2, f"{n - 100} changes of each were taken {took} times: bursts are taken as one"
    assert len(d.children()) <= len(plugins) + 1  # one that stands by
    print(f"\nChanges in {len(set(WAYS))} ways, {4 * (n - 100)} in {STORM_S} s, taken {took} times: {r['phases']['changes']['n']} calls, 0 failed")
