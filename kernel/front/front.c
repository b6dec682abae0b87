/*
 * Servers: gRPC API, HTTP API, public HTTP, internal gRPC, metrics, profiling. Of the API's listen addresses at least one must bind.
 * With --unix-domain-socket two sockets replace the TCP listeners of both APIs; stale ones are removed first.
 */
#include "kernel/front/front.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/front/api_rules.h"
#include "kernel/front/grpc.h"
#include "kernel/front/http.h"
#include "kernel/front/profile.h"
#include "kernel/front/stable_port.h"
#include "kernel/front/unconfigured.h"
#include "kernel/mesh/identity.h"
#include "kernel/mesh/mesh.h"
#include "kernel/observe/metrics_serve.h"
#include "kernel/pipeline/pipeline.h"
#include "kernel/super/ledger.h"
#include "sdk/base/log.h"

#define RUNTIME_SCOPE "dapr.runtime"
#define HTTP_SCOPE "dapr.runtime.http"
#define GRPC_SCOPE "dapr.runtime.grpc.api"
#define INTERNAL_SCOPE "dapr.runtime.grpc.internal"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

enum { GRPC_HEADERS_MAX = 4 << 20, HEADER_TIMEOUT_S = 10, STREAMS_END_S = 1 };

struct front {
        struct kernel *k;
        struct router *routes, *public_routes;
        const struct http_route *fallback;
        struct http_door api, public_;
        struct pipeline *pipeline;
        struct grpc_door grpc, internal;
        struct http_server *http_server, *public_server, *metrics_server, *profile_server;
        struct rpc_server *grpc_server, *internal_server;
        bool internal_port_given;
        int h_metrics, h_grpc, h_internal; /* health targets */
};

/* ---- tables ---- */

static int add_route(struct front *f, const struct http_route *r)
{
        int e = 0;

        if (api_rules_allow_http(&f->k->config, r)) {
                e = router_add(f->routes, r);
                if (r->fallback && e == 0)
                        f->fallback = r;
        }
        if ((e == 0 || e == -EEXIST) && r->public_)
                e = router_add(f->public_routes, r);
        return e == -EEXIST ? 0 : e;
}

static int build_routes(struct front *f, const struct block *const *blocks, size_t n)
{
        const struct http_route *r;
        int e;

        if (router_new(&f->routes) || router_new(&f->public_routes))
                return -ENOMEM;
        for (size_t b = 0; b < n; b++)
                for (size_t i = 0; i < blocks[b]->n_http; i++)
                        if ((e = add_route(f, &blocks[b]->http[i])))
                                return e;
        for (size_t i = 0; (r = unconfigured_http(i)); i++)
                if ((e = add_route(f, r)))
                        return e;
        return 0;
}

/* The port is known from the start: components may ask for it. If it turns out to be taken, another one is used after all. */
static void choose_internal_port(struct front *f)
{
        struct daprd_opts *o = &f->k->opts;
        char cwd[1024];

        f->internal_port_given = o->dapr_internal_grpc_port >= 0;
        if (!f->internal_port_given)
                o->dapr_internal_grpc_port = stable_port(o->app_id, getcwd(cwd, sizeof cwd) ? cwd : "", getuid(), f->k->hostname);
}

int front_new(struct front **ret, struct kernel *k, const struct block *const *blocks, size_t n)
{
        struct front *f = calloc(1, sizeof *f);
        const struct configuration *cfg = &k->config;
        bool log_calls = k->opts.enable_api_logging >= 0 ? k->opts.enable_api_logging : cfg->api_logging > 0;

        if (!f)
                return -ENOMEM;
        f->k = k;
        if (build_routes(f, blocks, n) || pipeline_new(&f->pipeline, k, "server", cfg->http_pipeline, cfg->n_http_pipeline)) {
                front_free(f);
                return -ENOMEM;
        }
        f->api = (struct http_door){.k = k, .router = f->routes, .fallback = f->fallback, .pipeline = f->pipeline,
                                    .token = str_of(k->opts.api_token),
                                    .log_calls = log_calls, .log_health = !cfg->api_logging_omit_health,
                                    .obfuscate = cfg->api_logging_obfuscate_urls};
        cors_init(&f->api.cors, k->opts.allowed_origins);
        f->public_ = (struct http_door){.k = k, .router = f->public_routes};
        f->grpc = (struct grpc_door){.k = k, .scope = GRPC_SCOPE, .info_scope = log_calls ? GRPC_SCOPE "-info" : NULL,
                                     .token = str_of(k->opts.api_token), .filtered = api_rules_any(cfg, "grpc")};
        f->internal = (struct grpc_door){.k = k, .scope = INTERNAL_SCOPE, .is_internal = true};
        if (grpc_door_init(&f->grpc, blocks, n)) {
                front_free(f);
                return -ENOMEM;
        }
        f->internal.unknown = f->grpc.unknown;
        choose_internal_port(f);
        f->h_metrics = health_add(&k->health, "metrics-exporter", HEALTH_ALL);
        f->h_grpc = health_add(&k->health, "grpc-api-server", HEALTH_ALL);
        f->h_internal = health_add(&k->health, "grpc-internal-server", HEALTH_ALL);
        *ret = f;
        return 0;
}

