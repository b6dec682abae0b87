/*
 * The life of a plugin as a table: what each event does in each state. No cell is empty.
 *
 *   ABSENT --start--> STARTING --connected--> HELLO --hello--> INIT --ready--> READY <--backend--> DEGRADED
 *      STARTING, HELLO, INIT, READY, DEGRADED --exit--> (tally) --> STARTING at once | BACKOFF --over--> STARTING | FAILED
 *      READY, DEGRADED --lost, hang--> BACKOFF (until the process is gone, then as after exit)
 *      One that was never ready starts again only after a death by chance, while its component's start has time; else it has FAILED.
 *      HELLO --refused--> FAILED        any --give up--> FAILED        FAILED --start--> STARTING
 *      any --stop--> DRAINING --drained, exit--> STOPPED --start--> STARTING
 *
 * An action changes things outside and returns the next state; it never parks, and never raises an event itself.
 * A foreign component has no process: its connection takes that place, HELLO is skipped (connected --> INIT), it never FAILS.
 */
#include "kernel/super/plugin.h"


enum { LOST_GRACE_MS = 100, EXIT_GRACE_MS = 1000, GONE_BACK_MS = 1000 };

typedef enum plugin_state (*action_fn)(struct plugin *p);

static const char *const state_names[PLUGIN_STATES] = {"ABSENT",   "STARTING", "HELLO",   "INIT",    "READY",
                                                       "DEGRADED", "DRAINING", "STOPPED", "BACKOFF", "FAILED"};
static const char *const event_names[PLUGIN_EVENTS] = {
        "START",  "CONNECTED", "HELLO",   "REFUSED", "READY", "BACKEND_UP", "BACKEND_DOWN", "LOST",
        "HANG",   "TIMEOUT",   "EXIT",    "BACKOFF_OVER", "STOP", "DRAINED", "GIVE_UP"};

const char *plugin_state_name(enum plugin_state s)
{
        return state_names[s];
}

const char *plugin_event_name(enum plugin_event e)
{
        return event_names[e];
}

bool plugin_is_callable(const struct plugin *p)
{
        return (p->state == PLUGIN_READY || p->state == PLUGIN_DEGRADED) && p->life && p->life->usable;
}

/* ---- actions ---- */

/* Nothing to do: the event is late, or says what is known. */
static enum plugin_state same(struct plugin *p)
{
        return p->state;
}

static enum plugin_state retry(struct plugin *p, double delay_s)
{
        if (delay_s < 0) {
                log_error(SUPER_SCOPE, "plugin %s has failed: %s; it is not started again", p->name, p->last_error);
                return PLUGIN_FAILED;
        }
        timer_start(&p->backoff, delay_s, 0);
        return PLUGIN_BACKOFF;
}

static enum plugin_state start(struct plugin *p)
{
        timer_stop(&p->backoff);
        p->wanted = true;
        if (p->lives > 0)
                p->restarts++;
        if (life_start(p) == 0)
                return PLUGIN_STARTING;
        plugin_set_death(p, DEATH_ERROR);
        return p->first ? PLUGIN_FAILED : retry(p, death_tally(p, NULL, DEATH_ERROR));
}

/* The operator starts a failed or stopped one anew: the past is forgotten. */
static enum plugin_state start_anew(struct plugin *p)
{
        if (p->life) /* the old process is not gone yet; who wants a start waits for that */
                return p->state;
        p->n_deaths = 0;
        p->first = false;
        return start(p);
}

static enum plugin_state want(struct plugin *p)
{
        p->wanted = true;
        return p->state;
}

static enum plugin_state connected(struct plugin *p)
{
        return p->manifest ? PLUGIN_HELLO : PLUGIN_INIT;
}

static enum plugin_state hello(struct plugin *p)
{
        return PLUGIN_INIT;
}

static enum plugin_state refused(struct plugin *p)
{
        plugin_set_death(p, DEATH_PROTOCOL);
        life_kill_after(p->life, LOST_GRACE_MS / 1000.0, DEATH_PROTOCOL); /* time to log why */
        return PLUGIN_FAILED;
}

static enum plugin_state ready(struct plugin *p)
{
        struct life *l = p->life;
        timer_stop(&l->start_timer);
        if (l->ready_at == 0)
                l->ready_at = loop_now();
        l->usable = true;
        p->first = false;
        return p->backend_known && !p->backend_up ? PLUGIN_DEGRADED : PLUGIN_READY;
}

static enum plugin_state backend_up(struct plugin *p)
{
        return PLUGIN_READY;
}

static enum plugin_state backend_down(struct plugin *p)
{
        return PLUGIN_DEGRADED;
}

/* The process dies, usually: its end comes within moments. If it does not, it has broken the contract. */
static enum plugin_state lost_early(struct plugin *p)
{
        p->life->usable = false;
        life_kill_after(p->life, LOST_GRACE_MS / 1000.0, DEATH_PROTOCOL);
        return p->state;
}

static enum plugin_state lost(struct plugin *p)
{
        lost_early(p);
        return PLUGIN_BACKOFF;
}

static enum plugin_state hang(struct plugin *p)
{
        p->life->usable = false;
        life_kill(p->life, DEATH_HANG);
        return PLUGIN_BACKOFF;
}

static enum plugin_state too_slow(struct plugin *p)
{
        life_kill(p->life, DEATH_START_TIMEOUT);
        return p->state;
}

/* A first start has failed for good when the program says so, or is of no use here: it ends by itself before it answers Hello, is
 * refused, breaks its walls. Any other death may come of the moment or of somebody else, and is no answer to Init. */
