/*
 * HTTP middleware: microdapr.plugin.v1.HttpMiddleware from one ops table. Request is a unary call on the head. Exchange is one fiber a
 * request that answers turn by turn: what the operations say with dapr_http_…() is collected in struct http_edits and becomes the
 * decision. The head and what belongs to it live in the call's arena; what an operation allocates for one piece of a body is freed when
 * that piece has gone. Jobs as in state.c.
 */
#include <errno.h>

#include "plugin/v1/middleware.pb-c.h"
#include "sdk/net/http.h"
#include "sdk/plugin/runtime.h"
#include "sdk/plugin/state_codec.h"

#define PB(name) Microdapr__Plugin__V1__##name

enum { PIECE_ARENA_BYTES = 64 << 20 };

struct header_list {
        PB(HttpHeader) **v;
        size_t n, cap;
};
struct http_edits {
        struct arena *arena;
        const char *method;
        struct str path, query;         /* p == NULL: as it was */
        const char **remove;
        size_t n_remove, cap_remove;
        struct header_list set, add, response;
        int status;
        bool answered;
        struct str body;
        unsigned wants;
};

/* ---- what operations say ---- */

static int header_add(struct http_edits *e, struct header_list *l, const char *name, const char *value)
{
        PB(HttpHeader) *h = arena_new(e->arena, PB(HttpHeader));
        if (l->n == l->cap) {
                size_t cap = l->cap ? 2 * l->cap : 4;
                PB(HttpHeader) **v = arena_grow(e->arena, l->v, l->cap * sizeof *v, cap * sizeof *v);
                if (!v)
                        return -ENOMEM;
                l->v = v;
                l->cap = cap;
        }
        if (!h)
                return -ENOMEM;
        microdapr__plugin__v1__http_header__init(h);
        h->name = arena_strdup(e->arena, str_of(name));
        struct str copy = arena_str(e->arena, str_of(value));
        h->value = pb_bytes(copy);
        if (!h->name || !copy.p)
                return -ENOMEM;
        l->v[l->n++] = h;
        return 0;
}

int dapr_http_set_header(struct dapr_call *c, const char *name, const char *value)
{
        return header_add(c->edits, &c->edits->set, name, value);
}

int dapr_http_add_header(struct dapr_call *c, const char *name, const char *value)
{
        return header_add(c->edits, &c->edits->add, name, value);
}

int dapr_http_add_response_header(struct dapr_call *c, const char *name, const char *value)
{
        return header_add(c->edits, &c->edits->response, name, value);
}

int dapr_http_remove_header(struct dapr_call *c, const char *name)
{
        struct http_edits *e = c->edits;
        if (e->n_remove == e->cap_remove) {
                size_t cap = e->cap_remove ? 2 * e->cap_remove : 4;
                const char **v = arena_grow(e->arena, e->remove, e->cap_remove * sizeof *v, cap * sizeof *v);
                if (!v)
                        return -ENOMEM;
                e->remove = v;
                e->cap_remove = cap;
        }
        e->remove[e->n_remove] = arena_strdup(e->arena, str_of(name));
        return e->remove[e->n_remove] ? (e->n_remove++, 0) : -ENOMEM;
}

int dapr_http_set_method(struct dapr_call *c, const char *method)
{
        c->edits->method = arena_strdup(c->edits->arena, str_of(method));
        return c->edits->method ? 0 : -ENOMEM;
}

static bool stays_in_path(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("-_.~!$&'()*+,;=:@/", c));
}

int dapr_http_set_path(struct dapr_call *c, const char *path)
{
        static const char hex[] = "0123456789ABCDEF";
        char *to = arena_alloc(c->edits->arena, 3 * strlen(path) + 1), *at = to;
        if (!to)
                return -ENOMEM;
        for (; *path; path++) {
                if (stays_in_path(*path)) {
                        *at++ = *path;
                } else {
                        *at++ = '%';
                        *at++ = hex[(unsigned char)*path >> 4];
                        *at++ = hex[(unsigned char)*path & 15];
                }
        }
        c->edits->path = str_n(to, (size_t)(at - to));
        return 0;
}

