/*
 * Component metadata by type. The runtime has checked every field of the manifest and has added its defaults; here text only
 * becomes a value, by the reference's rules: y yes true t on 1 are true; a bare number as a duration means seconds.
 */
#include "sdk/base/flags.h"
#include "sdk/plugin/runtime.h"

const char *dapr_md_string(const struct dapr_metadata *m, const char *field)
{
        return dapr_kvs_get(m->kvs, field);
}

bool dapr_md_bool(const struct dapr_metadata *m, const char *field)
{
        return parse_truthy(dapr_kvs_get(m->kvs, field));
}

int64_t dapr_md_int(const struct dapr_metadata *m, const char *field)
{
        const char *v = dapr_kvs_get(m->kvs, field);
        int64_t n = 0;
        if (!v || (parse_int64(str_trim(str_of(v)), &n) && parse_quantity(str_trim(str_of(v)), &n)))
                return 0;
        return n;
}

int64_t dapr_md_duration_ns(const struct dapr_metadata *m, const char *field)
{
        const char *v = dapr_kvs_get(m->kvs, field);
        int64_t n = 0;
        if (!v || !*v)
                return 0;
        if (parse_int64(str_trim(str_of(v)), &n) == 0)
                return n > INT64_MAX / 1000000000 ? INT64_MAX : n * 1000000000;
        return parse_duration(str_trim(str_of(v)), &n) ? 0 : n;
}

bool dapr_md_has(const struct dapr_metadata *m, const char *field)
{
        return dapr_kvs_get(m->kvs, field) != NULL;
}

struct dapr_kvs dapr_md_all(const struct dapr_metadata *m)
{
        return m->kvs;
}
