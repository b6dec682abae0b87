#!/usr/bin/env python3
"""Random requests against all listeners of a sidecar: the HTTP API, the gRPC API, the internal port, the metrics port, as HTTP/1.1, HTTP/2,
gRPC and plain bytes; valid ones, valid ones with bytes changed, and nonsense. Meant for a build with sanitizers:

    make MODE=asan all && tests/fault/random_requests.py --build build/asan --requests 1000000

Ends with 1 when the sidecar died, a sanitizer reported something, an answer failed to come for a plain request, or memory grew by more than
--growth MiB between the first tenth and the end. Prints the memory at each tenth and the number of metric series: names of bindings and methods
that do not exist are label values too, up to METRIC_SERIES_MAX. --seed repeats a run."""
import argparse, asyncio, json, os, pathlib, random, re, signal, socket, struct, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STORES = [("store", "state.in-memory", {}), ("pub", "pubsub.in-memory", {}), ("echo", "conversation.echo", {})]
WORDS = ["store", "pub", "echo", "nobody", "key", "t", "a/b", "%2e%2e", "..", "%00", "", "é", "x" * 300, "metadata.ttlInSeconds=1", "k?x=1", "{}", "*"]
PATHS = ["/v1.0/state/{}", "/v1.0/state/{}/{}", "/v1.0/state/{}/bulk", "/v1.0/state/{}/transaction", "/v1.0-alpha1/state/{}/query",
         "/v1.0/publish/{}/{}", "/v1.0/publish/bulk/{}/{}", "/v1.0/secrets/{}/{}", "/v1.0/secrets/{}/bulk", "/v1.0/bindings/{}", "/v1.0/metadata",
         "/v1.0/metadata/{}", "/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/invoke/{}/method/{}", "/v1.0/configuration/{}",
         "/v1.0-alpha1/lock/{}", "/v1.0-alpha1/unlock/{}", "/v1.0-alpha1/crypto/{}/encrypt", "/v1.0-alpha2/conversation/{}/converse",
         "/v1.0/actors/{}/{}/method/m", "/v1.0/actors/{}/{}/state", "/v1.0/workflows/{}/{}/start", "/v1.0-alpha1/jobs/{}", "/{}", "/v1.0/{}"]
KINDS = [int(x) for x in os.environ.get("KINDS", "0 1 2 3 4 5 6 7 8 9").split()]  # 0-4 HTTP/1.1, 5-8 HTTP/2, 9 bytes
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "QUERY"]
HEADERS = ["content-type: application/json", "content-type: application/cloudevents+json", "content-type: application/octet-stream",
           "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "traceparent: x", "dapr-app-id: app", "dapr-app-id: nobody",
           "accept-encoding: gzip", "expect: 100-continue", "x-y: \xff", "metadata.a: b", "if-match: 1", "if-match: \"", "connection: close",
           "grpc-timeout: 1m", "dapr-key-name: k", "cookie: " + "c" * 500]
BODIES = ['[{"key":"k","value":1}]', '[{"key":"k","value":{"a":[1,2,{"b":null}]},"metadata":{"ttlInSeconds":"1"}}]', '{"keys":["k","l"],"parallelism":2}',
          '{"operations":[{"operation":"upsert","request":{"key":"k","value":2}},{"operation":"delete","request":{"key":"k"}}]}', '{"a":1}', '"text"',
          '[{"entryId":"1","event":"a","contentType":"text/plain"},{"entryId":"2","event":{},"contentType":"application/json"}]', "",
          '{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"x":1}}', '{"operation":"create","data":"x","metadata":{"a":"b"}}',
          '{"inputs":[{"messages":[{"ofUser":{"content":[{"text":"hi"}]}}]}]}', "[" * 200, '{"a":' * 60, "\x00" * 50, "[1,2", '{"k":"\\ud800"}']
SERVICES = [f"/dapr.proto.runtime.v1.Dapr/{m}" for m in (
    "GetState SaveState DeleteState GetBulkState ExecuteStateTransaction QueryStateAlpha1 PublishEvent BulkPublishEventAlpha1 GetSecret "
    "GetBulkSecret InvokeBinding InvokeService GetMetadata SetMetadata GetConfiguration SubscribeConfiguration TryLockAlpha1 UnlockAlpha1 "
    "EncryptAlpha1 DecryptAlpha1 ConverseAlpha1 ConverseAlpha2 SubscribeTopicEventsAlpha1 RegisterActorTimer InvokeActor ScheduleJobAlpha1 "
    "StartWorkflowBeta1 Nothing").split()] + ["/dapr.proto.internals.v1.ServiceInvocation/CallLocal",
    "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/y", "//", "/"]


