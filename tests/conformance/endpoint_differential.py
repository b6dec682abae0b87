"""HTTPEndpoints and URLs: the same calls of servers outside by this sidecar and by the reference's; what the server is sent and what the
client gets must be the same. OTHER_DAPRD = path of the reference's daprd; skipped without it."""
import json, os, re, socketserver, ssl, sys, threading

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd
from mesh_differential import CASES as OF_APPS
from mesh_differential import OK, OTHER, Message, RawApp, answer, early, exchange, flat, get, interim, post, seen, broken_answer
from test_endpoints import pki  # noqa: F401 (a fixture)
from test_mesh import name

pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to compare with")


def resource(kind, name_, spec, **more):
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": kind, "metadata": {"name": name_}, "spec": spec, **more})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    class World:
        pass
    w = World()
    w.a, w.b, w.daprds, made = RawApp(), RawApp(), {}, []
    w.callers, w.callees = w.daprds, {}
    base, secrets = f"http://127.0.0.1:{w.a.port}", tmp_path_factory.mktemp("secrets") / "secrets.json"
    secrets.write_text('{"token": "of a secret"}')
    resources = [resource("HTTPEndpoint", "site", {"baseUrl": base + "/base", "headers": [{"name": "x-key", "value": "v"}, {"name": "Accept-Language", "value": "de"}]}),
                 resource("HTTPEndpoint", "root", {"baseUrl": base}), resource("HTTPEndpoint", "slash", {"baseUrl": base + "/"}),
                 resource("HTTPEndpoint", "query", {"baseUrl": base + "/q?fixed=1"}),
                 resource("HTTPEndpoint", "flaky", {"baseUrl": base + "/flaky"}), resource("HTTPEndpoint", "slow", {"baseUrl": base + "/slow"}),
                 resource("HTTPEndpoint", "gone", {"baseUrl": "http://127.0.0.1:9"}), resource("HTTPEndpoint", "nowhere", {"baseUrl": "http://no.such.host.invalid"}),
                 resource("HTTPEndpoint", "secret", {"baseUrl": base, "headers": [{"name": "x-secret", "secretKeyRef": {"name": "token", "key": "token"}}, {"name": "x-b", "value": "b"}]}, auth={"secretStore": "file"}),
                 resource("HTTPEndpoint", "nosecret", {"baseUrl": base, "headers": [{"name": "x-secret", "secretKeyRef": {"name": "none", "key": "none"}}]}, auth={"secretStore": "file"}),
                 resource("Component", "file", {"type": "secretstores.local.file", "version": "v1", "metadata": [{"name": "secretsFile", "value": str(secrets)}]}),
                 resource("Resiliency", "r", {"policies": {"retries": {"again": {"policy": "constant", "duration": "10ms", "maxRetries": 2}}, "timeouts": {"short": "300ms"}},
                                              "targets": {"apps": {"flaky": {"retry": "again"}, "slow": {"timeout": "short"}}}})]
    try:
        for kind in ("ours", "other"):
            folder = tmp_path_factory.mktemp(kind)
            d = Daprd(folder, resources, app_id=name(kind), args=[f"--app-port={w.a.port}"])
            if kind == "other":
                d.argv[0] = OTHER
                d.env |= {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
            made.append(d)
            w.daprds[kind] = d.start()
        yield w
    finally:
        for d in made:
            d.close()
        w.a.close()
        w.b.close()


def moved(status, to="/base/new", then=OK, **headers):
    """A redirect at the first path, an answer everywhere else."""
    def act(reader, sock, m):
        first = b"/new" not in m.first and b"/end" not in m.first
        sock.sendall(answer(f"{status} Moved", f"Location: {to}", *(f"{k}: {v}" for k, v in headers.items()), body=b"moved") if first else then)
        return True
    return act


def fails(times, status="503 Unavailable"):
    tries = {}

    def act(reader, sock, m):
        n = tries[m.get("x-case")] = tries.get(m.get("x-case"), 0) + 1
        sock.sendall(answer(status, f"x-try: {n}", body=b"no") if n <= times else OK)
        return True
    return act


def never(reader, sock, m):
    sock.settimeout(3)
    try:
        sock.recv(1)
    except OSError:
        pass
    return False


def closes_at_rest(reader, sock, m):
    sock.sendall(OK)
    return False


def slow_body(reader, sock, m):
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    return never(reader, sock, m)


AUTH = ("Authorization: Bearer secret", "Cookie: a=1", "x-own: 1")
# name -> (request, the server's answer, options): target: of the invocation (default "site"); A and B stand for the two servers
CASES = {
    "get": (get("/m?q=1"), OK), "post": (post(b"body", "Content-Type: a/b"), OK), "put empty": (post(b"", verb="PUT"), OK), "delete": (get(verb="DELETE"), OK),
    "own headers": (get("/m", "x-key: forged", "Accept-Language: fr", "x-in: i"), OK),
    "dots": (get("/a/../b"), OK), "up and out": (get("/../../b"), OK), "encoded slash": (get("/a%2Fb"), OK), "encoded space": (get("/a%20b?x=%20"), OK),
    "no method": (get("/"), OK), "root": (get("/m"), OK, {"target": "root"}), "root, no method": (get("/"), OK, {"target": "root"}),
    "base with a slash": (get("/m"), OK, {"target": "slash"}), "base with a query": (get("/m?a=b"), OK, {"target": "query"}),
    "chunked": (post(b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), OK),
    "gzip": (get("/m", "Accept-Encoding: gzip"), OK), "user agent": (get("/m", "User-Agent: me"), OK), "host": (get("/m", "Host: other"), OK),
    "forwarded": (get("/m", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4"), OK),
    "hop by hop": (get("/m", "Connection: x-hop", "x-hop: 1", "TE: trailers"), answer("200 OK", "Connection: x-hop", "x-hop: 1", "Keep-Alive: 1", body=b"x")),
    "404": (get(), answer("404 Not Found", "x-a: b", body=b"none")), "500": (post(b"x"), answer("500 Oops", "Content-Type: a/b", body=b"oops")),
    "204": (get(), answer("204 No Content", length=False)), "304": (get(), answer("304 Not Modified", "ETag: x", length=False)),
    "no answer": (get(), broken_answer(b"", b"")), "not http": (get(), broken_answer(b"SSH\r\n", b"")),
    "early hints": (get(), interim(b"HTTP/1.1 103 Early Hints\r\n\r\n")), "early answer": (post(b"x" * 100), early("403 Forbidden"), {"unread": True}),
    "sse": (get("/m", "Accept: text/event-stream"), answer("200 OK", "Content-Type: text/event-stream", body=b"data: 1\n\n")),
    "sse that fails": (get("/m", "Accept: text/event-stream"), answer("500 Oops", body=b"no")),
    "302 without a place": (get(), answer("302 Found", body=b"x")), "302 to nowhere": (get(), answer("302 Found", "Location: ://", body=b"x")),
    "302 to ftp": (get(), answer("302 Found", "Location: ftp://x/y", body=b"x")), "300": (get(), moved(300)), "305": (get(), moved(305)),
    "302, own path": (get(), moved(302, "new")), "302, with a query": (get("/m?a=b"), moved(302, "/base/new?c=d")), "302, only a query": (get(), moved(302, "?new=/new")),
    "302, fragment": (get(), moved(302, "/base/new#frag")), "302, dots": (get("/a/b"), moved(302, "../new")),
    "302, failing": (get(), moved(302, then=answer("404 Not Found", body=b"none"))), "302, cookies": (get("/m", *AUTH), moved(302, **{"Set-Cookie": "b=2"})),
    "302, another server": (get("/m", *AUTH), moved(302, "http://127.0.0.1:B/new"), {"b": OK}),
    "307, another server": (post(b"body", *AUTH, "Content-Type: a/b"), moved(307, "http://127.0.0.1:B/new"), {"b": OK}),
    "302, another name": (get("/m", *AUTH), moved(302, "http://localhost:B/new"), {"b": OK}),
    "302, there and back": (get("/m", *AUTH), moved(302, "http://127.0.0.1:B/x"), {"b": answer("302 Found", "Location: http://127.0.0.1:A/end")}),
    "302, gone": (get(), moved(302, "http://127.0.0.1:9/new")), "302, https": (get(), moved(302, "https://127.0.0.1:9/new")),
    "loop": (get(), answer("302 Found", "Location: /base/m")),
    "chunked 307": (post(b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), moved(307)),
    "chunked 302": (post(b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), moved(302)),
    "large 307": (post(b"x" * 2_000_000), moved(307)), "301 of a URL": (get(), moved(301, "/new"), {"target": "http://127.0.0.1:A"}),
    "url": (get("/m?q=1"), OK, {"target": "http://127.0.0.1:A"}), "url with a path": (get("/m"), OK, {"target": "http://127.0.0.1:A/p/q"}),
    "url, escaped": (get("/m"), OK, {"target": "http%3A%2F%2F127.0.0.1%3AA"}), "url, one slash": (get("/m"), OK, {"target": "http:/127.0.0.1:A"}),
    "url by header": (("GET", "/x/y?q=1", (), b""), OK, {"target": "http://127.0.0.1:A", "by": "header"}),
    "url of nobody": (get(), OK, {"target": "http://127.0.0.1:9"}), "url without a host": (get(), OK, {"target": "http://"}), "url, bad port": (get(), OK, {"target": "http://127.0.0.1:x"}),
    "url, user": (get(), OK, {"target": "http://u:p@127.0.0.1:A"}), "url, upper case": (get(), OK, {"target": "HTTP://127.0.0.1:A"}),
    "method is a url": (get("/http://127.0.0.1:A/x"), OK, {"target": "root"}),
    "name by header": (("GET", "/x/y?q=1", (), b""), OK, {"by": "header"}), "name by user": (("GET", "/x", (), b""), OK, {"by": "basic"}),
    "name and namespace": (get(), OK, {"target": "site.default"}), "gone": (get(), OK, {"target": "gone"}), "nowhere": (get(), OK, {"target": "nowhere"}), "posted to nobody": (post(b"x"), OK, {"target": "gone"}),
    "flaky": (post(b"body"), fails(2), {"target": "flaky"}), "flaky to the end": (post(b"body"), fails(3), {"target": "flaky"}), "flaky, large": (post(b"x" * 2_000_000), fails(2), {"target": "flaky"}),
    "flaky, chunked": (post(b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), fails(1), {"target": "flaky"}),
    "slow": (get(), never, {"target": "slow"}),
}
CASES |= {
    "long header": (get(), answer("200 OK", "x-long: " + "w" * 600_000, body=b"x"), {"target": "root"}),
    "302 of a post, gone": (post(b"x"), moved(302, "http://127.0.0.1:9/new")),
    "retried after a redirect": (post(b"body"), fails(1, "302 Found\r\nLocation: /flaky/end"), {"target": "flaky"}),
    "closed at rest": (get(), closes_at_rest, {"times": 3}), "closed at rest, posted": (post(b"body"), closes_at_rest, {"times": 3}),
    "closed at rest, chunked": (post(b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False), closes_at_rest, {"times": 3}),
    "keeps alive": (get(), OK, {"times": 3}), "says close": (get(), answer("200 OK", "Connection: close", body=b"x"), {"times": 3}),
    "trailers": (get(), answer("200 OK", "Transfer-Encoding: chunked", "Trailer: x-sum", body=b"2\r\nab\r\n0\r\nx-sum: 1\r\n\r\n", length=False)),
    "trailers sent": (post(b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n", "Transfer-Encoding: chunked", "Trailer: x-sum", length=False), OK),
    "slow, posted": (post(b"body"), never, {"target": "slow"}), "slow to the end": (get(), slow_body, {"target": "slow"}),
    "header of a secret": (get("/m", "x-secret: mine"), OK, {"target": "secret"}), "secret that is not there": (get(), OK, {"target": "nosecret"}),
}
for status in (301, 302, 303, 307, 308):
    for verb in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        CASES[f"{status} of {verb}"] = (post(b"body", "Content-Type: a/b", verb=verb) if verb in ("POST", "PUT") else get(verb=verb), moved(status))


for kind, target in (("own app", "own"), ("endpoint", "root"), ("url", "http://127.0.0.1:A")):
    for case, (request, answers, *more) in OF_APPS.items():
        CASES[f"{kind}: {case}"] = (request, answers, {**(more[0] if more else {}), "target": target})


def filled(w, text):
    return re.sub(r":A\b|%3AA\b", lambda m: m[0][:-1] + str(w.a.port), re.sub(r":B\b", f":{w.b.port}", text))


def with_ports(w, value):
    """The case's texts with the servers' ports in place of their names."""
    if isinstance(value, bytes):
        return filled(w, value.decode("latin-1")).encode("latin-1")
    if not callable(value):
        return value

    def act(reader, sock, m):
        class Sock:
            def sendall(self, data):
                sock.sendall(with_ports(w, data))

            def __getattr__(self, key):
                return getattr(sock, key)
        return value(reader, Sock(), m)
    return act


def outcome(w, kind, case):
    request, answers, *more = case
    options = more[0] if more else {}
    verb, path, lines, body = request
    w.a.got, w.b.got = [], []
    w.a.answer, w.b.answer = with_ports(w, answers), with_ports(w, options.get("b", OK))
    w.a.take_body = not options.get("unread")
    case_id = name("case")
    target = options.get("target", "site")
    target = w.daprds[kind].app_id if target == "own" else target
    for _ in range(options.get("times", 1)):
        r = exchange(w.daprds[kind], filled(w, target), ((verb, filled(w, path), lines, body), None, options), case_id)

    def clean(x):
        text = json.dumps(x, default=repr).replace(f":{w.a.port}", ":A").replace(f":{w.b.port}", ":B")
        return json.loads(re.sub(r"lookup no\.such\.host\.invalid[^\"\\]*", "lookup", text))
    out = {"app": [seen(m, w, True) for m in w.a.got + w.b.got if not m.fault]}
    if "message" in r:
        out["client"] = seen(r["message"], w, False)
        out["client"]["first"] = out["client"]["first"][9:12]
    else:
        out |= r
    return clean(out)


# What differs, and why it may: (case, fact, reason) as regular expressions.
KNOWN = [
    (".*", r"\.app\[\d\]\.headers\.user-agent", "a name of its own"),
    ("own app: .*", r"\.app\[\d\]\.headers\.accept-encoding", "nobody asks the app for gzip: it would be packed and unpacked on one machine"),
    (".*: gzip (that is none|with more behind it)|.*: gzip, cut short", r"\.client\..*", "what cannot be unpacked is an answer broken off"),
    ("put empty|.*: post (without|of).*", r"\.app\[0\]\.headers\.length", "an empty body has a length"),
    ("no answer", r"\.app.*", "a request that a connection at rest took to its end goes out once more"),
    ("base with a (slash|query)", r"\.app\[0\]\.first", "no double slash, no path behind a query"),
    ("closed at rest.*", ".*", "the reference loses one now and then; here the socket is asked first, or the request goes out once more"),
    ("trailers", r"\.client\.trailers", "they come through"),
    (".*: cut short .*", r"\.client\.fault", "the client is told that an answer was broken off"),
    (".*: bad chunk", r"\.client\..*", "told as what it is"),
    (".*: (expect something else|cut short in the head|not http|two lengths|bad length|over the limit.*)", r"\.client\.(body|headers.content-type)", "told in other words"),
    (".*: (connect|no such verb|lower-case verb)", ".*", "methods of no RFC are refused, the others passed on as they are"),
    ("not http|url without a host|url, bad port|nowhere", r"\.client\.body", "told in other words"),
]


def is_known(case, fact):
    return any(re.fullmatch(c, case) and re.fullmatch(f, fact) for c, f, _ in KNOWN)


@pytest.mark.parametrize("case", CASES)
def test_same_as_the_reference(world, case):
    a, b = flat(outcome(world, "other", CASES[case])), flat(outcome(world, "ours", CASES[case]))
    found = {k: (a.get(k, "none"), b.get(k, "none")) for k in sorted(a.keys() | b.keys()) if a.get(k, "none") != b.get(k, "none") and not is_known(case, k)}
    text = "\n".join(f"ours->: {k}: reference {x!r}, here {y!r}" for k, (x, y) in found.items())
    assert not found, text


# ---- by TLS ----

class TlsServer:
    """Answers each request of one connection after the other with its SNI and its client's certificate; .n counts connections."""

    def __init__(self, context):
        self.names, server = [], self
        context.sni_callback = lambda sock, sni, c: self.names.append(sni)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                try:
                    with context.wrap_socket(self.request, server_side=True) as s:
                        f = s.makefile("rb")
                        while Message(f).first:
                            subject = dict(x[0] for x in (s.getpeercert() or {}).get("subject", ())).get("commonName")
                            s.sendall(answer("200 OK", f"x-sni: {server.names[-1]}", f"x-client: {subject}", body=b"ok"))
                except OSError:
                    pass
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def context_of(pki, server="server", wants=None, **more):
    c = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.crt")
    c.load_cert_chain(pki / f"{server}.crt", pki / f"{server}.key")
    c.verify_mode = wants or ssl.CERT_OPTIONAL
    for k, v in more.items():
        setattr(c, k, v)
    return c


def test_tls_as_the_reference(tmp_path_factory, pki):  # noqa: F811
    text = lambda name_: {"value": (pki / name_).read_text()}
    ref = lambda key: {"secretKeyRef": {"name": key, "key": key}}
    secrets = tmp_path_factory.mktemp("secrets") / "secrets.json"
    secrets.write_text(json.dumps({"ca": (pki / "ca.crt").read_text(), "crt": (pki / "client.crt").read_text(), "key": (pki / "client.key").read_text()}))
    servers = {"plain": TlsServer(context_of(pki)), "mutual": TlsServer(context_of(pki, wants=ssl.CERT_REQUIRED)), "stranger": TlsServer(context_of(pki, "other")),
               "mutual12": TlsServer(context_of(pki, wants=ssl.CERT_REQUIRED, maximum_version=ssl.TLSVersion.TLSv1_2)), "only12": TlsServer(context_of(pki, maximum_version=ssl.TLSVersion.TLSv1_2))}
    root, both = {"rootCA": text("ca.crt")}, {"certificate": text("client.crt"), "privateKey": text("client.key")}
    site = {"value": ("plain", "127.0.0.1", root), "secret": ("plain", "127.0.0.1", {"rootCA": ref("ca")}), "env": ("plain", "127.0.0.1", None), "no client": ("mutual12", "127.0.0.1", root),
            "client": ("mutual", "127.0.0.1", root | both), "client of secrets": ("mutual", "127.0.0.1", {"rootCA": ref("ca"), "certificate": ref("crt"), "privateKey": ref("key")}),
            "client 1.2": ("mutual12", "127.0.0.1", root | both), "1.2": ("only12", "127.0.0.1", root), "stranger": ("stranger", "127.0.0.1", root), "wrong name": ("plain", "localhost", root)}
    got = {}
    try:
        for kind in ("ours", "other"):
            folder = tmp_path_factory.mktemp(kind)
            docs = [resource("HTTPEndpoint", n.replace(" ", "-").replace(".", ""), {"baseUrl": f"https://{host}:{servers[s].port}", **({"clientTLS": tls} if tls else {})}, auth={"secretStore": "file"})
                    for n, (s, host, tls) in site.items()]
            docs.append(resource("Component", "file", {"type": "secretstores.local.file", "version": "v1", "metadata": [{"name": "secretsFile", "value": str(secrets)}]}))
            d = Daprd(folder, docs, app_id=name(kind), env={"SSL_CERT_FILE": str(pki / "ca.crt")})
            if kind == "other":
                d.argv[0] = OTHER
                d.env |= {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
            d.start()
            try:
                got[kind] = {}
                for n, (s, _, _) in site.items():
                    r = [d.request("GET", f"/v1.0/invoke/{n.replace(' ', '-').replace('.', '')}/method/m") for _ in range(2)][-1]
                    body = r.body.decode().replace(str(servers[s].port), "PORT")
                    got[kind][n] = (r.status, r.headers.get("x-sni"), r.headers.get("x-client"), "verify certificate" in body or body)
            finally:
                d.close()
    finally:
        for s in servers.values():
            s.server.shutdown()
    found = {n: (got["other"][n], got["ours"][n]) for n in site if got["other"][n] != got["ours"][n]}
    assert not found, "\n".join(f"{n}: reference {a}, here {b}" for n, (a, b) in found.items())
