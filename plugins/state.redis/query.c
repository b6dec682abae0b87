/*
 * Key listing, JSON documents and queries. Queries need RedisJSON and RediSearch on the server: the store's query document
 * (filter, sort, page) becomes one FT.SEARCH on an index of the metadata field queryIndexes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/state.redis/store.h"
#include "sdk/base/flags.h"
#include "sdk/base/json.h"

enum { SCAN_COUNT = 1000, FILTER_DEPTH_MAX = 32 };

/* ---- keys by pattern ---- */

/* SQL LIKE (escape \) to a Redis glob. */
static int like_to_glob(struct buf *out, const char *like)
{
        for (const char *p = like; *p; p++) {
                bool escaped = *p == '\\' && p[1];
                if (escaped)
                        p++;
                else if (*p == '%' || *p == '_') {
                        buf_addc(out, *p == '%' ? '*' : '?');
                        continue;
                }
                if (strchr("*?[]\\", *p))
                        buf_addc(out, '\\');
                buf_addc(out, *p);
        }
        buf_addc(out, '\0');
        return out->failed ? -ENOMEM : 0;
}

struct scan {
        struct dapr_call *c;
        const char *glob;
        char **keys;
        size_t n, cap;
};

static int scan_keep(struct scan *sc, const redisReply *list)
{
        for (size_t i = 0; i < list->elements; i++) {
                if (sc->n == sc->cap) {
                        size_t cap = sc->cap ? sc->cap * 2 : 256;
                        char **more = realloc(sc->keys, cap * sizeof(*more));
                        if (!more)
                                return -ENOMEM;
                        sc->keys = more;
                        sc->cap = cap;
                }
                char *k = strndup(list->element[i]->str, list->element[i]->len);
                if (!k)
                        return -ENOMEM;
                sc->keys[sc->n++] = k;
        }
        return 0;
}

static int scan_node(void *arg, struct redis *r, const char *node)
{
        struct scan *sc = arg;
        char cursor[32] = "0";
        do {
                struct redis_arg a[] = {redis_arg_z("SCAN"), redis_arg_z(cursor), redis_arg_z("MATCH"), redis_arg_z(sc->glob),
                                        redis_arg_z("COUNT"), redis_arg_i(sc->c, SCAN_COUNT)};
                redisReply *reply = NULL;
                int e = redis_do_on(r, node, REDIS_READ, a, 6, &reply);
                if (e)
                        return e;
                if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || !reply->element[0]->str)
                        e = -EBADMSG;
                else {
                        snprintf(cursor, sizeof(cursor), "%s", reply->element[0]->str);
                        e = scan_keep(sc, reply->element[1]);
                }
                freeReplyObject(reply);
                if (e)
                        return e;
        } while (strcmp(cursor, "0") != 0);
        return 0;
}

static int compare_keys(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static int page_of_keys(struct dapr_call *c, struct scan *sc, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        if (sc->n)
                qsort(sc->keys, sc->n, sizeof(*sc->keys), compare_keys);
        size_t n = 0; /* SCAN may give a key twice */
        for (size_t i = 0; i < sc->n; i++) {
                if (n && strcmp(sc->keys[n - 1], sc->keys[i]) == 0)
                        free(sc->keys[i]);
                else
                        sc->keys[n++] = sc->keys[i];
        }
        sc->n = n;
        size_t start = in->token && *in->token ? strtoull(in->token, NULL, 10) : 0;
        if (start > n)
                start = n;
        size_t count = n - start;
        if (in->page_size && count > in->page_size)
                count = in->page_size;
        const char **keys = dapr_alloc(c, (count + 1) * sizeof(*keys));
        if (!keys)
                return -ENOMEM;
        for (size_t i = 0; i < count; i++)
                if (!(keys[i] = dapr_strdup(c, sc->keys[start + i])))
                        return -ENOMEM;
        out->keys = keys;
        out->n = count;
        out->token = start + count < n ? dapr_printf(c, "%zu", start + count) : NULL;
        return 0;
}

int store_keys_like(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        struct store *s = instance;
        if (!in->pattern || !*in->pattern)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "keys like pattern cannot be empty");
        struct buf glob = {0};
        int r = like_to_glob(&glob, in->pattern);
        struct scan sc = {.c = c, .glob = glob.p};
        if (!r)
                r = redis_each_master(s->redis, scan_node, &sc);
        if (r < 0)
                r = redis_fail(c, s->redis, r);
        if (!r)
                r = page_of_keys(c, &sc, in, out);
        for (size_t i = 0; i < sc.n; i++)
                free(sc.keys[i]);
        free(sc.keys);
        buf_fini(&glob);
        return r;
}

