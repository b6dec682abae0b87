/*
 * CEL's points in time: RFC 3339 text with its offset kept, the parts of a date in that offset or in a named zone. Zones are
 * offsets ("+05:30"), UTC, or names of the system's time zone database.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"
#include "kernel/policy/zone.h"

enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };
static const int64_t FIRST_SECOND = -62135596800, LAST_SECOND = 253402300799; /* years 1 to 9999 */

struct date {
        int64_t year;
        int month, day;   /* from 1 */
        int yday, wday;   /* from 0; Sunday */
        int hour, minute, second;
};

/* Days since 1970-01-01 of a date of the Gregorian calendar (algorithm: counts in eras of 400 years from March 1st). */
static int64_t days_of(int64_t y, int m, int d)
{
        y -= m <= 2;
        int64_t era = (y >= 0 ? y : y - 399) / 400;
        int64_t yoe = y - era * 400, doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
        return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static void date_of(int64_t seconds, struct date *r)
{
        int64_t days = seconds / DAY, rest = seconds % DAY;
        if (rest < 0) {
                rest += DAY;
                days--;
        }
        int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
        int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        int64_t mp = (5 * doy + 2) / 153;
        r->day = (int)(doy - (153 * mp + 2) / 5 + 1);
        r->month = (int)(mp < 10 ? mp + 3 : mp - 9);
        r->year = yoe + era * 400 + (r->month <= 2);
        r->yday = (int)(days - days_of(r->year, 1, 1));
        r->wday = (int)(((days + 4) % 7 + 7) % 7);
        r->hour = (int)(rest / HOUR);
        r->minute = (int)(rest % HOUR / MINUTE);
        r->second = (int)(rest % MINUTE);
}

struct cel_value cel_timestamp(int64_t seconds, int32_t nanos, int32_t offset_s)
{
        if (seconds < FIRST_SECOND || seconds > LAST_SECOND)
                return cel_error_value("timestamp overflow");
        return (struct cel_value){.type = CEL_TIMESTAMP, .i = seconds, .nanos = nanos, .offset_s = offset_s};
}

/* ---- text ---- */

static bool take_number(struct str *s, int digits, int max, int *ret)
{
        int v = 0;
        if (s->n < (size_t)digits)
                return false;
        for (int i = 0; i < digits; i++) {
                if (s->p[i] < '0' || s->p[i] > '9')
                        return false;
                v = v * 10 + s->p[i] - '0';
        }
        *s = str_skip(*s, (size_t)digits);
        *ret = v;
        return v <= max;
}

static bool take_char(struct str *s, char c)
{
        if (!s->n || s->p[0] != c)
                return false;
        *s = str_skip(*s, 1);
        return true;
}

/* ".5" or ",5": any number of digits, those behind the ninth do not count. */
static bool take_fraction(struct str *s, int32_t *ret_nanos)
{
        int32_t unit = 100000000;
        size_t n = 1;
        if (s->n < 2 || (s->p[0] != '.' && s->p[0] != ',') || s->p[1] < '0' || s->p[1] > '9')
                return false;
        for (*ret_nanos = 0; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++, unit /= 10)
                *ret_nanos += (s->p[n] - '0') * unit;
        *s = str_skip(*s, n);
        return true;
}

static bool take_offset(struct str *s, int32_t *ret_s)
{
        int hours, minutes, sign = s->n && s->p[0] == '-' ? -1 : 1;
        *ret_s = 0;
        if (take_char(s, 'Z'))
                return true;
        if (!take_char(s, sign < 0 ? '-' : '+') || !take_number(s, 2, 24, &hours) || !take_char(s, ':') || !take_number(s, 2, 60, &minutes))
                return false;
        *ret_s = sign * (hours * HOUR + minutes * MINUTE);
        return true;
}

static int days_in(int year, int month)
{
        static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
        bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        return days[month - 1] + (month == 2 && leap);
}

struct cel_value cel_parse_timestamp(struct cel_vm *vm, struct str s)
{
        int year, month, day, hour, minute, second;
        int32_t nanos = 0, offset;
        bool ok = take_number(&s, 4, 9999, &year) && take_char(&s, '-') && take_number(&s, 2, 12, &month) && month && take_char(&s, '-') &&
                  take_number(&s, 2, 31, &day) && day && day <= days_in(year, month) && take_char(&s, 'T') &&
                  (take_number(&s, 2, 23, &hour) || (s.n > 1 && s.p[1] == ':' && take_number(&s, 1, 9, &hour))) && take_char(&s, ':') &&
                  take_number(&s, 2, 59, &minute) && take_char(&s, ':') && take_number(&s, 2, 59, &second) &&
                  (take_fraction(&s, &nanos) || true) && take_offset(&s, &offset) && !s.n;
        if (!ok)
                return cel_error_value("type conversion error from 'string' to 'google.protobuf.Timestamp'");
        return cel_timestamp(days_of(year, month, day) * DAY + hour * HOUR + minute * MINUTE + second - offset, nanos, offset);
}

size_t cel_format_timestamp(char out[48], const struct cel_value *t)
{
        struct date d;
        date_of(t->i + t->offset_s, &d);
        int n = snprintf(out, 48, "%04d-%02d-%02dT%02d:%02d:%02d", (int)d.year, d.month, d.day, d.hour, d.minute, d.second);
        if (t->nanos) {
                n += snprintf(out + n, 48 - (size_t)n, ".%09d", t->nanos);
                while (out[n - 1] == '0')
                        n--;
        }
        int o = t->offset_s < 0 ? -t->offset_s : t->offset_s;
        n += t->offset_s ? snprintf(out + n, 48 - (size_t)n, "%c%02d:%02d", t->offset_s < 0 ? '-' : '+', o / HOUR, o % HOUR / MINUTE)
                         : snprintf(out + n, 48 - (size_t)n, "Z");
        return (size_t)n;
}

/* ---- zones ---- */

static bool to_int(struct str s, int64_t *ret)
{
        int64_t v = 0;
        size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');
        if (i == s.n || s.n - i > 9)
                return false;
        for (; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return false;
                v = v * 10 + s.p[i] - '0';
        }
        *ret = s.p[0] == '-' ? -v : v;
        return true;
}

/* Seconds east of UTC at a time; false: *ret_err is why not. */
static bool zone_offset(struct cel_vm *vm, struct str zone, int64_t at, int64_t *ret, struct cel_value *ret_err)
{
        int64_t hours, minutes;
        ptrdiff_t colon = str_chr(zone, ':');
        int32_t offset = 0;
        if (colon >= 0) {
                struct str h = str_n(zone.p, (size_t)colon), m = str_skip(zone, (size_t)colon + 1);
                bool have_hours = to_int(h, &hours);
                if (!have_hours || !to_int(m, &minutes)) {
                        struct str bad = have_hours ? m : h;
                        *ret_err = cel_errorf(vm, "strconv.Atoi: parsing \"%.*s\": invalid syntax", bad.n > 100 ? 100 : (int)bad.n, bad.p);
                        return false;
                }
                *ret = (zone.p[0] == '-' ? hours * 60 - minutes : hours * 60 + minutes) * MINUTE;
                return true;
        }
        if (zone_find(zone, at, &offset)) {
                *ret_err = cel_errorf(vm, "unknown time zone %.*s", zone.n > 100 ? 100 : (int)zone.n, zone.p);
                return false;
        }
        *ret = offset;
        return true;
}

static struct cel_value duration_part(enum cel_fn fn, int64_t ns)
{
        switch ((int)fn) {
        case CEL_FN_HOURS:
                return cel_int(ns / 3600000000000);
        case CEL_FN_MINUTES:
                return cel_int(ns / 60000000000);
        case CEL_FN_SECONDS:
                return cel_int(ns / 1000000000);
        case CEL_FN_MILLISECONDS:
                return cel_int(ns / 1000000);
        default:
                return cel_error_value(cel_no_overload);
        }
}

struct cel_value cel_time_part(struct cel_vm *vm, enum cel_fn fn, const struct cel_value *t, const struct str *zone)
{
        struct date d;
        struct cel_value err;
        int64_t offset = t->offset_s;
        if (t->type == CEL_DURATION)
                return zone ? cel_error_value(cel_no_overload) : duration_part(fn, t->i);
        if (zone && !zone_offset(vm, *zone, t->i, &offset, &err))
                return err;
        date_of(t->i + offset, &d);
        switch ((int)fn) {
        case CEL_FN_FULL_YEAR:
                return cel_int(d.year);
        case CEL_FN_MONTH:
                return cel_int(d.month - 1);
        case CEL_FN_DAY_OF_YEAR:
                return cel_int(d.yday);
        case CEL_FN_DAY_OF_MONTH:
                return cel_int(d.day - 1);
        case CEL_FN_DATE:
                return cel_int(d.day);
        case CEL_FN_DAY_OF_WEEK:
                return cel_int(d.wday);
        case CEL_FN_HOURS:
                return cel_int(d.hour);
        case CEL_FN_MINUTES:
                return cel_int(d.minute);
        case CEL_FN_SECONDS:
                return cel_int(d.second);
        default:
                return cel_int(t->nanos / 1000000);
        }
}
