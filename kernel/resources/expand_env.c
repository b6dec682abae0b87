/* $NAME and ${NAME}, by the rules of Go's os.ExpandEnv, oddities included: files that rely on them keep working. */
#include "kernel/resources/expand_env.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

enum { NAME_MAX_BYTES = 1024 };

static bool is_special(char c)
{
        return isdigit((unsigned char)c) || (c && strchr("*#$@!?-", c));
}

static bool is_name(char c)
{
        return c == '_' || isalnum((unsigned char)c);
}

/* The name at the start of s (what follows a "$") and how many bytes it takes. An empty name with bytes > 0 is wrong syntax. */
static struct str take_name(struct str s, size_t *used)
{
        if (s.p[0] == '{') {
                if (s.n > 2 && is_special(s.p[1]) && s.p[2] == '}') {
                        *used = 3;
                        return str_n(s.p + 1, 1);
                }
                ptrdiff_t end = str_chr(s, '}');
                *used = end < 0 ? 1 : end == 1 ? 2 : (size_t)end + 1;
                return end <= 1 ? str_n(s.p, 0) : str_n(s.p + 1, (size_t)end - 1);
        }
        if (is_special(s.p[0])) {
                *used = 1;
                return str_n(s.p, 1);
        }
        size_t n = 0;
        while (n < s.n && is_name(s.p[n]))
                n++;
        *used = n;
        return str_n(s.p, n);
}

static void add_variable(struct buf *out, struct str name)
{
        char z[NAME_MAX_BYTES];
        if (name.n >= sizeof z)
                return;
        memcpy(z, name.p, name.n);
        z[name.n] = '\0';
        const char *v = strlen(z) == name.n ? getenv(z) : NULL;
        if (v)
                buf_addz(out, v);
}

int expand_env(struct buf *out, struct str text)
{
        while (text.n && !out->failed && out->len <= EXPAND_MAX_BYTES) {
                ptrdiff_t at = str_chr(text, '$');
                if (at < 0 || (size_t)at + 1 == text.n)
                        break;
                size_t used;
                struct str name = take_name(str_skip(text, (size_t)at + 1), &used);
                buf_add(out, text.p, (size_t)at);
                if (name.n)
                        add_variable(out, name);
                else if (used == 0)
                        buf_addc(out, '$');
                text = str_skip(text, (size_t)at + 1 + used);
        }
        buf_adds(out, text);
        if (out->failed)
                return -ENOMEM;
        return out->len > EXPAND_MAX_BYTES ? -EFBIG : 0;
}
