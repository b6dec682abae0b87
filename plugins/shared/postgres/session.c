/*
 * One libpq connection on fibers. Connecting is libpq's state machine: each step runs on a worker thread (it may look up names, do
 * TLS or hash a password, and needs a deep stack), the waits between the steps park the fiber. A call that ends early (deadline,
 * cancel, network) leaves the connection broken; it is never used again.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/postgres/session.h"
#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"

enum { PARAM_BYTES = sizeof(char *) + 2 * sizeof(int) };
enum { PARAMS_FEW = 16, PARAMS_MAX = 65535 }; /* the protocol counts them in two bytes */

static void set_error(struct pg_error *e, const char *text)
{
        size_t n = strlen(text);
        while (n && (unsigned char)text[n - 1] <= ' ')
                n--;
        e->sqlstate[0] = '\0';
        snprintf(e->text, sizeof e->text, "%.*s", (int)(n < PG_ERROR_BYTES ? n : PG_ERROR_BYTES - 1), text);
        for (char *p = e->text; (p = strchr(p, '\n'));)
                *p = ' ';
}

static void set_errno(struct pg_error *e, int r)
{
        set_error(e, r == -ETIMEDOUT ? "timeout: the database did not answer in time" : strerror(-r));
}

static int from_result(const PGresult *res, struct pg_error *e)
{
        const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE), *severity = PQresultErrorField(res, PG_DIAG_SEVERITY),
                   *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
        if (!state) { /* libpq's own: the connection is gone */
                set_error(e, PQresultErrorMessage(res));
                return -ECONNRESET;
        }
        snprintf(e->sqlstate, sizeof e->sqlstate, "%s", state);
        snprintf(e->text, sizeof e->text, "%s: %.400s (SQLSTATE %s)", severity ? severity : "ERROR", text ? text : "", state);
        return PG_REFUSED;
}

/* ---- connecting ---- */

struct step {
        const struct pg_settings *s; /* NULL = poll */
        PGconn *h;
        PostgresPollingStatusType status;
};

static int step_on_worker(void *arg)
{
        struct step *st = arg;
        if (st->s)
                st->h = PQconnectStartParams((const char *const *)st->s->keys, (const char *const *)st->s->values, 0);
        else
                st->status = PQconnectPoll(st->h);
        return 0;
}

static int connect_steps(struct step *st, struct pg_error *e)
{
        int r = dapr_work(step_on_worker, st);
        if (r || !st->h)
                return r ? r : -ENOMEM;
        st->s = NULL;
        st->status = PGRES_POLLING_WRITING;
        if (PQstatus(st->h) == CONNECTION_BAD)
                st->status = PGRES_POLLING_FAILED;
        while (!r && st->status != PGRES_POLLING_OK && st->status != PGRES_POLLING_FAILED) {
                r = dapr_io_wait(PQsocket(st->h), st->status == PGRES_POLLING_READING ? IO_READ : IO_WRITE);
                if (!r)
                        r = dapr_work(step_on_worker, st);
        }
        if (r)
                return r;
        if (st->status == PGRES_POLLING_OK && PQsetnonblocking(st->h, 1) == 0)
                return 0;
        set_error(e, PQerrorMessage(st->h));
        return -ECONNREFUSED;
}

/* Notices are not for anybody; but what an idle connection hears last ("terminating connection…") comes as one. */
static void take_notice(void *arg, const PGresult *res)
{
        struct pg_conn *c = arg;
        const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
        if (severity && (!strcmp(severity, "FATAL") || !strcmp(severity, "PANIC")))
                c->broken = true;
}

int session_open(const struct pg_settings *s, struct pg_conn **ret, struct pg_error *e)
{
        struct step st = {.s = s};
        double limit = s->timeout_s;
        for (size_t i = 0; i < s->n; i++)
                if (!strcmp(s->keys[i], "connect_timeout") && atoi(s->values[i]) > 0)
                        limit = fmin(limit, atoi(s->values[i]));
        struct pg_conn *c = calloc(1, sizeof *c);
        if (!c)
                return -ENOMEM;
        e->text[0] = '\0';
        double old = fiber_set_deadline(loop_now() + limit);
        int r = connect_steps(&st, e);
        fiber_restore_deadline(old);
        if (r) {
                if (!e->text[0])
                        set_errno(e, r);
                PQfinish(st.h);
                free(c);
                return r;
        }
        PQsetNoticeReceiver(st.h, take_notice, c);
        c->h = st.h;
        c->born = c->used = loop_now();
        *ret = c;
        return 0;
}

void session_free(struct pg_conn *c)
{
        if (!c)
                return;
        PQfinish(c->h);
        free(c);
}

