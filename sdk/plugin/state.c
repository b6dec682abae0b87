/*
 * State stores: the services of dapr.proto.components.v1 and microdapr.plugin.v1.StateStoreExtra from one ops table.
 * A method reads its request into a job, runs the job as the table's mode says, and packs the answer. The job runs on a pool
 * thread in worker mode: it touches nothing but itself, the ops and the call's arena, which nobody else uses meanwhile.
 * Bulk forms that a table lacks are loops over the single ones; each item has its own outcome.
 */
#include <errno.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "plugin/v1/state.pb-c.h"
#include "sdk/base/json.h"
#include "sdk/plugin/runtime.h"
#include "sdk/plugin/state_codec.h"

struct job {
        struct dapr_call *dc;
        const struct dapr_state_ops *ops;
        void *obj;
        size_t n;
        const struct dapr_get *get;
        const struct dapr_set *set;
        const struct dapr_delete *del;
        const struct dapr_op *op;
        struct dapr_kvs metadata;
        struct dapr_item *items;
        struct dapr_bulk_result *results;
        const char **errors; /* bulk get: text of each failed item */
};

static struct job job_of(struct dapr_call *dc)
{
        return (struct job){.dc = dc, .ops = dc->inst->type->state, .obj = dc->inst->obj};
}

static int run(struct job *j, int (*fn)(void *))
{
        return sdk_run(j->dc, j->ops->mode, fn, j);
}

static int unimplemented(struct dapr_call *dc)
{
        return sdk_outcome(dc, dapr_fail(dc, DAPR_UNIMPLEMENTED, "%s does not support this operation", dc->inst->type->type));
}

/* ---- one item ---- */

static int job_get(void *arg)
{
        struct job *j = arg;
        return j->ops->get(j->dc, j->obj, j->get, j->items);
}

static int state_get(struct dapr_call *dc, struct str req)
{
        struct dapr_get in;
        struct dapr_item out = {0};
        struct job j = job_of(dc);
        int r = state_read_get(dc, req, &in);
        if (r)
                return sdk_outcome(dc, r);
        j.get = &in;
        j.items = &out;
        r = run(&j, job_get);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, state_pack_get(dc, &out));
}

static int job_set(void *arg)
{
        struct job *j = arg;
        return j->ops->set(j->dc, j->obj, j->set);
}

