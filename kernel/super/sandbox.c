/*
 * Landlock rules and the own user are worked out here, by the kernel; the child only applies them. What every program may read is one
 * table: libraries, names of hosts and services, certificates, time zones. A script may read its interpreter's installation, too.
 */
#include "kernel/super/sandbox.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/super/sandbox_filter.h"

/* Of <linux/landlock.h>; Debian 12's header knows ABI 2 only. */
enum { RULE_PATH_BENEATH = 1, RULE_NET_PORT = 2 };
enum { NET_BIND_TCP = 1, NET_CONNECT_TCP = 2, SCOPE_ABSTRACT_UNIX = 1, SCOPE_SIGNAL = 2 };
#define FS_TRUNCATE (1ULL << 14)
struct ruleset_attr {
        uint64_t fs, net, scoped;
};
struct port_attr {
        uint64_t access, port;
};

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_FILE (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE | FS_TRUNCATE)
#define FS_WRITE                                                                                                                         \
        (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |         \
         LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER | FS_TRUNCATE)
#define FS_ALL ((1ULL << 13) - 1)

enum { OWN_UID_FIRST = 61184, OWN_UID_COUNT = 4335, PATH_BYTES = 1024 };

static const char *const everybody_reads[] = {
        "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
        "/usr/share/locale", "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/hosts", "/etc/host.conf",
        "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group",
        "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage", "/sys/fs/cgroup",
        "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/version", "/proc/filesystems", "/proc/sys/vm", "/proc/sys/kernel", "/proc/sys/net/core/somaxconn"};
enum { N_EVERYBODY = sizeof everybody_reads / sizeof *everybody_reads };

/* realpath() into a small buffer. */
static bool real_path(const char *path, char out[PATH_BYTES])
{
        char *p = realpath(path, NULL);
        bool fits = p && strlen(p) < PATH_BYTES;
        if (fits)
                memcpy(out, p, strlen(p) + 1);
        free(p);
        return fits;
}

/* ---- what there is ---- */

static int landlock_abi(void)
{
        long r = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
        return r < 0 ? 0 : (int)r;
}

unsigned sandbox_walls(void)
{
        int abi = landlock_abi();
        unsigned notify = SECCOMP_RET_USER_NOTIF;
        unsigned walls = WALL_NO_NEW_PRIVS;
        if (abi >= 1)
                walls |= WALL_FILES;
        if (abi >= 4)
                walls |= WALL_PORTS;
        if (abi >= 6)
                walls |= WALL_SIGNALS;
        if (prctl(PR_GET_SECCOMP) == 0 || errno == EINVAL)
                walls |= WALL_SYSCALLS;
        if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &notify) == 0)
                walls |= WALL_WATCH;
        if (geteuid() == 0)
                walls |= WALL_OWN_USER;
        return walls;
}

/* ---- Landlock ---- */

struct rules {
        int fd;
        uint64_t handled;
};

static int allow_path(const struct rules *r, const char *path, uint64_t access)
{
        struct stat st;
        int fd = open(path, O_PATH | O_CLOEXEC);
        if (fd < 0)
                return 0; /* what is not there needs no rule */
        access &= r->handled;
        if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
                access &= FS_FILE;
        struct landlock_path_beneath_attr attr = {.allowed_access = access, .parent_fd = fd};
        long e = syscall(SYS_landlock_add_rule, r->fd, RULE_PATH_BENEATH, &attr, 0) ? -errno : 0;
        close(fd);
        return (int)e;
}

static int allow_port(const struct rules *r, int port, uint64_t access)
{
        struct port_attr attr = {access, (uint64_t)port};
        return syscall(SYS_landlock_add_rule, r->fd, RULE_NET_PORT, &attr, 0) ? -errno : 0;
}

