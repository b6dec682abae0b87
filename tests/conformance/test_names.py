"""Name resolvers: how sidecars become known and are found, on real sidecars, and what each resolver answers the runtime, asked on the
plugin's socket. OTHER_DAPRD=path of another daprd: the two find one another."""
import http.server, json, os, signal, socket, sqlite3, struct, subprocess, threading, time

import grpc, pytest

from conftest import BUILD, free_port, wait_until

GROUP = ("224.0.0.251", 5353)
SERVICE = "/microdapr.plugin.v1.NameResolution/"


# ---- a runtime's side of the contract: a few protobuf fields by hand ----

def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def text(field, s):
    s = s if isinstance(s, bytes) else s.encode()
    return varint(field << 3 | 2) + varint(len(s)) + s


def number(field, n):
    return varint(field << 3) + varint(n)


def addresses(reply):
    """Field 1 of NameResolveResponse."""
    out, at = [], 0
    while at < len(reply) and reply[at] == 0x0a:
        out.append(reply[at + 2:at + 2 + reply[at + 1]].decode())
        at += 2 + reply[at + 1]
    return out


class Resolver:
    """A resolver's process, started by hand."""

    def __init__(self, folder, name, number_):
        self.path = str(folder / f"{name}{number_}.sock")
        exe = BUILD / f"plugins/nameresolution.{name}/nameresolution.{name}"
        self.log_path = folder / f"{name}{number_}.log"
        self.out = open(self.log_path, "wb")
        self.proc = subprocess.Popen([str(exe), "--socket", self.path], stdout=self.out, stderr=self.out, cwd=folder, env={})
        wait_until("the resolver listens", lambda: os.path.exists(self.path))
        self.channel = grpc.insecure_channel(f"unix:{self.path}")

    def call(self, method, request):
        same = lambda b: b
        return self.channel.unary_unary(SERVICE + method, same, same)(request, timeout=15, wait_for_ready=True,
                                                                      metadata=[("x-component-instance", "nr")])

    def init(self, app_id, port, configuration=None, address="127.0.0.1", http_port=3500, app_port=0):
        """What the runtime makes of the configuration: its first level as metadata, the whole as JSON."""
        conf = configuration or {}
        flat = {k: v if isinstance(v, str) else json.dumps(v) for k, v in conf.items()}
        metadata = b"".join(text(1, text(1, k) + text(2, v)) for k, v in flat.items())
        sidecar = (text(1, app_id) + text(2, "default") + text(3, address) + number(4, port) + number(5, http_port) + number(6, app_port))
        self.call("Init", text(1, metadata) + (text(2, json.dumps(conf)) if conf else b"") + text(3, sidecar))
        return self

    def resolve(self, app_id, failed=(), namespace="default"):
        return addresses(self.call("Resolve", text(1, app_id) + text(2, namespace) + number(3, 50002) +
                                   b"".join(text(4, f) for f in failed)))

    def refusal(self, fn, *args, **kw):
        with pytest.raises(grpc.RpcError) as e:
            fn(*args, **kw)
        return e.value.details()

    def close(self):
        self.channel.close()
        if self.proc.poll() is None:
            self.proc.terminate()
            assert self.proc.wait(10) == 0, self.log_path.read_text()
        self.out.close()


@pytest.fixture
def resolver(folder):
    made = []

    def make(name):
        made.append(Resolver(folder, name, len(made)))
        return made[-1]
    yield make
    for r in reversed(made):
        r.close()


def configuration(component, conf=None):
    return json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"},
                       "spec": {"nameResolution": {"component": component, "configuration": conf or {}}}})


def unique(name):
    """Other tests, and other machines, may use the same network."""
    return f"{name}-{os.getpid()}-{free_port()}"


# ---- mdns ----

