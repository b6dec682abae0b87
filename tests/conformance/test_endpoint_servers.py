"""HTTPEndpoints and URLs on real servers: HTTP/2 where nginx offers it, the roots that SSL_CERT_FILE and SSL_CERT_DIR name; gzip of apps and servers."""
import concurrent.futures, gzip, http.client, json, os, socket, socketserver, subprocess, threading

import pytest

from conftest import free_port, wait_until
from test_endpoints import pki  # noqa: F401 (a fixture)
from mesh_differential import OTHER
from test_invoke import HttpApp
from test_mesh import endpoint, rss_kb


class Nginx:
    """Ports .both (h2 and http/1.1 by ALPN) and .old (http/1.1 only). Any path answers "hello"; /up stores nothing and answers 204 to a PUT."""

    def __init__(self, folder, pki):
        self.folder, self.pki, self.both, self.old, self.proc = folder, pki, free_port(), free_port(), None

    def start(self, h2=True):
        temp = "".join(f"{k}_temp_path {self.folder}; " for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        servers = "".join(f"""server {{ listen 127.0.0.1:{port} ssl{kind}; ssl_certificate {self.pki}/server.crt; ssl_certificate_key {self.pki}/server.key;
            add_header x-proto $server_protocol always; add_header x-alpn "$ssl_alpn_protocol" always; add_header x-host $host always;
            add_header x-sni "$ssl_server_name" always; add_header x-connection $connection always; add_header x-length "$http_content_length" always;
            location / {{ return 200 "hello"; }}
            location /up {{ client_max_body_size 0; proxy_http_version 1.1; proxy_pass http://unix:{self.folder}/sink; }}
            location /big {{ root {self.folder}; gzip on; gzip_types *; gzip_proxied any; }} location /gone {{ return 404 "none"; }} }}"""
                          for port, kind in ((self.both, " http2" if h2 else ""), (self.old, "")))
        sink = f"server {{ listen unix:{self.folder}/sink; location / {{ client_max_body_size 0; return 200 $content_length; }} }}"
        (self.folder / "nginx.conf").write_text(f"{'user root; ' if os.getuid() == 0 else ''}daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error; events {{}}\n"
                                                f"http {{ access_log off; {temp}\n{servers}\n{sink} }}")
        (self.folder / "big").write_bytes(b"0123456789abcdef" * 200_000)
        sock = self.folder / "sink"
        sock.unlink(missing_ok=True)
        self.proc = subprocess.Popen(["/usr/sbin/nginx", "-p", self.folder, "-c", self.folder / "nginx.conf"], stderr=subprocess.DEVNULL)
        wait_until("nginx listens", sock.exists)
        return self

    def stop(self):
        if self.proc:
            self.proc.terminate()
            self.proc.wait(10)
        self.proc = None


@pytest.fixture
def nginx(tmp_path_factory, pki):  # noqa: F811
    s = Nginx(tmp_path_factory.mktemp("nginx"), pki)
    yield s.start()
    s.stop()


def site(pki, port, name="site"):  # noqa: F811
    doc = json.loads(endpoint(f"https://127.0.0.1:{port}", clientTLS={"rootCA": {"value": (pki / "ca.crt").read_text()}}))
    doc["metadata"]["name"] = name
    return json.dumps(doc)


def call(d, method="/m", target="site", verb="GET", body=None, headers=None):
    return d.request(verb, f"/v1.0/invoke/{target}/method{method}", body, headers)


def plain(d, method="/m", target="site", **headers):
    """A GET without any Accept-Encoding: status, headers, reader of the body."""
    c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=15)
    c.putrequest("GET", f"/v1.0/invoke/{target}/method{method}", skip_accept_encoding=True)
    for k, v in headers.items():
        c.putheader(k.replace("_", "-"), v)
    c.endheaders()
    return c.getresponse()


def test_http2_where_the_server_takes_it(daprd, nginx, pki):  # noqa: F811
    d = daprd([site(pki, nginx.both), site(pki, nginx.old, "old")])
    r = call(d)
    assert (r.status, r.body, r.headers["x-proto"], r.headers["x-alpn"], r.headers["x-host"]) == (200, b"hello", "HTTP/2.0", "h2", "127.0.0.1")
    assert call(d, verb="POST", body=b"").headers["x-length"] == "0"
    assert (call(d, "/gone").status, call(d, "/gone").body) == (404, b"none")
    assert call(d, "/m", verb="HEAD").headers["x-proto"] == "HTTP/2.0"
    assert call(d, "/up", verb="PUT", body=b"x" * 3_000_000).body == b"3000000"
    r = call(d, "/big", headers={"accept-encoding": "gzip"})
    assert r.headers["content-encoding"] == "gzip" and gzip.decompress(r.body) == (nginx.folder / "big").read_bytes()
    r = call(d, "/big", headers={"range": "bytes=1-3"})
    assert (r.status, r.body) == (206, b"123")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: call(d), range(200)))
    assert {(r.status, r.body) for r in answers} == {(200, b"hello")}
    assert len({r.headers["x-connection"] for r in answers}) == 1, "all over one connection"
    r = call(d, target="old")
    assert (r.headers["x-proto"], r.headers["x-alpn"]) == ("HTTP/1.1", "http/1.1")


