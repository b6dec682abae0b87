/*
 * An endpoint has one HTTP client: those of resources live as long as the process, those of URLs are made for scheme, host and port and
 * stay until ENDPOINT_URLS_MAX others were called since. The app's token is not sent: it is nobody else's business.
 */
#include "kernel/mesh/endpoints.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/kernel.h"
#include "kernel/pipeline/exchange.h"
#include "kernel/resources/http_endpoint.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/net/tls.h"

#define SCOPE "dapr.runtime"
#define CONNECT_TIMEOUT_S 15.0

/* "https://host:port/base" in parts; of the URL's text. */
struct url {
        bool is_https;
        struct str host, authority, target, path; /* host: without brackets; target: "host:port"; path: "" or "/base", no slash behind */
};

struct endpoint {
        struct endpoints *owner;
        struct http_client *client;
        char *text;               /* the base URL */
        struct url base;
        struct http_header *headers;
        size_t n_headers, calls;
        double used_at;
        bool is_url;
};
struct endpoints {
        struct kernel *k;
        struct arena arena;       /* specs and resolved secrets */
        struct map by_name, by_url; /* struct endpoint */
};

bool endpoint_is_url(struct str id)
{
        return str_has_prefix(id, STR("http://")) || str_has_prefix(id, STR("https://"));
}

/* ---- URLs ---- */

/* 0, -EINVAL, -ENOMEM. */
static int url_read(struct arena *a, struct str text, struct url *ret)
{
        struct str rest = text, host;
        ptrdiff_t i;
        bool has_port;

        if (!endpoint_is_url(text))
                return -EINVAL;
        ret->is_https = text.p[4] == 's';
        rest = str_skip(rest, ret->is_https ? 8 : 7);
        for (i = 0; i < (ptrdiff_t)rest.n && !strchr("/?#", rest.p[i]); i++)
                if ((unsigned char)rest.p[i] <= ' ')
                        return -EINVAL;
        ret->authority = str_n(rest.p, (size_t)i);
        ret->path = str_skip(rest, (size_t)i);
        if ((i = str_chr(ret->path, '#')) >= 0)
                ret->path.n = (size_t)i;
        if ((i = str_chr(ret->path, '?')) >= 0)
                ret->path.n = (size_t)i;
        while (ret->path.n && ret->path.p[ret->path.n - 1] == '/')
                ret->path.n--;
        if ((i = str_chr(ret->authority, '@')) >= 0)
                ret->authority = str_skip(ret->authority, (size_t)i + 1);
        host = ret->authority;
        if (host.n && host.p[0] == '[') {
                if ((i = str_chr(host, ']')) < 0)
                        return -EINVAL;
                has_port = (size_t)i + 1 < host.n;
                ret->host = str_n(host.p + 1, (size_t)i - 1);
        } else {
                i = str_chr(host, ':');
                has_port = i >= 0;
                ret->host = has_port ? str_n(host.p, (size_t)i) : host;
        }
        if (!ret->host.n)
                return -EINVAL;
        ret->target = has_port ? ret->authority : str_of(arena_printf(a, "%.*s:%d", STR_FMT(ret->authority), ret->is_https ? 443 : 80));
        return ret->target.p ? 0 : -ENOMEM;
}

/* ---- making ---- */

static void endpoint_free(struct endpoint *p)
{
        if (!p)
                return;
        http_client_free(p->client);
        free(p->text);
        free(p);
}

static int client_new(struct http_client **ret, const struct url *u, struct tls_context *tls)
{
        return http_client_new(ret, &(struct http_client_conf){.target = u->target,
                                                               .authority = u->authority,
                                                               .tls = tls,
                                                               .server_name = u->host,
                                                               .connect_timeout_s = CONNECT_TIMEOUT_S});
}

/* text: the base URL. tls: for https; borrowed. */
static int endpoint_new(struct endpoints *e, struct arena *a, struct str text, struct tls_context *tls, struct endpoint **ret)
{
        struct endpoint *p = calloc(1, sizeof *p);
        int r = p && (p->text = strndup(text.p, text.n)) ? 0 : -ENOMEM;

        if (!r)
                r = url_read(a, str_of(p->text), &p->base);
        if (!r)
                r = client_new(&p->client, &p->base, p->base.is_https ? tls : NULL);
        if (r) {
                endpoint_free(p);
                return r;
        }
        p->owner = e;
        *ret = p;
        return 0;
}

