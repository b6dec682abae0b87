"""The process: descriptors, lifecycle, instances, calls."""
import asyncio
import concurrent.futures
import fcntl
import functools
import inspect
import os
import re
import resource
import signal
import socket
import stat
import sys
import threading
import time
import types

from . import _kinds
from ._proto import Protos, WireError
from ._server import (CANCELED, FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE, UNIMPLEMENTED, UNKNOWN, Connection,
                      PluginError)

_LINGER_MAX_MS = 3600 * 1000
_CONTRACT_VERSION, _FD_LISTEN, _FD_CONTROL, _EXIT_GRACE_S, _PING_S, _PING_TIMEOUT_S, _THREADS = 1, 3, 4, 3.0, 10.0, 5.0, 32
_FILES = [f"plugin/v1/{n}.proto" for n in ("lifecycle", "state", "configuration", "lock", "crypto", "conversation", "nameresolution", "middleware")] + [
          "grpc/reflection/v1/reflection.proto", "google/rpc/status.proto",
          "google/rpc/error_details.proto"] + [f"dapr/proto/components/v1/{n}.proto" for n in ("common", "state", "secretstore", "pubsub", "bindings")]
_LEVELS = {"debug": 7, "info": 6, "warn": 4, "warning": 4, "error": 3, "fatal": 3}
_level = 6
_current = None


@functools.lru_cache(1)
def protos():
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in (os.path.join(here, "proto"), os.path.join(here, "../../../proto")):
        if os.path.isdir(folder):
            return Protos(folder, _FILES)
    raise RuntimeError(f"{here}/proto is missing: install the package again")


def log(level, text):
    """One line that the runtime makes its own log line of. level: debug, info, warn, error."""
    n = _LEVELS.get(level, 6)
    if n <= _level:
        try:
            sys.stderr.write(f"<{n}>" + str(text).replace("\n", " ") + "\n")
            sys.stderr.flush()
        except OSError:  # there is no runtime just now
            pass


def backend_up(component):
    """Tells the runtime that what stands behind the component can be reached again. Any thread."""
    if _current:
        _current.loop.call_soon_threadsafe(_current.backend, component, "")


def backend_down(component, reason):
    if _current:
        _current.loop.call_soon_threadsafe(_current.backend, component, str(reason) or "not reachable")


class Job:
    """A method of the author's on a thread, or on its way there."""

    def __init__(self, method, name):
        self.method, self.name, self.began, self.started, self.gone = method, name, time.monotonic(), None, False


