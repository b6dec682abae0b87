/* The supervisor itself: starting and stopping components; which plugin one runs in is decided here, how it lives in table.c. */
#include "kernel/super/super.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/adopt.h"
#include "kernel/super/catalog.h"
#include "kernel/super/control.h"
#include "kernel/super/fault.h"
#include "kernel/super/history.h"
#include "kernel/super/keep.h"
#include "kernel/super/linger.h"
#include "kernel/super/plugin.h"
#include "kernel/super/swap.h"
#include "kernel/super/tap.h"
#include "sdk/base/log.h"

enum { FAILED_ROWS_MAX = 100, STOP_CALLS_S = 30, DEATH_WAIT_S = 3 };

/* ---- the supervisor ---- */

static void set_tuning(struct super_tuning *t, const struct super_tuning *given)
{
        static const struct super_tuning defaults = {.health_interval_s = 1, .health_missed = 3, .hang_after_s = 60, .hello_timeout_s = 5,
                                                     .backoff_min_s = 0.1,   .backoff_max_s = 5, .stable_s = 10,
                                                     .deaths_max = 10,       .deaths_window_s = 60, .ping_interval_s = 5,
                                                     .calls_waiting_max = PLUGIN_CALLS_WAITING_MAX};
        *t = given ? *given : defaults;
#define DEFAULT(field) t->field = t->field ? t->field : defaults.field
        DEFAULT(health_interval_s);
        DEFAULT(health_missed);
        DEFAULT(hang_after_s);
        DEFAULT(hello_timeout_s);
        DEFAULT(backoff_min_s);
        DEFAULT(backoff_max_s);
        DEFAULT(stable_s);
        DEFAULT(deaths_max);
        DEFAULT(deaths_window_s);
        DEFAULT(ping_interval_s);
        DEFAULT(calls_waiting_max);
#undef DEFAULT
        if (t->deaths_max > DEATHS_KEPT)
                t->deaths_max = DEATHS_KEPT;
}

int super_new(struct super **ret, const struct super_conf *conf)
{
        struct super *s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        s->conf = *conf;
        set_tuning(&s->tuning, conf->tuning);
        list_init(&s->plugins);
        list_init(&s->components);
        list_init(&s->failed);
        list_init(&s->gone);
        scope_init(&s->scope);
        scope_init(&s->cleanup);
        cond_init(&s->taken);
        runtime_dir_init(&s->dir);
        if (history_new(&s->history)) {
                free(s);
                return -ENOMEM;
        }
        s->linger_s = conf->opts && conf->opts->plugin_linger_ns > 0 ? (double)conf->opts->plugin_linger_ns / 1e9 : 0;
        if (conf->opts && !conf->opts->plugin_sandbox_off)
                cgroups_find(&s->cgroups, NULL, s->linger_s > 0);
        if (conf->ledger)
                adopt_plugins(s, conf->ledger);
        else if (conf->opts && *conf->opts->app_id)
                linger_begin(s);
        *ret = s;
        return 0;
}

static void forget_failed(struct super *s, const char *name)
{
        list_for_each_safe(pos, tmp, &s->failed) {
                struct failed_start *f = list_entry(pos, struct failed_start, in_super);
                if (name && strcmp(f->name, name) != 0)
                        continue;
                list_del(&f->in_super);
                free(f->name);
                free(f->type);
                free(f->error);
                free(f);
                s->n_failed--;
        }
}

void super_started(struct super *s)
{
        s->started = true;
        linger_started(s);
}

void super_free(struct super *s)
{
        if (!s)
                return;
        must(list_is_empty(&s->components) && s->scope.count == 0 && s->cleanup.count == 0);
        list_for_each_safe(pos, tmp, &s->plugins)
                plugin_free(list_entry(pos, struct plugin, in_super));
        list_for_each_safe(pos, tmp, &s->gone) {
                struct component *c = list_entry(pos, struct component, in_super);
                free(c->name);
                free(c->previous);
                component_refuse(c, NULL);
                free(c);
        }
        forget_failed(s, NULL);
        cgroups_leave(&s->cgroups);
        linger_end(s);
        keep_free(s);
        history_free(s->history);
        foreign_watch_free(s);
        map_fini(&s->foreign);
        runtime_dir_close(&s->dir);
        free(s);
}

/* ---- handles ---- */

/* That of a removed component of the same name and kind when there is one: somebody may still hold it. */
static struct component *handle_get(struct super *s, const char *name, enum component_kind kind)
{
        list_for_each(pos, &s->gone) {
                struct component *c = list_entry(pos, struct component, in_super);
                if (c->kind == kind && strcmp(c->name, name) == 0) {
                        list_del(&c->in_super);
                        return c;
                }
        }
        struct component *c = calloc(1, sizeof *c);
        if (!c)
                return NULL;
        list_init(&c->in_super);
        fmutex_init(&c->changing);
        c->super = s;
        c->kind = kind;
        c->name = strdup(name);
        if (c->name)
                return c;
        free(c);
        return NULL;
}

