/*
 * The kernel's own metrics, with the reference's names, labels and cardinality rules. Blocks call these after each operation;
 * all of them accept a NULL observe, do nothing when metrics are not enabled, and never fail.
 */
#ifndef KERNEL_OBSERVE_H
#define KERNEL_OBSERVE_H

#include "kernel/observe/metrics.h"

struct arena;
struct observe;

struct observe_conf {
        const char *app_id, *namespace_; /* kept */
        /* spec.metric of the Configuration */
        bool enabled, record_error_codes, increased_cardinality, exclude_verbs;
        const char *const *path_matching;
        size_t n_path_matching;
        const double *latency_buckets; /* none: the default ones */
        size_t n_latency_buckets;
};
/* Registers everything with m, which must outlive it; process metrics come in any case. 0 or -ENOMEM. */
int observe_new(struct observe **ret, struct metrics *m, const struct observe_conf *conf);
void observe_free(struct observe *o);
/* Events whose series are found at once: a cache for the hot path. What is more, or longer, is counted too. */
enum { OBSERVE_CACHED_MAX = 4096, OBSERVE_KEY_BYTES = 512 };
size_t observe_cached(const struct observe *o);

/* One served HTTP request. */
struct observe_http {
        struct str method, path; /* path as in the URL, unescaped */
        int status;
        int64_t req_bytes, resp_bytes;
        double elapsed_ms;
};
void observe_http_server(struct observe *o, struct arena *a, const struct observe_http *h);
/* One served gRPC call. Byte counts only for unary calls. */
void observe_grpc_server(struct observe *o, const char *method, int code, bool unary, size_t req_bytes, size_t resp_bytes,
                         double elapsed_ms);
/* One call to the app. started: when the request goes out; completed: when the response's headers are there or it has failed (then
 * status 500); resp_bytes as Content-Length says, -1 = unknown. path without query. */
void observe_http_client_started(struct observe *o, struct arena *a, struct str method, struct str path, size_t req_bytes);
void observe_http_client_completed(struct observe *o, struct arena *a, struct str method, struct str path, int status,
                                   int64_t resp_bytes, double elapsed_ms);
void observe_grpc_client(struct observe *o, const char *method, int code, size_t req_bytes, size_t resp_bytes, double elapsed_ms);
/* A proxied call that came from another sidecar. */
void observe_grpc_proxied(struct observe *o, const char *method, int code, double elapsed_ms);
/* One health probe of the app; status: HTTP status or gRPC code. */
void observe_health_probe(struct observe *o, bool is_grpc, int status, double elapsed_ms);
/* errorCode tag and category of a failed call; counted when spec.metrics.recordErrorCodes is on. */
void observe_error_code(struct observe *o, const char *code, const char *category);

enum observe_kind { OBSERVE_STATE, OBSERVE_SECRET, OBSERVE_CONFIGURATION, OBSERVE_CRYPTO, OBSERVE_CONVERSATION, OBSERVE_OUTPUT_BINDING,
                    OBSERVE_INPUT_BINDING, OBSERVE_KINDS };
/* One operation on a component: dapr_component_<kind>_count and _latencies. operation: static text such as "get". */
void observe_component(struct observe *o, enum observe_kind kind, struct str component, const char *operation, bool ok,
                       double elapsed_ms);
/* dapr_runtime_component_*: loaded (once a component), init_total (type), init_fail_total (type, reason "creation" or "init"). */
void observe_component_loaded(struct observe *o);
void observe_component_init(struct observe *o, const char *type);
void observe_component_init_failed(struct observe *o, const char *type, const char *reason, const char *name);

#endif
