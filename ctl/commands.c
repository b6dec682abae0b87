/* The table of commands: main.c, help, completion and the reference pages read it. */
#include "ctl/commands.h"

#define ROW(n, id) {n, &id##_program, sizeof(struct id##_opts), id##_run}
const struct command commands[] = {
        ROW("init", init),
        ROW("run", run),
        ROW("list", list),
        ROW("stop", stop),
        ROW("plugin list", plugin_list),
        ROW("plugin info", plugin_info),
        ROW("plugin logs", plugin_logs),
        ROW("plugin restart", plugin_restart),
        ROW("plugin new", plugin_new),
        ROW("version", version),
        ROW("completion", completion),
        ROW("uninstall", uninstall),
};
#undef ROW
const size_t n_commands = sizeof(commands) / sizeof(*commands);
