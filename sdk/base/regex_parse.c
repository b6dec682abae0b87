/*
 * Patterns to programs, in one pass and without recursion: open groups lie on a stack. The code of what was read last (the atom)
 * is the end of the code so far; a repetition wraps or copies it, which relative jumps allow. Error texts and their order are
 * those of Go's regexp/syntax.
 */
#include <errno.h>
#include <stdlib.h>

#include "sdk/base/regex_internal.h"
#include "sdk/base/utf8.h"

enum { FOLD_CASE = 1, DOT_ALL = 2, MULTI_LINE = 4, UNGREEDY = 8 };
enum { NONE = -1, PREFIX_MAX = 64, NAME_MAX_BYTES = 60 };

struct group {
        uint32_t flags;        /* to go back to behind it */
        uint32_t start, branch; /* code of the group, of its current branch */
        int32_t jumps;         /* last jump to the group's end; each knows the one before it */
        int32_t atom;          /* code of the last atom, or NONE */
        uint32_t repeat, atom_repeat; /* product of repetitions inside each other: the greatest here, that of the atom */
};

struct parser {
        struct arena *a;
        struct str s;          /* the pattern */
        size_t at;
        uint32_t flags;
        struct regex_builder b;
        struct group *groups;
        uint32_t n_groups, cap_groups;
        const char *err;
};

static int fail(struct parser *p, const char *what, size_t from, size_t to)
{
        const char *text = arena_printf(p->a, "%s: `%.*s`", what, (int)(to - from), p->s.p + from);
        p->err = text;
        return text ? -EINVAL : -ENOMEM;
}

static struct group *group(struct parser *p)
{
        return &p->groups[p->n_groups - 1];
}

static char peek(const struct parser *p, size_t ahead)
{
        return p->at + ahead < p->s.n ? p->s.p[p->at + ahead] : '\0';
}

/* ---- code ---- */

/* What the builder says, with the text of an error. */
static int built(struct parser *p, int r)
{
        return r == -EINVAL ? fail(p, "expression too large", 0, p->s.n) : r;
}

/* Starts an atom where the code ends. */
static void atom(struct parser *p)
{
        group(p)->atom = (int32_t)p->b.re->n_code;
        group(p)->atom_repeat = 1;
}

static int emit_atom(struct parser *p, enum regex_op op, int32_t a)
{
        atom(p);
        return built(p, regex_emit(&p->b, op, a, 0));
}

static int emit_class(struct parser *p, struct regex_set *set)
{
        int32_t index;
        int r = built(p, regex_add_class(&p->b, set, &index));
        return r ? r : emit_atom(p, RE_CLASS, index);
}

static int literal(struct parser *p, uint32_t rune)
{
        struct regex_set set = {.a = p->a};
        if (!(p->flags & FOLD_CASE))
                return emit_atom(p, RE_CHAR, (int32_t)rune);
        regex_set_add_folded(&set, rune, rune);
        regex_set_normalize(&set);
        if (set.n == 1 && set.v[0].lo == set.v[0].hi && !set.failed)
                return emit_atom(p, RE_CHAR, (int32_t)rune);
        return emit_class(p, &set);
}

/* ---- repetition ---- */

/* Digits at *i; -1 = none, REGEX_MAX_REPEAT + 1 = too many. */
static int count(struct parser *p, size_t *i)
{
        int v = 0;
        size_t from = *i;
        for (; *i < p->s.n && p->s.p[*i] >= '0' && p->s.p[*i] <= '9'; ++*i)
                v = v > REGEX_MAX_REPEAT ? v : v * 10 + p->s.p[*i] - '0';
        if (*i == from || (*i - from > 1 && p->s.p[from] == '0')) /* no leading zeros */
                return -1;
        return v > REGEX_MAX_REPEAT ? REGEX_MAX_REPEAT + 1 : v;
}

/* "{2,3}" at the reading position: its length, 0 = these are plain characters. */
static size_t counts(struct parser *p, int *min, int *max)
{
        size_t i = p->at + 1;
        *min = *max = count(p, &i);
        if (*min < 0 || i >= p->s.n)
                return 0;
        if (p->s.p[i] == ',') {
                i++;
                *max = i < p->s.n && p->s.p[i] == '}' ? REGEX_TO_INFINITY : count(p, &i);
                if (i >= p->s.n || (*max < 0 && p->s.p[i] != '}') || (*max == -1 && p->s.p[i - 1] != ','))
                        return 0;
        }
        return i < p->s.n && p->s.p[i] == '}' ? i + 1 - p->at : 0;
}

