"""Plugins in C, Go, Python and JavaScript: what `plugin new` writes builds with one command, and runs under daprd."""
import os, pathlib, shutil, subprocess, sys

import pytest

from conftest import BUILD, ROOT, Daprd, component, wait_until
from test_ctl import ctl, home  # noqa: F401 (a fixture)

NEEDS = {"c": "gcc", "go": "go", "python": "python3", "js": "node"}
# the Python that runs the tests has the packages that its plugins need, and pip's cache
PATH = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"


def made(env, folder, kind, lang):
    if not shutil.which(NEEDS[lang]):
        pytest.skip(f"needs {NEEDS[lang]}")
    env = dict(env, PATH=PATH, HOME=os.environ.get("HOME", env["HOME"]))  # the caches of go and pip
    p = ctl(env, "plugin", "new", kind, "mine", "--lang", lang, "--dir", str(folder / "mine"))
    assert p.returncode == 0, p.stderr
    p = subprocess.run(["make", "-C", folder / "mine"], env=env, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    return folder / "mine"


@pytest.mark.parametrize("lang", NEEDS)
def test_a_state_store_of_each_language(home, folder, lang):
    path = made(home, folder, "state", lang)
    d = Daprd(folder, [component("store", "state.mine")], plugins_path=path, env={"PATH": PATH}).start()
    url = "/v1.0/state/store"
    try:
        c = d.metadata()["components"][0]
        assert c["capabilities"] == ["ETAG", "TTL"] and c["microdapr"]["version"] == "0.1.0"
        assert d.request("POST", url, [{"key": "a", "value": {"x": "ä"}}, {"key": "gone", "value": 1, "metadata": {"ttlInSeconds": "1"}}]).status == 204
        r = d.request("GET", url + "/a")
        assert r.json() == {"x": "ä"} and r.headers["Etag"]
        assert d.request("DELETE", url + "/a", headers={"If-Match": "999"}).status == 409
        r = d.request("POST", url, [{"key": "a", "value": 1, "etag": "nonsense"}, {"key": "b", "value": 1, "etag": "999"}])
        assert r.status == 409 or r.status == 400, r.body
        r = d.request("POST", url, [{"key": "a", "value": 1, "metadata": {"ttlInSeconds": "soon"}}])
        assert r.status >= 400 and b"ttlInSeconds" in r.body
        assert d.request("POST", url, [{"key": "big", "value": "x" * 3_000_000}]).status == 204
        assert len(d.request("GET", url + "/big").json()) == 3_000_000
        wait_until("the item has expired", lambda: d.request("GET", url + "/gone").status == 204)
        pid = next(iter(d.children()))
        os.kill(pid, 9)  # a plugin in any language comes back
        wait_until("it serves again", lambda: d.request("POST", url, [{"key": "b", "value": 2}]).status == 204)
        assert d.request("GET", url + "/b").json() == 2
    finally:
        d.close()


@pytest.mark.parametrize("lang", NEEDS)
def test_a_secret_store_of_each_language(home, folder, lang):
    path = made(home, folder, "secretstores", lang)
    d = Daprd(folder, [component("store", "secretstores.mine")], plugins_path=path, env={"PATH": PATH}).start()
    try:
        assert d.request("GET", "/v1.0/secrets/store/hello").json() == {"hello": "world"}
        assert d.request("GET", "/v1.0/secrets/store/bulk").json() == {"hello": {"hello": "world"}}
        assert d.request("GET", "/v1.0/secrets/store/other").status == 500
    finally:
        d.close()


@pytest.mark.skipif(not shutil.which("go"), reason="needs go")
def test_the_go_package_tests_itself():
    p = subprocess.run(["go", "test", "./..."], cwd=ROOT / "sdk/go", capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