def mutate(r, data):
    data = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 5, 20))):
        at = r.randrange(len(data) + 1)
        what = r.randrange(5)
        if what == 0 and at < len(data):
            data[at] = r.randrange(256)
        elif what == 1:
            data[at:at] = bytes(r.randrange(256) for _ in range(r.randrange(1, 9)))
        elif what == 2:
            del data[at:at + r.randrange(1, 9)]
        elif what == 3:
            data[at:at] = data[at:at + r.randrange(1, 60)]
        else:
            data[at:at] = r.choice((b"\r\n", b"\r\n\r\n", b"\0", b"%", b"\xff\xff\xff\xff", b":", b"0\r\n\r\n"))
    return bytes(data)


def http1(r):
    path = r.choice(PATHS)
    path = path.format(*(r.choice(WORDS) for _ in range(path.count("{}"))))
    body = r.choice(BODIES).encode()
    lines = [f"{r.choice(METHODS)} {path.replace(' ', '%20') or '/'} HTTP/1.1", "host: x"] + r.sample(HEADERS, r.randrange(4))
    if r.random() < 0.15:
        cut = r.randrange(len(body) + 1)
        parts = [p for p in (body[:cut], body[cut:]) if p]
        return "\r\n".join(lines + ["transfer-encoding: chunked", "", ""]).encode("utf-8", "replace") + b"".join(
            b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    return "\r\n".join(lines + [f"content-length: {len(body)}", "", ""]).encode("utf-8", "replace") + body


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags & 255]) + struct.pack(">I", stream) + payload


def number(n, bits, first):
    top = (1 << bits) - 1
    if n < top:
        return bytes([first | n])
    out, n = [first | top], n - top
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + [n])


def hpack(pairs):
    return b"".join(b"\x10" + number(len(k), 7, 0) + k + number(len(v), 7, 0) + v for k, v in pairs)


def protobuf(r, depth=0):
    out = b""
    for _ in range(r.randrange(6)):
        n, kind = r.randrange(1, 12), r.choice((0, 2, 2, 2, 1, 5))
        out += number(n << 3 | kind, 7, 0) if n < 15 else bytes([n << 3 | kind & 127])
        if kind == 0:
            out += bytes([r.randrange(128)])
        elif kind == 2:
            inner = protobuf(r, depth + 1) if depth < 4 and r.random() < 0.5 else r.choice(WORDS).encode("utf-8", "replace")[:100]
            out += varint(len(inner)) + inner
        else:
            out += bytes(r.randrange(256) for _ in range(8 if kind == 1 else 4))
    return out


def varint(n):
    out = []
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + [n])


def http2(r, count):
    """A connection's bytes: `count` requests, mostly gRPC."""
    out = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0)]
    for i in range(count):
        id = 2 * i + 1
        grpc = r.random() < 0.7
        path = r.choice(SERVICES) if grpc else r.choice(PATHS).replace("{}", "store")
        head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x")]
        head += [(b"content-type", b"application/grpc"), (b"te", b"trailers")] if grpc else [(b"content-type", b"application/json")]
        if r.random() < 0.1:
            head.append((b"grpc-timeout", r.choice((b"1m", b"0n", b"99999999H", b"x"))))
        message = protobuf(r) if grpc else r.choice(BODIES).encode()
        body = struct.pack(">BI", r.choice((0, 0, 0, 0, 1, 7)), len(message) + r.choice((0, 0, 0, 1))) + message if grpc else message
        out.append(frame(1, 4, id, hpack(head)))
        if r.random() < 0.05:
            out.append(frame(r.randrange(12), r.randrange(256), r.choice((0, id)), bytes(r.randrange(256) for _ in range(r.randrange(20)))))
        out.append(frame(0, 1, id, body) if r.random() < 0.95 else frame(3, 0, id, b"\0\0\0\x08"))
    return b"".join(out)


