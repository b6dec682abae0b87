"""The demo's app: counts its visits in Dapr's state store and reads a secret. Only the standard library.
First argument: how many visits must have been before. With the word "crash" it also kills the process that serves the store, and asks
again."""
import json, os, signal, subprocess, sys, time, urllib.request

BASE = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0"


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    req = urllib.request.Request(BASE + path, data=data, method=method, headers={"content-type": "application/json"})
    with urllib.request.urlopen(req, timeout=10) as r:
        text = r.read()
        return json.loads(text) if text else None


def say(*words):
    print(*words, flush=True)


def expect(ok, otherwise):
    if not ok:
        sys.exit(f"the demo failed: {otherwise}")


def plugins():
    out = subprocess.run([os.environ["DAPRCTL"], "plugin", "list", "--app-id", os.environ["APP_ID"], "-o", "json"], check=True,
                         capture_output=True, text=True).stdout
    return {row["name"]: row for row in json.loads(out)}


def visit():
    visits = call("GET", "/state/statestore/visits")
    say("the state store says:", "nothing yet" if visits is None else f"{visits} visit(s) before this one")
    expect((visits or 0) == int(sys.argv[1]), "the value of the last run is not there")
    call("POST", "/state/statestore", [{"key": "visits", "value": (visits or 0) + 1}])
    again = call("GET", "/state/statestore/visits")
    say("saved and read back: visits =", again)
    expect(again == (visits or 0) + 1, "the value is not what was saved")
    say("the secret store says: greeting =", call("GET", "/secrets/vault/greeting")["greeting"])


def crash():
    before = plugins()["statestore"]
    os.kill(before["pid"], signal.SIGKILL)
    start = time.monotonic()
    visits = call("GET", "/state/statestore/visits")
    say(f"killed the store's process {before['pid']}; asked at once: visits = {visits} after {(time.monotonic() - start) * 1000:.0f} ms")
    after = plugins()["statestore"]
    expect(visits == int(sys.argv[1]) + 1 and after["pid"] != before["pid"], "the store did not come back")
    say(f"the store is now process {after['pid']}, {after['state']}, restarts: {after['restarts']}; the sidecar never stopped")


visit()
if "crash" in sys.argv:
    crash()
