#!/usr/bin/env python3
"""Names of sidecars in this process only: put your registry in its place."""
import dapr_plugin as dapr

REGISTRY = {}  # app id -> {component: address}


class Resolver(dapr.NameResolver):
    ttl_ms = 1000

    def init(self, metadata):
        me = self.sidecar
        REGISTRY.setdefault(me.app_id, {})[self] = f"{me.address}:{me.internal_port}"

    def close(self):
        REGISTRY.get(self.sidecar.app_id, {}).pop(self, None)

    def resolve(self, request):
        found = REGISTRY.get(request.id)
        if not found:
            raise dapr.PluginError(dapr.NOT_FOUND, f"no host found for {request.id}")
        return set(found.values())


dapr.main("nameresolution.pystore", dapr.manifest_version(), {"nameresolution.pystore": Resolver})
