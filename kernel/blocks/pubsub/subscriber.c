/*
 * Which subscriptions the app has, and when they run. Declarative ones come from the resources, and change with them; programmatic ones
 * are asked for once (subscriber_ask.c), when the app is first healthy. For one topic of one broker a programmatic subscription wins over a declarative one, and
 * the first declarative one over later ones. They run while the app is healthy; one that cannot be started goes on trying by itself.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/subscription.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.runtime.processor.subscription"

/* ---- declarative ---- */

/* NULL, logged, when it is wrong; *ret_skip: as a document, which is left out. */
static struct subscription_spec *read_one(struct raw_resource *r, bool *ret_skip)
{
        struct subscription_spec *spec = NULL;
        struct rule_set *rules = NULL;
        struct arena a = {0};
        const char *err = NULL;
        int e = subscription_read(&r->arena, r, &spec, &err);

        *ret_skip = e == -EINVAL;
        if (e == 0)
                e = rules_new(&rules, spec, &a, &err);
        if (*ret_skip)
                log_warn("dapr.runtime.loader.disk", "daprd load Subscription error when parsing manifests yaml resource in %s: %s", r->file, err);
        else if (e)
                log_error(SCOPE, "error in Subscription %s (%s:%d): %s", r->name, r->file, r->line, err ? err : "out of memory");
        rules_free(rules);
        arena_fini(&a);
        if (e)
                return NULL;
        spec->resource = r;
        return spec;
}

bool subscriber_accepts(struct raw_resource *r)
{
        bool skip;

        return read_one(r, &skip) != NULL;
}

int subscriber_init(struct pubsub_block *b)
{
        const struct resource_set *set = &b->k->resources;

        log_info("dapr.runtime", "Loading Declarative Subscriptions…");
        b->declared = calloc(set->n_others + 1, sizeof *b->declared);
        if (!b->declared)
                return -ENOMEM;
        for (size_t i = 0; i < set->n_others; i++) {
                bool skip;
                if (strcmp(set->others[i]->kind, "Subscription") != 0)
                        continue;
                log_info("dapr.runtime", "Found Subscription: %s", set->others[i]->name);
                b->declared[b->n_declared] = read_one(set->others[i], &skip);
                if (b->declared[b->n_declared])
                        b->n_declared++;
                else if (!skip)
                        return -EINVAL;
        }
        return 0;
}

/* ---- precedence ---- */

static bool same_topic(const struct subscription_spec *a, const struct subscription_spec *b)
{
        return strcmp(a->topic, b->topic) == 0 && strcmp(a->pubsub, b->pubsub) == 0;
}

/* Puts s where another for its topic stands, if `wins`, or at the end. */
static void merge(const struct subscription_spec **v, size_t *n, const struct subscription_spec *s, bool wins)
{
        for (size_t i = 0; i < *n; i++)
                if (same_topic(v[i], s)) {
                        if (wins)
                                v[i] = s;
                        return;
                }
        v[(*n)++] = s;
}

static int list_of(struct pubsub_block *b, struct subscription_spec *const *declared, size_t n_declared, struct arena *a,
                   const struct subscription_spec ***ret, size_t *ret_n)
{
        const struct subscription_spec **v;
        size_t n = 0, streams = 0;

        list_for_each(at, &b->streams)
                streams++;
        v = arena_alloc(a, (n_declared + b->n_programmatic + streams + 1) * sizeof *v);
        if (!v)
                return -ENOMEM;
        for (size_t i = 0; i < n_declared; i++)
                merge(v, &n, declared[i], false);
        for (size_t i = 0; i < b->n_programmatic; i++)
                merge(v, &n, b->programmatic[i], true);
        list_for_each(at, &b->streams)
                v[n++] = list_entry(at, struct subscription, node)->spec;
        *ret = v;
        *ret_n = n;
        return 0;
}

/* A subscription at its first try to open its stream. */
struct first {
        struct list node; /* pubsub_block.starting */
        struct pubsub_block *b;
        const struct subscription_spec *spec;
};

static bool is_starting(const struct pubsub_block *b, const struct subscription_spec *spec)
{
        list_for_each(at, &b->starting)
                if (list_entry(at, struct first, node)->spec == spec)
                        return true;
        return false;
}

