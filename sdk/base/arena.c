/*
 * Blocks grow from 2 KiB; a large request gets a block of its own size. Invariant: used_bytes <= cap_bytes when a cap is set.
 */
#include "sdk/base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ARENA_FIRST_BYTES = 2048, ARENA_MAX_BLOCK_BYTES = 64 * 1024, ARENA_KEEP_BYTES = 16 * 1024, ARENA_ALIGN = 16 };

struct arena_block {
        struct arena_block *next;
        size_t len, cap;
        _Alignas(16) char data[];
};

void arena_init(struct arena *a, size_t cap_bytes)
{
        *a = (struct arena){.cap_bytes = cap_bytes};
}

void arena_fini(struct arena *a)
{
        while (a->head) {
                struct arena_block *next = a->head->next;
                free(a->head);
                a->head = next;
        }
        a->used_bytes = 0;
}

void arena_reset(struct arena *a)
{
        struct arena_block *keep = NULL;
        while (a->head) {
                struct arena_block *next = a->head->next;
                if (!keep && a->head->cap <= ARENA_KEEP_BYTES) /* arenas lie in pools: one large request must not make each large */
                        keep = a->head;
                else
                        free(a->head);
                a->head = next;
        }
        if (keep) {
                keep->next = NULL;
                keep->len = 0;
        }
        a->head = keep;
        a->used_bytes = 0;
        a->exhausted = false;
}

static struct arena_block *block_new(struct arena *a, size_t n)
{
        size_t cap = a->head ? a->head->cap * 2 : ARENA_FIRST_BYTES - sizeof(struct arena_block);
        if (cap > ARENA_MAX_BLOCK_BYTES)
                cap = ARENA_MAX_BLOCK_BYTES;
        if (cap < n)
                cap = n;
        struct arena_block *b = malloc(sizeof(*b) + cap);
        if (!b)
                return NULL;
        b->len = 0;
        b->cap = cap;
        b->next = a->head;
        a->head = b;
        return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
        if (n > SIZE_MAX / 2)
                goto full;
        n = n ? (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1) : ARENA_ALIGN;
        if (a->cap_bytes && (n > a->cap_bytes || a->used_bytes > a->cap_bytes - n))
                goto full;
        struct arena_block *b = a->head;
        if (!b || b->cap - b->len < n) {
                b = block_new(a, n);
                if (!b)
                        goto full;
        }
        void *p = b->data + b->len;
        b->len += n;
        a->used_bytes += n;
        return p;
full:
        a->exhausted = true;
        return NULL;
}

void *arena_zalloc(struct arena *a, size_t n)
{
        void *p = arena_alloc(a, n);
        return p ? memset(p, 0, n) : NULL;
}

void *arena_grow(struct arena *a, void *p, size_t old_n, size_t new_n)
{
        if (p && new_n <= old_n)
                return p;
        struct arena_block *b = a->head;
        size_t old_r = (old_n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
        if (p && b && old_r && new_n < SIZE_MAX / 2 && (char *)p + old_r == b->data + b->len) {
                size_t more = ((new_n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1)) - old_r;
                if (b->cap - b->len >= more && (!a->cap_bytes || more <= a->cap_bytes - a->used_bytes)) {
                        b->len += more;
                        a->used_bytes += more;
                        return p;
                }
        }
        void *q = arena_alloc(a, new_n);
        if (q && old_n)
                memcpy(q, p, old_n);
        return q;
}

char *arena_strdup(struct arena *a, struct str s)
{
        char *p = arena_alloc(a, s.n + 1);
        if (!p)
                return NULL;
        if (s.n)
                memcpy(p, s.p, s.n);
        p[s.n] = '\0';
        return p;
}

struct str arena_str(struct arena *a, struct str s)
{
        char *p = arena_strdup(a, s);
        return p ? (struct str){p, s.n} : STR_NULL;
}

char *arena_vprintf(struct arena *a, const char *fmt, va_list ap)
{
        char text[256];
        va_list ap2;
        va_copy(ap2, ap);
        int n = vsnprintf(text, sizeof(text), fmt, ap2);
        va_end(ap2);
        if (n < 0)
                return NULL;
        char *p = arena_alloc(a, (size_t)n + 1);
        if (p && (size_t)n < sizeof(text))
                memcpy(p, text, (size_t)n + 1);
        else if (p)
                vsnprintf(p, (size_t)n + 1, fmt, ap);
        return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        char *p = arena_vprintf(a, fmt, ap);
        va_end(ap);
        return p;
}
