#!/usr/bin/env python3
"""A model that repeats the last words: put yours in its place."""
import dapr_plugin as dapr


class Model(dapr.Conversation):
    def converse(self, request):
        texts = [p["text"] for m in request.messages for p in m["parts"] if p["text"]]
        return f"You said: {texts[-1]}" if texts else "Say something."


dapr.main("conversation.pystore", dapr.manifest_version(), {"conversation.pystore": Model})
