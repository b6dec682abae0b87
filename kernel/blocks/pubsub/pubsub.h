/*
 * The publish/subscribe building block, inside: what its files share.
 *
 *   publish.c       one and many messages to a broker: scopes, {namespace} topics, outbound policies   publish_http.c publish_grpc.c
 *   subscriber.c    which subscriptions there are and when they run: declarative, programmatic; start, stop, precedence
 *   subscription.c  one running subscription: its windows and lanes, acknowledgements, draining   pull.c its PullMessages stream
 *   message.c       one message: event, route, delivery under the inbound policy, dead letter topic
 *   app_http.c app_grpc.c stream.c     the three ways to hand an event to the app
 *   bulk.c          many messages in one delivery   control.c pause and resume
 *   away.c          the app is restarting: what it has not taken waits for it
 *
 * At least once: a message is acknowledged only after the app has taken it (or it went to the dead letter topic); one that was in
 * nobody's hands, or fails because of a stop, is neither acknowledged nor refused: the stream ends and the broker hands it out again.
 */
#ifndef KERNEL_PUBSUB_H
#define KERNEL_PUBSUB_H

#include "kernel/observe/trace.h"
#include "kernel/blocks/pubsub/event.h"
#include "kernel/front/call.h"
#include "kernel/resources/subscription.h"

enum {
        PUBSUB_IN_FLIGHT_MAX = 1000,         /* messages of one subscription in the kernel, whatever its metadata says */
        PUBSUB_CONCURRENCY = 100,            /* maxConcurrency where the subscription has none */
        PUBSUB_LANES_WINDOW = 8,             /* with an orderingKey so many times maxConcurrency are read ahead */
        PUBSUB_BYTES_IN_FLIGHT_MAX = 64 << 20,
        PUBSUB_MESSAGE_ARENA_MAX = 512 << 20,
        PUBSUB_BULK_MESSAGES = 100,          /* maxMessagesCount, maxAwaitDurationMs where the subscription has none */
        PUBSUB_BULK_AWAIT_MS = 1000,
        PUBSUB_BULK_PUBLISH_AT_ONCE = 100,
        PUBSUB_SUBSCRIBE_S = 30,             /* subscribeTimeout where the subscription has none */
        PUBSUB_DRAIN_S = 30,                 /* a stopping subscription waits so long for the app */
        PUBSUB_PAUSE_S = 2,                  /* less than the grace of a stop */
        PUBSUB_AWAY_S = 120,                 /* an app whose port is closed is waited for so long */
        PUBSUB_AWAY_MAX = 3,                 /* ... so often with the same message: it may be the message that kills the app */
        PUBSUB_TOPICS_MAX = 10000,
};

struct outbox;
struct pubsub_metrics;
struct rule_set;
struct subscription;
struct stream_app;

/* ---- brokers: what this block knows of a pubsub component ---- */
struct topic_list {
        struct str *v;
        size_t n;
};
struct broker {
        const char *name;
        bool foreign, namespace_scoped;
        struct topic_list publishing, subscribing, allowed, protected_; /* of this app */
        bool paused;                 /* while it moves: the old instance hands out nothing more */
        struct component *component; /* at this call */
        struct broker *retired;      /* of the same name, replaced */
        struct arena arena;
};
struct pubsub_block {
        struct kernel *k;
        struct map brokers;          /* by component name: struct broker * */
        struct arena arena;          /* of the programmatic specs */
        struct subscription_spec **declared, **programmatic; /* declared: heap; the specs live in their resources' memory */
        size_t n_declared, n_programmatic;
        struct list running, streams, internal; /* struct subscription.node; internal: the outbox's */
        struct list starting;        /* those at their first try: struct first.node of subscriber.c */
        struct list opening;         /* streams without their first request: struct stream_opening.node */
        bool asked_app, active, closed;
        bool holding;                /* streams that have given back what they had stay open until pubsub's hang_up() */
        size_t undrained;            /* streams that have not yet */
        struct cond hung;            /* one of both has changed */
        struct scope leaving;        /* the ends of streams */
        struct map paused;           /* by subscriptions_key(): paused ones, also while they do not run */
        bool app_away, app_asked;    /* away.c: its port was closed when last tried; it is being tried */
        double app_next_try, app_back_at;
        unsigned round;              /* of walks over subscriptions that park */
        struct fmutex lock;          /* starts and stops, one after the other */
        struct scope scope;          /* retries of starts */
        struct pubsub_metrics *metrics;
        struct outbox *outbox;
};

