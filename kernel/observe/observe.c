/*
 * The kernel's metrics: one table names them, one function a kind of event counts them. Series that a hot path needs together
 * (count and latency of a route) are kept together under one key, so that a request costs one look-up.
 */
#include "kernel/observe/observe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/observe/http_path.h"
#include "kernel/observe/process.h"
#include "sdk/net/rpc.h"

enum metric_id {
        M_NONE, M_HTTP_REQ_BYTES, M_HTTP_RESP_BYTES, M_HTTP_LATENCY, M_HTTP_REQ_COUNT, M_HTTP_RESP_COUNT,
        M_GRPC_RECV_BYTES, M_GRPC_SENT_BYTES, M_GRPC_LATENCY, M_GRPC_COMPLETED,
        M_ERROR_CODE,
        M_LOADED, M_INIT, M_INIT_FAIL,
        M_STATE_COUNT, M_STATE_LATENCY, M_SECRET_COUNT, M_SECRET_LATENCY, M_CONFIGURATION_COUNT, M_CONFIGURATION_LATENCY,
        M_CRYPTO_COUNT, M_CRYPTO_LATENCY, M_CONVERSATION_COUNT, M_CONVERSATION_LATENCY, M_OUTPUT_BINDING_COUNT,
        M_OUTPUT_BINDING_LATENCY, M_INPUT_BINDING_COUNT, M_INPUT_BINDING_LATENCY,
        M_HTTP_CLIENT_SENT, M_HTTP_CLIENT_RECEIVED, M_HTTP_CLIENT_LATENCY, M_HTTP_CLIENT_COMPLETED,
        M_GRPC_CLIENT_SENT, M_GRPC_CLIENT_RECEIVED, M_GRPC_CLIENT_LATENCY, M_GRPC_CLIENT_COMPLETED,
        M_HTTP_PROBE_COUNT, M_HTTP_PROBE_LATENCY, M_GRPC_PROBE_COUNT, M_GRPC_PROBE_LATENCY,
        M_N
};

#define HTTP_LABELS "app_id,method,path,status"
#define GRPC_LABELS "app_id,grpc_server_method,grpc_server_status"
#define GRPC_CLIENT_LABELS "app_id,grpc_client_method,grpc_client_status"
#define OP_LABELS "app_id,component,namespace,operation,success"
#define COMPONENT_LABELS "app_id,component,namespace,success"

