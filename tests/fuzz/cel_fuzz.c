/*
 * CEL: text up to the first NUL is an expression, what follows it a JSON variable. A program must come to the same outcome each
 * time, an error must have a text, and a value's parts must be readable. Nothing may take long or need deep stacks.
 */
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"

#define must_hold(x) ((x) ? (void)0 : abort())

enum { ARENA_BYTES = 8 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look(struct cel_vm *vm, const struct cel_value *v)
{
        struct cel_value found;
        if (v->type != CEL_LIST && v->type != CEL_MAP) {
                must_hold(cel_show(vm, v));
                return;
        }
        for (size_t i = 0, count = cel_count(vm, v); i < count && i < 100; i++) {
                struct cel_value item = cel_item(vm, v, i), at = cel_int((int64_t)i);
                if (v->type == CEL_LIST && !vm->fatal)
                        must_hold(cel_find(vm, v, &at, &found) == CEL_FOUND || vm->fatal);
                must_hold(item.type < CEL_TYPES);
        }
        cel_equal(vm, v, v);
}

static void evaluate(const struct cel *p, struct str json)
{
        struct arena a, b;
        struct cel_value v, w;
        struct cel_var vars[] = {cel_var_json("event", json), cel_var_int("requests", 7)}, again[2];
        memcpy(again, vars, sizeof vars);
        arena_init(&a, ARENA_BYTES);
        arena_init(&b, ARENA_BYTES);
        int r = cel_eval(p, vars, 2, &a, &v);
        must_hold(cel_eval(p, again, 2, &b, &w) == r && v.type == w.type);
        must_hold((r != 0) == (v.type == CEL_ERROR));
        if (r)
                must_hold(v.s.n && str_eq(v.s, w.s));
        struct cel_vm vm = {.p = p, .a = &a, .steps = CEL_MAX_STEPS, .bytes = CEL_MAX_VALUE_BYTES};
        look(&vm, &v);
        arena_fini(&a);
        arena_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        const uint8_t *nul = n ? memchr(data, 0, n) : NULL;
        struct str text = str_n(data, nul ? (size_t)(nul - data) : n);
        struct str json = nul ? str_n(nul + 1, n - text.n - 1) : STR("{\"a\":[1,{\"b\":\"c\"},null,true,\"2020-01-01T00:00:00Z\"],\"s\":\"x\"}");
        struct cel_error err = {0};
        struct cel *p = NULL;
        int r = cel_compile(&p, text, &err);
        must_hold(r == 0 || r == -22);
        if (r) {
                must_hold(err.text[0] && !p);
                return 0;
        }
        evaluate(p, json);
        cel_free(p);
        return 0;
}
