/*
 * One socket a protocol, bound to the wildcard address with SO_REUSEADDR and SO_REUSEPORT, so that it lives beside Avahi and other
 * sidecars: packets for the group go to all of them. Each packet says on which interface it came and for which address it was meant;
 * what was sent to us alone is dropped, as it may come from beyond the link. Without a network the loopback interface is used.
 */
#include "plugins/nameresolution.mdns/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "plugins/nameresolution.mdns/packet.h"

enum { HOPS = 255 };

static struct sockaddr_in group4(void)
{
        return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(MDNS_PORT), .sin_addr.s_addr = htonl(0xe00000fb)};
}

static struct sockaddr_in6 group6(void)
{
        return (struct sockaddr_in6){.sin6_family = AF_INET6,
                                     .sin6_port = htons(MDNS_PORT),
                                     .sin6_addr.s6_addr = {0xff, 0x02, [15] = 0xfb}};
}

/* ---- interfaces ---- */

static void add_once(unsigned *v, size_t *n, unsigned index)
{
        for (size_t i = 0; i < *n; i++)
                if (v[i] == index)
                        return;
        if (*n < MDNS_INTERFACES_MAX && index)
                v[(*n)++] = index;
}

/* Those that are up, have an address of the family and can multicast; only when there is none: loopback. */
static size_t interfaces(int family, unsigned v[MDNS_INTERFACES_MAX])
{
        struct ifaddrs *all = NULL;
        unsigned loopback = 0;
        size_t n = 0;

        if (getifaddrs(&all))
                return 0;
        for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
                if (!i->ifa_addr || i->ifa_addr->sa_family != family || !(i->ifa_flags & IFF_UP))
                        continue;
                if (i->ifa_flags & IFF_LOOPBACK)
                        loopback = if_nametoindex(i->ifa_name);
                else if (i->ifa_flags & IFF_MULTICAST)
                        add_once(v, &n, if_nametoindex(i->ifa_name));
        }
        freeifaddrs(all);
        if (n == 0)
                add_once(v, &n, loopback);
        return n;
}

static int membership(const struct mdns_socket *s, unsigned index, bool join)
{
        struct ip_mreqn m4 = {.imr_multiaddr = group4().sin_addr, .imr_ifindex = (int)index};
        struct ipv6_mreq m6 = {.ipv6mr_multiaddr = group6().sin6_addr, .ipv6mr_interface = index};

        if (s->family == AF_INET)
                return setsockopt(s->fd, IPPROTO_IP, join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &m4, sizeof m4);
        return setsockopt(s->fd, IPPROTO_IPV6, join ? IPV6_JOIN_GROUP : IPV6_LEAVE_GROUP, &m6, sizeof m6);
}

static bool is_in(const unsigned *v, size_t n, unsigned index)
{
        for (size_t i = 0; i < n; i++)
                if (v[i] == index)
                        return true;
        return false;
}

static void rescan(struct mdns_socket *s)
{
        unsigned now[MDNS_INTERFACES_MAX];
        size_t n = s->fd >= 0 ? interfaces(s->family, now) : 0, kept = 0;

        for (size_t i = 0; i < s->n_joined; i++) {
                if (is_in(now, n, s->joined[i]))
                        s->joined[kept++] = s->joined[i];
                else
                        membership(s, s->joined[i], false);
        }
        s->n_joined = kept;
        for (size_t i = 0; i < n; i++)
                if (!is_in(s->joined, s->n_joined, now[i]) && (membership(s, now[i], true) == 0 || errno == EADDRINUSE))
                        s->joined[s->n_joined++] = now[i];
}

void mdns_net_rescan(struct mdns_net *n)
{
        rescan(&n->v4);
        rescan(&n->v6);
}

/* ---- receiving ---- */

/* Reads the control data. False: not sent to the group. */
static bool take_control(struct msghdr *m, struct mdns_from *from)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
                struct in_pktinfo i4;
                struct in6_pktinfo i6;
                if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
                        memcpy(&i4, CMSG_DATA(c), sizeof i4);
                        from->interface = (unsigned)i4.ipi_ifindex;
                        return i4.ipi_addr.s_addr == group4().sin_addr.s_addr;
                }
                if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
                        struct in6_addr group = group6().sin6_addr;
                        memcpy(&i6, CMSG_DATA(c), sizeof i6);
                        from->interface = i6.ipi6_ifindex;
                        return IN6_ARE_ADDR_EQUAL(&i6.ipi6_addr, &group);
                }
        }
        return false;
}

