/*
 * The query API on the jsonb column of v1: the query document (filter, sort, page) becomes one SELECT. Names of fields become quoted
 * literals, values parameters. Equality compares texts as the reference does, so indexes made for it serve; order compares numbers by
 * their value (the reference: by their text). Rows that have expired are left out. The page token is the offset of the next page.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plugins/state.postgresql/store.h"
#include "sdk/base/flags.h"
#include "sdk/base/json.h"

enum { FILTER_DEPTH_MAX = 32, VALUES_MAX = 10000, QUERY_BYTES_MAX = 16 << 20 };

struct translation {
        struct dapr_call *c;
        struct arena a;
        struct buf where, order;
        struct pg_param *values;
        size_t n, cap;
        int64_t limit, offset;
};

#define bad(t, ...) dapr_fail((t)->c, DAPR_INVALID_ARGUMENT, __VA_ARGS__)

/* person.org: value->'person'->>'org', or with last "->" the value itself. */
static void add_field(struct buf *b, struct str path, const char *last)
{
        buf_addz(b, "value");
        for (struct str rest = path, part; rest.p;) {
                part = str_cut(&rest, '.');
                buf_addz(b, rest.p ? "->" : last);
                buf_addc(b, '\'');
                for (size_t i = 0; i < part.n; i++) {
                        if (part.p[i] == '\'')
                                buf_addc(b, '\'');
                        buf_addc(b, part.p[i]);
                }
                buf_addc(b, '\'');
        }
}

/* The text that ->> would give for the value that stands next; *number = it is one. */
static int read_value(struct translation *t, struct json_reader *r, struct str *ret, bool *number)
{
        int64_t i;
        *number = json_peek(r) == JSON_NUMBER;
        if (json_peek(r) == JSON_STRING ? !json_read_string(r, &t->a, ret) : !json_read_raw(r, ret))
                return bad(t, "the query is not valid JSON: %s at byte %zu", r->error ? r->error : "a value is expected", r->error_pos);
        if (*number && json_number_to_int64(*ret, &i)) { /* 1e3 and 1.0 are stored as 1000 and, by JSON encoders, 1 */
                const char *z = arena_printf(&t->a, "%lld", (long long)i);
                if (!z)
                        return -ENOMEM;
                *ret = str_of(z);
        }
        return 0;
}

static int add_value(struct translation *t, struct str v)
{
        if (t->n == VALUES_MAX)
                return bad(t, "the query has more than %d values", VALUES_MAX);
        if (t->n == t->cap) {
                size_t cap = t->cap ? t->cap * 2 : 16;
                t->values = arena_grow(&t->a, t->values, t->cap * sizeof *t->values, cap * sizeof *t->values);
                if (!t->values)
                        return -ENOMEM;
                t->cap = cap;
        }
        char *z = arena_strdup(&t->a, v);
        if (!z)
                return -ENOMEM;
        t->values[t->n++] = pg_text(z);
        return 0;
}

/* ---- filter ---- */

static const struct comparison {
        const char *name, *sign;
        bool order;
} comparisons[] = {{"EQ", "=", false},  {"NEQ", "!=", false}, {"GT", ">", true}, {"GTE", ">=", true},
                   {"LT", "<", true},   {"LTE", "<=", true},  {"IN", "=", false}};

static int compare(struct translation *t, struct json_reader *r, const struct comparison *cmp, struct str key)
{
        struct str v;
        bool number, is_string = json_peek(r) == JSON_STRING;
        int e = read_value(t, r, &v, &number);
        if (e)
                return e;
        if (cmp->order && is_string)
                return bad(t, "unsupported type of value %.*s; string type not permitted", STR_FMT(v));
        e = add_value(t, v);
        if (cmp->order && number) {
                buf_addz(&t->where, "(CASE WHEN jsonb_typeof(");
                add_field(&t->where, key, "->");
                buf_addz(&t->where, ")='number' THEN (");
                add_field(&t->where, key, "->>");
                buf_printf(&t->where, ")::numeric%s$%zu::numeric ELSE false END)", cmp->sign, t->n);
        } else {
                add_field(&t->where, key, "->>");
                buf_printf(&t->where, "%s$%zu", cmp->sign, t->n);
        }
        return e;
}

