"""The demo's app: counts its visits in Dapr's state store and reads a secret. Only the standard library."""
import json, os, urllib.request

BASE = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0"


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    req = urllib.request.Request(BASE + path, data=data, method=method, headers={"content-type": "application/json"})
    with urllib.request.urlopen(req, timeout=10) as r:
        text = r.read()
        return json.loads(text) if text else None


visits = call("GET", "/state/statestore/visits")
print("the state store says:", "nothing yet" if visits is None else f"{visits} visit(s) before this one", flush=True)
call("POST", "/state/statestore", [{"key": "visits", "value": (visits or 0) + 1}])
print("saved and read back: visits =", call("GET", "/state/statestore/visits"), flush=True)
print("the secret store says: greeting =", call("GET", "/secrets/vault/greeting")["greeting"], flush=True)
meta = call("GET", "/metadata")
print("components, each its own process:", ", ".join(f"{c['name']} ({c['type']})" for c in meta["components"]), flush=True)
