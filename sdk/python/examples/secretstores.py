#!/usr/bin/env python3
"""A secret store with one fixed secret: put your backend in its place."""
import dapr_plugin as dapr


class Store(dapr.SecretStore):
    def init(self, metadata):
        """Read settings here: metadata.get("url")."""

    def get(self, name, metadata):
        if name != "hello":
            raise dapr.PluginError(dapr.NOT_FOUND, f"there is no secret {name}")
        return {"hello": "world"}

    def bulk_get(self, metadata):
        return {"hello": {"hello": "world"}}


dapr.main("secretstores.pystore", dapr.manifest_version(), {"secretstores.pystore": Store})
