/*
 * state.sqlite: values in one table of a sqlite file that the reference's component can open too, before, after or meanwhile.
 *
 * Writes go to one thread that commits together what arrives together (writer.c). A read runs here, on the loop: it takes a few
 * microseconds from the page cache, less than handing it to a thread. Reads go to worker threads, whose connections wait as
 * busyTimeout says, when the database is locked for a moment (no WAL, or another process recovers it), when they are large, and
 * for a while after a read took long: then pages come from a disk, and several threads fetch them faster than one loop.
 * A database in memory has one connection, used here only.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plugins/state.sqlite/writer.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"

enum { BULK_INLINE_MAX = 64 };
#define SLOW_READ_S 0.001 /* such a read has waited for a disk; */
#define SLOW_FOR_S 0.05   /* those of the next moments will, too */

struct store {
        struct db_conf conf;
        char *instance;
        int64_t cleanup_ms;
        struct db near, write_db; /* near: reads on the loop; the only connection when conf.memory */
        struct writer *writer;    /* NULL when conf.memory */
        double slow_until;        /* loop time: reads on workers until then */
        double cleanup_at;        /* loop time, when conf.memory */
        bool refused;             /* the file took no write, the last time */
        pthread_mutex_t lock;     /* of the pool below */
        struct db *idle;          /* connections of worker threads */
};

/* ---- init and close ---- */

static const char *md_text(const struct dapr_metadata *md, const char *field, const char *alias)
{
        const char *v = dapr_kvs_get(dapr_md_all(md), field);
        if (!v || !*v)
                v = dapr_kvs_get(dapr_md_all(md), alias);
        return v && *v ? v : dapr_md_string(md, field);
}

struct settings { /* of the YAML, borrowed from the metadata */
        const char *connection_string, *table, *metadata_table;
        int64_t timeout_ns, busy_ns, cleanup_ns;
        bool disable_wal;
};

static int read_settings(struct dapr_call *c, const struct dapr_metadata *md, struct settings *s)
{
        s->connection_string = md_text(md, "connectionString", "url");
        s->table = md_text(md, "tableName", "tableName");
        s->metadata_table = md_text(md, "metadataTableName", "metadataTableName");
        s->timeout_ns = dapr_md_duration_ns(md, "timeout");
        s->busy_ns = dapr_md_duration_ns(md, "busyTimeout");
        s->cleanup_ns = dapr_md_duration_ns(md, "cleanupInterval");
        s->disable_wal = dapr_md_bool(md, "disableWAL");
        if (!s->connection_string || !*s->connection_string)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing connection string");
        if (s->timeout_ns < 1000000000)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid value for 'timeout': must be greater than 1s");
        if (!db_valid_identifier(s->table))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid identifier: %s", s->table);
        if (!db_valid_identifier(s->metadata_table))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid identifier: %s", s->metadata_table);
        return 0;
}

struct opening { /* runs on a worker: files are created and locked here */
        struct store *s;
        char error[DB_ERROR_BYTES];
};

static int open_near(struct store *s, char error[DB_ERROR_BYTES])
{
        int rc = db_open(&s->near, &s->conf, DB_READER);
        if (rc) {
                snprintf(error, DB_ERROR_BYTES, "failed to ping: %.400s", s->near.error);
                return -1;
        }
        rc = db_prepare(&s->near);
        if (rc) {
                db_error(&s->near, rc, error);
                return -1;
        }
        sqlite3_busy_timeout(s->near.h, 0);
        return 0;
}

static int open_database(void *arg)
{
        struct opening *o = arg;
        struct store *s = o->s;
        struct db *db = s->conf.memory ? &s->near : &s->write_db;
        char text[DB_ERROR_BYTES];
        if (db_open(db, &s->conf, DB_WRITER)) {
                snprintf(o->error, DB_ERROR_BYTES, "failed to ping: %.400s", db->error);
                return -1;
        }
        if (db_migrate(db, text)) {
                snprintf(o->error, DB_ERROR_BYTES, "failed to perform migrations: %.400s", text);
                return -1;
        }
        int rc = db_prepare(db);
        if (rc) {
                db_error(db, rc, o->error);
                return -1;
        }
        return s->conf.memory ? 0 : open_near(s, o->error);
}

