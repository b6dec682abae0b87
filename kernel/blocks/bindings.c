/*
 * The bindings building block: its components, and output bindings. An operation that the component did not name at its start never
 * reaches it. Data that came over HTTP is JSON and goes to the component as the reference would write it again: without white
 * space, <, > and & escaped; values are not decoded.
 */
#include "kernel/blocks/bindings.h"

#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/bindings.pb-c.h"
#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "kernel/observe/trace.h"
#include "kernel/blocks/state_json.h"
#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define OUTPUT "/dapr.proto.components.v1.OutputBinding/"
#define INPUT_SERVICE "dapr.proto.components.v1.InputBinding"
#define OUTPUT_SERVICE "dapr.proto.components.v1.OutputBinding"

typedef Dapr__Proto__Components__V1__InvokeRequest out_request;
typedef Dapr__Proto__Components__V1__InvokeRequest__MetadataEntry out_entry;
typedef Dapr__Proto__Components__V1__InvokeResponse out_response;
typedef Dapr__Proto__Runtime__V1__InvokeBindingRequest api_request;
typedef Dapr__Proto__Runtime__V1__InvokeBindingResponse api_response;
typedef Dapr__Proto__Runtime__V1__InvokeBindingResponse__MetadataEntry api_entry;

/* ---- components ---- */

static struct bindings *block_of(struct kernel *k)
{
        struct bindings *b = k->bindings;

        if (b || !(b = calloc(1, sizeof *b)))
                return b;
        b->k = k;
        fmutex_init(&b->changing);
        scope_init(&b->work);
        return k->bindings = b;
}

static const char *component_text(const struct component *c, struct arena *a, const struct rpc_status *st)
{
        const char *text = component_is_foreign(c) && !st->transport
                                   ? arena_printf(a, "rpc error: code = %s desc = %.*s", rpc_code_name(st->code), STR_FMT(st->message))
                                   : arena_strdup(a, st->message);

        return text ? text : "out of memory";
}

struct component *binding_component(const struct kernel *k, const struct binding *x)
{
        return kernel_component((struct kernel *)k, KIND_BINDING, str_of(x->name));
}

static int ask_operations(struct binding *x, struct component *c, struct arena *a, const char **ret_err)
{
        Dapr__Proto__Components__V1__ListOperationsRequest req = DAPR__PROTO__COMPONENTS__V1__LIST_OPERATIONS_REQUEST__INIT;
        Dapr__Proto__Components__V1__ListOperationsResponse *resp;
        struct rpc_status st = {0};

        if (component_call(c, &x->arena, OUTPUT "ListOperations", &req.base,
                           &dapr__proto__components__v1__list_operations_response__descriptor, &resp, &st)) {
                *ret_err = component_text(c, a, &st);
                return -1;
        }
        x->operations = resp->operations;
        x->n_operations = resp->n_operations;
        return 0;
}

/* As written: the route's name is one of the few that count with their case. */
static const char *route_of(const struct component_spec *spec)
{
        for (size_t i = 0; i < spec->n_metadata; i++)
                if (spec->metadata[i].name && strcmp(spec->metadata[i].name, "route") == 0)
                        return spec->metadata[i].value && *spec->metadata[i].value ? spec->metadata[i].value : spec->name;
        return spec->name;
}

static void binding_free(struct binding *x)
{
        while (x) {
                struct binding *older = x->retired;
                arena_fini(&x->arena);
                free(x);
                x = older;
        }
}

