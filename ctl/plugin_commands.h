/* Options and run functions of the commands about packages; commands.h includes them. */
#ifndef CTL_PLUGIN_COMMANDS_H
#define CTL_PLUGIN_COMMANDS_H

#include "ctl/ctl.h"

struct plugin_build_opts {
        struct ctl_globals globals;
        const char *out, *key, *password_file;
        bool no_make;
};
struct plugin_keygen_opts {
        struct ctl_globals globals;
        const char *key, *password_file;
        bool no_password, force;
};
struct plugin_sign_opts {
        struct ctl_globals globals;
        const char *key, *password_file;
};
struct plugin_verify_opts {
        struct ctl_globals globals;
        const char *output, *key, *dir;
};
struct plugin_trust_opts {
        struct ctl_globals globals;
        const char *output;
};
struct plugin_source_opts { /* where packages come from; begins the options of install and bundle */
        struct ctl_globals globals;
        const char *index, *lock, *ca_file;
        bool allow_old_index;
};
struct plugin_install_opts {
        struct plugin_source_opts from;
        const char *dir;
        bool allow_unsigned, allow_downgrade, force, update_lock;
};
struct plugin_bundle_opts {
        struct plugin_source_opts from;
        const char *out;
        bool oci;
};
struct plugin_remove_opts {
        struct ctl_globals globals;
        const char *dir, *version;
        bool all, force;
};
struct plugin_search_opts {
        struct ctl_globals globals;
        const char *index, *ca_file, *output;
        bool allow_old_index;
};
struct plugin_index_opts {
        struct ctl_globals globals;
};
struct plugin_index_sign_opts {
        struct ctl_globals globals;
        const char *key, *password_file, *name;
        int64_t expires_ns;
};
struct plugin_conformance_opts {
        struct ctl_globals globals;
        const char *output, *type, *resource, *topic_prefix, *change;
        struct flag_list metadata, secrets, keys, subscribe_metadata, operation_metadata;
        int64_t timeout_ns;
        bool save, no_faults, confined, ordered, yes;
};
struct plugin_dev_opts {
        struct ctl_globals globals;
        const char *app_id, *component;
        bool debug, once;
};
struct plugin_lock_opts {
        struct ctl_globals globals;
        const char *lock, *dir;
        bool check;
};

extern const struct flag_program plugin_build_program, plugin_keygen_program, plugin_sign_program, plugin_verify_program,
        plugin_trust_add_program, plugin_trust_list_program, plugin_trust_remove_program, plugin_install_program, plugin_bundle_program,
        plugin_remove_program, plugin_search_program, plugin_index_program, plugin_index_sign_program, plugin_lock_program, plugin_conformance_program, plugin_dev_program;
int plugin_build_run(void *opts, int argc, char **argv);
int plugin_keygen_run(void *opts, int argc, char **argv);
int plugin_sign_run(void *opts, int argc, char **argv);
int plugin_verify_run(void *opts, int argc, char **argv);
int plugin_trust_add_run(void *opts, int argc, char **argv);
int plugin_trust_list_run(void *opts, int argc, char **argv);
int plugin_trust_remove_run(void *opts, int argc, char **argv);
int plugin_install_run(void *opts, int argc, char **argv);
int plugin_bundle_run(void *opts, int argc, char **argv);
int plugin_remove_run(void *opts, int argc, char **argv);
int plugin_search_run(void *opts, int argc, char **argv);
int plugin_index_run(void *opts, int argc, char **argv);
int plugin_index_sign_run(void *opts, int argc, char **argv);
int plugin_lock_run(void *opts, int argc, char **argv);
int plugin_conformance_run(void *opts, int argc, char **argv);
int plugin_dev_run(void *opts, int argc, char **argv);

#endif
