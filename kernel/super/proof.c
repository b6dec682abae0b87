/* /proc and pidfds. A pidfd is opened first and the process looked at afterwards: a number that was given anew meanwhile shows. */
#include "kernel/super/proof.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/text_file.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
enum { STAT_FLAGS = 9, STAT_START_TICKS = 22, FLAG_EXITING = 4 };
enum { TERM_WAIT_MS = 1500, KILL_WAIT_MS = 500 };

/* A number of /proc/<pid>/stat, by its place as proc(5) counts; 0 = there is none. */
static uint64_t stat_field(pid_t pid, int nr)
{
        char path[40], text[1024];
        unsigned long long v = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        if (text_file_read(path, text, sizeof text) <= 0)
                return 0;
        const char *p = strrchr(text, ')'); /* the name before it may hold anything */
        for (int field = 2; p && field < nr; field++)
                p = strchr(p + 1, ' ');
        return p && sscanf(p, " %llu", &v) == 1 ? v : 0;
}

uint64_t proof_start_ticks(pid_t pid)
{
        return stat_field(pid, STAT_START_TICKS);
}

bool proof_is_exiting(pid_t pid)
{
        return (stat_field(pid, STAT_FLAGS) & FLAG_EXITING) != 0;
}

uint64_t proof_file_id(const char *path)
{
        struct stat st;
        if (stat(path, &st))
                return 0;
        const uint64_t parts[] = {st.st_dev, st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
        uint64_t h = 14695981039346656037u; /* FNV-1a */
        for (size_t i = 0; i < sizeof parts; i++)
                h = (h ^ ((const unsigned char *)parts)[i]) * 1099511628211u;
        return h ? h : 1;
}

void proof_boot_id(char to[BOOT_ID_BYTES])
{
        text_file_read("/proc/sys/kernel/random/boot_id", to, BOOT_ID_BYTES);
        to[strcspn(to, "\n")] = '\0';
}

static int has_uid(pid_t pid, uid_t uid)
{
        char path[40], text[2048];
        unsigned real, effective;
        snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
        if (text_file_read(path, text, sizeof text) <= 0)
                return 0;
        const char *p = strstr(text, "\nUid:");
        return p && sscanf(p, "\nUid: %u %u", &real, &effective) == 2 && effective == uid;
}

int proof_process(pid_t pid, uint64_t start_ticks, uid_t uid)
{
        int fd = pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (fd < 0)
                return pid > 1 ? -errno : -ESRCH;
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (start_ticks && proof_start_ticks(pid) == start_ticks && has_uid(pid, uid) && poll(&p, 1, 0) == 0)
                return fd;
        close(fd);
        return -ESRCH;
}

pid_t proof_listener(const char *path, int *ret_pidfd)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        struct ucred peer = {0};
        socklen_t n = sizeof peer, fd_n = sizeof(int);
        if (strlen(path) >= sizeof sa.sun_path)
                return -ENAMETOOLONG;
        memcpy(sa.sun_path, path, strlen(path) + 1);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *)&sa, sizeof sa) || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n))
                r = -errno;
        if (ret_pidfd && (r || getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, ret_pidfd, &fd_n)))
                *ret_pidfd = -1;
        close(fd);
        return r ? r : peer.pid > 0 ? peer.pid : -ESRCH;
}

void proof_end(int pidfd)
{
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
        if (poll(&p, 1, TERM_WAIT_MS) == 1)
                return;
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        poll(&p, 1, KILL_WAIT_MS);
}
