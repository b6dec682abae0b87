/*
 * JSON text to message. No recursion: each open bracket is one frame, in the arena, and the loop in pbjson_read() always works on
 * the innermost. A frame is an object whose members are the fields of a message, a map, a list, or the wrapping of an Any.
 * Struct and ListValue are a map and a list with one field; Value opens one of them or takes a scalar.
 *
 * Depth is counted as messages will nest on the wire (a map level counts two), so that what was read can be unpacked again.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/pbjson.h"
#include "sdk/base/pbjson_types.h"
#include "sdk/base/rfc3339.h"

enum kind {
        IN_MESSAGE,  /* members are the fields of m */
        IN_LIST,     /* elements go to field f of m */
        IN_MAP,      /* members become entries of field f of m */
        IN_ANY_VALUE /* "@type" and "value"; value is m, a well-known type */
};

enum { SEEN_WORDS = 2 }; /* larger messages than 128 fields: no check for fields that come twice */

struct frame {
        struct frame *outer, *inner; /* inner: kept for reuse */
        enum kind kind;
        ProtobufCMessage *m;
        const ProtobufCFieldDescriptor *f;
        Google__Protobuf__Any *any; /* m is packed into it at the closing bracket */
        uint64_t seen[SEEN_WORDS];  /* fields of m that were read, by index; IN_ANY_VALUE: bit 0, the value */
        int depth;                  /* of m */
};

struct reader {
        struct json_reader json;
        struct arena *a;
        struct frame *top;
        int flags, anys;
        const char *error;
        struct str where; /* innermost name that was read */
};

union scalar {
        int32_t i32;
        uint32_t u32;
        int64_t i64;
        uint64_t u64;
        float f;
        double d;
        protobuf_c_boolean b;
        const char *z;
        ProtobufCBinaryData bytes;
};

static bool fail(struct reader *r, const char *why)
{
        if (!r->error)
                r->error = why;
        return false;
}

static void *need(struct reader *r, void *p)
{
        if (!p)
                fail(r, "out of memory");
        return p;
}

/* ---- scalars ---- */

static bool text_to_double(struct str s, double *out)
{
        if (str_eqz(s, "NaN"))
                *out = (double)NAN;
        else if (str_eqz(s, "Infinity"))
                *out = (double)INFINITY;
        else if (str_eqz(s, "-Infinity"))
                *out = (double)-INFINITY;
        else
                return json_is_number(s) && json_number_to_double(s, out);
        return true;
}

/* The text of a number or, since numbers may be quoted, of a string. */
static bool number_text(struct reader *r, struct str *out, bool *quoted)
{
        *quoted = json_peek(&r->json) == JSON_STRING;
        if (*quoted ? json_read_string(&r->json, r->a, out) : json_read_number(&r->json, out))
                return true;
        return fail(r, "a number was expected");
}

static bool take_number(struct str s, bool quoted, enum pb_kind kind, union scalar *out)
{
        int64_t i;
        uint64_t u;
        double v;
        if (kind == PB_FLOAT || kind == PB_DOUBLE) {
                if (!(quoted ? text_to_double(s, &v) : json_number_to_double(s, &v)))
                        return false;
                if (kind == PB_DOUBLE) {
                        out->d = v;
                        return true;
                }
                out->f = (float)v;
                return isfinite(out->f) || !isfinite(v);
        }
        if (quoted && !json_is_number(s))
                return false;
        if (kind == PB_UINT64)
                return json_number_to_uint64(s, &out->u64);
        if (kind == PB_INT64)
                return json_number_to_int64(s, &out->i64);
        if (kind == PB_UINT32) {
                if (!json_number_to_uint64(s, &u) || u > UINT32_MAX)
                        return false;
                out->u32 = (uint32_t)u;
                return true;
        }
        if (!json_number_to_int64(s, &i) || i < INT32_MIN || i > INT32_MAX) /* PB_INT32, PB_ENUM */
                return false;
        out->i32 = (int32_t)i;
        return true;
}

