"""Resiliency policies around state and secret stores, with a pluggable store that fails when it is told to. Times are the shortest
that a policy can tell apart."""
import http.server, json, pathlib, subprocess, sys, threading, time

import pytest

from conftest import component, wait_until
from test_pluggable import protos, sockets  # noqa: F401

HERE = pathlib.Path(__file__).parent
RETRY = {"policy": "constant", "duration": "10ms", "maxRetries": 3}


def resiliency(policies, targets=None, name="res", scopes=()):
    doc = {"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": name}, "spec": {"policies": policies, "targets": targets or {}}}
    if scopes:
        doc["scopes"] = list(scopes)
    return json.dumps(doc)


def outbound(**policies):
    return {"components": {"s": {"outbound": policies}, "v": {"outbound": policies}}}


@pytest.fixture
def flaky(protos, sockets, daprd):  # noqa: F811
    """flaky(resources) -> a sidecar with stores s and v; d.told(words) sets what the next calls do, d.called() what was called."""
    running = []
    script, calls = sockets / "script", sockets / "calls"
    p = subprocess.Popen([sys.executable, str(HERE / "flaky_store.py"), str(sockets / "flaky.sock"), str(protos), str(script), str(calls)],
                         stdout=subprocess.PIPE, text=True)
    running.append(p)
    assert p.stdout.readline() == "ready\n"

    def start(*resources, **kw):
        d = daprd([component("s", "state.flaky"), component("v", "secretstores.flaky"), *resources],
                  env={"DAPR_COMPONENTS_SOCKETS_FOLDER": str(sockets)}, **kw)

        def told(words):
            calls.write_text("")
            script.write_text(words)
        d.told = told
        d.called = lambda: calls.read_text().split()
        d.get = lambda: d.request("GET", "/v1.0/state/s/k")
        return d
    yield start
    for p in running:
        p.kill()
        p.wait()
        p.stdout.close()


REQUESTS = [
    ("Get", "GET", "/v1.0/state/s/k", None),
    ("Set", "POST", "/v1.0/state/s", [{"key": "k", "value": 1}]),
    ("BulkSet", "POST", "/v1.0/state/s", [{"key": "k", "value": 1}, {"key": "l", "value": 1}]),
    ("Delete", "DELETE", "/v1.0/state/s/k", None),
    ("BulkGet", "POST", "/v1.0/state/s/bulk", {"keys": ["k", "l"]}),
    ("Transact", "POST", "/v1.0/state/s/transaction", {"operations": [{"operation": "upsert", "request": {"key": "k", "value": 1}}]}),
    ("GetSecret", "GET", "/v1.0/secrets/v/k", None),
    ("BulkGetSecret", "GET", "/v1.0/secrets/v/bulk", None),
]


def test_every_operation_is_tried_again(flaky):
    d = flaky(resiliency({"retries": {"r": RETRY}}, outbound(retry="r")))
    for name, method, path, body in REQUESTS:
        d.told("fail unavailable fail")
        r = d.request(method, path, body)
        assert r.status in (200, 204), f"{name}: {r.status} {r.body}"
        assert d.called() == [name] * 4
        d.told("fail fail fail fail fail")
        r = d.request(method, path, body)
        assert r.status == 500 and b"told to fail" in r.body, f"{name}: {r.status} {r.body}"
        assert d.called() == [name] * 4


def test_without_policies_nothing_is_tried_again(flaky):
    d = flaky(resiliency({"retries": {"r": RETRY}}, {"components": {"other": {"outbound": {"retry": "r"}}}}))
    for name, method, path, body in REQUESTS:
        d.told("fail")
        assert d.request(method, path, body).status == 500, name
        assert d.called() == [name]


def test_an_etag_is_not_tried_again(flaky):
    d = flaky(resiliency({"retries": {"r": RETRY}}, outbound(retry="r")))
    d.told("etag")
    r = d.request("POST", "/v1.0/state/s", [{"key": "k", "value": 1, "etag": "9"}])
    assert r.status == 409
    assert d.called() == ["Set"]


def test_a_timeout_ends_a_try(flaky):
    d = flaky(resiliency({"timeouts": {"t": "100ms"}, "retries": {"r": RETRY}}, outbound(timeout="t", retry="r")))
    d.told("slow")
    began = time.monotonic()
    assert d.get().body == b"7"
    assert time.monotonic() - began < 1.5
    assert d.called() == ["Get", "Get"]
    d.told("slow slow slow slow")
    r = d.get()
    assert r.status == 500 and r.json()["message"] == "fail to get k from state store s: context deadline exceeded"


def test_a_breaker_opens_and_closes(flaky):
    d = flaky(resiliency({"circuitBreakers": {"b": {"maxRequests": 1, "timeout": "500ms", "trip": "consecutiveFailures >= 2"}}},
                         outbound(circuitBreaker="b")))
    d.told("fail fail")
    assert [d.get().status for _ in range(2)] == [500, 500]
    r = d.get()
    assert r.status == 500 and r.json()["message"] == "fail to get k from state store s: circuit breaker is open"
    assert d.called() == ["Get", "Get"]
    r = d.request("GET", "/v1.0/secrets/v/k")
    assert r.status == 200, "another component has another breaker"
    wait_until("it has closed", lambda: d.get().status == 200)
    assert 'Circuit breaker \\"b-s\\" changed state from closed to open' in d.log()
    assert 'Circuit breaker \\"b-s\\" changed state from half-open to closed' in d.log()


