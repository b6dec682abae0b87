/*
 * Pluggable components of any language behind a Unix socket that somebody else made: what a socket serves is asked by gRPC
 * reflection (v1alpha, as the contract says; v1 if that is not there), its component types are <category>.<file stem>. Several
 * components share the socket's one connection. Health is Ping, asked now and then; a lost connection is dialled again and
 * every component gets its Init again.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/common.pb-c.h"
#include "grpc/reflection/v1alpha/reflection.pb-c.h"
#include "kernel/super/plugin.h"

enum { REFLECTION_TIMEOUT_S = 2, ANSWER_MAX_BYTES = 1024 * 1024 };

typedef Grpc__Reflection__V1alpha__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1alpha__ServerReflectionResponse response_t;

/* The contract has no Hello in which a component could say it; these only read. */
static const char *const idempotent[] = {
        "/dapr.proto.components.v1.StateStore/Get",           "/dapr.proto.components.v1.StateStore/BulkGet",
        "/dapr.proto.components.v1.StateStore/Ping",          "/dapr.proto.components.v1.QueriableStateStore/Query",
        "/dapr.proto.components.v1.SecretStore/Get",          "/dapr.proto.components.v1.SecretStore/BulkGet",
        "/dapr.proto.components.v1.OutputBinding/ListOperations",
        "/dapr.proto.components.v1.TransactionalStoreMultiMaxSize/MultiMaxSize",
};

/* ---- reflection ---- */

static int list_services(struct rpc_channel *ch, struct arena *a, const char *method, const response_t **ret, struct rpc_status *st)
{
        request_t req = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;
        struct rpc_opts o = {0};
        struct rpc_call *c;
        int r = rpc_open(ch, a, method, &o, &c, st);
        if (r)
                return r;
        req.message_request_case = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
        req.list_services = "";
        *ret = NULL;
        r = rpc_send_pb(c, &req.base);
        if (r == 0)
                rpc_send_end(c);
        if (r == 0 && rpc_recv_pb(c, &grpc__reflection__v1alpha__server_reflection_response__descriptor, ret) != 1)
                *ret = NULL;
        if (*ret)
                rpc_cancel(c);
        rpc_finish(c);
        *st = c->status;
        if (*ret && (*ret)->message_response_case == GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE)
                return 0;
        return st->code ? st->code : RPC_INTERNAL;
}

/* What the socket at path serves. NULL with a reason in *ret_err. Parks up to REFLECTION_TIMEOUT_S. */
static const response_t *reflect(const char *path, struct arena *a, const char **ret_err)
{
        struct rpc_channel *ch;
        struct rpc_status st = {0};
        const response_t *resp = NULL;
        struct rpc_channel_conf conf = {.target = str_of(arena_printf(a, "unix:%s", path)), .authority = STR("localhost"),
                                        .max_recv_bytes = ANSWER_MAX_BYTES, .no_reconnect = true};
        *ret_err = "out of memory";
        if (rpc_channel_new(&ch, &conf))
                return NULL;
        double old = fiber_set_deadline(loop_now() + REFLECTION_TIMEOUT_S);
        int r = rpc_channel_connect(ch);
        if (r == 0) {
                r = list_services(ch, a, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &resp, &st);
                if (r == RPC_UNIMPLEMENTED)
                        r = list_services(ch, a, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &resp, &st);
                if (r)
                        *ret_err = arena_printf(a, "no answer by gRPC reflection: %s (%.*s)", rpc_code_name(r), STR_FMT(st.message));
        } else {
                *ret_err = r == -ECONNREFUSED ? "nobody listens on it" : strerrordesc_np(-r);
        }
        fiber_restore_deadline(old);
        rpc_channel_close(ch);
        return r ? NULL : resp;
}

/* ---- registration ---- */

static void lower(char *z)
{
        for (; *z; z++)
                *z = (char)tolower((unsigned char)*z);
}

struct plugin *foreign_find(struct super *s, const char *type)
{
        char key[256];
        snprintf(key, sizeof key, "%s", type);
        lower(key);
        return map_get(&s->foreign, str_of(key));
}

static struct plugin *by_path(struct super *s, const char *path)
{
        list_for_each(pos, &s->plugins) {
                struct plugin *p = list_entry(pos, struct plugin, in_super);
                if (!p->manifest && strcmp(p->path, path) == 0)
                        return p;
        }
        return NULL;
}

static struct plugin *foreign_new(struct super *s, const char *path, const char *stem)
{
        struct plugin *p = plugin_new(s, NULL, stem);
        if (!p)
                return NULL;
        p->path = strdup(path);
        if (!p->path || asprintf(&p->socket, "unix:%s", path) < 0) {
                p->socket = NULL;
                plugin_free(p);
                return NULL;
        }
        for (size_t i = 0; i < sizeof idempotent / sizeof *idempotent; i++)
                map_set(&p->idempotent, str_of(idempotent[i]), p);
        return p;
}

/* The type under which a service is known; false when it is none of a component. */
static bool type_of_service(const char *service, const char *stem, char *type, size_t n)
{
        for (int k = 0; k < KIND_N; k++)
                for (size_t i = 0; kind_service((enum component_kind)k, i); i++)
                        if (strcmp(kind_service((enum component_kind)k, i), service) == 0) {
                                snprintf(type, n, "%s.%s", component_kind_category((enum component_kind)k), stem);
                                lower(type);
                                return true;
                        }
        return false;
}

