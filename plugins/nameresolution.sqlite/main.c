/*
 * nameresolution.sqlite: sidecars that share a file of SQLite. A row a sidecar, written at the start, renewed in time and deleted at
 * the end; rows that were not renewed are as good as gone. One connection, used on the one worker thread only.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/sqlite/sqlite.h"
#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"

enum { ADDRESSES_MAX = 64, ADDRESS_BYTES = 300, RENEW_PAUSE_MS = 50, SECOND_NS = 1000000000 };
#define ANSWER_S 1.0 /* the runtime may use an answer so long */

struct resolver {
        struct db_conf conf;
        sqlite3 *db;
        sqlite3_stmt *find;
        struct scope scope;
        char *instance, *app_id;
        char address[ADDRESS_BYTES], id[SQL_UUID_BYTES];
        int64_t update_s;
        double renew_s, cleanup_s;  /* cleanup_s 0 = never */
        double cleanup_at;          /* loop time */
        char error[DB_ERROR_BYTES]; /* of the background's jobs, of open and close: never two of them at once */
};

/* ---- on the worker ---- */

/* Runs the statement with text parameters. Rows changed, or -1 with r->error set. */
static int change(struct resolver *r, char *sql, const char *a, const char *b, const char *c)
{
        const char *const v[] = {a, b, c};
        sqlite3_stmt *st = NULL;
        int rc = sql ? sqlite3_prepare_v2(r->db, sql, -1, &st, NULL) : SQLITE_NOMEM;

        for (int i = 0; !rc && i < 3 && v[i]; i++)
                rc = sqlite3_bind_text(st, i + 1, v[i], -1, SQLITE_STATIC);
        if (!rc && (rc = sqlite3_step(st)) == SQLITE_DONE)
                rc = SQLITE_OK;
        if (rc)
                sql_error(r->db, rc, r->error);
        sqlite3_finalize(st);
        sqlite3_free(sql);
        return rc ? -1 : sqlite3_changes(r->db);
}

/* The address is unique: a row that an earlier sidecar left there is taken over. */
static int register_host(struct resolver *r)
{
        sql_uuid(r->id);
        char *sql = sqlite3_mprintf("REPLACE INTO %s (registration_id, address, app_id, namespace, last_update)"
                                    " VALUES (?1, ?2, ?3, '', unixepoch(CURRENT_TIMESTAMP))",
                                    r->conf.table);
        if (change(r, sql, r->id, r->address, r->app_id) >= 0)
                return 0;
        r->id[0] = '\0';
        return -1;
}

static int renew_once(struct resolver *r)
{
        char *sql = sqlite3_mprintf("UPDATE %s SET last_update = unixepoch(CURRENT_TIMESTAMP) WHERE registration_id = ?1 AND address = ?2",
                                    r->conf.table);
        return change(r, sql, r->id, r->address, NULL);
}

static int job_renew(void *arg)
{
        struct resolver *r = arg;
        int n = renew_once(r);

        if (n)
                return n < 0 ? -1 : 0;
        dapr_log(DAPR_LOG_ERROR, "the registration of %s at %s is lost: another sidecar has taken the address; registering again", r->app_id,
                 r->address);
        return register_host(r);
}

static int job_cleanup(void *arg)
{
        struct resolver *r = arg;
        char *sql = sqlite3_mprintf("INSERT INTO %s (key, value) VALUES ('nr-last-cleanup', CURRENT_TIMESTAMP) ON CONFLICT (key) DO UPDATE"
                                    " SET value = CURRENT_TIMESTAMP WHERE (unixepoch(CURRENT_TIMESTAMP) - unixepoch(value)) * 1000 > %lld",
                                    r->conf.metadata_table, (long long)(r->cleanup_s * 1000) - 100);
        int n = change(r, sql, NULL, NULL, NULL);

        if (n <= 0) /* failed, or somebody else did it */
                return n;
        n = change(r, sqlite3_mprintf("DELETE FROM %s WHERE unixepoch(CURRENT_TIMESTAMP) - last_update >= %lld", r->conf.table,
                                      (long long)r->update_s),
                   NULL, NULL, NULL);
        if (n > 0)
                dapr_log(DAPR_LOG_INFO, "Removed %d expired rows", n);
        return n < 0 ? -1 : 0;
}

static int create_hosts_table(sqlite3 *h, const char *t)
{
        dapr_log(DAPR_LOG_INFO, "Creating hosts table '%s'", t);
        return sql_run(h,
                       "CREATE TABLE %s (\n"
                       "\t\t\t\t\t\tregistration_id TEXT NOT NULL PRIMARY KEY,\n"
                       "\t\t\t\t\t\taddress TEXT NOT NULL,\n"
                       "\t\t\t\t\t\tapp_id TEXT NOT NULL,\n"
                       "\t\t\t\t\t\tnamespace TEXT NOT NULL,\n"
                       "\t\t\t\t\t\tlast_update INTEGER NOT NULL\n"
                       "\t\t\t\t\t);\n"
                       "CREATE UNIQUE INDEX %s_address_idx ON %s (address);\n"
                       "CREATE INDEX %s_last_update_idx ON %s (last_update);",
                       t, t, t, t, t);
}

