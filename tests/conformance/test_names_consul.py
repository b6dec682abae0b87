"""nameresolution.consul against an agent's HTTP API (consul_agent.py)."""
import subprocess

import pytest

from consul_agent import ConsulAgent
from test_names import configuration, resolver  # noqa: F401 (a fixture)
from conftest import wait_until


@pytest.fixture
def agent():
    made = []

    def make(**kw):
        made.append(ConsulAgent(**kw))
        return made[-1]
    yield make
    for a in made:
        a.close()


def service(name, sid, port=None, address="", **more):
    return {"Name": name, "ID": sid, "Address": address, "Meta": {"DAPR_PORT": str(port)} if port else {}, **more}


def test_a_sidecar_registers_is_found_and_deregisters(daprd, agent, resolver):
    a = agent()
    conf = {"client": {"address": a.address}, "selfRegister": True, "selfDeregister": True, "tags": ["blue"], "meta": {"k": "v"}, "tokn": 1}
    d = daprd(app_id="orders", config=configuration("consul", conf), args=["--app-port=3999"], healthy=False)
    reg = wait_until("it is registered", lambda: a.services.get(f"orders-127.0.0.1-{d.http}"))
    assert reg == {"ID": f"orders-127.0.0.1-{d.http}", "Name": "orders", "Address": "127.0.0.1", "Port": 3999, "Tags": ["blue"],
                   "Meta": {"k": "v", "DAPR_PORT": str(d.internal)},
                   "Checks": [{"CheckID": f"daprHealth:orders-127.0.0.1-{d.http}", "Name": "Dapr Health Status", "Interval": "15s",
                               "HTTP": f"http://127.0.0.1:{d.http}/v1.0/healthz?appid=orders"}]}
    r = resolver("consul").init("asker", 1, {"client": {"address": f"http://{a.address}"}})
    assert r.resolve("orders") == [f"127.0.0.1:{d.internal}"]
    wait_until("the log names the field", lambda: "nameresolution.consul does not know these fields of the configuration: tokn" in d.log())
    d.close()
    assert a.services == {}


def test_answers_and_refusals(agent, resolver):
    a = agent()
    r = resolver("consul").init("asker", 1, {"client": {"address": a.address}})
    assert r.refusal(r.resolve, "shop") == "no healthy services found with AppID 'shop'"
    a.register(service("shop", "s1"))
    assert r.refusal(r.resolve, "shop") == "target service AppID 'shop' found but DAPR_PORT missing from meta"
    a.register(service("shop", "s2", 7, "10.0.0.2"))
    a.register(service("shop", "s3", 8, "2001:db8::1"))
    a.register(service("shop", "s4", 9))
    assert r.resolve("shop") == ["10.0.0.2:7", "[2001:db8::1]:8", "127.0.0.9:9"]  # the last has its node's address
    a.set_health("s2", False)
    assert r.resolve("shop") == ["[2001:db8::1]:8", "127.0.0.9:9"]
    a.register(service("a/b c", "s5", 1, "10.0.0.1"))
    assert r.resolve("a/b c") == ["10.0.0.1:1"]
    a.fail = 500
    assert r.refusal(r.resolve, "shop") == "failed to query healthy consul services: Unexpected response code: 500 (No cluster leader)"
    a.close()
    assert r.refusal(r.resolve, "shop") == "failed to query healthy consul services: network error: failed to reach API server"
    assert r.refusal(r.init, "me", 1, {"client": {"address": a.address}}).startswith("failed check on consul agent: network error")


def test_what_a_query_carries(agent, resolver):
    a = agent(token="secret")
    conf = {"client": {"address": a.address, "datacenter": "dc2", "token": "secret"}, "DaprPortMetaKey": "P",
            "queryOptions": {"useCache": True, "maxAge": "10s", "staleIfError": 5000000000, "filter": "Service.Tags contains \"x\"", "near": "_agent",
                             "nodeMeta": {"zone": "1"}, "allowStale": True}}
    r = resolver("consul").init("asker", 1, conf)
    a.register({**service("shop", "s1", address="10.0.0.1"), "Meta": {"P": "5"}})
    assert r.resolve("shop") == ["10.0.0.1:5"]
    ((_, _, q, headers),) = a.questions("/v1/health/service/shop")
    assert q == {"passing": ["1"], "cached": [""], "dc": ["dc2"], "near": ["_agent"], "filter": ['Service.Tags contains "x"'], "stale": [""],
                 "node-meta": ["zone:1"]}
    assert headers["Cache-Control"] == "max-age=10, stale-if-error=5" and headers["X-Consul-Token"] == "secret"
    assert "Permission denied" in r.refusal(resolver("consul").init, "x", 1, {"client": {"address": a.address, "token": "wrong"}})


