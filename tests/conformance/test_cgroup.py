"""Control groups where they are real: cgroup v2 with memory, pids and cpu, delegated to whoever runs the tests. Elsewhere all of it is
skipped; tests/vm/run boots a kernel that has them."""
import concurrent.futures as threads, errno, os, pathlib, re, shutil, signal, subprocess

import pytest

from conftest import BUILD, SLOW, component, wait_until
from test_sandbox import MANIFEST, NOBODY, death, deed, hostile, users  # noqa: F401  (a fixture)

CONTROLLERS = ("memory", "pids", "cpu")
LIMITS = '{programs: [{path: "self"}], limits: {memory: 40Mi, processes: 24, cpu: 0.7}}'


def own_group():
    """Folder of this process's group, and whether it is the root of what is seen; None without cgroup v2."""
    mounts = [l.split() for l in open("/proc/self/mountinfo") if " - cgroup2 " in l]
    group = next((l.strip()[3:] for l in open("/proc/self/cgroup") if l.startswith("0::")), None)
    return pathlib.Path(mounts[0][4] + group.rstrip("/")) if mounts and group else None


def is_marked(folder):
    try:
        return os.getxattr(folder, "user.delegate") == b"1"
    except OSError:
        return False


def may_divide():
    here = own_group()
    try:
        ours = os.access(here / "cgroup.procs", os.W_OK) and set(CONTROLLERS) <= set((here / "cgroup.controllers").read_text().split())
        return ours and (here.stat().st_uid == os.geteuid() != 0 or is_marked(here) or os.path.ismount(here))
    except (OSError, TypeError):
        return False


pytestmark = [pytest.mark.skipif(not may_divide(), reason="needs cgroup v2, delegated with memory, pids and cpu (tests/vm/run)"),
              pytest.mark.skipif("asan" in str(BUILD), reason="a sanitizer needs more memory than these limits")]


def put(file, text):
    with open(file, "w") as f:
        f.write(text)


def hand_on(folder, controllers):
    put(folder / "cgroup.subtree_control", " ".join(f"+{c}" for c in controllers))


@pytest.fixture(scope="module")
def here():
    """The group of the tests, which hands its controllers on; its processes are in a child of it meanwhile."""
    folder, leaf, moved = own_group(), own_group() / "tests", []
    try:
        hand_on(folder, CONTROLLERS)
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        leaf.mkdir()
        moved = (folder / "cgroup.procs").read_text().split()
        for pid in moved:
            put(leaf / "cgroup.procs", pid)
        hand_on(folder, CONTROLLERS)
    yield folder
    if moved:
        put(folder / "cgroup.subtree_control", " ".join(f"-{c}" for c in CONTROLLERS))
        for pid in (leaf / "cgroup.procs").read_text().split():
            put(folder / "cgroup.procs", pid)
        leaf.rmdir()


