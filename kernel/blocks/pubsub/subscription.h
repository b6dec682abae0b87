/*
 * One running subscription: a PullMessages stream to the broker's plugin, opened again whenever it breaks; the messages that came by
 * it and are in the kernel, each on a fiber of its own; their acknowledgements.
 *
 * Flow control, the same above every broker (metadata of the subscription, not passed on to the broker):
 *     maxConcurrency    messages handed to the app at once
 *     maxBytesInFlight  bytes of messages that have been read and are not yet settled
 *     orderingKey       path of an attribute ("data.order.id"): messages with an equal value go one after the other
 *     subscribeTimeout  until the broker has confirmed the subscription; then it is tried again
 * While a window is full the stream is not read, so the broker's plugin feels it. A subscription can be paused and resumed.
 */
#ifndef KERNEL_PUBSUB_SUBSCRIPTION_H
#define KERNEL_PUBSUB_SUBSCRIPTION_H

#include "kernel/blocks/pubsub/pubsub.h"

struct pull;     /* one life of the stream */
struct batcher;
struct lane;

enum outcome {
        OUTCOME_ACK,  /* settled: the broker may forget it */
        OUTCOME_NACK, /* not taken: the broker decides */
        OUTCOME_HOLD, /* neither: we are stopping */
};
struct message {
        struct list node;            /* of a lane */
        struct arena arena;
        struct subscription *sub;
        struct pull *pull;
        struct str id, topic, content_type, data; /* topic: as the app knows it */
        struct rpc_mdlist md;
        size_t bytes;
        const char *entry_id;        /* of a bulk delivery */
        enum outcome outcome;        /* of a bulk delivery, with its error */
        const char *error;
        bool settled;
};
/* What to do with a message. *ret_err (in m->arena or static) for OUTCOME_NACK. Parks. */
typedef enum outcome (*message_fn)(struct message *m, const char **ret_err);

struct subscription {
        struct list node;
        struct pubsub_block *block;
        const struct subscription_spec *spec; /* lives as long */
        const char *pubsub;
        struct str topic, broker_topic;
        struct rule_set *rules;
        message_fn handle;
        void *arg;                   /* of the handler's */
        struct stream_app *stream;   /* of a streaming subscription */
        bool raw;                    /* rawPayload */
        const char *raw_error;
        bool foreign, in_memory;
        /* flow control */
        size_t max_messages, max_concurrency, max_bytes;
        struct str ordering_key;
        double subscribe_s;          /* until the broker has confirmed the subscription */
        bool paused;
        struct map lanes;            /* by value of the ordering key: struct lane * */
        struct fsem slots;           /* maxConcurrency */
        /* state */
        size_t in_flight, bytes;     /* messages read and not settled */
        size_t n_read;               /* ever */
        size_t handed_back;          /* neither acknowledged nor refused */
        bool closed;                 /* what comes or fails now is held */
        bool started;                /* the first try to open the stream is over … */
        const char *start_error;     /* … and failed: text in arena */
        struct pull *pull;           /* NULL while there is no stream */
        struct list older;           /* streams of before a move, until they have ended: struct pull.node */
        bool away;                   /* the broker is out of sight: no stream is opened until it is back */
        unsigned round;              /* the last walk that has seen it */
        unsigned busy;               /* moves and leaves that are at work on it: it is not freed before */
        struct batcher *batcher;
        struct cond changed;
        struct scope pulling, handling;
        struct arena arena;
};

/* Makes and starts it: returns when the stream is open or could not be opened (then it goes on trying). 0; -EACCES (scopes), -ENOENT
 * (no such broker), -EINVAL (rules), -ENOMEM with the text in *ret_err (a). Parks. */
int subscription_start(struct subscription **ret, struct pubsub_block *b, const struct subscription_spec *spec, message_fn handle,
                       void *arg, struct arena *a, const char **ret_err);
/* Ends it: asks the plugin to pause first when `graceful`; waits for what the app has in its hands (PUBSUB_DRAIN_S), sends the last
 * acknowledgements and closes the stream. Frees s. Parks. */
void subscription_stop(struct subscription *s, bool graceful);
/* The broker moves to `to`: another stream is opened there and takes over, the present one is read on. Parks. */
void subscription_move(struct subscription *s, struct component *to);
/* It has moved: streams of before end when what they brought is settled. paused: their plugin hands out nothing new. Parks. */
void subscription_moved(struct subscription *s, bool paused);
/* The broker is gone: the stream ends as at a stop, and is opened again when subscription_arrive() says so. Parks. */
void subscription_leave(struct subscription *s);
void subscription_arrive(struct subscription *s);
void subscription_unbusy(struct subscription *s); /* busy is one less */
/* Has the broker, as it is now, another idea of the topic than when this one began? Then it must begin anew. */
bool subscription_is_outdated(struct subscription *s);
/* A paused one begins nothing new; what the app has in hand it finishes. Its stream stays open and is not read, so the plugin holds at
 * most a window of messages and the broker keeps the rest. */
