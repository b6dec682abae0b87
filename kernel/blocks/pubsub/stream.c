/*
 * SubscribeTopicEventsAlpha1: a subscription as long as a gRPC stream, its events answered on the same stream by their ids. The
 * handler's fiber reads answers; deliveries send under a lock and wait for theirs.
 */
#include <errno.h>

#include "dapr/proto/runtime/v1/pubsub.pb-c.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/front/errors.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime.pubsub.streamer"

enum { STREAM_EVENTS_MAX = PUBSUB_IN_FLIGHT_MAX };

typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestAlpha1 request_msg;
typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestInitialAlpha1 initial_msg;
typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsResponseAlpha1 response_msg;

struct waiter { /* a delivery that waits for its answer; on its fiber's stack */
        struct list node;
        const char *id;
        bool answered;
        int status;
        struct cond changed;
};
struct stream_app {
        struct call *call;
        struct list waiters;
        struct fmutex sending;
        bool closed;
        bool leaving;                /* somebody drains it and will end it */
        bool gone;                   /* stream_end() was called */
        struct fiber *reader;
        struct subscription *sub;    /* NULL when it was ended by stream_drain() */
        struct cond ended;
};

static void answer(struct stream_app *s, const char *id, int status)
{
        list_for_each(at, &s->waiters) {
                struct waiter *w = list_entry(at, struct waiter, node);
                if (w->answered || strcmp(w->id, id) != 0)
                        continue;
                w->answered = true;
                w->status = status;
                cond_broadcast(&w->changed);
                return;
        }
        log_error(SCOPE, "no client stream expecting publish response for id %s", id);
}

static void close_stream(struct stream_app *s)
{
        s->closed = true;
        list_for_each(at, &s->waiters)
                cond_broadcast(&list_entry(at, struct waiter, node)->changed);
}

static int send_event(struct stream_app *s, topic_event *m)
{
        response_msg resp = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__INIT;
        int r = fmutex_lock(&s->sending);

        if (r)
                return r;
        resp.subscribe_topic_events_response_type_case =
                DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_TYPE_EVENT_MESSAGE;
        resp.event_message = m;
        r = s->closed ? -EPIPE : rpc_send_pb(s->call->rpc, &resp.base);
        fmutex_unlock(&s->sending);
        return r;
}

static enum delivery take(const struct outgoing *o, int status, double elapsed, struct delivered *d)
{
        const char *id = event_show(o->arena, &o->event, EVENT_ID);
        struct pubsub_metrics *m = o->sub->block->metrics;

        switch (status) {
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__SUCCESS:
                pubsub_observe_ingress(m, str_of(o->sub->pubsub), "success", NULL, o->topic, elapsed);
                return DELIVERED;
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__DROP:
                log_warn("dapr.runtime.processor.pubsub.subscription.streaming", "DROP status returned from app while processing pub/sub event %s", id);
                pubsub_observe_ingress(m, str_of(o->sub->pubsub), "drop", NULL, o->topic, elapsed);
                return DELIVERY_DROPPED;
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__RETRY:
                return delivery_retry(o, d, elapsed, arena_printf(o->arena, "RETRY status returned from app while processing pub/sub event %s: "
                                                                   "retriable error occurred", id));
        default:
                return delivery_retry(o, d, elapsed, arena_printf(o->arena, "unknown status returned from app while processing pub/sub event %s, status: "
                                                                   "%d, err: retriable error occurred", id, status));
        }
}

enum delivery deliver_stream(const struct outgoing *o, struct delivered *d)
{
        struct stream_app *s = o->sub->stream;
        topic_event *m = event_message(o, d);
        struct waiter w = {.id = ""};
        double since = pubsub_now_ms();
        int r;

        if (!m)
                return delivery_retry(o, d, 0, d->err);
        w.id = m->id;
        cond_init(&w.changed);
        list_add_tail(&s->waiters, &w.node);
        r = send_event(s, m);
        while (r == 0 && !w.answered && !s->closed)
                r = cond_wait(&w.changed);
        list_del(&w.node);
        if (w.answered)
                return take(o, w.status, pubsub_now_ms() - since, d);
        d->closed = s->closed;
        d->err = s->closed ? "stream closed" : r == -ETIMEDOUT ? "context deadline exceeded" : "context canceled";
        return DELIVERY_RETRY;
}

