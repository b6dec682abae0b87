/*
 * Who is called, and calls to the own app with bodies held whole: HTTP apps by verb, path and query, gRPC apps by OnInvoke. Also what
 * becomes of headers and metadata between the protocols:
 * - HTTP to gRPC: headers of HTTP itself get the prefix "dapr-"; names become lower case.
 * - gRPC to HTTP: pseudo headers and "grpc-…" get the prefix "dapr-"; binary metadata and what belongs to the hop stay behind.
 * Trace headers are never copied: the app channel writes those of the running call.
 */
#include <errno.h>
#include <stdio.h>

#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"

#define ON_INVOKE "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
#define STATUS_ERROR(code, text) "rpc error: code = " code " desc = " text

typedef Dapr__Proto__Common__V1__InvokeResponse invoke_response;

static const char *const verbs[] = {"", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
enum { VERBS = sizeof verbs / sizeof *verbs, VERB_POST = 3, VERB_CONNECT = 6 };

int invoke_verb(struct str name)
{
        for (int i = 1; i < VERBS; i++)
                if (str_ieq(name, str_of(verbs[i])))
                        return i;
        return VERB_POST;
}

/* ---- headers and metadata ---- */

static bool is_listed(struct str name, const char *const *list)
{
        for (; *list; list++)
                if (str_ieq(name, str_of(*list)))
                        return true;
        return false;
}

bool invoke_is_hop_by_hop(struct str name, struct str connection)
{
        static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te",
                                            "trailer", "transfer-encoding", "upgrade", "content-length", "host", "http2-settings", NULL};

        if (is_listed(name, names))
                return true;
        while (connection.p)
                if (str_ieq(str_trim(str_cut(&connection, ',')), name))
                        return true;
        return false;
}

static bool is_traced(struct str name)
{
        static const char *const names[] = {"traceparent", "tracestate", "grpc-trace-bin", "destination-app-id", NULL};

        return is_listed(name, names);
}

/* Headers that HTTP defines (the IANA's permanent ones). */
static bool is_permanent(struct str name)
{
        static const char *const names[] = {"accept", "accept-charset", "accept-language", "accept-ranges", "connection", "keep-alive",
                                            "proxy-connection", "transfer-encoding", "upgrade", "cache-control", "content-type",
                                            "content-length", "cookie", "date", "expect", "from", "host", "if-match", "if-modified-since",
                                            "if-none-match", "if-schedule-tag-match", "if-unmodified-since", "max-forwards", "origin",
                                            "pragma", "referer", "via", "warning", NULL};

        return is_listed(name, names);
}

int invoke_headers_to_md(struct arena *a, const struct http_headers *from, bool is_response, struct rpc_mdlist *to)
{
        struct str connection = is_response ? http_headers_get(from, "Connection") : STR_NULL;

        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name;
                char *key;
                if (is_traced(name) || str_ieq(name, STR("host")) || (is_response && invoke_is_hop_by_hop(name, connection)))
                        continue;
                key = arena_printf(a, "%s%.*s", is_permanent(name) ? "dapr-" : "", STR_FMT(name));
                if (!key)
                        return -ENOMEM;
                for (char *p = key; *p; p++)
                        if (*p >= 'A' && *p <= 'Z')
                                *p = (char)(*p - 'A' + 'a');
                if (rpc_md_add(to, a, str_of(key), from->v[i].value))
                        return -ENOMEM;
        }
        return 0;
}

int invoke_md_to_headers(struct arena *a, const struct rpc_mdlist *from, struct http_headers *to)
{
        struct str connection = rpc_md_get(from, "connection");

        for (size_t i = 0; i < from->n; i++) {
                struct str key = from->v[i].key;
                if (is_traced(key) || invoke_is_hop_by_hop(key, connection) || str_has_suffix(key, STR("-bin")) ||
                    str_eqz(key, "content-type"))
                        continue;
                if (key.p[0] == ':')
                        key = str_of(arena_printf(a, "dapr-%.*s", STR_FMT(str_skip(key, 1))));
                else if (str_has_prefix(key, STR("grpc-")))
                        key = str_of(arena_printf(a, "dapr-%.*s", STR_FMT(key)));
                if (!key.p || http_headers_add(to, a, key, from->v[i].value))
                        return -ENOMEM;
        }
        return 0;
}

