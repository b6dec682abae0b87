/* The table of commands: main.c, help, completion and the reference pages read it. */
#include "ctl/commands.h"

#define ROW(n, id) {n, &id##_program, sizeof(struct id##_opts), id##_run}
const struct command commands[] = {
        ROW("init", init),
        ROW("run", run),
        ROW("list", list),
        ROW("stop", stop),
        ROW("publish", publish),
        ROW("invoke-binding", invoke_binding),
        ROW("logs", logs),
        ROW("plugin list", plugin_list),
        ROW("plugin info", plugin_info),
        ROW("plugin logs", plugin_logs),
        ROW("plugin restart", plugin_restart),
        ROW("plugin upgrade", plugin_upgrade),
        ROW("plugin rollback", plugin_rollback),
        ROW("plugin enable", plugin_enable),
        ROW("plugin disable", plugin_disable),
        ROW("plugin history", plugin_history),
        ROW("plugin new", plugin_new),
        ROW("plugin build", plugin_build),
        ROW("plugin keygen", plugin_keygen),
        ROW("plugin sign", plugin_sign),
        ROW("plugin verify", plugin_verify),
        ROW("plugin install", plugin_install),
        ROW("plugin remove", plugin_remove),
        ROW("plugin search", plugin_search),
        ROW("plugin index", plugin_index),
        ROW("plugin bundle", plugin_bundle),
        ROW("plugin lock", plugin_lock),
        {"plugin trust add", &plugin_trust_add_program, sizeof(struct plugin_trust_opts), plugin_trust_add_run},
        {"plugin trust list", &plugin_trust_list_program, sizeof(struct plugin_trust_opts), plugin_trust_list_run},
        {"plugin trust remove", &plugin_trust_remove_program, sizeof(struct plugin_trust_opts), plugin_trust_remove_run},
        {"subscription list", &subscription_list_program, sizeof(struct subscription_opts), subscription_list_run},
        {"subscription pause", &subscription_pause_program, sizeof(struct subscription_opts), subscription_pause_run},
        {"subscription resume", &subscription_resume_program, sizeof(struct subscription_opts), subscription_resume_run},
        ROW("version", version),
        ROW("completion", completion),
        ROW("uninstall", uninstall),
};
#undef ROW
const size_t n_commands = sizeof(commands) / sizeof(*commands);
