/*
 * Resiliency: which policy applies to a target. What a lookup finds is kept by target, so the next one costs a look into a map:
 * policies change only at the start. Targets that callers name (apps, actor types) are remembered up to RESILIENCY_TARGETS_MAX;
 * each is counted, so that a policy in use outlives its being forgotten.
 */
#include "kernel/policy/resiliency.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/kernel.h"
#include "kernel/policy/resiliency_internal.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

enum { NAME_BYTES = 200, KEY_BYTES = 400 };

/* ---- names ---- */

static const char *const kind_names[KIND_N] = {
        [KIND_STATE] = "Statestore",   [KIND_PUBSUB] = "Pubsub", [KIND_BINDING] = "Binding", [KIND_SECRETSTORE] = "Secretstore",
        [KIND_CONFIGURATION] = "Configuration", [KIND_LOCK] = "Lock", [KIND_CRYPTO] = "Crypto", [KIND_CONVERSATION] = "Conversation",
        [KIND_MIDDLEWARE] = "",        [KIND_NAMERESOLUTION] = ""};
static const char *const builtin_names[POLICY_BUILTINS] = {
        [POLICY_SERVICE_RETRIES] = "DaprBuiltInServiceRetries",
        [POLICY_ACTOR_RETRIES] = "DaprBuiltInActorRetries",
        [POLICY_ACTOR_REMINDER_RETRIES] = "DaprBuiltInActorReminderRetries",
        [POLICY_INITIALIZATION_RETRIES] = "DaprBuiltInInitializationRetries",
        [POLICY_ACTOR_NOT_FOUND_RETRIES] = "DaprBuiltInActorNotFoundRetries"};

#define SECONDS(n) ((int64_t)(n) * 1000000000)
static const struct policy_retry builtins[POLICY_BUILTINS] = {
        [POLICY_SERVICE_RETRIES] = {.backoff = {.duration_ns = SECONDS(1), .max_retries = 3}},
        [POLICY_ACTOR_RETRIES] = {.backoff = {.duration_ns = SECONDS(1), .max_retries = 3}},
        /* the reference leaves its number of retries at 0: none */
        [POLICY_ACTOR_REMINDER_RETRIES] = {.backoff = {.exponential = true, .initial_ns = SECONDS(1) / 2, .jitter = 0.5, .multiplier = 1.5,
                                                       .max_interval_ns = SECONDS(60), .max_elapsed_ns = SECONDS(900)}},
        [POLICY_INITIALIZATION_RETRIES] = {.backoff = {.exponential = true, .initial_ns = SECONDS(1) / 2, .jitter = 0.5, .multiplier = 1.5,
                                                       .max_interval_ns = SECONDS(1), .max_elapsed_ns = SECONDS(10), .max_retries = 3}},
        [POLICY_ACTOR_NOT_FOUND_RETRIES] = {.backoff = {.duration_ns = SECONDS(1), .max_retries = 5}},
};

/* ---- making ---- */

/* xorshift: jitter needs no better */
static double random_fraction(uint64_t *state)
{
        uint64_t x = *state;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *state = x;
        return (double)(x >> 11) / 0x1p53;
}

static const struct metric_def metric_defs[] = {
        {"dapr_resiliency_loaded", "Number of resiliency policies loaded.", METRIC_COUNTER, "app_id,name,namespace", NULL},
        {"dapr_resiliency_count", "Number of times a resiliency policyKey has been applied to a building block.", METRIC_COUNTER,
         "app_id,flow_direction,name,namespace,policy,status,target", NULL},
        {"dapr_resiliency_activations_total",
         "Number of times a resiliency policyKey has been activated in a building block after a failure or after a state change.",
         METRIC_COUNTER, "app_id,flow_direction,name,namespace,policy,status,target", NULL},
        {"dapr_resiliency_cb_state",
         "A resiliency policy's current CircuitBreakerState state. 0 is closed, 1 is half-open, 2 is open, and -1 is unknown.", METRIC_GAUGE,
         "app_id,flow_direction,name,namespace,policy,status,target", NULL},
};

