"""state.postgresql on a real server: the layout of its rows, ETags, TTL, queries, keys, a server that goes and comes back."""
import base64, os, pathlib, shutil, subprocess, threading, uuid

import pytest

from conftest import component, wait_until

VERSIONS = ("v1", "v2")


def sidecar(daprd, postgres, version="v1", metadata=(), healthy=True, type_="state.postgresql", **kw):
    return daprd([component("s", type_, [("connectionString", postgres.dsn), *metadata], version=version)], healthy=healthy, **kw)


def save(d, *items):
    return d.request("POST", "/v1.0/state/s", list(items))


def get(d, key):
    return d.request("GET", f"/v1.0/state/s/{key}")


def columns(postgres, table):
    return postgres.sql("SELECT column_name, data_type, is_nullable, is_identity FROM information_schema.columns "
                        f"WHERE table_name = '{table}' ORDER BY ordinal_position").splitlines()


def test_v1_makes_the_tables_and_rows_of_the_reference(daprd, postgres):
    d = sidecar(daprd, postgres)
    assert columns(postgres, "state") == [
        "key|text|NO|NO", "value|jsonb|NO|NO", "isbinary|boolean|NO|NO", "insertdate|timestamp with time zone|NO|NO",
        "updatedate|timestamp with time zone|YES|NO", "expiredate|timestamp with time zone|YES|NO", "row_id|bigint|NO|YES"]
    assert columns(postgres, "dapr_metadata") == ["key|text|NO|NO", "value|text|NO|NO"]
    assert postgres.sql("SELECT key, value FROM dapr_metadata ORDER BY key") == "lock|lock\nmigrations|3"
    assert "state_row_id_uidx" in postgres.sql("SELECT indexname FROM pg_indexes WHERE tablename = 'state'")
    assert save(d, {"key": "k", "value": {"b": [1, "x"]}}).status == 204
    assert postgres.sql("SELECT key, value, isbinary, updatedate IS NULL, expiredate IS NULL, row_id FROM state") == \
        'app||k|{"b": [1, "x"]}|f|t|t|1'
    assert get(d, "k").json() == {"b": [1, "x"]}
    assert get(d, "k").headers["ETag"] == postgres.sql("SELECT xmin FROM state")


def test_v2_makes_the_tables_and_rows_of_the_reference(daprd, postgres):
    d = sidecar(daprd, postgres, "v2")
    assert columns(postgres, "state") == [
        "key|text|NO|NO", "value|bytea|NO|NO", "etag|uuid|NO|NO", "created_at|timestamp with time zone|NO|NO",
        "updated_at|timestamp with time zone|YES|NO", "expires_at|timestamp with time zone|YES|NO", "row_id|bigint|NO|YES"]
    assert postgres.sql("SELECT key, value FROM dapr_metadata ORDER BY key") == "lock|lock\nmigrations-state-v2-|2"
    assert "state_expires_at_idx" in postgres.sql("SELECT indexname FROM pg_indexes WHERE tablename = 'state'")
    assert save(d, {"key": "k", "value": {"b": 1}}).status == 204
    assert postgres.sql("SELECT key, convert_from(value, 'UTF8'), updated_at IS NULL, expires_at IS NULL FROM state") == 'app||k|{"b":1}|t|t'
    assert get(d, "k").headers["ETag"] == postgres.sql("SELECT etag FROM state")


def test_rows_that_others_wrote_are_read(daprd, postgres):
    d = sidecar(daprd, postgres)
    blob = bytes(range(256))
    postgres.sql("INSERT INTO state (key, value, isbinary) VALUES ('app||j', '{\"a\": 1}', false), "
                 f"('app||b', '\"{base64.b64encode(blob).decode()}\"', true)")
    assert get(d, "j").json() == {"a": 1}
    assert get(d, "b").body == blob


