/*
 * Values by their type's OID (PostgreSQL's catalog numbers, which never change): numbers and JSON as they stand, truth values, bytes in
 * base64, times in RFC 3339, UUIDs as sixteen numbers, arrays of these; all others as text. Arrays are read without recursion: braces
 * become brackets.
 */
#include "plugins/bindings.postgresql/rows.h"

#include <errno.h>
#include <stdio.h>

#include "sdk/base/json.h"
#include "sdk/base/rfc3339.h"

enum { DIMENSIONS_MAX = 32 }; /* PostgreSQL has six */
enum kind { KIND_TEXT, KIND_BOOL, KIND_NUMBER, KIND_FLOAT, KIND_JSON, KIND_BYTES, KIND_DATE, KIND_TIME, KIND_UUID, KIND_ADDRESS };
static const struct {
        uint32_t type, array;
        enum kind kind;
} types[] = {{16, 1000, KIND_BOOL},   {20, 1016, KIND_NUMBER},  {21, 1005, KIND_NUMBER}, {23, 1007, KIND_NUMBER}, {26, 1028, KIND_NUMBER},
             {700, 1021, KIND_FLOAT}, {701, 1022, KIND_FLOAT},  {1700, 1231, KIND_NUMBER}, {114, 199, KIND_JSON}, {3802, 3807, KIND_JSON},
             {17, 1001, KIND_BYTES},  {1082, 1182, KIND_DATE},  {1114, 1115, KIND_TIME}, {1184, 1185, KIND_TIME}, {2950, 2951, KIND_UUID},
             {869, 1041, KIND_ADDRESS}, {25, 1009, KIND_TEXT},  {1043, 1015, KIND_TEXT}, {1042, 1014, KIND_TEXT}, {19, 1003, KIND_TEXT},
             {1083, 1183, KIND_TEXT}, {1186, 1187, KIND_TEXT},  {650, 651, KIND_TEXT}};

