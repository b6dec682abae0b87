#!/usr/bin/env python3
"""A binding in both directions: what the app creates comes back as an event. Put your system in its place."""
import queue

import dapr_plugin as dapr


class Binding(dapr.OutputBinding, dapr.InputBinding):
    operations = ("create", "get", "delete")

    def init(self, metadata):
        self.events, self.items = queue.Queue(), {}

    def invoke(self, request):
        key = request.metadata.get("key", "")
        if request.operation == "create":
            self.items[key] = request.data
            self.events.put(request.data)
        elif request.operation == "delete":
            self.items.pop(key, None)
        elif key not in self.items:
            raise dapr.PluginError(dapr.NOT_FOUND, f"there is nothing at {key}")
        return self.items.get(key, b"") if request.operation == "get" else b""

    def read(self, deliver, stop):
        while not stop.is_set():
            try:
                event = self.events.get(timeout=0.1)
            except queue.Empty:
                continue
            try:
                deliver(dapr.Message(event))  # gives the app's answer
            except dapr.PluginError:
                self.events.put(event)  # the app failed: again


dapr.main("bindings.pystore", dapr.manifest_version(), {"bindings.pystore": Binding})
