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

#include "sdk/base/text_file.h"

enum { TEXT_BYTES = 1024, PERIOD_US = 100000, TIDY_TRIES = 10, FILE_BYTES = CGROUP_FILE_BYTES, FOLDER_BYTES = FILE_BYTES - 24 };
#define PREFIX "microdapr-"

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
        if (text_file_read(path, text, sizeof text) <= 0)
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
        if (text_file_read(file, text, sizeof text) <= 0)
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

/* As systemd marks it. */
static bool is_marked(const char *folder)
{
        char yes = 0;
        return (getxattr(folder, "user.delegate", &yes, 1) == 1 && yes == '1') || (getxattr(folder, "trusted.delegate", &yes, 1) == 1 && yes == '1');
}

/* What is below a group that was given away, was so, too. */
static bool is_marked_above(const char *mount, const char *folder)
{
        char path[FOLDER_BYTES];
        snprintf(path, sizeof path, "%s", folder);
        for (char *last; strlen(path) > strlen(mount); *last = '\0') {
                if (is_marked(path))
                        return true;
                last = strrchr(path, '/');
        }
        return false;
}

static bool is_given_away(const struct cgroups *g, const char *folder, const char *group)
{
        struct stat st;
        if (stat(folder, &st))
                return false;
        if (geteuid() != 0)
                return st.st_uid == geteuid();
        return strcmp(group, "/") == 0 || st.st_uid != 0 || is_marked_above(g->v2, folder);
}

static bool is_writable(const char *folder)
{
        char file[FILE_BYTES];
        snprintf(file, sizeof file, "%s/cgroup.procs", folder);
        return strlen(folder) < CGROUP_PATH_BYTES && access(folder, W_OK) == 0 && access(file, W_OK) == 0;
}

/* Whoever started daprd has given away the group above and put daprd into a child of it (systemd: DelegateSubgroup=): groups of plugins
 * stand beside. Nobody needs to move, and the next daprd can be started in the same place while they live. */
static bool find_above(struct cgroups *g, const char *folder)
{
        char above[FOLDER_BYTES];
        snprintf(above, sizeof above, "%s", folder);
        char *last = strrchr(above, '/');
        if (strlen(folder) <= strlen(g->v2) || !last)
                return false;
        *last = '\0';
        if (strlen(above) < strlen(g->v2) || !is_marked(above) || !is_writable(above))
                return false;
        snprintf(g->own, sizeof g->own, "%.255s", above);
        g->is_beside = true;
        return true;
}

static void find_own(struct cgroups *g)
{
        char group[CGROUP_PATH_BYTES], folder[FOLDER_BYTES];
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
        if (!g->self[0] && find_above(g, folder))
                return;
        if (!is_writable(folder))
                snprintf(g->why, sizeof g->why, "the cgroup of daprd, %.200s, cannot be written to", folder);
        else if (!is_given_away(g, folder, group))
                snprintf(g->why, sizeof g->why, "the cgroup of daprd, %.200s, is not delegated to it (systemd: Delegate=yes)", folder);
        else
                snprintf(g->own, sizeof g->own, "%.255s", folder);
}

/* ---- controllers ---- */

static bool is_alone(const struct cgroups *g)
{
        char file[FILE_BYTES], text[64];
        int pid = 0, n = 0;
        file_of(file, g, "", "cgroup.procs");
        return text_file_read(file, text, sizeof text) > 0 && sscanf(text, "%d%n", &pid, &n) == 1 && pid == getpid() && text[n + strspn(text + n, "\n")] == '\0';
}

/* A group that hands controllers on must not have processes itself. Nor can a process be started in it from then on. */
static bool move_down(struct cgroups *g)
{
        char file[FILE_BYTES];
        if (g->self[0] || g->is_beside || g->stays || !is_alone(g))
                return false;
        snprintf(g->self, sizeof g->self, PREFIX "%d-self", (int)getpid());
        file_of(file, g, g->self, "");
        if (mkdir(file, 0755) == 0 || errno == EEXIST) {
                file_of(file, g, g->self, "cgroup.procs");
                if (text_file_write(file, "0") == 0)
                        return true;
                file_of(file, g, g->self, "");
                rmdir(file);
        }
        g->self[0] = '\0';
        return false;
}

/* Only the machine's own root may hand on what it uses itself. The others do not refuse pids and cpu while they have processes, but are
 * roots of threads from then on, and no process can be started below them. */
static int make_room(struct cgroups *g)
{
        char file[FILE_BYTES], text[64];
        file_of(file, g, "", "cgroup.type");
        if (access(file, F_OK))
                return 0;
        file_of(file, g, "", "cgroup.procs");
        return text_file_read(file, text, sizeof text) == 0 || move_down(g) ? 0 : -EBUSY;
}

/* Has the group's children have the controller. */
static int hand_on(struct cgroups *g, const char *controller)
{
        char file[FILE_BYTES], wish[24];
        file_of(file, g, "", "cgroup.subtree_control");
        snprintf(wish, sizeof wish, "+%s", controller);
        return text_file_write(file, wish);
}

static const char *why_not(const struct cgroups *g, int r)
{
        if (r == -ENOENT)
                return "not handed to it";
        if (r != -EBUSY)
                return strerrordesc_np(-r);
        if (g->stays && !g->is_beside && is_alone(g))
                return "with --plugin-linger daprd must be started in a child of it";
        return g->is_beside ? "processes are in it itself" : "other processes are in it, too";
}

