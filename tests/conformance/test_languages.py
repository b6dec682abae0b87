"""Plugins in C, Go, Python and JavaScript: what `plugin new` writes builds with one command, and runs under daprd."""
import concurrent.futures, os, pathlib, shutil, subprocess, sys

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
        assert d.request("POST", url, [{"key": "stays", "value": 1, "metadata": {"ttlInSeconds": "1"}}]).status == 204
        assert d.request("POST", url, [{"key": "stays", "value": 2}]).status == 204
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
        assert d.request("GET", url + "/stays").json() == 2  # the second write has no TTL
        pid = next(iter(d.children()))
        os.kill(pid, 9)  # a plugin in any language comes back
        wait_until("it serves again", lambda: d.request("POST", url, [{"key": "b", "value": 2}]).status == 204)
        assert d.request("GET", url + "/b").json() == 2
    finally:
        d.close()


@pytest.mark.parametrize("lang", NEEDS)
def test_the_version_stands_in_the_manifest_alone(home, folder, lang):
    path = made(home, folder, "state", lang)
    f = path / "plugin.yaml"
    f.write_text(f.read_text().replace("version: 0.1.0", 'version: "2.3.4-rc1"  # next'))
    env = dict(home, PATH=PATH, HOME=os.environ.get("HOME", home["HOME"]))
    assert subprocess.run(["make", "-C", path], env=env, capture_output=True).returncode == 0
    program = next(p for p in (path / "state.mine").iterdir() if p.name in ("state.mine", "main.py", "main.js"))
    p = subprocess.run([program, "--manifest"], env=env, capture_output=True, text=True)
    assert "\nversion: 2.3.4-rc1\n" in p.stdout, p.stdout + p.stderr


@pytest.mark.parametrize("lang", NEEDS)
def test_the_kit_tells_of_sources_that_are_newer_than_the_program(home, folder, lang):
    path = made(home, folder, "state", lang)
    for word in ("", "was changed after"):
        p = subprocess.run([str(BUILD / "bin/daprctl"), "plugin", "conformance", str(path), "--no-faults"], env=dict(home, PATH=PATH), capture_output=True, text=True)
        assert p.returncode == 0 and (word in p.stderr if word else "was changed after" not in p.stderr), p.stdout + p.stderr
        next(path.glob("main.*")).touch()


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


HUNG_PING = {"go": ("main.go", "// find gives", "func (s *store) Ping(ctx context.Context) error { select {} }\n\n// find gives"),
             "python": ("main.py", "    def find(", "    def ping(self):\n        time.sleep(1000)\n\n    def find("),
             "js": ("main.js", "  find(key) {", "  ping() { return new Promise(() => {}); }\n\n  find(key) {")}


@pytest.mark.parametrize("lang", HUNG_PING)
def test_a_ping_that_hangs_is_seen_in_each_language(home, folder, lang):
    path = made(home, folder, "state", lang)
    name, old, new = HUNG_PING[lang]
    (path / name).write_text((path / name).read_text().replace(old, new, 1))
    (path / "plugin.yaml").write_text((path / "plugin.yaml").read_text() + "hangAfter: 4s\n")
    env = dict(home, PATH=PATH, HOME=os.environ.get("HOME", home["HOME"]))
    assert subprocess.run(["make", "-C", path], env=env, capture_output=True).returncode == 0
    d = Daprd(folder, [component("store", "state.mine")], plugins_path=path, env={"PATH": PATH}).start()
    try:
        wait_until("its backend is unreachable", lambda: "its backend is not reachable: its ping has not come back for" in d.log(), 10)
        wait_until("it is ended as a hang", lambda: "hung and was killed: a ping has not come back for" in d.log(), 10)
        wait_until("it serves again", lambda: d.request("GET", "/v1.0/state/store/a").status == 204)
    finally:
        d.close()


def test_threads_of_a_python_plugin_that_all_hang_are_seen(home, folder):
    path = made(home, folder, "state", "python")
    f = next(path.glob("*/main.py"))
    f.write_text(f.read_text().replace("    def find(", "    def find(self, key):\n        time.sleep(1000)\n\n    def unused(", 1))
    y = f.parent / "plugin.yaml"
    y.write_text(y.read_text() + "hangAfter: 2s\n")
    d = Daprd(folder, [component("store", "state.mine")], plugins_path=path, env={"PATH": PATH}).start()

    def give_up(_):
        with pytest.raises(OSError):
            d.request("GET", "/v1.0/state/store/a", timeout=0.5)
    try:
        with concurrent.futures.ThreadPoolExecutor(34) as pool:
            list(pool.map(give_up, range(34)))
        wait_until("it is ended as a hang", lambda: "hung and was killed: all 32 threads are busy" in d.log(), 10)
    finally:
        d.close()


