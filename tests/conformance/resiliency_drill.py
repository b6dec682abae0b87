"""Resiliency drill: one flapping app, twenty policy files, two runtimes; the sequences of outcomes must be the same. An outcome is what the
caller got (status, error code, text) and how often the app was asked for it. OTHER_DAPRD = path of the reference's daprd; skipped
without it. DRILL_PRINT=1 prints the sequences."""
import http.server, json, os, re, socket, sys, threading, time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, Web

OTHER = os.environ.get("OTHER_DAPRD", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to compare with")

SLOW_S = 0.6     # what "slow" takes; time-outs are a quarter of it
PAUSE_S = 0.6    # a pause of the caller; breakers open again after two thirds of it


class App(Web):
    """Answers by a script, word by word: a status, "slow" or "drop"; 200 when the script is at its end."""

    def __init__(self):
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if not self.path.startswith("/flap"):
                    self.reply(404 if self.path == "/dapr/config" or self.path == "/dapr/subscribe" else 200)
                    return
                with app.lock:
                    word = app.script.pop(0) if app.script else "200"
                    app.asked += 1
                if word == "drop":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if word == "slow":
                    time.sleep(SLOW_S)
                    word = "200"
                try:
                    self.reply(int(word), body or b'"ok"')
                except OSError:
                    pass  # who asked has gone

            def reply(self, status, body=b""):
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *args):
                pass
        self.lock, self.script, self.asked = threading.Lock(), [], 0
        super().__init__(Handler)


def constant(n, ms=10, **more):
    return {"policy": "constant", "duration": f"{ms}ms", "maxRetries": n, **more}


def breaker(trip=None, **more):
    return {"timeout": "400ms", **({"trip": trip} if trip else {}), **more}


ALL = {"retry": "r", "circuitBreaker": "b", "timeout": "t"}


def on_app(*names):
    return {"apps": {"flap": {n: ALL[n] for n in names}}}


R, B, T = "retry", "circuitBreaker", "timeout"
# name: policies, targets, what the app does in turn, what the caller does in turn: a number of calls, "p" = a pause
DRILLS = {
    "constant-gives-up": ({"retries": {"r": constant(3)}}, on_app(R), "500*4 500 500 200 503", [4]),
    "constant-without-end": ({"retries": {"r": constant(-1)}}, on_app(R), "500*6 200 502*9 200", [3]),
    "exponential": ({"retries": {"r": {"policy": "exponential", "maxInterval": "40ms", "maxRetries": 4}}}, on_app(R), "500 500 200 503*2 200", [3]),
    "none": ({"retries": {"r": constant(0)}}, on_app(R), "500 200 500 404", [5]),
    "other-statuses": ({"retries": {"r": constant(2)}}, on_app(R), "404*3 400*3 429 200 302 201", [5]),
    "match-list": ({"retries": {"r": constant(2, matching={"httpStatusCodes": "500,502-504"})}}, on_app(R), "500 502 503 504 501 404 500 200", [6]),
    "match-one": ({"retries": {"r": constant(3, matching={"httpStatusCodes": "429"})}}, on_app(R), "429 429 500 429 200 404 429*4", [6]),
    "match-grpc-only": ({"retries": {"r": constant(2, matching={"gRPCStatusCodes": "1-15"})}}, on_app(R), "500 503*3 404 200", [4]),
    "dropped-connections": ({"retries": {"r": constant(2)}}, on_app(R), "drop 200 drop drop 200 drop*3 200", [4]),
    "timeout": ({"timeouts": {"t": "150ms"}}, on_app(T), "slow 200 slow 500 200", [5]),
    "timeout-and-retry": ({"timeouts": {"t": "150ms"}, "retries": {"r": constant(2)}}, on_app(T, R), "slow 200 slow slow slow 500 slow 200", [4]),
    "trip-consecutive": ({"circuitBreakers": {"b": breaker("consecutiveFailures >= 3")}}, on_app(B), "500 500 200 500*3 200*2", [9, "p", 3]),
    "trip-default": ({"circuitBreakers": {"b": breaker()}}, on_app(B), "500*8", [9, "p", 3, "p", 2]),
    "trip-total": ({"circuitBreakers": {"b": breaker("totalFailures > 3")}}, on_app(B), "500 200 500 200 503 200 500 200", [10, "p", 2]),
    "trip-share": ({"circuitBreakers": {"b": breaker("requests >= 6 && totalFailures * 2 >= requests")}}, on_app(B), "200 500 200 500 200 500 500", [10, "p", 3]),
    "trip-interval": ({"circuitBreakers": {"b": breaker("consecutiveFailures >= 3", interval="300ms")}}, on_app(B), "500*20",
                      [2, "p", 2, "p", 4, "p", 2]),
    "half-open": ({"circuitBreakers": {"b": breaker("consecutiveFailures >= 2", maxRequests=2)}}, on_app(B), "500*3 200 500 200*3 500*2",
                  [3, "p", 2, "p", 3, "p", 3, 4]),
    "retry-trips-breaker": ({"circuitBreakers": {"b": breaker("consecutiveFailures >= 3")}, "retries": {"r": constant(5)}}, on_app(B, R),
                            "500*3 200 500 200", [3, "p", 4]),
    "all-three": ({"circuitBreakers": {"b": breaker("consecutiveFailures > 3")}, "retries": {"r": constant(2)}, "timeouts": {"t": "150ms"}},
                  on_app(B, R, T), "slow slow 200 500 slow 500 500 500 200", [5, "p", 3]),
    "defaults": ({"retries": {"DefaultAppRetryPolicy": constant(1), "DefaultRetryPolicy": constant(4)}, "timeouts": {"DefaultTimeoutPolicy": "150ms"},
                  "circuitBreakers": {"DefaultCircuitBreakerPolicy": breaker("consecutiveFailures > 6")}}, {},
                 "500 200 500 500 200 slow slow 200 500*8", [9, "p", 2]),
}
assert len(DRILLS) == 20


