/*
 * Start and stop. The start runs on its own fiber, so that a wish to stop interrupts it wherever it waits (a slow component, an app
 * that does not listen yet); the stop is bounded by dapr-graceful-shutdown-seconds, after which the process ends with code 1.
 *
 *   configuration, metrics, resources -> tables -> metrics server -> pluggable components -> components -> gRPC API -> HTTP API ->
 *   internal gRPC -> name resolver (in the background) -> outbound ready -> app port -> app's configuration, subscriptions, bindings -> ready
 *   stop: no more events -> (block) -> APIs -> app -> components -> metrics server
 */
#include "kernel/runtime.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/app/app.h"
#include "kernel/front/front.h"
#include "kernel/mesh/endpoints.h"
#include "kernel/mesh/identity.h"
#include "kernel/mesh/mesh.h"
#include "kernel/mesh/names.h"
#include "kernel/host.h"
#include "kernel/metric_rules.h"
#include "kernel/reload.h"
#include "kernel/observe/observe.h"
#include "kernel/observe/slow.h"
#include "kernel/observe/trace.h"
#include "kernel/plugin_metrics.h"
#include "kernel/pipeline/pipeline.h"
#include "kernel/policy/resiliency.h"
#include "kernel/super/ledger.h"
#include "kernel/upgrade.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"

#define SCOPE "dapr.runtime"

enum { ERROR_BYTES = 512, TRACES_STOP_S = 5 };
static const double LET_FINISH_POLL_S = 0.005;

static const struct block *const blocks[] = {
        &state_block_def, &secrets_block_def, &pubsub_block_def, &bindings_block_def,
        &configuration_block_def, &lock_block_def, &conversation_block_def, &crypto_block_def,
        &subtle_crypto_block_def, &metadata_block_def, &health_block_def, &shutdown_block_def,
        &invoke_block_def,
};
enum { N_BLOCKS = sizeof blocks / sizeof blocks[0] };

struct runtime {
        struct kernel *k;
        struct arena arena;  /* texts of errors */
        const char *fatal;   /* why the start failed */
        bool start_ended;
        int h_runtime, h_security, h_outbound, h_reload[2];
        struct plugin_metrics *plugin_metrics;
        struct metric_rules *metric_rules;
        size_t blocks_loud; /* so many blocks may still take events from outside */
        struct sig_watch sigint, sigterm;
        int signals;
        struct timer grace;
};

void duration_text(char to[40], int64_t ns)
{
        int64_t s = ns / 1000000000, frac = ns % 1000000000;
        char fraction[16] = "";

        if (ns < 1000000000 && ns > 0) {
                bool ms = ns >= 1000000;
                double v = (double)ns / (ms ? 1e6 : ns >= 1000 ? 1e3 : 1);
                snprintf(to, 40, "%.9g%s", v, ms ? "ms" : ns >= 1000 ? "µs" : "ns");
                return;
        }
        if (frac) {
                snprintf(fraction, sizeof fraction, ".%09d", (int)frac);
                for (char *p = fraction + strlen(fraction) - 1; *p == '0'; p--)
                        *p = '\0';
        }
        if (s >= 3600)
                snprintf(to, 40, "%lldh%dm%d%ss", (long long)(s / 3600), (int)(s / 60 % 60), (int)(s % 60), fraction);
        else if (s >= 60)
                snprintf(to, 40, "%dm%d%ss", (int)(s / 60), (int)(s % 60), fraction);
        else
                snprintf(to, 40, "%d%ss", (int)s, fraction);
}

/* ---- start ---- */

static int load(void *arg)
{
        struct runtime *rt = arg;
        struct kernel *k = rt->k;
        const char *err = NULL;
        int r;

        r = configuration_load(&k->config, &k->opts, &err);
        if (r) {
                rt->fatal = err ? err : "out of memory";
                return r;
        }
        return 0;
}

static void log_features(const struct configuration *c)
{
        struct buf b = {0};

        for (size_t i = 0; i < c->n_features; i++)
                buf_printf(&b, " %s", c->features[i]);
        if (buf_len(&b))
                log_info(SCOPE, "Enabled features:%.*s", STR_FMT(buf_str(&b)));
        buf_fini(&b);
}