int dapr_http_set_query(struct dapr_call *c, const char *query)
{
        c->edits->query = arena_str(c->edits->arena, str_of(query));
        return c->edits->query.p ? 0 : -ENOMEM;
}

int dapr_http_set_status(struct dapr_call *c, int status)
{
        c->edits->status = status;
        return 0;
}

int dapr_http_answer(struct dapr_call *c, int status, const void *body, size_t n)
{
        c->edits->answered = true;
        c->edits->status = status;
        c->edits->body = arena_str(c->edits->arena, str_n(body, n));
        return c->edits->body.p ? 0 : -ENOMEM;
}

int dapr_http_answer_text(struct dapr_call *c, int status, const char *text)
{
        int r = dapr_http_set_header(c, "Content-Type", "text/plain; charset=utf-8");
        if (!text)
                text = http_status_text(status);
        return r ? r : dapr_http_answer(c, status, text, strlen(text));
}

void dapr_http_want(struct dapr_call *c, unsigned wants)
{
        c->edits->wants |= wants;
}

/* ---- percent-coding ---- */

static char *text_of(struct dapr_call *c, struct str s)
{
        return s.p ? arena_strdup(c->arena, s) : NULL;
}

char *dapr_url_decode(struct dapr_call *c, const char *s)
{
        return text_of(c, url_unescape(c->arena, str_of(s), true));
}

char *dapr_url_encode(struct dapr_call *c, const char *s)
{
        return text_of(c, url_escape(c->arena, str_of(s)));
}

char *dapr_query_get(struct dapr_call *c, const char *query, const char *key)
{
        struct str rest = str_of(query), k, v;
        while (query_next(c->arena, &rest, &k, &v))
                if (str_eqz(k, key))
                        return text_of(c, v);
        return NULL;
}

/* ---- the head ---- */

static int read_headers(struct arena *a, PB(HttpHeader) *const *v, size_t n, struct dapr_kvs *ret)
{
        struct dapr_kv *to = arena_alloc(a, n * sizeof *to);
        for (size_t i = 0; to && i < n; i++) {
                to[i] = (struct dapr_kv){v[i]->name, arena_strdup(a, pb_str(v[i]->value))};
                if (!to[i].value)
                        return -ENOMEM;
        }
        *ret = (struct dapr_kvs){to, n};
        return to ? 0 : -ENOMEM;
}

/* in lives as long as the exchange. -EINVAL: a path with a bad escape. */
static int read_request(struct arena *a, const PB(HttpRequest) *in, struct dapr_http *ret)
{
        struct str path = url_unescape(a, pb_str(in->path), false);
        if (!path.p)
                return -EINVAL;
        *ret = (struct dapr_http){.method = in->method, .scheme = in->scheme, .peer = in->peer, .content_length = in->content_length,
                                  .has_body = in->has_body};
        ret->path = arena_strdup(a, path);
        ret->raw_path = arena_strdup(a, pb_str(in->path));
        ret->query = arena_strdup(a, pb_str(in->query));
        ret->authority = arena_strdup(a, pb_str(in->authority));
        if (!ret->path || !ret->raw_path || !ret->query || !ret->authority)
                return -ENOMEM;
        return read_headers(a, in->headers, in->n_headers, &ret->headers);
}

/* ---- decisions ---- */

struct decision { /* the messages that one is made of */
        PB(HttpHeaderEdits) headers;
        PB(HttpRequestEdits) request;
        PB(HttpResponseEdits) response;
        PB(HttpAnswer) answer;
};

