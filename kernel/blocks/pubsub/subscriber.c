/*
 * Which subscriptions the app has, and when they run. Declarative ones come from the resources, and change with them; programmatic ones
 * are asked for once, when the app is first healthy. For one topic of one broker a programmatic subscription wins over a declarative one, and
 * the first declarative one over later ones. They run while the app is healthy; one that cannot be started goes on trying by itself.
 */
#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/runtime/v1/appcallback.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.runtime.processor.subscription"

typedef Dapr__Proto__Runtime__V1__ListTopicSubscriptionsResponse list_response;
typedef Dapr__Proto__Runtime__V1__TopicSubscription topic_subscription;

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

/* ---- programmatic ---- */

struct ask {
        struct kernel *k;
        struct arena *a;
        struct app_response http;
        list_response *grpc;
        bool unimplemented;
        const char *err;
};

static int ask_http(void *arg, struct policy_try *t)
{
        struct ask *x = arg;
        struct http_header id = {STR("dapr-app-id"), str_of(x->k->opts.app_id)};
        struct app_request req = {.method = STR("GET"), .path = STR("/dapr/subscribe"), .headers = &id, .n_headers = 1,
                                  .content_type = STR("application/json")};
        int r = app_http(x->k->app, x->a, &req, &x->http);

        if (r)
                x->err = app_http_error(x->k->app, x->a, &req, r);
        return r;
}

static int ask_grpc(void *arg, struct policy_try *t)
{
        struct ask *x = arg;
        Google__Protobuf__Empty req = GOOGLE__PROTOBUF__EMPTY__INIT;
        struct rpc_status st = {0};
        int r = app_grpc(x->k->app, x->a, "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions", &req.base,
                         &dapr__proto__runtime__v1__list_topic_subscriptions_response__descriptor, &x->grpc, NULL, 0, &st);

        x->unimplemented = r == RPC_UNIMPLEMENTED;
        if (r == 0)
                return 0;
        x->grpc = NULL;
        if (x->unimplemented)
                return 0;
        x->err = arena_printf(x->a, "rpc error: code = %s desc = %.*s", rpc_code_name(r), STR_FMT(st.message));
        t->code = r;
        return -1;
}

static int take_http(struct pubsub_block *b, struct ask *x, struct subscription_spec ***ret, size_t *ret_n)
{
        struct subscription_spec **v = NULL;
        size_t n = 0, kept = 0;
        const char *err = "out of memory";

        if (x->http.status == 404) {
                log_debug(SCOPE, "user app did not subscribe to any topic");
                return 0;
        }
        if (x->http.status != 200) {
                log_error(SCOPE, "app returned http status code %d from subscription endpoint", x->http.status);
                return 0;
        }
        if (subscription_read_list(&b->arena, x->http.body, &v, &n, &err)) {
                x->err = arena_printf(x->a, "error getting topics from app: %s", err);
                log_error(SCOPE, "%s", x->err);
                return -EINVAL;
        }
        for (size_t i = 0; i < n; i++) {
                if (v[i]->n_rules)
                        v[kept++] = v[i];
                else
                        log_warn(SCOPE, "topic %s has an empty routes. removing from subscriptions list", v[i]->topic);
        }
        *ret = v;
        *ret_n = kept;
        return 0;
}

static const char *copy(struct arena *a, const char *s)
{
        return s && *s ? arena_strdup(a, str_of(s)) : "";
}

static struct subscription_spec *spec_of(struct arena *a, const topic_subscription *t)
{
        struct subscription_spec *s = arena_new(a, struct subscription_spec);
        size_t n = t->routes ? t->routes->n_rules : 0;

        if (!s || n >= SUBSCRIPTION_RULES_MAX)
                return NULL;
        *s = (struct subscription_spec){.origin = SUBSCRIPTION_PROGRAMMATIC, .name = "", .pubsub = copy(a, t->pubsub_name),
                                        .topic = copy(a, t->topic), .dead_letter = copy(a, t->dead_letter_topic)};
        s->rules = arena_alloc(a, (n + 1) * sizeof *s->rules);
        s->metadata = arena_alloc(a, (t->n_metadata + 1) * sizeof *s->metadata);
        if (!s->rules || !s->metadata || !s->pubsub || !s->topic || !s->dead_letter)
                return NULL;
        for (size_t i = 0; i < n; i++)
                s->rules[s->n_rules++] = (struct subscription_rule){copy(a, t->routes->rules[i]->match), copy(a, t->routes->rules[i]->path)};
        if ((t->routes && *t->routes->default_) || !s->n_rules)
                s->rules[s->n_rules++] = (struct subscription_rule){"", t->routes ? copy(a, t->routes->default_) : ""};
        for (size_t i = 0; i < t->n_metadata; i++)
                s->metadata[s->n_metadata++] = (struct subscription_item){copy(a, t->metadata[i]->key), copy(a, t->metadata[i]->value)};
        if (t->bulk_subscribe) {
                s->bulk = t->bulk_subscribe->enabled;
                s->bulk_max_messages = t->bulk_subscribe->max_messages_count;
                s->bulk_max_await_ms = t->bulk_subscribe->max_await_duration_ms;
        }
        return a->exhausted ? NULL : s;
}

