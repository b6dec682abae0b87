/*
 * One connection to one Redis node: pipelined requests, replies matched in order.
 * Invariant: `waiting` holds one entry for every request written and not yet answered, in order. An entry whose caller went away
 * (deadline, cancel) stays until its reply came. A broken link fails all entries at once and is closed; its owner dials anew.
 */
#include "plugins/shared/redis/link.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/net/tls.h"

struct waiter {
        struct list link;
        struct fiber *fiber; /* NULL = abandoned */
        redisReply *reply;
        int err;
        bool done;
};

void link_fail(struct link *l, int err)
{
        l->broken = err ? err : -ECONNRESET;
        while (!list_is_empty(&l->waiting)) {
                struct waiter *w = list_entry(l->waiting.next, struct waiter, link);
                list_del(&w->link);
                w->err = l->broken;
                w->done = true;
                if (w->fiber)
                        fiber_wake(w->fiber);
                else
                        free(w);
        }
        if (l->on_broken)
                l->on_broken(l);
}

static bool is_message(const redisReply *m)
{
        const char *kind = m->type == REDIS_REPLY_ARRAY && m->elements >= 3 ? m->element[0]->str : NULL;
        return kind && (strcmp(kind, "message") == 0 || strcmp(kind, "pmessage") == 0);
}

static void deliver(struct link *l, redisReply *reply)
{
        if (l->on_message && is_message(reply)) {
                l->on_message(l, reply);
                freeReplyObject(reply);
                return;
        }
        if (list_is_empty(&l->waiting)) {
                freeReplyObject(reply);
                return;
        }
        struct waiter *w = list_entry(l->waiting.next, struct waiter, link);
        list_del(&w->link);
        if (!w->fiber) {
                freeReplyObject(reply);
                free(w);
                return;
        }
        w->reply = reply;
        w->done = true;
        fiber_wake(w->fiber);
}

static void on_read(struct conn *c)
{
        struct link *l = c->owner;
        struct str in = buf_str(&c->in);
        if (redisReaderFeed(l->reader, in.p, in.n) != REDIS_OK) {
                link_fail(l, -EBADMSG);
                return;
        }
        buf_consume(&c->in, in.n);
        void *reply = NULL;
        while (!l->broken) {
                if (redisReaderGetReply(l->reader, &reply) != REDIS_OK) {
                        link_fail(l, -EBADMSG);
                        return;
                }
                if (!reply)
                        return;
                deliver(l, reply);
        }
}

static void on_close(struct conn *c, int err)
{
        link_fail(c->owner, err);
}

static const struct conn_handler handler = {.on_read = on_read, .on_close = on_close};

static int authenticate(struct link *l, const char *user, const char *password, int db)
{
        if (password && *password) {
                struct redis_arg a[3] = {redis_arg_z("AUTH")};
                int n = 1;
                if (user && *user)
                        a[n++] = redis_arg_z(user);
                a[n++] = redis_arg_z(password);
                redisReply *r = NULL;
                int e = link_do(l, a, n, &r);
                if (e)
                        return e;
                bool refused = r->type == REDIS_REPLY_ERROR;
                freeReplyObject(r);
                if (refused)
                        return -EACCES;
        }
        if (db) {
                char text[16];
                snprintf(text, sizeof(text), "%d", db);
                struct redis_arg a[2] = {redis_arg_z("SELECT"), redis_arg_z(text)};
                redisReply *r = NULL;
                int e = link_do(l, a, 2, &r);
                if (e)
                        return e;
                bool refused = r->type == REDIS_REPLY_ERROR;
                freeReplyObject(r);
                if (refused)
                        return -ERANGE;
        }
        return 0;
}

int link_open(struct link **ret, const char *addr, const struct link_options *o)
{
        struct link *l = calloc(1, sizeof(*l));
        if (!l)
                return -ENOMEM;
        list_init(&l->waiting);
        l->read_timeout_s = o->read_timeout_s;
        double old = fiber_deadline();
        fiber_set_deadline(loop_now() + o->dial_timeout_s);
        int r = conn_dial(str_of(addr), &l->conn);
        if (!r && o->tls) {
                struct str host = str_of(addr);
                for (size_t i = host.n; i-- > 0;)
                        if (host.p[i] == ':') {
                                host.n = i;
                                break;
                        }
                r = conn_start_tls(l->conn, o->tls, host, false);
        }
        if (!r) {
                l->reader = redisReaderCreate();
                r = l->reader ? 0 : -ENOMEM;
        }
        if (!r) {
                conn_set_handler(l->conn, &handler, l);
                r = authenticate(l, o->username, o->password, o->db);
        }
        fiber_restore_deadline(old);
        if (r) {
                link_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

void link_free(struct link *l)
{
        if (!l)
                return;
        l->on_broken = NULL;
        if (!l->broken)
                link_fail(l, -ECANCELED);
        conn_free(l->conn);
        if (l->reader)
                redisReaderFree(l->reader);
        free(l);
}

static int write_command(struct link *l, const struct redis_arg *argv, int argc)
{
        struct buf *out = &l->conn->out;
        size_t before = buf_len(out);
        buf_printf(out, "*%d\r\n", argc);
        for (int i = 0; i < argc; i++) {
                buf_printf(out, "$%zu\r\n", argv[i].n);
                buf_add(out, argv[i].p, argv[i].n);
                buf_add(out, "\r\n", 2);
        }
        if (out->failed) {
                out->failed = false;
                out->len = out->off + before;
                return -ENOMEM;
        }
        conn_flush_soon(l->conn);
        return 0;
}

int link_do(struct link *l, const struct redis_arg *argv, int argc, redisReply **ret)
{
        if (l->broken)
                return l->broken;
        int r = conn_throttle(l->conn);
        if (r)
                return r;
        if (l->broken)
                return l->broken;
        struct waiter *w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        r = write_command(l, argv, argc);
        if (r) {
                free(w);
                return r;
        }
        w->fiber = fiber_self();
        list_add_tail(&l->waiting, &w->link);
        double limit = l->read_timeout_s > 0 ? loop_now() + l->read_timeout_s : INFINITY;
        while (!w->done) {
                r = fiber_park_until(limit);
                if (r && !w->done) {
                        w->fiber = NULL; /* freed when its reply comes */
                        /* Our own time-out means that the server is stuck: every caller behind would wait as long. */
                        if (r == -ETIMEDOUT && loop_now() >= limit)
                                conn_free(l->conn), l->conn = NULL, link_fail(l, -ETIMEDOUT);
                        return r;
                }
        }
        r = w->err;
        *ret = w->reply;
        free(w);
        return r;
}
