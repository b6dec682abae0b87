"""Debugging a running component: faults for drills, recordings of its calls, and what replays of them show."""
import json, os, pty, signal, subprocess, termios, time

import grpc
import pytest
from dapr.proto.runtime.v1 import configuration_pb2, dapr_pb2_grpc

from conftest import BUILD, component, wait_until
from test_swap import version_of

APP = f"tap-{os.getpid()}"


def ctl(*args, app=APP, limit=60, ok=True):
    r = subprocess.run([str(BUILD / "bin/daprctl"), "plugin", *args, *(["--app-id", app] if app else [])], env={"NO_COLOR": "1"},
                       capture_output=True, text=True, timeout=limit)
    assert ok is None or (r.returncode == 0) == ok, f"{args}: {r.returncode}\n{r.stdout}{r.stderr}"
    return r


def row(name="store"):
    return next(p for p in json.loads(ctl("list", "-o", "json").stdout) if p["name"] == name)


def events(name="store"):
    return [(e["event"], e["detail"]) for e in json.loads(ctl("history", name, "-o", "json").stdout)["events"]]


@pytest.fixture
def d(daprd, folder):
    x = daprd([component("store", "state.sqlite", [("connectionString", str(folder / "s.db"))])], app_id=APP)
    assert x.request("POST", "/v1.0/state/store", [{"key": "k", "value": "v1"}]).status == 204
    return x


def test_faults_are_met_seen_and_end(d):
    get = lambda: d.request("GET", "/v1.0/state/store/k")  # noqa: E731
    ctl("fault", "store", "--error", "UNAVAILABLE", "--for", "30s")
    r = get()
    assert r.status == 500 and "daprctl plugin fault" in r.json()["message"]
    assert row()["fault"] == {"what": "error Unavailable, on 100% of calls", "leftSeconds": 30, "hits": 1}
    assert "error Unavailable" in ctl("list").stdout
    assert d.metadata()["components"][0]["microdapr"]["fault"] == "error Unavailable, on 100% of calls"
    assert ("fault", "error Unavailable, on 100% of calls, for 30s") in events()
    ctl("fault", "store", "--clear")
    assert get().body == b'"v1"' and "fault" not in row()
    assert any(e == "fault over" and "1 calls met it" in t for e, t in events())

    ctl("fault", "store", "--delay", "300ms", "--for", "700ms")
    began = time.monotonic()
    assert get().body == b'"v1"' and time.monotonic() - began >= 0.3
    wait_until("its time is over", lambda: "fault" not in row())

    ctl("fault", "store", "--error", "DEADLINE_EXCEEDED", "--rate", "0.25")
    wrong = sum(get().status == 500 for _ in range(200))
    assert 20 <= wrong <= 80, f"{wrong} of 200 at a rate of 0.25"
    ctl("fault", "store", "--clear")


def test_a_killed_process_comes_back(d):
    pid = row()["pid"]
    ctl("fault", "store", "--kill")
    assert wait_until("it answers again", lambda: d.request("GET", "/v1.0/state/store/k").body == b'"v1"')
    wait_until("by a new process", lambda: row()["pid"] not in (0, pid) and row()["restarts"] == 1)
    assert ("fault", f"process {pid} killed") in events()
    ctl("fault", "store", "--kill", "--rate", "1", "--for", "5s")
    d.request("GET", "/v1.0/state/store/k")
    ctl("fault", "store", "--clear")
    wait_until("it answers again", lambda: d.request("GET", "/v1.0/state/store/k").body == b'"v1"')
    assert row()["restarts"] >= 2


WRONG_FAULTS = [
    ([], "Say what"), (["--error", "OOPS"], "UNAVAILABLE or 14"), (["--error", "OK"], "other than OK"), (["--delay", "2m"], "60s"),
    (["--error", "14", "--rate", "1.5"], "at most 1"), (["--error", "14", "--rate", "x"], "rate is a number"),
    (["--error", "14", "--for", "2h"], "at most 1h"), (["--clear"], "there is no fault"), (["--kill", "--clear"], "--clear ends")]


