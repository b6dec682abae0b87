/*
 * A scanner with the states of encoding/json's, one byte at a time, that only finds the first byte out of place and says so.
 * Run on texts that are known to be bad; speed does not matter.
 */
#include "kernel/front/json_fault.h"

#include "sdk/base/json.h"

enum state {
        VALUE, VALUE_OR_END, NAME, NAME_OR_END, COLON, NEXT, DONE, STRING, ESCAPE, HEX, MINUS, ZERO, DIGITS, DOT, FRACTION, EXP, EXP_SIGN,
        EXP_DIGITS, WORD,
};

struct scan {
        struct arena *a;
        enum state state, after_string; /* after_string: COLON for names, else NEXT */
        const char *word;               /* what is left of true, false, null */
        const char *which;              /* "true" */
        int hex, depth;
        char stack[JSON_MAX_DEPTH];
        const char *fault;
};

/* 'c' as Go quotes it. */
static const char *quoted(struct scan *s, unsigned char c)
{
        switch (c) {
        case '\'': return "'\\''";
        case '"': return "'\"'";
        case '\n': return "'\\n'";
        case '\t': return "'\\t'";
        case '\r': return "'\\r'";
        case '\b': return "'\\b'";
        case '\f': return "'\\f'";
        case '\\': return "'\\\\'";
        default: break;
        }
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && c < 0xa1) || c == 0xad)
                return arena_printf(s->a, c < 0x80 ? "'\\x%02x'" : "'\\u00%02x'", c);
        if (c < 0x80)
                return arena_printf(s->a, "'%c'", c);
        return arena_printf(s->a, "'%c%c'", 0xc0 | c >> 6, 0x80 | (c & 0x3f)); /* the byte as a rune */
}

static void bad(struct scan *s, unsigned char c, const char *context)
{
        const char *q = quoted(s, c);
        s->fault = arena_printf(s->a, "invalid character %s %s", q ? q : "", context);
        if (!s->fault)
                s->fault = "out of memory";
}

static void after_value(struct scan *s)
{
        s->state = s->depth ? NEXT : DONE;
}

static void open_level(struct scan *s, char c)
{
        if (s->depth == JSON_MAX_DEPTH) {
                s->fault = "exceeded max depth";
                return;
        }
        s->stack[s->depth++] = c;
        s->state = c == '{' ? NAME_OR_END : VALUE_OR_END;
}

static void close_level(struct scan *s)
{
        s->depth--;
        after_value(s);
}

static void begin_word(struct scan *s, const char *which)
{
        s->which = which;
        s->word = which + 1;
        s->state = WORD;
}

static void begin_value(struct scan *s, unsigned char c)
{
        switch (c) {
        case '{':
        case '[': open_level(s, (char)c); return;
        case '"': s->state = STRING; s->after_string = NEXT; return;
        case '-': s->state = MINUS; return;
        case '0': s->state = ZERO; return;
        case 't': begin_word(s, "true"); return;
        case 'f': begin_word(s, "false"); return;
        case 'n': begin_word(s, "null"); return;
        default: break;
        }
        if (c >= '1' && c <= '9')
                s->state = DIGITS;
        else
                bad(s, c, "looking for beginning of value");
}

/* Behind a value inside an object or array. */
static void next(struct scan *s, unsigned char c)
{
        bool object = s->stack[s->depth - 1] == '{';
        if (c == ',')
                s->state = object ? NAME : VALUE;
        else if (c == (object ? '}' : ']'))
                close_level(s);
        else
                bad(s, c, object ? "after object key:value pair" : "after array element");
}

static void in_string(struct scan *s, unsigned char c)
{
        if (c == '\\')
                s->state = ESCAPE;
        else if (c < 0x20)
                bad(s, c, "in string literal");
        else if (c == '"' && s->after_string == COLON)
                s->state = COLON;
        else if (c == '"')
                after_value(s);
}

