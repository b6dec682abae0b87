/*
 * JSON writer: text goes straight into a buf, whose `failed` flag is the only error. Runs of plain characters are copied whole.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/json.h"
#include "sdk/base/utf8.h"

void json_write_init(struct json_writer *w, struct buf *out)
{
        *w = (struct json_writer){.out = out};
}

static void separate(struct json_writer *w)
{
        if (w->need_comma)
                buf_addc(w->out, ',');
        w->need_comma = true;
}

static void open_bracket(struct json_writer *w, char c)
{
        separate(w);
        buf_addc(w->out, c);
        w->depth++;
        w->need_comma = false;
}

static void close_bracket(struct json_writer *w, char c)
{
        buf_addc(w->out, c);
        w->depth--;
        w->need_comma = true;
}

void json_object_begin(struct json_writer *w)
{
        open_bracket(w, '{');
}

void json_object_end(struct json_writer *w)
{
        close_bracket(w, '}');
}

void json_array_begin(struct json_writer *w)
{
        open_bracket(w, '[');
}

void json_array_end(struct json_writer *w)
{
        close_bracket(w, ']');
}

struct escape {
        char text[6];
        size_t n;    /* 0: the character stands as it is */
        size_t done; /* its bytes */
};

/* What to write for the character at p, which is a control, a quote, a backslash or not ASCII. */
static struct escape escape(const char *p, size_t n)
{
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
        unsigned char c = (unsigned char)*p;
        const char *at = c ? strchr(from, c) : NULL;
        if (at)
                return (struct escape){{'\\', to[at - from]}, 2, 1};
        if (c < 0x20)
                return (struct escape){{'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6, 1};
        int len = utf8_char_len(p, n);
        if (len == 0)
                return (struct escape){"\\ufffd", 6, 1};
        if (len == 3 && memcmp(p, "\xe2\x80\xa8", 3) == 0) /* line separators end a line in JavaScript */
                return (struct escape){"\\u2028", 6, 3};
        if (len == 3 && memcmp(p, "\xe2\x80\xa9", 3) == 0)
                return (struct escape){"\\u2029", 6, 3};
        return (struct escape){{0}, 0, (size_t)len};
}

static void quote(struct buf *out, struct str s)
{
        size_t i = 0, plain = 0; /* [plain, i) is still to be copied */
        buf_addc(out, '"');
        while (i < s.n) {
                if (s.n - i >= 8 && json_is_plain8(s.p + i)) {
                        i += 8;
                        continue;
                }
                unsigned char c = (unsigned char)s.p[i];
                if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
                        i++;
                        continue;
                }
                struct escape e = escape(s.p + i, s.n - i);
                if (e.n) {
                        buf_add(out, s.p + plain, i - plain);
                        buf_add(out, e.text, e.n);
                        plain = i + e.done;
                }
                i += e.done;
        }
        if (i > plain)
                buf_add(out, s.p + plain, i - plain);
        buf_addc(out, '"');
}

void json_key(struct json_writer *w, struct str name)
{
        separate(w);
        quote(w->out, name);
        buf_addc(w->out, ':');
        w->need_comma = false;
}

void json_string(struct json_writer *w, struct str s)
{
        separate(w);
        quote(w->out, s);
}

void json_raw(struct json_writer *w, struct str s)
{
        separate(w);
        buf_adds(w->out, s);
}

void json_bool(struct json_writer *w, bool v)
{
        json_raw(w, v ? STR("true") : STR("false"));
}

void json_null(struct json_writer *w)
{
        json_raw(w, STR("null"));
}

void json_uint(struct json_writer *w, uint64_t v)
{
        char digits[20];
        size_t i = sizeof digits;
        do
                digits[--i] = (char)('0' + v % 10);
        while (v /= 10);
        json_raw(w, str_n(digits + i, sizeof digits - i));
}

void json_int(struct json_writer *w, int64_t v)
{
        if (v < 0) {
                separate(w);
                buf_addc(w->out, '-');
                w->need_comma = false;
        }
        json_uint(w, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* The fewest digits that read back as |v| = 0.d1d2d3... * 10^(exponent + 1). Returns their number. */
static int shortest_digits(double v, bool single, char digits[20], int *exponent)
{
        char e[40]; /* "d.ddde+xx" */
        /* 15 digits (6 in a float) are always kept and trailing zeros go below; subnormal numbers hold fewer. */
        int precision = v < (single ? (double)FLT_MIN : DBL_MIN) ? 0 : single ? 5 : 14;
        for (; precision <= 16; precision++) {
                snprintf(e, sizeof e, "%.*e", precision, v);
                if (single ? strtof(e, NULL) == (float)v : strtod(e, NULL) == v)
                        break;
        }
        const char *mark = strchr(e, 'e');
        int n = mark - e > 2 ? (int)(mark - e) - 1 : 1;
        *exponent = atoi(mark + 1);
        digits[0] = e[0];
        memcpy(digits + 1, e + 2, (size_t)n - 1);
        while (n > 1 && digits[n - 1] == '0')
                n--;
        return n;
}

size_t json_format_double(char out[JSON_DOUBLE_BYTES], double v, bool single)
{
        char digits[20], *p = out;
        int exponent, n = shortest_digits(fabs(v), single, digits, &exponent);
        if (signbit(v))
                *p++ = '-';
        if (exponent < -6 || exponent >= 21) {
                *p++ = digits[0];
                if (n > 1)
                        *p++ = '.';
                memcpy(p, digits + 1, (size_t)n - 1);
                p += n - 1;
                return (size_t)(p - out) + (size_t)snprintf(p, 8, "e%+d", exponent);
        }
        for (int i = exponent < 0 ? exponent : 0; i < n || i <= exponent; i++) { /* digit i stands for 10^(exponent - i) */
                if (i == exponent + 1)
                        *p++ = '.';
                *p++ = i >= 0 && i < n ? digits[i] : '0';
        }
        return (size_t)(p - out);
}

void json_double(struct json_writer *w, double v)
{
        char z[JSON_DOUBLE_BYTES];
        if (!isfinite(v))
                json_null(w);
        else
                json_raw(w, str_n(z, json_format_double(z, v, false)));
}

void json_kv(struct json_writer *w, const char *key, struct str s)
{
        json_key(w, str_of(key));
        json_string(w, s);
}

void json_kv_nonempty(struct json_writer *w, const char *key, struct str s)
{
        if (s.n)
                json_kv(w, key, s);
}
