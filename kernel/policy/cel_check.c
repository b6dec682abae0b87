/*
 * CEL's type check: the instructions once from front to back, on types. It runs twice, as the reference compiles twice: variables
 * are unknown at first (an error type, which fits everything), then of type any; an expression that fails either way is refused.
 * On the way the deepest use of the value stack is found.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"
#include "kernel/policy/cel_types.h"

enum { ARGS_MAX = 8, SIGNATURE_TYPES = 64 };

struct checker {
        const struct cel *p;
        struct cel_error *err;
        struct cel_types types;
        cel_type_id variable; /* type of what is not declared */
        struct cell {
                cel_type_id type;
                uint32_t pos;
        } *stack;
        size_t n, cap, max;
        cel_type_id locals[CEL_MAX_ITERS];
        size_t n_locals;
};

const struct cel_function cel_functions[CEL_FN_COUNT] = {
        [CEL_FN_SIZE] = {"size", "yi Li Mi si", true, true},
        [CEL_FN_TYPE] = {"type", "AT", true, false},
        [CEL_FN_BOOL] = {"bool", "bb sb", true, false},
        [CEL_FN_BYTES] = {"bytes", "yy sy", true, false},
        [CEL_FN_DOUBLE] = {"double", "dd id sd ud", true, false},
        [CEL_FN_DURATION] = {"duration", "DD iD sD", true, false},
        [CEL_FN_DYN] = {"dyn", "A*", true, false},
        [CEL_FN_INT] = {"int", "ii di Di si ti ui", true, false},
        [CEL_FN_STRING] = {"string", "ss bs ys ds Ds is ts us", true, false},
        [CEL_FN_TIMESTAMP] = {"timestamp", "tt it st", true, false},
        [CEL_FN_UINT] = {"uint", "uu du iu su", true, false},
        [CEL_FN_CONTAINS] = {"contains", "ssb", false, true},
        [CEL_FN_ENDS_WITH] = {"endsWith", "ssb", false, true},
        [CEL_FN_STARTS_WITH] = {"startsWith", "ssb", false, true},
        [CEL_FN_MATCHES] = {"matches", "ssb", true, true},
        [CEL_FN_FULL_YEAR] = {"getFullYear", "ti tsi", false, true},
        [CEL_FN_MONTH] = {"getMonth", "ti tsi", false, true},
        [CEL_FN_DAY_OF_YEAR] = {"getDayOfYear", "ti tsi", false, true},
        [CEL_FN_DAY_OF_MONTH] = {"getDayOfMonth", "ti tsi", false, true},
        [CEL_FN_DATE] = {"getDate", "ti tsi", false, true},
        [CEL_FN_DAY_OF_WEEK] = {"getDayOfWeek", "ti tsi", false, true},
        [CEL_FN_HOURS] = {"getHours", "ti tsi Di", false, true},
        [CEL_FN_MINUTES] = {"getMinutes", "ti tsi Di", false, true},
        [CEL_FN_SECONDS] = {"getSeconds", "ti tsi Di", false, true},
        [CEL_FN_MILLISECONDS] = {"getMilliseconds", "ti tsi Di", false, true},
};

#define ORDER "bbb iib uub ddb ssb yyb ttb DDb"
static const struct cel_function operators[] = {
        [CEL_OP_INDEX] = {"_[_]", "LiA MAB", true, false},
        [CEL_OP_NOT] = {"!_", "bb", true, false},
        [CEL_OP_NEG] = {"-_", "dd ii", true, false},
        [CEL_OP_MUL] = {"_*_", "ddd iii uuu", true, false},
        [CEL_OP_DIV] = {"_/_", "ddd iii uuu", true, false},
        [CEL_OP_MOD] = {"_%_", "iii uuu", true, false},
        [CEL_OP_ADD] = {"_+_", "yyy ddd DDD Dtt tDt iii LLL sss uuu", true, false},
        [CEL_OP_SUB] = {"_-_", "ddd DDD iii tDt ttD uuu", true, false},
        [CEL_OP_LT] = {"_<_", ORDER, true, false},
        [CEL_OP_LE] = {"_<=_", ORDER, true, false},
        [CEL_OP_GT] = {"_>_", ORDER, true, false},
        [CEL_OP_GE] = {"_>=_", ORDER, true, false},
        [CEL_OP_EQ] = {"_==_", "AAb", true, false},
        [CEL_OP_NE] = {"_!=_", "AAb", true, false},
        [CEL_OP_IN] = {"@in", "ALb AMb", true, false},
        [CEL_OP_COND] = {"_?_:_", "bAAA", true, false},
};

