/* Time to live and priority, with the texts of the reference for what is neither. */
#include "plugins/shared/binding/metadata.h"

#include "sdk/base/flags.h"

enum { MS_NS = 1000000 };

int binding_ttl(struct dapr_call *c, struct dapr_kvs md, int64_t *ret_ms)
{
        const char *v = dapr_kvs_get(md, "ttl");
        int64_t n;
        *ret_ms = -1;
        if (!v || !*v)
                v = dapr_kvs_get(md, "ttlInSeconds");
        if (!v || !*v)
                return 0;
        if (parse_int64(str_of(v), &n) == 0) {
                if (n < 0)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "ttlInSeconds value must be higher than zero: actual is '%lld'", (long long)n);
                *ret_ms = n < INT64_MAX / 1000 ? n * 1000 : INT64_MAX / MS_NS;
        } else if (parse_duration(str_of(v), &n) == 0) {
                *ret_ms = n > 0 ? n / MS_NS : 0;
        } else {
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "ttlInSeconds value must be a valid integer: actual is '%s'", v);
        }
        return 0;
}

int binding_priority(struct dapr_call *c, struct dapr_kvs md, int *ret)
{
        const char *v = dapr_kvs_get(md, "priority");
        int64_t n;
        *ret = -1;
        if (!v || !*v)
                return 0;
        if (parse_int64(str_of(v), &n))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "priority value must be a valid integer: actual is '%s'", v);
        *ret = n < 0 ? 0 : n > 255 ? 255 : (int)n;
        return 0;
}