async def talk(port, data, limit):
    """Sends; reads what comes until silence, the end, or the time is up."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 10)
    except (OSError, asyncio.TimeoutError):
        return False
    try:
        writer.write(data)
        writer.write_eof()
        while await asyncio.wait_for(reader.read(1 << 16), limit):
            pass
    except (OSError, asyncio.TimeoutError):
        pass
    writer.close()
    return True


async def worker(seed, ports, total, done):
    r = random.Random(seed)
    while done[0] < total:
        kind, n = r.choice(KINDS), 20
        if kind < 5:
            data = b"".join(http1(r) for _ in range(n))
            port = ports["metrics"] if r.random() < 0.02 else ports["http"]
        elif kind < 9:
            data = http2(r, n)
            port = r.choice((ports["grpc"], ports["grpc"], ports["http"], ports["internal"]))
        else:
            data, n = bytes(r.randrange(256) for _ in range(r.randrange(1, 400))), 1
            port = r.choice(list(ports.values()))
        if r.random() < 0.5:
            data = mutate(r, data)
        await talk(port, data, 2)
        done[0] += n


def child(seed, ports, total, pipe):
    done = [0]

    async def main():
        async def tell():
            while done[0] < total:
                await asyncio.sleep(0.5)
                os.write(pipe, b"%d\n" % done[0])
        await asyncio.gather(tell(), *(worker(f"{seed}/{i}", ports, total, done) for i in range(24)))
        os.write(pipe, b"%d\n" % done[0])
    asyncio.run(main())
    os._exit(0)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024


def start(args, folder):
    (folder / "resources").mkdir()
    for name, kind, md in STORES:
        (folder / f"resources/{name}.yaml").write_text(json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name},
            "spec": {"type": kind, "version": "v1", "metadata": [{"name": k, "value": v} for k, v in md.items()]}}))
    # without it each unknown path would be a label value of its own
    (folder / "config.yaml").write_text(json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"},
                                                    "spec": {"metrics": {"http": {"increasedCardinality": False}}}}))
    ports = {k: free_port() for k in ("http", "grpc", "internal", "metrics")}
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:malloc_context_size=8:quarantine_size_mb=16", UBSAN_OPTIONS="print_stacktrace=1")
    d = subprocess.Popen([str((ROOT / args.build / "bin/daprd").resolve()), "--app-id=app", f"--dapr-http-port={ports['http']}",
                          f"--dapr-grpc-port={ports['grpc']}", f"--dapr-internal-grpc-port={ports['internal']}", f"--metrics-port={ports['metrics']}",
                          "--dapr-listen-addresses=127.0.0.1", "--dapr-internal-grpc-listen-address=127.0.0.1", "--metrics-listen-address=127.0.0.1",
                          f"--resources-path={folder}/resources", "--log-level=error", "--enable-subtle-crypto", f"--config={folder}/config.yaml"],
                         stdout=open(folder / "log", "w"), stderr=subprocess.STDOUT, cwd=folder, env=env)
    return d, ports


def healthy(ports):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/v1.0/healthz", timeout=10).status == 204
    except OSError:
        return False


def series(ports):
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics']}/", timeout=20).read()
    except OSError:
        return "?"
    return sum(1 for x in text.split(b"\n") if x and not x.startswith(b"#") and b"_bucket" not in x)


def drive(args, d, ports):
    """The memory at each tenth; None when the sidecar has died or does not answer."""
    readers, pids = [], []
    for i in range(args.processes):
        rd, wr = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(f"{args.seed}/{i}", ports, args.requests // args.processes, wr)
        os.close(wr)
        readers.append(os.fdopen(rd, "rb", 0))
        pids.append(pid)
    done, seen, began = [0] * len(readers), [], time.monotonic()
    while any(readers):
        for i, f in enumerate(readers):
            line = f.readline() if f else b""
            if line:
                done[i] = int(line)
            elif f:
                readers[i] = None
        while len(seen) < 10 and sum(done) >= args.requests * (len(seen) + 1) / 10 and d.poll() is None:
            seen.append(memory(d.pid))
            print(f"{sum(done):>9} requests, {time.monotonic() - began:6.1f} s, {seen[-1]:6.1f} MiB, {series(ports)} series, "
                  f"answers: {healthy(ports)}", flush=True)
        if d.poll() is not None:
            break
    for pid in pids:
        if d.poll() is not None:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return seen if d.poll() is None and healthy(ports) else None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build/asan")
    p.add_argument("--requests", type=int, default=1_000_000)
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--seed", default=str(random.randrange(1 << 30)))
    p.add_argument("--growth", type=float, default=24)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as t:
        folder = pathlib.Path(t)
        d, ports = start(args, folder)
        for _ in range(1000):
            if healthy(ports):
                break
            time.sleep(0.02)
        print(f"seed {args.seed}; before: {memory(d.pid):.1f} MiB", flush=True)
        seen = drive(args, d, ports)
        if d.poll() is None:
            d.send_signal(signal.SIGTERM)
        code = d.wait(60)
        log = (folder / "log").read_text(errors="replace")
        bad = [x for x in log.split("\n") if re.search(r"Sanitizer|runtime error|SUMMARY|was killed|exited with|has failed", x)]
        growth = seen[-1] - seen[0] if seen else 0
        print(f"exit code {code}, {len(bad)} findings, memory grew by {growth:.1f} MiB after the first tenth")
        if code or bad or not seen or growth > args.growth:
            print(log[-6000:])
            sys.exit(1)


main()