static const char *const controllers[] = {"memory", "pids", "cpu"};
enum { N_CONTROLLERS = sizeof controllers / sizeof *controllers };

/* Those that cannot be had, by reasons: "memory, cpu (not handed to it), pids (...)". */
static void say_why(struct cgroups *g, const int r[N_CONTROLLERS])
{
        size_t n = 0;
        for (int i = 0; i < N_CONTROLLERS; i++) {
                bool told = r[i] == 0;
                for (int k = 0; k < i; k++)
                        told |= r[k] == r[i];
                if (told)
                        continue;
                if (n == 0)
                        n = (size_t)snprintf(g->why, sizeof g->why, "in the cgroup %.200s these controllers cannot be had: ", g->own);
                else
                        n += (size_t)snprintf(g->why + n, sizeof g->why - n, ", ");
                for (int k = i; k < N_CONTROLLERS; k++)
                        if (r[k] == r[i])
                                n += (size_t)snprintf(g->why + n, sizeof g->why - n, "%s%s", k > i ? ", " : "", controllers[k]);
                n += (size_t)snprintf(g->why + n, sizeof g->why - n, " (%.60s)", why_not(g, r[i]));
        }
}

static void find_controllers(struct cgroups *g)
{
        char file[FILE_BYTES], there[TEXT_BYTES], handed[TEXT_BYTES];
        bool *const had[N_CONTROLLERS] = {&g->memory, &g->pids, &g->cpu};
        int r[N_CONTROLLERS], room = 1;
        file_of(file, g, "", "cgroup.controllers");
        text_file_read(file, there, sizeof there);
        file_of(file, g, "", "cgroup.subtree_control");
        text_file_read(file, handed, sizeof handed);
        for (int i = 0; i < N_CONTROLLERS; i++) {
                if (has_word(there, controllers[i]) && room > 0)
                        room = make_room(g);
                r[i] = !has_word(there, controllers[i]) ? -ENOENT : room ? room : has_word(handed, controllers[i]) ? 0 : hand_on(g, controllers[i]);
                *had[i] = r[i] == 0;
        }
        say_why(g, r);
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

void cgroups_find(struct cgroups *g, const char *own, bool stays)
{
        *g = (struct cgroups){.stays = stays};
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
                r = text_file_write(file, value);
                file_of(file, g, name, "memory.oom.group");
                text_file_write(file, "1"); /* all of it or nothing */
        }
        if (r == 0 && g->pids) {
                file_of(file, g, name, "pids.max");
                snprintf(value, sizeof value, "%u", l->processes);
                r = text_file_write(file, value);
        }
        if (r == 0 && g->cpu && l->cpu_percent) {
                file_of(file, g, name, "cpu.max");
                snprintf(value, sizeof value, "%u %d", l->cpu_percent * (PERIOD_US / 100), PERIOD_US);
                r = text_file_write(file, value);
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

bool cgroup_is_there(const struct cgroups *g, const char *name)
{
        char file[FILE_BYTES];
        file_of(file, g, name, "");
        return is_ours(g, name) && access(file, F_OK) == 0;
}

bool cgroup_had_oom(const struct cgroups *g, const char *name, uint64_t *ret_kills)
{
        char file[FILE_BYTES];
        file_of(file, g, name, "memory.events");
        return is_ours(g, name) && read_key(file, "oom_kill", ret_kills) && *ret_kills > 0;
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
        text_file_write(file, "1");
        file_of(file, g, name, "");
        if (rmdir(file) && errno == EBUSY)
                g->left = TIDY_TRIES;
}

/* Those of this process; what is in use is refused. *ret_alone: no group of anybody else is there. */
static bool remove_own(const struct cgroups *g, bool *ret_alone)
{
        char prefix[CGROUP_NAME_BYTES];
        bool all = true;
        *ret_alone = true;
        snprintf(prefix, sizeof prefix, PREFIX "%d-", (int)getpid());
        DIR *dir = opendir(g->own);
        for (struct dirent *e; dir && (e = readdir(dir));) {
                if (e->d_type != DT_DIR || e->d_name[0] == '.' || strcmp(e->d_name, g->self) == 0)
                        continue;
                if (strncmp(e->d_name, prefix, strlen(prefix)) == 0)
                        all &= unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) == 0;
                else
                        *ret_alone = false;
        }
        if (dir)
                closedir(dir);
        return all;
}

void cgroups_tidy(struct cgroups *g)
{
        bool alone;
        if (!g->left)
                return;
        sweep(g); /* of the daprd before, whose plugins were taken over */
        g->left = remove_own(g, &alone) && alone ? 0 : g->left - 1;
}

void cgroups_leave(struct cgroups *g)
{
        char file[FILE_BYTES];
        bool alone;
        if (!g->own[0])
                return;
        remove_own(g, &alone);
        if (!g->self[0] || !alone) /* others have their limits by these controllers */
                return;
        file_of(file, g, "", "cgroup.subtree_control");
        for (int i = 0; i < N_CONTROLLERS; i++) {
                char wish[24];
                snprintf(wish, sizeof wish, "-%s", controllers[i]);
                text_file_write(file, wish);
        }
        file_of(file, g, "", "cgroup.procs");
        text_file_write(file, "0");
        g->self[0] = '\0';
        remove_own(g, &alone);
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
