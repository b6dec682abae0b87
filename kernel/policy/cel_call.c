/* CEL's functions on values: conversions, strings, sizes, times. Arguments that no overload takes give "no such overload". */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"
#include "sdk/base/flags.h"
#include "sdk/base/utf8.h"

enum { NUMBER_BYTES = 400 };

static struct cel_value no_overload(void)
{
        return cel_error_value(cel_no_overload);
}

static struct cel_value no_overload_for(struct cel_vm *vm, enum cel_fn fn, const struct cel_value *v)
{
        return cel_errorf(vm, "no such overload: %s(%s)", cel_functions[fn].name, cel_type_name(v->type));
}

/* A receiver that has no such method. */
static struct cel_value no_method(struct cel_vm *vm, enum cel_fn fn, const struct cel_value *v)
{
        if (v->type == CEL_STRING || v->type == CEL_TIMESTAMP || v->type == CEL_DURATION)
                return no_overload();
        return cel_errorf(vm, "no such overload: %s", cel_functions[fn].name);
}

static struct cel_value no_conversion(struct cel_vm *vm, enum cel_type from, enum cel_type to)
{
        return cel_errorf(vm, "type conversion error from '%s' to '%s'", cel_type_name(from), cel_type_name(to));
}

/* ---- from text ---- */

/* Decimal digits with an optional sign. */
static bool read_digits(struct str s, bool *minus, uint64_t *ret)
{
        uint64_t v = 0;
        *minus = s.n && s.p[0] == '-';
        if (s.n && (*minus || s.p[0] == '+'))
                s = str_skip(s, 1);
        if (!s.n)
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < '0' || s.p[i] > '9' || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
                        return false;
        *ret = v;
        return true;
}

static bool read_double(struct str s, double *ret)
{
        char z[NUMBER_BYTES], *end;
        if (!s.n || s.n >= sizeof z || isspace((unsigned char)s.p[0]) || memchr(s.p, '(', s.n) || memchr(s.p, 0, s.n))
                return false;
        memcpy(z, s.p, s.n);
        z[s.n] = '\0';
        bool hex = strpbrk(z, "xX") != NULL;
        if (hex && !strpbrk(z, "pP"))
                return false;
        *ret = strtod(z, &end);
        return !*end && (!isinf(*ret) || strpbrk(z, "iI"));
}

static struct cel_value from_string(struct cel_vm *vm, enum cel_fn fn, struct str s)
{
        struct cel_value v = {0};
        uint64_t u = 0;
        bool minus = false, ok = false;
        cel_charge(vm, s.n / 64);
        switch ((int)fn) {
        case CEL_FN_INT:
                v.type = CEL_INT;
                ok = read_digits(s, &minus, &u) && u <= (uint64_t)INT64_MAX + minus;
                v.i = minus ? (int64_t)(0 - u) : (int64_t)u;
                break;
        case CEL_FN_UINT:
                v.type = CEL_UINT;
                ok = s.n && s.p[0] != '+' && s.p[0] != '-' && read_digits(s, &minus, &v.u);
                break;
        case CEL_FN_DOUBLE:
                v.type = CEL_DOUBLE;
                ok = read_double(s, &v.d);
                break;
        case CEL_FN_BOOL:
                v.type = CEL_BOOL;
                ok = !parse_bool(s, &v.b);
                break;
        case CEL_FN_DURATION:
                v.type = CEL_DURATION;
                ok = !parse_duration(s, &v.i);
                break;
        case CEL_FN_TIMESTAMP:
                return cel_parse_timestamp(vm, s);
        case CEL_FN_BYTES:
                return (struct cel_value){.type = CEL_BYTES, .s = s};
        default:
                return cel_string(s);
        }
        return ok ? v : no_conversion(vm, CEL_STRING, v.type);
}

/* ---- to text ---- */

/* Seconds with the digits that a double has, as Go's Duration.Seconds(). */
static size_t format_duration(char out[CEL_DOUBLE_BYTES], int64_t ns)
{
        size_t n = cel_format_double(out, (double)(ns / 1000000000) + (double)(ns % 1000000000) / 1e9, 'f');
        out[n++] = 's';
        return n;
}

