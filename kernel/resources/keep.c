/* What a reload keeps: a file that is just being written, or is wrong, takes nothing away. */
#include <errno.h>
#include <stdlib.h>

#include "kernel/resources/resources.h"
#include "sdk/base/log.h"

static bool is_broken(const struct resource_set *set, const char *file)
{
        for (size_t i = 0; i < set->n_broken; i++)
                if (strcmp(set->broken[i], file) == 0)
                        return true;
        return false;
}

static bool has_component(const struct resource_set *set, const char *name)
{
        for (size_t i = 0; i < set->n_components; i++)
                if (strcmp(set->components[i]->name, name) == 0)
                        return true;
        return false;
}

static bool has_other(const struct resource_set *set, const struct raw_resource *r)
{
        for (size_t i = 0; i < set->n_others; i++)
                if (strcmp(set->others[i]->kind, r->kind) == 0 && strcmp(set->others[i]->name, r->name) == 0)
                        return true;
        return false;
}

static int add_pointer(void ***list, size_t *n, void *p)
{
        void **grown = realloc(*list, (*n + 1) * sizeof *grown);
        if (!grown)
                return -ENOMEM;
        grown[(*n)++] = p;
        *list = grown;
        return 0;
}

static void log_kept(const char *kind, const char *name, const char *file)
{
        log_warn("dapr.runtime.hotreload", "%s %s stays as it was: %s could not be read as a whole", kind, name, file);
}

int resources_keep_broken(struct resource_set *set, struct resource_set *old)
{
        size_t n = 0;
        int r = 0;

        for (size_t i = 0; i < old->n_components && r == 0; i++) {
                struct component_spec *c = old->components[i];
                if (!is_broken(set, c->file) || has_component(set, c->name))
                        continue;
                r = add_pointer((void ***)&set->components, &set->n_components, c);
                if (r == 0) {
                        component_spec_ref(c);
                        log_kept("Component", c->name, c->file);
                }
        }
        for (size_t i = 0; i < old->n_others; i++) {
                struct raw_resource *x = old->others[i];
                if (r == 0 && is_broken(set, x->file) && !has_other(set, x) && add_pointer((void ***)&set->others, &set->n_others, x) == 0)
                        log_kept(x->kind, x->name, x->file);
                else
                        old->others[n++] = x;
        }
        old->n_others = n;
        return r;
}
