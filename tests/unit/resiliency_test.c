/* kernel/policy/resiliency.h: the engine on a clock of its own */
#include "kernel/policy/resiliency.h"

#include <math.h>
#include <stdio.h>

#include "kernel/kernel.h"
#include "kernel/policy/resiliency_internal.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "tests/unit/fault.h"
#include "tests/unit/on_loop.h"

/*
 * Runs are separated by "; ". A run is what the operation does at each try, its last word for all further ones: s succeeds, f fails,
 * c500 fails with a code, p fails for good, t takes longer than any timeout; w80 first of all lets 80 ms pass.
 * Outcomes: number of tries and "ok", the operation's "failed" or the policy's text. READ … and PARSE … are refused resources.
 */
static const struct {
        const char *yaml, *target, *name, *runs, *want;
} vectors[] = {
#include "tests/unit/resiliency_vectors.inc"
};

/* ---- a clock ---- */

static double now_s, slept_s[64], fraction = 0.5;
static size_t n_slept;

static double test_now(void)
{
        return now_s;
}
static int test_sleep(double s)
{
        if (n_slept < 64)
                slept_s[n_slept++] = s;
        now_s += s;
        return 0;
}
static double test_random(uint64_t *state)
{
        return fraction;
}

static struct resiliency *engine(struct metrics *m)
{
        struct resiliency *r;
        ck_assert_int_eq(resiliency_new(&r, m, STR("app1")), 0);
        r->clock = (struct resiliency_clock){test_now, test_sleep, test_random};
        n_slept = 0;
        fraction = 0.5;
        return r;
}

/* 0, or the text of the log in *ret_err. */
static int read_yaml(struct resiliency *r, struct arena *a, const char *text, const char **ret_err)
{
        struct yaml_node *doc;
        bool parsed;
        ck_assert_int_eq(yaml_read(a, str_of(text), "r.yaml", 1, 0, &doc, ret_err), 0);
        int e = resiliency_read(r, doc, a, &parsed, ret_err);
        r->configured = parsed;
        return e ? (parsed ? 1 : 2) : 0;
}

static struct resiliency *engine_with(struct arena *a, const char *text)
{
        struct resiliency *r = engine(NULL);
        const char *err;
        ck_assert_int_eq(read_yaml(r, a, text, &err), 0);
        return r;
}

/* ---- lookups and operations ---- */

static void find(struct resiliency *r, const char *target, const char *name, const char *id, struct policy *p)
{
        enum target_kind kind = !strcmp(target, "app") ? TARGET_APP : !strncmp(target, "actor", 5) ? TARGET_ACTOR : TARGET_COMPONENT;
        bool in = !strcmp(target, "inbound");
        static struct kernel k_; /* only its engine is looked at */
        struct kernel *k = &k_;
        k->resiliency = r;
        if (!strcmp(target, "builtin")) {
                enum policy_builtin b = 0;
                static const char *const names[] = {"DaprBuiltInServiceRetries", "DaprBuiltInActorRetries", "DaprBuiltInActorReminderRetries",
                                                    "DaprBuiltInInitializationRetries", "DaprBuiltInActorNotFoundRetries"};
                while (strcmp(names[b], name))
                        b++;
                resiliency_builtin(k, b, p);
        } else if (kind == TARGET_APP) {
                resiliency_app(k, str_of(name), str_of(id), p);
        } else if (kind == TARGET_ACTOR) {
                if (!strcmp(target, "actorpost"))
                        resiliency_actor_post(k, str_of(name), str_of(id), p);
                else
                        resiliency_actor_pre(k, str_of(name), str_of(id), p);
        } else {
                resiliency_component(k, str_of(name), in ? KIND_PUBSUB : KIND_STATE, in ? POLICY_INBOUND : POLICY_OUTBOUND, p);
        }
}

struct script {
        struct str words; /* the rest */
        struct str word;
        int tries;
        bool all_timed_out;
};

static int play(void *arg, struct policy_try *t)
{
        struct script *s = arg;
        s->tries++;
        ck_assert_uint_eq(t->attempt, (unsigned)s->tries);
        if (s->words.p)
                s->word = str_cut(&s->words, ' ');
        switch (s->word.p[0]) {
        case 's':
                return 0;
        case 'p':
                t->permanent = true;
                return -1;
        case 'c':
                t->code = atoi(s->word.p + 1);
                return -1;
        case 't':
                fiber_sleep(5);
                return -1;
        default:
                return -1;
        }
}

