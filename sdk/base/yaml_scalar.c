/*
 * The types of YAML scalars, by the rules of the two readers that the reference uses (goyaml v2 below sigs.k8s.io/yaml for
 * resources, yaml.v3 for --config files): the same text must become the same value. Pure functions over one node.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/yaml.h"
#include "sdk/base/yaml_float.h"
#include "sdk/base/json.h"

#define TAG_PREFIX "tag:yaml.org,2002:"
enum { PLAIN_MAX = 128, FLOAT_DIGITS_MAX = 17 };

static const struct {
        const char *text;
        enum yaml_type type;
        bool b, only_1_1;
        double d;
} words[] = {
        {"true", YAML_BOOL, true}, {"True", YAML_BOOL, true}, {"TRUE", YAML_BOOL, true},
        {"false", YAML_BOOL}, {"False", YAML_BOOL}, {"FALSE", YAML_BOOL},
        {"y", YAML_BOOL, true, true}, {"Y", YAML_BOOL, true, true},
        {"yes", YAML_BOOL, true, true}, {"Yes", YAML_BOOL, true, true}, {"YES", YAML_BOOL, true, true},
        {"on", YAML_BOOL, true, true}, {"On", YAML_BOOL, true, true}, {"ON", YAML_BOOL, true, true},
        {"n", YAML_BOOL, false, true}, {"N", YAML_BOOL, false, true},
        {"no", YAML_BOOL, false, true}, {"No", YAML_BOOL, false, true}, {"NO", YAML_BOOL, false, true},
        {"off", YAML_BOOL, false, true}, {"Off", YAML_BOOL, false, true}, {"OFF", YAML_BOOL, false, true},
        {"", YAML_NULL}, {"~", YAML_NULL}, {"null", YAML_NULL}, {"Null", YAML_NULL}, {"NULL", YAML_NULL},
        {".nan", YAML_FLOAT, .d = NAN}, {".NaN", YAML_FLOAT, .d = NAN}, {".NAN", YAML_FLOAT, .d = NAN},
        {".inf", YAML_FLOAT, .d = INFINITY}, {".Inf", YAML_FLOAT, .d = INFINITY}, {".INF", YAML_FLOAT, .d = INFINITY},
        {"+.inf", YAML_FLOAT, .d = INFINITY}, {"+.Inf", YAML_FLOAT, .d = INFINITY}, {"+.INF", YAML_FLOAT, .d = INFINITY},
        {"-.inf", YAML_FLOAT, .d = -INFINITY}, {"-.Inf", YAML_FLOAT, .d = -INFINITY}, {"-.INF", YAML_FLOAT, .d = -INFINITY},
};

static bool as_word(struct str s, enum yaml_schema schema, struct yaml_value *v)
{
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
                if (!str_eqz(s, words[i].text) || (words[i].only_1_1 && schema != YAML_1_1))
                        continue;
                v->type = words[i].type;
                v->b = words[i].b;
                v->d = words[i].d;
                return true;
        }
        return false;
}

/* Digits with Go's base prefixes: 0x 0b 0o, and a leading 0 for octal. */
static bool as_integer(const char *s, struct yaml_value *v)
{
        bool negative = *s == '-';
        int base = 10;
        char *end;

        if (*s == '-' || *s == '+')
                s++;
        if (*s == '0' && s[1] >= '0' && s[1] <= '9') {
                base = 8;
                s++;
        } else if (*s == '0' && s[1]) {
                static const struct {
                        char letter;
                        int base;
                } prefixes[] = {{'x', 16}, {'b', 2}, {'o', 8}};
                for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
                        if ((s[1] | 0x20) == prefixes[i].letter)
                                base = prefixes[i].base;
                s += base == 10 ? 0 : 2;
        }
        if (*s == '\0' || strspn(s, "0123456789abcdefABCDEF") != strlen(s))
                return false;
        errno = 0;
        unsigned long long u = strtoull(s, &end, base);
        if (errno || *end)
                return false;
        if (u <= (unsigned long long)INT64_MAX + negative) {
                v->type = YAML_INT;
                v->i = negative ? (int64_t)(0 - u) : (int64_t)u;
                return true;
        }
        v->type = YAML_UINT;
        v->u = u;
        return !negative;
}

