/*
 * secretstores.local.env: the sidecar's environment variables as secrets. The runtime hands its environment to this process
 * only (manifest: environment "*"). Names that belong to the runtime itself (DAPR_…, APP_API_TOKEN) are never given out.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

extern char **environ;

struct store {
        char *prefix; /* "" = none */
};

static int op_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *prefix = dapr_md_string(md, "prefix");
        struct store *s = calloc(1, sizeof *s);
        if (s)
                s->prefix = strdup(prefix ? prefix : "");
        if (!s || !s->prefix) {
                free(s);
                return -ENOMEM;
        }
        *instance = s;
        return 0;
}

static void op_close(void *instance)
{
        struct store *s = instance;
        free(s->prefix);
        free(s);
}

static bool is_allowed(const char *name, size_t n)
{
        return !(n == 13 && !strncasecmp(name, "APP_API_TOKEN", 13)) && !(n >= 5 && !strncasecmp(name, "DAPR_", 5));
}

static int op_get(struct dapr_call *c, void *instance, const char *name, struct dapr_kvs metadata, struct dapr_kvs *out)
{
        const struct store *s = instance;
        const char *full = dapr_printf(c, "%s%s", s->prefix, name), *value = NULL;
        struct dapr_kv *kv = dapr_alloc(c, sizeof *kv);
        if (!full || !kv)
                return -ENOMEM;
        if (is_allowed(full, strlen(full)))
                value = getenv(full);
        else
                dapr_log(DAPR_LOG_WARN, "Access to env var %s is forbidden", name);
        *kv = (struct dapr_kv){name, value ? value : ""};
        *out = (struct dapr_kvs){kv, 1};
        return 0;
}

static int op_bulk_get(struct dapr_call *c, void *instance, struct dapr_kvs metadata, struct dapr_secrets *out)
{
        const struct store *s = instance;
        size_t prefix_n = strlen(s->prefix), n = 0, cap = 0;
        while (environ[cap])
                cap++;
        struct dapr_secret *list = dapr_alloc(c, cap * sizeof *list);
        if (!list)
                return -ENOMEM;
        for (char **e = environ; *e; e++) {
                const char *eq = strchr(*e, '=');
                size_t name_n = eq ? (size_t)(eq - *e) : 0;
                if (!eq || (prefix_n && (name_n <= prefix_n || strncmp(*e, s->prefix, prefix_n))) || !is_allowed(*e, name_n))
                        continue;
                struct dapr_kv *kv = dapr_alloc(c, sizeof *kv);
                char *name = dapr_alloc(c, name_n - prefix_n + 1);
                if (!kv || !name)
                        return -ENOMEM;
                memcpy(name, *e + prefix_n, name_n - prefix_n);
                name[name_n - prefix_n] = 0;
                *kv = (struct dapr_kv){name, eq + 1};
                list[n++] = (struct dapr_secret){name, {kv, 1}};
        }
        *out = (struct dapr_secrets){list, n};
        return 0;
}

static const struct dapr_secret_ops ops = {.mode = DAPR_INLINE, .init = op_init, .close = op_close, .get = op_get, .bulk_get = op_bulk_get};
static const struct dapr_component_type types[] = {{.type = "secretstores.local.env", .versions = "v1", .secrets = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "secretstores.local.env", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
