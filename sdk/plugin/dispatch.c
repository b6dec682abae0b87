/*
 * From a gRPC call to an operation: finds the instance, counts, reads the request, runs the method's function and turns what an
 * operation returned into the call's answer. Also what operations use while they run (memory, failure texts, waiting).
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <time.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/loop.h"
#include "sdk/base/work.h"
#include "sdk/plugin/runtime.h"

/* ---- outcomes ---- */

int sdk_code(int r)
{
        if (r > 0)
                return r == DAPR_ETAG_MISMATCH ? RPC_FAILED_PRECONDITION
                     : r == DAPR_ETAG_INVALID  ? RPC_INVALID_ARGUMENT
                     : r <= RPC_UNAUTHENTICATED ? r
                                                : RPC_UNKNOWN;
        switch (-r) {
        case ENOMEM: return RPC_RESOURCE_EXHAUSTED;
        case EAGAIN: return RPC_RESOURCE_EXHAUSTED;
        case ETIMEDOUT: return RPC_DEADLINE_EXCEEDED;
        case ECANCELED: return RPC_CANCELLED;
        case EINVAL: return RPC_INVALID_ARGUMENT;
        case EBADMSG: return RPC_INVALID_ARGUMENT;
        default: return RPC_INTERNAL;
        }
}

const char *sdk_text(struct dapr_call *dc, int r)
{
        if (dc->message)
                return dc->message;
        switch (r) {
        case -ENOMEM: return "the request needs more memory than one request may take";
        case -EAGAIN: return "too many operations are waiting for a worker thread";
        case -EBADMSG: return "the request is not a valid message";
        case DAPR_ETAG_MISMATCH: return "etag mismatch";
        case DAPR_ETAG_INVALID: return "invalid etag";
        default: break;
        }
        if (r > 0)
                return rpc_code_name(sdk_code(r));
        const char *name = strerrordesc_np(-r);
        return name ? name : "unknown error";
}

int sdk_outcome(struct dapr_call *dc, int r)
{
        dc->rt->errors++;
        if (r == DAPR_ETAG_MISMATCH || r == DAPR_ETAG_INVALID)
                return sdk_fail_etag(dc, r, sdk_text(dc, r));
        return rpc_fail(dc->rpc, sdk_code(r), "%s", sdk_text(dc, r));
}

int sdk_bad_request(struct dapr_call *dc)
{
        return sdk_outcome(dc, -EBADMSG);
}

int sdk_reply(struct dapr_call *dc, struct str msg)
{
        return msg.p ? rpc_send(dc->rpc, msg) : sdk_outcome(dc, -ENOMEM);
}

int sdk_reply_pb(struct dapr_call *dc, const ProtobufCMessage *m)
{
        return rpc_send_pb(dc->rpc, m);
}

struct job {
        struct dapr_call *dc;
        int (*fn)(void *);
        void *arg;
};

static int on_worker(void *arg)
{
        struct job *j = arg;
        j->dc->works_since = loop_now_exact();
        return j->fn(j->arg);
}

int sdk_run(struct dapr_call *dc, enum dapr_mode mode, int (*fn)(void *), void *arg)
{
        if (mode != DAPR_WORKER)
                return fn(arg);
        struct job job = {dc, fn, arg};
        dc->works_since = 0;
        dc->on_worker = true;
        int r = work_run(on_worker, &job);
        dc->on_worker = false;
        return r;
}

/* ---- dispatch ---- */

void sdk_work_begin(struct runtime *rt)
{
        rt->inflight++;
}

void sdk_work_end(struct runtime *rt)
{
        if (--rt->inflight == 0 && rt->draining)
                cond_broadcast(&rt->idle);
}

static int run_unary(const struct sdk_method *m, struct dapr_call *dc)
{
        struct str req;
        sdk_work_begin(dc->rt);
        sdk_call_begins(dc, m->path);
        int r = rpc_recv(dc->rpc, &req);
        r = r > 0 ? m->fn(dc, req) : r == 0 ? rpc_fail(dc->rpc, RPC_INTERNAL, "the call has no request message") : r;
        sdk_call_ends(dc);
        sdk_work_end(dc->rt);
        return r;
}

static int serve(struct rpc_call *c, void *arg)
{
        const struct sdk_method *m = arg;
        struct runtime *rt = sdk_runtime();
        struct str name = sdk_call_instance(c);
        struct dapr_call dc = {.rt = rt, .rpc = c, .arena = c->arena, .deadline = fiber_deadline()};

        rt->calls++;
        dc.inst = sdk_instance_find(rt, m->kind, name);
        if (!dc.inst && !m->any_instance) {
                rt->errors++;
                return rpc_fail(c, RPC_FAILED_PRECONDITION, "component '%.*s' was not initialised in this process", STR_FMT(name));
        }
        if (rt->draining)
                return rpc_fail(c, RPC_UNAVAILABLE, "the plugin is being stopped");
        if (rt->lifeline.lost)
                return rpc_fail(c, RPC_UNAVAILABLE, "the plugin has no runtime: attach first");
        struct instance *inst = dc.inst;
        if (inst)
                sdk_instance_ref(inst);
        int r = m->stream ? m->fn(&dc, STR("")) : run_unary(m, &dc);
        if (inst)
                sdk_instance_unref(rt, inst);
        return r;
}

