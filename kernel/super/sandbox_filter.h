/* The seccomp program of a sandbox: which system calls an ordinary program makes. */
#ifndef KERNEL_SUPER_SANDBOX_FILTER_H
#define KERNEL_SUPER_SANDBOX_FILTER_H

#include "kernel/super/sandbox.h"

struct filter_wish {
        bool tcp, udp, unix_sockets; /* sockets it may make */
        bool programs;               /* may start others */
        bool signals;                /* kill() reaches its own only, by other means */
        bool watches_files, watches_ports;
        unsigned denied;             /* SECCOMP_RET_... for what no plugin needs */
};
/* Number of instructions, at most SANDBOX_FILTER_MAX. */
size_t filter_build(struct sock_filter *to, const struct filter_wish *w);

#endif
