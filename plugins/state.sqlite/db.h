/*
 * One sqlite connection with the statements of a state table in the reference's layout. Nothing here knows fibers or threads: a
 * connection serves one thread at a time.
 * Results are sqlite codes (SQLITE_OK, SQLITE_BUSY, …); their text is made by db_error().
 */
#ifndef PLUGIN_SQLITE_DB_H
#define PLUGIN_SQLITE_DB_H

#include <dapr/plugin.h>

#include "plugins/shared/sqlite/sqlite.h"

enum { DB_TIME_BYTES = 20, DB_ETAG_BYTES = SQL_UUID_BYTES };

enum db_stmt { DB_GET, DB_SET, DB_SET_FIRST, DB_SET_ETAG, DB_DELETE, DB_DELETE_ETAG, DB_BEGIN, DB_COMMIT, DB_ROLLBACK, DB_SAVE,
               DB_RELEASE, DB_ROLLBACK_TO, DB_STMTS };

struct db {
        sqlite3 *h;
        const struct db_conf *conf;
        sqlite3_stmt *stmt[DB_STMTS];
        struct db *next;         /* for the owner's pool */
        char error[DB_ERROR_BYTES]; /* of the last open that failed */
};

enum db_role { DB_WRITER, DB_READER };
/* Opens, sets the pragmas; a reader gets query_only. SQLITE_OK, or another code with the text in db->error. */
int db_open(struct db *db, const struct db_conf *conf, enum db_role role);
/* Prepares every statement now, so that none is compiled on a small stack later. The tables must exist. */
int db_prepare(struct db *db);
void db_close(struct db *db);
/* The reference's wording of a code on this connection: "database is locked (5) (SQLITE_BUSY)". */
void db_error(struct db *db, int rc, char err[DB_ERROR_BYTES]);
/* Creates or upgrades the tables. 0, or -1 with a sentence in err. */
int db_migrate(struct db *db, char err[DB_ERROR_BYTES]);

/* Steps a statement that gives no rows, and resets it. */
int db_step(struct db *db, enum db_stmt s);

struct db_get_result {
        bool found;
        struct dapr_bytes value;
        char etag[DB_ETAG_BYTES + 100]; /* another writer's may be longer */
        char expires[DB_TIME_BYTES + 1]; /* RFC 3339, "" if never */
};
/* One key. The value is allocated by alloc(arg). SQLITE_OK (found or not), SQLITE_NOMEM, SQLITE_MISMATCH (binary value that is not
 * base64), or another code. */
int db_get(struct db *db, const char *key, void *(*alloc)(void *arg, size_t n), void *arg, struct db_get_result *out);

struct db_write {
        const char *key;
        const char *value;       /* text as stored */
        size_t value_n;
        bool is_binary;
        const char *etag;        /* NULL or "" = none */
        bool first_write;
        int64_t ttl_s;           /* > 0 sets an expiry */
};
/* *ret_applied false = the etag (or first-write) condition did not hold. */
int db_set(struct db *db, const struct db_write *w, bool *ret_applied);
int db_delete(struct db *db, const char *key, const char *etag, bool *ret_applied);
/* Deletes expired rows unless another process did so within interval_ms. *ret_rows = -1 when it was too recent. */
int db_cleanup(struct db *db, int64_t interval_ms, int64_t *ret_rows);

/* Keys that match a LIKE pattern in rowid order, each given to row(); at most limit (0 = all) after rowid `after` (NULL = start). */
int db_keys_like(struct db *db, const char *pattern, const char *after, uint32_t limit, int (*row)(void *arg, const char *key, int64_t rowid),
                 void *arg);

/* "2026-01-02 03:04:05" in UTC, as sqlite's CURRENT_TIMESTAMP. */
void db_time_text(char out[DB_TIME_BYTES], int64_t unix_s);

#endif
