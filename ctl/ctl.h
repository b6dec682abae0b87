/*
 * daprctl, installed as `dapr` too: runs apps with their sidecars, lists and stops them, and looks after plugins.
 * One row a command in main.c; each command is one file with its options struct, its flag rows and its run function.
 * A command runs on a fiber of the event loop: what waits, parks.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <sys/types.h>

#include "sdk/base/arena.h"
#include "sdk/base/flags.h"
#include "sdk/base/fiber.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define CTL_VERSION "0.1.0"
#define CTL_RUNTIME_VERSION "1.17.9"

struct command {
        const char *name;                  /* "run", "plugin list" */
        const struct flag_program *flags;
        size_t opts_size;
        int (*run)(void *opts, int argc, char **argv); /* argv: positional arguments. Returns the exit code. Parks. */
        bool hidden;
};
extern const struct command commands[];
extern const size_t n_commands;

/* ---- ui.c: what a person reads ---- */
enum ui_status { UI_SUCCESS, UI_FAILURE, UI_WARNING, UI_INFO, UI_PENDING };
void ui_setup(bool log_as_json);
bool ui_is_json_log(void);
bool ui_color(int fd); /* a terminal, and NO_COLOR is not set */
/* One line with the reference CLI's sign; failures and warnings of a command go to stderr. */
void ui_say(enum ui_status s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "-o": NULL or "" = table. Returns false after saying what is allowed. */
bool ui_output_ok(const char *o, bool yaml);

struct table { /* rows of text; column widths are computed at the end */
        struct arena arena;
        const char *const *header;
        size_t cols;
        const char ***rows;
        size_t n, cap;
};
void table_init(struct table *t, const char *const *header, size_t cols);
void table_add(struct table *t, const char *const *cells); /* copies */
void table_print(struct table *t, FILE *to);
void table_fini(struct table *t);

/* ---- paths.c ---- */
/* Install folder: --runtime-path, DAPR_RUNTIME_PATH, $HOME, each with /.dapr. In the arena; NULL when HOME is unknown. */
const char *path_dapr_dir(struct arena *a, const char *runtime_path);
/* A program: beside daprctl, in <dapr dir>/bin, in PATH. NULL if none. */
const char *path_program(struct arena *a, const char *runtime_path, const char *name);
const char *path_join(struct arena *a, const char *dir, const char *name);
const char *path_absolute(struct arena *a, const char *base, const char *path); /* expands ~/ */
bool path_exists(const char *path);
int path_mkdirs(const char *path); /* 0 or -errno */
/* Writes a new file; 0, -EEXIST (left alone unless overwrite) or -errno. */
int path_write(const char *path, struct str text, int mode, bool overwrite);

/* ---- sidecars.c: daprd processes of this machine ---- */
struct sidecar {
        const char *app_id;
        int http_port, grpc_port, app_port, pid, cli_pid, app_pid;
        bool metrics_enabled;
        int64_t max_body_size, read_buffer_size, created_s; /* Unix time */
        const char *socket;  /* folder of --unix-domain-socket, or NULL */
        const char *command, *template_path, *template_name, *app_log, *daprd_log;
        int uid;
};
struct sidecars {
        struct sidecar *v;
        size_t n;
};
/* All that are running, with what their metadata API tells (bounded time each). Parks. */
int sidecars_find(struct arena *a, struct sidecars *ret);
struct sidecar *sidecars_get(struct sidecars *s, const char *app_id);
/* One HTTP request to a sidecar's API; token from DAPR_API_TOKEN. 0 and status + body, or -errno. Parks, at most timeout_s. */
int sidecar_http(struct arena *a, const struct sidecar *s, const char *method, const char *path, struct str body, double timeout_s,
                 int *status, struct str *ret);

/* ---- process.c: children ---- */
struct process {
        pid_t pid;
        int pidfd;
        const char *label;              /* for messages */
        bool exited;
        int status;                     /* waitpid's, once exited */
        struct cond done;
        void *impl;
};
/* A line of a child's output, without its end. */
typedef void (*process_line_fn)(void *arg, struct str line, bool is_stderr);
struct process_options {
        const char *dir;                /* NULL = ours */
        char **env;                     /* NULL = ours */
        process_line_fn on_line;        /* NULL = the child has our stdout and stderr */
        void *arg;
        bool own_group;                 /* signals of the terminal do not reach it */
        bool die_with_us;
};
/* Starts argv[0] (looked up in PATH). 0 and *ret, or -errno. */
int process_start(struct process **ret, char *const *argv, const struct process_options *o);
void process_signal(struct process *p, int signo);
/* Parks until it has exited and its output was read; 0 or -ETIMEDOUT. timeout < 0: no limit. */
int process_wait(struct process *p, double timeout_s);
int process_exit_code(const struct process *p); /* 128 + signal when killed */
const char *process_exit_text(const struct process *p, struct arena *a);
void process_free(struct process *p);

#endif
