/*
 * doc_daprctl: pages about daprctl from its table of commands.
 *   doc_daprctl page           the reference page on stdout
 *   doc_daprctl man DIR        one man page a command, and dapr.1 about all of them
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ctl/commands.h"

static int page(void)
{
        printf("# daprctl\n\nRuns apps with their Dapr sidecars and looks after plugins. Installed as `dapr` too; commands and flags of the reference\n"
               "CLI keep their meaning. Exit code: 0 done, 1 not done (the reason is on stderr); `run` exits with the code of the app.\n\n"
               "| Command | |\n|---|---|\n");
        for (size_t i = 0; i < n_commands; i++)
                printf("| `dapr %s` | %s |\n", commands[i].name, commands[i].flags->summary);
        for (size_t i = 0; i < n_commands; i++) {
                printf("\n");
                flags_markdown(commands[i].flags, stdout);
        }
        return 0;
}

static FILE *man_file(const char *dir, const char *command)
{
        char path[512];
        snprintf(path, sizeof(path), "%s/dapr%s%s.1", dir, *command ? "-" : "", command);
        for (char *p = path + strlen(dir); *p; p++)
                if (*p == ' ')
                        *p = '-';
        FILE *f = fopen(path, "w");
        if (!f)
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return f;
}

/* dapr-plugin.1: the commands about plugins. */
static int man_plugin(const char *dir)
{
        FILE *f = man_file(dir, "plugin");
        if (!f)
                return 1;
        fprintf(f, ".TH \"dapr plugin\" 1\n.SH NAME\ndapr plugin \\- write, check, pack, install, exchange and watch plugins\n"
                   ".SH SYNOPSIS\ndapr plugin COMMAND [flags]\n.SH COMMANDS\n");
        for (size_t i = 0; i < n_commands; i++)
                if (strncmp(commands[i].name, "plugin ", 7) == 0)
                        fprintf(f, ".TP\n\\fBdapr %s\\fR\n%s\n", commands[i].name, commands[i].flags->summary);
        fprintf(f, ".SH SEE ALSO\n\\fBplugin.yaml\\fR(5), \\fBdapr\\fR(1); each command has a page of its own: \\fBdapr-plugin-new\\fR(1)\n");
        return fclose(f) != 0;
}

static int man(const char *dir)
{
        for (size_t i = 0; i < n_commands; i++) {
                FILE *f = man_file(dir, commands[i].name);
                if (!f)
                        return 1;
                flags_man(commands[i].flags, f);
                if (fclose(f) != 0)
                        return 1;
        }
        FILE *f = man_plugin(dir) ? NULL : man_file(dir, "");
        if (!f)
                return 1;
        fprintf(f, ".TH \"dapr\" 1\n.SH NAME\ndapr, daprctl \\- run apps with their Dapr sidecars and look after plugins\n"
                   ".SH SYNOPSIS\ndapr COMMAND [flags]\n.SH COMMANDS\n");
        for (size_t i = 0; i < n_commands; i++)
                fprintf(f, ".TP\n\\fBdapr %s\\fR\n%s\n", commands[i].name, commands[i].flags->summary);
        fprintf(f, ".SH FILES\n.TP\n\\fI~/.dapr\\fR\nDefault resources and configuration, made by \\fBdapr init\\fR.\n"
                   ".SH EXIT STATUS\n0 done, 1 not done; \\fBdapr run\\fR exits with the code of the app.\n"
                   ".SH SEE ALSO\n\\fBdaprd\\fR(1)\n");
        return fclose(f) != 0;
}

int main(int argc, char **argv)
{
        if (argc == 2 && strcmp(argv[1], "page") == 0)
                return page();
        if (argc == 3 && strcmp(argv[1], "man") == 0)
                return man(argv[2]);
        fprintf(stderr, "usage: doc_daprctl page | man DIR\n");
        return 2;
}
