/*
 * The plugin side of the contract, inside the SDK: one process serves its table of component types to one runtime.
 * An instance is one component of the user's YAML that was initialised by Init; calls name it by metadata x-component-instance.
 */
#ifndef SDK_PLUGIN_RUNTIME_H
#define SDK_PLUGIN_RUNTIME_H

#include "sdk/include/dapr/plugin.h"
#include <stdatomic.h>

#include "sdk/base/list.h"
#include "sdk/base/loop.h"
#include "sdk/net/rpc.h"

enum { CONTRACT_VERSION = 1, PLUGIN_FD_LISTEN = 3, PLUGIN_FD_CONTROL = 4 };

enum sdk_kind {
        SDK_STATE, SDK_SECRETS, SDK_BINDING, SDK_PUBSUB, SDK_CRYPTO, SDK_CONVERSATION, SDK_LOCK, SDK_CONFIGURATION, SDK_NAMES,
        SDK_MIDDLEWARE, SDK_KINDS
};

/* How each table of operations begins. */
struct sdk_ops {
        enum dapr_mode mode;
        unsigned features;
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
};

struct instance {
        struct list node; /* in runtime.instances; replaced ones are in no list and live until their last call ends */
        enum sdk_kind kind;
        char *name;
        const struct dapr_component_type *type;
        unsigned features;
        void *obj;        /* what the plugin's init gave; valid once ready */
        bool ready;
        unsigned refs;    /* the list and each call in progress hold one */
        bool backend_known, backend_up;
        bool pinged;      /* a ping is on its way */
        const struct dapr_call *ping; /* that one; NULL = none runs */
        bool paused;      /* brokers: subscriptions take no messages */
        char *backend_error;
};

/* What the process hangs on: linger.c. */
struct lifeline {
        pid_t runtime;          /* whose connections are welcome */
        double linger_s;        /* without it; 0 = not at all */
        char token[65];         /* that another one must know */
        bool lost;              /* there is none: the time runs */
        struct timer timer;
        void (*end)(void *arg); /* ends the process in good order; NULL = started by hand */
        void *end_arg;
};

struct runtime {
        const struct dapr_plugin *plugin;
        struct rpc_server *server;
        struct scope scope;      /* background fibers; joined at the end */
        struct list instances;
        struct list subscriptions; /* of brokers: struct dapr_subscription.node */
        struct instance *recent; /* of the last call: most processes have one instance */
        uint64_t calls, errors, inflight;
        double started_at;       /* loop time */
        bool draining;
        struct cond idle;        /* inflight fell to zero while draining */
        struct list running;     /* unary calls in progress, oldest first: struct dapr_call.in_running */
        double hang_after_s;     /* the kernel's limit, from Health; 0 = it has none */
        struct cond interval_changed; /* that limit, and with it when pings are asked */
        char busy_with[256];     /* of the last report */
        struct cond health;      /* something that a report tells has changed */
        char last_error[512];    /* of any backend */
        char *wanted_type, *wanted_version; /* from Hello: for whom the process was started */
        struct rpc_method *rows[SDK_KINDS]; /* of the server, each ends with an empty one; freed after it */
        size_t n_rows;
        int exit_code;
        struct lifeline lifeline;
};

/* An operation in progress; public functions see it as opaque. */
struct dapr_call {
        struct runtime *rt;
        struct rpc_call *rpc;
        struct arena *arena;
        struct instance *inst;
        double deadline;      /* loop time */
        const char *message;  /* from dapr_fail */
        struct http_edits *edits; /* of middleware: what dapr_http_…() collect */
        bool on_worker;       /* at the pool: it runs there, or waits for a thread */
        _Atomic double works_since; /* loop time; 0 = it waits */
        struct list in_running;
        const char *method;   /* of a unary call: its path */
        double began;         /* loop time */
        const struct dapr_sidecar *sidecar; /* during init of a name resolver */
        atomic_bool gone;     /* nobody waits for the outcome any more: what an operation on a worker can see of it */
};

/* One method that the SDK serves: fn reads req, runs the operation and answers by sdk_reply*(). */
struct sdk_method {
        const char *path;
        enum sdk_kind kind;
        int (*fn)(struct dapr_call *dc, struct str req);
        bool idempotent;      /* may be sent again after a crash */
        unsigned feature;     /* served only if a type of the table has one of these; 0 = always */
        bool any_instance;    /* runs without an instance too (dc->inst may be NULL) */
        bool stream;          /* reads dc->rpc itself (req is empty); counts its own work in runtime.inflight by sdk_work_begin/end */
};
struct sdk_service {
        const struct sdk_method *v;
        size_t n;
};
extern const struct sdk_service sdk_state_service, sdk_secret_service, sdk_binding_service, sdk_pubsub_service;
extern const struct sdk_service sdk_configuration_service, sdk_crypto_service, sdk_conversation_service, sdk_lock_service;
extern const struct sdk_service sdk_name_service, sdk_middleware_service;
const struct sdk_service *sdk_service_of(enum sdk_kind kind);
extern const struct rpc_method sdk_lifecycle_methods[], sdk_reflection_methods[];
extern const size_t sdk_lifecycle_methods_n, sdk_reflection_methods_n;

