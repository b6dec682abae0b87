/* middleware.http.routerchecker: lets pass only requests whose path and query match a regular expression; others get 400. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/regex.h"

struct checker {
        struct arena arena;
        struct regex *rule;
};

static void shut(void *instance)
{
        struct checker *k = instance;

        arena_fini(&k->arena);
        free(k);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *rule = dapr_md_string(md, "rule"), *why = NULL;
        struct checker *k = calloc(1, sizeof *k);
        int r;

        if (!k)
                return -ENOMEM;
        arena_init(&k->arena, 0);
        r = regex_compile(&k->rule, str_of(rule ? rule : ""), &k->arena, &why);
        if (r) {
                r = r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to compile rule regexp: error parsing regexp: %s", why) : r;
                shut(k);
                return r;
        }
        *instance = k;
        return 0;
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        const struct checker *k = instance;
        const char *uri = *x->query ? dapr_printf(c, "%s?%s", x->raw_path, x->query) : x->raw_path;
        struct arena scratch;
        int r;

        if (!uri)
                return -ENOMEM;
        arena_init(&scratch, 0);
        r = regex_match(k->rule, str_of(uri), &scratch, NULL);
        arena_fini(&scratch);
        if (r < 0)
                return r;
        return r ? 0 : dapr_http_answer_text(c, 400, "invalid router");
}

static const struct dapr_middleware_ops ops = {.mode = DAPR_INLINE, .init = init, .close = shut, .request = request};
static const struct dapr_component_type types[] = {{.type = "middleware.http.routerchecker", .versions = "v1", .middleware = &ops}};
static const struct dapr_plugin plugin = {.name = "middleware.http.routerchecker", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
