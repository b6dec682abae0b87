/*
 * Connections. A conn is driven from three places, all on the loop's own stack: its descriptor's events, its
 * flush (end of the turn) and its linger timer. User code runs only inside those (handler callbacks) or as a fiber woken by
 * `readable` and `drained`; so a fiber never runs in the middle of conn.c.
 *
 * Input: one readv() a turn into the free space of `in` and, for what does not fit, a scratch page shared by all; an idle
 * connection thus holds a small buffer only. Output: `out` is written once a turn; a chunk of DIRECT_BYTES and more on an idle
 * connection goes to the socket at once without a copy.
 * TLS: descriptor <-> tls->in/out <-> session <-> in/out. Ciphertext is made only while little of it waits, so that `out` stays
 * the measure for back-pressure.
 * Freed inside its own callback, a conn is only marked dead and goes when the outermost frame (enter/leave) unwinds.
 */
#include "sdk/net/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sdk/net/dns.h"
#include "sdk/net/tls.h"

enum {
        IN_FIRST_BYTES = 2048,            /* free space offered to a read when `in` is empty */
        KEEP_BYTES = 64 * 1024,           /* an empty buffer larger than this is given back */
        DIRECT_BYTES = 32 * 1024,
        TLS_RECORD_BYTES = 16 * 1024,
        TLS_AHEAD_BYTES = 64 * 1024,      /* ciphertext that may wait for the socket */
        READS_PER_EVENT = 4,
};
enum { KICK_READ = 1, KICK_CLOSE = 2 }; /* what a new handler is told at the end of the turn */
#define FIN_WAIT_S 0.5   /* for the peer's end, after ours */

/* Only ever used between a readv() and the copy behind it. */
static char scratch[CONN_READ_BYTES];

static void conn_event(struct io_watch *w, int events);
static void conn_flush_cb(struct defer *d);
static void conn_linger_cb(struct timer *t);

static struct list closing = LIST_INIT(closing); /* conns nobody owns any more */

static void release(struct conn *c)
{
        buf_fini(&c->in);
        buf_fini(&c->out);
        tls_session_free(c->tls);
        free(c);
}

/* Closes everything but the memory. */
static void disarm(struct conn *c)
{
        if (c->dead)
                return;
        c->dead = true;
        io_watch_stop(&c->watch);
        defer_cancel(&c->flush);
        timer_stop(&c->linger);
        list_del(&c->closing_link);
        close(c->fd);
        c->fd = -1;
}

static bool enter(struct conn *c)
{
        bool outer = !c->in_cb;
        c->in_cb = true;
        return outer;
}

static void leave(struct conn *c, bool outer)
{
        if (!outer)
                return;
        c->in_cb = false;
        if (c->dead)
                release(c);
}

void conn_free(struct conn *c)
{
        if (!c)
                return;
        disarm(c);
        if (!c->in_cb)
                release(c);
}

static size_t unsent(const struct conn *c)
{
        return buf_len(&c->out) + (c->tls ? buf_len(&c->tls->out) : 0);
}

static bool wants_read(const struct conn *c)
{
        if (c->eof || c->error)
                return false;
        return c->closing || c->handshaking || (!c->read_paused && (c->handler || c->reading));
}

/* Asks the loop for the events that matter now. `blocked` = the socket's buffer was full. */
static void set_events(struct conn *c, bool blocked)
{
        if (c->dead)
                return;
        int ev = wants_read(c) ? IO_READ : 0;
        if (blocked)
                ev |= IO_WRITE;
        if (ev != c->events) {
                c->events = ev;
                io_watch_set(&c->watch, ev);
        }
}

static bool is_blocked(const struct conn *c)
{
        return c->events & IO_WRITE;
}

/* The end, however it came. Tells the owner once; an error behind the peer's end is seen by writers only. */
static void finish(struct conn *c, int err)
{
        bool told = c->closed;
        c->closed = true;
        if (err < 0) {
                c->error = err;
                buf_clear(&c->out);
                set_events(c, false);
                cond_broadcast(&c->drained);
        } else {
                set_events(c, is_blocked(c));
        }
        cond_broadcast(&c->readable);
        if (!told && c->handler && c->handler->on_close)
                c->handler->on_close(c, err);
}

/* ---- input ---- */

/* Sends from b until it is empty or the socket is full. 1 = full, 0 = all sent, <0 error. */
static int drain(struct conn *c, struct buf *b)
{
        while (buf_len(b)) {
                ssize_t n = send(c->fd, b->p + b->off, buf_len(b), MSG_NOSIGNAL);
                if (n >= 0) {
                        buf_consume(b, (size_t)n);
                } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                        return 1;
                } else if (errno != EINTR) {
                        return -errno;
                }
        }
        return 0;
}