/* The first line's program of a script, and what `env` would find; "" if it is no script. */
static void interpreter(const char *executable, char path[PATH_BYTES])
{
        char line[256] = "", *word;
        int fd = open(executable, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, line, sizeof line - 1) : -1;
        if (fd >= 0)
                close(fd);
        *path = '\0';
        if (n < 3 || line[0] != '#' || line[1] != '!')
                return;
        line[strcspn(line, "\r\n")] = '\0';
        word = line + 2 + strspn(line + 2, " \t");
        char *end = word + strcspn(word, " \t"), *arg = *end ? end + 1 + strspn(end + 1, " \t") : end;
        *end = '\0';
        arg[strcspn(arg, " \t")] = '\0';
        snprintf(path, PATH_BYTES, "%s", word);
        const char *name = strrchr(word, '/');
        for (const char *dirs = getenv("PATH") ? getenv("PATH") : "/usr/local/bin:/usr/bin:/bin"; *arg && name && !strcmp(name, "/env") && dirs; ) {
                size_t len = strcspn(dirs, ":");
                if (snprintf(path, PATH_BYTES, "%.*s/%s", (int)len, dirs, arg) < PATH_BYTES && access(path, X_OK) == 0)
                        return;
                dirs = dirs[len] ? dirs + len + 1 : NULL;
        }
}

/* Folder of the folder: /usr/bin/python3 -> /usr. */
static void installation(char *path)
{
        for (int i = 0; i < 2; i++) {
                char *slash = strrchr(path, '/');
                if (slash)
                        *slash = '\0';
        }
}

static int allow_script(const struct rules *r, const char *program)
{
        char path[PATH_BYTES];
        int e = allow_path(r, "/usr/bin/env", FS_READ | LANDLOCK_ACCESS_FS_EXECUTE);
        if (!e)
                e = allow_path(r, program, FS_READ | LANDLOCK_ACCESS_FS_EXECUTE);
        snprintf(path, sizeof path, "%s", program);
        installation(path);
        if (!e && *path)
                e = allow_path(r, path, FS_READ);
        if (!e && real_path(program, path)) {
                installation(path);
                e = *path ? allow_path(r, path, FS_READ) : 0;
        }
        return e ? e : allow_path(r, "/usr", FS_READ);
}

static int allow_files(const struct rules *r, const struct grant *g, const char *executable, const char *script)
{
        char folder[PATH_BYTES];
        int e = 0;
        for (int i = 0; i < N_EVERYBODY && !e; i++)
                e = allow_path(r, everybody_reads[i], FS_READ | (strncmp(everybody_reads[i], "/dev/", 5) ? 0 : LANDLOCK_ACCESS_FS_WRITE_FILE));
        /* the dynamic loader is started, too */
        static const char *const loaders[] = {"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"};
        for (size_t i = 0; i < sizeof loaders / sizeof *loaders && !e; i++)
                e = allow_path(r, loaders[i], FS_READ | LANDLOCK_ACCESS_FS_EXECUTE);
        if (!e)
                e = allow_path(r, executable, FS_READ | LANDLOCK_ACCESS_FS_EXECUTE);
        snprintf(folder, sizeof folder, "%s", executable);
        if (strrchr(folder, '/')) {
                *strrchr(folder, '/') = '\0';
                e = e ? e : allow_path(r, folder, FS_READ);
        }
        if (!e && *script)
                e = allow_script(r, script);
        for (size_t i = 0; i < g->n_files && !e; i++) {
                const struct granted_file *f = &g->files[i];
                e = allow_path(r, f->path, FS_READ | (f->kind == RIGHT_WRITE ? FS_WRITE : f->kind == RIGHT_PROGRAM ? LANDLOCK_ACCESS_FS_EXECUTE : 0));
        }
        return e;
}

static int allow_ports(const struct rules *r, const struct grant *g)
{
        int e = 0;
        for (size_t i = 0; i < g->n_connect && !e && !g->any_port; i++)
                e = allow_port(r, g->connect_ports[i], NET_CONNECT_TCP);
        for (size_t i = 0; i < g->n_listen && !e; i++)
                e = allow_port(r, g->listen_ports[i], NET_BIND_TCP);
        return e;
}

