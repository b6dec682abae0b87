/*
 * Access control of the callee (Configuration spec.accessControl, API.md 7.5): who may call which operation of the own app. The caller
 * is known by its SPIFFE id; without one the global default action holds.
 */
#ifndef KERNEL_POLICY_ACL_H
#define KERNEL_POLICY_ACL_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

struct acl;

/* json: the section, p == NULL or without content = no access control: *ret is NULL. is_http: the app's protocol is an HTTP one;
 * operations then have no case. 0; -EINVAL with a sentence in *ret_err (in a), -ENOMEM. */
int acl_new(struct acl **ret, struct str json, bool is_http, struct arena *a, const char **ret_err);
void acl_free(struct acl *l); /* NULL is fine */

struct acl_caller {
        struct str trust_domain, ns, app_id; /* app_id.n == 0: not known */
};
enum acl_decider { ACL_GLOBAL, ACL_APP }; /* whose default action, or whose operation, has decided: for the metrics */
/* operation: a cleaned method ("orders/1") or a full gRPC method; verb: "GET", "" = none. */
bool acl_allows(const struct acl *l, const struct acl_caller *caller, struct str operation, struct str verb, enum acl_decider *ret_decider);

#endif
