/*
 * The NATS client protocol as bytes (https://docs.nats.io/reference/reference-protocols/nats-protocol): what a server sends is cut
 * into operations, what a client sends is appended to a buffer. No I/O.
 */
#ifndef PLUGINS_SHARED_NATS_PROTOCOL_H
#define PLUGINS_SHARED_NATS_PROTOCOL_H

#include "sdk/base/buf.h"

/* A server refuses messages over 64 MiB in any configuration; control lines end long before their limit, INFO of a big cluster too. */
enum { NATS_LINE_MAX = 256 << 10, NATS_PAYLOAD_MAX = 64 << 20, NATS_SUBJECT_MAX = 4096 };

enum nats_kind { NATS_INFO, NATS_MSG, NATS_PING, NATS_PONG, NATS_OK, NATS_ERR };
struct nats_op { /* strings are borrowed from the input */
        enum nats_kind kind;
        struct str text;            /* INFO: JSON; -ERR: its text without quotes */
        struct str subject, reply;  /* MSG, HMSG; reply.n == 0: none */
        struct str headers;         /* with their first line NATS/1.0; n == 0: none */
        struct str payload;
        uint64_t sid;
};
/* The operation at the front. 1 with *ret_used, 0 = more bytes are needed, -EBADMSG, -EMSGSIZE (over one of the limits). */
int nats_op_get(struct str in, struct nats_op *ret, size_t *ret_used);

/* The status of a message that has one (100 control, 404, 409, 503 no responders …) with its words; 0 = none. */
int nats_status(struct str headers, struct str *ret_words);
/* A header's value, name without case; p == NULL: there is none. */
struct str nats_header(struct str headers, struct str name);

/* Append one operation. Subjects must have passed nats_subject_fault(). 0 or -ENOMEM. */
int nats_put_pub(struct buf *b, struct str subject, struct str reply, struct str headers, struct str payload);
int nats_put_sub(struct buf *b, struct str subject, struct str queue, uint64_t sid);
int nats_put_unsub(struct buf *b, uint64_t sid);

/* What is wrong with a subject, as a text; NULL = nothing. wildcards: may it have * and >? */
const char *nats_subject_fault(struct str subject, bool wildcards);
/* May it name a stream or a consumer (one token of a subject)? */
bool nats_is_name(struct str s);

/* What the reply subject of a JetStream message says of it ($JS.ACK…). 0 or -EBADMSG. */
struct nats_delivery {
        struct str stream, consumer;
        uint64_t deliveries, sequence; /* 1 = the first time; in the stream */
};
int nats_delivery_get(struct str reply, struct nats_delivery *ret);

#endif