static int on_component(struct kernel *k, struct component *c, struct arena *a, const char **ret_err)
{
        const struct component_spec *spec = component_spec_of(c);
        struct bindings *b;
        struct binding *x;

        if (component_kind_of(c) != KIND_BINDING)
                return 0;
        *ret_err = "out of memory";
        if (!(b = block_of(k)) || !(x = calloc(1, sizeof *x)))
                return -1;
        arena_init(&x->arena, 0);
        x->foreign = component_is_foreign(c);
        x->name = arena_strdup(&x->arena, str_of(spec->name));
        x->route = arena_strdup(&x->arena, str_of(route_of(spec)));
        x->input = component_serves(c, INPUT_SERVICE);
        x->output = component_serves(c, OUTPUT_SERVICE);
        x->wants_input = component_explicit_directions(spec) & FEATURE_INPUT_BINDING;
        if (!x->name || !x->route || (x->output && ask_operations(x, c, a, ret_err))) {
                binding_free(x);
                return -1;
        }
        x->retired = map_get(&b->map, str_of(x->name));
        if (map_set(&b->map, str_of(x->name), x)) {
                x->retired = NULL;
                binding_free(x);
                return -1;
        }
        if (x->input)
                log_info(BINDINGS_SCOPE, "successful init for input binding (%s)", component_log_name((struct component_spec *)spec));
        if (x->output)
                log_info(BINDINGS_SCOPE, "successful init for output binding (%s)", component_log_name((struct component_spec *)spec));
        return 0;
}

static struct binding *of_component(struct kernel *k, const struct component *c)
{
        return k->bindings && component_kind_of(c) == KIND_BINDING ? map_get(&k->bindings->map, str_of(component_name(c))) : NULL;
}

static void arrived(struct kernel *k, struct component *c)
{
        struct binding *x = of_component(k, c);

        if (x)
                bindings_input_arrived(k->bindings, x);
}

static void moving(struct kernel *k, struct component *c, struct component *to)
{
        struct binding *x = of_component(k, c);

        if (x)
                bindings_input_moving(k->bindings, x, to);
}

static void moved(struct kernel *k, struct component *c)
{
        struct binding *x = of_component(k, c);

        if (x)
                bindings_input_moved(k->bindings, x);
}

static void leaving(struct kernel *k, struct component *c)
{
        struct binding *x = of_component(k, c);

        if (x)
                bindings_input_left(k->bindings, x);
}

static int init(struct kernel *k)
{
        return block_of(k) ? bindings_input_init(k) : -ENOMEM;
}

static void fini(struct kernel *k)
{
        struct bindings *b = k->bindings;

        if (!b)
                return;
        scope_cancel(&b->work);
        scope_join(&b->work);
        for (struct map_entry *e = NULL; (e = map_next(&b->map, e));)
                binding_free(e->value);
        map_fini(&b->map);
        map_fini(&b->subscribed);
        free(b);
        k->bindings = NULL;
}

/* ---- output ---- */

static const char *operations_text(const struct binding *x, struct arena *a)
{
        struct buf b = {0};
        const char *text;

        for (size_t i = 0; i < x->n_operations; i++)
                buf_printf(&b, "%s%s", i ? " " : "", x->operations[i]);
        text = arena_strdup(a, buf_str(&b));
        buf_fini(&b);
        return text ? text : "";
}

static bool has_operation(const struct binding *x, struct str operation)
{
        for (size_t i = 0; i < x->n_operations; i++)
                if (str_eqz(operation, x->operations[i]))
                        return true;
        return false;
}

/* Our plugins may send metadata along with a failure (sdk/plugin/binding.c). */
static void read_failure_metadata(struct arena *a, const struct rpc_status *st, struct rpc_mdlist *md)
{
        const Google__Rpc__Status *s = st->details.n ? pb_unpack(a, &google__rpc__status__descriptor, st->details) : NULL;
        const Google__Rpc__ErrorInfo *info;

        if (!s || s->n_details != 1 || !str_has_suffix(str_of(s->details[0]->type_url), STR("google.rpc.ErrorInfo")))
                return;
        info = pb_unpack(a, &google__rpc__error_info__descriptor, pb_str(s->details[0]->value));
        if (!info || strcmp(info->reason, "BINDING_RESPONSE") != 0 || strcmp(info->domain, "microdapr") != 0)
                return;
        for (size_t i = 0; i < info->n_metadata; i++)
                rpc_md_add(md, a, str_of(info->metadata[i]->key), str_of(info->metadata[i]->value));
}

