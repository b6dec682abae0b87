/*
 * Reads argv by the rows of a program. Rows are few, so look-up is a linear search; nothing here runs twice.
 * Errors go to the caller's buffer as one sentence; a failed parse frees the lists it made. A wrong default in a row is a bug.
 */
#include "sdk/base/flags.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdk/base/log.h"

enum { NAME_MAX_CHARS = 63 };

struct parser {
        const struct flag_program *p;
        void *opts;
        bool *given;             /* by row */
        char *err;
        size_t err_n;
};

static void *field(const struct flag_row *row, void *opts)
{
        return (char *)opts + row->offset;
}

__attribute__((format(printf, 2, 3))) static int fail(struct parser *ps, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(ps->err, ps->err_n, fmt, ap);
        va_end(ap);
        return -EINVAL;
}

/* ---- lists ---- */

static int list_push(struct flag_list *l, struct str s)
{
        const char **v = realloc(l->v, (l->n + 1) * sizeof(*v));
        if (!v)
                return -ENOMEM;
        l->v = v;
        char *copy = malloc(s.n + 1);
        if (!copy)
                return -ENOMEM;
        if (s.n)
                memcpy(copy, s.p, s.n);
        copy[s.n] = '\0';
        v[l->n++] = copy;
        return 0;
}

static void list_free(struct flag_list *l)
{
        for (size_t i = 0; i < l->n; i++)
                free((char *)l->v[i]);
        free(l->v);
        *l = (struct flag_list){0};
}

/* One field of a comma-separated line into out (as long as the line at least); RFC 4180 quotes. -EINVAL: a quote is not closed. */
static int csv_field(struct str *rest, char *out, size_t *ret_n)
{
        size_t n = 0;
        if (!rest->n || rest->p[0] != '"') {
                struct str f = str_cut(rest, ',');
                if (f.n)
                        memcpy(out, f.p, f.n);
                *ret_n = f.n;
                return 0;
        }
        for (size_t i = 1; i < rest->n; i++) {
                if (rest->p[i] != '"') {
                        out[n++] = rest->p[i];
                        continue;
                }
                if (i + 1 < rest->n && rest->p[i + 1] == '"') {
                        out[n++] = rest->p[i++];
                        continue;
                }
                *rest = str_skip(*rest, i + 1);
                *ret_n = n;
                if (rest->n && rest->p[0] != ',')
                        return -EINVAL;
                *rest = rest->n ? str_skip(*rest, 1) : STR_NULL;
                return 0;
        }
        return -EINVAL;
}

static int list_add_csv(struct flag_list *l, struct str s)
{
        if (!s.n)
                return 0;
        char *out = malloc(s.n);
        int r = out ? 0 : -ENOMEM;
        for (size_t n; !r && s.p;) {
                r = csv_field(&s, out, &n);
                if (!r)
                        r = list_push(l, str_n(out, n));
        }
        free(out);
        return r;
}

/* ---- values ---- */

static int parse_port(struct str s, int *ret)
{
        int v = 0;
        if (!s.n) {
                *ret = -1;
                return 0;
        }
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return -EINVAL;
                v = v * 10 + (s.p[i] - '0');
                if (v > 65535)
                        return -EINVAL;
        }
        *ret = v;
        return 0;
}

static int parse_int(struct str s, int *ret)
{
        int64_t v;
        if (parse_int64(s, &v) || v < INT_MIN || v > INT_MAX)
                return -EINVAL;
        *ret = (int)v;
        return 0;
}

static int parse_tristate(struct str s, int *ret)
{
        bool b;
        int r = parse_bool(s, &b);
        if (!r)
                *ret = b;
        return r;
}

static int parse_optional_duration(struct str s, int64_t *ret)
{
        if (s.n)
                return parse_duration(s, ret);
        *ret = -1;
        return 0;
}

static int store(const struct flag_row *row, void *opts, const char *value)
{
        void *f = field(row, opts);
        struct str s = str_of(value);
        switch (row->kind) {
        case FLAG_BOOL: return parse_bool(s, f);
        case FLAG_TRISTATE: return parse_tristate(s, f);
        case FLAG_STRING: *(const char **)f = value; return 0;
        case FLAG_INT: return parse_int(s, f);
        case FLAG_INT64: return parse_int64(s, f);
        case FLAG_PORT: return parse_port(s, f);
        case FLAG_LIST: return list_add_csv(f, s);
        case FLAG_ARRAY: return list_push(f, s);
        case FLAG_DURATION: return parse_optional_duration(s, f);
        case FLAG_QUANTITY: return parse_quantity(s, f);
        case FLAG_GROUP: break;
        }
        return -EINVAL;
}

