"""Packages of plugins: built, signed, verified, installed, pinned; and everything that must not be installed."""
import functools, http.server, io, json, os, pathlib, random, shutil, ssl, subprocess, tarfile, threading, time

import pytest

from conftest import BUILD, Daprd, component, wait_until
from test_ctl import ctl, home  # noqa: F401 (a fixture)

IN_MEMORY = BUILD / "plugins/state.in-memory"


def plugin(folder, version="1.0.0", name="state.mine", text="", types=None):
    """A plugin's folder: our in-memory store under another name and version."""
    d = pathlib.Path(folder) / f"{name}-{version}"
    d.mkdir()
    shutil.copy(IN_MEMORY / "state.in-memory", d / name)
    (d / "plugin.yaml").write_text(f"name: {name}\nversion: {version}\ncontract: [1]\ntitle: Mine\n"
                                   f"types:\n  - type: {types or 'state.in-memory'}\n    versions: [v1]\n{text}")
    return d


@pytest.fixture
def work(home, folder):
    w = folder / "work"
    w.mkdir()
    return w


def run(env, work, *args, code=0):
    p = ctl(env, "plugin", *args, cwd=work)
    assert p.returncode == code, p.stdout + p.stderr
    return p.stdout + p.stderr


def keys(env, work, name="plugin", trust=True):
    run(env, work, "keygen", "--no-password", "--key", f"{work}/{name}.key")
    if trust:
        run(env, work, "trust", "add", f"{work}/{name}.pub", name)
    return f"{work}/{name}.key"


def packed(env, work, folder, key=None, **kw):
    d = plugin(folder, **kw)
    out = f"{work}/{d.name}.tar"
    run(env, work, "build", str(d), "--out", out, *(["--key", key] if key else []))
    return out


def installed(env):
    root = pathlib.Path(env["HOME"]) / ".dapr/plugins"
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) if root.exists() else []


def test_a_plugin_goes_from_its_folder_to_a_running_component(home, work, folder):
    key = keys(home, work)
    out = packed(home, work, folder, key, name="state.in-memory", version="9.1.0")
    text = run(home, work, "install", out)
    assert "signed by plugin" in text and "state.in-memory/9.1.0" in text
    assert "is installed already" in run(home, work, "install", out)
    run(home, work, "verify", "state.in-memory")
    me = f"installed{os.getpid()}"
    d = Daprd(folder, [component("store", "state.in-memory")], app_id=me, plugins_path=f"{home['HOME']}/.dapr/plugins").start()
    try:
        c = d.metadata()["components"][0]["microdapr"]
        assert c["plugin"] == "state.in-memory" and c["state"] == "READY"
        assert f"runs as the component store of app {me}" in run(home, work, "remove", "state.in-memory", code=1)
        assert d.request("POST", "/v1.0/state/store", [{"key": "a", "value": 1}]).status == 204
    finally:
        d.close()


def test_versions_stand_side_by_side_and_an_annotation_chooses(home, work, folder):
    key = keys(home, work)
    rival = run(home, work, "install", packed(home, work, folder, key, version="1.0.0"))
    assert "state.in-memory is served by state.in-memory" in rival
    run(home, work, "remove", "state.mine")
    for v in ("8.0.0", "8.2.0", "9.0.0"):
        run(home, work, "install", packed(home, work, folder, key, name="state.in-memory", version=v))
    rows = json.loads(run(home, work, "list", "-o", "json", "--plugins-path", "/nowhere"))
    assert [r["version"] for r in rows if r["name"] == "state.in-memory" and ".dapr" in r["folder"]] == ["9.0.0", "8.2.0", "8.0.0"]

    def chosen(constraint):
        c = json.loads(component("store", "state.in-memory"))
        if constraint:
            c["metadata"]["annotations"] = {"microdapr.io/version": constraint}
        f = folder / f"d{abs(hash(constraint))}"
        f.mkdir()
        d = Daprd(f, [json.dumps(c)], plugins_path=f"{home['HOME']}/.dapr/plugins")
        d.start(healthy=constraint != "^3")
        try:
            if constraint == "^3":
                assert d.wait_exit() == 1
                return d.log()
            pid = d.metadata()["components"][0]["microdapr"]["pid"]
            return os.readlink(f"/proc/{pid}/exe").split("/")[-2]
        finally:
            d.close() if constraint != "^3" else d.out.close()
    assert chosen("") == "9.0.0"
    assert chosen("^8.0") == "8.2.0"
    assert chosen("<8.1") == "8.0.0"
    log = chosen("^3")
    assert "installed are" in log and "dapr plugin install 'state.in-memory@^3'" in log


