/* bindings.cstore: what the app creates comes back as an event. Put your system in its place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 20 };

struct item { /* the last one that was created */
        void *data;
        size_t n;
        bool is_new; /* an event */
};

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c, (void)md; /* read settings: dapr_md_string(md, "url") */
        *instance = calloc(1, sizeof(struct item));
        return *instance ? 0 : -ENOMEM;
}

static void shut(void *instance)
{
        struct item *x = instance;
        free(x->data);
        free(x);
}

static const char *const operations[] = {"create", "get", "delete", NULL};

static int invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        struct item *x = instance;
        if (strcmp(in->operation, "create") == 0) {
                void *data = malloc(in->data.n + 1);
                if (!data)
                        return -ENOMEM;
                memcpy(data, in->data.p, in->data.n);
                free(x->data);
                *x = (struct item){data, in->data.n, true};
        } else if (strcmp(in->operation, "delete") == 0) {
                free(x->data);
                *x = (struct item){0};
        } else if (!x->data) {
                return dapr_fail(c, DAPR_NOT_FOUND, "nothing was created");
        } else {
                out->data = dapr_copy(c, x->data, x->n);
        }
        return 0;
}

/* Events, for as long as the runtime wants them. */
static int read_events(struct dapr_call *c, void *instance, struct dapr_reader *r)
{
        (void)c;
        struct item *x = instance;
        int code = 0;
        while (code != -ECANCELED && dapr_sleep(POLL_MS / 1e3) == 0) {
                struct dapr_event e = {.data = {x->data, x->n}};
                if (!x->is_new)
                        continue;
                code = dapr_binding_event(r, &e, NULL); /* parks until the app has answered */
                x->is_new = code != 0;                  /* it failed: again */
        }
        return -ECANCELED;
}

static const struct dapr_binding_ops ops = {.mode = DAPR_FIBER, .init = init, .close = shut, .operations = operations, .invoke = invoke, .read = read_events};
static const struct dapr_component_type types[] = {{.type = "bindings.cstore", .versions = "v1", .binding = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "bindings.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