static bool is_blank_address(const char *s)
{
        for (; *s; s++)
                if (!strchr(" \t\"'", *s))
                        return false;
        return true;
}

/* Parts of the reference that this kernel does not have: said once, as the reference says it where it has such a text. */
static void log_absent(const struct daprd_opts *o)
{
        const char *no_placement = "api error: code = Unavailable desc = placement service is not configured";
        bool scheduler = false;

        if (!is_blank_address(o->placement_host_address))
                no_placement = "this version serves no actors; placement-host-address is ignored";
        log_info("dapr.runtime.actor", "Actor runtime disabled: %s", no_placement);
        log_warn("dapr.runtime.actor", "Actor runtime disabled: %s. Actors and Workflow APIs will be unavailable", no_placement);
        for (size_t i = 0; i < o->scheduler_host_address.n; i++)
                scheduler |= !is_blank_address(o->scheduler_host_address.v[i]);
        log_warn("dapr.runtime.scheduler.watchhosts", "%s. Scheduler disabled",
                 scheduler ? "This version serves no jobs; scheduler-host-address is ignored" : "No scheduler host addresses provided");
}

static int init_kernel(struct runtime *rt)
{
        struct kernel *k = rt->k;
        const struct configuration *cfg = &k->config;
        struct tracer_conf traces = {.app_id = k->opts.app_id,
                                     .sampling_rate = cfg->tracing_sampling_rate,
                                     .stdout_ = cfg->tracing_stdout,
                                     .zipkin_endpoint = cfg->tracing_zipkin,
                                     .otlp_endpoint = cfg->tracing_otel_endpoint,
                                     .otlp_protocol = cfg->tracing_otel_protocol,
                                     .otlp_secure = cfg->tracing_otel_is_secure,
                                     .otlp_headers = cfg->tracing_otel_headers,
                                     .n_otlp_headers = cfg->n_tracing_otel_headers,
                                     .otlp_timeout_ns = cfg->tracing_otel_timeout_ns};
        char err[ERROR_BYTES];
        int r;
        struct observe_conf conf = {.app_id = k->opts.app_id,
                                    .namespace_ = k->opts.namespace_,
                                    .enabled = cfg->metrics_enabled,
                                    .record_error_codes = cfg->metrics_record_error_codes,
                                    /* not configured: this release has the high cardinality */
                                    .increased_cardinality = cfg->metrics_increased_cardinality != 0,
                                    .exclude_verbs = cfg->metrics_exclude_verbs,
                                    .path_matching = cfg->metrics_path_matching,
                                    .n_path_matching = cfg->n_metrics_path_matching,
                                    .latency_buckets = cfg->metrics_latency_buckets,
                                    .n_latency_buckets = cfg->n_metrics_latency_buckets};

        if (cfg->metrics_enabled && cfg->metrics_increased_cardinality < 0)
                log_warn("dapr.runtime.diagnostics",
                         "The default value for 'spec.metric.http.increasedCardinality' will change to 'false' in Dapr 1.15 or later");
        if (metrics_new(&k->metrics) || observe_new(&k->observe, k->metrics, &conf) || slow_new(&k->slow) || plugin_metrics_new(&rt->plugin_metrics, k) ||
            front_new(&k->front, k, blocks, N_BLOCKS)) {
                rt->fatal = "out of memory";
                return -ENOMEM;
        }
        r = metric_rules_new(&rt->metric_rules, k, &rt->arena, &rt->fatal);
        if (r == -EBADMSG) { /* as in the reference: there are no rules then */
                log_error("dapr.runtime", "[INIT_FAILURE]: initialization error occurred for metrics: %s", rt->fatal);
                rt->fatal = NULL;
        } else if (r) {
                rt->fatal = rt->fatal ? rt->fatal : "out of memory";
                return r;
        }
        traces.metrics = k->metrics;
        if (tracer_new(&k->tracer, &traces, err, sizeof err)) {
                rt->fatal = arena_printf(&rt->arena, "failed to setup tracing: %s", err);
                return -EINVAL;
        }
        return mesh_new(&k->mesh, k, &rt->arena, &rt->fatal);
}

