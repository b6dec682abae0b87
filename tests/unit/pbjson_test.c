/* pbjson.h */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "dapr/proto/runtime/v1/metadata.pb-c.h"
#include "dapr/proto/runtime/v1/workflow.pb-c.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"
#include "proto/registry.h"
#include "sdk/base/pbjson.h"
#include "test/v1/kinds.pb-c.h"
#include "tests/unit/fault.h"

#define N(array) (int)(sizeof(array) / sizeof *(array))

typedef Microdapr__Test__V1__Kinds Kinds;
static const ProtobufCMessageDescriptor *const kinds = &microdapr__test__v1__kinds__descriptor;

static struct arena arena;

static void teardown(void)
{
        arena_fini(&arena);
        arena = (struct arena){0};
}

static void *read_as(const ProtobufCMessageDescriptor *d, const char *text, int flags, const char **error)
{
        size_t n = strlen(text);
        char *exact = malloc(n ? n : 1); /* so that reading past the end is seen */
        memcpy(exact, text, n);
        *error = NULL;
        void *m = pbjson_read(&arena, d, str_n(exact, n), flags, error);
        ck_assert_msg((m == NULL) == (*error != NULL), "%s", text);
        if (m) { /* what was read can travel: nothing in it points into the text, and pb_unpack takes it back */
                memset(exact, '?', n);
                m = pb_unpack(&arena, d, pb_pack(&arena, m));
                ck_assert_msg(m, "%s", text);
        }
        free(exact);
        return m;
}

static const char *write_text(const ProtobufCMessage *m, int flags)
{
        struct buf b = {0};
        if (pbjson_write(&b, m, flags) != 0)
                return NULL;
        const char *z = arena_strdup(&arena, buf_str(&b));
        ck_assert_msg(json_valid(buf_str(&b)), "%s", z);
        buf_fini(&b);
        return z;
}

/* ---- the mapping, both ways; NULL: comes back as it was ---- */

