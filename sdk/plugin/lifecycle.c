/*
 * microdapr.plugin.v1.Lifecycle: who we are, how we are, how we end. Runs beside the component services on the same socket.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "plugin/v1/lifecycle.pb-c.h"
#include "sdk/base/loop.h"
#include "sdk/plugin/runtime.h"

enum { HEALTH_INTERVAL_MIN_MS = 20, HEALTH_INTERVAL_DEFAULT_MS = 1000 };

typedef Microdapr__Plugin__V1__ComponentType component_type_t;

static component_type_t *pack_type(struct arena *a, const struct dapr_component_type *t)
{
        component_type_t *out = arena_new(a, component_type_t);
        const char **versions = arena_alloc(a, 16 * sizeof *versions), **features = arena_alloc(a, 32 * sizeof *features);
        if (!out || !versions || !features)
                return NULL;
        microdapr__plugin__v1__component_type__init(out);
        out->type = t->type;
        out->versions = versions;
        out->features = features;
        for (struct str rest = str_of(t->versions ? t->versions : "v1"), v; rest.p && (v = str_trim(str_cut(&rest, ',')), 1);)
                if (v.n && out->n_versions < 16)
                        versions[out->n_versions++] = arena_strdup(a, v);
        unsigned have = sdk_features(t);
        for (unsigned bit = 1; bit && bit <= have; bit <<= 1)
                if ((have & bit) && sdk_feature_name(bit))
                        features[out->n_features++] = sdk_feature_name(bit);
        return out;
}

static size_t add_idempotent(const char **to, const struct sdk_service *s)
{
        size_t used = 0;
        for (size_t i = 0; i < s->n; i++)
                if (s->v[i].idempotent)
                        to[used++] = s->v[i].path;
        return used;
}

static int hello(struct rpc_call *c, void *arg)
{
        struct runtime *rt = sdk_runtime();
        const Microdapr__Plugin__V1__HelloRequest *in;
        Microdapr__Plugin__V1__HelloResponse out = MICRODAPR__PLUGIN__V1__HELLO_RESPONSE__INIT;
        uint32_t versions[] = {CONTRACT_VERSION};
        if (rpc_recv_pb(c, &microdapr__plugin__v1__hello_request__descriptor, &in) != 1)
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "not a HelloRequest");
        free(rt->wanted_type);
        free(rt->wanted_version);
        rt->wanted_type = strdup(in->component_type);
        rt->wanted_version = strdup(in->component_version);

        out.plugin_name = rt->plugin->name;
        out.plugin_version = rt->plugin->version;
        out.contract_versions = versions;
        out.n_contract_versions = 1;
        out.component_types = arena_alloc(c->arena, rt->plugin->n_types * sizeof *out.component_types);
        size_t n_methods = 0;
        for (int kind = 0; kind < SDK_KINDS; kind++)
                n_methods += sdk_service_of((enum sdk_kind)kind)->n;
        out.idempotent_methods = arena_alloc(c->arena, n_methods * sizeof *out.idempotent_methods);
        if (!out.component_types || !out.idempotent_methods)
                return -ENOMEM;
        for (; out.n_component_types < rt->plugin->n_types; out.n_component_types++) {
                component_type_t *t = pack_type(c->arena, &rt->plugin->types[out.n_component_types]);
                if (!t)
                        return -ENOMEM;
                out.component_types[out.n_component_types] = t;
        }
        for (int kind = 0; kind < SDK_KINDS; kind++)
                out.n_idempotent_methods += add_idempotent(out.idempotent_methods + out.n_idempotent_methods,
                                                           sdk_service_of((enum sdk_kind)kind));
        return rpc_send_pb(c, &out.base);
}

static int accept_verdict(struct rpc_call *c, void *arg)
{
        const Microdapr__Plugin__V1__AcceptRequest *in;
        Microdapr__Plugin__V1__AcceptResponse out = MICRODAPR__PLUGIN__V1__ACCEPT_RESPONSE__INIT;
        if (rpc_recv_pb(c, &microdapr__plugin__v1__accept_request__descriptor, &in) != 1)
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "not an AcceptRequest");
        if (!in->accepted)
                dapr_log(DAPR_LOG_ERROR, "refused by the runtime: %s; %s", in->refusal, in->fix);
        sdk_lifeline_told(sdk_runtime(), in->accepted ? in->linger_ms : 0, in->linger_token);
        return rpc_send_pb(c, &out.base);
}

static void fill_report(struct runtime *rt, Microdapr__Plugin__V1__HealthReport *out)
{
        sdk_watch_report(rt, out);
        out->alive = 1;
        out->backend_reachable = 1;
        list_for_each(pos, &rt->instances) {
                const struct instance *i = list_entry(pos, struct instance, node);
                if (i->backend_known && !i->backend_up)
                        out->backend_reachable = 0;
        }
        out->last_error = rt->last_error;
        out->at_unix_ms = (uint64_t)(wall_ns() / 1000000);
        out->calls = rt->calls;
        out->inflight = rt->inflight;
}

static int health(struct rpc_call *c, void *arg)
{
        struct runtime *rt = sdk_runtime();
        const Microdapr__Plugin__V1__HealthRequest *in;
        if (rpc_recv_pb(c, &microdapr__plugin__v1__health_request__descriptor, &in) != 1)
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "not a HealthRequest");
        uint32_t interval_ms = in->interval_ms ? in->interval_ms : HEALTH_INTERVAL_DEFAULT_MS;
        sdk_watch_limit(rt, (double)in->hang_after_ms / 1000);
        if (interval_ms < HEALTH_INTERVAL_MIN_MS)
                interval_ms = HEALTH_INTERVAL_MIN_MS;
        for (;;) {
                Microdapr__Plugin__V1__HealthReport out = MICRODAPR__PLUGIN__V1__HEALTH_REPORT__INIT;
                uint8_t bytes[1024];
                fill_report(rt, &out);
                /* Not in the call's arena: the stream lives as long as the process. */
                if (protobuf_c_message_get_packed_size(&out.base) > sizeof bytes)
                        out.last_error = "";
                size_t n = protobuf_c_message_pack(&out.base, bytes);
                int r = rpc_send(c, str_n(bytes, n));
                if (r == 0)
                        r = cond_wait_until(&rt->health, loop_now() + interval_ms / 1000.0);
                if (r && r != -ETIMEDOUT)
                        return 0; /* the kernel has lost interest */
        }
}

