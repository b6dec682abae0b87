/* Making CEL programs: tables that grow on the heap until cel.c moves them into the program's arena. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"

int cel_fail(struct str text, struct cel_error *err, uint32_t pos, const char *fmt, ...)
{
        int line = 1, column = 1;
        va_list ap;
        for (uint32_t i = 0; i < pos && i < text.n; i++) {
                if (text.p[i] == '\n') {
                        line++;
                        column = 1;
                } else if ((text.p[i] & 0xc0) != 0x80) {
                        column++;
                }
        }
        err->line = line;
        err->column = column;
        int n = snprintf(err->text, sizeof err->text, "ERROR: <input>:%d:%d: ", line, column);
        va_start(ap, fmt);
        vsnprintf(err->text + n, sizeof err->text - (size_t)n, fmt, ap);
        va_end(ap);
        return -EINVAL;
}

static int grow(void **p, uint32_t n, uint32_t *cap, size_t size)
{
        if (n < *cap)
                return 0;
        uint32_t more = *cap ? *cap * 2 : 16;
        void *q = realloc(*p, more * size);
        if (!q)
                return -ENOMEM;
        *p = q;
        *cap = more;
        return 0;
}

int cel_emit(struct cel *p, struct cel_error *err, enum cel_op op, uint32_t arg, uint32_t pos)
{
        if (p->n_code >= CEL_MAX_CODE)
                return cel_fail(p->text, err, pos, "the expression is too long (more than %d instructions)", CEL_MAX_CODE);
        if (grow((void **)&p->code, p->n_code, &p->cap_code, sizeof *p->code))
                return -ENOMEM;
        p->code[p->n_code++] = (struct cel_ins){.op = (uint8_t)op, .arg = arg, .pos = pos};
        return 0;
}

int cel_emit_const(struct cel *p, struct cel_error *err, struct cel_value v, uint32_t pos)
{
        if (grow((void **)&p->consts, p->n_consts, &p->cap_consts, sizeof *p->consts))
                return -ENOMEM;
        p->consts[p->n_consts++] = v;
        return cel_emit(p, err, CEL_OP_CONST, p->n_consts - 1, pos);
}

int cel_emit_name(struct cel *p, struct cel_error *err, enum cel_op op, struct str name, uint32_t pos)
{
        uint32_t i = 0;
        while (i < p->n_names && !str_eq(p->names[i], name))
                i++;
        if (i == CEL_MAX_NAMES)
                return cel_fail(p->text, err, pos, "too many different names (more than %d)", CEL_MAX_NAMES);
        if (i == p->n_names) {
                if (grow((void **)&p->names, p->n_names, &p->cap_names, sizeof *p->names))
                        return -ENOMEM;
                p->names[p->n_names++] = name;
        }
        return cel_emit(p, err, op, i, pos);
}

/* A constant pattern is compiled once; one that is wrong fails when it is evaluated, as in the reference. */
static int compile_pattern(struct cel *p, struct cel_ins *call)
{
        const struct cel_ins *arg = &p->code[p->n_code - 2];
        const char *why;
        if (call->fn != CEL_FN_MATCHES || call->n != 2 || arg->op != CEL_OP_CONST || p->consts[arg->arg].type != CEL_STRING)
                return 0;
        if (grow((void **)&p->regexes, p->n_regexes, &p->cap_regexes, sizeof *p->regexes))
                return -ENOMEM;
        int r = regex_compile(&p->regexes[p->n_regexes], p->consts[arg->arg].s, &p->arena, &why);
        if (!r)
                call->arg = ++p->n_regexes;
        return r == -ENOMEM ? r : 0;
}

int cel_emit_call(struct cel *p, struct cel_error *err, enum cel_fn fn, uint32_t n, bool member, uint32_t pos)
{
        int r = n > UINT8_MAX ? cel_fail(p->text, err, pos, "too many arguments") : cel_emit(p, err, CEL_OP_CALL, 0, pos);
        if (r)
                return r;
        struct cel_ins *in = &p->code[p->n_code - 1];
        in->fn = (uint8_t)fn;
        in->n = (uint8_t)n;
        in->member = member;
        return compile_pattern(p, in);
}
