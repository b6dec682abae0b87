/*
 * The conformance kit for HTTP middleware: requests are shown as the runtime shows them, and what a filter says must be what may reach
 * the wire. A filter without HTTP_EXCHANGE sees heads only; one with it is led through whole exchanges, in turns: each message is
 * answered by exactly one, of the kind that was asked for.
 */
#include <ctype.h>
#include <errno.h>

#include "ctl/conform.h"
#include "plugin/v1/middleware.pb-c.h"

#define PB(name) Microdapr__Plugin__V1__##name
#define SERVICE "/microdapr.plugin.v1.HttpMiddleware/"
enum { CHUNK_BYTES = 64 * 1024, ANSWER_BYTES = 1 << 20, BIG_BODY = 2 << 20, MANY = 32, SMALL_CUT = 7, TURNS_MAX = 100000, HEADERS_MAX = 1000,
       WANT_REQUEST_BODY = 1, WANT_RESPONSE = 2, WANT_RESPONSE_BODY = 4, WANT_END = 8 };

typedef PB(HttpTurn) turn_t;
typedef PB(HttpTurnAnswer) answer_t;

struct trial { /* a request, and what would come back from behind the filter */
        const char *method, *path, *query, *version;
        const PB(HttpHeader) *headers;
        size_t n_headers;
        struct str body, response;
        size_t cut;            /* bytes of a chunk; 0 = the most that a chunk may have */
        bool end_with_last;    /* the end is said with the last bytes, not after them */
};
struct outcome {
        bool answered;         /* by the filter itself */
        int status;            /* of its answer, or of the response behind it */
        struct buf request, response; /* bodies as the filter gave them */
        unsigned wants;
};
struct talk { /* one exchange */
        struct conform *c;
        struct arena arena;
        struct rpc_call *call;
        const struct trial *t;
        struct outcome *out;
};
struct body { /* one direction of it */
        struct str left;
        struct buf *to;
        bool ended, more, is_request;
};

/* ---- what may be said ---- */

static bool is_token(const char *s)
{
        const char *p = s;
        for (; *p; p++)
                if (!isalnum((unsigned char)*p) && !strchr("!#$%&'*+-.^_`|~", *p))
                        return false;
        return p > s;
}

static bool is_clean(struct str s, bool spaces)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] < ' ' ? s.p[i] != '\t' || !spaces : s.p[i] == 0x7f || (s.p[i] == ' ' && !spaces))
                        return false;
        return true;
}

static const char *check_headers(struct conform *c, PB(HttpHeader) *const *v, size_t n)
{
        MUST(n <= HEADERS_MAX, "it edits more than 1,000 headers");
        for (size_t i = 0; i < n; i++) {
                MUST(is_token(v[i]->name), conform_text(c, "'%s' is no name of a header", v[i]->name));
                MUST(is_clean(pb_str(v[i]->value), true), conform_text(c, "the header %s has a value with control characters", v[i]->name));
        }
        return NULL;
}

static const char *check_edits(struct conform *c, const PB(HttpHeaderEdits) *d)
{
        HOLD(d ? check_headers(c, d->set, d->n_set) : NULL);
        return d ? check_headers(c, d->add, d->n_add) : NULL;
}

static const char *check_answer(struct conform *c, const PB(HttpAnswer) *a, struct outcome *out)
{
        MUST(a->status >= 200 && a->status <= 599, conform_text(c, "it answers with status %d", a->status));
        out->answered = true;
        out->status = a->status;
        return check_headers(c, a->headers, a->n_headers);
}

/* *ret_needs: it wants the body first. */
static const char *check_decision(struct conform *c, const PB(HttpDecision) *d, struct outcome *out, bool *ret_needs)
{
        *ret_needs = d->decision_case == MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_NEED_BODY;
        out->wants = d->wants;
        if (*ret_needs)
                return NULL;
        if (d->decision_case == MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_ANSWER)
                return check_answer(c, d->answer, out);
        MUST(d->decision_case == MICRODAPR__PLUGIN__V1__HTTP_DECISION__DECISION_PROCEED, "its decision is empty");
        const PB(HttpRequestEdits) *e = d->proceed;
        MUST(!e->_method_case || is_token(e->method), "it sets a method that is none");
        MUST(!e->_path_case || (e->path.len && e->path.data[0] == '/' && is_clean(pb_str(e->path), false)), "it sets a path that is none");
        MUST(!e->_query_case || is_clean(pb_str(e->query), false), "it sets a query that is none");
        HOLD(check_headers(c, e->response_headers, e->n_response_headers));
        return check_edits(c, e->headers);
}

