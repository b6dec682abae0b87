/*
 * The textual values of flags and of configuration files, as the reference's libraries read them (declared in flags.h).
 * What does not fit is -EINVAL. *ret is untouched on failure.
 */
#include <errno.h>

#include "sdk/base/flags.h"

typedef unsigned __int128 u128;

enum { MOST_PLACES = 36, MOST_ZEROS = 38 }; /* 10^38 fits 128 bits */
static const uint64_t INT64_LIMIT = (uint64_t)1 << 63; /* magnitude of INT64_MIN */

static int signed_value(bool minus, u128 v, int64_t *ret)
{
        if (v > INT64_LIMIT - !minus)
                return -EINVAL;
        *ret = minus ? (int64_t)(0 - (uint64_t)v) : (int64_t)v;
        return 0;
}

static bool take_sign(struct str *s)
{
        bool minus = s->n && s->p[0] == '-';
        if (s->n && (minus || s->p[0] == '+'))
                *s = str_skip(*s, 1);
        return minus;
}

int parse_bool(struct str s, bool *ret)
{
        static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
        static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
        for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) {
                if (str_eqz(s, yes[i]) || str_eqz(s, no[i])) {
                        *ret = str_eqz(s, yes[i]);
                        return 0;
                }
        }
        return -EINVAL;
}

static int digit_of(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

static int take_base(struct str *s)
{
        if (s->n < 2 || s->p[0] != '0')
                return 10;
        char c = s->p[1] | 0x20;
        int base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        *s = str_skip(*s, base ? 2 : 1);
        return base ? base : 8;
}

int parse_int64(struct str s, int64_t *ret)
{
        bool minus = take_sign(&s);
        int base = take_base(&s);
        u128 v = 0;
        if (!s.n)
                return -EINVAL;
        for (size_t i = 0; i < s.n; i++) {
                int d = digit_of(s.p[i]);
                if (d >= base)
                        return -EINVAL;
                v = v * (unsigned)base + (unsigned)d;
                if (v > INT64_LIMIT)
                        return -EINVAL;
        }
        return signed_value(minus, v, ret);
}

static int64_t take_unit(struct str *s)
{
        static const struct {
                struct str name;
                int64_t ns;
        } units[] = {
                {{"ns", 2}, 1},
                {{"us", 2}, 1000},
                {{"\u00b5s", 3}, 1000}, /* micro sign */
                {{"\u03bcs", 3}, 1000}, /* Greek mu */
                {{"ms", 2}, 1000000},
                {{"s", 1}, 1000000000},
                {{"m", 1}, 60000000000},
                {{"h", 1}, 3600000000000},
        };
        size_t n = 0;
        while (n < s->n && s->p[n] != '.' && digit_of(s->p[n]) > 9)
                n++;
        for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
                if (str_eq(str_n(s->p, n), units[i].name)) {
                        *s = str_skip(*s, n);
                        return units[i].ns;
                }
        }
        return 0;
}

/* Reads digits. Those that would carry *ret past INT64_MAX are dropped and *ret_lost is set. Returns how many were kept. */
static int take_digits(struct str *s, uint64_t *ret, bool *ret_lost)
{
        int kept = 0;
        *ret = 0;
        for (; s->n && s->p[0] >= '0' && s->p[0] <= '9'; *s = str_skip(*s, 1)) {
                uint64_t v = *ret * 10 + (uint64_t)(s->p[0] - '0');
                *ret_lost |= *ret > INT64_MAX / 10 || v > INT64_LIMIT;
                if (*ret_lost)
                        continue;
                *ret = v;
                kept++;
        }
        return kept;
}

/* One number with its unit, in nanoseconds. The fraction is computed as Go does it, in doubles. */
static int take_part(struct str *s, uint64_t *ret)
{
        uint64_t whole, part = 0;
        bool over = false, lost = false;
        int digits = take_digits(s, &whole, &over), places = 0;
        double scale = 1;
        if (s->n && s->p[0] == '.') {
                *s = str_skip(*s, 1);
                places = take_digits(s, &part, &lost);
        }
        if (over || !(digits + places))
                return -EINVAL;
        uint64_t unit = (uint64_t)take_unit(s);
        if (!unit || __builtin_mul_overflow(whole, unit, &whole) || whole > INT64_LIMIT)
                return -EINVAL;
        for (int i = 0; i < places; i++)
                scale *= 10;
        *ret = whole + (uint64_t)((double)part * ((double)unit / scale));
        return *ret > INT64_LIMIT ? -EINVAL : 0;
}