static int drain(struct rpc_call *c, void *arg)
{
        struct runtime *rt = sdk_runtime();
        const Microdapr__Plugin__V1__DrainRequest *in;
        Microdapr__Plugin__V1__DrainResponse out = MICRODAPR__PLUGIN__V1__DRAIN_RESPONSE__INIT;
        if (rpc_recv_pb(c, &microdapr__plugin__v1__drain_request__descriptor, &in) != 1)
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "not a DrainRequest");
        double deadline = loop_now() + in->timeout_ms / 1000.0;
        rt->draining = true;
        sdk_pubsub_stop(rt);
        while (rt->inflight > 0)
                if (cond_wait_until(&rt->idle, deadline))
                        break;
        out.handed_back = sdk_pubsub_hand_back(rt);
        return rpc_send_pb(c, &out.base);
}

static uint64_t open_fds(void)
{
        uint64_t n = 0;
        DIR *d = opendir("/proc/self/fd");
        while (d && readdir(d))
                n++;
        if (d)
                closedir(d);
        return n > 3 ? n - 3 : 0; /* ".", ".." and the folder itself */
}

static uint64_t rss_bytes(void)
{
        unsigned long size = 0, resident = 0;
        FILE *f = fopen("/proc/self/statm", "re");
        if (f && fscanf(f, "%lu %lu", &size, &resident) != 2)
                resident = 0;
        if (f)
                fclose(f);
        return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int stats(struct rpc_call *c, void *arg)
{
        struct runtime *rt = sdk_runtime();
        Microdapr__Plugin__V1__StatsResponse out = MICRODAPR__PLUGIN__V1__STATS_RESPONSE__INIT;
        struct rusage u = {0};
        getrusage(RUSAGE_SELF, &u);
        out.calls = rt->calls;
        out.errors = rt->errors;
        out.inflight = rt->inflight;
        out.rss_bytes = rss_bytes();
        out.cpu_ms = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 + (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
        out.uptime_ms = (uint64_t)((loop_now() - rt->started_at) * 1000);
        out.open_fds = open_fds();
        return rpc_send_pb(c, &out.base);
}

static int set_log_level(struct rpc_call *c, void *arg)
{
        const Microdapr__Plugin__V1__SetLogLevelRequest *in;
        Microdapr__Plugin__V1__SetLogLevelResponse out = MICRODAPR__PLUGIN__V1__SET_LOG_LEVEL_RESPONSE__INIT;
        if (rpc_recv_pb(c, &microdapr__plugin__v1__set_log_level_request__descriptor, &in) != 1)
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "not a SetLogLevelRequest");
        if (sdk_log_set_level(in->level))
                return rpc_fail(c, RPC_INVALID_ARGUMENT, "unknown log level '%s': debug, info, warn, error or fatal", in->level);
        return rpc_send_pb(c, &out.base);
}

#define LIFECYCLE "/microdapr.plugin.v1.Lifecycle/"
const struct rpc_method sdk_lifecycle_methods[] = {
        {LIFECYCLE "Hello", hello},           {LIFECYCLE "Accept", accept_verdict}, {LIFECYCLE "Health", health},
        {LIFECYCLE "Drain", drain},           {LIFECYCLE "Stats", stats},           {LIFECYCLE "SetLogLevel", set_log_level},
        {LIFECYCLE "Attach", sdk_attach},
};
const size_t sdk_lifecycle_methods_n = sizeof sdk_lifecycle_methods / sizeof *sdk_lifecycle_methods;
