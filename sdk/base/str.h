/* Borrowed bytes: a pointer and a length, never owning, not always NUL-terminated. */
#ifndef SDK_BASE_STR_H
#define SDK_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct str {
        const char *p;
        size_t n;
};

#define STR(lit) ((struct str){(lit), sizeof(lit) - 1})
#define STR_NULL ((struct str){NULL, 0})
/* For printf: "%.*s", STR_FMT(s) */
#define STR_FMT(s) (int)(s).n, ((s).p ? (s).p : "")

static inline struct str str_of(const char *z)
{
        return (struct str){z, z ? strlen(z) : 0};
}
static inline struct str str_n(const void *p, size_t n)
{
        return (struct str){p, n};
}
static inline bool str_eq(struct str a, struct str b)
{
        return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_eqz(struct str a, const char *z)
{
        return str_eq(a, str_of(z));
}
static inline bool str_ieq(struct str a, struct str b)
{
        return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}
static inline bool str_has_prefix(struct str a, struct str prefix)
{
        return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}
static inline bool str_has_suffix(struct str a, struct str suffix)
{
        return a.n >= suffix.n && (suffix.n == 0 || memcmp(a.p + a.n - suffix.n, suffix.p, suffix.n) == 0);
}
static inline struct str str_skip(struct str a, size_t n)
{
        return n >= a.n ? (struct str){a.p + a.n, 0} : (struct str){a.p + n, a.n - n};
}
/* Decimal text in the caller's room, NUL-terminated: printf for paths where it would show. */
static inline struct str str_int(char room[12], int v)
{
        unsigned u = v < 0 ? 0u - (unsigned)v : (unsigned)v;
        char *p = room + 11;
        *p = '\0';
        do
                *--p = (char)('0' + u % 10);
        while (u /= 10);
        if (v < 0)
                *--p = '-';
        return str_n(p, (size_t)(room + 11 - p));
}
/* Index of c, or -1. */
static inline ptrdiff_t str_chr(struct str a, char c)
{
        const char *q = a.n ? memchr(a.p, c, a.n) : NULL;
        return q ? q - a.p : -1;
}
/* Index of the first needle, or -1. */
static inline ptrdiff_t str_find(struct str a, struct str needle)
{
        const char *q = a.n ? memmem(a.p, a.n, needle.p, needle.n) : NULL;
        return q ? q - a.p : -1;
}
static inline struct str str_trim(struct str a)
{
        while (a.n && (unsigned char)a.p[0] <= ' ')
                a.p++, a.n--;
        while (a.n && (unsigned char)a.p[a.n - 1] <= ' ')
                a.n--;
        return a;
}
/* Cuts the part before the first `sep` off *rest and returns it; *rest.p is NULL once all is consumed.
 * Loop: for (struct str rest = s, t; rest.p && (t = str_cut(&rest, ','), 1);) */
static inline struct str str_cut(struct str *rest, char sep)
{
        ptrdiff_t i = str_chr(*rest, sep);
        struct str head = *rest;
        if (i < 0) {
                *rest = STR_NULL;
                return head;
        }
        head.n = (size_t)i;
        *rest = str_skip(*rest, (size_t)i + 1);
        return head;
}

#endif
