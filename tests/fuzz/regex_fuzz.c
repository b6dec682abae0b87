/*
 * Regular expressions: text up to the first NUL is a pattern, what follows it the text. Only well-formed patterns compile; a match
 * of the whole pattern in a group, or behind an empty beginning, is the same match.
 */
#include <stdlib.h>

#include "sdk/base/regex.h"
#include "kernel/policy/zone.h"

#define must_hold(x) ((x) ? (void)0 : abort())

enum { ARENA_BYTES = 16 << 20, STEPS = 100 * 1000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* 1, 0, or < 0. */
static int match(struct arena *a, struct str pattern, struct str text)
{
        struct regex *re = NULL;
        const char *err = NULL;
        int64_t steps = STEPS;
        int r = regex_compile(&re, pattern, a, &err);
        must_hold((r != 0) == (err != NULL) && (r != 0) == (re == NULL));
        return r ? r : regex_match(re, text, a, &steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        const uint8_t *nul = n ? memchr(data, 0, n) : NULL;
        struct str pattern = str_n(data, nul ? (size_t)(nul - data) : n);
        struct str text = nul ? str_n(nul + 1, n - pattern.n - 1) : STR("abc ABC 123 \303\244\n\317\203-_.");
        struct arena a;
        int32_t offset;
        arena_init(&a, ARENA_BYTES);
        int r = match(&a, pattern, text);
        if (r >= 0 && pattern.n < 4096) {
                char *p = arena_printf(&a, "(?:%.*s)", STR_FMT(pattern));
                int in_group = p ? match(&a, str_of(p), text) : -1;
                must_hold(in_group < 0 || in_group == r || memmem(pattern.p, pattern.n, "\\Q", 2));
                p = arena_printf(&a, "(|x{0})%.*s", STR_FMT(pattern));
                in_group = p ? match(&a, str_of(p), text) : -1;
                must_hold(in_group < 0 || in_group == r || (pattern.n && memchr(pattern.p, '|', pattern.n)));
        }
        if (pattern.n < 40 && !memchr(pattern.p ? pattern.p : "", '/', pattern.n))
                zone_find(pattern, (int64_t)n * 86400 * 365, &offset);
        arena_fini(&a);
        return 0;
}
