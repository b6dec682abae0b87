/* `list` and `stop`: the sidecars that run on this machine. Columns and JSON members as the reference CLI has them. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ctl/commands.h"

/* ---- list ---- */

static const struct flag_row list_rows[] = {
        {"output", FLAG_STRING, offsetof(struct list_opts, output), "", "FORMAT", "The output format of the list: json, yaml, or table (default)", .short_name = 'o'},
        {"kubernetes", FLAG_BOOL, offsetof(struct list_opts, kubernetes), "false", NULL, "List all Dapr pods in a Kubernetes cluster", .short_name = 'k'},
};
const struct flag_program list_program = {
        .name = "dapr list", .summary = "List all Dapr instances", .usage = "dapr list [flags]",
        .examples = "  # List Dapr instances\n  dapr list\n\n  # The same for scripts\n  dapr list -o json\n",
        .rows = list_rows, .n_rows = sizeof(list_rows) / sizeof(*list_rows)};

static const char *age_text(struct arena *a, int64_t since)
{
        int64_t s = time(NULL) - since;
        if (s <= 60)
                return arena_printf(a, "%llds", (long long)(s < 0 ? 0 : s));
        if (s <= 3600)
                return arena_printf(a, "%lldm", (long long)(s / 60));
        return s <= 86400 ? arena_printf(a, "%lldh", (long long)(s / 3600)) : arena_printf(a, "%lldd", (long long)(s / 86400));
}

static const char *created_text(struct arena *a, int64_t at)
{
        char b[64];
        struct tm tm;
        time_t t = at;
        localtime_r(&t, &tm);
        strftime(b, sizeof(b), "%Y-%m-%d %H:%M.%S", &tm);
        return arena_strdup(a, str_of(b));
}

/* The row's values once, for all three forms. */
struct cell {
        const char *key, *column; /* column NULL = not in the table */
        const char *text;
        enum { CELL_TEXT, CELL_INT, CELL_BOOL } kind;
};
enum { LIST_CELLS = 18 };

static void cells_of(struct arena *a, const struct sidecar *s, struct cell *c)
{
        const char *command = strlen(s->command) > 20 ? arena_printf(a, "%.17s...", s->command) : s->command;
#define INT(v) arena_printf(a, "%lld", (long long)(v))
        const struct cell v[LIST_CELLS] = {
                {"appId", "APP ID", s->app_id, CELL_TEXT},
                {"httpPort", "HTTP PORT", INT(s->http_port), CELL_INT},
                {"grpcPort", "GRPC PORT", INT(s->grpc_port), CELL_INT},
                {"appPort", "APP PORT", INT(s->app_port), CELL_INT},
                {"metricsEnabled", NULL, s->metrics_enabled ? "true" : "false", CELL_BOOL},
                {"command", "COMMAND", command, CELL_TEXT},
                {"age", "AGE", age_text(a, s->created_s), CELL_TEXT},
                {"created", "CREATED", created_text(a, s->created_s), CELL_TEXT},
                {"daprdPid", "DAPRD PID", INT(s->pid), CELL_INT},
                {"cliPid", "CLI PID", INT(s->cli_pid), CELL_INT},
                {"appPid", "APP PID", INT(s->app_pid), CELL_INT},
                {"maxRequestBodySize", NULL, INT(s->max_body_size), CELL_INT},
                {"httpReadBufferSize", NULL, INT(s->read_buffer_size), CELL_INT},
                {"runTemplatePath", "RUN_TEMPLATE_PATH", s->template_path, CELL_TEXT},
                {"appLogPath", "APP_LOG_PATH", s->app_log, CELL_TEXT},
                {"daprdLogPath", "DAPRD_LOG_PATH", s->daprd_log, CELL_TEXT},
                {"runTemplateName", NULL, s->template_name, CELL_TEXT},
                {0},
        };
#undef INT
        memcpy(c, v, sizeof(v));
}

static void print_list_json(struct arena *a, const struct sidecars *all)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < all->n; i++) {
                struct cell c[LIST_CELLS];
                cells_of(a, &all->v[i], c);
                json_object_begin(&w);
                for (struct cell *x = c; x->key; x++) {
                        if (x->kind == CELL_TEXT)
                                json_kv(&w, x->key, str_of(x->text));
                        else {
                                json_key(&w, str_of(x->key));
                                json_raw(&w, str_of(x->text));
                        }
                }
                json_object_end(&w);
        }
        json_array_end(&w);
        printf("%.*s\n", STR_FMT(buf_str(&b)));
        buf_fini(&b);
}

static void print_list_yaml(struct arena *a, const struct sidecars *all)
{
        if (all->n == 0)
                printf("[]\n");
        for (size_t i = 0; i < all->n; i++) {
                struct cell c[LIST_CELLS];
                cells_of(a, &all->v[i], c);
                for (struct cell *x = c; x->key; x++) {
                        struct buf b = {0};
                        struct json_writer w;
                        json_write_init(&w, &b); /* a JSON string is a YAML string */
                        if (x->kind == CELL_TEXT)
                                json_string(&w, str_of(x->text));
                        else
                                json_raw(&w, str_of(x->text));
                        printf("%s%s: %.*s\n", x == c ? "- " : "  ", x->key, STR_FMT(buf_str(&b)));
                        buf_fini(&b);
                }
        }
}