static int pack_request(struct arena *a, struct str operation, struct str data, const struct rpc_mdlist *md, struct str *ret)
{
        out_request req = DAPR__PROTO__COMPONENTS__V1__INVOKE_REQUEST__INIT;

        req.data = pb_bytes(data);
        req.operation = arena_strdup(a, operation);
        req.metadata = arena_alloc(a, md->n * sizeof *req.metadata);
        for (; req.metadata && req.n_metadata < md->n; req.n_metadata++) {
                out_entry *e = arena_new(a, out_entry);
                if (!e)
                        return -ENOMEM;
                dapr__proto__components__v1__invoke_request__metadata_entry__init(e);
                e->key = arena_strdup(a, md->v[req.n_metadata].key);
                e->value = arena_strdup(a, md->v[req.n_metadata].value);
                if (!e->key || !e->value)
                        return -ENOMEM;
                req.metadata[req.n_metadata] = e;
        }
        if (!req.operation || !req.metadata)
                return -ENOMEM;
        *ret = pb_pack(a, &req.base);
        return ret->p ? 0 : -ENOMEM;
}

static int invoke_once(struct kernel *k, struct binding *x, struct arena *a, struct str request, struct binding_result *out)
{
        struct component *c = binding_component(k, x);
        struct rpc_status st = {0};
        struct str bytes;
        const out_response *resp;
        int code;

        *out = (struct binding_result){0};
        if (!c) {
                out->error = arena_printf(a, "couldn't find output binding %s", x->name);
                return -1;
        }
        code = component_call_bytes(c, a, OUTPUT "Invoke", request, &bytes, &st);
        if (code) {
                out->error = component_text(c, a, &st);
                if (!component_is_foreign(c))
                        read_failure_metadata(a, &st, &out->md);
                return -1;
        }
        resp = pb_unpack_borrow(a, &dapr__proto__components__v1__invoke_response__descriptor, bytes);
        if (!resp) {
                out->error = "the component's answer is not a valid message";
                return -1;
        }
        out->empty = bytes.n == 0 && !component_is_foreign(c);
        out->data = pb_str(resp->data);
        for (size_t i = 0; i < resp->n_metadata; i++)
                rpc_md_add(&out->md, a, str_of(resp->metadata[i]->key), str_of(resp->metadata[i]->value));
        return 0;
}

struct invocation {
        struct kernel *k;
        struct binding *x;
        struct arena *a;
        struct str request;
        struct binding_result *out;
};

static int invoke_try(void *arg, struct policy_try *t)
{
        struct invocation *v = arg;

        return invoke_once(v->k, v->x, v->a, v->request, v->out);
}

static int invoke_by_policy(struct kernel *k, struct binding *x, struct arena *a, struct str request, struct binding_result *out)
{
        struct invocation v = {k, x, a, request, out};
        struct policy policy;
        enum policy_result r;

        resiliency_component(k, str_of(x->name), KIND_BINDING, POLICY_OUTBOUND, &policy);
        r = policy_run(&policy, invoke_try, &v);
        if (r != POLICY_OK && r != POLICY_FAILED)
                *out = (struct binding_result){.error = policy_result_text(r)};
        return r == POLICY_OK ? 0 : -1;
}

int bindings_invoke(struct kernel *k, struct arena *a, struct str name, struct str operation, struct str data,
                    const struct rpc_mdlist *md, struct binding_result *out)
{
        struct binding *x = k->bindings ? map_get(&k->bindings->map, name) : NULL;
        struct str request;

        *out = (struct binding_result){0};
        if (!operation.n)
                out->error = "operation field is missing from request";
        else if (!x || !x->output || !binding_component(k, x))
                out->error = arena_printf(a, "couldn't find output binding %.*s", STR_FMT(name));
        else if (!has_operation(x, operation))
                out->error = arena_printf(a, "binding %.*s does not support operation %.*s. supported operations:%s", STR_FMT(name),
                                          STR_FMT(operation), operations_text(x, a));
        else if (pack_request(a, operation, data, md, &request))
                out->error = "out of memory";
        else
                return invoke_by_policy(k, x, a, request, out);
        out->error = out->error ? out->error : "out of memory";
        return -1;
}

