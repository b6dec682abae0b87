/*
 * Bulk subscriptions: messages are gathered until there are enough or the first has waited long enough; then the batch is split by
 * route and each part delivered at once. Retries carry only the entries that failed; each message is settled on its own.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "kernel/app/app.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime.processor.subscription"

struct batcher {
        struct subscription *sub;
        struct list waiting;         /* struct message.node */
        size_t n, max;
        double await_s, first_at;
        struct cond changed;
        bool stopping;
        struct scope scope;
};
struct batch {
        struct subscription *sub;
        struct arena arena;
        struct message **m;
        struct event *events;
        struct str *bodies;
        const char **paths;          /* NULL: settled or not to be sent */
        size_t n;
        int64_t counts[3];
        double elapsed_ms;
};

/* ---- one batch ---- */

static struct publish dead_letter_of(const struct subscription *s)
{
        return (struct publish){.pubsub = str_of(s->pubsub), .topic = str_of(s->spec->dead_letter)};
}

/* An entry that cannot go to the app as it is. */
static void reject(struct batch *b, size_t i, const char *err)
{
        b->m[i]->error = err ? err : "out of memory";
        b->m[i]->outcome = OUTCOME_NACK;
}

static void forget(struct batch *b, size_t i)
{
        b->counts[2]++;
        b->m[i]->outcome = OUTCOME_ACK;
        if (*b->sub->spec->dead_letter)
                message_dead_letter(b->m[i]);
}

/* Reads entry i and finds its route. */
static void prepare(struct batch *b, size_t i)
{
        struct subscription *s = b->sub;
        struct message *m = b->m[i];
        const char *err = NULL;
        int r;

        if (s->raw) {
                struct str coded = base64_encode(&b->arena, m->data);
                b->bodies[i] = str_of(arena_printf(&b->arena, "\"%.*s\"", STR_FMT(coded)));
                r = rules_match_text(s->rules, &b->arena, m->data, &b->paths[i], &err);
        } else {
                if (event_read(&b->arena, m->data, &b->events[i], &err)) {
                        log_error(SCOPE, "error deserializing one of the messages in bulk cloud event in pubsub %s and topic %.*s: %s",
                                  s->pubsub, STR_FMT(s->topic), err);
                        reject(b, i, err);
                        return;
                }
                if (event_has_expired(&b->arena, &b->events[i])) {
                        log_warn(SCOPE, "dropping expired pub/sub event %s as of %s", event_show(&b->arena, &b->events[i], EVENT_ID),
                                 event_show(&b->arena, &b->events[i], EVENT_EXPIRATION));
                        forget(b, i);
                        return;
                }
                b->bodies[i] = b->events[i].json;
                r = rules_match(s->rules, &b->arena, &b->events[i], &b->paths[i], &err);
        }
        if (r) {
                log_error(SCOPE, "Error finding matching route for event in bulk subscribe %s and topic %.*s for entry id %s: %s", s->pubsub,
                          STR_FMT(s->topic), m->entry_id, err);
                b->paths[i] = NULL;
                reject(b, i, err);
        } else if (!b->paths[i]) {
                log_warn(SCOPE, "No matching route for event in pubsub %s and topic %.*s; skipping", s->pubsub, STR_FMT(s->topic));
                forget(b, i);
        }
}

struct part { /* of a batch: the entries of one route that are not settled */
        struct batch *b;
        const char *path;
        size_t *at;
        size_t n;
        const char *err;
        unsigned waits;              /* for an app that was away */
        struct arena tries[2];       /* of the attempts, in turns: the last errors are still there */
};

/* The app gets one request for many events, so the trace that goes with it is the last event's. */
static int deliver_traced(struct bulk_delivery *d, bool *dropped, struct trace *traces)
{
        struct subscription *s = d->sub;
        struct trace *last = NULL;
        int r;

        for (size_t i = 0; i < d->n; i++) {
                delivery_trace_begin(s, &traces[i], d->arena, &d->events[i]);
                last = traces[i].has_ctx ? &traces[i] : last;
        }
        trace_install(last);
        r = app_is_grpc(s->block->k->app) ? bulk_grpc(d, dropped) : bulk_http(d, dropped);
        trace_install(NULL);
        for (size_t i = 0; i < d->n; i++)
                delivery_trace_end(s, &traces[i], d->code, d->err);
        return r;
}

