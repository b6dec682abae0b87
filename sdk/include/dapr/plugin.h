/*
 * microdapr plugin SDK for C: fill a table of operations, call dapr_plugin_main(). No protobuf and no socket code here.
 *
 * A plugin serves one or more component types. The runtime starts its process, hands over a listening socket, asks Hello, then
 * calls init once per component instance with the component's metadata (decoded and checked by the manifest plugin.yaml).
 *
 * Return values of every operation: 0 = done; a positive enum dapr_code = a documented outcome (say why with dapr_fail());
 * a negative errno = unexpected failure. Memory for replies comes from dapr_alloc() and friends: it lives until the reply was sent.
 * An inline operation may point into memory of its own instead: the reply is packed before anything else runs.
 * Request strings are NUL-terminated, borrowed, and valid during the call only.
 *
 * init, ping and close run as the operations of their table do: on the loop's fibers, or with DAPR_WORKER on threads, at the same time
 * as operations and as the init of other instances. Of one instance init is over before its first operation begins, and close begins
 * after its last operation has ended.
 *
 * At an upgrade, rollback, restart or save of `plugin dev` two processes of one component run at the same time, with the same settings:
 *   new process: init            old process: serves
 *   new process: serves          old process: ends what it has begun, stands by for 10 s, serves again should the new one die
 *   new process: serves          old process: close
 * So init takes nothing that the old process holds (a lock for good, a port) and trusts nothing read from a file to stay as it is: the
 * old process writes on. close releases; it must not write what it remembers over what the new process has written. A store that
 * keeps values in its own memory only says `volatile: true` in plugin.yaml. `plugin conformance` checks this (group "swap").
 */
#ifndef DAPR_PLUGIN_H
#define DAPR_PLUGIN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the operations of a table run. */
enum dapr_mode {
        DAPR_INLINE,  /* on the event loop's fibers, must not block; may use dapr_io_wait()/dapr_sleep(), which park */
        DAPR_FIBER,   /* the same, for operations that do wait (own client code on fibers) */
        DAPR_WORKER   /* each call on a thread of a pool: for client libraries that block */
};

/* Outcomes; values are gRPC status codes. */
enum dapr_code {
        DAPR_INVALID_ARGUMENT = 3,
        DAPR_NOT_FOUND = 5,
        DAPR_ALREADY_EXISTS = 6,
        DAPR_PERMISSION_DENIED = 7,
        DAPR_RESOURCE_EXHAUSTED = 8,
        DAPR_FAILED_PRECONDITION = 9,
        DAPR_UNIMPLEMENTED = 12,
        DAPR_INTERNAL = 13,
        DAPR_UNAVAILABLE = 14,
        /* of state stores; carried as the contract's typed details */
        DAPR_ETAG_MISMATCH = 100,
        DAPR_ETAG_INVALID = 101
};

struct dapr_bytes {
        const void *p;
        size_t n;
};
struct dapr_kv {
        const char *key, *value;
};
struct dapr_kvs {
        const struct dapr_kv *v;
        size_t n;
};
/* Value by key without case, or NULL. */
const char *dapr_kvs_get(struct dapr_kvs m, const char *key);

