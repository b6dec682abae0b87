/*
 * The walls around one plugin process: prepared by the kernel, put up by the child itself between clone and exec.
 *
 *   no_new_privs        no program can give it more rights
 *   Landlock            files and folders that were granted, TCP ports, signals and abstract sockets of its own only
 *   seccomp             system calls of an ordinary program; what no plugin needs stops the process and is named
 *   capabilities        none; started as root, a process that was granted no files runs as a user of its own
 *   limits              data memory, processes of its user, no core files
 *
 * A wall that the machine's kernel lacks is left out; sandbox_walls() tells which stand.
 */
#ifndef KERNEL_SUPER_SANDBOX_H
#define KERNEL_SUPER_SANDBOX_H

#include <linux/filter.h>
#include <sys/types.h>

#include "kernel/super/rights.h"

enum sandbox_wall { WALL_NO_NEW_PRIVS = 1, WALL_FILES = 2, WALL_PORTS = 4, WALL_SIGNALS = 8, WALL_SYSCALLS = 16, WALL_OWN_USER = 32, WALL_WATCH = 64, WALL_CGROUP = 128 };
/* A sanitizer's run-time looks at the whole process and needs more than any program: then nothing is confined. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANDBOX_POSSIBLE = 0 };
#else
enum { SANDBOX_POSSIBLE = 1 };
#endif
enum { SANDBOX_FILTER_MAX = 1024 };

struct sandbox {
        bool on;                /* false: the process is not confined */
        unsigned walls;         /* those that will stand */
        int ruleset_fd;         /* Landlock; -1 = none */
        uid_t uid;              /* to become; 0 = stay */
        uint64_t memory_bytes;
        unsigned processes;
        bool watches_files, watches_ports; /* such calls are asked for first (sandbox_watch.h) */
        uint64_t read_access;   /* of Landlock, for what the child adds itself */
        struct sock_filter filter[SANDBOX_FILTER_MAX];
        struct sock_fprog program;
};
/* What this machine offers, as WALL_ bits. */
unsigned sandbox_walls(void);
/* Walls for one process. executable: as it will be started. seed: chooses the own user. lingers: the process may outlive the kernel,
 * so that nothing it needs may wait for the kernel's answer. 0 or -errno; on failure nothing is held. Blocks for a moment. */
int sandbox_prepare(struct sandbox *s, const struct rights *rights, const struct grant *g, const char *executable, uint32_t seed, bool lingers);
void sandbox_fini(struct sandbox *s); /* zero value is fine */
/* In the child, last before exec: raw system calls only. Sends the descriptor that watches its calls over socket_fd when there is
 * one. 0 or -errno. ruleset_fd: where the ruleset stands in the child. */
int sandbox_enter(const struct sandbox *s, int ruleset_fd, int socket_fd);
/* After spawn, in the kernel: that descriptor, -1 = none was sent. Never blocks. */
int sandbox_receive(const struct sandbox *s, int socket_fd);
/* Is the path one that the grant or every program may read? path: as realpath() gives it. writes: to change it. */
bool sandbox_may_open(const struct grant *g, const char *executable, const char *path, bool writes);
const char *sandbox_wall_name(unsigned wall); /* of one bit; NULL if there is no such wall */
/* Those that this machine's kernel does not have, in order: "ports (Landlock, Linux 6.7)"; NULL behind the last. i: from 0. */
const char *sandbox_lacks(int i);
const char *sandbox_syscall_name(int nr); /* "?" if not among those that are named */

#endif
