/*
 * `run`: a sidecar and an app side by side. Life: sidecar -> (its health) -> app -> metadata -> wait for an end -> stop both.
 * Without an app port the app waits for the sidecar; with one the sidecar waits for the app, so both start at once.
 * Exit code: the app's; 1 when the sidecar ended first; 0 after a stop that was asked for.
 */
#include "ctl/run.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/loop.h"
#include "sdk/net/conn.h"

enum { START_TIMEOUT_S = 60, STOP_TIMEOUT_S = 15, SIDECAR_FLAGS_MAX = 96 };

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
        {"placement-host-address", FLAG_STRING, O(placement), "localhost", "ADDR", "The address of the placement service; empty disables it"},
        {"scheduler-host-address", FLAG_STRING, O(scheduler), "localhost", "ADDR", "The address of the scheduler service; empty disables it"},
        {"runtime-path", FLAG_STRING, O(runtime_path), "", "DIR", "The path to the dapr runtime installation directory"},
        {"kubernetes", FLAG_BOOL, O(kubernetes), "false", NULL, "Run the multi-app run template against a Kubernetes environment", .short_name = 'k'},
        {"components-path", FLAG_STRING, O(components_path), "", "DIR", "The path for components directory", FLAG_DEPRECATED, "use --resources-path", .short_name = 'd'},
        {"app-ssl", FLAG_BOOL, O(app_ssl), "false", NULL, "Enable https when Dapr invokes the application", FLAG_DEPRECATED, "use --app-protocol https or grpcs"},
};
#undef O
const struct flag_program run_program = {
        .name = "dapr run", .summary = "Run Dapr and (optionally) your application side by side", .usage = "dapr run [flags] [-- COMMAND [ARG ...]]",
        .examples = "  # An app that listens on port 3000\n  dapr run --app-id myapp --app-port 3000 -- node app.js\n\n"
                    "  # An app that only calls Dapr\n  dapr run --app-id myapp -- python3 myapp.py\n\n  # A sidecar alone\n  dapr run --app-id myapp\n\n"
                    "  # Several apps\n  dapr run -f dapr.yaml\n",
        .rows = run_rows, .n_rows = sizeof(run_rows) / sizeof(*run_rows)};

/* ---- prepare ---- */

static int free_port(void)
{
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof(sa);
        int port = fd >= 0 && bind(fd, (struct sockaddr *)&sa, n) == 0 && getsockname(fd, (struct sockaddr *)&sa, &n) == 0
                           ? ntohs(sa.sin_port) : -1;
        if (fd >= 0)
                close(fd);
        return port;
}

static bool port_is_free(int port)
{
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
        struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        if (fd < 0)
                return false;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        bool ok = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, 1) == 0;
        close(fd);
        return ok;
}

static int choose_port(const char *what, int *port)
{
        if (*port <= 0) {
                *port = free_port();
                return *port > 0 ? 0 : 1;
        }
        if (*port <= 65535 && port_is_free(*port))
                return 0;
        ui_say(UI_FAILURE, "invalid configuration for %s. Port %d is not available", what, *port);
        return 1;
}

/* A service of the control plane is used when it was named, or when something answers at its default place. */
static const char *control_plane(struct arena *a, const char *addr, bool given, int default_port)
{
        if (!*addr)
                return "";
        if (!strchr(addr, ':'))
                addr = arena_printf(a, "%s:%d", addr, default_port);
        if (given || !addr)
                return addr;
        struct conn *c = NULL;
        double old = fiber_deadline();
        fiber_set_deadline(loop_now_exact() + 0.3);
        int r = conn_dial(str_of(addr), &c);
        fiber_restore_deadline(old);
        conn_free(c);
        return r ? "" : addr;
}

static int check_resources(const struct run_app *r)
{
        for (size_t i = 0; i < r->n_resources; i++)
                if (!path_exists(r->resources[i])) {
                        ui_say(UI_FAILURE, "error validating resources path \"%s\": no such folder. Run dapr init to make the default one.", r->resources[i]);
                        return 1;
                }
        return 0;
}

