/*
 * Make before break. A candidate is brought up beside the instance that serves; only when it is ready, has lived for a moment and
 * (when asked for) has answered reads as the old one did, streams and calls move to it; the old one finishes what it has and stops.
 *
 *   choose plugin -> candidate up -> settle -> shadow -> on_move (streams open there) -> shift -> on_moved (old streams end)
 *        any failure up to here: the candidate goes, nothing has changed                    -> old one stands by -> retires
 *
 * Where two instances of one name cannot be at once (a foreign component, a process that components share) the same process gets
 * another Init instead; when that fails, the Init before.
 */
#include "kernel/super/swap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/super/history.h"
#include "kernel/super/keep.h"
#include "sdk/base/log.h"

enum { OLD_CALLS_S = 30, OLD_GRACE_S = 5 };
static const double REASON_S = 0.2;

struct swap {
        struct super *s;
        struct component *c;
        const struct swap_request *q;
        const struct component_spec *spec;
        bool other_spec, in_place;
        struct plugin *plugin;         /* of the candidate */
        struct instance *candidate;
        unsigned life;                 /* of its process; another one means that it has died once */
        struct component to;           /* handle on the candidate for as long as it is one */
        struct arena *a;
        const char *err;
};

/* ---- ending instances in the background ---- */

static void retire_fiber(void *arg)
{
        super_retire(arg, OLD_CALLS_S, OLD_GRACE_S);
}

static void retire_later(struct super *s, struct instance *i)
{
        if (fiber_go(&s->cleanup, "instance-retire", retire_fiber, i))
                super_retire(i, 0, OLD_GRACE_S);
}

void swap_standby_over(struct component *c)
{
        struct instance *old = c->standby;
        c->standby = NULL;
        if (old)
                retire_later(c->super, old);
}

struct window {
        struct component *c;
        struct instance *standby;
};

static void window_fiber(void *arg)
{
        struct window w = *(struct window *)arg;
        free(arg);
        double s = w.c->standby_until - loop_now();
        if (fiber_sleep(s > 0 ? s : 0) == 0 && w.c->standby == w.standby)
                swap_standby_over(w.c);
}

/* The old one, which stands by already, waits until the new one has proved itself. */
static void stand_by(struct component *c, struct instance *old)
{
        struct window *w = malloc(sizeof *w);
        c->standby_until = loop_now() + c->super->tuning.stable_s;
        if (w)
                *w = (struct window){c, old};
        if (!w || fiber_go(&c->super->scope, "instance-standby", window_fiber, w)) {
                free(w);
                swap_standby_over(c);
        }
}

/* ---- back ---- */

struct fall {
        struct component *c;
        struct instance *lost;
        bool other_spec;
};

/* Why a process is gone is known a moment after its connection broke. */
static void wait_for_reason(struct plugin *p)
{
        double until = loop_now() + REASON_S;
        while (p->life && !p->last_error[0] && cond_wait_until(&p->changed, until) == 0)
                ;
}

static void fall_fiber(void *arg)
{
        struct fall f = *(struct fall *)arg;
        struct super *s = f.c->super;
        struct plugin *p = f.lost->plugin;
        struct arena a;
        const char *err = NULL;
        free(arg);
        wait_for_reason(p);
        log_error(SUPER_SCOPE, "component %s: plugin %s %s %s after calls had moved to it; they are back where they were", f.lost->log_name,
                  p->name, plugin_version(p), p->last_error);
        history_note(s, f.c->name, "rolled back", "%s %s %s", p->name, plugin_version(p), p->last_error);
        arena_init(&a, 0);
        if (s->conf.on_move && f.c->now)
                s->conf.on_move(s->conf.arg, f.c, f.c, f.other_spec, &a, &err);
        if (s->conf.on_moved)
                s->conf.on_moved(s->conf.arg, f.c);
        super_retire(f.lost, 0, OLD_GRACE_S);
        arena_fini(&a);
}

