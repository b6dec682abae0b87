#!/usr/bin/env python3
"""Side-by-side benchmark of daprd binaries: the same flags, components, app and load for each, interleaved, medians of the rounds.

usage: sidecar.py [--only NAME,...] [--rounds N] LABEL=DAPRD_PATH [LABEL=DAPRD_PATH ...]

The first label is ours; for each other label a row of ratios (ours / other) follows. Everything is on loopback, bounded in count
and time. CPU and memory are those of the daprd process and all its descendants. nginx is the app, h2load the load.
"""
import os, sys, time, json, shutil, signal, socket, subprocess, tempfile, statistics, urllib.request, argparse

HZ = os.sysconf("SC_CLK_TCK")
APP_CONF = """
worker_processes 1; daemon off; error_log /dev/null; pid %(d)s/nginx.pid;
events { worker_connections 2048; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 64m;
 client_body_temp_path %(d)s/b; proxy_temp_path %(d)s/p; fastcgi_temp_path %(d)s/f; uwsgi_temp_path %(d)s/u; scgi_temp_path %(d)s/s;
 server { listen 127.0.0.1:%(port)d backlog=1024;
  location / { default_type application/json; return 200 '{"ok":true}'; }
  location = /dapr/config { return 404; }
  location = /requests { stub_status; }
  location = /dapr/subscribe { default_type application/json; return 200 '[{"pubsubname":"pubsub","topic":"orders","route":"/orders"}]'; }
  location = /orders { default_type application/json; return 200 '{"status":"SUCCESS"}'; }
 } }
"""
def free_port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); p = s.getsockname()[1]; s.close(); return p

def tree(pid):
    out, todo = [], [pid]
    kids = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                f = open(f"/proc/{d}/stat").read(); pp = int(f[f.rindex(")")+2:].split()[1]); kids.setdefault(pp, []).append(int(d))
            except Exception: pass
    while todo:
        p = todo.pop(); out.append(p); todo += kids.get(p, [])
    return out

def cpu(pid):
    t = 0.0
    for p in tree(pid):
        try:
            f = open(f"/proc/{p}/schedstat")  # main thread only: sum tasks below
            for k in os.listdir(f"/proc/{p}/task"):
                t += int(open(f"/proc/{p}/task/{k}/schedstat").read().split()[0]) / 1e9
        except Exception: pass
    return t

def mem(pid):
    rss = pss = 0
    for p in tree(pid):
        try:
            for l in open(f"/proc/{p}/smaps_rollup"):
                if l.startswith("Rss:"): rss += int(l.split()[1])
                if l.startswith("Pss:"): pss += int(l.split()[1])
        except Exception: pass
    return rss / 1024, pss / 1024

def wait_http(url, limit=40, want=(200, 204)):
    t0 = time.perf_counter()
    while time.perf_counter() - t0 < limit:
        try:
            if urllib.request.urlopen(url, timeout=2).status in want: return time.perf_counter() - t0
        except Exception: pass
        time.sleep(0.003)
    raise RuntimeError("not ready: " + url)

class App:
    def __init__(s):
        s.d = tempfile.mkdtemp(); s.port = free_port()
        open(s.d + "/n.conf", "w").write(APP_CONF % {"d": s.d, "port": s.port})
        s.p = subprocess.Popen(["nginx", "-c", s.d + "/n.conf"], stderr=subprocess.DEVNULL); wait_http(f"http://127.0.0.1:{s.port}/")
    def close(s): s.p.terminate(); s.p.wait(); shutil.rmtree(s.d, True)

