/*
 * CEL's tokens and the values of its literals (https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax), with the
 * readings of cel-go where the grammar leaves room: a quote in front counts as long as it can, so `''` is a string and `'''` opens
 * one; an escape that the grammar does not know is no token at all.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"
#include "sdk/base/utf8.h"

enum { NUMBER_BYTES = 400 };

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

static int hex_of(char c)
{
        if (is_digit(c))
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_ident(char c)
{
        return is_digit(c) || c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

bool cel_is_reserved(struct str s)
{
        static const char *const words[] = {"as",  "break",   "const",     "continue", "else",  "for", "function", "if",    "import",
                                            "let", "loop",    "namespace", "package",  "return", "var", "void",     "while"};
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
                if (str_eqz(s, words[i]))
                        return true;
        return false;
}

/* ---- strings ---- */

/* Bytes of the escape at s (after the backslash), 0 = none that the grammar knows. */
static size_t escape_len(struct str s)
{
        size_t n;
        if (!s.n)
                return 0;
        if (strchr("abfnrtv\"'\\?`", s.p[0]) && s.p[0])
                return 1;
        if (s.p[0] >= '0' && s.p[0] <= '3') {
                bool octal = s.n >= 3 && s.p[1] >= '0' && s.p[1] <= '7' && s.p[2] >= '0' && s.p[2] <= '7';
                return octal ? 3 : 0;
        }
        switch (s.p[0]) {
        case 'x':
        case 'X':
                n = 2;
                break;
        case 'u':
                n = 4;
                break;
        case 'U':
                n = 8;
                break;
        default:
                return 0;
        }
        for (size_t i = 1; i <= n; i++)
                if (i >= s.n || hex_of(s.p[i]) < 0)
                        return 0;
        return n + 1;
}

/* Length of the string literal at s, which starts with a quote; 0 = it does not end. */
static size_t string_len(struct str s, bool raw)
{
        char q = s.p[0];
        bool triple = s.n >= 3 && s.p[1] == q && s.p[2] == q;
        size_t i = triple ? 3 : 1;
        if (!triple && s.n >= 2 && s.p[1] == q)
                return 2;
        while (i < s.n) {
                if (s.p[i] == q) {
                        if (!triple)
                                return i + 1;
                        if (i + 2 < s.n && s.p[i + 1] == q && s.p[i + 2] == q)
                                return i + 3;
                        i++;
                } else if (s.p[i] == '\\' && !raw) {
                        size_t n = escape_len(str_skip(s, i + 1));
                        if (!n)
                                return 0;
                        i += 1 + n;
                } else if (!triple && (s.p[i] == '\n' || s.p[i] == '\r')) {
                        return 0;
                } else {
                        i++;
                }
        }
        return triple ? 2 : 0; /* '' and what follows */
}

/* Length of a string or bytes literal with its prefix at s; 0 = there is none. */
static size_t quoted_len(struct str s, bool *is_bytes, bool *broken)
{
        size_t i = 0;
        bool raw = false;
        *is_bytes = (s.p[0] | 0x20) == 'b';
        i += *is_bytes;
        if (i < s.n && (s.p[i] | 0x20) == 'r') {
                raw = true;
                i++;
        }
        if (i >= s.n || (s.p[i] != '"' && s.p[i] != '\''))
                return 0;
        size_t n = string_len(str_skip(s, i), raw);
        *broken = !n;
        return i + n;
}

/* ---- tokens ---- */

static size_t number_len(struct str s, enum cel_token_type *type)
{
        size_t i = 0, frac, exp;
        *type = CEL_TOK_INT;
        if (s.n >= 3 && s.p[0] == '0' && s.p[1] == 'x' && hex_of(s.p[2]) >= 0) {
                for (i = 2; i < s.n && hex_of(s.p[i]) >= 0;)
                        i++;
        } else {
                while (i < s.n && is_digit(s.p[i]))
                        i++;
                if (i + 1 < s.n && s.p[i] == '.' && is_digit(s.p[i + 1])) {
                        for (frac = i + 1; frac < s.n && is_digit(s.p[frac]);)
                                frac++;
                        i = frac;
                        *type = CEL_TOK_FLOAT;
                }
                exp = i + 1 < s.n && (s.p[i] | 0x20) == 'e' ? i + 1 : 0;
                if (exp && (s.p[exp] == '+' || s.p[exp] == '-'))
                        exp++;
                if (exp && exp < s.n && is_digit(s.p[exp])) {
                        for (i = exp; i < s.n && is_digit(s.p[i]);)
                                i++;
                        *type = CEL_TOK_FLOAT;
                }
        }
        if (*type == CEL_TOK_INT && i < s.n && (s.p[i] | 0x20) == 'u') {
                *type = CEL_TOK_UINT;
                i++;
        }
        return i;
}

