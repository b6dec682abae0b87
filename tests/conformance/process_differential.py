"""The process beside the reference's: signals and stops with calls in flight, exit codes and the log's last lines, sockets, listen addresses,
ports that are taken, the profile port. OTHER_DAPRD = path of the reference's daprd; skipped without it."""
import json, os, re, signal, socket, stat, subprocess, threading, time

import grpc
import pytest
from dapr.proto import api_service_v1, api_v1

from app_differential import ME, invoke_grpc, lines, pair, plain  # noqa: F401 (a fixture)
from conftest import component, free_port, wait_until
from test_bindings import App
from twins import ask, needs_other, tried

pytestmark = needs_other


def code(d, limit=15):
    try:
        return d.wait_exit(limit)
    except subprocess.TimeoutExpired:
        return "goes on"


def said(d, since=""):
    """What the log says of a stop, in order: info and above of the runtime."""
    out = [x for x in lines(d, r"dapr\.runtime|dapr\.signals|dapr\.runtime\.processor\.subscription|dapr\.runtime\.processor\.binding|dapr\.grpc\..*|dapr\.http.*") if x[0] != "debug"]
    start = next((i for i, x in enumerate(out) if re.search("eceived signal|hutdown requested|is shutting down", x[1])), len(out))
    components = sorted(x for x in out[start:] if "Shutting down component" in x[1])  # in any order
    return [x for x in out[start:] if not re.search("context canceled|pausing subscription|Shutting down component", x[1])] + components


class Slow(App):
    """An app whose /slow waits until .gate."""

    def __init__(self, seconds=1.0):
        self.gate = threading.Event()
        super().__init__({"/slow": self.wait, "/healthz": self.well, "/event": self.wait, "/dapr/subscribe": (200, {}, json.dumps([{"pubsubname": "ps", "topic": "t", "route": "/event"}]).encode())})
        self.seconds, self.status = seconds, 200

    def wait(self, call):
        self.gate.wait(self.seconds)
        return 200, {}, b"done"

    def well(self, call):
        return self.status, {}, b""


def background(fn, *a, **kw):
    out = []
    t = threading.Thread(target=lambda: out.append(fn(*a, **kw)), daemon=True)
    t.start()
    return t, out


SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "QUIT": signal.SIGQUIT, "USR1": signal.SIGUSR1, "USR2": signal.SIGUSR2, "PIPE": signal.SIGPIPE, "ALRM": signal.SIGALRM}


@pytest.mark.parametrize("name", SIGNALS)
def test_signals(pair, name):
    def run(kind, start):
        d = start(component("store", "state.in-memory"))
        d.proc.send_signal(SIGNALS[name])
        c = code(d, 3)
        return {"code": c, "log": said(d) if name not in ("QUIT", "USR1", "USR2", "PIPE", "ALRM") else None}
    pair(run, [("code", "the others have no meaning here")] if name in ("QUIT", "USR1", "USR2", "PIPE", "ALRM") else [])


# name -> (flags, what stops it, seconds that the app takes)
STOPS = {"signal": ([], "TERM", 1.0), "interrupt": ([], "INT", 1.0), "twice": (["--dapr-graceful-shutdown-seconds=6"], "twice", 3.0), "api": ([], "http", 1.0), "grpc api": ([], "grpc", 1.0), **{f"too slow, {x}": (["--dapr-graceful-shutdown-seconds=1"], "TERM", 4.0) for x in ("http", "grpc", "event", "all")},
         "no time": (["--dapr-graceful-shutdown-seconds=0"], "TERM", 1.0), "negative time": (["--dapr-graceful-shutdown-seconds=-3"], "TERM", 1.0), "blocked": (["--dapr-block-shutdown-duration=2s"], "TERM", 1.0),
         "blocked, api": (["--dapr-block-shutdown-duration=2s"], "http", 1.0), "blocked, twice": (["--dapr-block-shutdown-duration=4s"], "twice", 0.2),
         "blocked, unhealthy": (["--dapr-block-shutdown-duration=20s", "--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-probe-timeout=500", "--app-health-threshold=1"], "TERM", 1.0),
         "blocked, nothing": (["--dapr-block-shutdown-duration=0s"], "TERM", 0.2)}