/* The same for a caller of the API, with metrics. 0, or -1 after call_fail. */
static int invoke(struct call *c, struct str name, struct str operation, struct str data, const struct rpc_mdlist *md,
                  struct binding_result *out)
{
        double since = loop_now_exact();
        const char *z = arena_strdup(c->arena, operation);
        int r = bindings_invoke(c->k, c->arena, name, operation, data, md, out);

        observe_component(c->k->observe, OBSERVE_OUTPUT_BINDING, name, z ? z : "", r == 0, (loop_now_exact() - since) * 1000);
        if (r)
                call_fail(c, ERR_INVOKE_OUTPUT_BINDING, arena_strdup(c->arena, name), out->error);
        return r;
}

/* ---- HTTP ---- */

struct http_body {
        struct str operation, data;
        struct rpc_mdlist md;
};

static const char *read_body(struct call *c, struct str body, struct http_body *to)
{
        struct state_json j;
        struct str name, raw;

        to->data = STR("null");
        state_json_begin(&j, c->arena, body);
        if (state_json_object(&j, "", "http.OutputBindingRequest"))
                while (json_next_member(&j.r, c->arena, &name)) {
                        if (str_ieq(name, STR("operation")))
                                state_json_string(&j, "OutputBindingRequest.operation", &to->operation);
                        else if (str_ieq(name, STR("metadata")))
                                state_json_map(&j, "OutputBindingRequest.metadata", &to->md);
                        else if (str_ieq(name, STR("data")) && json_read_raw(&j.r, &raw))
                                to->data = json_escape_html(c->arena, state_json_compact(c->arena, raw));
                        else if (!str_ieq(name, STR("data")))
                                json_skip(&j.r);
                }
        return state_json_error(&j);
}

/* Trace headers of the request reach the component as metadata. */
static void add_trace(struct call *c, struct rpc_mdlist *md)
{
        for (int i = 0; i < TRACE_HEADERS; i++) {
                struct str value = trace_value(c->trace, (enum trace_header)i);
                if (value.n)
                        state_metadata_set(c->arena, md, str_of(trace_header_name((enum trace_header)i)), value);
        }
}

static void http_invoke(struct call *c)
{
        struct http_body in = {{0}};
        struct binding_result out;
        const char *fault;
        struct str body;
        int r;

        if (call_body(c, &body))
                return;
        if ((fault = read_body(c, body, &in))) {
                call_fail(c, ERR_MALFORMED_REQUEST, fault);
                reply_error(c);
                return;
        }
        add_trace(c, &in.md);
        r = invoke(c, route_param(c, "name"), in.operation, in.data, &in.md, &out);
        c->md_resp = out.md;
        if (r)
                reply_error(c);
        else if (out.empty)
                reply_empty(c);
        else
                reply_json(c, 200, out.data);
}

/* ---- gRPC ---- */

static bool is_header_text(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] < ' ' || (unsigned char)s.p[i] > '~')
                        return false;
        return true;
}

/* Response metadata go out as headers as well: "metadata.<key>". */
static void add_headers(struct call *c, const struct rpc_mdlist *md)
{
        for (size_t i = 0; i < md->n; i++) {
                char *key = arena_printf(c->arena, "metadata.%.*s", STR_FMT(md->v[i].key));
                bool good = key && is_header_text(md->v[i].value);
                for (char *p = key; good && *p; p++) {
                        if (*p >= 'A' && *p <= 'Z')
                                *p = (char)(*p - 'A' + 'a');
                        good = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || strchr("-_.", *p);
                }
                if (good)
                        rpc_md_add(&c->rpc->md_out, c->arena, str_of(key), md->v[i].value);
        }
}

