/*
 * A byte stream on a non-blocking socket (TCP or Unix), plain or TLS, and listeners.
 * Two ways to use a connection, one at a time:
 *   events: set handler callbacks; they run on the loop's stack when bytes have come, when output has drained, when it closed;
 *   fibers: conn_read()/conn_flush() park the calling fiber.
 * Output is gathered in `out` and written once per loop turn. Output is bounded by its users: they look at conn_out_len() and
 * wait for on_drain (below CONN_LOW_WATER).
 */
#ifndef SDK_NET_CONN_H
#define SDK_NET_CONN_H

#include <sys/socket.h>

#include "sdk/base/buf.h"
#include "sdk/base/fiber.h"
#include "sdk/base/list.h"
#include "sdk/base/loop.h"
#include "sdk/base/str.h"

enum { CONN_READ_BYTES = 64 * 1024, CONN_HIGH_WATER = 256 * 1024, CONN_LOW_WATER = 64 * 1024 };

struct conn;
struct tls_context;
struct tls_session;
struct net_addr;

/* Any of these may be NULL. They may close or free the conn, or give it another handler. */
struct conn_handler {
        void (*on_read)(struct conn *c);           /* more bytes in c->in; consume what is understood */
        void (*on_drain)(struct conn *c);          /* output fell below CONN_LOW_WATER after having been above it */
        /* Once: 0 = the peer ended its stream (output can still be sent), else -errno (it cannot). The owner still has to call
         * conn_close() or conn_free(), which never call this. */
        void (*on_close)(struct conn *c, int err);
};

struct conn {
        int fd;
        struct buf in, out;
        const struct conn_handler *handler;
        void *owner;                /* the handler's object */
        struct tls_session *tls;    /* NULL = plain */
        bool eof;                   /* the peer ended its stream */
        bool closed;                /* on_close is due or done */
        bool above_high, read_paused;
        int error;                  /* -errno once broken */
        struct io_watch watch;
        struct defer flush;
        struct cond readable, drained; /* fibers: bytes, end or error came; output shrank or error */
        char peer[64];              /* "127.0.0.1:1234", "[::1]:1", "unix" */
        /* conn.c's own */
        bool reading, closing, shut, notified, handshaking, stalled, in_cb, dead;
        int kick, events, write_error;
        double linger_at;
        struct timer linger;
        struct list closing_link;
};

/* Takes fd (non-blocking); no handler yet. NULL = no memory (fd closed). Reading starts with conn_set_handler or conn_read. */
struct conn *conn_new(int fd);
struct conn *conn_new_peer(int fd, const struct net_addr *peer); /* the same, when the peer is known */
void conn_set_handler(struct conn *c, const struct conn_handler *h, void *owner);
void conn_free(struct conn *c); /* closes at once; unsent output is dropped. NULL is fine. Allowed inside its own callback. */
/* Closes after pending output was sent, or after linger_s, then frees the conn. The peer gets a moment to read and close first,
 * so that the end does not destroy what it was sent. linger_s 0: one attempt to write at the end of this turn. No callback runs
 * after this call. */
void conn_close(struct conn *c, double linger_s);
/* End of the process, after the loop has stopped: frees connections whose conn_close has not come to its end. */
void conn_fini(void);
void conn_pause_read(struct conn *c, bool paused);
/* Appends to out and schedules the write. 0, -ENOMEM, or the connection's error. Never parks. */
int conn_write(struct conn *c, const void *p, size_t n);
void conn_flush_soon(struct conn *c); /* after adding to c->out directly */
static inline size_t conn_out_len(const struct conn *c)
{
        return buf_len(&c->out);
}

/* Fiber way. conn_read: parks until c->in has more than it had; 1 = more bytes, 0 = end of stream, <0 error. */
int conn_read(struct conn *c);
int conn_flush(struct conn *c); /* parks until out is empty */
/* Back-pressure for fibers that write, whatever the handler: parks while output is above CONN_HIGH_WATER, until it has fallen
 * below CONN_LOW_WATER. 0 or error. */
int conn_throttle(struct conn *c);
/* Target: "unix:/path", "unix-abstract:name", "host:port", "[v6]:port". Names are resolved on the worker pool; addresses are
 * tried in order. Parks. 0 and *ret, or -errno (-ETIMEDOUT by the fiber's deadline, -ENOENT unknown name). */
int conn_dial(struct str target, struct conn **ret);
/* Upgrades to TLS: parks until the handshake is done; no handler may be set. All of wolfSSL runs on the loop's own stack, so any
 * fiber will do. server_name: SNI and the name to verify; empty on the server side. 0, -EPROTO (handshake failed),
 * -EKEYREJECTED (the peer's certificate was refused), or another error; then only conn_free() is left. */
int conn_start_tls(struct conn *c, struct tls_context *tls, struct str server_name, bool is_server);

struct listener {
        int fd;
        void (*on_accept)(struct listener *l, struct conn *c); /* loop's stack; gives the conn */
        void *owner;
        struct io_watch watch;
        struct timer retry; /* out of descriptors: accepting rests for a moment */
        bool paused;
        char addr[112];  /* bound address as text */
        char *unlink_path;
};
/* A Unix socket that listens at path, for another process to accept on. >= 0, or -errno (-EADDRINUSE: whatever stands there stays). */
int listener_unix(const char *path);
/* Address forms as conn_dial; host "" = all interfaces (dual stack); port 0 = any. reuse_addr always, reuse_port never.
 * 0 or -errno. */
int listener_open(struct listener *l, struct str addr, void (*on_accept)(struct listener *, struct conn *), void *owner);
/* Adopts a listening descriptor (takes it). */
int listener_adopt(struct listener *l, int fd, void (*on_accept)(struct listener *, struct conn *), void *owner);
/* Closes ours without removing the socket's file, and gives another descriptor of the same socket, which goes on queueing connections.
 * -errno when there is none to be had. */
int listener_keep(struct listener *l);
int listener_port(const struct listener *l); /* 0 for Unix sockets */
void listener_pause(struct listener *l, bool paused);
void listener_close(struct listener *l);     /* stops; removes its Unix socket file; zero value is fine */

#endif