static enum policy_result run_script(struct resiliency *r, const char *target, const char *name, struct str words, int *ret_tries)
{
        struct script s = {.words = words};
        struct policy p;
        if (words.n && words.p[0] == 'w')
                now_s += atoi(str_cut(&s.words, ' ').p + 1) / 1000.0;
        find(r, target, name, "id", &p);
        enum policy_result result = policy_run(&p, play, &s);
        ck_assert(policy_is_empty(&p));
        *ret_tries = s.tries;
        return result;
}

static void outcomes(struct resiliency *r, const char *target, const char *name, const char *runs, char *to, size_t size)
{
        size_t at = 0;
        for (const char *run = runs, *end; run; run = end ? end + 2 : NULL) {
                int tries;
                end = strstr(run, "; ");
                enum policy_result res = run_script(r, target, name, str_n(run, end ? (size_t)(end - run) : strlen(run)), &tries);
                at += (size_t)snprintf(to + at, size - at, "%s%d %s", at ? "; " : "", tries,
                                       res == POLICY_OK       ? "ok"
                                       : res == POLICY_FAILED ? "failed"
                                                              : policy_result_text(res));
        }
}

static bool fits(const char *have, const char *want)
{
        size_t n = strlen(want);
        return n && want[n - 1] == '*' ? !strncmp(have, want, n - 1) : !strcmp(have, want);
}

ON_LOOP_TEST(every_vector_comes_out_as_in_the_reference)
{
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
                struct arena a = {0};
                struct resiliency *r = engine(NULL);
                const char *err = NULL;
                static char text[2000];
                int e = read_yaml(r, &a, vectors[i].yaml, &err);
                if (e)
                        snprintf(text, sizeof text, "%s %s", e == 1 ? "READ" : "PARSE", err);
                else
                        outcomes(r, vectors[i].target, vectors[i].name, vectors[i].runs, text, sizeof text);
                ck_assert_msg(fits(text, vectors[i].want), "%s%s: %s\n  wanted %s\n  got    %s", vectors[i].yaml, vectors[i].target, vectors[i].runs,
                              vectors[i].want, text);
                resiliency_free(r);
                arena_fini(&a);
        }
}

/* ---- waiting ---- */

#define RETRY(text) "spec: {policies: {retries: {r: {" text "}}}, targets: {components: {s: {outbound: {retry: r}}}}}"

ON_LOOP_TEST(exponential_waits_grow_by_half_up_to_the_greatest)
{
        static const double want[] = {0.5, 0.75, 1.125, 1.6875, 2.53125, 3.0, 3.0};
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, RETRY("policy: exponential, maxInterval: 3s, maxRetries: 7"));
        int tries;
        ck_assert_int_eq(run_script(r, "component", "s", STR("f"), &tries), POLICY_FAILED);
        ck_assert_int_eq(tries, 8);
        ck_assert_uint_eq(n_slept, 7);
        for (size_t i = 0; i < 7; i++)
                ck_assert_msg(fabs(slept_s[i] - want[i]) < 1e-6, "wait %zu is %f", i, slept_s[i]);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(jitter_is_half_of_the_interval_both_ways)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, RETRY("policy: exponential, maxRetries: 1"));
        int tries;
        fraction = 0;
        run_script(r, "component", "s", STR("f"), &tries);
        ck_assert(fabs(slept_s[0] - 0.25) < 1e-6);
        fraction = 0.999999999;
        run_script(r, "component", "s", STR("f"), &tries);
        ck_assert(fabs(slept_s[1] - 0.75) < 1e-6);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(exponential_retries_end_after_fifteen_minutes_without_a_number)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, RETRY("policy: exponential"));
        int tries;
        double began = now_s;
        ck_assert_int_eq(run_script(r, "component", "s", STR("f"), &tries), POLICY_FAILED);
        ck_assert(now_s - began <= 900 && now_s - began > 840);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(constant_waits_are_five_seconds_without_a_duration)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, RETRY("maxRetries: 2"));
        int tries;
        run_script(r, "component", "s", STR("f"), &tries);
        ck_assert_uint_eq(n_slept, 2);
        ck_assert(slept_s[0] == 5 && slept_s[1] == 5);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(builtins_wait_as_documented)
{
        static const struct {
                const char *name;
                size_t n;
                double first;
        } cases[] = {{"DaprBuiltInServiceRetries", 3, 1}, {"DaprBuiltInActorRetries", 3, 1}, {"DaprBuiltInInitializationRetries", 3, 0.5},
                     {"DaprBuiltInActorNotFoundRetries", 5, 1}, {"DaprBuiltInActorReminderRetries", 0, 0}};
        struct resiliency *r = engine(NULL);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                int tries;
                n_slept = 0;
                run_script(r, "builtin", cases[i].name, STR("f"), &tries);
                ck_assert_msg(n_slept == cases[i].n, "%s: %zu", cases[i].name, n_slept);
                ck_assert(!n_slept || fabs(slept_s[0] - cases[i].first) < 1e-6);
        }
        resiliency_free(r);
}

