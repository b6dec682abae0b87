/*
 * One event to the app. HTTP: POST to the route, 200 to 299 takes it, the body goes back to the component. gRPC: OnBindingEvent, whose
 * reply may save state (in the background: a failure is logged) and call output bindings (one after the other, or all at once in the
 * background); neither makes the event fail.
 */
#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "dapr/proto/runtime/v1/appcallback.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/observe/trace.h"
#include "kernel/blocks/bindings.h"
#include "kernel/blocks/state_json.h"
#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define CALLBACK "/dapr.proto.runtime.v1.AppCallback/"
#define UNHEALTHY "error invoking app: rpc error: code = Internal desc = app is not in a healthy state"

enum { ASK_TIMEOUT_S = 3 };

typedef Dapr__Proto__Runtime__V1__BindingEventResponse event_response;
typedef Dapr__Proto__Runtime__V1__BindingEventRequest event_request;
typedef Dapr__Proto__Runtime__V1__BindingEventRequest__MetadataEntry event_entry;

/* ---- what a reply sets off ---- */

struct save_job {
        struct kernel *k;
        struct arena arena;
        const Dapr__Proto__Runtime__V1__SaveStateRequest *request;
};

static void save_fiber(void *arg)
{
        struct save_job *j = arg;
        struct call c = {.k = j->k, .arena = &j->arena, .door = DOOR_GRPC, .operation = "OnBindingEvent"};

        for (size_t i = 0; i < state_block_def.n_grpc; i++) {
                const struct grpc_route *route = &state_block_def.grpc[i];
                void *out;
                if (strcmp(route->method, "SaveState") != 0)
                        continue;
                out = pb_new(&j->arena, route->out);
                if (!out || route->fn(&c, &j->request->base, out))
                        log_error(BINDINGS_SCOPE, "error saving state from app response: %.*s", STR_FMT(c.message));
        }
        arena_fini(&j->arena);
        free(j);
}

static void save_state(struct bindings *b, const event_response *resp)
{
        Dapr__Proto__Runtime__V1__SaveStateRequest m = DAPR__PROTO__RUNTIME__V1__SAVE_STATE_REQUEST__INIT;
        struct save_job *j;

        if (!resp->n_states || !kernel_component(b->k, KIND_STATE, str_of(resp->store_name)) || !(j = calloc(1, sizeof *j)))
                return;
        arena_init(&j->arena, 0);
        j->k = b->k;
        m.store_name = resp->store_name;
        m.states = resp->states;
        m.n_states = resp->n_states;
        /* its own copy: the event is over before this is */
        j->request = pb_unpack(&j->arena, m.base.descriptor, pb_pack(&j->arena, &m.base));
        if (j->request && fiber_go(&b->work, "binding-state", save_fiber, j) == 0)
                return;
        arena_fini(&j->arena);
        free(j);
}

struct send_job {
        struct kernel *k;
        struct arena arena;
        struct str to, data;
};

static void send_fiber(void *arg)
{
        struct send_job *j = arg;
        struct rpc_mdlist none = {0};
        struct binding_result out;

        if (bindings_invoke(j->k, &j->arena, j->to, STR("create"), j->data, &none, &out))
                log_error(BINDINGS_SCOPE, "%s", out.error);
        arena_fini(&j->arena);
        free(j);
}

static void send_in_background(struct bindings *b, const char *to, struct str data)
{
        struct send_job *j = calloc(1, sizeof *j);

        if (!j)
                return;
        arena_init(&j->arena, 0);
        j->k = b->k;
        j->to = arena_str(&j->arena, str_of(to));
        j->data = arena_str(&j->arena, data);
        if (j->to.p && j->data.p && fiber_go(&b->work, "binding-to", send_fiber, j) == 0)
                return;
        arena_fini(&j->arena);
        free(j);
}

static void call_bindings(struct bindings *b, struct arena *a, const event_response *resp)
{
        struct str data = pb_str(resp->data);
        struct rpc_mdlist none = {0};
        struct binding_result out;

        data = json_valid(data) ? json_escape_html(a, state_json_compact(a, data)) : STR("null");
        for (size_t i = 0; i < resp->n_to; i++) {
                if (resp->concurrency == DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_RESPONSE__BINDING_EVENT_CONCURRENCY__PARALLEL) {
                        send_in_background(b, resp->to[i], data);
                } else if (bindings_invoke(b->k, a, str_of(resp->to[i]), STR("create"), data, &none, &out)) {
                        log_error(BINDINGS_SCOPE, "error executing app response: %s", out.error);
                        return;
                }
        }
}

/* ---- gRPC ---- */

struct grpc_try {
        struct bindings *b;
        struct arena *a;
        const event_request *req;
        event_response *resp;
        struct rpc_status st;
        int code;
};

