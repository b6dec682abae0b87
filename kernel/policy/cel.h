/*
 * CEL, the Common Expression Language (https://github.com/google/cel-spec), for the match rules of subscriptions and the trip
 * expressions of circuit breakers. Semantics of cel-go 0.20 with its standard library and macros, as the reference uses it:
 * an identifier that is nothing else is a variable of dynamic type; its absence is an error of the evaluation, not of the
 * compilation. Types are checked when compiling as far as they are known.
 *
 * A program is compiled once and is then read only: any number of fibers may evaluate it. Nothing here recurses or parks; time,
 * memory and depth are bounded by the limits below, each of which has an error text of its own.
 */
#ifndef KERNEL_POLICY_CEL_H
#define KERNEL_POLICY_CEL_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum {
        CEL_MAX_TEXT_BYTES = 64 * 1024, /* of an expression */
        CEL_MAX_DEPTH = 500,            /* brackets, open calls and operators that wait for their right side, at once */
        CEL_MAX_CODE = 32 * 1024,       /* instructions of a program */
        CEL_MAX_NAMES = 1024,           /* different variables and members of a program */
        CEL_MAX_TYPES = 128 * 1024,     /* types that the checker makes for one program */
        CEL_MAX_STEPS = 200 * 1000,     /* of one evaluation: instructions, and one for each 64 bytes that an operation looks at */
        CEL_MAX_STACK = 4096,           /* values at once */
        CEL_MAX_ITERS = 16,             /* macros inside each other */
        CEL_MAX_VALUE_BYTES = 1 << 20,  /* of what one evaluation builds (strings, lists) */
        CEL_ERROR_BYTES = 256,
};

struct cel; /* a compiled expression */

struct cel_error {
        int line, column;           /* from 1; 0 = no place */
        char text[CEL_ERROR_BYTES]; /* "ERROR: <input>:1:7: undeclared reference to 'foo' (in container '')" */
};

/* 0 and *ret; -EINVAL with *err filled (does not parse, types do not fit, past a limit); -ENOMEM. text is copied. */
int cel_compile(struct cel **ret, struct str text, struct cel_error *err);
void cel_free(struct cel *p);            /* NULL is fine */
struct str cel_text(const struct cel *p); /* as it was compiled; NUL-terminated */

/*
 * Variables of one evaluation. JSON is read on demand: only what an expression selects is looked at, scalars become values (numbers
 * become doubles, as encoding/json has them), a member that stands twice counts as the last of its kind. The members of an object
 * that has been looked into are kept in the arena, so the same variable serves several rules without being read again: give the
 * same struct and the same arena to each.
 */
enum cel_var_kind { CEL_VAR_JSON, CEL_VAR_INT, CEL_VAR_STRING, CEL_VAR_BOOL };
struct cel_json;
struct cel_var {
        struct str name;
        enum cel_var_kind kind;
        struct str s;              /* JSON text (one valid value, or the value is an error) or string; borrowed */
        int64_t i;                 /* CEL_VAR_INT, CEL_VAR_BOOL */
        struct cel_json *index;    /* what has been read so far; NULL at first, belongs to the arena */
};
static inline struct cel_var cel_var_json(const char *name, struct str json)
{
        return (struct cel_var){.name = str_of(name), .kind = CEL_VAR_JSON, .s = json};
}
static inline struct cel_var cel_var_int(const char *name, int64_t i)
{
        return (struct cel_var){.name = str_of(name), .kind = CEL_VAR_INT, .i = i};
}

enum cel_type {
        CEL_ERROR, CEL_NULL, CEL_BOOL, CEL_INT, CEL_UINT, CEL_DOUBLE, CEL_STRING, CEL_BYTES, CEL_LIST, CEL_MAP, CEL_TYPE,
        CEL_TIMESTAMP, CEL_DURATION, CEL_TYPES
};
/* The name that type() has for it: "bool", "int", …, "google.protobuf.Timestamp". */
const char *cel_type_name(enum cel_type t);

struct cel_list;
struct cel_map;
struct cel_value {
        enum cel_type type;
        int32_t nanos;             /* CEL_TIMESTAMP */
        int32_t offset_s;          /* CEL_TIMESTAMP: east of UTC, as it was written */
        bool is_json;              /* CEL_LIST, CEL_MAP: json holds */
        union {
                bool b;
                int64_t i;         /* CEL_INT; CEL_DURATION in nanoseconds; CEL_TIMESTAMP in seconds; CEL_TYPE: enum cel_type */
                uint64_t u;
                double d;
                struct str s;      /* CEL_STRING, CEL_BYTES, and the text of CEL_ERROR */
                struct cel_json *json;       /* CEL_LIST and CEL_MAP of a variable … */
                const struct cel_list *list; /* … or built by the expression */
                const struct cel_map *map;
        };
};

/* Evaluates. 0 and *ret; -EINVAL when the outcome is an error: *ret is CEL_ERROR with its text as cel-go words it ("no such key:
 * type", "no such attribute(s): x"), in the arena or static; -ENOMEM when the arena is full. */
int cel_eval(const struct cel *p, struct cel_var *vars, size_t n_vars, struct arena *a, struct cel_value *ret);

/* For rules: 0 and *ret; -EINVAL with *ret_err (arena or static) also when the result is no boolean: "the result of match
 * expression <text> was not a boolean"; -ENOMEM (then *ret_err says so). */
int cel_eval_bool(const struct cel *p, struct cel_var *vars, size_t n_vars, struct arena *a, bool *ret, const char **ret_err);

#endif
