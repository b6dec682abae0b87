/*
 * daprd's options: one table of flags, the environment, and the checks between them.
 *
 * Ports and quantities are kept as text by the table and read in opts_check(), because "" and "0" mean different things for
 * some and because the reference reports them as errors of the runtime (exit code 1), not of the command line (exit code 2).
 * The values of tokens and trust anchors never reach an error text.
 */
#include "kernel/opts.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/kernel.h"
#include "sdk/base/log.h"
#include "sdk/trust/lockfile.h"

#ifndef DAPR_COMMIT
#define DAPR_COMMIT "unknown"
#endif

enum { WAIT_OUTBOUND_SECONDS = 60, PORT_MAX = 65535 };

#define F(field) offsetof(struct daprd_opts, field)
static const struct flag_row rows[] = {
        {"General", FLAG_GROUP},
        {"mode", FLAG_STRING, F(mode), "standalone", "MODE", "Runtime mode: standalone or kubernetes"},
        {"app-id", FLAG_STRING, F(app_id), "", "ID", "Unique id of the app, for service discovery and state; required"},
        {"resources-path", FLAG_LIST, F(resources_path), NULL, "DIR",
         "Folder with resources (components, subscriptions, ...); may be repeated"},
        {"components-path", FLAG_STRING, F(components_path), "", "DIR", "Alias of --resources-path", FLAG_DEPRECATED,
         "use --resources-path"},
        {"config", FLAG_LIST, F(config), NULL, "FILE",
         "Configuration file, or name of a Configuration object in kubernetes mode; may be repeated in standalone mode"},
        {"version", FLAG_BOOL, F(version), "false", NULL, "Print the runtime version"},
        {"build-info", FLAG_BOOL, F(build_info), "false", NULL, "Print version and commit"},
        {"tolerate-component-errors", FLAG_BOOL, F(tolerate_component_errors), "false", NULL,
         "Go on without components that cannot start, whatever they say themselves; daprctl's throw-away sidecars do", FLAG_HIDDEN},
        {"wait", FLAG_BOOL, F(wait), "false", NULL, "Wait until a running daprd can serve outbound calls, at most 60 s"},

        {"The app", FLAG_GROUP},
        {"app-port", FLAG_STRING, F(text.app_port), "", "PORT", "Port that the app listens on"},
        {"app-protocol", FLAG_STRING, F(app_protocol), "http", "PROTOCOL", "Protocol of the app: grpc, grpcs, http, https, h2c"},
        {"app-channel-address", FLAG_STRING, F(app_channel_address), "127.0.0.1", "ADDRESS", "Address that the app listens on"},
        {"app-max-concurrency", FLAG_INT, F(app_max_concurrency), "-1", "N", "Calls to the app at a time; -1 = no limit"},
        {"app-ssl", FLAG_BOOL, F(app_ssl), "false", NULL, "Use TLS towards the app", FLAG_DEPRECATED,
         "use '--app-protocol https|grpcs'"},
        {"enable-app-health-check", FLAG_BOOL, F(enable_app_health_check), "false", NULL,
         "Check the app's health, with the protocol of --app-protocol"},
        {"app-health-check-path", FLAG_STRING, F(app_health_check_path), "/healthz", "PATH", "Path of health checks; HTTP only"},
        {"app-health-probe-interval", FLAG_INT, F(app_health_probe_interval), "5", "SECONDS", "Time between health probes"},
        {"app-health-probe-timeout", FLAG_INT, F(app_health_probe_timeout), "500", "MILLISECONDS", "Time-out of a health probe"},
        {"app-health-threshold", FLAG_INT, F(app_health_threshold), "3", "N", "Failures in a row until the app counts as unhealthy"},
        {"disable-init-endpoints", FLAG_LIST, F(disable_init_endpoints), NULL, "LIST",
         "Start-up calls not to make to the app: config, subscribe"},

        {"Dapr APIs", FLAG_GROUP},
        {"dapr-http-port", FLAG_STRING, F(text.http_port), "3500", "PORT", "HTTP port of the Dapr API"},
        {"dapr-grpc-port", FLAG_STRING, F(text.grpc_port), "50001", "PORT", "gRPC port of the Dapr API"},
        {"dapr-listen-addresses", FLAG_LIST, F(dapr_listen_addresses), NULL, "LIST",
         "Addresses on which the Dapr API listens; none = all", FLAG_LAST},
        {"dapr-internal-grpc-port", FLAG_STRING, F(text.internal_grpc_port), "", "PORT",
         "gRPC port between sidecars; none = one that stays the same for an app id"},
        {"dapr-internal-grpc-listen-address", FLAG_STRING, F(dapr_internal_grpc_listen_address), "", "ADDRESS",
         "Address of the gRPC port between sidecars"},
        {"dapr-public-port", FLAG_STRING, F(text.public_port), "", "PORT", "Public port for health and metadata"},
        {"dapr-public-listen-address", FLAG_STRING, F(dapr_public_listen_address), "", "ADDRESS",
         "Address of the public port for health and metadata"},
        {"unix-domain-socket", FLAG_STRING, F(unix_domain_socket), "", "DIR",
         "Folder for Unix sockets; the Dapr API then listens on them instead of on ports"},
        {"allowed-origins", FLAG_STRING, F(allowed_origins), "", "LIST", "Allowed HTTP origins; none = all"},
        {"max-body-size", FLAG_STRING, F(text.max_body_size), "4Mi", "QUANTITY",
         "Largest request body, as a quantity like 4Mi", .given = F(given.max_body_size)},
        {"dapr-http-max-request-size", FLAG_INT, F(dapr_http_max_request_size), "4", "MB", "Largest request body in MB",
         FLAG_DEPRECATED, "use '--max-body-size 4Mi'"},
        {"read-buffer-size", FLAG_STRING, F(text.read_buffer_size), "4Ki", "QUANTITY",
         "Read buffer, as a quantity like 4Ki; request headers must fit into it", .given = F(given.read_buffer_size)},
        {"dapr-http-read-buffer-size", FLAG_INT, F(dapr_http_read_buffer_size), "4", "KB", "Read buffer in KB",
         FLAG_DEPRECATED, "use '--read-buffer-size 4Ki'"},
        {"dapr-graceful-shutdown-seconds", FLAG_INT, F(dapr_graceful_shutdown_seconds), "5", "SECONDS",
         "Time for a graceful shutdown"},
        {"dapr-block-shutdown-duration", FLAG_DURATION, F(dapr_block_shutdown_duration_ns), NULL, "DURATION",
         "After a signal, go on until this time has passed or the app is unhealthy, before the graceful shutdown"},
        {"disable-builtin-k8s-secret-store", FLAG_BOOL, F(disable_builtin_k8s_secret_store), "false", NULL,
         "Do not offer the built-in Kubernetes secret store"},

        {"Control plane", FLAG_GROUP},
        {"control-plane-address", FLAG_STRING, F(control_plane_address), "", "ADDRESS", "Address of the operator"},
        {"control-plane-trust-domain", FLAG_STRING, F(control_plane_trust_domain), "localhost", "DOMAIN",
         "Trust domain of the control plane", .given = F(given.trust_domain)},
        {"control-plane-namespace", FLAG_STRING, F(control_plane_namespace), "default", "NAMESPACE",
         "Namespace of the control plane", .given = F(given.control_namespace)},
        {"sentry-address", FLAG_STRING, F(sentry_address), "", "ADDRESS", "Address of sentry"},
        {"sentry-request-jwt-audiences", FLAG_LIST, F(sentry_request_jwt_audiences), NULL, "LIST",
         "JWT audiences to ask of sentry; none = the trust domain"},
        {"enable-mtls", FLAG_BOOL, F(enable_mtls), "false", NULL, "Use mTLS between sidecars"},
        {"placement-host-address", FLAG_STRING, F(placement_host_address), "", "LIST", "Addresses of placement; none = no actors"},
        {"scheduler-host-address", FLAG_LIST, F(scheduler_host_address), NULL, "LIST", "Addresses of scheduler, host:port",
         .given = F(given.scheduler)},
        {"scheduler-job-streams", FLAG_INT, F(scheduler_job_streams), "3", "N", "Job streams to each scheduler"},
        {"actors-service", FLAG_STRING, F(actors_service), "", "TYPE:ADDRESS", "Has no effect", FLAG_HIDDEN | FLAG_DEPRECATED,
         "flag no longer has any effect"},
        {"reminders-service", FLAG_STRING, F(reminders_service), "", "TYPE:ADDRESS", "Has no effect",
         FLAG_HIDDEN | FLAG_DEPRECATED, "flag no longer has any effect"},

        {"Plugins", FLAG_GROUP},
        {"plugin-verify", FLAG_STRING, F(plugin_verify), "lock", "off|lock|signed",
         "What a plugin must be to be started: lock = what the lock file pins, when there is one; signed = signed by a key of the trust store, too"},
        {"plugin-lock", FLAG_STRING, F(plugin_lock), "", "FILE", "Lock file of plugins (default: plugins.lock in the working folder, if it is there)"},
        {"plugin-sandbox", FLAG_STRING, F(plugin_sandbox), "on", "on|off", "Confine each plugin process to what its manifest asks for"},
        {"plugin-linger", FLAG_DURATION, F(plugin_linger_ns), NULL, "DURATION",
         "After a crash of daprd its plugins go on for so long and the next daprd of the app id takes them over; at most 1h; none = they end with it"},

        {"Logs, metrics, profiles", FLAG_GROUP},
        {"log-level", FLAG_STRING, F(log_level), "info", "LEVEL", "debug, info, warn, error or fatal"},
        {"log-as-json", FLAG_BOOL, F(log_as_json), "false", NULL, "Write log lines as JSON"},
        {"log-file", FLAG_STRING, F(log_file), "", "FILE", "Append log lines to this file"},
        {"enable-subtle-crypto", FLAG_BOOL, F(enable_subtle_crypto), "false", NULL,
         "Serve the subtle crypto API: single operations with the keys of crypto components", FLAG_HIDDEN},
        {"enable-api-logging", FLAG_TRISTATE, F(enable_api_logging), NULL, NULL, "Log API calls; overrides the Configuration"},
        {"enable-metrics", FLAG_BOOL, F(enable_metrics), "true", NULL, "Serve Prometheus metrics"},
        {"metrics-port", FLAG_STRING, F(text.metrics_port), "9090", "PORT", "Port of the metrics server"},
        {"metrics-listen-address", FLAG_STRING, F(metrics_listen_address), "0.0.0.0", "ADDRESS", "Address of the metrics server"},
        {"enable-profiling", FLAG_BOOL, F(enable_profiling), "false", NULL, "Serve profiles"},
        {"profile-port", FLAG_STRING, F(text.profile_port), "7777", "PORT", "Port of the profile server"},
};
#undef F

