/* `list`: the sidecars that run on this machine. Columns and JSON members as the reference CLI has them. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "ctl/commands.h"

/* ---- list ---- */

static const struct flag_row list_rows[] = {
        {"output", FLAG_STRING, offsetof(struct list_opts, output), "", "FORMAT", "The output format of the list: json, yaml, or table (default)", .short_name = 'o'},
        {"kubernetes", FLAG_BOOL, offsetof(struct list_opts, kubernetes), "false", NULL, "List all Dapr pods in a Kubernetes cluster", .short_name = 'k'},
        {"all-namespaces", FLAG_BOOL, offsetof(struct list_opts, all_namespaces), "false", NULL, "", FLAG_HIDDEN, .short_name = 'A'},
        {"namespace", FLAG_STRING, offsetof(struct list_opts, namespace_), "", "NAME", "", FLAG_HIDDEN},
        CTL_GLOBAL_ROWS(list_opts),
};
const struct flag_program list_program = {
        .name = "dapr list", .summary = "List all Dapr instances", .usage = "dapr list [flags]",
        .examples = "  # List Dapr instances\n  dapr list\n\n  # The same for scripts\n  dapr list -o json\n",
        .rows = list_rows, .n_rows = sizeof(list_rows) / sizeof(*list_rows)};

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
                {"age", "AGE", ui_age(a, time(NULL) - s->created_s), CELL_TEXT},
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
        ui_print_json(&b);
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
        int r = sidecars_find(&a, true, &all);
        if (r)
                ui_say(UI_FAILURE, "Could not read the process table: %s", strerror(-r));
        else if (ui_is_json(o->output))
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
