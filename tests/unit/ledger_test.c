/* The ledger: what is written is read again, whatever is cut off or changed is refused, a descriptor is given once. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/super/ledger.h"

static void fill(struct ledger *l)
{
        static const char *methods[] = {"/a/Get", "/a/BulkGet"};
        static struct ledger_named features = {"state.x", 7 | UINT64_C(1) << 31};
        static struct ledger_instance instance = {"store", "state.x", "v1", 0, 7, UINT64_MAX};
        ledger_init(l);
        l->pid = 4711;
        l->upgrades = 2;
        l->dir_user = "/tmp/dapr-0";
        l->dir_own = "/tmp/dapr-0/k4711.0";
        l->dir_lock = 9;
        ck_assert(ledger_add_fd(l, "http", 5, true) && ledger_add_fd(l, "http", 6, false));
        for (int i = 0; i < 20; i++) {
                struct ledger_plugin *p = ledger_add_plugin(l);
                ck_assert_ptr_nonnull(p);
                p->name = "state.x";
                p->manifest = "/p/plugin.yaml";
                p->version = "1.0.0";
                p->path = "/tmp/1.sock";
                p->reported_name = p->reported_version = "";
                p->pid = i;
                p->listen_fd = 10 + i;
                p->backend_known = true;
                p->idempotent = methods;
                p->n_idempotent = 2;
                p->features = &features;
                p->n_features = 1;
                p->instances = &instance;
                p->n_instances = 1;
        }
        ck_assert_int_eq(ledger_add_event(l, 1, "store", "started", "x"), 0);
        ck_assert_int_eq(ledger_add_extended(l, "k", "v"), 0);
        ck_assert_int_eq(ledger_add_note(l, "what", "name", "text"), 0);
}

static struct str bytes_of(struct ledger *l, struct arena *a)
{
        int fd = ledger_write(l);
        ck_assert_int_ge(fd, 0);
        off_t n = lseek(fd, 0, SEEK_END);
        char *p = arena_alloc(a, (size_t)n);
        ck_assert_int_eq(pread(fd, p, (size_t)n, 0), n);
        ck_assert_int_eq(write(fd, "x", 1), -1);
        close(fd);
        return str_n(p, (size_t)n);
}

START_TEST(what_is_written_is_read_again)
{
        struct ledger l, m;
        const char *err = NULL;
        fill(&l);
        ledger_init(&m);
        ck_assert_int_eq(ledger_read(&m, ledger_write(&l), &err), 0);
        ck_assert(m.pid == 4711 && m.upgrades == 2 && m.dir_lock == 9 && m.n_fds == 2 && m.n_plugins == 20 && m.n_events == 1 && m.n_extended == 1);
        const struct ledger_plugin *p = &m.plugins[19];
        ck_assert(p->pid == 19 && p->listen_fd == 29 && p->pidfd == -1 && p->backend_known && !p->backend_up && p->n_idempotent == 2);
        ck_assert_str_eq(p->idempotent[1], "/a/BulkGet");
        ck_assert(p->features[0].number == (7 | UINT64_C(1) << 31) && p->instances[0].request == UINT64_MAX);
        ck_assert_str_eq(m.extended[0].value, "v");
        ck_assert_str_eq(ledger_note(&m, "what", "name"), "text");
        ck_assert(!ledger_note(&m, "what", "other") && !ledger_note(NULL, "what", "name"));
        ledger_fini(&l);
        ledger_fini(&m);
}
END_TEST

START_TEST(a_descriptor_is_given_once)
{
        struct ledger l;
        fill(&l);
        ck_assert_int_eq(ledger_take(&l, "grpc", true), -1);
        ck_assert_int_eq(ledger_take(&l, "http", true), 5);
        ck_assert_int_eq(ledger_take(&l, "http", true), -1);
        ck_assert_int_eq(ledger_take(&l, "http", false), 6);
        ck_assert_int_eq(ledger_take(NULL, "http", true), -1);
        ledger_fini(&l);
}
END_TEST

START_TEST(whatever_is_cut_off_is_refused)
{
        struct ledger l, m;
        struct arena a = {0};
        const char *err;
        fill(&l);
        struct str whole = bytes_of(&l, &a);
        for (size_t n = 0; n < whole.n; n++) {
                err = NULL;
                ledger_init(&m);
                ck_assert_int_lt(ledger_parse(&m, str_n(whole.p, n), &err), 0);
                ck_assert_ptr_nonnull(err);
                ledger_fini(&m);
        }
        ledger_fini(&l);
        arena_fini(&a);
}
END_TEST

START_TEST(another_version_is_named)
{
        /* ["microdapr-ledger", 99] */
        const char text[] = "\x92\xb0microdapr-ledger\x63";
        const char *err = NULL;
        struct ledger m;
        ledger_init(&m);
        ck_assert_int_eq(ledger_parse(&m, str_n(text, sizeof text - 1), &err), -EPROTO);
        ck_assert_str_eq(err, "it is of version 99, this daprd knows version 2");
        ledger_fini(&m);
}
END_TEST

START_TEST(more_entries_than_bytes_cost_no_memory)
{
        /* arrays and maps of 4 billion entries; msgpack-c would ask for as many */
        static const char *const texts[] = {"\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\x92\xb0microdapr-ledger\xdd\xff\xff\xff\xff"};
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
                const char *err = NULL;
                struct ledger m;
                ledger_init(&m);
                ck_assert_int_eq(ledger_parse(&m, str_of(texts[i]), &err), -EBADMSG);
                ck_assert_str_eq(err, "it is no MessagePack text of a ledger");
                ledger_fini(&m);
        }
}
END_TEST

int main(void)
{
        Suite *s = suite_create("ledger");
        TCase *t = tcase_create("ledger");
        tcase_add_test(t, what_is_written_is_read_again);
        tcase_add_test(t, a_descriptor_is_given_once);
        tcase_add_test(t, whatever_is_cut_off_is_refused);
        tcase_add_test(t, more_entries_than_bytes_cost_no_memory);
        tcase_add_test(t, another_version_is_named);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
