/* See rfc3339.h. Dates are counted in 400-year eras that start in March, so that a leap day ends its year. */
#include "sdk/base/rfc3339.h"

#include <stdio.h>

#define MIN_SECONDS INT64_C(-62135596800)  /* 0001-01-01T00:00:00Z */
#define MAX_SECONDS INT64_C(253402300799)  /* 9999-12-31T23:59:59Z */
#define MAX_DURATION INT64_C(315576000000) /* 10,000 years of 365.25 days */

static int64_t days_of(int64_t year, int month, int day)
{
        year -= month <= 2;
        int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
        int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
        return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of(int64_t days, int *year, int *month, int *day)
{
        days += 719468;
        int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
        int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
        int64_t of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;
        *day = (int)(of_year - (153 * m + 2) / 5 + 1);
        *month = (int)(m < 10 ? m + 3 : m - 9);
        *year = (int)(y + era * 400 + (*month <= 2));
}

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

/* Takes exactly n digits and then the character `after` (0: none) off s. */
static bool take_number(struct str *s, int n, char after, int *out)
{
        if (s->n < (size_t)n + (after != 0))
                return false;
        *out = 0;
        for (int i = 0; i < n; i++) {
                if (!is_digit(s->p[i]))
                        return false;
                *out = *out * 10 + (s->p[i] - '0');
        }
        if (after && s->p[n] != after)
                return false;
        *s = str_skip(*s, (size_t)n + (after != 0));
        return true;
}

/* Takes ".123" off s, if it is there: one to nine digits. */
static bool take_fraction(struct str *s, int32_t *nanos)
{
        int32_t unit = 100000000;
        *nanos = 0;
        if (!s->n || s->p[0] != '.')
                return true;
        *s = str_skip(*s, 1);
        if (!s->n || !is_digit(s->p[0]))
                return false;
        for (; s->n && is_digit(s->p[0]); *s = str_skip(*s, 1), unit /= 10) {
                if (unit == 0)
                        return false;
                *nanos += unit * (s->p[0] - '0');
        }
        return true;
}

static bool take_offset(struct str *s, int *seconds)
{
        int hours, minutes;
        *seconds = 0;
        if (s->n == 0)
                return false;
        char sign = s->p[0];
        *s = str_skip(*s, 1);
        if (sign == 'Z')
                return true;
        if ((sign != '+' && sign != '-') || !take_number(s, 2, ':', &hours) || !take_number(s, 2, 0, &minutes))
                return false;
        *seconds = (hours * 60 + minutes) * (sign == '-' ? -60 : 60);
        return hours < 24 && minutes < 60;
}

bool rfc3339_parse(struct str s, int64_t *ret_seconds, int32_t *ret_nanos)
{
        static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
        int year, month, day, hour, minute, second, offset;
        int32_t nanos;
        bool ok = take_number(&s, 4, '-', &year) && take_number(&s, 2, '-', &month) && take_number(&s, 2, 'T', &day) &&
                  take_number(&s, 2, ':', &hour) && take_number(&s, 2, ':', &minute) && take_number(&s, 2, 0, &second) &&
                  take_fraction(&s, &nanos) && take_offset(&s, &offset) && s.n == 0;
        if (!ok || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59)
                return false;
        bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        if (day > month_days[month - 1] + (month == 2 && leap))
                return false;
        int64_t t = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
        if (t < MIN_SECONDS || t > MAX_SECONDS)
                return false;
        *ret_seconds = t;
        *ret_nanos = nanos;
        return true;
}

/* Adds ".123" with 0, 3, 6 or 9 digits, then `end`. */
static size_t put_fraction(char *out, size_t n, int32_t nanos, const char *end)
{
        if (nanos == 0)
                n += (size_t)snprintf(out + n, RFC3339_BYTES - n, "%s", end);
        else if (nanos % 1000000 == 0)
                n += (size_t)snprintf(out + n, RFC3339_BYTES - n, ".%03d%s", (int)nanos / 1000000, end);
        else if (nanos % 1000 == 0)
                n += (size_t)snprintf(out + n, RFC3339_BYTES - n, ".%06d%s", (int)nanos / 1000, end);
        else
                n += (size_t)snprintf(out + n, RFC3339_BYTES - n, ".%09d%s", (int)nanos, end);
        return n;
}

size_t rfc3339_format(char out[RFC3339_BYTES], int64_t seconds, int32_t nanos)
{
        int year, month, day;
        if (seconds < MIN_SECONDS || seconds > MAX_SECONDS || nanos < 0 || nanos > 999999999)
                return 0;
        int64_t days = seconds / 86400 - (seconds % 86400 < 0);
        int rest = (int)(seconds - days * 86400);
        date_of(days, &year, &month, &day);
        int n = snprintf(out, RFC3339_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d", year, month, day, rest / 3600, rest / 60 % 60,
                         rest % 60);
        return put_fraction(out, (size_t)n, nanos, "Z");
}

bool pbduration_parse(struct str s, int64_t *ret_seconds, int32_t *ret_nanos)
{
        bool negative = s.n && s.p[0] == '-';
        int64_t seconds = 0;
        int32_t nanos;
        if (negative || (s.n && s.p[0] == '+'))
                s = str_skip(s, 1);
        if (!s.n || (!is_digit(s.p[0]) && s.p[0] != '.'))
                return false;
        for (; s.n && is_digit(s.p[0]); s = str_skip(s, 1)) {
                seconds = seconds * 10 + (s.p[0] - '0');
                if (seconds > MAX_DURATION)
                        return false;
        }
        if (!take_fraction(&s, &nanos) || !str_eqz(s, "s") || (seconds == MAX_DURATION && nanos))
                return false;
        *ret_seconds = negative ? -seconds : seconds;
        *ret_nanos = negative ? -nanos : nanos;
        return true;
}

size_t pbduration_format(char out[RFC3339_BYTES], int64_t seconds, int32_t nanos)
{
        bool negative = seconds < 0 || nanos < 0;
        if ((seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0) || nanos < -999999999 || nanos > 999999999 ||
            seconds < -MAX_DURATION || seconds > MAX_DURATION)
                return 0;
        int n = snprintf(out, RFC3339_BYTES, "%s%lld", negative ? "-" : "", (long long)(seconds < 0 ? -seconds : seconds));
        return put_fraction(out, (size_t)n, nanos < 0 ? -nanos : nanos, "s");
}
