/* Secret stores: dapr.proto.components.v1.SecretStore from one ops table. Jobs as in state.c. */
#include <errno.h>

#include "dapr/proto/components/v1/secretstore.pb-c.h"
#include "sdk/plugin/runtime.h"
#include "sdk/plugin/state_codec.h"

struct job {
        struct dapr_call *dc;
        const struct dapr_secret_ops *ops;
        const char *name;
        struct dapr_kvs metadata;
        struct dapr_kvs one;
        struct dapr_secrets all;
};

static int job_get(void *arg)
{
        struct job *j = arg;
        return j->ops->get(j->dc, j->dc->inst->obj, j->name, j->metadata, &j->one);
}

static int job_bulk_get(void *arg)
{
        struct job *j = arg;
        return j->ops->bulk_get(j->dc, j->dc->inst->obj, j->metadata, &j->all);
}

static int secret_get(struct dapr_call *dc, struct str req)
{
        typedef Dapr__Proto__Components__V1__GetSecretResponse__DataEntry entry_t;
        Dapr__Proto__Components__V1__GetSecretResponse out = DAPR__PROTO__COMPONENTS__V1__GET_SECRET_RESPONSE__INIT;
        struct job j = {.dc = dc, .ops = dc->inst->type->secrets};
        const Dapr__Proto__Components__V1__GetSecretRequest *in =
                pb_unpack(dc->arena, &dapr__proto__components__v1__get_secret_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        j.name = in->key;
        int r = state_read_map(dc, req, 2, &j.metadata);
        if (r == 0)
                r = sdk_run(dc, j.ops->mode, job_get, &j);
        if (r)
                return sdk_outcome(dc, r);
        out.data = arena_alloc(dc->arena, j.one.n * sizeof *out.data);
        for (; out.data && out.n_data < j.one.n; out.n_data++) {
                entry_t *e = arena_new(dc->arena, entry_t);
                if (!e)
                        return sdk_outcome(dc, -ENOMEM);
                dapr__proto__components__v1__get_secret_response__data_entry__init(e);
                e->key = j.one.v[out.n_data].key;
                e->value = j.one.v[out.n_data].value;
                out.data[out.n_data] = e;
        }
        return out.data ? sdk_reply_pb(dc, &out.base) : sdk_outcome(dc, -ENOMEM);
}

static Dapr__Proto__Components__V1__SecretResponse *pack_secret(struct dapr_call *dc, struct dapr_kvs values)
{
        typedef Dapr__Proto__Components__V1__SecretResponse__SecretsEntry entry_t;
        Dapr__Proto__Components__V1__SecretResponse *s = arena_new(dc->arena, Dapr__Proto__Components__V1__SecretResponse);
        if (!s)
                return NULL;
        dapr__proto__components__v1__secret_response__init(s);
        s->secrets = arena_alloc(dc->arena, values.n * sizeof *s->secrets);
        for (; s->secrets && s->n_secrets < values.n; s->n_secrets++) {
                entry_t *e = arena_new(dc->arena, entry_t);
                if (!e)
                        return NULL;
                dapr__proto__components__v1__secret_response__secrets_entry__init(e);
                e->key = values.v[s->n_secrets].key;
                e->value = values.v[s->n_secrets].value;
                s->secrets[s->n_secrets] = e;
        }
        return s->secrets ? s : NULL;
}

static int secret_bulk_get(struct dapr_call *dc, struct str req)
{
        typedef Dapr__Proto__Components__V1__BulkGetSecretResponse__DataEntry entry_t;
        Dapr__Proto__Components__V1__BulkGetSecretResponse out = DAPR__PROTO__COMPONENTS__V1__BULK_GET_SECRET_RESPONSE__INIT;
        struct job j = {.dc = dc, .ops = dc->inst->type->secrets};
        int r = state_read_map(dc, req, 1, &j.metadata);
        if (r == 0)
                r = j.ops->bulk_get ? sdk_run(dc, j.ops->mode, job_bulk_get, &j)
                                    : dapr_fail(dc, DAPR_UNIMPLEMENTED, "%s cannot list its secrets", dc->inst->type->type);
        if (r)
                return sdk_outcome(dc, r);
        out.data = arena_alloc(dc->arena, j.all.n * sizeof *out.data);
        for (; out.data && out.n_data < j.all.n; out.n_data++) {
                entry_t *e = arena_new(dc->arena, entry_t);
                if (!e)
                        return sdk_outcome(dc, -ENOMEM);
                dapr__proto__components__v1__bulk_get_secret_response__data_entry__init(e);
                e->key = j.all.v[out.n_data].name;
                e->value = pack_secret(dc, j.all.v[out.n_data].values);
                if (!e->value)
                        return sdk_outcome(dc, -ENOMEM);
                out.data[out.n_data] = e;
        }
        return out.data ? sdk_reply_pb(dc, &out.base) : sdk_outcome(dc, -ENOMEM);
}

static int secret_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* SecretStoreInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_SECRETS, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int secret_features(struct dapr_call *dc, struct str req)
{
        Dapr__Proto__Components__V1__FeaturesResponse out = DAPR__PROTO__COMPONENTS__V1__FEATURES_RESPONSE__INIT;
        const char *name = sdk_feature_name(DAPR_FEATURE_MULTIPLE_VALUES_PER_SECRET);
        out.features = &name;
        out.n_features = (sdk_call_features(dc, SDK_SECRETS) & DAPR_FEATURE_MULTIPLE_VALUES_PER_SECRET) != 0;
        return sdk_reply_pb(dc, &out.base);
}

static int secret_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define SECRETS "/dapr.proto.components.v1.SecretStore/"
static const struct sdk_method methods[] = {
        {SECRETS "Init", SDK_SECRETS, secret_init, .any_instance = true},
        {SECRETS "Features", SDK_SECRETS, secret_features, true, .any_instance = true},
        {SECRETS "Ping", SDK_SECRETS, secret_ping, true, .any_instance = true},
        {SECRETS "Get", SDK_SECRETS, secret_get, true},
        {SECRETS "BulkGet", SDK_SECRETS, secret_bulk_get, true},
};
const struct sdk_service sdk_secret_service = {methods, sizeof methods / sizeof *methods};
