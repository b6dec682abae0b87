"""An app on the SDK's gRPC extension."""
import json, os, threading, traceback

from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.grpc import App, BindingRequest

from steps import got, run

app = App()


@app.subscribe(pubsub_name="pub", topic="programmatic")
def programmatic(event):
    got.put(("programmatic", json.loads(event.Data())))
    return TopicEventResponse("success")


@app.subscribe(pubsub_name="pub", topic="declared")
def declared(event):
    got.put(("declared", event.Data() if isinstance(event.Data(), str) else event.Data().decode()))
    return TopicEventResponse("success")


@app.binding("tick")
def tick(request: BindingRequest):
    got.put(("tick", None))


threading.Thread(target=lambda: app.run(int(os.environ["APP_PORT"]), "127.0.0.1"), daemon=True).start()
try:
    run()
except Exception:
    traceback.print_exc()
    os._exit(1)
os._exit(0)
