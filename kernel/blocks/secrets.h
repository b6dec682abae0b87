/* The secrets building block: what its tests reach beside the block itself (kernel/front/call.h) and secrets_resolve (kernel.h). */
#ifndef KERNEL_SECRETS_H
#define KERNEL_SECRETS_H

#include "kernel/front/call.h"

/* allowedSecrets, if any, is the whole list; else deniedSecrets and defaultAccess. */
bool secret_scope_allows(const struct secret_scope *s, const char *secret);

#endif
