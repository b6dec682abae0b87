#!/usr/bin/env python3
"""Is memory flat? Publishes to an app at a fixed rate for some minutes, over HTTP/1.1 and over gRPC at the same time, and prints the resident
memory of daprd and of its plugins, then the slope of a straight line through the samples behind the first fifth.

usage: memory.py [--minutes 10] [--rate 500] [--broker in-memory|redis] LABEL=DAPRD_PATH

Ends with 1 when the slope is over --max-slope MiB an hour (default 6: one MiB in ten minutes)."""
import argparse, json, os, pathlib, re, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from sidecar import GH, PUB, App, Daprd, Redis, comp, grpc, pb_str, tree


def resident(pid):
    """program -> MiB, of a process and its descendants."""
    out = {}
    for p in tree(pid):
        try:
            name = os.path.basename(os.readlink(f"/proc/{p}/exe"))
            out[name] = out.get(name, 0) + int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{p}/status").read())[1]) / 1024
        except OSError:
            pass
    return out


def slope(points):
    """MiB an hour of (seconds, MiB)."""
    n, mx, my = len(points), sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
    return 3600 * sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points) if n > 1 else 0


def h2load(url, body, rate, seconds, *args):
    return subprocess.Popen(["h2load", "-t1", "-c", "8", "--rps", str(max(1, rate // 8)), "-D", str(seconds), "-d", body, *args, url],
                            stdout=subprocess.PIPE, text=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--rate", type=int, default=500)
    p.add_argument("--broker", choices=["in-memory", "redis"], default="in-memory")
    p.add_argument("--max-slope", type=float, default=6)
    p.add_argument("bin")
    args = p.parse_args()
    label, path = args.bin.split("=", 1)
    app, redis = App(), Redis() if args.broker == "redis" else None
    md = {"redisHost": f"127.0.0.1:{redis.port}", "maxLenApprox": "10000"} if redis else {}
    d = Daprd(path, "memory", [comp("pubsub", "pubsub.redis", md) if redis else PUB()], app.port)
    seconds, samples, began = int(args.minutes * 60), [], time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as t:
            for name, body in (("h", json.dumps({"id": 1, "pad": "x" * 200}).encode()),
                               ("g", grpc(pb_str(1, b"pubsub") + pb_str(2, b"orders") + pb_str(3, b"x" * 100)))):
                pathlib.Path(t, name).write_bytes(body)
            loads = [h2load(f"http://127.0.0.1:{d.http}/v1.0/publish/pubsub/orders", f"{t}/h", args.rate // 2, seconds, "--h1", "-H",
                            "content-type: application/json"),
                     h2load(f"http://127.0.0.1:{d.grpc}/dapr.proto.runtime.v1.Dapr/PublishEvent", f"{t}/g", args.rate // 2, seconds,
                            *(x for h in GH for x in ("-H", h)))]
            step = max(1, seconds / 40)
            while any(x.poll() is None for x in loads):
                time.sleep(step)
                samples.append((time.monotonic() - began, resident(d.p.pid)))
                print(f"{samples[-1][0]:6.0f} s  " + "  ".join(f"{k} {v:.1f}" for k, v in sorted(samples[-1][1].items())), flush=True)
            done = [re.search(r"requests: \d+ total.*", x.stdout.read())[0] for x in loads]
    finally:
        d.close()
        app.close()
        if redis:
            redis.close()
    print(*done, sep="\n")
    worst, rest = 0, samples[len(samples) // 5:-1]
    for name in rest[0][1]:
        s = slope([(x, m[name]) for x, m in rest if name in m])
        worst = max(worst, s)
        print(f"{label} {args.broker} {name}: {rest[0][1][name]:.2f} -> {rest[-1][1][name]:.2f} MiB, slope {s:+.2f} MiB/h")
    sys.exit(worst > args.max_slope)


main()
