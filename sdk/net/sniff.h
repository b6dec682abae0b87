/* What a body without a Content-Type is, by its first bytes: the WHATWG's MIME Sniffing Standard, as far as Go's servers follow it. */
#ifndef SDK_NET_SNIFF_H
#define SDK_NET_SNIFF_H

#include "sdk/base/str.h"

enum { SNIFF_BYTES = 512 }; /* more is not looked at */

/* A media type with its parameters, static; "application/octet-stream" for what is nothing else. */
struct str sniff_type(struct str body);

#endif
