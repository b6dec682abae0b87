/*
 * CEL's machine: the instructions of a program on a stack of values. An error is a value too: it goes through everything but
 * `&&`, `||` and the macros built on them, which drop it when the other side decides. What ends an evaluation at once (a limit,
 * no memory) is vm->fatal.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"

enum { LIST_FIRST = 8 };

struct iter {
        struct cel_value range, item, result;
        size_t at, n, found;
        struct cel_list *list; /* map, filter */
};

struct machine {
        struct cel_vm vm;
        struct cel_value *stack;
        size_t n;
        struct iter *iters;
        size_t n_iters;
};

static void push(struct machine *m, struct cel_value v)
{
        m->stack[m->n++] = v;
}

static struct cel_value *top(struct machine *m)
{
        return &m->stack[m->n - 1];
}

static bool is_bool(const struct cel_value *v, bool b)
{
        return v->type == CEL_BOOL && v->b == b;
}

static struct cel_value error_or_no_overload(const struct cel_value *v)
{
        return v->type == CEL_ERROR ? *v : cel_error_value(cel_no_overload);
}

/* `&&` for decides = false, `||` for true. */
static struct cel_value logic(const struct cel_value *a, const struct cel_value *b, bool decides)
{
        if (is_bool(a, decides) || is_bool(b, decides))
                return cel_bool(decides);
        if (a->type == CEL_BOOL && b->type == CEL_BOOL)
                return cel_bool(!decides);
        return error_or_no_overload(a->type != CEL_BOOL ? a : b);
}

/* ---- names and members ---- */

static struct cel_value variable(struct machine *m, struct str name)
{
        for (size_t i = 0; i < m->vm.n_vars; i++)
                if (str_eq(m->vm.vars[i].name, name))
                        return cel_var_value(&m->vm, &m->vm.vars[i]);
        return cel_errorf(&m->vm, "no such attribute(s): %.*s", name.n > 200 ? 200 : (int)name.n, name.p);
}

static void member(struct machine *m, const struct cel_value *key, bool presence)
{
        struct cel_value v = *top(m), r;
        if (v.type == CEL_ERROR)
                return;
        switch (cel_find(&m->vm, &v, key, &r)) {
        case CEL_FOUND:
                *top(m) = presence ? cel_bool(true) : r;
                break;
        case CEL_MISSING:
                if (presence)
                        *top(m) = cel_bool(false);
                else
                        *top(m) = cel_errorf(&m->vm, v.type == CEL_LIST ? "index out of bounds: %s" : "no such key: %s", cel_show(&m->vm, key));
                break;
        case CEL_FIND_ERROR:
                *top(m) = r;
                break;
        }
}

/* ---- operators ---- */

static struct cel_value order(struct machine *m, enum cel_op op, const struct cel_value *a, const struct cel_value *b)
{
        struct cel_value err;
        int o;
        if (!cel_compare(&m->vm, a, b, &o, &err))
                return err;
        switch ((int)op) {
        case CEL_OP_LT:
                return cel_bool(o < 0);
        case CEL_OP_LE:
                return cel_bool(o <= 0);
        case CEL_OP_GT:
                return cel_bool(o > 0);
        default:
                return cel_bool(o >= 0);
        }
}

#define T(type) (1u << CEL_##type)
#define NUMBERS (T(INT) | T(UINT) | T(DOUBLE))
#define ORDERED (NUMBERS | T(BOOL) | T(STRING) | T(BYTES) | T(TIMESTAMP) | T(DURATION))

#define NEGATED (T(INT) | T(DOUBLE) | T(BOOL))
#define RECEIVERS (T(STRING) | T(TIMESTAMP) | T(DURATION))

/* Which left sides an operator takes at all; for others, but for receivers, the reference names the operator. */
static const struct {
        unsigned left;
        const char *error;
} traits[] = {
        [CEL_OP_MUL] = {NUMBERS, "no such overload: _*_"},
        [CEL_OP_DIV] = {NUMBERS, "no such overload: _/_"},
        [CEL_OP_MOD] = {T(INT) | T(UINT), "no such overload: _%_"},
        [CEL_OP_ADD] = {NUMBERS | T(STRING) | T(BYTES) | T(LIST) | T(TIMESTAMP) | T(DURATION), "no such overload: _+_"},
        [CEL_OP_SUB] = {NUMBERS | T(TIMESTAMP) | T(DURATION), "no such overload: _-_"},
        [CEL_OP_LT] = {ORDERED, "no such overload: _<_"},
        [CEL_OP_LE] = {ORDERED, "no such overload: _<=_"},
        [CEL_OP_GT] = {ORDERED, "no such overload: _>_"},
        [CEL_OP_GE] = {ORDERED, "no such overload: _>=_"},
};

