/* configuration.cstore: lines KEY=VALUE of a file (setting `file`). Put your store in its place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 256, LINE_MAX_BYTES = 256, POLL_MS = 50 };

struct items {
        size_t n;
        struct { char key[LINE_MAX_BYTES], value[LINE_MAX_BYTES]; } v[ITEMS_MAX];
};

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c;
        const char *file = dapr_md_string(md, "file");
        *instance = strdup(file ? file : "");
        return *instance ? 0 : -ENOMEM;
}

static bool is_wanted(const struct dapr_config_query *in, const char *key)
{
        for (size_t i = 0; i < in->n; i++)
                if (strcmp(in->keys[i], key) == 0)
                        return true;
        return in->n == 0;
}

/* Those that are wanted; of a key that stands twice the last. */
static void read_file(const char *file, const struct dapr_config_query *in, struct items *to)
{
        char line[2 * LINE_MAX_BYTES];
        FILE *f = fopen(file, "re");
        to->n = 0;
        while (f && fgets(line, sizeof line, f)) {
                char *eq = strchr(line, '=');
                size_t i = 0;
                line[strcspn(line, "\n")] = '\0';
                if (!eq)
                        continue;
                *eq = '\0';
                while (i < to->n && strcmp(to->v[i].key, line) != 0)
                        i++;
                if (!is_wanted(in, line) || i == ITEMS_MAX)
                        continue;
                snprintf(to->v[i].key, LINE_MAX_BYTES, "%.*s", LINE_MAX_BYTES - 1, line);
                snprintf(to->v[i].value, LINE_MAX_BYTES, "%.*s", LINE_MAX_BYTES - 1, eq + 1);
                to->n += i == to->n;
        }
        if (f)
                fclose(f);
}

static int get(struct dapr_call *c, void *instance, const struct dapr_config_query *in, struct dapr_config_items *out)
{
        struct items *x = dapr_alloc(c, sizeof(*x));
        struct dapr_config_item *v = dapr_alloc(c, ITEMS_MAX * sizeof(*v));
        if (!x || !v)
                return -ENOMEM;
        read_file(instance, in, x);
        for (; out->n < x->n; out->n++)
                v[out->n] = (struct dapr_config_item){.key = x->v[out->n].key, .value = x->v[out->n].value};
        out->v = v;
        return 0;
}

static const char *value_of(const struct items *x, const char *key)
{
        for (size_t i = 0; i < x->n; i++)
                if (strcmp(x->v[i].key, key) == 0)
                        return x->v[i].value;
        return NULL;
}

/* What is new or another in b; what is gone from it. */
static int tell(struct dapr_config_watch *w, const struct items *a, const struct items *b)
{
        int r = 0;
        for (size_t i = 0; i < b->n && r == 0; i++) {
                const char *before = value_of(a, b->v[i].key);
                if (!before || strcmp(before, b->v[i].value) != 0)
                        r = dapr_config_changed(w, &(struct dapr_config_item){.key = b->v[i].key, .value = b->v[i].value}, 1);
        }
        for (size_t i = 0; i < a->n && r == 0; i++)
                if (!value_of(b, a->v[i].key))
                        r = dapr_config_changed(w, &(struct dapr_config_item){.key = a->v[i].key}, 1);
        return r;
}

static int subscribe(struct dapr_call *c, void *instance, struct dapr_config_watch *w, const struct dapr_config_query *in)
{
        struct items *x[2] = {dapr_alloc(c, sizeof(**x)), dapr_alloc(c, sizeof(**x))};
        if (!x[0] || !x[1])
                return -ENOMEM;
        read_file(instance, in, x[0]);
        int r = dapr_config_subscribed(w);
        for (int now = 1; r == 0 && (r = dapr_sleep(POLL_MS / 1e3)) == 0; now = !now) {
                read_file(instance, in, x[now]);
                r = tell(w, x[!now], x[now]);
        }
        return r;
}

static const struct dapr_configuration_ops ops = {.mode = DAPR_FIBER, .init = init, .close = free, .get = get, .subscribe = subscribe};
static const struct dapr_component_type types[] = {{.type = "configuration.cstore", .versions = "v1", .configuration = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "configuration.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