bool parse_truthy(const char *z)
{
        static const char *const yes[] = {"y", "yes", "true", "t", "on", "1"};
        for (size_t i = 0; z && i < sizeof yes / sizeof *yes; i++)
                if (str_ieq(str_trim(str_of(z)), str_of(yes[i])))
                        return true;
        return false;
}

int parse_duration(struct str s, int64_t *ret_ns)
{
        bool minus = take_sign(&s);
        uint64_t total = 0, part;
        if (str_eq(s, STR("0"))) {
                *ret_ns = 0;
                return 0;
        }
        if (!s.n)
                return -EINVAL;
        while (s.n) {
                if (take_part(&s, &part))
                        return -EINVAL;
                total += part;
                if (total > INT64_LIMIT)
                        return -EINVAL;
        }
        return signed_value(minus, total, ret_ns);
}

/* Digits with at most one point: value = mant / 10^places, and a little more when `more` is set. */
struct decimal {
        u128 mant;
        int places;
        bool more;
};

/* Returns the characters used; 0 when there is no digit or when there are too many before the point. */
static size_t take_decimal(struct str s, struct decimal *ret)
{
        enum { MOST_DIGITS = 20 };
        struct decimal d = {0};
        size_t i = 0;
        int digits = 0, counted = 0;
        bool point = false;
        for (; i < s.n; i++) {
                if (s.p[i] == '.' && !point) {
                        point = true;
                        continue;
                }
                if (s.p[i] < '0' || s.p[i] > '9')
                        break;
                digits++;
                if (point && (counted == MOST_DIGITS || d.places == MOST_PLACES)) {
                        d.more |= s.p[i] != '0';
                        continue;
                }
                if (counted == MOST_DIGITS)
                        return 0;
                d.mant = d.mant * 10 + (unsigned)(s.p[i] - '0');
                counted += d.mant != 0;
                d.places += point;
        }
        *ret = d;
        return digits ? i : 0;
}

static u128 pow10_of(int n)
{
        u128 p = 1;
        while (n-- > 0)
                p *= 10;
        return p;
}

struct scale {
        int ten, two; /* exponents */
};

static int take_exponent(struct str s, int *ret)
{
        bool minus = take_sign(&s);
        int v = 0;
        if (!s.n || s.n > 3)
                return -EINVAL;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return -EINVAL;
                v = v * 10 + (s.p[i] - '0');
        }
        *ret = minus ? -v : v;
        return 0;
}

static int take_scale(struct str s, struct scale *ret)
{
        static const struct {
                const char *suffix;
                struct scale scale;
        } scales[] = {
                {"", {0, 0}},   {"n", {-9, 0}}, {"u", {-6, 0}}, {"m", {-3, 0}},  {"k", {3, 0}},   {"M", {6, 0}},   {"G", {9, 0}},
                {"T", {12, 0}}, {"P", {15, 0}}, {"E", {18, 0}}, {"Ki", {0, 10}}, {"Mi", {0, 20}}, {"Gi", {0, 30}}, {"Ti", {0, 40}},
                {"Pi", {0, 50}}, {"Ei", {0, 60}},
        };
        for (size_t i = 0; i < sizeof(scales) / sizeof(*scales); i++) {
                if (str_eqz(s, scales[i].suffix)) {
                        *ret = scales[i].scale;
                        return 0;
                }
        }
        *ret = (struct scale){0, 0};
        return (s.p[0] | 0x20) == 'e' ? take_exponent(str_skip(s, 1), &ret->ten) : -EINVAL;
}

int parse_quantity(struct str s, int64_t *ret)
{
        struct decimal n;
        struct scale scale;
        bool minus = take_sign(&s);
        size_t used = take_decimal(s, &n);
        if (!used || take_scale(str_skip(s, used), &scale))
                return -EINVAL;
        int ten = scale.ten - n.places;
        u128 v = n.mant;
        if (v == 0) {
                *ret = n.more ? minus ? -1 : 1 : 0;
                return 0;
        }
        if (ten > MOST_ZEROS || v > (u128)-1 >> scale.two)
                return -EINVAL;
        v <<= scale.two;
        for (; ten > 0; ten--)
                if (__builtin_mul_overflow(v, 10, &v))
                        return -EINVAL;
        u128 d = pow10_of(-ten < MOST_ZEROS ? -ten : MOST_ZEROS); /* smaller parts round away from zero all the same */
        if (v / d > INT64_LIMIT)
                return -EINVAL;
        return signed_value(minus, v / d + (v % d != 0 || n.more), ret);
}