static struct cel_value to_string(struct cel_vm *vm, const struct cel_value *v)
{
        char text[CEL_DOUBLE_BYTES];
        size_t n = 0;
        switch (v->type) {
        case CEL_BOOL:
                return cel_string(v->b ? STR("true") : STR("false"));
        case CEL_INT:
                n = (size_t)snprintf(text, sizeof text, "%" PRId64, v->i);
                break;
        case CEL_UINT:
                n = (size_t)snprintf(text, sizeof text, "%" PRIu64, v->u);
                break;
        case CEL_DOUBLE:
                n = cel_format_double(text, v->d, 'g');
                break;
        case CEL_BYTES:
                cel_charge(vm, v->s.n / 64);
                return utf8_is_valid(v->s) ? cel_string(v->s) : cel_error_value("invalid UTF-8 in bytes, cannot convert to string");
        case CEL_TIMESTAMP:
                n = cel_format_timestamp(text, v);
                break;
        case CEL_DURATION:
                n = format_duration(text, v->i);
                break;
        case CEL_ERROR:
        case CEL_NULL:
        case CEL_STRING:
        case CEL_LIST:
        case CEL_MAP:
        case CEL_TYPE:
        case CEL_TYPES:
                return no_overload_for(vm, CEL_FN_STRING, v);
        }
        char *p = cel_alloc(vm, n);
        if (!p)
                return cel_error_value("out of memory");
        memcpy(p, text, n);
        return cel_string(str_n(p, n));
}

/* ---- between numbers ---- */

static struct cel_value to_int(struct cel_vm *vm, const struct cel_value *v)
{
        switch ((int)v->type) {
        case CEL_UINT:
                return v->u > INT64_MAX ? cel_error_value("integer overflow") : cel_int((int64_t)v->u);
        case CEL_DOUBLE:
                return isnan(v->d) || v->d <= -0x1p63 || v->d >= 0x1p63 ? cel_error_value("integer overflow") : cel_int((int64_t)v->d);
        case CEL_TIMESTAMP:
        case CEL_DURATION:
                return cel_int(v->i);
        default:
                return no_overload_for(vm, CEL_FN_INT, v);
        }
}

static struct cel_value to_uint(struct cel_vm *vm, const struct cel_value *v)
{
        switch ((int)v->type) {
        case CEL_INT:
                return v->i < 0 ? cel_error_value("unsigned integer overflow") : cel_uint((uint64_t)v->i);
        case CEL_DOUBLE:
                return isnan(v->d) || v->d < 0 || v->d >= 0x1p64 ? cel_error_value("unsigned integer overflow") : cel_uint((uint64_t)v->d);
        default:
                return no_overload_for(vm, CEL_FN_UINT, v);
        }
}

static struct cel_value convert(struct cel_vm *vm, enum cel_fn fn, const struct cel_value *v)
{
        static const uint8_t own[CEL_FN_COUNT] = {[CEL_FN_BOOL] = CEL_BOOL,           [CEL_FN_BYTES] = CEL_BYTES,   [CEL_FN_DOUBLE] = CEL_DOUBLE,
                                                  [CEL_FN_DURATION] = CEL_DURATION,   [CEL_FN_INT] = CEL_INT,       [CEL_FN_STRING] = CEL_STRING,
                                                  [CEL_FN_TIMESTAMP] = CEL_TIMESTAMP, [CEL_FN_UINT] = CEL_UINT};
        if (v->type == own[fn])
                return *v;
        if (v->type == CEL_STRING)
                return from_string(vm, fn, v->s);
        switch ((int)fn) {
        case CEL_FN_STRING:
                return to_string(vm, v);
        case CEL_FN_INT:
                return to_int(vm, v);
        case CEL_FN_UINT:
                return to_uint(vm, v);
        case CEL_FN_DOUBLE:
                return v->type == CEL_INT ? cel_double((double)v->i) : v->type == CEL_UINT ? cel_double((double)v->u) : no_overload_for(vm, fn, v);
        case CEL_FN_TIMESTAMP:
                return v->type == CEL_INT ? cel_timestamp(v->i, 0, 0) : no_overload_for(vm, fn, v);
        case CEL_FN_DURATION:
                return v->type == CEL_INT ? no_conversion(vm, CEL_INT, CEL_DURATION) : no_overload_for(vm, fn, v);
        default:
                return no_overload_for(vm, fn, v);
        }
}

/* ---- strings ---- */

static size_t code_points(struct str s)
{
        size_t n = 0;
        for (size_t i = 0; i < s.n; n++) {
                int len = utf8_char_len(s.p + i, s.n - i);
                i += len ? (size_t)len : 1;
        }
        return n;
}

