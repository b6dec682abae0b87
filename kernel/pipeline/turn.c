/*
 * What is said to a filter and what its answers may be. A filter is another process: every string of its edits is checked before it can
 * reach the wire (no line breaks, no spaces in a path), and what belongs to a connection (lengths, framing, hop-by-hop) is not its to
 * say.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/pipeline/internal.h"
#include "sdk/net/http1.h"

/* ---- heads as messages ---- */

static PB(HttpHeader) **pack_headers(struct arena *a, const struct http_headers *h)
{
        PB(HttpHeader) **v = arena_alloc(a, h->n * sizeof *v), *m = arena_alloc(a, h->n * sizeof *m);

        if (!v || !m)
                return NULL;
        for (size_t i = 0; i < h->n; i++) {
                microdapr__plugin__v1__http_header__init(&m[i]);
                m[i].name = arena_strdup(a, h->v[i].name);
                m[i].value = pb_bytes(h->v[i].value);
                if (!m[i].name)
                        return NULL;
                v[i] = &m[i];
        }
        return v;
}

PB(HttpRequest) *pipeline_pack_request(struct way *w)
{
        const struct pipeline_head *h = &w->x.head;
        PB(HttpRequest) *m = arena_new(w->arena, PB(HttpRequest));

        if (!m)
                return NULL;
        microdapr__plugin__v1__http_request__init(m);
        m->method = arena_strdup(w->arena, h->method);
        m->path = pb_bytes(h->path);
        m->query = pb_bytes(h->query);
        m->authority = pb_bytes(h->authority);
        m->scheme = h->scheme;
        m->peer = h->peer ? h->peer : "";
        m->version = h->version;
        m->headers = pack_headers(w->arena, &h->headers);
        m->n_headers = h->headers.n;
        m->content_length = h->content_length;
        m->has_body = h->has_body;
        return m->method && m->headers ? m : NULL;
}

/* ---- what a filter may say ---- */

static bool is_value(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f)
                        return false;
        return true;
}

static bool is_path(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7f || s.p[i] == '?' || s.p[i] == '#')
                        return false;
        return s.n && s.p[0] == '/';
}

static bool is_query(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f || s.p[i] == '#')
                        return false;
        return true;
}

static bool is_of_connection(struct str name)
{
        static const char *const names[] = {"Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Trailer", "Host"};

        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (str_ieq(name, str_of(names[i])))
                        return true;
        return false;
}

struct edit {
        struct way *w;
        const struct pipeline_handler *h;
        bool keep; /* copy strings */
};

static struct str text(const struct edit *e, struct str s)
{
        return e->keep ? arena_str(e->w->arena, s) : s;
}

static int bad(const struct edit *e, const char *what)
{
        return pipeline_fault(e->w, e->h, 500, "answered with %s", what);
}

/* Adds or sets. */
static int put(const struct edit *e, struct http_headers *to, PB(HttpHeader) *const *v, size_t n, bool replace)
{
        for (size_t i = 0; replace && i < n; i++)
                http_headers_remove(to, v[i]->name);
        for (size_t i = 0; i < n; i++) {
                struct str name = str_of(v[i]->name), value = v[i]->value.len ? pb_str(v[i]->value) : STR("");
                if (!http1_is_token(name) || !is_value(value))
                        return bad(e, "a header that is none");
                if (is_of_connection(name))
                        continue;
                name = text(e, name);
                value = text(e, value);
                if (!name.p || !value.p || http_headers_add(to, e->w->arena, name, value))
                        return bad(e, "more headers than one request's memory holds");
        }
        return 0;
}

static int edit_headers(const struct edit *e, struct http_headers *to, const PB(HttpHeaderEdits) *d)
{
        int r;

        if (!d)
                return 0;
        if (d->n_remove + d->n_set + d->n_add > PIPELINE_HEADERS_MAX)
                return bad(e, "too many headers");
        for (size_t i = 0; i < d->n_remove; i++)
                if (!is_of_connection(str_of(d->remove[i])))
                        http_headers_remove(to, d->remove[i]);
        r = put(e, to, d->set, d->n_set, true);
        return r ? r : put(e, to, d->add, d->n_add, false);
}

