/* The HTTP proxy that the environment names for a server outside: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go's clients read them. */
#ifndef KERNEL_MESH_ENDPOINT_PROXY_H
#define KERNEL_MESH_ENDPOINT_PROXY_H

#include "sdk/base/arena.h"

struct endpoint_proxy {
        struct str target;        /* "host:port" */
        struct str authorization; /* value of Proxy-Authorization; n == 0: none */
};
/* What the environment says, as text; NULL = not set. */
struct proxy_settings {
        const char *http, *https, *no_proxy;
};
struct proxy_settings proxy_settings_read(void);
/* For a server at "host:port" (host without brackets; of IPv6 the address). 1 = *ret, in a or borrowed; 0 = none; -EINVAL with a sentence in
 * *ret_err (in a or static): no URL, or of a kind that is not spoken here. */
int endpoint_proxy_find(struct arena *a, const struct proxy_settings *s, bool is_https, struct str host, struct str port, struct endpoint_proxy *ret,
                        const char **ret_err);

#endif
