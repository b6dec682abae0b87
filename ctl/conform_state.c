/* The conformance kit for state stores: values, bulk, ETags, first writes, TTL, transactions, keys, and what is not declared. */
#include <stdio.h>
#include <unistd.h>

#include "ctl/conform_state.h"
#include "plugin/v1/state.pb-c.h"

#define EXPIRY_POLL_S 0.1
#define EXPIRY_MAX_S 6.0
enum { RACERS = 16, BULK = 8 };

void write_init(struct write *w, const char *key, struct str value, const char *etag, bool first, const char *ttl)
{
        dapr__proto__components__v1__set_request__init(&w->set);
        dapr__proto__components__v1__delete_request__init(&w->del);
        dapr__proto__components__v1__etag__init(&w->etag);
        dapr__proto__components__v1__state_options__init(&w->options);
        dapr__proto__components__v1__set_request__metadata_entry__init(&w->entry);
        w->etag.value = etag ? etag : "";
        w->options.concurrency = first ? DAPR__PROTO__COMPONENTS__V1__STATE_OPTIONS__STATE_CONCURRENCY__CONCURRENCY_FIRST_WRITE : 0;
        w->set.key = w->del.key = key;
        w->set.value = pb_bytes(value);
        w->set.etag = w->del.etag = etag ? &w->etag : NULL;
        w->set.options = w->del.options = first ? &w->options : NULL;
        w->entry.key = "ttlInSeconds";
        w->entry.value = ttl ? ttl : "";
        w->entries[0] = &w->entry;
        w->set.metadata = w->entries;
        w->set.n_metadata = ttl != NULL;
}

int state_set_all(struct conform *c, const char *key, struct str value, const char *etag, bool first, const char *ttl)
{
        struct write w;
        write_init(&w, key, value, etag, first, ttl);
        return conform_ask(c, STATE "Set", &w.set.base, NULL, NULL);
}

static int set(struct conform *c, const char *key, const char *value)
{
        return state_set_all(c, key, str_of(value), NULL, false, NULL);
}

int state_del(struct conform *c, const char *key, const char *etag)
{
        struct write w;
        write_init(&w, key, STR(""), etag, false, NULL);
        return conform_ask(c, STATE "Delete", &w.del.base, NULL, NULL);
}

/* The code; *ret is NULL when the key is not there. */
int state_get(struct conform *c, const char *key, got_t **ret)
{
        get_t req = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__INIT;
        req.key = key;
        return conform_ask(c, STATE "Get", &req.base, &dapr__proto__components__v1__get_response__descriptor, ret);
}

static bool is_there(const got_t *g)
{
        return g->data.len || (g->etag && *g->etag->value);
}

const char *state_expect(struct conform *c, const char *key, struct str value)
{
        got_t *g;
        if (state_get(c, key, &g))
                return conform_wrong(c, "Get");
        if (value.p == NULL)
                return is_there(g) ? conform_text(c, "Get of %s gives %s instead of nothing", key, conform_quote(c, pb_str(g->data))) : NULL;
        if (str_eq(pb_str(g->data), value))
                return NULL;
        return conform_text(c, "Get of %s gives %s instead of %s", key, is_there(g) ? conform_quote(c, pb_str(g->data)) : "nothing", conform_quote(c, value));
}

static const char *etag_of(struct conform *c, const char *key)
{
        got_t *g;
        return state_get(c, key, &g) == 0 && g->etag ? g->etag->value : "";
}

static void note_key(struct conform *c, const char *key)
{
        for (size_t i = 0; i < c->n_written; i++)
                if (strcmp(c->written[i], key) == 0)
                        return;
        if (c->n_written == c->cap_written) {
                size_t cap = c->cap_written ? c->cap_written * 2 : 64;
                const char **v = arena_grow(c->arena, c->written, c->cap_written * sizeof *v, cap * sizeof *v);
                if (!v)
                        return;
                c->written = v;
                c->cap_written = cap;
        }
        if ((key = arena_strdup(c->arena, str_of(key))))
                c->written[c->n_written++] = key;
}

/* A key of this run and check. */
const char *state_key(struct conform *c, const char *name)
{
        const char *z = arena_printf(&c->call, STATE_KEYS "%d-%s", (int)getpid(), name);
        if (z)
                note_key(c, z);
        return z ? z : "";
}

