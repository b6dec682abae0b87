/*
 * Hot messages of state stores by hand (sdk/base/wire.h). Field numbers: proto/dapr/proto/components/v1/state.proto, named beside use.
 */
#include "sdk/plugin/state_codec.h"

#include <errno.h>
#include <stdlib.h>

#include "sdk/base/flags.h"
#include "sdk/base/wire.h"

/* ---- reading ---- */

static int text(struct dapr_call *dc, struct str s, const char **ret)
{
        *ret = arena_strdup(dc->arena, s);
        return *ret ? 0 : -ENOMEM;
}

static size_t count(struct str msg, uint32_t number)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        size_t n = 0;
        while (wire_next(&w, &f))
                n += f.number == number && f.bytes.p;
        return n;
}

static int read_entry(struct dapr_call *dc, struct str msg, struct dapr_kv *kv)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        *kv = (struct dapr_kv){"", ""};
        while (wire_next(&w, &f)) {
                int r = 0;
                if (f.number == 1 && f.bytes.p)
                        r = text(dc, f.bytes, &kv->key);
                else if (f.number == 2 && f.bytes.p)
                        r = text(dc, f.bytes, &kv->value);
                if (r)
                        return r;
        }
        return w.bad ? -EBADMSG : 0;
}

int state_read_repeated(struct dapr_call *dc, struct str msg, uint32_t number, struct str **ret, size_t *ret_n)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        size_t n = count(msg, number), i = 0;
        struct str *v = arena_alloc(dc->arena, n * sizeof *v);
        if (!v)
                return -ENOMEM;
        while (i < n && wire_next(&w, &f))
                if (f.number == number && f.bytes.p)
                        v[i++] = f.bytes;
        while (wire_next(&w, &f)) /* the rest must be well formed too */
                ;
        *ret = v;
        *ret_n = n;
        return w.bad ? -EBADMSG : 0;
}

int state_read_map(struct dapr_call *dc, struct str msg, uint32_t number, struct dapr_kvs *ret)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        size_t n = count(msg, number), i = 0;
        *ret = (struct dapr_kvs){0};
        if (n == 0)
                return 0;
        struct dapr_kv *v = arena_alloc(dc->arena, n * sizeof *v);
        if (!v)
                return -ENOMEM;
        while (i < n && wire_next(&w, &f)) {
                if (f.number != number || !f.bytes.p)
                        continue;
                int r = read_entry(dc, f.bytes, &v[i++]);
                if (r)
                        return r;
        }
        *ret = (struct dapr_kvs){v, n};
        return 0;
}

/* message Etag { value = 1 }; a second one is merged into the first, as protobuf does. */
static int read_etag(struct dapr_call *dc, struct str msg, const char **ret)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        if (!*ret)
                *ret = "";
        while (wire_next(&w, &f))
                if (f.number == 1 && f.bytes.p) {
                        int r = text(dc, f.bytes, ret);
                        if (r)
                                return r;
                }
        return w.bad ? -EBADMSG : 0;
}

/* A value of an enum; one that we do not know counts as unspecified. */
static int known(uint64_t u, int max)
{
        return (uint32_t)u <= (uint32_t)max ? (int)(uint32_t)u : 0;
}

/* message StateOptions { concurrency = 1; consistency = 2 } */
static int read_options(struct str msg, enum dapr_concurrency *concurrency, enum dapr_consistency *consistency)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        while (wire_next(&w, &f)) {
                if (f.number == 1 && f.type == WIRE_VARINT)
                        *concurrency = (enum dapr_concurrency)known(f.u, DAPR_LAST_WRITE);
                if (f.number == 2 && f.type == WIRE_VARINT)
                        *consistency = (enum dapr_consistency)known(f.u, DAPR_STRONG);
        }
        return w.bad ? -EBADMSG : 0;
}

/* GetRequest { key = 1; metadata = 2; consistency = 3 } */
int state_read_get(struct dapr_call *dc, struct str msg, struct dapr_get *ret)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        bool has_metadata = false;
        int r = 0;
        *ret = (struct dapr_get){.key = ""};
        while (r == 0 && wire_next(&w, &f)) {
                if (f.number == 1 && f.bytes.p)
                        r = text(dc, f.bytes, &ret->key);
                else if (f.number == 2 && f.bytes.p)
                        has_metadata = true;
                else if (f.number == 3 && f.type == WIRE_VARINT)
                        ret->consistency = (enum dapr_consistency)known(f.u, DAPR_STRONG);
        }
        if (r == 0 && w.bad)
                r = -EBADMSG;
        return r || !has_metadata ? r : state_read_map(dc, msg, 2, &ret->metadata);
}

