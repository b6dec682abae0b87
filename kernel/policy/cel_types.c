/* See cel_types.h. Types are walked by recursion of at most DEPTH_MAX levels; what lies deeper counts as dynamic. */
#include "kernel/policy/cel_types.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/cel.h"

enum { DEPTH_MAX = 40 };

void cel_types_fini(struct cel_types *ts)
{
        free(ts->v);
        free(ts->trail);
        *ts = (struct cel_types){0};
}

static bool grow(void **p, size_t n, size_t *cap, size_t size)
{
        if (n < *cap)
                return true;
        size_t more = *cap ? *cap * 2 : 64;
        void *q = realloc(*p, more * size);
        if (!q)
                return false;
        *p = q;
        *cap = more;
        return true;
}

cel_type_id cel_type_make(struct cel_types *ts, enum cel_static kind, cel_type_id a, cel_type_id b)
{
        if (ts->n >= CEL_MAX_TYPES || !grow((void **)&ts->v, ts->n, &ts->cap, sizeof *ts->v)) {
                ts->no_memory |= ts->n < CEL_MAX_TYPES;
                ts->full = true;
                return T_ERROR;
        }
        ts->v[ts->n] = (struct cel_type_node){.kind = (uint8_t)kind, .a = a, .b = b};
        return (cel_type_id)(T_SIMPLE + ts->n++);
}

enum cel_static cel_type_kind(const struct cel_types *ts, cel_type_id t)
{
        return t < T_SIMPLE ? (enum cel_static)t : (enum cel_static)ts->v[t - T_SIMPLE].kind;
}

static cel_type_id bound_to(const struct cel_types *ts, cel_type_id var)
{
        return ts->v[var - T_SIMPLE].a;
}

cel_type_id cel_type_resolve(const struct cel_types *ts, cel_type_id t)
{
        while (cel_type_kind(ts, t) == T_VAR && bound_to(ts, t))
                t = bound_to(ts, t);
        return t;
}

cel_type_id cel_type_param(const struct cel_types *ts, cel_type_id t, int i)
{
        return t < T_SIMPLE ? T_DYN : i ? ts->v[t - T_SIMPLE].b : ts->v[t - T_SIMPLE].a;
}

static void bind(struct cel_types *ts, cel_type_id var, cel_type_id to)
{
        if (!grow((void **)&ts->trail, ts->n_trail, &ts->cap_trail, sizeof *ts->trail)) {
                ts->full = ts->no_memory = true;
                return;
        }
        ts->trail[ts->n_trail++] = (struct cel_type_undo){.var = var, .old = bound_to(ts, var)};
        ts->v[var - T_SIMPLE].a = to;
}

static int params(enum cel_static kind)
{
        return kind == T_MAP ? 2 : kind == T_LIST || kind == T_TYPE ? 1 : 0;
}

static bool equal(const struct cel_types *ts, cel_type_id t1, cel_type_id t2, int depth)
{
        enum cel_static k = cel_type_kind(ts, t1);
        if (t1 == t2 || depth > DEPTH_MAX)
                return true;
        if (k != cel_type_kind(ts, t2) || !params(k))
                return false;
        for (int i = 0; i < params(k); i++)
                if (!equal(ts, cel_type_param(ts, t1, i), cel_type_param(ts, t2, i), depth + 1))
                        return false;
        return true;
}

bool cel_types_equal(const struct cel_types *ts, cel_type_id t1, cel_type_id t2)
{
        return equal(ts, t1, t2, 0);
}

static bool is_dyn(enum cel_static k)
{
        return k == T_DYN || k == T_ANY;
}

static bool is_equal_or_less_specific(const struct cel_types *ts, cel_type_id t1, cel_type_id t2, int depth)
{
        enum cel_static k1 = cel_type_kind(ts, t1), k2 = cel_type_kind(ts, t2);
        if (is_dyn(k1) || k1 == T_VAR || depth > DEPTH_MAX)
                return true;
        if (is_dyn(k2) || k2 == T_VAR || k1 != k2)
                return false;
        for (int i = 0; k1 != T_TYPE && i < params(k1); i++)
                if (!is_equal_or_less_specific(ts, cel_type_param(ts, t1, i), cel_type_param(ts, t2, i), depth + 1))
                        return false;
        return true;
}

