/*
 * Queries. The document {"filter": {…}, "sort": […], "page": {…}} is checked as the reference checks it, and its parts go to the
 * store: each member of filter as JSON in an Any, the rest as messages.
 */
#include "dapr/proto/components/v1/state.pb-c.h"
#include "dapr/proto/runtime/v1/state.pb-c.h"
#include "kernel/front/json_fault.h"
#include "kernel/blocks/state_json.h"
#include "kernel/blocks/state_key.h"
#include "kernel/policy/resiliency.h"

#define QUERY "/dapr.proto.components.v1.QueriableStateStore/Query"

typedef Dapr__Proto__Components__V1__Query query_msg;
typedef Dapr__Proto__Components__V1__QueryRequest__MetadataEntry md_entry;

enum { FILTER_DEPTH_MAX = JSON_MAX_DEPTH };

static const char *zstr(struct state_json *j, struct str s)
{
        const char *z = arena_strdup(j->a, s);
        return z ? z : "";
}

static void fault(struct state_json *j, const char *text)
{
        if (!j->error)
                j->error = text ? text : "out of memory";
}

/* ---- the filter's shape: without recursion, one level of AND/OR at a time ---- */

/* {"KEY": value}: the only member of a leaf. */
static void check_leaf(struct state_json *j, struct str op)
{
        struct str name;
        size_t n = 0;
        if (!json_enter_object(&j->r)) {
                fault(j, arena_printf(j->a, "%.*s filter must be a map", STR_FMT(op)));
                json_skip(&j->r);
                return;
        }
        while (json_next_member(&j->r, j->a, &name)) {
                if (str_eqz(op, "IN") && json_peek(&j->r) != JSON_ARRAY)
                        fault(j, "IN filter value must be an array");
                json_skip(&j->r);
                n++;
        }
        if (n != 1)
                fault(j, arena_printf(j->a, "%.*s filter must contain a single key/value pair", STR_FMT(op)));
}

static bool is_leaf(struct str op)
{
        static const char *const leaves[] = {"EQ", "NEQ", "GT", "GTE", "LT", "LTE", "IN"};
        for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++)
                if (str_eqz(op, leaves[i]))
                        return true;
        return false;
}

struct level { /* an open AND or OR */
        bool is_and;
        size_t n;
};

/* Enters {"OP": …} and handles a leaf wholly. True when an AND or OR array was entered: its end also ends the object. After a
 * fault the place in the text means nothing. */
static bool enter_unit(struct state_json *j, struct level *l)
{
        struct str op;
        if (!json_enter_object(&j->r)) {
                fault(j, "filter unit must be a map");
                json_skip(&j->r);
                return false;
        }
        if (!json_next_member(&j->r, j->a, &op)) {
                fault(j, "filter unit must have a single element");
                return false;
        }
        if (is_leaf(op)) {
                check_leaf(j, op);
        } else if (str_eqz(op, "AND") || str_eqz(op, "OR")) {
                *l = (struct level){.is_and = str_eqz(op, "AND")};
                if (json_enter_array(&j->r))
                        return true;
                fault(j, arena_printf(j->a, "%.*s filter must be an array", STR_FMT(op)));
                json_skip(&j->r);
        } else {
                fault(j, arena_printf(j->a, "unsupported filter \"%.*s\"", STR_FMT(op)));
                json_skip(&j->r);
        }
        return false;
}

/* Closes the object of a unit: nothing may follow its one member. */
static void leave_unit(struct state_json *j)
{
        struct str name;
        while (json_next_member(&j->r, j->a, &name)) {
                fault(j, "filter unit must have a single element");
                json_skip(&j->r);
        }
}

static void check_filter(struct state_json *j, struct str filter)
{
        struct state_json f;
        struct level *levels = arena_alloc(j->a, FILTER_DEPTH_MAX * sizeof *levels);
        size_t depth = 0;
        if (!levels) {
                fault(j, NULL);
                return;
        }
        state_json_begin(&f, j->a, filter);
        depth = enter_unit(&f, &levels[0]);
        if (!depth && !f.error)
                leave_unit(&f);
        while (depth && !f.r.error && !f.error) {
                if (json_next_element(&f.r)) {
                        levels[depth - 1].n++;
                        if (depth < FILTER_DEPTH_MAX && enter_unit(&f, &levels[depth]))
                                depth++;
                        else if (!f.error)
                                leave_unit(&f);
                        continue;
                }
                depth--;
                if (levels[depth].n < 2)
                        fault(&f, levels[depth].is_and ? "AND filter must contain at least two entries"
                                                       : "OR filter must contain at least two entries");
                leave_unit(&f);
        }
        if (!j->error)
                j->error = f.error ? f.error : state_json_error(&f);
}