static struct cel_value binary(struct machine *m, enum cel_op op, const struct cel_value *a, const struct cel_value *b)
{
        if (op != CEL_OP_EQ && op != CEL_OP_NE && op != CEL_OP_IN && !((traits[op].left | RECEIVERS) & 1u << a->type))
                return cel_error_value(traits[op].error);
        switch ((int)op) {
        case CEL_OP_EQ:
        case CEL_OP_NE:
                return cel_bool(cel_equal(&m->vm, a, b) == (op == CEL_OP_EQ));
        case CEL_OP_LT:
        case CEL_OP_LE:
        case CEL_OP_GT:
        case CEL_OP_GE:
                return order(m, op, a, b);
        case CEL_OP_IN:
                return cel_contains(&m->vm, b, a);
        default:
                return cel_arith(&m->vm, op, a, b);
        }
}

/* The first error among n values from the top of the stack, or NULL. */
static const struct cel_value *first_error(struct machine *m, size_t n)
{
        for (size_t i = m->n - n; i < m->n; i++)
                if (m->stack[i].type == CEL_ERROR)
                        return &m->stack[i];
        return NULL;
}

/* Replaces n values by one. */
static void replace(struct machine *m, size_t n, struct cel_value v)
{
        m->n -= n;
        push(m, v);
}

static struct cel_value make_list(struct machine *m, size_t n)
{
        struct cel_list *l = cel_alloc(&m->vm, sizeof *l);
        struct cel_value *v = cel_alloc(&m->vm, n * sizeof *v);
        if (!l || !v || !cel_charge(&m->vm, n / 8))
                return cel_error_value("out of memory");
        if (n)
                memcpy(v, m->stack + m->n - n, n * sizeof *v);
        *l = (struct cel_list){.n = n, .cap = n, .v = v};
        return (struct cel_value){.type = CEL_LIST, .list = l};
}

static struct cel_value make_map(struct machine *m, size_t n)
{
        struct cel_map *map = cel_alloc(&m->vm, sizeof *map);
        struct cel_value *kv = cel_alloc(&m->vm, 2 * n * sizeof *kv), *from = m->stack + m->n - 2 * n;
        struct cel_value unused;
        if (!map || !kv)
                return cel_error_value("out of memory");
        *map = (struct cel_map){.kv = kv};
        for (size_t i = 0; i < n; i++, from += 2) {
                struct cel_value so_far = {.type = CEL_MAP, .map = map};
                bool twice = cel_find(&m->vm, &so_far, &from[0], &unused) == CEL_FOUND;
                size_t at = map->n;
                while (twice && at > 0 && !cel_equal(&m->vm, &kv[2 * --at], &from[0]))
                        ;
                kv[2 * at] = from[0];
                kv[2 * at + 1] = from[1];
                map->n += !twice;
        }
        return (struct cel_value){.type = CEL_MAP, .map = map};
}

/* ---- macros ---- */

static const char *const go_names[CEL_TYPES] = {
        [CEL_NULL] = "types.Null",     [CEL_BOOL] = "types.Bool",   [CEL_INT] = "types.Int",     [CEL_UINT] = "types.Uint",
        [CEL_DOUBLE] = "types.Double", [CEL_STRING] = "types.String", [CEL_BYTES] = "types.Bytes", [CEL_TYPE] = "*types.Type",
        [CEL_TIMESTAMP] = "types.Timestamp", [CEL_DURATION] = "types.Duration"};

/* Opens a macro over the top of the stack; false: the outcome is there already. */
static bool iter_open(struct machine *m, enum cel_macro kind)
{
        struct cel_value range = m->stack[--m->n];
        struct iter *it = &m->iters[m->n_iters];
        if (range.type != CEL_LIST && range.type != CEL_MAP) {
                push(m, range.type == CEL_ERROR ? range : cel_errorf(&m->vm, "got '%s', expected iterable type", go_names[range.type]));
                return false;
        }
        *it = (struct iter){.range = range, .n = cel_count(&m->vm, &range), .result = cel_bool(kind == CEL_ALL)};
        if (kind == CEL_MAP_MACRO || kind == CEL_FILTER_MACRO) {
                it->list = cel_alloc(&m->vm, sizeof *it->list);
                if (it->list)
                        *it->list = (struct cel_list){0};
        }
        m->n_iters++;
        return true;
}

