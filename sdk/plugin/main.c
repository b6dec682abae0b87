/*
 * dapr_plugin_main: the shape of a plugin process.
 * Started by a runtime: listening socket on fd 3, control socket on fd 4, whose end means that the runtime is gone or done
 * with us: instances are closed and the process ends with 0. Started by hand with --socket PATH: the same services on that
 * path until a signal, so that a debugger can hold the process or another runtime can use it as a pluggable component.
 * Exit codes: 0 done, 1 could not start, 2 wrong use.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/fiber.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"
#include "sdk/net/http2.h"
#include "sdk/plugin/runtime.h"

/* A leak checker wants closed connections to be gone as well; they linger until the peer has closed. */
#ifdef __SANITIZE_ADDRESS__
#define LINGER_S 0.05
#else
#define LINGER_S 0.0
#endif

enum { EXIT_GRACE_S = 3 };

static struct runtime *the_runtime; /* one plugin a process */
static pthread_t loop_thread;

struct runtime *sdk_runtime(void)
{
        return the_runtime;
}

bool sdk_on_loop(void)
{
        return pthread_equal(pthread_self(), loop_thread);
}

/* ---- backend reports, from any thread ---- */

struct report {
        char *instance, *reason;
        bool up;
};

static void report_apply(void *arg)
{
        struct report *r = arg;
        if (the_runtime)
                sdk_backend_report(the_runtime, r->instance, r->up, r->reason);
        free(r->instance);
        free(r->reason);
        free(r);
}

static void report(const char *instance, bool up, const char *reason)
{
        if (!the_runtime)
                return;
        if (sdk_on_loop()) {
                sdk_backend_report(the_runtime, instance, up, reason);
                return;
        }
        struct report *r = calloc(1, sizeof *r);
        if (!r)
                return;
        *r = (struct report){.instance = strdup(instance ? instance : ""), .reason = strdup(reason ? reason : ""), .up = up};
        loop_post(report_apply, r);
}

void dapr_backend_up(const char *instance)
{
        report(instance, true, NULL);
}

void dapr_backend_down(const char *instance, const char *reason)
{
        report(instance, false, reason);
}

/* ---- the end ---- */

static void end_fiber(void *arg)
{
        struct runtime *rt = arg;
        rt->draining = true;
        sdk_pubsub_stop(rt);
        rpc_server_stop(rt->server, 0);
        sdk_instances_close(rt); /* before the background fibers end: they own what close() tells them to free */
        scope_cancel(&rt->scope);
        scope_join(&rt->scope);
        if (rt->plugin->stop)
                rt->plugin->stop();
        if (LINGER_S > 0)
                fiber_sleep(LINGER_S);
        loop_stop();
}

struct control {
        struct runtime *rt;
        struct io_watch watch;
        struct sig_watch on_int, on_term;
        struct scope scope;
        bool ending;
};

static void begin_end(struct control *c)
{
        if (c->ending)
                return;
        c->ending = true;
        alarm(EXIT_GRACE_S); /* a stuck worker or stop() does not keep the process */
        if (fiber_go(&c->scope, "end", end_fiber, c->rt))
                loop_stop();
}

static void on_control(struct io_watch *w, int events)
{
        char scrap[64];
        ssize_t n = read(PLUGIN_FD_CONTROL, scrap, sizeof scrap);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
                return;
        io_watch_stop(w);
        sdk_lifeline_lost(container_of(w, struct control, watch)->rt);
}

static void on_lifeline_end(void *arg)
{
        begin_end(arg);
}

static void on_int(struct sig_watch *w, int signo)
{
        begin_end(container_of(w, struct control, on_int));
}

static void on_term(struct sig_watch *w, int signo)
{
        begin_end(container_of(w, struct control, on_term));
}

/* ---- the start ---- */

static void print_manifest(const struct dapr_plugin *p)
{
        printf("name: %s\nversion: %s\ncontractVersions: [%d]\ntypes:\n", p->name, p->version, CONTRACT_VERSION);
        for (size_t i = 0; i < p->n_types; i++) {
                const struct dapr_component_type *t = &p->types[i];
                printf("  - type: %s\n    versions: [%s]\n    features: [", t->type, t->versions ? t->versions : "v1");
                unsigned have = sdk_features(t);
                const char *sep = "";
                for (unsigned bit = 1; bit && bit <= have; bit <<= 1)
                        if ((have & bit) && sdk_feature_name(bit)) {
                                printf("%s%s", sep, sdk_feature_name(bit));
                                sep = ", ";
                        }
                printf("]\n");
        }
}

static int usage(const struct dapr_plugin *p, const char *wrong)
{
        if (wrong)
                fprintf(stderr, "%s: unknown argument '%s'\n", p->name, wrong);
        fprintf(stderr,
                "%s %s is a plugin: daprd starts it when a component of its type is loaded.\n"
                "By hand:  --socket PATH   serve on a Unix socket (a debugger, or a pluggable component of another runtime)\n"
                "          --manifest      print what it serves\n",
                p->name, p->version);
        return wrong ? 2 : 0;
}

