/*
 * Running a regular expression: the set of states that the text so far leads to, one character at a time. A state is put into a
 * set at most once for each character, so a text of n characters takes at most n times the program's length.
 */
#include "sdk/base/regex.h"

#include <errno.h>

#include "sdk/base/regex_internal.h"

struct states {        /* sparse set: no clearing */
        uint32_t *dense, *sparse;
        uint32_t n;
};

struct run {
        const struct regex *re;
        struct states now, next;
        uint32_t *stack;
        int64_t looked;      /* states, until the next charge */
        bool matched;
};

static bool contains(const struct states *s, uint32_t pc)
{
        return s->sparse[pc] < s->n && s->dense[s->sparse[pc]] == pc;
}

static void insert(struct states *s, uint32_t pc)
{
        s->sparse[pc] = s->n;
        s->dense[s->n++] = pc;
}

/* Adds a state and all that it leads to without a character. holds: the assertions that hold here. */
static void follow(struct run *r, struct states *s, uint32_t pc, uint32_t holds)
{
        size_t n = 0;
        if (contains(s, pc))
                return;
        insert(s, pc);
        r->stack[n++] = pc;
        while (n) {
                pc = r->stack[--n];
                const struct regex_ins *in = &r->re->code[pc];
                uint32_t to[2];
                int m = 0;
                r->looked++;
                if (in->op == RE_MATCH)
                        r->matched = true;
                else if (in->op == RE_JUMP || in->op == RE_SPLIT)
                        to[m++] = pc + (uint32_t)in->a;
                else if (in->op == RE_ASSERT && (holds & (uint32_t)in->a))
                        to[m++] = pc + 1;
                if (in->op == RE_SPLIT)
                        to[m++] = pc + (uint32_t)in->b;
                while (m--) {
                        if (contains(s, to[m]))
                                continue;
                        insert(s, to[m]);
                        r->stack[n++] = to[m];
                }
        }
}

enum { NO_RUNE = 0xffffffff };

static uint32_t assertions(uint32_t before, uint32_t after)
{
        uint32_t holds = (before == NO_RUNE ? RE_BEGIN_TEXT | RE_BEGIN_LINE : 0) | (after == NO_RUNE ? RE_END_TEXT | RE_END_LINE : 0);
        holds |= before == '\n' ? RE_BEGIN_LINE : 0;
        holds |= after == '\n' ? RE_END_LINE : 0;
        return holds | (regex_is_word(before) != regex_is_word(after) ? RE_WORD : RE_NO_WORD);
}

static bool charge(struct run *r, int64_t *steps)
{
        if (!steps || r->looked < REGEX_STEPS_PER_CHARGE)
                return true;
        *steps -= r->looked / REGEX_STEPS_PER_CHARGE;
        r->looked %= REGEX_STEPS_PER_CHARGE;
        return *steps >= 0;
}

/* Where the first match may begin: -1 = nowhere. */
static ptrdiff_t first_start(const struct regex *re, struct str text, int64_t *steps)
{
        if (!re->prefix.n)
                return 0;
        if (steps)
                *steps -= (int64_t)(text.n / 64);
        if (re->begins)
                return str_has_prefix(text, re->prefix) ? 0 : -1;
        return str_find(text, re->prefix);
}

int regex_match(const struct regex *re, struct str text, struct arena *a, int64_t *steps)
{
        uint32_t *mem = arena_zalloc(a, 5 * (size_t)re->n_code * sizeof *mem);
        ptrdiff_t start = first_start(re, text, steps);
        if (!mem)
                return -ENOMEM;
        if (start < 0 || (steps && *steps < 0))
                return start < 0 ? 0 : -ETIMEDOUT;
        struct run r = {.re = re,
                        .now = {mem, mem + re->n_code, 0},
                        .next = {mem + 2 * (size_t)re->n_code, mem + 3 * (size_t)re->n_code, 0},
                        .stack = mem + 4 * (size_t)re->n_code};
        size_t at = (size_t)start;
        uint32_t before = at ? (unsigned char)text.p[at - 1] : NO_RUNE; /* a prefix is ASCII; what stands before it may not be */
        for (bool first = true;; first = false) {
                size_t next = at;
                uint32_t rune = at < text.n ? regex_rune(text, &next) : NO_RUNE;
                uint32_t holds = assertions(before, rune);
                if (!first)
                        for (uint32_t i = 0; i < r.next.n; i++)
                                follow(&r, &r.now, r.next.dense[i], holds);
                if (!re->begins || first)
                        follow(&r, &r.now, 0, holds);
                if (r.matched)
                        return 1;
                if (rune == NO_RUNE || (!r.now.n && re->begins))
                        return 0;
                r.next.n = 0;
                for (uint32_t i = 0; i < r.now.n; i++)
                        if (regex_takes(re, &re->code[r.now.dense[i]], rune) && !contains(&r.next, r.now.dense[i] + 1))
                                insert(&r.next, r.now.dense[i] + 1);
                r.looked += r.now.n;
                r.now.n = 0;
                if (!charge(&r, steps))
                        return -ETIMEDOUT;
                before = rune;
                at = next;
        }
}

size_t regex_cost(const struct regex *re)
{
        return re ? (re->n_code + re->n_ranges) / REGEX_STEPS_PER_CHARGE : 0;
}