struct dapr_call; /* one operation in progress */
void *dapr_alloc(struct dapr_call *c, size_t n);       /* NULL = quota reached: return -ENOMEM */
char *dapr_strdup(struct dapr_call *c, const char *s);
struct dapr_bytes dapr_copy(struct dapr_call *c, const void *p, size_t n);
char *dapr_printf(struct dapr_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Sets the text for the caller; returns code, so that an operation can `return dapr_fail(c, DAPR_INTERNAL, "...")`. */
int dapr_fail(struct dapr_call *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const char *dapr_instance(const struct dapr_call *c);  /* component name, from metadata.name of the YAML */
/* During init: what this instance can do, when that is less than what the table says (it depends on metadata or the backend). */
void dapr_set_features(struct dapr_call *c, unsigned features);
double dapr_deadline_s(const struct dapr_call *c);     /* seconds left; INFINITY = none */
bool dapr_is_cancelled(const struct dapr_call *c);

/* ---- component metadata ----
 * Typed by the manifest: daprd refuses a component whose fields do not fit their types before the process is asked, and adds
 * the manifest's defaults. Started by --socket there are none of both: what does not fit reads as 0, what is missing as NULL or 0.
 * Fields outside the manifest come as they were given. Names are compared without case. */
struct dapr_metadata; /* of one instance; valid during init only: copy what you keep */
const char *dapr_md_string(const struct dapr_metadata *m, const char *field); /* NULL = neither given nor a default */
bool dapr_md_bool(const struct dapr_metadata *m, const char *field);          /* y yes true t on 1 */
int64_t dapr_md_int(const struct dapr_metadata *m, const char *field);        /* also sizes: 4Mi */
int64_t dapr_md_duration_ns(const struct dapr_metadata *m, const char *field); /* 1m30s; a bare number means seconds */
bool dapr_md_has(const struct dapr_metadata *m, const char *field);           /* given, or has a default */
struct dapr_kvs dapr_md_all(const struct dapr_metadata *m);

/* ---- what a plugin may use while it runs ---- */
enum dapr_log { DAPR_LOG_ERROR = 1, DAPR_LOG_WARN, DAPR_LOG_INFO, DAPR_LOG_DEBUG };
void dapr_log(enum dapr_log level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Tells the runtime whether the backend behind this instance is reachable (shown in metadata, metrics, doctor). Any thread. For
 * changes, not for each call. A type with a ping is asked every 10 s besides. */
void dapr_backend_up(const char *instance);
void dapr_backend_down(const char *instance, const char *reason);
/* Parks this operation (not in DAPR_WORKER mode). events: 1 = readable, 2 = writable. 0, -ETIMEDOUT, -ECANCELED. */
int dapr_io_wait(int fd, int events);
int dapr_sleep(double seconds);
/* Runs fn on the worker pool and parks until it is done. */
int dapr_work(int (*fn)(void *), void *arg);
/* A background task of the plugin (fiber). At the end of the process it is cancelled (dapr_sleep returns -ECANCELED) after all
 * instances were closed, and must return then. */
int dapr_spawn(const char *name, void (*fn)(void *), void *arg);

/* ---- state stores ---- */
enum dapr_feature {
        DAPR_FEATURE_ETAG = 1,
        DAPR_FEATURE_TRANSACTIONAL = 2,
        DAPR_FEATURE_TTL = 4,
        DAPR_FEATURE_QUERY = 8,
        DAPR_FEATURE_DELETE_WITH_PREFIX = 16,
        DAPR_FEATURE_PARTITION_KEY = 32,
        DAPR_FEATURE_KEYS_LIKE = 64,
        DAPR_FEATURE_MULTIPLE_VALUES_PER_SECRET = 1 << 16,
        /* of brokers */
        DAPR_FEATURE_SUBSCRIBE_WILDCARDS = 1 << 19,
        DAPR_FEATURE_MESSAGE_TTL = 1 << 20,
        DAPR_FEATURE_BULK_PUBSUB = 1 << 21,
        DAPR_FEATURE_HTTP_EXCHANGE = 1 << 23, /* of middleware: told by its operations */
        DAPR_FEATURE_PAUSE = 1 << 22 /* Pause and Resume: a paused subscription takes no messages; has no name outside */
};
enum dapr_concurrency { DAPR_CONCURRENCY_UNSET, DAPR_FIRST_WRITE, DAPR_LAST_WRITE };
enum dapr_consistency { DAPR_CONSISTENCY_UNSET, DAPR_EVENTUAL, DAPR_STRONG };

struct dapr_get {
        const char *key;
        struct dapr_kvs metadata;
        enum dapr_consistency consistency;
};
struct dapr_item { /* a stored value */
        bool found;
        struct dapr_bytes value;
        const char *etag;           /* NULL = none */
        const char *content_type;   /* NULL = none */
        struct dapr_kvs metadata;   /* e.g. ttlExpireTime: when it expires, in RFC 3339, UTC: "2026-01-31T12:00:00Z" */
};
struct dapr_set {
        const char *key;
        struct dapr_bytes value;
        const char *etag;           /* NULL = not given */
        const char *content_type;
        struct dapr_kvs metadata;
        enum dapr_concurrency concurrency;
        enum dapr_consistency consistency;
        int64_t ttl_s;              /* 0 = none given, -1 = never, >0 seconds; parsed from ttlInSeconds by the SDK. A write without one takes
                                     * the TTL of the item away, as most stores do (Redis is the exception: there it stays) */
};
struct dapr_delete {
        const char *key;
        const char *etag;
        struct dapr_kvs metadata;
        enum dapr_concurrency concurrency;
        enum dapr_consistency consistency;
};
struct dapr_op { /* of a transaction */
        enum { DAPR_OP_SET, DAPR_OP_DELETE } kind;
        struct dapr_set set;
        struct dapr_delete del;
};
struct dapr_bulk_result { /* one per item of a bulk call, preset to success */
        int code;            /* 0 or dapr_code */
        const char *message;
};
struct dapr_query {
        const char *json;    /* the query document as the caller wrote it: {"filter":…,"sort":…,"page":…} */
        struct dapr_kvs metadata;
};
struct dapr_query_row {
        const char *key;
        struct dapr_item item;
        const char *error;
};
struct dapr_query_result {
        const struct dapr_query_row *rows;
        size_t n;
        const char *token;
        struct dapr_kvs metadata;
};
struct dapr_keys_like {
        const char *pattern; /* SQL LIKE with \ as escape */
        uint32_t page_size;  /* 0 = all */
        const char *token;
};
struct dapr_keys {
        const char *const *keys;
        size_t n;
        const char *token;   /* NULL = no more */
};

struct dapr_state_ops {
        enum dapr_mode mode;
        unsigned features;
        /* While an older process of the same component serves and writes: see above. */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);                    /* while a newer process serves and writes: release, write nothing back */
        int (*ping)(struct dapr_call *c, void *instance); /* NULL = always fine */
        int (*get)(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out);
        int (*set)(struct dapr_call *c, void *instance, const struct dapr_set *in);
        int (*del)(struct dapr_call *c, void *instance, const struct dapr_delete *in);
        /* Optional: the SDK loops over the single forms when NULL. */
        int (*bulk_get)(struct dapr_call *c, void *instance, const struct dapr_get *in, size_t n, struct dapr_item *out);
        int (*bulk_set)(struct dapr_call *c, void *instance, const struct dapr_set *in, size_t n, struct dapr_bulk_result *out);
        int (*bulk_del)(struct dapr_call *c, void *instance, const struct dapr_delete *in, size_t n, struct dapr_bulk_result *out);
        int (*transact)(struct dapr_call *c, void *instance, const struct dapr_op *ops, size_t n, struct dapr_kvs metadata);
        int (*query)(struct dapr_call *c, void *instance, const struct dapr_query *in, struct dapr_query_result *out);
        int (*keys_like)(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out);
        int (*delete_with_prefix)(struct dapr_call *c, void *instance, const char *prefix, int64_t *deleted);
        int64_t max_transaction_ops; /* 0 = no limit */
        const char *ttl_error; /* put before the text about a ttlInSeconds that is no number of seconds; NULL = nothing */
        const char *ttl_parser; /* the function that the text names, "strconv.Atoi": any number is taken then, a negative one as -1 */
};

/* ---- secret stores ---- */
struct dapr_secret { /* one secret: one or more named values */
        const char *name;
        struct dapr_kvs values;
};
struct dapr_secrets {
        const struct dapr_secret *v;
        size_t n;
};
struct dapr_secret_ops {
        enum dapr_mode mode;
        unsigned features;
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        int (*get)(struct dapr_call *c, void *instance, const char *name, struct dapr_kvs metadata, struct dapr_kvs *out);
        int (*bulk_get)(struct dapr_call *c, void *instance, struct dapr_kvs metadata, struct dapr_secrets *out);
};

#include <dapr/binding.h>
#include <dapr/configuration.h>
#include <dapr/conversation.h>
#include <dapr/crypto.h>
#include <dapr/lock.h>
#include <dapr/middleware.h>
#include <dapr/nameresolution.h>
#include <dapr/pubsub.h>

/* ---- the table of a plugin ---- */
struct dapr_component_type {
        const char *type;                   /* "state.sqlite" */
        const char *versions;               /* "v1" or "v1,v2" */
        const struct dapr_state_ops *state; /* exactly one of these */
        const struct dapr_secret_ops *secrets;
        const struct dapr_binding_ops *binding;
        const struct dapr_crypto_ops *crypto;
        const struct dapr_conversation_ops *conversation;
        const struct dapr_lock_ops *lock;
        const struct dapr_configuration_ops *configuration;
        const struct dapr_pubsub_ops *pubsub;
        const struct dapr_name_ops *names;
        const struct dapr_middleware_ops *middleware;
};
struct dapr_plugin {
        const char *name, *version;
        const struct dapr_component_type *types;
        size_t n_types;
        int worker_threads;                 /* for DAPR_WORKER and dapr_work; 0 = 4 */
        int (*start)(void);                 /* optional, once before the first Hello */
        void (*stop)(void);                 /* optional, after the drain */
};
/* Runs until the runtime tells it to stop or goes away. Returns the process's exit code. `--manifest` prints what it serves;
 * started by hand, it listens on the socket named by --socket PATH, to be debugged or used as a classic pluggable component. */
int dapr_plugin_main(int argc, char **argv, const struct dapr_plugin *p);

#ifdef __cplusplus
}
#endif
#endif