def test_tables_of_an_older_version_are_brought_up_to_date(daprd, postgres):
    postgres.sql("CREATE TABLE state (key text NOT NULL PRIMARY KEY, value jsonb NOT NULL, isbinary boolean NOT NULL, "
                 "insertdate TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(), updatedate TIMESTAMP WITH TIME ZONE NULL);"
                 "INSERT INTO state (key, value, isbinary, insertdate) VALUES ('app||late', '2', false, now()), "
                 "('app||early', '1', false, now() - interval '1 day');"
                 "CREATE TABLE dapr_metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);"
                 "INSERT INTO dapr_metadata VALUES ('migrations', '1')")
    d = sidecar(daprd, postgres)
    assert get(d, "early").json() == 1
    assert save(d, {"key": "new", "value": 3}).status == 204
    assert postgres.sql("SELECT key, row_id FROM state ORDER BY row_id") == "app||early|1\napp||late|2\napp||new|3"


def test_two_sidecars_that_start_together_share_the_migration(daprd, postgres):
    made = [sidecar(daprd, postgres, start=False, app_id=f"app{i}") for i in range(2)]
    for d in made:
        d.start(healthy=False)
    for d in made:
        d.wait_healthy()
    assert postgres.sql("SELECT value FROM dapr_metadata WHERE key = 'migrations'") == "3"


@pytest.mark.parametrize("version", VERSIONS)
def test_etags(daprd, postgres, version):
    d = sidecar(daprd, postgres, version)
    first = {"concurrency": "first-write"}
    assert save(d, {"key": "k", "value": 1, "options": first}).status == 204
    r = save(d, {"key": "k", "value": 2, "options": first})
    assert r.status == 500 and "no item was updated" in r.json()["message"]
    etag = get(d, "k").headers["ETag"]
    assert save(d, {"key": "k", "value": 3, "etag": etag, "options": first}).status == 204
    r = save(d, {"key": "k", "value": 4, "etag": etag, "options": first})
    assert r.status == 409 and "possible etag mismatch. error from state store" in r.json()["message"]
    stale = d.request("DELETE", "/v1.0/state/s/k", headers={"If-Match": etag})
    assert stale.status == 409
    bad = save(d, {"key": "k", "value": 5, "etag": "x1", "options": first})
    assert bad.status == (400 if version == "v1" else 409), bad.body
    assert get(d, "k").json() == 3
    now = get(d, "k").headers["ETag"]
    if version == "v2":
        assert str(uuid.UUID(now)) == now
    assert d.request("DELETE", "/v1.0/state/s/k", headers={"If-Match": now}).status == 204
    assert get(d, "k").status == 204


@pytest.mark.parametrize("version", VERSIONS)
def test_a_transaction_is_applied_whole_or_not_at_all(daprd, postgres, version):
    d = sidecar(daprd, postgres, version)
    save(d, {"key": "a", "value": 1})
    stale = get(d, "a").headers["ETag"]
    save(d, {"key": "a", "value": 2})

    def run(*ops):
        return d.request("POST", "/v1.0/state/s/transaction", {"operations": [{"operation": o, "request": r} for o, r in ops]})
    assert run(("upsert", {"key": "b", "value": 1}), ("upsert", {"key": "a", "value": 9, "etag": stale})).status >= 400
    assert get(d, "b").status == 204 and get(d, "a").json() == 2
    assert run(("upsert", {"key": "b", "value": 1}), ("delete", {"key": "a"})).status == 204
    assert get(d, "b").json() == 1 and get(d, "a").status == 204


@pytest.mark.parametrize("version", VERSIONS)
def test_bulk_get_keeps_the_order_and_takes_any_key(daprd, postgres, version):
    d = sidecar(daprd, postgres, version)
    keys = ['plain', 'with "quotes"', "it's", "back\\slash", "{brace},", "ä€😀", "NULL"]
    assert save(d, *({"key": k, "value": k} for k in keys)).status == 204
    got = d.request("POST", "/v1.0/state/s/bulk", {"keys": keys[::-1] + ["none", "plain"]}).json()
    assert {g["key"]: g.get("data") for g in got} == {**{k: k for k in keys}, "none": None}
    assert all(g.get("etag") for g in got if g["key"] != "none")


