/*
 * Invocation of the own app where one side speaks gRPC. HTTP caller, gRPC app: OnInvoke, its status becomes an HTTP status and its text a
 * JSON body. InvokeService: to HTTP apps with verb and query of the request, to gRPC apps as OnInvoke. Nothing is streamed: OnInvoke has
 * whole bodies.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dapr/proto/common/v1/common.pb-c.h"
#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "kernel/front/errors.h"
#include "kernel/front/http.h"
#include "kernel/front/target.h"
#include "kernel/observe/observe.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define ON_INVOKE "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
#define SERVICE "/dapr.proto.runtime.v1.Dapr/InvokeService"

enum { DETAIL_MAX = 62 };

typedef Dapr__Proto__Common__V1__InvokeRequest invoke_request;
typedef Dapr__Proto__Common__V1__InvokeResponse invoke_response;

static const char *const verbs[] = {"", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
enum { VERBS = sizeof verbs / sizeof *verbs, VERB_CONNECT = 6 };

/* ---- metadata and headers ---- */

static bool is_listed(struct str name, const char *const *list)
{
        for (; *list; list++)
                if (str_ieq(name, str_of(*list)))
                        return true;
        return false;
}

static bool is_of_the_hop(struct str name)
{
        static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer", "host",
                                            "transfer-encoding", "upgrade", "content-length", "http2-settings", NULL};

        return is_listed(name, names);
}

/* Headers that HTTP defines reach a gRPC app as "dapr-<name>". */
static bool is_permanent(struct str name)
{
        static const char *const names[] = {"accept", "accept-charset", "accept-language", "accept-ranges", "authorization", "cache-control",
                                            "content-type", "cookie", "date", "expect", "from", "host", "if-match", "if-modified-since",
                                            "if-none-match", "if-schedule-tag-match", "if-unmodified-since", "max-forwards", "origin",
                                            "pragma", "referer", "user-agent", "via", "warning", NULL};

        return is_listed(name, names);
}

static int headers_to_md(struct call *c, const struct http_headers *from, struct rpc_mdlist *to)
{
        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name;
                char *key;
                if (is_of_the_hop(name) || str_has_suffix(name, STR("-bin")))
                        continue;
                key = arena_printf(c->arena, "%s%.*s", is_permanent(name) ? "dapr-" : "", STR_FMT(name));
                if (!key)
                        return -ENOMEM;
                for (char *p = key; *p; p++)
                        if (*p >= 'A' && *p <= 'Z')
                                *p = (char)(*p - 'A' + 'a');
                if (rpc_md_add(to, c->arena, str_of(key), from->v[i].value))
                        return -ENOMEM;
        }
        return 0;
}

static int md_to_headers(struct call *c, const struct rpc_mdlist *from, struct http_headers *to)
{
        for (size_t i = 0; i < from->n; i++) {
                struct str key = from->v[i].key;
                if (is_of_the_hop(key) || str_has_suffix(key, STR("-bin")) || str_eqz(key, "content-type"))
                        continue;
                if (str_has_prefix(key, STR("grpc-")))
                        key = str_of(arena_printf(c->arena, "dapr-%.*s", STR_FMT(key)));
                if (!key.p || http_headers_add(to, c->arena, key, from->v[i].value))
                        return -ENOMEM;
        }
        return 0;
}

/* ---- gRPC app ---- */

static int on_invoke(struct call *c, const invoke_request *req, const struct rpc_mdlist *md, invoke_response **ret, struct rpc_status *st)
{
        return app_grpc(c->k->app, c->arena, ON_INVOKE, &req->base, &dapr__proto__common__v1__invoke_response__descriptor, ret, md->v, md->n,
                        st);
}

static int http_status_of(int code)
{
        static const int of[] = {200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401};

        return code >= 0 && (size_t)code < sizeof of / sizeof *of ? of[code] : 500;
}

