/* Options and run functions of the commands for debugging and drills; commands.h includes them. */
#ifndef CTL_DRILL_COMMANDS_H
#define CTL_DRILL_COMMANDS_H

#include "ctl/ctl.h"

struct plugin_fault_opts {
        struct ctl_globals globals;
        const char *app_id, *error, *rate, *output;
        int64_t delay_ns, for_ns;
        bool kill, clear;
};

extern const struct flag_program plugin_fault_program;
int plugin_fault_run(void *opts, int argc, char **argv);

#endif