static void store_free(struct store *s)
{
        if (s->writer)
                writer_stop(s->writer);
        else if (s->write_db.h)
                db_close(&s->write_db);
        if (s->near.h)
                db_close(&s->near);
        while (s->idle) {
                struct db *db = s->idle;
                s->idle = db->next;
                db_close(db);
                free(db);
        }
        pthread_mutex_destroy(&s->lock);
        db_conf_fini(&s->conf);
        free(s->instance);
        free(s);
}

static int op_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct settings set;
        int r = read_settings(c, md, &set);
        struct store *s = r ? NULL : calloc(1, sizeof *s);
        if (!s)
                return r ? r : -ENOMEM;
        struct opening o = {.s = s};
        pthread_mutex_init(&s->lock, NULL);
        s->conf.table = strdup(set.table);
        s->conf.metadata_table = strdup(set.metadata_table);
        s->instance = strdup(dapr_instance(c));
        s->conf.timeout_ms = set.timeout_ns / 1000000 > INT32_MAX ? INT32_MAX : (int)(set.timeout_ns / 1000000);
        s->cleanup_ms = set.cleanup_ns > 0 ? set.cleanup_ns / 1000000 : 0;
        r = db_conf_parse(&s->conf, set.connection_string, set.busy_ns, set.disable_wal, o.error);
        if (!r)
                r = dapr_work(open_database, &o);
        if (!r && !s->conf.memory && (r = writer_start(&s->writer, &s->write_db, s->cleanup_ms)))
                snprintf(o.error, sizeof o.error, "cannot start the writer's thread: %s", strerror(-r));
        if (r) {
                r = dapr_fail(c, DAPR_FAILED_PRECONDITION, "%s", *o.error ? o.error : "the database cannot be opened");
                store_free(s);
                return r;
        }
        if (s->cleanup_ms)
                dapr_log(DAPR_LOG_INFO, "Schedule expired data clean up every %g s", (double)s->cleanup_ms / 1000);
        *instance = s;
        return 0;
}

static void op_close(void *instance)
{
        store_free(instance);
}

/* ---- reading ---- */

static struct db *pool_take(struct store *s, char error[DB_ERROR_BYTES])
{
        pthread_mutex_lock(&s->lock);
        struct db *db = s->idle;
        if (db)
                s->idle = db->next;
        pthread_mutex_unlock(&s->lock);
        if (db)
                return db;
        db = malloc(sizeof *db);
        if (db && !db_open(db, &s->conf, DB_READER)) {
                int rc = db_prepare(db);
                if (!rc)
                        return db;
                db_error(db, rc, error);
                db_close(db);
        } else {
                snprintf(error, DB_ERROR_BYTES, "%s", db ? db->error : "out of memory");
        }
        free(db);
        return NULL;
}

static void pool_give(struct store *s, struct db *db)
{
        pthread_mutex_lock(&s->lock);
        db->next = s->idle;
        s->idle = db;
        pthread_mutex_unlock(&s->lock);
}

