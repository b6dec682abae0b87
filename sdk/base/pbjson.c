/*
 * Message to JSON text (pbjson_read.c is the other way). No recursion: each message, list or map that is open is one frame, and the
 * loop in pbjson_write() always works on the innermost. Fields come in the order of their numbers, map entries sorted by key, so
 * equal messages give equal text. Frames and the messages inside Any live in an arena of the call.
 */
#include "sdk/base/pbjson.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/pbjson_types.h"
#include "sdk/base/rfc3339.h"

enum kind { OF_MESSAGE, OF_LIST, OF_MAP, OF_ANY_VALUE };

struct frame {
        struct frame *outer, *inner; /* inner: kept for reuse */
        enum kind kind;
        bool any;                          /* m came out of an Any */
        const ProtobufCMessage *m;
        const ProtobufCFieldDescriptor *f; /* of a list or map */
        const char *elements;              /* of a list; of a map, the places of its entries, sorted */
        size_t next, n;                    /* field or element */
};

struct writer {
        struct json_writer json;
        struct arena arena;
        struct frame *top;
        int flags, anys;
};

/* ---- scalars ---- */

static void quoted_number(struct writer *w, bool is_signed, uint64_t v)
{
        char z[24], *p = z + sizeof z;
        bool negative = is_signed && (int64_t)v < 0;
        if (negative)
                v = 0 - v;
        *--p = '"';
        do
                *--p = (char)('0' + v % 10);
        while (v /= 10);
        if (negative)
                *--p = '-';
        *--p = '"';
        json_raw(&w->json, str_n(p, (size_t)(z + sizeof z - p)));
}

static void write_double(struct writer *w, double v, bool single)
{
        char z[JSON_DOUBLE_BYTES];
        if (isnan(v))
                json_string(&w->json, STR("NaN"));
        else if (isinf(v))
                json_string(&w->json, v > 0 ? STR("Infinity") : STR("-Infinity"));
        else
                json_raw(&w->json, str_n(z, json_format_double(z, v, single)));
}

static int write_bytes(struct writer *w, ProtobufCBinaryData b)
{
        struct buf *out = w->json.out;
        json_string(&w->json, STR("")); /* the comma and both quotes; the text goes between them */
        if (b.len > SIZE_MAX / 2 || buf_reserve(out, BASE64_LEN(b.len) + 1) || out->failed)
                return -ENOMEM;
        out->len--;
        out->len += base64_put(out->p + out->len, pb_str(b));
        return buf_addc(out, '"');
}

static void write_enum(struct writer *w, const ProtobufCFieldDescriptor *f, int v)
{
        const ProtobufCEnumValue *row =
                w->flags & PBJSON_ENUM_NUMBERS ? NULL : protobuf_c_enum_descriptor_get_value(f->descriptor, v);
        if (pbjson_is_null_value(f))
                json_null(&w->json);
        else if (row)
                json_string(&w->json, str_of(row->name));
        else
                json_int(&w->json, v);
}

static int write_scalar(struct writer *w, const ProtobufCFieldDescriptor *f, const void *at)
{
        switch ((enum pb_kind)pb_types[f->type].kind) {
        case PB_INT32:
                json_int(&w->json, *(const int32_t *)at);
                return 0;
        case PB_UINT32:
                json_uint(&w->json, *(const uint32_t *)at);
                return 0;
        case PB_INT64:
        case PB_UINT64:
                quoted_number(w, pb_types[f->type].kind == PB_INT64, *(const uint64_t *)at);
                return 0;
        case PB_FLOAT:
                write_double(w, *(const float *)at, true);
                return 0;
        case PB_DOUBLE:
                write_double(w, *(const double *)at, false);
                return 0;
        case PB_BOOL:
                json_bool(&w->json, *(const protobuf_c_boolean *)at);
                return 0;
        case PB_ENUM:
                write_enum(w, f, *(const int *)at);
                return 0;
        case PB_STRING:
                json_string(&w->json, str_of(*(const char *const *)at));
                return 0;
        case PB_BYTES:
                return write_bytes(w, *(const ProtobufCBinaryData *)at);
        case PB_MESSAGE:
                break;
        }
        return -EINVAL;
}

/* ---- frames ---- */

static struct frame *push(struct writer *w, enum kind kind, const ProtobufCMessage *m)
{
        struct frame *inner = w->top ? w->top->inner : NULL;
        if (!inner) {
                inner = arena_new(&w->arena, struct frame);
                if (!inner)
                        return NULL;
                inner->outer = w->top;
                if (w->top)
                        w->top->inner = inner;
        }
        *inner = (struct frame){.outer = inner->outer, .inner = inner->inner, .kind = kind, .m = m};
        w->top = inner;
        if (kind == OF_LIST)
                json_array_begin(&w->json);
        else
                json_object_begin(&w->json);
        return inner;
}

static int open_message(struct writer *w, const ProtobufCMessage *m)
{
        struct frame *t = push(w, OF_MESSAGE, m);
        if (t)
                t->n = m->descriptor->n_fields;
        return t ? 0 : -ENOMEM;
}

