/*
 * `plugin dev`: builds, swaps the new process in under the running sidecar, watches the sources and the process, and does it again; shows
 * the component's log; at the end the plugin that ran before takes over again. Each build runs from a copy, so that a compiler may
 * overwrite what it likes; where that is the folder of what ran before, its files come back at the end. A build or a start that fails
 * leaves the last good one running; but where the new process was not ready in time and calls hang in the one that serves, that one is
 * ended, for it may hold what the new one waits for, and the swap is tried again.
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
#include "ctl/dev_build.h"
#include "ctl/live.h"
#include "ctl/package/package.h"
#include "ctl/package/store.h"
#include "sdk/base/loop.h"
#include "sdk/base/yaml.h"
#include "sdk/net/http.h"

#define SWAP_TIMEOUT_S 120.0
#define DEBUG_TIMEOUT_S 86400.0
#define POLL_S 0.2
#define LOOK_S 1.0       /* at the process that serves */
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
        struct dev_before *kept; /* its files, when builds overwrite them; NULL = they do not */
        const char *serving;    /* folder of the build that calls have moved to; NULL = none has */
        int64_t pid;            /* of its process, as last seen */
        bool keep_stage;        /* what is left running runs from there */
        char *stage;            /* copies of builds: stage/N */
        unsigned builds, swaps;
        struct process *log;
        struct sig_watch on_int, on_term;
        struct io_watch watch;
        int inotify;
        bool changed, over;
        struct cond wake;
        struct arena arena;     /* as long as it runs */
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

