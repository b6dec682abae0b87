/*
 * Versions as Semantic Versioning 2 orders them, and the constraints that people write:
 *   1.2.3  exactly this    1.2, 1.x, 1  any that begins so    *  or ""  any    ^1.2  from 1.2 below 2    ~1.2  from 1.2 below 1.3
 *   = != > >= < <=  before a version. Several with spaces or commas between them: all must hold.
 * A pre-release (1.0.0-rc.1) is taken only by a constraint that names one. A leading v does not count.
 */
#ifndef SDK_BASE_SEMVER_H
#define SDK_BASE_SEMVER_H

#include "sdk/base/str.h"

/* Is it MAJOR.MINOR.PATCH with optional -pre and +build? At most 64 bytes. */
bool semver_is_valid(struct str version);
/* < 0, 0, > 0. What is no version is below all that are, and compared as text with its like. */
int semver_compare(struct str a, struct str b);
bool semver_is_range(struct str range);
/* False also when either cannot be read. */
bool semver_matches(struct str version, struct str range);

#endif