/* ---- documents ---- */

int json_get(struct dapr_call *c, struct store *s, const char *key, struct dapr_item *out)
{
        struct redis_arg a[] = {redis_arg_z("JSON.GET"), redis_arg_z(key)};
        redisReply *reply = NULL;
        int r = redis_do(s->redis, REDIS_READ, 1, a, 2, &reply);
        if (r)
                return redis_fail(c, s->redis, r);
        if (reply->type == REDIS_REPLY_ERROR)
                r = dapr_fail(c, DAPR_INTERNAL, "%s", reply->str);
        else if (reply->type == REDIS_REPLY_STRING) {
                struct arena a2;
                arena_init(&a2, 0);
                struct json_reader jr;
                json_read_init(&jr, str_n(reply->str, reply->len));
                struct str name, raw;
                if (json_enter_object(&jr))
                        while (json_next_member(&jr, &a2, &name) && json_read_raw(&jr, &raw)) {
                                if (str_eqz(name, "data")) {
                                        out->found = true;
                                        out->value = dapr_copy(c, raw.p, raw.n);
                                } else if (str_eqz(name, "version"))
                                        out->etag = dapr_printf(c, "%.*s", STR_FMT(raw));
                        }
                if (jr.error)
                        r = dapr_fail(c, DAPR_INTERNAL, "the document of key %s is not valid: %s", key, jr.error);
                arena_fini(&a2);
        }
        freeReplyObject(reply);
        return r;
}

static const char json_script[] =
        "local raw = redis.pcall('JSON.GET', KEYS[1], '.version')\n"
        "local have = nil\n"
        "if type(raw) == 'string' then have = raw elseif type(raw) == 'table' then redis.pcall('JSON.DEL', KEYS[1]) end\n"
        "local first = redis.pcall('JSON.GET', KEYS[1], '.first-write')\n"
        "if have then\n"
        "  if ARGV[1] ~= '' then\n"
        "    if ARGV[1] ~= have then return redis.error_reply('ETAGMISMATCH 1') end\n"
        "  elseif type(first) == 'string' then return redis.error_reply('ETAGMISMATCH 1') end\n"
        "end\n"
        "redis.call('JSON.SET', KEYS[1], '$', ARGV[2])\n"
        "if ARGV[3] == '1' then redis.call('JSON.SET', KEYS[1], '.first-write', 0) end\n"
        "redis.call('JSON.SET', KEYS[1], '.version', (tonumber(have or '0') + 1))\n"
        "if ARGV[4] ~= '' then\n"
        "  if tonumber(ARGV[4]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[4]) else redis.call('PERSIST', KEYS[1]) end\n"
        "end\n"
        "return 1\n";

int json_set(struct dapr_call *c, struct store *s, const struct dapr_set *in)
{
        const char *want = in->concurrency == DAPR_LAST_WRITE || !in->etag || strcmp(in->etag, "0") == 0 ? "" : in->etag;
        if (!json_valid(str_n(in->value.p, in->value.n)))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "the value of key %s is not valid JSON", in->key);
        const char *doc = dapr_printf(c, "{\"data\":%.*s}", (int)in->value.n, (const char *)in->value.p);
        if (!doc)
                return -ENOMEM;
        bool has_ttl = in->ttl_s != 0 || s->has_default_ttl;
        struct redis_arg a[] = {redis_arg_z("EVAL"), {json_script, sizeof(json_script) - 1}, redis_arg_z("1"), redis_arg_z(in->key),
                                redis_arg_z(want), redis_arg_z(doc), redis_arg_z(in->concurrency == DAPR_FIRST_WRITE ? "1" : "0"),
                                has_ttl ? redis_arg_i(c, in->ttl_s ? in->ttl_s : s->default_ttl_s) : redis_arg_z("")};
        redisReply *reply = NULL;
        int r = redis_do(s->redis, REDIS_WRITE, 3, a, 8, &reply);
        if (r)
                return redis_fail(c, s->redis, r);
        if (reply->type == REDIS_REPLY_ERROR)
                r = strncmp(reply->str, "ETAGMISMATCH", 12) == 0 ? dapr_fail(c, DAPR_ETAG_MISMATCH, "failed to set key %s", in->key)
                                                                : dapr_fail(c, DAPR_INTERNAL, "failed to set key %s: %s", in->key, reply->str);
        freeReplyObject(reply);
        return r;
}