const struct flag_program daprd_program = {
        .exits = "0 after a shutdown in good order; 1 after a fatal error, which is the last line of the log; 2 for wrong flags.",
        .name = "daprd",
        .summary = "the Dapr sidecar",
        .usage = "daprd --app-id ID [flags]",
        .examples = "  daprd --app-id orders --app-port 6000 --resources-path ./resources\n"
                    "  daprd --app-id orders --config ./config.yaml --log-level debug\n",
        .rows = rows,
        .n_rows = sizeof rows / sizeof *rows,
};

__attribute__((format(printf, 3, 4))) static int fail(char *err, size_t err_n, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err, err_n, fmt, ap);
        va_end(ap);
        return -EINVAL;
}

static const char *env_or(const char *name, const char *fallback)
{
        const char *v = getenv(name);
        return v ? v : fallback;
}

static void read_environment(struct daprd_opts *o)
{
        o->namespace_ = env_or("NAMESPACE", "");
        o->own_namespace = env_or("NAMESPACE", "default");
        o->api_token = env_or("DAPR_API_TOKEN", "");
        o->app_api_token = env_or("APP_API_TOKEN", "");
        o->pod_name = env_or("POD_NAME", "");
        o->env_keys = getenv("DAPR_ENV_KEYS");
        o->sockets_folder = env_or("DAPR_COMPONENTS_SOCKETS_FOLDER", "");
        if (!*o->sockets_folder)
                o->sockets_folder = DEFAULT_SOCKETS_FOLDER;
        o->plugins_path = env_or("DAPR_PLUGINS_PATH", "");
        o->trace_plugins = parse_truthy(getenv("MICRODAPR_TRACE_PLUGINS"));
        o->trust_anchors = env_or("DAPR_TRUST_ANCHORS", "");
        o->sentry_token_file = env_or("DAPR_SENTRY_TOKEN_FILE", "");
        o->host_ip = env_or("DAPR_HOST_IP", "");
        o->http_disable_h2c = parse_truthy(getenv("DAPR_HTTP_DISABLE_H2C"));
        if (!o->given.control_namespace)
                o->control_plane_namespace = env_or("DAPR_CONTROLPLANE_NAMESPACE", o->control_plane_namespace);
        if (!o->given.trust_domain)
                o->control_plane_trust_domain = env_or("DAPR_CONTROLPLANE_TRUST_DOMAIN", o->control_plane_trust_domain);
}

