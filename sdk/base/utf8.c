/* See utf8.h. Text is mostly ASCII, so eight bytes are looked at together first. */
#include "sdk/base/utf8.h"

int utf8_char_len(const char *p, size_t n)
{
        const unsigned char *u = (const unsigned char *)p;
        if (u[0] < 0x80)
                return 1;
        if (u[0] < 0xc2 || u[0] > 0xf4)
                return 0;
        int len = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
        if (n < (size_t)len)
                return 0;
        for (int i = 1; i < len; i++)
                if ((u[i] & 0xc0) != 0x80)
                        return 0;
        bool bad = (u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) || /* overlong, surrogate */
                   (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f);   /* overlong, too large */
        return bad ? 0 : len;
}

size_t utf8_valid_len(struct str s)
{
        size_t i = 0;
        while (i < s.n) {
                uint64_t w;
                if (s.n - i >= sizeof w) {
                        memcpy(&w, s.p + i, sizeof w);
                        if (!(w & 0x8080808080808080u)) {
                                i += sizeof w;
                                continue;
                        }
                }
                int len = utf8_char_len(s.p + i, s.n - i);
                if (!len)
                        break;
                i += (size_t)len;
        }
        return i;
}

int utf8_put(char *out, uint32_t c)
{
        if (c < 0x80) {
                out[0] = (char)c;
                return 1;
        }
        if (c < 0x800) {
                out[0] = (char)(0xc0 | c >> 6);
                out[1] = (char)(0x80 | (c & 0x3f));
                return 2;
        }
        if (c < 0x10000) {
                out[0] = (char)(0xe0 | c >> 12);
                out[1] = (char)(0x80 | (c >> 6 & 0x3f));
                out[2] = (char)(0x80 | (c & 0x3f));
                return 3;
        }
        out[0] = (char)(0xf0 | c >> 18);
        out[1] = (char)(0x80 | (c >> 12 & 0x3f));
        out[2] = (char)(0x80 | (c >> 6 & 0x3f));
        out[3] = (char)(0x80 | (c & 0x3f));
        return 4;
}