void front_free(struct front *f)
{
        if (!f)
                return;
        http_server_free(f->http_server);
        http_server_free(f->public_server);
        http_server_free(f->profile_server);
        http_server_free(f->metrics_server);
        rpc_server_free(f->grpc_server);
        rpc_server_free(f->internal_server);
        grpc_door_fini(&f->grpc);
        grpc_door_fini(&f->internal);
        router_free(f->routes);
        router_free(f->public_routes);
        pipeline_free(f->pipeline);
        free(f);
}

/* ---- listening ---- */

typedef int (*listen_fn)(struct kernel *k, void *server, struct str addr);

/* The socket that the program before this one had for the server, or a new one. */
static int listen_as_http(struct kernel *k, void *server, const char *name, struct str addr)
{
        int fd = k->ledger ? ledger_take(k->ledger, name, true) : -1;

        return fd >= 0 ? http_server_adopt(server, fd) : http_server_listen(server, addr);
}

static int listen_http(struct kernel *k, void *server, struct str addr)
{
        return listen_as_http(k, server, "http", addr);
}

static int listen_profile(struct kernel *k, void *server, struct str addr)
{
        return listen_as_http(k, server, "profile", addr);
}

/* As Go words it: people look for "address already in use" in logs. */
static const char *listen_error(char *text, size_t n, const char *network, const char *addr, int r)
{
        const char *why = strerror(-r);

        if (r == -ENOENT && strcmp(network, "tcp") == 0) {
                snprintf(text, n, "listen tcp: lookup %.*s: no such host", (int)(strrchr(addr, ':') - addr), addr);
                return text;
        }
        if (r == -EINVAL && strcmp(network, "tcp") == 0) {
                snprintf(text, n, "listen tcp: address %s: too many colons in address", addr);
                return text;
        }
        snprintf(text, n, "listen %s %s: bind: %c%s", network, addr, *why | 0x20, why + 1);
        return text;
}

static int listen_as_grpc(struct kernel *k, void *server, const char *name, struct str addr)
{
        int fd = k->ledger ? ledger_take(k->ledger, name, true) : -1;

        return fd >= 0 ? rpc_server_adopt(server, fd) : rpc_server_listen(server, addr);
}

static int listen_grpc(struct kernel *k, void *server, struct str addr)
{
        return listen_as_grpc(k, server, "grpc", addr);
}

/* Connections of the program before, whose next request may be on its way. */
static void take_connections(struct kernel *k, struct http_server *server, const char *name)
{
        for (int fd; k->ledger && (fd = ledger_take(k->ledger, name, false)) >= 0;)
                http_server_take(server, fd);
}

