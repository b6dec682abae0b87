/* Texts that are nearly the same: to find what was meant. */
#ifndef SDK_BASE_NEAR_H
#define SDK_BASE_NEAR_H

#include "sdk/base/str.h"

/* Number of edits between two texts, without case, at most `max` + 1. Texts of more than 64 bytes are the same or not. */
unsigned edit_distance(struct str a, struct str b, unsigned max);

#endif
