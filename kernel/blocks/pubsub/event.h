/*
 * CloudEvents 1.0 in JSON (API.md 8.4): made around the data of a publish request, passed through, made of raw bytes, and read on
 * delivery. Data stays bytes: JSON data is written where it stands, an event that is read is only indexed.
 * Nothing here parks or recurses.
 */
#ifndef KERNEL_PUBSUB_EVENT_H
#define KERNEL_PUBSUB_EVENT_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/net/rpc.h"

enum { UUID_CHARS = 36 };
/* A random UUID, NUL-terminated. 0 or -EIO. */
int uuid_random(char out[UUID_CHARS + 1]);

/* ---- content types: compared without case and parameters ---- */
bool content_is(struct str content_type, const char *type);
bool content_is_json(struct str content_type);
bool content_is_event(struct str content_type);   /* application/cloudevents+json */
bool content_is_binary(struct str content_type);  /* application/octet-stream */
bool content_is_text(struct str content_type);    /* text/... and application/xml */

/* ---- metadata ---- */
/* metadata rawPayload: 0 and *ret; -EINVAL with the reference's text in *ret_err. */
int event_is_raw(const struct rpc_mdlist *md, struct arena *a, bool *ret, const char **ret_err);
/* ttl or ttlInSeconds, as seconds or as a Go duration. False: none, or wrong (then it does not count, as in the reference). */
bool event_ttl(const struct rpc_mdlist *md, int64_t *ret_ns);

/* ---- writing ---- */
struct event_new {
        struct str id, source, type, subject; /* empty: a UUID, "Dapr", "com.dapr.event.sent", none */
        struct str topic, pubsub;
        struct str content_type;              /* of the data; empty: text/plain */
        struct str data;
        struct str traceid, traceparent, tracestate; /* traceparent empty: as traceid */
        bool has_ttl;
        int64_t ttl_ns;                       /* written as "expiration" */
};
/* Metadata cloudevent.id, .source, .type, .subject, .traceid, .traceparent, .tracestate (names without case) over *n. */
void event_override(struct event_new *n, const struct rpc_mdlist *md);
/* Appends the event for the data. When content_type is a CloudEvent's, the data is the event: topic and pubsubname are replaced, what
 * is missing is added. 0; -EINVAL with Go's text in *ret_err: the data is no JSON object; -ENOMEM. */
int event_write(struct buf *out, struct arena *a, const struct event_new *n, const char **ret_err);
/* The same without a look at what the data is: always an event around it. */
int event_wrap(struct buf *out, const struct event_new *n);
/* Appends the event that stands for raw bytes on delivery; trace values from the message's metadata. 0 or -ENOMEM. */
int event_write_raw(struct buf *out, struct arena *a, struct str data, struct str topic, struct str pubsub, const struct rpc_mdlist *md);

/* ---- reading ---- */
enum event_field {
        EVENT_ID, EVENT_SOURCE, EVENT_TYPE, EVENT_SPECVERSION, EVENT_DATACONTENTTYPE, EVENT_DATA, EVENT_DATA_BASE64, EVENT_TOPIC,
        EVENT_PUBSUBNAME, EVENT_TRACEID, EVENT_TRACEPARENT, EVENT_TRACESTATE, EVENT_EXPIRATION, EVENT_TIME, EVENT_SUBJECT, EVENT_FIELDS
};
struct event {
        struct str json;              /* the whole object */
        struct str raw[EVENT_FIELDS]; /* JSON text of each member; p == NULL: absent */
};
/* Indexes one whole JSON object, borrowing. 0; -EINVAL with Go's text in *ret_err (arena or static). */
int event_read(struct arena *a, struct str json, struct event *ret, const char **ret_err);
/* A member that is a string, decoded; n == 0 when it is absent or no string. */
struct str event_text(struct arena *a, const struct event *e, enum event_field f);
/* A member as Go prints it with %v: for logs. NUL-terminated. */
const char *event_show(struct arena *a, const struct event *e, enum event_field f);
bool event_has_expired(struct arena *a, const struct event *e);
/* traceparent, else traceid, when it is a string. p == NULL: none. */
struct str event_trace(struct arena *a, const struct event *e);
/* The JSON object of all members that TopicEventRequest has no field for ("extensions"). p == NULL without memory. */
struct str event_extensions(struct arena *a, const struct event *e);
/* The event again with a member more for each name and value; names that it has are left alone unless `force`. */
struct event_add {
        const char *name;
        struct str value; /* text; p == NULL: leave out */
        bool force;
};
enum { EVENT_ADD_MAX = 60 }; /* at once; more are left out */
int event_extend(struct arena *a, struct event *e, const struct event_add *add, size_t n);
/* Value at a dotted path of member names ("data.order.id"), raw. p == NULL: there is none. */
struct str event_path(struct arena *a, const struct event *e, struct str path);

#endif
