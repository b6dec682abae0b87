/*
 * gRPC server reflection, v1 and v1alpha: the two differ in the package's name only, so one handler serves both.
 * Listed are the services registered with the server; descriptors come from proto/registry.h as they were compiled. A file is
 * sent with everything it imports, but each file only once on a stream.
 * A program that names rpc_reflection links all descriptors; others do not pay for them.
 */
#include <errno.h>
#include <stdlib.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "proto/registry.h"
#include "sdk/net/rpc_call.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;
typedef Grpc__Reflection__V1__FileDescriptorResponse Files;
typedef Grpc__Reflection__V1__ListServiceResponse Services;
typedef Grpc__Reflection__V1__ServiceResponse Service;
typedef Grpc__Reflection__V1__ErrorResponse Error;

static int set_error(struct arena *a, Response *r, int code, const char *text)
{
        Error *e = arena_new(a, Error);
        if (!e)
                return -ENOMEM;
        grpc__reflection__v1__error_response__init(e);
        e->error_code = code;
        e->error_message = text;
        r->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
        r->error_response = e;
        return 0;
}

/* file and all its imports that are not in `sent` yet. */
static int set_files(struct arena *a, Response *r, const struct pb_file *file, bool *sent)
{
        if (!file)
                return set_error(a, r, RPC_NOT_FOUND, "not found");
        size_t last = (size_t)(file - pb_files);
        Files *f = arena_new(a, Files);
        bool *want = arena_zalloc(a, last + 1);
        ProtobufCBinaryData *v = arena_alloc(a, (last + 1) * sizeof(*v));
        if (!f || !want || !v)
                return -ENOMEM;
        grpc__reflection__v1__file_descriptor_response__init(f);
        f->file_descriptor_proto = v;
        want[last] = true;
        sent[last] = false; /* what was asked for comes again */
        for (size_t i = last + 1; i-- > 0;) {
                if (!want[i])
                        continue;
                if (!sent[i])
                        v[f->n_file_descriptor_proto++] = pb_bytes(str_n(pb_files[i].bytes, pb_files[i].bytes_n));
                sent[i] = true;
                for (size_t k = 0; k < pb_files[i].deps_n; k++)
                        want[pb_files[i].deps[k]] = true;
        }
        r->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
        r->file_descriptor_response = f;
        return 0;
}

static int by_name(const void *a, const void *b)
{
        return strcmp((*(Service *const *)a)->name, (*(Service *const *)b)->name);
}

static int set_services(struct arena *a, Response *r, const struct rpc_server *sv)
{
        Services *l = arena_new(a, Services);
        size_t n = 0;
        void *it = NULL;
        if (!l)
                return -ENOMEM;
        grpc__reflection__v1__list_service_response__init(l);
        while (rpc_server_next_service(sv, &it).p)
                n++;
        l->service = arena_alloc(a, n * sizeof(*l->service));
        if (!l->service)
                return -ENOMEM;
        for (struct str name; l->n_service < n && (name = rpc_server_next_service(sv, &it)).p;) {
                Service *s = arena_new(a, Service);
                if (!s)
                        return -ENOMEM;
                grpc__reflection__v1__service_response__init(s);
                s->name = arena_strdup(a, name);
                if (!s->name)
                        return -ENOMEM;
                l->service[l->n_service++] = s;
        }
        qsort(l->service, l->n_service, sizeof(*l->service), by_name);
        r->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
        r->list_services_response = l;
        return 0;
}

/* No file of ours declares an extension, so the registry knows none. */
static int answer(struct rpc_call *c, const Request *q, Response *r, bool *sent)
{
        struct arena *a = rpc_msg_arena(c);
        switch (q->message_request_case) {
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
                return set_files(a, r, pb_file_find(str_of(q->file_by_filename)), sent);
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
                return set_files(a, r, pb_file_of_symbol(str_of(q->file_containing_symbol)), sent);
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
                return set_services(a, r, rpc_call_server(c));
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
                return set_error(a, r, RPC_NOT_FOUND, "not found");
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
        case _GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__CASE_IS_INT_SIZE:
                break;
        }
        return rpc_fail(c, RPC_INVALID_ARGUMENT, "invalid MessageRequest: <nil>");
}

static int reflect(struct rpc_call *c, void *arg)
{
        Request *q;
        bool *sent = arena_zalloc(c->arena, pb_files_n + 1);
        int r;
        if (!sent)
                return -ENOMEM;
        c->flags |= RPC_REUSE;
        while ((r = rpc_recv_pb(c, &grpc__reflection__v1__server_reflection_request__descriptor, &q)) > 0) {
                Response resp = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
                resp.valid_host = q->host;
                resp.original_request = q;
                r = answer(c, q, &resp, sent);
                if (!r && !c->status.code)
                        r = rpc_send_pb(c, &resp.base);
                if (r || c->status.code)
                        return r;
        }
        return r;
}

static const struct rpc_method rows[] = {
        {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", reflect},
        {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflect},
};

int rpc_reflection(struct rpc_server *sv)
{
        return rpc_server_add(sv, rows, sizeof(rows) / sizeof(rows[0]));
}
