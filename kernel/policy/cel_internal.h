/*
 * CEL, inside: what its files share.
 *
 *   cel_lex.c, cel_parse.c, cel_emit.c      text -> tokens -> instructions
 *   cel_check.c, cel_types.c                run a program on types
 *   cel_eval.c                              runs it on values
 *   cel_value.c cel_call.c cel_json.c cel_time.c   what instructions do to them
 *
 * A program is a row of instructions for a stack of values, written while parsing, in the order of evaluation: operands stand
 * before their operator. Jumps only go forward, but for the end of a macro's body. The checker walks the same row once, from front
 * to back, with types in the place of values; so nothing needs a tree.
 */
#ifndef KERNEL_POLICY_CEL_INTERNAL_H
#define KERNEL_POLICY_CEL_INTERNAL_H

#include "kernel/policy/cel.h"
#include "sdk/base/regex.h"

/* ---- instructions ---- */
enum cel_op {
        CEL_OP_CONST,     /* arg: index in consts */
        CEL_OP_VAR,       /* arg: index in names */
        CEL_OP_LOCAL,     /* arg: which open macro, from 0 */
        CEL_OP_SELECT,    /* arg: name. [object] -> member */
        CEL_OP_HAS,       /* arg: name. [object] -> bool */
        CEL_OP_INDEX,     /* [object, index] -> element */
        CEL_OP_NOT, CEL_OP_NEG,
        CEL_OP_MUL, CEL_OP_DIV, CEL_OP_MOD, CEL_OP_ADD, CEL_OP_SUB,
        CEL_OP_LT, CEL_OP_LE, CEL_OP_GT, CEL_OP_GE, CEL_OP_EQ, CEL_OP_NE, CEL_OP_IN,
        CEL_OP_AND_JUMP,  /* arg: where to go when the top is false; it stays */
        CEL_OP_AND,
        CEL_OP_OR_JUMP,   /* the same with true */
        CEL_OP_OR,
        CEL_OP_COND,      /* arg: the other branch. [bool] -> ; the instruction before the other branch is its JUMP */
        CEL_OP_JUMP,      /* arg: behind the COND_END */
        CEL_OP_COND_END,  /* for the checker */
        CEL_OP_LIST,      /* arg: elements */
        CEL_OP_MAP,       /* arg: entries, key and value each */
        CEL_OP_CALL,      /* fn; n arguments, the receiver included; arg: 1 + index in regexes of a constant pattern, or 0 */
        CEL_OP_ITER,      /* fn: enum cel_macro; arg: behind the macro. [range] -> ; opens it */
        CEL_OP_NEXT,      /* sets the variable, or ends the macro: -> result, goes to arg */
        CEL_OP_FILTER,    /* first condition of a map with three arguments; arg: its NEXT */
        CEL_OP_STEP,      /* [body] -> ; arg: its NEXT */
};
enum cel_macro { CEL_ALL, CEL_EXISTS, CEL_EXISTS_ONE, CEL_MAP_MACRO, CEL_FILTER_MACRO, CEL_MACROS };

struct cel_ins {
        uint8_t op;
        uint8_t n;
        uint8_t fn;
        bool member;   /* CALL: written with a receiver */
        uint32_t arg;
        uint32_t pos;  /* offset in the text, for errors */
};

struct cel {
        struct arena arena;
        struct str text;
        struct cel_ins *code;
        struct cel_value *consts;
        struct str *names;
        struct regex **regexes;  /* of constant patterns; in the arena */
        uint32_t n_code, n_consts, n_names, n_regexes;
        uint32_t cap_code, cap_consts, cap_names, cap_regexes;
        uint32_t max_stack, max_iters;
};

