/*
 * protobuf-c with an arena and with the depth check that it lacks: untrusted messages are scanned against their descriptor
 * before they are unpacked, because protobuf-c recurses without limit and does not check UTF-8.
 */
#ifndef SDK_BASE_PB_H
#define SDK_BASE_PB_H

#include <protobuf-c/protobuf-c.h>

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

enum { PB_MAX_DEPTH = 100 }; /* as gRPC implementations limit nesting */

/* Unpacks into the arena; NULL when malformed, deeper than PB_MAX_DEPTH, not UTF-8 in a string field, or over the arena's cap.
 * The message needs no free. */
void *pb_unpack(struct arena *a, const ProtobufCMessageDescriptor *d, struct str bytes);
/* Packs into the arena; p is NULL when it does not fit. */
struct str pb_pack(struct arena *a, const ProtobufCMessage *m);
/* Appends to a buf; 0 or -ENOMEM. */
int pb_pack_buf(struct buf *b, const ProtobufCMessage *m);

static inline ProtobufCBinaryData pb_bytes(struct str s)
{
        return (ProtobufCBinaryData){s.n, (uint8_t *)s.p};
}
static inline struct str pb_str(ProtobufCBinaryData b)
{
        return (struct str){(const char *)b.data, b.len};
}

#endif
