/*
 * Connections of HTTP/2: when bytes are read, owners called and frames written; how a connection drains, times out and dies.
 *
 * One that dies inside one of our own frames (`busy`) is freed when the outermost one unwinds. Time is one timer a connection,
 * set to the earliest thing that may happen.
 */
#include <errno.h>
#include <stdlib.h>

#include "sdk/net/http2_impl.h"

enum {
        DEFAULT_STREAMS = 250,
        DEFAULT_STREAM_WINDOW = 1024 * 1024,
        DEFAULT_CONN_WINDOW = 16 * 1024 * 1024,
        DEFAULT_HEADER_LIST = 16 * 1024,
};
#define LINGER_S 1.0
#define DRAIN_ACK_S 1.0     /* wait for the ping that follows a shutdown notice */
#define PING_TIMEOUT_S 20.0
#define NEVER 1e300

/* ---- the end ---- */

static void conn_release(struct h2_conn *c)
{
        if (c->dead && !c->busy)
                free(c);
}

/* Streams fail, the owner is told, everything but the memory goes. */
static void conn_dies(struct h2_conn *c, int err)
{
        if (c->dead)
                return;
        c->dead = c->going_away = true;
        c->busy++;
        if (err == -EPIPE)
                err = -ECONNRESET; /* to a stream it would mean that the peer wants no more body */
        defer_cancel(&c->pump);
        timer_stop(&c->tick);
        while (!list_is_empty(&c->streams)) {
                struct stream *s = list_entry(c->streams.next, struct stream, link);
                bool fresh = s->is_new;
                if (!s->s.closed && !(s->s.remote_ended && s->end_sent)) {
                        s->s.closed = true;
                        s->s.error = !s->head_sent && !c->conf.server ? -ENETRESET : err ? err : -ECONNRESET;
                }
                s->open = false;
                list_del(&s->link);
                list_del(&s->event);
                list_del(&s->linger);
                s->s.conn = NULL;
                c->n_streams--;
                if (s->detached || fresh) {
                        h2_stream_free(s);
                        continue;
                }
                cond_broadcast(&s->s.changed);
                if (c->conf.on_event)
                        c->conf.on_event(&s->s);
        }
        h2_session_free(c);
        if (err)
                conn_free(c->io);
        else
                conn_close(c->io, LINGER_S);
        c->io = NULL;
        if (c->conf.on_close)
                c->conf.on_close(c, err);
        c->busy--;
}

/* ---- a turn ---- */

static void dispatch(struct h2_conn *c)
{
        while (!c->dead && !list_is_empty(&c->events)) {
                struct stream *s = list_entry(c->events.next, struct stream, event);
                list_del(&s->event);
                s->queued = false;
                if (s->detached)
                        continue;
                if (s->is_new) {
                        if (s->s.closed) {
                                s->is_new = false;
                                h2_release(&s->s);
                        } else if (s->s.have_headers) {
                                s->is_new = false;
                                c->conf.on_stream(c, &s->s);
                        }
                        continue;
                }
                cond_broadcast(&s->s.changed);
                if (c->conf.on_event)
                        c->conf.on_event(&s->s);
        }
        if (!c->dead && c->was_full && h2_conn_has_room(c)) {
                c->was_full = false;
                if (c->conf.on_room)
                        c->conf.on_room(c);
        }
}

static void feed(struct h2_conn *c)
{
        if (!buf_len(&c->io->in))
                return;
        bool was_usable = !c->going_away;
        c->last_recv = loop_now();
        int r = h2_session_recv(c);
        if (r) {
                /* What is queued, such as an earlier GOAWAY, is not sent: the peer does not speak HTTP/2, or floods. */
                conn_dies(c, r);
                return;
        }
        if (was_usable && c->going_away && c->conf.on_room)
                c->conf.on_room(c);
}

static void send_frames(struct h2_conn *c)
{
        int r = h2_session_send(c);
        if (r)
                conn_dies(c, r);
}

/* A draining connection: first the notice and a ping, when that is answered the last stream id, then the end. */
static void drain_step(struct h2_conn *c)
{
        if (c->conf.server && !c->final_goaway && c->drain_at && (c->drain_at < 0 || loop_now() >= c->drain_at)) {
                c->final_goaway = true;
                h2_session_goaway(c, H2_NO_ERROR, "");
                send_frames(c);
        }
}

static bool is_over(const struct h2_conn *c)
{
        bool drained = c->going_away && (c->final_goaway || !c->conf.server) && !c->n_streams;
        return h2_session_is_over(c) || (drained && !h2_session_wants_write(c));
}

static void pump(struct h2_conn *c)
{
        c->busy++;
        dispatch(c);
        if (!c->dead)
                send_frames(c);
        if (!c->dead)
                dispatch(c);
        if (!c->dead && c->going_away)
                drain_step(c);
        if (!c->dead && is_over(c))
                conn_dies(c, 0);
        c->busy--;
        conn_release(c);
}

