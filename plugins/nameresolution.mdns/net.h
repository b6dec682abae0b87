/* The sockets of multicast DNS: UDP 5353 next to whoever else listens there, on every interface that can multicast, IPv4 and IPv6. */
#ifndef PLUGINS_MDNS_NET_H
#define PLUGINS_MDNS_NET_H

#include <sys/socket.h>

#include "sdk/base/loop.h"
#include "sdk/base/str.h"

enum { MDNS_PORT = 5353, MDNS_INTERFACES_MAX = 64, MDNS_READS_MAX = 64 /* packets taken in one go */ };

struct mdns_from { /* where a packet came from */
        struct sockaddr_storage ss;
        socklen_t n;
        unsigned interface;
};
struct mdns_socket {
        struct io_watch watch;
        struct mdns_net *net;
        int family, fd;          /* fd -1 = none */
        unsigned joined[MDNS_INTERFACES_MAX];
        size_t n_joined;
};
struct mdns_net {
        struct mdns_socket v4, v6;
        /* A packet that was sent to the group; runs on the loop's own stack. */
        void (*on_packet)(void *arg, struct str packet, const struct mdns_from *from);
        void *arg;
};

/* Opens what there is and joins the groups. 0; or -errno with a sentence in why when neither protocol is to be had. n stays where it
 * is until mdns_net_close(). */
int mdns_net_open(struct mdns_net *n, void (*on_packet)(void *, struct str, const struct mdns_from *), void *arg, char *why,
                  size_t why_n);
void mdns_net_close(struct mdns_net *n); /* a zero value is fine */
/* Joins interfaces that have come, forgets those that are gone. */
void mdns_net_rescan(struct mdns_net *n);
/* To the groups, on one interface (0 = on all). What cannot be sent now is lost, as packets are. */
void mdns_net_send(struct mdns_net *n, const void *p, size_t size, unsigned interface);
void mdns_net_reply(struct mdns_net *n, const void *p, size_t size, const struct mdns_from *to);

#endif