/* Scheduler's addresses by way of its DNS name, as the injector sets it. */
static int read_scheduler_env(struct daprd_opts *o)
{
        const char *text = env_or("DAPR_SCHEDULER_HOST_ADDRESS_DNS_A", "");
        size_t most = 1;

        if (o->given.scheduler || !*text)
                return 0;
        for (const char *c = text; *c; c++)
                most += *c == ',';
        const char **list = calloc(most, sizeof *list);
        char *copy = strdup(text), *save = NULL;
        if (!list || !copy) {
                free(list);
                free(copy);
                return -ENOMEM;
        }
        o->scheduler_env = copy;
        o->scheduler_host_address = (struct flag_list){list, 0};
        for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save))
                list[o->scheduler_host_address.n++] = t;
        return 0;
}

/* A size given as a quantity wins over the deprecated flag that counts in units of 1 << shift bytes. */
static int read_size(const char *flag, const char *text, bool given, int deprecated, int shift, int64_t fallback,
                     int64_t *ret, char *err, size_t err_n)
{
        int64_t v = deprecated > 0 ? (int64_t)deprecated << shift : deprecated;
        if (given && parse_quantity(str_of(text), &v) != 0)
                return fail(err, err_n, "invalid value for '%s' option: \"%s\" is not a quantity; write a number of bytes, or one "
                                        "with a unit like 4Mi or 64Ki", flag, text);
        *ret = v == -1 ? fallback : v;
        return 0;
}