/* ---- pubsub.c ---- */
/* With its component set, or NULL. */
struct broker *pubsub_broker(struct kernel *k, struct str name);
/* Is the topic open to the app? scoped: b->publishing or b->subscribing. */
bool broker_allows(const struct broker *b, struct str topic, const struct topic_list *scoped);
/* Scope lists out of metadata values, in a: "app1=t1,t2;app2=" for the app, "t1,t2". */
int topics_of_app(struct arena *a, const char *text, const char *app_id, struct topic_list *ret);
int topics_of(struct arena *a, const char *text, struct topic_list *ret);
/* The topic's name at the broker: with the namespace before it when the component says so. p == NULL without memory. */
struct str broker_topic(struct arena *a, const struct kernel *k, const struct broker *b, struct str topic);
/* What a component answered, as the reference words it. In a. */
const char *broker_error(struct arena *a, const struct broker *b, const struct rpc_status *st);

/* ---- control.c: pause and resume by daprctl ---- */
void subscriptions_serve(struct pubsub_block *b, bool on);
/* Paused ones stay so when another program takes over. */
struct ledger;
void subscriptions_note(struct kernel *k, struct ledger *l);
void subscriptions_take_notes(struct pubsub_block *b, const struct ledger *l); /* l may be NULL */
bool subscriptions_are_paused(const struct pubsub_block *b, const char *pubsub, const char *topic);

/* ---- publish.c ---- */
struct publish {
        struct str pubsub, topic, data, content_type;
        const struct rpc_mdlist *md; /* may be NULL */
};
enum publish_result { PUBLISHED, PUBLISH_FAILED, PUBLISH_NOT_FOUND, PUBLISH_FORBIDDEN };
/* One message under the broker's outbound policy; *ret_err (in a) unless PUBLISHED. Parks. */
enum publish_result pubsub_publish(struct kernel *k, struct arena *a, const struct publish *p, const char **ret_err);

struct bulk_entry {
        struct str id, event, content_type;
        struct rpc_mdlist md;
        struct trace *trace;         /* of its own, or NULL: publish_entry() */
        const char *error;           /* out: NULL = published */
};
/* Many: by BulkPublish where the broker has it, else one by one. PUBLISH_FAILED when some failed: see each entry's error. */
enum publish_result pubsub_publish_bulk(struct kernel *k, struct arena *a, const struct publish *p, struct bulk_entry *e, size_t n,
                                        const char **ret_err);
/* The checks that both doors make first, and the failure of a publish. Return 0, or -1 after call_fail. */
int publish_check(struct call *c, struct str pubsub, const struct rpc_mdlist *md, struct broker **ret);
int publish_fail(struct call *c, enum publish_result r, struct str pubsub, struct str topic, const char *err);
int publish_fail_metadata(struct call *c, struct str pubsub, const struct rpc_mdlist *md, const char *err);
int publish_fail_event(struct call *c, struct str pubsub, const char *err);
int publish_fail_entries(struct call *c, enum error_id id, struct str pubsub, struct str topic, const char *err, bool with_error);
/* traceparent for events of a trace; "" when there is no valid one. */
struct str publish_parent(const struct trace *t);
/* The event around data for a publish request, with the call's trace. 0 or as event_write. */
int publish_envelope(struct call *c, const struct broker *b, struct buf *out, struct str topic, struct str data, struct str content_type,
                     const struct rpc_mdlist *md, const char **ret_err);
/* The same for an entry of a bulk request, in place, with a span of its own; publish_entries_end() ends those of a request that has
 * been answered or is about to be. */
