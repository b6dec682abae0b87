/* One name resolver on multicast DNS: what it says of the own sidecar (responder.c) and what it knows of others (mdns.c). */
#ifndef PLUGINS_MDNS_MDNS_H
#define PLUGINS_MDNS_MDNS_H

#include "plugins/nameresolution.mdns/net.h"
#include "plugins/nameresolution.mdns/packet.h"

enum {
        MDNS_TTL_S = 3200,             /* of the sidecar's records */
        MDNS_ADDRESS_TTL_S = 120,
        MDNS_ANNOUNCEMENTS = 3,        /* at once, then after 1 s and 2 s more */
        MDNS_ANSWERS_PER_S_MAX = 200,  /* more questions go unanswered */
};

/* The own sidecar: PTR, SRV, TXT and address records that lead to it. */
struct responder {
        struct mdns_net *net;
        struct mdns_name enumeration, service, instance, host;
        char app_id[64];
        uint16_t port;
        uint8_t addr[16];
        size_t addr_n;                 /* 4 or 16 */
        struct timer announce;
        int announced;
        double allowance, allowance_at; /* answers that may be given now */
        struct mdns_writer out;
};
/* Does not send yet. 0, or -EINVAL with a sentence in why. */
int responder_init(struct responder *r, struct mdns_net *net, const char *app_id, const char *address, int port, char *why, size_t why_n);
void responder_announce(struct responder *r);
/* Says that the sidecar is gone. */
void responder_fini(struct responder *r);
/* Answers what it is asked. */
void responder_on_query(struct responder *r, struct str packet, const struct mdns_from *from);

#endif
