/* Secret keys and the passwords that lock them. */
#ifndef CTL_PACKAGE_KEYS_H
#define CTL_PACKAGE_KEYS_H

#include "sdk/trust/minisign.h"

/* ~/.dapr/keys/plugin.key, or key when it is not "". NULL when HOME is unknown. */
const char *key_path(struct arena *a, const char *key);
/* From the file, or asked for on the terminal. p NULL after saying what is wrong. The caller wipes it. Blocks. */
struct str key_password(struct arena *a, const char *password_file, const char *prompt);
/* Reads and unlocks; 0 or 1 after saying what is wrong. */
int key_load(struct arena *a, const char *path, const char *password_file, struct minisign_secret *ret);

#endif