/* Bytes from the descriptor to the end of b. > 0, 0 = end, -EAGAIN, -errno. *ret_more: there may be more to read at once. */
static ssize_t fill(struct conn *c, struct buf *b, bool *ret_more)
{
        size_t want = b->cap - b->len;
        if (want < IN_FIRST_BYTES / 4) {
                if (buf_reserve(b, IN_FIRST_BYTES))
                        return -ENOMEM;
                want = b->cap - b->len;
        }
        if (want > CONN_READ_BYTES)
                want = CONN_READ_BYTES;
        struct iovec iov[2] = {{b->p + b->len, want}, {scratch, sizeof(scratch)}};
        ssize_t n;
        do
                n = readv(c->fd, iov, 2);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        *ret_more = (size_t)n == want + sizeof(scratch);
        if ((size_t)n <= want) {
                b->len += (size_t)n;
        } else {
                b->len += want;
                if (buf_add(b, scratch, (size_t)n - want))
                        return -ENOMEM;
        }
        return n;
}

/* Plain bytes out of the session into in. 0, or 1 at close_notify, or <0. */
static int decrypt(struct conn *c)
{
        for (;;) {
                if (buf_reserve(&c->in, c->in.len ? TLS_RECORD_BYTES : IN_FIRST_BYTES))
                        return -ENOMEM;
                ssize_t n = tls_session_read(c->tls, c->in.p + c->in.len, c->in.cap - c->in.len);
                if (n > 0)
                        c->in.len += (size_t)n;
                else if (n == -EAGAIN)
                        return 0;
                else
                        return n == 0 ? 1 : (int)n;
        }
}

static void handshake_step(struct conn *c)
{
        int r = tls_session_handshake(c->tls);
        if (r == 1) {
                c->handshaking = false;
                r = decrypt(c); /* the peer's first bytes may have come with the end of its handshake */
                if (r == 1)
                        c->eof = true;
                cond_broadcast(&c->readable);
        }
        /* Also after a failure: the alert tells the peer why. */
        if (r < 0)
                drain(c, &c->tls->out);
        else if (buf_len(&c->tls->out))
                conn_flush_soon(c);
        if (r < 0) {
                c->handshaking = false;
                c->error = r;
                cond_broadcast(&c->readable);
        }
}

static void give_back_memory(struct conn *c)
{
        if (c->in.cap > KEEP_BYTES && !buf_len(&c->in))
                buf_fini(&c->in);
        if (c->out.cap > KEEP_BYTES && !buf_len(&c->out))
                buf_fini(&c->out);
}

/* Hands what is in `in` to its reader. */
static void deliver(struct conn *c)
{
        if (c->closing)
                buf_clear(&c->in);
        else if (c->handler && c->handler->on_read)
                c->handler->on_read(c);
        else if (buf_len(&c->in) >= CONN_HIGH_WATER)
                c->reading = false; /* nobody takes it: conn_read() asks again */
        if (!c->dead)
                cond_broadcast(&c->readable);
}

/* One round: descriptor -> (session) -> reader. Returns what the descriptor gave, or an error. */
static ssize_t read_once(struct conn *c, bool *ret_more)
{
        size_t had = buf_len(&c->in);
        ssize_t n = fill(c, c->tls ? &c->tls->in : &c->in, ret_more);
        if (n == -EAGAIN)
                return n;
        if (n == 0)
                c->eof = true;
        if (n < 0)
                return n;
        if (c->handshaking) {
                if (n)
                        handshake_step(c);
                if (c->handshaking || c->error)
                        return c->eof && !c->error ? -ECONNRESET : c->error ? c->error : n;
        }
        if (c->tls && !c->closing) {
                int r = decrypt(c);
                if (buf_len(&c->tls->out) || c->stalled)
                        conn_flush_soon(c); /* key updates, alerts */
                if (r == 1)
                        c->eof = true;
                if (r < 0) {
                        if (buf_len(&c->in) > had)
                                deliver(c);
                        return r;
                }
        } else if (c->tls) {
                buf_clear(&c->tls->in);
        }
        if (buf_len(&c->in) > had)
                deliver(c);
        return n;
}

static void do_read(struct conn *c)
{
        for (int i = 0; i < READS_PER_EVENT && wants_read(c); i++) {
                bool more = false;
                ssize_t n = read_once(c, &more);
                if (c->dead)
                        return;
                if (n < 0 && n != -EAGAIN) {
                        finish(c, (int)n);
                        break;
                }
                if (!more)
                        break;
        }
        if (!c->dead && c->eof && !c->error)
                finish(c, 0);
        if (!c->dead) {
                give_back_memory(c);
                set_events(c, is_blocked(c));
        }
}

