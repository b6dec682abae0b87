/*
 * See spare.h. Work and quiet are told by the CPU time of the process, worker threads included: giving pages back costs a walk over
 * the heap and page faults afterwards, which nobody pays while there is work.
 */
#include "sdk/base/spare.h"

#include <time.h>

#include "sdk/base/loop.h"
#include "sdk/base/spare_give.h"

static struct {
        struct spare *first;
        struct timer timer;
        double cpu_s, at;    /* at the last look, or when looking began */
        double given_cpu_s;  /* when pages went back last */
        bool started;
        size_t trims;
} S;

static double cpu_seconds(void)
{
        struct timespec t = {0};

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Are there any left that may go? */
static bool look_at(struct spare *s)
{
        size_t n = s->count > s->keep ? s->count - s->keep : 0;

        if (n > s->low)
                n = s->low;
        if (n > SPARE_DROP_MAX)
                n = SPARE_DROP_MAX;
        for (; n; n--, s->count--)
                s->drop(s);
        s->low = s->count;
        return s->count > s->keep;
}

static void start(void)
{
        S.cpu_s = cpu_seconds();
        S.at = loop_now();
        timer_start(&S.timer, SPARE_LOOK_MS / 1e3, 0);
}

static void look(struct timer *t)
{
        double cpu_s = cpu_seconds();
        bool more = (cpu_s - S.cpu_s) * 100 > (loop_now() - S.at) * SPARE_QUIET_PERCENT;

        for (struct spare *s = S.first; s; s = s->next)
                more |= look_at(s);
        if (more) {
                start();
        } else if ((cpu_s - S.given_cpu_s) * 1e3 > SPARE_WORK_MS) {
                spare_give();
                S.given_cpu_s = cpu_seconds();
                S.trims++;
        }
}

void spare_put(struct spare *s)
{
        s->count++;
        if ((s->known && S.started && timer_is_active(&S.timer)) || !loop_is_running())
                return;
        if (!s->known) {
                s->known = true;
                s->low = 0;
                s->next = S.first;
                S.first = s;
        }
        if (!S.started)
                timer_init(&S.timer, look);
        S.started = true;
        if (!timer_is_active(&S.timer))
                start();
}

void spare_taken(struct spare *s)
{
        if (--s->count < s->low)
                s->low = s->count;
}

void spare_drop(struct spare *s)
{
        for (; s->count; s->count--)
                s->drop(s);
        s->low = 0;
        for (struct spare **at = &S.first; *at; at = &(*at)->next)
                if (*at == s) {
                        *at = s->next;
                        break;
                }
        s->known = false;
}

void spare_fini(void)
{
        if (S.started)
                timer_stop(&S.timer);
}

size_t spare_trims(void)
{
        return S.trims;
}
