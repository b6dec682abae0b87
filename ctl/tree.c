/* One look at /proc, then marks from parents to children until nothing changes. A fork between the look and the signal is missed;
 * who must be sure calls again. */
#include "ctl/tree.h"

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TREE_MAX = 65536 };

struct node {
        pid_t pid, parent, session;
        char state;
        bool in;
};
struct nodes {
        struct node *v;
        size_t n, cap;
};

static bool read_node(pid_t pid, struct node *ret)
{
        char path[40], text[512];
        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        FILE *f = fopen(path, "re");
        if (!f)
                return false;
        size_t n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
        text[n] = '\0';
        const char *after = strrchr(text, ')'); /* a name may hold anything */
        int parent, group, session;
        char state;
        if (!after || sscanf(after + 1, " %c %d %d %d", &state, &parent, &group, &session) != 4)
                return false;
        *ret = (struct node){.pid = pid, .parent = parent, .session = session, .state = state};
        return true;
}

static void read_all(struct nodes *t)
{
        DIR *d = opendir("/proc");
        if (!d)
                return;
        for (struct dirent *e; (e = readdir(d)) && t->n < TREE_MAX;) {
                struct node one;
                pid_t pid = atoi(e->d_name);
                if (pid <= 0 || !read_node(pid, &one))
                        continue;
                if (t->n == t->cap) {
                        size_t cap = t->cap ? t->cap * 2 : 256;
                        struct node *v = realloc(t->v, cap * sizeof(*v));
                        if (!v)
                                break;
                        t->v = v;
                        t->cap = cap;
                }
                t->v[t->n++] = one;
        }
        closedir(d);
}

static bool is_one_of(pid_t pid, const pid_t *v, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (v[i] == pid)
                        return true;
        return false;
}

static int by_pid(const void *a, const void *b)
{
        pid_t x = ((const struct node *)a)->pid, y = ((const struct node *)b)->pid;
        return x < y ? -1 : x > y;
}

static struct node *find(struct nodes *t, pid_t pid)
{
        return t->n ? bsearch(&(struct node){.pid = pid}, t->v, t->n, sizeof(*t->v), by_pid) : NULL;
}

static void mark(struct nodes *t, pid_t root, const pid_t *without, size_t n_without)
{
        pid_t self = getpid();
        for (size_t i = 0; i < t->n; i++) {
                struct node *x = &t->v[i];
                x->in = root ? x->pid == root : x->parent == self && !is_one_of(x->pid, without, n_without);
        }
        for (bool more = true; more;) {
                more = false;
                for (size_t i = 0; i < t->n; i++) {
                        struct node *x = &t->v[i], *parent = x->in ? NULL : find(t, x->parent);
                        if (parent && parent->in)
                                x->in = more = true;
                }
        }
}

size_t tree_signal(pid_t root, int signo, const pid_t *without, size_t n_without)
{
        struct nodes t = {0};
        size_t count = 0;
        read_all(&t);
        if (t.n)
                qsort(t.v, t.n, sizeof(*t.v), by_pid);
        mark(&t, root, without, n_without);
        const struct node *top = find(&t, root);
        pid_t ours = getsid(0), theirs = top ? top->session : ours;
        for (size_t i = 0; i < t.n; i++) {
                struct node *x = &t.v[i];
                if (!x->in || (x->session != ours && x->session != theirs) || x->state == 'Z' || x->pid == getpid())
                        continue;
                count++;
                if (signo)
                        kill(x->pid, signo);
        }
        free(t.v);
        return count;
}