/* ---- query indexes ---- */

static int read_index(struct dapr_call *c, struct json_reader *r, struct arena *a, struct query_schema *q)
{
        struct query_index *more = realloc(q->indexes, (q->n + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        q->indexes = more;
        struct query_index *x = &q->indexes[q->n++];
        *x = (struct query_index){0};
        struct str name, value;
        if (!json_enter_object(r))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store: error parsing query index schema: indexes must hold objects");
        while (json_next_member(r, a, &name)) {
                if (!json_read_string(r, a, &value))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store: error parsing query index schema: %.*s must be a string",
                                         STR_FMT(name));
                if (str_eqz(name, "key"))
                        x->path = strndup(value.p, value.n);
                else if (str_eqz(name, "type"))
                        x->type = strndup(value.p, value.n);
        }
        if (!x->path || !*x->path || !x->type || !*x->type)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store: error parsing query index schema: empty %s in query schema %s",
                                 !x->path || !*x->path ? "key" : "type", q->name ? q->name : "");
        return 0;
}

static int read_schema(struct dapr_call *c, struct json_reader *r, struct arena *a, struct store *s)
{
        struct query_schema *more = realloc(s->schemas, (s->n_schemas + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        s->schemas = more;
        struct query_schema *q = &s->schemas[s->n_schemas++];
        *q = (struct query_schema){0};
        struct str name, value;
        int e = 0;
        if (!json_enter_object(r))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store: error parsing query index schema: queryIndexes must hold objects");
        while (!e && json_next_member(r, a, &name)) {
                if (str_eqz(name, "name") && json_read_string(r, a, &value))
                        q->name = strndup(value.p, value.n);
                else if (str_eqz(name, "indexes") && json_enter_array(r)) {
                        while (!e && json_next_element(r))
                                e = read_index(c, r, a, q);
                } else
                        json_skip(r);
        }
        if (!e && (!q->name || !*q->name))
                e = dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store: error parsing query index schema: empty query schema name");
        for (size_t i = 0; !e && i + 1 < s->n_schemas; i++)
                if (strcmp(s->schemas[i].name, q->name) == 0)
                        e = dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store: error parsing query index schema: duplicate schema name %s", q->name);
        return e;
}

int query_schemas_parse(struct dapr_call *c, struct store *s, const char *json)
{
        struct arena a;
        arena_init(&a, 1 << 20);
        struct json_reader r;
        json_read_init(&r, str_of(json));
        int e = 0;
        if (json_enter_array(&r))
                while (!e && json_next_element(&r))
                        e = read_schema(c, &r, &a, s);
        if (!e && (r.error || !json_at_end(&r)))
                e = dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store: error parsing query index schema: %s at byte %zu of queryIndexes",
                              r.error ? r.error : "an array is expected", r.error_pos);
        arena_fini(&a);
        return e;
}

void query_schemas_free(struct store *s)
{
        for (size_t i = 0; i < s->n_schemas; i++) {
                for (size_t k = 0; k < s->schemas[i].n; k++) {
                        free(s->schemas[i].indexes[k].path);
                        free(s->schemas[i].indexes[k].type);
                }
                free(s->schemas[i].indexes);
                free(s->schemas[i].name);
        }
        free(s->schemas);
        s->schemas = NULL;
        s->n_schemas = 0;
}

static int create_index(struct dapr_call *c, struct store *s, struct query_schema *q, bool *exists)
{
        size_t n = 5 + q->n * 5;
        struct redis_arg *a = dapr_alloc(c, n * sizeof(*a));
        if (!a)
                return -ENOMEM;
        size_t k = 0;
        a[k++] = redis_arg_z("FT.CREATE");
        a[k++] = redis_arg_z(q->name);
        a[k++] = redis_arg_z("ON");
        a[k++] = redis_arg_z("JSON");
        a[k++] = redis_arg_z("SCHEMA");
        for (size_t i = 0; i < q->n; i++) {
                const char *path = dapr_printf(c, "$.data.%s", q->indexes[i].path), *alias = dapr_printf(c, "var%zu", i);
                if (!path || !alias)
                        return -ENOMEM;
                a[k++] = redis_arg_z(path);
                a[k++] = redis_arg_z("AS");
                a[k++] = redis_arg_z(alias);
                a[k++] = redis_arg_z(q->indexes[i].type);
                a[k++] = redis_arg_z("SORTABLE");
        }
        redisReply *reply = NULL;
        int e = redis_do(s->redis, REDIS_READ, -1, a, (int)k, &reply);
        if (e)
                return redis_fail(c, s->redis, e);
        *exists = reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "already exists");
        if (reply->type == REDIS_REPLY_ERROR && !*exists)
                e = dapr_fail(c, DAPR_INTERNAL, "redis store: error registering query schemas: %s", reply->str);
        freeReplyObject(reply);
        return e;
}

