"""Filters in Go: policies (opa), WebAssembly guests (wasm), flow control (sentinel). Left out where they were not built."""
import concurrent.futures, http.client, http.server, json, shutil, subprocess, threading

import pytest

from conftest import BUILD, component, wait_until
from test_invoke import HttpApp
from test_middleware import INVOKE, echo, pipelines


def built(name):
    return pytest.mark.skipif(not (BUILD / f"plugins/middleware.http.{name}").exists(), reason=f"middleware.http.{name} was not built: no Go, or no modules")


@pytest.fixture
def app():
    a = HttpApp()
    yield a
    a.close()


@pytest.fixture
def start(daprd, app):
    def make(type, metadata, side="over_app", **kw):
        chain = [("m", type)]
        d = daprd(resources=[component("m", f"middleware.http.{type}", list(metadata.items()))], args=[f"--app-port={app.port}"],
                  config=pipelines(chain if side == "server" else (), chain if side == "over_app" else ()), healthy=False, **kw)
        wait_until("daprd runs", lambda: "dapr initialized" in d.log())
        app.got.clear()
        return d
    return make


def refused_start(daprd, type, metadata, text):
    d = daprd(resources=[component("m", f"middleware.http.{type}", list(metadata.items()))], healthy=False)
    assert d.wait_exit() == 1 and text in d.log(), d.log()[-2000:]
    d.proc = None


# ---- opa ----

POLICY = """
package http
default allow = false
allow = true { input.request.path == "/plain" }
allow = {"allow": true, "additional_headers": {"x-user": input.request.headers["X-In"], "x-out": "new"}} { input.request.path == "/head" }
allow = {"allow": false, "status_code": 301, "additional_headers": {"location": "https://x"}} { input.request.path == "/away" }
allow = {"allow": input.request.body == "good"} { input.request.path_parts == ["a", "body"] }
allow = {"allow": input.request.query["q"][0] == "1", "status_code": 402} { input.request.method == "PUT" }
allow = "text" { input.request.path == "/text" }
allow = {"allow": 1} { input.request.path == "/number" }
"""


@built("opa")
@pytest.mark.parametrize("side", ["server", "over_app"])
def test_opa_decides(start, app, side):
    policy = POLICY if side == "over_app" else POLICY.replace('"/', f'"{INVOKE}/').replace('["a", "body"]', '["v1.0", "invoke", "app", "method", "a", "body"]')
    d = start("opa", {"rego": policy, "includedHeaders": "x-in, x-never", "readBody": "true", "defaultStatus": "409"}, side)
    app.handlers["/a/body"] = app.handlers["/plain"] = echo
    ask = lambda path, body=None, method=None, **h: d.request(method or ("POST" if body else "GET"), INVOKE + path, body, {k.replace("_", "-"): v for k, v in h.items()})
    r = ask("/plain", b"x" * 300000)
    assert r.status == 200 and r.body == b"x" * 300000
    assert ask("/head", x_in="me", x_out="old").status == 200
    assert app.got[-1]["headers"]["x-user"] == "me" and app.got[-1]["headers"]["x-out"] == "new"
    assert ask("/a/body", b"good").body == b"good"
    n = len(app.got)
    r = ask("/a/body", b"bad")
    assert (r.status, r.body, r.headers["content-type"]) == (409, b"Conflict", "text/plain; charset=utf-8")
    assert ask("/x?q=2", method="PUT").status == 402
    assert len(app.got) == n and ask("/x?q=1", method="PUT").status == 200
    assert ask("/nothing").status == 409
    c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=15)
    c.request("GET", INVOKE + "/away")
    r = c.getresponse()
    assert (r.status, r.headers["location"]) == (301, "https://x")
    c.close()
    for path in ("/text", "/number"):
        r = ask(path)
        assert r.status == 409 and r.headers["x-dapr-opa-error"] == "true"
    assert "Error processing rego policy: got an invalid type back" in d.log()


@built("opa")
def test_opa_that_cannot_start(daprd):
    refused_start(daprd, "opa", {"rego": "package http\nallow = {"}, "metadata property rego")
    refused_start(daprd, "opa", {"rego": "package http", "defaultStatus": "600"}, "is no status in the range [100-599]")


# ---- wasm ----

