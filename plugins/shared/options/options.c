/* See options.h. */
#include "plugins/shared/options/options.h"

#include "sdk/base/flags.h"

int option_count(struct dapr_call *c, const struct dapr_metadata *md, const char *who, const char *field, int64_t dflt, int64_t max, int64_t *ret)
{
        const char *v = dapr_md_string(md, field);
        *ret = dflt;
        if (!v || !*v || (parse_int64(str_of(v), ret) == 0 && *ret >= 0 && *ret <= max))
                return 0;
        if (max == INT64_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s: %s is %s: write a whole number", who, field, v);
        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s: %s is %s: write a whole number up to %lld", who, field, v, (long long)max);
}

bool option_toggle(const struct dapr_metadata *md, const char *field, bool dflt)
{
        const char *v = dapr_md_string(md, field);
        return v && *v ? parse_truthy(v) : dflt;
}