static const struct metric_def defs[M_N] = {
        [M_HTTP_REQ_BYTES] = {"dapr_http_server_request_bytes", "HTTP request body size if set as ContentLength (uncompressed) in server.",
                              METRIC_HISTOGRAM, "app_id", metric_size_buckets},
        [M_HTTP_RESP_BYTES] = {"dapr_http_server_response_bytes", "HTTP response body size (uncompressed) in server.", METRIC_HISTOGRAM,
                               "app_id", metric_size_buckets},
        [M_HTTP_LATENCY] = {"dapr_http_server_latency", "HTTP request end-to-end latency in server.", METRIC_HISTOGRAM, HTTP_LABELS, NULL},
        [M_HTTP_REQ_COUNT] = {"dapr_http_server_request_count", "Count of HTTP requests processed by the server.", METRIC_COUNTER,
                              HTTP_LABELS, NULL},
        [M_HTTP_RESP_COUNT] = {"dapr_http_server_response_count", "The number of HTTP responses", METRIC_COUNTER, HTTP_LABELS, NULL},
        [M_GRPC_RECV_BYTES] = {"dapr_grpc_io_server_received_bytes_per_rpc", "Total bytes received across all messages per RPC.",
                               METRIC_HISTOGRAM, "app_id,grpc_server_method", metric_size_buckets},
        [M_GRPC_SENT_BYTES] = {"dapr_grpc_io_server_sent_bytes_per_rpc", "Total bytes sent in across all response messages per RPC.",
                               METRIC_HISTOGRAM, "app_id,grpc_server_method", metric_size_buckets},
        [M_GRPC_LATENCY] = {"dapr_grpc_io_server_server_latency",
                            "Time between first byte of request received to last byte of response sent, or terminal error.",
                            METRIC_HISTOGRAM, GRPC_LABELS, NULL},
        [M_GRPC_COMPLETED] = {"dapr_grpc_io_server_completed_rpcs", "Distribution of bytes sent per RPC, by method.", METRIC_COUNTER,
                              GRPC_LABELS, NULL},
        [M_ERROR_CODE] = {"dapr_error_code_total", "Total number of times an error with a specific error code was encountered.",
                          METRIC_COUNTER, "app_id,category,error_code", NULL},
        [M_LOADED] = {"dapr_runtime_component_loaded", "The number of successfully loaded components.", METRIC_COUNTER, "app_id", NULL},
        [M_INIT] = {"dapr_runtime_component_init_total", "The number of initialized components.", METRIC_COUNTER, "app_id,component", NULL},
        [M_INIT_FAIL] = {"dapr_runtime_component_init_fail_total", "The number of component initialization failures.", METRIC_COUNTER,
                         "app_id,component,componentName,reason", NULL},
        [M_STATE_COUNT] = {"dapr_component_state_count", "The number of operations performed on the state component.", METRIC_COUNTER,
                           OP_LABELS, NULL},
        [M_STATE_LATENCY] = {"dapr_component_state_latencies", "The latency of the response from the state component.", METRIC_HISTOGRAM,
                             OP_LABELS, NULL},
        [M_SECRET_COUNT] = {"dapr_component_secret_count", "The number of operations performed on the secret component.", METRIC_COUNTER,
                            OP_LABELS, NULL},
        [M_SECRET_LATENCY] = {"dapr_component_secret_latencies", "The latency of the response from the secret component.",
                              METRIC_HISTOGRAM, OP_LABELS, NULL},
        [M_CONFIGURATION_COUNT] = {"dapr_component_configuration_count",
                                   "The number of operations performed on the configuration component.", METRIC_COUNTER, OP_LABELS, NULL},
        [M_CONFIGURATION_LATENCY] = {"dapr_component_configuration_latencies",
                                     "The latency of the response from the configuration component.", METRIC_HISTOGRAM, OP_LABELS, NULL},
        [M_CRYPTO_COUNT] = {"dapr_component_crypto_count", "The number of operations performed on the crypto component.", METRIC_COUNTER,
                            OP_LABELS, NULL},
        [M_CRYPTO_LATENCY] = {"dapr_component_crypto_latencies", "The latency of the response from the crypto component.",
                              METRIC_HISTOGRAM, OP_LABELS, NULL},
        [M_CONVERSATION_COUNT] = {"dapr_component_conversation_count", "The number of operations performed on the conversation component.",
                                  METRIC_COUNTER, COMPONENT_LABELS, NULL},
        [M_CONVERSATION_LATENCY] = {"dapr_component_conversation_latencies",
                                    "The latency of the response from the conversation component.", METRIC_HISTOGRAM, COMPONENT_LABELS,
                                    NULL},
        [M_OUTPUT_BINDING_COUNT] = {"dapr_component_output_binding_count",
                                    "The number of operations invoked on the output binding component.", METRIC_COUNTER, OP_LABELS, NULL},
        [M_OUTPUT_BINDING_LATENCY] = {"dapr_component_output_binding_latencies",
                                      "The latency of the response from the output binding component.", METRIC_HISTOGRAM, OP_LABELS, NULL},
        [M_INPUT_BINDING_COUNT] = {"dapr_component_input_binding_count", "The number of incoming events arriving from the input binding component.",
                                   METRIC_COUNTER, COMPONENT_LABELS, NULL},
        [M_INPUT_BINDING_LATENCY] = {"dapr_component_input_binding_latencies",
                                     "The triggered app processing latency for the input binding component.", METRIC_HISTOGRAM,
                                     COMPONENT_LABELS, NULL},
        [M_HTTP_CLIENT_SENT] = {"dapr_http_client_sent_bytes", "Total bytes sent in request body (not including headers)",
                                METRIC_HISTOGRAM, HTTP_LABELS, metric_size_buckets},
        [M_HTTP_CLIENT_RECEIVED] = {"dapr_http_client_received_bytes",
                                    "Total bytes received in response bodies (not including headers but including error responses with bodies)",
                                    METRIC_HISTOGRAM, "app_id", metric_size_buckets},
        [M_HTTP_CLIENT_LATENCY] = {"dapr_http_client_roundtrip_latency",
                                   "Time between first byte of request headers sent to last byte of response received, or terminal error",
                                   METRIC_HISTOGRAM, HTTP_LABELS, NULL},
        [M_HTTP_CLIENT_COMPLETED] = {"dapr_http_client_completed_count", "Count of completed requests", METRIC_COUNTER, HTTP_LABELS, NULL},
        [M_GRPC_CLIENT_SENT] = {"dapr_grpc_io_client_sent_bytes_per_rpc", "Total bytes sent across all request messages per RPC.",
                                METRIC_HISTOGRAM, "app_id,grpc_client_method", metric_size_buckets},
        [M_GRPC_CLIENT_RECEIVED] = {"dapr_grpc_io_client_received_bytes_per_rpc",
                                    "Total bytes received across all response messages per RPC.", METRIC_HISTOGRAM,
                                    "app_id,grpc_client_method", metric_size_buckets},
        [M_GRPC_CLIENT_LATENCY] = {"dapr_grpc_io_client_roundtrip_latency",
                                   "Time between first byte of request sent to last byte of response received, or terminal error.",
                                   METRIC_HISTOGRAM, GRPC_CLIENT_LABELS, NULL},
        [M_GRPC_CLIENT_COMPLETED] = {"dapr_grpc_io_client_completed_rpcs", "Count of RPCs by method and status.", METRIC_COUNTER,
                                     GRPC_CLIENT_LABELS, NULL},
        [M_HTTP_PROBE_COUNT] = {"dapr_http_healthprobes_completed_count", "Count of completed health probes", METRIC_COUNTER,
                                "app_id,status", NULL},
        [M_HTTP_PROBE_LATENCY] = {"dapr_http_healthprobes_roundtrip_latency",
                                  "Time between first byte of health probes headers sent to last byte of response received, or terminal error",
                                  METRIC_HISTOGRAM, "app_id,status", NULL},
        [M_GRPC_PROBE_COUNT] = {"dapr_grpc_io_healthprobes_completed_count", "Count of completed health probes", METRIC_COUNTER,
                                "app_id,grpc_client_status", NULL},
        [M_GRPC_PROBE_LATENCY] = {"dapr_grpc_io_healthprobes_roundtrip_latency",
                                  "Time between first byte of health probes sent to last byte of response received, or terminal error",
                                  METRIC_HISTOGRAM, "app_id,grpc_client_status", NULL},
};