static int edit_request(const struct edit *e, const PB(HttpRequestEdits) *d)
{
        struct pipeline_head *h = &e->w->x.head;

        if (d->_method_case) {
                if (!http1_is_token(str_of(d->method)))
                        return bad(e, "a method that is none");
                h->method = text(e, str_of(d->method));
        }
        if (d->_path_case) {
                if (!is_path(pb_str(d->path)) || !url_unescape(e->w->arena, pb_str(d->path), false).p)
                        return bad(e, "a path that is none (percent-encoded, beginning with a slash)");
                h->path = text(e, pb_str(d->path));
        }
        if (d->_query_case) {
                if (!is_query(pb_str(d->query)))
                        return bad(e, "a query that is none (percent-encoded)");
                h->query = d->query.len ? text(e, pb_str(d->query)) : STR("");
        }
        if (!h->method.p || !h->path.p || !h->query.p)
                return bad(e, "more than one request's memory holds");
        if (d->n_response_headers > PIPELINE_HEADERS_MAX)
                return bad(e, "too many headers");
        int r = put(e, &e->w->added, d->response_headers, d->n_response_headers, false);
        return r ? r : edit_headers(e, &h->headers, d->headers);
}

static int check_answer(const struct edit *e, const PB(HttpAnswer) *d, struct http_headers *headers, struct str *body)
{
        if (d->status < 200 || d->status > 599)
                return pipeline_fault(e->w, e->h, 500, "answered with status %d, which is none", d->status);
        if (d->n_headers > PIPELINE_HEADERS_MAX)
                return bad(e, "too many headers");
        *headers = (struct http_headers){0};
        *body = d->body.len ? text(e, pb_str(d->body)) : STR("");
        if (!body->p)
                return bad(e, "more than one request's memory holds");
        return put(e, headers, d->headers, d->n_headers, false);
}

int pipeline_decide_request(struct way *w, const struct pipeline_handler *h, const PB(HttpDecision) *d, bool keep)
{
        const struct edit e = {w, h, keep};
        int r;

        switch (d->decision_case) {
        case MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_PROCEED: return edit_request(&e, d->proceed);
        case MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_ANSWER:
                r = check_answer(&e, d->answer, &w->x.answer.headers, &w->x.answer.body);
                w->x.answer.status = d->answer->status;
                return r ? r : PASSAGE_ANSWERED;
        case MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_NEED_BODY: return -EAGAIN;
        case MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION__NOT_SET:
        case _MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION__CASE_IS_INT_SIZE: break;
        }
        return bad(&e, "no decision");
}

/* Another response in the place of this one: its body comes out of the filter's lane. */
static int replace_response(const struct edit *e, struct filter *f, const PB(HttpAnswer) *d)
{
        struct pipeline_head *h = &e->w->x.response;
        struct lane *l = &f->lane[TO_CLIENT];
        struct str body;
        int r = check_answer(e, d, &h->headers, &body);

        if (r)
                return r;
        h->status = d->status;
        h->content_length = (int64_t)body.n;
        h->has_body = body.n > 0;
        buf_clear(&l->out);
        if (buf_adds(&l->out, body))
                return bad(e, "more than one request's memory holds");
        l->done = true;
        f->wants |= WANT_RESPONSE_BODY;
        return 0;
}

static int decide_response(struct way *w, struct filter *f, const PB(HttpResponseDecision) *d)
{
        const struct edit e = {w, f->handler, true};
        struct pipeline_head *h = &w->x.response;

        switch (d->decision_case) {
        case MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_PROCEED:
                if (d->proceed->status && (d->proceed->status < 200 || d->proceed->status > 599))
                        return pipeline_fault(w, f->handler, 500, "answered with status %d, which is none", d->proceed->status);
                if (d->proceed->status)
                        h->status = d->proceed->status;
                f->wants = (f->wants & WANT_END) | (d->wants & (WANT_RESPONSE_BODY | WANT_END));
                if (f->needs_body)
                        f->wants |= WANT_RESPONSE_BODY;
                if (f->wants & WANT_RESPONSE_BODY) {
                        h->content_length = -1;
                        http_headers_remove(&h->headers, "Content-Length");
                }
                return edit_headers(&e, &h->headers, d->proceed->headers);
        case MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_ANSWER: return replace_response(&e, f, d->answer);
        case MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_NEED_BODY: return -EAGAIN;
        case MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION__NOT_SET:
        case _MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION__CASE_IS_INT_SIZE: break;
        }
        return bad(&e, "no decision");
}

/* ---- turns ---- */

static int lost(struct way *w, struct filter *f)
{
        const struct rpc_status *st = &f->rpc->status;

        if (fiber_is_cancelled())
                return -ECANCELED;
        if (st->code == RPC_OK)
                return pipeline_fault(w, f->handler, 500, "ended the exchange without an answer");
        return pipeline_fault(w, f->handler, st->transport ? 503 : 500, "%.*s", STR_FMT(st->message));
}

