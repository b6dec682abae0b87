/*
 * Arena: a bump allocator with a cap, one per request. Everything a request allocates lives here and is freed at once.
 * The cap is the request's memory quota: an allocation that would pass it returns NULL and marks the arena exhausted.
 * Not thread-safe. Zero value = empty arena with no cap.
 */
#ifndef SDK_BASE_ARENA_H
#define SDK_BASE_ARENA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/str.h"

struct arena_block;
struct arena {
        struct arena_block *head;  /* current block; older ones are linked behind it */
        size_t used_bytes;         /* handed out so far */
        size_t cap_bytes;          /* 0 = no cap */
        bool exhausted;            /* an allocation was refused */
};

/* cap_bytes 0 = unlimited. Allocates nothing yet. */
void arena_init(struct arena *a, size_t cap_bytes);
void arena_fini(struct arena *a);
/* Frees all but one small block, for reuse. */
void arena_reset(struct arena *a);
/* 16-byte aligned, uninitialised; NULL when the cap is reached or memory is out. n == 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_zalloc(struct arena *a, size_t n);
/* Grows the last allocation in place when possible, else copies. */
void *arena_grow(struct arena *a, void *p, size_t old_n, size_t new_n);
/* Copies with a trailing NUL (not counted in n). */
char *arena_strdup(struct arena *a, struct str s);
struct str arena_str(struct arena *a, struct str s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(struct arena *a, const char *fmt, va_list ap);

#define arena_new(a, type) ((type *)arena_zalloc((a), sizeof(type)))

#endif
