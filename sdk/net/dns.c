/*
 * See dns.h. A look-up runs in a fiber of its own (work_run() cannot be interrupted), so that a caller whose deadline has passed
 * leaves at once; the look-up's memory belongs to both and goes with the later one.
 */
#include "sdk/net/dns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#include "sdk/base/fiber.h"
#include "sdk/base/work.h"

enum { HOST_MAX = 255 };

int net_addr_split(struct str target, struct str *ret_host, uint16_t *ret_port)
{
        struct str host, port;
        if (target.n && target.p[0] == '[') {
                ptrdiff_t end = str_chr(target, ']');
                if (end < 0 || (size_t)end + 1 >= target.n || target.p[end + 1] != ':')
                        return -EINVAL;
                host = str_n(target.p + 1, (size_t)end - 1);
                port = str_skip(target, (size_t)end + 2);
        } else {
                const char *colon = target.n ? memrchr(target.p, ':', target.n) : NULL;
                if (!colon || memchr(target.p, ':', (size_t)(colon - target.p)))
                        return -EINVAL;
                host = str_n(target.p, (size_t)(colon - target.p));
                port = str_skip(target, host.n + 1);
        }
        uint32_t v = 0;
        if (!port.n || port.n > 5)
                return -EINVAL;
        for (size_t i = 0; i < port.n; i++) {
                if (port.p[i] < '0' || port.p[i] > '9')
                        return -EINVAL;
                v = v * 10 + (uint32_t)(port.p[i] - '0');
        }
        if (v > 65535)
                return -EINVAL;
        *ret_host = host;
        *ret_port = (uint16_t)v;
        return 0;
}

int net_addr_unix(struct str target, struct net_addr *ret)
{
        bool abstract = str_has_prefix(target, STR("unix-abstract:"));
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        struct str path;
        if (abstract)
                path = str_skip(target, sizeof("unix-abstract:") - 1);
        else if (str_has_prefix(target, STR("unix://")))
                path = str_skip(target, sizeof("unix://") - 1);
        else if (str_has_prefix(target, STR("unix:")))
                path = str_skip(target, sizeof("unix:") - 1);
        else
                return -ENOENT;
        if (!path.n || (!abstract && memchr(path.p, 0, path.n)))
                return -EINVAL;
        if (path.n > sizeof(un.sun_path) - 1)
                return -ENAMETOOLONG;
        memcpy(un.sun_path + (abstract ? 1 : 0), path.p, path.n);
        *ret = (struct net_addr){.n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1)};
        memcpy(&ret->ss, &un, sizeof(un));
        return 0;
}

int net_addr_literal(struct str host, uint16_t port, struct net_addr *ret)
{
        char z[INET6_ADDRSTRLEN + 1];
        struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(port)};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        if (host.n >= sizeof(z) || !host.n)
                return -EINVAL;
        memcpy(z, host.p, host.n);
        z[host.n] = '\0';
        if (inet_pton(AF_INET, z, &in4.sin_addr) == 1) {
                *ret = (struct net_addr){.n = sizeof(in4)};
                memcpy(&ret->ss, &in4, sizeof(in4));
                return 0;
        }
        if (inet_pton(AF_INET6, z, &in6.sin6_addr) == 1) {
                *ret = (struct net_addr){.n = sizeof(in6)};
                memcpy(&ret->ss, &in6, sizeof(in6));
                return 0;
        }
        return -EINVAL;
}

void net_addr_text(const struct net_addr *a, char *to, size_t n)
{
        char ip[INET6_ADDRSTRLEN] = "?";
        if (a->ss.ss_family == AF_INET) {
                const struct sockaddr_in *in4 = (const struct sockaddr_in *)&a->ss;
                inet_ntop(AF_INET, &in4->sin_addr, ip, sizeof(ip));
                snprintf(to, n, "%s:%u", ip, ntohs(in4->sin_port));
        } else if (a->ss.ss_family == AF_INET6) {
                const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->ss;
                if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
                        inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, ip, sizeof(ip));
                        snprintf(to, n, "%s:%u", ip, ntohs(in6->sin6_port));
                } else {
                        inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
                        snprintf(to, n, "[%s]:%u", ip, ntohs(in6->sin6_port));
                }
        } else {
                const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
                size_t base = offsetof(struct sockaddr_un, sun_path);
                if (a->n <= base)
                        snprintf(to, n, "unix");
                else if (un->sun_path[0])
                        snprintf(to, n, "unix:%.*s", (int)strnlen(un->sun_path, a->n - base), un->sun_path);
                else
                        snprintf(to, n, "unix-abstract:%.*s", (int)strnlen(un->sun_path + 1, a->n - base - 1),
                                 un->sun_path + 1);
        }
}

