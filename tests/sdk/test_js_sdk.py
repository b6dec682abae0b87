"""Runs the JavaScript SDK's tests under node."""
import json, os, subprocess

from conftest import ROOT, component


def test_javascript_sdk(daprd, folder):
    (folder / "s.json").write_text(json.dumps({"user": "ann"}))
    d = daprd([component("store", "state.in-memory"), component("vault", "secretstores.local.file", [("secretsFile", str(folder / "s.json"))])])
    env = dict(os.environ, HTTP_PORT=str(d.http), GRPC_PORT=str(d.grpc), JS_MODULES=str(ROOT / "build/js"))
    r = subprocess.run(["node", "--test", str(ROOT / "tests/sdk/js/state.mjs")], env=env, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stdout[-4000:] + r.stderr[-2000:]
