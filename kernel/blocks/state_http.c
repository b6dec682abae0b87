/* The HTTP door of the state API: paths, queries, headers and JSON bodies to items, outcomes to replies. */
#include "dapr/proto/runtime/v1/state.pb-c.h"
#include "kernel/blocks/state_json.h"
#include "kernel/blocks/state_key.h"

enum { ITEMS_FIRST = 8 };

static void out_of_memory(struct call *c)
{
        call_fail(c, ERR_UNTYPED, "the request needs more memory than one request may take");
        reply_error(c);
}

static bool find_store(struct call *c, struct state_store **ret)
{
        if (!state_store_find(c, route_param(c, "storeName"), false, ret))
                return true;
        reply_error(c);
        return false;
}

static bool query_metadata(struct call *c, struct rpc_mdlist *md)
{
        if (!call_query_metadata(c, md))
                return true;
        out_of_memory(c);
        return false;
}

/* Metadata of the query over that of the body. */
static void merge(struct call *c, struct rpc_mdlist *md, const struct rpc_mdlist *query)
{
        if (!md->n)
                *md = *query;
        else
                for (size_t i = 0; i < query->n; i++)
                        state_metadata_set(c->arena, md, query->v[i].key, query->v[i].value);
}

static void add_item(struct state_item **items, size_t *n, size_t *cap, struct arena *a)
{
        if (*n == *cap) {
                size_t more = *cap ? *cap * 2 : ITEMS_FIRST;
                *items = arena_grow(a, *items, *cap * sizeof **items, more * sizeof **items);
                *cap = *items ? more : 0;
        }
        if (*items)
                (*items)[*n] = (struct state_item){0};
        *n += *items != NULL;
}

/* The body as text of a JSON error, answered as malformed. False when there is one. */
static bool body_is_good(struct call *c, struct state_json *j, enum error_id id)
{
        const char *why = state_json_error(j);
        if (!why)
                return true;
        call_fail(c, id, why);
        reply_error(c);
        return false;
}

/* ---- one key ---- */

static void get_state(struct call *c)
{
        struct state_store *s;
        struct state_item i = {0};
        struct state_value v;
        if (!find_store(c, &s) || !query_metadata(c, &i.md))
                return;
        i.key = route_param(c, "key");
        state_item_consistency(c->arena, &i, call_query(c, "consistency"));
        if (state_get(c, s, &i, &v)) {
                reply_error(c);
                return;
        }
        if (!v.found) {
                reply_empty(c);
                return;
        }
        struct http_header etag = {STR("Etag"), v.etag};
        c->md_resp = v.md;
        reply_bytes(c, 200, "application/json", v.data, &etag, v.has_etag);
}

static void delete_state(struct call *c)
{
        struct state_store *s;
        struct state_item i = {0};
        if (!find_store(c, &s) || !query_metadata(c, &i.md))
                return;
        i.key = route_param(c, "key");
        state_item_consistency(c->arena, &i, call_query(c, "consistency"));
        state_item_concurrency(c->arena, &i, call_query(c, "concurrency"));
        i.etag = http_headers_get(&c->http->headers, "If-Match");
        i.has_etag = i.etag.p != NULL;
        if (state_delete(c, s, &i))
                reply_error(c);
        else
                reply_empty(c);
}

/* ---- many keys ---- */

static void save_state(struct call *c)
{
        struct state_store *s;
        struct state_json j;
        struct str body;
        struct rpc_mdlist query = {0};
        struct state_item *items = NULL;
        size_t n = 0, cap = 0;
        if (!find_store(c, &s) || call_body(c, &body))
                return;
        state_json_begin(&j, c->arena, body);
        if (state_json_array(&j, "", "[]state.SetRequest"))
                while (json_next_element(&j.r)) {
                        add_item(&items, &n, &cap, c->arena);
                        if (!items)
                                break;
                        state_json_item(&j, &items[n - 1]);
                }
        if (!body_is_good(c, &j, ERR_MALFORMED_REQUEST_TEXT) || !query_metadata(c, &query))
                return;
        for (size_t i = 0; i < n; i++)
                merge(c, &items[i].md, &query);
        if (n && state_save(c, s, items, n))
                reply_error(c);
        else
                reply_empty(c);
}

struct bulk_request {
        struct state_item *items;
        size_t n;
        int64_t parallelism;
        struct rpc_mdlist md;
};

static void read_keys(struct state_json *j, struct bulk_request *b)
{
        size_t cap = 0;
        b->items = NULL;
        b->n = 0;
        if (!state_json_array(j, "BulkGetRequest.keys", "[]string"))
                return;
        while (json_next_element(&j->r)) {
                add_item(&b->items, &b->n, &cap, j->a);
                if (!b->items)
                        return;
                state_json_string(j, "BulkGetRequest.keys", &b->items[b->n - 1].key);
        }
}

