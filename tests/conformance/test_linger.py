"""kill -9 of the kernel: plugins linger, the next kernel takes them over; what cannot be taken over is stopped and started anew."""
import json, os, pathlib, shutil, signal, subprocess

import pytest

from conftest import BUILD, component, wait_until
from test_ctl import home  # noqa: F401  (a fixture)
from test_languages import PATH, made
from test_pubsub import app, declared, redis_pub  # noqa: F401  (a fixture)
from test_sandbox import MANIFEST
from test_swap import Load

MEM = component("mem", "state.in-memory")


def ctl(d, *args):
    return subprocess.run([str(BUILD / "bin/daprctl"), *args, "--app-id", d.app_id], env=d.env | {"NO_COLOR": "1"}, capture_output=True, text=True, timeout=60)


def events(d, name):
    return [e["event"] for e in json.loads(ctl(d, "plugin", "history", name, "-o", "json").stdout)["events"]]


def row(d, name):
    return next(c for c in d.metadata()["components"] if c["name"] == name)["microdapr"]


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(*pids):
    wait_until(f"{pids} are gone", lambda: not any(map(alive, pids)), 10)


def put(d, store, key, value):
    r = d.request("POST", f"/v1.0/state/{store}", [{"key": key, "value": value}])
    assert r.status == 204, r.body


def get(d, store, key):
    r = d.request("GET", f"/v1.0/state/{store}/{key}")
    return r.json() if r.status == 200 else r.status


@pytest.fixture
def base(folder):
    """A folder of sockets that no other test's sidecars look into."""
    (folder / "run").mkdir()
    return {"XDG_RUNTIME_DIR": str(folder / "run")}


def folders(d):
    return list(pathlib.Path(d.env["XDG_RUNTIME_DIR"], f"dapr-{os.geteuid()}").glob("k*"))


@pytest.fixture
def lingering(daprd, base):
    """Sidecars whose plugins linger. All of their processes are gone in the end, and their folders."""
    made = []

    def make(resources, seconds=20, **kw):
        d = daprd(resources, app_id=f"linger-{os.getpid()}-{len(made)}", args=(f"--plugin-linger={seconds}s", *kw.pop("args", ())),
                  env=base | kw.pop("env", {}), **kw)
        d.pids = set()
        made.append(d)
        return d
    yield make
    for d in made:
        if d.proc.poll() is None:
            d.pids |= {c["microdapr"]["pid"] for c in d.metadata()["components"] if c["microdapr"].get("pid")}
        d.close()
    try:
        gone(*{p for d in made for p in d.pids})
        assert not [f for d in made for f in folders(d)], "nothing is left of them"
    finally:
        for p in {p for d in made for p in d.pids}:
            if alive(p):
                os.kill(p, signal.SIGKILL)


def crash(d):
    """Kills the kernel. The processes of its components."""
    pids = {c["name"]: c["microdapr"]["pid"] for c in d.metadata()["components"]}
    d.pids |= set(d.children(resolver=True)) | set(pids.values())
    d.proc.kill()
    d.proc.wait()
    d.out.close()
    return pids


def ledger(d):
    """Of the dead kernel."""
    return next(f / "ledger" for f in folders(d) if f.name.startswith(f"k{d.proc.pid}."))


def test_data_in_memory_survives_two_kernels(lingering):
    d = lingering([MEM])
    put(d, "mem", "k", "kept")
    for n in (1, 2):
        old = crash(d)
        assert alive(old["mem"])
        d.start()
        assert row(d, "mem")["pid"] == old["mem"], d.log()[-3000:]
        assert get(d, "mem", "k") == "kept"
        assert events(d, "mem") == ["started"] + ["adopted"] * n
        assert f"taken over from a daprd that crashed: {'once' if n == 1 else '2 times'}" in ctl(d, "plugin", "info", "mem").stdout
        assert "adopted" in ctl(d, "plugin", "list").stdout


class Publishing(Load):
    """Every third caller publishes instead; `sent` is what the broker has taken."""

    def __init__(self, d, callers):
        self.sent = []
        super().__init__(d, callers)

    def call(self, c, i, n):
        if i % 3:
            return super().call(c, i, n)
        status, data = self.ask(c, "POST", "/v1.0/publish/pub/t", json.dumps({"n": f"{i}-{n}"}))
        assert status == 204, (status, data)
        self.sent.append(f"{i}-{n}")