@pytest.mark.parametrize("version,column", [("v1", "expiredate"), ("v2", "expires_at")])
def test_ttl_hides_then_removes_rows(daprd, postgres, version, column):
    d = sidecar(daprd, postgres, version, [("cleanupInterval", "1s")])
    assert save(d, {"key": "t", "value": 1, "metadata": {"ttlInSeconds": "2"}}, {"key": "stays", "value": 1}).status == 204
    assert get(d, "t").json() == 1 and get(d, "t").headers["metadata.ttlExpireTime"].endswith("Z")
    assert 0 < float(postgres.sql(f"SELECT extract(epoch FROM {column} - now()) FROM state WHERE key = 'app||t'")) <= 2
    wait_until("it has expired", lambda: get(d, "t").status == 204)
    wait_until("its row is gone", lambda: postgres.sql("SELECT key FROM state") == "app||stays")
    mark = "last-cleanup" if version == "v1" else "last-cleanup-state-v2-"
    assert postgres.sql(f"SELECT count(*) FROM dapr_metadata WHERE key = '{mark}'") == "1"
    bad = save(d, {"key": "t", "value": 1, "metadata": {"ttlInSeconds": "soon"}})
    assert bad.status >= 400 and "error parsing TTL" in bad.json()["message"]


def test_an_expired_row_can_be_written_first_again(daprd, postgres):
    d = sidecar(daprd, postgres)
    save(d, {"key": "t", "value": 1})
    postgres.sql("UPDATE state SET expiredate = now() - interval '1 minute'")
    assert save(d, {"key": "t", "value": 2, "options": {"concurrency": "first-write"}}).status == 204
    assert get(d, "t").json() == 2


PEOPLE = [{"key": str(i), "value": {"person": {"org": org, "id": n, "it's": i}, "city": city, "state": state}} for i, (org, n, city, state) in
          enumerate([("Dev Ops", 1036, "Seattle", "WA"), ("Hardware", 9, "Portland", "OR"), ("Finance", 1071, "Sacramento", "CA"),
                     ("Dev Ops", 1028, "Los Angeles", "CA"), ("Hardware", 100, "Seattle", "WA")])]


def query(d, doc):
    return d.request("POST", "/v1.0-alpha1/state/s/query", doc)


