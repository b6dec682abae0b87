/* daprctl: argv -> command -> flags -> one fiber that runs it. The table below is all there is; help and completion read it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"

#define ROW(n, id, hide) {n, &id##_program, sizeof(struct id##_opts), id##_run, hide}
const struct command commands[] = {
        ROW("init", init, false),
        ROW("run", run, false),
        ROW("list", list, false),
        ROW("stop", stop, false),
        ROW("plugin list", plugin_list, false),
        ROW("plugin info", plugin_info, false),
        ROW("plugin logs", plugin_logs, false),
        ROW("plugin new", plugin_new, false),
        ROW("version", version, false),
        ROW("completion", completion, false),
        ROW("uninstall", uninstall, false),
};
#undef ROW
const size_t n_commands = sizeof(commands) / sizeof(*commands);

/* ---- version ---- */
static const struct flag_row version_rows[] = {
        {"output", FLAG_STRING, offsetof(struct version_opts, output), "", "FORMAT", "The output format: json, or text (default)", .short_name = 'o'},
};
const struct flag_program version_program = {
        .name = "dapr version", .summary = "Print the Dapr runtime and CLI version", .usage = "dapr version [flags]",
        .examples = "  dapr version --output json\n", .rows = version_rows, .n_rows = 1};

int version_run(void *opts, int argc, char **argv)
{
        struct version_opts *o = opts;
        if (strcmp(o->output, "json") == 0)
                printf("{\"Cli version\":\"%s\",\"Runtime version\":\"%s\"}\n", CTL_VERSION, CTL_RUNTIME_VERSION);
        else if (!*o->output)
                printf("CLI version: %s \nRuntime version: %s\n", CTL_VERSION, CTL_RUNTIME_VERSION);
        else {
                ui_say(UI_FAILURE, "An invalid output format was specified: \"%s\". The valid value is: json.", o->output);
                return 1;
        }
        return 0;
}

static void usage(FILE *to)
{
        bool color = ui_color(fileno(to));
        const char *b = color ? "\033[1m" : "", *e = color ? "\033[0m" : "";
        fprintf(to, "Runs apps with their Dapr sidecars and looks after plugins.\n\n%sUsage%s\n  dapr COMMAND [flags]\n\n%sCommands%s\n", b, e, b, e);
        for (size_t i = 0; i < n_commands; i++)
                if (!commands[i].hidden)
                        fprintf(to, "  %-14s %s\n", commands[i].name, commands[i].flags->summary);
        fprintf(to, "\n%sExamples%s\n  dapr init\n  dapr run --app-id myapp --app-port 3000 -- node app.js\n  dapr list -o json\n"
                    "  dapr plugin list --app-id myapp\n\nEach command has --help.\n", b, e);
}

/* Words of the command's name that stand at argv[1..]; NULL when there is none. *used: how many. */
static const struct command *find_command(int argc, char **argv, int *used)
{
        for (size_t i = 0; i < n_commands; i++) {
                struct str rest = str_of(commands[i].name);
                int n = 0;
                bool same = true;
                while (rest.p && same) {
                        struct str word = str_cut(&rest, ' ');
                        same = n + 1 < argc && str_eqz(word, argv[n + 1]);
                        n++;
                }
                if (same) {
                        *used = n;
                        return &commands[i];
                }
        }
        return NULL;
}

struct job {
        const struct command *c;
        void *opts;
        int argc, code;
        char **argv;
};

static void run_job(void *arg)
{
        struct job *j = arg;
        j->code = j->c->run(j->opts, j->argc, j->argv);
        loop_stop();
}

static int run_command(const struct command *c, int argc, char **argv)
{
        char err[512];
        struct job j = {.c = c, .opts = calloc(1, c->opts_size), .argv = argv + 1};
        if (!j.opts)
                return 1;
        int n = flags_parse(c->flags, j.opts, argc, argv, err, sizeof(err));
        if (n < 0) {
                if (n != -ECANCELED)
                        ui_say(UI_FAILURE, "%s", err);
                free(j.opts);
                return n == -ECANCELED ? 0 : 1;
        }
        j.argc = n;
        struct scope scope;
        scope_init(&scope);
        if (loop_init() != 0 || fiber_go_flags(&scope, c->name, FIBER_BIG, run_job, &j) != 0) {
                ui_say(UI_FAILURE, "Could not start: out of memory or descriptors");
                return 1;
        }
        loop_run();
        flags_free(c->flags, j.opts);
        free(j.opts);
        work_fini();
        loop_fini();
        return j.code;
}

/* --log-as-json may stand before or after the command, as in the reference. */
static int take_json_flag(int argc, char **argv)
{
        int n = 1;
        bool json = false;
        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--") == 0) {
                        while (i < argc)
                                argv[n++] = argv[i++];
                        break;
                }
                if (strcmp(argv[i], "--log-as-json") == 0 || strcmp(argv[i], "--log-as-json=true") == 0)
                        json = true;
                else
                        argv[n++] = argv[i];
        }
        argv[n] = NULL;
        ui_setup(json);
        return n;
}

int main(int argc, char **argv)
{
        signal(SIGPIPE, SIG_IGN);
        argc = take_json_flag(argc, argv);
        if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
                usage(stdout);
                return 0;
        }
        if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-v") == 0)
                return version_run(&(struct version_opts){.output = ""}, 0, NULL);
        int used = 0;
        const struct command *c = find_command(argc, argv, &used);
        if (!c) {
                fprintf(stderr, "There is no command \"%s%s%s\".\n\n", argv[1], argc > 2 && strcmp(argv[1], "plugin") == 0 ? " " : "",
                        argc > 2 && strcmp(argv[1], "plugin") == 0 ? argv[2] : "");
                usage(stderr);
                return 1;
        }
        return run_command(c, argc - used, argv + used);
}