static const char *new_app_id(struct arena *a)
{
        static const char *const first[] = {"amber", "brisk", "calm", "dapper", "eager", "fern", "gentle", "honest", "ivory", "jolly", "keen", "lunar"};
        static const char *const second[] = {"badger", "comet", "dolphin", "ember", "falcon", "glacier", "heron", "island", "juniper", "kestrel", "lynx", "meadow"};
        uint64_t h = (uint64_t)wall_ns() / 1000 + (uint64_t)getpid();
        return arena_printf(a, "%s-%s-%d", first[h % 12], second[h / 12 % 12], (int)(h / 144 % 1000));
}

int run_app_prepare(struct arena *a, struct run_app *r)
{
        struct run_opts *o = &r->o;
        if (!*o->app_id)
                o->app_id = new_app_id(a);
        const char *dapr_dir = path_dapr_dir(a, o->runtime_path);
        const char *config = dapr_dir ? path_join(a, dapr_dir, "config.yaml") : NULL;
        if (!*o->config && path_exists(config))
                o->config = config;
        if (r->n_resources == 0) {
                const char **one = arena_alloc(a, sizeof(*one));
                const char *dir = *o->components_path ? o->components_path : dapr_dir ? path_join(a, dapr_dir, "components") : NULL;
                if (one && dir && (*o->components_path || path_exists(dir))) {
                        one[0] = dir;
                        r->resources = one;
                        r->n_resources = 1;
                }
        }
        if (check_resources(r))
                return 1;
        if (*o->socket)
                o->http_port = o->grpc_port = 0;
        else if (choose_port("HTTPPort", &o->http_port) || choose_port("GRPCPort", &o->grpc_port))
                return 1;
        if (choose_port("MetricsPort", &o->metrics_port) || choose_port("InternalGRPCPort", &o->internal_grpc_port) ||
            (o->enable_profiling && choose_port("ProfilePort", &o->profile_port)))
                return 1;
        if (o->app_port < 0)
                o->app_port = 0;
        if (o->max_concurrency < 1)
                o->max_concurrency = -1;
        o->placement = control_plane(a, o->placement, r->placement_set, 50005);
        o->scheduler = control_plane(a, o->scheduler, r->scheduler_set, 50006);
        return 0;
}

/* ---- command lines ---- */

struct args {
        struct arena *a;
        char *v[SIDECAR_FLAGS_MAX];
        size_t n;
};

static void add(struct args *x, const char *name, const char *value)
{
        if (value && *value && x->n + 3 < SIDECAR_FLAGS_MAX) {
                x->v[x->n++] = (char *)name;
                x->v[x->n++] = (char *)value;
        }
}

static void add_int(struct args *x, const char *name, int value, bool always)
{
        if (always || value > 0)
                add(x, name, arena_printf(x->a, "%d", value));
}

static void add_switch(struct args *x, const char *name, bool on)
{
        if (on && x->n + 2 < SIDECAR_FLAGS_MAX)
                x->v[x->n++] = (char *)name;
}

