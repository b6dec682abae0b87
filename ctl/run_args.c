/* What `run` gives to its children: ports and paths that were left open, the sidecar's command line, both environments. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ctl/run.h"
#include "sdk/base/loop.h"
#include "sdk/base/yaml.h"
#include "sdk/net/conn.h"

/* Ports that are chosen come from below those that the system gives to outgoing connections: nobody else takes one in between. */
enum { FIXED_ARGS_MAX = 96, PORTS_MAX = 1024, PORT_TRIES = 100, PORT_FIRST = 20000, PORT_END = 32768 };
#define PROBE_TIMEOUT_S 0.3
#define SENTRY_ADDRESS "localhost:50001"

/* ---- ports ---- */

/* Those of this run: a port that was chosen for one app is not in use yet when the next one chooses. */
static int taken[PORTS_MAX];
static size_t n_taken;

static bool is_taken(int port)
{
        for (size_t i = 0; i < n_taken; i++)
                if (taken[i] == port)
                        return true;
        return false;
}

/* Port 0: any. Returns the port when it can be bound on all interfaces, else -1. */
static int bindable(int port)
{
        struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        socklen_t n = sizeof(sa);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
        if (fd < 0)
                return -1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        bool ok = bind(fd, (struct sockaddr *)&sa, n) == 0 && listen(fd, 1) == 0 && getsockname(fd, (struct sockaddr *)&sa, &n) == 0;
        close(fd);
        return ok ? ntohs(sa.sin_port) : -1;
}

static int random_port(void)
{
        uint16_t r = 0;
        if (getrandom(&r, sizeof(r), GRND_NONBLOCK) < 0)
                r = (uint16_t)wall_ns();
        return PORT_FIRST + r % (PORT_END - PORT_FIRST);
}

static int choose_port(const char *what, int *port)
{
        int got = -1;
        if (*port > 0)
                got = *port <= 65535 && !is_taken(*port) ? bindable(*port) : -1;
        else
                for (int i = 0; i < PORT_TRIES && (got < 0 || is_taken(got)); i++)
                        got = bindable(i < PORT_TRIES / 2 ? random_port() : 0);
        if (got < 0 || is_taken(got)) {
                ui_say(UI_FAILURE, "invalid configuration for %s. Port %d is not available", what, *port);
                return 1;
        }
        if (n_taken < PORTS_MAX)
                taken[n_taken++] = got;
        *port = got;
        return 0;
}

/* ---- prepare ---- */

/* A service of the control plane is used when it was named, or when something answers at its default place. */
static const char *control_plane(struct arena *a, const char *addr, bool given, int default_port)
{
        struct str s = str_trim(str_of(addr));
        if (!s.n)
                return "";
        addr = str_chr(s, ':') < 0 ? arena_printf(a, "%.*s:%d", STR_FMT(s), default_port) : arena_strdup(a, s);
        if (given || !addr)
                return addr;
        struct conn *c = NULL;
        double old = fiber_deadline();
        fiber_set_deadline(loop_now_exact() + PROBE_TIMEOUT_S);
        int r = conn_dial(str_of(addr), &c);
        fiber_restore_deadline(old);
        conn_free(c);
        return r ? "" : addr;
}

static const char *new_app_id(struct arena *a)
{
        static const char *const first[] = {"amber", "brisk", "calm", "dapper", "eager", "fern", "gentle", "honest", "ivory", "jolly", "keen", "lunar"};
        static const char *const second[] = {"badger", "comet", "dolphin", "ember", "falcon", "glacier", "heron", "island", "juniper", "kestrel", "lynx", "meadow"};
        uint64_t h = (uint64_t)wall_ns() / 1000 + (uint64_t)getpid();
        return arena_printf(a, "%s-%s-%d", first[h % 12], second[h / 12 % 12], (int)(h / 144 % 1000));
}

static int check_size(const char *what, const char *text)
{
        int64_t n;
        if (parse_quantity(str_of(text), &n) == 0)
                return 0;
        ui_say(UI_FAILURE, "invalid %s: \"%s\" is not a size such as 4Mi or 512Ki", what, text);
        return 1;
}