static const char *expected(enum flag_kind kind)
{
        switch (kind) {
        case FLAG_BOOL:
        case FLAG_TRISTATE: return "true or false";
        case FLAG_INT: return "a whole number between -2147483648 and 2147483647";
        case FLAG_INT64: return "a whole number";
        case FLAG_PORT: return "a port between 0 and 65535";
        case FLAG_LIST: return "values separated by commas, with every quote closed";
        case FLAG_DURATION: return "a duration such as 500ms, 10s or 1h30m";
        case FLAG_QUANTITY: return "a size such as 4Mi, 512Ki or 1000000";
        case FLAG_STRING:
        case FLAG_ARRAY:
        case FLAG_GROUP: break;
        }
        return "a value";
}

static bool is_switch(const struct flag_row *row)
{
        return row->kind == FLAG_BOOL || row->kind == FLAG_TRISTATE;
}

static void set_zero(const struct flag_row *row, void *opts)
{
        void *f = field(row, opts);
        switch (row->kind) {
        case FLAG_BOOL: *(bool *)f = false; break;
        case FLAG_INT: *(int *)f = 0; break;
        case FLAG_TRISTATE:
        case FLAG_PORT: *(int *)f = -1; break;
        case FLAG_STRING: *(const char **)f = ""; break;
        case FLAG_INT64:
        case FLAG_QUANTITY: *(int64_t *)f = 0; break;
        case FLAG_DURATION: *(int64_t *)f = -1; break;
        case FLAG_LIST:
        case FLAG_ARRAY: *(struct flag_list *)f = (struct flag_list){0}; break;
        case FLAG_GROUP: break;
        }
}

static int set_defaults(struct parser *ps)
{
        for (size_t i = 0; i < ps->p->n_rows; i++) {
                set_zero(&ps->p->rows[i], ps->opts);
                if (ps->p->rows[i].given)
                        *((bool *)ps->opts + ps->p->rows[i].given) = false;
        }
        for (size_t i = 0; i < ps->p->n_rows; i++) {
                const struct flag_row *row = &ps->p->rows[i];
                if (row->kind == FLAG_GROUP || !row->def || (!*row->def && is_switch(row)))
                        continue;
                int r = store(row, ps->opts, row->def);
                if (r == -ENOMEM)
                        return r;
                must(!r);
        }
        return 0;
}

/* ---- names ---- */

