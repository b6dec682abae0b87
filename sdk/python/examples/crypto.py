#!/usr/bin/env python3
"""Signatures by HMAC with one key: put your provider in its place."""
import hashlib
import hmac

import dapr_plugin as dapr

HASHES = {"RS256": "sha256", "RS384": "sha384", "RS512": "sha512"}  # as the API names them


class Provider(dapr.Crypto):
    def init(self, metadata):
        self.keys = {"hello": b"a secret that never leaves this process"}

    def mac(self, request):
        if request.key_name not in self.keys:
            raise dapr.PluginError(dapr.NOT_FOUND, "key not found")
        if request.algorithm not in HASHES:
            raise dapr.PluginError(dapr.INVALID_ARGUMENT, "unsupported algorithm")
        return hmac.new(self.keys[request.key_name], request.digest, getattr(hashlib, HASHES[request.algorithm])).digest()

    def sign(self, request):
        return self.mac(request)

    def verify(self, request):
        return hmac.compare_digest(self.mac(request), request.signature)


dapr.main("crypto.pystore", dapr.manifest_version(), {"crypto.pystore": Provider})
