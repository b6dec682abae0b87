/* `plugin install` and `plugin remove`: signed, locked, atomic; versions stand side by side. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/source.h"
#include "ctl/store.h"
#include "sdk/base/semver.h"

#define O(f) offsetof(struct plugin_install_opts, f)
static const struct flag_row install_rows[] = {
        SOURCE_ROWS(plugin_install_opts),
        {"dir", FLAG_STRING, O(dir), "", "DIR", "Folder to install into (default: ~/.dapr/plugins)", .short_name = 'd'},
        {"allow-unsigned", FLAG_BOOL, O(allow_unsigned), "false", NULL, "Install what nobody that you trust has signed"},
        {"allow-downgrade", FLAG_BOOL, O(allow_downgrade), "false", NULL, "Install an older version than the newest that is installed"},
        {"force", FLAG_BOOL, O(force), "false", NULL, "Replace another package of the same version"},
        {"update-lock", FLAG_BOOL, O(update_lock), "false", NULL, "Take what the lock file does not pin, and pin it"},
        {"runtime-path", FLAG_STRING, O(from.globals.runtime_path), "", "DIR", "The path to the dapr runtime installation directory"},
        {"log-as-json", FLAG_BOOL, O(from.globals.log_as_json), "false", NULL, "Log output in JSON format"},
};
#undef O
const struct flag_program plugin_install_program = {
        .name = "dapr plugin install", .summary = "Install plugins from an index, a file, a folder, a bundle or an image layout",
        .usage = "dapr plugin install [SOURCE...] [flags]",
        .examples = "  # The newest version, from an index\n  dapr plugin install state.redis --index https://plugins.example.com/\n\n"
                    "  # A version, a file, a bundle for machines without a network, an image layout\n  dapr plugin install 'state.redis@^1.2'\n"
                    "  dapr plugin install ./state.redis-1.2.0-linux-amd64.tar\n  dapr plugin install ./plugins-bundle.tar\n  dapr plugin install oci:./layout\n\n"
                    "  # What plugins.lock pins\n  dapr plugin install\n",
        .rows = install_rows, .n_rows = sizeof(install_rows) / sizeof(*install_rows)};

struct install {
        struct plugin_install_opts *o;
        struct sources from;
        struct arena *a;
        const char *root;
        struct trust trust;
        bool lock_changed;
};

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* NULL and *ret_by ("ada, 5519E6…"), or why not. */
static const char *check_signature(struct install *i, const struct package *p, const char **ret_by)
{
        const struct trust_key *key;
        const char *err = NULL;
        int r = trust_check(&i->trust, p, i->a, &key, &err);
        if (r == 0)
                *ret_by = arena_printf(i->a, "signed by %s", key->name);
        else if (r == -EKEYREJECTED || !i->o->allow_unsigned)
                return err ? err : "out of memory";
        else
                *ret_by = r == -ENODATA ? "not signed" : "signed by nobody that is trusted";
        return NULL;
}

static const char *check_version(struct install *i, const struct package *p, bool is_exact)
{
        struct store_versions have;
        if (is_exact || i->o->allow_downgrade || store_versions(i->a, i->root, p->name, &have) || have.n == 0 ||
            semver_compare(str_of(p->version), str_of(have.v[0])) >= 0)
                return NULL;
        return arena_printf(i->a, "%s %s is older than %s, which is installed: say --allow-downgrade to have it too", p->name, p->version, have.v[0]);
}

static const char *check(struct install *i, const struct package *p, bool is_exact, const char **ret_by)
{
        const char *err = NULL;
        if (!package_fits(p->platform))
                return arena_printf(i->a, "%s is for %s, this machine is %s", p->source, p->platform, package_platform());
        err = check_signature(i, p, ret_by);
        if (!err && !i->o->update_lock)
                err = lock_fault(&i->from.lock, p, i->a);
        return err ? err : check_version(i, p, is_exact);
}

