/* gRPC's wire forms: frames, timeouts, percent coding, metadata, gzip, codes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "sdk/net/rpc_wire.h"

static struct arena a;

static void teardown(void)
{
        arena_fini(&a);
}

START_TEST(frame_head_round_trips)
{
        char head[RPC_FRAME_HEAD];
        struct rpc_frame f;
        const size_t sizes[] = {0, 1, 255, 256, 65536, 0xfffffffe};
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                rpc_frame_put(head, i & 1, sizes[i]);
                ck_assert_int_eq(rpc_frame_get(str_n(head, sizeof(head)), &f), 1);
                ck_assert_uint_eq(f.n, sizes[i]);
                ck_assert_int_eq(f.compressed, i & 1);
                for (size_t n = 0; n < sizeof(head); n++)
                        ck_assert_int_eq(rpc_frame_get(str_n(head, n), &f), 0);
        }
        head[0] = 2;
        ck_assert_int_eq(rpc_frame_get(str_n(head, sizeof(head)), &f), -EBADMSG);
}
END_TEST

static const struct {
        double seconds;
        const char *text;
} timeouts[] = {
        {0, "0n"},        {-1, "0n"},          {1e-9, "1u"},         {0.001, "1000u"},   {0.0010001, "1001u"},
        {1, "1000000u"},  {99.999999, "99999999u"}, {100, "100000m"}, {5000, "5000000m"}, {100000, "100000S"},
        {1e8, "1666667M"}, {1e15, "99999999H"},
};

START_TEST(timeout_is_written_in_the_finest_unit_that_fits)
{
        char out[RPC_TIMEOUT_BYTES];
        size_t n = rpc_timeout_format(out, timeouts[_i].seconds);
        ck_assert_uint_le(n, 9);
        ck_assert_msg(str_eq(str_n(out, n), str_of(timeouts[_i].text)), "%.*s", (int)n, out);
}
END_TEST

static const struct {
        const char *text;
        double seconds; /* < 0: refused */
} parses[] = {
        {"1H", 3600},     {"2M", 120},   {"3S", 3},   {"4m", 0.004}, {"5u", 5e-6}, {"6n", 6e-9}, {"99999999S", 99999999}, {"0n", 0},
        {"", -1},         {"S", -1},     {"1", -1},   {"1s", -1},    {"-1S", -1},  {"1 S", -1},  {"123456789S", -1},      {"1.5S", -1},
};

START_TEST(timeout_is_read_as_the_protocol_says)
{
        double s = -1;
        int r = rpc_timeout_parse(str_of(parses[_i].text), &s);
        if (parses[_i].seconds < 0) {
                ck_assert_int_eq(r, -EINVAL);
        } else {
                ck_assert_int_eq(r, 0);
                ck_assert_double_eq_tol(s, parses[_i].seconds, 1e-12);
        }
}
END_TEST

static const struct {
        const char *plain, *coded;
} percents[] = {
        {"", ""},
        {"plain text ~", "plain text ~"},
        {"100%", "100%25"},
        {" a b: ", "%20a b:%20"},
        {" ", "%20"},
        {"\t\n\xe2\x98\xba", "%09%0A%E2%98%BA"},
};

START_TEST(percent_coding_round_trips)
{
        struct str c = rpc_percent_encode(&a, str_of(percents[_i].plain));
        ck_assert(str_eq(c, str_of(percents[_i].coded)));
        ck_assert(str_eq(rpc_percent_decode(&a, c), str_of(percents[_i].plain)));
}
END_TEST

START_TEST(bad_escapes_stay)
{
        const char *s = "%", *t = "%4", *u = "%zz%41";
        ck_assert(str_eqz(rpc_percent_decode(&a, str_of(s)), "%"));
        ck_assert(str_eqz(rpc_percent_decode(&a, str_of(t)), "%4"));
        ck_assert(str_eqz(rpc_percent_decode(&a, str_of(u)), "%zzA"));
}
END_TEST

START_TEST(metadata_is_coded_and_filtered)
{
        const struct rpc_md md[] = {{STR("X-Upper"), STR("v")},      {STR("raw-bin"), STR("\0\1\2\3")}, {STR("content-type"), STR("x")},
                                    {STR(":path"), STR("/x")},       {STR("te"), STR("x")},             {STR("bad name"), STR("x")},
                                    {STR("ctl"), STR("a\nb")},       {STR("empty"), STR("")},           {STR("grpc-timeout"), STR("1S")},
                                    {STR("connection"), STR("x")},   {STR("trim"), STR("  v ")},        {STR(""), STR("x")}};
        struct http_header out[12];
        size_t n = 0;
        ck_assert_int_eq(rpc_md_to_headers(&a, md, 12, out, &n), 0);
        ck_assert_uint_eq(n, 4);
        ck_assert(str_eqz(out[0].name, "x-upper") && str_eqz(out[0].value, "v"));
        ck_assert(str_eqz(out[1].name, "raw-bin") && str_eqz(out[1].value, "AAECAw"));
        ck_assert(str_eqz(out[2].name, "empty") && out[2].value.n == 0);
        ck_assert(str_eqz(out[3].value, "v"));
        struct http_headers h = {out, n, n};
        struct rpc_mdlist back = {0};
        ck_assert_int_eq(rpc_md_from_headers(&a, &h, true, &back), 0);
        ck_assert_uint_eq(back.n, 4);
        ck_assert(str_eq(rpc_md_get(&back, "raw-bin"), STR("\0\1\2\3")));
        ck_assert_ptr_null(rpc_md_get(&back, "nothing").p);
}
END_TEST

