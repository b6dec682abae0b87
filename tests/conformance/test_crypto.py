"""Cryptography: documents over HTTP and gRPC, the format dapr.io/enc/v1 in detail, bad documents, single operations.

REFERENCE_DAPRD=/path/to/daprd also exchanges documents with that sidecar, both ways.
"""
import base64, hashlib, hmac, http.server, json, os, pathlib, threading

import grpc
import pytest
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import crypto_pb2, dapr_pb2_grpc

from conftest import Daprd, component, wait_until

SEGMENT, TAG = 64 * 1024, 16
REFERENCE = os.environ.get("REFERENCE_DAPRD")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    d = tmp_path_factory.mktemp("keys")
    (d / "aes256").write_bytes(bytes(range(32)))
    (d / "aes128b64").write_text(base64.b64encode(bytes(range(16))).decode() + "\n")
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (d / "rsa.pem").write_bytes(pem)
    (d / "rsapub.pem").write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    (d / "garbage.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    return d


def local(keys, name="vault"):
    return component(name, "crypto.dapr.localstorage", [("path", str(keys))])


@pytest.fixture
def vault(daprd, keys):
    return daprd([local(keys)])


def encrypt(d, data, key="aes256", wrap="A256KW", **headers):
    h = {"dapr-key-name": key, "dapr-key-wrap-algorithm": wrap, "content-type": "application/octet-stream"}
    h.update({k.replace("_", "-"): v for k, v in headers.items()})
    return d.request("PUT", "/v1.0-alpha1/crypto/vault/encrypt", data, h, timeout=60)


def decrypt(d, data, key=None):
    h = {"content-type": "application/octet-stream", **({"dapr-key-name": key} if key else {})}
    return d.request("PUT", "/v1.0-alpha1/crypto/vault/decrypt", data, h, timeout=60)


def stub(d):
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
    return dapr_pb2_grpc.DaprStub(grpc.insecure_channel(f"127.0.0.1:{d.grpc}", options))


def stream(d, data, decrypt=False, chunk=100_000, seqs=None, **options):
    """Through EncryptAlpha1 or DecryptAlpha1, in chunks; data may be an iterator of chunks. The reply's chunks come one by one."""
    request, opts = ((crypto_pb2.DecryptRequest, crypto_pb2.DecryptRequestOptions) if decrypt else
                     (crypto_pb2.EncryptRequest, crypto_pb2.EncryptRequestOptions))
    fields = {"component_name": "vault", **options}
    if not decrypt:
        fields = {"key_name": "aes256", "key_wrap_algorithm": "A256KW", **fields}

    def requests():
        parts = data if not isinstance(data, bytes) else (data[i:i + chunk] for i in range(0, len(data), chunk))
        first = {"options": opts(**fields)}
        for n, part in enumerate(parts):
            yield request(payload=common_pb2.StreamPayload(data=part, seq=seqs[n] if seqs else n), **first)
            first = {}
        if first:
            yield request(**first)
    s = stub(d)
    for n, reply in enumerate((s.DecryptAlpha1 if decrypt else s.EncryptAlpha1)(requests())):
        assert reply.payload.seq == n
        yield reply.payload.data


def open_document(doc, kek):
    """The format read by another implementation."""
    scheme, manifest, mac, body = doc.split(b"\n", 3)
    m = json.loads(manifest)
    assert scheme == b"dapr.io/enc/v1"
    assert manifest == json.dumps(m, separators=(",", ":")).encode() and list(m) in (["k", "kw", "wfk", "cph", "np"], ["kw", "wfk", "cph", "np"])
    file_key, prefix = keywrap.aes_key_unwrap(kek, base64.b64decode(m["wfk"])), base64.b64decode(m["np"])
    derive = lambda salt, info: HKDF(hashes.SHA256(), 32, salt, info).derive(file_key)
    assert hmac.digest(derive(None, b"header"), scheme + b"\n" + manifest + b"\n", hashlib.sha256) == base64.b64decode(mac)
    aead, out = (AESGCM if m["cph"] == 1 else ChaCha20Poly1305)(derive(prefix, b"payload")), b""
    pieces = [body[i:i + SEGMENT + TAG] for i in range(0, len(body), SEGMENT + TAG)]
    for n, piece in enumerate(pieces):
        out += aead.decrypt(prefix + n.to_bytes(4, "big") + bytes([n == len(pieces) - 1]), piece, None)
    return m, out


SIZES = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 5 * SEGMENT + 77]


