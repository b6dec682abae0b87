/*
 * The HTTP output binding. One pool of connections to the configured host; a redirect to another host gets a connection of its own.
 * A response whose status counts as an error is answered as a failure that carries the response's metadata.
 */
#include <dapr/plugin.h>

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/flags.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"
#include "sdk/net/http.h"
#include "sdk/net/tls.h"
#include "plugins/bindings.http/url.h"

enum { REDIRECTS_MAX = 10, HEADERS_MAX = 256, STEP_BYTES = 64 * 1024, CONNECT_S = 15, FILE_MAX = 1 << 20 };

struct http_binding {
        char *url, *token, *token_header;
        bool error_if_not_2xx;
        int64_t timeout_ns;        /* 0 = none */
        int64_t max_body;          /* <= 0: none */
        struct tls_context *tls;
        struct http_client *client;
        struct arena arena;
        struct url base;
};

/* ---- start ---- */

/* PEM text, or the file that is named instead. */
static int read_pem(struct dapr_call *c, const char *field, const char *value, struct str *ret)
{
        FILE *f;
        char *text;
        size_t n;

        if (strstr(value, "-----BEGIN ")) {
                *ret = str_of(value);
                return 0;
        }
        f = fopen(value, "re");
        if (!f)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT,
                                 "provided \"%s\" value is neither a valid file path or nor a valid pem encoded string: open %s: %s", field,
                                 value, errno == ENOENT ? "no such file or directory" : strerrordesc_np(errno));
        text = dapr_alloc(c, FILE_MAX);
        n = text ? fread(text, 1, FILE_MAX, f) : 0;
        fclose(f);
        *ret = str_n(text, n);
        return text ? 0 : -ENOMEM;
}

static int init_tls(struct dapr_call *c, struct http_binding *b, const struct dapr_metadata *md)
{
        const char *root = dapr_md_string(md, "MTLSRootCA"), *cert = dapr_md_string(md, "MTLSClientCert"),
                   *key = dapr_md_string(md, "MTLSClientKey");
        struct tls_options o = {0};
        char err[200];
        int r = 0;

        if (root && *root)
                r = read_pem(c, "MTLSRootCA", root, &o.roots_pem);
        if (r == 0 && cert && *cert && key && *key) {
                r = read_pem(c, "MTLSClientCert", cert, &o.cert_pem);
                if (r == 0)
                        r = read_pem(c, "MTLSClientKey", key, &o.key_pem);
        }
        if (r == 0 && tls_context_new(&b->tls, &o, err, sizeof err))
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s: %s",
                              o.cert_pem.p ? "failed to load client certificate" : "failed to add root certificate to certpool", err);
        return r;
}

static int client_new(struct http_client **ret, const struct url *u, struct tls_context *tls)
{
        return http_client_new(ret, &(struct http_client_conf){.target = str_of(u->target),
                                                               .authority = u->authority,
                                                               .tls = u->https ? tls : NULL,
                                                               .server_name = u->host,
                                                               .connect_timeout_s = CONNECT_S});
}

static void binding_close(void *instance)
{
        struct http_binding *b = instance;

        if (b->client)
                http_client_free(b->client);
        tls_context_unref(b->tls);
        if (b->token)
                explicit_bzero(b->token, strlen(b->token));
        free(b->url);
        free(b->token);
        free(b->token_header);
        arena_fini(&b->arena);
        free(b);
}

static int binding_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct http_binding *b = calloc(1, sizeof *b);
        const char *token = dapr_md_string(md, "securityToken"), *header = dapr_md_string(md, "securityTokenHeader"), *err = NULL;
        const char *url = dapr_md_string(md, "url");
        int r;

        if (!b)
                return -ENOMEM;
        arena_init(&b->arena, 0);
        b->url = strdup(url ? url : "");
        b->token = token && *token && header && *header ? strdup(token) : NULL;
        b->token_header = b->token ? strdup(header) : NULL;
        b->error_if_not_2xx = dapr_md_bool(md, "errorIfNot2XX");
        b->timeout_ns = dapr_md_duration_ns(md, "responseTimeout");
        b->max_body = dapr_md_int(md, "maxResponseBodySize");
        if (!b->url || (b->token && !b->token_header))
                r = -ENOMEM;
        else if ((r = url_parse(&b->base, &b->arena, str_of(b->url), &err)))
                r = r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s", err) : r;
        else if ((r = init_tls(c, b, md)) == 0)
                r = client_new(&b->client, &b->base, b->tls);
        if (r)
                binding_close(b);
        else
                *instance = b;
        return r;
}

