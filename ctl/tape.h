/*
 * A recording of calls at a component's boundary, as `plugin tap` writes and `plugin replay` reads it: MessagePack maps, one after the
 * other. Read by any MessagePack tool.
 *
 *   {"format":"microdapr-tap","version":1,"appId","component","type","plugin","pluginVersion","redacted":bool,"startedNs"}
 *   {"timeNs","method","code","message","latencyNs","requestBytes","responseBytes","whole":bool,"request","response"}   ...
 *   and with "stream":true for one message of a stream, which has either of request (to the plugin) and response (from it)
 *   {"end":true,"calls","dropped"}
 *
 * Unredacted, request and response are the protobuf bytes. Redacted, they are maps of the messages' fields in which everything but
 * names (keys, topics, operations) is {"bytes":n,"hash":"16 hex digits"}; equal hashes are equal values within one recording only: the
 * hash has a key that is thrown away. A message of an unknown method is such a pair as a whole.
 */
#ifndef CTL_TAPE_H
#define CTL_TAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum { TAPE_VERSION = 1, TAPE_FILE_MAX = 256 << 20 };

struct tape_head {
        const char *app_id, *component, *type, *plugin, *plugin_version;
        bool redacted;
        int64_t started_ns;
};
struct tape_call {
        int64_t at_ns, latency_ns;
        struct str method, message, request, response;
        int64_t request_bytes, response_bytes; /* as they were, also when not all of it was kept */
        int code;
        bool stream; /* one message of a stream: to the plugin (request) or from it (response) */
};
static inline bool tape_is_whole(const struct tape_call *c)
{
        return (int64_t)c->request.n == c->request_bytes && (int64_t)c->response.n == c->response_bytes;
}

struct tape;
/* A new file (mode 0600), or another's content replaced. 0 or -errno. */
int tape_create(struct tape **ret, const char *path, const struct tape_head *h);
int tape_add(struct tape *t, const struct tape_call *c); /* 0 or -errno: -ENOSPC and so on */
/* Writes the end; 0 or -errno. Frees it in any case. */
int tape_close(struct tape *t, uint64_t dropped);

/* The whole file. 0, or -errno with a sentence in *ret_err. Calls of a redacted one have no messages. */
int tape_read(struct arena *a, const char *path, struct tape_head *ret_head, struct tape_call **ret, size_t *ret_n, const char **ret_err);
/* The same from memory; name: for the sentence. */
int tape_parse(struct arena *a, struct str text, const char *name, struct tape_head *ret_head, struct tape_call **ret, size_t *ret_n,
               const char **ret_err);

#endif
