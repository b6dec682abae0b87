"""A process that lives and whose calls do not come back: it is told, it shows, and it is replaced; one that is only slow is not."""
import concurrent.futures, json, os, shutil, subprocess, time

import pytest

from conftest import BUILD, ROOT, Daprd, component, wait_until
from test_ctl import ctl, home  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(not shutil.which("gcc") or BUILD.name != "release", reason="builds a plugin against the release library")


def build(folder, *defines, hang_after="4s", name="p", more=()):
    to = folder / name / "state.hanging"
    to.mkdir(parents=True)
    subprocess.run(["gcc", "-O1", *(f"-D{d}" for d in defines), "-I", str(ROOT / "sdk/include"), "-o", str(to / "state.hanging"),
                    str(ROOT / "tests/conformance/hanging_store.c"), str(BUILD / "lib/libdapr-plugin.a"), "-lm", "-lpthread"], check=True)
    (to / "plugin.yaml").write_text("\n".join(["name: state.hanging", "version: 1.0.0", "contract: [1]", "types:", "  - type: state.hanging",
                                              f"hangAfter: {hang_after}", *more, ""]))
    return to.parent


class Scene:
    def __init__(self, folder, home, plugins):
        self.app, self.home = f"hang{os.getpid()}", home
        self.d = Daprd(folder, [component("store", "state.hanging", [("file", str(folder / "lock")), ("keyPrefix", "none")], initTimeout="2s")], app_id=self.app, plugins_path=plugins).start()

    def get(self, key, timeout):
        try:
            r = self.d.request("GET", f"/v1.0/state/store/{key}", timeout=timeout)
            return r.status, r.body.decode()
        except OSError:
            return 0, "its caller has gone"

    def give_up(self, *keys):
        with concurrent.futures.ThreadPoolExecutor(len(keys)) as pool:
            assert [s for s, _ in pool.map(lambda k: self.get(k, 0.4), keys)] == [0] * len(keys)

    def row(self):
        return json.loads(ctl(self.home, "plugin", "list", "--app-id", self.app, "-o", "json").stdout)[0]

    def events(self):
        return json.loads(ctl(self.home, "plugin", "history", "store", "--app-id", self.app, "-o", "json").stdout)["events"]

    def replaced(self, pid):
        wait_until("another process serves", lambda: (r := self.row())["pid"] not in (0, pid) and r["state"] == "READY", 15)


@pytest.fixture
def scene(folder, home):
    made = []

    def make(*defines, **kw):
        made.append(Scene(folder, home, build(folder, *defines, **kw)))
        return made[-1]
    yield make
    for s in made:
        s.d.close()


def test_calls_that_never_come_back_show_and_end_as_a_hang(scene):
    s = scene(hang_after="4s")
    pid = s.row()["pid"]
    assert s.get("a", 5)[0] == 200
    s.give_up("hang")
    s.give_up(*"bcdef")
    wait_until("it is told", lambda: "stuck" in s.row(), 6)
    row = s.row()
    assert row["pid"] == pid and row["inflight"] == 6, row
    assert "all 4 workers are busy" in row["stuck"] and "2 calls wait" in row["stuck"] and "the oldest is Get of component store" in row["lastError"], row
    top = json.loads(ctl(s.home, "plugin", "top", "--app-id", s.app, "-o", "json", "--interval", "100ms").stdout)[0]
    assert top["inflight"] == 6 and "workers" in top["stuck"]
    doctor = ctl(s.home, "doctor", "--app-id", s.app)
    assert doctor.returncode != 0 and "operations do not come back" in doctor.stdout and "nothing is wrong" not in doctor.stdout, doctor.stdout
    s.replaced(pid)
    assert s.get("a", 5) == (200, "1")
    row, events = s.row(), s.events()
    assert row["lastDeath"] == "hang" and row["inflight"] == 0 and "stuck" not in row
    assert [e["event"] for e in events] == ["started", "stuck", "hang", "started again"]
    assert f"process {row['pid']}" in events[-1]["detail"]
    assert "all 4 workers" in next(e["detail"] for e in events if e["event"] == "hang")
    assert "operations do not come back" in s.d.log()


