/* One app with its sidecar, as `run` starts it; runfile.c makes several from a run file. */
#ifndef CTL_RUN_H
#define CTL_RUN_H

#include "ctl/commands.h"

enum log_dest { DEST_CONSOLE = 1, DEST_FILE = 2 }; /* bits */

struct run_app {
        struct run_opts o;
        const char *dir;              /* working directory, NULL = ours */
        char **command;               /* NULL = sidecar only */
        const char **env;             /* extra NAME=value pairs */
        size_t n_env;
        const char *const *resources;
        size_t n_resources;
        bool placement_set, scheduler_set; /* the flags were given: "" disables */
        int app_dest, daprd_dest;
        const char *template_path, *template_name; /* NULL for a single run */
        const char *app_log_path, *daprd_log_path;
        /* while it runs */
        FILE *app_log, *daprd_log;
        struct process *daprd, *app;
        bool several;                 /* prefix lines with the app's id */
};
/* Fills what is open (ports, id, paths) and checks; 0, or says what is wrong and returns 1. Parks. */
int run_app_prepare(struct arena *a, struct run_app *r);
/* Starts sidecar and app and waits until both are there. 0, or says why not and returns 1 (what was started is left for stop). */
int run_app_start(struct arena *a, struct run_app *r);
/* Stops app, then sidecar; escalates to SIGKILL. Parks. */
void run_app_stop(struct arena *a, struct run_app *r, int signo);
void run_app_fini(struct run_app *r);

/* -f: reads the run file into apps. 0, or says what is wrong and returns 1. Parks. */
int runfile_read(struct arena *a, const struct run_opts *o, struct run_app **ret, size_t *n);

/* Runs apps until all have ended or a signal comes. Returns the exit code. */
int run_apps(struct arena *a, struct run_app *apps, size_t n);

#endif
