/* See tape.h. MessagePack by msgpack-c, which only this file and tape_redact.c include. What is read comes from a file that anybody may
 * have made: types and sizes are checked, and what is not known is passed over. */
#include "ctl/tape.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/package/package_impl.h"
#include "ctl/tape_impl.h"
#include "sdk/base/msgpack_size.h"

#define FORMAT "microdapr-tap"

struct tape {
        FILE *to;
        msgpack_packer packer;
        bool redacted;
        unsigned char key[TAPE_KEY_BYTES];
        uint64_t n;
};

/* ---- writing ---- */

static int write_bytes(void *arg, const char *p, size_t n)
{
        struct tape *t = arg;
        return fwrite(p, 1, n, t->to) == n ? 0 : -1;
}

static void kv_text(msgpack_packer *p, const char *key, const char *value)
{
        tape_pack_text(p, str_of(key));
        tape_pack_text(p, str_of(value ? value : ""));
}

static void kv_int(msgpack_packer *p, const char *key, int64_t v)
{
        tape_pack_text(p, str_of(key));
        msgpack_pack_int64(p, v);
}

static void kv_bool(msgpack_packer *p, const char *key, bool v)
{
        tape_pack_text(p, str_of(key));
        v ? msgpack_pack_true(p) : msgpack_pack_false(p);
}

static void pack_head(msgpack_packer *p, const struct tape_head *h)
{
        msgpack_pack_map(p, 9);
        kv_text(p, "format", FORMAT);
        kv_int(p, "version", TAPE_VERSION);
        kv_text(p, "appId", h->app_id);
        kv_text(p, "component", h->component);
        kv_text(p, "type", h->type);
        kv_text(p, "plugin", h->plugin);
        kv_text(p, "pluginVersion", h->plugin_version);
        kv_bool(p, "redacted", h->redacted);
        kv_int(p, "startedNs", h->started_ns);
}

static int flushed(struct tape *t)
{
        if (fflush(t->to) != 0 || ferror(t->to))
                return errno ? -errno : -EIO;
        return 0;
}

int tape_create(struct tape **ret, const char *path, const struct tape_head *h)
{
        struct tape *t = calloc(1, sizeof *t);
        int fd = t ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1, r = t ? -errno : -ENOMEM;
        if (fd >= 0 && (fchmod(fd, 0600) != 0 || !(t->to = fdopen(fd, "wb")) || getrandom(t->key, sizeof t->key, 0) != sizeof t->key)) {
                r = -errno;
                if (!t->to)
                        close(fd);
        } else if (fd >= 0) {
                t->redacted = h->redacted;
                msgpack_packer_init(&t->packer, t, write_bytes);
                pack_head(&t->packer, h);
                r = flushed(t);
        }
        if (r && t) {
                if (t->to)
                        fclose(t->to);
                free(t);
                return r;
        }
        *ret = t;
        return r;
}

static void pack_body(struct tape *t, const char *key, const struct tape_call *c, bool is_response)
{
        struct str body = is_response ? c->response : c->request;
        tape_pack_text(&t->packer, str_of(key));
        if (t->redacted) {
                tape_pack_redacted(&t->packer, t->key, c->method, is_response, body);
        } else {
                msgpack_pack_bin(&t->packer, body.n);
                msgpack_pack_bin_body(&t->packer, body.p ? body.p : "", body.n);
        }
}

int tape_add(struct tape *t, const struct tape_call *c)
{
        msgpack_packer *p = &t->packer;
        msgpack_pack_map(p, c->stream ? 11 : 10);
        kv_int(p, "timeNs", c->at_ns);
        tape_pack_text(p, STR("method"));
        tape_pack_text(p, c->method);
        kv_int(p, "code", c->code);
        tape_pack_text(p, STR("message"));
        tape_pack_text(p, c->message);
        kv_int(p, "latencyNs", c->latency_ns);
        kv_int(p, "requestBytes", c->request_bytes);
        kv_int(p, "responseBytes", c->response_bytes);
        kv_bool(p, "whole", tape_is_whole(c));
        if (c->stream)
                kv_bool(p, "stream", true);
        pack_body(t, "request", c, false);
        pack_body(t, "response", c, true);
        t->n++;
        return flushed(t);
}

int tape_close(struct tape *t, uint64_t dropped)
{
        msgpack_pack_map(&t->packer, 3);
        kv_bool(&t->packer, "end", true);
        kv_int(&t->packer, "calls", (int64_t)t->n);
        kv_int(&t->packer, "dropped", (int64_t)dropped);
        int r = flushed(t);
        if (fclose(t->to) != 0 && !r)
                r = -errno;
        explicit_bzero(t->key, sizeof t->key);
        free(t);
        return r;
}

/* ---- reading ---- */

static const msgpack_object *member(const msgpack_object *o, const char *key)
{
        for (uint32_t i = 0; o->type == MSGPACK_OBJECT_MAP && i < o->via.map.size; i++) {
                const msgpack_object *k = &o->via.map.ptr[i].key;
                if (k->type == MSGPACK_OBJECT_STR && str_eqz(str_n(k->via.str.ptr, k->via.str.size), key))
                        return &o->via.map.ptr[i].val;
        }
        return NULL;
}

