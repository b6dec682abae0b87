/*
 * Time zone files: a header, the times at which the offset changes, and a rule ("CET-1CEST,M3.5.0,M10.5.0/3") for the time after
 * the last of them. Only the 64-bit part of version 2 and later is read. Everything read is checked against the file's size.
 */
#include "kernel/policy/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HEADER_BYTES = 44, TYPE_BYTES = 6, DAY = 86400, HOUR = 3600 };

struct header {
        uint32_t utc_flags, std_flags, leaps, times, types, chars;
};

static uint32_t be32(const char *p)
{
        const unsigned char *u = (const unsigned char *)p;
        return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static int64_t be64(const char *p)
{
        return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4));
}

/* Reads a header and moves *s behind it. */
static bool read_header(struct str *s, struct header *h)
{
        if (s->n < HEADER_BYTES || memcmp(s->p, "TZif", 4) != 0 || s->p[4] < '2')
                return false;
        *h = (struct header){be32(s->p + 20), be32(s->p + 24), be32(s->p + 28), be32(s->p + 32), be32(s->p + 36), be32(s->p + 40)};
        *s = str_skip(*s, HEADER_BYTES);
        return true;
}

static uint64_t data_size(const struct header *h, unsigned time_bytes)
{
        return (uint64_t)h->times * (time_bytes + 1) + (uint64_t)h->types * TYPE_BYTES + h->chars + (uint64_t)h->leaps * (time_bytes + 4) +
               h->std_flags + h->utc_flags;
}

/* ---- the rule ---- */

static bool take_number(struct str *s, int *ret)
{
        size_t i = 0;
        for (*ret = 0; i < s->n && i < 4 && s->p[i] >= '0' && s->p[i] <= '9'; i++)
                *ret = *ret * 10 + s->p[i] - '0';
        *s = str_skip(*s, i);
        return i > 0;
}

