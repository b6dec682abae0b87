/*
 * Pipelines, and the way of one request through one. Filters that look at heads only are asked by one call and leave nothing behind;
 * those with an exchange stay in the passage while they want something of the rest.
 */
#include "kernel/pipeline/pipeline.h"

#include <errno.h>
#include <stdlib.h>

#include "kernel/kernel.h"
#include "kernel/pipeline/internal.h"
#include "sdk/base/log.h"

#define SERVICE "/microdapr.plugin.v1.HttpMiddleware/"

int pipeline_new(struct pipeline **ret, struct kernel *k, const char *name, const struct pipeline_handler *handlers, size_t n)
{
        struct pipeline *p;

        *ret = NULL;
        if (n == 0)
                return 0;
        if (n > PIPELINE_HANDLERS_MAX)
                return -E2BIG;
        p = malloc(sizeof *p);
        if (!p)
                return -ENOMEM;
        *p = (struct pipeline){k, name, handlers, n};
        log_info(PIPELINE_SCOPE, "Building pipeline %s", name);
        *ret = p;
        return 0;
}

void pipeline_free(struct pipeline *p)
{
        free(p);
}

static bool same_version(const char *a, const char *b)
{
        return strcmp(*a ? a : "v1", *b ? b : "v1") == 0;
}

static struct component *find(const struct pipeline *p, const struct pipeline_handler *h)
{
        struct component *c = kernel_component(p->k, KIND_MIDDLEWARE, str_of(h->name));
        const struct component_spec *spec = c ? component_spec_of(c) : NULL;

        return spec && strcmp(spec->type, h->type) == 0 && same_version(spec->version, h->version) ? c : NULL;
}

int pipeline_fault(struct way *w, const struct pipeline_handler *h, int status, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        const char *why = arena_vprintf(w->arena, fmt, ap);
        va_end(ap);
        w->x.fault_status = status;
        w->x.fault = arena_printf(w->arena, "middleware %s (%s): %s", h->name, h->type, why ? why : "out of memory");
        if (!w->x.fault)
                w->x.fault = "out of memory";
        log_warn(PIPELINE_SCOPE, "%s", w->x.fault);
        return PASSAGE_FAILED;
}

int passage_new(struct passage **ret, struct pipeline *p, struct arena *a, const struct pipeline_head *head, passage_source body, void *arg)
{
        struct way *w = arena_new(a, struct way);

        if (!w)
                return -ENOMEM;
        w->x.head = *head;
        w->pipeline = p;
        w->arena = a;
        w->source[TO_SERVER] = body;
        w->source_arg[TO_SERVER] = arg;
        *ret = &w->x;
        return 0;
}

void pipeline_filter_close(struct filter *f)
{
        if (f->rpc) {
                rpc_send_end(f->rpc);
                rpc_cancel(f->rpc);
                rpc_finish(f->rpc);
                f->rpc = NULL;
        }
        for (int d = 0; d < 2; d++) {
                buf_fini(&f->lane[d].out);
                free(f->lane[d].chunk);
                f->lane[d].chunk = NULL;
        }
        buf_fini(&f->wire);
}

void passage_free(struct passage *x)
{
        struct way *w = x ? way_of(x) : NULL;

        if (!w)
                return;
        fiber_shield_begin();
        for (size_t i = 0; i < w->n_filters; i++)
                pipeline_filter_close(w->filters[i]);
        fiber_shield_end();
        w->n_filters = 0;
}

/* ---- bodies ---- */

int pipeline_lane_open(struct lane *l)
{
        if (!l->chunk)
                l->chunk = malloc(PIPELINE_CHUNK_BYTES);
        return l->chunk ? 0 : -ENOMEM;
}

/* The filter that is the level-th from the source. */
static struct filter *filter_at(const struct way *w, enum direction d, size_t level)
{
        return w->filters[d == TO_SERVER ? level - 1 : w->n_filters - level];
}