static void reply_status(struct call *c, int code, struct str message)
{
        struct buf b = {0};
        struct json_writer w;

        json_write_init(&w, &b);
        json_object_begin(&w);
        json_key(&w, STR("code"));
        json_int(&w, code);
        json_kv(&w, "message", message);
        json_object_end(&w);
        reply_json(c, http_status_of(code), buf_str(&b));
        buf_fini(&b);
}

static void fail_http(struct call *c, struct str id, const char *why)
{
        call_fail(c, ERR_DIRECT_INVOKE, arena_strdup(c->arena, id), why);
        reply_error(c);
}

void invoke_own_grpc_app(struct call *c, const struct invoke_target *t)
{
        invoke_request req = DAPR__PROTO__COMMON__V1__INVOKE_REQUEST__INIT;
        Dapr__Proto__Common__V1__HTTPExtension extension = DAPR__PROTO__COMMON__V1__HTTPEXTENSION__INIT;
        Google__Protobuf__Any data = GOOGLE__PROTOBUF__ANY__INIT;
        struct str type = http_headers_get(&c->http->headers, "Content-Type"), body;
        struct rpc_mdlist md = {0};
        struct rpc_status st = {0};
        invoke_response *resp;

        if (!app_is_healthy(c->k->app)) {
                fail_http(c, t->id, APP_UNHEALTHY);
                return;
        }
        if (call_body(c, &body))
                return;
        for (int i = 1; i < VERBS; i++)
                if (str_eqz(c->http->method, verbs[i]))
                        extension.verb = (Dapr__Proto__Common__V1__HTTPExtension__Verb)i;
        extension.querystring = arena_strdup(c->arena, c->http->query);
        data.value = pb_bytes(body);
        req.method = arena_strdup(c->arena, t->method);
        req.content_type = arena_strdup(c->arena, type);
        req.data = &data;
        req.http_extension = &extension;
        if (!req.method || !req.content_type || !extension.querystring || headers_to_md(c, &c->http->headers, &md)) {
                fail_http(c, t->id, "out of memory");
                return;
        }
        if (on_invoke(c, &req, &md, &resp, &st)) {
                reply_status(c, st.code, st.message);
                return;
        }
        body = resp->data ? pb_str(resp->data->value) : STR("");
        reply_bytes(c, 200, resp->data && *resp->data->type_url ? "application/x-protobuf" : *resp->content_type ? resp->content_type : NULL,
                    body, NULL, 0);
}

/* ---- InvokeService ---- */

static int code_of_http(int status)
{
        static const struct {
                int status, code;
        } rows[] = {{408, RPC_CANCELLED},         {500, RPC_UNKNOWN},           {400, RPC_INTERNAL},           {504, RPC_DEADLINE_EXCEEDED},
                    {404, RPC_NOT_FOUND},         {409, RPC_ALREADY_EXISTS},    {403, RPC_PERMISSION_DENIED},  {401, RPC_UNAUTHENTICATED},
                    {429, RPC_RESOURCE_EXHAUSTED}, {501, RPC_UNIMPLEMENTED},     {503, RPC_UNAVAILABLE}};

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (rows[i].status == status)
                        return rows[i].code;
        return RPC_UNKNOWN;
}

