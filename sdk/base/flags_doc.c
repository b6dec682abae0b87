/*
 * Texts made from the rows of a program: --help, the man page, the reference page, shell completion. Hidden flags appear
 * nowhere; deprecated ones only in the man page and on the reference page.
 */
#include <stdlib.h>
#include <sys/ioctl.h>

#include "sdk/base/flags.h"

enum { HELP_COLUMN = 38, WIDTH_DEFAULT = 100, WIDTH_MIN = 60, WIDTH_MAX = 140 };

const char *flag_placeholder(const struct flag_row *row)
{
        if (row->arg)
                return row->arg;
        switch (row->kind) {
        case FLAG_BOOL:
        case FLAG_TRISTATE:
        case FLAG_GROUP: return NULL;
        case FLAG_STRING:
        case FLAG_ARRAY: return "TEXT";
        case FLAG_INT:
        case FLAG_INT64: return "N";
        case FLAG_PORT: return "PORT";
        case FLAG_LIST: return "A,B";
        case FLAG_DURATION: return "DURATION";
        case FLAG_QUANTITY: return "SIZE";
        }
        return NULL;
}

static bool is_shown(const struct flag_row *row, int without)
{
        return row->kind != FLAG_GROUP && !(row->attr & without);
}

/* A default worth telling, or NULL. */
static const char *shown_default(const struct flag_row *row)
{
        bool is_switch = row->kind == FLAG_BOOL || row->kind == FLAG_TRISTATE;
        if (!row->def || !*row->def || (is_switch && strcmp(row->def, "false") == 0))
                return NULL;
        return row->def;
}

/* Does a flag follow before the next heading? */
static bool group_has_flags(const struct flag_program *p, size_t i, int without)
{
        for (i++; i < p->n_rows && p->rows[i].kind != FLAG_GROUP; i++)
                if (is_shown(&p->rows[i], without))
                        return true;
        return false;
}

/* ---- --help ---- */

static size_t line_width(FILE *to)
{
        struct winsize w;
        const char *columns = getenv("COLUMNS");
        long n = columns ? strtol(columns, NULL, 10) : 0;
        if (n <= 0 && ioctl(fileno(to), TIOCGWINSZ, &w) == 0)
                n = w.ws_col;
        if (n <= 0)
                n = WIDTH_DEFAULT;
        return n < WIDTH_MIN ? WIDTH_MIN : n > WIDTH_MAX ? WIDTH_MAX : (size_t)n;
}

/* Words of s from the current column on, wrapped at width, continued at `indent`. Returns the column reached. */
static size_t wrap(FILE *to, struct str s, size_t at, size_t indent, size_t width)
{
        for (struct str rest = s; rest.p;) {
                struct str word = str_cut(&rest, ' ');
                if (!word.n)
                        continue;
                if (at > indent && at + 1 + word.n > width) {
                        fprintf(to, "\n%*s", (int)indent, "");
                        at = indent;
                } else if (at > indent) {
                        fputc(' ', to);
                        at++;
                }
                fprintf(to, "%.*s", STR_FMT(word));
                at += word.n;
        }
        return at;
}

static void help_row(FILE *to, const struct flag_row *row, size_t width, bool color)
{
        const char *arg = flag_placeholder(row), *def = shown_default(row);
        size_t at = 6 + 2 + strlen(row->name) + (arg ? 1 + strlen(arg) : 0);
        if (row->short_name)
                fprintf(to, "  %s-%c%s, ", color ? "\x1b[36m" : "", row->short_name, color ? "\x1b[0m" : "");
        else
                fputs("      ", to);
        fprintf(to, "%s--%s%s", color ? "\x1b[36m" : "", row->name, color ? "\x1b[0m" : "");
        if (arg)
                fprintf(to, " %s", arg);
        if (at + 2 > HELP_COLUMN)
                fprintf(to, "\n%*s", HELP_COLUMN, "");
        else
                fprintf(to, "%*s", (int)(HELP_COLUMN - at), "");
        at = wrap(to, str_of(row->help ? row->help : ""), HELP_COLUMN, HELP_COLUMN, width);
        if (def) {
                char text[128];
                snprintf(text, sizeof(text), "(default %s)", def);
                wrap(to, str_of(text), at, HELP_COLUMN, width);
        }
        fputc('\n', to);
}

static void heading(FILE *to, const char *text, bool color)
{
        fprintf(to, "\n%s%s:%s\n", color ? "\x1b[1m" : "", text, color ? "\x1b[0m" : "");
}

static const char *exits(const struct flag_program *p)
{
        return p->exits ? p->exits : "0 when it is done; 1 when it is not, with the reason on the standard error output.";
}