class Daprd:
    def __init__(s, path, appid, comps=(), appport=None, extra=(), cfg=None):
        s.d = tempfile.mkdtemp(); res = s.d + "/res"; os.mkdir(res)
        for i, c in enumerate(comps): open(f"{res}/c{i}.yaml", "w").write(c)
        s.http, s.grpc, s.int, s.met = (free_port() for _ in range(4))
        a = [path, f"--app-id={appid}", f"--dapr-http-port={s.http}", f"--dapr-grpc-port={s.grpc}", f"--dapr-internal-grpc-port={s.int}",
             "--dapr-internal-grpc-listen-address=127.0.0.1", "--dapr-listen-addresses=127.0.0.1", f"--metrics-port={s.met}", "--metrics-listen-address=127.0.0.1",
             "--enable-mtls=false", f"--resources-path={res}", "--log-level=warn", "--mode=standalone"]
        if appport: a += [f"--app-port={appport}", "--app-protocol=http"]
        if cfg: open(s.d + "/cfg.yaml", "w").write(cfg); a += [f"--config={s.d}/cfg.yaml"]
        s.t0 = time.perf_counter()
        s.log = open(s.d + "/log", "w")
        s.p = subprocess.Popen(a + list(extra), stdout=s.log, stderr=s.log, cwd=s.d)
        try: s.start_s = wait_http(f"http://127.0.0.1:{s.http}/v1.0/healthz")
        except Exception: s.log.flush(); sys.stderr.write(open(s.d + "/log").read()[-2000:]); s.p.kill(); raise
    def close(s):
        s.p.send_signal(signal.SIGINT)
        try: s.p.wait(20)
        except subprocess.TimeoutExpired: s.p.kill(); s.p.wait()
        shutil.rmtree(s.d, True)

def comp(name, typ, md):
    m = "".join(f"  - name: {k}\n    value: \"{v}\"\n" for k, v in md.items())
    return f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: {typ}\n  version: v1\n  metadata:\n{m}" if m else \
           f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: {typ}\n  version: v1\n"

MEM = lambda: comp("store", "state.in-memory", {})
PUB = lambda: comp("pubsub", "pubsub.in-memory", {})

def load(url, pid, n, c, h1=True, body=None, method="POST", hdr=(), rps=None, m=1, extra_pids=()):
    d = tempfile.mkdtemp(); lf = d + "/l"
    a = ["h2load", "-c", str(c), "-m", str(m), "-t1", "--log-file", lf]
    a += ["--h1"] if h1 else []
    if rps: a += ["--rps", str(rps / c), "-D", str(max(1, int(n / rps))), "--warm-up-time=1"]
    else: a += ["-n", str(n)]
    if body is not None: open(d + "/b", "wb").write(body); a += ["-d", d + "/b"]
    for h in hdr: a += ["-H", h]
    pids = [pid, *extra_pids]
    c0 = [cpu(p) for p in pids]; t0 = time.perf_counter()
    o = subprocess.run(a + [url], capture_output=True, text=True, timeout=200).stdout
    t = time.perf_counter() - t0; c1 = [cpu(p) for p in pids]
    lat, bad = [], 0
    for l in open(lf):
        f = l.split("\t"); lat.append(int(f[2])); bad += not (200 <= int(f[1]) < 300)
    shutil.rmtree(d, True); lat.sort(); k = len(lat)
    if not k: return None
    q = lambda p: lat[min(k - 1, int(k * p))]
    return {"rps": k / t, "p50": q(.5), "p99": q(.99), "cpu": sum(b - a_ for a_, b in zip(c0, c1)) / k * 1e6, "bad": bad}

def pb_str(f, s): return bytes([f << 3 | 2, len(s)]) + s
def grpc(msg): return b"\0" + len(msg).to_bytes(4, "big") + msg
GH = ("content-type: application/grpc", "te: trailers")

def put(d, key, val):
    r = urllib.request.Request(f"http://127.0.0.1:{d.http}/v1.0/state/store", json.dumps([{"key": key, "value": val}]).encode(), {"content-type": "application/json"}); urllib.request.urlopen(r)

def sc_idle(path):
    a = App(); d = Daprd(path, "bench", [MEM(), PUB()], a.port)
    try:
        time.sleep(3); c0 = cpu(d.p.pid); time.sleep(5); c1 = cpu(d.p.pid); r, p = mem(d.p.pid)
        th = sum(len(os.listdir(f"/proc/{x}/task")) for x in tree(d.p.pid))
        return {"start_ms": d.start_s * 1e3, "rss_mb": r, "pss_mb": p, "threads": th, "procs": len(tree(d.p.pid)), "idle_cpu_pct": (c1 - c0) / 5 * 100}
    finally: d.close(); a.close()

