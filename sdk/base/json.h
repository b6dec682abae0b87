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

enum { JSON_MAX_DEPTH = 256 };

enum json_type { JSON_ERROR = -1, JSON_END = 0, JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

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
/* Enters the object or array that stands next; false = error or other type. */
bool json_enter_object(struct json_reader *r);
bool json_enter_array(struct json_reader *r);
/* In an object: reads the next member's name (unescaped into the arena when needed) and stops before its value.
 * In an array: stops before the next element. False at the closing bracket (which is consumed) and on error. */
bool json_next_member(struct json_reader *r, struct arena *a, struct str *name);
bool json_next_element(struct json_reader *r);
/* Consume a scalar. Each returns false on another type or error. Strings borrow from the input when they hold no escape. */
bool json_read_string(struct json_reader *r, struct arena *a, struct str *out);
bool json_read_bool(struct json_reader *r, bool *out);
bool json_read_null(struct json_reader *r);
bool json_read_int64(struct json_reader *r, int64_t *out);   /* integral numbers only, 1e3 and 1.0 count as integral */
bool json_read_uint64(struct json_reader *r, uint64_t *out);
bool json_read_double(struct json_reader *r, double *out);
/* Consumes any value and gives its raw bytes (no surrounding space). */
bool json_read_raw(struct json_reader *r, struct str *out);
bool json_skip(struct json_reader *r);
/* True when exactly one value was read and only white space follows. */
bool json_at_end(struct json_reader *r);
/* One whole valid JSON text? */
bool json_valid(struct str s);

/* Writer: commas and colons are placed by itself. Output is compact. Strings are escaped as encoding/json does with
 * SetEscapeHTML(false); invalid UTF-8 becomes U+FFFD. */
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
void json_double(struct json_writer *w, double v); /* shortest form that reads back the same */
void json_null(struct json_writer *w);
void json_raw(struct json_writer *w, struct str s); /* s must be one valid JSON value */
/* key + string value; nothing written when s is empty */
void json_kv_nonempty(struct json_writer *w, const char *key, struct str s);
void json_kv(struct json_writer *w, const char *key, struct str s);

/* Base64 (RFC 4648, standard alphabet with padding; decode accepts URL alphabet and missing padding too). NULL p on failure. */
struct str base64_encode(struct arena *a, struct str in);
struct str base64_decode(struct arena *a, struct str in);

#endif
