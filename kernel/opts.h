/* daprd's command line and environment, parsed and checked once at start. The flag table is in opts.c. */
#ifndef KERNEL_OPTS_H
#define KERNEL_OPTS_H

#include "sdk/base/flags.h"

struct daprd_opts {
        /* flags; names follow the flag names. -1 = not given where the default is empty. */
        const char *mode, *app_id, *app_protocol, *app_channel_address;
        int app_port, app_max_concurrency;
        bool app_ssl;
        int dapr_http_port, dapr_grpc_port, dapr_internal_grpc_port, dapr_public_port;
        struct flag_list dapr_listen_addresses;
        const char *dapr_public_listen_address, *dapr_internal_grpc_listen_address, *unix_domain_socket;
        struct flag_list resources_path, components_path, config;
        const char *control_plane_address, *sentry_address, *control_plane_trust_domain, *control_plane_namespace;
        const char *placement_host_address, *actors_service, *reminders_service;
        struct flag_list scheduler_host_address, sentry_request_jwt_audiences, disable_init_endpoints;
        int scheduler_job_streams;
        bool enable_mtls, enable_profiling, enable_metrics, disable_builtin_k8s_secret_store, enable_app_health_check;
        const char *allowed_origins;
        int profile_port, metrics_port;
        const char *metrics_listen_address;
        int enable_api_logging; /* -1 = unset */
        int64_t max_body_size, read_buffer_size; /* bytes; max_body_size <= 0 = unlimited */
        int dapr_http_max_request_size, dapr_http_read_buffer_size; /* deprecated: MB, KB */
        int dapr_graceful_shutdown_seconds;
        int64_t dapr_block_shutdown_duration_ns; /* -1 = unset */
        const char *app_health_check_path;
        int app_health_probe_interval, app_health_probe_timeout, app_health_threshold;
        const char *log_level, *log_file;
        bool log_as_json;
        bool version, build_info, wait;
        /* environment */
        const char *namespace_;      /* NAMESPACE, "" if unset */
        const char *api_token;       /* DAPR_API_TOKEN, "" = none */
        const char *app_api_token;   /* APP_API_TOKEN */
        const char *pod_name;
        const char *env_keys;        /* DAPR_ENV_KEYS; NULL = unset */
        const char *sockets_folder;  /* DAPR_COMPONENTS_SOCKETS_FOLDER */
        const char *plugins_path;    /* DAPR_PLUGINS_PATH, "" if unset */
        const char *trust_anchors, *sentry_token_file, *host_ip;
        bool http_disable_h2c;
};

/* 0; -ECANCELED when --help, --version or --build-info was answered; -EINVAL with a sentence in err. */
int opts_parse(struct daprd_opts *o, int argc, char **argv, char *err, size_t err_n);
void opts_fini(struct daprd_opts *o);
extern const struct flag_program daprd_program; /* for help, man page, completion */

#endif
