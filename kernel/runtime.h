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
/* Starts what k->resources holds, in the reference's order and in parallel where the order allows, and publishes it in k. 0, or
 * -EINVAL with the reference's text in *ret_err (arena a) when a component without ignoreErrors failed. Parks. */
int runtime_start_components(struct kernel *k, struct arena *a, const char **ret_err);
/* One more, found by a reload: started, published, its streams begun. A failure is logged; it ends the process only when `fatal`,
 * then 0 becomes -EINVAL with the text in *ret_err (a). Parks. */
int runtime_add_component(struct kernel *k, struct component_spec *spec, bool fatal, struct arena *a, const char **ret_err);
/* Secret references, templates and what the kernel adds. 0; 1 = its secret store is not there; -errno with a text. Parks. */
int runtime_resolve_component(struct kernel *k, struct component_spec *spec, const char **ret_err);
/* Out of sight, its streams ended, its calls finished, its process stopped. Parks. */
void runtime_remove_component(struct kernel *k, struct component *c);
/* A foreign component type has appeared: starts the components that failed for want of it. Parks. */
void runtime_type_appeared(struct kernel *k, const char *type);
void runtime_stop_components(struct kernel *k, double grace_s);
void runtime_unpublish_components(struct kernel *k); /* the first part of it */
/* What the supervisor asks when instances are exchanged (struct super_conf); arg is the kernel. */
int runtime_on_move(void *arg, struct component *c, struct component *to, bool other_spec, struct arena *a, const char **ret_err);
void runtime_on_moved(void *arg, struct component *c);
void runtime_on_leave(void *arg, struct component *c);
void runtime_on_arrive(void *arg, struct component *c);

/* "3m0s", "1.5s", "20ms": as Go prints durations. */
void duration_text(char to[40], int64_t ns);

#endif
