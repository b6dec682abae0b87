"""Existing pluggable components, unmodified: found at start or later, several instances a socket, reconnect after a crash."""
import os, pathlib, shutil, socket, subprocess, sys, tempfile, threading, time

import pytest

from conftest import BUILD, ROOT, component, wait_until

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def protos():
    out = ROOT / "build/pyproto"
    out.mkdir(parents=True, exist_ok=True)
    files = [str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto/dapr/proto/components/v1").glob("*.proto")]
    files += ["dapr/proto/common/v1/common.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}", *files], check=True)
    for d in [out / "dapr", *(out / "dapr").rglob("*/")]:
        (d / "__init__.py").touch()  # a package of its own, before the SDK's of the same name
    return out


@pytest.fixture
def sockets():
    d = tempfile.mkdtemp(prefix="s-", dir="/tmp")
    yield pathlib.Path(d)
    shutil.rmtree(d, ignore_errors=True)


@pytest.fixture
def plug(protos, sockets):
    running = []

    def start(name="pystore"):
        p = subprocess.Popen([sys.executable, str(HERE / "pluggable_store.py"), str(sockets / f"{name}.sock"), str(protos)],
                             stdout=subprocess.PIPE, text=True)
        running.append(p)
        assert p.stdout.readline() == "ready\n"
        return p
    yield start
    for p in running:
        p.kill()
        p.wait()
        p.stdout.close()


def works(d, name, value):
    assert d.request("POST", f"/v1.0/state/{name}", [{"key": "k", "value": value}]).status == 204
    assert d.request("GET", f"/v1.0/state/{name}/k").json() == value


def test_found_at_start_with_two_instances_and_a_secret_store(daprd, plug, sockets):
    plug()
    d = daprd([component("one", "state.pystore"), component("two", "state.pystore"), component("vault", "secretstores.pystore")],
              env={"DAPR_COMPONENTS_SOCKETS_FOLDER": str(sockets)})
    works(d, "one", 1)
    works(d, "two", 2)
    assert d.request("GET", "/v1.0/state/one/k").json() == 1, "instances do not share data"
    assert d.request("GET", "/v1.0/secrets/vault/x").json() == {"x": "secret of x"}


def test_found_later(daprd, plug, sockets):
    d = daprd([component("late", "state.pystore", ignoreErrors=True)], env={"DAPR_COMPONENTS_SOCKETS_FOLDER": str(sockets)})
    assert d.metadata().get("components", []) == []
    plug()
    wait_until("the component has been initialised", lambda: [c["name"] for c in d.metadata().get("components", [])] == ["late"])
    works(d, "late", "x")


def test_a_restarted_component_is_initialised_again(daprd, plug, sockets):
    p = plug()
    d = daprd([component("s", "state.pystore")], env={"DAPR_COMPONENTS_SOCKETS_FOLDER": str(sockets)})
    works(d, "s", 1)
    p.kill()
    p.wait()
    os.unlink(sockets / "pystore.sock")
    plug()
    wait_until("it serves again", lambda: d.request("POST", "/v1.0/state/s", [{"key": "k", "value": 2}]).status == 204)
    works(d, "s", 3)


def test_a_component_that_makes_room_for_its_next_version_loses_no_call(daprd, plug, sockets):
    """It ends in good order, and another one stands at the same path a moment later: calls wait for it, and those that it had not begun, or
    that only read, are made anew. Its values are its own."""
    p = plug()
    d = daprd([component("s", "state.pystore")], env={"DAPR_COMPONENTS_SOCKETS_FOLDER": str(sockets)}, app_id=f"room-{os.getpid()}")
    r = subprocess.run([str(BUILD / "bin/daprctl"), "plugin", "upgrade", "s", "--path", str(BUILD / "plugins/state.in-memory"), "--app-id", f"room-{os.getpid()}"],
                       env={"NO_COLOR": "1"}, capture_output=True, text=True)
    assert r.returncode == 1 and "start its other version there, daprd connects to it again" in r.stderr
    done, failures, calls = threading.Event(), [], []

    def call(i):
        while not done.is_set():
            for method, path, body, want in (("POST", "/v1.0/state/s", [{"key": f"k{i}", "value": 1}], (204,)), ("GET", f"/v1.0/state/s/k{i}", None, (200, 204))):
                reply = d.request(method, path, body)
                calls.append(reply.status)
                # what the old one had taken and dropped at its end, or refused by its own word
                taken = (method == "POST" and b"was in flight when its plugin" in reply.body) or b"desc = CANCELLED" in reply.body
                if reply.status not in want and not taken:
                    failures.append((method, reply.status, reply.body))
    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(4)]
    for t in threads:
        t.start()
    for n in range(2):
        before = len(calls)
        wait_until("calls are answered", lambda: len(calls) > before + 50)
        p.terminate()
        p.wait(10)
        time.sleep(0.3)
        p = plug()
    before = len(calls)
    wait_until("calls are answered", lambda: len(calls) > before + 50)
    done.set()
    for t in threads:
        t.join(20)
    assert failures == []


def test_stale_sockets_and_plain_files_are_passed_over(daprd, plug, sockets):
    (sockets / "file.sock").write_text("no socket")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(sockets / "stale.sock"))
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(sockets / "deaf.sock"))
        deaf.listen()
        plug()
        d = daprd([component("s", "state.pystore")], env={"DAPR_COMPONENTS_SOCKETS_FOLDER": str(sockets)})
        works(d, "s", 1)
