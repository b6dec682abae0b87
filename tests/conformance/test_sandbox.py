"""A plugin does what its manifest asks for and nothing else: a hostile one is stopped, and the reason is told."""
import ctypes, os, pathlib, shutil, socket, subprocess

import pytest

from conftest import BUILD, component, wait_until

MANIFEST = """name: state.hostile
version: 1.0.0
executable: hostile
contract: [1]
types: [{type: state.hostile, versions: [v1]}]
metadata: [{name: victim}, {name: folder}]
"""
pytestmark = pytest.mark.skipif("asan" in str(BUILD), reason="a sanitizer needs more than any plugin may have")


@pytest.fixture
def hostile(daprd, folder):
    """hostile(sandbox, victim) -> a sidecar with the hostile store, confined as the manifest says."""
    home = folder / "plugins" / "state.hostile"
    home.mkdir(parents=True)
    shutil.copy(BUILD / "tests/hostile", home / "hostile")
    for d in (folder, folder / "plugins", home):
        os.chmod(d, 0o755)

    def make(sandbox, victim="", more=(), args=(), **kw):
        (home / "plugin.yaml").write_text(MANIFEST + (f"sandbox: {sandbox}\n" if sandbox is not None else ""))
        return daprd([component("store", "state.hostile", [("victim", str(victim)), *more])], plugins_path=home.parent, args=args,
                     **{"app_id": f"sandbox-{os.getpid()}"} | kw)
    return make


NOBODY = 65534
LANDLOCK = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)  # the version of its rules; below 1: there is none


def users():
    """Who starts daprd: who runs the tests; and, for root, an ordinary user, where the build can be reached by one."""
    if os.geteuid() != 0 or subprocess.run([BUILD / "bin/daprd", "--version"], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True).returncode:
        return [{}]
    return [{}, {"user": NOBODY}]


def deed(d, what):
    r = d.request("GET", f"/v1.0/state/store/{what}")
    return r.body.decode() if r.status == 200 else f"{r.status}"


def death(d):
    """Class and text of the store's last death."""
    m = next(c for c in d.metadata()["components"] if c["name"] == "store")["microdapr"]
    return m.get("lastDeath", ""), m.get("lastError", "")


def dies(d, what, why):
    deed(d, what)
    wait_until(f"{what} ends the process with its reason", lambda: death(d)[0] == "sandbox" and why in death(d)[1])
    wait_until("the next one serves", lambda: deed(d, "nothing") == "ok")


def test_without_confinement_it_gets_far(hostile, folder):
    (folder / "secret").write_text("x")
    d = hostile(None, folder / "secret")
    assert deed(d, "read") == "done" and deed(d, "fork") == "done"


def test_the_operator_can_take_the_walls_away(hostile, folder):
    (folder / "secret").write_text("x")
    assert deed(hostile("{}", folder / "secret", args=["--plugin-sandbox=off"]), "read") == "done"


@pytest.mark.parametrize("what, why", [
    ("parent-file", "wanted to read /proc/"), ("parent-memory", "wanted the system call process_vm_readv"),
    ("ptrace", "wanted the system call ptrace"), ("fork", "wanted to start a process"), ("mount", "wanted the system call mount"),
    ("unshare", "wanted the system call unshare"), ("connect", "wanted a socket"), ("unix", "wanted a socket")])
def test_what_no_plugin_needs_ends_it_and_is_named(hostile, what, why):
    with socket.create_server(("127.0.0.1", 0)) as s:
        dies(hostile("{}", s.getsockname()[1]), what, why)


CALLS = {"bpf": "bpf", "perf": "perf_event_open", "keyctl": "keyctl", "module": "init_module", "kexec": "kexec_load", "chroot": "chroot", "pivot": "pivot_root",
         "setns": "setns", "handle": "open_by_handle_at", "pidfd_getfd": "pidfd_getfd", "write-memory": "process_vm_writev", "kcmp": "kcmp", "swapon": "swapon",
         "clock": "clock_settime", "hostname": "sethostname", "mknod": "mknodat", "fanotify": "fanotify_init", "madvise": "process_madvise",
         "execveat": "execveat", "parent-memory": "process_vm_readv", "ptrace": "ptrace", "mount": "mount", "unshare": "unshare"}