static const char *const pairs[][2] = {
        {"{}", NULL},
        {" { \"anInt32\" : 1 , \"aSint32\":-2,\"aSfixed32\":3,\"aUint32\":4,\"aFixed32\":5} ",
         "{\"anInt32\":1,\"aSint32\":-2,\"aSfixed32\":3,\"aUint32\":4,\"aFixed32\":5}"},
        {"{\"anInt64\":\"-9223372036854775808\",\"aSint64\":\"-1\",\"aSfixed64\":\"1\",\"aUint64\":\"18446744073709551615\","
         "\"aFixed64\":\"7\"}", NULL},
        {"{\"anInt64\":5,\"aUint64\":6,\"anInt32\":\"7\"}", "{\"anInt32\":7,\"anInt64\":\"5\",\"aUint64\":\"6\"}"},
        {"{\"anInt32\":1e2,\"aUint32\":\"1.50e1\",\"anInt64\":-3.0,\"aSint32\":-0}", "{\"anInt32\":100,\"anInt64\":\"-3\",\"aUint32\":15}"},
        {"{\"aFloat\":1.1,\"aDouble\":0.30000000000000004}", NULL},
        {"{\"aFloat\":\"NaN\",\"aDouble\":\"-Infinity\"}", NULL},
        {"{\"aFloat\":\"Infinity\",\"aDouble\":\"1e3\"}", "{\"aFloat\":\"Infinity\",\"aDouble\":1000}"},
        {"{\"aFloat\":1e-50,\"aDouble\":1e-400}", "{}"},
        {"{\"aBool\":true}", NULL},
        {"{\"aBool\":false,\"aString\":\"\",\"aBytes\":\"\",\"anInt32\":0,\"aColor\":0,\"ints\":[],\"byString\":{}}", "{}"},
        {"{\"aColor\":\"DEEP_BLUE\",\"colors\":[\"RED\",-3,7,\"COLOR_UNSPECIFIED\",99]}",
         "{\"aColor\":\"DEEP_BLUE\",\"colors\":[\"RED\",\"INFRARED\",\"DEEP_BLUE\",\"COLOR_UNSPECIFIED\",99]}"},
        {"{\"aColor\":\"PINK\",\"colors\":[\"RED\",\"PINK\"]}", "{\"colors\":[\"RED\"]}"},
        {"{\"aString\":\"a\\u00e9\\n\\\"\\ud834\\udd1e\"}", "{\"aString\":\"a\xc3\xa9\\n\\\"\xf0\x9d\x84\x9e\"}"},
        {"{\"aBytes\":\"-_-_\",\"blobs\":[\"\",\"Zg\",\"Zm9v\"]}", "{\"aBytes\":\"+/+/\",\"blobs\":[\"\",\"Zg==\",\"Zm9v\"]}"},
        {"{\"an_int32\":1,\"a_string\":\"x\",\"by_string\":{\"a\":\"b\"}}",
         "{\"anInt32\":1,\"aString\":\"x\",\"byString\":{\"a\":\"b\"}}"},
        {"{\"child\":{\"child\":{}},\"children\":[{},{\"anInt32\":1}]}", NULL},
        /* explicit presence */
        {"{\"maybeInt\":0,\"maybeString\":\"\",\"maybeColor\":\"COLOR_UNSPECIFIED\",\"maybeChild\":{}}", NULL},
        {"{\"yes\":false}", NULL},
        {"{\"words\":\"\"}", NULL},
        {"{\"other\":{}}", NULL},
        {"{\"nothing\":null}", NULL},
        {"{\"nothing\":\"NULL_VALUE\"}", "{\"nothing\":null}"},
        {"{\"anything\":null}", NULL},
        {"{\"anything\":[null,1,{}]}", NULL},
        {"{\"yes\":null,\"words\":\"w\"}", "{\"words\":\"w\"}"},
        /* null leaves unset */
        {"{\"anInt32\":null,\"aString\":null,\"child\":null,\"ints\":null,\"byString\":null,\"aTimestamp\":null,\"aColor\":null,"
         "\"maybeInt\":null,\"aStruct\":null,\"anInt32Value\":null,\"aList\":null}", "{}"},
        /* unknown members are skipped */
        {"{\"nope\":{\"a\":[1,2,{\"b\":null}]},\"anInt32\":1,\"x\":\"\"}", "{\"anInt32\":1}"},
        /* lists and maps */
        {"{\"ints\":[1,-2,3],\"looseSints\":[\"1\",\"-2\"],\"fixeds\":[\"1\"],\"floats\":[0.5],\"bools\":[true,false],"
         "\"strings\":[\"\",\"a\"],\"values\":[null,{\"a\":null}],\"times\":[\"1970-01-01T00:00:00Z\"]}", NULL},
        {"{\"byString\":{\"z\":\"1\",\"a\":\"2\",\"\":\"3\"}}", "{\"byString\":{\"\":\"3\",\"a\":\"2\",\"z\":\"1\"}}"},
        {"{\"byInt32\":{\"10\":\"a\",\"-2\":\"b\",\"9\":\"c\"},\"byInt64\":{\"-5\":true,\"3\":false},\"byUint32\":{\"4294967295\":\"RED\"},"
         "\"byUint64\":{\"18446744073709551615\":1.5},\"byBool\":{\"true\":\"Zg==\",\"false\":\"\"},"
         "\"byName\":{\"x\":{\"anInt32\":1},\"y\":{}},\"bySint32\":{\"-1\":null,\"1\":[1]}}",
         "{\"byInt32\":{\"-2\":\"b\",\"9\":\"c\",\"10\":\"a\"},\"byInt64\":{\"-5\":true,\"3\":false},\"byUint32\":{\"4294967295\":\"RED\"},"
         "\"byUint64\":{\"18446744073709551615\":1.5},\"byBool\":{\"false\":\"\",\"true\":\"Zg==\"},"
         "\"byName\":{\"x\":{\"anInt32\":1},\"y\":{}},\"bySint32\":{\"-1\":null,\"1\":[1]}}"},
        /* well-known types */
        {"{\"aDuration\":\"1.5s\",\"aTimestamp\":\"2026-07-14T10:20:30.123456Z\"}",
         "{\"aDuration\":\"1.500s\",\"aTimestamp\":\"2026-07-14T10:20:30.123456Z\"}"},
        {"{\"aDuration\":\"-0.000000001s\",\"aTimestamp\":\"1970-01-01T01:00:00+01:00\"}",
         "{\"aDuration\":\"-0.000000001s\",\"aTimestamp\":\"1970-01-01T00:00:00Z\"}"},
        {"{\"anEmpty\":{}}", NULL},
        {"{\"aList\":[1,\"a\",true,null,[],{}],\"aStruct\":{\"a\":{\"b\":[{\"c\":1.5}]},\"z\":null},\"aValue\":\"x\"}", NULL},
        {"{\"aList\":[],\"aStruct\":{},\"aValue\":null}", NULL},
        {"{\"aValue\":1e21,\"aNull\":null}", "{\"aValue\":1e+21}"},
        {"{\"aBoolValue\":false,\"aBytesValue\":\"Zg==\",\"aDoubleValue\":0,\"aFloatValue\":\"NaN\",\"anInt32Value\":0,"
         "\"anInt64Value\":\"0\",\"aStringValue\":\"\",\"aUint32Value\":1,\"aUint64Value\":\"2\"}", NULL},
        /* Any */
        {"{\"anAny\":{}}", NULL},
        {"{\"anAny\":{\"@type\":\"type.googleapis.com/google.protobuf.StringValue\",\"value\":\"x\"}}", NULL},
        {"{\"anAny\":{\"value\":\"1.500s\",\"@type\":\"type.googleapis.com/google.protobuf.Duration\"}}",
         "{\"anAny\":{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"1.500s\"}}"},
        {"{\"anAny\":{\"@type\":\"x/google.protobuf.Value\",\"value\":{\"a\":[1]}}}", NULL},
        {"{\"anAny\":{\"@type\":\"google.protobuf.Empty\"}}", "{\"anAny\":{\"@type\":\"google.protobuf.Empty\",\"value\":{}}}"},
        {"{\"anAny\":{\"name\":\"n\",\"@type\":\"type.googleapis.com/dapr.proto.runtime.v1.GetJobRequest\",\"zzz\":1}}",
         "{\"anAny\":{\"@type\":\"type.googleapis.com/dapr.proto.runtime.v1.GetJobRequest\",\"name\":\"n\"}}"},
        {"{\"anAny\":{\"@type\":\"a/google.protobuf.Any\",\"value\":{\"@type\":\"b/google.protobuf.BoolValue\",\"value\":true}}}", NULL},
        {"{\"anAny\":{\"no\":\"type\"}}", "{\"anAny\":{}}"},
        /* names */
        {"{\"xYZ\":\"1\",\"Lead\":\"2\",\"trailing\":\"3\",\"digits1a\":\"4\",\"UPPERCase\":\"5\"}", NULL},
        {"{\"x_y__z\":\"1\",\"_lead\":\"2\",\"trailing_\":\"3\",\"digits_1a\":\"4\",\"UPPER_case\":\"5\"}",
         "{\"xYZ\":\"1\",\"Lead\":\"2\",\"trailing\":\"3\",\"digits1a\":\"4\",\"UPPERCase\":\"5\"}"},
        {"{\"an\\u0049nt32\":7}", "{\"anInt32\":7}"},
};