int resiliency_new(struct resiliency **ret, struct metrics *m, struct str app_id)
{
        struct resiliency *r = calloc(1, sizeof *r);
        if (!r)
                return -ENOMEM;
        r->clock = (struct resiliency_clock){loop_now_exact, fiber_sleep, random_fraction};
        r->random = (uint64_t)wall_ns() | 1;
        r->app_id = arena_str(&r->arena, app_id);
        for (int i = 0; i < TARGET_KINDS; i++)
                list_init(&r->lru[i]);
        if (m) {
                r->loaded = metric_add(m, &metric_defs[0]);
                r->count = metric_add(m, &metric_defs[1]);
                r->activations = metric_add(m, &metric_defs[2]);
                r->cb_state = metric_add(m, &metric_defs[3]);
        }
        if (!r->app_id.p || (m && (!r->loaded || !r->count || !r->activations || !r->cb_state))) {
                resiliency_free(r);
                return -ENOMEM;
        }
        *ret = r;
        return 0;
}

static void target_unref(struct policy_target *t)
{
        if (!t || --t->refs)
                return;
        breaker_unref(t->breaker);
        breaker_cache_fini(&t->breakers);
        free((char *)t->key.p);
        free((char *)t->metric_target.p);
        free(t);
}

static void forget(struct resiliency *r, struct policy_target *t)
{
        list_del(&t->lru);
        map_del(&r->targets[t->kind], t->key);
        target_unref(t);
}

void resiliency_free(struct resiliency *r)
{
        if (!r)
                return;
        for (int i = 0; i < TARGET_KINDS; i++) {
                while (!list_is_empty(&r->lru[i]))
                        forget(r, list_entry(r->lru[i].next, struct policy_target, lru));
                map_fini(&r->targets[i]);
                map_fini(&r->confs[i]);
        }
        for (struct map_entry *e = NULL; (e = map_next(&r->component_breakers, e));)
                breaker_unref(e->value);
        for (struct map_entry *e = NULL; (e = map_next(&r->breakers, e));)
                cel_free(((struct breaker_conf *)e->value)->trip);
        map_fini(&r->component_breakers);
        map_fini(&r->timeouts);
        map_fini(&r->retries);
        map_fini(&r->breakers);
        arena_fini(&r->arena);
        free(r);
}

int resiliency_add(struct resiliency *r, const struct yaml_node *doc, const char *file, const char *name, const char *namespace_)
{
        struct arena a = {0};
        const char *err = NULL;
        bool parsed = false;
        struct str old[2] = {r->name, r->namespace_};
        r->name = arena_str(&r->arena, str_of(name));
        r->namespace_ = arena_str(&r->arena, str_of(namespace_));
        int e = r->name.p && r->namespace_.p ? resiliency_read(r, doc, &a, &parsed, &err) : -ENOMEM;
        if (e == -EINVAL && !parsed) {
                log_error(RESILIENCY_SCOPE, "Could not parse resiliency file %s: %s", file, err);
                r->name = old[0];
                r->namespace_ = old[1];
        } else if (e == -EINVAL) {
                log_error(RESILIENCY_SCOPE, "Could not read resiliency policy %s: %s", name, err);
                r->configured = true;
        } else if (!e) {
                r->configured = true;
                if (r->loaded)
                        metric_inc(metric_series_get(r->loaded, (struct str[]){r->app_id, r->name, r->namespace_}), 1);
        }
        arena_fini(&a);
        return e == -ENOMEM ? e : 0;
}

static bool is_resiliency(const struct raw_resource *x)
{
        return !strcmp(x->kind, "Resiliency");
}

static size_t count_resources(const struct kernel *k)
{
        size_t n = 0;
        for (size_t i = 0; i < k->resources.n_others; i++)
                n += is_resiliency(k->resources.others[i]);
        return n;
}

int resiliency_start(struct kernel *k)
{
        struct resiliency *r;
        if (resiliency_new(&r, k->metrics, str_of(k->opts.app_id)))
                return -ENOMEM;
        k->resiliency = r;
        log_debug(RESILIENCY_SCOPE, "Found %zu resiliency configurations in resources path", count_resources(k));
        for (size_t i = 0; i < k->resources.n_others; i++) {
                const struct raw_resource *x = k->resources.others[i];
                if (!is_resiliency(x))
                        continue;
                const char *slash = strrchr(x->file, '/');
                if (resiliency_add(r, x->doc, slash ? slash + 1 : x->file, x->name, x->namespace_))
                        return -ENOMEM;
        }
        return 0;
}

