"""An existing pluggable broker, as an author without our SDK writes one, in Python on grpcio: topics in memory, a failed or unanswered
message is handed out again. usage: pluggable_broker.py SOCKET GENERATED_PROTO_FOLDER"""
import collections, concurrent.futures, queue, sys, threading

import grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, sys.argv[2])
from dapr.proto.components.v1 import common_pb2, pubsub_pb2, pubsub_pb2_grpc  # noqa: E402


class Broker(pubsub_pb2_grpc.PubSubServicer):
    def __init__(self):
        self.topics = collections.defaultdict(queue.Queue)
        self.metadata = {}

    def Init(self, req, ctx):
        self.metadata = dict(req.metadata.properties)
        return pubsub_pb2.PubSubInitResponse()

    def Features(self, req, ctx):
        return common_pb2.FeaturesResponse(features=["MESSAGE_TTL"])

    def Ping(self, req, ctx):
        return pubsub_pb2.PingResponse()

    def Publish(self, req, ctx):
        if req.topic == "refused":
            ctx.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        if req.topic == "metadata":
            self.topics["t"].put(b'{"data":"%s"}' % self.metadata.get("consumerID", "").encode())
        else:
            self.topics[req.topic].put(req.data)
        return pubsub_pb2.PublishResponse()

    def PullMessages(self, requests, ctx):
        topic = next(requests).topic.name
        open_, ended, lock = {}, threading.Event(), threading.Lock()

        def acks():
            try:
                for r in requests:
                    with lock:
                        data = open_.pop(r.ack_message_id, None)
                    if data is not None and r.HasField("ack_error"):
                        self.topics[topic].put(data)
            except Exception:
                pass
            ended.set()
        threading.Thread(target=acks, daemon=True).start()
        n = 0
        while not ended.is_set():
            try:
                data = self.topics[topic].get(timeout=0.05)
            except queue.Empty:
                continue
            n += 1
            with lock:
                open_[str(n)] = data
            yield pubsub_pb2.PullMessagesResponse(data=data, topic_name=topic, id=str(n))
        with lock:
            for data in open_.values():
                self.topics[topic].put(data)


server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
pubsub_pb2_grpc.add_PubSubServicer_to_server(Broker(), server)
reflection.enable_server_reflection(("dapr.proto.components.v1.PubSub", reflection.SERVICE_NAME), server)
server.add_insecure_port("unix:" + sys.argv[1])
server.start()
print("ready", flush=True)
server.wait_for_termination()
