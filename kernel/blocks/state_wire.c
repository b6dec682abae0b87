/*
 * Requests to stores and their replies, written and read by hand: these messages are on every state call, and their values may
 * be large. A request is sized first and written once; a reply is read in place.
 *   GetRequest { key 1, metadata 2, consistency 3 }          GetResponse { data 1, etag 2 { value 1 }, metadata 3 }
 *   SetRequest { key 1, value 2, etag 3 { value 1 }, metadata 4, options 5 { concurrency 1, consistency 2 }, content_type 6 }
 *   DeleteRequest { key 1, etag 2, metadata 3, options 4 }    BulkXRequest { items 1, options 2 { parallelism 1 } }
 *   TransactionalStateRequest { operations 1 { delete 1 | set 2 }, metadata 2 }
 *   BulkGetResponse { items 1 { key 1, data 2, etag 3, error 4, metadata 5 } }
 */
#include <errno.h>

#include "kernel/blocks/state.h"
#include "sdk/base/wire.h"

/* ---- writing ---- */

static size_t text_size(struct str s)
{
        return s.n ? wire_bytes_size(s.n) : 0;
}

static uint8_t *put_text(uint8_t *p, uint32_t number, struct str s)
{
        return s.n ? wire_put_bytes(p, number, s.p, s.n) : p;
}

static size_t map_size(const struct rpc_mdlist *md)
{
        size_t n = 0;
        for (size_t i = 0; i < md->n; i++)
                n += wire_bytes_size(text_size(md->v[i].key) + text_size(md->v[i].value));
        return n;
}

static uint8_t *put_map(uint8_t *p, uint32_t number, const struct rpc_mdlist *md)
{
        for (size_t i = 0; i < md->n; i++) {
                p = wire_put_head(p, number, text_size(md->v[i].key) + text_size(md->v[i].value));
                p = put_text(p, 1, md->v[i].key);
                p = put_text(p, 2, md->v[i].value);
        }
        return p;
}

static size_t etag_size(const struct state_item *i)
{
        return i->has_etag ? wire_bytes_size(text_size(i->etag)) : 0;
}

static uint8_t *put_etag(uint8_t *p, uint32_t number, const struct state_item *i)
{
        return i->has_etag ? put_text(wire_put_head(p, number, text_size(i->etag)), 1, i->etag) : p;
}

static uint8_t *put_enum(uint8_t *p, uint32_t number, int v)
{
        if (v) {
                *p++ = (uint8_t)(number << 3);
                *p++ = (uint8_t)v;
        }
        return p;
}

static size_t options_size(const struct state_item *i)
{
        return wire_bytes_size((i->concurrency ? 2 : 0) + (i->consistency ? 2 : 0));
}

static uint8_t *put_options(uint8_t *p, uint32_t number, const struct state_item *i)
{
        p = wire_put_head(p, number, (i->concurrency ? 2 : 0) + (i->consistency ? 2 : 0));
        p = put_enum(p, 1, i->concurrency);
        return put_enum(p, 2, i->consistency);
}

static size_t get_size(const struct state_item *i)
{
        return text_size(i->stored_key) + map_size(&i->md) + (i->consistency ? 2 : 0);
}

static uint8_t *put_get(uint8_t *p, const struct state_item *i)
{
        p = put_text(p, 1, i->stored_key);
        p = put_map(p, 2, &i->md);
        return put_enum(p, 3, i->consistency);
}

static size_t set_size(const struct state_item *i)
{
        return text_size(i->stored_key) + text_size(i->value) + etag_size(i) + map_size(&i->md) + options_size(i) + text_size(i->content_type);
}

static uint8_t *put_set(uint8_t *p, const struct state_item *i)
{
        p = put_text(p, 1, i->stored_key);
        p = put_text(p, 2, i->value);
        p = put_etag(p, 3, i);
        p = put_map(p, 4, &i->md);
        p = put_options(p, 5, i);
        return put_text(p, 6, i->content_type);
}

static size_t delete_size(const struct state_item *i)
{
        return text_size(i->stored_key) + etag_size(i) + map_size(&i->md) + options_size(i);
}

static uint8_t *put_delete(uint8_t *p, const struct state_item *i)
{
        p = put_text(p, 1, i->stored_key);
        p = put_etag(p, 2, i);
        p = put_map(p, 3, &i->md);
        return put_options(p, 4, i);
}

struct str state_pack_get_request(struct arena *a, const struct state_item *i)
{
        uint8_t *out = arena_alloc(a, get_size(i));
        return out ? str_n(out, (size_t)(put_get(out, i) - out)) : STR_NULL;
}

struct str state_pack_set_request(struct arena *a, const struct state_item *i)
{
        uint8_t *out = arena_alloc(a, set_size(i));
        return out ? str_n(out, (size_t)(put_set(out, i) - out)) : STR_NULL;
}

struct str state_pack_delete_request(struct arena *a, const struct state_item *i)
{
        uint8_t *out = arena_alloc(a, delete_size(i));
        return out ? str_n(out, (size_t)(put_delete(out, i) - out)) : STR_NULL;
}

