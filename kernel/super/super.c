/* The supervisor itself: starting and stopping components; which plugin one runs in is decided here, how it lives in table.c. */
#include "kernel/super/super.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dapr/proto/components/v1/common.pb-c.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/super/catalog.h"
#include "kernel/super/control.h"
#include "kernel/super/plugin.h"

enum { FAILED_ROWS_MAX = 100, STOP_GRACE_S = 5, DEATH_WAIT_S = 3 };

/* ---- the supervisor ---- */

static void set_tuning(struct super_tuning *t, const struct super_tuning *given)
{
        static const struct super_tuning defaults = {.health_interval_s = 1, .health_missed = 3, .hello_timeout_s = 5,
                                                     .backoff_min_s = 0.1,   .backoff_max_s = 5, .stable_s = 10,
                                                     .deaths_max = 10,       .deaths_window_s = 60, .ping_interval_s = 5,
                                                     .calls_waiting_max = PLUGIN_CALLS_WAITING_MAX};
        *t = given ? *given : defaults;
#define DEFAULT(field) t->field = t->field ? t->field : defaults.field
        DEFAULT(health_interval_s);
        DEFAULT(health_missed);
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
        scope_init(&s->scope);
        scope_init(&s->cleanup);
        runtime_dir_init(&s->dir);
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

void super_free(struct super *s)
{
        if (!s)
                return;
        must(list_is_empty(&s->components) && s->scope.count == 0 && s->cleanup.count == 0);
        list_for_each_safe(pos, tmp, &s->plugins)
                plugin_free(list_entry(pos, struct plugin, in_super));
        forget_failed(s, NULL);
        foreign_watch_free(s);
        map_fini(&s->foreign);
        runtime_dir_close(&s->dir);
        free(s);
}

/* ---- components ---- */

static void add_default(void *arg, const char *name, const char *value)
{
        struct metadata_item **end = arg;
        *(*end)++ = (struct metadata_item){.name = name, .value = value};
}

/* The metadata as given, then the manifest's defaults of what is left out. */
static int pack_init(struct component *c, struct arena *a)
{
        typedef Dapr__Proto__Components__V1__MetadataRequest__PropertiesEntry entry_t;
        const struct component_spec *spec = c->spec;
        const struct manifest *m = c->plugin->manifest;
        size_t room = spec->n_metadata + (m ? m->n_fields : 0);
        struct metadata_item *all = arena_zalloc(a, room * sizeof *all), *end = all;
        entry_t *entries = arena_alloc(a, room * sizeof *entries), **list = arena_alloc(a, room * sizeof *list);
        if (!all || !entries || !list)
                return -ENOMEM;
        for (size_t i = 0; i < spec->n_metadata; i++)
                if (spec->metadata[i].name)
                        *end++ = spec->metadata[i];
        if (m)
                manifest_defaults(m, spec, add_default, &end);
        for (size_t i = 0; i < (size_t)(end - all); i++) {
                dapr__proto__components__v1__metadata_request__properties_entry__init(&entries[i]);
                entries[i].key = all[i].name;
                entries[i].value = all[i].value ? all[i].value : "";
                list[i] = &entries[i];
        }
        Dapr__Proto__Components__V1__MetadataRequest md = DAPR__PROTO__COMPONENTS__V1__METADATA_REQUEST__INIT;
        Dapr__Proto__Components__V1__InitRequest req = DAPR__PROTO__COMPONENTS__V1__INIT_REQUEST__INIT;
        md.properties = list;
        md.n_properties = (size_t)(end - all);
        req.metadata = &md; /* InitRequest of every kind looks like this one */
        size_t n = protobuf_c_message_get_packed_size(&req.base), more = spec->init_more.n;
        char *bytes = malloc(n + more + 1);
        if (!bytes)
                return -ENOMEM;
        protobuf_c_message_pack(&req.base, (uint8_t *)bytes);
        if (more)
                memcpy(bytes + n, spec->init_more.p, more);
        c->init_request = str_n(bytes, n + more);
        return 0;
}

static void component_free(struct component *c)
{
        list_del(&c->in_plugin);
        list_del(&c->in_super);
        if (c->init_request.p)
                explicit_bzero((char *)c->init_request.p, c->init_request.n); /* it holds secrets */
        free((char *)c->init_request.p);
        free(c->name);
        free(c->log_name);
        free(c);
}

/* May a name stand in gRPC metadata as it is? Others go base64-coded, in metadata whose name ends in -bin. */
static bool is_metadata_text(const char *name)
{
        size_t n = strlen(name);
        for (size_t i = 0; i < n; i++)
                if (name[i] < ' ' || name[i] > '~')
                        return false;
        return n && name[0] != ' ' && name[n - 1] != ' ';
}

static int component_new(struct super *s, struct plugin *p, const struct component_spec *spec, enum component_kind kind, struct arena *a,
                         struct component **ret)
{
        struct component *c = calloc(1, sizeof *c);
        if (!c)
                return -ENOMEM;
        list_init(&c->in_super);
        list_init(&c->in_plugin);
        c->super = s;
        c->plugin = p;
        c->spec = spec;
        c->kind = kind;
        c->name = strdup(spec->name);
        c->log_name = strdup(component_log_name((struct component_spec *)spec));
        int r = c->name && c->log_name ? pack_init(c, a) : -ENOMEM;
        if (r) {
                component_free(c);
                return r;
        }
        c->md.key = is_metadata_text(c->name) ? STR("x-component-instance") : STR("x-component-instance-bin");
        c->md.value = str_of(c->name);
        list_add_tail(&p->components, &c->in_plugin);
        list_add_tail(&s->components, &c->in_super);
        *ret = c;
        return 0;
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

static int find_plugin(struct super *s, const struct component_spec *spec, enum component_kind kind, struct arena *a, struct plugin **ret,
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

static bool settled(const struct component *c)
{
        return c->started || c->init_failed || c->plugin->state == PLUGIN_FAILED;
}

/* Brings the component up; parks. 0, or -errno with a text. */
static int bring_up(struct component *c, double timeout_s, struct arena *a, const char **ret_err)
{
        struct plugin *p = c->plugin;
        double deadline = loop_now() + timeout_s;
        int r = 0;
        if (plugin_is_callable(p) || p->state == PLUGIN_INIT)
                r = component_init_start(c);
        else
                plugin_event(p, EV_START);
        while (r == 0 && !settled(c))
                r = cond_wait_until(&p->changed, deadline);
        if (c->started)
                return 0;
        if (c->init_failed) {
                *ret_err = arena_strdup(a, str_of(c->init_error));
                return c->init_code == RPC_DEADLINE_EXCEEDED ? -ETIMEDOUT : -EIO;
        }
        if (p->state == PLUGIN_FAILED) {
                *ret_err = arena_printf(a, "plugin %s %s", p->name, p->last_error);
                return p->last_death == DEATH_START_TIMEOUT ? -ETIMEDOUT : -EIO;
        }
        if (r == -ETIMEDOUT)
                *ret_err = p->last_error[0] ? arena_printf(a, "plugin %s is not ready after %.3g s (%s): it %s", p->name, timeout_s,
                                                           plugin_state_name(p->state), p->last_error)
                                            : arena_printf(a, "plugin %s is not ready after %.3g s (%s)", p->name, timeout_s,
                                                           plugin_state_name(p->state));
        else
                *ret_err = strerrordesc_np(-r);
        return r;
}

/* Parks until the plugin's process is gone, a moment at most: it was killed or told to end. */
static void wait_gone(struct plugin *p)
{
        double deadline = loop_now() + DEATH_WAIT_S;
        fiber_shield_begin();
        while (p->life && loop_now() < deadline) {
                if (cond_wait_until(&p->changed, deadline) == -ETIMEDOUT && p->life)
                        life_kill(p->life, DEATH_OPERATOR);
        }
        fiber_shield_end();
}

static void wait_idle(struct component *c)
{
        fiber_shield_begin();
        while (c->inits || c->inflight)
                cond_wait(&c->plugin->changed);
        fiber_shield_end();
}

static bool is_unused(const struct plugin *p)
{
        return list_is_empty(&p->components);
}

static void abandon(struct super *s, struct component *c)
{
        struct plugin *p = c->plugin;
        c->stopping = true;
        list_del(&c->in_plugin);
        if (is_unused(p) && p->manifest) {
                plugin_event(p, EV_GIVE_UP);
                wait_gone(p);
        } else if (is_unused(p)) {
                plugin_event(p, EV_STOP);
        }
        wait_idle(c);
        component_free(c);
        if (is_unused(p) && p->manifest && !p->life)
                plugin_free(p);
}

static void note_failed(struct super *s, const struct component_spec *spec, const char *error)
{
        struct failed_start *f;
        forget_failed(s, spec->name);
        if (s->n_failed >= FAILED_ROWS_MAX || !(f = calloc(1, sizeof *f)))
                return;
        f->name = strdup(spec->name);
        f->type = strdup(spec->type);
        f->error = strdup(error ? error : "");
        list_add_tail(&s->failed, &f->in_super);
        s->n_failed++;
}

int super_component_start(struct super *s, const struct component_spec *spec, struct arena *a, struct component **ret, const char **ret_err)
{
        enum component_kind kind;
        struct plugin *p;
        struct component *c = NULL;
        *ret_err = "out of memory";
        if (!kind_of_type(str_of(spec->type), &kind)) {
                *ret_err = arena_printf(a, "incorrect type %s", spec->type);
                return -EINVAL;
        }
        if (s->stopping)
                return -ECANCELED;
        control_start(s);
        int r = find_plugin(s, spec, kind, a, &p, ret_err);
        if (r == 0) {
                r = component_new(s, p, spec, kind, a, &c);
                if (r && is_unused(p) && p->manifest)
                        plugin_free(p);
        }
        if (r == 0) {
                double timeout_s = spec->init_timeout_ns > 0 ? (double)spec->init_timeout_ns / 1e9 : 5;
                r = bring_up(c, timeout_s, a, ret_err);
                if (r)
                        abandon(s, c);
                if (r == -ETIMEDOUT)
                        *ret_err = arena_printf(a, "%s\ninit timeout for component %s", *ret_err,
                                                component_log_name((struct component_spec *)spec));
        }
        if (r) {
                note_failed(s, spec, *ret_err);
                return r;
        }
        forget_failed(s, spec->name);
        *ret = c;
        return 0;
}

/* ---- stop ---- */

static void stop_plugin(struct plugin *p, double grace_s)
{
        plugin_event(p, EV_STOP);
        if (p->state == PLUGIN_DRAINING && p->life && p->life->usable && life_drain_start(p->life, grace_s))
                life_kill(p->life, DEATH_OPERATOR);
        fiber_shield_begin();
        while (p->state == PLUGIN_DRAINING && p->life)
                cond_wait(&p->changed);
        fiber_shield_end();
}

static void component_stop(struct component *c, double grace_s)
{
        struct plugin *p = c->plugin;
        c->stopping = true;
        cond_broadcast(&p->changed);
        list_del(&c->in_plugin);
        if (is_unused(p))
                stop_plugin(p, grace_s);
        wait_idle(c);
        component_free(c);
        if (is_unused(p) && p->manifest)
                plugin_free(p);
}

void super_component_stop(struct super *s, struct component *c)
{
        component_stop(c, STOP_GRACE_S);
}

struct stop_arg {
        struct component *c;
        double grace_s;
};

static void stop_fiber(void *arg)
{
        struct stop_arg *st = arg;
        component_stop(st->c, st->grace_s);
        free(st);
}

void super_stop(struct super *s, double grace_s)
{
        struct scope all;
        scope_init(&all);
        s->stopping = true;
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

int super_component_restart(struct super *s, struct component *c, struct arena *a, const char **ret_err)
{
        struct plugin *p = c->plugin;
        double timeout_s = c->spec->init_timeout_ns > 0 ? (double)c->spec->init_timeout_ns / 1e9 : 5;
        double deadline = loop_now() + timeout_s;
        int r = 0;
        stop_plugin(p, STOP_GRACE_S);
        wait_gone(p);
        plugin_event(p, EV_START);
        while (r == 0 && p->state != PLUGIN_FAILED && !(plugin_is_callable(p) && c->init_life == p->life->number))
                r = cond_wait_until(&p->changed, deadline);
        if (r == 0 && p->state == PLUGIN_FAILED)
                r = -EIO;
        if (r)
                *ret_err = arena_printf(a, "plugin %s %s", p->name, c->init_error[0] ? c->init_error : p->last_error);
        return r;
}

/* ---- what others may know ---- */

const struct component_spec *component_spec_of(const struct component *c)
{
        return c->spec;
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
        return c->features;
}

bool component_is_foreign(const struct component *c)
{
        return c->plugin->manifest == NULL;
}

static void read_usage(pid_t pid, struct component_status *st)
{
        char path[64];
        unsigned long size = 0, resident = 0, user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
        FILE *f = fopen(path, "re");
        if (f && fscanf(f, "%lu %lu", &size, &resident) == 2)
                st->rss_bytes = (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
        if (f)
                fclose(f);
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        f = fopen(path, "re");
        if (f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
                st->cpu_seconds = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        if (f)
                fclose(f);
}

void component_status_get(const struct component *c, struct arena *a, struct component_status *ret)
{
        const struct plugin *p = c->plugin;
        bool initialising = plugin_is_callable(p) && c->init_life != p->life->number;
        const char *error = c->init_error[0] ? c->init_error : p->state == PLUGIN_DEGRADED ? p->backend_error : p->last_error;
        *ret = (struct component_status){
                .state = initialising ? PLUGIN_INIT : p->state,
                .plugin_name = p->reported_name ? p->reported_name : p->name,
                .plugin_version = p->reported_version ? p->reported_version : p->manifest ? p->manifest->version : "",
                .executable = p->manifest ? p->manifest->executable : "",
                .socket = p->path ? p->path : "",
                .pid = p->life && p->life->pid > 0 ? p->life->pid : 0,
                .foreign = p->manifest == NULL,
                .backend_known = p->backend_known,
                .backend_reachable = p->backend_up,
                .last_error = arena_strdup(a, str_of(error)),
                .last_death = p->last_death,
                .restarts = p->restarts,
                .deaths_in_window = (unsigned)p->n_deaths,
                .calls = c->calls,
                .errors = c->errors,
                .inflight = c->inflight,
                .since_s = loop_now() - p->state_since,
        };
        if (!ret->last_error)
                ret->last_error = "";
        if (ret->pid > 0)
                read_usage(ret->pid, ret);
}
