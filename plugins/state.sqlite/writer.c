/*
 * Group commit. Two queues under one lock: `queue` from the loop to the thread, `done` back to it. The thread takes all that is
 * queued (up to a limit), runs it between BEGIN IMMEDIATE and COMMIT and posts the finished requests to the loop in one go.
 *
 * Independence inside a group: a single statement that fails undoes itself; an atomic request of several operations runs in a
 * savepoint. When sqlite rolls the whole transaction back by itself (disk full, I/O error), or the COMMIT fails for one of these,
 * every request of the group runs again alone, so that only those fail that would have failed alone.
 */
#include "plugins/state.sqlite/writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"

enum { WRITER_STACK_BYTES = 512 * 1024 };

struct writer {
        struct db *db;
        int64_t cleanup_ms;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        struct list queue, done;
        bool sleeping, posted, stopping;
        struct post post;
        /* loop side: what this turn brought, handed over at its end */
        struct list fresh;
        size_t waiting; /* in writer_run now */
        struct defer flush;
};

static double monotonic_s(void)
{
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- running requests (on the thread) ---- */

static int code_of(int rc)
{
        switch (rc & 0xff) {
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return DAPR_UNAVAILABLE;
        case SQLITE_FULL:
        case SQLITE_TOOBIG:
                return DAPR_RESOURCE_EXHAUSTED;
        default:
                return DAPR_INTERNAL;
        }
}

/* What comes from the file or its disk, not from the request. */
static bool is_refusal(int rc)
{
        rc &= 0xff;
        return rc == SQLITE_FULL || rc == SQLITE_IOERR || rc == SQLITE_READONLY || rc == SQLITE_CANTOPEN || rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB;
}

static void set_error(int *code, char **error, int to, const char *text)
{
        free(*error);
        *code = to;
        *error = text ? strdup(text) : NULL;
}

/* One operation. SQLITE_OK when it ran, be its condition met or not. */
static int run_op(struct db *db, struct write_op *op)
{
        bool applied = false;
        char text[DB_ERROR_BYTES];
        if (op->bad) {
                set_error(&op->code, &op->error, DAPR_INTERNAL, op->bad);
                return SQLITE_OK;
        }
        int rc = op->kind == WRITE_SET ? db_set(db, &op->set, &applied) : db_delete(db, op->key, op->etag, &applied);
        if (rc) {
                db_error(db, rc, text);
                set_error(&op->code, &op->error, code_of(rc), text);
        } else {
                set_error(&op->code, &op->error, applied ? 0 : DAPR_ETAG_MISMATCH, NULL);
        }
        return rc;
}

static void take_first_failure(struct write_req *req)
{
        set_error(&req->code, &req->error, 0, NULL);
        for (size_t i = 0; i < req->n; i++)
                if (req->ops[i].code) {
                        set_error(&req->code, &req->error, req->ops[i].code, req->ops[i].error);
                        return;
                }
}

/* All operations of a request inside the open transaction. */
static void run_req(struct db *db, struct write_req *req)
{
        bool save = req->atomic && req->n > 1 && !db_step(db, DB_SAVE), failed = false;
        for (size_t i = 0; i < req->n && !(failed && req->atomic); i++) {
                req->refused |= is_refusal(run_op(db, &req->ops[i]));
                failed |= req->ops[i].code != 0;
                if (sqlite3_get_autocommit(db->h))
                        break;
        }
        if (save && !sqlite3_get_autocommit(db->h)) {
                if (failed)
                        db_step(db, DB_ROLLBACK_TO);
                db_step(db, DB_RELEASE);
        }
        take_first_failure(req);
}

static void fail_req(struct write_req *req, int code, const char *text)
{
        for (size_t i = 0; i < req->n; i++)
                if (!req->ops[i].code)
                        set_error(&req->ops[i].code, &req->ops[i].error, code, text);
        set_error(&req->code, &req->error, code, text);
}

static void fail_group(struct list *group, int rc, const char *text)
{
        list_for_each(n, group) {
                struct write_req *req = list_entry(n, struct write_req, link);
                req->refused |= is_refusal(rc);
                fail_req(req, code_of(rc), text);
        }
}

/* 0, or the text of what made BEGIN or COMMIT fail. */
static int transaction_step(struct db *db, enum db_stmt s, const char *what, char text[DB_ERROR_BYTES])
{
        char why[DB_ERROR_BYTES];
        int rc = db_step(db, s);
        if (rc) {
                db_error(db, rc, why);
                snprintf(text, DB_ERROR_BYTES, "%s%.400s", what, why);
                if (!sqlite3_get_autocommit(db->h))
                        db_step(db, DB_ROLLBACK);
        }
        return rc;
}

/* Runs the list as one transaction. False = the transaction was lost and nothing of it is stored. */
static bool run_group(struct db *db, struct list *group)
{
        char text[DB_ERROR_BYTES];
        int rc = transaction_step(db, DB_BEGIN, "", text);
        if (rc) {
                fail_group(group, rc, text);
                return true;
        }
        list_for_each(n, group) {
                run_req(db, list_entry(n, struct write_req, link));
                if (sqlite3_get_autocommit(db->h))
                        return false;
        }
        rc = transaction_step(db, DB_COMMIT, "failed to commit transaction: ", text);
        if (!rc)
                return true;
        if (group->next != group->prev)
                return false;
        fail_group(group, rc, text);
        return true;
}

/* One request in its own transaction. */
static void run_alone(struct db *db, struct write_req *req)
{
        struct list one;
        list_init(&one);
        list_add_tail(&one, &req->link);
        if (!run_group(db, &one)) {
                static const char lost[] = "the database rolled the transaction back";
                for (size_t i = 0; i < req->n; i++)
                        if (!req->ops[i].code)
                                set_error(&req->ops[i].code, &req->ops[i].error, DAPR_INTERNAL, lost);
                if (!req->code)
                        set_error(&req->code, &req->error, DAPR_INTERNAL, lost);
        }
        list_del(&req->link);
}

static void run_list(struct db *db, struct list *group)
{
        if (list_is_empty(group) || run_group(db, group))
                return;
        struct list done;
        list_init(&done);
        while (!list_is_empty(group)) {
                struct write_req *req = list_entry(group->next, struct write_req, link);
                list_del(&req->link);
                run_alone(db, req);
                list_add_tail(&done, &req->link);
        }
        while (!list_is_empty(&done)) {
                struct list *n = done.next;
                list_del(n);
                list_add_tail(group, n);
        }
}

int writer_run_here(struct db *db, struct write_req *req)
{
        list_init(&req->link);
        run_alone(db, req);
        return req->code;
}

/* ---- the thread ---- */

static void cleanup(struct writer *w)
{
        char text[DB_ERROR_BYTES];
        int64_t rows;
        int rc = db_cleanup(w->db, w->cleanup_ms - 100, &rows);
        if (rc) {
                db_error(w->db, rc, text);
                dapr_log(DAPR_LOG_ERROR, "Error removing expired data: failed to execute query: %s", text);
        } else if (rows < 0) {
                dapr_log(DAPR_LOG_DEBUG, "Last cleanup was performed too recently");
        } else {
                dapr_log(DAPR_LOG_INFO, "Removed %lld expired rows", (long long)rows);
        }
}

/* With the lock held: sleeps until there is work, the cleanup is due (*ret_due) or the end has come (false). */
static bool wait_for_work(struct writer *w, double cleanup_at, bool *ret_due)
{
        struct timespec until = {(time_t)cleanup_at, (long)((cleanup_at - (double)(time_t)cleanup_at) * 1e9)};
        *ret_due = false;
        while (list_is_empty(&w->queue)) {
                if (w->stopping)
                        return false;
                w->sleeping = true;
                int r = cleanup_at > 0 ? pthread_cond_timedwait(&w->wake, &w->lock, &until) : pthread_cond_wait(&w->wake, &w->lock);
                w->sleeping = false;
                if (r == ETIMEDOUT)
                        break;
        }
        *ret_due = cleanup_at > 0 && monotonic_s() >= cleanup_at;
        return true;
}

/* With the lock held: moves requests to the group, those that waited longer than the store's time-out straight to `done`. */
static void take_group(struct writer *w, struct list *group)
{
        size_t n = 0, bytes = 0;
        double now = monotonic_s();
        list_init(group);
        while (!list_is_empty(&w->queue) && n < WRITER_GROUP_MAX && bytes < WRITER_GROUP_BYTES_MAX) {
                struct write_req *req = list_entry(w->queue.next, struct write_req, link);
                list_del(&req->link);
                if ((now - req->since) * 1000 > w->db->conf->timeout_ms) {
                        fail_req(req, DAPR_UNAVAILABLE, "context deadline exceeded");
                        list_add_tail(&w->done, &req->link);
                        continue;
                }
                list_add_tail(group, &req->link);
                n += req->n;
                bytes += req->bytes;
        }
}

/* With the lock held: gives finished requests to the loop. */
static void give_back(struct writer *w, struct list *group)
{
        while (!list_is_empty(group)) {
                struct list *n = group->next;
                list_del(n);
                list_add_tail(&w->done, n);
        }
        if (!list_is_empty(&w->done) && !w->posted) {
                w->posted = true;
                loop_post_node(&w->post);
        }
}

static void *thread_main(void *arg)
{
        struct writer *w = arg;
        double cleanup_at = w->cleanup_ms > 0 ? monotonic_s() + (double)w->cleanup_ms / 1000 : 0;
        struct list group;
        bool due;
        pthread_mutex_lock(&w->lock);
        while (wait_for_work(w, cleanup_at, &due)) {
                take_group(w, &group);
                pthread_mutex_unlock(&w->lock);
                run_list(w->db, &group);
                if (due) {
                        cleanup(w);
                        cleanup_at = monotonic_s() + (double)w->cleanup_ms / 1000;
                }
                pthread_mutex_lock(&w->lock);
                give_back(w, &group);
        }
        pthread_mutex_unlock(&w->lock);
        return NULL;
}

/* ---- the loop's side ---- */

static void on_done(void *arg)
{
        struct writer *w = arg;
        struct list done;
        list_init(&done);
        pthread_mutex_lock(&w->lock);
        while (!list_is_empty(&w->done)) {
                struct list *n = w->done.next;
                list_del(n);
                list_add_tail(&done, n);
        }
        w->posted = false;
        pthread_mutex_unlock(&w->lock);
        list_for_each_safe(n, tmp, &done) {
                struct write_req *req = list_entry(n, struct write_req, link);
                list_del(n);
                req->done = true;
                fiber_wake(req->fiber);
        }
}

static void on_flush(struct defer *d)
{
        struct writer *w = container_of(d, struct writer, flush);
        pthread_mutex_lock(&w->lock);
        while (!list_is_empty(&w->fresh)) {
                struct list *n = w->fresh.next;
                list_del(n);
                list_add_tail(&w->queue, n);
        }
        if (w->sleeping)
                pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
}

int writer_run(struct writer *w, struct write_req *req)
{
        if (w->waiting >= WRITER_QUEUE_MAX) {
                fail_req(req, DAPR_RESOURCE_EXHAUSTED, "too many writes are waiting for the database");
                return req->code;
        }
        req->fiber = fiber_self();
        req->since = monotonic_s();
        req->done = false;
        req->bytes = 0;
        for (size_t i = 0; i < req->n; i++)
                req->bytes += req->ops[i].set.value_n;
        list_add_tail(&w->fresh, &req->link);
        w->waiting++;
        defer_run(&w->flush);
        fiber_shield_begin();
        while (!req->done)
                fiber_park();
        fiber_shield_end();
        w->waiting--;
        return req->code;
}

void write_req_fini(struct write_req *req)
{
        for (size_t i = 0; i < req->n; i++)
                free(req->ops[i].error);
        free(req->error);
}

static int thread_start(struct writer *w)
{
        pthread_attr_t attr;
        sigset_t all, old;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, WRITER_STACK_BYTES);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        int r = pthread_create(&w->thread, &attr, thread_main, w);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
        return -r;
}

int writer_start(struct writer **ret, struct db *db, int64_t cleanup_ms)
{
        struct writer *w = calloc(1, sizeof *w);
        pthread_condattr_t attr;
        if (!w)
                return -ENOMEM;
        w->db = db;
        w->cleanup_ms = cleanup_ms;
        w->post = (struct post){.fn = on_done, .arg = w};
        w->flush.cb = on_flush;
        list_init(&w->queue);
        list_init(&w->done);
        list_init(&w->fresh);
        pthread_mutex_init(&w->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&w->wake, &attr);
        pthread_condattr_destroy(&attr);
        int r = thread_start(w);
        if (r) {
                free(w);
                return r;
        }
        *ret = w;
        return 0;
}

void writer_stop(struct writer *w)
{
        if (!w)
                return;
        pthread_mutex_lock(&w->lock);
        w->stopping = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        defer_cancel(&w->flush);
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
        db_close(w->db);
        free(w);
}