static int prepare_find(struct resolver *r)
{
        char *sql = sqlite3_mprintf("SELECT address FROM %s WHERE app_id = ?1 AND unixepoch(CURRENT_TIMESTAMP) - last_update < %lld"
                                    " ORDER BY RANDOM() LIMIT %d",
                                    r->conf.table, (long long)r->update_s, ADDRESSES_MAX);
        int rc = sql ? sqlite3_prepare_v3(r->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &r->find, NULL) : SQLITE_NOMEM;

        sqlite3_free(sql);
        if (rc)
                sql_error(r->db, rc, r->error);
        return rc;
}

static int job_open(void *arg)
{
        static int (*const steps[])(sqlite3 *, const char *) = {create_hosts_table};
        static const struct sql_migrations all = {"nr-migrations", steps, 1, "failed to create hosts table"};
        struct resolver *r = arg;
        char text[DB_ERROR_BYTES];

        if (sql_open(&r->db, &r->conf, false, text)) {
                snprintf(r->error, sizeof r->error, "failed to create connection: %.400s", text);
                return -1;
        }
        if (sql_migrate(r->db, &r->conf, &all, text)) {
                snprintf(r->error, sizeof r->error, "failed to perform migrations: %.400s", text);
                return -1;
        }
        if (register_host(r)) {
                memcpy(text, r->error, sizeof text);
                snprintf(r->error, sizeof r->error, "failed to register host: %.400s", text);
                return -1;
        }
        return prepare_find(r);
}

static int job_close(void *arg)
{
        struct resolver *r = arg;
        int n = 1;

        if (r->id[0])
                n = change(r, sqlite3_mprintf("DELETE FROM %s WHERE registration_id = ?1 AND address = ?2", r->conf.table), r->id, r->address,
                           NULL);
        if (n <= 0)
                dapr_log(DAPR_LOG_ERROR, "failed to unregister host: %s", n < 0 ? r->error : "no row deleted");
        sqlite3_finalize(r->find);
        sqlite3_close(r->db);
        return 0;
}

/* ---- resolve ---- */

struct find_job {
        struct resolver *r;
        struct dapr_call *c;
        const char *id;
        const char **v;
        size_t n;
        char error[DB_ERROR_BYTES];
};

static int job_find(void *arg)
{
        struct find_job *j = arg;
        sqlite3_stmt *st = j->r->find;
        int rc;

        sqlite3_bind_text(st, 1, j->id, -1, SQLITE_STATIC);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW && j->n < ADDRESSES_MAX) {
                const char *text = (const char *)sqlite3_column_text(st, 0);
                if (text && (j->v[j->n] = dapr_strdup(j->c, text)))
                        j->n++;
        }
        if (rc != SQLITE_ROW && rc != SQLITE_DONE)
                sql_error(j->r->db, rc, j->error);
        sqlite3_reset(st);
        return rc != SQLITE_ROW && rc != SQLITE_DONE;
}

static int resolve(struct dapr_call *c, void *instance, const struct dapr_resolve *in, struct dapr_addresses *out)
{
        struct find_job j = {.r = instance, .c = c, .id = in->id, .v = dapr_alloc(c, ADDRESSES_MAX * sizeof *j.v)};

        if (!j.v)
                return -ENOMEM;
        int r = dapr_work(job_find, &j);
        if (r < 0)
                return r;
        if (r)
                return dapr_fail(c, DAPR_INTERNAL, "failed to look up address: %s", j.error);
        if (j.n == 0)
                return dapr_fail(c, DAPR_NOT_FOUND, "no host found with the given ID");
        *out = (struct dapr_addresses){j.v, j.n, ANSWER_S};
        return 0;
}

/* ---- in the background ---- */

/* A renewal that fails is tried again while the row still counts. */
static void renew(struct resolver *r)
{
        double until = loop_now() + r->conf.timeout_ms / 1e3;
        int failed = dapr_work(job_renew, r);

        while (failed && loop_now() < until && fiber_sleep(RENEW_PAUSE_MS / 1e3) == 0)
                failed = dapr_work(job_renew, r);
        if (!failed) {
                dapr_backend_up(r->instance);
        } else if (!fiber_is_cancelled()) {
                dapr_log(DAPR_LOG_ERROR, "Failed to update host registration: database error: %s", r->error);
                dapr_backend_down(r->instance, r->error);
        }
}

