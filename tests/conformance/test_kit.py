"""The conformance kit: our plugins pass it, also those behind servers; what lies, crashes, leaks or hangs does not."""
import json, pathlib, re, shutil, subprocess, sys

import pytest

from conftest import BUILD, ROOT, wait_until
from test_ctl import ctl, home  # noqa: F401 (a fixture)
from test_pluggable import protos  # noqa: F401 (a fixture)

PLUGINS = BUILD / "plugins"


def kit(env, *args, ok=True):
    """Our plugins run inside their manifest's walls; a sanitizer needs more than any manifest gives."""
    if pathlib.Path(args[0]).parent == PLUGINS and not {"asan", "tsan"} & set(BUILD.parts):
        args = [*args, "--confined"]
    p = ctl(env, "plugin", "conformance", *map(str, args), "-o", "json")
    assert p.stdout, p.stderr
    r = json.loads(p.stdout)
    bad = [c for c in r["checks"] if c["result"] == "fail"]
    if ok and BUILD.name == "asan":  # it keeps what was freed
        bad = [c for c in bad if "leak neither memory" not in c["name"]]
    else:
        assert (p.returncode == 0) == ok, (bad, p.stderr)
    assert ok == (not bad), (bad, p.stderr)
    return r, {c["name"]: c for c in r["checks"]}


@pytest.mark.parametrize("name, args", [
    ("state.in-memory", []), ("state.sqlite", ["-m", "connectionString={folder}/s.db"]), ("pubsub.in-memory", []),
    ("secretstores.local.env", []), ("secretstores.local.file", ["-m", "secretsFile={folder}/secrets.json", "--secret", "conftestsecret=abcd"]),
    ("bindings.cron", ["-m", "schedule=@every 1s"]), ("bindings.http", ["-m", "url=http://127.0.0.1:9"]),
    ("bindings.localstorage", ["-m", "rootPath={folder}/files"]), ("conversation.echo", []),
    ("crypto.dapr.localstorage", ["-m", "path={folder}/keys", "--key", "rsa.pem:RSA-OAEP-256", "--key", "aes.json:A256GCM"])])
def test_plugins_without_a_server_pass(home, folder, name, args):
    (folder / "secrets.json").write_text('{"conftestsecret": "abcd", "secondsecret": "efgh"}')
    (folder / "files").mkdir()
    if "crypto" in name:
        (folder / "keys").mkdir()
        subprocess.run(["openssl", "genrsa", "-out", folder / "keys/rsa.pem", "2048"], check=True, capture_output=True)
        (folder / "keys/aes.json").write_text(json.dumps({"kty": "oct", "k": "A" * 43}))
    r, _ = kit(home, PLUGINS / name, *[a.format(folder=folder) for a in args])
    assert r["passed"] > 20 and r["type"] == name


def test_plugins_behind_redis_pass(home, folder, redis):
    for name in ("state.redis", "lock.redis", "pubsub.redis", "configuration.redis"):
        extra = ["-m", "processingTimeout=1s", "-m", "redeliverInterval=1s"] if name == "pubsub.redis" else []
        r, checks = kit(home, PLUGINS / name, "-m", f"redisHost={redis.addr}", *extra)
        assert r["passed"] > 20
        if extra:
            assert checks["messages that failed come again"]["result"] == "pass"


def test_a_plugin_behind_etcd_passes(home, etcd):
    etcd.start()
    kit(home, PLUGINS / "state.etcd", "-m", f"endpoints={etcd.addr}")


def test_a_plugin_behind_postgresql_passes(home, postgres):
    kit(home, PLUGINS / "state.postgresql", "-m", f"connectionString={postgres.dsn}")


def test_a_component_file_gives_type_and_settings(home, folder):
    (folder / "c.yaml").write_text(json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "s"}, "spec": {
        "type": "state.sqlite3", "version": "v1", "metadata": [{"name": "connectionString", "value": f"{folder}/x.db"}]}}))
    r, _ = kit(home, PLUGINS / "state.sqlite", "--resource", folder / "c.yaml", "--no-faults")
    assert r["type"] == "state.sqlite3" and (folder / "x.db").exists()


def test_an_existing_pluggable_component_is_checked_on_its_socket(home, folder, protos):
    sock = folder / "p.sock"
    p = subprocess.Popen([sys.executable, ROOT / "tests/conformance/pluggable_store.py", str(sock), str(protos)], stderr=subprocess.DEVNULL)
    try:
        wait_until("it listens", sock.exists)
        _, checks = kit(home, sock, "--type", "state.custom", ok=False)  # it says ETAG and keeps none
        assert checks["values of all kinds come back"]["result"] == "pass"
        assert checks["unknown methods are refused"]["result"] == "pass"
        assert checks["ETags guard writes and deletes"]["result"] == "fail"
    finally:
        p.terminate()
        p.wait()