/* Places of map entries: by key, equal keys in the order in which they came. */
static int compare_places(const void *a, const void *b)
{
        const ProtobufCMessage *const *x = *(const ProtobufCMessage *const *const *)a;
        const ProtobufCMessage *const *y = *(const ProtobufCMessage *const *const *)b;
        int c = pbjson_compare_entries(*x, *y);
        return c ? c : (x > y) - (x < y);
}

static int open_repeated(struct writer *w, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, bool is_map)
{
        size_t n = *(const size_t *)((const char *)m + f->quantifier_offset);
        const char *elements = *(const char *const *)((const char *)m + f->offset);
        if (is_map) {
                const ProtobufCMessage *const *entries = (const ProtobufCMessage *const *)elements;
                const ProtobufCMessage *const **places = arena_alloc(&w->arena, n * sizeof *places);
                if (!places)
                        return -ENOMEM;
                for (size_t i = 0; i < n; i++)
                        places[i] = &entries[i];
                qsort(places, n, sizeof *places, compare_places);
                elements = (const char *)places;
        }
        struct frame *t = push(w, is_map ? OF_MAP : OF_LIST, m);
        if (!t)
                return -ENOMEM;
        t->f = f;
        t->elements = elements;
        t->n = n;
        return 0;
}

/* ---- messages with a form of their own ---- */

static int write_time(struct writer *w, const ProtobufCMessage *m)
{
        char z[RFC3339_BYTES];
        size_t n;
        if (m->descriptor == &google__protobuf__timestamp__descriptor) {
                const Google__Protobuf__Timestamp *t = (const Google__Protobuf__Timestamp *)m;
                n = rfc3339_format(z, t->seconds, t->nanos);
        } else {
                const Google__Protobuf__Duration *d = (const Google__Protobuf__Duration *)m;
                n = pbduration_format(z, d->seconds, d->nanos);
        }
        if (n == 0)
                return -EINVAL;
        json_string(&w->json, str_n(z, n));
        return 0;
}

static int write_value(struct writer *w, const Google__Protobuf__Value *v)
{
        switch (v->kind_case) {
        case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
                json_null(&w->json);
                return 0;
        case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
                if (!isfinite(v->number_value))
                        return -EINVAL;
                json_double(&w->json, v->number_value);
                return 0;
        case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
                json_string(&w->json, str_of(v->string_value));
                return 0;
        case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
                json_bool(&w->json, v->bool_value);
                return 0;
        case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
                return open_repeated(w, &v->struct_value->base, &google__protobuf__struct__descriptor.fields[0], true);
        case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
                return open_repeated(w, &v->list_value->base, &google__protobuf__list_value__descriptor.fields[0], false);
        case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
        case _GOOGLE__PROTOBUF__VALUE__KIND__CASE_IS_INT_SIZE:
                break;
        }
        return -EINVAL;
}

static int write_any(struct writer *w, const Google__Protobuf__Any *any)
{
        static const Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
        struct str type = str_of(any->type_url);
        if (type.n == 0 && any->value.len == 0)
                return open_message(w, &empty.base);
        const ProtobufCMessageDescriptor *d = pbjson_type_find(type);
        if (!d || ++w->anys > PBJSON_MAX_ANY)
                return -EINVAL;
        ProtobufCMessage *m = pb_unpack_borrow(&w->arena, d, pb_str(any->value));
        if (!m)
                return w->arena.exhausted ? -ENOMEM : -EINVAL;
        struct frame *t = push(w, pbjson_well_known(d) == WK_NONE ? OF_MESSAGE : OF_ANY_VALUE, m);
        if (!t)
                return -ENOMEM;
        t->any = true;
        t->n = t->kind == OF_MESSAGE ? d->n_fields : 1;
        json_kv(&w->json, "@type", type);
        return 0;
}

/* Writes m, or opens its frame. */
static int begin(struct writer *w, const ProtobufCMessage *m)
{
        const ProtobufCMessageDescriptor *d = m->descriptor;
        switch (pbjson_well_known(d)) {
        case WK_TIMESTAMP:
        case WK_DURATION:
                return write_time(w, m);
        case WK_WRAPPER:
                return write_scalar(w, &d->fields[0], (const char *)m + d->fields[0].offset);
        case WK_STRUCT:
                return open_repeated(w, m, &d->fields[0], true);
        case WK_LIST:
                return open_repeated(w, m, &d->fields[0], false);
        case WK_VALUE:
                return write_value(w, (const Google__Protobuf__Value *)m);
        case WK_ANY:
                return write_any(w, (const Google__Protobuf__Any *)m);
        case WK_EMPTY:
        case WK_NONE:
                break;
        }
        return open_message(w, m);
}

static int write_element(struct writer *w, const ProtobufCFieldDescriptor *f, const void *at)
{
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
                return write_scalar(w, f, at);
        const ProtobufCMessage *m = *(const ProtobufCMessage *const *)at;
        return m ? begin(w, m) : -EINVAL;
}

