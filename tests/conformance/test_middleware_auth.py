"""Filters that know who asks: bearer tokens against a JWKS, OAuth 2.0 sign-in, tokens of the client's own. The servers are real ones, in
this process: they sign, publish keys, exchange codes."""
import base64, http.server, json, threading, time, urllib.parse

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from conftest import component, wait_until
from test_invoke import HttpApp
from test_middleware import INVOKE, pipelines


def b64(b):
    return base64.urlsafe_b64encode(b).rstrip(b"=").decode()


def number(n, size=None):
    return b64(n.to_bytes(size or (n.bit_length() + 7) // 8, "big"))


HASH = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


class Key:
    """A signing key and its public JWK."""

    def __init__(self, kid, alg, more={}):
        self.kid, self.alg = kid, alg
        if alg.startswith(("RS", "PS")):
            self.key = rsa.generate_private_key(65537, 2048)
            n = self.key.public_key().public_numbers()
            self.jwk = {"kty": "RSA", "n": number(n.n), "e": number(n.e)}
        elif alg.startswith("ES"):
            self.key = ec.generate_private_key({"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}[alg[2:]])
            n = self.key.public_key().public_numbers()
            self.size = (self.key.key_size + 7) // 8
            self.jwk = {"kty": "EC", "crv": {256: "P-256", 384: "P-384", 521: "P-521"}[self.key.key_size], "x": number(n.x, self.size),
                        "y": number(n.y, self.size)}
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()
            self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(self.key.public_key().public_bytes_raw())}
        self.jwk |= {"kid": kid, **more}

    def sign(self, data, alg):
        if alg.startswith("RS"):
            return self.key.sign(data, padding.PKCS1v15(), HASH[alg[2:]])
        if alg.startswith("PS"):
            return self.key.sign(data, padding.PSS(padding.MGF1(HASH[alg[2:]]), HASH[alg[2:]].digest_size), HASH[alg[2:]])
        if alg.startswith("ES"):
            r, s = utils.decode_dss_signature(self.key.sign(data, ec.ECDSA(HASH[alg[2:]])))
            return r.to_bytes(self.size, "big") + s.to_bytes(self.size, "big")
        return self.key.sign(data)

    def token(self, claims, alg=None, **header):
        head = {"alg": alg or self.alg, "typ": "JWT", "kid": self.kid} | header
        text = b64(json.dumps({k: v for k, v in head.items() if v is not None}).encode()) + "." + b64(json.dumps(claims).encode())
        return text + "." + b64(self.sign(text.encode(), alg or self.alg))


class Server:
    """GET and POST by handlers: path -> fn(query, form, headers) giving (status, headers, body)."""

    def __init__(self):
        self.pages, self.asked = {}, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def any(self):
                path, _, query = self.path.partition("?")
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("content-length") or 0)).decode())
                server.asked.append((path, form, dict(self.headers)))
                status, headers, body = server.pages.get(path, lambda *a: (404, {}, ""))(urllib.parse.parse_qs(query), form, self.headers)
                body = body if isinstance(body, str) else json.dumps(body)
                self.send_response(status)
                for k, v in ({"content-type": "application/json"} | headers).items():
                    self.send_header(k, v)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())
            do_GET = do_POST = any
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, path):
        return sum(a[0] == path for a in self.asked)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server():
    s = Server()
    yield s
    s.close()


@pytest.fixture
def app():
    a = HttpApp()
    yield a
    a.close()


@pytest.fixture
def start(daprd, app):
    def make(type, metadata, side="app"):
        chain = [("m", type)]
        d = daprd(resources=[component("m", f"middleware.http.{type}", list(metadata.items()))], args=[f"--app-port={app.port}"],
                  config=pipelines(chain if side == "server" else (), chain if side == "app" else ()))
        wait_until("the app is known", lambda: "application discovered" in d.log())
        app.got.clear()
        return d
    return make


# ---- bearer ----

def claims(server, **more):
    return {"iss": server.url, "aud": "me", "exp": time.time() + 60, "iat": time.time(), "sub": "x"} | more


def ask(d, token=None, header=None):
    headers = {"authorization": header if header is not None else f"Bearer {token}"} if token or header else {}
    return d.request("GET", f"{INVOKE}/m", headers=headers).status


def publish(server, *keys):
    server.pages["/keys"] = lambda *a: (200, {}, {"keys": [k.jwk for k in keys]})
    server.pages["/.well-known/openid-configuration"] = lambda *a: (200, {}, {"issuer": server.url, "jwks_uri": server.url + "/keys"})