void subscription_pause(struct subscription *s);
void subscription_resume(struct subscription *s);
bool subscription_wait_resumed(struct subscription *s); /* false: it stops. Parks. */
/* Settles one message: acknowledgement to its stream, windows; frees it. */
void message_settle(struct message *m, enum outcome outcome, const char *err);

/* ---- message.c ---- */
enum outcome message_deliver(struct message *m, const char **ret_err); /* to the app, single */
/* The message as it came to another topic of its broker. 0, or -1 (logged). Parks. */
int message_dead_letter(struct message *m);
void message_metadata_app(struct message *m); /* adds pubsubName and content-type as the app gets them */

/* How an event was received by the app. */
enum delivery { DELIVERED, DELIVERY_RETRY, DELIVERY_DROPPED };
struct delivered {
        const char *err;             /* DELIVERY_RETRY; in the arena */
        int code;                    /* of policy_try */
        bool closed;                 /* nobody is there to take it */
        bool lost;                   /* the app gave no answer at all */
};
struct outgoing {                    /* one event on its way to the app */
        struct subscription *sub;
        struct arena *arena;
        struct event event;
        struct str body;             /* for HTTP */
        struct str raw_data;         /* binary mode: the data as bytes; p == NULL else */
        struct str topic;
        const char *path;
        const struct rpc_mdlist *md;
};
/* Each parks, and records ingress metrics. */
enum delivery deliver_http(const struct outgoing *o, struct delivered *d);
enum delivery deliver_grpc(const struct outgoing *o, struct delivered *d);
enum delivery deliver_stream(const struct outgoing *o, struct delivered *d);
/* Counts it as one to deliver again, with the reason (in the arena; NULL: out of memory). Returns DELIVERY_RETRY. */
enum delivery delivery_retry(const struct outgoing *o, struct delivered *d, double elapsed_ms, const char *err);
/* From stream_leave() on the subscription is the caller's, who must call stream_drain(), which frees it, and stream_end() with what that
 * gives. Draining parks. */
struct stream_app;
void stream_leave(struct subscription *s);
struct stream_app *stream_drain(struct subscription *s);
void stream_end(struct stream_app *s);
void stream_end_opening(struct pubsub_block *b); /* streams that wait for their first request */
/* The TopicEventRequest of an event; NULL with d filled when it cannot be made. */
typedef struct Dapr__Proto__Runtime__V1__TopicEventRequest topic_event;
topic_event *event_message(const struct outgoing *o, struct delivered *d);
/* The span of one event on its way to the app, when the event names a trace; else an empty one. Ends with how it was received. */
void delivery_trace_begin(struct subscription *s, struct trace *t, struct arena *a, const struct event *e);
void delivery_trace_end(struct subscription *s, struct trace *t, int code, const char *err);
/* Metadata that can go as gRPC metadata or HTTP headers to the app. */
struct rpc_md *app_metadata(struct arena *a, const struct rpc_mdlist *md, size_t *ret_n);

/* ---- away.c ---- */
/* The app gave no answer. When its port is closed: waits until it is open again, at most PUBSUB_AWAY_S and PUBSUB_AWAY_MAX times
 * (*times counts). True: deliver again. False: it is there, does not come back, or the subscription ends. Parks. */
bool subscription_app_is_back(struct subscription *s, unsigned *times);

/* ---- bulk.c ---- */
int batcher_start(struct subscription *s);
void batcher_stop(struct subscription *s);   /* flushes nothing: what waits is held */
void batcher_add(struct subscription *s, struct message *m); /* takes m */
/* One bulk delivery; every message gets outcome and error. */
struct bulk_delivery {
        struct subscription *sub;
        struct arena *arena;
        struct message **m;
        struct event *events;        /* beside m; json.p == NULL for raw ones */
        struct str *bodies;          /* JSON of "event" */
        size_t n;
        const char *path;
        int64_t counts[3];           /* success, retry, drop */
        double elapsed_ms;
        const char *err;             /* of the whole */
        int code;
        bool lost;                   /* the app gave no answer at all */
};
/* 0 = all taken or dropped; -1: messages whose error is set are to be tried again. dropped[i] is set for DROP. */
int bulk_http(struct bulk_delivery *b, bool *dropped);
int bulk_grpc(struct bulk_delivery *b, bool *dropped);

#endif