SOCKETS = ["udp", "raw", "packet", "vsock", "alg"]
DENIED = ["userfaultfd", "io_uring", "netlink", "signal", "kill", "memfd", "shell", "terminal", "descriptors"]


def test_a_try_of_each_kind(hostile):
    """Each by a process of its own: ended with its reason, or told no. The sidecar and its other components never notice."""
    named = {w: f"wanted the system call {c}" for w, c in CALLS.items()} | {w: "wanted a socket" for w in SOCKETS} | {
        "read": "wanted to read /etc/shadow", "fork": "wanted to start a process", "parent-file": "wanted to read /proc/"}
    for as_user in users():
        d = hostile("{}", start=False)
        for what in [*named, *DENIED]:
            (d.resources / f"{what}.yaml").write_text(component(what, "state.hostile", [("victim", "/etc/shadow")]))
        d.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if as_user else {}
        d.start()
        got = {w: d.request("GET", f"/v1.0/state/{w}/{w}").body for w in [*named, *DENIED]}
        assert {w: got[w] for w in DENIED} == {w: b"denied" for w in DENIED}
        found = {c["name"]: (c["microdapr"].get("lastDeath"), c["microdapr"].get("lastError", "")) for c in d.metadata()["components"]}
        assert not {w: found[w] for w, text in named.items() if found[w][0] != "sandbox" or text not in found[w][1]}
        assert deed(d, "nothing") == "ok"
        d.close()


def test_abstract_sockets_of_others(hostile):
    s = socket.socket(socket.AF_UNIX)
    s.bind(f"\0kit-{os.getpid()}")
    s.listen()
    with s:
        d = hostile("{network: [{connect: unix, reason: a server of this machine}]}", f"kit-{os.getpid()}")
        assert deed(d, "abstract") == ("denied" if LANDLOCK >= 6 else "done")


def test_a_flood_of_lines_is_cut_and_the_runtime_folder_is_closed(hostile):
    for as_user in users():
        d = hostile("{}", **as_user)
        assert deed(d, "flood") == "done"
        deed(d, "exit")  # what was left out is told with the next line, or at the end
        wait_until("what was left out is counted", lambda: "lines of output were left out" in d.log())
        assert len(d.log()) < 4_000_000 and d.request("GET", "/v1.0/healthz").status == 204
        folders = list(pathlib.Path("/tmp").glob(f"dapr-*/k{d.proc.pid}.*"))
        assert folders
        d.close()
        d = hostile("{}", folders[0].parent / "filler", **as_user)
        assert deed(d, "write") != "done" and not (folders[0].parent / "filler").exists()
        d.close()


def test_what_the_machine_lacks_is_named(hostile):
    d = hostile("{}")
    r = subprocess.run([str(BUILD / "bin/daprctl"), "plugin", "security", "--app-id", d.app_id], env={"NO_COLOR": "1"}, capture_output=True, text=True)
    walls = next(l for l in r.stdout.splitlines() if "state.hostile" in l)
    for wall, since, text in (("files", 1, "files (Landlock, Linux 5.13)"), ("ports", 4, "ports (Landlock, Linux 6.7)"),
                              ("signals", 6, "signals and abstract sockets (Landlock, Linux 6.12)")):
        assert (f"{wall}," in walls) == (LANDLOCK >= since) and (text in r.stdout) == (LANDLOCK < since)
    assert ("This machine's kernel lacks the walls: " in r.stdout) == (LANDLOCK < 6)


def test_files(hostile, folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "a").write_text("x")
    (folder / "secret").write_text("x")
    dies(hostile("{}", folder / "secret"), "read", f"wanted to read {folder}/secret")
    dies(hostile("{}", "/etc/shadow"), "read", "wanted to read /etc/shadow")
    assert deed(hostile("{files: [{path: '${folder}'}]}", folder / "mine/a", [("folder", str(folder / "mine"))]), "read") == "done"
    d = hostile("{files: [{path: '${folder}'}]}", folder / "mine/a", [("folder", str(folder / "mine"))])
    deed(d, "write")
    wait_until("writing what may be read ends it", lambda: death(d)[0] == "sandbox")
    d = hostile("{files: [{path: '${folder}', access: write}]}", folder / "mine/new", [("folder", str(folder / "mine"))])
    assert deed(d, "write") == "done" and (folder / "mine/new").exists()
    d = hostile("{files: [{path: '${folder}', access: write}]}", folder / "elsewhere", [("folder", str(folder / "mine"))])
    assert deed(d, "write") == "denied" and not (folder / "elsewhere").exists()