/* SetRequest { key = 1; value = 2; etag = 3; metadata = 4; options = 5; content_type = 6 } */
int state_read_set(struct dapr_call *dc, struct str msg, struct dapr_set *ret)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        bool has_metadata = false;
        int r = 0;
        *ret = (struct dapr_set){.key = "", .value = {"", 0}};
        while (r == 0 && wire_next(&w, &f)) {
                if (!f.bytes.p)
                        continue;
                switch (f.number) {
                case 1: r = text(dc, f.bytes, &ret->key); break;
                case 2: ret->value = (struct dapr_bytes){f.bytes.p, f.bytes.n}; break;
                case 3: r = read_etag(dc, f.bytes, &ret->etag); break;
                case 4: has_metadata = true; break;
                case 5: r = read_options(f.bytes, &ret->concurrency, &ret->consistency); break;
                case 6:
                        ret->content_type = NULL;
                        r = f.bytes.n ? text(dc, f.bytes, &ret->content_type) : 0;
                        break;
                default: break;
                }
        }
        if (r == 0 && w.bad)
                r = -EBADMSG;
        return r || !has_metadata ? r : state_read_map(dc, msg, 4, &ret->metadata);
}

/* DeleteRequest { key = 1; etag = 2; metadata = 3; options = 4 } */
int state_read_delete(struct dapr_call *dc, struct str msg, struct dapr_delete *ret)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        bool has_metadata = false;
        int r = 0;
        *ret = (struct dapr_delete){.key = ""};
        while (r == 0 && wire_next(&w, &f)) {
                if (!f.bytes.p)
                        continue;
                switch (f.number) {
                case 1: r = text(dc, f.bytes, &ret->key); break;
                case 2: r = read_etag(dc, f.bytes, &ret->etag); break;
                case 3: has_metadata = true; break;
                case 4: r = read_options(f.bytes, &ret->concurrency, &ret->consistency); break;
                default: break;
                }
        }
        if (r == 0 && w.bad)
                r = -EBADMSG;
        return r || !has_metadata ? r : state_read_map(dc, msg, 3, &ret->metadata);
}

/* TransactionalStateOperation { oneof { delete = 1; set = 2 } }: the last one counts. */
int state_read_op(struct dapr_call *dc, struct str msg, struct dapr_op *ret)
{
        struct wire w = wire_of(msg);
        struct wire_field f, last = {0};
        while (wire_next(&w, &f))
                if ((f.number == 1 || f.number == 2) && f.bytes.p)
                        last = f;
        if (w.bad || !last.number)
                return -EBADMSG;
        *ret = (struct dapr_op){.kind = last.number == 1 ? DAPR_OP_DELETE : DAPR_OP_SET};
        if (ret->kind == DAPR_OP_DELETE)
                return state_read_delete(dc, last.bytes, &ret->del);
        int r = state_read_set(dc, last.bytes, &ret->set);
        return r ? r : state_read_ttl(dc, &ret->set);
}

#define TTL_MAX_S (200LL * 366 * 86400) /* two centuries: also as nanoseconds of the clock a number of 64 bits */

int state_read_ttl(struct dapr_call *dc, struct dapr_set *set)
{
        const char *v = NULL;
        for (size_t i = 0; i < set->metadata.n; i++)
                if (strcmp(set->metadata.v[i].key, "ttlInSeconds") == 0)
                        v = set->metadata.v[i].value;
        const struct dapr_state_ops *ops = dc->inst->type->state;
        const char *prefix = ops->ttl_error ? ops->ttl_error : "";
        set->ttl_s = 0;
        if (!v || !*v)
                return 0;
        if (parse_int64(str_of(v), &set->ttl_s)) {
                dapr_fail(dc, DAPR_INVALID_ARGUMENT, "%s%s: parsing \"%s\": invalid syntax", prefix,
                          ops->ttl_parser ? ops->ttl_parser : "incorrect value for metadata 'ttlInSeconds': strconv.ParseInt", v);
                return -EINVAL;
        }
        if (ops->ttl_parser) {
                set->ttl_s = set->ttl_s < 0 ? -1 : set->ttl_s > TTL_MAX_S ? TTL_MAX_S : set->ttl_s;
                return 0;
        }
        if (set->ttl_s < -1 || set->ttl_s > INT32_MAX) {
                dapr_fail(dc, DAPR_INVALID_ARGUMENT, "%sincorrect value for metadata 'ttlInSeconds': must be -1 or greater", prefix);
                return -EINVAL;
        }
        return 0;
}