/* In the arena; "" for what is neither text nor bytes. */
static struct str text_of(struct arena *a, const msgpack_object *o, const char *key)
{
        const msgpack_object *v = member(o, key);
        if (v && v->type == MSGPACK_OBJECT_STR)
                return arena_str(a, str_n(v->via.str.ptr, v->via.str.size));
        if (v && v->type == MSGPACK_OBJECT_BIN)
                return arena_str(a, str_n(v->via.bin.ptr, v->via.bin.size));
        return STR("");
}

static int64_t int_of(const msgpack_object *o, const char *key)
{
        const msgpack_object *v = member(o, key);
        if (v && v->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
                return v->via.u64 > INT64_MAX ? INT64_MAX : (int64_t)v->via.u64;
        return v && v->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ? v->via.i64 : 0;
}

static bool bool_of(const msgpack_object *o, const char *key)
{
        const msgpack_object *v = member(o, key);
        return v && v->type == MSGPACK_OBJECT_BOOLEAN && v->via.boolean;
}

static const char *read_head(struct arena *a, const msgpack_object *o, struct tape_head *h)
{
        if (!str_eqz(text_of(a, o, "format"), FORMAT))
                return "this is no recording of dapr plugin tap";
        if (int_of(o, "version") != TAPE_VERSION)
                return arena_printf(a, "this recording has version %lld, this daprctl reads %d", (long long)int_of(o, "version"), TAPE_VERSION);
        *h = (struct tape_head){.app_id = text_of(a, o, "appId").p, .component = text_of(a, o, "component").p, .type = text_of(a, o, "type").p,
                                .plugin = text_of(a, o, "plugin").p, .plugin_version = text_of(a, o, "pluginVersion").p,
                                .redacted = bool_of(o, "redacted"), .started_ns = int_of(o, "startedNs")};
        return h->app_id && h->component && h->type && h->plugin && h->plugin_version ? NULL : "out of memory";
}

static void read_call(struct arena *a, const msgpack_object *o, struct tape_call *c)
{
        *c = (struct tape_call){.at_ns = int_of(o, "timeNs"), .latency_ns = int_of(o, "latencyNs"), .method = text_of(a, o, "method"),
                                .message = text_of(a, o, "message"), .request = text_of(a, o, "request"), .response = text_of(a, o, "response"),
                                .request_bytes = int_of(o, "requestBytes"), .response_bytes = int_of(o, "responseBytes"),
                                .code = (int)int_of(o, "code"), .stream = bool_of(o, "stream")};
}

struct reading {
        struct arena *a;
        struct tape_head *head;
        struct tape_call *v;
        size_t n, cap;
        bool has_head, ended;
};

static const char *take(struct reading *k, const msgpack_object *o)
{
        if (!k->has_head) {
                k->has_head = true;
                return read_head(k->a, o, k->head);
        }
        if (bool_of(o, "end")) {
                k->ended = true;
                return NULL;
        }
        if (!member(o, "method"))
                return "there is something in it that is no call";
        if (k->n == k->cap) {
                size_t cap = k->cap ? k->cap * 2 : 64;
                struct tape_call *v = arena_grow(k->a, k->v, k->cap * sizeof *v, cap * sizeof *v);
                if (!v)
                        return "out of memory";
                k->v = v;
                k->cap = cap;
        }
        read_call(k->a, o, &k->v[k->n++]);
        return NULL;
}

int tape_parse(struct arena *a, struct str text, const char *name, struct tape_head *ret_head, struct tape_call **ret, size_t *ret_n,
               const char **ret_err)
{
        struct reading k = {.a = a, .head = ret_head};
        const char *err = NULL;
        size_t at = 0;
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        while (!err && at < text.n) {
                if (!msgpack_value_bytes(str_skip(text, at))) {
                        if (!k.has_head)
                                err = "this is no recording of dapr plugin tap";
                        break; /* else the recorder was killed: what is whole counts */
                }
                msgpack_unpack_return r = msgpack_unpack_next(&u, text.p, text.n, &at);
                if (r == MSGPACK_UNPACK_SUCCESS || r == MSGPACK_UNPACK_EXTRA_BYTES)
                        err = take(&k, &u.data);
                else
                        err = r == MSGPACK_UNPACK_NOMEM_ERROR ? "out of memory" : "this is no recording of dapr plugin tap";
        }
        msgpack_unpacked_destroy(&u);
        if (!err && !k.has_head)
                err = "it is empty";
        *ret = k.v;
        *ret_n = k.n;
        if (err)
                *ret_err = arena_printf(a, "%s: %s", name, err);
        return err ? -EBADMSG : 0;
}

int tape_read(struct arena *a, const char *path, struct tape_head *ret_head, struct tape_call **ret, size_t *ret_n, const char **ret_err)
{
        struct str text;
        int r = trust_read_file(a, path, TAPE_FILE_MAX, &text);
        if (r == 0)
                return tape_parse(a, text, path, ret_head, ret, ret_n, ret_err);
        *ret_err = arena_printf(a, "%s cannot be read: %s", path, strerror(-r));
        return r;
}
