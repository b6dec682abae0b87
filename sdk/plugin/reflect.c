/*
 * gRPC reflection as far as runtimes ask a pluggable component for it: the list of its services, v1 and v1alpha. Descriptors are
 * not served: they would make every plugin a third larger, and the .proto files are public.
 */
#include <errno.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "sdk/plugin/runtime.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_t;
typedef Grpc__Reflection__V1__ServiceResponse service_t;

enum { SERVICES_MAX = 16 };

static struct str service_of(const char *path)
{
        struct str s = str_skip(str_of(path), 1);
        return str_n(s.p, (size_t)str_chr(s, '/'));
}

static size_t add_service(struct arena *a, service_t **list, size_t n, const char *path)
{
        struct str name = service_of(path);
        for (size_t i = 0; i < n; i++)
                if (str_eqz(name, list[i]->name))
                        return n;
        service_t *s = n < SERVICES_MAX ? arena_new(a, service_t) : NULL;
        if (!s)
                return n;
        grpc__reflection__v1__service_response__init(s);
        s->name = arena_strdup(a, name);
        list[n] = s;
        return s->name ? n + 1 : n;
}

static int list_services(struct rpc_call *c, struct runtime *rt, response_t *resp)
{
        Grpc__Reflection__V1__ListServiceResponse list = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
        service_t *services[SERVICES_MAX];
        struct arena *a = rpc_msg_arena(c);
        for (size_t i = 0; i < rt->n_rows; i++)
                for (const struct rpc_method *m = rt->rows[i]; m->path; m++)
                        list.n_service = add_service(a, services, list.n_service, m->path);
        list.n_service = add_service(a, services, list.n_service, sdk_lifecycle_methods[0].path);
        list.n_service = add_service(a, services, list.n_service, "/grpc.reflection.v1alpha.ServerReflection/");
        list.service = services;
        resp->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
        resp->list_services_response = &list;
        return rpc_send_pb(c, &resp->base);
}

static int refuse(struct rpc_call *c, response_t *resp)
{
        Grpc__Reflection__V1__ErrorResponse e = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
        e.error_code = RPC_NOT_FOUND;
        e.error_message = "a plugin lists its services only";
        resp->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
        resp->error_response = &e;
        return rpc_send_pb(c, &resp->base);
}

static int reflect(struct rpc_call *c, void *arg)
{
        request_t *q;
        int r;
        c->flags |= RPC_REUSE;
        while ((r = rpc_recv_pb(c, &grpc__reflection__v1__server_reflection_request__descriptor, &q)) > 0) {
                response_t resp = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
                resp.valid_host = q->host;
                resp.original_request = q;
                bool list = q->message_request_case == GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
                r = list ? list_services(c, sdk_runtime(), &resp) : refuse(c, &resp);
                if (r)
                        return r;
        }
        return r;
}

const struct rpc_method sdk_reflection_methods[] = {
        {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", reflect},
        {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflect},
};
const size_t sdk_reflection_methods_n = sizeof sdk_reflection_methods / sizeof *sdk_reflection_methods;
