/*
 * An HTTP request over a leg. Bodies are streamed both ways, a request of known length keeps its length; status, headers and body of the
 * answer come back as they are. A body that is not there at once goes out on a fiber of its own, so that an early answer comes through.
 *
 * Two layers of retries, as in the reference: policies of the app around all, and inside of them, without a policy for the app, the
 * built-in ones for a sidecar that cannot be reached. A request without a known length goes out once, and so does the rest of a body
 * that was not held (INVOKE_HELD_BYTES). With policies that retry, an answer outside 200..399 is held back until no further try
 * follows; what has begun to go to the caller is never tried again.
 */
#include <errno.h>

#include "kernel/blocks/invoke_leg.h"
#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"
#include "sdk/net/sniff.h"

#define SCOPE "dapr.runtime.http"

struct relay {
        struct call *c;
        struct leg leg;
        bool has_own_retries;       /* the built-in ones */
        bool holds_back;            /* failures are kept for another try */
        bool taken;                 /* some of the caller's body is gone */
        bool begun;                 /* the answer is on its way to the caller */
        unsigned attempt;
        int body_error;             /* of reading the caller's body */
        struct scope rest;          /* what sends it */
        /* held back */
        int status;
        struct http_headers headers;
        struct str answer;
};

/* ---- request ---- */

static void pump(void *arg)
{
        struct relay *x = arg;
        struct leg *g = &x->leg;
        char *room = arena_alloc(x->c->arena, MESH_CHUNK_ROOM + MESH_CHUNK_BYTES);
        ssize_t n = -ENOMEM;

        while (room && (n = http_req_read(x->c->http, room + MESH_CHUNK_ROOM, MESH_CHUNK_BYTES)) > 0) {
                x->taken = true;
                if (g->ops->write(g, room, (size_t)n))
                        return; /* answered early, or gone: the answer tells */
        }
        if (n == 0) {
                g->ops->end(g);
        } else if (!fiber_is_cancelled()) {
                x->body_error = (int)n;
                g->ops->abort(g);
        }
}

/* One try up to the answer's head. What it started is ended by finish(). */
static int attempt(struct relay *x)
{
        struct leg *g = &x->leg;
        int r;

        x->attempt++;
        g->answer = (struct http_headers){0};
        scope_init(&x->rest);
        r = g->ops->open(g);
        if (r || g->body.p)
                return r ? r : g->ops->answer(g);
        if (!x->c->http->tap && (!g->x || !g->x->ops))
                r = fiber_go(&x->rest, "invoke-request", pump, x);
        else
                pump(x); /* filters want the request to its end first */
        return r || x->body_error ? -EIO : g->ops->answer(g);
}

static void finish(struct relay *x)
{
        scope_cancel(&x->rest);
        scope_join(&x->rest);
        x->leg.ops->close(&x->leg);
}

static int try_transport(void *arg, struct policy_try *t)
{
        struct relay *x = arg;
        int r = attempt(x);

        if (!r)
                return 0;
        finish(x);
        t->permanent = x->taken || !invoke_is_transient(x->leg.code);
        return r;
}

/* attempt(), with the built-in retries. 0, or < 0 and everything is closed. */
static int connect_leg(struct relay *x)
{
        struct policy builtin;
        enum policy_result r;

        x->attempt = 0;
        if (!x->has_own_retries)
                return try_transport(x, &(struct policy_try){.attempt = 1});
        resiliency_builtin(x->c->k, POLICY_SERVICE_RETRIES, &builtin);
        r = policy_run(&builtin, try_transport, x);
        if (r == POLICY_OK)
                return 0;
        if (r != POLICY_FAILED)
                x->leg.why = policy_result_text(r);
        else if (invoke_is_transient(x->leg.code))
                x->leg.why = arena_printf(x->c->arena, "failed to invoke target %.*s after %u retries. Error: %s", STR_FMT(x->leg.dest->id),
                                          x->attempt - 1, x->leg.why);
        return -EIO;
}

/* ---- answer ---- */

static bool is_sse(const struct http_req *q)
{
        return str_ieq(str_trim(http_headers_get(&q->headers, "Accept")), STR("text/event-stream"));
}

static void make_sse(struct leg *g)
{
        struct arena *a = g->c->arena;

        http_headers_remove(&g->answer, "Content-Type");
        http_headers_remove(&g->answer, "Cache-Control");
        http_headers_add(&g->answer, a, STR("Content-Type"), STR("text/event-stream"));
        http_headers_add(&g->answer, a, STR("Cache-Control"), STR("no-cache"));
        g->content_length = -1;
}