static void handle_put_away(struct component *c)
{
        list_del(&c->in_super);
        c->now = NULL;
        c->disabled = false;
        c->last_death = DEATH_NONE;
        free(c->previous);
        c->previous = NULL;
        component_refuse(c, NULL);
        fault_free(c);
        tap_free(c);
        list_add_tail(&c->super->gone, &c->in_super);
}

/* ---- start ---- */

static struct plugin *find_shared(struct super *s, const struct manifest *m)
{
        list_for_each(pos, &s->plugins) {
                struct plugin *p = list_entry(pos, struct plugin, in_super);
                if (p->manifest && p->wanted && p->manifest->share && strcmp(p->manifest->file, m->file) == 0 && p->state != PLUGIN_FAILED)
                        return p;
        }
        return NULL;
}

int super_find_plugin(struct super *s, const struct component_spec *spec, enum component_kind kind, struct arena *a, struct plugin **ret,
                      const char **ret_err)
{
        struct manifest *m;
        *ret = foreign_find(s, spec->type);
        if (*ret)
                return 0;
        int r = catalog_find(&s->conf, kind_noun(kind), spec->type, spec->version ? spec->version : "",
                             spec->plugin_version, &m, a, ret_err);
        if (r == 0 && manifest_check(m, spec, a, ret_err)) {
                manifest_free(m);
                return -EINVAL;
        }
        if (r)
                return r;
        const char *unknown = manifest_unknown(m, spec, kind != KIND_NAMERESOLUTION, a);
        if (unknown)
                log_warn(SUPER_SCOPE, "%s%s", kind == KIND_NAMERESOLUTION ? "Configuration nameResolution: " : "", unknown);
        if (m->share && (*ret = find_shared(s, m))) {
                manifest_free(m);
                return 0;
        }
        *ret = plugin_new(s, m, m->name);
        if (*ret)
                return 0;
        manifest_free(m);
        *ret_err = "out of memory";
        return -ENOMEM;
}

static bool settled(const struct instance *i)
{
        return i->started || i->init_failed || i->plugin->state == PLUGIN_FAILED;
}

double component_timeout_s(const struct component_spec *spec)
{
        return spec->init_timeout_ns > 0 ? (double)spec->init_timeout_ns / 1e9 : 5;
}

static const char *why_late(const struct plugin *p, double timeout_s, struct arena *a)
{
        if (p->first && p->n_deaths)
                return arena_printf(a, "plugin %s was not ready within %.3g s and died %zu time%s, the last time (%s) it %s", p->name, timeout_s,
                                    p->n_deaths, p->n_deaths > 1 ? "s" : "", death_class_name(p->last_death), p->last_error);
        return arena_printf(a, "plugin %s is not ready after %.3g s (%s)%s%s", p->name, timeout_s, plugin_state_name(p->state),
                            p->last_error[0] ? ": it " : "", p->last_error);
}

int super_bring_up(struct instance *i, double timeout_s, struct arena *a, const char **ret_err)
{
        struct plugin *p = i->plugin;
        double deadline = loop_now() + timeout_s;
        int r = 0;
        if (plugin_is_callable(p) || p->state == PLUGIN_INIT)
                r = i->inits ? 0 : instance_init_start(i);
        else
                plugin_event(p, EV_START);
        while (r == 0 && !settled(i))
                r = cond_wait_until(&p->changed, deadline);
        if (i->started)
                return 0;
        if (i->init_failed) {
                *ret_err = arena_strdup(a, str_of(i->init_error));
                return i->init_code == RPC_DEADLINE_EXCEEDED ? -ETIMEDOUT : -EIO;
        }
        if (p->state == PLUGIN_FAILED) {
                *ret_err = arena_printf(a, "plugin %s %s", p->name, p->last_error);
                return p->last_death == DEATH_START_TIMEOUT ? -ETIMEDOUT : -EIO;
        }
        *ret_err = r == -ETIMEDOUT ? why_late(p, timeout_s, a) : strerrordesc_np(-r);
        return r;
}

void super_wait_gone(struct plugin *p)
{
        double deadline = loop_now() + DEATH_WAIT_S;
        fiber_shield_begin();
        while (p->life && loop_now() < deadline) {
                if (cond_wait_until(&p->changed, deadline) == -ETIMEDOUT && p->life)
                        life_kill(p->life, DEATH_OPERATOR);
        }
        fiber_shield_end();
}

static bool is_unused(const struct plugin *p)
{
        return list_is_empty(&p->instances);
}