def state(path, kind, c, n, write=False, g=False):
    db = tempfile.mkdtemp()
    cm = MEM() if kind == "mem" else comp("store", "state.sqlite", {"connectionString": db + "/s.db"})
    d = Daprd(path, "bench", [cm])
    try:
        put(d, "k", "x" * 100); u = f"http://127.0.0.1:{d.http}/v1.0/state/store"
        if g:
            u = f"http://127.0.0.1:{d.grpc}/dapr.proto.runtime.v1.Dapr/GetState"; b = grpc(pb_str(1, b"store") + pb_str(2, b"k"))
            load(u, d.p.pid, n // 5, c, False, b, hdr=GH); return load(u, d.p.pid, n, c, False, b, hdr=GH)
        b = json.dumps([{"key": "k", "value": "x" * 100}]).encode() if write else None
        h = ("content-type: application/json",) if write else ()
        u = u if write else u + "/k"
        load(u, d.p.pid, n // 5, c, True, b, hdr=h); r = load(u, d.p.pid, n, c, True, b, hdr=h); r["rss_mb"] = mem(d.p.pid)[0]; return r
    finally: d.close(); shutil.rmtree(db, True)

def invoke(path, c, n, rps=None):
    callee = f"callee-{os.getpid()}"  # no other run's
    a = App(); da = Daprd(path, f"caller-{os.getpid()}", []); dbb = Daprd(path, callee, [], a.port)
    try:
        u = f"http://127.0.0.1:{da.http}/v1.0/invoke/{callee}/method/echo"; b = b"x" * 1024
        for _ in range(100):
            try: urllib.request.urlopen(urllib.request.Request(u, b)).read(); break
            except Exception: time.sleep(.1)
        load(u, da.p.pid, n // 5, c, True, b)
        r = load(u, da.p.pid, n, c, True, b, rps=rps, extra_pids=[dbb.p.pid]); r["rss_mb"] = mem(da.p.pid)[0]; r["rss2_mb"] = mem(dbb.p.pid)[0]; return r
    finally: da.close(); dbb.close(); a.close()

def proxy(path, c, n):
    """A gRPC app's unary method through two sidecars; the app is build/release/bin/interop_server."""
    callee, port = f"callee-{os.getpid()}", free_port()
    a = subprocess.Popen([os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/release/bin/interop_server"), f"--port={port}"],
                         stdout=subprocess.DEVNULL)
    da = Daprd(path, f"caller-{os.getpid()}", []); dbb = Daprd(path, callee, [], port, extra=["--app-protocol=grpc"])
    try:
        u = f"http://127.0.0.1:{da.grpc}/grpc.testing.TestService/UnaryCall"
        b = grpc(b"\x10\x80\x08" b"\x1a\x83\x08" b"\x12\x80\x08" + b"x" * 1024)  # response_size 1024, payload.body of 1024
        h = (*GH, f"dapr-app-id: {callee}")
        load(u, da.p.pid, n // 5, c, False, b, hdr=h)
        return load(u, da.p.pid, n, c, False, b, hdr=h, extra_pids=[dbb.p.pid])
    finally: da.close(); dbb.close(); a.terminate(); a.wait()

class Redis:
    def __init__(s):
        s.d = tempfile.mkdtemp(); s.port = free_port()
        s.p = subprocess.Popen(["redis-server", "--port", str(s.port), "--save", "", "--appendonly", "no", "--dir", s.d, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
        while socket.socket().connect_ex(("127.0.0.1", s.port)): time.sleep(.01)
    def close(s): s.p.terminate(); s.p.wait(); shutil.rmtree(s.d, True)

def taken(a): return int(urllib.request.urlopen(f"http://127.0.0.1:{a.port}/requests").read().split()[9])  # requests that nginx has had

def all_taken(a, want, limit=60):
    t0 = time.perf_counter()
    while taken(a) - want < 0:
        if time.perf_counter() - t0 > limit: return False
        time.sleep(.02)
    return True

def publish(path, c, n, redis=False):
    """rps, p50, p99: of the publish requests; msgs: messages that the app has taken a second; cpu_msg: µs a message, publish and delivery."""
    a = App(); rd = Redis() if redis else None
    d = Daprd(path, "bench", [comp("pubsub", "pubsub.redis", {"redisHost": f"127.0.0.1:{rd.port}"}) if redis else PUB()], a.port)
    try:
        u = f"http://127.0.0.1:{d.http}/v1.0/publish/pubsub/orders"; b = json.dumps({"id": 1, "pad": "x" * 200}).encode(); h = ("content-type: application/json",)
        before = taken(a); load(u, d.p.pid, n // 5, c, True, b, hdr=h); all_taken(a, before + n // 5)
        before, c0, t0 = taken(a), cpu(d.p.pid), time.perf_counter()
        r = load(u, d.p.pid, n, c, True, b, hdr=h); r["all"] = float(all_taken(a, before + n))
        r["msgs"] = n / (time.perf_counter() - t0); r["cpu_msg"] = (cpu(d.p.pid) - c0) / n * 1e6; r["rss_mb"] = mem(d.p.pid)[0]; return r
    finally:
        d.close(); a.close()
        if rd: rd.close()

def direct(path, c, n, rps=None):
    a = App()
    try:
        u = f"http://127.0.0.1:{a.port}/echo"; load(u, a.p.pid, n // 5, c, True, b"x" * 1024); return load(u, a.p.pid, n, c, True, b"x" * 1024, rps=rps)
    finally: a.close()

SC = {
 "idle": sc_idle,
 "direct c=1": lambda p: direct(p, 1, 8000), "direct 1000rps c=16": lambda p: direct(p, 16, 8000, 1000),
 "state.get mem http c=1": lambda p: state(p, "mem", 1, 8000), "state.get mem http c=64": lambda p: state(p, "mem", 64, 60000),
 "state.set mem http c=64": lambda p: state(p, "mem", 64, 40000, True),
 "state.get mem grpc c=1": lambda p: state(p, "mem", 1, 8000, g=True), "state.get mem grpc c=64": lambda p: state(p, "mem", 64, 60000, g=True),
 "state.set sqlite http c=16": lambda p: state(p, "sqlite", 16, 6000, True), "state.get sqlite http c=16": lambda p: state(p, "sqlite", 16, 10000),
 "publish mem http c=1": lambda p: publish(p, 1, 4000), "publish mem http c=16": lambda p: publish(p, 16, 20000),
 "publish redis http c=1": lambda p: publish(p, 1, 2000, True), "publish redis http c=16": lambda p: publish(p, 16, 10000, True),
 "proxy grpc c=1": lambda p: proxy(p, 1, 4000), "proxy grpc c=64": lambda p: proxy(p, 64, 20000),
 "invoke http c=1": lambda p: invoke(p, 1, 5000), "invoke http c=64": lambda p: invoke(p, 64, 30000), "invoke 1000rps c=16": lambda p: invoke(p, 16, 8000, 1000),
}
def main():
    ap = argparse.ArgumentParser(); ap.add_argument("--only"); ap.add_argument("--rounds", type=int, default=3); ap.add_argument("bins", nargs="+"); o = ap.parse_args()
    bins = [(l, os.path.abspath(p)) for l, p in (b.split("=", 1) for b in o.bins)]
    for name, fn in SC.items():
        if o.only and not any(x in name for x in o.only.split(",")): continue
        res = {l: [] for l, _ in bins}
        for _ in range(o.rounds):
            for l, p in bins:
                try:
                    r = fn(p)
                    if r: res[l].append(r)
                except Exception as e: print(f"{name:28} {l:8} FAILED {e}", flush=True)
        med = {l: {k: statistics.median(x[k] for x in res[l]) for k in res[l][0]} for l, _ in bins if res[l]}
        for l in med: print(f"{name:28} {l:8} " + "  ".join(f"{k}={v:.4g}" for k, v in med[l].items()), flush=True)
        ours = bins[0][0]
        for l in med:
            if l != ours and ours in med:
                print(f"{name:28} {ours}/{l:3} " + "  ".join(f"{k}={med[ours][k] / v:.3g}" for k, v in med[l].items() if v and k in med[ours]), flush=True)
if __name__ == "__main__": main()