static int compare_one_of(struct translation *t, struct json_reader *r, const struct comparison *cmp, struct str key)
{
        size_t n = 0;
        int e = 0;
        if (!json_enter_array(r))
                return bad(t, "IN filter value must be an array");
        buf_addc(&t->where, '(');
        for (; !e && json_next_element(r); n++) {
                if (n)
                        buf_addz(&t->where, " OR ");
                e = compare(t, r, cmp, key);
        }
        buf_addc(&t->where, ')');
        return e || n ? e : bad(t, "empty IN operator for key \"%.*s\"", STR_FMT(key));
}

static int comparison(struct translation *t, struct json_reader *r, const struct comparison *cmp)
{
        struct str key, extra;
        if (!json_enter_object(r))
                return bad(t, "%s filter must be a map", cmp->name);
        if (!json_next_member(r, &t->a, &key))
                return bad(t, "%s filter must contain a single key/value pair", cmp->name);
        int e = strcmp(cmp->name, "IN") == 0 ? compare_one_of(t, r, cmp, key) : compare(t, r, cmp, key);
        if (!e && json_next_member(r, &t->a, &extra))
                e = bad(t, "%s filter must contain a single key/value pair", cmp->name);
        return e;
}

static int filter(struct translation *t, struct json_reader *r, int depth);

static int junction(struct translation *t, struct json_reader *r, const char *name, int depth)
{
        int e = 0;
        size_t n = 0;
        if (!json_enter_array(r))
                return bad(t, "%s filter must be an array", name);
        buf_addc(&t->where, '(');
        for (; !e && json_next_element(r); n++) {
                if (n)
                        buf_printf(&t->where, " %s ", name);
                e = filter(t, r, depth + 1);
        }
        buf_addc(&t->where, ')');
        return e || n >= 2 ? e : bad(t, "%s filter must contain at least two entries", name);
}

static int filter(struct translation *t, struct json_reader *r, int depth)
{
        struct str op, extra;
        int e = -1;
        if (depth > FILTER_DEPTH_MAX)
                return bad(t, "the query's filter is nested too deeply");
        if (!json_enter_object(r))
                return bad(t, "filter unit must be a map");
        if (!json_next_member(r, &t->a, &op))
                return depth ? bad(t, "filter unit must have a single element") : 0;
        if (str_eqz(op, "AND") || str_eqz(op, "OR"))
                e = junction(t, r, str_eqz(op, "AND") ? "AND" : "OR", depth);
        for (size_t i = 0; e == -1 && i < sizeof comparisons / sizeof *comparisons; i++)
                if (str_eqz(op, comparisons[i].name))
                        e = comparison(t, r, &comparisons[i]);
        if (e == -1)
                return bad(t, "unsupported filter \"%.*s\"", STR_FMT(op));
        if (!e && json_next_member(r, &t->a, &extra))
                e = bad(t, "filter unit must have a single element");
        return e;
}

/* ---- sort and page ---- */

static int sorting(struct translation *t, struct json_reader *r)
{
        if (json_read_null(r))
                return 0;
        if (!json_enter_array(r))
                return bad(t, "the query's sort must be an array");
        for (size_t n = 0; json_next_element(r); n++) {
                struct str name, v, key = STR_NULL, order = STR_NULL;
                if (!json_enter_object(r))
                        return bad(t, "the query's sort holds objects of key and order");
                while (json_next_member(r, &t->a, &name)) {
                        if (!json_read_string(r, &t->a, &v))
                                return bad(t, "the query's sort: %.*s must be a string", STR_FMT(name));
                        if (str_eqz(name, "key"))
                                key = v;
                        else if (str_eqz(name, "order"))
                                order = v;
                }
                if (order.n && !str_ieq(order, STR("ASC")) && !str_ieq(order, STR("DESC")))
                        return bad(t, "the query's sort: order must be ASC or DESC");
                buf_addz(&t->order, n ? ", " : " ORDER BY ");
                add_field(&t->order, key.p ? key : STR(""), "->");
                if (order.n)
                        buf_addz(&t->order, str_ieq(order, STR("ASC")) ? " ASC" : " DESC");
        }
        return 0;
}