static void sidecar_args(struct args *x, const struct run_app *r, const char *program)
{
        const struct run_opts *o = &r->o;
        x->v[x->n++] = (char *)program;
        add(x, "--app-id", o->app_id);
        add_int(x, "--app-port", o->app_port, false);
        if (strcmp(o->app_channel_address, "127.0.0.1") != 0)
                add(x, "--app-channel-address", o->app_channel_address);
        if (!*o->socket) {
                add_int(x, "--dapr-http-port", o->http_port, true);
                add_int(x, "--dapr-grpc-port", o->grpc_port, true);
        }
        add_int(x, "--metrics-port", o->metrics_port, true);
        add_int(x, "--dapr-internal-grpc-port", o->internal_grpc_port, true);
        add(x, "--unix-domain-socket", o->socket);
        add(x, "--config", o->config);
        add(x, "--app-protocol", o->app_protocol);
        add(x, "--dapr-listen-addresses", o->listen_addresses);
        add_switch(x, "--enable-profiling", o->enable_profiling);
        if (o->enable_profiling)
                add_int(x, "--profile-port", o->profile_port, true);
        add(x, "--log-level", o->log_level);
        add_int(x, "--app-max-concurrency", o->max_concurrency, true);
        add(x, "--placement-host-address", o->placement);
        add(x, "--scheduler-host-address", o->scheduler);
        for (size_t i = 0; i < r->n_resources; i++)
                add(x, "--resources-path", r->resources[i]);
        add_switch(x, "--app-ssl", o->app_ssl);
        add(x, "--max-body-size", o->max_body_size);
        add(x, "--read-buffer-size", o->read_buffer_size);
        add_switch(x, "--enable-app-health-check", o->enable_health);
        add(x, "--app-health-check-path", o->health_path);
        add_int(x, "--app-health-probe-interval", o->health_interval, false);
        add_int(x, "--app-health-probe-timeout", o->health_timeout, false);
        add_int(x, "--app-health-threshold", o->health_threshold, false);
        add_switch(x, "--enable-api-logging", o->enable_api_logging);
        add_switch(x, "--log-as-json", ui_is_json_log());
        x->v[x->n] = NULL;
}

static void env_set(struct arena *a, char **env, size_t *n, const char *pair)
{
        size_t len = (size_t)(strchrnul(pair, '=') - pair) + 1;
        for (size_t i = 0; i < *n; i++)
                if (strncmp(env[i], pair, len) == 0) {
                        env[i] = (char *)pair;
                        return;
                }
        env[(*n)++] = (char *)pair;
        env[*n] = NULL;
}

static char **app_env(struct arena *a, const struct run_app *r)
{
        const struct run_opts *o = &r->o;
        size_t n = 0;
        while (environ[n])
                n++;
        char **env = arena_alloc(a, (n + r->n_env + 16) * sizeof(*env));
        if (!env)
                return NULL;
        memcpy(env, environ, (n + 1) * sizeof(*env));
        const struct { const char *name; int value; } numbers[] = {{"APP_PORT", o->app_port}, {"DAPR_HTTP_PORT", o->http_port},
                                                                   {"DAPR_GRPC_PORT", o->grpc_port}, {"DAPR_METRICS_PORT", o->metrics_port}};
        env_set(a, env, &n, arena_printf(a, "APP_ID=%s", o->app_id));
        env_set(a, env, &n, arena_printf(a, "APP_CHANNEL_ADDRESS=%s", o->app_channel_address));
        env_set(a, env, &n, arena_printf(a, "APP_PROTOCOL=%s", o->app_ssl && strcmp(o->app_protocol, "http") == 0 ? "https"
                                                               : o->app_ssl && strcmp(o->app_protocol, "grpc") == 0 ? "grpcs" : o->app_protocol));
        for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
                if (numbers[i].value > 0)
                        env_set(a, env, &n, arena_printf(a, "%s=%d", numbers[i].name, numbers[i].value));
        for (size_t i = 0; i < r->n_env; i++)
                env_set(a, env, &n, r->env[i]);
        return env;
}

/* ---- output ---- */

static void write_line(FILE *to, const char *prefix, const char *color, struct str line)
{
        bool c = color && ui_color(fileno(to));
        fprintf(to, "%s%s%s%.*s\n", c ? color : "", prefix, c ? "\033[0m" : "", STR_FMT(line));
        fflush(to);
}

static void on_daprd_line(void *arg, struct str line, bool is_stderr)
{
        struct run_app *r = arg;
        if (r->daprd_dest & DEST_CONSOLE)
                write_line(is_stderr ? stderr : stdout, "", NULL, line);
        if (r->daprd_log)
                write_line(r->daprd_log, "", NULL, line);
}

