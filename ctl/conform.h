/*
 * The conformance kit: what every plugin must do, and what its kind must do, as checks that run over the wire against one process.
 * A check is a function that gives NULL when all is as it should be, or a sentence. Groups are tables of checks.
 */
#ifndef CTL_CONFORM_H
#define CTL_CONFORM_H

#include <sys/types.h>

#include "ctl/ctl.h"
#include "ctl/subject.h"
#include "sdk/base/loop.h"
#include "sdk/base/pb.h"
#include "sdk/net/rpc.h"

enum { CONFORM_FEATURES_MAX = 32 };
#define STATE_KEYS "conformance||" /* how the keys begin that checks of a state store write; then the process id and "-" */

enum conform_status { CONFORM_PASS, CONFORM_FAIL, CONFORM_SKIP };
struct conform_result {
        const char *group, *name, *detail; /* detail "": nothing to say */
        enum conform_status status;
        double ms;
};
struct conform {
        struct arena *arena;     /* of the run */
        struct arena call;       /* emptied before each check */
        struct subject *subject;
        struct rpc_channel *ch;
        const char *type, *version, *kind; /* "state.redis", "v1", "state" */
        const char *plugin_name, *plugin_version; /* of plugin.yaml, NULL = none; of Hello */
        const char *manifest_version;
        struct rpc_md md[3];     /* of every call */
        size_t n_md;
        double timeout_s;        /* of one call */
        bool ordered;            /* --ordered: messages of a topic come in their order */
        const char *topic_prefix; /* topics are PREFIX, process id, "-", a name */
        struct str init;         /* metadata of Init: a MetadataRequest, packed */
        const char *features[CONFORM_FEATURES_MAX];
        size_t n_features;
        const char *declared[CONFORM_FEATURES_MAX]; /* features of the type in plugin.yaml; few name them there */
        size_t n_declared;
        const char **written;    /* keys that checks of a state store may have written */
        size_t n_written, cap_written;
        bool stopped;            /* Init has failed: nothing else can be checked */
        struct rpc_status status; /* of the last call */
        struct conform_result *v;
        size_t n, cap;
        bool skip;               /* set by a check: what it gives is why it was left out */
        struct subject *second;  /* another process of it, while conform_swap() runs; NULL = none */
        struct rpc_channel *second_ch;
        bool is_volatile;        /* plugin.yaml: what it holds ends with its process */
        bool dead;               /* the process could not be kept alive: the rest is left out */
        struct kv_list { const char *const *v; size_t n; } secrets, keys, /* --secret name=value, --key name */
                subscribe_metadata, operation_metadata; /* --subscribe-metadata, --operation-metadata name=value */
        const char *change;      /* --change: a command that stores an item; "" = none */
};
struct conform_check {
        const char *name;
        const char *(*fn)(struct conform *c);
        const char *feature;     /* only when the component has it; NULL = always */
};

/* One call, at most c->timeout_s; the gRPC code, c->status has the text. resp may be NULL. Parks. */
int conform_ask(struct conform *c, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *d, void *resp);
int conform_ask_raw(struct conform *c, const char *method, struct str req, struct str *resp, double timeout_s);
/* "Set gave NotFound (text)" in the run's arena. */
const char *conform_wrong(struct conform *c, const char *what);
const char *conform_text(struct conform *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Bytes as a person reads them, in quotes, what is no text as \xNN; of long ones the beginning and the length. STR_NULL: "nothing". */
const char *conform_quote(struct conform *c, struct str bytes);
const char *conform_skip(struct conform *c, const char *why);
/* In checks: a call's code, another check's word, a condition. */
#define TRY(x, what) do { if (x) return conform_wrong(c, what); } while (0)
#define HOLD(x) do { const char *fault_ = (x); if (fault_) return fault_; } while (0)
#define MUST(x, text) do { if (!(x)) return (text); } while (0)
#define RUN(c, group, checks) conform_run(c, group, checks, sizeof checks / sizeof *checks)
bool conform_has(const struct conform *c, const char *feature);
/* Connects, says Hello where the plugin is ours, and Init. NULL or what failed. Parks. */
const char *conform_connect(struct conform *c);
const char *conform_init(struct conform *c);
const char *conform_service(const struct conform *c); /* of the kind; for bindings that which is served */
const char *conform_method(struct conform *c, const char *name);  /* "/service/name" of it */
void conform_run(struct conform *c, const char *group, const struct conform_check *checks, size_t n);

/* ---- groups ---- */
void conform_contract(struct conform *c); /* before the kind's */
void conform_ending(struct conform *c);   /* drain and exit: last */
void conform_faults(struct conform *c);
void conform_kind(struct conform *c);
void conform_swap(struct conform *c);     /* two processes at the same time */
void conform_undeclared(struct conform *c); /* what is not said to be there; after the faults */
/* Removes what the checks of a state store have written; how many keys could not be deleted. Parks. */
size_t conform_state_clean(struct conform *c);
void conform_walls(struct conform *c);    /* for a process that was started confined */
extern const struct conform_check conform_state_checks[], conform_pubsub_checks[], conform_secret_checks[], conform_lock_checks[],
        conform_configuration_checks[], conform_crypto_checks[], conform_conversation_checks[], conform_binding_checks[],
        conform_middleware_checks[], conform_name_checks[];
extern const size_t conform_state_n, conform_pubsub_n, conform_secret_n, conform_lock_n, conform_configuration_n, conform_crypto_n,
        conform_conversation_n, conform_binding_n, conform_middleware_n, conform_name_n;
/* A lock that the process takes holds in the one that turn() asks instead, and is given back there. Parks. */
const char *conform_lock_holds(struct conform *c, const char *name, void (*turn)(struct conform *c));
/* One call of the kind that changes nothing, for load and leaks: the code. */
int conform_probe(struct conform *c, struct arena *a, double timeout_s);
bool conform_probe_is_ping(const struct conform *c); /* then it says nothing about Init and Drain */

#endif
