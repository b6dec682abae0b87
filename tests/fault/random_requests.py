#!/usr/bin/env python3
"""Random requests against all doors of sidecars: HTTP API (TCP, Unix sockets), gRPC API, internal, public, metrics and profiling ports, the
control socket; as HTTP/1.1, HTTP/2, gRPC and plain bytes, over TLS where it is on; built from the route table and the descriptors of proto/,
and the same with bytes changed. The app, another sidecar, a pluggable component and the collector of spans answer badly at the same time
(random_scene.py). Meant for a build with sanitizers:

    make MODE=asan all && build/venv/bin/python tests/fault/random_requests.py --build build/asan --requests 1000000

The requests of a scene come in four quarters. After each the callers are gone, the peers are calm, and the memory of every process is read once it has
come to rest: what a process still holds then is what it keeps. The first half warms up (metric series, pools, stores); from the second quarter to the
last no sidecar and no plugin may grow by more than --tolerance percent or --slack MiB, whichever is more. With increasedCardinality (walls) each random
path makes series of its own until their limit (METRIC_BYTES_MAX): what these take comes on top. What was most in use within a quarter is printed
beside it (VmHWM). Memory is the resident set; in a build with ASan, which keeps freed memory on purpose (the scene gives it a quarantine of
1 MiB), it is what the program has allocated and not freed, asked of ASan through gdb.

Ends with 1 when a sidecar died, a sanitizer reported something, a plugin died, a sidecar did not answer at the end, or memory was not flat. Prints metric
series and requests that the sidecars counted themselves, too. --seed repeats what is said, not when. --scenes: http grpc mtls walls walls-grpc."""
import argparse, asyncio, os, pathlib, random, re, resource, shutil, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import random_grammar as grammar
import random_scene as scenes

# door: how often, at which port, who speaks
DOORS = [(38, "http", "http1"), (6, "http", "http2"), (30, "grpc", "http2"), (14, "internal", "http2"), (2, "public", "http1"), (0.3, "metrics", "http1"),
         (1, "profile", "http1"), (1.5, "control", "control"), (3, None, "bytes"), (1, "grpc", "http1"), (1, "internal", "http1")]
FINDING = re.compile(r"Sanitizer|runtime error|SUMMARY|was killed|exited with|plugin \S+ has failed")
SUBSCRIPTION = re.compile(rb'"id":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')
BATCH = 12
SAMPLE_BYTES = 300  # that a line of the metrics takes in the sidecar, lines of buckets not counted
REST_S, REST_MAX_S = 5, 60  # seconds without change that are rest; most that is waited for it


async def connect(scene, who, door, limit):
    at = scene.targets[who, door]
    if isinstance(at, str):
        return await asyncio.wait_for(asyncio.open_unix_connection(at), limit)
    tls = scene.tls if door == "internal" and scene.tls and random.random() < 0.9 else None
    return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", at, ssl=tls), limit)


async def listen(reader, streams, ids):
    """Until the end or silence; of HTTP/2, until so many streams have ended (0: it is not HTTP/2). Subscriptions that were made go to ids."""
    rest, end = b"", time.monotonic() + 4
    while (data := await asyncio.wait_for(reader.read(1 << 16), 0.5)) and time.monotonic() < end:
        ids += SUBSCRIPTION.findall(data)
        rest += data if streams else b""
        while len(rest) >= 9 and len(rest) >= (n := 9 + int.from_bytes(rest[:3], "big")):
            streams -= rest[3] == 3 or (rest[3] < 2 and rest[4] & 1)
            if streams <= 0:
                return
            rest = rest[n:]


async def talk(scene, who, door, data, r, streams, ids):
    """Sends; reads what comes until the end or the time is up; or goes away at once."""
    try:
        reader, writer = await connect(scene, who, door, 20)
    except (OSError, asyncio.TimeoutError, EOFError):
        return
    try:
        if r.random() < 0.1:  # in pieces
            cut = r.randrange(len(data) + 1)
            writer.write(data[:cut])
            await asyncio.sleep(0.002)
            data = data[cut:]
        writer.write(data)
        if r.random() < 0.12:
            await asyncio.sleep(r.choice((0, 0.005, 0.05)))
            if not writer.get_extra_info("ssl_object"):
                scenes.reset(writer)
        else:
            await listen(reader, streams, ids)
    except (OSError, asyncio.TimeoutError, EOFError):
        pass
    writer.transport.abort() if r.random() < 0.3 else writer.close()


