/*
 * A fiber keeps the connection: it goes through the servers, logs in, writes the subscriptions again and what was published meanwhile, and
 * reads. Everybody writes into the connection's output.
 *
 * Requests share one subscription to _INBOX.<random>.*; the last word of an answer's subject is the number of its request. A break
 * fails all of them at once. While a subscription holds all that it may nothing is read: its owner chose a connection of its own if
 * that must not hold up others.
 */
#include "plugins/shared/nats/nats.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "plugins/shared/nats/nkey.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"
#include "sdk/net/conn.h"

enum { INBOX_SID = 1, PINGS_MAX = 2, ERROR_MAX = 300, NONCE_MAX = 256, DEFAULT_PAYLOAD = 1 << 20 };
#define THROTTLE_S 0.005
#define PAUSE_FIRST_S 0.05
#define PAUSE_MAX_S 2.0

struct request {
        struct list node;
        struct fiber *fiber;
        uint64_t id;
        int result; /* 1 = none yet */
        struct nats_message *answer;
};
struct nats {
        const struct nats_settings *s;
        const char *instance;
        struct conn *conn; /* NULL = not connected */
        bool connected, closing;
        unsigned epoch, failures;
        struct cond changed; /* connected, or a try has failed */
        int error;
        char text[ERROR_MAX];
        struct scope scope;
        struct list subs, requests;
        struct cond room; /* a subscription holds less */
        struct buf pending;
        uint64_t last_sid, last_request;
        size_t max_payload;
        unsigned pings; /* unanswered */
        char inbox[40], nonce[NONCE_MAX];
        bool server_tls, server_headers;
};

/* ---- small things ---- */

static int failed(struct nats *n, int r, const char *what)
{
        n->error = r;
        snprintf(n->text, sizeof(n->text), "%s", what && *what ? what : strerror(-r));
        return r;
}

bool nats_is_connected(const struct nats *n)
{
        return n->connected;
}

const char *nats_error(const struct nats *n)
{
        return n->text;
}

unsigned nats_epoch(const struct nats *n)
{
        return n->epoch;
}

int nats_wait_change(struct nats *n, double until)
{
        unsigned was = n->epoch;
        while (n->epoch == was) {
                int r = cond_wait_until(&n->changed, until);
                if (r)
                        return r;
        }
        return 0;
}

size_t nats_max_payload(const struct nats *n)
{
        return n->max_payload;
}

static struct nats_message *message_new(const struct nats_op *op)
{
        const struct str *from[] = {&op->subject, &op->reply, &op->headers, &op->payload};
        struct nats_message *m = malloc(sizeof(*m) + op->subject.n + op->reply.n + op->headers.n + op->payload.n + 1);
        struct str *to[] = {&m->subject, &m->reply, &m->headers, &m->payload};
        if (!m)
                return NULL;
        char *at = (char *)(m + 1);
        for (size_t i = 0; i < 4; i++) {
                *to[i] = str_n(at, from[i]->n);
                if (from[i]->n)
                        memcpy(at, from[i]->p, from[i]->n);
                at += from[i]->n;
        }
        *at = 0;
        return m;
}

/* ---- what comes ---- */

static bool reads_on(const struct nats *n)
{
        list_for_each(pos, &n->subs) {
                const struct nats_sub *s = list_entry(pos, struct nats_sub, node);
                if (s->n_incoming >= (s->max_incoming ? s->max_incoming : NATS_INCOMING_MAX) || s->bytes >= NATS_INCOMING_BYTES_MAX)
                        return false;
        }
        return true;
}

static int on_answer(struct nats *n, const struct nats_op *op)
{
        struct str id = str_skip(op->subject, strlen(n->inbox) + 1), words;
        list_for_each(pos, &n->requests) {
                struct request *q = list_entry(pos, struct request, node);
                char text[24];
                snprintf(text, sizeof(text), "%llu", (unsigned long long)q->id);
                if (!str_eqz(id, text))
                        continue;
                q->result = nats_status(op->headers, &words) == 503 ? -EHOSTUNREACH : (q->answer = message_new(op)) ? 0 : -ENOMEM;
                list_del(&q->node);
                fiber_wake(q->fiber);
                return 0;
        }
        return 0; /* its caller has given up */
}

