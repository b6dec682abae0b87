"""Streaming subscriptions beside the reference's sidecar: several streams, answers in any order, late, unknown and wrong ones, retries, drops,
dead letters, broken streams, reloads and stops. What streams are told, what other subscribers get, metadata and the log's lines must be
the same. OTHER_DAPRD = path of the reference's daprd; skipped without it."""
import json, queue, re, signal, subprocess, threading, time

import grpc
import pytest
from dapr.proto import api_service_v1, api_v1

from app_differential import lines, pair  # noqa: F401 (a fixture)
from conftest import component, wait_until
from test_pubsub import App
from twins import ask, fault, needs_other

pytestmark = needs_other
R, I, P = api_v1.SubscribeTopicEventsRequestAlpha1, api_v1.SubscribeTopicEventsRequestInitialAlpha1, api_v1.SubscribeTopicEventsRequestProcessedAlpha1
SUCCESS, RETRY, DROP = 0, 1, 2
MEMORY = component("ps", "pubsub.in-memory")


class Stream:
    """One stream; .got: what came, as (topic, data, content type, ...) or how it ended."""

    def __init__(self, d, topic="t", pubsub="ps", first=True, auto=None, **initial):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{d.grpc}")
        self.out, self.got, self.ids, self.end, self.auto, self.began = queue.Queue(), queue.Queue(), [], None, auto, threading.Event()
        if first:
            self.out.put(R(initial_request=I(pubsub_name=pubsub, topic=topic, **initial)))
        self.call = api_service_v1.DaprStub(self.channel).SubscribeTopicEventsAlpha1(iter(self.out.get, None))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            for m in self.call:
                e = m.event_message
                if m.WhichOneof("subscribe_topic_events_response_type") == "initial_response":
                    self.began.set()
                    continue
                self.ids.append(e.id)
                self.got.put((e.topic, e.data.decode("latin-1"), e.data_content_type, e.path, e.pubsub_name, e.spec_version, e.type, e.source))
                if self.auto is not None:
                    self.answer(e.id, self.auto)
            self.end = "end"
        except grpc.RpcError as e:
            self.end = fault(e)
        self.got.put(self.end)
        self.began.set()

    def answer(self, id, status=SUCCESS):
        self.out.put(R(event_processed=P(id=id, status=api_v1.TopicEventResponse(status=status))))

    def next(self, limit=1.5):
        try:
            return self.got.get(timeout=limit)
        except queue.Empty:
            return "nothing"

    def all(self, quiet=0.7):
        out = []
        while (x := self.next(quiet)) != "nothing":
            out.append(x)
            if x == self.end:
                break
        return out

    def ready(self):
        assert self.began.wait(10)
        time.sleep(0.3)  # the reference knows a stream only after its first answer
        return self

    def close(self):
        self.call.cancel()
        self.out.put(None)
        self.channel.close()


def publish(d, data, topic="t", pubsub="ps"):
    return ask(d, "POST", f"/v1.0/publish/{pubsub}/{topic}", json.dumps(data), {"content-type": "application/json"})


