/* See policy.h. */
#include "sdk/trust/policy.h"

#include <strings.h>

bool verify_policy_read(const char *text, enum verify_policy *ret)
{
        static const char *const names[] = {[VERIFY_OFF] = "off", [VERIFY_LOCK] = "lock", [VERIFY_SIGNED] = "signed"};
        for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
                if (strcasecmp(text, names[i]) == 0) {
                        *ret = (enum verify_policy)i;
                        return true;
                }
        return false;
}
