/* `completion`: a script for bash, zsh or fish that knows every command and flag of the table. */
#include <stdio.h>

#include "ctl/commands.h"

static const struct flag_row completion_rows[] = {CTL_GLOBAL_ROWS(completion_opts)};
const struct flag_program completion_program = {
        .name = "dapr completion", .summary = "Print a shell completion script", .usage = "dapr completion bash|zsh|fish",
        .examples = "  # bash: for this shell\n  source <(dapr completion bash)\n\n  # zsh: for every shell\n"
                    "  dapr completion zsh > \"${fpath[1]}/_dapr\"\n\n  # fish\n  dapr completion fish > ~/.config/fish/completions/dapr.fish\n",
        .rows = completion_rows, .n_rows = sizeof(completion_rows) / sizeof(*completion_rows)};

static bool is_shown(const struct flag_row *row)
{
        return !(row->attr & (FLAG_HIDDEN | FLAG_DEPRECATED)) && row->kind != FLAG_GROUP;
}

/* First word and rest of a command's name; is_first: no command before it has the same first word. */
struct name {
        struct str word, rest;
        bool is_first;
};

static struct name name_of(size_t i)
{
        struct name n = {.rest = str_of(commands[i].name), .is_first = true};
        n.word = str_cut(&n.rest, ' ');
        for (size_t k = 0; k < i; k++) {
                struct str other = str_of(commands[k].name);
                if (str_eq(str_cut(&other, ' '), n.word))
                        n.is_first = false;
        }
        return n;
}

static void print_bash(void)
{
        printf("_dapr() {\n  local cur=\"${COMP_WORDS[COMP_CWORD]}\" cmd=\"${COMP_WORDS[1]}\" words= i\n"
               "  for ((i = 1; i < COMP_CWORD; i++)); do [ \"${COMP_WORDS[i]}\" = -- ] && return; done\n"
               "  [ \"$cmd\" = plugin ] && [ \"$COMP_CWORD\" -gt 2 ] && cmd=\"plugin ${COMP_WORDS[2]}\"\n"
               "  if [ \"$COMP_CWORD\" = 1 ]; then words=\"");
        for (size_t i = 0; i < n_commands; i++)
                if (name_of(i).is_first)
                        printf("%.*s ", STR_FMT(name_of(i).word));
        printf("\"\n  else case \"$cmd\" in\n    plugin) words=\"");
        for (size_t i = 0; i < n_commands; i++)
                if (name_of(i).rest.p)
                        printf("%.*s ", STR_FMT(name_of(i).rest));
        printf("\" ;;\n    completion) words=\"bash zsh fish\" ;;\n");
        for (size_t i = 0; i < n_commands; i++) {
                const struct flag_program *p = commands[i].flags;
                if (p == &completion_program)
                        continue;
                printf("    \"%s\") words=\"", commands[i].name);
                for (size_t k = 0; k < p->n_rows; k++)
                        if (is_shown(&p->rows[k]))
                                printf("--%s ", p->rows[k].name);
                printf("--help\" ;;\n");
        }
        printf("  esac; fi\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
               "complete -o default -F _dapr dapr daprctl\n");
}

static void print_zsh(void)
{
        printf("#compdef dapr daprctl\n_dapr() {\n  local cmd=${words[2]}\n"
               "  (( ${words[(i)--]} < CURRENT )) && { _normal -p dapr; return }\n"
               "  [[ $cmd = plugin && $CURRENT -gt 3 ]] && cmd=\"plugin ${words[3]}\"\n"
               "  if (( CURRENT == 2 )); then compadd");
        for (size_t i = 0; i < n_commands; i++)
                if (name_of(i).is_first)
                        printf(" %.*s", STR_FMT(name_of(i).word));
        printf("; return; fi\n  case $cmd in\n    plugin) compadd");
        for (size_t i = 0; i < n_commands; i++)
                if (name_of(i).rest.p)
                        printf(" %.*s", STR_FMT(name_of(i).rest));
        printf(" ;;\n    completion) compadd bash zsh fish ;;\n");
        for (size_t i = 0; i < n_commands; i++) {
                const struct flag_program *p = commands[i].flags;
                if (p == &completion_program)
                        continue;
                printf("    \"%s\") if [[ $PREFIX = -* ]]; then compadd --", commands[i].name);
                for (size_t k = 0; k < p->n_rows; k++)
                        if (is_shown(&p->rows[k]))
                                printf(" --%s", p->rows[k].name);
                printf(" --help; else _files; fi ;;\n");
        }
        printf("  esac\n}\nif [[ $funcstack[1] = _dapr ]]; then _dapr \"$@\"; else compdef _dapr dapr daprctl; fi\n");
}

static void print_description(const char *text)
{
        printf(" -d '");
        for (; *text; text++)
                printf("%s%c", *text == '\'' || *text == '\\' ? "\\" : "", *text);
        printf("'\n");
}

static void print_fish(const char *program)
{
        for (size_t i = 0; i < n_commands; i++) {
                struct name n = name_of(i);
                const struct flag_program *p = commands[i].flags;
                if (n.is_first) {
                        printf("complete -c %s -n __fish_use_subcommand -a %.*s", program, STR_FMT(n.word));
                        print_description(n.rest.p ? "Look after plugins" : p->summary);
                }
                if (n.rest.p) {
                        printf("complete -c %s -f -n '__fish_seen_subcommand_from %.*s' -a %.*s", program, STR_FMT(n.word), STR_FMT(n.rest));
                        print_description(p->summary);
                }
                for (size_t k = 0; k < p->n_rows; k++)
                        if (is_shown(&p->rows[k]))
                                printf("complete -c %s -n '__fish_seen_subcommand_from %.*s' -l %s%s\n", program, STR_FMT(n.rest.p ? n.rest : n.word),
                                       p->rows[k].name, flag_placeholder(&p->rows[k]) ? " -r" : "");
        }
}

int completion_run(void *opts, int argc, char **argv)
{
        const char *shell = argc == 1 ? argv[0] : "";
        if (strcmp(shell, "bash") == 0)
                print_bash();
        else if (strcmp(shell, "zsh") == 0)
                print_zsh();
        else if (strcmp(shell, "fish") == 0) {
                print_fish("dapr");
                print_fish("daprctl");
        } else {
                ui_say(UI_FAILURE, "Say for which shell: dapr completion bash, zsh or fish.");
                return 1;
        }
        return 0;
}
