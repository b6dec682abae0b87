"""An app of the Python SDK: FastAPI or the gRPC extension (PROTOCOL), with echo.proto's service beside the latter. See test_polyglot.py."""
import json, os, sys, threading, traceback

os.environ.setdefault("DAPR_API_METHOD_INVOCATION_PROTOCOL", "HTTP")
from dapr.clients import DaprClient
from dapr.conf import settings

ID, PORT = os.environ["APP_ID"], int(os.environ["APP_PORT"])
BIG = "ü" * 500_000


def serve_http():
    import uvicorn
    from fastapi import Body, FastAPI, HTTPException

    app = FastAPI()

    @app.post("/greet")
    def greet(body=Body()):
        return {"app": ID, "got": body}

    @app.get("/hello")
    def hello():
        return {"app": ID}

    @app.post("/fail")
    def fail():
        raise HTTPException(503, "not today")

    uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=PORT, log_level="warning")).run()


def serve_grpc():
    from dapr.ext.grpc import App
    import echo, echo_pb2_grpc

    app = App()

    @app.method("greet")
    def greet(request):
        return json.dumps({"app": ID, "got": json.loads(request.text())})

    @app.method("hello")
    def hello(request):
        return json.dumps({"app": ID})

    @app.method("fail")
    def fail(request):
        raise RuntimeError("not today")

    app.add_external_service(echo_pb2_grpc.add_EchoServicer_to_server, echo.Echo())
    app.run(PORT, "127.0.0.1")


def invoke(c, callee):
    for text in ("grüße 世界", BIG):
        sent = {"from": ID, "text": text, "n": [1, 2.5, None]}
        r = c.invoke_method(callee, "greet", json.dumps(sent), content_type="application/json", http_verb="POST")
        got = json.loads(r.data)
        assert got == {"app": callee, "got": sent}, str(got)[:300]
    assert json.loads(c.invoke_method(callee, "hello", b"", http_verb="GET").data) == {"app": callee}
    try:
        c.invoke_method(callee, "fail", "{}", content_type="application/json", http_verb="POST")
    except Exception:
        return
    raise AssertionError("the failure did not come")


def attempt(client, callee, fn, *args):
    try:
        fn(*args)
        print("PASS", client, callee, flush=True)
    except Exception as e:
        traceback.print_exc(file=sys.stdout)
        print("FAIL", client, callee, repr(e)[:300], flush=True)


def main():
    threading.Thread(target=serve_grpc if os.environ["PROTOCOL"] == "grpc" else serve_http, daemon=True).start()
    with DaprClient() as over_http:
        settings.DAPR_API_METHOD_INVOCATION_PROTOCOL = "GRPC"
        with DaprClient() as over_grpc:
            todo = json.loads(sys.stdin.readline())
            for callee in todo["invoke"]:
                attempt("python/http", callee, invoke, over_http, callee)
                attempt("python/grpc", callee, invoke, over_grpc, callee)
            for callee in todo["echo"]:
                import echo
                attempt("grpcio", callee, echo.call, settings.DAPR_GRPC_PORT, callee)
    print("CALLED", flush=True)
    sys.stdin.read()
    os._exit(0)


main()
