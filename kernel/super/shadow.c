/*
 * Shadow traffic: for a while a component's reads go to a candidate too, after they were answered, and the answers are compared. A
 * write in between makes two reads differ without anybody's fault; so a difference counts only when the present one answers the same
 * before and after the candidate was asked, and when it stands after all were asked again, CONFIRMED times; a key under constant writes
 * is asked for up to TRIES times, then it does not count. Nothing of a value is kept or shown, and only SHADOW_CALLS_MAX comparisons run
 * at once: reads beyond that are not compared.
 *
 * Answers are timed too, and both processes' memory is looked at SHADOW_SAMPLES times: a candidate that is slower or that goes on growing
 * is told apart from one that answers wrong. Both judgements leave room: what is a little slower, or fills its caches, passes.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/super/swap.h"

enum { CONFIRMED = 4, TRIES = 16 };
static const double AGAIN_AFTER_S = 0.02, ANSWER_MAX_S = 5;

/* Reads: they change nothing, and two that answer the same are equal byte by byte. */
static const char *const reads[] = {
        "/dapr.proto.components.v1.StateStore/Get",          "/dapr.proto.components.v1.StateStore/BulkGet",
        "/dapr.proto.components.v1.QueriableStateStore/Query", "/dapr.proto.components.v1.SecretStore/Get",
        "/dapr.proto.components.v1.SecretStore/BulkGet",     "/microdapr.plugin.v1.ConfigurationStore/Get",
        "/microdapr.plugin.v1.StateStoreExtra/KeysLike",     "/microdapr.plugin.v1.Crypto/GetKey",
};

/* ---- times ---- */

static const double BUCKET_FIRST_S = 10e-6, BUCKET_GROWTH = 1.2; /* the last one begins at about 280 s */

void shadow_times_add(struct shadow_times *t, double seconds)
{
        int i = seconds > BUCKET_FIRST_S ? (int)(log(seconds / BUCKET_FIRST_S) / log(BUCKET_GROWTH)) + 1 : 0;

        t->buckets[i < SHADOW_BUCKETS ? i : SHADOW_BUCKETS - 1]++;
        t->n++;
}

double shadow_times_ms(const struct shadow_times *t, double share)
{
        uint64_t want = (uint64_t)ceil((double)t->n * share), seen = 0;

        for (int i = 0; want && i < SHADOW_BUCKETS; i++)
                if ((seen += t->buckets[i]) >= want)
                        return BUCKET_FIRST_S * pow(BUCKET_GROWTH, i) * 1e3;
        return 0;
}

double shadow_ms(const struct shadow_times parts[SHADOW_SAMPLES], double share)
{
        struct shadow_times all = {0};

        for (size_t p = 0; p < SHADOW_SAMPLES; p++) {
                all.n += parts[p].n;
                for (size_t i = 0; i < SHADOW_BUCKETS; i++)
                        all.buckets[i] += parts[p].buckets[i];
        }
        return shadow_times_ms(&all, share);
}

/* ---- answers ---- */

struct compared {
        struct shadow *s;
        const char *method;
        struct arena arena;
        struct str req, resp;
        int code;
        size_t part;    /* of the time in which it began */
        bool timed;     /* its first answer's time counts */
        bool silent;    /* the candidate gave no answer at all, which no write explains */
};

static const char *difference(const struct compared *k, int code, struct str resp, char *text, size_t n)
{
        if (code != k->code)
                snprintf(text, n, "%s: %s instead of %s", strrchr(k->method, '/') + 1, rpc_code_name(code), rpc_code_name(k->code));
        else if (code == 0 && !str_eq(resp, k->resp))
                snprintf(text, n, "%s: another answer (%zu bytes, the present one has %zu)", strrchr(k->method, '/') + 1, resp.n, k->resp.n);
        else
                return NULL;
        return text;
}

static int ask(struct compared *k, struct instance *i, struct str *ret)
{
        struct rpc_status st = {0};
        struct shadow *s = k->s;
        double began = loop_now_exact(), old = fiber_set_deadline(loop_now() + ANSWER_MAX_S);
        *ret = STR_NULL;
        int code = instance_call(i, &k->arena, k->method, k->req, ret, &st);
        fiber_restore_deadline(old);
        if (i == s->candidate && k->timed) {
                shadow_times_add(&s->theirs[k->part], loop_now_exact() - began);
                k->timed = false;
        }
        return code;
}

