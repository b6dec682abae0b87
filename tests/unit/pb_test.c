/* pb.h and proto/registry.h */
#include <pthread.h>
#include <stdlib.h>

#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/registry.h"
#include "sdk/base/pb.h"
#include "test/v1/kinds.pb-c.h"
#include "tests/unit/fault.h"

#define ck_assert_str(s, z) ck_assert_msg(str_eqz((s), (z)), "\"%.*s\" is not \"%s\"", STR_FMT(s), (z))

typedef Microdapr__Test__V1__Kinds Kinds;
static const ProtobufCMessageDescriptor *const kinds = &microdapr__test__v1__kinds__descriptor;

static struct arena arena;

static void teardown(void)
{
        arena_fini(&arena);
        arena = (struct arena){0};
}

static Kinds *unpack(const char *bytes, size_t n)
{
        char *exact = malloc(n ? n : 1); /* so that reading past the end is seen */
        memcpy(exact, bytes, n);
        Kinds *k = pb_unpack(&arena, kinds, str_n(exact, n));
        free(exact);
        return k;
}
#define UNPACK(lit) unpack((lit), sizeof(lit) - 1)

/* A tag and a length before what the buffer holds. */
static void wrap(struct buf *b, uint32_t number)
{
        struct buf out = {0};
        uint64_t values[2] = {(uint64_t)number << 3 | 2, buf_len(b)};
        for (int i = 0; i < 2; i++) {
                for (; values[i] > 127; values[i] >>= 7)
                        buf_addc(&out, (char)(values[i] | 128));
                buf_addc(&out, (char)values[i]);
        }
        buf_adds(&out, buf_str(b));
        buf_fini(b);
        *b = out;
}

START_TEST(absent_fields_have_their_defaults)
{
        Kinds *k = UNPACK("");
        ck_assert_ptr_nonnull(k);
        ck_assert_str_eq(k->a_string, "");
        ck_assert_uint_eq(k->a_bytes.len, 0);
        ck_assert_ptr_null(k->child);
        ck_assert_int_eq(k->choice_case, 0);
        ck_assert_int_eq(k->_maybe_int_case, 0);
        ck_assert_uint_eq(k->n_ints, 0);
}
END_TEST

START_TEST(scalars_are_decoded)
{
        Kinds *k = UNPACK("\x08\x96\x01"                                  /* 1: 150 */
                          "\x10\x03"                                      /* 2: zigzag -2 */
                          "\x1d\xff\xff\xff\xff"                          /* 3: -1 */
                          "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  /* 4: -1 */
                          "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  /* 5: zigzag min */
                          "\x31\x01\x00\x00\x00\x00\x00\x00\x80"          /* 6 */
                          "\x38\xff\xff\xff\xff\x0f"                      /* 7: max */
                          "\x45\x78\x56\x34\x12"                          /* 8 */
                          "\x48\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  /* 9: max */
                          "\x51\x08\x07\x06\x05\x04\x03\x02\x01"          /* 10 */
                          "\x5d\x00\x00\xc0\x3f"                          /* 11: 1.5 */
                          "\x61\x00\x00\x00\x00\x00\x00\x04\xc0"          /* 12: -2.5 */
                          "\x68\x02"                                      /* 13: true */
                          "\x70\xfd\xff\xff\xff\xff\xff\xff\xff\xff\x01"  /* 14: -3 */
                          "\x82\x01\x03\xc3\xa9!"                         /* 16: bytes */
                          "\x7a\x03\xc3\xa9!");                           /* 15: text */
        ck_assert_ptr_nonnull(k);
        ck_assert_int_eq(k->an_int32, 150);
        ck_assert_int_eq(k->a_sint32, -2);
        ck_assert_int_eq(k->a_sfixed32, -1);
        ck_assert_int_eq(k->an_int64, -1);
        ck_assert_int_eq(k->a_sint64, INT64_MIN);
        ck_assert(k->a_sfixed64 == INT64_MIN + 1);
        ck_assert_uint_eq(k->a_uint32, UINT32_MAX);
        ck_assert_uint_eq(k->a_fixed32, 0x12345678);
        ck_assert_uint_eq(k->a_uint64, UINT64_MAX);
        ck_assert_uint_eq(k->a_fixed64, 0x0102030405060708);
        ck_assert(k->a_float == 1.5f && k->a_double == -2.5);
        ck_assert_int_eq(k->a_bool, 1);
        ck_assert_int_eq(k->a_color, MICRODAPR__TEST__V1__COLOR__INFRARED);
        ck_assert_str_eq(k->a_string, "\xc3\xa9!");
        ck_assert_str(pb_str(k->a_bytes), "\xc3\xa9!");
}
END_TEST