@pytest.mark.parametrize("cipher", ["aes-gcm", "chacha20-poly1305"])
def test_documents_of_all_sizes(vault, cipher):
    for size in SIZES:
        plain = os.urandom(size)
        r = encrypt(vault, plain, dapr_data_encryption_cipher=cipher)
        assert r.status == 200 and r.headers["content-type"] == "application/octet-stream"
        m, opened = open_document(r.body, bytes(range(32)))
        assert opened == plain and m["k"] == "aes256" and m["kw"] == 1 and m["cph"] == (1 if cipher == "aes-gcm" else 2)
        back = decrypt(vault, r.body)
        assert (back.status, back.body) == (200, plain)
        assert b"".join(stream(vault, r.body, decrypt=True)) == plain
        assert b"".join(stream(vault, b"".join(stream(vault, plain, data_encryption_cipher=cipher)), decrypt=True, chunk=SEGMENT)) == plain


@pytest.mark.parametrize("key,wrap,number", [("rsa.pem", "RSA-OAEP-256", 5), ("rsa.pem", "rsa", 5), ("aes256", "aes", 1)])
def test_wrapping(vault, key, wrap, number):
    r = encrypt(vault, b"hello", key, wrap)
    assert r.status == 200, r.body
    assert json.loads(r.body.split(b"\n")[1])["kw"] == number
    assert decrypt(vault, r.body).body == b"hello"


def test_key_names(vault):
    r = encrypt(vault, b"x", "rsapub.pem", "RSA", dapr_decryption_key_name="rsa.pem")
    assert json.loads(r.body.split(b"\n")[1])["k"] == "rsa.pem"
    assert decrypt(vault, r.body).body == b"x"
    r = encrypt(vault, b"x", dapr_omit_decryption_key_name="yes")
    assert "k" not in json.loads(r.body.split(b"\n")[1])
    bad = decrypt(vault, r.body)
    assert bad.status == 500 and "does not contain a key name" in bad.json()["message"]
    assert decrypt(vault, r.body, "aes256").body == b"x"


def test_bad_requests(vault, daprd):
    url = "/v1.0-alpha1/crypto/vault/encrypt"
    r = vault.request("PUT", url, b"x", {"dapr-key-wrap-algorithm": "AES"})
    assert r.status == 400 and r.json() == {"errorCode": "ERR_BAD_REQUEST", "message": "invalid request: missing header 'dapr-key-name'"}
    r = vault.request("PUT", url, b"x", {"dapr-key-name": "aes256"})
    assert r.status == 400 and r.json()["message"] == "invalid request: missing header 'dapr-key-wrap-algorithm'"
    r = vault.request("PUT", "/v1.0-alpha1/crypto/none/encrypt", b"x")
    assert r.status == 400 and r.json() == {"errorCode": "ERR_CRYPTO_PROVIDER_NOT_FOUND", "message": "crypto provider none not found"}
    r = encrypt(vault, b"x", wrap="foo")
    assert r.status == 500 and r.json() == {"errorCode": "ERR_CRYPTO", "message":
                                            "failed to perform operation: option Algorithm is not valid: algorithm FOO is not supported"}
    r = encrypt(vault, b"x", dapr_data_encryption_cipher="rot13")
    assert r.json()["message"].endswith("option Cipher is not valid: cipher ROT13 is not supported")
    for key, why in (("nokey", "failed to load key 'nokey'"), ("../aes256", "cannot contain '..'"), ("garbage.pem", "failed to parse key"),
                     ("rsa.pem", "key type mismatch")):
        r = encrypt(vault, b"x", key)
        assert r.status == 500 and "failed to wrap the file key: " in r.json()["message"] and why in r.json()["message"]
    r = daprd().request("PUT", url, b"x")
    assert r.status == 500 and r.json()["errorCode"] == "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED"


