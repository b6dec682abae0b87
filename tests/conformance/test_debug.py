"""`plugin dev --debug` with real gdb: stopped before the first instruction, held for as long as a person needs, and nothing is killed meanwhile."""
import os, shutil, subprocess, threading, time

import pytest

from conftest import BUILD, Daprd, component, wait_until
from test_ctl import ctl, home  # noqa: F401 (a fixture)
from test_packages import run, work  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(not shutil.which("gdb") or not shutil.which("gcc") or BUILD.name != "release", reason="needs gdb, gcc and a release build")


def state_of(pid):
    text = open(f"/proc/{pid}/status").read()
    return {k: text.split(k + ":")[1].split()[0] for k in ("State", "TracerPid")}


def age(pid):
    ticks = int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[19])
    return float(open("/proc/uptime").read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def dev(home, work, folder):
    """A sidecar with a scaffold's store, and `plugin dev --debug` on its sources; gives the sidecar and a wait for the process that waits."""
    run(home, work, "new", "state", "mine")
    subprocess.run(["make", "-s", "-C", work / "mine"], check=True, capture_output=True)
    shutil.copytree(work / "mine/state.mine", folder / "before/state.mine")
    me = f"debug{os.getpid()}"
    d = Daprd(folder, [component("store", "state.mine")], app_id=me, plugins_path=folder / "before").start()
    out = open(folder / "dev.log", "w")
    p = subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "dev", str(work / "mine"), "--app-id", me, "--debug", "--once"], env=home, cwd=work, stdout=out,
                         stderr=out, start_new_session=True)
    text = lambda: (folder / "dev.log").read_text()
    try:
        wait_until("a process waits", lambda: "gdb -p" in text(), 40)
        yield d, p, text, int(text().split("gdb -p ")[1].split()[0])
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()
        out.close()
        d.close()


def test_gdb_holds_a_plugin_from_its_first_instruction(dev, folder):
    d, p, text, pid = dev
    assert state_of(pid) == {"State": "T", "TracerPid": "0"}
    wait_until("longer than Hello may take", lambda: age(pid) > 6, 20)
    assert state_of(pid)["State"] == "T" and p.poll() is None
    assert d.request("POST", "/v1.0/state/store", [{"key": "a", "value": 1}]).status == 204  # the one before serves

    at, on = folder / "at-set", folder / "go-on"
    hold = f"shell touch {at}; while [ ! -e {on} ]; do sleep 0.05; done"
    commands = ["set confirm off", "set pagination off", "handle SIGSTOP SIGCONT nostop noprint nopass", "tbreak main", "continue", "break set", "continue", "backtrace 1", hold, "delete", "detach"]
    gdb = subprocess.Popen(["gdb", "-nx", "-batch", "-p", str(pid), *(x for c in commands for x in ("-ex", c))], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, env={**os.environ, "DEBUGINFOD_URLS": ""})
    try:
        wait_until("the swap is done", lambda: p.poll() == 0 or (gdb.poll() is not None and pytest.fail(gdb.communicate()[0])), 40)
        assert "runs build 1" in text()
        row = d.metadata()["components"][0]["microdapr"]
        assert row["pid"] == pid and row["state"] == "READY"
        answers = []
        t = threading.Thread(target=lambda: answers.append(d.request("POST", "/v1.0/state/store", [{"key": "b", "value": 2}], timeout=60).status))
        t.start()
        wait_until("it is at the breakpoint", at.exists, 20)
        since = time.monotonic()
        wait_until("longer than its reports of health may be away", lambda: time.monotonic() - since > 5, 20)
        assert state_of(pid)["TracerPid"] == str(gdb.pid) and not answers
        on.touch()
        t.join(30)
        said = gdb.communicate(timeout=30)[0]
    finally:
        if gdb.poll() is None:
            gdb.kill()
    assert answers == [204], said
    assert "Temporary breakpoint 1, main (" in said and "Breakpoint 2, set (" in said
    row = d.metadata()["components"][0]["microdapr"]
    assert row["pid"] == pid and row["state"] == "READY" and row["restarts"] == 0
    assert d.request("GET", "/v1.0/state/store/b").json() == 2


def test_without_gdb_it_goes_on_by_a_signal_or_is_given_up(dev):
    d, p, text, pid = dev
    assert state_of(pid) == {"State": "T", "TracerPid": "0"}
    os.kill(pid, 18)
    assert p.wait(20) == 0, text()
    assert d.metadata()["components"][0]["microdapr"]["pid"] == pid


def test_the_end_of_dev_ends_the_process_that_waits(dev):
    d, p, text, pid = dev
    before = d.metadata()["components"][0]["microdapr"]["pid"]
    p.send_signal(2)
    assert p.wait(20) != 0
    wait_until("it is gone", lambda: not os.path.exists(f"/proc/{pid}"))
    assert d.metadata()["components"][0]["microdapr"]["pid"] == before
    assert d.request("GET", "/v1.0/state/store/nothing").status == 204
