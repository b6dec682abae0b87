/*
 * `plugin dev`: builds, swaps the new process in under the running sidecar, watches the sources, and does it again; shows the
 * component's log; at the end the plugin that ran before takes over again. Each build runs from a copy, so that a compiler may
 * overwrite what it likes. A build or a start that fails leaves the last good one running.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/compile.h"
#include "ctl/live.h"
#include "ctl/package/package_impl.h"
#include "ctl/package/store.h"
#include "sdk/base/loop.h"
#include "sdk/base/yaml.h"
#include "sdk/net/http.h"

#define SWAP_TIMEOUT_S 120.0
#define DEBUG_TIMEOUT_S 86400.0
#define POLL_S 0.2
#define SETTLE_S 0.3     /* an editor writes several files */
#define END_LOG_S 2.0
enum { WATCH_DIRS_MAX = 256, SOURCE_MAX = 4 * 1024 * 1024, WATCH = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE };

#define O(f) offsetof(struct plugin_dev_opts, f)
static const struct flag_row rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar runs the component", .short_name = 'a'},
        {"component", FLAG_STRING, O(component), "", "NAME", "The component to swap (default: the one that has the plugin's type)", .short_name = 'c'},
        {"debug", FLAG_BOOL, O(debug), "false", NULL, "Start each new process stopped, and print the command that attaches gdb to it"},
        {"once", FLAG_BOOL, O(once), "false", NULL, "Swap in one build and leave it there"},
        CTL_GLOBAL_ROWS(plugin_dev_opts),
};
#undef O
const struct flag_program plugin_dev_program = {
        .name = "dapr plugin dev", .summary = "Build a plugin and swap it into a running sidecar at each change of its sources",
        .usage = "dapr plugin dev [DIR] --app-id ID [flags]",
        .examples = "  # One terminal\n  dapr run --app-id demo --resources-path mystore/resources\n\n  # Another: edit and save; Ctrl-C brings back what ran before\n"
                    "  dapr plugin dev mystore --app-id demo\n\n"
                    "  # With gdb from the first instruction on; nothing is killed meanwhile\n  dapr plugin dev mystore --app-id demo --debug --once\n",
        .rows = rows, .n_rows = sizeof(rows) / sizeof(*rows)};

struct dev {
        const struct plugin_dev_opts *o;
        const char *dir, *component, *type;
        const char *before;     /* folder of the plugin that ran when we came */
        char *stage;            /* copies of builds: stage/N */
        unsigned builds, swaps;
        struct process *log;
        struct sig_watch on_int, on_term;
        struct io_watch watch;
        int inotify;
        bool changed, over;
        struct cond wake;
};
static struct dev *the_dev; /* for signals */

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* ---- what is swapped ---- */

static bool serves(struct arena *a, const char *dir, const char *type)
{
        const char *manifest = path_join(a, dir, PACKAGE_MANIFEST);
        struct str text;
        const char *err;
        return yaml_read_file(a, manifest, false, &text, &err) == 0 && str_find(text, str_of(arena_printf(a, "type: %s\n", type))) >= 0;
}

static int find_component(struct dev *d, struct arena *a)
{
        struct sidecar *s = *d->o->app_id ? live_sidecar(a, d->o->app_id) : NULL;
        struct lives all = {0};
        const struct live *hit = NULL;
        if (!*d->o->app_id)
                return refuse("Say which sidecar: --app-id ID (dapr list shows those that run)");
        if (!s || live_list(a, s, &all))
                return 1;
        for (size_t i = 0; i < all.n; i++) {
                const struct live *l = &all.v[i];
                bool named = *d->o->component && strcmp(l->name, d->o->component) == 0;
                if (!named && (*d->o->component || !serves(a, d->dir, l->type)))
                        continue;
                if (hit)
                        return refuse(arena_printf(a, "%s and %s could both be meant: say --component NAME", hit->name, l->name));
                hit = l;
        }
        if (!hit)
                return refuse(*d->o->component ? arena_printf(a, "The sidecar of %s has no component %s", d->o->app_id, d->o->component)
                                               : arena_printf(a, "No component of the sidecar of %s has a type that %s/plugin.yaml serves", d->o->app_id, d->dir));
        if (hit->foreign || !*hit->executable)
                return refuse(arena_printf(a, "%s is not run by the sidecar: it cannot be swapped", hit->name));
        const char *slash = strrchr(hit->executable, '/');
        d->component = hit->name;
        d->type = hit->type;
        d->before = arena_strdup(a, str_n(hit->executable, (size_t)(slash - hit->executable)));
        return 0;
}

static const char *swap_to(struct dev *d, struct arena *a, const char *folder, bool debug)
{
        struct str body, value = url_escape(a, str_of(folder));
        struct sidecars all;
        struct sidecar *s = sidecars_find(a, false, &all) ? NULL : sidecars_get(&all, d->o->app_id);
        if (!s)
                return "the sidecar has ended";
        return live_try(a, s, "POST", live_path(a, d->component, arena_printf(a, "/upgrade?path=%.*s%s", STR_FMT(value), debug ? "&debug=1" : "")),
                        debug ? DEBUG_TIMEOUT_S : SWAP_TIMEOUT_S, &body);
}