def test_bearer_tokens_of_every_algorithm(start, server, app):
    keys = [Key(a, a) for a in ("RS256", "ES256", "ES384", "ES512", "EdDSA")] + [Key("named", "RS256", {"alg": "RS256", "use": "sig"})]
    publish(server, *keys)
    d = start("bearer", {"issuer": server.url, "audience": "me"})
    for k in keys:
        assert ask(d, k.token(claims(server))) == 200, k.alg
    for alg in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        assert ask(d, keys[0].token(claims(server), alg)) == 200, alg
        assert ask(d, keys[-1].token(claims(server), alg)) == 401, "the key says RS256"
    assert ask(d, keys[0].token(claims(server, aud=["other", "me"]))) == 200
    assert ask(d, header="bEaReR " + keys[0].token(claims(server))) == 200
    n = len(app.got)
    r = d.request("GET", f"{INVOKE}/m")
    assert (r.status, r.body, r.headers["content-type"]) == (401, b"Unauthorized", "text/plain; charset=utf-8")
    assert len(app.got) == n


def test_bearer_refuses(start, server, app):
    good, other, enc = Key("good", "RS256"), Key("good", "RS256"), Key("enc", "RS256", {"use": "enc"})
    curve = Key("curve", "ES256")
    secret = {"kty": "oct", "k": b64(b"0" * 32), "kid": "oct"}
    publish(server, good, enc, curve)
    pages = server.pages["/keys"]
    server.pages["/keys"] = lambda *a: (200, {}, {"keys": pages()[2]["keys"] + [secret]})
    d = start("bearer", {"issuer": server.url, "audience": "me"})
    import hmac
    now = time.time()
    assert ask(d, good.token(claims(server))) == 200
    for name, token in {
            "expired": good.token(claims(server, exp=now - 301)), "not yet": good.token(claims(server, nbf=now + 330)),
            "issued later": good.token(claims(server, iat=now + 330)), "issuer": good.token(claims(server, iss="https://x")),
            "no issuer": good.token({k: v for k, v in claims(server).items() if k != "iss"}),
            "audience": good.token(claims(server, aud="you")), "audience list": good.token(claims(server, aud=["you"])),
            "signature": other.token(claims(server)), "no kid": good.token(claims(server), kid=None), "unknown kid": good.token(claims(server), kid="?"),
            "other key's kid": good.token(claims(server), kid="curve"), "for encryption": enc.token(claims(server)),
            "expiry is text": good.token(claims(server, exp="soon")), "critical": good.token(claims(server), crit=["x"])}.items():
        assert ask(d, token) == 401, name
    # within the allowed skew
    assert ask(d, good.token(claims(server, exp=now - 200))) == 200
    head, body, sig = good.token(claims(server)).split(".")
    none = b64(json.dumps({"alg": "none", "kid": "good"}).encode())
    hs = b64(json.dumps({"alg": "HS256", "kid": "good"}).encode())
    by_secret = b64(json.dumps({"alg": "HS256", "kid": "oct"}).encode())
    pem = good.jwk["n"].encode()
    es = b64(json.dumps({"alg": "ES256", "kid": "curve"}).encode())
    for name, token in {
            "none": f"{none}.{body}.", "none signed": f"{none}.{body}.{sig}",
            "HMAC with the public key": f"{hs}.{body}." + b64(hmac.digest(pem, f"{hs}.{body}".encode(), "sha256")),
            "HMAC": f"{by_secret}.{body}." + b64(hmac.digest(b"0" * 32, f"{by_secret}.{body}".encode(), "sha256")),
            "zeros": f"{es}.{body}." + b64(bytes(64)), "short": f"{es}.{body}." + b64(bytes(63)), "ASN.1": f"{es}.{body}." + b64(
                curve.key.sign(f"{es}.{body}".encode(), ec.ECDSA(hashes.SHA256()))),
            "changed": f"{head}.{body}A.{sig}", "four parts": f"{head}.{body}.{sig}.{sig}", "one part": "a" * 40, "no JSON": f"{b64(b'[1]')}.{body}.{sig}",
            "long": "a" * 3000 + "." + body + "." + sig}.items():
        assert ask(d, token) == 401, name
    for header in ("Basic " + good.token(claims(server)), "Bearer", "Bearer ", "Bearer short"):
        assert ask(d, header=header) == 401, header
    assert "a token is refused: it has expired" in d.log() and good.token({})[:20] not in d.log()


