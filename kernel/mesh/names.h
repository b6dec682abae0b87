/*
 * Where other apps' sidecars are. The name resolver is a plugin like all others; the Configuration's nameResolution names it, without
 * it mdns does (kubernetes in mode kubernetes). It is started when the internal server listens, next to what else happens then, and
 * its Init makes this sidecar known; a resolver that was started again is initialised again by the supervisor.
 *
 * Answers are kept for the time that the resolver gives with them, NAMES_MAX names at most: the one that was not used for longest
 * makes room. Several addresses of a name take turns. Calls for one name that come while it is asked for wait for that answer.
 */
#ifndef KERNEL_MESH_NAMES_H
#define KERNEL_MESH_NAMES_H

#include "sdk/base/arena.h"

struct kernel;

enum {
        NAMES_MAX = 4096,          /* names in the cache */
        NAMES_ADDRESSES_MAX = 64,  /* of one name; more are left out */
        NAMES_FAILED_MAX = 8,      /* addresses of one name that are being avoided */
        NAMES_FAILED_S = 5,        /* for so long, when there are others */
        NAMES_EMPTY_RETRIES = 5,   /* answers without an address are asked for again ... */
        NAMES_EMPTY_PAUSE_MS = 100,
        NAMES_START_MAX_S = 10,    /* a call waits so long for a resolver that is being started */
};

/* Starts the resolver in the background; its failure is logged and told to who resolves, nothing more. 0 or -ENOMEM. */
int names_start(struct kernel *k);
/* No more answers. The process itself ends with all others in super_stop(). */
void names_stop(struct kernel *k);
void names_free(struct kernel *k); /* after super_stop(); without names_start() too */

/* An address "host:port" of the app's sidecar, in a. Parks. `failed`: an address that this function gave and that could not be
 * reached: another one is given if there is any, else the resolver is asked again; NULL = none. 0; or < 0 with the sentence for the
 * caller in *ret_err (in a or static): the resolver's own, "name resolver not initialized", or why it cannot be asked.
 * -ENOENT: the resolver does not know the app; -ENOTCONN: there is no resolver; -ETIMEDOUT, -ECANCELED: of the fiber; -ENOMEM. */
int names_resolve(struct kernel *k, struct arena *a, struct str id, struct str ns, const char *failed, const char **ret_addr,
                  const char **ret_err);

#endif
