/*
 * The pool: idle connections (the one used last is taken first), a limit, and a fiber that closes what idles too long or is too old.
 * Who finds the pool empty at its limit waits in line. A connection is looked at before it is handed out, so a server that was
 * started again is not noticed by callers; a read whose connection breaks under it is sent once more.
 */
#include "plugins/shared/postgres/postgres.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/postgres/session.h"
#include "sdk/base/fiber.h"
#include "sdk/base/flags.h"
#include "sdk/base/loop.h"

enum { SWEEP_S = 30 };

struct pg {
        struct pg_settings s;
        char *instance;
        struct pg_conn *idle;
        int n_conns, users;
        struct cond changed;          /* a connection came back, or a place for one */
        struct scope scope;
        bool closing, up, known;
        size_t n_statements;
        const char *sql[PG_STATEMENTS_MAX];
        char name[PG_STATEMENTS_MAX][8];
};

static void set_up(struct pg *p, bool up, const char *why)
{
        if (p->closing || (p->known && p->up == up))
                return;
        p->known = true;
        p->up = up;
        if (up)
                dapr_backend_up(p->instance);
        else
                dapr_backend_down(p->instance, why);
}

static void discard(struct pg *p, struct pg_conn *c)
{
        session_free(c);
        p->n_conns--;
        cond_signal(&p->changed);
}

static bool is_spent(const struct pg *p, const struct pg_conn *c)
{
        return loop_now() - c->used > p->s.max_idle_s || loop_now() - c->born > p->s.max_life_s;
}

static void sweep_fiber(void *arg)
{
        struct pg *p = arg;
        double period = fmin(SWEEP_S, p->s.max_idle_s);
        while (fiber_sleep(period) == 0)
                for (struct pg_conn **at = &p->idle; *at;) {
                        struct pg_conn *c = *at;
                        if (!is_spent(p, c) && session_is_alive(c)) {
                                at = &c->next;
                                continue;
                        }
                        *at = c->next;
                        discard(p, c);
                }
}

/* ---- handing out ---- */

static int dial(struct pg *p, struct pg_conn **ret, struct pg_error *e)
{
        p->n_conns++;
        int r = session_open(&p->s, ret, e);
        if (r) {
                p->n_conns--;
                cond_signal(&p->changed);
                if (r != -ECANCELED && r != -ENOMEM)
                        set_up(p, false, e->text);
                return r;
        }
        (*ret)->pool = p;
        return 0;
}

int pg_acquire(struct pg *p, struct pg_conn **ret, struct pg_error *e)
{
        int r = 0;
        *e = (struct pg_error){0};
        p->users++;
        while (!r) {
                if (p->closing) {
                        r = -ECANCELED;
                } else if (p->idle) {
                        struct pg_conn *c = p->idle;
                        p->idle = c->next;
                        if (!is_spent(p, c) && session_is_alive(c)) {
                                *ret = c;
                                return 0;
                        }
                        discard(p, c);
                } else if (p->n_conns < p->s.max_conns) {
                        r = dial(p, ret, e);
                        if (!r)
                                return 0;
                } else {
                        r = cond_wait(&p->changed);
                        if (r) /* the signal may have been meant for this fiber */
                                cond_signal(&p->changed);
                }
        }
        if (!e->text[0])
                snprintf(e->text, sizeof e->text, "%s", r == -ETIMEDOUT ? "timeout: no connection became free in time" : strerror(-r));
        p->users--;
        return r;
}

void pg_release(struct pg_conn *c)
{
        if (!c)
                return;
        struct pg *p = c->pool;
        p->users--;
        if (c->broken || p->closing || PQtransactionStatus(c->h) != PQTRANS_IDLE) {
                discard(p, c);
                return;
        }
        set_up(p, true, NULL);
        c->next = p->idle;
        p->idle = c;
        cond_signal(&p->changed);
}

/* ---- open and close ---- */

int pg_open(struct dapr_call *c, struct pg_settings *s, struct pg **ret)
{
        struct pg *p = calloc(1, sizeof *p);
        struct pg_error e;
        struct pg_conn *first;
        if (!p) {
                pg_settings_fini(s);
                return -ENOMEM;
        }
        p->s = *s;
        *s = (struct pg_settings){0};
        cond_init(&p->changed);
        scope_init(&p->scope);
        p->instance = strdup(dapr_instance(c));
        int r = p->instance ? pg_acquire(p, &first, &e) : -ENOMEM;
        if (r) {
                if (r != -ENOMEM)
                        r = pg_fail(c, r, &e, "failed to ping the database");
        } else {
                pg_release(first);
                r = fiber_go(&p->scope, "pg-sweep", sweep_fiber, p);
        }
        if (r) {
                pg_close(p);
                return r;
        }
        *ret = p;
        return 0;
}

void pg_close(struct pg *p)
{
        if (!p)
                return;
        p->closing = true;
        cond_broadcast(&p->changed);
        scope_cancel(&p->scope);
        scope_join(&p->scope);
        fiber_shield_begin();
        while (p->users)
                fiber_sleep(0.005);
        fiber_shield_end();
        while (p->idle) {
                struct pg_conn *next = p->idle->next;
                session_free(p->idle);
                p->idle = next;
        }
        pg_settings_fini(&p->s);
        free(p->instance);
        free(p);
}