/* ---- the document ---- */

static void add_filter(struct state_json *j, query_msg *q, struct str key, struct str value)
{
        Dapr__Proto__Components__V1__Query__FilterEntry *e = arena_new(j->a, Dapr__Proto__Components__V1__Query__FilterEntry);
        Google__Protobuf__Any *any = arena_new(j->a, Google__Protobuf__Any);
        q->filter = arena_grow(j->a, q->filter, q->n_filter * sizeof *q->filter, (q->n_filter + 1) * sizeof *q->filter);
        if (!e || !any || !q->filter) {
                fault(j, NULL);
                q->n_filter = 0;
                return;
        }
        dapr__proto__components__v1__query__filter_entry__init(e);
        google__protobuf__any__init(any);
        e->key = zstr(j, key);
        any->value = pb_bytes(value);
        e->value = any;
        q->filter[q->n_filter++] = e;
}

static void read_filter(struct state_json *j, query_msg *q)
{
        struct json_reader at = j->r;
        struct str name, value, raw;
        if (!state_json_object(j, "QueryFields.filter", "map[string]interface {}"))
                return;
        while (json_next_member(&j->r, j->a, &name) && json_read_raw(&j->r, &value))
                add_filter(j, q, name, state_json_compact(j->a, value));
        if (q->n_filter && !j->r.error && json_read_raw(&at, &raw))
                check_filter(j, raw);
}

static void read_sorting(struct state_json *j, query_msg *q)
{
        struct str name, key = STR(""), order = STR("");
        if (!state_json_object(j, "QueryFields.sort", "query.Sorting"))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                if (str_ieq(name, STR("key")))
                        state_json_string(j, "Sorting.sort.key", &key);
                else if (str_ieq(name, STR("order")))
                        state_json_string(j, "Sorting.sort.order", &order);
                else
                        json_skip(&j->r);
        }
        Dapr__Proto__Components__V1__Sorting *s = arena_new(j->a, Dapr__Proto__Components__V1__Sorting);
        q->sort = arena_grow(j->a, q->sort, q->n_sort * sizeof *q->sort, (q->n_sort + 1) * sizeof *q->sort);
        if (!s || !q->sort) {
                fault(j, NULL);
                q->n_sort = 0;
                return;
        }
        dapr__proto__components__v1__sorting__init(s);
        s->key = zstr(j, key);
        s->order = str_eqz(order, "DESC") ? DAPR__PROTO__COMPONENTS__V1__SORTING__ORDER__DESC : DAPR__PROTO__COMPONENTS__V1__SORTING__ORDER__ASC;
        q->sort[q->n_sort++] = s;
}

static void read_page(struct state_json *j, query_msg *q)
{
        struct str name, token;
        if (!state_json_object(j, "QueryFields.page", "query.Pagination"))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                if (str_ieq(name, STR("limit")))
                        state_json_int(j, "Pagination.page.limit", &q->pagination->limit);
                else if (!str_ieq(name, STR("token")))
                        json_skip(&j->r);
                else if (state_json_string(j, "Pagination.page.token", &token))
                        q->pagination->token = zstr(j, token);
        }
}

const char *state_query_read(struct arena *a, const char *text, query_msg *q)
{
        struct state_json j;
        struct str name;
        state_json_begin(&j, a, str_of(text));
        j.whole = true;
        if (state_json_object(&j, "", "query.QueryFields"))
                while (json_next_member(&j.r, j.a, &name)) {
                        if (str_ieq(name, STR("filter")))
                                read_filter(&j, q);
                        else if (str_ieq(name, STR("page")))
                                read_page(&j, q);
                        else if (!str_ieq(name, STR("sort")))
                                json_skip(&j.r);
                        else if (state_json_array(&j, "QueryFields.sort", "[]query.Sorting"))
                                while (json_next_element(&j.r))
                                        read_sorting(&j, q);
                }
        const char *why = state_json_error(&j);
        if (why || json_at_end(&j.r))
                return why;
        why = json_fault(a, str_of(text), true);
        return why ? why : "more than one JSON value";
}

/* ---- the operation ---- */