/* A repetition that was read up to `end`; the one before it, if any, began at `before`. */
static int repetition(struct parser *p, size_t from, size_t end, size_t *before)
{
        if (end < p->s.n && p->s.p[end] == '?')
                end++;
        p->at = end;
        if (*before != SIZE_MAX)
                return fail(p, "invalid nested repetition operator", *before, end);
        if (group(p)->atom == NONE)
                return fail(p, "missing argument to repetition operator", from, end);
        *before = from;
        return 0;
}

static int repeat_counted(struct parser *p, size_t len, int min, int max, size_t *before)
{
        size_t from = p->at;
        struct group *g = group(p);
        int most = max == REGEX_TO_INFINITY ? min : max, r;
        if (min > REGEX_MAX_REPEAT || max > REGEX_MAX_REPEAT || (max != REGEX_TO_INFINITY && min > max))
                return fail(p, "invalid repeat count", from, from + len);
        if ((r = repetition(p, from, from + len, before)))
                return r;
        if (most > 1) {
                if ((uint64_t)g->atom_repeat * (uint32_t)most > REGEX_MAX_REPEAT)
                        return fail(p, "invalid repeat count", from, p->at);
                g->atom_repeat *= (uint32_t)most;
        }
        return built(p, regex_copies(&p->b, (uint32_t)g->atom, min, max));
}

/* ---- escapes ---- */