static void type_appeared(void *arg, const char *type)
{
        runtime_type_appeared(arg, type);
}

static int load_resources(void *arg)
{
        struct runtime *rt = arg;
        struct kernel *k = rt->k;

        return resources_load(&k->resources, &k->opts, &k->config, &rt->arena, &rt->fatal);
}

static int start_components(struct runtime *rt)
{
        struct kernel *k = rt->k;
        struct super_conf conf = {.opts = &k->opts, .exe_dir = k->exe_dir, .on_type = type_appeared, .on_move = runtime_on_move,
                                  .on_moved = runtime_on_moved, .on_leave = runtime_on_leave, .on_arrive = runtime_on_arrive, .on_upgrade = upgrade_ask,
                                  .ledger = k->ledger, .arg = k};
        const char *err = NULL;
        int r;

        conf.hop_seconds = k->config.metrics_enabled ? plugin_metrics_hop(rt->plugin_metrics) : NULL;
        conf.metrics = k->metrics;
        conf.slow = k->slow;
        conf.hop_tracer = k->opts.trace_plugins ? k->tracer : NULL;
        if (super_new(&k->super, &conf)) {
                rt->fatal = "out of memory";
                return -ENOMEM;
        }
        log_info(SCOPE, "Loading components…");
        r = load_resources(rt);
        if (r) {
                rt->fatal = rt->fatal ? rt->fatal : "out of memory";
                return r;
        }
        if ((r = resiliency_start(k))) {
                rt->fatal = "out of memory";
                return r;
        }
        r = pipeline_new(&k->app_pipeline, k, "app", k->config.app_http_pipeline, k->config.n_app_http_pipeline);
        if (r)
                return r;
        r = app_new(&k->app, k, &rt->arena, &rt->fatal);
        if (r)
                return r;
        r = super_discover(k->super);
        if (r)
                log_error(SCOPE, "could not initialize pluggable components %s", strerror(-r));
        log_info(SCOPE, "Waiting for all outstanding components to be processed…");
        r = runtime_start_components(k, &rt->arena, &err);
        if (r) {
                rt->fatal = err;
                return r;
        }
        log_info(SCOPE, "All outstanding components processed");
        log_info(SCOPE, "Loading endpoints…");
        log_info(SCOPE, "Waiting for all outstanding http endpoints to be processed…");
        if ((r = endpoints_new(&k->endpoints, k, &rt->arena, &rt->fatal)))
                return r;
        log_info(SCOPE, "All outstanding http endpoints processed");
        if (!k->app)
                log_warn("dapr.runtime.channels", "App channel is not initialized. Did you configure an app-port?");
        for (size_t i = 0; i < N_BLOCKS; i++) {
                const struct block *b = blocks[i];
                if (b->init && (r = b->init(k))) {
                        rt->fatal = arena_printf(&rt->arena, "failed to start the %s block: %s", b->name, strerror(-r));
                        return r;
                }
                rt->blocks_loud = i + 1;
        }
        return 0;
}

static int start_servers(struct runtime *rt)
{
        static const struct {
                int (*start)(struct front *f, char *err, size_t n);
                const char *name;
        } steps[] = {{front_start_grpc, "API gRPC"}, {front_start_http, "HTTP"}, {front_start_internal, "internal gRPC"}};
        char err[ERROR_BYTES];

        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
                int r = steps[i].start(rt->k->front, err, sizeof err);
                if (r) {
                        rt->fatal = arena_printf(&rt->arena, "failed to start %s server: %s", steps[i].name, err);
                        return r;
                }
        }
        return 0;
}

static int check_supported(struct runtime *rt)
{
        const struct daprd_opts *o = &rt->k->opts;

        if (strcmp(o->mode, "kubernetes") == 0)
                rt->fatal = "mode kubernetes is not supported by this version; use --mode standalone";
        else
                return 0;
        return -ENOTSUP;
}

static void on_identity(void *arg, struct tls_context *server)
{
        struct kernel *k = arg;
        if (k->front)
                front_new_identity(k->front, server);
}

