/* Cron expressions: bit sets of the values each field allows, and the walk from one moment to the next that fits them all. */
#include "sdk/base/cron.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/flags.h"

#define STAR (UINT64_C(1) << 63)

enum { FIELDS = 6, FIELDS_SHOWN = 10, TEXT_MAX = 1024, YEARS_MAX = 5, NS = 1000000000 };

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

static const struct bounds {
        unsigned min, max;
        const char *const *names; /* the first stands for min */
} bounds[FIELDS] = {{0, 59, NULL}, {0, 59, NULL}, {0, 23, NULL}, {1, 31, NULL}, {1, 12, month_names}, {0, 6, weekday_names}};

struct error {
        char *text;
        size_t n;
};

static int fail(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct error *e, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->text, e->n, fmt, ap);
        va_end(ap);
        return -EINVAL;
}

/* ---- one field ---- */

static uint64_t bits(unsigned from, unsigned to, unsigned step)
{
        uint64_t b = 0;
        for (unsigned i = from; i <= to; i += step)
                b |= UINT64_C(1) << i;
        return b;
}

static int read_int(struct str s, unsigned *ret, struct error *e)
{
        int64_t v = 0;
        bool negative = s.n && s.p[0] == '-';
        size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');
        bool good = i < s.n;
        for (; good && i < s.n; i++) {
                good = s.p[i] >= '0' && s.p[i] <= '9';
                if (good && v < INT32_MAX)
                        v = v * 10 + (s.p[i] - '0');
        }
        if (!good)
                return fail(e, "failed to parse int from %.*s: strconv.Atoi: parsing \"%.*s\": invalid syntax", STR_FMT(s), STR_FMT(s));
        if (v > INT32_MAX)
                return fail(e, "failed to parse int from %.*s: strconv.Atoi: parsing \"%.*s\": value out of range", STR_FMT(s), STR_FMT(s));
        if (negative && v)
                return fail(e, "negative number (%lld) not allowed: %.*s", (long long)-v, STR_FMT(s));
        *ret = (unsigned)v;
        return 0;
}

static int read_value(struct str s, const struct bounds *b, unsigned *ret, struct error *e)
{
        for (unsigned i = 0; b->names && b->names[i]; i++)
                if (str_ieq(s, str_of(b->names[i]))) {
                        *ret = b->min + i;
                        return 0;
                }
        return read_int(s, ret, e);
}

static int check_range(unsigned from, unsigned to, unsigned step, const struct bounds *b, struct str expr, struct error *e)
{
        if (from < b->min)
                return fail(e, "beginning of range (%u) below minimum (%u): %.*s", from, b->min, STR_FMT(expr));
        if (to > b->max)
                return fail(e, "end of range (%u) above maximum (%u): %.*s", to, b->max, STR_FMT(expr));
        if (from > to)
                return fail(e, "beginning of range (%u) beyond end of range (%u): %.*s", from, to, STR_FMT(expr));
        if (step == 0)
                return fail(e, "step of range should be a positive number: %.*s", STR_FMT(expr));
        return 0;
}

/* number | number "-" number [ "/" number ]; a star for all */
static int read_range(struct str expr, const struct bounds *b, uint64_t *ret, struct error *e)
{
        struct str rest = expr, range = str_cut(&rest, '/'), step_text = rest, high = range, low = str_cut(&high, '-');
        unsigned from, to, step = 1;
        uint64_t star = 0;
        int r;
        if (str_eqz(low, "*") || str_eqz(low, "?")) {
                from = b->min;
                to = b->max;
                star = STAR;
        } else {
                if ((r = read_value(low, b, &from, e)))
                        return r;
                to = from;
                if (high.p && str_chr(high, '-') >= 0)
                        return fail(e, "too many hyphens: %.*s", STR_FMT(expr));
                if (high.p && (r = read_value(high, b, &to, e)))
                        return r;
        }
        if (step_text.p) {
                if (str_chr(step_text, '/') >= 0)
                        return fail(e, "too many slashes: %.*s", STR_FMT(expr));
                if ((r = read_int(step_text, &step, e)))
                        return r;
                if (!high.p)
                        to = b->max; /* N/step means N-max/step */
                if (step > 1)
                        star = 0;
        }
        if ((r = check_range(from, to, step, b, expr, e)))
                return r;
        *ret |= bits(from, to, step) | star;
        return 0;
}

