/*
 * What handlers of the HTTP door use: parameters, query, body, and the replies. A reply carries the call's headers (CORS and what
 * the handler added) and its response metadata.
 */
#include <errno.h>
#include <stdio.h>

#include "kernel/front/errors.h"
#include "kernel/front/http.h"
#include "kernel/front/router.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"
#include "sdk/base/pbjson.h"

#define LOG_SCOPE "dapr.runtime.http"
#define METADATA_PREFIX "metadata."

/* ---- request ---- */

struct str route_param(struct call *c, const char *name)
{
        struct str v;

        for (size_t i = 0; c->match && i < c->match->n; i++) {
                if (!str_eqz(c->match->param[i].name, name))
                        continue;
                /* cannot fail on a bad escape: the door has refused such paths */
                v = url_unescape(c->arena, c->match->param[i].value, true);
                return v.p ? v : c->match->param[i].value;
        }
        return STR("");
}

struct str call_query(struct call *c, const char *key)
{
        struct str rest = c->http->query, k, v;

        while (query_next(c->arena, &rest, &k, &v))
                if (str_eqz(k, key))
                        return v;
        return STR_NULL;
}

int call_query_metadata(struct call *c, struct rpc_mdlist *ret)
{
        struct str rest = c->http->query, k, v;

        if (str_find(rest, STR("metadata")) < 0)
                return 0;
        while (query_next(c->arena, &rest, &k, &v)) {
                const char *z;
                if (!str_has_prefix(k, STR(METADATA_PREFIX)))
                        continue;
                z = arena_strdup(c->arena, str_skip(k, sizeof METADATA_PREFIX - 1));
                if (!z)
                        return -ENOMEM;
                if (rpc_md_get(ret, z).p)
                        continue;
                if (rpc_md_add(ret, c->arena, str_of(z), v))
                        return -ENOMEM;
        }
        return 0;
}

const char *body_error(int err)
{
        switch (err) {
        case -EMSGSIZE: return "stream too large";
        case -ECONNRESET:
        case -EPIPE: return "unexpected EOF";
        case -ETIMEDOUT: return "i/o timeout";
        case -ECANCELED: return "context canceled";
        case -ENOMEM: return "out of memory";
        default: return strerror(-err);
        }
}

int call_body(struct call *c, struct str *ret)
{
        int r = http_req_body(c->http, ret);

        if (r == 0)
                return 0;
        call_fail(c, ERR_BODY_READ, body_error(r));
        reply_error(c);
        return -1;
}

void *call_body_message(struct call *c, const ProtobufCMessageDescriptor *d)
{
        const char *err = NULL;
        struct str body;
        void *m;

        if (call_body(c, &body))
                return NULL;
        if (body.n == 0) {
                m = arena_alloc(c->arena, d->sizeof_message);
                if (m)
                        d->message_init(m);
        } else {
                m = pbjson_read(c->arena, d, body, 0, &err);
        }
        if (!m) {
                call_fail(c, ERR_MALFORMED_REQUEST, err ? err : "out of memory");
                reply_error(c);
        }
        return m;
}

/* ---- reply ---- */

void call_header(struct call *c, struct str name, struct str value)
{
        http_headers_add(&c->headers, c->arena, name, value);
}

void call_headers_into(struct call *c, struct http_headers *to)
{
        size_t given = to->n;

        for (size_t i = 0; i < c->headers.n; i++) {
                bool found = false;
                for (size_t k = 0; k < given && !found; k++)
                        found = str_ieq(to->v[k].name, c->headers.v[i].name);
                if (!found)
                        http_headers_add(to, c->arena, c->headers.v[i].name, c->headers.v[i].value);
        }
}

static bool is_token(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                unsigned char ch = (unsigned char)s.p[i];
                if (ch <= ' ' || ch >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", ch))
                        return false;
        }
        return s.n > 0;
}

static bool is_field_value(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] < ' ' && s.p[i] != '\t')
                        return false;
        return true;
}

