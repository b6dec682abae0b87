/*
 * What CEL's operators do to values. Numbers of different types compare by value; arithmetic wants one type and never wraps.
 * Comparing lists and maps works through a list of pairs instead of recursion.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "kernel/policy/cel_internal.h"
#include "sdk/base/json.h"

static const int64_t NS = 1000000000;
const char cel_no_overload[] = "no such overload";

bool cel_charge(struct cel_vm *vm, size_t n)
{
        if (vm->fatal)
                return false;
        if ((uint64_t)n > (uint64_t)vm->steps) {
                vm->fatal = -EINVAL;
                vm->fatal_text = "the evaluation takes too long";
                return false;
        }
        vm->steps -= (int64_t)n;
        return true;
}

void *cel_alloc(struct cel_vm *vm, size_t n)
{
        void *p = NULL;
        if (vm->fatal)
                return NULL;
        if (n > (uint64_t)vm->bytes) {
                vm->fatal = -EINVAL;
                vm->fatal_text = "the evaluation needs too much memory";
                return NULL;
        }
        vm->bytes -= (int64_t)n;
        p = arena_alloc(vm->a, n);
        if (!p) {
                vm->fatal = -ENOMEM;
                vm->fatal_text = "out of memory";
        }
        return p;
}

struct cel_value cel_error_value(const char *text)
{
        return (struct cel_value){.type = CEL_ERROR, .s = str_of(text)};
}

struct cel_value cel_errorf(struct cel_vm *vm, const char *fmt, ...)
{
        char text[CEL_ERROR_BYTES];
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        if ((size_t)n >= sizeof text)
                n = (int)sizeof text - 1;
        char *p = cel_alloc(vm, (size_t)n + 1);
        if (!p)
                return cel_error_value("out of memory");
        memcpy(p, text, (size_t)n + 1);
        return cel_error_value(p);
}

const char *cel_type_name(enum cel_type t)
{
        static const char *const names[CEL_TYPES] = {
                [CEL_ERROR] = "error",   [CEL_NULL] = "null_type", [CEL_BOOL] = "bool",     [CEL_INT] = "int",   [CEL_UINT] = "uint",
                [CEL_DOUBLE] = "double", [CEL_STRING] = "string",  [CEL_BYTES] = "bytes",   [CEL_LIST] = "list", [CEL_MAP] = "map",
                [CEL_TYPE] = "type",     [CEL_TIMESTAMP] = "google.protobuf.Timestamp",     [CEL_DURATION] = "google.protobuf.Duration"};
        return names[t];
}

/* ---- numbers as text ---- */

/* Digits and decimal exponent of the shortest text: v = 0.DIGITS * 10^point. Returns the number of digits. */
static int shortest_digits(double v, char digits[JSON_DOUBLE_BYTES], int *point)
{
        char text[JSON_DOUBLE_BYTES];
        int n = 0, exponent = 0;
        bool seen_dot = false, minus = false;
        size_t len = json_format_double(text, v, false), i = 0;
        *point = 0;
        for (; i < len && text[i] != 'e' && text[i] != 'E'; i++) {
                if (text[i] == '.') {
                        seen_dot = true;
                } else if (text[i] != '-' && (n || text[i] != '0')) {
                        digits[n++] = text[i];
                        *point += !seen_dot;
                } else if (text[i] == '0' && seen_dot) {
                        *point -= 1;
                }
        }
        for (i++; i < len; i++) {
                minus |= text[i] == '-';
                if (text[i] >= '0' && text[i] <= '9')
                        exponent = exponent * 10 + text[i] - '0';
        }
        *point += minus ? -exponent : exponent;
        while (n > 1 && digits[n - 1] == '0')
                n--;
        return n;
}

static size_t put_exponent(char *out, size_t at, int e)
{
        return at + (size_t)snprintf(out + at, 8, "e%c%02d", e < 0 ? '-' : '+', e < 0 ? -e : e);
}