/* ---- requests ---- */

static PB(HttpRequest) *pack_request(struct conform *c, struct arena *a, const struct trial *t)
{
        PB(HttpRequest) *m = arena_new(a, PB(HttpRequest));
        const PB(HttpHeader) **v = arena_alloc(a, (t->n_headers + 1) * sizeof *v);
        if (!m || !v)
                return NULL;
        microdapr__plugin__v1__http_request__init(m);
        for (size_t i = 0; i < t->n_headers; i++)
                v[i] = &t->headers[i];
        m->method = t->method;
        m->path = pb_bytes(str_of(t->path));
        m->query = pb_bytes(str_of(t->query ? t->query : ""));
        m->authority = pb_bytes(STR("127.0.0.1:3500"));
        m->scheme = "http";
        m->peer = "127.0.0.1:40000";
        m->version = t->version ? t->version : "HTTP/1.1";
        m->headers = (PB(HttpHeader) **)v;
        m->n_headers = t->n_headers;
        m->content_length = t->cut ? -1 : (int64_t)t->body.n;
        m->has_body = t->body.n > 0;
        (void)c;
        return m;
}

static const char *show_head(struct conform *c, struct arena *a, const struct trial *t, struct outcome *out)
{
        PB(HttpDecision) *d;
        PB(HttpRequest) *m = pack_request(c, a, t);
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md, .timeout_s = c->timeout_s};
        bool needs;
        MUST(m, "out of memory");
        c->status = (struct rpc_status){0};
        TRY(rpc_unary_pb(c->ch, a, SERVICE "Request", &m->base, &microdapr__plugin__v1__http_decision__descriptor, &d, &o, &c->status), "Request");
        HOLD(check_decision(c, d, out, &needs));
        MUST(!needs && !d->wants, "it wants more than the head, but has no feature HTTP_EXCHANGE");
        return NULL;
}

/* One message there, one back. */
static const char *say(struct talk *k, const turn_t *t, answer_t **ret)
{
        struct conform *c = k->c;
        rpc_send_pb(k->call, &t->base);
        double old = fiber_set_deadline(loop_now_exact() + c->timeout_s);
        int r = rpc_recv_pb(k->call, &microdapr__plugin__v1__http_turn_answer__descriptor, ret);
        fiber_restore_deadline(old);
        c->status = k->call->status;
        return r == 1 ? NULL : r == 0 ? "it ends the exchange without an answer" : r == -ETIMEDOUT ? "it does not answer a turn" : conform_wrong(c, "a turn");
}

static void next_chunk(struct talk *k, struct body *b, PB(HttpChunk) *m)
{
        size_t most = k->t->cut ? k->t->cut : CHUNK_BYTES, n = b->left.n < most ? b->left.n : most;
        if (b->more || b->ended)
                n = 0;
        m->data = pb_bytes(str_n(b->left.p, n));
        b->left = str_skip(b->left, n);
        b->ended |= !b->more && (n == 0 || (k->t->end_with_last && !b->left.n));
        m->end = b->ended;
}

static const char *say_chunk(struct talk *k, struct body *b, answer_t **ret)
{
        turn_t t = MICRODAPR__PLUGIN__V1__HTTP_TURN__INIT;
        PB(HttpChunk) m = MICRODAPR__PLUGIN__V1__HTTP_CHUNK__INIT;
        next_chunk(k, b, &m);
        t.turn_case = b->is_request ? MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST_BODY : MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_RESPONSE_BODY;
        if (b->is_request)
                t.request_body = &m;
        else
                t.response_body = &m;
        return say(k, &t, ret);
}

/* The body through the filter, to its end. */
static const char *pass_body(struct talk *k, struct body *b)
{
        answer_t *a;
        for (int i = 0; i < TURNS_MAX; i++) {
                HOLD(say_chunk(k, b, &a));
                MUST(a->answer_case == (b->is_request ? MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_REQUEST_BODY
                                                      : MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_RESPONSE_BODY),
                     "a chunk is answered with something else");
                const PB(HttpChunk) *got = b->is_request ? a->request_body : a->response_body;
                MUST(got->data.len <= ANSWER_BYTES, "it gives more than 1 MiB in one chunk");
                buf_add(b->to, got->data.data, got->data.len);
                b->more = got->more && !got->end;
                if (got->end || (b->ended && !b->more))
                        return NULL;
        }
        return "its body does not end";
}

