/*
 * protobuf-c's messages with an arena and with the checks that it lacks: decoding is done here (depth, UTF-8, no recursion),
 * encoding by protobuf-c. Never call foo__unpack() on bytes from outside.
 * Two habits of protobuf-c's encoder: an empty string in a oneof or optional field is sent only when its pointer is not
 * protobuf_c_empty_string (use ""), and a field that holds -0.0 is left out.
 */
#ifndef SDK_BASE_PB_H
#define SDK_BASE_PB_H

#include <protobuf-c/protobuf-c.h>

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

enum { PB_MAX_DEPTH = 100 }; /* as gRPC implementations limit nesting */

/* What a field's value is in C, for code that works on descriptors. Indexed by ProtobufCType. */
enum pb_kind { PB_INT32, PB_INT64, PB_UINT32, PB_UINT64, PB_FLOAT, PB_DOUBLE, PB_BOOL, PB_ENUM, PB_STRING, PB_BYTES, PB_MESSAGE };
struct pb_type {
        uint8_t kind; /* enum pb_kind */
        uint8_t wire; /* type on the wire */
        uint8_t size; /* of one value in a message */
};
extern const struct pb_type pb_types[];

/* Unpacks into the arena; NULL when malformed, deeper than PB_MAX_DEPTH, with a string field that is not UTF-8 or holds NUL, or
 * over the arena's cap. The message needs no free. Strings are never NULL, but for members of a oneof that are not set. */
void *pb_unpack(struct arena *a, const ProtobufCMessageDescriptor *d, struct str bytes);
/* The same, but bytes fields point into `bytes`, which must live as long as the message: saves copying large values. */
void *pb_unpack_borrow(struct arena *a, const ProtobufCMessageDescriptor *d, struct str bytes);
/* The field of that number, or NULL. */
const ProtobufCFieldDescriptor *pb_field(const ProtobufCMessageDescriptor *d, uint32_t number);
/* A new message with all fields unset; NULL when the arena is full. */
void *pb_new(struct arena *a, const ProtobufCMessageDescriptor *d);
/* Where a singular field's value stands; notes that the field is set (oneof, optional). */
void *pb_set(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f);
/* A new zeroed element at the end of a repeated field that only pb_append and pb_unpack have filled; NULL when the arena is
 * full. */
void *pb_append(struct arena *a, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f);
/* Packs into the arena; p is NULL when it does not fit. */
struct str pb_pack(struct arena *a, const ProtobufCMessage *m);
/* Appends to a buf; 0 or -ENOMEM. */
int pb_pack_buf(struct buf *b, const ProtobufCMessage *m);
size_t pb_size(const ProtobufCMessage *m); /* of its bytes, which are not looked at */

static inline ProtobufCBinaryData pb_bytes(struct str s)
{
        return (ProtobufCBinaryData){s.n, (uint8_t *)s.p};
}
static inline struct str pb_str(ProtobufCBinaryData b)
{
        return (struct str){(const char *)b.data, b.len};
}

#endif