START_TEST(values_map_both_ways)
{
        const char *error, *want = pairs[_i][1] ? pairs[_i][1] : pairs[_i][0];
        ProtobufCMessage *m = read_as(kinds, pairs[_i][0], 0, &error);
        ck_assert_msg(m, "%s: %s", pairs[_i][0], error);
        ck_assert_str_eq(write_text(m, 0), want);
        m = read_as(kinds, want, PBJSON_REFUSE_UNKNOWN, &error); /* and what was written is read to the same */
        ck_assert_msg(m, "%s: %s", want, error);
        ck_assert_str_eq(write_text(m, 0), want);
}
END_TEST

static const char *const refused[] = {
        "", "null", "[]", "1", "\"x\"", "{", "{}x", "{} {}", "{\"anInt32\":}", "{\"anInt32\"}", "{anInt32:1}", "{\"anInt32\":1,}",
        "{\"anInt32\":1.5}", "{\"anInt32\":2147483648}", "{\"anInt32\":-2147483649}", "{\"anInt32\":\"\"}", "{\"anInt32\":\" 1\"}",
        "{\"anInt32\":\"1 \"}", "{\"anInt32\":\"0x1\"}", "{\"anInt32\":\"01\"}", "{\"anInt32\":true}", "{\"anInt32\":[1]}", "{\"anInt32\":{}}",
        "{\"aUint32\":-1}", "{\"aUint32\":4294967296}", "{\"aUint64\":18446744073709551616}", "{\"aUint64\":-1}",
        "{\"anInt64\":9223372036854775808}", "{\"anInt64\":\"1.5\"}", "{\"anInt64\":\"NaN\"}",
        "{\"aFloat\":1e39}", "{\"aFloat\":\"-1e39\"}", "{\"aDouble\":1e309}", "{\"aDouble\":\"nan\"}", "{\"aDouble\":NaN}", "{\"aDouble\":\"\"}",
        "{\"aBool\":\"true\"}", "{\"aBool\":1}", "{\"aBool\":tru}", "{\"aString\":1}", "{\"aString\":[\"a\"]}", "{\"aString\":\"\\u0000\"}",
        "{\"aBytes\":1}", "{\"aBytes\":\"=\"}", "{\"aBytes\":\"Zg=\"}", "{\"aBytes\":\"*\"}", "{\"aColor\":1.5}", "{\"aColor\":true}",
        "{\"aColor\":2147483648}", "{\"child\":1}", "{\"child\":[]}", "{\"child\":\"\"}", "{\"ints\":1}", "{\"ints\":{}}", "{\"ints\":[null]}",
        "{\"ints\":[\"a\"]}", "{\"children\":[null]}", "{\"children\":{}}", "{\"byString\":[]}", "{\"byString\":{\"a\":null}}",
        "{\"byString\":{\"a\":1}}", "{\"byString\":{\"a\":\"1\",\"a\":\"2\"}}", "{\"byString\":{\"a\\u0000\":\"1\"}}",
        "{\"byInt32\":{\"a\":\"\"}}", "{\"byInt32\":{\"1\":\"\",\"1.0\":\"\"}}", "{\"byInt32\":{\"2147483648\":\"\"}}", "{\"byInt32\":{\"\":\"\"}}",
        "{\"byBool\":{\"True\":\"\"}}", "{\"byUint32\":{\"-1\":0}}", "{\"anInt32\":1,\"anInt32\":2}", "{\"anInt32\":1,\"an_int32\":2}",
        "{\"UPPERCase\":\"\",\"UPPER_case\":\"\"}", "{\"ints\":[1],\"ints\":[2]}", "{\"yes\":true,\"words\":\"\"}", "{\"yes\":true,\"nothing\":null}",
        "{\"aTimestamp\":1}", "{\"aTimestamp\":\"\"}", "{\"aTimestamp\":\"2024-01-01\"}", "{\"aTimestamp\":{}}", "{\"times\":[null]}",
        "{\"aDuration\":\"1\"}", "{\"aDuration\":1}", "{\"anEmpty\":1}", "{\"aStruct\":[]}", "{\"aStruct\":{\"a\":1,\"a\":2}}", "{\"aList\":{}}",
        "{\"aValue\":1e400}", "{\"aValue\":\"\\u0000\"}", "{\"anInt32Value\":{}}", "{\"anInt32Value\":\"x\"}", "{\"aNull\":1}x",
        "{\"anAny\":1}", "{\"anAny\":{\"@type\":\"x/unknown.Type\"}}", "{\"anAny\":{\"@type\":\"google.protobuf.Duration\"}}",
        "{\"anAny\":{\"@type\":\"google.protobuf.Duration\",\"value\":\"x\"}}",
        "{\"anAny\":{\"@type\":\"google.protobuf.Value\",\"value\":1,\"value\":2}}", "{\"anAny\":{\"@type\":\"google.protobuf.Empty\"",
        "{\"anAny\":{\"@type\":\"dapr.proto.runtime.v1.GetJobRequest\",\"name\":1}}",
};

