/* state.cstore: a state store. This one keeps values in memory, in a list; put your backend in its place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct item {
        struct item *next;
        char *key;
        void *value;
        size_t n;
        unsigned long version; /* the ETag */
        time_t expires;        /* 0 = never */
};
struct store {
        struct item *items;
        unsigned long last_version;
};

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c, (void)md; /* read settings: dapr_md_string(md, "url") */
        *instance = calloc(1, sizeof(struct store));
        return *instance ? 0 : -ENOMEM;
}

static void drop(struct item **at)
{
        struct item *gone = *at;
        *at = gone->next;
        free(gone->key);
        free(gone->value);
        free(gone);
}

static void shut(void *instance)
{
        struct store *s = instance;
        while (s->items)
                drop(&s->items);
        free(s);
}

/* Where the key stands, or the end of the list. Expired items go on the way. */
static struct item **find(struct store *s, const char *key)
{
        struct item **at = &s->items;
        while (*at) {
                if ((*at)->expires && (*at)->expires <= time(NULL))
                        drop(at);
                else if (strcmp((*at)->key, key) == 0)
                        break;
                else
                        at = &(*at)->next;
        }
        return at;
}

static int check_etag(struct dapr_call *c, const struct item *have, const char *want, enum dapr_concurrency how)
{
        if (!want || !*want)
                return have && how == DAPR_FIRST_WRITE ? dapr_fail(c, DAPR_ETAG_MISMATCH, "the key exists") : 0;
        char *end;
        unsigned long v = strtoul(want, &end, 10);
        if (*end)
                return dapr_fail(c, DAPR_ETAG_INVALID, "the ETag %s is not a number", want);
        return have && have->version == v ? 0 : dapr_fail(c, DAPR_ETAG_MISMATCH, "the ETag %s is not the current one", want);
}

static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        struct item *x = *find(instance, in->key);
        if (!x)
                return 0; /* not found is no error */
        out->found = true;
        out->value = dapr_copy(c, x->value, x->n);
        out->etag = dapr_printf(c, "%lu", x->version);
        return out->etag ? 0 : -ENOMEM;
}

static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        struct store *s = instance;
        struct item **at = find(s, in->key), *x = *at;
        int r = check_etag(c, x, in->etag, in->concurrency);
        if (r)
                return r;
        void *value = malloc(in->value.n + 1);
        if (!value)
                return -ENOMEM;
        if (in->value.n)
                memcpy(value, in->value.p, in->value.n);
        if (!x) {
                x = calloc(1, sizeof(*x));
                if (!x || !(x->key = strdup(in->key))) {
                        free(x);
                        free(value);
                        return -ENOMEM;
                }
                *at = x;
        }
        free(x->value);
        x->value = value;
        x->n = in->value.n;
        x->version = ++s->last_version;
        x->expires = in->ttl_s > 0 ? time(NULL) + in->ttl_s : 0; /* a write without a TTL takes the old one away */
        return 0;
}

static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        struct item **at = find(instance, in->key);
        int r = in->etag && *in->etag ? check_etag(c, *at, in->etag, in->concurrency) : 0;
        if (!r && *at)
                drop(at);
        return r;
}

static const struct dapr_state_ops ops = {
        .mode = DAPR_INLINE, /* DAPR_WORKER when your client library blocks */
        .features = DAPR_FEATURE_ETAG | DAPR_FEATURE_TTL,
        .init = init,
        .close = shut,
        .get = get,
        .set = set,
        .del = del,
};
static const struct dapr_component_type types[] = {{.type = "state.cstore", .versions = "v1", .state = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "state.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