int state_query_metadata(struct call *c, const struct rpc_mdlist *md, state_query_request *in)
{
        typedef Dapr__Proto__Runtime__V1__QueryStateRequest__MetadataEntry entry_t;
        in->metadata = arena_alloc(c->arena, md->n * sizeof *in->metadata);
        for (in->n_metadata = 0; in->metadata && in->n_metadata < md->n; in->n_metadata++) {
                entry_t *e = arena_new(c->arena, entry_t);
                if (!e)
                        return -1;
                dapr__proto__runtime__v1__query_state_request__metadata_entry__init(e);
                e->key = arena_strdup(c->arena, md->v[in->n_metadata].key);
                e->value = arena_strdup(c->arena, md->v[in->n_metadata].value);
                in->metadata[in->n_metadata] = e;
                if (!e->key || !e->value)
                        return -1;
        }
        return in->metadata ? 0 : -1;
}

static int fail_text(struct call *c, const struct state_store *s, const char *text)
{
        struct state_failure f;
        state_failure_text(&f, text);
        return state_fail_query(c, s, &f);
}

static int not_supported(struct call *c, const struct state_store *s)
{
        call_fail(c, ERR_STATE_QUERY_NOT_SUPPORTED);
        struct error_details *d = call_details(c);
        d->resource_type = "state";
        d->resource_name = s->name;
        return -1;
}

static int write_rows(struct call *c, const Dapr__Proto__Components__V1__QueryResponse *r, state_query_response *out)
{
        if (!r || !r->n_items)
                return 0;
        out->results = arena_alloc(c->arena, r->n_items * sizeof *out->results);
        for (; out->results && out->n_results < r->n_items; out->n_results++) {
                const Dapr__Proto__Components__V1__QueryItem *i = r->items[out->n_results];
                Dapr__Proto__Runtime__V1__QueryStateItem *m = arena_new(c->arena, Dapr__Proto__Runtime__V1__QueryStateItem);
                if (!m)
                        return call_fail(c, ERR_UNTYPED, "out of memory");
                dapr__proto__runtime__v1__query_state_item__init(m);
                m->key = arena_strdup(c->arena, state_key_original(str_of(i->key)));
                m->data = i->data;
                m->etag = i->etag ? i->etag->value : "";
                m->error = i->error;
                out->results[out->n_results] = m;
        }
        /* the entries have one layout: key, value */
        out->metadata = (void *)r->metadata;
        out->n_metadata = r->n_metadata;
        for (size_t i = 0; i < out->n_metadata; i++)
                out->metadata[i]->base.descriptor = &dapr__proto__runtime__v1__query_state_response__metadata_entry__descriptor;
        out->token = r->token;
        return 0;
}

int state_query(struct call *c, const state_query_request *in, state_query_response *out)
{
        Dapr__Proto__Components__V1__QueryRequest req = DAPR__PROTO__COMPONENTS__V1__QUERY_REQUEST__INIT;
        Dapr__Proto__Components__V1__QueryResponse *resp = NULL;
        query_msg q = DAPR__PROTO__COMPONENTS__V1__QUERY__INIT;
        Dapr__Proto__Components__V1__Pagination page = DAPR__PROTO__COMPONENTS__V1__PAGINATION__INIT;
        struct state_store *s;
        struct rpc_status st = {0};
        if (state_store_find(c, str_of(in->store_name), true, &s))
                return -1;
        if (!s->foreign && !(component_features(s->component) & FEATURE_QUERY_API))
                return not_supported(c, s);
        if (s->enc.primary)
                return fail_text(c, s, "cannot query encrypted store");
        q.pagination = &page;
        const char *why = state_query_read(c->arena, in->query, &q);
        if (why)
                return fail_text(c, s, arena_printf(c->arena, "failed to parse JSON query body: %s", why));
        req.query = &q;
        req.metadata = arena_alloc(c->arena, in->n_metadata * sizeof *req.metadata);
        if (!req.metadata)
                return fail_text(c, s, "out of memory");
        for (size_t i = 0; i < in->n_metadata; i++) {
                md_entry *e = arena_new(c->arena, md_entry);
                if (!e)
                        return fail_text(c, s, "out of memory");
                dapr__proto__components__v1__query_request__metadata_entry__init(e);
                e->key = in->metadata[i]->key;
                e->value = in->metadata[i]->value;
                req.metadata[req.n_metadata++] = e;
        }
        double since = state_now();
        const char *policy_error;
        int code = resiliency_component_call(c->k, s->component, c->arena, QUERY, &req.base,
                                             &dapr__proto__components__v1__query_response__descriptor, &resp, &st, &policy_error);
        state_observe(c, s, "query", !code, since);
        if (policy_error)
                return fail_text(c, s, policy_error);
        if (code) {
                struct state_failure f;
                state_failure_read(c, s, STATE_QUERY, &st, &f);
                return state_fail_query(c, s, &f);
        }
        return write_rows(c, resp, out);
}