enum cel_fn cel_function_find(struct str name)
{
        int i = 0;
        while (i < CEL_FN_COUNT && !str_eqz(name, cel_functions[i].name))
                i++;
        return (enum cel_fn)i;
}

#define fail_at(c, at, ...) cel_fail((c)->p->text, (c)->err, at, __VA_ARGS__)

static int too_many_types(struct checker *c, uint32_t pos)
{
        if (c->types.no_memory)
                return -ENOMEM;
        return fail_at(c, pos, "the expression needs too many types (more than %d)", CEL_MAX_TYPES);
}

/* ---- the stack ---- */

static int push(struct checker *c, cel_type_id type, uint32_t pos)
{
        if (c->n == CEL_MAX_STACK)
                return fail_at(c, pos, "the expression needs too many values at once (more than %d)", CEL_MAX_STACK);
        if (c->n == c->cap) {
                size_t cap = c->cap ? c->cap * 2 : 32;
                struct cell *more = realloc(c->stack, cap * sizeof *more);
                if (!more)
                        return -ENOMEM;
                c->stack = more;
                c->cap = cap;
        }
        c->stack[c->n++] = (struct cell){type, pos};
        if (c->n > c->max)
                c->max = c->n;
        return 0;
}

static struct cell pop(struct checker *c)
{
        return c->stack[--c->n];
}

/* ---- overloads ---- */

static cel_type_id type_of(struct checker *c, char letter, const cel_type_id vars[2])
{
        static const char letters[] = "biudsytD*";
        static const uint8_t simple[] = {T_BOOL, T_INT, T_UINT, T_DOUBLE, T_STRING, T_BYTES, T_TIMESTAMP, T_DURATION, T_DYN};
        const char *at = strchr(letters, letter);
        return at              ? simple[at - letters]
               : letter == 'A' ? vars[0]
               : letter == 'B' ? vars[1]
               : letter == 'L' ? cel_type_make(&c->types, T_LIST, vars[0], 0)
               : letter == 'M' ? cel_type_make(&c->types, T_MAP, vars[0], vars[1])
                               : cel_type_make(&c->types, T_TYPE, vars[0], 0);
}

static int no_overload(struct checker *c, const struct cel_function *f, const cel_type_id *args, size_t n, bool member, uint32_t pos)
{
        char text[CEL_ERROR_BYTES];
        size_t at = 0, i = 0;
        if (member) {
                at = cel_type_format(&c->types, args[0], text, sizeof text / 2);
                text[at++] = '.';
                i = 1;
        }
        text[at++] = '(';
        for (size_t first = i; i < n; i++) {
                if (i > first && at + 2 < sizeof text)
                        at += (size_t)snprintf(text + at, sizeof text - at, ", ");
                at += cel_type_format(&c->types, args[i], text + at, sizeof text - at);
        }
        text[at < sizeof text - 1 ? at : sizeof text - 2] = ')';
        text[at < sizeof text - 1 ? at + 1 : sizeof text - 1] = '\0';
        return fail_at(c, pos, "found no matching overload for '%s' applied to '%s'", f->name, text);
}

/* Type of a call: of the only overload that fits, dynamic when several do. */
static int resolve(struct checker *c, const struct cel_function *f, const cel_type_id *args, size_t n, bool member, uint32_t pos, cel_type_id *ret)
{
        bool found = false, fits = member ? f->member : f->global;
        for (const char *s = f->signatures; fits && *s; s += *s == ' ') {
                size_t len = strcspn(s, " ");
                if (len == n + 1) {
                        cel_type_id vars[2] = {0}, want[ARGS_MAX], result;
                        if (strpbrk(s, "ABLMT") && strpbrk(s, "ABLMT") < s + len) {
                                vars[0] = cel_type_make(&c->types, T_VAR, 0, 0);
                                vars[1] = cel_type_make(&c->types, T_VAR, 0, 0);
                        }
                        for (size_t i = 0; i < n; i++)
                                want[i] = type_of(c, s[i], vars);
                        if (!c->types.full && cel_types_assign(&c->types, args, want, n)) {
                                result = cel_type_resolve(&c->types, type_of(c, s[n], vars));
                                if (!found)
                                        *ret = result;
                                else if (*ret != T_DYN && *ret != T_ANY && !cel_types_equal(&c->types, result, *ret))
                                        *ret = T_DYN;
                                found = true;
                        }
                }
                s += len;
        }
        if (c->types.full)
                return too_many_types(c, pos);
        return found ? 0 : no_overload(c, f, args, n, member, pos);
}