int query_schemas_register(struct dapr_call *c, struct store *s)
{
        for (size_t i = 0; i < s->n_schemas; i++) {
                bool exists = false;
                int e = create_index(c, s, &s->schemas[i], &exists);
                if (!e && exists) { /* a stale one: its schema may differ */
                        struct redis_arg a[] = {redis_arg_z("FT.DROPINDEX"), redis_arg_z(s->schemas[i].name)};
                        redisReply *reply = NULL;
                        e = redis_do(s->redis, REDIS_WRITE, -1, a, 2, &reply);
                        if (e)
                                return redis_fail(c, s->redis, e);
                        freeReplyObject(reply);
                        e = create_index(c, s, &s->schemas[i], &exists);
                }
                if (e)
                        return e;
        }
        return 0;
}

/* ---- query document to RediSearch ---- */

struct translation {
        struct dapr_call *c;
        const struct query_schema *schema;
        struct arena a;
        struct buf out;
        int limit;
        int64_t offset;
        const char *sort_alias;
        bool sort_desc;
};

static const char *alias_of(struct translation *t, struct str path)
{
        for (size_t i = 0; i < t->schema->n; i++)
                if (str_eqz(path, t->schema->indexes[i].path))
                        return dapr_printf(t->c, "var%zu", i);
        dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "JSON path \"%.*s\" is not indexed", STR_FMT(path));
        return NULL;
}

static int bad_filter(struct translation *t, const char *why)
{
        return dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "the query's filter is not valid: %s", why);
}

/* One comparison { "path": value }. op: EQ NEQ GT GTE LT LTE IN. */
static int comparison(struct translation *t, struct json_reader *r, struct str op)
{
        struct str path, v;
        if (!json_enter_object(r) || !json_next_member(r, &t->a, &path))
                return bad_filter(t, "an operator takes an object with one path");
        const char *alias = alias_of(t, path);
        if (!alias)
                return DAPR_INVALID_ARGUMENT;
        if (str_eqz(op, "NEQ"))
                buf_addc(&t->out, '-');
        buf_addc(&t->out, '(');
        enum json_type type = json_peek(r);
        if (str_eqz(op, "IN")) {
                if (!json_enter_array(r))
                        return bad_filter(t, "IN takes an array");
                size_t n = 0;
                bool strings = false;
                while (json_next_element(r)) {
                        if (json_peek(r) == JSON_STRING) {
                                json_read_string(r, &t->a, &v);
                                if (n++ == 0)
                                        buf_printf(&t->out, "@%s:(", alias), strings = true;
                                else
                                        buf_addc(&t->out, '|');
                                buf_adds(&t->out, v);
                        } else {
                                json_read_raw(r, &v);
                                buf_printf(&t->out, "%s@%s:[%.*s %.*s]", n++ ? "|" : "", alias, STR_FMT(v), STR_FMT(v));
                        }
                }
                if (strings)
                        buf_addc(&t->out, ')');
                if (n < 2)
                        return bad_filter(t, "too few values in IN operator");
        } else if (type == JSON_STRING) {
                json_read_string(r, &t->a, &v);
                if (!str_eqz(op, "EQ") && !str_eqz(op, "NEQ"))
                        return bad_filter(t, "only EQ, NEQ and IN take a string");
                buf_printf(&t->out, "@%s:(%.*s)", alias, STR_FMT(v));
        } else {
                if (!json_read_raw(r, &v))
                        return bad_filter(t, r->error);
                bool from = op.p[0] == 'G', to = op.p[0] == 'L', open = op.n == 2; /* GT, LT exclude the bound itself */
                if (from)
                        buf_printf(&t->out, "@%s:[%s%.*s +inf]", alias, open ? "(" : "", STR_FMT(v));
                else if (to)
                        buf_printf(&t->out, "@%s:[-inf %s%.*s]", alias, open ? "(" : "", STR_FMT(v));
                else
                        buf_printf(&t->out, "@%s:[%.*s %.*s]", alias, STR_FMT(v), STR_FMT(v));
        }
        buf_addc(&t->out, ')');
        if (json_next_member(r, &t->a, &path))
                return bad_filter(t, "an operator takes one path");
        return 0;
}