void flags_help(const struct flag_program *p, FILE *to, bool color)
{
        static const struct flag_row help = {"help", FLAG_BOOL, .help = "Print this text.", .short_name = 'h'};
        size_t width = line_width(to);
        fprintf(to, "%s\n", p->summary);
        heading(to, "Usage", color);
        fprintf(to, "  %s\n", p->usage);
        if (p->n_rows && p->rows[0].kind != FLAG_GROUP)
                heading(to, "Flags", color);
        for (size_t i = 0; i < p->n_rows; i++) {
                const struct flag_row *row = &p->rows[i];
                if (row->kind == FLAG_GROUP && group_has_flags(p, i, FLAG_HIDDEN | FLAG_DEPRECATED))
                        heading(to, row->name, color);
                if (is_shown(row, FLAG_HIDDEN | FLAG_DEPRECATED))
                        help_row(to, row, width, color);
        }
        help_row(to, &help, width, color);
        if (p->examples) {
                heading(to, "Examples", color);
                fprintf(to, "%s%s", p->examples, str_has_suffix(str_of(p->examples), STR("\n")) ? "" : "\n");
        }
        heading(to, "Exit codes", color);
        fputs("  ", to);
        wrap(to, str_of(exits(p)), 2, 2, width);
        fputc('\n', to);
}

/* ---- man page ---- */

static void roff(FILE *to, const char *s)
{
        for (bool line_start = true; *s; line_start = *s++ == '\n') {
                if (line_start && (*s == '.' || *s == '\''))
                        fputs("\\&", to);
                if (*s == '\\')
                        fputs("\\e", to);
                else if (*s == '-')
                        fputs("\\-", to);
                else
                        fputc(*s, to);
        }
}

static void man_row(FILE *to, const struct flag_row *row)
{
        const char *arg = flag_placeholder(row), *def = shown_default(row);
        fputs(".TP\n", to);
        if (row->short_name)
                fprintf(to, "\\fB\\-%c\\fR, ", row->short_name);
        fputs("\\fB\\-\\-", to);
        roff(to, row->name);
        fputs("\\fR", to);
        if (arg) {
                fputs(" \\fI", to);
                roff(to, arg);
                fputs("\\fR", to);
        }
        fputc('\n', to);
        roff(to, row->help ? row->help : "");
        if (def) {
                fputs(" Default: ", to);
                roff(to, def);
                fputc('.', to);
        }
        if (row->attr & FLAG_DEPRECATED) {
                fputs(" Deprecated: ", to);
                roff(to, row->note ? row->note : "do not use it");
                fputc('.', to);
        }
        fputc('\n', to);
}

void flags_man(const struct flag_program *p, FILE *to)
{
        fprintf(to, ".TH \"%s\" 1\n.SH NAME\n", p->name);
        roff(to, p->name);
        fputs(" \\- ", to);
        roff(to, p->summary);
        fputs("\n.SH SYNOPSIS\n", to);
        roff(to, p->usage);
        fputs("\n.SH OPTIONS\n", to);
        for (size_t i = 0; i < p->n_rows; i++) {
                const struct flag_row *row = &p->rows[i];
                if (row->kind == FLAG_GROUP && group_has_flags(p, i, FLAG_HIDDEN)) {
                        fputs(".SS ", to);
                        roff(to, row->name);
                        fputc('\n', to);
                }
                if (is_shown(row, FLAG_HIDDEN))
                        man_row(to, row);
        }
        if (p->examples) {
                fputs(".SH EXAMPLES\n.nf\n", to);
                roff(to, p->examples);
                fputs("\n.fi\n", to);
        }
        fputs(".SH EXIT STATUS\n", to);
        roff(to, exits(p));
        fputc('\n', to);
}

/* ---- reference page ---- */

static void cell(FILE *to, const char *s)
{
        for (; *s; s++) {
                if (*s == '|' || *s == '<' || *s == '*' || *s == '_')
                        fputc('\\', to);
                fputc(*s == '\n' ? ' ' : *s, to);
        }
}

static void markdown_row(FILE *to, const struct flag_row *row)
{
        const char *arg = flag_placeholder(row), *def = shown_default(row);
        fprintf(to, "| `--%s%s%s`", row->name, arg ? " " : "", arg ? arg : "");
        if (row->short_name)
                fprintf(to, ", `-%c`", row->short_name);
        fputs(" | ", to);
        if (def)
                fprintf(to, "`%s`", def);
        fputs(" | ", to);
        cell(to, row->help ? row->help : "");
        if (row->attr & FLAG_DEPRECATED) {
                fputs(" Deprecated: ", to);
                cell(to, row->note ? row->note : "do not use it");
                fputc('.', to);
        }
        fputs(" |\n", to);
}

