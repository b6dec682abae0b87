"""Dapr components in Python, each its own process.

    import dapr_plugin as dapr

    class Store(dapr.StateStore):
        features = ("ETAG",)
        def get(self, request): ...
        def set(self, request): ...
        def delete(self, request): ...

    dapr.main("state.mine", dapr.manifest_version(), {"state.mine": Store})  # the version is that of plugin.yaml

The base class decides the kind: StateStore, SecretStore, PubSub, OutputBinding, InputBinding, Configuration, Lock, Crypto, Conversation,
NameResolver, Middleware. Methods run on a pool of threads, or
on the event loop when they are coroutines. main() takes the listening socket from descriptor 3, tells the runtime who it is and how
it is, and ends when the runtime does (end of file on descriptor 4). Started by hand with --socket PATH it serves there instead.
"""
from ._runtime import backend_down, backend_up, log, main, manifest_version
from ._server import (ALREADY_EXISTS, CANCELED, DEADLINE_EXCEEDED, FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, NOT_FOUND,
                      PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE, UNIMPLEMENTED, UNKNOWN, PluginError)
from ._kinds import (LOCK_MISSING, LOCK_OF_OTHERS, UNLOCKED, Answer, Configuration, Conversation, Crypto, Edits, Entry, EtagInvalid, EtagMismatch,
                     InputBinding, Item, Lock, Message, Middleware, NameResolver, OutputBinding, PubSub, SecretStore, StateStore)

__all__ = ["main", "manifest_version", "log", "backend_up", "backend_down", "PluginError", "EtagMismatch", "EtagInvalid", "StateStore", "SecretStore", "PubSub",
           "OutputBinding", "InputBinding", "Item", "Message", "Configuration", "Entry", "Lock", "UNLOCKED", "LOCK_MISSING", "LOCK_OF_OTHERS", "Crypto",
           "Conversation", "NameResolver", "Middleware", "Answer", "Edits", "ALREADY_EXISTS", "CANCELED", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION",
           "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN"]