def seen(d, **more):
    said = [x for x in lines(d, r"dapr\.runtime\.pubsub\.streamer|dapr\.runtime\.processor\.pubsub\.subscription.*|dapr\.runtime\.processor\.subscription.*|dapr\.runtime\.processor\.pubsub")]
    said = [(lv, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", re.sub(r" ?ConnectionID ?\d+", "", t))) for lv, t in said if lv != "debug"]
    subs = ask(d, "GET", "/v1.0/metadata")[1].get("subscriptions") if d.proc.poll() is None else None
    return {**more, "log": sorted(set(said)), "subscriptions": sorted((json.dumps(s, sort_keys=True) for s in subs or []))}


def declared(topic, route="/event", **spec):
    return json.dumps({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"name": f"s-{topic}"}, "spec": {"pubsubname": "ps", "topic": topic, "routes": {"default": route}, **spec}})


# name -> fn(d, streams) -> facts
def two_streams(d, make):
    a, b = make(d, auto=0).ready(), make(d, auto=0).ready()
    f = seen(d)
    for i in range(10):
        publish(d, i)
    f["a"], f["b"] = sorted(map(str, a.all())), sorted(map(str, b.all()))
    a.close()
    time.sleep(0.3)
    publish(d, "after")
    f["b after"] = b.all()
    return f | {"subscriptions after": seen(d)["subscriptions"]}


def any_order(d, make):
    s = make(d).ready()
    for i in range(3):
        publish(d, i)
    first = s.all()
    f = {"first": sorted(map(str, first))}
    for id in reversed(s.ids):
        s.answer(id)
    f["then"] = s.all()
    publish(d, "more")
    f["more"] = s.all()
    return seen(d, **f)


def unknown_ids(d, make):
    s = make(d).ready()
    s.answer("nobody")
    s.answer("")
    s.out.put(R(event_processed=P(id="no status")))
    publish(d, 1)
    f = {"event": s.next()}
    s.answer("wrong")
    s.answer(s.ids[0])
    s.answer(s.ids[0])
    f["then"] = s.all()
    publish(d, 2)
    f["more"] = s.next()
    return seen(d, **f)


def statuses(status):
    def case(d, make):
        dead = make(d, "dead", auto=0).ready()
        s = make(d, dead_letter_topic="dead").ready()
        publish(d, status)
        f = {"event": s.next()}
        s.answer(s.ids[0], status)
        f["then"] = s.all(1.5)
        f["dead"] = dead.all()
        publish(d, "next")
        f["next"] = s.next()
        return seen(d, **f)
    return case


def no_dead_letters(status):
    def case(d, make):
        s = make(d).ready()
        publish(d, status)
        f = {"event": s.next()}
        s.answer(s.ids[0], status)
        f["then"] = s.all(1.5)
        return seen(d, **f)
    return case


def closed_in_flight(how):
    def case(d, make):
        dead = make(d, "dead", auto=0).ready()
        s = make(d, dead_letter_topic="dead").ready()
        publish(d, 1)
        f = {"event": s.next()}
        s.call.cancel() if how == "cancel" else s.out.put(None) if how == "half" else s.channel.close()
        f["end"] = s.next(2) if how == "half" else None
        if how == "half":
            publish(d, "2")
            f["after the half"] = s.all()
        time.sleep(1)
        f["dead"] = dead.all()
        other = make(d, auto=0).ready()
        f["next stream"] = other.all()
        return seen(d, **f)
    return case


def second_initial(d, make):
    s = make(d).ready()
    s.out.put(R(initial_request=I(pubsub_name="ps", topic="u")))
    return seen(d, end=s.all(2))


def empty_message(d, make):
    s = make(d).ready()
    s.out.put(R())
    return seen(d, end=s.all(2))


def wrong_first(d, make):
    f = {}
    for name, kw in {"nothing": {"topic": ""}, "no pubsub": {"pubsub": ""}, "unknown": {"pubsub": "none"}, "store": {"pubsub": "store"}, "spaces": {"topic": "a b"}, "long": {"topic": "x" * 3000}, "metadata": {"metadata": {"rawPayload": "true"}},
                     "bulk": {"metadata": {"bulkSubscribe": "true"}}, "bad raw": {"metadata": {"rawPayload": "bogus"}}}.items():
        s = make(d, **kw)
        f[name] = s.next(1)
        s.close()
    s = make(d, first=False)
    s.out.put(R(event_processed=P(id="x")))
    f["processed first"] = s.next(1)
    s = make(d, first=False)
    s.out.put(R())
    f["empty first"] = s.next(1)
    s = make(d, first=False)
    s.out.put(None)
    f["closed first"] = s.next(1)
    time.sleep(0.5)
    return seen(d, **f)


def raw(d, make):
    s = make(d, metadata={"rawPayload": "true"}, auto=0).ready()
    f = {}
    for name, (ct, body, q) in {"event": ("application/json", b'{"a":1}', ""), "raw": ("application/json", b'{"a":1}', "?metadata.rawPayload=true"), "text": ("text/plain", b"hello", "?metadata.rawPayload=true"),
                                "binary": ("application/octet-stream", b"\0\xff", "?metadata.rawPayload=true")}.items():
        ask(d, "POST", f"/v1.0/publish/ps/t{q}", body, {"content-type": ct})
        x = s.next()
        f[name] = (x[0], json.loads(x[1]) if x[1].startswith("{") else x[1], *x[2:]) if isinstance(x, tuple) else x
        if isinstance(f[name], tuple) and isinstance(f[name][1], dict):
            f[name] = (x[0], sorted(f[name][1]), *x[2:])
    return seen(d, **f)


def kinds_of_events(d, make):
    s = make(d, auto=0).ready()
    f = {}
    for name, (ct, body) in {"json": ("application/json", b'{"a":1}'), "text": ("text/plain", b"hello"), "binary": ("application/octet-stream", b"abc"), "none": ("application/json", b""), "event": ("application/cloudevents+json", json.dumps(
            {"specversion": "1.0", "id": "mine", "type": "ty", "source": "so", "data": {"x": 1}, "ext": "e", "topic": "other"}).encode()), "expired": ("application/cloudevents+json", json.dumps(
                {"specversion": "1.0", "id": "old", "type": "ty", "source": "so", "data": 1, "expiration": "2020-01-01T00:00:00Z"}).encode())}.items():
        ask(d, "POST", "/v1.0/publish/ps/t", body, {"content-type": ct})
        f[name] = s.next(1)
    ask(d, "POST", "/v1.0-alpha1/publish/bulk/ps/t", json.dumps([{"entryId": str(i), "event": i, "contentType": "application/json"} for i in range(4)]), {"content-type": "application/json"})
    f["bulk"] = sorted(map(str, s.all()))
    return seen(d, **f)


def same_id(d, make):
    """Two events of one id in flight."""
    s = make(d).ready()
    for i in range(2):
        ask(d, "POST", "/v1.0/publish/ps/t", json.dumps({"specversion": "1.0", "id": "same", "type": "ty", "source": "so", "data": i}), {"content-type": "application/cloudevents+json"})
    f = {"first": s.next()}
    s.answer("same", SUCCESS)
    f["second"] = s.next()
    s.answer("same", SUCCESS)
    f["then"] = s.all()
    return seen(d, **f)


def beside_declared(d, make):
    s = make(d, auto=0).ready()
    u = make(d, "declared", auto=0).ready()
    publish(d, 1)
    publish(d, 2, "declared")
    return seen(d, t=s.all(), declared=u.all(), app=sorted((p, [e["data"] for e in x]) for p, x in d.app.got.items() if x))


def code(d):
    try:
        return d.wait_exit(10)
    except subprocess.TimeoutExpired:
        return "goes on"


def stopped_early(d, make):
    s = make(d, first=False)
    time.sleep(0.3)
    d.proc.send_signal(signal.SIGTERM)
    return {"end": s.next(4), "code": code(d)}


def stopped_idle(d, make):
    s = make(d).ready()
    d.proc.send_signal(signal.SIGTERM)
    return {"end": s.next(4), "code": code(d)}


def stopped(how):
    def case(d, make):
        idle, busy = make(d, "idle", auto=0).ready(), make(d).ready()
        publish(d, 1)
        f = {"event": busy.next()}
        if how == "api":
            f["answer"] = ask(d, "POST", "/v1.0/shutdown")
        else:
            d.proc.send_signal(signal.SIGTERM)
        f["idle"] = idle.next(4)
        f["busy"] = busy.next(1)
        if how != "never":
            busy.answer(busy.ids[0])
            f["answered"] = busy.next(5)
        f["code"] = code(d)
        f["busy, in the end"] = busy.next(1) if f.get("answered", "nothing") == "nothing" else None
        return seen(d, **f)
    return case


def reload(d, make):
    s = make(d).ready()
    publish(d, 1)
    f = {"event": s.next()}
    (d.resources / "new.yaml").write_text(declared("late"))
    wait_until("it is taken", lambda: any(x["topic"] == "late" for x in ask(d, "GET", "/v1.0/metadata")[1].get("subscriptions", [])))
    s.answer(s.ids[0])
    publish(d, 2)
    f["event after a reload"] = s.next()
    s.answer(s.ids[-1])
    (d.resources / "r0.yaml").write_text(component("ps", "pubsub.in-memory", [("x", "y")]))
    time.sleep(3)
    publish(d, 3)
    f["component changed"] = s.all()
    (d.resources / "r0.yaml").unlink()
    time.sleep(2)
    f["component gone"] = s.all()
    f["new stream"] = make(d, auto=0).next(1)
    return seen(d, **f)


CASES = {"two streams": two_streams, "any order": any_order, "unknown ids": unknown_ids, **{f"status {n}": statuses(n) for n in (0, 1, 2, 7)}, **{f"status {n}, no dead letters": no_dead_letters(n) for n in (1, 2)},
         **{f"closed in flight by {how}": closed_in_flight(how) for how in ("cancel", "half", "connection")}, "second initial": second_initial, "empty message": empty_message, "wrong first": wrong_first, "raw": raw, "kinds of events": kinds_of_events,
         "same id": same_id, "beside declared": beside_declared, "stopped by a signal": stopped("signal"), "stopped by the api": stopped("api"), "stopped, never answered": stopped("never"), "stopped before the first word": stopped_early, "stopped at rest": stopped_idle, "reload": reload}
RETRIES = json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Resiliency", "metadata": {"name": "r"}, "spec": {"policies": {"retries": {"again": {"policy": "constant", "duration": "10ms", "maxRetries": 2}}}, "targets": {
    "components": {"ps": {"inbound": {"retry": "again"}}}}}})