static int send_grpc(void *arg, struct policy_try *t)
{
        struct grpc_try *x = arg;

        return x->code = app_grpc(x->b->k->app, x->a, CALLBACK "OnBindingEvent", &x->req->base,
                                  &dapr__proto__runtime__v1__binding_event_response__descriptor, &x->resp, NULL, 0, &x->st);
}

static int to_grpc(struct bindings *b, struct binding_event *e, struct str *ret_reply, const char **ret_err)
{
        event_request req = DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_REQUEST__INIT;
        struct grpc_try x = {.b = b, .a = e->arena, .req = &req};
        struct policy policy;
        enum policy_result r;
        const event_response *resp;
        double began = loop_now_exact();

        req.name = e->binding->name;
        req.data = pb_bytes(e->data);
        req.metadata = arena_alloc(e->arena, e->md.n * sizeof *req.metadata);
        for (; req.metadata && req.n_metadata < e->md.n; req.n_metadata++) {
                event_entry *entry = arena_new(e->arena, event_entry);
                if (!entry)
                        break;
                dapr__proto__runtime__v1__binding_event_request__metadata_entry__init(entry);
                entry->key = arena_strdup(e->arena, e->md.v[req.n_metadata].key);
                entry->value = arena_strdup(e->arena, e->md.v[req.n_metadata].value);
                req.metadata[req.n_metadata] = entry;
        }
        resiliency_component(b->k, str_of(e->binding->name), KIND_BINDING, POLICY_INBOUND, &policy);
        r = policy_run(&policy, send_grpc, &x);
        resp = x.resp;
        if (r == POLICY_TIMEOUT)
                x.code = RPC_DEADLINE_EXCEEDED;
        else if (r != POLICY_OK && r != POLICY_FAILED)
                x.code = r == POLICY_CANCELED ? RPC_CANCELLED : RPC_UNKNOWN;
        observe_grpc_server(b->k->observe, CALLBACK "OnBindingEvent", x.code, true, e->data.n, x.code ? 0 : resp->data.len,
                            (loop_now_exact() - began) * 1e3);
        if (r == POLICY_FAILED) {
                *ret_err = arena_printf(e->arena, "error invoking app: rpc error: code = %s desc = %.*s", rpc_code_name(x.code),
                                        STR_FMT(x.st.message));
                return -1;
        }
        if (r != POLICY_OK) {
                *ret_err = arena_printf(e->arena, "error invoking app: %s", policy_result_text(r));
                return -1;
        }
        if (resp->data.len)
                *ret_reply = pb_str(resp->data);
        save_state(b, resp);
        call_bindings(b, e->arena, resp);
        return 0;
}

/* ---- HTTP ---- */

/* Metadata that is the connection's or the body's own does not become a header. */
static bool is_kept_back(struct str key)
{
        static const char *const names[] = {"content-type",     "content-length",    "connection",          "keep-alive", "te",
                                            "transfer-encoding", "upgrade",           "trailer",             "trailers",   "proxy-connection",
                                            "proxy-authenticate", "proxy-authorization", "destination-app-id", "host",       "grpc-trace-bin"};

        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (str_ieq(key, str_of(names[i])))
                        return true;
        return str_has_suffix(key, STR("-bin"));
}

static bool is_header_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", s.p[i]))
                        return false;
        return s.n > 0;
}

static bool is_header_value(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f)
                        return false;
        return true;
}

static struct http_header *headers_of(const struct binding_event *e, size_t *ret_n)
{
        struct http_header *h = arena_alloc(e->arena, (e->md.n + 1) * sizeof *h);
        size_t n = 0;

        for (size_t i = 0; h && i < e->md.n; i++) {
                struct rpc_md *m = &e->md.v[i];
                if (is_kept_back(m->key) || !is_header_name(m->key) || !is_header_value(m->value))
                        continue;
                h[n++] = (struct http_header){str_has_prefix(m->key, STR("grpc-"))
                                                      ? str_of(arena_printf(e->arena, "dapr-%.*s", STR_FMT(m->key)))
                                                      : m->key,
                                              m->value};
        }
        *ret_n = n;
        return h;
}

static struct str path_of(struct arena *a, const char *route)
{
        const char *path = route[0] == '/' ? route : arena_printf(a, "/%s", route);

        return str_of(path ? path : "/");
}

struct http_try {
        struct bindings *b;
        struct arena *a;
        const struct app_request *req;
        struct app_response resp;
        int r;
};

/* Any status but 200 is tried again where a policy says so, though 2xx takes the event at last. */
static int send_http(void *arg, struct policy_try *t)
{
        struct http_try *x = arg;

        x->r = app_http(x->b->k->app, x->a, x->req, &x->resp);
        if (!x->r && x->resp.status != 200)
                t->code = x->resp.status;
        return x->r || t->code;
}