static void pump_cb(struct defer *d)
{
        pump(container_of(d, struct h2_conn, pump));
}

static void io_read(struct conn *io)
{
        struct h2_conn *c = io->owner;
        c->busy++;
        feed(c);
        if (!c->dead) {
                dispatch(c);
                defer_run(&c->pump);
        }
        if (c->dead)
                defer_cancel(&c->pump);
        c->busy--;
        conn_release(c);
}

static void io_drain(struct conn *io)
{
        struct h2_conn *c = io->owner;
        defer_run(&c->pump);
}

static void io_close(struct conn *io, int err)
{
        struct h2_conn *c = io->owner;
        c->busy++;
        dispatch(c);
        conn_dies(c, err ? err : c->n_streams ? -ECONNRESET : 0);
        c->busy--;
        conn_release(c);
}

static const struct conn_handler io_handler = {io_read, io_drain, io_close};

/* ---- time ---- */

static bool pings_now(const struct h2_conn *c)
{
        return c->conf.ping_interval_s > 0 && (c->conf.server || c->n_streams || c->conf.ping_without_streams);
}

static double next_tick(const struct h2_conn *c)
{
        double at = NEVER, t;
        if (!c->seen_settings && (t = c->opened_at + H2_PREFACE_TIMEOUT_S) < at)
                at = t;
        if (c->conf.ping_interval_s > 0) {
                t = c->pinging ? c->ping_at + c->conf.ping_timeout_s : c->last_recv + c->conf.ping_interval_s;
                if (!c->pinging && !pings_now(c) && t < loop_now())
                        t = loop_now() + c->conf.ping_interval_s;
                at = t < at ? t : at;
        }
        if (c->conf.idle_timeout_s > 0 && !c->going_away) {
                t = (c->n_streams ? loop_now() : c->idle_since) + c->conf.idle_timeout_s;
                at = t < at ? t : at;
        }
        if (c->drain_at > 0 && !c->final_goaway && c->drain_at < at)
                at = c->drain_at;
        if (!list_is_empty(&c->lingering) && (t = list_entry(c->lingering.next, struct stream, linger)->linger_until) < at)
                at = t;
        return at;
}

/* The peer has had its time to end requests that were answered early: it is told to stop. */
static void end_lingering(struct h2_conn *c, double now)
{
        while (!list_is_empty(&c->lingering)) {
                struct stream *s = list_entry(c->lingering.next, struct stream, linger);
                if (s->linger_until > now)
                        return;
                list_del(&s->linger);
                h2_session_reset(s, H2_NO_ERROR);
        }
}

static void tick_start(struct h2_conn *c)
{
        double at = next_tick(c);
        if (at < NEVER)
                timer_start(&c->tick, at > loop_now() ? at - loop_now() : 0.001, 0);
}

static int tick(struct h2_conn *c)
{
        double now = loop_now();
        end_lingering(c, now);
        if (!c->seen_settings && now >= c->opened_at + H2_PREFACE_TIMEOUT_S)
                return -ETIMEDOUT;
        if (c->pinging && c->last_recv > c->ping_at)
                c->pinging = false;
        if (c->pinging && now >= c->ping_at + c->conf.ping_timeout_s)
                return -ETIMEDOUT;
        if (!c->pinging && pings_now(c) && now >= c->last_recv + c->conf.ping_interval_s) {
                c->pinging = true;
                c->ping_at = now;
                h2_session_ping(c);
        }
        if (c->conf.idle_timeout_s > 0 && !c->n_streams && now >= c->idle_since + c->conf.idle_timeout_s)
                h2_conn_goaway(c);
        defer_run(&c->pump);
        return 0;
}

static void tick_cb(struct timer *t)
{
        struct h2_conn *c = container_of(t, struct h2_conn, tick);
        int err = tick(c);
        if (err) {
                h2_conn_close(c, err);
                return;
        }
        tick_start(c);
}

void h2_conn_tick_at(struct h2_conn *c, double at)
{
        if (!c->dead && next_tick(c) >= at)
                tick_start(c);
}

/* ---- new connections ---- */

static void conf_defaults(struct h2_conf *f)
{
        f->max_streams = f->max_streams ? f->max_streams : DEFAULT_STREAMS;
        f->stream_window = f->stream_window ? f->stream_window : DEFAULT_STREAM_WINDOW;
        f->conn_window = f->conn_window ? f->conn_window : DEFAULT_CONN_WINDOW;
        f->max_header_list = f->max_header_list ? f->max_header_list : DEFAULT_HEADER_LIST;
        f->ping_timeout_s = f->ping_timeout_s > 0 ? f->ping_timeout_s : PING_TIMEOUT_S;
}

