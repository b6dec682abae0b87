/* Connections and migrations. Statements are short-lived here; who repeats one keeps it prepared. */
#include "plugins/shared/sqlite/sqlite.h"

#include <dapr/plugin.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void sql_uuid(char out[SQL_UUID_BYTES])
{
        static _Thread_local uint8_t pool[512];
        static _Thread_local size_t left;
        static const char hex[] = "0123456789abcdef";
        if (!left) {
                size_t got = 0;
                while (got < sizeof pool) {
                        ssize_t n = getrandom(pool + got, sizeof pool - got, 0);
                        got += n > 0 ? (size_t)n : 0;
                }
                left = sizeof pool;
        }
        uint8_t *u = pool + sizeof pool - left;
        left -= 16;
        u[6] = (u[6] & 0x0f) | 0x40;
        u[8] = (u[8] & 0x3f) | 0x80;
        for (int i = 0; i < 16; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        *out++ = '-';
                *out++ = hex[u[i] >> 4];
                *out++ = hex[u[i] & 15];
        }
        *out = 0;
}

void sql_error(sqlite3 *h, int rc, char err[DB_ERROR_BYTES])
{
        const char *text = sqlite3_errstr(rc), *msg = h ? sqlite3_errmsg(h) : text;
        const char *busy = rc == SQLITE_BUSY ? " (SQLITE_BUSY)" : "";
        if (!strcmp(text, msg))
                snprintf(err, DB_ERROR_BYTES, "%s (%d)%s", text, rc, busy);
        else
                snprintf(err, DB_ERROR_BYTES, "%s: %s (%d)%s", text, msg, rc, busy);
}

int sql_run(sqlite3 *h, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        char *sql = sqlite3_vmprintf(fmt, ap);
        va_end(ap);
        int rc = sql ? sqlite3_exec(h, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
        sqlite3_free(sql);
        return rc;
}

int sql_scalar(sqlite3 *h, char *sql, char *out, size_t n, bool *found)
{
        sqlite3_stmt *st = NULL;
        int rc = sql ? sqlite3_prepare_v2(h, sql, -1, &st, NULL) : SQLITE_NOMEM;
        *found = false;
        if (!rc) {
                rc = sqlite3_step(st);
                if (rc == SQLITE_ROW) {
                        const char *text = (const char *)sqlite3_column_text(st, 0);
                        snprintf(out, n, "%s", text ? text : "");
                        *found = true;
                }
                rc = sqlite3_finalize(st);
        }
        sqlite3_free(sql);
        return rc;
}

int sql_open(sqlite3 **ret, const struct db_conf *conf, bool read_only, char err[DB_ERROR_BYTES])
{
        sqlite3 *h = NULL;
        int rc = sqlite3_open_v2(conf->uri, &h, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
        if (!rc) {
                sqlite3_extended_result_codes(h, 1);
                sqlite3_busy_timeout(h, conf->busy_ms);
        }
        for (size_t i = 0; !rc && i < conf->n_pragmas; i++)
                rc = sql_run(h, "pragma %s", conf->pragmas[i]);
        /* Debian's build overwrites deleted rows with zeros by default; upstream's does not. */
        if (!rc)
                rc = sql_run(h, "pragma secure_delete=off");
        if (!rc && read_only)
                rc = sql_run(h, "pragma query_only=on");
        if (rc) {
                char text[DB_ERROR_BYTES];
                int e = h ? sqlite3_system_errno(h) : 0;
                sql_error(h, rc, text);
                snprintf(err, DB_ERROR_BYTES, "%.200s%s%.200s%s%s", text, e ? ": " : "", e ? conf->uri : "", e ? ": " : "",
                         e ? strerrordesc_np(e) : "");
                sqlite3_close(h);
                h = NULL;
        }
        *ret = h;
        return rc;
}

/* ---- migrations ---- */

static int failed(sqlite3 *h, int rc, const char *what, char err[DB_ERROR_BYTES])
{
        char text[DB_ERROR_BYTES];
        sql_error(h, rc, text);
        snprintf(err, DB_ERROR_BYTES, "%s: %.300s", what, text);
        return -1;
}

static int ensure_metadata_table(sqlite3 *h, const char *table, char err[DB_ERROR_BYTES])
{
        char exists[8] = "";
        bool found;
        int rc = sql_scalar(h, sqlite3_mprintf("SELECT EXISTS (SELECT name FROM sqlite_master WHERE type='table' AND name = %Q)", table),
                        exists, sizeof exists, &found);
        if (rc)
                return failed(h, rc, "failed to ensure metadata table exists: failed to check if the metadata table exists", err);
        if (!strcmp(exists, "1"))
                return 0;
        dapr_log(DAPR_LOG_INFO, "Creating metadata table '%s' if it doesn't exist", table);
        rc = sql_run(h, "CREATE TABLE IF NOT EXISTS %s (\n\t\t\tkey text NOT NULL PRIMARY KEY,\n\t\t\tvalue text NOT NULL\n\t\t)", table);
        return rc ? failed(h, rc, "failed to ensure metadata table exists: failed to create metadata table", err) : 0;
}

static int migrate_in_transaction(sqlite3 *h, const struct db_conf *conf, const struct sql_migrations *m, char err[DB_ERROR_BYTES])
{
        const char *md = conf->metadata_table;
        char text[32] = "", what[128], *end;
        bool found;
        if (ensure_metadata_table(h, md, err))
                return -1;
        int rc = sql_scalar(h, sqlite3_mprintf("SELECT value FROM %s WHERE key = %Q", md, m->key), text, sizeof text, &found);
        if (rc)
                return failed(h, rc, "failed to read migration level", err);
        long level = found ? strtol(text, &end, 10) : 0;
        if (found && (end == text || *end || level < 0)) {
                snprintf(err, DB_ERROR_BYTES, "invalid migration level found in metadata table: %s", text);
                return -1;
        }
        for (size_t i = (size_t)level; i < m->n; i++) {
                dapr_log(DAPR_LOG_INFO, "Performing migration %zu", i + 1);
                snprintf(what, sizeof what, "failed to perform migration %zu: %s", i, m->what);
                if ((rc = m->step[i](h, conf->table)))
                        return failed(h, rc, what, err);
                rc = sql_run(h, "REPLACE INTO %s (key, value) VALUES (%Q, '%d')", md, m->key, (int)i + 1);
                if (rc)
                        return failed(h, rc, "failed to update migration level in metadata table", err);
        }
        return 0;
}

int sql_migrate(sqlite3 *h, const struct db_conf *conf, const struct sql_migrations *m, char err[DB_ERROR_BYTES])
{
        int rc = sql_run(h, "BEGIN EXCLUSIVE TRANSACTION");
        if (rc)
                return failed(h, rc, "failed to begin transaction", err);
        int r = migrate_in_transaction(h, conf, m, err);
        if (!r && (rc = sql_run(h, "COMMIT TRANSACTION")))
                r = failed(h, rc, "failed to commit transaction", err);
        if (r)
                sql_run(h, "ROLLBACK TRANSACTION");
        return r;
}