/* An answer has no headers that it could change: set and added ones are its own. */
static int fill(struct http_edits *e, struct decision *d)
{
        microdapr__plugin__v1__http_header_edits__init(&d->headers);
        microdapr__plugin__v1__http_request_edits__init(&d->request);
        microdapr__plugin__v1__http_response_edits__init(&d->response);
        microdapr__plugin__v1__http_answer__init(&d->answer);
        if (e->answered) {
                struct header_list *all = &e->set;
                for (int k = 0; k < 2; k++) {
                        const struct header_list *l = k ? &e->response : &e->add;
                        for (size_t i = 0; i < l->n; i++)
                                if (header_add(e, all, l->v[i]->name, (const char *)l->v[i]->value.data))
                                        return -ENOMEM;
                }
                d->answer.status = e->status;
                d->answer.headers = all->v;
                d->answer.n_headers = all->n;
                d->answer.body = pb_bytes(e->body);
                return 0;
        }
        d->headers.remove = e->remove;
        d->headers.n_remove = e->n_remove;
        d->headers.set = e->set.v;
        d->headers.n_set = e->set.n;
        d->headers.add = e->add.v;
        d->headers.n_add = e->add.n;
        if (e->n_remove + e->set.n + e->add.n)
                d->request.headers = d->response.headers = &d->headers;
        if (e->method) {
                d->request._method_case = MICRODAPR__PLUGIN__V1__HTTP_REQUEST_EDITS___METHOD_METHOD;
                d->request.method = e->method;
        }
        if (e->path.p) {
                d->request._path_case = MICRODAPR__PLUGIN__V1__HTTP_REQUEST_EDITS___PATH_PATH;
                d->request.path = pb_bytes(e->path);
        }
        if (e->query.p) {
                d->request._query_case = MICRODAPR__PLUGIN__V1__HTTP_REQUEST_EDITS___QUERY_QUERY;
                d->request.query = pb_bytes(e->query);
        }
        d->request.response_headers = e->response.v;
        d->request.n_response_headers = e->response.n;
        d->response.status = e->status;
        return 0;
}

static int request_decision(struct http_edits *e, struct decision *d, PB(HttpDecision) *out)
{
        microdapr__plugin__v1__http_decision__init(out);
        if (fill(e, d))
                return -ENOMEM;
        if (e->answered) {
                out->decision_case = MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_ANSWER;
                out->answer = &d->answer;
        } else {
                out->decision_case = MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_PROCEED;
                out->proceed = &d->request;
                out->wants = e->wants;
        }
        return 0;
}

static int response_decision(struct http_edits *e, struct decision *d, PB(HttpResponseDecision) *out)
{
        microdapr__plugin__v1__http_response_decision__init(out);
        if (fill(e, d))
                return -ENOMEM;
        if (e->answered) {
                out->decision_case = MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_ANSWER;
                out->answer = &d->answer;
        } else {
                out->decision_case = MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_PROCEED;
                out->proceed = &d->response;
                out->wants = e->wants;
        }
        return 0;
}

/* ---- operations ---- */

struct job {
        struct dapr_call *dc;
        const struct dapr_middleware_ops *ops;
        struct dapr_http *x;
        struct dapr_bytes in, out;
        bool last, is_response;
};

static int job_request(void *arg)
{
        struct job *j = arg;
        return j->ops->request(j->dc, j->dc->inst->obj, j->x);
}

static int job_response(void *arg)
{
        struct job *j = arg;
        return j->ops->response(j->dc, j->dc->inst->obj, j->x);
}

static int job_body(void *arg)
{
        struct job *j = arg;
        return (j->is_response ? j->ops->response_body : j->ops->request_body)(j->dc, j->dc->inst->obj, j->x, j->in, j->last, &j->out);
}

static int job_done(void *arg)
{
        struct job *j = arg;
        j->ops->done(j->dc->inst->obj, j->x);
        return 0;
}