def test_a_component_without_its_plugin_prints_the_command_that_installs_it(folder):
    d = Daprd(folder, [component("store", "state.nobody-has-it")], plugins_path=folder)
    d.start(healthy=False)
    assert d.wait_exit() == 1
    d.out.close()
    assert "to install it: dapr plugin install state.nobody-has-it" in d.log()


def test_two_plugins_of_one_type_are_told_apart_by_a_person(home, work, folder):
    key = keys(home, work)
    for name, version in (("state.one", "1.0.0"), ("state.two", "2.0.0")):
        run(home, work, "install", packed(home, work, folder, key, name=name, version=version, types="state.both"))
    d = Daprd(folder, [component("store", "state.both")], plugins_path=f"{home['HOME']}/.dapr/plugins")
    d.start(healthy=False)
    assert d.wait_exit() == 1
    d.out.close()
    log = d.log()
    assert "state.both is served by two plugins, state." in log and "state.one 1.0.0 (" in log and "state.two 2.0.0 (" in log
    assert "to mend it: dapr plugin remove the other one" in log


@pytest.mark.parametrize("name, annotation, said", [
    ("state.in-memry", None, "did you mean state.in-memory?"), ("state.in-memory", "^77.1", "dapr plugin install 'state.in-memory@^77.1'"),
    ("state.nobody", ">=1 <2", "dapr plugin install 'state.nobody@>=1 <2'"), ("state.in-memory", "newest", "is no version constraint: write one such as")])
def test_what_is_not_installed_is_named_with_the_command_that_brings_it(folder, name, annotation, said):
    c = json.loads(component("store", name))
    if annotation:
        c["metadata"]["annotations"] = {"microdapr.io/version": annotation}
    d = Daprd(folder, [json.dumps(c)])
    d.start(healthy=False)
    assert d.wait_exit() == 1
    d.out.close()
    assert said in d.log()


def place_of(env):
    return pathlib.Path(env["HOME"]) / ".dapr/plugins"


def test_an_installation_that_is_killed_leaves_all_or_nothing(home, work, folder):
    """SIGKILL at a random moment, again and again: there is the whole package or none, and the next one clears what was left."""
    out = packed(home, work, folder, keys(home, work))
    rng, whole, none = random.Random(7), 0, 0
    start = time.monotonic()
    run(home, work, "install", out)
    took = time.monotonic() - start
    run(home, work, "remove", "state.mine")
    for _ in range(40):
        p = subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "install", out], env=home, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            p.wait(rng.uniform(0, took * 1.2))
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
        if (place_of(home) / "state.mine/1.0.0").exists():
            run(home, work, "verify", "state.mine")
            run(home, work, "remove", "state.mine")
            whole += 1
        else:
            none += 1
    run(home, work, "install", out)
    run(home, work, "verify", "state.mine")
    assert sorted(f.name for f in place_of(home).iterdir()) == ["state.mine"], (whole, none)


def test_many_install_at_once(home, work, folder):
    key = keys(home, work)
    files = [packed(home, work, folder, key, version=v) for v in ("1.0.0", "1.1.0")]
    ps = [subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "install", "--allow-downgrade", files[i % 2]], env=home, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True) for i in range(12)]
    texts = [p.communicate(timeout=60)[0] for p in ps]
    assert [p.returncode for p in ps] == [0] * 12, texts
    for v in ("1.0.0", "1.1.0"):
        run(home, work, "verify", f"state.mine@{v}")
    assert sorted(f.name for f in place_of(home).iterdir()) == ["state.mine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a read-only file system")