LIAR = '''#!{python}
import os, sys, time
sys.path[:0] = {path!r}
import dapr_plugin as dapr
HOW = {how!r}
class Store(dapr.StateStore):
    features = ("ETAG",)
    def init(self, md): self.items, self.leaks, self.n = {{}}, [], 0
    def get(self, r):
        if HOW == "leaks": self.leaks.append(bytearray(4096)); self.n += 1
        if HOW == "crashes" and r.key.endswith("value-3"): os._exit(3)
        return self.items.get(r.key)
    def set(self, r):
        if HOW == "hangs" and r.key.endswith("value-0"): time.sleep(60)
        self.items[r.key] = dapr.Item(r.value[:100] if HOW == "cuts" else r.value, "1")
    def delete(self, r): self.items.pop(r.key, None)
if HOW == "stays":
    import dapr_plugin._runtime as rt
    rt._on_control = lambda x: time.sleep(30)
dapr.main("state.liar" if HOW != "name" else "state.other", "1.0.0" if HOW != "version" else "1.0.1", {{"state.liar": Store}})
'''


@pytest.fixture(scope="module")
def h2_path(tmp_path_factory):
    """Where the Python SDK's own dependency is, which the tests' Python may lack."""
    d = tmp_path_factory.mktemp("h2")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", d, "h2"], check=True)
    return [str(BUILD / "share/dapr/sdk/python"), str(d)]


@pytest.mark.parametrize("how, check", [
    ("name", "Hello names plugin, version, contract and types"), ("version", "Hello names plugin, version, contract and types"),
    ("cuts", "values of all kinds come back"),
    ("crashes", "the process lives on"),
    ("leaks", "5,000 calls leak neither memory nor descriptors"), ("hangs", "values of all kinds come back"),
    ("stays", "it ends with 0 when the runtime is gone")])
def test_what_lies_crashes_leaks_or_hangs_fails(home, folder, h2_path, how, check):
    d = folder / "liar"
    d.mkdir()
    (d / "plugin.yaml").write_text("name: state.liar\nversion: 1.0.0\nvolatile: true\ncontract: [1]\ntypes:\n  - type: state.liar\n    versions: [v1]\nenvironment: [PATH, HOME]\n")
    (d / "state.liar").write_text(LIAR.format(python=sys.executable, path=h2_path, how=how))
    (d / "state.liar").chmod(0o755)
    extra = [] if how == "leaks" else ["--no-faults", "--timeout", "1s"]
    _, checks = kit(home, d, *extra, ok=False)
    assert checks[check]["result"] == "fail", checks
    if how == "cuts":  # key, what came and what was expected, not whole
        assert re.search(r'^Get of conformance\|\|\d+-value-5 gives "\\x00\\x01.*"\.\.\. \(100 bytes\) instead of "\\x00.*"\.\.\. \(256 bytes\)$', checks[check]["detail"]), checks[check]


def test_the_result_is_kept_in_the_package(home, folder):
    out = folder / "p.tar"
    assert ctl(home, "plugin", "build", str(PLUGINS / "state.in-memory"), "--out", str(out)).returncode == 0
    p = ctl(home, "plugin", "conformance", str(out), "--save", "--no-faults")
    assert p.returncode == 0 and "holds the result now" in p.stdout, p.stdout + p.stderr
    p = subprocess.run(["tar", "xOf", out, "conformance.json"], capture_output=True)
    assert json.loads(p.stdout)["failed"] == 0
    assert ctl(home, "plugin", "install", str(out), "--allow-unsigned").returncode == 0


def test_bad_use_says_what_is_wrong(home, folder):
    unconfined = folder / "state.in-memory"
    shutil.copytree(PLUGINS / "state.in-memory", unconfined)
    text = (unconfined / "plugin.yaml").read_text()
    assert "\nsandbox:" in text
    (unconfined / "plugin.yaml").write_text(text[:text.index("\nsandbox:") + 1])
    for args, text in ((["/nowhere"], "no folder, package or socket"), ([str(folder)], "plugin.yaml"), ([], "Say one plugin"),
                       ([str(PLUGINS / "state.in-memory"), "--type", "nonsense"], "no component type"),
                       ([str(PLUGINS / "state.sqlite"), "-m", "x"], "NAME=VALUE"),
                       ([str(unconfined), "--confined"], "it has no key 'sandbox'")):
        p = ctl(home, "plugin", "conformance", *args)
        assert p.returncode == 1 and text in p.stderr, p.stderr


