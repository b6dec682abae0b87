/*
 * Zipkin v2: spans as JSON posted to a URL (https://zipkin.io/zipkin-api/). In this form names are lower case, times are microseconds,
 * and status and resource are tags.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/observe/span.h"
#include "sdk/base/json.h"
#include "sdk/net/tls.h"

enum { RESPONSE_MAX = 64 * 1024, ID_CHARS = 2 * TRACE_ID_BYTES + 1, NAME_MAX_CHARS = 256 };
static const double TIMEOUT_S = 10;

/* ---- JSON ---- */

static void id(struct json_writer *w, const char *key, const uint8_t *bytes, size_t n)
{
        char text[ID_CHARS];

        span_id_text(bytes, n, text);
        json_kv(w, key, str_n(text, 2 * n));
}

static void lower(struct json_writer *w, const char *key, struct str value)
{
        char text[NAME_MAX_CHARS];
        size_t n = value.n < sizeof text ? value.n : sizeof text;

        for (size_t i = 0; i < n; i++)
                text[i] = (char)tolower((unsigned char)value.p[i]);
        json_kv(w, key, str_n(text, n));
}

static struct str attr_of(const struct span_attr *v, size_t n, struct str key)
{
        for (size_t i = 0; i < n; i++)
                if (str_eq(v[i].key, key))
                        return v[i].value;
        return STR_NULL;
}

static void endpoint(struct json_writer *w, const char *key, struct str name)
{
        if (!name.n)
                return;
        json_key(w, str_of(key));
        json_object_begin(w);
        lower(w, "serviceName", name);
        json_object_end(w);
}

/* Who is at the other end: the first of these that is known. */
static struct str remote_of(const struct span *s)
{
        static const char *const keys[] = {"peer.service", "server.address", "net.peer.name", "db.name"};

        for (size_t i = 0; s->kind != SPAN_SERVER && i < sizeof keys / sizeof keys[0]; i++) {
                struct str v = attr_of(s->attrs, s->n_attrs, str_of(keys[i]));
                if (v.n)
                        return v;
        }
        return STR_NULL;
}

static void tags(struct json_writer *w, const struct span_resource *r, const struct span *s)
{
        json_key(w, STR("tags"));
        json_object_begin(w);
        for (size_t i = 0; i < s->n_attrs; i++)
                if (!attr_of(r->attrs, r->n_attrs, s->attrs[i].key).p && !str_eqz(s->attrs[i].key, "error")) {
                        json_key(w, s->attrs[i].key);
                        json_string(w, s->attrs[i].value);
                }
        for (size_t i = 0; i < r->n_attrs; i++) {
                json_key(w, r->attrs[i].key);
                json_string(w, r->attrs[i].value);
        }
        if (s->status == SPAN_ERROR) {
                json_kv(w, "otel.status_code", STR("ERROR"));
                json_kv(w, "error", s->status_text);
        }
        json_kv(w, "otel.scope.name", STR(SPAN_SCOPE_NAME));
        json_object_end(w);
}

static const char *kind_name(enum span_kind k)
{
        switch (k) {
        case SPAN_SERVER: return "SERVER";
        case SPAN_CLIENT: return "CLIENT";
        case SPAN_PRODUCER: return "PRODUCER";
        }
        return "";
}

static void write_span(struct json_writer *w, const struct span_resource *r, const struct span *s)
{
        int64_t ns = s->end_ns - s->start_ns;

        json_object_begin(w);
        json_key(w, STR("timestamp"));
        json_int(w, (s->start_ns + 500) / 1000);
        json_key(w, STR("duration"));
        json_int(w, ns < 1000 ? 1 : (ns + 500) / 1000);
        id(w, "traceId", s->ctx.trace_id, TRACE_ID_BYTES);
        id(w, "id", s->ctx.span_id, SPAN_ID_BYTES);
        if (s->has_parent)
                id(w, "parentId", s->parent_id, SPAN_ID_BYTES);
        lower(w, "name", s->name);
        json_kv(w, "kind", str_of(kind_name(s->kind)));
        endpoint(w, "localEndpoint", attr_of(r->attrs, r->n_attrs, STR("service.name")));
        endpoint(w, "remoteEndpoint", remote_of(s));
        tags(w, r, s);
        json_object_end(w);
}

