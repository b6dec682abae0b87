/* What this host is called by others, and what components may read of it from the environment (envRef). */
#ifndef KERNEL_HOST_H
#define KERNEL_HOST_H

#include <stddef.h>

struct daprd_opts;

/* The address others reach this host at: DAPR_HOST_IP, else the source address of the default route, else the best address of any
 * interface. No packet is sent. 0, or -EADDRNOTAVAIL when there is none. */
int host_address(const struct daprd_opts *o, char *to, size_t n);
/* Sets APP_ID, APP_PORT, HOST_ADDRESS and DAPR_*PORT in this process's environment. internal_port: of the internal gRPC server. */
void host_set_environment(const struct daprd_opts *o, int internal_port);

#endif
