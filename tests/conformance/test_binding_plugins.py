"""Bindings of servers and configuration.postgresql through a sidecar, against the real servers: what they write and read, refusals, what
happens when a server or the plugin goes away."""
import email, email.policy, json, os, signal, socket, subprocess, time, urllib.parse

import pytest

from conftest import component, free_port, wait_until
from test_bindings import App, HERE, app  # noqa: F401


def invoke(d, name, operation, data=None, **metadata):
    return d.request("POST", f"/v1.0/bindings/{name}", {"operation": operation, "data": data, "metadata": metadata})


def refused(d, text, *args, **kw):
    r = invoke(d, *args, **kw)
    assert r.status == 500 and text in r.json()["message"], (r.status, r.body)


# ---- redis ----

def test_redis(daprd, redis):
    d = daprd([component("b", "bindings.redis", [("redisHost", redis.addr)])])
    assert invoke(d, "b", "create", {"a": 1}, key="k").status == 204
    assert redis.cli("GET", "k") == '{"a":1}' and redis.cli("TTL", "k") == "-1"
    r = invoke(d, "b", "get", key="k")
    assert (r.status, r.body) == (200, b'{"a":1}')
    assert invoke(d, "b", "create", "x", key="t", ttlInSeconds="100").status == 204 and 0 < int(redis.cli("TTL", "t")) <= 100
    for n in ("1", "2"):
        assert invoke(d, "b", "increment", key="n", ttlInSeconds="1m").status == 204 and redis.cli("GET", "n") == n
    assert int(redis.cli("TTL", "n")) > 50
    r = invoke(d, "b", "get", key="k", delete="true")
    assert r.body == b'{"a":1}' and redis.cli("EXISTS", "k") == "0"
    assert invoke(d, "b", "get", key="k").status == 204
    assert invoke(d, "b", "delete", key="n").status == 204 and redis.cli("EXISTS", "n") == "0"
    refused(d, "redis binding: missing key in request metadata", "b", "get")
    refused(d, "ttlInSeconds value must be a valid integer: actual is 'soon'", "b", "create", "x", key="k", ttlInSeconds="soon")
    redis.cli("LPUSH", "list", "x")
    refused(d, "WRONGTYPE", "b", "increment", key="list")
    redis.kill()
    refused(d, "b", "b", "get", key="k")
    redis.start()
    wait_until("it works again", lambda: invoke(d, "b", "create", "x", key="k").status == 204)


# ---- postgresql ----

@pytest.fixture
def sql(daprd, postgres):
    d = daprd([component("b", "bindings.postgresql", [("connectionString", postgres.dsn)])])
    d.pg = postgres
    return d


def query(d, text, *params):
    r = invoke(d, "b", "query", sql=text, **({"params": json.dumps(params)} if params else {}))
    assert r.status == 200, r.body
    return r.json()


def test_postgresql_statements(sql):
    r = invoke(sql, "b", "exec", sql="CREATE TABLE t (id int PRIMARY KEY, name text, doc jsonb, at timestamptz); CREATE TABLE u (x int)")
    assert r.status in (200, 204)
    md = {k.lower(): v for k, v in r.headers.items()}
    assert md["metadata.rows-affected"] == "0" and md["metadata.operation"] == "exec" and md["metadata.sql"].startswith("CREATE TABLE t")
    assert md["metadata.start-time"].endswith("Z") and md["metadata.end-time"].endswith("Z") and md["metadata.duration"].endswith("s")
    for i in range(3):
        r = invoke(sql, "b", "exec", sql="INSERT INTO t VALUES ($1, $2, $3, $4)",
                   params=json.dumps([i, f"näme '{i}'", {"n": [i]}, "2021-09-22T16:22:35.5+02:00"]))
        assert r.headers["metadata.rows-affected"] == "1"
    assert query(sql, "SELECT * FROM t WHERE id < $1 ORDER BY id", 2.0) == [
        [i, f"näme '{i}'", {"n": [i]}, "2021-09-22T14:22:35.5Z"] for i in range(2)]
    assert query(sql, "SELECT id FROM t WHERE name = $1 OR $2::bool OR id = $3", "x", False, None) == []
    r = invoke(sql, "b", "exec", sql="DELETE FROM t WHERE id > $1", params="[0]")
    assert r.headers["metadata.rows-affected"] == "2" and query(sql, "SELECT count(*) FROM t") == [[1]]