static int take_grpc(struct pubsub_block *b, struct ask *x, struct subscription_spec ***ret, size_t *ret_n)
{
        size_t n = x->grpc ? x->grpc->n_subscriptions : 0;

        if (x->unimplemented)
                log_info(SCOPE, "pubsub subscriptions: gRPC app does not implement ListTopicSubscriptions");
        if (!n)
                log_debug(SCOPE, "user app did not subscribe to any topic");
        *ret = arena_alloc(&b->arena, (n + 1) * sizeof **ret);
        if (!*ret)
                return -ENOMEM;
        for (*ret_n = 0; *ret_n < n; ++*ret_n)
                if (!((*ret)[*ret_n] = spec_of(&b->arena, x->grpc->subscriptions[*ret_n])))
                        return -ENOMEM;
        return 0;
}

static int check_rules(struct subscription_spec *const *v, size_t n, struct ask *x)
{
        for (size_t i = 0; i < n; i++) {
                struct rule_set *rules = NULL;
                int r = rules_new(&rules, v[i], x->a, &x->err);
                rules_free(rules);
                if (r)
                        return r;
        }
        return 0;
}

static void log_topics(struct subscription_spec *const *v, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                struct buf b = {0};
                bool first = true;
                for (size_t j = 0; j < i; j++)
                        first &= strcmp(v[j]->pubsub, v[i]->pubsub) != 0;
                if (!first)
                        continue;
                for (size_t j = i; j < n; j++)
                        if (strcmp(v[j]->pubsub, v[i]->pubsub) == 0)
                                buf_printf(&b, "%s%s", buf_len(&b) ? " " : "", v[j]->topic);
                log_info(SCOPE, "app is subscribed to the following topics: [[%.*s]] through pubsub=%s", STR_FMT(buf_str(&b)), v[i]->pubsub);
                buf_fini(&b);
        }
}

/* Asks the app, once. 0, or <0 (logged): asked again when it is healthy the next time. Parks. */
static int ask_app(struct pubsub_block *b)
{
        struct kernel *k = b->k;
        struct arena a = {0};
        struct ask x = {.k = k, .a = &a};
        struct policy policy = {0};
        struct subscription_spec **v = NULL;
        size_t n = 0;
        bool grpc = app_is_grpc(k->app);
        int r;

        if (b->asked_app || !kernel_component_count(k, KIND_PUBSUB))
                return 0;
        b->asked_app = true;
        if (k->opts.disable_subscribe_endpoint) {
                log_warn(SCOPE, "Skipping programmatic subscription loading (see 'disable-init-endpoints' flag/annotation)");
                return 0;
        }
        resiliency_builtin(k, POLICY_INITIALIZATION_RETRIES, &policy);
        r = (int)policy_run(&policy, grpc ? ask_grpc : ask_http, &x);
        if (r) {
                if (r != POLICY_FAILED)
                        x.err = policy_result_text((enum policy_result)r);
                if (grpc)
                        log_error(SCOPE, "error getting topic list from app: %s", x.err);
                r = -EIO;
        } else {
                r = grpc ? take_grpc(b, &x, &v, &n) : take_http(b, &x, &v, &n);
        }
        if (r == 0)
                r = check_rules(v, n, &x);
        if (r == 0) {
                log_topics(v, n);
                b->programmatic = v;
                b->n_programmatic = n;
        } else {
                log_warn("dapr.runtime", "failed to subscribe to topics: %s", x.err ? x.err : "out of memory");
        }
        arena_fini(&a);
        return r;
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
        if (!b->active && !b->closed && ask_app(b) == 0) {
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

        if (!b->active || b->closed || ask_app(b) || list_of(b, declared, n_declared, &a, &v, &n)) {
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