static int install_one(void *arg, struct package *p, bool is_exact)
{
        struct install *i = arg;
        const char *by = "", *err = check(i, p, is_exact, &by);
        int r = err ? -EPERM : store_install(i->root, p, i->o->force, i->a, &err);
        if (r == 0)
                ui_say(UI_SUCCESS, "Installed %s %s (%s; %s) in %s/%s/%s", p->name, p->version, p->types, by, i->root, p->name, p->version);
        else if (r == 1)
                ui_say(UI_SUCCESS, "%s %s is installed already", p->name, p->version);
        if (r >= 0 && i->o->update_lock) {
                i->lock_changed = true;
                r = lock_set(&i->from.lock, p, i->a);
        }
        package_free(p);
        return r < 0 ? refuse(err) : 0;
}

int plugin_install_run(void *opts, int argc, char **argv)
{
        struct plugin_install_opts *o = opts;
        struct arena a;
        arena_init(&a, 0);
        struct install i = {.o = o, .a = &a, .root = store_root(&a, o->dir)};
        const char *err = NULL;
        int r = i.root ? sources_init(&i.from, &a, &o->from, i.root) : refuse("HOME is not set: say --dir, the folder to install into");
        trust_load(&a, &i.trust);
        if (r == 0 && argc == 0 && i.from.lock.n == 0)
                r = refuse("Say what to install: a file, a folder, or a plugin's name; without any, plugins.lock says it, and there is none here");
        if (r == 0 && argc == 0)
                r = source_locked(&i.from, install_one, &i);
        for (int k = 0; r == 0 && k < argc; k++)
                r = source_each(&i.from, argv[k], install_one, &i);
        if (i.lock_changed && lock_write(&i.from.lock, &a, &err))
                r = refuse(err);
        sources_fini(&i.from);
        arena_fini(&a);
        return r ? 1 : 0;
}

/* ---- remove ---- */

static const struct flag_row remove_rows[] = {
        {"all", FLAG_BOOL, offsetof(struct plugin_remove_opts, all), "false", NULL, "Remove every version", .short_name = 'A'},
        {"dir", FLAG_STRING, offsetof(struct plugin_remove_opts, dir), "", "DIR", "Folder that it is installed in (default: ~/.dapr/plugins)", .short_name = 'd'},
        CTL_GLOBAL_ROWS(plugin_remove_opts),
};
const struct flag_program plugin_remove_program = {
        .name = "dapr plugin remove", .summary = "Remove an installed plugin, or one version of it", .usage = "dapr plugin remove NAME[@VERSION] [flags]",
        .examples = "  dapr plugin remove state.redis@1.1.0\n\n  # With all its versions\n  dapr plugin remove state.redis --all\n",
        .rows = remove_rows, .n_rows = sizeof(remove_rows) / sizeof(*remove_rows)};

static int remove_named(struct arena *a, const char *root, const char *spec, bool all)
{
        const char *at = strchr(spec, '@'), *name = at ? arena_strdup(a, str_n(spec, (size_t)(at - spec))) : spec, *err = NULL;
        struct store_versions have;
        if (!name || !package_name_ok(name))
                return refuse(arena_printf(a, "\"%s\" is no name of a plugin", spec));
        store_versions(a, root, name, &have);
        if (have.n == 0)
                return refuse(arena_printf(a, "%s is not installed in %s (dapr plugin list shows what is, and where)", name, root));
        if (!at && have.n > 1 && !all)
                return refuse(arena_printf(a, "%s is installed in %zu versions: say which (%s@%s), or --all", name, have.n, name, have.v[0]));
        bool hit = false;
        for (size_t i = 0; i < have.n; i++) {
                if (at && strcmp(at + 1, have.v[i]) != 0)
                        continue;
                hit = true;
                if (store_remove(root, name, have.v[i], a, &err))
                        return refuse(err);
                ui_say(UI_SUCCESS, "Removed %s %s", name, have.v[i]);
        }
        return hit ? 0 : refuse(arena_printf(a, "%s is not installed in version %s, but in %s", name, at + 1, have.v[0]));
}

int plugin_remove_run(void *opts, int argc, char **argv)
{
        struct plugin_remove_opts *o = opts;
        struct arena a;
        arena_init(&a, 0);
        const char *root = store_root(&a, o->dir);
        int r = argc == 0 ? refuse("Say what to remove: dapr plugin remove NAME[@VERSION]") : root ? 0 : refuse("HOME is not set: say --dir");
        for (int k = 0; r == 0 && k < argc; k++)
                r = remove_named(&a, root, argv[k], o->all);
        arena_fini(&a);
        return r;
}