static void print_list_table(struct arena *a, const struct sidecars *all)
{
        const char *header[LIST_CELLS], *row[LIST_CELLS];
        struct cell c[LIST_CELLS];
        struct table t;
        size_t cols = 0;
        cells_of(a, &(struct sidecar){.app_id = "", .command = "", .template_path = "", .app_log = "", .daprd_log = "", .template_name = ""}, c);
        for (struct cell *x = c; x->key; x++)
                if (x->column)
                        header[cols++] = x->column;
        table_init(&t, header, cols);
        for (size_t i = 0; i < all->n; i++) {
                cells_of(a, &all->v[i], c);
                size_t n = 0;
                for (struct cell *x = c; x->key; x++)
                        if (x->column)
                                row[n++] = x->text;
                table_add(&t, row);
        }
        table_print(&t, stdout);
        table_fini(&t);
}

int list_run(void *opts, int argc, char **argv)
{
        struct list_opts *o = opts;
        if (!ui_output_ok(o->output, true))
                return 1;
        if (o->kubernetes)
                return kubernetes_refused("list");
        struct arena a;
        struct sidecars all;
        arena_init(&a, 0);
        int r = sidecars_find(&a, &all);
        if (r)
                ui_say(UI_FAILURE, "Could not read the process table: %s", strerror(-r));
        else if (strcmp(o->output, "json") == 0)
                print_list_json(&a, &all);
        else if (strcmp(o->output, "yaml") == 0)
                print_list_yaml(&a, &all);
        else if (all.n == 0)
                printf("No Dapr instances found.\n");
        else
                print_list_table(&a, &all);
        arena_fini(&a);
        return r ? 1 : 0;
}

/* ---- stop ---- */

static const struct flag_row stop_rows[] = {
        {"app-id", FLAG_STRING, offsetof(struct stop_opts, app_id), "", "ID", "The application id to be stopped", .short_name = 'a'},
        {"run-file", FLAG_STRING, offsetof(struct stop_opts, run_file), "", "PATH", "Path to the run template file for the list of apps to stop", .short_name = 'f'},
        {"kubernetes", FLAG_BOOL, offsetof(struct stop_opts, kubernetes), "false", NULL, "Stop deployments in Kubernetes based on multi-app run file", .short_name = 'k'},
};
const struct flag_program stop_program = {
        .name = "dapr stop", .summary = "Stop Dapr instances and their associated apps", .usage = "dapr stop [flags] [APP-ID ...]",
        .examples = "  # Stop one app\n  dapr stop --app-id myapp\n\n  # Stop several\n  dapr stop myapp1 myapp2\n\n"
                    "  # Stop all apps of a run file\n  dapr stop --run-file dapr.yaml\n",
        .rows = stop_rows, .n_rows = sizeof(stop_rows) / sizeof(*stop_rows)};

/* Signals the CLI process that runs the app (which stops both), or the sidecar when it was started by hand or shares its CLI. */
static int stop_one(struct sidecars *all, const char *id)
{
        struct sidecar *s = sidecars_get(all, id);
        if (!s) {
                ui_say(UI_FAILURE, "failed to stop app id %s: couldn't find app id %s", id, id);
                return 1;
        }
        int shared = 0;
        for (size_t i = 0; i < all->n; i++)
                shared += s->cli_pid && all->v[i].cli_pid == s->cli_pid;
        int pid = s->cli_pid == 0 || shared > 1 ? s->pid : s->cli_pid;
        if (kill(pid, SIGTERM) != 0) {
                ui_say(UI_FAILURE, "failed to stop app id %s: process %d: %s", id, pid, strerror(errno));
                return 1;
        }
        if (pid == s->pid)
                s->cli_pid = 0;
        ui_say(UI_SUCCESS, "app stopped successfully: %s", id);
        return 0;
}

static int stop_run_file(struct arena *a, struct sidecars *all, const char *file)
{
        char *real = realpath(file, NULL);
        for (size_t i = 0; i < all->n; i++)
                if (real && all->v[i].cli_pid && strcmp(all->v[i].template_path, real) == 0) {
                        int r = kill(all->v[i].cli_pid, SIGTERM);
                        free(real);
                        if (r != 0 && errno != ESRCH) {
                                ui_say(UI_FAILURE, "Failed to stop apps of %s: %s", file, strerror(errno));
                                return 1;
                        }
                        ui_say(UI_SUCCESS, "Dapr and app processes stopped successfully");
                        return 0;
                }
        free(real);
        ui_say(UI_FAILURE, "couldn't find apps with run file \"%s\"", file);
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
        int r = sidecars_find(&a, &all) != 0;
        if (!r && *o->run_file)
                r = stop_run_file(&a, &all, o->run_file);
        else if (!r) {
                if (*o->app_id)
                        r |= stop_one(&all, o->app_id);
                for (int i = 0; i < argc; i++)
                        r |= stop_one(&all, argv[i]);
        }
        arena_fini(&a);
        return r;
}
