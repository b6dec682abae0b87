/* A preflight is answered with 200 whether it is allowed or not: what counts is which headers stand in the answer. */
#include "kernel/front/cors.h"

static const char *const methods[] = {"HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};

void cors_init(struct cors *c, const char *origins)
{
        *c = (struct cors){.enabled = origins[0] != '\0', .origins = origins};
        for (struct str rest = str_of(origins), o; rest.p && (o = str_cut(&rest, ','), 1);)
                c->any_origin |= str_eq(o, STR("*"));
}

static bool matches(struct str entry, struct str origin)
{
        ptrdiff_t star = str_chr(entry, '*');
        struct str head, tail;

        if (star < 0)
                return str_ieq(entry, origin);
        head = str_n(entry.p, (size_t)star);
        tail = str_skip(entry, (size_t)star + 1);
        return origin.n >= head.n + tail.n && str_ieq(head, str_n(origin.p, head.n)) &&
               str_ieq(tail, str_skip(origin, origin.n - tail.n));
}

static bool origin_allowed(const struct cors *c, struct str origin)
{
        if (c->any_origin)
                return true;
        for (struct str rest = str_of(c->origins), o; rest.p && (o = str_cut(&rest, ','), 1);)
                if (matches(o, origin))
                        return true;
        return false;
}

static const char *method_allowed(struct str method)
{
        for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
                if (str_ieq(method, str_of(methods[i])))
                        return methods[i];
        return NULL;
}

/* "x-foo,bar" -> "X-Foo, Bar" */
static struct str header_list(struct arena *a, struct str in)
{
        char *to = arena_alloc(a, 2 * in.n + 1);
        bool upper = true;
        size_t n = 0;

        if (!to)
                return STR("");
        for (size_t i = 0; i < in.n; i++) {
                char ch = in.p[i];
                if (ch == ' ' || ch == ',') {
                        upper = true;
                        if (n && to[n - 1] != ' ') {
                                to[n++] = ',';
                                to[n++] = ' ';
                        }
                        continue;
                }
                if (upper && ch >= 'a' && ch <= 'z')
                        ch = (char)(ch - 'a' + 'A');
                else if (!upper && ch >= 'A' && ch <= 'Z')
                        ch = (char)(ch - 'A' + 'a');
                upper = ch == '-' || ch == '_';
                if ((unsigned char)ch > ' ')
                        to[n++] = ch;
        }
        while (n && (to[n - 1] == ' ' || to[n - 1] == ','))
                n--;
        return str_n(to, n);
}

static void preflight(const struct cors *c, struct call *call)
{
        struct str origin = http_headers_get(&call->http->headers, "Origin"), list;
        const char *method = method_allowed(http_headers_get(&call->http->headers, "Access-Control-Request-Method"));

        call_header(call, STR("Vary"), STR("Origin"));
        call_header(call, STR("Vary"), STR("Access-Control-Request-Method"));
        call_header(call, STR("Vary"), STR("Access-Control-Request-Headers"));
        if (!origin.n || !origin_allowed(c, origin) || !method)
                return;
        call_header(call, STR("Access-Control-Allow-Origin"), c->any_origin ? STR("*") : origin);
        call_header(call, STR("Access-Control-Allow-Methods"), str_of(method));
        list = header_list(call->arena, http_headers_get(&call->http->headers, "Access-Control-Request-Headers"));
        if (list.n)
                call_header(call, STR("Access-Control-Allow-Headers"), list);
}

bool cors_handle(const struct cors *c, struct call *call)
{
        struct str origin;

        if (!c->enabled)
                return false;
        if (str_eqz(call->http->method, "OPTIONS") && http_headers_get(&call->http->headers, "Access-Control-Request-Method").n) {
                preflight(c, call);
                reply_bytes(call, 200, NULL, STR(""), NULL, 0);
                return true;
        }
        call_header(call, STR("Vary"), STR("Origin"));
        origin = http_headers_get(&call->http->headers, "Origin");
        if (origin.n && origin_allowed(c, origin) && method_allowed(call->http->method))
                call_header(call, STR("Access-Control-Allow-Origin"), c->any_origin ? STR("*") : origin);
        return false;
}