static int tls_new(struct arena *a, const struct http_endpoint_spec *s, struct tls_context **ret, const char **ret_err)
{
        static const char *const http1[] = {"http/1.1", NULL};
        struct tls_options o = {.alpn = http1};
        char err[256];
        int r;

        if (s && s->root_ca.value)
                o.roots_pem = str_of(s->root_ca.value);
        if (s && s->certificate.value && s->private_key.value) {
                o.cert_pem = str_of(s->certificate.value);
                o.key_pem = str_of(s->private_key.value);
        }
        r = tls_context_new(ret, &o, err, sizeof err);
        if (r)
                *ret_err = arena_printf(a, "failed to create HTTP endpoints channels: clientTLS of http endpoint %s cannot be used: %s",
                                        s ? s->name : "", err);
        return r;
}

/* A reference to a secret takes the place of a value. What cannot be had is logged and left out, as in components. */
static void resolve(struct endpoints *e, const struct http_endpoint_spec *s, struct endpoint_value *v, const char *what)
{
        const char *value = NULL, *err = NULL, *why;
        int r;

        if (!v->secret_name)
                return;
        r = secrets_resolve(e->k, s->secret_store, v->secret_name, v->secret_key, &e->arena, &value, &err);
        if (r == SECRET_FOUND) {
                v->value = value;
                return;
        }
        why = r == SECRET_NO_STORE ? "the secret store is not loaded" : r == SECRET_NO_KEY ? "the secret has no such key" : err;
        log_error(SCOPE, "http endpoint %s (%s:%d): %s: secret %s, key %s of store %s: %s", s->name, s->file, v->line, what, v->secret_name,
                  v->secret_key, s->secret_store, why ? why : "failed");
}

static int add_headers(struct endpoints *e, const struct http_endpoint_spec *s, struct endpoint *p)
{
        p->headers = arena_zalloc(&e->arena, (s->n_headers + 1) * sizeof *p->headers);
        if (!p->headers)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_headers; i++) {
                resolve(e, s, &s->headers[i], "header");
                if (s->headers[i].value)
                        p->headers[p->n_headers++] = (struct http_header){str_of(s->headers[i].name), str_of(s->headers[i].value)};
        }
        return 0;
}

static int add(struct endpoints *e, struct http_endpoint_spec *s, struct arena *a, const char **ret_err)
{
        struct tls_context *tls = NULL;
        struct endpoint *p = NULL;
        int r;

        resolve(e, s, &s->root_ca, "clientTLS.rootCA");
        resolve(e, s, &s->certificate, "clientTLS.certificate");
        resolve(e, s, &s->private_key, "clientTLS.privateKey");
        r = str_has_prefix(str_of(s->base_url), STR("https://")) ? tls_new(a, s, &tls, ret_err) : 0;
        if (r)
                return r;
        r = endpoint_new(e, &e->arena, str_of(s->base_url), tls, &p);
        tls_context_unref(tls);
        if (r == -EINVAL) {
                log_error(SCOPE, "http endpoint %s is left out: %s:%d: baseUrl \"%s\" is not a URL like https://host:port/path", s->name, s->file,
                          s->line, s->base_url);
                return 0;
        }
        if (!r)
                r = add_headers(e, s, p);
        if (!r)
                r = map_set(&e->by_name, str_of(s->name), p);
        if (r)
                endpoint_free(p);
        return r;
}

int endpoints_new(struct endpoints **ret, struct kernel *k, struct arena *a, const char **ret_err)
{
        struct endpoints *e = calloc(1, sizeof *e);
        int r = 0;

        if (!e) {
                *ret_err = "out of memory";
                return -ENOMEM;
        }
        e->k = k;
        for (size_t i = 0; i < k->resources.n_others && !r; i++) {
                const struct raw_resource *raw = k->resources.others[i];
                struct http_endpoint_spec *s;
                if (strcmp(raw->kind, "HTTPEndpoint"))
                        continue;
                r = http_endpoint_read(&e->arena, raw, &s, ret_err);
                if (r == -EINVAL)
                        *ret_err = arena_strdup(a, str_of(*ret_err));
                if (!r)
                        r = add(e, s, a, ret_err);
        }
        if (r) {
                *ret_err = r == -ENOMEM ? "out of memory" : *ret_err;
                endpoints_free(e);
                return r;
        }
        *ret = e;
        return 0;
}

