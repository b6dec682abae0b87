/*
 * The tables of both versions, as the reference makes them (components-contrib 1.17), and the statements on them.
 *
 * v1: key text, value jsonb, isbinary boolean (value is then a JSON string of base64), insertdate, updatedate, expiredate, row_id.
 *     The ETag is the system column xmin. Schema version in the metadata table's row `migrations`.
 * v2: key text, value bytea, etag uuid, created_at, updated_at, expires_at, row_id. Row `migrations-state-v2-<tablePrefix>`.
 * row_id is the order of insertion, for paging through keys.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/state.postgresql/store.h"
#include "sdk/base/arena.h"

/* ---- migrations ---- */

/* Formats and runs; the %1$s of fmt is `name`. */
static int run(struct pg *p, struct pg_error *e, const char *what, const char *fmt, const char *name)
{
        struct arena a;
        PGresult *res = NULL;
        arena_init(&a, 0);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        const char *sql = arena_printf(&a, fmt, name);
#pragma GCC diagnostic pop
        int r = sql ? pg_query(p, sql, NULL, 0, false, &res, e) : -ENOMEM;
        PQclear(r ? NULL : res);
        arena_fini(&a);
        if (r == PG_REFUSED) {
                char text[PG_ERROR_BYTES];
                snprintf(text, sizeof text, "%s", e->text);
                snprintf(e->text, sizeof e->text, "%s: %.400s", what, text);
        }
        return r;
}

static int create_v1(struct pg *p, void *arg, struct pg_error *e)
{
        struct store *s = arg;
        dapr_log(DAPR_LOG_INFO, "Creating state table '%s'", s->table);
        int r = run(p, e, "failed to create state table",
                    "CREATE TABLE IF NOT EXISTS %s ("
                    "key text NOT NULL PRIMARY KEY,"
                    "value jsonb NOT NULL,"
                    "isbinary boolean NOT NULL,"
                    "insertdate TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),"
                    "updatedate TIMESTAMP WITH TIME ZONE NULL)",
                    s->table);
        return r == PG_REFUSED && !strcmp(e->sqlstate, "23505") ? 0 : r; /* somebody else created it just now */
}

static int add_expiry_v1(struct pg *p, void *arg, struct pg_error *e)
{
        struct store *s = arg;
        dapr_log(DAPR_LOG_INFO, "Adding expiredate column to state table '%s'", s->table);
        return run(p, e, "failed to update state table", "ALTER TABLE %s ADD expiredate TIMESTAMP WITH TIME ZONE", s->table);
}

static int create_v2(struct pg *p, void *arg, struct pg_error *e)
{
        struct store *s = arg;
        dapr_log(DAPR_LOG_INFO, "Creating state table: '%s'", s->table);
        int r = run(p, e, "failed to create state table",
                    "CREATE TABLE IF NOT EXISTS %s ("
                    "key text NOT NULL PRIMARY KEY,"
                    "value bytea NOT NULL,"
                    "etag uuid NOT NULL DEFAULT gen_random_uuid(),"
                    "created_at timestamp with time zone NOT NULL DEFAULT now(),"
                    "updated_at timestamp with time zone,"
                    "expires_at timestamp with time zone)",
                    s->table);
        if (!r)
                r = run(p, e, "failed to create state table", "CREATE INDEX ON %s (expires_at)", s->table);
        return r == PG_REFUSED && !strcmp(e->sqlstate, "23505") ? 0 : r;
}

struct names { /* of the table, as the server knows it; in the arena */
        const char *quoted, *plain, *index;
};

static int resolve(struct pg *p, struct store *s, struct arena *a, struct names *n, struct pg_error *e)
{
        PGresult *res = NULL;
        struct pg_param param = pg_text(s->table);
        int r = pg_query(p,
                         "SELECT format('%I.%I', n.nspname, c.relname), n.nspname || '.' || c.relname, format('%I', c.relname || '_row_id_uidx')"
                         " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1::text)",
                         &param, 1, true, &res, e);
        if (r)
                return r;
        if (PQntuples(res) == 1) {
                n->quoted = arena_strdup(a, pg_column(res, 0, 0));
                n->plain = arena_strdup(a, pg_column(res, 0, 1));
                n->index = arena_strdup(a, pg_column(res, 0, 2));
                r = n->quoted && n->plain && n->index ? 0 : -ENOMEM;
        } else {
                snprintf(e->text, sizeof e->text, "resolve table OID: table \"%.400s\" not found", s->table);
                r = PG_REFUSED;
        }
        PQclear(res);
        return r;
}