@pytest.mark.parametrize("case", STOPS)
def test_stops_with_calls_in_flight(pair, case):
    flags, how, seconds = STOPS[case]

    def run(kind, start):
        app = Slow(seconds)
        d = start(component("ps", "pubsub.in-memory"), component("tick", "bindings.cron", [("schedule", "@every 1h")]), args=[f"--app-port={app.port}", *flags])
        if "--enable-app-health-check" in flags:
            wait_until("subscribed", lambda: ask(d, "GET", "/v1.0/metadata")[1].get("subscriptions"))
        f = {}
        calls = {"http": (ask, d, "POST", f"/v1.0/invoke/{ME}/method/slow", b"x"), "grpc": (invoke_grpc, d, "slow"), "event": (ask, d, "POST", "/v1.0/publish/ps/t", b"1", {"content-type": "application/json"})}
        calls = {k: background(*v) for k, v in calls.items() if not case.startswith("too slow") or case.endswith((k, "all"))}
        wait_until("they are in the app", lambda: app.running >= len(calls))
        began = time.monotonic()
        if how == "http":
            f["answer"] = ask(d, "POST", "/v1.0/shutdown")
        elif how == "grpc":
            with grpc.insecure_channel(f"127.0.0.1:{d.grpc}") as ch:
                from google.protobuf import empty_pb2
                f["answer"] = tried(api_service_v1.DaprStub(ch).Shutdown, api_v1.ShutdownRequest())
        else:
            d.proc.send_signal(SIGNALS.get(how, signal.SIGTERM))
        time.sleep(0.4)
        if "blocked" in case and "nothing" not in case:
            f["meanwhile, invoke"] = ask(d, "POST", f"/v1.0/invoke/{ME}/method/m", b"x")
            f["meanwhile, publish"] = ask(d, "POST", "/v1.0/publish/ps/t", b"2", {"content-type": "application/json"})
            f["meanwhile, health"] = ask(d, "GET", "/v1.0/healthz")
            f["meanwhile, grpc"] = invoke_grpc(d)
            app.status = 500
        if how == "twice":
            d.proc.send_signal(signal.SIGTERM)
        f["code"] = code(d, 12)
        f["took"] = round((time.monotonic() - began) / 2)
        app.gate.set()
        for name, (t, out) in calls.items():
            t.join(5)
            f[f"call {name}"] = out
        f["events"] = len([c for c in app.calls if c.path == "/event"])
        f["log"] = said(d)
        app.close()
        return f
    known = [("code|took|call grpc|call http|log", "gRPC calls are bound by the time for a graceful shutdown as well")] if case in ("too slow, grpc", "too slow, all") else []
    known += [("log", "when the time is over the process ends before components are told")] if case.startswith("too slow") else []
    known += [("meanwhile, .*|events", "the APIs serve as long as the stop is held up, and how far it is")] if "blocked" in case else []
    pair(run, known + ([("call grpc", "told in other words")] if case == "twice" else []))


def test_the_shutdown_api(pair):
    def run(kind, start):
        f = {}
        for method, path, body in [("GET", "/v1.0/shutdown", None), ("PUT", "/v1.0/shutdown", None), ("DELETE", "/v1.0/shutdown", None), ("POST", "/v1.0/shutdown/x", None), ("POST", "/v1.0/shutdown/", None), ("POST", "/v1.0-alpha1/shutdown", None), ("POST", "/v1.0/shutdown?x=1", b"{bad")]:
            d = start(sub="s")
            f[f"{method} {path}"] = ask(d, method, path, body)
            f[f"{method} {path}, code"] = code(d, 2)
        return f
    pair(run)


# ---- sockets ----

def unix_request(path, target, method="GET", body=None):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    try:
        s.connect(path)
        s.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body or b'')}\r\n\r\n".encode() + (body or b""))
        data = b""
        while x := s.recv(65536):
            data += x
        return data.split(b"\r\n")[0].decode()
    except OSError as e:
        return type(e).__name__
    finally:
        s.close()


