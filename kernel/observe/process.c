/* process_* metrics with the names of the Prometheus client libraries. What cannot be read keeps its last value. */
#include "kernel/observe/process.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "sdk/base/fiber.h"
#include "sdk/base/text_file.h"

enum { P_CPU, P_RSS, P_VSIZE, P_VMAX, P_FDS, P_MAX_FDS, P_START, P_FIBERS, P_N };

static const struct metric_def defs[P_N] = {
        [P_CPU] = {"process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", METRIC_COUNTER, NULL, NULL},
        [P_RSS] = {"process_resident_memory_bytes", "Resident memory size in bytes.", METRIC_GAUGE, NULL, NULL},
        [P_VSIZE] = {"process_virtual_memory_bytes", "Virtual memory size in bytes.", METRIC_GAUGE, NULL, NULL},
        [P_VMAX] = {"process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.", METRIC_GAUGE, NULL, NULL},
        [P_FDS] = {"process_open_fds", "Number of open file descriptors.", METRIC_GAUGE, NULL, NULL},
        [P_MAX_FDS] = {"process_max_fds", "Maximum number of open file descriptors.", METRIC_GAUGE, NULL, NULL},
        [P_START] = {"process_start_time_seconds", "Start time of the process since unix epoch in seconds.", METRIC_GAUGE, NULL, NULL},
        [P_FIBERS] = {"microdapr_fibers", "Number of fibers: requests, connections and jobs in flight.", METRIC_GAUGE, NULL, NULL},
};

struct process_metrics {
        struct metric_series *s[P_N];
};

/* Wall time of the boot. */
static double boot_time(void)
{
        struct timespec now, up;

        clock_gettime(CLOCK_REALTIME, &now);
        clock_gettime(CLOCK_BOOTTIME, &up);
        return (double)(now.tv_sec - up.tv_sec) + (double)(now.tv_nsec - up.tv_nsec) / 1e9;
}

static double open_fds(void)
{
        DIR *d = opendir("/proc/self/fd");
        int n = 0;

        if (!d)
                return -1;
        while (readdir(d))
                n++;
        closedir(d);
        return n - 3; /* ".", ".." and the directory itself */
}

static void scrape(void *arg)
{
        struct process_metrics *p = arg;
        struct rusage ru;
        char text[512];
        long pages, rss;
        double n;

        if (getrusage(RUSAGE_SELF, &ru) == 0)
                metric_set(p->s[P_CPU], (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
                                                (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
        if (text_file_read("/proc/self/statm", text, sizeof text) > 0 && sscanf(text, "%ld %ld", &pages, &rss) == 2) {
                metric_set(p->s[P_VSIZE], (double)pages * (double)sysconf(_SC_PAGESIZE));
                metric_set(p->s[P_RSS], (double)rss * (double)sysconf(_SC_PAGESIZE));
        }
        if ((n = open_fds()) >= 0)
                metric_set(p->s[P_FDS], n);
        metric_set(p->s[P_FIBERS], (double)fiber_count());
}

static void set_constants(struct process_metrics *p)
{
        struct rlimit lim;
        char text[1024], *at;
        unsigned long long start = 0;

        if (getrlimit(RLIMIT_NOFILE, &lim) == 0)
                metric_set(p->s[P_MAX_FDS], (double)lim.rlim_cur);
        if (getrlimit(RLIMIT_AS, &lim) == 0)
                metric_set(p->s[P_VMAX], lim.rlim_cur == RLIM_INFINITY ? 18446744073709551615.0 : (double)lim.rlim_cur);
        /* field 22 of stat: start in clock ticks since boot; the name in parentheses may hold anything */
        if (text_file_read("/proc/self/stat", text, sizeof text) > 0 && (at = strrchr(text, ')')) &&
            sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start) == 1)
                metric_set(p->s[P_START], boot_time() + (double)start / (double)sysconf(_SC_CLK_TCK));
}

int process_metrics_new(struct process_metrics **ret, struct metrics *m)
{
        struct process_metrics *p = calloc(1, sizeof *p);

        if (!p)
                return -ENOMEM;
        for (int i = 0; i < P_N; i++) {
                struct metric *x = metric_add(m, &defs[i]);
                if (!x || !(p->s[i] = metric_series_get(x, NULL))) {
                        free(p);
                        return -ENOMEM;
                }
        }
        set_constants(p);
        metrics_on_scrape(m, scrape, p);
        *ret = p;
        return 0;
}

void process_metrics_free(struct process_metrics *p)
{
        free(p);
}