static int md_of(struct arena *a, const struct invoke_request *in, struct rpc_mdlist *to)
{
        if (in->headers)
                return invoke_headers_to_md(a, in->headers, false, to);
        for (size_t i = 0; i < in->md->n; i++)
                if (!is_traced(in->md->v[i].key) && rpc_md_add(to, a, in->md->v[i].key, in->md->v[i].value))
                        return -ENOMEM;
        return 0;
}

/* ---- who ---- */

/* As Go's %q writes it, for the characters that make a method bad and those beside them. */
static const char *quoted(struct arena *a, struct str s)
{
        char *p = arena_alloc(a, s.n * 4 + 3), *w = p;

        if (!p)
                return "\"\"";
        *w++ = '"';
        for (size_t i = 0; i < s.n; i++) {
                unsigned char ch = (unsigned char)s.p[i];
                const char *short_form = ch >= 7 && ch <= 13 ? &"a\0b\0t\0n\0v\0f\0r"[(ch - 7) * 2] : NULL;
                if (ch == '"' || ch == '\\')
                        *w++ = '\\', *w++ = (char)ch;
                else if (short_form)
                        *w++ = '\\', *w++ = *short_form;
                else if (ch < ' ' || ch == 0x7f)
                        w += snprintf(w, 5, "\\x%02x", ch);
                else
                        *w++ = (char)ch;
        }
        memcpy(w, "\"", 2);
        return p;
}

struct str invoke_method(struct arena *a, struct str method, const char **ret_err)
{
        struct str clean;

        *ret_err = "out of memory";
        for (size_t i = 0; i < method.n; i++) {
                if (method.p[i] && !strchr("#?", method.p[i]))
                        continue;
                *ret_err = arena_printf(a, STATUS_ERROR("InvalidArgument", "invalid method: method contains forbidden character: %s"), quoted(a, method));
                return STR_NULL;
        }
        for (size_t i = 0; i < method.n; i++) {
                if ((unsigned char)method.p[i] >= ' ' && method.p[i] != 0x7f)
                        continue;
                *ret_err = arena_printf(a, STATUS_ERROR("InvalidArgument", "invalid method: method contains control character at position %zu: %s"), i,
                                        quoted(a, method));
                return STR_NULL;
        }
        clean = path_clean(a, method);
        while (str_has_prefix(clean, STR("../")))
                clean = str_skip(clean, 3);
        return str_eqz(clean, "..") || str_eqz(clean, ".") ? STR("") : clean;
}

/* The method was unescaped for its checks: escape it again. */
struct str invoke_path(struct arena *a, struct str method, struct str query)
{
        static const char plain[] = "-._~!$&'()*+,;=:@/";
        static const char hex[] = "0123456789ABCDEF";
        char *p = arena_alloc(a, 1 + method.n * 3 + 1 + query.n), *w = p;