HEADER_FAULTS = [(b"", "scheme name not found"), (b"\n", "invalid format"), (b"dapr.io/enc/v2\n{}\nAA==\n", "unsupported scheme"),
                 (b"dapr.io/enc/v1", "scheme name not found"), (b"dapr.io/enc/v1\n", "manifest not found"),
                 (b"dapr.io/enc/v1\n{}\n", "message authentication code not found"), (b"dapr.io/enc/v1\n{}\nAA==\n", "invalid manifest"),
                 (b"x" * 200_000, "scheme name not found")]


@pytest.mark.parametrize("doc,why", HEADER_FAULTS)
def test_bad_headers(vault, doc, why):
    r = decrypt(vault, doc)
    assert r.status == 500 and r.json() == {"errorCode": "ERR_CRYPTO", "message": f"failed to perform operation: invalid header: {why}"}
    with pytest.raises(grpc.RpcError) as e:
        list(stream(vault, doc, decrypt=True))
    assert e.value.code() == grpc.StatusCode.INTERNAL and e.value.details() == r.json()["message"]


def test_damaged_documents(vault, keys):
    doc = encrypt(vault, os.urandom(3 * SEGMENT + 10)).body
    start = sum(len(x) + 1 for x in doc.split(b"\n", 3)[:3])
    header, body = doc[:start], doc[start:]
    s = [body[i:i + SEGMENT + TAG] for i in range(0, len(body), SEGMENT + TAG)]
    flip = lambda b, i: b[:i] + bytes([b[i] ^ 1]) + b[i + 1:]
    damaged = {"cut off": doc[:-1], "without its last segment": header + b"".join(s[:3]), "cut in a tag": doc[:start + 8],
               "exchanged": header + s[1] + s[0] + s[2] + s[3], "doubled": header + s[0] + s[0] + s[2] + s[3],
               "a bit of a segment": flip(doc, start + 5), "one byte more": doc + b"x"}
    for what, bad in damaged.items():
        r = decrypt(vault, bad)
        assert r.status == 500 and "failed to decrypt segment" in r.json()["message"], what
        with pytest.raises(grpc.RpcError) as e:
            list(stream(vault, bad, decrypt=True))
        assert "failed to decrypt segment" in e.value.details(), what
    manifest = json.loads(header.split(b"\n")[1])
    for change in ({"k": "aes128b64"}, {"k": "nokey"}, {"cph": 2}, {"np": base64.b64encode(b"1234567").decode()}):
        lines = header.split(b"\n")
        lines[1] = json.dumps({**manifest, **change}, separators=(",", ":")).encode()
        r = decrypt(vault, b"\n".join(lines) + body)
        assert r.json()["message"] == "failed to perform operation: failed to validate the document's signature", change
    assert decrypt(vault, doc).status == 200


def test_streams_that_break_the_rules(vault):
    def fails(code, text, call):
        with pytest.raises(grpc.RpcError) as e:
            list(call)
        assert e.value.code() == code and text in e.value.details(), e.value.details()
    s = stub(vault)
    payload = common_pb2.StreamPayload(data=b"x")
    bad, internal = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL
    fails(bad, "first message does not contain the required options", s.EncryptAlpha1(iter([crypto_pb2.EncryptRequest(payload=payload)])))
    fails(internal, "error receiving the first message: EOF", s.EncryptAlpha1(iter([])))
    fails(bad, "missing property 'keyName'", stream(vault, b"x", key_name=""))
    fails(bad, "missing property 'keyWrapAlgorithm'", stream(vault, b"x", key_wrap_algorithm=""))
    fails(bad, "missing component name", stream(vault, b"x", component_name=""))
    fails(bad, "crypto provider nope not found", stream(vault, b"x", component_name="nope"))
    fails(internal, "invalid sequence number received: 2 (expected: 1)", stream(vault, b"abc", chunk=1, seqs=[0, 2, 3]))
    options = crypto_pb2.EncryptRequestOptions(component_name="vault", key_name="aes256", key_wrap_algorithm="AES")
    fails(internal, "options found in non-leading message", s.EncryptAlpha1(iter([crypto_pb2.EncryptRequest(options=options)] * 2)))
    hold = threading.Event()

    def nothing():
        hold.wait(20)
        yield from ()
    fails(bad, "error waiting for first message: context deadline exceeded", s.EncryptAlpha1(nothing()))
    hold.set()


