"""An app on the SDK's FastAPI extension."""
import os, threading, traceback

import uvicorn
from fastapi import Body, FastAPI
from dapr.ext.fastapi import DaprApp

from steps import got, run

app = FastAPI()
dapr_app = DaprApp(app)


@dapr_app.subscribe(pubsub="pub", topic="programmatic")
def programmatic(event=Body()):
    got.put(("programmatic", event["data"]))


@app.post("/declared")
def declared(event=Body()):
    got.put(("declared", event["data"]))


@app.post("/tick")
def tick():
    got.put(("tick", None))


server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning"))
thread = threading.Thread(target=server.run, daemon=True)
thread.start()
try:
    run()
except Exception:
    traceback.print_exc()
    os._exit(1)
os._exit(0)
