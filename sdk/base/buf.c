/* See buf.h. Consumed space at the front is reclaimed before the buffer grows. */
#include "sdk/base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUF_MIN_BYTES = 256 };

void buf_fini(struct buf *b)
{
        free(b->p);
        *b = (struct buf){0};
}

int buf_reserve(struct buf *b, size_t n)
{
        if (b->cap - b->len >= n)
                return 0;
        if (b->off) {
                memmove(b->p, b->p + b->off, b->len - b->off);
                b->len -= b->off;
                b->off = 0;
                if (b->cap - b->len >= n)
                        return 0;
        }
        if (n > SIZE_MAX / 4 - b->len)
                goto nomem;
        size_t cap = b->cap ? b->cap : BUF_MIN_BYTES;
        while (cap - b->len < n)
                cap *= 2;
        char *p = realloc(b->p, cap);
        if (!p)
                goto nomem;
        b->p = p;
        b->cap = cap;
        return 0;
nomem:
        b->failed = true;
        return -ENOMEM;
}

int buf_add(struct buf *b, const void *p, size_t n)
{
        int r = buf_reserve(b, n);
        if (r)
                return r;
        if (n)
                memcpy(b->p + b->len, p, n);
        b->len += n;
        return 0;
}

int buf_adds(struct buf *b, struct str s)
{
        return buf_add(b, s.p, s.n);
}

int buf_addz(struct buf *b, const char *z)
{
        return buf_add(b, z, strlen(z));
}

int buf_addc(struct buf *b, char c)
{
        return buf_add(b, &c, 1);
}

int buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
        va_list ap2;
        va_copy(ap2, ap);
        int n = vsnprintf(NULL, 0, fmt, ap2);
        va_end(ap2);
        if (n < 0)
                return -EINVAL;
        int r = buf_reserve(b, (size_t)n + 1);
        if (r)
                return r;
        vsnprintf(b->p + b->len, (size_t)n + 1, fmt, ap);
        b->len += (size_t)n;
        return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        int r = buf_vprintf(b, fmt, ap);
        va_end(ap);
        return r;
}

void buf_consume(struct buf *b, size_t n)
{
        if (n >= b->len - b->off)
                b->off = b->len = 0;
        else
                b->off += n;
}

void buf_clear(struct buf *b)
{
        b->off = b->len = 0;
        b->failed = false;
}
