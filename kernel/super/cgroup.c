/* Files of the cgroup file systems. Folders of ours have the name microdapr-<pid>-<n>; those of a dead daprd with nobody in them go. */
#include "kernel/super/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kernel/super/proof.h"

enum { TEXT_BYTES = 1024, PERIOD_US = 100000, TIDY_TRIES = 10, FILE_BYTES = CGROUP_FILE_BYTES, FOLDER_BYTES = FILE_BYTES - 24 };
#define PREFIX "microdapr-"

static int write_text(const char *path, const char *text)
{
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        ssize_t n = write(fd, text, strlen(text));
        int e = n < 0 ? -errno : 0;
        close(fd);
        return e;
}

static void file_of(char to[FILE_BYTES], const struct cgroups *g, const char *name, const char *file)
{
        snprintf(to, FILE_BYTES, "%s%s%s%s%s", g->own, *name ? "/" : "", name, *file ? "/" : "", file);
}

/* Value of "key number" in a file of such lines. */
static bool read_key(const char *path, const char *key, uint64_t *ret)
{
        char text[TEXT_BYTES];
        size_t n = strlen(key);
        unsigned long long v;
        if (proof_text(path, text, sizeof text) <= 0)
                return false;
        for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
                if (strncmp(p, key, n) == 0 && p[n] == ' ' && sscanf(p + n, " %llu", &v) == 1) {
                        *ret = v;
                        return true;
                }
        return false;
}

static bool has_word(const char *list, const char *word)
{
        size_t n = strlen(word);
        for (const char *p = list; (p = strstr(p, word)); p += n)
                if ((p == list || strchr(" \n,", p[-1])) && strchr(" \n,", p[n]))
                        return true;
        return false;
}

/* ---- where it is ---- */

static void find_mounts(struct cgroups *g)
{
        char line[1024], root[CGROUP_PATH_BYTES], point[CGROUP_PATH_BYTES];
        FILE *f = fopen("/proc/self/mountinfo", "re");
        while (f && fgets(line, sizeof line, f)) {
                char *type = strstr(line, " - ");
                if (!type || sscanf(line, "%*s %*s %*s %255s %255s", root, point) != 2)
                        continue;
                if (strncmp(type, " - cgroup2 ", 11) == 0 && !g->v2[0]) {
                        snprintf(g->v2, sizeof g->v2, "%s", point);
                        snprintf(g->v2_root, sizeof g->v2_root, "%s", root);
                } else if (strncmp(type, " - cgroup ", 10) == 0 && has_word(strrchr(type, ' ') + 1, "memory")) {
                        snprintf(g->v1_memory, sizeof g->v1_memory, "%s", point);
                }
        }
        if (f)
                fclose(f);
}

/* Its group in the hierarchy of v2 ("0::/path") or of a v1 controller ("4:memory:/path"). */
static bool group_of(pid_t pid, const char *controller, char to[CGROUP_PATH_BYTES])
{
        char file[40], text[TEXT_BYTES];
        snprintf(file, sizeof file, pid ? "/proc/%d/cgroup" : "/proc/self/cgroup", (int)pid);
        if (proof_text(file, text, sizeof text) <= 0)
                return false;
        for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
                char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
                if (!path)
                        continue;
                *path++ = '\0';
                if ((controller && has_word(names + 1, controller)) || (!controller && names[1] == '\0')) {
                        snprintf(to, CGROUP_PATH_BYTES, "%s", path);
                        return true;
                }
        }
        return false;
}

static void folder_of(const char *mount, const char *root, const char *group, char to[FOLDER_BYTES])
{
        size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);
        if (strncmp(group, root, n) == 0)
                group += n;
        snprintf(to, FOLDER_BYTES, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
}

static bool is_given_away(const char *folder, const char *group)
{
        struct stat st;
        char yes = 0;
        if (stat(folder, &st))
                return false;
        if (geteuid() != 0)
                return st.st_uid == geteuid();
        return strcmp(group, "/") == 0 || st.st_uid != 0 || (getxattr(folder, "user.delegate", &yes, 1) == 1 && yes == '1') ||
               (getxattr(folder, "trusted.delegate", &yes, 1) == 1 && yes == '1');
}