static bool take_name(struct str *s)
{
        size_t i = 0;
        if (s->n && s->p[0] == '<') {
                ptrdiff_t end = str_chr(*s, '>');
                *s = str_skip(*s, end < 0 ? s->n : (size_t)end + 1);
                return end > 0;
        }
        while (i < s->n && ((s->p[i] | 0x20) >= 'a' && (s->p[i] | 0x20) <= 'z'))
                i++;
        *s = str_skip(*s, i);
        return i >= 3;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static bool take_time(struct str *s, int32_t *ret)
{
        int sign = 1, part, unit = HOUR;
        if (s->n && (s->p[0] == '-' || s->p[0] == '+')) {
                sign = s->p[0] == '-' ? -1 : 1;
                *s = str_skip(*s, 1);
        }
        for (*ret = 0; unit; unit /= 60) {
                if (!take_number(s, &part) || part > 200)
                        return false;
                *ret += part * unit;
                if (!s->n || s->p[0] != ':')
                        break;
                *s = str_skip(*s, 1);
        }
        *ret *= sign;
        return true;
}

struct change {
        char kind;      /* M: month, week, weekday; J: day 1 to 365 without Feb 29th; 0: day from 0 */
        int month, week, day;
        int32_t time;
};

static bool take_change(struct str *s, struct change *c)
{
        *c = (struct change){.time = 2 * HOUR};
        if (!s->n || s->p[0] != ',')
                return false;
        *s = str_skip(*s, 1);
        if (s->n && (s->p[0] == 'M' || s->p[0] == 'J')) {
                c->kind = s->p[0];
                *s = str_skip(*s, 1);
        }
        if (c->kind == 'M') {
                if (!take_number(s, &c->month) || c->month < 1 || c->month > 12 || !s->n || s->p[0] != '.')
                        return false;
                *s = str_skip(*s, 1);
                if (!take_number(s, &c->week) || c->week < 1 || c->week > 5 || !s->n || s->p[0] != '.')
                        return false;
                *s = str_skip(*s, 1);
        }
        if (!take_number(s, &c->day) || (c->kind == 'M' && c->day > 6) || c->day > 365)
                return false;
        if (s->n && s->p[0] == '/') {
                *s = str_skip(*s, 1);
                return take_time(s, &c->time);
        }
        return true;
}

static bool is_leap(int64_t y)
{
        return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

/* Days from 1970-01-01 to the first day of a year. */
static int64_t year_start(int64_t y)
{
        int64_t p = y - 1;
        return p * 365 + (p >= 0 ? p / 4 - p / 100 + p / 400 : (p - 3) / 4 - (p - 99) / 100 + (p - 399) / 400) - 719162;
}

static int64_t year_of(int64_t days)
{
        int64_t y = 1970 + days / 366;
        if (days < 0)
                y = 1970 + days / 365 - 1;
        while (year_start(y + 1) <= days)
                y++;
        return y;
}

/* Second of the year, by the clock of the zone, at which a change happens. */
static int64_t change_second(const struct change *c, int64_t year)
{
        static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
        int64_t day = c->day;
        if (c->kind == 'J') {
                day -= 1;
                day += is_leap(year) && c->day >= 60;
        } else if (c->kind == 'M') {
                bool late = is_leap(year) && c->month > 2;
                int64_t first = before[c->month - 1] + late, len = before[c->month] - before[c->month - 1] + (is_leap(year) && c->month == 2);
                int64_t weekday = ((year_start(year) + first + 4) % 7 + 7) % 7;
                day = (c->day - weekday + 7) % 7 + (c->week - 1) * 7;
                if (day >= len)
                        day -= 7;
                day += first;
        }
        return day * DAY + c->time;
}

static bool apply_rule(struct str rule, int64_t at, int32_t *ret)
{
        int32_t std, dst;
        struct change start, end;
        if (!take_name(&rule) || !take_time(&rule, &std))
                return false;
        std = -std;
        *ret = std;
        if (!rule.n)
                return true;
        if (!take_name(&rule))
                return false;
        dst = std + HOUR;
        if (rule.n && rule.p[0] != ',') {
                if (!take_time(&rule, &dst))
                        return false;
                dst = -dst;
        }
        if (!take_change(&rule, &start) || !take_change(&rule, &end))
                return false;
        int64_t local = at + std, days = local / DAY - (local % DAY < 0), year = year_of(days);
        int64_t second = at - year_start(year) * DAY;
        int64_t from = change_second(&start, year) - std, to = change_second(&end, year) - dst;
        bool summer = from < to ? second >= from && second < to : second >= from || second < to;
        *ret = summer ? dst : std;
        return true;
}

/* ---- the table ---- */

static bool look_up(struct str s, int64_t at, int32_t *ret)
{
        struct header h;
        if (!read_header(&s, &h) || data_size(&h, 4) > s.n)
                return false;
        s = str_skip(s, (size_t)data_size(&h, 4));
        if (!read_header(&s, &h) || data_size(&h, 8) > s.n || !h.types)
                return false;
        const char *times = s.p, *index = times + (size_t)h.times * 8, *types = index + h.times;
        struct str rule = str_trim(str_skip(s, (size_t)data_size(&h, 8)));
        uint32_t lo = 0, hi = h.times, type = 0;
        if (rule.n && (!h.times || at >= be64(times + (size_t)(h.times - 1) * 8)) && apply_rule(rule, at, ret))
                return true;
        while (lo < hi) {
                uint32_t mid = (lo + hi) / 2;
                if (be64(times + (size_t)mid * 8) <= at)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        if (lo)
                type = (unsigned char)index[lo - 1];
        else
                for (uint32_t i = 0; i < h.types && types[type * TYPE_BYTES + 4]; i++) /* before all changes: the first winter time */
                        type = i;
        if (type >= h.types)
                return false;
        *ret = (int32_t)be32(types + (size_t)type * TYPE_BYTES);
        return true;
}

/* The whole file on the heap; n == 0: it cannot be read. */
static struct str read_file(const char *path)
{
        char *p = malloc(ZONE_FILE_MAX_BYTES);
        int fd = p ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        ssize_t n = fd >= 0 ? read(fd, p, ZONE_FILE_MAX_BYTES) : 0;
        if (fd >= 0)
                close(fd);
        return str_n(p, n > 0 ? (size_t)n : 0);
}

static bool is_safe(struct str name)
{
        if (!name.n || name.n > ZONE_NAME_MAX_BYTES || name.p[0] == '/' || str_find(name, STR("..")) >= 0)
                return false;
        for (size_t i = 0; i < name.n; i++) {
                char c = name.p[i];
                if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || strchr("/_+-.", c)) || !c)
                        return false;
        }
        return true;
}

int zone_find(struct str name, int64_t at, int32_t *ret)
{
        char path[ZONE_NAME_MAX_BYTES + 40] = "/etc/localtime";
        bool local = str_eqz(name, "Local");
        *ret = 0;
        if (!name.n || str_eqz(name, "UTC"))
                return 0;
        if (!local) {
                if (!is_safe(name))
                        return -ENOENT;
                snprintf(path, sizeof path, "/usr/share/zoneinfo/%.*s", STR_FMT(name));
        }
        struct str file = read_file(path);
        int r = !file.p ? -ENOMEM : look_up(file, at, ret) || local ? 0 : -ENOENT;
        free((char *)file.p);
        return r;
}
