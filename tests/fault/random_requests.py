#!/usr/bin/env python3
"""Random requests against all doors of sidecars: HTTP API (TCP, Unix sockets), gRPC API, internal, public, metrics and profiling ports, the
control socket; as HTTP/1.1, HTTP/2, gRPC and plain bytes, over TLS where it is on; built from the route table and the descriptors of proto/,
and the same with bytes changed. The app, another sidecar, a pluggable component and the collector of spans answer badly at the same time
(random_scene.py). Meant for a build with sanitizers:

    make MODE=asan all && build/venv/bin/python tests/fault/random_requests.py --build build/asan --requests 1000000

Ends with 1 when a sidecar died, a sanitizer reported something, a plugin died, a sidecar did not answer at the end, or the memory of a sidecar grew
by more than --growth MiB between the first tenth and the end. Prints memory (sidecars, their plugins), metric series and requests that the sidecars
counted themselves, at each tenth. --seed repeats what is said, not when. --scenes: http grpc mtls walls walls-grpc."""
import argparse, asyncio, os, pathlib, random, re, resource, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import random_grammar as grammar
import random_scene as scenes

# door: how often, at which port, who speaks
DOORS = [(38, "http", "http1"), (6, "http", "http2"), (30, "grpc", "http2"), (14, "internal", "http2"), (2, "public", "http1"), (0.3, "metrics", "http1"),
         (1, "profile", "http1"), (1.5, "control", "control"), (3, None, "bytes"), (1, "grpc", "http1"), (1, "internal", "http1")]
FINDING = re.compile(r"Sanitizer|runtime error|SUMMARY|was killed|exited with|plugin \S+ has failed")
BATCH = 12


async def connect(scene, who, door, limit):
    at = scene.targets[who, door]
    if isinstance(at, str):
        return await asyncio.wait_for(asyncio.open_unix_connection(at), limit)
    tls = scene.tls if door == "internal" and scene.tls and random.random() < 0.9 else None
    return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", at, ssl=tls), limit)


async def listen(reader, streams):
    """Until the end or silence; of HTTP/2, until so many streams have ended (0: it is not HTTP/2)."""
    rest, end = b"", time.monotonic() + 4
    while (data := await asyncio.wait_for(reader.read(1 << 16), 0.5)) and time.monotonic() < end:
        rest += data if streams else b""
        while len(rest) >= 9 and len(rest) >= (n := 9 + int.from_bytes(rest[:3], "big")):
            streams -= rest[3] == 3 or (rest[3] < 2 and rest[4] & 1)
            if streams <= 0:
                return
            rest = rest[n:]


async def talk(scene, who, door, data, r, streams):
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
            await listen(reader, streams)
    except (OSError, asyncio.TimeoutError, EOFError):
        pass
    writer.transport.abort() if r.random() < 0.3 else writer.close()


async def worker(scene, seed, total, done, messages):
    r = random.Random(seed)
    weights, token = [d[0] for d in DOORS], scene.token
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
        await talk(scene, "app" if r.random() < 0.6 else "peer", door, data, r, n if how == "http2" else 0)
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


def rss(pid):
    try:
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024
    except (OSError, TypeError):
        return 0.0


def plugins(pid):
    try:
        return [int(x) for t in os.listdir(f"/proc/{pid}/task") for x in open(f"/proc/{pid}/task/{t}/children").read().split()]
    except OSError:
        return []


def counted(text):
    """Requests that a sidecar counted at its HTTP and gRPC servers, and its number of series."""
    n = sum(float(line.rsplit(" ", 1)[1]) for line in text.split("\n") if line.startswith(("dapr_http_server_request_count{", "dapr_grpc_io_server_completed_rpcs{")))
    return int(n), sum(1 for x in text.split("\n") if x and x[0] != "#" and "_bucket" not in x)


def look(scene, sent, began):
    """One line; the memory of each sidecar."""
    memory = {who: rss(d.pid) for who, d in scene.daprds.items()}
    words = []
    for who, d in scene.daprds.items():
        n, series = counted(scene.metrics(who))
        kids = plugins(d.pid)
        words.append(f"{who}: {memory[who]:6.1f} MiB, {len(kids)} plugins {sum(map(rss, kids)):6.1f} MiB, {series} series, {n} counted, answers: {scene.healthy(who)}")
    print(f"{scene.name:10} {sent:>8} sent, {time.monotonic() - began:6.1f} s; " + "; ".join(words), flush=True)
    return memory


def drive(scene, args):
    """The memories at each tenth; [] when a sidecar has died or does not answer."""
    readers, pids = [], []
    for i in range(args.processes):
        rd, wr = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(scene, f"{args.seed}/{scene.name}/{i}", args.requests // args.processes, wr)
        os.close(wr)
        readers.append(rd)
        pids.append(pid)
    done, seen, began = [0] * len(readers), [], time.monotonic()
    alive = lambda: all(d.poll() is None for d in scene.daprds.values())  # noqa: E731
    while any(f is not None for f in readers) and alive():
        for i, f in enumerate(readers):
            data = os.read(f, 1 << 16) if f is not None else b""
            if data:
                done[i] = int(data.split()[-1])
            elif f is not None:
                readers[i] = None
        while len(seen) < 10 and sum(done) >= args.requests * (len(seen) + 1) / 10 and alive():
            seen.append(look(scene, sum(done), began))
    for pid in pids:
        if not alive():
            os.kill(pid, 9)
        os.waitpid(pid, 0)
    return seen if alive() and all(map(scene.healthy, scene.daprds)) else []


def run(args, name, folder):
    """Is the scene free of findings?"""
    folder.mkdir()
    with scenes.Scene(folder, args.build, name, args.seed) as scene:
        look(scene, 0, time.monotonic())
        seen = drive(scene, args)
        codes = scene.stop()
        bad = {who: [x for x in scene.log(who).split("\n") if FINDING.search(x) and not args.ignore.search(x)] for who in codes}
        growth = {who: round(seen[-1][who] - seen[0][who], 1) if seen else 0 for who in codes}
        good = bool(seen) and not any(codes.values()) and not any(bad.values()) and all(g <= args.growth for g in growth.values())
        print(f"{name}: exit codes {codes}, findings {({w: len(b) for w, b in bad.items()})}, memory grew after the first tenth by {growth} MiB: "
              f"{'good' if good else 'BAD'}", flush=True)
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
    p.add_argument("--growth", type=float, default=24)
    p.add_argument("--scenes", default=",".join(scenes.SCENES))
    p.add_argument("--ignore", type=re.compile, default=re.compile("^$"), help="lines of logs that are no findings")
    p.add_argument("--keep", help="folder for logs, else they are removed")
    args = p.parse_args()
    names = args.scenes.split(",")
    args.requests //= len(names)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as t:
        base = pathlib.Path(args.keep or t)
        base.mkdir(exist_ok=True)
        sys.exit(0 if all([run(args, name, base / name) for name in names]) else 1)


if __name__ == "__main__":
    main()