static void iter_close(struct machine *m, struct cel_value result)
{
        m->n_iters--;
        push(m, result);
}

/* Takes the next element; false: there is none, the outcome has been pushed. */
static bool iter_next(struct machine *m, enum cel_macro kind)
{
        struct iter *it = &m->iters[m->n_iters - 1];
        if (it->at < it->n) {
                it->item = cel_item(&m->vm, &it->range, it->at++);
                return true;
        }
        if (kind == CEL_EXISTS_ONE)
                it->result = cel_bool(it->found == 1);
        else if (kind == CEL_MAP_MACRO || kind == CEL_FILTER_MACRO)
                it->result = (struct cel_value){.type = CEL_LIST, .list = it->list};
        iter_close(m, it->result);
        return false;
}

static void append(struct machine *m, struct cel_list *l, const struct cel_value *v)
{
        if (l->n == l->cap) {
                size_t cap = l->cap ? l->cap * 2 : LIST_FIRST;
                struct cel_value *more = cel_alloc(&m->vm, cap * sizeof *more);
                if (!more)
                        return;
                if (l->n)
                        memcpy(more, l->v, l->n * sizeof *more);
                l->v = more;
                l->cap = cap;
        }
        l->v[l->n++] = *v;
}

/* The body has been evaluated for one element. False: the macro is decided, the outcome has been pushed. */
static bool iter_step(struct machine *m, enum cel_macro kind)
{
        struct iter *it = &m->iters[m->n_iters - 1];
        struct cel_value v = m->stack[--m->n];
        bool condition = kind == CEL_EXISTS_ONE || kind == CEL_FILTER_MACRO;
        if (kind == CEL_ALL || kind == CEL_EXISTS) {
                it->result = logic(&it->result, &v, kind == CEL_EXISTS);
                if (!is_bool(&it->result, kind == CEL_EXISTS))
                        return true;
                iter_close(m, it->result);
                return false;
        }
        if (v.type == CEL_ERROR || (condition && v.type != CEL_BOOL)) {
                iter_close(m, error_or_no_overload(&v));
                return false;
        }
        if (kind == CEL_EXISTS_ONE)
                it->found += v.b;
        else if (kind == CEL_MAP_MACRO)
                append(m, it->list, &v);
        else if (v.b)
                append(m, it->list, &it->item);
        return true;
}

/* First condition of a map. Returns where to go on. */
static uint32_t iter_filter(struct machine *m, const struct cel_ins *in, uint32_t pc)
{
        struct cel_value v = m->stack[--m->n];
        if (v.type == CEL_BOOL)
                return v.b ? pc : in->arg;
        iter_close(m, error_or_no_overload(&v));
        return m->vm.p->code[in->arg].arg;
}

/* ---- the loop ---- */

/* What moves values only. */
static void compute(struct machine *m, const struct cel_ins *in)
{
        const struct cel *p = m->vm.p;
        const struct cel_value *bad;
        struct cel_value key;
        switch ((int)in->op) {
        case CEL_OP_CONST:
                push(m, p->consts[in->arg]);
                break;
        case CEL_OP_VAR:
                push(m, variable(m, p->names[in->arg]));
                break;
        case CEL_OP_LOCAL:
                push(m, m->iters[in->arg].item);
                break;
        case CEL_OP_SELECT:
        case CEL_OP_HAS:
                key = cel_string(p->names[in->arg]);
                member(m, &key, in->op == CEL_OP_HAS);
                break;
        case CEL_OP_INDEX:
                key = m->stack[--m->n];
                if (key.type != CEL_ERROR)
                        member(m, &key, false);
                else if (top(m)->type != CEL_ERROR)
                        *top(m) = key;
                break;
        case CEL_OP_NOT:
                *top(m) = top(m)->type == CEL_BOOL ? cel_bool(!top(m)->b) : error_or_no_overload(top(m));
                break;
        case CEL_OP_NEG:
                if (top(m)->type != CEL_ERROR)
                        *top(m) = (NEGATED | RECEIVERS) & 1u << top(m)->type ? cel_negate(&m->vm, top(m)) : cel_error_value("no such overload: -_");
                break;
        case CEL_OP_AND:
        case CEL_OP_OR:
                replace(m, 2, logic(top(m) - 1, top(m), in->op == CEL_OP_OR));
                break;
        case CEL_OP_LIST:
                bad = first_error(m, in->arg);
                replace(m, in->arg, bad ? *bad : make_list(m, in->arg));
                break;
        case CEL_OP_MAP:
                bad = first_error(m, 2 * in->arg);
                replace(m, 2 * in->arg, bad ? *bad : make_map(m, in->arg));
                break;
        case CEL_OP_CALL:
                bad = first_error(m, in->n);
                replace(m, in->n, bad ? *bad : cel_call(&m->vm, in, m->stack + m->n - in->n));
                break;
        default:
                bad = first_error(m, 2);
                replace(m, 2, bad ? *bad : binary(m, (enum cel_op)in->op, top(m) - 1, top(m)));
        }
}

