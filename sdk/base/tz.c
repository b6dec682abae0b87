/*
 * TZif (RFC 8536): a table of moments with the offset from then on, and a footer with the rule for all that comes after ("CET-1CEST,
 * M3.5.0,M10.5.0/3"). The second, 64-bit part of a file is read when there is one. Every number of the file is checked against its
 * size: the files are the system's, but a name may lead to any file below its folder.
 */
#include "sdk/base/tz.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZONE_DIR "/usr/share/zoneinfo/"

enum { FILE_MAX = 1 << 20, HEADER = 44, TYPES_MAX = 256, DAY_S = 86400, NAME_MAX_BYTES = 128 };

enum rule_kind { RULE_MONTH, RULE_JULIAN, RULE_DAY }; /* Mm.w.d, Jn, n */
struct rule {
        enum rule_kind kind;
        int month, week, day;
        int at_s;                /* local time of the change, seconds of the day; may be negative or over a day */
};
struct tz {
        size_t n;
        int64_t *at;             /* n moments, ascending */
        int *offset;             /* n: from at[i] on */
        int first;               /* before at[0] */
        bool has_footer, has_dst;
        int std, dst;            /* of the footer, seconds east */
        struct rule to_dst, to_std;
};

/* ---- calendar ---- */

static int64_t days_of(int64_t y, int m, int d)
{
        y += (m - 1) / 12;
        m = (m - 1) % 12 + 1;
        y -= m <= 2;
        int64_t era = (y >= 0 ? y : y - 399) / 400;
        int64_t yoe = y - era * 400, doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
        return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

int64_t civil_seconds(const struct civil *c)
{
        return days_of(c->year, c->month, c->day) * DAY_S + c->hour * 3600 + c->minute * 60 + c->second;
}

struct civil civil_of(int64_t seconds)
{
        int64_t days = seconds / DAY_S - (seconds % DAY_S < 0), rest = seconds - days * DAY_S, z = days + 719468;
        int64_t era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
        int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        int64_t mp = (5 * doy + 2) / 153;
        int month = (int)(mp < 10 ? mp + 3 : mp - 9);
        return (struct civil){.year = (int)(yoe + era * 400 + (month <= 2)),
                              .month = month,
                              .day = (int)(doy - (153 * mp + 2) / 5 + 1),
                              .hour = (int)(rest / 3600),
                              .minute = (int)(rest / 60 % 60),
                              .second = (int)(rest % 60),
                              .weekday = (int)(((days + 4) % 7 + 7) % 7)};
}

/* ---- the footer ---- */

static bool take(struct str *s, char c)
{
        if (!s->n || s->p[0] != c)
                return false;
        *s = str_skip(*s, 1);
        return true;
}

static bool number(struct str *s, int max, int *ret)
{
        int v = 0;
        size_t n = 0;
        for (; n < s->n && n < 4 && s->p[n] >= '0' && s->p[n] <= '9'; n++)
                v = v * 10 + (s->p[n] - '0');
        *s = str_skip(*s, n);
        *ret = v;
        return n && v <= max;
}

static bool clock_time(struct str *s, int *ret)
{
        int sign = 1, h, m = 0, sec = 0;
        if (take(s, '-'))
                sign = -1;
        else
                take(s, '+');
        if (!number(s, 167, &h) || (take(s, ':') && (!number(s, 59, &m) || (take(s, ':') && !number(s, 59, &sec)))))
                return false;
        *ret = sign * (h * 3600 + m * 60 + sec);
        return true;
}

static bool abbreviation(struct str *s)
{
        size_t n = 0;
        if (take(s, '<')) {
                ptrdiff_t end = str_chr(*s, '>');
                if (end < 0)
                        return false;
                *s = str_skip(*s, (size_t)end + 1);
                return true;
        }
        while (n < s->n && ((s->p[n] | 32) >= 'a' && (s->p[n] | 32) <= 'z'))
                n++;
        *s = str_skip(*s, n);
        return n >= 3;
}

static bool read_rule(struct str *s, struct rule *r)
{
        *r = (struct rule){.at_s = 7200};
        if (!take(s, ','))
                return false;
        if (take(s, 'M')) {
                r->kind = RULE_MONTH;
                if (!number(s, 12, &r->month) || !r->month || !take(s, '.') || !number(s, 5, &r->week) || !r->week || !take(s, '.') ||
                    !number(s, 6, &r->day))
                        return false;
        } else {
                r->kind = take(s, 'J') ? RULE_JULIAN : RULE_DAY;
                if (!number(s, 365, &r->day))
                        return false;
        }
        return !take(s, '/') || clock_time(s, &r->at_s);
}

static bool read_footer(struct tz *z, struct str s)
{
        int west;
        if (!s.n)
                return true;
        if (!abbreviation(&s) || !clock_time(&s, &west))
                return false;
        z->has_footer = true;
        z->std = -west;
        if (!s.n)
                return true;
        z->dst = z->std + 3600;
        if (!abbreviation(&s))
                return false;
        if (s.n && s.p[0] != ',') {
                if (!clock_time(&s, &west))
                        return false;
                z->dst = -west;
        }
        z->has_dst = true;
        return read_rule(&s, &z->to_dst) && read_rule(&s, &z->to_std);
}

/* The local moment of a rule in a year, as if in UTC. */
static int64_t rule_moment(const struct rule *r, int year)
{
        int64_t first = days_of(year, 1, 1), day = 0;
        bool leap = days_of(year, 3, 1) - days_of(year, 2, 1) == 29;
        switch (r->kind) {
        case RULE_JULIAN: day = first + r->day - 1 + (leap && r->day >= 60); break;
        case RULE_DAY: day = first + r->day; break;
        case RULE_MONTH: {
                int64_t start = days_of(year, r->month, 1), end = days_of(year, r->month + 1, 1);
                int64_t weekday = ((start + 4) % 7 + 7) % 7;
                day = start + (r->day - weekday + 7) % 7 + (r->week - 1) * 7;
                if (day >= end)
                        day -= 7;
                break;
        }
        }
        return day * DAY_S + r->at_s;
}

static int footer_offset(const struct tz *z, int64_t t)
{
        if (!z->has_dst)
                return z->std;
        int year = civil_of(t + z->std).year;
        int64_t on = rule_moment(&z->to_dst, year) - z->std, off = rule_moment(&z->to_std, year) - z->dst;
        bool summer = on < off ? t >= on && t < off : t >= on || t < off;
        return summer ? z->dst : z->std;
}

/* ---- the table ---- */

static int64_t big_endian(const char *p, int n)
{
        uint64_t v = n == 4 && (p[0] & 0x80) ? ~UINT64_C(0) : 0;
        for (int i = 0; i < n; i++)
                v = v << 8 | (unsigned char)p[i];
        return (int64_t)v;
}

struct counts {
        size_t isut, isstd, leap, time, type, chars;
};

static bool read_header(struct str s, struct counts *c)
{
        if (s.n < HEADER || memcmp(s.p, "TZif", 4) != 0)
                return false;
        size_t *to[] = {&c->isut, &c->isstd, &c->leap, &c->time, &c->type, &c->chars};
        for (int i = 0; i < 6; i++)
                if ((*to[i] = (size_t)(uint32_t)big_endian(s.p + 20 + 4 * i, 4)) > FILE_MAX)
                        return false;
        return true;
}

static size_t block_bytes(const struct counts *c, size_t time_bytes)
{
        return HEADER + c->time * time_bytes + c->time + c->type * 6 + c->chars + c->leap * (time_bytes + 4) + c->isstd + c->isut;
}

static int read_table(struct tz *z, struct str s, const struct counts *c, size_t time_bytes)
{
        const char *at = s.p + HEADER, *index = at + c->time * time_bytes, *types = index + c->time;
        if (!c->type || c->type > TYPES_MAX)
                return -EBADMSG;
        z->at = malloc((c->time + 1) * sizeof *z->at);
        z->offset = malloc((c->time + 1) * sizeof *z->offset);
        if (!z->at || !z->offset)
                return -ENOMEM;
        z->first = (int)big_endian(types, 4);
        for (size_t i = 0; i < c->time; i++) {
                if ((unsigned char)index[i] >= c->type)
                        return -EBADMSG;
                z->at[i] = big_endian(at + i * time_bytes, (int)time_bytes);
                if (i && z->at[i] <= z->at[i - 1])
                        return -EBADMSG;
                int64_t offset = big_endian(types + 6 * (unsigned char)index[i], 4);
                if (offset < -2 * DAY_S || offset > 2 * DAY_S)
                        return -EBADMSG;
                z->offset[i] = (int)offset;
        }
        z->n = c->time;
        return z->first < -2 * DAY_S || z->first > 2 * DAY_S ? -EBADMSG : 0;
}

static int read_file(struct tz *z, struct str s)
{
        struct counts c;
        if (!read_header(s, &c) || block_bytes(&c, 4) > s.n)
                return -EBADMSG;
        if (s.p[4] < '2')
                return read_table(z, s, &c, 4);
        s = str_skip(s, block_bytes(&c, 4));
        if (!read_header(s, &c) || block_bytes(&c, 8) > s.n)
                return -EBADMSG;
        int r = read_table(z, s, &c, 8);
        s = str_skip(s, block_bytes(&c, 8));
        if (r)
                return r;
        if (take(&s, '\n')) {
                ptrdiff_t end = str_chr(s, '\n');
                if (end < 0 || !read_footer(z, str_n(s.p, (size_t)end)))
                        return -EBADMSG;
        }
        return 0;
}

int tz_parse(struct tz **ret, struct str data)
{
        struct tz *z = calloc(1, sizeof *z);
        if (!z)
                return -ENOMEM;
        int r = read_file(z, data);
        if (r) {
                tz_free(z);
                return r;
        }
        *ret = z;
        return 0;
}

void tz_free(struct tz *z)
{
        if (!z)
                return;
        free(z->at);
        free(z->offset);
        free(z);
}

int tz_offset(const struct tz *z, int64_t t)
{
        if (!z)
                return 0;
        if (!z->n || t < z->at[0])
                return !z->n && z->has_footer ? footer_offset(z, t) : z->first;
        if (z->has_footer && t >= z->at[z->n - 1])
                return footer_offset(z, t);
        size_t low = 0, high = z->n; /* at[low] <= t < at[high] */
        while (high - low > 1) {
                size_t mid = low + (high - low) / 2;
                if (z->at[mid] <= t)
                        low = mid;
                else
                        high = mid;
        }
        return z->offset[low];
}

/* ---- files ---- */

static int load(struct tz **ret, const char *path)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        struct stat st;
        if (fd < 0)
                return errno == ENOTDIR ? -ENOENT : -errno;
        if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
                close(fd);
                return -EBADMSG;
        }
        char *data = malloc((size_t)st.st_size + 1);
        ssize_t n = data ? read(fd, data, (size_t)st.st_size) : -1;
        close(fd);
        int r = !data ? -ENOMEM : n != st.st_size ? -EBADMSG : tz_parse(ret, str_n(data, (size_t)n));
        free(data);
        return r;
}

static bool is_zone_name(struct str name)
{
        if (name.n >= NAME_MAX_BYTES || name.p[0] == '/' || name.p[0] == '\\' || str_find(name, STR("..")) >= 0)
                return false;
        return str_chr(name, '\0') < 0;
}

int tz_open(struct tz **ret, struct str name)
{
        const char *env = getenv("TZ");
        char path[sizeof ZONE_DIR + NAME_MAX_BYTES];
        *ret = NULL;
        if (str_eqz(name, "Local")) {
                if (!env) {
                        load(ret, "/etc/localtime");
                        return 0;
                }
                name = str_of(env + (*env == ':'));
                if (name.n && (name.p[0] == '/' ? load(ret, name.p) : tz_open(ret, name)))
                        *ret = NULL;
                return 0;
        }
        if (!name.n || str_eqz(name, "UTC"))
                return 0;
        if (!is_zone_name(name))
                return -EINVAL;
        snprintf(path, sizeof path, ZONE_DIR "%.*s", STR_FMT(name));
        return load(ret, path);
}
