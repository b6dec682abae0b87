/*
 * A running subscription: its start, its stream and who reads it (pull_fiber), a broker that moves, the stop. What the stream brings
 * goes to inbox.c.
 *
 * Stopping: (pause) -> closed -> the app finishes what it has -> half-close, so that the plugin reads the last acknowledgements ->
 * cancel. What was read and not begun is dropped without a word.
 */
#include "kernel/blocks/pubsub/pull.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/pubsub.pb-c.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/flags.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime.processor.subscription"

static const double RETRY_MIN_S = 0.1, RETRY_MAX_S = 15, START_S = 5, REOPEN_MAX_S = 1, POLL_S = 0.02, LAST_ACKS_S = 0.4,
                    PAUSED_LOOK_S = 0.5;
enum { STABLE_POLLS = 5 };

/* ---- reading ---- */

static bool window_is_full(const struct subscription *s)
{
        return !s->closed && (s->paused || s->in_flight >= s->max_messages || (s->in_flight && s->bytes >= s->max_bytes));
}

/* Parks until the window may have opened. A paused subscription leaves a stream whose plugin has gone, so that the next one holds it.
 * Not 0: to be left. */
static int wait_window(struct subscription *s, struct pull *p)
{
        int r = cond_wait_until(&s->changed, s->paused ? loop_now() + PAUSED_LOOK_S : INFINITY);

        if (r == -ETIMEDOUT && !fiber_is_cancelled())
                r = s->paused && rpc_is_broken(p->call) ? -ECONNRESET : 0;
        return r;
}

static void read_stream(struct subscription *s, struct pull *p)
{
        struct str bytes;

        for (;;) {
                while (window_is_full(s))
                        if (wait_window(s, p))
                                return;
                if (rpc_recv(p->call, &bytes) != 1)
                        return;
                s->n_read++;
                if (s->closed || p->closed)
                        continue;
                message_take(s, p, bytes);
        }
}

static void first_try_over(struct subscription *s, const char *err)
{
        if (s->started)
                return;
        s->started = true;
        s->start_error = err;
        cond_broadcast(&s->changed);
}

static void log_failed(struct subscription *s, const char *err)
{
        if (s->away)
                return;
        if (s->started)
                log_error(SCOPE, "Retry failed for subscription pubsub %s, topic %.*s: %s. Will retry.", s->pubsub, STR_FMT(s->topic), err);
        else
                first_try_over(s, arena_strdup(&s->arena, str_of(err)));
}

/* Reads p to its end. False: another stream has taken over, or there is nothing more to do. */
static bool follow(struct subscription *s, struct pull *p)
{
        bool go_on;

        read_stream(s, p);
        go_on = !p->replaced && !s->closed && !fiber_is_cancelled();
        if (go_on && !s->away)
                log_error(SCOPE, "Failed to receive pubsub message: rpc error: code = %s desc = %.*s", rpc_code_name(p->call->status.code),
                          STR_FMT(p->call->status.message));
        pull_close(s, p);
        return go_on;
}

static bool wait_until_back(struct subscription *s)
{
        while (s->away && !s->closed)
                if (cond_wait(&s->changed))
                        return false;
        return !s->closed;
}

static struct component *broker_component(const struct subscription *s)
{
        struct broker *b = pubsub_broker(s->block->k, str_of(s->pubsub));

        return b ? b->component : NULL;
}

static void pull_fiber(void *arg)
{
        struct subscription *s = arg;
        double wait_s = RETRY_MIN_S;
        bool failed = false;

        while (wait_until_back(s)) {
                struct arena a = {0};
                const char *err = NULL;
                double since = loop_now_exact();
                size_t before = s->n_read;
                bool go_on = true;
                int r = pull_open(s, broker_component(s), &a, &s->pull, &err);
                if (r == 0) {
                        if (failed)
                                log_info(SCOPE, "Successfully started subscription after retry for pubsub %s, topic %.*s", s->pubsub,
                                         STR_FMT(s->topic));
                        first_try_over(s, NULL);
                        go_on = follow(s, s->pull);
                        if (s->n_read != before)
                                wait_s = RETRY_MIN_S;
                        else if (wait_s > REOPEN_MAX_S) /* the broker's plugin is there */
                                wait_s = REOPEN_MAX_S;
                } else {
                        log_failed(s, err);
                }
                if (r && loop_now_exact() - since > START_S) /* it has waited long enough */
                        wait_s = RETRY_MIN_S;
                failed = r != 0;
                arena_fini(&a);
                if (!go_on || s->closed || fiber_sleep(wait_s))
                        return;
                wait_s = wait_s * 2 < RETRY_MAX_S ? wait_s * 2 : RETRY_MAX_S;
        }
}

/* ---- a broker that moves, goes and comes back ---- */