/* Hands out what is left of the part; *ret as bulk_http. False: no memory. */
static bool hand_out(struct part *p, struct bulk_delivery *d, bool **ret_dropped, int *ret)
{
        struct batch *b = p->b;
        struct arena *a = d->arena;
        struct trace *traces;

        arena_reset(a);
        *d = (struct bulk_delivery){.sub = b->sub, .arena = a, .n = p->n, .path = p->path};
        traces = arena_alloc(a, p->n * sizeof *traces);
        *ret_dropped = arena_zalloc(a, p->n + 1);
        d->m = arena_alloc(a, p->n * sizeof *d->m);
        d->events = arena_alloc(a, p->n * sizeof *d->events);
        d->bodies = arena_alloc(a, p->n * sizeof *d->bodies);
        if (!*ret_dropped || !traces || !d->m || !d->events || !d->bodies)
                return false;
        for (size_t i = 0; i < p->n; i++) {
                d->m[i] = b->m[p->at[i]];
                d->events[i] = b->events[p->at[i]];
                d->bodies[i] = b->bodies[p->at[i]];
        }
        *ret = deliver_traced(d, *ret_dropped, traces);
        return true;
}

static int deliver_part(void *arg, struct policy_try *t)
{
        struct part *p = arg;
        struct batch *b = p->b;
        struct subscription *s = b->sub;
        struct bulk_delivery d = {.arena = &p->tries[t->attempt & 1]};
        size_t left = 0;
        bool *dropped;
        int r = -1;

        p->err = "out of memory";
        do
                if (!hand_out(p, &d, &dropped, &r))
                        return -1;
        while (r && d.lost && subscription_app_is_back(s, &p->waits));
        for (int i = 0; i < 3; i++)
                b->counts[i] += d.counts[i];
        b->elapsed_ms = d.elapsed_ms;
        for (size_t i = 0; i < p->n; i++) {
                if (dropped[i] && *s->spec->dead_letter)
                        message_dead_letter(d.m[i]);
                if (r == 0 || !d.m[i]->error)
                        d.m[i]->outcome = OUTCOME_ACK;
                else
                        p->at[left++] = p->at[i];
        }
        p->n = left;
        p->err = d.err;
        t->code = d.code;
        t->permanent = s->closed;
        return r == 0 || left == 0 ? 0 : -1;
}

static void deliver_path(struct batch *b, const char *path)
{
        struct subscription *s = b->sub;
        struct part p = {.b = b, .path = path, .at = arena_alloc(&b->arena, b->n * sizeof *p.at)};
        struct policy policy = {0};
        const char *err;
        int r;

        for (size_t i = 0; i < b->n; i++) {
                if (!b->paths[i] || strcmp(b->paths[i], path) != 0)
                        continue;
                b->paths[i] = NULL;
                if (!p.at) {
                        reject(b, i, NULL);
                        continue;
                }
                p.at[p.n++] = i;
        }
        if (!p.n)
                return;
        resiliency_component_again(s->block->k, str_of(s->pubsub), KIND_PUBSUB, POLICY_INBOUND, &policy);
        r = (int)policy_run(&policy, deliver_part, &p);
        err = r == POLICY_FAILED ? p.err : policy_result_text((enum policy_result)r);
        for (size_t i = 0; r && i < p.n; i++) {
                struct message *m = b->m[p.at[i]];
                if (s->closed || r == POLICY_CANCELED || fiber_is_cancelled())
                        m->outcome = OUTCOME_HOLD;
                else
                        reject(b, p.at[i], arena_strdup(&b->arena, str_of(r == POLICY_FAILED && m->error ? m->error : err)));
        }
        arena_fini(&p.tries[0]);
        arena_fini(&p.tries[1]);
}

/* What failed goes to the dead letter topic in one bulk; then it counts as dropped and taken. */
static void bury(struct batch *b)
{
        struct publish p = dead_letter_of(b->sub);
        struct rpc_mdlist md = {0};
        struct bulk_entry *e = arena_zalloc(&b->arena, (b->n + 1) * sizeof *e);
        const char *err = NULL;
        size_t n = 0;

        for (size_t i = 0; e && i < b->n; i++)
                if (b->m[i]->outcome == OUTCOME_NACK)
                        e[n++] = (struct bulk_entry){.id = str_of(b->m[i]->entry_id), .event = b->m[i]->data,
                                                     .content_type = b->m[i]->content_type, .md = b->m[i]->md};
        if (!n || !*b->sub->spec->dead_letter)
                return;
        rpc_md_add(&md, &b->arena, STR("pubsubName"), str_of(b->sub->pubsub));
        p.md = &md;
        if (pubsub_publish_bulk(b->sub->block->k, &b->arena, &p, e, n, &err) != PUBLISHED) {
                log_error(SCOPE, "error sending message to dead letter, origin topic: %.*s dead letter topic %s err: %s",
                          STR_FMT(b->sub->topic), b->sub->spec->dead_letter, err);
                return;
        }
        b->counts[2] += (int64_t)n;
        b->counts[1] -= b->counts[1] < (int64_t)n ? b->counts[1] : (int64_t)n;
        for (size_t i = 0; i < b->n; i++)
                if (b->m[i]->outcome == OUTCOME_NACK)
                        b->m[i]->outcome = OUTCOME_ACK;
}