def test_bearer_reads_new_keys_and_keeps_old_ones(start, server):
    old, new = Key("old", "ES256"), Key("new", "ES256")
    publish(server, old)
    d = start("bearer", {"issuerURL": "https://unused.example", "clientID": "me", "jwksURL": server.url + "/keys"})
    publish(server, new)
    assert server.count("/keys") == 1 and server.count("/.well-known/openid-configuration") == 0
    mine = {"iss": "https://unused.example", "aud": "me"}
    assert ask(d, new.token(mine)) == 200 and server.count("/keys") == 2
    assert ask(d, old.token(mine)) == 401 and ask(d, old.token(mine, kid="x")) == 401
    assert server.count("/keys") == 2, "an unknown key asks again only after a while"
    assert ask(d, new.token(mine)) == 200


@pytest.mark.parametrize("metadata,text", [
    ({"audience": "x"}, "metadata property 'issuer' is required"),
    ({"issuer": "{url}"}, "metadata property 'audience' is required"),
    ({"issuer": "{url}/nothing", "audience": "x"}, "failed to retrieve OpenID Configuration document: invalid response status code: 404"),
    ({"issuer": "{url}/", "audience": "x"}, "doesn't match the one provided in the component's metadata"),
    ({"issuer": "x", "audience": "x", "jwksURL": "{url}/nothing"}, "failed to fetch JWKS: invalid response status code: 404"),
    ({"issuer": "x", "audience": "x", "jwksURL": "{url}/text"}, "failed to fetch JWKS: the JWKS is not valid JSON"),
])
def test_bearer_without_keys_does_not_start(daprd, server, metadata, text):
    publish(server, Key("k", "EdDSA"))
    server.pages["/text"] = lambda *a: (200, {}, "hello")
    d = daprd(resources=[component("m", "middleware.http.bearer", [(k, v.replace("{url}", server.url)) for k, v in metadata.items()])], healthy=False)
    assert d.wait_exit() == 1 and text in d.log()
    d.proc = None


# ---- the client's own tokens ----

def token_server(server, **answer):
    grants = []

    def token(query, form, headers):
        auth = headers.get("authorization")
        who = base64.b64decode(auth[6:]).decode() if auth else ":".join(form.get(k, [""])[0] for k in ("client_id", "client_secret"))
        if who != "me%2B1:s+e%26c" and who != "me+1:s e&c":
            return 401, {}, {"error": "invalid_client", "error_description": "who?"}
        grants.append((form, "header" if auth else "params"))
        return 200, {}, {"access_token": f"token{len(grants)}", "token_type": "bearer"} | answer
    server.pages["/token"] = token
    server.pages["/oauth/token/"] = token
    return grants


ME = {"clientID": "me+1", "clientSecret": "s e&c"}


