/*
 * One message on its way from the broker to the app: what event it holds, whether that is still wanted, which route it takes, the
 * delivery under the broker's inbound policy, and where it goes when that fails.
 */
#include <errno.h>

#include "kernel/app/app.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.runtime.processor.subscription"
#define CE_PREFIX "ce_"

static struct pubsub_metrics *metrics_of(const struct message *m)
{
        return m->sub->block->metrics;
}

static void observe(const struct message *m, const char *process, const char *status)
{
        pubsub_observe_ingress(metrics_of(m), str_of(m->sub->pubsub), process, status, m->topic, 0);
}

void message_metadata_app(struct message *m)
{
        struct rpc_mdlist *md = &m->md;
        size_t kept = 0;

        for (size_t i = 0; i < md->n; i++)
                if (!str_eqz(md->v[i].key, "pubsubName") && !(m->content_type.n && str_eqz(md->v[i].key, "content-type")))
                        md->v[kept++] = md->v[i];
        md->n = kept;
        if (m->content_type.n)
                rpc_md_add(md, &m->arena, STR("content-type"), m->content_type);
        rpc_md_add(md, &m->arena, STR("pubsubName"), str_of(m->sub->pubsub));
}

int message_dead_letter(struct message *m)
{
        const struct subscription *s = m->sub;
        struct publish p = {.pubsub = str_of(s->pubsub), .topic = str_of(s->spec->dead_letter), .data = m->data, .md = &m->md,
                            .content_type = m->content_type};
        const char *err = NULL;
        struct arena a = {0};
        int r = pubsub_publish(s->block->k, &a, &p, &err) == PUBLISHED ? 0 : -1;

        if (r)
                log_error(SCOPE, "error sending message to dead letter, origin topic: %.*s dead letter topic %s err: %s", STR_FMT(m->topic),
                          s->spec->dead_letter, err);
        arena_fini(&a);
        return r;
}

/* A message that cannot be delivered: to the dead letter topic, or back. */
static enum outcome refuse(struct message *m, const char *err, const char **ret_err)
{
        if (*m->sub->spec->dead_letter && message_dead_letter(m) == 0) {
                observe(m, "drop", NULL);
                return OUTCOME_ACK;
        }
        observe(m, "retry", NULL);
        *ret_err = err;
        return OUTCOME_NACK;
}

/* A message that nobody wants: gone, with a copy in the dead letter topic. */
static enum outcome forget(struct message *m, const char *status)
{
        observe(m, "drop", status);
        if (*m->sub->spec->dead_letter)
                message_dead_letter(m);
        return OUTCOME_ACK;
}

/* ---- the event ---- */

static int raw_event(struct message *m, struct event *e, const char **ret_err)
{
        struct buf b = {0};
        struct str json;
        int r = event_write_raw(&b, &m->arena, m->data, m->topic, str_of(m->sub->pubsub), &m->md);

        json = r ? STR_NULL : arena_str(&m->arena, buf_str(&b));
        buf_fini(&b);
        *ret_err = "out of memory";
        return json.p ? event_read(&m->arena, json, e, ret_err) : -ENOMEM;
}

/* Binary mode: attributes in the broker's headers, data as it is. */
static int binary_event(struct message *m, struct str content_type, struct event *e, const char **ret_err)
{
        struct buf b = {0};
        struct json_writer w;
        struct str json;

        json_write_init(&w, &b);
        json_object_begin(&w);
        for (size_t i = 0; i < m->md.n; i++) {
                struct str key = m->md.v[i].key;
                char *name;
                if (key.n <= 3 || (strncasecmp(key.p, CE_PREFIX, 3) != 0 && strncasecmp(key.p, "ce-", 3) != 0))
                        continue;
                name = arena_strdup(&m->arena, str_skip(key, 3));
                for (char *c = name; c && *c; c++)
                        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
                if (name && strcmp(name, "data") != 0 && strcmp(name, "datacontenttype") != 0)
                        json_kv(&w, name, m->md.v[i].value);
        }
        json_kv(&w, "data", base64_encode(&m->arena, m->data));
        json_kv(&w, "datacontenttype", content_type);
        json_object_end(&w);
        json = b.failed ? STR_NULL : arena_str(&m->arena, buf_str(&b));
        buf_fini(&b);
        *ret_err = "out of memory";
        return json.p ? event_read(&m->arena, json, e, ret_err) : -ENOMEM;
}

