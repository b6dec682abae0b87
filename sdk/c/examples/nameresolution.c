/* nameresolution.cstore: names of sidecars in this process only. Put your registry in its place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct known {
        struct known *next;
        char *id, *address;
        int port;
};
static struct known *registry;

static void forget(void *instance)
{
        for (struct known **at = &registry; *at; at = &(*at)->next)
                if (*at == instance) {
                        *at = (*at)->next;
                        break;
                }
        struct known *k = instance;
        free(k->id);
        free(k->address);
        free(k);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)md; /* read settings: dapr_md_string(md, "url") */
        const struct dapr_sidecar *me = dapr_sidecar(c);
        struct known *k = calloc(1, sizeof(*k));
        if (!k || !(k->id = strdup(me->app_id)) || !(k->address = strdup(me->address))) {
                free(k ? k->id : NULL);
                free(k);
                return -ENOMEM;
        }
        k->port = me->internal_port;
        k->next = registry;
        *instance = registry = k;
        return 0;
}

static int resolve(struct dapr_call *c, void *instance, const struct dapr_resolve *in, struct dapr_addresses *out)
{
        (void)instance;
        const char **v = dapr_alloc(c, sizeof(*v));
        if (!v)
                return -ENOMEM;
        for (struct known *k = registry; k; k = k->next)
                if (strcmp(k->id, in->id) == 0) {
                        v[0] = dapr_printf(c, "%s:%d", k->address, k->port);
                        *out = (struct dapr_addresses){v, 1, 1};
                        return v[0] ? 0 : -ENOMEM;
                }
        return dapr_fail(c, DAPR_NOT_FOUND, "no host found for %s", in->id);
}

static const struct dapr_name_ops ops = {.mode = DAPR_INLINE, .init = init, .close = forget, .resolve = resolve};
static const struct dapr_component_type types[] = {{.type = "nameresolution.cstore", .versions = "v1", .names = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "nameresolution.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