/* Reads on where another stream was; when that ends in turn it is opened again as any. */
static void moved_fiber(void *arg)
{
        struct pull *p = arg;
        struct subscription *s = p->sub;

        if (follow(s, p))
                pull_fiber(s);
}

void subscription_unbusy(struct subscription *s)
{
        s->busy--;
        cond_broadcast(&s->changed);
}

void subscription_move(struct subscription *s, struct component *to)
{
        struct pull *old = s->pull, *p;
        struct arena a = {0};
        const char *err = NULL;

        if (s->closed || s->away || !old) /* without a stream: the next try finds the new one */
                return;
        s->busy++;
        if (pull_open(s, to, &a, &p, &err)) {
                log_error(SCOPE, "Failed to reload subscription for pubsub %s, topic %.*s: %s", s->pubsub, STR_FMT(s->topic), err);
        } else if (s->closed || s->pull != old || fiber_go(&s->pulling, "pull", moved_fiber, p)) {
                pull_close(s, p);
        } else {
                old->replaced = true;
                list_add_tail(&s->older, &old->node);
                s->pull = p;
        }
        arena_fini(&a);
        subscription_unbusy(s);
}

/* What the old plugin still had on its way goes to the app, while its stream has not been quiet for a moment. */
static void wait_quiet(struct pull *p, double deadline)
{
        for (int quiet = 0; quiet < STABLE_POLLS && !p->dead && !p->sub->closed && loop_now() < deadline; fiber_sleep(POLL_S))
                quiet = p->refs > 2 ? 0 : quiet + 1;
}

/* Its messages are settled, the plugin has read the last acknowledgements, its reader has ended. Takes one reference. */
static void end_pull(struct subscription *s, struct pull *p, double deadline)
{
        bool busy = p->refs > 2;
        double until;

        p->closed = true;
        while (p->refs > 2 && !s->closed && cond_wait_until(&s->changed, deadline) != -ETIMEDOUT)
                ;
        if (busy && s->foreign && !p->dead)
                fiber_sleep(LAST_ACKS_S);
        if (!p->dead)
                rpc_send_end(p->call);
        for (until = loop_now_exact() + LAST_ACKS_S; !p->dead && !s->closed;)
                if (cond_wait_until(&s->changed, until) == -ETIMEDOUT)
                        break;
        if (!p->dead && !s->closed) /* a stop ends its reader itself */
                rpc_cancel(p->call);
        pull_unref(p);
}

void subscription_moved(struct subscription *s, bool paused)
{
        double deadline = loop_now_exact() + PUBSUB_DRAIN_S;

        s->busy++;
        fiber_shield_begin();
        while (!list_is_empty(&s->older)) {
                struct pull *p = list_entry(s->older.next, struct pull, node);
                p->refs++;
                if (paused || s->in_memory)
                        wait_quiet(p, deadline);
                list_del(&p->node);
                end_pull(s, p, deadline);
        }
        fiber_shield_end();
        subscription_unbusy(s);
}

void subscription_leave(struct subscription *s)
{
        struct pull *p = s->pull;

        s->away = true;
        if (!p)
                return;
        s->busy++;
        fiber_shield_begin();
        p->refs++;
        end_pull(s, p, loop_now_exact() + PUBSUB_DRAIN_S);
        fiber_shield_end();
        subscription_unbusy(s);
}

void subscription_arrive(struct subscription *s)
{
        s->away = false;
        cond_broadcast(&s->changed);
}

/* ---- start ---- */

static size_t limit(const struct subscription_spec *spec, const char *key, size_t fallback, size_t max)
{
        const char *text = subscription_metadata(spec, key);
        long long v;
        char *end;

        if (!text)
                return fallback;
        errno = 0;
        v = strtoll(text, &end, 10);
        if (errno || end == text || *end || v <= 0) {
                log_warn(SCOPE, "%s of the subscription to topic %s on pubsub %s is no positive number: '%s' does not count", key, spec->topic,
                         spec->pubsub, text);
                return fallback;
        }
        return (size_t)v < max ? (size_t)v : max;
}

/* A duration, or a number of seconds. */
static double seconds(const struct subscription_spec *spec, const char *key, double fallback)
{
        const char *text = subscription_metadata(spec, key);
        int64_t n;

        if (!text)
                return fallback;
        if (parse_int64(str_of(text), &n) == 0 && n > 0)
                return (double)n;
        if (parse_duration(str_of(text), &n) == 0 && n > 0)
                return (double)n / 1e9;
        log_warn(SCOPE, "%s of the subscription to topic %s on pubsub %s is no duration such as 30s: '%s' does not count", key, spec->topic,
                 spec->pubsub, text);
        return fallback;
}