static int start_security(struct runtime *rt)
{
        struct kernel *k = rt->k;
        int r = 0;

        if (k->opts.enable_mtls)
                r = identity_new(&k->identity, k, &rt->arena, &rt->fatal);
        if (k->identity)
                r = identity_start(k->identity, on_identity, k, &rt->arena, &rt->fatal);
        if (r == 0)
                health_set(&k->health, rt->h_security, true);
        return r;
}

static void reload_failed(void *arg, const char *text)
{
        struct runtime *rt = arg;

        if (!rt->fatal)
                rt->fatal = arena_strdup(&rt->arena, str_of(text));
        cond_broadcast(&rt->k->changed);
}

static int start(struct runtime *rt)
{
        struct kernel *k = rt->k;
        double began;
        char err[ERROR_BYTES];
        int r;

        if ((r = check_supported(rt)))
                return r;
        if (k->opts.enable_mtls)
                log_info("dapr.runtime.security", "mTLS is enabled");
        else
                log_warn("dapr.runtime.security", "mTLS is disabled. Skipping certificate request and tls validation");
        if ((r = load(rt)))
                return r;
        log_features(&k->config);
        reload_targets(k, rt->h_reload);
        log_absent(&k->opts);
        if (k->opts.dapr_graceful_shutdown_seconds == 0)
                log_warn(SCOPE, "Graceful shutdown timeout is infinite, will wait indefinitely to shutdown");
        if ((r = init_kernel(rt)))
                return r;
        host_set_environment(&k->opts, k->opts.dapr_internal_grpc_port);
        if ((r = start_security(rt)))
                return r;
        began = loop_now_exact();
        log_info(SCOPE, "%s mode configured", k->opts.mode);
        log_info(SCOPE, "app id: %s", k->opts.app_id);
        if ((r = front_start_metrics(k->front, err, sizeof err))) {
                rt->fatal = arena_printf(&rt->arena, "%s", err);
                return r;
        }
        if ((r = start_components(rt)) || (r = start_servers(rt)) || (r = names_start(k)))
                return r;
        health_set(&k->health, rt->h_outbound, true);
        if (k->app && (r = app_wait_port(k->app)))
                return r;
        log_info(SCOPE,
                 "actors: state store is not configured - this is okay for clients but services with hosted actors will fail to initialize!");
        if (k->opts.app_max_concurrency > 0)
                log_info(SCOPE, "app max concurrency set to %d", k->opts.app_max_concurrency);
        if ((r = app_start(k->app)))
                return r;
        if ((r = reload_start(k, rt->h_reload, reload_failed, rt)))
                return r;
        upgrade_inherited(k);
        log_info(SCOPE, "dapr initialized. Status: Running. Init Elapsed %lldms", (long long)((loop_now_exact() - began) * 1e3));
        health_set(&k->health, rt->h_runtime, true);
        return 0;
}

static void start_fiber(void *arg)
{
        struct runtime *rt = arg;

        if (start(rt) && !rt->fatal && !rt->k->shutting_down)
                rt->fatal = "context canceled";
        rt->start_ended = true;
        cond_broadcast(&rt->k->changed);
}

/* ---- stop ---- */

static void grace_over(struct timer *t)
{
        log_fatal(SCOPE, "Graceful shutdown timeout exceeded, forcing shutdown");
        _exit(1);
}

static void quiesce(struct runtime *rt)
{
        for (; rt->blocks_loud > 0; rt->blocks_loud--)
                if (blocks[rt->blocks_loud - 1]->quiesce)
                        blocks[rt->blocks_loud - 1]->quiesce(rt->k);
}

static void hang_up(struct kernel *k)
{
        for (size_t i = 0; i < N_BLOCKS; i++)
                if (blocks[i]->hang_up)
                        blocks[i]->hang_up(k);
}

static void app_changed(void *arg, bool healthy)
{
        struct kernel *k = arg;

        cond_broadcast(&k->changed);
}

/* All of them: one whose init has failed or was never called has kept things since its components came up. */
static void fini_blocks(struct kernel *k)
{
        for (size_t i = N_BLOCKS; i-- > 0;)
                if (blocks[i]->fini)
                        blocks[i]->fini(k);
}