/* "metadata.<key>" in the canonical case of HTTP headers; keys and values that cannot stand in a header are left out. */
static void add_metadata(struct call *c, struct http_headers *h)
{
        for (size_t i = 0; i < c->md_resp.n; i++) {
                struct rpc_md *md = &c->md_resp.v[i];
                char *name;
                bool upper = true;
                if (!is_token(md->key) || !is_field_value(md->value))
                        continue;
                name = arena_printf(c->arena, METADATA_PREFIX "%.*s", STR_FMT(md->key));
                if (!name)
                        return;
                for (char *p = name; *p; upper = *p++ == '-') {
                        if (upper && *p >= 'a' && *p <= 'z')
                                *p = (char)(*p - 'a' + 'A');
                        else if (!upper && *p >= 'A' && *p <= 'Z')
                                *p = (char)(*p - 'A' + 'a');
                }
                http_headers_add(h, c->arena, str_of(name), md->value);
        }
}

static void collect(struct call *c, struct http_headers *all, const char *content_type, const struct http_header *h, size_t n)
{
        if (content_type)
                http_headers_add(all, c->arena, STR("Content-Type"), str_of(content_type));
        for (size_t i = 0; i < n; i++)
                http_headers_add(all, c->arena, h[i].name, h[i].value);
        call_headers_into(c, all);
        add_metadata(c, all);
}

void reply_bytes(struct call *c, int status, const char *content_type, struct str body, const struct http_header *h, size_t n)
{
        struct http_headers all = {0};

        collect(c, &all, content_type, h, n);
        http_resp_send(c->http, status, all.v, all.n, body);
}

int reply_begin(struct call *c, int status, const char *content_type, int64_t length)
{
        struct http_headers all = {0};

        collect(c, &all, content_type, NULL, 0);
        return http_resp_begin(c->http, status, all.v, all.n, length);
}

void reply_empty(struct call *c)
{
        reply_bytes(c, 204, NULL, STR(""), NULL, 0);
}

void reply_json(struct call *c, int status, struct str body)
{
        reply_bytes(c, status, "application/json", body, NULL, 0);
}

void reply_text(struct call *c, int status, const char *text)
{
        const struct http_header nosniff = {STR("X-Content-Type-Options"), STR("nosniff")};

        reply_bytes(c, status, "text/plain; charset=utf-8", str_of(text), &nosniff, 1);
}

void reply_message(struct call *c, const ProtobufCMessage *m, int pbjson_flags)
{
        struct buf b = {0};

        if (pbjson_write(&b, m, pbjson_flags)) {
                buf_fini(&b);
                call_fail(c, ERR_INTERNAL, "message cannot be written as JSON");
                reply_error(c);
                return;
        }
        reply_json(c, 200, buf_str(&b));
        buf_fini(&b);
}

/* The reference writes JSON for HTML: <, > and & as escapes. They stand only inside strings. */
struct str json_escape_html(struct arena *a, struct str json)
{
        size_t n = 0;
        char *to, *at;

        for (size_t i = 0; i < json.n; i++)
                n += json.p[i] == '<' || json.p[i] == '>' || json.p[i] == '&';
        if (n == 0 || !(to = at = arena_alloc(a, json.n + 5 * n)))
                return json;
        for (size_t i = 0; i < json.n; i++) {
                char ch = json.p[i];
                if (ch == '<' || ch == '>' || ch == '&') {
                        memcpy(at, ch == '<' ? "\\u003c" : ch == '>' ? "\\u003e" : "\\u0026", 6);
                        at += 6;
                } else {
                        *at++ = ch;
                }
        }
        return str_n(to, (size_t)(at - to));
}

void reply_error(struct call *c)
{
        struct buf b = {0};

        log_debug(LOG_SCOPE, "api error: code = %s desc = %.*s", rpc_code_name(c->grpc_code), STR_FMT(c->message));
        observe_error_code(c->k->observe, call_error_code(c), error_rows[c->error].category);
        if (c->http->begun) { /* too late for a status */
                http_resp_abort(c->http);
                return;
        }
        error_json(c, &b);
        reply_json(c, c->http_status, json_escape_html(c->arena, buf_str(&b)));
        buf_fini(&b);
}
