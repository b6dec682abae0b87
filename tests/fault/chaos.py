#!/usr/bin/env python3
"""Chaos drill: one sidecar with stores, brokers, a secret store and a binding under load, while faults are made at random over all plugins
and the kernel itself.   chaos.py --minutes 10 [--seed N] [--pace 6]   (by hand, with build/venv/bin/python; `nice` is a good idea)

The load keeps a ledger of its own. Each key has one writer, whose values count up: a reader must see a number between the last one that was
acknowledged before it asked and the last one that was tried before it got its answer. What comes below is a lost write, all else is a wrong
answer. Pairs of keys are written in transactions and must be equal in the end; files that a binding has taken must be whole; messages that
the Redis broker has taken must come at least once (the in-memory broker's die with its process and are only counted).

Each fault must be found in the history of its component, with its class and the process id. A kernel that is upgraded in place hands it on,
and it stands in the ledger on disk for the one after a kill. With --linger plugins outlive a killed kernel: the next one must take them over,
and how such a process dies is told to nobody (class "unknown", when it was not daprd that ended it)."""
import argparse, collections, contextlib, http.client, itertools, json, os, pathlib, random, shutil, signal, subprocess, sys, tempfile, threading, time

TESTS = pathlib.Path(__file__).resolve().parent.parent
for p in (TESTS, TESTS / "conformance"):
    sys.path.insert(0, str(p))
from conftest import BUILD, Daprd, Redis, component, wait_until
from test_pubsub import App
from test_sandbox import MANIFEST

COMPONENTS, STORES = ("sql", "red", "pub", "mem", "vault", "files", "hostile"), ("sql", "red")
PAIRS, KEYS, RECORD_S = 4, 6, 30
HISTORY_EVENTS_MAX = 1000  # kernel/super/history.h
HOT = {"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"},
       "spec": {"features": [{"name": "HotReload", "enabled": True}]}}


def born(pid):
    """A process id comes again: with its start, in ticks, it is one process."""
    try:
        return pid, open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19]
    except OSError:
        return pid, None


