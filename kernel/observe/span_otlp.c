/*
 * OTLP: spans to a collector, by gRPC or as protobuf over HTTP (https://opentelemetry.io/docs/specs/otlp/). Headers may be secret:
 * they go to the collector and nowhere else. What a collector refuses for good is not sent again; what it cannot take now is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/observe/span.h"
#include "opentelemetry/proto/collector/trace/v1/trace_service.pb-c.h"
#include "sdk/base/log.h"
#include "sdk/net/tls.h"

#define SCOPE "dapr.runtime.trace"
#define EXPORT "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

typedef Opentelemetry__Proto__Collector__Trace__V1__ExportTraceServiceRequest request_msg;
typedef Opentelemetry__Proto__Collector__Trace__V1__ExportTraceServiceResponse response_msg;
typedef Opentelemetry__Proto__Trace__V1__ResourceSpans resource_spans;
typedef Opentelemetry__Proto__Trace__V1__ScopeSpans scope_spans;
typedef Opentelemetry__Proto__Trace__V1__Span span_msg;
typedef Opentelemetry__Proto__Trace__V1__Status status_msg;
typedef Opentelemetry__Proto__Common__V1__KeyValue key_value;
typedef Opentelemetry__Proto__Common__V1__AnyValue any_value;

enum { FLAG_KNOWN = 0x100, FLAG_REMOTE = 0x200, RESPONSE_MAX = 64 * 1024, CERTIFICATE_MAX = 1 << 20 };

/* ---- messages ---- */

static key_value **attrs_of(struct arena *a, const struct span_attr *v, size_t n)
{
        key_value **to = arena_alloc(a, (n + 1) * sizeof *to);

        for (size_t i = 0; to && i < n; i++) {
                key_value *kv = arena_alloc(a, sizeof *kv);
                any_value *value = arena_alloc(a, sizeof *value);
                if (!kv || !value)
                        return NULL;
                opentelemetry__proto__common__v1__key_value__init(kv);
                opentelemetry__proto__common__v1__any_value__init(value);
                kv->key = arena_strdup(a, v[i].key);
                kv->value = value;
                value->value_case = OPENTELEMETRY__PROTO__COMMON__V1__ANY_VALUE__VALUE_STRING_VALUE;
                value->string_value = arena_strdup(a, v[i].value);
                if (!kv->key || !value->string_value)
                        return NULL;
                to[i] = kv;
        }
        return to;
}

static span_msg *message_of(struct arena *a, const struct span *s)
{
        span_msg *m = arena_alloc(a, sizeof *m);
        status_msg *st = arena_alloc(a, sizeof *st);

        if (!m || !st)
                return NULL;
        opentelemetry__proto__trace__v1__span__init(m);
        opentelemetry__proto__trace__v1__status__init(st);
        m->trace_id = pb_bytes(str_n(s->ctx.trace_id, TRACE_ID_BYTES));
        m->span_id = pb_bytes(str_n(s->ctx.span_id, SPAN_ID_BYTES));
        if (s->has_parent)
                m->parent_span_id = pb_bytes(str_n(s->parent_id, SPAN_ID_BYTES));
        m->trace_state = arena_strdup(a, s->state);
        m->name = arena_strdup(a, s->name);
        m->kind = (Opentelemetry__Proto__Trace__V1__Span__SpanKind)s->kind;
        m->start_time_unix_nano = (uint64_t)s->start_ns;
        m->end_time_unix_nano = (uint64_t)s->end_ns;
        m->attributes = attrs_of(a, s->attrs, s->n_attrs);
        m->n_attributes = s->n_attrs;
        m->dropped_attributes_count = (uint32_t)s->n_dropped;
        m->flags = s->ctx.flags | FLAG_KNOWN | (s->has_parent && s->remote_parent ? FLAG_REMOTE : 0u);
        m->status = st;
        st->code = (Opentelemetry__Proto__Trace__V1__Status__StatusCode)s->status;
        st->message = arena_strdup(a, s->status_text);
        return m->trace_state && m->name && m->attributes && st->message ? m : NULL;
}

void span_write_otlp(struct buf *out, const struct span_resource *r, struct span *const *v, size_t n)
{
        Opentelemetry__Proto__Common__V1__InstrumentationScope scope = OPENTELEMETRY__PROTO__COMMON__V1__INSTRUMENTATION_SCOPE__INIT;
        Opentelemetry__Proto__Resource__V1__Resource resource = OPENTELEMETRY__PROTO__RESOURCE__V1__RESOURCE__INIT;
        resource_spans rs = OPENTELEMETRY__PROTO__TRACE__V1__RESOURCE_SPANS__INIT, *one_rs = &rs;
        scope_spans ss = OPENTELEMETRY__PROTO__TRACE__V1__SCOPE_SPANS__INIT, *one_ss = &ss;
        request_msg req = OPENTELEMETRY__PROTO__COLLECTOR__TRACE__V1__EXPORT_TRACE_SERVICE_REQUEST__INIT;
        struct arena a;

        arena_init(&a, 0);
        scope.name = SPAN_SCOPE_NAME;
        resource.attributes = attrs_of(&a, r->attrs, r->n_attrs);
        resource.n_attributes = resource.attributes ? r->n_attrs : 0;
        ss.scope = &scope;
        ss.spans = arena_alloc(&a, (n + 1) * sizeof *ss.spans);
        for (size_t i = 0; ss.spans && i < n; i++)
                if ((ss.spans[ss.n_spans] = message_of(&a, v[i])))
                        ss.n_spans++;
        rs.resource = &resource;
        rs.schema_url = SPAN_SCHEMA_URL;
        rs.scope_spans = &one_ss;
        rs.n_scope_spans = 1;
        req.resource_spans = &one_rs;
        req.n_resource_spans = 1;
        pb_pack_buf(out, &req.base);
        arena_fini(&a);
}