ON_LOOP_TEST(the_builtin_for_missing_actors_cannot_be_redefined)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {retries: {DaprBuiltInActorNotFoundRetries: {duration: 7s, maxRetries: 9}}}}");
        int tries;
        run_script(r, "builtin", "DaprBuiltInActorNotFoundRetries", STR("f"), &tries);
        ck_assert_int_eq(tries, 6);
        ck_assert(slept_s[0] == 1);
        resiliency_free(r);
        arena_fini(&a);
}

/* ---- the fiber's own state ---- */

static int failing(void *arg, struct policy_try *t)
{
        ++*(int *)arg;
        return -1;
}

struct canceled_run {
        struct resiliency *r;
        int tries;
        enum policy_result result;
};

static void canceled_fiber(void *arg)
{
        struct canceled_run *x = arg;
        struct policy p;
        find(x->r, "component", "s", "id", &p);
        x->result = policy_run(&p, failing, &x->tries);
}

ON_LOOP_TEST(a_caller_that_goes_away_ends_the_retries)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, RETRY("duration: 10s"));
        struct canceled_run x = {.r = r};
        struct scope s;
        r->clock.sleep = fiber_sleep;
        scope_init(&s);
        ck_assert_int_eq(fiber_go(&s, "run", canceled_fiber, &x), 0);
        WAIT_FOR(x.tries == 1);
        scope_cancel(&s);
        scope_join(&s);
        ck_assert_int_eq(x.result, POLICY_CANCELED);
        ck_assert_int_eq(x.tries, 1);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(the_callers_deadline_ends_the_retries)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, RETRY("duration: 10s"));
        struct policy p;
        int tries = 0;
        r->clock.sleep = fiber_sleep;
        double old = fiber_set_deadline(loop_now_exact() + 0.01);
        find(r, "component", "s", "id", &p);
        ck_assert_int_eq(policy_run(&p, failing, &tries), POLICY_TIMEOUT);
        fiber_restore_deadline(old);
        ck_assert_int_eq(tries, 1);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(a_timeout_gives_the_deadline_back)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {timeouts: {t: 5ms}}, targets: {components: {s: {outbound: {timeout: t}}}}}");
        double old = fiber_set_deadline(loop_now_exact() + 20), mine = fiber_deadline();
        int tries;
        ck_assert_int_eq(run_script(r, "component", "s", STR("t"), &tries), POLICY_TIMEOUT);
        ck_assert(fiber_deadline() == mine);
        ck_assert_int_eq(run_script(r, "component", "s", STR("s"), &tries), POLICY_OK);
        ck_assert(fiber_deadline() == mine);
        fiber_restore_deadline(old);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(without_policies_the_operation_runs_once)
{
        struct resiliency *r = engine(NULL);
        struct policy p;
        int tries = 0;
        find(r, "component", "s", "id", &p);
        ck_assert(policy_is_empty(&p));
        ck_assert(!policy_has_retries(&p));
        ck_assert_int_eq(policy_run(&p, failing, &tries), POLICY_FAILED);
        ck_assert_int_eq(tries, 1);
        find(NULL, "component", "s", "id", &p);
        ck_assert(policy_is_empty(&p));
        policy_release(&p);
        resiliency_free(r);
}

