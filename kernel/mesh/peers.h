/*
 * Connections to other sidecars: one gRPC channel an address and app, kept between calls. With an identity they are mutual TLS and the
 * server has to be that app; without one they are plain.
 */
#ifndef KERNEL_MESH_PEERS_H
#define KERNEL_MESH_PEERS_H

#include "sdk/net/rpc.h"

struct kernel;
struct peers;
struct peer_link;

enum { PEERS_MAX = 1024, PEERS_IDLE_S = 180 };

int peers_new(struct peers **ret, struct kernel *k); /* 0 or -ENOMEM */
void peers_free(struct peers *p);                    /* no call may be running; NULL is fine */

/* The connection for a call, until peers_put. address: "host:port". 0 and *ret; or the gRPC code with *st filled. Never parks: the
 * first call of the channel dials. */
int peers_get(struct peers *p, struct str address, struct str ns, struct str app_id, struct peer_link **ret, struct rpc_status *st);
void peers_put(struct peer_link *l);
/* As peers_put; calls to come get a connection of their own, those that run keep this one. */
void peers_retire(struct peer_link *l);
struct rpc_channel *peers_channel(const struct peer_link *l);

#endif
