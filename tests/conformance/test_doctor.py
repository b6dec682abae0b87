"""daprctl doctor: each thing that can be wrong with a component is found at its step, with evidence and a fix."""
import json, os, pathlib, re, shutil, subprocess


from conftest import BUILD, Redis, component, free_port, wait_until

APP = f"doctor-{os.getpid()}"


def doctor(*args, env=None, ok=None):
    r = subprocess.run([str(BUILD / "bin/daprctl"), "doctor", *map(str, args), "-o", "json"], env={"NO_COLOR": "1", **(env or {})},
                       capture_output=True, text=True, timeout=60)
    report = json.loads(r.stdout)
    assert report["ok"] == (r.returncode == 0) and (ok is None or report["ok"] == ok), r.stdout + r.stderr
    return report["checks"]


def found(checks, step, subject, result="wrong"):
    """The one finding of that kind; it has evidence and, when something is wrong, a fix."""
    hits = [c for c in checks if c["step"] == step and c["subject"] == subject and c["result"] == result]
    assert len(hits) == 1, json.dumps(checks, indent=1)
    assert hits[0]["evidence"] and (result == "ok" or hits[0]["fix"])
    return hits[0]


def sqlite(name, path, **kw):
    return component(name, "state.sqlite", [("connectionString", str(path))], **kw)


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_before_anything_runs(folder):
    (folder / "r").mkdir()
    with_redis = Redis(folder)
    assert with_redis.cli("CONFIG", "SET", "requirepass", "right") == "OK"
    try:
        r = write(folder / "r", good=sqlite("good", folder / "good.db"), broken="a: [1\nb: 2\n", none=component("none", "state.nosuch"),
                  typed=component("typed", "state.redis", [("redisHost", "localhost:1"), ("redisDB", "x")]),
                  refused=component("refused", "state.redis", [("redisHost", with_redis.addr), ("redisPassword", "not-the-one")]),
                  down=component("down", "pubsub.redis", [("redisHost", f"127.0.0.1:{free_port()}"), ("typo", "1")], initTimeout="2s"),
                  nofile=sqlite("nofile", folder / "no" / "such.db"), other=sqlite("other", folder / "o.db", scopes=["someone"]),
                  shape="apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: shape\nspec:\n  version: v1\n")
        checks = doctor("--resources-path", r, "--app-id", APP, "--app-port", free_port(), ok=False)
    finally:
        with_redis.close()
    assert "broken.yaml:2" in found(checks, "yaml", str(r / "broken.yaml"))["evidence"]
    assert "spec.type is missing" in found(checks, "schema", f"{r}/shape.yaml:1")["evidence"]
    f = found(checks, "schema", "typed")
    assert "typed.yaml:1" in f["evidence"] and "not a whole number" in f["evidence"]
    assert "no setting 'typo'" in found(checks, "schema", "down", "warning")["evidence"]
    f = found(checks, "plugin", "none")
    assert "couldn't find state store state.nosuch/v1" in f["evidence"] and "dapr plugin install state.nosuch" in f["fix"]
    f = found(checks, "init", "refused")
    assert "WRONGPASS" in f["evidence"] and "password" in f["fix"] and "not-the-one" not in json.dumps(checks)
    assert "refused" in found(checks, "backend", "down")["evidence"]
    assert any(c["step"] == "permission" and c["subject"] == "nofile" and c["fix"] == f"mkdir -p {folder}/no" for c in checks)
    assert APP in found(checks, "scope", "other", "warning")["fix"]
    assert "nothing listens" in found(checks, "app", APP)["evidence"]
    for step in ("schema", "plugin", "hello", "init", "permission", "backend"):
        found(checks, step, "good", "ok")
    assert not (folder / "o.db").exists()
    assert not list(pathlib.Path("/tmp").glob("daprctl-*")), "the throw-away sidecar leaves nothing behind"


def test_a_running_sidecar_whose_redis_dies(daprd, folder):
    with_redis = Redis(folder)
    d = daprd([component("cache", "state.redis", [("redisHost", with_redis.addr)]), sqlite("good", folder / "s.db")], app_id=APP)
    checks = doctor("--app-id", APP, ok=True)
    for name in ("cache", "good"):
        for step in ("schema", "plugin", "hello", "init", "backend"):
            found(checks, step, name, "ok")
    with_redis.kill()
    f = wait_until("it is found", lambda: next((c for c in doctor("--app-id", APP) if c["result"] == "wrong"), None))
    assert f["step"] == "backend" and f["subject"] == "cache" and "start the server" in f["fix"]
    table = subprocess.run([str(BUILD / "bin/daprctl"), "doctor", "--app-id", APP], env={}, capture_output=True, text=True, timeout=60)
    assert table.returncode == 1 and "✗ backend" in table.stdout and "-> start the server" in table.stdout
    assert subprocess.run([str(BUILD / "bin/daprctl"), "doctor"], env={}, capture_output=True, timeout=60).returncode == 1
    assert d.request("GET", "/v1.0/healthz").status == 204