START_TEST(other_values_are_refused)
{
        const char *error;
        ck_assert_msg(!read_as(kinds, refused[_i], 0, &error), "%s", refused[_i]);
}
END_TEST

static const char *const unknown[] = {"{\"nope\":1}", "{\"child\":{\"nope\":1}}", "{\"aColor\":\"PINK\"}", "{\"anEmpty\":{\"a\":1}}",
                                      "{\"anAny\":{\"no\":1}}", "{\"anAny\":{\"@type\":\"google.protobuf.Empty\",\"x\":1}}",
                                      "{\"anAny\":{\"@type\":\"dapr.proto.runtime.v1.GetJobRequest\",\"x\":1}}"};

START_TEST(unknown_things_are_refused_on_request)
{
        const char *error;
        ck_assert_msg(read_as(kinds, unknown[_i], 0, &error), "%s", unknown[_i]);
        ck_assert_msg(!read_as(kinds, unknown[_i], PBJSON_REFUSE_UNKNOWN, &error), "%s", unknown[_i]);
}
END_TEST

START_TEST(errors_say_where)
{
        const char *error;
        ck_assert_ptr_null(read_as(kinds, "{\"child\":{\"anInt32\":true}}", 0, &error));
        ck_assert_str_eq(error, "a number was expected (at byte 20, near \"anInt32\")");
        ck_assert_ptr_null(read_as(kinds, "[", 0, &error));
        ck_assert_str_eq(error, "an object was expected (at byte 0)");
        ck_assert_ptr_null(read_as(kinds, "{\"ints\":[1,]}", 0, &error));
        ck_assert_str_eq(error, "a value was expected (at byte 11, near \"ints\")");
        ck_assert_ptr_null(pbjson_read(&arena, kinds, STR("["), 0, NULL));
}
END_TEST