struct debugging { /* a swap whose new process waits for gdb */
        struct dev *d;
        struct arena a;
        const char *folder, *err;
        bool done;
};

static void debug_fiber(void *arg)
{
        struct debugging *g = arg;
        g->err = swap_to(g->d, &g->a, g->folder, true);
        g->done = true;
        cond_signal(&g->d->wake);
}

/* True once it was told. */
static bool tell_debugger(struct dev *d)
{
        struct arena a;
        struct sidecars all;
        struct live l;
        arena_init(&a, 0);
        struct sidecar *s = sidecars_find(&a, false, &all) ? NULL : sidecars_get(&all, d->o->app_id);
        bool there = s && live_get(&a, s, d->component, &l) == 0 && l.candidate_pid > 0;
        if (there)
                ui_say(UI_INFO, "The new process is stopped before its first instruction. To debug it:\n    gdb -p %d -ex 'handle SIGSTOP SIGCONT nostop noprint nopass'\n"
                                "    then: break FUNCTION, continue. Or let it run: kill -CONT %d", (int)l.candidate_pid, (int)l.candidate_pid);
        arena_fini(&a);
        return there;
}

static const char *swap_for_debugger(struct dev *d, struct arena *a, const char *folder)
{
        struct debugging g = {.d = d, .folder = folder};
        struct scope scope;
        bool told = false;
        arena_init(&g.a, 0);
        scope_init(&scope);
        if (fiber_go_flags(&scope, "dev-swap", FIBER_BIG, debug_fiber, &g))
                return "out of memory";
        while (!g.done && !d->over) {
                told = told || tell_debugger(d);
                cond_wait_until(&d->wake, loop_now() + POLL_S);
        }
        if (!g.done)
                scope_cancel(&scope);
        scope_join(&scope);
        const char *err = g.err ? arena_strdup(a, str_of(g.err)) : NULL;
        arena_fini(&g.a);
        return err;
}

/* One build, copied and swapped in. 0 or 1 after saying what is wrong: what ran before still does. */
static int build_and_swap(struct dev *d)
{
        struct arena a;
        struct package *p = NULL;
        const char *built = NULL, *err = NULL;
        arena_init(&a, 0);
        ui_say(UI_PENDING, "Building %s", d->dir);
        double start = loop_now_exact();
        int r = compile_plugin(&a, d->dir, true, &built);
        const char *root = arena_printf(&a, "%s/%u", d->stage, d->builds++);
        if (r == 0 && (package_from_folder(built, &p, &a, &err) || path_mkdirs(root) || store_install(root, p, false, &a, &err)))
                r = refuse(err);
        double compiled = loop_now_exact();
        const char *folder = r == 0 ? arena_printf(&a, "%s/%s/%s", root, p->name, p->version) : NULL;
        if (r == 0 && (err = d->o->debug ? swap_for_debugger(d, &a, folder) : swap_to(d, &a, folder, false)))
                r = refuse(err);
        if (r == 0) {
                ui_say(UI_SUCCESS, "%s runs build %u of %s %s (built in %.0f ms, swapped in %.0f ms)", d->component, d->builds, p->name, p->version,
                       (compiled - start) * 1000, (loop_now_exact() - compiled) * 1000);
                d->swaps++;
        } else if (d->swaps || d->before) {
                ui_say(UI_INFO, "%s keeps running what it ran before", d->component);
        }
        package_free(p);
        arena_fini(&a);
        return r;
}

/* ---- watching ---- */

static void on_event(struct io_watch *w, int events)
{
        struct dev *d = container_of(w, struct dev, watch);
        char b[2048] __attribute__((aligned(8)));
        while (read(d->inotify, b, sizeof b) > 0)
                d->changed = true;
        if (d->changed)
                cond_signal(&d->wake);
}

static bool is_watched(const char *name, const char *built)
{
        return name[0] != '.' && strcmp(name, built) != 0 && strcmp(name, "node_modules") != 0 && strcmp(name, "__pycache__") != 0;
}

/* What the files of a folder are, as text to be hashed: names and digests. */
static void add_files(struct arena *a, const char *dir, struct buf *to)
{
        struct dirent **v;
        char digest[DIGEST_HEX + 1];
        int n = scandir(dir, &v, NULL, alphasort);
        for (int i = 0; i < n; i++) {
                struct str text;
                if (v[i]->d_name[0] != '.' && trust_read_file(a, path_join(a, dir, v[i]->d_name), SOURCE_MAX, &text) == 0) {
                        digest_blake2b(text, digest);
                        buf_printf(to, "%s/%s %s\n", dir, v[i]->d_name, digest);
                }
                free(v[i]);
        }
        if (n >= 0)
                free(v);
}