int publish_entry(struct call *c, const struct broker *b, struct str topic, struct bulk_entry *e, const char **ret_err);
void publish_entries_end(struct call *c, struct bulk_entry *e, size_t n);
double pubsub_now_ms(void);

enum { PUBSUB_HTTP_ROUTES = 3, PUBSUB_GRPC_ROUTES = 4 };
extern const struct http_route pubsub_http_routes[PUBSUB_HTTP_ROUTES];
int publish_grpc(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out);
int publish_grpc_bulk(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out);
int stream_subscribe(struct call *c); /* SubscribeTopicEventsAlpha1 */

/* ---- metrics.c: as the reference's; a NULL m does nothing ---- */
int pubsub_metrics_new(struct pubsub_metrics **ret, struct kernel *k);
void pubsub_metrics_free(struct pubsub_metrics *m);
void pubsub_observe_egress(struct pubsub_metrics *m, struct str component, struct str topic, bool ok, double elapsed_ms);
void pubsub_observe_bulk_egress(struct pubsub_metrics *m, struct str component, struct str topic, bool ok, size_t events, double elapsed_ms);
/* process: "success", "retry", "drop"; status: NULL = the same. */
void pubsub_observe_ingress(struct pubsub_metrics *m, struct str component, const char *process, const char *status, struct str topic,
                            double elapsed_ms);
void pubsub_observe_bulk_ingress(struct pubsub_metrics *m, struct str topic, double elapsed_ms, const int64_t counts[3]);

/* ---- rules.c ---- */
/* Compiles the rules of a spec. 0; -EINVAL with the text in *ret_err (in a); -ENOMEM. */
int rules_new(struct rule_set **ret, const struct subscription_spec *s, struct arena *a, const char **ret_err);
void rules_free(struct rule_set *r);
/* 0 and *ret_path (NULL: no rule fits); -EINVAL with the text in *ret_err when a rule cannot be evaluated. */
int rules_match(const struct rule_set *r, struct arena *a, const struct event *e, const char **ret_path, const char **ret_err);
/* The same where the event is no object (raw entries of a bulk): its bytes as a string. */
int rules_match_text(const struct rule_set *r, struct arena *a, struct str text, const char **ret_path, const char **ret_err);

/* ---- subscriber.c ---- */
int subscriber_init(struct pubsub_block *b); /* reads the resources: 0, -ENOMEM, or -EINVAL (logged) */
/* Asks the app for its subscriptions, once. 0, or <0 (logged): asked again when it is healthy the next time. Parks. */
int subscriber_ask(struct pubsub_block *b);
void subscriber_start(struct pubsub_block *b); /* the app is healthy. Parks. */
void subscriber_stop(struct pubsub_block *b);  /* the app is not. Parks. */
void subscriber_quiesce(struct pubsub_block *b, bool hold); /* for ever; hold: streams rest, but stay open. Parks. */
void subscriber_hang_up(struct pubsub_block *b);            /* they end. Parks. */
bool subscriber_accepts(struct raw_resource *r); /* a Subscription resource; what is wrong with it is logged */
/* The Subscription resources are `set` now: those that are gone end, new ones begin. A spec of before whose resource is still in the set
 * stays. Resources that are not may be freed after it. Parks. */
int subscriber_reload(struct pubsub_block *b, const struct resource_set *set);
/* A broker has come up, or back / is about to move / has moved / has gone: struct block in call.h. Park. */
void subscriber_arrived(struct pubsub_block *b, const char *name);
void subscriber_moving(struct pubsub_block *b, const char *name, struct component *to);
void subscriber_moved(struct pubsub_block *b, const char *name, bool paused);
void subscriber_left(struct pubsub_block *b, const char *name);
/* What applies, in order, in a: declarative ones with programmatic ones over them, then streams; not yet
 * programmatic ones at their first try, so that what is published to one that is listed is not lost. */
int subscriber_list(struct pubsub_block *b, struct arena *a, const struct subscription_spec ***ret, size_t *ret_n);

#endif
