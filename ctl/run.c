/* `run`: its flags, and what they make: one app with its sidecar, or those of a run file. */
#include <stdio.h>
#include <stdlib.h>

#include "ctl/run.h"

#define O(f) offsetof(struct run_opts, f)
static const struct flag_row run_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The id for your application, used for service discovery", .short_name = 'a'},
        {"app-port", FLAG_INT, O(app_port), "-1", "PORT", "The port your application is listening on", .short_name = 'p'},
        {"app-protocol", FLAG_STRING, O(app_protocol), "http", "NAME", "The protocol (grpc, grpcs, http, https, h2c) Dapr uses to talk to the application", .short_name = 'P'},
        {"app-channel-address", FLAG_STRING, O(app_channel_address), "127.0.0.1", "HOST", "The network address the application listens on"},
        {"app-max-concurrency", FLAG_INT, O(max_concurrency), "-1", "N", "The concurrency level of the application, otherwise is unlimited"},
        {"run-file", FLAG_STRING, O(run_file), "", "PATH", "Run file with several apps, its folder, or - for standard input", .short_name = 'f'},
        {"resources-path", FLAG_LIST, O(resources_path), "", "DIR", "The path for resources directory; may be repeated"},
        {"config", FLAG_STRING, O(config), "", "FILE", "Dapr configuration file", .short_name = 'c'},
        {"dapr-http-port", FLAG_INT, O(http_port), "-1", "PORT", "The HTTP port for Dapr to listen on (default: a free one)", .short_name = 'H'},
        {"dapr-grpc-port", FLAG_INT, O(grpc_port), "-1", "PORT", "The gRPC port for Dapr to listen on (default: a free one)", .short_name = 'G'},
        {"dapr-internal-grpc-port", FLAG_INT, O(internal_grpc_port), "-1", "PORT", "The gRPC port for the Dapr internal API to listen on", .short_name = 'I'},
        {"dapr-listen-addresses", FLAG_STRING, O(listen_addresses), "", "IPS", "Comma separated list of IP addresses that sidecar will listen to"},
        {"unix-domain-socket", FLAG_STRING, O(socket), "", "DIR", "Path to a unix domain socket dir; Dapr API servers will use Unix Domain Sockets", .short_name = 'u'},
        {"metrics-port", FLAG_INT, O(metrics_port), "-1", "PORT", "The port of metrics on dapr", .short_name = 'M'},
        {"enable-profiling", FLAG_BOOL, O(enable_profiling), "false", NULL, "Enable profiling via an HTTP endpoint"},
        {"profile-port", FLAG_INT, O(profile_port), "-1", "PORT", "The port for the profile server to listen on"},
        {"log-level", FLAG_STRING, O(log_level), "info", "LEVEL", "The log verbosity. Valid values are: debug, info, warn, error, fatal, or panic"},
        {"enable-api-logging", FLAG_BOOL, O(enable_api_logging), "false", NULL, "Log API calls at INFO verbosity"},
        {"max-body-size", FLAG_STRING, O(max_body_size), "4Mi", "SIZE", "Max size of the request body"},
        {"read-buffer-size", FLAG_STRING, O(read_buffer_size), "4Ki", "SIZE", "HTTP header read buffer"},
        {"enable-app-health-check", FLAG_BOOL, O(enable_health), "false", NULL, "Enable health checks for the application using the protocol defined with app-protocol"},
        {"app-health-check-path", FLAG_STRING, O(health_path), "", "PATH", "Path used for health checks; HTTP only"},
        {"app-health-probe-interval", FLAG_INT, O(health_interval), "0", "SECONDS", "Interval to probe for the health of the app in seconds"},
        {"app-health-probe-timeout", FLAG_INT, O(health_timeout), "0", "MS", "Timeout for app health probes in milliseconds"},
        {"app-health-threshold", FLAG_INT, O(health_threshold), "0", "N", "Number of consecutive failures for the app to be considered unhealthy"},
        {"placement-host-address", FLAG_STRING, O(placement), "localhost", "ADDR", "The address of the placement service; empty disables it", .given = O(placement_given)},
        {"scheduler-host-address", FLAG_STRING, O(scheduler), "localhost", "ADDR", "The address of the scheduler service; empty disables it", .given = O(scheduler_given)},
        CTL_GLOBAL_ROWS(run_opts),
        {"kubernetes", FLAG_BOOL, O(kubernetes), "false", NULL, "Run the multi-app run template against a Kubernetes environment", .short_name = 'k'},
        {"components-path", FLAG_STRING, O(components_path), "", "DIR", "The path for components directory", FLAG_DEPRECATED, "use --resources-path", .short_name = 'd'},
        {"app-ssl", FLAG_BOOL, O(app_ssl), "false", NULL, "Enable https when Dapr invokes the application", FLAG_DEPRECATED, "use --app-protocol https or grpcs"},
};
#undef O
const struct flag_program run_program = {
        .exits = "the app's; 128 and the signal's number when one ended it; 1 when app or sidecar cannot be started, or the sidecar is lost.",
        .name = "dapr run", .summary = "Run Dapr and (optionally) your application side by side", .usage = "dapr run [flags] [-- COMMAND [ARG ...]]",
        .examples = "  # An app that listens on port 3000\n  dapr run --app-id myapp --app-port 3000 -- node app.js\n\n"
                    "  # An app that only calls Dapr\n  dapr run --app-id myapp -- python3 myapp.py\n\n  # A sidecar alone\n  dapr run --app-id myapp\n\n"
                    "  # Several apps\n  dapr run -f dapr.yaml\n",
        .rows = run_rows, .n_rows = sizeof(run_rows) / sizeof(*run_rows)};

