/*
 * Wire forms of span contexts and baggage. Every reader walks its text once, front to back, with the text's end as the only bound;
 * limits of the standards (members, bytes) are enforced here.
 */
#include "kernel/observe/span_context.h"

/* ---- ids ---- */

static int hex(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int hex_any_case(char c)
{
        return hex(c >= 'A' && c <= 'F' ? (char)(c | 0x20) : c);
}

static bool any(const uint8_t *p, size_t n)
{
        uint8_t bits = 0;

        for (size_t i = 0; i < n; i++)
                bits |= p[i];
        return bits != 0;
}

bool span_context_is_valid(const struct span_context *c)
{
        return any(c->trace_id, TRACE_ID_BYTES) && any(c->span_id, SPAN_ID_BYTES);
}

/* An id of n bytes, written in lower case and not all zero. */
static bool read_id(struct str s, uint8_t *to, size_t n)
{
        if (s.n != 2 * n)
                return false;
        for (size_t i = 0; i < n; i++) {
                int high = hex(s.p[2 * i]), low = hex(s.p[2 * i + 1]);
                if (high < 0 || low < 0)
                        return false;
                to[i] = (uint8_t)(high << 4 | low);
        }
        return any(to, n);
}

/* The first byte of an even number of digits. */
static bool read_byte(struct str s, uint8_t *to)
{
        if (s.n < 2 || s.n % 2)
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (hex_any_case(s.p[i]) < 0)
                        return false;
        *to = (uint8_t)(hex_any_case(s.p[0]) << 4 | hex_any_case(s.p[1]));
        return true;
}

bool span_context_from_w3c(struct str text, struct span_context *ret)
{
        struct span_context c = {.flags = 0};
        struct str rest = text, part[4];
        uint8_t version;

        *ret = c;
        for (int i = 0; i < 4; i++) {
                if (!rest.p)
                        return false;
                part[i] = str_cut(&rest, '-');
        }
        if (part[0].n != 2 || !read_byte(part[0], &version) || version == 0xff || (version == 0 && rest.p))
                return false;
        if (!read_id(part[1], c.trace_id, TRACE_ID_BYTES) || !read_id(part[2], c.span_id, SPAN_ID_BYTES) || !read_byte(part[3], &c.flags))
                return false;
        *ret = c;
        return true;
}

bool span_context_from_binary(struct str b, struct span_context *ret)
{
        struct span_context c = {.flags = 0};

        *ret = c;
        if (b.n < 18 || b.p[0] != 0 || b.p[1] != 0)
                return false;
        memcpy(c.trace_id, b.p + 2, TRACE_ID_BYTES);
        b = str_skip(b, 18);
        if (b.n >= 9 && b.p[0] == 1) {
                memcpy(c.span_id, b.p + 1, SPAN_ID_BYTES);
                b = str_skip(b, 9);
        }
        if (b.n >= 2 && b.p[0] == 2)
                c.flags = (uint8_t)b.p[1];
        *ret = c;
        return true;
}

void span_id_text(const uint8_t *id, size_t n, char *to)
{
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < n; i++) {
                to[2 * i] = digits[id[i] >> 4];
                to[2 * i + 1] = digits[id[i] & 15];
        }
        to[2 * n] = '\0';
}

void span_context_to_w3c(const struct span_context *c, char to[TRACEPARENT_CHARS + 1])
{
        memcpy(to, "00-", 3);
        span_id_text(c->trace_id, TRACE_ID_BYTES, to + 3);
        to[35] = '-';
        span_id_text(c->span_id, SPAN_ID_BYTES, to + 36);
        to[52] = '-';
        span_id_text(&c->flags, 1, to + 53);
}

void span_context_to_binary(const struct span_context *c, uint8_t to[TRACE_BINARY_BYTES])
{
        to[0] = to[1] = 0;
        memcpy(to + 2, c->trace_id, TRACE_ID_BYTES);
        to[18] = 1;
        memcpy(to + 19, c->span_id, SPAN_ID_BYTES);
        to[27] = 2;
        to[28] = c->flags;
}

