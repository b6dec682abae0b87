"""An existing pluggable binding, as an author without our SDK writes one, in Python on grpcio. Output: operation `send` makes an event of
its data. Input: each event is handed out until the app took it; acknowledgements are printed, one JSON line each.
usage: pluggable_binding.py SOCKET GENERATED_PROTO_FOLDER"""
import concurrent.futures, json, queue, sys, threading

import grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, sys.argv[2])
from dapr.proto.components.v1 import bindings_pb2, bindings_pb2_grpc, common_pb2  # noqa: E402

events = queue.Queue()


class Both(bindings_pb2_grpc.InputBindingServicer, bindings_pb2_grpc.OutputBindingServicer):
    def Ping(self, req, ctx):
        return common_pb2.PingResponse() if hasattr(common_pb2, "PingResponse") else bindings_pb2.PingResponse()

    def ListOperations(self, req, ctx):
        return bindings_pb2.ListOperationsResponse(operations=["send", "fail"])

    def Invoke(self, req, ctx):
        if req.operation == "fail":
            ctx.abort(grpc.StatusCode.ABORTED, "as told")
        events.put((req.data, dict(req.metadata)))
        return bindings_pb2.InvokeResponse(data=b'"sent"', metadata={"seen": req.metadata.get("k", "")})

    def Read(self, acks, ctx):
        pending = {}

        def take():
            for ack in acks:
                event = pending.pop(ack.message_id)
                failed = ack.response_error.message if ack.HasField("response_error") else None
                print(json.dumps({"data": event[0].decode(), "reply": ack.response_data.decode(), "error": failed}), flush=True)
                if failed:
                    events.put(event)
        threading.Thread(target=take, daemon=True).start()
        n = 0
        while ctx.is_active():
            try:
                event = events.get(timeout=0.1)
            except queue.Empty:
                continue
            n += 1
            pending[str(n)] = event
            yield bindings_pb2.ReadResponse(data=event[0], metadata={"origin": "py"}, message_id=str(n))


class In(bindings_pb2_grpc.InputBindingServicer):
    Ping, Read = Both.Ping, Both.Read

    def Init(self, req, ctx):
        return bindings_pb2.InputBindingInitResponse()


class Out(bindings_pb2_grpc.OutputBindingServicer):
    Ping, ListOperations, Invoke = Both.Ping, Both.ListOperations, Both.Invoke

    def Init(self, req, ctx):
        return bindings_pb2.OutputBindingInitResponse()


server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
bindings_pb2_grpc.add_InputBindingServicer_to_server(In(), server)
bindings_pb2_grpc.add_OutputBindingServicer_to_server(Out(), server)
reflection.enable_server_reflection(("dapr.proto.components.v1.InputBinding", "dapr.proto.components.v1.OutputBinding",
                                     reflection.SERVICE_NAME), server)
server.add_insecure_port(f"unix:{sys.argv[1]}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
