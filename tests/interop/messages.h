/*
 * The messages of grpc.testing.TestService, encoded and decoded by hand (facts: grpc/src/proto/grpc/testing/messages.proto).
 * A reader walks fields; a writer appends them to a buf.
 */
#ifndef TESTS_INTEROP_MESSAGES_H
#define TESTS_INTEROP_MESSAGES_H

#include "sdk/base/buf.h"
#include "sdk/net/rpc.h"

#define SERVICE "/grpc.testing.TestService/"
#define ECHO_HEADER "x-grpc-test-echo-initial"
#define ECHO_TRAILER "x-grpc-test-echo-trailing-bin"

/* Field numbers. */
enum { PAYLOAD_BODY = 2, STATUS_CODE = 1, STATUS_MESSAGE = 2, BOOL_VALUE = 1 };
enum { SIMPLE_SIZE = 2, SIMPLE_PAYLOAD = 3, SIMPLE_COMPRESSED = 6, SIMPLE_STATUS = 7, SIMPLE_EXPECT = 8 };
enum { REPLY_PAYLOAD = 1 };
enum { INPUT_PAYLOAD = 1, INPUT_EXPECT = 2, INPUT_TOTAL = 1 };
enum { OUTPUT_PARAMS = 2, OUTPUT_PAYLOAD = 3, OUTPUT_STATUS = 7 };
enum { PARAM_SIZE = 1, PARAM_INTERVAL_US = 2, PARAM_COMPRESSED = 3 };

struct field {
        uint32_t number;
        uint64_t value;
        struct str bytes;
};

static inline bool take_varint(struct str *s, uint64_t *ret)
{
        *ret = 0;
        for (int shift = 0; shift < 64 && s->n; shift += 7) {
                uint8_t b = (uint8_t)s->p[0];
                *s = str_skip(*s, 1);
                *ret |= (uint64_t)(b & 127) << shift;
                if (!(b & 128))
                        return true;
        }
        return false;
}

/* False at the end and on anything unexpected. */
static inline bool next_field(struct str *s, struct field *f)
{
        uint64_t tag, n;
        if (!s->n || !take_varint(s, &tag))
                return false;
        f->number = (uint32_t)(tag >> 3);
        f->bytes = STR_NULL;
        if ((tag & 7) == 0)
                return take_varint(s, &f->value);
        if ((tag & 7) != 2 || !take_varint(s, &n) || n > s->n)
                return false;
        f->bytes = (struct str){s->p, (size_t)n};
        *s = str_skip(*s, (size_t)n);
        return true;
}

static inline struct field find_field(struct str s, uint32_t number)
{
        for (struct field f; next_field(&s, &f);) {
                if (f.number == number)
                        return f;
        }
        return (struct field){0};
}

static inline void put_varint(struct buf *b, uint64_t v)
{
        for (; v > 127; v >>= 7)
                buf_addc(b, (char)(v | 128));
        buf_addc(b, (char)v);
}

static inline void put_int(struct buf *b, uint32_t number, uint64_t v)
{
        put_varint(b, number << 3);
        put_varint(b, v);
}

static inline void put_bytes(struct buf *b, uint32_t number, struct str s)
{
        put_varint(b, number << 3 | 2);
        put_varint(b, s.n);
        buf_adds(b, s);
}

/* A Payload of n zero bytes as field `number`. */
static inline void put_payload(struct buf *b, uint32_t number, size_t n)
{
        struct buf body = {0};
        put_varint(&body, PAYLOAD_BODY << 3 | 2);
        put_varint(&body, n);
        buf_reserve(&body, n);
        memset(body.p + body.len, 0, n);
        body.len += n;
        put_bytes(b, number, buf_str(&body));
        buf_fini(&body);
}

/* Bytes in the Payload that is field `number` of message s. */
static inline size_t payload_size(struct str s, uint32_t number)
{
        return find_field(find_field(s, number).bytes, PAYLOAD_BODY).bytes.n;
}

#endif
