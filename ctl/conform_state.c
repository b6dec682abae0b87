/* The conformance kit for state stores: values, bulk, ETags, first writes, TTL, transactions, keys, and what is not declared. */
#include <stdio.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "plugin/v1/state.pb-c.h"

#define STATE "/dapr.proto.components.v1.StateStore/"
#define EXPIRY_POLL_S 0.1
#define EXPIRY_MAX_S 6.0
enum { RACERS = 16, BULK = 8 };

typedef Dapr__Proto__Components__V1__SetRequest set_t;
typedef Dapr__Proto__Components__V1__DeleteRequest delete_t;
typedef Dapr__Proto__Components__V1__GetRequest get_t;
typedef Dapr__Proto__Components__V1__GetResponse got_t;
typedef Dapr__Proto__Components__V1__Etag etag_t;
typedef Dapr__Proto__Components__V1__StateOptions options_t;

/* A write with all that it may carry, embedded so that requests can point into it. */
struct write {
        set_t set;
        delete_t del;
        etag_t etag;
        options_t options;
        Dapr__Proto__Components__V1__SetRequest__MetadataEntry entry, *entries[1];
};

static void write_init(struct write *w, const char *key, struct str value, const char *etag, bool first, const char *ttl)
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

static int set_all(struct conform *c, const char *key, struct str value, const char *etag, bool first, const char *ttl)
{
        struct write w;
        write_init(&w, key, value, etag, first, ttl);
        return conform_ask(c, STATE "Set", &w.set.base, NULL, NULL);
}

static int set(struct conform *c, const char *key, const char *value)
{
        return set_all(c, key, str_of(value), NULL, false, NULL);
}

static int del(struct conform *c, const char *key, const char *etag)
{
        struct write w;
        write_init(&w, key, STR(""), etag, false, NULL);
        return conform_ask(c, STATE "Delete", &w.del.base, NULL, NULL);
}

/* The code; *ret is NULL when the key is not there. */
static int get(struct conform *c, const char *key, got_t **ret)
{
        get_t req = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__INIT;
        req.key = key;
        return conform_ask(c, STATE "Get", &req.base, &dapr__proto__components__v1__get_response__descriptor, ret);
}

static bool is_there(const got_t *g)
{
        return g->data.len || (g->etag && *g->etag->value);
}

static const char *expect(struct conform *c, const char *key, struct str value)
{
        got_t *g;
        if (get(c, key, &g))
                return conform_wrong(c, "Get");
        if (value.p == NULL)
                return is_there(g) ? conform_text(c, "the key %s is there, with %zu bytes", key, g->data.len) : NULL;
        return str_eq(pb_str(g->data), value) ? NULL : conform_text(c, "Get gives %zu bytes other than the %zu that were set", g->data.len, value.n);
}

static const char *etag_of(struct conform *c, const char *key)
{
        got_t *g;
        return get(c, key, &g) == 0 && g->etag ? g->etag->value : "";
}

/* A key of this run and check. */
static const char *key_of(struct conform *c, const char *name)
{
        const char *z = arena_printf(&c->call, "conformance||%d-%s", (int)getpid(), name);
        return z ? z : "";
}

#define TRY(x, what) do { if (x) return conform_wrong(c, what); } while (0)
#define HOLD(x) do { const char *fault_ = (x); if (fault_) return fault_; } while (0)
#define MUST(x, text) do { if (!(x)) return (text); } while (0)

/* ---- values ---- */

static const char *values_come_back(struct conform *c)
{
        char binary[256];
        for (int i = 0; i < 256; i++)
                binary[i] = (char)i;
        const struct str values[] = {STR("1"), STR("true"), STR("\"text\""), STR("{\"a\":[1,2,{\"b\":null}]}"), STR("\"\xc3\xa4\xe2\x82\xac\""),
                                     str_n(binary, sizeof binary), STR("x")};
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                const char *key = key_of(c, arena_printf(&c->call, "value-%zu", i));
                TRY(set_all(c, key, values[i], NULL, false, NULL), "Set");
                HOLD(expect(c, key, values[i]));
        }
        return NULL;
}

