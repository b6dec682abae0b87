/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef SDK_BASE_UTF8_H
#define SDK_BASE_UTF8_H

#include "sdk/base/str.h"

/* Bytes of the character at p (n > 0 bytes are there): 1 to 4, or 0 when it is invalid or cut off. */
int utf8_char_len(const char *p, size_t n);
/* Length of the longest valid start of s: s.n when all of it is valid. */
size_t utf8_valid_len(struct str s);
static inline bool utf8_is_valid(struct str s)
{
        return utf8_valid_len(s) == s.n;
}
/* Writes the 1 to 4 bytes of a code point (a valid one) and returns their number. */
int utf8_put(char *out, uint32_t code);

#endif
