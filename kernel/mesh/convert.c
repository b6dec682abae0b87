/*
 * The lists of names are those of the reference: which headers HTTP defines is a list of 2016 there, and clients rely on it.
 */
#include "kernel/mesh/convert.h"

#include <errno.h>
#include <stdio.h>

#include "sdk/base/json.h"

const char *const convert_verbs[CONVERT_VERBS] = {"", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

int convert_verb(struct str name)
{
        for (int i = 1; i < CONVERT_VERBS; i++)
                if (str_ieq(name, str_of(convert_verbs[i])))
                        return i;
        return CONVERT_POST;
}

/* ---- which headers ---- */

static bool is_listed(struct str name, const char *const *list)
{
        for (; *list; list++)
                if (str_ieq(name, str_of(*list)))
                        return true;
        return false;
}

static bool is_of_hop(struct str name)
{
        static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te",
                                            "trailer", "transfer-encoding", "upgrade", "host", "http2-settings", NULL};
        static const char first[] = "ckpthu";

        return name.n && strchr(first, name.p[0] | 0x20) && is_listed(name, names);
}

static bool is_named_by(struct str connection, struct str name)
{
        while (connection.p)
                if (str_ieq(str_trim(str_cut(&connection, ',')), name))
                        return true;
        return false;
}

int64_t convert_length(struct str s)
{
        int64_t n = 0;

        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9' || i > 17)
                        return -1;
                n = n * 10 + (s.p[i] - '0');
        }
        return s.n ? n : -1;
}

bool convert_is_hop_by_hop(struct str name, struct str connection)
{
        return is_of_hop(name) || str_ieq(name, STR("content-length")) || is_named_by(connection, name);
}

static bool is_traced(struct str name)
{
        static const char *const names[] = {"traceparent", "tracestate", "grpc-trace-bin", "destination-app-id", NULL};

        return is_listed(name, names);
}

/* Headers that HTTP defines (the IANA's permanent ones). */
static bool is_permanent(struct str name)
{
        static const char *const names[] = {"accept", "accept-charset", "accept-language", "accept-ranges", "connection", "keep-alive",
                                            "proxy-connection", "transfer-encoding", "upgrade", "cache-control", "content-type",
                                            "content-length", "cookie", "date", "expect", "from", "host", "if-match", "if-modified-since",
                                            "if-none-match", "if-schedule-tag-match", "if-unmodified-since", "max-forwards", "origin",
                                            "pragma", "referer", "via", "warning", NULL};

        return is_listed(name, names);
}

static bool is_binary(struct str name)
{
        return str_has_suffix(name, STR("-bin"));
}

/* What becomes of a name on the way to an HTTP peer: binary metadata stay behind, names of the gRPC wire are marked. 1 = kept. */
static int name_for_http(struct arena *a, struct str *name)
{
        struct str n = *name;

        if (n.n >= 4 && str_ieq(str_n(n.p + n.n - 4, 4), STR("-bin")))
                return 0;
        if (n.n && n.p[0] == ':')
                *name = str_of(arena_printf(a, "dapr-%.*s", STR_FMT(str_skip(n, 1))));
        else if (n.n >= 5 && str_ieq(str_n(n.p, 5), STR("grpc-")))
                *name = str_of(arena_printf(a, "dapr-%.*s", STR_FMT(n)));
        return name->p ? 1 : -ENOMEM;
}

int convert_http_to_http(struct arena *a, const struct http_headers *from, struct http_headers *to)
{
        struct str connection = http_headers_get(from, "Connection");

        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name;
                bool stays = convert_is_hop_by_hop(name, connection) || str_ieq(name, STR("destination-app-id"));
                int kept = stays ? 0 : name_for_http(a, &name);
                if (kept < 0 || (kept && http_headers_add(to, a, name, from->v[i].value)))
                        return -ENOMEM;
        }
        return 0;
}

/* ---- HTTP and gRPC ---- */

int convert_http_to_md(struct arena *a, const struct http_headers *from, bool is_response, struct rpc_mdlist *to)
{
        struct str connection = is_response ? http_headers_get(from, "Connection") : STR_NULL;

        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name;
                char *key;
                if (is_traced(name) || str_ieq(name, STR("host")) || (is_response && convert_is_hop_by_hop(name, connection)))
                        continue;
                key = arena_printf(a, "%s%.*s", is_permanent(name) ? "dapr-" : "", STR_FMT(name));
                if (!key)
                        return -ENOMEM;
                for (char *p = key; *p; p++)
                        if (*p >= 'A' && *p <= 'Z')
                                *p = (char)(*p - 'A' + 'a');
                if (rpc_md_add(to, a, str_of(key), from->v[i].value))
                        return -ENOMEM;
        }
        return 0;
}