/* ---- the stream ---- */

static int read_initial(struct call *c, struct subscription_spec *spec)
{
        request_msg *m = NULL;
        const initial_msg *in;
        int r = rpc_recv_pb(c->rpc, &dapr__proto__runtime__v1__subscribe_topic_events_request_alpha1__descriptor, &m);

        if (r < 0)
                return r;
        if (r == 0 || m->subscribe_topic_events_request_type_case !=
                              DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_TYPE_INITIAL_REQUEST)
                return call_fail(c, ERR_UNTYPED, r == 0 ? "EOF" : "initial request is required");
        in = m->initial_request;
        if (!*in->pubsub_name)
                return call_fail(c, ERR_UNTYPED, "pubsubName is required");
        if (!*in->topic)
                return call_fail(c, ERR_UNTYPED, "topic is required");
        *spec = (struct subscription_spec){.origin = SUBSCRIPTION_STREAMING, .name = "", .n_rules = 1};
        spec->rules = arena_alloc(c->arena, sizeof *spec->rules);
        spec->metadata = arena_alloc(c->arena, (in->n_metadata + 1) * sizeof *spec->metadata);
        spec->pubsub = arena_strdup(c->arena, str_of(in->pubsub_name));
        spec->topic = arena_strdup(c->arena, str_of(in->topic));
        spec->dead_letter = in->dead_letter_topic ? arena_strdup(c->arena, str_of(in->dead_letter_topic)) : "";
        if (!spec->rules || !spec->metadata || !spec->pubsub || !spec->topic || !spec->dead_letter)
                return call_fail(c, ERR_UNTYPED, "out of memory");
        spec->rules[0] = (struct subscription_rule){"", "/"};
        for (size_t i = 0; i < in->n_metadata; i++) {
                const char *key = arena_strdup(c->arena, str_of(in->metadata[i]->key)), *value = arena_strdup(c->arena, str_of(in->metadata[i]->value));
                if (key && value)
                        spec->metadata[spec->n_metadata++] = (struct subscription_item){key, value};
        }
        return 0;
}

/* A stream that waits for its first request would hold up a stop: it is known by then. */
struct stream_opening {
        struct list node; /* in pubsub_block.opening */
        struct fiber *fiber;
        bool ended;
};

void stream_end_opening(struct pubsub_block *b)
{
        list_for_each(n, &b->opening) {
                struct stream_opening *o = list_entry(n, struct stream_opening, node);
                o->ended = true;
                fiber_cancel(o->fiber);
        }
}

/* This process takes no streams any more. When another program goes on, the client is told so, and not before that one is about to
 * listen. */
static int too_late(struct call *c, const char *text)
{
        struct pubsub_block *b = c->k->pubsub;

        fiber_shield_begin();
        while (b && b->holding)
                cond_wait(&b->hung);
        fiber_shield_end();
        return c->k->upgrading ? call_fail_code(c, ERR_UNTYPED, 0, RPC_UNAVAILABLE, text) : call_fail(c, ERR_UNTYPED, text);
}

static int open_stream(struct call *c, struct pubsub_block *b, struct subscription_spec *spec)
{
        struct stream_opening o = {.fiber = fiber_self()};
        int r;

        if (!b)
                return read_initial(c, spec);
        if (b->closed)
                return too_late(c, "api server closed");
        list_add_tail(&b->opening, &o.node);
        r = read_initial(c, spec);
        list_del(&o.node);
        return o.ended ? too_late(c, "api server closed") : r;
}

static int send_initial(struct call *c)
{
        Dapr__Proto__Runtime__V1__SubscribeTopicEventsResponseInitialAlpha1 initial =
                DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_INITIAL_ALPHA1__INIT;
        response_msg resp = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__INIT;

        resp.subscribe_topic_events_response_type_case =
                DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_TYPE_INITIAL_RESPONSE;
        resp.initial_response = &initial;
        return rpc_send_pb(c->rpc, &resp.base);
}

