/* One libpq connection on fibers; of the pool only. */
#ifndef PLUGINS_SHARED_POSTGRES_SESSION_H
#define PLUGINS_SHARED_POSTGRES_SESSION_H

#include "plugins/shared/postgres/postgres.h"

struct pg_conn {
        struct pg *pool;
        PGconn *h;
        struct pg_conn *next;        /* in the pool's idle list */
        double born, used;           /* loop time */
        uint64_t prepared;           /* bit of each statement of the pool that this connection knows */
        bool as_text;                /* results of session_run() come as text, else in binary */
        bool broken;                 /* a call was cut short: what the socket holds is unknown */
};
_Static_assert(PG_STATEMENTS_MAX <= 64, "one bit a statement");

const struct pg_settings *pg_settings_of(const struct pg *p);
/* 0 and *ret, or a negative errno with e filled. Parks; DNS, TLS and password hashing run on worker threads. */
int session_open(const struct pg_settings *s, struct pg_conn **ret, struct pg_error *e);
void session_free(struct pg_conn *c); /* NULL is fine */
/* Has the server closed it, or can it be used? Does not park. */
bool session_is_alive(struct pg_conn *c);
/* name NULL = the unnamed statement. sql NULL = name is prepared already. */
int session_run(struct pg_conn *c, const char *name, const char *sql, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e);
int session_prepare(struct pg_conn *c, const char *name, const char *sql, struct pg_error *e);
int session_do(struct pg_conn *c, const char *sql, struct pg_error *e);
/* Perhaps several statements; *ret is the last one's result, as text. */
int session_simple(struct pg_conn *c, const char *sql, PGresult **ret, struct pg_error *e);

#endif