int convert_md_to_http(struct arena *a, const struct rpc_mdlist *from, struct http_headers *to)
{
        struct str connection = rpc_md_get(from, "connection");

        for (size_t i = 0; i < from->n; i++) {
                struct str key = from->v[i].key;
                if (is_traced(key) || convert_is_hop_by_hop(key, connection) || str_eqz(key, "content-type"))
                        continue;
                int kept = name_for_http(a, &key);
                if (kept < 0 || (kept && http_headers_add(to, a, key, from->v[i].value)))
                        return -ENOMEM;
        }
        return 0;
}

/* ---- between sidecars ---- */

/* As net/http writes names: upper case at the start and behind each hyphen. */
static struct str canonical(struct arena *a, struct str name)
{
        bool upper = true;
        char *p = NULL;

        for (size_t i = 0; i < name.n; i++) {
                char ch = name.p[i], want = ch;
                if (upper && ch >= 'a' && ch <= 'z')
                        want = (char)(ch - 'a' + 'A');
                else if (!upper && ch >= 'A' && ch <= 'Z')
                        want = (char)(ch - 'A' + 'a');
                upper = ch == '-';
                if (want == ch)
                        continue;
                if (!p && !(p = arena_strdup(a, name)))
                        return STR_NULL;
                p[i] = want;
        }
        return p ? str_n(p, name.n) : name;
}

int convert_http_to_internal(struct arena *a, const struct http_headers *from, struct http_headers *to)
{
        struct str connection = http_headers_get(from, "Connection");

        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name;
                if (is_of_hop(name) || is_named_by(connection, name))
                        continue;
                name = canonical(a, name);
                if (!name.p || http_headers_add(to, a, name, from->v[i].value))
                        return -ENOMEM;
        }
        return 0;
}

int convert_md_to_internal(struct arena *a, const struct rpc_mdlist *from, struct http_headers *to)
{
        for (size_t i = 0; i < from->n; i++) {
                struct str value = from->v[i].value;
                if (is_binary(from->v[i].key))
                        value = base64_encode(a, value);
                if (!value.p || http_headers_add(to, a, from->v[i].key, value))
                        return -ENOMEM;
        }
        return 0;
}

/* A peer's words are not to break out of their line. */
static bool is_sendable(struct str value)
{
        for (size_t i = 0; i < value.n; i++)
                if (value.p[i] == '\r' || value.p[i] == '\n' || value.p[i] == '\0')
                        return false;
        return true;
}

int convert_internal_to_http(struct arena *a, const struct http_headers *from, struct http_headers *to)
{
        struct str connection = http_headers_get(from, "connection");

        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name, value = from->v[i].value;
                if (str_ieq(name, STR("destination-app-id")))
                        continue;
                if (convert_is_hop_by_hop(name, connection) || str_ieq(name, STR("content-type")) || !is_sendable(value))
                        continue;
                int kept = name_for_http(a, &name);
                if (kept < 0 || (kept && http_headers_add(to, a, name, value)))
                        return -ENOMEM;
        }
        return 0;
}

/* The name in metadata: HTTP's own headers are told by their canonical case. NULL = no memory. */
static const char *md_key(struct arena *a, struct str name)
{
        bool permanent = name.n && name.p[0] >= 'A' && name.p[0] <= 'Z' && is_permanent(name);
        char *key = arena_printf(a, "%s%.*s", permanent ? "dapr-" : "", STR_FMT(name));

        for (char *p = key; p && *p; p++)
                if (*p >= 'A' && *p <= 'Z')
                        *p = (char)(*p - 'A' + 'a');
        return key;
}

int convert_internal_to_md(struct arena *a, const struct http_headers *from, struct rpc_mdlist *to)
{
        for (size_t i = 0; i < from->n; i++) {
                struct str name = from->v[i].name, value = from->v[i].value;
                if (is_traced(name) || !is_sendable(value))
                        continue;
                if (is_binary(name) && !(value = base64_decode(a, value)).p)
                        continue;
                const char *key = md_key(a, name);
                if (!key || rpc_md_add(to, a, str_of(key), value))
                        return -ENOMEM;
        }
        return 0;
}