/* ---- output ---- */

static int drain_tls(struct conn *c)
{
        struct tls_session *t = c->tls;
        c->stalled = false;
        for (;;) {
                while (!c->handshaking && !c->stalled && buf_len(&c->out) && buf_len(&t->out) < TLS_AHEAD_BYTES) {
                        size_t n = buf_len(&c->out) < TLS_RECORD_BYTES ? buf_len(&c->out) : TLS_RECORD_BYTES;
                        int r = tls_session_write(t, c->out.p + c->out.off, n);
                        if (r && r != -EAGAIN)
                                return r;
                        c->stalled = r; /* until the peer has had its say */
                        if (!r)
                                buf_consume(&c->out, n);
                }
                int r = drain(c, &t->out);
                if (r || c->handshaking || c->stalled || !buf_len(&c->out))
                        return r;
        }
}

static void write_failed(struct conn *c, int err)
{
        c->write_error = err;
        buf_clear(&c->out);
        if (c->tls)
                buf_clear(&c->tls->out);
        set_events(c, false);
        /* The peer may have answered before it closed: that answer is still worth reading. */
        if (!c->closing && wants_read(c))
                do_read(c);
        if (!c->dead && !c->error)
                finish(c, err);
}

static void do_write(struct conn *c)
{
        if (c->error || c->write_error || c->dead)
                return;
        int r = c->tls ? drain_tls(c) : drain(c, &c->out);
        if (r < 0) {
                write_failed(c, r);
                return;
        }
        set_events(c, r == 1);
        if (c->above_high && conn_out_len(c) < CONN_LOW_WATER) {
                c->above_high = false;
                cond_broadcast(&c->drained);
                if (c->handler && c->handler->on_drain)
                        c->handler->on_drain(c);
        } else if (!unsent(c)) {
                cond_broadcast(&c->drained);
        }
        if (!c->dead)
                give_back_memory(c);
}

/* A conn that is closing: what remains to be done, or its end. */
static void close_step(struct conn *c)
{
        if (c->dead || !c->closing || c->flush.queued)
                return;
        if (c->tls && !c->notified && !unsent(c)) {
                c->notified = true;
                tls_session_shutdown(c->tls);
                do_write(c);
        }
        bool sent = !unsent(c);
        if (c->error || c->write_error || !timer_is_active(&c->linger) || (sent && c->eof)) {
                disarm(c);
        } else if (sent && !c->shut) {
                c->shut = true;
                shutdown(c->fd, SHUT_WR);
                if (c->linger_at > loop_now() + FIN_WAIT_S)
                        timer_start(&c->linger, FIN_WAIT_S, 0);
                set_events(c, false);
        }
}

/* ---- entries from the loop ---- */

static void conn_event(struct io_watch *w, int events)
{
        struct conn *c = container_of(w, struct conn, watch);
        bool outer = enter(c);
        if (events & IO_WRITE)
                do_write(c);
        if (events & IO_READ && !c->dead)
                do_read(c);
        close_step(c);
        leave(c, outer);
}

static void conn_flush_cb(struct defer *d)
{
        struct conn *c = container_of(d, struct conn, flush);
        bool outer = enter(c);
        int kick = c->kick;
        c->kick = 0;
        if (kick && c->handshaking)
                handshake_step(c);
        if (kick && c->eof && !c->closed && !c->error)
                finish(c, 0);
        if (kick & KICK_READ && buf_len(&c->in) && c->handler && c->handler->on_read)
                c->handler->on_read(c);
        if (kick & KICK_CLOSE && !c->dead && c->handler && c->handler->on_close)
                c->handler->on_close(c, c->error);
        if (!c->dead && !is_blocked(c))
                do_write(c);
        close_step(c);
        leave(c, outer);
}

static void conn_linger_cb(struct timer *t)
{
        struct conn *c = container_of(t, struct conn, linger);
        bool outer = enter(c);
        disarm(c);
        leave(c, outer);
}

/* ---- public ---- */

struct conn *conn_new_peer(int fd, const struct net_addr *peer)
{
        struct conn *c = calloc(1, sizeof(*c));
        if (!c) {
                close(fd);
                return NULL;
        }
        c->fd = fd;
        io_watch_init(&c->watch, fd, conn_event);
        c->flush.cb = conn_flush_cb;
        cond_init(&c->readable);
        cond_init(&c->drained);
        timer_init(&c->linger, conn_linger_cb);
        if (peer->ss.ss_family == AF_UNIX)
                memcpy(c->peer, "unix", sizeof("unix"));
        else
                net_addr_text(peer, c->peer, sizeof(c->peer));
        return c;
}

