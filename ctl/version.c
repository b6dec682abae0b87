/* `version`: ours, and that of the daprd which `run` would start. */
#include <stdio.h>

#include "ctl/commands.h"

static const struct flag_row version_rows[] = {
        {"output", FLAG_STRING, offsetof(struct version_opts, output), "", "FORMAT", "The output format: json, or text (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(version_opts),
};
const struct flag_program version_program = {
        .name = "dapr version", .summary = "Print the Dapr runtime and CLI version", .usage = "dapr version [flags]",
        .examples = "  dapr version --output json\n", .rows = version_rows, .n_rows = sizeof(version_rows) / sizeof(*version_rows)};

static const char *runtime_version(struct arena *a, const char *runtime_path)
{
        const char *daprd = path_program(a, runtime_path, "daprd"), *line = NULL;
        char *argv[] = {(char *)daprd, "--version", NULL};
        return daprd && process_first_line(a, argv, 5, &line) == 0 && line ? line : "n/a";
}

int version_run(void *opts, int argc, char **argv)
{
        struct version_opts *o = opts;
        if (*o->output && !ui_is_json(o->output)) {
                ui_say(UI_FAILURE, "An invalid output format was specified: \"%s\". The valid value is: json.", o->output);
                return 1;
        }
        struct arena a;
        arena_init(&a, 0);
        const char *runtime = runtime_version(&a, o->globals.runtime_path);
        if (*o->output) {
                struct buf b = {0};
                struct json_writer w;
                json_write_init(&w, &b);
                json_object_begin(&w);
                json_kv(&w, "Cli version", STR(CTL_VERSION));
                json_kv(&w, "Runtime version", str_of(runtime));
                json_object_end(&w);
                ui_print_json(&b);
                buf_fini(&b);
        } else
                printf("CLI version: %s \nRuntime version: %s\n", CTL_VERSION, runtime);
        arena_fini(&a);
        return 0;
}
