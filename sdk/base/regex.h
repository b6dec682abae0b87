/*
 * Regular expressions in RE2's syntax (https://github.com/google/re2/wiki/Syntax), as Go's regexp package reads them: classes, Perl
 * and POSIX classes, Unicode categories and scripts, counted repetition, groups, flags i m s U, anchors, \b. No back references.
 * Matching takes time linear in the text: all states are followed at once (Thompson, Pike). Text is UTF-8; a byte that is none
 * counts as U+FFFD. Only whether a text matches is answered, so greediness and captures have no effect.
 */
#ifndef SDK_BASE_REGEX_H
#define SDK_BASE_REGEX_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum {
        REGEX_MAX_PATTERN_BYTES = 16 * 1024,
        REGEX_MAX_DEPTH = 1000,    /* groups inside each other */
        REGEX_MAX_REPEAT = 1000,   /* of {n}, also of the product of repetitions inside each other */
        REGEX_MAX_CODE = 20 * 1000, /* instructions */
        REGEX_MAX_RANGES = 100 * 1000, /* of all classes together */
        REGEX_STEPS_PER_CHARGE = 8, /* states looked at for one step of *steps */
};

struct regex;

/* 0 and *ret, all of it in the arena; -EINVAL with the text of Go's error ("missing closing ): `(`") in *ret_err (in the arena);
 * -ENOMEM. A pattern past a limit is "expression too large", "expression nests too deeply" or "invalid repeat count". */
int regex_compile(struct regex **ret, struct str pattern, struct arena *a, const char **ret_err);
/* Does it match somewhere in the text? 1, 0, -ENOMEM, or -ETIMEDOUT when *steps, which it counts down, would become negative.
 * steps may be NULL. Scratch memory comes from the arena. */
int regex_match(const struct regex *re, struct str text, struct arena *a, int64_t *steps);
size_t regex_cost(const struct regex *re); /* what compiling it took, in steps; 0 for NULL */

#endif
