/*
 * daprd's command line and environment, read and checked once at start. The flag table is in opts.c.
 * In this order: opts_parse() (wrong flags: text on stderr, exit code 2), then the log is set up from log_level, log_as_json and
 * log_file, then opts_check() (wrong values: "Fatal error from runtime: <text>", exit code 1), as the reference does.
 */
#ifndef KERNEL_OPTS_H
#define KERNEL_OPTS_H

#include "sdk/base/flags.h"
#include "sdk/trust/policy.h"

#define DAPR_VERSION "1.17.9" /* the release whose surface we serve; reported as runtime version */

enum {
        DEFAULT_HTTP_PORT = 3500,
        DEFAULT_GRPC_PORT = 50001,
        DEFAULT_PROFILE_PORT = 7777,
        DEFAULT_METRICS_PORT = 9090,
        DEFAULT_MAX_BODY_BYTES = 4 << 20,
        DEFAULT_READ_BUFFER_BYTES = 4 << 10,
        DEFAULT_GRACEFUL_SHUTDOWN_SECONDS = 5,
        DEFAULT_PROBE_INTERVAL_SECONDS = 5,
        DEFAULT_PROBE_TIMEOUT_MS = 500,
        DEFAULT_PROBE_THRESHOLD = 3,
        PLUGIN_LINGER_MAX_S = 3600,
};
#define DEFAULT_SOCKETS_FOLDER "/tmp/dapr-components-sockets"

struct daprd_opts {
        /* Flags; names follow the flag names. Fields marked (c) hold their value only after opts_check(). */
        const char *mode, *app_id;
        const char *app_protocol;        /* (c) one of http https h2c grpc grpcs */
        const char *app_channel_address;
        int app_port;                    /* (c) 0 = not given */
        int app_max_concurrency;         /* (c) 0 = no limit */
        bool app_ssl;
        int dapr_http_port, dapr_grpc_port; /* (c) */
        int dapr_internal_grpc_port;     /* (c) -1 = choose the stable port of this app id */
        int dapr_public_port;            /* (c) -1 = no public listener */
        struct flag_list dapr_listen_addresses; /* none = all interfaces */
        const char *dapr_public_listen_address, *dapr_internal_grpc_listen_address, *unix_domain_socket;
        struct flag_list resources_path; /* (c) components-path stands here when it alone was given */
        const char *components_path;
        struct flag_list config;
        const char *control_plane_address, *sentry_address, *control_plane_trust_domain, *control_plane_namespace;
        const char *placement_host_address, *actors_service, *reminders_service;
        struct flag_list scheduler_host_address, sentry_request_jwt_audiences, disable_init_endpoints;
        bool disable_config_endpoint, disable_subscribe_endpoint; /* (c) from disable_init_endpoints */
        int scheduler_job_streams;
        bool enable_mtls, enable_profiling, enable_metrics, disable_builtin_k8s_secret_store, enable_app_health_check;
        const char *allowed_origins;
        int profile_port, metrics_port;  /* (c) */
        const char *metrics_listen_address;
        bool enable_subtle_crypto;
        const char *plugin_verify;       /* "off", "lock" or "signed" */
        enum verify_policy plugin_verify_policy; /* (c) */
        const char *plugin_lock;         /* (c) path of plugins.lock, "" = there is none to be kept to */
        char *lock_path;                 /* storage for plugin_lock */
        const char *plugin_sandbox;      /* "on" or "off" */
        bool plugin_sandbox_off;         /* (c) */
        int64_t plugin_linger_ns;        /* (c) 0 = plugins end with daprd */
        int enable_api_logging;          /* -1 = unset */
        int64_t max_body_size;           /* (c) bytes; <= 0 = unlimited */
        int64_t read_buffer_size;        /* (c) bytes; headers must fit */
        int dapr_http_max_request_size, dapr_http_read_buffer_size; /* deprecated: MB, KB */
        int dapr_graceful_shutdown_seconds;      /* (c) never negative */
        int64_t dapr_block_shutdown_duration_ns; /* -1 = unset */
        const char *app_health_check_path;
        int app_health_probe_interval, app_health_probe_timeout, app_health_threshold; /* (c) s, ms, count; never zero */
        const char *log_level, *log_file;
        bool log_as_json;
        bool version, build_info, wait, tolerate_component_errors;
        /* Ports and quantities as they were written: empty or not, and with an error text that names the flag. */
        struct {
                const char *app_port, *http_port, *grpc_port, *internal_grpc_port, *public_port, *profile_port, *metrics_port;
                const char *max_body_size, *read_buffer_size;
        } text;
        struct {
                bool max_body_size, read_buffer_size, trust_domain, control_namespace, scheduler;
        } given;
        const char *alias_path[1];   /* storage for resources_path from components_path */
        char *scheduler_env;         /* storage for scheduler_host_address from the environment; NULL = from the flag */
        /* Environment */
        const char *namespace_;      /* NAMESPACE, "" if unset */
        const char *own_namespace;   /* NAMESPACE, "default" if unset: what {namespace} and identities use */
        const char *api_token;       /* DAPR_API_TOKEN, "" = none */
        const char *app_api_token;   /* APP_API_TOKEN, "" = none */
        const char *pod_name;        /* "" if unset */
        const char *env_keys;        /* DAPR_ENV_KEYS; NULL = unset */
        const char *sockets_folder;  /* DAPR_COMPONENTS_SOCKETS_FOLDER */
        const char *plugins_path;    /* DAPR_PLUGINS_PATH, "" if unset */
        bool trace_plugins;          /* MICRODAPR_TRACE_PLUGINS: calls to plugins have spans */
        const char *trust_anchors, *sentry_token_file, *host_ip; /* "" if unset */
        bool http_disable_h2c;
};

/* Reads flags and environment. 0; -ECANCELED when --help, --version, --build-info or --wait was answered (exit with 0);
 * -EINVAL with a sentence in err; -ENOMEM. --wait blocks up to 60 s. Strings are borrowed from argv and the environment. Nothing
 * is to be freed unless 0 was returned. */
int opts_parse(struct daprd_opts *o, int argc, char **argv, char *err, size_t err_n);
/* Checks values against each other and fills the fields marked (c). Logs what is deprecated. 0, or -EINVAL with the reference's
 * text in err. */
int opts_check(struct daprd_opts *o, char *err, size_t err_n);
void opts_fini(struct daprd_opts *o);
extern const struct flag_program daprd_program; /* for help, man page, completion */

/* Polls http://localhost:PORT/v1.0/healthz/outbound every 100 ms until it answers 204, at most timeout_s; tells on stderr what
 * it waits for. Blocks. True when it answered. */
bool wait_outbound_ready(int http_port, int timeout_s);

#endif
