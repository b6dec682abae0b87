/*
 * `completion`: a script for bash, zsh or fish. The scripts know nothing by themselves: they hand the line to `completion candidates`,
 * which answers from the tables of this very program (candidates.c).
 */
#include <stdio.h>

#include "ctl/candidates.h"
#include "ctl/commands.h"

static const struct flag_row completion_rows[] = {CTL_GLOBAL_ROWS(completion_opts)};
const struct flag_program completion_program = {
        .name = "dapr completion", .summary = "Print a shell completion script", .usage = "dapr completion bash|zsh|fish",
        .examples = "  # bash: for this shell\n  source <(dapr completion bash)\n\n  # zsh: for every shell\n"
                    "  dapr completion zsh > \"${fpath[1]}/_dapr\"\n\n  # fish\n  dapr completion fish > ~/.config/fish/completions/dapr.fish\n",
        .rows = completion_rows, .n_rows = sizeof(completion_rows) / sizeof(*completion_rows)};

static const char bash_script[] =
        "_dapr() {\n"
        "  local IFS=$'\\n' line cur=${COMP_WORDS[COMP_CWORD]}\n"
        "  COMPREPLY=()\n"
        "  for line in $(\"${COMP_WORDS[0]}\" completion candidates -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null); do\n"
        "    case $line in\n"
        "      :files) compopt -o default 2>/dev/null; return ;;\n"
        "      :command) COMPREPLY=($(compgen -c -f -- \"$cur\")); return ;;\n"
        "    esac\n"
        "    COMPREPLY+=(\"${line%%$'\\t'*}\")\n"
        "  done\n"
        "}\n"
        "complete -F _dapr dapr daprctl\n";

static const char zsh_script[] =
        "#compdef dapr daprctl\n"
        "_dapr() {\n"
        "  local -a lines items\n"
        "  lines=(\"${(@f)$(${words[1]} completion candidates -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
        "  case $lines[1] in\n"
        "    '') return 1 ;;\n"
        "    :files) _files; return ;;\n"
        "    :command) _command_names -e || _files; return ;;\n"
        "  esac\n"
        "  items=(\"${(@)lines//:/\\\\:}\")\n"
        "  items=(\"${(@)items/$'\\t'/:}\")\n"
        "  if [[ $PREFIX = -* ]]; then _describe -o dapr items; else _describe dapr items; fi\n"
        "}\n"
        "if [[ $funcstack[1] = _dapr ]]; then _dapr \"$@\"; else compdef _dapr dapr daprctl; fi\n";

static const char fish_script[] =
        "function __dapr_candidates\n"
        "  set -l words (commandline -opc)\n"
        "  set -l current (commandline -ct)\n"
        "  for line in ($words[1] completion candidates -- $words[2..-1] $current 2>/dev/null)\n"
        "    switch $line\n"
        "      case ':files'\n"
        "        __fish_complete_path $current\n"
        "      case ':command'\n"
        "        set -l at (contains -i -- -- $words); or set at (count $words)\n"
        "        set -l rest $words $current\n"
        "        set -e rest[1..$at]\n"
        "        complete -C (string join ' ' -- $rest)\n"
        "      case '*'\n"
        "        echo $line\n"
        "    end\n"
        "  end\n"
        "end\n"
        "complete -c dapr -f -a '(__dapr_candidates)'\n"
        "complete -c daprctl -f -a '(__dapr_candidates)'\n";

int completion_run(void *opts, int argc, char **argv)
{
        static const struct { const char *shell, *script; } scripts[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};
        if (argc > 0 && strcmp(argv[0], "candidates") == 0) {
                candidates_print(argc - 1, argv + 1);
                return 0;
        }
        for (size_t i = 0; argc == 1 && i < sizeof scripts / sizeof *scripts; i++)
                if (strcmp(argv[0], scripts[i].shell) == 0) {
                        fputs(scripts[i].script, stdout);
                        return 0;
                }
        ui_say(UI_FAILURE, "Say for which shell: dapr completion bash, zsh or fish.");
        return 1;
}
