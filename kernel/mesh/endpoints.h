/*
 * Calls to HTTP servers outside of the mesh: HTTPEndpoint resources by name, and "http://" or "https://" URLs. They go out directly,
 * without mTLS of the mesh and without access control.
 */
#ifndef KERNEL_MESH_ENDPOINTS_H
#define KERNEL_MESH_ENDPOINTS_H

#include "sdk/net/http.h"

struct endpoint;
struct endpoints;
struct kernel;

enum { ENDPOINT_URLS_MAX = 256, ENDPOINT_REDIRECTS_MAX = 10, ENDPOINT_HEADER_BYTES = 1 << 20 }; /* of an answer; URLs: --http-read-buffer-size */

/* Reads the HTTPEndpoints of the resources and their secrets; after the secret stores are there. Parks. 0; or < 0 with a sentence in
 * *ret_err (in a or static). */
int endpoints_new(struct endpoints **ret, struct kernel *k, struct arena *a, const char **ret_err);
void endpoints_free(struct endpoints *e); /* no call may be running; NULL is fine */

bool endpoint_is_url(struct str id);
/* By name, or by the base of a URL, for one call. NULL: no such endpoint, or a URL that cannot be called (*ret_err says why, else NULL).
 * endpoint_put must follow. */
struct endpoint *endpoint_get(struct endpoints *e, struct arena *a, struct str id, const char **ret_err);
void endpoint_put(struct endpoint *p); /* NULL is fine */
bool endpoint_exists(const struct endpoints *e, struct str id); /* by name */
struct str endpoint_base_url(const struct endpoint *p);

struct endpoint_request {
        struct str method, path;       /* path: "/orders?x=1", below the base URL */
        const struct http_header *headers;
        size_t n_headers;
        int64_t length;                /* -1 unknown; does not count with a body */
        struct str body;               /* p != NULL: all of it; else it follows by http_exchange_write */
        /* own */
        struct str asked;              /* the method that it began with */
        struct endpoint *at;           /* another server, to which a redirect has led */
        struct str url;                /* of a request that a redirect has asked for */
        const char *why;               /* of a redirect that cannot be followed */
        bool is_elsewhere;             /* of another name than the first: not to be told who asks */
};
/* As http_client_start. The endpoint's own headers take the place of the caller's of the same names. q must live as long as the exchange. */
int endpoint_open(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **ret);
/* The answer is a redirect (301, 302, 303) of an HTTPEndpoint: it is followed by GET or HEAD, to other servers too, as net/http's client
 * does it; another exchange takes the place of *x. Of another host than the endpoint's no Authorization and no Cookie are sent.
 * 0 = it is the answer, or < 0. Parks. */
int endpoint_redirect(struct endpoint *p, struct arena *a, struct endpoint_request *q, struct http_exchange **x);
void endpoint_request_fini(struct endpoint_request *q); /* once its exchange is closed; the zero value is fine */
/* Why a call failed with r < 0, as net/http words it. */
const char *endpoint_error(const struct endpoint *p, struct arena *a, const struct endpoint_request *q, int r);

#endif
