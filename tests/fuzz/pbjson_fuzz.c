/*
 * Proto-JSON (the first byte chooses the message and flags). What is read packs, unpacks, and writes to JSON that is read again and
 * written to the same text.
 */
#include <stdlib.h>

#include "dapr/proto/runtime/v1/metadata.pb-c.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/registry.h"
#include "sdk/base/pbjson.h"
#include "test/v1/kinds.pb-c.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const ProtobufCMessageDescriptor *choose(uint8_t c)
{
        switch (c) {
        case 'v':
                return &google__protobuf__value__descriptor;
        case 'a':
                return &google__protobuf__any__descriptor;
        case 'm':
                return &dapr__proto__runtime__v1__get_metadata_response__descriptor;
        default:
                return c < 160 ? &microdapr__test__v1__kinds__descriptor : pb_messages[c % pb_messages_n];
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a;
        struct buf once = {0}, twice = {0};
        const char *error = NULL;
        if (n == 0)
                return 0;
        const ProtobufCMessageDescriptor *d = choose(data[0]);
        arena_init(&a, 16 << 20);
        ProtobufCMessage *m = pbjson_read(&a, d, str_n(data + 1, n - 1), data[0] & PBJSON_REFUSE_UNKNOWN, &error);
        must_hold(!m == !!error);
        if (m) {
                struct str bytes = pb_pack(&a, m);
                must_hold(bytes.p && (m = pb_unpack(&a, d, bytes)));
                must_hold(pbjson_write(&once, m, data[0] & 6) == 0);
                must_hold(json_valid(buf_str(&once)));
                m = pbjson_read(&a, d, buf_str(&once), 0, &error);
                must_hold(m && pbjson_write(&twice, m, data[0] & 6) == 0);
                must_hold(str_eq(buf_str(&once), buf_str(&twice)));
        }
        buf_fini(&once);
        buf_fini(&twice);
        arena_fini(&a);
        return 0;
}
