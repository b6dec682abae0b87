/*
 * Requests to servers outside, and the redirects that follow. A request belongs to one endpoint, whose headers and certificates it
 * carries wherever it is led; the server that it stands at may be another one. What tells who asks (Authorization, Cookie) goes to the
 * endpoint's host and those below it only, and a request that was once led elsewhere does not get it back.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "kernel/kernel.h"
#include "kernel/mesh/endpoints_internal.h"
#include "kernel/pipeline/exchange.h"
#include "sdk/base/json.h"

#define USER_AGENT "microdapr"
#define HTTP_BROKEN "net/http: HTTP/1.x transport connection broken: "

enum { OWN_HEADERS = 3 }; /* Authorization by the URL's user, Referer, User-Agent */

/* ---- headers ---- */

static bool is_named(struct str name, const char *const *list)
{
        for (; *list; list++)
                if (str_ieq(name, str_of(*list)))
                        return true;
        return false;
}

/* Does the request stay without it at the place where a redirect has led it? */
static bool is_left_out(const struct endpoint_request *q, struct str name)
{
        static const char *const of_body[] = {"Content-Type", "Content-Encoding", "Content-Language", "Content-Location", NULL};
        static const char *const of_caller[] = {"Authorization", "Cookie", "Cookie2", "WWW-Authenticate", NULL};

        return q->url.p && (is_named(name, of_body) || (q->is_elsewhere && is_named(name, of_caller)));
}

static bool has(const struct http_header *h, size_t n, const char *name)
{
        for (size_t i = 0; i < n; i++)
                if (str_ieq(h[i].name, str_of(name)))
                        return true;
        return false;
}

struct str endpoint_basic(struct arena *a, struct str user)
{
        struct str plain = url_unescape(a, user, false), encoded;

        if (plain.p && str_chr(plain, ':') < 0)
                plain = str_of(arena_printf(a, "%.*s:", STR_FMT(plain)));
        encoded = plain.p ? base64_encode(a, plain) : STR_NULL;
        return encoded.p ? str_of(arena_printf(a, "Basic %.*s", STR_FMT(encoded))) : STR_NULL;
}

/* The endpoint's own headers take the place of the caller's. referer: p == NULL for none. NULL = no memory. */
static struct http_header *all_headers(const struct endpoint *p, struct arena *a, const struct endpoint_request *q, struct str referer, size_t *ret_n)
{
        struct http_header *h = arena_alloc(a, (q->n_headers + p->n_headers + OWN_HEADERS) * sizeof *h);
        size_t n = 0;

        for (size_t i = 0; h && i < q->n_headers; i++) {
                struct str name = q->headers[i].name;
                bool no_second = str_ieq(name, STR("Content-Type")) && (!q->headers[i].value.n || has(h, n, "Content-Type"));
                if (!no_second && !has(p->headers, p->n_headers, arena_strdup(a, name)) && !is_left_out(q, name))
                        h[n++] = q->headers[i];
        }
        for (size_t i = 0; h && i < p->n_headers; i++)
                if (!is_left_out(q, p->headers[i].name))
                        h[n++] = p->headers[i];
        if (h && p->base.user.n && !q->url.p && !has(h, n, "Authorization")) {
                struct str basic = endpoint_basic(a, p->base.user);
                if (basic.p)
                        h[n++] = (struct http_header){STR("Authorization"), basic};
        }
        if (h && referer.p && !has(h, n, "Referer"))
                h[n++] = (struct http_header){STR("Referer"), referer};
        if (h && !has(h, n, "User-Agent"))
                h[n++] = (struct http_header){STR("User-Agent"), STR(USER_AGENT)};
        *ret_n = n;
        return h;
}

/* ---- the first request ---- */

/* Redirects behind appHttpPipeline. */
struct follow {
        struct endpoint *p;
        struct arena *a;
        struct endpoint_request *q;
};
static int follow_filtered(void *arg, const struct pipeline_head *head, bool whole, struct http_exchange **inner);

static int start_at(struct endpoint *p, struct pipeline *filters, struct arena *a, struct endpoint_request *q, struct str referer, struct str target,
                    struct http_exchange **ret)
{
        const struct endpoint *at = q->at ? q->at : p;
        size_t n;
        struct http_header *h = all_headers(p, a, q, referer, &n);
        struct follow *f = arena_new(a, struct follow);

        if (!h || !f || !target.p)
                return -ENOMEM;
        *f = (struct follow){p, a, q};
        return pipeline_exchange_start(filters, a, &(struct pipeline_call){.client = at->client,
                                                                          .scheme = at->base.is_https ? "https" : "http",
                                                                          .authority = at->base.authority,
                                                                          .method = q->method,
                                                                          .target = target,
                                                                          .headers = h,
                                                                          .n_headers = n,
                                                                          .length = q->body.p ? (int64_t)q->body.n : q->length,
                                                                          .body_now = q->body,
                                                                          .follow = follow_filtered,
                                                                          .follow_arg = f}, ret);
}

/* Below the base URL: no method adds no slash. */
static struct str target_of(const struct endpoint *p, struct arena *a, struct str path)
{
        bool is_bare = p->base.path.n && path.n && (path.n == 1 || path.p[1] == '?');

