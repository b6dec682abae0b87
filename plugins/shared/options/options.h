/* Fields of a component's metadata that several plugins read alike. */
#ifndef PLUGINS_SHARED_OPTIONS_H
#define PLUGINS_SHARED_OPTIONS_H

#include "dapr/plugin.h"

/* A whole number from 0 to max; dflt when the field is missing or empty. 0, or dapr_fail()'s code; `who` begins its text, "jetstream". */
int option_count(struct dapr_call *c, const struct dapr_metadata *md, const char *who, const char *field, int64_t dflt, int64_t max, int64_t *ret);
/* A toggle; dflt when the field is missing or empty. */
bool option_toggle(const struct dapr_metadata *md, const char *field, bool dflt);

#endif