static int state_set(struct dapr_call *dc, struct str req)
{
        struct dapr_set in;
        struct job j = job_of(dc);
        int r = state_read_set(dc, req, &in);
        if (r == 0)
                r = state_read_ttl(dc, &in);
        if (r)
                return sdk_outcome(dc, r);
        j.set = &in;
        r = run(&j, job_set);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int job_delete(void *arg)
{
        struct job *j = arg;
        return j->ops->del(j->dc, j->obj, j->del);
}

static int state_delete(struct dapr_call *dc, struct str req)
{
        struct dapr_delete in;
        struct job j = job_of(dc);
        int r = state_read_delete(dc, req, &in);
        if (r)
                return sdk_outcome(dc, r);
        j.del = &in;
        r = run(&j, job_delete);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

/* ---- many items ---- */

static int job_bulk_get(void *arg)
{
        struct job *j = arg;
        if (j->ops->bulk_get)
                return j->ops->bulk_get(j->dc, j->obj, j->get, j->n, j->items);
        for (size_t i = 0; i < j->n; i++) {
                j->dc->message = NULL;
                int r = j->ops->get(j->dc, j->obj, &j->get[i], &j->items[i]);
                if (r)
                        j->errors[i] = sdk_text(j->dc, r);
        }
        return 0;
}

static int state_bulk_get(struct dapr_call *dc, struct str req)
{
        struct job j = job_of(dc);
        struct str *parts;
        int r = state_read_repeated(dc, req, 1, &parts, &j.n);
        if (r)
                return sdk_outcome(dc, r);
        struct dapr_get *in = arena_alloc(dc->arena, j.n * sizeof *in);
        const char **keys = arena_alloc(dc->arena, j.n * sizeof *keys);
        j.items = arena_zalloc(dc->arena, j.n * sizeof *j.items);
        j.errors = arena_zalloc(dc->arena, j.n * sizeof *j.errors);
        if (!in || !keys || !j.items || !j.errors)
                return sdk_outcome(dc, -ENOMEM);
        for (size_t i = 0; i < j.n; i++) {
                r = state_read_get(dc, parts[i], &in[i]);
                if (r)
                        return sdk_outcome(dc, r);
                keys[i] = in[i].key;
        }
        j.get = in;
        r = run(&j, job_bulk_get);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, state_pack_bulk_get(dc, keys, j.items, j.errors, j.n));
}

static int bulk_outcome(struct job *j, const char *const *keys, int r)
{
        if (r)
                return sdk_outcome(j->dc, r);
        for (size_t i = 0; i < j->n; i++)
                if (j->results[i].code)
                        return sdk_fail_items(j->dc, keys, j->results, j->n);
        return sdk_reply(j->dc, STR(""));
}

static void item_result(struct job *j, size_t i, int r)
{
        if (r)
                j->results[i] = (struct dapr_bulk_result){r > 0 ? r : DAPR_INTERNAL, sdk_text(j->dc, r)};
}

static int job_bulk_set(void *arg)
{
        struct job *j = arg;
        if (j->ops->bulk_set)
                return j->ops->bulk_set(j->dc, j->obj, j->set, j->n, j->results);
        for (size_t i = 0; i < j->n; i++) {
                j->dc->message = NULL;
                item_result(j, i, j->ops->set(j->dc, j->obj, &j->set[i]));
        }
        return 0;
}

static int state_bulk_set(struct dapr_call *dc, struct str req)
{
        struct job j = job_of(dc);
        struct str *parts;
        int r = state_read_repeated(dc, req, 1, &parts, &j.n);
        if (r)
                return sdk_outcome(dc, r);
        struct dapr_set *in = arena_alloc(dc->arena, j.n * sizeof *in);
        const char **keys = arena_alloc(dc->arena, j.n * sizeof *keys);
        j.results = arena_zalloc(dc->arena, j.n * sizeof *j.results);
        if (!in || !keys || !j.results)
                return sdk_outcome(dc, -ENOMEM);
        for (size_t i = 0; i < j.n; i++) {
                r = state_read_set(dc, parts[i], &in[i]);
                if (r == 0)
                        r = state_read_ttl(dc, &in[i]);
                if (r)
                        return sdk_outcome(dc, r);
                keys[i] = in[i].key;
        }
        j.set = in;
        return bulk_outcome(&j, keys, run(&j, job_bulk_set));
}

static int job_bulk_delete(void *arg)
{
        struct job *j = arg;
        if (j->ops->bulk_del)
                return j->ops->bulk_del(j->dc, j->obj, j->del, j->n, j->results);
        for (size_t i = 0; i < j->n; i++) {
                j->dc->message = NULL;
                item_result(j, i, j->ops->del(j->dc, j->obj, &j->del[i]));
        }
        return 0;
}

static int state_bulk_delete(struct dapr_call *dc, struct str req)
{
        struct job j = job_of(dc);
        struct str *parts;
        int r = state_read_repeated(dc, req, 1, &parts, &j.n);
        if (r)
                return sdk_outcome(dc, r);
        struct dapr_delete *in = arena_alloc(dc->arena, j.n * sizeof *in);
        const char **keys = arena_alloc(dc->arena, j.n * sizeof *keys);
        j.results = arena_zalloc(dc->arena, j.n * sizeof *j.results);
        if (!in || !keys || !j.results)
                return sdk_outcome(dc, -ENOMEM);
        for (size_t i = 0; i < j.n; i++) {
                r = state_read_delete(dc, parts[i], &in[i]);
                if (r)
                        return sdk_outcome(dc, r);
                keys[i] = in[i].key;
        }
        j.del = in;
        return bulk_outcome(&j, keys, run(&j, job_bulk_delete));
}

/* ---- transactions ---- */

static int job_transact(void *arg)
{
        struct job *j = arg;
        return j->ops->transact(j->dc, j->obj, j->op, j->n, j->metadata);
}

static int state_transact(struct dapr_call *dc, struct str req)
{
        struct job j = job_of(dc);
        struct str *parts;
        if (!j.ops->transact)
                return unimplemented(dc);
        int r = state_read_repeated(dc, req, 1, &parts, &j.n);
        if (r == 0)
                r = state_read_map(dc, req, 2, &j.metadata);
        if (r)
                return sdk_outcome(dc, r);
        if (j.ops->max_transaction_ops > 0 && j.n > (size_t)j.ops->max_transaction_ops)
                return sdk_outcome(dc, dapr_fail(dc, DAPR_INVALID_ARGUMENT, "a transaction may hold %lld operations, this one has %zu",
                                                 (long long)j.ops->max_transaction_ops, j.n));
        struct dapr_op *ops = arena_alloc(dc->arena, j.n * sizeof *ops);
        if (!ops)
                return sdk_outcome(dc, -ENOMEM);
        for (size_t i = 0; i < j.n; i++) {
                r = state_read_op(dc, parts[i], &ops[i]);
                if (r)
                        return sdk_outcome(dc, r);
        }
        j.op = ops;
        r = run(&j, job_transact);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int state_multi_max_size(struct dapr_call *dc, struct str req)
{
        Dapr__Proto__Components__V1__MultiMaxSizeResponse out = DAPR__PROTO__COMPONENTS__V1__MULTI_MAX_SIZE_RESPONSE__INIT;
        int64_t max = dc->inst->type->state->max_transaction_ops;
        out.max_size = max > 0 ? max : -1;
        return sdk_reply_pb(dc, &out.base);
}

/* ---- query ---- */

struct query_job {
        struct job j;
        struct dapr_query in;
        struct dapr_query_result out;
};

/* The document as its author wrote it, from the contract's parts: each filter's value is JSON. */
static int query_document(const Dapr__Proto__Components__V1__Query *q, struct buf *out)
{
        struct json_writer w;
        json_write_init(&w, out);
        json_object_begin(&w);
        json_key(&w, STR("filter"));
        json_object_begin(&w);
        for (size_t i = 0; q && i < q->n_filter; i++) {
                struct str value = q->filter[i]->value ? pb_str(q->filter[i]->value->value) : STR("null");
                if (!json_valid(value))
                        return -EBADMSG;
                json_key(&w, str_of(q->filter[i]->key));
                json_raw(&w, value);
        }
        json_object_end(&w);
        json_key(&w, STR("sort"));
        json_array_begin(&w);
        for (size_t i = 0; q && i < q->n_sort; i++) {
                bool desc = q->sort[i]->order == DAPR__PROTO__COMPONENTS__V1__SORTING__ORDER__DESC;
                json_object_begin(&w);
                json_kv(&w, "key", str_of(q->sort[i]->key));
                json_kv(&w, "order", desc ? STR("DESC") : STR("ASC"));
                json_object_end(&w);
        }
        json_array_end(&w);
        json_key(&w, STR("page"));
        json_object_begin(&w);
        if (q && q->pagination) {
                json_key(&w, STR("limit"));
                json_int(&w, q->pagination->limit);
                json_kv_nonempty(&w, "token", str_of(q->pagination->token));
        }
        json_object_end(&w);
        json_object_end(&w);
        return out->failed ? -ENOMEM : 0;
}

static int job_query(void *arg)
{
        struct query_job *q = arg;
        return q->j.ops->query(q->j.dc, q->j.obj, &q->in, &q->out);
}

static int query_reply(struct dapr_call *dc, const struct dapr_query_result *r)
{
        typedef Dapr__Proto__Components__V1__QueryItem item_t;
        typedef Dapr__Proto__Components__V1__QueryResponse__MetadataEntry entry_t;
        Dapr__Proto__Components__V1__QueryResponse out = DAPR__PROTO__COMPONENTS__V1__QUERY_RESPONSE__INIT;
        out.items = arena_alloc(dc->arena, r->n * sizeof *out.items);
        out.metadata = arena_alloc(dc->arena, r->metadata.n * sizeof *out.metadata);
        if (!out.items || !out.metadata)
                return sdk_outcome(dc, -ENOMEM);
        for (; out.n_items < r->n; out.n_items++) {
                const struct dapr_query_row *row = &r->rows[out.n_items];
                item_t *i = arena_new(dc->arena, item_t);
                Dapr__Proto__Components__V1__Etag *etag = arena_new(dc->arena, Dapr__Proto__Components__V1__Etag);
                if (!i || !etag)
                        return sdk_outcome(dc, -ENOMEM);
                dapr__proto__components__v1__query_item__init(i);
                dapr__proto__components__v1__etag__init(etag);
                i->key = row->key ? row->key : "";
                i->data = pb_bytes(str_n(row->item.value.p, row->item.value.n));
                i->error = row->error ? row->error : "";
                i->content_type = row->item.content_type ? row->item.content_type : "";
                if (row->item.etag) {
                        etag->value = row->item.etag;
                        i->etag = etag;
                }
                out.items[out.n_items] = i;
        }
        for (; out.n_metadata < r->metadata.n; out.n_metadata++) {
                entry_t *e = arena_new(dc->arena, entry_t);
                if (!e)
                        return sdk_outcome(dc, -ENOMEM);
                dapr__proto__components__v1__query_response__metadata_entry__init(e);
                e->key = r->metadata.v[out.n_metadata].key;
                e->value = r->metadata.v[out.n_metadata].value;
                out.metadata[out.n_metadata] = e;
        }
        out.token = r->token ? r->token : "";
        return sdk_reply_pb(dc, &out.base);
}

static int state_query(struct dapr_call *dc, struct str req)
{
        struct query_job q = {.j = job_of(dc)};
        if (!q.j.ops->query)
                return unimplemented(dc);
        const Dapr__Proto__Components__V1__QueryRequest *in =
                pb_unpack(dc->arena, &dapr__proto__components__v1__query_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        struct buf doc = {0};
        int r = query_document(in->query, &doc);
        q.in.json = r ? NULL : arena_strdup(dc->arena, buf_str(&doc));
        buf_fini(&doc);
        if (r == 0)
                r = q.in.json ? state_read_map(dc, req, 2, &q.in.metadata) : -ENOMEM;
        if (r == 0)
                r = sdk_run(dc, q.j.ops->mode, job_query, &q);
        return r ? sdk_outcome(dc, r) : query_reply(dc, &q.out);
}

/* ---- what the old contract lacks ---- */

struct keys_job {
        struct job j;
        struct dapr_keys_like in;
        struct dapr_keys out;
        const char *prefix;
        int64_t deleted;
};

static int job_keys_like(void *arg)
{
        struct keys_job *k = arg;
        return k->j.ops->keys_like(k->j.dc, k->j.obj, &k->in, &k->out);
}

static int state_keys_like(struct dapr_call *dc, struct str req)
{
        struct keys_job k = {.j = job_of(dc)};
        Microdapr__Plugin__V1__KeysLikeResponse out = MICRODAPR__PLUGIN__V1__KEYS_LIKE_RESPONSE__INIT;
        if (!k.j.ops->keys_like)
                return unimplemented(dc);
        const Microdapr__Plugin__V1__KeysLikeRequest *in =
                pb_unpack(dc->arena, &microdapr__plugin__v1__keys_like_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        k.in.pattern = in->pattern;
        k.in.page_size = in->_page_size_case ? in->page_size : 0;
        k.in.token = in->continuation_token[0] ? in->continuation_token : NULL;
        int r = k.in.pattern[0] ? sdk_run(dc, k.j.ops->mode, job_keys_like, &k)
                                : dapr_fail(dc, DAPR_INVALID_ARGUMENT, "keys like pattern cannot be empty");
        if (r)
                return sdk_outcome(dc, r);
        out.keys = (const char **)k.out.keys;
        out.n_keys = k.out.n;
        out.continuation_token = k.out.token ? k.out.token : "";
        return sdk_reply_pb(dc, &out.base);
}

static int job_delete_with_prefix(void *arg)
{
        struct keys_job *k = arg;
        return k->j.ops->delete_with_prefix(k->j.dc, k->j.obj, k->prefix, &k->deleted);
}

static int state_delete_with_prefix(struct dapr_call *dc, struct str req)
{
        struct keys_job k = {.j = job_of(dc)};
        Microdapr__Plugin__V1__DeleteWithPrefixResponse out = MICRODAPR__PLUGIN__V1__DELETE_WITH_PREFIX_RESPONSE__INIT;
        if (!k.j.ops->delete_with_prefix)
                return unimplemented(dc);
        const Microdapr__Plugin__V1__DeleteWithPrefixRequest *in =
                pb_unpack(dc->arena, &microdapr__plugin__v1__delete_with_prefix_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        if (!in->prefix[0] || strcmp(in->prefix, "||") == 0)
                return sdk_outcome(dc, dapr_fail(dc, DAPR_INVALID_ARGUMENT, "a prefix is required for deleteWithPrefix request"));
        k.prefix = str_has_suffix(str_of(in->prefix), STR("||")) ? in->prefix : dapr_printf(dc, "%s||", in->prefix);
        int r = k.prefix ? sdk_run(dc, k.j.ops->mode, job_delete_with_prefix, &k) : -ENOMEM;
        if (r)
                return sdk_outcome(dc, r);
        out.count = k.deleted;
        return sdk_reply_pb(dc, &out.base);
}

/* ---- the rest ---- */

static int state_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* InitRequest { metadata = 1 }, MetadataRequest { properties = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_STATE, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int state_features(struct dapr_call *dc, struct str req)
{
        Dapr__Proto__Components__V1__FeaturesResponse out = DAPR__PROTO__COMPONENTS__V1__FEATURES_RESPONSE__INIT;
        const char *names[32];
        unsigned have = sdk_call_features(dc, SDK_STATE);
        out.features = names;
        for (unsigned bit = 1; bit && bit <= have; bit <<= 1)
                if ((have & bit) && sdk_feature_name(bit))
                        names[out.n_features++] = sdk_feature_name(bit);
        return sdk_reply_pb(dc, &out.base);
}

static int state_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define STATE "/dapr.proto.components.v1.StateStore/"
static const struct sdk_method methods[] = {
        {STATE "Init", SDK_STATE, state_init, .any_instance = true},
        {STATE "Features", SDK_STATE, state_features, true, .any_instance = true},
        {STATE "Ping", SDK_STATE, state_ping, true, .any_instance = true},
        {STATE "Get", SDK_STATE, state_get, true},
        {STATE "Set", SDK_STATE, state_set},
        {STATE "Delete", SDK_STATE, state_delete},
        {STATE "BulkGet", SDK_STATE, state_bulk_get, true},
        {STATE "BulkSet", SDK_STATE, state_bulk_set},
        {STATE "BulkDelete", SDK_STATE, state_bulk_delete},
        {"/dapr.proto.components.v1.TransactionalStateStore/Transact", SDK_STATE, state_transact, false, DAPR_FEATURE_TRANSACTIONAL},
        {"/dapr.proto.components.v1.TransactionalStoreMultiMaxSize/MultiMaxSize", SDK_STATE, state_multi_max_size, true,
         DAPR_FEATURE_TRANSACTIONAL},
        {"/dapr.proto.components.v1.QueriableStateStore/Query", SDK_STATE, state_query, true, DAPR_FEATURE_QUERY},
        {"/microdapr.plugin.v1.StateStoreExtra/KeysLike", SDK_STATE, state_keys_like, true, DAPR_FEATURE_KEYS_LIKE},
        {"/microdapr.plugin.v1.StateStoreExtra/DeleteWithPrefix", SDK_STATE, state_delete_with_prefix, true,
         DAPR_FEATURE_DELETE_WITH_PREFIX},
};
const struct sdk_service sdk_state_service = {methods, sizeof methods / sizeof *methods};