static void read_limits(struct subscription *s)
{
        const char *key = subscription_metadata(s->spec, "orderingKey");
        size_t bulk = s->spec->bulk_max_messages > 0 ? (size_t)s->spec->bulk_max_messages : PUBSUB_BULK_MESSAGES;

        /* a foreign broker gets its messages one by one, as from the reference, unless told otherwise */
        s->max_concurrency = limit(s->spec, "maxConcurrency", s->foreign ? 1 : PUBSUB_CONCURRENCY, PUBSUB_IN_FLIGHT_MAX);
        s->max_bytes = limit(s->spec, "maxBytesInFlight", PUBSUB_BYTES_IN_FLIGHT_MAX, PUBSUB_BYTES_IN_FLIGHT_MAX);
        s->max_messages = s->max_concurrency;
        s->ordering_key = str_of(key ? key : "");
        s->subscribe_s = seconds(s->spec, "subscribeTimeout", PUBSUB_SUBSCRIBE_S);
        if (s->ordering_key.n && s->max_messages < PUBSUB_IN_FLIGHT_MAX / PUBSUB_LANES_WINDOW)
                s->max_messages *= PUBSUB_LANES_WINDOW;
        if (s->spec->bulk)
                s->max_messages = 2 * bulk > s->max_concurrency || s->foreign ? 2 * bulk : s->max_concurrency;
        /* this broker hands out one message after the other in the reference, and apps count their bulks */
        if (s->spec->bulk && s->in_memory && !subscription_metadata(s->spec, "maxConcurrency"))
                s->max_messages = 1;
        fsem_init(&s->slots, (long)s->max_concurrency);
}

static void subscription_free(struct subscription *s)
{
        struct arena a;

        if (!s)
                return;
        rules_free(s->rules);
        map_fini(&s->lanes);
        a = s->arena;
        free(s);
        arena_fini(&a);
}

static bool is_in_memory(const struct broker *b)
{
        return !b->foreign && strcmp(component_spec_of(b->component)->type, "pubsub.in-memory") == 0;
}

bool subscription_is_outdated(struct subscription *s)
{
        struct broker *b = pubsub_broker(s->block->k, str_of(s->pubsub));
        struct arena a = {0};
        bool outdated = b && (b->foreign != s->foreign || is_in_memory(b) != s->in_memory ||
                              !str_eq(broker_topic(&a, s->block->k, b, s->topic), s->broker_topic) ||
                              (s->spec->origin != SUBSCRIPTION_INTERNAL && !broker_allows(b, s->topic, &b->subscribing)));

        arena_fini(&a);
        return outdated;
}

static int check(struct subscription *s, struct arena *a, const char **ret_err)
{
        const struct kernel *k = s->block->k;
        struct broker *b = pubsub_broker(s->block->k, str_of(s->pubsub));
        struct rpc_mdlist md = {0};

        if (!b) {
                *ret_err = arena_printf(a, "pubsub '%s' not found", s->pubsub);
                return -ENOENT;
        }
        if (s->spec->origin != SUBSCRIPTION_INTERNAL && !broker_allows(b, s->topic, &b->subscribing)) {
                *ret_err = arena_printf(a, "subscription to topic '%.*s' on pubsub '%s' is not allowed", STR_FMT(s->topic), s->pubsub);
                return -EACCES;
        }
        s->foreign = b->foreign;
        s->in_memory = is_in_memory(b);
        s->broker_topic = broker_topic(&s->arena, k, b, s->topic);
        for (size_t i = 0; i < s->spec->n_metadata; i++)
                if (rpc_md_add(&md, a, str_of(s->spec->metadata[i].key), str_of(s->spec->metadata[i].value)))
                        return -ENOMEM;
        if (event_is_raw(&md, &s->arena, &s->raw, &s->raw_error) == 0)
                s->raw_error = NULL;
        return s->broker_topic.p ? rules_new(&s->rules, s->spec, a, ret_err) : -ENOMEM;
}

int subscription_start(struct subscription **ret, struct pubsub_block *b, const struct subscription_spec *spec, message_fn handler,
                       void *arg, struct arena *a, const char **ret_err)
{
        struct subscription *s = calloc(1, sizeof *s);
        struct policy counted;
        int r;

        *ret_err = "out of memory";
        if (!s)
                return -ENOMEM;
        s->block = b;
        s->spec = spec;
        s->pubsub = spec->pubsub;
        s->topic = str_of(spec->topic);
        s->handle = handler;
        s->arg = arg;
        s->stream = spec->origin == SUBSCRIPTION_STREAMING ? arg : NULL;
        list_init(&s->node);
        list_init(&s->older);
        cond_init(&s->changed);
        scope_init(&s->pulling);
        scope_init(&s->handling);
        r = check(s, a, ret_err);
        if (r == 0) {
                read_limits(s);
                s->paused = subscriptions_are_paused(b, s->pubsub, spec->topic);
                if (spec->bulk)
                        r = batcher_start(s);
        }
        if (r == 0) {
                resiliency_component(b->k, str_of(s->pubsub), KIND_PUBSUB, POLICY_INBOUND, &counted);
                policy_release(&counted);
                r = fiber_go(&s->pulling, "pull", pull_fiber, s);
        }
        if (r) {
                batcher_stop(s);
                subscription_free(s);
                return r;
        }
        for (double until = loop_now_exact() + START_S; r == 0 && !s->started;)
                r = cond_wait_until(&s->changed, until);
        if (r == -ECANCELED) {
                subscription_stop(s, false);
                *ret_err = "context canceled";
                return r;
        }
        *ret = s; /* a broker that takes its time: goes on by itself */
        return 0;
}

