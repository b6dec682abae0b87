/*
 * Sets of characters for regular expressions. A set is a row of ranges that grows while a class is read; it is sorted and joined at
 * the end. Case folding follows Unicode's simple folding: a character's fellows are found by going round its circle.
 */
#include <errno.h>
#include <stdlib.h>

#include "sdk/base/regex_internal.h"
#include "sdk/base/unicode_tables.inc"
#include "sdk/base/utf8.h"

#define COUNT(x) (sizeof(x) / sizeof *(x))

enum { FOLD_CIRCLE_MAX = 4 };

void regex_set_add(struct regex_set *s, uint32_t lo, uint32_t hi)
{
        if (s->n && s->v[s->n - 1].lo <= lo && lo <= s->v[s->n - 1].hi + 1) { /* often in order */
                if (hi > s->v[s->n - 1].hi)
                        s->v[s->n - 1].hi = hi;
                return;
        }
        if (s->n == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 8;
                struct regex_range *v = cap > REGEX_MAX_RANGES ? NULL : arena_grow(s->a, s->v, s->cap * sizeof *v, cap * sizeof *v);
                if (!v) {
                        s->failed = true;
                        return;
                }
                s->v = v;
                s->cap = cap;
        }
        s->v[s->n++] = (struct regex_range){lo, hi};
}

/* Adds the next in the circle of each character of lo..hi that has one. */
static void add_next(struct regex_set *s, uint32_t lo, uint32_t hi)
{
        for (size_t i = 0; i < COUNT(fold_runs); i++) {
                const struct fold_run *f = &fold_runs[i];
                uint32_t from = lo > f->lo ? lo : f->lo, to = hi < f->hi ? hi : f->hi;
                if (from > to)
                        continue;
                if (f->stride == 1) {
                        regex_set_add(s, (uint32_t)((int32_t)from + f->delta), (uint32_t)((int32_t)to + f->delta));
                        continue;
                }
                for (from += (from - f->lo) % f->stride; from <= to; from += f->stride)
                        regex_set_add(s, (uint32_t)((int32_t)from + f->delta), (uint32_t)((int32_t)from + f->delta));
        }
}

void regex_set_add_folded(struct regex_set *s, uint32_t lo, uint32_t hi)
{
        struct regex_set fellows = {.a = s->a}, next = {.a = s->a};
        regex_set_add(s, lo, hi);
        regex_set_add(&fellows, lo, hi);
        for (int round = 1; round < FOLD_CIRCLE_MAX && fellows.n; round++) {
                next.n = 0;
                for (size_t i = 0; i < fellows.n; i++)
                        add_next(&next, fellows.v[i].lo, fellows.v[i].hi);
                regex_set_normalize(&next);
                regex_set_add_set(s, &next);
                struct regex_set swap = fellows;
                fellows = next;
                next = swap;
        }
        s->failed |= fellows.failed || next.failed;
}

void regex_set_add_set(struct regex_set *s, const struct regex_set *from)
{
        for (size_t i = 0; i < from->n; i++)
                regex_set_add(s, from->v[i].lo, from->v[i].hi);
        s->failed |= from->failed;
}

static int by_lo(const void *a, const void *b)
{
        const struct regex_range *x = a, *y = b;
        return (x->lo > y->lo) - (x->lo < y->lo);
}

void regex_set_normalize(struct regex_set *s)
{
        size_t n = 0;
        if (s->n < 2)
                return;
        qsort(s->v, s->n, sizeof *s->v, by_lo);
        for (size_t i = 1; i < s->n; i++) {
                if (s->v[i].lo > s->v[n].hi + 1)
                        s->v[++n] = s->v[i];
                else if (s->v[i].hi > s->v[n].hi)
                        s->v[n].hi = s->v[i].hi;
        }
        s->n = n + 1;
}

void regex_set_negate(struct regex_set *s)
{
        struct regex_set r = {.a = s->a};
        uint32_t next = 0;
        regex_set_normalize(s);
        for (size_t i = 0; i < s->n; i++) {
                if (s->v[i].lo > next)
                        regex_set_add(&r, next, s->v[i].lo - 1);
                next = s->v[i].hi + 1;
        }
        if (next <= RUNE_MAX)
                regex_set_add(&r, next, RUNE_MAX);
        r.failed |= s->failed;
        *s = r;
}

/* ---- classes by name ---- */

/* Pairs of first and last character. */
static void add_pairs(struct regex_set *s, const char *pairs)
{
        for (; *pairs; pairs += 2)
                regex_set_add(s, (unsigned char)pairs[0], (unsigned char)pairs[1]);
}

bool regex_set_add_perl(struct regex_set *s, char letter)
{
        switch (letter) {
        case 'd':
                add_pairs(s, "09");
                return true;
        case 's':
                add_pairs(s, "\t\n\f\r  ");
                return true;
        case 'w':
                add_pairs(s, "09AZ__az");
                return true;
        default:
                return false;
        }
}

bool regex_set_add_posix(struct regex_set *s, struct str name)
{
        static const struct {
                const char *name, *pairs;
        } classes[] = {{"alnum", "09AZaz"},  {"alpha", "AZaz"},     {"ascii", "\001\177"}, {"blank", "\t\t  "}, {"cntrl", "\001\037\177\177"},
                       {"digit", "09"},      {"graph", "!~"},       {"lower", "az"},       {"print", " ~"},     {"punct", "!/:@[`{~"},
                       {"space", "\t\r  "},  {"upper", "AZ"},       {"word", "09AZ__az"},  {"xdigit", "09AFaf"}};
        for (size_t i = 0; i < COUNT(classes); i++) {
                if (!str_eqz(name, classes[i].name))
                        continue;
                if (classes[i].pairs[0] == '\001')
                        regex_set_add(s, 0, 0);
                add_pairs(s, classes[i].pairs);
                return true;
        }
        return false;
}

/* Adds what the bounds give to names that start with `name` (whole: that are equal to it). */
static bool add_bounds(struct regex_set *s, const char *const *names, size_t n_names, const uint32_t *bounds, size_t n, struct str name, bool whole)
{
        bool found = false;
        for (size_t i = 1; i < n_names; i++)
                found |= whole ? str_eqz(name, names[i]) : str_has_prefix(str_of(names[i]), name);
        for (size_t i = 0; found && i < n; i++) {
                const char *is = names[bounds[i] & 0xff];
                if (*is && (whole ? str_eqz(name, is) : str_has_prefix(str_of(is), name)))
                        regex_set_add(s, bounds[i] >> 8, i + 1 < n ? (bounds[i + 1] >> 8) - 1 : RUNE_MAX);
        }
        return found;
}

bool regex_set_add_unicode(struct regex_set *s, struct str name)
{
        if (str_eqz(name, "Any")) {
                regex_set_add(s, 0, RUNE_MAX);
                return true;
        }
        return (name.n && name.n <= 2 &&
                add_bounds(s, category_names, COUNT(category_names), category_bounds, COUNT(category_bounds), name, name.n == 2)) ||
               add_bounds(s, script_names, COUNT(script_names), script_bounds, COUNT(script_bounds), name, true);
}

uint32_t regex_rune(struct str s, size_t *at)
{
        const unsigned char *p = (const unsigned char *)s.p + *at;
        if (p[0] < 0x80) {
                ++*at;
                return p[0];
        }
        int len = utf8_char_len(s.p + *at, s.n - *at);
        *at += len ? (size_t)len : 1;
        switch (len) {
        case 2:
                return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
        case 3:
                return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
        case 4:
                return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
        default:
                return RUNE_ERROR;
        }
}