def test_a_ping_that_hangs_makes_the_backend_unreachable_and_then_the_process_hung(scene):
    s = scene("WITH_PING", hang_after="6s")
    pid = s.row()["pid"]
    s.give_up("hang")
    wait_until("its backend is unreachable", lambda: s.row()["backend"] == "unreachable", 8)
    row = s.row()
    assert row["state"] == "DEGRADED" and row["pid"] == pid
    s.replaced(pid)
    assert s.get("a", 5)[0] == 200
    events = s.events()
    assert "its ping has not come back" in next(e["detail"] for e in events if e["event"] == "backend lost")
    assert "a ping has not come back" in next(e["detail"] for e in events if e["event"] == "hang")


def test_slow_calls_that_somebody_waits_for_are_no_hang(scene):
    s = scene(hang_after="1s")
    pid = s.row()["pid"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # all threads busy, nobody else waits
        assert [r[0] for r in pool.map(lambda _: s.get("slow", 20), range(4))] == [204] * 4
    row = s.row()
    assert row["pid"] == pid and row["restarts"] == 0 and "stuck" not in row


def test_the_dev_loop_gets_past_a_process_that_hangs(scene, folder):
    s = scene("LOCK")
    pid = s.row()["pid"]
    source = folder / "source"
    source.mkdir()
    shutil.copytree(folder / "p/state.hanging", source / "state.hanging")
    shutil.copy(source / "state.hanging/plugin.yaml", source)
    s.give_up("hang")
    wait_until("it is reported", lambda: s.row()["inflight"] == 1, 5)
    r = ctl(s.home, "plugin", "dev", str(source), "--app-id", s.app, "--once")
    said = r.stdout + r.stderr
    assert r.returncode == 0 and "1 call hangs in the one that serves" in said and "runs build 1, state.hanging 1.0.0+dev.1" in said, said
    assert s.row()["pid"] not in (0, pid) and s.get("a", 5) == (200, "1")


def restart(s, *flags):
    return ctl(s.home, "plugin", "restart", "store", "--app-id", s.app, *flags)


def test_a_restart_of_what_hangs_names_force_which_ends_it_first(scene):
    s = scene("LOCK", hang_after="0")
    pid = s.row()["pid"]
    s.give_up("hang")  # it holds the lock that Init of another process wants
    r = restart(s)
    assert r.returncode == 1 and "init timeout" in r.stderr + r.stdout and "plugin restart store --force" in r.stderr + r.stdout, r
    assert s.row()["pid"] == pid and s.row()["inflight"] == 1 and s.row()["abandoned"] == 1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        since = time.monotonic()
        r = pool.submit(restart, s, "--force")
        wait_until("the old process is on its way out", lambda: s.row()["state"] == "DRAINING" or r.done(), 10)
        assert s.get("a", 12) == (200, "1")  # it waited
        assert r.result().returncode == 0, r.result()
    assert time.monotonic() - since < 15
    assert s.row()["pid"] not in (0, pid)
    assert [(e["event"], "ended first" in e["detail"]) for e in s.events() if e["event"] == "restarted"] == [("restarted", True)]


def test_a_restart_of_what_is_known_to_be_stuck_needs_no_force(scene):
    s = scene("LOCK", "WITH_PING", hang_after="12s")  # a ping every 2 s; told after 1 s, a hang after 6 s
    pid = s.row()["pid"]
    s.give_up("hang")
    wait_until("it is told", lambda: "stuck" in s.row(), 12)
    r = restart(s)
    assert r.returncode == 0, r
    assert s.row()["pid"] not in (0, pid) and s.get("a", 5)[0] == 200
    assert "which was stuck" in next(e["detail"] for e in s.events() if e["event"] == "restarted")