static int call(struct checker *c, const struct cel_function *f, size_t n, bool member, uint32_t pos)
{
        cel_type_id args[256], result = T_ERROR;
        c->n -= n;
        for (size_t i = 0; i < n; i++)
                args[i] = c->stack[c->n + i].type;
        int r = n < ARGS_MAX ? resolve(c, f, args, n, member, pos, &result) : no_overload(c, f, args, n, member, pos);
        return r ? r : push(c, result, pos);
}

/* ---- instructions ---- */

static cel_type_id type_of_const(struct checker *c, const struct cel_value *v)
{
        static const uint8_t simple[CEL_TYPES] = {[CEL_NULL] = T_NULL,     [CEL_BOOL] = T_BOOL,   [CEL_INT] = T_INT,
                                                  [CEL_UINT] = T_UINT,     [CEL_DOUBLE] = T_DOUBLE, [CEL_STRING] = T_STRING,
                                                  [CEL_BYTES] = T_BYTES,   [CEL_TIMESTAMP] = T_TIMESTAMP,
                                                  [CEL_DURATION] = T_DURATION};
        if (v->type != CEL_TYPE)
                return simple[v->type];
        if (v->i == CEL_LIST || v->i == CEL_MAP || v->i == CEL_TYPE)
                return cel_type_make(&c->types, T_TYPE, T_NONE, 0);
        return cel_type_make(&c->types, T_TYPE, simple[v->i], 0);
}

static int select_member(struct checker *c, const struct cel_ins *in)
{
        cel_type_id t = cel_type_resolve(&c->types, pop(c).type), result = T_DYN, dyn = T_DYN;
        switch (cel_type_kind(&c->types, t)) {
        case T_MAP:
                result = cel_type_resolve(&c->types, cel_type_param(&c->types, t, 1));
                break;
        case T_VAR:
                cel_types_assign(&c->types, &dyn, &t, 1);
                break;
        case T_DYN:
        case T_ANY:
        case T_ERROR:
        case T_NONE:
                break;
        case T_NULL:
        case T_BOOL:
        case T_INT:
        case T_UINT:
        case T_DOUBLE:
        case T_STRING:
        case T_BYTES:
        case T_TIMESTAMP:
        case T_DURATION:
        case T_LIST:
        case T_TYPE: {
                char text[100];
                cel_type_format(&c->types, t, text, sizeof text);
                return fail_at(c, in->pos, "type '%s' does not support field selection", text);
        }
        }
        return push(c, in->op == CEL_OP_HAS ? T_BOOL : result, in->pos);
}

static int want_bool(struct checker *c, struct cell v)
{
        cel_type_id want = T_BOOL;
        char text[100];
        if (cel_types_assign(&c->types, &v.type, &want, 1))
                return 0;
        cel_type_format(&c->types, v.type, text, sizeof text);
        return fail_at(c, v.pos, "expected type 'bool' but found '%s'", text);
}

static int logic(struct checker *c, const struct cel_ins *in)
{
        struct cell right = pop(c), left = pop(c);
        int r = want_bool(c, left);
        if (!r)
                r = want_bool(c, right);
        return r ? r : push(c, T_BOOL, in->pos);
}

/* Most general type of n cells that stand `step` apart; T_DYN when they do not fit. */
static cel_type_id join(struct checker *c, size_t first, size_t n, size_t step)
{
        cel_type_id t = n ? c->stack[first].type : cel_type_make(&c->types, T_VAR, 0, 0);
        for (size_t i = 1; i < n; i++) {
                cel_type_id next = c->stack[first + i * step].type;
                t = cel_types_assign(&c->types, &t, &next, 1) ? cel_types_most_general(&c->types, t, next) : T_DYN;
        }
        return t;
}

static int aggregate(struct checker *c, const struct cel_ins *in)
{
        size_t step = in->op == CEL_OP_MAP ? 2 : 1, first = c->n - in->arg * step;
        cel_type_id a = join(c, first, in->arg, step), b = in->op == CEL_OP_MAP ? join(c, first + 1, in->arg, step) : 0;
        c->n = first;
        return push(c, cel_type_make(&c->types, in->op == CEL_OP_MAP ? T_MAP : T_LIST, a, b), in->pos);
}

