/* secretstores.cstore: a secret store. This one holds one fixed secret; put your backend in its place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <string.h>

static const struct dapr_kv hello = {"hello", "world"};

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c, (void)md; /* read settings: dapr_md_string(md, "url") */
        *instance = (void *)&hello;
        return 0;
}

static int get(struct dapr_call *c, void *instance, const char *name, struct dapr_kvs metadata, struct dapr_kvs *out)
{
        (void)instance, (void)metadata;
        if (strcmp(name, hello.key) != 0)
                return dapr_fail(c, DAPR_NOT_FOUND, "there is no secret %s", name);
        *out = (struct dapr_kvs){&hello, 1};
        return 0;
}

static int bulk_get(struct dapr_call *c, void *instance, struct dapr_kvs metadata, struct dapr_secrets *out)
{
        (void)instance, (void)metadata;
        struct dapr_secret *one = dapr_alloc(c, sizeof(*one));
        if (!one)
                return -ENOMEM;
        *one = (struct dapr_secret){hello.key, {&hello, 1}};
        *out = (struct dapr_secrets){one, 1};
        return 0;
}

static const struct dapr_secret_ops ops = {.mode = DAPR_INLINE, .init = init, .get = get, .bulk_get = bulk_get};
static const struct dapr_component_type types[] = {{.type = "secretstores.cstore", .versions = "v1", .secrets = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "secretstores.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
