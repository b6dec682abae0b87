/*
 * An app that is restarting. A delivery that got no answer, while the app's port is closed, says nothing about the message: it must not
 * go to the dead letter topic, and a broker that gets it back may throw it away. So it waits here, neither acknowledged nor refused,
 * in its window, until the port is open. While the port is open the error is the app's answer.
 */
#include <errno.h>

#include "kernel/app/app.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime.processor.subscription"

static const double PERIOD_S = 0.1, FRESH_S = 5; /* FRESH_S: an app that is just back may still refuse */

/* Is the port open? One of those who wait asks, the others believe it until the next try. */
static bool is_there(struct pubsub_block *b)
{
        int r;

        if (b->app_away && (b->app_asked || loop_now_exact() < b->app_next_try))
                return false;
        b->app_asked = true;
        r = app_try_port(b->k->app);
        b->app_asked = false;
        b->app_next_try = loop_now_exact() + PERIOD_S;
        if (r == 0 && b->app_away) {
                b->app_back_at = loop_now_exact();
                log_info(SCOPE, "the app's port is open again");
        } else if (r && r != -ECANCELED && !b->app_away) {
                log_warn(SCOPE, "the app's port is closed: events wait until it is back");
        }
        b->app_away = r ? b->app_away || r != -ECANCELED : false;
        return r == 0;
}

/* False: the subscription ends, or the delivery's own time is up. */
static bool wait_a_while(struct subscription *s)
{
        double until = loop_now_exact() + PERIOD_S;
        int r = 0;

        while (r == 0 && !s->closed)
                r = cond_wait_until(&s->changed, until);
        return !s->closed && r != -ECANCELED && loop_now_exact() > until - PERIOD_S / 10;
}

bool subscription_app_is_back(struct subscription *s, unsigned *times)
{
        struct pubsub_block *b = s->block;
        double until = loop_now_exact() + PUBSUB_AWAY_S;

        if (s->closed || *times >= PUBSUB_AWAY_MAX)
                return false;
        ++*times;
        if (!wait_a_while(s)) /* a process that dies closes its connections before its listening socket */
                return false;
        if (is_there(b))
                return b->app_back_at && loop_now_exact() < b->app_back_at + FRESH_S;
        do
                if (loop_now_exact() > until || !wait_a_while(s))
                        return false;
        while (!is_there(b));
        return true;
}
