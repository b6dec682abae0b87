/*
 * An endpoint has one HTTP client: those of resources live as long as the process, those of URLs are made for scheme, host and port and
 * stay until ENDPOINT_URLS_MAX others were called since. The app's token is not sent: it is nobody else's business.
 */
#include "kernel/mesh/endpoints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/kernel.h"
#include "kernel/mesh/endpoints_internal.h"
#include "kernel/resources/http_endpoint.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/net/tls.h"

#define SCOPE "dapr.runtime"
#define CONNECT_TIMEOUT_S 15.0

enum { HEADER_BYTES_MIN = 4096 };

bool endpoint_is_url(struct str id)
{
        return str_has_prefix(id, STR("http://")) || str_has_prefix(id, STR("https://"));
}

/* ---- URLs ---- */

int endpoint_url_read(struct arena *a, struct str text, struct endpoint_url *ret)
{
        struct str rest = text, host;
        ptrdiff_t i;
        bool has_port;

        if (!endpoint_is_url(text))
                return -EINVAL;
        *ret = (struct endpoint_url){.is_https = text.p[4] == 's'};
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
        if ((i = str_chr(ret->authority, '@')) >= 0) {
                ret->user = str_n(ret->authority.p, (size_t)i);
                ret->authority = str_skip(ret->authority, (size_t)i + 1);
        }
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
        tls_context_unref(p->tls);
        free(p->text);
        free(p);
}

static int client_new(struct http_client **ret, const struct endpoint_url *u, const struct endpoint_proxy *proxy, struct tls_context *tls, bool by_alpn,
                      size_t header_bytes)
{
        return http_client_new(ret, &(struct http_client_conf){.target = u->target,
                                                               .authority = u->authority,
                                                               .proxy = proxy->target,
                                                               .proxy_authorization = proxy->authorization,
                                                               .tls = tls,
                                                               .h2_by_alpn = tls && by_alpn,
                                                               .server_name = u->host,
                                                               .gzip = HTTP_GZIP_ASK,
                                                               .max_header_bytes = header_bytes,
                                                               .connect_timeout_s = CONNECT_TIMEOUT_S});
}

/* The answers of URLs are held to what the app's are. */
static size_t header_bytes_of_urls(const struct endpoints *e)
{
        int64_t n = e->k->opts.read_buffer_size;

        return n > HEADER_BYTES_MIN ? (size_t)n : HEADER_BYTES_MIN;
}

static struct str port_of(const struct endpoint_url *u)
{
        const char *colon = memrchr(u->target.p, ':', u->target.n);

        return str_skip(u->target, (size_t)(colon + 1 - u->target.p));
}

/* text: the base URL. tls: for https, or NULL; borrowed. of_resource: of one, or of a redirect of one. */
static int endpoint_new(struct endpoints *e, struct arena *a, struct str text, struct tls_context *tls, bool of_resource, struct endpoint **ret,
                        const char **ret_err)
{
        struct endpoint_proxy proxy = {0};
        struct endpoint *p = calloc(1, sizeof *p);
        int r = p && (p->text = strndup(text.p, text.n)) ? 0 : -ENOMEM;

        if (!r)
                r = endpoint_url_read(a, str_of(p->text), &p->base);
        if (!r)
                r = endpoint_proxy_find(a, &e->proxies, p->base.is_https, p->base.host, port_of(&p->base), &proxy, ret_err);
        if (r >= 0) {
                p->header_bytes = of_resource ? ENDPOINT_HEADER_BYTES : header_bytes_of_urls(e);
                r = client_new(&p->client, &p->base, &proxy, p->base.is_https ? tls : NULL, of_resource, p->header_bytes);
        }
        if (r) {
                endpoint_free(p);
                return r;
        }
        p->owner = e;
        p->tls = tls ? tls_context_ref(tls) : NULL;
        *ret = p;
        return 0;
}

/* s: NULL for a URL. Servers of URLs are not offered HTTP/2, as the reference does it. */
static int tls_new(struct arena *a, const struct http_endpoint_spec *s, bool offers_h2, struct tls_context **ret, const char **ret_err)
{
        static const char *const both[] = {"h2", "http/1.1", NULL};
        struct tls_options o = {.alpn = offers_h2 ? both : NULL};
        char err[256];
        int r;

        if (s)
                o.renegotiation = s->renegotiation;
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
                /* without a value it still takes the place of the caller's */
                p->headers[p->n_headers++] = (struct http_header){str_of(s->headers[i].name), str_of(s->headers[i].value ? s->headers[i].value : "")};
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
        r = s->has_tls || str_has_prefix(str_of(s->base_url), STR("https://")) ? tls_new(a, s, true, &tls, ret_err) : 0;
        if (r)
                return r;
        r = endpoint_new(e, &e->arena, str_of(s->base_url), tls, true, &p, ret_err);
        tls_context_unref(tls);
        if (r == -EINVAL && *ret_err)
                return r;
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
        e->proxies = proxy_settings_read();
        *ret_err = NULL;
        for (size_t i = 0; i < k->resources.n_others && !r; i++) {
                const struct raw_resource *raw = k->resources.others[i];
                struct http_endpoint_spec *s;
                if (strcmp(raw->kind, "HTTPEndpoint"))
                        continue;
                r = http_endpoint_read(&e->arena, raw, &s, ret_err);
                if (!r)
                        r = add(e, s, a, ret_err);
                if (r != -EINVAL)
                        continue;
                log_error(SCOPE, "http endpoint %s is left out: %s", raw->name, *ret_err);
                *ret_err = NULL;
                r = 0;
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

/* The server of a URL, kept under key. from: the endpoint that a redirect has led away from, whose ways go with it, or NULL. */
static struct endpoint *by_url(struct endpoints *e, struct arena *a, struct str key, struct str url, const struct endpoint *from, const char **ret_err)
{
        struct endpoint *p = map_get(&e->by_url, key);
        struct tls_context *tls = NULL;
        int r = 0;

        if (p)
                return p;
        if (!make_room(e)) {
                *ret_err = "too many URLs are called at once";
                return NULL;
        }
        if (from && from->tls)
                tls = tls_context_ref(from->tls);
        else if (url.p[4] == 's')
                r = tls_new(a, NULL, from, &tls, ret_err);
        if (!r)
                r = endpoint_new(e, a, url, tls, from, &p, ret_err);
        tls_context_unref(tls);
        if (!r) {
                p->is_url = true;
                /* parsed parts that are not of the text live in the call's arena: the client has copied them */
                p->base.target = STR_NULL;
                r = map_set(&e->by_url, key, p);
        }
        if (r) {
                *ret_err = r != -EINVAL ? "out of memory" : *ret_err ? *ret_err : arena_printf(a, "invalid URL %.*s", STR_FMT(url));
                endpoint_free(p);
                return NULL;
        }
        return p;
}

struct endpoint *endpoint_sibling(struct endpoint *p, struct arena *a, struct str url, const char **ret_err)
{
        struct str key = str_of(arena_printf(a, "%s\n%.*s", p->text, STR_FMT(url)));
        struct endpoint *other;

        *ret_err = "out of memory";
        other = key.p ? by_url(p->owner, a, key, url, p, ret_err) : NULL;
        if (other)
                other->calls++;
        return other;
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
        p = endpoint_is_url(id) ? by_url(e, a, id, id, NULL, ret_err) : map_get(&e->by_name, id);
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
