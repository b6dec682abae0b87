/*
 * Service invocation over HTTP (API.md 1.2), as far as one sidecar reaches: calls to the own app; where gRPC is on a side, see
 * invoke_own.c. Bodies are streamed both ways; a request of known length keeps its length. Other sidecars, HTTPEndpoints and URLs
 * answer that the service is not found.
 * The app is asked by the method's path, its status, headers and body come back as they are. Hop-by-hop headers stay on their hop
 * (RFC 9110, 7.6.1). An app that is not healthy is not asked.
 */
#include <errno.h>

#include "dapr/proto/common/v1/common.pb-c.h"
#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "kernel/front/target.h"

enum { COPY_BYTES = 16 * 1024 };

static bool is_hop_by_hop(struct str name, struct str connection)
{
        static const char *const names[] = {"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer",
                                            "Transfer-Encoding", "Upgrade", "Content-Length", "Host", "HTTP2-Settings"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (str_ieq(name, str_of(names[i])))
                        return true;
        while (connection.p)
                if (str_ieq(str_trim(str_cut(&connection, ',')), name))
                        return true;
        return str_has_suffix(name, STR("-bin"));
}

static int copy_headers(struct call *c, const struct http_headers *from, struct http_headers *to)
{
        struct str connection = http_headers_get(from, "Connection");
        for (size_t i = 0; i < from->n; i++)
                if (!is_hop_by_hop(from->v[i].name, connection) && http_headers_add(to, c->arena, from->v[i].name, from->v[i].value))
                        return -ENOMEM;
        return 0;
}

/* The method's path as a URL path with the caller's query. The method was unescaped for its checks: escape it again. */
static struct str method_path(struct call *c, struct str method)
{
        static const char plain[] = "-._~!$&'()*+,;=:@/";
        static const char hex[] = "0123456789ABCDEF";
        char *p = arena_alloc(c->arena, 1 + method.n * 3 + 1 + c->http->query.n), *w = p;
        if (!p)
                return STR_NULL;
        *w++ = '/';
        for (size_t i = 0; i < method.n; i++) {
                unsigned char b = (unsigned char)method.p[i];
                bool alnum = (b >= '0' && b <= '9') || (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z');
                if (alnum || (b && strchr(plain, b)))
                        *w++ = (char)b;
                else {
                        *w++ = '%';
                        *w++ = hex[b >> 4];
                        *w++ = hex[b & 15];
                }
        }
        if (c->http->query.n) {
                *w++ = '?';
                memcpy(w, c->http->query.p, c->http->query.n);
                w += c->http->query.n;
        }
        return str_n(p, (size_t)(w - p));
}

/* The request's body to the app. 0, or what reading or writing gave. */
static int send_body(struct call *c, struct http_exchange *x, char *buffer)
{
        for (;;) {
                ssize_t n = http_req_read(c->http, buffer, COPY_BYTES);
                if (n < 0)
                        return (int)n;
                if (n == 0)
                        return http_exchange_end(x);
                int r = http_exchange_write(x, str_n(buffer, (size_t)n));
                if (r)
                        return r == -EPIPE || r == -ECONNRESET ? 0 : r; /* the app may have answered early */
        }
}

/* The app's answer to the caller; once it has begun, a failure can only break it off. */
static int relay_answer(struct call *c, struct http_exchange *x, char *buffer)
{
        struct http_headers out = {0};
        int r = http_exchange_response(x);
        if (r || (r = copy_headers(c, &x->headers, &out)))
                return r;
        bool no_body = x->status == 204 || x->status == 304 || str_eqz(c->http->method, "HEAD");
        r = http_resp_begin(c->http, x->status, out.v, out.n, no_body ? 0 : x->content_length);
        while (!r && !no_body) {
                ssize_t n = http_exchange_read(x, buffer, COPY_BYTES);
                if (n == 0)
                        break;
                r = n < 0 ? (int)n : http_resp_write(c->http, str_n(buffer, (size_t)n));
        }
        if (r)
                http_resp_abort(c->http);
        else
                http_resp_end(c->http, x->trailers.v, x->trailers.n);
        return 0;
}

static void fail(struct call *c, struct str id, const char *why)
{
        call_fail(c, ERR_DIRECT_INVOKE, arena_strdup(c->arena, id), why);
        reply_error(c);
}

static void invoke_own_app(struct call *c, const struct invoke_target *t)
{
        struct app *app = c->k->app;
        struct http_headers headers = {0};
        struct http_exchange *x = NULL;
        struct app_request head = {.method = c->http->method, .path = method_path(c, t->method)};
        char *buffer = arena_alloc(c->arena, COPY_BYTES);
        bool has_body = c->http->content_length != 0 && !(c->http->content_length < 0 && (str_eqz(c->http->method, "GET") || str_eqz(c->http->method, "HEAD")));

        if (!app_is_healthy(app)) {
                fail(c, t->id, APP_UNHEALTHY);
                return;
        }
        if (!buffer || !head.path.p || copy_headers(c, &c->http->headers, &headers)) {
                fail(c, t->id, "out of memory");
                return;
        }
        head.headers = headers.v;
        head.n_headers = headers.n;
        int r = app_http_open(app, c->arena, &head, has_body ? c->http->content_length : 0, &x);
        if (!r)
                r = has_body ? send_body(c, x, buffer) : http_exchange_end(x);
        if (!r)
                r = relay_answer(c, x, buffer);
        if (x)
                app_http_close(app, x);
        if (r == -EMSGSIZE) {
                call_fail(c, ERR_BODY_READ, "http: request body too large");
                reply_error(c);
        } else if (r)
                fail(c, t->id, app_http_error(app, c->arena, &head, r));
}

bool invoke_is_own(const struct call *c, struct str id)
{
        struct str own = str_of(c->k->opts.app_id), ns = str_of(c->k->opts.namespace_);
        return str_eq(id, own) ||
               (ns.n && id.n == own.n + 1 + ns.n && str_has_prefix(id, own) && id.p[own.n] == '.' && str_has_suffix(id, ns));
}

static void invoke_http(struct call *c)
{
        struct str path = url_unescape(c->arena, c->http->path, false);
        struct invoke_target t = invoke_target_find(c->arena, path, &c->http->headers);

        if (!t.id.n) {
                call_fail(c, ERR_DIRECT_INVOKE_NO_APP_ID);
                reply_error(c);
        } else if (!invoke_is_own(c, t.id))
                fail(c, t.id, arena_printf(c->arena, "couldn't find service: %.*s", STR_FMT(t.id)));
        else if (!c->k->app)
                fail(c, t.id, "cannot invoke local endpoint: app channel not initialized");
        else if (app_is_grpc(c->k->app))
                invoke_own_grpc_app(c, &t);
        else
                invoke_own_app(c, &t);
}

static const struct http_route routes[] = {{"*", "/v1.0/invoke/{rest...}", "invoke", "v1", "InvokeService", invoke_http, .fallback = true}};
static const struct grpc_route rows[] = {{"InvokeService", "invoke.v1", &dapr__proto__runtime__v1__invoke_service_request__descriptor,
                                          &dapr__proto__common__v1__invoke_response__descriptor, NULL, invoke_service}};
const struct block invoke_block_def = {.name = "invoke", .http = routes, .n_http = 1, .grpc = rows, .n_grpc = 1};
