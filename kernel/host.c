/*
 * The address is found as the reference finds it: a UDP socket "connected" to a documentation address tells which source address the
 * routing table prefers; without a route the interfaces are ranked: public IPv4, global IPv6, private IPv4, unique local IPv6, link
 * local. 192.0.0.0/29 (464XLAT) is never taken.
 */
#include "kernel/host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel/opts.h"

enum { RANK_NONE = 100, RANK_LINK_LOCAL = 99 };

static bool in4(uint32_t ip, uint32_t net, int bits)
{
        return (ip ^ net) >> (32 - bits) == 0;
}

static bool is_xlat(const struct sockaddr *sa)
{
        return sa->sa_family == AF_INET && in4(ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr), 0xc0000000, 29);
}

/* Smaller is better; RANK_NONE: not to be used. */
static int rank(const struct sockaddr *sa)
{
        if (sa->sa_family == AF_INET) {
                uint32_t ip = ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr);
                if (in4(ip, 0x7f000000, 8) || is_xlat(sa))
                        return RANK_NONE;
                if (in4(ip, 0xa9fe0000, 16))
                        return RANK_LINK_LOCAL;
                return in4(ip, 0x0a000000, 8) || in4(ip, 0xac100000, 12) || in4(ip, 0xc0a80000, 16) || in4(ip, 0x64400000, 10) ? 2 : 0;
        }
        if (sa->sa_family == AF_INET6) {
                const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
                if (IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_MULTICAST(a) || IN6_IS_ADDR_UNSPECIFIED(a))
                        return RANK_NONE;
                if (IN6_IS_ADDR_LINKLOCAL(a))
                        return RANK_LINK_LOCAL;
                return (a->s6_addr[0] & 0xfe) == 0xfc ? 3 : 1;
        }
        return RANK_NONE;
}

static bool text_of(const struct sockaddr *sa, char *to, size_t n)
{
        const void *a = sa->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr
                                                 : (const void *)&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
        return inet_ntop(sa->sa_family, a, to, (socklen_t)n) != NULL;
}

static bool by_route(const struct sockaddr *target, socklen_t target_n, char *to, size_t n)
{
        struct sockaddr_storage own;
        socklen_t own_n = sizeof own;
        int fd = socket(target->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        bool ok;

        if (fd < 0)
                return false;
        ok = connect(fd, target, target_n) == 0 && getsockname(fd, (struct sockaddr *)&own, &own_n) == 0 &&
             !is_xlat((struct sockaddr *)&own) && text_of((struct sockaddr *)&own, to, n);
        close(fd);
        return ok;
}

static bool by_interface(char *to, size_t n)
{
        struct ifaddrs *all = NULL, *best = NULL;
        int best_rank = RANK_NONE;

        if (getifaddrs(&all))
                return false;
        for (struct ifaddrs *i = all; i; i = i->ifa_next) {
                if (!i->ifa_addr || (i->ifa_flags & IFF_LOOPBACK) || rank(i->ifa_addr) >= best_rank)
                        continue;
                best = i;
                best_rank = rank(i->ifa_addr);
        }
        bool ok = best && text_of(best->ifa_addr, to, n);
        freeifaddrs(all);
        return ok;
}

int host_address(const struct daprd_opts *o, char *to, size_t n)
{
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(80)};
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(80)};

        if (o->host_ip[0]) {
                snprintf(to, n, "%s", o->host_ip);
                return 0;
        }
        inet_pton(AF_INET, "192.0.2.1", &v4.sin_addr);
        inet_pton(AF_INET6, "2001:db8::1", &v6.sin6_addr);
        if (by_route((struct sockaddr *)&v4, sizeof v4, to, n) || by_route((struct sockaddr *)&v6, sizeof v6, to, n) || by_interface(to, n))
                return 0;
        return -EADDRNOTAVAIL;
}

static void set_number(const char *name, int v)
{
        char text[12];

        snprintf(text, sizeof text, "%d", v);
        setenv(name, text, 1);
}

void host_set_environment(const struct daprd_opts *o, int internal_port)
{
        char address[64];

        setenv("APP_ID", o->app_id, 1);
        if (host_address(o, address, sizeof address) == 0)
                setenv("HOST_ADDRESS", address, 1);
        set_number("APP_PORT", o->app_port);
        set_number("DAPR_PORT", internal_port);
        set_number("DAPR_GRPC_PORT", o->dapr_grpc_port);
        set_number("DAPR_HTTP_PORT", o->dapr_http_port);
        set_number("DAPR_METRICS_PORT", o->metrics_port);
        set_number("DAPR_PROFILE_PORT", o->profile_port);
}