int subscriber_list(struct pubsub_block *b, struct arena *a, const struct subscription_spec ***ret, size_t *ret_n)
{
        size_t n = 0;
        int r = list_of(b, b->declared, b->n_declared, a, ret, ret_n);

        for (size_t i = 0; !r && i < *ret_n; i++)
                if ((*ret)[i]->origin != SUBSCRIPTION_PROGRAMMATIC || !is_starting(b, (*ret)[i]))
                        (*ret)[n++] = (*ret)[i];
        if (!r)
                *ret_n = n;
        return r;
}

/* ---- start and stop ---- */

static void start_one(struct pubsub_block *b, const struct subscription_spec *spec)
{
        struct subscription *s;
        struct arena a = {0};
        const char *err = NULL;
        int r;

        if (!kernel_component(b->k, KIND_PUBSUB, str_of(spec->pubsub))) /* as the reference: nothing to say */
                return;
        r = subscription_start(&s, b, spec, message_deliver, NULL, &a, &err);
        if (r == 0) {
                list_add_tail(&b->running, &s->node);
                err = s->start_error ? arena_printf(&a, "failed to subscribe to topic %s: %s", spec->topic, s->start_error) : NULL;
        }
        if (err && (r || s->start_error))
                log_error(SCOPE, "Failed to start subscription for pubsub %s, topic %s: %s", spec->pubsub, spec->topic, err);
        arena_fini(&a);
}

static void start_fiber(void *arg)
{
        struct first *x = arg;

        start_one(x->b, x->spec);
        list_del(&x->node);
}

/* At once: one broker that takes its time does not hold up the others. */
static void start_all(struct pubsub_block *b, const struct subscription_spec **v, size_t n, struct arena *a)
{
        struct scope scope = SCOPE_INIT(scope);
        struct first *x = arena_alloc(a, (n + 1) * sizeof *x);

        for (size_t i = 0; i < n && !b->closed; i++) {
                if (v[i]->origin == SUBSCRIPTION_STREAMING)
                        continue;
                if (x) {
                        x[i] = (struct first){.b = b, .spec = v[i]};
                        list_add_tail(&b->starting, &x[i].node);
                }
                if (!x || fiber_go(&scope, "subscribe", start_fiber, &x[i])) {
                        if (x)
                                list_del(&x[i].node);
                        start_one(b, v[i]);
                }
        }
        scope_join(&scope);
}

struct stop {
        struct subscription *s;
        bool graceful;
};

static void drain_and_hold(struct subscription *s)
{
        struct pubsub_block *b = s->block;
        struct stream_app *app = stream_drain(s);

        b->undrained--;
        cond_broadcast(&b->hung);
        while (b->holding)
                cond_wait(&b->hung);
        stream_end(app);
}

static void stop_fiber(void *arg)
{
        struct stop *x = arg;

        if (x->s->stream)
                drain_and_hold(x->s);
        else
                subscription_stop(x->s, x->graceful);
        free(x);
}

/* Without a fiber, which cannot be had. */
static void stop_at_once(struct stop *x)
{
        struct pubsub_block *b = x->s->block;

        if (!x->s->stream) {
                subscription_stop(x->s, x->graceful);
                return;
        }
        stream_end(stream_drain(x->s));
        b->undrained--;
}

/* All of a list at once. */
static void stop_all(struct list *l, bool graceful, struct scope *scope)
{
        list_for_each_safe(at, next, l) {
                struct stop *x = calloc(1, sizeof *x), here = {list_entry(at, struct subscription, node), graceful};
                list_del(at);
                if (here.s->stream) {
                        here.s->block->undrained++;
                        stream_leave(here.s);
                }
                if (x)
                        *x = here;
                if (!x || fiber_go(scope, "unsubscribe", stop_fiber, x)) {
                        free(x);
                        stop_at_once(&here);
                }
        }
}

static void stop_running(struct pubsub_block *b, bool graceful)
{
        struct scope scope;

        scope_init(&scope);
        stop_all(&b->running, graceful, &scope);
        fiber_shield_begin();
        scope_join(&scope);
        fiber_shield_end();
}

