/* Starting one plugin process, and the descriptors that it gets: 0 /dev/null, 1 and 2 pipes, 3 listening socket, 4 control. */
#ifndef KERNEL_SUPER_SPAWN_H
#define KERNEL_SUPER_SPAWN_H

#include <stdbool.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct sandbox;
struct spawn_how {
        int listen_fd, exec_fd;               /* exec_fd: the program, open; -1 = by its path */
        int cgroup_fd;                        /* group to start it in; -1 = ours */
        const struct sandbox *sandbox;        /* the walls around it, from sandbox_prepare(); NULL = none */
        bool lingers;                         /* it may outlive us */
        bool stopped;                         /* before its first instruction, until SIGCONT; any debugger of its user may attach */
        const char *out_path, *err_path;      /* named pipes to be made for its output; NULL = pipes without a name */
};
struct spawned {
        pid_t pid;
        int pidfd;
        bool in_cgroup;       /* it is in that group: the machine's kernel can do so */
        int control_fd;       /* our end; closing it tells the process to end */
        int out_fd, err_fd;   /* our ends of its stdout and stderr, non-blocking */
};
/* Runs path, or the program that how->exec_fd holds open, with argv = {path} in an environment of exactly envp. The child is in a
 * session of its own, has default signal handlers, holds no other descriptor, and is killed when this thread ends, unless it lingers.
 * 0; or -errno with a sentence in err that says what is wrong and how to put it right (missing, not executable, other architecture,
 * ...). Blocks until exec: below a millisecond. */
int spawn_plugin(const char *path, char *const *envp, const struct spawn_how *how, struct spawned *ret, char *err, size_t err_n);

#endif