static uint32_t cond(struct machine *m, const struct cel_ins *in, uint32_t pc)
{
        struct cel_value *v = top(m);
        if (v->type != CEL_BOOL) {
                *v = error_or_no_overload(v);
                return m->vm.p->code[in->arg - 1].arg;
        }
        m->n--;
        return v->b ? pc : in->arg;
}

/* Executes one instruction; pc is behind it. Returns where to go on. */
static uint32_t execute(struct machine *m, const struct cel_ins *in, uint32_t pc)
{
        switch ((int)in->op) {
        case CEL_OP_AND_JUMP:
                return is_bool(top(m), false) ? in->arg : pc;
        case CEL_OP_OR_JUMP:
                return is_bool(top(m), true) ? in->arg : pc;
        case CEL_OP_COND:
                return cond(m, in, pc);
        case CEL_OP_JUMP:
                return in->arg;
        case CEL_OP_COND_END:
                return pc;
        case CEL_OP_ITER:
                return iter_open(m, (enum cel_macro)in->fn) ? pc : in->arg;
        case CEL_OP_NEXT:
                return iter_next(m, (enum cel_macro)in->fn) ? pc : in->arg;
        case CEL_OP_FILTER:
                return iter_filter(m, in, pc);
        case CEL_OP_STEP:
                return iter_step(m, (enum cel_macro)in->fn) ? in->arg : pc;
        default:
                compute(m, in);
                return pc;
        }
}

int cel_eval(const struct cel *p, struct cel_var *vars, size_t n_vars, struct arena *a, struct cel_value *ret)
{
        struct machine m = {.vm = {.p = p, .vars = vars, .n_vars = n_vars, .a = a, .steps = CEL_MAX_STEPS, .bytes = CEL_MAX_VALUE_BYTES}};
        m.stack = arena_alloc(a, (p->max_stack + 1) * sizeof *m.stack);
        m.iters = arena_alloc(a, p->max_iters * sizeof *m.iters);
        *ret = cel_error_value("out of memory");
        if (!m.stack || !m.iters)
                return -ENOMEM;
        for (uint32_t pc = 0; pc < p->n_code && !m.vm.fatal && cel_charge(&m.vm, 1);)
                pc = execute(&m, &p->code[pc], pc + 1);
        if (!m.vm.fatal && a->exhausted) { /* by what sees no memory as another error */
                m.vm.fatal = -ENOMEM;
                m.vm.fatal_text = "out of memory";
        }
        *ret = m.vm.fatal ? cel_error_value(m.vm.fatal_text) : *top(&m);
        return m.vm.fatal ? m.vm.fatal : ret->type == CEL_ERROR ? -EINVAL : 0;
}

int cel_eval_bool(const struct cel *p, struct cel_var *vars, size_t n_vars, struct arena *a, bool *ret, const char **ret_err)
{
        struct cel_value v;
        int r = cel_eval(p, vars, n_vars, a, &v);
        if (r) {
                *ret_err = v.s.p;
                return r;
        }
        if (v.type != CEL_BOOL) {
                const char *text = arena_printf(a, "the result of match expression %s was not a boolean", p->text.p);
                *ret_err = text ? text : "out of memory";
                return text ? -EINVAL : -ENOMEM;
        }
        *ret = v.b;
        return 0;
}