static int hex_of(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int next_hex(struct parser *p)
{
        uint32_t c = p->at < p->s.n ? regex_rune(p->s, &p->at) : 0;
        return c < 128 ? hex_of((char)c) : -1;
}

/* "\x41", "\x{10FFFF}" behind the x. When it is wrong the reading position is behind what was looked at. */
static bool hex_escape(struct parser *p, uint32_t *ret)
{
        uint32_t v = 0;
        if (peek(p, 0) != '{') {
                int high = next_hex(p), low = next_hex(p);
                *ret = (uint32_t)(high * 16 + low);
                return high >= 0 && low >= 0;
        }
        p->at++;
        for (int n = 0;; n++) {
                if (peek(p, 0) == '}') {
                        p->at++;
                        *ret = v;
                        return n > 0;
                }
                int d = next_hex(p);
                if (d < 0)
                        return false;
                v = v * 16 + (uint32_t)d;
                if (v > RUNE_MAX)
                        return false;
        }
}

/* A backslash and what follows it, which stand for one character. */
static int escape(struct parser *p, uint32_t *ret)
{
        static const char letters[] = "abfnrtv", codes[] = "\a\b\f\n\r\t\v";
        size_t from = p->at++;
        if (p->at >= p->s.n)
                return fail(p, "trailing backslash at end of expression", p->s.n, p->s.n);
        uint32_t c = regex_rune(p->s, &p->at);
        const char *l = c < 128 ? strchr(letters, (int)c) : NULL;
        bool ok = true;
        if (c >= '0' && c <= '7' && (c == '0' || (peek(p, 0) >= '0' && peek(p, 0) <= '7'))) {
                *ret = c - '0';
                for (int i = 0; i < 2 && peek(p, 0) >= '0' && peek(p, 0) <= '7'; i++)
                        *ret = *ret * 8 + (uint32_t)(p->s.p[p->at++] - '0');
        } else if (c == 'x') {
                ok = hex_escape(p, ret);
        } else if (l && c && c != 'b') {
                *ret = (unsigned char)codes[l - letters];
        } else {
                bool word = c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
                ok = c < 128 && (!word || c == '_');
                *ret = c;
        }
        return ok ? 0 : fail(p, "invalid escape sequence", from, p->at);
}

/* ---- classes ---- */

static void add(struct parser *p, struct regex_set *s, uint32_t lo, uint32_t hi)
{
        if (p->flags & FOLD_CASE)
                regex_set_add_folded(s, lo, hi);
        else
                regex_set_add(s, lo, hi);
}

static void add_class(struct parser *p, struct regex_set *s, struct regex_set *class, bool negate)
{
        struct regex_set folded = {.a = p->a};
        if (p->flags & FOLD_CASE) {
                for (size_t i = 0; i < class->n; i++)
                        regex_set_add_folded(&folded, class->v[i].lo, class->v[i].hi);
                folded.failed |= class->failed;
                class = &folded;
        }
        if (negate)
                regex_set_negate(class);
        regex_set_add_set(s, class);
}

/* "\pL", "\p{Greek}", "\PN", "\p{^L}" at the reading position. */
static int unicode_class(struct parser *p, struct regex_set *s)
{
        size_t from = p->at, end;
        bool negate = p->s.p[from + 1] == 'P';
        struct str name;
        struct regex_set class = {.a = p->a};
        p->at += 2;
        if (p->at >= p->s.n)
                return fail(p, "invalid character class range", from, p->s.n);
        if (peek(p, 0) == '{') {
                ptrdiff_t close = str_chr(str_skip(p->s, p->at), '}');
                if (close < 0)
                        return fail(p, "invalid character class range", from, p->s.n);
                end = p->at + (size_t)close + 1;
                name = str_n(p->s.p + p->at + 1, (size_t)close - 1);
        } else {
                end = p->at;
                regex_rune(p->s, &end);
                name = str_n(p->s.p + p->at, end - p->at);
        }
        if (name.n && name.p[0] == '^') {
                negate = !negate;
                name = str_skip(name, 1);
        }
        p->at = end;
        if (name.n > NAME_MAX_BYTES || !regex_set_add_unicode(&class, name))
                return fail(p, "invalid character class range", from, end);
        add_class(p, s, &class, negate);
        return 0;
}

/* \d \W \pL …: 1 = was one, 0 = is none, or an error. */
static int class_escape(struct parser *p, struct regex_set *s)
{
        struct regex_set class = {.a = p->a};
        char c = peek(p, 1);
        if (c == 'p' || c == 'P') {
                int r = unicode_class(p, s);
                return r ? r : 1;
        }
        if (!c || !strchr("dswDSW", c))
                return 0;
        regex_set_add_perl(&class, (char)(c | 0x20));
        add_class(p, s, &class, c < 'a');
        p->at += 2;
        return 1;
}

/* "[:alpha:]" inside of brackets: 1, 0, or an error. */
static int posix_class(struct parser *p, struct regex_set *s)
{
        struct regex_set class = {.a = p->a};
        struct str rest = str_skip(p->s, p->at);
        ptrdiff_t end = str_has_prefix(rest, STR("[:")) ? str_find(str_skip(rest, 2), STR(":]")) : -1;
        if (end < 0)
                return 0;
        struct str name = str_n(rest.p + 2, (size_t)end);
        bool negate = name.n && name.p[0] == '^';
        size_t stop = p->at + (size_t)end + 4;
        if (!regex_set_add_posix(&class, str_skip(name, negate)))
                return fail(p, "invalid character class range", p->at, stop);
        add_class(p, s, &class, negate);
        p->at = stop;
        return 1;
}

static int class_char(struct parser *p, size_t class_from, uint32_t *ret)
{
        if (p->at >= p->s.n)
                return fail(p, "missing closing ]", class_from, p->s.n);
        if (p->s.p[p->at] == '\\')
                return escape(p, ret);
        *ret = regex_rune(p->s, &p->at);
        return 0;
}

static int class_range(struct parser *p, size_t class_from, struct regex_set *s)
{
        uint32_t lo, hi;
        size_t from = p->at;
        int r = class_char(p, class_from, &lo);
        if (r)
                return r;
        hi = lo;
        if (peek(p, 0) == '-' && p->at + 1 < p->s.n && peek(p, 1) != ']') {
                p->at++;
                if ((r = class_char(p, class_from, &hi)))
                        return r;
                if (hi < lo)
                        return fail(p, "invalid character class range", from, p->at);
        }
        add(p, s, lo, hi);
        return 0;
}

static int class(struct parser *p)
{
        struct regex_set s = {.a = p->a};
        size_t from = p->at++;
        bool negate = peek(p, 0) == '^';
        p->at += negate;
        for (bool first = true; p->at >= p->s.n || p->s.p[p->at] != ']' || first; first = false) {
                int r = posix_class(p, &s);
                if (!r && peek(p, 0) == '\\')
                        r = class_escape(p, &s);
                if (!r)
                        r = class_range(p, from, &s);
                if (r < 0)
                        return r;
                if (s.failed)
                        return fail(p, "expression too large", 0, p->s.n);
        }
        p->at++;
        if (negate)
                regex_set_negate(&s);
        return emit_class(p, &s);
}

/* ---- groups ---- */

static int open_group(struct parser *p, uint32_t flags_after)
{
        if (p->n_groups > REGEX_MAX_DEPTH)
                return fail(p, "expression nests too deeply", 0, p->s.n);
        if (p->n_groups == p->cap_groups) {
                uint32_t cap = p->cap_groups ? p->cap_groups * 2 : 8;
                struct group *g = arena_grow(p->a, p->groups, p->cap_groups * sizeof *g, cap * sizeof *g);
                if (!g)
                        return -ENOMEM;
                p->groups = g;
                p->cap_groups = cap;
        }
        p->groups[p->n_groups++] =
                (struct group){.flags = flags_after, .start = p->b.re->n_code, .branch = p->b.re->n_code, .jumps = NONE, .atom = NONE, .repeat = 1, .atom_repeat = 1};
        return 0;
}

static void note_repeat(struct group *g)
{
        if (g->atom_repeat > g->repeat)
                g->repeat = g->atom_repeat;
        g->atom_repeat = 1;
}

static void end_branches(struct parser *p)
{
        struct group *g = group(p);
        note_repeat(g);
        for (int32_t i = g->jumps, next; i != NONE; i = next) {
                next = p->b.re->code[i].a;
                p->b.re->code[i].a = (int32_t)p->b.re->n_code - i;
        }
}

static int close_group(struct parser *p)
{
        struct group g;
        if (p->n_groups == 1)
                return fail(p, "unexpected )", 0, p->s.n);
        end_branches(p);
        g = p->groups[--p->n_groups];
        p->flags = g.flags;
        p->at++;
        note_repeat(group(p));
        group(p)->atom = (int32_t)g.start;
        group(p)->atom_repeat = g.repeat;
        return 0;
}

static int alternative(struct parser *p)
{
        struct group *g = group(p);
        int r = regex_insert_split(&p->b, g->branch, 1, (int32_t)(p->b.re->n_code - g->branch) + 2);
        if (!r)
                r = regex_emit(&p->b, RE_JUMP, g->jumps, 0);
        if (r)
                return built(p, r);
        g->jumps = (int32_t)p->b.re->n_code - 1;
        g->branch = p->b.re->n_code;
        note_repeat(g);
        g->atom = NONE;
        p->at++;
        return 0;
}

/* "(?i)", "(?i-s:": the reading position is at the bracket. */
static int flags(struct parser *p)
{
        static const char letters[] = "imsU";
        static const uint32_t bits[] = {FOLD_CASE, MULTI_LINE, DOT_ALL, UNGREEDY};
        size_t from = p->at;
        uint32_t f = p->flags;
        bool minus = false, saw = false;
        for (p->at += 2; p->at < p->s.n; p->at++) {
                char c = p->s.p[p->at];
                const char *l = strchr(letters, c);
                if (c && l) {
                        f = minus ? f & ~bits[l - letters] : f | bits[l - letters];
                        saw = true;
                } else if (c == '-' && !minus) {
                        minus = true;
                        saw = false;
                } else if ((c == ':' || c == ')') && !(minus && !saw)) {
                        int r = c == ':' ? open_group(p, p->flags) : 0;
                        p->flags = f;
                        p->at++;
                        return r;
                } else {
                        break;
                }
        }
        size_t at = p->at;
        if (at < p->s.n)
                regex_rune(p->s, &at);
        return fail(p, "invalid or unsupported Perl syntax", from, at);
}

static int named_group(struct parser *p, size_t skip)
{
        struct str rest = str_skip(p->s, p->at + skip);
        ptrdiff_t end = str_chr(rest, '>');
        if (end < 0)
                return fail(p, "invalid named capture", p->at, p->s.n);
        bool ok = end > 0;
        for (ptrdiff_t i = 0; i < end; i++) {
                char c = rest.p[i];
                ok &= c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
        }
        if (!ok)
                return fail(p, "invalid named capture", p->at, p->at + skip + (size_t)end + 1);
        p->at += skip + (size_t)end + 1;
        return open_group(p, p->flags);
}

static int open_bracket(struct parser *p)
{
        struct str rest = str_skip(p->s, p->at);
        if (rest.n > 4 && str_has_prefix(rest, STR("(?P<")))
                return named_group(p, 4);
        if (rest.n > 3 && str_has_prefix(rest, STR("(?<")))
                return named_group(p, 3);
        if (str_has_prefix(rest, STR("(?")))
                return flags(p);
        p->at++;
        return open_group(p, p->flags);
}

/* ---- the pattern ---- */

static int assertion(struct parser *p, enum regex_assert what, size_t len)
{
        p->at += len;
        return emit_atom(p, RE_ASSERT, what);
}

/* "\Qa.b\E": plain characters. */
static int quoted(struct parser *p)
{
        p->at += 2;
        while (p->at < p->s.n && !str_has_prefix(str_skip(p->s, p->at), STR("\\E"))) {
                note_repeat(group(p));
                int r = literal(p, regex_rune(p->s, &p->at));
                if (r)
                        return r;
        }
        if (p->at < p->s.n)
                p->at += 2;
        return 0;
}

static int backslash(struct parser *p)
{
        struct regex_set s = {.a = p->a};
        uint32_t c;
        switch (peek(p, 1)) {
        case 'A':
                return assertion(p, RE_BEGIN_TEXT, 2);
        case 'z':
                return assertion(p, RE_END_TEXT, 2);
        case 'b':
                return assertion(p, RE_WORD, 2);
        case 'B':
                return assertion(p, RE_NO_WORD, 2);
        case 'Q':
                return quoted(p);
        default:
                break;
        }
        int r = class_escape(p, &s);
        if (r > 0)
                return emit_class(p, &s);
        if (!r)
                r = escape(p, &c);
        return r ? r : literal(p, c);
}

/* before: where the repetition that was read last begins, SIZE_MAX = something else was. */
static int item(struct parser *p, size_t *before)
{
        int min, max, r;
        size_t from = p->at, len;
        char c = p->s.p[p->at];
        if (c == '*' || c == '+' || c == '?') {
                r = repetition(p, from, from + 1, before);
                return r ? r : built(p, regex_wrap(&p->b, (uint32_t)group(p)->atom, c));
        }
        if (c == '{' && (len = counts(p, &min, &max)) > 0)
                return repeat_counted(p, len, min, max, before);
        *before = SIZE_MAX;
        if (c != '|' && c != ')')
                note_repeat(group(p));
        switch (c) {
        case '(':
                return open_bracket(p);
        case ')':
                return close_group(p);
        case '|':
                return alternative(p);
        case '[':
                return class(p);
        case '.':
                p->at++;
                return emit_atom(p, p->flags & DOT_ALL ? RE_ANY : RE_ANY_LINE, 0);
        case '^':
                return assertion(p, p->flags & MULTI_LINE ? RE_BEGIN_LINE : RE_BEGIN_TEXT, 1);
        case '$':
                return assertion(p, p->flags & MULTI_LINE ? RE_END_LINE : RE_END_TEXT, 1);
        case '\\':
                return backslash(p);
        default:
                return literal(p, regex_rune(p->s, &p->at));
        }
}

/* What every match starts with. */
static int find_prefix(struct parser *p)
{
        struct regex *re = p->b.re;
        uint32_t i = 0;
        char *text = arena_alloc(p->a, PREFIX_MAX);
        if (!text)
                return -ENOMEM;
        re->begins = re->code[0].op == RE_ASSERT && re->code[0].a == RE_BEGIN_TEXT;
        re->prefix.p = text;
        for (i = re->begins; re->code[i].op == RE_CHAR && re->code[i].a < 128 && re->prefix.n < PREFIX_MAX; i++)
                text[re->prefix.n++] = (char)re->code[i].a;
        return 0;
}

int regex_compile(struct regex **ret, struct str pattern, struct arena *a, const char **ret_err)
{
        struct parser p = {.a = a, .s = pattern, .b = {.a = a, .re = arena_new(a, struct regex)}};
        size_t before = SIZE_MAX;
        int r = p.b.re ? 0 : -ENOMEM;
        if (!r && pattern.n > REGEX_MAX_PATTERN_BYTES) {
                p.err = "expression too large";
                r = -EINVAL;
        }
        if (!r && !utf8_is_valid(pattern))
                r = fail(&p, "invalid UTF-8", 0, pattern.n);
        if (!r)
                r = open_group(&p, 0);
        while (!r && p.at < p.s.n)
                r = item(&p, &before);
        if (!r && p.n_groups > 1)
                r = fail(&p, "missing closing )", 0, p.s.n);
        if (!r) {
                end_branches(&p);
                r = built(&p, regex_emit(&p.b, RE_MATCH, 0, 0));
        }
        if (!r)
                r = find_prefix(&p);
        if (r == -EINVAL && a->exhausted)
                r = -ENOMEM;
        *ret_err = r ? (p.err ? p.err : "out of memory") : NULL;
        *ret = r ? NULL : p.b.re;
        return r;
}