def test_under_load_nothing_acknowledged_is_lost(lingering, app, redis, folder):
    a = app()
    d = lingering([MEM, component("store", "state.sqlite", [("connectionString", str(folder / "s.db"))]), redis_pub(redis),
                   declared("v2alpha1", "s", "t", routes={"default": "/got"})], args=(f"--app-port={a.port}",))
    for n in range(2):
        wait_until("subscribed", lambda: d.metadata().get("subscriptions"))
        put(d, "mem", f"k{n}", n)
        load = Publishing(d, 6)
        wait_until("messages come", lambda: len(a.data("/got")) > 50 * (n + 1))
        old = crash(d)
        load.stop()
        d.start()
        assert {c["name"]: c["microdapr"]["pid"] for c in d.metadata()["components"]} == old, d.log()[-3000:]
        assert [get(d, "mem", f"k{i}") for i in range(n + 1)] == list(range(n + 1))
        wait_until("every message has come", lambda: set(load.sent) <= {e["n"] for e in a.data("/got")}, 30)
        wrong = [f for f in load.failures if "AssertionError" in f[2] and "204" not in f[2] and "500" not in f[2]]
        assert not wrong, wrong


@pytest.mark.parametrize("lang", ("python", "go", "python-twice", "js"))
def test_plugins_of_other_languages(lingering, home, folder, lang):
    path = made(home, folder, "state", lang.split("-")[0])
    d = lingering([component("store", "state.mine")], plugins_path=path, env={"PATH": PATH})
    put(d, "store", "k", "kept")
    for _ in range(2 if "twice" in lang else 1):
        old = crash(d)
        d.start()
        assert row(d, "store")["pid"] == old["store"], d.log()[-3000:]
        assert get(d, "store", "k") == "kept"


def test_what_changed_meanwhile_is_started_anew(lingering, folder):
    home = folder / "plugins"
    shutil.copytree(BUILD / "plugins/state.in-memory", home / "state.in-memory")
    shutil.copytree(BUILD / "plugins/state.sqlite", home / "state.sqlite")
    names = ("same", "settings", "killed", "hung", "sql", "removed")
    d = lingering([component(n, "state.sqlite" if n == "sql" else "state.in-memory", [("connectionString", str(folder / "s.db"))] if n == "sql" else [])
                   for n in names], plugins_path=f"{home}:{BUILD / 'plugins'}")
    for n in names:
        put(d, n, "k", n)
    old = crash(d)
    (d.resources / "r1.yaml").write_text(component("settings", "state.in-memory", [("cleanupInterval", "30s")]))
    (d.resources / "r5.yaml").unlink()
    os.kill(old["killed"], signal.SIGKILL)
    os.kill(old["hung"], signal.SIGSTOP)
    program = home / "state.sqlite/state.sqlite"
    shutil.copy(program, folder / "program")  # another file of the same content
    (folder / "program").replace(program)
    gone(old["killed"])
    d.start()
    log = d.log()
    assert row(d, "same")["pid"] == old["same"]
    assert [get(d, n, "k") for n in names[:5]] == ["same", 204, 204, 204, "sql"]
    assert all(row(d, n)["pid"] != old[n] for n in names[1:5])
    assert "is stopped: the settings of settings are others now" in log
    assert f"process {old['killed']}, of the daprd before is not taken over: it has ended" in log
    assert f"process {old['sql']}, of the daprd before is not taken over: its program is another one now" in log
    assert "component hung is started anew: did not let itself be taken over within 3" in log and events(d, "hung")[-1] == "started"
    gone(*(old[n] for n in names[1:]))


def resolvers(d):
    return {p for p, exe in d.children(resolver=True).items() if exe.startswith("nameresolution.")}


@pytest.mark.parametrize("stop", [False, True])
def test_a_name_resolver_that_hangs(lingering, stop):
    """Its start goes on when everything else has long been taken over, and is waited for."""
    d = lingering([MEM])
    wait_until("the resolver runs", lambda: resolvers(d))
    old = resolvers(d)
    crash(d)
    for p in old:
        os.kill(p, signal.SIGSTOP)
    d.start()
    if not stop:
        wait_until("another resolver runs", lambda: resolvers(d) - old)
    # in the end the kernel stops as it should, also while it waits for the one that hangs


