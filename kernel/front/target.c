/* Header first, Basic credentials second, path last: a dapr-app-id header wins even over a URL below /v1.0/invoke. */
#include "kernel/front/target.h"

#include "sdk/base/json.h"

#define APP_ID_HEADER "dapr-app-id"

static struct str method_of(struct arena *a, struct str path)
{
        struct str clean = path_clean(a, path);
        return clean.n && clean.p[0] == '/' ? str_skip(clean, 1) : clean;
}

static struct str basic_id(struct arena *a, const struct http_headers *headers)
{
        struct str auth = http_headers_get(headers, "Authorization"), text, user;

        if (!str_has_prefix(auth, STR("Basic ")))
                return STR("");
        text = base64_decode(a, str_skip(auth, 6));
        if (!text.p || str_chr(text, ':') < 0)
                return STR("");
        user = str_cut(&text, ':');
        return str_ieq(user, STR(APP_ID_HEADER)) && str_chr(text, ':') < 0 ? text : STR("");
}

/* Index of the first byte behind "/v1.0/invoke/" (slashes may repeat), or 0. */
static size_t behind_prefix(struct str path)
{
        static const struct str parts[] = {{"v1.0", 4}, {"invoke", 6}};
        size_t i = 0;

        for (size_t n = 0; n < 2; n++) {
                while (i < path.n && path.p[i] == '/')
                        i++;
                if (!str_has_prefix(str_skip(path, i), parts[n]))
                        return 0;
                i += parts[n].n;
                if (i >= path.n || path.p[i] != '/')
                        return 0;
        }
        while (i < path.n && path.p[i] == '/')
                i++;
        return i;
}

struct invoke_target invoke_target_find(struct arena *a, struct str path, struct http_headers *headers)
{
        struct str id = http_headers_get(headers, APP_ID_HEADER), rest, unescaped;
        struct invoke_target t = {STR(""), STR("")};
        ptrdiff_t at;

        if (id.n) {
                http_headers_remove(headers, APP_ID_HEADER);
                return (struct invoke_target){id, method_of(a, path)};
        }
        id = basic_id(a, headers);
        if (id.n)
                return (struct invoke_target){id, method_of(a, path)};
        rest = str_skip(path, behind_prefix(path));
        if (rest.n == path.n || (at = str_find(rest, STR("/method/"))) <= 0)
                return t;
        t.id = str_n(rest.p, (size_t)at);
        t.method = path_clean(a, str_skip(rest, (size_t)at + sizeof "/method/" - 1));
        if (str_eqz(t.method, "."))
                t.method = STR("");
        unescaped = url_unescape(a, t.id, true);
        if (unescaped.p && unescaped.n)
                t.id = unescaped;
        return t;
}
