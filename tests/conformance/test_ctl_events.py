"""daprctl publish, invoke-binding and logs."""
import json, subprocess, time

import pytest

from conftest import component, wait_until
from test_ctl import CTL, ME, ctl, home
from test_pubsub import app, memory, start


@pytest.fixture
def env(home):
    return home


def last_event(a):
    return a.got["/t"][-1]


def test_publish(env, daprd, app):
    a = app([{"pubsubname": "pub", "topic": "t", "route": "/t"}])
    start(daprd, a, memory(), app_id=f"pub-{ME}")
    base = ["publish", "-i", f"pub-{ME}", "-p", "pub", "-t", "t"]
    r = ctl(env, *base, "-d", '{"n": 1}')
    assert r.returncode == 0 and "Event published successfully" in r.stdout, r.stderr
    wait_until("it came", lambda: a.data("/t") == [{"n": 1}])
    r = ctl(env, *base, "-f", "-", "-o", "json", "-m", '{"cloudevent.type": "my.type"}', input='"from a pipe"')
    assert json.loads(r.stdout) == {"appId": f"pub-{ME}", "pubsub": "pub", "topic": "t", "published": True}
    wait_until("it came", lambda: len(a.got["/t"]) == 2)
    assert last_event(a)["data"] == "from a pipe" and last_event(a)["type"] == "my.type"
    ctl(env, *base, "-d", '{"specversion": "1.0", "id": "me", "source": "s", "type": "t", "data": 5}')
    wait_until("the event came as it was", lambda: len(a.got["/t"]) == 3)
    assert last_event(a)["id"] == "me" and last_event(a)["data"] == 5
    ctl(env, *base, "-d", "words", "--content-type", "text/plain")
    wait_until("the text came", lambda: len(a.got["/t"]) == 4 and last_event(a)["data"] == "words")


@pytest.mark.parametrize("args, text", [(["-t", "t"], "Say which app publishes where"),
                                        (["-p", "nobody", "-t", "t"], "pubsub nobody is not found"),
                                        (["-p", "pub", "-t", "t", "-m", "[1]"], "--metadata is no JSON object of strings"),
                                        (["-p", "pub", "-t", "t", "-d", "1", "-f", "x"], "Only one of --data and --data-file"),
                                        (["-p", "pub", "-t", "t", "-f", "/no/such"], "Error reading payload from '/no/such'")])
def test_publish_that_cannot_be(env, daprd, args, text):
    daprd(resources=[memory()], app_id=f"none-{ME}")
    r = ctl(env, "publish", "-i", f"none-{ME}", *args)
    assert r.returncode == 1 and text in r.stderr
    assert "no daprd of that id runs here" in ctl(env, "publish", "-i", "nobody-here", "-p", "p", "-t", "t").stderr


def test_invoke_binding(env, daprd, folder):
    (folder / "files").mkdir()
    daprd(resources=[component("files", "bindings.localstorage", [("rootPath", str(folder / "files"))])], app_id=f"bind-{ME}")
    base = ["invoke-binding", "files", "-a", f"bind-{ME}"]
    r = ctl(env, *base, "-d", "hello!", "-m", '{"fileName": "a.txt"}')
    assert r.returncode == 0 and (folder / "files/a.txt").read_text() == "hello!", r.stderr
    assert ctl(env, *base, "--operation", "get", "-m", '{"fileName": "a.txt"}').stdout.startswith("hello!\n")
    r = json.loads(ctl(env, *base, "--operation", "get", "-m", '{"fileName": "a.txt"}', "-o", "json").stdout)
    assert r["binding"] == "files" and r["status"] == 200 and r["answer"] == "hello!"
    r = ctl(env, *base, "--operation", "fly")
    assert r.returncode == 1 and "Error invoking binding files: " in r.stderr and "fly" in r.stderr


def test_logs(env, daprd):
    d = daprd(resources=[memory()], app_id=f"logs-{ME}")
    r = ctl(env, "logs", "-a", f"logs-{ME}")
    assert r.returncode == 0 and "dapr initialized. Status: Running" in r.stdout
    three = ctl(env, "logs", "-a", f"logs-{ME}", "--tail", "3", "-o", "json").stdout.splitlines()
    assert len(three) == 3 and json.loads(three[0]) | {"line": ""} == {"appId": f"logs-{ME}", "source": "daprd", "line": ""}
    follow = subprocess.Popen([CTL, "logs", "-a", f"logs-{ME}", "--tail", "1", "-f"], env=env, stdout=subprocess.PIPE, text=True)
    last = json.loads(three[-1])["line"]
    assert follow.stdout.readline().rstrip("\n") == last, "it has the file open now"
    d.close()
    out, _ = follow.communicate(timeout=20)
    assert follow.returncode == 0 and "initialized" not in out and "shut" in out.lower()
    r = ctl(env, "logs", "-a", "nobody-here")
    assert r.returncode == 1 and "no daprd of that id runs here" in r.stderr