static void fall_back(struct component *c)
{
        struct instance *lost = c->now;
        struct fall *f = malloc(sizeof *f);
        if (f)
                *f = (struct fall){c, lost, lost->spec != c->standby->spec};
        if (!f || fiber_go(&c->super->cleanup, "instance-fall-back", fall_fiber, f)) {
                free(f);
                return;
        }
        lost->has_fallen = true;
        c->now = c->standby;
        c->standby = NULL;
        cond_broadcast(&lost->plugin->changed);
        if (f->other_spec)
                component_refuse(c, lost->spec);
        free(c->previous);
        c->previous = NULL;
}

static bool goes_back(const struct instance *i)
{
        const struct component *c = i->component;
        return c && c->now == i && c->standby && instance_is_usable(c->standby) && !c->super->stopping;
}

bool swap_goes_back(const struct plugin *p)
{
        bool any = false;
        list_for_each(pos, &p->instances) {
                const struct instance *i = list_entry(pos, struct instance, in_plugin);
                any |= i->has_fallen || goes_back(i);
        }
        return any;
}

void swap_plugin_lost(struct plugin *p)
{
        list_for_each(pos, &p->instances) {
                struct instance *i = list_entry(pos, struct instance, in_plugin);
                if (goes_back(i))
                        fall_back(i->component);
        }
}

void component_refuse(struct component *c, const struct component_spec *spec)
{
        component_spec_free(c->refused);
        c->refused = spec ? component_spec_ref((struct component_spec *)spec) : NULL;
}

const struct component_spec *component_refused(const struct component *c)
{
        return c->refused;
}

/* ---- the candidate ---- */

static int other_plugin(struct swap *w, const char *file)
{
        struct manifest *m;
        const char *type = w->spec->type, *version = w->spec->version ? w->spec->version : "";
        int r = manifest_read(file, &m, w->a, &w->err);
        if (r == -ENOENT)
                w->err = arena_printf(w->a, "%s does not exist; name the folder of a plugin, with its plugin.yaml", file);
        if (r)
                return r;
        if (!manifest_serves(m, type, version)) {
                w->err = arena_printf(w->a, "%s: plugin %s %s does not serve %s/%s", file, m->name, m->version, type, *version ? version : "v1");
                r = -EINVAL;
        } else if (manifest_check(m, w->spec, w->a, &w->err)) {
                r = -EINVAL;
        }
        struct plugin *shared = r == 0 && m->share && w->q->join && w->q->join->now ? w->q->join->now->plugin : NULL;
        if (shared && (!shared->manifest || strcmp(shared->manifest->file, m->file) != 0 || !plugin_is_callable(shared)))
                shared = NULL;
        w->plugin = r ? NULL : shared ? shared : plugin_new(w->s, m, m->name);
        if (!w->plugin || shared)
                manifest_free(m);
        return r ? r : w->plugin ? 0 : -ENOMEM;
}

static bool same(const char *a, const char *b)
{
        return strcmp(a ? a : "", b ? b : "") == 0;
}

static int same_process(struct swap *w, struct plugin *p)
{
        if (manifest_check(p->manifest, w->spec, w->a, &w->err))
                return -EINVAL;
        w->plugin = p;
        return 0;
}

static int choose_plugin(struct swap *w)
{
        const struct instance *now = w->c->now;
        const struct manifest *m = now->plugin->manifest;
        bool same_type = strcasecmp(w->spec->type, now->spec->type) == 0 && same(w->spec->version, now->spec->version) &&
                         same(w->spec->plugin_version, now->spec->plugin_version);
        int r;
        if (w->q->manifest && !m) {
                w->err = "it is a pluggable component behind a socket of its own; start its other version there, daprd connects to it again";
                return -EINVAL;
        }
        if (w->q->manifest)
                r = other_plugin(w, w->q->manifest);
        else if (m && same_type && !m->share && (w->q->restart || w->c->previous))
                r = other_plugin(w, m->file); /* what the operator chose stays */
        else if (m && same_type && m->share && w->c->previous)
                r = same_process(w, now->plugin); /* here too */
        else
                r = super_find_plugin(w->s, w->spec, w->c->kind, w->a, &w->plugin, &w->err);
        w->in_place = r == 0 && w->plugin == now->plugin;
        return r;
}

