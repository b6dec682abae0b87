/*
 * An allow-list. The kernel answers most of it from a bitmap (a call that is always allowed costs nothing), so one comparison a call
 * is fine. Calls that are unknown to old kernels, or that libraries try and do without, get an errno; what no plugin needs gets
 * wish.denied, which stops the process.
 */
#include "kernel/super/sandbox_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined __x86_64__
#define THIS_ARCH AUDIT_ARCH_X86_64
enum { X32_BIT = 0x40000000 };
#elif defined __aarch64__
#define THIS_ARCH AUDIT_ARCH_AARCH64
enum { X32_BIT = 0x7fffffff };
#else
#error "which AUDIT_ARCH_ is this machine?"
#endif

static const int allowed[] = {
        /* memory */
        SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_mincore, SYS_msync, SYS_mlock, SYS_mlock2, SYS_munlock, SYS_membarrier,
        SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect,
        /* descriptors */
        SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_close, SYS_close_range,
        SYS_dup, SYS_dup3, SYS_fcntl, SYS_ioctl, SYS_lseek, SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_ftruncate, SYS_fallocate, SYS_flock, SYS_fadvise64,
        SYS_sendfile, SYS_splice, SYS_tee, SYS_copy_file_range, SYS_pipe2, SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
        SYS_signalfd4, SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2,
        SYS_ppoll, SYS_pselect6,
        /* files: which ones is Landlock's matter */
        SYS_openat2, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_fstatfs, SYS_statfs, SYS_getdents64, SYS_readlinkat, SYS_faccessat, SYS_faccessat2, SYS_getcwd, SYS_chdir,
        SYS_fchdir, SYS_mkdirat, SYS_unlinkat, SYS_renameat2, SYS_linkat, SYS_symlinkat, SYS_utimensat, SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat,
        SYS_umask, SYS_truncate, SYS_fgetxattr, SYS_getxattr, SYS_lgetxattr, SYS_flistxattr, SYS_listxattr,
        /* sockets; socket() itself and connect() stand below */
        SYS_bind, SYS_listen, SYS_accept4, SYS_accept, SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_setsockopt, SYS_sendto, SYS_recvfrom, SYS_sendmsg,
        SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown, SYS_socketpair,
        /* threads, signals, time */
        SYS_futex, SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address, SYS_rseq, SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity,
        SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_gettid, SYS_getpid, SYS_getppid, SYS_tgkill,
        SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo,
        SYS_rt_tgsigqueueinfo, SYS_sigaltstack, SYS_restart_syscall, SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
        SYS_getitimer, SYS_setitimer, SYS_timer_create, SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_times,
        SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_pidfd_open, SYS_pidfd_send_signal,
        /* what it may know of itself */
        SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_getpgid, SYS_getsid, SYS_capget, SYS_prlimit64,
        SYS_getrlimit, SYS_getrusage, SYS_getpriority, SYS_sysinfo, SYS_uname, SYS_getrandom, SYS_getcpu, SYS_prctl, SYS_seccomp, SYS_landlock_create_ruleset,
        SYS_landlock_add_rule, SYS_landlock_restrict_self, SYS_execve, SYS_setsid, SYS_setpgid,
#ifdef __x86_64__
        SYS_arch_prctl, SYS_time, SYS_pipe, SYS_dup2, SYS_select, SYS_poll, SYS_epoll_create, SYS_epoll_wait, SYS_eventfd, SYS_inotify_init, SYS_stat, SYS_lstat,
        SYS_access, SYS_readlink, SYS_mkdir, SYS_rmdir, SYS_unlink, SYS_rename, SYS_renameat, SYS_link, SYS_symlink, SYS_chmod, SYS_getdents, SYS_alarm, SYS_pause,
        SYS_getpgrp, SYS_utimes, SYS_futimesat, SYS_signalfd,
#endif
};
/* Libraries try these and do without: an errno instead of the end. */
static const struct { int nr, err; } refused[] = {
        {SYS_clone3, ENOSYS}, /* its flags cannot be looked at; libc falls back to clone */
        {SYS_io_uring_setup, ENOSYS}, {SYS_io_uring_enter, ENOSYS}, {SYS_io_uring_register, ENOSYS}, {SYS_mbind, ENOSYS}, {SYS_get_mempolicy, ENOSYS},
        {SYS_set_mempolicy, ENOSYS}, {SYS_migrate_pages, ENOSYS}, {SYS_userfaultfd, ENOSYS}, {SYS_sched_setscheduler, EPERM},
        {SYS_sched_setparam, EPERM}, {SYS_sched_setattr, EPERM}, {SYS_setpriority, EPERM}, {SYS_ioprio_set, EPERM}, {SYS_setrlimit, EPERM}, {SYS_mlockall, EPERM},
        {SYS_personality, EPERM}, {SYS_capset, EPERM}, {SYS_setuid, EPERM}, {SYS_setgid, EPERM}, {SYS_setresuid, EPERM}, {SYS_setresgid, EPERM},
        {SYS_setgroups, EPERM},
};