/* Is it worth asking again on a connection that waits? */
static bool is_busy(int rc)
{
        return (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED;
}

static void *alloc_reply(void *arg, size_t n)
{
        return dapr_alloc(arg, n);
}

static int get_one(struct db *db, struct dapr_call *c, const char *key, struct dapr_item *out)
{
        struct db_get_result res;
        int rc = db_get(db, key, alloc_reply, c, &res);
        *out = (struct dapr_item){0};
        if (rc || !res.found)
                return rc;
        out->found = true;
        out->value = res.value;
        out->etag = dapr_strdup(c, res.etag);
        if (*res.expires) {
                struct dapr_kv *kv = dapr_alloc(c, sizeof *kv);
                const char *expires = dapr_strdup(c, res.expires);
                if (!kv || !expires)
                        return SQLITE_NOMEM;
                *kv = (struct dapr_kv){"ttlExpireTime", expires};
                out->metadata = (struct dapr_kvs){kv, 1};
        }
        return out->etag ? SQLITE_OK : SQLITE_NOMEM;
}

struct read_job {
        struct store *s;
        struct dapr_call *c;
        const struct dapr_get *in;
        size_t n;
        struct dapr_item *out;
        char error[DB_ERROR_BYTES];
};

/* All keys from one snapshot. */
static int read_all(struct read_job *j, struct db *db)
{
        bool began = j->n > 1 && !sqlite3_exec(db->h, "BEGIN", NULL, NULL, NULL);
        int rc = SQLITE_OK;
        for (size_t i = 0; !rc && i < j->n; i++)
                rc = get_one(db, j->c, j->in[i].key, &j->out[i]);
        if (rc == SQLITE_MISMATCH)
                snprintf(j->error, DB_ERROR_BYTES, "failed to decode binary data: illegal base64 data");
        else if (rc && rc != SQLITE_NOMEM)
                db_error(db, rc, j->error);
        if (began)
                sqlite3_exec(db->h, "COMMIT", NULL, NULL, NULL);
        return rc;
}

static int read_on_worker(void *arg)
{
        struct read_job *j = arg;
        struct db *db = pool_take(j->s, j->error);
        if (!db)
                return SQLITE_CANTOPEN;
        int rc = read_all(j, db);
        pool_give(j->s, db);
        return rc;
}

/* On the loop. SQLITE_BUSY = better on a worker. */
static int read_here(struct read_job *j)
{
        struct store *s = j->s;
        double began = loop_now_exact();
        if (s->conf.memory)
                return read_all(j, &s->near);
        if (j->n > BULK_INLINE_MAX || began < s->slow_until)
                return SQLITE_BUSY;
        int rc = read_all(j, &s->near);
        double ended = loop_now_exact();
        if (ended - began > SLOW_READ_S * (double)j->n)
                s->slow_until = ended + SLOW_FOR_S;
        return rc;
}

static int run_read(struct read_job *j)
{
        int rc = read_here(j);
        if (is_busy(rc) && !j->s->conf.memory)
                rc = dapr_work(read_on_worker, j);
        if (rc < 0 || rc == SQLITE_NOMEM)
                return rc < 0 ? rc : -ENOMEM;
        return rc ? dapr_fail(j->c, is_busy(rc) ? DAPR_UNAVAILABLE : DAPR_INTERNAL, "%s", j->error) : 0;
}

static int op_get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        struct read_job j = {.s = instance, .c = c, .in = in, .n = 1, .out = out};
        if (!*in->key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing key in get operation");
        return run_read(&j);
}

static int op_bulk_get(struct dapr_call *c, void *instance, const struct dapr_get *in, size_t n, struct dapr_item *out)
{
        struct read_job j = {.s = instance, .c = c, .in = in, .n = n, .out = out};
        return n ? run_read(&j) : 0;
}

static int op_ping(struct dapr_call *c, void *instance)
{
        struct dapr_item item;
        struct dapr_get in = {.key = ""};
        struct read_job j = {.s = instance, .c = c, .in = &in, .n = 1, .out = &item};
        if (j.s->refused)
                return dapr_fail(c, DAPR_UNAVAILABLE, "the last write was refused by the file or its disk");
        return run_read(&j);
}

/* ---- writing ---- */

/* The value as the table holds it: JSON as text, all else as base64. */
static int encode_value(struct dapr_call *c, const struct dapr_set *in, struct db_write *w)
{
        struct str value = str_n(in->value.p, in->value.n);
        w->is_binary = !in->content_type || strncasecmp(in->content_type, "application/json", 16) != 0;
        if (!w->is_binary) {
                w->value = value.n ? value.p : "";
                w->value_n = value.n;
                return 0;
        }
        char *text = value.n > INT32_MAX / 2 ? NULL : dapr_alloc(c, BASE64_LEN(value.n) + 1);
        if (!text)
                return -ENOMEM;
        w->value = text;
        w->value_n = base64_put(text, value);
        return 0;
}

static int set_op(struct dapr_call *c, const struct dapr_set *in, struct write_op *op)
{
        *op = (struct write_op){.kind = WRITE_SET};
        if (!*in->key)
                op->bad = "missing key in set option";
        op->set = (struct db_write){.key = in->key, .etag = in->etag, .ttl_s = in->ttl_s, .first_write = in->concurrency == DAPR_FIRST_WRITE};
        return encode_value(c, in, &op->set);
}

static void delete_op(const struct dapr_delete *in, struct write_op *op)
{
        *op = (struct write_op){.kind = WRITE_DELETE, .key = in->key, .etag = in->etag};
        if (!*in->key)
                op->bad = "missing key in delete operation";
}

/* A disk that is full shows in the plugin's state until a write has passed. */
static void tell_backend(struct dapr_call *c, struct store *s, const struct write_req *req)
{
        if (req->refused == s->refused || (!req->refused && req->code))
                return;
        s->refused = req->refused;
        if (req->refused)
                dapr_backend_down(dapr_instance(c), req->error);
        else
                dapr_backend_up(dapr_instance(c));
}

static int write_run(struct dapr_call *c, struct store *s, struct write_req *req)
{
        if (s->writer) {
                int r = writer_run(s->writer, req);
                tell_backend(c, s, req);
                return r;
        }
        if (s->cleanup_ms && loop_now() >= s->cleanup_at) {
                int64_t rows;
                db_cleanup(&s->near, 0, &rows);
                s->cleanup_at = loop_now() + (double)s->cleanup_ms / 1000;
        }
        return writer_run_here(&s->near, req);
}

/* Runs the operations as one request and says what the first failure was. */
static int write_and_tell(struct dapr_call *c, struct store *s, struct write_op *ops, size_t n)
{
        struct write_req req = {.ops = ops, .n = n, .atomic = true};
        int r = n ? write_run(c, s, &req) : 0;
        if (r)
                dapr_fail(c, r, "%s", req.error ? req.error : "");
        write_req_fini(&req);
        return r;
}

static int write_bulk(struct dapr_call *c, struct store *s, struct write_op *ops, size_t n, struct dapr_bulk_result *out)
{
        struct write_req req = {.ops = ops, .n = n};
        if (n)
                write_run(c, s, &req);
        for (size_t i = 0; i < n; i++)
                out[i] = (struct dapr_bulk_result){ops[i].code, ops[i].error ? dapr_strdup(c, ops[i].error) : ""};
        write_req_fini(&req);
        return 0;
}

static int op_set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        struct write_op op;
        int r = set_op(c, in, &op);
        return r ? r : write_and_tell(c, instance, &op, 1);
}