START_TEST(gzip_round_trips)
{
        static char big[1000000];
        for (size_t i = 0; i < sizeof(big); i++)
                big[i] = (char)(i * i >> 7);
        const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, sizeof(big)};
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct str back, z = rpc_gzip(&a, str_n(big, sizes[i]));
                ck_assert_ptr_nonnull(z.p);
                ck_assert_int_eq(rpc_gunzip(&a, z, -1, &back), 0);
                ck_assert(str_eq(back, str_n(big, sizes[i])));
                ck_assert_int_eq(rpc_gunzip(&a, z, (int64_t)sizes[i], &back), 0);
                if (sizes[i])
                        ck_assert_int_eq(rpc_gunzip(&a, z, (int64_t)sizes[i] - 1, &back), -EMSGSIZE);
                ck_assert_int_eq(rpc_gunzip(&a, str_n(z.p, z.n - 1), -1, &back), -EBADMSG);
        }
        struct str back;
        ck_assert_int_eq(rpc_gunzip(&a, STR("not gzip at all"), -1, &back), -EBADMSG);
        ck_assert_int_eq(rpc_gunzip(&a, STR(""), -1, &back), -EBADMSG);
}
END_TEST

START_TEST(bomb_is_stopped_at_the_limit)
{
        char *zeros = calloc(1, 64 << 20);
        struct arena big = {0}, small = {.cap_bytes = 4 << 20};
        struct str z = rpc_gzip(&big, str_n(zeros, 64 << 20)), back;
        ck_assert_int_eq(rpc_gunzip(&small, z, 1 << 20, &back), -EMSGSIZE);
        arena_fini(&big);
        arena_fini(&small);
        free(zeros);
}
END_TEST

START_TEST(content_type_is_grpc_or_a_kind_of_it)
{
        ck_assert(rpc_is_grpc_content(STR("application/grpc")));
        ck_assert(rpc_is_grpc_content(STR("application/grpc+proto")));
        ck_assert(rpc_is_grpc_content(STR("application/grpc;x")));
        ck_assert(!rpc_is_grpc_content(STR("application/grpc-web")));
        ck_assert(!rpc_is_grpc_content(STR("application/json")));
        ck_assert(!rpc_is_grpc_content(STR("")));
}
END_TEST

START_TEST(codes_have_the_names_of_go)
{
        ck_assert_str_eq(rpc_code_name(RPC_OK), "OK");
        ck_assert_str_eq(rpc_code_name(RPC_CANCELLED), "Canceled");
        ck_assert_str_eq(rpc_code_name(RPC_UNAUTHENTICATED), "Unauthenticated");
        ck_assert_str_eq(rpc_code_name(17), "Unknown");
        ck_assert_str_eq(rpc_code_name(-1), "Unknown");
        const char *name;
        ck_assert_int_eq(rpc_code_of_rst(7, &name), RPC_UNAVAILABLE);
        ck_assert_str_eq(name, "REFUSED_STREAM");
        ck_assert_int_eq(rpc_code_of_rst(999, &name), RPC_UNKNOWN);
        ck_assert_int_eq(rpc_code_of_http(404), RPC_UNIMPLEMENTED);
        ck_assert_int_eq(rpc_code_of_http(503), RPC_UNAVAILABLE);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("rpc_wire");
        TCase *t = tcase_create("wire");
        tcase_add_checked_fixture(t, NULL, teardown);
        tcase_add_test(t, frame_head_round_trips);
        tcase_add_loop_test(t, timeout_is_written_in_the_finest_unit_that_fits, 0, sizeof(timeouts) / sizeof(timeouts[0]));
        tcase_add_loop_test(t, timeout_is_read_as_the_protocol_says, 0, sizeof(parses) / sizeof(parses[0]));
        tcase_add_loop_test(t, percent_coding_round_trips, 0, sizeof(percents) / sizeof(percents[0]));
        tcase_add_test(t, bad_escapes_stay);
        tcase_add_test(t, metadata_is_coded_and_filtered);
        tcase_add_test(t, gzip_round_trips);
        tcase_add_test(t, bomb_is_stopped_at_the_limit);
        tcase_add_test(t, content_type_is_grpc_or_a_kind_of_it);
        tcase_add_test(t, codes_have_the_names_of_go);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
