/* Base64, RFC 4648. See json.h. */
#include "sdk/base/json.h"

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_put(char *out, struct str in)
{
        char *q = out;
        size_t i = 0;
        for (; i + 2 < in.n; i += 3) {
                uint32_t v = (uint32_t)(uint8_t)in.p[i] << 16 | (uint32_t)(uint8_t)in.p[i + 1] << 8 | (uint8_t)in.p[i + 2];
                for (int shift = 18; shift >= 0; shift -= 6)
                        *q++ = base64_digits[v >> shift & 63];
        }
        if (i < in.n) {
                bool two = i + 1 < in.n;
                uint32_t v = (uint32_t)(uint8_t)in.p[i] << 16 | (two ? (uint32_t)(uint8_t)in.p[i + 1] << 8 : 0);
                *q++ = base64_digits[v >> 18 & 63];
                *q++ = base64_digits[v >> 12 & 63];
                *q++ = two ? base64_digits[v >> 6 & 63] : '=';
                *q++ = '=';
        }
        return (size_t)(q - out);
}

struct str base64_encode(struct arena *a, struct str in)
{
        char *p = in.n > SIZE_MAX / 4 ? NULL : arena_alloc(a, BASE64_LEN(in.n) + 1);
        if (!p)
                return STR_NULL;
        size_t n = base64_put(p, in);
        p[n] = '\0';
        return str_n(p, n);
}

static int base64_value(char c)
{
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (c >= '0' && c <= '9')
                return c - '0' + 52;
        if (c == '+' || c == '-')
                return 62;
        return c == '/' || c == '_' ? 63 : -1;
}

struct str base64_decode(struct arena *a, struct str in)
{
        char *p = arena_alloc(a, in.n / 4 * 3 + 4);
        size_t n = 0, pads = 0, digits = 0;
        bool std = false, url = false; /* which alphabet; not both */
        uint32_t v = 0;
        if (!p)
                return STR_NULL;
        for (size_t i = 0; i < in.n; i++) {
                if (in.p[i] == '\n' || in.p[i] == '\r')
                        continue;
                if (in.p[i] == '=') {
                        pads++;
                        continue;
                }
                int d = base64_value(in.p[i]);
                std |= in.p[i] == '+' || in.p[i] == '/';
                url |= in.p[i] == '-' || in.p[i] == '_';
                if (d < 0 || pads || (std && url))
                        return STR_NULL;
                v = v << 6 | (uint32_t)d;
                if (++digits % 4 == 0) {
                        p[n++] = (char)(v >> 16);
                        p[n++] = (char)(v >> 8);
                        p[n++] = (char)v;
                }
        }
        size_t rest = digits % 4;
        if (rest == 1 || (pads && (rest == 0 || rest + pads != 4)))
                return STR_NULL;
        if (rest >= 2)
                p[n++] = (char)(v >> (rest == 2 ? 4 : 10));
        if (rest == 3)
                p[n++] = (char)(v >> 2);
        p[n] = '\0';
        return str_n(p, n);
}
