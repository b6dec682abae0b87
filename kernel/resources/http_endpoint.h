/* HTTPEndpoint resources (API.md 5.4) as plain structs. Scopes and namespaces are the loader's matter. */
#ifndef KERNEL_RESOURCES_HTTP_ENDPOINT_H
#define KERNEL_RESOURCES_HTTP_ENDPOINT_H

#include "kernel/resources/resources.h"
#include "sdk/net/tls.h"

enum { HTTP_ENDPOINT_HEADERS_MAX = 100 };

struct endpoint_value { /* of a header, or PEM text of clientTLS */
        const char *name;         /* of a header; else "" */
        const char *value;        /* NULL = none */
        const char *secret_name, *secret_key; /* secretKeyRef, NULL = none; the key defaults to the name */
        int line;
};
struct http_endpoint_spec {
        const char *name, *base_url, *secret_store; /* secret_store: auth.secretStore, "" = none */
        struct endpoint_value *headers;
        size_t n_headers;
        struct endpoint_value root_ca, certificate, private_key;
        bool has_tls;             /* clientTLS stands there */
        enum tls_renegotiation renegotiation;
        const char *file;
        int line;
};
/* Everything in a; the resource must live as long. 0; -EINVAL with a sentence that names file and line in *ret_err; -ENOMEM. */
int http_endpoint_read(struct arena *a, const struct raw_resource *r, struct http_endpoint_spec **ret, const char **ret_err);

#endif
