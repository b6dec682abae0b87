/*
 * The cron input binding. Every moment of the schedule gets a task of its own, so that a slow app does not delay the next event; when
 * too many are under way a moment is skipped. A clock that jumps ahead causes one event, not one for each moment that was missed.
 */
#include <dapr/plugin.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sdk/base/cron.h"
#include "sdk/base/loop.h"

enum { UNDER_WAY_MAX = 1000, NS = 1000000000, ERROR_BYTES = 256 };
#define LONGEST_SLEEP_S 60.0 /* then the wall clock is read again */

struct cron_binding {
        struct cron schedule;
        unsigned under_way;
        bool skipping;
};

static int cron_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct cron_binding *b = calloc(1, sizeof *b);
        const char *text = dapr_md_string(md, "schedule");
        char err[ERROR_BYTES];
        int r;

        if (!b)
                return -ENOMEM;
        if (!text || !*text) {
                free(b);
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "schedule not set");
        }
        r = cron_parse(&b->schedule, str_of(text), CRON_SECONDS_OPTIONAL, err, sizeof err);
        if (r) {
                free(b);
                return r == -ENOMEM ? r : dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid schedule format '%s': %s", text, err);
        }
        *instance = b;
        return 0;
}

static void cron_close(void *instance)
{
        struct cron_binding *b = instance;

        cron_fini(&b->schedule);
        free(b);
}

/* "2026-11-23 16:59:00.12 +0000 UTC" */
static void time_text(char *to, size_t n, int64_t ns)
{
        struct civil t = civil_of(ns / NS);
        char fraction[16] = "";

        if (ns % NS) {
                size_t i = (size_t)snprintf(fraction, sizeof fraction, ".%09lld", (long long)(ns % NS));
                while (fraction[i - 1] == '0')
                        fraction[--i] = '\0';
        }
        snprintf(to, n, "%04d-%02d-%02d %02d:%02d:%02d%s +0000 UTC", t.year, t.month, t.day, t.hour, t.minute, t.second, fraction);
}

static void fire(struct dapr_reader *r, void *arg)
{
        struct cron_binding *b = arg;
        char now[64];
        const struct dapr_kv md[] = {{"timeZone", "Local"}, {"readTimeUTC", now}};
        const struct dapr_event e = {.metadata = {md, 2}};

        time_text(now, sizeof now, wall_ns());
        dapr_binding_event(r, &e, NULL);
        b->under_way--;
}

static void start(struct cron_binding *b, struct dapr_reader *r)
{
        if (b->under_way >= UNDER_WAY_MAX) {
                if (!b->skipping)
                        dapr_log(DAPR_LOG_WARN, "%d events are with the app: until it catches up the schedule is skipped", UNDER_WAY_MAX);
                b->skipping = true;
                return;
        }
        b->skipping = false;
        b->under_way++;
        if (dapr_reader_go(r, fire, b))
                b->under_way--;
}

/* Sleeps until the wall clock shows at_ns. */
static int sleep_until(int64_t at_ns)
{
        int r = 0;

        for (int64_t left; r == 0 && (left = at_ns - wall_ns()) > 0;) {
                double s = (double)left / NS;
                r = dapr_sleep(s < LONGEST_SLEEP_S ? s : LONGEST_SLEEP_S);
        }
        return r;
}

static int cron_read(struct dapr_call *c, void *instance, struct dapr_reader *r)
{
        struct cron_binding *b = instance;
        int64_t at = wall_ns();
        int x = 0;

        while (x == 0) {
                int64_t now = wall_ns();
                if (!cron_next(&b->schedule, at, &at)) {
                        dapr_log(DAPR_LOG_WARN, "the schedule of %s has no moment within five years", dapr_instance(c));
                        x = dapr_sleep(1e9);
                } else if (at < now && !cron_next(&b->schedule, now, &at)) {
                        x = -EINVAL;
                } else if ((x = sleep_until(at)) == 0) {
                        start(b, r);
                }
        }
        return x;
}

static const struct dapr_binding_ops ops = {.mode = DAPR_FIBER, .init = cron_init, .close = cron_close, .read = cron_read};

int main(int argc, char **argv)
{
        static const struct dapr_component_type types[] = {{.type = "bindings.cron", .versions = "v1", .binding = &ops}};
        static const struct dapr_plugin plugin = {.name = "bindings.cron", .version = "1.0.0", .types = types, .n_types = 1};

        return dapr_plugin_main(argc, argv, &plugin);
}