static size_t least(size_t a, size_t b)
{
        return a < b ? a : b;
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b. */
static size_t distance(struct str a, struct str b)
{
        unsigned char d[3][NAME_MAX_CHARS + 1];
        if (a.n > NAME_MAX_CHARS || b.n > NAME_MAX_CHARS)
                return SIZE_MAX;
        for (size_t j = 0; j <= b.n; j++)
                d[0][j] = (unsigned char)j;
        for (size_t i = 1; i <= a.n; i++) {
                unsigned char *now = d[i % 3], *above = d[(i + 2) % 3], *two = d[(i + 1) % 3];
                now[0] = (unsigned char)i;
                for (size_t j = 1; j <= b.n; j++) {
                        size_t v = least(least(now[j - 1], above[j]) + 1u, above[j - 1] + (a.p[i - 1] != b.p[j - 1]));
                        if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                                v = least(v, two[j - 2] + 1u);
                        now[j] = (unsigned char)v;
                }
        }
        return d[a.n % 3][b.n];
}

static const struct flag_row *nearest(const struct flag_program *p, struct str name)
{
        const struct flag_row *best = NULL;
        size_t best_d = name.n / 4 + 2;
        for (size_t i = 0; i < p->n_rows; i++) {
                const struct flag_row *row = &p->rows[i];
                if (row->kind == FLAG_GROUP || row->attr & (FLAG_HIDDEN | FLAG_DEPRECATED))
                        continue;
                size_t d = distance(name, str_of(row->name));
                if (d > 2 && name.n >= 4 && str_find(str_of(row->name), name) >= 0)
                        d = 2; /* a part of the name, such as http-port */
                if (d < best_d) {
                        best_d = d;
                        best = row;
                }
        }
        return best;
}

static const struct flag_row *find_name(const struct flag_program *p, struct str name)
{
        for (size_t i = 0; i < p->n_rows; i++)
                if (p->rows[i].kind != FLAG_GROUP && str_eqz(name, p->rows[i].name))
                        return &p->rows[i];
        return NULL;
}

static const struct flag_row *find_short(const struct flag_program *p, char c)
{
        for (size_t i = 0; i < p->n_rows; i++)
                if (p->rows[i].kind != FLAG_GROUP && p->rows[i].short_name == c)
                        return &p->rows[i];
        return NULL;
}

/* ---- arguments ---- */

static int set(struct parser *ps, const struct flag_row *row, const char *value)
{
        size_t i = (size_t)(row - ps->p->rows);
        if ((!ps->given[i] || row->attr & FLAG_LAST) && (row->kind == FLAG_LIST || row->kind == FLAG_ARRAY))
                list_free(field(row, ps->opts)); /* the default, or what was said before */
        if (!ps->given[i] && row->attr & FLAG_DEPRECATED)
                fprintf(stderr, "Flag --%s has been deprecated, %s\n", row->name, row->note ? row->note : "do not use it");
        ps->given[i] = true;
        if (row->given)
                *((bool *)ps->opts + row->given) = true;
        int r = store(row, ps->opts, value);
        if (r == -EINVAL)
                return fail(ps, "invalid argument \"%s\" for \"--%s\" flag: expected %s", value, row->name, expected(row->kind));
        return r;
}

static int unknown(struct parser *ps, const char *arg, struct str name)
{
        const struct flag_row *row = nearest(ps->p, name);
        int n = (int)(name.p - arg + (ptrdiff_t)name.n);
        if (row)
                return fail(ps, "unknown flag: %.*s; did you mean --%s?", n, arg, row->name);
        return fail(ps, "unknown flag: %.*s; `%s --help` lists the flags", n, arg, ps->p->name);
}

/* argv[*i] begins with '-'. Takes its value too, and moves *i to the last argument taken. */
static int take_flag(struct parser *ps, int argc, char **argv, int *i)
{
        const char *arg = argv[*i], *value = NULL;
        bool one_dash = arg[1] != '-';
        struct str rest = str_of(arg + (one_dash ? 1 : 2)), name = str_cut(&rest, '=');
        const struct flag_row *row = find_name(ps->p, name);
        if (rest.p)
                value = rest.p;
        if (!row && one_dash && name.n) {
                row = find_short(ps->p, name.p[0]);
                if (row && name.n > 1 && is_switch(row))
                        row = NULL;
                if (row && name.n > 1)
                        value = name.p + 1; /* -n5 */
        }
        if (!row && !rest.p && (str_eqz(name, "help") || (one_dash && str_eqz(name, "h")))) {
                const char *no_color = getenv("NO_COLOR");
                flags_help(ps->p, stdout, isatty(STDOUT_FILENO) && !(no_color && *no_color));
                return -ECANCELED;
        }
        if (!row)
                return unknown(ps, arg, name);
        if (!value && is_switch(row))
                value = "true";
        if (!value && *i + 1 >= argc)
                return fail(ps, "flag needs an argument: --%s; write --%s=%s", row->name, row->name, flag_placeholder(row));
        if (!value)
                value = argv[++*i];
        return set(ps, row, value);
}

static int take_all(struct parser *ps, int argc, char **argv)
{
        int out = 1, r = set_defaults(ps);
        for (int i = 1; !r && i < argc; i++) {
                if (strcmp(argv[i], "--") == 0) {
                        while (++i < argc)
                                argv[out++] = argv[i];
                        break;
                }
                if (argv[i][0] == '-' && argv[i][1])
                        r = take_flag(ps, argc, argv, &i);
                else
                        argv[out++] = argv[i];
        }
        return r ? r : out - 1;
}

int flags_parse(const struct flag_program *p, void *opts, int argc, char **argv, char *err, size_t err_n)
{
        struct parser ps = {.p = p, .opts = opts, .err = err, .err_n = err_n};
        if (err_n)
                err[0] = '\0';
        ps.given = calloc(p->n_rows + 1, sizeof(*ps.given));
        int r = ps.given ? take_all(&ps, argc, argv) : -ENOMEM;
        if (r < 0 && ps.given)
                flags_free(p, opts);
        if (r == -ENOMEM)
                snprintf(err, err_n, "out of memory");
        free(ps.given);
        return r;
}

void flags_free(const struct flag_program *p, void *opts)
{
        for (size_t i = 0; i < p->n_rows; i++)
                if (p->rows[i].kind == FLAG_LIST || p->rows[i].kind == FLAG_ARRAY)
                        list_free(field(&p->rows[i], opts));
}
