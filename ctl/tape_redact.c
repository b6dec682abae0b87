/*
 * Messages without their values: by the methods' descriptors, field by field. What is kept is a list of names; what is not on it is
 * replaced, so that a field that comes later is hidden until somebody thinks about it. Nesting past DEPTH_MAX is replaced as a whole.
 */
#include <stdlib.h>

#include "ctl/tape_impl.h"
#include "proto/registry.h"
#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/pb.h"
#include "sdk/trust/digest.h"

enum { DEPTH_MAX = 8, HASH_DIGITS = 16 };

/* Fields whose text tells what a call is about, not what it carries. */
static const char *const kept[] = {"key", "keys", "name", "names", "topic", "pubsub_name", "operation", "operations", "content_type", "lock_owner",
                                   "resource_id", "algorithm", "key_name", "prefix", "pattern", "app_id", "method", "scheme", "type", "role", "model"};

struct hiding {
        msgpack_packer *p;
        const unsigned char *key;
};

void tape_pack_text(msgpack_packer *p, struct str s)
{
        msgpack_pack_str(p, s.n);
        msgpack_pack_str_body(p, s.p ? s.p : "", s.n);
}

static void pack_hidden(const struct hiding *h, struct str v)
{
        struct buf b = {0};
        char digest[DIGEST_HEX + 1] = "";
        if (buf_add(&b, h->key, TAPE_KEY_BYTES) == 0 && buf_adds(&b, v) == 0)
                digest_blake2b(buf_str(&b), digest);
        if (b.p)
                explicit_bzero(b.p, b.len);
        buf_fini(&b);
        msgpack_pack_map(h->p, 2);
        tape_pack_text(h->p, STR("bytes"));
        msgpack_pack_uint64(h->p, v.n);
        tape_pack_text(h->p, STR("hash"));
        tape_pack_text(h->p, str_n(digest, strnlen(digest, HASH_DIGITS)));
}

static bool is_kept(const char *field)
{
        for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
                if (strcmp(kept[i], field) == 0)
                        return true;
        return false;
}

static bool is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        const char *base = (const char *)m;
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
                return *(const size_t *)(base + f->quantifier_offset) > 0;
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
                return *(const uint32_t *)(base + f->quantifier_offset) == f->id;
        switch (pb_types[f->type].kind) {
        case PB_STRING:
                return *(char *const *)(base + f->offset) && **(char *const *)(base + f->offset);
        case PB_BYTES:
                return ((const ProtobufCBinaryData *)(base + f->offset))->len > 0;
        case PB_MESSAGE:
                return *(void *const *)(base + f->offset) != NULL;
        default:
                return true;
        }
}

static void pack_message(const struct hiding *h, const ProtobufCMessage *m, int depth);

/* Numbers and enums may tell a value too (a stored counter is bytes, though): of those only booleans and enums are shown. */
static void pack_value(const struct hiding *h, const ProtobufCFieldDescriptor *f, const void *at, int depth)
{
        const struct pb_type *t = &pb_types[f->type];
        switch (t->kind) {
        case PB_STRING: {
                struct str s = str_of(*(char *const *)at);
                if (is_kept(f->name))
                        tape_pack_text(h->p, s);
                else
                        pack_hidden(h, s);
                return;
        }
        case PB_BYTES:
                pack_hidden(h, pb_str(*(const ProtobufCBinaryData *)at));
                return;
        case PB_MESSAGE:
                pack_message(h, *(ProtobufCMessage *const *)at, depth + 1);
                return;
        case PB_BOOL:
                *(const protobuf_c_boolean *)at ? msgpack_pack_true(h->p) : msgpack_pack_false(h->p);
                return;
        case PB_ENUM:
                msgpack_pack_int32(h->p, *(const int32_t *)at);
                return;
        default:
                pack_hidden(h, str_n(at, t->size));
        }
}

static void pack_field(const struct hiding *h, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, int depth)
{
        const char *base = (const char *)m, *at = base + f->offset;
        tape_pack_text(h->p, str_of(f->name));
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
                pack_value(h, f, at, depth);
                return;
        }
        size_t n = *(const size_t *)(base + f->quantifier_offset), size = pb_types[f->type].size;
        msgpack_pack_array(h->p, n);
        for (size_t i = 0; i < n; i++)
                pack_value(h, f, *(const char *const *)at + i * size, depth);
}

/* It calls itself, by the depth of a message's type and never deeper than DEPTH_MAX. */
static void pack_message(const struct hiding *h, const ProtobufCMessage *m, int depth)
{
        size_t n = 0;
        if (depth >= DEPTH_MAX) {
                msgpack_pack_nil(h->p);
                return;
        }
        for (unsigned i = 0; i < m->descriptor->n_fields; i++)
                n += is_set(m, &m->descriptor->fields[i]);
        msgpack_pack_map(h->p, n);
        for (unsigned i = 0; i < m->descriptor->n_fields; i++)
                if (is_set(m, &m->descriptor->fields[i]))
                        pack_field(h, m, &m->descriptor->fields[i], depth);
}

void tape_pack_redacted(msgpack_packer *p, const unsigned char key[TAPE_KEY_BYTES], struct str method, bool is_response, struct str bytes)
{
        struct hiding h = {p, key};
        const struct pb_method *m = pb_method_find(method);
        struct arena a;
        arena_init(&a, 0);
        ProtobufCMessage *msg = m ? pb_unpack(&a, is_response ? m->response : m->request, bytes) : NULL;
        if (msg)
                pack_message(&h, msg, 0);
        else
                pack_hidden(&h, bytes);
        arena_fini(&a);
}