/* ---- members ---- */

enum presence { ABSENT, ZERO, PRESENT };

static enum presence presence(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        const char *at = (const char *)m + f->offset;
        static const char zero[8];
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
                return *(const size_t *)((const char *)m + f->quantifier_offset) ? PRESENT : ZERO;
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
                return *(const uint32_t *)((const char *)m + f->quantifier_offset) == f->id ? PRESENT : ABSENT;
        if (f->type == PROTOBUF_C_TYPE_MESSAGE)
                return *(const void *const *)at ? PRESENT : ZERO;
        if (f->type == PROTOBUF_C_TYPE_BYTES)
                return ((const ProtobufCBinaryData *)at)->len ? PRESENT : ZERO;
        if (f->type == PROTOBUF_C_TYPE_STRING) {
                const char *z = *(const char *const *)at;
                return z && *z ? PRESENT : ZERO;
        }
        return memcmp(at, zero, pb_types[f->type].size) ? PRESENT : ZERO;
}

static int write_member(struct writer *w, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        char room[PBJSON_NAME_BYTES];
        enum presence p = presence(m, f);
        if (p == ABSENT || (p == ZERO && !(w->flags & PBJSON_EMIT_ZERO)))
                return 0;
        json_key(&w->json, w->flags & PBJSON_ORIG_NAMES ? str_of(f->name) : pbjson_name(m->descriptor, f, room));
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
                return open_repeated(w, m, f, pbjson_is_map(m->descriptor, f));
        if (p == ZERO && f->type == PROTOBUF_C_TYPE_MESSAGE) {
                json_null(&w->json);
                return 0;
        }
        return write_element(w, f, (const char *)m + f->offset);
}

static void write_map_key(struct writer *w, const ProtobufCFieldDescriptor *f, const void *at)
{
        char z[24];
        struct json_writer number;
        struct buf text = {.p = z, .cap = sizeof z};
        json_write_init(&number, &text);
        switch ((enum pb_kind)pb_types[f->type].kind) {
        case PB_STRING:
        case PB_BYTES: /* the rest is not allowed as a key */
        case PB_MESSAGE:
        case PB_FLOAT:
        case PB_DOUBLE:
                json_key(&w->json, str_of(*(const char *const *)at));
                return;
        case PB_INT32:
        case PB_ENUM:
                json_int(&number, *(const int32_t *)at);
                break;
        case PB_UINT32:
                json_uint(&number, *(const uint32_t *)at);
                break;
        case PB_INT64:
                json_int(&number, *(const int64_t *)at);
                break;
        case PB_UINT64:
                json_uint(&number, *(const uint64_t *)at);
                break;
        case PB_BOOL:
                json_bool(&number, *(const protobuf_c_boolean *)at);
                break;
        }
        json_key(&w->json, buf_str(&text));
}

static int write_entry(struct writer *w, const ProtobufCMessage *entry)
{
        const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0], *value = key + 1;
        const void *at = (const char *)entry + value->offset;
        write_map_key(w, key, (const char *)entry + key->offset);
        if (value->type == PROTOBUF_C_TYPE_MESSAGE && !*(const void *const *)at) { /* left out on the wire: the empty message */
                ProtobufCMessage *empty = pb_new(&w->arena, value->descriptor);
                return empty ? begin(w, empty) : -ENOMEM;
        }
        return write_element(w, value, at);
}

/* One member or element of the innermost frame, or its end. */
static int step(struct writer *w)
{
        struct frame *t = w->top;
        size_t i = t->next++;
        if (i >= t->n) {
                w->anys -= t->any;
                w->top = t->outer;
                if (t->kind == OF_LIST)
                        json_array_end(&w->json);
                else
                        json_object_end(&w->json);
                return w->json.out->failed ? -ENOMEM : 0;
        }
        switch (t->kind) {
        case OF_MESSAGE:
                return write_member(w, t->m, &t->m->descriptor->fields[i]);
        case OF_LIST:
                return write_element(w, t->f, t->elements + i * pb_types[t->f->type].size);
        case OF_MAP: {
                const ProtobufCMessage *const *const *places = (const ProtobufCMessage *const *const *)t->elements;
                if (i + 1 < t->n && pbjson_compare_entries(*places[i], *places[i + 1]) == 0)
                        return 0; /* the key comes again: the last one counts */
                return write_entry(w, *places[i]);
        }
        case OF_ANY_VALUE:
                json_key(&w->json, STR("value"));
                return begin(w, t->m);
        }
        return -EINVAL;
}

int pbjson_write(struct buf *out, const ProtobufCMessage *m, int flags)
{
        struct writer w = {.flags = flags};
        size_t before = buf_len(out);
        json_write_init(&w.json, out);
        int r = begin(&w, m);
        while (r == 0 && w.top)
                r = step(&w);
        if (r == 0 && out->failed)
                r = -ENOMEM;
        if (r) /* nothing half-written stays behind */
                out->len = out->off + before;
        arena_fini(&w.arena);
        return r;
}
