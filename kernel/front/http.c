/*
 * One request, in the reference's order: path, metrics around all, CORS, API token, filters of httpPipeline, API log, route. Each request has its own fiber
 * and arena; nothing is kept between requests.
 */
#include "kernel/front/http.h"

#include <stdio.h>

#include "kernel/front/filtered.h"
#include "kernel/front/trace_attrs.h"
#include "kernel/observe/observe.h"
#include "kernel/observe/slow.h"
#include "kernel/observe/trace.h"
#include "sdk/base/log.h"

#define TOKEN_HEADER "dapr-api-token"
#define INFO_SCOPE "dapr.runtime.http-info"

/* Constant time in the length of the secret. */
static bool same_secret(struct str given, struct str secret)
{
        unsigned diff = given.n != secret.n;

        for (size_t i = 0; i < secret.n; i++)
                diff |= (unsigned char)secret.p[i] ^ (unsigned char)(i < given.n ? given.p[i] : 0);
        return diff == 0;
}

static bool is_token_free(const struct http_req *r, struct str path)
{
        if (!str_eqz(r->method, "GET"))
                return false;
        while (path.n && path.p[0] == '/')
                path = str_skip(path, 1);
        while (path.n && path.p[path.n - 1] == '/')
                path.n--;
        return str_eqz(path, "v1.0/healthz") || str_eqz(path, "v1.0/healthz/outbound");
}

/* True when the request may go on. */
static bool check_token(const struct http_door *d, struct call *c, struct str path)
{
        struct http_req *r = c->http;

        if (!d->token.n)
                return true;
        if (!same_secret(http_headers_get(&r->headers, TOKEN_HEADER), d->token) && !is_token_free(r, path)) {
                reply_text(c, 401, "invalid api token\n");
                return false;
        }
        http_headers_remove(&r->headers, TOKEN_HEADER);
        return true;
}

static void log_call(const struct http_door *d, struct call *c, struct str path, double began)
{
        struct http_req *r = c->http;
        struct str agent = http_headers_get(&r->headers, "User-Agent"), method;
        char code[12], ms[24], size[24];
        struct log_field f[5];
        size_t n = 0;

        if (c->route && c->route->health_check && !d->log_health)
                return;
        if (d->obfuscate)
                method = str_of(c->operation);
        else
                method = str_of(arena_printf(c->arena, "%.*s %.*s", STR_FMT(r->method), STR_FMT(path)));
        snprintf(code, sizeof code, "%d", r->status);
        snprintf(ms, sizeof ms, "%lld", (long long)((loop_now_exact() - began) * 1e3));
        snprintf(size, sizeof size, "%llu", (unsigned long long)r->bytes_out);
        f[n++] = (struct log_field){"duration", str_of(ms), true};
        f[n++] = (struct log_field){"method", method, false};
        f[n++] = (struct log_field){"code", str_of(code), true};
        f[n++] = (struct log_field){"size", str_of(size), true};
        if (agent.n)
                f[n++] = (struct log_field){"useragent", agent, false};
        log_write_always(LOG_INFO, INFO_SCOPE, STR("HTTP API Called"), f, n);
}

/* The path routes are looked up by: cleaned, without trailing slash. */
static struct str route_path(struct arena *a, struct str path)
{
        struct str clean = path_clean(a, path.n ? path : STR("/"));

        if (clean.n > 1 && clean.p[clean.n - 1] == '/')
                clean.n--;
        return clean;
}

static void route(const struct http_door *d, struct call *c, struct str path)
{
        struct route_match m;

        c->match = &m;
        if (router_find(d->router, c->http->method, route_path(c->arena, c->http->path), &m))
                c->route = m.route;
        else
                c->route = d->fallback;
        if (c->route) {
                c->operation = c->route->name;
                c->route->fn(c);
                trace_attrs_route(c, path);
        } else if (m.path_exists) {
                const struct http_header allow = {STR("Allow"), str_of(m.allow)};
                reply_bytes(c, 405, NULL, STR(""), &allow, 1);
        } else {
                reply_text(c, 404, "404 page not found\n");
        }
        c->match = NULL;
}

/* Begins the request's trace. False: its baggage is refused, and answered. */
static bool begin_trace(struct call *c, struct str path)
{
        static const char *const names[TRACE_HEADERS] = {"Traceparent", "Tracestate", "Baggage"};
        const char *why;

        if (str_find(path, STR("/healthz")) >= 0) {
                *c->trace = (struct trace){0};
                return true;
        }
        why = trace_begin_http(c->trace, c->k->tracer, c->arena, &c->http->headers, path);
        if (why) {
                reply_text(c, 400, arena_printf(c->arena, "%s\n", why));
                return false;
        }
        if (!c->trace->has_ctx)
                return true;
        for (int i = 0; i < TRACE_HEADERS; i++)
                if (c->trace->value[i].n)
                        call_header(c, str_of(names[i]), c->trace->value[i]);
        return true;
}

static void end_trace(struct call *c, struct str path)
{
        trace_install(NULL);
        if (trace_is_recorded(c->trace)) {
                trace_attrs_http(c, path);
                trace_status_http(c->trace, c->http->status);
        }
        trace_end(c->trace);
}

struct dispatch {
        const struct http_door *door;
        struct call *c;
        struct str path; /* unescaped */
        double began;
};

static void dispatch(void *arg)
{
        struct dispatch *x = arg;

        route(x->door, x->c, x->path);
        if (x->door->log_calls)
                log_call(x->door, x->c, x->path, x->began);
}

/* A filter may have given the request another path. */
static void dispatch_filtered(void *arg)
{
        struct dispatch *x = arg;

        x->path = url_unescape(x->c->arena, x->c->http->path, false);
        dispatch(x);
}

void http_door_serve(struct http_req *r, void *arg)
{
        const struct http_door *d = arg;
        struct trace trace;
        struct call c = {.k = d->k, .arena = r->arena, .door = DOOR_HTTP, .http = r, .operation = "", .trace = &trace};
        struct str path = url_unescape(r->arena, r->path, false);
        double began = loop_now_exact(), elapsed_ms;
        int64_t length = r->content_length; /* a filter may change it */

        if (!path.p) {
                const struct http_header close_it = {STR("Connection"), STR("close")};
                reply_bytes(&c, 400, "text/plain; charset=utf-8", STR("400 Bad Request"), &close_it, 1);
                return;
        }
        if (!begin_trace(&c, path))
                return;
        trace_install(&trace);
        if (!cors_handle(&d->cors, &c) && check_token(d, &c, path)) {
                struct dispatch x = {d, &c, path, began};
                if (d->pipeline)
                        filtered_serve(d->pipeline, &c, dispatch_filtered, &x);
                else
                        dispatch(&x);
        }
        end_trace(&c, path);
        elapsed_ms = (loop_now_exact() - began) * 1e3;
        if (!(c.route && c.route->health_check))
                slow_note(d->k->slow, &(struct slow_request){"http", r->method, path, r->status, elapsed_ms, &trace});
        observe_http_server(d->k->observe, r->arena,
                            &(struct observe_http){.method = r->method,
                                                   .path = path,
                                                   .status = r->status,
                                                   .req_bytes = length,
                                                   .resp_bytes = (int64_t)r->bytes_out,
                                                   .elapsed_ms = elapsed_ms});
}
