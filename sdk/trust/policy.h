/* How strict daprd is about the plugins that it starts (verify.h): --plugin-verify. */
#ifndef SDK_TRUST_POLICY_H
#define SDK_TRUST_POLICY_H

#include <stdbool.h>

enum verify_policy { VERIFY_OFF, VERIFY_LOCK, VERIFY_SIGNED };
bool verify_policy_read(const char *text, enum verify_policy *ret); /* "off", "lock", "signed"; case does not count */

#endif
