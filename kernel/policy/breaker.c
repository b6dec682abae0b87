/* See breaker.h. The trip expression is evaluated after each failure while closed; one that fails does not trip. */
#include "kernel/policy/breaker.h"

#include <math.h>
#include <stdlib.h>

#include "sdk/base/log.h"

enum { DEFAULT_TIMEOUT_S = 60, DEFAULT_TRIP_ABOVE = 5, TRIP_ARENA_BYTES = 256 * 1024 };

const char *breaker_state_name(enum breaker_state s)
{
        static const char *const names[BREAKER_STATES] = {"closed", "half-open", "open"};
        return names[s];
}

static void begin_generation(struct breaker *b, double now)
{
        b->generation++;
        b->counts = (struct breaker_counts){0};
        b->expiry = INFINITY;
        if (b->state == BREAKER_CLOSED && b->conf->interval_ns > 0)
                b->expiry = now + (double)b->conf->interval_ns / 1e9;
        else if (b->state == BREAKER_OPEN)
                b->expiry = now + (b->conf->timeout_ns > 0 ? (double)b->conf->timeout_ns / 1e9 : DEFAULT_TIMEOUT_S);
}

struct breaker *breaker_new(const struct breaker_conf *conf, struct str name, double now)
{
        struct breaker *b = calloc(1, sizeof *b);
        char *copy = malloc(name.n + 1);
        if (!b || !copy) {
                free(copy);
                free(b);
                return NULL;
        }
        if (name.n)
                memcpy(copy, name.p, name.n);
        b->conf = conf;
        b->name = str_n(copy, name.n);
        b->refs = 1;
        begin_generation(b, now);
        return b;
}

struct breaker *breaker_ref(struct breaker *b)
{
        b->refs++;
        return b;
}

void breaker_unref(struct breaker *b)
{
        if (!b || --b->refs)
                return;
        free((char *)b->name.p);
        free(b);
}

static void set_state(struct breaker *b, enum breaker_state state, double now)
{
        enum breaker_state old = b->state;
        b->state = state;
        begin_generation(b, now);
        log_info("dapr.runtime", "Circuit breaker \"%.*s\" changed state from %s to %s", STR_FMT(b->name), breaker_state_name(old), breaker_state_name(state));
}

enum breaker_state breaker_state(struct breaker *b, double now)
{
        if (b->expiry < now && b->state == BREAKER_CLOSED)
                begin_generation(b, now);
        else if (b->expiry < now && b->state == BREAKER_OPEN)
                set_state(b, BREAKER_HALF_OPEN, now);
        return b->state;
}

static uint32_t max_requests(const struct breaker *b)
{
        return b->conf->max_requests ? b->conf->max_requests : 1;
}

enum breaker_verdict breaker_begin(struct breaker *b, double now, uint64_t *ret_generation)
{
        enum breaker_state s = breaker_state(b, now);
        if (s == BREAKER_OPEN)
                return BREAKER_REFUSED_OPEN;
        if (s == BREAKER_HALF_OPEN && b->counts.requests >= max_requests(b))
                return BREAKER_REFUSED_TOO_MANY;
        b->counts.requests++;
        *ret_generation = b->generation;
        return BREAKER_PASS;
}

static bool trips(const struct breaker *b)
{
        const struct breaker_counts *c = &b->counts;
        struct cel_var vars[] = {cel_var_int("requests", c->requests), cel_var_int("totalSuccesses", c->successes),
                                 cel_var_int("totalFailures", c->failures), cel_var_int("consecutiveSuccesses", c->successes_in_row),
                                 cel_var_int("consecutiveFailures", c->failures_in_row)};
        struct arena a;
        const char *why;
        bool yes = false;
        if (!b->conf->trip)
                return c->failures_in_row > DEFAULT_TRIP_ABOVE;
        arena_init(&a, TRIP_ARENA_BYTES);
        if (cel_eval_bool(b->conf->trip, vars, sizeof vars / sizeof *vars, &a, &yes, &why))
                yes = false;
        arena_fini(&a);
        return yes;
}

static void succeeded(struct breaker *b, double now)
{
        b->counts.successes++;
        b->counts.successes_in_row++;
        b->counts.failures_in_row = 0;
        if (b->state == BREAKER_HALF_OPEN && b->counts.successes_in_row >= max_requests(b))
                set_state(b, BREAKER_CLOSED, now);
}

static void failed(struct breaker *b, double now)
{
        if (b->state == BREAKER_HALF_OPEN) {
                set_state(b, BREAKER_OPEN, now);
                return;
        }
        b->counts.failures++;
        b->counts.failures_in_row++;
        b->counts.successes_in_row = 0;
        if (trips(b))
                set_state(b, BREAKER_OPEN, now);
}

void breaker_done(struct breaker *b, double now, uint64_t generation, bool ok)
{
        if (breaker_state(b, now) == BREAKER_OPEN || b->generation != generation)
                return;
        if (ok)
                succeeded(b, now);
        else
                failed(b, now);
}

/* ---- cache ---- */

void breaker_cache_init(struct breaker_cache *c, size_t max)
{
        *c = (struct breaker_cache){.max = max};
        list_init(&c->lru);
}

static void forget(struct breaker_cache *c, struct breaker *b)
{
        list_del(&b->lru);
        map_del(&c->map, b->name);
        breaker_unref(b);
}

void breaker_cache_fini(struct breaker_cache *c)
{
        while (c->max && !list_is_empty(&c->lru))
                forget(c, list_entry(c->lru.next, struct breaker, lru));
        map_fini(&c->map);
}

struct breaker *breaker_cache_get(struct breaker_cache *c, struct str key, const struct breaker_conf *conf, double now)
{
        struct breaker *b = map_get(&c->map, key);
        if (b) {
                list_del(&b->lru);
                list_add_head(&c->lru, &b->lru);
                return b;
        }
        b = breaker_new(conf, key, now);
        if (!b || map_set(&c->map, key, b)) {
                breaker_unref(b);
                return NULL;
        }
        list_add_head(&c->lru, &b->lru);
        if (c->map.count > c->max)
                forget(c, list_entry(c->lru.prev, struct breaker, lru));
        return b;
}
