/* The life of the process between "flags are parsed" and "exit code": start order, waiting, stop order. */
#ifndef KERNEL_RUNTIME_H
#define KERNEL_RUNTIME_H

#include "kernel/kernel.h"

/* Runs the kernel: k->opts is parsed, the log is set up, everything else is zero. On a fiber of FIBER_BIG; parks until the process
 * has been asked to stop and has stopped, or could not start. Returns the exit code. */
int runtime_run(struct kernel *k);
/* SIGINT and SIGTERM wait from here on, until runtime_run() is ready for them; it holds them again when it returns, so that the exit
 * code stays what it is. */
void runtime_hold_signals(void);

/* ---- runtime_components.c ---- */
struct block;
/* Starts what k->resources holds, in the reference's order and in parallel where the order allows, and publishes it in k. 0, or
 * -EINVAL with the reference's text in *ret_err (arena a) when a component without ignoreErrors failed. Parks. */
int runtime_start_components(struct kernel *k, const struct block *const *blocks, size_t n, struct arena *a, const char **ret_err);
/* A foreign component type has appeared: starts the components that failed for want of it. Parks. */
void runtime_type_appeared(struct kernel *k, const struct block *const *blocks, size_t n, const char *type);
void runtime_stop_components(struct kernel *k, double grace_s);

/* "3m0s", "1.5s", "20ms": as Go prints durations. */
void duration_text(char to[40], int64_t ns);

#endif