static ssize_t take(struct lane *l, void *p, size_t n)
{
        struct str have = buf_str(&l->out);

        n = have.n < n ? have.n : n;
        memcpy(p, have.p, n);
        buf_consume(&l->out, n);
        return (ssize_t)n;
}

/* Bytes that have passed the first `level` filters, seen from the source. Its depth is the number of filters. */
static ssize_t pull(struct way *w, enum direction d, size_t level, void *p, size_t n)
{
        unsigned want = d == TO_SERVER ? WANT_REQUEST_BODY : WANT_RESPONSE_BODY;
        struct filter *f;
        struct lane *l;

        while (level && !(filter_at(w, d, level)->wants & want))
                level--;
        if (level == 0)
                return w->source[d](w->source_arg[d], p, n);
        f = filter_at(w, d, level);
        l = &f->lane[d];
        for (;;) {
                ssize_t got = 0;
                if (buf_len(&l->out))
                        return take(l, p, n);
                if (l->done)
                        return 0;
                if (pipeline_lane_open(l))
                        return -ENOMEM;
                if (!l->more && !l->source_ended) {
                        got = pull(w, d, level - 1, l->chunk, PIPELINE_CHUNK_BYTES);
                        if (got < 0)
                                return got;
                        l->source_ended = got == 0;
                }
                if (pipeline_turn_chunk(w, f, d, (size_t)got))
                        return -EIO;
        }
}

/* Feeds the filter that cannot decide without the body. 0 = decided as pipeline_decide says, or a source's error. */
static int feed(struct way *w, struct filter *f, enum direction d, size_t level)
{
        struct lane *l = &f->lane[d];

        for (;;) {
                if (pipeline_lane_open(l))
                        return -ENOMEM;
                if (l->source_ended)
                        return pipeline_fault(w, f->handler, 500, "still asks for the body after its end");
                ssize_t got = pull(w, d, level - 1, l->chunk, PIPELINE_CHUNK_BYTES);
                if (got < 0)
                        return got == -EIO ? PASSAGE_FAILED : (int)got;
                l->source_ended = got == 0;
                int r = pipeline_turn_chunk(w, f, d, (size_t)got);
                if (r != -EAGAIN)
                        return r;
        }
}

/* ---- the request ---- */

static int ask_head_only(struct way *w, const struct pipeline_handler *h, struct component *c)
{
        PB(HttpRequest) *req = pipeline_pack_request(w);
        const PB(HttpDecision) *d;
        struct rpc_status st;
        int r;

        if (!req)
                return -ENOMEM;
        r = component_call(c, w->arena, SERVICE "Request", &req->base, &microdapr__plugin__v1__http_decision__descriptor, &d, &st);
        if (r == RPC_CANCELLED && fiber_is_cancelled())
                return -ECANCELED;
        if (r)
                return pipeline_fault(w, h, st.transport ? 503 : 500, "%.*s", STR_FMT(st.message));
        r = pipeline_decide_request(w, h, d, false);
        return r == -EAGAIN ? pipeline_fault(w, h, 500, "asks for the body, without the feature HTTP_EXCHANGE") : r;
}

static int open_filter(struct way *w, const struct pipeline_handler *h, struct component *c)
{
        struct filter *f = arena_new(w->arena, struct filter);
        struct rpc_status st;

        if (!w->filters)
                w->filters = arena_alloc(w->arena, w->pipeline->n * sizeof(struct filter *));
        if (!f || !w->filters)
                return -ENOMEM;
        f->handler = h;
        fmutex_init(&f->lock);
        if (component_open(c, w->arena, SERVICE "Exchange", &f->rpc, &st))
                return pipeline_fault(w, h, st.transport ? 503 : 500, "%.*s", STR_FMT(st.message));
        f->rpc->flags |= RPC_REUSE;
        w->filters[w->n_filters++] = f;
        w->asking = true;
        return pipeline_turn_request(w, f);
}