START_TEST(zero_values_are_written_on_request)
{
        const char *error;
        ProtobufCMessage *m = read_as(&dapr__proto__runtime__v1__get_metadata_response__descriptor, "{\"id\":\"a\"}", 0, &error);
        ck_assert_str_eq(write_text(m, PBJSON_EMIT_ZERO),
                         "{\"id\":\"a\",\"actors\":[],\"components\":[],\"extended\":{},\"subscriptions\":[],\"httpEndpoints\":[],"
                         "\"appConnectionProperties\":null,\"runtimeVersion\":\"\",\"enabledFeatures\":[],\"actorRuntime\":null}");
        Kinds *k = read_as(kinds, "{}", 0, &error);
        const char *z = write_text(&k->base, PBJSON_EMIT_ZERO);
        ck_assert_ptr_nonnull(strstr(z, "{\"anInt32\":0,\"aSint32\":0,"));
        ck_assert_ptr_nonnull(strstr(z, "\"anInt64\":\"0\""));
        ck_assert_ptr_nonnull(strstr(z, "\"aFloat\":0,\"aDouble\":0,\"aBool\":false,\"aColor\":\"COLOR_UNSPECIFIED\","
                                        "\"aString\":\"\",\"aBytes\":\"\",\"child\":null,\"ints\":[]"));
        ck_assert_ptr_nonnull(strstr(z, "\"aNull\":null"));
        ck_assert_ptr_null(strstr(z, "maybe"));
        ck_assert_ptr_null(strstr(z, "yes"));
}
END_TEST

START_TEST(json_names_of_the_contract_are_used)
{
        const char *error;
        ProtobufCMessage *m = read_as(&dapr__proto__runtime__v1__get_workflow_request__descriptor,
                                      "{\"instanceID\":\"i\",\"workflow_component\":\"c\"}", PBJSON_REFUSE_UNKNOWN, &error);
        ck_assert_ptr_nonnull(m);
        ck_assert_str_eq(write_text(m, 0), "{\"instanceID\":\"i\",\"workflowComponent\":\"c\"}");
        ck_assert_str_eq(write_text(m, PBJSON_ORIG_NAMES), "{\"instance_id\":\"i\",\"workflow_component\":\"c\"}");
        m = read_as(&dapr__proto__runtime__v1__pubsub_subscription__descriptor, "{\"pubsubname\":\"p\",\"type\":3}", 0, &error);
        ck_assert_str_eq(write_text(m, 0), "{\"pubsubname\":\"p\",\"type\":\"STREAMING\"}");
        ck_assert_str_eq(write_text(m, PBJSON_ENUM_NUMBERS), "{\"pubsubname\":\"p\",\"type\":3}");
}
END_TEST

START_TEST(well_known_types_stand_alone)
{
        const char *error;
        void *m = read_as(&google__protobuf__timestamp__descriptor, " \"2000-01-01T00:00:00Z\" ", 0, &error);
        ck_assert_ptr_nonnull(m);
        ck_assert_int_eq(((Google__Protobuf__Timestamp *)m)->seconds, 946684800);
        ck_assert_str_eq(write_text(m, 0), "\"2000-01-01T00:00:00Z\"");
        m = read_as(&google__protobuf__value__descriptor, "null", 0, &error);
        ck_assert_str_eq(write_text(m, 0), "null");
        m = read_as(&google__protobuf__list_value__descriptor, "[1,[2]]", 0, &error);
        ck_assert_str_eq(write_text(m, 0), "[1,[2]]");
        m = read_as(&google__protobuf__int64_value__descriptor, "5", 0, &error);
        ck_assert_str_eq(write_text(m, 0), "\"5\"");
}
END_TEST