static int hex_digit(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes of a hexadecimal text without what is no digit. */
static struct str unhex(struct arena *a, struct str s)
{
        char *to = arena_alloc(a, s.n / 2 + 1);
        size_t digits = 0;
        for (size_t i = 0; to && i < s.n; i++) {
                int d = hex_digit(s.p[i]);
                if (d < 0)
                        continue;
                to[digits / 2] = (char)(digits % 2 ? to[digits / 2] | d : d << 4);
                digits++;
        }
        return str_n(to, digits / 2);
}

/* "2021-09-22[ 16:22:35[.6849][+02[:30[:15]]]]" as RFC 3339 in UTC, fraction without zeros at its end; else as it stands. */
static void put_time(struct json_writer *w, struct str s)
{
        char text[64], out[RFC3339_BYTES];
        int64_t seconds;
        int32_t nanos;
        size_t n = 0, sign = 0;
        for (size_t i = 0; i < s.n && n < sizeof text - 16; i++) {
                text[n++] = i == 10 && s.p[i] == ' ' ? 'T' : s.p[i];
                if (i > 18 && (s.p[i] == '+' || s.p[i] == '-'))
                        sign = n;
        }
        if (s.n == 10)
                n += (size_t)snprintf(text + n, sizeof text - n, "T00:00:00");
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", !sign ? "Z" : n - sign == 2 ? ":00" : "");
        size_t len = rfc3339_parse(str_n(text, n), &seconds, &nanos) ? rfc3339_format(out, seconds, nanos) : 0;
        if (!len) { /* infinity, years that RFC 3339 does not have */
                json_string(w, s);
                return;
        }
        if (nanos) {
                for (len--; out[len - 1] == '0';)
                        len--;
                out[len++] = 'Z';
        }
        json_string(w, str_n(out, len));
}

static void put_uuid(struct json_writer *w, struct arena *a, struct str s)
{
        struct str raw = unhex(a, s);
        json_array_begin(w);
        for (size_t i = 0; i < raw.n; i++)
                json_uint(w, (unsigned char)raw.p[i]);
        json_array_end(w);
}

static int put_scalar(struct json_writer *w, struct arena *a, enum kind kind, struct str s)
{
        struct str coded;
        switch (kind) {
        case KIND_BOOL:
                json_bool(w, s.n && s.p[0] == 't');
                return 0;
        case KIND_NUMBER:
        case KIND_FLOAT:
                if (json_is_number(s))
                        json_raw(w, s);
                else if (kind == KIND_FLOAT)
                        return -EDOM;
                else
                        json_string(w, s);
                return 0;
        case KIND_JSON:
                json_raw(w, s);
                return 0;
        case KIND_BYTES:
                coded = base64_encode(a, unhex(a, str_has_prefix(s, STR("\\x")) ? str_skip(s, 2) : s));
                json_string(w, coded);
                return coded.p ? 0 : -ENOMEM;
        case KIND_DATE:
        case KIND_TIME:
                put_time(w, s);
                return 0;
        case KIND_UUID:
                put_uuid(w, a, s);
                return 0;
        case KIND_ADDRESS:
                coded = str_chr(s, '/') >= 0 ? s : str_of(arena_printf(a, "%.*s/%d", STR_FMT(s), str_chr(s, ':') >= 0 ? 128 : 32));
                json_string(w, coded);
                return coded.p ? 0 : -ENOMEM;
        case KIND_TEXT:
                break;
        }
        json_string(w, s);
        return 0;
}

/* One element of an array's text at s, up to a comma or brace; quoted ones are unescaped into a. Returns the bytes that it takes. */
static size_t element(struct arena *a, struct str s, struct str *ret, bool *ret_quoted)
{
        size_t i = 0, n = 0;
        *ret_quoted = s.n && s.p[0] == '"';
        if (!*ret_quoted) {
                while (i < s.n && s.p[i] != ',' && s.p[i] != '{' && s.p[i] != '}')
                        i++;
                *ret = str_n(s.p, i);
                return i;
        }
        char *to = arena_alloc(a, s.n);
        for (i = 1; i < s.n && s.p[i] != '"'; i++) {
                if (s.p[i] == '\\' && i + 1 < s.n)
                        i++;
                if (to)
                        to[n++] = s.p[i];
        }
        *ret = str_n(to, n);
        return i < s.n ? i + 1 : i;
}

/* "{1,NULL,{2,3}}", perhaps with "[2:4]=" before it. */
static int put_array(struct json_writer *w, struct arena *a, enum kind kind, struct str s)
{
        int r = 0, depth = 0;
        ptrdiff_t begin = str_chr(s, '{');
        if (begin < 0) {
                json_string(w, s);
                return 0;
        }
        s = str_skip(s, (size_t)begin);
        do {
                struct str e;
                bool quoted;
                if (s.p[0] == '{')
                        json_array_begin(w), depth++;
                else if (s.p[0] == '}')
                        json_array_end(w), depth--;
                if (s.p[0] == '{' || s.p[0] == '}' || s.p[0] == ',') {
                        s = str_skip(s, 1);
                        continue;
                }
                s = str_skip(s, element(a, s, &e, &quoted));
                if (quoted && !e.p)
                        r = -ENOMEM;
                else if (!quoted && str_eqz(e, "NULL"))
                        json_null(w);
                else
                        r = put_scalar(w, a, kind, e);
        } while (!r && s.n && depth && depth <= DIMENSIONS_MAX);
        for (; depth; depth--)
                json_array_end(w);
        return r;
}

int sql_cell_json(struct buf *out, const struct sql_cell *cell)
{
        struct json_writer w;
        struct arena a;
        int r = 0;
        bool done = false;
        json_write_init(&w, out);
        if (!cell->text.p) {
                json_null(&w);
                return out->failed ? -ENOMEM : 0;
        }
        arena_init(&a, 0);
        for (size_t i = 0; !done && i < sizeof types / sizeof *types; i++) {
                if ((done = types[i].type == cell->type))
                        r = put_scalar(&w, &a, types[i].kind, cell->text);
                else if ((done = types[i].array == cell->type))
                        r = put_array(&w, &a, types[i].kind, cell->text);
        }
        if (!done)
                json_string(&w, cell->text);
        arena_fini(&a);
        return r ? r : out->failed ? -ENOMEM : 0;
}