/* ---- stop ---- */

static bool pause_plugin(struct subscription *s)
{
        Dapr__Proto__Components__V1__PauseRequest req = DAPR__PROTO__COMPONENTS__V1__PAUSE_REQUEST__INIT;
        struct broker *b = pubsub_broker(s->block->k, str_of(s->pubsub));
        void *resp;
        struct rpc_status st = {0};
        struct arena a = {0};
        double old;
        int r;

        if (!b || !s->pull) /* a broker that is away hands out nothing */
                return false;
        log_info(SCOPE, "pausing subscription on topic %.*s during graceful shutdown", STR_FMT(s->topic));
        old = fiber_set_deadline(loop_now_exact() + PUBSUB_PAUSE_S);
        r = component_call(b->component, &a, PUBSUB_SERVICE "Pause", &req.base, &dapr__proto__components__v1__pause_response__descriptor, &resp, &st);
        fiber_restore_deadline(old);
        if (r && r != RPC_UNIMPLEMENTED)
                log_warn(SCOPE, "failed to pause subscription on topic %.*s during graceful shutdown: %s", STR_FMT(s->topic),
                         broker_error(&a, b, &st));
        arena_fini(&a);
        return r == 0;
}

/* What the plugin still hands out while it is paused goes to the app. False: time is up. */
static bool drain_paused(struct subscription *s, double deadline, bool *had_work)
{
        for (int quiet = 0; quiet < STABLE_POLLS; fiber_sleep(POLL_S)) {
                if (s->in_flight) {
                        *had_work = true;
                        quiet = 0;
                        if (loop_now() > deadline)
                                return false;
                } else {
                        quiet++;
                }
        }
        return true;
}

void subscription_stop(struct subscription *s, bool graceful)
{
        double deadline;
        bool had_work, in_time = true, busy = s->in_flight > 0;

        fiber_shield_begin();
        deadline = loop_now_exact() + PUBSUB_DRAIN_S;
        /* one that somebody has paused hands back what it holds */
        if (graceful && !s->paused && pause_plugin(s)) {
                had_work = s->in_flight > 0;
                in_time = drain_paused(s, deadline, &had_work);
                if (!in_time)
                        log_warn(SCOPE, "drain exceeded %ds; sealing with inflight=%zu on topic %.*s", PUBSUB_DRAIN_S, s->in_flight,
                                 STR_FMT(s->topic));
        }
        s->closed = true;
        had_work = s->in_flight > 0 || graceful;
        cond_broadcast(&s->changed);
        batcher_stop(s);
        while (in_time && s->in_flight)
                in_time = cond_wait_until(&s->changed, deadline) != -ETIMEDOUT;
        scope_cancel(&s->handling);
        scope_join(&s->handling);
        if (s->pull && busy && s->foreign && !graceful)
                fiber_sleep(LAST_ACKS_S); /* a broker of the reference's contract gets the reference's moment to take the last answers */
        if (s->pull && had_work && in_time) {
                double until = loop_now_exact() + LAST_ACKS_S;
                rpc_send_end(s->pull->call);
                while (s->pull && cond_wait_until(&s->changed, until) == 0)
                        ;
        }
        scope_cancel(&s->pulling);
        scope_join(&s->pulling);
        while (s->busy)
                cond_wait(&s->changed);
        if (s->handed_back)
                log_info(SCOPE, "subscription to topic %.*s on pubsub %s ended: %zu messages were handed back", STR_FMT(s->topic), s->pubsub,
                         s->handed_back);
        fiber_shield_end();
        subscription_free(s);
}

void subscription_pause(struct subscription *s)
{
        s->paused = true;
}

void subscription_resume(struct subscription *s)
{
        s->paused = false;
        cond_broadcast(&s->changed);
}

bool subscription_wait_resumed(struct subscription *s)
{
        while (s->paused && !s->closed)
                if (cond_wait(&s->changed))
                        return false;
        return !s->closed;
}
