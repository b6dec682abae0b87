"""The pages about plugin.yaml: every key that the parser takes has its line, and man finds them by the names that the guide says."""
import re, shutil, subprocess

import pytest

from conftest import BUILD, ROOT

pytestmark = pytest.mark.skipif("asan" in str(BUILD) or not (BUILD / "tools/doc_daprd").exists(), reason="needs the tools of make docs")


def test_every_key_of_the_plugins_has_its_line():
    page = (ROOT / "docs/reference/manifest.md").read_text()
    keys = {m[1] for f in ROOT.glob("plugins/*/plugin.yaml") for m in re.finditer(r"^(?:  - |    |)([a-zA-Z]+):", f.read_text(), re.M)}
    assert len(keys) > 15 and [k for k in keys if f"| `{k}` |" not in page] == []


@pytest.mark.skipif(not shutil.which("man"), reason="needs man")
def test_man_finds_the_commands_and_the_file(folder):
    for section, name, args, text in (("1", "dapr-plugin", ["man"], "dapr plugin conformance"), ("5", "plugin.yaml", None, "volatile")):
        d = folder / f"man{section}"
        d.mkdir()
        if args:
            subprocess.run([BUILD / "tools/doc_daprctl", "man", d], check=True)
        else:
            (d / "plugin.yaml.5").write_bytes(subprocess.run([BUILD / "tools/doc_daprd", "manifest-man"], check=True, stdout=subprocess.PIPE).stdout)
        p = subprocess.run(["man", "-M", folder, name], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "MANPAGER": "cat", "MANWIDTH": "200"})
        assert p.returncode == 0 and text in p.stdout, p.stdout + p.stderr