def test_ports(hostile):
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_server(("127.0.0.1", 0)) as there:
        right = here.getsockname()[1]
        network = "{network: [{connect: '${folder}', reason: its server}]}"
        assert deed(hostile(network, right, [("folder", f"localhost:{right}")]), "connect") == "done"
        d = hostile(network, there.getsockname()[1], [("folder", f"localhost:{right}")])
        if LANDLOCK >= 4:
            dies(d, "connect", f"wanted to connect to 127.0.0.1 port {there.getsockname()[1]}")
        else:
            assert deed(d, "connect") == "done"
        assert deed(hostile("{network: [{connect: '*'}]}", there.getsockname()[1]), "connect") == "done"


def test_signals_programs_and_memory(hostile):
    d = hostile("{limits: {memory: 192Mi}}")
    assert deed(d, "kill") == "denied" and deed(d, "shell") == "denied" and deed(d, "memory") == "denied"
    assert d.proc.poll() is None


def test_other_plugins_sockets(hostile, folder):
    """With the right to talk to sockets of the file system, those of other plugins stay closed."""
    d = hostile("{network: [{connect: unix, reason: a server of this machine}]}")
    sockets = [str(p) for p in pathlib.Path(f"/tmp/dapr-{os.getuid()}").glob(f"k{d.proc.pid}.*/*.sock")]
    assert sockets
    d = hostile("{network: [{connect: unix, reason: a server of this machine}]}", sockets[0])
    assert deed(d, "unix") == "denied"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
def test_a_user_of_its_own(hostile):
    d = hostile("{}")
    pid = next(p for p, exe in d.children().items() if exe == "hostile")
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    fields = dict(l.split(":", 1) for l in status.splitlines())
    assert int(fields["Uid"].split()[0]) >= 61184 and int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"].strip() == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
def test_a_program_that_only_its_owner_reaches_stays_with_its_owner(hostile, folder):
    """As in a folder of root, or through a link in one."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    d = hostile("{}")
    d.close()
    (folder / "plugins").rename(closed / "real")
    (closed / "plugins").symlink_to(closed / "real")
    d.env["DAPR_PLUGINS_PATH"] = str(closed / "plugins")
    d.start()
    assert deed(d, "nothing") == "ok" and deed(d, "shell") == "denied"


def unified():
    """The folder of this process's cgroup v2; None where there is none, or where it is not its own to divide."""
    mounts = [l.split() for l in open("/proc/self/mountinfo") if " - cgroup2 " in l]
    group = next((l.strip()[3:] for l in open("/proc/self/cgroup") if l.startswith("0::")), None)
    return pathlib.Path(mounts[0][4]) if mounts and group == "/" and os.geteuid() == 0 and os.access(mounts[0][4] + "/cgroup.procs", os.W_OK) else None


@pytest.mark.skipif(not unified(), reason="needs a delegated cgroup v2")
def test_a_plugin_with_programs_has_a_cgroup_of_its_own(hostile):
    d = hostile('{programs: [{path: "self"}], limits: {cpu: 0.5}}')
    group = lambda pid: next(l.strip()[3:] for l in open(f"/proc/{pid}/cgroup") if l.startswith("0::"))
    ours = lambda: list(unified().glob(f"microdapr-{d.proc.pid}-*"))
    pid = next(iter(d.children()))
    assert group(pid).startswith(f"/microdapr-{d.proc.pid}-") and group(pid) != group(d.proc.pid)
    r = subprocess.run([str(BUILD / "bin/daprctl"), "plugin", "security", "--app-id", d.app_id], env={"NO_COLOR": "1"}, capture_output=True, text=True)
    assert "own cgroup" in r.stdout and ("Limits hold by rlimits: in the cgroup /" in r.stdout or "hold by cgroups below" in r.stdout)
    assert deed(d, "fork") == "done"
    os.kill(pid, 9)
    wait_until("the next one serves", lambda: deed(d, "nothing") == "ok")
    living = lambda: {group(p)[1:] for p in d.children(resolver=True)} - {group(d.proc.pid)[1:]}
    wait_until("groups of the living are left", lambda: {g.name for g in ours() if not g.name.endswith("-self")} == living())
    d.close()
    assert not ours()
