/* A web server that a plugin asks: one pool of connections to one base URL, whole requests and whole answers, HTTP or HTTPS. */
#ifndef PLUGINS_SHARED_WEB_WEB_H
#define PLUGINS_SHARED_WEB_WEB_H

#include "sdk/net/http.h"

struct web_site;
struct web_answer {
        int status;
        struct str body;           /* in the request's arena, as the headers */
        struct http_headers headers;
        struct str content_type;   /* the same; empty: none */
};

/* "https://host[:port][/path]"; a query or fragment of the URL is part of the path. 0, -ENOMEM, or -EINVAL with a static text. */
int web_site_new(struct web_site **ret, const char *url, const char **ret_err);
/* The same with own TLS settings for https (NULL = the system's roots; kept by a ref) and the name that the certificate must carry ("" =
 * the URL's host). */
struct tls_context;
int web_site_new_tls(struct web_site **ret, const char *url, struct tls_context *tls, const char *server_name, const char **ret_err);
void web_site_free(struct web_site *s); /* NULL is fine; no request may be running */
/* Is it the URL of a web server at all? */
bool web_is_url(const char *s);
/* suffix stands behind the site's path. body.p == NULL: none. Parks, until the fiber's deadline at most. 0, or -errno with what went
 * wrong, free of addresses and headers, in *ret_err (static). */
int web_request(struct web_site *s, struct arena *a, const char *method, const char *suffix, const struct http_header *h, size_t n_headers,
                struct str body, size_t max_answer, struct web_answer *ret, const char **ret_err);

#endif