static const char *large_values(struct conform *c)
{
        char *big = arena_alloc(&c->call, 1 << 20);
        if (!big)
                return "out of memory";
        memset(big, 'x', 1 << 20);
        TRY(set_all(c, key_of(c, "large"), str_n(big, 1 << 20), NULL, false, NULL), "Set of 1 MiB");
        HOLD(expect(c, key_of(c, "large"), str_n(big, 1 << 20)));
        return del(c, key_of(c, "large"), NULL) ? conform_wrong(c, "Delete") : NULL;
}

static const char *keys_of_all_kinds(struct conform *c)
{
        static const char *const names[] = {"with space", "sl/ash", "\xc3\xbcml\xc3\xa4ut", "quote'\"", "per%cent_", "semi;colon", "a||b"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                TRY(set(c, key_of(c, names[i]), names[i]), "Set");
                HOLD(expect(c, key_of(c, names[i]), str_of(names[i])));
                TRY(del(c, key_of(c, names[i]), NULL), "Delete");
        }
        return NULL;
}

static const char *missing_keys(struct conform *c)
{
        HOLD(expect(c, key_of(c, "missing"), STR_NULL));
        TRY(del(c, key_of(c, "missing"), NULL), "Delete of a key that is not there");
        return NULL;
}

static const char *writes_replace(struct conform *c)
{
        TRY(set(c, key_of(c, "again"), "a long first value"), "Set");
        TRY(set(c, key_of(c, "again"), "second"), "Set");
        HOLD(expect(c, key_of(c, "again"), STR("second")));
        TRY(del(c, key_of(c, "again"), NULL), "Delete");
        return expect(c, key_of(c, "again"), STR_NULL);
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
                const char *key = key_of(c, arena_printf(&c->call, "bulk-%d", i));
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
                        hits += got->items[i]->data.len && str_eqz(pb_str(got->items[i]->data), got->items[i]->key);
                }
                MUST(hits == BULK, conform_text(c, "BulkGet gives %zu of %d values", hits, BULK));
        }
        HOLD(expect(c, gets[BULK - 1].key, str_of(gets[BULK - 1].key)));
        TRY(conform_ask(c, STATE "BulkDelete", &bd.base, NULL, NULL), "BulkDelete");
        return expect(c, gets[0].key, STR_NULL);
}

/* ---- ETags ---- */

static const char *etags_guard_writes(struct conform *c)
{
        const char *key = key_of(c, "etag");
        TRY(set(c, key, "1"), "Set");
        const char *first = etag_of(c, key);
        MUST(*first, "Get gives no ETag");
        TRY(set_all(c, key, STR("2"), first, false, NULL), "Set with the current ETag");
        const char *second = etag_of(c, key);
        MUST(*second && strcmp(first, second) != 0, "a write does not change the ETag");
        MUST(set_all(c, key, STR("3"), first, false, NULL), "Set with an old ETag was taken");
        HOLD(expect(c, key, STR("2")));
        MUST(del(c, key, first), "Delete with an old ETag was taken");
        HOLD(expect(c, key, STR("2")));
        TRY(del(c, key, second), "Delete with the current ETag");
        return expect(c, key, STR_NULL);
}

static const char *etag_errors_are_typed(struct conform *c)
{
        const char *key = key_of(c, "typed");
        TRY(set(c, key, "1"), "Set");
        const char *old = etag_of(c, key);
        TRY(set(c, key, "2"), "Set");
        int r = set_all(c, key, STR("3"), old, false, NULL);
        MUST(r == RPC_FAILED_PRECONDITION || r == RPC_INVALID_ARGUMENT, conform_wrong(c, "Set with an old ETag"));
        MUST(c->status.details.n && str_find(c->status.details, STR("etag")) >= 0, "the failure has no details that name the field etag");
        return del(c, key, NULL) ? conform_wrong(c, "Delete") : NULL;
}

