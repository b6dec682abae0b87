/*
 * Versions of a schema. A row of the metadata table is locked in a transaction of its own connection, as the reference does (so that
 * its sidecars and ours wait for each other); the steps run on other connections.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "plugins/shared/postgres/postgres.h"
#include "sdk/base/fiber.h"
#include "sdk/base/flags.h"

enum { CREATE_TRIES = 3 };

static int run(struct pg *p, const char *sql, const struct pg_param *params, int n, struct pg_error *e)
{
        PGresult *res = NULL;
        int r = sql ? pg_query(p, sql, params, n, false, &res, e) : -ENOMEM;
        PQclear(r ? NULL : res);
        return r;
}

/* Of two that create a table at the same time one fails, in spite of IF NOT EXISTS: by a key, a type or a name that is there, in the
 * order in which the server looks (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
static bool is_made_by_another(const struct pg_error *e)
{
        return strcmp(e->sqlstate, "23505") == 0 || strcmp(e->sqlstate, "42710") == 0 || strcmp(e->sqlstate, "42P07") == 0;
}

static int ensure_table(struct dapr_call *c, struct pg *p, const char *table)
{
        struct pg_error e;
        const char *sql = dapr_printf(c, "CREATE TABLE IF NOT EXISTS %s (\n\t\t\t\tkey text NOT NULL PRIMARY KEY,\n\t\t\t\tvalue text NOT NULL\n\t\t\t)", table);
        int r = 0;
        dapr_log(DAPR_LOG_INFO, "Creating metadata table '%s'", table);
        for (int i = 0; i < CREATE_TRIES; i++) {
                r = run(p, sql, NULL, 0, &e);
                if (r != PG_REFUSED || !is_made_by_another(&e))
                        break;
                dapr_sleep(0.05); /* another sidecar creates it just now */
        }
        return r ? pg_fail(c, r, &e, "failed to ensure metadata table exists: failed to create metadata table") : 0;
}

static int read_level(struct dapr_call *c, struct pg *p, const char *table, const char *key, int64_t *level)
{
        struct pg_error e;
        PGresult *res = NULL;
        struct pg_param param = pg_text(key);
        const char *sql = dapr_printf(c, "SELECT value FROM %s WHERE key = $1", table);
        int r = sql ? pg_query(p, sql, &param, 1, true, &res, &e) : -ENOMEM;
        if (r)
                return pg_fail(c, r, &e, "failed to read migration level");
        *level = 0;
        if (PQntuples(res) > 0) {
                struct str v = pg_column(res, 0, 0);
                if (parse_int64(v, level) != 0 || *level < 0)
                        r = dapr_fail(c, DAPR_INTERNAL, "invalid migration level found in metadata table: %.*s", STR_FMT(v));
        }
        PQclear(res);
        return r;
}

static int run_steps(struct dapr_call *c, struct pg *p, const char *table, const char *key, const struct pg_migration *steps, size_t n,
                     void *arg)
{
        struct pg_error e;
        int64_t level;
        int r = read_level(c, p, table, key, &level);
        const char *sql = dapr_printf(c, "INSERT INTO %s (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2", table);
        for (; !r && level < (int64_t)n; level++) {
                char what[64], next[24];
                dapr_log(DAPR_LOG_INFO, "Performing migration %lld", (long long)level + 1);
                snprintf(what, sizeof what, "failed to perform migration %lld", (long long)level);
                snprintf(next, sizeof next, "%lld", (long long)level + 1);
                r = steps[level].run(p, arg, &e);
                if (r) {
                        r = pg_fail(c, r, &e, what);
                        break;
                }
                struct pg_param params[] = {pg_text(key), pg_text(next)};
                r = run(p, sql, params, 2, &e);
                if (r)
                        r = pg_fail(c, r, &e, "failed to update migration level in metadata table");
        }
        return r;
}

int pg_migrate(struct dapr_call *c, struct pg *p, const char *table, const char *key, const struct pg_migration *steps, size_t n, void *arg)
{
        struct pg_error e = {0};
        struct pg_conn *lock = NULL;
        const char *insert = NULL, *take = NULL;
        int r = ensure_table(c, p, table);
        if (!r)
                r = (insert = dapr_printf(c, "INSERT INTO %s (key, value) VALUES ('lock', 'lock') ON CONFLICT (key) DO NOTHING", table)) ? 0 : -ENOMEM;
        if (!r)
                r = (take = dapr_printf(c, "SELECT value FROM %s WHERE key = 'lock' FOR UPDATE", table)) ? 0 : -ENOMEM;
        if (r)
                return r;
        r = run(p, insert, NULL, 0, &e);
        if (r)
                return pg_fail(c, r, &e, "failed to ensure lock row 'lock' exists");
        r = pg_acquire(p, &lock, &e);
        if (!r)
                r = pg_conn_do(lock, "BEGIN", &e);
        if (r) {
                pg_release(lock);
                return pg_fail(c, r, &e, "failed to begin transaction");
        }
        r = pg_conn_do(lock, take, &e);
        r = r ? pg_fail(c, r, &e, "failed to acquire migration lock (row-level lock on key 'lock')") : run_steps(c, p, table, key, steps, n, arg);
        struct pg_error ignored;
        fiber_shield_begin(); /* the value is the same: only the lock has to go; a connection that stays open would keep it */
        pg_conn_do(lock, "ROLLBACK", &ignored);
        fiber_shield_end();
        pg_release(lock);
        return r;
}
