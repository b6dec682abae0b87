/*
 * The operations of the state API on any store. Order of work as the reference: keys, encryption, the call, metrics, decryption.
 * One item goes by Get, Set or Delete, several by the bulk forms; a store without BulkGet gets one Get a key, some at a time.
 */
#include <errno.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/blocks/outbox.h"
#include "kernel/blocks/state.h"
#include "sdk/base/json.h"

#define STORE "/dapr.proto.components.v1.StateStore/"
#define NO_NULL "an attempt to set a nil value was received, try to use Delete instead"

enum { GETS_AT_ONCE_MAX = 64 };

int state_ask_once(struct call *c, struct state_store *s, enum state_method m, struct str req, struct str *resp, struct state_failure *f)
{
        static const char *const paths[] = {
                [STATE_GET] = STORE "Get", [STATE_SET] = STORE "Set", [STATE_DELETE] = STORE "Delete", [STATE_BULK_GET] = STORE "BulkGet",
                [STATE_BULK_SET] = STORE "BulkSet", [STATE_BULK_DELETE] = STORE "BulkDelete",
                [STATE_TRANSACT] = "/dapr.proto.components.v1.TransactionalStateStore/Transact",
        };
        struct rpc_status st = {0};
        if (!req.p) {
                state_failure_text(f, "the request needs more memory than one request may take");
                return -1;
        }
        if (component_call_bytes(s->component, c->arena, paths[m], req, resp, &st) == 0)
                return 0;
        state_failure_read(c, s, m, &st, f);
        return -1;
}

static int ask(struct call *c, struct state_store *s, enum state_method m, struct str req, struct str *resp, struct state_failure *f)
{
        return state_ask(c, s, m, req, NULL, 0, resp, f);
}

static void bad_reply(struct state_failure *f, int r)
{
        state_failure_text(f, r == -ENOMEM ? "the reply needs more memory than one request may take" : "the store's reply is not a valid message");
}

/* ---- reading ---- */

/* Decrypts in place. NULL, or why it failed. */
static const char *decrypt(struct call *c, const struct state_store *s, struct state_value *v)
{
        const char *why = NULL;
        int r = s->enc.primary ? encryption_decrypt(&s->enc, c->arena, s->name, v->data, &v->data, &why) : 0;
        return r ? (why ? why : "out of memory") : NULL;
}

int state_get(struct call *c, struct state_store *s, struct state_item *i, struct state_value *out)
{
        struct state_failure f;
        struct str resp;
        if (state_item_key(c, s, i))
                return -1;
        double since = state_now();
        int r = ask(c, s, STATE_GET, state_pack_get_request(c->arena, i), &resp, &f);
        if (!r && (r = state_read_get_response(c->arena, resp, out)))
                bad_reply(&f, r);
        state_observe(c, s, "get", !r, since);
        if (r)
                return state_fail_get(c, s, i->key, &f);
        const char *why = decrypt(c, s, out);
        if (why) {
                state_failure_text(&f, why);
                return state_fail_get(c, s, i->key, &f);
        }
        return 0;
}

struct gets { /* one Get a key, for stores without BulkGet */
        struct call *c;
        struct state_store *s;
        const struct state_item *items;
        struct state_value *values;
        size_t n, next;
        double deadline;
};

static void gets_fiber(void *arg)
{
        struct gets *g = arg;
        fiber_set_deadline(g->deadline);
        while (g->next < g->n && !fiber_is_cancelled()) {
                size_t at = g->next++;
                struct state_failure f;
                struct str resp;
                int r = state_ask_once(g->c, g->s, STATE_GET, state_pack_get_request(g->c->arena, &g->items[at]), &resp, &f);
                if (!r && (r = state_read_get_response(g->c->arena, resp, &g->values[at])))
                        bad_reply(&f, r);
                if (r)
                        g->values[at] = (struct state_value){.error = str_of(f.text)};
                g->values[at].key = g->items[at].stored_key;
        }
}

static int get_one_by_one(struct call *c, struct state_store *s, const struct state_item *items, size_t n, int64_t parallelism,
                          struct state_value **ret)
{
        struct gets g = {.c = c, .s = s, .items = items, .n = n, .values = arena_zalloc(c->arena, n * sizeof *g.values),
                         .deadline = fiber_deadline()};
        struct scope scope = SCOPE_INIT(scope);
        int64_t at_once = parallelism <= 0 || parallelism > GETS_AT_ONCE_MAX ? GETS_AT_ONCE_MAX : parallelism;
        if (!g.values)
                return -ENOMEM;
        for (int64_t i = 1; i < at_once && (size_t)i < n; i++)
                if (fiber_go(&scope, "state-get", gets_fiber, &g))
                        break;
        gets_fiber(&g);
        if (fiber_is_cancelled())
                scope_cancel(&scope);
        scope_join(&scope);
        *ret = g.values;
        return 0;
}

