/*
 * Bindings: dapr.proto.components.v1.InputBinding and OutputBinding from one ops table. A component is one instance, whichever of
 * the two services its Init came through; the last one counts. Reading is in binding_read.c. Jobs as in state.c.
 *
 * A failed invoke may carry metadata for the caller: the contract's reply has no room for it, so it goes as the details of the
 * status: one ErrorInfo, reason BINDING_RESPONSE, domain microdapr.
 */
#include <errno.h>
#include <string.h>

#include "dapr/proto/components/v1/bindings.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "sdk/plugin/binding.h"
#include "sdk/plugin/state_codec.h"

typedef Dapr__Proto__Components__V1__InvokeResponse response_t;
typedef Dapr__Proto__Components__V1__InvokeResponse__MetadataEntry response_entry;
typedef Google__Rpc__ErrorInfo__MetadataEntry info_entry;

enum { DETAILS_MAX = 5000 }; /* they travel as headers: what does not fit is left out */

struct job {
        struct dapr_call *dc;
        const struct dapr_binding_ops *ops;
        struct dapr_invoke in;
        struct dapr_invoke_result out;
};

unsigned sdk_binding_features(const struct dapr_binding_ops *ops)
{
        return (ops->read ? SDK_FEATURE_INPUT_BINDING : 0) | (ops->invoke ? SDK_FEATURE_OUTPUT_BINDING : 0);
}

/* ---- output ---- */

static int job_invoke(void *arg)
{
        struct job *j = arg;
        return j->ops->invoke(j->dc, j->dc->inst->obj, &j->in, &j->out);
}

static int fail_with_metadata(struct dapr_call *dc, int r, struct dapr_kvs md)
{
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        Google__Rpc__Status st = GOOGLE__RPC__STATUS__INIT;
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT, *list = &any;
        struct str packed;
        size_t bytes = 0;
        info.reason = "BINDING_RESPONSE";
        info.domain = "microdapr";
        info.metadata = arena_alloc(dc->arena, md.n * sizeof *info.metadata);
        for (size_t i = 0; info.metadata && i < md.n; i++) {
                info_entry *e = arena_new(dc->arena, info_entry);
                bytes += strlen(md.v[i].key) + strlen(md.v[i].value) + 8;
                if (!e || bytes > DETAILS_MAX)
                        break;
                google__rpc__error_info__metadata_entry__init(e);
                e->key = md.v[i].key;
                e->value = md.v[i].value;
                info.metadata[info.n_metadata++] = e;
        }
        packed = pb_pack(dc->arena, &info.base);
        any.type_url = "type.googleapis.com/google.rpc.ErrorInfo";
        any.value = pb_bytes(packed);
        st.code = sdk_code(r);
        st.message = sdk_text(dc, r);
        st.details = &list;
        st.n_details = packed.p != NULL;
        dc->rt->errors++;
        return rpc_fail_details(dc->rpc, st.code, str_of(st.message), pb_pack(dc->arena, &st.base));
}

static int reply(struct dapr_call *dc, const struct dapr_invoke_result *from)
{
        response_t out = DAPR__PROTO__COMPONENTS__V1__INVOKE_RESPONSE__INIT;
        out.data = pb_bytes(str_n(from->data.p, from->data.p ? from->data.n : 0));
        out.content_type = from->content_type ? from->content_type : "";
        /* an empty answer is not the same as none */
        if (from->data.p && from->data.n == 0 && !from->metadata.n && !*out.content_type)
                out.content_type = "application/octet-stream";
        out.metadata = arena_alloc(dc->arena, from->metadata.n * sizeof *out.metadata);
        for (; out.metadata && out.n_metadata < from->metadata.n; out.n_metadata++) {
                response_entry *e = arena_new(dc->arena, response_entry);
                if (!e)
                        return sdk_outcome(dc, -ENOMEM);
                dapr__proto__components__v1__invoke_response__metadata_entry__init(e);
                e->key = from->metadata.v[out.n_metadata].key;
                e->value = from->metadata.v[out.n_metadata].value;
                out.metadata[out.n_metadata] = e;
        }
        return out.metadata ? sdk_reply_pb(dc, &out.base) : sdk_outcome(dc, -ENOMEM);
}

static bool has_operation(const struct dapr_binding_ops *ops, const char *name)
{
        for (const char *const *o = ops->operations; o && *o; o++)
                if (strcmp(*o, name) == 0)
                        return true;
        return false;
}

static int output_invoke(struct dapr_call *dc, struct str req)
{
        struct job j = {.dc = dc, .ops = dc->inst->type->binding};
        const Dapr__Proto__Components__V1__InvokeRequest *in =
                pb_unpack_borrow(dc->arena, &dapr__proto__components__v1__invoke_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        if (!j.ops->invoke)
                return sdk_outcome(dc, dapr_fail(dc, DAPR_UNIMPLEMENTED, "%s is no output binding", dc->inst->type->type));
        if (!has_operation(j.ops, in->operation))
                return sdk_outcome(dc, dapr_fail(dc, DAPR_INVALID_ARGUMENT, "the binding has no operation '%s'", in->operation));
        j.in.operation = in->operation;
        j.in.data = (struct dapr_bytes){in->data.data ? (const void *)in->data.data : "", in->data.len};
        int r = state_read_map(dc, req, 2, &j.in.metadata);
        if (r == 0)
                r = sdk_run(dc, j.ops->mode, job_invoke, &j);
        if (r && j.out.metadata.n)
                return fail_with_metadata(dc, r, j.out.metadata);
        return r ? sdk_outcome(dc, r) : reply(dc, &j.out);
}

static int output_operations(struct dapr_call *dc, struct str req)
{
        Dapr__Proto__Components__V1__ListOperationsResponse out = DAPR__PROTO__COMPONENTS__V1__LIST_OPERATIONS_RESPONSE__INIT;
        const struct dapr_component_type *t = sdk_call_type(dc, SDK_BINDING);
        const char *const *list = t ? t->binding->operations : NULL;
        size_t n = 0;
        while (list && list[n])
                n++;
        out.operations = (const char **)list;
        out.n_operations = n;
        return sdk_reply_pb(dc, &out.base);
}

/* ---- both ---- */

static int binding_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* {Input,Output}BindingInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_BINDING, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int binding_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define INPUT "/dapr.proto.components.v1.InputBinding/"
#define OUTPUT "/dapr.proto.components.v1.OutputBinding/"
static const struct sdk_method methods[] = {
        {INPUT "Init", SDK_BINDING, binding_init, .feature = SDK_FEATURE_INPUT_BINDING, .any_instance = true},
        {INPUT "Ping", SDK_BINDING, binding_ping, true, .feature = SDK_FEATURE_INPUT_BINDING, .any_instance = true},
        {INPUT "Read", SDK_BINDING, sdk_binding_read, .feature = SDK_FEATURE_INPUT_BINDING, .stream = true},
        {OUTPUT "Init", SDK_BINDING, binding_init, .feature = SDK_FEATURE_OUTPUT_BINDING, .any_instance = true},
        {OUTPUT "Ping", SDK_BINDING, binding_ping, true, .feature = SDK_FEATURE_OUTPUT_BINDING, .any_instance = true},
        {OUTPUT "ListOperations", SDK_BINDING, output_operations, true, .feature = SDK_FEATURE_OUTPUT_BINDING, .any_instance = true},
        {OUTPUT "Invoke", SDK_BINDING, output_invoke, .feature = SDK_FEATURE_OUTPUT_BINDING},
};
const struct sdk_service sdk_binding_service = {methods, sizeof methods / sizeof *methods};