static int make_ruleset(struct sandbox *s, const struct grant *g, const char *executable, const char *script)
{
        int abi = landlock_abi();
        struct ruleset_attr attr = {.fs = FS_ALL};
        if (abi < 1)
                return 0;
        if (abi >= 2)
                attr.fs |= LANDLOCK_ACCESS_FS_REFER;
        if (abi >= 3)
                attr.fs |= FS_TRUNCATE;
        if (abi >= 4)
                attr.net = NET_BIND_TCP | (g->any_port ? 0 : NET_CONNECT_TCP);
        if (abi >= 6)
                attr.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
        size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
        struct rules r = {(int)syscall(SYS_landlock_create_ruleset, &attr, size, 0), attr.fs};
        if (r.fd < 0)
                return -errno;
        fcntl(r.fd, F_SETFD, FD_CLOEXEC);
        s->ruleset_fd = r.fd;
        s->read_access = FS_READ;
        s->walls |= WALL_FILES | (abi >= 4 ? WALL_PORTS : 0) | (abi >= 6 ? WALL_SIGNALS : 0);
        int e = allow_files(&r, g, executable, script);
        return e || abi < 4 ? e : allow_ports(&r, g);
}

/* ---- own user ---- */

static bool folders_are_open(char *path)
{
        struct stat st;
        for (char *slash = strrchr(path, '/'); slash && slash != path; slash = strrchr(path, '/')) {
                *slash = '\0';
                if (stat(path, &st) || !(st.st_mode & 1))
                        return false;
        }
        return true;
}

/* Can a stranger start it, by this path and through the links on it? */
static bool is_open_to_all(const char *path)
{
        char real[PATH_BYTES], given[PATH_BYTES];
        struct stat st;
        if (!real_path(path, real) || stat(real, &st) || (st.st_mode & 5) != 5)
                return false;
        return snprintf(given, sizeof given, "%s", path) < PATH_BYTES && folders_are_open(given) && folders_are_open(real);
}

int sandbox_prepare(struct sandbox *s, const struct rights *rights, const struct grant *g, const char *executable, uint32_t seed, bool lingers)
{
        char script[PATH_BYTES];
        unsigned walls = sandbox_walls();
        *s = (struct sandbox){.ruleset_fd = -1};
        if (!rights->confined || !SANDBOX_POSSIBLE)
                return 0;
        s->on = true;
        s->walls = WALL_NO_NEW_PRIVS;
        s->memory_bytes = rights->memory_bytes;
        s->processes = rights->processes;
        interpreter(executable, script);
        bool programs = g->forks;
        for (size_t i = 0; i < g->n_files; i++)
                programs |= g->files[i].kind == RIGHT_PROGRAM;
        if ((walls & WALL_OWN_USER) && g->n_files == 0 && !*script && is_open_to_all(executable)) {
                s->uid = OWN_UID_FIRST + seed % OWN_UID_COUNT;
                s->walls |= WALL_OWN_USER;
        }
        int r = make_ruleset(s, g, executable, script);
        if (r) {
                sandbox_fini(s);
                return r;
        }
        if (walls & WALL_SYSCALLS) {
                bool watch = (walls & WALL_WATCH) && !lingers;
                s->walls |= WALL_SYSCALLS | (watch ? WALL_WATCH : 0);
                s->watches_files = watch && (s->walls & WALL_FILES) && !g->writes && !programs && !*script;
                s->watches_ports = watch && (s->walls & WALL_PORTS) && g->tcp && !g->any_port;
                struct filter_wish w = {.tcp = g->tcp, .udp = g->udp, .unix_sockets = g->unix_sockets, .programs = programs,
                                        .signals = s->walls & WALL_SIGNALS, .watches_files = s->watches_files, .watches_ports = s->watches_ports,
                                        .denied = watch ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_KILL_PROCESS};
                s->program = (struct sock_fprog){(unsigned short)filter_build(s->filter, &w), s->filter};
        }
        return 0;
}

void sandbox_fini(struct sandbox *s)
{
        if (s->on && s->ruleset_fd >= 0)
                close(s->ruleset_fd);
        s->ruleset_fd = -1;
}

/* ---- in the child ---- */

#define NO_SANITIZER __attribute__((no_sanitize("address", "undefined", "thread")))

