/* Time zones of the system's database (RFC 8536 files in /usr/share/zoneinfo), read when asked for. */
#ifndef KERNEL_POLICY_ZONE_H
#define KERNEL_POLICY_ZONE_H

#include "sdk/base/str.h"

enum { ZONE_NAME_MAX_BYTES = 100, ZONE_FILE_MAX_BYTES = 64 * 1024 };

/* Seconds east of UTC that hold in the zone at a time (seconds since 1970). "" and "UTC" are UTC, "Local" the machine's zone.
 * 0; -ENOENT: no such zone, or its file is not valid; -ENOMEM. Reads a small file. */
int zone_find(struct str name, int64_t at, int32_t *ret_offset_s);

#endif