/* ---- a request ---- */

struct request {
        struct dapr_call *call;
        struct http_binding *b;
        const struct dapr_invoke *in;
        struct arena a;
        const char *method, *text; /* text: the URL */
        struct str body;
        struct http_headers headers;
        struct http_exchange *x;
        struct http_client *other; /* of another host than the configured one */
};

static const char *value_of(const struct dapr_invoke *in, const char *key)
{
        for (size_t i = 0; i < in->metadata.n; i++)
                if (strcmp(in->metadata.v[i].key, key) == 0)
                        return in->metadata.v[i].value;
        return NULL;
}

static void set_header(struct request *q, const char *name, const char *value)
{
        http_headers_remove(&q->headers, name);
        http_headers_add(&q->headers, &q->a, str_of(name), str_of(value));
}

static bool is_sendable(const char *name, const char *value)
{
        for (const char *p = name; *p; p++)
                if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", *p))
                        return false;
        for (const char *p = value; *p; p++)
                if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f)
                        return false;
        return true;
}

static int fill_headers(struct request *q)
{
        static const char *const trace[] = {"traceparent", "tracestate", "baggage"};
        const struct dapr_kvs *md = &q->in->metadata;

        if (q->body.p && !value_of(q->in, "Content-Type"))
                set_header(q, "Content-Type", "application/json; charset=utf-8");
        if (!value_of(q->in, "Accept"))
                set_header(q, "Accept", "application/json; charset=utf-8");
        set_header(q, "User-Agent", "microdapr");
        if (q->b->token)
                set_header(q, q->b->token_header, q->b->token);
        for (size_t i = 0; i < md->n; i++) {
                const char *key = md->v[i].key, *value = md->v[i].value;
                if (key[0] < 'A' || key[0] > 'Z' || strcasecmp(key, "Host") == 0)
                        continue;
                if (!is_sendable(key, value))
                        return dapr_fail(q->call, DAPR_INVALID_ARGUMENT, "net/http: invalid header field value for \"%s\"", key);
                set_header(q, key, value);
        }
        for (size_t i = 0; i < 3; i++) {
                const char *value = value_of(q->in, trace[i]);
                if (value && *value && is_sendable(trace[i], value))
                        set_header(q, trace[i], value);
        }
        return 0;
}

static int prepare(struct request *q)
{
        static const char *const with_body[] = {"POST", "PUT", "PATCH"};
        const char *path = value_of(q->in, "path");
        struct str base = str_of(q->b->url);
        char *method = arena_strdup(&q->a, str_of(q->in->operation));

        for (char *p = method; p && *p; p++)
                *p = (char)toupper((unsigned char)*p);
        if (!method)
                return -ENOMEM;
        q->method = strcmp(method, "CREATE") == 0 ? "POST" : method;
        for (size_t i = 0; i < 3; i++)
                if (strcmp(q->method, with_body[i]) == 0)
                        q->body = str_n(q->in->data.p, q->in->data.n);
        q->text = q->b->url;
        if (path && *path) {
                while (base.n && base.p[base.n - 1] == '/')
                        base.n--;
                while (*path == '/')
                        path++;
                q->text = arena_printf(&q->a, "%.*s/%s", STR_FMT(base), path);
        }
        return q->text ? fill_headers(q) : -ENOMEM;
}