def test_bad_faults_are_explained(d):
    for args, says in WRONG_FAULTS:
        assert says in ctl("fault", "store", *args, ok=False).stderr, args


def test_top_tells_what_goes_on(d):
    import threading
    ctl("fault", "store", "--error", "UNAVAILABLE", "--rate", "0.3")
    done = threading.Event()

    def load():
        while not done.is_set():
            d.request("GET", "/v1.0/state/store/k")
    t = threading.Thread(target=load)
    t.start()
    try:
        r = next(x for x in json.loads(ctl("top", "--interval", "300ms", "-o", "json").stdout) if x["name"] == "store")
        text = ctl("top", "--interval", "100ms", "--once").stdout
    finally:
        done.set()
        t.join()
    assert r["state"] == "READY" and r["backend"] == "reachable" and "error Unavailable, on 30% of calls" in r["fault"]
    assert r["callsPerSecond"] > r["errorsPerSecond"] > 0 and 0 < r["p50Ms"] <= r["p99Ms"] < 1000
    assert r["cpuPercent"] is not None and r["rssBytes"] > 100_000
    assert text.split()[:4] == ["NAME", "TYPE", "STATE", "CALLS/S"] and "state.sqlite" in text
    assert "at least 100ms" in ctl("top", "--interval", "1ms", ok=False).stderr


# ---- tap, replay ----

def tapping(d, folder, *args):
    """A running tap, once it records."""
    p = subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "tap", "store", "--app-id", APP, *args], env={"NO_COLOR": "1"},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until("it records", lambda: sum((e == "tap") - (e == "tap over") for e, _ in events()) == 1)
    return p


def ended(p):
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 0, out + err
    return out + err


def traffic(d):
    assert d.request("POST", "/v1.0/state/store", [{"key": "secretkey", "value": "pass-word-1"}]).status == 204
    for key in ("secretkey", "k", "none"):
        d.request("GET", f"/v1.0/state/store/{key}")
    d.request("DELETE", "/v1.0/state/store/k")
    assert d.request("POST", "/v1.0/state/store", [{"key": "k", "value": "x", "etag": "wrong"}]).status == 409


def test_a_replay_follows_the_etags_of_the_other_store(d, folder):
    file = folder / "calls.tap"
    p = tapping(d, folder, "--unredacted", "-w", str(file))
    assert d.request("POST", "/v1.0/state/store", [{"key": "e", "value": 1}]).status == 204
    for n in (2, 3):
        etag = d.request("GET", "/v1.0/state/store/e").headers["etag"]
        assert d.request("POST", "/v1.0/state/store", [{"key": "e", "value": n, "etag": etag}]).status == 204
    assert d.request("DELETE", "/v1.0/state/store/e", headers={"If-Match": etag}).status == 409
    ended(p)
    yaml = folder / "other.yaml"
    yaml.write_text(component("other", "state.sqlite", [("connectionString", str(folder / "other.db"))]))
    ctl("replay", str(file), "--against", str(BUILD / "plugins/state.sqlite"), "--component", str(yaml), app=None)
    r = json.loads(ctl("replay", str(file), "--against", str(BUILD / "plugins/state.sqlite"), "--component", str(yaml), "--strict", "-o", "json", app=None, ok=False).stdout)
    assert r["sent"] == 6 and {x["method"].split("/")[-1] for x in r["differences"]} == {"Get"}, "ETags themselves are other ones"


