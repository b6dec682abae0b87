/*
 * The protobuf wire format by hand, for messages of the hot paths only (a state store's Get, Set, Delete and what holds them):
 * straight from the bytes into structs and back, without a tree of messages in between. All other messages go through
 * protobuf-c. Source: https://protobuf.dev/programming-guides/encoding/.
 */
#ifndef SDK_BASE_WIRE_H
#define SDK_BASE_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "sdk/base/str.h"

struct wire {
        const uint8_t *p, *end;
        bool bad; /* malformed: reading has stopped */
};
enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_GROUP_END = 4, WIRE_32 = 5 };
struct wire_field {
        uint32_t number;
        unsigned type;    /* enum wire_type */
        uint64_t u;       /* varint and fixed fields */
        struct str bytes; /* length-delimited fields; p == NULL otherwise */
};

static inline struct wire wire_of(struct str s)
{
        const uint8_t *p = (const uint8_t *)s.p;
        return (struct wire){p, p ? p + s.n : p, false};
}
static inline bool wire_varint(struct wire *w, uint64_t *ret)
{
        uint64_t v = 0;
        for (int shift = 0; shift < 64 && w->p < w->end; shift += 7) {
                uint8_t b = *w->p++;
                v |= (uint64_t)(b & 0x7f) << shift;
                if (b < 0x80) {
                        *ret = v;
                        return true;
                }
        }
        w->bad = true;
        return false;
}
/* Next field; false at the end and when malformed (then w->bad). */
bool wire_next(struct wire *w, struct wire_field *f);

/* Writing: the caller has computed the size and owns enough room. */
static inline size_t wire_varint_size(uint64_t v)
{
        size_t n = 1;
        while (v >= 0x80)
                v >>= 7, n++;
        return n;
}
static inline uint8_t *wire_put_varint(uint8_t *p, uint64_t v)
{
        while (v >= 0x80)
                *p++ = (uint8_t)v | 0x80, v >>= 7;
        *p++ = (uint8_t)v;
        return p;
}
/* Size of a length-delimited field with a one-byte tag (numbers 1..15). */
static inline size_t wire_bytes_size(size_t n)
{
        return 1 + wire_varint_size(n) + n;
}
static inline uint8_t *wire_put_head(uint8_t *p, uint32_t number, size_t n)
{
        *p++ = (uint8_t)(number << 3 | 2);
        return wire_put_varint(p, n);
}
static inline uint8_t *wire_put_bytes(uint8_t *p, uint32_t number, const void *bytes, size_t n)
{
        p = wire_put_head(p, number, n);
        if (n)
                memcpy(p, bytes, n);
        return p + n;
}

#endif