static int iterate(struct checker *c)
{
        struct cell range = pop(c);
        cel_type_id t = cel_type_resolve(&c->types, range.type), item = T_DYN, dyn = T_DYN;
        enum cel_static k = cel_type_kind(&c->types, t);
        if (k == T_LIST || k == T_MAP) {
                item = cel_type_param(&c->types, t, 0);
        } else if (k == T_VAR) {
                cel_types_assign(&c->types, &dyn, &t, 1);
        } else if (k != T_DYN && k != T_ERROR) {
                char text[60];
                cel_type_format(&c->types, t, text, sizeof text);
                return fail_at(c, range.pos, "expression of type '%s' cannot be range of a comprehension (must be list, map, or dynamic)", text);
        }
        c->locals[c->n_locals++] = item;
        return 0;
}

/* A condition of a macro that works by `condition ? x : y`. */
static int want_condition(struct checker *c, const struct cel_ins *in, struct cell v, cel_type_id branch)
{
        cel_type_id args[3] = {v.type, branch, branch}, result;
        return resolve(c, &operators[CEL_OP_COND], args, 3, false, in->pos, &result);
}

static int step(struct checker *c, const struct cel_ins *in)
{
        struct cell body = pop(c);
        cel_type_id item = c->locals[--c->n_locals], result = T_BOOL;
        int r = 0;
        switch ((enum cel_macro)in->fn) {
        case CEL_ALL:
        case CEL_EXISTS:
                r = want_bool(c, body);
                break;
        case CEL_EXISTS_ONE:
                r = want_condition(c, in, body, T_INT);
                break;
        case CEL_MAP_MACRO:
                result = cel_type_make(&c->types, T_LIST, body.type, 0);
                break;
        case CEL_FILTER_MACRO:
                result = cel_type_make(&c->types, T_LIST, item, 0);
                r = want_condition(c, in, body, result);
                break;
        case CEL_MACROS:
                break;
        }
        return r ? r : push(c, result, in->pos);
}

static int check(struct checker *c, const struct cel_ins *in)
{
        switch ((enum cel_op)in->op) {
        case CEL_OP_CONST:
                return push(c, type_of_const(c, &c->p->consts[in->arg]), in->pos);
        case CEL_OP_VAR:
                return push(c, c->variable, in->pos);
        case CEL_OP_LOCAL:
                return push(c, c->locals[in->arg], in->pos);
        case CEL_OP_SELECT:
        case CEL_OP_HAS:
                return select_member(c, in);
        case CEL_OP_NOT:
        case CEL_OP_NEG:
                return call(c, &operators[in->op], 1, false, in->pos);
        case CEL_OP_INDEX:
        case CEL_OP_MUL:
        case CEL_OP_DIV:
        case CEL_OP_MOD:
        case CEL_OP_ADD:
        case CEL_OP_SUB:
        case CEL_OP_LT:
        case CEL_OP_LE:
        case CEL_OP_GT:
        case CEL_OP_GE:
        case CEL_OP_EQ:
        case CEL_OP_NE:
        case CEL_OP_IN:
                return call(c, &operators[in->op], 2, false, in->pos);
        case CEL_OP_AND:
        case CEL_OP_OR:
                return logic(c, in);
        case CEL_OP_COND_END:
                return call(c, &operators[CEL_OP_COND], 3, false, in->pos);
        case CEL_OP_LIST:
        case CEL_OP_MAP:
                return aggregate(c, in);
        case CEL_OP_CALL:
                return call(c, &cel_functions[in->fn], in->n, in->member, in->pos);
        case CEL_OP_ITER:
                return iterate(c);
        case CEL_OP_FILTER:
                return want_condition(c, in, pop(c), T_DYN);
        case CEL_OP_STEP:
                return step(c, in);
        case CEL_OP_AND_JUMP:
        case CEL_OP_OR_JUMP:
        case CEL_OP_COND:
        case CEL_OP_JUMP:
        case CEL_OP_NEXT:
                return 0;
        }
        return 0;
}

static int pass(struct checker *c, cel_type_id variable)
{
        int r = 0;
        c->variable = variable;
        c->n = c->n_locals = c->types.n = 0;
        for (uint32_t i = 0; !r && i < c->p->n_code; i++)
                r = check(c, &c->p->code[i]);
        return !r && c->types.full ? too_many_types(c, 0) : r;
}

int cel_check(struct cel *p, struct cel_error *err)
{
        struct checker c = {.p = p, .err = err};
        int r = pass(&c, T_ERROR);
        if (!r)
                r = pass(&c, T_ANY);
        p->max_stack = (uint32_t)c.max;
        cel_types_fini(&c.types);
        free(c.stack);
        return r;
}
