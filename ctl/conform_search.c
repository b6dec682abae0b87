/* The conformance kit for state stores, more: queries, keys by pattern and by prefix, and what is not declared. */
#include <stdio.h>

#include "ctl/conform_state.h"
#include "google/protobuf/any.pb-c.h"
#include "plugin/v1/state.pb-c.h"

enum { PAGES_MAX = 10, DOCUMENTS = 5 };

static int put(struct conform *c, const char *name, const char *value)
{
        return state_set_all(c, state_key(c, name), str_of(value), NULL, false, NULL);
}

/* ---- keys ---- */

static const char *keys_by_pattern(struct conform *c)
{
        Microdapr__Plugin__V1__KeysLikeRequest req = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST__INIT;
        Microdapr__Plugin__V1__KeysLikeResponse *resp;
        const char *names[] = {"like-a1", "like-a2", "like-b1", "like-a%"};
        for (int i = 0; i < 4; i++)
                TRY(put(c, names[i], "1"), "Set");
        const struct { const char *pattern; size_t n; } rows[] = {{"like-a_", 3}, {"like-%", 4}, {"like-a\\%", 1}, {"like-c%", 0}};
        for (size_t i = 0; i < 4; i++) {
                req.pattern = state_key(c, rows[i].pattern);
                TRY(conform_ask(c, "/microdapr.plugin.v1.StateStoreExtra/KeysLike", &req.base, &microdapr__plugin__v1__keys_like_response__descriptor, &resp),
                    "KeysLike");
                MUST(resp->n_keys == rows[i].n, conform_text(c, "the pattern %s gives %zu keys instead of %zu", rows[i].pattern, resp->n_keys, rows[i].n));
        }
        for (int i = 0; i < 4; i++)
                TRY(state_del(c, state_key(c, names[i]), NULL), "Delete");
        return NULL;
}

static const char *delete_by_prefix(struct conform *c)
{
        Microdapr__Plugin__V1__DeleteWithPrefixRequest req = MICRODAPR__PLUGIN__V1__DELETE_WITH_PREFIX_REQUEST__INIT;
        Microdapr__Plugin__V1__DeleteWithPrefixResponse *resp;
        TRY(put(c, "prefix||a", "1"), "Set");
        TRY(put(c, "prefix||b", "1"), "Set");
        TRY(put(c, "prefixed", "1"), "Set");
        req.prefix = state_key(c, "prefix");
        TRY(conform_ask(c, "/microdapr.plugin.v1.StateStoreExtra/DeleteWithPrefix", &req.base, &microdapr__plugin__v1__delete_with_prefix_response__descriptor,
                        &resp), "DeleteWithPrefix");
        HOLD(state_expect(c, state_key(c, "prefix||a"), STR_NULL));
        MUST(resp->count == 2, conform_text(c, "%lld items were deleted instead of 2", (long long)resp->count));
        return state_expect(c, state_key(c, "prefixed"), STR("1"));
}

static const char *keys_in_pages(struct conform *c)
{
        Microdapr__Plugin__V1__KeysLikeRequest req = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST__INIT;
        Microdapr__Plugin__V1__KeysLikeResponse *resp;
        size_t n = 0;
        int pages = 0;
        for (int i = 0; i < DOCUMENTS; i++)
                TRY(put(c, arena_printf(&c->call, "page-%d", i), "1"), "Set");
        req.pattern = state_key(c, "page-%");
        req._page_size_case = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST___PAGE_SIZE_PAGE_SIZE;
        req.page_size = 2;
        do {
                TRY(conform_ask(c, "/microdapr.plugin.v1.StateStoreExtra/KeysLike", &req.base, &microdapr__plugin__v1__keys_like_response__descriptor, &resp),
                    "KeysLike");
                MUST(resp->n_keys <= 2, "a page of at most 2 keys has more");
                n += resp->n_keys;
                req.continuation_token = resp->continuation_token;
        } while (*req.continuation_token && ++pages < PAGES_MAX);
        MUST(n == DOCUMENTS, conform_text(c, "%zu keys in pages of 2 instead of %d", n, DOCUMENTS));
        for (int i = 0; i < DOCUMENTS; i++)
                TRY(state_del(c, state_key(c, arena_printf(&c->call, "page-%d", i)), NULL), "Delete");
        req.continuation_token = "";
        req.pattern = "";
        MUST(conform_ask(c, "/microdapr.plugin.v1.StateStoreExtra/KeysLike", &req.base, NULL, NULL), "an empty pattern was taken");
        return NULL;
}

/* ---- queries ---- */

typedef Dapr__Proto__Components__V1__QueryResponse found_t;