/* ---- the sink ---- */

struct otlp {
        struct span_sink sink;
        struct arena arena;
        const struct span_resource *resource;
        struct rpc_channel *grpc;
        struct http_client *http;
        struct tls_context *tls;
        struct str target, path;
        bool gzip;
        struct http_header *headers; /* of HTTP; names as configured */
        struct rpc_md *md;           /* of gRPC */
        size_t n_headers;
};

static bool is_worth_another_try(int code)
{
        switch (code) {
        case RPC_CANCELLED:
        case RPC_DEADLINE_EXCEEDED:
        case RPC_RESOURCE_EXHAUSTED:
        case RPC_ABORTED:
        case RPC_OUT_OF_RANGE:
        case RPC_UNAVAILABLE:
        case RPC_DATA_LOSS: return true;
        default: return false;
        }
}

/* A collector that took the request may have refused some spans. */
static void check_partial(struct arena *a, struct str body)
{
        const response_msg *m =
                pb_unpack(a, &opentelemetry__proto__collector__trace__v1__export_trace_service_response__descriptor, body);

        if (m && m->partial_success && (m->partial_success->rejected_spans || *m->partial_success->error_message))
                log_warn(SCOPE, "the collector has refused %lld spans: %s", (long long)m->partial_success->rejected_spans,
                         m->partial_success->error_message);
}

static int send_grpc(struct otlp *o, struct arena *a, struct str body, char *err, size_t err_n)
{
        const struct rpc_opts opts = {.md = o->md, .n_md = o->n_headers, .flags = o->gzip ? RPC_GZIP : 0};
        struct rpc_status st = {0};
        struct str resp;
        int code = rpc_unary(o->grpc, a, EXPORT, body, &resp, &opts, &st);

        if (code == 0) {
                check_partial(a, resp);
                return 0;
        }
        snprintf(err, err_n, "%.*s: %s: %.*s", STR_FMT(o->target), rpc_code_name(code), STR_FMT(st.message));
        return is_worth_another_try(code) ? -EAGAIN : -EIO;
}

static int send_http(struct otlp *o, struct arena *a, struct str body, char *err, size_t err_n)
{
        struct http_exchange *x;
        struct str answer = STR("");
        int r = http_client_start(o->http, a, STR("POST"), o->path, o->headers, o->n_headers, (int64_t)body.n, body, &x);
        int status = 0;

        if (r == 0) {
                if (!(r = http_exchange_response(x)))
                        status = x->status;
                if (!r)
                        http_exchange_body(x, a, RESPONSE_MAX, &answer);
                http_exchange_close(x);
        }
        if (r) {
                snprintf(err, err_n, "%.*s: %s", STR_FMT(o->target), strerror(-r));
                return -EAGAIN;
        }
        if (status / 100 == 2) {
                check_partial(a, answer);
                return 0;
        }
        snprintf(err, err_n, "%.*s%.*s answers with status %d", STR_FMT(o->target), STR_FMT(o->path), status);
        return status == 429 || status == 502 || status == 503 || status == 504 ? -EAGAIN : -EIO;
}

static int send_spans(struct span_sink *s, struct span *const *v, size_t n, char *err, size_t err_n)
{
        struct otlp *o = (struct otlp *)s;
        struct buf body = {0};
        struct arena a;
        int r;

        arena_init(&a, 0);
        span_write_otlp(&body, o->resource, v, n);
        if (body.failed) {
                snprintf(err, err_n, "out of memory");
                r = -ENOMEM;
        } else {
                r = o->grpc ? send_grpc(o, &a, buf_str(&body), err, err_n) : send_http(o, &a, buf_str(&body), err, err_n);
        }
        buf_fini(&body);
        arena_fini(&a);
        return r;
}

static void free_sink(struct span_sink *s)
{
        struct otlp *o = (struct otlp *)s;

        if (o->grpc)
                rpc_channel_close(o->grpc);
        if (o->http)
                http_client_free(o->http);
        tls_context_unref(o->tls);
        arena_fini(&o->arena);
        free(o);
}

/* ---- configuration ---- */

static const char *env_of(const char *traces, const char *all)
{
        const char *v = getenv(traces);

        if (!v || !*v)
                v = getenv(all);
        return v && *v ? v : NULL;
}