def test_a_server_that_changes_its_mind(daprd, nginx, pki):  # noqa: F811
    d = daprd([site(pki, nginx.both)])
    for h2, proto in ((True, "HTTP/2.0"), (False, "HTTP/1.1"), (True, "HTTP/2.0")):
        nginx.stop()
        nginx.start(h2)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert {(r.status, r.headers["x-proto"]) for r in pool.map(lambda i: call(d), range(32))} == {(200, proto)}


def test_urls_are_spoken_to_by_http1(daprd, nginx, pki):  # noqa: F811
    d = daprd(env={"SSL_CERT_FILE": str(pki / "ca.crt")})
    r = call(d, target=f"https://127.0.0.1:{nginx.both}")
    assert (r.status, r.headers["x-proto"], r.headers.get("x-alpn", "")) == (200, "HTTP/1.1", "")


@pytest.mark.parametrize("env", [{"SSL_CERT_FILE": "ca.crt"}, {"SSL_CERT_DIR": "/nowhere:roots"}, {"SSL_CERT_FILE": "none"}, {}])
def test_roots_by_the_environment(daprd, nginx, pki, env):  # noqa: F811
    roots = pki / "roots"
    roots.mkdir(exist_ok=True)
    (roots / "one.pem").write_text((pki / "ca.crt").read_text())
    trusted = env.get("SSL_CERT_FILE") == "ca.crt" or "SSL_CERT_DIR" in env
    d = daprd([endpoint(f"https://127.0.0.1:{nginx.both}")], env={k: v.replace("roots", str(roots)).replace("ca.crt", str(pki / "ca.crt")) for k, v in env.items()})
    r = call(d)
    assert r.status == (200 if trusted else 500) and (trusted or "failed to verify certificate" in r.json()["message"])


def zips(request):
    return 200, {"content-encoding": "gzip", "etag": '"z"'}, gzip.compress(b"packed " * 1000)


@pytest.mark.parametrize("target", ["app", "site", "url"])
def test_gzip_that_the_client_did_not_ask_for_is_unpacked(daprd, target):
    app = HttpApp()
    app.handlers["/zip"] = zips
    app.handlers["/error"] = lambda r: (500, {"content-encoding": "gzip"}, gzip.compress(b"no"))
    app.handlers["/bad"] = lambda r: (200, {"content-encoding": "gzip"}, b"no gzip at all")
    try:
        d = daprd([endpoint(f"http://127.0.0.1:{app.port}")], args=[f"--app-port={app.port}"])
        target = f"http://127.0.0.1:{app.port}" if target == "url" else target
        for _ in range(2):
            r = plain(d, "/zip", target)
            assert (r.status, r.read(), r.getheader("content-encoding"), r.getheader("etag")) == (200, b"packed " * 1000, None, '"z"')
        assert app.got[-1]["headers"].get("accept-encoding") == (None if target == "app" else "gzip"), "asked of servers, not of the app"
        r = plain(d, "/error", target)
        assert (r.status, r.read()) == (500, b"no")
        r = plain(d, "/zip", target, accept_encoding="gzip")
        assert r.getheader("content-encoding") == "gzip" and gzip.decompress(r.read()) == b"packed " * 1000
        assert app.got[-1]["headers"]["accept-encoding"] == "gzip"
        r = plain(d, "/zip", target, range="bytes=0-")
        assert r.getheader("content-encoding") == "gzip" and gzip.decompress(r.read()) == b"packed " * 1000
        r = plain(d, "/bad", target)
        assert (r.status, json.loads(r.read())["errorCode"]) == (500, "ERR_DIRECT_INVOKE"), "nothing had been sent of it"
        assert plain(d, "/zip", target).read() == b"packed " * 1000, "and the next one is served"
    finally:
        app.close()


