/* See rpc_wire.h. zlib is known here and in gunzip.c only. Everything here is pure: bytes in, bytes out, errors as results. */
#include "sdk/net/rpc_wire.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <zlib.h>

#include "sdk/base/json.h"

enum { GZIP_WINDOW = 15 + 16, GUNZIP_FIRST_BYTES = 4096, TIMEOUT_DIGITS = 8 };

static const char *const code_names[] = {"OK",           "Canceled",        "Unknown",           "InvalidArgument",
                                         "DeadlineExceeded", "NotFound",    "AlreadyExists",     "PermissionDenied",
                                         "ResourceExhausted", "FailedPrecondition", "Aborted",   "OutOfRange",
                                         "Unimplemented", "Internal",       "Unavailable",       "DataLoss",
                                         "Unauthenticated"};

const char *rpc_code_name(int code)
{
        return code >= 0 && code <= RPC_UNAUTHENTICATED ? code_names[code] : "Unknown";
}

/* ---- frames ---- */

void rpc_frame_put(char out[RPC_FRAME_HEAD], bool compressed, size_t n)
{
        out[0] = compressed;
        out[1] = (char)(n >> 24);
        out[2] = (char)(n >> 16);
        out[3] = (char)(n >> 8);
        out[4] = (char)n;
}

int rpc_frame_get(struct str in, struct rpc_frame *ret)
{
        if (in.n < RPC_FRAME_HEAD)
                return 0;
        const uint8_t *p = (const uint8_t *)in.p;
        if (p[0] > 1)
                return -EBADMSG;
        ret->compressed = p[0];
        ret->n = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
        return 1;
}

/* ---- timeouts ---- */

static const struct {
        char unit;
        double seconds;
} units[] = {{'n', 1e-9}, {'u', 1e-6}, {'m', 1e-3}, {'S', 1}, {'M', 60}, {'H', 3600}};
enum { UNITS = sizeof(units) / sizeof(units[0]), UNIT_MICRO = 1 };

static size_t put_timeout(char *out, uint64_t n, char unit)
{
        char digits[24];
        size_t k = 0, len = 0;
        do
                digits[k++] = (char)('0' + n % 10);
        while (n /= 10);
        while (k)
                out[len++] = digits[--k];
        out[len++] = unit;
        return len;
}

size_t rpc_timeout_format(char out[RPC_TIMEOUT_BYTES], double seconds)
{
        if (!(seconds > 0))
                return put_timeout(out, 0, 'n');
        for (size_t i = UNIT_MICRO; i < UNITS; i++) {
                double n = ceil(seconds / units[i].seconds * (1 - 1e-9)); /* no unit more for a rounding error */
                if (n < 1e8)
                        return put_timeout(out, (uint64_t)n, units[i].unit);
        }
        return put_timeout(out, 99999999, 'H');
}

int rpc_timeout_parse(struct str s, double *ret_seconds)
{
        if (s.n < 2 || s.n > TIMEOUT_DIGITS + 1)
                return -EINVAL;
        double n = 0;
        for (size_t i = 0; i + 1 < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return -EINVAL;
                n = n * 10 + (s.p[i] - '0');
        }
        for (size_t i = 0; i < UNITS; i++) {
                if (s.p[s.n - 1] == units[i].unit) {
                        *ret_seconds = n * units[i].seconds;
                        return 0;
                }
        }
        return -EINVAL;
}

/* ---- texts ---- */

/* HTTP/2 refuses values that begin or end with a space, gRPC does not: such a one is coded. */
static bool is_plain(struct str s, size_t i)
{
        char ch = s.p[i];
        return ch >= ' ' && ch <= '~' && ch != '%' && !(ch == ' ' && (i == 0 || i == s.n - 1));
}

struct str rpc_percent_encode(struct arena *a, struct str s)
{
        static const char hex[] = "0123456789ABCDEF";
        size_t odd = 0;
        for (size_t i = 0; i < s.n; i++)
                odd += !is_plain(s, i);
        if (!odd)
                return s.p ? s : STR("");
        char *p = arena_alloc(a, s.n + 2 * odd), *q = p;
        if (!p)
                return STR_NULL;
        for (size_t i = 0; i < s.n; i++) {
                uint8_t ch = (uint8_t)s.p[i];
                if (is_plain(s, i)) {
                        *q++ = (char)ch;
                        continue;
                }
                *q++ = '%';
                *q++ = hex[ch >> 4];
                *q++ = hex[ch & 15];
        }
        return (struct str){p, (size_t)(q - p)};
}

