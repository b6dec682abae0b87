/*
 * The textual values of flags and of configuration files, as the reference's libraries read them (declared in flags.h).
 * Exact integer arithmetic throughout; what does not fit is -EINVAL. *ret is untouched on failure.
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

/* Decimal digits with at most one point: value = *mant / 10^*frac, *frac <= MOST_PLACES. Returns the characters used, 0 when
 * there is no digit or when more than `most` of them stand before the point. */
static size_t take_decimal(struct str s, int most, u128 *mant, int *frac)
{
        size_t i = 0;
        int digits = 0, counted = 0;
        bool point = false;
        *mant = 0;
        *frac = 0;
        for (; i < s.n; i++) {
                if (s.p[i] == '.' && !point) {
                        point = true;
                        continue;
                }
                if (s.p[i] < '0' || s.p[i] > '9')
                        break;
                digits++;
                if (point && (counted == most || *frac == MOST_PLACES))
                        continue; /* beyond what can matter */
                if (counted == most)
                        return 0;
                *mant = *mant * 10 + (unsigned)(s.p[i] - '0');
                counted += *mant != 0;
                *frac += point;
        }
        return digits ? i : 0;
}

static u128 pow10_of(int n)
{
        u128 p = 1;
        while (n-- > 0)
                p *= 10;
        return p;
}

int parse_duration(struct str s, int64_t *ret_ns)
{
        enum { MOST_DIGITS = 24 };
        bool minus = take_sign(&s);
        u128 total = 0;
        if (str_eq(s, STR("0"))) {
                *ret_ns = 0;
                return 0;
        }
        if (!s.n)
                return -EINVAL;
        while (s.n) {
                u128 mant;
                int frac;
                size_t used = take_decimal(s, MOST_DIGITS, &mant, &frac);
                if (!used)
                        return -EINVAL;
                s = str_skip(s, used);
                u128 unit = (u128)take_unit(&s);
                if (!unit)
                        return -EINVAL;
                total += mant * unit / pow10_of(frac); /* 10^24 * 3.6*10^12 fits 128 bits */
                if (total > INT64_LIMIT)
                        return -EINVAL;
        }
        return signed_value(minus, total, ret_ns);
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
        enum { MOST_DIGITS = 20 };
        u128 v, d = 1;
        int frac;
        struct scale scale;
        bool minus = take_sign(&s);
        size_t used = take_decimal(s, MOST_DIGITS, &v, &frac);
        if (!used || take_scale(str_skip(s, used), &scale))
                return -EINVAL;
        int ten = scale.ten - frac;
        if (v == 0) {
                *ret = 0;
                return 0;
        }
        if (ten > MOST_DIGITS || v > (u128)-1 >> scale.two)
                return -EINVAL;
        v <<= scale.two;
        for (; ten > 0; ten--)
                if (__builtin_mul_overflow(v, 10, &v))
                        return -EINVAL;
        d = pow10_of(-ten < MOST_ZEROS ? -ten : MOST_ZEROS); /* smaller parts round up to 1 all the same */
        return signed_value(minus, v / d + (v % d != 0), ret);
}
