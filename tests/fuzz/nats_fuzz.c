/*
 * NATS operations, headers and subjects: whatever comes is refused or read inside its bounds; an operation takes at least one byte and no
 * more than there are, and less input never reads as more than more input does.
 */
#include <errno.h>
#include <stdlib.h>

#include "plugins/shared/nats/protocol.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool inside(struct str part, struct str whole)
{
        return !part.n || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static void headers(struct str h)
{
        struct str words = STR(""), v = nats_header(h, STR("Nats-Msg-Id"));
        int status = nats_status(h, &words);
        must_hold(status >= 0 && status <= 999 && inside(words, h) && inside(v, h));
}

static void operations(struct str in)
{
        struct nats_op op, again;
        size_t used, used_again;
        while (in.n && nats_op_get(in, &op, &used) == 1) {
                must_hold(used > 0 && used <= in.n);
                must_hold(inside(op.text, in) && inside(op.subject, in) && inside(op.reply, in) && inside(op.headers, in) && inside(op.payload, in));
                must_hold(nats_op_get(str_n(in.p, used), &again, &used_again) == 1 && used_again == used);
                must_hold(nats_op_get(str_n(in.p, used - 1), &again, &used_again) <= 0);
                headers(op.headers);
                in = str_skip(in, used);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct str s = {(const char *)data, n};
        struct nats_delivery d;
        struct buf b = {0};
        struct nats_op op;
        size_t used;
        operations(s);
        headers(s);
        must_hold(nats_delivery_get(s, &d) || (inside(d.stream, s) && inside(d.consumer, s)));
        if (!nats_subject_fault(s, true)) { /* a good subject can be sent and comes back as it was */
                must_hold(buf_printf(&b, "MSG %.*s 1 2\r\nok\r\n", STR_FMT(s)) == 0);
                must_hold(nats_op_get(buf_str(&b), &op, &used) == 1 && str_eq(op.subject, s) && used == buf_len(&b));
        }
        buf_fini(&b);
        return 0;
}
