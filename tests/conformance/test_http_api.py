"""The HTTP API as a client sees it: statuses, headers, error bodies, limits, tokens, CORS."""
import http.client, json, re, socket

import pytest

from conftest import component, free_port

STORE = component("store", "state.in-memory")


def save(d, *items):
    r = d.request("POST", "/v1.0/state/store", list(items), {"content-type": "application/json"})
    assert r.status == 204, r.body


def test_state_values_come_back_as_json_with_an_etag(daprd):
    d = daprd([STORE])
    for value in ["text", 1, 1.5, True, None, {"a": [1, {"b": "ü"}]}, [], ""]:
        save(d, {"key": "k", "value": value})
        r = d.request("GET", "/v1.0/state/store/k")
        if value is None:
            assert r.status in (200, 204)
            continue
        assert r.status == 200 and r.headers["etag"] and json.loads(r.body) == value


def test_missing_keys_are_204_and_delete_is_idempotent(daprd):
    d = daprd([STORE])
    assert d.request("GET", "/v1.0/state/store/absent").status == 204
    assert d.request("DELETE", "/v1.0/state/store/absent").status == 204


def test_bulk_get_keeps_order_and_marks_absent_keys(daprd):
    d = daprd([STORE])
    save(d, {"key": "a", "value": {"x": 1}}, {"key": "b", "value": "s"})
    r = d.request("POST", "/v1.0/state/store/bulk", {"keys": ["b", "none", "a"]})
    got = r.json()
    assert [i["key"] for i in got] == ["b", "none", "a"] and got[0]["data"] == "s" and got[2]["data"] == {"x": 1}
    assert "data" not in got[1] and "etag" not in got[1]


def test_first_write_with_a_stale_etag_is_409(daprd):
    d = daprd([STORE])
    save(d, {"key": "k", "value": 1})
    etag = d.request("GET", "/v1.0/state/store/k").headers["etag"]
    save(d, {"key": "k", "value": 2, "etag": etag, "options": {"concurrency": "first-write"}})
    r = d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 3, "etag": etag, "options": {"concurrency": "first-write"}}])
    assert r.status == 409 and r.json()["errorCode"] == "ERR_STATE_SAVE"
    assert d.request("DELETE", "/v1.0/state/store/k", headers={"If-Match": etag}).status == 409
    assert d.request("GET", "/v1.0/state/store/k").json() == 2


@pytest.mark.parametrize("method,path,body,status,code", [
    ("GET", "/v1.0/state/nostore/k", None, 400, "ERR_STATE_STORE_NOT_FOUND"),
    ("POST", "/v1.0/state/store", "{not json", 400, "ERR_MALFORMED_REQUEST"),
    ("POST", "/v1.0/state/store", "[{}]", 400, "ERR_MALFORMED_REQUEST"),
    ("GET", "/v1.0/state/store/a%7C%7Cb", None, 400, "ERR_MALFORMED_REQUEST"),
    ("GET", "/v1.0/secrets/vault/k", None, 500, "ERR_SECRET_STORES_NOT_CONFIGURED"),
    ("GET", "/v1.0/nothing/here", None, 404, "ERR_DIRECT_INVOKE"),
    ("POST", "/v1.0/publish/ps/topic", "{}", 404, "ERR_PUBSUB_NOT_FOUND"),
    ("POST", "/v1.0/bindings/b", '{"operation":"create"}', 500, "ERR_INVOKE_OUTPUT_BINDING"),
])
def test_error_bodies(daprd, method, path, body, status, code):
    d = daprd([STORE])
    r = d.request(method, path, body)
    assert (r.status, r.json()["errorCode"]) == (status, code), r.body
    assert r.headers["content-type"].startswith("application/json") and r.json()["message"]


def test_encrypted_state_is_not_readable_in_the_store(daprd, folder):
    (folder / "s.json").write_text(json.dumps({"key1": "00112233445566778899aabbccddeeff"}))
    d = daprd([component("vault", "secretstores.local.file", [("secretsFile", str(folder / "s.json"))]),
               component("store", "state.sqlite", [("connectionString", str(folder / "s.db")),
                                                   {"name": "primaryEncryptionKey", "secretKeyRef": {"name": "key1", "key": "key1"}}],
                         auth={"secretStore": "vault"})])
    save(d, {"key": "k", "value": "top secret"})
    assert d.request("GET", "/v1.0/state/store/k").body == b"top secret"  # a string's own text is encrypted, as in the reference
    raw = b"".join(p.read_bytes() for p in folder.glob("s.db*"))
    assert b"top secret" not in raw and b"app||k" in raw


