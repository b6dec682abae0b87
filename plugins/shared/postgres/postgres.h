/*
 * A PostgreSQL client on fibers: a small pool of libpq connections that never block the loop. Whatever waits for the server parks
 * the calling fiber on the connection's socket; name look-up, TLS and password hashing of a new connection run on worker threads.
 * A connection that broke is replaced at its next use. Used by every plugin that speaks to PostgreSQL.
 *
 * Results of the functions below, unless they say otherwise: 0 = done; PG_REFUSED = the server answered with an error; a negative
 * errno = no answer (-ECONNRESET, -ETIMEDOUT, -ECANCELED, -ENOMEM). struct pg_error says why in both cases. All park.
 */
#ifndef PLUGINS_SHARED_POSTGRES_H
#define PLUGINS_SHARED_POSTGRES_H

#include <postgresql/libpq-fe.h>

#include "dapr/plugin.h"
#include "sdk/base/str.h"

enum { PG_REFUSED = 1 };
enum { PG_PAIRS_MAX = 64, PG_STATEMENTS_MAX = 32, PG_ERROR_BYTES = 512 };

struct pg_error {
        char sqlstate[6];            /* "" when it is not from the server */
        char text[PG_ERROR_BYTES];   /* "ERROR: relation "t" does not exist (SQLSTATE 42P01)" */
};

/* ---- settings ---- */
struct pg_settings { /* of the component's metadata; strings are owned */
        char *keys[PG_PAIRS_MAX + 1], *values[PG_PAIRS_MAX + 1]; /* libpq's keywords, NULL-terminated */
        size_t n;
        int max_conns;
        double timeout_s, max_idle_s, max_life_s;
        bool unnamed;                /* queryExecMode says: no named prepared statements */
};
/* Reads connectionString (a URI or key=value; alias url), the fields that override its parts, timeout, maxConns,
 * connectionMaxIdleTime, queryExecMode. Keywords that libpq does not know are settings of the session, as in the reference's driver.
 * prefix: put before what is wrong with the metadata itself, or "". 0, or dapr_fail()'s code. Does not park. */
int pg_settings_read(struct dapr_call *c, const struct dapr_metadata *md, const char *prefix, struct pg_settings *s);
void pg_settings_fini(struct pg_settings *s);

/* ---- pool ---- */
struct pg;
struct pg_conn;
/* Makes the pool and its first connection. Takes the settings in every case. Reports the backend's state under the call's instance
 * from then on. 0 and *ret, or dapr_fail()'s code. */
int pg_open(struct dapr_call *c, struct pg_settings *s, struct pg **ret);
/* Waits until no call uses it. */
void pg_close(struct pg *p);
/* Registers a statement that is used often: prepared once a connection. sql is kept until the pool is closed (takes nothing).
 * Returns its number, or -ENOSPC. */
int pg_statement(struct pg *p, const char *sql);
/* Limits what follows on this fiber to the pool's timeout; returns the old deadline for fiber_restore_deadline(). */
double pg_limit(const struct pg *p);

struct pg_param {
        const void *p;   /* NULL = SQL NULL; text is NUL-terminated */
        size_t n;        /* of binary ones */
        bool binary;
};
static inline struct pg_param pg_text(const char *z)
{
        return (struct pg_param){.p = z};
}
static inline struct pg_param pg_binary(const void *p, size_t n)
{
        return (struct pg_param){.p = p ? p : "", .n = n, .binary = true};
}

/* One statement on any connection, by its number. again: it may be sent a second time when the connection broke under it (reads).
 * *ret needs PQclear. Results come in binary. */
int pg_run(struct pg *p, int statement, const struct pg_param *params, int n, bool again, PGresult **ret, struct pg_error *e);
/* The same for a statement that is used once. */
int pg_query(struct pg *p, const char *sql, const struct pg_param *params, int n, bool again, PGresult **ret, struct pg_error *e);

/* For SQL of the app's: results come as text. params NULL: there may be several statements. Never sent twice. */
int pg_text_query(struct pg *p, const char *sql, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e);

/* A connection for oneself, for transactions. */
int pg_acquire(struct pg *p, struct pg_conn **ret, struct pg_error *e);
/* One that broke, or is inside a transaction still, is closed. NULL is fine. */
void pg_release(struct pg_conn *c);
int pg_conn_run(struct pg_conn *c, int statement, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e);
int pg_conn_query(struct pg_conn *c, const char *sql, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e);
/* Statements without parameters and results ("BEGIN"). */
int pg_conn_do(struct pg_conn *c, const char *sql, struct pg_error *e);

/* Column as text ("" for NULL), borrowed from the result; casts to text in the statement make every type one. */
struct str pg_column(const PGresult *res, int row, int col);
static inline bool pg_is_null(const PGresult *res, int row, int col)
{
        return PQgetisnull(res, row, col) != 0;
}
/* Rows that an INSERT, UPDATE or DELETE touched. */
int64_t pg_affected(PGresult *res);
/* For an outcome of the above: fills the call's text; returns DAPR_UNAVAILABLE, DAPR_INTERNAL or the errno. what: put before, or NULL. */
int pg_fail(struct dapr_call *c, int r, const struct pg_error *e, const char *what);
/* Does the server answer? 0, or dapr_fail()'s code. Parks. */
int pg_ping(struct dapr_call *c, struct pg *p);

/* ---- notifications ---- */
struct pg_listener;
struct pg_notification {
        struct str channel, payload; /* until the next one is asked for */
};
/* A connection beside the pool that listens to a channel (an SQL identifier, written as it stands in LISTEN). */
int pg_listen(struct pg *p, const char *channel, struct pg_listener **ret, struct pg_error *e);
/* Parks for the next. 0, -ECANCELED, or the connection's failure; then only pg_unlisten() is left. */
int pg_listener_next(struct pg_listener *l, struct pg_notification *ret, struct pg_error *e);
void pg_unlisten(struct pg_listener *l); /* NULL is fine */

/* ---- schema versions in a metadata table ---- */
struct pg_migration {
        /* p: for the statements; 0, or PG_REFUSED or an errno with e filled. */
        int (*run)(struct pg *p, void *arg, struct pg_error *e);
};
/* Brings the schema to the last version. The table (key, value) remembers the version under `key`; its row `lock` keeps other
 * processes out meanwhile. table and key come from the component's author. 0, or dapr_fail()'s code. */
int pg_migrate(struct dapr_call *c, struct pg *p, const char *table, const char *key, const struct pg_migration *steps, size_t n,
               void *arg);

#endif