static bool read_bulk_request(struct call *c, struct bulk_request *b)
{
        struct state_json j;
        struct str body, name;
        struct rpc_mdlist query = {0};
        *b = (struct bulk_request){0};
        if (call_body(c, &body))
                return false;
        state_json_begin(&j, c->arena, body);
        if (state_json_object(&j, "", "http.BulkGetRequest"))
                while (json_next_member(&j.r, j.a, &name)) {
                        if (str_ieq(name, STR("keys")))
                                read_keys(&j, b);
                        else if (str_ieq(name, STR("parallelism")))
                                state_json_int(&j, "BulkGetRequest.parallelism", &b->parallelism);
                        else if (str_ieq(name, STR("metadata")))
                                state_json_map(&j, "BulkGetRequest.metadata", &b->md);
                        else
                                json_skip(&j.r);
                }
        if (!body_is_good(c, &j, ERR_MALFORMED_REQUEST) || !query_metadata(c, &query))
                return false;
        merge(c, &b->md, &query);
        for (size_t i = 0; i < b->n; i++)
                b->items[i].md = b->md;
        return true;
}

static void write_metadata(struct json_writer *w, const struct rpc_mdlist *md)
{
        if (!md->n)
                return;
        json_key(w, STR("metadata"));
        json_object_begin(w);
        for (size_t i = 0; i < md->n; i++) {
                json_key(w, md->v[i].key);
                json_string(w, md->v[i].value);
        }
        json_object_end(w);
}

/* Data that is JSON as it is but for white space, all else as a JSON string. */
static void write_data(struct call *c, struct json_writer *w, struct str data)
{
        json_key(w, STR("data"));
        struct str json = json_valid(data) ? state_json_compact(c->arena, data) : STR_NULL;
        if (json.p)
                json_raw(w, json);
        else
                json_string(w, data);
}

static void write_value(struct call *c, struct json_writer *w, const struct state_value *v)
{
        json_object_begin(w);
        json_kv(w, "key", state_key_original(v->key));
        if (v->error.n) {
                json_kv(w, "error", v->error);
        } else {
                if (v->data.n)
                        write_data(c, w, v->data);
                if (v->has_etag)
                        json_kv(w, "etag", v->etag);
                write_metadata(w, &v->md);
        }
        json_object_end(w);
}

/* Sends what was written, with the newline that ends the reference's JSON replies. */
static void reply_written(struct call *c, struct buf *b)
{
        buf_addc(b, '\n');
        if (b->failed)
                out_of_memory(c);
        else
                reply_json(c, 200, buf_str(b));
        buf_fini(b);
}

static void get_bulk_state(struct call *c)
{
        struct state_store *s;
        struct bulk_request b;
        struct state_value *v = NULL;
        struct buf out = {0};
        struct json_writer w;
        size_t n = 0;
        if (!find_store(c, &s) || !read_bulk_request(c, &b))
                return;
        if (b.n && state_bulk_get(c, s, b.items, b.n, b.parallelism, &v, &n)) {
                reply_error(c);
                return;
        }
        json_write_init(&w, &out);
        json_array_begin(&w);
        for (size_t i = 0; i < n && i < b.n; i++)
                write_value(c, &w, &v[i]);
        json_array_end(&w);
        reply_written(c, &out);
}

/* ---- transactions ---- */

/* A request of another type than an object, in the words of the reference's decoder of these. */
static void check_request(struct state_json *j, enum json_type t)
{
        const char *kind = t == JSON_STRING ? "string" : t == JSON_NUMBER ? "float64" : t == JSON_ARRAY ? "slice"
                           : t == JSON_TRUE || t == JSON_FALSE ? "bool" : NULL;
        if (kind && !j->error)
                j->error = arena_printf(j->a, "'' expected a map, got '%s'", kind);
}

/* One {operation, request}; the request is read once the operation is known, wherever it stands. */
static void read_operation(struct state_json *j, struct state_item *i, struct str *operation)
{
        struct str name, request = STR_NULL;
        *operation = STR("");
        if (!state_json_object(j, "stateTransactionRequestBody.operations", "http.stateTransactionRequestBodyOperation"))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                if (str_ieq(name, STR("operation")))
                        state_json_string(j, "stateTransactionRequestBodyOperation.operations.operation", operation);
                else if (str_ieq(name, STR("request")))
                        json_read_raw(&j->r, &request);
                else
                        json_skip(&j->r);
        }
        struct state_json inner;
        state_json_begin(&inner, j->a, request.p ? request : STR("null"));
        check_request(j, json_peek(&inner.r));
        state_json_item(&inner, i);
        i->is_delete = str_eqz(*operation, "delete");
        if (!j->error)
                j->error = state_json_error(&inner);
}

struct transaction {
        struct state_item *items;
        struct str *operations; /* names, beside the items */
        size_t n;
        struct rpc_mdlist md;
};

static void read_operations(struct state_json *j, struct transaction *t)
{
        size_t cap = 0, had = 0;
        t->n = 0;
        t->items = NULL;
        t->operations = NULL;
        if (!state_json_array(j, "stateTransactionRequestBody.operations", "[]http.stateTransactionRequestBodyOperation"))
                return;
        while (json_next_element(&j->r)) {
                add_item(&t->items, &t->n, &cap, j->a);
                if (cap != had)
                        t->operations = arena_grow(j->a, t->operations, had * sizeof(struct str), cap * sizeof(struct str));
                had = cap;
                if (!t->items || !t->operations) {
                        t->n = 0;
                        return;
                }
                read_operation(j, &t->items[t->n - 1], &t->operations[t->n - 1]);
        }
}

