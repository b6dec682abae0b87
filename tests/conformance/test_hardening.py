"""Hostile and broken peers at the sidecar's ports: HTTP/1.1 requests that two readers could understand differently, HTTP/2 frames in masses,
peers that read or write slowly, headers without measure, texts that are no UTF-8. Each ends in an error or the end of that connection; the
sidecar goes on and its memory does not grow."""
import re, socket, struct, time

import grpc
import pytest

from conftest import BUILD, component, wait_until

ASAN_KEEPS = 400 << 20 if BUILD.name == "asan" else 0  # of what was freed
HIDDEN = b"GET /v1.0/hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def d(tmp_path_factory):
    from conftest import Daprd
    made = Daprd(tmp_path_factory.mktemp("hard"), [component("store", "state.in-memory"), component("pub", "pubsub.in-memory")]).start()
    yield made
    made.close()


def rss(d):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{d.proc.pid}/status").read())[1]) * 1024


def exchange(d, data, limit=5):
    """Everything that comes back until the peer closes or is silent for a moment; and whether it closed."""
    with socket.create_connection(("127.0.0.1", d.http), limit) as s:
        s.sendall(data)
        got = b""
        s.settimeout(0.3)
        try:
            while part := s.recv(65536):
                got += part
        except TimeoutError:
            return got, False
        except ConnectionResetError:
            pass
        return got, True


def statuses(got):
    return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]


POST = b"POST /v1.0/state/store HTTP/1.1\r\nHost: x\r\n"
REFUSED = {
    "both lengths": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "both lengths, other order": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n[]" + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 2, 40\r\n\r\n[]" + HIDDEN,
    "a signed length": POST + b"Content-Length: +2\r\n\r\n[]" + HIDDEN,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n[]" + HIDDEN,
    "a hexadecimal length": POST + b"Content-Length: 0x2\r\n\r\n[]" + HIDDEN,
    "a length that overflows": POST + b"Content-Length: 18446744073709551618\r\n\r\n[]" + HIDDEN,
    "an empty length": POST + b"Content-Length:\r\n\r\n[]" + HIDDEN,
    "length with a space before the colon": POST + b"Content-Length : 2\r\n\r\n[]" + HIDDEN,
    "encoding with a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded header": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded first header": b"POST /v1.0/state/store HTTP/1.1\r\n Host: x\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "a bare CR in a header": POST + b"X: a\rContent-Length: 40\r\n\r\n" + HIDDEN,
    "a bare CR as line end": b"GET /v1.0/healthz HTTP/1.1\rHost: x\r\r" + HIDDEN,
    "a NUL in a header": POST + b"X: a\0b\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "a NUL in a name": POST + b"X\0: a\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "a header without a name": POST + b": a\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "a line without a colon": POST + b"Nonsense\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "a name with a space": POST + b"X Y: a\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "a chunk without a length": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n" + HIDDEN,
    "a chunk length that overflows": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n[]\r\n0\r\n\r\n" + HIDDEN,
    "a signed chunk length": POST + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n[]\r\n0\r\n\r\n" + HIDDEN,
    "a chunk longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[]\r\n0\r\n\r\n" + HIDDEN,
    "a chunk ended by a bare LF": POST + b"Transfer-Encoding: chunked\r\n\r\n2\n[]\n0\n\n" + HIDDEN,
    "a bare CR in a chunk extension": POST + b"Transfer-Encoding: chunked\r\n\r\n2;a\rb\r\n[]\r\n0\r\n\r\n" + HIDDEN,
    "two hosts": b"GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": b"GET /v1.0/healthz HTTP/1.1\r\n\r\n" + HIDDEN,
    "a host that is none": b"GET /v1.0/healthz HTTP/1.1\r\nHost: a b\r\n\r\n" + HIDDEN,
    "HTTP/1.2345": b"GET /v1.0/healthz HTTP/1.2345\r\nHost: x\r\n\r\n" + HIDDEN,
    "no version": b"GET /v1.0/healthz\r\n\r\n" + HIDDEN,
    "a target with a space": b"GET /v1.0/healthz x HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a target with a control": b"GET /v1.0/\x01 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a method that is none": b"G@T /v1.0/healthz HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a header of 200 KiB": POST + b"X: " + b"a" * 200_000 + b"\r\nContent-Length: 2\r\n\r\n[]" + HIDDEN,
    "ten thousand headers": POST + b"".join(b"X%d: a\r\n" % i for i in range(10_000)) + b"Content-Length: 2\r\n\r\n[]" + HIDDEN,
    "a target of 200 KiB": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("name", REFUSED)
def test_requests_that_can_be_read_in_two_ways_are_refused(d, name):
    got, closed = exchange(d, REFUSED[name])
    assert statuses(got) in ([400], [414], [431], [501], [505], []), got[:300]
    assert closed and b"hidden" not in got, (name, got[:300])


def test_requests_that_can_be_read_in_one_way_are_not(d):
    body = b"Content-Length: 2\r\n\r\n[]"
    fine = {
        "two": POST + body + b"GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "chunks with extensions": POST + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n[\r\n1\r\n]\r\n0;last\r\n\r\nGET /v1.0/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nContent-Length: 50\r\n\r\nGET /v1.0/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "spaces around a value": POST + b"X: \t a \t\r\n" + body + b"GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    for name, data in fine.items():
        assert statuses(exchange(d, data)[0]) == [204, 204], name


# ---- HTTP/2 ----

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value


REQUEST = b"".join(literal(*h) for h in ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"x")))