async def worker(scene, seed, total, done, messages):
    r = random.Random(seed)
    weights, token, ids = [d[0] for d in DOORS], scene.token, {"app": [], "peer": []}
    while done[0] < total:
        _, door, how = r.choices(DOORS, weights)[0]
        n = 1 if how == "bytes" else r.choice((1, BATCH, BATCH, 2 * BATCH)) if how != "control" else 3
        if how == "http1":
            data = grammar.http1(r, n, token)
        elif how == "http2":
            data = grammar.http2(r, n, messages, "internal" if door == "internal" and r.random() < 0.8 else "api", token)
        elif how == "control":
            data = grammar.control(r, n)
        else:
            data = r.choice((r.randbytes, bytes))(r.randrange(1, 400))
            door = r.choice(("http", "grpc", "internal", "public", "metrics", "profile", "control"))
        who = "app" if r.random() < 0.6 else "peer"
        if how == "http1" and door == "http" and ids[who]:  # each stays until it is taken back, and its memory with it
            data = grammar.http1_bytes(r, "GET", f"/v1.0-alpha1/configuration/conf/{ids[who].pop().decode()}/unsubscribe", [], b"", token) + data
        await talk(scene, who, door, data, r, n if how == "http2" else 0, ids[who] if door == "http" else [])
        done[0] += n


def child(scene, seed, total, pipe):
    done, messages = [0], grammar.Messages()

    async def main():
        async def tell():
            while done[0] < total:
                await asyncio.sleep(0.5)
                os.write(pipe, b"%d\n" % done[0])
        await asyncio.gather(tell(), *(worker(scene, f"{seed}/{i}", total, done, messages) for i in range(32)))
        os.write(pipe, b"%d\n" % done[0])
    asyncio.run(main())
    os._exit(0)


# ---- memory ----

def status(pid, field):
    """A line of /proc/PID/status in MiB, or its text; 0 when there is no such process."""
    try:
        value = re.search(rf"{field}:\s+(.*)", open(f"/proc/{pid}/status").read())[1]
        return int(value.split()[0]) / 1024 if value.endswith("kB") else value
    except (OSError, TypeError):
        return 0.0


def processes(scene):
    """{(sidecar, program, pid)} of the sidecars and their plugins."""
    found = set()
    for who, d in scene.daprds.items():
        found.add((who, "daprd", d.pid))
        try:
            kids = [int(x) for t in os.listdir(f"/proc/{d.pid}/task") for x in open(f"/proc/{d.pid}/task/{t}/children").read().split()]
        except OSError:
            kids = []
        for pid in kids:
            try:
                found.add((who, os.path.basename(os.readlink(f"/proc/{pid}/exe")), pid))
            except OSError:
                pass
    return found


