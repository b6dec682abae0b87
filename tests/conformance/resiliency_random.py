"""Resiliency drill with random policy files: a generator makes policies, targets, the moods of an app and the steps of callers from a seed; this
runtime and another must give the same sequence of outcomes (what the caller got, how often the app was asked). HTTP and gRPC callers and apps,
proxied gRPC, output bindings, pub/sub deliveries, one sidecar or two. OTHER_DAPRD = path of the reference's daprd; skipped without it.
DRILL_FILES (60) files from DRILL_SEED (1) on; DRILL_PRINT=1 prints each file and its sequences. Times matter: a difference counts
when it shows three times."""
import concurrent.futures, json, os, random, sqlite3, sys, threading, time

import grpc
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, component, wait_until
from resiliency_drill import App, outcome

OTHER = os.environ.get("OTHER_DAPRD", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to compare with")
SEED, FILES = int(os.environ.get("DRILL_SEED", 1)), int(os.environ.get("DRILL_FILES", 60))

TIMEOUT, SLOW_S = "700ms", 1.6       # an app that is slow takes longer than any time-out
OPEN, PAUSE_S = "4s", 4.4            # a pause of the caller lets breakers try again
CODES = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED,
         grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED]


class GrpcApp(grpc.GenericRpcHandler):
    """The same moods over gRPC: OnInvoke, OnTopicEvent and /test.Echo/Unary; a status word is an index into CODES."""

    def __init__(self):
        self.lock, self.script, self.asked = threading.Lock(), [], 0
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        self.server.add_generic_rpc_handlers([self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        if not details.method.endswith(("/OnInvoke", "/Unary", "/OnTopicEvent")):
            return None

        def call(request, context):
            with self.lock:
                word = self.script.pop(0) if self.script else "200"
                self.asked += 1
            if word == "slow":
                time.sleep(SLOW_S)
            elif word != "200":
                context.abort(CODES[int(word) % len(CODES)] if word.isdigit() else grpc.StatusCode.ABORTED, "a mood")
            return b""
        return grpc.unary_unary_rpc_method_handler(call)

    def close(self):
        self.server.stop(None).wait()


# ---- the generator ----

def retry(r):
    out = {"policy": "constant", "duration": r.choice(("5ms", "10ms", "30ms")), "maxRetries": r.choice((0, 1, 2, 2, 3, 4, -1))}
    if r.random() < 0.3:
        out = {"policy": "exponential", "maxInterval": r.choice(("10ms", "40ms")), "maxRetries": r.choice((1, 2, 3))}
    if r.random() < 0.5:
        out["matching"] = {}
        if r.random() < 0.8:
            out["matching"]["httpStatusCodes"] = r.choice(("500", "500-599", "429,503", "500,502-504", "400-499", "404", "100-599", "503"))
        if r.random() < 0.7:
            out["matching"]["gRPCStatusCodes"] = r.choice(("14", "2,14", "1-16", "13", "4,8", "0-16", "5"))
        if not out["matching"]:
            del out["matching"]
    return out


def breaker(r):
    n = r.randrange(1, 5)
    trip = r.choice((None, f"consecutiveFailures > {n}", f"consecutiveFailures >= {n}", f"totalFailures >= {n}", f"requests >= {n + 2} && totalFailures * 2 >= requests",
                     f"totalFailures > {n} || consecutiveFailures == {n}", f"consecutiveSuccesses < 1 && totalFailures > {n}", f"requests > {n} && totalSuccesses <= {n}"))
    return {"timeout": OPEN, **({"trip": trip} if trip else {}), **({"maxRequests": r.choice((1, 2, 3))} if r.random() < 0.5 else {})}


DEFAULTS = {"app": ("DefaultApp{}Policy", "Default{}Policy"), "binding": ("DefaultBindingComponentOutbound{}Policy", "DefaultComponentOutbound{}Policy",
            "DefaultComponent{}Policy", "Default{}Policy"), "pubsub": ("DefaultPubsubComponentInbound{}Policy", "DefaultComponentInbound{}Policy", "DefaultComponent{}Policy",
            "Default{}Policy")}
MADE = {"Retry": ("retries", "retry", retry), "Timeout": ("timeouts", "timeout", lambda r: TIMEOUT), "CircuitBreaker": ("circuitBreakers", "circuitBreaker", breaker)}


def plan(seed):
    """Everything that a run needs; nothing else is random."""
    r = random.Random(seed)
    kind = r.choice(("app", "app", "app", "app", "binding", "pubsub"))
    p = {"kind": kind, "app": r.choice(("http", "grpc")) if kind != "binding" else "http", "sidecars": r.choice((1, 2)) if kind == "app" else 1,
         "caller": r.choice(("http", "grpc")), "targets": {}, "policies": {}}
    if p["app"] == "grpc" and kind == "app" and r.random() < 0.3:
        p["caller"] = "proxy"
    target, always = {}, r.choice(list(MADE))
    for name, (group, field, make) in MADE.items():
        if name == always or r.random() < 0.5:
            how, policy = r.random(), make(r)
            if how < 0.7:
                p["policies"].setdefault(group, {})["x"] = policy
                target[field] = "x"
            else:
                p["policies"].setdefault(group, {})[r.choice(DEFAULTS[kind]).format(name)] = policy
            if r.random() < 0.2:  # one that is less specific, or not meant
                p["policies"][group][r.choice((f"Default{name}Policy", f"DefaultActor{name}Policy"))] = make(r)
    if target:
        p["targets"] = {"apps": {"flap": target}} if kind == "app" else {"components": {kind: {"outbound" if kind == "binding" else "inbound": target}}}
    timed = "timeouts" in p["policies"]
    moods = ["200", "200", "200", "500", "500", "503", "502", "404", "429", "400"] + (["slow"] if timed else []) + (["drop"] if p["app"] == "http" and kind == "app" else [])
    if p["app"] == "grpc":
        moods = ["200", "200", "200", "0", "0", "0", "1", "2", "3", "4", "5", "6", "7"] + (["slow"] if timed else [])
    p["script"] = []
    while len(p["script"]) < 26:
        p["script"] += [r.choice(moods)] * r.choice((1, 1, 2, 3))
    p["steps"] = [r.choice(("flap", "flap", "flap", "flapping")) for _ in range(r.choice((6, 9, 12)))]
    if "circuitBreakers" in p["policies"]:
        for at in sorted((r.randrange(2, len(p["steps"])) for _ in range(r.choice((1, 1, 2)))), reverse=True):
            p["steps"].insert(at, "p")
    return p


# ---- a run ----

class Rig:
    """One runtime, its app and its callers."""

    def __init__(self, kind, folder, p):
        self.p, self.folder = p, folder
        folder.mkdir()
        self.app = GrpcApp() if p["app"] == "grpc" else App()
        self.app.script = []
        resources = [json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "drill"}, "spec": {"policies": p["policies"], "targets": p["targets"]}})]
        if p["kind"] == "binding":
            resources.append(component("binding", "bindings.http", [("url", f"http://127.0.0.1:{self.app.port}/flap")]))
        if p["kind"] == "pubsub":
            resources += [component("pubsub", "pubsub.in-memory"), json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Subscription", "metadata": {"name": "s"},
                                                                              "spec": {"pubsubname": "pubsub", "topic": "t", "route": "/flap"}})]
        config = json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}, "spec": {
            "nameResolution": {"component": "sqlite", "version": "v1", "configuration": {"connectionString": str(folder / "names.db")}}}})
        self.daprds = []
        for i in range(p["sidecars"]):
            sub = folder / str(i)
            sub.mkdir()
            first = i == 0
            d = Daprd(sub, resources, app_id="flap" if first else "caller", config=config,
                      args=[f"--app-port={self.app.port}", f"--app-protocol={p['app']}"] if first and p["kind"] != "binding" else [])
            if kind == "other":
                d.argv[0] = OTHER
                d.env = {"HOME": str(sub), "PATH": os.environ.get("PATH", "")}
            self.daprds.append(d)
        self.caller = self.daprds[-1]

    def start(self):
        for d in self.daprds:
            d.start()
        if self.p["kind"] != "binding":
            wait_until("the app is known", lambda: "application discovered" in self.daprds[0].log(), 40)
        if len(self.daprds) > 1:
            wait_until("the callee has a name", self.registered, 40)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.caller.grpc}")
        self.app.script = list(self.p["script"])
        self.app.asked = 0

    def registered(self):
        try:
            with sqlite3.connect(self.folder / "names.db", timeout=5) as db:
                return db.execute("SELECT 1 FROM hosts WHERE app_id = 'flap'").fetchone()
        except sqlite3.OperationalError:
            return False

    def call(self, method):
        from dapr.proto.common.v1 import common_pb2
        from dapr.proto.runtime.v1 import binding_pb2, dapr_pb2_grpc, invoke_pb2
        kind, caller, stub = self.p["kind"], self.p["caller"], dapr_pb2_grpc.DaprStub(self.channel)
        if kind == "pubsub":
            return self.deliver(method)
        if caller == "http":
            if kind == "binding":
                return outcome(self.caller.request("POST", "/v1.0/bindings/binding", {"operation": "post", "data": "x", "metadata": {"path": ""}}, timeout=60))
            return outcome(self.caller.request("POST", f"/v1.0/invoke/flap/method/{method}", '"ok"', {"content-type": "application/json"}, timeout=60))
        try:
            if kind == "binding":
                return "ok", bytes(stub.InvokeBinding(binding_pb2.InvokeBindingRequest(name="binding", operation="post", data=b"x"), timeout=60).data)
            if caller == "proxy":
                return "ok", self.channel.unary_unary("/test.Echo/Unary")(b"", timeout=60, metadata=(("dapr-app-id", "flap"),))
            m = common_pb2.InvokeRequest(method=method, content_type="application/json", data={"value": b'"ok"'}, http_extension={"verb": 3})
            return "ok", bytes(stub.InvokeService(invoke_pb2.InvokeServiceRequest(id="flap", message=m), timeout=60).data.value)
        except grpc.RpcError as e:
            class Text:
                status, body = e.code().name, json.dumps({"errorCode": "", "message": e.details()}).encode()
            return outcome(Text)

    def deliver(self, method):
        """A message published; when nothing was asked for a while, the deliveries have ended."""
        r = self.caller.request("POST", "/v1.0/publish/pubsub/t", '"x"', {"content-type": "application/json"}, timeout=60)
        asked, since = -1, time.monotonic()
        while time.monotonic() - since < SLOW_S + 0.5:
            if self.app.asked != asked:
                asked, since = self.app.asked, time.monotonic()
            time.sleep(0.02)
        return (r.status,)

    def run(self):
        seen = []
        for step in self.p["steps"]:
            if step == "p":
                time.sleep(PAUSE_S)
                seen.append("pause")
                continue
            before = self.app.asked
            got = self.call(step)
            seen.append((*got, self.app.asked - before))
        return seen

    def close(self):
        if hasattr(self, "channel"):
            self.channel.close()
        for d in reversed(self.daprds):
            d.close()
        self.app.close()