static const char *first_write_wins(struct conform *c)
{
        const char *key = key_of(c, "first");
        TRY(set_all(c, key, STR("1"), NULL, true, NULL), "the first first-write");
        MUST(set_all(c, key, STR("2"), NULL, true, NULL), "a second first-write without ETag was taken");
        HOLD(expect(c, key, STR("1")));
        TRY(set_all(c, key, STR("3"), etag_of(c, key), true, NULL), "a first-write with the current ETag");
        return del(c, key, NULL) ? conform_wrong(c, "Delete") : NULL;
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
        struct race r = {.c = c, .key = key_of(c, "race")};
        TRY(set(c, r.key, "0"), "Set");
        r.etag = etag_of(c, r.key);
        scope_init(&s);
        for (int i = 0; i < RACERS; i++)
                fiber_go_flags(&s, "racer", FIBER_BIG, racer, &r);
        scope_join(&s);
        MUST(r.won == 1, conform_text(c, "%d of %d writers with one ETag were taken", r.won, RACERS));
        return del(c, r.key, NULL) ? conform_wrong(c, "Delete") : NULL;
}

/* ---- TTL ---- */

static const char *ttl_expires(struct conform *c)
{
        const char *key = key_of(c, "ttl");
        MUST(set_all(c, key, STR("1"), NULL, false, "soon"), "the TTL 'soon' was taken");
        TRY(set_all(c, key, STR("1"), NULL, false, "1"), "Set with a TTL");
        HOLD(expect(c, key, STR("1")));
        double end = loop_now_exact() + EXPIRY_MAX_S;
        while (expect(c, key, STR_NULL)) {
                MUST(loop_now_exact() < end, "an item with a TTL of 1 s is there after 6 s");
                fiber_sleep(EXPIRY_POLL_S);
        }
        TRY(set_all(c, key, STR("2"), NULL, false, "-1"), "Set with the TTL -1");
        HOLD(expect(c, key, STR("2")));
        return del(c, key, NULL) ? conform_wrong(c, "Delete") : NULL;
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
        const char *a = key_of(c, "tx-a"), *b = key_of(c, "tx-b"), *gone = key_of(c, "tx-missing");
        TRY(set(c, b, "old"), "Set");
        write_init(&w[0], a, STR("{\"v\":1}"), NULL, false, NULL);
        write_init(&w[1], b, STR(""), NULL, false, NULL);
        write_init(&w[2], gone, STR(""), NULL, false, NULL);
        TRY(transact(c, w, (const bool[]){true, false, false}, 3), "Transact");
        HOLD(expect(c, a, STR("{\"v\":1}")));
        HOLD(expect(c, b, STR_NULL));
        return del(c, a, NULL) ? conform_wrong(c, "Delete") : NULL;
}

/* Some engines refuse a key that stands twice: then none of it may have happened. */
static const char *transactions_run_in_order(struct conform *c)
{
        struct write w[2];
        const char *a = key_of(c, "tx-order");
        write_init(&w[0], a, STR("1"), NULL, false, NULL);
        write_init(&w[1], a, STR("2"), NULL, false, NULL);
        if (transact(c, w, (const bool[]){true, true}, 2)) {
                HOLD(expect(c, a, STR_NULL));
                return conform_skip(c, "it refuses two operations on one key");
        }
        HOLD(expect(c, a, STR("2")));
        return del(c, a, NULL) ? conform_wrong(c, "Delete") : NULL;
}

static const char *transactions_are_whole(struct conform *c)
{
        struct write w[2];
        const char *a = key_of(c, "whole-a"), *b = key_of(c, "whole-b");
        if (!conform_has(c, "ETAG"))
                return conform_skip(c, "without ETags nothing makes an operation fail");
        TRY(set(c, b, "1"), "Set");
        const char *old = etag_of(c, b);
        TRY(set(c, b, "2"), "Set");
        write_init(&w[0], a, STR("must not stay"), NULL, false, NULL);
        write_init(&w[1], b, STR("3"), old, false, NULL);
        MUST(transact(c, w, (const bool[]){true, true}, 2), "a transaction with an old ETag was taken");
        HOLD(expect(c, a, STR_NULL));
        HOLD(expect(c, b, STR("2")));
        return del(c, b, NULL) ? conform_wrong(c, "Delete") : NULL;
}