int state_bulk_get(struct call *c, struct state_store *s, struct state_item *items, size_t n, int64_t parallelism,
                   struct state_value **ret, size_t *ret_n)
{
        struct state_failure f;
        struct str resp;
        for (size_t i = 0; i < n; i++)
                if (state_item_key(c, s, &items[i]))
                        return -1;
        double since = state_now();
        int r = ask(c, s, STATE_BULK_GET, state_pack_bulk(c->arena, STATE_BULK_GET, items, n, parallelism), &resp, &f);
        if (!r) {
                r = state_read_bulk_response(c->arena, resp, ret, ret_n);
        } else if (f.grpc_code == RPC_UNIMPLEMENTED) {
                r = get_one_by_one(c, s, items, n, parallelism, ret);
                *ret_n = n;
        }
        if (r < -1)
                bad_reply(&f, r);
        state_observe(c, s, "bulk_get", !r, since);
        if (r)
                return state_fail_bulk_get(c, s, &f);
        for (size_t i = 0; s->enc.primary && i < *ret_n; i++) {
                struct state_value *v = &(*ret)[i];
                const char *why = v->error.n || !v->data.n ? NULL : decrypt(c, s, v);
                if (why)
                        v->error = str_of(why);
                if (v->error.n)
                        v->data = STR("");
        }
        return 0;
}

/* ---- writing ---- */

/* The bytes that HTTP encrypts of a JSON value: a string's own text, all else as JSON. */
static struct str plain_text(struct call *c, const struct state_item *i)
{
        struct json_reader r;
        struct str text;
        json_read_init(&r, i->value);
        return c->door == DOOR_HTTP && i->is_json && json_read_string(&r, c->arena, &text) ? text : i->value;
}

/* NULL, or why a value cannot be encrypted. */
static const char *encrypt(struct call *c, const struct state_store *s, struct state_item *i)
{
        if (!s->enc.primary || i->is_delete)
                return NULL;
        switch (encryption_encrypt(&s->enc, c->arena, plain_text(c, i), &i->value)) {
        case 0:
                i->is_json = i->is_null = false;
                return NULL;
        case -EIO:
                return "no random numbers from the system";
        default:
                return "out of memory";
        }
}

/* What the reference's stores check before they write, and how our plugins learn that a value is JSON. NULL, or the error. */
static const char *check_write(const struct state_store *s, struct state_item *i)
{
        if (s->foreign)
                return i->is_null && !i->is_delete ? NO_NULL : NULL;
        if (i->is_json && !i->content_type.n)
                i->content_type = STR("application/json");
        return i->bad_option;
}

static const char *check_writes(const struct state_store *s, struct state_item *items, size_t n)
{
        const char *why = NULL;
        for (size_t i = 0; !why && i < n; i++)
                why = check_write(s, &items[i]);
        return why;
}

static int key_missing(struct call *c)
{
        return c->door == DOOR_HTTP ? call_fail(c, ERR_MALFORMED_REQUEST_TEXT, "\"key\" is a required field")
                                    : call_fail(c, ERR_STATE_KEY_EMPTY);
}

int state_save(struct call *c, struct state_store *s, struct state_item *items, size_t n)
{
        struct state_failure f;
        struct str resp;
        for (size_t i = 0; i < n; i++) {
                if (!items[i].key.n)
                        return key_missing(c);
                if (state_item_key(c, s, &items[i]))
                        return -1;
                const char *why = encrypt(c, s, &items[i]);
                if (why) {
                        state_failure_text(&f, why);
                        return state_fail_save(c, s, &f);
                }
        }
        double since = state_now();
        const char *why = check_writes(s, items, n);
        int r = -1;
        if (why)
                state_failure_text(&f, why);
        else if (n == 1)
                r = ask(c, s, STATE_SET, state_pack_set_request(c->arena, items), &resp, &f);
        else
                r = state_ask(c, s, STATE_BULK_SET, state_pack_bulk(c->arena, STATE_BULK_SET, items, n, 0), items, n, &resp, &f);
        state_observe(c, s, "set", !r, since);
        if (r && n > 1)
                state_failure_of_bulk(c, s, &f);
        return r ? state_fail_save(c, s, &f) : 0;
}

int state_delete(struct call *c, struct state_store *s, struct state_item *i)
{
        struct state_failure f;
        struct str resp;
        i->is_delete = true;
        if (state_item_key(c, s, i))
                return -1;
        double since = state_now();
        const char *why = check_writes(s, i, 1);
        int r = -1;
        if (why)
                state_failure_text(&f, why);
        else
                r = ask(c, s, STATE_DELETE, state_pack_delete_request(c->arena, i), &resp, &f);
        state_observe(c, s, "delete", !r, since);
        return r ? state_fail_delete(c, i->key, &f) : 0;
}

