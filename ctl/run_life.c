/*
 * Sidecars and apps side by side. Life of a pair: sidecar -> (its health) -> app -> metadata -> an end -> both are stopped.
 * Without an app port the app waits for the sidecar; with one the sidecar waits for the app, so both start at once.
 * What a signal ends: the app first (it may still need its sidecar), with all that it has started, then the sidecar.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/run.h"
#include "sdk/base/loop.h"

enum { START_TIMEOUT_S = 60, STOP_TIMEOUT_S = 15, KILL_TIMEOUT_S = 5, TERMINAL_TIMEOUT_S = 2, ORPHANS_TIMEOUT_S = 5 };
#define HEALTH_POLL_S 0.02
#define SAME_SIGNAL_S 0.5
#define BLUE "\033[94m"
#define PLAIN "\033[0m"

struct run {
        struct arena *a;
        struct run_app *apps;
        size_t n;
        struct cond changed;   /* a process has ended, or a signal has come */
        struct fiber *main;
        struct sig_watch watches[3];
        int signo;             /* the first one, 0 = none */
        double signalled_at;
        bool hurry;            /* a second one has come */
};
static struct run *running; /* signal callbacks have no argument of their own */

/* ---- output ---- */

/* Log files get the text without colours. */
static void write_file(FILE *to, struct str line)
{
        for (size_t i = 0; i < line.n; i++) {
                if (line.p[i] == '\033' && i + 1 < line.n && line.p[i + 1] == '[') {
                        size_t end = i + 2;
                        while (end < line.n && (line.p[end] == ';' || (line.p[end] >= '0' && line.p[end] <= '9')))
                                end++;
                        if (end < line.n && line.p[end] == 'm') {
                                i = end;
                                continue;
                        }
                }
                putc(line.p[i], to);
        }
        putc('\n', to);
        fflush(to);
}

/* A reader that has gone ends us, as it ends any program in a pipe. */
static void write_console(bool is_stderr, const char *prefix, struct str line)
{
        FILE *to = is_stderr ? stderr : stdout;
        bool color = *prefix && ui_color(fileno(to));
        fprintf(to, "%s%s%s%.*s\n", color ? BLUE : "", prefix, color ? PLAIN : "", STR_FMT(line));
        if (fflush(to) != 0 && errno == EPIPE && !running->signo)
                raise(SIGTERM);
}

/* Several apps have one stream, as the reference's CLI has it: who reads it sees what came when. */
static bool for_stderr(const struct run_app *r, bool is_stderr)
{
        return is_stderr && !r->several;
}

static void on_daprd_line(void *arg, struct str line, bool is_stderr)
{
        struct run_app *r = arg;
        if (r->daprd_dest & DEST_CONSOLE)
                write_console(for_stderr(r, is_stderr), "", line);
        if (r->daprd_log)
                write_file(r->daprd_log, line);
}

static void on_app_line(void *arg, struct str line, bool is_stderr)
{
        struct run_app *r = arg;
        char prefix[160] = "== APP == ";
        if (r->several)
                snprintf(prefix, sizeof(prefix), "== APP - %s == ", r->o.app_id);
        if (r->app_dest & DEST_CONSOLE)
                write_console(for_stderr(r, is_stderr), prefix, line);
        if (r->app_log)
                write_file(r->app_log, line);
}

static bool can_take(void *arg, bool is_stderr)
{
        return ui_can_write(for_stderr(arg, is_stderr) ? STDERR_FILENO : STDOUT_FILENO);
}

static void on_exit_of_one(void *arg)
{
        struct run_app *r = arg;
        cond_broadcast(&r->run->changed);
}

/* ---- start ---- */

static struct sidecar as_sidecar(struct arena *a, const struct run_app *r)
{
        return (struct sidecar){.app_id = r->o.app_id, .http_port = r->o.http_port, .host = sidecar_host(a, r->o.listen_addresses),
                                .socket = *r->o.socket ? r->o.socket : NULL};
}

