/* bindings.postgresql: an output binding that runs the app's SQL: exec for what changes, query for rows as JSON, close for good. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/bindings.postgresql/rows.h"
#include "plugins/shared/postgres/postgres.h"
#include "sdk/base/arena.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"
#include "sdk/base/rfc3339.h"

enum { PARAMS_MAX = 65535, METADATA_MAX = 6 };
static const char *const operations[] = {"exec", "query", "close", NULL};

struct database { /* one component */
        struct pg *pg; /* NULL: closed by the app */
};

static int database_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct database *d = calloc(1, sizeof *d);
        struct pg_settings s;
        if (!d)
                return -ENOMEM;
        int r = pg_settings_read(c, md, "", &s);
        if (!r)
                r = pg_open(c, &s, &d->pg);
        if (r)
                free(d);
        else
                *instance = d;
        return r;
}

static void database_close(void *instance)
{
        struct database *d = instance;
        pg_close(d->pg);
        free(d);
}

static int database_ping(struct dapr_call *c, void *instance)
{
        struct database *d = instance;
        struct pg_error e;
        PGresult *res = NULL;
        int r = d->pg ? pg_query(d->pg, "SELECT 1", NULL, 0, true, &res, &e) : 0;
        if (r)
                return pg_fail(c, r, &e, NULL);
        PQclear(res);
        return 0;
}

/* ---- parameters ---- */

/* A whole number without what only JSON writes: 1.0 and 1e3 are integers to the server, too. */
static const char *number_text(struct dapr_call *c, struct str token)
{
        int64_t v;
        return json_number_to_int64(token, &v) ? dapr_printf(c, "%lld", (long long)v) : dapr_printf(c, "%.*s", STR_FMT(token));
}

static int read_param(struct dapr_call *c, struct json_reader *r, struct arena *a, struct pg_param *ret)
{
        struct str s;
        bool b;
        const char *text = NULL;
        if (json_read_null(r)) {
                *ret = (struct pg_param){0};
                return 0;
        }
        if (json_read_string(r, a, &s)) {
                if (memchr(s.p, 0, s.n))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid metadata property params: a string has a NUL, which SQL does not know");
                text = dapr_printf(c, "%.*s", STR_FMT(s));
        } else if (json_read_bool(r, &b)) {
                text = b ? "true" : "false";
        } else if (json_read_number(r, &s)) {
                text = number_text(c, s);
        } else if (json_read_raw(r, &s)) { /* objects and arrays are JSON to the server */
                text = dapr_printf(c, "%.*s", STR_FMT(s));
        } else {
                return -EBADMSG;
        }
        *ret = pg_text(text);
        return text ? 0 : -ENOMEM;
}

/* params: a JSON array. *ret is NULL when there is none. */
static int read_params(struct dapr_call *c, struct arena *a, const char *json, struct pg_param **ret, int *ret_n)
{
        struct json_reader r;
        size_t n = 0, cap = 0;
        struct pg_param *v = NULL;
        json_read_init(&r, str_of(json));
        bool good = json_enter_array(&r);
        while (good && json_next_element(&r)) {
                if (n == PARAMS_MAX)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid metadata property params: more than %d", PARAMS_MAX);
                if (n == cap) {
                        size_t more = cap ? cap * 2 : 8;
                        v = arena_grow(a, v, cap * sizeof *v, more * sizeof *v);
                        if (!v)
                                return -ENOMEM;
                        cap = more;
                }
                int e = read_param(c, &r, a, &v[n++]);
                if (e && e != -EBADMSG)
                        return e;
                good = e == 0;
        }
        if (!good || r.error || !json_at_end(&r))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid metadata property params: failed to unserialize into an array: %s at byte %zu",
                                 r.error ? r.error : "it is none", r.error_pos);
        *ret = v;
        *ret_n = (int)n;
        return 0;
}

/* ---- what the caller is told ---- */

static const char *time_text(struct dapr_call *c, int64_t ns)
{
        char t[RFC3339_BYTES];
        size_t n = rfc3339_format(t, ns / 1000000000, (int32_t)(ns % 1000000000));
        while (n > 2 && memchr(t, '.', n) && (t[n - 2] == '0' || t[n - 2] == '.')) { /* no zeros at the end of the fraction */
                bool last = t[n - 2] == '.';
                t[n - 2] = 'Z';
                n--;
                if (last)
                        break;
        }
        return dapr_printf(c, "%.*s", (int)n, t);
}

