/* See confine_run.h. */
#include "kernel/super/confine_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/super/manifest.h"
#include "kernel/super/sandbox.h"

enum { CONTROL_FD = 4, RULESET_FD = 5, EXIT_NOT_RUN = 127 };

struct input {
        char *v; /* texts, each ended by NUL */
        size_t n;
        const struct manifest *m;
};

static int refuse(const char *what, const char *why)
{
        fprintf(stderr, "the plugin could not be confined: %s%s%s\n", what, why ? ": " : "", why ? why : "");
        return EXIT_NOT_RUN;
}

static int read_input(struct input *in)
{
        in->v = malloc(CONFINE_RUN_INPUT_MAX + 1);
        while (in->v && in->n < CONFINE_RUN_INPUT_MAX) {
                ssize_t n = read(STDIN_FILENO, in->v + in->n, CONFINE_RUN_INPUT_MAX - in->n);
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                in->n += (size_t)n;
        }
        if (!in->v)
                return -ENOMEM;
        if (in->n == CONFINE_RUN_INPUT_MAX)
                return -E2BIG;
        return in->n && in->v[in->n - 1] == '\0' ? 0 : -EINVAL;
}

static const char *given(const struct input *in, const char *name)
{
        const char *s = in->v + strlen(in->v) + 1, *end = in->v + in->n;
        while (s < end) {
                const char *value = s + strlen(s) + 1;
                if (value >= end)
                        return NULL;
                if (strcasecmp(s, name) == 0)
                        return value;
                s = value + strlen(value) + 1;
        }
        return NULL;
}

/* A field's value as the plugin will see it: given, under another name, or the manifest's default. */
static const char *field_value(void *arg, const char *name)
{
        const struct input *in = arg;
        const struct manifest_field *f = manifest_field(in->m, name);
        const char *v = given(in, name);
        for (size_t i = 0; f && !v && i < f->n_aliases; i++)
                v = given(in, f->aliases[i]);
        return v ? v : f ? f->def : NULL;
}

/* Nothing of the starter's but 0 to 4 is left. */
static int become(const char *executable, struct sandbox *s)
{
        char *argv[] = {(char *)executable, NULL};
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null < 0 || dup2(null, STDIN_FILENO) < 0)
                return -errno;
        int keep = s->ruleset_fd >= 0 && dup2(s->ruleset_fd, RULESET_FD) == RULESET_FD;
        if (syscall(SYS_close_range, RULESET_FD + keep, ~0U, 0))
                return -errno;
        int r = sandbox_enter(s, RULESET_FD, CONTROL_FD);
        if (r)
                return r;
        execve(executable, argv, environ);
        return -errno;
}

int confine_run(void)
{
        static struct sandbox s;
        static struct grant g;
        struct input in = {0};
        struct manifest *m;
        struct arena a;
        const char *path;
        const char *err = NULL;
        int r = read_input(&in);
        if (r)
                return refuse("standard input", strerror(-r));
        arena_init(&a, 0);
        path = arena_printf(&a, "%s/plugin.yaml", in.v);
        r = path ? manifest_read(path, &m, &a, &err) : -ENOMEM;
        if (r)
                return refuse(in.v, err ? err : strerror(-r));
        in.m = m;
        if (!m->rights.confined)
                return refuse(path, "it has no key 'sandbox', so that its process is never confined");
        r = rights_grant(&m->rights, field_value, &in, &a, &g);
        if (r == 0)
                r = sandbox_prepare(&s, &m->rights, &g, m->executable, (uint32_t)getpid(), true);
        if (r)
                return refuse(path, strerror(-r));
        r = become(m->executable, &s);
        return refuse(m->executable, strerror(-r));
}