/* ---- functions ---- */
enum cel_fn {
        CEL_FN_SIZE, CEL_FN_TYPE, CEL_FN_BOOL, CEL_FN_BYTES, CEL_FN_DOUBLE, CEL_FN_DURATION, CEL_FN_DYN, CEL_FN_INT, CEL_FN_STRING,
        CEL_FN_TIMESTAMP, CEL_FN_UINT, CEL_FN_CONTAINS, CEL_FN_ENDS_WITH, CEL_FN_STARTS_WITH, CEL_FN_MATCHES,
        CEL_FN_FULL_YEAR, CEL_FN_MONTH, CEL_FN_DAY_OF_YEAR, CEL_FN_DAY_OF_MONTH, CEL_FN_DATE, CEL_FN_DAY_OF_WEEK, CEL_FN_HOURS,
        CEL_FN_MINUTES, CEL_FN_SECONDS, CEL_FN_MILLISECONDS,
        CEL_FN_COUNT,
        CEL_FN_UNKNOWN = CEL_FN_COUNT
};
/* A function as the checker knows it. Signatures, separated by spaces: argument types and, last, the result's. b bool, i int, u uint,
 * d double, s string, y bytes, t timestamp, D duration, A and B any type, L list(A), M map(A, B), T type(A), * dyn. */
struct cel_function {
        const char *name, *signatures;
        bool global, member; /* how it may be called: f(x), x.f() */
};
extern const struct cel_function cel_functions[CEL_FN_COUNT];
enum cel_fn cel_function_find(struct str name);

/* ---- tokens ---- */
enum cel_token_type {
        CEL_TOK_END, CEL_TOK_IDENT, CEL_TOK_INT, CEL_TOK_UINT, CEL_TOK_FLOAT, CEL_TOK_STRING, CEL_TOK_BYTES, CEL_TOK_TRUE,
        CEL_TOK_FALSE, CEL_TOK_NULL, CEL_TOK_IN, CEL_TOK_EQ, CEL_TOK_NE, CEL_TOK_LT, CEL_TOK_LE, CEL_TOK_GT, CEL_TOK_GE,
        CEL_TOK_AND, CEL_TOK_OR, CEL_TOK_LBRACKET, CEL_TOK_RBRACKET, CEL_TOK_LBRACE, CEL_TOK_RBRACE, CEL_TOK_LPAREN,
        CEL_TOK_RPAREN, CEL_TOK_DOT, CEL_TOK_COMMA, CEL_TOK_MINUS, CEL_TOK_NOT, CEL_TOK_QUESTION, CEL_TOK_COLON, CEL_TOK_PLUS,
        CEL_TOK_STAR, CEL_TOK_SLASH, CEL_TOK_PERCENT, CEL_TOK_BAD
};
struct cel_token {
        enum cel_token_type type;
        uint32_t pos;
        struct str text;
};
/* The token at *pos of the text, moving *pos behind it. Comments and white space are skipped. */
struct cel_token cel_lex(struct str text, uint32_t *pos);
/* Value of a literal: 0; -EINVAL with the reason in *ret_err (static); -ENOMEM. minus: a sign stood before the number. */
int cel_literal(struct arena *a, const struct cel_token *t, bool minus, struct cel_value *ret, const char **ret_err);
bool cel_is_reserved(struct str name);

