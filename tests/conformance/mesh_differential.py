"""The same odd requests and answers through four pairs of sidecars (this one and the reference's, each calling each): what the app is sent
and what the client gets must be the same. OTHER_DAPRD = path of the reference's daprd; skipped without it."""
import gzip, hashlib, os, re, socket, socketserver, sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, Web, wait_until
from test_mesh import name

OTHER = os.environ.get("OTHER_DAPRD", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to call and be called by")
PAIRS = [("other", "ours"), ("ours", "other"), ("ours", "ours")]  # compared with ("other", "other")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LIMIT_S = 8


def digest(body):
    return body if len(body) < 600 else f"{len(body)} bytes, {hashlib.blake2b(body, digest_size=8).hexdigest()}"


class Message:
    """One message of HTTP/1.1, read from a file: .first (line), .headers (pairs), .body, .trailers, .fault (why it has no end)."""

    def __init__(self, f, bodyless=False, take_body=True):
        self.first, self.headers, self.body, self.trailers, self.fault = f.readline().rstrip(b"\r\n"), [], b"", [], ""
        self.headers = self.fields(f)
        if take_body and not bodyless:
            self.read_body(f)

    def fields(self, f):
        out = []
        while (line := f.readline().rstrip(b"\r\n")):
            k, _, v = line.partition(b":")
            out.append((k.decode().lower(), v.decode("latin-1").strip()))
        return out

    def get(self, key):
        return next((v for k, v in self.headers if k == key), None)

    def read_body(self, f):
        if self.get("transfer-encoding") == "chunked":
            while True:
                line = f.readline()
                if not line:
                    self.fault = "broken off"
                    return
                n = int(line.split(b";")[0], 16)
                if not n:
                    break
                piece = f.read(n)
                self.body += piece
                if len(piece) < n or f.readline() != b"\r\n":
                    self.fault = "broken off"
                    return
            self.trailers = self.fields(f)
        elif self.get("content-length") is not None:
            n = int(self.get("content-length"))
            self.body = f.read(n)
            self.fault = "" if len(self.body) == n else "broken off"
        elif self.first.startswith(b"HTTP/"):
            self.body = f.read()


class RawApp(Web):
    """Answers with .answer: bytes, or fn(reader, socket, head) that does it all. What came is in .got."""

    def __init__(self):
        self.got, self.answer, self.take_body, app = [], OK, True, self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    while self.one():
                        pass
                except OSError:
                    pass

            def one(self):
                m = Message(self.rfile, take_body=False)
                if not m.first:
                    return False
                if app.take_body:
                    m.read_body(self.rfile)
                if m.first.startswith(b"GET /dapr/"):
                    self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    return True
                app.got.append(m)
                if callable(app.answer):
                    return app.answer(self.rfile, self.request, m)
                self.wfile.write(app.answer)
                return b"\r\nConnection: close" not in app.answer
        super().__init__(Handler)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """.app, and {kind: sidecar} as .callers and .callees."""
    class World:
        pass
    w = World()
    w.app, w.callers, w.callees = RawApp(), {}, {}
    made = []

    def start(kind, role, *args):
        folder = tmp_path_factory.mktemp(f"{kind}-{role}")
        d = Daprd(folder, app_id=name(f"{kind}-{role}"), args=args)
        if kind == "other":
            d.argv[0] = OTHER
            d.env |= {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
        made.append(d)
        return d.start()
    try:
        for kind in ("ours", "other"):
            w.callees[kind] = start(kind, "callee", f"--app-port={w.app.port}")
            w.callers[kind] = start(kind, "caller")
        for d in w.callees.values():
            wait_until("the app is known", lambda: "application discovered" in d.log())
        yield w
    finally:
        for d in made:
            d.close()
        w.app.close()


# ---- the cases: name -> (request after "METHOD path", the app's answer, options) ----

def answer(status, *lines, body=b"", length=True):
    head = [f"HTTP/1.1 {status}", *lines] + ([f"Content-Length: {len(body)}"] if length else [])
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def post(body, *lines, path="/m", verb="POST", length=True):
    return verb, path, lines + ((f"Content-Length: {len(body)}",) if length else ()), body


def get(path="/m", *lines, verb="GET"):
    return verb, path, lines, b""


def broken_answer(head, body):
    def act(reader, sock, m):
        sock.sendall(head + body)
        return False
    return act


def early(status):
    """The answer goes out before the body is read; the rest of it is then taken."""
    def act(reader, sock, m):
        sock.sendall(answer(status, "Connection: close", body=b"enough"))
        sock.settimeout(3)
        try:
            while reader.read1(65536):
                pass
        except OSError:
            pass
        return False
    return act


def interim(*first):
    def act(reader, sock, m):
        for line in first:
            sock.sendall(line)
        sock.sendall(OK)
        return True
    return act


ZIPPED = gzip.compress(b"packed " * 100, mtime=0)
CHUNKED = "Transfer-Encoding: chunked"
CASES = {
    "get": (get(), OK),
    "get with an empty body": (post(b"", verb="GET"), OK),
    "get with a body": (post(b"body", verb="GET"), OK),
    "delete with a body": (post(b"body", verb="DELETE"), OK),
    "post without a length": (post(b"", length=False), OK),
    "post of nothing": (post(b""), OK),
    "chunked": (post(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", CHUNKED, length=False), OK),
    "chunked, empty": (post(b"0\r\n\r\n", CHUNKED, length=False), OK),
    "chunked with trailers": (post(b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n", CHUNKED, "Trailer: x-sum", length=False), OK),
    "head": (get(verb="HEAD"), answer("200 OK", "Content-Length: 1234", "x-a: b", length=False)),
    "head of what is not": (get(verb="HEAD"), answer("404 Not Found", "Content-Length: 12", length=False)),
    "options": (get(verb="OPTIONS"), answer("204 No Content", "Allow: GET, POST", length=False)),
    "options, cors": (get("/m", "Origin: http://x.test", "Access-Control-Request-Method: PUT", verb="OPTIONS"), OK),
    "trace": (get(verb="TRACE"), OK),
    "patch": (post(b"{}", "Content-Type: application/merge-patch+json", verb="PATCH"), OK),
    "odd content type": (post(b"x", 'Content-Type: multipart/form-data; boundary="a b"; x=é'), answer("200 OK", "Content-Type: a/b; charset=x; q=\"1;2\"", body=b"x")),
    "no content type": (post(b"x"), answer("200 OK", body=b"<html>x")),
    "empty content type": (post(b"x", "Content-Type:"), OK),
    "two content types": (post(b"x", "Content-Type: a/b", "Content-Type: c/d"), OK),
    "query": (get("/m?a=b&a=c&empty=&none&enc=%26%3D%2B%20+&utf=%C3%A9&br[]=1&semi=1;2&q=a?b"), OK),
    "query, raw utf-8": (get("/m?a=\xe9\u00a0"), OK),
    "query, bad escape": (get("/m?a=%zz&b=%"), OK),
    "query of odd characters": (get("/m?a=\"<>`{}|^\\'~!*()"), OK),
    "empty query": (get("/m?"), OK),
    "encoded slash": (get("/a%2Fb"), OK),
    "encoded percent": (get("/a%252Fb"), OK),
    "encoded space and plus": (get("/a%20b+c"), OK),
    "encoded utf-8": (get("/%E2%82%AC/%C3%A9"), OK),
    "encoded latin-1": (get("/%E9"), OK),
    "odd characters in the path": (get("/a;b=c,d/e:f@g&h=i$j!k'(l)*~"), OK),
    "quotes and braces in the path": (get("/a\"b{c}d|e^f`g<h>"), OK),
    "encoded quotes and braces": (get("/a%22b%7Bc%7D%7Cd%5Ee%60f%3Cg%3E%5B%5D"), OK),
    "double slash": (get("/a//b"), OK),
    "trailing slash": (get("/a/"), OK),
    "dots": (get("/a/./b/../c"), OK),
    "encoded dots": (get("/a/%2e%2e/c"), OK),
    "only dots": (get("/.."), OK),
    "no method": (get("/"), OK),
    "method in the method": (get("/a/method/b"), OK),
    "bad escape in the path": (get("/a%zzb"), OK),
    "semicolon and equals": (get("/a;v=1/b"), OK),
    "fragment": (get("/a#b"), OK),
    "long path": (get("/" + "a" * 3000), OK),
    "repeated headers": (get("/m", "x-a: 1", "X-A: 2", "x-a: 1", "x-b: 1, 2"), answer("200 OK", "x-c: 1", "X-C: 2", "x-d: a, b", body=b"x")),
    "cookies": (get("/m", "Cookie: a=1; b=2", "Cookie: c=3"), answer("200 OK", "Set-Cookie: a=1; Path=/; Expires=Wed, 21 Oct 2099 07:28:00 GMT", "Set-Cookie: b=2", body=b"x")),
    "empty header value": (get("/m", "x-e:"), answer("200 OK", "x-f:", body=b"x")),
    "header of latin-1": (get("/m", "x-l: \xe9\xff"), answer("200 OK", "x-m: \xe9", body=b"x")),
    "header of utf-8": (get("/m", "x-l: \u00c3\u00a9"), answer("200 OK", "x-m: \u00c3\u00a9", body=b"x")),
    "header with a tab": (get("/m", "x-t: a\tb"), answer("200 OK", "x-u: a\tb", body=b"x")),
    "odd header names": (get("/m", "x_under: 1", "x.dot: 2", "x!#$%&'*+^`|~: 3", "9: 4"), answer("200 OK", "y_under: 1", "y.dot: 2", "y!#$%&'*+^`|~: 3", body=b"x")),
    "long header": (get("/m", "x-long: " + "v" * 3000), answer("200 OK", "x-long: " + "w" * 3000, body=b"x")),
    "very long answer header": (get(), answer("200 OK", "x-long: " + "w" * 60000, body=b"x")),
    "many headers": (get("/m", *(f"x-n{i}: {i}" for i in range(60))), answer("200 OK", *(f"x-n{i}: {i}" for i in range(60)), body=b"x")),
    "binary header name": (get("/m", "x-a-bin: AAE="), answer("200 OK", "x-b-bin: AAE=", body=b"x")),
    "grpc header names": (get("/m", "grpc-timeout: 1S", "grpc-x: 1", "grpc-encoding: gzip"), answer("200 OK", "grpc-status: 3", "grpc-x: 1", body=b"x")),
    "dapr header names": (get("/m", "dapr-x: 1", "dapr-api-token: t", "destination-app-id: d"), answer("200 OK", "dapr-x: 1", "dapr-api-token: t", body=b"x")),
    "hop by hop": (get("/m", "Connection: x-hop, keep-alive", "x-hop: 1", "Keep-Alive: 5", "TE: trailers", "Upgrade: foo", "Proxy-Authorization: a", "Proxy-Connection: x", "Trailer: x"),
                   answer("200 OK", "Connection: x-hop", "x-hop: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: a", "Upgrade: foo", "Trailer: x", body=b"x")),
    "permanent headers": (get("/m", "Accept: a/b", "Accept-Language: de", "Cache-Control: no-cache", "Date: Wed, 21 Oct 2099 07:28:00 GMT", "From: a@b", "If-Match: \"x\"", "If-None-Match: *",
                              "Max-Forwards: 3", "Origin: http://o", "Pragma: p", "Referer: http://r", "Via: 1.1 v", "Warning: 199 - w", "User-Agent: u", "Range: bytes=0-1"),
                          answer("206 Partial Content", "Content-Range: bytes 0-1/5", "ETag: \"e\"", "Last-Modified: Wed, 21 Oct 2020 07:28:00 GMT", "Server: s", "Vary: *", "Via: 1.1 w", body=b"ab")),
    "no user agent": (get("/m"), OK),
    "authorization": (get("/m", "Authorization: Bearer abc"), answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"", body=b"who")),
    "authorization, basic": (get("/m", "Authorization: Basic YTpi"), OK),
    "forwarded": (get("/m", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: h", "X-Forwarded-Proto: https", "Forwarded: for=1.2.3.4"), OK),
    "host": (get("/m", "Host: other.test"), OK),
    "gzip asked for and given": (get("/m", "Accept-Encoding: gzip"), answer("200 OK", "Content-Encoding: gzip", "Content-Type: text/plain", body=ZIPPED)),
    "gzip given unasked": (get("/m"), answer("200 OK", "Content-Encoding: gzip", "Content-Type: text/plain", body=ZIPPED)),
    "gzip given unasked, chunked": (get("/m"), answer("200 OK", "Content-Encoding: gzip", CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(ZIPPED), ZIPPED), length=False)),
    "gzip that is none": (get("/m"), answer("200 OK", "Content-Encoding: gzip", body=b"not gzip")),
    "gzip of two parts": (get(), answer("200 OK", "Content-Encoding: gzip", body=ZIPPED + ZIPPED)),
    "GZIP given": (get(), answer("200 OK", "Content-Encoding: GZIP", "Vary: Accept-Encoding", "ETag: \"z\"", body=ZIPPED)),
    "gzip, twice": (get(), answer("200 OK", "Content-Encoding: gzip, gzip", body=ZIPPED)),
    "gzip, twice by lines": (get(), answer("200 OK", "Content-Encoding: gzip", "Content-Encoding: gzip", body=ZIPPED)),
    "x-gzip": (get(), answer("200 OK", "Content-Encoding: x-gzip", body=ZIPPED)),
    "gzip, not asked for by name": (get("/m", "Accept-Encoding: identity"), answer("200 OK", "Content-Encoding: gzip", body=ZIPPED)),
    "gzip, empty header": (get("/m", "Accept-Encoding:"), answer("200 OK", "Content-Encoding: gzip", body=ZIPPED)),
    "gzip, posted": (post(b"x"), answer("200 OK", "Content-Encoding: gzip", body=ZIPPED)),
    "gzip of an error": (get(), answer("500 Oops", "Content-Encoding: gzip", "Content-Type: text/plain", body=ZIPPED)),
    "gzip of a redirect": (get(), answer("302 Found", "Location: /x", "Content-Encoding: gzip", body=ZIPPED)),
    "gzip of a range": (get("/m", "Range: bytes=0-1"), answer("206 Partial Content", "Content-Encoding: gzip", body=ZIPPED[:9])),
    "gzip of nothing": (get(), answer("200 OK", "Content-Encoding: gzip")),
    "gzip of nothing, chunked": (get(), answer("200 OK", "Content-Encoding: gzip", CHUNKED, body=b"0\r\n\r\n", length=False)),
    "gzip and 204": (get(), answer("204 No Content", "Content-Encoding: gzip", length=False)),
    "gzip and 304": (get(), answer("304 Not Modified", "Content-Encoding: gzip", "Content-Length: 10", length=False)),
    "gzip to the end": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", ZIPPED)),
    "gzip, 3 MB": (get(), answer("200 OK", "Content-Encoding: gzip", body=gzip.compress(bytes(range(256)) * 12000, mtime=0))),
    "gzip over the limit": (get(), answer("200 OK", "Content-Encoding: gzip", body=gzip.compress(b"0" * 20_000_000, mtime=0))),
    "gzip with more behind it": (get(), answer("200 OK", "Content-Encoding: gzip", body=ZIPPED + b"more")),
    "gzip, cut short": (get(), answer("200 OK", "Content-Encoding: gzip", body=ZIPPED[:-9])),
    "gzip of an sse": (get("/m", "Accept: text/event-stream"), answer("200 OK", "Content-Type: text/event-stream", "Content-Encoding: gzip", body=gzip.compress(b"data: 1\n\n", mtime=0))),
    "deflate given": (get("/m", "Accept-Encoding: deflate, br;q=0.5"), answer("200 OK", "Content-Encoding: br", body=b"pretend")),
    "gzip refused": (get("/m", "Accept-Encoding: identity"), OK),
    "gzip body sent": (post(ZIPPED, "Content-Encoding: gzip"), OK),
    "gzip and range": (get("/m", "Range: bytes=0-1"), OK),
    "head and gzip": (get(verb="HEAD"), answer("200 OK", "Content-Encoding: gzip", "Content-Length: 99", length=False)),
    "expect": (post(b"body", "Expect: 100-continue"), OK, {"waits": True}),
    "expect, large": (post(b"x" * 300_000, "Expect: 100-continue"), OK, {"waits": True}),
    "expect, refused": (post(b"body", "Expect: 100-continue"), answer("417 Expectation Failed", "Connection: close", body=b"no"), {"waits": True}),
    "expect something else": (post(b"body", "Expect: tea"), OK),
    "interim 100": (post(b"body"), interim(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "interim 102 and 103": (get(), interim(b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")),
    "six interim": (get(), interim(*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 6)),
    "204": (get(), answer("204 No Content", "x-a: b", length=False)),
    "204 with a length": (get(), answer("204 No Content", "Content-Length: 0", length=False)),
    "204 with a body": (get(), answer("204 No Content", "Connection: close", body=b"body")),
    "205": (get(), answer("205 Reset Content")),
    "304": (get("/m", "If-None-Match: \"e\""), answer("304 Not Modified", "ETag: \"e\"", length=False)),
    "304 with a length": (get(), answer("304 Not Modified", "Content-Length: 10", length=False)),
    "304 with a body": (get(), answer("304 Not Modified", "Connection: close", body=b"body")),
    "300": (get(), answer("300 Multiple Choices", body=b"pick")),
    "301": (get(), answer("301 Moved Permanently", "Location: /elsewhere", body=b"gone")),
    "302 absolute": (post(b"x"), answer("302 Found", "Location: http://127.0.0.1:1/x", body=b"there")),
    "307": (post(b"x"), answer("307 Temporary Redirect", "Location: /n", body=b"")),
    "308": (post(b"x"), answer("308 Permanent Redirect", "Location: //h/n", body=b"")),
    "399": (get(), answer("399 Odd", body=b"odd")),
    "400": (get(), answer("400 Bad Request", "Content-Type: text/x", "x-a: b", body=b"bad")),
    "404 without a body": (get(), answer("404 Not Found", "x-a: b")),
    "404 without a length": (get(), broken_answer(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n", b"till the end")),
    "429": (get(), answer("429 Too Many Requests", "Retry-After: 3", body=b"slow")),
    "451": (get(), answer("451 Unavailable For Legal Reasons", body=b"law")),
    "500": (post(b"x"), answer("500 Internal Server Error", "Content-Type: application/json", body=b'{"e":1}')),
    "503": (get(), answer("503 Service Unavailable", "Retry-After: 1", body=b"later")),
    "599": (get(), answer("599 Odd", body=b"odd")),
    "600": (get(), answer("600 Odd", body=b"odd")),
    "999": (get(), answer("999 Odd", body=b"odd")),
    "no reason": (get(), b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
    "http/1.0 answer": (get(), broken_answer(b"HTTP/1.0 200 OK\r\nx-a: b\r\n\r\n", b"till the end")),
    "answer without a length": (get(), broken_answer(b"HTTP/1.1 200 OK\r\n\r\n", b"till the end")),
    "answer, chunked": (get(), answer("200 OK", CHUNKED, body=b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n", length=False)),
    "answer of 0 bytes": (get(), answer("200 OK")),
    "answer of 100 kB": (get(), answer("200 OK", body=b"x" * 100_000)),
    "cut short by length": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"short")),
    "cut short by length, long": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", b"x" * 100000)),
    "cut short in a chunk": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nabc")),
    "cut short between chunks": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n")),
    "cut short in the head": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nx-a", b"")),
    "no answer": (get(), broken_answer(b"", b"")),
    "no answer to a post": (post(b"x"), broken_answer(b"", b"")),
    "not http": (get(), broken_answer(b"SSH-2.0-x\r\n", b"")),
    "two lengths": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", b"okk")),
    "bad length": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"ok")),
    "bad chunk": (get(), broken_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\nabc")),
    "answers before the body, small": (post(b"x" * 1000), early("403 Forbidden"), {"unread": True}),
    "answers before the body, large": (post(b"x" * 3_000_000), early("413 Too Large"), {"unread": True}),
    "answers 200 before the body, large": (post(b"x" * 3_000_000), early("200 OK"), {"unread": True}),
    "over the limit": (post(b"x" * 5_000_000), OK),
    "over the limit, chunked": (post(b"%x\r\n" % 5_000_000 + b"x" * 5_000_000 + b"\r\n0\r\n\r\n", CHUNKED, length=False), OK),
    "sse": (get("/m", "Accept: text/event-stream"), answer("200 OK", "Content-Type: text/event-stream", CHUNKED, body=b"9\r\ndata: 1\n\n\r\n0\r\n\r\n", length=False)),
    "sse that fails": (get("/m", "Accept: text/event-stream"), answer("500 Oops", body=b"no")),
    "sse answered by json": (get("/m", "Accept: text/event-stream"), answer("200 OK", "Content-Type: application/json", body=b"{}")),
    "by header": (("GET", "/x/y?q=1", (), b""), OK, {"by": "header"}),
    "by header, dots": (("GET", "/x/../y//z/?q=1", (), b""), OK, {"by": "header"}),
    "by header, encoded": (("GET", "/x%2Fy%20z", (), b""), OK, {"by": "header"}),
    "by basic user": (("GET", "/x/y", (), b""), OK, {"by": "basic"}),
    "no such verb": (get(verb="PROPFIND"), OK),
    "connect": (get(verb="CONNECT"), OK),
    "lower-case verb": (get(verb="get"), OK),
}


# What differs, and why it may: (case, fact, reason) as regular expressions.
KNOWN = [
    (".*", r"\.app\[0\]\.headers\.(accept-encoding|user-agent)", "nobody asks the app for gzip, or names a browser, behind the client's back"),
    ("post (without|of).*|chunked.*|no such verb", r"\.app\[0\]\.headers\.length", "a body that is there as a whole gets its length"),
    ("head.*", r"\.client\.headers\.length", "between two of ours the app's Content-Length comes through"),
    ("cut short .*", r"\.client\.fault", "and the client is told that an answer was broken off"),
    ("bad chunk", r"\.client\..*", "the head of a chunked answer goes out before its first chunk has come"),
    ("odd content type|query, raw utf-8|.*latin-1", ".*", "bytes that are no UTF-8 come through between two of ours"),
    ("cut short in the head|not http|two lengths|bad length", r"\.client\.body", "an answer that is not HTTP is not described further"),
    ("gzip that is none|gzip with more behind it|gzip, cut short", r"\.client\..*", "what cannot be unpacked is an answer broken off"),
    ("expect something else|connect", r"\.client\..*", "refused in other words"),
    ("lower-case verb", ".*", "methods of no RFC are refused"),
]


def is_known(case, fact):
    return any(re.fullmatch(c, case) and re.fullmatch(f, fact) for c, f, _ in KNOWN)


def exchange(d, target, case, case_id):
    """The client's side of a case."""
    import base64
    (verb, path, lines, body), _, *more = case
    options = more[0] if more else {}
    how = options.get("by")
    lines = list(lines) + [f"x-case: {case_id}"]
    if not how:
        path = f"/v1.0/invoke/{target}/method{path}"
    elif how == "header":
        lines.append(f"dapr-app-id: {target}")
    else:
        lines.append("Authorization: Basic " + base64.b64encode(f"dapr-app-id:{target}".encode()).decode())
    if not any(x.lower().startswith("host:") for x in lines):
        lines.append("Host: client.test")
    head = "\r\n".join([f"{verb} {path} HTTP/1.1", *lines]).encode("latin-1") + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", d.http), LIMIT_S) as s:
        s.settimeout(LIMIT_S)
        f = s.makefile("rb")
        try:
            s.sendall(head if options.get("waits") else head + body)
        except OSError:
            pass  # refused early: the answer tells
        interim = []
        while True:
            try:
                m = Message(f, bodyless=verb == "HEAD", take_body=False)
                if m.first[9:10] == b"1" and m.first[9:12] != b"101":
                    interim.append(m.first[9:12].decode())
                    if options.get("waits") and m.first[9:12] == b"100":
                        s.sendall(body)
                    continue
                if verb != "HEAD" and m.first[9:12] not in (b"204", b"304", b"101"):
                    m.read_body(f)
            except (OSError, ValueError) as e:
                return {"failed": type(e).__name__}
            return {"interim": interim, "message": m}


DROPPED = {"date", "traceparent", "tracestate", "connection", "content-length", "transfer-encoding", "keep-alive", "x-case"}


def clean(text, w):
    for group in (w.callers, w.callees):
        for kind, d in group.items():
            text = text.replace(d.app_id, "ID").replace(f"127.0.0.1:{d.internal}", "ADDR").replace(f":{d.http}", ":HTTP")
    text = re.sub(r"127\.0\.0\.1:\d+(->127\.0\.0\.1:\d+)?", "ADDR", text)
    return text


def seen(m, w, framing):
    if m is None:
        return None
    headers = sorted((k, clean(v, w)) for k, v in m.headers if k not in DROPPED and not v.startswith("Basic ZGFwc"))
    length = [("length", m.get("content-length"))] if framing else []
    return {"first": clean(m.first.decode("latin-1"), w), "headers": headers + length, "body": digest(clean(m.body.decode("latin-1"), w).encode("latin-1")),
            "trailers": m.trailers, "fault": m.fault}


def outcome(w, pair, case):
    caller, callee = w.callers[pair[0]], w.callees[pair[1]]
    w.app.got, w.app.answer, w.app.take_body = [], case[1], not (len(case) > 2 and case[2].get("unread"))
    case_id = name("case")
    r = exchange(caller, callee.app_id, case, case_id)
    got = [m for m in w.app.got if m.get("x-case") == case_id and not m.fault]  # others come late, of a case before
    out = {"app": [seen(m, w, True) for m in got]}
    if "message" in r:
        m = r["message"]
        out |= {"interim": r["interim"], "client": seen(m, w, False)}
        out["client"]["first"] = out["client"]["first"][9:12]
        if case[0][0] == "HEAD":
            out["client"]["headers"].append(("length", m.get("content-length")))
    else:
        out |= r
    return out


def flat(x, at=""):
    if isinstance(x, dict):
        return {k: v for name, y in x.items() for k, v in flat(y, f"{at}.{name}").items()}
    if isinstance(x, list) and at.endswith(".app"):
        return {at + ".requests": len(x)} | {k: v for i, y in enumerate(x) for k, v in flat(y, f"{at}[{i}]").items()}
    if isinstance(x, list) and at.endswith(".headers"):
        out = {}
        for k, v in x:
            out.setdefault(f"{at}.{k}", []).append(v)
        return out
    return {at: x}


def differences(case, want, got):
    a, b = flat(want), flat(got)
    return {k: (a.get(k, "none"), b.get(k, "none")) for k in sorted(a.keys() | b.keys()) if a.get(k, "none") != b.get(k, "none") and not is_known(case, k)}


@pytest.mark.parametrize("case", CASES)
def test_same_as_the_reference(world, case):
    want = outcome(world, ("other", "other"), CASES[case])
    found = {}
    for pair in PAIRS:
        if diff := differences(case, want, outcome(world, pair, CASES[case])):
            found[pair] = diff
    text = "\n".join(f"{'->'.join(p)}: {k}: reference {a!r}, here {b!r}" for p, d in found.items() for k, (a, b) in d.items())
    assert not found, text
