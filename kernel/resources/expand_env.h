/* $NAME and ${NAME} in a text; private to the configuration reader. */
#ifndef KERNEL_RESOURCES_EXPAND_ENV_H
#define KERNEL_RESOURCES_EXPAND_ENV_H

#include "sdk/base/buf.h"

/* Appends the text with references replaced by the environment, unset = empty, by the rules of Go's os.ExpandEnv: "$" before
 * something that is no name stays, "$$", "$1" and their like are names (mostly unset), "${" without end loses these two
 * characters. 0; -ENOMEM; -EFBIG when the result passes EXPAND_MAX_BYTES. */
enum { EXPAND_MAX_BYTES = 8 * 1024 * 1024 };
int expand_env(struct buf *out, struct str text);

#endif