static bool take_text(struct reader *r, struct str s, const char **out)
{
        if (s.n && memchr(s.p, 0, s.n))
                return fail(r, "a string holds NUL");
        *out = s.n ? need(r, arena_strdup(r->a, s)) : "";
        return *out;
}

static bool take_bytes(struct reader *r, struct str s, ProtobufCBinaryData *out)
{
        struct str b = base64_decode(r->a, s);
        if (!b.p)
                return fail(r, r->a->exhausted ? "out of memory" : "invalid base64");
        *out = pb_bytes(b);
        return true;
}

/* *ret_known is false for the name of an enum value that does not exist, when unknown things are to be ignored. */
static bool read_enum(struct reader *r, const ProtobufCFieldDescriptor *f, union scalar *out, bool *ret_known)
{
        struct str s;
        char z[PBJSON_NAME_BYTES];
        if (pbjson_is_null_value(f) && json_read_null(&r->json)) {
                out->i32 = 0;
                return true;
        }
        if (json_peek(&r->json) == JSON_NUMBER)
                return json_read_number(&r->json, &s) &&
                       (take_number(s, false, PB_ENUM, out) || fail(r, "number out of range"));
        if (!json_read_string(&r->json, r->a, &s))
                return fail(r, "an enum value was expected");
        const ProtobufCEnumValue *v = NULL;
        if (s.n < sizeof z) {
                memcpy(z, s.p, s.n);
                z[s.n] = '\0';
                v = protobuf_c_enum_descriptor_get_value_by_name(f->descriptor, z);
        }
        if (v)
                out->i32 = v->value;
        else if (r->flags & PBJSON_REFUSE_UNKNOWN)
                return fail(r, "unknown enum value");
        *ret_known = v;
        return true;
}

static bool read_scalar(struct reader *r, const ProtobufCFieldDescriptor *f, union scalar *out, bool *ret_known)
{
        struct str s;
        bool b, quoted;
        enum pb_kind kind = pb_types[f->type].kind;
        *ret_known = true;
        if (kind == PB_ENUM)
                return read_enum(r, f, out, ret_known);
        if (kind == PB_BOOL) {
                if (!json_read_bool(&r->json, &b))
                        return fail(r, "true or false was expected");
                out->b = b;
                return true;
        }
        if (kind == PB_STRING || kind == PB_BYTES) {
                if (!json_read_string(&r->json, r->a, &s))
                        return fail(r, "a string was expected");
                return kind == PB_STRING ? take_text(r, s, &out->z) : take_bytes(r, s, &out->bytes);
        }
        return number_text(r, &s, &quoted) && (take_number(s, quoted, kind, out) || fail(r, "number out of range"));
}

/* ---- messages with a form of their own ---- */

static bool push(struct reader *r, enum kind kind, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, int depth)
{
        struct frame *inner = r->top ? r->top->inner : NULL;
        if (!inner) {
                if (!(inner = need(r, arena_new(r->a, struct frame))))
                        return false;
                inner->outer = r->top;
                if (r->top)
                        r->top->inner = inner;
        }
        inner->kind = kind;
        inner->m = m;
        inner->f = f;
        inner->any = NULL;
        memset(inner->seen, 0, sizeof inner->seen);
        inner->depth = depth;
        r->top = inner;
        return depth < PB_MAX_DEPTH || fail(r, "nested too deep");
}

static bool open_object(struct reader *r, enum kind kind, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, int depth)
{
        return (json_enter_object(&r->json) || fail(r, "an object was expected")) && push(r, kind, m, f, depth);
}

static bool open_array(struct reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, int depth)
{
        return (json_enter_array(&r->json) || fail(r, "an array was expected")) && push(r, IN_LIST, m, f, depth);
}

static bool read_time(struct reader *r, ProtobufCMessage *m)
{
        struct str s;
        int64_t seconds;
        int32_t nanos;
        bool duration = m->descriptor == &google__protobuf__duration__descriptor;
        if (!json_read_string(&r->json, r->a, &s) ||
            !(duration ? pbduration_parse(s, &seconds, &nanos) : rfc3339_parse(s, &seconds, &nanos)))
                return fail(r, duration ? "a duration such as \"1.5s\" was expected" : "an RFC 3339 time was expected");
        memcpy(pb_set(m, &m->descriptor->fields[0]), &seconds, sizeof seconds);
        memcpy(pb_set(m, &m->descriptor->fields[1]), &nanos, sizeof nanos);
        return true;
}