size_t conform_state_clean(struct conform *c)
{
        size_t left = 0;
        for (size_t i = 0; i < c->n_written; i++) {
                arena_reset(&c->call);
                left += state_del(c, c->written[i], NULL) != 0;
        }
        return left;
}


/* ---- values ---- */

static const char *values_come_back(struct conform *c)
{
        char binary[256];
        for (int i = 0; i < 256; i++)
                binary[i] = (char)i;
        const struct str values[] = {STR("1"), STR("true"), STR("\"text\""), STR("{\"a\":[1,2,{\"b\":null}]}"), STR("\"\xc3\xa4\xe2\x82\xac\""),
                                     str_n(binary, sizeof binary), STR("x")};
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                const char *key = state_key(c, arena_printf(&c->call, "value-%zu", i));
                TRY(state_set_all(c, key, values[i], NULL, false, NULL), "Set");
                HOLD(state_expect(c, key, values[i]));
        }
        return NULL;
}

static const char *large_values(struct conform *c)
{
        char *big = arena_alloc(&c->call, 1 << 20);
        if (!big)
                return "out of memory";
        memset(big, 'x', 1 << 20);
        TRY(state_set_all(c, state_key(c, "large"), str_n(big, 1 << 20), NULL, false, NULL), "Set of 1 MiB");
        HOLD(state_expect(c, state_key(c, "large"), str_n(big, 1 << 20)));
        return state_del(c, state_key(c, "large"), NULL) ? conform_wrong(c, "Delete") : NULL;
}

static const char *keys_of_all_kinds(struct conform *c)
{
        static const char *const names[] = {"with space", "sl/ash", "\xc3\xbcml\xc3\xa4ut", "quote'\"", "per%cent_", "semi;colon", "a||b"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                TRY(set(c, state_key(c, names[i]), names[i]), "Set");
                HOLD(state_expect(c, state_key(c, names[i]), str_of(names[i])));
                TRY(state_del(c, state_key(c, names[i]), NULL), "Delete");
        }
        return NULL;
}

static const char *missing_keys(struct conform *c)
{
        HOLD(state_expect(c, state_key(c, "missing"), STR_NULL));
        TRY(state_del(c, state_key(c, "missing"), NULL), "Delete of a key that is not there");
        return NULL;
}

static const char *writes_replace(struct conform *c)
{
        TRY(set(c, state_key(c, "again"), "a long first value"), "Set");
        TRY(set(c, state_key(c, "again"), "second"), "Set");
        HOLD(state_expect(c, state_key(c, "again"), STR("second")));
        TRY(state_del(c, state_key(c, "again"), NULL), "Delete");
        return state_expect(c, state_key(c, "again"), STR_NULL);
}

/* ---- bulk ---- */

static const char *bulk_set_get_delete(struct conform *c)
{
        struct write w[BULK];
        set_t *sets[BULK];
        delete_t *dels[BULK];
        get_t gets[BULK + 1], *get_list[BULK + 1];
        Dapr__Proto__Components__V1__BulkSetRequest bs = DAPR__PROTO__COMPONENTS__V1__BULK_SET_REQUEST__INIT;
        Dapr__Proto__Components__V1__BulkDeleteRequest bd = DAPR__PROTO__COMPONENTS__V1__BULK_DELETE_REQUEST__INIT;
        Dapr__Proto__Components__V1__BulkGetRequest bg = DAPR__PROTO__COMPONENTS__V1__BULK_GET_REQUEST__INIT;
        Dapr__Proto__Components__V1__BulkGetResponse *got;
        for (int i = 0; i <= BULK; i++) {
                const char *key = state_key(c, arena_printf(&c->call, "bulk-%d", i));
                dapr__proto__components__v1__get_request__init(&gets[i]);
                gets[i].key = key;
                get_list[i] = &gets[i];
                if (i == BULK)
                        break; /* one that is not there */
                write_init(&w[i], key, str_of(key), NULL, false, NULL);
                sets[i] = &w[i].set;
                dels[i] = &w[i].del;
        }
        bs.items = sets;
        bd.items = dels;
        bs.n_items = bd.n_items = BULK;
        bg.items = get_list;
        bg.n_items = BULK + 1;
        TRY(conform_ask(c, STATE "BulkSet", &bs.base, NULL, NULL), "BulkSet");
        int r = conform_ask(c, STATE "BulkGet", &bg.base, &dapr__proto__components__v1__bulk_get_response__descriptor, &got);
        if (r != RPC_UNIMPLEMENTED) { /* a runtime asks one by one then */
                TRY(r, "BulkGet");
                size_t hits = 0;
                for (size_t i = 0; i < got->n_items; i++) {
                        MUST(!*got->items[i]->error, conform_text(c, "BulkGet reports for a key: %s", got->items[i]->error));
                        bool right = got->items[i]->data.len && str_eqz(pb_str(got->items[i]->data), got->items[i]->key);
                        MUST(right || !got->items[i]->data.len, conform_text(c, "BulkGet of %s gives %s instead of its name", got->items[i]->key, conform_quote(c, pb_str(got->items[i]->data))));
                        hits += right;
                }
                MUST(hits == BULK, conform_text(c, "BulkGet gives %zu of %d values", hits, BULK));
        }
        HOLD(state_expect(c, gets[BULK - 1].key, str_of(gets[BULK - 1].key)));
        TRY(conform_ask(c, STATE "BulkDelete", &bd.base, NULL, NULL), "BulkDelete");
        return state_expect(c, gets[0].key, STR_NULL);
}