/* Builds go below the sources' folder: what runs from there must be kept to be brought back. */
static int keep_before(struct dev *d, struct arena *a)
{
        const char *err = NULL;
        char *real = realpath(d->before, NULL);
        d->before = real ? arena_strdup(a, str_of(real)) : d->before;
        free(real);
        struct str rest = str_of(d->before), dir = str_of(d->dir);
        bool below = str_has_prefix(rest, dir) && (rest.n == dir.n || rest.p[dir.n] == '/');
        return d->o->once || !below || !dev_before_save(&d->kept, d->before, a, &err) ? 0 : refuse(err);
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
        return keep_before(d, a);
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

/* True and its row, when the sidecar runs and tells of it. */
static bool look_at_row(struct dev *d, struct arena *a, struct live *ret)
{
        struct sidecars all;
        struct sidecar *s = sidecars_find(a, false, &all) ? NULL : sidecars_get(&all, d->o->app_id);
        return s && live_get(a, s, d->component, ret) == 0;
}

/* As swap_to(), also past a process that hangs. */
static const char *swap_past_hang(struct dev *d, struct arena *a, const char *folder)
{
        const char *err = swap_to(d, a, folder, false);
        struct sidecars all;
        struct live l;
        struct str body;
        if (!err || !strstr(err, "init timeout") || !look_at_row(d, a, &l) || (!*l.stuck && l.inflight == 0))
                return err;
        ui_say(UI_WARNING, "The new process was not ready in time, and %lld call%s in the one that serves, which may hold what the new one waits for: it is "
                           "ended, and the swap tried again%s%s", (long long)l.inflight, l.inflight == 1 ? " hangs" : "s hang", *l.stuck ? ": " : "", l.stuck);
        struct sidecar *s = sidecars_find(a, false, &all) ? NULL : sidecars_get(&all, d->o->app_id);
        const char *wrong = s ? live_try(a, s, "POST", live_path(a, d->component, "/restart?force=1"), SWAP_TIMEOUT_S, &body) : "the sidecar has ended";
        if (wrong)
                ui_say(UI_WARNING, "%s", wrong);
        return swap_to(d, a, folder, false);
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
        const char *built = NULL, *err = NULL, *folder = NULL, *version = "";
        arena_init(&a, 0);
        ui_say(UI_PENDING, "Building %s", d->dir);
        double start = loop_now_exact();
        int r = compile_plugin(&a, d->dir, true, &built);
        const char *root = arena_printf(&a, "%s/%u", d->stage, ++d->builds);
        if (r == 0 && dev_stage(&a, built, root, d->builds, &folder, &version, &err))
                r = refuse(err);
        double compiled = loop_now_exact();
        if (r == 0 && (err = d->o->debug ? swap_for_debugger(d, &a, folder) : swap_past_hang(d, &a, folder)))
                r = refuse(err);
        if (r == 0) {
                ui_say(UI_SUCCESS, "%s runs build %u, %s %s (built in %.0f ms, swapped in %.0f ms)", d->component, d->builds, strrchr(folder, '/') + 1, version,
                       (compiled - start) * 1000, (loop_now_exact() - compiled) * 1000);
                d->swaps++;
                d->serving = arena_strdup(&d->arena, str_of(folder));
                d->pid = 0;
        } else if (d->swaps || d->before) {
                ui_say(UI_INFO, "%s keeps running what it ran before", d->component);
        }
        arena_fini(&a);
        return r;
}

/* ---- the process ---- */

static const char *why_rolled_back(struct dev *d, struct arena *a)
{
        struct sidecars all;
        struct str body, name, event, text;
        struct json_reader r;
        const char *why = "";
        struct sidecar *s = sidecars_find(a, false, &all) ? NULL : sidecars_get(&all, d->o->app_id);
        if (!s || live_try(a, s, "GET", live_path(a, d->component, "/history"), POLL_S * 10, &body))
                return why;
        json_read_init(&r, body);
        if (!json_enter_object(&r) || !json_next_member(&r, a, &name) || !json_enter_array(&r))
                return why;
        while (json_next_element(&r) && json_enter_object(&r)) {
                event = text = STR("");
                while (json_next_member(&r, a, &name))
                        if (!json_read_string(&r, a, str_eqz(name, "event") ? &event : &text))
                                json_skip(&r);
                if (str_eqz(event, "rolled back"))
                        why = arena_strdup(a, text); /* detail is the last member */
        }
        return why ? why : "";
}

/* Does the last build still serve, and in the same process? Says what has changed. */
static void look_at_process(struct dev *d)
{
        struct arena a;
        struct live l;
        arena_init(&a, 0);
        if (d->serving && look_at_row(d, &a, &l) && l.pid > 0) {
                const char *slash = strrchr(l.executable, '/');
                struct str folder = slash ? str_n(l.executable, (size_t)(slash - l.executable)) : STR("");
                if (!str_eqz(folder, d->serving)) {
                        ui_say(UI_FAILURE, "The last build died while it was on trial, and calls are back with %s %s: %s", l.plugin, l.plugin_version, why_rolled_back(d, &a));
                        d->serving = arena_strdup(&d->arena, folder);
                } else if (d->pid && d->pid != l.pid) {
                        ui_say(UI_WARNING, "The process of this build has ended (%s) and was started again", l.last_death);
                }
                d->pid = l.pid;
        }
        arena_fini(&a);
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
        while (!d->over && !d->changed) {
                int r = cond_wait_until(&d->wake, loop_now() + LOOK_S);
                if (r == -ETIMEDOUT && !d->changed)
                        look_at_process(d);
                else if (r && r != -ETIMEDOUT && d->over)
                        return false;
        }
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

/* Sources that are the plugin itself are the author's: then a copy of what ran before is left running. */
static int bring_back(struct dev *d, struct arena *a)
{
        const char *folder = d->before, *err = NULL;
        bool are_sources = d->kept && strcmp(d->before, d->dir) == 0;
        if (are_sources) {
                folder = arena_printf(a, "%s/before", d->stage);
                d->keep_stage = true;
        }
        if (d->kept && dev_before_write(d->kept, folder, a, &err))
                err = arena_printf(a, "what ran before could not be written: %s", err);
        else
                err = swap_past_hang(d, a, folder);
        if (err) {
                d->keep_stage = true;
                return refuse(arena_printf(a, "%s still runs the last build: %s", d->component, err));
        }
        ui_say(UI_SUCCESS, "%s runs %s again%s", d->component, folder,
               are_sources ? ", a copy of what ran before; the sources stay as they are" : d->kept ? ", as it was before: make builds the sources anew" : "");
        return 0;
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
        return bring_back(d, a);
}

int plugin_dev_run(void *opts, int argc, char **argv)
{
        struct dev d = {.o = opts, .inotify = -1};
        struct arena a;
        const char *tmp = getenv("TMPDIR");
        arena_init(&a, 0);
        arena_init(&d.arena, 0);
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
                if (!d.o->once && !d.keep_stage) /* what was left there runs from here */
                        store_remove_tree(d.stage);
        }
        if (d.inotify >= 0)
                close(d.inotify);
        dev_before_free(d.kept);
        arena_fini(&d.arena);
        arena_fini(&a);
        return r;
}
