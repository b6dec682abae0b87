/* A plugin's storage, and who is told when it changes. */
#include "kernel/super/history.h"
#include "kernel/super/keep.h"
#include "kernel/super/swap.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void on_backoff(struct timer *t)
{
        plugin_event(container_of(t, struct plugin, backoff), EV_BACKOFF_OVER);
}

struct plugin *plugin_new(struct super *s, struct manifest *m, const char *name)
{
        struct plugin *p = calloc(1, sizeof *p);
        if (!p)
                return NULL;
        p->name = strdup(name);
        if (!p->name) {
                free(p);
                return NULL;
        }
        p->super = s;
        p->manifest = m;
        p->listen_fd = -1;
        p->first = m != NULL;
        p->state_since = loop_now();
        list_init(&p->instances);
        cond_init(&p->changed);
        timer_init(&p->backoff, on_backoff);
        list_add_tail(&s->plugins, &p->in_super);
        return p;
}

void plugin_free(struct plugin *p)
{
        if (!p)
                return;
        must(!p->life && list_is_empty(&p->instances));
        timer_stop(&p->backoff);
        list_del(&p->in_super);
        if (p->listen_fd >= 0) {
                close(p->listen_fd);
                unlink(p->path);
        }
        map_fini(&p->idempotent);
        map_fini(&p->features);
        map_fini(&p->services);
        log_ring_fini(&p->ring);
        manifest_free(p->manifest);
        free(p->reported_name);
        free(p->reported_version);
        free(p->socket);
        free(p->path);
        free(p->name);
        free(p);
}

void plugin_set_error(struct plugin *p, const char *fmt, ...)
{
        char text[ERROR_BYTES];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap); /* an argument may be the old text */
        va_end(ap);
        memcpy(p->last_error, text, sizeof text);
}

const char *plugin_version(const struct plugin *p)
{
        return p->manifest && p->manifest->version ? p->manifest->version : p->reported_version ? p->reported_version : "";
}

void plugin_set_death(struct plugin *p, enum death_class d)
{
        p->last_death = d;
        list_for_each(pos, &p->instances) {
                struct instance *i = list_entry(pos, struct instance, in_plugin);
                if (i->component && d != DEATH_OPERATOR)
                        i->component->last_death = d;
        }
}

void plugin_note(struct plugin *p, const char *what, const char *text)
{
        list_for_each(pos, &p->instances)
                history_note(p->super, list_entry(pos, struct instance, in_plugin)->spec->name, what, "%s", text);
}

void plugin_notify(struct plugin *p)
{
        struct super *s = p->super;
        cond_broadcast(&p->changed);
        if (s->linger_s > 0)
                keep_note(s);
        if (p->state == PLUGIN_BACKOFF || p->state == PLUGIN_FAILED || p->state == PLUGIN_STARTING)
                swap_plugin_lost(p);
        if (!s->conf.on_change)
                return;
        list_for_each(pos, &p->instances) {
                struct instance *i = list_entry(pos, struct instance, in_plugin);
                if (i->started && i->component->now == i)
                        s->conf.on_change(s->conf.arg, i->component);
        }
}