/* ---- ETags ---- */

static const char *etags_guard_writes(struct conform *c)
{
        const char *key = state_key(c, "etag");
        TRY(set(c, key, "1"), "Set");
        const char *first = etag_of(c, key);
        MUST(*first, "Get gives no ETag");
        TRY(state_set_all(c, key, STR("2"), first, false, NULL), "Set with the current ETag");
        const char *second = etag_of(c, key);
        MUST(*second && strcmp(first, second) != 0, "a write does not change the ETag");
        MUST(state_set_all(c, key, STR("3"), first, false, NULL), "Set with an old ETag was taken");
        HOLD(state_expect(c, key, STR("2")));
        MUST(state_del(c, key, first), "Delete with an old ETag was taken");
        HOLD(state_expect(c, key, STR("2")));
        TRY(state_del(c, key, second), "Delete with the current ETag");
        return state_expect(c, key, STR_NULL);
}

static const char *etag_errors_are_typed(struct conform *c)
{
        const char *key = state_key(c, "typed");
        TRY(set(c, key, "1"), "Set");
        const char *old = etag_of(c, key);
        TRY(set(c, key, "2"), "Set");
        int r = state_set_all(c, key, STR("3"), old, false, NULL);
        MUST(r == RPC_FAILED_PRECONDITION || r == RPC_INVALID_ARGUMENT, conform_wrong(c, "Set with an old ETag"));
        MUST(c->status.details.n && str_find(c->status.details, STR("etag")) >= 0, "the failure has no details that name the field etag");
        return state_del(c, key, NULL) ? conform_wrong(c, "Delete") : NULL;
}

static const char *first_write_wins(struct conform *c)
{
        const char *key = state_key(c, "first");
        TRY(state_set_all(c, key, STR("1"), NULL, true, NULL), "the first first-write");
        MUST(state_set_all(c, key, STR("2"), NULL, true, NULL), "a second first-write without ETag was taken");
        HOLD(state_expect(c, key, STR("1")));
        TRY(state_set_all(c, key, STR("3"), etag_of(c, key), true, NULL), "a first-write with the current ETag");
        return state_del(c, key, NULL) ? conform_wrong(c, "Delete") : NULL;
}

struct race {
        struct conform *c;
        const char *key, *etag;
        int won;
};

static void racer(void *arg)
{
        struct race *r = arg;
        struct arena a;
        struct write w;
        struct rpc_status st = {0};
        struct rpc_opts o = {.md = r->c->md, .n_md = r->c->n_md, .timeout_s = r->c->timeout_s};
        struct str resp;
        arena_init(&a, 0);
        write_init(&w, r->key, STR("x"), r->etag, false, NULL);
        r->won += rpc_unary(r->c->ch, &a, STATE "Set", pb_pack(&a, &w.set.base), &resp, &o, &st) == 0;
        arena_fini(&a);
}