/* Trace values that only the message's metadata has. */
static int add_trace(struct message *m, struct event *e)
{
        struct str id = rpc_md_get(&m->md, "traceid"), parent = rpc_md_get(&m->md, "traceparent"), state = rpc_md_get(&m->md, "tracestate");
        bool new_parent = parent.p && !e->raw[EVENT_TRACEPARENT].p;
        struct event_add add[] = {{"traceid", new_parent ? parent : id, new_parent}, {"traceparent", parent, false}, {"tracestate", state, false}};

        if ((!id.p || e->raw[EVENT_TRACEID].p) && !new_parent && (!state.p || e->raw[EVENT_TRACESTATE].p))
                return 0;
        return event_extend(&m->arena, e, add, 3);
}

/* 0, or <0 with the reason; `what` is what the log calls it. */
static int read_event(struct message *m, struct outgoing *o, const char **ret_err)
{
        struct str type = rpc_md_get(&m->md, "content-type");
        int r;

        o->body = m->data;
        if (m->sub->raw) {
                r = raw_event(m, &o->event, ret_err);
                o->body = o->event.json;
                return r;
        }
        if (content_is_binary(type)) {
                o->raw_data = m->data;
                return binary_event(m, type, &o->event, ret_err);
        }
        r = event_read(&m->arena, m->data, &o->event, ret_err);
        return r ? r : add_trace(m, &o->event);
}

/* ---- delivery ---- */

/* Attempts may go on for days: each has an arena of its own, in turns, so that the last error is still there. */
struct attempt {
        struct message *m;
        struct outgoing *o;
        const char *err;
        unsigned waits;              /* for an app that was away */
        struct arena tries[2];
};

void delivery_trace_begin(struct subscription *s, struct trace *t, struct arena *a, const struct event *e)
{
        struct str parent = e->json.p ? event_trace(a, e) : STR_NULL;

        *t = (struct trace){0};
        if (parent.p)
                trace_begin_event(t, s->block->k->tracer, parent, event_text(a, e, EVENT_TRACESTATE),
                                  str_of(arena_printf(a, "pubsub/%.*s", STR_FMT(s->topic))));
}

void delivery_trace_end(struct subscription *s, struct trace *t, int code, const char *err)
{
        if (trace_is_recorded(t)) {
                trace_attr(t, "messaging.system", STR("pubsub"));
                trace_attr(t, "messaging.destination.name", s->topic);
                if (s->stream || app_is_grpc(s->block->k->app) || !code)
                        trace_status_grpc(t, err ? code ? code : RPC_UNKNOWN : RPC_OK, str_of(err));
                else
                        trace_status_http(t, code);
        }
        trace_end(t);
}

/* One delivery in a trace of its own. */
enum delivery delivery_retry(const struct outgoing *o, struct delivered *d, double elapsed_ms, const char *err)
{
        pubsub_observe_ingress(o->sub->block->metrics, str_of(o->sub->pubsub), "retry", NULL, o->topic, elapsed_ms);
        d->err = err ? err : "out of memory";
        return DELIVERY_RETRY;
}

static enum delivery hand_out(struct attempt *x, struct delivered *d)
{
        struct subscription *s = x->m->sub;
        struct trace trace;
        enum delivery r;

        delivery_trace_begin(s, &trace, x->o->arena, &x->o->event);
        trace_install(&trace);
        if (s->stream)
                r = deliver_stream(x->o, d);
        else
                r = app_is_grpc(s->block->k->app) ? deliver_grpc(x->o, d) : deliver_http(x->o, d);
        trace_install(NULL);
        delivery_trace_end(s, &trace, d->code, r == DELIVERY_RETRY ? d->err : NULL);
        return r;
}

