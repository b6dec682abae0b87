/*
 * Names of keys in a state store: what an app calls "k" is "<prefix>||k" in the store. The prefix comes from the component's
 * metadata keyPrefix: appid (default), name, namespace, none, or any other text, which is used in lower case.
 */
#ifndef KERNEL_STATE_KEY_H
#define KERNEL_STATE_KEY_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

#define STATE_KEY_SEPARATOR "||"

struct state_key_scope {
        const char *app_id, *namespace_, *store; /* never NULL; "" = unset */
};
/* May stand in a key or prefix? False when it holds the separator. */
bool state_key_is_legal(struct str key);
/* The text put before each key, separator included; "" for none. key_prefix may be NULL. In a; p == NULL without memory.
 * The strategy must be legal (state_key_is_legal). */
struct str state_key_prefix(struct arena *a, const char *key_prefix, const struct state_key_scope *scope);
/* Key as the app knows it: the part between the first and the second separator; the whole when there is none. */
struct str state_key_original(struct str stored);

#endif