static const char *one_of_many_wins(struct conform *c)
{
        struct scope s;
        struct race r = {.c = c, .key = state_key(c, "race")};
        TRY(set(c, r.key, "0"), "Set");
        r.etag = etag_of(c, r.key);
        scope_init(&s);
        for (int i = 0; i < RACERS; i++)
                fiber_go_flags(&s, "racer", FIBER_BIG, racer, &r);
        scope_join(&s);
        MUST(r.won == 1, conform_text(c, "%d of %d writers with one ETag were taken", r.won, RACERS));
        return state_del(c, r.key, NULL) ? conform_wrong(c, "Delete") : NULL;
}

/* ---- TTL ---- */

static const char *ttl_expires(struct conform *c)
{
        const char *key = state_key(c, "ttl");
        MUST(state_set_all(c, key, STR("1"), NULL, false, "soon"), "the TTL 'soon' was taken");
        TRY(state_set_all(c, key, STR("1"), NULL, false, "1"), "Set with a TTL");
        HOLD(state_expect(c, key, STR("1")));
        double end = loop_now_exact() + EXPIRY_MAX_S;
        while (state_expect(c, key, STR_NULL)) {
                MUST(loop_now_exact() < end, "an item with a TTL of 1 s is there after 6 s");
                fiber_sleep(EXPIRY_POLL_S);
        }
        TRY(state_set_all(c, key, STR("2"), NULL, false, "-1"), "Set with the TTL -1");
        HOLD(state_expect(c, key, STR("2")));
        return state_del(c, key, NULL) ? conform_wrong(c, "Delete") : NULL;
}

/* Some tell the end of an item's time with it: as a time, and no more once the item has none. */
static const char *ttl_is_told(struct conform *c)
{
        const char *key = state_key(c, "ttl-told"), *at = NULL;
        got_t *g;
        TRY(state_set_all(c, key, STR("1"), NULL, false, "1000"), "Set with a TTL");
        TRY(state_get(c, key, &g), "Get");
        for (size_t i = 0; i < g->n_metadata; i++)
                if (strcmp(g->metadata[i]->key, "ttlExpireTime") == 0)
                        at = g->metadata[i]->value;
        MUST(!at || (strlen(at) >= 20 && at[4] == '-' && at[10] == 'T'), "ttlExpireTime is no time of RFC 3339");
        TRY(state_set_all(c, key, STR("2"), NULL, false, "-1"), "Set with the TTL -1");
        TRY(state_get(c, key, &g), "Get");
        for (size_t i = 0; i < g->n_metadata; i++)
                MUST(strcmp(g->metadata[i]->key, "ttlExpireTime") != 0, "an item without a TTL (-1) tells its end");
        TRY(state_del(c, key, NULL), "Delete");
        return at ? NULL : conform_skip(c, "its items do not tell their end (ttlExpireTime)");
}

/* One item of a bulk call that fails is named, or is the call's only failure. */
static const char *bulk_with_an_old_etag(struct conform *c)
{
        const char *a = state_key(c, "bulk-etag-a"), *b = state_key(c, "bulk-etag-b");
        Dapr__Proto__Components__V1__BulkSetRequest req = DAPR__PROTO__COMPONENTS__V1__BULK_SET_REQUEST__INIT;
        struct write w[2];
        set_t *sets[] = {&w[0].set, &w[1].set};
        TRY(set(c, a, "1"), "Set");
        const char *old = etag_of(c, a);
        TRY(set(c, a, "2"), "Set");
        write_init(&w[0], a, STR("3"), old, false, NULL);
        write_init(&w[1], b, STR("new"), NULL, false, NULL);
        req.items = sets;
        req.n_items = 2;
        MUST(conform_ask(c, STATE "BulkSet", &req.base, NULL, NULL), "BulkSet with an old ETag was taken");
        HOLD(state_expect(c, a, STR("2")));
        TRY(state_del(c, a, NULL) || state_del(c, b, NULL), "Delete");
        return NULL;
}

/* ---- transactions ---- */

