/*
 * Who is called. An id is a URL, the name of an HTTPEndpoint, or an app id, which may carry a namespace: "orders.production". The own
 * app in the own namespace is called directly; all others are looked for when a call goes out.
 */
#include <errno.h>

#include "kernel/blocks/invoke.h"
#include "kernel/mesh/endpoints.h"
#include "kernel/mesh/names.h"

static bool is_endpoint(const struct kernel *k, struct str name, struct str id)
{
        return endpoint_is_url(name) || endpoint_exists(k->endpoints, name) || endpoint_exists(k->endpoints, id);
}

bool invoke_find(struct kernel *k, struct arena *a, struct str name, struct invoke_dest *ret, const char **ret_err)
{
        struct str rest = name, id = str_cut(&rest, '.');

        *ret = (struct invoke_dest){.kind = INVOKE_REMOTE, .name = name, .id = id, .ns = rest.p ? rest : str_of(k->opts.own_namespace)};
        if (is_endpoint(k, name, id)) {
                ret->kind = INVOKE_ENDPOINT;
                if (endpoint_is_url(name) || endpoint_exists(k->endpoints, name))
                        ret->id = name;
                return true;
        }
        if (!name.n)
                *ret_err = "app id is empty";
        else if (rest.p && str_chr(rest, '.') >= 0)
                *ret_err = arena_printf(a, "invalid app id %.*s", STR_FMT(name));
        else if (!str_eqz(id, k->opts.app_id) || !str_eqz(ret->ns, k->opts.own_namespace))
                return true;
        else {
                ret->kind = INVOKE_OWN;
                if (!k->app)
                        *ret_err = "cannot invoke local endpoint: app channel not initialized";
                return k->app != NULL;
        }
        return false;
}

int invoke_locate(struct kernel *k, struct arena *a, struct invoke_dest *d, bool failed, const char **ret_err)
{
        const char *why = NULL;
        int r;

        if (d->address && !failed)
                return 0;
        r = names_resolve(k, a, d->id, d->ns, failed ? d->address : NULL, &d->address, &why);
        if (!r)
                return 0;
        *ret_err = why ? why : "out of memory";
        return r == -ETIMEDOUT ? RPC_DEADLINE_EXCEEDED : r == -ECANCELED ? RPC_CANCELLED : RPC_UNKNOWN;
}

void invoke_policy(struct call *c, const struct invoke_dest *d, struct str method, struct policy *ret)
{
        const char *sep = endpoint_is_url(d->name) ? "/" : ":", *err;
        struct endpoint *e = NULL;

        if (d->kind == INVOKE_ENDPOINT && !endpoint_is_url(d->name) && (e = endpoint_get(c->k->endpoints, c->arena, d->id, &err)))
                method = endpoint_base_url(e);
        resiliency_app(c->k, d->name, str_of(arena_printf(c->arena, "%.*s%s%.*s", STR_FMT(d->name), sep, STR_FMT(method))), ret);
        endpoint_put(e);
}

bool invoke_has_own_retries(const struct call *c, const struct invoke_dest *d)
{
        return d->kind != INVOKE_OWN && !resiliency_has_app(c->k, d->id);
}

bool invoke_is_transient(int code)
{
        return code == RPC_UNAVAILABLE || code == RPC_UNAUTHENTICATED;
}

const char *invoke_status_text(struct arena *a, const struct rpc_status *st)
{
        const char *text = arena_printf(a, "rpc error: code = %s desc = %.*s", rpc_code_name(st->code), STR_FMT(st->message));

        return text ? text : "out of memory";
}
