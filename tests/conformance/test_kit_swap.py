"""The kit runs two processes of a store at the same time, as each swap does: what keeps its own file well passes, what loses writes is found."""
import subprocess

import pytest

from conftest import BUILD, ROOT
from test_ctl import ctl, home  # noqa: F401 (a fixture)
from test_kit import kit

MANIFEST = """name: state.file
version: 1.0.0
contract: [1]
types:
  - type: state.file
    versions: [v1]
metadata:
  - name: path
    required: true
  - name: how
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    d = tmp_path_factory.mktemp("file") / "state.file"
    d.mkdir()
    sanitize = ["-fsanitize=address,undefined"] if BUILD.name == "asan" else []
    subprocess.run(["gcc", "-std=gnu17", "-O1", "-Wall", "-Werror", f"-I{BUILD}/include", *sanitize, "-o", d / "state.file",
                    ROOT / "tests/conformance/file_store.c", BUILD / "lib/libdapr-plugin.a", "-lm", "-lpthread"], check=True)
    (d / "plugin.yaml").write_text(MANIFEST)
    return d


def test_a_store_whose_processes_read_what_the_other_wrote_passes(home, folder, store):
    _, checks = kit(home, store, "-m", f"path={folder}/log", "--no-faults")
    assert [c["result"] for c in checks.values() if c["group"] == "swap"] == ["pass"] * 5


@pytest.mark.parametrize("how, check, text", [
    ("cache", "the new process sees what the old one writes", "the new process does not see what the old process wrote"),
    ("close", "the end of the old process loses nothing", "reads otherwise than was acknowledged"),
    ("alone", "a second process starts beside the first", "is in use"),
    ("number", "an ETag holds in both processes", "ETag")])
def test_a_store_that_loses_writes_in_a_swap_is_found(home, folder, store, how, check, text):
    _, checks = kit(home, store, "-m", f"path={folder}/log", "-m", f"how={how}", "--no-faults", ok=False)
    assert checks[check]["result"] == "fail" and text in checks[check]["detail"], checks
    assert all(c["result"] != "fail" for c in checks.values() if c["group"] != "swap"), checks


def test_a_store_that_says_volatile_is_left_out_with_the_reason(home):
    _, checks = kit(home, BUILD / "plugins/state.in-memory", "--no-faults")
    assert all("plugin.yaml says volatile" in c["detail"] for c in checks.values() if c["group"] == "swap" and c["name"] != "a second process starts beside the first")