        if (!p)
                return STR_NULL;
        *w++ = '/';
        for (size_t i = method.n && method.p[0] == '/'; i < method.n; i++) {
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
        if (query.n) {
                *w++ = '?';
                memcpy(w, query.p, query.n);
                w += query.n;
        }
        return str_n(p, (size_t)(w - p));
}

bool invoke_find(const struct call *c, struct str id, const char **ret_err)
{
        struct str own = str_of(c->k->opts.app_id), ns = str_of(c->k->opts.own_namespace), rest = id, name = str_cut(&rest, '.');

        if (!id.n)
                *ret_err = "app id is empty";
        else if (rest.p && str_chr(rest, '.') >= 0 && !str_has_prefix(id, STR("http://")) && !str_has_prefix(id, STR("https://")))
                *ret_err = arena_printf(c->arena, "invalid app id %.*s", STR_FMT(id));
        else if (!str_eq(id, own) && !(rest.p && str_eq(name, own) && str_eq(rest, ns)))
                *ret_err = arena_printf(c->arena, "couldn't find service: %.*s", STR_FMT(id));
        else if (!c->k->app)
                *ret_err = "cannot invoke local endpoint: app channel not initialized";
        else
                return true;
        return false;
}

/* ---- the call ---- */

static int whole_grpc(struct call *c, const struct invoke_request *in, struct invoke_answer *out)
{
        Dapr__Proto__Common__V1__InvokeRequest req = *in->message;
        struct rpc_mdlist md = {0};
        struct rpc_status st = {0};
        struct app_grpc_md answer = {0};
        invoke_response *resp;

        req.method = arena_strdup(c->arena, in->method);
        if (!req.method || md_of(c->arena, in, &md))
                return -ENOMEM;
        out->code = app_grpc_md(c->k->app, c->arena, ON_INVOKE, &req.base, &dapr__proto__common__v1__invoke_response__descriptor, &resp, md.v,
                                md.n, &answer, &st);
        out->md = answer.headers;
        out->trailers = answer.trailers;
        if (out->code) {
                out->message = st.message;
                out->details = st.details;
                return 0;
        }
        out->content_type = str_of(resp->content_type);
        if (resp->data) {
                out->type_url = str_of(resp->data->type_url);
                out->body = pb_str(resp->data->value);
        }
        return 0;
}

static int whole_http(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        const Dapr__Proto__Common__V1__InvokeRequest *m = in->message;
        const Dapr__Proto__Common__V1__HTTPExtension *x = m->http_extension;
        bool has_type = m->data && *m->data->type_url;
        struct http_headers headers = {0};
        struct app_request req = {.method = str_of(verbs[x->verb]),
                                  .content_type = has_type ? STR("application/x-protobuf") : str_of(m->content_type),
                                  .body = m->data ? pb_str(m->data->value) : STR("")};
        struct app_response resp = {0};
        int r;

        req.path = invoke_path(c->arena, in->method, str_of(x->querystring));
        if (!req.path.p || invoke_md_to_headers(c->arena, in->md, &headers))
                return -ENOMEM;
        req.headers = headers.v;
        req.n_headers = headers.n;
        r = app_http(c->k->app, c->arena, &req, &resp);
        if (r) {
                *ret_err = app_http_error(c->k->app, c->arena, &req, r);
                return -1;
        }
        out->is_http = true;
        out->code = resp.status;
        out->headers = resp.headers;
        out->content_type = http_headers_get(&resp.headers, "Content-Type");
        out->body = resp.body;
        return 0;
}

int invoke_whole(struct call *c, const struct invoke_request *in, struct invoke_answer *out, const char **ret_err)
{
        const Dapr__Proto__Common__V1__HTTPExtension *x = in->message->http_extension;
        int r;

        *out = (struct invoke_answer){0};
        *ret_err = NULL;
        if (!app_is_grpc(c->k->app)) {
                if (!x)
                        *ret_err = STATUS_ERROR("InvalidArgument", "missing HTTP extension field");
                else if (x->verb <= 0 || (int)x->verb >= VERBS || (int)x->verb == VERB_CONNECT)
                        *ret_err = STATUS_ERROR("InvalidArgument", "invalid HTTP verb");
        }
        if (!*ret_err && !app_is_healthy(c->k->app))
                *ret_err = INVOKE_UNHEALTHY;
        if (*ret_err)
                return -1;
        r = app_is_grpc(c->k->app) ? whole_grpc(c, in, out) : whole_http(c, in, out, ret_err);
        if (r && !*ret_err)
                *ret_err = "out of memory";
        return r ? -1 : 0;
}