static int on_message(struct nats *n, const struct nats_op *op)
{
        if (op->sid == INBOX_SID)
                return on_answer(n, op);
        list_for_each(pos, &n->subs) {
                struct nats_sub *s = list_entry(pos, struct nats_sub, node);
                if (s->sid != op->sid)
                        continue;
                struct nats_message *m = message_new(op);
                if (!m)
                        return -ENOMEM; /* the connection ends; what needs an acknowledgement comes again */
                list_add_tail(&s->incoming, &m->node);
                s->n_incoming++;
                s->bytes += op->payload.n;
                cond_signal(&s->arrived);
                return 0;
        }
        return 0;
}

static int on_info(struct nats *n, struct str text)
{
        struct json_reader r;
        struct arena a;
        struct str key, nonce;
        uint64_t max;
        arena_init(&a, NATS_LINE_MAX * 2);
        json_read_init(&r, text);
        bool good = json_enter_object(&r);
        while (good && json_next_member(&r, &a, &key)) {
                if (str_eqz(key, "nonce") && json_read_string(&r, &a, &nonce))
                        snprintf(n->nonce, sizeof(n->nonce), "%.*s", STR_FMT(nonce));
                else if (str_eqz(key, "max_payload") && json_read_uint64(&r, &max))
                        n->max_payload = max < NATS_PAYLOAD_MAX ? max : NATS_PAYLOAD_MAX;
                else if (!(str_eqz(key, "tls_required") && json_read_bool(&r, &n->server_tls)) &&
                         !(str_eqz(key, "headers") && json_read_bool(&r, &n->server_headers)))
                        json_skip(&r);
        }
        good = good && !r.error;
        arena_fini(&a);
        return good ? 0 : -EBADMSG;
}

static int on_op(struct nats *n, const struct nats_op *op)
{
        switch (op->kind) {
        case NATS_MSG:
                return on_message(n, op);
        case NATS_INFO:
                return on_info(n, op->text);
        case NATS_PING:
                return conn_write(n->conn, "PONG\r\n", 6);
        case NATS_PONG:
                n->pings = 0;
                return 0;
        case NATS_OK:
                return 0;
        case NATS_ERR:
                if (str_find(op->text, STR("Permissions Violation")) == 0) {
                        dapr_log(DAPR_LOG_ERROR, "nats: the server says: %.*s", STR_FMT(op->text));
                        return 0; /* the connection stays */
                }
                snprintf(n->text, sizeof(n->text), "%.*s", STR_FMT(op->text));
                return str_find(op->text, STR("uthoriz")) >= 0 || str_find(op->text, STR("uthentic")) >= 0 ? -EACCES : -ECONNRESET;
        }
        return -EBADMSG;
}

/* ---- the connection ---- */

/* Parks for the next operation. 0 or -errno. */
static int read_op(struct nats *n, struct nats_op *op, size_t *used)
{
        for (;;) {
                int r = nats_op_get(buf_str(&n->conn->in), op, used);
                if (r)
                        return r < 0 ? r : 0;
                double old = fiber_set_deadline(loop_now() + NATS_PING_S);
                r = conn_read(n->conn);
                fiber_restore_deadline(old);
                if (r == -ETIMEDOUT && n->connected && n->pings < PINGS_MAX) {
                        n->pings++;
                        conn_write(n->conn, "PING\r\n", 6);
                        continue;
                }
                if (r <= 0)
                        return r ? r : -ECONNRESET;
        }
}

