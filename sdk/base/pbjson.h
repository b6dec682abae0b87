/*
 * proto3 JSON mapping driven by protobuf-c descriptors (https://protobuf.dev/programming-guides/json/): well-known types Any,
 * Struct, Value, ListValue, Timestamp, Duration, wrappers, Empty; maps (repeated XEntry); oneofs; enums by name or number;
 * 64-bit integers as strings; bytes as base64; NaN and Infinity. Names: lowerCamelCase of the field, original accepted on input.
 */
#ifndef SDK_BASE_PBJSON_H
#define SDK_BASE_PBJSON_H

#include "sdk/base/json.h"
#include "sdk/base/pb.h"

enum pbjson_flags {
        PBJSON_EMIT_ZERO = 1,     /* write fields that hold their zero value (EmitUnpopulated) */
        PBJSON_ENUM_NUMBERS = 2,  /* enums as numbers */
        PBJSON_ORIG_NAMES = 4,    /* field names as in the .proto file */
        PBJSON_REFUSE_UNKNOWN = 8 /* reading: unknown members are an error (default: ignored) */
};

/*
 * As Go's protojson does: null leaves a field unset, a field or map key that is there twice is an error, unknown enum names are
 * ignored together with unknown members, an absent message field is null under PBJSON_EMIT_ZERO and an absent oneof or optional
 * field is left out. Reading nests no deeper than pb_unpack allows (a Value takes three levels for each object).
 * Any: well-known types always; others when the program uses pb_message_find (proto/registry.h), which links all of them.
 * Neither function recurses; both take about 1 KiB of stack.
 */

/* Reads JSON text into a new message in the arena. NULL on error; *ret_error then says where and why (in the arena). */
void *pbjson_read(struct arena *a, const ProtobufCMessageDescriptor *d, struct str text, int flags, const char **ret_error);
/* Writes compact JSON. 0, -ENOMEM, or -EINVAL (an Any of unknown type, an invalid timestamp,
 * duration or Value); out is then as it was. */
int pbjson_write(struct buf *out, const ProtobufCMessage *m, int flags);

#endif
