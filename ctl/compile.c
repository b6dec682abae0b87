/* See compile.h. */
#include "ctl/compile.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/package/package.h"
#include "ctl/plugins.h"

const char *compile_manifest_text(struct arena *a, const char *dir, const char *member)
{
        struct str text;
        struct yaml_node *root = NULL;
        const char *err = NULL, *file = path_join(a, dir, PACKAGE_MANIFEST);
        if (yaml_read_file(a, file, false, &text, &err) != 0 || yaml_read(a, text, file, 1, 0, &root, &err) != 0) {
                ui_say(UI_FAILURE, "%s", err ? err : file);
                return NULL;
        }
        return plugin_text(a, root, member);
}

static void on_line(void *arg, struct str line, bool is_stderr)
{
        fprintf(stderr, "    %.*s\n", STR_FMT(line));
}

static int run_tool(struct arena *a, const char *dir, char *const *argv)
{
        struct process *p;
        struct process_options o = {.dir = dir, .on_line = on_line, .no_stdin = true};
        int r = process_start(&p, argv, &o);
        if (r) {
                ui_say(UI_FAILURE, "Could not run %s: %s", argv[0], r == -2 ? "it is not installed" : strerror(-r));
                return 1;
        }
        process_wait(p, -1);
        int code = process_exit_code(p);
        if (code)
                ui_say(UI_FAILURE, "%s in %s failed: %s", argv[0], dir, process_exit_text(p, a));
        process_free(p);
        return code ? 1 : 0;
}

static int build_go(struct arena *a, const char *dir, const char *name)
{
        char *out = arena_printf(a, "%s/%s", name, name);
        const char *version = compile_manifest_text(a, dir, "version");
        char *flags = arena_printf(a, "-ldflags=-s -w -X main.version=%s", version ? version : ""); /* nothing where there is no such variable */
        char *argv[] = {"go", "build", "-trimpath", flags, "-o", out, ".", NULL};
        const char *to = path_join(a, dir, name);
        struct str text;
        const char *err, *from = path_join(a, dir, PACKAGE_MANIFEST);
        int r = path_mkdirs(to) ? 1 : run_tool(a, dir, argv);
        if (r == 0 && (yaml_read_file(a, from, false, &text, &err) || path_write(path_join(a, to, PACKAGE_MANIFEST), text, 0644, true))) {
                ui_say(UI_FAILURE, "%s could not be copied to %s", from, to);
                r = 1;
        }
        return r;
}

static int run_tools(struct arena *a, const char *dir, const char *name)
{
        char *make[] = {"make", "--no-print-directory", NULL}, *npm[] = {"npm", "install", "--omit=dev", "--no-audit", "--no-fund", NULL};
        if (path_exists(path_join(a, dir, "Makefile")))
                return run_tool(a, dir, make);
        if (path_exists(path_join(a, dir, "go.mod")))
                return build_go(a, dir, name);
        if (path_exists(path_join(a, dir, "package.json")) && !path_exists(path_join(a, dir, "node_modules")))
                return run_tool(a, dir, npm);
        return 0;
}

int compile_plugin(struct arena *a, const char *dir, bool tools, const char **ret)
{
        const char *name = compile_manifest_text(a, dir, "name");
        if (!name)
                return 1;
        if (!package_name_ok(name)) {
                ui_say(UI_FAILURE, "%s/plugin.yaml: 'name' is missing or cannot name a folder", dir);
                return 1;
        }
        if (tools && run_tools(a, dir, name))
                return 1;
        const char *built = arena_printf(a, "%s/%s", dir, name);
        *ret = path_exists(path_join(a, built, PACKAGE_MANIFEST)) ? built : dir;
        return 0;
}

int compile_find_built(struct arena *a, const char *dir, const char **ret)
{
        const char *folder = NULL, *name, *exe;
        if (!path_exists(path_join(a, dir, PACKAGE_MANIFEST))) {
                ui_say(UI_FAILURE, "%s does not exist: say the folder of a plugin, that of its sources or the one that was built", path_join(a, dir, PACKAGE_MANIFEST));
                return 1;
        }
        if (compile_plugin(a, dir, false, &folder) || !(name = compile_manifest_text(a, folder, "name")) || !(exe = compile_manifest_text(a, folder, "executable")))
                return 1;
        exe = *exe ? exe : name;
        if (exe[0] != '/' && !path_exists(path_join(a, folder, exe))) {
                ui_say(UI_FAILURE, "There is no program: neither %s/%s nor %s/%s/%s; build the plugin first", dir, exe, dir, name, exe);
                return 1;
        }
        *ret = folder;
        return 0;
}

static bool is_source(const char *name)
{
        static const char *const ends[] = {".c", ".h", ".go", ".py", ".js", ".proto"};
        const char *dot = strrchr(name, '.');
        for (size_t i = 0; dot && i < sizeof ends / sizeof *ends; i++)
                if (strcmp(dot, ends[i]) == 0)
                        return true;
        return false;
}

static bool is_later(struct timespec x, struct timespec y)
{
        return x.tv_sec > y.tv_sec || (x.tv_sec == y.tv_sec && x.tv_nsec > y.tv_nsec);
}

void compile_warn_stale(struct arena *a, const char *dir, const char *program)
{
        struct stat built, st;
        DIR *d = stat(program, &built) ? NULL : opendir(dir);
        for (struct dirent *e; d && (e = readdir(d));) {
                const char *path = is_source(e->d_name) ? path_join(a, dir, e->d_name) : NULL;
                if (!path || stat(path, &st) || !S_ISREG(st.st_mode) || !is_later(st.st_mtim, built.st_mtim))
                        continue;
                ui_say(UI_WARNING, "%s was changed after %s was built: make -C %s builds it", path, program, dir);
                break;
        }
        if (d)
                closedir(d);
}