static void put_connect(struct nats *n, const struct nats_server *v, bool tls, struct buf *out)
{
        const struct nats_settings *s = n->s;
        char sig[NKEY_SIGNATURE_BYTES] = "";
        struct json_writer w;
        buf_addz(out, "CONNECT ");
        json_write_init(&w, out);
        json_object_begin(&w);
        json_key(&w, STR("verbose"));
        json_bool(&w, false);
        json_key(&w, STR("pedantic"));
        json_bool(&w, false);
        json_key(&w, STR("tls_required"));
        json_bool(&w, tls);
        json_kv(&w, "name", str_of(s->name));
        json_kv(&w, "lang", STR("c"));
        json_kv(&w, "version", STR("1.0.0"));
        json_key(&w, STR("protocol"));
        json_int(&w, 1);
        json_key(&w, STR("echo"));
        json_bool(&w, true);
        json_key(&w, STR("headers"));
        json_bool(&w, true);
        json_key(&w, STR("no_responders"));
        json_bool(&w, true);
        json_kv_nonempty(&w, "user", str_of(v->user));
        json_kv_nonempty(&w, "pass", str_of(v->password));
        json_kv_nonempty(&w, "auth_token", str_of(v->token ? v->token : v->user ? NULL : s->token));
        if (s->jwt && nkey_sign(str_of(s->seed), str_of(n->nonce), sig) == 0) {
                json_kv(&w, "jwt", str_of(s->jwt));
                json_kv(&w, "sig", str_of(sig));
        }
        json_object_end(&w);
        buf_addz(out, "\r\nPING\r\n");
}

/* INFO, TLS when one side wants it, CONNECT, and the PONG that says that all is well. */
static int log_in(struct nats *n, const struct nats_server *v)
{
        struct nats_op op;
        size_t used;
        int r = conn_dial(str_of(v->address), &n->conn);
        if (!r)
                r = read_op(n, &op, &used);
        if (!r)
                r = op.kind == NATS_INFO ? on_info(n, op.text) : -EBADMSG;
        if (r)
                return r;
        buf_consume(&n->conn->in, used);
        bool tls = v->tls || n->s->force_tls || n->server_tls;
        if (tls && (r = conn_start_tls(n->conn, n->s->tls, str_of(v->host), false)))
                return failed(n, r, r == -EKEYREJECTED ? "the server's certificate is not trusted" : "the TLS handshake has failed");
        if (!n->server_headers)
                return failed(n, -EPROTO, "the server is too old: it knows no headers");
        put_connect(n, v, tls, &n->conn->out);
        if (n->conn->out.failed)
                return -ENOMEM;
        conn_flush_soon(n->conn);
        for (;;) {
                r = read_op(n, &op, &used);
                if (!r && op.kind == NATS_PONG) {
                        buf_consume(&n->conn->in, used);
                        return 0;
                }
                if (!r)
                        r = on_op(n, &op);
                if (r)
                        return r;
                buf_consume(&n->conn->in, used);
        }
}

static void fail_requests(struct nats *n)
{
        while (!list_is_empty(&n->requests)) {
                struct request *q = list_entry(n->requests.next, struct request, node);
                list_del(&q->node);
                q->result = -ECONNRESET;
                fiber_wake(q->fiber);
        }
}

static void drop_connection(struct nats *n)
{
        n->connected = false;
        n->pings = 0;
        n->server_tls = n->server_headers = false;
        n->nonce[0] = 0;
        if (n->closing && n->conn)
                conn_close(n->conn, 1); /* the last acknowledgements go out */
        else
                conn_free(n->conn);
        n->conn = NULL;
        fail_requests(n);
}

