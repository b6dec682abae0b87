/*
 * Decoder and encoder for protobuf-c's messages. protobuf_c_message_unpack is not used: it recurses without limit at 900 bytes
 * of stack a level, does not check UTF-8 and cuts strings at NUL. This decoder keeps its levels in a fixed array.
 *
 * Fields are found by number in the descriptor. Unknown fields (and known ones of a wrong wire type) are kept, as protobuf-c does,
 * so that a message that passes through loses nothing; of groups too. Repeated fields grow by doubling: room for n elements is
 * always array_room(n), so no capacity is stored. A sub-message that occurs twice is merged, as the format asks.
 */
#include "sdk/base/pb.h"

#include <errno.h>

#include "sdk/base/utf8.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_GROUP_END = 4, WIRE_32 = 5 };

const struct pb_type pb_types[] = {
        [PROTOBUF_C_TYPE_INT32] = {PB_INT32, WIRE_VARINT, 4},
        [PROTOBUF_C_TYPE_SINT32] = {PB_INT32, WIRE_VARINT, 4},
        [PROTOBUF_C_TYPE_SFIXED32] = {PB_INT32, WIRE_32, 4},
        [PROTOBUF_C_TYPE_INT64] = {PB_INT64, WIRE_VARINT, 8},
        [PROTOBUF_C_TYPE_SINT64] = {PB_INT64, WIRE_VARINT, 8},
        [PROTOBUF_C_TYPE_SFIXED64] = {PB_INT64, WIRE_64, 8},
        [PROTOBUF_C_TYPE_UINT32] = {PB_UINT32, WIRE_VARINT, 4},
        [PROTOBUF_C_TYPE_FIXED32] = {PB_UINT32, WIRE_32, 4},
        [PROTOBUF_C_TYPE_UINT64] = {PB_UINT64, WIRE_VARINT, 8},
        [PROTOBUF_C_TYPE_FIXED64] = {PB_UINT64, WIRE_64, 8},
        [PROTOBUF_C_TYPE_FLOAT] = {PB_FLOAT, WIRE_32, 4},
        [PROTOBUF_C_TYPE_DOUBLE] = {PB_DOUBLE, WIRE_64, 8},
        [PROTOBUF_C_TYPE_BOOL] = {PB_BOOL, WIRE_VARINT, sizeof(protobuf_c_boolean)},
        [PROTOBUF_C_TYPE_ENUM] = {PB_ENUM, WIRE_VARINT, 4},
        [PROTOBUF_C_TYPE_STRING] = {PB_STRING, WIRE_BYTES, sizeof(char *)},
        [PROTOBUF_C_TYPE_BYTES] = {PB_BYTES, WIRE_BYTES, sizeof(ProtobufCBinaryData)},
        [PROTOBUF_C_TYPE_MESSAGE] = {PB_MESSAGE, WIRE_BYTES, sizeof(ProtobufCMessage *)},
};

struct level {
        ProtobufCMessage *m;
        const uint8_t *end;
};

struct decoder {
        struct arena *a;
        const uint8_t *p, *end; /* of the innermost message */
        bool borrow;
        int depth;
};

struct value {
        uint64_t bits;        /* varint, 32 or 64 bits */
        const uint8_t *bytes; /* WIRE_BYTES, or the inside of a group with its end tag */
        size_t n;
};

/* ---- tokens ---- */

static bool read_varint_slow(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
        uint64_t v = 0;
        for (int shift = 0; shift < 70 && *p < end; shift += 7) {
                uint8_t c = *(*p)++;
                v |= (uint64_t)(c & 127) << (shift & 63);
                if (c < 128) {
                        *out = v;
                        return shift < 63 || c <= 1;
                }
        }
        return false;
}

static inline bool read_varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
        if (*p < end && **p < 128) {
                *out = *(*p)++;
                return true;
        }
        return read_varint_slow(p, end, out);
}

