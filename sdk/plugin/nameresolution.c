/* Name resolvers: microdapr.plugin.v1.NameResolution from one ops table. Jobs as in state.c. */
#include <errno.h>

#include "plugin/v1/nameresolution.pb-c.h"
#include "sdk/plugin/runtime.h"

struct job {
        struct dapr_call *dc;
        const struct dapr_name_ops *ops;
        struct dapr_resolve in;
        struct dapr_addresses out;
};

static int job_resolve(void *arg)
{
        struct job *j = arg;
        return j->ops->resolve(j->dc, j->dc->inst->obj, &j->in, &j->out);
}

static int name_resolve(struct dapr_call *dc, struct str req)
{
        Microdapr__Plugin__V1__NameResolveResponse out = MICRODAPR__PLUGIN__V1__NAME_RESOLVE_RESPONSE__INIT;
        struct job j = {.dc = dc, .ops = dc->inst->type->names};
        const Microdapr__Plugin__V1__NameResolveRequest *in =
                pb_unpack(dc->arena, &microdapr__plugin__v1__name_resolve_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        j.in = (struct dapr_resolve){in->id, in->namespace_, (int)in->port, in->failed, in->n_failed};
        int r = sdk_run(dc, j.ops->mode, job_resolve, &j);
        out.addresses = (const char **)j.out.v;
        out.n_addresses = j.out.n;
        out.ttl_ms = j.out.ttl_s > 0 ? (uint32_t)(j.out.ttl_s * 1000) : 0;
        return r ? sdk_outcome(dc, r) : sdk_reply_pb(dc, &out.base);
}

/* ---- the component ---- */

const struct dapr_sidecar *dapr_sidecar(const struct dapr_call *c)
{
        static const struct dapr_sidecar none = {.app_id = "", .namespace_ = "", .address = "", .configuration = ""};
        return c->sidecar ? c->sidecar : &none;
}

static int name_init(struct dapr_call *dc, struct str req)
{
        const Microdapr__Plugin__V1__NameResolutionInitRequest *in =
                pb_unpack(dc->arena, &microdapr__plugin__v1__name_resolution_init_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        const Microdapr__Plugin__V1__NameResolutionInstance *of = in->instance;
        struct dapr_sidecar sidecar = {.app_id = "", .namespace_ = "", .address = "", .configuration = in->configuration};
        if (of)
                sidecar = (struct dapr_sidecar){of->app_id,
                                                of->namespace_,
                                                of->address,
                                                (int)of->internal_port,
                                                (int)of->http_port,
                                                (int)of->metrics_port,
                                                (int)of->app_port,
                                                in->configuration};
        size_t n = in->metadata ? in->metadata->n_properties : 0;
        struct dapr_kv *v = dapr_alloc(dc, n * sizeof *v);
        if (!v)
                return sdk_outcome(dc, -ENOMEM);
        for (size_t i = 0; i < n; i++)
                v[i] = (struct dapr_kv){in->metadata->properties[i]->key, in->metadata->properties[i]->value};
        dc->sidecar = &sidecar;
        int r = sdk_instance_init(dc, SDK_NAMES, (struct dapr_kvs){v, n});
        dc->sidecar = NULL;
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int name_features(struct dapr_call *dc, struct str req)
{
        return sdk_reply(dc, STR("")); /* none are defined */
}

static int name_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define NAMES "/microdapr.plugin.v1.NameResolution/"
static const struct sdk_method methods[] = {
        {NAMES "Init", SDK_NAMES, name_init, .any_instance = true},
        {NAMES "Features", SDK_NAMES, name_features, true, .any_instance = true},
        {NAMES "Ping", SDK_NAMES, name_ping, true, .any_instance = true},
        {NAMES "Resolve", SDK_NAMES, name_resolve, true},
};
const struct sdk_service sdk_name_service = {methods, sizeof methods / sizeof *methods};
