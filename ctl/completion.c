/* `completion`: a script for bash, zsh or fish that knows every command and flag of the table. */
#include <stdio.h>

#include "ctl/commands.h"

const struct flag_program completion_program = {
        .name = "dapr completion", .summary = "Print a shell completion script", .usage = "dapr completion bash|zsh|fish",
        .examples = "  # bash: for this shell\n  source <(dapr completion bash)\n\n  # zsh: for every shell\n"
                    "  dapr completion zsh > \"${fpath[1]}/_dapr\"\n\n  # fish\n  dapr completion fish > ~/.config/fish/completions/dapr.fish\n"};

static void print_flags(const struct flag_program *p)
{
        for (size_t i = 0; i < p->n_rows; i++)
                if (!(p->rows[i].attr & FLAG_HIDDEN) && p->rows[i].kind != FLAG_GROUP)
                        printf("--%s ", p->rows[i].name);
        printf("--help");
}

static void print_bash(void)
{
        printf("_dapr() {\n  local cur=\"${COMP_WORDS[COMP_CWORD]}\" cmd=\"${COMP_WORDS[1]}\"\n"
               "  [ \"$cmd\" = plugin ] && [ \"$COMP_CWORD\" -gt 2 ] && cmd=\"plugin ${COMP_WORDS[2]}\"\n  local words=\n"
               "  if [ \"$COMP_CWORD\" = 1 ]; then words=\"");
        const char *last = "";
        for (size_t i = 0; i < n_commands; i++) {
                struct str rest = str_of(commands[i].name), word = str_cut(&rest, ' ');
                if (!str_eqz(word, last) && !(rest.p && strncmp(last, commands[i].name, word.n) == 0))
                        printf("%.*s ", STR_FMT(word));
                last = commands[i].name;
        }
        printf("\"\n  else case \"$cmd\" in\n    plugin) words=\"");
        for (size_t i = 0; i < n_commands; i++)
                if (strncmp(commands[i].name, "plugin ", 7) == 0)
                        printf("%s ", commands[i].name + 7);
        printf("\" ;;\n");
        for (size_t i = 0; i < n_commands; i++) {
                printf("    \"%s\") words=\"", commands[i].name);
                print_flags(commands[i].flags);
                printf("\" ;;\n");
        }
        printf("  esac; fi\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
               "complete -o default -F _dapr dapr daprctl\n");
}

static void print_fish(void)
{
        for (size_t i = 0; i < n_commands; i++) {
                struct str rest = str_of(commands[i].name), word = str_cut(&rest, ' ');
                const struct flag_program *p = commands[i].flags;
                if (!rest.p)
                        printf("complete -c dapr -n __fish_use_subcommand -a %.*s -d '%s'\n", STR_FMT(word), p->summary);
                else
                        printf("complete -c dapr -n __fish_use_subcommand -a %.*s\ncomplete -c dapr -n '__fish_seen_subcommand_from %.*s' -a %.*s -d '%s'\n",
                               STR_FMT(word), STR_FMT(word), STR_FMT(rest), p->summary);
                for (size_t k = 0; k < p->n_rows; k++)
                        if (!(p->rows[k].attr & FLAG_HIDDEN) && p->rows[k].kind != FLAG_GROUP)
                                printf("complete -c dapr -n '__fish_seen_subcommand_from %.*s' -l %s\n", STR_FMT(rest.p ? rest : word), p->rows[k].name);
        }
}

int completion_run(void *opts, int argc, char **argv)
{
        const char *shell = argc == 1 ? argv[0] : "";
        if (strcmp(shell, "bash") == 0)
                print_bash();
        else if (strcmp(shell, "zsh") == 0) {
                printf("#compdef dapr daprctl\nautoload -U +X bashcompinit && bashcompinit\n");
                print_bash();
        } else if (strcmp(shell, "fish") == 0)
                print_fish();
        else {
                ui_say(UI_FAILURE, "Say for which shell: dapr completion bash, zsh or fish.");
                return 1;
        }
        return 0;
}