static int op_delete(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        struct write_op op;
        delete_op(in, &op);
        return write_and_tell(c, instance, &op, 1);
}

static int op_bulk_set(struct dapr_call *c, void *instance, const struct dapr_set *in, size_t n, struct dapr_bulk_result *out)
{
        struct write_op *ops = dapr_alloc(c, n * sizeof *ops);
        int r = ops ? 0 : -ENOMEM;
        for (size_t i = 0; !r && i < n; i++)
                r = set_op(c, &in[i], &ops[i]);
        return r ? r : write_bulk(c, instance, ops, n, out);
}

static int op_bulk_delete(struct dapr_call *c, void *instance, const struct dapr_delete *in, size_t n, struct dapr_bulk_result *out)
{
        struct write_op *ops = dapr_alloc(c, n * sizeof *ops);
        if (!ops)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                delete_op(&in[i], &ops[i]);
        return write_bulk(c, instance, ops, n, out);
}

static int op_transact(struct dapr_call *c, void *instance, const struct dapr_op *in, size_t n, struct dapr_kvs metadata)
{
        struct write_op *ops = dapr_alloc(c, n * sizeof *ops);
        int r = ops ? 0 : -ENOMEM;
        for (size_t i = 0; !r && i < n; i++)
                if (in[i].kind == DAPR_OP_SET)
                        r = set_op(c, &in[i].set, &ops[i]);
                else
                        delete_op(&in[i].del, &ops[i]);
        return r ? r : write_and_tell(c, instance, ops, n);
}

