/*
 * Growable byte buffer with a read offset. Live bytes are [off, len). Zero value = empty.
 * Errors: -ENOMEM only. After an error the old content is intact; `failed` stays set so that a chain of adds is checked once.
 */
#ifndef SDK_BASE_BUF_H
#define SDK_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>

#include "sdk/base/str.h"

struct buf {
        char *p;
        size_t off, len, cap;
        bool failed;
};

void buf_fini(struct buf *b);                      /* frees; leaves the zero value */
int buf_reserve(struct buf *b, size_t n);          /* room for n more bytes after len */
int buf_add(struct buf *b, const void *p, size_t n);
int buf_adds(struct buf *b, struct str s);
int buf_addz(struct buf *b, const char *z);
int buf_addc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *fmt, va_list ap);
void buf_consume(struct buf *b, size_t n);         /* drops n bytes from the front */
void buf_clear(struct buf *b);                     /* keeps the memory */

static inline struct str buf_str(const struct buf *b)
{
        return (struct str){b->p ? b->p + b->off : "", b->len - b->off};
}
static inline size_t buf_len(const struct buf *b)
{
        return b->len - b->off;
}

#endif