static int service_http(struct call *c, const char *id, const invoke_request *m, invoke_response *out, Google__Protobuf__Any *any)
{
        const Dapr__Proto__Common__V1__HTTPExtension *x = m->http_extension;
        struct http_headers headers = {0};
        struct app_request req = {.content_type = str_of(m->content_type), .body = m->data ? pb_str(m->data->value) : STR("")};
        struct app_response resp = {0};
        const char *path;
        int r;

        if (!x)
                return call_fail(c, ERR_DIRECT_INVOKE, id, "rpc error: code = InvalidArgument desc = missing HTTP extension field");
        if (x->verb <= 0 || (int)x->verb >= VERBS || (int)x->verb == VERB_CONNECT)
                return call_fail(c, ERR_DIRECT_INVOKE, id, "rpc error: code = InvalidArgument desc = invalid HTTP verb");
        path = arena_printf(c->arena, "%s%s%s%s", m->method[0] == '/' ? "" : "/", m->method, *x->querystring ? "?" : "", x->querystring);
        if (!path || md_to_headers(c, &c->rpc->md_in, &headers))
                return call_fail(c, ERR_DIRECT_INVOKE, id, "out of memory");
        req.method = str_of(verbs[x->verb]);
        req.path = str_of(path);
        req.headers = headers.v;
        req.n_headers = headers.n;
        r = app_http(c->k->app, c->arena, &req, &resp);
        if (r)
                return call_fail(c, ERR_DIRECT_INVOKE, id, app_http_error(c->k->app, c->arena, &req, r));
        rpc_md_add(&c->rpc->md_out, c->arena, STR("dapr-http-status"), str_of(arena_printf(c->arena, "%d", resp.status)));
        if (resp.status < 200 || resp.status > 299) {
                struct str detail = str_n(resp.body.p, resp.body.n < DETAIL_MAX ? resp.body.n : DETAIL_MAX);
                const char *text = arena_strdup(c->arena, detail);
                rpc_send_headers(c->rpc);
                return rpc_fail_http(c->rpc, code_of_http(resp.status), resp.status, text ? text : "");
        }
        any->value = pb_bytes(resp.body);
        out->data = any;
        out->content_type = arena_strdup(c->arena, http_headers_get(&resp.headers, "Content-Type"));
        return out->content_type ? rpc_send_pb(c->rpc, &out->base) : -ENOMEM;
}

static int service_grpc(struct call *c, const invoke_request *m)
{
        struct rpc_mdlist md = {0};
        struct rpc_status st = {0};
        invoke_response *resp;

        for (size_t i = 0; i < c->rpc->md_in.n; i++) {
                const struct rpc_md *x = &c->rpc->md_in.v[i];
                struct str key = is_permanent(x->key) ? str_of(arena_printf(c->arena, "dapr-%.*s", STR_FMT(x->key))) : x->key;
                if (!key.p || rpc_md_add(&md, c->arena, key, x->value))
                        return -ENOMEM;
        }
        if (on_invoke(c, m, &md, &resp, &st))
                return rpc_fail_details(c->rpc, st.code, st.message, st.details);
        return rpc_send_pb(c->rpc, &resp->base);
}

static int serve(struct call *c)
{
        invoke_response out = DAPR__PROTO__COMMON__V1__INVOKE_RESPONSE__INIT;
        const invoke_request none = DAPR__PROTO__COMMON__V1__INVOKE_REQUEST__INIT;
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
        const Dapr__Proto__Runtime__V1__InvokeServiceRequest *in;
        const char *why = NULL;
        int r = rpc_recv_pb(c->rpc, &dapr__proto__runtime__v1__invoke_service_request__descriptor, &in);

        if (r != 1)
                return r < 0 ? r : rpc_fail(c->rpc, RPC_INTERNAL, "io: EOF");
        if (!*in->id)
                why = "app id is empty";
        else if (!invoke_is_own(c, str_of(in->id)))
                why = arena_printf(c->arena, "couldn't find service: %s", in->id);
        else if (!c->k->app)
                why = "cannot invoke local endpoint: app channel not initialized";
        else if (!app_is_healthy(c->k->app))
                why = APP_UNHEALTHY;
        if (why)
                return call_fail(c, ERR_DIRECT_INVOKE, in->id, why);
        if (app_is_grpc(c->k->app))
                return service_grpc(c, in->message ? in->message : &none);
        return service_http(c, in->id, in->message ? in->message : &none, &out, &any);
}

int invoke_service(struct call *c)
{
        double began = loop_now_exact();
        int r = serve(c), code = c->failed ? c->grpc_code : r < 0 ? RPC_INTERNAL : c->rpc->status.code;

        observe_grpc_server(c->k->observe, SERVICE, code, true, c->rpc->bytes_in, c->rpc->bytes_out, (loop_now_exact() - began) * 1e3);
        return r;
}