def test_client_credentials(start, server, app):
    grants = token_server(server, expires_in=3600)
    d = start("oauth2clientcredentials", ME | {"scopes": "a,b", "tokenURL": server.url + "/token", "headerName": "X-Token", "pathFilter": "^/with$",
                                              "endpointParamsQuery": "audience=x%20y&resource=1"})
    threads = [threading.Thread(target=d.request, args=("GET", f"{INVOKE}/with")) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert d.request("GET", f"{INVOKE}/without", headers={"x-token": "mine"}).status == 200
    assert [g["headers"].get("x-token") for g in app.got] == ["Bearer token1"] * 8 + ["mine"]
    assert grants == [({"grant_type": ["client_credentials"], "scope": ["a b"], "audience": ["x y"], "resource": ["1"]}, "header")]


@pytest.mark.parametrize("style,used", [("1", ["params"]), ("2", ["header"]), ("0", ["params", "params"])])
def test_client_credentials_go_where_the_server_takes_them(start, server, app, style, used):
    grants = token_server(server, expires_in="1" if style == "0" else "100")
    if style == "0":
        take, n = server.pages["/token"], [0]

        def refuses_header(query, form, headers):
            n[0] += 1
            return (401, {}, "no") if headers.get("authorization") else take(query, form, headers)
        server.pages["/token"] = refuses_header
    d = start("oauth2clientcredentials", ME | {"scopes": "a", "tokenURL": server.url + "/token", "headerName": "authorization", "authStyle": style},
              side="server")
    assert d.request("GET", f"{INVOKE}/m").status == 200
    if style == "0": # the token has expired; what the server took is remembered
        wait_until("a second token", lambda: d.request("GET", f"{INVOKE}/m").status == 200 and len(grants) == 2)
        assert n[0] == 3
    assert [g[1] for g in grants] == used
    assert app.got[0]["headers"]["authorization"] == "Bearer token1"


def test_client_credentials_that_are_refused(start, server, app):
    token_server(server)
    d = start("oauth2clientcredentials", {"clientID": "wrong", "clientSecret": "verysecret", "scopes": "a", "tokenURL": server.url + "/token", "headerName": "x"})
    assert d.request("GET", f"{INVOKE}/m").status == 500 and not app.got
    assert "Error acquiring token: oauth2: \\\"invalid_client\\\" \\\"who?\\\"" in d.log() or 'invalid_client' in d.log()
    assert "verysecret" not in d.log()


def test_client_credentials_metadata(daprd):
    d = daprd(resources=[component("m", "middleware.http.oauth2clientcredentials", [("clientID", "x"), ("authStyle", "3"), ("tokenURL", "http://x")])],
              healthy=False)
    assert d.wait_exit() == 1
    for text in ("Parameter 'headerName' needs to be set. Parameter 'clientSecret' needs to be set. Parameter 'scopes' needs to be set. ",
                 "Parameter 'authStyle' can only have the values 0,1,2. Received: '3'"):
        assert text in d.log()
    d.proc = None


# ---- sign-in ----

class Browser:
    """Follows nothing by itself; keeps one cookie."""

    def __init__(self, d):
        self.d, self.cookie = d, None

    def get(self, path, **headers):
        import http.client
        c = http.client.HTTPConnection("127.0.0.1", self.d.http, timeout=15)
        c.request("GET", path, headers=headers | ({"cookie": f"a=b; {self.cookie}; c=d"} if self.cookie else {}))
        r = c.getresponse()
        r.body = r.read()
        if set := r.headers["set-cookie"]:
            assert "; Path=/; " in set and "; HttpOnly" in set
            self.cookie = set.partition(";")[0]
        c.close()
        return r


def sign_in(b, path=f"{INVOKE}/m?x=1"):
    """To the authorization server: the query it is sent with."""
    r = b.get(path)
    assert r.status == 302
    return r.headers["location"], urllib.parse.parse_qs(urllib.parse.urlparse(r.headers["location"]).query)


def test_sign_in(start, server, app):
    grants = token_server(server)
    d = start("oauth2", ME | {"scopes": "openid,mail", "authURL": server.url + "/auth?p=1", "tokenURL": server.url + "/oauth/token/",
                              "redirectURL": "http://back", "authHeaderName": "x-user", "pathFilter": "/method/"}, side="server")
    b = Browser(d)
    where, query = sign_in(b)
    assert where.startswith(server.url + "/auth?p=1&")
    state = query.pop("state")[0]
    assert query == {"p": ["1"], "access_type": ["offline"], "client_id": ["me+1"], "redirect_uri": ["http://back"], "response_type": ["code"],
                     "scope": ["openid mail"]}
    for path, status, text in ((f"{INVOKE}/m?state=x&code=1", 400, b"invalid state"), (f"{INVOKE}/m?state={state}", 400, b"code not found")):
        r = b.get(path)
        assert (r.status, r.body) == (status, text)
    r = b.get(f"{INVOKE}/back?state={state}&code=the%20code")
    assert (r.status, r.headers["location"]) == (302, f"{INVOKE}/m?x=1")
    assert grants == [({"grant_type": ["authorization_code"], "code": ["the code"], "redirect_uri": ["http://back"]}, "header")]
    assert b.get(r.headers["location"]).status == 200
    assert app.got[-1]["headers"]["x-user"] == "Bearer token1" and app.got[-1]["path"] == "/m?x=1"
    assert b.get("/v1.0/healthz").status == 204
    # others have a session of their own, and cannot choose its name
    other = Browser(d)
    other.cookie = "gosessionsid=" + "0" * 64
    assert sign_in(other) and other.cookie not in (b.cookie, "gosessionsid=" + "0" * 64)
    assert Browser(d).get(f"{INVOKE}/m?state={state}&code=1").status == 500
    assert len(app.got) == 1


def test_sign_in_that_the_server_refuses(start, server, app):
    token_server(server)
    d = start("oauth2", ME | {"clientSecret": "wrong", "authURL": server.url + "/auth", "tokenURL": server.url + "/token", "forceHTTPS": "true"}, side="app")
    b = Browser(d)
    _, query = sign_in(b)
    r = b.get(f"{INVOKE}/m?code=1&state=" + query["state"][0])
    assert (r.status, r.body) == (500, b"Internal Server Error") and not app.got
    assert "Failed to exchange token" in d.log()
