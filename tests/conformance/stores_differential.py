"""Configuration, lock and cryptography beside the reference's sidecar: the same calls over HTTP and gRPC on real Redis servers and the same
keys; answers, errors and what apps and streams are told must be the same. OTHER_DAPRD = path of the reference's daprd; skipped without it."""
import base64, json, queue, threading, time

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from dapr.proto import api_service_v1, api_v1
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import crypto_pb2, dapr_pb2_grpc

from conftest import Redis, component, wait_until
from test_configuration import App
from side_by_side import meaning
from twins import KINDS, ask, compare, fault, needs_other, sidecar, stop, tried

pytestmark = needs_other
CFG = "/v1.0/configuration/cfg"


class World:
    """One sidecar with its own Redis server and app."""

    def __init__(self, kind, folder, keys):
        self.kind, self.app = kind, App()
        folder.mkdir()
        self.redis = Redis(folder)
        redis = ("redisHost", self.redis.addr)
        jwks = {"keys": [{"kty": "oct", "kid": "sym", "k": base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")}]}
        self.d = sidecar(kind, folder / "d", [component("cfg", "configuration.redis", [redis]), component("cfg2", "configuration.redis", [redis, ("redisDB", "2")]),
                                              component("lock", "lock.redis", [redis]), component("vault", "crypto.dapr.localstorage", [("path", str(keys))]),
                                              component("jwks", "crypto.dapr.jwks", [("jwks", json.dumps(jwks))])],
                         args=[f"--app-port={self.app.port}"])
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.d.grpc}")
        self.stub, self.raw = api_service_v1.DaprStub(self.channel), dapr_pb2_grpc.DaprStub(self.channel)
        self.ids = []

    def close(self):
        self.channel.close()
        stop(self.kind, self.d)
        self.app.close()
        self.redis.close()

    def plain(self, x):
        """Without ids of subscriptions."""
        text = json.dumps(x) if not isinstance(x, str) else x
        for i, id_ in enumerate(self.ids):
            text = text.replace(id_, f"ID{i}")
        return meaning(text.encode())

    def http(self, method, path, body=None, headers=()):
        return ask(self.d, method, path, body if body is None or isinstance(body, (bytes, str)) else json.dumps(body), headers)

    def subscribe(self, query="", path=CFG):
        r = self.d.request("GET", f"{path}/subscribe{query}")
        if r.status == 200:
            self.ids.append(r.json()["id"])
        return self.plain([r.status, r.json(), r.headers["content-type"]])

    def told(self, path, body, limit=5):
        wait_until(f"{path} {body}", lambda: any(p == path and b.get("items") == body for p, b, _ in self.app.got), limit)


class Watch:
    def __init__(self, w, keys, store="cfg", method="SubscribeConfiguration", **md):
        self.got, self.end, self.w = queue.Queue(), None, w
        self.call = getattr(w.stub, method)(api_v1.SubscribeConfigurationRequest(store_name=store, keys=keys, metadata=md))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            for m in self.call:
                if m.id not in self.w.ids:
                    self.w.ids.append(m.id)
                self.got.put((self.w.plain(m.id), sorted((k, v.value, v.version, dict(v.metadata)) for k, v in m.items.items())))
            self.end = "end"
        except grpc.RpcError as e:
            self.end = fault(e)
        self.got.put(self.end)

    def next(self, limit=4):
        try:
            return self.got.get(timeout=limit)
        except queue.Empty:
            return "nothing"


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    base = tmp_path_factory.mktemp("stores")
    keys = base / "keys"
    keys.mkdir()
    (keys / "aes256").write_bytes(bytes(range(32)))
    (keys / "aes128").write_text(base64.b64encode(bytes(range(16))).decode() + "\n")
    (keys / "chacha").write_text(json.dumps({"kty": "oct", "alg": "C20P", "k": base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")}))
    for name, key in {"rsa": rsa.generate_private_key(65537, 2048), "ec": ec.generate_private_key(ec.SECP256R1()), "ed": ed25519.Ed25519PrivateKey.generate()}.items():
        (keys / f"{name}.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        (keys / f"{name}.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    (keys / "garbage.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (keys / "empty").write_bytes(b"")
    (keys / "folder").mkdir()
    made = {k: World(k, base / k, keys) for k in KINDS}
    yield made
    for w in made.values():
        w.close()


@pytest.fixture
def both(worlds):
    def run(case):
        facts = {}
        for kind, w in worlds.items():
            w.redis.cli("FLUSHALL")
            w.app.got.clear()
            w.ids.clear()
            w.app.status = 200
            facts[kind] = case(w)
        compare(facts["other"], facts["ours"], KNOWN)
    return run


# What differs, and why it may: (fact, reason) as regular expressions.
KNOWN = [
    ("set c|expire|expired, two", "a value that is the same is told once, not once for each event of the server"),
    ("http, then", "who unsubscribes over HTTP ends the stream of gRPC as well"),
    (r"(http|grpc) garbage.pem .*|.*mac not base64.*", "the parser's own words"),
    ("decrypt wfk garbage.*", "the reference breaks off the connection, over gRPC its process ends"),
]


# ---- configuration ----

def test_reading(both):
    def case(w):
        f = {}
        w.redis.cli("MSET", "a", "1||v1", "b", "two", "empty", "", "bars", "||v", "three", "x||y||z", "html", "<&>", "uni", "é☃", "a b/c", "sp", "glob*", "g")
        w.redis.cli("LPUSH", "list", "x")
        w.redis.cli("HSET", "hash", "data", "x")
        w.redis.cli("-n", "2", "SET", "a", "second")
        for q in ["", "?key=a", "?key=a&key=b", "?key=none", "?key=", "?key=a&key=a", "?key=list", "?key=hash", "?key=list&key=a", "?key=empty", "?key=bars", "?key=three", "?key=html", "?key=uni",
                  "?key=a%20b%2Fc", "?key=glob*", "?key=*", "?keys=a", "?key=a,b", "?key=a&metadata.x=y", "?metadata.x=y", "?key=a&metadata.version=2", "?key=%00", "?key=a&key=none&key=b", "?KEY=a"]:
            f[f"http {q}"] = w.http("GET", CFG + q)
            f[f"alpha {q}"] = w.http("GET", CFG.replace("v1.0", "v1.0-alpha1") + q)
        f["second database"] = w.http("GET", "/v1.0/configuration/cfg2")
        for path in ["/v1.0/configuration/none", "/v1.0/configuration/", "/v1.0/configuration", "/v1.0/configuration/lock?key=a", CFG + "/", CFG + "/a", CFG + "/a/unsubscribe", CFG + "/unsubscribe",
                     "/v1.0/configuration/CFG?key=a"]:
            for method in ["GET", "POST", "PUT", "DELETE"]:
                f[f"{method} {path}"] = w.http(method, path)
        for method in ["GetConfiguration", "GetConfigurationAlpha1"]:
            call = getattr(w.stub, method)
            for keys in [[], ["a"], ["a", "b"], ["none"], [""], ["a", "a"], ["list"], ["empty"], ["bars"], ["three"], ["*"], ["a", "none"], ["uni"]]:
                try:
                    m = call(api_v1.GetConfigurationRequest(store_name="cfg", keys=keys), timeout=10)
                    f[f"{method} {keys}"] = sorted((k, v.value, v.version, dict(v.metadata)) for k, v in m.items.items())
                except grpc.RpcError as e:
                    f[f"{method} {keys}"] = fault(e)
            for store in ["none", "", "lock", "CFG"]:
                f[f"{method} of {store}"] = tried(call, api_v1.GetConfigurationRequest(store_name=store, keys=["a"]))
            f[f"{method} metadata"] = tried(call, api_v1.GetConfigurationRequest(store_name="cfg", keys=["a"], metadata={"x": "y"}))
        return f
    both(case)


def test_many_keys(both):
    def case(w):
        for at in range(0, 2000, 500):
            w.redis.cli("MSET", *[x for i in range(at, at + 500) for x in (f"key{i}", f"v{i}||{i}")])
        r = w.http("GET", CFG)
        m = w.stub.GetConfiguration(api_v1.GetConfigurationRequest(store_name="cfg", keys=[f"key{i}" for i in range(1500)]))
        return {"all": (r[0], len(r[1]), r[1]["key77"]), "named": (len(m.items), m.items["key99"].value)}
    both(case)


def test_http_subscriptions(both):
    def case(w):
        f = {"two": w.subscribe("?key=a&key=b"), "one": w.subscribe("?key=a"), "none named": w.subscribe("", "/v1.0/configuration/cfg2"), "same key twice": w.subscribe("?key=c&key=c"),
             "empty key": w.subscribe("?key="), "metadata": w.subscribe("?key=d&metadata.x=y"), "alpha": w.subscribe("?key=e", "/v1.0-alpha1/configuration/cfg"), "slash": w.subscribe("?key=x%2Fy%20z")}
        wait_until("listening", lambda: all(w.redis.cli("PUBSUB", "NUMSUB", f"__keyspace@0__:{k}").split()[-1] != "0" for k in "abcde") and w.redis.cli("PUBSUB", "NUMPAT") != "0")
        time.sleep(0.3)

        def step(name, *words):
            w.app.got.clear()
            w.redis.cli(*words)
            time.sleep(0.5)
            f[name] = sorted((w.plain([p, b, t]) for p, b, t in w.app.got), key=str)
        step("set a", "SET", "a", "1||v")
        step("set b", "SET", "b", "2")
        step("set c", "SET", "c", "3")
        step("set e", "SET", "e", "3")
        step("same value", "SET", "b", "2")
        step("delete", "DEL", "b")
        step("append", "APPEND", "a", "x")
        step("incr", "INCR", "d")
        step("rename", "RENAME", "d", "b")
        step("list", "LPUSH", "e", "x")
        step("del e", "DEL", "e")
        step("list new", "LPUSH", "e", "x")
        step("empty", "SET", "b", "")
        step("html", "SET", "b", "<&>é")
        step("slash", "SET", "x/y z", "v")
        step("expire", "SET", "b", "x", "PX", "100")
        step("persist", "EXPIRE", "a", "100")
        step("setrange", "SETRANGE", "a", "0", "z")
        step("other", "SET", "other", "z")
        step("other db", "-n", "2", "SET", "q", "z")
        step("copy", "COPY", "a", "b")
        step("flush", "FLUSHDB")
        w.app.status = 500
        step("failing", "SET", "a", "again")
        w.app.status = 200
        step("after", "SET", "a", "later")
        for i, id_ in list(enumerate(w.ids)):
            f[f"unsubscribe {i}"] = w.http("GET", f"{CFG}/{id_}/unsubscribe")
            f[f"unsubscribe {i} again"] = w.plain(w.http("GET", f"{CFG}/{id_}/unsubscribe"))
        f["unsubscribe nonsense"] = w.http("GET", f"{CFG}/nonsense/unsubscribe")
        f["unsubscribe elsewhere"] = w.plain(w.http("GET", f"/v1.0/configuration/cfg2/{w.ids[0]}/unsubscribe"))
        f["unsubscribe the second's"] = w.plain(w.http("GET", f"/v1.0/configuration/cfg2/{w.ids[2]}/unsubscribe"))
        step("unsubscribed", "SET", "a", "z")
        for method in ["POST", "PUT", "DELETE"]:
            f[f"{method} subscribe"] = w.http(method, f"{CFG}/subscribe?key=a")
        return f
    both(case)


def test_grpc_subscriptions(both):
    def case(w):
        f = {}
        one = Watch(w, ["a"])
        f["first"] = one.next()
        two = Watch(w, ["a", "b"], method="SubscribeConfigurationAlpha1", x="y")
        f["second"] = two.next()
        every = Watch(w, [], "cfg2")
        f["all"] = every.next()
        for name, words in {"set": ("SET", "a", "1||v"), "b": ("SET", "b", "2"), "del": ("DEL", "a"), "all": ("-n", "2", "SET", "x", "y"), "empty": ("SET", "b", ""), "list": ("LPUSH", "a", "x"),
                            "expired": ("SET", "b", "z", "PX", "50")}.items():
            w.redis.cli(*words)
            time.sleep(0.3)
            f[f"{name}, one"], f[f"{name}, two"], f[f"{name}, all"] = [[x.got.get() for _ in range(x.got.qsize())] for x in (one, two, every)]
        for store, keys in [("none", ["a"]), ("", []), ("lock", ["a"])]:
            x = Watch(w, keys, store)
            f[f"subscribe {store!r}"] = x.next()
        un = w.stub.UnsubscribeConfiguration
        f["wrong store"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="none", id="x"))))
        f["wrong id"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id="x"))))
        f["no id"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="cfg"))))
        f["other store"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="cfg2", id=w.ids[0]))))
        f["other store, then"] = one.next(1)
        f["own"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id=w.ids[1]))))
        f["own, then"] = two.next(2)
        f["own, again"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id=w.ids[1]))))
        f["http unsubscribes grpc"] = w.plain(w.http("GET", f"/v1.0/configuration/cfg2/{w.ids[2]}/unsubscribe"))
        f["http, then"] = every.next(2)
        w.redis.cli("SET", "a", "end")
        three = Watch(w, ["a"])
        f["three"] = three.next()
        w.redis.cli("SET", "a", "end2")
        f["three, told"] = three.next()
        three.call.cancel()
        time.sleep(0.3)
        f["cancelled, unsubscribe"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id=w.ids[3] if len(w.ids) > 3 else w.ids[-1]))))
        f["http id over grpc"] = None
        w.subscribe("?key=a")
        f["http id over grpc"] = w.plain(str(tried(un, api_v1.UnsubscribeConfigurationRequest(store_name="cfg", id=w.ids[-1]))))
        return f
    both(case)