WITH_RETRIES = {f"retries, status {n}": statuses(n) for n in (1, 2)}
# What differs, and why it may: case -> [(fact, reason)] as regular expressions.
ONE = "the reference's broker in memory hands out one event after the other"
RETRIED = ("log", "the reference writes <nil> for the reason")
BROKEN = ("log", "what is handed back is told")
KNOWN = {"any order": [("first|then|more", ONE)], "unknown ids": [("log", "a second answer finds nobody who waits, sooner")], "status 1": [RETRIED], "status 7": [RETRIED], "status 1, no dead letters": [RETRIED],
         **{f"closed in flight by {how}": [BROKEN] for how in ("cancel", "half", "connection")}, "second initial": [("log", "Unsubscribed is written")], "empty message": [("log", "Unsubscribed is written")],
         **{f"stopped{how}": [("answered|idle|idle, answered|code|busy, in the end|log|subscriptions", "the reference waits for ever once an event is in the app's hands")] for how in (" by a signal", " by the api", ", never answered")},
         "reload": [("component changed|log|subscriptions", "a changed broker takes over the streams of the old one")], "retries, status 1": [("next", ONE), RETRIED]}
CONFIG = json.dumps({"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}, "spec": {"features": [{"name": "HotReload", "enabled": True}]}})


@pytest.mark.parametrize("case", [*CASES, *WITH_RETRIES])
def test_streams(pair, case):
    def run(kind, start):
        app, made = App(), []

        def make(d, *a, **kw):
            made.append(Stream(d, *a, **kw))
            return made[-1]
        more = [RETRIES] if case in WITH_RETRIES else []
        try:
            d = start(MEMORY, component("store", "state.in-memory"), declared("declared"), *more, args=[f"--app-port={app.port}", "--dapr-graceful-shutdown-seconds=3"], config=CONFIG if case == "reload" else None)
            d.app = app
            return (CASES | WITH_RETRIES)[case](d, make)
        finally:
            for s in made:
                s.close()
            time.sleep(0.2)
            app.close()
    pair(run, KNOWN.get(case, []))