/* Series that one event touches together. */
enum { COUNT, LATENCY, RECEIVED, SENT, EXTRA, BUNDLE_SERIES };
struct bundle {
        struct metric_series *of[BUNDLE_SERIES];
};

enum bundle_id { B_HTTP, B_GRPC, B_GRPC_STREAM, B_APP_STARTED, B_APP_COMPLETED, B_APP_GRPC, B_COMPONENT, B_N = B_COMPONENT + OBSERVE_KINDS };

static const enum metric_id bundle_metrics[B_N][BUNDLE_SERIES] = {
        [B_HTTP] = {[COUNT] = M_HTTP_REQ_COUNT, [LATENCY] = M_HTTP_LATENCY, [EXTRA] = M_HTTP_RESP_COUNT},
        [B_GRPC] = {M_GRPC_COMPLETED, M_GRPC_LATENCY, M_GRPC_RECV_BYTES, M_GRPC_SENT_BYTES},
        [B_GRPC_STREAM] = {M_GRPC_COMPLETED, M_GRPC_LATENCY},
        [B_APP_STARTED] = {[SENT] = M_HTTP_CLIENT_SENT},
        [B_APP_COMPLETED] = {M_HTTP_CLIENT_COMPLETED, M_HTTP_CLIENT_LATENCY, M_HTTP_CLIENT_RECEIVED},
        [B_APP_GRPC] = {M_GRPC_CLIENT_COMPLETED, M_GRPC_CLIENT_LATENCY, M_GRPC_CLIENT_RECEIVED, M_GRPC_CLIENT_SENT},
        [B_COMPONENT + OBSERVE_STATE] = {M_STATE_COUNT, M_STATE_LATENCY},
        [B_COMPONENT + OBSERVE_SECRET] = {M_SECRET_COUNT, M_SECRET_LATENCY},
        [B_COMPONENT + OBSERVE_CONFIGURATION] = {M_CONFIGURATION_COUNT, M_CONFIGURATION_LATENCY},
        [B_COMPONENT + OBSERVE_CRYPTO] = {M_CRYPTO_COUNT, M_CRYPTO_LATENCY},
        [B_COMPONENT + OBSERVE_CONVERSATION] = {M_CONVERSATION_COUNT, M_CONVERSATION_LATENCY},
        [B_COMPONENT + OBSERVE_OUTPUT_BINDING] = {M_OUTPUT_BINDING_COUNT, M_OUTPUT_BINDING_LATENCY},
        [B_COMPONENT + OBSERVE_INPUT_BINDING] = {M_INPUT_BINDING_COUNT, M_INPUT_BINDING_LATENCY},
};

