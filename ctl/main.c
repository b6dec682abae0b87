/* daprctl: argv -> command -> flags -> one fiber that runs it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"

static void usage(FILE *to, const char *group)
{
        bool color = ui_color(fileno(to));
        const char *b = color ? "\033[1m" : "", *e = color ? "\033[0m" : "";
        fprintf(to, "Runs apps with their Dapr sidecars and looks after plugins.\n\n%sUsage%s\n  dapr %sCOMMAND [flags]\n\n%sCommands%s\n", b, e,
                group ? group : "", b, e);
        for (size_t i = 0; i < n_commands; i++)
                if (!group || strncmp(commands[i].name, group, strlen(group)) == 0)
                        fprintf(to, "  %-20s %s\n", commands[i].name, commands[i].flags->summary);
        if (!group)
                fprintf(to, "\n%sExamples%s\n  dapr init\n  dapr run --app-id myapp --app-port 3000 -- node app.js\n  dapr list -o json\n"
                            "  dapr plugin list --app-id myapp\n", b, e);
        fprintf(to, "\nEach command has --help.\n");
}

/* Words of the command's name that stand at argv[0..]; NULL when there is none. *used: how many. */
static const struct command *find_command(int argc, char **argv, int *used)
{
        for (size_t i = 0; i < n_commands; i++) {
                struct str rest = str_of(commands[i].name);
                int n = 0;
                bool same = true;
                while (rest.p && same) {
                        struct str word = str_cut(&rest, ' ');
                        same = n < argc && str_eqz(word, argv[n]);
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
        ui_setup(((struct ctl_globals *)j.opts)->log_as_json);
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

/* Global flags may stand before the command: how many arguments they are. A failure to come is told as JSON when asked for. */
static int leading_flags(int argc, char **argv)
{
        int n = 0;
        for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
                if (strcmp(argv[i], "--log-as-json") == 0)
                        ui_setup(true);
        while (1 + n < argc && (strncmp(argv[1 + n], "--log-as-json", 13) == 0 || strncmp(argv[1 + n], "--runtime-path", 14) == 0))
                n += strcmp(argv[1 + n], "--runtime-path") == 0 && 2 + n < argc ? 2 : 1;
        return n;
}

static bool is_help(const char *word)
{
        return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

static int unknown(int argc, char **argv)
{
        const char *group = strcmp(argv[0], "plugin") == 0 ? "plugin " : strcmp(argv[0], "subscription") == 0 ? "subscription " : NULL;
        if (group && (argc == 1 || is_help(argv[1]))) {
                usage(stdout, group);
                return 0;
        }
        if (argv[0][0] == '-')
                ui_say(UI_FAILURE, "unknown flag: %s", argv[0]);
        else
                ui_say(UI_FAILURE, "unknown command \"%s%s%s\" for \"dapr\"", argv[0], group ? " " : "", group ? argv[1] : "");
        usage(stderr, group);
        return 1;
}

/* dapr [global flags] WORDS... -> argv of one command, its name in [0], the global flags behind it. */
static int dispatch(int argc, char **argv)
{
        int lead = leading_flags(argc, argv), used = 0;
        char **words = argv + 1 + lead;
        int n = argc - 1 - lead;
        if (n == 0 || (n == 1 && is_help(words[0]))) {
                usage(stdout, NULL);
                return 0;
        }
        if (strcmp(words[0], "--version") == 0 || strcmp(words[0], "-v") == 0)
                words[0] = "version";
        static char help[] = "--help";
        bool ask = is_help(words[0]);
        if (ask) { /* help run */
                words++;
                n--;
        }
        const struct command *c = find_command(n, words, &used);
        if (!c)
                return unknown(n, words);
        char **rest = calloc((size_t)argc + 2, sizeof(*rest));
        int k = 0;
        if (!rest)
                return 1;
        rest[k++] = argv[0];
        for (int i = 0; i < lead; i++)
                rest[k++] = argv[1 + i];
        if (ask)
                rest[k++] = help;
        for (int i = used; i < n; i++)
                rest[k++] = words[i];
        int code = run_command(c, k, rest);
        free(rest);
        return code;
}

int main(int argc, char **argv)
{
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_IGN);
        int code = dispatch(argc, argv);
        if (fflush(stdout) != 0 && code == 0)
                code = 1;
        return code;
}