def unpacked(path):
    """MessagePack values, one after the other, as far as recordings use it."""
    raw, at = path.read_bytes(), 0

    def take(n):
        nonlocal at
        at += n
        return raw[at - n:at]

    def number(n, signed=False):
        return int.from_bytes(take(n), "big", signed=signed)

    def value():
        b = number(1)
        if b < 0x80 or b >= 0xe0:
            return b if b < 0x80 else b - 256
        if b in (0xc0, 0xc2, 0xc3):
            return {0xc0: None, 0xc2: False, 0xc3: True}[b]
        if 0xcc <= b <= 0xd3:
            return number(1 << (b & 3), b >= 0xd0)
        if 0xa0 <= b <= 0xbf or 0xd9 <= b <= 0xdb:
            return take(b & 31 if b < 0xc0 else number(1 << (b - 0xd9))).decode()
        if 0xc4 <= b <= 0xc6:
            return take(number(1 << (b - 0xc4)))
        n = b & 15 if b < 0xa0 else number(2 << (b & 1))
        return [value() for _ in range(n)] if 0x90 <= b <= 0x9f or b in (0xdc, 0xdd) else {value(): value() for _ in range(n)}
    out = []
    while at < len(raw):
        out.append(value())
    return out


def test_a_recording_holds_no_values_unless_asked(d, folder):
    file = folder / "calls.tap"
    p = tapping(d, folder, "-w", str(file))
    assert "somebody records its calls already" in ctl("tap", "store", ok=False).stderr
    traffic(d)
    assert "6 calls recorded" in ended(p)
    raw = file.read_bytes()
    assert b"pass-word-1" not in raw and b"secretkey" in raw
    assert os.stat(file).st_mode & 0o777 == 0o600
    head, *calls, end = unpacked(file)
    assert head["format"] == "microdapr-tap" and head["redacted"] and head["type"] == "state.sqlite" and head["plugin"] == "state.sqlite"
    assert end == {"end": True, "calls": 6, "dropped": 0}
    assert [c["method"].split("/")[-1] for c in calls] == ["Set", "Get", "Get", "Get", "Delete", "Set"]
    assert calls[0]["request"]["value"]["bytes"] == len('"pass-word-1"') and calls[0]["request"]["key"] == f"{APP}||secretkey"
    assert calls[0]["request"]["value"] == calls[1]["response"]["data"], "equal values have equal hashes"
    assert calls[0]["request"]["value"]["hash"] != calls[2]["response"]["data"]["hash"]
    assert calls[5]["code"] != 0 and calls[1]["latencyNs"] > 0
    assert "is redacted" in ctl("replay", str(file), "--against", "store", ok=False).stderr
    assert ctl("tap", "store", "--unredacted", ok=False).stderr

    p = tapping(d, folder, "-o", "json")
    d.request("GET", "/v1.0/state/store/secretkey")
    line = json.loads(ended(p).splitlines()[0])
    assert line["method"].endswith("StateStore/Get") and line["code"] == "OK" and line["responseBytes"] > 10
    assert d.request("GET", "/v1.0/state/store/secretkey").status == 200


def test_a_replay_finds_what_answers_otherwise(d, folder):
    file = folder / "calls.tap"
    p = tapping(d, folder, "--unredacted", "-w", str(file))
    traffic(d)
    assert "with all values" in ended(p)
    # the same plugin on an empty database: the first Get of k, which was written before the recording, finds nothing
    yaml = folder / "other.yaml"
    yaml.write_text(component("other", "state.sqlite", [("connectionString", str(folder / "other.db"))]))
    r = json.loads(ctl("replay", str(file), "--against", str(BUILD / "plugins/state.sqlite"), "--component", str(yaml), "-o", "json", app=None, ok=False).stdout)
    assert (r["calls"], r["sent"], r["differ"], r["skipped"]) == (6, 6, 1, 0)
    assert r["differences"][0]["call"] == 3 and "InYxIg" in r["differences"][0]["recorded"] and r["differences"][0]["now"] == "{}"
    # another plugin altogether answers as sqlite does, but for that
    text = ctl("replay", str(file), "--against", str(BUILD / "plugins/state.in-memory"), app=None, ok=None)
    assert "holds no component" in text.stderr or "does not start" in text.stderr
    # again on the very component: now nothing is different but what the first run changed
    r = json.loads(ctl("replay", str(file), "--against", "store", "-o", "json", ok=None).stdout)
    assert r["sent"] == 6 and r["differ"] <= 1
    assert "no plugin's folder" in ctl("replay", str(file), "--against", "nowhere", app=None, ok=False).stderr
    (folder / "bad.tap").write_bytes(b"\x93\x01\x02\x03")
    assert "no recording" in ctl("replay", str(folder / "bad.tap"), "--against", "store", ok=False).stderr