static int read_headers(struct otlp *o, const struct tracer_conf *conf, bool http)
{
        o->headers = arena_zalloc(&o->arena, (conf->n_otlp_headers + 1) * sizeof *o->headers);
        o->md = arena_zalloc(&o->arena, (conf->n_otlp_headers + 1) * sizeof *o->md);
        if (!o->headers || !o->md)
                return -ENOMEM;
        for (size_t i = 0; i < conf->n_otlp_headers; i++) {
                struct str value = arena_str(&o->arena, str_of(conf->otlp_headers[i])), name = str_cut(&value, '=');
                if (!value.p || !name.n)
                        continue;
                for (size_t k = 0; k < name.n; k++)
                        if (name.p[k] >= 'A' && name.p[k] <= 'Z')
                                ((char *)name.p)[k] |= 0x20; /* both protocols take lower case */
                o->headers[o->n_headers] = (struct http_header){name, value};
                o->md[o->n_headers++] = (struct rpc_md){name, value};
        }
        if (http)
                o->headers[o->n_headers++] = (struct http_header){STR("content-type"), STR("application/x-protobuf")};
        return 0;
}

static int read_roots(struct otlp *o, struct str *ret, char *err, size_t err_n)
{
        const char *path = env_of("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
        FILE *f;
        char *text;
        size_t n;

        if (!path)
                return 0;
        f = fopen(path, "re");
        text = arena_alloc(&o->arena, CERTIFICATE_MAX);
        if (!f || !text) {
                snprintf(err, err_n, "OTEL_EXPORTER_OTLP_CERTIFICATE %s: %s", path, strerror(errno));
                if (f)
                        fclose(f);
                return -EINVAL;
        }
        n = fread(text, 1, CERTIFICATE_MAX, f);
        fclose(f);
        *ret = str_n(text, n);
        return 0;
}

static int start_tls(struct otlp *o, bool grpc, char *err, size_t err_n)
{
        static const char *const h2[] = {"h2", NULL};
        struct tls_options t = {.alpn = grpc ? h2 : NULL};
        char why[200];
        int r = read_roots(o, &t.roots_pem, err, err_n);

        if (r == 0 && (r = tls_context_new(&o->tls, &t, why, sizeof why)))
                snprintf(err, err_n, "TLS to the trace collector: %s", why);
        return r;
}

/* "host:port/path" in its parts. */
static int read_endpoint(struct otlp *o, const char *endpoint, bool http, bool secure)
{
        struct str rest = str_of(endpoint), host = str_cut(&rest, '/');
        ptrdiff_t colon = -1;

        while (rest.n && rest.p[rest.n - 1] == '/')
                rest.n--;
        for (size_t i = host.n; i-- > 0 && host.p[i] != ']';)
                if (host.p[i] == ':') {
                        colon = (ptrdiff_t)i;
                        break;
                }
        if (colon < 0)
                host = str_of(arena_printf(&o->arena, "%.*s:%s", STR_FMT(host), http && !secure ? "80" : "443"));
        o->target = arena_str(&o->arena, host);
        if (str_has_suffix(rest, STR("v1/traces")))
                o->path = str_of(arena_printf(&o->arena, "/%.*s", STR_FMT(rest)));
        else
                o->path = str_of(arena_printf(&o->arena, "%s%.*s/v1/traces", rest.n ? "/" : "", STR_FMT(rest)));
        return o->target.p && o->path.p ? 0 : -ENOMEM;
}

int span_sink_otlp_new(struct span_sink **ret, const struct tracer_conf *conf, const struct span_resource *resource, char *err, size_t err_n)
{
        bool http = strcmp(conf->otlp_protocol, "http") == 0;
        const char *compression = env_of("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION");
        struct otlp *o;
        int r;

        if (!http && strcmp(conf->otlp_protocol, "grpc") != 0) {
                snprintf(err, err_n, "invalid protocol %s provided for Otel endpoint", conf->otlp_protocol);
                return -EINVAL;
        }
        if (!(o = calloc(1, sizeof *o)))
                return -ENOMEM;
        o->sink = (struct span_sink){http ? "otlp_http" : "otlp_grpc", send_spans, free_sink,
                                     conf->otlp_timeout_ns > 0 ? (double)conf->otlp_timeout_ns / 1e9 : 10};
        arena_init(&o->arena, 0);
        o->resource = resource;
        o->gzip = compression && strcmp(compression, "gzip") == 0;
        r = read_endpoint(o, conf->otlp_endpoint, http, conf->otlp_secure);
        if (r == 0)
                r = read_headers(o, conf, http);
        if (r == 0 && conf->otlp_secure)
                r = start_tls(o, !http, err, err_n);
        if (r == 0 && http)
                r = http_client_new(&o->http, &(struct http_client_conf){.target = o->target, .tls = o->tls, .max_conns = 1, .max_idle = 1});
        else if (r == 0)
                r = rpc_channel_new(&o->grpc, &(struct rpc_channel_conf){.target = o->target, .tls = o->tls});
        if (r) {
                free_sink(&o->sink);
                return r;
        }
        *ret = &o->sink;
        return 0;
}
