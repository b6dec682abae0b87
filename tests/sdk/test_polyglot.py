"""Apps of the official SDKs call each other by their SDK's own invocation, each beside a sidecar of its own, which multicast DNS finds; and
echo.proto's service is called through two sidecars by grpcio and grpc-go, whose interceptors name the app. Prints who could call whom.

Each app serves greet (POST: answers what came), hello (GET) and fail (an error), reads one line of JSON {invoke: ids, echo: ids}, calls those
and prints "PASS <client> <id>" or "FAIL <client> <id> <why>" for each, then "CALLED", and serves on until its input ends.

Python and JavaScript always run. Go and Java need their toolchain and fetch modules: SDK_TESTS=1 (make sdk-tests)."""
import json, os, pathlib, shutil, subprocess, sys, threading, uuid

import pytest

from conftest import ROOT, free_port, wait_until

HERE = pathlib.Path(__file__).parent / "invoke"
CLIENTS = {"python": ["python/http", "python/grpc"], "js": ["js/http", "js/grpc"], "go": ["go/grpc"], "java": ["java/http"]}
ECHO = {"python": "grpcio", "go": "grpc-go"}


class App:
    """A program with its sidecar: name is language-protocol."""

    def __init__(self, daprd, name, command, env):
        self.name, (self.language, protocol) = name, name.split("-")
        self.id, port = f"{name}-{uuid.uuid4().hex[:8]}", free_port()
        self.sidecar = daprd(app_id=self.id, args=[f"--app-port={port}", f"--app-protocol={protocol}"], start=False)
        env = dict(os.environ, **env, APP_ID=self.id, APP_PORT=str(port), PROTOCOL=protocol, DAPR_HTTP_PORT=str(self.sidecar.http),
                   DAPR_GRPC_PORT=str(self.sidecar.grpc), DAPR_HTTP_ENDPOINT=f"http://127.0.0.1:{self.sidecar.http}",
                   DAPR_GRPC_ENDPOINT=f"127.0.0.1:{self.sidecar.grpc}", PYTHONUNBUFFERED="1")
        self.said = []
        self.proc = subprocess.Popen(list(map(str, command)), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.called = threading.Event()

    def read(self):
        for line in self.proc.stdout:
            self.said.append(line.rstrip("\n"))
            if line == "CALLED\n":
                self.called.set()
        self.called.set()

    def wait_ready(self):
        """The sidecar answers once its app listens; a JVM on a busy machine takes its time."""
        def up():
            assert self.proc.poll() is None or pytest.fail(f"{self.name} ended:\n" + "\n".join(self.said[-50:]))
            return self.sidecar.request("GET", "/v1.0/healthz").status == 204
        wait_until(f"{self.name} is ready", up, 90)

    def tell(self, todo):
        self.proc.stdin.write(json.dumps(todo) + "\n")
        self.proc.stdin.flush()

    def close(self):
        self.proc.stdin.close()
        try:
            self.proc.wait(5)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
        self.reader.join(5)


def python_app(folder):
    """echo.proto's Python code is made where the app finds it."""
    from grpc_tools import protoc
    assert protoc.main(["", f"-I{HERE}", f"--python_out={folder}", f"--grpc_python_out={folder}", str(HERE / "echo.proto")]) == 0
    return [sys.executable, HERE / "app.py"], {"PYTHONPATH": str(folder)}


def js_app(folder):
    return ["node", HERE / "app.mjs"], {"JS_MODULES": str(ROOT / "build/js")}


def ok(argv, cwd, **kw):
    r = subprocess.run(list(map(str, argv)), cwd=cwd, capture_output=True, text=True, timeout=800, **kw)
    if r.returncode and "403" in r.stderr + r.stdout:
        pytest.skip("modules cannot be fetched: " + (r.stderr + r.stdout)[-300:])
    assert r.returncode == 0, (r.stderr + r.stdout)[-3000:]


def go_app(folder):
    from grpc_tools import protoc
    if not shutil.which("go"):
        pytest.skip("no Go toolchain")
    app = ROOT / "build/sdk-go-invoke"
    shutil.copytree(HERE / "go", app, dirs_exist_ok=True)
    (app / "echo").mkdir(exist_ok=True)
    tools = dict(os.environ, GOBIN=str(app / "bin"))
    ok(["go", "install", "google.golang.org/protobuf/cmd/protoc-gen-go@v1.34.2"], app, env=tools)
    ok(["go", "install", "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1"], app, env=tools)
    assert protoc.main(["", f"-I{HERE}", *(f"--plugin=protoc-gen-{x}={app}/bin/protoc-gen-{x}" for x in ("go", "go-grpc")),
                        f"--go_out=module=invokeapp:{app}", f"--go-grpc_out=module=invokeapp:{app}", str(HERE / "echo.proto")]) == 0
    ok(["go", "build", "-mod=mod", "-o", "app", "."], app)
    return [app / "app"], {}


def java_app(folder):
    if not shutil.which("mvn") or not shutil.which("javac"):
        pytest.skip("no Maven or no JDK")
    app = ROOT / "build/sdk-java-invoke"
    shutil.copytree(HERE / "java", app, dirs_exist_ok=True)
    ok(["mvn", "-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=classpath"], app)
    return ["java", "-cp", f"{app / 'target/classes'}:{(app / 'classpath').read_text().strip()}", "App"], {}


def matrix(apps, passed):
    columns = [a.name for a in apps]
    rows = [c for a in dict.fromkeys(a.language for a in apps) for c in CLIENTS[a] + ([ECHO[a]] if a in ECHO else [])]
    lines = ["caller      " + " ".join(f"{c:>11}" for c in columns)]
    for client in rows:
        cells = [passed.get((client, a.name), "") for a in apps]
        lines.append(f"{client:<12}" + " ".join(f"{c:>11}" for c in cells))
    return "\n".join(lines)


def everyone_calls_everyone(daprd, folder, languages, capsys):
    made = {x: globals()[f"{x}_app"](folder) for x in languages}
    apps = []
    try:
        apps += [App(daprd, f"{x}-{p}", *made[x]) for x in languages for p in ("http", "grpc")]
        for a in apps:
            a.sidecar.start(healthy=False)
        for a in apps:
            a.wait_ready()
        callers = {a.language: a for a in apps}
        ids, echo = [a.id for a in apps], [a.id for a in apps if a.language in ECHO and a.name.endswith("-grpc")]
        for a in apps:  # one of each language calls
            a.tell({"invoke": ids, "echo": echo} if a in callers.values() else {"invoke": [], "echo": []})
        for a in apps:
            assert a.called.wait(240), f"{a.name} did not end its calls:\n" + "\n".join(a.said[-50:])
    finally:
        for a in apps:
            a.close()
    name = {a.id: a.name for a in apps}
    words = [line.split(" ", 3) for a in callers.values() for line in a.said if line.startswith(("PASS ", "FAIL "))]
    passed = {(client, name[callee]): what for what, client, callee, *_ in words}
    with capsys.disabled():
        print("\n" + matrix(apps, passed))
    want = {(c, a.name) for x in callers for c in CLIENTS[x] for a in apps}
    want |= {(ECHO[x], name[i]) for x in callers if x in ECHO for i in echo}
    said = "\n".join(line for a in apps for line in [f"-- {a.name}", *a.said[-60:]])
    assert set(passed) == want and all(v == "PASS" for v in passed.values()), said[-12000:]


def test_python_and_javascript(daprd, folder, capsys):
    everyone_calls_everyone(daprd, folder, ["python", "js"], capsys)


@pytest.mark.skipif(not os.environ.get("SDK_TESTS"), reason="only with SDK_TESTS=1 (make sdk-tests)")
@pytest.mark.timeout(900)
def test_all_languages(daprd, folder, capsys):
    everyone_calls_everyone(daprd, folder, list(CLIENTS), capsys)
