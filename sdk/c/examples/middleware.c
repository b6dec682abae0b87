/* middleware.cstore: a filter. It wants the header x-key where the setting `key` says which, and marks what passes. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c;
        const char *key = dapr_md_string(md, "key");
        *instance = strdup(key ? key : "");
        return *instance ? 0 : -ENOMEM;
}

static const char *header(const struct dapr_http *x, const char *name)
{
        for (size_t i = 0; i < x->headers.n; i++)
                if (strcasecmp(x->headers.v[i].key, name) == 0)
                        return x->headers.v[i].value;
        return "";
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        const char *key = instance;
        if (*key && strcmp(header(x, "x-key"), key) != 0)
                return dapr_http_answer_text(c, 401, "say x-key");
        int r = dapr_http_set_header(c, "x-seen-by", dapr_instance(c));
        return r ? r : dapr_http_add_response_header(c, "x-filtered", "yes");
}

static const struct dapr_middleware_ops ops = {.mode = DAPR_INLINE, .init = init, .close = free, .request = request};
static const struct dapr_component_type types[] = {{.type = "middleware.cstore", .versions = "v1", .middleware = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "middleware.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
