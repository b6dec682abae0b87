/*
 * The supervisor: every component is an instance inside a plugin process (or a foreign pluggable component behind a socket);
 * this module finds the plugin for a type, starts it, says Hello, calls Init, watches, restarts and stops it, and carries calls.
 *
 * Process states:  ABSENT -> STARTING -> HELLO -> INIT -> READY <-> DEGRADED -> DRAINING -> STOPPED, plus BACKOFF and FAILED.
 * Death of a process never takes the kernel down. Calls in flight: idempotent ones are sent again to the new process, others fail
 * at once; calls that come meanwhile wait (bounded by their deadline and PLUGIN_WAIT_MAX_S) for the restart.
 */
#ifndef KERNEL_SUPER_H
#define KERNEL_SUPER_H

#include <sys/types.h>

#include "kernel/resources/resources.h"
#include "sdk/base/pb.h"
#include "sdk/net/rpc.h"

enum { PLUGIN_WAIT_MAX_S = 10, PLUGIN_CALLS_WAITING_MAX = 10000 };

enum component_kind {
        KIND_STATE, KIND_PUBSUB, KIND_BINDING, KIND_SECRETSTORE, KIND_CONFIGURATION, KIND_LOCK, KIND_CRYPTO, KIND_CONVERSATION,
        KIND_MIDDLEWARE, KIND_NAMERESOLUTION, KIND_N
};
const char *component_kind_category(enum component_kind k); /* "state", "pubsub", "bindings", … as in spec.type */

enum plugin_state {
        PLUGIN_ABSENT, PLUGIN_STARTING, PLUGIN_HELLO, PLUGIN_INIT, PLUGIN_READY, PLUGIN_DEGRADED, PLUGIN_DRAINING, PLUGIN_STOPPED,
        PLUGIN_BACKOFF, PLUGIN_FAILED, PLUGIN_STATES
};
const char *plugin_state_name(enum plugin_state s); /* "READY" */
enum death_class {
        DEATH_NONE, DEATH_CLEAN, DEATH_ERROR, DEATH_SIGNAL, DEATH_OOM, DEATH_HANG, DEATH_PROTOCOL, DEATH_START_TIMEOUT, DEATH_OPERATOR,
        DEATH_SANDBOX, DEATH_UNVERIFIED, DEATH_UNKNOWN,
        DEATH_CLASSES
};
const char *death_class_name(enum death_class d);

struct metric;
struct metrics;
struct slow;
struct super;
struct ledger; /* kernel/super/ledger.h */
struct tracer;
struct component; /* one initialised instance */

/* State features, as bits of component_features(). */
enum component_feature {
        FEATURE_ETAG = 1, FEATURE_TRANSACTIONAL = 2, FEATURE_TTL = 4, FEATURE_QUERY_API = 8, FEATURE_DELETE_WITH_PREFIX = 16,
        FEATURE_PARTITION_KEY = 32, FEATURE_KEYS_LIKE = 64, FEATURE_MULTIPLE_VALUES_PER_SECRET = 1 << 16,
        FEATURE_SUBSCRIBE_WILDCARDS = 1 << 19, FEATURE_MESSAGE_TTL = 1 << 20, FEATURE_BULK_PUBLISH = 1 << 21,
        FEATURE_INPUT_BINDING = 1 << 17, FEATURE_OUTPUT_BINDING = 1 << 18, FEATURE_HTTP_EXCHANGE = 1 << 23
};