/* One row, one boolean. */
static int ask(struct pg *p, const char *sql, const char *name, bool *yes, struct pg_error *e)
{
        PGresult *res = NULL;
        struct pg_param param = pg_text(name);
        int r = pg_query(p, sql, &param, 1, true, &res, e);
        if (r)
                return r;
        *yes = PQntuples(res) == 1 && str_eqz(pg_column(res, 0, 0), "true");
        PQclear(res);
        return 0;
}

static int align_sequence(struct pg *p, struct arena *a, const struct names *n, struct pg_error *e)
{
        struct pg_param param = pg_text(n->plain);
        PGresult *res = NULL;
        const char *sql = arena_printf(a,
                                       "SELECT setval(s, COALESCE((SELECT MAX(row_id) FROM %s), 0) + 1, false)"
                                       " FROM (SELECT pg_get_serial_sequence($1::text, 'row_id')) AS q(s) WHERE s IS NOT NULL",
                                       n->quoted);
        int r = sql ? pg_query(p, sql, &param, 1, false, &res, e) : -ENOMEM;
        PQclear(r ? NULL : res);
        return r;
}

static int number_rows(struct pg *p, struct store *s, struct arena *a, const struct names *n, struct pg_error *e)
{
        bool has = false, identity = false;
        int r = ask(p,
                    "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1::text)"
                    " AND attname = 'row_id' AND NOT attisdropped)::text",
                    s->table, &has, e);
        if (!r && !has)
                r = run(p, e, "add row_id column", "ALTER TABLE %s ADD COLUMN row_id BIGINT", n->quoted);
        if (!r) {
                const char *sql = arena_printf(a,
                                               "WITH ranked AS (SELECT key, ROW_NUMBER() OVER (ORDER BY %s ASC, key ASC) AS rn"
                                               " FROM %s WHERE row_id IS NULL)"
                                               " UPDATE %s AS t SET row_id = r.rn FROM ranked r WHERE r.key = t.key",
                                               s->layout->order, n->quoted, n->quoted);
                r = sql ? run(p, e, "backfill row_id", "%s", sql) : -ENOMEM;
        }
        if (!r)
                r = run(p, e, "set NOT NULL", "ALTER TABLE %s ALTER COLUMN row_id SET NOT NULL", n->quoted);
        if (!r)
                r = ask(p,
                        "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                        " JOIN information_schema.columns i ON i.table_schema = n.nspname AND i.table_name = c.relname"
                        " WHERE c.oid = to_regclass($1::text) AND i.column_name = 'row_id' AND i.is_identity = 'YES')::text",
                        s->table, &identity, e);
        if (!r && !identity)
                r = run(p, e, "add identity", "ALTER TABLE %s ALTER COLUMN row_id ADD GENERATED BY DEFAULT AS IDENTITY", n->quoted);
        return r;
}

static int add_row_id(struct pg *p, void *arg, struct pg_error *e)
{
        struct store *s = arg;
        struct names n = {0};
        struct arena a;
        arena_init(&a, 0);
        dapr_log(DAPR_LOG_INFO, "Ensuring row_id (identity) exists on '%s'", s->table);
        int r = resolve(p, s, &a, &n, e);
        if (!r)
                r = number_rows(p, s, &a, &n, e);
        if (!r)
                r = align_sequence(p, &a, &n, e);
        const char *sql = r ? NULL : arena_printf(&a, "CREATE UNIQUE INDEX IF NOT EXISTS %s ON %s (row_id)", n.index, n.quoted);
        if (!r)
                r = sql ? run(p, e, "create unique index on row_id", "%s", sql) : -ENOMEM;
        arena_fini(&a);
        return r;
}

static const struct pg_migration migrations_v1[] = {{create_v1}, {add_expiry_v1}, {add_row_id}};
static const struct pg_migration migrations_v2[] = {{create_v2}, {add_row_id}};

/* ---- statements ---- */

#define EPOCH(column) "floor(extract(epoch from " column "))::bigint::text"
#define V1_COLUMNS "s.value::text, s.isbinary::text, s.xmin::text, " EPOCH("s.expiredate")
#define V1_LIVE "(s.expiredate IS NULL OR s.expiredate >= CURRENT_TIMESTAMP)"
#define V1_EXPIRY "CURRENT_TIMESTAMP + $3::float8 * interval '1 second'"
#define V1_UPSERT                                                                                                       \
        "INSERT INTO %1$s AS t (key, value, isbinary, expiredate) VALUES ($1, $2, $4, " V1_EXPIRY ")"                   \
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value, isbinary = excluded.isbinary,"                        \
        " updatedate = CURRENT_TIMESTAMP, expiredate = excluded.expiredate"