struct observe {
        struct str app_id, ns;
        struct metric *metric[M_N];
        struct metric_series *http_req_bytes, *http_resp_bytes;
        struct http_paths paths;
        struct process_metrics *process;
        double *latency_buckets;
        bool on, exclude_verbs, error_codes;
        struct map bundles; /* bundle_id, "label\0…" -> struct bundle */
};

static int buckets_from(struct observe *o, const struct observe_conf *conf)
{
        size_t n = conf->n_latency_buckets;

        if (n == 0)
                return 0;
        o->latency_buckets = malloc((n + 1) * sizeof o->latency_buckets[0]);
        if (!o->latency_buckets)
                return -ENOMEM;
        memcpy(o->latency_buckets, conf->latency_buckets, n * sizeof o->latency_buckets[0]);
        o->latency_buckets[n] = __builtin_inf();
        return 0;
}

int observe_new(struct observe **ret, struct metrics *m, const struct observe_conf *conf)
{
        struct observe *o = calloc(1, sizeof *o);

        if (!o)
                return -ENOMEM;
        o->on = conf->enabled;
        o->app_id = str_of(conf->app_id);
        o->ns = str_of(conf->namespace_);
        o->exclude_verbs = conf->exclude_verbs;
        o->error_codes = conf->record_error_codes;
        if (buckets_from(o, conf) ||
            http_paths_init(&o->paths, conf->path_matching, conf->n_path_matching, conf->increased_cardinality) ||
            process_metrics_new(&o->process, m))
                goto oom;
        metrics_set_latency_buckets(m, o->latency_buckets);
        for (int i = M_NONE + 1; i < M_N; i++) {
                struct metric_def def = defs[i];
                if (i == M_HTTP_RESP_COUNT && !conf->increased_cardinality)
                        continue;
                if (!(o->metric[i] = metric_add(m, &def)))
                        goto oom;
        }
        *ret = o;
        return 0;
oom:
        observe_free(o);
        return -ENOMEM;
}

void observe_free(struct observe *o)
{
        if (!o)
                return;
        for (struct map_entry *e = NULL; (e = map_next(&o->bundles, e));)
                free(e->value);
        map_fini(&o->bundles);
        http_paths_fini(&o->paths);
        process_metrics_free(o->process);
        free(o->latency_buckets);
        free(o);
}

size_t observe_cached(const struct observe *o)
{
        return o->bundles.count;
}

/* ---- bundles ---- */

struct key {
        char text[OBSERVE_KEY_BYTES];
        size_t n;
        bool too_long;
};

static void key_add(struct key *k, struct str s)
{
        if (k->n + s.n + 1 > sizeof k->text) {
                k->too_long = true;
                return;
        }
        if (s.n)
                memcpy(k->text + k->n, s.p, s.n);
        k->n += s.n;
        k->text[k->n++] = '\0';
}