static bool read_tag(struct decoder *d, uint32_t *number, enum wire *wire)
{
        uint64_t key;
        if (!read_varint(&d->p, d->end, &key) || key > UINT32_MAX || key < 8 || (key & 7) > WIRE_32)
                return false;
        *number = (uint32_t)(key >> 3);
        *wire = (enum wire)(key & 7);
        return true;
}

static bool read_fixed(struct decoder *d, size_t n, uint64_t *out)
{
        if ((size_t)(d->end - d->p) < n)
                return false;
        *out = 0;
        for (size_t i = 0; i < n; i++)
                *out |= (uint64_t)d->p[i] << (8 * i);
        d->p += n;
        return true;
}

static bool read_plain(struct decoder *d, enum wire wire, struct value *v)
{
        switch (wire) {
        case WIRE_VARINT:
                return read_varint(&d->p, d->end, &v->bits);
        case WIRE_64:
                return read_fixed(d, 8, &v->bits);
        case WIRE_32:
                return read_fixed(d, 4, &v->bits);
        case WIRE_BYTES:
                if (!read_varint(&d->p, d->end, &v->bits) || v->bits > (uint64_t)(d->end - d->p))
                        return false;
                v->bytes = d->p;
                v->n = (size_t)v->bits;
                d->p += v->n;
                return true;
        case WIRE_GROUP:
        case WIRE_GROUP_END:
                break;
        }
        return false;
}

/* A group has no length: it is walked to its end tag. Groups nest; their numbers are kept so that each end fits its start. */
static bool read_group(struct decoder *d, uint32_t number, struct value *v)
{
        uint32_t open[PB_MAX_DEPTH];
        int n = 0;
        v->bytes = d->p;
        open[n++] = number;
        while (n > 0) {
                struct value skipped;
                enum wire wire;
                if (!read_tag(d, &number, &wire))
                        return false;
                if (wire == WIRE_GROUP) {
                        if (d->depth + n >= PB_MAX_DEPTH)
                                return false;
                        open[n++] = number;
                } else if (wire == WIRE_GROUP_END) {
                        if (open[--n] != number)
                                return false;
                } else if (!read_plain(d, wire, &skipped)) {
                        return false;
                }
        }
        v->n = (size_t)(d->p - v->bytes);
        return true;
}

/* ---- storage ---- */

static size_t array_room(size_t n)
{
        size_t room = 4;
        if (n == 0)
                return 0;
        while (room < n)
                room *= 2;
        return room;
}

/* Room for `more` elements behind the n that are there. */
static bool array_reserve(struct arena *a, void **array, size_t n, size_t more, size_t element)
{
        size_t room = array_room(n), want = array_room(n + more);
        if (want <= room)
                return true;
        if (want > SIZE_MAX / 2 / element)
                return false;
        void *p = arena_grow(a, *array, room * element, want * element);
        if (!p)
                return false;
        *array = p;
        return true;
}

static void store_number(void *at, ProtobufCType t, uint64_t bits)
{
        if (t == PROTOBUF_C_TYPE_SINT32 || t == PROTOBUF_C_TYPE_SINT64)
                bits = bits >> 1 ^ (0 - (bits & 1));
        else if (t == PROTOBUF_C_TYPE_BOOL)
                bits = bits != 0;
        if (pb_types[t].size == 4) {
                uint32_t low = (uint32_t)bits;
                memcpy(at, &low, sizeof low);
        } else {
                memcpy(at, &bits, sizeof bits);
        }
}