class Load:
    """Everything that is sent and what must come of it. `wrong` is what no fault excuses; `failed` counts calls without a good answer."""

    def __init__(self, d, app, pause_s):
        self.d, self.app, self.pause_s, self.done = d, app, pause_s, threading.Event()
        self.wrong, self.failed, self.good = [], collections.Counter(), collections.Counter()
        self.full = 0  # writes that met a full disk
        self.tried, self.acked = collections.Counter(), collections.Counter()
        self.sent, self.offered, self.files = {"pub": set(), "mem": set()}, {"pub": set(), "mem": set()}, {}
        keys = [(s, f"k{i}") for s in STORES for i in range(KEYS)]
        jobs = [(self.writer, s, f"k{i}") for s in STORES for i in range(0, KEYS, 3)] + [(self.pairs, s) for s in STORES]
        jobs += [(self.reader, keys)] * 4 + [(self.secrets,), (self.binding,), (self.publisher, "pub"), (self.publisher, "mem")]
        self.threads = [threading.Thread(target=self.run, args=(n, *j), daemon=True) for n, j in enumerate(jobs)]
        for t in self.threads:
            t.start()

    def run(self, number, job, *args):
        c, rng, n = http.client.HTTPConnection("127.0.0.1", self.d.http, timeout=30), random.Random(number), 0
        while not self.done.is_set():
            n += 1
            try:
                job(lambda *a: self.ask(c, job.__name__, *a), rng, n, *args)
            except (OSError, http.client.HTTPException) as e:
                self.failed[job.__name__, type(e).__name__] += 1
                c.close()
                time.sleep(0.05)
            time.sleep(self.pause_s * rng.random() * 2)
        c.close()

    def ask(self, c, what, method, path, body=None):
        """(status, body); None for the status of a call that failed, which is counted."""
        c.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
        r = c.getresponse()
        data = r.read()
        if r.status >= 400:
            self.failed[what, r.status] += 1
            self.full += b"disk is full" in data
            return None, data
        self.good[what] += 1
        return r.status, data

    def value(self, rng, store, key, n):
        return {"of": f"{store}/{key}", "n": n, "pad": "x" * rng.choice((0, 10, 100, 3000))}

    def writer(self, ask, rng, n, store, first):
        key = f"k{int(first[1:]) + n % 3}"
        self.tried[store, key] = n
        if ask("POST", f"/v1.0/state/{store}", [{"key": key, "value": self.value(rng, store, key, n)}])[0]:
            self.acked[store, key] = n

    def pairs(self, ask, rng, n, store):
        i = n % PAIRS
        both = [f"p{i}a", f"p{i}b"]
        for key in both:
            self.tried[store, key] = n
        ops = [{"operation": "upsert", "request": {"key": key, "value": self.value(rng, store, key, n)}} for key in both]
        if ask("POST", f"/v1.0/state/{store}/transaction", {"operations": ops})[0]:
            for key in both:
                self.acked[store, key] = n

    def read(self, ask, store, key):
        low = self.acked[store, key]
        status, data = ask("GET", f"/v1.0/state/{store}/{key}")
        if status is None:
            return None
        value = json.loads(data) if status == 200 else {"of": f"{store}/{key}", "n": 0}
        if value["of"] != f"{store}/{key}" or not low <= value["n"] <= self.tried[store, key]:
            self.wrong.append(f"{store}/{key} is {data[:80]}, acknowledged {low}, tried {self.tried[store, key]}")
        return value["n"]

    def reader(self, ask, rng, n, keys):
        self.read(ask, *(rng.choice(keys) if n % 3 else (rng.choice(STORES), f"p{rng.randrange(PAIRS)}{rng.choice('ab')}")))

    def secrets(self, ask, rng, n):
        status, data = ask("GET", "/v1.0/secrets/vault/word")
        if status and json.loads(data) != {"word": "open sesame"}:
            self.wrong.append(f"the secret is {data[:80]}")

    def binding(self, ask, rng, n):
        if n % 4 == 1:
            name, text = f"f{n}.txt", f"file {n} " * rng.randrange(1, 200)
            if ask("POST", "/v1.0/bindings/files", {"operation": "create", "data": text, "metadata": {"fileName": name}})[0]:
                self.files[name] = text
        elif self.files:
            name = rng.choice(list(self.files))
            status, data = ask("POST", "/v1.0/bindings/files", {"operation": "get", "metadata": {"fileName": name}})
            if status and data.decode() not in (self.files[name], json.dumps(self.files[name])):
                self.wrong.append(f"{name} is {data[:80]}")

    def publisher(self, ask, rng, n, broker):
        self.offered[broker].add(n)
        if ask("POST", f"/v1.0/publish/{broker}/t", {"n": n})[0]:
            self.sent[broker].add(n)

    def came(self, broker):
        return [e["n"] for e in self.app.data(f"/{broker}")]

    def stop(self):
        self.done.set()
        for t in self.threads:
            t.join()

    def last_look(self):
        """All once more, when the faults are over."""
        c = http.client.HTTPConnection("127.0.0.1", self.d.http, timeout=30)
        ask = lambda *a: self.ask(c, "last look", *a)
        seen = {k: self.read(ask, *k) for k in list(self.tried)}
        self.wrong += [f"{s}/{k} cannot be read" for (s, k), n in seen.items() if n is None]
        self.wrong += [f"{s}/p{i} is torn: {seen[s, f'p{i}a']} and {seen[s, f'p{i}b']}" for s in STORES for i in range(PAIRS)
                       if seen.get((s, f"p{i}a")) != seen.get((s, f"p{i}b"))]
        with contextlib.suppress(AssertionError):
            wait_until("every message has come", lambda: self.sent["pub"] <= set(self.came("pub")), 60)
        for broker in ("pub", "mem"):
            self.wrong += [f"{broker} brought {n}, which nobody sent" for n in set(self.came(broker)) - self.offered[broker]]
        self.wrong += [f"message {n} is lost" for n in sorted(self.sent["pub"] - set(self.came("pub")))]
        self.wrong += [f"{name} differs on disk" for name, text in self.files.items()
                       if (self.d.folder / "files" / name).read_text() not in (text, json.dumps(text))]
        c.close()