def peak_rss_kb(d):
    status = pathlib.Path(f"/proc/{d.proc.pid}/status").read_text()
    return int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1])


def test_a_large_stream_takes_little_memory(vault):
    block, n = os.urandom(1 << 20), 100
    before, digest, total = peak_rss_kb(vault), hashlib.sha256(), 0
    sealed = stream(vault, (block for _ in range(n)))
    for part in stream(vault, sealed, decrypt=True):
        digest.update(part)
        total += len(part)
    assert total == n << 20 and digest.hexdigest() == hashlib.sha256(block * n).hexdigest()
    if "asan" not in os.environ.get("BUILD", ""):
        assert peak_rss_kb(vault) - before < 24_000


def test_a_client_that_reads_last(daprd, keys):
    """Over HTTP/1.1 the whole body goes out before the reply is looked at."""
    d = daprd([local(keys)], args=["--max-body-size=64Mi"])
    plain = os.urandom(30 << 20)
    sealed = encrypt(d, plain)
    assert sealed.status == 200 and decrypt(d, sealed.body).body == plain


def test_too_large_for_http(vault):
    r = encrypt(vault, bytes(5 << 20))
    assert r.status == 500 and r.json()["errorCode"] == "ERROR"


def test_metrics(vault):
    encrypt(vault, b"x")
    decrypt(vault, encrypt(vault, b"y", "nokey").body)
    text = vault.metric_text()
    line = [x for x in text.splitlines() if x.startswith("dapr_component_crypto_count{")]
    assert any('component="vault"' in x and 'operation="crypto_op"' in x and 'success="true"' in x for x in line)
    assert any('success="false"' in x for x in line)


# ---- single operations ----

def subtle(d, verb, **body):
    body = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in body.items()}
    return d.request("POST", f"/v1.0-alpha1/subtlecrypto/vault/{verb}", body)