size_t cel_format_double(char out[CEL_DOUBLE_BYTES], double v, char style)
{
        char d[JSON_DOUBLE_BYTES];
        int point = 0, n;
        size_t at = 0;
        if (isnan(v) || isinf(v))
                return (size_t)snprintf(out, CEL_DOUBLE_BYTES, "%s", isnan(v) ? "NaN" : v < 0 ? "-Inf" : "+Inf");
        if (signbit(v))
                out[at++] = '-';
        n = v == 0 ? 0 : shortest_digits(v, d, &point);
        if (!n) {
                out[at++] = '0';
        } else if (style == 'g' && (point < -3 || point > 6)) {
                out[at++] = d[0];
                if (n > 1)
                        out[at++] = '.';
                for (int i = 1; i < n; i++)
                        out[at++] = d[i];
                at = put_exponent(out, at, point - 1);
        } else {
                if (point <= 0)
                        out[at++] = '0';
                for (int i = 0; i < point; i++)
                        out[at++] = i < n ? d[i] : '0';
                if (n > point)
                        out[at++] = '.';
                for (int i = point < 0 ? point : 0; i < 0; i++)
                        out[at++] = '0';
                for (int i = point > 0 ? point : 0; i < n; i++)
                        out[at++] = d[i];
        }
        out[at] = '\0';
        return at;
}

const char *cel_show(struct cel_vm *vm, const struct cel_value *v)
{
        char text[CEL_DOUBLE_BYTES];
        int n = 0;
        switch (v->type) {
        case CEL_BOOL:
                return v->b ? "true" : "false";
        case CEL_INT:
                n = snprintf(text, sizeof text, "%lld", (long long)v->i);
                break;
        case CEL_UINT:
                n = snprintf(text, sizeof text, "%llu", (unsigned long long)v->u);
                break;
        case CEL_DOUBLE:
                n = (int)cel_format_double(text, v->d, 'g');
                break;
        case CEL_STRING:
        case CEL_BYTES:
                n = snprintf(text, sizeof text, "%.*s", v->s.n > 200 ? 200 : (int)v->s.n, v->s.p);
                break;
        case CEL_ERROR:
        case CEL_NULL:
        case CEL_LIST:
        case CEL_MAP:
        case CEL_TYPE:
        case CEL_TIMESTAMP:
        case CEL_DURATION:
        case CEL_TYPES:
                n = snprintf(text, sizeof text, "%s", v->type == CEL_NULL ? "null" : cel_type_name(v->type));
                break;
        }
        char *p = cel_alloc(vm, (size_t)n + 1);
        if (!p)
                return "";
        memcpy(p, text, (size_t)n);
        p[n] = '\0';
        return p;
}

/* ---- comparing ---- */

static bool is_number(const struct cel_value *v)
{
        return v->type == CEL_INT || v->type == CEL_UINT || v->type == CEL_DOUBLE;
}

static int order_double(double a, double b)
{
        return a < b ? -1 : a > b;
}

static int order_double_with(double d, const struct cel_value *v)
{
        if (v->type == CEL_DOUBLE)
                return order_double(d, v->d);
        if (v->type == CEL_INT)
                return d < -0x1p63 ? -1 : d > 0x1p63 ? 1 : order_double(d, (double)v->i);
        return d < 0 ? -1 : d > 0x1p64 ? 1 : order_double(d, (double)v->u);
}

/* Of two numbers, none of them NaN. */
static int order_numbers(const struct cel_value *a, const struct cel_value *b)
{
        if (a->type == CEL_DOUBLE)
                return order_double_with(a->d, b);
        if (b->type == CEL_DOUBLE)
                return -order_double_with(b->d, a);
        if (a->type == b->type)
                return a->type == CEL_INT ? (a->i > b->i) - (a->i < b->i) : (a->u > b->u) - (a->u < b->u);
        if (a->type == CEL_INT)
                return a->i < 0 || b->u > INT64_MAX ? -1 : (a->i > (int64_t)b->u) - (a->i < (int64_t)b->u);
        return b->i < 0 || a->u > INT64_MAX ? 1 : ((int64_t)a->u > b->i) - ((int64_t)a->u < b->i);
}

static bool is_nan(const struct cel_value *v)
{
        return v->type == CEL_DOUBLE && isnan(v->d);
}

static int order_bytes(struct str a, struct str b)
{
        size_t n = a.n < b.n ? a.n : b.n;
        int r = n ? memcmp(a.p, b.p, n) : 0;
        return r ? (r > 0) - (r < 0) : (a.n > b.n) - (a.n < b.n);
}