HEAD = """(module
  (import "http_handler" "enable_features" (func $features (param i32) (result i32)))
  (import "http_handler" "get_config" (func $config (param i32 i32) (result i32)))
  (import "http_handler" "log" (func $log (param i32 i32 i32)))
  (import "http_handler" "get_uri" (func $uri (param i32 i32) (result i32)))
  (import "http_handler" "set_uri" (func $set_uri (param i32 i32)))
  (import "http_handler" "set_method" (func $set_method (param i32 i32)))
  (import "http_handler" "set_header_value" (func $set_header (param i32 i32 i32 i32 i32)))
  (import "http_handler" "get_header_values" (func $headers (param i32 i32 i32 i32 i32) (result i64)))
  (import "http_handler" "read_body" (func $read (param i32 i32 i32) (result i64)))
  (import "http_handler" "write_body" (func $write (param i32 i32 i32)))
  (import "http_handler" "get_status_code" (func $status (result i32)))
  (import "http_handler" "set_status_code" (func $set_status (param i32)))
  (memory (export "memory") 64)
  (data (i32.const 0) "/changed?x=1") (data (i32.const 16) "PUT") (data (i32.const 32) "x-wasm") (data (i32.const 48) "no way")
  (data (i32.const 64) "<") (data (i32.const 65) ">") (data (i32.const 80) "x-app")
"""
GUESTS = {
    # logs its configuration, gives requests another address and a header
    "rewrite": """(func (export "handle_request") (result i64)
        (call $log (i32.const 0) (i32.const 1024) (call $config (i32.const 1024) (i32.const 1000)))
        (call $set_uri (i32.const 0) (i32.const 12)) (call $set_method (i32.const 16) (i32.const 3))
        (call $set_header (i32.const 0) (i32.const 32) (i32.const 6) (i32.const 16) (i32.const 3))
        (i64.const 1))
      (func (export "handle_response") (param i32 i32)
        (call $log (i32.const 0) (i32.const 1024) (i32.sub (i32.wrap_i64 (call $headers (i32.const 1) (i32.const 80) (i32.const 5) (i32.const 1024) (i32.const 100)))
             (i32.const 1))))""",
    # answers by itself
    "answer": """(func (export "handle_request") (result i64)
        (call $set_status (i32.const 401)) (call $set_header (i32.const 1) (i32.const 32) (i32.const 6) (i32.const 16) (i32.const 3))
        (call $write (i32.const 1) (i32.const 48) (i32.const 6)) (i64.const 0))
      (func (export "handle_response") (param i32 i32))""",
    # puts the request's body into <>, and the response's, whose status becomes 201
    "bodies": """(func $wrap (param $kind i32) (local $n i32)
        (local.set $n (i32.wrap_i64 (call $read (local.get $kind) (i32.const 4096) (i32.const 3000000))))
        (call $write (local.get $kind) (i32.const 64) (i32.const 1)) (call $write (local.get $kind) (i32.const 4096) (local.get $n))
        (call $write (local.get $kind) (i32.const 65) (i32.const 1)))
      (func $start (drop (call $features (i32.const 3)))) (start $start)
      (func (export "handle_request") (result i64) (call $wrap (i32.const 0)) (i64.const 1))
      (func (export "handle_response") (param i32 i32) (call $wrap (i32.const 1)) (call $set_status (i32.const 201)))""",
    "traps": """(func (export "handle_request") (result i64) unreachable) (func (export "handle_response") (param i32 i32))""",
}


@pytest.fixture(scope="module")
def guests(tmp_path_factory):
    if not shutil.which("wat2wasm"):
        pytest.skip("wat2wasm (package wabt) is not here")
    out = tmp_path_factory.mktemp("guests")
    for name, text in GUESTS.items():
        (out / f"{name}.wat").write_text(HEAD + text + ")")
        subprocess.run(["wat2wasm", str(out / f"{name}.wat"), "-o", str(out / f"{name}.wasm")], check=True)
    return out


