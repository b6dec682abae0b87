"""The demo's second app: subscribes to the topic "orders", publishes three orders through its sidecar and by the command line, and shows
each event as it comes. Only the standard library."""
import http.server, json, os, queue, subprocess, sys, threading, time, urllib.request

APP_PORT = int(os.environ["APP_PORT"])
PUBLISH = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0/publish/broker/orders"
RULES = {"rules": [{"match": "event.data.amount > 100", "path": "/large"}], "default": "/orders"}
came = queue.Queue()


class App(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, what):
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/dapr/subscribe":
            self.answer(200, [{"pubsubname": "broker", "topic": "orders", "routes": RULES}])
        else:
            self.answer(404, {})

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        came.put((self.path, event))
        self.answer(200, {"status": "SUCCESS"})


def say(*words):
    print(*words, flush=True)


def receive(amount, path):
    try:
        got, event = came.get(timeout=10)
    except queue.Empty:
        sys.exit("the demo failed: the event did not come")
    say(f"  received at {got}: {json.dumps(event['data'])}  (event {event['id'][:8]} of type {event['type']})")
    if got != path or event["data"]["amount"] != amount:
        sys.exit("the demo failed: that is another event")


def publish(order):
    body = json.dumps(order).encode()
    urllib.request.urlopen(urllib.request.Request(PUBLISH, body, {"content-type": "application/json"}), timeout=10).read()


def wait_subscribed():
    for _ in range(500):
        with urllib.request.urlopen(f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0/metadata", timeout=5) as r:
            if json.loads(r.read()).get("subscriptions"):
                return
        time.sleep(0.02)
    sys.exit("the demo failed: no subscription")


threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", APP_PORT), App).serve_forever, daemon=True).start()
wait_subscribed()
for amount, path in ((12, "/orders"), (250, "/large")):
    say(f'published: an order of {amount}')
    publish({"item": "apples", "amount": amount})
    receive(amount, path)
say("published by the command line: daprctl publish")
subprocess.run([os.environ["DAPRCTL"], "publish", "--publish-app-id", os.environ["APP_ID"], "--pubsub", "broker", "--topic", "orders", "--data",
                '{"item": "pears", "amount": 7}'], check=True, stdout=subprocess.DEVNULL)
receive(7, "/orders")
