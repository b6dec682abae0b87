/* See semver.h. A version is read into numbers; how many of them stood there tells 1.2 from 1.2.0. */
#include "sdk/base/semver.h"

enum { VERSION_MAX = 64, NUMBER_DIGITS_MAX = 9 };

struct version {
        unsigned long n[3];
        int parts;       /* numbers that stand there: 0..3 */
        bool x;          /* ended by x or * */
        struct str pre;  /* without '-'; p NULL = none */
        bool build;
};

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

static bool word_ok(struct str s)
{
        for (struct str part; s.p && (part = str_cut(&s, '.'), 1);) {
                bool number = part.n > 0;
                for (size_t i = 0; i < part.n; i++) {
                        char c = part.p[i];
                        if (!is_digit(c))
                                number = false;
                        if (!is_digit(c) && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '-')
                                return false;
                }
                if (part.n == 0 || (number && part.n > 1 && part.p[0] == '0'))
                        return false;
        }
        return true;
}

static bool read_number(struct str s, unsigned long *ret)
{
        if (s.n == 0 || s.n > NUMBER_DIGITS_MAX || (s.n > 1 && s.p[0] == '0'))
                return false;
        for (*ret = 0; s.n; s = str_skip(s, 1)) {
                if (!is_digit(s.p[0]))
                        return false;
                *ret = *ret * 10 + (unsigned long)(s.p[0] - '0');
        }
        return true;
}

static bool read_version(struct str s, struct version *v)
{
        *v = (struct version){.pre = STR_NULL};
        if (s.n > VERSION_MAX)
                return false;
        if (s.n && (s.p[0] == 'v' || s.p[0] == 'V'))
                s = str_skip(s, 1);
        ptrdiff_t plus = str_chr(s, '+');
        if (plus >= 0) {
                if (!word_ok((struct str){s.p + plus + 1, s.n - (size_t)plus - 1}))
                        return false;
                v->build = true;
                s.n = (size_t)plus;
        }
        ptrdiff_t dash = str_chr(s, '-');
        if (dash >= 0) {
                v->pre = str_skip(s, (size_t)dash + 1);
                s.n = (size_t)dash;
                if (!word_ok(v->pre))
                        return false;
        }
        for (struct str part; s.p && (part = str_cut(&s, '.'), 1);) {
                if (str_eqz(part, "x") || str_eqz(part, "X") || str_eqz(part, "*"))
                        v->x = true;
                else if (v->x || v->parts == 3 || !read_number(part, &v->n[v->parts]))
                        return false;
                else
                        v->parts++;
        }
        return !v->pre.p || v->parts == 3;
}

static bool is_whole(const struct version *v)
{
        return v->parts == 3 && !v->x;
}

bool semver_is_valid(struct str s)
{
        struct version v;
        return read_version(s, &v) && is_whole(&v);
}

/* ---- order ---- */

static bool all_digits(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!is_digit(s.p[i]))
                        return false;
        return true;
}

static int compare_text(struct str a, struct str b)
{
        size_t n = a.n < b.n ? a.n : b.n;
        int c = n ? memcmp(a.p, b.p, n) : 0;
        return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int compare_pre(struct str a, struct str b)
{
        if (!a.p || !b.p)
                return (a.p == NULL) - (b.p == NULL); /* a release is above its pre-releases */
        while (a.p && b.p) {
                struct str x = str_cut(&a, '.'), y = str_cut(&b, '.');
                bool nx = all_digits(x), ny = all_digits(y);
                int c = nx != ny ? (nx ? -1 : 1) : nx && x.n != y.n ? (x.n > y.n ? 1 : -1) : compare_text(x, y);
                if (c)
                        return c;
        }
        return (a.p != NULL) - (b.p != NULL);
}

static int compare(const struct version *a, const struct version *b)
{
        for (int i = 0; i < 3; i++)
                if (a->n[i] != b->n[i])
                        return a->n[i] > b->n[i] ? 1 : -1;
        return compare_pre(a->pre, b->pre);
}

int semver_compare(struct str sa, struct str sb)
{
        struct version a, b;
        bool va = read_version(sa, &a) && is_whole(&a), vb = read_version(sb, &b) && is_whole(&b);
        return va && vb ? compare(&a, &b) : va != vb ? va - vb : compare_text(sa, sb);
}

/* ---- constraints ---- */

enum op { OP_EQ, OP_NE, OP_GT, OP_GE, OP_LT, OP_LE, OP_CARET, OP_TILDE };

static enum op cut_op(struct str *s)
{
        static const struct { const char *text; enum op op; } ops[] = {{">=", OP_GE}, {"<=", OP_LE}, {"!=", OP_NE}, {"==", OP_EQ},
                {">", OP_GT}, {"<", OP_LT}, {"=", OP_EQ}, {"^", OP_CARET}, {"~", OP_TILDE}};
        for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
                if (str_has_prefix(*s, str_of(ops[i].text))) {
                        *s = str_skip(*s, strlen(ops[i].text));
                        return ops[i].op;
                }
        return OP_EQ;
}

static bool same_parts(const struct version *v, const struct version *want, int parts)
{
        for (int i = 0; i < parts; i++)
                if (v->n[i] != want->n[i])
                        return false;
        return true;
}

static bool holds(const struct version *v, enum op op, const struct version *want)
{
        bool part = want->parts < 3;
        int c = compare(v, want), fixed = want->parts;
        switch (op) {
        case OP_EQ: return part ? same_parts(v, want, want->parts) : c == 0;
        case OP_NE: return part ? !same_parts(v, want, want->parts) : c != 0;
        case OP_GT: return part ? c > 0 && !same_parts(v, want, want->parts) : c > 0;
        case OP_GE: return c >= 0;
        case OP_LT: return c < 0;
        case OP_LE: return c <= 0 || (part && same_parts(v, want, want->parts));
        case OP_TILDE: return c >= 0 && same_parts(v, want, fixed > 2 ? 2 : fixed);
        case OP_CARET: /* up to the first number that is not zero */
                for (fixed = 1; fixed < want->parts && want->n[fixed - 1] == 0;)
                        fixed++;
                return c >= 0 && same_parts(v, want, want->parts < fixed ? want->parts : fixed);
        }
        return false;
}

/* One constraint off the text; false at its end. *bad: it cannot be read. */
static bool next_term(struct str *rest, enum op *op, struct version *want, bool *bad)
{
        while (rest->n && (rest->p[0] == ' ' || rest->p[0] == ','))
                *rest = str_skip(*rest, 1);
        if (rest->n == 0)
                return false;
        *op = cut_op(rest);
        while (rest->n && rest->p[0] == ' ')
                *rest = str_skip(*rest, 1);
        size_t n = 0;
        while (n < rest->n && rest->p[n] != ' ' && rest->p[n] != ',')
                n++;
        *bad = n == 0 || !read_version((struct str){rest->p, n}, want);
        *rest = str_skip(*rest, n);
        return !*bad;
}

bool semver_is_range(struct str range)
{
        struct version want;
        enum op op;
        bool bad = false;
        while (next_term(&range, &op, &want, &bad))
                ;
        return !bad;
}

bool semver_matches(struct str version, struct str range)
{
        struct version v, want;
        enum op op;
        bool bad = false, names_pre = false;
        if (!read_version(version, &v) || !is_whole(&v))
                return false;
        while (next_term(&range, &op, &want, &bad)) {
                names_pre |= want.pre.p != NULL;
                if (!holds(&v, op, &want))
                        return false;
        }
        return !bad && (!v.pre.p || names_pre);
}
