"""HTTPEndpoints by TLS: roots, certificate and key from a secret store, a redirect that keeps them, and what refuses."""
import http.server, json, ssl, subprocess, threading

import pytest

from conftest import component
from test_invoke import HttpApp
from test_mesh import endpoint


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """Folder with ca.crt, server.{crt,key}, client.{crt,key}, other.crt (of another authority)."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for ca in ("ca", "other"):
        openssl("req", "-x509", *new, "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj", f"/CN={ca}", "-days", "2")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:site.test")
    for who in ("server", "client"):
        openssl("req", *new, "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        openssl("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{who}.crt", "-days", "2", "-extfile", "ext")
    return folder


@pytest.fixture
def server(pki):
    """(port, got): an HTTPS server that wants a client's certificate; got: the certificates' names. /moved leads to another port."""
    made = []

    def make(moved_to=0):
        got = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def do_GET(self):
                got.append(dict(x[0] for x in self.connection.getpeercert()["subject"])["commonName"])
                self.send_response(302 if self.path == "/moved" else 200)
                if self.path == "/moved":
                    self.send_header("location", f"https://127.0.0.1:{moved_to}/m")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass
        s = Server(("127.0.0.1", 0), Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.crt")
        context.load_cert_chain(pki / "server.crt", pki / "server.key")
        context.verify_mode = ssl.CERT_REQUIRED
        s.socket = context.wrap_socket(s.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=s.serve_forever, daemon=True).start()
        made.append(s)
        return s.server_address[1], got
    yield make
    for s in made:
        s.shutdown()
        s.server_close()


def secured(port, root="root", **more):
    ref = lambda key: {"secretKeyRef": {"name": key, "key": key}}
    doc = json.loads(endpoint(f"https://127.0.0.1:{port}", clientTLS={"rootCA": ref(root), **{k: ref(k) for k in more.get("client", ("certificate", "privateKey"))}},
                              headers=[{"name": "x-token", **ref("token")}]))
    return json.dumps(doc | {"auth": {"secretStore": "file"}})


@pytest.fixture
def secrets(pki, folder):
    text = lambda name: (pki / name).read_text()
    path = folder / "secrets.json"
    path.write_text(json.dumps({"root": text("ca.crt"), "other": text("other.crt"), "certificate": text("client.crt"), "privateKey": text("client.key"), "token": "t"}))
    return component("file", "secretstores.local.file", [("secretsFile", str(path))])


def test_a_certificate_from_a_secret_store(daprd, server, secrets):
    second, got_there = server()
    port, got = server(second)
    d = daprd([secrets, secured(port)])
    r = d.request("GET", "/v1.0/invoke/site/method/m")
    assert (r.status, r.body, got) == (200, b"ok", ["client"])
    r = d.request("GET", "/v1.0/invoke/site/method/moved")
    assert (r.status, r.body, got_there) == (200, b"ok", ["client"]), "the same certificate at another server"
    assert "BEGIN" not in d.log()


@pytest.mark.parametrize("kw,says", [({"root": "other"}, "failed to verify certificate"), ({"client": ()}, "site")])
def test_peers_that_do_not_trust_one_another(daprd, server, secrets, kw, says):
    port, got = server()
    d = daprd([secrets, secured(port, **kw)])
    r = d.request("GET", "/v1.0/invoke/site/method/m")
    assert r.status == 500 and r.json()["errorCode"] == "ERR_DIRECT_INVOKE" and says in r.json()["message"] and not got


def test_the_header_of_a_secret_reaches_the_server(daprd, secrets):
    app = HttpApp()
    try:
        doc = json.loads(endpoint(f"http://127.0.0.1:{app.port}", headers=[{"name": "x-token", "secretKeyRef": {"name": "token", "key": "token"}}]))
        d = daprd([secrets, json.dumps(doc | {"auth": {"secretStore": "file"}})])
        assert d.request("GET", "/v1.0/invoke/site/method/m").status == 200 and app.got[0]["headers"]["x-token"] == "t"
    finally:
        app.close()