def test_postgresql_values_of_every_kind(sql):
    rows = query(sql, r"""SELECT 1::int2, 2::int4, 9007199254740993::int8, 1.5::float8, 12.340::numeric, 'NaN'::numeric, true, NULL, 'x"y'::text,
        '{"a": 1}'::json, '\xdeadbeef'::bytea, '2021-09-22'::date, '2021-09-22 16:22:35.68'::timestamp, 'infinity'::timestamp,
        '00112233-4455-6677-8899-aabbccddeeff'::uuid, '10.0.0.1'::inet, '10.0.0.0/8'::cidr, '12:30:00'::time, ARRAY[1,2,NULL],
        ARRAY[['a','b "c" \ d'],['NULL','']], '{}'::int[], ARRAY[true], '[2:3]={7,8}'::int[], '1 day'::interval""")
    assert rows == [[1, 2, 9007199254740993, 1.5, 12.34, "NaN", True, None, 'x"y', {"a": 1}, "3q2+7w==", "2021-09-22T00:00:00Z",
                     "2021-09-22T16:22:35.68Z", "infinity", [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255],
                     "10.0.0.1/32", "10.0.0.0/8", "12:30:00", [1, 2, None], [["a", 'b "c" \\ d'], ["NULL", ""]], [], [True], [7, 8], "1 day"]]
    assert b"12.340" in invoke(sql, "b", "query", sql="SELECT 12.340::numeric").body
    assert invoke(sql, "b", "query", sql="SELECT 1 WHERE false").body == b"[]"
    refused(sql, "error serializing results", "b", "query", sql="SELECT 'NaN'::float8")


def test_postgresql_refusals_and_the_end(sql):
    refused(sql, "required metadata not set: sql", "b", "exec")
    refused(sql, 'error executing query: ERROR: relation "none" does not exist (SQLSTATE 42P01)', "b", "query", sql="SELECT * FROM none")
    for params in ("{", "1", '["a"', '[1] x'):
        refused(sql, "invalid metadata property params: failed to unserialize into an array", "b", "exec", sql="SELECT $1::int", params=params)
    refused(sql, "NUL", "b", "exec", sql="SELECT $1::text", params='["a\\u0000b"]')
    sql.pg.stop("immediate")
    refused(sql, "b", "b", "query", sql="SELECT 1")
    sql.pg.start()
    wait_until("it works again", lambda: invoke(sql, "b", "query", sql="SELECT 1").status == 200)
    assert invoke(sql, "b", "close").status == 204
    refused(sql, "component is closed", "b", "query", sql="SELECT 1")


# ---- rabbitmq ----

def queue_binding(rabbitmq, name="b", **more):
    md = {"host": f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}", "queueName": f"q{os.urandom(4).hex()}", "durable": "true", **more}
    return component(name, "bindings.rabbitmq", list(md.items()))


def test_rabbitmq_both_ways(daprd, app, rabbitmq):
    failed = []

    def take(call):
        if call.body == b'"m2"' and len(failed) < 2:
            failed.append(call.body)
            return 500, {}, b""
        return 200, {}, b""
    a = app({"OPTIONS /b": (200, {}, b""), "/b": take})
    d = daprd([queue_binding(rabbitmq, ttl="1m", maxPriority="5")], args=[f"--app-port={a.port}"])
    for i in range(5):
        assert invoke(d, "b", "create", f"m{i}", priority="3", note=f"n {i}", **{"odd key": "x"}).status == 204
    wait_until("all have come, the failed one again", lambda: len(a.of("/b")) == 7)
    assert sorted({c.body for c in a.of("/b")}) == [f'"m{i}"'.encode() for i in range(5)] and len(failed) == 2
    first = a.of("/b")[0]
    assert first.headers["note"] == "n 0" and first.headers["odd+key"] == "x"
    refused(d, "does not support operation", "b", "get", "x")
    refused(d, "ttlInSeconds value must be", "b", "create", "x", ttlInSeconds="soon")
    refused(d, "priority value must be", "b", "create", "x", priority="high")


