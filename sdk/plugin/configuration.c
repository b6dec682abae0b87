/*
 * Configuration stores: microdapr.plugin.v1.ConfigurationStore from one ops table. Jobs as in state.c. A watch is one Subscribe stream;
 * its handler's fiber runs the plugin's subscribe operation and is cancelled when the runtime goes away.
 */
#include <errno.h>

#include "plugin/v1/configuration.pb-c.h"
#include "sdk/plugin/runtime.h"
#include "sdk/plugin/state_codec.h"

typedef Microdapr__Plugin__V1__ConfigurationEntry entry_t;
typedef Microdapr__Plugin__V1__ConfigurationEntry__MetadataEntry metadata_t;

struct job {
        struct dapr_call *dc;
        const struct dapr_configuration_ops *ops;
        struct dapr_config_query in;
        struct dapr_config_items out;
};

struct dapr_config_watch {
        struct dapr_call *dc;
        struct fmutex sending;
        bool subscribed;
};

/* ---- messages ---- */

static int read_query(struct dapr_call *dc, struct str req, struct dapr_config_query *to)
{
        /* {Get,Subscribe}Request { keys = 1, metadata = 2 } */
        struct str *parts;
        const char **keys;
        int r = state_read_repeated(dc, req, 1, &parts, &to->n);
        if (r)
                return r;
        keys = arena_alloc(dc->arena, to->n * sizeof *keys);
        for (size_t i = 0; keys && i < to->n; i++)
                if (!(keys[i] = arena_strdup(dc->arena, parts[i])))
                        return -ENOMEM;
        to->keys = keys;
        return keys ? state_read_map(dc, req, 2, &to->metadata) : -ENOMEM;
}

static entry_t *entry_of(struct arena *a, const struct dapr_config_item *from)
{
        entry_t *e = arena_new(a, entry_t);
        if (!e)
                return NULL;
        microdapr__plugin__v1__configuration_entry__init(e);
        e->key = from->key;
        e->value = from->value ? from->value : "";
        e->version = from->version ? from->version : "";
        e->metadata = arena_alloc(a, from->metadata.n * sizeof *e->metadata);
        for (; e->metadata && e->n_metadata < from->metadata.n; e->n_metadata++) {
                metadata_t *m = arena_new(a, metadata_t);
                if (!m)
                        return NULL;
                microdapr__plugin__v1__configuration_entry__metadata_entry__init(m);
                m->key = from->metadata.v[e->n_metadata].key;
                m->value = from->metadata.v[e->n_metadata].value;
                e->metadata[e->n_metadata] = m;
        }
        return e->metadata ? e : NULL;
}

static entry_t **entries_of(struct arena *a, const struct dapr_config_item *items, size_t n)
{
        entry_t **v = arena_alloc(a, n * sizeof *v);
        for (size_t i = 0; v && i < n; i++)
                if (!(v[i] = entry_of(a, &items[i])))
                        return NULL;
        return v;
}

/* ---- get ---- */

static int job_get(void *arg)
{
        struct job *j = arg;
        return j->ops->get(j->dc, j->dc->inst->obj, &j->in, &j->out);
}

static int configuration_get(struct dapr_call *dc, struct str req)
{
        Microdapr__Plugin__V1__ConfigurationGetResponse out = MICRODAPR__PLUGIN__V1__CONFIGURATION_GET_RESPONSE__INIT;
        struct job j = {.dc = dc, .ops = dc->inst->type->configuration};
        int r = read_query(dc, req, &j.in);
        if (r == 0)
                r = sdk_run(dc, j.ops->mode, job_get, &j);
        if (r)
                return sdk_outcome(dc, r);
        out.items = entries_of(dc->arena, j.out.v, j.out.n);
        out.n_items = j.out.n;
        return out.items ? sdk_reply_pb(dc, &out.base) : sdk_outcome(dc, -ENOMEM);
}

/* ---- subscribe ---- */

static int send_update(struct dapr_config_watch *w, const struct dapr_config_item *items, size_t n)
{
        Microdapr__Plugin__V1__ConfigurationUpdate m = MICRODAPR__PLUGIN__V1__CONFIGURATION_UPDATE__INIT;
        struct arena a;
        struct str bytes;
        int r;
        arena_init(&a, 0);
        m.items = entries_of(&a, items, n);
        m.n_items = n;
        bytes = m.items ? pb_pack(&a, &m.base) : STR_NULL;
        r = bytes.p ? fmutex_lock(&w->sending) : -ENOMEM;
        if (r == 0) {
                r = rpc_send(w->dc->rpc, bytes);
                fmutex_unlock(&w->sending);
        }
        arena_fini(&a);
        return r == 0 || r == -ENOMEM ? r : -ECANCELED;
}

int dapr_config_subscribed(struct dapr_config_watch *w)
{
        if (w->subscribed)
                return 0;
        w->subscribed = true;
        return send_update(w, NULL, 0);
}

int dapr_config_changed(struct dapr_config_watch *w, const struct dapr_config_item *items, size_t n)
{
        int r = dapr_config_subscribed(w);
        if (r || !n)
                return r;
        w->dc->rt->calls++;
        return send_update(w, items, n);
}

static int configuration_subscribe(struct dapr_call *dc, struct str none)
{
        const struct dapr_configuration_ops *ops = dc->inst->type->configuration;
        struct dapr_config_watch w = {.dc = dc};
        struct dapr_config_query in = {0};
        struct str req;
        int r = rpc_recv(dc->rpc, &req);
        fmutex_init(&w.sending);
        if (r <= 0)
                return r ? r : sdk_bad_request(dc);
        r = read_query(dc, req, &in);
        if (r == 0 && !ops->subscribe)
                r = dapr_fail(dc, DAPR_UNIMPLEMENTED, "%s does not tell changes", dc->inst->type->type);
        if (r == 0)
                r = ops->subscribe(dc, dc->inst->obj, &w, &in);
        return r == 0 || r == -ECANCELED ? r : sdk_outcome(dc, r);
}

/* ---- the component ---- */

static int configuration_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* ConfigurationInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_CONFIGURATION, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int configuration_features(struct dapr_call *dc, struct str req)
{
        return sdk_reply(dc, STR("")); /* none are defined */
}

static int configuration_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define CONFIGURATION "/microdapr.plugin.v1.ConfigurationStore/"
static const struct sdk_method methods[] = {
        {CONFIGURATION "Init", SDK_CONFIGURATION, configuration_init, .any_instance = true},
        {CONFIGURATION "Features", SDK_CONFIGURATION, configuration_features, true, .any_instance = true},
        {CONFIGURATION "Ping", SDK_CONFIGURATION, configuration_ping, true, .any_instance = true},
        {CONFIGURATION "Get", SDK_CONFIGURATION, configuration_get, true},
        {CONFIGURATION "Subscribe", SDK_CONFIGURATION, configuration_subscribe, .stream = true},
};
const struct sdk_service sdk_configuration_service = {methods, sizeof methods / sizeof *methods};
