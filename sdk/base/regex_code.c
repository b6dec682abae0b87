/*
 * Making programs of regular expressions: instructions behind each other, wrapped or copied for repetition, and the classes that
 * they use. -EINVAL: past a limit.
 */
#include <errno.h>

#include "sdk/base/regex_internal.h"

static int reserve(struct regex_builder *b, uint64_t n)
{
        struct regex *re = b->re;
        if (re->n_code + n > REGEX_MAX_CODE)
                return -EINVAL;
        if (re->n_code + n <= b->cap_code)
                return 0;
        uint32_t cap = b->cap_code * 2 + 16;
        while (cap < re->n_code + n)
                cap *= 2;
        struct regex_ins *code = arena_grow(b->a, re->code, b->cap_code * sizeof *code, cap * sizeof *code);
        if (!code)
                return -ENOMEM;
        re->code = code;
        b->cap_code = cap;
        return 0;
}

int regex_emit(struct regex_builder *b, enum regex_op op, int32_t x, int32_t y)
{
        int r = reserve(b, 1);
        if (!r)
                b->re->code[b->re->n_code++] = (struct regex_ins){op, x, y};
        return r;
}

int regex_insert_split(struct regex_builder *b, uint32_t at, int32_t x, int32_t y)
{
        struct regex *re = b->re;
        int r = reserve(b, 1);
        if (r)
                return r;
        memmove(&re->code[at + 1], &re->code[at], (re->n_code - at) * sizeof *re->code);
        re->code[at] = (struct regex_ins){RE_SPLIT, x, y};
        re->n_code++;
        return 0;
}

int regex_add_class(struct regex_builder *b, struct regex_set *set, int32_t *ret)
{
        struct regex *re = b->re;
        struct regex_class *c;
        regex_set_normalize(set);
        if (set->failed || re->n_ranges + set->n > REGEX_MAX_RANGES)
                return -EINVAL;
        if (re->n_classes == b->cap_classes) {
                uint32_t cap = b->cap_classes ? b->cap_classes * 2 : 4;
                c = arena_grow(b->a, re->classes, b->cap_classes * sizeof *c, cap * sizeof *c);
                if (!c)
                        return -ENOMEM;
                re->classes = c;
                b->cap_classes = cap;
        }
        c = &re->classes[re->n_classes];
        *c = (struct regex_class){.v = set->v, .n = (uint32_t)set->n};
        for (uint32_t i = 0; i < c->n; i++)
                for (uint32_t r = c->v[i].lo; r <= c->v[i].hi && r < 128; r++)
                        c->ascii[r / 64] |= UINT64_C(1) << (r % 64);
        re->n_ranges += set->n;
        *ret = (int32_t)re->n_classes++;
        return 0;
}

/* ---- repetition of the code from `at` to the end ---- */

int regex_wrap(struct regex_builder *b, uint32_t at, char op)
{
        int32_t len = (int32_t)(b->re->n_code - at);
        int r;
        switch (op) {
        case '+':
                return regex_emit(b, RE_SPLIT, -len, 1);
        case '?':
                return regex_insert_split(b, at, 1, len + 1);
        default:
                r = regex_insert_split(b, at, 1, len + 2);
                return r ? r : regex_emit(b, RE_JUMP, -(len + 1), 0);
        }
}

/* Appends another copy of the code; there is room. */
static void copy(struct regex *re, uint32_t at, uint32_t len)
{
        memcpy(&re->code[re->n_code], &re->code[at], len * sizeof *re->code);
        re->n_code += len;
}

int regex_copies(struct regex_builder *b, uint32_t at, int min, int max)
{
        struct regex *re = b->re;
        uint32_t len = re->n_code - at, optional = max == REGEX_TO_INFINITY ? 0 : (uint32_t)(max - min);
        int r = reserve(b, (uint64_t)len * (uint32_t)(min + 1) + (uint64_t)(len + 1) * optional + 2);
        if (r)
                return r;
        if (max == 0) {
                re->n_code = at;
                return 0;
        }
        if (min == 0 && max == REGEX_TO_INFINITY)
                return regex_wrap(b, at, '*');
        if (min == 0) { /* the first copy is the code itself */
                r = regex_insert_split(b, at, 1, (int32_t)((len + 1) * optional));
                optional--;
                at++;
        }
        for (int i = 1; i < min; i++)
                copy(re, at, len);
        for (; !r && optional; optional--) {
                r = regex_emit(b, RE_SPLIT, 1, (int32_t)((len + 1) * optional));
                copy(re, at, len);
        }
        return !r && max == REGEX_TO_INFINITY ? regex_emit(b, RE_SPLIT, -(int32_t)len, 1) : r;
}