/* The stream is over on the filter's side, too: without an error. */
static const char *ends_well(struct talk *k)
{
        struct conform *c = k->c;
        answer_t *a;
        rpc_send_end(k->call);
        double old = fiber_set_deadline(loop_now_exact() + c->timeout_s);
        int r = rpc_recv_pb(k->call, &microdapr__plugin__v1__http_turn_answer__descriptor, &a);
        fiber_restore_deadline(old);
        c->status = k->call->status;
        MUST(r != 1, "it says more after the end of the exchange");
        return r == 0 ? NULL : r == -ETIMEDOUT ? "its side of the stream does not end with the runtime's" : conform_wrong(c, "the end of an exchange");
}

static const char *ask_request(struct talk *k, struct body *b, bool *ret_needed)
{
        turn_t t = MICRODAPR__PLUGIN__V1__HTTP_TURN__INIT;
        answer_t *a;
        bool needs;
        t.turn_case = MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST;
        t.request = pack_request(k->c, &k->arena, k->t);
        MUST(t.request, "out of memory");
        HOLD(say(k, &t, &a));
        for (*ret_needed = false;; *ret_needed = true) {
                MUST(a->answer_case == MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_REQUEST, "a request is answered with something else than a decision");
                HOLD(check_decision(k->c, a->request, k->out, &needs));
                if (!needs)
                        return NULL;
                MUST(!b->ended, "it still asks for the body after its end");
                HOLD(say_chunk(k, b, &a));
        }
}

static const char *ask_response(struct talk *k)
{
        turn_t t = MICRODAPR__PLUGIN__V1__HTTP_TURN__INIT;
        PB(HttpResponse) m = MICRODAPR__PLUGIN__V1__HTTP_RESPONSE__INIT;
        PB(HttpHeader) type = MICRODAPR__PLUGIN__V1__HTTP_HEADER__INIT, *headers[] = {&type};
        struct body b = {.left = k->t->response, .to = &k->out->response};
        answer_t *a;
        type.name = "content-type";
        type.value = pb_bytes(STR("text/plain"));
        m.status = k->out->status = 200;
        m.headers = headers;
        m.n_headers = 1;
        m.content_length = (int64_t)k->t->response.n;
        m.has_body = k->t->response.n > 0;
        t.turn_case = MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_RESPONSE;
        t.response = &m;
        HOLD(say(k, &t, &a));
        for (bool needed = false;; needed = true) {
                MUST(a->answer_case == MICRODAPR__PLUGIN__V1__HTTP_TURN_ANSWER__ANSWER_RESPONSE, "a response is answered with something else than a decision");
                const PB(HttpResponseDecision) *d = a->response;
                if (d->decision_case == MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_ANSWER) {
                        buf_add(&k->out->response, d->answer->body.data, d->answer->body.len);
                        return check_answer(k->c, d->answer, k->out);
                }
                if (d->decision_case == MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_PROCEED) {
                        MUST(!d->proceed->status || (d->proceed->status >= 200 && d->proceed->status <= 599), "it sets a status that is none");
                        k->out->status = d->proceed->status ? d->proceed->status : 200;
                        HOLD(check_edits(k->c, d->proceed->headers));
                        return needed || (d->wants & WANT_RESPONSE_BODY) ? pass_body(k, &b) : NULL;
                }
                MUST(d->decision_case == MICRODAPR__PLUGIN__V1__HTTP_RESPONSE_DECISION__DECISION_NEED_BODY, "its decision about a response is empty");
                MUST(!b.ended, "it still asks for the response's body after its end");
                HOLD(say_chunk(k, &b, &a));
        }
}

static const char *run_exchange(struct talk *k)
{
        struct body b = {.left = k->t->body, .to = &k->out->request, .is_request = true};
        bool needed;
        HOLD(ask_request(k, &b, &needed));
        unsigned wants = k->out->answered ? 0 : k->out->wants;
        MUST(wants < 16, "it wants bits that there are none of");
        if (!k->out->answered && (needed || (wants & WANT_REQUEST_BODY)))
                HOLD(pass_body(k, &b));
        if (wants & (WANT_RESPONSE | WANT_RESPONSE_BODY))
                HOLD(ask_response(k));
        return ends_well(k);
}

static const char *show(struct conform *c, const struct trial *t, struct outcome *out)
{
        struct talk k = {.c = c, .t = t, .out = out};
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
        const char *fault;
        *out = (struct outcome){0};
        arena_init(&k.arena, 0);
        if (!conform_has(c, "HTTP_EXCHANGE"))
                fault = show_head(c, &k.arena, t, out);
        else if (rpc_open(c->ch, &k.arena, SERVICE "Exchange", &o, &k.call, &c->status))
                fault = conform_wrong(c, "Exchange");
        else {
                fault = run_exchange(&k);
                rpc_cancel(k.call);
                rpc_finish(k.call);
        }
        if (fault) /* what it says may stand in the exchange's memory */
                fault = conform_text(c, "%s", fault);
        c->status = (struct rpc_status){0};
        arena_fini(&k.arena);
        return fault;
}