static bool read_value(struct reader *r, Google__Protobuf__Value *v, int depth)
{
        struct str s;
        bool b;
        switch (json_peek(&r->json)) {
        case JSON_NULL:
                v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
                v->null_value = GOOGLE__PROTOBUF__NULL_VALUE__NULL_VALUE;
                return json_read_null(&r->json);
        case JSON_TRUE:
        case JSON_FALSE:
                if (!json_read_bool(&r->json, &b))
                        return false;
                v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
                v->bool_value = b;
                return true;
        case JSON_NUMBER:
                v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
                return json_read_double(&r->json, &v->number_value) || fail(r, "number out of range");
        case JSON_STRING:
                v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
                return json_read_string(&r->json, r->a, &s) && take_text(r, s, &v->string_value);
        case JSON_OBJECT:
                v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
                v->struct_value = need(r, pb_new(r->a, &google__protobuf__struct__descriptor));
                return v->struct_value && open_object(r, IN_MAP, &v->struct_value->base,
                                                      &google__protobuf__struct__descriptor.fields[0], depth + 1);
        case JSON_ARRAY:
                v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
                v->list_value = need(r, pb_new(r->a, &google__protobuf__list_value__descriptor));
                return v->list_value && open_array(r, &v->list_value->base,
                                                   &google__protobuf__list_value__descriptor.fields[0], depth + 1);
        case JSON_ERROR:
        case JSON_END:
                break;
        }
        return fail(r, "a value was expected");
}

/* Looks ahead in the object that stands next for its "@type". */
static bool find_type(struct reader *r, struct str *type, bool *empty)
{
        struct json_reader ahead = r->json;
        struct str name;
        *empty = true;
        *type = STR_NULL;
        if (!json_enter_object(&ahead))
                return fail(r, "an object was expected");
        while (!type->p && json_next_member(&ahead, r->a, &name)) {
                *empty = false;
                if (str_eqz(name, "@type")) {
                        if (!json_read_string(&ahead, r->a, type))
                                break;
                } else if (!json_skip(&ahead)) {
                        break;
                }
        }
        if (ahead.error) {
                r->json = ahead;
                return false;
        }
        return true;
}

static bool read_any(struct reader *r, Google__Protobuf__Any *any)
{
        struct str type;
        bool empty;
        if (!find_type(r, &type, &empty))
                return false;
        if (!type.n) {
                if (!empty && (r->flags & PBJSON_REFUSE_UNKNOWN))
                        return fail(r, "\"@type\" is missing");
                return json_skip(&r->json);
        }
        if (++r->anys > PBJSON_MAX_ANY)
                return fail(r, "nested too deep");
        const ProtobufCMessageDescriptor *d = pbjson_type_find(type);
        if (!d)
                return fail(r, "unknown message type in \"@type\"");
        ProtobufCMessage *m = need(r, pb_new(r->a, d));
        if (!m || !take_text(r, type, &any->type_url))
                return false;
        if (!open_object(r, pbjson_well_known(d) == WK_NONE ? IN_MESSAGE : IN_ANY_VALUE, m, NULL, 0))
                return false;
        r->top->any = any;
        return true;
}

/* Reads the value that stands next into m, or opens its frame. */
static bool begin(struct reader *r, ProtobufCMessage *m, int depth)
{
        const ProtobufCMessageDescriptor *d = m->descriptor;
        union scalar v;
        bool known;
        if (depth >= PB_MAX_DEPTH)
                return fail(r, "nested too deep");
        switch (pbjson_well_known(d)) {
        case WK_TIMESTAMP:
        case WK_DURATION:
                return read_time(r, m);
        case WK_WRAPPER:
                if (!read_scalar(r, &d->fields[0], &v, &known))
                        return false;
                memcpy(pb_set(m, &d->fields[0]), &v, pb_types[d->fields[0].type].size);
                return true;
        case WK_STRUCT:
                return open_object(r, IN_MAP, m, &d->fields[0], depth);
        case WK_LIST:
                return open_array(r, m, &d->fields[0], depth);
        case WK_VALUE:
                return read_value(r, (Google__Protobuf__Value *)m, depth);
        case WK_ANY:
                return read_any(r, (Google__Protobuf__Any *)m);
        case WK_EMPTY:
        case WK_NONE:
                break;
        }
        return open_object(r, IN_MESSAGE, m, NULL, depth);
}