static void free_all(struct map *m)
{
        for (struct map_entry *i = NULL; (i = map_next(m, i));)
                endpoint_free(i->value);
        map_fini(m);
}

void endpoints_free(struct endpoints *e)
{
        if (!e)
                return;
        free_all(&e->by_name);
        free_all(&e->by_url);
        arena_fini(&e->arena);
        free(e);
}

/* ---- finding ---- */

static bool make_room(struct endpoints *e)
{
        struct map_entry *oldest = NULL;

        if (e->by_url.count < ENDPOINT_URLS_MAX)
                return true;
        for (struct map_entry *i = NULL; (i = map_next(&e->by_url, i));) {
                const struct endpoint *p = i->value;
                if (!p->calls && (!oldest || p->used_at < ((const struct endpoint *)oldest->value)->used_at))
                        oldest = i;
        }
        if (!oldest)
                return false;
        endpoint_free(map_del(&e->by_url, str_n(oldest->key, oldest->key_n)));
        return true;
}

static struct endpoint *by_url(struct endpoints *e, struct arena *a, struct str id, const char **ret_err)
{
        struct endpoint *p = map_get(&e->by_url, id);
        struct tls_context *tls = NULL;
        int r;

        if (p)
                return p;
        if (!make_room(e)) {
                *ret_err = "too many URLs are called at once";
                return NULL;
        }
        r = id.p[4] == 's' ? tls_new(a, NULL, &tls, ret_err) : 0;
        if (!r)
                r = endpoint_new(e, a, id, tls, &p);
        tls_context_unref(tls);
        if (!r) {
                p->is_url = true;
                /* parsed parts that are not of the text live in the call's arena: the client has copied them */
                p->base.target = STR_NULL;
                r = map_set(&e->by_url, id, p);
        }
        if (r) {
                *ret_err = r == -EINVAL ? arena_printf(a, "invalid URL %.*s", STR_FMT(id)) : "out of memory";
                endpoint_free(p);
                return NULL;
        }
        return p;
}

bool endpoint_exists(const struct endpoints *e, struct str id)
{
        return e && map_get(&e->by_name, id);
}

struct endpoint *endpoint_get(struct endpoints *e, struct arena *a, struct str id, const char **ret_err)
{
        struct endpoint *p;

        *ret_err = NULL;
        if (!e)
                return NULL;
        p = endpoint_is_url(id) ? by_url(e, a, id, ret_err) : map_get(&e->by_name, id);
        if (p)
                p->calls++;
        return p;
}

void endpoint_put(struct endpoint *p)
{
        if (!p)
                return;
        p->calls--;
        p->used_at = loop_now();
}

struct str endpoint_base_url(const struct endpoint *p)
{
        return str_of(p->text);
}

/* ---- calling ---- */

static bool is_own(const struct endpoint *p, struct str name)
{
        for (size_t i = 0; i < p->n_headers; i++)
                if (str_ieq(p->headers[i].name, name))
                        return true;
        return false;
}

/* The endpoint's own headers take the place of the caller's. */
static struct http_header *all_headers(const struct endpoint *p, struct arena *a, const struct endpoint_request *q, size_t *ret_n)
{
        struct http_header *h = arena_alloc(a, (q->n_headers + p->n_headers + 1) * sizeof *h);
        size_t n = 0;

        for (size_t i = 0; h && i < q->n_headers; i++)
                if (!is_own(p, q->headers[i].name))
                        h[n++] = q->headers[i];
        for (size_t i = 0; h && i < p->n_headers; i++)
                h[n++] = p->headers[i];
        *ret_n = n;
        return h;
}

/* Redirects behind appHttpPipeline. */
struct follow {
        struct endpoint *p;
        struct arena *a;
        struct endpoint_request *q;
};
static int follow_filtered(void *arg, const struct pipeline_head *head, bool whole, struct http_exchange **inner);

static int start_at(struct endpoint *p, struct pipeline *filters, struct arena *a, struct endpoint_request *q, struct str target,
                    struct http_exchange **ret)
{
        size_t n;
        struct http_header *h = all_headers(p, a, q, &n);
        struct follow *f = arena_new(a, struct follow);