static void find_own(struct cgroups *g)
{
        char group[CGROUP_PATH_BYTES], folder[FOLDER_BYTES], file[FILE_BYTES];
        if (!g->v2[0] || !group_of(0, NULL, group)) {
                snprintf(g->why, sizeof g->why, "no cgroup v2 hierarchy is mounted");
                return;
        }
        char *last = strrchr(group, '/'), self[CGROUP_NAME_BYTES];
        snprintf(self, sizeof self, PREFIX "%d-self", (int)getpid());
        if (last && strcmp(last + 1, self) == 0) { /* this process's program before has moved here */
                snprintf(g->self, sizeof g->self, "%s", self);
                last[last == group] = '\0';
        }
        folder_of(g->v2, g->v2_root, group, folder);
        snprintf(file, sizeof file, "%s/cgroup.procs", folder);
        if (strlen(folder) >= CGROUP_PATH_BYTES || access(folder, W_OK) || access(file, W_OK))
                snprintf(g->why, sizeof g->why, "the cgroup of daprd, %.200s, cannot be written to", folder);
        else if (!is_given_away(folder, group))
                snprintf(g->why, sizeof g->why, "the cgroup of daprd, %.200s, is not delegated to it (systemd: Delegate=yes)", folder);
        else
                snprintf(g->own, sizeof g->own, "%.255s", folder);
}

/* ---- controllers ---- */

static bool is_alone(const struct cgroups *g)
{
        char file[FILE_BYTES], text[TEXT_BYTES];
        int pid = 0, n = 0;
        file_of(file, g, "", "cgroup.procs");
        return proof_text(file, text, sizeof text) > 0 && sscanf(text, "%d%n", &pid, &n) == 1 && pid == getpid() && text[n + strspn(text + n, "\n")] == '\0';
}

/* A group that hands controllers on must not have processes itself. */
static bool move_down(struct cgroups *g)
{
        char file[FILE_BYTES];
        if (g->self[0] || !is_alone(g))
                return false;
        snprintf(g->self, sizeof g->self, PREFIX "%d-self", (int)getpid());
        file_of(file, g, g->self, "");
        if (mkdir(file, 0755) == 0 || errno == EEXIST) {
                file_of(file, g, g->self, "cgroup.procs");
                if (write_text(file, "0") == 0)
                        return true;
                file_of(file, g, g->self, "");
                rmdir(file);
        }
        g->self[0] = '\0';
        return false;
}

static bool hand_on(struct cgroups *g, const char *controller, const char *there, const char *handed)
{
        char file[FILE_BYTES], wish[24];
        file_of(file, g, "", "cgroup.subtree_control");
        snprintf(wish, sizeof wish, "+%s", controller);
        if (!has_word(there, controller))
                return false;
        if (has_word(handed, controller))
                return true;
        int r = write_text(file, wish);
        if (r == -EBUSY && move_down(g))
                r = write_text(file, wish);
        return r == 0;
}

static void find_controllers(struct cgroups *g)
{
        char file[FILE_BYTES], there[TEXT_BYTES], handed[TEXT_BYTES];
        file_of(file, g, "", "cgroup.controllers");
        proof_text(file, there, sizeof there);
        file_of(file, g, "", "cgroup.subtree_control");
        proof_text(file, handed, sizeof handed);
        g->memory = hand_on(g, "memory", there, handed);
        g->pids = hand_on(g, "pids", there, handed);
        g->cpu = hand_on(g, "cpu", there, handed);
        if (!g->memory || !g->pids || !g->cpu)
                snprintf(g->why, sizeof g->why, "in the cgroup of daprd, %.200s, these controllers cannot be had:%s%s%s", g->own, g->memory ? "" : " memory",
                         g->pids ? "" : " pids", g->cpu ? "" : " cpu");
}

/* Of daprds that were killed. */
static void sweep(const struct cgroups *g)
{
        DIR *dir = opendir(g->own);
        for (struct dirent *e; dir && (e = readdir(dir));) {
                int pid = strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0 ? atoi(e->d_name + strlen(PREFIX)) : 0;
                if (pid > 0 && kill(pid, 0) && errno == ESRCH)
                        unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR); /* refused while somebody is in it */
        }
        if (dir)
                closedir(dir);
}

void cgroups_find(struct cgroups *g, const char *own)
{
        *g = (struct cgroups){0};
        find_mounts(g);
        if (own)
                snprintf(g->own, sizeof g->own, "%s", own);
        else
                find_own(g);
        if (!g->own[0])
                return;
        sweep(g);
        find_controllers(g);
}

bool cgroups_can_limit(const struct cgroups *g)
{
        return g->memory || g->pids || g->cpu;
}

/* ---- one group ---- */