const struct layout layout_v1 = {
        .version = 1,
        .sql = {[ST_GET] = "SELECT " V1_COLUMNS " FROM %1$s AS s WHERE s.key = $1 AND " V1_LIVE,
                [ST_BULK_GET] = "SELECT " V1_COLUMNS ", o.i::text FROM unnest($1::text[]) WITH ORDINALITY AS o(k, i)"
                                " JOIN %1$s AS s ON s.key = o.k WHERE " V1_LIVE,
                [ST_SET] = V1_UPSERT,
                [ST_SET_FIRST] = V1_UPSERT " WHERE (t.expiredate IS NOT NULL AND t.expiredate < CURRENT_TIMESTAMP)",
                [ST_SET_ETAG] = "UPDATE %1$s SET value = $2, isbinary = $4, updatedate = CURRENT_TIMESTAMP, expiredate = " V1_EXPIRY
                                " WHERE key = $1 AND xmin = $5::xid AND (expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)",
                [ST_DELETE] = "DELETE FROM %1$s WHERE key = $1",
                [ST_DELETE_ETAG] = "DELETE FROM %1$s WHERE key = $1 AND xmin = $2::xid",
                [ST_KEYS] = "SELECT key, row_id::text FROM %1$s WHERE key LIKE $1 AND (expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)"
                            " AND ($2::bigint IS NULL OR row_id > $2::bigint) ORDER BY row_id ASC LIMIT $3::bigint",
                [ST_EXPIRE] = "DELETE FROM %1$s WHERE expiredate IS NOT NULL AND expiredate < now()"},
        .order = "insertdate",
        .migrations = migrations_v1,
        .n_migrations = sizeof migrations_v1 / sizeof *migrations_v1,
};

#define V2_COLUMNS "s.value, 'false', s.etag::text, " EPOCH("s.expires_at")
#define V2_LIVE "(s.expires_at IS NULL OR s.expires_at >= now())"
#define V2_EXPIRY "now() + $3::float8 * interval '1 second'"
#define V2_UPSERT                                                                                                       \
        "INSERT INTO %1$s AS t (key, value, etag, expires_at) VALUES ($1, $2, gen_random_uuid(), " V2_EXPIRY ")"         \
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now(), etag = gen_random_uuid(),"         \
        " expires_at = excluded.expires_at"

const struct layout layout_v2 = {
        .version = 2,
        .sql = {[ST_GET] = "SELECT " V2_COLUMNS " FROM %1$s AS s WHERE s.key = $1 AND " V2_LIVE,
                [ST_BULK_GET] = "SELECT " V2_COLUMNS ", o.i::text FROM unnest($1::text[]) WITH ORDINALITY AS o(k, i)"
                                " JOIN %1$s AS s ON s.key = o.k WHERE " V2_LIVE,
                [ST_SET] = V2_UPSERT,
                [ST_SET_FIRST] = V2_UPSERT " WHERE (t.expires_at IS NOT NULL AND t.expires_at < now())",
                [ST_SET_ETAG] = "UPDATE %1$s SET value = $2, updated_at = now(), etag = gen_random_uuid(), expires_at = " V2_EXPIRY
                                " WHERE key = $1 AND etag = $4::uuid AND (expires_at IS NULL OR expires_at >= now())",
                [ST_DELETE] = "DELETE FROM %1$s WHERE key = $1",
                [ST_DELETE_ETAG] = "DELETE FROM %1$s WHERE key = $1 AND etag = $2::uuid",
                [ST_KEYS] = "SELECT key, row_id::text FROM %1$s WHERE key LIKE $1 AND (expires_at IS NULL OR expires_at > now())"
                            " AND ($2::bigint IS NULL OR row_id > $2::bigint) ORDER BY row_id ASC LIMIT $3::bigint",
                [ST_EXPIRE] = "DELETE FROM %1$s WHERE expires_at IS NOT NULL AND expires_at < now()"},
        .order = "created_at",
        .migrations = migrations_v2,
        .n_migrations = sizeof migrations_v2 / sizeof *migrations_v2,
};