static void run_batch(struct batch *b)
{
        struct subscription *s = b->sub;

        for (size_t i = 0; i < b->n; i++) {
                b->m[i]->outcome = OUTCOME_HOLD;
                if (s->raw_error)
                        reject(b, i, s->raw_error);
                else if (!s->closed)
                        prepare(b, i);
        }
        if (s->raw_error)
                log_error(SCOPE, "error deserializing pubsub metadata: %s", s->raw_error);
        for (size_t i = 0; i < b->n && !s->closed; i++)
                if (b->paths[i])
                        deliver_path(b, b->paths[i]);
        bury(b);
        pubsub_observe_bulk_ingress(s->block->metrics, s->topic, b->elapsed_ms, b->counts);
}

static struct batch *batch_new(struct batcher *w)
{
        struct batch *b = calloc(1, sizeof *b);

        if (!b)
                return NULL;
        b->sub = w->sub;
        b->m = arena_alloc(&b->arena, w->n * sizeof *b->m);
        b->events = arena_zalloc(&b->arena, w->n * sizeof *b->events);
        b->bodies = arena_zalloc(&b->arena, w->n * sizeof *b->bodies);
        b->paths = arena_zalloc(&b->arena, w->n * sizeof *b->paths);
        if (!b->m || !b->events || !b->bodies || !b->paths) {
                arena_fini(&b->arena);
                free(b);
                return NULL;
        }
        while (b->n < w->max && !list_is_empty(&w->waiting)) {
                struct message *m = list_entry(w->waiting.next, struct message, node);
                char *id = arena_alloc(&m->arena, UUID_CHARS + 1);
                list_del(&m->node);
                w->n--;
                if (id && uuid_random(id) == 0) {
                        m->entry_id = id;
                        b->m[b->n++] = m;
                } else {
                        message_settle(m, OUTCOME_NACK, "out of memory");
                }
        }
        return b;
}

static void batch_fiber(void *arg)
{
        struct batch *b = arg;
        struct arena a;

        bool go_on = subscription_wait_resumed(b->sub);
        if (go_on)
                run_batch(b);
        for (size_t i = 0; i < b->n; i++)
                message_settle(b->m[i], go_on ? b->m[i]->outcome : OUTCOME_HOLD, b->m[i]->error);
        a = b->arena;
        free(b);
        arena_fini(&a);
}

/* ---- gathering ---- */

static void flush(struct batcher *w)
{
        struct batch *b = batch_new(w);

        w->first_at = loop_now();
        if (!b)
                return; /* tried again a while later */
        if (fiber_go(&w->sub->handling, "batch", batch_fiber, b))
                batch_fiber(b);
}

static void batcher_fiber(void *arg)
{
        struct batcher *w = arg;

        while (!w->stopping) {
                double due = w->n ? w->first_at + w->await_s : INFINITY;
                if (w->n >= w->max || (w->n && loop_now_exact() >= due))
                        flush(w);
                else if (cond_wait_until(&w->changed, due) == -ECANCELED)
                        return;
        }
}

int batcher_start(struct subscription *s)
{
        struct batcher *w = calloc(1, sizeof *w);
        const struct subscription_spec *spec = s->spec;

        if (!w)
                return -ENOMEM;
        w->sub = s;
        list_init(&w->waiting);
        cond_init(&w->changed);
        scope_init(&w->scope);
        w->max = spec->bulk_max_messages > 0 ? (size_t)spec->bulk_max_messages : PUBSUB_BULK_MESSAGES;
        w->await_s = (spec->bulk_max_await_ms > 0 ? spec->bulk_max_await_ms : PUBSUB_BULK_AWAIT_MS) / 1e3;
        if (fiber_go(&w->scope, "batcher", batcher_fiber, w)) {
                free(w);
                return -ENOMEM;
        }
        s->batcher = w;
        return 0;
}

void batcher_add(struct subscription *s, struct message *m)
{
        struct batcher *w = s->batcher;

        if (w->n++ == 0)
                w->first_at = loop_now_exact();
        list_add_tail(&w->waiting, &m->node);
        cond_signal(&w->changed);
}

void batcher_stop(struct subscription *s)
{
        struct batcher *w = s->batcher;

        if (!w)
                return;
        w->stopping = true;
        scope_cancel(&w->scope);
        scope_join(&w->scope);
        while (!list_is_empty(&w->waiting)) {
                struct message *m = list_entry(w->waiting.next, struct message, node);
                list_del(&m->node);
                message_settle(m, OUTCOME_HOLD, NULL);
        }
        s->batcher = NULL;
        free(w);
}