/* 0; -ECHILD: one of the two has ended; -ECANCELED; -ETIMEDOUT. */
static int wait_healthy(struct arena *a, struct run_app *r)
{
        struct sidecar s = as_sidecar(a, r);
        double until = loop_now_exact() + START_TIMEOUT_S;
        while (loop_now_exact() < until) {
                int status = 0;
                struct str body;
                struct arena scratch;
                if (r->daprd->exited || (r->app && r->app->exited))
                        return -ECHILD;
                arena_init(&scratch, 0);
                bool ok = sidecar_http(&scratch, &s, "GET", "/v1.0/healthz/outbound", STR_NULL, 2, &status, &body) == 0 && status == 204;
                arena_fini(&scratch);
                if (ok)
                        return 0;
                if (fiber_sleep(HEALTH_POLL_S))
                        return -ECANCELED;
        }
        return -ETIMEDOUT;
}

static void put_metadata(struct arena *a, const struct run_app *r, const char *key, const char *value)
{
        struct sidecar s = as_sidecar(a, r);
        int status = 0;
        struct str body;
        if (!value || !*value || r->daprd->exited)
                return;
        const char *path = arena_printf(a, "/v1.0/metadata/%s", key);
        int e = path ? sidecar_http(a, &s, "PUT", path, str_of(value), 5, &status, &body) : -ENOMEM;
        if (e == -ECANCELED)
                return;
        if (e || status != 204)
                ui_say(UI_WARNING, "Could not update sidecar metadata for %s: %s", key, e ? strerror(-e) : arena_printf(a, "status %d", status));
}

static const char *join_command(struct arena *a, char **command)
{
        struct buf b = {0};
        for (char **p = command; *p; p++)
                buf_printf(&b, "%s%s", p == command ? "" : " ", *p);
        const char *z = arena_strdup(a, buf_str(&b));
        buf_fini(&b);
        return z;
}

/* What `list` and `stop` find later. */
static void announce(struct arena *a, struct run_app *r)
{
        put_metadata(a, r, "cliPID", arena_printf(a, "%d", (int)getpid()));
        if (r->app) {
                const char *command = join_command(a, r->command);
                ui_say(UI_INFO, "Updating metadata for appPID: %d", (int)r->app->pid);
                put_metadata(a, r, "appPID", arena_printf(a, "%d", (int)r->app->pid));
                ui_say(UI_INFO, "Updating metadata for app command: %s", command);
                put_metadata(a, r, "appCommand", command);
        }
        put_metadata(a, r, "runTemplatePath", r->template_path);
        put_metadata(a, r, "runTemplateName", r->template_name);
        put_metadata(a, r, "appLogPath", r->app_log_path);
        put_metadata(a, r, "daprdLogPath", r->daprd_log_path);
}

static int start_daprd(struct arena *a, struct run_app *r)
{
        const char *program = path_program(a, r->o.globals.runtime_path, "daprd");
        if (!program) {
                ui_say(UI_FAILURE, "daprd was not found beside this program, in the install folder's bin or in PATH");
                return 1;
        }
        char **argv = run_daprd_args(a, r, program);
        struct process_options po = {.env = run_daprd_env(a, r), .dir = r->dir, .can_take = can_take, .on_exit = on_exit_of_one, .arg = r,
                                     .own_group = true, .no_stdin = true};
        if (r->daprd_dest != DEST_CONSOLE) /* else it writes to our terminal by itself, in its own colours */
                po.on_line = on_daprd_line;
        int e = argv && po.env ? process_start(&r->daprd, argv, &po) : -ENOMEM;
        if (e)
                ui_say(UI_FAILURE, "Could not start %s: %s", program, strerror(-e));
        return e ? 1 : 0;
}

/* On a terminal the app shares our group, so that it can read from it. */
static int start_app(struct arena *a, struct run_app *r)
{
        if (!r->command)
                return 0;
        struct process_options po = {.on_line = on_app_line, .can_take = can_take, .on_exit = on_exit_of_one, .arg = r,
                                     .env = run_app_env(a, r), .dir = r->dir, .own_group = !isatty(0), .terminal = true};
        int e = po.env ? process_start(&r->app, r->command, &po) : -ENOMEM;
        if (e)
                ui_say(UI_FAILURE, "Failed to start the command %s: %s", r->command[0], strerror(-e));
        return e ? 1 : 0;
}