static int read_sizes(struct daprd_opts *o, char *err, size_t err_n)
{
        int r = read_size("max-body-size", o->text.max_body_size, o->given.max_body_size, o->dapr_http_max_request_size, 20,
                          DEFAULT_MAX_BODY_BYTES, &o->max_body_size, err, err_n);
        if (r == 0)
                r = read_size("read-buffer-size", o->text.read_buffer_size, o->given.read_buffer_size, o->dapr_http_read_buffer_size,
                              10, DEFAULT_READ_BUFFER_BYTES, &o->read_buffer_size, err, err_n);
        return r;
}

/* A port, or a negative number: none. Dapr's CLI gives -1 for ports that are not wanted. */
static int read_port_or_none(const char *what, const char *text, int *ret, char *err, size_t err_n)
{
        const char *digits = text + (*text == '-' || *text == '+');
        size_t n = strlen(digits);
        long v;

        if (n == 0 || strspn(digits, "0123456789") != n)
                return fail(err, err_n, "%s: strconv.Atoi: parsing \"%s\": invalid syntax", what, text);
        errno = 0;
        v = strtol(text, NULL, 10);
        if (errno == ERANGE)
                return fail(err, err_n, "%s: strconv.Atoi: parsing \"%s\": value out of range", what, text);
        if (v > PORT_MAX)
                return fail(err, err_n, "%s: %ld is not a port; give a number from 0 to %d", what, v, PORT_MAX);
        *ret = v < 0 ? -1 : (int)v;
        return 0;
}

/* As strconv.Atoi, with its texts; besides, the number must be a port. */
static int read_port(const char *what, const char *text, int *ret, char *err, size_t err_n)
{
        int r = read_port_or_none(what, text, ret, err, err_n);
        return r || *ret >= 0 ? r : fail(err, err_n, "%s: %s is not a port; give a number from 0 to %d", what, text, PORT_MAX);
}

static int check_ports(struct daprd_opts *o, char *err, size_t err_n)
{
        int r;

        if ((r = read_port("error parsing dapr-http-port flag", o->text.http_port, &o->dapr_http_port, err, err_n)))
                return r;
        if ((r = read_port("error parsing dapr-grpc-port flag", o->text.grpc_port, &o->dapr_grpc_port, err, err_n)))
                return r;
        if ((r = (o->enable_profiling ? read_port : read_port_or_none)("error parsing profile-port flag", o->text.profile_port,
                                                                       &o->profile_port, err, err_n)))
                return r;
        o->dapr_internal_grpc_port = o->dapr_public_port = -1;
        o->app_port = 0;
        if (*o->text.internal_grpc_port && strcmp(o->text.internal_grpc_port, "0") != 0 &&
            (r = read_port("error parsing dapr-internal-grpc-port", o->text.internal_grpc_port, &o->dapr_internal_grpc_port, err,
                           err_n)))
                return r;
        if (*o->text.public_port &&
            (r = read_port("error parsing dapr-public-port", o->text.public_port, &o->dapr_public_port, err, err_n)))
                return r;
        if (*o->text.app_port && (r = read_port_or_none("error parsing app-port", o->text.app_port, &o->app_port, err, err_n)))
                return r;
        if (o->app_port < 0)
                o->app_port = 0;
        if (o->app_port == o->dapr_http_port)
                return fail(err, err_n, "the 'dapr-http-port' argument value %d conflicts with 'app-port'", o->dapr_http_port);
        if (o->app_port == o->dapr_grpc_port)
                return fail(err, err_n, "the 'dapr-grpc-port' argument value %d conflicts with 'app-port'", o->dapr_grpc_port);
        return 0;
}