static void on_app_line(void *arg, struct str line, bool is_stderr)
{
        struct run_app *r = arg;
        char prefix[160] = "== APP == ";
        if (r->several)
                snprintf(prefix, sizeof(prefix), "== APP - %s == ", r->o.app_id);
        if (r->app_dest & DEST_CONSOLE)
                write_line(is_stderr ? stderr : stdout, prefix, "\033[94m", line);
        if (r->app_log)
                write_line(r->app_log, "", NULL, line);
}

/* ---- life ---- */

static struct sidecar as_sidecar(const struct run_app *r)
{
        return (struct sidecar){.app_id = r->o.app_id, .http_port = r->o.http_port, .socket = *r->o.socket ? r->o.socket : NULL};
}

static bool wait_healthy(struct arena *a, struct run_app *r, const char *path)
{
        struct sidecar s = as_sidecar(r);
        double until = loop_now_exact() + START_TIMEOUT_S;
        while (!r->daprd->exited && !fiber_is_cancelled() && loop_now_exact() < until) {
                int status = 0;
                struct str body;
                if (sidecar_http(a, &s, "GET", path, STR_NULL, 2, &status, &body) == 0 && status == 204)
                        return true;
                if (fiber_sleep(0.02))
                        return false;
        }
        return false;
}

static void put_metadata(struct arena *a, struct run_app *r, const char *key, const char *value)
{
        struct sidecar s = as_sidecar(r);
        int status = 0;
        struct str body;
        const char *path = arena_printf(a, "/v1.0/metadata/%s", key);
        int e = value && path ? sidecar_http(a, &s, "PUT", path, str_of(value), 5, &status, &body) : -ENOMEM;
        if (e || status != 204)
                ui_say(UI_WARNING, "Could not update sidecar metadata for %s: %s", key, e ? strerror(-e) : "unexpected answer");
}

static int start_daprd(struct arena *a, struct run_app *r)
{
        const char *program = path_program(a, r->o.runtime_path, "daprd");
        if (!program) {
                ui_say(UI_FAILURE, "daprd was not found beside this program, in ~/.dapr/bin or in PATH");
                return 1;
        }
        struct args *x = arena_zalloc(a, sizeof(*x));
        if (!x)
                return 1;
        x->a = a;
        sidecar_args(x, r, program);
        struct process_options po = {.on_line = on_daprd_line, .arg = r, .own_group = true, .die_with_us = true, .dir = r->dir};
        int e = process_start(&r->daprd, x->v, &po);
        if (e)
                ui_say(UI_FAILURE, "Could not start %s: %s", program, strerror(-e));
        return e ? 1 : 0;
}

static int start_app(struct arena *a, struct run_app *r)
{
        if (!r->command)
                return 0;
        struct process_options po = {.on_line = on_app_line, .arg = r, .env = app_env(a, r), .dir = r->dir, .die_with_us = true};
        int e = process_start(&r->app, r->command, &po);
        if (e)
                ui_say(UI_FAILURE, "Failed to start the command %s: %s", r->command[0], strerror(-e));
        return e ? 1 : 0;
}

static const char *join_command(struct arena *a, char **command)
{
        struct buf b = {0};
        for (char **p = command; *p; p++)
                buf_printf(&b, "%s%s", p == command ? "" : " ", *p);
        const char *z = arena_strdup(a, buf_str(&b));
        buf_fini(&b);
        return z;
}

static void announce(struct arena *a, struct run_app *r)
{
        put_metadata(a, r, "cliPID", arena_printf(a, "%d", (int)getpid()));
        if (r->app) {
                put_metadata(a, r, "appPID", arena_printf(a, "%d", (int)r->app->pid));
                put_metadata(a, r, "appCommand", join_command(a, r->command));
        }
        if (r->template_path)
                put_metadata(a, r, "runTemplatePath", r->template_path);
        if (r->template_name && *r->template_name)
                put_metadata(a, r, "runTemplateName", r->template_name);
        if (r->app_log_path)
                put_metadata(a, r, "appLogPath", r->app_log_path);
        if (r->daprd_log_path)
                put_metadata(a, r, "daprdLogPath", r->daprd_log_path);
}