/* Times and limits; tests shorten them. 0 = the default. */
struct super_tuning {
        double health_interval_s;  /* between reports of a plugin; default 1 */
        unsigned health_missed;    /* reports missing in a row = a hang; default 3 */
        double hang_after_s;       /* of a plugin whose manifest says nothing: hangAfter; default 60 */
        double hello_timeout_s;    /* default 5, and never longer than the rest of initTimeout */
        double backoff_min_s, backoff_max_s; /* defaults 0.1 and 5 */
        double stable_s;           /* ready for so long: earlier deaths are forgotten; default 10 */
        unsigned deaths_max;       /* so many deaths ... ; default 10 */
        double deaths_window_s;    /* ... in this time: FAILED; default 60 */
        double ping_interval_s;    /* of foreign components; default 5 */
        size_t calls_waiting_max;  /* for a restart, all components together; default PLUGIN_CALLS_WAITING_MAX */
};
struct super_conf {
        const struct daprd_opts *opts;
        const char *exe_dir;      /* of daprd, for ../plugins; kept */
        /* State of an instance changed: metrics, health, metadata. Must not park. May be NULL. */
        void (*on_change)(void *arg, struct component *c);
        /* A foreign component of this type ("state.mystore") has appeared after super_discover(): components that could not
         * start for want of it can be started now. Called on a fiber; may park. May be NULL. */
        void (*on_type)(void *arg, const char *type);
        /* An instance that is to serve c's calls from now on is ready: `to` is a handle on it for as long as the call lasts (c itself
         * when it serves already, after a roll-back). Whoever keeps something about the component makes it anew when other_spec, and
         * opens its streams there; the old ones go on. 0; or a text in *ret_err: then nothing changes. Parks. May be NULL. */
        int (*on_move)(void *arg, struct component *c, struct component *to, bool other_spec, struct arena *a, const char **ret_err);
        /* It serves now: streams to the old one end, without loss. Parks. May be NULL. */
        void (*on_moved)(void *arg, struct component *c);
        /* It stops serving for a while (and comes back in the same place): streams end. Park. May be NULL. */
        void (*on_leave)(void *arg, struct component *c);
        void (*on_arrive)(void *arg, struct component *c);
        /* The operator wants the program at `binary` ("" = this one again) to take this one's place: 0 = it will soon; or -errno with a
         * text. Parks. May be NULL. */
        int (*on_upgrade)(void *arg, const char *binary, struct arena *a, const char **ret_err);
        struct ledger *ledger;    /* of the program before, kept until super_adopted(); NULL = none */
        void *arg;
        struct metric *hop_seconds;   /* histogram of calls by app_id, component, method; NULL = none */
        struct tracer *hop_tracer;    /* calls have spans of their own; NULL = they have not */
        struct metrics *metrics;      /* what the control socket tells; NULL = nothing */
        const struct slow *slow;
        const struct super_tuning *tuning; /* NULL = defaults; copied */
};
/* 0 and *ret, or -ENOMEM. Starts nothing but the control socket (control.h), whose failure is logged only. */
int super_new(struct super **ret, const struct super_conf *conf);
void super_free(struct super *s); /* after super_stop(); NULL is fine */
/* Foreign components behind sockets of the folder, now and whenever one appears. Parks for the first scan (bounded). */
int super_discover(struct super *s);
/* Finds the plugin or foreign socket for spec->type/version, starts it when needed, Hello, Init. Parks up to spec->init_timeout_ns.
 * 0 and *ret; or -errno with the text for the log in *ret_err (arena a). -ENOENT: nothing serves the type ("couldn't find state
 * store state.x/v1", near names, how to install): the reference's CREATE_COMPONENT_FAILURE; all others are its
 * INIT_COMPONENT_FAILURE, -ETIMEDOUT with the line "init timeout for component ..." at the end. A plugin that dies before it was ever
 * ready (by a signal, for want of memory, hanging, or ending by itself in Init) is started again for as long as there is time and
 * deaths_max are not reached; an Init that is answered with an error is final. Takes a reference of
 * spec; on failure nothing is kept but a row for daprctl. */
int super_component_start(struct super *s, const struct component_spec *spec, struct arena *a, struct component **ret,
                          const char **ret_err);
void super_component_stop(struct super *s, struct component *c); /* its calls end, drain, close; parks. The handle stays valid */
void super_stop(struct super *s, double grace_s);                /* all of them, in parallel; parks */
/* A FAILED one, or any other, once more from the start: the operator's wish. The old process serves until the new one is ready; with
 * force, or when it is stuck, it ends first (within 6 s; it is killed then) and calls wait. Parks like a start. 0 or -errno. */
int super_component_restart(struct super *s, struct component *c, bool force, struct arena *a, const char **ret_err);
/* Takes it out of service, and back: calls fail at once meanwhile, with a text that says so. Park. 0 or -errno. */
int super_component_enable(struct super *s, struct component *c, bool on, struct arena *a, const char **ret_err);
/* A component that could not start is not wanted any more: its row goes. */
void super_forget_failed(struct super *s, const char *name);

/* Exchanges the component's instance for another one under running calls: new process, Hello, Init, Ready, streams, calls, then the
 * old one drains and stops. Whatever fails before the calls move keeps the old one, and *ret_err says what and why. For
 * tuning.stable_s after that the old process stands by: if the new one dies, calls go back to it at once. */
