/*
 * The three kinds of legs. What fails is worded here, as the reference words it: calls over HTTP in net/http's words, calls to sidecars
 * by their gRPC status.
 */
#include "kernel/blocks/invoke_leg.h"

#include <errno.h>

#include "kernel/mesh/convert.h"
#include "kernel/mesh/mesh_metrics.h"
#include "kernel/observe/observe.h"
#include "sdk/base/loop.h"

static int out_of_memory(struct leg *g)
{
        g->code = RPC_RESOURCE_EXHAUSTED;
        g->why = "out of memory";
        return -ENOMEM;
}

static char *room_of(struct leg *g)
{
        if (!g->room)
                g->room = arena_alloc(g->c->arena, MESH_CHUNK_ROOM + MESH_CHUNK_BYTES);
        return g->room;
}

/* ---- HTTP: the own app, and servers outside ---- */

static int http_write(struct leg *g, char *room, size_t n)
{
        return http_exchange_write(g->x, str_n(room + MESH_CHUNK_ROOM, n));
}

static int http_end(struct leg *g)
{
        return http_exchange_end(g->x);
}

static void http_abort(struct leg *g)
{
        http_exchange_abort(g->x);
}

static int take_answer(struct leg *g)
{
        g->status = g->x->status;
        g->content_length = g->x->content_length;
        g->content_type = http_headers_get(&g->x->headers, "Content-Type");
        return convert_http_to_http(g->c->arena, &g->x->headers, &g->answer) ? out_of_memory(g) : 0;
}

static int http_read(struct leg *g, struct str *ret)
{
        ssize_t n = room_of(g) ? http_exchange_read(g->x, g->room, MESH_CHUNK_BYTES) : -ENOMEM;

        if (n > 0)
                *ret = str_n(g->room, (size_t)n);
        return n > 0 ? 1 : (int)n;
}

static int http_trailers(struct leg *g, struct http_headers *to)
{
        *to = g->x->trailers;
        return 0;
}

static int app_failed(struct leg *g, int r)
{
        g->code = RPC_UNKNOWN;
        g->why = app_http_error(g->c->k->app, g->c->arena, &g->app, r);
        return r;
}

static int app_open(struct leg *g)
{
        g->app.body = g->body;
        int r = app_http_open(g->c->k->app, g->c->arena, &g->app, g->length, &g->x);

        return r ? app_failed(g, r) : 0;
}

static int app_answer(struct leg *g)
{
        int r = http_exchange_response(g->x);

        return r ? app_failed(g, r) : take_answer(g);
}

static void app_close(struct leg *g)
{
        if (g->x)
                app_http_close(g->c->k->app, g->x);
        g->x = NULL;
}

static const struct leg_ops app_ops = {app_open, http_write, http_end, app_answer, http_read, http_trailers, http_abort, app_close};

static int app_init(struct leg *g)
{
        struct http_req *q = g->c->http;

        if (convert_http_to_http(g->c->arena, &q->headers, &g->headers))
                return out_of_memory(g);
        g->ops = &app_ops;
        g->app = (struct app_request){.method = q->method,
                                      .path = convert_path(g->c->arena, app_base_url(g->c->k->app), g->method, q->query, &g->why),
                                      .headers = g->headers.v,
                                      .n_headers = g->headers.n,
                                      .content_type = http_headers_get(&g->headers, "Content-Type")};
        return g->app.path.p ? 0 : -EINVAL;
}

static int outside_failed(struct leg *g, int r)
{
        struct endpoint_request *q = &g->outside;

        observe_http_client_completed(g->c->k->observe, g->c->arena, q->method, g->method, 500, -1, (loop_now_exact() - g->began) * 1e3);
        g->code = RPC_UNKNOWN;
        g->why = endpoint_error(g->endpoint, g->c->arena, q, r);
        return r;
}

static int outside_open(struct leg *g)
{
        struct endpoint_request *q = &g->outside;
        int r;

        q->method = g->c->http->method;
        q->length = g->length;
        q->body = g->body;
        g->began = loop_now_exact();
        mesh_count_sent(mesh_metrics(g->c->k->mesh), g->dest->id, false);
        observe_http_client_started(g->c->k->observe, g->c->arena, q->method, g->method, g->length > 0 ? (size_t)g->length : 0);
        r = endpoint_open(g->endpoint, g->c->arena, q, &g->x);
        return r ? outside_failed(g, r) : 0;
}

static int outside_answer(struct leg *g)
{
        int r = http_exchange_response(g->x);

        if (!r)
                r = endpoint_redirect(g->endpoint, g->c->arena, &g->outside, &g->x);
        if (r)
                return outside_failed(g, r);
        double ms = (loop_now_exact() - g->began) * 1e3;
        observe_http_client_completed(g->c->k->observe, g->c->arena, g->outside.method, g->method, g->x->status, g->x->content_length, ms);
        mesh_count_answered(mesh_metrics(g->c->k->mesh), g->dest->id, g->x->status, false, ms);
        return take_answer(g);
}

static void outside_close(struct leg *g)
{
        http_exchange_close(g->x);
        g->x = NULL;
}

static const struct leg_ops outside_ops = {outside_open, http_write, http_end, outside_answer, http_read, http_trailers, http_abort, outside_close};