static int serve(struct nats *n)
{
        struct nats_op op;
        size_t used;
        char all[64];
        int r = 0;
        snprintf(all, sizeof(all), "%s.*", n->inbox);
        nats_put_sub(&n->conn->out, str_of(all), STR(""), INBOX_SID);
        list_for_each(pos, &n->subs) {
                struct nats_sub *s = list_entry(pos, struct nats_sub, node);
                nats_put_sub(&n->conn->out, str_of(s->subject), str_of(s->queue), s->sid);
        }
        buf_adds(&n->conn->out, buf_str(&n->pending));
        if (n->conn->out.failed)
                return -ENOMEM;
        buf_fini(&n->pending);
        conn_flush_soon(n->conn);
        n->connected = true;
        n->epoch++;
        cond_broadcast(&n->changed);
        while (!r && !(r = read_op(n, &op, &used))) {
                r = on_op(n, &op);
                buf_consume(&n->conn->in, used);
                while (!r && !reads_on(n))
                        r = cond_wait(&n->room);
        }
        return r;
}

static void keep_fiber(void *arg)
{
        struct nats *n = arg;
        double pause = PAUSE_FIRST_S;
        for (size_t i = 0; !n->closing && !fiber_is_cancelled(); i++) {
                const struct nats_server *v = &n->s->servers[i % n->s->n_servers];
                n->text[0] = 0;
                double old = fiber_set_deadline(loop_now() + NATS_CONNECT_S);
                int r = log_in(n, v);
                fiber_restore_deadline(old);
                if (r == 0) {
                        pause = PAUSE_FIRST_S;
                        if (n->instance)
                                dapr_backend_up(n->instance);
                        r = serve(n);
                }
                drop_connection(n);
                n->error = r;
                if (!*n->text) /* the server has said nothing */
                        failed(n, r, r == -ECONNRESET ? "the connection has ended" : NULL);
                n->failures++;
                cond_broadcast(&n->changed);
                if (r == -ECANCELED || n->closing)
                        return;
                if (n->instance)
                        dapr_backend_down(n->instance, n->text);
                dapr_log(DAPR_LOG_WARN, "nats: the connection to %s has ended or could not be made: %s", v->address, n->text);
                if ((i + 1) % n->s->n_servers == 0 || r == -EACCES) {
                        if (fiber_sleep(pause))
                                return;
                        pause = fmin(pause * 2, PAUSE_MAX_S);
                }
        }
}

/* ---- opening and closing ---- */

int nats_open(struct nats **ret, const struct nats_settings *s, const char *instance, double wait_s, char *err, size_t err_n)
{
        struct nats *n = calloc(1, sizeof(*n));
        uint64_t random[2];
        if (!n)
                return -ENOMEM;
        n->s = s;
        n->instance = instance;
        n->max_payload = DEFAULT_PAYLOAD;
        n->last_sid = INBOX_SID;
        scope_init(&n->scope);
        cond_init(&n->changed);
        cond_init(&n->room);
        list_init(&n->subs);
        list_init(&n->requests);
        int r = getrandom(random, sizeof(random), 0) == sizeof(random) ? 0 : -EIO;
        snprintf(n->inbox, sizeof(n->inbox), "_INBOX.%016llx%08llx", (unsigned long long)random[0], (unsigned long long)random[1] & 0xffffffff);
        if (!r)
                r = fiber_go(&n->scope, "nats", keep_fiber, n);
        double limit = loop_now() + wait_s;
        while (!r && !n->connected && wait_s > 0) {
                unsigned before = n->failures;
                r = cond_wait_until(&n->changed, limit);
                if (!r && n->failures != before && (n->error == -EACCES || n->error == -EKEYREJECTED || n->error == -EPROTO))
                        r = n->error; /* an answer does not change by asking again */
        }
        if (r) {
                snprintf(err, err_n, "%s", *n->text ? n->text : strerror(-r));
                nats_close(n);
                return r;
        }
        *ret = n;
        return 0;
}

void nats_close(struct nats *n)
{
        if (!n)
                return;
        fiber_shield_begin();
        n->closing = true;
        scope_cancel(&n->scope);
        scope_join(&n->scope);
        fiber_shield_end();
        fail_requests(n);
        buf_fini(&n->pending);
        free(n);
}

/* ---- publishing ---- */

/* May n->conn's output take more? Parks while it is too much. */
static int throttle(struct nats *n)
{
        while (n->connected && conn_out_len(n->conn) > CONN_HIGH_WATER) {
                int r = fiber_sleep(THROTTLE_S);
                if (r)
                        return r;
        }
        return 0;
}