static bool read_transaction(struct call *c, struct transaction *t)
{
        struct state_json j;
        struct str body, name;
        *t = (struct transaction){0};
        if (call_body(c, &body))
                return false;
        state_json_begin(&j, c->arena, body);
        if (state_json_object(&j, "", "http.stateTransactionRequestBody"))
                while (json_next_member(&j.r, j.a, &name)) {
                        if (str_ieq(name, STR("operations")))
                                read_operations(&j, t);
                        else if (str_ieq(name, STR("metadata")))
                                state_json_map(&j, "stateTransactionRequestBody.metadata", &t->md);
                        else
                                json_skip(&j.r);
                }
        return body_is_good(c, &j, ERR_MALFORMED_REQUEST);
}

static void execute_state_transaction(struct call *c)
{
        struct state_store *s;
        struct transaction t;
        struct rpc_mdlist query = {0};
        int r = 0;
        if (!find_store(c, &s))
                return;
        if (state_can_transact(c, s)) {
                reply_error(c);
                return;
        }
        if (!read_transaction(c, &t) || !query_metadata(c, &query))
                return;
        merge(c, &t.md, &query);
        for (size_t i = 0; !r && i < t.n; i++) {
                merge(c, &t.items[i].md, &query);
                if (!t.items[i].is_delete && !str_eqz(t.operations[i], "upsert"))
                        r = call_fail(c, ERR_NOT_SUPPORTED_STATE_OPERATION, arena_strdup(c->arena, t.operations[i]));
                else
                        r = state_item_key(c, s, &t.items[i]);
        }
        if (!r && t.n)
                r = state_transact(c, s, t.items, t.n, &t.md);
        if (r)
                reply_error(c);
        else
                reply_empty(c);
}

/* ---- query ---- */

static void write_row(struct call *c, struct json_writer *w, const Dapr__Proto__Runtime__V1__QueryStateItem *row)
{
        json_object_begin(w);
        json_kv(w, "key", str_of(row->key));
        if (row->data.len) {
                write_data(c, w, pb_str(row->data));
        } else {
                json_key(w, STR("data"));
                json_null(w);
        }
        json_kv_nonempty(w, "etag", str_of(row->etag));
        json_kv_nonempty(w, "error", str_of(row->error));
        json_object_end(w);
}

static void query_state(struct call *c)
{
        Dapr__Proto__Runtime__V1__QueryStateRequest in = DAPR__PROTO__RUNTIME__V1__QUERY_STATE_REQUEST__INIT;
        Dapr__Proto__Runtime__V1__QueryStateResponse res = DAPR__PROTO__RUNTIME__V1__QUERY_STATE_RESPONSE__INIT;
        struct rpc_mdlist md = {0};
        struct str body;
        struct buf out = {0};
        struct json_writer w;
        if (!query_metadata(c, &md) || call_body(c, &body))
                return;
        in.store_name = arena_strdup(c->arena, route_param(c, "storeName"));
        in.query = arena_strdup(c->arena, body);
        if (!in.store_name || !in.query || state_query_metadata(c, &md, &in)) {
                out_of_memory(c);
                return;
        }
        if (state_query(c, &in, &res)) {
                reply_error(c);
                return;
        }
        if (!res.n_results) {
                reply_empty(c);
                return;
        }
        json_write_init(&w, &out);
        json_object_begin(&w);
        json_key(&w, STR("results"));
        json_array_begin(&w);
        for (size_t i = 0; i < res.n_results; i++)
                write_row(c, &w, res.results[i]);
        json_array_end(&w);
        json_kv_nonempty(&w, "token", str_of(res.token));
        if (res.n_metadata) {
                json_key(&w, STR("metadata"));
                json_object_begin(&w);
                for (size_t i = 0; i < res.n_metadata; i++)
                        json_kv(&w, res.metadata[i]->key, str_of(res.metadata[i]->value));
                json_object_end(&w);
        }
        json_object_end(&w);
        reply_written(c, &out);
}

#define PATH "/v1.0/state/{storeName}"
const struct http_route state_http_routes[STATE_HTTP_ROUTES] = {
        {"GET", PATH "/{key}", "state", "v1", "GetState", get_state},
        {"POST,PUT", PATH, "state", "v1", "SaveState", save_state},
        {"DELETE", PATH "/{key}", "state", "v1", "DeleteState", delete_state},
        {"POST,PUT", PATH "/bulk", "state", "v1", "GetBulkState", get_bulk_state},
        {"POST,PUT", PATH "/transaction", "state", "v1", "ExecuteStateTransaction", execute_state_transaction},
        {"POST,PUT", "/v1.0-alpha1/state/{storeName}/query", "state", "v1alpha1", "QueryStateAlpha1", query_state},
};