enum { SDK_FEATURE_INPUT_BINDING = 1 << 17, SDK_FEATURE_OUTPUT_BINDING = 1 << 18 }; /* which operations the table has */
unsigned sdk_binding_features(const struct dapr_binding_ops *ops);
unsigned sdk_middleware_features(const struct dapr_middleware_ops *ops);
const struct sdk_ops *sdk_ops_of(const struct dapr_component_type *t);
unsigned sdk_features(const struct dapr_component_type *t);
enum dapr_mode sdk_mode(const struct dapr_component_type *t);
enum sdk_kind sdk_kind_of(const struct dapr_component_type *t);
/* The type a call is about: of its instance, else the one the process was started for, else the table's first of the kind. */
const struct dapr_component_type *sdk_call_type(const struct dapr_call *dc, enum sdk_kind kind);
/* Of the instance, or of the type for a call without one. */
unsigned sdk_call_features(const struct dapr_call *dc, enum sdk_kind kind);
const char *sdk_feature_name(unsigned bit); /* one bit; NULL when there is none */

/* dispatch.c: server rows of all component services of the table. Rows live as long as the process. 0 or -errno. */
int sdk_dispatch_add(struct runtime *rt);

/* linger.c */
void sdk_lifeline_init(struct lifeline *l, pid_t runtime, void (*end)(void *arg), void *end_arg);
void sdk_lifeline_told(struct runtime *rt, uint32_t linger_ms, const char *token);
void sdk_lifeline_lost(struct runtime *rt); /* the runtime is gone */
int sdk_attach(struct rpc_call *c, void *arg);

/* instance.c */
/* The instance that a call names; p == NULL if none. */
struct str sdk_call_instance(const struct rpc_call *c);
struct instance *sdk_instance_find(struct runtime *rt, enum sdk_kind kind, struct str name);
/* Init of `name`: runs the plugin's init; a ready instance of that name is replaced when it succeeds and stays when it fails. */
int sdk_instance_init(struct dapr_call *dc, enum sdk_kind kind, struct dapr_kvs metadata);
int sdk_instance_ping(struct dapr_call *dc);
void sdk_instance_ref(struct instance *i);
void sdk_instance_unref(struct runtime *rt, struct instance *i);
void sdk_instances_close(struct runtime *rt);
void sdk_backend_report(struct runtime *rt, const char *instance, bool up, const char *reason);

/* watch.c: what does not come back */
int sdk_pings_start(struct runtime *rt); /* 0 or -errno */
void sdk_watch_limit(struct runtime *rt, double hang_after_s);
void sdk_call_begins(struct dapr_call *dc, const char *method /* keeps while the call runs */);
void sdk_call_ends(struct dapr_call *dc);
struct Microdapr__Plugin__V1__HealthReport;
void sdk_watch_report(struct runtime *rt, struct Microdapr__Plugin__V1__HealthReport *out); /* texts stay until the next one */

/* pubsub_pull.c: subscriptions take no more messages from now on; then, what is unanswered is handed back. Returns how many. */
void sdk_pubsub_stop(struct runtime *rt);
unsigned sdk_pubsub_hand_back(struct runtime *rt);

/* Work that a drain waits for, begun and ended outside a unary call. */
void sdk_work_begin(struct runtime *rt);
void sdk_work_end(struct runtime *rt);
/* Runs fn(arg) as the instance's mode says: here, or on the worker pool (parks). */
int sdk_run(struct dapr_call *dc, enum dapr_mode mode, int (*fn)(void *arg), void *arg);
/* Answers. sdk_outcome maps what an operation returned: sends nothing on success. All return the handler's value. */
int sdk_outcome(struct dapr_call *dc, int r);
int sdk_reply(struct dapr_call *dc, struct str msg);
int sdk_reply_pb(struct dapr_call *dc, const ProtobufCMessage *m);
int sdk_bad_request(struct dapr_call *dc);
/* Of an outcome r != 0: its gRPC code and text. */
int sdk_code(int r);
const char *sdk_text(struct dapr_call *dc, int r);

/* details.c: failed answers with the contract's typed details (see kernel/super/details.h for their reader). */
int sdk_fail_etag(struct dapr_call *dc, int code, const char *text);
int sdk_fail_items(struct dapr_call *dc, const char *const *keys, const struct dapr_bulk_result *results, size_t n);

/* metadata.c */
struct dapr_metadata {
        struct dapr_kvs kvs;
};

/* log.c */
void sdk_log_setup(void);
int sdk_log_set_level(const char *level); /* -EINVAL */
void sdk_log(enum dapr_log level, const char *fmt, va_list ap);

/* main.c: backend reports may come from any thread. NULL outside dapr_plugin_main. */
struct runtime *sdk_runtime(void);
bool sdk_on_loop(void); /* does this thread run the loop? */

#endif
