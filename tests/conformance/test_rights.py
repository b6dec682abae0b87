"""No plugin opens a file or a socket that its manifest does not declare: a sidecar with many components is traced by strace while it works,
and what each plugin process opened, connected and bound is held against its rights (daprctl plugin security)."""
import http.server, json, os, re, shutil, subprocess, threading

import pytest

from conftest import BUILD, ROOT, component, wait_until

pytestmark = pytest.mark.skipif(not shutil.which("strace") or "asan" in str(BUILD), reason="needs strace and a build without sanitizers")

# What every program of a machine may read: libraries, certificates, names of hosts and users, time zones, its own state in /proc.
COMMON = re.compile(r"/(lib|lib64|usr/(lib|lib64|share)|etc/(ssl|ca-certificates|pki)|proc/self|usr/local/lib)(/|$)|/proc/\d+/|/proc/sys/|/sys/(fs/cgroup|devices/system|kernel/mm)/|"
                    r"/etc/(ld\.so\.\w+|localtime|timezone|resolv\.conf|hosts|host\.conf|nsswitch\.conf|gai\.conf|services|protocols|passwd|group)$|"
                    r"/dev/(null|zero|urandom|random)$")
CALLS = "trace=execve,clone,clone3,fork,vfork,open,openat,openat2,creat,socket,connect,bind,unlink,unlinkat,rename,renameat2,mkdir,mkdirat"


