/*
 * The single writer of a database: a thread that commits together what arrived together. A fiber hands in one write and parks
 * until the commit that holds it is on disk (or failed); while one commit waits for the disk the next group gathers.
 */
#ifndef PLUGIN_SQLITE_WRITER_H
#define PLUGIN_SQLITE_WRITER_H

#include "plugins/state.sqlite/db.h"
#include "sdk/base/list.h"

enum { WRITER_QUEUE_MAX = 10000, WRITER_GROUP_MAX = 512, WRITER_GROUP_BYTES_MAX = 16 * 1024 * 1024 };

struct writer;

struct write_op {
        enum { WRITE_SET, WRITE_DELETE } kind;
        struct db_write set;
        const char *key, *etag; /* of a delete */
        const char *bad;        /* refused before it came here: the operation's error; the rest of a bulk goes on */
        /* outcome of a single operation of a bulk */
        int code;               /* 0, DAPR_ETAG_MISMATCH, DAPR_INTERNAL, DAPR_UNAVAILABLE, DAPR_RESOURCE_EXHAUSTED */
        char *error;            /* heap, or NULL */
};
struct write_req {
        struct write_op *ops;
        size_t n;
        bool atomic;            /* all or none: the first failure is the request's */
        /* outcome: the first failure */
        int code;
        char *error;            /* heap, or NULL */
        bool refused;           /* by the file or its disk: full, read-only, broken, gone */
        /* writer's own */
        struct list link;
        struct fiber *fiber;
        double since;
        size_t bytes;
        bool done;
};

/* Starts the thread. db is open, migrated and prepared; the writer owns it from here on (closes it in writer_stop).
 * cleanup_ms > 0: expired rows are deleted that often. 0 or -errno. */
int writer_start(struct writer **ret, struct db *db, int64_t cleanup_ms);
/* Runs the request on the writer's thread; parks, not to be interrupted. Returns req->code. */
int writer_run(struct writer *w, struct write_req *req);
/* The same on the calling thread, for databases in memory (no thread is started for them). */
int writer_run_here(struct db *db, struct write_req *req);
void write_req_fini(struct write_req *req); /* frees the texts */
/* Finishes what is queued, joins the thread, closes the database. Nobody may be parked in writer_run. */
void writer_stop(struct writer *w);

#endif