KINDS = ("state", "secretstores", "pubsub", "bindings", "configuration", "lock", "crypto", "conversation", "nameresolution", "middleware")
ARGS = {"bindings": ["--operation-metadata", "key=a"], "crypto": ["--key", "hello"], "secretstores": ["--secret", "hello=world"],
        "configuration": ["-m", "file={file}", "--change", 'echo "$KEY=$VALUE" >> {file}']}


@pytest.mark.parametrize("lang", NEEDS)
def test_what_is_written_passes_the_kit_whatever_its_kind(home, folder, lang):
    """Every kind: written, built, checked, each by one command."""
    if not shutil.which(NEEDS[lang]):
        pytest.skip(f"needs {NEEDS[lang]}")
    env = dict(home, PATH=PATH, HOME=os.environ.get("HOME", home["HOME"]))

    def build(kind):
        path = folder / f"{kind}-{lang}"
        path.mkdir()
        if lang != "python" or kind == KINDS[0]:
            return made(home, path, kind, lang)
        p = ctl(env, "plugin", "new", kind, "mine", "--lang", lang, "--dir", str(path / "mine"))
        assert p.returncode == 0, p.stderr
        to = path / "mine" / f"{kind}.mine"  # as its Makefile does it, but for pip, whose packages are there already
        shutil.copytree(first / "mine" / f"{KINDS[0]}.mine", to)
        shutil.copy(path / "mine/plugin.yaml", to)
        shutil.copyfile(path / "mine/main.py", to / "main.py")
        return path / "mine"

    first = folder / f"{KINDS[0]}-{lang}"
    (folder / f"{lang}.txt").touch()  # what is not there at the start cannot be granted

    def one(kind):
        built = build(kind)
        args = [a.format(file=folder / f"{lang}.txt") for a in ARGS.get(kind, [])]
        p = ctl(env, "plugin", "conformance", str(built), "--no-faults", *args, *(["--confined"] if lang in ("c", "go") and "asan" not in str(BUILD) else []))
        return None if p.returncode == 0 else (kind, p.stdout, p.stderr)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        bad = [r for r in [one(KINDS[0]), *pool.map(one, KINDS[1:])] if r]
    assert not bad, bad


@pytest.mark.parametrize("lang", ["python", "js"])
@pytest.mark.skipif(not os.path.exists("/usr/bin/env") or "asan" in str(BUILD), reason="needs the machine's interpreters")
def test_a_script_runs_confined(home, folder, lang):
    """Its interpreter is granted; what one that is a script itself starts must be, as the comment in its plugin.yaml says, else the hint is printed."""
    name = NEEDS[lang]
    if not os.path.exists(f"/usr/bin/{name}"):
        pytest.skip(f"needs /usr/bin/{name}")
    path, mine = made(home, folder, "state", lang), folder / "interpreters"
    mine.mkdir()
    (mine / name).write_text(f'#!/bin/sh\nexec /usr/bin/{name} "$@"\n')
    (mine / name).chmod(0o755)
    text, built = (path / "plugin.yaml").read_text(), path / "state.mine/plugin.yaml"

    def check(sandbox, where):
        built.write_text(text + sandbox)
        return ctl(dict(home, PATH=str(where)), "plugin", "conformance", str(path), "--confined", "--no-faults", "--timeout", "1s")
    for sandbox, where in (("sandbox: {}\n", "/usr/bin"), ("sandbox:\n  programs:\n    - path: /usr/bin\n", mine)):
        p = check(sandbox, where)
        assert p.returncode == 0, p.stdout + p.stderr
    p = check("sandbox: {}\n", mine)
    assert p.returncode == 1 and "exit code 126 before it answered" in p.stderr and "sandbox: programs:" in p.stderr, p.stderr


@pytest.mark.skipif(not shutil.which("go"), reason="needs go")
def test_the_go_package_tests_itself():
    p = subprocess.run(["go", "test", "./..."], cwd=ROOT / "sdk/go", capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
