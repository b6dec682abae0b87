"""state.etcd when its server comes late or goes away."""
from conftest import component, wait_until


def test_the_sidecar_is_healthy_without_etcd_and_serves_once_it_is_there(daprd, etcd):
    d = daprd([component("s", "state.etcd", [("endpoints", etcd.addr)])])
    r = d.request("GET", "/v1.0/state/s/k")
    assert r.status == 500 and etcd.addr in r.json()["message"]
    etcd.start()
    wait_until("it serves", lambda: d.request("POST", "/v1.0/state/s", [{"key": "k", "value": 1}]).status == 204)
    assert d.request("GET", "/v1.0/state/s/k").json() == 1
