/*
 * Schedules: cron expressions as the reference reads them (github.com/dapr/kit/cron), one place for the cron binding and the scheduler.
 *   [TZ=Area/City] [second] minute hour day-of-month month day-of-week
 *       a field: star or ? for all, a, a-b, each with a step behind a slash, lists with commas; names of months and weekdays
 *   @yearly @annually @monthly @weekly @daily @midnight @hourly
 *   @every 1h30m     down to nanoseconds
 * When both day fields are restricted, either may match.
 */
#ifndef SDK_BASE_CRON_H
#define SDK_BASE_CRON_H

#include <stdbool.h>

#include "sdk/base/str.h"
#include "sdk/base/tz.h"

enum cron_seconds { CRON_SECONDS_OPTIONAL, CRON_SECONDS_REQUIRED };

struct cron {
        int64_t every_ns;   /* > 0: @every; the fields are not used */
        uint64_t second, minute, hour, day, month, weekday; /* one bit a value; the highest: the field was a star */
        struct tz *zone;    /* NULL = UTC */
};
/* 0; -EINVAL with the reference's words in err (cut to n); -ENOMEM. cron_fini() after success. Without TZ= the local zone counts;
 * zones are files: reading one blocks for a moment. */
int cron_parse(struct cron *c, struct str text, enum cron_seconds seconds, char *err, size_t n);
void cron_fini(struct cron *c);
/* The first moment after after_ns (nanoseconds since 1970). False: there is none within five years. */
bool cron_next(const struct cron *c, int64_t after_ns, int64_t *ret_ns);

#endif
