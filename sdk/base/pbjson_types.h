/* What pbjson's reader and writer share: which messages have a JSON form of their own, which fields are maps, names. */
#ifndef SDK_BASE_PBJSON_TYPES_H
#define SDK_BASE_PBJSON_TYPES_H

#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"
#include "sdk/base/pb.h"

enum well_known {
        WK_NONE,
        WK_ANY,
        WK_DURATION,
        WK_EMPTY,
        WK_LIST,
        WK_STRUCT,
        WK_TIMESTAMP,
        WK_VALUE,
        WK_WRAPPER
};

enum { PBJSON_MAX_ANY = 8 }; /* an Any in an Any in an ... */

enum well_known pbjson_well_known(const ProtobufCMessageDescriptor *d);
/* By the part of an Any's type URL behind the last slash. The types that the program knows: see pbjson.h. */
const ProtobufCMessageDescriptor *pbjson_type_find(struct str type_url);
/* Is this repeated field of d a map? Its messages then have the fields key and value. */
bool pbjson_is_map(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f);
/* Order of two map entries by key. */
int pbjson_compare_entries(const ProtobufCMessage *a, const ProtobufCMessage *b);
bool pbjson_is_null_value(const ProtobufCFieldDescriptor *f);
/* The JSON name of a field, from the override table or into `room`. */
enum { PBJSON_NAME_BYTES = 128 };
struct str pbjson_name(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f, char room[PBJSON_NAME_BYTES]);
/* The field with that JSON or original name, or NULL. */
const ProtobufCFieldDescriptor *pbjson_field(const ProtobufCMessageDescriptor *d, struct str name);

#endif
