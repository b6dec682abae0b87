/* `plugin install` and `plugin remove`: signed, locked, atomic; versions stand side by side. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/package/source.h"
#include "ctl/package/store.h"
#include "ctl/plugins.h"
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
        int r = package_trust(&i->trust, p, i->a, &key, &err);
        if (r == 0)
                *ret_by = arena_printf(i->a, "signed by %s", key->name);
        else if (r == -ENODATA && !i->o->allow_unsigned)
                return arena_printf(i->a, "%s: sign it with dapr plugin sign, or say --allow-unsigned", err);
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
        for (size_t k = 0; k < have.n; k++)
                if (strcmp(have.v[k], p->version) == 0)
                        return NULL; /* it stands there already: whether it is the same is seen when it is installed */
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

/* Another plugin serves a type of this one: which is taken is then a matter of names and folders. */
static void warn_of_rivals(struct install *i, const struct package *p)
{
        struct plugin_manifests all;
        if (plugins_find(i->a, i->o->from.globals.runtime_path, NULL, &all))
                return;
        for (struct str rest = str_of(p->types), type; rest.p && (type = str_trim(str_cut(&rest, ',')), 1);)
                for (size_t k = 0; k < all.n; k++) {
                        const char *theirs;
                        if (strcmp(all.v[k].name, p->name) == 0)
                                continue;
                        for (size_t t = 0; (theirs = plugin_type(i->a, &all.v[k], t)); t++)
                                if (str_ieq(type, str_of(theirs)))
                                        ui_say(UI_WARNING, "%.*s is served by %s %s in %s, too: the plugin that is named after the type is taken, else the first found",
                                               STR_FMT(type), all.v[k].name, all.v[k].version, all.v[k].folder);
                }
}

static int install_one(void *arg, struct package *p, bool is_exact)
{
        struct install *i = arg;
        const char *by = "", *err = check(i, p, is_exact, &by);
        int r = err ? -EPERM : store_install(i->root, p, i->o->force, i->a, &err);
        if (r == 0)
                ui_say(UI_SUCCESS, "Installed %s %s (%s; %s) in %s/%s/%s", p->name, p->version, p->types, by, i->root, p->name, p->version);
        if (r == 0)
                warn_of_rivals(i, p);
        if (r == 1)
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
        package_trust_load(&a, &i.trust);
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
        {"version", FLAG_STRING, offsetof(struct plugin_remove_opts, version), "", "V", "The version to remove, as NAME@V says it too"},
        {"all", FLAG_BOOL, offsetof(struct plugin_remove_opts, all), "false", NULL, "Remove every version", .short_name = 'A'},
        {"force", FLAG_BOOL, offsetof(struct plugin_remove_opts, force), "false", NULL, "Remove it even while a sidecar runs it"},
        {"dir", FLAG_STRING, offsetof(struct plugin_remove_opts, dir), "", "DIR", "Folder that it is installed in (default: ~/.dapr/plugins)", .short_name = 'd'},
        CTL_GLOBAL_ROWS(plugin_remove_opts),
};
const struct flag_program plugin_remove_program = {
        .name = "dapr plugin remove", .summary = "Remove an installed plugin, or one version of it", .usage = "dapr plugin remove NAME[@VERSION] [flags]",
        .examples = "  dapr plugin remove state.redis@1.1.0\n\n  # With all its versions\n  dapr plugin remove state.redis --all\n",
        .rows = remove_rows, .n_rows = sizeof(remove_rows) / sizeof(*remove_rows)};

/* The component of a sidecar that runs a program of this folder; NULL = none that can be seen. */
static const char *in_use(struct arena *a, const char *place)
{
        struct sidecars all;
        char *real = realpath(place, NULL);
        struct str folder = str_of(real ? arena_printf(a, "%s/", real) : NULL);
        free(real);
        for (size_t i = 0; folder.p && sidecars_find(a, false, &all) == 0 && i < all.n; i++) {
                struct lives l = {0};
                struct str body;
                if (live_try(a, &all.v[i], "GET", "/v1/plugins", 2, &body) || live_list(a, &all.v[i], &l))
                        continue;
                for (size_t k = 0; k < l.n; k++)
                        if (str_has_prefix(str_of(l.v[k].executable), folder))
                                return arena_printf(a, "%s of app %s", l.v[k].name, all.v[i].app_id);
        }
        return NULL;
}

static int remove_named(struct arena *a, const char *root, const char *spec, bool all, bool force)
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
                const char *user = force ? NULL : in_use(a, arena_printf(a, "%s/%s/%s", root, name, have.v[i]));
                if (user)
                        return refuse(arena_printf(a, "%s %s runs as the component %s: change that first (dapr plugin upgrade), or say --force", name,
                                                   have.v[i], user));
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
        if (r == 0 && *o->version && (argc > 1 || strchr(argv[0], '@') || o->all))
                r = refuse("--version goes with one NAME, without @VERSION and --all");
        for (int k = 0; r == 0 && k < argc; k++)
                r = remove_named(&a, root, *o->version ? arena_printf(&a, "%s@%s", argv[k], o->version) : argv[k], o->all, o->force);
        arena_fini(&a);
        return r;
}
