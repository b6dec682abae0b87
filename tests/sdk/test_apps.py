"""Whole apps of official SDKs, unmodified: publish and bulk publish; declarative, programmatic and streaming subscriptions; bindings in and
out; configuration with changes; locks; cryptography; conversation. Each app is a program of its language that prints "OK <step>" and ends
with 0.

Python and JavaScript always run. Go and Java need their toolchain and fetch modules: SDK_TESTS=1 (make sdk-tests)."""
import json, os, pathlib, shutil, subprocess, sys

import pytest

from conftest import ROOT, component, free_port

HERE = pathlib.Path(__file__).parent
ALWAYS = ["publish, programmatic subscription", "declarative subscription", "bulk publish", "bindings", "configuration", "lock", "crypto"]
heavy = pytest.mark.skipif(not os.environ.get("SDK_TESTS"), reason="only with SDK_TESTS=1 (make sdk-tests)")


@pytest.fixture
def world(daprd, redis, folder):
    """start(protocol) -> environment for the app, and a function that starts its sidecar."""
    (folder / "keys").mkdir()
    (folder / "keys/aes256").write_bytes(bytes(range(32)))
    (folder / "files").mkdir()
    resources = [component("pub", "pubsub.redis", [("redisHost", redis.addr)]),
                 component("tick", "bindings.cron", [("schedule", "@every 1s"), ("direction", "input")]),
                 component("files", "bindings.localstorage", [("rootPath", str(folder / "files"))]),
                 component("cfg", "configuration.redis", [("redisHost", redis.addr)]),
                 component("locks", "lock.redis", [("redisHost", redis.addr)]),
                 component("vault", "crypto.dapr.localstorage", [("path", str(folder / "keys"))]),
                 component("echo", "conversation.echo"),
                 json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": "declared"},
                             "spec": {"pubsubname": "pub", "topic": "declared", "routes": {"default": "/declared"}}})]

    def make(protocol):
        port = free_port()
        d = daprd(resources, args=[f"--app-port={port}", f"--app-protocol={protocol}"], start=False)
        return d, dict(os.environ, APP_PORT=str(port), DAPR_HTTP_PORT=str(d.http), DAPR_GRPC_PORT=str(d.grpc), REDIS_PORT=str(redis.port),
                       DAPR_HTTP_ENDPOINT=f"http://127.0.0.1:{d.http}", DAPR_GRPC_ENDPOINT=f"127.0.0.1:{d.grpc}")
    return make


def run(d, env, command, steps, limit=90):
    app = subprocess.Popen(list(map(str, command)), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        d.start(healthy=False)
        out, _ = app.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        app.kill()
        out, _ = app.communicate()
        pytest.fail(f"the app did not end:\n{out[-3000:]}\n{d.log()[-2000:]}")
    assert app.returncode == 0, out[-4000:] + d.log()[-2000:]
    seen = [x[3:] for x in out.split("\n") if x.startswith("OK ")]
    assert sorted(seen) == sorted(steps), out


@pytest.mark.parametrize("kind, protocol", [("fastapi", "http"), ("grpc", "grpc")])
def test_python_app(world, kind, protocol):
    d, env = world(protocol)
    run(d, env, [sys.executable, HERE / f"python/{kind}_app.py"], ALWAYS + ["streaming subscription", "conversation"])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_javascript_app(world, protocol):
    d, env = world(protocol)
    env.update(JS_MODULES=str(ROOT / "build/js"), PROTOCOL=protocol)
    steps = ["publish, programmatic subscription", "declarative subscription", "bulk publish", "bindings", "lock"]
    run(d, env, ["node", HERE / "js/app.mjs"], steps + (["configuration", "crypto"] if protocol == "grpc" else ["bulk subscription"]))


@heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_go_app(world, protocol, folder):
    if not shutil.which("go"):
        pytest.skip("no Go toolchain")
    app = ROOT / "build/sdk-go"
    shutil.copytree(HERE / "go", app, dirs_exist_ok=True)
    r = subprocess.run(["go", "build", "-mod=mod", "-o", "app", "."], cwd=app, capture_output=True, text=True, timeout=800)
    if r.returncode and "403" in r.stderr + r.stdout:
        pytest.skip("the SDK's modules cannot be fetched: " + r.stderr[-300:])
    assert r.returncode == 0, r.stderr[-3000:]
    d, env = world(protocol)
    run(d, dict(env, PROTOCOL=protocol), [app / "app"], ALWAYS + ["streaming subscription"])


@heavy
@pytest.mark.timeout(900)
def test_java_app(world, folder):
    if not shutil.which("mvn") or not shutil.which("javac"):
        pytest.skip("no Maven or no JDK")
    app = ROOT / "build/sdk-java"
    shutil.copytree(HERE / "java", app, dirs_exist_ok=True)
    r = subprocess.run(["mvn", "-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=classpath"], cwd=app, capture_output=True,
                       text=True, timeout=800)
    assert r.returncode == 0, r.stdout[-3000:]
    d, env = world("http")
    cp = f"{app / 'target/classes'}:{(app / 'classpath').read_text().strip()}"
    run(d, env, ["java", "-cp", cp, "App"], ALWAYS + ["streaming subscription", "conversation"])
