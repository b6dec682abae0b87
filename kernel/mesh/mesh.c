/*
 * The mesh of a process: its connections, its access control, and what it says of itself to other sidecars. SPIFFE ids of callers are
 * read from their certificates once: the same few certificates come with each call.
 */
#include "kernel/mesh/mesh.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/host.h"
#include "kernel/kernel.h"
#include "kernel/mesh/convert.h"
#include "kernel/mesh/identity.h"
#include "kernel/mesh/local.h"
#include "kernel/mesh/mesh_metrics.h"
#include "kernel/policy/acl.h"

enum { CALLERS_MAX = 1024 };

struct mesh {
        struct kernel *k;
        struct peers *peers;
        struct acl *acl;
        struct mesh_metrics *metrics;
        struct map callers; /* certificate (DER) -> struct spiffe_id */
        struct rpc_method methods[2];
        char host[64], forwarded[512];
};

static void find_host(struct mesh *m)
{
        const char *open = "", *close = "";
        size_t n = 0;

        if (host_address(&m->k->opts, m->host, sizeof m->host) == 0) {
                if (strchr(m->host, ':'))
                        open = "\"[", close = "]\"";
                n = (size_t)snprintf(m->forwarded, sizeof m->forwarded, "for=%s%s%s;by=%s%s%s", open, m->host, close, open, m->host, close);
        }
        if (m->k->hostname[0])
                snprintf(m->forwarded + n, sizeof m->forwarded - n, "%shost=%s", n ? ";" : "", m->k->hostname);
}

int mesh_new(struct mesh **ret, struct kernel *k, struct arena *a, const char **ret_err)
{
        struct mesh *m = calloc(1, sizeof *m);
        bool is_http = strncmp(k->opts.app_protocol, "grpc", 4) != 0;
        int r;

        if (!m) {
                *ret_err = "out of memory";
                return -ENOMEM;
        }
        m->k = k;
        find_host(m);
        m->methods[0] = (struct rpc_method){"/dapr.proto.internals.v1.ServiceInvocation/CallLocal", mesh_call_local, k};
        m->methods[1] = (struct rpc_method){"/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream", mesh_call_local_stream, k};
        r = peers_new(&m->peers, k);
        if (!r && k->config.metrics_enabled)
                r = mesh_metrics_new(&m->metrics, k->metrics, k->opts.app_id);
        if (!r)
                r = acl_new(&m->acl, configuration_section(&k->config, "accessControl"), is_http, a, ret_err);
        if (r) {
                *ret_err = r == -ENOMEM ? "out of memory" : *ret_err;
                mesh_free(m);
                return r;
        }
        *ret = m;
        return 0;
}

static void forget_callers(struct mesh *m)
{
        for (struct map_entry *e = NULL; (e = map_next(&m->callers, e));)
                free(e->value);
        map_fini(&m->callers);
        m->callers = (struct map){0};
}

void mesh_free(struct mesh *m)
{
        if (!m)
                return;
        peers_free(m->peers);
        acl_free(m->acl);
        mesh_metrics_free(m->metrics);
        forget_callers(m);
        free(m);
}

struct peers *mesh_peers(struct mesh *m)
{
        return m->peers;
}

struct mesh_metrics *mesh_metrics(const struct mesh *m)
{
        return m->metrics;
}

const struct rpc_method *mesh_methods(struct mesh *m, size_t *ret_n)
{
        *ret_n = sizeof m->methods / sizeof *m->methods;
        return m->methods;
}

/* ---- callers ---- */

/* 0 and *ret, which is NULL for a caller without a certificate; -EINVAL, -ENOMEM. */
static int caller_of(struct mesh *m, const struct rpc_call *rpc, struct spiffe_id **ret)
{
        struct str leaf = rpc_peer_leaf(rpc);
        struct spiffe_id *id;
        int r;

        *ret = leaf.n ? map_get(&m->callers, leaf) : NULL;
        if (!leaf.n || *ret)
                return 0;
        if (!(id = malloc(sizeof *id)))
                return -ENOMEM;
        r = spiffe_of_leaf(leaf, id);
        if (!r && m->callers.count >= CALLERS_MAX)
                forget_callers(m);
        if (!r)
                r = map_set(&m->callers, leaf, id);
        if (r) {
                free(id);
                return r == -ENOENT ? 0 : r;
        }
        *ret = id;
        return 0;
}

int mesh_allows(struct mesh *m, struct rpc_call *rpc, struct str operation, int verb, const char **ret_err)
{
        static const char *const none = "NONE";
        const char *name = verb > 0 && verb < CONVERT_VERBS ? convert_verbs[verb] : "";
        struct acl_caller caller = {STR(""), STR(""), STR("")};
        struct spiffe_id *id;
        enum acl_decider decider;
        bool allowed;
        int r;

        if (!m->acl)
                return 0;
        r = caller_of(m, rpc, &id);
        if (r) {
                *ret_err = r == -ENOMEM ? "out of memory" : "malformed SPIFFE ID";
                return r == -ENOMEM ? RPC_RESOURCE_EXHAUSTED : RPC_PERMISSION_DENIED;
        }
        if (id)
                caller = (struct acl_caller){id->trust_domain, id->ns, id->app_id};
        allowed = acl_allows(m->acl, &caller, operation, str_of(name), &decider);
        mesh_count_acl(m->metrics, decider == ACL_APP, allowed, caller.app_id, caller.trust_domain, caller.ns);
        if (allowed)
                return 0;
        *ret_err = arena_printf(rpc->arena, "access control policy has denied access to id: %s operation: %.*s verb: %s", id ? id->text : "",
                                STR_FMT(operation), *name ? name : none);
        return RPC_PERMISSION_DENIED;
}

/* ---- the next hop ---- */

/* Nobody else says who calls. */
static bool is_ours(struct str name)
{
        return str_ieq(name, STR("dapr-caller-namespace")) || str_ieq(name, STR("dapr-caller-app-id")) ||
               str_ieq(name, STR("dapr-callee-app-id")) || str_ieq(name, STR("destination-app-id"));
}

int mesh_hop(const struct mesh *m, struct arena *a, struct str app_id, struct http_headers *md)
{
        struct http_header own[] = {{STR("X-Forwarded-For"), str_of(m->host)},
                                    {STR("X-Forwarded-Host"), str_of(m->k->hostname)},
                                    {STR("Forwarded"), str_of(m->forwarded)},
                                    {STR("destination-app-id"), app_id},
                                    {STR("dapr-caller-namespace"), str_of(m->k->opts.own_namespace)},
                                    {STR("dapr-caller-app-id"), str_of(m->k->opts.app_id)},
                                    {STR("dapr-callee-app-id"), app_id}};
        size_t kept = 0, hops = 0;

        for (size_t i = 0; i < md->n; i++) {
                hops += str_ieq(md->v[i].name, STR("Forwarded"));
                if (!is_ours(md->v[i].name))
                        md->v[kept++] = md->v[i];
        }
        md->n = kept;
        if (hops >= MESH_HOPS_MAX)
                return -ELOOP;
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
                if (own[i].value.n && http_headers_add(md, a, own[i].name, own[i].value))
                        return -ENOMEM;
        return 0;
}
