/*
 * Calls to a plugin through the supervisor, no door in front: requests a second, CPU of both sides a request.
 *   component_bench [type [callers [seconds [value bytes]]]]     default: state.in-memory 64 2 100
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/opts.h"
#include "kernel/super/super.h"
#include "sdk/base/loop.h"

#define STATE "/dapr.proto.components.v1.StateStore/"

static struct {
        const char *type;
        int callers;
        double seconds;
        size_t bytes;
        struct component *c;
        bool stop, set;
        uint64_t done, failed;
} B = {.type = "state.in-memory", .callers = 64, .seconds = 2, .bytes = 100};

static void caller(void *arg)
{
        char *value = calloc(1, B.bytes + 1);
        memset(value, 'v', B.bytes);
        while (!B.stop) {
                struct arena a;
                struct rpc_status st;
                struct str resp, req;
                arena_init(&a, 0);
                Dapr__Proto__Components__V1__GetRequest get = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__INIT;
                Dapr__Proto__Components__V1__SetRequest set = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT;
                get.key = set.key = "app||a-key-of-some-length";
                set.value = pb_bytes(str_n(value, B.bytes));
                req = pb_pack(&a, B.set ? &set.base : &get.base);
                if (component_call_bytes(B.c, &a, B.set ? STATE "Set" : STATE "Get", req, &resp, &st))
                        B.failed++;
                else
                        B.done++;
                arena_fini(&a);
        }
        free(value);
}

static double own_cpu(void)
{
        struct rusage u;
        getrusage(RUSAGE_SELF, &u);
        return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double plugin_cpu(struct arena *a)
{
        struct component_status st;
        component_status_get(B.c, a, &st);
        return st.cpu_seconds;
}

static void measure(bool set, int callers)
{
        struct scope s;
        struct arena a;
        arena_init(&a, 0);
        scope_init(&s);
        B.set = set;
        B.stop = false;
        B.done = B.failed = 0;
        double cpu = own_cpu(), theirs = plugin_cpu(&a), t0 = loop_now_exact();
        for (int i = 0; i < callers; i++)
                fiber_go(&s, "caller", caller, NULL);
        fiber_sleep(B.seconds);
        B.stop = true;
        scope_join(&s);
        double t = loop_now_exact() - t0, n = (double)(B.done ? B.done : 1);
        printf("%s %-4s %3d callers: %8.0f/s, %6.1f us each, CPU us a request: kernel %.2f, plugin %.2f; %llu failed\n", B.type,
               set ? "set" : "get", callers, n / t, t / n * callers * 1e6, (own_cpu() - cpu) / n * 1e6, (plugin_cpu(&a) - theirs) / n * 1e6,
               (unsigned long long)B.failed);
        arena_fini(&a);
}

static void bench(void *arg)
{
        char exe[512] = "";
        struct super *s;
        struct arena a;
        const char *err = "";
        struct component_spec spec = {.name = "bench", .namespace_ = "", .type = B.type, .version = "v1", .secret_store = "", .file = ""};
        if (readlink("/proc/self/exe", exe, sizeof exe - 1) > 0)
                *strrchr(exe, '/') = '\0';
        struct daprd_opts opts = {.app_id = "bench", .plugins_path = ""};
        struct super_conf conf = {.opts = &opts, .exe_dir = exe};
        arena_init(&a, 0);
        arena_init(&spec.arena, 0);
        if (super_new(&s, &conf) || super_component_start(s, &spec, &a, &B.c, &err)) {
                fprintf(stderr, "%s\n", err);
                exit(1);
        }
        measure(true, B.callers);
        measure(false, B.callers);
        measure(false, 1);
        super_stop(s, 1);
        super_free(s);
        arena_fini(&spec.arena);
        arena_fini(&a);
        loop_stop();
}

int main(int argc, char **argv)
{
        struct scope s;
        if (argc > 1)
                B.type = argv[1];
        if (argc > 2)
                B.callers = atoi(argv[2]);
        if (argc > 3)
                B.seconds = atof(argv[3]);
        if (argc > 4)
                B.bytes = (size_t)atol(argv[4]);
        if (loop_init())
                return 1;
        scope_init(&s);
        fiber_go(&s, "bench", bench, NULL);
        loop_run();
        loop_fini();
        return 0;
}