static void stem_of(const char *path, char *stem, size_t n)
{
        const char *slash = strrchr(path, '/');
        snprintf(stem, n, "%s", slash ? slash + 1 : path);
        char *dot = strrchr(stem, '.');
        if (dot)
                *dot = '\0';
}

/* A type is told to the kernel once, when it is new: there may be components that failed for want of it. */
static void register_services(struct super *s, struct plugin *p, const response_t *r, const char *stem, bool tell_kernel)
{
        const Grpc__Reflection__V1alpha__ListServiceResponse *list = r->list_services_response;
        map_fini(&p->services);
        for (size_t i = 0; i < list->n_service; i++) {
                char type[256];
                map_set(&p->services, str_of(list->service[i]->name), p);
                if (!type_of_service(list->service[i]->name, stem, type, sizeof type))
                        continue;
                bool is_new = map_get(&s->foreign, str_of(type)) != p;
                if (!is_new || map_set(&s->foreign, str_of(type), p))
                        continue;
                log_info("pluggable-components-grpc-connector", "pluggable component '%s' was successfully registered for '%s'", stem,
                         list->service[i]->name);
                if (tell_kernel && s->conf.on_type)
                        s->conf.on_type(s->conf.arg, type);
        }
}

bool foreign_add(struct super *s, const char *path, bool tell_kernel)
{
        char stem[128];
        struct arena a;
        const char *err = "";
        arena_init(&a, 4 * ANSWER_MAX_BYTES);
        stem_of(path, stem, sizeof stem);
        const response_t *r = reflect(path, &a, &err);
        struct plugin *p = r && !s->stopping ? by_path(s, path) : NULL;
        if (p && p->state == PLUGIN_BACKOFF && !p->life)
                plugin_event(p, EV_BACKOFF_OVER); /* no need to wait for the next attempt */
        if (r && !p && !s->stopping)
                p = foreign_new(s, path, stem);
        if (p)
                register_services(s, p, r, stem, tell_kernel);
        else if (!s->stopping)
                log_debug("pluggable-components-discovery", "socket %s: %s", path, err);
        arena_fini(&a);
        return p != NULL;
}

/* ---- health ---- */

static int ping(struct instance *c, struct life *l, struct rpc_status *st)
{
        Dapr__Proto__Components__V1__PingRequest req = DAPR__PROTO__COMPONENTS__V1__PING_REQUEST__INIT;
        void *resp;
        struct rpc_opts o = {.md = &c->md, .n_md = 1, .timeout_s = c->plugin->super->tuning.ping_interval_s};
        struct arena a;
        char method[128];
        int r = 0;
        for (size_t i = 0; r == 0 && kind_service(c->component->kind, i); i++) {
                if (!instance_serves(c, kind_service(c->component->kind, i)))
                        continue;
                arena_init(&a, 256 * 1024);
                snprintf(method, sizeof method, "/%s/Ping", kind_service(c->component->kind, i));
                r = rpc_unary_pb(l->ch, &a, method, &req.base, &dapr__proto__components__v1__ping_response__descriptor, &resp, &o, st);
                if (r)
                        snprintf(c->plugin->backend_error, ERROR_BYTES, "Ping of component %s: %s (%.*s)", c->spec->name, rpc_code_name(r),
                                 STR_FMT(st->message));
                arena_fini(&a);
        }
        return r == RPC_UNIMPLEMENTED ? 0 : r;
}

static struct instance *next_to_ping(struct plugin *p, const struct life *l)
{
        list_for_each(pos, &p->instances) {
                struct instance *c = list_entry(pos, struct instance, in_plugin);
                if (c->init_life == l->number && c->ping_round != p->ping_round && !c->stopping)
                        return c;
        }
        return NULL;
}

static void ping_all(struct plugin *p, struct life *l)
{
        struct instance *c;
        bool up = true, any = false;
        p->ping_round++;
        while (!l->ended && (c = next_to_ping(p, l))) {
                struct rpc_status st = {0};
                c->ping_round = p->ping_round;
                instance_hold(c);
                int r = ping(c, l, &st);
                instance_release(c);
                if (r && st.transport)
                        return; /* the loss of the connection is an event of its own */
                any = true;
                up &= r == 0;
        }
        if (l->ended || !any)
                return;
        if (p->backend_known && p->backend_up != up)
                log_warn(SUPER_SCOPE, "pluggable component %s %s", p->name, up ? "answers again" : p->backend_error);
        p->backend_known = true;
        p->backend_up = up;
        plugin_event(p, up ? EV_BACKEND_UP : EV_BACKEND_DOWN);
}

static void ping_fiber(void *arg)
{
        struct life *l = arg;
        while (fiber_sleep(l->plugin->super->tuning.ping_interval_s) == 0 && !l->ended)
                ping_all(l->plugin, l);
        life_unref(l);
}

int foreign_ping_start(struct life *l)
{
        life_ref(l);
        int r = fiber_go(&l->scope, "plugin-ping", ping_fiber, l);
        if (r)
                life_unref(l);
        return r;
}