/* ---- breakers and their keys ---- */

#define BREAKER "circuitBreakers: {b: {timeout: 10s, trip: consecutiveFailures > 1}}"

static enum policy_result try_once(struct resiliency *r, const char *target, const char *name, const char *id, bool ok)
{
        struct script s = {.words = ok ? STR("s") : STR("f")};
        struct policy p;
        find(r, target, name, id, &p);
        return policy_run(&p, play, &s);
}

ON_LOOP_TEST(breakers_of_apps_belong_to_an_endpoint)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {" BREAKER "}, targets: {apps: {x: {circuitBreaker: b, circuitBreakerCacheSize: 2}}}}");
        for (int i = 0; i < 2; i++)
                try_once(r, "app", "x", "x:one", false);
        ck_assert_int_eq(try_once(r, "app", "x", "x:one", true), POLICY_OPEN);
        ck_assert_int_eq(try_once(r, "app", "x", "x:two", true), POLICY_OK);
        ck_assert_int_eq(try_once(r, "app", "x", "x:one", true), POLICY_OPEN);
        ck_assert_int_eq(try_once(r, "app", "x", "x:three", true), POLICY_OK); /* the second was used longest ago */
        ck_assert_int_eq(try_once(r, "app", "x", "x:one", true), POLICY_OPEN);
        try_once(r, "app", "x", "x:two", true);
        try_once(r, "app", "x", "x:three", true);
        ck_assert_int_eq(try_once(r, "app", "x", "x:one", true), POLICY_OK); /* forgotten */
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(breakers_of_actors_belong_to_a_type_or_an_id)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {" BREAKER "}, targets: {actors: {t: {circuitBreaker: b, circuitBreakerScope: type}, "
                                               "i: {circuitBreaker: b, circuitBreakerScope: id}}}}");
        for (int i = 0; i < 2; i++) {
                try_once(r, "actor", "t", i ? "1" : "2", false);
                try_once(r, "actor", "i", "1", false);
        }
        ck_assert_int_eq(try_once(r, "actor", "t", "3", true), POLICY_OPEN);
        ck_assert_int_eq(try_once(r, "actor", "i", "1", true), POLICY_OPEN);
        ck_assert_int_eq(try_once(r, "actor", "i", "2", true), POLICY_OK);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(a_component_has_one_breaker_for_both_directions)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {" BREAKER "}, targets: {components: {s: {outbound: {circuitBreaker: b}, "
                                               "inbound: {circuitBreaker: b}}}}}");
        for (int i = 0; i < 2; i++)
                try_once(r, "component", "s", "", false);
        ck_assert_int_eq(try_once(r, "inbound", "s", "", true), POLICY_OPEN);
        ck_assert_int_eq(try_once(r, "component", "s", "", true), POLICY_OPEN);
        now_s += 11;
        ck_assert_int_eq(try_once(r, "inbound", "s", "", true), POLICY_OK);
        ck_assert_int_eq(try_once(r, "component", "s", "", true), POLICY_OK);
        resiliency_free(r);
        arena_fini(&a);
}

struct half_open {
        struct resiliency *r;
        enum policy_result result;
        bool go_on, done;
};

static int wait_for_word(void *arg, struct policy_try *t)
{
        struct half_open *x = arg;
        while (!x->go_on)
                fiber_sleep(0.001);
        return 0;
}

static void half_open_fiber(void *arg)
{
        struct half_open *x = arg;
        struct policy p;
        find(x->r, "component", "s", "", &p);
        x->result = policy_run(&p, wait_for_word, x);
        x->done = true;
}

ON_LOOP_TEST(half_open_lets_one_through_and_refuses_the_others)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {" BREAKER "}, targets: {components: {s: {outbound: {circuitBreaker: b}}}}}");
        struct half_open x = {.r = r};
        struct scope s;
        scope_init(&s);
        for (int i = 0; i < 2; i++)
                try_once(r, "component", "s", "", false);
        now_s += 11;
        ck_assert_int_eq(fiber_go(&s, "first", half_open_fiber, &x), 0);
        fiber_yield();
        ck_assert_int_eq(try_once(r, "component", "s", "", true), POLICY_TOO_MANY);
        x.go_on = true;
        scope_join(&s);
        ck_assert_int_eq(x.result, POLICY_OK);
        ck_assert_int_eq(try_once(r, "component", "s", "", true), POLICY_OK);
        resiliency_free(r);
        arena_fini(&a);
}

