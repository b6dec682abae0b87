/*
 * CEL programs: made by parsing and checking, kept as instructions. While it is made a program's tables are on the heap, growing;
 * then they are moved into its arena.
 */
#include "kernel/policy/cel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"
#include "sdk/base/utf8.h"

/* Moves n elements from the heap into the arena. */
static int settle(struct cel *p, void *at, uint32_t n, size_t size)
{
        void **table = at;
        void *copy = arena_alloc(&p->arena, n * size);
        if (copy && n)
                memcpy(copy, *table, n * size);
        free(*table);
        *table = copy;
        return copy ? 0 : -ENOMEM;
}

static int settle_all(struct cel *p)
{
        int r = settle(p, &p->code, p->n_code, sizeof *p->code);
        r |= settle(p, &p->consts, p->n_consts, sizeof *p->consts);
        r |= settle(p, &p->names, p->n_names, sizeof *p->names);
        r |= settle(p, &p->regexes, p->n_regexes, sizeof *p->regexes);
        return r ? -ENOMEM : 0;
}

static int refuse(struct cel_error *err, const char *text)
{
        *err = (struct cel_error){0};
        snprintf(err->text, sizeof err->text, "ERROR: <input>: %s", text);
        return -EINVAL;
}

int cel_compile(struct cel **ret, struct str text, struct cel_error *err)
{
        struct cel *p;
        if (text.n > CEL_MAX_TEXT_BYTES)
                return refuse(err, "the expression is longer than 65536 bytes");
        if (!utf8_is_valid(text))
                return refuse(err, "the expression is not valid UTF-8");
        p = calloc(1, sizeof *p);
        if (!p)
                return -ENOMEM;
        arena_init(&p->arena, 0);
        p->text = arena_str(&p->arena, text);
        int r = p->text.p ? cel_parse(p, err) : -ENOMEM;
        if (!r)
                r = cel_check(p, err);
        int s = settle_all(p);
        if (r || s) {
                cel_free(p);
                return r ? r : s;
        }
        *ret = p;
        return 0;
}

void cel_free(struct cel *p)
{
        if (!p)
                return;
        arena_fini(&p->arena);
        free(p);
}

struct str cel_text(const struct cel *p)
{
        return p->text;
}
