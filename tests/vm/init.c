/*
 * First process of the virtual machine that tests/vm/run boots: loads the modules of /modules, mounts the host's files (9p, read only)
 * with what must be written to in memory, and cgroup v2 as systemd does; runs the command of /command there, tells its exit code on the
 * console and turns the machine off. /command: folder, NAME=value..., "", argv..., each ended by a zero byte.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMMAND_BYTES = 65536, WORDS_MAX = 256 };

static void end(const char *what, int code)
{
        if (what)
                printf("vm: %s: %s\n", what, strerror(errno));
        printf("vm: exit %d\n", code);
        fflush(stdout);
        sync();
        reboot(RB_POWER_OFF);
        for (;;)
                pause();
}

static void load_modules(void)
{
        struct dirent **v;
        int n = scandir("/modules", &v, NULL, alphasort);
        for (int i = 0; i < n; i++) {
                char path[300];
                if (v[i]->d_name[0] == '.')
                        continue;
                snprintf(path, sizeof path, "/modules/%s", v[i]->d_name);
                int fd = open(path, O_RDONLY | O_CLOEXEC);
                if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
                        end(path, 125);
                close(fd);
        }
}

static void mount_all(void)
{
        static const struct { const char *what, *where, *type, *options; unsigned long flags; } rows[] = {
                {"host", "/new", "9p", "trans=virtio,version=9p2000.L,msize=524288,cache=loose", MS_RDONLY},
                {"dev", "/new/dev", "devtmpfs", "", 0},
                {"proc", "/new/proc", "proc", "", 0},
                {"sys", "/new/sys", "sysfs", "", 0},
                {"cgroup", "/new/sys/fs/cgroup", "cgroup2", "nsdelegate,memory_recursiveprot", 0},
                {"tmp", "/new/tmp", "tmpfs", "mode=1777", 0},
                {"run", "/new/run", "tmpfs", "mode=755", 0}};
        mkdir("/new", 0755);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (mount(rows[i].what, rows[i].where, rows[i].type, rows[i].flags, rows[i].options))
                        end(rows[i].where, 125);
        mkdir("/new/dev/shm", 0755);
        mount("shm", "/new/dev/shm", "tmpfs", 0, "mode=1777");
        mkdir("/new/dev/pts", 0755);
        mount("pts", "/new/dev/pts", "devpts", 0, "ptmxmode=666");
}

static void loopback_up(void)
{
        struct ifreq r = {.ifr_name = "lo"};
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r))
                end("lo", 125);
        r.ifr_flags |= IFF_UP;
        if (ioctl(fd, SIOCSIFFLAGS, &r))
                end("lo", 125);
        close(fd);
}

static char text[COMMAND_BYTES], *words[WORDS_MAX];

static void read_command(void)
{
        int fd = open("/command", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
        int k = 0;
        if (n <= 0)
                end("/command", 125);
        for (char *p = text; p < text + n && k < WORDS_MAX - 1; p += strlen(p) + 1)
                words[k++] = p;
        close(fd);
}

static void run_command(void)
{
        int i = 1;
        setsid();
        if (chdir(words[0]))
                _exit(125);
        for (; words[i] && *words[i]; i++)
                putenv(words[i]);
        if (words[i])
                execvp(words[i + 1], words + i + 1);
        perror("vm: the command");
        _exit(127);
}

int main(void)
{
        int status = 0;
        setvbuf(stdout, NULL, _IOLBF, 0);
        read_command();
        load_modules();
        mount_all();
        if (chroot("/new") || chdir("/"))
                end("/new", 125);
        loopback_up();
        pid_t child = fork(), p;
        if (child == 0)
                run_command();
        while ((p = wait(&status)) != child && (p > 0 || errno == EINTR))
                ;
        end(NULL, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
