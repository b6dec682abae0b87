"""The official Python SDK, unmodified, against every state store and the secret stores."""
import json

import grpc, pytest
from dapr.clients import DaprClient
from dapr.conf import settings
from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions



from conftest import component, wait_until


def client(d):
    """The SDK waits for the sidecar's HTTP port, which it takes from its settings."""
    settings.DAPR_HTTP_PORT = d.http
    return DaprClient(f"127.0.0.1:{d.grpc}")


@pytest.fixture(params=["in-memory", "sqlite", "redis", "etcd", "etcd-v2", "postgresql", "postgresql-v2"])
def store(request, daprd, folder):
    """A client on a sidecar with the store `store`."""
    if request.param == "sqlite":
        comp = component("store", "state.sqlite", [("connectionString", str(folder / "s.db"))])
    elif request.param == "redis":
        comp = component("store", "state.redis", [("redisHost", request.getfixturevalue("redis").addr)])
    elif request.param.startswith("etcd"):
        comp = component("store", "state.etcd", [("endpoints", request.getfixturevalue("etcd").start().addr), ("keyPrefixPath", "p")],
                         version="v2" if request.param == "etcd-v2" else "v1")
    elif request.param.startswith("postgresql"):
        comp = component("store", "state.postgresql", [("connectionString", request.getfixturevalue("postgres").dsn)],
                         version="v2" if request.param == "postgresql-v2" else "v1")
    else:
        comp = component("store", "state.in-memory")
    d = daprd([comp])
    with client(d) as c:
        c.kind, c.sidecar = request.param, d
        yield c


def test_save_get_and_delete(store):
    store.save_state("store", "k", json.dumps({"a": 1}), state_metadata={"contentType": "application/json"})
    got = store.get_state("store", "k")
    assert got.json() == {"a": 1} and got.etag
    store.delete_state("store", "k")
    assert store.get_state("store", "k").data == b""


def test_bytes_come_back_as_they_went(store):
    blob = bytes(range(256)) * 300
    store.save_state("store", "blob", blob)
    assert store.get_state("store", "blob").data == blob


def test_bulk_save_and_bulk_get_keep_the_order(store):
    store.save_bulk_state("store", [StateItem(f"k{i}", f"v{i}") for i in range(20)])
    items = store.get_bulk_state("store", [f"k{i}" for i in range(20)] + ["absent"]).items
    assert [i.key for i in items] == [f"k{i}" for i in range(20)] + ["absent"]
    assert [i.data for i in items] == [f"v{i}".encode() for i in range(20)] + [b""]


def test_wrong_etag_is_refused_and_changes_nothing(store):
    store.save_state("store", "k", "one")
    etag = store.get_state("store", "k").etag
    first = StateOptions(Consistency.strong, Concurrency.first_write)
    store.save_state("store", "k", "two", etag=etag, options=first)
    with pytest.raises(Exception) as e:
        store.save_state("store", "k", "three", etag=etag, options=first)
    assert "ABORTED" in str(e.value) or getattr(e.value, "code", lambda: None)() == grpc.StatusCode.ABORTED
    with pytest.raises(Exception):
        store.delete_state("store", "k", etag=etag, options=first)
    assert store.get_state("store", "k").data == b"two"


def test_transaction_applies_all_operations(store):
    store.save_state("store", "old", "x")
    store.execute_state_transaction("store", [
        TransactionalStateOperation(key="t1", data="a"), TransactionalStateOperation(key="t2", data="b"),
        TransactionalStateOperation(key="old", data="", operation_type=TransactionOperationType.delete)])
    assert store.get_state("store", "t1").data == b"a" and store.get_state("store", "t2").data == b"b"
    assert store.get_state("store", "old").data == b""


def test_ttl_expires(store):
    store.save_state("store", "t", "v", state_metadata={"ttlInSeconds": "1"})
    assert store.get_state("store", "t").data == b"v"
    wait_until("the value has expired", lambda: store.get_state("store", "t").data == b"", 10)


def test_query_says_when_the_store_has_none(store):
    if store.kind == "postgresql":
        pytest.skip("this store has queries")
    with pytest.raises(Exception) as e:
        store.query_state("store", json.dumps({"filter": {}}))
    assert "state store does not support querying" in str(e.value)


def test_unknown_store_says_so(store):
    with pytest.raises(Exception) as e:
        store.get_state("nostore", "k")
    assert "state store nostore is not found" in str(e.value)


def test_secrets(daprd, folder):
    (folder / "s.json").write_text(json.dumps({"user": "ann", "db": {"password": "p1"}}))
    d = daprd([component("vault", "secretstores.local.file", [("secretsFile", str(folder / "s.json"))])])
    with client(d) as c:
        assert c.get_secret("vault", "user").secret == {"user": "ann"}
        assert c.get_secret("vault", "db:password").secret == {"db:password": "p1"}
        assert set(c.get_bulk_secret("vault").secrets) == {"user", "db:password"}
        with pytest.raises(Exception):
            c.get_secret("vault", "nothing-here")


def test_metadata_and_shutdown(daprd):
    d = daprd([component("store", "state.in-memory")])
    with client(d) as c:
        c.set_metadata("color", "green")
        m = c.get_metadata()
        assert m.application_id == "app" and m.extended_metadata["color"] == "green"
        assert [r.name for r in m.registered_components] == ["store"]
        c.shutdown()
    assert d.wait_exit() == 0