/* ---- writing ---- */

static size_t field_size(const char *z)
{
        size_t n = z ? strlen(z) : 0;
        return n ? wire_bytes_size(n) : 0;
}

static uint8_t *put_field(uint8_t *p, uint32_t number, const char *z)
{
        size_t n = z ? strlen(z) : 0;
        return n ? wire_put_bytes(p, number, z, n) : p;
}

static size_t map_size(struct dapr_kvs m)
{
        size_t n = 0;
        for (size_t i = 0; i < m.n; i++)
                n += wire_bytes_size(field_size(m.v[i].key) + field_size(m.v[i].value));
        return n;
}

static uint8_t *put_map(uint8_t *p, uint32_t number, struct dapr_kvs m)
{
        for (size_t i = 0; i < m.n; i++) {
                p = wire_put_head(p, number, field_size(m.v[i].key) + field_size(m.v[i].value));
                p = put_field(p, 1, m.v[i].key);
                p = put_field(p, 2, m.v[i].value);
        }
        return p;
}

/* An Etag message is written whenever there is one, also an empty one: presence means something. */
static size_t etag_size(const struct dapr_item *i)
{
        return i->etag ? wire_bytes_size(field_size(i->etag)) : 0;
}

static uint8_t *put_etag(uint8_t *p, uint32_t number, const struct dapr_item *i)
{
        return i->etag ? put_field(wire_put_head(p, number, field_size(i->etag)), 1, i->etag) : p;
}

/* GetResponse { data = 1; etag = 2; metadata = 3; content_type = 4 } */
struct str state_pack_get(struct dapr_call *dc, const struct dapr_item *i)
{
        if (!i->found)
                return STR("");
        size_t n = (i->value.n ? wire_bytes_size(i->value.n) : 0) + etag_size(i) + map_size(i->metadata) + field_size(i->content_type);
        uint8_t *out = arena_alloc(dc->arena, n), *p = out;
        if (!out)
                return STR_NULL;
        if (i->value.n)
                p = wire_put_bytes(p, 1, i->value.p, i->value.n);
        p = put_etag(p, 2, i);
        p = put_map(p, 3, i->metadata);
        p = put_field(p, 4, i->content_type);
        return str_n(out, (size_t)(p - out));
}

/* BulkStateItem { key = 1; data = 2; etag = 3; error = 4; metadata = 5; content_type = 6 } */
static size_t item_size(const char *key, const struct dapr_item *i, const char *error)
{
        size_t n = field_size(key) + field_size(error);
        if (i->found && !error)
                n += (i->value.n ? wire_bytes_size(i->value.n) : 0) + etag_size(i) + map_size(i->metadata) + field_size(i->content_type);
        return n;
}

static uint8_t *put_item(uint8_t *p, const char *key, const struct dapr_item *i, const char *error)
{
        p = put_field(p, 1, key);
        if (error)
                return put_field(p, 4, error);
        if (!i->found)
                return p;
        if (i->value.n)
                p = wire_put_bytes(p, 2, i->value.p, i->value.n);
        p = put_etag(p, 3, i);
        p = put_map(p, 5, i->metadata);
        return put_field(p, 6, i->content_type);
}

/* BulkGetResponse { items = 1 } */
struct str state_pack_bulk_get(struct dapr_call *dc, const char *const *keys, const struct dapr_item *items,
                               const char *const *errors, size_t n)
{
        size_t total = 0;
        for (size_t i = 0; i < n; i++)
                total += wire_bytes_size(item_size(keys[i], &items[i], errors[i]));
        uint8_t *out = arena_alloc(dc->arena, total), *p = out;
        if (!out)
                return STR_NULL;
        for (size_t i = 0; i < n; i++) {
                p = wire_put_head(p, 1, item_size(keys[i], &items[i], errors[i]));
                p = put_item(p, keys[i], &items[i], errors[i]);
        }
        return str_n(out, (size_t)(p - out));
}