void flags_markdown(const struct flag_program *p, FILE *to)
{
        static const char head[] = "\n| Flag | Default | Meaning |\n|---|---|---|\n";
        fprintf(to, "# %s\n\n%s\n\n```\n%s\n```\n", p->name, p->summary, p->usage);
        if (p->n_rows && p->rows[0].kind != FLAG_GROUP)
                fputs(head, to);
        for (size_t i = 0; i < p->n_rows; i++) {
                const struct flag_row *row = &p->rows[i];
                if (row->kind == FLAG_GROUP && group_has_flags(p, i, FLAG_HIDDEN))
                        fprintf(to, "\n## %s\n%s", row->name, head);
                if (is_shown(row, FLAG_HIDDEN))
                        markdown_row(to, row);
        }
        if (p->examples)
                fprintf(to, "\n## Examples\n\n```\n%s%s```\n", p->examples,
                        str_has_suffix(str_of(p->examples), STR("\n")) ? "" : "\n");
        fprintf(to, "\nExit codes: %s\n", exits(p));
}

/* ---- completion ---- */

static bool is_path(const struct flag_row *row)
{
        const char *arg = flag_placeholder(row);
        return arg && (strstr(arg, "PATH") || strstr(arg, "FILE") || strstr(arg, "DIR"));
}

/* In single quotes of a shell; what `special` lists gets a backslash. */
static void quoted(FILE *to, const char *s, const char *special)
{
        for (; *s; s++) {
                if (*s == '\'') {
                        fputs("'\\''", to);
                        continue;
                }
                if (strchr(special, *s))
                        fputc('\\', to);
                fputc(*s, to);
        }
}

static void complete_bash(const struct flag_program *p, FILE *to)
{
        fprintf(to, "# bash completion for %s\n_%s() {\n        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                    "        case \"$prev\" in\n        =", p->name, p->name);
        for (size_t i = 0; i < p->n_rows; i++)
                if (is_shown(&p->rows[i], FLAG_HIDDEN | FLAG_DEPRECATED) && flag_placeholder(&p->rows[i]))
                        fprintf(to, "|--%s", p->rows[i].name);
        fputs(") return ;; # a value: files\n        esac\n        COMPREPLY=($(compgen -W \"--help", to);
        for (size_t i = 0; i < p->n_rows; i++)
                if (is_shown(&p->rows[i], FLAG_HIDDEN | FLAG_DEPRECATED))
                        fprintf(to, " --%s", p->rows[i].name);
        fprintf(to, "\" -- \"$cur\"))\n}\ncomplete -o default -F _%s %s\n", p->name, p->name);
}

static void complete_zsh(const struct flag_program *p, FILE *to)
{
        fprintf(to, "#compdef %s\n_arguments -s", p->name);
        for (size_t i = 0; i < p->n_rows; i++) {
                const struct flag_row *row = &p->rows[i];
                const char *arg = flag_placeholder(row);
                if (!is_shown(row, FLAG_HIDDEN | FLAG_DEPRECATED))
                        continue;
                fprintf(to, " \\\n  '%s--%s%s[", row->kind == FLAG_LIST || row->kind == FLAG_ARRAY ? "*" : "", row->name,
                        arg ? "=" : "");
                quoted(to, row->help ? row->help : "", "[]:\\");
                fputc(']', to);
                if (arg)
                        fprintf(to, ":%s:%s", arg, is_path(row) ? "_files" : "");
                fputc('\'', to);
        }
        fputs(" \\\n  '--help[Print help.]' '*:file:_files'\n", to);
}

static void complete_fish(const struct flag_program *p, FILE *to)
{
        fprintf(to, "complete -c %s -l help -s h -d 'Print help.'\n", p->name);
        for (size_t i = 0; i < p->n_rows; i++) {
                const struct flag_row *row = &p->rows[i];
                if (!is_shown(row, FLAG_HIDDEN | FLAG_DEPRECATED))
                        continue;
                fprintf(to, "complete -c %s -l %s", p->name, row->name);
                if (row->short_name)
                        fprintf(to, " -s %c", row->short_name);
                if (flag_placeholder(row))
                        fputs(is_path(row) ? " -r" : " -x", to);
                fputs(" -d '", to);
                quoted(to, row->help ? row->help : "", "\\");
                fputs("'\n", to);
        }
}

void flags_completion(const struct flag_program *p, const char *shell, FILE *to)
{
        if (strcmp(shell, "bash") == 0)
                complete_bash(p, to);
        else if (strcmp(shell, "zsh") == 0)
                complete_zsh(p, to);
        else if (strcmp(shell, "fish") == 0)
                complete_fish(p, to);
}