/* Parks until the app is unhealthy, true, or the time has come. Without an app there is nobody to become it. */
static bool app_leaves(struct kernel *k, double until)
{
        if (k->app && app_watch_health(k->app, app_changed, k))
                return false;
        while (!k->app || app_is_healthy(k->app))
                if (cond_wait_until(&k->changed, until) == -ETIMEDOUT)
                        return false;
        return true;
}

static void block_shutdown(struct runtime *rt)
{
        struct kernel *k = rt->k;
        int64_t ns = k->opts.dapr_block_shutdown_duration_ns;
        char text[40];

        if (ns < 0 || rt->fatal || !rt->signals) /* who asks for the end over the API gets it now */
                return;
        duration_text(text, ns);
        log_info(SCOPE, "Blocking graceful shutdown for %s or until app reports unhealthy...", text);
        quiesce(rt);
        hang_up(k);
        if (app_leaves(k, loop_now_exact() + (double)ns / 1e9))
                log_info(SCOPE, "App reported unhealthy, entering shutdown...");
        else
                log_info(SCOPE, "Block shutdown period expired, entering shutdown...");
}

static void stop(struct runtime *rt)
{
        struct kernel *k = rt->k;
        int grace_s = k->opts.dapr_graceful_shutdown_seconds;

        reload_stop(k);
        block_shutdown(rt);
        health_set(&k->health, rt->h_runtime, false);
        if (grace_s > 0)
                timer_start(&rt->grace, grace_s, 0);
        /* the timer above is the only bound: what still runs then goes down with the process */
        quiesce(rt);
        hang_up(k);
        if (k->front)
                front_stop_apis(k->front, INFINITY);
        log_info(SCOPE, "Dapr is shutting down");
        fini_blocks(k);
        app_stop(k->app);
        names_stop(k);
        runtime_stop_components(k, grace_s > 0 ? grace_s : 10);
        tracer_stop(k->tracer, TRACES_STOP_S);
        log_info(SCOPE, "Dapr runtime stopped");
        if (k->front)
                front_stop_metrics(k->front);
        scope_cancel(&k->background);
        scope_join(&k->background);
        timer_stop(&rt->grace);
}

static double upgrade_grace_s(const struct kernel *k)
{
        return k->opts.dapr_graceful_shutdown_seconds > 0 ? k->opts.dapr_graceful_shutdown_seconds : 10;
}

/* Before another program takes over: requests and proxied streams that run get their time while this one serves as ever, so that nobody
 * waits for them later. */
static void let_finish(struct kernel *k)
{
        double until = loop_now() + upgrade_grace_s(k);
        size_t n = front_before(k->front, true);

        for (; n && !k->shutting_down && loop_now() < until; n = front_before(k->front, false))
                if (cond_wait_until(&k->changed, loop_now() + LET_FINISH_POLL_S) == -ECANCELED)
                        break;
}

/* Another program takes this one's place. Returns only when that has failed for good. */
static void hand_over(struct runtime *rt)
{
        struct kernel *k = rt->k;
        double grace_s = upgrade_grace_s(k), began = loop_now_exact(), rested, settled;
        struct ledger l;

        log_info(SCOPE, "Another program takes over: %s", k->binary);
        ledger_init(&l);
        runtime_hold_signals();
        reload_stop(k);
        quiesce(rt);
        rested = loop_now_exact();
        front_settle(k->front, &l, grace_s);
        settled = loop_now_exact();
        for (size_t i = 0; i < N_BLOCKS; i++)
                if (blocks[i]->note)
                        blocks[i]->note(k, &l);
        hang_up(k);
        front_end_streams(k->front);
        fini_blocks(k);
        app_stop(k->app);
        names_stop(k);
        runtime_unpublish_components(k);
        log_info(SCOPE, "No events on their way after %.0f ms, no requests after %.0f ms more, no streams after %.0f ms more", (rested - began) * 1e3,
                 (settled - rested) * 1e3, (loop_now_exact() - settled) * 1e3);
        upgrade_exec(k, &l, grace_s);
        ledger_fini(&l);
        rt->fatal = "no program could be started to go on";
}