/* app-ssl turns http into https and grpc into grpcs. */
static int check_protocol(struct daprd_opts *o, char *err, size_t err_n)
{
        static const struct {
                const char *name, *with_ssl;
        } known[] = {{"grpcs", NULL}, {"https", NULL}, {"h2c", NULL}, {"http", "https"}, {"grpc", "grpcs"}};

        if (!*o->app_protocol) {
                o->app_protocol = "http";
                return 0;
        }
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
                if (strcasecmp(o->app_protocol, known[i].name) != 0)
                        continue;
                o->app_protocol = known[i].name;
                if (o->app_ssl && known[i].with_ssl) {
                        o->app_protocol = known[i].with_ssl;
                        log_warn("dapr.runtime", "The 'app-ssl' flag is deprecated; use 'app-protocol=%s' instead",
                                 o->app_protocol);
                }
                return 0;
        }
        return fail(err, err_n, "invalid value for 'app-protocol': %s", o->app_protocol);
}

static int check_sandbox(struct daprd_opts *o, char *err, size_t err_n)
{
        o->plugin_sandbox_off = strcasecmp(o->plugin_sandbox, "off") == 0;
        if (o->plugin_sandbox_off || strcasecmp(o->plugin_sandbox, "on") == 0)
                return 0;
        return fail(err, err_n, "invalid value for 'plugin-sandbox': %s; use on or off", o->plugin_sandbox);
}

/* Where the lock file is, is decided once: one that goes away later is an error then. */
static int check_verify(struct daprd_opts *o, char *err, size_t err_n)
{
        bool named = *o->plugin_lock;
        if (!verify_policy_read(o->plugin_verify, &o->plugin_verify_policy))
                return fail(err, err_n, "invalid value for 'plugin-verify': %s; use off, lock or signed", o->plugin_verify);
        o->lock_path = realpath(named ? o->plugin_lock : LOCK_FILE, NULL);
        if (!o->lock_path && (named || errno != ENOENT))
                return fail(err, err_n, "invalid value for 'plugin-lock': %s: %s", named ? o->plugin_lock : LOCK_FILE, strerrordesc_np(errno));
        o->plugin_lock = o->lock_path ? o->lock_path : "";
        return 0;
}

static int check_init_endpoints(struct daprd_opts *o, char *err, size_t err_n)
{
        o->disable_config_endpoint = o->disable_subscribe_endpoint = false;
        for (size_t i = 0; i < o->disable_init_endpoints.n; i++) {
                struct str e = str_trim(str_of(o->disable_init_endpoints.v[i]));
                if (e.n == 0)
                        continue;
                if (str_ieq(e, STR("config")))
                        o->disable_config_endpoint = true;
                else if (str_ieq(e, STR("subscribe")))
                        o->disable_subscribe_endpoint = true;
                else
                        return fail(err, err_n, "invalid value for 'disable-init-endpoints': %.*s", STR_FMT(e));
        }
        return 0;
}

static int check_app_health(struct daprd_opts *o, char *err, size_t err_n)
{
        if (o->app_health_probe_interval <= 0)
                o->app_health_probe_interval = DEFAULT_PROBE_INTERVAL_SECONDS;
        if (o->app_health_probe_timeout <= 0)
                o->app_health_probe_timeout = DEFAULT_PROBE_TIMEOUT_MS;
        if (o->app_health_threshold < 1 || o->app_health_threshold == INT_MAX)
                o->app_health_threshold = DEFAULT_PROBE_THRESHOLD;
        if (o->app_health_probe_timeout > (int64_t)o->app_health_probe_interval * 1000)
                return fail(err, err_n, "value for 'health-probe-timeout' must be smaller than 'health-probe-interval'");
        return 0;
}