cel_type_id cel_types_most_general(const struct cel_types *ts, cel_type_id t1, cel_type_id t2)
{
        return is_equal_or_less_specific(ts, t1, t2, 0) ? t1 : t2;
}

/* Does the variable not stand within t? */
static bool is_free_of(const struct cel_types *ts, cel_type_id var, cel_type_id t, int depth)
{
        t = cel_type_resolve(ts, t);
        if (t == var || depth > DEPTH_MAX)
                return false;
        for (int i = 0; i < params(cel_type_kind(ts, t)); i++)
                if (!is_free_of(ts, var, cel_type_param(ts, t, i), depth + 1))
                        return false;
        return true;
}

static bool assignable(struct cel_types *ts, cel_type_id t1, cel_type_id t2, int depth);

/* Can the variable stand for t? *has: it is bound already. */
static bool substitutes(struct cel_types *ts, cel_type_id t, cel_type_id var, bool *has, int depth)
{
        cel_type_id now = bound_to(ts, var);
        *has = t == var || now;
        if (t == var)
                return true;
        if (!now) {
                if (!is_free_of(ts, var, t, 0))
                        return false;
                bind(ts, var, t);
                return true;
        }
        if (cel_types_equal(ts, t, now))
                return true;
        if (!assignable(ts, t, now, depth + 1))
                return false;
        cel_type_id general = cel_types_most_general(ts, t, now);
        if (is_free_of(ts, var, general, 0))
                bind(ts, var, general);
        return true;
}

static bool is_nullable(enum cel_static k)
{
        return k == T_NULL || k == T_TIMESTAMP || k == T_DURATION;
}

static bool assignable(struct cel_types *ts, cel_type_id t1, cel_type_id t2, int depth)
{
        enum cel_static k1 = cel_type_kind(ts, t1), k2 = cel_type_kind(ts, t2);
        bool has;
        if (depth > DEPTH_MAX)
                return true;
        if (k2 == T_VAR) {
                if (substitutes(ts, t1, t2, &has, depth))
                        return true;
                if (has)
                        return false;
        }
        if (k1 == T_VAR)
                return substitutes(ts, t2, t1, &has, depth);
        if (is_dyn(k1) || k1 == T_ERROR || is_dyn(k2) || k2 == T_ERROR)
                return true;
        if (k1 == T_NULL || k2 == T_NULL)
                return is_nullable(k1 == T_NULL ? k2 : k1);
        if (k1 != k2)
                return false;
        for (int i = 0; k1 != T_TYPE && i < params(k1); i++)
                if (!assignable(ts, cel_type_param(ts, t1, i), cel_type_param(ts, t2, i), depth + 1))
                        return false;
        return true;
}

bool cel_types_assign(struct cel_types *ts, const cel_type_id *t1, const cel_type_id *t2, size_t n)
{
        ts->n_trail = 0;
        for (size_t i = 0; i < n; i++) {
                if (assignable(ts, t1[i], t2[i], 0))
                        continue;
                while (ts->n_trail) {
                        const struct cel_type_undo *u = &ts->trail[--ts->n_trail];
                        ts->v[u->var - T_SIMPLE].a = u->old;
                }
                return false;
        }
        return true;
}

static const char *const names[] = {"", "!error!", "any", "dyn",   "null",      "bool",     "int",  "uint", "double", "string",
                                    "bytes",   "timestamp", "duration", "list", "map",  "type", "dyn"};

static size_t add(char *to, size_t size, size_t at, const char *text)
{
        int n = snprintf(to + at, size - at, "%s", text);
        return at + (size_t)n < size ? at + (size_t)n : size - 1;
}

static size_t format(const struct cel_types *ts, cel_type_id t, char *to, size_t size, size_t at, int depth)
{
        t = cel_type_resolve(ts, t);
        enum cel_static k = cel_type_kind(ts, t);
        at = add(to, size, at, names[k]);
        if (!params(k) || (k == T_TYPE && !cel_type_param(ts, t, 0)))
                return at;
        at = add(to, size, at, "(");
        for (int i = 0; i < params(k); i++) {
                at = add(to, size, at, i ? ", " : "");
                at = depth > 4 ? add(to, size, at, "…") : format(ts, cel_type_param(ts, t, i), to, size, at, depth + 1);
        }
        return add(to, size, at, ")");
}

size_t cel_type_format(const struct cel_types *ts, cel_type_id t, char *to, size_t size)
{
        return format(ts, t, to, size, 0, 0);
}
