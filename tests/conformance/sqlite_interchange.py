"""One sqlite file, two runtimes: what the reference's daprd wrote is read by ours, and the other way round; values, ETags and TTL
included; one after the other and both at once. OTHER_DAPRD = path of the reference's daprd (all components); skipped without it."""
import os, sys, time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, component, wait_until

OTHER = os.environ.get("OTHER_DAPRD", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to exchange files with")

VALUES = {"text": "plain", "empty": "", "quotes": 'a "b" \\ c', "uni": "ü€😀", "html": "<a&b>", "int": 7, "float": 1.5, "true": True,
          "object": {"a": [1, {"b": None}], "z": ""}, "array": [], "big": "x" * 200000}


@pytest.fixture
def pair(folder):
    """(name) -> a running sidecar of that kind on the one file; app id and thus keys are the same."""
    running = []

    def start(kind):
        sub = folder / f"{kind}{len(running)}"
        sub.mkdir()
        d = Daprd(sub, [component("store", "state.sqlite", [("connectionString", str(folder / "data.db"))])])
        if kind == "other":
            d.argv[0] = OTHER
            d.env = {"HOME": str(sub), "PATH": os.environ.get("PATH", "")}
        running.append(d)
        return d.start()
    yield start
    for d in running:
        d.close()


def save(d, *items, status=204):
    r = d.request("POST", "/v1.0/state/store", list(items), {"content-type": "application/json"})
    assert r.status == status, r.body
    return r


def get(d, key):
    r = d.request("GET", f"/v1.0/state/store/{key}")
    assert r.status in (200, 204), r.body
    return r


def binary(d, write=None):
    """Bytes by gRPC, which the table holds as base64."""
    import grpc
    from dapr.proto import api_v1, api_service_v1, common_v1
    with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
        stub = api_service_v1.DaprStub(ch)
        if write is not None:
            stub.SaveState(api_v1.SaveStateRequest(store_name="store", states=[common_v1.StateItem(key="bin", value=write)]), timeout=10)
        return stub.GetState(api_v1.GetStateRequest(store_name="store", key="bin"), timeout=10).data


@pytest.mark.parametrize("writer,reader", [("other", "ours"), ("ours", "other")])
def test_what_one_wrote_the_other_reads(pair, writer, reader):
    w = pair(writer)
    for key, value in VALUES.items():
        save(w, {"key": key, "value": value})
    save(w, {"key": "ttl", "value": "t", "metadata": {"ttlInSeconds": "1000"}}, {"key": "gone", "value": "t", "metadata": {"ttlInSeconds": "1"}})
    raw = bytes(range(256)) * 3
    assert binary(w, raw) == raw
    wrote = {k: get(w, k) for k in [*VALUES, "ttl"]}
    w.close()
    time.sleep(1.1)

    r = pair(reader)
    for key, before in wrote.items():
        now = get(r, key)
        assert now.body == before.body and now.headers["etag"] == before.headers["etag"], key
        assert now.headers["metadata.ttlexpiretime"] == before.headers["metadata.ttlexpiretime"]
        if key in VALUES:
            assert now.json() == VALUES[key]
    assert get(r, "ttl").headers["metadata.ttlexpiretime"]
    assert get(r, "gone").status == 204
    assert binary(r) == raw
    bulk = r.request("POST", "/v1.0/state/store/bulk", {"keys": ["int", "none"]}).json()
    assert {i["key"]: i.get("data") for i in bulk} == {"int": 7, "none": None}


@pytest.mark.parametrize("writer,reader", [("other", "ours"), ("ours", "other")])
def test_etags_of_one_hold_for_the_other(pair, writer, reader):
    w = pair(writer)
    save(w, {"key": "k", "value": 1}, {"key": "d", "value": 1})
    etags = {k: get(w, k).headers["etag"] for k in "kd"}
    w.close()
    r = pair(reader)
    save(r, {"key": "k", "value": 2, "etag": "00000000-0000-4000-8000-000000000000"}, status=409)
    save(r, {"key": "k", "value": 2, "etag": etags["k"]})
    save(r, {"key": "k", "value": 3, "etag": etags["k"]}, status=409)
    save(r, {"key": "d", "value": 3, "options": {"concurrency": "first-write"}}, status=409)
    assert r.request("DELETE", "/v1.0/state/store/d", headers={"If-Match": etags["k"]}).status == 409
    assert r.request("DELETE", "/v1.0/state/store/d", headers={"If-Match": etags["d"]}).status == 204
    assert get(r, "k").json() == 2 and get(r, "d").status == 204


def test_both_at_once(pair):
    a, b = pair("other"), pair("ours")
    for i in range(50):
        save(a if i % 2 else b, {"key": f"k{i % 5}", "value": i})
        assert get(b if i % 2 else a, f"k{i % 5}").json() == i
    ops = {"operations": [{"operation": "upsert", "request": {"key": "k0", "value": "tx"}}, {"operation": "delete", "request": {"key": "k1"}}]}
    assert b.request("POST", "/v1.0/state/store/transaction", ops).status == 204
    assert get(a, "k0").json() == "tx" and get(a, "k1").status == 204
    save(a, {"key": "short", "value": 1, "metadata": {"ttlInSeconds": "1"}})
    assert get(b, "short").status == 200
    wait_until("the value expires for both", lambda: get(a, "short").status == get(b, "short").status == 204, 5)


if __name__ == "__main__":
    if not os.access(OTHER, os.X_OK):
        print("skipped: OTHER_DAPRD does not name a daprd to exchange files with")
        sys.exit(0)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", os.path.abspath(__file__)]))