static struct h2_conn *conn_make(struct conn *io, const struct h2_conf *conf)
{
        struct h2_conn *c = calloc(1, sizeof(*c));
        if (!c) {
                conn_free(io);
                return NULL;
        }
        c->io = io;
        c->conf = *conf;
        conf_defaults(&c->conf);
        list_init(&c->streams);
        list_init(&c->events);
        list_init(&c->lingering);
        c->payload_left = conf->server ? H2_PREFACE_BYTES : 0;
        c->pump.cb = pump_cb;
        timer_init(&c->tick, tick_cb);
        c->opened_at = c->last_recv = c->idle_since = loop_now();
        if (h2_session_new(c)) {
                conn_free(io);
                free(c);
                return NULL;
        }
        return c;
}

static struct h2_conn *conn_begin(struct h2_conn *c)
{
        if (h2_session_settings(c)) {
                h2_session_free(c);
                conn_free(c->io);
                free(c);
                return NULL;
        }
        conn_set_handler(c->io, &io_handler, c);
        tick_start(c);
        defer_run(&c->pump);
        return c;
}

struct h2_conn *h2_conn_new(struct conn *io, const struct h2_conf *conf)
{
        struct h2_conn *c = conn_make(io, conf);
        return c ? conn_begin(c) : NULL;
}

static void copy_request(struct stream *s, struct str method, struct str target, const struct http_headers *h)
{
        struct arena *a = &s->s.arena;
        s->s.method = arena_str(a, method);
        s->s.scheme = STR("http");
        s->s.path = arena_str(a, target);
        for (size_t i = 0; i < h->n; i++) {
                struct str name = arena_str(a, h->v[i].name), value = arena_str(a, h->v[i].value);
                for (size_t k = 0; k < name.n; k++) {
                        char *ch = (char *)name.p + k;
                        *ch = *ch >= 'A' && *ch <= 'Z' ? (char)(*ch + 32) : *ch;
                }
                if (str_eq(name, STR("host")))
                        s->s.authority = value;
                else if (!str_eq(name, STR("connection")) && !str_eq(name, STR("upgrade")) && !str_eq(name, STR("http2-settings")))
                        h2_stream_add_header(s, &s->s.headers, name, value);
        }
}

static int upgrade_stream(struct h2_conn *c, struct str settings, struct str method, struct str target,
                          const struct http_headers *h)
{
        struct stream *s = h2_stream_new(c);
        if (!s)
                return -ENOMEM;
        s->is_new = s->s.have_headers = s->s.remote_ended = true;
        int r = h2_session_upgrade(c, settings, str_eq(method, STR("HEAD")), s);
        if (r)
                return r;
        copy_request(s, method, target, h);
        h2_stream_changed(s);
        return s->s.arena.exhausted ? -ENOMEM : 0;
}

struct h2_conn *h2_conn_new_upgrade(struct conn *io, const struct h2_conf *conf, struct str settings, struct str method,
                                    struct str target, const struct http_headers *h)
{
        struct h2_conn *c = conn_make(io, conf);
        if (!c)
                return NULL;
        if (upgrade_stream(c, settings, method, target, h)) {
                c->conf.on_close = NULL;
                conn_dies(c, -EPROTO);
                free(c);
                return NULL;
        }
        return conn_begin(c);
}

void *h2_conn_owner(struct h2_conn *c)
{
        return c->conf.owner;
}

struct conn *h2_conn_io(struct h2_conn *c)
{
        return c->io;
}

size_t h2_conn_streams(const struct h2_conn *c)
{
        return c->n_streams;
}

bool h2_conn_is_usable(const struct h2_conn *c)
{
        return !c->dead && !c->going_away && h2_session_may_open(c);
}

bool h2_conn_has_room(const struct h2_conn *c)
{
        return !c->dead && c->n_open < h2_session_max_open(c);
}

void h2_conn_goaway(struct h2_conn *c)
{
        if (c->dead || c->final_goaway || c->drain_at)
                return;
        c->going_away = true;
        if (c->conf.server) {
                h2_session_notice(c);
                c->drain_at = loop_now() + DRAIN_ACK_S;
                tick_start(c);
        } else {
                c->final_goaway = true;
                h2_session_goaway(c, H2_NO_ERROR, "");
        }
        defer_run(&c->pump);
}

void h2_conn_goaway_code(struct h2_conn *c, uint32_t code, const char *text)
{
        if (c->dead || c->final_goaway)
                return;
        c->going_away = c->final_goaway = true;
        h2_session_goaway(c, code, text);
        defer_run(&c->pump);
}

void h2_conn_close(struct h2_conn *c, int err)
{
        if (c->dead)
                return;
        conn_dies(c, err);
        conn_release(c);
}

