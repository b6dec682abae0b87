/*
 * Statements on a table of the reference's layout:
 *     key TEXT PRIMARY KEY, value TEXT, is_binary BOOLEAN, etag TEXT, expiration_time TIMESTAMP, update_time TIMESTAMP
 * value holds JSON text as it is, anything else as base64 with is_binary = 1. Times are UTC text "YYYY-MM-DD HH:MM:SS", bound
 * from here instead of computed by sqlite: one call a second instead of one a row. Every set makes a new random UUID as etag.
 */
#include "plugins/state.sqlite/db.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sdk/base/str.h"

/* ---- texts ---- */

void db_time_text(char out[DB_TIME_BYTES], int64_t unix_s)
{
        struct tm tm;
        time_t t = (time_t)unix_s;
        gmtime_r(&t, &tm);
        strftime(out, DB_TIME_BYTES, "%Y-%m-%d %H:%M:%S", &tm);
}

/* The time of this second, made once a second and thread. */
static const char *now_text(void)
{
        static _Thread_local char text[DB_TIME_BYTES];
        static _Thread_local int64_t of;
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME_COARSE, &ts);
        if (of != ts.tv_sec)
                db_time_text(text, of = ts.tv_sec);
        return text;
}

void db_error(struct db *db, int rc, char err[DB_ERROR_BYTES])
{
        sql_error(db->h, rc, err);
}

/* ---- open, close ---- */

int db_open(struct db *db, const struct db_conf *conf, enum db_role role)
{
        char error[DB_ERROR_BYTES];
        *db = (struct db){.conf = conf};
        int rc = sql_open(&db->h, conf, role == DB_READER, error);
        if (rc)
                memcpy(db->error, error, sizeof error);
        return rc;
}

void db_close(struct db *db)
{
        for (int i = 0; i < DB_STMTS; i++) {
                sqlite3_finalize(db->stmt[i]);
                db->stmt[i] = NULL;
        }
        sqlite3_close(db->h);
        db->h = NULL;
}

/* %s is the state table. */
static const char *const sql_texts[DB_STMTS] = {
        [DB_GET] = "SELECT value, is_binary, etag, expiration_time FROM %s"
                   " WHERE key = ?1 AND (expiration_time IS NULL OR expiration_time > ?2)",
        [DB_SET] = "INSERT OR REPLACE INTO %s (key, value, is_binary, etag, expiration_time, update_time)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        [DB_SET_FIRST] = "INSERT OR REPLACE INTO %s (key, value, is_binary, etag, expiration_time, update_time)"
                         " SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (SELECT 1 FROM %s"
                         " WHERE key = ?1 AND (expiration_time IS NULL OR expiration_time > ?6))",
        [DB_SET_ETAG] = "UPDATE %s SET value = ?2, is_binary = ?3, etag = ?4, expiration_time = ?5, update_time = ?6"
                        " WHERE key = ?1 AND etag = ?7 AND (expiration_time IS NULL OR expiration_time > ?6)",
        [DB_DELETE] = "DELETE FROM %s WHERE key = ?1",
        [DB_DELETE_ETAG] = "DELETE FROM %s WHERE key = ?1 AND etag = ?2",
        [DB_COMMIT] = "COMMIT",
        [DB_ROLLBACK] = "ROLLBACK",
        [DB_SAVE] = "SAVEPOINT op",
        [DB_RELEASE] = "RELEASE op",
        [DB_ROLLBACK_TO] = "ROLLBACK TO op",
};

static int prepare(struct db *db, enum db_stmt s)
{
        const char *t = db->conf->table;
        char *sql = s == DB_BEGIN       ? sqlite3_mprintf("%s", db->conf->begin)
                    : s == DB_SET_FIRST ? sqlite3_mprintf(sql_texts[s], t, t)
                                        : sqlite3_mprintf(sql_texts[s], t);
        int rc = sql ? sqlite3_prepare_v3(db->h, sql, -1, SQLITE_PREPARE_PERSISTENT, &db->stmt[s], NULL) : SQLITE_NOMEM;
        sqlite3_free(sql);
        return rc;
}

int db_prepare(struct db *db)
{
        int rc = SQLITE_OK;
        for (int i = 0; !rc && i < DB_STMTS; i++)
                rc = prepare(db, i);
        return rc;
}