def component_file(path, **settings):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "s"}, "spec": {
        "type": "state.sqlite", "version": "v1", "metadata": [{"name": k, **v} if isinstance(v, dict) else {"name": k, "value": v} for k, v in settings.items()]}}))
    return path


def test_a_required_setting_is_asked_for_in_one_line(home, folder):
    p = ctl(home, "plugin", "conformance", str(PLUGINS / "state.sqlite"))
    assert p.returncode == 1 and p.stdout == "" and "plugin.yaml requires 'connectionString': say --metadata connectionString=... or --resource FILE" in p.stderr
    p = ctl(home, "plugin", "conformance", str(PLUGINS / "state.sqlite"), "-m", "connectionStrin=x")
    assert "no setting 'connectionStrin'; did you mean 'connectionString'?" in p.stderr and "requires 'connectionString'" in p.stderr, p.stderr
    f = component_file(folder / "c.yaml", connectionString={"secretKeyRef": {"name": "a", "key": "b"}})
    p = ctl(home, "plugin", "conformance", str(PLUGINS / "state.sqlite"), "-r", str(f))
    assert p.returncode == 1 and "'connectionString' comes from a secret store" in p.stderr, p.stderr


def test_nothing_is_checked_after_a_failed_init(home, folder):
    r, checks = kit(home, PLUGINS / "state.sqlite", "-m", f"connectionString={folder}/no/such/folder/s.db", ok=False)
    assert r["failed"] == 1 and checks["Init"]["result"] == "fail" and not [c for c in checks.values() if c["group"] not in ("contract", "walls")]


def test_a_component_in_resources_is_taken_when_that_is_said(home, folder):
    """...and what the checks write to a live store is removed."""
    import sqlite3
    plugin = folder / "mine"
    shutil.copytree(PLUGINS / "state.sqlite", plugin / "state.sqlite")
    shutil.copy(plugin / "state.sqlite/plugin.yaml", plugin)
    db = folder / "live.db"
    f = component_file(plugin / "resources/mine.yaml", connectionString=str(db))
    component_file(plugin / "resources/0-broken.yaml").write_text("{")
    p = ctl(home, "plugin", "conformance", str(plugin))
    assert p.returncode == 1 and f"write keys of their own to what {f} names" in p.stderr and "say --yes" in p.stderr and not db.exists(), p.stderr
    p = ctl(home, "plugin", "conformance", str(plugin), "--yes", "--no-faults")
    assert p.returncode == 0, p.stdout + p.stderr
    assert sqlite3.connect(db).execute("select count(*) from state").fetchone() == (0,)
    p = ctl(home, "plugin", "conformance", str(plugin), "-m", f"connectionString={folder}/other.db", "--no-faults")
    assert p.returncode == 0 and "of their own" not in p.stderr and (folder / "other.db").exists(), p.stderr
    p = ctl(home, "plugin", "conformance", str(PLUGINS / "state.sqlite"), "--resource", str(f), "--no-faults")
    assert p.returncode == 0 and "of their own" in p.stderr, p.stderr


def test_a_result_with_failures_is_not_kept(home, folder):
    bad = folder / "state.in-memory"
    shutil.copytree(PLUGINS / "state.in-memory", bad)
    (bad / "plugin.yaml").write_text((bad / "plugin.yaml").read_text().replace("versions: [v1]", "versions: [v1]\n    features: [QUERY_API]"))
    p = ctl(home, "plugin", "conformance", str(bad), "--save", "--no-faults")
    assert p.returncode == 1 and "The result is not kept" in p.stderr and not (bad / "conformance.json").exists(), p.stdout + p.stderr


def test_a_signature_that_saving_takes_away_is_told(home, folder):
    out, key = folder / "p.tar", folder / "k"
    assert ctl(home, "plugin", "keygen", "--no-password", "--key", str(key)).returncode == 0
    assert ctl(home, "plugin", "build", str(PLUGINS / "state.in-memory"), "--out", str(out), "--key", str(key)).returncode == 0
    p = ctl(home, "plugin", "conformance", str(out), "--save", "--no-faults")
    assert p.returncode == 0 and "sign it again" in p.stdout and "Its signature is gone" in p.stderr, p.stdout + p.stderr