def flip(path):
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("what, text", [
    (flip, None), (lambda p: p.write_bytes(p.read_bytes()[:100]), None), (lambda p: p.write_bytes(b""), None),
    (lambda p: p.write_bytes(p.read_bytes()[:8] + b"\x63" + p.read_bytes()[9:]), "it is of version 99, this daprd knows version 2")])
def test_a_ledger_that_cannot_be_used(lingering, what, text):
    d = lingering([MEM])
    put(d, "mem", "k", 1)
    old = crash(d)
    what(ledger(d))
    d.start()
    assert row(d, "mem")["pid"] != old["mem"] and get(d, "mem", "k") == 204
    assert (text or "they are stopped") in d.log()
    gone(*old.values())


def test_they_leave_when_their_time_is_over(lingering):
    d = lingering([MEM], seconds=1)
    old = crash(d)
    gone(*old.values())
    d.start()
    assert row(d, "mem")["pid"] != old["mem"]


def test_without_the_flag_they_end_with_it(lingering, daprd, base):
    d = daprd([MEM], app_id=f"linger-{os.getpid()}-none", env=base)
    d.pids = set()
    put(d, "mem", "k", 1)
    gone(*crash(d).values())
    d.start()
    assert events(d, "mem") == ["started", "started"], "what happened is known all the same"
    d.close()
    d = lingering([MEM])
    old = crash(d)
    d.argv.remove("--plugin-linger=20s")
    d.start()
    assert "this daprd is started without --plugin-linger" in d.log()
    gone(*old.values())


def test_there_is_one_heir(lingering, daprd, base):
    d = lingering([MEM])
    put(d, "mem", "k", "one")
    old = crash(d)
    heirs = [daprd([MEM], app_id=d.app_id, args=("--plugin-linger=20s",), env=base, start=False) for _ in range(3)]
    for h in heirs:
        h.start(healthy=False)
    for h in heirs:
        h.wait_healthy()
    assert sorted(str(get(h, "mem", "k")) for h in heirs) == ["204", "204", "one"]
    assert [row(h, "mem")["pid"] for h in heirs].count(old["mem"]) == 1
    for h in heirs:
        h.close()
    gone(*old.values())


def test_one_that_was_taken_over_is_supervised_and_upgraded_in_place(lingering):
    d = lingering([MEM])
    put(d, "mem", "k", "kept")
    old = crash(d)
    d.start()
    assert ctl(d, "upgrade").returncode == 0
    assert row(d, "mem")["pid"] == old["mem"] and get(d, "mem", "k") == "kept"
    assert ctl(d, "plugin", "restart", "mem").returncode == 0
    wait_until("another process serves", lambda: row(d, "mem").get("pid") not in (None, 0, old["mem"]))
    put(d, "mem", "k", "again")
    old = crash(d)
    d.start()
    os.kill(old["mem"], signal.SIGKILL)
    wait_until("its end is seen", lambda: row(d, "mem").get("lastDeath") == "unknown")
    wait_until("another process serves", lambda: get(d, "mem", "k") == 204)


@pytest.mark.skipif("asan" in str(BUILD), reason="a sanitizer needs more than any plugin may have")
def test_the_walls_stand_with_and_without_a_kernel(lingering, folder):
    home = folder / "plugins/state.hostile"
    home.mkdir(parents=True)
    shutil.copy(BUILD / "tests/hostile", home / "hostile")
    for f in (folder, home.parent, home):
        os.chmod(f, 0o755)
    (folder / "secret").write_text("x")
    (home / "plugin.yaml").write_text(MANIFEST + "sandbox: {}\n")
    d = lingering([component("store", "state.hostile", [("victim", str(folder / "secret"))])], plugins_path=home.parent)
    deed = lambda what: d.request("GET", f"/v1.0/state/store/{what}").body.decode()
    for _ in range(2):
        assert deed("read") == "denied" and deed("parent-file") == "denied"
        old = crash(d)
        d.start()
        assert row(d, "store")["pid"] == old["store"], d.log()[-2000:]
    deed("ptrace")
    gone(old["store"])
    wait_until("the next one serves", lambda: deed("nothing") == "ok")