bool cel_compare(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b, int *ret, struct cel_value *ret_err)
{
        if (is_nan(a) || (is_number(a) && is_nan(b))) {
                *ret_err = cel_error_value("NaN values cannot be ordered");
                return false;
        }
        if (is_number(a) && is_number(b)) {
                *ret = order_numbers(a, b);
                return true;
        }
        *ret_err = cel_error_value(cel_no_overload);
        if (a->type != b->type)
                return false;
        switch ((int)a->type) {
        case CEL_BOOL:
                *ret = a->b - b->b;
                return true;
        case CEL_STRING:
        case CEL_BYTES:
                cel_charge(vm, (a->s.n < b->s.n ? a->s.n : b->s.n) / 64);
                *ret = order_bytes(a->s, b->s);
                return true;
        case CEL_TIMESTAMP:
                *ret = a->i != b->i ? (a->i > b->i ? 1 : -1) : (a->nanos > b->nanos) - (a->nanos < b->nanos);
                return true;
        case CEL_DURATION:
                *ret = (a->i > b->i) - (a->i < b->i);
                return true;
        default:
                return false;
        }
}

static bool equal_scalars(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b)
{
        struct cel_value unused;
        int order = 1;
        if (a->type == CEL_NULL || b->type == CEL_NULL)
                return a->type == b->type;
        if (a->type == CEL_TYPE)
                return b->type == CEL_TYPE && a->i == b->i;
        if ((a->type == CEL_STRING || a->type == CEL_BYTES) && (a->type != b->type || a->s.n != b->s.n))
                return false;
        return cel_compare(vm, a, b, &order, &unused) && order == 0;
}

/* Pairs that must be equal, still to be looked at. */
struct pairs {
        struct cel_value *v;
        size_t n, cap;
};

static bool add_pair(struct cel_vm *vm, struct pairs *p, const struct cel_value *a, const struct cel_value *b)
{
        if (p->n + 2 > p->cap) {
                size_t cap = p->cap ? p->cap * 2 : 16;
                struct cel_value *v = cel_alloc(vm, cap * sizeof *v);
                if (!v)
                        return false;
                if (p->n)
                        memcpy(v, p->v, p->n * sizeof *v);
                p->v = v;
                p->cap = cap;
        }
        p->v[p->n++] = *a;
        p->v[p->n++] = *b;
        return true;
}

/* Of two lists or two maps: adds the pairs of what they hold. */
static bool open_pair(struct cel_vm *vm, struct pairs *p, const struct cel_value *a, const struct cel_value *b)
{
        size_t n = cel_count(vm, a);
        if (n != cel_count(vm, b) || !cel_charge(vm, n))
                return false;
        for (size_t i = 0; i < n; i++) {
                struct cel_value x = cel_item(vm, a, i), y;
                if (a->type == CEL_LIST) {
                        y = cel_item(vm, b, i);
                } else {
                        struct cel_value key = x;
                        if (cel_find(vm, b, &key, &y) != CEL_FOUND || cel_find(vm, a, &key, &x) != CEL_FOUND)
                                return false;
                }
                if (x.type == CEL_ERROR || y.type == CEL_ERROR || !add_pair(vm, p, &x, &y))
                        return false;
        }
        return true;
}

bool cel_equal(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b)
{
        struct pairs p = {0};
        if ((a->type != CEL_LIST && a->type != CEL_MAP) || a->type != b->type)
                return equal_scalars(vm, a, b);
        if (!add_pair(vm, &p, a, b))
                return false;
        while (p.n) {
                struct cel_value y = p.v[--p.n], x = p.v[--p.n];
                bool open = x.type == y.type && (x.type == CEL_LIST || x.type == CEL_MAP);
                if (!cel_charge(vm, 1) || !(open ? open_pair(vm, &p, &x, &y) : equal_scalars(vm, &x, &y)))
                        return false;
        }
        return true;
}

/* ---- containers ---- */

size_t cel_count(struct cel_vm *vm, const struct cel_value *v)
{
        return v->is_json ? cel_json_count(vm, v->json) : v->type == CEL_LIST ? v->list->n : v->map->n;
}

struct cel_value cel_item(struct cel_vm *vm, const struct cel_value *v, size_t i)
{
        if (v->is_json)
                return v->type == CEL_LIST ? cel_json_at(vm, v->json, i) : cel_json_key(vm, v->json, i);
        return v->type == CEL_LIST ? v->list->v[i] : v->map->kv[2 * i];
}