static uint32_t skip_space(struct str text, uint32_t i)
{
        while (i < text.n) {
                if (text.p[i] == ' ' || text.p[i] == '\t' || text.p[i] == '\r' || text.p[i] == '\n' || text.p[i] == '\f') {
                        i++;
                } else if (i + 1 < text.n && text.p[i] == '/' && text.p[i + 1] == '/') {
                        while (i < text.n && text.p[i] != '\n')
                                i++;
                } else {
                        break;
                }
        }
        return i;
}

static enum cel_token_type word_type(struct str s)
{
        return str_eqz(s, "true")    ? CEL_TOK_TRUE
               : str_eqz(s, "false") ? CEL_TOK_FALSE
               : str_eqz(s, "null")  ? CEL_TOK_NULL
               : str_eqz(s, "in")    ? CEL_TOK_IN
                                     : CEL_TOK_IDENT;
}

static size_t sign_len(struct str s, enum cel_token_type *type)
{
        static const struct {
                char text[3];
                enum cel_token_type type;
        } signs[] = {{"==", CEL_TOK_EQ},    {"!=", CEL_TOK_NE},      {"<=", CEL_TOK_LE},     {">=", CEL_TOK_GE},      {"&&", CEL_TOK_AND},
                     {"||", CEL_TOK_OR},    {"<", CEL_TOK_LT},       {">", CEL_TOK_GT},      {"[", CEL_TOK_LBRACKET}, {"]", CEL_TOK_RBRACKET},
                     {"{", CEL_TOK_LBRACE}, {"}", CEL_TOK_RBRACE},   {"(", CEL_TOK_LPAREN},  {")", CEL_TOK_RPAREN},   {".", CEL_TOK_DOT},
                     {",", CEL_TOK_COMMA},  {"-", CEL_TOK_MINUS},    {"!", CEL_TOK_NOT},     {"?", CEL_TOK_QUESTION}, {":", CEL_TOK_COLON},
                     {"+", CEL_TOK_PLUS},   {"*", CEL_TOK_STAR},     {"/", CEL_TOK_SLASH},   {"%", CEL_TOK_PERCENT}};
        for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
                if (str_has_prefix(s, str_of(signs[i].text))) {
                        *type = signs[i].type;
                        return strlen(signs[i].text);
                }
        }
        *type = CEL_TOK_BAD;
        return 1;
}

struct cel_token cel_lex(struct str text, uint32_t *pos)
{
        struct cel_token t = {.type = CEL_TOK_END, .pos = skip_space(text, *pos)};
        struct str s = str_skip(text, t.pos);
        bool is_bytes = false, broken = false;
        size_t n = 0;

        if (!s.n) {
                t.text = STR("<EOF>");
                *pos = t.pos;
                return t;
        }
        n = quoted_len(s, &is_bytes, &broken);
        if (broken) {
                t.type = CEL_TOK_BAD;
        } else if (n) {
                t.type = is_bytes ? CEL_TOK_BYTES : CEL_TOK_STRING;
        } else if (is_digit(s.p[0]) || (s.p[0] == '.' && s.n > 1 && is_digit(s.p[1]))) {
                n = number_len(s, &t.type);
        } else if (is_ident(s.p[0])) {
                while (n < s.n && is_ident(s.p[n]))
                        n++;
                t.type = word_type(str_n(s.p, n));
        } else {
                n = sign_len(s, &t.type);
        }
        t.text = str_n(s.p, n ? n : 1);
        *pos = t.pos + (uint32_t)t.text.n;
        return t;
}

/* ---- literals ---- */