static int transact(struct conform *c, struct write *w, const bool *is_set, size_t n)
{
        Dapr__Proto__Components__V1__TransactionalStateRequest req = DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_REQUEST__INIT;
        Dapr__Proto__Components__V1__TransactionalStateOperation ops[8], *list[8];
        for (size_t i = 0; i < n; i++) {
                dapr__proto__components__v1__transactional_state_operation__init(&ops[i]);
                ops[i].request_case = is_set[i] ? DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_SET
                                                : DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_DELETE;
                if (is_set[i])
                        ops[i].set = &w[i].set;
                else
                        ops[i].delete_ = &w[i].del;
                list[i] = &ops[i];
        }
        req.operations = list;
        req.n_operations = n;
        return conform_ask(c, "/dapr.proto.components.v1.TransactionalStateStore/Transact", &req.base, NULL, NULL);
}

static const char *transactions_set_and_delete(struct conform *c)
{
        struct write w[3];
        const char *a = state_key(c, "tx-a"), *b = state_key(c, "tx-b"), *gone = state_key(c, "tx-missing");
        TRY(set(c, b, "old"), "Set");
        write_init(&w[0], a, STR("{\"v\":1}"), NULL, false, NULL);
        write_init(&w[1], b, STR(""), NULL, false, NULL);
        write_init(&w[2], gone, STR(""), NULL, false, NULL);
        TRY(transact(c, w, (const bool[]){true, false, false}, 3), "Transact");
        HOLD(state_expect(c, a, STR("{\"v\":1}")));
        HOLD(state_expect(c, b, STR_NULL));
        return state_del(c, a, NULL) ? conform_wrong(c, "Delete") : NULL;
}

/* Some engines refuse a key that stands twice: then none of it may have happened. */
static const char *transactions_run_in_order(struct conform *c)
{
        struct write w[2];
        const char *a = state_key(c, "tx-order");
        write_init(&w[0], a, STR("1"), NULL, false, NULL);
        write_init(&w[1], a, STR("2"), NULL, false, NULL);
        if (transact(c, w, (const bool[]){true, true}, 2)) {
                HOLD(state_expect(c, a, STR_NULL));
                return conform_skip(c, "it refuses two operations on one key");
        }
        HOLD(state_expect(c, a, STR("2")));
        return state_del(c, a, NULL) ? conform_wrong(c, "Delete") : NULL;
}

static const char *transactions_are_whole(struct conform *c)
{
        struct write w[2];
        const char *a = state_key(c, "whole-a"), *b = state_key(c, "whole-b");
        if (!conform_has(c, "ETAG"))
                return conform_skip(c, "without ETags nothing makes an operation fail");
        TRY(set(c, b, "1"), "Set");
        const char *old = etag_of(c, b);
        TRY(set(c, b, "2"), "Set");
        write_init(&w[0], a, STR("must not stay"), NULL, false, NULL);
        write_init(&w[1], b, STR("3"), old, false, NULL);
        MUST(transact(c, w, (const bool[]){true, true}, 2), "a transaction with an old ETag was taken");
        HOLD(state_expect(c, a, STR_NULL));
        HOLD(state_expect(c, b, STR("2")));
        return state_del(c, b, NULL) ? conform_wrong(c, "Delete") : NULL;
}

const struct conform_check conform_state_checks[] = {
        {"values of all kinds come back", values_come_back},
        {"values of 1 MiB", large_values},
        {"keys of all kinds", keys_of_all_kinds},
        {"keys that are not there", missing_keys},
        {"writes replace, deletes delete", writes_replace},
        {"bulk set, get, delete", bulk_set_get_delete},
        {"ETags guard writes and deletes", etags_guard_writes, "ETAG"},
        {"ETag errors are typed", etag_errors_are_typed, "ETAG"},
        {"first write wins", first_write_wins, "ETAG"},
        {"an old ETag fails in bulk, too", bulk_with_an_old_etag, "ETAG"},
        {"of 16 writers with one ETag one wins", one_of_many_wins, "ETAG"},
        {"TTL", ttl_expires, "TTL"},
        {"the end of an item's time is told", ttl_is_told, "TTL"},
        {"transactions set and delete", transactions_set_and_delete, "TRANSACTIONAL"},
        {"transactions run in order", transactions_run_in_order, "TRANSACTIONAL"},
        {"transactions are whole", transactions_are_whole, "TRANSACTIONAL"},
};
const size_t conform_state_n = sizeof conform_state_checks / sizeof *conform_state_checks;
