"""Distributed locks over HTTP, gRPC and the official Python SDK, on a real Redis server."""
import threading

import grpc, pytest
from dapr.clients import DaprClient
from dapr.clients.grpc._response import UnlockResponseStatus
from dapr.conf import settings
from dapr.proto import api_service_v1, api_v1

from conftest import component, wait_until


def lock_store(redis, name="locks", *metadata):
    return component(name, "lock.redis", [("redisHost", redis.addr), *metadata])


def take(d, resource, owner, expiry=30, store="locks"):
    return d.request("POST", f"/v1.0-alpha1/lock/{store}", {"resourceId": resource, "lockOwner": owner, "expiryInSeconds": expiry})


def give(d, resource, owner, store="locks"):
    return d.request("POST", f"/v1.0-alpha1/unlock/{store}", {"resourceId": resource, "lockOwner": owner})


def stub(d):
    return api_service_v1.DaprStub(grpc.insecure_channel(f"127.0.0.1:{d.grpc}"))


def test_a_lock_is_held_by_one_owner_until_it_is_given_back(daprd, redis):
    d = daprd([lock_store(redis)], app_id="me")
    r = take(d, "r", "a")
    assert r.status == 200 and r.json() == {"success": True} and r.headers["Content-Type"].startswith("application/json")
    assert take(d, "r", "a").json() == {"success": False} and take(d, "r", "b").json() == {"success": False}
    assert give(d, "r", "b").json() == {"status": 2} and give(d, "other", "a").json() == {"status": 1}
    assert give(d, "r", "a").json() == {"status": 0} and give(d, "r", "a").json() == {"status": 1}
    assert take(d, "r", "b").json() == {"success": True}


def test_the_key_its_value_and_its_term_are_those_of_the_reference(daprd, redis):
    d = daprd([lock_store(redis), lock_store(redis, "byname", ("keyPrefix", "NAME")), lock_store(redis, "bare", ("keyprefix", "none")),
               lock_store(redis, "text", ("keyPrefix", "Team")), lock_store(redis, "ns", ("keyPrefix", "namespace"))], app_id="me")
    for store, key in {"locks": "lock||me||r", "byname": "lock||byname||r", "bare": "lock||r", "text": "lock||team||r",
                       "ns": "lock||namespace||r"}.items():
        assert take(d, "r", "owner", 40, store).json() == {"success": True}
        assert redis.cli("GET", key) == "owner" and 30 < int(redis.cli("TTL", key)) <= 40, store
        assert give(d, "r", "owner", store).json() == {"status": 0} and redis.cli("EXISTS", key) == "0"


def test_a_lock_ends_after_its_term(daprd, redis):
    d = daprd([lock_store(redis)])
    assert take(d, "r", "a", 1).json() == {"success": True}
    wait_until("the term is over", lambda: take(d, "r", "b").json()["success"], 5)
    assert give(d, "r", "a").json() == {"status": 2}


