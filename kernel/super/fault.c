/*
 * See fault.h. A fault hangs on its component until its time is over, it is cleared, or the component goes; calls look at one pointer
 * when there is none. A call that sleeps for its delay keeps nothing of the fault, so that it may end meanwhile.
 */
#include "kernel/super/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/super/history.h"
#include "kernel/super/plugin.h"

struct fault {
        struct component *c;
        struct fault_plan plan;
        struct timer timer;
        double until;
        uint64_t hits;
        unsigned short dice[3];
};

static void plan_text(char *to, size_t n, const struct fault_plan *p)
{
        int k = 0;
        if (p->delay_s > 0)
                k += snprintf(to + k, n - (size_t)k, "delay %gms, ", p->delay_s * 1e3);
        if (p->code)
                k += snprintf(to + k, n - (size_t)k, "error %s, ", rpc_code_name(p->code));
        if (p->kill)
                k += snprintf(to + k, n - (size_t)k, "kill, ");
        snprintf(to + k, n - (size_t)k, "on %g%% of calls", p->rate * 100);
}

void fault_free(struct component *c)
{
        if (!c->fault)
                return;
        timer_stop(&c->fault->timer);
        free(c->fault);
        c->fault = NULL;
}

int fault_clear(struct component *c, const char *why)
{
        struct fault *f = c->fault;
        if (!f)
                return -ENOENT;
        history_note(c->super, c->name, "fault over", "%s; %llu calls met it", why, (unsigned long long)f->hits);
        log_info(SUPER_SCOPE, "the fault in component %s is over: %s; %llu calls met it", c->name, why, (unsigned long long)f->hits);
        fault_free(c);
        return 0;
}

static void on_time(struct timer *t)
{
        struct fault *f = container_of(t, struct fault, timer);
        fault_clear(f->c, "its time is over");
}

static const char *wrong(const struct component *c, const struct fault_plan *p)
{
        if (!p->delay_s && !p->code && !p->kill)
                return "say what: a delay, an error or kill";
        if (p->delay_s < 0 || p->delay_s > FAULT_DELAY_MAX_S)
                return "the delay must be between 0 and 60s";
        if (!(p->rate > 0 && p->rate <= 1))
                return "the rate must be above 0 and at most 1";
        if (!(p->for_s > 0 && p->for_s <= FAULT_FOR_MAX_S))
                return "the time must be above 0 and at most 1h";
        if (p->kill && c->now && !c->now->plugin->manifest)
                return "its process was not started here and is not ours to kill";
        return NULL;
}

int fault_set(struct component *c, const struct fault_plan *plan, const char **ret_err)
{
        char text[120];
        struct fault *f;
        if ((*ret_err = wrong(c, plan)))
                return -EINVAL;
        if (!(f = calloc(1, sizeof *f)))
                return -ENOMEM;
        fault_free(c);
        *f = (struct fault){.c = c, .plan = *plan, .until = loop_now() + plan->for_s, .dice = {1, 2, 3}};
        timer_init(&f->timer, on_time);
        timer_start(&f->timer, plan->for_s, 0);
        c->fault = f;
        plan_text(text, sizeof text, plan);
        history_note(c->super, c->name, "fault", "%s, for %gs", text, plan->for_s);
        log_warn(SUPER_SCOPE, "an operator makes component %s fail: %s, for %gs", c->name, text, plan->for_s);
        return 0;
}

int fault_kill(struct component *c)
{
        struct life *l = c->now ? c->now->plugin->life : NULL;
        if (!l || l->ended || l->pidfd < 0)
                return -ESRCH;
        history_note(c->super, c->name, "fault", "process %d killed", (int)l->pid);
        log_warn(SUPER_SCOPE, "an operator kills process %d of component %s", (int)l->pid, c->name);
        return syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0) ? -errno : 0;
}

int fault_meet(struct component *c, struct arena *a, const char *method, struct rpc_status *st)
{
        struct fault *f = c->fault;
        struct fault_plan p = f->plan;
        const char *slash = strrchr(method, '/');
        if (erand48(f->dice) >= p.rate)
                return 0;
        f->hits++;
        if (p.kill) {
                struct life *l = c->now ? c->now->plugin->life : NULL;
                if (l && !l->ended && l->pidfd >= 0)
                        syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0);
        }
        int r = p.delay_s > 0 ? fiber_sleep(p.delay_s) : 0;
        if (r) {
                *st = (struct rpc_status){.code = r == -ECANCELED ? RPC_CANCELLED : RPC_DEADLINE_EXCEEDED,
                                          .message = r == -ECANCELED ? STR("the call was cancelled") : STR("context deadline exceeded")};
                return st->code;
        }
        if (!p.code)
                return 0;
        const char *text = arena_printf(a, "%s of component %s: a fault that daprctl plugin fault has set", slash ? slash + 1 : method, c->name);
        *st = (struct rpc_status){.code = p.code, .message = str_of(text ? text : "")};
        return p.code;
}

const char *fault_text(const struct component *c, struct arena *a, double *ret_left_s, uint64_t *ret_hits)
{
        char text[120];
        if (!c->fault)
                return NULL;
        plan_text(text, sizeof text, &c->fault->plan);
        *ret_left_s = c->fault->until - loop_now();
        *ret_hits = c->fault->hits;
        return arena_strdup(a, str_of(text));
}