static bool fails_at_first(const struct plugin *p)
{
        bool by_itself = p->last_death == DEATH_ERROR || p->last_death == DEATH_CLEAN;
        bool by_chance = p->last_death == DEATH_SIGNAL || p->last_death == DEATH_OOM || p->last_death == DEATH_HANG;
        return p->first && !(p->patient && (by_chance || (by_itself && p->state == PLUGIN_INIT)));
}

static enum plugin_state died(struct plugin *p)
{
        bool fails = fails_at_first(p), was_ready = p->life->ready_at > 0;
        double delay = death_tally(p, p->life, p->last_death);
        life_end(p->life);
        if (fails)
                return PLUGIN_FAILED;
        if (delay >= 0 && swap_goes_back(p)) { /* it is stopped as soon as that is done */
                log_warn(SUPER_SCOPE, "plugin %s %s; the one before it serves again", p->name, p->last_error);
                return retry(p, GONE_BACK_MS / 1000.0);
        }
        if (!p->manifest && was_ready)
                log_warn(SUPER_SCOPE, "pluggable component %s: %s; connecting again", p->name, p->last_error);
        else if (p->manifest && delay >= 0)
                log_warn(SUPER_SCOPE, "plugin %s %s; it is started again %s", p->name, p->last_error, delay > 0 ? "after a pause" : "at once");
        return delay == 0 ? start(p) : retry(p, delay);
}

static enum plugin_state bury(struct plugin *p)
{
        life_end(p->life);
        return p->state;
}

static enum plugin_state give_up(struct plugin *p)
{
        timer_stop(&p->backoff);
        if (p->life)
                life_kill(p->life, DEATH_OPERATOR);
        return PLUGIN_FAILED;
}

static enum plugin_state stop_running(struct plugin *p)
{
        p->wanted = false;
        return PLUGIN_DRAINING; /* super.c drains, with its grace time */
}

static enum plugin_state stop_early(struct plugin *p)
{
        p->wanted = false;
        timer_stop(&p->backoff);
        if (!p->life)
                return PLUGIN_STOPPED;
        life_kill(p->life, DEATH_OPERATOR);
        return p->life ? PLUGIN_DRAINING : PLUGIN_STOPPED;
}

static enum plugin_state drained(struct plugin *p)
{
        struct life *l = p->life;
        l->usable = false;
        if (!p->manifest) {
                life_end(l);
                return PLUGIN_STOPPED;
        }
        life_let_go(l);
        l->verdict = DEATH_OPERATOR;
        life_kill_after(l, EXIT_GRACE_MS / 1000.0, DEATH_OPERATOR);
        return PLUGIN_DRAINING;
}

static enum plugin_state stopped(struct plugin *p)
{
        life_end(p->life);
        return PLUGIN_STOPPED;
}

static enum plugin_state kill_draining(struct plugin *p)
{
        life_kill(p->life, DEATH_OPERATOR);
        return PLUGIN_DRAINING;
}

/* ---- the table ---- */

/* clang-format off */
static const action_fn actions[PLUGIN_STATES][PLUGIN_EVENTS] = {
/*                   START       CONNECTED  HELLO  REFUSED  READY  BACKEND_UP  BACKEND_DOWN  LOST        HANG           TIMEOUT   EXIT     BACKOFF_OVER  STOP          DRAINED  GIVE_UP */
[PLUGIN_ABSENT]   = {start,      same,      same,  same,    same,  same,       same,         same,       same,          same,     same,    same,         stop_early,   same,    give_up},
[PLUGIN_STARTING] = {want,       connected, same,  refused, same,  same,       same,         lost_early, too_slow,      too_slow, died,    same,         stop_early,   same,    give_up},
[PLUGIN_HELLO]    = {want,       same,      hello, refused, same,  same,       same,         lost_early, too_slow,      too_slow, died,    same,         stop_early,   same,    give_up},
[PLUGIN_INIT]     = {want,       same,      same,  same,    ready, same,       same,         lost_early, hang,          too_slow, died,    same,         stop_early,   same,    give_up},
[PLUGIN_READY]    = {want,       same,      same,  same,    same,  same,       backend_down, lost,       hang,          hang,     died,    same,         stop_running, same,    give_up},
[PLUGIN_DEGRADED] = {want,       same,      same,  same,    same,  backend_up, same,         lost,       hang,          hang,     died,    same,         stop_running, same,    give_up},
[PLUGIN_DRAINING] = {same,       same,      same,  same,    same,  same,       same,         same,       kill_draining, same,     stopped, same,         want,         drained, give_up},
[PLUGIN_STOPPED]  = {start_anew, same,      same,  same,    same,  same,       same,         same,       same,          same,     same,    same,         same,         same,    same},
[PLUGIN_BACKOFF]  = {want,       same,      same,  same,    same,  same,       same,         same,       same,          same,     died,    start,        stop_early,   same,    give_up},
[PLUGIN_FAILED]   = {start_anew, same,      same,  same,    same,  same,       same,         same,       same,          same,     bury,    same,         stop_early,   same,    same},
};
/* clang-format on */

void plugin_event(struct plugin *p, enum plugin_event e)
{
        enum plugin_state from = p->state, to = actions[from][e](p);
        if (log_enabled(LOG_DEBUG) && (to != from || e == EV_EXIT))
                log_debug(SUPER_SCOPE, "plugin %s: %s in %s -> %s", p->name, event_names[e], state_names[from], state_names[to]);
        if (to != from) {
                p->state = to;
                p->state_since = loop_now();
        }
        if (to != from || e == EV_EXIT || e == EV_READY)
                plugin_notify(p);
}