struct builder {
        struct sock_filter *at, *from;
};

static void put(struct builder *b, unsigned code, uint32_t k, unsigned jt, unsigned jf)
{
        *b->at++ = (struct sock_filter)BPF_JUMP(code, k, (uint8_t)jt, (uint8_t)jf);
}

static void load(struct builder *b, size_t offset)
{
        put(b, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void ret(struct builder *b, uint32_t what)
{
        put(b, BPF_RET | BPF_K, what, 0, 0);
}

/* The number is in the accumulator before and after. */
static void on(struct builder *b, int nr, uint32_t what)
{
        put(b, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1);
        ret(b, what);
}

#define ARG_LOW(i) (offsetof(struct seccomp_data, args) + (i) * sizeof(uint64_t)) /* little endian */
#define REFUSE(e) (SECCOMP_RET_ERRNO | ((e) & SECCOMP_RET_DATA))

static void on_socket(struct builder *b, const struct filter_wish *w)
{
        struct { int family; uint32_t what; } of[] = {
                {AF_INET, w->tcp || w->udp ? SECCOMP_RET_ALLOW : w->denied},
                {AF_INET6, w->tcp || w->udp ? SECCOMP_RET_ALLOW : w->denied},
                {AF_NETLINK, w->tcp || w->udp ? SECCOMP_RET_ALLOW : REFUSE(EACCES)}, /* getaddrinfo sorts addresses */
                {AF_UNIX, w->unix_sockets ? SECCOMP_RET_ALLOW : w->tcp || w->udp ? REFUSE(EACCES) : w->denied}}; /* nscd is asked for names */
        enum { N = sizeof of / sizeof *of };
        put(b, BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 2 + 2 * N);
        load(b, ARG_LOW(0));
        for (int i = 0; i < N; i++)
                on(b, of[i].family, of[i].what);
        ret(b, w->denied);
}

static void on_clone(struct builder *b, const struct filter_wish *w)
{
        put(b, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
        load(b, ARG_LOW(0));
        put(b, BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1);
        ret(b, SECCOMP_RET_ALLOW);
        ret(b, w->programs ? SECCOMP_RET_ALLOW : w->denied);
}

size_t filter_build(struct sock_filter *to, const struct filter_wish *w)
{
        struct builder b = {to, to};
        uint32_t ask_file = w->watches_files ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW;
        uint32_t ask_port = w->watches_ports ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW;
        load(&b, offsetof(struct seccomp_data, arch));
        put(&b, BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
        ret(&b, SECCOMP_RET_KILL_PROCESS);
        load(&b, offsetof(struct seccomp_data, nr));
        put(&b, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
        ret(&b, SECCOMP_RET_KILL_PROCESS);
        on_socket(&b, w);
        on_clone(&b, w);
        on(&b, SYS_openat, ask_file);
        on(&b, SYS_connect, ask_port);
        on(&b, SYS_kill, w->signals || w->programs ? SECCOMP_RET_ALLOW : REFUSE(EPERM));
        on(&b, SYS_memfd_create, w->programs ? SECCOMP_RET_ALLOW : REFUSE(ENOSYS)); /* Landlock lets what is in it run */
        on(&b, SYS_tkill, w->signals ? SECCOMP_RET_ALLOW : REFUSE(EPERM));
#ifdef __x86_64__
        on(&b, SYS_open, ask_file);
        on(&b, SYS_creat, ask_file);
        on(&b, SYS_fork, w->programs ? SECCOMP_RET_ALLOW : w->denied);
        on(&b, SYS_vfork, w->programs ? SECCOMP_RET_ALLOW : w->denied);
#endif
        for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
                on(&b, allowed[i], SECCOMP_RET_ALLOW);
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
                on(&b, refused[i].nr, REFUSE(refused[i].err));
        ret(&b, w->denied);
        return (size_t)(b.at - b.from);
}
