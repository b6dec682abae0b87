#!/usr/bin/env python3
"""A filter of heads: it wants the header x-key where the setting `key` says which, and marks what passes."""
import dapr_plugin as dapr


class Filter(dapr.Middleware):
    def init(self, metadata):
        self.key = metadata.get("key", "").encode()

    def request(self, request):
        given = [value for name, value in request.headers if name.lower() == "x-key"]
        if self.key and given != [self.key]:
            return dapr.Answer(401, "say x-key")
        return dapr.Edits(set_headers={"x-seen-by": self.name}, response_headers={"x-filtered": "yes"})


dapr.main("middleware.pystore", dapr.manifest_version(), {"middleware.pystore": Filter})
