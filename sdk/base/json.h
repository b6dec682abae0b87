/*
 * JSON: a pull reader over bytes in memory that never recurses, and a writer into a buf.
 * The reader checks RFC 8259 strictly (UTF-8 included); nesting is limited to JSON_MAX_DEPTH. A value can be skipped and
 * its raw bytes taken as they stand, so that a state value or an event is never decoded to be encoded again.
 */
#ifndef SDK_BASE_JSON_H
#define SDK_BASE_JSON_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

enum { JSON_MAX_DEPTH = 256, JSON_DOUBLE_BYTES = 40 };

enum json_type {
        JSON_ERROR = -1,
        JSON_END = 0,
        JSON_NULL,
        JSON_FALSE,
        JSON_TRUE,
        JSON_NUMBER,
        JSON_STRING,
        JSON_ARRAY,
        JSON_OBJECT
};

struct json_reader {
        struct str in;
        size_t pos;
        int depth;
        uint8_t stack[JSON_MAX_DEPTH]; /* '{' or '[' */
        bool first;                    /* no member read yet at this level */
        const char *error;             /* NULL, or a short text; error_pos is its offset */
        size_t error_pos;
};

void json_read_init(struct json_reader *r, struct str in);
/* Type of the value that stands next, without consuming it. JSON_END at the end of input. */
enum json_type json_peek(struct json_reader *r);
/* Enters the object or array that stands next. Here and below, a value of another type gives false, sets no error and is not
 * consumed, so that the caller can try another type or skip it; after an error every call gives false. */
bool json_enter_object(struct json_reader *r);
bool json_enter_array(struct json_reader *r);
/* In an object: reads the next member's name (unescaped into the arena when needed) and stops before its value.
 * In an array: stops before the next element. False at the closing bracket (which is consumed) and on error. */
bool json_next_member(struct json_reader *r, struct arena *a, struct str *name);
bool json_next_element(struct json_reader *r);
/* Consume a scalar. Strings borrow from the input when they hold no escape (a may then be NULL); a lone surrogate becomes
 * U+FFFD. A number out of range counts as another type. */
bool json_read_string(struct json_reader *r, struct arena *a, struct str *out);
bool json_read_bool(struct json_reader *r, bool *out);
bool json_read_null(struct json_reader *r);
bool json_read_int64(struct json_reader *r, int64_t *out);   /* integral numbers only, 1e3 and 1.0 count as integral */
bool json_read_uint64(struct json_reader *r, uint64_t *out);
bool json_read_double(struct json_reader *r, double *out);
bool json_read_number(struct json_reader *r, struct str *token); /* its text, exact at any size */
/* A number's text as a value; false = not integral or out of range. The text must be valid JSON (json_is_number). */
bool json_number_to_int64(struct str token, int64_t *out);
bool json_number_to_uint64(struct str token, uint64_t *out);
bool json_number_to_double(struct str token, double *out);
bool json_is_number(struct str s);
/* Consumes any value and gives its raw bytes (no surrounding space). */
bool json_read_raw(struct json_reader *r, struct str *out);
bool json_skip(struct json_reader *r);
/* True when exactly one value was read and only white space follows. */
bool json_at_end(struct json_reader *r);
/* One whole valid JSON text? */
bool json_valid(struct str s);

/* Writer: commas and colons are placed by itself. Output is compact. Strings are escaped as encoding/json does with
 * SetEscapeHTML(false); invalid UTF-8 becomes \ufffd. Memory running out shows as `failed` in the buf. */
struct json_writer {
        struct buf *out;
        int depth;
        bool need_comma;
};
void json_write_init(struct json_writer *w, struct buf *out);
void json_object_begin(struct json_writer *w);
void json_object_end(struct json_writer *w);
void json_array_begin(struct json_writer *w);
void json_array_end(struct json_writer *w);
void json_key(struct json_writer *w, struct str name);
void json_string(struct json_writer *w, struct str s);
void json_bool(struct json_writer *w, bool v);
void json_int(struct json_writer *w, int64_t v);
void json_uint(struct json_writer *w, uint64_t v);
void json_double(struct json_writer *w, double v); /* shortest form that reads back the same; null for NaN and Infinity */
void json_null(struct json_writer *w);
void json_raw(struct json_writer *w, struct str s); /* s must be one valid JSON value */
/* key + string value; nothing written when s is empty */
void json_kv_nonempty(struct json_writer *w, const char *key, struct str s);
void json_kv(struct json_writer *w, const char *key, struct str s);

/* The shortest text of a finite number, not NUL-terminated, in the form that encoding/json chooses; `single`: as a float.
 * Returns its length. */
size_t json_format_double(char out[JSON_DOUBLE_BYTES], double v, bool single);

/* Base64 (RFC 4648, standard alphabet with padding; decode accepts URL alphabet and missing padding too). NULL p on failure. */
struct str base64_encode(struct arena *a, struct str in);
struct str base64_decode(struct arena *a, struct str in);
/* Encodes into BASE64_LEN(in.n) bytes of the caller's; returns that length. */
#define BASE64_LEN(n) (((n) + 2) / 3 * 4)
size_t base64_put(char *out, struct str in);

/* True for a word of eight bytes that needs no look in a string: no control, quote, backslash, or byte above 0x7f. */
static inline bool json_is_plain8(const char *p)
{
        const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
        uint64_t w, q, b;
        memcpy(&w, p, sizeof w);
        q = w ^ (ones * '"');
        b = w ^ (ones * '\\');
        return !((((w - ones * 0x20) | (q - ones) | (b - ones)) | w) & high);
}

#endif