static int to_http(struct bindings *b, struct binding_event *e, struct str *ret_reply, const char **ret_err)
{
        struct app_request req = {.method = STR("POST"),
                                  .path = path_of(e->arena, e->binding->route),
                                  .content_type = STR("application/json"),
                                  .body = e->data};
        struct http_try x = {.b = b, .a = e->arena, .req = &req};
        struct policy policy;
        enum policy_result r;
        bool has_retry;

        req.headers = headers_of(e, &req.n_headers);
        if (!req.headers)
                return -1;
        resiliency_component(b->k, str_of(e->binding->name), KIND_BINDING, POLICY_INBOUND, &policy);
        has_retry = policy.retry;
        r = policy_run(&policy, send_http, &x);
        if (r != POLICY_OK && (r != POLICY_FAILED || x.r || has_retry)) {
                *ret_err = arena_printf(e->arena, "error invoking app: %s",
                                        r != POLICY_FAILED ? policy_result_text(r)
                                        : x.r              ? app_http_error(b->k->app, e->arena, &req, x.r)
                                                           : "response object is nil");
                return -1;
        }
        if (x.resp.status < 200 || x.resp.status > 299) {
                *ret_err = arena_printf(e->arena, "fails to send binding event to http app channel, status code: %d body: %.*s",
                                        x.resp.status, STR_FMT(x.resp.body));
                return -1;
        }
        *ret_reply = x.resp.body;
        return 0;
}

static void end_trace(struct trace *t, struct binding_event *e, bool is_grpc, const char *err)
{
        if (trace_is_recorded(t)) {
                trace_attr(t, "db.name", str_of(e->binding->name));
                trace_attr(t, "rpc.service", STR("Dapr"));
                trace_attr(t, "db.system", STR("bindings"));
                trace_attr(t, "db.connection_string", is_grpc ? STR(CALLBACK "OnBindingEvent")
                                                              : str_of(arena_printf(e->arena, "POST /%s", e->binding->name)));
                trace_status_grpc(t, err ? RPC_UNKNOWN : RPC_OK, str_of(err));
        }
        trace_end(t);
}

int bindings_to_app(struct bindings *b, struct binding_event *e, struct str *ret_reply, const char **ret_err)
{
        struct trace t;
        const char *name;
        bool is_grpc = app_is_grpc(b->k->app);
        int r;

        *ret_reply = STR_NULL;
        if (!is_grpc && !app_takes_calls(b->k->app)) {
                *ret_err = UNHEALTHY;
                return -1;
        }
        name = arena_printf(e->arena, "bindings/%s", e->binding->name);
        trace_begin_metadata(&t, b->k->tracer, &e->md, str_of(name));
        trace_install(&t);
        r = is_grpc ? to_grpc(b, e, ret_reply, ret_err) : to_http(b, e, ret_reply, ret_err);
        trace_install(NULL);
        if (r && !*ret_err)
                *ret_err = "out of memory";
        end_trace(&t, e, is_grpc, r ? *ret_err : NULL);
        return r;
}

/* ---- what the app wants ---- */

static void ask_list(struct bindings *b, struct arena *a)
{
        Google__Protobuf__Empty req = GOOGLE__PROTOBUF__EMPTY__INIT;
        Dapr__Proto__Runtime__V1__ListInputBindingsResponse *resp;
        struct rpc_status st = {0};

        /* an app that does not answer wants none: as in the reference it is not asked again */
        b->listed = true;
        if (app_grpc(b->k->app, a, CALLBACK "ListInputBindings", &req.base,
                     &dapr__proto__runtime__v1__list_input_bindings_response__descriptor, &resp, NULL, 0, &st))
                return;
        for (size_t i = 0; i < resp->n_bindings; i++)
                map_set(&b->subscribed, str_of(resp->bindings[i]), b);
}

int bindings_app_wants(struct bindings *b, const struct binding *x, struct arena *a, const char **ret_err)
{
        struct app_request req = {.method = STR("OPTIONS"), .content_type = STR("application/json"), .path = path_of(a, x->route)};
        struct app_response resp = {0};
        double old;
        int r;

        if (x->wants_input)
                return 1;
        old = fiber_set_deadline(loop_now_exact() + ASK_TIMEOUT_S);
        if (app_is_grpc(b->k->app)) {
                if (!b->listed)
                        ask_list(b, a);
                fiber_restore_deadline(old);
                return map_get(&b->subscribed, str_of(x->name)) != NULL;
        }
        r = app_http(b->k->app, a, &req, &resp);
        fiber_restore_deadline(old);
        if (r == 0)
                return resp.status / 100 == 2 || resp.status == 405;
        *ret_err = arena_printf(a, "could not invoke OPTIONS method on input binding subscription endpoint \"%s\": %s", x->route,
                                app_http_error(b->k->app, a, &req, r));
        return -1;
}
