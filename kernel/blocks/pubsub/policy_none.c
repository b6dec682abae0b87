/* Policies for as long as the program is built without kernel/policy/resiliency.c: none. Weak, so that the real ones win. */
#include "kernel/policy/resiliency.h"

__attribute__((weak)) void resiliency_component(struct kernel *k, struct str name, enum component_kind kind, enum policy_direction d,
                                                struct policy *p)
{
        *p = (struct policy){0};
}

__attribute__((weak)) void resiliency_builtin(struct kernel *k, enum policy_builtin b, struct policy *p)
{
        *p = (struct policy){0};
}

__attribute__((weak)) enum policy_result policy_run(struct policy *p, policy_op op, void *arg)
{
        struct policy_try t = {.attempt = 1};

        return op(arg, &t) ? POLICY_FAILED : POLICY_OK;
}

__attribute__((weak)) const char *policy_result_text(enum policy_result r)
{
        return "";
}
