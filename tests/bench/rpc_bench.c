/*
 * Cost of one gRPC call over a Unix socket: a server process that echoes, a client process with K fibers calling it.
 * rpc_bench [-k in flight] [-n calls] [-s payload bytes] [-t] [-r rounds]; -t: TCP on the loopback instead.
 * Prints calls/s, p50 and p99 of one call, CPU time per call of each side; the median of the rounds by calls/s.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sdk/base/loop.h"
#include "sdk/base/work.h"
#include "sdk/net/rpc.h"

enum { ROUNDS_MAX = 99 };

struct round {
        double rps, p50, p99, client_us, server_us;
};

static struct {
        int k, rounds;
        long n;
        size_t bytes;
        bool tcp;
        char target[96];
        pid_t server;
        struct rpc_channel *ch;
        double *latency;
        long started, done;
        struct str payload;
} B = {.k = 64, .rounds = 3, .n = 200000, .bytes = 100};

static int echo(struct rpc_call *c, void *arg)
{
        struct str m;
        int r = rpc_recv(c, &m);
        return r <= 0 ? r : rpc_send(c, m);
}

static const struct rpc_method rows[] = {{"/bench.Echo/Call", echo}};

static void serve(int ready)
{
        struct rpc_server *sv;
        const struct rpc_server_conf conf = {.max_recv_bytes = -1};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (loop_init() || rpc_server_new(&sv, &conf) || rpc_server_add(sv, rows, 1) || rpc_server_listen(sv, str_of(B.target)))
                _exit(1);
        int port = rpc_server_port(sv);
        if (write(ready, &port, sizeof(port)) != sizeof(port))
                _exit(1);
        loop_run();
        _exit(0);
}

static void start_server(void)
{
        int p[2], port;
        snprintf(B.target, sizeof(B.target), B.tcp ? "127.0.0.1:0" : "unix:/tmp/rpc_bench.%d", getpid());
        if (pipe(p))
                exit(1);
        B.server = fork();
        if (B.server == 0)
                serve(p[1]);
        if (read(p[0], &port, sizeof(port)) != sizeof(port))
                exit(1);
        if (B.tcp)
                snprintf(B.target, sizeof(B.target), "127.0.0.1:%d", port);
}

static double cpu_us(clockid_t c)
{
        struct timespec ts;
        clock_gettime(c, &ts);
        return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void caller(void *arg)
{
        struct arena a = {0};
        while (B.started < B.n) {
                long i = B.started++;
                struct str resp;
                struct rpc_status st;
                double t = loop_now_exact();
                if (rpc_unary(B.ch, &a, "/bench.Echo/Call", B.payload, &resp, NULL, &st)) {
                        fprintf(stderr, "call failed: %d %.*s\n", st.code, STR_FMT(st.message));
                        exit(1);
                }
                B.latency[i] = loop_now_exact() - t;
                B.done++;
                arena_reset(&a);
        }
        arena_fini(&a);
}

static int by_value(const void *a, const void *b)
{
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static struct round run(void)
{
        struct scope s;
        clockid_t server;
        scope_init(&s);
        clock_getcpuclockid(B.server, &server);
        B.started = B.done = 0;
        double t = loop_now_exact(), c0 = cpu_us(CLOCK_PROCESS_CPUTIME_ID), s0 = cpu_us(server);
        for (int i = 0; i < B.k; i++)
                fiber_go(&s, "caller", caller, NULL);
        scope_join(&s);
        double wall = loop_now_exact() - t, n = (double)B.n;
        struct round r = {n / wall, 0, 0, (cpu_us(CLOCK_PROCESS_CPUTIME_ID) - c0) / n, (cpu_us(server) - s0) / n};
        qsort(B.latency, (size_t)B.n, sizeof(double), by_value);
        r.p50 = B.latency[B.n / 2] * 1e6;
        r.p99 = B.latency[B.n * 99 / 100] * 1e6;
        return r;
}

static int by_rps(const void *a, const void *b)
{
        return by_value(&((const struct round *)a)->rps, &((const struct round *)b)->rps);
}

static void bench(void *arg)
{
        static struct round r[ROUNDS_MAX];
        long n = B.n;
        const struct rpc_channel_conf conf = {.target = str_of(B.target), .max_recv_bytes = -1};
        if (rpc_channel_new(&B.ch, &conf))
                exit(1);
        B.n = n / 10 + 1;
        run();
        B.n = n;
        for (int i = 0; i < B.rounds; i++)
                r[i] = run();
        qsort(r, (size_t)B.rounds, sizeof(r[0]), by_rps);
        const struct round *m = &r[B.rounds / 2];
        printf("%s k=%d bytes=%zu: %.0f calls/s  p50 %.1f us  p99 %.1f us  cpu/call client %.2f us server %.2f us\n",
               B.tcp ? "tcp" : "unix", B.k, B.bytes, m->rps, m->p50, m->p99, m->client_us, m->server_us);
        rpc_channel_close(B.ch);
        loop_stop();
}

int main(int argc, char **argv)
{
        for (int o; (o = getopt(argc, argv, "k:n:s:r:t")) != -1;) {
                switch (o) {
                case 'k':
                        B.k = atoi(optarg);
                        break;
                case 'n':
                        B.n = atol(optarg);
                        break;
                case 's':
                        B.bytes = (size_t)atol(optarg);
                        break;
                case 'r':
                        B.rounds = atoi(optarg) < ROUNDS_MAX ? atoi(optarg) : ROUNDS_MAX;
                        break;
                case 't':
                        B.tcp = true;
                        break;
                default:
                        return 2;
                }
        }
        struct scope s;
        start_server();
        B.latency = malloc((size_t)B.n * sizeof(double));
        char *payload = calloc(1, B.bytes + 1);
        B.payload = (struct str){payload, B.bytes};
        scope_init(&s);
        if (!B.latency || !payload || loop_init() || fiber_go(&s, "bench", bench, NULL))
                return 1;
        loop_run();
        kill(B.server, SIGKILL);
        waitpid(B.server, NULL, 0);
        if (!B.tcp)
                unlink(B.target + 5);
        free(B.latency);
        free(payload);
        loop_fini();
        return 0;
}
