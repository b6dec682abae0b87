/*
 * What a confined process asks for: its kernel stops at a system call that no plugin needs, at a file or a port that it looks up, and
 * asks this process. Allowed: it goes on (and Landlock has the last word). Else it is killed, and the reason names call, path or port.
 */
#ifndef KERNEL_SUPER_SANDBOX_WATCH_H
#define KERNEL_SUPER_SANDBOX_WATCH_H

#include "kernel/super/sandbox.h"
#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"

struct sandbox_watch;
/* fd: takes, of sandbox_receive(). scope: of fibers that look into questions; never cancelled, outlives the watch. grant, executable: copied. denied: called once, on such a fiber, with
 * "wanted the system call ptrace (101)"; the process waits until it is killed. 0 and *ret, -ENOMEM. */
int sandbox_watch_start(struct sandbox_watch **ret, int fd, struct scope *scope, const struct grant *g, const char *executable,
                        void (*denied)(void *arg, const char *what), void *arg);
/* The descriptor, to carry it to another program of this process. */
int sandbox_watch_fd(const struct sandbox_watch *w);
/* No call of denied any more; questions that are being looked at end by themselves. NULL is fine. Does not park. */
void sandbox_watch_stop(struct sandbox_watch *w);

#endif