static int read_field(struct str s, const struct bounds *b, uint64_t *ret, struct error *e)
{
        int r = 0;
        *ret = 0;
        for (struct str rest = s, expr; r == 0 && rest.p && (expr = str_cut(&rest, ','), 1);)
                if (expr.n)
                        r = read_range(expr, b, ret, e);
        return r;
}

/* ---- the whole ---- */

static bool is_space(char c)
{
        return c == ' ' || (c >= '\t' && c <= '\r');
}

static size_t split(struct str s, struct str *to, size_t max)
{
        size_t n = 0, i = 0;
        while (i < s.n) {
                size_t from;
                while (i < s.n && is_space(s.p[i]))
                        i++;
                for (from = i; i < s.n && !is_space(s.p[i]);)
                        i++;
                if (i > from) {
                        if (n < max)
                                to[n] = str_n(s.p + from, i - from);
                        n++;
                }
        }
        return n;
}

static int wrong_count(struct str text, const struct str *fields, size_t n, enum cron_seconds seconds, struct error *e)
{
        char list[200];
        size_t at = 0;
        for (size_t i = 0; i < n && i < FIELDS_SHOWN && at < sizeof list; i++)
                at += (size_t)snprintf(list + at, sizeof list - at, "%s%.*s", i ? " " : "", STR_FMT(fields[i]));
        if (!n)
                list[0] = '\0';
        if (seconds == CRON_SECONDS_REQUIRED)
                return fail(e, "expected exactly 6 fields, found %zu: [%s]", n, list);
        return fail(e, "expected 5 to 6 fields, found %zu: [%s]", n, list);
}

static int read_fields(struct cron *c, struct str text, enum cron_seconds seconds, struct error *e)
{
        uint64_t *to[FIELDS] = {&c->second, &c->minute, &c->hour, &c->day, &c->month, &c->weekday};
        struct str fields[FIELDS_SHOWN];
        size_t n = split(text, fields, FIELDS_SHOWN), first = 0;
        int r = 0;
        if (n != FIELDS && (seconds == CRON_SECONDS_REQUIRED || n != FIELDS - 1))
                return wrong_count(text, fields, n, seconds, e);
        c->second = 1;
        if (n == FIELDS - 1)
                first = 1;
        for (size_t i = first; r == 0 && i < FIELDS; i++)
                r = read_field(fields[i - first], &bounds[i], to[i], e);
        return r;
}

static int read_descriptor(struct cron *c, struct str s, struct error *e)
{
        static const struct {
                const char *names[2];
                const char *fields; /* as they would be written */
        } known[] = {{{"@yearly", "@annually"}, "0 0 0 1 1 *"}, {{"@monthly"}, "0 0 0 1 * *"},      {{"@weekly"}, "0 0 0 * * 0"},
                     {{"@daily", "@midnight"}, "0 0 0 * * *"},  {{"@hourly"}, "0 0 * * * *"}};
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                for (int k = 0; k < 2; k++)
                        if (known[i].names[k] && str_eqz(s, known[i].names[k]))
                                return read_fields(c, str_of(known[i].fields), CRON_SECONDS_REQUIRED, e);
        if (!str_has_prefix(s, STR("@every ")))
                return fail(e, "unrecognized descriptor: %.*s", STR_FMT(s));
        if (parse_duration(str_skip(s, 7), &c->every_ns))
                return fail(e, "failed to parse duration %.*s: time: invalid duration \"%.*s\"", STR_FMT(s), STR_FMT(str_skip(s, 7)));
        if (c->every_ns <= 0)
                return fail(e, "failed to parse duration %.*s: the interval must be longer than zero", STR_FMT(s));
        return 0;
}