int db_step(struct db *db, enum db_stmt s)
{
        int rc = sqlite3_step(db->stmt[s]);
        if (rc == SQLITE_ROW || rc == SQLITE_DONE)
                rc = SQLITE_OK;
        int reset = sqlite3_reset(db->stmt[s]);
        return rc ? rc : reset;
}

/* ---- migrations ---- */

static int create_state_table(sqlite3 *h, const char *table)
{
        dapr_log(DAPR_LOG_INFO, "Creating state table '%s'", table);
        return sql_run(h,
                       "CREATE TABLE IF NOT EXISTS %s (\n"
                       "\t\t\t\t\t\t\tkey TEXT NOT NULL PRIMARY KEY,\n"
                       "\t\t\t\t\t\t\tvalue TEXT NOT NULL,\n"
                       "\t\t\t\t\t\t\tis_binary BOOLEAN NOT NULL,\n"
                       "\t\t\t\t\t\t\tetag TEXT NOT NULL,\n"
                       "\t\t\t\t\t\t\texpiration_time TIMESTAMP DEFAULT NULL,\n"
                       "\t\t\t\t\t\t\tupdate_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP\n"
                       "\t\t\t\t\t\t)",
                       table);
}

int db_migrate(struct db *db, char err[DB_ERROR_BYTES])
{
        static int (*const steps[])(sqlite3 *, const char *) = {create_state_table};
        static const struct sql_migrations all = {"migrations", steps, 1, "failed to create state table"};
        return sql_migrate(db->h, db->conf, &all, err);
}

/* ---- reading ---- */