def connections(postgres):
    return int(postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'psql'"))


def keys(reply):
    assert reply.status == 200, reply.body
    return [r["key"].rpartition("||")[2] for r in reply.json()["results"]]


def test_queries(daprd, postgres):
    d = sidecar(daprd, postgres)
    assert save(d, *PEOPLE).status == 204
    by_id = [{"key": "person.id"}]
    assert keys(query(d, {"filter": {"EQ": {"state": "CA"}}, "sort": by_id})) == ["3", "2"]
    assert keys(query(d, {"filter": {"NEQ": {"state": "CA"}}, "sort": by_id})) == ["1", "4", "0"]
    assert keys(query(d, {"filter": {"IN": {"person.id": [9, 1071]}}, "sort": by_id})) == ["1", "2"]
    assert keys(query(d, {"filter": {"GT": {"person.id": 100}}, "sort": [{"key": "person.id", "order": "DESC"}]})) == ["2", "0", "3"]
    assert keys(query(d, {"filter": {"LTE": {"person.id": 1.0e2}}, "sort": by_id})) == ["1", "4"]
    assert keys(query(d, {"filter": {"EQ": {"person.it's": 3}}})) == ["3"]
    both = {"OR": [{"EQ": {"person.org": "Dev Ops"}}, {"AND": [{"EQ": {"person.org": "Hardware"}}, {"IN": {"state": ["OR", "NV"]}}]}]}
    assert keys(query(d, {"filter": both, "sort": [{"key": "state", "order": "DESC"}, {"key": "person.id"}]})) == ["0", "1", "3"]
    assert len(keys(query(d, {}))) == 5
    row = query(d, {"filter": {"EQ": {"city": "Portland"}}}).json()["results"][0]
    assert row["data"]["person"]["org"] == "Hardware" and row["etag"] == get(d, "1").headers["ETag"]


def test_query_pages(daprd, postgres):
    d = sidecar(daprd, postgres)
    save(d, *PEOPLE)
    page = {"sort": [{"key": "person.id"}], "page": {"limit": 2}}
    one = query(d, page)
    assert keys(one) == ["1", "4"] and one.json()["token"] == "2"
    page["page"]["token"] = one.json()["token"]
    assert keys(query(d, page)) == ["3", "0"]


@pytest.mark.parametrize("doc,why", [
    ({"filter": {"EQ": {"a": 1, "b": 2}}}, "EQ filter must contain a single key/value pair"),
    ({"filter": {"GT": {"a": "x"}}}, "string type not permitted"), ({"filter": {"LIKE": {"a": "x"}}}, "unsupported filter"),
    ({"filter": {"AND": [{"EQ": {"a": 1}}]}}, "AND filter must contain at least two entries"),
    ({"filter": {"IN": {"a": []}}}, "empty IN operator"), ({"page": {"limit": 1, "token": "x"}}, "strconv.ParseInt")])
def test_a_query_that_is_wrong_says_why(daprd, postgres, doc, why):
    r = query(sidecar(daprd, postgres), doc)
    assert r.status >= 400 and why in r.json()["message"], r.body


def test_v2_has_no_queries(daprd, postgres):
    d = sidecar(daprd, postgres, "v2")
    assert query(d, {}).status >= 400


@pytest.mark.parametrize("version,has", [("v1", ["QUERY_API"]), ("v2", [])])
def test_features_are_those_of_the_reference(daprd, postgres, version, has):
    caps = sidecar(daprd, postgres, version).metadata()["components"][0]["capabilities"]
    assert sorted(caps) == sorted(["ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE", "ACTOR", *has])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_server_may_start_again(daprd, own_postgres, version):
    postgres = own_postgres
    d = sidecar(daprd, postgres, version)
    save(d, {"key": "k", "value": 1})
    postgres.stop()
    r = get(d, "k")
    assert r.status == 500, r.body
    assert save(d, {"key": "k", "value": 2}).status == 500
    postgres.start()
    assert get(d, "k").json() == 1
    assert save(d, {"key": "k", "value": 3}).status == 204


def test_connections_that_the_server_ends_are_replaced_unseen(daprd, postgres):
    d = sidecar(daprd, postgres)
    save(d, {"key": "k", "value": 1})
    for i in range(5):
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' "
                     "AND pid <> pg_backend_pid()")
        wait_until("they are closed", lambda: connections(postgres) == 0)
        assert save(d, {"key": "k", "value": i}).status == 204
        assert get(d, "k").json() == i


def test_many_callers_share_the_connections(daprd, postgres):
    d = sidecar(daprd, postgres, "v2", [("maxConns", "3")])
    failed = []

    def work(n):
        for i in range(20):
            if save(d, {"key": f"{n}-{i}", "value": i}).status != 204 or get(d, f"{n}-{i}").json() != i:
                failed.append((n, i))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed and postgres.sql("SELECT count(*) FROM state") == "240"
    assert 1 <= connections(postgres) <= 3


def test_a_statement_that_takes_too_long_ends_at_the_timeout(daprd, postgres):
    d = sidecar(daprd, postgres, metadata=[("timeout", "1s")])
    save(d, {"key": "k", "value": 1})
    done = threading.Thread(target=postgres.sql, args=("BEGIN; LOCK TABLE state; SELECT pg_sleep(3); COMMIT",))
    done.start()
    wait_until("the table is locked", lambda: postgres.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted "
                                                           "AND relation = 'state'::regclass") == "1")
    r = get(d, "k")
    assert r.status == 500 and "timeout" in r.json()["message"]
    done.join()
    assert get(d, "k").json() == 1


@pytest.mark.parametrize("mode", ["cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"])
def test_query_exec_modes(daprd, postgres, mode):
    d = sidecar(daprd, postgres, "v2", [("queryExecMode", mode)])
    assert save(d, {"key": "k", "value": 1}).status == 204 and get(d, "k").json() == 1


def test_prepared_statements_that_are_gone_are_made_again(daprd, postgres):
    d = sidecar(daprd, postgres)
    save(d, {"key": "k", "value": 1})
    get(d, "k")
    postgres.sql("ALTER TABLE state ALTER COLUMN key TYPE varchar(500)")
    assert get(d, "k").json() == 1 and save(d, {"key": "k", "value": 2}).status == 204