static const struct {
        size_t (*size)(const struct state_item *i);
        uint8_t *(*put)(uint8_t *p, const struct state_item *i);
} codecs[] = {[STATE_BULK_GET] = {get_size, put_get}, [STATE_BULK_SET] = {set_size, put_set}, [STATE_BULK_DELETE] = {delete_size, put_delete}};

struct str state_pack_bulk(struct arena *a, enum state_method kind, const struct state_item *items, size_t n, int64_t parallelism)
{
        size_t options = parallelism ? 1 + wire_varint_size((uint64_t)parallelism) : 0, total = wire_bytes_size(options);
        for (size_t i = 0; i < n; i++)
                total += wire_bytes_size(codecs[kind].size(&items[i]));
        uint8_t *out = arena_alloc(a, total), *p = out;
        if (!out)
                return STR_NULL;
        for (size_t i = 0; i < n; i++)
                p = codecs[kind].put(wire_put_head(p, 1, codecs[kind].size(&items[i])), &items[i]);
        p = wire_put_head(p, 2, options);
        if (parallelism) {
                *p++ = 1 << 3;
                p = wire_put_varint(p, (uint64_t)parallelism);
        }
        return str_n(out, (size_t)(p - out));
}

static size_t op_size(const struct state_item *i)
{
        return wire_bytes_size(i->is_delete ? delete_size(i) : set_size(i));
}

struct str state_pack_transaction(struct arena *a, const struct state_item *items, size_t n, const struct rpc_mdlist *md)
{
        size_t total = map_size(md);
        for (size_t i = 0; i < n; i++)
                total += wire_bytes_size(op_size(&items[i]));
        uint8_t *out = arena_alloc(a, total), *p = out;
        if (!out)
                return STR_NULL;
        for (size_t i = 0; i < n; i++) {
                p = wire_put_head(p, 1, op_size(&items[i]));
                p = items[i].is_delete ? put_delete(wire_put_head(p, 1, delete_size(&items[i])), &items[i])
                                       : put_set(wire_put_head(p, 2, set_size(&items[i])), &items[i]);
        }
        p = put_map(p, 2, md);
        return str_n(out, (size_t)(p - out));
}

/* ---- reading ---- */

static int read_etag(struct str msg, struct state_value *v)
{
        struct wire w = wire_of(msg);
        v->has_etag = true;
        v->etag = STR("");
        for (struct wire_field f; wire_next(&w, &f);)
                if (f.number == 1 && f.bytes.p)
                        v->etag = f.bytes;
        return w.bad ? -EBADMSG : 0;
}

static int read_entry(struct arena *a, struct str msg, struct rpc_mdlist *md)
{
        struct wire w = wire_of(msg);
        struct str key = STR(""), value = STR("");
        for (struct wire_field f; wire_next(&w, &f);) {
                if (f.number == 1 && f.bytes.p)
                        key = f.bytes;
                else if (f.number == 2 && f.bytes.p)
                        value = f.bytes;
        }
        return w.bad ? -EBADMSG : rpc_md_add(md, a, key, value);
}

int state_read_get_response(struct arena *a, struct str msg, struct state_value *ret)
{
        struct wire w = wire_of(msg);
        int r = 0;
        *ret = (struct state_value){0};
        for (struct wire_field f; !r && wire_next(&w, &f);) {
                if (!f.bytes.p)
                        continue;
                if (f.number == 1)
                        ret->data = f.bytes, ret->found = f.bytes.n > 0;
                else if (f.number == 2)
                        r = read_etag(f.bytes, ret);
                else if (f.number == 3)
                        r = read_entry(a, f.bytes, &ret->md);
        }
        return w.bad ? -EBADMSG : r;
}

static int read_item(struct arena *a, struct str msg, struct state_value *v)
{
        struct wire w = wire_of(msg);
        int r = 0;
        for (struct wire_field f; !r && wire_next(&w, &f);) {
                if (!f.bytes.p)
                        continue;
                if (f.number == 1)
                        v->key = f.bytes;
                else if (f.number == 2)
                        v->data = f.bytes;
                else if (f.number == 3)
                        r = read_etag(f.bytes, v);
                else if (f.number == 4)
                        v->error = f.bytes;
                else if (f.number == 5)
                        r = read_entry(a, f.bytes, &v->md);
        }
        return w.bad ? -EBADMSG : r;
}

int state_read_bulk_response(struct arena *a, struct str msg, struct state_value **ret, size_t *ret_n)
{
        struct wire w = wire_of(msg);
        size_t n = 0;
        for (struct wire_field f; wire_next(&w, &f);)
                n += f.number == 1 && f.bytes.p;
        struct state_value *v = w.bad ? NULL : arena_zalloc(a, (n + 1) * sizeof *v);
        if (!v)
                return w.bad ? -EBADMSG : -ENOMEM;
        int r = 0;
        w = wire_of(msg);
        n = 0;
        for (struct wire_field f; !r && wire_next(&w, &f);)
                if (f.number == 1 && f.bytes.p)
                        r = read_item(a, f.bytes, &v[n++]);
        *ret = v;
        *ret_n = n;
        return r;
}
