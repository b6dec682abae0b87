"""Debugging a running component: faults for drills, recordings of its calls, and what replays of them show."""
import json, os, subprocess, time

import pytest

from conftest import BUILD, component, wait_until

APP = f"tap-{os.getpid()}"


def ctl(*args, app=APP, limit=60, ok=True):
    r = subprocess.run([str(BUILD / "bin/daprctl"), "plugin", *args, *(["--app-id", app] if app else [])], env={"NO_COLOR": "1"},
                       capture_output=True, text=True, timeout=limit)
    assert ok is None or (r.returncode == 0) == ok, f"{args}: {r.returncode}\n{r.stdout}{r.stderr}"
    return r


def row(name="store"):
    return next(p for p in json.loads(ctl("list", "-o", "json").stdout) if p["name"] == name)


def events(name="store"):
    return [(e["event"], e["detail"]) for e in json.loads(ctl("history", name, "-o", "json").stdout)["events"]]


@pytest.fixture
def d(daprd, folder):
    x = daprd([component("store", "state.sqlite", [("connectionString", str(folder / "s.db"))])], app_id=APP)
    assert x.request("POST", "/v1.0/state/store", [{"key": "k", "value": "v1"}]).status == 204
    return x


def test_faults_are_met_seen_and_end(d):
    get = lambda: d.request("GET", "/v1.0/state/store/k")  # noqa: E731
    ctl("fault", "store", "--error", "UNAVAILABLE", "--for", "30s")
    r = get()
    assert r.status == 500 and "daprctl plugin fault" in r.json()["message"]
    assert row()["fault"] == {"what": "error Unavailable, on 100% of calls", "leftSeconds": 30, "hits": 1}
    assert "error Unavailable" in ctl("list").stdout
    assert ("fault", "error Unavailable, on 100% of calls, for 30s") in events()
    ctl("fault", "store", "--clear")
    assert get().body == b'"v1"' and "fault" not in row()
    assert any(e == "fault over" and "1 calls met it" in t for e, t in events())

    ctl("fault", "store", "--delay", "300ms", "--for", "700ms")
    began = time.monotonic()
    assert get().body == b'"v1"' and time.monotonic() - began >= 0.3
    wait_until("its time is over", lambda: "fault" not in row())

    ctl("fault", "store", "--error", "DEADLINE_EXCEEDED", "--rate", "0.25")
    wrong = sum(get().status == 500 for _ in range(200))
    assert 20 <= wrong <= 80, f"{wrong} of 200 at a rate of 0.25"
    ctl("fault", "store", "--clear")


def test_a_killed_process_comes_back(d):
    pid = row()["pid"]
    ctl("fault", "store", "--kill")
    assert wait_until("it answers again", lambda: d.request("GET", "/v1.0/state/store/k").body == b'"v1"')
    wait_until("by a new process", lambda: row()["pid"] not in (0, pid) and row()["restarts"] == 1)
    assert ("fault", f"process {pid} killed") in events()
    ctl("fault", "store", "--kill", "--rate", "1", "--for", "5s")
    d.request("GET", "/v1.0/state/store/k")
    ctl("fault", "store", "--clear")
    wait_until("it answers again", lambda: d.request("GET", "/v1.0/state/store/k").body == b'"v1"')
    assert row()["restarts"] >= 2


WRONG_FAULTS = [
    ([], "Say what"), (["--error", "OOPS"], "UNAVAILABLE or 14"), (["--error", "OK"], "other than OK"), (["--delay", "2m"], "60s"),
    (["--error", "14", "--rate", "1.5"], "at most 1"), (["--error", "14", "--rate", "x"], "rate is a number"),
    (["--error", "14", "--for", "2h"], "at most 1h"), (["--clear"], "there is no fault"), (["--kill", "--clear"], "--clear ends")]


def test_bad_faults_are_explained(d):
    for args, says in WRONG_FAULTS:
        assert says in ctl("fault", "store", *args, ok=False).stderr, args