static int bring_up(struct swap *w)
{
        int r = instance_new(&w->candidate, w->plugin, w->spec, w->a);
        if (r) {
                if (list_is_empty(&w->plugin->instances) && w->plugin->manifest)
                        plugin_free(w->plugin);
                return r;
        }
        instance_attach(w->candidate, &w->to);
        w->plugin->debugged = w->q->debug && !w->in_place;
        w->c->candidate = w->plugin;
        r = super_bring_up(w->candidate, w->plugin->debugged ? DEBUG_LIMIT_S : component_timeout_s(w->spec), w->a, &w->err);
        w->c->candidate = NULL;
        if (r == -ETIMEDOUT)
                w->err = arena_printf(w->a, "%s\ninit timeout for component %s", w->err, w->candidate->log_name);
        if (r)
                super_abandon(w->candidate);
        else
                w->to.now = w->candidate;
        w->life = r ? 0 : w->candidate->init_life;
        return r;
}

static bool lives_on(const struct swap *w)
{
        return instance_is_usable(w->candidate) && w->plugin->life->number == w->life;
}

/* Parks for s seconds. -EIO: it did not live so long. */
static int settle(struct swap *w, double seconds)
{
        double until = loop_now() + seconds;
        struct plugin *p = w->plugin;
        int r = 0;
        while (r == 0 && seconds > 0 && lives_on(w))
                r = cond_wait_until(&p->changed, until);
        if (lives_on(w))
                return r == -ECANCELED ? r : 0;
        wait_for_reason(p);
        w->err = arena_printf(w->a, "plugin %s %s %s after it was ready", p->name, plugin_version(p), p->last_error);
        return -EIO;
}

static int shadow(struct swap *w)
{
        struct shadow *s = w->q->shadow_s > 0 ? arena_zalloc(w->a, sizeof *s) : NULL;
        if (w->q->shadow_s <= 0)
                return 0;
        if (!s)
                return -ENOMEM;
        *s = (struct shadow){.c = w->c, .candidate = w->candidate, .life = w->life};
        shadow_run(s, w->q->shadow_s);
        struct swap_report report = {s->reads, s->differences, shadow_ms(s->theirs, 0.99), shadow_ms(s->present, 0.99), shadow_growth_mib(s)};
        if (w->q->report)
                *w->q->report = report;
        history_note(w->s, w->c->name, "shadowed", "%llu reads, %llu differences, p99 %.1f ms, of the present one %.1f ms, memory %+.1f MiB",
                     (unsigned long long)s->reads, (unsigned long long)s->differences, report.shadow_p99_ms, report.present_p99_ms,
                     report.shadow_growth_mib);
        if (!lives_on(w))
                return settle(w, 0);
        const char *why = shadow_verdict(s, w->a);
        w->err = why ? why : w->err;
        return why ? -EBADMSG : 0;
}

/* ---- the shift ---- */

static void shift(struct swap *w)
{
        struct component *c = w->c;
        struct instance *old = c->now;
        if (w->q->restart && !w->in_place)
                w->plugin->restarts = old->plugin->restarts + 1;
        instance_attach(w->candidate, c);
        c->now = w->candidate;
        c->standby = w->in_place ? NULL : old;
        cond_broadcast(&old->plugin->changed);
        cond_broadcast(&c->now->plugin->changed);
        component_refuse(c, NULL);
        if (w->s->conf.on_change)
                w->s->conf.on_change(w->s->conf.arg, c);
        history_note(w->s, c->name, "swapped", "%s: %s %s to %s %s", w->q->why, old->plugin->name, plugin_version(old->plugin),
                     c->now->plugin->name, plugin_version(c->now->plugin));
}

static void remember_previous(struct component *c, const struct instance *old)
{
        char *file = old->plugin->manifest ? strdup(old->plugin->manifest->file) : NULL;
        free(c->previous);
        c->previous = file;
}