class SmallDisk:
    """A file system of its own for the SQLite store; only root can make one."""

    def __init__(self, folder):
        self.folder = folder / "disk"
        self.folder.mkdir()
        self.mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "chaos", self.folder],
                                                            stderr=subprocess.DEVNULL).returncode == 0
        self.ballast = self.folder / "ballast"

    def fill(self):
        with open(self.ballast, "ab", buffering=0) as f, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while f.write(b"\0" * size):
                        pass

    def empty(self):
        self.ballast.unlink(missing_ok=True)

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)


class SmallMemory:
    """A memory cgroup (v1 or v2), into which a process is put that shall grow too large."""

    def __init__(self):
        for base, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            self.folder = pathlib.Path(base) / f"microdapr-chaos-{os.getpid()}"
            try:
                self.folder.mkdir()
                (self.folder / limit).write_text(str(48 << 20))
                return
            except OSError:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
        self.folder = None

    def take(self, pid):
        (self.folder / "cgroup.procs").write_text(str(pid))

    def close(self):
        if self.folder:
            with contextlib.suppress(AssertionError):
                wait_until("the cgroup is empty", lambda: self.folder.rmdir() or True, 5)


class Gate:
    """Faults of plugins hold it together, the kernel's alone."""

    def __init__(self):
        self.cond, self.inside = threading.Condition(), 0

    @contextlib.contextmanager
    def shared(self):
        with self.cond:
            self.inside += 1
        try:
            yield
        finally:
            with self.cond:
                self.inside -= 1
                self.cond.notify_all()

    @contextlib.contextmanager
    def alone(self):
        with self.cond:
            self.cond.wait_for(lambda: not self.inside)
            yield


