/*
 * Pipelines of HTTP middleware (proto/plugin/v1/middleware.proto): httpPipeline around the API server, appHttpPipeline around the calls
 * to the app. A pipeline is a list of components by name; one that is not loaded, or of another type or version, is left out, at each
 * request anew. A passage is one request on its way through, and its response on the way back.
 *
 * Bodies are pulled: whoever needs bytes asks the last filter, which asks the one before it, down to the source. A source that has
 * nothing yet says -EAGAIN and is asked again later. Of a body no more than two chunks a filter are held.
 * A passage is used by one fiber for the request and by one, the same or another, for the response.
 */
#ifndef KERNEL_PIPELINE_PIPELINE_H
#define KERNEL_PIPELINE_PIPELINE_H

#include "kernel/resources/resources.h"
#include "kernel/super/super.h"
#include "sdk/net/http.h"

struct kernel;
struct pipeline;

enum {
        PIPELINE_HANDLERS_MAX = 64,
        PIPELINE_CHUNK_BYTES = 64 * 1024,  /* of a body in one message to a filter */
        PIPELINE_ANSWER_BYTES = 1 << 20,   /* most in one message of a filter */
        PIPELINE_HEADERS_MAX = 1000        /* a filter's edits of headers */
};

/* 0 and *ret (NULL when n == 0: nothing is in the way); -E2BIG, -ENOMEM. name is for the log ("server", "app"); handlers are kept. */
int pipeline_new(struct pipeline **ret, struct kernel *k, const char *name, const struct pipeline_handler *handlers, size_t n);
void pipeline_free(struct pipeline *p);

struct pipeline_head { /* of a request or, by status and headers only, of a response */
        struct str method;
        struct str path, query;    /* as on the wire */
        struct str authority;
        const char *scheme, *peer, *version;
        int status;
        struct http_headers headers;
        int64_t content_length;    /* -1 = not known */
        bool has_body;
};

/* Bytes of a body: > 0, 0 at its end, -EAGAIN = none yet, any other negative errno. May park. */
typedef ssize_t (*passage_source)(void *arg, void *p, size_t n);

enum passage_outcome {
        PASSAGE_ANSWERED = 1, /* by a filter: answer */
        PASSAGE_FAILED        /* a filter could not say anything that makes sense: fault_status and fault; it is in the log */
};
struct passage {
        struct pipeline_head head, response;
        struct { int status; struct http_headers headers; struct str body; } answer;
        int fault_status;      /* 503: gone or not ready; 500 */
        const char *fault;     /* in the arena */
};

/* head's strings are borrowed as long as the passage. 0 and *ret, -ENOMEM. */
int passage_new(struct passage **ret, struct pipeline *p, struct arena *a, const struct pipeline_head *head, passage_source body, void *arg);
/* Ends what still runs in the filters. NULL is fine. */
void passage_free(struct passage *x);
/* Asks the filters in their order. 0 = all have been asked and x->head is the request as it goes on; PASSAGE_ANSWERED; PASSAGE_FAILED;
 * -EAGAIN = a filter needs bytes that the source does not have yet: call again; another negative errno is the source's. Parks. */
int passage_request(struct passage *x);
/* Does the request's body go through a filter? Then it comes from passage_read_request alone, and its length is not known. */
bool passage_has_request_body(const struct passage *x);
ssize_t passage_read_request(struct passage *x, void *p, size_t n); /* as a source; -EIO: a filter failed (fault) */
/* Is anything left for the filters to do after the request has gone? When not, the passage can be freed. */
bool passage_has_response(const struct passage *x);
/* The response's head (x->response) on its way back through the filters that the request has passed. 0, PASSAGE_FAILED, -EAGAIN, …
 * as above. body gives the response's bytes. The first call starts it, further ones go on after -EAGAIN. */
int passage_response(struct passage *x, passage_source body, void *arg);
bool passage_has_response_body(const struct passage *x);
ssize_t passage_read_response(struct passage *x, void *p, size_t n);

#endif