@built("wasm")
def test_wasm_guests_change_heads_and_answer(start, app, guests):
    app.handlers["/changed"] = lambda r: (200, {"x-app": "told"}, b"ok")
    d = start("wasm", {"url": f"file://{guests}/rewrite.wasm", "guestConfig": "the configuration"})
    r = d.request("GET", f"{INVOKE}/m?y=2")
    assert (r.status, r.body) == (200, b"ok")
    got = app.got[-1]
    assert (got["method"], got["path"], got["headers"]["x-wasm"]) == ("PUT", "/changed?x=1", "PUT")
    wait_until("both are logged", lambda: "the configuration" in d.log() and "told" in d.log())
    d.close()
    handler = type("H", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None,
                                                                  "__init__": lambda s, *a: http.server.SimpleHTTPRequestHandler.__init__(s, *a, directory=str(guests))})
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        d = start("wasm", {"url": f"http://127.0.0.1:{web.server_address[1]}/answer.wasm", "strictSandbox": "true"}, "server")
    finally:
        web.shutdown()
        web.server_close()
    r = d.request("GET", f"{INVOKE}/m")
    assert (r.status, r.body, r.headers["x-wasm"]) == (401, b"no way", "PUT") and not app.got


@built("wasm")
@pytest.mark.parametrize("side", ["server", "over_app"])
def test_wasm_guests_change_bodies(start, app, guests, side):
    app.handlers["/m"] = echo
    d = start("wasm", {"url": f"file://{guests}/bodies.wasm"}, side)
    for body in (b"abc", b"", b"z" * 2000000):
        r = d.request("POST", f"{INVOKE}/m", body)
        assert r.status == 201 and r.body == b"<<" + body + b">>"
        assert app.got[-1]["body"] == b"<" + body + b">"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, r in enumerate(pool.map(lambda i: d.request("POST", f"{INVOKE}/m", b"%d" % i), range(100))):
            assert r.body == b"<<%d>>" % i


@built("wasm")
def test_wasm_guests_that_fail(start, daprd, app, guests):
    d = start("wasm", {"url": f"file://{guests}/traps.wasm"})
    for _ in range(3):
        assert d.request("GET", f"{INVOKE}/m").status == 500
    assert not app.got
    (guests / "none.wasm").write_bytes(b"no wasm")
    refused_start(daprd, "wasm", {"url": f"file://{guests}/none.wasm"}, "wasm: ")
    refused_start(daprd, "wasm", {"url": "oci://image"}, "images (oci:) are not served")


# ---- sentinel ----

@built("sentinel")
def test_sentinel_limits_flow_and_concurrency(start, app):
    entered, leave = threading.Semaphore(0), threading.Event()

    def slow(r):
        entered.release()
        leave.wait(10)
        return 200, {}, b""
    app.handlers["/slow"] = slow
    d = start("sentinel", {"appName": "t", "flowRules": json.dumps([{"resource": "GET:/flow", "threshold": 3, "tokenCalculateStrategy": 0, "controlBehavior": 0,
                                                                     "statIntervalInMs": 60000}]),
                           "isolationRules": json.dumps([{"resource": "GET:/slow", "metricType": 0, "threshold": 2}]), "hotSpotParamRules": "[]"})
    got = [d.request("GET", f"{INVOKE}/flow").status for _ in range(5)]
    assert got == [200] * 3 + [429] * 2
    assert d.request("GET", f"{INVOKE}/other").status == 200
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        held = [pool.submit(d.request, "GET", f"{INVOKE}/slow") for _ in range(2)]
        assert entered.acquire(timeout=10) and entered.acquire(timeout=10)
        r = d.request("GET", f"{INVOKE}/slow")
        assert (r.status, r.body) == (429, b"Too Many Requests")
        leave.set()
        assert [h.result().status for h in held] == [200, 200]
    wait_until("there is room again", lambda: d.request("GET", f"{INVOKE}/slow").status == 200)
    assert "hotSpotParamRules have no effect" in d.log()


@built("sentinel")
def test_sentinel_breaks_the_circuit(start, daprd, app):
    app.handlers["/bad"] = lambda r: (500, {}, b"")
    d = start("sentinel", {"circuitBreakerRules": json.dumps([{"resource": "GET:/bad", "strategy": 2, "retryTimeoutMs": 60000, "minRequestAmount": 1,
                                                               "statIntervalMs": 60000, "threshold": 2}])}, "over_app")
    wait_until("the circuit is open", lambda: d.request("GET", f"{INVOKE}/bad").status == 429)
    assert 1 <= len(app.got) <= 4
    refused_start(daprd, "sentinel", {"flowRules": "{"}, "metadata property flowRules")
