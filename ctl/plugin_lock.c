/* `plugin lock`: pins what is installed, or says whether what is installed is what is pinned. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/package/lock_edit.h"
#include "ctl/package/store.h"
#include "ctl/plugins.h"
#include "sdk/trust/verify.h"

#define O(f) offsetof(struct plugin_lock_opts, f)
static const struct flag_row rows[] = {
        {"check", FLAG_BOOL, O(check), "false", NULL, "Change nothing: is what is pinned installed, and unchanged?"},
        {"lock", FLAG_STRING, O(lock), "", "FILE", "Lock file (default: plugins.lock)"},
        {"dir", FLAG_STRING, O(dir), "", "DIR", "Folder of installed plugins (default: ~/.dapr/plugins)", .short_name = 'd'},
        CTL_GLOBAL_ROWS(plugin_lock_opts),
};
#undef O
const struct flag_program plugin_lock_program = {
        .exits = "0 when it is written, or with --check, when all that is pinned is there and unchanged; else 1.",
        .name = "dapr plugin lock", .summary = "Pin the installed plugins in plugins.lock", .usage = "dapr plugin lock [NAME[@VERSION]...] [flags]",
        .examples = "  # The newest version of each installed plugin\n  dapr plugin lock\n\n  # In CI\n  dapr plugin lock --check\n",
        .rows = rows, .n_rows = sizeof(rows) / sizeof(*rows)};

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

static int pin(struct arena *a, const char *root, const char *spec, struct lockfile *l)
{
        const char *at = strchr(spec, '@'), *name = at ? arena_strdup(a, str_n(spec, (size_t)(at - spec))) : spec, *err = NULL;
        struct store_versions have = {0};
        struct package *p;
        if (name && package_name_ok(name))
                store_versions(a, root, name, &have);
        if (have.n == 0)
                return refuse(arena_printf(a, "%s is not installed in %s: dapr plugin install %s", spec, root, spec));
        if (package_installed(arena_printf(a, "%s/%s/%s", root, name, at ? at + 1 : have.v[0]), &p, a, &err))
                return refuse(err);
        int r = lock_set(l, p, a);
        package_free(p);
        return r ? refuse(NULL) : 0;
}

/* Once it is written. */
static void tell(struct arena *a, const struct lockfile *l, const char *spec)
{
        const char *name = arena_strdup(a, str_n(spec, strcspn(spec, "@")));
        const struct lock_entry *e = name ? lock_find(l, name) : NULL;
        if (e)
                ui_say(UI_SUCCESS, "Pinned %s %s for %s", e->name, e->version, e->platform);
}

/* As daprd will ask before it starts it; NULL, or a sentence. */
static const char *look_at(struct arena *a, const struct lockfile *l, const struct lock_entry *e, const char *place)
{
        const char *manifest = path_join(a, place, PACKAGE_MANIFEST), *err = NULL;
        struct yaml_node *root = NULL;
        struct str text;
        struct verified v;
        struct verify_fault f;
        if (yaml_read_file(a, manifest, false, &text, &err) || yaml_read(a, text, manifest, 1, 0, &root, &err))
                return err ? err : "out of memory";
        const char *exe = plugin_text(a, root, "executable");
        struct verify_ask q = {.folder = place, .executable = path_join(a, place, *exe ? exe : e->name), .name = plugin_text(a, root, "name"),
                               .version = plugin_text(a, root, "version"), .manifest = text, .exe_dir = "", .policy = VERIFY_LOCK, .lock = l->path};
        if (verify_plugin(&q, a, &v, &f))
                return arena_printf(a, "%s; to mend it: %s", f.what, f.fix);
        if (v.exec_fd >= 0)
                close(v.exec_fd);
        return NULL;
}

static int check(struct arena *a, const char *root, const struct lockfile *l)
{
        int bad = 0;
        for (size_t i = 0; i < l->n; i++) {
                const struct lock_entry *e = &l->v[i];
                if (!package_fits(e->platform))
                        continue;
                const char *place = arena_printf(a, "%s/%s/%s", root, e->name, e->version);
                const char *err = path_exists(place) ? look_at(a, l, e, place)
                                                     : arena_printf(a, "%s %s is pinned and not installed: dapr plugin install %s", e->name, e->version, e->name);
                if (err)
                        bad = refuse(err);
                else
                        ui_say(UI_SUCCESS, "%s %s is as pinned", e->name, e->version);
        }
        return bad;
}

int plugin_lock_run(void *opts, int argc, char **argv)
{
        struct plugin_lock_opts *o = opts;
        struct arena a;
        struct lockfile l;
        const char *err = NULL, **names = NULL;
        size_t n = 0;
        arena_init(&a, 0);
        const char *root = store_root(&a, o->dir);
        bool fresh = *o->lock && !o->check && !path_exists(o->lock);
        int r = root ? 0 : refuse("HOME is not set: say --dir");
        if (r == 0 && lock_read(&a, fresh ? "" : o->lock, &l, &err))
                r = refuse(err);
        if (r == 0 && fresh)
                l = (struct lockfile){.path = o->lock};
        if (r == 0 && o->check) {
                r = l.n ? check(&a, root, &l) : refuse("There is no plugins.lock here");
        } else if (r == 0) {
                if (argc == 0)
                        store_names(&a, root, &names, &n);
                if (argc == 0 && n == 0)
                        r = refuse(arena_printf(&a, "Nothing is installed in %s", root));
                for (size_t i = 0; r == 0 && i < n; i++) {
                        struct store_versions have;
                        store_versions(&a, root, names[i], &have);
                        r = have.n ? pin(&a, root, names[i], &l) : 0;
                }
                for (int i = 0; r == 0 && i < argc; i++)
                        r = pin(&a, root, argv[i], &l);
                if (r == 0 && lock_write(&l, &a, &err))
                        r = refuse(err);
                for (size_t i = 0; r == 0 && i < n; i++)
                        tell(&a, &l, names[i]);
                for (int i = 0; r == 0 && i < argc; i++)
                        tell(&a, &l, argv[i]);
        }
        arena_fini(&a);
        return r;
}