/* ---- methods ---- */

/* As Go's %q writes it, for the characters that make a method bad and those beside them. */
static const char *quoted(struct arena *a, struct str s)
{
        char *p = arena_alloc(a, s.n * 4 + 3), *w = p;

        if (!p)
                return "\"\"";
        *w++ = '"';
        for (size_t i = 0; i < s.n; i++) {
                unsigned char ch = (unsigned char)s.p[i];
                const char *short_form = ch >= 7 && ch <= 13 ? &"a\0b\0t\0n\0v\0f\0r"[(ch - 7) * 2] : NULL;
                if (ch == '"' || ch == '\\')
                        *w++ = '\\', *w++ = (char)ch;
                else if (short_form)
                        *w++ = '\\', *w++ = *short_form;
                else if (ch < ' ' || ch == 0x7f)
                        w += snprintf(w, 5, "\\x%02x", ch);
                else
                        *w++ = (char)ch;
        }
        memcpy(w, "\"", 2);
        return p;
}

struct str convert_method(struct arena *a, struct str method, const char **ret_err)
{
        struct str clean;

        *ret_err = "out of memory";
        for (size_t i = 0; i < method.n; i++) {
                if (method.p[i] && !strchr("#?", method.p[i]))
                        continue;
                *ret_err = arena_printf(a, "method contains forbidden character: %s", quoted(a, method));
                return STR_NULL;
        }
        for (size_t i = 0; i < method.n; i++) {
                if ((unsigned char)method.p[i] >= ' ' && method.p[i] != 0x7f)
                        continue;
                *ret_err = arena_printf(a, "method contains control character at position %zu: %s", i, quoted(a, method));
                return STR_NULL;
        }
        clean = path_clean(a, method);
        while (str_has_prefix(clean, STR("../")))
                clean = str_skip(clean, 3);
        return str_eqz(clean, "..") || str_eqz(clean, ".") ? STR("") : clean;
}

static bool is_hex(char c)
{
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Offset of a % that begins no escape, or -1. */
static ptrdiff_t bad_escape(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] == '%' && !(i + 2 < s.n && is_hex(s.p[i + 1]) && is_hex(s.p[i + 2])))
                        return (ptrdiff_t)i;
        return -1;
}

/* Brackets stay when nothing else needs an escape, as net/url has it. */
static bool is_as_sent(struct str path, const char *plain)
{
        for (size_t i = 0; i < path.n; i++) {
                char b = path.p[i];
                bool alnum = (b >= '0' && b <= '9') || (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z');
                if (!alnum && b != '[' && b != ']' && !(b && strchr(plain, b)))
                        return false;
        }
        return true;
}

struct str convert_path(struct arena *a, const char *base, struct str method, struct str query, const char **ret_err)
{
        static const char always[] = "-._~!$&'()*+,;=:@/%";
        const char *plain = is_as_sent(method, always) ? "-._~!$&'()*+,;=:@/%[]" : always;
        static const char hex[] = "0123456789ABCDEF";
        ptrdiff_t bad = bad_escape(method);
        char *p = arena_alloc(a, 1 + method.n * 3 + 1 + query.n), *w = p;

        *ret_err = "out of memory";
        if (!p)
                return STR_NULL;
        if (bad >= 0) {
                struct str rest = str_skip(method, (size_t)bad);
                rest.n = rest.n < 3 ? rest.n : 3;
                *ret_err = arena_printf(a, "parse %s: invalid URL escape \"%.*s\"",
                                        quoted(a, str_of(arena_printf(a, "%s%s%.*s", base, method.p[0] == '/' ? "" : "/", STR_FMT(method)))), STR_FMT(rest));
                return STR_NULL;
        }
        *w++ = '/';
        for (size_t i = method.n && method.p[0] == '/'; i < method.n; i++) {
                unsigned char b = (unsigned char)method.p[i];
                bool alnum = (b >= '0' && b <= '9') || (b >= 'A' && b <= 'Z') || (b >= 'a' && b <= 'z');
                if (alnum || (b && strchr(plain, b))) {
                        *w++ = (char)b;
                } else {
                        *w++ = '%';
                        *w++ = hex[b >> 4];
                        *w++ = hex[b & 15];
                }
        }
        if (query.n) {
                *w++ = '?';
                memcpy(w, query.p, query.n);
                w += query.n;
        }
        return str_n(p, (size_t)(w - p));
}