def test_use_cache_follows_the_agent_without_asking_each_time(agent, resolver):
    a = agent()
    a.register(service("shop", "s1", 1, "10.0.0.1"))
    r = resolver("consul").init("asker", 1, {"client": {"address": a.address}, "useCache": True})
    assert r.resolve("shop") == ["10.0.0.1:1"]
    wait_until("it watches", lambda: any("index" in q[2] for q in a.questions("/v1/health/service/shop")))
    before = len(a.questions("/v1/health/service/shop"))
    for _ in range(50):
        assert r.resolve("shop") == ["10.0.0.1:1"]
    assert len(a.questions("/v1/health/service/shop")) == before
    a.register(service("shop", "s2", 2, "10.0.0.2"))
    wait_until("the second one", lambda: r.resolve("shop") == ["10.0.0.1:1", "10.0.0.2:2"])
    a.set_health("s1", False)
    wait_until("the first one is gone", lambda: r.resolve("shop") == ["10.0.0.2:2"])


def test_an_advanced_registration_goes_as_it_is(agent, resolver):
    a = agent()
    conf = {"client": {"address": a.address}, "selfDeregister": True,
            "advancedRegistration": {"name": "shop", "id": "mine", "port": 80, "address": "10.0.0.1", "meta": {"x": "y"}, "weights": {"passing": 3},
                                     "check": {"name": "c", "checkID": "c1", "http": "http://x/", "header": {"A": ["b"]}, "tlsSkipVerify": True},
                                     "taggedAddresses": {"lan": {"address": "10.0.0.9", "port": 81}}, "proxy": {"upstreams": [{"localBindPort": 9}]},
                                     "connect": {"sidecarService": {"port": 1}}}}
    r = resolver("consul").init("me", 50002, conf)
    assert a.services["mine"] == {"Name": "shop", "ID": "mine", "Port": 80, "Address": "10.0.0.1", "Weights": {"Passing": 3},
                                  "Check": {"Name": "c", "CheckID": "c1", "HTTP": "http://x/", "Header": {"A": ["b"]}, "TLSSkipVerify": True},
                                  "TaggedAddresses": {"lan": {"Address": "10.0.0.9", "Port": 81}}, "Proxy": {"Upstreams": [{"LocalBindPort": 9}]},
                                  "Connect": {"SidecarService": {"port": 1}}, "Meta": {"x": "y", "DAPR_PORT": "50002"}}
    assert r.resolve("shop") == ["10.0.0.1:50002"]
    r.close()
    assert a.services == {}


@pytest.mark.parametrize("change, message", [
    ({"client": {"scheme": 1}}, "error deserializing to configSpec: field 'client.scheme': a text expected"),
    ({"client": {"waitTime": "soon"}}, "error deserializing to configSpec: field 'client.waitTime': a duration, or nanoseconds, expected"),
    ({"checks": {}}, "error deserializing to configSpec: field 'checks': a list expected"),
    ({"selfRegister": "yes"}, "error deserializing to configSpec: field 'selfRegister': true or false expected"),
    ({"client": {"scheme": "ftp"}}, "field 'client.scheme' is 'ftp': http or https"),
    ({"client": {"address": "unix:///x"}}, "failed to init consul client: consul api error initing client: Unknown protocol scheme: unix"),
    ({"client": {"address": "a b"}}, "field 'client.address': a b: not the URL of a web server"),
    ({"client": {"tokenFile": "/no/such/file"}}, "field 'client.tokenFile': open /no/such/file: No such file or directory"),
    ({"selfRegister": True}, "metadata property missing: APP_PORT"),
])
def test_settings_that_cannot_work_are_refused(resolver, change, message):
    r = resolver("consul")
    assert r.refusal(r.init, "me", 1, change).startswith(message)


def test_an_agent_behind_tls(folder, agent, resolver):
    cert, key = folder / "c.pem", folder / "k.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key), "-out", str(cert),
                    "-days", "2", "-subj", "/CN=consul.test", "-addext", "subjectAltName=DNS:consul.test"], check=True, capture_output=True)
    a = agent(tls=(cert, key), token="t")
    (folder / "token").write_text("t\n")
    a.register(service("shop", "s1", 1, "10.0.0.1"))
    client = {"address": a.address, "scheme": "https", "tokenFile": str(folder / "token"),
              "tlsConfig": {"caFile": str(cert), "address": "consul.test"}}
    r = resolver("consul").init("me", 1, {"client": client})
    assert r.resolve("shop") == ["10.0.0.1:1"]
    assert "certificate is not trusted" in r.refusal(r.init, "me", 1, {"client": {**client, "tlsConfig": {"address": "consul.test"}}})
    assert "certificate is not trusted" in r.refusal(r.init, "me", 1, {"client": {**client, "tlsConfig": {"caFile": str(cert)}}})
    r.init("me", 1, {"client": {**client, "tlsConfig": {"insecureSkipVerify": True}}})
    assert r.resolve("shop") == ["10.0.0.1:1"]