static int read_integer(struct str s, bool minus, bool is_unsigned, struct cel_value *ret)
{
        unsigned base = s.n > 2 && s.p[1] == 'x' ? 16 : 10;
        uint64_t v = 0, limit = is_unsigned ? UINT64_MAX : (uint64_t)INT64_MAX + minus;
        for (size_t i = base == 16 ? 2 : 0; i < s.n; i++) {
                if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, (uint64_t)hex_of(s.p[i]), &v) || v > limit)
                        return -EINVAL;
        }
        *ret = is_unsigned ? cel_uint(v) : cel_int(minus ? (int64_t)(0 - v) : (int64_t)v);
        return 0;
}

static int read_float(struct str s, bool minus, struct cel_value *ret)
{
        char z[NUMBER_BYTES];
        if (s.n >= sizeof z)
                return -EINVAL;
        memcpy(z, s.p, s.n);
        z[s.n] = '\0';
        double d = strtod(z, NULL);
        if (isinf(d))
                return -EINVAL;
        *ret = cel_double(minus ? -d : d);
        return 0;
}

/* One escape after its backslash; the bytes it stands for go to out. 0 = not in this kind of literal. */
static size_t unescape(struct str s, bool is_bytes, char *out, size_t *ret_out)
{
        static const char plain[] = "abfnrtv", codes[] = "\a\b\f\n\r\t\v";
        const char *at = strchr(plain, s.p[0]);
        size_t n = escape_len(s);
        uint32_t v = 0;
        *ret_out = 1;
        if (n == 1) {
                *out = at ? codes[at - plain] : s.p[0];
                return 1;
        }
        if (is_digit(s.p[0]))
                v = (uint32_t)((s.p[0] - '0') * 64 + (s.p[1] - '0') * 8 + s.p[2] - '0');
        else
                for (size_t i = 1; i < n; i++)
                        v = v << 4 | (uint32_t)hex_of(s.p[i]);
        if (is_bytes) {
                *out = (char)v;
                return (s.p[0] | 0x20) == 'u' ? 0 : n;
        }
        if (v > 0x10ffff)
                return 0;
        *ret_out = (size_t)utf8_put(out, v >= 0xd800 && v <= 0xdfff ? 0xfffd : v);
        return n;
}

static int read_string(struct arena *a, struct str s, bool is_bytes, struct cel_value *ret)
{
        size_t out = 0;
        bool raw;
        s = str_skip(s, is_bytes);
        raw = (s.p[0] | 0x20) == 'r';
        s = str_skip(s, raw);
        size_t q = s.n >= 6 && s.p[1] == s.p[0] && s.p[2] == s.p[0] ? 3 : 1;
        s = str_n(s.p + q, s.n - 2 * q);
        char *p = arena_alloc(a, s.n + 1);
        if (!p)
                return -ENOMEM;
        for (size_t i = 0; i < s.n;) {
                size_t n = 1, wrote = 1;
                if (s.p[i] == '\r') { /* every line ends with \n */
                        p[out] = '\n';
                        n += i + 1 < s.n && s.p[i + 1] == '\n';
                } else if (s.p[i] == '\\' && !raw) {
                        n = unescape(str_skip(s, i + 1), is_bytes, p + out, &wrote);
                        if (!n++)
                                return -EINVAL;
                } else {
                        p[out] = s.p[i];
                }
                out += wrote;
                i += n;
        }
        *ret = (struct cel_value){.type = is_bytes ? CEL_BYTES : CEL_STRING, .s = {p, out}};
        return 0;
}

int cel_literal(struct arena *a, const struct cel_token *t, bool minus, struct cel_value *ret, const char **ret_err)
{
        switch ((int)t->type) {
        case CEL_TOK_INT:
                *ret_err = "invalid int literal";
                return read_integer(t->text, minus, false, ret);
        case CEL_TOK_UINT:
                *ret_err = "invalid uint literal";
                return read_integer(str_n(t->text.p, t->text.n - 1), false, true, ret);
        case CEL_TOK_FLOAT:
                *ret_err = "invalid double literal";
                return read_float(t->text, minus, ret);
        case CEL_TOK_STRING:
        case CEL_TOK_BYTES:
                *ret_err = "unable to unescape string";
                return read_string(a, t->text, t->type == CEL_TOK_BYTES, ret);
        case CEL_TOK_TRUE:
        case CEL_TOK_FALSE:
                *ret = cel_bool(t->type == CEL_TOK_TRUE);
                return 0;
        default:
                *ret = (struct cel_value){.type = CEL_NULL};
                return 0;
        }
}
