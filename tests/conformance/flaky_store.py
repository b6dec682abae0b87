"""A pluggable state and secret store that does as it is told. usage: flaky_store.py SOCKET GENERATED_PROTO_FOLDER SCRIPT CALLS
Each call takes the next word of the file SCRIPT (ok when there is none) and writes its name to the file CALLS:
ok, fail, unavailable, slow (2 s), etag (a mismatch)."""
import concurrent.futures, os, sys, threading, time

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

sys.path.insert(0, sys.argv[2])
from dapr.proto.components.v1 import common_pb2, secretstore_pb2, secretstore_pb2_grpc, state_pb2, state_pb2_grpc  # noqa: E402

script, calls = sys.argv[3], sys.argv[4]
lock = threading.Lock()
data = {}


def obey(name, ctx):
    with lock:
        with open(calls, "a") as f:
            f.write(name + "\n")
        words = open(script).read().split() if os.path.exists(script) else []
        with open(script, "w") as f:
            f.write(" ".join(words[1:]))
    word = words[0] if words else "ok"
    if word == "slow":
        time.sleep(2)
    elif word == "fail":
        ctx.abort(grpc.StatusCode.UNKNOWN, "told to fail")
    elif word == "unavailable":
        ctx.abort(grpc.StatusCode.UNAVAILABLE, "told to be away")
    elif word == "etag":
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.BadRequest(field_violations=[{"field": "etag", "description": "told so"}]))
        ctx.abort_with_status(rpc_status.to_status(status_pb2.Status(code=9, message="etag", details=[detail])))


class Store(state_pb2_grpc.StateStoreServicer, state_pb2_grpc.TransactionalStateStoreServicer):
    def Init(self, req, ctx):
        return state_pb2.InitResponse()

    def Features(self, req, ctx):
        return common_pb2.FeaturesResponse(features=["ETAG", "TRANSACTIONAL"])

    def Ping(self, req, ctx):
        return state_pb2.PingResponse()

    def Get(self, req, ctx):
        obey("Get", ctx)
        return state_pb2.GetResponse(data=data.get(req.key, b"7"))

    def Set(self, req, ctx):
        obey("Set", ctx)
        data[req.key] = req.value
        return state_pb2.SetResponse()

    def Delete(self, req, ctx):
        obey("Delete", ctx)
        return state_pb2.DeleteResponse()

    def BulkGet(self, req, ctx):
        obey("BulkGet", ctx)
        return state_pb2.BulkGetResponse(items=[state_pb2.BulkStateItem(key=i.key, data=data.get(i.key, b"7")) for i in req.items])

    def BulkSet(self, req, ctx):
        obey("BulkSet", ctx)
        return state_pb2.BulkSetResponse()

    def BulkDelete(self, req, ctx):
        obey("BulkDelete", ctx)
        return state_pb2.BulkDeleteResponse()

    def Transact(self, req, ctx):
        obey("Transact", ctx)
        return state_pb2.TransactionalStateResponse()


class Secrets(secretstore_pb2_grpc.SecretStoreServicer):
    def Init(self, req, ctx):
        return secretstore_pb2.SecretStoreInitResponse()

    def Features(self, req, ctx):
        return common_pb2.FeaturesResponse()

    def Ping(self, req, ctx):
        return secretstore_pb2.PingResponse()

    def Get(self, req, ctx):
        obey("GetSecret", ctx)
        return secretstore_pb2.GetSecretResponse(data={req.key: "s"})

    def BulkGet(self, req, ctx):
        obey("BulkGetSecret", ctx)
        return secretstore_pb2.BulkGetSecretResponse(data={"a": secretstore_pb2.SecretResponse(secrets={"a": "1"})})


server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
store = Store()
state_pb2_grpc.add_StateStoreServicer_to_server(store, server)
state_pb2_grpc.add_TransactionalStateStoreServicer_to_server(store, server)
secretstore_pb2_grpc.add_SecretStoreServicer_to_server(Secrets(), server)
reflection.enable_server_reflection(("dapr.proto.components.v1.StateStore", "dapr.proto.components.v1.TransactionalStateStore",
                                     "dapr.proto.components.v1.SecretStore", reflection.SERVICE_NAME), server)
server.add_insecure_port(f"unix:{sys.argv[1]}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