def flood(port, parts, limit=60):
    """Sends until the peer ends the connection; the GOAWAY code that it sent, None when it just closed."""
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.settimeout(2)
        got = b""
        end = time.monotonic() + limit
        try:
            s.sendall(PREFACE)
            for p in parts:
                s.sendall(p)
                s.setblocking(False)
                try:
                    got = (got + s.recv(1 << 20))[-1 << 20:]
                except BlockingIOError:
                    pass
                s.settimeout(2)
                assert time.monotonic() < end, "the connection does not end"
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        try:
            while part := s.recv(1 << 20):
                got += part
        except (TimeoutError, OSError):
            pass
    at, code = 0, None
    while at + 9 <= len(got):
        n, kind = int.from_bytes(got[at:at + 3]), got[at + 3]
        if kind == 7:
            code = int.from_bytes(got[at + 13:at + 17])
        at += 9 + n
    return code


def resets():
    for i in range(1, 200_000, 40):
        yield b"".join(frame(1, 4, i + k, REQUEST) + frame(3, 0, i + k, b"\0\0\0\x08") for k in range(0, 40, 2))


FLOODS = {
    "rapid resets": resets,
    "settings": lambda: (frame(4, 0, 0) * 100 for _ in range(2000)),
    "pings": lambda: (frame(6, 0, 0, b"12345678") * 100 for _ in range(2000)),
    "priorities": lambda: (frame(2, 0, 1, b"\0\0\0\0\0") * 100 for _ in range(2000)),
    "empty data": lambda: (p for p in [frame(1, 4, 1, REQUEST)] + [frame(0, 0, 1) * 100] * 2000),
    "unknown frames": lambda: (frame(200, 0, 0, b"x") * 100 for _ in range(2000)),
    "continuations": lambda: (p for p in [frame(1, 0, 1, REQUEST)] + [frame(9, 0, 1, literal(b"a", b"b")) * 100] * 2000),
}


@pytest.mark.parametrize("port", ["http", "grpc", "internal"])
@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_frames_end_the_connection(d, name, port):
    before = rss(d)
    code = flood(getattr(d, port), FLOODS[name]())
    assert code in (None, 1, 2, 11), code  # closed, or PROTOCOL_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM
    wait_until("memory is as before", lambda: rss(d) < before + (8 << 20) + ASAN_KEEPS)
    assert d.request("GET", "/v1.0/healthz").status == 204


# ---- slow peers ----

def test_peers_that_do_not_read_cost_little(d):
    d.request("POST", "/v1.0/state/store", [{"key": "big", "value": "x" * 1_000_000}])
    before = rss(d)
    ask = b"GET /v1.0/state/store/big HTTP/1.1\r\nHost: x\r\n\r\n"
    slow = []
    for _ in range(20):
        s = socket.create_connection(("127.0.0.1", d.http), 5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(ask * 50)
        slow.append(s)
    time.sleep(1)
    assert rss(d) < before + 20 * (4 << 20) + ASAN_KEEPS, "twenty readers with fifty answers of a megabyte each"
    assert d.request("GET", "/v1.0/healthz").status == 204
    for s in slow:
        s.close()


def test_peers_that_write_slowly_hold_nobody_up(d):
    slow = []
    for _ in range(100):
        s = socket.create_connection(("127.0.0.1", d.http), 5)
        s.sendall(b"POST /v1.0/state/store HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n[")
        slow.append(s)
    for _ in range(20):
        assert d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1}]).status == 204
    for s in slow:
        s.close()


# ---- texts that are no UTF-8 ----

def test_metadata_that_is_no_utf8(d):
    bad = b"\xff\xfe"

    def field(n, value):
        return bytes([n << 3 | 2, len(value)]) + value
    entry = field(1, b"key") + field(2, bad)
    publish = field(1, b"pub") + field(2, b"t") + field(3, b"data") + field(5, entry)
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as c:
        call = c.unary_unary("/dapr.proto.runtime.v1.Dapr/PublishEvent", lambda m: m, lambda m: m)
        with pytest.raises(grpc.RpcError) as e:
            call(publish, timeout=5)
        assert e.value.code() == grpc.StatusCode.INTERNAL and "error unmarshalling request" in e.value.details()
        assert call(field(1, b"pub") + field(2, b"t") + field(3, bad), timeout=5) == b""
    got, _ = exchange(d, b"POST /v1.0/publish/pub/t?metadata.x=%ff%fe HTTP/1.1\r\nHost: x\r\nX-Bad: \xff\xfe\r\nContent-Length: 1\r\n\r\n1")
    assert statuses(got)[0] in (204, 400)
    assert d.request("GET", "/v1.0/healthz").status == 204


def test_extended_metadata_has_a_limit(daprd):
    d = daprd()
    put = b"PUT /v1.0/metadata/key%d HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n%s\r\nv"
    got = b"".join(exchange(d, b"".join(put % (i, b"connection: close\r\n" if i % 400 == 399 else b"") for i in range(at, at + 400)), 30)[0]
                   for at in range(0, 10400, 400))
    assert 9900 < got.count(b"HTTP/1.1 204") <= 10000 and got.count(b"there are 10000 keys already") == 10400 - got.count(b"HTTP/1.1 204"), got[-500:]
    assert d.request("PUT", "/v1.0/metadata/key1", "w").status == 204 and d.metadata()["extended"]["key1"] == "w"


def test_extended_metadata_has_a_limit_in_bytes(daprd):
    d = daprd()
    answers = [d.request("PUT", f"/v1.0/metadata/big{i}", "v" * (1 << 20)) for i in range(5)]
    assert [a.status for a in answers] == [204, 204, 204, 500, 500], answers
    assert b"would take more than 4194304 bytes" in answers[4].body
    assert d.request("PUT", "/v1.0/metadata/big0", "w").status == 204 and d.request("PUT", "/v1.0/metadata/big4", "v" * (1 << 20)).status == 204