struct conn *conn_new(int fd)
{
        struct net_addr peer = {.ss = {.ss_family = AF_UNIX}, .n = sizeof(peer.ss)};
        if (getpeername(fd, (struct sockaddr *)&peer.ss, &peer.n) < 0)
                peer.ss.ss_family = AF_UNIX;
        return conn_new_peer(fd, &peer);
}

void conn_set_handler(struct conn *c, const struct conn_handler *h, void *owner)
{
        c->handler = h;
        c->owner = owner;
        set_events(c, is_blocked(c));
        c->kick = (buf_len(&c->in) ? KICK_READ : 0) | (c->closed ? KICK_CLOSE : 0);
        if (c->kick)
                defer_run(&c->flush);
}

void conn_close(struct conn *c, double linger_s)
{
        if (!c || c->dead)
                return;
        c->handler = NULL;
        c->owner = NULL;
        c->closing = true;
        if (c->error || c->write_error || c->handshaking) {
                conn_free(c);
                return;
        }
        buf_clear(&c->in);
        if (linger_s > 0) {
                c->linger_at = loop_now() + linger_s;
                timer_start(&c->linger, linger_s, 0);
        }
        list_del(&c->closing_link);
        list_add_tail(&closing, &c->closing_link);
        set_events(c, is_blocked(c));
        defer_run(&c->flush);
}

void conn_fini(void)
{
        while (!list_is_empty(&closing)) {
                struct conn *c = list_entry(closing.next, struct conn, closing_link);
                disarm(c);
                release(c);
        }
}

void conn_pause_read(struct conn *c, bool paused)
{
        c->read_paused = paused;
        set_events(c, is_blocked(c));
}

static int out_error(const struct conn *c)
{
        return c->error ? c->error : c->write_error;
}

void conn_flush_soon(struct conn *c)
{
        if (buf_len(&c->out) > CONN_HIGH_WATER)
                c->above_high = true;
        defer_run(&c->flush);
}

int conn_write(struct conn *c, const void *p, size_t n)
{
        int r = out_error(c);
        if (r)
                return r;
        if (n >= DIRECT_BYTES && !c->tls && !buf_len(&c->out)) {
                /* Errors come again from the flush, which is the one to tell. */
                ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
                if (sent > 0) {
                        p = (const char *)p + sent;
                        n -= (size_t)sent;
                }
        }
        if (n) {
                r = buf_add(&c->out, p, n);
                if (r)
                        return r;
                conn_flush_soon(c);
        }
        return 0;
}

int conn_read(struct conn *c)
{
        size_t had = buf_len(&c->in);
        c->reading = true;
        set_events(c, is_blocked(c));
        while (buf_len(&c->in) <= had) {
                if (c->error)
                        return c->error;
                if (c->eof)
                        return 0;
                int r = cond_wait(&c->readable);
                if (r)
                        return r;
        }
        return 1;
}

int conn_flush(struct conn *c)
{
        for (;;) {
                int r = out_error(c);
                if (r || !unsent(c))
                        return r;
                defer_run(&c->flush);
                r = cond_wait(&c->drained);
                if (r)
                        return r;
        }
}

int conn_throttle(struct conn *c)
{
        while (conn_out_len(c) > CONN_HIGH_WATER && !out_error(c)) {
                int r;
                c->above_high = true;
                do
                        r = cond_wait(&c->drained);
                while (!r && c->above_high && !out_error(c));
                if (r)
                        return r;
        }
        return out_error(c);
}

int conn_start_tls(struct conn *c, struct tls_context *tls, struct str server_name, bool is_server)
{
        if (c->handler || c->tls)
                return -EINVAL;
        int r = conn_flush(c);
        if (r)
                return r;
        r = tls_session_new(&c->tls, tls, server_name, is_server);
        if (r)
                return r;
        if (buf_len(&c->in))
                r = buf_adds(&c->tls->in, buf_str(&c->in));
        if (r)
                return r;
        buf_clear(&c->in);
        c->handshaking = true;
        c->kick = KICK_READ;
        set_events(c, is_blocked(c));
        defer_run(&c->flush);
        while (c->handshaking) {
                if (c->error || c->eof)
                        return c->error ? c->error : -ECONNRESET;
                r = cond_wait(&c->readable);
                if (r)
                        return r;
        }
        set_events(c, is_blocked(c));
        return c->error;
}
