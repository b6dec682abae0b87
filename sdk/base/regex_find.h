/*
 * Where a regular expression matches: leftmost, and of the matches that begin there the one that Perl would take, as Go's
 * FindAllStringIndex has it (alternatives in order, repetition greedy; the lazy forms are not known here). Time is linear in the
 * text for each match that is found.
 */
#ifndef SDK_BASE_REGEX_FIND_H
#define SDK_BASE_REGEX_FIND_H

#include "sdk/base/regex.h"

struct regex_finder {
        const struct regex *re;
        uint64_t first[4];     /* bytes that a match can begin with */
        uint32_t *mem;
};

/* Scratch memory from the arena, which must live as long as the finder. 0 or -ENOMEM. One search at a time. */
int regex_finder_init(struct regex_finder *f, const struct regex *re, struct arena *a);
/* The first match that begins at or after `from`; what stands before counts for \b and ^. False when there is none. */
bool regex_find(struct regex_finder *f, struct str text, size_t from, size_t *ret_start, size_t *ret_end);

#endif
