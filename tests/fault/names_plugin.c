/* A name resolver whose answers follow from the name; every address holds the number of calls so far, so that a test sees who was
 * asked. */
#include <dapr/plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int calls;

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const struct dapr_sidecar *s = dapr_sidecar(c);

        if (dapr_md_string(md, "fail"))
                return dapr_fail(c, DAPR_FAILED_PRECONDITION, "app %s in %s at %s:%d, http %d, app %d, configuration %s", s->app_id,
                                 s->namespace_, s->address, s->internal_port, s->http_port, s->app_port, s->configuration);
        *instance = &calls;
        return 0;
}

static void add(struct dapr_call *c, struct dapr_addresses *out, int first, int port)
{
        const char **v = (const char **)out->v;
        v[out->n++] = dapr_printf(c, "10.0.0.%d:%d", first, port);
}

static int resolve(struct dapr_call *c, void *instance, const struct dapr_resolve *in, struct dapr_addresses *out)
{
        calls++;
        out->v = dapr_alloc(c, 200 * sizeof *out->v);
        out->ttl_s = 60;
        if (strcmp(in->id, "bad") == 0)
                return dapr_fail(c, DAPR_NOT_FOUND, "couldn't find service: bad");
        if (strcmp(in->id, "slow") == 0)
                dapr_sleep(0.05);
        if (strcmp(in->id, "never") == 0 || (strcmp(in->id, "late") == 0 && calls < 3))
                return 0;
        if (strcmp(in->id, "brief") == 0)
                out->ttl_s = 0;
        if (strcmp(in->id, "failed") == 0) {
                add(c, out, (int)in->n_failed, calls);
                return 0;
        }
        int n = strcmp(in->id, "three") == 0 ? 3 : strcmp(in->id, "lots") == 0 ? 200 : 1;
        for (int i = 1; i <= n; i++)
                add(c, out, i, calls);
        return 0;
}

static void close_instance(void *instance)
{
}

static const struct dapr_name_ops ops = {.mode = DAPR_FIBER, .init = init, .close = close_instance, .resolve = resolve};
static const struct dapr_component_type types[] = {{.type = "nameresolution.scripted", .names = &ops}};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &(struct dapr_plugin){"nameresolution.scripted", "1", types, 1});
}
