"""What daprd starts is what plugins.lock pins and the trust store vouches for: looked at before each start, and no gap between look and start."""
import ctypes, json, os, pathlib, shutil, threading

import pytest

from conftest import BUILD, Daprd, component, wait_until
from test_ctl import ctl, home  # noqa: F401 (a fixture)
from test_languages import PATH, made
from test_packages import keys, packed, run, work  # noqa: F401 (a fixture)

STORE = component("store", "state.in-memory")


def install(env, work, folder, version="91.0.0", key=None, lock=True):
    """state.in-memory, signed and pinned in the folder that daprd starts in; where it is installed."""
    out = packed(env, work, folder, key or keys(env, work), version=version, name="state.in-memory", text="sandbox: {}\n")
    run(env, work, "install", out)
    if lock:
        run(env, work, "lock", f"state.in-memory@{version}", "--lock", f"{folder}/plugins.lock")
    return pathlib.Path(env["HOME"]) / f".dapr/plugins/state.in-memory/{version}"


def sidecar(env, folder, *args, store=STORE, **kw):
    return Daprd(folder, [store], plugins_path=f"{env['HOME']}/.dapr/plugins", env={"HOME": env["HOME"], "PATH": PATH}, args=args, **kw)


def refused(env, folder, *args, **kw):
    """daprd's reason for not starting."""
    d = sidecar(env, folder, *args, **kw)
    d.start(healthy=False)
    try:
        assert d.wait_exit() == 1, d.log()
    finally:
        d.out.close()
    log = d.log()
    d.log_path.unlink()
    return log


def starts(env, folder, *args, **kw):
    d = sidecar(env, folder, *args, **kw).start()
    try:
        return d.metadata()["components"][0]["microdapr"]
    finally:
        d.close()


def digest_of(env, work):
    return json.loads(run(env, work, "verify", "state.in-memory", "-o", "json"))[0]["digest"]


def test_what_the_lock_pins_starts_and_nothing_else(home, work, folder):
    place = install(home, work, folder)
    digest = digest_of(home, work)
    assert starts(home, folder)["state"] == "READY"
    lock = folder / "plugins.lock"
    good = lock.read_text()

    lock.write_text(good.replace(digest, "0" * 64))
    log = refused(home, folder)
    assert "plugin state.in-memory was not started: state.in-memory 91.0.0 in" in log and str(lock) in log
    assert f"expected digest blake2b:{'0' * 64}, found blake2b:{digest}" in log
    assert "to mend it: dapr plugin install 'state.in-memory@91.0.0' --force" in log

    lock.write_text("version: 1\nplugins: []\n")
    assert "plugins.lock has no row for state.in-memory 91.0.0" in (log := refused(home, folder)) and "to mend it: dapr plugin lock state.in-memory" in log
    assert starts(home, folder, "--plugin-verify=off")["state"] == "READY"
    lock.write_text("version: 1\nplugins: [{name: state.in-memory}]\n")
    assert "plugins.lock:2:" in refused(home, folder)
    lock.unlink()
    assert starts(home, folder)["state"] == "READY"
    assert "invalid value for 'plugin-lock': nowhere.lock: No such file or directory" in refused(home, folder, "--plugin-lock=nowhere.lock")
    assert "invalid value for 'plugin-verify': maybe; use off, lock or signed" in refused(home, folder, "--plugin-verify=maybe")

    (folder / "other.lock").write_text(good)
    assert starts(home, folder, "--plugin-lock=other.lock")["state"] == "READY"
    with open(place / "state.in-memory", "ab") as f:
        f.write(b"\0")
    log = refused(home, folder, "--plugin-lock=other.lock")
    assert f"{place}/state.in-memory was changed: expected digest blake2b:" in log and "found blake2b:" in log


@pytest.mark.parametrize("deed, said", [
    (lambda p: (p / "plugin.yaml").write_text((p / "plugin.yaml").read_text() + "share: true\n"), "plugin.yaml was changed"),
    (lambda p: (p / "libevil.so").write_text("x"), "libevil.so is not in the package; to mend it: rm '"),
    (lambda p: (p / "sub").mkdir() or (p / "sub/x").write_text("x"), "sub/x is not in the package"),
    (lambda p: (p / "state.in-memory").chmod(0o775), "may be written by other users; to mend it: chmod -R go-w"),
    (lambda p: p.chmod(0o777), "may be written by other users"),
    (lambda p: (p / ".dapr/files").unlink(), "was not installed from a package: there is no .dapr/files; expected is the package of digest blake2b:"),
    (lambda p: (p / ".dapr/files").write_text("microdapr package 1\nname x\n"), "lacks name, version or platform"),
    (lambda p: (p / "state.in-memory").rename(p.parent / "x") and (p / "state.in-memory").symlink_to("../x"), "state.in-memory is a link"),
    (lambda p: (p / "state.in-memory").unlink() or (p / "state.in-memory").mkdir(), "is no regular file"),
    (lambda p: (p / "state.in-memory").unlink() or os.mkfifo(p / "state.in-memory"), "is no regular file"),
], ids="manifest extra deep mode folder unpacked list link dir pipe".split())
def test_a_package_that_was_touched_is_not_started(home, work, folder, deed, said):
    place = install(home, work, folder)
    deed(place)
    assert said in refused(home, folder)


def test_the_pinned_version_is_the_one_that_is_taken(home, work, folder):
    key = keys(home, work)
    for v in ("91.0.0", "92.0.0"):
        install(home, work, folder, v, key, lock=False)
    run(home, work, "lock", "state.in-memory@91.0.0", "--lock", f"{folder}/plugins.lock")
    assert starts(home, folder)["version"] == "91.0.0"
    run(home, work, "remove", "state.in-memory@91.0.0")
    log = refused(home, folder)
    assert "92.0.0" in log and "pins state.in-memory to 91.0.0; to install that: dapr plugin install 'state.in-memory@91.0.0'" in log