/* ---- tracestate ---- */

static bool is_key_char(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr("_-*/", c));
}

/* One part of a key: its first character from a..z (and 0..9 when digits may lead), then up to n more. */
static bool is_key_part(struct str s, size_t n, bool digit_first)
{
        if (s.n == 0 || s.n > n + 1 || !((s.p[0] >= 'a' && s.p[0] <= 'z') || (digit_first && s.p[0] >= '0' && s.p[0] <= '9')))
                return false;
        for (size_t i = 1; i < s.n; i++)
                if (!is_key_char(s.p[i]))
                        return false;
        return true;
}

static bool is_key(struct str s)
{
        struct str system = s, tenant;

        if (str_chr(s, '@') < 0)
                return is_key_part(s, 255, false);
        tenant = str_cut(&system, '@');
        return is_key_part(tenant, 240, true) && is_key_part(system, 13, false);
}

static bool is_state_value(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] < ' ' || s.p[i] > '~' || s.p[i] == ',' || s.p[i] == '=')
                        return false;
        return s.n > 0 && s.n <= 256 && s.p[s.n - 1] != ' ';
}

static struct str trim_left(struct str s)
{
        while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
                s = str_skip(s, 1);
        return s;
}

static struct str trim_right(struct str s)
{
        while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
                s.n--;
        return s;
}

bool tracestate_is_valid(struct str text)
{
        struct str keys[TRACESTATE_MEMBERS_MAX];
        size_t n = 0;

        while (text.p) {
                struct str value = str_cut(&text, ','), key;
                if (!value.n)
                        continue;
                key = trim_left(str_cut(&value, '='));
                value = trim_right(value);
                if (!value.p || !is_key(key) || !is_state_value(value) || n == TRACESTATE_MEMBERS_MAX)
                        return false;
                for (size_t i = 0; i < n; i++)
                        if (str_eq(keys[i], key))
                                return false;
                keys[n++] = key;
        }
        return true;
}

/* ---- baggage ---- */

static bool is_name_char(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!is_name_char(s.p[i]))
                        return false;
        return s.n > 0;
}

static bool is_value(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] <= ' ' || s.p[i] > '~' || strchr("\",;\\", s.p[i]))
                        return false;
        return true;
}

/* Every % begins two digits. */
static bool is_escaped(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] == '%' && (i + 2 >= s.n || hex_any_case(s.p[i + 1]) < 0 || hex_any_case(s.p[i + 2]) < 0))
                        return false;
        return true;
}

static bool is_property(struct str s)
{
        struct str value = s, key = trim_right(trim_left(str_cut(&value, '=')));

        if (!is_name(key))
                return s.n == 0;
        value = trim_right(trim_left(value));
        return !value.p || (is_value(value) && is_escaped(value));
}

static const char *member_fault(struct str member, struct str *part)
{
        struct str properties = member, value = str_cut(&properties, ';'), raw, key;

        while (properties.p) {
                *part = str_cut(&properties, ';');
                if (!is_property(*part))
                        return "invalid baggage list-member property";
        }
        *part = member;
        key = str_trim(str_cut(&value, '='));
        if (!value.p)
                return "invalid baggage list-member";
        *part = key;
        if (!is_name(key))
                return "invalid key";
        *part = value;
        raw = str_trim(value);
        return is_value(raw) && is_escaped(raw) ? NULL : "invalid value";
}

const char *baggage_fault(struct str text, struct str *ret_part)
{
        size_t members = 0, bytes = 0;

        *ret_part = text;
        while (text.n) {
                struct str member = str_cut(&text, ',');
                const char *why = member_fault(member, ret_part);
                if (why)
                        return why;
                *ret_part = member;
                bytes += member.n + (members > 0);
                if (++members > BAGGAGE_MEMBERS_MAX)
                        return "too many list-members in baggage-string";
                if (bytes > BAGGAGE_BYTES_MAX)
                        return "baggage-string too large";
                if (text.p && !text.n) {
                        *ret_part = STR("");
                        return "invalid baggage list-member"; /* a comma at the end */
                }
        }
        return NULL;
}
