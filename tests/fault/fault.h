/* What the tests of the supervisor share: a supervisor over plugin folders of the build or made up by the test. */
#ifndef TESTS_FAULT_FAULT_H
#define TESTS_FAULT_FAULT_H

#include <signal.h>
#include <stdio.h>

#include "kernel/opts.h"
#include "kernel/super/super.h"
#include "tests/unit/net_test.h"

struct fault {
        struct super *super;
        struct daprd_opts opts;
        struct super_conf conf;
        struct super_tuning tuning;
        struct arena arena;
        char exe_dir[384];       /* so that <exe_dir>/../plugins is the build's */
        char dir[64];           /* temporary; may hold plugin folders */
        int children;
        struct component_spec *specs[24];
        size_t n_specs; /* at most 24 */
};

static inline int fault_children(void)
{
        char path[64];
        int n = 0, pid;
        snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
        FILE *f = fopen(path, "r");
        while (f && fscanf(f, "%d", &pid) == 1)
                n++;
        if (f)
                fclose(f);
        return n;
}

static inline void fault_init(struct fault *f)
{
        *f = (struct fault){.children = fault_children()};
        ck_assert(readlink("/proc/self/exe", f->exe_dir, sizeof f->exe_dir - 1) > 0); /* zeroed: ends with NUL */
        *strrchr(f->exe_dir, '/') = '\0'; /* build/MODE/tests */
        strcpy(f->dir, "/tmp/fault.XXXXXX");
        ck_assert(mkdtemp(f->dir) != NULL);
        arena_init(&f->arena, 0);
        f->opts = (struct daprd_opts){.app_id = "fault", .plugins_path = f->dir, .sockets_folder = f->dir};
        f->conf = (struct super_conf){.opts = &f->opts, .exe_dir = f->exe_dir, .tuning = &f->tuning};
}

static inline void fault_open(struct fault *f)
{
        ck_assert_int_eq(super_new(&f->super, &f->conf), 0);
}

/* Every test ends so: nothing is left behind. */
static inline void fault_close(struct fault *f)
{
        char cmd[128];
        super_stop(f->super, 2);
        super_free(f->super);
        for (size_t i = 0; i < f->n_specs; i++)
                arena_fini(&f->specs[i]->arena);
        arena_fini(&f->arena);
        ck_assert_int_eq(fault_children(), f->children);
        snprintf(cmd, sizeof cmd, "rm -rf %s", f->dir);
        ck_assert_int_eq(system(cmd), 0);
}

/* A component of n metadata pairs: name, value, name, value, ... */
static inline struct component_spec *fault_spec(struct fault *f, const char *name, const char *type, const char **metadata, size_t n)
{
        struct component_spec *s = arena_new(&f->arena, struct component_spec);
        ck_assert_uint_lt(f->n_specs, 24);
        f->specs[f->n_specs++] = s;
        arena_init(&s->arena, 0);
        s->name = name;
        s->namespace_ = "";
        s->type = type;
        s->version = "v1";
        s->secret_store = "";
        s->file = "component.yaml";
        s->line = 1;
        s->metadata = arena_zalloc(&f->arena, (n + 1) * sizeof *s->metadata);
        for (size_t i = 0; i < n; i++)
                s->metadata[s->n_metadata++] = (struct metadata_item){.name = metadata[2 * i], .value = metadata[2 * i + 1], .line = 10 + (int)i};
        s->init_timeout_ns = 5000000000;
        return s;
}

#endif