static int fail_exchange(struct request *q, const struct url *u, int r)
{
        char method[16];
        const char *why;

        snprintf(method, sizeof method, "%s", q->method);
        for (char *p = method + 1; *p; p++)
                *p = (char)tolower((unsigned char)*p);
        switch (-r) {
        case ECONNREFUSED: why = arena_printf(&q->a, "dial tcp %s: connect: connection refused", u->target); break;
        case ENOENT: why = arena_printf(&q->a, "dial tcp: lookup %.*s: no such host", STR_FMT(u->host)); break;
        case ETIMEDOUT: why = "context deadline exceeded"; break;
        case ECANCELED: why = "context canceled"; break;
        case ECONNRESET: why = "EOF"; break;
        case EPROTO: why = "tls: handshake failure"; break;
        case EKEYREJECTED: why = "tls: failed to verify certificate"; break;
        case EBADMSG: why = "net/http: malformed HTTP response"; break;
        default: why = strerrordesc_np(-r); break;
        }
        return dapr_fail(q->call, r == -ETIMEDOUT ? 4 : DAPR_INTERNAL, "%s \"%s\": %s", method, q->text, why ? why : "unknown error");
}

static void end_exchange(struct request *q)
{
        if (q->x)
                http_exchange_close(q->x);
        if (q->other)
                http_client_free(q->other);
        q->x = NULL;
        q->other = NULL;
}

/* Sends it once. 0 = the response's head is there. */
static int send_once(struct request *q, struct url *u)
{
        struct http_binding *b = q->b;
        struct http_client *client = b->client;
        struct http_headers all = {0};
        const char *err = NULL;
        int r = url_parse(u, &q->a, str_of(q->text), &err);

        if (r)
                return r == -EINVAL ? dapr_fail(q->call, DAPR_INVALID_ARGUMENT, "%s", err) : r;
        if (u->https != b->base.https || strcmp(u->target, b->base.target) != 0) {
                if ((r = client_new(&q->other, u, b->tls)))
                        return r;
                client = q->other;
        }
        for (size_t i = 0; i < q->headers.n; i++)
                http_headers_add(&all, &q->a, q->headers.v[i].name, q->headers.v[i].value);
        if (u->user.p && !http_headers_get(&all, "Authorization").p) {
                struct str b64 = base64_encode(&q->a, u->user);
                const char *value = b64.p ? arena_printf(&q->a, "Basic %.*s", STR_FMT(b64)) : NULL;
                if (!value)
                        return -ENOMEM;
                http_headers_add(&all, &q->a, STR("Authorization"), str_of(value));
        }
        r = http_client_start(client, &q->a, str_of(q->method), str_of(u->path), all.v, all.n, (int64_t)q->body.n,
                              q->body.p ? q->body : STR(""), &q->x);
        if (r == 0)
                r = http_exchange_response(q->x);
        return r ? fail_exchange(q, u, r) : 0;
}

/* Turns the request into the one that a redirect asks for. 1 = it is one, 0 = not. */
static int follow(struct request *q, const struct url *u)
{
        int status = q->x->status;
        struct str location = http_headers_get(&q->x->headers, "Location");
        const char *next;

        if ((status != 301 && status != 302 && status != 303 && status != 307 && status != 308) || !location.n)
                return 0;
        next = url_resolve(u, &q->a, location);
        if (!next)
                return -ENOMEM;
        if (status < 307 && strcmp(q->method, "GET") != 0 && strcmp(q->method, "HEAD") != 0) {
                q->method = "GET";
                q->body = STR_NULL;
                http_headers_remove(&q->headers, "Content-Type");
        }
        struct url to;
        const char *err;
        if (url_parse(&to, &q->a, str_of(next), &err) || !str_ieq(to.host, u->host)) {
                http_headers_remove(&q->headers, "Authorization");
                http_headers_remove(&q->headers, "Cookie");
        }
        q->text = next;
        return 1;
}

static int exchange(struct request *q)
{
        struct url u;
        int r;

        for (int n = 0; (r = send_once(q, &u)) == 0; n++) {
                r = follow(q, &u);
                if (r <= 0)
                        return r;
                if (n == REDIRECTS_MAX)
                        return dapr_fail(q->call, DAPR_INTERNAL, "Get \"%s\": stopped after 10 redirects", q->text);
                end_exchange(q);
        }
        return r;
}

/* ---- the response ---- */

