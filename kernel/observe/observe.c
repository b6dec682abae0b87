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
        M_HTTP_REQ_BYTES, M_HTTP_RESP_BYTES, M_HTTP_LATENCY, M_HTTP_REQ_COUNT, M_HTTP_RESP_COUNT,
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

static const struct {
        enum metric_id count, latency;
        bool has_operation;
} kinds[OBSERVE_KINDS] = {
        [OBSERVE_STATE] = {M_STATE_COUNT, M_STATE_LATENCY, true},
        [OBSERVE_SECRET] = {M_SECRET_COUNT, M_SECRET_LATENCY, true},
        [OBSERVE_CONFIGURATION] = {M_CONFIGURATION_COUNT, M_CONFIGURATION_LATENCY, true},
        [OBSERVE_CRYPTO] = {M_CRYPTO_COUNT, M_CRYPTO_LATENCY, true},
        [OBSERVE_CONVERSATION] = {M_CONVERSATION_COUNT, M_CONVERSATION_LATENCY, false},
        [OBSERVE_OUTPUT_BINDING] = {M_OUTPUT_BINDING_COUNT, M_OUTPUT_BINDING_LATENCY, true},
        [OBSERVE_INPUT_BINDING] = {M_INPUT_BINDING_COUNT, M_INPUT_BINDING_LATENCY, false},
};

enum { BUNDLES_MAX = 4096, BUNDLE_KEY_BYTES = 512 }; /* what is more or longer is looked up label by label */

/* Series that one event touches together. */
struct bundle {
        struct metric_series *count, *latency, *extra, *received, *sent;
};