ON_LOOP_TEST(an_outcome_of_earlier_counts_does_not_count)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {" BREAKER "}, targets: {components: {s: {outbound: {circuitBreaker: b}}}}}");
        struct half_open x = {.r = r};
        struct scope s;
        scope_init(&s);
        ck_assert_int_eq(fiber_go(&s, "slow", half_open_fiber, &x), 0);
        fiber_yield();
        for (int i = 0; i < 2; i++)
                try_once(r, "component", "s", "", false);
        x.go_on = true;
        scope_join(&s);
        ck_assert_int_eq(x.result, POLICY_OK);
        ck_assert_int_eq(try_once(r, "component", "s", "", true), POLICY_OPEN);
        resiliency_free(r);
        arena_fini(&a);
}

/* ---- many targets ---- */

ON_LOOP_TEST(targets_that_callers_make_up_are_forgotten_at_last)
{
        struct arena a = {0};
        struct resiliency *r = engine_with(&a, "spec: {policies: {retries: {DefaultAppRetryPolicy: {duration: 1ms, maxRetries: 1}}}}");
        for (int i = 0; i < RESILIENCY_TARGETS_MAX + 1000; i++) {
                char name[40];
                struct policy p;
                snprintf(name, sizeof name, "app-%d", i);
                find(r, "app", name, name, &p);
                ck_assert(policy_has_retries(&p));
                policy_release(&p);
        }
        ck_assert_uint_eq(r->targets[TARGET_APP].count, RESILIENCY_TARGETS_MAX);
        resiliency_free(r);
        arena_fini(&a);
}

/* ---- metrics ---- */

static const char *metrics_text(struct metrics *m)
{
        static struct buf b;
        buf_clear(&b);
        ck_assert_int_eq(metrics_write(m, &b), 0);
        buf_addc(&b, '\0');
        return b.p;
}

#define LABELS(policy, status) "app_id=\"app1\",flow_direction=\"outbound\",name=\"res\",namespace=\"ns\",policy=\"" policy "\",status=\"" status "\",target=\"Statestore_s\""

ON_LOOP_TEST(metrics_count_lookups_and_activations)
{
        static const char *const want[] = {
                "dapr_resiliency_loaded{app_id=\"app1\",name=\"res\",namespace=\"ns\"} 1",
                "dapr_resiliency_count{" LABELS("timeout", "") "} 3",
                "dapr_resiliency_count{" LABELS("retry", "") "} 3",
                "dapr_resiliency_count{" LABELS("circuitbreaker", "closed") "} 2",
                "dapr_resiliency_count{" LABELS("circuitbreaker", "open") "} 1",
                "dapr_resiliency_activations_total{" LABELS("retry", "") "} 2",
                "dapr_resiliency_activations_total{" LABELS("timeout", "") "} 1",
                "dapr_resiliency_activations_total{" LABELS("circuitbreaker", "open") "} 1",
                "dapr_resiliency_cb_state{" LABELS("circuitbreaker", "open") "} 1",
                "dapr_resiliency_cb_state{" LABELS("circuitbreaker", "closed") "} 0",
                "dapr_resiliency_cb_state{" LABELS("circuitbreaker", "half-open") "} 0",
                "dapr_resiliency_cb_state{" LABELS("circuitbreaker", "unknown") "} 0"};
        struct metrics *m;
        struct arena a = {0};
        struct yaml_node *doc;
        const char *err;
        ck_assert_int_eq(metrics_new(&m), 0);
        struct resiliency *r = engine(m);
        ck_assert_int_eq(yaml_read(&a,
                                   STR("spec: {policies: {timeouts: {t: 5ms}, retries: {r: {duration: 1ms, maxRetries: 3}}, "
                                       "circuitBreakers: {b: {timeout: 10s, trip: consecutiveFailures > 2}}}, "
                                       "targets: {components: {s: {outbound: {timeout: t, retry: r, circuitBreaker: b}}}}}"),
                                   "r.yaml", 1, 0, &doc, &err),
                         0);
        ck_assert_int_eq(resiliency_add(r, doc, "r.yaml", "res", "ns"), 0);
        int tries;
        ck_assert_int_eq(run_script(r, "component", "s", STR("f f s"), &tries), POLICY_OK);
        ck_assert_int_eq(run_script(r, "component", "s", STR("t f f"), &tries), POLICY_OPEN);
        ck_assert_int_eq(run_script(r, "component", "s", STR("s"), &tries), POLICY_OPEN);
        const char *text = metrics_text(m);
        for (size_t i = 0; i < sizeof want / sizeof *want; i++)
                ck_assert_msg(strstr(text, want[i]) != NULL, "%s is not in\n%.3000s", want[i], strstr(text, "resiliency"));
        resiliency_free(r);
        metrics_free(m);
        arena_fini(&a);
}