static int listen_unix(const struct front *f, const char *kind, const char *what, const char *scope, listen_fn fn, void *server,
                       char *err, size_t err_n)
{
        char path[512], addr[520];
        struct stat st;
        int r;

        snprintf(path, sizeof path, "%s/dapr-%s-%s.socket", f->k->opts.unix_domain_socket, f->k->opts.app_id, kind);
        snprintf(addr, sizeof addr, "unix:%s", path);
        if (!f->k->ledger && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
                unlink(path);
        r = fn(f->k, server, str_of(addr));
        if (r)
                listen_error(err, err_n, "unix", path, r);
        else
                log_info(scope, "%s server listening on UNIX socket: %s", what, path);
        return r;
}

/* On each of the API's addresses. 0 when at least one is bound. */
static int listen_api(const struct front *f, int port, const char *what, const char *scope, listen_fn fn, void *server, char *err,
                      size_t err_n)
{
        static const char *const all[] = {""};
        const struct flag_list *l = &f->k->opts.dapr_listen_addresses;
        const char *const *hosts = l->n ? l->v : all;
        size_t bound = 0, n = l->n ? l->n : 1;

        for (size_t i = 0; i < n; i++) {
                char addr[300], why[400];
                int r;
                snprintf(addr, sizeof addr, "%s:%d", hosts[i], port);
                r = fn(f->k, server, str_of(addr));
                if (r == 0) {
                        bound++;
                        log_info(scope, "%s server listening on TCP address: %s", what, addr);
                } else {
                        log_error(scope, "Failed to listen for %s server on TCP address %s with error: %s", what, addr,
                                  listen_error(why, sizeof why, "tcp", addr, r));
                }
        }
        if (bound)
                return 0;
        snprintf(err, err_n, "could not listen on any endpoint");
        return -EADDRINUSE;
}

/* ---- HTTP ---- */

static void log_http_layers(const struct front *f)
{
        if (f->k->opts.max_body_size > 0)
                log_info(HTTP_SCOPE, "Enabled max body size HTTP middleware with size %lld bytes", (long long)f->k->opts.max_body_size);
        if (f->k->config.metrics_enabled)
                log_info(HTTP_SCOPE, "Enabled metrics HTTP middleware");
        if (f->api.cors.enabled)
                log_info(HTTP_SCOPE, "Enabled CORS HTTP middleware");
        if (f->api.token.n)
                log_info(HTTP_SCOPE, "Enabled token authentication on HTTP server");
}

static int start_public(struct front *f, char *err, size_t err_n)
{
        const struct daprd_opts *o = &f->k->opts;
        char addr[300];
        int r;

        if (o->dapr_public_port < 0)
                return 0;
        r = http_server_new(&f->public_server, &(struct http_server_conf){.name = "public",
                                                                          .handler = http_door_serve,
                                                                          .arg = &f->public_,
                                                                          .max_header_bytes = (size_t)o->read_buffer_size,
                                                                          .max_body_bytes = o->max_body_size,
                                                                          .header_timeout_s = HEADER_TIMEOUT_S});
        snprintf(addr, sizeof addr, "%s:%d", o->dapr_public_listen_address, o->dapr_public_port);
        if (r == 0)
                r = listen_as_http(f->k, f->public_server, "public", str_of(addr));
        if (r)
                listen_error(err, err_n, "tcp", addr, r);
        return r;
}

static int start_profile(struct front *f, char *err, size_t err_n)
{
        const struct daprd_opts *o = &f->k->opts;
        int r;

        if (!o->enable_profiling)
                return 0;
        r = http_server_new(&f->profile_server,
                            &(struct http_server_conf){.name = "profile", .handler = profile_serve, .arg = f, .max_body_bytes = 4096});
        if (r)
                return r;
        r = listen_api(f, o->profile_port, "HTTP profiling", HTTP_SCOPE, listen_profile, f->profile_server, err, err_n);
        if (r)
                snprintf(err, err_n, "could not listen on any endpoint for profiling API");
        return r;
}

int front_start_http(struct front *f, char *err, size_t err_n)
{
        const struct daprd_opts *o = &f->k->opts;
        const struct http_server_conf conf = {.name = "http",
                                              .handler = http_door_serve,
                                              .arg = &f->api,
                                              .max_header_bytes = (size_t)o->read_buffer_size,
                                              .max_body_bytes = o->max_body_size,
                                              .header_timeout_s = HEADER_TIMEOUT_S,
                                              .no_h2c = o->http_disable_h2c};
        int r = http_server_new(&f->http_server, &conf);

        if (r) {
                snprintf(err, err_n, "%s", strerror(-r));
                return r;
        }
        log_http_layers(f);
        if (o->unix_domain_socket[0])
                r = listen_unix(f, "http", "HTTP", HTTP_SCOPE, listen_http, f->http_server, err, err_n);
        else
                r = listen_api(f, o->dapr_http_port, "HTTP", HTTP_SCOPE, listen_http, f->http_server, err, err_n);
        if (r == 0)
                r = start_public(f, err, err_n);
        if (r == 0)
                r = start_profile(f, err, err_n);
        if (r)
                return r;
        take_connections(f->k, f->http_server, "http");
        if (f->public_server)
                take_connections(f->k, f->public_server, "public");
        if (o->unix_domain_socket[0])
                log_info(RUNTIME_SCOPE, "HTTP server is running on a Unix Domain Socket");
        else
                log_info(RUNTIME_SCOPE, "HTTP server is running on port %d", o->dapr_http_port);
        log_info(RUNTIME_SCOPE, "The request body size parameter is: %lld bytes", (long long)o->max_body_size);
        return 0;
}

/* ---- metrics ---- */

static void serve_metrics(struct http_req *r, void *arg)
{
        struct front *f = arg;

        if (metrics_serve(f->k->metrics, r, STR(METRICS_TYPE)) == -ENOMEM)
                http_resp_send(r, 500, NULL, 0, STR("out of memory\n"));
}

int front_start_metrics(struct front *f, char *err, size_t err_n)
{
        const struct daprd_opts *o = &f->k->opts;
        char addr[300];
        int r;

        if (!o->enable_metrics) {
                health_set(&f->k->health, f->h_metrics, true);
                return 0;
        }
        snprintf(addr, sizeof addr, "%s:%d", o->metrics_listen_address, o->metrics_port);
        r = http_server_new(&f->metrics_server, &(struct http_server_conf){.name = "metrics",
                                                                           .handler = serve_metrics,
                                                                           .arg = f,
                                                                           .max_header_bytes = 64 * 1024,
                                                                           .max_body_bytes = 64 * 1024,
                                                                           .header_timeout_s = HEADER_TIMEOUT_S});
        if (r == 0)
                r = listen_as_http(f->k, f->metrics_server, "metrics", str_of(addr));
        if (r) {
                char why[400];
                snprintf(err, err_n, "failed to listen on %s: %s", addr, listen_error(why, sizeof why, "tcp", addr, r));
                return r;
        }
        take_connections(f->k, f->metrics_server, "metrics");
        log_info(RUNTIME_SCOPE, "metrics server started on %s/", addr);
        health_set(&f->k->health, f->h_metrics, true);
        return 0;
}

/* ---- gRPC ---- */

static int grpc_new(struct front *f, struct rpc_server **ret, struct grpc_door *d, const char *name)
{
        const struct daprd_opts *o = &f->k->opts;
        int64_t headers = o->read_buffer_size << 10; /* kilobytes here, as the reference has it */
        struct rpc_server_conf conf = {.name = name,
                                       .max_recv_bytes = o->max_body_size > 0 ? o->max_body_size : -1,
                                       .max_send_bytes = o->max_body_size > 0 ? o->max_body_size : -1,
                                       .max_header_bytes = (uint32_t)(headers > GRPC_HEADERS_MAX ? GRPC_HEADERS_MAX : headers),
                                       .ping_interval_s = 10,
                                       .ping_timeout_s = 5,
                                       .min_ping_interval_s = 8,
                                       .idle_timeout_s = 180,
                                       .unknown = grpc_door_unknown,
                                       .unknown_arg = d,
                                       .intercept = grpc_door_intercept,
                                       .intercept_arg = d,
                                       .reflection = rpc_reflection};
        int r = rpc_server_new(ret, &conf);

        if (r == 0 && d->n)
                r = rpc_server_add(*ret, d->methods, d->n);
        if (d->filtered)
                log_info(d->scope, "Enabled API access list on gRPC server");
        if (d->token.n)
                log_info(d->scope, "Enabled token authentication on gRPC server");
        if (f->k->config.metrics_enabled)
                log_info(d->scope, "Enabled gRPC metrics middleware");
        return r;
}

int front_start_grpc(struct front *f, char *err, size_t err_n)
{
        const struct daprd_opts *o = &f->k->opts;
        int r = grpc_new(f, &f->grpc_server, &f->grpc, "grpc");

        if (r) {
                snprintf(err, err_n, "%s", strerror(-r));
                return r;
        }
        if (o->unix_domain_socket[0])
                r = listen_unix(f, "grpc", "gRPC", GRPC_SCOPE, listen_grpc, f->grpc_server, err, err_n);
        else
                r = listen_api(f, o->dapr_grpc_port, "gRPC", GRPC_SCOPE, listen_grpc, f->grpc_server, err, err_n);
        if (r)
                return r;
        health_set(&f->k->health, f->h_grpc, true);
        if (o->unix_domain_socket[0])
                log_info(RUNTIME_SCOPE, "API gRPC server is running on a Unix Domain Socket");
        else
                log_info(RUNTIME_SCOPE, "API gRPC server is running on port %d", o->dapr_grpc_port);
        return 0;
}

void front_new_identity(struct front *f, struct tls_context *server)
{
        if (f->internal_server)
                rpc_server_set_tls(f->internal_server, server);
}

int front_start_internal(struct front *f, char *err, size_t err_n)
{
        struct daprd_opts *o = &f->k->opts;
        char addr[300];
        int r = grpc_new(f, &f->internal_server, &f->internal, "internal");
        size_t n;
        const struct rpc_method *methods = mesh_methods(f->k->mesh, &n);

        if (r == 0)
                r = rpc_server_add(f->internal_server, methods, n);
        if (r) {
                snprintf(err, err_n, "%s", strerror(-r));
                return r;
        }
        if (f->k->identity)
                rpc_server_set_tls(f->internal_server, identity_server_tls(f->k->identity));
        snprintf(addr, sizeof addr, "%s:%d", o->dapr_internal_grpc_listen_address, o->dapr_internal_grpc_port);
        r = listen_as_grpc(f->k, f->internal_server, "internal", str_of(addr));
        if (r && !f->internal_port_given) {
                snprintf(addr, sizeof addr, "%s:0", o->dapr_internal_grpc_listen_address);
                r = rpc_server_listen(f->internal_server, str_of(addr));
        }
        if (r) {
                log_error(INTERNAL_SCOPE, "Failed to listen for gRPC server on TCP address %s with error: %s", addr, strerror(-r));
                snprintf(err, err_n, "could not listen on any endpoint");
                return r;
        }
        o->dapr_internal_grpc_port = rpc_server_port(f->internal_server);
        log_info(INTERNAL_SCOPE, "gRPC server listening on TCP address: %s:%d", o->dapr_internal_grpc_listen_address,
                 o->dapr_internal_grpc_port);
        log_info(RUNTIME_SCOPE, "Internal gRPC server is running on %s:%d", o->dapr_internal_grpc_listen_address,
                 o->dapr_internal_grpc_port);
        health_set(&f->k->health, f->h_internal, true);
        return 0;
}

/* ---- stop ---- */

struct stopping {
        void *server;
        bool is_http;
        double grace_s;
        struct ledger *ledger; /* NULL = nothing lives on */
};

/* Into the ledger, without close-on-exec. */
static void give(void *arg, const char *name, int fd, bool listening)
{
        int kept = fcntl(fd, F_DUPFD, 3);

        close(fd);
        if (kept >= 0 && !ledger_add_fd(arg, name, kept, listening))
                close(kept);
}

static void stop_one(void *arg)
{
        struct stopping *s = arg;

        if (s->ledger && s->is_http)
                http_server_hand_over(s->server, s->grace_s, give, s->ledger);
        else if (s->ledger)
                rpc_server_settle(s->server, s->grace_s, give, s->ledger);
        else if (s->is_http)
                http_server_stop(s->server, s->grace_s);
        else
                rpc_server_stop(s->server, s->grace_s);
}

static void stop_all(struct front *f, double grace_s, struct ledger *l)
{
        struct stopping all[] = {{f->grpc_server, false, grace_s, l},
                                 {f->internal_server, false, grace_s, l},
                                 {f->http_server, true, grace_s, l},
                                 {f->public_server, true, grace_s, l},
                                 {f->profile_server, true, grace_s, l},
                                 {l ? f->metrics_server : NULL, true, grace_s, l}};
        struct scope scope;

        health_set(&f->k->health, f->h_grpc, false);
        health_set(&f->k->health, f->h_internal, false);
        scope_init(&scope);
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
                if (!all[i].server)
                        continue;
                if (all[i].server == f->http_server && !l)
                        log_info(HTTP_SCOPE, "Closing HTTP server on port %d…", f->k->opts.dapr_http_port);
                if (fiber_go(&scope, "stop", stop_one, &all[i]))
                        stop_one(&all[i]);
        }
        scope_join(&scope);
}