static int read_zone(struct cron *c, struct str *text, struct error *e)
{
        struct str name = STR("Local");
        if (str_has_prefix(*text, STR("TZ=")) || str_has_prefix(*text, STR("CRON_TZ="))) {
                str_cut(text, '=');
                name = str_cut(text, ' ');
                if (!text->p)
                        return fail(e, "no schedule after the time zone");
                *text = str_trim(*text);
        }
        int r = tz_open(&c->zone, name);
        if (r && r != -ENOMEM)
                return fail(e, "provided bad location %.*s: unknown time zone %.*s", STR_FMT(name), STR_FMT(name));
        return r;
}

int cron_parse(struct cron *c, struct str text, enum cron_seconds seconds, char *err, size_t n)
{
        struct error e = {err, n};
        *c = (struct cron){0};
        if (!text.n)
                return fail(&e, "empty spec string");
        if (text.n > TEXT_MAX)
                return fail(&e, "the expression is longer than %d bytes", TEXT_MAX);
        int r = read_zone(c, &text, &e);
        if (r == 0)
                r = text.n && text.p[0] == '@' ? read_descriptor(c, text, &e) : read_fields(c, text, seconds, &e);
        if (r)
                cron_fini(c);
        return r;
}

void cron_fini(struct cron *c)
{
        tz_free(c->zone);
        *c = (struct cron){0};
}

/* ---- the next moment ---- */

static bool has(uint64_t set, int value)
{
        return set >> value & 1;
}

static bool day_fits(const struct cron *c, const struct civil *d)
{
        bool day = has(c->day, d->day), weekday = has(c->weekday, d->weekday);
        return (c->day & STAR) || (c->weekday & STAR) ? day && weekday : day || weekday;
}

static int64_t to_unix(const struct cron *c, const struct civil *d)
{
        int64_t local = civil_seconds(d);
        return local - tz_offset(c->zone, local - tz_offset(c->zone, local));
}

static struct civil local_of(const struct cron *c, int64_t unix_s)
{
        return civil_of(unix_s + tz_offset(c->zone, unix_s));
}

/* The next day at its first moment; where the clock jumps at midnight that is not 00:00. */
static int64_t next_midnight(const struct cron *c, struct civil d, bool month)
{
        struct civil next = {.year = d.year, .month = d.month + month, .day = month ? 1 : d.day + 1};
        int64_t t = to_unix(c, &next);
        struct civil got = local_of(c, t);
        if (got.hour > 12) /* it fell into the day before */
                t += (24 - got.hour) * 3600 - got.minute * 60 - got.second;
        return t;
}

/* One step from t, which does not fit, towards the next moment that may; 0 = it fits. */
static int64_t step(const struct cron *c, int64_t t)
{
        struct civil d = local_of(c, t);
        if (!has(c->month, d.month))
                return next_midnight(c, d, true);
        if (!day_fits(c, &d))
                return next_midnight(c, d, false);
        if (!has(c->hour, d.hour))
                return t - d.minute * 60 - d.second + 3600;
        if (!has(c->minute, d.minute))
                return t - d.second + 60;
        if (!has(c->second, d.second))
                return t + 1;
        return 0;
}

bool cron_next(const struct cron *c, int64_t after_ns, int64_t *ret_ns)
{
        if (c->every_ns > 0)
                return !__builtin_add_overflow(after_ns, c->every_ns, ret_ns);
        int64_t t = after_ns / NS - (after_ns % NS < 0) + 1, next;
        int last_year = local_of(c, t).year + YEARS_MAX;
        while ((next = step(c, t))) {
                t = next > t ? next : t + 1;
                if (local_of(c, t).year > last_year)
                        return false;
        }
        return !__builtin_mul_overflow(t, (int64_t)NS, ret_ns);
}
