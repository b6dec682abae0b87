/* Inside the pipelines: filters of one passage, and what is said to them. */
#ifndef KERNEL_PIPELINE_INTERNAL_H
#define KERNEL_PIPELINE_INTERNAL_H

#include "kernel/pipeline/pipeline.h"
#include "plugin/v1/middleware.pb-c.h"

#define PB(name) Microdapr__Plugin__V1__##name
#define PIPELINE_SCOPE "dapr.middleware.http"

enum direction { TO_SERVER, TO_CLIENT };
enum want {
        WANT_REQUEST_BODY = MICRODAPR__PLUGIN__V1__HTTP_WANT__HTTP_WANT_REQUEST_BODY,
        WANT_RESPONSE = MICRODAPR__PLUGIN__V1__HTTP_WANT__HTTP_WANT_RESPONSE,
        WANT_RESPONSE_BODY = MICRODAPR__PLUGIN__V1__HTTP_WANT__HTTP_WANT_RESPONSE_BODY,
        WANT_END = MICRODAPR__PLUGIN__V1__HTTP_WANT__HTTP_WANT_END
};

struct lane { /* one body through one filter */
        struct buf out;        /* what the filter gave and nobody took yet */
        char *chunk;           /* on its way to the filter */
        bool source_ended, done, more;
};
struct filter {
        const struct pipeline_handler *handler;
        struct rpc_call *rpc;  /* its exchange; NULL: has ended, or there never was one */
        unsigned wants;
        bool needs_body;       /* said so to the head that it was shown last */
        struct lane lane[2];   /* by direction */
        struct buf wire;
        struct fmutex lock;    /* one turn at a time */
};
struct pipeline {
        struct kernel *k;
        const char *name;
        const struct pipeline_handler *handlers;
        size_t n;
};
struct way { /* a passage from inside */
        struct passage x;
        struct pipeline *pipeline;
        struct arena *arena;
        passage_source source[2];
        void *source_arg[2];
        size_t next;           /* handler to ask next */
        struct filter **filters; /* those with an exchange, in their order */
        size_t n_filters;
        bool asking;           /* the last filter has been shown the request and has not decided */
        struct http_headers added; /* to the response, by filters that see no more of it */
        size_t back;           /* response: so many filters still to be shown */
        bool coming_back, asked_back;
};

static inline struct way *way_of(const struct passage *x)
{
        return (struct way *)x;
}

/* Records and logs what went wrong. Returns PASSAGE_FAILED. */
int pipeline_fault(struct way *w, const struct pipeline_handler *h, int status, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* The head as the messages have it. NULL = no memory. */
PB(HttpRequest) *pipeline_pack_request(struct way *w);
/* Applies a decision to w->x.head. 0, PASSAGE_ANSWERED, PASSAGE_FAILED, -EAGAIN = needs the body. keep: strings must be copied. */
int pipeline_decide_request(struct way *w, const struct pipeline_handler *h, const PB(HttpDecision) *d, bool keep);
/* Turns with a filter; each parks. The same outcomes. */
int pipeline_turn_request(struct way *w, struct filter *f);
int pipeline_turn_response(struct way *w, struct filter *f);
/* A chunk of the lane's, n bytes of lane->chunk, to the filter; the answer goes to the lane, or is the decision it was asked for. */
int pipeline_turn_chunk(struct way *w, struct filter *f, enum direction d, size_t n);
/* Room for a chunk, once. -ENOMEM. */
int pipeline_lane_open(struct lane *l);
void pipeline_filter_close(struct filter *f);

#endif
