/* API allow and deny lists (Configuration spec.api). What is blocked: HTTP routes are not registered, gRPC calls answer Unimplemented. */
#ifndef KERNEL_FRONT_API_RULES_H
#define KERNEL_FRONT_API_RULES_H

#include "kernel/front/call.h"

bool api_rules_any(const struct configuration *cfg, const char *protocol);
bool api_rules_allow_http(const struct configuration *cfg, const struct http_route *r);
/* group: "state.v1", "" for methods that belong to none. */
bool api_rules_allow_grpc(const struct configuration *cfg, const char *group);

#endif