START_TEST(what_has_no_json_form_is_refused)
{
        struct buf b = {0};
        Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        Google__Protobuf__Value v = GOOGLE__PROTOBUF__VALUE__INIT;
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
        buf_addz(&b, "before");
        t.nanos = -1;
        ck_assert_int_eq(pbjson_write(&b, &t.base, 0), -EINVAL);
        ck_assert_int_eq(pbjson_write(&b, &v.base, 0), -EINVAL);
        v.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
        v.number_value = __builtin_nan("");
        ck_assert_int_eq(pbjson_write(&b, &v.base, 0), -EINVAL);
        any.type_url = "x/unknown";
        ck_assert_int_eq(pbjson_write(&b, &any.base, 0), -EINVAL);
        any.type_url = "x/google.protobuf.Duration";
        any.value = pb_bytes(STR("\xff"));
        ck_assert_int_eq(pbjson_write(&b, &any.base, 0), -EINVAL);
        ck_assert(str_eqz(buf_str(&b), "before"));
        buf_fini(&b);
}
END_TEST

START_TEST(the_last_of_equal_map_keys_is_written)
{
        Kinds *k = pb_unpack(&arena, kinds, STR("\xea\x03\x06\x0a\x01k\x12\x01v" "\xea\x03\x06\x0a\x01" "a\x12\x01w"
                                                "\xea\x03\x06\x0a\x01k\x12\x01x" "\xea\x03\x06\x0a\x01k\x12\x01y"));
        ck_assert_str_eq(write_text(&k->base, 0), "{\"byString\":{\"a\":\"w\",\"k\":\"y\"}}");
}
END_TEST

START_TEST(map_entries_without_value_hold_the_default)
{
        Kinds *k = pb_unpack(&arena, kinds, STR("\x9a\x04\x03\x0a\x01" "a"));
        ck_assert_str_eq(write_text(&k->base, 0), "{\"byName\":{\"a\":{}}}");
}
END_TEST

/* ---- limits ---- */

static struct buf repeat(const char *open, const char *inner, const char *close, int n)
{
        struct buf b = {0};
        for (int i = 0; i < n; i++)
                buf_addz(&b, open);
        buf_addz(&b, inner);
        for (int i = 0; i < n; i++)
                buf_addz(&b, close);
        return b;
}

struct bomb {
        const ProtobufCMessageDescriptor *d;
        const char *open, *inner, *close;
        int most; /* levels that are still accepted */
};

static bool try_levels(const struct bomb *bomb, int levels, bool accepted)
{
        struct buf b = repeat(bomb->open, bomb->inner, bomb->close, levels), out = {0};
        struct arena a = {0};
        const char *error;
        ProtobufCMessage *m = pbjson_read(&a, bomb->d, buf_str(&b), 0, &error);
        bool ok = (m != NULL) == accepted;
        if (ok && m) {
                struct str packed = pb_pack(&a, m);
                ok = pb_unpack(&a, bomb->d, packed) && pbjson_write(&out, m, 0) == 0 && str_eq(buf_str(&out), buf_str(&b));
        }
        buf_fini(&b);
        buf_fini(&out);
        arena_fini(&a);
        return ok;
}

static void *explode(void *arg)
{
        const struct bomb *b = arg;
        bool ok = try_levels(b, b->most, true) && try_levels(b, b->most + 1, false) && try_levels(b, 100000, false);
        return ok ? arg : NULL;
}

static const struct bomb bombs[] = {
        {&microdapr__test__v1__kinds__descriptor, "{\"child\":", "{}", "}", 99},
        {&microdapr__test__v1__kinds__descriptor, "{\"children\":[", "{}", "]}", 99},
        {&microdapr__test__v1__kinds__descriptor, "{\"byName\":{\"a\":", "{}", "}}", 49},
        {&google__protobuf__value__descriptor, "[", "1", "]", 49},
        {&google__protobuf__value__descriptor, "{\"a\":", "1", "}", 33},
        {&google__protobuf__list_value__descriptor, "[", "", "]", 50},
        {&google__protobuf__any__descriptor, "{\"@type\":\"google.protobuf.Any\",\"value\":", "{}", "}", 8},
};

START_TEST(depth_bombs_are_refused_on_a_small_stack)
{
        pthread_attr_t attr;
        pthread_t thread;
        void *ok;
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 64 * 1024);
        ck_assert_int_eq(pthread_create(&thread, &attr, explode, (void *)&bombs[_i]), 0);
        pthread_join(thread, &ok);
        pthread_attr_destroy(&attr);
        ck_assert_ptr_nonnull(ok);
}
END_TEST