void span_write_zipkin(struct buf *out, const struct span_resource *r, struct span *const *v, size_t n)
{
        struct json_writer w;

        json_write_init(&w, out);
        json_array_begin(&w);
        for (size_t i = 0; i < n; i++)
                write_span(&w, r, v[i]);
        json_array_end(&w);
}

/* ---- the sink ---- */

struct zipkin {
        struct span_sink sink;
        const struct span_resource *resource;
        struct http_client *http;
        struct tls_context *tls;
        char target[300], path[512];
};

static int post(struct zipkin *z, struct arena *a, struct str body, char *err, size_t err_n)
{
        const struct http_header h = {STR("Content-Type"), STR("application/json")};
        struct http_exchange *x;
        struct str answer;
        int status = 0, r = http_client_start(z->http, a, STR("POST"), str_of(z->path), &h, 1, (int64_t)body.n, body, &x);

        if (r == 0) {
                if (!(r = http_exchange_response(x))) {
                        status = x->status;
                        http_exchange_body(x, a, RESPONSE_MAX, &answer);
                }
                http_exchange_close(x);
        }
        if (r)
                snprintf(err, err_n, "%s: %s", z->target, strerror(-r));
        else if (status / 100 != 2)
                snprintf(err, err_n, "%s%s answers with status %d", z->target, z->path, status);
        else
                return 0;
        return r || status == 429 || status >= 500 ? -EAGAIN : -EIO;
}

static int send_spans(struct span_sink *s, struct span *const *v, size_t n, char *err, size_t err_n)
{
        struct zipkin *z = (struct zipkin *)s;
        struct buf body = {0};
        struct arena a;
        int r;

        arena_init(&a, 0);
        span_write_zipkin(&body, z->resource, v, n);
        r = body.failed ? -ENOMEM : post(z, &a, buf_str(&body), err, err_n);
        buf_fini(&body);
        arena_fini(&a);
        return r;
}

static void free_sink(struct span_sink *s)
{
        struct zipkin *z = (struct zipkin *)s;

        if (z->http)
                http_client_free(z->http);
        tls_context_unref(z->tls);
        free(z);
}

/* scheme://host[:port][/path] */
static bool read_url(struct zipkin *z, struct str url, bool *secure)
{
        struct str host, path;
        ptrdiff_t slash;
        bool has_port = false;

        *secure = str_has_prefix(url, STR("https://"));
        if (!*secure && !str_has_prefix(url, STR("http://")))
                return false;
        host = str_skip(url, *secure ? 8 : 7);
        slash = str_chr(host, '/');
        path = slash < 0 ? STR("/") : str_skip(host, (size_t)slash);
        host.n = slash < 0 ? host.n : (size_t)slash;
        for (size_t i = host.n; i-- > 0 && host.p[i] != ']';)
                has_port |= host.p[i] == ':';
        return host.n && (size_t)snprintf(z->target, sizeof z->target, "%.*s%s", STR_FMT(host), has_port ? "" : *secure ? ":443" : ":80") <
                                 sizeof z->target &&
               (size_t)snprintf(z->path, sizeof z->path, "%.*s", STR_FMT(path)) < sizeof z->path;
}

int span_sink_zipkin_new(struct span_sink **ret, const char *url, const struct span_resource *resource, char *err, size_t err_n)
{
        struct zipkin *z = calloc(1, sizeof *z);
        bool secure;
        int r = 0;

        if (!z)
                return -ENOMEM;
        z->sink = (struct span_sink){"zipkin", send_spans, free_sink, TIMEOUT_S};
        z->resource = resource;
        if (!read_url(z, str_of(url), &secure)) {
                snprintf(err, err_n, "spec.tracing.zipkin.endpointAddress \"%s\" is no URL: http://host:9411/api/v2/spans is wanted", url);
                r = -EINVAL;
        }
        if (r == 0 && secure)
                r = tls_context_new(&z->tls, &(struct tls_options){0}, err, err_n);
        if (r == 0)
                r = http_client_new(&z->http, &(struct http_client_conf){.target = str_of(z->target), .tls = z->tls, .max_conns = 1, .max_idle = 1});
        if (r) {
                free_sink(&z->sink);
                return r;
        }
        *ret = &z->sink;
        return 0;
}
