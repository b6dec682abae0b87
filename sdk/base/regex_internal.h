/* Regular expressions, inside: regex_parse.c reads patterns, regex_code.c makes programs, regex_class.c sets of characters; regex.c
 * runs programs. */
#ifndef SDK_BASE_REGEX_INTERNAL_H
#define SDK_BASE_REGEX_INTERNAL_H

#include "sdk/base/regex.h"

enum { RUNE_MAX = 0x10ffff, RUNE_ERROR = 0xfffd };

enum regex_op {
        RE_CHAR,      /* a: code point */
        RE_CLASS,     /* a: index of the class */
        RE_ANY,       /* every character */
        RE_ANY_LINE,  /* every character but \n */
        RE_ASSERT,    /* a: enum regex_assert */
        RE_SPLIT,     /* goes on at +a and at +b */
        RE_JUMP,      /* goes on at +a */
        RE_MATCH,
};
enum regex_assert {
        RE_BEGIN_TEXT = 1, RE_END_TEXT = 2, RE_BEGIN_LINE = 4, RE_END_LINE = 8, RE_WORD = 16, RE_NO_WORD = 32
};
struct regex_ins {
        uint32_t op;
        int32_t a, b; /* jumps are relative, so that code can be moved and copied */
};
struct regex_range {
        uint32_t lo, hi;
};
struct regex_class {
        uint64_t ascii[2];
        struct regex_range *v; /* sorted, apart */
        uint32_t n;
};
struct regex {
        struct regex_ins *code;
        struct regex_class *classes;
        uint32_t n_code, n_classes;
        size_t n_ranges;
        bool begins;           /* every match begins where the text does */
        struct str prefix;     /* ASCII bytes that each match starts with; may be empty */
};

/* ---- one step of a program, for all who run programs ---- */
static inline bool regex_in_class(const struct regex_class *c, uint32_t rune)
{
        uint32_t lo = 0, hi = c->n;
        if (rune < 128)
                return c->ascii[rune / 64] >> (rune % 64) & 1;
        while (lo < hi) {
                uint32_t mid = (lo + hi) / 2;
                if (c->v[mid].hi < rune)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo < c->n && c->v[lo].lo <= rune;
}

/* Does the instruction take this character? Those that take none do not. */
static inline bool regex_takes(const struct regex *re, const struct regex_ins *in, uint32_t rune)
{
        switch ((enum regex_op)in->op) {
        case RE_CHAR:
                return (uint32_t)in->a == rune;
        case RE_CLASS:
                return regex_in_class(&re->classes[in->a], rune);
        case RE_ANY:
                return true;
        case RE_ANY_LINE:
                return rune != '\n';
        case RE_ASSERT: case RE_SPLIT: case RE_JUMP: case RE_MATCH:
                break;
        }
        return false;
}

/* Of \b: ASCII only. */
static inline bool regex_is_word(uint32_t rune)
{
        return rune < 128 && ((rune >= '0' && rune <= '9') || rune == '_' || ((rune | 0x20) >= 'a' && (rune | 0x20) <= 'z'));
}

/* ---- regex_class.c: sets of ranges while they are made, growing in the arena ---- */
struct regex_set {
        struct arena *a;
        struct regex_range *v;
        size_t n, cap;
        bool failed;           /* no memory or past REGEX_MAX_RANGES */
};
void regex_set_add(struct regex_set *s, uint32_t lo, uint32_t hi);
void regex_set_add_folded(struct regex_set *s, uint32_t lo, uint32_t hi); /* with what is equal but for case */
void regex_set_normalize(struct regex_set *s);                          /* sorts and joins */
void regex_set_negate(struct regex_set *s);                             /* normalizes as well */
void regex_set_add_set(struct regex_set *s, const struct regex_set *from);
/* Adds a class; false = no such name. */
bool regex_set_add_perl(struct regex_set *s, char letter);              /* d s w */
bool regex_set_add_posix(struct regex_set *s, struct str name);         /* "alpha" */
bool regex_set_add_unicode(struct regex_set *s, struct str name);       /* "Lu", "L", "Greek", "Any" */
/* ---- regex_code.c: a program that grows; 0, -EINVAL (past a limit), -ENOMEM ---- */
enum { REGEX_TO_INFINITY = -1 };
struct regex_builder {
        struct arena *a;
        struct regex *re;
        uint32_t cap_code, cap_classes;
};
int regex_emit(struct regex_builder *b, enum regex_op op, int32_t x, int32_t y);
int regex_insert_split(struct regex_builder *b, uint32_t at, int32_t x, int32_t y);
int regex_add_class(struct regex_builder *b, struct regex_set *set, int32_t *ret); /* normalizes and keeps the set */
int regex_wrap(struct regex_builder *b, uint32_t at, char op);                     /* * + ? around the code from `at` to the end */
/* {min,max} of it: min copies, then optional ones that all leave to the same end, or a loop over the last. */
int regex_copies(struct regex_builder *b, uint32_t at, int min, int max);

/* Reads the character at *at and moves *at behind it; an invalid byte is RUNE_ERROR. */
uint32_t regex_rune(struct str s, size_t *at);

#endif
