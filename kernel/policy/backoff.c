/* See backoff.h. The greatest interval bounds the interval before its jitter, as in the original. */
#include "kernel/policy/backoff.h"

void backoff_init(struct backoff *b, const struct backoff_conf *conf, double now)
{
        *b = (struct backoff){.conf = conf, .current_ns = conf->initial_ns, .began = now};
}

static int64_t with_jitter(const struct backoff_conf *c, int64_t interval_ns, double random)
{
        double delta = c->jitter * (double)interval_ns, least = (double)interval_ns - delta;
        if (c->jitter == 0)
                return interval_ns;
        return (int64_t)(least + random * (2 * delta + 1));
}

int64_t backoff_next(struct backoff *b, double now, double random)
{
        const struct backoff_conf *c = b->conf;
        if (c->max_retries >= 0 && b->tries >= c->max_retries)
                return BACKOFF_STOP;
        b->tries++;
        if (!c->exponential)
                return c->duration_ns;
        int64_t next = with_jitter(c, b->current_ns, random), elapsed = (int64_t)((now - b->began) * 1e9);
        if ((double)b->current_ns >= (double)c->max_interval_ns / c->multiplier)
                b->current_ns = c->max_interval_ns;
        else
                b->current_ns = (int64_t)((double)b->current_ns * c->multiplier);
        return c->max_elapsed_ns && elapsed + next > c->max_elapsed_ns ? BACKOFF_STOP : next;
}