void resiliency_stop(struct kernel *k)
{
        resiliency_free(k->resiliency);
        k->resiliency = NULL;
}

/* ---- which policies apply ---- */

/* The most specific default policy of a table: "Default<level>RetryPolicy". */
static void *find_default(const struct map *table, const char *const *levels, const char *what)
{
        char name[NAME_BYTES];
        for (; *levels; levels++) {
                int n = snprintf(name, sizeof name, "Default%s%sPolicy", *levels, what);
                void *found = map_get(table, str_n(name, (size_t)n));
                if (found)
                        return found;
        }
        return NULL;
}

static void apply_defaults(struct resiliency *r, struct policy_target *t, enum component_kind kind)
{
        char typed[NAME_BYTES], directed[NAME_BYTES];
        const char *direction = t->direction == POLICY_OUTBOUND ? "Outbound" : "Inbound";
        const char *const component[] = {typed, directed, "Component", "", NULL}, *const app[] = {"App", "", NULL}, *const actor[] = {"Actor", "", NULL};
        const char *const *levels = t->kind == TARGET_APP ? app : t->kind == TARGET_ACTOR ? actor : component;
        snprintf(typed, sizeof typed, "%sComponent%s", kind < KIND_N ? kind_names[kind] : "", direction);
        snprintf(directed, sizeof directed, "Component%s", direction);
        const int64_t *timeout = find_default(&r->timeouts, levels, "Timeout");
        t->timeout_ns = timeout ? *timeout : 0;
        t->retry = find_default(&r->retries, levels, "Retry");
        t->breaker_conf = find_default(&r->breakers, levels, "CircuitBreaker");
        t->scope = BREAKER_SCOPE_TYPE;
}

static void apply_names(struct resiliency *r, struct policy_target *t, const struct target_conf *conf)
{
        bool in = t->kind == TARGET_COMPONENT && t->direction == POLICY_INBOUND;
        const struct policy_names *n = in ? &conf->inbound : &conf->names;
        const int64_t *timeout = *n->timeout ? map_get(&r->timeouts, str_of(n->timeout)) : NULL;
        t->timeout_ns = timeout ? *timeout : 0;
        t->retry = *n->retry ? map_get(&r->retries, str_of(n->retry)) : NULL;
        t->breaker_conf = *n->breaker ? map_get(&r->breakers, str_of(n->breaker)) : NULL;
        t->scope = conf->scope;
}

/* Breakers of components are one a name, whatever the kind and direction, as in the reference. */
static struct breaker *component_breaker(struct resiliency *r, struct str name, const struct breaker_conf *conf)
{
        char text[KEY_BYTES];
        struct breaker *b = map_get(&r->component_breakers, name);
        if (b)
                return b;
        int n = snprintf(text, sizeof text, "%s-%.*s", conf->name, STR_FMT(name));
        b = breaker_new(conf, str_n(text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1), r->clock.now());
        if (b && map_set(&r->component_breakers, name, b)) {
                breaker_unref(b);
                b = NULL;
        }
        return b;
}

static struct str copy(struct str s)
{
        char *p = malloc(s.n + 1);
        if (p && s.n)
                memcpy(p, s.p, s.n);
        return p ? str_n(p, s.n) : STR_NULL;
}

static struct policy_target *target_new(struct resiliency *r, enum target_kind kind, struct str key, struct str name, enum component_kind component,
                                        enum policy_direction d)
{
        const char *prefix = kind == TARGET_APP ? "app" : kind == TARGET_ACTOR ? "actor" : kind_names[component];
        const struct target_conf *conf = map_get(&r->confs[kind], name);
        struct policy_target *t = calloc(1, sizeof *t);
        char *label = NULL;
        if (!t || asprintf(&label, "%s_%.*s", prefix, STR_FMT(name)) < 0) {
                free(t);
                return NULL;
        }
        t->refs = 1;
        t->kind = kind;
        t->direction = d;
        t->metric_target = str_of(label);
        t->key = copy(key);
        list_init(&t->lru);
        if (conf)
                apply_names(r, t, conf);
        else
                apply_defaults(r, t, component);
        if (t->timeout_ns < 0)
                t->timeout_ns = 0;
        if (kind != TARGET_COMPONENT)
                breaker_cache_init(&t->breakers, conf ? conf->cache_size : RESILIENCY_APP_BREAKERS);
        else if (t->breaker_conf && (t->breaker = component_breaker(r, name, t->breaker_conf)))
                breaker_ref(t->breaker);
        if (!t->key.p || map_set(&r->targets[kind], t->key, t)) {
                target_unref(t);
                return NULL;
        }
        return t;
}