class Trace:
    """program of a plugin -> what it did: ("file", path, written), ("connect"|"bind", family, kind, where)."""

    def __init__(self, text):
        self.did, programs, sockets, halves = {}, {}, {}, {}
        for line in text.split("\n"):
            m = re.match(r"(\d+) +(.*)", line)
            if not m:
                continue
            pid, call = m[1], m[2]
            if call.endswith("<unfinished ...>"):
                halves[pid] = call[:-len(" <unfinished ...>")]
                continue
            if h := re.match(r"<\.\.\. (\w+) resumed>(.*)", call):
                call = halves.pop(pid, h[1] + "(") + h[2]
            self.one(pid, call, programs, sockets)

    def one(self, pid, call, programs, sockets):
        name, _, rest = call.partition("(")
        result = re.search(r"= (-?\d+)(?:<[^>]*>)?( E\w+)?[^=]*$", call)
        value = int(result[1]) if result else -1
        if name == "execve" and value == 0:
            m = re.search(r'/plugins/([^/"]+)/[^/"]+"', rest)
            programs[pid] = m[1] if m else None
        elif name in ("clone", "clone3", "fork", "vfork") and value > 0:
            programs[str(value)] = programs.get(pid)
        plugin = programs.get(pid)
        if not plugin or value < 0 and not (result and result[2] and result[2].strip() in ("EACCES", "EPERM", "EINPROGRESS")):
            return
        did = self.did.setdefault(plugin, set())
        # paths with the folder that they begin in, as strace -y tells it
        paths = [os.path.normpath(os.path.join(at or "/", p)) for at, p in re.findall(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"', rest)]
        if name in ("open", "openat", "openat2", "creat"):
            if "O_PATH" not in rest:  # which opens nothing
                did.add(("file", paths[0], bool(re.search("O_WRONLY|O_RDWR|O_CREAT", rest)) or name == "creat"))
        elif name in ("unlink", "unlinkat", "rename", "renameat2", "mkdir", "mkdirat"):
            did.update(("file", p, True) for p in paths)
        elif name == "socket":
            sockets[pid, value] = "udp" if "SOCK_DGRAM" in rest else "tcp"
        elif name in ("connect", "bind"):
            fd = int(re.match(r"(\d+)", rest)[1])
            family = re.search(r"sa_family=AF_(\w+)", rest)
            where = re.search(r"sin6?_port=htons\((\d+)\)", rest) or re.search(r'sun_path=@?"([^"]*)"', rest)
            did.add((name, family[1] if family else "UNSPEC", sockets.get((pid, fd), "tcp"), where[1] if where else ""))


def rights(env, name):
    out = subprocess.run([str(BUILD / "bin/daprctl"), "plugin", "security", name, "-o", "json"], capture_output=True, text=True, env=env)
    if out.returncode:
        pytest.skip("this build does not tell rights")
    rows = json.loads(out.stdout)
    return (rows[0] if isinstance(rows, list) else rows)["rights"]


def granted(env, name, components):
    """kind -> texts, with the fields of the plugin's components in their places."""
    out = {}
    for r in rights(env, name):
        for md in components:
            text = re.sub(r"\$\{(\w+)\}", lambda m: next((str(v) for k, v in md if k.lower() == m[1].lower()), ""), r["what"])
            if text:
                out.setdefault(r["right"], set()).add(text)
    return out


def faults(plugin, did, may, folders):
    for what in sorted(did, key=str):
        if what[0] == "file":
            _, path, written = what
            if not written and (COMMON.match(path) or path.startswith(folders)):
                continue
            texts = may.get("write", set()) | (set() if written else may.get("read", set()))
            # the file itself, what stands in the folder, or beside it; a value may name the path among other things
            names = [re.sub(r"^(folder of )?(file:)?(.*?)(\?.*)?$", r"\3", t) for t in texts]
            if any(path == n or path.startswith(n.rstrip("/") + "/") or os.path.dirname(n) in (path, os.path.dirname(path))
                   for n in names if n.startswith("/")):
                continue
        else:
            name, family, kind, where = what
            texts = may.get("connect" if name == "connect" else "listen", set())
            if family in ("NETLINK", "UNSPEC") or (kind == "udp" and (where in ("53", "0") or "udp" in texts)):
                continue
            if "*" in texts or (family == "UNIX" and "unix" in texts) or any(re.search(rf"(?<!\d){re.escape(where)}(?!\d)", t) for t in texts if where):
                continue
            if name == "bind" and kind == "udp" and "udp" in texts:
                continue
            if family == "UNIX" and re.search(r"nscd/socket|/dev/log", where):  # name services of the machine
                continue
        yield f"{plugin}: {what}; granted: {may}"


def test_plugins_open_what_their_manifests_declare_and_nothing_else(daprd, redis, etcd, postgres, mosquitto, folder):
    etcd.start()
    keys, files = folder / "keys", folder / "files"
    keys.mkdir()
    files.mkdir()
    (keys / "aes256").write_bytes(bytes(range(32)))
    (folder / "secrets.json").write_text('{"a": "b"}')
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *a: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = ("redisHost", redis.addr)
    all_ = [("mem", "state.in-memory", []), ("sqlite", "state.sqlite", [("connectionString", str(folder / "s.db"))]), ("sred", "state.redis", [at]),
            ("setcd", "state.etcd", [("endpoints", etcd.addr), ("keyPrefixPath", "p")]), ("spg", "state.postgresql", [("connectionString", postgres.dsn)]),
            ("pmem", "pubsub.in-memory", []), ("pred", "pubsub.redis", [at]), ("pmq", "pubsub.mqtt3", [("url", mosquitto.url()), ("consumerID", "c")]),
            ("files", "bindings.localstorage", [("rootPath", str(files))]), ("web", "bindings.http", [("url", f"http://127.0.0.1:{server.server_address[1]}")]),
            ("tick", "bindings.cron", [("schedule", "@every 1s"), ("direction", "input")]), ("cfg", "configuration.redis", [at]), ("locks", "lock.redis", [at]),
            ("vault", "crypto.dapr.localstorage", [("path", str(keys))]), ("secrets", "secretstores.local.file", [("secretsFile", str(folder / "secrets.json"))]),
            ("env", "secretstores.local.env", []), ("echo", "conversation.echo", [])]
    d = daprd([component(*c) for c in all_], start=False, args=["--log-level=warn"])
    trace = folder / "trace"
    d.argv = ["strace", "-DDD", "-f", "-qq", "-y", "-s", "300", "-e", CALLS, "-o", str(trace)] + d.argv
    d.env["PATH"] = os.environ["PATH"]
    d.start()
    call = lambda method, path, body=None, **h: d.request(method, path, body, h, timeout=30).status
    for store in ("mem", "sqlite", "sred", "setcd", "spg"):
        assert call("POST", f"/v1.0/state/{store}", [{"key": "k", "value": "v"}]) == 204, store
        assert call("GET", f"/v1.0/state/{store}/k") == 200
    for broker in ("pmem", "pred", "pmq"):
        assert call("POST", f"/v1.0/publish/{broker}/t", "1") == 204, broker
    for op in ("create", "get", "list", "delete"):
        call("POST", "/v1.0/bindings/files", {"operation": op, "data": "x!", "metadata": {"fileName": "a/b.txt"}})
    call("POST", "/v1.0/bindings/web", {"operation": "get"})
    assert call("GET", "/v1.0/configuration/cfg?key=a") in (200, 204)
    assert call("POST", "/v1.0-alpha1/lock/locks", {"resourceId": "r", "lockOwner": "o", "expiryInSeconds": 5}) == 200
    assert d.request("PUT", "/v1.0-alpha1/crypto/vault/encrypt", b"text", {"dapr-key-name": "aes256", "dapr-key-wrap-algorithm": "A256KW"}).status == 200
    assert call("GET", "/v1.0/secrets/secrets/a") == 200 and call("GET", "/v1.0/secrets/env/PATH") in (200, 204, 403, 500)
    call("POST", "/v1.0-alpha2/conversation/echo/converse", {"inputs": [{"messages": [{"ofUser": {"content": [{"text": "hi"}]}}]}]})
    d.close()
    server.shutdown()
    wait_until("the trace is whole", lambda: not [p for p in os.listdir("/proc") if p.isdigit() and str(trace) in open(f"/proc/{p}/cmdline").read()])
    t = Trace(trace.read_text(errors="replace"))
    env = dict(os.environ, HOME=str(folder))
    plugins = {kind: [] for _, kind, _ in all_}
    for _, kind, md in all_:
        plugins[kind].append(md)
    assert set(plugins) <= set(t.did), "all were traced"
    own = (str((BUILD / "plugins").resolve()), str((ROOT / "build").resolve()))
    bad = [f for kind, mds in plugins.items() for f in faults(kind, t.did[kind], granted(env, kind, mds), own)]
    assert not bad, "\n".join(bad)