int pg_statement(struct pg *p, const char *sql)
{
        if (p->n_statements == PG_STATEMENTS_MAX)
                return -ENOSPC;
        size_t i = p->n_statements++;
        p->sql[i] = sql;
        snprintf(p->name[i], sizeof p->name[i], "dapr%u", (unsigned)i % 100);
        return (int)i;
}

double pg_limit(const struct pg *p)
{
        return fiber_set_deadline(loop_now() + p->s.timeout_s);
}

/* ---- statements ---- */

/* A plan that the server no longer has (a pooler in between, DISCARD ALL) or that no longer fits the table. */
static bool is_stale(const struct pg_error *e)
{
        return !strcmp(e->sqlstate, "26000") || (!strcmp(e->sqlstate, "0A000") && strstr(e->text, "cached plan"));
}

int pg_conn_run(struct pg_conn *c, int statement, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e)
{
        struct pg *p = c->pool;
        uint64_t bit = 1ull << statement;
        if (p->s.unnamed)
                return session_run(c, NULL, p->sql[statement], params, n, ret, e);
        for (bool again = false;; again = true) {
                int r = 0;
                if (!(c->prepared & bit)) {
                        r = session_prepare(c, p->name[statement], p->sql[statement], e);
                        if (r)
                                return r;
                        c->prepared |= bit;
                }
                r = session_run(c, p->name[statement], NULL, params, n, ret, e);
                if (r != PG_REFUSED || !is_stale(e))
                        return r;
                bool in_tx = PQtransactionStatus(c->h) != PQTRANS_IDLE;
                c->broken |= in_tx || again; /* the next caller begins with a connection that has no plans */
                if (in_tx || again)
                        return r;
                struct pg_error ignored;
                session_do(c, "DEALLOCATE ALL", &ignored);
                c->prepared = 0;
        }
}

int pg_conn_query(struct pg_conn *c, const char *sql, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e)
{
        return session_run(c, NULL, sql, params, n, ret, e);
}

int pg_conn_do(struct pg_conn *c, const char *sql, struct pg_error *e)
{
        return session_do(c, sql, e);
}

static int on_any(struct pg *p, int statement, const char *sql, const struct pg_param *params, int n, bool again, PGresult **ret,
                  struct pg_error *e)
{
        double old = pg_limit(p);
        int r;
        for (int tries = 0;; tries++) {
                struct pg_conn *c = NULL;
                r = pg_acquire(p, &c, e);
                if (r)
                        break;
                r = sql ? pg_conn_query(c, sql, params, n, ret, e) : pg_conn_run(c, statement, params, n, ret, e);
                bool gone = r && c->broken && r != -ETIMEDOUT && r != -ECANCELED;
                pg_release(c);
                if (!gone || !again || tries > 0)
                        break;
        }
        fiber_restore_deadline(old);
        return r;
}

int pg_run(struct pg *p, int statement, const struct pg_param *params, int n, bool again, PGresult **ret, struct pg_error *e)
{
        return on_any(p, statement, NULL, params, n, again, ret, e);
}

int pg_query(struct pg *p, const char *sql, const struct pg_param *params, int n, bool again, PGresult **ret, struct pg_error *e)
{
        return on_any(p, 0, sql, params, n, again, ret, e);
}

int pg_text_query(struct pg *p, const char *sql, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e)
{
        double old = pg_limit(p);
        struct pg_conn *c = NULL;
        int r = pg_acquire(p, &c, e);
        if (!r) {
                c->as_text = true;
                r = params ? session_run(c, NULL, sql, params, n, ret, e) : session_simple(c, sql, ret, e);
                c->as_text = false;
                pg_release(c);
        }
        fiber_restore_deadline(old);
        return r;
}

const struct pg_settings *pg_settings_of(const struct pg *p)
{
        return &p->s;
}

/* ---- results ---- */

struct str pg_column(const PGresult *res, int row, int col)
{
        return str_n(PQgetvalue(res, row, col), (size_t)PQgetlength(res, row, col));
}

int64_t pg_affected(PGresult *res)
{
        return strtoll(PQcmdTuples(res), NULL, 10);
}

int pg_fail(struct dapr_call *c, int r, const struct pg_error *e, const char *what)
{
        if (r == -ENOMEM || r == -ECANCELED)
                return r;
        return dapr_fail(c, r == PG_REFUSED ? DAPR_INTERNAL : DAPR_UNAVAILABLE, "%s%s%s", what ? what : "", what ? ": " : "", e->text);
}

int pg_ping(struct dapr_call *c, struct pg *p)
{
        struct pg_error e;
        PGresult *res = NULL;
        int r = pg_query(p, "SELECT 1", NULL, 0, true, &res, &e);
        if (r)
                return pg_fail(c, r, &e, NULL);
        PQclear(res);
        return 0;
}
