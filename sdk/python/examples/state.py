#!/usr/bin/env python3
"""A state store in memory: the whole of a plugin."""
import threading
import time

import dapr_plugin as dapr


class Store(dapr.StateStore):
    features = ("ETAG", "TTL")

    def init(self, metadata):
        self.lock, self.items, self.last = threading.Lock(), {}, 0

    def find(self, key):
        item, expires = self.items.get(key, (None, None))
        return None if expires and time.time() >= expires else item

    def check(self, item, request):
        if request.etag and not request.etag.isdigit():
            raise dapr.EtagInvalid(f"{request.etag} is not a number")
        if (request.etag and (not item or item.etag != request.etag)) or (not request.etag and request.first_write and item):
            raise dapr.EtagMismatch("it is not the current one")

    def get(self, request):
        with self.lock:
            return self.find(request.key)

    def set(self, request):
        with self.lock:
            self.check(self.find(request.key), request)
            self.last += 1
            expires = time.time() + request.ttl_seconds if request.ttl_seconds > 0 else None
            self.items[request.key] = dapr.Item(request.value, str(self.last), request.content_type), expires

    def delete(self, request):
        with self.lock:
            if request.etag:
                self.check(self.find(request.key), request)
            self.items.pop(request.key, None)


dapr.main("state.pystore", dapr.manifest_version(), {"state.pystore": Store})
