/*
 * Sockets before they are connections: dialling and listening (conn.h). Names are dns.c's business.
 * A listener accepts some connections a turn and leaves the rest to the next; out of descriptors it rests for a moment instead
 * of spinning.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/net/conn.h"
#include "sdk/net/dns.h"

enum { ACCEPTS_PER_EVENT = 64, LISTEN_BACKLOG = 1024 };
#define ACCEPT_RETRY_S 0.1
#define DIAL_MIN_SHARE_S 2.0

/* ---- dialling ---- */

struct dial {
        struct io_watch watch;
        struct fiber *fiber;
        bool ready;
};

static void dial_event(struct io_watch *w, int events)
{
        struct dial *d = container_of(w, struct dial, watch);
        io_watch_set(w, 0);
        d->ready = true;
        fiber_wake(d->fiber);
}

static void set_tcp_options(int fd)
{
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

static int dial_wait(int fd, double deadline)
{
        struct dial d = {.fiber = fiber_self()};
        int r = 0, err = 0;
        socklen_t n = sizeof(err);
        io_watch_init(&d.watch, fd, dial_event);
        io_watch_set(&d.watch, IO_WRITE);
        while (!d.ready && !r)
                r = fiber_park_until(deadline);
        io_watch_stop(&d.watch);
        if (!d.ready)
                return r;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) < 0)
                return -errno;
        return -err;
}

static int dial_one(const struct net_addr *a, double deadline, struct conn **ret)
{
        int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (a->ss.ss_family != AF_UNIX)
                set_tcp_options(fd);
        int r = connect(fd, (const struct sockaddr *)&a->ss, a->n) < 0 ? -errno : 0;
        if (r == -EINPROGRESS || r == -EINTR)
                r = dial_wait(fd, deadline);
        else if (r == -EAGAIN)
                r = -ECONNREFUSED; /* Unix socket whose backlog is full */
        if (r) {
                close(fd);
                return r;
        }
        struct conn *c = conn_new_peer(fd, a);
        if (!c)
                return -ENOMEM;
        *ret = c;
        return 0;
}

int conn_dial(struct str target, struct conn **ret)
{
        struct net_addr addrs[DNS_MAX_ADDRS];
        struct str host;
        uint16_t port;
        int n = 1, r = net_addr_unix(target, &addrs[0]);
        if (r == -ENOENT) {
                r = net_addr_split(target, &host, &port);
                if (!r) {
                        n = dns_resolve(host.n ? host : STR("localhost"), port, addrs);
                        r = n < 0 ? n : 0;
                }
        }
        if (r)
                return r;
        for (int i = 0; i < n; i++) {
                /* Each address gets its share of the time that is left, as net.Dialer does. */
                double end = fiber_deadline(), at = end;
                if (isfinite(end) && i + 1 < n) {
                        double share = (end - loop_now()) / (n - i);
                        share = share < DIAL_MIN_SHARE_S ? DIAL_MIN_SHARE_S : share;
                        at = loop_now() + share < end ? loop_now() + share : end;
                }
                int e = dial_one(&addrs[i], at, ret);
                if (e == 0 || e == -ECANCELED)
                        return e;
                r = r && (e == -EAFNOSUPPORT || e == -EADDRNOTAVAIL) ? r : e;
                if (e == -ETIMEDOUT && loop_now() >= end)
                        break;
        }
        return r;
}

/* ---- listeners ---- */

static void listener_event(struct io_watch *w, int events)
{
        struct listener *l = container_of(w, struct listener, watch);
        for (int i = 0; i < ACCEPTS_PER_EVENT && l->on_accept && !l->paused; i++) {
                struct net_addr peer = {.n = sizeof(peer.ss)};
                int fd = accept4(l->fd, (struct sockaddr *)&peer.ss, &peer.n, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0) {
                        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                                io_watch_set(&l->watch, 0);
                                timer_start(&l->retry, ACCEPT_RETRY_S, 0);
                        }
                        if (errno == ECONNABORTED || errno == EINTR)
                                continue;
                        return;
                }
                struct conn *c = conn_new_peer(fd, &peer);
                if (c)
                        l->on_accept(l, c);
        }
}

static void listener_retry(struct timer *t)
{
        struct listener *l = container_of(t, struct listener, retry);
        io_watch_set(&l->watch, l->paused ? 0 : IO_READ);
}