NO_SANITIZER static int drop_rights(const struct sandbox *s)
{
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct none[2] = {{0}, {0}};
        struct rlimit data = {s->memory_bytes, s->memory_bytes}, processes = {s->processes, s->processes}, core = {0, 0};
        if (syscall(SYS_prlimit64, 0, RLIMIT_DATA, &data, NULL) || syscall(SYS_prlimit64, 0, RLIMIT_CORE, &core, NULL))
                return -errno;
        if (s->uid) {
                gid_t gid = (gid_t)s->uid;
                if (syscall(SYS_prlimit64, 0, RLIMIT_NPROC, &processes, NULL) || syscall(SYS_setgroups, 0, NULL) ||
                    syscall(SYS_setresgid, gid, gid, gid) || syscall(SYS_setresuid, s->uid, s->uid, s->uid))
                        return -errno;
        }
        if ((s->uid || syscall(SYS_geteuid) == 0) && syscall(SYS_capset, &head, none))
                return -errno;
        return 0;
}

/* A program may look at itself; which folder that is, only the child knows. */
NO_SANITIZER static void allow_self(const struct sandbox *s, int ruleset_fd)
{
        int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self", O_PATH | O_CLOEXEC, 0);
        struct landlock_path_beneath_attr attr = {.allowed_access = s->read_access, .parent_fd = fd};
        if (fd < 0)
                return;
        syscall(SYS_landlock_add_rule, ruleset_fd, RULE_PATH_BENEATH, &attr, 0);
        syscall(SYS_close, fd);
}

NO_SANITIZER static int send_fd(int socket_fd, int fd)
{
        char byte = 'w';
        struct iovec v = {&byte, 1};
        union {
                struct cmsghdr head;
                char room[CMSG_SPACE(sizeof(int))];
        } c;
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof c.room};
        c.head.cmsg_len = CMSG_LEN(sizeof(int));
        c.head.cmsg_level = SOL_SOCKET;
        c.head.cmsg_type = SCM_RIGHTS;
        *(int *)(void *)CMSG_DATA(&c.head) = fd;
        return syscall(SYS_sendmsg, socket_fd, &m, 0) == 1 ? 0 : -errno;
}

NO_SANITIZER static int install_filter(const struct sandbox *s, int socket_fd)
{
        if (!(s->walls & WALL_WATCH))
                return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &s->program) ? -errno : 0;
        /* since Linux 5.19: the program's own signals do not interrupt a call that waits for us */
        long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &s->program);
        if (fd < 0 && errno == EINVAL)
                fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &s->program);
        return fd < 0 ? -errno : send_fd(socket_fd, (int)fd); /* the next exec closes it */
}

NO_SANITIZER int sandbox_enter(const struct sandbox *s, int ruleset_fd, int socket_fd)
{
        if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
                return -errno;
        if (s->walls & WALL_FILES)
                allow_self(s, ruleset_fd);
        int r = drop_rights(s);
        if (r == 0 && (s->walls & WALL_FILES)) {
                if (syscall(SYS_landlock_restrict_self, ruleset_fd, 0))
                        return -errno;
                syscall(SYS_close, ruleset_fd);
        }
        return r || !(s->walls & WALL_SYSCALLS) ? r : install_filter(s, socket_fd);
}

/* ---- afterwards ---- */

int sandbox_receive(const struct sandbox *s, int socket_fd)
{
        char byte;
        struct iovec v = {&byte, 1};
        union {
                struct cmsghdr head;
                char room[CMSG_SPACE(sizeof(int))];
        } c;
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof c.room};
        if (!s->on || !(s->walls & WALL_WATCH) || recvmsg(socket_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
                return -1;
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        return h && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)) ? *(int *)(void *)CMSG_DATA(h) : -1;
}

static bool is_below(const char *path, const char *folder)
{
        char real[PATH_BYTES];
        if (!real_path(folder, real))
                return false;
        size_t n = strlen(real);
        return strncmp(path, real, n) == 0 && (path[n] == '\0' || path[n] == '/' || n == 1);
}

bool sandbox_may_open(const struct grant *g, const char *executable, const char *path, bool writes)
{
        char folder[PATH_BYTES];
        for (int i = 0; i < N_EVERYBODY; i++)
                if ((!writes || !strncmp(everybody_reads[i], "/dev/", 5)) && is_below(path, everybody_reads[i]))
                        return true;
        for (size_t i = 0; i < g->n_files; i++)
                if ((!writes || g->files[i].kind == RIGHT_WRITE) && is_below(path, g->files[i].path))
                        return true;
        snprintf(folder, sizeof folder, "%s", executable);
        if (strrchr(folder, '/'))
                *strrchr(folder, '/') = '\0';
        return !writes && is_below(path, folder);
}

