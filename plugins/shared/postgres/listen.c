/*
 * A connection that listens. It parks on its socket; a server that is gone without a word is found by a question now and then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/postgres/session.h"
#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"

enum { COMMAND_MAX = 200 };
#define CHECK_S 10.0

struct pg_listener {
        struct pg_conn *c;
        PGnotify *last;
};

int pg_listen(struct pg *p, const char *channel, struct pg_listener **ret, struct pg_error *e)
{
        char sql[COMMAND_MAX];
        struct pg_listener *l = calloc(1, sizeof *l);
        *e = (struct pg_error){0};
        if (!l)
                return -ENOMEM;
        double old = pg_limit(p);
        int r = session_open(pg_settings_of(p), &l->c, e);
        if (!r && snprintf(sql, sizeof sql, "LISTEN %s", channel) >= (int)sizeof sql)
                r = -ENAMETOOLONG;
        if (!r)
                r = session_do(l->c, sql, e);
        fiber_restore_deadline(old);
        if (r) {
                pg_unlisten(l);
                return r;
        }
        *ret = l;
        return 0;
}

void pg_unlisten(struct pg_listener *l)
{
        if (!l)
                return;
        PQfreemem(l->last);
        session_free(l->c);
        free(l);
}

/* Is the server there still? What it notified meanwhile is kept by libpq. */
static int check(struct pg_listener *l, struct pg_error *e)
{
        double old = fiber_set_deadline(loop_now() + CHECK_S);
        int r = session_do(l->c, "SELECT 1", e);
        fiber_restore_deadline(old);
        return r;
}

int pg_listener_next(struct pg_listener *l, struct pg_notification *ret, struct pg_error *e)
{
        PQfreemem(l->last);
        l->last = NULL;
        *e = (struct pg_error){0};
        for (;;) {
                if (!PQconsumeInput(l->c->h) || l->c->broken || PQstatus(l->c->h) != CONNECTION_OK) {
                        snprintf(e->text, sizeof e->text, "%s", PQerrorMessage(l->c->h));
                        return -ECONNRESET;
                }
                l->last = PQnotifies(l->c->h);
                if (l->last)
                        break;
                double old = fiber_set_deadline(loop_now() + CHECK_S);
                int r = dapr_io_wait(PQsocket(l->c->h), IO_READ);
                fiber_restore_deadline(old);
                if (r == -ETIMEDOUT)
                        r = check(l, e);
                if (r)
                        return r;
        }
        *ret = (struct pg_notification){str_of(l->last->relname), str_of(l->last->extra)};
        return 0;
}