START_TEST(malformed_bytes_are_refused)
{
#define ROW(lit) {lit, sizeof(lit) - 1}
        static const struct str rows[] = {
                ROW("\x08"), ROW("\x08\x80"), ROW("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* varint cut, too long */
                ROW("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),                                   /* over 64 bits */
                ROW("\x1d\x01\x02\x03"), ROW("\x31\x01\x02\x03\x04\x05\x06\x07"),                      /* fixed cut */
                ROW("\x7a\x05"
                    "abc"), ROW("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),                           /* length past the end */
                ROW("\x00\x01"), ROW("\x02\x00"), ROW("\x0e"), ROW("\x0f\x01"),                        /* field 0, wire types 6, 7 */
                ROW("\xf8\xff\xff\xff\xff\x0f\x01"),                                                   /* number over 2^29 */
                ROW("\x7a\x01\xff"), ROW("\x7a\x02\xc3"), ROW("\x7a\x03\xed\xa0\x80"),                 /* not UTF-8 */
                ROW("\x7a\x03"
                    "a\0b"),                                                                           /* NUL in a string */
                ROW("\xca\x02\x01\x80"), ROW("\xca\x02\x02\x01\x80"), ROW("\xe2\x02\x03\x01\x02\x03"), /* packed, cut */
                ROW("\x0c"), ROW("\x0b"), ROW("\x0b\x14"), ROW("\x0b\x13\x0c\x14"), ROW("\x0b\x7a\x09\x0c"), /* groups */
                ROW("\x8a\x01\x02\x08"), ROW("\x8a\x01\x01\x08\x01"),                                  /* a child's end inside a field */
                ROW("\xea\x03\x05\x0a\x01k\x12\x02v"),                                                 /* map entry cut */
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                ck_assert_msg(!unpack(rows[i].p, rows[i].n), "row %zu", i);
}
END_TEST

START_TEST(repeated_fields_grow)
{
        struct buf b = {0};
        for (int i = 0; i < 1000; i++)
                buf_add(&b, "\xc8\x02\x07" "\xfa\x02\x01x", 7); /* ints, unpacked; strings */
        buf_add(&b, "\xca\x02\x04\x01\x80\x01\x02", 7);               /* ints, packed: 1, 128, 2 */
        buf_add(&b, "\xca\x02\x00", 3);
        buf_add(&b, "\xd2\x02\x02\x01\x02", 5);                       /* declared unpacked, sent packed: -1, 1 */
        Kinds *k = pb_unpack(&arena, kinds, buf_str(&b));
        ck_assert_ptr_nonnull(k);
        ck_assert_uint_eq(k->n_ints, 1003);
        ck_assert_int_eq(k->ints[999], 7);
        ck_assert_int_eq(k->ints[1001], 128);
        ck_assert_uint_eq(k->n_strings, 1000);
        ck_assert_str_eq(k->strings[999], "x");
        ck_assert_uint_eq(k->n_loose_sints, 2);
        ck_assert_int_eq(k->loose_sints[0], -1);
        ck_assert_int_eq(k->loose_sints[1], 1);
        buf_fini(&b);
}
END_TEST

START_TEST(the_last_scalar_wins_and_messages_merge)
{
        Kinds *k = UNPACK("\x08\x01\x08\x02" "\x7a\x01" "a" "\x7a\x01" "b"
                          "\x8a\x01\x02\x08\x05" "\x8a\x01\x03\x7a\x01" "c");
        ck_assert_ptr_nonnull(k);
        ck_assert_int_eq(k->an_int32, 2);
        ck_assert_str_eq(k->a_string, "b");
        ck_assert_int_eq(k->child->an_int32, 5);
        ck_assert_str_eq(k->child->a_string, "c");
}
END_TEST

START_TEST(the_last_member_of_a_oneof_wins)
{
        Kinds *k = UNPACK("\x8a\x02\x02\x08\x05"  /* other: {an_int32: 5} */
                          "\xf8\x01\x01"          /* yes */
                          "\x8a\x02\x02\x10\x02"  /* other: {a_sint32: 1} */
                          "\x8a\x02\x03\x7a\x01" "c");
        ck_assert_ptr_nonnull(k);
        ck_assert_int_eq(k->choice_case, MICRODAPR__TEST__V1__KINDS__CHOICE_OTHER);
        ck_assert_int_eq(k->other->an_int32, 0);
        ck_assert_int_eq(k->other->a_sint32, 1);
        ck_assert_str_eq(k->other->a_string, "c");
        k = UNPACK("\x82\x02\x01w\xa8\x01\x00\xb2\x01\x00"); /* words; maybe_int = 0, maybe_string = "" */
        ck_assert_int_eq(k->choice_case, MICRODAPR__TEST__V1__KINDS__CHOICE_WORDS);
        ck_assert_str_eq(k->words, "w");
        ck_assert_int_eq(k->_maybe_int_case, MICRODAPR__TEST__V1__KINDS___MAYBE_INT_MAYBE_INT);
        ck_assert_int_eq(k->_maybe_string_case, MICRODAPR__TEST__V1__KINDS___MAYBE_STRING_MAYBE_STRING);
        ck_assert_str_eq(k->maybe_string, "");
}
END_TEST

START_TEST(unknown_fields_pass_through)
{
        static const char bytes[] = "\xc8\x3e\x05"                       /* 1001: varint */
                                    "\xd2\x3e\x02hi"                     /* 1002 */
                                    "\xdb\x3e\x08\x01\x13\x14\xdc\x3e"   /* 1003: a group with a group in it */
                                    "\xe5\x3e\x01\x02\x03\x04"           /* 1004 */
                                    "\x0a\x01x"                          /* 1, of another wire type */
                                    "\xe9\x3e\x01\x02\x03\x04\x05\x06\x07\x08";
        Kinds *k = UNPACK(bytes);
        ck_assert_ptr_nonnull(k);
        ck_assert_uint_eq(k->base.n_unknown_fields, 6);
        struct str out = pb_pack(&arena, &k->base);
        ck_assert_mem_eq(out.p, bytes, sizeof bytes - 1);
        ck_assert_uint_eq(out.n, sizeof bytes - 1);
}
END_TEST

START_TEST(borrowed_bytes_point_into_the_input)
{
        struct str in = STR("\x82\x01\x03xyz\x7a\x01s");
        Kinds *k = pb_unpack_borrow(&arena, kinds, in);
        ck_assert_ptr_eq(k->a_bytes.data, in.p + 3);
        ck_assert_str_eq(k->a_string, "s");
        k = pb_unpack(&arena, kinds, in);
        ck_assert(k->a_bytes.data < (uint8_t *)in.p || k->a_bytes.data > (uint8_t *)in.p + in.n);
}
END_TEST

START_TEST(maps_are_entries)
{
        Kinds *k = UNPACK("\xea\x03\x06\x0a\x01k\x12\x01v" "\xea\x03\x00" "\x92\x04\x02\x08\x01");
        ck_assert_ptr_nonnull(k);
        ck_assert_uint_eq(k->n_by_string, 2);
        ck_assert_str_eq(k->by_string[0]->key, "k");
        ck_assert_str_eq(k->by_string[0]->value, "v");
        ck_assert_str_eq(k->by_string[1]->key, "");
        ck_assert_str_eq(k->by_string[1]->value, "");
        ck_assert_uint_eq(k->n_by_bool, 1);
}
END_TEST

static struct buf nested(int levels)
{
        struct buf b = {0};
        buf_add(&b, "\x08\x01", 2);
        for (int i = 1; i < levels; i++)
                wrap(&b, 17);
        return b;
}

START_TEST(nesting_is_limited)
{
        for (int levels = PB_MAX_DEPTH - 1; levels <= PB_MAX_DEPTH + 1; levels++) {
                struct buf b = nested(levels);
                ck_assert_int_eq(pb_unpack(&arena, kinds, buf_str(&b)) != NULL, levels <= PB_MAX_DEPTH);
                buf_fini(&b);
        }
        struct buf b = {0}; /* groups */
        for (int i = 0; i < 200000; i++)
                buf_addc(&b, '\x1b');
        ck_assert_ptr_null(pb_unpack(&arena, kinds, buf_str(&b)));
        buf_fini(&b);
}
END_TEST

static void *unpack_bomb(void *arg)
{
        struct buf *b = arg;
        struct arena a = {0};
        void *deep = pb_unpack(&a, &google__protobuf__value__descriptor, buf_str(b));
        struct buf ok = nested(PB_MAX_DEPTH);
        ProtobufCMessage *m = pb_unpack(&a, kinds, buf_str(&ok));
        struct str packed = m ? pb_pack(&a, m) : STR_NULL;
        bool same = str_eq(packed, buf_str(&ok));
        buf_fini(&ok);
        arena_fini(&a);
        return deep == NULL && same ? arg : NULL;
}

START_TEST(a_value_10000_deep_is_refused_on_a_small_stack)
{
        struct buf b = {0};
        pthread_attr_t attr;
        pthread_t thread;
        void *ok;
        for (int i = 0; i < 10000; i++) {
                wrap(&b, 1); /* ListValue.values */
                wrap(&b, 6); /* Value.list_value */
        }
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 64 * 1024);
        ck_assert_int_eq(pthread_create(&thread, &attr, unpack_bomb, &b), 0);
        pthread_join(thread, &ok);
        pthread_attr_destroy(&attr);
        ck_assert_ptr_nonnull(ok);
        buf_fini(&b);
}
END_TEST

/* One message with everything that allocates. */
static const char rich[] = "\x7a\x05hello\x82\x01\x05world\x8a\x01\x09\x7a\x05inner\x08\x01"
                           "\xfa\x02\x01x\xfa\x02\x01y\xca\x02\x09\x01\x02\x03\x04\x05\x06\x07\x08\x09"
                           "\xea\x03\x06\x0a\x01k\x12\x01v\x8a\x03\x02\x08\x07\xd2\x3e\x02hi";

START_TEST(each_cap_of_the_arena_is_respected)
{
        bool done = false;
        for (size_t cap = 1; !done && cap < 65536; cap += 16) {
                struct arena a;
                arena_init(&a, cap);
                ProtobufCMessage *m = pb_unpack(&a, kinds, str_n(rich, sizeof rich - 1));
                ck_assert_uint_le(a.used_bytes, cap);
                ck_assert(m || a.exhausted);
                if (m) {
                        size_t n = protobuf_c_message_get_packed_size(m);
                        struct str s = pb_pack(&a, m);
                        ck_assert(s.p || a.exhausted);
                        ck_assert(!s.p || s.n == n);
                        done = s.p;
                }
                arena_fini(&a);
        }
        ck_assert(done);
}
END_TEST

static bool copy_rich(void *arg)
{
        struct arena a = {0};
        struct buf b = {0};
        ProtobufCMessage *m = pb_unpack(&a, kinds, str_n(rich, sizeof rich - 1));
        bool ok = m ? pb_pack_buf(&b, m) == 0 : false, right = ok || !m || b.failed;
        if (ok) {
                Kinds *k = pb_unpack(&a, kinds, buf_str(&b));
                right = !k || (k->n_ints == 9 && k->base.n_unknown_fields == 1 && strcmp(k->child->a_string, "inner") == 0);
        }
        arena_fini(&a);
        buf_fini(&b);
        return right;
}

START_TEST(a_failed_allocation_is_an_error)
{
        ck_assert_int_ge(fault_each(copy_rich, NULL), 2);
}
END_TEST

START_TEST(each_cut_of_a_message_is_safe)
{
        for (size_t n = 0; n < sizeof rich; n++)
                unpack(rich, n);
        for (size_t i = 0; i < sizeof rich - 1; i++) {
                char copy[sizeof rich];
                memcpy(copy, rich, sizeof rich);
                for (int v = 0; v < 256; v++) {
                        copy[i] = (char)v;
                        unpack(copy, sizeof rich - 1);
                        arena_reset(&arena);
                }
        }
}
END_TEST

START_TEST(appended_elements_are_packed)
{
        Kinds *k = pb_new(&arena, kinds);
        const ProtobufCFieldDescriptor *ints = pb_field(kinds, 41), *maybe = pb_field(kinds, 21);
        for (int i = 0; i < 9; i++)
                *(int32_t *)pb_append(&arena, &k->base, ints) = i;
        *(int32_t *)pb_set(&k->base, maybe) = 0;
        ck_assert_uint_eq(k->n_ints, 9);
        ck_assert_int_eq(k->_maybe_int_case, 21);
        struct str s = pb_pack(&arena, &k->base);
        k = pb_unpack(&arena, kinds, s);
        ck_assert_uint_eq(k->n_ints, 9);
        ck_assert_int_eq(k->ints[8], 8);
        ck_assert_int_eq(k->_maybe_int_case, 21);
        ck_assert_ptr_null(pb_field(kinds, 0));
        ck_assert_ptr_null(pb_field(kinds, 18));
        ck_assert_ptr_null(pb_field(kinds, 20));
        ck_assert_ptr_null(pb_field(kinds, 106));
        ck_assert_ptr_null(pb_field(kinds, UINT32_MAX));
        ck_assert_str_eq(pb_field(kinds, 105)->name, "UPPER_case");
}
END_TEST

/* ---- registry ---- */

START_TEST(methods_are_found_by_path)
{
        const struct pb_method *m = pb_method_find(STR("/dapr.proto.runtime.v1.Dapr/GetState"));
        ck_assert_ptr_nonnull(m);
        ck_assert_ptr_eq(m->request, &dapr__proto__runtime__v1__get_state_request__descriptor);
        ck_assert_ptr_eq(m->response, &dapr__proto__runtime__v1__get_state_response__descriptor);
        ck_assert(!m->client_streaming && !m->server_streaming);
        m = pb_method_find(STR("/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration"));
        ck_assert(m && !m->client_streaming && m->server_streaming);
        m = pb_method_find(STR("/TaskHubSidecarService/GetWorkItems"));
        ck_assert(m && m->server_streaming);
        for (size_t i = 0; i < pb_methods_n; i++)
                ck_assert_ptr_eq(pb_method_find(str_of(pb_methods[i].path)), &pb_methods[i]);
        ck_assert_ptr_null(pb_method_find(STR("/dapr.proto.runtime.v1.Dapr/GetStat")));
        ck_assert_ptr_null(pb_method_find(STR("/dapr.proto.runtime.v1.Dapr/GetState ")));
        ck_assert_ptr_null(pb_method_find(STR_NULL));
}
END_TEST

START_TEST(the_runtime_has_all_its_methods)
{
        size_t dapr = 0;
        for (size_t i = 0; i < pb_methods_n; i++)
                dapr += str_has_prefix(str_of(pb_methods[i].path), STR("/dapr.proto.runtime.v1.Dapr/"));
        ck_assert_uint_eq(dapr, 66);
}
END_TEST

START_TEST(messages_are_found_by_name)
{
        ck_assert_ptr_eq(pb_message_find(STR("google.protobuf.Value")), &google__protobuf__value__descriptor);
        ck_assert_ptr_nonnull(pb_message_find(STR("google.rpc.QuotaFailure.Violation")));
        ck_assert_ptr_nonnull(pb_message_find(STR("HistoryEvent")));
        ck_assert_ptr_null(pb_message_find(STR("google.protobuf.Struct.FieldsEntry")));
        ck_assert_ptr_null(pb_message_find(STR("")));
        for (size_t i = 0; i < pb_messages_n; i++)
                ck_assert_ptr_eq(pb_message_find(str_of(pb_messages[i]->name)), pb_messages[i]);
}
END_TEST

START_TEST(files_are_found_by_symbol)
{
        const struct pb_file *f = pb_file_find(STR("dapr/proto/runtime/v1/dapr.proto"));
        ck_assert_ptr_nonnull(f);
        ck_assert_ptr_eq(pb_file_of_symbol(STR("dapr.proto.runtime.v1.Dapr")), f);
        ck_assert_ptr_eq(pb_file_of_symbol(STR("dapr.proto.runtime.v1.Dapr.GetState")), f);
        ck_assert_ptr_null(pb_file_of_symbol(STR("dapr.proto.runtime.v1.Dapr.GetNothing")));
        ck_assert_ptr_null(pb_file_of_symbol(STR("dapr.proto.runtime.v1.Nothing")));
        ck_assert_ptr_null(pb_file_of_symbol(STR("")));
        f = pb_file_of_symbol(STR("dapr.proto.common.v1.StateOptions.StateConsistency"));
        ck_assert(f && strcmp(f->name, "dapr/proto/common/v1/common.proto") == 0);
        ck_assert_ptr_null(pb_file_find(STR("nothing.proto")));
        for (size_t i = 0; i < pb_files_n; i++)
                for (size_t k = 0; k < pb_files[i].deps_n; k++)
                        ck_assert_uint_lt(pb_files[i].deps[k], i);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("pb");
        TCase *t = tcase_create("pb"), *r = tcase_create("registry");
        suite_add_tcase(s, t);
        suite_add_tcase(s, r);
        tcase_add_checked_fixture(t, NULL, teardown);
        tcase_add_test(t, absent_fields_have_their_defaults);
        tcase_add_test(t, scalars_are_decoded);
        tcase_add_test(t, malformed_bytes_are_refused);
        tcase_add_test(t, repeated_fields_grow);
        tcase_add_test(t, the_last_scalar_wins_and_messages_merge);
        tcase_add_test(t, the_last_member_of_a_oneof_wins);
        tcase_add_test(t, unknown_fields_pass_through);
        tcase_add_test(t, borrowed_bytes_point_into_the_input);
        tcase_add_test(t, maps_are_entries);
        tcase_add_test(t, nesting_is_limited);
        tcase_add_test(t, a_value_10000_deep_is_refused_on_a_small_stack);
        tcase_add_test(t, each_cap_of_the_arena_is_respected);
        tcase_add_test(t, a_failed_allocation_is_an_error);
        tcase_add_test(t, each_cut_of_a_message_is_safe);
        tcase_add_test(t, appended_elements_are_packed);
        tcase_add_test(r, methods_are_found_by_path);
        tcase_add_test(r, the_runtime_has_all_its_methods);
        tcase_add_test(r, messages_are_found_by_name);
        tcase_add_test(r, files_are_found_by_symbol);
        SRunner *sr = srunner_create(s);
        srunner_run_all(sr, CK_ENV);
        int failed = srunner_ntests_failed(sr);
        srunner_free(sr);
        return failed != 0;
}