void subscriber_start(struct pubsub_block *b)
{
        const struct subscription_spec **v;
        struct arena a = {0};
        size_t n;

        if (b->closed || fmutex_lock(&b->lock))
                return;
        if (!b->active && !b->closed && subscriber_ask(b) == 0) {
                b->active = true;
                if (list_of(b, b->declared, b->n_declared, &a, &v, &n) == 0)
                        start_all(b, v, n, &a);
        }
        arena_fini(&a);
        fmutex_unlock(&b->lock);
}

static bool is_running(struct pubsub_block *b, const struct subscription_spec *spec)
{
        list_for_each(at, &b->running)
                if (list_entry(at, struct subscription, node)->spec == spec)
                        return true;
        return false;
}

/* ---- changes ---- */

static bool is_wanted(const struct subscription_spec **v, size_t n, const struct subscription_spec *spec)
{
        for (size_t i = 0; i < n; i++)
                if (v[i] == spec)
                        return true;
        return false;
}

/* Ends what is not wanted any more, or by another broker's name than it is known by now; begins what is wanted and does not run. */
static void reconcile(struct pubsub_block *b, struct subscription_spec *const *declared, size_t n_declared)
{
        const struct subscription_spec **v;
        struct list ending = LIST_INIT(ending);
        struct scope scope = SCOPE_INIT(scope);
        struct arena a = {0};
        size_t n;

        if (!b->active || b->closed || subscriber_ask(b) || list_of(b, declared, n_declared, &a, &v, &n)) {
                arena_fini(&a);
                return;
        }
        list_for_each_safe(at, next, &b->running) {
                struct subscription *s = list_entry(at, struct subscription, node);
                if (is_wanted(v, n, s->spec) && !subscription_is_outdated(s))
                        continue;
                list_del(&s->node);
                list_add_tail(&ending, &s->node);
        }
        stop_all(&ending, false, &scope);
        fiber_shield_begin();
        scope_join(&scope);
        fiber_shield_end();
        for (size_t i = 0; i < n && !b->closed && b->active; i++)
                if (v[i]->origin != SUBSCRIPTION_STREAMING && !is_running(b, v[i]))
                        start_one(b, v[i]);
        arena_fini(&a);
}

static bool has_resource(const struct resource_set *set, const struct raw_resource *r)
{
        for (size_t i = 0; i < set->n_others; i++)
                if (set->others[i] == r)
                        return true;
        return false;
}

/* Those that stay, in their order; returns how many. */
static size_t take_kept(struct pubsub_block *b, const struct resource_set *set, struct subscription_spec **v)
{
        size_t n = 0;

        for (size_t i = 0; i < b->n_declared; i++)
                if (has_resource(set, b->declared[i]->resource))
                        v[n++] = b->declared[i];
        return n;
}

/* Behind them those that are new; returns how many there are together. */
static size_t take_new(const struct resource_set *set, struct subscription_spec **v, size_t kept)
{
        size_t n = kept;

        for (size_t i = 0; i < set->n_others; i++) {
                bool known = strcmp(set->others[i]->kind, "Subscription") != 0, skip;
                for (size_t k = 0; k < kept; k++)
                        known |= v[k]->resource == set->others[i];
                if (!known && (v[n] = read_one(set->others[i], &skip)))
                        n++;
        }
        return n;
}

int subscriber_reload(struct pubsub_block *b, const struct resource_set *set)
{
        struct subscription_spec **v = calloc(b->n_declared + set->n_others + 1, sizeof *v), **old = b->declared;
        size_t n;

        if (!v)
                return -ENOMEM;
        /* what goes is not seen any more from now on; what comes is seen when it stands */
        b->n_declared = take_kept(b, set, v);
        b->declared = v;
        n = take_new(set, v, b->n_declared);
        fiber_shield_begin();
        if (fmutex_lock(&b->lock) == 0) {
                reconcile(b, v, n);
                b->n_declared = n;
                fmutex_unlock(&b->lock);
        }
        fiber_shield_end();
        free(old);
        return 0;
}