/* Documents of this run where `op` says value; sorted by n, `limit` a page (0 = all). */
static int query(struct conform *c, const char *op, const char *value, bool descending, int64_t limit, const char *token, found_t **ret)
{
        Dapr__Proto__Components__V1__QueryRequest req = DAPR__PROTO__COMPONENTS__V1__QUERY_REQUEST__INIT;
        Dapr__Proto__Components__V1__Query q = DAPR__PROTO__COMPONENTS__V1__QUERY__INIT;
        Dapr__Proto__Components__V1__Query__FilterEntry f = DAPR__PROTO__COMPONENTS__V1__QUERY__FILTER_ENTRY__INIT, *filters[] = {&f};
        Dapr__Proto__Components__V1__Sorting sort = DAPR__PROTO__COMPONENTS__V1__SORTING__INIT, *sorts[] = {&sort};
        Dapr__Proto__Components__V1__Pagination page = DAPR__PROTO__COMPONENTS__V1__PAGINATION__INIT;
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
        f.key = op;
        f.value = &any;
        any.value = pb_bytes(str_of(value));
        sort.key = "n";
        sort.order = descending ? DAPR__PROTO__COMPONENTS__V1__SORTING__ORDER__DESC : DAPR__PROTO__COMPONENTS__V1__SORTING__ORDER__ASC;
        page.limit = limit;
        page.token = token;
        q.filter = filters;
        q.n_filter = 1;
        q.sort = sorts;
        q.n_sort = 1;
        q.pagination = &page;
        req.query = &q;
        return conform_ask(c, "/dapr.proto.components.v1.QueriableStateStore/Query", &req.base, &dapr__proto__components__v1__query_response__descriptor, ret);
}

static const char *check_found(struct conform *c, const found_t *f, size_t n, const char *first)
{
        MUST(f->n_items == n, conform_text(c, "a query finds %zu items instead of %zu", f->n_items, n));
        MUST(!n || strcmp(f->items[0]->key, state_key(c, first)) == 0, conform_text(c, "the first item of a query is %s", f->items[0]->key));
        for (size_t i = 0; i < n; i++)
                MUST(f->items[i]->data.len, "an item of a query has no value");
        return NULL;
}

static const char *queries_find(struct conform *c)
{
        char run[64];
        found_t *f;
        snprintf(run, sizeof run, "{\"run\":\"%s\"}", state_key(c, ""));
        for (int i = 0; i < DOCUMENTS; i++) {
                struct str doc = str_of(arena_printf(&c->call, "{\"run\":\"%s\",\"n\":%d,\"kind\":\"%s\"}", state_key(c, ""), i, i % 2 ? "odd" : "even"));
                struct write w;
                write_init(&w, state_key(c, arena_printf(&c->call, "doc-%d", i)), doc, NULL, false, NULL);
                w.set.content_type = "application/json";
                w.entry.key = "contentType";
                w.entry.value = "application/json";
                w.set.n_metadata = 1;
                TRY(conform_ask(c, STATE "Set", &w.set.base, NULL, NULL), "Set");
        }
        TRY(query(c, "EQ", run, false, 0, "", &f), "a query (EQ)");
        HOLD(check_found(c, f, DOCUMENTS, "doc-0"));
        TRY(query(c, "EQ", run, true, 0, "", &f), "a query sorted downwards");
        HOLD(check_found(c, f, DOCUMENTS, "doc-4"));
        const char *odd = arena_printf(&c->call, "[{\"EQ\":%s},{\"IN\":{\"kind\":[\"odd\",\"none\"]}}]", run);
        TRY(query(c, "AND", odd, false, 0, "", &f), "a query (AND, IN)");
        HOLD(check_found(c, f, 2, "doc-1"));
        TRY(query(c, "EQ", run, false, 2, "", &f), "the first page of a query");
        HOLD(check_found(c, f, 2, "doc-0"));
        MUST(*f->token, "the first page of a query has no token for the second");
        TRY(query(c, "EQ", run, false, 2, arena_strdup(&c->call, str_of(f->token)), &f), "the second page of a query");
        HOLD(check_found(c, f, 2, "doc-2"));
        MUST(query(c, "NO_SUCH", run, false, 0, "", &f), "a query with an unknown filter was taken");
        for (int i = 0; i < DOCUMENTS; i++)
                TRY(state_del(c, state_key(c, arena_printf(&c->call, "doc-%d", i)), NULL), "Delete");
        return NULL;
}

/* ---- what is not declared ---- */

static const char *etags_undeclared(struct conform *c)
{
        if (conform_has(c, "ETAG"))
                return conform_skip(c, "it has ETAG");
        TRY(put(c, "undeclared", "1"), "Set");
        got_t *g;
        TRY(state_get(c, state_key(c, "undeclared"), &g), "Get");
        bool guards = g->etag && *g->etag->value && state_set_all(c, state_key(c, "undeclared"), STR("2"), "987654321", false, NULL) != 0;
        TRY(state_del(c, state_key(c, "undeclared"), NULL), "Delete");
        return guards ? "ETAG is not declared, but an old ETag is refused: apps would not know" : NULL;
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

const struct conform_check conform_search_checks[] = {
        {"keys by pattern", keys_by_pattern, "KEYS_LIKE"},
        {"keys in pages", keys_in_pages, "KEYS_LIKE"},
        {"delete by prefix", delete_by_prefix, "DELETE_WITH_PREFIX"},
        {"queries find, sort and page", queries_find, "QUERY_API"},
};
const size_t conform_search_n = sizeof conform_search_checks / sizeof *conform_search_checks;
/* Last: nobody would call these. */
const struct conform_check conform_undeclared_checks[] = {
        {"ETags that are not declared", etags_undeclared},
        {"what is not declared is not there", undeclared_is_absent},
};
const size_t conform_undeclared_n = sizeof conform_undeclared_checks / sizeof *conform_undeclared_checks;
