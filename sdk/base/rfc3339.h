/*
 * Points in time and spans as text, with nanoseconds: RFC 3339 times and protobuf's durations ("1.5s"). Seconds since 1970, UTC;
 * years 1 to 9999 only. Does not read the time zone database.
 */
#ifndef SDK_BASE_RFC3339_H
#define SDK_BASE_RFC3339_H

#include "sdk/base/str.h"

enum { RFC3339_BYTES = 40 };

/* "2006-01-02T15:04:05.999999999Z" or with an offset "+07:00"; up to nine digits of fraction. */
bool rfc3339_parse(struct str s, int64_t *ret_seconds, int32_t *ret_nanos);
/* In UTC with 0, 3, 6 or 9 digits of fraction, NUL-terminated; returns the length, 0 when out of range. */
size_t rfc3339_format(char out[RFC3339_BYTES], int64_t seconds, int32_t nanos);
/* "-3.000000001s"; both results have the sign. */
bool pbduration_parse(struct str s, int64_t *ret_seconds, int32_t *ret_nanos);
/* With 0, 3, 6 or 9 digits; 0 when out of range (10,000 years) or when the signs differ. */
size_t pbduration_format(char out[RFC3339_BYTES], int64_t seconds, int32_t nanos);

#endif