static void outcome_fini(struct outcome *o)
{
        buf_fini(&o->request);
        buf_fini(&o->response);
}

static const char *show_all(struct conform *c, const struct trial *v, size_t n)
{
        const char *fault = NULL;
        for (size_t i = 0; i < n && !fault; i++) {
                struct outcome out;
                fault = show(c, &v[i], &out);
                if (fault)
                        fault = conform_text(c, "%s %.60s: %s", v[i].method, v[i].path, fault);
                outcome_fini(&out);
        }
        return fault;
}

/* ---- checks ---- */

static const char *requests_are_decided(struct conform *c)
{
        const struct trial v[] = {{.method = "GET", .path = "/"}, {.method = "HEAD", .path = "/v1.0/metadata"}, {.method = "OPTIONS", .path = "/a", .query = "x=1"},
                                  {.method = "POST", .path = "/v1.0/publish/a/b", .body = STR("{\"a\":1}"), .response = STR("done")},
                                  {.method = "PUT", .path = "/v1.0/invoke/app/method/x", .body = STR("text"), .version = "HTTP/2.0"},
                                  {.method = "DELETE", .path = "/v1.0/state/s/k", .response = STR("gone")}, {.method = "PATCH", .path = "/x", .body = STR("x")}};
        return show_all(c, v, sizeof v / sizeof *v);
}

/* A request that no well-behaved client sends must be decided, too: a filter that fails closes the way for all. */
static const char *odd_requests_are_decided(struct conform *c)
{
        enum { N = 200 };
        PB(HttpHeader) *h = arena_alloc(&c->call, N * sizeof *h);
        char *path = arena_alloc(&c->call, 8193);
        MUST(h && path, "out of memory");
        memset(path, 'p', 8192);
        path[0] = '/';
        path[8192] = '\0';
        for (int i = 0; i < N; i++) {
                microdapr__plugin__v1__http_header__init(&h[i]);
                h[i].name = i % 2 ? "x-twice" : arena_printf(&c->call, "X-Header-%d", i);
                h[i].value = i % 3 ? pb_bytes(STR("\xc3\xbcml\xff\t;,\"")) : pb_bytes(STR(""));
        }
        h[0].name = "authorization";
        h[0].value = pb_bytes(STR("Bearer a.b.c"));
        h[2].name = "cookie";
        h[2].value = pb_bytes(STR("=;;=x; session=\"; a=b"));
        const struct trial v[] = {{.method = "GET", .path = "/", .headers = h, .n_headers = N}, {.method = "GET", .path = path, .query = path},
                                  {.method = "WHAT-IS-THIS", .path = "/%25%41/../..//a;b=c%20", .query = "&&=&%zz=%&a=b=c&a"},
                                  {.method = "POST", .path = "/", .body = STR(" "), .headers = h, .n_headers = 3, .cut = 1}};
        return show_all(c, v, sizeof v / sizeof *v);
}

/* It may serve Exchange all the same, as SDKs do: but then it wants nothing there that it would never get. */
static const char *heads_only(struct conform *c)
{
        const struct trial t = {.method = "POST", .path = "/v1.0/publish/a/b", .body = STR("text"), .response = STR("text")};
        struct outcome out = {0};
        struct body b = {.left = t.body, .to = &out.request, .is_request = true};
        struct talk k = {.c = c, .t = &t, .out = &out};
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
        bool needed = false;
        const char *fault = NULL;
        if (conform_has(c, "HTTP_EXCHANGE"))
                return conform_skip(c, "it has HTTP_EXCHANGE");
        arena_init(&k.arena, 0);
        if (rpc_open(c->ch, &k.arena, SERVICE "Exchange", &o, &k.call, &c->status) == 0) {
                if (ask_request(&k, &b, &needed) == NULL && (needed || (!out.answered && out.wants)))
                        fault = "HTTP_EXCHANGE is not declared, but Exchange wants bodies or responses: it would never be asked for them";
                rpc_cancel(k.call);
                rpc_finish(k.call);
        }
        buf_fini(&out.request);
        arena_fini(&k.arena);
        return fault;
}

static bool same(struct outcome *a, struct outcome *b)
{
        return a->answered == b->answered && a->status == b->status && str_eq(buf_str(&a->request), buf_str(&b->request)) &&
               str_eq(buf_str(&a->response), buf_str(&b->response));
}