def test_rabbitmq_messages_wait_expire_and_go_on(daprd, app, rabbitmq):
    b = queue_binding(rabbitmq)
    d = daprd([b])
    assert invoke(d, "b", "create", "short", ttlInSeconds="1").status == 204
    assert invoke(d, "b", "create", "long").status == 204
    d.close()
    time.sleep(1.2)
    gate = []
    a = app({"OPTIONS /b": (200, {}, b""), "/b": lambda call: (wait_until("the gate opens", lambda: gate), (200, {}, b""))[1]})
    d2 = daprd([b], args=[f"--app-port={a.port}"])
    wait_until("it has come", lambda: a.of("/b"))
    pid = next(p for p, n in d2.children().items() if n == "bindings.rabbitmq")
    os.kill(pid, signal.SIGKILL)
    gate.append(True)
    wait_until("unacknowledged, it comes again", lambda: len(a.of("/b")) >= 2)
    assert {c.body for c in a.of("/b")} == {b'"long"'}


def test_rabbitmq_an_exclusive_queue_and_one_with_other_settings(daprd, app, rabbitmq):
    a = app({"OPTIONS /b": (200, {}, b"")})
    d = daprd([queue_binding(rabbitmq, queueName="own", exclusive="true", durable="false")], args=[f"--app-port={a.port}"])
    assert invoke(d, "b", "create", "x").status == 204
    wait_until("it has come", lambda: a.of("/b"))
    for more, text in (({"exclusive": "true", "durable": "false"}, "RESOURCE_LOCKED"), ({"host": "amqp://guest:no@127.0.0.1:%d" % rabbitmq.port}, "ACCESS_REFUSED")):
        e = daprd([queue_binding(rabbitmq, **{"queueName": "own", **more})], start=False)
        e.start(healthy=False)
        assert e.wait_exit() != 0 and text in e.log()
        e.proc = None


# ---- mqtt3 ----

def topic_binding(mosquitto, **more):
    md = {"url": mosquitto.url(), "topic": "house/+/light", "consumerID": "app", **more}
    return component("b", "bindings.mqtt3", list(md.items()))


def test_mqtt3_both_ways(daprd, app, mosquitto):
    a = app({"OPTIONS /b": (200, {}, b"")})
    d = daprd([topic_binding(mosquitto)], args=[f"--app-port={a.port}"])
    subscribed = lambda: invoke(d, "b", "create", "probe", topic="house/x/light").status == 204 and a.of("/b")
    wait_until("it is subscribed", subscribed)
    for i in range(20):
        assert invoke(d, "b", "create", f"m{i}", topic=f"house/k{i}/light").status == 204
    wait_until("all have come", lambda: {f'"m{i}"'.encode() for i in range(20)} <= {c.body for c in a.of("/b")})
    assert {c.headers["topic"] for c in a.of("/b") if c.body == b'"m7"'} == {"house/k7/light"}
    refused(d, "wildcard", "b", "create", "x")
    refused(d, "does not support operation", "b", "read", "x", topic="t")
    mosquitto.stop()
    mosquitto.start()
    assert invoke(d, "b", "create", "later", topic="house/a/light").status == 204
    wait_until("it goes on", lambda: b'"later"' in [c.body for c in a.of("/b")])


def test_mqtt3_failed_and_missed_messages_come_again(daprd, app, mosquitto):
    b = topic_binding(mosquitto, topic="t")
    a = app({"OPTIONS /b": (200, {}, b""), "/b": (500, {}, b"")})
    d = daprd([b], args=[f"--app-port={a.port}"])
    wait_until("it is subscribed and failed", lambda: invoke(d, "b", "create", "1").status == 204 and a.of("/b"))
    d.close()
    c = app({"OPTIONS /b": (200, {}, b"")})
    d = daprd([b], args=[f"--app-port={c.port}"])
    wait_until("the broker has kept it", lambda: c.of("/b"), 30)
    assert {x.body for x in c.of("/b")} == {b'"1"'}


# ---- smtp ----

