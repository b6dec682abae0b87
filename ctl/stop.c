/*
 * `stop`: asks the `run` that holds an app to end, which stops app and sidecar; or the sidecar itself when it was started by hand
 * or shares its `run` with others. Then waits until it is gone, so that a port can be used again when we return.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "sdk/base/loop.h"

enum { GONE_TIMEOUT_S = 30 };
#define GONE_POLL_S 0.02

static const struct flag_row stop_rows[] = {
        {"app-id", FLAG_STRING, offsetof(struct stop_opts, app_id), "", "ID", "The application id to be stopped", .short_name = 'a'},
        {"run-file", FLAG_STRING, offsetof(struct stop_opts, run_file), "", "PATH", "Path to the run template file for the list of apps to stop", .short_name = 'f'},
        {"kubernetes", FLAG_BOOL, offsetof(struct stop_opts, kubernetes), "false", NULL, "Stop deployments in Kubernetes based on multi-app run file", .short_name = 'k'},
        CTL_GLOBAL_ROWS(stop_opts),
};
const struct flag_program stop_program = {
        .name = "dapr stop", .summary = "Stop Dapr instances and their associated apps", .usage = "dapr stop [flags] [APP-ID ...]",
        .examples = "  # Stop one app\n  dapr stop --app-id myapp\n\n  # Stop several\n  dapr stop myapp1 myapp2\n\n"
                    "  # Stop all apps of a run file\n  dapr stop --run-file dapr.yaml\n",
        .rows = stop_rows, .n_rows = sizeof(stop_rows) / sizeof(*stop_rows)};

/* The metadata names the process of `run`, but anybody may write metadata: it counts when that process started this daprd. */
static bool has_cli(const struct sidecar *s)
{
        return s->cli_pid > 1 && s->cli_pid == s->parent;
}

/* A descriptor keeps the process apart from a later one of the same number. */
static int terminate(int pid)
{
        int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0)
                return errno == ESRCH ? -1 : -errno;
        if (syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) != 0) {
                int e = errno;
                close(fd);
                return e == ESRCH ? -1 : -e;
        }
        return fd;
}

static bool wait_gone(int fd)
{
        double until = loop_now_exact() + GONE_TIMEOUT_S;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        while (poll(&p, 1, 0) == 0)
                if (loop_now_exact() > until || fiber_sleep(GONE_POLL_S) != 0)
                        return false;
        return true;
}

static int say_failed(const char *id, int pid, int err)
{
        ui_say(UI_FAILURE, "failed to stop app id %s: process %d: %s", id, pid, strerror(err));
        return 1;
}

static int stop_one(struct sidecars *all, const char *id)
{
        struct sidecar *s = sidecars_get(all, id);
        if (!s) {
                ui_say(UI_FAILURE, "failed to stop app id %s: couldn't find app id %s", id, id);
                return 1;
        }
        int sharing = 0;
        for (size_t i = 0; i < all->n; i++)
                sharing += all->v[i].cli_pid == s->cli_pid;
        int pid = has_cli(s) && sharing == 1 ? s->cli_pid : s->pid;
        int fd = terminate(pid);
        if (fd < -1)
                return say_failed(id, pid, -fd);
        s->cli_pid = 0; /* the next one of the same `run` may be its last */
        bool gone = fd == -1 || wait_gone(fd);
        if (fd >= 0)
                close(fd);
        if (gone)
                ui_say(UI_SUCCESS, "app stopped successfully: %s", id);
        else
                ui_say(UI_FAILURE, "failed to stop app id %s: process %d still runs after %d seconds", id, pid, GONE_TIMEOUT_S);
        return gone ? 0 : 1;
}

static int stop_run_file(struct arena *a, struct sidecars *all, const char *file)
{
        const char *path = path_run_file(a, file);
        for (size_t i = 0; path && i < all->n; i++) {
                struct sidecar *s = &all->v[i];
                if (strcmp(s->template_path, path) != 0 || !has_cli(s))
                        continue;
                int fd = terminate(s->cli_pid);
                bool gone = fd == -1 || (fd >= 0 && wait_gone(fd));
                if (fd >= 0)
                        close(fd);
                if (!gone) {
                        ui_say(UI_FAILURE, "Failed to stop Dapr and app processes: process %d: %s", s->cli_pid, fd < 0 ? strerror(-fd) : "it still runs");
                        return 1;
                }
                ui_say(UI_SUCCESS, "Dapr and app processes stopped successfully");
                return 0;
        }
        ui_say(UI_FAILURE, "Failed to stop Dapr and app processes: couldn't find apps with run file \"%s\"", path ? path : file);
        return 1;
}

int stop_run(void *opts, int argc, char **argv)
{
        struct stop_opts *o = opts;
        if (o->kubernetes)
                return kubernetes_refused("stop");
        if (!*o->app_id && !*o->run_file && argc == 0) {
                ui_say(UI_FAILURE, "Nothing to stop: name an app (dapr stop --app-id myapp) or a run file (dapr stop -f dapr.yaml).");
                return 1;
        }
        struct arena a;
        struct sidecars all;
        arena_init(&a, 0);
        int r = sidecars_find(&a, true, &all);
        if (r)
                ui_say(UI_FAILURE, "failed to get list of apps started by dapr: %s", strerror(-r));
        else if (*o->run_file)
                r = stop_run_file(&a, &all, o->run_file);
        else {
                if (*o->app_id)
                        r |= stop_one(&all, o->app_id);
                for (int i = 0; i < argc; i++)
                        r |= stop_one(&all, argv[i]);
        }
        arena_fini(&a);
        return r ? 1 : 0;
}
