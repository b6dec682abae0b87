#!/usr/bin/env python3
"""A configuration store on a file of lines KEY=VALUE (setting `file`): put yours in its place."""
import os

import dapr_plugin as dapr


class Store(dapr.Configuration):
    def init(self, metadata):
        self.file = metadata.get("file", "")

    def read(self):
        if not os.path.exists(self.file):
            return {}
        with open(self.file, encoding="utf-8") as f:
            return {k: dapr.Entry(v.strip()) for k, eq, v in (line.partition("=") for line in f) if eq}

    def get(self, keys, metadata):
        return {k: e for k, e in self.read().items() if not keys or k in keys}

    def subscribe(self, keys, metadata, changed, stop):
        before = self.get(keys, metadata)
        changed({})  # the watch stands
        while not stop.wait(0.1):
            now = self.get(keys, metadata)
            different = {k: now.get(k, dapr.Entry()) for k in {**before, **now} if now.get(k) != before.get(k)}
            if different:
                changed(different)
            before = now


dapr.main("configuration.pystore", dapr.manifest_version(), {"configuration.pystore": Store})
