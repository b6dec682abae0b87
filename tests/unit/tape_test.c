/* ctl/tape.h: recordings are read as they were written, hold no values when redacted, and whatever else a file holds is refused. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/package/package_impl.h"
#include "ctl/tape.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "sdk/base/pb.h"
#include "tests/unit/on_loop.h"

static struct arena arena;
static char path[] = "/tmp/tape-test-XXXXXX";

static void setup(void)
{
        arena_init(&arena, 0);
        memcpy(path + sizeof path - 7, "XXXXXX", 6);
        int fd = mkstemp(path);
        ck_assert_int_ge(fd, 0);
        close(fd);
}

static void teardown(void)
{
        unlink(path);
        arena_fini(&arena);
}

static struct str set_request(const char *key, const char *value)
{
        Dapr__Proto__Components__V1__SetRequest m = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT;
        m.key = (char *)key;
        m.value = pb_bytes(str_of(value));
        return pb_pack(&arena, &m.base);
}

static void write_tape(bool redacted)
{
        const struct tape_head h = {"app", "store", "state.x", "state.x", "1.2.3", redacted, 42};
        struct str req = set_request("a-key", "the-value");
        const struct tape_call calls[] = {
                {1, 2000, STR("/dapr.proto.components.v1.StateStore/Set"), STR(""), req, STR(""), (int64_t)req.n, 0, 0},
                {3, 4, STR("/unknown.Service/Method"), STR("why it failed"), STR("opaque-bytes"), STR("opaque-bytes"), 12, 900, 13}};
        struct tape *t;
        ck_assert_int_eq(tape_create(&t, path, &h), 0);
        for (size_t i = 0; i < 2; i++)
                ck_assert_int_eq(tape_add(t, &calls[i]), 0);
        ck_assert_int_eq(tape_close(t, 7), 0);
}

static struct str file_text(void)
{
        struct str s;
        ck_assert_int_eq(trust_read_file(&arena, path, 1 << 20, &s), 0);
        return s;
}

START_TEST(what_was_written_is_read)
{
        struct tape_head h;
        struct tape_call *calls;
        size_t n;
        const char *err = NULL;
        struct stat st;
        write_tape(false);
        ck_assert_int_eq(tape_read(&arena, path, &h, &calls, &n, &err), 0);
        ck_assert(!h.redacted && h.started_ns == 42);
        ck_assert_str_eq(h.type, "state.x");
        ck_assert_str_eq(h.plugin_version, "1.2.3");
        ck_assert_uint_eq(n, 2);
        ck_assert(str_eq(calls[0].request, set_request("a-key", "the-value")));
        ck_assert(tape_is_whole(&calls[0]) && !tape_is_whole(&calls[1]));
        ck_assert(calls[0].latency_ns == 2000 && calls[1].code == 13 && str_eqz(calls[1].message, "why it failed"));
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_int_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(a_redacted_one_holds_names_and_no_values)
{
        struct tape_head h;
        struct tape_call *calls;
        size_t n;
        const char *err = NULL;
        write_tape(true);
        struct str text = file_text();
        ck_assert_int_ge(str_find(text, STR("a-key")), 0);
        ck_assert_int_lt(str_find(text, STR("the-value")), 0);
        ck_assert_int_lt(str_find(text, STR("opaque-bytes")), 0);
        ck_assert_int_eq(tape_read(&arena, path, &h, &calls, &n, &err), 0);
        ck_assert(h.redacted);
        ck_assert_uint_eq(calls[0].request.n, 0);
        write_tape(true); /* another recording, another key */
        ck_assert(!str_eq(text, file_text()));
}
END_TEST

START_TEST(a_file_that_was_cut_gives_what_is_whole)
{
        write_tape(false);
        struct str text = file_text();
        size_t most = 0;
        for (size_t cut = 0; cut < text.n; cut++) {
                struct tape_head h;
                struct tape_call *calls;
                size_t n;
                const char *err = NULL;
                int r = tape_parse(&arena, str_n(text.p, cut), "x", &h, &calls, &n, &err);
                ck_assert(r == 0 ? n >= most : err != NULL);
                most = r == 0 ? n : most;
        }
        ck_assert_uint_eq(most, 2);
}
END_TEST

static const struct { const char *bytes; size_t n; } wrong[] = {
        {"", 0}, {"hello", 5}, {"\x93\x01\x02\x03", 4}, {"\xdd\xff\xff\xff\xff", 5}, {"\xdf\xff\xff\xff\xff\x01", 6}, {"\xc1", 1},
        {"\x82\xa6" "format\xad" "microdapr-tap\xa7version\x05", 31}, {"\xdb\xff\xff\xff\xffxx", 7}, {"\xc0", 1}};

START_TEST(what_is_none_is_refused)
{
        struct tape_head h;
        struct tape_call *calls;
        size_t n;
        const char *err = NULL;
        ck_assert_int_lt(tape_parse(&arena, str_n(wrong[_i].bytes, wrong[_i].n), "x.tap", &h, &calls, &n, &err), 0);
        ck_assert_ptr_nonnull(strstr(err, "x.tap: "));
}
END_TEST

int main(void)
{
        Suite *s = suite_create("tape");
        TCase *c = tcase_create("tape");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_add_test(c, what_was_written_is_read);
        tcase_add_test(c, a_redacted_one_holds_names_and_no_values);
        tcase_add_test(c, a_file_that_was_cut_gives_what_is_whole);
        tcase_add_loop_test(c, what_is_none_is_refused, 0, sizeof wrong / sizeof *wrong);
        suite_add_tcase(s, c);
        return run_suite(s);
}