class Mail:
    def __init__(self, folder, *cert):
        self.port, self.box = free_port(), folder / "box"
        self.box.mkdir()
        self.proc = subprocess.Popen(["/usr/bin/python3", str(HERE / "mail_server.py"), str(self.box), str(self.port), *cert])
        wait_until("it listens", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)

    def last(self):
        f = max(self.box.glob("*.json"), key=lambda p: int(p.stem))
        doc = json.loads(f.read_text())
        return doc, email.message_from_string(doc["text"], policy=email.policy.default)

    def binding(self, **more):
        md = {"host": "127.0.0.1", "port": str(self.port), "emailFrom": "Jürgen Groß <from@example.com>", "emailTo": "a@example.com; B <b@example.com>",
              "subject": "hello", **more}
        return component("b", "bindings.smtp", [(k, v) for k, v in md.items() if v is not None])

    def close(self):
        self.proc.terminate()
        self.proc.wait(10)


@pytest.fixture
def mail(folder):
    made = []

    def make(*cert):
        made.append(Mail(folder, *cert))
        return made[-1]
    yield make
    for m in made:
        m.close()


def test_smtp_mails(daprd, mail):
    m = mail()
    d = daprd([m.binding(user="me", password="s3cret")])
    body = "<p>Grüße = ok</p>\n.\n" + "x" * 200 + " \nend"
    assert invoke(d, "b", "create", body, emailCC="c@example.com", emailBCC="d@example.com;e@example.com", priority="1",
                  subject="Größe — " + "ä" * 60).status == 204
    doc, msg = m.last()
    assert doc["from"] == "from@example.com" and doc["login"] == "me" and not doc["tls"]
    assert doc["to"] == ["a@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com"]
    assert msg["subject"] == "Größe — " + "ä" * 60 and msg["x-priority"] == "1" and msg["cc"] == "c@example.com" and msg["bcc"] is None
    assert msg["from"] == "Jürgen Groß <from@example.com>" and msg["to"] == "a@example.com, B <b@example.com>"
    assert msg.get_content_type() == "text/html" and msg.get_content().replace("\r\n", "\n") == body + "\n"
    assert all(len(x) <= 78 for x in doc["text"].split("\r\n")) and msg["date"] and msg["mime-version"] == "1.0"
    assert invoke(d, "b", "create", "plain", emailTo="x@example.com").status == 204
    doc, msg = m.last()
    assert doc["to"] == ["x@example.com"] and msg["subject"] == "hello" and msg["x-priority"] == "3"


def test_smtp_refusals(daprd, mail):
    m = mail()
    d = daprd([m.binding(emailTo=None)])
    refused(d, "emailTo property not supplied", "b", "create", "x")
    refused(d, "550", "b", "create", "x", emailTo="x@refused.example")
    refused(d, "priority value must be between 1 (highest) and 5 (lowest)", "b", "create", "x", emailTo="x@y.z", priority="9")
    for bad in ("nobody", "a@b\r\nBcc: c@d", "a b@c", "X <a@b"):
        refused(d, "smtp binding error: emailTo", "b", "create", "x", emailTo=bad)
    assert invoke(d, "b", "create", "x", emailTo="a@b.c", subject="one\r\nBcc: evil@x.y").status == 204
    doc, msg = m.last()
    assert msg["bcc"] is None and doc["to"] == ["a@b.c"]
    wrong = daprd([m.binding(user="me", password="wrong")])
    refused(wrong, "error from smtp binding, sending email failed", "b", "create", "x")
    for more, text in (({"user": "me"}, "both user and password"), ({"port": "0"}, "host and port fields are required"), ({"priority": "7"}, "priority value")):
        e = daprd([m.binding(**more)], start=False)
        e.start(healthy=False)
        assert e.wait_exit() != 0 and text in e.log()
        e.proc = None