/* ---- keys ---- */

static const char *keys_by_pattern(struct conform *c)
{
        Microdapr__Plugin__V1__KeysLikeRequest req = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST__INIT;
        Microdapr__Plugin__V1__KeysLikeResponse *resp;
        const char *names[] = {"like-a1", "like-a2", "like-b1", "like-a%"};
        for (int i = 0; i < 4; i++)
                TRY(set(c, key_of(c, names[i]), "1"), "Set");
        const struct { const char *pattern; size_t n; } rows[] = {{"like-a_", 3}, {"like-%", 4}, {"like-a\\%", 1}, {"like-c%", 0}};
        for (size_t i = 0; i < 4; i++) {
                req.pattern = key_of(c, rows[i].pattern);
                TRY(conform_ask(c, "/microdapr.plugin.v1.StateStoreExtra/KeysLike", &req.base, &microdapr__plugin__v1__keys_like_response__descriptor, &resp),
                    "KeysLike");
                MUST(resp->n_keys == rows[i].n, conform_text(c, "the pattern %s gives %zu keys instead of %zu", rows[i].pattern, resp->n_keys, rows[i].n));
        }
        for (int i = 0; i < 4; i++)
                TRY(del(c, key_of(c, names[i]), NULL), "Delete");
        return NULL;
}

static const char *delete_by_prefix(struct conform *c)
{
        Microdapr__Plugin__V1__DeleteWithPrefixRequest req = MICRODAPR__PLUGIN__V1__DELETE_WITH_PREFIX_REQUEST__INIT;
        Microdapr__Plugin__V1__DeleteWithPrefixResponse *resp;
        TRY(set(c, key_of(c, "prefix||a"), "1"), "Set");
        TRY(set(c, key_of(c, "prefix||b"), "1"), "Set");
        TRY(set(c, key_of(c, "prefixed"), "1"), "Set");
        req.prefix = key_of(c, "prefix");
        TRY(conform_ask(c, "/microdapr.plugin.v1.StateStoreExtra/DeleteWithPrefix", &req.base, &microdapr__plugin__v1__delete_with_prefix_response__descriptor,
                        &resp), "DeleteWithPrefix");
        HOLD(expect(c, key_of(c, "prefix||a"), STR_NULL));
        MUST(resp->count == 2, conform_text(c, "%lld items were deleted instead of 2", (long long)resp->count));
        return expect(c, key_of(c, "prefixed"), STR("1"));
}

static const char *undeclared_is_absent(struct conform *c)
{
        static const struct { const char *feature, *method; } rows[] = {
                {"TRANSACTIONAL", "/dapr.proto.components.v1.TransactionalStateStore/Transact"},
                {"QUERY_API", "/dapr.proto.components.v1.QueriableStateStore/Query"},
                {"KEYS_LIKE", "/microdapr.plugin.v1.StateStoreExtra/KeysLike"},
                {"DELETE_WITH_PREFIX", "/microdapr.plugin.v1.StateStoreExtra/DeleteWithPrefix"}};
        struct str resp;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (!conform_has(c, rows[i].feature) && conform_ask_raw(c, rows[i].method, STR("\x0a\x00"), &resp, c->timeout_s) == 0)
                        return conform_text(c, "%s is not declared, but %s answers", rows[i].feature, rows[i].method);
        return NULL;
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
        {"of 16 writers with one ETag one wins", one_of_many_wins, "ETAG"},
        {"TTL", ttl_expires, "TTL"},
        {"transactions set and delete", transactions_set_and_delete, "TRANSACTIONAL"},
        {"transactions run in order", transactions_run_in_order, "TRANSACTIONAL"},
        {"transactions are whole", transactions_are_whole, "TRANSACTIONAL"},
        {"keys by pattern", keys_by_pattern, "KEYS_LIKE"},
        {"delete by prefix", delete_by_prefix, "DELETE_WITH_PREFIX"},
        {"what is not declared is not there", undeclared_is_absent},
};
const size_t conform_state_n = sizeof conform_state_checks / sizeof *conform_state_checks;