static int filter(struct translation *t, struct json_reader *r, int depth)
{
        struct str op;
        if (depth > FILTER_DEPTH_MAX)
                return bad_filter(t, "it is nested too deeply");
        if (!json_enter_object(r))
                return bad_filter(t, "an object is expected");
        if (!json_next_member(r, &t->a, &op)) {
                buf_addc(&t->out, '*');
                return 0;
        }
        int e = 0;
        if (str_eqz(op, "AND") || str_eqz(op, "OR")) {
                const char *between = str_eqz(op, "AND") ? " " : "|";
                if (!json_enter_array(r))
                        return bad_filter(t, "AND and OR take an array");
                buf_addc(&t->out, '(');
                for (size_t n = 0; !e && json_next_element(r); n++) {
                        if (n)
                                buf_addz(&t->out, between);
                        e = filter(t, r, depth + 1);
                }
                buf_addc(&t->out, ')');
        } else if (str_eqz(op, "EQ") || str_eqz(op, "NEQ") || str_eqz(op, "GT") || str_eqz(op, "GTE") || str_eqz(op, "LT") ||
                   str_eqz(op, "LTE") || str_eqz(op, "IN"))
                e = comparison(t, r, op);
        else
                return bad_filter(t, "the operators are AND OR EQ NEQ GT GTE LT LTE IN");
        if (!e && json_next_member(r, &t->a, &op))
                return bad_filter(t, "an object holds one operator");
        return e;
}

static int sorting(struct translation *t, struct json_reader *r)
{
        struct str name, v;
        if (!json_enter_array(r))
                return dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "the query's sort must be an array");
        for (size_t n = 0; json_next_element(r); n++) {
                if (n)
                        return dapr_fail(t->c, DAPR_INVALID_ARGUMENT,
                                         "multiple SORTBY steps are not allowed. Sort multiple fields in a single step");
                if (!json_enter_object(r))
                        break;
                while (json_next_member(r, &t->a, &name) && json_read_string(r, &t->a, &v)) {
                        if (str_eqz(name, "key") && !(t->sort_alias = alias_of(t, v)))
                                return DAPR_INVALID_ARGUMENT;
                        if (str_eqz(name, "order"))
                                t->sort_desc = str_eqz(v, "DESC");
                }
        }
        return 0;
}

static int paging(struct translation *t, struct json_reader *r)
{
        struct str name, v;
        int64_t n;
        if (!json_enter_object(r))
                return dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "the query's page must be an object");
        while (json_next_member(r, &t->a, &name)) {
                if (str_eqz(name, "limit") && json_read_int64(r, &n) && n >= 0 && n <= 1000000)
                        t->limit = (int)n;
                else if (str_eqz(name, "token") && json_read_string(r, &t->a, &v)) {
                        if (v.n && (parse_int64(v, &t->offset) != 0 || t->offset < 0))
                                return dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "the query's page token %.*s is not valid", STR_FMT(v));
                } else
                        return dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "the query's page holds limit (a number) and token (a string)");
        }
        return 0;
}

static int translate(struct translation *t, const char *json)
{
        struct json_reader r;
        struct str name;
        int e = 0;
        json_read_init(&r, str_of(json));
        if (!json_enter_object(&r))
                return dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "the query is not a JSON object");
        while (!e && json_next_member(&r, &t->a, &name)) {
                if (str_eqz(name, "filter"))
                        e = filter(t, &r, 0);
                else if (str_eqz(name, "sort"))
                        e = sorting(t, &r);
                else if (str_eqz(name, "page"))
                        e = paging(t, &r);
                else
                        json_skip(&r);
        }
        if (!e && r.error)
                e = dapr_fail(t->c, DAPR_INVALID_ARGUMENT, "the query is not valid JSON: %s at byte %zu", r.error, r.error_pos);
        if (!buf_len(&t->out))
                buf_addc(&t->out, '*');
        return e;
}