/* Twice alike, to know that it can be compared; then cut to pieces. */
static const char *cuts_make_no_difference(struct conform *c)
{
        struct outcome out[4];
        char text[3001];
        for (int i = 0; i < 3000; i++)
                text[i] = (char)('a' + i % 26);
        memcpy(text + 1000, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x8e\x89", 9);
        struct trial t = {.method = "POST", .path = "/v1.0/invoke/app/method/x", .body = str_n(text, 3000), .response = str_n(text, 2000)};
        const char *fault = NULL;
        memset(out, 0, sizeof out);
        for (int i = 0; i < 4 && !fault; i++) {
                t.cut = i < 2 ? 0 : SMALL_CUT;
                t.end_with_last = i == 3;
                fault = show(c, &t, &out[i]);
        }
        if (!fault && !same(&out[0], &out[1]))
                fault = conform_skip(c, "it does not say the same twice");
        else if (!fault && (!same(&out[0], &out[2]) || !same(&out[0], &out[3])))
                fault = "a body that comes in pieces of 7 bytes comes out as another one than in one piece";
        for (int i = 0; i < 4; i++)
                outcome_fini(&out[i]);
        return fault;
}

static const char *big_bodies_pass(struct conform *c)
{
        char *big = arena_alloc(&c->call, BIG_BODY);
        MUST(big, "out of memory");
        for (size_t i = 0; i < BIG_BODY; i++)
                big[i] = (char)(i * 131 >> 7);
        const struct trial t = {.method = "POST", .path = "/big", .body = str_n(big, BIG_BODY), .response = str_n(big, BIG_BODY)};
        return show_all(c, &t, 1);
}

struct crowd {
        struct conform *c;
        struct scope scope;
        const char *fault;
        int done;
};

static void one_of_crowd(void *arg)
{
        struct crowd *w = arg;
        struct conform c = *w->c; /* its own status */
        const struct trial t = {.method = "POST", .path = "/many", .body = STR("one of many"), .response = STR("response"), .cut = 3};
        struct outcome out;
        const char *fault = show(&c, &t, &out);
        outcome_fini(&out);
        if (fault)
                w->fault = fault;
        w->done++;
}

/* Exchanges that are open and silent, as behind a slow client, are in nobody's way. */
static const char *many_at_once(struct conform *c)
{
        struct crowd w = {.c = c};
        struct talk idle[4];
        struct trial t = {.method = "POST", .path = "/idle", .body = STR("not sent"), .cut = 1};
        struct outcome out = {0};
        size_t n = 0;
        for (; conform_has(c, "HTTP_EXCHANGE") && n < 4 && !w.fault; n++) {
                struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
                struct body b = {.left = t.body};
                turn_t first = MICRODAPR__PLUGIN__V1__HTTP_TURN__INIT;
                answer_t *a;
                (void)b;
                idle[n] = (struct talk){.c = c, .t = &t, .out = &out};
                arena_init(&idle[n].arena, 0);
                TRY(rpc_open(c->ch, &idle[n].arena, SERVICE "Exchange", &o, &idle[n].call, &c->status), "Exchange");
                first.turn_case = MICRODAPR__PLUGIN__V1__HTTP_TURN__TURN_REQUEST;
                first.request = pack_request(c, &idle[n].arena, &t);
                w.fault = say(&idle[n], &first, &a);
        }
        scope_init(&w.scope);
        for (int i = 0; i < MANY && !w.fault; i++)
                fiber_go_flags(&w.scope, "crowd", FIBER_BIG, one_of_crowd, &w);
        scope_join(&w.scope);
        for (size_t i = 0; i < n; i++) {
                if (!idle[i].call)
                        continue;
                rpc_cancel(idle[i].call); /* a client that went away in the middle */
                rpc_finish(idle[i].call);
                arena_fini(&idle[i].arena);
        }
        c->status = (struct rpc_status){0};
        HOLD(w.fault);
        return requests_are_decided(c);
}

const struct conform_check conform_middleware_checks[] = {
        {"requests are decided", requests_are_decided},
        {"odd requests are decided", odd_requests_are_decided},
        {"without HTTP_EXCHANGE it sees heads only", heads_only},
        {"how a body is cut makes no difference", cuts_make_no_difference, "HTTP_EXCHANGE"},
        {"bodies of 2 MiB pass both ways", big_bodies_pass, "HTTP_EXCHANGE"},
        {"32 requests at once, 4 silent ones beside them", many_at_once},
};
const size_t conform_middleware_n = sizeof conform_middleware_checks / sizeof *conform_middleware_checks;