/* 0 = run, else exit code + 1. */
static int arguments(int argc, char **argv, const struct dapr_plugin *p, const char **ret_socket)
{
        struct stat st;
        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--manifest") == 0) {
                        print_manifest(p);
                        return 1;
                }
                if (strcmp(argv[i], "--help") == 0)
                        return usage(p, NULL) + 1;
                if (strcmp(argv[i], "--socket") != 0 || i + 1 == argc)
                        return usage(p, argv[i]) + 1;
                *ret_socket = argv[++i];
        }
        if (*ret_socket)
                return 0;
        if (fstat(PLUGIN_FD_LISTEN, &st) || !S_ISSOCK(st.st_mode)) {
                usage(p, NULL);
                return 2 + 1;
        }
        return 0;
}

static int listen_by_hand(struct runtime *rt, struct control *c, const char *path)
{
        char addr[160];
        snprintf(addr, sizeof addr, "unix:%s", path);
        unlink(path);
        int r = rpc_server_listen(rt->server, str_of(addr));
        if (r) {
                dapr_log(DAPR_LOG_ERROR, "cannot listen on %s: %s", path, strerror(-r));
                return r;
        }
        sig_watch_start(&c->on_int, SIGINT, on_int);
        sig_watch_start(&c->on_term, SIGTERM, on_term);
        dapr_log(DAPR_LOG_INFO, "%s %s serves on %s", rt->plugin->name, rt->plugin->version, path);
        return 0;
}

/* The runtime that started this process; when that is gone, whoever takes it over. Other plugins' processes are not. */
static pid_t starter;

static bool is_runtime(pid_t peer)
{
        const struct lifeline *l = &the_runtime->lifeline;
        return peer == l->runtime || l->lost || (l->runtime == starter ? getppid() != starter : kill(l->runtime, 0) && errno == ESRCH);
}

static int serve(struct runtime *rt, struct control *c, const char *socket_path)
{
        int r = rpc_server_add(rt->server, sdk_lifecycle_methods, sdk_lifecycle_methods_n);
        if (r == 0)
                r = rpc_server_add(rt->server, sdk_reflection_methods, sdk_reflection_methods_n);
        if (r == 0)
                r = sdk_dispatch_add(rt);
        if (r == 0 && rt->plugin->start)
                r = rt->plugin->start();
        if (r == 0)
                r = sdk_pings_start(rt);
        if (r == 0)
                r = socket_path ? listen_by_hand(rt, c, socket_path) : rpc_server_adopt(rt->server, PLUGIN_FD_LISTEN);
        if (r == 0 && !socket_path) {
                fcntl(PLUGIN_FD_LISTEN, F_SETFD, FD_CLOEXEC); /* children of the plugin must not hold them */
                fcntl(PLUGIN_FD_CONTROL, F_SETFD, FD_CLOEXEC);
                sdk_lifeline_init(&rt->lifeline, starter, on_lifeline_end, c);
                io_watch_init(&c->watch, PLUGIN_FD_CONTROL, on_control);
                io_watch_set(&c->watch, IO_READ);
        }
        return r;
}


int dapr_plugin_main(int argc, char **argv, const struct dapr_plugin *p)
{
        struct runtime rt = {.plugin = p};
        struct control c = {.rt = &rt};
        struct rpc_server_conf conf = {.name = p->name, .max_recv_bytes = -1, .max_streams = 100000};
        const char *socket_path = NULL;

        int stop = arguments(argc, argv, p, &socket_path);
        if (stop)
                return stop - 1;
        starter = getppid();
        if (!socket_path)
                conf.welcome = is_runtime;
        signal(SIGPIPE, SIG_IGN);
        pthread_setname_np(pthread_self(), basename(argv[0])); /* a program that was run by a descriptor is called by its number */
        sdk_log_setup();
        if (p->worker_threads > 0)
                work_set_threads(p->worker_threads);
        int r = loop_init();
        if (r) {
                dapr_log(DAPR_LOG_ERROR, "no event loop: %s", strerror(-r));
                return 1;
        }
        loop_thread = pthread_self();
        the_runtime = &rt;
        scope_init(&rt.scope);
        scope_init(&c.scope);
        list_init(&rt.instances);
        list_init(&rt.subscriptions);
        list_init(&rt.running);
        cond_init(&rt.idle);
        cond_init(&rt.interval_changed);
        cond_init(&rt.health);
        rt.started_at = loop_now();
        r = rpc_server_new(&rt.server, &conf);
        if (r == 0)
                r = serve(&rt, &c, socket_path);
        if (r == 0)
                loop_run();
        else
                dapr_log(DAPR_LOG_ERROR, "cannot start: %s", strerror(-r));
        if (r == 0 && socket_path)
                unlink(socket_path);
        work_fini();
        rpc_server_free(rt.server);
        rpc_call_fini();
        h2_pool_fini();
        for (size_t i = 0; i < rt.n_rows; i++)
                free(rt.rows[i]);
        free(rt.wanted_type);
        free(rt.wanted_version);
        the_runtime = NULL;
        loop_fini();
        return r ? 1 : rt.exit_code;
}