static enum cel_find find_index(struct cel_vm *vm, const struct cel_value *list, const struct cel_value *key, struct cel_value *ret)
{
        int64_t i = -1;
        bool ok = key->type == CEL_INT || (key->type == CEL_UINT && key->u <= INT64_MAX) ||
                  (key->type == CEL_DOUBLE && key->d >= -0x1p63 && key->d < 0x1p63 && key->d == floor(key->d));
        if (!is_number(key)) {
                *ret = cel_errorf(vm, "unsupported index type '%s' in list", cel_type_name(key->type));
                return CEL_FIND_ERROR;
        }
        if (!ok) {
                *ret = cel_errorf(vm, "unsupported index value %s in list", cel_show(vm, key));
                return CEL_FIND_ERROR;
        }
        i = key->type == CEL_DOUBLE ? (int64_t)key->d : key->i;
        if (i < 0 || (uint64_t)i >= cel_count(vm, list))
                return CEL_MISSING;
        *ret = cel_item(vm, list, (size_t)i);
        return CEL_FOUND;
}

enum cel_find cel_find(struct cel_vm *vm, const struct cel_value *c, const struct cel_value *key, struct cel_value *ret)
{
        if (c->type == CEL_LIST)
                return find_index(vm, c, key, ret);
        if (c->type != CEL_MAP)
                return CEL_MISSING;
        if (c->is_json)
                return key->type == CEL_STRING && cel_json_member(vm, c->json, key->s, ret) ? CEL_FOUND : CEL_MISSING;
        if (!cel_charge(vm, c->map->n / 4))
                return CEL_MISSING;
        for (size_t i = c->map->n; i-- > 0;) {
                if (equal_scalars(vm, &c->map->kv[2 * i], key)) {
                        *ret = c->map->kv[2 * i + 1];
                        return CEL_FOUND;
                }
        }
        return CEL_MISSING;
}

struct cel_value cel_contains(struct cel_vm *vm, const struct cel_value *c, const struct cel_value *v)
{
        struct cel_value unused;
        if (c->type == CEL_MAP)
                return cel_bool(cel_find(vm, c, v, &unused) == CEL_FOUND);
        if (c->type != CEL_LIST)
                return cel_error_value(cel_no_overload);
        size_t n = cel_count(vm, c);
        for (size_t i = 0; i < n && cel_charge(vm, 1); i++) {
                struct cel_value e = cel_item(vm, c, i);
                if (cel_equal(vm, v, &e))
                        return cel_bool(true);
        }
        return cel_bool(false);
}

/* ---- arithmetic ---- */

static struct cel_value overflow(const char *text)
{
        return cel_error_value(text);
}

static struct cel_value arith_int(enum cel_op op, int64_t a, int64_t b)
{
        int64_t v = 0;
        bool bad = false;
        if ((op == CEL_OP_DIV || op == CEL_OP_MOD) && b == 0)
                return cel_error_value(op == CEL_OP_DIV ? "division by zero" : "modulus by zero");
        switch ((int)op) {
        case CEL_OP_ADD:
                bad = __builtin_add_overflow(a, b, &v);
                break;
        case CEL_OP_SUB:
                bad = __builtin_sub_overflow(a, b, &v);
                break;
        case CEL_OP_MUL:
                bad = __builtin_mul_overflow(a, b, &v);
                break;
        default:
                bad = a == INT64_MIN && b == -1;
                if (!bad)
                        v = op == CEL_OP_DIV ? a / b : a % b;
        }
        return bad ? overflow("integer overflow") : cel_int(v);
}

static struct cel_value arith_uint(enum cel_op op, uint64_t a, uint64_t b)
{
        uint64_t v = 0;
        bool bad = false;
        if ((op == CEL_OP_DIV || op == CEL_OP_MOD) && b == 0)
                return cel_error_value(op == CEL_OP_DIV ? "division by zero" : "modulus by zero");
        switch ((int)op) {
        case CEL_OP_ADD:
                bad = __builtin_add_overflow(a, b, &v);
                break;
        case CEL_OP_SUB:
                bad = __builtin_sub_overflow(a, b, &v);
                break;
        case CEL_OP_MUL:
                bad = __builtin_mul_overflow(a, b, &v);
                break;
        default:
                v = op == CEL_OP_DIV ? a / b : a % b;
        }
        return bad ? overflow("unsigned integer overflow") : cel_uint(v);
}

static struct cel_value arith_double(enum cel_op op, double a, double b)
{
        switch ((int)op) {
        case CEL_OP_ADD:
                return cel_double(a + b);
        case CEL_OP_SUB:
                return cel_double(a - b);
        case CEL_OP_MUL:
                return cel_double(a * b);
        case CEL_OP_DIV:
                return cel_double(a / b);
        default:
                return cel_error_value(cel_no_overload);
        }
}