@pytest.mark.parametrize("case", ["plain", "missing folder", "stale", "file in the way", "long", "relative", "with a slash"])
def test_unix_sockets(pair, case, tmp_path):
    def run(kind, start):
        folder = tmp_path / kind / "sock"
        folder.parent.mkdir(exist_ok=True)
        if case != "missing folder":
            folder.mkdir()
        name = str(folder) if case != "with a slash" else str(folder) + "/"
        if case == "long":
            name = str(folder / ("x" * 120))
            os.mkdir(name)
        if case == "relative":
            name = "sock"
        for door in ("http", "grpc") if case in ("stale", "file in the way") else ():
            path = folder / f"dapr-{ME}-{door}.socket"
            if case == "stale":
                s = socket.socket(socket.AF_UNIX)
                s.bind(str(path))
                s.close()
            else:
                path.write_text("x")
        app = App({"/m": (200, {}, b"ok")})
        d = start(component("store", "state.in-memory"), args=[f"--unix-domain-socket={name}", f"--app-port={app.port}"], healthy=False)
        wait_until("up or ended", lambda: d.proc.poll() is not None or "Status: Running" in d.log(), 15)
        time.sleep(0.3)
        f = {"code": d.proc.poll()}
        where = folder if case != "relative" else d.folder / "sock"
        show = (lambda t: t.replace(str(where), "FOLDER").replace(str(tmp_path / kind), "BASE").replace(f"{d.folder.name}", "D"))
        f["files"] = sorted((p.name.replace(ME, "ME"), stat.filemode(p.stat().st_mode)) for p in where.glob("*")) if where.exists() else "no folder"
        f["log"] = [(lv, show(t)) for lv, t in lines(d, ".*") if lv in ("fatal", "error") or "socket" in t.lower() and "workflow" not in t]
        if d.proc.poll() is None:
            h, g = str(where / f"dapr-{ME}-http.socket"), str(where / f"dapr-{ME}-grpc.socket")
            f["http"] = [unix_request(h, t) for t in ("/v1.0/healthz", "/v1.0/state/store/k", f"/v1.0/invoke/{ME}/method/m", "/v1.0/healthz/outbound")]
            f["set"] = unix_request(h, "/v1.0/state/store", "POST", b'[{"key":"k","value":1}]')
            with grpc.insecure_channel(f"unix:{g}") as ch:
                f["grpc"] = tried(api_service_v1.DaprStub(ch).GetState, api_v1.GetStateRequest(store_name="store", key="k"))
            f["tcp http"], f["tcp grpc"] = ask(d, "GET", "/v1.0/healthz"), reachable("127.0.0.1", d.grpc)
            f["tcp internal"], f["metrics"] = reachable("127.0.0.1", d.internal), reachable("127.0.0.1", d.metrics)
            d.proc.send_signal(signal.SIGTERM)
            f["end"] = code(d, 8)
            f["files after"] = sorted(p.name.replace(ME, "ME") for p in where.glob("*"))
        app.close()
        return f
    pair(run, {"stale": [(".*", "a socket that nobody listens on is taken over")], "file in the way": [("files", "a file that is no socket stays")], "long": [("log", "the file's name is too long")]}.get(case, []))


def reachable(host, port):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError as e:
        return type(e).__name__


ADDRESSES = ["127.0.0.1,127.0.0.2", "127.0.0.1, 127.0.0.2", "::1", "[::1]", "127.0.0.1,::1", "127.0.0.1,[::1]", "localhost", "", "0.0.0.0", "::", "300.1.1.1", "no.such.host.invalid", "127.0.0.1,127.0.0.1", "127.0.0.1,", "192.0.2.7", "127.0.0.1:80"]


@pytest.mark.parametrize("text", ADDRESSES)
def test_listen_addresses(pair, text):
    def run(kind, start):
        d = start(args=[f"--dapr-listen-addresses={text}"], healthy=False, drop=["--dapr-listen-addresses"])
        wait_until("up or ended", lambda: d.proc.poll() is not None or "Status: Running" in d.log(), 15)
        time.sleep(0.2)
        f = {"code": d.proc.poll()}
        f["fatal"] = [re.sub(r" on \d+\.\d+\.\d+\.\d+:53", "", plain(d, t)) for lv, t in lines(d, ".*") if lv in ("fatal", "error") and "for HTTP server" not in t]  # the reference says it of gRPC only
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"):
            f[host] = [reachable(host, p) for p in (d.http, d.grpc)]
        f["log"] = sorted(plain(d, t) for lv, t in lines(d, r"dapr\.runtime\..*|dapr\.runtime|dapr\.http.*|dapr\.grpc.*") if "istening" in t or "server is running on" in t)
        return f
    pair(run)


