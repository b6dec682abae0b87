/*
 * A process whose loop lives and whose operations do not come back. Its reports tell for how long; from the manifest's hangAfter comes
 * what that means:
 *
 *   all its threads busy, none back, calls wait or were given up      a quarter of it: told       all of it: it hangs
 *   a ping does not come back          a twelfth (5 s at most): unreachable, and told             half of it: it hangs
 *   a call that was given up still runs                               a quarter of it: told       never: it may be honest work
 *
 * Told: once in log and history, and in each row for daprctl until it is over. A process that hangs is killed, class hang, and replaced. One
 * that a debugger holds is not.
 */
#include <stdio.h>

#include "kernel/super/plugin.h"
#include "plugin/v1/lifecycle.pb-c.h"

static const double PING_TOLD_MAX_S = 5;

double plugin_hang_after_s(const struct plugin *p)
{
        return p->manifest && p->manifest->hang_after_s >= 0 ? p->manifest->hang_after_s : p->super->tuning.hang_after_s;
}

/* Where nothing means a hang the default says what is long. */
static double telling_limit_s(const struct plugin *p)
{
        double limit = plugin_hang_after_s(p);
        return limit > 0 ? limit : p->super->tuning.hang_after_s;
}

static bool is_blocked(const struct plugin *p, const Microdapr__Plugin__V1__HealthReport *r)
{
        double limit = telling_limit_s(p), ping = limit / 12 < PING_TOLD_MAX_S ? limit / 12 : PING_TOLD_MAX_S;
        return (double)r->stalled_ms / 1e3 >= limit / 4 || (double)r->ping_ms / 1e3 >= ping;
}

static bool hangs(const struct plugin *p, const Microdapr__Plugin__V1__HealthReport *r)
{
        double limit = plugin_hang_after_s(p);
        return limit > 0 && ((double)r->stalled_ms / 1e3 >= limit || (double)r->ping_ms / 1e3 >= limit / 2);
}

static void tell(struct life *l, const char *text)
{
        struct plugin *p = l->plugin;
        bool was = l->stuck[0];
        snprintf(l->stuck, sizeof l->stuck, "%s", text);
        if (!was && text[0]) {
                log_warn(SUPER_SCOPE, "plugin %s: operations do not come back: %s", p->name, text);
                plugin_note(p, "stuck", text);
        } else if (was && !text[0]) {
                log_info(SUPER_SCOPE, "plugin %s: its operations come back again", p->name);
                plugin_note(p, "no more stuck", "");
        }
}

void life_judge_report(struct life *l, const Microdapr__Plugin__V1__HealthReport *r)
{
        struct plugin *p = l->plugin;
        l->abandoned = r->abandoned;
        if (l->ended || (p->state != PLUGIN_READY && p->state != PLUGIN_DEGRADED))
                return;
        l->is_blocked = is_blocked(p, r);
        bool told = l->is_blocked || (double)r->abandoned_ms / 1e3 >= telling_limit_s(p) / 4;
        tell(l, told ? r->busy_with[0] ? r->busy_with : "it does not say what" : "");
        if (!hangs(p, r) || life_is_held(l))
                return;
        l->stuck_for_good = true;
        plugin_event(p, EV_HANG);
}
