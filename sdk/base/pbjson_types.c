/* See pbjson_types.h. protobuf-c's descriptors keep neither json_name nor map_entry: both are worked out here. */
#include "sdk/base/pbjson_types.h"

#include "proto/registry.h"

/* Known only to programs that link the registry for their own use. */
#pragma weak pb_message_find

static const struct {
        const ProtobufCMessageDescriptor *d;
        enum well_known kind;
} well_known[] = {
        {&google__protobuf__any__descriptor, WK_ANY},
        {&google__protobuf__duration__descriptor, WK_DURATION},
        {&google__protobuf__empty__descriptor, WK_EMPTY},
        {&google__protobuf__list_value__descriptor, WK_LIST},
        {&google__protobuf__struct__descriptor, WK_STRUCT},
        {&google__protobuf__timestamp__descriptor, WK_TIMESTAMP},
        {&google__protobuf__value__descriptor, WK_VALUE},
        {&google__protobuf__double_value__descriptor, WK_WRAPPER},
        {&google__protobuf__float_value__descriptor, WK_WRAPPER},
        {&google__protobuf__int64_value__descriptor, WK_WRAPPER},
        {&google__protobuf__uint64_value__descriptor, WK_WRAPPER},
        {&google__protobuf__int32_value__descriptor, WK_WRAPPER},
        {&google__protobuf__uint32_value__descriptor, WK_WRAPPER},
        {&google__protobuf__bool_value__descriptor, WK_WRAPPER},
        {&google__protobuf__string_value__descriptor, WK_WRAPPER},
        {&google__protobuf__bytes_value__descriptor, WK_WRAPPER},
};
enum { WELL_KNOWN_N = sizeof well_known / sizeof *well_known };

enum well_known pbjson_well_known(const ProtobufCMessageDescriptor *d)
{
        if (strcmp(d->package_name, "google.protobuf") != 0)
                return WK_NONE;
        for (int i = 0; i < WELL_KNOWN_N; i++)
                if (well_known[i].d == d)
                        return well_known[i].kind;
        return WK_NONE;
}

const ProtobufCMessageDescriptor *pbjson_type_find(struct str type_url)
{
        const char *slash = type_url.n ? memrchr(type_url.p, '/', type_url.n) : NULL;
        struct str name = slash ? str_skip(type_url, (size_t)(slash + 1 - type_url.p)) : type_url;
        for (int i = 0; i < WELL_KNOWN_N; i++)
                if (str_eqz(name, well_known[i].d->name))
                        return well_known[i].d;
        return pb_message_find ? pb_message_find(name) : NULL;
}

/* Compares with foo_bar turned into fooBar, or into FooBar. */
static bool is_camel(const char *field, bool upper_first, struct str name)
{
        size_t i = 0;
        for (bool up = upper_first; *field; field++) {
                if (*field == '_') {
                        up = true;
                        continue;
                }
                char c = up && *field >= 'a' && *field <= 'z' ? (char)(*field - 'a' + 'A') : *field;
                if (i >= name.n || name.p[i++] != c)
                        return false;
                up = false;
        }
        return i == name.n;
}

bool pbjson_is_map(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f)
{
        const ProtobufCMessageDescriptor *entry = f->descriptor;
        if (f->label != PROTOBUF_C_LABEL_REPEATED || f->type != PROTOBUF_C_TYPE_MESSAGE || entry->n_fields != 2)
                return false;
        /* protoc names the entry of foo_bar in message M "M.FooBarEntry" */
        struct str name = str_of(entry->name), outer = str_of(d->name), suffix = STR("Entry");
        if (!str_has_suffix(name, suffix) || !str_has_prefix(name, outer) || name.n < outer.n + 1 + suffix.n ||
            name.p[outer.n] != '.')
                return false;
        return is_camel(f->name, true, str_n(name.p + outer.n + 1, name.n - outer.n - 1 - suffix.n));
}

#define COMPARE(type)                                                             \
        do {                                                                      \
                type x, y;                                                        \
                memcpy(&x, (const char *)a + f->offset, sizeof x);                \
                memcpy(&y, (const char *)b + f->offset, sizeof y);                \
                return (x > y) - (x < y);                                         \
        } while (0)

int pbjson_compare_entries(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
        const ProtobufCFieldDescriptor *f = &a->descriptor->fields[0];
        switch ((enum pb_kind)pb_types[f->type].kind) {
        case PB_UINT64:
                COMPARE(uint64_t);
        case PB_INT64:
                COMPARE(int64_t);
        case PB_UINT32:
                COMPARE(uint32_t);
        case PB_INT32:
        case PB_BOOL:
                COMPARE(int32_t);
        case PB_STRING:
        case PB_BYTES: /* the rest is not allowed as a key */
        case PB_MESSAGE:
        case PB_FLOAT:
        case PB_DOUBLE:
        case PB_ENUM:
                break;
        }
        return strcmp(*(const char *const *)((const char *)a + f->offset), *(const char *const *)((const char *)b + f->offset));
}

bool pbjson_is_null_value(const ProtobufCFieldDescriptor *f)
{
        return f->type == PROTOBUF_C_TYPE_ENUM && f->descriptor == &google__protobuf__null_value__descriptor;
}

/* First row of the override table for the message, or the end of the table. */
static const struct pb_json_name *overrides(const ProtobufCMessageDescriptor *d)
{
        size_t lo = 0, hi = pb_json_names_n;
        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                if (strcmp(pb_json_names[mid].message, d->name) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return &pb_json_names[lo];
}

static bool is_row_of(const struct pb_json_name *row, const ProtobufCMessageDescriptor *d)
{
        return row < pb_json_names + pb_json_names_n && strcmp(row->message, d->name) == 0;
}

struct str pbjson_name(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f, char room[PBJSON_NAME_BYTES])
{
        for (const struct pb_json_name *row = overrides(d); is_row_of(row, d); row++)
                if (strcmp(row->field, f->name) == 0)
                        return str_of(row->json);
        size_t n = 0;
        bool up = false;
        for (const char *p = f->name; *p && n < PBJSON_NAME_BYTES; p++) {
                if (*p == '_') {
                        up = true;
                        continue;
                }
                room[n++] = up && *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
                up = false;
        }
        return str_n(room, n);
}

const ProtobufCFieldDescriptor *pbjson_field(const ProtobufCMessageDescriptor *d, struct str name)
{
        for (unsigned i = 0; i < d->n_fields; i++)
                if (str_eqz(name, d->fields[i].name) || is_camel(d->fields[i].name, false, name))
                        return &d->fields[i];
        for (const struct pb_json_name *row = overrides(d); is_row_of(row, d); row++)
                if (str_eqz(name, row->json))
                        return protobuf_c_message_descriptor_get_field_by_name(d, row->field);
        return NULL;
}