/* The caller's metadata reach the component: what the request names itself stands, but for the trace. */
static int request_metadata(struct call *c, const api_request *in, struct rpc_mdlist *md)
{
        const struct rpc_mdlist *given = &c->rpc->md_in;

        for (size_t i = 0; i < in->n_metadata; i++)
                state_metadata_set(c->arena, md, str_of(in->metadata[i]->key), str_of(in->metadata[i]->value));
        if (c->rpc->authority.n && !rpc_md_get(md, "dapr-authority").p)
                rpc_md_add(md, c->arena, STR("dapr-authority"), c->rpc->authority);
        for (size_t i = 0; i < given->n; i++) {
                struct str key = given->v[i].key;
                bool trace = str_eqz(key, "traceparent") || str_eqz(key, "tracestate");
                if (str_has_suffix(key, STR("-bin")) || (trace && c->trace->has_ctx))
                        continue;
                if (str_has_prefix(key, STR("grpc-")))
                        key = str_of(arena_printf(c->arena, "dapr-%.*s", STR_FMT(key)));
                if (key.p && (trace || !rpc_md_get(md, arena_strdup(c->arena, key)).p))
                        state_metadata_set(c->arena, md, key, given->v[i].value);
        }
        for (int i = 0; c->trace->has_ctx && i < TRACE_BAGGAGE; i++) {
                const char *name = trace_header_name((enum trace_header)i);
                if (c->trace->value[i].n && !rpc_md_get(md, name).p)
                        rpc_md_add(md, c->arena, str_of(name), c->trace->value[i]);
        }
        return c->arena->exhausted ? -ENOMEM : 0;
}

static int grpc_invoke(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const api_request *in = (const void *)req;
        api_response *out = (void *)resp;
        struct binding_result result;
        struct rpc_mdlist md = {0};
        int r;

        if (request_metadata(c, in, &md))
                return call_fail(c, ERR_UNTYPED, "out of memory");
        r = invoke(c, str_of(in->name), str_of(in->operation), pb_str(in->data), &md, &result);
        add_headers(c, &result.md);
        if (r) {
                if (result.md.n)
                        rpc_send_headers(c->rpc); /* before the status, not with it */
                return r;
        }
        out->data = pb_bytes(result.data);
        out->metadata = arena_alloc(c->arena, result.md.n * sizeof *out->metadata);
        for (; out->metadata && out->n_metadata < result.md.n; out->n_metadata++) {
                api_entry *e = arena_new(c->arena, api_entry);
                if (!e)
                        return call_fail(c, ERR_UNTYPED, "out of memory");
                dapr__proto__runtime__v1__invoke_binding_response__metadata_entry__init(e);
                e->key = arena_strdup(c->arena, result.md.v[out->n_metadata].key);
                e->value = arena_strdup(c->arena, result.md.v[out->n_metadata].value);
                out->metadata[out->n_metadata] = e;
        }
        return out->metadata && !c->arena->exhausted ? 0 : call_fail(c, ERR_UNTYPED, "out of memory");
}

static const struct http_route http_rows[] = {
        {"POST,PUT", "/v1.0/bindings/{name}", "bindings", "v1", "InvokeBinding", http_invoke},
};
static const struct grpc_route grpc_rows[] = {
        {"InvokeBinding", "bindings.v1", &dapr__proto__runtime__v1__invoke_binding_request__descriptor,
         &dapr__proto__runtime__v1__invoke_binding_response__descriptor, grpc_invoke, NULL},
};
const struct block bindings_block_def = {
        .name = "bindings",
        .http = http_rows,
        .n_http = sizeof http_rows / sizeof *http_rows,
        .grpc = grpc_rows,
        .n_grpc = sizeof grpc_rows / sizeof *grpc_rows,
        .component = on_component,
        .init = init,
        .arrived = arrived,
        .moving = moving,
        .moved = moved,
        .leaving = leaving,
        .quiesce = bindings_input_quiesce,
        .fini = fini,
};