/* ---- keys ---- */

struct keys_job {
        struct store *s;
        struct dapr_call *c;
        const struct dapr_keys_like *in;
        const char **keys;
        size_t n, cap;
        int64_t last;
        char error[DB_ERROR_BYTES];
};

static int keys_row(void *arg, const char *key, int64_t rowid)
{
        struct keys_job *j = arg;
        if (j->n == j->cap) {
                size_t cap = j->cap ? j->cap * 2 : 256;
                const char **more = dapr_alloc(j->c, cap * sizeof *more);
                if (!more)
                        return SQLITE_NOMEM;
                if (j->n)
                        memcpy(more, j->keys, j->n * sizeof *more);
                j->keys = more;
                j->cap = cap;
        }
        j->keys[j->n] = dapr_strdup(j->c, key);
        j->last = rowid;
        return j->keys[j->n++] ? 0 : SQLITE_NOMEM;
}

static int keys_run(void *arg)
{
        struct keys_job *j = arg;
        struct db *db = j->s->conf.memory ? &j->s->near : pool_take(j->s, j->error);
        const char *after = j->in->token && *j->in->token ? j->in->token : NULL;
        if (!db)
                return SQLITE_CANTOPEN;
        int rc = db_keys_like(db, j->in->pattern, after, j->in->page_size, keys_row, j);
        if (rc)
                db_error(db, rc, j->error);
        if (db != &j->s->near)
                pool_give(j->s, db);
        return rc;
}

static int op_keys_like(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        struct keys_job j = {.s = instance, .c = c, .in = in};
        if (!*in->pattern)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "keys like pattern cannot be empty");
        int rc = j.s->conf.memory ? keys_run(&j) : dapr_work(keys_run, &j);
        if (rc < 0 || rc == SQLITE_NOMEM)
                return rc < 0 ? rc : -ENOMEM;
        if (rc)
                return dapr_fail(c, DAPR_INTERNAL, "%s", j.error);
        *out = (struct dapr_keys){.keys = j.keys, .n = j.n};
        if (in->page_size && j.n == in->page_size) {
                out->token = dapr_printf(c, "%lld", (long long)j.last);
                return out->token ? 0 : -ENOMEM;
        }
        return 0;
}

static const struct dapr_state_ops ops = {
        .mode = DAPR_FIBER,
        .features = DAPR_FEATURE_ETAG | DAPR_FEATURE_TRANSACTIONAL | DAPR_FEATURE_TTL | DAPR_FEATURE_KEYS_LIKE,
        .init = op_init,
        .close = op_close,
        .ping = op_ping,
        .get = op_get,
        .set = op_set,
        .del = op_delete,
        .bulk_get = op_bulk_get,
        .bulk_set = op_bulk_set,
        .bulk_del = op_bulk_delete,
        .transact = op_transact,
        .keys_like = op_keys_like,
        .ttl_error = "error parsing TTL: ",
};
static const struct dapr_component_type types[] = {{.type = "state.sqlite", .versions = "v1", .state = &ops},
                                                   {.type = "state.sqlite3", .versions = "v1", .state = &ops}};

int main(int argc, char **argv)
{
        sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
        static const struct dapr_plugin plugin = {
                .name = "state.sqlite", .version = "1.0.0", .types = types, .n_types = sizeof types / sizeof *types, .worker_threads = 4};
        return dapr_plugin_main(argc, argv, &plugin);
}