static unsigned table_features(const struct dapr_plugin *p, enum sdk_kind kind, bool *ret_any)
{
        unsigned f = 0;
        for (size_t i = 0; i < p->n_types; i++)
                if (sdk_kind_of(&p->types[i]) == kind) {
                        *ret_any = true;
                        f |= sdk_features(&p->types[i]);
                }
        return f;
}

static int add_methods(struct runtime *rt, enum sdk_kind kind)
{
        const struct sdk_method *m = sdk_service_of(kind)->v;
        size_t n = sdk_service_of(kind)->n;
        bool any = false;
        unsigned features = table_features(rt->plugin, kind, &any);
        struct rpc_method *rows = any ? calloc(n + 1, sizeof *rows) : NULL; /* live as long as the process */
        size_t used = 0;
        if (!any)
                return 0;
        if (!rows)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                if (!m[i].feature || (m[i].feature & features))
                        rows[used++] = (struct rpc_method){m[i].path, serve, (void *)&m[i]};
        int r = rpc_server_add(rt->server, rows, used);
        rt->rows[rt->n_rows++] = rows;
        return r;
}

int sdk_dispatch_add(struct runtime *rt)
{
        int r = 0;
        for (int kind = 0; r == 0 && kind < SDK_KINDS; kind++)
                r = add_methods(rt, (enum sdk_kind)kind);
        return r;
}

/* ---- types and features ---- */

/* One row a kind: where its table of operations stands in a type, and what is served for it. */
static const struct {
        size_t ops;
        const struct sdk_service *service;
} kinds[SDK_KINDS] = {
        [SDK_STATE] = {offsetof(struct dapr_component_type, state), &sdk_state_service},
        [SDK_SECRETS] = {offsetof(struct dapr_component_type, secrets), &sdk_secret_service},
        [SDK_BINDING] = {offsetof(struct dapr_component_type, binding), &sdk_binding_service},
        [SDK_PUBSUB] = {offsetof(struct dapr_component_type, pubsub), &sdk_pubsub_service},
        [SDK_CRYPTO] = {offsetof(struct dapr_component_type, crypto), &sdk_crypto_service},
        [SDK_CONVERSATION] = {offsetof(struct dapr_component_type, conversation), &sdk_conversation_service},
        [SDK_LOCK] = {offsetof(struct dapr_component_type, lock), &sdk_lock_service},
        [SDK_CONFIGURATION] = {offsetof(struct dapr_component_type, configuration), &sdk_configuration_service},
        [SDK_NAMES] = {offsetof(struct dapr_component_type, names), &sdk_name_service},
        [SDK_MIDDLEWARE] = {offsetof(struct dapr_component_type, middleware), &sdk_middleware_service},
};

#define BEGINS_AS_OPS(type) \
        _Static_assert(offsetof(struct type, mode) == offsetof(struct sdk_ops, mode) && \
                               offsetof(struct type, features) == offsetof(struct sdk_ops, features) && \
                               offsetof(struct type, init) == offsetof(struct sdk_ops, init) && \
                               offsetof(struct type, close) == offsetof(struct sdk_ops, close) && \
                               offsetof(struct type, ping) == offsetof(struct sdk_ops, ping), \
                       "every table of operations begins as struct sdk_ops")
BEGINS_AS_OPS(dapr_state_ops);
BEGINS_AS_OPS(dapr_secret_ops);
BEGINS_AS_OPS(dapr_binding_ops);
BEGINS_AS_OPS(dapr_crypto_ops);
BEGINS_AS_OPS(dapr_conversation_ops);
BEGINS_AS_OPS(dapr_lock_ops);
BEGINS_AS_OPS(dapr_configuration_ops);
BEGINS_AS_OPS(dapr_pubsub_ops);
BEGINS_AS_OPS(dapr_name_ops);
BEGINS_AS_OPS(dapr_middleware_ops);

const struct sdk_service *sdk_service_of(enum sdk_kind kind)
{
        return kinds[kind].service;
}

static const struct sdk_ops *ops_at(const struct dapr_component_type *t, enum sdk_kind kind)
{
        return *(const struct sdk_ops *const *)((const char *)t + kinds[kind].ops);
}

enum sdk_kind sdk_kind_of(const struct dapr_component_type *t)
{
        for (int kind = 0; kind < SDK_KINDS; kind++)
                if (ops_at(t, (enum sdk_kind)kind))
                        return (enum sdk_kind)kind;
        return SDK_KINDS; /* a type without operations: nothing is served for it */
}

const struct sdk_ops *sdk_ops_of(const struct dapr_component_type *t)
{
        static const struct sdk_ops none;
        enum sdk_kind kind = sdk_kind_of(t);
        return kind < SDK_KINDS ? ops_at(t, kind) : &none;
}

unsigned sdk_features(const struct dapr_component_type *t)
{
        return sdk_ops_of(t)->features | (t->binding ? sdk_binding_features(t->binding) : 0) |
               (t->middleware ? sdk_middleware_features(t->middleware) : 0);
}

