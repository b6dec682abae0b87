/*
 * Attributes of spans. Two tables: HTTP groups and gRPC methods, each row naming the kind of block and where the request names its
 * component. Tokens are never written; what a caller sends in headers that begin with "dapr-" is.
 */
#include "kernel/front/trace_attrs.h"

#include <stdio.h>

#include "sdk/base/pb.h"

#define USER_PREFIX "dapr-"
#define TOKEN_NAME "dapr-api-token"

enum shape { SHAPE_NONE, SHAPE_DB, SHAPE_MESSAGING, SHAPE_SYSTEM };

/* HTTP: by group; name: the path parameter. gRPC: by method; name: the field. system: db.system, or messaging.system. */
struct row {
        const char *what, *system, *name;
        enum shape shape;
};
static const struct row http_rows[] = {
        {"state", "state", "storeName", SHAPE_DB},
        {"secrets", "secrets", "secretStoreName", SHAPE_DB},
        {"bindings", "bindings", "name", SHAPE_DB},
        {"publish", "pubsub", "topic", SHAPE_MESSAGING},
};
static const struct row grpc_rows[] = {
        {"GetState", "state", "store_name", SHAPE_DB},
        {"SaveState", "state", "store_name", SHAPE_DB},
        {"DeleteState", "state", "store_name", SHAPE_DB},
        {"GetSecret", "secrets", "store_name", SHAPE_DB},
        {"InvokeBinding", "bindings", "name", SHAPE_DB},
        {"PublishEvent", "pubsub", "topic", SHAPE_MESSAGING},
        {"BulkPublishEvent", "pubsub", "topic", SHAPE_MESSAGING},
        {"BulkPublishEventAlpha1", "pubsub", "topic", SHAPE_MESSAGING},
        {"ConverseAlpha1", "", "name", SHAPE_SYSTEM},
        {"ConverseAlpha2", "", "name", SHAPE_SYSTEM},
};

static const struct row *row_of(const struct row *v, size_t n, struct str what)
{
        for (size_t i = 0; i < n; i++)
                if (str_eqz(what, v[i].what))
                        return &v[i];
        return NULL;
}

static void write_row(struct trace *t, const struct row *r, struct str name, struct str statement)
{
        switch (r->shape) {
        case SHAPE_DB:
                trace_attr(t, "db.system", str_of(r->system));
                trace_attr(t, "db.name", name);
                trace_attr(t, "db.statement", statement);
                trace_attr(t, "db.connection_string", str_of(r->system));
                break;
        case SHAPE_MESSAGING:
                trace_attr(t, "messaging.system", str_of(r->system));
                trace_attr(t, "messaging.destination.name", name);
                break;
        case SHAPE_SYSTEM:
                trace_attr(t, "rpc.system", name);
                break;
        case SHAPE_NONE:
                break;
        }
}

static bool is_user_name(struct str name)
{
        return name.n > sizeof USER_PREFIX - 1 && str_ieq(str_n(name.p, sizeof USER_PREFIX - 1), STR(USER_PREFIX)) &&
               !str_ieq(name, STR(TOKEN_NAME));
}

/* "10.0.0.1:4711" in two; Unix sockets have no port. */
static void write_peer(struct trace *t, const char *peer)
{
        const char *colon = peer ? strrchr(peer, ':') : NULL;

        if (!peer)
                return;
        trace_attr(t, "server.address", colon ? str_n(peer, (size_t)(colon - peer)) : str_of(peer));
        trace_attr(t, "server.port", colon ? str_of(colon + 1) : STR_NULL);
}

static struct str api_of(struct call *c, struct str path)
{
        return str_of(arena_printf(c->arena, "%.*s %.*s", STR_FMT(c->http->method), STR_FMT(path)));
}

void trace_attrs_route(struct call *c, struct str path)
{
        const struct row *r = row_of(http_rows, sizeof http_rows / sizeof *http_rows, str_of(c->route->group));

        if (r && trace_is_recorded(c->trace))
                write_row(c->trace, r, route_param(c, r->name), api_of(c, path));
}

void trace_attrs_http(struct call *c, struct str path)
{
        struct http_req *q = c->http;
        struct trace *t = c->trace;
        char status[12];

        for (size_t i = 0; i < q->headers.n; i++)
                if (is_user_name(q->headers.v[i].name))
                        trace_attr_user(t, q->headers.v[i].name, q->headers.v[i].value);
        snprintf(status, sizeof status, "%d", q->status);
        trace_attr(t, "dapr.protocol", STR("http"));
        trace_attr(t, "dapr.api", api_of(c, path));
        trace_attr(t, "dapr.status_code", str_of(status));
        trace_attr(t, "http.request.method", q->method);
        trace_attr(t, "url.full", q->target);
        write_peer(t, q->peer);
}

void trace_attrs_message(struct trace *t, const char *method, const ProtobufCMessage *m)
{
        const char *slash = strrchr(method, '/');
        const struct row *r = row_of(grpc_rows, sizeof grpc_rows / sizeof *grpc_rows, str_of(slash ? slash + 1 : method));
        const ProtobufCFieldDescriptor *f = r ? protobuf_c_message_descriptor_get_field_by_name(m->descriptor, r->name) : NULL;

        if (!f || f->type != PROTOBUF_C_TYPE_STRING)
                return;
        if (r->shape != SHAPE_SYSTEM)
                trace_attr(t, "rpc.service", STR("Dapr"));
        write_row(t, r, str_of(*(const char *const *)((const char *)m + f->offset)), str_of(method));
}

void trace_attrs_grpc(struct trace *t, const struct rpc_call *rpc, bool proxied)
{
        for (size_t i = 0; i < rpc->md_in.n; i++)
                if (is_user_name(rpc->md_in.v[i].key) && !str_has_suffix(rpc->md_in.v[i].key, STR("-bin")))
                        trace_attr_user(t, rpc->md_in.v[i].key, rpc->md_in.v[i].value);
        if (proxied)
                return;
        trace_attr(t, "dapr.protocol", STR("grpc"));
        trace_attr(t, "dapr.api", rpc->method);
}

void trace_attrs_invoke(struct trace *t, struct arena *a, struct str app_id, struct str method)
{
        if (!trace_is_recorded(t))
                return;
        while (method.n && method.p[0] == '/')
                method = str_skip(method, 1);
        trace_attr(t, "rpc.service", STR("ServiceInvocation"));
        trace_attr(t, "net.peer.name", app_id);
        trace_rename(t, str_of(arena_printf(a, "CallLocal/%.*s/%.*s", STR_FMT(app_id), STR_FMT(method))));
}