        if (!h || !f || !target.p)
                return -ENOMEM;
        *f = (struct follow){p, a, q};
        return pipeline_exchange_start(filters, a, &(struct pipeline_call){.client = p->client,
                                                                          .scheme = p->base.is_https ? "https" : "http",
                                                                          .authority = p->base.authority,
                                                                          .method = q->method,
                                                                          .target = target,
                                                                          .headers = h,
                                                                          .n_headers = n,
                                                                          .length = q->body.p ? (int64_t)q->body.n : q->length,
                                                                          .body_now = q->body,
                                                                          .follow = follow_filtered,
                                                                          .follow_arg = f}, ret);
}

int endpoint_open(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **ret)
{
        return start_at(p, p->owner->k->app_pipeline, a, q, str_of(arena_printf(a, "%.*s%.*s", STR_FMT(p->base.path), STR_FMT(q->path))), ret);
}

static bool is_redirect(int status)
{
        return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Where a Location leads on the same server; p == NULL: elsewhere, or nowhere. */
static struct str same_server(const struct endpoint *p, struct arena *a, struct str location)
{
        struct url u;

        if (location.n && location.p[0] == '/' && !str_has_prefix(location, STR("//")))
                return location;
        if (url_read(a, location, &u) || u.is_https != p->base.is_https || !str_ieq(u.authority, p->base.authority))
                return STR_NULL;
        location = str_skip(location, u.is_https ? 8 : 7);
        location = str_skip(location, u.authority.n);
        return location.n ? location : STR("/");
}

static int follow(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **x)
{
        for (int n = 0; n < ENDPOINT_REDIRECTS_MAX; n++) {
                int status = (*x)->status, r;
                bool is_get = str_eqz(q->method, "GET") || str_eqz(q->method, "HEAD");
                struct str to = same_server(p, a, http_headers_get(&(*x)->headers, "Location"));
                struct http_exchange *next;
                if (p->is_url || !is_redirect(status) || !to.p || (status >= 307 && !q->body.p))
                        return 0;
                if (status < 307 && !is_get)
                        q->method = STR("GET");
                if (status < 307)
                        q->body = STR("");
                to = arena_str(a, to);
                http_exchange_close(*x);
                *x = NULL;
                r = start_at(p, NULL, a, q, to, &next); /* the filters have seen the request */
                if (r)
                        return r;
                *x = next;
                if ((r = http_exchange_response(next)))
                        return r;
        }
        return -ELOOP;
}

static int follow_filtered(void *arg, const struct pipeline_head *head, bool whole, struct http_exchange **inner)
{
        struct follow *f = arg;
        struct endpoint_request q = *f->q;

        q.method = head->method;
        q.headers = head->headers.v;
        q.n_headers = head->headers.n;
        if (!whole)
                q.body = STR_NULL;
        return follow(f->p, f->a, &q, inner);
}

int endpoint_redirect(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **x)
{
        return (*x)->ops ? 0 : follow(p, a, q, x); /* with filters around it, it has been followed */
}

const char *endpoint_error(const struct endpoint *p, struct arena *a, const struct endpoint_request *q, int r)
{
        const char *why = strerrordesc_np(-r), *text;
        char method[16];

        snprintf(method, sizeof method, "%.*s", STR_FMT(q->method));
        for (char *c = *method ? method + 1 : method; *c; c++)
                *c = (char)tolower((unsigned char)*c);
        switch (-r) {
        case ECONNREFUSED: why = "connect: connection refused"; break;
        case ETIMEDOUT: why = "context deadline exceeded"; break;
        case ECANCELED: why = "context canceled"; break;
        case ECONNRESET: why = "EOF"; break;
        case ENOENT: why = "lookup: no such host"; break;
        case EKEYREJECTED: why = "tls: failed to verify certificate"; break;
        case EPROTO: why = "remote error: tls: handshake failure"; break;
        case EOVERFLOW: why = "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 65536 bytes; aborted"; break;
        case EBADMSG: why = "net/http: HTTP/1.x transport connection broken: malformed HTTP response"; break;
        case ELOOP: why = "stopped after 10 redirects"; break;
        default: break;
        }
        text = arena_printf(a, "%s \"%s%.*s\": %s", method, p->text, STR_FMT(q->path), why ? why : "unknown error");
        return text ? text : "out of memory";
}
