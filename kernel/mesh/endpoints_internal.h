/* What endpoints.c and endpoint_call.c share. */
#ifndef KERNEL_MESH_ENDPOINTS_INTERNAL_H
#define KERNEL_MESH_ENDPOINTS_INTERNAL_H

#include "kernel/mesh/endpoint_proxy.h"
#include "kernel/mesh/endpoints.h"
#include "sdk/base/map.h"

struct tls_context;

/* "https://user:password@host:port/base" in parts; of the URL's text. */
struct endpoint_url {
        bool is_https;
        /* host: without brackets; authority: without user; target: "host:port"; path: "" or "/base", no slash behind */
        struct str user, host, authority, target, path;
};
/* 0, -EINVAL, -ENOMEM. Parts borrow from text, target may live in a. */
int endpoint_url_read(struct arena *a, struct str text, struct endpoint_url *ret);

/* "Basic ..." for "user:password" of a URL, escaped as there. p == NULL: no memory, or it cannot be read. */
struct str endpoint_basic(struct arena *a, struct str user);

struct endpoint {
        struct endpoints *owner;
        struct http_client *client;
        struct tls_context *tls;  /* of a resource, and of an https URL: own reference */
        char *text;               /* the base URL */
        struct endpoint_url base;
        struct http_header *headers;
        size_t n_headers, calls, header_bytes;
        double used_at;
        bool is_url;
};

struct endpoints {
        struct kernel *k;
        struct proxy_settings proxies;
        struct arena arena;       /* specs and resolved secrets */
        struct map by_name, by_url; /* struct endpoint */
};

/* Another server, spoken to with p's roots and certificate, for one call: endpoint_put must follow. url: "http://host:port". NULL: *ret_err. */
struct endpoint *endpoint_sibling(struct endpoint *p, struct arena *a, struct str url, const char **ret_err);

#endif