        return str_of(arena_printf(a, "%.*s%.*s", STR_FMT(p->base.path), STR_FMT(str_skip(path, is_bare))));
}

int endpoint_open(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **ret)
{
        endpoint_request_fini(q); /* of a try before */
        q->asked = q->method;
        q->url = STR_NULL;
        q->why = NULL;
        q->is_elsewhere = false;
        return start_at(p, p->owner->k->app_pipeline, a, q, STR_NULL, target_of(p, a, q->path), ret);
}

void endpoint_request_fini(struct endpoint_request *q)
{
        endpoint_put(q->at);
        q->at = NULL;
}

/* ---- redirects ---- */

static struct str origin_of(struct arena *a, const struct endpoint_url *u)
{
        return str_of(arena_printf(a, "%s://%.*s", u->is_https ? "https" : "http", STR_FMT(u->authority)));
}

/* Without its last segment, or all of a path that a URL may have left out. */
static struct str folder_of(struct str path)
{
        while (path.n && path.p[path.n - 1] != '/')
                path.n--;
        return path.n ? path : STR("/");
}

/* A reference in the place of `target` ("/path?query"), as RFC 3986 resolves it: "/path?query". p == NULL = no memory. */
static struct str resolve_path(struct arena *a, struct str target, struct str ref)
{
        struct str path = target, ref_query = ref, clean;
        bool is_folder;

        path = str_cut(&path, '?');
        ref = str_cut(&ref_query, '?');
        if (ref.n) {
                path = ref.p[0] == '/' ? ref : str_of(arena_printf(a, "%.*s%.*s", STR_FMT(folder_of(path)), STR_FMT(ref)));
                is_folder = path.n && (path.p[path.n - 1] == '/' || str_has_suffix(path, STR("/.")) || str_has_suffix(path, STR("/..")));
                clean = path.p ? path_clean(a, path) : STR_NULL;
                if (!clean.p)
                        return STR_NULL;
                path = is_folder && clean.p[clean.n - 1] != '/' ? str_of(arena_printf(a, "%.*s/", STR_FMT(clean))) : clean;
        }
        if (!ref_query.p)
                return path.n ? path : STR("/");
        return str_of(arena_printf(a, "%.*s?%.*s", STR_FMT(path), STR_FMT(ref_query)));
}

/* The letters before a ':' that comes before any '/'; n == 0: none. p == NULL: it begins with ':'. */
static struct str scheme_of(struct str location)
{
        for (size_t i = 0; i < location.n; i++) {
                if (location.p[i] == ':')
                        return i ? str_n(location.p, i) : STR_NULL;
                if (!isalnum((unsigned char)location.p[i]) && !strchr("+-.", location.p[i]))
                        break;
        }
        return STR("");
}

/* The URL that a Location means for a request of `last`. 0; -EINVAL and q->why; -ENOMEM. */
static int locate(struct endpoint_request *q, struct arena *a, struct str last, struct str location, struct str *ret)
{
        struct str scheme = scheme_of(location), rest = location, origin, target;
        struct endpoint_url u;

        rest = str_cut(&rest, '#');
        if (!scheme.p)
                q->why = arena_printf(a, "failed to parse Location header \"%.*s\": parse \"%.*s\": missing protocol scheme", STR_FMT(location), STR_FMT(location));
        else if (scheme.n && !str_ieq(scheme, STR("http")) && !str_ieq(scheme, STR("https")))
                q->why = arena_printf(a, "unsupported protocol scheme \"%.*s\"", STR_FMT(scheme)), q->url = location;
        if (q->why)
                return -EINVAL;
        if (endpoint_url_read(a, last, &u))
                return -ENOMEM;
        origin = origin_of(a, &u);
        if (scheme.n)
                *ret = str_of(arena_printf(a, "%s%.*s", str_ieq(scheme, STR("https")) ? "https" : "http", STR_FMT(str_skip(rest, scheme.n))));
        else if (str_has_prefix(rest, STR("//")))
                *ret = str_of(arena_printf(a, "%s:%.*s", u.is_https ? "https" : "http", STR_FMT(rest)));
        else {
                target = str_skip(last, (size_t)(u.authority.p + u.authority.n - last.p));
                target = resolve_path(a, target, rest);
                *ret = origin.p && target.p ? str_of(arena_printf(a, "%.*s%.*s", STR_FMT(origin), STR_FMT(target))) : STR_NULL;
        }
        return ret->p ? 0 : -ENOMEM;
}

static bool is_below(struct str host, struct str domain)
{
        return str_ieq(host, domain) || (host.n > domain.n && host.p[host.n - domain.n - 1] == '.' && str_chr(host, ':') < 0 &&
                                         str_ieq(str_skip(host, host.n - domain.n), domain));
}