def test_signatures_are_asked_for_when_the_policy_wants_them(home, work, folder):
    key = keys(home, work, "ada")
    install(home, work, folder, key=key, lock=False)
    assert starts(home, folder, "--plugin-verify=signed")["state"] == "READY"  # daprd's own resolver is no package
    run(home, work, "trust", "remove", "ada")
    log = refused(home, folder, "--plugin-verify=signed")
    assert "which is not trusted" in log and "to mend it: dapr plugin trust add KEY.pub" in log
    run(home, work, "trust", "add", f"{work}/ada.pub", "ada")
    signature = pathlib.Path(home["HOME"]) / ".dapr/plugins/state.in-memory/91.0.0/.dapr/signature.minisig"
    signature.write_text(signature.read_text().replace("timestamp:", "timestamp:9"))
    assert "its signature by key" in refused(home, folder, "--plugin-verify=signed")
    signature.unlink()
    assert "is not signed" in refused(home, folder, "--plugin-verify=signed")
    assert starts(home, folder)["state"] == "READY"


def test_a_restart_looks_again(home, work, folder):
    place = install(home, work, folder)
    me = f"looks{os.getpid()}"
    d = sidecar(home, folder, app_id=me).start()
    try:
        pid = d.metadata()["components"][0]["microdapr"]["pid"]
        assert os.readlink(f"/proc/{pid}/exe") == str(place / "state.in-memory")
        assert pathlib.Path(f"/proc/{pid}/comm").read_text() == "state.in-memory\n"
        good = (place / "state.in-memory").read_bytes()
        (place / "new").write_bytes(good + b"\0")
        (place / "new").chmod(0o755)
        (place / "new").rename(place / "state.in-memory")
        os.kill(pid, 9)
        state = lambda: d.metadata()["components"][0]["microdapr"]
        wait_until("it has failed", lambda: state()["state"] == "FAILED")
        text = ctl(home, "plugin", "info", "store", "--app-id", me).stdout
        assert "not verified" in text and "was changed: expected digest" in text
        (place / "new").write_bytes(good)
        (place / "new").chmod(0o755)
        (place / "new").rename(place / "state.in-memory")
        assert ctl(home, "plugin", "restart", "store", "--app-id", me).returncode == 0
        assert state()["state"] == "READY" and d.request("POST", "/v1.0/state/store", [{"key": "a", "value": 1}]).status == 204
    finally:
        d.close()


def test_a_candidate_that_is_not_pinned_does_not_come_in(home, work, folder):
    key = keys(home, work)
    install(home, work, folder, "91.0.0", key)
    other = install(home, work, folder, "92.0.0", key, lock=False)
    me = f"swaps{os.getpid()}"
    d = sidecar(home, folder, app_id=me).start()
    try:
        r = ctl(home, "plugin", "upgrade", "store", "--app-id", me, "--path", str(other))
        assert r.returncode == 1 and "pins state.in-memory to version 91.0.0, the one in" in r.stdout + r.stderr, r.stdout + r.stderr
        assert d.request("POST", "/v1.0/state/store", [{"key": "a", "value": 1}]).status == 204
        run(home, work, "lock", "state.in-memory@92.0.0", "--lock", f"{folder}/plugins.lock")
        r = ctl(home, "plugin", "upgrade", "store", "--app-id", me, "--path", str(other))
        assert r.returncode == 0, r.stdout + r.stderr
        assert d.metadata()["components"][0]["microdapr"]["version"] == "92.0.0"
    finally:
        d.close()


def test_an_exchange_between_look_and_start_is_without_effect(home, work, folder):
    place = install(home, work, folder)
    me, marker, over = f"races{os.getpid()}", folder / "evil", threading.Event()
    evil = place.parent / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {marker}\n")
    evil.chmod(0o755)
    libc = ctypes.CDLL(None, use_errno=True)

    def exchange():
        names = str(evil).encode(), str(place / "state.in-memory").encode()
        while not over.is_set():
            libc.renameat2(-100, names[0], -100, names[1], 2)
    d = sidecar(home, folder, app_id=me).start()
    t = threading.Thread(target=exchange)
    t.start()
    try:
        outcomes = set()
        for _ in range(40):
            r = ctl(home, "plugin", "restart", "store", "--app-id", me)
            outcomes.add(r.returncode)
            assert not marker.exists()
        assert outcomes == {0, 1}  # it was the right program, or it was not started
    finally:
        over.set()
        t.join()
        d.close()


@pytest.mark.skipif(not shutil.which("python3"), reason="needs python3")
def test_of_a_script_the_whole_folder_is_looked_at(home, work, folder):
    source = made(home, folder, "state", "python")
    manifest = next(source.rglob("plugin.yaml"))
    key = keys(home, work)
    run(home, work, "build", str(manifest.parent), "--no-make", "--out", f"{work}/s.tar", "--key", key)
    run(home, work, "install", f"{work}/s.tar")
    run(home, work, "lock", "state.mine", "--lock", f"{folder}/plugins.lock")
    place = next((pathlib.Path(home["HOME"]) / ".dapr/plugins/state.mine").iterdir())
    for _ in range(2):  # the first leaves nothing in the folder that the second would find
        assert starts(home, folder, store=component("store", "state.mine"))["state"] == "READY"
    (place / "json.py").write_text("raise SystemExit(9)\n")
    assert "json.py is not in the package" in refused(home, folder, store=component("store", "state.mine"))
