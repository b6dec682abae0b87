/*
 * configuration.postgresql: items are rows of a table with the columns key, value, version, metadata, as the reference reads them. A key
 * may have several rows; the one with the highest number as its version counts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/configuration.postgresql/store.h"
#include "sdk/base/flags.h"
#include "sdk/base/json.h"
#include "sdk/base/map.h"

enum { KEYS_MAX = 30000 };

/* ---- the component ---- */

static bool has_only(const char *s, const char *plain)
{
        return s[strspn(s, plain)] == '\0';
}

static int read_table(struct dapr_call *c, const struct dapr_metadata *md, struct store *s)
{
        const char *table = dapr_md_string(md, "table");
        if (!table || !*table)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing postgreSQL configuration table name");
        if (strlen(table) > TABLE_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "table name is too long - tableName : '%s'. max allowed field length is %d", table, TABLE_MAX);
        if (!has_only(table, "abcdefghijklmnopqrstuvwxyz0123456789./_"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid table name '%s'. non-alphanumerics or upper cased table names are not supported", table);
        snprintf(s->table, sizeof s->table, "%s", table);
        snprintf(s->select, sizeof s->select, "SELECT key::text, value::text, version::text, metadata::text FROM %s", table);
        return 0;
}

static int check_table(struct dapr_call *c, struct store *s)
{
        const struct pg_param name = pg_text(s->table);
        struct pg_error e;
        PGresult *res = NULL;
        int r = pg_query(s->pg, "SELECT 1 FROM pg_tables WHERE tablename = $1", &name, 1, true, &res, &e);
        if (r)
                return pg_fail(c, r, &e, "error in checking if configtable exists");
        bool there = PQntuples(res) > 0;
        PQclear(res);
        return there ? 0 : dapr_fail(c, DAPR_FAILED_PRECONDITION, "postgreSQL configuration table '%s' does not exist", s->table);
}

static void store_close(void *instance)
{
        struct store *s = instance;
        pg_close(s->pg);
        free(s);
}

static int store_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct store *s = calloc(1, sizeof *s);
        struct pg_settings settings;
        if (!s)
                return -ENOMEM;
        int r = read_table(c, md, s);
        if (!r && !(r = pg_settings_read(c, md, "", &settings)))
                r = pg_open(c, &settings, &s->pg);
        if (!r)
                r = check_table(c, s);
        if (r)
                store_close(s);
        else
                *instance = s;
        return r;
}

static int store_ping(struct dapr_call *c, void *instance)
{
        struct store *s = instance;
        return pg_ping(c, s->pg);
}

/* ---- items ---- */

struct dapr_kvs metadata_read(struct arena *a, struct str json)
{
        struct dapr_kv *v = arena_alloc(a, METADATA_MAX * sizeof *v);
        struct json_reader r;
        struct str key, value;
        size_t n = 0;
        json_read_init(&r, json);
        for (bool good = v && json_enter_object(&r); good && n < METADATA_MAX && json_next_member(&r, a, &key);) {
                if (json_read_null(&r))
                        continue;
                good = json_read_string(&r, a, &value) || json_read_raw(&r, &value);
                if (good)
                        v[n++] = (struct dapr_kv){arena_strdup(a, key), arena_strdup(a, value)};
        }
        for (size_t i = 0; i < n; i++)
                if (!v[i].key || !v[i].value)
                        return (struct dapr_kvs){0};
        return (struct dapr_kvs){v, r.error ? 0 : n};
}

static int64_t version_number(const char *text)
{
        int64_t n;
        return parse_int64(str_of(text), &n) ? -1 : n;
}

static int take_rows(struct arena *a, const PGresult *res, struct dapr_config_items *ret)
{
        struct map seen = {0};
        int n = PQntuples(res), r = 0;
        struct dapr_config_item *v = arena_zalloc(a, (size_t)n * sizeof *v);
        size_t kept = 0;
        for (int i = 0; v && !r && i < n; i++) {
                struct str key = pg_column(res, i, 0);
                const char *version = arena_strdup(a, pg_column(res, i, 2)), *value = arena_strdup(a, pg_column(res, i, 1));
                struct dapr_config_item *old = map_get(&seen, key), *to = old ? old : &v[kept++];
                if (!version || !value)
                        r = -ENOMEM;
                if (r || (old && version_number(version) <= version_number(old->version)))
                        continue;
                *to = (struct dapr_config_item){arena_strdup(a, key), value, version, metadata_read(a, pg_column(res, i, 3))};
                r = to->key ? map_set(&seen, key, to) : -ENOMEM;
        }
        map_fini(&seen);
        *ret = (struct dapr_config_items){v, kept};
        return v ? r : -ENOMEM;
}

int items_read(struct dapr_call *c, struct store *s, struct arena *a, const char *const *keys, size_t n, struct dapr_config_items *ret)
{
        struct pg_param *params = arena_alloc(a, (n + 1) * sizeof *params);
        struct buf sql = {0};
        struct pg_error e;
        PGresult *res = NULL;
        if (!params)
                return -ENOMEM;
        buf_addz(&sql, s->select);
        for (size_t i = 0; i < n; i++) {
                buf_printf(&sql, "%s$%zu", i ? "," : " WHERE key IN (", i + 1);
                params[i] = pg_text(keys[i]);
        }
        buf_add(&sql, ")", n ? 2 : 0);
        if (!n)
                buf_addc(&sql, '\0');
        int r = sql.failed ? -ENOMEM : pg_query(s->pg, sql.p, params, (int)n, true, &res, &e);
        if (r)
                r = r == -ENOMEM ? r : pg_fail(c, r, &e, "error in querying configuration store");
        else
                r = take_rows(a, res, ret);
        PQclear(res);
        buf_fini(&sql);
        return r;
}

static int store_get(struct dapr_call *c, void *instance, const struct dapr_config_query *in, struct dapr_config_items *out)
{
        struct store *s = instance;
        struct dapr_config_items found;
        struct arena a;
        for (size_t i = 0; i < in->n; i++)
                if (!has_only(in->keys[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./_"))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid key : '%s'", in->keys[i]);
        if (in->n > KEYS_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "more than %d keys at once", KEYS_MAX);
        arena_init(&a, 0);
        int r = items_read(c, s, &a, in->keys, in->n, &found);
        struct dapr_config_item *v = r ? NULL : dapr_alloc(c, found.n * sizeof *v);
        for (size_t i = 0; v && i < found.n; i++) {
                const struct dapr_config_item *f = &found.v[i];
                struct dapr_kv *md = dapr_alloc(c, f->metadata.n * sizeof *md);
                v[i] = (struct dapr_config_item){dapr_strdup(c, f->key), dapr_strdup(c, f->value), dapr_strdup(c, f->version), {md, f->metadata.n}};
                for (size_t k = 0; md && k < f->metadata.n; k++)
                        md[k] = (struct dapr_kv){dapr_strdup(c, f->metadata.v[k].key), dapr_strdup(c, f->metadata.v[k].value)};
                if (!md || !v[i].key || !v[i].value || !v[i].version)
                        r = -ENOMEM;
        }
        *out = (struct dapr_config_items){v, v ? found.n : 0};
        arena_fini(&a);
        return r ? r : v ? 0 : -ENOMEM;
}

static const struct dapr_configuration_ops ops = {
        .mode = DAPR_FIBER,
        .init = store_init,
        .close = store_close,
        .ping = store_ping,
        .get = store_get,
        .subscribe = store_subscribe,
};
static const struct dapr_component_type types[] = {{.type = "configuration.postgresql", .versions = "v1", .configuration = &ops},
                                                   {.type = "configuration.postgres", .versions = "v1", .configuration = &ops}};
static const struct dapr_plugin plugin = {.name = "configuration.postgresql", .version = "1.0.0", .types = types, .n_types = 2};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