static void on_readable(struct io_watch *w, int events)
{
        struct mdns_socket *s = (struct mdns_socket *)w; /* its first member */
        static char packet[MDNS_PACKET_MAX + 1];         /* one loop thread */

        for (int i = 0; i < MDNS_READS_MAX && s->fd >= 0; i++) {
                _Alignas(struct cmsghdr) char control[256];
                struct mdns_from from = {0};
                struct iovec iov = {packet, sizeof packet};
                struct msghdr m = {.msg_name = &from.ss, .msg_namelen = sizeof from.ss, .msg_iov = &iov, .msg_iovlen = 1,
                                   .msg_control = control, .msg_controllen = sizeof control};
                ssize_t n = recvmsg(s->fd, &m, MSG_DONTWAIT);
                if (n < 0)
                        return;
                from.n = m.msg_namelen;
                if (n <= MDNS_PACKET_MAX && take_control(&m, &from))
                        s->net->on_packet(s->net->arg, str_n(packet, (size_t)n), &from);
        }
}

/* ---- sending ---- */

static void send_from(const struct mdns_socket *s, const void *p, size_t size, const void *to, socklen_t to_n, unsigned interface)
{
        _Alignas(struct cmsghdr) char control[64] = {0};
        struct iovec iov = {(void *)p, size};
        struct msghdr m = {.msg_name = (void *)to, .msg_namelen = to_n, .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
        struct in_pktinfo i4 = {.ipi_ifindex = (int)interface};
        struct in6_pktinfo i6 = {.ipi6_ifindex = interface};
        bool v4 = s->family == AF_INET;
        size_t n = v4 ? sizeof i4 : sizeof i6;

        m.msg_controllen = CMSG_SPACE(n);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
        c->cmsg_type = v4 ? IP_PKTINFO : IPV6_PKTINFO;
        c->cmsg_len = CMSG_LEN(n);
        memcpy(CMSG_DATA(c), v4 ? (void *)&i4 : (void *)&i6, n);
        sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_to_group(const struct mdns_socket *s, const void *p, size_t size, unsigned interface)
{
        struct sockaddr_in g4 = group4();
        struct sockaddr_in6 g6 = group6();
        const void *to = s->family == AF_INET ? (const void *)&g4 : (const void *)&g6;
        socklen_t to_n = s->family == AF_INET ? sizeof g4 : sizeof g6;

        for (size_t i = 0; s->fd >= 0 && i < s->n_joined; i++)
                if (!interface || s->joined[i] == interface)
                        send_from(s, p, size, to, to_n, s->joined[i]);
}

void mdns_net_send(struct mdns_net *n, const void *p, size_t size, unsigned interface)
{
        send_to_group(&n->v4, p, size, interface);
        send_to_group(&n->v6, p, size, interface);
}

void mdns_net_reply(struct mdns_net *n, const void *p, size_t size, const struct mdns_from *to)
{
        const struct mdns_socket *s = to->ss.ss_family == AF_INET ? &n->v4 : &n->v6;
        if (s->fd >= 0)
                send_from(s, p, size, &to->ss, to->n, to->interface);
}

/* ---- open, close ---- */

static int set(int fd, int level, int option, int value)
{
        return setsockopt(fd, level, option, &value, sizeof value);
}

static int open_socket(struct mdns_socket *s, int family)
{
        struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(MDNS_PORT)};
        struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(MDNS_PORT), .sin6_addr = IN6ADDR_ANY_INIT};
        bool v4 = family == AF_INET;
        int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;

        s->family = family;
        s->fd = fd;
        if (fd < 0)
                return -errno;
        if (set(fd, SOL_SOCKET, SO_REUSEADDR, 1) || set(fd, SOL_SOCKET, SO_REUSEPORT, 1) ||
            set(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_PKTINFO : IPV6_RECVPKTINFO, 1) ||
            set(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS, HOPS) ||
            (!v4 && set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) ||
            bind(fd, v4 ? (struct sockaddr *)&a4 : (struct sockaddr *)&a6, v4 ? sizeof a4 : sizeof a6))
                r = -errno;
        if (r == 0) {
                rescan(s);
                r = s->n_joined ? 0 : -ENODEV;
        }
        if (r) {
                close(fd);
                s->fd = -1;
                return r;
        }
        io_watch_init(&s->watch, fd, on_readable);
        io_watch_set(&s->watch, IO_READ);
        return 0;
}

int mdns_net_open(struct mdns_net *n, void (*on_packet)(void *, struct str, const struct mdns_from *), void *arg, char *why,
                  size_t why_n)
{
        n->on_packet = on_packet;
        n->arg = arg;
        n->v4.net = n->v6.net = n;
        int r4 = open_socket(&n->v4, AF_INET), r6 = open_socket(&n->v6, AF_INET6);
        if (r4 == 0 || r6 == 0)
                return 0;
        snprintf(why, why_n, "no multicast DNS on this host: UDP port %d by IPv4: %s, by IPv6: %s", MDNS_PORT, strerrordesc_np(-r4),
                 strerrordesc_np(-r6));
        return r4;
}

static void close_socket(struct mdns_socket *s)
{
        if (!s->net || s->fd < 0)
                return;
        io_watch_stop(&s->watch);
        close(s->fd);
        s->fd = -1;
}

void mdns_net_close(struct mdns_net *n)
{
        close_socket(&n->v4);
        close_socket(&n->v6);
}