def sequence(kind, folder, p):
    rig = Rig(kind, folder, p)
    try:
        rig.start()
        return rig.run()
    finally:
        rig.close()


@pytest.mark.parametrize("seed", range(SEED, SEED + FILES))
def test_the_same_sequence(folder, seed):
    p, shown = plan(seed), []
    for attempt in range(3):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = {k: pool.submit(sequence, k, folder / f"{k}{attempt}", p) for k in ("ours", "other")}
        got = {k: f.result() for k, f in runs.items()}
        if got["ours"] == got["other"]:
            break
        shown.append(got)
    if os.environ.get("DRILL_PRINT"):
        print(seed, json.dumps(p))
        for i, (a, b) in enumerate(zip(got["ours"], got["other"])):
            print(f"   {i:2} {a} {'' if a == b else f'!= {b}'}")
    assert len(shown) < 3, "\n".join([json.dumps(p)] + [f"{i:2} {a} {'' if a == b else f'!= {b}'}" for i, (a, b) in enumerate(zip(got["ours"], got["other"]))])


if __name__ == "__main__":
    if not os.access(OTHER, os.X_OK):
        print("skipped: OTHER_DAPRD does not name a daprd to compare with")
        sys.exit(0)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", os.path.abspath(__file__), *sys.argv[1:]]))