/* What is longer than the limit is cut off. */
static int read_response(struct request *q, struct dapr_invoke_result *out)
{
        struct buf b = {0};
        int64_t max = q->b->max_body > 0 ? q->b->max_body : INT64_MAX;
        ssize_t n = 1;

        while (n > 0 && (int64_t)buf_len(&b) < max) {
                size_t want = max - (int64_t)buf_len(&b) < STEP_BYTES ? (size_t)(max - (int64_t)buf_len(&b)) : STEP_BYTES;
                if (buf_reserve(&b, want))
                        n = -ENOMEM;
                else if ((n = http_exchange_read(q->x, b.p + b.len, want)) > 0)
                        b.len += (size_t)n;
        }
        if (n >= 0) {
                out->data = dapr_copy(q->call, buf_str(&b).p, buf_len(&b));
                n = out->data.p ? 0 : -ENOMEM;
        } else if (n == -ECONNRESET || n == -EBADMSG) {
                n = dapr_fail(q->call, DAPR_INTERNAL, "unexpected EOF");
        } else if (n == -ETIMEDOUT) {
                n = dapr_fail(q->call, 4, "context deadline exceeded");
        }
        buf_fini(&b);
        return (int)n;
}

static const char *canonical(struct dapr_call *c, struct str name)
{
        char *to = dapr_printf(c, "%.*s", STR_FMT(name));
        bool upper = true;

        for (char *p = to; p && *p; p++) {
                *p = (char)(upper ? toupper((unsigned char)*p) : tolower((unsigned char)*p));
                upper = *p == '-';
        }
        return to;
}

static int response_metadata(struct request *q, struct dapr_invoke_result *out)
{
        const struct http_headers *h = &q->x->headers;
        struct dapr_kv *md = dapr_alloc(q->call, (h->n + 2) * sizeof *md);
        size_t n = 0;

        if (!md)
                return -ENOMEM;
        md[n++] = (struct dapr_kv){"statusCode", dapr_printf(q->call, "%d", q->x->status)};
        md[n++] = (struct dapr_kv){"status", dapr_printf(q->call, "%d %s", q->x->status, http_status_text(q->x->status))};
        for (size_t i = 0; i < h->n && i < HEADERS_MAX; i++) {
                const char *name = canonical(q->call, h->v[i].name);
                size_t k = 2;
                if (!name)
                        return -ENOMEM;
                while (k < n && strcmp(md[k].key, name) != 0)
                        k++;
                md[k].value = k < n ? dapr_printf(q->call, "%s, %.*s", md[k].value, STR_FMT(h->v[i].value))
                                    : dapr_printf(q->call, "%.*s", STR_FMT(h->v[i].value));
                md[k].key = name;
                n += k == n;
                if (!md[k].value)
                        return -ENOMEM;
        }
        out->metadata = (struct dapr_kvs){md, n};
        return md[0].value && md[1].value ? 0 : -ENOMEM;
}

static int binding_invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        struct http_binding *b = instance;
        struct request q = {.call = c, .b = b, .in = in};
        const char *strict = value_of(in, "errorIfNot2XX");
        double old = fiber_set_deadline(b->timeout_ns > 0 ? loop_now_exact() + (double)b->timeout_ns / 1e9 : INFINITY);
        int r;

        arena_init(&q.a, 0);
        r = prepare(&q);
        if (r == 0)
                r = exchange(&q);
        if (r == 0)
                r = read_response(&q, out);
        if (r == 0)
                r = response_metadata(&q, out);
        if (r == 0 && q.x->status / 100 != 2 && (strict && *strict ? parse_truthy(strict) : b->error_if_not_2xx))
                r = dapr_fail(c, DAPR_INTERNAL, "received status code %d", q.x->status);
        end_exchange(&q);
        fiber_restore_deadline(old);
        arena_fini(&q.a);
        return r;
}

static const char *const operations[] = {"create", "get", "head", "post", "put", "patch", "delete", "options", "trace", NULL};
static const struct dapr_binding_ops ops = {
        .mode = DAPR_FIBER, .init = binding_init, .close = binding_close, .operations = operations, .invoke = binding_invoke};

int main(int argc, char **argv)
{
        static const struct dapr_component_type types[] = {{.type = "bindings.http", .versions = "v1", .binding = &ops}};
        static const struct dapr_plugin plugin = {.name = "bindings.http", .version = "1.0.0", .types = types, .n_types = 1};

        return dapr_plugin_main(argc, argv, &plugin);
}
