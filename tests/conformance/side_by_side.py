"""Side by side: two runtimes with the same components, configuration and app get the same requests; status, body and type of the answers, and
what their apps were sent, must be the same. OTHER_DAPRD = path of the reference's daprd; skipped without it. Requests are a table: every path
with every method, with bodies for those that have one; then events of all forms. JSON counts as equal when it means the same.
ALLOWED says what is known to differ, and why."""
import http.client, http.server, itertools, json, os, re, sys, time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from conftest import Daprd, Web, component

OTHER = os.environ.get("OTHER_DAPRD", "")
pytestmark = pytest.mark.skipif(not os.access(OTHER, os.X_OK), reason="OTHER_DAPRD does not name a daprd to compare with")

PATHS = """/v1.0/state/store /v1.0/state/store/k /v1.0/state/store/k/x /v1.0/state//k /v1.0/state/nost/k /v1.0/state/store/a%2Fb /v1.0/state/store/a%7C%7Cb
/V1.0/state/store/k /v1.0/state/store/k?consistency=bogus /v1.0/state/store/bulk /v1.0/state/store/transaction /v1.0-alpha1/state/store/query
/v1.0/publish/ps/t /v1.0/publish/ps /v1.0/publish/ps//t /v1.0/publish/nops/t /v1.0/publish/bulk/ps/t /v1.0/publish/ps/t?metadata.ttlInSeconds=bogus
/v1.0/bindings/nob /v1.0/secrets/env/HOME /v1.0/secrets/nov/x /v1.0/configuration/c?key=a /v1.0-alpha1/configuration/c/x/unsubscribe /v1.0-alpha1/lock/l
/v1.0-alpha1/crypto/nocr/encrypt /v1.0-alpha1/subtlecrypto/cr/sign /v1.0/actors/t/i/method/m /v1.0/actors/t/i/state /v1.0/actors/t/i/reminders/r
/v1.0/workflows/dapr/i /v1.0/workflows/dapr/n/start?instanceID=%21 /v1.0/workflows/dapr/i/pause /v1.0-alpha1/jobs/j /v1.0-alpha1/jobs/a%7Cb
/v1.0-alpha1/conversation/no/converse /v1.0/metadata/x /v1.0/healthz?appid=other /v1.0/healthz/outbound /v1.0/invoke/app/method/echo
/v1.0/invoke/app/method/fails /v1.0/invoke/app/method/a/../b%2Fc?x=1&x /v1.0/invoke/app/method/a%23b /v1.0/invoke/a.b.c/method/x / //v1.0/healthz /v1.0/nothing""".split()
BODIES = {"none": None, "bad": b"{bad", "list": b"[]", "object": b"{}", "null": b"null", "number": b"12", "string": b'"x"'}
EVENT = {"specversion": "1.0", "type": "a", "source": "s", "id": "id-1"}
EVENTS = [("text/plain", b"hello"), ("application/json", b'{"a":1}'), ("application/json", b"{bad"), ("application/json", b"[1,null]"), ("application/xml", b"<a/>"),
          ("application/octet-stream", b"\x00\xff"), ("application/cloudevents+json", b"{bad"),
          *(("application/cloudevents+json", json.dumps({**EVENT, **more}).encode()) for more in (
              {}, {"data": {"n": [1.5, "x", None]}, "ext": "e"}, {"data": "t", "datacontenttype": "text/plain"}, {"data_base64": "AAE=", "datacontenttype": "image/png"},
              {"id": ""}, {"expiration": "2020-01-01T00:00:00Z"}, {"topic": "x", "pubsubname": "y"}))]
QUERIES = ["", "?metadata.rawPayload=true", "?metadata.cloudevent.type=q", "?metadata.ttlInSeconds=0"]
ALLOWED = [
    (r"null /v1.0/actors/t/i/reminders/r$", "the reference ends the connection"),
    (r"(number|string|list) /v1.0/actors/t/i/reminders/r$", "the reference names a structure of its source"),
    (r"/(lock|subtlecrypto|workflows|jobs|conversation)/", "how JSON is wrong, where proto-JSON is read, is said in other words", "failed deserializing HTTP body"),
]