int run_app_start(struct arena *a, struct run_app *r)
{
        if (*r->o.socket)
                ui_say(UI_INFO, "Starting Dapr with id %s. HTTP Socket: %s/dapr-%s-http.socket. gRPC Socket: %s/dapr-%s-grpc.socket.", r->o.app_id,
                       r->o.socket, r->o.app_id, r->o.socket, r->o.app_id);
        else
                ui_say(UI_INFO, "Starting Dapr with id %s. HTTP Port: %d. gRPC Port: %d", r->o.app_id, r->o.http_port, r->o.grpc_port);
        if (start_daprd(a, r))
                return 1;
        if (r->o.app_port <= 0) {
                if (wait_healthy(a, r, "/v1.0/healthz/outbound"))
                        ui_say(UI_INFO, "Dapr sidecar is up and running.");
                else if (r->daprd->exited || fiber_is_cancelled())
                        return 1;
                else
                        ui_say(UI_WARNING, "Dapr sidecar might not be responding.");
        }
        if (start_app(a, r))
                return 1;
        if (r->o.app_port > 0 && !wait_healthy(a, r, "/v1.0/healthz/outbound"))
                return 1;
        announce(a, r);
        ui_say(UI_SUCCESS, r->app ? "You're up and running! Both Dapr and your app logs will appear here.\n"
                                  : "You're up and running! Dapr logs will appear here.\n");
        return 0;
}

static void stop_process(struct arena *a, struct process *p, int signo, const char *what)
{
        if (!p || p->exited)
                return;
        process_signal(p, signo);
        if (process_wait(p, STOP_TIMEOUT_S) != 0) {
                ui_say(UI_WARNING, "%s did not stop within %d seconds and is killed", what, STOP_TIMEOUT_S);
                process_signal(p, SIGKILL);
                process_wait(p, 5);
        }
}

void run_app_stop(struct arena *a, struct run_app *r, int signo)
{
        fiber_shield_begin();
        bool app_ran = r->app && !r->app->exited, daprd_ran = r->daprd && !r->daprd->exited;
        /* On a terminal Ctrl-C has reached the app by itself. */
        bool reached = signo == SIGINT && isatty(0);
        if (app_ran && reached && process_wait(r->app, 2) == 0)
                app_ran = false;
        stop_process(a, r->app, signo ? signo : SIGTERM, "The app");
        if (app_ran)
                ui_say(UI_SUCCESS, "Exited App successfully");
        stop_process(a, r->daprd, SIGTERM, "The sidecar");
        if (daprd_ran)
                ui_say(UI_SUCCESS, "Exited Dapr successfully");
        fiber_shield_end();
}

void run_app_fini(struct run_app *r)
{
        process_free(r->app);
        process_free(r->daprd);
        if (r->app_log)
                fclose(r->app_log);
        if (r->daprd_log)
                fclose(r->daprd_log);
}

/* ---- waiting for an end ---- */

struct watch {
        struct sig_watch sig[3];
        int signo, times;
        struct cond changed;
        struct fiber *main;
};
static struct watch *watching; /* signal callbacks have no argument of their own */

static void on_signal(struct sig_watch *w, int signo)
{
        watching->signo = signo;
        if (++watching->times > 1)
                _exit(1); /* a second signal: at once; children die with us */
        fiber_cancel(watching->main);
        cond_broadcast(&watching->changed);
}

struct waiter {
        struct process *p;
        struct watch *w;
};

static void wait_one(void *arg)
{
        struct waiter *x = arg;
        process_wait(x->p, -1);
        cond_broadcast(&x->w->changed);
}

/* What has ended: -1 nothing, else the index; all = every app's end is needed. */
static bool all_ended(const struct run_app *apps, size_t n, bool *daprd_lost)
{
        size_t ended = 0;
        for (size_t i = 0; i < n; i++) {
                bool daprd = apps[i].daprd->exited, app = apps[i].app && apps[i].app->exited;
                if (daprd && !app && n == 1)
                        *daprd_lost = true;
                ended += daprd || app;
        }
        return ended == n;
}

