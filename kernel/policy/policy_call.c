/* One call to a component under its outbound policy: what most building blocks need. */
#include "kernel/policy/resiliency.h"

struct calling {
        struct component *c;
        struct arena *a;
        const char *method;
        const ProtobufCMessage *req;
        const ProtobufCMessageDescriptor *resp_d;
        void *resp;
        struct rpc_status *st;
};

static int call_once(void *arg, struct policy_try *t)
{
        struct calling *x = arg;
        return component_call(x->c, x->a, x->method, x->req, x->resp_d, x->resp, x->st);
}

int resiliency_component_call(struct kernel *k, struct component *c, struct arena *a, const char *method, const ProtobufCMessage *req,
                              const ProtobufCMessageDescriptor *resp_d, void *resp, struct rpc_status *st, const char **ret_policy_error)
{
        struct calling x = {c, a, method, req, resp_d, resp, st};
        struct policy p;
        *ret_policy_error = NULL;
        resiliency_component(k, str_of(component_name(c)), component_kind_of(c), POLICY_OUTBOUND, &p);
        if (policy_is_empty(&p))
                return component_call(c, a, method, req, resp_d, resp, st);
        enum policy_result r = policy_run(&p, call_once, &x);
        if (r == POLICY_OK)
                return 0;
        if (r == POLICY_FAILED)
                return st->code ? st->code : RPC_UNKNOWN;
        *ret_policy_error = policy_result_text(r);
        *st = (struct rpc_status){.code = r == POLICY_TIMEOUT ? RPC_DEADLINE_EXCEEDED : r == POLICY_CANCELED ? RPC_CANCELLED : RPC_UNAVAILABLE,
                                  .message = str_of(*ret_policy_error)};
        return st->code;
}
