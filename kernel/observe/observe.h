/*
 * The kernel's own metrics, with the reference's names, labels and cardinality rules. Blocks call these after each operation;
 * all of them accept a NULL observe (metrics are off) and never fail.
 */
#ifndef KERNEL_OBSERVE_H
#define KERNEL_OBSERVE_H

#include "kernel/observe/metrics.h"

struct configuration;
struct observe;
struct super;

struct observe_conf {
        const char *app_id, *namespace_;
        const struct configuration *config;
};
/* Registers everything with m, which must outlive it. 0 or -ENOMEM. */
int observe_new(struct observe **ret, struct metrics *m, const struct observe_conf *conf);
void observe_free(struct observe *o);

/* One served HTTP request; path as in the URL, unescaped. Sizes in bytes. */
void observe_http_server(struct observe *o, struct str method, struct str path, int status, int64_t req_bytes, int64_t resp_bytes,
                         double elapsed_ms);
/* One served gRPC call. Byte counts only for unary calls. */
void observe_grpc_server(struct observe *o, const char *method, int code, bool unary, size_t req_bytes, size_t resp_bytes,
                         double elapsed_ms);
/* errorCode tag and category of a failed call; counted when spec.metrics.recordErrorCodes is on. */
void observe_error_code(struct observe *o, const char *code, const char *category);

enum observe_kind { OBSERVE_STATE, OBSERVE_SECRET, OBSERVE_CONFIGURATION, OBSERVE_CRYPTO, OBSERVE_CONVERSATION, OBSERVE_OUTPUT_BINDING,
                    OBSERVE_KINDS };
/* One operation on a component: dapr_component_<kind>_count and _latencies. operation: static text such as "get". */
void observe_component(struct observe *o, enum observe_kind kind, struct str component, const char *operation, bool ok,
                       double elapsed_ms);
/* dapr_runtime_component_*: loaded (once a component), init_total (type), init_fail_total (type, reason "creation" or "init"). */
void observe_component_loaded(struct observe *o);
void observe_component_init(struct observe *o, const char *type);
void observe_component_init_failed(struct observe *o, const char *type, const char *reason, const char *name);

/* Path as the label of the HTTP metrics has it, e.g. /v1.0/state/mystore for /v1.0/state/mystore/key. In a. */
struct str observe_http_path(const struct observe *o, struct arena *a, struct str path);

#endif
