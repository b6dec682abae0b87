#!/usr/bin/env python3
"""A broker in memory: put yours in its place."""
import collections
import threading

import dapr_plugin as dapr


class Broker(dapr.PubSub):
    def init(self, metadata):
        self.changed, self.topics = threading.Condition(), collections.defaultdict(collections.deque)

    def publish(self, request):
        with self.changed:
            self.topics[request.topic].append(dapr.Message(request.data, request.topic, request.metadata, request.content_type))
            self.changed.notify_all()

    def subscribe(self, topic, metadata, deliver, stop):
        queue = self.topics[topic]
        while not stop.is_set():
            with self.changed:
                if not queue:
                    self.changed.wait(0.1)
                    continue
                message = queue.popleft()
            try:
                deliver(message)  # returns when the app has taken it
            except dapr.PluginError:
                with self.changed:
                    queue.appendleft(message)  # again, to whoever comes


dapr.main("pubsub.pystore", dapr.manifest_version(), {"pubsub.pystore": Broker})
