/*
 * Pike's machine: threads in order of preference, each with the place where its match began. A thread that matches ends all that
 * are preferred less; those before it go on, for they would give a better match. While no thread runs, bytes that no match begins
 * with are skipped.
 */
#include "sdk/base/regex_find.h"

#include <errno.h>

#include "sdk/base/regex_internal.h"

struct threads { /* sparse set in order of preference */
        uint32_t *pc, *sparse;
        size_t *start;
        uint32_t n;
};

struct search {
        const struct regex *re;
        struct threads now, next;
        uint32_t *stack;
        bool found;
        size_t start, end;
};

enum { NO_RUNE = 0xffffffff, ALL_ASSERTIONS = 63 };

static bool contains(const struct threads *t, uint32_t pc)
{
        return t->sparse[pc] < t->n && t->pc[t->sparse[pc]] == pc;
}

/* Adds pc and all that it leads to without a character, best first. holds: the assertions that hold here. */
static void follow(const struct regex *re, struct threads *t, uint32_t *stack, uint32_t pc, size_t start, uint32_t holds)
{
        size_t n = 0;
        stack[n++] = pc;
        while (n) {
                pc = stack[--n];
                if (contains(t, pc))
                        continue;
                t->sparse[pc] = t->n;
                t->start[t->n] = start;
                t->pc[t->n++] = pc;
                const struct regex_ins *in = &re->code[pc];
                switch ((enum regex_op)in->op) {
                case RE_SPLIT:
                        stack[n++] = pc + (uint32_t)in->b;
                        stack[n++] = pc + (uint32_t)in->a;
                        break;
                case RE_JUMP:
                        stack[n++] = pc + (uint32_t)in->a;
                        break;
                case RE_ASSERT:
                        if ((holds & (uint32_t)in->a) == (uint32_t)in->a)
                                stack[n++] = pc + 1;
                        break;
                case RE_CHAR: case RE_CLASS: case RE_ANY: case RE_ANY_LINE: case RE_MATCH:
                        break;
                }
        }
}

static uint32_t assertions(uint32_t before, uint32_t after)
{
        uint32_t holds = (before == NO_RUNE ? RE_BEGIN_TEXT | RE_BEGIN_LINE : 0) | (after == NO_RUNE ? RE_END_TEXT | RE_END_LINE : 0);
        holds |= before == '\n' ? RE_BEGIN_LINE : 0;
        holds |= after == '\n' ? RE_END_LINE : 0;
        return holds | (regex_is_word(before) != regex_is_word(after) ? RE_WORD : RE_NO_WORD);
}

static struct threads threads_in(uint32_t *mem, uint32_t n)
{
        return (struct threads){mem, mem + n, (size_t *)(mem + 2 * (size_t)n), 0};
}

static void may_begin_with(struct regex_finder *f, const struct regex_ins *in)
{
        for (uint32_t b = 0; b < 128; b++)
                if (in->op == RE_MATCH || regex_takes(f->re, in, b))
                        f->first[b / 64] |= UINT64_C(1) << (b % 64);
        bool wide = in->op == RE_MATCH || in->op == RE_ANY || in->op == RE_ANY_LINE || (in->op == RE_CHAR && in->a > 127);
        if (in->op == RE_CLASS) {
                const struct regex_class *c = &f->re->classes[in->a];
                wide = c->n && c->v[c->n - 1].hi > 127;
        }
        if (wide)
                f->first[2] = f->first[3] = ~UINT64_C(0);
}

int regex_finder_init(struct regex_finder *f, const struct regex *re, struct arena *a)
{
        size_t n = ((size_t)re->n_code + 1) / 2 * 2; /* even: what follows is aligned for size_t */
        *f = (struct regex_finder){.re = re, .mem = arena_zalloc(a, (2 * (2 + 2) * n + 2 * n + 2) * sizeof(uint32_t))};
        if (!f->mem)
                return -ENOMEM;
        struct threads t = threads_in(f->mem, (uint32_t)n);
        follow(re, &t, f->mem + 8 * n, 0, 0, ALL_ASSERTIONS);
        for (uint32_t i = 0; i < t.n; i++)
                may_begin_with(f, &re->code[t.pc[i]]);
        return 0;
}

/* One character (or the end: NO_RUNE) for all threads; those that go on stand in next, not yet followed. */
static void step(struct search *s, uint32_t rune, size_t at)
{
        s->next.n = 0;
        for (uint32_t i = 0; i < s->now.n; i++) {
                uint32_t pc = s->now.pc[i];
                const struct regex_ins *in = &s->re->code[pc];
                if (in->op == RE_MATCH) {
                        s->found = true;
                        s->start = s->now.start[i];
                        s->end = at;
                        break;
                }
                if (rune != NO_RUNE && regex_takes(s->re, in, rune) && !contains(&s->next, pc + 1)) {
                        s->next.sparse[pc + 1] = s->next.n;
                        s->next.start[s->next.n] = s->now.start[i];
                        s->next.pc[s->next.n++] = pc + 1;
                }
        }
        s->now.n = 0;
}

static size_t skip(const struct regex_finder *f, struct str text, size_t at)
{
        while (at < text.n && !(f->first[(unsigned char)text.p[at] / 64] >> ((unsigned char)text.p[at] % 64) & 1))
                at++;
        return at;
}

bool regex_find(struct regex_finder *f, struct str text, size_t from, size_t *ret_start, size_t *ret_end)
{
        size_t n = ((size_t)f->re->n_code + 1) / 2 * 2;
        struct search s = {.re = f->re, .now = threads_in(f->mem, (uint32_t)n), .next = threads_in(f->mem + 4 * n, (uint32_t)n),
                           .stack = f->mem + 8 * n};
        size_t at = from;
        for (;;) {
                if (!s.next.n) {
                        if (s.found)
                                break;
                        at = skip(f, text, at);
                }
                /* a byte of a longer character stands for it: no assertion tells them apart */
                uint32_t before = at ? (unsigned char)text.p[at - 1] : NO_RUNE;
                size_t behind = at;
                uint32_t rune = at < text.n ? regex_rune(text, &behind) : NO_RUNE, holds = assertions(before, rune);
                for (uint32_t i = 0; i < s.next.n; i++)
                        follow(f->re, &s.now, s.stack, s.next.pc[i], s.next.start[i], holds);
                if (!s.found)
                        follow(f->re, &s.now, s.stack, 0, at, holds);
                step(&s, rune, at);
                if (rune == NO_RUNE)
                        break;
                at = behind;
        }
        *ret_start = s.start;
        *ret_end = s.end;
        return s.found;
}
