/*
 * What components on a SQLite file have in common, in the reference's ways: the connection string, opening with its pragmas, the
 * migrations that the metadata table counts. The only home of <sqlite3.h>. Nothing here knows fibers or threads: a connection serves
 * one thread at a time. Results are sqlite codes (SQLITE_OK, SQLITE_BUSY, ...); their text is made by sql_error().
 */
#ifndef PLUGINS_SHARED_SQLITE_H
#define PLUGINS_SHARED_SQLITE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DB_PRAGMAS_MAX = 32, DB_ERROR_BYTES = 512, SQL_UUID_BYTES = 37 };

struct db_conf {
        char *uri;               /* "file:path?options", heap */
        char *pragmas[DB_PRAGMAS_MAX]; /* "journal_mode(WAL)", in order, heap */
        size_t n_pragmas;
        const char *begin;       /* how a write transaction starts, from _txlock */
        char *table, *metadata_table; /* valid identifiers, heap */
        bool memory;             /* ":memory:": one connection at most */
        int busy_ms, timeout_ms;
};

/* Reads connectionString, busyTimeout and disableWAL as the reference does. 0, or -1 with a sentence in err. */
int db_conf_parse(struct db_conf *c, const char *connection_string, int64_t busy_ns, bool disable_wal, char err[DB_ERROR_BYTES]);
void db_conf_fini(struct db_conf *c);
bool db_valid_identifier(const char *s);

/* Opens and sets the pragmas; read_only: query_only on top. SQLITE_OK and *ret, or another code with a text in err. */
int sql_open(sqlite3 **ret, const struct db_conf *conf, bool read_only, char err[DB_ERROR_BYTES]);
/* Runs statements that give no rows; printf by sqlite3_mprintf's rules. */
int sql_run(sqlite3 *h, const char *fmt, ...);
/* The first column of the first row as text; *found false = no row. sql: from sqlite3_mprintf, freed here. */
int sql_scalar(sqlite3 *h, char *sql, char *out, size_t n, bool *found);
/* The reference's wording of a code on this connection: "database is locked (5) (SQLITE_BUSY)". h may be NULL. */
void sql_error(sqlite3 *h, int rc, char err[DB_ERROR_BYTES]);
/* A random UUID, version 4. */
void sql_uuid(char out[SQL_UUID_BYTES]);

struct sql_migrations {
        const char *key;         /* of the metadata table's row that counts them: "migrations" */
        int (*const *step)(sqlite3 *h, const char *table); /* SQLite's code */
        size_t n;
        const char *what;        /* before the text of a failed step: "failed to create state table" */
};
/* Creates or upgrades conf->table, in one exclusive transaction. 0, or -1 with a sentence in err. */
int sql_migrate(sqlite3 *h, const struct db_conf *conf, const struct sql_migrations *m, char err[DB_ERROR_BYTES]);

#endif
