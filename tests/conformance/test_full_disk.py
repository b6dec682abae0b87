"""Full disks: each command and component says so, keeps what was there and leaves no half behind. The disk is a tmpfs of 64 KiB in a mount
namespace of its own; skipped where there are no mounts."""
import json, os, subprocess

import pytest

from conftest import BUILD, component, free_port
from test_ctl import home  # noqa: F401 (a fixture)

SCRIPT = """
say() {{ echo "== $1"; }}
mount -t tmpfs -o size=64k none {small} || exit 77
cd {small}; mkdir run
{ctl} plugin build {store} --out {folder}/p.tar; {ctl} plugin install {folder}/p.tar --allow-unsigned
{ctl} plugin lock; cp plugins.lock {folder}/before
echo old > kept
(cd {folder}; XDG_RUNTIME_DIR={small}/run exec {daprd}) & d=$! # not where plugins.lock lies
for i in $(seq 400); do curl -sf {api}/v1.0/healthz && break; sleep 0.05; done
head -c 100000 /dev/zero > fill 2>/dev/null
say store; curl -s -w ' %{{http_code}}' -d '[{{"key":"a","value":1}}]' {api}/v1.0/state/store; curl -s {api}/v1.0/state/store/a
say files; curl -s -w ' %{{http_code}}' -d @{folder}/big {api}/v1.0/bindings/files
say tap; XDG_RUNTIME_DIR={small}/run {ctl} plugin tap store --app-id full --unredacted --for 1s -w calls.tap; echo code $?
say lock; {ctl} plugin lock; echo code $?; cmp plugins.lock {folder}/before
say build; {ctl} plugin build {store} --out again.tar; echo code $?
say key; {ctl} plugin keygen --no-password --key k.key; echo code $?
say install; {ctl} plugin install {folder}/p.tar --allow-unsigned --dir {small}/plugins; echo code $?
say end; kill $d; wait $d; echo code $?; find . -name '*.tar' -o -name '*.key' -o -path './plugins/*' -type f; cat kept
"""


def test_full_disks_are_named_and_leave_nothing_half(home, folder):
    http, small, res = free_port(), folder / "small", folder / "resources"
    small.mkdir()
    res.mkdir()
    (res / "c.yaml").write_text("\n---\n".join([component("store", "state.in-memory"), component("files", "bindings.localstorage", [("rootPath", str(small / "files"))])]))
    (folder / "big").write_text(json.dumps({"operation": "create", "data": "x" * 30000, "metadata": {"fileName": "f"}}))
    daprd = (f"{BUILD}/bin/daprd --app-id=full --dapr-http-port={http} --dapr-grpc-port={free_port()} --dapr-internal-grpc-port={free_port()} "
             f"--metrics-port={free_port()} --resources-path={res} --log-file={folder}/log")
    script = SCRIPT.format(small=small, folder=folder, store=BUILD / "plugins/state.in-memory", ctl=BUILD / "bin/daprctl", daprd=daprd, api=f"http://127.0.0.1:{http}")
    p = subprocess.run(["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c", script], env=home, capture_output=True, text=True, timeout=100)
    if p.returncode == 77 or "unshare" in p.stderr:
        pytest.skip("no mounts here")
    log = (folder / "log").read_text()
    said = dict(part.split("\n", 1) for part in p.stdout.split("== ")[1:])
    assert said["store"] == " 2041", p.stdout + p.stderr + log  # what does not need the disk goes on
    assert "no space left on device" in said["files"] and said["files"].endswith(" 500")
    assert {k: v.strip() for k, v in said.items() if k in ("tap", "lock", "build", "key", "install")} == dict.fromkeys(("tap", "lock", "build", "key", "install"), "code 1"), p.stdout
    for text in ("calls.tap cannot be written: No space", "plugins.lock: No space left", "again.tar: No space left", "k.key: No space left", "nothing was installed"):
        assert text in p.stderr, p.stderr
    assert said["end"].split("\n") == ["code 0", "old", ""]