def test_subtle_is_off(vault):
    for verb in ("getkey", "encrypt", "decrypt", "wrapkey", "unwrapkey", "sign", "verify"):
        r = subtle(vault, verb, keyName="aes256")
        assert r.status == 501 and r.json() == {"errorCode": "ERR_API_UNIMPLEMENTED", "message": "this API is currently not implemented"}
    with pytest.raises(grpc.RpcError) as e:
        stub(vault).SubtleGetKeyAlpha1(crypto_pb2.SubtleGetKeyRequest(component_name="vault", name="rsa.pem"))
    assert e.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_subtle(daprd, keys):
    (keys / "ed.json").write_text(json.dumps({"kty": "OKP", "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
                                              "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "use": "sig"}))
    p256 = ec.generate_private_key(ec.SECP256R1())
    (keys / "p256.pem").write_bytes(p256.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                                                      serialization.NoEncryption()))
    d = daprd([local(keys)], args=["--enable-subtle-crypto"])
    raw = lambda r, field: base64.b64decode(r.json()[field])
    # symmetric
    for alg, key, nonce in (("A256GCM", "aes256", bytes(12)), ("A128CBC", "aes128b64", bytes(16)), ("C20P", "aes256", bytes(12)),
                            ("XC20P", "aes256", bytes(24)), ("A128CBC-HS256", "aes256", bytes(16)), ("A256KW", "aes256", b"")):
        data = b"sixteen bytes.. " * 2
        r = subtle(d, "encrypt", plaintext=data, algorithm=alg, keyName=key, nonce=nonce, associatedData=b"aad")
        assert r.status == 200, (alg, r.body)
        tag = base64.b64decode(r.json().get("tag", ""))
        back = subtle(d, "decrypt", ciphertext=raw(r, "ciphertext"), algorithm=alg, keyName=key, nonce=nonce, tag=tag, associatedData=b"aad")
        assert raw(back, "plaintext") == data, alg
        if tag:
            bad = subtle(d, "decrypt", ciphertext=raw(r, "ciphertext"), algorithm=alg, keyName=key, nonce=nonce, tag=bytes(len(tag)))
            assert bad.status == 500 and bad.json()["message"] == "failed to perform operation: failed to decrypt", alg
    sealed = raw(subtle(d, "encrypt", plaintext=b"abc", algorithm="A256GCM", keyName="aes256", nonce=bytes(12)), "ciphertext")
    assert AESGCM(bytes(range(32))).encrypt(bytes(12), b"abc", None)[:3] == sealed
    # RSA
    private = serialization.load_pem_private_key((keys / "rsa.pem").read_bytes(), None)
    sealed = raw(subtle(d, "encrypt", plaintext=b"abc", algorithm="RSA-OAEP-512", keyName="rsapub.pem", associatedData=b"label"), "ciphertext")
    oaep = padding.OAEP(padding.MGF1(hashes.SHA512()), hashes.SHA512(), b"label")
    assert private.decrypt(sealed, oaep) == b"abc"
    # keys
    wrapped = raw(subtle(d, "wrapkey", plaintextKey=bytes(16), algorithm="A256KW", keyName="aes256"), "wrappedKey")
    assert wrapped == keywrap.aes_key_wrap(bytes(range(32)), bytes(16))
    assert raw(subtle(d, "unwrapkey", wrappedKey=wrapped, algorithm="A256KW", keyName="aes256"), "plaintextKey") == bytes(16)
    # signatures
    digest = hashlib.sha256(b"m").digest()
    prehashed = utils.Prehashed(hashes.SHA256())
    sig = raw(subtle(d, "sign", digest=digest, algorithm="PS256", keyName="rsa.pem"), "signature")
    private.public_key().verify(sig, digest, padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), prehashed)
    sig = raw(subtle(d, "sign", digest=digest, algorithm="ES256", keyName="p256.pem"), "signature")
    p256.public_key().verify(sig, digest, ec.ECDSA(prehashed))
    sig = raw(subtle(d, "sign", digest=b"message", algorithm="EdDSA", keyName="ed.json"), "signature")
    assert subtle(d, "verify", digest=b"message", signature=sig, algorithm="EdDSA", keyName="ed.json").json() == {"valid": True}
    assert subtle(d, "verify", digest=b"massage", signature=sig, algorithm="EdDSA", keyName="ed.json").json() == {}
    assert subtle(d, "encrypt", plaintext=b"x", algorithm="A256KW", keyName="ed.json").status == 500
    # public keys
    r = subtle(d, "getkey", name="rsa.pem").json()
    assert r["publicKey"].encode() == (keys / "rsapub.pem").read_bytes() and r["name"] == "rsa.pem"
    jwk = json.loads(subtle(d, "getkey", name="p256.pem", format="JSON").json()["publicKey"])
    assert jwk["kty"] == "EC" and int.from_bytes(base64.urlsafe_b64decode(jwk["x"] + "=="), "big") == p256.public_key().public_numbers().x
    r = subtle(d, "getkey", name="aes256")
    assert r.status == 500 and r.json() == {"errorCode": "ERR_CRYPTO_KEY", "message": "failed to retrieve key aes256: key not found"}


# ---- the reference ----

@pytest.fixture
def reference(folder, keys):
    sub = folder / "reference"
    sub.mkdir()
    d = Daprd(sub, [local(keys)], app_id="ref", args=["--max-body-size=300Mi"], env={"HOME": str(sub)})
    d.argv[0] = REFERENCE
    d.start()
    yield d
    d.proc.terminate()
    d.proc.wait(20)
    d.out.close()


@pytest.mark.skipif(not REFERENCE, reason="REFERENCE_DAPRD is not set")
@pytest.mark.parametrize("cipher", ["aes-gcm", "chacha20-poly1305"])
def test_exchange_with_the_reference(daprd, reference, keys, cipher):
    ours = daprd([local(keys)], args=["--max-body-size=300Mi"])
    for size in SIZES + [100 << 20]:
        plain = os.urandom(size)
        for key, wrap in (("aes256", "A256KW"), ("rsa.pem", "RSA")):
            for a, b in ((ours, reference), (reference, ours)):
                doc = b"".join(stream(a, plain, key_name=key, key_wrap_algorithm=wrap, data_encryption_cipher=cipher, chunk=1 << 20))
                assert b"".join(stream(b, doc, decrypt=True, chunk=1 << 20)) == plain, (size, key)
            if size > 1 << 20:
                break
        if size < 1 << 20:
            doc = encrypt(ours, plain, dapr_data_encryption_cipher=cipher).body
            assert decrypt(reference, doc).body == plain
            doc = encrypt(reference, plain, dapr_data_encryption_cipher=cipher).body
            assert decrypt(ours, doc).body == plain


@pytest.mark.skipif(not REFERENCE, reason="REFERENCE_DAPRD is not set")
def test_failures_as_the_reference(daprd, reference, vault):
    def both(call):
        out = []
        for d in (vault, reference):
            r = call(d)
            out.append((r.status, r.json()))
        assert out[0] == out[1]
    for doc, _ in HEADER_FAULTS:
        both(lambda d: decrypt(d, doc))
    doc = encrypt(vault, os.urandom(SEGMENT + 5)).body
    for bad in (doc[:-1], doc + b"x", doc[:-30]):
        both(lambda d: decrypt(d, bad))
    both(lambda d: encrypt(d, b"x", "nokey"))
    both(lambda d: encrypt(d, b"x", "a..b"))
    both(lambda d: encrypt(d, b"x", "rsa.pem"))
    both(lambda d: encrypt(d, b"x", wrap="nope"))
    both(lambda d: encrypt(d, b"x", dapr_data_encryption_cipher="nope"))
    both(lambda d: d.request("PUT", "/v1.0-alpha1/crypto/nope/decrypt", b"x"))


# ---- crypto.dapr.jwks ----

def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwks(*keys):
    return json.dumps({"keys": [{"kty": "oct", "kid": kid, "k": b64url(k), **more} for kid, k, more in keys]})


def test_jwks_as_text_and_file(daprd, folder, keys):
    text = jwks(("a", bytes(range(32)), {}), ("wrapping", bytes(32), {"key_ops": ["wrapKey", "unwrapKey"]}), ("other", bytes(32), {"alg": "A256GCM"}))
    (folder / "set.json").write_text(text)
    for value in (text, base64.b64encode(text.encode()).decode(), str(folder / "set.json")):
        d = daprd([component("vault", "crypto.dapr.jwks", [("jwks", value)])])
        doc = encrypt(d, b"hello", "a").body
        assert open_document(doc, bytes(range(32)))[1] == b"hello" and decrypt(d, doc).body == b"hello"
        assert decrypt(d, encrypt(d, b"x", "wrapping").body).body == b"x"
        for key, why in (("none", "failed to retrieve the key encryption key: key not found"), ("other", "key cannot be used with algorithm 'A256KW'")):
            assert encrypt(d, b"x", key).json()["message"] == "failed to perform operation: failed to wrap the file key: " + why
    (folder / "new").write_text(jwks(("b", bytes(range(32)), {})))
    os.replace(folder / "new", folder / "set.json")
    assert encrypt(d, b"x", "a").status == 500 and encrypt(d, b"x", "b").status == 200
    (folder / "set.json").write_text("{ garbage")
    assert encrypt(d, b"x", "b").status == 200


def test_jwks_by_url(daprd):
    state = {"text": jwks(("a", bytes(32), {})), "status": 200, "n": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["n"] += 1
            self.send_response(state["status"])
            self.end_headers()
            self.wfile.write(state["text"].encode())

        def log_message(self, *a):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/keys?x=1"
    d = daprd([component("vault", "crypto.dapr.jwks", [("jwks", url), ("minRefreshInterval", "1s")])])
    assert decrypt(d, encrypt(d, b"x", "a").body).body == b"x" and state["n"] == 1
    state["text"] = jwks(("b", bytes(32), {}))
    wait_until("the new key is there", lambda: encrypt(d, b"x", "b").status == 200)
    state["status"], n = 500, state["n"]
    wait_until("the URL is asked again", lambda: encrypt(d, b"x", "b").status == 200 and state["n"] > n)
    assert encrypt(d, b"x", "b").status == 200 and "Error while refreshing JWKS cache" in d.log()
    server.shutdown()
    server.server_close()


def test_jwks_that_is_wrong(daprd):
    d = daprd([component("vault", "crypto.dapr.jwks", [("jwks", "nothing of the kind")], ignoreErrors=True)])
    assert "not a URL, path to local file, or JSON value" in d.log()
