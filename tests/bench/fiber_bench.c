/* What the base layer costs: start and end of a fiber, switches, channels, deadlines, the worker pool, many parked fibers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdk/base/fiber.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"

enum { N = 1000000 };

static struct chan chan;
static struct fiber *peers[2];
static double began;

static void start(void)
{
        began = loop_now_exact();
}

static void report(const char *what, double n)
{
        printf("%-44s %9.1f ns\n", what, (loop_now_exact() - began) * 1e9 / n);
}

static void ends(void *arg)
{
}

static void bench_spawn(const char *what, int at_once)
{
        struct scope s = SCOPE_INIT(s);
        start();
        for (int i = 0; i < N / at_once; i++) {
                for (int j = 0; j < at_once; j++)
                        must(fiber_go(&s, "ends", ends, NULL) == 0);
                scope_join(&s);
        }
        report(what, N);
}

static void pings(void *arg)
{
        int me = (int)(intptr_t)arg;
        peers[me] = fiber_self();
        fiber_yield();
        for (int i = 0; i < N; i++) {
                if (me)
                        fiber_park();
                fiber_wake(peers[!me]);
                if (!me)
                        fiber_park();
        }
}

static void bench_ping(void)
{
        struct scope s = SCOPE_INIT(s);
        must(fiber_go(&s, "ping", pings, (void *)0) == 0 && fiber_go(&s, "pong", pings, (void *)1) == 0);
        start();
        scope_join(&s);
        report("wake + park + wake + park, two fibers", N);
}

static void receives(void *arg)
{
        void *p;
        while (chan_recv(&chan, &p) == 0)
                ;
}

static void bench_chan(void)
{
        struct scope s = SCOPE_INIT(s);
        must(chan_init(&chan, 64) == 0 && fiber_go(&s, "receives", receives, NULL) == 0);
        start();
        for (int i = 0; i < N; i++)
                chan_send(&chan, &chan);
        chan_close(&chan);
        scope_join(&s);
        report("channel of 64, one message", N);
        chan_fini(&chan);
}

static struct fiber *parked[100];

static void parks_once(void *arg)
{
        parked[(intptr_t)arg] = fiber_self();
        fiber_set_deadline(loop_now() + 60);
        fiber_park();
}

static void bench_deadlines(void)
{
        struct scope s = SCOPE_INIT(s);
        start();
        for (int i = 0; i < N / 100; i++) {
                for (intptr_t j = 0; j < 100; j++)
                        must(fiber_go(&s, "parks", parks_once, (void *)j) == 0);
                fiber_yield();
                for (int j = 0; j < 100; j++)
                        fiber_wake(parked[j]);
                scope_join(&s);
        }
        report("fiber that parks once with a 60 s deadline", N);
}

static int nothing(void *arg)
{
        return 0;
}

static void bench_work(void)
{
        start();
        for (int i = 0; i < N / 50; i++)
                work_run(nothing, NULL);
        report("work_run, one caller", N / 50);
}

static size_t rss_kib(void)
{
        long pages = 0, resident = 0;
        FILE *f = fopen("/proc/self/statm", "r");
        if (f && fscanf(f, "%ld %ld", &pages, &resident) != 2)
                resident = 0;
        if (f)
                fclose(f);
        return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

static void parks(void *arg)
{
        fiber_park();
}

static void bench_many(void)
{
        struct scope s = SCOPE_INIT(s);
        size_t before = rss_kib(), n = fiber_limit() - 1;
        start();
        for (size_t i = 0; i < n; i++)
                must(fiber_go(&s, "parks", parks, NULL) == 0);
        fiber_yield();
        report("first start of a fiber (new stack)", (double)n);
        printf("%zu parked fibers: %.1f KiB resident each\n", n, (double)(rss_kib() - before) / (double)n);
        scope_cancel(&s);
        scope_join(&s);
}

static void all(void *arg)
{
        bench_spawn("start + run + end, one at a time", 1);
        bench_spawn("start + run + end, 100 at once", 100);
        bench_ping();
        bench_chan();
        bench_deadlines();
        bench_work();
        bench_many();
        loop_stop();
}

int main(void)
{
        static struct scope s = SCOPE_INIT(s);
        must(loop_init() == 0 && fiber_go(&s, "bench", all, NULL) == 0);
        loop_run();
        work_fini();
        loop_fini();
        return 0;
}