/* [-+]? ( .digits | digits [.digits] ) [exponent] */
static bool is_float_style(const char *s)
{
        size_t whole, fraction = 0;

        s += *s == '-' || *s == '+';
        whole = strspn(s, "0123456789");
        s += whole;
        if (*s == '.') {
                fraction = strspn(++s, "0123456789");
                s += fraction;
        }
        if (whole + fraction == 0)
                return false;
        if (*s == 'e' || *s == 'E') {
                s += 1 + (s[1] == '-' || s[1] == '+');
                size_t n = strspn(s, "0123456789");
                if (n == 0)
                        return false;
                s += n;
        }
        return *s == '\0';
}

static bool as_float(const char *s, struct yaml_value *v)
{
        if (!is_float_style(s))
                return false;
        v->d = strtod(s, NULL);
        if (isinf(v->d))
                return false;
        v->type = YAML_FLOAT;
        return true;
}

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

static bool as_number(struct str s, struct yaml_value *v)
{
        char plain[PLAIN_MAX];
        size_t n = 0;
        bool dot = s.p[0] == '.';

        if (!strchr("+-.0123456789", s.p[0]) || s.n >= sizeof plain)
                return false;
        for (size_t i = 0; i < s.n; i++) /* 1__0 is a number, but in .5_0 each "_" stands between digits */
                if (s.p[i] != '_' || (dot && !(is_digit(s.p[i - 1]) && i + 1 < s.n && is_digit(s.p[i + 1]))))
                        plain[n++] = s.p[i];
        plain[n] = '\0';
        if (strlen(plain) != n)
                return false;
        return (!dot && as_integer(plain, v)) || as_float(plain, v);
}

static int decode_binary(struct arena *a, struct str text, struct str *ret)
{
        char *packed = arena_alloc(a, text.n + 1);
        size_t n = 0;

        if (!packed)
                return -ENOMEM;
        for (size_t i = 0; i < text.n; i++)
                if (text.p[i] != '\n' && text.p[i] != '\r')
                        packed[n++] = text.p[i];
        *ret = base64_decode(a, str_n(packed, n));
        return ret->p ? 0 : -EINVAL;
}

static bool fits_tag(const char *name, struct yaml_value *v)
{
        if (strcmp(name, "float") == 0 && v->type == YAML_INT) {
                v->type = YAML_FLOAT;
                v->d = (double)v->i;
        }
        switch (v->type) {
        case YAML_NULL:
                return strcmp(name, "null") == 0;
        case YAML_BOOL:
                return strcmp(name, "bool") == 0;
        case YAML_INT:
        case YAML_UINT:
                return strcmp(name, "int") == 0;
        case YAML_FLOAT:
                return strcmp(name, "float") == 0;
        case YAML_STRING:
                return strcmp(name, "timestamp") == 0 && v->s.n > 4 && strspn(v->s.p, "0123456789") == 4 && v->s.p[4] == '-';
        }
        return false;
}

int yaml_resolve(struct arena *a, const struct yaml_node *n, enum yaml_schema schema, struct yaml_value *v)
{
        static const char *const typed[] = {"null", "bool", "int", "float", "timestamp"};
        const char *tag = n->tag && strncmp(n->tag, TAG_PREFIX, strlen(TAG_PREFIX)) == 0 ? n->tag + strlen(TAG_PREFIX) : NULL;
        bool wants_type = false;

        *v = (struct yaml_value){.type = YAML_STRING, .s = n->text};
        if (tag && strcmp(tag, "binary") == 0)
                return decode_binary(a, n->text, &v->s);
        for (size_t i = 0; tag && i < sizeof typed / sizeof *typed; i++)
                wants_type |= strcmp(tag, typed[i]) == 0;
        if ((n->tag || !n->plain) && !wants_type)
                return 0; /* quoted, !!str, or a tag that nobody knows: text */
        if (!as_word(n->text, schema, v) && n->text.n)
                as_number(n->text, v);
        return wants_type && !fits_tag(tag, v) ? -EINVAL : 0;
}