/* ---- failing memory ---- */

static struct yaml_node *fault_doc;

static int succeeding(void *arg, struct policy_try *t)
{
        return 0;
}

static bool read_and_run(void *arg)
{
        struct resiliency *r = NULL;
        bool ok = true;
        if (resiliency_new(&r, NULL, STR("app1")))
                return true;
        if (resiliency_add(r, fault_doc, "r.yaml", "res", "ns") == 0) {
                struct policy p;
                r->configured = true;
                find(r, "app", "x", "x:y", &p);
                ok = policy_run(&p, succeeding, NULL) == POLICY_OK;
                find(r, "component", "s", "", &p);
                policy_release(&p);
        }
        resiliency_free(r);
        return ok;
}

ON_LOOP_TEST(every_allocation_may_fail)
{
        struct arena a = {0};
        const char *err;
        ck_assert_int_eq(yaml_read(&a,
                                   STR("spec: {policies: {timeouts: {t: 5s}, retries: {r: {duration: 1ms, maxRetries: 3, matching: {httpStatusCodes: "
                                       "'500-501,503'}}}, " BREAKER "}, targets: {apps: {x: {timeout: t, retry: r, circuitBreaker: b}}, components: {s: "
                                       "{outbound: {circuitBreaker: b}}}}}"),
                                   "r.yaml", 1, 0, &fault_doc, &err),
                         0);
        ck_assert_int_gt(fault_each(read_and_run, NULL), 10);
        arena_fini(&a);
}

int main(void)
{
        Suite *s = suite_create("resiliency");
        TCase *t = tcase_create("resiliency");
        log_set_level(LOG_FATAL);
        tcase_set_timeout(t, 30);
        tcase_add_test(t, every_vector_comes_out_as_in_the_reference);
        tcase_add_test(t, exponential_waits_grow_by_half_up_to_the_greatest);
        tcase_add_test(t, jitter_is_half_of_the_interval_both_ways);
        tcase_add_test(t, exponential_retries_end_after_fifteen_minutes_without_a_number);
        tcase_add_test(t, constant_waits_are_five_seconds_without_a_duration);
        tcase_add_test(t, builtins_wait_as_documented);
        tcase_add_test(t, the_builtin_for_missing_actors_cannot_be_redefined);
        tcase_add_test(t, a_caller_that_goes_away_ends_the_retries);
        tcase_add_test(t, the_callers_deadline_ends_the_retries);
        tcase_add_test(t, a_timeout_gives_the_deadline_back);
        tcase_add_test(t, without_policies_the_operation_runs_once);
        tcase_add_test(t, breakers_of_apps_belong_to_an_endpoint);
        tcase_add_test(t, breakers_of_actors_belong_to_a_type_or_an_id);
        tcase_add_test(t, a_component_has_one_breaker_for_both_directions);
        tcase_add_test(t, half_open_lets_one_through_and_refuses_the_others);
        tcase_add_test(t, an_outcome_of_earlier_counts_does_not_count);
        tcase_add_test(t, targets_that_callers_make_up_are_forgotten_at_last);
        tcase_add_test(t, metrics_count_lookups_and_activations);
        tcase_add_test(t, every_allocation_may_fail);
        suite_add_tcase(s, t);
        return run_suite(s);
}