def test_a_store_that_cannot_be_written_is_left_alone(home, work, folder):
    out = packed(home, work, folder, keys(home, work))
    run(home, work, "install", out)
    place = place_of(home)
    if subprocess.run(["mount", "--bind", "-o", "ro", place, place], capture_output=True).returncode or \
       subprocess.run(["mount", "-o", "remount,bind,ro", place], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        text = run(home, work, "remove", "state.mine", code=1)
        assert "Read-only file system; nothing was removed" in text
        other = packed(home, work, folder, f"{work}/plugin.key", version="2.0.0")
        assert "Read-only file system; nothing was installed" in run(home, work, "install", other, code=1)
        run(home, work, "verify", "state.mine")
    finally:
        subprocess.run(["umount", place], check=True)


def test_nothing_unsigned_or_signed_by_strangers_is_installed(home, work, folder):
    out = packed(home, work, folder)
    assert "is not signed" in run(home, work, "install", out, code=1)
    stranger = keys(home, work, "stranger", trust=False)
    run(home, work, "sign", out, "--key", stranger)
    assert "which is not trusted" in run(home, work, "install", out, code=1)
    assert "which is not trusted" in run(home, work, "verify", out, code=1)
    assert not installed(home)
    assert "signed by nobody that is trusted" in run(home, work, "install", out, "--allow-unsigned")
    run(home, work, "trust", "add", f"{work}/stranger.pub", "stranger")
    assert "stranger" in run(home, work, "trust", "list")
    run(home, work, "verify", out)
    run(home, work, "trust", "remove", "stranger")
    assert "is not trusted" in run(home, work, "verify", out, code=1)


@pytest.mark.skipif(not shutil.which("minisign"), reason="needs Debian's minisign")
def test_minisign_and_we_verify_each_other(home, work, folder):
    key = keys(home, work)
    out = packed(home, work, folder, key)
    run(home, work, "install", out)
    place = pathlib.Path(home["HOME"]) / ".dapr/plugins/state.mine/1.0.0/.dapr"
    check = ["minisign", "-V", "-m", place / "files", "-x", place / "signature.minisig"]
    p = subprocess.run([*check, "-p", f"{work}/plugin.pub"], capture_output=True, text=True)
    assert p.returncode == 0 and "plugin:state.mine 1.0.0" in p.stdout
    # their key, our signature; their signature, our check
    subprocess.run(["minisign", "-G", "-W", "-p", work / "their.pub", "-s", work / "their.key"], check=True, capture_output=True)
    run(home, work, "sign", out, "--key", f"{work}/their.key")
    run(home, work, "verify", out, "--key", f"{work}/their.pub")
    for old in ([], ["-l"]):
        subprocess.run(["minisign", "-S", *old, "-m", place / "files", "-x", place / "signature.minisig", "-s", work / "their.key"], check=True,
                       capture_output=True)
        run(home, work, "verify", "state.mine", "--key", f"{work}/their.pub")
    assert "not trusted" in run(home, work, "verify", "state.mine", code=1)


def test_a_locked_key_needs_its_password(home, work, folder):
    pw = work / "pw"
    pw.write_text("open sesame\n")
    p = ctl(home, "plugin", "keygen", "--key", f"{work}/k.key", "--password-file", str(pw), cwd=work)
    if p.returncode and "memory" in p.stderr:
        pytest.skip("locking a key takes 64 MiB of memory")
    assert p.returncode == 0 and (os.stat(work / "k.key").st_mode & 0o777) == 0o600
    out = packed(home, work, folder)
    run(home, work, "sign", out, "--key", f"{work}/k.key", "--password-file", str(pw))
    run(home, work, "verify", out, "--key", f"{work}/k.pub")
    pw.write_text("wrong\n")
    assert "password of the secret key is wrong" in run(home, work, "sign", out, "--key", f"{work}/k.key", "--password-file", str(pw), code=1)
    assert "is there already" in run(home, work, "keygen", "--no-password", "--key", f"{work}/k.key", code=1)


def test_a_changed_package_is_refused(home, work, folder):
    key = keys(home, work)
    out = pathlib.Path(packed(home, work, folder, key))
    good = out.read_bytes()
    at = good.index(b"title: Mine")
    for bad, because in ((good[:at] + b"titel" + good[at + 5:], "was changed"), (good[:-1024], "cut off"), (good[:5000], "cut off"),
                         (good + b"x", "follows its end"), (b"x" * 2000, "neither a package nor")):
        out.write_bytes(bad)
        text = run(home, work, "install", str(out), code=1)
        assert because in text or "no tar archive" in text, text
    assert not installed(home)
    out.write_bytes(good)
    (folder / "extra").write_text("x")
    subprocess.run(["tar", "-C", folder, "-rf", out, "extra"], check=True)
    assert "extra: its header is not as dapr plugin build writes it: another tool has added or changed it" in run(home, work, "install", str(out), code=1)
    # the list of another package under this signature
    other = pathlib.Path(packed(home, work, folder, version="1.1.0")).read_bytes()
    files = good[512:good.index(b"\0", 512)]
    swapped = other.replace(other[512:other.index(b"\0", 512)], files.replace(b"1.0.0", b"1.1.0"))
    out.write_bytes(swapped)
    assert "is not" in run(home, work, "install", str(out), "--allow-unsigned", code=1)
    assert not installed(home)


def test_archives_of_others_are_refused(home, work, folder):
    def tar(*entries):
        b = io.BytesIO()
        with tarfile.open(fileobj=b, mode="w", format=tarfile.USTAR_FORMAT) as t:
            for name, kind, data in entries:
                i = tarfile.TarInfo(name)
                i.type, i.size = kind, len(data)
                if kind == tarfile.SYMTYPE:
                    i.linkname = "/etc/passwd"
                t.addfile(i, io.BytesIO(data))
        return b.getvalue()
    files = (".dapr/files", tarfile.REGTYPE, b"x")
    for entries, because in (([("../../evil", tarfile.REGTYPE, b"x")], "climbs out"), ([("/evil", tarfile.REGTYPE, b"x")], "absolute"),
                             ([("link", tarfile.SYMTYPE, b"")], "symbolic link"), ([("dev", tarfile.CHRTYPE, b"")], "device"),
                             ([files], "of no form"), ([("d", tarfile.DIRTYPE, b"")], "folder")):
        f = work / "evil.tar"
        f.write_bytes(tar(*entries))
        assert because in run(home, work, "install", str(f), "--allow-unsigned", code=1)
    assert not installed(home) and not (folder / "evil").exists()


def test_an_older_version_is_installed_only_when_asked_for(home, work, folder):
    key = keys(home, work)
    old, new = packed(home, work, folder, key, version="1.0.0"), packed(home, work, folder, key, version="1.1.0")
    run(home, work, "install", new)
    assert "is older than 1.1.0" in run(home, work, "install", old, code=1)
    run(home, work, "install", old, "--allow-downgrade")
    assert "is installed already" in run(home, work, "install", old)
    assert run(home, work, "list", "mine").splitlines()[1].split()[:2] == ["state.mine", "1.1.0"]
    assert "in its name or its types" in run(home, work, "list", "no-such-thing")
    assert run(home, work, "list").splitlines()[1].startswith("state.mine ")  # the own ones first
    assert "say which" in run(home, work, "remove", "state.mine", code=1)
    run(home, work, "remove", "state.mine", "--version", "1.1.0")
    assert "--version goes with one NAME" in run(home, work, "remove", "state.mine@1.0.0", "--version", "1.0.0", code=1)
    assert {p.split("/")[1] for p in installed(home)} == {"1.0.0"}
    run(home, work, "remove", "state.mine")
    assert not installed(home)
    assert "is not installed" in run(home, work, "remove", "state.mine", code=1)


def test_a_package_for_another_machine_is_refused(home, work, folder):
    d = plugin(folder)
    program = (d / "state.mine").read_bytes()
    (d / "state.mine").write_bytes(program[:18] + b"\xb7\x00" + program[20:] if program[18:20] == b"\x3e\x00" else program[:18] + b"\x3e\x00" + program[20:])
    run(home, work, "build", str(d), "--out", "other.tar")
    assert "this machine is" in run(home, work, "install", "other.tar", "--allow-unsigned", code=1)


def test_a_full_disk_leaves_nothing_behind(home, work, folder):
    out = packed(home, work, folder)
    small = folder / "small"
    small.mkdir()
    script = (f'mount -t tmpfs -o size=96k none {small} && {BUILD}/bin/daprctl plugin install {out} --allow-unsigned --dir {small}/plugins; '
              f'echo code $?; find {small} -type f')
    p = subprocess.run(["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c", script], env=home, capture_output=True, text=True)
    if "mount" in p.stderr or "unshare" in p.stderr:
        pytest.skip("no mounts here")
    assert p.stdout.strip() == "code 1" and "No space left on device; nothing was installed" in p.stderr, p.stdout + p.stderr


# ---- indexes ----

class Files(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/old/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def shop(home, work, folder):
    """A web server with two versions of a signed plugin; gives its URL, or over TLS when called so."""
    key = keys(home, work)
    public = folder / "public"
    public.mkdir()
    for v in ("1.0.0", "1.1.0", "2.0.0-rc.1"):
        shutil.copy(packed(home, work, folder, key, version=v), public)
    assert "3 packages" in run(home, work, "index", str(public))
    servers = []

    def start(tls=None):
        s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=public))
        if tls:
            c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            c.load_cert_chain(*tls)
            s.socket = c.wrap_socket(s.socket, server_side=True)
        threading.Thread(target=s.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(s)
        return f"http{'s' if tls else ''}://127.0.0.1:{s.server_port}/"
    start.folder = public
    yield start
    for s in servers:
        s.shutdown()
        s.server_close()


def test_from_an_index_on_the_web(home, work, shop):
    url = shop()
    assert "1.1.0" in run(home, work, "search", "mine", "--index", url)
    assert "nothing of that name" in run(home, work, "search", "nonsense", "--index", url)
    assert "Installed state.mine 1.1.0" in run(home, work, "install", "state.mine", "--index", url)
    assert "Installed state.mine 1.0.0" in run(home, work, "install", "state.mine@1.0.0", "--index", url)
    assert "Installed state.mine 2.0.0-rc.1" in run(home, work, "install", "state.mine@2.0.0-rc.1", "--index", url + "old/index.json")
    assert "but none that ^3 allows" in run(home, work, "install", "state.mine@^3", "--index", url, code=1)
    assert "has no plugin state.other" in run(home, work, "install", "state.other", "--index", url, code=1)
    assert "404" in run(home, work, "install", "state.mine", "--index", url + "nowhere/", code=1)
    assert "no index" in run(home, work, "install", "state.mine2", code=1)
    assert "no version constraint" in run(home, work, "install", "state.mine@newest", "--index", url, code=1)
    home["DAPR_PLUGIN_INDEX"] = url
    run(home, work, "remove", "state.mine", "--all")
    run(home, work, "install", "state.in-memory")  # by its component type
    run(home, work, "remove", "state.mine", "--all")
    run(home, work, "install", url + "old/state.mine-1.0.0.tar")
    assert not [f for f in installed(home) if f.startswith(".")]


def test_an_index_that_lies_is_found_out(home, work, shop):
    url, path = shop(), shop.folder / "index.json"
    good = path.read_text()
    for bad, because in ((good.replace('"version":"1.1.0"', '"version":"7.0.0"'), "is not what the index says"),
                         (good.replace("state.mine-1.1.0.tar", "../index.json"), "server answers|no tar archive"),
                         (good.replace("state.mine-1.1.0.tar", "state.mine-1.0.0.tar"), "is not what the index says"),
                         (good.replace('"size":', '"size":1,"was":'), "larger than it may be"), (good[:-20], "no JSON"), ("{}", "no index"),
                         ('{"plugins":[{"name":"../x","version":"1.0.0","platform":"any","file":"x"}]}', "lacks name")):
        path.write_text(bad)
        text = run(home, work, "install", "state.mine", "--index", url, code=1)
        assert any(b in text for b in because.split("|")), text
    assert not installed(home)


def test_from_an_index_over_tls(home, work, shop, folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "k.pem", "-out",
                    folder / "c.pem", "-subj", "/CN=shop", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"], check=True, capture_output=True)
    url = shop((folder / "c.pem", folder / "k.pem"))
    assert "certificate" in run(home, work, "install", "state.mine", "--index", url, code=1)
    run(home, work, "install", "state.mine", "--index", url, "--ca-file", str(folder / "c.pem"))


def test_the_lock_file_pins(home, work, shop, folder):
    url = shop()
    home["DAPR_PLUGIN_INDEX"] = url
    run(home, work, "install", "state.mine@1.0.0")
    run(home, work, "lock")
    lock = work / "plugins.lock"
    assert "version: 1.0.0" in lock.read_text() and "digest: blake2b:" in lock.read_text()
    run(home, work, "lock", "--check")
    run(home, work, "remove", "state.mine")
    assert "pinned and not installed" in run(home, work, "lock", "--check", code=1)
    run(home, work, "install")
    assert "Installed" not in run(home, work, "install", "state.mine")  # the pinned one, not the newest
    assert "pins state.mine to 1.0.0" in run(home, work, "install", "state.mine@1.1.0", code=1)
    run(home, work, "install", "state.mine@1.1.0", "--update-lock")
    assert "version: 1.1.0" in lock.read_text()
    # another package of the pinned version
    d = plugin(folder, version="1.1.0", name="state.mine", text="description: Other.\n") if not (folder / "state.mine-1.1.0").exists() else folder / "state.mine-1.1.0"
    (d / "plugin.yaml").write_text((d / "plugin.yaml").read_text() + "description: Other.\n")
    run(home, work, "build", str(d), "--out", "other.tar", "--key", f"{work}/plugin.key")
    run(home, work, "remove", "state.mine", "--all")
    assert "another package of state.mine 1.1.0" in run(home, work, "install", "other.tar", code=1)
    run(home, work, "install")
    program = pathlib.Path(home["HOME"]) / ".dapr/plugins/state.mine/1.1.0/state.mine"
    program.write_bytes(program.read_bytes() + b"x")
    assert "was changed" in run(home, work, "lock", "--check", code=1)
    assert "was changed" in run(home, work, "verify", "state.mine", code=1)
    lock.write_text("version: 1\nplugins:\n  - name: x\n")
    assert "plugins.lock:3" in run(home, work, "install", code=1)


def test_bundles_and_image_layouts_carry_packages_without_a_network(home, work, shop):
    url = shop()
    run(home, work, "bundle", "state.mine", "state.mine@1.0.0", "--index", url)
    run(home, work, "bundle", "state.mine", "--index", url, "--oci", "--out", "layout")
    run(home, work, "install", "plugins-bundle.tar")
    assert {p.split("/")[1] for p in installed(home)} == {"1.0.0", "1.1.0"}
    run(home, work, "remove", "state.mine", "--all")
    run(home, work, "install", "state.mine", "--index", "plugins-bundle.tar")
    run(home, work, "remove", "state.mine", "--all")
    run(home, work, "install", "oci:layout")
    run(home, work, "remove", "state.mine", "--all")
    blob = max((work / "layout/blobs/sha256").iterdir(), key=lambda f: f.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1024])
    assert "holds no package" in run(home, work, "install", "oci:layout", code=1)
    manifest = [f for f in (work / "layout/blobs/sha256").iterdir() if b"artifactType" in f.read_bytes()[:400]][0]
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert "damaged" in run(home, work, "install", "oci:layout", code=1)


# ---- the dev loop ----

@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_dev_loop_swaps_builds_and_brings_back_what_ran(home, work, folder):
    source = work / "mine"
    run(home, work, "new", "state", "mine")
    flags = {"CFLAGS": "-O1 -Wall -Wextra -fsanitize=address,undefined"} if BUILD.name == "asan" else {}
    subprocess.run(["make", "-s", "-C", source], check=True, capture_output=True, env=os.environ | flags)
    before = folder / "before"
    shutil.copytree(source / "state.mine", before / "state.mine")
    me = f"dev{os.getpid()}"
    d = Daprd(folder, [component("store", "state.mine")], app_id=me, plugins_path=before).start()
    log = open(folder / "dev.log", "w+")
    p = None

    def text():
        return (folder / "dev.log").read_text()

    def program():
        pid = d.metadata()["components"][0]["microdapr"]["pid"]
        return os.readlink(f"/proc/{pid}/exe")
    try:
        p = subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "dev", str(source), "--app-id", me], env=home | flags, cwd=work, stdout=log,
                             stderr=log, start_new_session=True)
        wait_until("the first build runs", lambda: "Watching" in text(), 40)
        assert "dapr-dev-" in program()
        main = source / "main.c"
        good = main.read_text()
        main.write_text(good.replace("return 0; /* not found is no error */", 'dapr_log(DAPR_LOG_INFO, "changed code"); return 0;'))
        wait_until("the change runs", lambda: "runs build 2" in text(), 40)
        assert d.request("GET", "/v1.0/state/store/nothing").status == 204
        wait_until("its log is shown", lambda: "changed code" in text(), 20)
        main.write_text(good + "broken(")
        wait_until("a failed build is told", lambda: "keeps running what it ran before" in text(), 40)
        assert d.request("GET", "/v1.0/state/store/nothing").status == 204
        p.send_signal(2)
        assert p.wait(30) == 0, text()
        assert program() == str(before / "state.mine/state.mine")
    finally:
        if p and p.poll() is None:
            p.kill()
            p.wait()
        log.close()
        d.close()


