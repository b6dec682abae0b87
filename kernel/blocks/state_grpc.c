/* The gRPC door of the state API: messages of dapr.proto.runtime.v1 to items and back. */
#include "dapr/proto/runtime/v1/state.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "kernel/front/json_fault.h"
#include "kernel/blocks/state.h"
#include "kernel/blocks/state_key.h"
#include "sdk/base/json.h"

typedef Dapr__Proto__Common__V1__StateItem item_msg;
typedef Dapr__Proto__Common__V1__Etag etag_msg;
typedef Dapr__Proto__Common__V1__StateOptions options_msg;

static int no_memory(struct call *c)
{
        return call_fail(c, ERR_UNTYPED, "the request needs more memory than one request may take");
}

/* Map entries are different types with one layout: base, key, value. */
struct entry {
        ProtobufCMessage base;
        const char *key, *value;
};
_Static_assert(sizeof(struct entry) == sizeof(Dapr__Proto__Common__V1__StateItem__MetadataEntry), "layout of map entries");

static int read_map(struct call *c, void *const *entries, size_t n, struct rpc_mdlist *ret)
{
        for (size_t i = 0; i < n; i++) {
                const struct entry *e = entries[i];
                if (rpc_md_add(ret, c->arena, str_of(e->key), str_of(e->value)))
                        return no_memory(c);
        }
        return 0;
}
#define READ_MAP(c, m, ret) read_map(c, (void *const *)(m)->metadata, (m)->n_metadata, ret)

/* Enumerators that we do not know count as unset. */
static int known(int v, int max)
{
        return v >= 0 && v <= max ? v : 0;
}

static void read_options(const etag_msg *etag, const options_msg *o, struct state_item *i)
{
        i->has_etag = etag != NULL;
        i->etag = etag ? str_of(etag->value) : STR("");
        if (o) {
                i->concurrency = known(o->concurrency, STATE_CONCURRENCY_LAST_WRITE);
                i->consistency = known(o->consistency, STATE_CONSISTENCY_STRONG);
        }
}

static int read_item(struct call *c, const item_msg *m, struct state_item *i)
{
        *i = (struct state_item){.key = str_of(m->key), .value = pb_str(m->value)};
        read_options(m->etag, m->options, i);
        return READ_MAP(c, m, &i->md);
}

/* Metadata contentType = application/json: the value is JSON and is checked to be. */
static int read_json_value(struct call *c, struct state_item *i)
{
        if (!str_eq(rpc_md_get(&i->md, "contentType"), STR("application/json")))
                return 0;
        if (!json_valid(i->value)) {
                const char *why = json_fault(c->arena, i->value, true);
                return call_fail(c, ERR_UNTYPED, why ? why : "invalid UTF-8 in a string");
        }
        i->is_json = true;
        i->value = state_json_compact(c->arena, str_trim(i->value));
        i->is_null = str_eq(i->value, STR("null"));
        return i->value.p ? 0 : no_memory(c);
}

static struct state_item *read_items(struct call *c, item_msg *const *m, size_t n)
{
        struct state_item *items = arena_alloc(c->arena, n * sizeof *items);
        if (!items)
                no_memory(c);
        for (size_t i = 0; items && i < n; i++)
                if (read_item(c, m[i], &items[i]))
                        return NULL;
        return items;
}

/* A NUL-terminated copy. */
static bool text(struct call *c, struct str s, const char **ret)
{
        *ret = s.n ? arena_strdup(c->arena, s) : "";
        return *ret != NULL;
}

static bool write_map(struct call *c, const struct rpc_mdlist *md, const ProtobufCMessageDescriptor *d, void ***ret, size_t *ret_n)
{
        *ret = arena_alloc(c->arena, md->n * sizeof **ret);
        for (*ret_n = 0; *ret && *ret_n < md->n; ++*ret_n) {
                struct entry *e = arena_alloc(c->arena, sizeof *e);
                if (!e)
                        return false;
                protobuf_c_message_init(d, e);
                if (!text(c, md->v[*ret_n].key, &e->key) || !text(c, md->v[*ret_n].value, &e->value))
                        return false;
                (*ret)[*ret_n] = e;
        }
        return *ret != NULL;
}

/* ---- methods ---- */

static int get_state(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const Dapr__Proto__Runtime__V1__GetStateRequest *in = (const void *)req;
        Dapr__Proto__Runtime__V1__GetStateResponse *out = (void *)resp;
        struct state_item i = {.key = str_of(in->key)};
        struct state_store *s;
        struct state_value v;
        if (state_store_find(c, str_of(in->store_name), true, &s) || READ_MAP(c, in, &i.md))
                return -1;
        i.consistency = known(in->consistency, STATE_CONSISTENCY_STRONG);
        if (state_get(c, s, &i, &v))
                return -1;
        out->data = pb_bytes(v.data);
        if (!text(c, v.etag, &out->etag) ||
            !write_map(c, &v.md, &dapr__proto__runtime__v1__get_state_response__metadata_entry__descriptor, (void ***)&out->metadata,
                       &out->n_metadata))
                return no_memory(c);
        return 0;
}

