/*
 * Components that share one process move together: a plugin whose manifest says `share` serves them as one, and two versions of it for
 * one purpose are nobody's wish. They are exchanged one after the other, each make before break; the first brings the new process up,
 * the others join it. When one of them cannot, those that have moved go back into the process that they came from.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/super/plugin.h"
#include "sdk/base/buf.h"

static bool shares(const struct component *c, const struct instance *i)
{
        return i->component && i->component != c && i->component->now == i;
}

const char *super_sharers(const struct component *c, struct arena *a)
{
        struct buf b = {0};

        if (!c->now || !c->now->plugin->manifest)
                return NULL;
        list_for_each(pos, &c->now->plugin->instances) {
                const struct instance *i = list_entry(pos, struct instance, in_plugin);
                if (shares(c, i))
                        buf_printf(&b, "%s%s", b.len ? ", " : "", i->component->name);
        }
        const char *names = b.len ? arena_strdup(a, buf_str(&b)) : NULL;
        buf_fini(&b);
        return names;
}

struct group {
        struct component **v;
        size_t n;
};

/* c first, then those that share its process. */
static int list_group(struct component *c, struct arena *a, struct group *ret)
{
        size_t n = 1;

        list_for_each(pos, &c->now->plugin->instances)
                n++;
        ret->v = arena_alloc(a, n * sizeof *ret->v);
        if (!ret->v)
                return -ENOMEM;
        ret->v[ret->n++] = c;
        list_for_each(pos, &c->now->plugin->instances) {
                struct instance *i = list_entry(pos, struct instance, in_plugin);
                if (shares(c, i))
                        ret->v[ret->n++] = i->component;
        }
        return 0;
}

static void go_back(struct super *s, const struct group *g, size_t moved, const char *manifest, struct arena *a)
{
        while (moved-- > 0) {
                struct swap_request back = {.why = "rollback", .manifest = manifest, .join = g->v[g->n - 1]};
                const char *err = NULL;
                super_component_swap(s, g->v[moved], &back, a, &err); /* told in the history */
        }
}

int super_shared_swap(struct super *s, struct component *c, const struct swap_request *q, struct arena *a, const char **ret_err)
{
        struct group g = {0};
        const char *before, *err = NULL;
        int r = 0;

        if (!c->now || !c->now->plugin->manifest)
                return super_component_swap(s, c, q, a, ret_err); /* which says why not */
        *ret_err = "out of memory";
        before = arena_strdup(a, str_of(c->now->plugin->manifest->file));
        if (!before || list_group(c, a, &g))
                return -ENOMEM;
        for (size_t i = 0; r == 0 && i < g.n; i++) {
                struct swap_request one = *q;
                one.join = i ? g.v[0] : NULL;
                one.report = i ? NULL : q->report;
                r = super_component_swap(s, g.v[i], &one, a, &err);
                if (r && i) {
                        const char *name = g.v[i]->name;
                        g.n = i + 1; /* that one is where all were: they join it there */
                        go_back(s, &g, i, before, a);
                        err = arena_printf(a, "component %s, which shares the process, could not move with it; all are back where they were: %s", name,
                                           err ? err : "");
                }
        }
        *ret_err = err ? err : "";
        return r;
}
