/*
 * JSON reader. It owns nothing but its position and a stack of open brackets; it goes forward only.
 * Invariant: `first` is true exactly when nothing was read yet at the current level, so the next member needs no comma.
 * Once `error` is set every call fails. A value of another type than asked for is no error and is left where it stands.
 */
#include "sdk/base/json.h"

#include <math.h>
#include <stdlib.h>

#include "sdk/base/utf8.h"

static bool fail(struct json_reader *r, const char *why)
{
        if (!r->error) {
                r->error = why;
                r->error_pos = r->pos;
        }
        return false;
}

static int skip_space(struct json_reader *r)
{
        while (r->pos < r->in.n) {
                char c = r->in.p[r->pos];
                if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
                        return (unsigned char)c;
                r->pos++;
        }
        return -1;
}

static bool is_digit(int c)
{
        return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
        if (is_digit(c))
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Value of four hex digits, or -1. */
static long hex4(const char *p, size_t n)
{
        long v = 0;
        if (n < 4)
                return -1;
        for (int i = 0; i < 4; i++) {
                int h = hex_value(p[i]);
                if (h < 0)
                        return -1;
                v = v << 4 | h;
        }
        return v;
}

/* Checks the string that starts at pos and stops behind it. *raw is what stands between the quotes. */
static bool scan_string(struct json_reader *r, struct str *raw, bool *escaped)
{
        const char *p = r->in.p;
        size_t i = r->pos + 1, n = r->in.n, start = i;
        *escaped = false;
        for (;;) {
                while (n - i >= 8 && json_is_plain8(p + i))
                        i += 8;
                r->pos = i;
                if (i >= n)
                        return fail(r, "unexpected end in a string");
                unsigned char c = (unsigned char)p[i];
                if (c == '"')
                        break;
                if (c < 0x20)
                        return fail(r, "control character in a string");
                if (c == '\\') {
                        *escaped = true;
                        if (n - i >= 2 && p[i + 1] && strchr("\"\\/bfnrt", p[i + 1]))
                                i += 2;
                        else if (n - i >= 2 && p[i + 1] == 'u' && hex4(p + i + 2, n - i - 2) >= 0)
                                i += 6;
                        else
                                return fail(r, "invalid escape in a string");
                        continue;
                }
                int len = utf8_char_len(p + i, n - i);
                if (!len)
                        return fail(r, "invalid UTF-8 in a string");
                i += (size_t)len;
        }
        *raw = str_n(p + start, i - start);
        r->pos = i + 1;
        return true;
}

/* One \uXXXX at p, with its second half when it is a surrogate; a lone surrogate gives U+FFFD. Adds the bytes read to *i. */
static uint32_t unescape_u(struct str raw, size_t *i)
{
        uint32_t c = (uint32_t)hex4(raw.p + *i + 2, raw.n - *i - 2);
        *i += 6;
        if (c < 0xd800 || c > 0xdfff)
                return c;
        if (c < 0xdc00 && raw.n - *i >= 6 && raw.p[*i] == '\\' && raw.p[*i + 1] == 'u') {
                long low = hex4(raw.p + *i + 2, raw.n - *i - 2);
                if (low >= 0xdc00 && low <= 0xdfff) {
                        *i += 6;
                        return 0x10000 + ((c - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
                }
        }
        return 0xfffd;
}

static bool unescape(struct arena *a, struct str raw, struct str *out)
{
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        char *p = a ? arena_alloc(a, raw.n + 1) : NULL; /* never longer than its escaped form */
        size_t n = 0;
        if (!p)
                return false;
        for (size_t i = 0; i < raw.n;) {
                if (raw.p[i] != '\\') {
                        p[n++] = raw.p[i++];
                } else if (raw.p[i + 1] == 'u') {
                        n += (size_t)utf8_put(p + n, unescape_u(raw, &i));
                } else {
                        p[n++] = to[strchr(from, raw.p[i + 1]) - from];
                        i += 2;
                }
        }
        p[n] = '\0';
        *out = str_n(p, n);
        return true;
}

static bool scan_number(struct json_reader *r, struct str *token)
{
        const char *p = r->in.p + r->pos, *end = r->in.p + r->in.n, *start = p;
        if (p < end && *p == '-')
                p++;
        if (p < end && *p == '0')
                p++;
        else if (p < end && is_digit(*p))
                while (p < end && is_digit(*p))
                        p++;
        else
                goto bad;
        if (p < end && *p == '.') {
                p++;
                if (p >= end || !is_digit(*p))
                        goto bad;
                while (p < end && is_digit(*p))
                        p++;
        }
        if (p < end && (*p == 'e' || *p == 'E')) {
                p++;
                if (p < end && (*p == '+' || *p == '-'))
                        p++;
                if (p >= end || !is_digit(*p))
                        goto bad;
                while (p < end && is_digit(*p))
                        p++;
        }
        *token = str_n(start, (size_t)(p - start));
        r->pos += token->n;
        return true;
bad:
        r->pos = (size_t)(p - r->in.p);
        return fail(r, "invalid number");
}

static bool scan_word(struct json_reader *r, const char *word)
{
        if (!str_has_prefix(str_skip(r->in, r->pos), str_of(word)))
                return fail(r, "invalid value");
        r->pos += strlen(word);
        return true;
}

static bool push(struct json_reader *r, int bracket)
{
        if (r->depth >= JSON_MAX_DEPTH)
                return fail(r, "nested too deep");
        r->stack[r->depth++] = (uint8_t)bracket;
        r->pos++;
        r->first = true;
        return true;
}

static void pop(struct json_reader *r)
{
        r->depth--;
        r->pos++;
        r->first = false;
}

void json_read_init(struct json_reader *r, struct str in)
{
        r->in = in;
        r->pos = 0;
        r->depth = 0;
        r->first = true;
        r->error = NULL;
        r->error_pos = 0;
}

enum json_type json_peek(struct json_reader *r)
{
        if (r->error)
                return JSON_ERROR;
        int c = skip_space(r);
        if (r->depth == 0 && (c < 0 || !r->first)) {
                if (c < 0)
                        return JSON_END;
                fail(r, "unexpected data after the value");
                return JSON_ERROR;
        }
        switch (c) {
        case '{': return JSON_OBJECT;
        case '[': return JSON_ARRAY;
        case '"': return JSON_STRING;
        case 't': return JSON_TRUE;
        case 'f': return JSON_FALSE;
        case 'n': return JSON_NULL;
        default: break;
        }
        if (c == '-' || is_digit(c))
                return JSON_NUMBER;
        fail(r, c < 0 ? "unexpected end" : "a value was expected");
        return JSON_ERROR;
}

bool json_enter_object(struct json_reader *r)
{
        return json_peek(r) == JSON_OBJECT && push(r, '{');
}

bool json_enter_array(struct json_reader *r)
{
        return json_peek(r) == JSON_ARRAY && push(r, '[');
}

/* To the start of the next member; false at the closing bracket, which is consumed, and on error. */
static bool next_in(struct json_reader *r, int open, int close)
{
        if (r->error || r->depth == 0)
                return false;
        if (r->stack[r->depth - 1] != open)
                return fail(r, "not inside that kind of value");
        int c = skip_space(r);
        if (c == close) {
                pop(r);
                return false;
        }
        if (!r->first) {
                if (c != ',')
                        return fail(r, c < 0 ? "unexpected end" : "a comma or a closing bracket was expected");
                r->pos++;
                c = skip_space(r);
        }
        r->first = false;
        if (c < 0)
                return fail(r, "unexpected end");
        return true;
}

static bool scan_name(struct json_reader *r, struct str *raw, bool *escaped)
{
        if (skip_space(r) != '"')
                return fail(r, "a member name was expected");
        if (!scan_string(r, raw, escaped))
                return false;
        if (skip_space(r) != ':')
                return fail(r, "a colon was expected");
        r->pos++;
        return true;
}

bool json_next_member(struct json_reader *r, struct arena *a, struct str *name)
{
        bool escaped;
        if (!next_in(r, '{', '}') || !scan_name(r, name, &escaped))
                return false;
        return !escaped || unescape(a, *name, name) || fail(r, "out of memory");
}

bool json_next_element(struct json_reader *r)
{
        if (!next_in(r, '[', ']'))
                return false;
        return json_peek(r) != JSON_ERROR; /* refuses "[1,]" here, not at the read that follows */
}

bool json_read_string(struct json_reader *r, struct arena *a, struct str *out)
{
        struct str raw;
        bool escaped;
        if (json_peek(r) != JSON_STRING || !scan_string(r, &raw, &escaped))
                return false;
        if (escaped && !unescape(a, raw, &raw))
                return fail(r, "out of memory");
        r->first = false;
        *out = raw;
        return true;
}

bool json_read_bool(struct json_reader *r, bool *out)
{
        enum json_type t = json_peek(r);
        if ((t != JSON_TRUE && t != JSON_FALSE) || !scan_word(r, t == JSON_TRUE ? "true" : "false"))
                return false;
        r->first = false;
        *out = t == JSON_TRUE;
        return true;
}

bool json_read_null(struct json_reader *r)
{
        if (json_peek(r) != JSON_NULL || !scan_word(r, "null"))
                return false;
        r->first = false;
        return true;
}

/* Exact: sign and magnitude of a number token when it is integral and fits 64 bits. */
static bool token_to_uint64(struct str t, bool *negative, uint64_t *out)
{
        *negative = t.n && t.p[0] == '-';
        size_t i = *negative, mantissa_end = t.n;
        long exponent = 0, point = -1, zeros = 0;
        uint64_t v = 0;
        for (size_t e = i; e < t.n; e++) {
                if ((t.p[e] | 0x20) != 'e')
                        continue;
                mantissa_end = e;
                bool minus = t.p[e + 1] == '-';
                for (size_t k = e + 1 + !is_digit(t.p[e + 1]); k < t.n; k++)
                        if (exponent < 100000000)
                                exponent = exponent * 10 + (t.p[k] - '0');
                exponent = minus ? -exponent : exponent;
                break;
        }
        for (; i < mantissa_end; i++) { /* zeros are held back: they count only when a digit or the exponent asks for them */
                if (t.p[i] == '.') {
                        point = 0;
                        continue;
                }
                if (point >= 0)
                        point++;
                zeros++;
                if (t.p[i] == '0')
                        continue;
                for (; zeros > 0 && v; zeros--)
                        if (__builtin_mul_overflow(v, 10, &v))
                                return false;
                zeros = 0;
                if (__builtin_add_overflow(v, (uint64_t)(t.p[i] - '0'), &v))
                        return false;
        }
        exponent += zeros - (point > 0 ? point : 0);
        *out = v;
        if (v == 0)
                return true;
        if (exponent < 0)
                return false;
        for (; exponent > 0; exponent--)
                if (__builtin_mul_overflow(*out, 10, out))
                        return false;
        return true;
}

bool json_number_to_int64(struct str token, int64_t *out)
{
        bool negative;
        uint64_t v;
        if (!token_to_uint64(token, &negative, &v) || v > (uint64_t)INT64_MAX + negative)
                return false;
        *out = negative ? (int64_t)(0 - v) : (int64_t)v;
        return true;
}

bool json_number_to_uint64(struct str token, uint64_t *out)
{
        bool negative;
        uint64_t v;
        if (!token_to_uint64(token, &negative, &v) || (negative && v))
                return false;
        *out = v;
        return true;
}

bool json_number_to_double(struct str token, double *out)
{
        char small[64], *z = small;
        if (token.n >= sizeof small && !(z = malloc(token.n + 1)))
                return false;
        memcpy(z, token.p, token.n);
        z[token.n] = '\0';
        *out = strtod(z, NULL);
        if (z != small)
                free(z);
        return isfinite(*out);
}

bool json_is_number(struct str s)
{
        struct json_reader r;
        struct str token;
        json_read_init(&r, s);
        return scan_number(&r, &token) && r.pos == s.n;
}

/* The number that stands next, not consumed yet. */
static bool number_ahead(struct json_reader *r, struct str *token)
{
        if (json_peek(r) != JSON_NUMBER || !scan_number(r, token))
                return false;
        r->pos -= token->n;
        return true;
}

static bool consume(struct json_reader *r, struct str token)
{
        r->pos += token.n;
        r->first = false;
        return true;
}

bool json_read_number(struct json_reader *r, struct str *token)
{
        return number_ahead(r, token) && consume(r, *token);
}

bool json_read_int64(struct json_reader *r, int64_t *out)
{
        struct str t;
        return number_ahead(r, &t) && json_number_to_int64(t, out) && consume(r, t);
}

bool json_read_uint64(struct json_reader *r, uint64_t *out)
{
        struct str t;
        return number_ahead(r, &t) && json_number_to_uint64(t, out) && consume(r, t);
}

bool json_read_double(struct json_reader *r, double *out)
{
        struct str t;
        return number_ahead(r, &t) && json_number_to_double(t, out) && consume(r, t);
}

static bool skip_scalar(struct json_reader *r, enum json_type t)
{
        struct str token;
        bool escaped;
        if (t == JSON_STRING)
                return scan_string(r, &token, &escaped);
        if (t == JSON_NUMBER)
                return scan_number(r, &token);
        return scan_word(r, t == JSON_TRUE ? "true" : t == JSON_FALSE ? "false" : "null");
}

bool json_skip(struct json_reader *r)
{
        int base = r->depth;
        enum json_type t = json_peek(r);
        if (t == JSON_END || t == JSON_ERROR)
                return false;
        for (;;) {
                struct str name;
                bool escaped;
                if (t == JSON_OBJECT || t == JSON_ARRAY) {
                        if (!push(r, t == JSON_OBJECT ? '{' : '['))
                                return false;
                } else if (!skip_scalar(r, t)) {
                        return false;
                }
                for (;;) { /* to the next value at or above base */
                        if (r->depth == base) {
                                r->first = false;
                                return true;
                        }
                        bool object = r->stack[r->depth - 1] == '{';
                        if (next_in(r, object ? '{' : '[', object ? '}' : ']')) {
                                if (object && !scan_name(r, &name, &escaped))
                                        return false;
                                break;
                        }
                        if (r->error)
                                return false;
                }
                t = json_peek(r);
                if (t == JSON_ERROR)
                        return false;
        }
}

bool json_read_raw(struct json_reader *r, struct str *out)
{
        skip_space(r);
        size_t start = r->pos;
        if (!json_skip(r))
                return false;
        *out = str_n(r->in.p + start, r->pos - start);
        return true;
}

bool json_at_end(struct json_reader *r)
{
        return !r->error && r->depth == 0 && !r->first && skip_space(r) < 0;
}

bool json_valid(struct str s)
{
        struct json_reader r;
        json_read_init(&r, s);
        return json_skip(&r) && json_at_end(&r);
}