enum outcome { SAME, DIFFERENT, UNCLEAR };

/* Asks the candidate, then the present one again, whose answer is the one to compare with from then on. */
static enum outcome compare_once(struct compared *k, char *text, size_t n)
{
        struct str theirs, now;
        int code = ask(k, k->s->candidate, &theirs);
        if (!difference(k, code, theirs, text, n))
                return SAME;
        k->silent = code == RPC_DEADLINE_EXCEEDED;
        if (!k->s->c->now)
                return UNCLEAR;
        int after = ask(k, k->s->c->now, &now);
        bool stands = after == k->code && (after || str_eq(now, k->resp));
        k->code = after;
        k->resp = now;
        return stands ? DIFFERENT : UNCLEAR;
}

/* What differed, every time that it could be seen, is a difference. */
static enum outcome compare(struct compared *k, char *text, size_t n)
{
        int different = 0;
        for (int i = 0; i < TRIES; i++) {
                enum outcome o = compare_once(k, text, n);
                if (o == SAME)
                        return SAME;
                different += o == DIFFERENT;
                if (different == CONFIRMED || k->silent)
                        return DIFFERENT;
                if (o == DIFFERENT && fiber_sleep(AGAIN_AFTER_S))
                        break;
                if (!k->s->c->now)
                        break;
                if (o == DIFFERENT)
                        k->code = ask(k, k->s->c->now, &k->resp);
        }
        return UNCLEAR;
}

static void compare_fiber(void *arg)
{
        struct compared *k = arg;
        struct shadow *s = k->s;
        char text[SHADOW_EXAMPLE_BYTES];
        enum outcome o = compare(k, text, sizeof text);
        s->reads += o != UNCLEAR;
        if (o == DIFFERENT && s->differences++ == 0)
                memcpy(s->example, text, sizeof s->example);
        s->running--;
        arena_fini(&k->arena);
        free(k);
}

static const char *read_method(const char *method)
{
        for (size_t i = 0; i < sizeof reads / sizeof *reads; i++)
                if (strcmp(reads[i], method) == 0)
                        return reads[i];
        return NULL;
}

/* No more than the present one has in hand, or times could not be compared: what stops both for a moment would hit more of the
 * candidate's. */
static unsigned at_once(const struct component *c)
{
        uint64_t n = c->now ? c->now->inflight + 1 : 1;

        return n < SHADOW_CALLS_MAX ? (unsigned)n : SHADOW_CALLS_MAX;
}

void shadow_call(struct component *c, const char *method, struct str req, int code, struct str resp, double seconds)
{
        struct shadow *s = c->shadow;
        const char *read = read_method(method);
        struct compared *k = read && s->running < at_once(c) ? calloc(1, sizeof *k) : NULL;
        if (!k)
                return;
        *k = (struct compared){.s = s, .method = read, .code = code, .part = s->sample, .timed = ++s->asked > SHADOW_WARM_READS};
        if (k->timed)
                shadow_times_add(&s->present[k->part], seconds);
        arena_init(&k->arena, 0);
        k->req = arena_str(&k->arena, req);
        k->resp = arena_str(&k->arena, resp);
        s->running++;
        if ((req.n && !k->req.p) || (resp.n && !k->resp.p) || fiber_go(&s->scope, "shadow", compare_fiber, k)) {
                s->running--;
                arena_fini(&k->arena);
                free(k);
        }
}

/* ---- memory ---- */

static void look_at_memory(struct shadow *s, size_t nth)
{
        const struct instance *both[] = {s->candidate, s->c->now};

        for (size_t i = 0; i < 2; i++)
                if (both[i] && both[i]->plugin->life && both[i]->plugin->life->pid > 0)
                        s->memory[i][nth] = super_rss_bytes(both[i]->plugin->life->pid);
}

