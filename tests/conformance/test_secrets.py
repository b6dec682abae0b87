"""Secret stores as a client sees them: names, scopes, the environment, secretKeyRef of other components."""
import json, urllib.parse

from conftest import component


def secret(d, store, key):
    return d.request("GET", f"/v1.0/secrets/{urllib.parse.quote(store, safe='')}/{urllib.parse.quote(key, safe='')}")


def local_file(folder, name, secrets, *metadata):
    path = folder / f"{abs(hash(name))}.json"
    path.write_text(json.dumps(secrets))
    return component(name, "secretstores.local.file", [("secretsFile", str(path)), *metadata])


def test_stores_with_any_name_keep_apart(daprd, folder):
    names = ["plain", "ünïcode", "中文", " spaces ", "tilde~", "ünïcodé"]
    d = daprd([local_file(folder, n, {"who": n}) for n in names])
    assert len({c["microdapr"]["pid"] for c in d.metadata()["components"]}) == len(names)  # each may read its own file only
    for n in names:
        assert secret(d, n, "who").json() == {"who": n}, n


def test_nested_and_multi_valued_files(daprd, folder):
    data = {"a": "1", "n": {"b": "x", "c": ["p", {"q": 2.5}], "t": True}}
    d = daprd([local_file(folder, "flat", data), local_file(folder, "multi", data, ("multiValued", "true"), ("nestedSeparator", "."))])
    assert secret(d, "flat", "n:c:1:q").json() == {"n:c:1:q": "2.5"}
    assert secret(d, "flat", "n").status == 500
    assert secret(d, "multi", "a").json() == {"a": "1"}
    assert secret(d, "multi", "n").json() == {"b": "x", "c.0": "p", "c.1.q": "2.5", "t": "true"}
    features = {c["name"]: c.get("capabilities") for c in d.metadata()["components"]}
    assert features == {"flat": None, "multi": ["MULTIPLE_KEY_VALUES_PER_SECRET"]}


def test_scopes_deny_single_secrets_and_leave_them_out_of_bulk(daprd, folder):
    config = json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}, "spec": {"secrets": {"scopes": [
        {"storeName": "s", "defaultAccess": "allow", "deniedSecrets": ["no"]}, {"storeName": "gone", "defaultAccess": "deny"}]}}})
    d = daprd([local_file(folder, "s", {"yes": "1", "no": "2"})], config=config)
    assert secret(d, "s", "yes").json() == {"yes": "1"}
    r = secret(d, "s", "no")
    assert r.status == 403 and r.json() == {"errorCode": "ERR_PERMISSION_DENIED", "message": 'access denied by policy to get "no" from "s"'}
    assert d.request("GET", "/v1.0/secrets/s/bulk").json() == {"yes": {"yes": "1"}}
    assert "Secrets configuration added for 'gone', but no matching secret store was found" in d.log()


def test_the_environment_without_the_sidecars_own_names(daprd):
    d = daprd([component("env", "secretstores.local.env"), component("pre", "secretstores.local.env", [("prefix", "MY_")])],
              env={"MY_ONE": "1", "OTHER": "2", "DAPR_API_TOKEN": "", "APP_API_TOKEN": "t", "DAPR_SECRET": "s"})
    assert secret(d, "env", "OTHER").json() == {"OTHER": "2"} and secret(d, "pre", "ONE").json() == {"ONE": "1"}
    for name in ["DAPR_SECRET", "dapr_secret", "APP_API_TOKEN", "absent"]:
        assert secret(d, "env", name).json() == {name: ""}
    assert d.request("GET", "/v1.0/secrets/pre/bulk").json() == {"ONE": {"ONE": "1"}}
    assert not {"DAPR_SECRET", "APP_API_TOKEN"} & set(d.request("GET", "/v1.0/secrets/env/bulk").json())


def test_a_reference_of_another_component_is_resolved(daprd, folder):
    d = daprd([local_file(folder, "vault", {"db": {"path": str(folder / "s.db")}}, ("multiValued", "true")),
               component("store", "state.sqlite", [{"name": "connectionString", "secretKeyRef": {"name": "db", "key": "path"}}],
                         auth={"secretStore": "vault"})])
    assert d.request("POST", "/v1.0/state/store", [{"key": "k", "value": 1}]).status == 204
    assert (folder / "s.db").exists()
