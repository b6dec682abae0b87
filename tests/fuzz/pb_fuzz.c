/*
 * Protobuf bytes (the first one chooses the message). What pb_unpack accepts packs to something that it accepts again and that
 * packs to itself; its JSON, if it has one, is valid.
 */
#include <errno.h>
#include <stdlib.h>

#include "durabletask/orchestrator_service.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/registry.h"
#include "sdk/base/pbjson.h"
#include "test/v1/kinds.pb-c.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const ProtobufCMessageDescriptor *choose(uint8_t c)
{
        if (c < 128)
                return &microdapr__test__v1__kinds__descriptor;
        if (c < 160)
                return &google__protobuf__value__descriptor;
        return c < 192 ? &durabletask__history_event__descriptor : pb_messages[c % pb_messages_n];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a;
        struct buf json = {0};
        if (n == 0)
                return 0;
        const ProtobufCMessageDescriptor *d = choose(data[0]);
        arena_init(&a, 16 << 20);
        ProtobufCMessage *m = pb_unpack(&a, d, str_n(data + 1, n - 1));
        if (m) {
                struct str once = pb_pack(&a, m), twice;
                must_hold(once.p);
                must_hold((m = pb_unpack_borrow(&a, d, once)));
                twice = pb_pack(&a, m);
                must_hold(str_eq(once, twice));
                int r = pbjson_write(&json, m, data[0] & 7);
                must_hold(r == -EINVAL || (r == 0 && json_valid(buf_str(&json))));
        }
        buf_fini(&json);
        arena_fini(&a);
        return 0;
}
