"""Bad flags, bad files, bad plugins: a clear sentence, exit code 1 where the reference exits, and nothing crashes."""
import os, pathlib, subprocess

import pytest

from conftest import BUILD, component

STORE = component("store", "state.in-memory")


@pytest.mark.parametrize("flag,word", [
    ("--dapr-http-port=abc", "dapr-http-port"), ("--dapr-http-port=70000", "dapr-http-port"), ("--no-such-flag", "no-such-flag"),
    ("--mode=moon", "mode"), ("--log-level=loud", "log-level"), ("--max-body-size=big", "max-body-size"),
    ("--dapr-graceful-shutdown-seconds=soon", "dapr-graceful-shutdown-seconds"), ("--app-protocol=carrier-pigeon", "app-protocol"),
    ("--app-id=", "app-id"),
])
def test_a_wrong_flag_value_is_named(daprd, flag, word):
    d = daprd(healthy=False, args=[flag])
    assert d.wait_exit() in (1, 2) and word in d.log() and "dump" not in d.log()
    d.proc = None


def refuses(daprd, resources, *words, **kw):
    d = daprd(resources, healthy=False, **kw)
    assert d.wait_exit() == 1, d.log()
    for w in words:
        assert w in d.log(), (w, d.log()[-2000:])
    d.proc = None


def test_an_unknown_component_type_names_its_neighbours(daprd):
    refuses(daprd, [component("s", "state.sqlit")], "state.sqlit", "state.sqlite")


def test_ignore_errors_keeps_the_sidecar_up(daprd):
    d = daprd([STORE, component("bad", "state.nothing", ignoreErrors=True)])
    assert [c["name"] for c in d.metadata()["components"]] == ["store"]


def test_missing_connection_string_reads_as_in_the_reference(daprd):
    refuses(daprd, [component("a", "state.sqlite")], "[INIT_COMPONENT_FAILURE]: initialization error occurred for a (state.sqlite/v1): ",
            "missing connection string")


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"\x00\x01\x02\xff\xfe", b"a: [", b"kind: Component\n", b"- 1\n- 2\n",
                                  b"x: " + b"y" * (10 << 20), b"a: &a [*a]\n", b"\tk: v\n"])
def test_odd_resource_files_do_not_crash(daprd, text):
    d = daprd([STORE], start=False)
    (d.resources / "odd.yaml").write_bytes(text)
    d.start(healthy=False)
    code = None
    try:
        d.wait_healthy()
    except BaseException:
        code = d.proc.poll()
        assert code == 1, d.log()[-2000:]
        d.proc = None
    if code is None:
        assert d.request("GET", "/v1.0/healthz").status == 204


def make_plugin(folder, body, mode=0o755, type_="state.odd"):
    p = pathlib.Path(folder) / "plugins" / type_
    p.mkdir(parents=True)
    (p / "plugin.yaml").write_text(f"name: {type_}\nversion: 1.0.0\nexecutable: {type_}\ncontract: [1]\n"
                                   f"types:\n  - type: {type_}\n    versions: [v1]\ntitle: odd\ndescription: odd\nmetadata: []\nshare: false\n")
    if body is not None:
        (p / type_).write_bytes(body)
        os.chmod(p / type_, mode)
    return p.parent


@pytest.mark.parametrize("body,mode", [
    (None, 0), (b"#!/bin/sh\nexit 0\n", 0o644), (b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x02\0\xb7\0" + b"\0" * 44, 0o755),
    (b"#!/bin/sh\necho garbage; head -c 100000 /dev/urandom; exit 3\n", 0o755), (b"#!/bin/sh\nexit 0\n", 0o755),
    (b"#!/bin/sh\nsleep 100\n", 0o755), (b"#!/bin/sh\nkill -SEGV $$\n", 0o755),
], ids=["missing", "not-executable", "wrong-architecture", "garbage", "exits", "never-answers", "crashes"])
def test_a_plugin_that_does_not_work_is_reported(daprd, folder, body, mode):
    path = make_plugin(folder, body, mode)
    refuses(daprd, [component("odd", "state.odd", initTimeout="2s")], "odd (state.odd/v1)", plugins_path=path, env={"PATH": os.environ["PATH"]})


def test_a_wrong_manifest_names_its_place(daprd, folder):
    path = make_plugin(folder, b"#!/bin/sh\n")
    m = path / "state.odd/plugin.yaml"
    m.write_text(m.read_text().replace("contract: [1]", "contract: soon"))
    refuses(daprd, [component("odd", "state.odd")], "plugin.yaml:4", plugins_path=path)


def test_a_setting_that_is_nearly_known_is_told_at_start_and_by_doctor(daprd, folder):
    """It is passed on as ever, and so are those that are like none."""
    d = daprd([component("s", "state.sqlite", [("connectionString", str(folder / "s.db")), ("tableNam", "t"), ("whatever", "x")])])
    assert "state.sqlite has no field 'tableNam'; did you mean 'tableName'?" in d.log() and "whatever" not in d.log()
    p = subprocess.run([str(BUILD / "bin/daprctl"), "doctor", "--resources-path", str(d.resources), "-o", "json"], env={"NO_COLOR": "1"}, capture_output=True, text=True)
    assert "state.sqlite knows no setting 'tableNam'; did you mean 'tableName'?" in p.stdout, p.stdout + p.stderr