static int hex_digit(char ch)
{
        if (ch >= '0' && ch <= '9')
                return ch - '0';
        ch |= 0x20;
        return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

struct str rpc_percent_decode(struct arena *a, struct str s)
{
        char *p = arena_alloc(a, s.n + 1), *q = p;
        if (!p)
                return STR_NULL;
        for (size_t i = 0; i < s.n; i++) {
                int hi = s.p[i] == '%' && i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
                int lo = hi >= 0 ? hex_digit(s.p[i + 2]) : -1;
                if (lo >= 0) {
                        *q++ = (char)(hi << 4 | lo);
                        i += 2;
                } else {
                        *q++ = s.p[i];
                }
        }
        *q = '\0';
        return (struct str){p, (size_t)(q - p)};
}

struct str rpc_bin_encode(struct arena *a, struct str s)
{
        char *p = s.n > SIZE_MAX / 4 ? NULL : arena_alloc(a, BASE64_LEN(s.n) + 1);
        if (!p)
                return STR_NULL;
        size_t n = base64_put(p, s);
        while (n && p[n - 1] == '=')
                n--;
        p[n] = '\0';
        return (struct str){p, n};
}

/* ---- metadata ---- */

static const struct str reserved[] = {STR("content-type"),        STR("te"),           STR("grpc-timeout"), STR("grpc-encoding"),
                                      STR("grpc-accept-encoding"), STR("grpc-status"), STR("grpc-message"),
                                      STR("grpc-message-type"),   STR("grpc-status-details-bin"), STR("user-agent"),
                                      STR("connection"),          STR("transfer-encoding"), STR("keep-alive"),
                                      STR("proxy-connection"),    STR("upgrade"),      STR("host")};

static bool in_list(struct str key, const struct str *v, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                if (str_eq(key, v[i]))
                        return true;
        }
        return false;
}

bool rpc_is_reserved(struct str key)
{
        return !key.n || key.p[0] == ':' || in_list(key, reserved, sizeof(reserved) / sizeof(reserved[0]));
}

static bool is_token(struct str key)
{
        for (size_t i = 0; i < key.n; i++) {
                char ch = key.p[i];
                if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '_' || ch == '.'))
                        return false;
        }
        return key.n > 0;
}

static struct str lower(struct arena *a, struct str s)
{
        size_t i = 0;
        while (i < s.n && !(s.p[i] >= 'A' && s.p[i] <= 'Z'))
                i++;
        if (i == s.n)
                return s;
        char *p = arena_strdup(a, s);
        for (; p && i < s.n; i++)
                p[i] = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] + 32) : p[i];
        return p ? (struct str){p, s.n} : STR_NULL;
}

static bool is_printable(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < ' ' || s.p[i] > '~')
                        return false;
        }
        return true;
}

int rpc_md_to_headers(struct arena *a, const struct rpc_md *md, size_t n, struct http_header *out, size_t *ret_n)
{
        for (size_t i = 0; i < n; i++) {
                struct str key = lower(a, md[i].key), value = md[i].value;
                if (!key.p && md[i].key.n)
                        return -ENOMEM;
                if (rpc_is_reserved(key) || !is_token(key))
                        continue;
                if (str_has_suffix(key, STR("-bin")))
                        value = rpc_bin_encode(a, value);
                else if (!is_printable(value))
                        continue;
                else
                        value = str_trim(value);
                if (!value.p && value.n)
                        return -ENOMEM;
                out[(*ret_n)++] = (struct http_header){key, value.p ? value : STR("")};
        }
        return 0;
}

int rpc_md_add(struct rpc_mdlist *l, struct arena *a, struct str key, struct str value)
{
        if (l->n == l->cap) {
                size_t cap = l->cap ? l->cap * 2 : 8;
                struct rpc_md *v = arena_grow(a, l->v, l->cap * sizeof(*v), cap * sizeof(*v));
                if (!v)
                        return -ENOMEM;
                l->v = v;
                l->cap = cap;
        }
        l->v[l->n++] = (struct rpc_md){key, value};
        return 0;
}

struct str rpc_md_get(const struct rpc_mdlist *l, const char *key)
{
        struct str k = str_of(key);
        for (size_t i = 0; i < l->n; i++) {
                if (str_eq(l->v[i].key, k))
                        return l->v[i].value;
        }
        return STR_NULL;
}

int rpc_md_from_headers(struct arena *a, const struct http_headers *h, bool keep, struct rpc_mdlist *out)
{
        static const struct str seen[] = {STR("user-agent"), STR("content-type"), STR("grpc-accept-encoding")};
        for (size_t i = 0; i < h->n; i++) {
                struct str key = h->v[i].name, value = h->v[i].value;
                if (rpc_is_reserved(key) && !in_list(key, seen, 3))
                        continue;
                if (keep)
                        key = arena_str(a, key);
                if (str_has_suffix(key, STR("-bin"))) {
                        struct str raw = base64_decode(a, value);
                        value = raw.p ? raw : keep ? arena_str(a, value) : value;
                } else if (keep) {
                        value = arena_str(a, value);
                }
                if (!key.p || !value.p || rpc_md_add(out, a, key, value))
                        return -ENOMEM;
        }
        return 0;
}

/* ---- gzip ---- */