def mdns_name(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"


def mdns_ask(name):
    """As a plain resolver: from another port than 5353, answered to that port. None = nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.2)
        s.sendto(struct.pack(">HHHHHH", 7, 0, 1, 0, 0, 0) + mdns_name(name) + struct.pack(">HH", 12, 1), GROUP)
        try:
            return s.recv(9000)
        except TimeoutError:
            return None


def test_a_sidecar_is_found_by_its_name_until_it_stops(daprd, resolver):
    name = unique("orders")
    d = daprd(app_id=name)
    r = resolver("mdns").init(unique("asker"), 1)
    assert r.resolve(name) == [f"127.0.0.1:{d.internal}"]
    answer = mdns_ask(f"{name}.local")
    assert answer[:4] == b"\0\x07\x84\0" and struct.pack(">H", d.internal) in answer and name.encode() in answer
    assert b":" + str(next(p for p, exe in d.children(resolver=True).items())).encode() in answer  # <host>:<pid>
    d.close()
    assert mdns_ask(f"{name}.local") is None
    assert r.refusal(r.resolve, name) == f"couldn't find service: {name}"  # it said good-bye


def test_a_killed_resolver_makes_the_sidecar_known_again(daprd, resolver):
    name = unique("phoenix")
    d = daprd(app_id=name)
    (before,) = (p for p, exe in d.children(resolver=True).items() if exe == "nameresolution.mdns")
    wait_until("it is known", lambda: mdns_ask(f"{name}.local"))
    os.kill(before, signal.SIGKILL)
    answer = wait_until("it is known again", lambda: mdns_ask(f"{name}.local"))
    (after,) = (p for p, exe in d.children(resolver=True).items() if exe == "nameresolution.mdns")
    assert after != before and f":{after}".encode() in answer
    assert resolver("mdns").init(unique("asker"), 1).resolve(name) == [f"127.0.0.1:{d.internal}"]


def test_instances_of_an_app_are_all_found_and_leave_one_by_one(resolver):
    name = unique("many")
    others = [resolver("mdns").init(name, port) for port in (1001, 1002, 1003)]
    r = resolver("mdns").init(unique("asker"), 1, address="192.0.2.9")
    r.resolve(name)
    wait_until("all three", lambda: sorted(r.resolve(name)) == ["127.0.0.1:1001", "127.0.0.1:1002", "127.0.0.1:1003"])
    others[0].close()
    wait_until("two are left", lambda: sorted(r.resolve(name)) == ["127.0.0.1:1002", "127.0.0.1:1003"])
    others[1].proc.kill()  # without a good-bye: the runtime could not reach it
    assert r.resolve(name, failed=["127.0.0.1:1002"]) == ["127.0.0.1:1003"]
    nobody = unique("nobody")
    assert r.refusal(r.resolve, nobody) == f"couldn't find service: {nobody}"


def test_packets_that_are_none_do_no_harm(resolver):
    name = unique("sturdy")
    r = resolver("mdns").init(name, 1004, address="::1")
    good = struct.pack(">HHHHHH", 0, 0x8400, 0, 1, 0, 0) + mdns_name(f"x.{name}.local") + struct.pack(">HHIH", 33, 1, 120, 8) + b"\0" * 6 + b"\xc0\x0c"
    loop = struct.pack(">HHHHHH", 0, 0x8400, 0, 1, 0, 0) + b"\xc0\x0c" + struct.pack(">HHIH", 12, 1, 120, 2) + b"\xc0\x0c"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for packet in (good, loop, b"", b"\0" * 12, b"\xff" * 1400, good * 100, *(good[:n] for n in range(len(good)))):
            s.sendto(packet, GROUP)
        s.sendto(struct.pack(">HHHHHH", 0, 0, 0xffff, 0, 0, 0) + mdns_name(f"{name}.local") + b"\0\x0c\0\1", GROUP)
    assert r.resolve(name) == ["[::1]:1004"]
    assert r.refusal(r.resolve, "a..b") == "couldn't find service: a..b"
    assert "at most 63 characters" in r.refusal(r.init, "x" * 64, 1)
    assert r.refusal(r.init, "app", 1, address="no-address") == "failed to parse given IP: no-address"
    assert r.resolve(name) == ["[::1]:1004"]  # what was there before has stayed


@pytest.mark.skipif("OTHER_DAPRD" not in os.environ, reason="OTHER_DAPRD is not set")
@pytest.mark.parametrize("component", ["mdns", "sqlite"])
def test_another_daprd_and_ours_find_one_another(daprd, folder, resolver, component):
    conf = {"connectionString": str(folder / "names.db")} if component == "sqlite" else {}
    ours, other = daprd(app_id=unique("ours"), config=configuration(component, conf)), unique("other")
    internal, http = free_port(), free_port()
    (folder / "c.yaml").write_text(configuration(component, conf))
    out = open(folder / "other.log", "wb")
    p = subprocess.Popen([os.environ["OTHER_DAPRD"], f"--app-id={other}", f"--dapr-http-port={http}", f"--dapr-grpc-port={free_port()}",
                          f"--dapr-internal-grpc-port={internal}", f"--metrics-port={free_port()}", f"--config={folder / 'c.yaml'}",
                          "--dapr-internal-grpc-listen-address=127.0.0.1"], stdout=out, stderr=out)
    try:
        r = resolver(component).init(unique("asker"), 1, conf and {**conf, **SQLITE})
        wait_until("ours finds the other", lambda: not failing(r.resolve, other) and r.resolve(other) == [f"127.0.0.1:{internal}"])

        def invoke():
            q = subprocess.run(["curl", "-s", f"http://127.0.0.1:{http}/v1.0/invoke/{ours.app_id}/method/x"], capture_output=True, text=True)
            return q.stdout if q.stdout and "couldn't find" not in q.stdout and "no host found" not in q.stdout else None
        assert "rpc error" in wait_until("the other finds ours", invoke)  # it has reached ours, which has no app
    finally:
        p.terminate()
        p.wait(20)
        out.close()


def failing(fn, *args):
    try:
        fn(*args)
    except grpc.RpcError as e:
        return e.details()
    return None


# ---- sqlite ----

SQLITE = {"timeout": "1s", "busyTimeout": "800ms", "tableName": "hosts", "metadataTableName": "metadata", "updateInterval": "5s",
          "cleanupInterval": "1h"}  # the manifest's defaults, which the runtime adds


def rows(db, query="SELECT address, app_id, last_update FROM hosts ORDER BY address"):
    """No rows while the resolver has not made its tables yet."""
    try:
        with sqlite3.connect(db, timeout=10) as c:
            return c.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


def test_sidecars_meet_in_a_table_of_sqlite(daprd, folder, resolver):
    db = str(folder / "names.db")
    d = daprd(app_id="orders", config=configuration("sqlite", {"connectionString": db, "tablename": "hosts", "tableNames": 1}))
    e = daprd(app_id="billing", config=configuration("sqlite", {"connectionString": db}))
    wait_until("both are there", lambda: [r[1] for r in rows(db)] and sorted(r[1] for r in rows(db)) == ["billing", "orders"])
    assert rows(db, "SELECT value FROM metadata WHERE key = 'nr-migrations'") == [("1",)]
    r = resolver("sqlite").init("asker", 1, {**SQLITE, "connectionString": db})
    assert r.resolve("orders") == [f"127.0.0.1:{d.internal}"] and r.resolve("billing") == [f"127.0.0.1:{e.internal}"]
    assert "nameresolution.sqlite has no field 'tableNames'; did you mean 'tableName'?" in d.log()
    assert "no field 'tablename'" not in d.log()
    now = int(time.time())
    with sqlite3.connect(db, timeout=10) as c:
        c.executemany("INSERT INTO hosts VALUES (?, ?, ?, '', ?)",
                      [("a", "192.0.2.1:1", "shop", now), ("b", "192.0.2.1:2", "shop", now), ("c", "192.0.2.1:3", "shop", now - 6),
                       ("d", "192.0.2.1:4", "gone", now - 6)])
    assert sorted(r.resolve("shop")) == ["192.0.2.1:1", "192.0.2.1:2"]
    assert r.refusal(r.resolve, "gone") == r.refusal(r.resolve, "never") == "no host found with the given ID"
    d.close()
    assert "orders" not in [x[1] for x in rows(db)]


def test_a_row_is_renewed_and_taken_back_when_it_was_lost(folder, resolver):
    db, fast = str(folder / "names.db"), {**SQLITE, "updateInterval": "2s", "cleanupInterval": "1s"}
    r = resolver("sqlite").init("me", 7001, {**fast, "connectionString": db})
    with sqlite3.connect(db, timeout=10) as c:
        c.execute("UPDATE hosts SET registration_id = 'thief', last_update = 5")
        c.execute("INSERT INTO hosts VALUES ('x', '192.0.2.1:9', 'gone', '', 5)")
    wait_until("it is registered again, and who is gone is deleted",
               lambda: [a for a, _, at in rows(db) if at > 5] == ["127.0.0.1:7001"] and len(rows(db)) == 1)
    assert "is lost: another sidecar has taken the address; registering again" in r.log_path.read_text()
    again = resolver("sqlite").init("other", 7001, {**SQLITE, "connectionString": db})  # the same address: the later one has it
    assert rows(db, "SELECT app_id FROM hosts") == [("other",)] and again.resolve("other") == ["127.0.0.1:7001"]


@pytest.mark.parametrize("change, message", [
    ({"connectionString": ""}, "missing connection string"),
    ({"timeout": "500ms"}, "invalid value for 'timeout': must be greater than 1s"),
    ({"tableName": "a-b"}, "invalid identifier for table name: a-b"),
    ({"metadataTableName": "a;b"}, "invalid identifier for metadata table name: a;b"),
    ({"updateInterval": "2500ms"}, "update interval must not contain fractions of seconds"),
    ({"updateInterval": "1s"}, "update interval must be at least 1s greater than timeout"),
    ({"connectionString": "/no/such/folder/x.db"}, "failed to create connection: unable to open database file"),
])
def test_settings_of_sqlite_that_cannot_work_are_refused(folder, resolver, change, message):
    r = resolver("sqlite")
    assert r.refusal(r.init, "me", 1, {**SQLITE, "connectionString": str(folder / "x.db"), **change}).startswith(message)


# ---- kubernetes ----

def test_names_of_a_cluster(resolver):
    r = resolver("kubernetes").init("me", 1)
    assert (r.refusal(r.resolve, "shop", namespace="prod") ==
            "failed to resolve address for 'shop-dapr.prod.svc.cluster.local': lookup shop-dapr.prod.svc.cluster.local: no such host")
    r.init("me", 1, {"clusterDomain": "invalid"})
    assert "'shop-dapr.default.svc.invalid'" in r.refusal(r.resolve, "shop")
    r.init("me", 1, {"template": "{{- /* here */ -}} {{ .ID }}:{{.Port}}"})
    assert r.resolve("localhost") == ["127.0.0.1:50002"]
    r.init("me", 1, {"template": "192.0.2.7:80"})
    assert r.resolve("any") == ["192.0.2.7:80"]
    r.init("me", 1, {"template": "[2001:db8::1]"})
    assert r.resolve("any") == ["[2001:db8::1]:50002"]
    for bad in ("{{if .ID}}x{{end}}", "{{.Id}}", "{{.ID", "{{.ID | printf}}"):
        assert "is not supported; use {{.ID}}" in r.refusal(r.init, "me", 1, {"template": bad})


# ---- the runtime ----

@pytest.mark.parametrize("component, log", [
    ("nowhere", "[CREATE_COMPONENT_FAILURE]: initialization error occurred for nr (nowhere/v1): couldn't find name resolver "),
    ("sqlite", "[INIT_COMPONENT_FAILURE]: initialization error occurred for nr (sqlite/v1): "),
])
def test_a_sidecar_without_its_resolver_serves_all_else(daprd, component, log):
    d = daprd(app_id="alone", config=configuration(component))
    wait_until("the log says why", lambda: log in d.log())
    assert d.request("GET", "/v1.0/healthz").status == 204
    assert f'component_name="{component}"' in d.metric_text() or "component_init_fail" in d.metric_text()


@pytest.fixture
def echo():
    """An app that answers every path with it."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *a):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.path)))
            self.end_headers()
            self.wfile.write(self.path.encode())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("component, unknown", [("mdns", "couldn't find service: {}"), ("sqlite", "no host found with the given ID")])
def test_sidecars_call_one_another_also_when_they_come_and_go(daprd, folder, echo, component, unknown):
    conf = configuration(component, {"connectionString": str(folder / "names.db")} if component == "sqlite" else {})
    caller = daprd(app_id=unique("caller"), config=conf)
    name, nobody = unique("callee"), unique("nobody")

    def call(app_id):
        return caller.request("GET", f"/v1.0/invoke/{app_id}/method/x/y")

    def refused(app_id):
        r = call(app_id)
        return r.status == 500 and r.json() == {"errorCode": "ERR_DIRECT_INVOKE",
                                                "message": f"failed to invoke, id: {app_id}, err: {unknown.format(app_id)}"}
    assert refused(nobody), call(nobody).body
    for _ in range(2):
        callee = daprd(app_id=name, config=conf, args=[f"--app-port={echo}"])  # each time on other ports
        wait_until("it is found", lambda: call(name).body == b"/x/y")
        callee.close()
        wait_until("nobody has its name any more", lambda: refused(name))
    a, b = (daprd(app_id=name, config=conf, args=[f"--app-port={echo}"]) for _ in range(2))
    wait_until("it is found", lambda: call(name).body == b"/x/y")
    a.proc.kill()  # without a good-bye: the other one takes over
    a.proc.wait()
    assert [call(name).body for _ in range(10)] == [b"/x/y"] * 10