static bool store_bytes(struct decoder *d, void *at, ProtobufCType t, const struct value *v)
{
        struct str s = str_n(v->bytes, v->n);
        if (t == PROTOBUF_C_TYPE_STRING) {
                /* A C string cannot hold NUL; cut short, a key could pass for another. */
                if (!utf8_is_valid(s) || (s.n && memchr(s.p, 0, s.n)))
                        return false;
                const char *z = s.n ? arena_strdup(d->a, s) : ""; /* not protobuf_c_empty_string: see pb.h */
                memcpy(at, &z, sizeof z);
                return z;
        }
        ProtobufCBinaryData b = {s.n, NULL};
        if (s.n) {
                b.data = d->borrow ? (uint8_t *)v->bytes : arena_alloc(d->a, s.n);
                if (!b.data)
                        return false;
                if (!d->borrow)
                        memcpy(b.data, v->bytes, s.n);
        }
        memcpy(at, &b, sizeof b);
        return true;
}

static void *quantifier(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        return (char *)m + f->quantifier_offset;
}

void *pb_set(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        void *at = (char *)m + f->offset;
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
                uint32_t *which = quantifier(m, f);
                if (*which != f->id)
                        memset(at, 0, pb_types[f->type].size);
                *which = f->id;
        } else if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->quantifier_offset) {
                *(protobuf_c_boolean *)quantifier(m, f) = 1;
        }
        return at;
}

/* `more` new elements of a repeated field, not yet written. */
static void *append(struct arena *a, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, size_t more)
{
        size_t *count = quantifier(m, f), n = *count, size = pb_types[f->type].size;
        void **array = (void **)((char *)m + f->offset);
        if (!array_reserve(a, array, n, more, size))
                return NULL;
        *count += more;
        return (char *)*array + n * size;
}

void *pb_append(struct arena *a, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        void *at = append(a, m, f, 1);
        return at ? memset(at, 0, pb_types[f->type].size) : NULL;
}

void *pb_new(struct arena *a, const ProtobufCMessageDescriptor *d)
{
        ProtobufCMessage *m = arena_alloc(a, d->sizeof_message);
        if (m)
                protobuf_c_message_init(d, m);
        return m;
}

/* ---- fields ---- */

static bool keep_unknown(struct decoder *d, ProtobufCMessage *m, uint32_t number, enum wire wire, const uint8_t *start)
{
        size_t n = (size_t)(d->p - start);
        void *fields = m->unknown_fields;
        if (!array_reserve(d->a, &fields, m->n_unknown_fields, 1, sizeof *m->unknown_fields))
                return false;
        uint8_t *copy = arena_alloc(d->a, n);
        m->unknown_fields = fields;
        if (!copy)
                return false;
        memcpy(copy, start, n);
        m->unknown_fields[m->n_unknown_fields++] =
                (ProtobufCMessageUnknownField){number, (ProtobufCWireType)wire, n, copy};
        return true;
}

static bool read_packed(struct decoder *d, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct value *v)
{
        enum wire wire = pb_types[f->type].wire;
        size_t more = 0, size = pb_types[f->type].size;
        if (wire == WIRE_VARINT) {
                for (size_t i = 0; i < v->n; i++)
                        more += v->bytes[i] < 128;
        } else {
                more = v->n / (wire == WIRE_32 ? 4 : 8);
        }
        if (more == 0)
                return v->n == 0;
        char *at = append(d->a, m, f, more);
        if (!at)
                return false;
        struct decoder inner = {.p = v->bytes, .end = v->bytes + v->n};
        for (; inner.p < inner.end; at += size) {
                struct value element;
                if (!read_plain(&inner, wire, &element))
                        return false;
                store_number(at, f->type, element.bits);
        }
        return true;
}

/* Starts the sub-message whose bytes v are: the loop in decode() goes on inside it. */
static bool enter(struct decoder *d, struct level *levels, const ProtobufCFieldDescriptor *f, const struct value *v)
{
        ProtobufCMessage *m = levels[d->depth].m;
        if (d->depth + 1 >= PB_MAX_DEPTH)
                return false;
        ProtobufCMessage **at = f->label == PROTOBUF_C_LABEL_REPEATED ? pb_append(d->a, m, f) : pb_set(m, f);
        if (!at || (!*at && !(*at = pb_new(d->a, f->descriptor))))
                return false;
        d->depth++;
        d->p = v->bytes;
        d->end = v->bytes + v->n;
        levels[d->depth] = (struct level){*at, d->end};
        return true;
}