/* For next time; without room the caller's copy still counts this event. Rules may make one series of any number of label values. */
static void bundle_keep(struct observe *o, const struct key *k, const struct bundle *b)
{
        struct bundle *copy;
        bool empty = true;

        for (size_t i = 0; i < BUNDLE_SERIES; i++)
                empty &= !b->of[i];
        if (empty || k->too_long || o->bundles.count >= OBSERVE_CACHED_MAX || !(copy = malloc(sizeof *copy)))
                return;
        *copy = *b;
        if (map_set(&o->bundles, str_n(k->text, k->n), copy))
                free(copy);
}

/* The first of the n labels is the app id, which all share. Metrics with fewer labels take the first ones. */
static struct bundle bundle_of(struct observe *o, enum bundle_id id, const struct str *labels, size_t n)
{
        struct bundle b;
        struct key k;
        const struct bundle *kept;

        k.text[0] = (char)id;
        k.n = 1;
        k.too_long = false;
        for (size_t i = 1; i < n; i++)
                key_add(&k, labels[i]);
        kept = k.too_long ? NULL : map_get(&o->bundles, str_n(k.text, k.n));
        if (kept)
                return *kept;
        for (size_t i = 0; i < BUNDLE_SERIES; i++)
                b.of[i] = metric_series_get(o->metric[bundle_metrics[id][i]], labels);
        bundle_keep(o, &k, &b);
        return b;
}

/* ---- HTTP ---- */

static struct str http_method(const struct observe *o, struct str m)
{
        static const char *const valid[] = {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"};

        if (o->exclude_verbs)
                return STR("");
        for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++)
                if (str_eqz(m, valid[i]))
                        return m;
        return STR("UNKNOWN");
}

void observe_http_server(struct observe *o, struct arena *a, const struct observe_http *h)
{
        char status[12];

        if (!o || !o->on)
                return;
        struct str labels[] = {o->app_id, http_method(o, h->method), http_path_label(&o->paths, a, h->path), str_int(status, h->status)};
        struct bundle b = bundle_of(o, B_HTTP, labels, 4);
        if (!o->http_req_bytes) {
                o->http_req_bytes = metric_series_get(o->metric[M_HTTP_REQ_BYTES], &o->app_id);
                o->http_resp_bytes = metric_series_get(o->metric[M_HTTP_RESP_BYTES], &o->app_id);
        }
        metric_inc(b.of[COUNT], 1);
        metric_inc(b.of[EXTRA], 1);
        metric_observe(b.of[LATENCY], h->elapsed_ms);
        metric_observe(o->http_req_bytes, h->req_bytes > 0 ? (double)h->req_bytes : 0);
        metric_observe(o->http_resp_bytes, (double)h->resp_bytes);
}

/* ---- gRPC ---- */

void observe_grpc_server(struct observe *o, const char *method, int code, bool unary, size_t req_bytes, size_t resp_bytes,
                         double elapsed_ms)
{
        if (!o || !o->on)
                return;
        struct str labels[] = {o->app_id, str_of(method), str_of(rpc_code_name(code))};
        struct bundle b = bundle_of(o, unary ? B_GRPC : B_GRPC_STREAM, labels, 3);
        metric_inc(b.of[COUNT], 1);
        metric_observe(b.of[LATENCY], elapsed_ms);
        metric_observe(b.of[RECEIVED], (double)req_bytes);
        metric_observe(b.of[SENT], (double)resp_bytes);
}

/* ---- the app ---- */

void observe_http_client_started(struct observe *o, struct arena *a, struct str method, struct str path, size_t req_bytes)
{
        if (!o || !o->on)
                return;
        /* no status yet, but the label is there */
        struct str labels[] = {o->app_id, http_method(o, method), http_path_label_client(&o->paths, a, path), STR_NULL};
        metric_observe(bundle_of(o, B_APP_STARTED, labels, 4).of[SENT], (double)req_bytes);
}

