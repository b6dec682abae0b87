/* One app with its sidecar, as `run` starts it; runfile.c makes several from a run file. */
#ifndef CTL_RUN_H
#define CTL_RUN_H

#include "ctl/commands.h"

enum log_dest { DEST_CONSOLE = 1, DEST_FILE = 2 }; /* bits */

struct run_app {
        struct run_opts o;
        const char *dir;              /* working directory, NULL = ours */
        char **command;               /* NULL = sidecar only */
        const char **env;             /* extra NAME=value pairs for the app */
        size_t n_env;
        const char *const *resources;
        size_t n_resources;
        int app_dest, daprd_dest;
        bool several;                 /* of a run file: lines are marked with the app's id */
        const char *template_path, *template_name; /* NULL for a single run */
        const char *log_dir, *app_log_path, *daprd_log_path;
        /* while it runs */
        FILE *app_log, *daprd_log;
        struct process *daprd, *app;
        bool daprd_told, app_told;    /* their end was told */
        bool app_told_to_end;
        struct run *run;
};

/* run_args.c */
/* Fills what is open (ports, id, paths) and checks; 0, or says what is wrong and returns 1. Parks. */
int run_app_prepare(struct arena *a, struct run_app *r);
char **run_daprd_args(struct arena *a, const struct run_app *r, const char *program); /* NULL = no memory */
char **run_app_env(struct arena *a, const struct run_app *r);
char **run_daprd_env(struct arena *a, const struct run_app *r);

/* runfile.c: -f. Reads the run file into apps; defaults: options without any flag. 0, or says what is wrong and returns 1. */
int runfile_read(struct arena *a, const char *file, const struct run_opts *defaults, struct run_app **ret, size_t *n);

/* run_life.c: runs apps until all have ended or a signal comes. Returns the exit code: an app's; 1 when a sidecar was lost or
 * something could not start; 0 after a signal. Parks. */
int run_apps(struct arena *a, struct run_app *apps, size_t n);

#endif