int nats_publish(struct nats *n, struct str subject, struct str payload)
{
        if (!n->connected) {
                if (buf_len(&n->pending) + subject.n + payload.n > NATS_PENDING_MAX)
                        return -ENOBUFS;
                return nats_put_pub(&n->pending, subject, STR(""), STR(""), payload);
        }
        int r = nats_put_pub(&n->conn->out, subject, STR(""), STR(""), payload);
        conn_flush_soon(n->conn);
        return r;
}

static int send_request(struct nats *n, struct request *q, struct str subject, struct str headers, struct str payload, double limit)
{
        char reply[80];
        int r = 0;
        do {
                while (!r && !n->connected)
                        r = cond_wait_until(&n->changed, limit);
                if (!r)
                        r = throttle(n);
        } while (!r && !n->connected);
        if (r)
                return r;
        if (headers.n + payload.n > n->max_payload)
                return -EMSGSIZE;
        q->id = ++n->last_request;
        snprintf(reply, sizeof(reply), "%s.%llu", n->inbox, (unsigned long long)q->id);
        r = nats_put_pub(&n->conn->out, subject, str_of(reply), headers, payload);
        conn_flush_soon(n->conn);
        return r;
}

/* Parks until the request is answered, failed or given up; it is in no list then. (Inlined, GCC takes q for dangling.) */
static __attribute__((noinline)) int wait_answer(struct nats *n, struct request *q, double limit)
{
        int r = 0;
        list_add_tail(&n->requests, &q->node);
        while (q->result > 0 && !r)
                r = fiber_park_until(limit);
        list_del(&q->node);
        return q->result > 0 ? r : q->result;
}

int nats_request(struct nats *n, struct str subject, struct str headers, struct str payload, double timeout_s, struct nats_message **ret)
{
        struct request q = {.fiber = fiber_self(), .result = 1};
        double limit = loop_now() + timeout_s;
        int r = send_request(n, &q, subject, headers, payload, limit);
        if (r)
                return r;
        r = wait_answer(n, &q, limit);
        if (r == 0)
                *ret = q.answer;
        return r;
}

/* ---- subscriptions ---- */

void nats_sub_init(struct nats_sub *s)
{
        *s = (struct nats_sub){0};
        list_init(&s->incoming);
        cond_init(&s->arrived);
}

int nats_subscribe(struct nats *n, struct nats_sub *s)
{
        s->sid = ++n->last_sid;
        list_add_tail(&n->subs, &s->node);
        if (!n->connected)
                return 0;
        nats_put_sub(&n->conn->out, str_of(s->subject), str_of(s->queue), s->sid);
        conn_flush_soon(n->conn);
        return n->conn->out.failed ? -ENOMEM : 0;
}

void nats_unsubscribe(struct nats *n, struct nats_sub *s)
{
        if (!s->sid)
                return;
        if (n->connected) {
                nats_put_unsub(&n->conn->out, s->sid);
                conn_flush_soon(n->conn);
        }
        list_del(&s->node);
        s->sid = 0;
        while (!list_is_empty(&s->incoming)) {
                struct nats_message *m = list_entry(s->incoming.next, struct nats_message, node);
                list_del(&m->node);
                free(m);
        }
        s->n_incoming = s->bytes = 0;
        cond_broadcast(&n->room);
}

int nats_next(struct nats *n, struct nats_sub *s, struct nats_message **ret)
{
        while (list_is_empty(&s->incoming)) {
                int r = s->sid ? cond_wait(&s->arrived) : -ECANCELED;
                if (r)
                        return r;
        }
        struct nats_message *m = list_entry(s->incoming.next, struct nats_message, node);
        list_del(&m->node);
        s->n_incoming--;
        s->bytes -= m->payload.n;
        cond_signal(&n->room);
        *ret = m;
        return 0;
}