struct observe {
        struct str app_id, ns;
        struct metric *metric[M_N];
        struct metric_series *http_req_bytes, *http_resp_bytes;
        struct http_paths paths;
        struct process_metrics *process;
        double *latency_buckets;
        bool on, exclude_verbs, error_codes;
        struct map bundles; /* "<kind>\0labels…" -> struct bundle */
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
        for (int i = 0; i < M_N; i++) {
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

/* ---- bundles ---- */

struct key {
        char text[BUNDLE_KEY_BYTES];
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

static struct bundle *bundle_find(struct observe *o, const struct key *k)
{
        return k->too_long ? NULL : map_get(&o->bundles, str_n(k->text, k->n));
}

/* Keeps a bundle for next time; without room for it the caller's copy still counts this event. */
static struct bundle *bundle_keep(struct observe *o, const struct key *k, struct bundle *b)
{
        struct bundle *copy;

        /* rules may make one series of any number of label values */
        if (k->too_long || !b->count || o->bundles.count >= BUNDLES_MAX || !(copy = malloc(sizeof *copy)))
                return b;
        *copy = *b;
        if (map_set(&o->bundles, str_n(k->text, k->n), copy)) {
                free(copy);
                return b;
        }
        return copy;
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
        struct key k = {.n = 0};
        struct bundle *b, made;
        struct str labels[4];
        char status[12];

        if (!o || !o->on)
                return;
        labels[0] = o->app_id;
        labels[1] = http_method(o, h->method);
        labels[2] = http_path_label(&o->paths, a, h->path);
        labels[3] = str_int(status, h->status);
        key_add(&k, STR("http"));
        for (int i = 1; i < 4; i++)
                key_add(&k, labels[i]);
        b = bundle_find(o, &k);
        if (!b) {
                made = (struct bundle){.count = metric_series_get(o->metric[M_HTTP_REQ_COUNT], labels),
                                       .latency = metric_series_get(o->metric[M_HTTP_LATENCY], labels),
                                       .extra = metric_series_get(o->metric[M_HTTP_RESP_COUNT], labels)};
                b = bundle_keep(o, &k, &made);
        }
        if (!o->http_req_bytes) {
                o->http_req_bytes = metric_series_get(o->metric[M_HTTP_REQ_BYTES], &o->app_id);
                o->http_resp_bytes = metric_series_get(o->metric[M_HTTP_RESP_BYTES], &o->app_id);
        }
        metric_inc(b->count, 1);
        metric_inc(b->extra, 1);
        metric_observe(b->latency, h->elapsed_ms);
        metric_observe(o->http_req_bytes, h->req_bytes > 0 ? (double)h->req_bytes : 0);
        metric_observe(o->http_resp_bytes, (double)h->resp_bytes);
}

/* ---- gRPC ---- */

void observe_grpc_server(struct observe *o, const char *method, int code, bool unary, size_t req_bytes, size_t resp_bytes,
                         double elapsed_ms)
{
        struct key k = {.n = 0};
        struct bundle *b, made;
        struct str labels[3];

        if (!o || !o->on)
                return;
        labels[0] = o->app_id;
        labels[1] = str_of(method);
        labels[2] = str_of(rpc_code_name(code));
        key_add(&k, STR("grpc"));
        key_add(&k, labels[1]);
        key_add(&k, labels[2]);
        b = bundle_find(o, &k);
        if (!b) {
                made = (struct bundle){.count = metric_series_get(o->metric[M_GRPC_COMPLETED], labels),
                                       .latency = metric_series_get(o->metric[M_GRPC_LATENCY], labels),
                                       .received = unary ? metric_series_get(o->metric[M_GRPC_RECV_BYTES], labels) : NULL,
                                       .sent = unary ? metric_series_get(o->metric[M_GRPC_SENT_BYTES], labels) : NULL};
                b = bundle_keep(o, &k, &made);
        }
        metric_inc(b->count, 1);
        metric_observe(b->latency, elapsed_ms);
        metric_observe(b->received, (double)req_bytes);
        metric_observe(b->sent, (double)resp_bytes);
}

/* ---- the app ---- */

void observe_http_client_started(struct observe *o, struct arena *a, struct str method, struct str path, size_t req_bytes)
{
        struct key k = {.n = 0};
        struct bundle *b, made;
        struct str labels[4] = {{0}}; /* no status yet, but the label is there */

        if (!o || !o->on)
                return;
        labels[0] = o->app_id;
        labels[1] = http_method(o, method);
        labels[2] = http_path_label_client(&o->paths, a, path);
        key_add(&k, STR("app>"));
        key_add(&k, labels[1]);
        key_add(&k, labels[2]);
        b = bundle_find(o, &k);
        if (!b) {
                made = (struct bundle){.count = metric_series_get(o->metric[M_HTTP_CLIENT_SENT], labels)};
                b = bundle_keep(o, &k, &made);
        }
        metric_observe(b->count, (double)req_bytes);
}

void observe_http_client_completed(struct observe *o, struct arena *a, struct str method, struct str path, int status,
                                   int64_t resp_bytes, double elapsed_ms)
{
        struct key k = {.n = 0};
        struct bundle *b, made;
        struct str labels[4];
        char text[12];

        if (!o || !o->on)
                return;
        labels[0] = o->app_id;
        labels[1] = http_method(o, method);
        labels[2] = http_path_label_client(&o->paths, a, path);
        labels[3] = str_int(text, status);
        key_add(&k, STR("app<"));
        for (int i = 1; i < 4; i++)
                key_add(&k, labels[i]);
        b = bundle_find(o, &k);
        if (!b) {
                made = (struct bundle){.count = metric_series_get(o->metric[M_HTTP_CLIENT_COMPLETED], labels),
                                       .latency = metric_series_get(o->metric[M_HTTP_CLIENT_LATENCY], labels),
                                       .received = metric_series_get(o->metric[M_HTTP_CLIENT_RECEIVED], labels)};
                b = bundle_keep(o, &k, &made);
        }
        metric_inc(b->count, 1);
        metric_observe(b->latency, elapsed_ms);
        metric_observe(b->received, (double)resp_bytes);
}

void observe_grpc_client(struct observe *o, const char *method, int code, size_t req_bytes, size_t resp_bytes, double elapsed_ms)
{
        struct key k = {.n = 0};
        struct bundle *b, made;
        struct str labels[3];

        if (!o || !o->on)
                return;
        labels[0] = o->app_id;
        labels[1] = str_of(method);
        labels[2] = str_of(rpc_code_name(code));
        key_add(&k, STR("appgrpc"));
        key_add(&k, labels[1]);
        key_add(&k, labels[2]);
        b = bundle_find(o, &k);
        if (!b) {
                made = (struct bundle){.count = metric_series_get(o->metric[M_GRPC_CLIENT_COMPLETED], labels),
                                       .latency = metric_series_get(o->metric[M_GRPC_CLIENT_LATENCY], labels),
                                       .received = metric_series_get(o->metric[M_GRPC_CLIENT_RECEIVED], labels),
                                       .sent = metric_series_get(o->metric[M_GRPC_CLIENT_SENT], labels)};
                b = bundle_keep(o, &k, &made);
        }
        metric_inc(b->count, 1);
        metric_observe(b->latency, elapsed_ms);
        metric_observe(b->received, (double)resp_bytes);
        metric_observe(b->sent, (double)req_bytes);
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
        struct key k = {.n = 0};
        struct bundle *b, made;
        struct str success = ok ? STR("true") : STR("false"), labels[5];
        size_t n = 0;
        char tag[2] = {(char)('0' + kind), 0};

        if (!o || !o->on)
                return;
        key_add(&k, str_of(tag));
        key_add(&k, component);
        key_add(&k, str_of(operation));
        key_add(&k, success);
        b = bundle_find(o, &k);
        if (!b) {
                labels[n++] = o->app_id;
                labels[n++] = component;
                labels[n++] = o->ns;
                if (kinds[kind].has_operation)
                        labels[n++] = str_of(operation);
                labels[n++] = success;
                made = (struct bundle){.count = metric_series_get(o->metric[kinds[kind].count], labels),
                                       .latency = metric_series_get(o->metric[kinds[kind].latency], labels)};
                b = bundle_keep(o, &k, &made);
        }
        metric_inc(b->count, 1);
        metric_observe(b->latency, elapsed_ms);
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
