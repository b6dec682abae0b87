/*
 * A state store that does what no plugin should: the key of a get names the deed, metadata `victim` a number or path that it needs. It
 * answers with what it achieved; "denied" when the machine said no. "deed@pid" is for that process only: a call that is sent again to the
 * next one does nothing there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/vm_sockets.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dapr/plugin.h"

static char victim[512];

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *v = dapr_md_string(md, "victim");
        snprintf(victim, sizeof victim, "%s", v ? v : "");
        *instance = victim;
        return 0;
}

static bool reads(const char *path)
{
        char byte;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd >= 0 && read(fd, &byte, 1) == 1;
}

static bool writes(const char *path)
{
        return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0;
}

static bool peeks_at_parent(void)
{
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/mem", (int)getppid());
        return open(path, O_RDONLY) >= 0;
}

static bool reads_parents_memory(void)
{
        char byte;
        struct iovec here = {&byte, 1}, there = {(void *)&victim, 1};
        return syscall(SYS_process_vm_readv, getppid(), &here, 1, &there, 1, 0) == 1;
}

static bool connects(int port)
{
        struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        return fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
}

static bool connects_unix(const char *path)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", path);
        return fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
}

/* A name that is in no folder. */
static bool connects_abstract(const char *name)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        size_t n = strlen(name) < sizeof sa.sun_path - 1 ? strlen(name) : sizeof sa.sun_path - 1;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        memcpy(sa.sun_path + 1, name, n);
        return fd >= 0 && connect(fd, (struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) == 0;
}

static bool opens_socket(int family, int type, int protocol)
{
        return socket(family, type | SOCK_CLOEXEC, protocol) >= 0;
}

static bool signals_parent_otherwise(void)
{
        siginfo_t si = {.si_code = SI_QUEUE};
        int fd = (int)syscall(SYS_pidfd_open, getppid(), 0);
        return syscall(SYS_rt_sigqueueinfo, getppid(), SIGCONT, &si) == 0 || syscall(SYS_tgkill, getppid(), getppid(), SIGCONT) == 0 ||
               (fd >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGCONT, NULL, 0) == 0);
}

/* A program that was never in a file. */
static bool runs_from_memory(void)
{
        char path[32], *argv[] = {"x", NULL};
        int fd = memfd_create("x", MFD_CLOEXEC), from = open("/lib64/ld-linux-x86-64.so.2", O_RDONLY | O_CLOEXEC);
        if (from < 0)
                from = open("/lib/ld-linux-aarch64.so.1", O_RDONLY | O_CLOEXEC);
        char b[1024];
        for (ssize_t n; from >= 0 && (n = read(from, b, sizeof b)) > 0;)
                if (write(fd, b, (size_t)n) != n)
                        return false;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        execve(path, argv, NULL);
        return false;
}

/* As if somebody had typed it. */
static bool types_at_a_terminal(void)
{
        bool any = false;
        for (int fd = 0; fd < 16; fd++)
                any |= ioctl(fd, TIOCSTI, "x") == 0;
        return any;
}

static bool takes_all_descriptors(void)
{
        enum { MANY = 2000000 };
        int n = 0;
        while (n < MANY && dup(0) >= 0)
                n++;
        for (int fd = 16; fd < n + 16; fd++)
                close(fd);
        return n == MANY;
}

static bool floods_the_log(void)
{
        for (int i = 0; i < 200000; i++)
                fprintf(stderr, "line %d of a flood that nobody wants to read, and that would fill any disk\n", i);
        return true;
}

static bool forks(void)
{
        pid_t p = fork();
        if (p == 0)
                _exit(0);
        return p > 0;
}

static bool runs_a_shell(void)
{
        execl("/bin/sh", "sh", "-c", "exit 0", (char *)NULL);
        return false;
}

static bool eats_memory(void)
{
        enum { PIECE = 64 << 20 };
        size_t n = 0;
        for (char *p; n < 64 && (p = malloc(PIECE)); n++)
                memset(p, 1, PIECE);
        return n == 64;
}

/* By memory that no rlimit counts: shared with nobody, but it could be. A piece a call, so that it stays responsive. */
static bool grows(void)
{
        enum { PIECE = 2 << 20 };
        char *p = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
                return false;
        memset(p, 1, PIECE);
        return true;
}

/* Processes until there can be no more; they end again. */
static bool multiplies(void)
{
        enum { MANY = 300 };
        pid_t v[MANY];
        int n = 0;
        while (n < MANY && (v[n] = fork()) > 0)
                n++;
        if (n < MANY && v[n] == 0)
                for (;;)
                        pause();
        for (int i = 0; i < n; i++)
                if (kill(v[i], SIGKILL) || waitpid(v[i], NULL, 0) != v[i])
                        return true;
        return n == MANY;
}

/* Of a processor, a quarter of a second. */
static bool burns_time(void)
{
        clock_t end = clock() + CLOCKS_PER_SEC / 4;
        while (clock() < end)
                ;
        return true;
}