static bool store(struct decoder *d, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct value *v)
{
        void *at = f->label == PROTOBUF_C_LABEL_REPEATED ? append(d->a, m, f, 1) : pb_set(m, f);
        if (!at)
                return false;
        if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_BYTES)
                return store_bytes(d, at, f->type, v);
        store_number(at, f->type, v->bits);
        return true;
}

const ProtobufCFieldDescriptor *pb_field(const ProtobufCMessageDescriptor *d, uint32_t number)
{
        unsigned lo = 0, hi = d->n_field_ranges;
        while (lo < hi) { /* the last range that starts at or before number */
                unsigned mid = lo + (hi - lo) / 2;
                if ((uint32_t)d->field_ranges[mid].start_value <= number)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        if (lo == 0)
                return NULL;
        const ProtobufCIntRange *range = &d->field_ranges[lo - 1];
        unsigned index = range->orig_index + (number - (uint32_t)range->start_value);
        return index < range[1].orig_index ? &d->fields[index] : NULL;
}

static bool read_field(struct decoder *d, struct level *levels)
{
        ProtobufCMessage *m = levels[d->depth].m;
        uint32_t number;
        enum wire wire;
        struct value v;
        if (!read_tag(d, &number, &wire))
                return false;
        const uint8_t *start = d->p;
        if (!(wire == WIRE_GROUP ? read_group(d, number, &v) : read_plain(d, wire, &v)))
                return false;
        const ProtobufCFieldDescriptor *f = pb_field(m->descriptor, number);
        if (f && wire == pb_types[f->type].wire)
                return f->type == PROTOBUF_C_TYPE_MESSAGE ? enter(d, levels, f, &v) : store(d, m, f, &v);
        if (f && wire == WIRE_BYTES && f->label == PROTOBUF_C_LABEL_REPEATED)
                return read_packed(d, m, f, &v);
        return keep_unknown(d, m, number, wire, start);
}

static void *decode(struct arena *a, const ProtobufCMessageDescriptor *desc, struct str bytes, bool borrow)
{
        struct level levels[PB_MAX_DEPTH];
        struct decoder d = {.a = a, .p = (const uint8_t *)(bytes.n ? bytes.p : ""), .borrow = borrow};
        d.end = d.p + bytes.n;
        levels[0] = (struct level){pb_new(a, desc), d.end};
        if (!levels[0].m)
                return NULL;
        for (;;) {
                while (d.p < d.end)
                        if (!read_field(&d, levels))
                                return NULL;
                if (d.depth == 0)
                        return levels[0].m;
                d.end = levels[--d.depth].end; /* p stands behind the sub-message already */
        }
}

/* ---- public ---- */

void *pb_unpack(struct arena *a, const ProtobufCMessageDescriptor *d, struct str bytes)
{
        return decode(a, d, bytes, false);
}

void *pb_unpack_borrow(struct arena *a, const ProtobufCMessageDescriptor *d, struct str bytes)
{
        return decode(a, d, bytes, true);
}

struct str pb_pack(struct arena *a, const ProtobufCMessage *m)
{
        size_t n = protobuf_c_message_get_packed_size(m);
        uint8_t *p = arena_alloc(a, n);
        if (!p)
                return STR_NULL;
        return str_n(p, protobuf_c_message_pack(m, p));
}

size_t pb_size(const ProtobufCMessage *m)
{
        return protobuf_c_message_get_packed_size(m);
}

int pb_pack_buf(struct buf *b, const ProtobufCMessage *m)
{
        size_t n = protobuf_c_message_get_packed_size(m);
        if (buf_reserve(b, n))
                return -ENOMEM;
        b->len += protobuf_c_message_pack(m, (uint8_t *)b->p + b->len);
        return 0;
}