/* ---- compiling ---- */
/* Each: 0, -EINVAL with *err, -ENOMEM. */
int cel_parse(struct cel *p, struct cel_error *err);
int cel_check(struct cel *p, struct cel_error *err);
/* cel_emit.c: adds to a program; names are borrowed. As above. */
int cel_emit(struct cel *p, struct cel_error *err, enum cel_op op, uint32_t arg, uint32_t pos);
int cel_emit_const(struct cel *p, struct cel_error *err, struct cel_value v, uint32_t pos);
int cel_emit_name(struct cel *p, struct cel_error *err, enum cel_op op, struct str name, uint32_t pos);
int cel_emit_call(struct cel *p, struct cel_error *err, enum cel_fn fn, uint32_t n, bool member, uint32_t pos);
/* Fills *err and returns -EINVAL. */
int cel_fail(struct str text, struct cel_error *err, uint32_t pos, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* ---- evaluating ---- */
struct cel_vm {
        const struct cel *p;
        struct cel_var *vars;
        size_t n_vars;
        struct arena *a;
        int64_t steps, bytes;   /* left of CEL_MAX_STEPS and CEL_MAX_VALUE_BYTES */
        int fatal;              /* 0, -EINVAL (a limit), -ENOMEM: ends the evaluation whatever absorbs errors */
        const char *fatal_text;
};
struct cel_list {
        size_t n, cap;
        struct cel_value *v;
};
struct cel_map {
        size_t n;
        struct cel_value *kv; /* 2n: key, value, … */
};

/* Takes steps from the budget; false when it is used up (fatal). */
bool cel_charge(struct cel_vm *vm, size_t n);
void *cel_alloc(struct cel_vm *vm, size_t n); /* NULL: fatal is set */
struct cel_value cel_error_value(const char *text); /* text: static or in the arena */
struct cel_value cel_errorf(struct cel_vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
extern const char cel_no_overload[];

static inline struct cel_value cel_bool(bool b)
{
        return (struct cel_value){.type = CEL_BOOL, .b = b};
}
static inline struct cel_value cel_int(int64_t i)
{
        return (struct cel_value){.type = CEL_INT, .i = i};
}
static inline struct cel_value cel_uint(uint64_t u)
{
        return (struct cel_value){.type = CEL_UINT, .u = u};
}
static inline struct cel_value cel_double(double d)
{
        return (struct cel_value){.type = CEL_DOUBLE, .d = d};
}
static inline struct cel_value cel_string(struct str s)
{
        return (struct cel_value){.type = CEL_STRING, .s = s};
}
static inline struct cel_value cel_type_value(enum cel_type t)
{
        return (struct cel_value){.type = CEL_TYPE, .i = t};
}

/* ---- cel_value.c ---- */
/* Of two values that are no errors. Equality never fails, orders may: then *ret is the error. */
bool cel_equal(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b);
bool cel_compare(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b, int *ret_order, struct cel_value *ret_err);
struct cel_value cel_arith(struct cel_vm *vm, enum cel_op op, const struct cel_value *a, const struct cel_value *b);
struct cel_value cel_negate(struct cel_vm *vm, const struct cel_value *v);
enum cel_find { CEL_FOUND, CEL_MISSING, CEL_FIND_ERROR };
/* Member of a map by key or element of a list by index; for CEL_FIND_ERROR *ret is the error. Anything else has no members. */
enum cel_find cel_find(struct cel_vm *vm, const struct cel_value *container, const struct cel_value *key, struct cel_value *ret);
struct cel_value cel_contains(struct cel_vm *vm, const struct cel_value *container, const struct cel_value *v); /* v in container */
/* Elements of a list, keys of a map. */
size_t cel_count(struct cel_vm *vm, const struct cel_value *v);
struct cel_value cel_item(struct cel_vm *vm, const struct cel_value *v, size_t i);
/* A value as error texts show it, in the arena. */
const char *cel_show(struct cel_vm *vm, const struct cel_value *v);
enum { CEL_DOUBLE_BYTES = 400 };
/* As Go's strconv.FormatFloat(v, style, -1, 64); style 'g' or 'f'. NUL-terminated; returns its length. */
size_t cel_format_double(char out[CEL_DOUBLE_BYTES], double v, char style);

/* ---- cel_json.c ---- */
/* The value of a JSON text: scalars at once, lists and maps when they are looked into. */
struct cel_value cel_from_json(struct cel_vm *vm, struct str json);
struct cel_value cel_var_value(struct cel_vm *vm, struct cel_var *v);
size_t cel_json_count(struct cel_vm *vm, struct cel_json *j);
struct cel_value cel_json_key(struct cel_vm *vm, struct cel_json *j, size_t i);
struct cel_value cel_json_at(struct cel_vm *vm, struct cel_json *j, size_t i);
bool cel_json_member(struct cel_vm *vm, struct cel_json *j, struct str name, struct cel_value *ret);

/* ---- cel_call.c, cel_time.c ---- */
/* args: n values, the receiver first, none of them an error. */
struct cel_value cel_call(struct cel_vm *vm, const struct cel_ins *in, const struct cel_value *args);
struct cel_value cel_parse_timestamp(struct cel_vm *vm, struct str s);
struct cel_value cel_timestamp(int64_t seconds, int32_t nanos, int32_t offset_s); /* checks the range */
size_t cel_format_timestamp(char out[48], const struct cel_value *t);
struct cel_value cel_time_part(struct cel_vm *vm, enum cel_fn fn, const struct cel_value *t, const struct str *zone);

#endif