int listener_adopt(struct listener *l, int fd, void (*on_accept)(struct listener *, struct conn *), void *owner)
{
        struct net_addr a = {.n = sizeof(a.ss)};
        int fl = fcntl(fd, F_GETFL);
        if (fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0 || getsockname(fd, (struct sockaddr *)&a.ss, &a.n) < 0) {
                int r = -errno;
                close(fd);
                return r;
        }
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (a.ss.ss_family != AF_UNIX)
                set_tcp_options(fd); /* accepted sockets inherit them */
        *l = (struct listener){.fd = fd, .on_accept = on_accept, .owner = owner};
        net_addr_text(&a, l->addr, sizeof(l->addr));
        timer_init(&l->retry, listener_retry);
        io_watch_init(&l->watch, fd, listener_event);
        io_watch_set(&l->watch, IO_READ);
        return 0;
}

static int bind_listen(int fd, const struct net_addr *a)
{
        int one = 1, zero = 0;
        if (a->ss.ss_family != AF_UNIX)
                setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (a->ss.ss_family == AF_INET6)
                setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
        if (bind(fd, (const struct sockaddr *)&a->ss, a->n) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
                return -errno;
        return 0;
}

static int open_addr(const struct net_addr *a)
{
        int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        int r = bind_listen(fd, a);
        if (r) {
                close(fd);
                return r;
        }
        return fd;
}

int listener_unix(const char *path)
{
        struct net_addr a = {.n = sizeof(struct sockaddr_un)};
        struct sockaddr_un *un = (struct sockaddr_un *)&a.ss;
        if (strlen(path) >= sizeof(un->sun_path))
                return -ENAMETOOLONG;
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, path, strlen(path) + 1);
        return open_addr(&a);
}

/* A socket file that nobody listens on any more is in the way: removes it. 0 = try again. */
static int remove_stale(const struct net_addr *a)
{
        const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
        struct stat st;
        if (!un->sun_path[0] || lstat(un->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
                return -EADDRINUSE;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        int r = connect(fd, (const struct sockaddr *)&a->ss, a->n) < 0 ? errno : 0;
        close(fd);
        if (r != ECONNREFUSED)
                return -EADDRINUSE;
        return unlink(un->sun_path) < 0 ? -errno : 0;
}

static int open_tcp(struct str addr)
{
        struct net_addr addrs[DNS_MAX_ADDRS];
        struct str host;
        uint16_t port;
        int r = net_addr_split(addr, &host, &port);
        if (r)
                return r;
        if (!host.n || str_eq(host, STR("0.0.0.0"))) { /* every address, of both kinds, as Go listens */
                net_addr_literal(STR("::"), port, &addrs[0]);
                r = open_addr(&addrs[0]);
                if (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)
                        return r;
                net_addr_literal(STR("0.0.0.0"), port, &addrs[0]);
                return open_addr(&addrs[0]);
        }
        int n = dns_resolve_blocking(host, port, addrs);
        if (n < 0)
                return n;
        r = -EADDRNOTAVAIL;
        for (int i = 0; i < n && r < 0; i++)
                r = open_addr(&addrs[i]);
        return r;
}

int listener_open(struct listener *l, struct str addr, void (*on_accept)(struct listener *, struct conn *), void *owner)
{
        struct net_addr a;
        char *path = NULL;
        int fd, r = net_addr_unix(addr, &a);
        if (r == -ENOENT) {
                fd = open_tcp(addr);
        } else if (r) {
                return r;
        } else {
                fd = open_addr(&a);
                if (fd == -EADDRINUSE && remove_stale(&a) == 0)
                        fd = open_addr(&a);
                const char *p = ((struct sockaddr_un *)&a.ss)->sun_path;
                if (fd >= 0 && *p && !(path = strdup(p))) {
                        close(fd);
                        return -ENOMEM;
                }
        }
        if (fd < 0)
                return fd;
        r = listener_adopt(l, fd, on_accept, owner);
        if (r) {
                free(path);
                return r;
        }
        l->unlink_path = path;
        return 0;
}

int listener_port(const struct listener *l)
{
        struct str host;
        uint16_t port = 0;
        if (!l->on_accept || net_addr_split(str_of(l->addr), &host, &port))
                return 0;
        return port;
}

void listener_pause(struct listener *l, bool paused)
{
        l->paused = paused;
        timer_stop(&l->retry);
        io_watch_set(&l->watch, paused ? 0 : IO_READ);
}

int listener_keep(struct listener *l)
{
        int fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 3), e = errno;
        if (fd >= 0) {
                free(l->unlink_path);
                l->unlink_path = NULL;
        }
        listener_close(l);
        return fd >= 0 ? fd : -e;
}

void listener_close(struct listener *l)
{
        if (!l->on_accept)
                return;
        io_watch_stop(&l->watch);
        timer_stop(&l->retry);
        close(l->fd);
        if (l->unlink_path)
                unlink(l->unlink_path);
        free(l->unlink_path);
        *l = (struct listener){.fd = -1};
}