static bool is_trust_domain(const char *name)
{
        return *name && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == strlen(name);
}

static int check_identity(const struct daprd_opts *o, char *err, size_t err_n)
{
        if (strcmp(o->mode, "kubernetes") == 0)
                return 0;
        if (strcmp(o->mode, "standalone") != 0)
                return fail(err, err_n, "invalid mode: %s; use standalone or kubernetes", o->mode);
        if (!*o->app_id)
                return fail(err, err_n, "parameter app-id cannot be empty");
        if (!is_trust_domain(o->control_plane_trust_domain))
                return fail(err, err_n, "invalid control plane trust domain: trust domain characters are limited to lowercase letters, numbers, dots, "
                                        "dashes, and underscores");
        if (strchr(o->app_id, '.'))
                return fail(err, err_n, "parameter app-id cannot contain dots");
        return 0;
}

static int check_linger(struct daprd_opts *o, char *err, size_t err_n)
{
        if (o->plugin_linger_ns < 0)
                o->plugin_linger_ns = 0;
        if (o->plugin_linger_ns > PLUGIN_LINGER_MAX_S * INT64_C(1000000000))
                return fail(err, err_n, "invalid value for --plugin-linger: at most %d s; plugins without a daprd are of no use for longer", PLUGIN_LINGER_MAX_S);
        return 0;
}

int opts_check(struct daprd_opts *o, char *err, size_t err_n)
{
        int r;

        if (o->resources_path.n == 0 && *o->components_path) {
                o->alias_path[0] = o->components_path;
                o->resources_path = (struct flag_list){o->alias_path, 1};
        }
        if ((r = read_sizes(o, err, err_n)) || (r = check_identity(o, err, err_n)) || (r = check_ports(o, err, err_n)))
                return r;
        if (o->dapr_graceful_shutdown_seconds < 0)
                o->dapr_graceful_shutdown_seconds = DEFAULT_GRACEFUL_SHUTDOWN_SECONDS;
        if (o->app_max_concurrency < 0)
                o->app_max_concurrency = 0;
        if ((r = check_protocol(o, err, err_n)) || (r = check_sandbox(o, err, err_n)) || (r = check_verify(o, err, err_n)) ||
            (r = check_linger(o, err, err_n)) || (r = check_init_endpoints(o, err, err_n)) ||
            (r = check_app_health(o, err, err_n)))
                return r;
        o->metrics_port = 0;
        if (o->enable_metrics)
                r = read_port("failed to parse metrics port", o->text.metrics_port, &o->metrics_port, err, err_n);
        return r;
}

static int answer(struct daprd_opts *o)
{
        if (o->version)
                puts(DAPR_VERSION);
        else if (o->build_info)
                printf("Version: %s\nGit Commit: %s\nGit Version: %s\n", DAPR_VERSION, DAPR_COMMIT, DAPR_VERSION);
        else if (o->wait)
                wait_outbound_ready(atoi(o->text.http_port), WAIT_OUTBOUND_SECONDS);
        else
                return 0;
        fflush(stdout);
        return -ECANCELED;
}

static int read_rest(struct daprd_opts *o, char *err, size_t err_n)
{
        read_environment(o);
        if (read_scheduler_env(o)) {
                snprintf(err, err_n, "out of memory");
                return -ENOMEM;
        }
        if (o->scheduler_job_streams < 0)
                return fail(err, err_n, "invalid argument \"%d\" for \"--scheduler-job-streams\" flag: give zero or more",
                            o->scheduler_job_streams);
        return answer(o);
}

int opts_parse(struct daprd_opts *o, int argc, char **argv, char *err, size_t err_n)
{
        int r;

        *o = (struct daprd_opts){0};
        r = flags_parse(&daprd_program, o, argc, argv, err, err_n);
        if (r < 0)
                return r;
        r = read_rest(o, err, err_n);
        if (r)
                opts_fini(o);
        return r;
}

void opts_fini(struct daprd_opts *o)
{
        free(o->lock_path);
        o->lock_path = NULL;
        if (o->resources_path.v == o->alias_path)
                o->resources_path = (struct flag_list){0};
        if (o->scheduler_env) {
                free(o->scheduler_host_address.v);
                free(o->scheduler_env);
                o->scheduler_env = NULL;
                o->scheduler_host_address = (struct flag_list){0};
        }
        flags_free(&daprd_program, o);
}