/* The default folders are used when they are there; those that were named must be there. */
static int prepare_resources(struct arena *a, struct run_app *r, const char *dapr_dir)
{
        if (r->n_resources == 0) {
                const char **one = arena_alloc(a, sizeof(*one));
                const char *given = r->o.components_path, *dir = *given ? given : path_join(a, dapr_dir, "components");
                if (one && dir && (*given || path_exists(dir))) {
                        one[0] = dir;
                        r->resources = one;
                        r->n_resources = 1;
                }
        }
        for (size_t i = 0; i < r->n_resources; i++)
                if (!path_exists(r->resources[i])) {
                        ui_say(UI_FAILURE, "error validating resources path \"%s\": there is no such folder", r->resources[i]);
                        return 1;
                }
        return 0;
}

static int prepare_ports(struct run_opts *o)
{
        if (*o->socket)
                o->http_port = o->grpc_port = 0;
        else if (choose_port("HTTPPort", &o->http_port) || choose_port("GRPCPort", &o->grpc_port))
                return 1;
        return choose_port("MetricsPort", &o->metrics_port) || choose_port("InternalGRPCPort", &o->internal_grpc_port) ||
               (o->enable_profiling && choose_port("ProfilePort", &o->profile_port));
}

int run_app_prepare(struct arena *a, struct run_app *r)
{
        struct run_opts *o = &r->o;
        const char *dapr_dir = path_dapr_dir(a, o->globals.runtime_path), *config = path_join(a, dapr_dir, "config.yaml");
        if (!*o->app_id)
                o->app_id = new_app_id(a);
        if (!*o->config && path_exists(config))
                o->config = config;
        if (prepare_resources(a, r, dapr_dir) || check_size("max request body size", o->max_body_size) ||
            check_size("http read buffer size", o->read_buffer_size) || prepare_ports(o))
                return 1;
        if (*o->socket) {
                char *cwd = r->dir ? NULL : getcwd(NULL, 0);
                o->socket = path_absolute(a, r->dir ? r->dir : cwd ? cwd : ".", o->socket);
                free(cwd);
        }
        if (o->app_port < 0)
                o->app_port = 0;
        if (o->max_concurrency < 1)
                o->max_concurrency = -1;
        o->placement = control_plane(a, o->placement, o->placement_given, 50005);
        o->scheduler = control_plane(a, o->scheduler, o->scheduler_given, 50006);
        return o->placement && o->scheduler && o->app_id && o->socket ? 0 : 1;
}

/* ---- the sidecar's command line ---- */

struct args {
        struct arena *a;
        char **v;
        size_t n;
};

static void add(struct args *x, const char *name, const char *value)
{
        if (value && *value) {
                x->v[x->n++] = (char *)name;
                x->v[x->n++] = (char *)value;
        }
}

static void add_int(struct args *x, const char *name, int value)
{
        add(x, name, arena_printf(x->a, "%d", value));
}

static void add_positive(struct args *x, const char *name, int value)
{
        if (value > 0)
                add_int(x, name, value);
}

static void add_switch(struct args *x, const char *name, bool on)
{
        if (on)
                x->v[x->n++] = (char *)name;
}

/* Does the configuration turn mTLS on? Then the sidecar is told where the certificates come from. A file that cannot be read is
 * left for the sidecar to complain about. */
static bool wants_mtls(struct arena *a, const char *config)
{
        struct str text;
        struct yaml_node *root = NULL;
        struct yaml_value v;
        const char *err;
        if (!*config || yaml_read_file(a, config, false, &text, &err) != 0 || yaml_read(a, text, config, 1, 0, &root, &err) != 0)
                return false;
        const struct yaml_node *n = yaml_path(root, "spec.mtls.enabled");
        return n && n->kind == YAML_SCALAR && yaml_resolve(a, n, YAML_1_1, &v) == 0 && v.type == YAML_BOOL && v.b;
}

static void add_app_flags(struct args *x, const struct run_opts *o)
{
        add_positive(x, "--app-port", o->app_port);
        if (strcmp(o->app_channel_address, "127.0.0.1") != 0)
                add(x, "--app-channel-address", o->app_channel_address);
        add(x, "--app-protocol", o->app_protocol);
        add_int(x, "--app-max-concurrency", o->max_concurrency);
        add_switch(x, "--app-ssl", o->app_ssl);
        add_switch(x, "--enable-app-health-check", o->enable_health);
        add(x, "--app-health-check-path", o->health_path);
        add_positive(x, "--app-health-probe-interval", o->health_interval);
        add_positive(x, "--app-health-probe-timeout", o->health_timeout);
        add_positive(x, "--app-health-threshold", o->health_threshold);
}