void observe_http_client_completed(struct observe *o, struct arena *a, struct str method, struct str path, int status,
                                   int64_t resp_bytes, double elapsed_ms)
{
        char text[12];

        if (!o || !o->on)
                return;
        struct str labels[] = {o->app_id, http_method(o, method), http_path_label_client(&o->paths, a, path), str_int(text, status)};
        struct bundle b = bundle_of(o, B_APP_COMPLETED, labels, 4);
        metric_inc(b.of[COUNT], 1);
        metric_observe(b.of[LATENCY], elapsed_ms);
        metric_observe(b.of[RECEIVED], (double)resp_bytes);
}

void observe_grpc_client(struct observe *o, const char *method, int code, size_t req_bytes, size_t resp_bytes, double elapsed_ms)
{
        if (!o || !o->on)
                return;
        struct str labels[] = {o->app_id, str_of(method), str_of(rpc_code_name(code))};
        struct bundle b = bundle_of(o, B_APP_GRPC, labels, 3);
        metric_inc(b.of[COUNT], 1);
        metric_observe(b.of[LATENCY], elapsed_ms);
        metric_observe(b.of[RECEIVED], (double)resp_bytes);
        metric_observe(b.of[SENT], (double)req_bytes);
}

void observe_grpc_proxied(struct observe *o, const char *method, int code, double elapsed_ms)
{
        struct str labels[3];

        if (!o || !o->on)
                return;
        labels[0] = o->app_id;
        labels[1] = str_of(method);
        labels[2] = str_of(rpc_code_name(code));
        metric_inc(metric_series_get(o->metric[M_GRPC_CLIENT_COMPLETED], labels), 1);
        metric_observe(metric_series_get(o->metric[M_GRPC_CLIENT_LATENCY], labels), elapsed_ms);
}

void observe_health_probe(struct observe *o, bool is_grpc, int status, double elapsed_ms)
{
        struct str labels[2];
        char text[12];

        if (!o || !o->on)
                return;
        snprintf(text, sizeof text, "%d", status);
        labels[0] = o->app_id;
        labels[1] = str_of(is_grpc ? rpc_code_name(status) : text);
        metric_inc(metric_series_get(o->metric[is_grpc ? M_GRPC_PROBE_COUNT : M_HTTP_PROBE_COUNT], labels), 1);
        metric_observe(metric_series_get(o->metric[is_grpc ? M_GRPC_PROBE_LATENCY : M_HTTP_PROBE_LATENCY], labels), elapsed_ms);
}

/* ---- the rest ---- */

void observe_error_code(struct observe *o, const char *code, const char *category)
{
        if (!o || !o->on || !o->error_codes || !code[0] || !category[0])
                return;
        metric_inc(metric_series_get(o->metric[M_ERROR_CODE], (struct str[]){o->app_id, str_of(category), str_of(code)}), 1);
}

void observe_component(struct observe *o, enum observe_kind kind, struct str component, const char *operation, bool ok,
                       double elapsed_ms)
{
        bool no_operation = kind == OBSERVE_CONVERSATION || kind == OBSERVE_INPUT_BINDING; /* has no such label */
        struct str labels[5];
        size_t n = 0;

        if (!o || !o->on)
                return;
        labels[n++] = o->app_id;
        labels[n++] = component;
        labels[n++] = o->ns;
        if (!no_operation)
                labels[n++] = str_of(operation);
        labels[n++] = ok ? STR("true") : STR("false");
        struct bundle b = bundle_of(o, B_COMPONENT + kind, labels, n);
        metric_inc(b.of[COUNT], 1);
        metric_observe(b.of[LATENCY], elapsed_ms);
}

void observe_component_loaded(struct observe *o)
{
        if (o && o->on)
                metric_inc(metric_series_get(o->metric[M_LOADED], &o->app_id), 1);
}

void observe_component_init(struct observe *o, const char *type)
{
        if (o && o->on)
                metric_inc(metric_series_get(o->metric[M_INIT], (struct str[]){o->app_id, str_of(type)}), 1);
}

void observe_component_init_failed(struct observe *o, const char *type, const char *reason, const char *name)
{
        if (o && o->on)
                metric_inc(metric_series_get(o->metric[M_INIT_FAIL],
                                             (struct str[]){o->app_id, str_of(type), str_of(name), str_of(reason)}),
                           1);
}