@pytest.mark.skipif(not shutil.which("gcc") or BUILD.name == "asan", reason="needs gcc and a release build")
def test_the_dev_loop_tells_a_roll_back_and_brings_back_what_it_has_overwritten(home, work, folder):
    source = work / "mine"
    run(home, work, "new", "state", "mine")
    subprocess.run(["make", "-s", "-C", source], check=True, capture_output=True)
    program = source / "state.mine/state.mine"
    first, time_of_first = program.read_bytes(), program.stat().st_mtime_ns
    me = f"devback{os.getpid()}"
    d = Daprd(folder, [component("store", "state.mine")], app_id=me, plugins_path=source).start()  # what runs is what make overwrites
    log = open(folder / "dev.log", "w+")
    text = (folder / "dev.log").read_text
    running = lambda: os.readlink(f"/proc/{d.metadata()['components'][0]['microdapr']['pid']}/exe")
    p = subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "dev", str(source), "--app-id", me], env=home, cwd=work, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until("the first build runs", lambda: "Watching" in text(), 40)
        main = source / "main.c"
        main.write_text("#include <stdlib.h>\n" + main.read_text().replace("return 0; /* not found is no error */", "abort();"))
        wait_until("the change runs", lambda: "runs build 2, state.mine 0.1.0+dev.2" in text(), 40)
        assert program.read_bytes() != first
        assert d.request("GET", "/v1.0/state/store/nothing").status == 204  # the one before answers it
        wait_until("it is told", lambda: "died while it was on trial" in text(), 20)
        assert "the one before it serves again" in d.log() and "started again at once" not in d.log()
        assert "calls are back with state.mine 0.1.0+dev.1: state.mine 0.1.0+dev.2 was killed by signal 6" in text()
        p.send_signal(2)
        assert p.wait(30) == 0, text()
        assert running() == str(program) and program.read_bytes() == first and program.stat().st_mtime_ns == time_of_first
        assert d.request("GET", "/v1.0/state/store/nothing").status == 204
        events = json.loads(run(home, work, "history", "store", "--app-id", me, "-o", "json"))["events"]
        assert "upgrade: state.mine 0.1.0+dev.1 to state.mine 0.1.0+dev.2" in [e["detail"] for e in events]
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
        log.close()
        d.close()