def test_a_bomb_is_unpacked_as_it_is_read(daprd):
    """1 GB of zeros in 1 MB: memory stays what it was, and a client that leaves ends it."""
    app = HttpApp()
    app.handlers["/bomb"] = lambda r: (200, {"content-encoding": "gzip"}, bomb)
    bomb = gzip.compress(bytes(1 << 20), 9) * 1000
    try:
        d = daprd([endpoint(f"http://127.0.0.1:{app.port}")], args=["--max-body-size=4Gi"])
        plain(d, "/m").read()
        before, n, r = rss_kb(d.proc.pid), 0, plain(d, "/bomb")
        while piece := r.read(1 << 20):
            n += len(piece)
            if n == 200 << 20:
                assert rss_kb(d.proc.pid) < before + 8 * 1024
                break
        r.close()
        assert plain(d, "/m").status == 200
    finally:
        app.close()


def test_gzip_from_nginx_by_http2(daprd, nginx, pki):  # noqa: F811
    d = daprd([site(pki, nginx.both)])
    r = plain(d, "/big")
    assert (r.getheader("x-proto"), r.getheader("content-encoding")) == ("HTTP/2.0", None)
    assert r.read() == (nginx.folder / "big").read_bytes()


@pytest.fixture
def apache(tmp_path_factory, pki):  # noqa: F811
    """Port of an Apache for TLS 1.2 whose /secret wants a client's certificate and whose /cipher wants another cipher: it asks for another
    handshake when it has read the request's path."""
    folder, port = tmp_path_factory.mktemp("apache"), free_port()
    for name in ("secret", "cipher", "free"):
        (folder / "www" / name).mkdir(parents=True)
        (folder / "www" / name / "x").write_text(name)
    modules = "".join(f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n" for m in ("mpm_event", "authz_core", "ssl", "headers"))
    (folder / "conf").write_text(f"""ServerRoot {folder}
PidFile {folder}/pid
{modules}Listen 127.0.0.1:{port}
ServerName localhost
ErrorLog {folder}/error
DocumentRoot {folder}/www
KeepAliveTimeout 60
SSLEngine on
SSLProtocol TLSv1.2
SSLCertificateFile {pki}/server.crt
SSLCertificateKeyFile {pki}/server.key
SSLCACertificateFile {pki}/ca.crt
Header set x-client "%{{SSL_CLIENT_S_DN_CN}}s"
<Location /secret>
SSLVerifyClient require
</Location>
<Location /cipher>
SSLCipherSuite ECDHE-ECDSA-AES128-GCM-SHA256
</Location>
""")
    proc = subprocess.Popen(["/usr/sbin/apache2", "-f", folder / "conf", "-X"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until("Apache listens", lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
    yield port
    proc.terminate()
    proc.wait(10)


REFUSED = 'tls: no renegotiation'
# setting -> what calls of /free, /secret, /cipher, /secret by one connection give, as long as it lives
NEGOTIATED = {"": [200, REFUSED, REFUSED, REFUSED], "Never": [200, REFUSED, REFUSED, REFUSED], "OnceAsClient": [200, 200, REFUSED, 200],
              "FreelyAsClient": [200, 200, 200, 200], "RenegotiateFreelyAsClient": [200, 200, 200, 200]}


@pytest.mark.parametrize("kind", ["ours", "other"])
def test_renegotiation(daprd, apache, pki, folder, kind):  # noqa: F811
    text = lambda name: {"value": (pki / name).read_text()}
    resources = []
    for setting in NEGOTIATED:
        more = {"renegotiation": setting} if setting else {}
        doc = json.loads(endpoint(f"https://127.0.0.1:{apache}", clientTLS={"rootCA": text("ca.crt"), "certificate": text("client.crt"), "privateKey": text("client.key"), **more}))
        doc["metadata"]["name"] = "at" + setting.lower()
        if kind == "ours" or not setting.startswith("Reneg"):  # its documentation has the long names, which it does not take itself
            resources.append(json.dumps(doc))
    d = daprd(resources, start=False)
    if kind == "other":
        if not os.access(OTHER, os.X_OK):
            pytest.skip("OTHER_DAPRD does not name a daprd to compare with")
        d.argv[0] = OTHER
        d.env |= {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
    d.start()
    for setting in list(NEGOTIATED)[:len(resources)]:
        got = []
        for path in ("/free/x", "/secret/x", "/cipher/x", "/secret/x"):
            r = call(d, path, "at" + setting.lower())
            got.append(REFUSED if REFUSED.encode() in r.body else r.status)
            assert r.status != 200 or (r.body.decode(), r.headers.get("x-client", "") in ("client", "(null)")) == (path.split("/")[1], True)
        assert got == NEGOTIATED[setting], setting
        r = call(d, "/secret/x", "at" + setting.lower(), "POST", b"x" * 100_000)
        assert (r.status in (200, 405)) == ("Once" in setting or "Freely" in setting), "what was sent meanwhile has come"


def test_renegotiation_by_another_name(daprd, pki):  # noqa: F811
    d = daprd([endpoint("https://127.0.0.1:9", clientTLS={"renegotiation": "Sometimes"})])
    assert "invalid renegotiation value Sometimes for http endpoint site: it is one of Never, OnceAsClient, FreelyAsClient" in d.log()


class Proxy:
    """Sends every request to one port of this machine, whatever name it is for. .got: first lines and what they say of who asks."""

    def __init__(self, to, wants=None):
        self.got, proxy = [], self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    while first := self.rfile.readline():
                        lines = [first]
                        while lines[-1] not in (b"\r\n", b""):
                            lines.append(self.rfile.readline())
                        who = next((x.split(b": ", 1)[1].strip().decode() for x in lines if x.lower().startswith(b"proxy-authorization:")), None)
                        proxy.got.append((first.decode().strip(), who))
                        if who != wants:
                            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                        elif first.startswith(b"CONNECT"):
                            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                            with socket.create_connection(("127.0.0.1", to)) as s:
                                threading.Thread(target=self.copy, args=(s, self.request), daemon=True).start()
                                self.copy(self.request, s)
                            return
                        else:
                            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nproxied")
                except OSError:
                    pass

            def copy(self, a, b):
                try:
                    while data := a.recv(65536):
                        b.sendall(data)
                    b.shutdown(socket.SHUT_WR)
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.mark.parametrize("kind", ["ours", "other"])
def test_proxies_of_the_environment(daprd, nginx, pki, folder, kind):  # noqa: F811
    basic = "Basic dTpwQHc="  # u:p@w
    proxy, app = Proxy(nginx.both, basic), HttpApp()
    secure = json.loads(site(pki, nginx.both, "secure"))
    secure["spec"]["baseUrl"] = f"https://site.test:{nginx.both}"
    by = lambda name, url: json.dumps(json.loads(endpoint(url)) | {"metadata": {"name": name}})
    try:
        d = daprd([json.dumps(secure), by("plain", "http://site.test/base"), by("out", "http://a.direct.test"), by("near", f"http://127.0.0.1:{app.port}")], start=False,
                  env={"HTTP_PROXY": f"http://u:p%40w@127.0.0.1:{proxy.port}", "https_proxy": f"u:p%40w@127.0.0.1:{proxy.port}", "NO_PROXY": "x.test, direct.test"})
        if kind == "other":
            if not os.access(OTHER, os.X_OK):
                pytest.skip("OTHER_DAPRD does not name a daprd to compare with")
            d.argv[0] = OTHER
            d.env |= {"HOME": str(folder), "PATH": os.environ.get("PATH", "")}
        d.start()
        for _ in range(2):
            r = call(d, "/m?q=1", "plain")
            assert (r.status, r.body) == (200, b"proxied")
            r = call(d, "/m", "secure")
            assert (r.status, r.body, r.headers["x-proto"], r.headers["x-sni"]) == (200, b"hello", "HTTP/2.0", "site.test")
            assert call(d, "/m", "near").status == 200 and app.got[-1]["path"] == "/m", "this machine is behind no proxy"
        assert call(d, "/m", "http://site.test:81").body == b"proxied"
        assert call(d, "/m", "out").status == 500
        assert proxy.got == [("GET http://site.test/base/m?q=1 HTTP/1.1", basic), (f"CONNECT site.test:{nginx.both} HTTP/1.1", basic),
                             ("GET http://site.test/base/m?q=1 HTTP/1.1", basic), ("GET http://site.test:81/m HTTP/1.1", basic)]
        assert "p@w" not in d.log() and "p%40w" not in d.log() and basic not in d.log()
    finally:
        proxy.server.shutdown()
        app.close()


def test_a_proxy_that_refuses_and_one_that_is_none(daprd, nginx, pki):  # noqa: F811
    proxy = Proxy(nginx.both, "nobody")
    doc = json.loads(site(pki, nginx.both))
    doc["spec"]["baseUrl"] = f"https://site.test:{nginx.both}"
    try:
        r = call(daprd([json.dumps(doc)], env={"HTTPS_PROXY": f"127.0.0.1:{proxy.port}"}))
        assert r.status == 500 and "the proxy of HTTPS_PROXY refuses" in r.json()["message"]
        d = daprd([json.dumps(doc)], env={"HTTPS_PROXY": "socks5://127.0.0.1:1"})
        assert "http endpoint site is left out: HTTPS_PROXY is not an address like http://proxy:3128" in d.log()
        assert "HTTPS_PROXY is not an address" in call(d, "/m", "https://site.test").json()["message"]
    finally:
        proxy.server.shutdown()