void super_abandon(struct instance *i)
{
        struct plugin *p = i->plugin;
        i->stopping = true;
        list_del(&i->in_plugin);
        if (is_unused(p) && p->manifest) {
                plugin_event(p, EV_GIVE_UP);
                super_wait_gone(p);
        } else if (is_unused(p)) {
                plugin_event(p, EV_STOP);
        }
        instance_wait_idle(i);
        instance_free(i);
        if (is_unused(p) && p->manifest && !p->life)
                plugin_free(p);
}

static void note_failed(struct super *s, const struct component_spec *spec, const char *error)
{
        struct failed_start *f;
        forget_failed(s, spec->name);
        history_note(s, spec->name, "failed to start", "%s", error ? error : "");
        if (s->n_failed >= FAILED_ROWS_MAX || !(f = calloc(1, sizeof *f)))
                return;
        f->name = strdup(spec->name);
        f->type = strdup(spec->type);
        f->error = strdup(error ? error : "");
        list_add_tail(&s->failed, &f->in_super);
        s->n_failed++;
}

void super_forget_failed(struct super *s, const char *name)
{
        forget_failed(s, name);
}

/* c->now is it from the beginning, so that daprctl sees how it goes. */
static int start_instance(struct super *s, struct component *c, const struct component_spec *spec, struct arena *a, const char **ret_err)
{
        struct plugin *p;
        struct instance *i = adopt_instance(s, c, spec, a);
        if (i)
                return 0;
        if (s->stopping)
                return -ECANCELED;
        int r = super_find_plugin(s, spec, c->kind, a, &p, ret_err);
        if (r)
                return r;
        r = instance_new(&i, p, spec, a);
        if (r) {
                if (is_unused(p) && p->manifest)
                        plugin_free(p);
                return r;
        }
        instance_attach(i, c);
        c->now = i;
        p->patient = true;
        r = super_bring_up(i, component_timeout_s(spec), a, ret_err);
        if (r) {
                c->now = NULL;
                super_abandon(i);
        }
        return r;
}

int super_component_start(struct super *s, const struct component_spec *spec, struct arena *a, struct component **ret, const char **ret_err)
{
        enum component_kind kind;
        struct component *c;
        *ret_err = "out of memory";
        if (!kind_of_type(str_of(spec->type), &kind)) {
                *ret_err = arena_printf(a, "incorrect type %s", spec->type);
                return -EINVAL;
        }
        if (s->stopping)
                return -ECANCELED;
        control_start(s);
        if (!(c = handle_get(s, spec->name, kind)))
                return -ENOMEM;
        list_add_tail(&s->components, &c->in_super);
        int r = start_instance(s, c, spec, a, ret_err);
        if (r == -ETIMEDOUT)
                *ret_err = arena_printf(a, "%s\ninit timeout for component %s", *ret_err, component_log_name((struct component_spec *)spec));
        if (r) {
                handle_put_away(c);
                note_failed(s, spec, *ret_err);
                return r;
        }
        forget_failed(s, spec->name);
        const struct life *life = c->now->plugin->life;
        if (life && life->attached)
                history_note(s, c->name, "adopted", "%s %s, process %d", c->now->plugin->name, plugin_version(c->now->plugin), (int)life->pid);
        else
                history_note(s, c->name, "started", "%s %s", c->now->plugin->name, plugin_version(c->now->plugin));
        if (s->linger_s > 0)
                keep_flush(s); /* what it takes from now on, it keeps over our death */
        adopt_notes(s, c, a);
        *ret = c;
        return 0;
}

/* ---- stop ---- */

void super_stop_plugin(struct plugin *p, double grace_s)
{
        plugin_event(p, EV_STOP);
        if (p->state == PLUGIN_DRAINING && p->life && p->life->usable && life_drain_start(p->life, grace_s))
                life_kill(p->life, DEATH_OPERATOR);
        fiber_shield_begin();
        while (p->state == PLUGIN_DRAINING && p->life)
                cond_wait(&p->changed);
        fiber_shield_end();
}

void super_retire(struct instance *i, double calls_s, double grace_s)
{
        struct plugin *p = i->plugin;
        double deadline = loop_now() + calls_s;
        i->stopping = true;
        cond_broadcast(&p->changed);
        fiber_shield_begin();
        while (i->inflight && calls_s > 0 && cond_wait_until(&p->changed, deadline) != -ETIMEDOUT)
                ;
        fiber_shield_end();
        list_del(&i->in_plugin);
        if (is_unused(p)) {
                p->adopted = NULL; /* ended and freed here, it is nobody's left-over */
                super_stop_plugin(p, grace_s);
        }
        instance_wait_idle(i);
        instance_free(i);
        if (is_unused(p) && p->manifest && !p->life)
                plugin_free(p);
}