/* Values of base64 digits, plus one; 0 = none. */
static const uint8_t b64_digit[256] = {
        ['A'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
        ['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,
        ['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, ['+'] = 63, ['/'] = 64,
};

/* Standard alphabet with padding, as the writers of the table encode, and four digits at a time: values may be large. The number
 * of bytes, or -1. out has room for n bytes. */
static ssize_t b64_decode(uint8_t *out, const uint8_t *in, size_t n)
{
        uint8_t *o = out;
        size_t pad = n < 4 || in[n - 1] != '=' ? 0 : in[n - 2] == '=' ? 2 : 1;
        if (n % 4)
                return -1;
        for (size_t i = 0; i < n; i += 4) {
                size_t digits = i + 4 == n ? 4 - pad : 4;
                uint32_t v = 0;
                for (size_t d = 0; d < 4; d++) {
                        uint8_t digit = d < digits ? b64_digit[in[i + d]] : 1;
                        if (!digit)
                                return -1;
                        v = v << 6 | (digit - 1u);
                }
                *o++ = (uint8_t)(v >> 16);
                *o++ = (uint8_t)(v >> 8);
                *o++ = (uint8_t)v;
        }
        return o - out - (ssize_t)pad;
}

static int take_row(sqlite3_stmt *st, void *(*alloc)(void *, size_t), void *arg, struct db_get_result *out)
{
        const void *value = sqlite3_column_blob(st, 0);
        size_t n = (size_t)sqlite3_column_bytes(st, 0);
        const char *etag = (const char *)sqlite3_column_text(st, 2), *expires = (const char *)sqlite3_column_text(st, 3);
        uint8_t *copy = alloc(arg, n + 1);
        if (!copy)
                return SQLITE_NOMEM;
        out->found = true;
        if (sqlite3_column_int(st, 1)) {
                ssize_t got = b64_decode(copy, value, n);
                if (got < 0)
                        return SQLITE_MISMATCH;
                n = (size_t)got;
        } else if (n) {
                memcpy(copy, value, n);
        }
        out->value = (struct dapr_bytes){copy, n};
        snprintf(out->etag, sizeof out->etag, "%s", etag ? etag : "");
        out->expires[0] = 0;
        if (expires && strlen(expires) >= 19) {
                memcpy(out->expires, expires, 19);
                out->expires[10] = 'T';
                memcpy(out->expires + 19, "Z", 2);
        }
        return SQLITE_OK;
}

int db_get(struct db *db, const char *key, void *(*alloc)(void *, size_t), void *arg, struct db_get_result *out)
{
        sqlite3_stmt *st = db->stmt[DB_GET];
        out->found = false;
        sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 2, now_text(), DB_TIME_BYTES - 1, SQLITE_STATIC);
        int rc = sqlite3_step(st);
        if (rc == SQLITE_ROW)
                rc = take_row(st, alloc, arg, out);
        else if (rc == SQLITE_DONE)
                rc = SQLITE_OK;
        int reset = sqlite3_reset(st);
        return rc ? rc : reset;
}

int db_keys_like(struct db *db, const char *pattern, const char *after, uint32_t limit,
                 int (*row)(void *arg, const char *key, int64_t rowid), void *arg)
{
        sqlite3_stmt *st = NULL;
        char *sql = sqlite3_mprintf("SELECT key, rowid FROM %s WHERE key LIKE ?1 ESCAPE '\\'"
                                    " AND (expiration_time IS NULL OR expiration_time > ?2)%s ORDER BY rowid ASC%s",
                                    db->conf->table, after ? " AND rowid > ?3" : "", limit ? " LIMIT ?4" : "");
        int rc = sql ? sqlite3_prepare_v2(db->h, sql, -1, &st, NULL) : SQLITE_NOMEM;
        sqlite3_free(sql);
        if (rc)
                return rc;
        sqlite3_bind_text(st, 1, pattern, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 2, now_text(), DB_TIME_BYTES - 1, SQLITE_STATIC);
        if (after)
                sqlite3_bind_text(st, 3, after, -1, SQLITE_STATIC);
        if (limit)
                sqlite3_bind_int64(st, 4, limit);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW)
                if ((rc = row(arg, (const char *)sqlite3_column_text(st, 0), sqlite3_column_int64(st, 1))))
                        break;
        int fin = sqlite3_finalize(st);
        return rc == SQLITE_DONE ? fin : rc;
}

/* ---- writing ---- */

int db_set(struct db *db, const struct db_write *w, bool *ret_applied)
{
        bool has_etag = w->etag && *w->etag;
        enum db_stmt s = has_etag ? DB_SET_ETAG : w->first_write ? DB_SET_FIRST : DB_SET;
        sqlite3_stmt *st = db->stmt[s];
        char etag[DB_ETAG_BYTES], expires[DB_TIME_BYTES];
        const char *now = now_text();
        sql_uuid(etag);
        sqlite3_bind_text(st, 1, w->key, -1, SQLITE_STATIC);
        sqlite3_bind_text64(st, 2, w->value, w->value_n, SQLITE_STATIC, SQLITE_UTF8);
        sqlite3_bind_int(st, 3, w->is_binary);
        sqlite3_bind_text(st, 4, etag, DB_ETAG_BYTES - 1, SQLITE_STATIC);
        if (w->ttl_s > 0) {
                db_time_text(expires, (int64_t)time(NULL) + w->ttl_s);
                sqlite3_bind_text(st, 5, expires, DB_TIME_BYTES - 1, SQLITE_STATIC);
        } else {
                sqlite3_bind_null(st, 5);
        }
        sqlite3_bind_text(st, 6, now, DB_TIME_BYTES - 1, SQLITE_STATIC);
        if (has_etag)
                sqlite3_bind_text(st, 7, w->etag, -1, SQLITE_STATIC);
        int rc = db_step(db, s);
        *ret_applied = !rc && (s == DB_SET || sqlite3_changes(db->h) > 0);
        return rc;
}

int db_delete(struct db *db, const char *key, const char *etag, bool *ret_applied)
{
        bool has_etag = etag && *etag;
        enum db_stmt s = has_etag ? DB_DELETE_ETAG : DB_DELETE;
        sqlite3_bind_text(db->stmt[s], 1, key, -1, SQLITE_STATIC);
        if (has_etag)
                sqlite3_bind_text(db->stmt[s], 2, etag, -1, SQLITE_STATIC);
        int rc = db_step(db, s);
        *ret_applied = !rc && (!has_etag || sqlite3_changes(db->h) > 0);
        return rc;
}

int db_cleanup(struct db *db, int64_t interval_ms, int64_t *ret_rows)
{
        *ret_rows = -1;
        int rc = sql_run(db->h,
                     "INSERT INTO %s (key, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP) ON CONFLICT (key) DO UPDATE"
                     " SET value = CURRENT_TIMESTAMP WHERE (unixepoch(CURRENT_TIMESTAMP) - unixepoch(value)) * 1000 > %lld",
                     db->conf->metadata_table, (long long)interval_ms);
        if (rc || !sqlite3_changes(db->h))
                return rc;
        rc = sql_run(db->h, "DELETE FROM %s WHERE expiration_time IS NOT NULL AND expiration_time < CURRENT_TIMESTAMP", db->conf->table);
        if (!rc)
                *ret_rows = sqlite3_changes64(db->h);
        return rc;
}
