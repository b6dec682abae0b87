/*
 * Variables that are JSON, read on demand. An object or list is cut into its members the first time that something looks into it;
 * each member keeps its bytes until it is asked for, then its value. What nobody selects is only skipped over. Of members that
 * share a name the last one counts, as in encoding/json.
 */
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"
#include "sdk/base/json.h"

struct member {
        struct str name, raw;
        struct cel_value value;
        uint32_t order;
        bool known;   /* value holds */
};
struct cel_json {
        struct str raw;
        bool is_list, read, unique;
        size_t n, cap;
        struct member *m;
};

static const char not_json[] = "the variable is not valid JSON";

struct cel_value cel_from_json(struct cel_vm *vm, struct str raw)
{
        struct json_reader r;
        struct cel_value v = {.type = CEL_NULL};
        json_read_init(&r, raw);
        enum json_type type = json_peek(&r);
        bool ok = true;
        switch (type) {
        case JSON_NULL:
                break;
        case JSON_TRUE:
        case JSON_FALSE:
                v = cel_bool(type == JSON_TRUE);
                break;
        case JSON_NUMBER:
                v.type = CEL_DOUBLE;
                ok = json_read_double(&r, &v.d);
                break;
        case JSON_STRING:
                v.type = CEL_STRING;
                ok = json_read_string(&r, vm->a, &v.s);
                break;
        case JSON_ARRAY:
        case JSON_OBJECT:
                v.type = type == JSON_ARRAY ? CEL_LIST : CEL_MAP;
                v.is_json = true;
                v.json = cel_alloc(vm, sizeof *v.json);
                if (v.json)
                        *v.json = (struct cel_json){.raw = raw, .is_list = type == JSON_ARRAY};
                ok = v.json;
                break;
        case JSON_ERROR:
        case JSON_END:
                ok = false;
                break;
        }
        return ok ? v : cel_error_value(not_json);
}

struct cel_value cel_var_value(struct cel_vm *vm, struct cel_var *v)
{
        struct cel_value r;
        switch (v->kind) {
        case CEL_VAR_INT:
                return cel_int(v->i);
        case CEL_VAR_BOOL:
                return cel_bool(v->i != 0);
        case CEL_VAR_STRING:
                return cel_string(v->s);
        case CEL_VAR_JSON:
                break;
        }
        if (v->index)
                return (struct cel_value){.type = v->index->is_list ? CEL_LIST : CEL_MAP, .is_json = true, .json = v->index};
        r = cel_from_json(vm, v->s);
        if (r.is_json)
                v->index = r.json;
        return r;
}

/* ---- members ---- */

static bool add_member(struct cel_vm *vm, struct cel_json *j, struct str name, struct str raw)
{
        if (j->n == j->cap) {
                size_t cap = j->cap ? j->cap * 2 : 8;
                struct member *m = arena_grow(vm->a, j->m, j->cap * sizeof *m, cap * sizeof *m);
                if (!m || !cel_charge(vm, cap / 8 + 1))
                        return false;
                j->m = m;
                j->cap = cap;
        }
        j->m[j->n] = (struct member){.name = name, .raw = raw, .order = (uint32_t)j->n};
        j->n++;
        return true;
}

/* Cuts the text into members. False: it is not valid, or memory ran out; then there are none. */
static bool read_members(struct cel_vm *vm, struct cel_json *j)
{
        struct json_reader r;
        struct str name = STR_NULL, raw;
        if (j->read)
                return true;
        if (!cel_charge(vm, j->raw.n / 64))
                return false;
        json_read_init(&r, j->raw);
        bool ok = j->is_list ? json_enter_array(&r) : json_enter_object(&r);
        while (ok && (j->is_list ? json_next_element(&r) : json_next_member(&r, vm->a, &name)))
                ok = json_read_raw(&r, &raw) && add_member(vm, j, name, raw);
        if (!ok || r.error)
                j->n = 0;
        j->read = ok && !r.error;
        return j->read;
}

static int by_name(const void *a, const void *b)
{
        const struct member *x = a, *y = b;
        size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
        int r = n ? memcmp(x->name.p, y->name.p, n) : 0;
        if (!r)
                r = (x->name.n > y->name.n) - (x->name.n < y->name.n);
        return r ? r : (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b)
{
        const struct member *x = a, *y = b;
        return (x->order > y->order) - (x->order < y->order);
}

/* Leaves the last of each name, in the order of the text. */
static void dedupe(struct cel_vm *vm, struct cel_json *j)
{
        size_t kept = 0;
        if (j->unique || j->is_list)
                return;
        j->unique = true;
        if (!cel_charge(vm, j->n))
                return;
        if (j->n > 1)
                qsort(j->m, j->n, sizeof *j->m, by_name);
        for (size_t i = 0; i < j->n; i++)
                if (i + 1 == j->n || !str_eq(j->m[i].name, j->m[i + 1].name))
                        j->m[kept++] = j->m[i];
        j->n = kept;
        if (j->n > 1)
                qsort(j->m, j->n, sizeof *j->m, by_order);
}

static struct cel_value value_of(struct cel_vm *vm, struct member *m)
{
        if (!m->known) {
                m->value = cel_from_json(vm, m->raw);
                m->known = true;
        }
        return m->value;
}

size_t cel_json_count(struct cel_vm *vm, struct cel_json *j)
{
        if (!read_members(vm, j))
                return 0;
        dedupe(vm, j);
        return j->n;
}

struct cel_value cel_json_key(struct cel_vm *vm, struct cel_json *j, size_t i)
{
        return cel_string(j->m[i].name);
}

struct cel_value cel_json_at(struct cel_vm *vm, struct cel_json *j, size_t i)
{
        return value_of(vm, &j->m[i]);
}

bool cel_json_member(struct cel_vm *vm, struct cel_json *j, struct str name, struct cel_value *ret)
{
        if (!read_members(vm, j) || !cel_charge(vm, j->n / 16))
                return false;
        for (size_t i = j->n; i-- > 0;) {
                if (str_eq(j->m[i].name, name)) {
                        *ret = value_of(vm, &j->m[i]);
                        return true;
                }
        }
        return false;
}