class Unit:
    """A group as a service manager makes it for a daprd. user: whom it is delegated to, root's daprd knows it by the mark; None = nobody."""

    def __init__(self, here, name, user=0, controllers=CONTROLLERS):
        self.above, self.user = here / name, user
        self.folder = self.above / "unit"
        self.above.mkdir()
        self.folder.mkdir()
        hand_on(self.above, controllers)
        if user is not None:
            self.give(self.folder)
            os.setxattr(self.folder, "user.delegate", b"1")

    def give(self, folder):
        for f in (folder, *(folder / f"cgroup.{n}" for n in ("procs", "threads", "subtree_control"))):
            os.chown(f, self.user, self.user)

    def child(self):
        """As DelegateSubgroup= does: where daprd is started; groups of plugins stand beside it."""
        (self.folder / "main").mkdir()
        self.give(self.folder / "main")
        return self.folder / "main"

    def start(self, d, at=None, user=None):
        """daprd as the user, started in the group (or a child)."""
        user = user if user is not None else self.user or 0
        if not hasattr(d, "plain"):
            d.plain = d.argv
        drop = [shutil.which("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        d.argv = ["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(at or self.folder), *drop, *d.plain]
        return d.start()

    def groups(self):
        return {g.name for g in self.folder.iterdir() if g.is_dir()}

    def handed(self):
        return set((self.folder / "cgroup.subtree_control").read_text().split())

    def close(self):
        """Whatever is still in it ends."""
        put(self.above / "cgroup.kill", "1")
        wait_until("the groups are empty", lambda: "populated 0" in (self.above / "cgroup.events").read_text())
        for folder, _, _ in os.walk(self.above, topdown=False):
            os.rmdir(folder)


@pytest.fixture
def unit(here):
    made = []

    def make(**kw):
        made.append(Unit(here, f"t{os.getpid()}-{len(made)}", **kw))
        return made[-1]
    yield make
    for u in made:
        u.close()


@pytest.fixture
def place(hostile):
    """place(sandbox) -> a sidecar with the hostile store and one more, not started yet."""
    def make(sandbox=LIMITS, **kw):
        d = hostile(sandbox, start=False, **kw)
        (d.resources / "more.yaml").write_text(component("more", "state.hostile"))
        return d
    return make


each_user = pytest.mark.parametrize("user", [u.get("user", os.geteuid()) for u in users()], ids=lambda u: "root" if u == 0 else "user")


def ctl(d, *args):
    r = subprocess.run([str(BUILD / "bin/daprctl"), *args], env=d.env | {"NO_COLOR": "1"}, capture_output=True, text=True, timeout=100 * SLOW)
    assert r.returncode == 0, r.stderr
    return r.stdout


def said(d):
    """What daprd says of its cgroups."""
    return ctl(d, "plugin", "security", "--app-id", d.app_id)


def row(d, name="store"):
    return next(c for c in d.metadata()["components"] if c["name"] == name)["microdapr"]


def group_of(pid):
    return next(l.strip().rsplit("/", 1)[1] for l in open(f"/proc/{pid}/cgroup") if l.startswith("0::"))


def number(file, key):
    return next(int(l.split()[1]) for l in file.read_text().splitlines() if l.split()[0] == key)


def limits(folder):
    return {f: (folder / f).read_text().strip() for f in ("memory.max", "memory.oom.group", "pids.max", "cpu.max")}


WANTED = {"memory.max": str(40 << 20), "memory.oom.group": "1", "pids.max": "24", "cpu.max": "70000 100000"}


def runs_out_of_memory(d, u):
    """The process is killed in its own group, with evidence; the next one serves; nobody else notices."""
    pid, other, group = row(d)["pid"], row(d, "more")["pid"], group_of(row(d)["pid"])
    for _ in range(64):
        if deed(d, f"grow@{pid}") != "done":
            break
    wait_until("it is dead", lambda: death(d)[0] not in ("", "none"))
    assert death(d)[0] == "out of memory" and re.search(rf"because memory ran out in its cgroup \(memory.max {40 << 20}, memory.events oom_kill [1-9]", death(d)[1]), death(d)
    wait_until("the next one serves", lambda: deed(d, "nothing") == "ok")
    assert row(d)["pid"] != pid and row(d, "more")["pid"] == other and d.proc.poll() is None
    wait_until("its group is gone", lambda: group not in u.groups() or group == group_of(row(d)["pid"]))
    assert limits(u.folder / group_of(row(d)["pid"])) == WANTED


@each_user
def test_limits_hold(place, unit, user):
    u = unit(user=user)
    d = u.start(place())
    pid = row(d)["pid"]
    g = u.folder / group_of(pid)
    assert group_of(d.proc.pid) == f"microdapr-{d.proc.pid}-self" and u.handed() == set(CONTROLLERS), "the group itself must be empty"
    assert limits(g) == WANTED and group_of(row(d, "more")["pid"]) not in (g.name, group_of(d.proc.pid))
    assert f"Limits of memory, processes, CPU hold by cgroups below {u.folder}" in said(d) and "rlimits" not in said(d)
    # with a user of its own (root's daprd) the same number holds by an rlimit, which the machine asks first
    assert deed(d, "multiply") == "denied" and (number(g / "pids.events", "max") > 0 or user == 0)
    wait_until("they are gone", lambda: int((g / "pids.current").read_text()) < 24)
    assert deed(d, "burn") == "done" and number(g / "cpu.stat", "nr_throttled") > 0
    assert number(g / "cpu.stat", "throttled_usec") > 0 and row(d)["pid"] == pid
    runs_out_of_memory(d, u)
    d.close()
    assert not u.groups() and not u.handed() and not d.children(resolver=True), "nothing is left"


@each_user
def test_the_kernel_is_upgraded_in_place(place, unit, user):
    u = unit(user=user)
    d = u.start(place())
    before = (d.proc.pid, row(d)["pid"], group_of(row(d)["pid"]), group_of(d.proc.pid))
    ctl(d, "upgrade", "--app-id", d.app_id)
    assert (d.proc.pid, row(d)["pid"], group_of(row(d)["pid"]), group_of(d.proc.pid)) == before
    assert limits(u.folder / before[2]) == WANTED and "hold by cgroups" in said(d)
    runs_out_of_memory(d, u)
    d.close()
    assert not u.groups() and not u.handed()


def test_an_operators_softer_limit(place, unit):
    """memory.high slows a process down; one that is too slow to answer is replaced as hung. It is no want of memory."""
    u = unit(user=users()[-1].get("user", os.geteuid()))
    d = u.start(place())
    pid, g = row(d)["pid"], u.folder / group_of(row(d)["pid"])
    put(g / "memory.high", str(int((g / "memory.current").read_text()) + (4 << 20)))
    with threads.ThreadPoolExecutor(1) as pool:
        calls = [pool.submit(deed, d, f"grow@{pid}") for _ in range(3)]
        wait_until("it is slowed down", lambda: number(g / "memory.events", "high") > 0)
        assert number(g / "memory.events", "oom_kill") == 0
        went = [c.result() for c in calls]
        assert went == ["done"] * 3 or death(d)[0] == "hang", (went, death(d))
    d.close()
    assert not u.groups()


@each_user
def test_a_manifest_with_other_limits(place, unit, user, folder):
    u = unit(user=user)
    d = u.start(place())
    other = folder / "other"
    shutil.copytree(folder / "plugins/state.hostile", other)
    (other / "plugin.yaml").write_text(MANIFEST + 'sandbox: {limits: {memory: 96Mi, processes: 40}}\n')
    os.chmod(other, 0o755)
    old = group_of(row(d)["pid"])
    ctl(d, "plugin", "upgrade", "store", "--path", str(other), "--app-id", d.app_id)
    new = group_of(row(d)["pid"])
    assert limits(u.folder / new) == {"memory.max": str(96 << 20), "memory.oom.group": "1", "pids.max": "40", "cpu.max": "max 100000"}
    wait_until("the group of the one before is gone", lambda: old not in u.groups())


@each_user
def test_kill_9_and_what_the_next_one_finds(place, unit, user):
    u = unit(user=user)
    at = u.child()
    d = u.start(place(), at)
    assert group_of(d.proc.pid) == "main" and group_of(row(d)["pid"]) in u.groups() and u.handed() == set(CONTROLLERS)
    assert limits(u.folder / group_of(row(d)["pid"])) == WANTED
    for _ in range(2):
        old = u.groups() - {"main"}
        kids = d.children(resolver=True)
        d.proc.kill()
        d.proc.wait()
        wait_until("its plugins end with it", lambda: not any(os.path.exists(f"/proc/{p}") for p in kids))
        u.start(d, at)
        assert old and not old & u.groups(), "groups of the dead are removed"
    runs_out_of_memory(d, u)
    d.close()
    assert u.groups() == {"main"}


@each_user
def test_plugins_that_linger_keep_their_limits(place, unit, user):
    u = unit(user=user)
    at = u.child()
    d = place(args=("--plugin-linger=60s",))
    u.start(d, at)
    pid, group = row(d)["pid"], group_of(row(d)["pid"])
    d.proc.kill()
    d.proc.wait()
    u.start(d, at)
    assert row(d)["pid"] == pid and group_of(pid) == group and limits(u.folder / group) == WANTED
    assert deed(d, "multiply") == "denied"
    runs_out_of_memory(d, u)
    d.close()
    assert u.groups() == {"main"}


def test_lingering_at_the_top_of_what_is_delegated(place, unit):
    """There daprd could not be started again while plugins live, so it hands nothing on, and says why."""
    u = unit(user=users()[-1].get("user", os.geteuid()))
    d = place(args=("--plugin-linger=60s",))
    u.start(d)
    pid, group = row(d)["pid"], group_of(row(d)["pid"])
    assert not u.handed() and "memory, pids, cpu (with --plugin-linger daprd must be started in a child of it)" in said(d)
    d.proc.kill()
    d.proc.wait()
    u.start(d)
    assert row(d)["pid"] == pid and group_of(pid) == group, "a group without limits still ends all of its programs"
    d.close()
    assert not u.groups()


def test_somebody_else_is_in_the_group(place, unit):
    u = unit(user=users()[-1].get("user", os.geteuid()))
    other = subprocess.Popen(["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec sleep 600', str(u.folder)])
    try:
        wait_until("it is there", lambda: str(other.pid) in (u.folder / "cgroup.procs").read_text().split())
        d = u.start(place())
        assert "Limits hold by rlimits" in said(d) and "memory, pids, cpu (other processes are in it, too)" in said(d)
        assert deed(d, "nothing") == "ok" and group_of(d.proc.pid) == "unit" and group_of(row(d)["pid"]).startswith("microdapr-")
        d.close()
    finally:
        other.kill()
        other.wait()
    assert not u.groups()


@each_user
def test_nothing_is_delegated(place, unit, user):
    if os.geteuid() != 0:
        pytest.skip("only root has a group that is not delegated to it")
    u = unit(user=None)
    d = u.start(place(), user=user)
    why = f"the cgroup of daprd, {u.folder}, " + ("cannot be written to" if user else "is not delegated to it (systemd: Delegate=yes)")
    assert f"Limits hold by rlimits: {why}" in said(d)
    assert deed(d, "nothing") == "ok" and group_of(row(d)["pid"]) == "unit" and not u.groups()
    d.close()


def test_only_some_is_delegated(place, unit):
    u = unit(user=users()[-1].get("user", os.geteuid()), controllers=("pids",))
    d = u.start(place())
    g = u.folder / group_of(row(d)["pid"])
    assert u.handed() == {"pids"} and (g / "pids.max").read_text().strip() == "24" and not (g / "memory.max").exists()
    text = said(d)
    assert f"Limits of processes hold by cgroups below {u.folder}" in text and "Others hold by rlimits" in text
    assert "these controllers cannot be had: memory, cpu (not handed to it)" in text
    assert deed(d, "multiply") == "denied" and number(g / "pids.events", "max") > 0
    os.kill(row(d)["pid"], signal.SIGKILL)
    wait_until("the next one serves", lambda: deed(d, "nothing") == "ok")
    assert death(d)[0] == "signal", "nobody counts for it"
    d.close()
    assert not u.groups() and not u.handed()
