/*
 * Time zones from the system's database (TZif files below /usr/share/zoneinfo), without the C library's process-wide zone: any number
 * at once, in any thread. Only what schedules need: how far a zone is from UTC at a moment.
 */
#ifndef SDK_BASE_TZ_H
#define SDK_BASE_TZ_H

#include "sdk/base/str.h"

struct tz;
/* "Europe/Vienna"; "UTC" and "" are UTC; "Local" as the environment's TZ and then /etc/localtime say, UTC without either. 0 and *ret;
 * -EINVAL (no name of a zone), -ENOENT, -EBADMSG (no TZif file), -ENOMEM. Reads a file. */
int tz_open(struct tz **ret, struct str name);
/* The same from a file's content. */
int tz_parse(struct tz **ret, struct str data);
void tz_free(struct tz *z); /* NULL is fine */
/* Seconds east of UTC at that moment; NULL = UTC. */
int tz_offset(const struct tz *z, int64_t unix_s);

/* The calendar (proleptic Gregorian). */
struct civil {
        int year, month, day, hour, minute, second; /* month and day from 1 */
        int weekday;                                /* 0 = Sunday */
};
struct civil civil_of(int64_t seconds);         /* of a count of seconds as if in UTC */
int64_t civil_seconds(const struct civil *c);   /* weekday is not looked at; month 13 and day 32 count on */

#endif