def test_breaker_and_retry_and_timeout_together(flaky):
    d = flaky(resiliency({"timeouts": {"t": "100ms"}, "retries": {"r": {**RETRY, "maxRetries": 10}},
                          "circuitBreakers": {"b": {"timeout": "30s", "trip": "totalFailures > 2"}}},
                         outbound(timeout="t", retry="r", circuitBreaker="b")))
    d.told("slow fail fail")
    r = d.get()
    assert r.status == 500 and b"circuit breaker is open" in r.body
    assert d.called() == ["Get"] * 3


def test_default_policies_apply_by_name(flaky):
    d = flaky(resiliency({"retries": {"DefaultRetryPolicy": {**RETRY, "maxRetries": 1},
                                      "DefaultStatestoreComponentOutboundRetryPolicy": {**RETRY, "maxRetries": 2}}}))
    d.told("fail fail fail fail fail")
    assert d.get().status == 500
    assert d.called() == ["Get"] * 3
    d.told("fail fail fail fail fail")
    assert d.request("GET", "/v1.0/secrets/v/k").status == 500
    assert d.called() == ["GetSecret"] * 2


def test_scopes_and_several_resources(flaky):
    d = flaky(resiliency({"retries": {"r": {**RETRY, "maxRetries": 1}}}, outbound(retry="r"), name="a"),
              resiliency({"retries": {"r": {**RETRY, "maxRetries": 2}}}, name="b"),
              resiliency({"retries": {"r": {**RETRY, "maxRetries": 5}}}, name="c", scopes=["another"]))
    d.told("fail fail fail fail fail")
    assert d.get().status == 500
    assert d.called() == ["Get"] * 3, "the later resource wins, one for another app is left out"


@pytest.mark.parametrize("policies,why", [
    ({"retries": {"r": {"matching": {"httpStatusCodes": "11"}}}}, "invalid pattern 11, start code 11 is not valid"),
    ({"timeouts": {"t": "soon"}}, "invalid duration"),
    ({"circuitBreakers": {"b": {"trip": "1 + 'a'"}}}, "found no matching overload"),
])
def test_a_wrong_resource_is_only_logged(flaky, policies, why):
    d = flaky(resiliency(policies))
    assert d.get().status == 200
    line = next(x for x in d.log().splitlines() if "Could not read resiliency policy res: " in x)
    assert why in line


def test_metrics(flaky):
    d = flaky(resiliency({"timeouts": {"t": "5s"}, "retries": {"r": RETRY},
                          "circuitBreakers": {"b": {"timeout": "30s", "trip": "totalFailures > 1"}}},
                         outbound(timeout="t", retry="r", circuitBreaker="b")))
    d.told("fail")
    assert d.get().status == 200
    d.told("fail fail")
    assert d.get().status == 500

    def value(metric, **labels):
        for line in d.metric_text().splitlines():
            if line.startswith(f"dapr_resiliency_{metric}{{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.split()[-1])
        return None
    target = {"app_id": "app", "name": "res", "flow_direction": "outbound", "target": "Statestore_s"}
    assert value("loaded", app_id="app", name="res") == 1
    assert value("count", policy="retry", **target) == 2
    assert value("count", policy="timeout", **target) == 2
    assert value("count", policy="circuitbreaker", status="closed", **target) == 2
    assert value("activations_total", policy="retry", **target) == 2
    assert value("activations_total", policy="circuitbreaker", status="open", **target) == 1
    assert value("cb_state", status="closed", **target) == 1, "as it was at the last look-up"
    d.get()
    assert value("cb_state", status="closed", **target) == 0
    assert value("cb_state", status="open", **target) == 1


@pytest.fixture
def app():
    """An HTTP app that answers POST with the next of app.statuses (200 when there is none) and notes when."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status = 200
            if self.command == "POST":
                status = self.server.statuses.pop(0) if self.server.statuses else 200
                self.server.posts.append((time.monotonic(), status))
            self.send_response(status if self.path != "/dapr/config" else 404)
            self.send_header("content-length", "0")
            self.end_headers()
        do_GET = do_POST = do_OPTIONS = answer

        def log_message(self, *a):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.statuses, server.posts = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_events_of_an_input_binding_are_tried_again(daprd, app):
    policies = {"retries": {"r": {**RETRY, "matching": {"httpStatusCodes": "500-502"}}}}
    app.statuses = [500, 502, 200, 503, 200]
    daprd([component("tick", "bindings.cron", [("schedule", "@every 1s"), ("direction", "input")]),
           resiliency(policies, {"components": {"tick": {"inbound": {"retry": "r"}}}})],
          args=[f"--app-port={app.server_port}", "--app-protocol=http"])
    wait_until("three events have come", lambda: len(app.posts) >= 5)
    times, statuses = zip(*app.posts)
    assert statuses[:5] == (500, 502, 200, 503, 200)
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert gaps[0] < 0.4 and gaps[1] < 0.4, "500 and 502 are tried again"
    assert gaps[3] > 0.5, "503 is not"


def test_only_the_failed_items_of_a_bulk_are_sent_again(daprd, redis):
    d = daprd([component("s", "state.redis", [("redisHost", redis.addr)]), resiliency({"retries": {"r": RETRY}}, outbound(retry="r"))])
    assert redis.cli("ACL", "SETUSER", "default", "resetkeys", "~app||good*") == "OK"
    redis.cli("CONFIG", "RESETSTAT")
    r = d.request("POST", "/v1.0/state/s", [{"key": k, "value": 1} for k in ("good1", "bad", "good2")])
    assert r.status == 500 and b"NOPERM" in r.body
    evals = next(x for x in redis.cli("INFO", "commandstats").splitlines() if x.startswith("cmdstat_eval:"))
    assert "calls=2," in evals and "rejected_calls=4," in evals