# ---- locks ----

def test_locks(both):
    def case(w):
        f = {}
        take, give = "/v1.0-alpha1/lock/lock", "/v1.0-alpha1/unlock/lock"
        steps = [(take, {"resourceId": "r", "lockOwner": "a", "expiryInSeconds": 30}), (take, {"resourceId": "r", "lockOwner": "a", "expiryInSeconds": 30}),
                 (take, {"resourceId": "r", "lockOwner": "b", "expiryInSeconds": 30}), (give, {"resourceId": "r", "lockOwner": "b"}), (give, {"resourceId": "r", "lockOwner": "a"}),
                 (give, {"resourceId": "r", "lockOwner": "a"})]
        for path in (take, give):
            for b in [{}, {"resourceId": "r"}, {"lockOwner": "a"}, {"resourceId": "", "lockOwner": "", "expiryInSeconds": 0}, {"resourceId": "q", "lockOwner": "a"},
                      {"resourceId": "q", "lockOwner": "a", "expiryInSeconds": 0}, {"resourceId": "q", "lockOwner": "a", "expiryInSeconds": -1},
                      {"resourceId": "q", "lockOwner": "a", "expiryInSeconds": 2147483647}, {"resource_id": "s", "lock_owner": "a", "expiry_in_seconds": 30}, {"resourceId": "t", "lockOwner": "a", "expiryInSeconds": "30"},
                      {"resourceId": "a||b", "lockOwner": "a", "expiryInSeconds": 30}, {"resourceId": "u", "lockOwner": "a", "expiryInSeconds": 30, "storeName": "other"},
                      {"resourceId": "v", "lockOwner": "a", "expiryInSeconds": 30, "other": 1}, {"resourceId": "é ☃", "lockOwner": "ö", "expiryInSeconds": 30}]:
                steps.append((path, b))
            for store in ["none", "", "cfg"]:
                steps.append((path.rsplit("/", 1)[0] + "/" + store, {"resourceId": "r", "lockOwner": "a", "expiryInSeconds": 30}))
        for n, (path, body) in enumerate(steps):
            f[f"{n} {path} {body}"] = w.http("POST", path, body, {"content-type": "application/json"})
        for path in (take, give):
            for method in ["GET", "PUT", "DELETE"]:
                f[f"{method} {path}"] = w.http(method, path)
        f["keys"] = sorted((k, w.redis.cli("GET", k), int(w.redis.cli("TTL", k)) // 5) for k in w.redis.cli("KEYS", "*").split("\n"))
        w.redis.cli("FLUSHALL")
        for n, (path, b) in enumerate(steps):
            store = path.rsplit("/", 1)[1]
            if set(b) - {"resourceId", "lockOwner", "expiryInSeconds"} or isinstance(b.get("expiryInSeconds"), str):
                continue
            if "unlock" in path:
                f[f"grpc {n} unlock {store} {b}"] = tried(w.stub.UnlockAlpha1, api_v1.UnlockRequest(store_name=store, resource_id=b.get("resourceId", ""), lock_owner=b.get("lockOwner", "")))
            else:
                f[f"grpc {n} lock {store} {b}"] = tried(w.stub.TryLockAlpha1, api_v1.TryLockRequest(store_name=store, resource_id=b.get("resourceId", ""), lock_owner=b.get("lockOwner", ""),
                                                                                                   expiry_in_seconds=b.get("expiryInSeconds", 0)))
        f["grpc keys"] = sorted((k, w.redis.cli("GET", k), int(w.redis.cli("TTL", k)) // 5) for k in w.redis.cli("KEYS", "*").split("\n"))
        return f
    both(case)


# ---- cryptography ----

def crypto_http(w, op, body, store="vault", **headers):
    return w.http("PUT", f"/v1.0-alpha1/crypto/{store}/{op}", body, {k.replace("_", "-"): v for k, v in headers.items()})


def crypto_stream(w, op, parts, first=True, **fields):
    request, options = (crypto_pb2.DecryptRequest, crypto_pb2.DecryptRequestOptions) if op == "decrypt" else (crypto_pb2.EncryptRequest, crypto_pb2.EncryptRequestOptions)

    def requests():
        opts = {"options": options(**fields)} if first else {}
        for n, p in enumerate(parts):
            payload = {} if p is None else {"payload": common_pb2.StreamPayload(data=p[1], seq=p[0]) if isinstance(p, tuple) else common_pb2.StreamPayload(data=p, seq=n)}
            yield request(**payload, **opts)
            opts = {}
        if not parts:
            yield request(**opts)
    out = []
    try:
        for m in (w.raw.DecryptAlpha1 if op == "decrypt" else w.raw.EncryptAlpha1)(requests(), timeout=20):
            out.append((m.payload.seq, m.payload.data))
        return "ok", out
    except grpc.RpcError as e:
        return fault(e), len(out)


WRAPS = ["A256KW", "AES", "A128CBC", "A192CBC", "A256CBC", "RSA-OAEP-256", "RSA", "RSA-OAEP", "RSA1_5", "a256kw", "A128KW", "A256GCM", "", "bogus", "C20PKW"]
KEYS = ["aes256", "aes128", "chacha", "rsa.pem", "rsa.pub", "ec.pem", "ed.pem", "garbage.pem", "empty", "folder", "none", "../keys/aes256", "/etc/passwd", ""]


def test_documents(both):
    def case(w):
        f = {}

        def shape(r):
            """A document without what is random in it."""
            if r[0] != 200 or not str(r[1]).startswith("dapr.io/enc"):
                return r
            m = json.loads(str(r[1]).split("\n")[1])
            return r[0], r[2], {k: v if k not in ("wfk", "np") else len(v) for k, v in m.items()}
        for key in KEYS:
            for wrap in WRAPS:
                f[f"http {key} {wrap}"] = shape(crypto_http(w, "encrypt", b"hello", dapr_key_name=key, dapr_key_wrap_algorithm=wrap))
                s = crypto_stream(w, "encrypt", [b"hello"], component_name="vault", key_name=key, key_wrap_algorithm=wrap)
                f[f"grpc {key} {wrap}"] = s if s[0] != "ok" else len(s[1])
        base = dict(dapr_key_name="aes256", dapr_key_wrap_algorithm="A256KW")
        for more in [dict(dapr_omit_decryption_key_name="true"), dict(dapr_omit_decryption_key_name="1"), dict(dapr_omit_decryption_key_name="no"), dict(dapr_omit_decryption_key_name="bogus"), dict(dapr_decryption_key_name="other"),
                     dict(dapr_decryption_key_name="other", dapr_omit_decryption_key_name="true"), dict(dapr_data_encryption_cipher="aes-gcm"), dict(dapr_data_encryption_cipher="chacha20-poly1305"), dict(dapr_data_encryption_cipher="AES-GCM"),
                     dict(dapr_data_encryption_cipher="bogus"), dict(dapr_data_encryption_cipher="")]:
            f[f"http {more}"] = shape(crypto_http(w, "encrypt", b"hello", **base, **more))
            doc = crypto_http(w, "encrypt", b"hello", **base, **more)
        for store in ["none", "cfg", "jwks"]:
            f[f"http {store}"] = crypto_http(w, "encrypt", b"x", store, **base)
            f[f"decrypt {store}"] = crypto_http(w, "decrypt", b"x", store, **base)
            for op in ["encrypt", "decrypt"]:
                f[f"grpc {op} {store}"] = crypto_stream(w, op, [b"x"], component_name=store, key_name="aes256", **({"key_wrap_algorithm": "A256KW"} if op == "encrypt" else {}))
        f["jwks sym"] = shape(crypto_http(w, "encrypt", b"x", "jwks", dapr_key_name="sym", dapr_key_wrap_algorithm="A256KW"))
        f["no headers"] = crypto_http(w, "encrypt", b"x")
        f["no wrap"] = crypto_http(w, "encrypt", b"x", dapr_key_name="aes256")
        f["nothing"] = shape(crypto_http(w, "encrypt", b"", **base))
        f["no body"] = shape(crypto_http(w, "encrypt", None, **base))
        good = "".join(map(lambda p: p[1].decode("latin-1"), crypto_stream(w, "encrypt", [b"hello"], component_name="vault", key_name="aes256", key_wrap_algorithm="A256KW")[1])).encode("latin-1")
        lines = good.split(b"\n", 3)
        manifest = json.loads(lines[1])

        def bad(**change):
            m = {**manifest, **change}
            return b"\n".join([lines[0], json.dumps({k: v for k, v in m.items() if v is not None}, separators=(",", ":")).encode(), *lines[2:]])
        docs = {"good": good, "empty": b"", "text": b"hello", "no manifest": b"dapr.io/enc/v1\n", "bad scheme": b"dapr.io/enc/v2\n" + good[15:], "cut": good[:-1], "cut head": good[:40], "more": good + b"x", "flipped": good[:-1] + bytes([good[-1] ^ 1]),
                "bad json": b"\n".join([lines[0], b"{", *lines[2:]]), "no json": b"\n".join([lines[0], b"", *lines[2:]]), "bad mac": b"\n".join([*lines[:2], base64.b64encode(bytes(32)), lines[3]]), "short mac": b"\n".join([*lines[:2], b"AAAA", lines[3]]),
                "mac not base64": b"\n".join([*lines[:2], b"!!!!", lines[3]]), "no key": bad(k=None), "other key": bad(k="none"), "kw 0": bad(kw=0), "kw 99": bad(kw=99), "kw text": bad(kw="x"), "cph 0": bad(cph=0), "cph 9": bad(cph=9), "no wfk": bad(wfk=None),
                "wfk garbage": bad(wfk="AAAA"), "no np": bad(np=None), "np short": bad(np="AAAA"), "no segments": b"\n".join(lines[:3]) + b"\n"}
        for name, doc in docs.items():
            f[f"decrypt {name}"] = crypto_http(w, "decrypt", doc)
            f[f"decrypt {name}, key named"] = crypto_http(w, "decrypt", doc, dapr_key_name="aes256")
            if name != "wfk garbage":  # ends the reference's process
                f[f"grpc decrypt {name}"] = crypto_stream(w, "decrypt", [doc], component_name="vault")
        f["decrypt, wrong key"] = crypto_http(w, "decrypt", good, dapr_key_name="aes128")
        f["decrypt, no key"] = crypto_http(w, "decrypt", good, dapr_key_name="none")
        for op in ["encrypt", "decrypt"]:
            o = dict(component_name="vault", **(dict(key_name="aes256", key_wrap_algorithm="A256KW") if op == "encrypt" else {}))
            short = (lambda r: r if r[0] != "ok" else ("ok", [n for n, _ in r[1]]))
            f[f"{op}, no options"] = short(crypto_stream(w, op, [b"x"], first=False))
            f[f"{op}, no payload"] = short(crypto_stream(w, op, [None], **o))
            f[f"{op}, nothing"] = short(crypto_stream(w, op, [], **o))
            f[f"{op}, seq from 1"] = short(crypto_stream(w, op, [(1, b"x")], **o))
            f[f"{op}, seq gap"] = short(crypto_stream(w, op, [(0, b"x"), (2, b"y")], **o))
            f[f"{op}, seq same"] = short(crypto_stream(w, op, [(0, b"x"), (0, b"y")], **o))
            f[f"{op}, no component"] = short(crypto_stream(w, op, [b"x"], **{**o, "component_name": ""}))
            for method in ["GET", "POST", "DELETE"]:
                f[f"{method} {op}"] = w.http(method, f"/v1.0-alpha1/crypto/vault/{op}", b"x" if method == "POST" else None)
        f["encrypt, no key"] = crypto_stream(w, "encrypt", [b"x"], component_name="vault", key_wrap_algorithm="AES")
        f["unknown op"] = crypto_http(w, "frobnicate", b"x", **base)
        return f
    both(case)


def test_single_operations(both):
    """Off, as in every build of the reference that is handed out."""
    def case(w):
        f, p = {}, crypto_pb2
        for op in ["getkey", "encrypt", "decrypt", "wrapkey", "unwrapkey", "sign", "verify", "other"]:
            for body in [None, b"", b"{}"]:
                f[f"{op} {body}"] = w.http("POST", f"/v1.0-alpha1/subtlecrypto/vault/{op}", body)
            f[f"{op} none"] = w.http("POST", f"/v1.0-alpha1/subtlecrypto/none/{op}", {})
            f[f"{op} get"] = w.http("GET", f"/v1.0-alpha1/subtlecrypto/vault/{op}")
        for op in ["GetKey", "Encrypt", "Decrypt", "WrapKey", "UnwrapKey", "Sign", "Verify"]:
            f[f"grpc {op}"] = tried(getattr(w.raw, f"Subtle{op}Alpha1"), getattr(p, f"Subtle{op}Request")(component_name="vault"))
        return f
    both(case)