static bool is_hex(unsigned char c)
{
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* The states inside a number; false when the number has ended before c. */
static bool in_number(struct scan *s, unsigned char c)
{
        bool digit = c >= '0' && c <= '9', e = c == 'e' || c == 'E';
        switch ((int)s->state) {
        case MINUS:
                if (digit)
                        s->state = c == '0' ? ZERO : DIGITS;
                else
                        bad(s, c, "in numeric literal");
                return true;
        case DOT:
                if (digit)
                        s->state = FRACTION;
                else
                        bad(s, c, "after decimal point in numeric literal");
                return true;
        case EXP:
                if (c == '+' || c == '-') {
                        s->state = EXP_SIGN;
                        return true;
                }
                /* fall through */
        case EXP_SIGN:
                if (digit)
                        s->state = EXP_DIGITS;
                else
                        bad(s, c, "in exponent of numeric literal");
                return true;
        case DIGITS:
                if (digit)
                        return true;
                /* fall through */
        case ZERO:
                if (c == '.') {
                        s->state = DOT;
                        return true;
                }
                break;
        case FRACTION:
        case EXP_DIGITS:
                if (digit)
                        return true;
                break;
        default:
                break;
        }
        if (e && s->state != EXP_DIGITS) {
                s->state = EXP;
                return true;
        }
        return false;
}

static void in_word(struct scan *s, unsigned char c)
{
        if (c != (unsigned char)*s->word) {
                const char *context = arena_printf(s->a, "in literal %s (expecting '%c')", s->which, *s->word);
                bad(s, c, context ? context : "");
        } else if (!*++s->word) {
                after_value(s);
        }
}

static void structure(struct scan *s, unsigned char c)
{
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r')
                return;
        switch ((int)s->state) {
        case VALUE_OR_END:
                if (c == ']')
                        close_level(s);
                else
                        begin_value(s, c);
                return;
        case VALUE: begin_value(s, c); return;
        case NAME_OR_END:
                if (c == '}') {
                        close_level(s);
                        return;
                }
                /* fall through */
        case NAME:
                if (c == '"')
                        s->state = STRING, s->after_string = COLON;
                else
                        bad(s, c, "looking for beginning of object key string");
                return;
        case COLON:
                if (c == ':')
                        s->state = VALUE;
                else
                        bad(s, c, "after object key");
                return;
        case NEXT: next(s, c); return;
        default: bad(s, c, "after top-level value"); return;
        }
}

static void step(struct scan *s, unsigned char c)
{
        if (s->state == STRING) {
                in_string(s, c);
        } else if (s->state == ESCAPE) {
                s->hex = 0;
                s->state = c == 'u' ? HEX : STRING;
                if (c != 'u' && !strchr("bfnrt\\/\"", c ? c : 'x'))
                        bad(s, c, "in string escape code");
        } else if (s->state == HEX) {
                if (!is_hex(c))
                        bad(s, c, "in \\u hexadecimal character escape");
                else if (++s->hex == 4)
                        s->state = STRING;
        } else if (s->state == WORD) {
                in_word(s, c);
        } else if (s->state >= MINUS && s->state <= EXP_DIGITS) {
                if (in_number(s, c))
                        return;
                after_value(s);
                structure(s, c);
        } else {
                structure(s, c);
        }
}

/* A number has no end of its own. */
static bool may_end(const struct scan *s)
{
        bool number = s->state == ZERO || s->state == DIGITS || s->state == FRACTION || s->state == EXP_DIGITS;
        return s->state == DONE || (number && !s->depth);
}

const char *json_fault(struct arena *a, struct str text, bool whole)
{
        struct scan s = {.a = a, .state = VALUE};
        for (size_t i = 0; i < text.n && !s.fault; i++) {
                bool ended = may_end(&s);
                if (s.state == DONE && !whole)
                        return NULL;
                step(&s, (unsigned char)text.p[i]);
                if (s.fault && ended && !whole)
                        return NULL;
        }
        if (s.fault || may_end(&s))
                return s.fault;
        if (!whole)
                return str_trim(text).n ? "unexpected EOF" : "EOF";
        step(&s, ' '); /* as the reference ends a text */
        return s.fault ? s.fault : "unexpected end of JSON input";
}