static void say_starting(const struct run_app *r)
{
        const struct run_opts *o = &r->o;
        if (r->several)
                ui_say(UI_INFO, "Validating config and starting app \"%s\"", o->app_id);
        if (*o->socket)
                ui_say(UI_INFO, "Starting Dapr with id %s. HTTP Socket: %s/dapr-%s-http.socket. gRPC Socket: %s/dapr-%s-grpc.socket.", o->app_id,
                       o->socket, o->app_id, o->socket, o->app_id);
        else
                ui_say(UI_INFO, "Starting Dapr with id %s. HTTP Port: %d. gRPC Port: %d", o->app_id, o->http_port, o->grpc_port);
}

static void say_running(const struct run_app *r)
{
        ui_say(UI_SUCCESS, r->app && !r->several ? "You're up and running! Both Dapr and your app logs will appear here.\n"
                                                 : "You're up and running! Dapr logs will appear here.\n");
        if (!r->several)
                return;
        ui_say(UI_INFO, "Started Dapr with app id \"%s\". HTTP Port: %d. gRPC Port: %d", r->o.app_id, r->o.http_port, r->o.grpc_port);
        if (r->app_log || r->daprd_log)
                ui_say(UI_INFO, "Writing log files to directory : %s", r->log_dir);
}

/* 0 also when the app has ended already: that is told, and counts, like a later end. */
static int start_pair(struct arena *a, struct run_app *r)
{
        if (run_app_prepare(a, r))
                return 1;
        say_starting(r);
        if (start_daprd(a, r) || (r->o.app_port > 0 && start_app(a, r)))
                return 1;
        int h = wait_healthy(a, r);
        if (h == -ECHILD || h == -ECANCELED)
                return r->daprd->exited;
        if (h)
                ui_say(UI_WARNING, "Dapr sidecar might not be responding.");
        else
                ui_say(UI_INFO, "Dapr sidecar is up and running.");
        if (r->o.app_port <= 0 && start_app(a, r))
                return 1;
        announce(a, r);
        say_running(r);
        return 0;
}

/* ---- stop ---- */

static void stop_process(struct process *p, int signo, bool tree, const char *what)
{
        if (!p || p->exited)
                return;
        tree ? process_signal_tree(p, signo) : process_signal(p, signo);
        if (process_wait(p, STOP_TIMEOUT_S) == 0)
                return;
        ui_say(UI_WARNING, "%s did not stop within %d seconds and is killed", what, STOP_TIMEOUT_S);
        tree ? process_signal_tree(p, SIGKILL) : process_signal(p, SIGKILL);
        process_wait(p, KILL_TIMEOUT_S);
}

static void tell_end(struct arena *a, struct process *p, const char *what, const char *what_failed, bool *told, bool asked)
{
        if (!p || !p->exited || *told)
                return;
        *told = true;
        if (asked || process_exit_code(p) == 0)
                ui_say(UI_SUCCESS, "Exited %s successfully", what);
        else
                ui_say(UI_FAILURE, "The %s process %s", what_failed, process_exit_text(p, a));
}

static void tell_ends(struct arena *a, struct run_app *r, bool asked)
{
        tell_end(a, r->app, "App", "App", &r->app_told, asked);
        tell_end(a, r->daprd, "Dapr", "daprd", &r->daprd_told, asked);
}

struct stopping {
        struct run *run;
        struct run_app *r;
};

static void stop_pair(void *arg)
{
        struct stopping *s = arg;
        struct run_app *r = s->r;
        int signo = s->run->signo;
        tell_ends(s->run->a, r, false); /* what had ended before was not our doing */
        /* Ctrl-C on a terminal has reached the app by itself. */
        if (r->app && !r->app->exited && signo == SIGINT && isatty(0))
                process_wait(r->app, TERMINAL_TIMEOUT_S);
        stop_process(r->app, signo ? signo : SIGTERM, true, "The app");
        tell_ends(s->run->a, r, true);
        stop_process(r->daprd, SIGTERM, false, "The sidecar");
        tell_ends(s->run->a, r, true);
}