static struct cel_value size(struct cel_vm *vm, const struct cel_value *v)
{
        switch ((int)v->type) {
        case CEL_STRING:
                cel_charge(vm, v->s.n / 64);
                return cel_int((int64_t)code_points(v->s));
        case CEL_BYTES:
                return cel_int((int64_t)v->s.n);
        case CEL_LIST:
        case CEL_MAP:
                return cel_int((int64_t)cel_count(vm, v));
        default:
                return cel_error_value("no such overload: size");
        }
}

static struct cel_value matches(struct cel_vm *vm, const struct cel_ins *in, const struct cel_value *args)
{
        struct regex *re = in->arg ? vm->p->regexes[in->arg - 1] : NULL;
        const char *why = NULL;
        int r = re ? 0 : regex_compile(&re, args[1].s, vm->a, &why);
        if (!in->arg)
                cel_charge(vm, regex_cost(re) + args[1].s.n);
        if (!r)
                r = regex_match(re, args[0].s, vm->a, &vm->steps);
        if (r >= 0)
                return cel_bool(r == 1);
        if (r == -EINVAL)
                return cel_errorf(vm, "error parsing regexp: %s", why ? why : "");
        vm->fatal = r == -ENOMEM ? -ENOMEM : -EINVAL;
        vm->fatal_text = r == -ENOMEM ? "out of memory" : "the evaluation takes too long";
        return cel_error_value(vm->fatal_text);
}

static struct cel_value of_strings(struct cel_vm *vm, const struct cel_ins *in, const struct cel_value *args)
{
        struct str s = args[0].s, t = args[1].s;
        if (args[0].type != CEL_STRING || args[1].type != CEL_STRING)
                return in->fn == CEL_FN_MATCHES ? no_method(vm, CEL_FN_MATCHES, args) : no_overload();
        switch ((int)in->fn) {
        case CEL_FN_CONTAINS:
                cel_charge(vm, s.n / 64);
                return cel_bool(!t.n || str_find(s, t) >= 0);
        case CEL_FN_STARTS_WITH:
                return cel_bool(str_has_prefix(s, t));
        case CEL_FN_ENDS_WITH:
                return cel_bool(str_has_suffix(s, t));
        default:
                return matches(vm, in, args);
        }
}

static struct cel_value of_time(struct cel_vm *vm, const struct cel_ins *in, const struct cel_value *args)
{
        if (args[0].type != CEL_TIMESTAMP && args[0].type != CEL_DURATION)
                return no_method(vm, (enum cel_fn)in->fn, args);
        if (in->n == 2 && args[1].type != CEL_STRING)
                return no_overload();
        return cel_time_part(vm, (enum cel_fn)in->fn, &args[0], in->n == 2 ? &args[1].s : NULL);
}

struct cel_value cel_call(struct cel_vm *vm, const struct cel_ins *in, const struct cel_value *args)
{
        switch ((enum cel_fn)in->fn) {
        case CEL_FN_SIZE:
                return size(vm, args);
        case CEL_FN_TYPE:
                return cel_type_value(args->type);
        case CEL_FN_DYN:
                return *args;
        case CEL_FN_BOOL:
        case CEL_FN_BYTES:
        case CEL_FN_DOUBLE:
        case CEL_FN_DURATION:
        case CEL_FN_INT:
        case CEL_FN_STRING:
        case CEL_FN_TIMESTAMP:
        case CEL_FN_UINT:
                return convert(vm, (enum cel_fn)in->fn, args);
        case CEL_FN_CONTAINS:
        case CEL_FN_ENDS_WITH:
        case CEL_FN_STARTS_WITH:
        case CEL_FN_MATCHES:
                return of_strings(vm, in, args);
        case CEL_FN_FULL_YEAR:
        case CEL_FN_MONTH:
        case CEL_FN_DAY_OF_YEAR:
        case CEL_FN_DAY_OF_MONTH:
        case CEL_FN_DATE:
        case CEL_FN_DAY_OF_WEEK:
        case CEL_FN_HOURS:
        case CEL_FN_MINUTES:
        case CEL_FN_SECONDS:
        case CEL_FN_MILLISECONDS:
                return of_time(vm, in, args);
        case CEL_FN_COUNT:
                break;
        }
        return no_overload();
}
