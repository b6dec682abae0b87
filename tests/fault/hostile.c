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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
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
        return false;
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
