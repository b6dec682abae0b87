/*
 * The workload's identity: an X.509 SVID from sentry (API.md 9.1), renewed at half of its life. Servers and clients between sidecars
 * use it for mutual TLS. One object a process, made when --enable-mtls is given.
 */
#ifndef KERNEL_MESH_IDENTITY_H
#define KERNEL_MESH_IDENTITY_H

#include "sdk/base/arena.h"

struct identity;
struct kernel;
struct tls_context;

/* A SPIFFE id, "spiffe://<trust domain>/ns/<namespace>/<app id>", in parts. */
struct spiffe_id {
        char text[300];
        struct str trust_domain, ns, app_id; /* of text */
};
/* Reads the id out of a certificate (DER). 0, -ENOENT (none), -EINVAL. */
int spiffe_of_leaf(struct str leaf, struct spiffe_id *ret);

/* Checks what is needed: sentry's address and DAPR_TRUST_ANCHORS. 0 and *ret; -EINVAL with a sentence in *ret_err (in a). */
int identity_new(struct identity **ret, struct kernel *k, struct arena *a, const char **ret_err);
/* Fetches the first SVID and keeps renewing it from then on. Parks: IDENTITY_TRIES attempts, IDENTITY_PAUSE_S apart. 0, or -errno
 * with the reason in *ret_err (in a). on_new: called at each new SVID with the server's context (borrowed); may be NULL. */
int identity_start(struct identity *i, void (*on_new)(void *arg, struct tls_context *server), void *arg, struct arena *a,
                   const char **ret_err);
/* Present context for servers (the peer must have an SVID of the same trust anchors); borrowed, changes at renewal. */
struct tls_context *identity_server_tls(struct identity *i);
/* A context for calls to an app's sidecar: it shows our SVID, and the server's id must be of that namespace and app, whatever its trust
 * domain. 0 and *ret, a new reference; -ENOSPC (IDENTITY_PEERS_MAX apps were called), -ENOMEM, -EINVAL. */
enum { IDENTITY_PEERS_MAX = 16384 };
int identity_client_tls(struct identity *i, struct str ns, struct str app_id, struct tls_context **ret);
/* Counts the SVIDs: contexts of an older one should not begin new connections. */
unsigned identity_generation(const struct identity *i);
void identity_free(struct identity *i); /* parks: ends the renewal; NULL is fine */

#endif