char **run_daprd_args(struct arena *a, const struct run_app *r, const char *program)
{
        const struct run_opts *o = &r->o;
        struct args x = {a, arena_zalloc(a, (FIXED_ARGS_MAX + 2 * r->n_resources) * sizeof(char *)), 0};
        if (!x.v)
                return NULL;
        x.v[x.n++] = (char *)program;
        add(&x, "--app-id", o->app_id);
        add_app_flags(&x, o);
        if (!*o->socket) {
                add_int(&x, "--dapr-http-port", o->http_port);
                add_int(&x, "--dapr-grpc-port", o->grpc_port);
        }
        add(&x, "--unix-domain-socket", o->socket);
        add_int(&x, "--dapr-internal-grpc-port", o->internal_grpc_port);
        add_int(&x, "--metrics-port", o->metrics_port);
        add(&x, "--dapr-listen-addresses", o->listen_addresses);
        add(&x, "--config", o->config);
        for (size_t i = 0; i < r->n_resources; i++)
                add(&x, "--resources-path", r->resources[i]);
        add_switch(&x, "--enable-profiling", o->enable_profiling);
        if (o->enable_profiling)
                add_int(&x, "--profile-port", o->profile_port);
        add(&x, "--log-level", o->log_level);
        add_switch(&x, "--enable-api-logging", o->enable_api_logging);
        add(&x, "--max-body-size", o->max_body_size);
        add(&x, "--read-buffer-size", o->read_buffer_size);
        add(&x, "--placement-host-address", o->placement);
        add(&x, "--scheduler-host-address", o->scheduler);
        if (wants_mtls(a, o->config)) {
                add_switch(&x, "--enable-mtls", true);
                add(&x, "--sentry-address", SENTRY_ADDRESS);
        }
        add_switch(&x, "--log-as-json", ui_is_json_log());
        return x.v;
}

/* ---- environments ---- */

static void env_set(char **env, size_t *n, const char *pair)
{
        if (!pair)
                return;
        size_t len = (size_t)(strchrnul(pair, '=') - pair) + 1;
        for (size_t i = 0; i < *n; i++)
                if (strncmp(env[i], pair, len) == 0) {
                        env[i] = (char *)pair;
                        return;
                }
        env[(*n)++] = (char *)pair;
        env[*n] = NULL;
}

static char **env_copy(struct arena *a, size_t more, size_t *n)
{
        for (*n = 0; environ[*n];)
                ++*n;
        char **env = arena_alloc(a, (*n + more + 1) * sizeof(*env));
        if (env)
                memcpy(env, environ, (*n + 1) * sizeof(*env));
        return env;
}

static const char *protocol_of(const struct run_opts *o)
{
        if (o->app_ssl && strcmp(o->app_protocol, "http") == 0)
                return "https";
        return o->app_ssl && strcmp(o->app_protocol, "grpc") == 0 ? "grpcs" : o->app_protocol;
}

char **run_app_env(struct arena *a, const struct run_app *r)
{
        const struct run_opts *o = &r->o;
        const struct { const char *name; int value; } numbers[] = {{"APP_PORT", o->app_port}, {"DAPR_HTTP_PORT", o->http_port},
                                                                   {"DAPR_GRPC_PORT", o->grpc_port}, {"DAPR_METRICS_PORT", o->metrics_port}};
        size_t n;
        char **env = env_copy(a, r->n_env + 8, &n);
        if (!env)
                return NULL;
        env_set(env, &n, arena_printf(a, "APP_ID=%s", o->app_id));
        env_set(env, &n, arena_printf(a, "APP_CHANNEL_ADDRESS=%s", o->app_channel_address));
        env_set(env, &n, arena_printf(a, "APP_PROTOCOL=%s", protocol_of(o)));
        for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
                if (numbers[i].value > 0)
                        env_set(env, &n, arena_printf(a, "%s=%d", numbers[i].name, numbers[i].value));
        for (size_t i = 0; i < r->n_env; i++)
                env_set(env, &n, r->env[i]);
        return env;
}

/* Apps of one run file find each other on this machine. */
char **run_daprd_env(struct arena *a, const struct run_app *r)
{
        size_t n;
        char **env = env_copy(a, 1, &n);
        if (env && r->several && !getenv("DAPR_HOST_IP"))
                env_set(env, &n, "DAPR_HOST_IP=127.0.0.1");
        return env;
}