/* Flags that say something else than their default, but for those that go with --run-file. */
static void warn_ignored(struct arena *a, const struct run_opts *o, const struct run_opts *defaults)
{
        static const char *const fine[] = {"run-file", "kubernetes", "runtime-path", "log-as-json"};
        const char *list = "";
        for (size_t i = 0; i < run_program.n_rows; i++) {
                const struct flag_row *row = &run_rows[i];
                const void *x = (const char *)o + row->offset, *y = (const char *)defaults + row->offset;
                bool differs = row->kind == FLAG_BOOL     ? *(const bool *)x != *(const bool *)y
                               : row->kind == FLAG_INT    ? *(const int *)x != *(const int *)y
                               : row->kind == FLAG_STRING ? strcmp(*(const char *const *)x, *(const char *const *)y) != 0
                                                          : ((const struct flag_list *)x)->n > 0;
                for (size_t k = 0; k < sizeof(fine) / sizeof(*fine); k++)
                        differs &= strcmp(row->name, fine[k]) != 0;
                if (differs)
                        list = arena_printf(a, "%s%s%s", list, *list ? ", " : "", row->name);
        }
        if (*list)
                ui_say(UI_WARNING, "The following flags are ignored when using --run-file and should be configured in the run file instead: %s", list);
}

static int run_file(struct arena *a, const struct run_opts *o)
{
        struct run_opts defaults;
        struct run_app *apps = NULL;
        size_t n = 0;
        char *argv[] = {(char *)"dapr", NULL}, err[128];
        if (flags_parse(&run_program, &defaults, 1, argv, err, sizeof(err)) < 0)
                return 1;
        warn_ignored(a, o, &defaults);
        defaults.globals = o->globals;
        int code = runfile_read(a, o->run_file, &defaults, &apps, &n);
        if (!code)
                code = run_apps(a, apps, n);
        flags_free(&run_program, &defaults);
        return code;
}

static int run_single(struct arena *a, const struct run_opts *o, int argc, char **argv)
{
        struct run_app one = {.o = *o, .app_dest = DEST_CONSOLE, .daprd_dest = DEST_CONSOLE,
                              .resources = o->resources_path.v, .n_resources = o->resources_path.n};
        if (argc == 0)
                printf("WARNING: no application command found.\n");
        else {
                one.command = arena_zalloc(a, ((size_t)argc + 1) * sizeof(*one.command));
                if (!one.command)
                        return 1;
                memcpy(one.command, argv, (size_t)argc * sizeof(*argv));
        }
        if (*o->socket)
                ui_say(UI_WARNING, "Unix domain sockets are currently a preview feature");
        return run_apps(a, &one, 1);
}

int run_run(void *opts, int argc, char **argv)
{
        struct run_opts *o = opts;
        if (o->kubernetes)
                return kubernetes_refused("run");
        struct arena a;
        arena_init(&a, 0);
        int code = *o->run_file ? run_file(&a, o) : run_single(&a, o, argc, argv);
        arena_fini(&a);
        return code;
}