/* ---- frames ---- */

static bool takes_null(const ProtobufCFieldDescriptor *f)
{
        return pbjson_is_null_value(f) ||
               (f->type == PROTOBUF_C_TYPE_MESSAGE && f->descriptor == &google__protobuf__value__descriptor);
}

/* One value of field f of m: the field itself, or one more element. */
static bool read_element(struct reader *r, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, bool repeated, int depth)
{
        union scalar v;
        bool known;
        if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
                ProtobufCMessage **at = need(r, repeated ? pb_append(r->a, m, f) : pb_set(m, f));
                if (!at || !(*at = need(r, pb_new(r->a, f->descriptor))))
                        return false;
                return begin(r, *at, depth + 1);
        }
        if (!read_scalar(r, f, &v, &known))
                return false;
        if (!known)
                return true;
        void *at = need(r, repeated ? pb_append(r->a, m, f) : pb_set(m, f));
        return at && memcpy(at, &v, pb_types[f->type].size);
}

static bool read_member(struct reader *r, struct frame *t, struct str name)
{
        const ProtobufCMessageDescriptor *d = t->m->descriptor;
        if (t->any && str_eqz(name, "@type"))
                return json_skip(&r->json);
        const ProtobufCFieldDescriptor *f = pbjson_field(d, name);
        if (!f)
                return r->flags & PBJSON_REFUSE_UNKNOWN ? fail(r, "unknown field") : json_skip(&r->json);
        size_t index = (size_t)(f - d->fields);
        if (index < 64 * SEEN_WORDS) {
                uint64_t bit = UINT64_C(1) << index % 64, *seen = &t->seen[index / 64];
                if (*seen & bit)
                        return fail(r, "the field is there twice");
                *seen |= bit;
        }
        bool repeated = f->label == PROTOBUF_C_LABEL_REPEATED;
        if (json_peek(&r->json) == JSON_NULL && (repeated || !takes_null(f)))
                return json_read_null(&r->json);
        if (!repeated) {
                if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(uint32_t *)((char *)t->m + f->quantifier_offset) != 0)
                        return fail(r, "another field of the same oneof is set");
                return read_element(r, t->m, f, false, t->depth);
        }
        return pbjson_is_map(d, f) ? open_object(r, IN_MAP, t->m, f, t->depth) : open_array(r, t->m, f, t->depth);
}

static bool read_key(struct reader *r, const ProtobufCFieldDescriptor *f, struct str name, union scalar *out)
{
        if (f->type == PROTOBUF_C_TYPE_STRING)
                return take_text(r, name, &out->z);
        if (f->type == PROTOBUF_C_TYPE_BOOL) {
                out->b = str_eqz(name, "true");
                return out->b || str_eqz(name, "false") || fail(r, "invalid map key");
        }
        return take_number(name, true, pb_types[f->type].kind, out) || fail(r, "invalid map key");
}

static bool read_entry(struct reader *r, struct frame *t, struct str name)
{
        const ProtobufCMessageDescriptor *d = t->f->descriptor;
        union scalar key;
        if (t->depth + 1 >= PB_MAX_DEPTH)
                return fail(r, "nested too deep");
        if (json_peek(&r->json) == JSON_NULL && !takes_null(&d->fields[1]))
                return fail(r, "null in a map");
        if (!read_key(r, &d->fields[0], name, &key))
                return false;
        ProtobufCMessage **at = need(r, pb_append(r->a, t->m, t->f));
        if (!at || !(*at = need(r, pb_new(r->a, d))))
                return false;
        memcpy(pb_set(*at, &d->fields[0]), &key, pb_types[d->fields[0].type].size);
        return read_element(r, *at, &d->fields[1], false, t->depth + 1);
}