static int paging(struct translation *t, struct json_reader *r)
{
        struct str name, v;
        if (json_read_null(r))
                return 0;
        if (!json_enter_object(r))
                return bad(t, "the query's page must be an object");
        while (json_next_member(r, &t->a, &name)) {
                if (str_eqz(name, "limit")) {
                        if (!json_read_int64(r, &t->limit))
                                return bad(t, "the query's page: limit must be a whole number");
                } else if (str_eqz(name, "token")) {
                        if (!json_read_string(r, &t->a, &v))
                                return bad(t, "the query's page: token must be a string");
                        if (v.n && (parse_int64(v, &t->offset) != 0 || t->offset < 0))
                                return bad(t, "strconv.ParseInt: parsing \"%.*s\": invalid syntax", STR_FMT(v));
                } else
                        json_skip(r);
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
                return bad(t, "the query is not a JSON object");
        while (!e && json_next_member(&r, &t->a, &name)) {
                if (str_eqz(name, "filter"))
                        e = json_read_null(&r) ? 0 : filter(t, &r, 0);
                else if (str_eqz(name, "sort"))
                        e = sorting(t, &r);
                else if (str_eqz(name, "page"))
                        e = paging(t, &r);
                else
                        json_skip(&r);
        }
        if (r.error && e >= 0)
                e = bad(t, "the query is not valid JSON: %s at byte %zu", r.error, r.error_pos);
        return e;
}

/* ---- running it ---- */

static int read_rows(struct translation *t, const PGresult *res, struct dapr_query_result *out)
{
        size_t n = (size_t)PQntuples(res);
        struct dapr_query_row *rows = dapr_alloc(t->c, (n + 1) * sizeof *rows);
        if (!rows)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                struct str key = pg_column(res, (int)i, 0), value = pg_column(res, (int)i, 1), etag = pg_column(res, (int)i, 2);
                rows[i] = (struct dapr_query_row){.key = dapr_printf(t->c, "%.*s", STR_FMT(key))};
                rows[i].item = (struct dapr_item){.found = true, .value = dapr_copy(t->c, value.p, value.n),
                                                  .etag = dapr_printf(t->c, "%.*s", STR_FMT(etag))};
                if (!rows[i].key || !rows[i].item.etag || !rows[i].item.value.p)
                        return -ENOMEM;
        }
        out->rows = rows;
        out->n = n;
        if (t->limit > 0)
                out->token = dapr_printf(t->c, "%lld", (long long)(t->offset + (int64_t)n));
        return 0;
}

static int run(struct translation *t, struct store *s, struct dapr_query_result *out)
{
        struct buf sql = {0};
        struct pg_error e;
        PGresult *res = NULL;
        buf_printf(&sql, "SELECT key, value::text, xmin::text FROM %s WHERE (expiredate IS NULL OR expiredate >= CURRENT_TIMESTAMP)", s->table);
        if (buf_len(&t->where)) {
                buf_addz(&sql, " AND ");
                buf_adds(&sql, buf_str(&t->where));
        }
        buf_adds(&sql, buf_str(&t->order));
        if (t->limit > 0)
                buf_printf(&sql, " LIMIT %lld", (long long)t->limit);
        if (t->offset > 0)
                buf_printf(&sql, " OFFSET %lld", (long long)t->offset);
        buf_addc(&sql, '\0');
        int r = sql.failed || t->where.failed || t->order.failed ? -ENOMEM : 0;
        if (!r) {
                r = pg_query(s->pg, buf_str(&sql).p, t->values, (int)t->n, true, &res, &e);
                r = r ? pg_fail(t->c, r, &e, NULL) : read_rows(t, res, out);
        }
        PQclear(res);
        buf_fini(&sql);
        return r;
}

int store_query(struct dapr_call *c, void *instance, const struct dapr_query *in, struct dapr_query_result *out)
{
        struct translation t = {.c = c};
        arena_init(&t.a, QUERY_BYTES_MAX);
        int r = translate(&t, in->json);
        if (!r)
                r = run(&t, instance, out);
        buf_fini(&t.where);
        buf_fini(&t.order);
        arena_fini(&t.a);
        return r;
}