enum dapr_mode sdk_mode(const struct dapr_component_type *t)
{
        return sdk_ops_of(t)->mode;
}

const char *sdk_feature_name(unsigned bit)
{
        switch (bit) {
        case DAPR_FEATURE_ETAG: return "ETAG";
        case DAPR_FEATURE_TRANSACTIONAL: return "TRANSACTIONAL";
        case DAPR_FEATURE_TTL: return "TTL";
        case DAPR_FEATURE_QUERY: return "QUERY_API";
        case DAPR_FEATURE_DELETE_WITH_PREFIX: return "DELETE_WITH_PREFIX";
        case DAPR_FEATURE_PARTITION_KEY: return "PARTITION_KEY";
        case DAPR_FEATURE_KEYS_LIKE: return "KEYS_LIKE";
        case DAPR_FEATURE_MULTIPLE_VALUES_PER_SECRET: return "MULTIPLE_KEY_VALUES_PER_SECRET";
        case DAPR_FEATURE_SUBSCRIBE_WILDCARDS: return "SUBSCRIBE_WILDCARDS";
        case DAPR_FEATURE_MESSAGE_TTL: return "MESSAGE_TTL";
        case DAPR_FEATURE_BULK_PUBSUB: return "BULK_PUBSUB";
        case DAPR_FEATURE_HTTP_EXCHANGE: return "HTTP_EXCHANGE";
        case SDK_FEATURE_INPUT_BINDING: return "INPUT_BINDING";
        case SDK_FEATURE_OUTPUT_BINDING: return "OUTPUT_BINDING";
        default: return NULL;
        }
}

/* ---- what operations use ---- */

void *dapr_alloc(struct dapr_call *c, size_t n)
{
        return arena_alloc(c->arena, n);
}

char *dapr_strdup(struct dapr_call *c, const char *s)
{
        return arena_strdup(c->arena, str_of(s));
}

struct dapr_bytes dapr_copy(struct dapr_call *c, const void *p, size_t n)
{
        char *to = arena_strdup(c->arena, str_n(p, n));
        return to ? (struct dapr_bytes){to, n} : (struct dapr_bytes){NULL, 0};
}

char *dapr_printf(struct dapr_call *c, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        char *s = arena_vprintf(c->arena, fmt, ap);
        va_end(ap);
        return s;
}

int dapr_fail(struct dapr_call *c, int code, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        c->message = arena_vprintf(c->arena, fmt, ap);
        va_end(ap);
        return code;
}

void dapr_set_features(struct dapr_call *c, unsigned features)
{
        if (c->inst)
                c->inst->features &= features;
}

const char *dapr_instance(const struct dapr_call *c)
{
        return c->inst ? c->inst->name : "";
}

double dapr_deadline_s(const struct dapr_call *c)
{
        return isinf(c->deadline) ? INFINITY : c->deadline - loop_now_exact();
}

bool dapr_is_cancelled(const struct dapr_call *c)
{
        if (c->gone || (!c->on_worker && fiber_is_cancelled()))
                return true;
        return dapr_deadline_s(c) <= 0;
}

const char *dapr_kvs_get(struct dapr_kvs m, const char *key)
{
        for (size_t i = 0; i < m.n; i++)
                if (strcasecmp(m.v[i].key, key) == 0)
                        return m.v[i].value;
        return NULL;
}

struct io_wait {
        struct io_watch watch;
        struct fiber *fiber;
        bool ready;
};

static void io_ready(struct io_watch *w, int events)
{
        struct io_wait *i = container_of(w, struct io_wait, watch);
        i->ready = true;
        io_watch_set(w, 0);
        fiber_wake(i->fiber);
}

int dapr_io_wait(int fd, int events)
{
        struct io_wait w = {.fiber = sdk_on_loop() ? fiber_self() : NULL};
        if (!w.fiber) { /* a worker thread: it may block */
                struct pollfd p = {.fd = fd, .events = (short)((events & 1 ? POLLIN : 0) | (events & 2 ? POLLOUT : 0))};
                int r;
                do
                        r = poll(&p, 1, -1);
                while (r < 0 && errno == EINTR);
                return r < 0 ? -errno : 0;
        }
        io_watch_init(&w.watch, fd, io_ready);
        io_watch_set(&w.watch, events);
        int r = 0;
        while (!w.ready && r == 0)
                r = fiber_park();
        io_watch_stop(&w.watch);
        return w.ready ? 0 : r;
}

int dapr_sleep(double seconds)
{
        if (sdk_on_loop())
                return fiber_sleep(seconds);
        struct timespec ts = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
        nanosleep(&ts, NULL);
        return 0;
}

int dapr_work(int (*fn)(void *), void *arg)
{
        return sdk_on_loop() ? work_run(fn, arg) : fn(arg);
}

int dapr_spawn(const char *name, void (*fn)(void *), void *arg)
{
        struct runtime *rt = sdk_runtime();
        return rt ? fiber_go(&rt->scope, name, fn, arg) : -EINVAL;
}