static bool read_any_member(struct reader *r, struct frame *t, struct str name)
{
        if (str_eqz(name, "@type"))
                return json_skip(&r->json);
        if (!str_eqz(name, "value"))
                return r->flags & PBJSON_REFUSE_UNKNOWN ? fail(r, "unknown field") : json_skip(&r->json);
        if (t->seen[0])
                return fail(r, "the field is there twice");
        t->seen[0] = 1;
        return begin(r, t->m, 0);
}

static int compare_entries(const void *a, const void *b)
{
        return pbjson_compare_entries(*(ProtobufCMessage *const *)a, *(ProtobufCMessage *const *)b);
}

static bool check_keys(struct reader *r, const struct frame *t)
{
        size_t n = *(size_t *)((char *)t->m + t->f->quantifier_offset);
        ProtobufCMessage **entries = *(ProtobufCMessage ***)((char *)t->m + t->f->offset), **sorted;
        if (n < 2)
                return true;
        if (!(sorted = need(r, arena_alloc(r->a, n * sizeof *sorted))))
                return false;
        memcpy(sorted, entries, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, compare_entries);
        for (size_t i = 1; i < n; i++)
                if (pbjson_compare_entries(sorted[i - 1], sorted[i]) == 0)
                        return fail(r, "a map key is there twice");
        return true;
}

/* At the closing bracket. */
static bool end(struct reader *r)
{
        struct frame *t = r->top;
        r->top = t->outer;
        if (t->kind == IN_MAP && !check_keys(r, t))
                return false;
        if (!t->any)
                return true;
        if (t->kind == IN_ANY_VALUE && !t->seen[0] && pbjson_well_known(t->m->descriptor) != WK_EMPTY)
                return fail(r, "\"value\" is missing beside \"@type\"");
        struct str packed = pb_pack(r->a, t->m);
        r->anys--;
        t->any->value = pb_bytes(packed);
        return need(r, (void *)packed.p);
}

/* One member or element of the innermost frame, or its end. */
static bool step(struct reader *r)
{
        struct frame *t = r->top;
        struct str name;
        if (t->kind == IN_LIST) {
                if (!json_next_element(&r->json))
                        return !r->json.error && end(r);
                if (json_peek(&r->json) == JSON_NULL && !takes_null(t->f))
                        return fail(r, "null in a list");
                return read_element(r, t->m, t->f, true, t->depth);
        }
        if (!json_next_member(&r->json, r->a, &name))
                return !r->json.error && end(r);
        r->where = name;
        if (t->kind == IN_MAP)
                return read_entry(r, t, name);
        return t->kind == IN_MESSAGE ? read_member(r, t, name) : read_any_member(r, t, name);
}

static const char *describe(struct reader *r)
{
        bool syntax = r->json.error;
        const char *why = syntax ? r->json.error : r->error ? r->error : "invalid JSON";
        size_t pos = syntax ? r->json.error_pos : r->json.pos;
        struct str near = str_n(r->where.p, r->where.n > 64 ? 64 : r->where.n);
        char *z = near.n ? arena_printf(r->a, "%s (at byte %zu, near \"%.*s\")", why, pos, STR_FMT(near))
                         : arena_printf(r->a, "%s (at byte %zu)", why, pos);
        return z ? z : why;
}

void *pbjson_read(struct arena *a, const ProtobufCMessageDescriptor *d, struct str text, int flags, const char **ret_error)
{
        struct reader r = {.a = a, .flags = flags};
        json_read_init(&r.json, text);
        ProtobufCMessage *m = need(&r, pb_new(a, d));
        bool ok = m && begin(&r, m, 0);
        while (ok && r.top)
                ok = step(&r);
        if (ok && json_at_end(&r.json))
                return m;
        if (ok)
                fail(&r, "unexpected data after the value");
        if (ret_error)
                *ret_error = describe(&r);
        return NULL;
}