int state_bulk_delete(struct call *c, struct state_store *s, struct state_item *items, size_t n)
{
        struct state_failure f;
        struct str resp;
        for (size_t i = 0; i < n; i++) {
                items[i].is_delete = true;
                if (state_item_key(c, s, &items[i]))
                        return -1;
        }
        double since = state_now();
        const char *why = check_writes(s, items, n);
        int r = -1;
        if (why)
                state_failure_text(&f, why);
        else if (n == 1)
                r = ask(c, s, STATE_DELETE, state_pack_delete_request(c->arena, items), &resp, &f);
        else
                r = n ? state_ask(c, s, STATE_BULK_DELETE, state_pack_bulk(c->arena, STATE_BULK_DELETE, items, n, 0), items, n, &resp, &f) : 0;
        state_observe(c, s, "bulk_delete", !r, since);
        if (r && n > 1)
                state_failure_of_bulk(c, s, &f);
        return r ? state_fail_bulk_delete(c, s, &f) : 0;
}

/* ---- transactions ---- */

int state_can_transact(struct call *c, struct state_store *s)
{
        if (component_features(s->component) & FEATURE_TRANSACTIONAL)
                return 0;
        call_fail(c, ERR_STATE_TRANSACTIONS_NOT_SUPPORTED, s->name);
        struct error_details *d = call_details(c);
        d->resource_type = "state";
        d->resource_name = s->name;
        d->help_url = "https://docs.dapr.io/reference/components-reference/supported-state-stores/";
        d->help_description = "Check the list of state stores and the features they support";
        return -1;
}

/* Asked once a store; an error counts as no limit. Parks the first time. */
static int64_t max_ops(struct call *c, struct state_store *s)
{
        Dapr__Proto__Components__V1__MultiMaxSizeRequest req = DAPR__PROTO__COMPONENTS__V1__MULTI_MAX_SIZE_REQUEST__INIT;
        Dapr__Proto__Components__V1__MultiMaxSizeResponse *resp = NULL;
        struct rpc_status st = {0};
        if (s->max_ops != STATE_MAX_OPS_UNKNOWN)
                return s->max_ops;
        if (!component_serves(s->component, "dapr.proto.components.v1.TransactionalStoreMultiMaxSize"))
                return s->max_ops = -1;
        int code = component_call(s->component, c->arena, "/dapr.proto.components.v1.TransactionalStoreMultiMaxSize/MultiMaxSize",
                                  &req.base, &dapr__proto__components__v1__multi_max_size_response__descriptor, &resp, &st);
        return s->max_ops = code || !resp ? -1 : resp->max_size;
}

static int too_many_ops(struct call *c, const struct state_store *s, size_t n, int64_t max)
{
        const char *have = arena_printf(c->arena, "%zu", n), *limit = arena_printf(c->arena, "%lld", (long long)max);
        call_fail(c, ERR_STATE_TOO_MANY_TRANSACTIONS, (int)n, (int)max);
        struct error_details *d = call_details(c);
        d->resource_type = "state";
        d->resource_name = s->name;
        d->info[d->n_info].key = "currentOpsTransaction";
        d->info[d->n_info++].value = have;
        d->info[d->n_info].key = "maxOpsPerTransaction";
        d->info[d->n_info++].value = limit;
        return -1;
}

int state_transact(struct call *c, struct state_store *s, struct state_item *items, size_t n, const struct rpc_mdlist *md)
{
        struct state_failure f;
        struct str resp;
        int64_t max = max_ops(c, s);
        if (max > 0 && n > (size_t)max)
                return too_many_ops(c, s, n, max);
        for (size_t i = 0; i < n; i++) {
                const char *why = encrypt(c, s, &items[i]);
                if (!why)
                        continue;
                state_failure_text(&f, why);
                return c->door == DOOR_HTTP ? call_fail_code(c, ERR_STATE_SAVE, 400, 0, s->name, why) : state_fail_transaction(c, &f);
        }
        if (outbox_enabled(c->k, s->name) && outbox_publish(c, s->name, &items, &n))
                return -1;
        double since = state_now();
        const char *why = check_writes(s, items, n);
        int r = -1;
        if (why)
                state_failure_text(&f, why);
        else
                r = n ? ask(c, s, STATE_TRANSACT, state_pack_transaction(c->arena, items, n, md), &resp, &f) : 0;
        state_observe(c, s, "transaction", !r, since);
        return r ? state_fail_transaction(c, &f) : 0;
}