/* The next subscription to the broker that this round has not seen; those of streams and the outbox too. */
static struct subscription *next_of(struct pubsub_block *b, const char *name, unsigned round, bool running)
{
        struct list *lists[] = {&b->streams, &b->internal, &b->running};

        for (size_t i = 0; i < (running ? 3 : 2); i++)
                list_for_each(at, lists[i]) {
                        struct subscription *s = list_entry(at, struct subscription, node);
                        if (s->round == round || strcmp(s->pubsub, name) != 0)
                                continue;
                        s->round = round;
                        return s;
                }
        return NULL;
}

void subscriber_arrived(struct pubsub_block *b, const char *name)
{
        unsigned round = ++b->round;
        struct subscription *s;

        while ((s = next_of(b, name, round, false)))
                subscription_arrive(s);
        if (fmutex_lock(&b->lock))
                return;
        reconcile(b, b->declared, b->n_declared);
        fmutex_unlock(&b->lock);
}

void subscriber_moving(struct pubsub_block *b, const char *name, struct component *to)
{
        unsigned round = ++b->round;
        struct subscription *s;

        if (fmutex_lock(&b->lock))
                return;
        while ((s = next_of(b, name, round, true)))
                if (!subscription_is_outdated(s))
                        subscription_move(s, to);
        fmutex_unlock(&b->lock);
}

struct moved {
        struct subscription *s;
        bool paused;
};

static void moved_fiber(void *arg)
{
        struct moved *m = arg;

        subscription_moved(m->s, m->paused);
        subscription_unbusy(m->s);
        free(m);
}

void subscriber_moved(struct pubsub_block *b, const char *name, bool paused)
{
        struct scope scope = SCOPE_INIT(scope);
        unsigned round = ++b->round;
        struct subscription *s;

        if (fmutex_lock(&b->lock))
                return;
        while ((s = next_of(b, name, round, true))) {
                struct moved *m = malloc(sizeof *m);
                if (m)
                        *m = (struct moved){s, paused};
                if (!m || fiber_go(&scope, "subscription-moved", moved_fiber, m)) {
                        free(m);
                        subscription_moved(s, paused);
                } else {
                        s->busy++; /* a stream's may end before the fiber begins */
                }
        }
        fiber_shield_begin();
        scope_join(&scope);
        fiber_shield_end();
        reconcile(b, b->declared, b->n_declared);
        fmutex_unlock(&b->lock);
}

void subscriber_left(struct pubsub_block *b, const char *name)
{
        struct list ending = LIST_INIT(ending);
        struct scope scope = SCOPE_INIT(scope);
        unsigned round = ++b->round;
        struct subscription *s;

        if (fmutex_lock(&b->lock))
                return;
        list_for_each_safe(at, next, &b->running) {
                s = list_entry(at, struct subscription, node);
                if (strcmp(s->pubsub, name) != 0)
                        continue;
                list_del(&s->node);
                list_add_tail(&ending, &s->node);
        }
        stop_all(&ending, false, &scope);
        while ((s = next_of(b, name, round, false)))
                subscription_leave(s);
        fiber_shield_begin();
        scope_join(&scope);
        fiber_shield_end();
        fmutex_unlock(&b->lock);
}

void subscriber_stop(struct pubsub_block *b)
{
        if (fmutex_lock(&b->lock))
                return;
        if (b->active) {
                b->active = false;
                stop_running(b, false);
        }
        fmutex_unlock(&b->lock);
}

void subscriber_quiesce(struct pubsub_block *b, bool hold)
{
        if (b->closed)
                return;
        b->closed = true;
        b->holding = hold;
        if (!hold)
                stream_end_opening(b);
        fiber_shield_begin();
        fmutex_lock(&b->lock);
        b->active = false;
        stop_all(&b->streams, true, &b->leaving);
        stop_running(b, true);
        fmutex_unlock(&b->lock);
        while (b->undrained)
                cond_wait(&b->hung);
        if (!hold)
                scope_join(&b->leaving);
        fiber_shield_end();
}

void subscriber_hang_up(struct pubsub_block *b)
{
        b->holding = false;
        stream_end_opening(b);
        cond_broadcast(&b->hung);
        fiber_shield_begin();
        scope_join(&b->leaving);
        fiber_shield_end();
}
