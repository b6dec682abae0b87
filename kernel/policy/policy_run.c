/*
 * Running an operation under a policy: retry around breaker around timeout around the operation, in straight lines on the calling
 * fiber. The timeout is a deadline of the fiber, so whatever the operation waits for returns; the operation's own outcome counts
 * even when it comes at the same moment.
 */
#include <errno.h>
#include <stdio.h>

#include "kernel/policy/resiliency_internal.h"
#include "kernel/runtime.h"
#include "sdk/base/fiber.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

static const double TIMER_SLACK_S = 1e-3; /* a timer may fire this early */

const char *policy_result_text(enum policy_result r)
{
        switch (r) {
        case POLICY_TIMEOUT:
                return "context deadline exceeded";
        case POLICY_CANCELED:
                return "context canceled";
        case POLICY_OPEN:
                return "circuit breaker is open";
        case POLICY_TOO_MANY:
                return "too many requests";
        case POLICY_OK:
        case POLICY_FAILED:
                break;
        }
        return "";
}

bool policy_has_retries(const struct policy *p)
{
        return p->retry && p->retry->backoff.max_retries != 0;
}

/* ---- matching ---- */

static bool is_listed(const struct code_ranges *r, int code)
{
        for (size_t i = 0; i < r->n; i++)
                if (r->v[i].lo <= code && code <= r->v[i].hi)
                        return true;
        return !r->given;
}

bool policy_retry_wants(const struct policy_retry *r, int code)
{
        if (code >= 0 && code <= 16)
                return is_listed(&r->grpc, code);
        return code >= 100 && code <= 599 && is_listed(&r->http, code);
}

/* ---- one try ---- */

/* How the fiber's own state ends things: POLICY_OK = it does not. */
static enum policy_result interrupted(double deadline)
{
        if (fiber_is_cancelled())
                return POLICY_CANCELED;
        return loop_now_exact() + TIMER_SLACK_S >= deadline ? POLICY_TIMEOUT : POLICY_OK;
}

static enum policy_result run_timed(struct policy *p, policy_op op, void *arg, struct policy_try *t, bool *timed_out)
{
        if (p->timeout_ns <= 0)
                return op(arg, t) ? POLICY_FAILED : POLICY_OK;
        double deadline = loop_now_exact() + (double)p->timeout_ns / 1e9, old = fiber_set_deadline(deadline);
        int r = op(arg, t);
        enum policy_result end = r ? interrupted(old < deadline ? old : deadline) : POLICY_OK;
        fiber_restore_deadline(old);
        if (end == POLICY_OK)
                return r ? POLICY_FAILED : POLICY_OK;
        if (!*timed_out)
                resiliency_activated(p, ACTIVATED_TIMEOUT, BREAKER_CLOSED);
        *timed_out = true;
        return end;
}

static enum policy_result run_once(struct policy *p, policy_op op, void *arg, struct policy_try *t, bool *timed_out)
{
        struct breaker *b = p->breaker;
        double (*now)(void) = p->owner->clock.now;
        enum policy_result r = POLICY_OK;
        uint64_t generation;
        if (!b)
                return run_timed(p, op, arg, t, timed_out);
        enum breaker_state before = breaker_state(b, now());
        switch (breaker_begin(b, now(), &generation)) {
        case BREAKER_PASS:
                r = run_timed(p, op, arg, t, timed_out);
                breaker_done(b, now(), generation, r == POLICY_OK);
                break;
        case BREAKER_REFUSED_OPEN:
                r = POLICY_OPEN;
                break;
        case BREAKER_REFUSED_TOO_MANY:
                r = POLICY_TOO_MANY;
                break;
        }
        enum breaker_state after = breaker_state(b, now());
        if (before != after)
                resiliency_activated(p, ACTIVATED_BREAKER, after);
        return r;
}

/* ---- retries ---- */

/* "component[store] output": what log lines call it. */
static void describe(const struct policy *p, char *to, size_t n)
{
        const struct policy_target *t = p->target;
        if (!t)
                snprintf(to, n, "%.*s", STR_FMT(p->name));
        else if (t->kind == TARGET_COMPONENT)
                snprintf(to, n, "component[%.*s] %s", STR_FMT(p->name), t->direction == POLICY_OUTBOUND ? "output" : "input");
        else
                snprintf(to, n, "%s[%.*s, %.*s]", t->kind == TARGET_APP ? "endpoint" : "actor", STR_FMT(p->name), STR_FMT(p->id));
}

static void say_retrying(struct policy *p, int64_t wait_ns)
{
        char name[300], wait[40];
        describe(p, name, sizeof name);
        duration_text(wait, wait_ns);
        resiliency_activated(p, ACTIVATED_RETRY, BREAKER_CLOSED);
        log_warn(RESILIENCY_SCOPE, "Error processing operation %s. Retrying in %s…", name, wait);
}

static void say_recovered(const struct policy *p, unsigned attempts)
{
        char name[300];
        describe(p, name, sizeof name);
        log_info(RESILIENCY_SCOPE, "Recovered processing operation %s after %u attempts", name, attempts);
}

static bool is_final(const struct policy *p, enum policy_result r, const struct policy_try *t)
{
        if (r == POLICY_OPEN || r == POLICY_TOO_MANY)
                return true;
        return r == POLICY_FAILED && (t->permanent || (t->code && !policy_retry_wants(p->retry, t->code)));
}

static enum policy_result run_retrying(struct policy *p, policy_op op, void *arg)
{
        const struct resiliency_clock *clock = &p->owner->clock;
        struct backoff b;
        bool said = false, timed_out = false;
        backoff_init(&b, &p->retry->backoff, clock->now());
        for (unsigned attempt = 1;; attempt++) {
                struct policy_try t = {.attempt = attempt};
                enum policy_result r = run_once(p, op, arg, &t, &timed_out), end;
                if (r == POLICY_OK && said)
                        say_recovered(p, attempt);
                if (r == POLICY_OK || is_final(p, r, &t))
                        return r;
                if ((end = interrupted(fiber_deadline())) != POLICY_OK)
                        return end;
                int64_t wait_ns = backoff_next(&b, clock->now(), clock->random(&p->owner->random));
                if (wait_ns == BACKOFF_STOP)
                        return r;
                if (!said)
                        say_retrying(p, wait_ns);
                said = true;
                int s = clock->sleep((double)wait_ns / 1e9);
                if (s)
                        return s == -ETIMEDOUT ? POLICY_TIMEOUT : POLICY_CANCELED;
        }
}

enum policy_result policy_run(struct policy *p, policy_op op, void *arg)
{
        struct policy_try t = {.attempt = 1};
        bool timed_out = false;
        if (policy_is_empty(p))
                return op(arg, &t) ? POLICY_FAILED : POLICY_OK;
        enum policy_result r = p->retry ? run_retrying(p, op, arg) : run_once(p, op, arg, &t, &timed_out);
        policy_release(p);
        return r;
}