/* [count, key, ["$.data", value, "$.version", etag], key, …] */
static int read_rows(struct dapr_call *c, const redisReply *reply, struct dapr_query_result *out)
{
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements % 2 != 1)
                return dapr_fail(c, DAPR_INTERNAL, "the server's answer to FT.SEARCH has an unknown form");
        size_t n = reply->elements / 2;
        struct dapr_query_row *rows = dapr_alloc(c, (n + 1) * sizeof(*rows));
        if (!rows)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                const redisReply *f = reply->element[2 + 2 * i];
                rows[i] = (struct dapr_query_row){.key = dapr_strdup(c, reply->element[1 + 2 * i]->str)};
                for (size_t k = 0; f->type == REDIS_REPLY_ARRAY && k + 1 < f->elements; k += 2) {
                        if (strcmp(f->element[k]->str, "$.data") == 0)
                                rows[i].item.value = dapr_copy(c, f->element[k + 1]->str, f->element[k + 1]->len);
                        else if (strcmp(f->element[k]->str, "$.version") == 0)
                                rows[i].item.etag = dapr_strdup(c, f->element[k + 1]->str);
                }
                rows[i].item.found = rows[i].item.value.p != NULL;
                if (!rows[i].item.found)
                        rows[i].error = "the document has no data";
        }
        out->rows = rows;
        out->n = n;
        return 0;
}

static int search(struct translation *t, struct store *s, struct dapr_query_result *out)
{
        struct redis_arg a[16];
        int n = 0;
        a[n++] = redis_arg_z("FT.SEARCH");
        a[n++] = redis_arg_z(t->schema->name);
        a[n++] = (struct redis_arg){buf_str(&t->out).p, buf_len(&t->out)};
        if (t->sort_alias) {
                a[n++] = redis_arg_z("SORTBY");
                a[n++] = redis_arg_z(t->sort_alias);
                if (t->sort_desc)
                        a[n++] = redis_arg_z("DESC");
        }
        if (t->limit) {
                a[n++] = redis_arg_z("LIMIT");
                a[n++] = redis_arg_i(t->c, t->offset);
                a[n++] = redis_arg_i(t->c, t->limit);
        }
        a[n++] = redis_arg_z("RETURN");
        a[n++] = redis_arg_z("2");
        a[n++] = redis_arg_z("$.data");
        a[n++] = redis_arg_z("$.version");
        redisReply *reply = NULL;
        int e = redis_do(s->redis, REDIS_READ, -1, a, n, &reply);
        if (e)
                return redis_fail(t->c, s->redis, e);
        e = reply->type == REDIS_REPLY_ERROR ? dapr_fail(t->c, DAPR_INTERNAL, "%s", reply->str) : read_rows(t->c, reply, out);
        freeReplyObject(reply);
        if (!e && t->limit && out->n)
                out->token = dapr_printf(t->c, "%lld", (long long)(t->offset + (int64_t)out->n));
        return e;
}

int store_query(struct dapr_call *c, void *instance, const struct dapr_query *in, struct dapr_query_result *out)
{
        struct store *s = instance;
        if (!s->has_json)
                return dapr_fail(c, DAPR_UNIMPLEMENTED, "redis-json server support is required for query capability");
        const char *name = dapr_kvs_get(in->metadata, "queryIndexName");
        if (!name)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "query index not found");
        const struct query_schema *schema = NULL;
        for (size_t i = 0; i < s->n_schemas; i++)
                if (strcmp(s->schemas[i].name, name) == 0)
                        schema = &s->schemas[i];
        if (!schema)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "query index schema \"%s\" not found", name);
        struct translation t = {.c = c, .schema = schema};
        arena_init(&t.a, 1 << 20);
        int e = translate(&t, in->json);
        if (!e && t.out.failed)
                e = -ENOMEM;
        if (!e)
                e = search(&t, s, out);
        buf_fini(&t.out);
        arena_fini(&t.a);
        return e;
}