@pytest.mark.parametrize("what,body,store,status,code,message", [
    ("lock", {}, "locks", 400, "ERR_MALFORMED_REQUEST", "ExpiryInSeconds is not positive in lock store locks"),
    ("lock", {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": -1}, "locks", 400, "ERR_MALFORMED_REQUEST",
     "ExpiryInSeconds is not positive in lock store locks"),
    ("lock", {"lockOwner": "o", "expiryInSeconds": 1}, "locks", 400, "ERR_MALFORMED_REQUEST", "ResourceId is empty in lock store locks"),
    ("lock", {"resourceId": "r", "expiryInSeconds": 1}, "none", 400, "ERR_MALFORMED_REQUEST", "LockOwner is empty in lock store none"),
    ("lock", {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 1}, "none", 400, "ERR_LOCK_STORE_NOT_FOUND", "lock store none not found"),
    ("lock", {"resourceId": "a||b", "lockOwner": "o", "expiryInSeconds": 1}, "locks", 500, "ERR_TRY_LOCK",
     "failed to try acquiring lock: input key/keyPrefix 'a||b' can't contain '||'"),
    ("unlock", {}, "locks", 400, "ERR_MALFORMED_REQUEST", "ResourceId is empty in lock store locks"),
    ("unlock", {"resourceId": "r"}, "locks", 400, "ERR_MALFORMED_REQUEST", "LockOwner is empty in lock store locks"),
    ("unlock", {"resourceId": "r", "lockOwner": "o"}, "none", 400, "ERR_LOCK_STORE_NOT_FOUND", "lock store none not found"),
    ("unlock", {"resourceId": "a||b", "lockOwner": "o"}, "locks", 500, "ERR_UNLOCK",
     "failed to release lock: input key/keyPrefix 'a||b' can't contain '||'"),
])
def test_bad_requests(shared, what, body, store, status, code, message):
    r = shared.request("POST", f"/v1.0-alpha1/{what}/{store}", body)
    assert (r.status, r.json()) == (status, {"errorCode": code, "message": message})


@pytest.fixture
def shared(daprd, redis):
    return daprd([lock_store(redis)])


def test_bodies_that_are_no_requests(shared):
    for body in ['{"resourceId": 1}', "[]", "{", '{"expiryInSeconds": "x"}']:
        r = shared.request("POST", "/v1.0-alpha1/lock/locks", body)
        assert r.status == 400 and r.json()["errorCode"] == "ERR_MALFORMED_REQUEST", body
    assert shared.request("POST", "/v1.0-alpha1/lock/locks", {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": "7", "x": 1}).json() == {
        "success": True}


def test_grpc_codes(daprd, shared):
    s = stub(shared)
    cases = [(api_v1.TryLockRequest(store_name="locks", resource_id="r", lock_owner="o"), grpc.StatusCode.INVALID_ARGUMENT),
             (api_v1.TryLockRequest(store_name="none", resource_id="r", lock_owner="o", expiry_in_seconds=1), grpc.StatusCode.INVALID_ARGUMENT),
             (api_v1.TryLockRequest(store_name="locks", resource_id="||", lock_owner="o", expiry_in_seconds=1), grpc.StatusCode.INTERNAL)]
    for req, code in cases:
        with pytest.raises(grpc.RpcError) as e:
            s.TryLockAlpha1(req)
        assert e.value.code() == code
    bare = daprd()
    with pytest.raises(grpc.RpcError) as e:
        stub(bare).UnlockAlpha1(api_v1.UnlockRequest(store_name="x", resource_id="r", lock_owner="o"))
    assert e.value.code() == grpc.StatusCode.FAILED_PRECONDITION and e.value.details() == "lock store is not configured"


def test_the_python_sdk(shared):
    settings.DAPR_HTTP_PORT = shared.http
    with DaprClient(f"127.0.0.1:{shared.grpc}") as c:
        with c.try_lock("locks", "r", "a", 60) as got:
            assert got
            assert not c.try_lock("locks", "r", "b", 60)
            assert c.unlock("locks", "r", "b").status == UnlockResponseStatus.lock_belongs_to_others
        assert c.unlock("locks", "r", "a").status == UnlockResponseStatus.lock_does_not_exist


def test_of_many_that_try_one_wins(shared):
    won = []
    def run(i):
        if take(shared, "r", f"o{i}").json()["success"]:
            won.append(i)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(won) == 1


def test_a_store_that_went_away_and_came_back(shared, redis):
    assert take(shared, "r", "a").json() == {"success": True}
    redis.kill()
    r = take(shared, "r2", "a")
    assert r.status == 500 and r.json()["errorCode"] == "ERR_TRY_LOCK" and r.json()["message"].startswith("failed to try acquiring lock: ")
    r = give(shared, "r", "a")
    assert r.status == 500 and r.json()["errorCode"] == "ERR_UNLOCK"
    redis.start()
    wait_until("locks are given again", lambda: take(shared, "r3", "a").status == 200, 10)


def test_components_that_are_refused(daprd, redis):
    for metadata, text in [([("keyPrefix", "a||B")], "failed to save lock keyprefix: input key/keyPrefix 'a||b' can't contain '||'"),
                           ([("redisType", "cluster")], "this component does not support connecting to Redis Cluster")]:
        d = daprd([lock_store(redis, "locks", *metadata)], healthy=False)
        assert d.wait_exit() == 1 and text in d.log()
        d.proc = None


def test_a_killed_plugin_does_not_lose_locks(shared):
    import os, signal
    assert take(shared, "r", "a").json() == {"success": True}
    pid = next(p for p, name in shared.children().items() if name == "lock.redis")
    os.kill(pid, signal.SIGKILL)
    assert wait_until("the plugin answers again", lambda: take(shared, "r", "b").json() == {"success": False}, 5)
    assert give(shared, "r", "a").json() == {"status": 0}