USUAL = ("http", "grpc", "internal", "metrics")  # ports that a sidecar of the tests is given
PORTS = {**{f"taken {x}": x for x in ("http", "grpc", "internal", "metrics", "public", "profile")}, "http is grpc": "", "http is internal": "", "http is metrics": "", "grpc is internal": "", "http 0": "", "grpc 0": "", "metrics 0": "", "http -1": "", "grpc -1": "", "metrics -1": "", "http text": "",
         "http empty": "", "http 65536": "", "app is http": "", "app is grpc": "", "internal -1": "", "internal 0": "", "public 0": "", "profile 0": "", "app 0": "", "app -1": "", "app text": ""}


@pytest.mark.parametrize("case", PORTS)
def test_ports(pair, case):
    def run(kind, start):
        names = {"http": "--dapr-http-port", "grpc": "--dapr-grpc-port", "internal": "--dapr-internal-grpc-port", "metrics": "--metrics-port", "public": "--dapr-public-port", "profile": "--profile-port", "app": "--app-port"}
        ports = {"public": free_port(), "profile": free_port(), "app": free_port()}
        args, drop, holder = [], [], None
        first, _, last = case.partition(" ")
        if first == "taken":
            holder = socket.socket()
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("0.0.0.0" if last in ("profile",) else "127.0.0.1", 0))
            holder.listen()
            args, drop = [f"{names[last]}={holder.getsockname()[1]}"], [names[last]] if last in USUAL else []
            if last == "public":
                args.append("--dapr-public-listen-address=127.0.0.1")
            if last == "profile":
                args.append("--enable-profiling")
        elif last.startswith("is "):
            p = free_port()
            args, drop = [f"{names[first]}={p}", f"{names[last[3:]]}={p}"], [names[x] for x in (first, last[3:]) if x in USUAL]
        else:
            value = {"text": "abc", "empty": ""}.get(last, last)
            args, drop = [f"{names[first]}={value}"] + (["--enable-profiling"] if first == "profile" else []), [names[first]] if first in USUAL else []
        d = start(args=args, drop=drop, healthy=False)
        wait_until("up or ended", lambda: d.proc.poll() is not None or "Status: Running" in d.log() or "waiting on port" in d.log(), 15)
        time.sleep(0.5)
        f = {"code": d.proc.poll()}

        def masked(t):
            t = plain(d, t)
            if holder:
                t = t.replace(str(holder.getsockname()[1]), "TAKEN")
            if last.startswith("is "):
                t = t.replace(str(p), "SAME")
            return re.sub(r"port:? ?\d\d\d\d+", "port N", re.sub(r":\d\d\d\d+", ":N", t))
        f["log"] = [(lv, masked(t)) for lv, t in lines(d, ".*") if lv in ("fatal", "error")]
        f["log"] = f["log"][-1:] if d.proc.poll() is not None else []
        f["open"] = [reachable("127.0.0.1", q) for q in (d.http, d.grpc, d.internal, d.metrics)] if d.proc.poll() is None and not last.startswith("is ") else None
        if holder:
            holder.close()
        return f
    pair(run, [("log", "refused when flags are read")] if case.endswith(("-1", "65536")) else [("log", "told as other errors of the runtime are")] if case == "taken public" else [])


# ---- profiles ----

def test_the_profile_port(pair):
    def run(kind, start):
        port = free_port()
        d = start(args=["--enable-profiling", f"--profile-port={port}"])
        wait_until("it listens", lambda: reachable("127.0.0.1", port) is True)
        f = {}
        for path in ["/debug/pprof/", "/debug/pprof", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1", "/debug/pprof/symbol", "/debug/pprof/trace?seconds=1", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/allocs", "/debug/pprof/block", "/debug/pprof/mutex",
                     "/debug/pprof/threadcreate", "/debug/pprof/none", "/", "/debug", "/other", "/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=2"]:
            r = ask(d, "GET", path, port=port)
            f[path] = (r[0], r[2]) if len(r) == 3 else r
        return f
    pair(run, [(r"/debug/pprof/(symbol|profile.*|trace.*|allocs|block|mutex|threadcreate)", "profiles of Go are not there"), (r"/debug/pprof/(heap|goroutine).*", "told as text")])