static double grown_mib(const uint64_t *memory, size_t from, size_t to)
{
        return memory[from] && memory[to] ? ((double)memory[to] - (double)memory[from]) / (1 << 20) : 0;
}

double shadow_growth_mib(const struct shadow *s)
{
        return grown_mib(s->memory[0], 0, SHADOW_SAMPLES);
}

/* In the second half, by its quarters. */
static bool grows_on(const struct shadow *s)
{
        const size_t half = SHADOW_SAMPLES / 2;
        double grown = grown_mib(s->memory[0], half, SHADOW_SAMPLES);

        for (size_t i = half; i < SHADOW_SAMPLES; i++)
                if (grown_mib(s->memory[0], i, i + 1) < SHADOW_LEAK_MIB / 16.0)
                        return false;
        return s->seconds >= SHADOW_LEAK_WINDOW_S && grown >= SHADOW_LEAK_MIB && grown > 2 * grown_mib(s->memory[1], half, SHADOW_SAMPLES);
}

/* ---- the whole ---- */

static bool is_slower(const struct shadow *s, double share, unsigned at_least, int factor, int at_least_ms)
{
        int parts = 0;

        for (size_t i = 0; i < SHADOW_SAMPLES; i++) {
                double theirs = shadow_times_ms(&s->theirs[i], share), present = shadow_times_ms(&s->present[i], share);
                parts += s->theirs[i].n >= at_least && s->present[i].n >= at_least && theirs > present * factor && theirs > present + at_least_ms;
        }
        return parts >= SHADOW_SLOWER_PARTS;
}

static const char *slower_text(const struct shadow *s, struct arena *a, double share)
{
        return arena_printf(a, "slower under shadow: p%.0f of %llu reads %.1f ms, that of the present one %.1f ms", share * 100,
                            (unsigned long long)s->reads, shadow_ms(s->theirs, share), shadow_ms(s->present, share));
}

const char *shadow_verdict(const struct shadow *s, struct arena *a)
{
        const size_t half = SHADOW_SAMPLES / 2;

        if (s->differences)
                return arena_printf(a, "wrong answers under shadow: %llu of %llu reads differ; the first: %s", (unsigned long long)s->differences,
                                    (unsigned long long)s->reads, s->example);
        if (grows_on(s))
                return arena_printf(a, "leaks under shadow: it has grown by %.1f MiB, to %.1f, in the last %.1f s; the present one by %.1f",
                                    grown_mib(s->memory[0], half, SHADOW_SAMPLES), (double)s->memory[0][SHADOW_SAMPLES] / (1 << 20), s->seconds / 2,
                                    grown_mib(s->memory[1], half, SHADOW_SAMPLES));
        if (is_slower(s, 0.5, SHADOW_P50_READS, SHADOW_SLOWER_P50_FACTOR, SHADOW_SLOWER_P50_MS))
                return slower_text(s, a, 0.5);
        if (is_slower(s, 0.99, SHADOW_P99_READS, SHADOW_SLOWER_P99_FACTOR, SHADOW_SLOWER_P99_MS))
                return slower_text(s, a, 0.99);
        return NULL;
}

/* Parks until then; false: the candidate is of no use any more, or the wait was cut short. */
static bool shadow_until(struct shadow *s, double until)
{
        int r = 0;

        while (r == 0 && instance_is_usable(s->candidate) && s->candidate->init_life == s->life)
                r = cond_wait_until(&s->candidate->plugin->changed, until);
        return r == -ETIMEDOUT && loop_now() >= until;
}

void shadow_run(struct shadow *s, double seconds)
{
        double began = loop_now();
        scope_init(&s->scope);
        s->c->shadow = s;
        look_at_memory(s, 0);
        for (size_t i = 1; i <= SHADOW_SAMPLES && shadow_until(s, began + seconds * (double)i / SHADOW_SAMPLES); i++) {
                look_at_memory(s, i);
                s->sample = i < SHADOW_SAMPLES ? i : SHADOW_SAMPLES - 1;
        }
        s->seconds = loop_now() - began;
        s->c->shadow = NULL;
        fiber_shield_begin();
        scope_join(&s->scope);
        fiber_shield_end();
}