bool yaml_is_null(const struct yaml_node *n)
{
        struct yaml_value v;
        if (!n)
                return true;
        if (n->kind != YAML_SCALAR || (n->tag && strcmp(n->tag, TAG_PREFIX "null") != 0) || (!n->tag && !n->plain))
                return false;
        return as_word(n->text, YAML_1_1, &v) && v.type == YAML_NULL;
}

/* ---- numbers as Go writes them ---- */

/* The fewest digits that read back as the same number; *exp is that of the first digit. */
static size_t shortest_digits(double d, bool single, char digits[FLOAT_DIGITS_MAX + 1], int *exp)
{
        char text[40];
        size_t n = 0;

        for (int p = 0; p < FLOAT_DIGITS_MAX; p++) {
                snprintf(text, sizeof text, "%.*e", p, d);
                if (single ? strtof(text, NULL) == (float)d : strtod(text, NULL) == d)
                        break;
        }
        const char *e = strchr(text, 'e');
        for (const char *c = text; c < e; c++)
                if (*c != '.')
                        digits[n++] = *c;
        *exp = atoi(e + 1);
        return n;
}

static void write_exponent(char *out, size_t size, const char *digits, size_t n, int exp, int min_exp_digits)
{
        snprintf(out, size, "%c%s%.*se%c%0*d", digits[0], n > 1 ? "." : "", (int)n - 1, digits + 1, exp < 0 ? '-' : '+',
                 min_exp_digits, abs(exp));
}

static void write_plain(char *out, const char *digits, size_t n, int exp)
{
        if (exp < 0) {
                *out++ = '0';
                *out++ = '.';
                for (int i = -1; i > exp; i--)
                        *out++ = '0';
        }
        for (size_t i = 0; i < n; i++) {
                *out++ = digits[i];
                if (exp >= 0 && (size_t)exp == i && i + 1 < n)
                        *out++ = '.';
        }
        for (int i = (int)n; i <= exp; i++)
                *out++ = '0';
        *out = '\0';
}

void yaml_format_float(char out[YAML_FLOAT_TEXT], double d, enum yaml_float_form form)
{
        bool single = form == YAML_FLOAT_SINGLE;
        char digits[FLOAT_DIGITS_MAX + 1];
        int exp = 0;

        if (single)
                d = (float)d;
        if (isnan(d) || isinf(d)) {
                snprintf(out, YAML_FLOAT_TEXT, "%s", isnan(d) ? "NaN" : d > 0 ? "+Inf" : "-Inf");
                return;
        }
        if (signbit(d))
                *out++ = '-';
        d = fabs(d);
        size_t n = shortest_digits(d, single, digits, &exp);
        if (single ? exp < -4 || exp >= 6 : d != 0 && (d < 1e-6 || d >= 1e21))
                write_exponent(out, YAML_FLOAT_TEXT - 1, digits, n, exp, single ? 2 : 1);
        else
                write_plain(out, digits, n, exp);
}

int yaml_string(struct arena *a, const struct yaml_node *n, enum yaml_schema schema, struct str *ret)
{
        struct yaml_value v;
        char number[YAML_FLOAT_TEXT];
        int r = n->kind == YAML_SCALAR ? yaml_resolve(a, n, schema, &v) : -EINVAL;

        if (r)
                return r;
        *ret = n->text;
        switch (v.type) {
        case YAML_NULL:
                *ret = STR_NULL;
                return 0;
        case YAML_STRING:
                *ret = v.s;
                return 0;
        case YAML_BOOL:
                if (schema == YAML_1_1)
                        *ret = v.b ? STR("true") : STR("false");
                return 0;
        case YAML_INT:
                snprintf(number, sizeof number, "%lld", (long long)v.i);
                break;
        case YAML_UINT:
                snprintf(number, sizeof number, "%llu", (unsigned long long)v.u);
                break;
        case YAML_FLOAT:
                yaml_format_float(number, v.d, YAML_FLOAT_SINGLE);
                break;
        }
        if (schema == YAML_1_1)
                *ret = arena_str(a, str_of(number));
        return ret->p ? 0 : -ENOMEM;
}