/* One message there, one back; the lock is held. The answer lives until the next turn. */
static int say(struct way *w, struct filter *f, const PB(HttpTurn) *t, PB(HttpTurnAnswer) **ret)
{
        struct str msg;

        if (!f->rpc)
                return pipeline_fault(w, f->handler, 500, "has ended its exchange");
        buf_clear(&f->wire);
        if (pb_pack_buf(&f->wire, &t->base))
                return -ENOMEM;
        if (rpc_send(f->rpc, buf_str(&f->wire)) && fiber_is_cancelled())
                return -ECANCELED;
        if (rpc_recv(f->rpc, &msg) <= 0)
                return lost(w, f);
        *ret = pb_unpack_borrow(rpc_msg_arena(f->rpc), &microdapr__plugin__v1__http_turn_answer__descriptor, msg);
        return *ret ? 0 : pipeline_fault(w, f->handler, 500, "answered with bytes that are no answer");
}

static int unexpected(struct way *w, struct filter *f)
{
        return pipeline_fault(w, f->handler, 500, "answered what it was not asked");
}

static int take_decision(struct way *w, struct filter *f, const PB(HttpTurnAnswer) *a, enum direction d)
{
        int r;

        if (d == TO_SERVER) {
                if (a->answer_case != MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_REQUEST)
                        return unexpected(w, f);
                r = pipeline_decide_request(w, f->handler, a->request, true);
                f->wants = r == 0 ? a->request->wants : 0;
                return r;
        }
        return a->answer_case == MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_RESPONSE ? decide_response(w, f, a->response)
                                                                                            : unexpected(w, f);
}

static int turn(struct way *w, struct filter *f, const PB(HttpTurn) *t, int (*fn)(struct way *, struct filter *, const PB(HttpTurnAnswer) *, enum direction),
                enum direction d)
{
        PB(HttpTurnAnswer) *a;
        int r = fmutex_lock(&f->lock);

        if (r)
                return r;
        r = say(w, f, t, &a);
        if (r == 0)
                r = fn(w, f, a, d);
        fmutex_unlock(&f->lock);
        return r;
}

int pipeline_turn_request(struct way *w, struct filter *f)
{
        PB(HttpTurn) t = MICRODAPR__PLUGIN__V1__HTTP_TURN__INIT;

        t.turn_case = MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST;
        t.request = pipeline_pack_request(w);
        return t.request ? turn(w, f, &t, take_decision, TO_SERVER) : -ENOMEM;
}

int pipeline_turn_response(struct way *w, struct filter *f)
{
        PB(HttpTurn) t = MICRODAPR__PLUGIN__V1__HTTP_TURN__INIT;
        PB(HttpResponse) m = MICRODAPR__PLUGIN__V1__HTTP_RESPONSE__INIT;
        const struct pipeline_head *h = &w->x.response;

        m.status = h->status;
        m.headers = pack_headers(w->arena, &h->headers);
        m.n_headers = h->headers.n;
        m.content_length = h->content_length;
        m.has_body = h->has_body;
        t.turn_case = MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_RESPONSE;
        t.response = &m;
        return m.headers ? turn(w, f, &t, take_decision, TO_CLIENT) : -ENOMEM;
}

static int take_chunk(struct way *w, struct filter *f, const PB(HttpTurnAnswer) *a, enum direction d)
{
        const PB(HttpChunk) *c = d == TO_SERVER ? a->request_body : a->response_body;
        struct lane *l = &f->lane[d];

        if (f->needs_body)
                return take_decision(w, f, a, d);
        if (a->answer_case != (d == TO_SERVER ? MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_REQUEST_BODY
                                              : MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_RESPONSE_BODY))
                return unexpected(w, f);
        if (c->data.len > PIPELINE_ANSWER_BYTES)
                return pipeline_fault(w, f->handler, 500, "answered with a chunk of %zu bytes; the limit is %d", c->data.len, PIPELINE_ANSWER_BYTES);
        if (buf_add(&l->out, c->data.data, c->data.len))
                return -ENOMEM;
        l->more = c->more && !c->end;
        l->done = c->end || (l->source_ended && !l->more);
        return 0;
}

int pipeline_turn_chunk(struct way *w, struct filter *f, enum direction d, size_t n)
{
        PB(HttpTurn) t = MICRODAPR__PLUGIN__V1__HTTP_TURN__INIT;
        PB(HttpChunk) m = MICRODAPR__PLUGIN__V1__HTTP_CHUNK__INIT;

        m.data = pb_bytes(str_n(f->lane[d].chunk, n));
        m.end = f->lane[d].source_ended;
        if (d == TO_SERVER) {
                t.turn_case = MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST_BODY;
                t.request_body = &m;
        } else {
                t.turn_case = MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_RESPONSE_BODY;
                t.response_body = &m;
        }
        return turn(w, f, &t, take_chunk, d);
}