/* ---- names ---- */

struct lookup {
        char host[HOST_MAX + 1];
        uint16_t port;
        bool done, abandoned;
        int result;
        struct cond finished;
        struct net_addr addrs[DNS_MAX_ADDRS];
};

static int lookup_run(void *arg)
{
        struct lookup *l = arg;
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *list = NULL;
        int r = getaddrinfo(l->host, NULL, &hints, &list);
        if (r) { /* AI_ADDRCONFIG does not count loopback: names of a machine without network */
                hints.ai_flags = 0;
                r = getaddrinfo(l->host, NULL, &hints, &list);
        }
        if (r == EAI_NONAME || r == EAI_NODATA)
                return -ENOENT;
        if (r == EAI_MEMORY)
                return -ENOMEM;
        if (r)
                return -EAGAIN;
        int n = 0;
        for (struct addrinfo *ai = list; ai && n < DNS_MAX_ADDRS; ai = ai->ai_next) {
                if ((ai->ai_family != AF_INET && ai->ai_family != AF_INET6) || ai->ai_addrlen > sizeof(l->addrs[n].ss))
                        continue;
                struct net_addr *a = &l->addrs[n++];
                *a = (struct net_addr){.n = ai->ai_addrlen};
                memcpy(&a->ss, ai->ai_addr, ai->ai_addrlen);
                /* sin_port and sin6_port stand at the same place */
                ((struct sockaddr_in *)&a->ss)->sin_port = htons(l->port);
        }
        freeaddrinfo(list);
        return n ? n : -ENOENT;
}

/* What needs no name server. 0 = ask one. */
static int resolve_simple(struct str host, uint16_t port, struct net_addr *ret)
{
        if (str_ieq(host, STR("localhost"))) {
                net_addr_literal(STR("127.0.0.1"), port, &ret[0]);
                net_addr_literal(STR("::1"), port, &ret[1]);
                return 2;
        }
        if (net_addr_literal(host, port, ret) == 0)
                return 1;
        if (!host.n || host.n > HOST_MAX || memchr(host.p, 0, host.n))
                return -ENOENT;
        return 0;
}

static struct lookup *lookup_new(struct str host, uint16_t port)
{
        struct lookup *l = calloc(1, sizeof(*l));
        if (!l)
                return NULL;
        memcpy(l->host, host.p, host.n);
        l->port = port;
        cond_init(&l->finished);
        return l;
}

static void lookup_fiber(void *arg)
{
        struct lookup *l = arg;
        l->result = work_run(lookup_run, l);
        l->done = true;
        if (l->abandoned)
                free(l);
        else
                cond_broadcast(&l->finished);
}

int dns_resolve(struct str host, uint16_t port, struct net_addr ret[DNS_MAX_ADDRS])
{
        static struct scope lookups = SCOPE_INIT(lookups);
        int r = resolve_simple(host, port, ret);
        if (r)
                return r;
        struct lookup *l = lookup_new(host, port);
        if (!l)
                return -ENOMEM;
        r = fiber_go(&lookups, "dns", lookup_fiber, l);
        if (r) {
                free(l);
                return r;
        }
        while (!l->done) {
                r = cond_wait(&l->finished);
                if (r && !l->done) {
                        l->abandoned = true;
                        return r;
                }
        }
        r = l->result;
        for (int i = 0; i < r; i++)
                ret[i] = l->addrs[i];
        free(l);
        return r;
}

int dns_resolve_blocking(struct str host, uint16_t port, struct net_addr ret[DNS_MAX_ADDRS])
{
        int r = resolve_simple(host, port, ret);
        if (r)
                return r;
        struct lookup *l = lookup_new(host, port);
        if (!l)
                return -ENOMEM;
        r = lookup_run(l);
        for (int i = 0; i < r; i++)
                ret[i] = l->addrs[i];
        free(l);
        return r;
}