static void release(struct runtime *rt)
{
        struct kernel *k = rt->k;

        front_free(k->front);
        mesh_free(k->mesh);
        endpoints_free(k->endpoints);
        identity_free(k->identity);
        app_free(k->app);
        pipeline_free(k->app_pipeline);
        resiliency_stop(k);
        super_free(k->super);
        names_free(k);
        observe_free(k->observe);
        tracer_free(k->tracer);
        slow_free(k->slow);
        plugin_metrics_free(rt->plugin_metrics);
        metrics_free(k->metrics);
        metric_rules_free(rt->metric_rules);
        resource_set_fini(&k->resources);
        configuration_fini(&k->config);
        for (struct map_entry *e = NULL; (e = map_next(&k->extended, e));)
                free(e->value);
        map_fini(&k->extended);
        arena_fini(&rt->arena);
}

/* ---- life ---- */

static void on_signal(struct runtime *rt, const char *name)
{
        if (rt->signals++) {
                log_fatal("dapr.signals", "Received signal '%s' during shutdown; exiting immediately", name);
                _exit(1);
        }
        log_info("dapr.signals", "Received signal '%s'; beginning shutdown", name);
        kernel_shutdown(rt->k, false);
}

static void on_sigint(struct sig_watch *w, int signo)
{
        on_signal(container_of(w, struct runtime, sigint), "interrupt");
}

static void on_sigterm(struct sig_watch *w, int signo)
{
        on_signal(container_of(w, struct runtime, sigterm), "terminated");
}

static void find_self(struct kernel *k)
{
        ssize_t n = readlink("/proc/self/exe", k->exe_dir, sizeof k->exe_dir - 1);
        char *slash;

        k->exe_dir[n > 0 ? n : 0] = '\0';
        snprintf(k->exe, sizeof k->exe, "%s", k->exe_dir);
        if ((slash = strrchr(k->exe_dir, '/')))
                *slash = '\0';
        if (gethostname(k->hostname, sizeof k->hostname - 1))
                k->hostname[0] = '\0';
}

static void mask_signals(int how)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        if (how == SIG_BLOCK) /* until reload_start() listens to it */
                sigaddset(&set, SIGHUP);
        sigprocmask(how, &set, NULL);
}

void runtime_hold_signals(void)
{
        mask_signals(SIG_BLOCK);
}

int runtime_run(struct kernel *k)
{
        struct runtime rt = {.k = k};
        struct scope starting;

        arena_init(&rt.arena, 0);
        cond_init(&k->changed);
        scope_init(&k->background);
        scope_init(&starting);
        timer_init(&rt.grace, grace_over);
        sig_watch_start(&rt.sigint, SIGINT, on_sigint);
        sig_watch_start(&rt.sigterm, SIGTERM, on_sigterm);
        mask_signals(SIG_UNBLOCK);
        find_self(k);
        k->blocks = blocks;
        k->n_blocks = N_BLOCKS;
        rt.h_security = health_add(&k->health, "security-provider", HEALTH_ALL);
        rt.h_runtime = health_add(&k->health, "runtime", HEALTH_ALL);
        rt.h_outbound = health_add(&k->health, "app", HEALTH_OUTBOUND);

        if (fiber_go_flags(&starting, "start", FIBER_BIG, start_fiber, &rt))
                rt.fatal = "out of memory";
        while (!rt.fatal && !k->shutting_down && !k->upgrading)
                cond_wait(&k->changed);
        if (!rt.start_ended)
                scope_cancel(&starting);
        scope_join(&starting);
        if (k->upgrading && !k->shutting_down && !rt.fatal)
                let_finish(k);
        k->upgrading &= !k->shutting_down && !rt.fatal;
        if (k->upgrading)
                hand_over(&rt);
        else
                stop(&rt);
        if (rt.fatal)
                log_fatal(SCOPE, "Fatal error from runtime: %s", rt.fatal);
        else
                log_info(SCOPE, "Daprd shutdown gracefully");
        k->exit_code = rt.fatal ? 1 : 0;
        release(&rt);
        runtime_hold_signals();
        sig_watch_stop(&rt.sigint);
        sig_watch_stop(&rt.sigterm);
        return k->exit_code;
}
