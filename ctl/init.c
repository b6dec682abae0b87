/*
 * `init` and `uninstall`: the folder ~/.dapr with the default resources, without containers: state in an embedded SQLite file and,
 * when its plugin is installed, publish/subscribe in memory. Programs and plugins of this installation are linked from bin/.
 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/plugins.h"

static const struct flag_row init_rows[] = {
        {"slim", FLAG_BOOL, offsetof(struct init_opts, slim), "false", NULL, "Accepted for scripts: init never starts containers", .short_name = 's'},
        {"force", FLAG_BOOL, offsetof(struct init_opts, force), "false", NULL, "Overwrite resource files that are there already"},
        {"runtime-version", FLAG_STRING, offsetof(struct init_opts, runtime_version), "latest", "VERSION", "Accepted for scripts; this installation's own runtime is used"},
        {"kubernetes", FLAG_BOOL, offsetof(struct init_opts, kubernetes), "false", NULL, "Deploy Dapr to a Kubernetes cluster", .short_name = 'k'},
        {"dashboard-version", FLAG_STRING, offsetof(struct init_opts, dashboard_version), "latest", "VERSION", "", FLAG_HIDDEN},
        {"from-dir", FLAG_STRING, offsetof(struct init_opts, from_dir), "", "DIR", "", FLAG_HIDDEN},
        {"container-runtime", FLAG_STRING, offsetof(struct init_opts, container_runtime), "docker", "NAME", "", FLAG_HIDDEN},
        {"image-registry", FLAG_STRING, offsetof(struct init_opts, image_registry), "", "URL", "", FLAG_HIDDEN},
        {"image-variant", FLAG_STRING, offsetof(struct init_opts, image_variant), "", "NAME", "", FLAG_HIDDEN},
        {"network", FLAG_STRING, offsetof(struct init_opts, network), "", "NAME", "", FLAG_HIDDEN},
        {"scheduler-volume", FLAG_STRING, offsetof(struct init_opts, scheduler_volume), "dapr_scheduler", "NAME", "", FLAG_HIDDEN},
        {"scheduler-override-broadcast-host-port", FLAG_STRING, offsetof(struct init_opts, scheduler_broadcast), "", "ADDR", "", FLAG_HIDDEN},
        {"dev", FLAG_BOOL, offsetof(struct init_opts, dev), "false", NULL, "", FLAG_HIDDEN},
        {"wait", FLAG_BOOL, offsetof(struct init_opts, wait), "false", NULL, "", FLAG_HIDDEN},
        {"enable-ha", FLAG_BOOL, offsetof(struct init_opts, enable_ha), "false", NULL, "", FLAG_HIDDEN},
        {"enable-mtls", FLAG_BOOL, offsetof(struct init_opts, enable_mtls), "true", NULL, "", FLAG_HIDDEN},
        {"namespace", FLAG_STRING, offsetof(struct init_opts, namespace_), "dapr-system", "NAME", "", FLAG_HIDDEN, .short_name = 'n'},
        {"set", FLAG_ARRAY, offsetof(struct init_opts, set), "", "KEY=VALUE", "", FLAG_HIDDEN},
        {"ca-root-certificate", FLAG_STRING, offsetof(struct init_opts, ca_root), "", "FILE", "", FLAG_HIDDEN},
        {"issuer-private-key", FLAG_STRING, offsetof(struct init_opts, issuer_key), "", "FILE", "", FLAG_HIDDEN},
        {"issuer-public-certificate", FLAG_STRING, offsetof(struct init_opts, issuer_certificate), "", "FILE", "", FLAG_HIDDEN},
        {"timeout", FLAG_INT, offsetof(struct init_opts, timeout), "300", "SECONDS", "", FLAG_HIDDEN},
        CTL_GLOBAL_ROWS(init_opts),
};
const struct flag_program init_program = {
        .name = "dapr init", .summary = "Set up Dapr for this user: default resources, no containers", .usage = "dapr init [flags]",
        .examples = "  # Write ~/.dapr with a SQLite state store\n  dapr init\n\n  # Into another folder\n  dapr init --runtime-path /srv/dapr\n",
        .rows = init_rows, .n_rows = sizeof(init_rows) / sizeof(*init_rows)};

static const struct flag_row uninstall_rows[] = {
        {"all", FLAG_BOOL, offsetof(struct uninstall_opts, all), "false", NULL, "Remove the .dapr folder with resources and state too"},
        {"kubernetes", FLAG_BOOL, offsetof(struct uninstall_opts, kubernetes), "false", NULL, "Uninstall Dapr from a Kubernetes cluster", .short_name = 'k'},
        {"dev", FLAG_BOOL, offsetof(struct uninstall_opts, dev), "false", NULL, "", FLAG_HIDDEN},
        {"container-runtime", FLAG_STRING, offsetof(struct uninstall_opts, container_runtime), "docker", "NAME", "", FLAG_HIDDEN},
        {"network", FLAG_STRING, offsetof(struct uninstall_opts, network), "", "NAME", "", FLAG_HIDDEN},
        {"namespace", FLAG_STRING, offsetof(struct uninstall_opts, namespace_), "dapr-system", "NAME", "", FLAG_HIDDEN, .short_name = 'n'},
        {"timeout", FLAG_INT, offsetof(struct uninstall_opts, timeout), "300", "SECONDS", "", FLAG_HIDDEN},
        CTL_GLOBAL_ROWS(uninstall_opts),
};
const struct flag_program uninstall_program = {
        .name = "dapr uninstall", .summary = "Remove what dapr init set up", .usage = "dapr uninstall [flags]",
        .examples = "  # Remove the links to the programs, keep resources and state\n  dapr uninstall\n\n  # Remove everything\n  dapr uninstall --all\n",
        .rows = uninstall_rows, .n_rows = sizeof(uninstall_rows) / sizeof(*uninstall_rows)};

int kubernetes_refused(const char *command)
{
        ui_say(UI_FAILURE, "dapr %s has no Kubernetes mode in this release: leave out -k.", command);
        return 1;
}

static int write_one(struct arena *a, const char *dir, const char *name, const char *text, bool force)
{
        const char *path = path_join(a, dir, name);
        int r = path ? path_write(path, str_of(text), 0644, force) : -ENOMEM;
        if (r == -EEXIST) {
                ui_say(UI_INFO, "%s is there already and was left as it is", path);
                return 0;
        }
        if (r)
                ui_say(UI_FAILURE, "Could not write %s: %s", path ? path : name, strerror(-r));
        else
                ui_say(UI_SUCCESS, "Wrote %s", path);
        return r;
}

static int link_program(struct arena *a, const char *bin, const char *runtime_path, const char *name)
{
        const char *to = path_join(a, bin, name), *from = path_program(a, runtime_path, name);
        if (!from || !to || strcmp(from, to) == 0)
                return 0;
        char *real = realpath(from, NULL);
        if (!real)
                return 0;
        unlink(to);
        int r = symlink(real, to) == 0 ? 0 : -errno;
        free(real);
        return r;
}

static int make_folders(struct arena *a, const char *dir)
{
        static const char *const sub[] = {"bin", "components", "state"};
        for (size_t i = 0; i < sizeof(sub) / sizeof(*sub); i++) {
                const char *p = path_join(a, dir, sub[i]);
                int r = p ? path_mkdirs(p) : -ENOMEM;
                if (r) {
                        ui_say(UI_FAILURE, "Could not make the folder %s: %s", p ? p : sub[i], strerror(-r));
                        return r;
                }
        }
        return 0;
}

static int init_in(struct arena *a, const struct init_opts *o, const char *dir)
{
        int r = make_folders(a, dir);
        if (r)
                return r;
        const char *bin = path_join(a, dir, "bin"), *components = path_join(a, dir, "components");
        if ((r = link_program(a, bin, o->globals.runtime_path, "daprd")) != 0)
                ui_say(UI_WARNING, "Could not link daprd into %s: %s", bin, strerror(-r));
        if (!path_program(a, o->globals.runtime_path, "daprd"))
                ui_say(UI_WARNING, "daprd was not found beside this program, in %s or in PATH: dapr run will need it", bin);
        const char *state = arena_printf(a,
                "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: statestore\nspec:\n  type: state.sqlite\n  version: v1\n"
                "  metadata:\n  - name: connectionString\n    value: \"%s/state/state.db\"\n  - name: actorStateStore\n    value: \"true\"\n", dir);
        static const char pubsub[] = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: pubsub\nspec:\n"
                                     "  type: pubsub.in-memory\n  version: v1\n  metadata: []\n";
        static const char config[] = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: daprConfig\nspec: {}\n";
        if ((r = state ? write_one(a, components, "statestore.yaml", state, o->force) : -ENOMEM) != 0)
                return r;
        if (plugins_has_type(a, o->globals.runtime_path, "pubsub.in-memory")) {
                if ((r = write_one(a, components, "pubsub.yaml", pubsub, o->force)) != 0)
                        return r;
        } else
                ui_say(UI_INFO, "The plugin pubsub.in-memory is not installed: no pubsub.yaml was written");
        return write_one(a, dir, "config.yaml", config, o->force);
}

int init_run(void *opts, int argc, char **argv)
{
        struct init_opts *o = opts;
        if (o->kubernetes)
                return kubernetes_refused("init");
        struct arena a;
        arena_init(&a, 0);
        ui_say(UI_PENDING, "Making the jump to hyperspace...");
        const char *dir = path_dapr_dir(&a, o->globals.runtime_path);
        int r = -ENOENT;
        if (!dir)
                ui_say(UI_FAILURE, "HOME is not set: say where to put the files with --runtime-path DIR");
        else
                r = init_in(&a, o, dir);
        if (!r) {
                ui_say(UI_SUCCESS, "Success! Dapr is up and running. To get started, go here: https://docs.dapr.io/getting-started");
                ui_say(UI_INFO, "Try: dapr run --app-id hello --dapr-http-port 3500 -- sleep 60");
        }
        arena_fini(&a);
        return r ? 1 : 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

int uninstall_run(void *opts, int argc, char **argv)
{
        struct uninstall_opts *o = opts;
        if (o->kubernetes)
                return kubernetes_refused("uninstall");
        struct arena a;
        arena_init(&a, 0);
        const char *dir = path_dapr_dir(&a, o->globals.runtime_path);
        const char *target = dir ? o->all ? dir : path_join(&a, dir, "bin") : NULL;
        int r = 0;
        if (!target) {
                ui_say(UI_FAILURE, "HOME is not set: say which folder with --runtime-path DIR");
                r = 1;
        } else if (!path_exists(target))
                ui_say(UI_WARNING, "%s does not exist: nothing to remove", target);
        else if (nftw(target, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0) {
                ui_say(UI_FAILURE, "Could not remove %s: %s", target, strerror(errno));
                r = 1;
        } else
                ui_say(UI_SUCCESS, "Dapr has been removed successfully");
        arena_fini(&a);
        return r;
}
