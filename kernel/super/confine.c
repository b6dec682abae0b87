/*
 * One start of a plugin under its manifest's rights: the components' metadata is put in, the walls are prepared, and afterwards what
 * the process asks for is watched.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/plugin.h"

/* A field's value as the plugin will see it: given, under another name, or the manifest's default. */
struct lookup {
        const struct manifest *m;
        const struct component_spec *spec;
};

static const char *field_value(void *arg, const char *name)
{
        const struct lookup *x = arg;
        const struct manifest_field *f = manifest_field(x->m, name);
        const char *v = component_metadata(x->spec, name);
        for (size_t i = 0; f && !v && i < f->n_aliases; i++)
                v = component_metadata(x->spec, f->aliases[i]);
        return v ? v : f ? f->def : NULL;
}

static uint32_t seed_of(const struct plugin *p, const char *component)
{
        uint32_t h = 2166136261u ^ (uint32_t)getpid();
        for (const char *s = p->super->conf.opts ? p->super->conf.opts->app_id : ""; *s; s++)
                h = (h ^ (unsigned char)*s) * 16777619u;
        for (const char *s = component; *s; s++)
                h = (h ^ (unsigned char)*s) * 16777619u;
        return h;
}

/* What the plugin's components ask for. *ret_first: the last of them, which names the process's user. */
static int grant_of(const struct plugin *p, struct arena *a, struct grant *g, const char **ret_first)
{
        const struct manifest *m = p->manifest;
        int r = 0;
        list_for_each(pos, &p->instances) {
                const struct instance *i = list_entry(pos, struct instance, in_plugin);
                struct lookup x = {m, i->spec};
                if (!r)
                        r = rights_grant(&m->rights, field_value, &x, a, g);
                *ret_first = i->spec->name;
        }
        if (list_is_empty(&p->instances)) {
                static const struct component_spec none;
                struct lookup x = {m, &none};
                r = rights_grant(&m->rights, field_value, &x, a, g);
        }
        return r;
}

int confine_prepare(const struct plugin *p, struct arena *a, struct confinement *c)
{
        const struct manifest *m = p->manifest;
        const char *first = p->name;
        *c = (struct confinement){.sandbox.ruleset_fd = -1};
        if (!m->rights.confined || (p->super->conf.opts && p->super->conf.opts->plugin_sandbox_off))
                return 0;
        int r = grant_of(p, a, &c->grant, &first);
        return r ? r : sandbox_prepare(&c->sandbox, &m->rights, &c->grant, m->executable, seed_of(p, first), p->super->linger_s > 0);
}

/* Limits, or programs of its own that must end with it, are worth a group. >= 0: its folder, the caller's; -1 = none. */
int confine_group(struct life *l, const struct confinement *c)
{
        struct super *s = l->plugin->super;
        const struct rights *r = &l->plugin->manifest->rights;
        struct cgroup_limits limits = {r->memory_bytes, r->processes, r->cpu_percent};
        bool programs = c->grant.forks;
        for (size_t i = 0; i < c->grant.n_files; i++)
                programs |= c->grant.files[i].kind == RIGHT_PROGRAM;
        if (!c->sandbox.on || !s->cgroups.own[0] || !(cgroups_can_limit(&s->cgroups) || programs))
                return -1;
        int fd = cgroup_make(&s->cgroups, &limits, l->cgroup);
        if (fd < 0)
                log_warn(SUPER_SCOPE, "%s: no cgroup for it below %s: %s", l->plugin->name, s->cgroups.own, strerrordesc_np(-fd));
        return fd < 0 ? -1 : fd;
}

static void on_denied(void *arg, const char *what)
{
        struct life *l = arg;
        snprintf(l->violation, sizeof l->violation, "%s", what);
        life_kill(l, DEATH_SANDBOX);
}

void confine_watch(struct life *l, const struct confinement *c)
{
        int fd = sandbox_receive(&c->sandbox, l->control_fd);
        l->walls = c->sandbox.walls;
        if (fd >= 0 && sandbox_watch_start(&l->watch, fd, &l->plugin->super->cleanup, &c->grant, l->plugin->manifest->executable, on_denied, l))
                log_warn(SUPER_SCOPE, "%s: what it asks for cannot be watched: out of memory", l->plugin->name);
}

void confine_adopted(struct life *l, int fd, unsigned walls, struct arena *a)
{
        struct plugin *p = l->plugin;
        struct grant g = {0};
        const char *first;
        l->walls = walls;
        if (grant_of(p, a, &g, &first)) {
                close(fd);
                log_warn(SUPER_SCOPE, "%s: what it asks for cannot be watched any more", p->name);
        } else if (sandbox_watch_start(&l->watch, fd, &p->super->cleanup, &g, p->manifest->executable, on_denied, l)) {
                log_warn(SUPER_SCOPE, "%s: what it asks for cannot be watched: out of memory", p->name);
        }
}