def test_a_recording_that_nobody_takes_is_bounded(d):
    """The list in the sidecar holds 16 MiB and 4096 calls; the rest is counted, and no call waits for it."""
    import http.client, socket
    sock = next(p for p in control_sockets())
    c = http.client.HTTPConnection("localhost")
    c.sock = socket.socket(socket.AF_UNIX)
    c.sock.connect(str(sock))
    c.request("POST", "/v1/plugins/store/tap?for=60s")
    assert c.getresponse().read() == b""
    big = json.dumps([{"key": "big", "value": "x" * 900_000}])
    for _ in range(25):
        assert d.request("POST", "/v1.0/state/store", big).status == 204
    c.request("GET", "/v1/plugins/store/tap")
    r = json.loads(c.getresponse().read())
    assert 0 < r["dropped"] <= 8 and r["waiting"] + len(r["records"]) + r["dropped"] == 25
    c.request("POST", "/v1/plugins/store/untap")
    assert c.getresponse().read() == b""


def control_sockets():
    import pathlib
    for base in (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp"):
        if base:
            yield from pathlib.Path(base).glob(f"dapr-{os.getuid()}/{APP}.*.sock")


@pytest.mark.parametrize("moved", [False, True])
def test_messages_of_streams_are_recorded_too(daprd, folder, redis, moved):
    """A watch that stands before the recording begins, be it on the plugin of the first start or on one that took its place: each change is
    a message, redacted; a replay leaves them out."""
    d = daprd([component("cfg", "configuration.redis", [("redisHost", redis.addr)])], app_id=APP)
    stub = dapr_pb2_grpc.DaprStub(grpc.insecure_channel(f"127.0.0.1:{d.grpc}"))
    watch = iter(stub.SubscribeConfiguration(configuration_pb2.SubscribeConfigurationRequest(store_name="cfg", keys=["color"])))
    assert next(watch).id
    if moved:
        other = version_of(folder, "configuration.redis", "1.1.0")
        ctl("upgrade", "cfg", "--path", str(other))
    tape = str(folder / "s.tap")
    p = subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "tap", "cfg", "--for", "20s", "-w", tape, "--app-id", APP], env={"NO_COLOR": "1"},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until("the recording has begun", lambda: any(e == "tap" for e, _ in events("cfg")))
    secret = "a value that is nobody's business"
    redis.cli("SET", "color", secret)
    assert next(watch).items["color"].value == secret
    p.send_signal(signal.SIGINT)
    assert p.wait(20) == 0, p.stdout.read()
    data = open(tape, "rb").read()
    assert b"ConfigurationStore/Subscribe" in data and b"stream" in data and b"color" in data and secret.encode() not in data


def test_top_ends_by_q_and_leaves_the_terminal_as_it_was(d):
    master, slave = pty.openpty()
    try:
        was = termios.tcgetattr(slave)
        p = subprocess.Popen([str(BUILD / "bin/daprctl"), "plugin", "top", "--app-id", APP, "--interval", "100ms"], stdin=slave, stdout=slave, stderr=slave, env={"TERM": "xterm"})
        seen = b""
        while b"READY" not in seen:
            seen += os.read(master, 4096)
        os.write(master, b"xq")
        assert p.wait(10) == 0 and termios.tcgetattr(slave) == was
    finally:
        os.close(master)
        os.close(slave)
