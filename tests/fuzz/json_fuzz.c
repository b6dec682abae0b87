/*
 * JSON: skipping a text and walking it value by value must agree on whether it is valid; writing what was walked gives valid JSON
 * that walks to itself. Strings are also read as base64, times and durations.
 */
#include <stdlib.h>

#include "sdk/base/json.h"
#include "sdk/base/rfc3339.h"
#include "sdk/base/utf8.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_as_other_things(struct arena *a, struct str s)
{
        int64_t seconds;
        int32_t nanos;
        char z[RFC3339_BYTES];
        if (rfc3339_parse(s, &seconds, &nanos))
                must_hold(rfc3339_format(z, seconds, nanos) && rfc3339_parse(str_of(z), &seconds, &nanos));
        if (pbduration_parse(s, &seconds, &nanos))
                must_hold(pbduration_format(z, seconds, nanos) && pbduration_parse(str_of(z), &seconds, &nanos));
        struct str b = base64_decode(a, s);
        must_hold(!b.p || str_eq(base64_decode(a, base64_encode(a, b)), b));
        must_hold(utf8_is_valid(s));
}

static bool copy_scalar(struct json_reader *r, struct json_writer *w, struct arena *a)
{
        struct str s;
        int64_t i;
        uint64_t u;
        double d;
        bool b;
        switch (json_peek(r)) {
        case JSON_STRING:
                if (!json_read_string(r, a, &s))
                        return false;
                json_string(w, s);
                read_as_other_things(a, s);
                return true;
        case JSON_NUMBER:
                if (json_read_int64(r, &i))
                        json_int(w, i);
                else if (json_read_uint64(r, &u))
                        json_uint(w, u);
                else if (json_read_double(r, &d))
                        json_double(w, d == 0 ? 0 : d); /* "-0" would come back as the integer 0 */
                else if (json_read_number(r, &s))
                        json_raw(w, s);
                else
                        return false;
                return true;
        case JSON_TRUE:
        case JSON_FALSE:
                if (!json_read_bool(r, &b))
                        return false;
                json_bool(w, b);
                return true;
        case JSON_NULL:
                json_null(w);
                return json_read_null(r);
        case JSON_ARRAY:
        case JSON_OBJECT:
        case JSON_ERROR:
        case JSON_END:
                break;
        }
        return false;
}

static bool copy_value(struct json_reader *r, struct json_writer *w, struct arena *a)
{
        enum json_type t = json_peek(r);
        if (t == JSON_OBJECT) {
                json_object_begin(w);
                return json_enter_object(r);
        }
        if (t == JSON_ARRAY) {
                json_array_begin(w);
                return json_enter_array(r);
        }
        return copy_scalar(r, w, a);
}

static bool copy(struct str in, struct buf *out, struct arena *a)
{
        struct json_reader r;
        struct json_writer w;
        struct str name;
        json_read_init(&r, in);
        json_write_init(&w, out);
        if (!copy_value(&r, &w, a))
                return false;
        while (r.depth > 0) {
                bool object = r.stack[r.depth - 1] == '{';
                if (object ? json_next_member(&r, a, &name) : json_next_element(&r)) {
                        if (object)
                                json_key(&w, name);
                        if (!copy_value(&r, &w, a))
                                return false;
                } else if (r.error) {
                        return false;
                } else if (object) {
                        json_object_end(&w);
                } else {
                        json_array_end(&w);
                }
        }
        return json_at_end(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a = {0};
        struct buf once = {0}, twice = {0};
        struct str in = str_n(data, n);
        bool ok = copy(in, &once, &a);
        must_hold(ok == json_valid(in));
        if (ok) {
                must_hold(json_valid(buf_str(&once)));
                must_hold(copy(buf_str(&once), &twice, &a));
                must_hold(str_eq(buf_str(&once), buf_str(&twice)));
        }
        buf_fini(&once);
        buf_fini(&twice);
        arena_fini(&a);
        return 0;
}