static void background_fiber(void *arg)
{
        struct resolver *r = arg;

        while (fiber_sleep(r->renew_s) == 0) {
                renew(r);
                if (r->cleanup_s <= 0 || loop_now() < r->cleanup_at)
                        continue;
                r->cleanup_at = loop_now() + r->cleanup_s;
                if (dapr_work(job_cleanup, r))
                        dapr_log(DAPR_LOG_ERROR, "Error removing expired data: %s", r->error);
        }
}

/* ---- life ---- */

static void close_resolver(void *instance)
{
        struct resolver *r = instance;

        scope_cancel(&r->scope);
        fiber_shield_begin();
        scope_join(&r->scope);
        if (r->db)
                dapr_work(job_close, r);
        fiber_shield_end();
        db_conf_fini(&r->conf);
        free(r->instance);
        free(r->app_id);
        free(r);
}

static const char *md_alias(const struct dapr_metadata *md, const char *field, const char *alias)
{
        return dapr_md_has(md, alias) && !dapr_md_has(md, field) ? alias : field;
}

static int read_sidecar(struct dapr_call *c, struct resolver *r)
{
        const struct dapr_sidecar *s = dapr_sidecar(c);

        if (!*s->app_id)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "name is missing");
        if (!*s->address)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "address is missing");
        if (s->internal_port <= 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "port is missing or invalid");
        snprintf(r->address, sizeof r->address, strchr(s->address, ':') ? "[%.250s]:%d" : "%.250s:%d", s->address, s->internal_port);
        r->app_id = strdup(s->app_id);
        r->instance = strdup(dapr_instance(c));
        return r->app_id && r->instance ? 0 : -ENOMEM;
}

static int read_settings(struct dapr_call *c, const struct dapr_metadata *md, struct resolver *r)
{
        const char *cs = dapr_md_string(md, md_alias(md, "connectionString", "url"));
        const char *table = dapr_md_string(md, "tableName"), *metadata_table = dapr_md_string(md, "metadataTableName");
        int64_t timeout = dapr_md_duration_ns(md, md_alias(md, "timeout", "timeoutInSeconds"));
        int64_t update = dapr_md_duration_ns(md, "updateInterval"), busy = dapr_md_duration_ns(md, "busyTimeout");
        int64_t cleanup = dapr_md_duration_ns(md, md_alias(md, "cleanupInterval", "cleanupIntervalInSeconds"));

        if (!cs || !*cs)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing connection string");
        if (timeout < SECOND_NS)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid value for 'timeout': must be greater than 1s");
        if (!db_valid_identifier(table))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid identifier for table name: %s", table ? table : "");
        if (!db_valid_identifier(metadata_table))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid identifier for metadata table name: %s", metadata_table ? metadata_table : "");
        if (update % SECOND_NS)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "update interval must not contain fractions of seconds");
        if (update - timeout < SECOND_NS)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "update interval must be at least 1s greater than timeout");
        if (busy > timeout)
                busy = timeout;
        r->update_s = update / SECOND_NS;
        r->renew_s = (double)(update - timeout) / SECOND_NS;
        r->cleanup_s = cleanup > 0 ? (double)cleanup / SECOND_NS : 0;
        r->conf.timeout_ms = timeout / 1000000 > INT32_MAX ? INT32_MAX : (int)(timeout / 1000000);
        r->conf.table = strdup(table);
        r->conf.metadata_table = strdup(metadata_table);
        if (!r->conf.table || !r->conf.metadata_table)
                return -ENOMEM;
        if (db_conf_parse(&r->conf, cs, busy, dapr_md_bool(md, "disableWAL"), r->error))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s", r->error);
        if (r->conf.memory)
                dapr_log(DAPR_LOG_WARN, "Configuring name resolution with an in-memory SQLite database. Service invocation across different apps "
                                        "will not work.");
        return 0;
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct resolver *r = calloc(1, sizeof *r);

        if (!r)
                return -ENOMEM;
        scope_init(&r->scope);
        int code = read_sidecar(c, r);
        if (code == 0)
                code = read_settings(c, md, r);
        if (code == 0 && (code = dapr_work(job_open, r)))
                code = dapr_fail(c, DAPR_INTERNAL, "%s", r->error);
        r->cleanup_at = loop_now() + r->cleanup_s;
        if (code == 0)
                code = fiber_go(&r->scope, "background", background_fiber, r);
        if (code)
                close_resolver(r);
        else
                *instance = r;
        return code;
}

static const struct dapr_name_ops ops = {.mode = DAPR_FIBER, .init = init, .close = close_resolver, .resolve = resolve};
static const struct dapr_component_type types[] = {{.type = "nameresolution.sqlite", .versions = "v1", .names = &ops}};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &(struct dapr_plugin){"nameresolution.sqlite", "1.0.0", types, 1, .worker_threads = 1});
}