/* The target of a name; borrowed. NULL without memory: then nothing applies. */
static struct policy_target *target_get(struct resiliency *r, enum target_kind kind, struct str name, enum component_kind component,
                                        enum policy_direction d)
{
        char text[KEY_BYTES];
        struct str key = name;
        if (kind == TARGET_COMPONENT) {
                size_t n = name.n < sizeof text - 2 ? name.n : sizeof text - 2;
                text[0] = (char)('a' + (int)component);
                text[1] = d == POLICY_OUTBOUND ? 'o' : 'i';
                memcpy(text + 2, name.p, n);
                key = str_n(text, n + 2);
        }
        struct policy_target *t = map_get(&r->targets[kind], key);
        if (!t) {
                t = target_new(r, kind, key, name, component, d);
                if (!t)
                        return NULL;
        }
        list_del(&t->lru);
        list_add_head(&r->lru[kind], &t->lru);
        if (r->targets[kind].count > RESILIENCY_TARGETS_MAX)
                forget(r, list_entry(r->lru[kind].prev, struct policy_target, lru));
        return t;
}

void resiliency_find(struct resiliency *r, enum target_kind kind, struct str name, enum component_kind component, enum policy_direction d,
                     struct policy *p)
{
        *p = (struct policy){0};
        if (!r || !r->configured)
                return;
        struct policy_target *t = target_get(r, kind, name, component, d);
        if (!t || (!t->timeout_ns && !t->retry && !t->breaker_conf))
                return;
        t->refs++;
        *p = (struct policy){.owner = r, .name = name, .timeout_ns = t->timeout_ns, .retry = t->retry, .target = t};
        if (t->breaker)
                p->breaker = breaker_ref(t->breaker);
}

void resiliency_find_breaker(struct resiliency *r, struct str key, struct policy *p)
{
        struct policy_target *t = p->target;
        struct breaker *b = t && t->breaker_conf ? breaker_cache_get(&t->breakers, key, t->breaker_conf, r->clock.now()) : NULL;
        if (b)
                p->breaker = breaker_ref(b);
}

void resiliency_find_builtin(struct resiliency *r, enum policy_builtin b, struct policy *p)
{
        const struct policy_retry *redefined = map_get(&r->retries, str_of(builtin_names[b]));
        *p = (struct policy){.owner = r, .name = str_of(builtin_names[b]), .retry = redefined ? redefined : &builtins[b]};
}

void policy_release(struct policy *p)
{
        breaker_unref(p->breaker);
        target_unref(p->target);
        *p = (struct policy){0};
}

/* Drops what a lookup found if it comes to nothing, else counts it. */
static void settle(struct resiliency *r, struct policy *p)
{
        if (policy_is_empty(p))
                policy_release(p);
        else
                resiliency_counted(p, p->breaker ? r->clock.now() : 0);
}

/* ---- lookups ---- */

void resiliency_component(struct kernel *k, struct str name, enum component_kind kind, enum policy_direction d, struct policy *p)
{
        resiliency_find(k->resiliency, TARGET_COMPONENT, name, kind, d, p);
        if (p->target)
                settle(k->resiliency, p);
}

void resiliency_component_again(struct kernel *k, struct str name, enum component_kind kind, enum policy_direction d, struct policy *p)
{
        resiliency_find(k->resiliency, TARGET_COMPONENT, name, kind, d, p);
        if (policy_is_empty(p))
                policy_release(p);
}

void resiliency_app(struct kernel *k, struct str app_id, struct str endpoint, struct policy *p)
{
        resiliency_find(k->resiliency, TARGET_APP, app_id, KIND_N, POLICY_OUTBOUND, p);
        if (!p->target)
                return;
        p->id = endpoint;
        resiliency_find_breaker(k->resiliency, endpoint, p);
        settle(k->resiliency, p);
}

