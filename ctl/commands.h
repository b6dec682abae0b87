/* The commands' options, flag tables and run functions; main.c puts them into one table. */
#ifndef CTL_COMMANDS_H
#define CTL_COMMANDS_H

#include "ctl/ctl.h"
#include "ctl/drill_commands.h"
#include "ctl/plugin_commands.h"

struct list_opts {
        struct ctl_globals globals;
        const char *output, *namespace_;
        bool kubernetes, all_namespaces;
};
struct stop_opts {
        struct ctl_globals globals;
        const char *app_id, *run_file;
        bool kubernetes;
};
struct upgrade_opts {
        struct ctl_globals globals;
        const char *app_id, *binary;
};
struct version_opts {
        struct ctl_globals globals;
        const char *output;
};
struct init_opts {
        struct ctl_globals globals;
        bool slim, kubernetes, dev, wait, enable_ha, enable_mtls, force;
        const char *runtime_version, *dashboard_version, *from_dir, *container_runtime, *image_registry, *network, *image_variant,
                *scheduler_volume, *scheduler_broadcast, *namespace_, *ca_root, *issuer_key, *issuer_certificate;
        struct flag_list set;
        int timeout;
};
struct uninstall_opts {
        struct ctl_globals globals;
        const char *container_runtime, *network, *namespace_;
        bool all, kubernetes, dev;
        int timeout;
};
struct run_opts {
        struct ctl_globals globals;
        const char *app_id, *config, *app_protocol, *log_level, *components_path, *max_body_size, *read_buffer_size, *socket,
                *health_path, *listen_addresses, *run_file, *app_channel_address, *placement, *scheduler;
        struct flag_list resources_path;
        int app_port, http_port, grpc_port, internal_grpc_port, profile_port, max_concurrency, metrics_port, health_interval,
                health_timeout, health_threshold;
        bool enable_profiling, app_ssl, enable_health, enable_api_logging, kubernetes;
        bool placement_given, scheduler_given; /* "" disables then */
};
struct publish_opts {
        struct ctl_globals globals;
        const char *app_id, *pubsub, *topic, *data, *data_file, *metadata, *content_type, *socket, *output;
};
struct invoke_binding_opts {
        struct ctl_globals globals;
        const char *app_id, *operation, *data, *data_file, *metadata, *socket, *output;
};
struct logs_opts {
        struct ctl_globals globals;
        const char *app_id, *output;
        bool app, follow, kubernetes;
        int tail;
};
struct completion_opts {
        struct ctl_globals globals;
};
struct invoke_opts {
        struct ctl_globals globals;
        const char *app_id, *method, *data, *data_file, *verb, *via, *socket, *output;
        int64_t timeout_ns;
};
struct metrics_opts {
        struct ctl_globals globals;
        const char *app_id, *filter, *output;
        bool watch;
        int64_t interval_ns;
};
struct trace_opts {
        struct ctl_globals globals;
        const char *app_id, *sort, *output;
        int64_t min_ns;
        int limit;
};
struct plugin_list_opts {
        struct ctl_globals globals;
        const char *output, *app_id, *plugins_path;
        bool all;
};
struct plugin_info_opts {
        struct ctl_globals globals;
        const char *output, *app_id, *plugins_path;
};
struct plugin_security_opts {
        struct ctl_globals globals;
        const char *output, *app_id, *plugins_path;
};
struct plugin_logs_opts {
        struct ctl_globals globals;
        const char *output, *app_id;
        bool follow;
        int tail;
};
struct plugin_restart_opts { /* also of enable and disable, which do not read force */
        struct ctl_globals globals;
        const char *app_id;
        bool force;
};
struct plugin_upgrade_opts {
        struct ctl_globals globals;
        const char *app_id, *path, *version;
        int64_t shadow_ns;
        bool all;
};
struct plugin_rollback_opts {
        struct ctl_globals globals;
        const char *app_id;
        bool all;
};
#define plugin_enable_opts plugin_restart_opts
#define plugin_disable_opts plugin_restart_opts
struct plugin_history_opts {
        struct ctl_globals globals;
        const char *app_id, *output;
};
struct plugin_new_opts {
        struct ctl_globals globals;
        const char *dir, *lang;
        bool force;
};

struct subscription_opts {
        struct ctl_globals globals;
        const char *output, *app_id;
        bool all;
};

extern const struct flag_program subscription_list_program, subscription_pause_program, subscription_resume_program;
int subscription_list_run(void *opts, int argc, char **argv);
int subscription_pause_run(void *opts, int argc, char **argv);
int subscription_resume_run(void *opts, int argc, char **argv);

extern const struct flag_program list_program, stop_program, version_program, init_program, uninstall_program, run_program,
        completion_program, invoke_program, metrics_program, trace_program, publish_program, invoke_binding_program, logs_program, plugin_list_program, plugin_info_program, plugin_logs_program, plugin_restart_program, plugin_new_program,
        plugin_upgrade_program, plugin_rollback_program, plugin_enable_program, plugin_disable_program, plugin_history_program;
int list_run(void *opts, int argc, char **argv);
int stop_run(void *opts, int argc, char **argv);
int version_run(void *opts, int argc, char **argv);
int init_run(void *opts, int argc, char **argv);
int uninstall_run(void *opts, int argc, char **argv);
int run_run(void *opts, int argc, char **argv);
int completion_run(void *opts, int argc, char **argv);
int publish_run(void *opts, int argc, char **argv);
int invoke_binding_run(void *opts, int argc, char **argv);
int logs_run(void *opts, int argc, char **argv);
int invoke_run(void *opts, int argc, char **argv);
int metrics_run(void *opts, int argc, char **argv);
int trace_run(void *opts, int argc, char **argv);
int plugin_list_run(void *opts, int argc, char **argv);
int plugin_info_run(void *opts, int argc, char **argv);
extern const struct flag_program plugin_security_program;
int plugin_security_run(void *opts, int argc, char **argv);
int plugin_logs_run(void *opts, int argc, char **argv);
int plugin_restart_run(void *opts, int argc, char **argv);
int plugin_upgrade_run(void *opts, int argc, char **argv);
int plugin_rollback_run(void *opts, int argc, char **argv);
int plugin_enable_run(void *opts, int argc, char **argv);
int plugin_disable_run(void *opts, int argc, char **argv);
int plugin_history_run(void *opts, int argc, char **argv);
int plugin_new_run(void *opts, int argc, char **argv);

extern const struct flag_program upgrade_program;
int upgrade_run(void *opts, int argc, char **argv);

/* Says that this command has no Kubernetes mode here; returns the exit code. */
int kubernetes_refused(const char *command);

#endif
