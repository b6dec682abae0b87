/*
 * The kernel replaces its own program without anybody noticing: the same process id, listening sockets, idle connections and plugin
 * processes; requests that run finish first, those that come meanwhile wait in the sockets' queues. What the new program needs to
 * know stands in the ledger (kernel/super/ledger.h).
 */
#ifndef KERNEL_UPGRADE_H
#define KERNEL_UPGRADE_H

#include "kernel/kernel.h"

/* At the start: takes what the program before has left, into k->ledger. 0; or -errno with a text: this is no start of ours. */
int upgrade_inherit(struct kernel *k, char *err, size_t err_n);
/* Everything has started: what is not taken a moment later is closed. */
void upgrade_inherited(struct kernel *k);
/* As super_conf.on_upgrade; arg is the kernel. */
int upgrade_ask(void *arg, const char *binary, struct arena *a, const char **ret_err);
/* The rest of the hand-over, when servers, blocks and app are at rest: plugins and l go to the new program. Returns only when no
 * program at all can be started. Parks. */
void upgrade_exec(struct kernel *k, struct ledger *l, double grace_s);

#endif