/* An answer that names no type gets one: failures that of daprd's own, others by their first bytes. Clients of the reference expect it. */
static int add_type(struct relay *x, struct http_headers *h, int status, struct str body)
{
        bool failed = x->leg.length >= 0 && (status < 200 || status > 399);

        if (http_headers_get(h, "Content-Type").n)
                return 0;
        http_headers_remove(h, "Content-Type");
        if (failed)
                return http_headers_add(h, x->c->arena, STR("Content-Type"), STR("application/json"));
        if (!body.n || http_headers_get(h, "Content-Encoding").n)
                return 0;
        return http_headers_add(h, x->c->arena, STR("Content-Type"), sniff_type(body));
}

/* A short body in one write, without holding back what comes slowly: the head is kept until its body is there. A body that ends too
 * early counts as far as it came. */
static int relay_short(struct relay *x, int status)
{
        struct leg *g = &x->leg;
        size_t want = (size_t)g->content_length, n = 0;
        struct str piece = STR(""), body;
        char *p = NULL;
        int r = 1;

        while (r > 0 && n < want && (r = g->ops->read(g, &piece)) > 0) {
                if (!n && piece.n >= want)
                        break;
                if (!p && !(p = arena_alloc(x->c->arena, want)))
                        return -ENOMEM;
                piece.n = piece.n < want - n ? piece.n : want - n;
                memcpy(p + n, piece.p, piece.n);
                n += piece.n;
        }
        if (fiber_is_cancelled())
                return -ECANCELED;
        if (r < 0 && g->dest->kind == INVOKE_REMOTE)
                return r;
        body = p || !want ? str_n(p ? p : "", n) : piece;
        if (add_type(x, &g->answer, status, body))
                return -ENOMEM;
        x->begun = true;
        return http_resp_send(x->c->http, status, g->answer.v, g->answer.n, body);
}

static int relay_long(struct relay *x, int status, bool bodyless)
{
        struct http_req *q = x->c->http;
        struct leg *g = &x->leg;
        struct http_headers trailers = {0};
        struct str piece = STR("");
        bool more = !bodyless;
        int64_t length = !bodyless ? g->content_length : str_eqz(q->method, "HEAD") && g->content_length > 0 ? g->content_length : 0;
        int r = 0;

        if (more && !http_headers_get(&g->answer, "Content-Type").n) /* the first piece tells */
                more = (r = g->ops->read(g, &piece)) > 0;
        if (r < 0 || (r = add_type(x, &g->answer, status, piece)))
                return r;
        x->begun = true;
        r = http_resp_begin(q, status, g->answer.v, g->answer.n, length);
        if (!r && piece.n)
                r = http_resp_write(q, piece);
        while (!r && more && (r = g->ops->read(g, &piece)) > 0)
                r = http_resp_write(q, piece);
        if (!r)
                r = g->ops->trailers(g, &trailers);
        if (!r)
                return http_resp_end(q, trailers.v, trailers.n);
        if (!fiber_is_cancelled())
                log_warn(SCOPE, "HTTP service invocation failed to complete with error: %s", g->why ? g->why : strerror(-r));
        http_resp_abort(q);
        return r;
}

static int relay_answer(struct relay *x)
{
        struct http_req *q = x->c->http;
        struct leg *g = &x->leg;
        int status = g->status >= 100 ? g->status : 200;
        bool bodyless = status == 204 || status == 304 || str_eqz(q->method, "HEAD");

        if (g->status < 100 && g->status > 0) {
                x->begun = true;
                http_headers_remove(&g->answer, "Content-Type");
                invoke_reply_status(x->c, g->status, g->message, g->details, &g->answer);
                return 0;
        }
        if (g->length >= 0 && (status < 200 || status > 399))
                observe_error_code(x->c->k->observe, error_rows[ERR_DIRECT_INVOKE].tag, error_rows[ERR_DIRECT_INVOKE].category);
        if (status == 304)
                http_headers_remove(&g->answer, "Content-Type");
        call_headers_into(x->c, &g->answer);
        if (is_sse(q) && status < 400 && (g->dest->kind == INVOKE_REMOTE || status >= 300))
                make_sse(g);
        if (!bodyless && g->content_length >= 0 && g->content_length <= MESH_CHUNK_BYTES)
                return relay_short(x, status);
        return relay_long(x, status, bodyless);
}