/* The last filter has decided, by r. One that answered, or wants nothing more, is done with. */
static int decided(struct way *w, int r)
{
        struct filter *f = w->filters[w->n_filters - 1];

        if (r == -EAGAIN)
                return r;
        w->asking = false;
        if (f->needs_body && r == 0)
                f->wants |= WANT_REQUEST_BODY; /* it has what it has read */
        f->needs_body = false;
        if (r || !f->wants) {
                pipeline_filter_close(f);
                w->n_filters--;
        }
        return r;
}

static int ask(struct way *w, const struct pipeline_handler *h)
{
        struct component *c = find(w->pipeline, h);
        size_t n = w->n_filters;

        if (!c)
                return 0;
        if (!(component_features(c) & FEATURE_HTTP_EXCHANGE))
                return ask_head_only(w, h, c);
        int r = open_filter(w, h, c);
        return w->n_filters > n ? decided(w, r) : r;
}

int passage_request(struct passage *x)
{
        struct way *w = way_of(x);
        int r = 0;

        for (;;) {
                if (w->asking) {
                        struct filter *f = w->filters[w->n_filters - 1];
                        f->needs_body = true;
                        r = feed(w, f, TO_SERVER, w->n_filters);
                        if (r != -EAGAIN)
                                r = decided(w, r);
                } else if (w->next < w->pipeline->n) {
                        r = ask(w, &w->pipeline->handlers[w->next++]);
                        if (r == -EAGAIN) /* the filter, not the source: feed it */
                                continue;
                } else {
                        break;
                }
                if (r)
                        return r;
        }
        if (passage_has_request_body(x)) {
                x->head.content_length = -1;
                x->head.has_body = true;
                http_headers_remove(&x->head.headers, "Content-Length");
        }
        return 0;
}

static bool wants(const struct way *w, unsigned what)
{
        for (size_t i = 0; i < w->n_filters; i++)
                if (w->filters[i]->wants & what)
                        return true;
        return false;
}

bool passage_has_request_body(const struct passage *x)
{
        return wants(way_of(x), WANT_REQUEST_BODY);
}

ssize_t passage_read_request(struct passage *x, void *p, size_t n)
{
        return pull(way_of(x), TO_SERVER, way_of(x)->n_filters, p, n);
}

/* ---- the response ---- */

bool passage_has_response(const struct passage *x)
{
        return way_of(x)->n_filters > 0 || way_of(x)->added.n > 0;
}

static bool sees_response(const struct filter *f)
{
        return f->wants & (WANT_RESPONSE | WANT_RESPONSE_BODY);
}

int passage_response(struct passage *x, passage_source body, void *arg)
{
        struct way *w = way_of(x);

        if (!w->coming_back) {
                w->coming_back = true;
                w->back = w->n_filters;
                w->source[TO_CLIENT] = body;
                w->source_arg[TO_CLIENT] = arg;
        }
        for (; w->back; w->back--) {
                struct filter *f = w->filters[w->back - 1];
                int r;
                if (!w->asked_back && !sees_response(f))
                        continue;
                if (!w->asked_back) {
                        f->wants &= ~(unsigned)WANT_RESPONSE_BODY; /* until it says so again */
                        w->asked_back = true;
                        r = pipeline_turn_response(w, f);
                        f->needs_body = r == -EAGAIN;
                } else {
                        r = -EAGAIN;
                }
                if (r == -EAGAIN)
                        r = feed(w, f, TO_CLIENT, w->n_filters - w->back + 1);
                if (r)
                        return r;
                if (f->needs_body)
                        f->wants |= WANT_RESPONSE_BODY;
                f->needs_body = w->asked_back = false;
        }
        for (size_t i = 0; i < w->added.n; i++)
                if (http_headers_add(&x->response.headers, w->arena, w->added.v[i].name, w->added.v[i].value))
                        return -ENOMEM;
        w->added.n = 0;
        return 0;
}

bool passage_has_response_body(const struct passage *x)
{
        return wants(way_of(x), WANT_RESPONSE_BODY);
}

ssize_t passage_read_response(struct passage *x, void *p, size_t n)
{
        return pull(way_of(x), TO_CLIENT, way_of(x)->n_filters, p, n);
}
