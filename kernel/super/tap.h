/*
 * Recording of what crosses a component's boundary, for `daprctl plugin tap`: requests with their answers, and the messages of streams
 * (subscriptions, events, watches, filters), one by one; kept in a bounded list until they are taken. Costs one look at a pointer when off. Whoever may open the control socket may tap: it is the user's own.
 */
#ifndef KERNEL_SUPER_TAP_H
#define KERNEL_SUPER_TAP_H

#include <stddef.h>
#include <stdint.h>

#include "sdk/base/json.h"

enum {
        TAP_RECORDS_MAX = 4096,            /* that wait to be taken; */
        TAP_BYTES_MAX = 16 << 20,          /* with so many bytes of messages: further ones are dropped and counted */
        TAP_MESSAGE_MAX = 1 << 20,         /* of one message; the rest is left out and the record says so */
        TAP_ANSWER_BYTES = 2 << 20         /* taken at once */
};
#define TAP_FOR_MAX_S 3600.0
#define TAP_LINGER_S 15.0                  /* after its time: for the last to be taken */

struct component;

/* 0, -EBUSY (somebody taps it already), -EINVAL (for_s), -ENOMEM. */
int tap_start(struct component *c, double for_s);
void tap_stop(struct component *c, const char *why); /* none is fine; what was not taken is gone */
void tap_free(struct component *c);                  /* without a note */
/* Only while c->tap is set. */
void tap_call(struct component *c, const char *method, struct str req, struct str resp, int code, struct str message, double seconds);
/* One message of a stream, to the plugin (sent) or from it. */
void tap_message(struct component *c, struct str method, bool sent, struct str msg);
/* Writes the oldest records and lets go of them:
 * {"active":bool,"dropped":n,"waiting":n,"records":[{"time":ns,"method","request","response" (base64),"requestBytes","responseBytes",
 *  "code":n,"message","latencyNs":n, "stream":true for a message of one}...]}. False: nobody taps. */
bool tap_take(struct component *c, struct json_writer *w);

#endif
