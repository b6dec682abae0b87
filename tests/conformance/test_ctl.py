"""daprctl: the commands that people and scripts use."""
import json, os, signal, subprocess, sys, time

import pytest

from conftest import BUILD, component, free_port, wait_until

CTL = str(BUILD / "bin/daprctl")


@pytest.fixture
def home(folder):
    h = folder / "home"
    h.mkdir()
    return dict(os.environ, HOME=str(h), NO_COLOR="1")


def ctl(env, *args, **kw):
    return subprocess.run([CTL, *args], env=env, capture_output=True, text=True, timeout=60, **kw)


def test_help_everywhere(home):
    r = ctl(home, "--help")
    assert r.returncode == 0 and "plugin list" in r.stdout
    for c in ("init", "run", "list", "stop", "version", "completion", "uninstall"):
        r = ctl(home, c, "--help")
        assert r.returncode == 0 and "dapr" in r.stdout, c
    for c in ("list", "info", "logs", "new"):
        assert ctl(home, "plugin", c, "--help").returncode == 0


def test_wrong_use_is_explained(home):
    r = ctl(home, "rnu")
    assert r.returncode == 1 and "rnu" in r.stderr
    r = ctl(home, "run", "--app-prt", "1")
    assert r.returncode == 1 and "app-prt" in r.stderr + r.stdout


def test_version(home):
    assert "Runtime version: 1.17" in ctl(home, "version").stdout
    assert json.loads(ctl(home, "version", "-o", "json").stdout)["Runtime version"].startswith("1.17")


def test_init_writes_resources_once_and_uninstall_removes_them(home):
    assert ctl(home, "init", "--slim").returncode == 0
    store = f"{home['HOME']}/.dapr/components/statestore.yaml"
    assert "state.sqlite" in open(store).read()
    open(store, "a").write("# mine\n")
    assert ctl(home, "init").returncode == 0 and "# mine" in open(store).read()
    assert ctl(home, "uninstall", "--all").returncode == 0 and not os.path.exists(f"{home['HOME']}/.dapr")


def test_run_gives_the_app_its_environment_and_takes_its_exit_code(home):
    code = "import os,sys,urllib.request as u; p=os.environ['DAPR_HTTP_PORT']; print('health', u.urlopen(f'http://127.0.0.1:{p}/v1.0/healthz').status, os.environ['APP_ID']); sys.exit(7)"
    r = ctl(home, "run", "--app-id", "envapp", "--", sys.executable, "-c", code)
    assert r.returncode == 7 and "== APP == health 204 envapp" in r.stdout, r.stdout + r.stderr


def test_run_list_stop(home):
    port = free_port()
    p = subprocess.Popen([CTL, "run", "--app-id", "listed", "--dapr-http-port", str(port), "--", "sleep", "60"], env=home,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        def row():
            return next((r for r in json.loads(ctl(home, "list", "-o", "json").stdout) if r["appId"] == "listed"), None)
        r = wait_until("it is listed with its app", lambda: (row() or {}).get("appPid") and row())
        assert r["httpPort"] == port and r["cliPid"] == p.pid and r["command"].startswith("sleep")
        assert "listed" in ctl(home, "list").stdout and "APP ID" in ctl(home, "list").stdout
        assert ctl(home, "stop", "--app-id", "listed").returncode == 0
        assert p.wait(20) == 0
        wait_until("it is gone", lambda: row() is None)
        assert ctl(home, "stop", "--app-id", "listed").returncode == 1
    finally:
        if p.poll() is None:
            p.kill()
        p.stdout.close()


def test_run_file_starts_several_apps(home, folder):
    for n in ("one", "two"):
        (folder / n).mkdir()
    (folder / "dapr.yaml").write_text(json.dumps({"version": 1, "name": "pair", "common": {"env": {"COLOR": "red"}}, "apps": [
        {"appDirPath": "./one", "command": ["sh", "-c", "echo $APP_ID $COLOR; sleep 60"]},
        {"appDirPath": "./two", "appID": "second", "command": ["sh", "-c", "echo $APP_ID $COLOR; sleep 60"], "env": {"COLOR": "blue"}}]}))
    out = open(folder / "out", "w+")
    p = subprocess.Popen([CTL, "run", "-f", str(folder)], env=home, stdout=out, stderr=subprocess.STDOUT)
    try:
        text = lambda: (folder / "out").read_text()
        wait_until("both apps have spoken", lambda: "== APP - one == one red" in text() and "== APP - second == second blue" in text(), 30)
        assert list((folder / "one/.dapr/logs").glob("one_daprd_*.log"))
        wait_until("both are listed", lambda: len([r for r in json.loads(ctl(home, "list", "-o", "json").stdout) if r["runTemplateName"] == "pair"]) == 2)
        assert ctl(home, "stop", "-f", str(folder / "dapr.yaml")).returncode == 0
        assert p.wait(30) == 0
    finally:
        if p.poll() is None:
            p.kill()
        out.close()


def test_a_wrong_run_file_names_its_place(home, folder):
    (folder / "dapr.yaml").write_text("version: 1\napps:\n- appPort: many\n  appDirPath: .\n")
    r = ctl(home, "run", "-f", str(folder / "dapr.yaml"))
    assert r.returncode == 1 and "dapr.yaml:3" in r.stderr


def test_plugin_list_info_and_logs(home, daprd):
    d = daprd([component("store", "state.in-memory")], app_id="plugged", env={"HOME": home["HOME"]})
    rows = json.loads(ctl(home, "plugin", "list", "--app-id", "plugged", "-o", "json").stdout)
    assert rows[0]["name"] == "store" and rows[0]["state"] == "READY" and rows[0]["pid"] in d.children()
    assert "READY" in ctl(home, "plugin", "list", "--app-id", "plugged").stdout
    assert "state.in-memory" in ctl(home, "plugin", "info", "store", "--app-id", "plugged").stdout
    assert ctl(home, "plugin", "logs", "store", "--app-id", "plugged").returncode == 0
    installed = json.loads(ctl(home, "plugin", "list", "-o", "json").stdout)
    assert "state.sqlite" in [r["type"] for r in installed]


@pytest.mark.parametrize("kind", ["state", "secretstores"])
def test_plugin_new_builds_and_serves(home, folder, daprd, kind):
    r = ctl(home, "plugin", "new", kind, "mine", cwd=folder)
    assert r.returncode == 0, r.stderr
    subprocess.run(["make", "-C", str(folder / "mine"), "CFLAGS=-O1 -Wall -Wextra -Werror"], check=True, capture_output=True)
    d = daprd([(folder / "mine/resources/mine.yaml").read_text()], plugins_path=folder / "mine")
    if kind == "state":
        assert d.request("POST", "/v1.0/state/mine", [{"key": "k", "value": {"a": 1}}]).status == 204
        assert d.request("GET", "/v1.0/state/mine/k").json() == {"a": 1}
    else:
        assert d.request("GET", "/v1.0/secrets/mine/hello").json() == {"hello": "world"}


def test_completion(home):
    for shell in ("bash", "zsh", "fish"):
        r = ctl(home, "completion", shell)
        assert r.returncode == 0 and "app-id" in r.stdout
    assert subprocess.run(["bash", "-n"], input=ctl(home, "completion", "bash").stdout, text=True).returncode == 0