def test_smtp_encrypts_when_the_server_can(daprd, mail, folder):
    cert, key = str(folder / "crt.pem"), str(folder / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert,
                    "-subj", "/CN=mail", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"], check=True, capture_output=True)
    m = mail(cert, key)
    login = {"user": "me", "password": "s3cret"}
    d = daprd([m.binding(skipTLSVerify="true", **login)])
    assert invoke(d, "b", "create", "x").status == 204
    assert m.last()[0]["tls"] and m.last()[0]["login"] == "me"
    refused(daprd([m.binding(**login)]), "certificate", "b", "create", "x")


# ---- configuration.postgresql ----

TABLE = """CREATE TABLE conf (key text, value text, version text, metadata json);
CREATE FUNCTION tell() RETURNS TRIGGER AS $$ BEGIN
  PERFORM pg_notify('config', json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', row_to_json(NEW))::text); RETURN NEW;
END; $$ LANGUAGE plpgsql;
CREATE TRIGGER t AFTER INSERT OR UPDATE ON conf FOR EACH ROW EXECUTE FUNCTION tell();"""


@pytest.fixture
def conf(daprd, postgres, app):
    postgres.sql(TABLE)
    a = app()
    d = daprd([component("cfg", "configuration.postgresql", [("connectionString", postgres.dsn), ("table", "conf")])], args=[f"--app-port={a.port}"])
    d.pg, d.app = postgres, a
    return d


def test_configuration_reads_the_highest_version(conf):
    conf.pg.sql("""INSERT INTO conf VALUES ('a','1','1',NULL), ('a','10','10','{"by": "me", "n": 3, "none": null}'), ('a','9','9',NULL),
                   ('a','odd','x',NULL), ('b.c/d','v','1','{}'), ('c',NULL,NULL,'[1]')""")
    get = lambda q: conf.request("GET", f"/v1.0/configuration/cfg{q}")
    assert get("?key=a&key=b.c/d&key=none").json() == {"a": {"value": "10", "version": "10", "metadata": {"by": "me", "n": "3"}},
                                                       "b.c/d": {"value": "v", "version": "1"}}
    assert set(get("").json()) == {"a", "b.c/d", "c"}
    assert b"invalid key" in get("?key=" + urllib.parse.quote("x';--")).body


def test_configuration_tells_changes(conf):
    path = "/configuration/cfg/"
    r = conf.request("GET", "/v1.0/configuration/cfg/subscribe?key=a&metadata.pgNotifyChannel=config")
    assert r.status == 200 and r.json()["id"]
    told = lambda: [json.loads(c.body)["items"] for c in conf.app.calls if c.path.startswith(path)]

    def change(n):
        conf.pg.sql(f"INSERT INTO conf VALUES ('a','v{n}','{n}','{{\"m\": \"x\"}}'), ('b','other','1',NULL)")
        return any(x.get("a", {}).get("value") == f"v{n}" for x in told())
    wait_until("the watch stands", lambda: change(1))
    item = next(x["a"] for x in told() if "a" in x)
    assert item == {"value": "v1", "version": "1", "metadata": {"m": "x"}} and not any("b" in x for x in told())
    conf.pg.sql("NOTIFY config, 'no json'")
    conf.pg.sql("NOTIFY config, '{\"data\": 3}'")
    conf.pg.sql("INSERT INTO conf VALUES ('a','v2','2',NULL)")
    wait_until("the next change", lambda: any(x.get("a", {}).get("value") == "v2" for x in told()))
    conf.pg.sql("ALTER TABLE conf DISABLE TRIGGER t; INSERT INTO conf VALUES ('a','missed','3',NULL)") # nobody tells of it
    conf.pg.stop("immediate")
    conf.pg.start()
    wait_until("what was missed is told", lambda: any(x.get("a", {}).get("value") == "missed" for x in told()), 30)
    pid = next(p for p, n in conf.children().items() if n == "configuration.postgresql")
    os.kill(pid, signal.SIGKILL)
    conf.pg.sql("ALTER TABLE conf ENABLE TRIGGER t")

    def again():
        conf.pg.sql("INSERT INTO conf VALUES ('a','after','4',NULL)")
        return any(x.get("a", {}).get("value") == "after" for x in told())
    wait_until("a new plugin process follows on", again, 30)


def test_configuration_refusals(daprd, conf):
    r = conf.request("GET", "/v1.0/configuration/cfg/subscribe?key=a")
    assert b"pgNotifyChannel attribute cannot be empty" in r.body or "pgNotifyChannel attribute cannot be empty" in conf.log()
    for more, text in ((("table", "none"), "postgreSQL configuration table 'none' does not exist"), (("table", "A"), "invalid table name 'A'"),
                       (("table", "x" * 65), "table name is too long"), (("other", "x"), "missing postgreSQL configuration table name")):
        d = daprd([component("cfg", "configuration.postgresql", [("connectionString", conf.pg.dsn), more])], start=False)
        d.start(healthy=False)
        assert d.wait_exit() != 0 and text in d.log(), d.log()
        d.proc = None
