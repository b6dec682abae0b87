/*
 * `logs`: what a sidecar (or its app) has written, where that goes to a file: the log files of `run --run-file`, or a file that the
 * output of daprd was sent to. Output that goes to a terminal or a pipe is gone; then this says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/commands.h"

#define FOLLOW_PAUSE_S 0.2
enum { CHUNK_BYTES = 2048 };

#define O(f) offsetof(struct logs_opts, f)
static const struct flag_row logs_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The application id for which logs are needed", .short_name = 'a'},
        {"app", FLAG_BOOL, O(app), "false", NULL, "The app's own output instead of its sidecar's"},
        {"follow", FLAG_BOOL, O(follow), "false", NULL, "Go on with new lines until the sidecar ends", .short_name = 'f'},
        {"tail", FLAG_INT, O(tail), "-1", "N", "Only the last N lines (default: all)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json (one object a line), or the lines (default)", .short_name = 'o'},
        {"kubernetes", FLAG_BOOL, O(kubernetes), "false", NULL, "Get logs from a Kubernetes cluster", .short_name = 'k'},
        CTL_GLOBAL_ROWS(logs_opts),
};
#undef O
const struct flag_program logs_program = {
        .name = "dapr logs", .summary = "Get Dapr sidecar logs for an application", .usage = "dapr logs --app-id ID [flags]",
        .examples = "  # What the sidecar of an app of `dapr run --run-file` has written\n  dapr logs --app-id myapp\n\n"
                    "  # The last lines of the app itself, and those to come\n  dapr logs --app-id myapp --app --tail 20 -f\n",
        .rows = logs_rows, .n_rows = sizeof(logs_rows) / sizeof(*logs_rows)};

/* The file that a process's standard output goes to, or NULL. */
static const char *output_of(struct arena *a, int pid)
{
        struct stat st;
        const char *path = arena_printf(a, "/proc/%d/fd/1", pid);
        return path && stat(path, &st) == 0 && S_ISREG(st.st_mode) ? path : NULL;
}

/* NULL after saying that there is no file. */
static const char *find_file(struct arena *a, const struct logs_opts *o, const struct sidecar *s)
{
        const char *file = o->app ? s->app_log : s->daprd_log;
        if (!file || !*file)
                file = output_of(a, o->app ? s->app_pid : s->pid);
        if (!file)
                ui_say(UI_FAILURE, "The %s of %s writes to a terminal or a pipe, which keeps nothing. Start it by dapr run --run-file, or send its "
                                   "output to a file", o->app ? "app" : "sidecar", s->app_id);
        return file;
}

static void print_line(const struct logs_opts *o, struct str line)
{
        if (!ui_is_json(o->output)) {
                printf("%.*s\n", STR_FMT(line));
                return;
        }
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "appId", str_of(o->app_id));
        json_kv(&w, "source", o->app ? STR("app") : STR("daprd"));
        json_kv(&w, "line", line);
        json_object_end(&w);
        printf("%.*s\n", STR_FMT(buf_str(&b)));
        buf_fini(&b);
}

/* Where the last n lines begin. */
static off_t tail_start(int fd, int n)
{
        char p[CHUNK_BYTES];
        off_t at = lseek(fd, 0, SEEK_END);
        bool last = true; /* the file's own last line end does not count */
        while (at > 0) {
                size_t k = at < CHUNK_BYTES ? (size_t)at : CHUNK_BYTES;
                if (pread(fd, p, k, at - (off_t)k) != (ssize_t)k)
                        break;
                for (size_t i = k; i > 0; i--) {
                        if (p[i - 1] == '\n' && !last && n-- <= 1)
                                return at - (off_t)(k - i);
                        last = false;
                }
                at -= (off_t)k;
        }
        return 0;
}

/* Whole lines from *at on; *at moves behind them. 0 or -errno. */
static int print_lines(const struct logs_opts *o, int fd, off_t *at, bool rest_too)
{
        struct buf b = {0};
        char p[CHUNK_BYTES];
        ssize_t n;
        while ((n = pread(fd, p, sizeof(p), *at + (off_t)buf_len(&b))) > 0) {
                struct str all;
                ptrdiff_t end;
                buf_add(&b, p, (size_t)n);
                for (all = buf_str(&b); (end = str_chr(all, '\n')) >= 0; all = buf_str(&b)) {
                        print_line(o, str_n(all.p, (size_t)end));
                        buf_consume(&b, (size_t)end + 1);
                        *at += end + 1;
                }
        }
        if (rest_too && buf_len(&b))
                print_line(o, buf_str(&b));
        buf_fini(&b);
        return n < 0 ? -errno : 0;
}

static int show(const struct logs_opts *o, const struct sidecar *s, int fd)
{
        off_t at = o->tail >= 0 ? o->tail ? tail_start(fd, o->tail) : lseek(fd, 0, SEEK_END) : 0;
        bool more = o->follow;
        int r = print_lines(o, fd, &at, !o->follow);
        while (more && r == 0 && fflush(stdout) == 0 && fiber_sleep(FOLLOW_PAUSE_S) == 0) {
                more = sidecar_runs(s);
                r = print_lines(o, fd, &at, !more);
        }
        fflush(stdout);
        return r;
}

int logs_run(void *opts, int argc, char **argv)
{
        struct logs_opts *o = opts;
        struct arena a;
        struct sidecars all;
        if (o->kubernetes)
                return kubernetes_refused("logs");
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc || !*o->app_id) {
                ui_say(UI_FAILURE, "Say which app: dapr logs --app-id myapp");
                return 1;
        }
        arena_init(&a, 0);
        int r = sidecars_find(&a, true, &all);
        struct sidecar *s = r ? NULL : sidecars_get(&all, o->app_id);
        if (!s)
                ui_say(UI_FAILURE, r ? "The sidecars of this machine cannot be listed; looked for %s" : "App ID %s not found: no daprd of that id runs here (dapr list shows those that do)",
                       o->app_id);
        const char *file = s ? find_file(&a, o, s) : NULL;
        int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
        if (file && fd < 0)
                ui_say(UI_FAILURE, "Could not read %s: %s", file, strerror(errno));
        r = fd >= 0 ? show(o, s, fd) : -1;
        if (fd >= 0) {
                if (r)
                        ui_say(UI_FAILURE, "Could not read %s: %s", file, strerror(-r));
                close(fd);
        }
        arena_fini(&a);
        return r != 0;
}
