/*
 * See msgpack_size.h. One pass without recursion: how many values are still to come is all that has to be known of arrays and maps.
 */
#include "sdk/base/msgpack_size.h"

#include <stdint.h>

size_t msgpack_value_bytes(struct str in)
{
        /* 0xc0 to 0xdf: bytes of a length, bytes that are skipped, values that follow for each of the length */
        static const struct { uint8_t length, skip, values; } heads[32] = {
                [0xc1 & 31] = {.skip = 255}, [0xc4 & 31] = {1}, [0xc5 & 31] = {2}, [0xc6 & 31] = {4}, [0xc7 & 31] = {1, 1}, [0xc8 & 31] = {2, 1},
                [0xc9 & 31] = {4, 1}, [0xca & 31] = {0, 4}, [0xcb & 31] = {0, 8}, [0xcc & 31] = {0, 1}, [0xcd & 31] = {0, 2}, [0xce & 31] = {0, 4},
                [0xcf & 31] = {0, 8}, [0xd0 & 31] = {0, 1}, [0xd1 & 31] = {0, 2}, [0xd2 & 31] = {0, 4}, [0xd3 & 31] = {0, 8}, [0xd4 & 31] = {0, 2},
                [0xd5 & 31] = {0, 3}, [0xd6 & 31] = {0, 5}, [0xd7 & 31] = {0, 9}, [0xd8 & 31] = {0, 17}, [0xd9 & 31] = {1}, [0xda & 31] = {2},
                [0xdb & 31] = {4}, [0xdc & 31] = {2, 0, 1}, [0xdd & 31] = {4, 0, 1}, [0xde & 31] = {2, 0, 2}, [0xdf & 31] = {4, 0, 2}};
        size_t at = 0, pending = 1;
        while (pending) {
                if (at >= in.n || pending > in.n - at)
                        return 0;
                uint8_t b = (uint8_t)in.p[at++];
                uint64_t n = 0;
                pending--;
                if (b < 0x80 || b >= 0xe0)
                        continue;
                if (b < 0xa0) {
                        pending += b < 0x90 ? 2u * (b & 15) : b & 15;
                } else if (b < 0xc0) {
                        at += b & 31;
                } else {
                        for (unsigned i = 0; i < heads[b & 31].length && at < in.n; i++)
                                n = n << 8 | (uint8_t)in.p[at++];
                        at += heads[b & 31].skip;
                        if (heads[b & 31].values)
                                pending += n * heads[b & 31].values;
                        else
                                at += n;
                }
        }
        return at <= in.n ? at : 0;
}