static int outside_init(struct leg *g)
{
        struct http_req *q = g->c->http;
        const char *err;

        g->endpoint = endpoint_get(g->c->k->endpoints, g->c->arena, g->dest->id, &err);
        if (!g->endpoint) {
                g->code = RPC_INVALID_ARGUMENT;
                g->why = err ? err : "the HTTP endpoint is gone";
                return -ENOENT;
        }
        if (convert_http_to_http(g->c->arena, &q->headers, &g->headers))
                return out_of_memory(g);
        g->ops = &outside_ops;
        g->outside = (struct endpoint_request){.headers = g->headers.v, .n_headers = g->headers.n};
        g->outside.path = convert_path(g->c->arena, arena_strdup(g->c->arena, endpoint_base_url(g->endpoint)), g->method, q->query, &g->why);
        return g->outside.path.p ? 0 : -EINVAL;
}

/* ---- another sidecar ---- */

static int remote_failed(struct leg *g, const struct rpc_status *st)
{
        g->code = st->code;
        g->why = invoke_status_text(g->c->arena, st);
        g->failed_before = invoke_is_transient(st->code);
        return -EIO;
}

static int remote_open(struct leg *g)
{
        struct kernel *k = g->c->k;
        struct rpc_status st = {0};
        struct mesh_target t = {.id = g->dest->id, .ns = g->dest->ns};

        g->code = invoke_locate(k, g->c->arena, g->dest, g->failed_before, &g->why);
        if (g->code)
                return -ENOENT;
        t.address = str_of(g->dest->address);
        g->began = loop_now_exact();
        mesh_count_sent(mesh_metrics(k->mesh), t.id, false);
        return mesh_call_open(k->mesh, g->c->arena, &t, &g->request, g->body, g->body.p != NULL, &g->call, &st) ? remote_failed(g, &st) : 0;
}

static int remote_write(struct leg *g, char *room, size_t n)
{
        return mesh_call_write(g->call, room, n);
}

static int remote_end(struct leg *g)
{
        return mesh_call_end(g->call);
}

static int remote_answer(struct leg *g)
{
        const struct mesh_response *r = &g->call->answer;

        if (mesh_call_answer(g->call))
                return remote_failed(g, &g->call->status);
        mesh_count_answered(mesh_metrics(g->c->k->mesh), g->dest->id, r->code, false, (loop_now_exact() - g->began) * 1e3);
        g->status = r->code;
        g->message = r->message;
        g->details = r->status;
        g->content_type = r->type_url.n ? STR("application/x-protobuf") : r->content_type;
        g->content_length = convert_length(rpc_md_get(&g->call->rpc->md_in, MESH_LENGTH_KEY));
        if (convert_internal_to_http(g->c->arena, &r->headers, &g->answer))
                return out_of_memory(g);
        return g->content_type.n && http_headers_add(&g->answer, g->c->arena, STR("Content-Type"), g->content_type) ? out_of_memory(g) : 0;
}

static int remote_read(struct leg *g, struct str *ret)
{
        int r = mesh_call_read(g->call, ret);

        return r < 0 ? remote_failed(g, &g->call->status) : r;
}

static int remote_trailers(struct leg *g, struct http_headers *to)
{
        return mesh_call_trailers(g->call, to);
}

static void remote_abort(struct leg *g)
{
        mesh_call_cancel(g->call);
}

static void remote_close(struct leg *g)
{
        mesh_call_close(g->call, g->failed_before);
        g->call = NULL;
}

static const struct leg_ops remote_ops = {remote_open, remote_write, remote_end, remote_answer, remote_read, remote_trailers, remote_abort, remote_close};

static int remote_init(struct leg *g)
{
        struct http_req *q = g->c->http;
        int r;

        g->ops = &remote_ops;
        g->request = (struct mesh_request){.method = g->method,
                                           .content_type = http_headers_get(&q->headers, "Content-Type"),
                                           .query = q->query,
                                           .verb = convert_verb(q->method),
                                           .has_message = true,
                                           .has_http = true};
        if (convert_http_to_internal(g->c->arena, &q->headers, &g->request.md))
                return out_of_memory(g);
        r = mesh_hop(g->c->k->mesh, g->c->arena, g->dest->id, &g->request.md);
        if (r != -ELOOP)
                return r ? out_of_memory(g) : 0;
        g->code = RPC_ABORTED;
        g->why = "the request has passed too many sidecars (" MESH_HOPS_TEXT " Forwarded headers): a loop of invocations";
        return r;
}

/* ---- all ---- */

int leg_init(struct leg *g, struct call *c, struct invoke_dest *dest, struct str method)
{
        *g = (struct leg){.c = c, .dest = dest, .method = method, .content_length = -1};
        switch (dest->kind) {
        case INVOKE_OWN:
                return app_init(g);
        case INVOKE_REMOTE:
                return remote_init(g);
        case INVOKE_ENDPOINT:
                return outside_init(g);
        }
        return -EINVAL;
}

void leg_fini(struct leg *g)
{
        endpoint_request_fini(&g->outside);
        endpoint_put(g->endpoint);
        g->endpoint = NULL;
}