class Runtime:
    def __init__(self, name, version, types):
        self.name, self.version, self.types = name, version, types
        self.instances, self.wanted, self.down = {}, "", {}
        self.calls = self.errors = self.inflight = 0
        self.last_error, self.draining, self.started = "", False, time.monotonic()
        self.pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        self.changed, self.methods, self.readers = asyncio.Event(), {}, set()
        self.jobs, self.came_back_at, self.pings, self.hang_after_s, self.limit_changed = {}, time.monotonic(), {}, 0.0, asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.ended = self.loop.create_future()
        self.linger_s, self.token, self.lost, self.over = 0.0, "", False, None
        self._add_methods()

    # ---- methods ----

    def _add_methods(self):
        life = "/microdapr.plugin.v1.Lifecycle/"
        for method, fn in (("Hello", self.hello), ("Accept", self.accept), ("Drain", self.drain), ("Stats", self.stats), ("SetLogLevel", self.set_level)):
            self._unary(life + method, fn)
        self.methods[life + "Health"] = (self.health, False)
        self.methods[life + "Attach"] = (self.attach, False)
        for kind, services in _kinds.CALLS.items():
            classes = [c for c in self.types.values() if c.kind == kind]
            for service, calls in services.items():
                have = {m: c for m, c in calls.items() if any(_kinds.serves(x, c[2]) for x in classes)}
                if have:
                    self._add_service(kind, service, have)
        for version in ("v1", "v1alpha"):
            self.methods[f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"] = (self.reflect, False)

    def _add_service(self, kind, service, calls):
        known = protos().methods
        if f"/{service}/Init" in known:
            self._unary(f"/{service}/Init", functools.partial(self.init, kind))
            self._unary(f"/{service}/Ping", functools.partial(self.ping, kind), True)
        if f"/{service}/Features" in known:
            self._unary(f"/{service}/Features", functools.partial(self.features, kind), True)
        for method, (fn, idempotent, attribute) in calls.items():
            path = f"/{service}/{method}"
            if fn:
                self._unary(path, functools.partial(self.operate, kind, fn, attribute), idempotent)
            else:
                self.methods[path] = (functools.partial(self.events, kind, path), False)

    def _unary(self, path, fn, idempotent=False):
        request, response, _ = protos().methods[path]

        async def run(stream):
            data = await stream.recv()
            if data is None:
                raise PluginError(INTERNAL, "the call has no request message")
            out = await fn(stream, self._decode(request, data))
            await stream.send(protos().encode(response, out or {}))
        self.methods[path] = (run, idempotent)

    @staticmethod
    def _decode(name, data):
        try:
            return protos().decode(name, data)
        except WireError:
            raise PluginError(INVALID_ARGUMENT, "the request is not a valid message") from None

    async def serve(self, stream):
        path = stream.headers.get(":path", "")
        if path not in self.methods:
            raise PluginError(UNIMPLEMENTED, f"unknown method {path}")
        self.calls += 1
        try:
            await self.methods[path][0](stream)
        except Exception:
            self.errors += 1
            raise

    # ---- lifecycle ----

    async def hello(self, stream, m):
        self.wanted = m["component_type"]
        return {"plugin_name": self.name, "plugin_version": self.version, "contract_versions": [_CONTRACT_VERSION],
                "component_types": [{"type": t, "versions": ["v1"], "features": _kinds.features_of(c)} for t, c in self.types.items()],
                "idempotent_methods": [p for p, (_, same) in self.methods.items() if same]}

    async def accept(self, stream, m):
        if not m["accepted"]:
            log("error", f"refused by the runtime: {m['refusal']}; {m['fix']}")
        elif m["linger_ms"] and m["linger_token"]:
            self.linger_s, self.token = min(m["linger_ms"], _LINGER_MAX_MS) / 1000, m["linger_token"]
            socket.socket(fileno=os.dup(_FD_LISTEN)).listen(1024)  # who connects sees this process behind the socket

    def end(self):
        if not self.ended.done():
            self.ended.set_result(None)

    def runtime_gone(self):
        """Ends the process; or, when the runtime wished so, waits for another one to attach."""
        if self.draining or not self.linger_s:
            self.end()
        else:
            self.lost, self.over = True, self.loop.call_later(self.linger_s, self.end)

    async def attach(self, stream):
        m = self._decode("microdapr.plugin.v1.AttachRequest", await stream.recv() or b"")
        if not self.lost:
            raise PluginError(FAILED_PRECONDITION, "the process has a runtime")
        if m["token"] != self.token:
            raise PluginError(PERMISSION_DENIED, "the token is another one")
        self.lost = False
        self.over.cancel()
        try:
            await stream.send(protos().encode("microdapr.plugin.v1.AttachResponse", {"instances": [n for _, n in self.instances]}))
            while await stream.recv() is not None:
                pass
        finally:
            self.runtime_gone()

    async def health(self, stream):
        m = self._decode("microdapr.plugin.v1.HealthRequest", await stream.recv() or b"")
        interval = max(m["interval_ms"] or 1000, 20) / 1000
        if self.hang_after_s != m["hang_after_ms"] / 1000:
            self.hang_after_s = m["hang_after_ms"] / 1000
            self.limit_changed.set()
        while True:
            self.changed.clear()
            stuck = self.stuck()
            await stream.send(protos().encode("microdapr.plugin.v1.HealthReport", {
                "alive": True, "backend_reachable": not self.down, "last_error": self.last_error, "at_unix_ms": int(time.time() * 1000),
                "calls": self.calls, "inflight": self.inflight + stuck["abandoned"], **stuck}))
            try:
                await asyncio.wait_for(self.changed.wait(), interval)
            except asyncio.TimeoutError:
                pass

    async def drain(self, stream, m):
        self.draining = True
        handed = sum(len(r.waiting) for r in self.readers)
        for r in list(self.readers):
            r.stop.set()
        end = time.monotonic() + m["timeout_ms"] / 1000
        while self.inflight and time.monotonic() < end:
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), end - time.monotonic())
            except asyncio.TimeoutError:
                break
        return {"handed_back": handed}

    async def stats(self, stream, m):
        u = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm") as f:
            pages = int(f.read().split()[1])
        return {"calls": self.calls, "errors": self.errors, "inflight": self.inflight, "rss_bytes": pages * resource.getpagesize(),
                "cpu_ms": int((u.ru_utime + u.ru_stime) * 1000), "uptime_ms": int((time.monotonic() - self.started) * 1000),
                "open_fds": len(os.listdir("/proc/self/fd"))}

    async def set_level(self, stream, m):
        global _level
        if m["level"].lower() not in _LEVELS:
            raise PluginError(INVALID_ARGUMENT, f"unknown log level '{m['level']}': debug, info, warn, error or fatal")
        _level = _LEVELS[m["level"].lower()]

    async def reflect(self, stream):
        while (data := await stream.recv()) is not None:
            m = self._decode("grpc.reflection.v1.ServerReflectionRequest", data)
            out = {"valid_host": m["host"], "original_request": m}
            if m.get("list_services") is not None:
                services = sorted({p.split("/")[1] for p in self.methods})
                out["list_services_response"] = {"service": [{"name": s} for s in services]}
            else:
                out["error_response"] = {"error_code": NOT_FOUND, "error_message": "descriptors are not served: the .proto files are public"}
            await stream.send(protos().encode("grpc.reflection.v1.ServerReflectionResponse", out))

    def backend(self, name, reason):
        if reason:
            self.down[name], self.last_error = reason, reason
        else:
            self.down.pop(name, None)
        self.changed.set()

    # ---- what does not come back ----

    def part(self, n, most):
        """A part of the manifest's hangAfter, at most `most`."""
        s = self.hang_after_s / n
        return s if 0 < s < most else most

    def stuck(self):
        """For the reports. The runtime takes the process for hung when all threads are busy for hangAfter and none comes back, while calls
        wait or have lost their callers; or when a ping stays away for half of it."""
        now, texts = time.monotonic(), []
        running = [j for j in self.jobs if j.started]
        waiting = [j for j in self.jobs if not j.started and j.method != "ping"]
        gone = [j for j in running if j.gone and j.method != "ping"]
        out = {"stalled_ms": 0, "ping_ms": 0, "abandoned": len(gone), "abandoned_ms": int((now - gone[0].began) * 1000) if gone else 0}
        if len(running) >= _THREADS and (waiting or gone):
            out["stalled_ms"] = int((now - max(self.came_back_at, max(j.started for j in running))) * 1000)
            texts.append(f"all {_THREADS} threads are busy, {len(waiting)} calls wait")
        if gone:
            texts.append(f"{len(gone)} of the calls that run have no caller any more")
        if texts:
            texts.append(f"the oldest is {running[0].method} of component {running[0].name}, for {now - running[0].began:.0f} s")
        for o, ping in self.pings.items():
            s = now - ping.started if ping.started else 0
            out["ping_ms"] = max(out["ping_ms"], int(s * 1000))
            if s >= self.part(12, _PING_TIMEOUT_S) and o.name not in self.down:
                self.down[o.name] = self.last_error = f"its ping has not come back for {s:.2g} s"
        if out["ping_ms"]:
            texts.append(f"a ping has not come back for {out['ping_ms'] / 1000:.2g} s")
        return out | {"busy_with": ", ".join(texts)}

    async def on_thread(self, job, fn, *args):
        def work():
            job.started = time.monotonic()
            try:
                return fn(*args)
            finally:
                try:
                    self.loop.call_soon_threadsafe(self.came_back, job)
                except RuntimeError:  # the process ends
                    pass
        self.jobs[job] = None
        f = self.pool.submit(work)
        try:
            return await asyncio.wrap_future(f)
        except asyncio.CancelledError:
            job.gone = True
            if f.cancelled():
                self.jobs.pop(job, None)
            raise

    def came_back(self, job):
        self.jobs.pop(job, None)
        self.came_back_at = time.monotonic()

    async def ping_all(self):
        while True:
            try:
                await asyncio.wait_for(self.limit_changed.wait(), self.part(6, _PING_S))
                self.limit_changed.clear()
            except asyncio.TimeoutError:
                for o in list(self.instances.values()):
                    if o not in self.pings:
                        self.pings[o] = Job("ping", o.name)
                        asyncio.ensure_future(self.ping_one(o, self.pings[o]))

    async def ping_one(self, o, job):
        try:
            if inspect.iscoroutinefunction(o.ping):
                await asyncio.wait_for(o.ping(), self.part(12, _PING_TIMEOUT_S))
            else:
                await self.on_thread(job, o.ping)
            self.backend(o.name, "")
        except Exception as e:
            self.backend(o.name, str(e) or type(e).__name__)
        finally:
            self.pings.pop(o, None)

    # ---- components ----

    async def run(self, fn, *args):
        """A method of the author's: a coroutine here, anything else on a thread."""
        if inspect.iscoroutinefunction(fn):
            return await fn(*args)
        return await self.on_thread(Job(getattr(fn, "__name__", "a method"), getattr(getattr(fn, "__self__", None), "name", "")), fn, *args)

    def class_for(self, kind, stream):
        for name in (stream.headers.get("x-component-type", ""), self.wanted):
            for t, c in self.types.items():
                if t.lower() == name.lower() and c.kind == kind:
                    return c
        found = [c for c in self.types.values() if c.kind == kind]
        return found[0] if found else None

    async def init(self, kind, stream, m):
        o = self.class_for(kind, stream)()
        o.name = stream.instance or ""
        if m.get("instance"):  # of a name resolver
            o.sidecar, o.configuration = types.SimpleNamespace(**m["instance"]), m["configuration"]
        await self.run(o.init, (m["metadata"] or {}).get("properties", {}))
        old = self.instances.get((kind, o.name))
        self.instances[kind, o.name] = o
        self.backend(o.name, "")
        if old:
            await self.run(old.close)

    async def features(self, kind, stream, m):
        return {"features": _kinds.features_of(self.class_for(kind, stream))}

    async def ping(self, kind, stream, m):
        o = self.instances.get((kind, stream.instance or ""))
        if o:
            await self.run(o.ping)

    def find(self, kind, stream):
        if self.draining:
            raise PluginError(UNAVAILABLE, "the plugin is being stopped")
        if self.lost:
            raise PluginError(UNAVAILABLE, "the plugin has no runtime: attach first")
        o = self.instances.get((kind, stream.instance or ""))
        if o is None and stream.instance is None:  # a caller by hand, without the metadata
            found = [x for (k, _), x in self.instances.items() if k == kind]
            o = found[0] if len(found) == 1 else None
        if o is None:
            raise PluginError(FAILED_PRECONDITION, f"component '{stream.instance or ''}' was not initialised in this process")
        return o

    async def operate(self, kind, fn, attribute, stream, m):
        o = self.find(kind, stream)
        if not hasattr(o, attribute):
            raise _kinds.unsupported(type(o).__name__)
        self.inflight += 1
        try:
            return await self.on_thread(Job(attribute, o.name), fn, o, m)
        finally:
            self.done()

    def done(self):
        self.inflight -= 1
        if not self.inflight:
            self.changed.set()

    async def events(self, kind, path, stream):
        o = self.find(kind, stream)
        await (self.watch(o, path, stream) if path.endswith("/Subscribe") else Reader(self, stream, path).run(o))

    async def watch(self, o, path, stream):
        """One watch of a configuration store, until its caller gives it up."""
        request, response, _ = protos().methods[path]
        m, stop = self._decode(request, await stream.recv() or b""), threading.Event()
        thread = concurrent.futures.ThreadPoolExecutor(1)

        def changed(items):
            if not stop.is_set():
                data = protos().encode(response, _kinds.entries(items))
                asyncio.run_coroutine_threadsafe(stream.send(data), self.loop).result()
        try:
            await self.loop.run_in_executor(thread, o.subscribe, m["keys"], m["metadata"], changed, stop)
        finally:
            stop.set()
            thread.shutdown(wait=False)


