"""An existing pluggable component, as an author without our SDK writes one: a state store and a secret store in Python on grpcio.
usage: pluggable_store.py SOCKET GENERATED_PROTO_FOLDER"""
import concurrent.futures, signal, sys

import grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, sys.argv[2])
from dapr.proto.components.v1 import secretstore_pb2, secretstore_pb2_grpc, state_pb2, state_pb2_grpc  # noqa: E402


def instance(ctx):
    return dict(ctx.invocation_metadata()).get("x-component-instance", "")


class Store(state_pb2_grpc.StateStoreServicer):
    def __init__(self):
        self.data = {}  # one dict an instance

    def Init(self, req, ctx):
        self.data.setdefault(instance(ctx), {})
        return state_pb2.InitResponse()

    def Features(self, req, ctx):
        from dapr.proto.components.v1 import common_pb2
        return common_pb2.FeaturesResponse(features=["ETAG"])

    def Ping(self, req, ctx):
        return state_pb2.PingResponse()

    def Get(self, req, ctx):
        v = self.data[instance(ctx)].get(req.key)
        return state_pb2.GetResponse() if v is None else state_pb2.GetResponse(data=v, etag=state_pb2.Etag(value="1"))

    def Set(self, req, ctx):
        self.data[instance(ctx)][req.key] = req.value
        return state_pb2.SetResponse()

    def Delete(self, req, ctx):
        self.data[instance(ctx)].pop(req.key, None)
        return state_pb2.DeleteResponse()

    def BulkGet(self, req, ctx):
        d = self.data[instance(ctx)]
        return state_pb2.BulkGetResponse(items=[state_pb2.BulkStateItem(key=i.key, data=d.get(i.key, b"")) for i in req.items])

    def BulkSet(self, req, ctx):
        for i in req.items:
            self.Set(i, ctx)
        return state_pb2.BulkSetResponse()

    def BulkDelete(self, req, ctx):
        for i in req.items:
            self.Delete(i, ctx)
        return state_pb2.BulkDeleteResponse()


class Secrets(secretstore_pb2_grpc.SecretStoreServicer):
    def Init(self, req, ctx):
        return secretstore_pb2.SecretStoreInitResponse()

    def Features(self, req, ctx):
        from dapr.proto.components.v1 import common_pb2
        return common_pb2.FeaturesResponse()

    def Ping(self, req, ctx):
        return secretstore_pb2.PingResponse()

    def Get(self, req, ctx):
        return secretstore_pb2.GetSecretResponse(data={req.key: f"secret of {req.key}"})

    def BulkGet(self, req, ctx):
        return secretstore_pb2.BulkGetSecretResponse(data={"a": secretstore_pb2.SecretResponse(secrets={"a": "1"})})


server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
state_pb2_grpc.add_StateStoreServicer_to_server(Store(), server)
secretstore_pb2_grpc.add_SecretStoreServicer_to_server(Secrets(), server)
reflection.enable_server_reflection(("dapr.proto.components.v1.StateStore", "dapr.proto.components.v1.SecretStore",
                                     reflection.SERVICE_NAME), server)
server.add_insecure_port(f"unix:{sys.argv[1]}")
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(5))  # what runs is answered, what comes is refused
print("ready", flush=True)
server.wait_for_termination()