static int write_bulk_item(struct call *c, const struct state_value *v, Dapr__Proto__Runtime__V1__BulkStateItem **ret)
{
        Dapr__Proto__Runtime__V1__BulkStateItem *m = arena_new(c->arena, Dapr__Proto__Runtime__V1__BulkStateItem);
        if (!m)
                return no_memory(c);
        dapr__proto__runtime__v1__bulk_state_item__init(m);
        m->data = pb_bytes(v->data);
        *ret = m;
        if (!text(c, state_key_original(v->key), &m->key) || !text(c, v->etag, &m->etag) || !text(c, v->error, &m->error) ||
            !write_map(c, &v->md, &dapr__proto__runtime__v1__bulk_state_item__metadata_entry__descriptor, (void ***)&m->metadata,
                       &m->n_metadata))
                return no_memory(c);
        return 0;
}

static int get_bulk_state(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const Dapr__Proto__Runtime__V1__GetBulkStateRequest *in = (const void *)req;
        Dapr__Proto__Runtime__V1__GetBulkStateResponse *out = (void *)resp;
        struct rpc_mdlist md = {0};
        struct state_store *s;
        struct state_value *v;
        size_t n;
        if (state_store_find(c, str_of(in->store_name), true, &s))
                return -1;
        if (!in->n_keys)
                return 0;
        struct state_item *items = arena_zalloc(c->arena, in->n_keys * sizeof *items);
        if (!items)
                return no_memory(c);
        if (READ_MAP(c, in, &md))
                return -1;
        for (size_t i = 0; i < in->n_keys; i++) {
                items[i].key = str_of(in->keys[i]);
                items[i].md = md;
        }
        if (state_bulk_get(c, s, items, in->n_keys, in->parallelism, &v, &n))
                return -1;
        out->items = arena_alloc(c->arena, n * sizeof *out->items);
        if (!out->items)
                return no_memory(c);
        for (; out->n_items < n; out->n_items++)
                if (write_bulk_item(c, &v[out->n_items], &out->items[out->n_items]))
                        return -1;
        return 0;
}

static int save_state(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const Dapr__Proto__Runtime__V1__SaveStateRequest *in = (const void *)req;
        struct state_store *s;
        if (state_store_find(c, str_of(in->store_name), true, &s))
                return -1;
        struct state_item *items = in->n_states ? read_items(c, in->states, in->n_states) : NULL;
        if (!items)
                return in->n_states ? -1 : 0;
        for (size_t i = 0; i < in->n_states; i++)
                if (read_json_value(c, &items[i]))
                        return -1;
        return state_save(c, s, items, in->n_states);
}

static int delete_state(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const Dapr__Proto__Runtime__V1__DeleteStateRequest *in = (const void *)req;
        struct state_item i = {.key = str_of(in->key)};
        struct state_store *s;
        if (state_store_find(c, str_of(in->store_name), true, &s) || READ_MAP(c, in, &i.md))
                return -1;
        read_options(in->etag, in->options, &i);
        return state_delete(c, s, &i);
}

static int delete_bulk_state(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const Dapr__Proto__Runtime__V1__DeleteBulkStateRequest *in = (const void *)req;
        struct state_store *s;
        if (state_store_find(c, str_of(in->store_name), true, &s))
                return -1;
        struct state_item *items = read_items(c, in->states, in->n_states);
        return items ? state_bulk_delete(c, s, items, in->n_states) : -1;
}

static int read_operation(struct call *c, struct state_store *s, const Dapr__Proto__Runtime__V1__TransactionalStateOperation *m,
                          struct state_item *i)
{
        static const item_msg none = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT;
        if (read_item(c, m->request ? m->request : &none, i) || state_item_key(c, s, i))
                return -1;
        i->is_delete = !strcmp(m->operationtype, "delete");
        if (!i->is_delete && strcmp(m->operationtype, "upsert"))
                return call_fail(c, ERR_NOT_SUPPORTED_STATE_OPERATION, m->operationtype);
        return 0;
}

static int execute_state_transaction(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const Dapr__Proto__Runtime__V1__ExecuteStateTransactionRequest *in = (const void *)req;
        struct rpc_mdlist md = {0};
        struct state_store *s;
        if (state_store_find(c, str_of(in->storename), true, &s) || state_can_transact(c, s) || READ_MAP(c, in, &md))
                return -1;
        struct state_item *items = arena_alloc(c->arena, in->n_operations * sizeof *items);
        if (!items)
                return no_memory(c);
        for (size_t i = 0; i < in->n_operations; i++)
                if (read_operation(c, s, in->operations[i], &items[i]))
                        return -1;
        return state_transact(c, s, items, in->n_operations, &md);
}

static int query_state(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        return state_query(c, (const void *)req, (void *)resp);
}

#define ROW(name, group, in, out, fn) {name, group, &dapr__proto__runtime__v1__##in##__descriptor, out, fn, NULL}
#define EMPTY &google__protobuf__empty__descriptor
const struct grpc_route state_grpc_routes[STATE_GRPC_ROUTES] = {
        ROW("GetState", "state.v1", get_state_request, &dapr__proto__runtime__v1__get_state_response__descriptor, get_state),
        ROW("GetBulkState", "state.v1", get_bulk_state_request, &dapr__proto__runtime__v1__get_bulk_state_response__descriptor,
            get_bulk_state),
        ROW("SaveState", "state.v1", save_state_request, EMPTY, save_state),
        ROW("DeleteState", "state.v1", delete_state_request, EMPTY, delete_state),
        ROW("DeleteBulkState", "state.v1", delete_bulk_state_request, EMPTY, delete_bulk_state),
        ROW("ExecuteStateTransaction", "state.v1", execute_state_transaction_request, EMPTY, execute_state_transaction),
        ROW("QueryStateAlpha1", "state.v1alpha1", query_state_request, &dapr__proto__runtime__v1__query_state_response__descriptor,
            query_state),
};