def test_a_package_that_was_changed_and_one_that_lies(folder):
    home = {"HOME": str(folder), "PATH": os.environ["PATH"], "DAPR_PLUGINS_PATH": str(folder / ".dapr/plugins")}
    ctl = lambda *a: subprocess.run([str(BUILD / "bin/daprctl"), "plugin", *a], env=home, check=True, capture_output=True, text=True, timeout=60)  # noqa: E731
    for name in ("state.in-memory", "state.mine"):
        shutil.copytree(BUILD / "plugins/state.in-memory", folder / name)
    manifest = folder / "state.mine/plugin.yaml"
    manifest.write_text(manifest.read_text().replace("state.in-memory", "state.mine").replace("executable: state.mine", "executable: state.in-memory"))
    for name in ("state.in-memory", "state.mine"):
        ctl("build", str(folder / name), "--no-make", "--out", str(folder / "p.tar"))
        ctl("install", str(folder / "p.tar"), "--allow-unsigned")
    (folder / "r").mkdir()
    r = write(folder / "r", memory=component("memory", "state.in-memory"))
    assert "is not signed" in found(doctor("--resources-path", r, env=home, ok=True), "signature", "state.in-memory", "warning")["evidence"]
    installed = next((folder / ".dapr/plugins/state.in-memory").rglob("plugin.yaml"))
    installed.write_text(installed.read_text() + "# changed\n")
    write(r, lies=component("lies", "state.mine"))
    checks = doctor("--resources-path", r, env=home, ok=False)
    f = found(checks, "package", "state.in-memory")
    assert "plugin.yaml" in f["evidence"] and "plugin install" in f["fix"]
    f = found(checks, "hello", "lies")
    assert "does not serve state.mine" in f["evidence"] and "plugin install" in f["fix"]


def test_what_the_policy_refuses_is_found_as_daprd_finds_it(folder):
    """Lock row, digest, signature, file: doctor's step, evidence and fix, and the sidecar's own reason, are those of one check."""
    home = {"HOME": str(folder), "PATH": os.environ["PATH"], "DAPR_PLUGINS_PATH": str(folder / ".dapr/plugins")}
    run = lambda *a: subprocess.run([str(BUILD / "bin/daprctl"), "plugin", *a], env=home, check=True, capture_output=True, text=True, timeout=60)  # noqa: E731
    source = folder / "state.in-memory"
    shutil.copytree(BUILD / "plugins/state.in-memory", source)
    manifest = source / "plugin.yaml"
    manifest.write_text(re.sub(r"version: \S+", "version: 91.0.0", manifest.read_text(), count=1))
    run("keygen", "--no-password", "--key", f"{folder}/ada.key")
    run("trust", "add", f"{folder}/ada.pub", "ada")
    run("build", str(source), "--no-make", "--out", f"{folder}/p.tar", "--key", f"{folder}/ada.key")
    run("install", f"{folder}/p.tar")
    lock = folder / "plugins.lock"
    run("lock", "state.in-memory", "--lock", str(lock))
    (folder / "r").mkdir()
    r = write(folder / "r", memory=component("memory", "state.in-memory"))
    place = folder / ".dapr/plugins/state.in-memory/91.0.0"

    def look(step, *args, result="wrong"):
        checks = doctor("--resources-path", r, f"--plugin-lock={lock}", *args, env=home, ok=result != "wrong")
        f = found(checks, step, "state.in-memory", result)
        if result == "wrong":
            daprd = found(checks, step, "memory")
            assert f["evidence"] in daprd["evidence"] and f["fix"] == daprd["fix"]
        return f

    assert "pins 91.0.0, digest blake2b:" in look("lock", result="ok")["evidence"]
    assert "signed by ada" in look("signature", "--plugin-verify=signed", result="ok")["evidence"]
    good = lock.read_text()
    lock.write_text(re.sub("blake2b:.{4}", "blake2b:0000", good))
    f = look("lock")
    assert "expected digest blake2b:0000" in f["evidence"] and f["fix"] == "dapr plugin install 'state.in-memory@91.0.0' --force"
    lock.write_text(good)
    (place / "extra.so").write_text("x")
    assert look("package")["fix"] == f"rm '{place}/extra.so'"
    (place / "extra.so").unlink()
    run("trust", "remove", "ada")
    assert "is not trusted" in look("signature", "--plugin-verify=signed")["evidence"]
    lock.write_text("version: 1\nplugins: {}\n")
    checks = doctor("--resources-path", r, f"--plugin-lock={lock}", env=home, ok=False)
    assert "this is no lock file" in found(checks, "lock", str(lock))["evidence"]


def test_a_process_that_hangs_is_found_at_its_ping(daprd, folder):
    d = daprd([sqlite("good", folder / "s.db")], app_id=APP)
    pid = next(iter(d.children()))
    os.kill(pid, 19)
    wait_until("it was started again", lambda: d.metadata()["components"][0]["microdapr"]["pid"] not in (0, pid), 40)
    f = wait_until("it is told", lambda: next((c for c in doctor("--app-id", APP) if c["step"] == "ping" and c["result"] == "warning"), None))
    assert "hang" in f["evidence"] and "plugin history" in f["fix"]


def test_what_the_runtime_takes_itself_is_no_unknown_setting(daprd, folder):
    settings = [("connectionString", str(folder / "s.db")), ("actorStateStore", "true"), ("keyPrefix", "none"), ("outboxPublishPubsub", "p"),
                ("primaryEncryptionKey", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="), ("connectionStrin", "x")]
    made = [component("s", "state.sqlite", settings), component("b", "bindings.localstorage", [("rootPath", str(folder)), ("direction", "output"), ("route", "/b")])]
    r = folder / "r"
    r.mkdir()
    checks = doctor("--resources-path", write(r, s=made[0], b=made[1]), ok=True)
    warned = [c["evidence"] for c in checks if c["result"] == "warning"]
    assert len(warned) == 1 and "no setting 'connectionStrin'; did you mean 'connectionString'?" in warned[0], warned
    d = daprd(made, app_id=APP)
    shown = {n: json.loads(subprocess.run([str(BUILD / "bin/daprctl"), "plugin", "info", n, "-a", d.app_id, "-o", "json"], capture_output=True, text=True,
                                          check=True).stdout) for n in ("s", "b")}
    text = json.dumps(shown)
    assert '"direction": "output"' in text and '"keyPrefix": "none"' in text and "c2VjcmV0" not in text