class Reader:
    """One stream of events: each waits for its own answer."""

    def __init__(self, rt, stream, path):
        self.rt, self.stream, self.waiting, self.last = rt, stream, {}, 0
        self.request, self.response, _ = protos().methods[path]
        self.is_topic, self.topic = path.endswith("PullMessages"), None
        self.stop, self.sending = threading.Event(), asyncio.Lock()

    async def run(self, o):
        if self.is_topic:
            first = self.rt._decode(self.request, await self.stream.recv() or b"")
            self.topic = first["topic"]
            if not self.topic:
                raise PluginError(INVALID_ARGUMENT, "the first message of the stream names the topic")
        answers = asyncio.ensure_future(self.take_answers())
        fn = functools.partial(o.subscribe, self.topic["name"], self.topic["metadata"]) if self.is_topic else o.read
        thread = concurrent.futures.ThreadPoolExecutor(1)  # it lasts as long as the stream: none of the pool's
        self.rt.readers.add(self)
        try:
            done = self.rt.loop.run_in_executor(thread, fn, self.deliver, self.stop)
            await asyncio.wait([done, answers], return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                done.result()
        finally:
            self.stop.set()
            self.rt.readers.discard(self)
            for f in self.waiting.values():
                if not f.done():
                    f.set_exception(PluginError(CANCELED, "the runtime has ended the subscription"))
            answers.cancel()
            thread.shutdown(wait=False)

    async def take_answers(self):
        while (data := await self.stream.recv()) is not None:
            m = self.rt._decode(self.request, data)
            number, error = (m["ack_message_id"], m["ack_error"]) if self.is_topic else (m["message_id"], m["response_error"])
            f = self.waiting.pop(number, None)
            if f and not f.done():
                if error:
                    f.set_exception(PluginError(UNKNOWN, error["message"]))
                else:
                    f.set_result(b"" if self.is_topic else m["response_data"])

    def deliver(self, message):
        return asyncio.run_coroutine_threadsafe(self.send(message), self.rt.loop).result()

    async def send(self, x):
        if self.stop.is_set():
            raise PluginError(CANCELED, "the runtime has ended the subscription")
        self.last += 1
        number, f = str(self.last), self.rt.loop.create_future()
        self.waiting[number] = f
        row = {"data": x.data, "metadata": x.metadata, "content_type": x.content_type}
        row.update({"topic_name": x.topic or self.topic["name"], "id": number} if self.is_topic else {"message_id": number})
        self.rt.inflight += 1
        try:
            async with self.sending:
                await self.stream.send(protos().encode(self.response, row))
            return await f
        finally:
            self.waiting.pop(number, None)
            self.rt.done()


# ---- the process ----

async def _serve(name, version, types, path):
    global _current
    rt = _current = Runtime(name, version, types)
    if path:
        if os.path.exists(path):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
        sock.listen(1024)
    else:
        sock = socket.socket(fileno=_FD_LISTEN)
        for fd in (_FD_LISTEN, _FD_CONTROL):  # children of the plugin must not hold them
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        os.set_blocking(_FD_CONTROL, False)
        rt.loop.add_reader(_FD_CONTROL, _on_control, rt)
    sock.setblocking(False)

    rt.loop.add_signal_handler(signal.SIGTERM, rt.end)
    rt.loop.add_signal_handler(signal.SIGINT, rt.end if path else lambda: None)

    async def accept():
        while True:
            conn, _ = await rt.loop.sock_accept(sock)
            reader, writer = await asyncio.open_connection(sock=conn)
            asyncio.ensure_future(Connection(reader, writer, rt.serve).run())
    tasks = [asyncio.ensure_future(accept()), asyncio.ensure_future(rt.ping_all())]
    if path:
        log("info", f"{name} {version} serves on {path}")
    await rt.ended
    for t in tasks:
        t.cancel()
    rt.draining = True
    for r in list(rt.readers):
        r.stop.set()
    for o in rt.instances.values():
        try:
            o.close()
        except Exception as e:
            log("warn", f"close: {e}")
    if path:
        os.unlink(path)


def _on_control(rt):
    try:
        if os.read(_FD_CONTROL, 64):
            return
    except BlockingIOError:
        return
    except OSError:
        pass
    rt.loop.remove_reader(_FD_CONTROL)
    rt.runtime_gone()


def _is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def manifest_version():
    """The version that plugin.yaml beside the program says; 0.0.0 where there is none."""
    try:
        with open(os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "plugin.yaml"), encoding="utf-8") as f:
            m = re.search(r"^version:[ \"']*([^\s\"'#]+)", f.read(), re.M)
    except OSError:
        m = None
    return m[1] if m else "0.0.0"


def main(name, version, types):
    """Serves component types (a dict from type to class) until the runtime ends. Exits: 0 done, 2 wrong use."""
    args = sys.argv[1:]
    if args == ["--manifest"]:
        print(f"name: {name}\nversion: {version}\ncontractVersions: [{_CONTRACT_VERSION}]\ntypes:")
        for t, c in types.items():
            print(f"  - type: {t}\n    versions: [v1]\n    features: [{', '.join(_kinds.features_of(c))}]")
        sys.exit(0)
    path = args[1] if len(args) == 2 and args[0] == "--socket" else None
    if not path and (args or not _is_socket(_FD_LISTEN)):
        sys.stderr.write(f"{name} {version} is a plugin: daprd starts it when a component of its type is loaded.\n"
                         "By hand:  --socket PATH   serve on a Unix socket (a debugger, or a pluggable component of another runtime)\n"
                         "          --manifest      print what it serves\n")
        sys.exit(0 if args == ["--help"] else 2)
    asyncio.run(_serve(name, version, types, path))
    sys.stderr.flush()
    os._exit(0)  # a method that is stuck on a thread does not keep the process