static void stop_all(struct run *run)
{
        struct scope scope;
        struct stopping *s = arena_alloc(run->a, run->n * sizeof(*s));
        fiber_shield_begin();
        scope_init(&scope);
        for (size_t i = 0; s && i < run->n; i++) {
                s[i] = (struct stopping){run, &run->apps[i]};
                fiber_go_flags(&scope, "stop", FIBER_BIG, stop_pair, &s[i]);
        }
        scope_join(&scope);
        process_end_orphans(ORPHANS_TIMEOUT_S);
        fiber_shield_end();
}

static void free_all(struct run *run)
{
        for (size_t i = 0; i < run->n; i++) {
                struct run_app *r = &run->apps[i];
                process_free(r->app);
                process_free(r->daprd);
                if (r->app_log)
                        fclose(r->app_log);
                if (r->daprd_log)
                        fclose(r->daprd_log);
        }
}

/* ---- waiting for an end ---- */

/* The first signal ends everything in order, a second one at once. Close together they are one: a terminal and a wrapper may both
 * tell us. */
static void on_signal(struct sig_watch *w, int signo)
{
        struct run *run = running;
        double now = loop_now_exact();
        if (!run->signo) {
                run->signo = signo;
                run->signalled_at = now;
                fiber_cancel(run->main);
                return;
        }
        if (now < run->signalled_at + SAME_SIGNAL_S)
                return;
        if (run->hurry)
                _exit(1); /* the kernel tells the children */
        run->hurry = true;
        run->signalled_at = now;
        for (size_t i = 0; i < run->n; i++) {
                process_signal_tree(run->apps[i].app, SIGKILL);
                process_signal(run->apps[i].daprd, SIGKILL);
        }
}

/* Over: one app has ended, or its sidecar; of a run file, as in the reference, only when nothing of it runs any more: sidecars stay when
 * their apps have ended, until a signal or `stop -f`. A lost sidecar ends its app. */
static bool is_over(struct run *run)
{
        size_t ended = 0;
        for (size_t i = 0; i < run->n; i++) {
                struct run_app *r = &run->apps[i];
                bool app_runs = r->app && !r->app->exited;
                tell_ends(run->a, r, false);
                if (r->several && r->daprd->exited && app_runs && !r->app_told_to_end) {
                        r->app_told_to_end = true;
                        process_signal_tree(r->app, SIGTERM);
                }
                if (r->several)
                        ended += r->daprd->exited && !app_runs;
                else
                        ended += r->daprd->exited || (r->app && !app_runs);
        }
        return ended == run->n;
}

/* Of the first app that failed; else 1 for a sidecar that did. */
static int exit_code(const struct run *run)
{
        bool lost = false;
        for (size_t i = 0; i < run->n; i++) {
                const struct run_app *r = &run->apps[i];
                if (r->app && r->app->exited && process_exit_code(r->app) != 0)
                        return process_exit_code(r->app);
                lost |= r->daprd && r->daprd->exited && process_exit_code(r->daprd) != 0;
        }
        return lost;
}

int run_apps(struct arena *a, struct run_app *apps, size_t n)
{
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        struct run run = {.a = a, .apps = apps, .n = n, .main = fiber_self()};
        bool failed = false;
        running = &run;
        cond_init(&run.changed);
        for (size_t i = 0; i < 3; i++)
                sig_watch_start(&run.watches[i], signals[i], on_signal);
        for (size_t i = 0; i < n; i++)
                apps[i].run = &run;
        for (size_t i = 0; i < n && !failed && !run.signo; i++)
                failed = start_pair(a, &apps[i]) != 0;
        while (!failed && !run.signo && !is_over(&run))
                if (cond_wait(&run.changed))
                        break;
        int code = run.signo ? 0 : failed ? 1 : exit_code(&run);
        if (run.signo)
                ui_say(UI_INFO, "\nterminated signal received: shutting down");
        stop_all(&run);
        for (size_t i = 0; i < 3; i++)
                sig_watch_stop(&run.watches[i]);
        free_all(&run);
        return code;
}
