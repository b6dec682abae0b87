/* Headers, status texts and URL helpers: what HTTP/1 and HTTP/2, server and client share. No I/O here. */
#include <errno.h>

#include "sdk/net/http.h"

enum { HEADERS_FIRST = 16 };

int http_headers_add(struct http_headers *h, struct arena *a, struct str name, struct str value)
{
        if (h->n == h->cap) {
                size_t cap = h->cap ? h->cap * 2 : HEADERS_FIRST;
                struct http_header *v = arena_alloc(a, cap * sizeof(*v));
                if (!v)
                        return -ENOMEM;
                if (h->n)
                        memcpy(v, h->v, h->n * sizeof(*v));
                h->v = v;
                h->cap = cap;
        }
        h->v[h->n++] = (struct http_header){name, value};
        return 0;
}

struct str http_headers_get(const struct http_headers *h, const char *name)
{
        struct str s = str_of(name);
        for (size_t i = 0; i < h->n; i++)
                if (str_ieq(h->v[i].name, s))
                        return h->v[i].value.p ? h->v[i].value : STR("");
        return STR_NULL;
}

void http_headers_remove(struct http_headers *h, const char *name)
{
        struct str s = str_of(name);
        size_t n = 0;
        for (size_t i = 0; i < h->n; i++)
                if (!str_ieq(h->v[i].name, s))
                        h->v[n++] = h->v[i];
        h->n = n;
}

bool http_value_has_token(struct str value, const char *token)
{
        for (struct str rest = value, t; rest.p && (t = str_cut(&rest, ','), 1);)
                if (str_ieq(str_trim(t), str_of(token)))
                        return true;
        return false;
}

/* Texts as Go's net/http has them. */
static const char *const status_1xx[] = {"Continue", "Switching Protocols", "Processing", "Early Hints"};
static const char *const status_2xx[] = {
        "OK", "Created", "Accepted", "Non-Authoritative Information", "No Content", "Reset Content", "Partial Content",
        "Multi-Status", "Already Reported", [26] = "IM Used",
};
static const char *const status_3xx[] = {
        "Multiple Choices", "Moved Permanently", "Found", "See Other", "Not Modified", "Use Proxy", NULL,
        "Temporary Redirect", "Permanent Redirect",
};
static const char *const status_4xx[] = {
        "Bad Request", "Unauthorized", "Payment Required", "Forbidden", "Not Found", "Method Not Allowed",
        "Not Acceptable", "Proxy Authentication Required", "Request Timeout", "Conflict", "Gone", "Length Required",
        "Precondition Failed", "Request Entity Too Large", "Request URI Too Long", "Unsupported Media Type",
        "Requested Range Not Satisfiable", "Expectation Failed", "I'm a teapot", [21] = "Misdirected Request",
        "Unprocessable Entity", "Locked", "Failed Dependency", "Too Early", "Upgrade Required",
        [28] = "Precondition Required", "Too Many Requests", [31] = "Request Header Fields Too Large",
        [51] = "Unavailable For Legal Reasons",
};
static const char *const status_5xx[] = {
        "Internal Server Error", "Not Implemented", "Bad Gateway", "Service Unavailable", "Gateway Timeout",
        "HTTP Version Not Supported", "Variant Also Negotiates", "Insufficient Storage", "Loop Detected",
        [10] = "Not Extended", "Network Authentication Required",
};
static const struct {
        const char *const *text;
        int n;
} status_texts[] = {
#define ROW(a) {a, sizeof(a) / sizeof(*a)}
        ROW(status_1xx), ROW(status_2xx), ROW(status_3xx), ROW(status_4xx), ROW(status_5xx),
#undef ROW
};

const char *http_status_text(int status)
{
        int group = status / 100 - 1, i = status % 100;
        if (status < 100 || group > 4 || i >= status_texts[group].n || !status_texts[group].text[i])
                return "";
        return status_texts[group].text[i];
}

/* ---- URLs ---- */

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

struct str url_unescape(struct arena *a, struct str s, bool plus_is_space)
{
        if (str_chr(s, '%') < 0 && (!plus_is_space || str_chr(s, '+') < 0))
                return s.p ? s : STR("");
        char *to = arena_alloc(a, s.n + 1);
        size_t n = 0;
        if (!to)
                return STR_NULL;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] == '%') {
                        int hi = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1, lo = hi >= 0 ? hex_digit(s.p[i + 2]) : -1;
                        if (lo < 0)
                                return STR_NULL;
                        to[n++] = (char)(hi << 4 | lo);
                        i += 2;
                } else {
                        to[n++] = s.p[i] == '+' && plus_is_space ? ' ' : s.p[i];
                }
        }
        to[n] = '\0';
        return str_n(to, n);
}

static bool is_unreserved(unsigned char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' ||
               c == '~';
}

static bool is_kept(char c, const char *keep)
{
        return is_unreserved((unsigned char)c) || (c && strchr(keep, c));
}

static struct str escape_all_but(struct arena *a, struct str s, const char *keep)
{
        static const char hex[] = "0123456789ABCDEF";
        size_t n = 0;
        for (size_t i = 0; i < s.n; i++)
                n += is_kept(s.p[i], keep) ? 1 : 3;
        if (n == s.n)
                return s.p ? s : STR("");
        char *to = arena_alloc(a, n + 1);
        if (!to)
                return STR_NULL;
        n = 0;
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if (is_kept(s.p[i], keep)) {
                        to[n++] = (char)c;
                } else {
                        to[n++] = '%';
                        to[n++] = hex[c >> 4];
                        to[n++] = hex[c & 15];
                }
        }
        to[n] = '\0';
        return str_n(to, n);
}

struct str url_escape(struct arena *a, struct str s)
{
        return escape_all_but(a, s, "");
}

struct str url_escape_path(struct arena *a, struct str s)
{
        return escape_all_but(a, s, "/:@$&+,;=");
}

struct str path_clean(struct arena *a, struct str path)
{
        if (!path.n)
                return STR(".");
        bool rooted = path.p[0] == '/';
        char *to = arena_alloc(a, path.n + 2);
        size_t n = 0, floor; /* below floor nothing is taken back by ".." */
        if (!to)
                return STR_NULL;
        if (rooted)
                to[n++] = '/';
        floor = n;
        for (struct str rest = path, el; rest.p && (el = str_cut(&rest, '/'), 1);) {
                if (!el.n || str_eq(el, STR(".")))
                        continue;
                if (str_eq(el, STR(".."))) {
                        if (n > floor) {
                                while (n > floor && to[n - 1] != '/')
                                        n--;
                                if (n > floor)
                                        n--; /* the slash before it */
                        } else if (!rooted) {
                                if (n)
                                        to[n++] = '/';
                                to[n++] = '.';
                                to[n++] = '.';
                                floor = n;
                        }
                        continue;
                }
                if (n > (rooted ? 1u : 0u))
                        to[n++] = '/';
                memcpy(to + n, el.p, el.n);
                n += el.n;
        }
        if (!n)
                to[n++] = '.';
        to[n] = '\0';
        return str_n(to, n);
}

bool query_next(struct arena *a, struct str *rest, struct str *key, struct str *value)
{
        while (rest->p && rest->n) {
                struct str pair = str_cut(rest, '&'), v = pair, k;
                if (!pair.n || str_chr(pair, ';') >= 0)
                        continue;
                k = url_unescape(a, str_cut(&v, '='), true);
                v = v.p ? url_unescape(a, v, true) : STR("");
                if (!k.p || !v.p)
                        continue;
                *key = k;
                *value = v;
                return true;
        }
        return false;
}