struct swap_request {
        const char *why;                   /* for log and history: "upgrade", "reload", ...; static text */
        const struct component_spec *spec; /* other settings of the same name and kind, type included; NULL = as it is */
        const char *manifest;              /* plugin.yaml of another version of the plugin; NULL = the one that serves the type */
        const struct component *join;      /* whose process it joins when that serves the same manifest and shares; NULL = one of its own */
        bool debug;                        /* the candidate starts stopped, for a debugger, and may take its time */
        bool restart;                      /* with the manifest that it has */
        double settle_s;                   /* the candidate must live so long before calls go to it */
        double shadow_s;                   /* so long reads go to both and answers are compared; 0 = no */
        struct swap_report *report;        /* may be NULL */
};
struct swap_report {
        uint64_t shadow_reads, shadow_differences;
        double shadow_p99_ms, present_p99_ms, shadow_growth_mib;
};
int super_component_swap(struct super *s, struct component *c, const struct swap_request *q, struct arena *a, const char **ret_err);
/* The same for a component and all that share its process, which move one after the other into one new process; if one does not, those
 * that have go back. q->manifest is set. */
int super_shared_swap(struct super *s, struct component *c, const struct swap_request *q, struct arena *a, const char **ret_err);
/* Names of the components that share its process, in a: "b, c"; NULL: none does. */
const char *super_sharers(const struct component *c, struct arena *a);
/* The settings that were tried last and not taken; NULL = none. */
const struct component_spec *component_refused(const struct component *c);
/* Back to the plugin before the last swap. -ENOENT: there was none. Parks. */
int super_component_rollback(struct super *s, struct component *c, struct arena *a, const char **ret_err);

void super_started(struct super *s); /* for daprctl: everything has started */
/* The start is over: plugins that were taken over and serve nothing end. Parks. */
void super_adopted(struct super *s);
/* Instead of super_stop(): plugins that serve go into the ledger and run on, everything else stops. 0 or -errno. Parks. */
int super_hand_over(struct super *s, struct ledger *l, double grace_s);

const struct component_spec *component_spec_of(const struct component *c);
const char *component_name(const struct component *c);
enum component_kind component_kind_of(const struct component *c);
unsigned component_features(const struct component *c);
bool component_is_foreign(const struct component *c); /* behind a socket that is not ours to start */
/* Which directions of a binding its metadata field `direction` allows, as FEATURE_…_BINDING; without the field both. */
unsigned component_directions(const struct component_spec *spec);
/* The same, but 0 without the field: what the user asked for by name. */
unsigned component_explicit_directions(const struct component_spec *spec);
/* Does the plugin serve this gRPC method? (From Hello, or from reflection for foreign ones.) */
bool component_serves(const struct component *c, const char *service);

/* One unary call to the component's process. Retried on a restart only when the method is idempotent. Parks.
 * 0 and *resp (message of resp_d in a), or the gRPC code > 0 with st (message text in a). method: static text. A store that
 * lost its process answers UNAVAILABLE with st->transport set and a text that says which, why and what happens next. */
int component_call(struct component *c, struct arena *a, const char *method, const ProtobufCMessage *req,
                   const ProtobufCMessageDescriptor *resp_d, void *resp, struct rpc_status *st);
/* The same on bytes: hot paths. */
int component_call_bytes(struct component *c, struct arena *a, const char *method, struct str req, struct str *resp,
                         struct rpc_status *st);
/* Streams (bindings, pub/sub): bound to the process's present life. */
int component_open(struct component *c, struct arena *a, const char *method, struct rpc_call **ret, struct rpc_status *st);

/* For metadata, metrics, daprctl. */
struct component_status {
        enum plugin_state state;
        const char *plugin_name, *plugin_version, *executable, *socket;
        pid_t pid;                 /* 0 = foreign or not running */
        bool foreign, disabled;
        unsigned adopted;          /* how often its process was taken over from a daprd that crashed */
        bool backend_reachable, backend_known;
        const char *stuck;         /* what in it does not come back; "" = nothing */
        const char *last_error;    /* "" if none */
        const char *fault;         /* that an operator has set, in words; NULL = none */
        enum death_class last_death;
        unsigned restarts, deaths_in_window;
        unsigned walls;            /* sandbox.h: what stands around its process */
        uint64_t calls, errors;
        uint64_t inflight, abandoned; /* calls that run or wait; of them those whose callers have gone */
        uint64_t rss_bytes;
        double cpu_seconds, since_s; /* seconds in this state */
};
/* Strings live in a, or as long as the component. */
void component_status_get(const struct component *c, struct arena *a, struct component_status *ret);

#endif