class App(Web):
    def __init__(self):
        app, self.got = self, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.split("?")[0]
                if not path.startswith("/dapr/"):
                    app.got.append((self.command, self.path, meaning(body)))
                out = json.dumps([{"pubsubname": "ps", "topic": "t", "route": "/event"}]).encode() if path == "/dapr/subscribe" else body
                self.send_response(404 if path == "/dapr/config" else 418 if path == "/fails" else 200)
                self.send_header("content-length", str(len(out)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(out)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = answer

            def log_message(self, *args):
                pass
        super().__init__(Handler)


def meaning(body):
    """As JSON if it is any, without what is new each time."""
    text = body.decode(errors="backslashreplace")
    for what, pattern in (("UUID", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), ("TIME", r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+\d\d:\d\d)"),
                          ("TRACE", r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]"), ("ADDR", r"127\.0\.0\.1:\d+")):
        text = re.sub(pattern, what, text)
    try:
        return json.loads(text)
    except ValueError:
        return text


def ask(d, method, path, body=None, headers=()):
    c = http.client.HTTPConnection("127.0.0.1", d.http, timeout=20)
    try:
        c.request(method, path, body, dict(headers))
        r = c.getresponse()
        return r.status, meaning(r.read()), r.headers["content-type"]
    except (http.client.HTTPException, OSError) as e:
        return type(e).__name__,
    finally:
        c.close()


def start(kind, folder):
    sub = folder / kind
    sub.mkdir()
    app = App()
    d = Daprd(sub, [component("store", "state.in-memory"), component("ps", "pubsub.in-memory"), component("env", "secretstores.local.env")],
              args=[f"--app-port={app.server.server_port}"], env={"HOME": "/h"})
    if kind == "other":
        d.argv[0] = OTHER
    return app, d.start()


@pytest.fixture
def pair(folder):
    made = [start(kind, folder) for kind in ("ours", "other")]
    yield made
    for app, d in made:
        d.close()
        app.close()


def is_allowed(label, answers):
    return any(re.search(a[0], label) and all(a[2] in str(x) for x in answers if len(a) > 2) for a in ALLOWED)


def test_requests(pair):
    differ = []
    for path, method in itertools.product(PATHS, ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS")):
        for name, body in BODIES.items() if method in ("POST", "PUT") else [("none", None)]:
            label = f"{method} {name} {path}"
            answers = [ask(d, method, path, body, {"content-type": "application/json"} if body else ()) for _, d in pair]
            if answers[0] != answers[1] and not is_allowed(label, answers):
                differ.append((label, *answers))
    sent = [[g for g in app.got if g[1] != "/event"] for app, _ in pair]
    assert not differ, "\n".join(f"{label}\n  ours  {a}\n  other {b}" for label, a, b in differ)
    assert sent[0] == sent[1]


def test_events(pair):
    differ = []
    for (kind, body), query in itertools.product(EVENTS, QUERIES):
        seen = []
        for app, d in pair:
            app.got.clear()
            status = ask(d, "POST", "/v1.0/publish/ps/t" + query, body, {"content-type": kind})
            end = time.monotonic() + 0.4  # some must not come
            while time.monotonic() < end and not app.got:
                time.sleep(0.01)
            seen.append((status, list(app.got)))
        if seen[0] != seen[1]:
            differ.append((f"{kind} {body} {query}", *seen))
    assert not differ, "\n".join(f"{label}\n  ours  {a}\n  other {b}" for label, a, b in differ)


if __name__ == "__main__":
    if not os.access(OTHER, os.X_OK):
        print("skipped: OTHER_DAPRD does not name a daprd to compare with")
        sys.exit(0)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", os.path.abspath(__file__)]))