static const char everything[] =
        "{\"aString\":\"s\\n\",\"aBytes\":\"Zm9v\",\"child\":{\"strings\":[\"a\",\"b\"]},\"byString\":{\"b\":\"1\",\"a\":\"2\"},"
        "\"ints\":[1,2,3,4,5,6,7,8,9],\"aStruct\":{\"k\":[{\"x\":null}]},\"anAny\":{\"@type\":\"google.protobuf.Value\",\"value\":[1]},"
        "\"aTimestamp\":\"2000-01-01T00:00:00Z\",\"maybeString\":\"\"}";

START_TEST(each_cap_of_the_arena_is_respected)
{
        ProtobufCMessage *m = NULL;
        for (size_t cap = 1; !m && cap < 262144; cap += 16) {
                struct arena a;
                const char *error = NULL;
                arena_init(&a, cap);
                m = pbjson_read(&a, kinds, str_of(everything), 0, &error);
                ck_assert_uint_le(a.used_bytes, cap);
                ck_assert(m || (a.exhausted && error));
                arena_fini(&a);
        }
        ck_assert_ptr_nonnull(m);
}
END_TEST

static bool copy_everything(void *arg)
{
        struct arena a = {0};
        struct buf b = {0};
        const char *error = NULL;
        ProtobufCMessage *m = pbjson_read(&a, kinds, str_of(everything), 0, &error);
        int r = m ? pbjson_write(&b, m, 0) : -ENOMEM;
        bool right = r == 0 ? buf_len(&b) > 200 && json_valid(buf_str(&b)) : r == -ENOMEM && buf_len(&b) == 0 && (m || error);
        arena_fini(&a);
        buf_fini(&b);
        return right;
}

START_TEST(a_failed_allocation_is_an_error)
{
        ck_assert_int_ge(fault_each(copy_everything, NULL), 3);
}
END_TEST

START_TEST(each_changed_byte_is_safe)
{
        char copy[sizeof everything];
        const char *error;
        for (size_t i = 0; i < sizeof everything - 1; i++) {
                for (const char *c = "\"\\{}[]:,0-e \xff\x01n"; *c; c++) {
                        memcpy(copy, everything, sizeof copy);
                        copy[i] = *c;
                        ProtobufCMessage *m = pbjson_read(&arena, kinds, str_n(copy, sizeof copy - 1), 0, &error);
                        if (m)
                                write_text(m, 0);
                        arena_reset(&arena);
                }
        }
}
END_TEST

/* Names this program's use of the registry: pbjson then knows all message types. */
START_TEST(any_knows_the_types_of_the_registry)
{
        ck_assert_ptr_nonnull(pb_message_find(STR("dapr.proto.runtime.v1.GetJobRequest")));
}
END_TEST

int main(void)
{
        Suite *s = suite_create("pbjson");
        TCase *t = tcase_create("pbjson");
        suite_add_tcase(s, t);
        tcase_add_checked_fixture(t, NULL, teardown);
        tcase_add_loop_test(t, values_map_both_ways, 0, N(pairs));
        tcase_add_loop_test(t, other_values_are_refused, 0, N(refused));
        tcase_add_loop_test(t, unknown_things_are_refused_on_request, 0, N(unknown));
        tcase_add_test(t, errors_say_where);
        tcase_add_test(t, zero_values_are_written_on_request);
        tcase_add_test(t, json_names_of_the_contract_are_used);
        tcase_add_test(t, well_known_types_stand_alone);
        tcase_add_test(t, what_has_no_json_form_is_refused);
        tcase_add_test(t, the_last_of_equal_map_keys_is_written);
        tcase_add_test(t, map_entries_without_value_hold_the_default);
        tcase_add_loop_test(t, depth_bombs_are_refused_on_a_small_stack, 0, N(bombs));
        tcase_add_test(t, each_cap_of_the_arena_is_respected);
        tcase_add_test(t, a_failed_allocation_is_an_error);
        tcase_add_test(t, each_changed_byte_is_safe);
        tcase_add_test(t, any_knows_the_types_of_the_registry);
        SRunner *sr = srunner_create(s);
        srunner_run_all(sr, CK_ENV);
        int failed = srunner_ntests_failed(sr);
        srunner_free(sr);
        return failed != 0;
}
