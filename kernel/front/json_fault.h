/* What is wrong with a JSON text, in the words of Go's encoding/json, which clients of the reference see and compare. */
#ifndef KERNEL_FRONT_JSON_FAULT_H
#define KERNEL_FRONT_JSON_FAULT_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

/* NULL = a valid value. whole: nothing may follow the value (json.Unmarshal; an unfinished text is "unexpected end of JSON input");
 * else what follows is not looked at (json.Decoder; "EOF" and "unexpected EOF"). Nesting deeper than JSON_MAX_DEPTH is a fault too. */
const char *json_fault(struct arena *a, struct str text, bool whole);

#endif