static int deliver_once(void *arg, struct policy_try *t)
{
        struct attempt *x = arg;
        struct subscription *s = x->m->sub;
        struct delivered d;
        enum delivery r;

        x->o->arena = &x->tries[t->attempt & 1];
        do {
                arena_reset(x->o->arena);
                d = (struct delivered){0};
                r = hand_out(x, &d);
        } while (r == DELIVERY_RETRY && d.lost && subscription_app_is_back(s, &x->waits));
        t->code = d.code;
        if (r == DELIVERED)
                return 0;
        if (r == DELIVERY_DROPPED) {
                if (!*s->spec->dead_letter || message_dead_letter(x->m) == 0)
                        return 0;
                x->err = "pubsub message dropped";
                log_warn(SCOPE, "failed to send dropped message to dead letter queue for topic %.*s: %s", STR_FMT(x->m->topic), x->err);
                return -1;
        }
        x->err = d.err ? d.err : "the app did not take the event";
        log_warn(SCOPE, "encountered a retriable error while publishing a subscribed message to topic %.*s, err: %s", STR_FMT(x->m->topic),
                 x->err);
        t->permanent = s->closed || d.closed;
        return -1;
}

static enum outcome deliver(struct message *m, struct outgoing *o, const char **ret_err)
{
        struct subscription *s = m->sub;
        struct attempt x = {.m = m, .o = o};
        struct policy policy = {0};
        enum outcome outcome = OUTCOME_HOLD;
        int r;

        resiliency_component_again(s->block->k, str_of(s->pubsub), KIND_PUBSUB, POLICY_INBOUND, &policy);
        r = (int)policy_run(&policy, deliver_once, &x);
        if (r == POLICY_OK)
                outcome = OUTCOME_ACK;
        else if (!s->closed && r != POLICY_CANCELED && !fiber_is_cancelled())
                outcome = refuse(m, r == POLICY_FAILED ? arena_strdup(&m->arena, str_of(x.err)) : policy_result_text((enum policy_result)r),
                                 ret_err);
        arena_fini(&x.tries[0]);
        arena_fini(&x.tries[1]);
        return outcome;
}

enum outcome message_deliver(struct message *m, const char **ret_err)
{
        struct subscription *s = m->sub;
        struct arena *a = &m->arena;
        struct outgoing o = {.sub = s, .arena = a, .topic = m->topic, .md = &m->md};
        const char *err = NULL;

        message_metadata_app(m);
        if (s->raw_error) {
                log_error(SCOPE, "error deserializing pubsub metadata: %s", s->raw_error);
                return refuse(m, s->raw_error, ret_err);
        }
        if (read_event(m, &o, &err)) {
                log_error(SCOPE, "error deserializing cloud event in pubsub %s and topic %.*s: %s", s->pubsub, STR_FMT(m->topic), err);
                return refuse(m, err, ret_err);
        }
        if (event_has_expired(a, &o.event)) {
                log_warn(SCOPE, "dropping expired pub/sub event %s as of %s", event_show(a, &o.event, EVENT_ID),
                         event_show(a, &o.event, EVENT_EXPIRATION));
                return forget(m, NULL);
        }
        if (rules_match(s->rules, a, &o.event, &o.path, &err)) {
                log_error(SCOPE, "error finding matching route for event %s in pubsub %s and topic %.*s: %s",
                          event_show(a, &o.event, EVENT_ID), s->pubsub, STR_FMT(m->topic), err);
                return refuse(m, err, ret_err);
        }
        if (!o.path) {
                log_debug(SCOPE, "no matching route for event %s in pubsub %s and topic %.*s; skipping", event_show(a, &o.event, EVENT_ID),
                          s->pubsub, STR_FMT(m->topic));
                return forget(m, "success");
        }
        return deliver(m, &o, ret_err);
}