/* Moves q to the server of a URL. *ret = "/path?query" there. */
static int move(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct str url, struct str *ret)
{
        struct endpoint_url u;
        const char *why;
        int r = endpoint_url_read(a, url, &u);

        if (r) {
                q->why = r == -EINVAL ? "http: no Host in request URL" : NULL;
                return r;
        }
        q->is_elsewhere |= !is_below(u.host, p->base.host);
        *ret = str_skip(url, (size_t)(u.authority.p + u.authority.n - url.p));
        if (!ret->n || ret->p[0] == '?')
                *ret = str_of(arena_printf(a, "/%.*s", STR_FMT(*ret)));
        endpoint_request_fini(q);
        if (u.is_https == p->base.is_https && str_ieq(u.authority, p->base.authority))
                return 0;
        q->at = endpoint_sibling(p, a, origin_of(a, &u), &why);
        q->why = q->at ? NULL : why;
        return q->at ? 0 : -EINVAL;
}

static struct str last_url(const struct endpoint *p, struct arena *a, const struct endpoint_request *q)
{
        struct str origin = origin_of(a, &p->base), target = target_of(p, a, q->path);

        if (q->url.p || !origin.p || !target.p)
                return q->url;
        return str_of(arena_printf(a, "%.*s%.*s", STR_FMT(origin), STR_FMT(target)));
}

/* One step. 0 and another exchange in *x, whose answer is awaited. */
static int step(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct str location, struct http_exchange **x)
{
        struct str last = last_url(p, a, q), url, target;
        bool keeps_secret;
        int r = last.p ? locate(q, a, last, location, &url) : -ENOMEM;

        if (!r)
                r = move(p, a, q, url, &target);
        if (r)
                return r;
        if (!str_eqz(q->method, "HEAD"))
                q->method = STR("GET");
        q->body = STR("");
        q->url = url;
        keeps_secret = str_has_prefix(last, STR("https:")) && str_has_prefix(url, STR("http:"));
        r = start_at(p, NULL, a, q, keeps_secret ? STR_NULL : last, target, x); /* the filters have seen the request */
        return r ? r : http_exchange_response(*x);
}

static int follow(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **x)
{
        for (int n = 1; !p->is_url && (*x)->status >= 301 && (*x)->status <= 303; n++) {
                struct str location = arena_str(a, http_headers_get(&(*x)->headers, "Location"));
                int r;
                if (!location.n)
                        return 0;
                if (n >= ENDPOINT_REDIRECTS_MAX) {
                        q->url = location;
                        return -ELOOP;
                }
                http_exchange_close(*x);
                *x = NULL;
                if ((r = step(p, a, q, location, x)))
                        return r;
        }
        return 0;
}

static int follow_filtered(void *arg, const struct pipeline_head *head, bool whole, struct http_exchange **inner)
{
        struct follow *f = arg;
        struct endpoint_request q = *f->q;
        int r;

        q.method = head->method;
        q.headers = head->headers.v;
        q.n_headers = head->headers.n;
        r = follow(f->p, f->a, &q, inner);
        f->q->at = q.at;
        f->q->url = q.url;
        f->q->why = q.why;
        return r;
}

int endpoint_redirect(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **x)
{
        return (*x)->ops ? 0 : follow(p, a, q, x); /* with filters around it, it has been followed */
}

/* ---- failures ---- */

const char *endpoint_error(const struct endpoint *p, struct arena *a, const struct endpoint_request *q, int r)
{
        const struct endpoint *at = q->at ? q->at : p;
        const char *why = strerrordesc_np(-r), *text;
        char method[16];

        snprintf(method, sizeof method, "%.*s", STR_FMT(q->asked));
        for (char *c = *method ? method + 1 : method; *c; c++)
                *c = (char)tolower((unsigned char)*c);
        switch (-r) {
        case ECONNREFUSED:
                why = arena_printf(a, "dial tcp %.*s%s: connect: connection refused", STR_FMT(at->base.authority),
                                   str_chr(at->base.authority, ':') >= 0 ? "" : at->base.is_https ? ":443" : ":80");
                break;
        case ETIMEDOUT: why = "context deadline exceeded"; break;
        case ECANCELED: why = "context canceled"; break;
        case ECONNRESET: why = "EOF"; break;
        case ENOENT: why = arena_printf(a, "dial tcp: lookup %.*s: no such host", STR_FMT(at->base.host)); break;
        case EKEYREJECTED: why = "tls: failed to verify certificate"; break;
        case EOPNOTSUPP: why = "local error: tls: no renegotiation"; break;
        case EPROTO: why = "remote error: tls: handshake failure"; break;
        case EOVERFLOW: why = arena_printf(a, HTTP_BROKEN "net/http: server response headers exceeded %zu bytes; aborted", at->header_bytes); break;
        case EBADMSG: why = HTTP_BROKEN "malformed HTTP response"; break;
        case ECONNABORTED: why = "proxyconnect tcp: the proxy of HTTPS_PROXY refuses"; break;
        case ELOOP: why = "stopped after 10 redirects"; break;
        default: break;
        }
        if (q->why)
                why = q->why;
        if (q->url.p)
                text = arena_printf(a, "%s \"%.*s\": %s", method, STR_FMT(q->url), why ? why : "unknown error");
        else
                text = arena_printf(a, "%s \"%s%.*s\": %s", method, p->text, STR_FMT(q->path), why ? why : "unknown error");
        return text ? text : "out of memory";
}