def test_connection_strings(daprd, postgres):
    postgres.sql("CREATE SCHEMA app; CREATE ROLE \"o'neil\" SUPERUSER LOGIN PASSWORD 'a b'")
    for cs, extra in [(f"postgres://dapr@127.0.0.1:{postgres.port}/{postgres.db}?sslmode=disable&search_path=app&pool_max_conns=5", []),
                      (f"postgresql://o%27neil:a%20b@127.0.0.1:{postgres.port}/{postgres.db}?application_name=x", [("tableName", "app.t1")]),
                      (f"user='o\\'neil' password='a b' host=127.0.0.1 port = {postgres.port} database={postgres.db} connect_timeout=10",
                       [("tableName", "app.t2"), ("metadataTableName", "app.meta")]),
                      ("host=nowhere.invalid user=x", [("host", "127.0.0.1"), ("port", str(postgres.port)), ("user", "dapr"),
                                                       ("database", postgres.db), ("tableName", "app.t3"),
                                                       ("metadataTableName", "app.meta3")])]:
        d = daprd([component("s", "state.postgres", [("connectionString", cs), *extra])])
        assert save(d, {"key": "k", "value": cs}).status == 204 and get(d, "k").json() == cs
        d.request("POST", "/v1.0/shutdown")
        d.wait_exit()
    assert postgres.sql("SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema IN ('app', 'public') "
                        "ORDER BY 1").split() == ["app.dapr_metadata", "app.meta", "app.meta3", "app.state", "app.t1", "app.t2", "app.t3", "public.dapr_metadata"]


def test_v2_table_prefix(daprd, postgres):
    postgres.sql("CREATE SCHEMA app")
    d = sidecar(daprd, postgres, "v2", [("tablePrefix", "app.my_"), ("metadataTableName", "app.meta")])
    assert save(d, {"key": "k", "value": 1}).status == 204
    assert postgres.sql("SELECT count(*) FROM app.my_state") == "1"
    assert postgres.sql("SELECT value FROM app.meta WHERE key = 'migrations-state-v2-app.my_'") == "2"


@pytest.mark.parametrize("metadata,why", [
    ([], "failed to build connection string"), ([("connectionString", "host=127.0.0.1 port=1 user=x")], "failed to ping the database"),
    ([("connectionString", "host=x"), ("timeout", "10ms")], "must be greater than 1s"),
    ([("connectionString", "host='x")], "failed to parse connection string"),
    ([("connectionString", "host=x"), ("useAzureAD", "true")], "not supported")])
def test_a_component_that_cannot_start_says_why(daprd, metadata, why):
    d = daprd([component("s", "state.postgresql", metadata)], healthy=False)
    assert d.wait_exit(30) == 1
    assert why in d.log()


def test_tls_and_passwords(daprd, own_postgres, folder):
    postgres = own_postgres
    postgres.sql("CREATE ROLE ann SUPERUSER LOGIN PASSWORD 'secret'")
    postgres.stop()
    data = pathlib.Path(postgres.data)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1", "-keyout", str(data / "server.key"), "-out", str(data / "server.crt")],
                   check=True, capture_output=True)
    (data / "pg_hba.conf").write_text("host all dapr 127.0.0.1/32 trust\nhostssl all ann 127.0.0.1/32 scram-sha-256\n")
    shutil.copy(data / "server.crt", folder / "ca.crt")
    for name in ("server.key", "server.crt"):
        os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
    os.chmod(data / "server.key", 0o600)
    postgres.args = ("-c ssl=on",)
    postgres.start()
    base = f"host=127.0.0.1 port={postgres.port} user=ann dbname=postgres"
    d = daprd([component("s", "state.postgresql", [("connectionString", f"{base} password=secret sslmode=verify-full"),
                                                   ("sslRootCert", str(folder / "ca.crt"))], version="v2")])
    big = "x" * 3_000_000
    assert save(d, {"key": "k", "value": big}).status == 204 and get(d, "k").json() == big
    assert postgres.sql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'ann'") == "t"
    bad = daprd([component("s", "state.postgresql", [("connectionString", f"{base} password=wrong")])], healthy=False)
    assert bad.wait_exit(30) == 1 and "password authentication failed" in bad.log() and "wrong" not in bad.log()