int cgroup_limit(const struct cgroups *g, const char *name, const struct cgroup_limits *l)
{
        char file[FILE_BYTES], value[48];
        int r = 0;
        if (g->memory) {
                file_of(file, g, name, "memory.max");
                snprintf(value, sizeof value, "%llu", (unsigned long long)l->memory_bytes);
                r = write_text(file, value);
                file_of(file, g, name, "memory.oom.group");
                write_text(file, "1"); /* all of it or nothing */
        }
        if (r == 0 && g->pids) {
                file_of(file, g, name, "pids.max");
                snprintf(value, sizeof value, "%u", l->processes);
                r = write_text(file, value);
        }
        if (r == 0 && g->cpu && l->cpu_percent) {
                file_of(file, g, name, "cpu.max");
                snprintf(value, sizeof value, "%u %d", l->cpu_percent * (PERIOD_US / 100), PERIOD_US);
                r = write_text(file, value);
        }
        return r;
}

int cgroup_make(struct cgroups *g, const struct cgroup_limits *l, char name[CGROUP_NAME_BYTES])
{
        char folder[FILE_BYTES];
        int r = -EEXIST;
        if (!g->own[0])
                return -ENOENT;
        for (int i = 0; i < 1000 && r == -EEXIST; i++) {
                snprintf(name, CGROUP_NAME_BYTES, PREFIX "%d-%u", (int)getpid(), ++g->made);
                file_of(folder, g, name, "");
                r = mkdir(folder, 0755) ? -errno : 0;
        }
        if (r == 0)
                r = cgroup_limit(g, name, l);
        if (r == 0 && (r = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
                r = -errno;
        if (r < 0) {
                rmdir(folder);
                *name = '\0';
        }
        return r;
}

/* Names come from a ledger, too. */
static bool is_ours(const struct cgroups *g, const char *name)
{
        return g->own[0] && strncmp(name, PREFIX, strlen(PREFIX)) == 0 && !strchr(name, '/');
}

bool cgroup_had_oom(const struct cgroups *g, const char *name)
{
        char file[FILE_BYTES];
        uint64_t n;
        file_of(file, g, name, "memory.events");
        return is_ours(g, name) && read_key(file, "oom_kill", &n) && n > 0;
}

void cgroup_remove(struct cgroups *g, const char *name)
{
        char file[FILE_BYTES];
        if (!is_ours(g, name))
                return;
        file_of(file, g, name, "");
        if (rmdir(file) == 0)
                return;
        file_of(file, g, name, "cgroup.kill");
        write_text(file, "1");
        file_of(file, g, name, "");
        if (rmdir(file) && errno == EBUSY)
                g->left = TIDY_TRIES;
}

/* Those of this process; what is in use is refused. */
static bool remove_own(const struct cgroups *g)
{
        char prefix[CGROUP_NAME_BYTES];
        bool all = true;
        snprintf(prefix, sizeof prefix, PREFIX "%d-", (int)getpid());
        DIR *dir = opendir(g->own);
        for (struct dirent *e; dir && (e = readdir(dir));)
                if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && strcmp(e->d_name, g->self) != 0)
                        all &= unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) == 0;
        if (dir)
                closedir(dir);
        return all;
}

void cgroups_tidy(struct cgroups *g)
{
        if (g->left)
                g->left = remove_own(g) ? 0 : g->left - 1;
}

void cgroups_leave(struct cgroups *g)
{
        char file[FILE_BYTES];
        if (!g->own[0])
                return;
        if (g->self[0]) {
                file_of(file, g, "", "cgroup.subtree_control");
                write_text(file, "-memory -pids -cpu");
                file_of(file, g, "", "cgroup.procs");
                write_text(file, "0");
        }
        g->self[0] = '\0';
        remove_own(g);
}

/* ---- anybody's ---- */

bool cgroup_oom_count(const char *file, uint64_t *ret)
{
        return read_key(file, "oom_kill", ret);
}

bool cgroup_oom_file(const struct cgroups *g, pid_t pid, char file[CGROUP_FILE_BYTES], bool *ret_of_living)
{
        char group[CGROUP_PATH_BYTES], folder[FOLDER_BYTES];
        uint64_t n;
        *ret_of_living = false;
        if (g->v2[0] && group_of(pid, NULL, group)) {
                folder_of(g->v2, g->v2_root, group, folder);
                snprintf(file, CGROUP_FILE_BYTES, "%s/memory.events", folder);
                if (cgroup_oom_count(file, &n))
                        return true;
        }
        *ret_of_living = true;
        if (!g->v1_memory[0] || !group_of(pid, "memory", group))
                return false;
        folder_of(g->v1_memory, "/", group, folder);
        snprintf(file, CGROUP_FILE_BYTES, "%s/memory.oom_control", folder);
        return cgroup_oom_count(file, &n);
}