static int over_to_candidate(struct swap *w)
{
        struct super_conf *conf = &w->s->conf;
        struct component *c = w->c;
        struct instance *old = c->now;
        int r = settle(w, w->q->settle_s);
        if (r == 0)
                r = shadow(w);
        if (r == 0 && conf->on_move)
                r = conf->on_move(conf->arg, c, &w->to, w->other_spec, w->a, &w->err);
        if (r == 0 && (r = settle(w, 0)) && conf->on_move) {
                const char *err;
                conf->on_move(conf->arg, c, c, w->other_spec, w->a, &err); /* as it was */
        }
        if (r) {
                if (w->in_place) {
                        w->candidate->stopping = true;
                        instance_wait_idle(w->candidate);
                        instance_free(w->candidate);
                } else {
                        super_retire(w->candidate, 0, OLD_GRACE_S);
                }
                return r;
        }
        shift(w);
        if (w->q->manifest)
                remember_previous(c, old);
        if (conf->on_moved)
                conf->on_moved(conf->arg, c);
        if (w->in_place)
                retire_later(w->s, old);
        else if (c->standby == old) /* else it is the one that serves again */
                stand_by(c, old);
        if (w->s->linger_s > 0)
                keep_flush(w->s); /* after a crash from now on it is the new one that is taken over */
        return 0;
}

/* The Init before, after one that failed. */
static void init_again(struct instance *i)
{
        struct plugin *p = i->plugin;
        double until = loop_now() + component_timeout_s(i->spec);
        if (!plugin_is_callable(p) || instance_init_start(i))
                return;
        while (i->inits && cond_wait_until(&p->changed, until) == 0)
                ;
}

/* In the same foreign process: its streams end first, for they belong to the instance of that name. */
static int foreign_in_place(struct swap *w)
{
        struct super_conf *conf = &w->s->conf;
        struct component *c = w->c;
        if (conf->on_leave)
                conf->on_leave(conf->arg, c);
        int r = bring_up(w);
        if (r == 0)
                r = over_to_candidate(w);
        if (r && c->now)
                init_again(c->now);
        if (conf->on_arrive && c->now)
                conf->on_arrive(conf->arg, c);
        return r;
}

static int swap(struct swap *w)
{
        struct component *c = w->c;
        w->spec = w->q->spec ? w->q->spec : c->now->spec;
        w->other_spec = w->spec != c->now->spec;
        w->to = (struct component){.super = w->s, .kind = c->kind, .name = c->name, .stands_for = c};
        list_init(&w->to.in_super);
        swap_standby_over(c);
        int r = choose_plugin(w);
        if (r)
                return r;
        if (w->in_place && !w->plugin->manifest)
                return foreign_in_place(w);
        r = bring_up(w);
        return r ? r : over_to_candidate(w);
}

int super_component_swap(struct super *s, struct component *c, const struct swap_request *q, struct arena *a, const char **ret_err)
{
        struct swap w = {.s = s, .c = c, .q = q, .a = a, .err = "out of memory"};
        int r = fmutex_lock(&c->changing);
        *ret_err = "cancelled";
        if (r)
                return r;
        if (!c->now || s->stopping || c->disabled) {
                w.err = c->now && c->disabled ? "the component is disabled; daprctl plugin enable it first" : "the component is gone";
                r = -ENOENT;
        } else {
                r = swap(&w);
                if (r) {
                        log_error(SUPER_SCOPE, "component %s: %s is not done, what runs stays: %s", c->name, q->why, w.err);
                        history_note(s, c->name, "rolled back", "%s: %s", q->why, w.err);
                        if (w.other_spec)
                                component_refuse(c, w.spec);
                }
        }
        *ret_err = w.err;
        fmutex_unlock(&c->changing);
        return r;
}

int super_component_rollback(struct super *s, struct component *c, struct arena *a, const char **ret_err)
{
        const char *file = c->previous ? arena_strdup(a, str_of(c->previous)) : NULL;
        *ret_err = "there is no version before this one to go back to";
        if (!file)
                return -ENOENT;
        return super_shared_swap(s, c, &(struct swap_request){.why = "rollback", .manifest = file}, a, ret_err);
}