static int final_code(struct arena *a, struct run_app *apps, size_t n, int signo, bool daprd_lost)
{
        int code = 0;
        if (signo)
                return 0;
        if (daprd_lost) {
                ui_say(UI_FAILURE, "The daprd process %s", process_exit_text(apps[0].daprd, a));
                return 1;
        }
        for (size_t i = 0; i < n; i++) {
                if (!apps[i].app || !apps[i].app->exited)
                        continue;
                int one = process_exit_code(apps[i].app);
                if (one)
                        ui_say(UI_FAILURE, "The App process %s", process_exit_text(apps[i].app, a));
                else
                        ui_say(UI_SUCCESS, "Exited App successfully");
                code = code ? code : one;
        }
        return code;
}

int run_apps(struct arena *a, struct run_app *apps, size_t n)
{
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        struct watch w = {.main = fiber_self()};
        struct scope scope;
        bool failed = false, daprd_lost = false;
        watching = &w;
        cond_init(&w.changed);
        scope_init(&scope);
        for (size_t i = 0; i < 3; i++)
                sig_watch_start(&w.sig[i], signals[i], on_signal);
        for (size_t i = 0; i < n && !failed && !w.signo; i++)
                failed = run_app_prepare(a, &apps[i]) || run_app_start(a, &apps[i]);
        struct waiter *waiters = arena_zalloc(a, 2 * n * sizeof(*waiters));
        for (size_t i = 0; !failed && waiters && i < n; i++) {
                waiters[2 * i] = (struct waiter){apps[i].daprd, &w};
                waiters[2 * i + 1] = (struct waiter){apps[i].app, &w};
                fiber_go(&scope, "wait-daprd", wait_one, &waiters[2 * i]);
                if (apps[i].app)
                        fiber_go(&scope, "wait-app", wait_one, &waiters[2 * i + 1]);
        }
        while (!failed && !w.signo && !all_ended(apps, n, &daprd_lost))
                if (cond_wait(&w.changed))
                        break;
        int code = failed && !w.signo ? 1 : final_code(a, apps, n, w.signo, daprd_lost);
        if (failed && apps[0].daprd && apps[0].daprd->exited)
                ui_say(UI_FAILURE, "The daprd process %s", process_exit_text(apps[0].daprd, a));
        if (w.signo)
                ui_say(UI_INFO, "\nterminated signal received: shutting down");
        for (size_t i = 0; i < n; i++)
                run_app_stop(a, &apps[i], w.signo);
        scope_cancel(&scope);
        scope_join(&scope);
        for (size_t i = 0; i < 3; i++)
                sig_watch_stop(&w.sig[i]);
        for (size_t i = 0; i < n; i++)
                run_app_fini(&apps[i]);
        return code;
}

int run_run(void *opts, int argc, char **argv)
{
        struct run_opts *o = opts;
        if (o->kubernetes)
                return kubernetes_refused("run");
        struct arena a;
        arena_init(&a, 0);
        int code;
        if (*o->run_file) {
                struct run_app *apps = NULL;
                size_t n = 0;
                code = runfile_read(&a, o, &apps, &n);
                if (!code)
                        code = run_apps(&a, apps, n);
        } else {
                if (argc == 0)
                        printf("WARNING: no application command found.\n");
                struct run_app one = {.o = *o, .app_dest = DEST_CONSOLE, .daprd_dest = DEST_CONSOLE,
                                      .resources = o->resources_path.v, .n_resources = o->resources_path.n};
                one.placement_set = strcmp(o->placement, "localhost") != 0;
                one.scheduler_set = strcmp(o->scheduler, "localhost") != 0;
                if (argc > 0) {
                        one.command = arena_zalloc(&a, ((size_t)argc + 1) * sizeof(*one.command));
                        if (one.command)
                                memcpy(one.command, argv, (size_t)argc * sizeof(*argv));
                }
                code = run_apps(&a, &one, 1);
        }
        arena_fini(&a);
        return code;
}