struct str rpc_gzip(struct arena *a, struct str s)
{
        z_stream z = {0};
        if (s.n > UINT32_MAX || deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
                return STR_NULL;
        size_t cap = deflateBound(&z, s.n);
        char *p = arena_alloc(a, cap);
        struct str r = STR_NULL;
        if (p) {
                z.next_in = (Bytef *)s.p;
                z.avail_in = (uInt)s.n;
                z.next_out = (Bytef *)p;
                z.avail_out = (uInt)cap;
                if (deflate(&z, Z_FINISH) == Z_STREAM_END)
                        r = (struct str){p, cap - z.avail_out};
        }
        deflateEnd(&z);
        return r;
}

static int inflate_all(z_stream *z, struct arena *a, size_t max, struct str *ret)
{
        size_t cap = GUNZIP_FIRST_BYTES < max ? GUNZIP_FIRST_BYTES : max + 1, n = 0;
        char *p = arena_alloc(a, cap);
        for (;;) {
                if (!p)
                        return -ENOMEM;
                z->next_out = (Bytef *)p + n;
                z->avail_out = (uInt)(cap - n);
                int r = inflate(z, Z_NO_FLUSH);
                n = cap - z->avail_out;
                if (n > max)
                        return -EMSGSIZE;
                if (r == Z_STREAM_END) {
                        *ret = (struct str){p, n};
                        return z->avail_in ? -EBADMSG : 0;
                }
                if (r != Z_OK || z->avail_out)
                        return -EBADMSG;
                size_t more = cap < max - cap ? cap * 2 : max + 1;
                p = arena_grow(a, p, cap, more);
                cap = more;
        }
}

int rpc_gunzip(struct arena *a, struct str s, int64_t max, struct str *ret)
{
        z_stream z = {0};
        size_t limit = max < 0 || max > INT32_MAX ? INT32_MAX : (size_t)max;
        if (s.n > UINT32_MAX || inflateInit2(&z, GZIP_WINDOW) != Z_OK)
                return -ENOMEM;
        z.next_in = (Bytef *)s.p;
        z.avail_in = (uInt)s.n;
        int r = inflate_all(&z, a, limit, ret);
        inflateEnd(&z);
        return r;
}

/* ---- codes ---- */

bool rpc_is_grpc_content(struct str t)
{
        const struct str base = STR("application/grpc");
        return str_has_prefix(t, base) && (t.n == base.n || t.p[base.n] == '+' || t.p[base.n] == ';');
}

int rpc_code_of_http(int status)
{
        switch (status) {
        case 400:
                return RPC_INTERNAL;
        case 401:
                return RPC_UNAUTHENTICATED;
        case 403:
                return RPC_PERMISSION_DENIED;
        case 404:
                return RPC_UNIMPLEMENTED;
        case 429:
        case 502:
        case 503:
        case 504:
                return RPC_UNAVAILABLE;
        default:
                return RPC_UNKNOWN;
        }
}

int rpc_code_of_rst(uint32_t code, const char **ret_name)
{
        static const struct {
                const char *name;
                int code;
        } rows[] = {{"NO_ERROR", RPC_INTERNAL},
                    {"PROTOCOL_ERROR", RPC_INTERNAL},
                    {"INTERNAL_ERROR", RPC_INTERNAL},
                    {"FLOW_CONTROL_ERROR", RPC_RESOURCE_EXHAUSTED},
                    {"SETTINGS_TIMEOUT", RPC_INTERNAL},
                    {"STREAM_CLOSED", RPC_INTERNAL},
                    {"FRAME_SIZE_ERROR", RPC_INTERNAL},
                    {"REFUSED_STREAM", RPC_UNAVAILABLE},
                    {"CANCEL", RPC_CANCELLED},
                    {"COMPRESSION_ERROR", RPC_INTERNAL},
                    {"CONNECT_ERROR", RPC_INTERNAL},
                    {"ENHANCE_YOUR_CALM", RPC_RESOURCE_EXHAUSTED},
                    {"INADEQUATE_SECURITY", RPC_PERMISSION_DENIED},
                    {"HTTP_1_1_REQUIRED", RPC_INTERNAL}};
        bool known = code < sizeof(rows) / sizeof(rows[0]);
        *ret_name = known ? rows[code].name : "unknown error code";
        return known ? rows[code].code : RPC_UNKNOWN;
}

int rpc_code_of_errno(int err)
{
        switch (err) {
        case -ECANCELED:
                return RPC_CANCELLED;
        case -ETIMEDOUT:
                return RPC_DEADLINE_EXCEEDED;
        case -ENOMEM:
                return RPC_RESOURCE_EXHAUSTED;
        default:
                return RPC_INTERNAL;
        }
}

void rpc_status_set(struct rpc_status *st, struct arena *a, int code, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        char *p = arena_vprintf(a, fmt, ap);
        va_end(ap);
        *st = (struct rpc_status){.code = code, .message = p ? str_of(p) : STR("out of memory")};
}
