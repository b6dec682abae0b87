/*
 * Personal data in texts: phone numbers, addresses, cards … give way to "<PHONE_NUMBER>" and the like. The set of patterns is that of
 * the reference (aavaz-ai/pii-scrubber with its defaults); links and addresses of git repositories are left as they are.
 */
#ifndef KERNEL_PII_H
#define KERNEL_PII_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum { PII_INLINE_BYTES = 2048 }; /* longer texts are worked on by a thread of the pool */

struct pii;
int pii_new(struct pii **ret); /* compiles the patterns: 0 or -ENOMEM */
void pii_free(struct pii *p);
/* *ret = the text without personal data, in a, or the text itself when it holds none. 0, -ENOMEM, or as work_run. Parks on long
 * texts; several at once are fine. */
int pii_scrub(struct pii *p, struct str text, struct arena *a, struct str *ret);

#endif
