/*
 * HTTP middleware: a filter around the API server or around the calls to the app. Included from <dapr/plugin.h>.
 *
 * A table with `request` alone sees heads only: no body ever comes to the process, which costs the least. With any of the other
 * operations each request is an exchange of its own; after `request` it goes on with what dapr_http_want() asked for.
 *
 * An operation that returns anything but 0 ends the request with a 5xx. So does the death of the process: filters fail closed.
 */
#ifndef DAPR_MIDDLEWARE_H
#define DAPR_MIDDLEWARE_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

enum dapr_http_want {
        DAPR_HTTP_REQUEST_BODY = 1,  /* its bytes go through request_body */
        DAPR_HTTP_RESPONSE = 2,      /* response is called */
        DAPR_HTTP_RESPONSE_BODY = 4, /* response, and the body's bytes go through response_body */
        DAPR_HTTP_END = 8            /* done is called when the exchange is over, not right after request */
};

struct dapr_http { /* one request on its way; strings live as long as the exchange */
        const char *method;
        const char *path;       /* decoded */
        const char *raw_path;   /* as on the wire */
        const char *query;      /* as on the wire, without '?' */
        const char *authority;
        const char *scheme;     /* "http" or "https" */
        const char *peer;       /* "127.0.0.1:40000"; "" when the runtime itself calls the app */
        struct dapr_kvs headers; /* in their order; a name may stand twice */
        int64_t content_length; /* -1 = not known */
        bool has_body;
        int status;             /* in response and later */
        struct dapr_kvs response_headers;
        void *user;             /* the filter's own, from request to done */
};

/* What a filter does with the request (in `request`) or with the response (in `response`). Strings are copied. Each: 0 or -ENOMEM. */
int dapr_http_set_method(struct dapr_call *c, const char *method);
int dapr_http_set_path(struct dapr_call *c, const char *path);      /* decoded; begins with a slash */
int dapr_http_set_query(struct dapr_call *c, const char *query);    /* as on the wire */
int dapr_http_set_header(struct dapr_call *c, const char *name, const char *value); /* in place of all of that name */
int dapr_http_add_header(struct dapr_call *c, const char *name, const char *value);
/* In `request`: for the response, whatever it will be; needs no further operation. */
int dapr_http_add_response_header(struct dapr_call *c, const char *name, const char *value);
int dapr_http_remove_header(struct dapr_call *c, const char *name);
int dapr_http_set_status(struct dapr_call *c, int status);          /* in `response` only */
/* Answers in the place of what would come: nothing behind this filter is asked. Headers that were set or added before or after
 * go with the answer. */
int dapr_http_answer(struct dapr_call *c, int status, const void *body, size_t n);
/* The same with text/plain and a text; NULL = the status's own ("Forbidden"). */
int dapr_http_answer_text(struct dapr_call *c, int status, const char *text);
void dapr_http_want(struct dapr_call *c, unsigned wants); /* bits of enum dapr_http_want */

/* Percent-coding. Results come from dapr_alloc; NULL = a bad escape, or no memory. */
char *dapr_url_decode(struct dapr_call *c, const char *s);          /* of a query: + is a space */
char *dapr_url_encode(struct dapr_call *c, const char *s);          /* for a query */
/* First value of key in a query as on the wire, decoded; NULL = none. */
char *dapr_query_get(struct dapr_call *c, const char *query, const char *key);

struct dapr_middleware_ops {
        enum dapr_mode mode;
        unsigned features;          /* none are to be set: which operations there are tells it */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        int (*request)(struct dapr_call *c, void *instance, struct dapr_http *x);
        int (*response)(struct dapr_call *c, void *instance, struct dapr_http *x);
        /* One piece of a body (at most 64 KiB; last: nothing follows, n may be 0) to another one of any length. */
        int (*request_body)(struct dapr_call *c, void *instance, struct dapr_http *x, struct dapr_bytes in, bool last, struct dapr_bytes *out);
        int (*response_body)(struct dapr_call *c, void *instance, struct dapr_http *x, struct dapr_bytes in, bool last, struct dapr_bytes *out);
        /* The exchange is over, whatever way it went; called once for each that request has seen, unless the table has only request. */
        void (*done)(void *instance, struct dapr_http *x);
};

#ifdef __cplusplus
}
#endif
#endif
