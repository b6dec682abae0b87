/* The servers of the process: what listens where. Order of start and stop is the runtime's. */
#ifndef KERNEL_FRONT_H
#define KERNEL_FRONT_H

#include "kernel/front/call.h"

struct front;

/* Builds routes and method tables from the blocks' rows and settles opts.dapr_internal_grpc_port; nothing listens yet. blocks is
 * kept. 0 or -ENOMEM. */
int front_new(struct front **ret, struct kernel *k, const struct block *const *blocks, size_t n);
void front_free(struct front *f);

/* Each: 0, or a negative errno with a sentence in err. */
int front_start_metrics(struct front *f, char *err, size_t err_n);
int front_start_grpc(struct front *f, char *err, size_t err_n);     /* API server */
int front_start_http(struct front *f, char *err, size_t err_n);     /* API, public and profiling server */
struct tls_context;
/* A renewed identity: connections to come of the internal server use it. */
void front_new_identity(struct front *f, struct tls_context *server);
int front_start_internal(struct front *f, char *err, size_t err_n); /* sidecar to sidecar; takes another port when one that was not given is in use */

/* Stops the API servers and the internal one together: no new requests, those that run finish up to grace_s. Parks. */
void front_stop_apis(struct front *f, double grace_s);
void front_stop_metrics(struct front *f);
/* Instead of both: listening sockets and idle connections go into the ledger for the program that takes over; requests that run finish,
 * those from before the turn (below) excepted, which had their time. Parks. */
struct ledger;
void front_settle(struct front *f, struct ledger *l, double grace_s);
/* Then: streams that have been asked to end do, connections are closed. Parks. */
void front_end_streams(struct front *f);
/* Before both: with turn, calls from now on are counted apart; how many of those before still run. */
size_t front_before(struct front *f, bool turn);

#endif
