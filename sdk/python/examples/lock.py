#!/usr/bin/env python3
"""Locks in memory: put your server in their place."""
import threading
import time

import dapr_plugin as dapr


class Locks(dapr.Lock):
    def init(self, metadata):
        self.mutex, self.held = threading.Lock(), {}

    def owner(self, resource):
        owner, end = self.held.get(resource, (None, 0))
        return owner if time.monotonic() < end else None

    def try_lock(self, resource, owner, expiry_s):
        with self.mutex:
            if self.owner(resource):
                return False
            self.held[resource] = owner, time.monotonic() + expiry_s
            return True

    def unlock(self, resource, owner):
        with self.mutex:
            have = self.owner(resource)
            if not have:
                return dapr.LOCK_MISSING
            if have != owner:
                return dapr.LOCK_OF_OTHERS
            del self.held[resource]
            return dapr.UNLOCKED


dapr.main("lock.pystore", dapr.manifest_version(), {"lock.pystore": Locks})