static struct cel_value concat(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b)
{
        struct cel_value r = *a;
        if (!a->s.n || !b->s.n)
                return a->s.n ? *a : *b;
        char *p = cel_alloc(vm, a->s.n + b->s.n);
        if (!p || !cel_charge(vm, (a->s.n + b->s.n) / 64))
                return cel_error_value("out of memory");
        memcpy(p, a->s.p, a->s.n);
        memcpy(p + a->s.n, b->s.p, b->s.n);
        r.s = str_n(p, a->s.n + b->s.n);
        return r;
}

static struct cel_value join_lists(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b)
{
        size_t n = cel_count(vm, a), m = cel_count(vm, b);
        struct cel_list *l = cel_alloc(vm, sizeof *l);
        if (!cel_charge(vm, n + m) || !l)
                return cel_error_value("out of memory");
        *l = (struct cel_list){.n = n + m, .cap = n + m, .v = cel_alloc(vm, (n + m) * sizeof *l->v)};
        if (!l->v)
                return cel_error_value("out of memory");
        for (size_t i = 0; i < n; i++)
                l->v[i] = cel_item(vm, a, i);
        for (size_t i = 0; i < m; i++)
                l->v[n + i] = cel_item(vm, b, i);
        return (struct cel_value){.type = CEL_LIST, .list = l};
}

/* A point in time plus (sign 1) or minus (-1) a span. */
static struct cel_value shift(const struct cel_value *t, int64_t span, int sign)
{
        int64_t seconds, nanos = t->nanos + sign * (span % NS);
        if (__builtin_add_overflow(t->i, sign * (span / NS), &seconds))
                return overflow("timestamp overflow");
        if (nanos < 0) {
                nanos += NS;
                seconds--;
        } else if (nanos >= NS) {
                nanos -= NS;
                seconds++;
        }
        return cel_timestamp(seconds, (int32_t)nanos, t->offset_s);
}

static struct cel_value duration(__int128 ns)
{
        if (ns > INT64_MAX || ns < INT64_MIN)
                return overflow("integer overflow");
        return (struct cel_value){.type = CEL_DURATION, .i = (int64_t)ns};
}

static struct cel_value add(struct cel_vm *vm, const struct cel_value *a, const struct cel_value *b)
{
        if (a->type == CEL_TIMESTAMP && b->type == CEL_DURATION)
                return shift(a, b->i, 1);
        if (a->type == CEL_DURATION && b->type == CEL_TIMESTAMP)
                return shift(b, a->i, 1);
        if (a->type != b->type)
                return cel_error_value(cel_no_overload);
        switch ((int)a->type) {
        case CEL_STRING:
        case CEL_BYTES:
                return concat(vm, a, b);
        case CEL_LIST:
                return join_lists(vm, a, b);
        case CEL_DURATION:
                return duration((__int128)a->i + b->i);
        default:
                return cel_error_value(cel_no_overload);
        }
}

static struct cel_value subtract(const struct cel_value *a, const struct cel_value *b)
{
        if (a->type == CEL_TIMESTAMP && b->type == CEL_DURATION)
                return shift(a, b->i, -1);
        if (a->type == CEL_TIMESTAMP && b->type == CEL_TIMESTAMP)
                return duration(((__int128)a->i - b->i) * NS + a->nanos - b->nanos);
        if (a->type == CEL_DURATION && b->type == CEL_DURATION)
                return duration((__int128)a->i - b->i);
        return cel_error_value(cel_no_overload);
}

struct cel_value cel_arith(struct cel_vm *vm, enum cel_op op, const struct cel_value *a, const struct cel_value *b)
{
        if (a->type == b->type && a->type == CEL_INT)
                return arith_int(op, a->i, b->i);
        if (a->type == b->type && a->type == CEL_UINT)
                return arith_uint(op, a->u, b->u);
        if (a->type == b->type && a->type == CEL_DOUBLE)
                return arith_double(op, a->d, b->d);
        return op == CEL_OP_ADD ? add(vm, a, b) : op == CEL_OP_SUB ? subtract(a, b) : cel_error_value(cel_no_overload);
}

struct cel_value cel_negate(struct cel_vm *vm, const struct cel_value *v)
{
        if (v->type == CEL_INT)
                return v->i == INT64_MIN ? overflow("integer overflow") : cel_int(-v->i);
        if (v->type == CEL_DURATION)
                return v->i == INT64_MIN ? overflow("integer overflow") : duration(-(__int128)v->i);
        return v->type == CEL_DOUBLE ? cel_double(-v->d) : cel_error_value(cel_no_overload);
}