def held(pid):
    """What a process holds, in MiB: all that is resident, or of a build with ASan what is allocated."""
    try:
        asan = "/libasan.so" in open(f"/proc/{pid}/maps").read()
    except OSError:
        return 0.0
    if not asan or not shutil.which("gdb"):
        return status(pid, "VmRSS")
    out = subprocess.run(["gdb", "-p", str(pid), "-batch", "-nx", "-ex", "p (unsigned long)__sanitizer_get_current_allocated_bytes()"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return int(m[1]) / (1 << 20) if (m := re.search(r"^\$1 = (\d+)", out, re.M)) else status(pid, "VmRSS")


def rest(scene):
    """What each process holds after it has come to rest, and its highest resident set since the last time."""
    scene.calm(True)
    pids, last, same, end = sorted(processes(scene)), {}, 0, time.monotonic() + REST_MAX_S
    while same < REST_S and time.monotonic() < end:
        now = {p: status(p[2], "VmRSS") for p in pids}
        same = same + 1 if last and all(abs(now[p] - last[p]) < 0.1 for p in pids) else 0
        last = now
        time.sleep(1)
    last = {p: held(p[2]) for p in pids}
    scene.calm(False)
    highest = {p: status(p[2], "VmHWM") for p in pids}
    for p in pids:
        try:
            open(f"/proc/{p[2]}/clear_refs", "w").write("5")
        except OSError:
            pass
    return last, highest


def flat(args, scene, seen):
    """Prints the memory at each quarter of what is a sidecar or has grown; did all stay within the tolerance after the second?"""
    good, name = True, scene.name
    for p in sorted(seen[-1][0]):
        if any(p not in s[0] for s in seen[2:]):
            continue  # started anew in the meantime: a death is a finding of its own, an upgrade is none
        at = [s[0].get(p, 0) for s in seen]
        grew, may = at[4] - at[2], max(args.slack, at[2] * args.tolerance / 100)
        if p[1] == "daprd" and "walls" in scene.marks:
            may += (seen[4][2][p[0]] - seen[2][2][p[0]]) * SAMPLE_BYTES / (1 << 20)
        if p[1] == "daprd" or grew > may / 2:
            print(f"{name:10} {p[0]}: {p[1]:26} at rest " + " ".join(f"{x:6.2f}" for x in at) + " MiB, resident at most " + " ".join(f"{s[1].get(p, 0):6.1f}" for s in seen)
                  + f"; from 50 to 100 % {grew:+.2f} MiB of {may:.1f}: {'flat' if grew <= may else 'NOT FLAT'}", flush=True)
        good = good and grew <= may
    return good


def counted(text):
    """Requests that a sidecar counted at its HTTP and gRPC servers, and its number of series."""
    n = sum(float(line.rsplit(" ", 1)[1]) for line in text.split("\n") if line.startswith(("dapr_http_server_request_count{", "dapr_grpc_io_server_completed_rpcs{")))
    return int(n), sum(1 for x in text.split("\n") if x and x[0] != "#" and "_bucket" not in x)


def look(scene, sent, began):
    """One line about the sidecars; and the memory at rest of all."""
    last, highest = rest(scene)
    words, samples = [], {}
    for who in scene.daprds:
        n, series = counted(scene.metrics(who))
        samples[who] = series
        kids = [m for p, m in last.items() if p[0] == who and p[1] != "daprd"]
        words.append(f"{who}: {sum(m for p, m in last.items() if p[:2] == (who, 'daprd')):6.1f} MiB, {len(kids)} plugins {sum(kids):6.1f} MiB, {series} series, {n} counted, "
                     f"answers: {scene.healthy(who)}")
    print(f"{scene.name:10} {sent:>8} sent, {time.monotonic() - began:6.1f} s; " + "; ".join(words), flush=True)
    return last, highest, samples


# ---- the run ----

def quarter(scene, args, number, alive):
    """Sends a quarter of the requests; how many were sent."""
    readers, pids = [], []
    for i in range(args.processes):
        rd, wr = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(scene, f"{args.seed}/{scene.name}/{i}/{number}", args.requests // 4 // args.processes, wr)
        os.close(wr)
        readers.append(rd)
        pids.append(pid)
    done = [0] * len(readers)
    while any(f is not None for f in readers) and alive():
        for i, f in enumerate(readers):
            data = os.read(f, 1 << 16) if f is not None else b""
            if data:
                done[i] = int(data.split()[-1])
            elif f is not None:
                os.close(f)
                readers[i] = None
    for pid in pids:
        if not alive():
            os.kill(pid, 9)
        os.waitpid(pid, 0)
    for f in readers:
        if f is not None:
            os.close(f)
    return sum(done)


def drive(scene, args):
    """What look() gives before and after each quarter; [] when a sidecar has died or does not answer."""
    began, sent = time.monotonic(), 0
    alive = lambda: all(d.poll() is None for d in scene.daprds.values())  # noqa: E731
    seen = [look(scene, 0, began)]
    for number in range(4):
        sent += quarter(scene, args, number, alive)
        if not alive():
            return []
        seen.append(look(scene, sent, began))
    return seen if all(map(scene.healthy, scene.daprds)) else []


def run(args, name, folder):
    """Is the scene free of findings?"""
    folder.mkdir()
    with scenes.Scene(folder, args.build, name, args.seed) as scene:
        seen = drive(scene, args)
        steady = bool(seen) and flat(args, scene, seen)
        codes = scene.stop()
        bad = {who: [x for x in scene.log(who).split("\n") if FINDING.search(x) and not args.ignore.search(x)] for who in codes}
        good = steady and not any(codes.values()) and not any(bad.values())
        print(f"{name}: exit codes {codes}, findings {({w: len(b) for w, b in bad.items()})}, memory {'flat' if steady else 'NOT FLAT'}: {'good' if good else 'BAD'}", flush=True)
        for who in codes:
            if not good:
                text = scene.log(who)
                at = FINDING.search(text)
                print(f"---- {who} ({folder}/{who}.log)\n" + (text[max(0, at.start() - 2000):at.start() + 6000] if at else text[-4000:]))
        return good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build/asan")
    p.add_argument("--requests", type=int, default=1_000_000, help="over all scenes")
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--seed", default=str(random.randrange(1 << 30)))
    p.add_argument("--tolerance", type=float, default=2, help="percent")
    p.add_argument("--slack", type=float, help="MiB; 1 of what is allocated, 2 of a resident set: pages that one small block keeps come and go")
    p.add_argument("--scenes", default=",".join(scenes.SCENES))
    p.add_argument("--ignore", type=re.compile, default=re.compile("^$"), help="lines of logs that are no findings")
    p.add_argument("--keep", help="folder for logs, else they are removed")
    args = p.parse_args()
    names = args.scenes.split(",")
    if args.slack is None:
        args.slack = 1 if b"__asan_init" in (scenes.ROOT / args.build / "bin/daprd").read_bytes() else 2
    args.requests //= len(names)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as t:
        base = pathlib.Path(args.keep or t)
        base.mkdir(exist_ok=True)
        sys.exit(0 if all([run(args, name, base / name) for name in names]) else 1)


if __name__ == "__main__":
    main()
