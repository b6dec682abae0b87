/* Socket addresses from text: literals at once, names by getaddrinfo on the worker pool. */
#ifndef SDK_NET_DNS_H
#define SDK_NET_DNS_H

#include <stdint.h>
#include <sys/socket.h>

#include "sdk/base/str.h"

enum { DNS_MAX_ADDRS = 8 };

struct net_addr {
        struct sockaddr_storage ss;
        socklen_t n;
};

/* "host:port", "[v6]:port", ":port" -> parts. 0 or -EINVAL. */
int net_addr_split(struct str target, struct str *ret_host, uint16_t *ret_port);
/* "unix:/path", "unix:///path", "unix-abstract:name" -> address. 0, -EINVAL, -ENAMETOOLONG; -ENOENT = not a Unix form. */
int net_addr_unix(struct str target, struct net_addr *ret);
/* A literal IPv4 or IPv6 address. 0 or -EINVAL. */
int net_addr_literal(struct str host, uint16_t port, struct net_addr *ret);
/* "127.0.0.1:80", "[::1]:80", "unix:/path"; always NUL-terminated. */
void net_addr_text(const struct net_addr *a, char *to, size_t n);

/* Literals, "localhost" (both loopbacks) and names. Parks for names, until the fiber's deadline at most. Returns the number of
 * addresses (> 0), -ENOENT (no such name), -EAGAIN (the name servers do not answer), -ETIMEDOUT, -ECANCELED, -ENOMEM. */
int dns_resolve(struct str host, uint16_t port, struct net_addr ret[DNS_MAX_ADDRS]);
/* The same without parking: blocks the calling thread. For start-up and worker threads. */
int dns_resolve_blocking(struct str host, uint16_t port, struct net_addr ret[DNS_MAX_ADDRS]);

#endif