/* Answers, until the client goes away (0 or <0) or says something wrong (1). */
static int read_answers(struct stream_app *s)
{
        request_msg *m = NULL;
        int r;

        while ((r = rpc_recv_pb(s->call->rpc, &dapr__proto__runtime__v1__subscribe_topic_events_request_alpha1__descriptor, &m)) == 1) {
                if (m->subscribe_topic_events_request_type_case !=
                    DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_TYPE_EVENT_PROCESSED)
                        return 1;
                answer(s, m->event_processed->id, m->event_processed->status ? (int)m->event_processed->status->status : 0);
        }
        return r;
}

static int start_stream(struct call *c, struct stream_app *s, const struct subscription_spec *spec)
{
        struct pubsub_block *b = c->k->pubsub;
        const char *err = NULL;
        int r;

        if (b->closed && c->k->upgrading)
                return too_late(c, "stream closed");
        if (b->closed)
                return publish_fail_metadata(c, STR(""), NULL, "subscriber is closed");
        /* no event before the first response: the lock is held until that is out */
        r = fmutex_lock(&s->sending);
        if (r)
                return r;
        r = subscription_start(&s->sub, b, spec, message_deliver, s, c->arena, &err);
        if (r == -ENOENT) {
                call_fail(c, ERR_PUBSUB_NOT_FOUND, spec->pubsub);
                return -1;
        }
        if (r == 0 && s->sub->start_error) {
                err = arena_printf(c->arena, "failed to subscribe to topic %s: %s", spec->topic, s->sub->start_error);
                subscription_stop(s->sub, false);
                r = -EIO;
        }
        if (r)
                return call_fail(c, ERR_UNTYPED, arena_printf(c->arena, "failed to create subscription for %s: %s", spec->pubsub, err));
        list_add_tail(&b->streams, &s->sub->node);
        return 0;
}

void stream_leave(struct subscription *sub)
{
        sub->stream->leaving = true;
}

struct stream_app *stream_drain(struct subscription *sub)
{
        struct stream_app *s = sub->stream;

        subscription_stop(sub, true);
        s->sub = NULL;
        return s;
}

void stream_end(struct stream_app *s)
{
        s->gone = true;
        close_stream(s);
        cond_broadcast(&s->ended);
        fiber_cancel(s->reader); /* it lives: it waits for us */
}

int stream_subscribe(struct call *c)
{
        struct subscription_spec spec;
        struct stream_app s = {.call = c, .reader = fiber_self()};
        struct pubsub_block *b = c->k->pubsub;
        int r;

        c->rpc->flags |= RPC_REUSE;
        rpc_call_lasts(c->rpc);
        list_init(&s.waiters);
        cond_init(&s.ended);
        fmutex_init(&s.sending);
        if ((r = open_stream(c, b, &spec)))
                return r;
        if (!b || !pubsub_broker(c->k, str_of(spec.pubsub)))
                return call_fail(c, ERR_PUBSUB_NOT_FOUND, spec.pubsub);
        if ((r = start_stream(c, &s, &spec)))
                return r;
        r = send_initial(c);
        fmutex_unlock(&s.sending);
        log_info(SCOPE, "Subscribing to pubsub '%s' topic '%s'", spec.pubsub, spec.topic);
        if (r == 0)
                r = read_answers(&s);
        close_stream(&s);
        fiber_shield_begin();
        if (!s.leaving) {
                log_info(SCOPE, "Unsubscribed from pubsub '%s' topic '%s'", spec.pubsub, spec.topic);
                list_del(&s.sub->node);
                subscription_stop(s.sub, false);
        }
        while (s.leaving && !s.gone)
                cond_wait(&s.ended);
        fiber_shield_end();
        if (s.leaving)
                return too_late(c, "stream closed");
        return r < 0 ? r : call_fail(c, ERR_UNTYPED, r == 1 ? "duplicate initial request received" : "EOF");
}
