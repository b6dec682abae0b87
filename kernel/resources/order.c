/*
 * The order of starting components. Plays the reference's loop with names alone: components stand in a queue (secret stores
 * first); one that needs a secret store that has not started waits for it and then follows it directly. A waiting component is
 * held in `waits_for`; nothing recurses, since what follows a store is pushed on a stack.
 */
#include <stdlib.h>

#include "kernel/opts.h"
#include "kernel/resources/resources.h"

struct order {
        const struct resource_set *set;
        const struct daprd_opts *o;
        const char *const *loaded;
        size_t n_loaded, n_started;
        struct component_spec **out;
        const char **waits_for; /* by index in the set; NULL = not seen, or started */
        size_t *stack;          /* indexes to start next, last first */
        size_t n_stack;
};

static bool is_secret_store(const struct component_spec *c)
{
        return str_has_prefix(str_of(c->type), STR("secretstores."));
}

static bool is_loaded(const struct order *r, const char *store)
{
        for (size_t i = 0; i < r->n_loaded; i++)
                if (strcmp(r->loaded[i], store) == 0)
                        return true;
        for (size_t i = 0; i < r->n_started; i++)
                if (is_secret_store(r->out[i]) && strcmp(r->out[i]->name, store) == 0)
                        return true;
        return false;
}

/* Starts what is on the stack, and after each secret store those that waited for it, in the order in which they came. */
static void run(struct order *r)
{
        while (r->n_stack) {
                size_t i = r->stack[--r->n_stack];
                struct component_spec *c = r->set->components[i];
                const char *store = component_needs_store(c, r->o);
                if (store && !is_loaded(r, store)) {
                        r->waits_for[i] = store;
                        continue;
                }
                r->out[r->n_started++] = c;
                for (size_t k = is_secret_store(c) ? r->set->n_components : 0; k-- > 0;) {
                        if (!r->waits_for[k] || strcmp(r->waits_for[k], c->name) != 0)
                                continue;
                        r->waits_for[k] = NULL;
                        r->stack[r->n_stack++] = k;
                }
        }
}

size_t resources_order(const struct resource_set *set, const struct daprd_opts *o, const char *const *loaded, size_t n_loaded,
                       struct component_spec **order)
{
        struct order r = {.set = set, .o = o, .loaded = loaded, .n_loaded = n_loaded, .out = order};
        size_t n = set->n_components, at;

        r.waits_for = calloc(n + 1, sizeof *r.waits_for);
        r.stack = calloc(n + 1, sizeof *r.stack);
        if (!r.waits_for || !r.stack) { /* out of memory: an order as good as can be had */
                memcpy(order, set->components, n * sizeof *order);
                r.n_started = n;
        }
        for (int others = 0; others < 2 && r.waits_for && r.stack; others++) {
                for (size_t i = 0; i < n; i++) {
                        if (is_secret_store(set->components[i]) == (others == 1))
                                continue;
                        r.stack[r.n_stack++] = i;
                        run(&r);
                }
        }
        at = r.n_started;
        for (size_t i = 0; i < n && at < n; i++)
                if (r.waits_for[i])
                        order[at++] = set->components[i];
        free(r.waits_for);
        free(r.stack);
        return r.n_started;
}