def test_api_token_is_required_when_set(daprd):
    d = daprd([STORE], env={"DAPR_API_TOKEN": "s3cret"})
    assert d.request("GET", "/v1.0/metadata").status == 401
    assert d.request("GET", "/v1.0/metadata", headers={"dapr-api-token": "wrong"}).status == 401
    assert d.request("GET", "/v1.0/metadata", headers={"dapr-api-token": "s3cret"}).status == 200
    assert "s3cret" not in d.log()


def test_a_body_over_the_limit_is_refused_and_the_sidecar_lives(daprd):
    d = daprd([STORE], args=["--max-body-size=1Mi"])
    r = d.request("POST", "/v1.0/state/store", b'[{"key":"k","value":"' + b"x" * (2 << 20) + b'"}]')
    assert r.status in (400, 413, 500)
    assert d.request("GET", "/v1.0/healthz").status == 204


@pytest.mark.parametrize("raw", [
    b"GARBAGE\r\n\r\n", b"INVALID CONNECTION PREFACE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", b"POST /v1.0/state/store HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nshort",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100000 + b"\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200, b"\x16\x03\x01\x02\x00" * 50,
])
@pytest.mark.parametrize("port", ["http", "grpc", "internal", "metrics"])
def test_garbage_on_any_port_ends_the_connection_only(daprd, raw, port):
    d = daprd([STORE])
    with socket.create_connection(("127.0.0.1", getattr(d, port)), timeout=5) as s:
        try:
            s.sendall(raw)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except OSError:  # the server may have closed already
            pass
    assert d.request("GET", "/v1.0/healthz").status == 204


def test_deep_json_and_deep_protobuf_are_refused(daprd):
    d = daprd([STORE])
    r = d.request("POST", "/v1.0/state/store", b'[{"key":"k","value":' + b"[" * 100000 + b"]" * 100000 + b"}]")
    assert r.status == 400
    assert d.request("GET", "/v1.0/healthz").status == 204


def test_unix_sockets_replace_the_ports(daprd, folder):
    d = daprd([STORE], healthy=False, args=[f"--unix-domain-socket={folder}"])
    from conftest import wait_until
    path = folder / "dapr-app-http.socket"

    def get():
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(str(path))
            s.sendall(b"GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b" 204 " in s.recv(4096)
    wait_until("the socket answers", get)


def test_every_ipv4_address_means_ipv6_too(daprd):
    d = daprd(args=["--metrics-listen-address=0.0.0.0"])
    with socket.create_connection(("127.0.0.1", d.metrics), 5), socket.create_connection(("::1", d.metrics), 5):
        pass


def test_a_port_that_is_taken(daprd):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        d = daprd(healthy=False, args=[f"--dapr-grpc-port={s.getsockname()[1]}"])
        assert d.wait_exit() == 1
    assert "bind: address already in use" in d.log()
    assert "Fatal error from runtime: failed to start API gRPC server: could not listen on any endpoint" in d.log()
    d.proc = None


def test_the_profile_port_lists_what_it_has(daprd):
    port = free_port()
    d = daprd(args=["--enable-profiling", f"--profile-port={port}"])

    def get(path):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        c.request("GET", path)
        r = c.getresponse()
        out = r.status, r.read().decode()
        c.close()
        return out
    status, index = get("/debug/pprof/")
    assert status == 200 and {"cmdline", "goroutine", "heap"} == set(re.findall("href='(.*?)'", index))
    assert get("/debug/pprof/cmdline")[1].split("\0") == d.argv
    assert get("/debug/pprof/goroutine")[1].startswith("fibers ") and "in use" in get("/debug/pprof/heap")[1]
    assert get("/debug/pprof")[0] == 307 and get("/debug/pprof/profile")[0] == get("/")[0] == 404


def test_a_stop_over_the_api_is_not_held_up(daprd):
    d = daprd(args=["--dapr-block-shutdown-duration=60s"])
    assert d.request("POST", "/v1.0/shutdown").status == 204
    assert d.wait_exit(10) == 0 and "Blocking graceful shutdown" not in d.log()


def test_metrics_tell_process_and_state_calls(daprd):
    d = daprd([STORE])
    save(d, {"key": "k", "value": 1})
    text = d.metric_text()
    for name in ("process_resident_memory_bytes", "dapr_component_state_count", "dapr_http_server_request_count", "dapr_runtime_component_loaded"):
        assert name in text, name
