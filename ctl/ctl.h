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

/* The release of the reference CLI whose commands and flags this one takes: scripts compare it. */
#define CTL_VERSION "1.17.1"

/* First member of every command's options. */
struct ctl_globals {
        const char *runtime_path;
        bool log_as_json;
};
#define CTL_GLOBAL_ROWS(opts)                                                                                                    \
        {"runtime-path", FLAG_STRING, offsetof(struct opts, globals.runtime_path), "", "DIR",                                     \
         "The path to the dapr runtime installation directory"},                                                                  \
        {"log-as-json", FLAG_BOOL, offsetof(struct opts, globals.log_as_json), "false", NULL, "Log output in JSON format"}

struct command {
        const char *name;                  /* "run", "plugin list" */
        const struct flag_program *flags;
        size_t opts_size;                  /* the struct begins with struct ctl_globals */
        int (*run)(void *opts, int argc, char **argv); /* argv: positional arguments. Returns the exit code. Parks. */
};
extern const struct command commands[];
extern const size_t n_commands;

/* ---- ui.c: what a person reads ---- */
enum ui_status { UI_SUCCESS, UI_FAILURE, UI_WARNING, UI_INFO, UI_PENDING };
void ui_setup(bool log_as_json);
bool ui_is_json_log(void);
bool ui_color(int fd); /* a terminal, and NO_COLOR is not set */
/* One line with the reference CLI's sign; failures and warnings of a command go to stderr. A line that nobody takes within a
 * second is dropped: a stopped terminal must not keep a command from ending. */
void ui_say(enum ui_status s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Would a write to the descriptor go through at once? */
bool ui_can_write(int fd);
/* "-o": NULL or "" = table. Returns false after saying what is allowed. */
bool ui_output_ok(const char *o, bool yaml);
bool ui_is_json(const char *o);
const char *ui_age(struct arena *a, int64_t seconds);   /* 5s, 3m, 2h, 4d as the reference prints ages */
const char *ui_bytes(struct arena *a, int64_t bytes);   /* 1.4 MiB; "" below zero */
void ui_print_json(const struct buf *b);                /* and a line end */

struct table { /* rows of text; column widths are computed at the end; columns without any text are left out */
        struct arena arena;
        const char *const *header;
        size_t cols;
        const char ***rows;
        size_t n, cap;
        /* Escape sequence for a cell on a terminal, or NULL. May be NULL. */
        const char *(*color)(size_t col, const char *text);
};
void table_init(struct table *t, const char *const *header, size_t cols);
void table_add(struct table *t, const char *const *cells); /* copies */
void table_print(struct table *t, FILE *to);               /* on a terminal the widest columns and the last one are cut to fit */
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
const char *path_run_file(struct arena *a, const char *path); /* absolute; dapr.yaml in it when it is a folder; NULL + errno */
/* Writes a new file; 0, -EEXIST (left alone unless overwrite) or -errno. */
int path_write(const char *path, struct str text, int mode, bool overwrite);

/* ---- sidecars.c: daprd processes of this machine ---- */
struct sidecar {
        const char *app_id, *host;   /* host: where its API listens, for 127.0.0.1 and all interfaces "127.0.0.1" */
        int http_port, grpc_port, app_port, pid, parent, cli_pid, app_pid;
        bool metrics_enabled;
        int64_t max_body_size, read_buffer_size, created_s; /* Unix time */
        const char *socket;  /* folder of --unix-domain-socket, or NULL */
        const char *command, *template_path, *template_name, *app_log, *daprd_log;
        int uid;
        unsigned long long start_ticks; /* tells it from a later process of the same number */
};
struct sidecars {
        struct sidecar *v;
        size_t n;
};
/* All that are running; metadata: with what their metadata API tells (all are asked at once, bounded time). Parks. */
int sidecars_find(struct arena *a, bool metadata, struct sidecars *ret);
struct sidecar *sidecars_get(struct sidecars *s, const char *app_id);
bool sidecar_runs(const struct sidecar *s);
/* The host part for --dapr-listen-addresses. */
const char *sidecar_host(struct arena *a, const char *listen_addresses);
/* One HTTP request to a sidecar's API; token from DAPR_API_TOKEN. 0 and status + body, or -errno. Parks, at most timeout_s. */
int sidecar_http(struct arena *a, const struct sidecar *s, const char *method, const char *path, struct str body, double timeout_s,
                 int *status, struct str *ret);
/* The same with a content type. */
struct sidecar_request {
        const char *method, *path, *content_type;
        struct str body;
        double timeout_s;
};
int sidecar_send(struct arena *a, const struct sidecar *s, const struct sidecar_request *req, int *status, struct str *ret);
/* The same to the control socket, which tells about plugins. -ENOENT: there is no socket that answers. */
int sidecar_control(struct arena *a, const struct sidecar *s, const char *method, const char *path, double timeout_s, int *status,
                    struct str *ret);
int sidecar_control_send(struct arena *a, const struct sidecar *s, const struct sidecar_request *req, int *status, struct str *ret);
int64_t process_started_s(int pid); /* Unix time; 0 = no such process */

/* ---- process.c: children ---- */
struct process {
        pid_t pid;
        bool exited;                    /* and its output was read */
        int status;                     /* waitpid's, once exited */
        struct cond done;
};
struct process_options {
        const char *dir;                /* NULL = ours */
        char **env;                     /* NULL = ours */
        /* Called with each line of its output, without the end. NULL = the child has our stdout and stderr. */
        void (*on_line)(void *arg, struct str line, bool is_stderr);
        /* Asked before each line; false: later, and meanwhile nothing is read. NULL = always. */
        bool (*can_take)(void *arg, bool is_stderr);
        void (*on_exit)(void *arg);     /* on the loop's stack; may be NULL */
        void *arg;
        bool terminal;                  /* where ours is a terminal, its output is one too */
        bool own_group;                 /* signals of the terminal do not reach it */
        bool no_stdin;
};
/* Starts argv[0] (looked up in PATH); it gets SIGTERM when we die. 0 and *ret, or -errno. */
int process_start(struct process **ret, char *const *argv, const struct process_options *o);
void process_signal(struct process *p, int signo);
/* The same to all that it has started, too, as far as they are in our session (a daemon of its own session is left alone). */
void process_signal_tree(struct process *p, int signo);
/* Ends what children that are gone have left behind in our session: SIGTERM, then SIGKILL. Parks at most timeout_s. */
void process_end_orphans(double timeout_s);
/* Parks until it has exited and its output was read; 0 or -ETIMEDOUT. timeout < 0: no limit. */
int process_wait(struct process *p, double timeout_s);
int process_exit_code(const struct process *p); /* 128 + signal when killed */
const char *process_exit_text(const struct process *p, struct arena *a);
void process_free(struct process *p);           /* NULL is fine; it must have exited, else it is left running */
/* Runs a command to its end, at most timeout_s, and gives the first line that it prints. 0, -errno, -ETIMEDOUT. Parks. */
int process_first_line(struct arena *a, char *const *argv, double timeout_s, const char **ret);

#endif
