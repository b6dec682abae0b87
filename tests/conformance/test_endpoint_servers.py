"""HTTPEndpoints and URLs on real servers: HTTP/2 where nginx offers it, and the roots that SSL_CERT_FILE and SSL_CERT_DIR name."""
import concurrent.futures, json, os, subprocess

import pytest

from conftest import free_port, wait_until
from test_endpoints import pki  # noqa: F401 (a fixture)
from test_mesh import endpoint


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
            location /big {{ root {self.folder}; }} location /gone {{ return 404 "none"; }} }}"""
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


def call(d, method="/m", target="site", verb="GET", body=None):
    return d.request(verb, f"/v1.0/invoke/{target}/method{method}", body)


def test_http2_where_the_server_takes_it(daprd, nginx, pki):  # noqa: F811
    d = daprd([site(pki, nginx.both), site(pki, nginx.old, "old")])
    r = call(d)
    assert (r.status, r.body, r.headers["x-proto"], r.headers["x-alpn"], r.headers["x-host"]) == (200, b"hello", "HTTP/2.0", "h2", "127.0.0.1")
    assert call(d, verb="POST", body=b"").headers["x-length"] == "0"
    assert (call(d, "/gone").status, call(d, "/gone").body) == (404, b"none")
    assert call(d, "/m", verb="HEAD").headers["x-proto"] == "HTTP/2.0"
    assert call(d, "/up", verb="PUT", body=b"x" * 3_000_000).body == b"3000000"
    assert call(d, "/big").body == (nginx.folder / "big").read_bytes()
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