void resiliency_actor_pre(struct kernel *k, struct str actor_type, struct str id, struct policy *p)
{
        char key[KEY_BYTES];
        resiliency_find(k->resiliency, TARGET_ACTOR, actor_type, KIND_N, POLICY_OUTBOUND, p);
        if (!p->target)
                return;
        p->id = id;
        p->timeout_ns = 0;
        int n = p->target->scope == BREAKER_SCOPE_TYPE ? snprintf(key, sizeof key, "%.*s", STR_FMT(actor_type))
                                                       : snprintf(key, sizeof key, "%.*s-%.*s", STR_FMT(actor_type), STR_FMT(id));
        resiliency_find_breaker(k->resiliency, str_n(key, (size_t)n < sizeof key ? (size_t)n : sizeof key - 1), p);
        settle(k->resiliency, p);
}

void resiliency_actor_post(struct kernel *k, struct str actor_type, struct str id, struct policy *p)
{
        resiliency_find(k->resiliency, TARGET_ACTOR, actor_type, KIND_N, POLICY_OUTBOUND, p);
        if (!p->target)
                return;
        p->id = id;
        p->retry = NULL;
        settle(k->resiliency, p);
}

void resiliency_builtin(struct kernel *k, enum policy_builtin b, struct policy *p)
{
        *p = (struct policy){0};
        if (k->resiliency)
                resiliency_find_builtin(k->resiliency, b, p);
}

bool resiliency_has_app(struct kernel *k, struct str app_id)
{
        return k->resiliency && map_get(&k->resiliency->confs[TARGET_APP], app_id);
}

bool resiliency_has_actor(struct kernel *k, struct str actor_type)
{
        return k->resiliency && map_get(&k->resiliency->confs[TARGET_ACTOR], actor_type);
}

bool resiliency_has_component(struct kernel *k, struct str name)
{
        return k->resiliency && map_get(&k->resiliency->confs[TARGET_COMPONENT], name);
}

/* ---- metrics ---- */

static struct metric_series *series_of(struct policy *p, struct metric *m, const char *policy, const char *status)
{
        struct resiliency *r = p->owner;
        const char *direction = p->target->direction == POLICY_OUTBOUND ? "outbound" : "inbound";
        struct str values[] = {r->app_id, str_of(direction), r->name, r->namespace_, str_of(policy), str_of(status), p->target->metric_target};
        return m ? metric_series_get(m, values) : NULL;
}

static const char breaker_policy[] = "circuitbreaker";

static void count(struct policy *p, struct series *s, const char *policy, const char *status)
{
        if (!s->known)
                s->series = series_of(p, p->owner->count, policy, status);
        s->known = true;
        metric_inc(s->series, 1);
}

/* The gauge has a series for each state, 1 for the one it is in. */
static void show_state(struct policy *p, enum breaker_state state)
{
        struct policy_target *t = p->target;
        for (int i = 0; i <= BREAKER_STATES; i++) {
                const char *status = i < BREAKER_STATES ? breaker_state_name((enum breaker_state)i) : "unknown";
                if (!t->state_series[i].known)
                        t->state_series[i].series = series_of(p, p->owner->cb_state, breaker_policy, status);
                t->state_series[i].known = true;
                metric_set(t->state_series[i].series, i == (int)state);
        }
}

void resiliency_counted(struct policy *p, double now)
{
        struct policy_target *t = p->target;
        if (!p->owner->count)
                return;
        if (p->timeout_ns)
                count(p, &t->timeout_series, "timeout", "");
        if (p->retry)
                count(p, &t->retry_series, "retry", "");
        if (p->breaker) {
                enum breaker_state s = breaker_state(p->breaker, now);
                count(p, &t->breaker_series[s], breaker_policy, breaker_state_name(s));
                show_state(p, s);
        }
}

void resiliency_activated(struct policy *p, enum activation what, enum breaker_state state)
{
        static const char *const policies[] = {"timeout", "retry", breaker_policy};
        if (p->target && p->owner->activations)
                metric_inc(series_of(p, p->owner->activations, policies[what], what == ACTIVATED_BREAKER ? breaker_state_name(state) : ""), 1);
}