static int serve_request(struct dapr_call *dc, struct str req)
{
        struct http_edits edits = {.arena = dc->arena};
        struct job j = {.dc = dc, .ops = dc->inst->type->middleware};
        struct dapr_http x;
        struct decision d;
        PB(HttpDecision) out;
        const PB(HttpRequest) *in = pb_unpack_borrow(dc->arena, &microdapr__plugin__v1__http_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        int r = read_request(dc->arena, in, &x);
        if (r == 0) {
                dc->edits = &edits;
                j.x = &x;
                r = sdk_run(dc, j.ops->mode, job_request, &j);
                edits.wants = 0;
        }
        if (r == 0)
                r = request_decision(&edits, &d, &out);
        return r ? sdk_outcome(dc, r) : sdk_reply_pb(dc, &out.base);
}

/* ---- exchanges ---- */

struct exchange {
        struct dapr_call *dc;
        struct job job;
        struct dapr_http x;
        struct arena piece;      /* of one turn of a body */
        unsigned wants;
};

static int turn_request(struct exchange *e, struct str msg, PB(HttpTurnAnswer) *out)
{
        struct http_edits edits = {.arena = e->dc->arena};
        struct decision d;
        PB(HttpDecision) decision;
        /* the message goes with the next one: the head is unpacked once more, for the whole exchange */
        struct str kept = arena_str(e->dc->arena, msg);
        const PB(HttpTurn) *in = kept.p ? pb_unpack_borrow(e->dc->arena, &microdapr__plugin__v1__http_turn__descriptor, kept) : NULL;
        int r = in ? read_request(e->dc->arena, in->request, &e->x) : -ENOMEM;
        if (r)
                return r;
        e->job.x = &e->x;
        e->dc->edits = &edits;
        r = sdk_run(e->dc, e->job.ops->mode, job_request, &e->job);
        edits.wants &= (e->job.ops->request_body ? DAPR_HTTP_REQUEST_BODY : 0u) | (e->job.ops->response ? DAPR_HTTP_RESPONSE : 0u) |
                       (e->job.ops->response_body ? DAPR_HTTP_RESPONSE_BODY : 0u) | (e->job.ops->done ? DAPR_HTTP_END : 0u);
        if (r == 0)
                r = request_decision(&edits, &d, &decision);
        if (r)
                return r;
        e->wants = decision.wants;
        out->answer_case = MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_REQUEST;
        out->request = &decision;
        return rpc_send_pb(e->dc->rpc, &out->base);
}

static int turn_response(struct exchange *e, const PB(HttpResponse) *in, PB(HttpTurnAnswer) *out)
{
        struct http_edits edits = {.arena = e->dc->arena, .wants = e->wants & (DAPR_HTTP_RESPONSE_BODY | DAPR_HTTP_END)};
        struct decision d;
        PB(HttpResponseDecision) decision;
        int r = read_headers(e->dc->arena, in->headers, in->n_headers, &e->x.response_headers);
        for (size_t i = 0; r == 0 && i < in->n_headers; i++) { /* names too are of the message, which goes with the next one */
                struct dapr_kv *h = (struct dapr_kv *)&e->x.response_headers.v[i];
                h->key = arena_strdup(e->dc->arena, str_of(h->key));
                r = h->key ? 0 : -ENOMEM;
        }
        e->x.status = in->status;
        e->dc->edits = &edits;
        if (r == 0 && e->job.ops->response)
                r = sdk_run(e->dc, e->job.ops->mode, job_response, &e->job);
        if (r == 0)
                r = response_decision(&edits, &d, &decision);
        if (r)
                return r;
        out->answer_case = MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_RESPONSE;
        out->response = &decision;
        return rpc_send_pb(e->dc->rpc, &out->base);
}

static int turn_body(struct exchange *e, const PB(HttpChunk) *in, bool is_response, PB(HttpTurnAnswer) *out)
{
        PB(HttpChunk) chunk = MICRODAPR__PLUGIN__V1__HTTP_CHUNK__INIT;
        struct arena *all = e->dc->arena;
        int r = 0;
        if (!(is_response ? e->job.ops->response_body : e->job.ops->request_body))
                return -EBADMSG;
        e->job.in = (struct dapr_bytes){in->data.data ? (const void *)in->data.data : "", in->data.len};
        e->job.last = in->end;
        e->job.is_response = is_response;
        e->job.out = (struct dapr_bytes){0};
        e->dc->arena = &e->piece;
        r = sdk_run(e->dc, e->job.ops->mode, job_body, &e->job);
        e->dc->arena = all;
        chunk.data = pb_bytes(str_n(e->job.out.p, e->job.out.n));
        chunk.end = in->end;
        out->answer_case = is_response ? MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_RESPONSE_BODY
                                       : MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_REQUEST_BODY;
        out->request_body = &chunk; /* of the same type and place as response_body */
        if (r == 0)
                r = rpc_send_pb(e->dc->rpc, &out->base);
        arena_reset(&e->piece);
        return r;
}

static int turn(struct exchange *e, const PB(HttpTurn) *in, struct str msg)
{
        PB(HttpTurnAnswer) out = MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__INIT;
        bool first = e->job.x == NULL;
        if (first != (in->turn_case == MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST))
                return -EBADMSG;
        switch (in->turn_case) {
        case MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST: return turn_request(e, msg, &out);
        case MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST_BODY: return turn_body(e, in->request_body, false, &out);
        case MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_RESPONSE: return turn_response(e, in->response, &out);
        case MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_RESPONSE_BODY: return turn_body(e, in->response_body, true, &out);
        case MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN__NOT_SET:
        case _MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN__CASE_IS_INT_SIZE: break;
        }
        return -EBADMSG;
}

static int serve_exchange(struct dapr_call *dc, struct str none)
{
        struct exchange e = {.dc = dc, .job = {.dc = dc, .ops = dc->inst->type->middleware}};
        struct str msg;
        int r, failed = 0;
        dc->rpc->flags |= RPC_REUSE;
        arena_init(&e.piece, PIECE_ARENA_BYTES);
        sdk_work_begin(dc->rt);
        while ((r = rpc_recv(dc->rpc, &msg)) > 0) {
                const PB(HttpTurn) *in = pb_unpack_borrow(rpc_msg_arena(dc->rpc), &microdapr__plugin__v1__http_turn__descriptor, msg);
                failed = in ? turn(&e, in, msg) : -EBADMSG;
                if (failed)
                        break;
        }
        if (e.job.x && e.job.ops->done) {
                fiber_shield_begin();
                sdk_run(dc, e.job.ops->mode, job_done, &e.job);
                fiber_shield_end();
        }
        sdk_work_end(dc->rt);
        arena_fini(&e.piece);
        return failed ? sdk_outcome(dc, failed) : r;
}

/* ---- the component ---- */

unsigned sdk_middleware_features(const struct dapr_middleware_ops *ops)
{
        return ops->response || ops->request_body || ops->response_body || ops->done ? DAPR_FEATURE_HTTP_EXCHANGE : 0;
}

static int middleware_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* HttpMiddlewareInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_MIDDLEWARE, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int middleware_features(struct dapr_call *dc, struct str req)
{
        /* FeaturesResponse { repeated string features = 1 } */
        bool exchange = sdk_call_features(dc, SDK_MIDDLEWARE) & DAPR_FEATURE_HTTP_EXCHANGE;
        return sdk_reply(dc, exchange ? STR("\x0a\x0dHTTP_EXCHANGE") : STR(""));
}

static int middleware_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define MIDDLEWARE "/microdapr.plugin.v1.HttpMiddleware/"
static const struct sdk_method methods[] = {
        {MIDDLEWARE "Init", SDK_MIDDLEWARE, middleware_init, .any_instance = true},
        {MIDDLEWARE "Features", SDK_MIDDLEWARE, middleware_features, true, .any_instance = true},
        {MIDDLEWARE "Ping", SDK_MIDDLEWARE, middleware_ping, true, .any_instance = true},
        {MIDDLEWARE "Request", SDK_MIDDLEWARE, serve_request, true},
        {MIDDLEWARE "Exchange", SDK_MIDDLEWARE, serve_exchange, .stream = true},
};
const struct sdk_service sdk_middleware_service = {methods, sizeof methods / sizeof *methods};