void front_stop_apis(struct front *f, double grace_s)
{
        stop_all(f, grace_s, NULL);
}

size_t front_before(struct front *f, bool turn)
{
        struct rpc_server *const rpc[] = {f->grpc_server, f->internal_server};
        struct http_server *const http[] = {f->http_server, f->public_server};
        size_t n = 0;

        for (size_t i = 0; i < 2; i++) {
                if (rpc[i])
                        n += turn ? rpc_server_turn(rpc[i]) : rpc_server_before(rpc[i]);
                if (http[i])
                        n += turn ? http_server_turn(http[i]) : http_server_before(http[i]);
        }
        return n;
}

void front_settle(struct front *f, struct ledger *l, double grace_s)
{
        stop_all(f, grace_s, l);
}

static void end_streams(void *arg)
{
        rpc_server_stop(arg, STREAMS_END_S);
}

void front_end_streams(struct front *f)
{
        struct rpc_server *all[] = {f->grpc_server, f->internal_server};
        struct scope scope;

        scope_init(&scope);
        for (size_t i = 0; i < 2; i++)
                if (all[i] && fiber_go(&scope, "stop", end_streams, all[i]))
                        end_streams(all[i]);
        scope_join(&scope);
}

void front_stop_metrics(struct front *f)
{
        if (f->metrics_server)
                http_server_stop(f->metrics_server, 0.1);
}
