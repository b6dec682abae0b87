/*
 * Before a plugin's process starts: is it the plugin that plugins.lock and the trust store ask for (sdk/trust/verify.h)? The package is
 * read on a thread of the pool; the life waits for that in STARTING, without a process. What does not fit is not started, now or later:
 * the plugin has FAILED, and says what was expected, what was found, and what to do.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/plugin.h"
#include "kernel/super/proof.h"
#include "sdk/base/work.h"
#include "sdk/trust/verify.h"

struct check { /* nothing in it belongs to the plugin, which may be gone before the thread is done */
        struct arena a;
        struct verify_ask ask;
        struct verified found;
        struct verify_fault fault;
        int r;
};

bool life_needs_check(const struct plugin *p)
{
        const struct daprd_opts *o = p->super->conf.opts;
        return o && o->plugin_verify_policy != VERIFY_OFF && (*o->plugin_lock || o->plugin_verify_policy == VERIFY_SIGNED);
}

static struct check *check_new(const struct plugin *p)
{
        const struct manifest *m = p->manifest;
        const struct daprd_opts *o = p->super->conf.opts;
        const char *slash = strrchr(m->file, '/'), *exe_dir = p->super->conf.exe_dir;
        struct check *c = calloc(1, sizeof *c);
        if (!c)
                return NULL;
        c->found.exec_fd = -1; /* also when the pool is full and nothing was looked at */
        arena_init(&c->a, 0);
        struct arena *a = &c->a;
        c->ask = (struct verify_ask){.folder = slash ? arena_strdup(a, str_n(m->file, (size_t)(slash - m->file))) : ".",
                                     .executable = arena_strdup(a, str_of(m->executable)), .name = arena_strdup(a, str_of(m->name)),
                                     .version = arena_strdup(a, str_of(m->version)), .manifest = arena_str(a, m->text),
                                     .policy = o->plugin_verify_policy, .lock = arena_strdup(a, str_of(o->plugin_lock)),
                                     .exe_dir = arena_strdup(a, str_of(exe_dir ? exe_dir : ""))};
        if (c->ask.folder && c->ask.executable && c->ask.name && c->ask.version && c->ask.manifest.p && c->ask.lock && c->ask.exe_dir)
                return c;
        arena_fini(a);
        free(c);
        return NULL;
}

static void check_free(struct check *c)
{
        if (c->found.exec_fd >= 0)
                close(c->found.exec_fd);
        arena_fini(&c->a);
        free(c);
}

static int check_work(void *arg)
{
        struct check *c = arg;
        c->r = verify_plugin(&c->ask, &c->a, &c->found, &c->fault);
        return 0;
}

static void refuse(struct life *l, const char *what, const char *fix)
{
        struct plugin *p = l->plugin;
        plugin_set_error(p, "was not started: %s%s%s", what, *fix ? "; to mend it: " : "", fix);
        plugin_note(p, death_class_name(DEATH_UNVERIFIED), p->last_error);
        log_error(SUPER_SCOPE, "plugin %s %s", p->name, p->last_error);
        plugin_event(p, EV_REFUSED);
        plugin_set_death(p, DEATH_UNVERIFIED);
        if (!l->ended)
                life_end(l);
        plugin_notify(p);
}

static void check_fiber(void *arg)
{
        struct life *l = arg;
        struct check *c = check_new(l->plugin);
        int r = c ? work_run(check_work, c) : -ENOMEM;
        if (!l->ended && r)
                refuse(l, strerrordesc_np(-r), "");
        else if (!l->ended && c->r)
                refuse(l, c->fault.what, c->fault.fix);
        else if (!l->ended)
                life_run(l, &(struct life_program){c->found.exec_fd, c->found.is_script});
        if (c)
                check_free(c);
        life_unref(l);
}

const char *life_check_again(struct life *l, struct arena *a)
{
        char path[40];
        const char *why = NULL;
        if (!life_needs_check(l->plugin))
                return NULL;
        struct check *c = check_new(l->plugin);
        int r = c ? work_run(check_work, c) : -ENOMEM;
        if (r || c->r) {
                why = r ? strerrordesc_np(-r) : arena_strdup(a, str_of(c->fault.what));
        } else if (c->found.exec_fd >= 0) {
                snprintf(path, sizeof path, "/proc/self/fd/%d", c->found.exec_fd);
                why = proof_file_id(path) == l->executable_id ? NULL : "it runs another program than the one that was checked";
        }
        if (c)
                check_free(c);
        return why;
}

int life_check_start(struct life *l)
{
        life_ref(l);
        int r = fiber_go(&l->scope, "plugin-check", check_fiber, l);
        if (r)
                life_unref(l);
        return r;
}