/* The answer, to the arena: it is the last one, or forgotten. */
static int hold_back(struct relay *x)
{
        int64_t limit = x->c->k->opts.max_body_size;
        size_t max = limit > 0 ? (size_t)limit : SIZE_MAX, n = 0, cap = 0;
        struct leg *g = &x->leg;
        struct arena *a = x->c->arena;
        struct str piece;
        char *p = NULL;
        int r;

        x->headers = (struct http_headers){0};
        for (size_t i = 0; i < g->answer.n; i++) {
                struct str name = arena_str(a, g->answer.v[i].name), value = arena_str(a, g->answer.v[i].value);
                if (!name.p || !value.p || http_headers_add(&x->headers, a, name, value))
                        return -ENOMEM;
        }
        while ((r = g->ops->read(g, &piece)) > 0) {
                if (piece.n > max - n)
                        return -EMSGSIZE;
                if (n + piece.n > cap) {
                        size_t want = cap * 2 > n + piece.n ? cap * 2 : n + piece.n;
                        if (!(p = arena_grow(a, p, n, want)))
                                return -ENOMEM;
                        cap = want;
                }
                memcpy(p + n, piece.p, piece.n);
                n += piece.n;
        }
        x->answer = n ? str_n(p, n) : STR("");
        x->status = r ? 0 : g->status;
        return r;
}

/* ---- the call ---- */

static int try_relay(void *arg, struct policy_try *t)
{
        struct relay *x = arg;
        struct leg *g = &x->leg;
        bool good = false;
        int r;

        x->status = 0;
        g->why = NULL;
        r = connect_leg(x);
        if (!r) {
                good = g->status < 100 || (g->status >= 200 && g->status <= 399);
                t->code = good ? 0 : g->status;
                r = !good && x->holds_back ? hold_back(x) : relay_answer(x);
                finish(x);
        }
        t->permanent = x->begun || !x->holds_back;
        return r || !good;
}

/* Bodies that are to be held, or are small enough to go out with the head; those known to be too long are refused before
 * the app sees anything of them. 0, or answered. */
static int read_body(struct relay *x)
{
        struct leg *g = &x->leg;
        int64_t limit = x->c->k->opts.max_body_size;
        bool held = x->holds_back || (g->dest->kind != INVOKE_OWN && g->length <= INVOKE_HELD_BYTES) || g->length <= MESH_CHUNK_BYTES;
        int r;

        if (g->length == 0)
                g->body = STR("");
        if (g->length <= 0 || (!held && (limit <= 0 || g->length <= limit)))
                return 0;
        r = http_req_body(x->c->http, &g->body);
        if (!r)
                return 0;
        invoke_reply_failure(x->c, g->dest->name, RPC_UNKNOWN, body_error(r));
        return r;
}

static void reply_outcome(struct relay *x, enum policy_result r)
{
        struct leg *g = &x->leg;

        if (x->begun || r == POLICY_OK)
                return;
        if (r != POLICY_FAILED) {
                invoke_reply_failure(x->c, g->dest->name, RPC_UNKNOWN, policy_result_text(r));
        } else if (x->status) {
                observe_error_code(x->c->k->observe, error_rows[ERR_DIRECT_INVOKE].tag, error_rows[ERR_DIRECT_INVOKE].category);
                call_headers_into(x->c, &x->headers);
                if (add_type(x, &x->headers, x->status, x->answer))
                        return;
                http_resp_send(x->c->http, x->status, x->headers.v, x->headers.n, x->answer);
        } else if (x->body_error == -EMSGSIZE) {
                invoke_reply_failure(x->c, g->dest->name, RPC_UNKNOWN, body_error(x->body_error));
        } else {
                invoke_reply_failure(x->c, g->dest->name, g->code, g->why ? g->why : "the answer cannot be read");
        }
}

void invoke_relay(struct call *c, struct invoke_dest *dest, struct str method, struct policy *policy)
{
        struct http_req *q = c->http;
        bool bodyless = q->content_length < 0 && (str_eqz(q->method, "GET") || str_eqz(q->method, "HEAD"));
        struct relay x = {.c = c};
        int r = leg_init(&x.leg, c, dest, method);

        x.leg.length = bodyless ? 0 : q->content_length;
        x.holds_back = x.leg.length >= 0 && policy_has_retries(policy);
        x.has_own_retries = x.leg.length >= 0 && invoke_has_own_retries(c, dest);
        if (r)
                invoke_reply_failure(c, dest->name, x.leg.code, x.leg.why);
        else
                r = read_body(&x);
        if (r)
                policy_release(policy);
        else
                reply_outcome(&x, policy_run(policy, try_relay, &x));
        leg_fini(&x.leg);
}
