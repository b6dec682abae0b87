/* scheme://[user[:password]@]host[:port][/path][?query][#fragment], as far as HTTP requests need it (RFC 3986). */
#include "plugins/bindings.http/url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/net/http.h"

static int wrong(struct arena *a, const char **ret_err, struct str text, const char *why)
{
        *ret_err = arena_printf(a, "parse \"%.*s\": %s", STR_FMT(text), why);
        return *ret_err ? -EINVAL : -ENOMEM;
}

/* Bytes that cannot stand in a request line are escaped. */
static const char *escape(struct arena *a, struct str s)
{
        static const char hex[] = "0123456789ABCDEF";
        char *to = arena_alloc(a, 3 * s.n + 1), *p = to;

        for (size_t i = 0; to && i < s.n; i++) {
                unsigned char ch = (unsigned char)s.p[i];
                if (ch <= ' ' || ch >= 0x7f || ch == '"' || ch == '<' || ch == '>') {
                        *p++ = '%';
                        *p++ = hex[ch >> 4];
                        *p++ = hex[ch & 15];
                } else
                        *p++ = (char)ch;
        }
        if (to)
                *p = '\0';
        return to;
}

static int read_authority(struct url *u, struct arena *a, struct str s, struct str text, const char **ret_err)
{
        ptrdiff_t at = -1, colon;
        struct str port = STR_NULL;
        char *end;

        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] == '@')
                        at = (ptrdiff_t)i;
        if (at >= 0) {
                u->user = url_unescape(a, str_n(s.p, (size_t)at), false);
                s = str_skip(s, (size_t)at + 1);
                if (!u->user.p)
                        return wrong(a, ret_err, text, "net/url: invalid userinfo");
        }
        if (s.n && s.p[0] == '[') {
                ptrdiff_t close = str_chr(s, ']');
                if (close < 0)
                        return wrong(a, ret_err, text, "missing ']' in host");
                u->host = str_n(s.p + 1, (size_t)close - 1);
                port = str_skip(s, (size_t)close + 1);
        } else {
                colon = str_chr(s, ':');
                u->host = colon < 0 ? s : str_n(s.p, (size_t)colon);
                port = colon < 0 ? STR("") : str_skip(s, (size_t)colon);
        }
        if (!u->host.n)
                return wrong(a, ret_err, text, "http: no Host in request URL");
        if (port.n && port.p[0] != ':')
                return wrong(a, ret_err, text, "invalid port after host");
        port = str_skip(port, 1);
        const char *digits = arena_strdup(a, port.n ? port : u->https ? STR("443") : STR("80"));
        long number = digits ? strtol(digits, &end, 10) : 1;
        if (digits && (*end || number < 1 || number > 65535))
                return wrong(a, ret_err, text, "invalid port after host");
        bool v6 = str_chr(u->host, ':') >= 0;
        u->target = digits ? arena_printf(a, v6 ? "[%.*s]:%s" : "%.*s:%s", STR_FMT(u->host), digits) : NULL;
        bool usual = number == (u->https ? 443 : 80);
        const char *authority = usual ? arena_printf(a, v6 ? "[%.*s]" : "%.*s", STR_FMT(u->host)) : u->target;
        u->authority = str_of(authority);
        return u->target && authority ? 0 : -ENOMEM;
}

int url_parse(struct url *u, struct arena *a, struct str text, const char **ret_err)
{
        struct str rest = text, authority;
        size_t n = 0;
        int r;

        *u = (struct url){0};
        if (str_has_prefix(text, STR("https://")) || str_has_prefix(text, STR("HTTPS://")))
                u->https = true;
        else if (!str_has_prefix(text, STR("http://")) && !str_has_prefix(text, STR("HTTP://")))
                return wrong(a, ret_err, text, "unsupported protocol scheme");
        rest = str_skip(rest, u->https ? 8 : 7);
        while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?' && rest.p[n] != '#')
                n++;
        authority = str_n(rest.p, n);
        rest = str_skip(rest, n);
        if (str_chr(rest, '#') >= 0)
                rest.n = (size_t)str_chr(rest, '#');
        r = read_authority(u, a, authority, text, ret_err);
        if (r)
                return r;
        const char *path = escape(a, rest);
        u->path = path && path[0] != '/' ? arena_printf(a, "/%s", path) : path;
        return u->path ? 0 : -ENOMEM;
}

const char *url_resolve(const struct url *u, struct arena *a, struct str location)
{
        const char *scheme = u->https ? "https" : "http";
        struct str path = str_of(u->path);

        if (str_find(location, STR("://")) > 0)
                return arena_strdup(a, location);
        if (str_has_prefix(location, STR("//")))
                return arena_printf(a, "%s:%.*s", scheme, STR_FMT(location));
        if (str_has_prefix(location, STR("/")))
                return arena_printf(a, "%s://%.*s%.*s", scheme, STR_FMT(u->authority), STR_FMT(location));
        if (str_chr(path, '?') >= 0)
                path.n = (size_t)str_chr(path, '?');
        if (location.n && location.p[0] != '?')
                while (path.n && path.p[path.n - 1] != '/')
                        path.n--;
        return arena_printf(a, "%s://%.*s%.*s%.*s", scheme, STR_FMT(u->authority), STR_FMT(path), STR_FMT(location));
}