/*
 * Watches the folder and those below it, those of builds left out, and tells what the sources are now: events say that something was
 * written, by a person or by the build itself; the digest says whether it matters. Asked again around each build.
 */
static void look(struct dev *d, char digest[DIGEST_HEX + 1])
{
        struct arena a;
        struct buf all = {0};
        const char *queue[WATCH_DIRS_MAX], *built;
        size_t n = 0, done = 0;
        arena_init(&a, 0);
        built = compile_manifest_text(&a, d->dir, "name");
        queue[n++] = d->dir;
        while (done < n) {
                const char *dir = queue[done++];
                inotify_add_watch(d->inotify, dir, WATCH | IN_ONLYDIR);
                add_files(&a, dir, &all);
                DIR *e = opendir(dir);
                for (struct dirent *x; e && (x = readdir(e));) {
                        struct stat st;
                        const char *path = path_join(&a, dir, x->d_name);
                        if (n < WATCH_DIRS_MAX && path && is_watched(x->d_name, built ? built : "") && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
                                queue[n++] = path;
                }
                if (e)
                        closedir(e);
        }
        digest_blake2b(buf_str(&all), digest);
        buf_fini(&all);
        arena_fini(&a);
}

static void on_signal(struct sig_watch *w, int signo)
{
        the_dev->over = true;
        cond_signal(&the_dev->wake);
}

/* Until something changed and has settled; false when it is over. */
static bool wait_change(struct dev *d)
{
        while (!d->over && !d->changed)
                if (cond_wait(&d->wake) && d->over)
                        return false;
        while (!d->over && d->changed) {
                d->changed = false;
                cond_wait_until(&d->wake, loop_now() + SETTLE_S);
        }
        return !d->over;
}

static void start_log(struct dev *d, struct arena *a)
{
        char *self = realpath("/proc/self/exe", NULL);
        char *argv[] = {self, "plugin", "logs", (char *)d->component, "--app-id", (char *)d->o->app_id, "--follow", "--tail", "0", NULL};
        if (self)
                process_start(&d->log, argv, &(struct process_options){.no_stdin = true, .own_group = true});
        free(self);
}

static void stop_log(struct dev *d)
{
        if (!d->log)
                return;
        process_signal(d->log, SIGTERM);
        process_wait(d->log, END_LOG_S);
        process_free(d->log);
}

static int run(struct dev *d, struct arena *a)
{
        char built[DIGEST_HEX + 1], now[DIGEST_HEX + 1];
        look(d, built);
        int r = build_and_swap(d);
        if (d->o->once)
                return r;
        start_log(d, a);
        ui_say(UI_INFO, "Watching %s; Ctrl-C ends and brings back %s", d->dir, d->before);
        d->changed = true; /* what was saved while it was built */
        while (wait_change(d)) {
                look(d, now);
                if (strcmp(now, built) == 0)
                        continue;
                memcpy(built, now, sizeof built);
                build_and_swap(d);
                d->changed = true;
        }
        stop_log(d);
        if (!d->swaps)
                return 0;
        const char *err = swap_to(d, a, d->before, false);
        if (err)
                return refuse(arena_printf(a, "%s still runs the last build: %s", d->component, err));
        ui_say(UI_SUCCESS, "%s runs %s again", d->component, d->before);
        return 0;
}

int plugin_dev_run(void *opts, int argc, char **argv)
{
        struct dev d = {.o = opts, .inotify = -1};
        struct arena a;
        const char *tmp = getenv("TMPDIR");
        arena_init(&a, 0);
        cond_init(&d.wake);
        char *real = realpath(argc ? argv[0] : ".", NULL);
        d.dir = real ? arena_strdup(&a, str_of(real)) : NULL;
        free(real);
        int r = argc > 1 ? refuse("One folder: dapr plugin dev DIR") : d.dir ? 0 : refuse(arena_printf(&a, "%s: %s", argv[0], strerror(errno)));
        if (r == 0)
                r = compile_manifest_text(&a, d.dir, "name") ? find_component(&d, &a) : 1;
        d.stage = arena_printf(&a, "%s/dapr-dev-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (r == 0 && (!mkdtemp(d.stage) || (d.inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) < 0))
                r = refuse(arena_printf(&a, "%s: %s", d.stage, strerror(errno)));
        if (r == 0) {
                the_dev = &d;
                io_watch_init(&d.watch, d.inotify, on_event);
                io_watch_set(&d.watch, IO_READ);
                sig_watch_start(&d.on_int, SIGINT, on_signal);
                sig_watch_start(&d.on_term, SIGTERM, on_signal);
                r = run(&d, &a);
                sig_watch_stop(&d.on_int);
                sig_watch_stop(&d.on_term);
                io_watch_stop(&d.watch);
                if (!d.o->once) /* what was left there runs from here */
                        store_remove_tree(d.stage);
        }
        if (d.inotify >= 0)
                close(d.inotify);
        arena_fini(&a);
        return r;
}