/* As Go writes durations: 1.5ms, 2.000000001s, 1m0.5s. */
static const char *duration_text(struct dapr_call *c, int64_t ns)
{
        static const struct {
                int64_t unit;
                int digits;
                const char *name;
        } units[] = {{1000000000, 9, "s"}, {1000000, 6, "ms"}, {1000, 3, "µs"}};
        char fraction[16];
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                if (ns < units[i].unit)
                        continue;
                int64_t whole = ns / units[i].unit;
                int n = snprintf(fraction, sizeof fraction, ".%0*lld", units[i].digits, (long long)(ns % units[i].unit));
                while (n > 0 && (fraction[n - 1] == '0' || fraction[n - 1] == '.'))
                        n = fraction[n - 1] == '.' ? 0 : n - 1;
                return i || whole < 60 ? dapr_printf(c, "%lld%.*s%s", (long long)whole, n, fraction, units[i].name)
                                       : dapr_printf(c, "%lldm%lld%.*ss", (long long)whole / 60, (long long)whole % 60, n, fraction);
        }
        return dapr_printf(c, ns ? "%lldns" : "0s", (long long)ns);
}

static int rows_json(struct dapr_call *c, const PGresult *res, struct dapr_bytes *ret)
{
        struct buf out = {0};
        int rows = PQntuples(res), columns = PQnfields(res), r = buf_addc(&out, '[');
        for (int i = 0; !r && i < rows; i++) {
                buf_adds(&out, i ? STR(",[") : STR("["));
                for (int k = 0; !r && k < columns; k++) {
                        struct sql_cell cell = {PQftype(res, k), pg_is_null(res, i, k) ? STR_NULL : pg_column(res, i, k)};
                        if (k)
                                buf_addc(&out, ',');
                        r = sql_cell_json(&out, &cell);
                }
                buf_addc(&out, ']');
        }
        buf_addc(&out, ']');
        if (r == -EDOM)
                r = dapr_fail(c, DAPR_INTERNAL, "error serializing results: JSON has no number for NaN and Infinity");
        if (!r)
                *ret = dapr_copy(c, buf_str(&out).p, buf_len(&out));
        r = r ? r : out.failed || !ret->p ? -ENOMEM : 0;
        buf_fini(&out);
        return r;
}

/* ---- operations ---- */

static int run(struct dapr_call *c, struct database *d, const char *sql, const char *params, bool is_query, PGresult **res)
{
        struct arena a;
        struct pg_param none = {0}, *v = NULL;
        struct pg_error e;
        int n = 0;
        arena_init(&a, 0);
        int r = params && *params ? read_params(c, &a, params, &v, &n) : 0;
        if (!r) {
                r = pg_text_query(d->pg, sql, v ? v : is_query ? &none : NULL, n, res, &e);
                r = r ? pg_fail(c, r, &e, "error executing query") : 0;
        }
        arena_fini(&a);
        return r;
}

static int database_invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        struct database *d = instance;
        const char *sql = dapr_kvs_get(in->metadata, "sql");
        bool is_query = strcmp(in->operation, "query") == 0, is_exec = strcmp(in->operation, "exec") == 0;
        struct dapr_kv *md = dapr_alloc(c, METADATA_MAX * sizeof *md);
        PGresult *res = NULL;
        if (strcmp(in->operation, "close") == 0) {
                struct pg *pg = d->pg;
                d->pg = NULL;
                pg_close(pg);
                return 0;
        }
        if (!d->pg)
                return dapr_fail(c, DAPR_FAILED_PRECONDITION, "component is closed");
        if (!sql || !*sql)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "required metadata not set: sql");
        if (!is_query && !is_exec)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid operation type: %s. Expected exec, query, or close", in->operation);
        if (!md)
                return -ENOMEM;
        int64_t began = wall_ns();
        int r = run(c, d, sql, dapr_kvs_get(in->metadata, "params"), is_query, &res);
        if (!r && is_query)
                r = rows_json(c, res, &out->data);
        if (!r) {
                int64_t ended = wall_ns();
                size_t n = 0;
                md[n++] = (struct dapr_kv){"operation", dapr_strdup(c, in->operation)};
                md[n++] = (struct dapr_kv){"sql", dapr_strdup(c, sql)};
                md[n++] = (struct dapr_kv){"start-time", time_text(c, began)};
                if (is_exec)
                        md[n++] = (struct dapr_kv){"rows-affected", dapr_printf(c, "%lld", (long long)pg_affected(res))};
                md[n++] = (struct dapr_kv){"end-time", time_text(c, ended)};
                md[n++] = (struct dapr_kv){"duration", duration_text(c, ended > began ? ended - began : 0)};
                out->metadata = (struct dapr_kvs){md, n};
                for (size_t i = 0; i < n; i++)
                        r = md[i].value ? r : -ENOMEM;
        }
        PQclear(res);
        return r;
}

static const struct dapr_binding_ops ops = {
        .mode = DAPR_FIBER,
        .init = database_init,
        .close = database_close,
        .ping = database_ping,
        .operations = operations,
        .invoke = database_invoke,
};
static const struct dapr_component_type types[] = {{.type = "bindings.postgresql", .versions = "v1", .binding = &ops},
                                                   {.type = "bindings.postgres", .versions = "v1", .binding = &ops}};
static const struct dapr_plugin plugin = {.name = "bindings.postgresql", .version = "1.0.0", .types = types, .n_types = 2};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
