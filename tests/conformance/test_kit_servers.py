"""The conformance kit over the plugins whose servers take their time or need a document: brokers, PostgreSQL, models, Consul, filters."""
import json

import pytest

from consul_agent import ConsulAgent
from test_binding_plugins import TABLE
from test_conversation import model  # noqa: F401 (a fixture)
from test_ctl import home  # noqa: F401 (a fixture)
from test_kit import PLUGINS, kit
from test_middleware_auth import Key, publish, server  # noqa: F401 (a fixture)
from test_middleware_go import POLICY, guests  # noqa: F401 (a fixture)


def run(home, name, settings={}, *args, least=20):
    if not (PLUGINS / name).exists():
        pytest.skip(f"{name} was not built: no Go, or no modules")
    r, checks = kit(home, PLUGINS / name, *(w for k, v in settings.items() for w in ("-m", f"{k}={v}")), *args)
    assert r["type"] == name and r["passed"] > least, r
    return checks


def test_rabbitmq(home, rabbitmq):
    url = f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}"
    checks = run(home, "pubsub.rabbitmq", {"connectionString": url, "requeueInFailure": "true"})
    assert checks["messages that failed come again"]["result"] == "pass"
    run(home, "bindings.rabbitmq", {"host": url, "queueName": "conformance"})


def test_jetstream(home, nats):
    nats.stream("KIT", "kit.>")
    try:
        checks = run(home, "pubsub.jetstream", {"natsURL": nats.url, "ackWait": "1s"}, "--topic-prefix", "kit.")
        assert checks["messages that failed come again"]["result"] == "pass"
    finally:
        nats.delete("KIT")


def test_postgresql(home, postgres):
    postgres.sql(TABLE + "INSERT INTO conf VALUES ('a', '1', '1', NULL), ('b', '2', '1', '{}')")
    run(home, "bindings.postgresql", {"connectionString": postgres.dsn})
    run(home, "configuration.postgresql", {"connectionString": postgres.dsn, "table": "conf"}, "--subscribe-metadata", "pgNotifyChannel=config")


@pytest.mark.parametrize("name", ["openai", "ollama"])
def test_models(home, model, name):
    checks = run(home, f"conversation.{name}", {"key": "sk-1", "endpoint": model.url + "/v1"})
    assert model.seen and checks["messages of all roles are answered"]["result"] == "pass"


def test_name_resolvers(home, folder):
    a = ConsulAgent()
    try:
        run(home, "nameresolution.consul", {"client": json.dumps({"address": a.address})}, "--no-faults", least=14)  # each of 5,000 pings asks the agent
    finally:
        a.close()
    run(home, "nameresolution.sqlite", {"connectionString": folder / "names.db"})
    run(home, "nameresolution.kubernetes", {"template": "localhost:{{.Port}}"})  # no name server that answers late
    run(home, "nameresolution.mdns")


def test_filters_that_ask_a_server(home, server):
    publish(server, Key("k", "RS256"))
    me = {"clientID": "me", "clientSecret": "s", "scopes": "a", "tokenURL": server.url + "/token"}
    run(home, "middleware.http.bearer", {"issuer": server.url, "audience": "me"})
    run(home, "middleware.http.oauth2", me | {"authURL": server.url + "/auth", "redirectURL": server.url, "authHeaderName": "x-token"})
    run(home, "middleware.http.oauth2clientcredentials", me | {"headerName": "x-token"})


def test_filters_in_go(home, guests):
    run(home, "middleware.http.opa", {"rego": POLICY})
    run(home, "middleware.http.wasm", {"url": f"file://{guests}/rewrite.wasm"})
    run(home, "middleware.http.sentinel", {"appName": "kit", "flowRules": json.dumps([{"resource": "GET:/flow", "threshold": 3}])})
