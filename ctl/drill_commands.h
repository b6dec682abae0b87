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

struct plugin_tap_opts {
        struct ctl_globals globals;
        const char *app_id, *file, *output;
        int64_t for_ns;
        bool unredacted;
};
struct plugin_replay_opts {
        struct ctl_globals globals;
        const char *against, *app_id, *component, *output;
        bool strict;
};

struct doctor_opts {
        struct ctl_globals globals;
        const char *app_id, *plugins_path, *output, *plugin_verify, *plugin_lock;
        struct flag_list resources;
        int app_port;
};

struct plugin_top_opts {
        struct ctl_globals globals;
        const char *app_id, *output;
        int64_t interval_ns;
        bool once;
};

extern const struct flag_program plugin_fault_program, plugin_tap_program, plugin_replay_program, doctor_program, plugin_top_program;
int plugin_fault_run(void *opts, int argc, char **argv);
int doctor_run(void *opts, int argc, char **argv);
int plugin_top_run(void *opts, int argc, char **argv);
int plugin_tap_run(void *opts, int argc, char **argv);
int plugin_replay_run(void *opts, int argc, char **argv);

#endif