class Drill:
    def __init__(self, folder, seed, pace_s, load_pause_s=0.01, linger_s=0):
        self.linger_s, self.adopted, self.serving, self.other = linger_s, set(), {}, []
        self.folder, self.seed, self.pace_s, self.gate, self.over = folder, seed, pace_s, Gate(), threading.Event()
        os.chmod(folder, 0o755)
        self.redis, self.disk, self.memory = Redis(folder), SmallDisk(folder), SmallMemory()
        self.app = App([{"pubsubname": b, "topic": "t", "route": f"/{b}"} for b in ("pub", "mem")])
        self.rows, self.missing, self.restart_s, self.generation = collections.defaultdict(lambda: [0, 0, 0]), [], [], 0
        (folder / "files").mkdir()
        (folder / "secrets.json").write_text(json.dumps({"word": "open sesame"}))
        self.d = Daprd(folder, self.resources(), app_id=f"chaos-{os.getpid()}", config=json.dumps(HOT), plugins_path=self.plugins(),
                       args=[f"--app-port={self.app.port}", "--log-level=info"] + ([f"--plugin-linger={linger_s}s"] if linger_s else []))
        self.d.start()
        wait_until("subscribed", lambda: len(self.d.metadata().get("subscriptions", ())) == 2)
        self.load = Load(self.d, self.app, load_pause_s)

    def plugins(self):
        """Those of the build, a hostile one, and the stores in two versions for upgrades."""
        home = self.folder / "plugins"
        home.mkdir()
        for p in (BUILD / "plugins").iterdir():
            (home / p.name).symlink_to(p)
        (home / "state.hostile").mkdir()
        shutil.copy(BUILD / "tests/hostile", home / "state.hostile/hostile")
        (home / "state.hostile/plugin.yaml").write_text(MANIFEST + "sandbox: {limits: {memory: 256Mi}}\n")
        for name, version in ((n, v) for n in ("state.sqlite", "state.redis", "pubsub.redis") for v in "12"):
            to = self.folder / f"{name}-{version}"
            shutil.copytree(BUILD / "plugins" / name, to)
            lines = (to / "plugin.yaml").read_text().splitlines()
            (to / "plugin.yaml").write_text("\n".join(f"version: 1.{version}.0" if l.startswith("version:") else l for l in lines) + "\n")
        return home

    def resources(self):
        red = ("redisHost", self.redis.addr)
        return [component("sql", "state.sqlite", [("connectionString", str(self.disk.folder / "s.db"))]), component("red", "state.redis", [red]),
                component("pub", "pubsub.redis", [red, ("processingTimeout", "2s"), ("redeliverInterval", "500ms")]), component("mem", "pubsub.in-memory"),
                component("vault", "secretstores.local.file", [("secretsFile", str(self.folder / "secrets.json"))]),
                component("files", "bindings.localstorage", [("rootPath", str(self.folder / "files"))]), component("hostile", "state.hostile")]

    # ---- what is known ----

    def ctl(self, *args, group=("plugin",)):
        return subprocess.run([str(BUILD / "bin/daprctl"), *group, *args, "--app-id", self.d.app_id], env={"NO_COLOR": "1"}, capture_output=True,
                              text=True, timeout=90)

    def history(self, name):
        return json.loads(self.ctl("history", name, "-o", "json").stdout or '{"events":[]}')["events"]

    def row(self, name):
        return next(c for c in self.d.metadata()["components"] if c["name"] == name)["microdapr"]

    def pid(self, name):
        pid = wait_until(f"{name} is served", lambda: (r := self.row(name)).get("state") in ("READY", "DEGRADED") and r.get("pid"), RECORD_S)
        self.serving[name] = born(pid)
        return pid

    def expect(self, kind, name, event, text, before=()):
        """The fault must be in the history: an event of this class whose detail has this text, that was not there before."""
        row = self.rows[kind]
        row[0] += 1
        found = lambda: [e for e in self.history(name) if e["event"] == event and text in e["detail"] and e not in before]
        try:
            wait_until(f"{kind} of {name} is recorded", found, RECORD_S)
            row[1] += 1
        except AssertionError:
            self.missing.append(f"{kind} of {name}: no '{event}' with '{text}'; the last: {self.history(name)[-3:]}")

    # ---- faults ----

    def dies(self, kind, name, pid, as_class):
        """Asked of history and metadata; a swap that is taken back shows the row of the process before."""
        if self.serving[name] in self.adopted and as_class not in ("hang", "protocol"):
            as_class = "unknown"
        self.expect(kind, name, as_class, f"process {pid},")
        try:
            self.pid(name)
            last = self.row(name).get("lastDeath")
        except (OSError, StopIteration, AssertionError) as e:
            last = repr(e)
        self.rows[kind][2] += last == as_class
        if last != as_class:
            self.other.append(f"{kind} of {name}, process {pid}: {last}")

    def kill(self, name, rng):
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        self.dies("kill", name, pid, "signal")

    def stop(self, name, rng):
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        self.dies("stop", name, pid, "hang")

    def deed(self, kind, as_class):
        def fault(name, rng):
            pid = self.pid(name)
            if kind == "memory":
                self.memory.take(pid)
                time.sleep(4)  # daprd looks once a second in which group a process is, when the machine lets it
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.d.request("GET", f"/v1.0/state/{name}/{kind}@{pid}", timeout=30)
            self.dies(kind, name, pid, as_class)
        fault.alone = kind == "memory"  # the machine counts such deaths, but does not say whose they were
        return fault

    def disk_full(self, name, rng):
        """SQLite goes on in the room that its log has already: only a write that failed is an event."""
        before, full = self.history(name), self.load.full
        self.disk.fill()
        with contextlib.suppress(AssertionError):
            wait_until("a write has failed", lambda: self.load.full > full, 5)
        time.sleep(rng.random())
        failed = self.load.full > full
        if failed:
            self.expect("disk full", name, "backend lost", "", before)
        self.disk.empty()
        if failed:
            self.expect("disk freed", name, "backend back", "", before)
        else:
            self.rows["disk full, unnoticed"][0] += 1

    def asked(self, kind, text, command):
        def fault(name, rng):
            before = self.history(name)
            self.generation += 1
            r = self.ctl(*command(name))
            if r.returncode:
                self.missing.append(f"{kind} of {name}: {r.stderr.strip()}")
            self.expect(kind, name, "swapped", text, before)
        return fault

    def reload(self, name, rng):
        before = self.history(name)
        path = next(p for p in self.d.resources.iterdir() if json.loads(p.read_text())["metadata"]["name"] == name)
        doc = json.loads(path.read_text())
        kept = [m for m in doc["spec"]["metadata"] if m["name"] not in ("timeout", "readTimeout")]
        self.generation += 1
        doc["spec"]["metadata"] = kept + [{"name": "timeout" if name == "sql" else "readTimeout", "value": f"{20000 + self.generation}ms"}]
        new = path.with_suffix(".new")
        new.write_text(json.dumps(doc))
        new.rename(path)
        self.expect("reload", name, "swapped", "reload", before)

    def kernel(self):
        with self.gate.alone():
            kids, serving = self.d.children(resolver=True), {n: self.pid(n) for n in COMPONENTS}
            said = len(self.d.log())
            self.d.proc.kill()
            self.d.proc.wait()
            began = time.monotonic()
            self.d.start()
            self.restart_s.append(time.monotonic() - began)
            self.rows["kernel kill"][0] += 1
            if self.linger_s:
                self.adopted |= {born(p) for p in serving.values()}
                # a change that was taken back shows at the next start: then another process is right
                lost = {n: p for n, p in serving.items() if self.pid(n) != p and f"the settings of {n} are others now" not in self.d.log()[said:]}
                self.rows["plugins taken over"][0] += len(serving)
                self.rows["plugins taken over"][1] += len(serving) - len(lost)
                self.missing += [f"{n}, process {p}, was not taken over" for n, p in lost.items()]
                kids = set(kids) - set(serving.values()) - self.taken_over()
            wait_until("the plugins of the dead kernel are gone", lambda: not any(os.path.exists(f"/proc/{p}") for p in kids), 10)
            wait_until("subscribed", lambda: len(self.d.metadata().get("subscriptions", ())) == 2)

    def taken_over(self):
        """Processes that hang on this daprd without being its children: it holds their pidfds."""
        found = set()
        for fd in os.listdir(f"/proc/{self.d.proc.pid}/fdinfo"):
            with contextlib.suppress(OSError):
                found |= {int(l.split()[1]) for l in open(f"/proc/{self.d.proc.pid}/fdinfo/{fd}") if l.startswith("Pid:")}
        return found

    @staticmethod
    def goes_on(before, after, full):
        """All that was told before comes first; a full history has let go of the oldest."""
        return any(after[:len(before) - k] == before[k:] for k in range(50 if full else 1))

    def upgrade(self):
        """In the same process, by another start of the same program: what is known stays known."""
        with self.gate.alone():
            before = {n: self.history(n) for n in COMPONENTS}
            r = self.ctl("upgrade", group=())
            full = sum(map(len, before.values())) >= HISTORY_EVENTS_MAX - 100
            kept = all(self.goes_on(events, self.history(n), full) for n, events in before.items())
            self.rows["upgrade of the kernel"][0] += 1
            self.rows["upgrade of the kernel"][1] += kept and r.returncode == 0
            if r.returncode or not kept:
                self.missing.append(f"the kernel's upgrade: {r.stderr.strip() or 'its history is not what it was'}")

    def table(self, name):
        if name == "hostile":
            own = [self.deed(k, c) for k, c in (("garbage", "protocol"), ("crash", "signal"), ("exit", "error exit"), ("fork", "sandbox"))]
            return own + ([self.deed("memory", "out of memory")] if self.memory.folder else []) + [self.kill, self.stop]
        rows = [self.kill, self.kill, self.stop, self.asked("restart", "restart", lambda n: ("restart", n))]
        if name in ("sql", "red", "pub"):
            type_ = {"sql": "state.sqlite", "red": "state.redis", "pub": "pubsub.redis"}[name]
            rows.append(self.asked("upgrade", "upgrade", lambda n: ("upgrade", n, "--path", str(self.folder / f"{type_}-{self.generation % 2 + 1}"))))
        if name in ("sql", "red"):
            rows.append(self.reload)
        if name == "sql" and self.disk.mounted:
            rows += [self.disk_full] * 2
        return rows

    # ---- the drill ----

    def injector(self, name, rng):
        rows = self.table(name)
        left = []
        while not self.over.wait(self.pace_s * (0.5 + rng.random())):
            if not left:
                left = rng.sample(rows, len(rows))
            fault = left.pop()
            with self.gate.alone() if getattr(fault, "alone", False) else self.gate.shared():
                try:
                    fault(name, rng)
                except Exception as e:
                    self.missing.append(f"a fault of {name} could not be made: {e!r}")

    def killer(self, every_s):
        for fault in itertools.cycle((self.upgrade, self.kernel)):
            if self.over.wait(every_s):
                return
            try:
                fault()
            except Exception as e:
                self.missing.append(f"the kernel did not come back: {e!r}")

    def run(self, seconds, kernel_every_s):
        threads = [threading.Thread(target=self.injector, args=(n, random.Random(f"{self.seed}-{n}"))) for n in COMPONENTS]
        threads.append(threading.Thread(target=self.killer, args=(kernel_every_s,)))
        for t in threads:
            t.start()
        time.sleep(seconds)
        self.over.set()
        for t in threads:
            t.join()
        if not self.rows["kernel kill"][0]:
            self.kernel()
        for n in COMPONENTS:
            self.pid(n)
        self.load.stop()
        self.load.last_look()

    def report(self):
        l = self.load
        print(f"\n{'fault':<23}{'injected':>10}{'in history':>12}{'lastDeath':>11}")
        for kind, (made, found, last) in sorted(self.rows.items()):
            print(f"{kind:<23}{made:>10}{'-' if kind in ('kernel kill', 'disk full, unnoticed') else found:>12}{last if last else '-':>11}")
        print("calls answered:", sum(l.good.values()), dict(l.good))
        print("calls failed:  ", sum(l.failed.values()), {f"{a} {b}": n for (a, b), n in sorted(l.failed.items(), key=str)})
        for broker in ("pub", "mem"):
            came = l.came(broker)
            print(f"{broker}: {len(l.sent[broker])} messages taken, {len(l.sent[broker] - set(came))} did not come, {len(came) - len(set(came))} twice")
        print(f"{sum(l.acked.values())} the sum of acknowledged numbers; kernel back in {', '.join(f'{s:.2f}' for s in self.restart_s) or '-'} s")
        skipped = [w for w, there in (("disk full (needs root)", self.disk.mounted), ("memory (needs a cgroup)", self.memory.folder)) if not there]
        print("not made:", ", ".join(skipped) or "nothing")
        for what, list_ in (("OTHER LAST DEATH", self.other), ("WRONG", l.wrong), ("NOT FOUND", self.missing)):
            print(f"{what}: {len(list_)}", *list_[:20], sep="\n  ")

    def close(self):
        self.over.set()
        self.load.done.set()
        try:
            self.d.close()
        finally:
            self.app.close()
            self.redis.close()
            self.memory.close()
            self.disk.close()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--minutes", type=float, required=True)
    p.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    p.add_argument("--pace", type=float, default=8, help="seconds between two faults of one component")
    p.add_argument("--linger", type=int, default=0, metavar="SECONDS", help="plugins outlive a killed kernel so long, and the next one takes them over")
    p.add_argument("--kernel", type=float, default=60, help="seconds between two deaths of the kernel")
    o = p.parse_args()
    print("seed", o.seed, flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="microdapr-chaos-"))
    drill = Drill(folder, o.seed, o.pace, linger_s=o.linger)
    try:
        drill.run(o.minutes * 60, o.kernel)
        drill.report()
    finally:
        drill.close()
        bad = drill.load.wrong or drill.missing
        print("the sidecar's log is kept:" if bad else "removed:", folder)
        if not bad:
            shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