/* Into every connection: what the kernel reads next is no HTTP/2. */
static bool talks_nonsense(void)
{
        char b[1024];
        bool any = false;
        memset(b, 0xa5, sizeof b);
        for (int fd = 3; fd < 256; fd++)
                any |= send(fd, b, sizeof b, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
        return any;
}

/* Single system calls and sockets: what the machine's guardians need, and no plugin. */
static bool calls(const char *deed)
{
        static const struct { const char *deed; long nr; } rows[] = {
                {"bpf", SYS_bpf}, {"perf", SYS_perf_event_open}, {"keyctl", SYS_keyctl}, {"userfaultfd", SYS_userfaultfd}, {"io_uring", SYS_io_uring_setup},
                {"module", SYS_init_module}, {"kexec", SYS_kexec_load}, {"chroot", SYS_chroot}, {"pivot", SYS_pivot_root}, {"setns", SYS_setns},
                {"handle", SYS_open_by_handle_at}, {"pidfd_getfd", SYS_pidfd_getfd}, {"write-memory", SYS_process_vm_writev}, {"kcmp", SYS_kcmp},
                {"swapon", SYS_swapon}, {"clock", SYS_clock_settime}, {"hostname", SYS_sethostname}, {"mknod", SYS_mknodat}, {"fanotify", SYS_fanotify_init},
                {"madvise", SYS_process_madvise}, {"execveat", SYS_execveat}};
        static const struct { const char *deed; int family, type, protocol; } sockets[] = {
                {"udp", AF_INET, SOCK_DGRAM, 0}, {"raw", AF_INET, SOCK_RAW, 1}, {"packet", AF_PACKET, SOCK_RAW, 0}, {"netlink", AF_NETLINK, SOCK_RAW, 0},
                {"vsock", AF_VSOCK, SOCK_STREAM, 0}, {"alg", AF_ALG, SOCK_SEQPACKET, 0}};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (!strcmp(deed, rows[i].deed))
                        return syscall(rows[i].nr, 0, 0, 0, 0, 0, 0) >= 0;
        for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++)
                if (!strcmp(deed, sockets[i].deed))
                        return opens_socket(sockets[i].family, sockets[i].type, sockets[i].protocol);
        return false;
}

static bool does(const char *deed)
{
        if (!strcmp(deed, "garbage"))
                return talks_nonsense();
        if (!strcmp(deed, "crash"))
                return signal(SIGSEGV, SIG_DFL) == SIG_ERR || raise(SIGSEGV);
        if (!strcmp(deed, "exit"))
                _exit(9);

        if (!strcmp(deed, "read"))
                return reads(victim);
        if (!strcmp(deed, "write"))
                return writes(victim);
        if (!strcmp(deed, "parent-file"))
                return peeks_at_parent();
        if (!strcmp(deed, "parent-memory"))
                return reads_parents_memory();
        if (!strcmp(deed, "ptrace"))
                return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0;
        if (!strcmp(deed, "kill"))
                return kill(getppid(), SIGCONT) == 0;
        if (!strcmp(deed, "connect"))
                return connects(atoi(victim));
        if (!strcmp(deed, "unix"))
                return connects_unix(victim);
        if (!strcmp(deed, "fork"))
                return forks();
        if (!strcmp(deed, "shell"))
                return runs_a_shell();
        if (!strcmp(deed, "mount"))
                return syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL) == 0;
        if (!strcmp(deed, "unshare"))
                return syscall(SYS_unshare, 0x10000000) == 0;
        if (!strcmp(deed, "memory"))
                return eats_memory();
        if (!strcmp(deed, "grow"))
                return grows();
        if (!strcmp(deed, "multiply"))
                return multiplies();
        if (!strcmp(deed, "burn"))
                return burns_time();
        if (!strcmp(deed, "abstract"))
                return connects_abstract(victim);
        if (!strcmp(deed, "signal"))
                return signals_parent_otherwise();
        if (!strcmp(deed, "memfd"))
                return runs_from_memory();
        if (!strcmp(deed, "terminal"))
                return types_at_a_terminal();
        if (!strcmp(deed, "descriptors"))
                return takes_all_descriptors();
        if (!strcmp(deed, "flood"))
                return floods_the_log();
        return calls(deed);
}

static int answer(struct dapr_call *c, struct dapr_item *out, const char *text)
{
        out->value = dapr_copy(c, text, strlen(text));
        out->found = true;
        return out->value.p ? 0 : -ENOMEM;
}

static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        const char *key = strstr(in->key, "||") ? strstr(in->key, "||") + 2 : in->key;
        const char *at = strchr(key, '@');
        if (!strcmp(key, "nothing") || (at && atoi(at + 1) != (int)getpid()))
                return answer(c, out, "ok");
        return answer(c, out, does(at ? dapr_printf(c, "%.*s", (int)(at - key), key) : key) ? "done" : "denied");
}

static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        return 0;
}

static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        return 0;
}

static const struct dapr_state_ops ops = {.init = init, .get = get, .set = set, .del = del};
static const struct dapr_component_type types[] = {{.type = "state.hostile", .versions = "v1", .state = &ops}};
static const struct dapr_plugin plugin = {.name = "state.hostile", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