def words(script):
    return [w for part in script.split() for w in [part.split("*")[0]] * int(part.partition("*")[2] or 1)]


def outcome(reply):
    try:
        body = json.loads(reply.body)
    except ValueError:
        body = reply.body.decode(errors="replace")
    if isinstance(body, dict):
        return reply.status, body.get("errorCode"), re.sub(r"127\.0\.0\.1:\d+", "ADDR", re.sub(r"(read|write) tcp .*|EOF.*|error closing .*", "BROKEN", body.get("message", "")))
    return reply.status, None, body


def run(kind, folder, policies, targets, script, steps):
    """The sequence of one runtime."""
    sub = folder / kind
    sub.mkdir()
    doc = {"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "drill"}, "spec": {"policies": policies, "targets": targets}}
    app = App()
    d = Daprd(sub, [json.dumps(doc)], app_id="flap", args=[f"--app-port={app.port}"])
    if kind == "other":
        d.argv[0] = OTHER
        d.env = {"HOME": str(sub), "PATH": os.environ.get("PATH", "")}
    seen = []
    try:
        d.start()
        app.script = words(script)
        for step in steps:
            if step == "p":
                time.sleep(PAUSE_S)
                seen.append("pause")
                continue
            for _ in range(step):
                before = app.asked
                r = outcome(d.request("POST", "/v1.0/invoke/flap/method/flap", '"ok"', {"content-type": "application/json"}, timeout=30))
                seen.append((*r, app.asked - before))
    finally:
        d.close()
        app.close()
    return seen


@pytest.mark.parametrize("name", DRILLS)
def test_the_same_sequence(folder, name):
    got = {}
    threads = [threading.Thread(target=lambda k=k: got.__setitem__(k, run(k, folder, *DRILLS[name]))) for k in ("ours", "other")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if os.environ.get("DRILL_PRINT"):
        for i, (a, b) in enumerate(zip(got["ours"], got["other"])):
            print(f"{name:22} {i:2} {a} {'' if a == b else f'!= {b}'}")
    assert got["ours"] == got["other"]


if __name__ == "__main__":
    if not os.access(OTHER, os.X_OK):
        print("skipped: OTHER_DAPRD does not name a daprd to compare with")
        sys.exit(0)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", os.path.abspath(__file__)]))