const char *sandbox_wall_name(unsigned wall)
{
        static const char *const names[] = {"no new privileges", "files", "ports", "signals", "system calls", "own user", "watched", "own cgroup"};
        for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
                if (wall == 1u << i)
                        return names[i];
        return NULL;
}

const char *sandbox_lacks(int i)
{
        static const struct { unsigned wall; const char *text; } rows[] = {
                {WALL_FILES, "files (Landlock, Linux 5.13)"}, {WALL_PORTS, "ports (Landlock, Linux 6.7)"},
                {WALL_SIGNALS, "signals and abstract sockets (Landlock, Linux 6.12)"}, {WALL_SYSCALLS, "system calls (seccomp, Linux 3.17)"},
                {WALL_WATCH, "watched (seccomp, Linux 5.0)"}};
        unsigned walls = sandbox_walls();
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
                if (!(walls & rows[k].wall) && i-- == 0)
                        return rows[k].text;
        return NULL;
}

const char *sandbox_syscall_name(int nr)
{
        static const struct { int nr; const char *name; } names[] = {
                {SYS_socket, "socket"}, {SYS_connect, "connect"}, {SYS_clone, "clone"}, {SYS_openat, "openat"}, {SYS_ptrace, "ptrace"},
                {SYS_process_vm_readv, "process_vm_readv"}, {SYS_process_vm_writev, "process_vm_writev"}, {SYS_mount, "mount"}, {SYS_umount2, "umount2"},
                {SYS_unshare, "unshare"}, {SYS_setns, "setns"}, {SYS_bpf, "bpf"}, {SYS_perf_event_open, "perf_event_open"}, {SYS_keyctl, "keyctl"},
                {SYS_add_key, "add_key"}, {SYS_request_key, "request_key"}, {SYS_kexec_load, "kexec_load"}, {SYS_init_module, "init_module"},
                {SYS_finit_module, "finit_module"}, {SYS_delete_module, "delete_module"}, {SYS_reboot, "reboot"}, {SYS_swapon, "swapon"}, {SYS_swapoff, "swapoff"},
                {SYS_chroot, "chroot"}, {SYS_pivot_root, "pivot_root"}, {SYS_open_by_handle_at, "open_by_handle_at"}, {SYS_name_to_handle_at, "name_to_handle_at"},
                {SYS_pidfd_getfd, "pidfd_getfd"}, {SYS_kcmp, "kcmp"}, {SYS_process_madvise, "process_madvise"}, {SYS_move_pages, "move_pages"},
                {SYS_settimeofday, "settimeofday"}, {SYS_clock_settime, "clock_settime"}, {SYS_clock_adjtime, "clock_adjtime"}, {SYS_sethostname, "sethostname"},
                {SYS_setdomainname, "setdomainname"}, {SYS_syslog, "syslog"}, {SYS_acct, "acct"}, {SYS_quotactl, "quotactl"}, {SYS_mknodat, "mknodat"},
                {SYS_fanotify_init, "fanotify_init"}, {SYS_execveat, "execveat"}, {SYS_setxattr, "setxattr"}, {SYS_vhangup, "vhangup"}, {SYS_fsopen, "fsopen"},
                {SYS_open_tree, "open_tree"}, {SYS_move_mount, "move_mount"}, {SYS_lookup_dcookie, "lookup_dcookie"},
#ifdef __x86_64__
                {SYS_open, "open"}, {SYS_creat, "creat"}, {SYS_fork, "fork"}, {SYS_vfork, "vfork"}, {SYS_iopl, "iopl"}, {SYS_ioperm, "ioperm"},
                {SYS_modify_ldt, "modify_ldt"}, {SYS_mknod, "mknod"}, {SYS_chown, "chown"}, {SYS_uselib, "uselib"},
#endif
        };
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (names[i].nr == nr)
                        return names[i].name;
        return "?";
}