bool session_is_alive(struct pg_conn *c)
{
        /* PQisBusy() takes in what was read. Never busy: nothing was asked. */
        return !c->broken && PQconsumeInput(c->h) == 1 && !PQisBusy(c->h) && !c->broken && PQstatus(c->h) == CONNECTION_OK;
}

/* ---- statements ---- */

static int lost(struct pg_conn *c, int r, struct pg_error *e)
{
        c->broken = true;
        if (r == -ECONNRESET)
                set_error(e, PQerrorMessage(c->h));
        else
                set_errno(e, r);
        return r;
}

static int flush(struct pg_conn *c, struct pg_error *e)
{
        for (;;) {
                int f = PQflush(c->h);
                if (f == 0)
                        return 0;
                /* The server may answer before it has read all: what it says must be taken, or both sides wait. */
                int r = f < 0 ? -ECONNRESET : dapr_io_wait(PQsocket(c->h), IO_READ | IO_WRITE);
                if (!r && !PQconsumeInput(c->h))
                        r = -ECONNRESET;
                if (r)
                        return lost(c, r, e);
        }
}

/* All results of what was sent; the first that is an error, or the last. */
static int receive(struct pg_conn *c, PGresult **ret, struct pg_error *e)
{
        PGresult *kept = NULL;
        bool failed = false;
        int r = flush(c, e);
        while (!r) {
                while (!r && PQisBusy(c->h)) {
                        r = dapr_io_wait(PQsocket(c->h), IO_READ);
                        if (!r && !PQconsumeInput(c->h))
                                r = -ECONNRESET;
                }
                if (r) {
                        lost(c, r, e);
                        break;
                }
                PGresult *res = PQgetResult(c->h);
                if (!res)
                        break;
                if (failed) {
                        PQclear(res);
                        continue;
                }
                PQclear(kept);
                kept = res;
                ExecStatusType st = PQresultStatus(res);
                failed = st != PGRES_TUPLES_OK && st != PGRES_COMMAND_OK && st != PGRES_EMPTY_QUERY;
                if (st == PGRES_COPY_IN || st == PGRES_COPY_OUT || st == PGRES_COPY_BOTH) {
                        r = lost(c, -ENOTSUP, e);
                        break;
                }
        }
        c->used = loop_now();
        if (!r && !kept)
                r = lost(c, -ECONNRESET, e);
        if (!r && failed) {
                r = from_result(kept, e);
                c->broken |= r < 0 || PQstatus(c->h) != CONNECTION_OK;
        }
        if (r) {
                PQclear(kept);
                return r;
        }
        *ret = kept;
        return 0;
}

int session_run(struct pg_conn *c, const char *name, const char *sql, const struct pg_param *params, int n, PGresult **ret, struct pg_error *e)
{
        char *block = NULL, few[PARAMS_FEW * PARAM_BYTES] __attribute__((aligned(sizeof(void *))));
        bool fits = n <= PARAMS_MAX;
        for (int i = 0; i < n; i++)
                fits &= params[i].n <= INT32_MAX;
        if (!fits || (n > PARAMS_FEW && !(block = malloc((size_t)n * PARAM_BYTES)))) {
                int r = fits ? -ENOMEM : -E2BIG;
                set_errno(e, r);
                return r;
        }
        const char **values = (const char **)(block ? block : few);
        int *lengths = (int *)(values + n), *formats = lengths + n;
        for (int i = 0; i < n; i++) {
                values[i] = params[i].p;
                lengths[i] = (int)params[i].n;
                formats[i] = params[i].binary;
        }
        int sent = name ? PQsendQueryPrepared(c->h, name, n, values, lengths, formats, !c->as_text)
                        : PQsendQueryParams(c->h, sql, n, NULL, values, lengths, formats, !c->as_text);
        free(block);
        return sent ? receive(c, ret, e) : lost(c, -ECONNRESET, e);
}

int session_prepare(struct pg_conn *c, const char *name, const char *sql, struct pg_error *e)
{
        PGresult *res = NULL;
        int r = PQsendPrepare(c->h, name, sql, 0, NULL) ? receive(c, &res, e) : lost(c, -ECONNRESET, e);
        if (!r)
                PQclear(res);
        return r;
}

int session_simple(struct pg_conn *c, const char *sql, PGresult **ret, struct pg_error *e)
{
        return PQsendQuery(c->h, sql) ? receive(c, ret, e) : lost(c, -ECONNRESET, e);
}

int session_do(struct pg_conn *c, const char *sql, struct pg_error *e)
{
        PGresult *res = NULL;
        int r = session_simple(c, sql, &res, e);
        if (!r)
                PQclear(res);
        return r;
}
