/* Calls to a server through a pipeline: the place of http_client_start for the app channel. */
#ifndef KERNEL_PIPELINE_EXCHANGE_H
#define KERNEL_PIPELINE_EXCHANGE_H

#include "kernel/pipeline/pipeline.h"

struct pipeline_call { /* as http_client_start has them */
        struct http_client *client;
        const char *scheme;            /* "http" or "https", and the server's name: filters see them */
        struct str authority;
        struct str method, target;
        const struct http_header *headers;
        size_t n_headers;
        int64_t length;
        struct str body_now;
        /* Behind the filters, once *inner has answered: another exchange may take its place (redirects). head is the request as the
         * filters let it go; whole: its body is body_now. 0, or < 0 with *inner possibly NULL. May be NULL; parks. */
        int (*follow)(void *arg, const struct pipeline_head *head, bool whole, struct http_exchange **inner);
        void *follow_arg;
};
/* As http_client_start (which it is for p == NULL); the exchange is used and closed as any. What a filter answers comes as the response,
 * without a word to the server; what a filter fails at comes as a 5xx with the reason as JSON. The request may go out only when its body
 * was given, if a filter waits for it. */
int pipeline_exchange_start(struct pipeline *p, struct arena *a, const struct pipeline_call *call, struct http_exchange **ret);

#endif
