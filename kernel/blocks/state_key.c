/* See state_key.h. */
#include "kernel/blocks/state_key.h"

#include <ctype.h>

bool state_key_is_legal(struct str key)
{
        return str_find(key, STR(STATE_KEY_SEPARATOR)) < 0;
}

static struct str joined(struct arena *a, const char *left, const char *dot, const char *right)
{
        char *p = arena_printf(a, "%s%s%s" STATE_KEY_SEPARATOR, left, dot, right);
        return str_of(p);
}

struct str state_key_prefix(struct arena *a, const char *key_prefix, const struct state_key_scope *scope)
{
        struct str strategy = str_of(key_prefix);
        if (str_ieq(strategy, STR("none")))
                return STR("");
        if (str_ieq(strategy, STR("name")))
                return joined(a, scope->store, "", "");
        bool namespaced = str_ieq(strategy, STR("namespace"));
        if (!key_prefix || namespaced || str_ieq(strategy, STR("appid"))) {
                if (!*scope->app_id)
                        return STR("");
                if (namespaced && *scope->namespace_)
                        return joined(a, scope->namespace_, ".", scope->app_id);
                return joined(a, scope->app_id, "", "");
        }
        char *lower = arena_strdup(a, strategy);
        if (!lower)
                return STR_NULL;
        for (char *p = lower; *p; p++)
                *p = (char)tolower((unsigned char)*p);
        return joined(a, lower, "", "");
}

struct str state_key_original(struct str stored)
{
        const struct str sep = STR(STATE_KEY_SEPARATOR);
        ptrdiff_t at = str_find(stored, sep);
        if (at < 0)
                return stored;
        struct str key = str_skip(stored, (size_t)at + sep.n);
        at = str_find(key, sep);
        if (at >= 0)
                key.n = (size_t)at;
        return key;
}