static void component_stop(struct component *c, double calls_s, double grace_s)
{
        fiber_shield_begin();
        fmutex_lock(&c->changing);
        fiber_shield_end();
        struct instance *i = c->now, *standby = c->standby;
        c->now = c->standby = NULL;
        if (i)
                cond_broadcast(&i->plugin->changed);
        if (standby)
                super_retire(standby, 0, grace_s);
        if (i)
                super_retire(i, calls_s, grace_s);
        fmutex_unlock(&c->changing);
        handle_put_away(c);
}

void super_component_stop(struct super *s, struct component *c)
{
        history_note(s, c->name, "removed", "%s", c->now ? c->now->log_name : "");
        component_stop(c, STOP_CALLS_S, STOP_GRACE_S);
}

struct stop_arg {
        struct component *c;
        double grace_s;
};

static void stop_fiber(void *arg)
{
        struct stop_arg *st = arg;
        component_stop(st->c, 0, st->grace_s);
        free(st);
}

void super_stop(struct super *s, double grace_s)
{
        struct scope all;
        scope_init(&all);
        s->stopping = true;
        keep_stop(s);
        super_adopted(s);
        foreign_watch_stop(s);
        control_stop(s);
        scope_cancel(&s->scope);
        list_for_each(pos, &s->components) {
                struct stop_arg *st = malloc(sizeof *st);
                must(st);
                *st = (struct stop_arg){list_entry(pos, struct component, in_super), grace_s};
                if (fiber_go(&all, "component-stop", stop_fiber, st))
                        must(!"a fiber to stop a component");
        }
        scope_join(&all);
        scope_join(&s->scope);
        scope_join(&s->cleanup);
}

/* ---- what others may know ---- */

const struct component_spec *component_spec_of(const struct component *c)
{
        return c->now ? c->now->spec : NULL;
}

const char *component_name(const struct component *c)
{
        return c->name;
}

enum component_kind component_kind_of(const struct component *c)
{
        return c->kind;
}

unsigned component_features(const struct component *c)
{
        return c->now ? c->now->features : 0;
}

bool component_is_foreign(const struct component *c)
{
        return c->now && c->now->plugin->manifest == NULL;
}

uint64_t super_rss_bytes(pid_t pid)
{
        char path[64];
        unsigned long size = 0, resident = 0;
        snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
        FILE *f = fopen(path, "re");
        int n = f ? fscanf(f, "%lu %lu", &size, &resident) : 0;
        if (f)
                fclose(f);
        return n == 2 ? (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void read_usage(pid_t pid, struct component_status *st)
{
        char path[64];
        unsigned long user = 0, system = 0;
        st->rss_bytes = super_rss_bytes(pid);
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        FILE *f = fopen(path, "re");
        if (f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
                st->cpu_seconds = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        if (f)
                fclose(f);
}

void component_status_get(const struct component *c, struct arena *a, struct component_status *ret)
{
        const struct instance *i = c->now;
        *ret = (struct component_status){.state = PLUGIN_STOPPED, .plugin_name = "", .plugin_version = "", .executable = "", .socket = "",
                                         .last_error = "", .stuck = ""};
        if (!i)
                return;
        const struct plugin *p = i->plugin;
        double left_s;
        uint64_t hits;
        bool initialising = plugin_is_callable(p) && i->init_life != p->life->number;
        uint64_t abandoned = p->life && !(p->manifest && p->manifest->share) ? p->life->abandoned : 0;
        const char *error = i->init_error[0] ? i->init_error : p->life && p->life->stuck[0] ? p->life->stuck : p->state == PLUGIN_DEGRADED ? p->backend_error : p->last_error;
        *ret = (struct component_status){
                .state = initialising ? PLUGIN_INIT : p->state,
                .plugin_name = p->reported_name ? p->reported_name : p->name,
                .plugin_version = plugin_version(p),
                .executable = p->manifest ? p->manifest->executable : "",
                .socket = p->path ? p->path : "",
                .pid = p->life && p->life->pid > 0 ? p->life->pid : 0,
                .foreign = p->manifest == NULL,
                .backend_known = p->backend_known,
                .backend_reachable = p->backend_up,
                .last_error = arena_strdup(a, str_of(error)),
                .fault = fault_text(c, a, &left_s, &hits),
                .last_death = c->last_death,
                .adopted = p->life ? p->life->generation : 0,
                .walls = p->life ? p->life->walls : 0,
                .restarts = p->restarts,
                .deaths_in_window = (unsigned)p->n_deaths,
                .calls = c->calls,
                .errors = c->errors,
                .stuck = p->life ? p->life->stuck : "",
                .inflight = i->inflight + abandoned,
                .abandoned = abandoned,
                .disabled = c->disabled,
                .since_s = loop_now() - p->state_since,
        };
        if (!ret->last_error)
                ret->last_error = "";
        if (ret->pid > 0)
                read_usage(ret->pid, ret);
}
