/* plugins/state.sqlite: connection strings, the table, and group commit. Works in a directory of its own under /tmp. */
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "plugins/state.sqlite/writer.h"
#include "tests/unit/on_loop.h"

/* What the SDK would provide. */
void dapr_log(enum dapr_log level, const char *fmt, ...)
{
}

static char dir[64];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
        return remove(path);
}

static void make_dir(void)
{
        strcpy(dir, "/tmp/sqlite_test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void)
{
        nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- connection strings ---- */

static const struct {
        const char *in;
        bool disable_wal;
        int64_t busy_ns;
        const char *uri, *pragmas, *error; /* pragmas joined by spaces */
} strings[] = {
        {"data.db", false, 2000000000, "file:data.db", "journal_mode(WAL)", NULL},
        {"file:data.db", false, 2000000000, "file:data.db", "journal_mode(WAL)", NULL},
        {"FILE:data.db", false, 0, "FILE:data.db", "journal_mode(WAL)", NULL},
        {":memory:", false, 0, "file::memory:?cache=shared", "journal_mode(MEMORY)", NULL},
        {"file::memory:?cache=private&x=1", false, 0, "file::memory:?x=1&cache=shared", "journal_mode(MEMORY)", NULL},
        {"data.db", true, 0, "file:data.db", "journal_mode(DELETE)", NULL},
        {"file:data.db?mode=ro&mode=rw", false, 0, "file:data.db?mode=ro", "journal_mode(DELETE)", NULL},
        {"file:data.db?immutable=1", false, 0, "file:data.db?immutable=1", "journal_mode(DELETE)", NULL},
        {"file:data.db?_txlock=deferred", false, 0, "file:data.db", "journal_mode(WAL)", NULL},
        {"file:d.db?_pragma=cache_size(10)&_pragma=temp_store%28memory%29", false, 0, "file:d.db",
         "cache_size(10) temp_store(memory) journal_mode(WAL)", NULL},
        {"d.db?vfs=unix%2Ddotfile&a=b+c", false, 0, "file:d.db?vfs=unix-dotfile&a=b%20c", "journal_mode(WAL)", NULL},
        {"d.db?_pragma=busy_timeout(1000)", false, 0, NULL, NULL, "found forbidden option '_pragma=busy_timeout' in the connection string"},
        {"d.db?_pragma=Journal_Mode(DELETE)", false, 0, NULL, NULL, "found forbidden option '_pragma=journal_mode' in the connection string"},
        {"d.db?_pragma=foreign_keys(1)", false, 0, NULL, NULL, "found forbidden option '_pragma=foreign_keys' in the connection string"},
};

START_TEST(connection_strings_mean_what_they_mean_to_the_reference)
{
        struct db_conf c = {0};
        char err[DB_ERROR_BYTES] = "", all[256] = "";
        int r = db_conf_parse(&c, strings[_i].in, strings[_i].busy_ns, strings[_i].disable_wal, err);
        if (strings[_i].error) {
                ck_assert_int_eq(r, -1);
                ck_assert_str_eq(err, strings[_i].error);
        } else {
                ck_assert_int_eq(r, 0);
                ck_assert_str_eq(c.uri, strings[_i].uri);
                ck_assert_int_eq(c.busy_ms, strings[_i].busy_ns / 1000000);
                for (size_t i = 0; i < c.n_pragmas; i++)
                        sprintf(all + strlen(all), "%s%s", i ? " " : "", c.pragmas[i]);
                ck_assert_str_eq(all, strings[_i].pragmas);
        }
        db_conf_fini(&c);
}
END_TEST

START_TEST(identifiers_are_letters_digits_and_underscores)
{
        ck_assert(db_valid_identifier("state_2"));
        ck_assert(!db_valid_identifier(""));
        ck_assert(!db_valid_identifier("a b"));
        ck_assert(!db_valid_identifier("a;--"));
        ck_assert(!db_valid_identifier(NULL));
}
END_TEST

/* ---- the table ---- */

static struct db_conf conf;
static struct db db;

static void conf_make(const char *file)
{
        char path[128], err[DB_ERROR_BYTES];
        snprintf(path, sizeof path, "%s/%s", dir, file);
        conf = (struct db_conf){.table = strdup("state"), .metadata_table = strdup("metadata"), .timeout_ms = 20000};
        ck_assert_int_eq(db_conf_parse(&conf, path, 2000000000, false, err), 0);
}

static void open_it(struct db *d, enum db_role role)
{
        char err[DB_ERROR_BYTES];
        ck_assert_msg(db_open(d, &conf, role) == 0, "%s", d->error);
        if (role == DB_WRITER)
                ck_assert_msg(db_migrate(d, err) == 0, "%s", err);
        ck_assert_int_eq(db_prepare(d), 0);
}

static void db_setup(void)
{
        make_dir();
        conf_make("t.db");
        open_it(&db, DB_WRITER);
}

static void db_teardown(void)
{
        db_close(&db);
        db_conf_fini(&conf);
        remove_dir();
}

static char get_space[1024];

static void *get_alloc(void *arg, size_t n)
{
        return n <= sizeof get_space ? get_space : NULL;
}

static struct db_get_result get(struct db *d, const char *key)
{
        struct db_get_result r;
        ck_assert_int_eq(db_get(d, key, get_alloc, NULL, &r), 0);
        return r;
}

static bool set(const char *key, const char *value, const char *etag, bool first, int64_t ttl)
{
        struct db_write w = {.key = key, .value = value, .value_n = strlen(value), .etag = etag, .first_write = first, .ttl_s = ttl};
        bool applied;
        ck_assert_int_eq(db_set(&db, &w, &applied), 0);
        return applied;
}

START_TEST(a_value_comes_back_with_a_new_etag_each_time)
{
        ck_assert(!get(&db, "k").found);
        ck_assert(set("k", "\"v\"", NULL, false, 0));
        struct db_get_result a = get(&db, "k");
        ck_assert(a.found && a.value.n == 3 && !memcmp(a.value.p, "\"v\"", 3));
        ck_assert_uint_eq(strlen(a.etag), 36);
        ck_assert_str_eq(a.expires, "");
        ck_assert(set("k", "\"w\"", NULL, false, 0));
        ck_assert_str_ne(get(&db, "k").etag, a.etag);
}
END_TEST

START_TEST(an_etag_must_match)
{
        bool applied;
        set("k", "1", NULL, false, 0);
        struct db_get_result a = get(&db, "k");
        ck_assert(!set("k", "2", "other", false, 0));
        ck_assert(set("k", "2", a.etag, false, 0));
        ck_assert(!set("k", "3", a.etag, false, 0));
        ck_assert(!set("absent", "3", a.etag, false, 0));
        ck_assert_int_eq(db_delete(&db, "k", a.etag, &applied), 0);
        ck_assert(!applied);
        ck_assert_int_eq(db_delete(&db, "k", get(&db, "k").etag, &applied), 0);
        ck_assert(applied && !get(&db, "k").found);
        ck_assert_int_eq(db_delete(&db, "k", NULL, &applied), 0);
        ck_assert(applied);
}
END_TEST

START_TEST(first_write_wins_unless_expired)
{
        ck_assert(set("k", "1", NULL, true, 0));
        ck_assert(!set("k", "2", NULL, true, 0));
        ck_assert(sqlite3_exec(db.h, "UPDATE state SET expiration_time = '2020-01-01 00:00:00'", NULL, NULL, NULL) == 0);
        ck_assert(!get(&db, "k").found);
        ck_assert(!set("k", "3", "any", false, 0));
        ck_assert(set("k", "3", NULL, true, 0));
        ck_assert(get(&db, "k").found);
}
END_TEST

START_TEST(a_ttl_is_told_and_removed_by_the_next_write)
{
        char expected[DB_TIME_BYTES];
        int64_t before = time(NULL);
        set("k", "1", NULL, false, 3600);
        struct db_get_result r = get(&db, "k");
        bool near = false;
        for (int64_t t = before; t <= time(NULL); t++) {
                db_time_text(expected, t + 3600);
                expected[10] = 'T';
                near |= !strncmp(expected, r.expires, 19);
        }
        ck_assert_msg(near && r.expires[19] == 'Z', "%s", r.expires);
        set("k", "1", NULL, false, 0);
        ck_assert_str_eq(get(&db, "k").expires, "");
}
END_TEST

START_TEST(binary_values_are_base64_in_the_table)
{
        struct db_write w = {.key = "k", .value = "AP/+", .value_n = 4, .is_binary = true};
        struct db_get_result r;
        bool applied;
        ck_assert_int_eq(db_set(&db, &w, &applied), 0);
        r = get(&db, "k");
        ck_assert(r.value.n == 3 && !memcmp(r.value.p, "\x00\xff\xfe", 3));
        w.value = "AA==";
        ck_assert_int_eq(db_set(&db, &w, &applied), 0);
        ck_assert_uint_eq(get(&db, "k").value.n, 1);
        w.value_n = 0;
        ck_assert_int_eq(db_set(&db, &w, &applied), 0);
        r = get(&db, "k");
        ck_assert(r.found && r.value.n == 0);
        w.value = "A*==";
        w.value_n = 4;
        ck_assert_int_eq(db_set(&db, &w, &applied), 0);
        ck_assert_int_eq(db_get(&db, "k", get_alloc, NULL, &r), SQLITE_MISMATCH);
}
END_TEST

START_TEST(opening_again_keeps_the_rows_and_the_migration_level)
{
        char err[DB_ERROR_BYTES];
        set("k", "1", NULL, false, 0);
        db_close(&db);
        open_it(&db, DB_WRITER);
        ck_assert(get(&db, "k").found);
        sqlite3_exec(db.h, "UPDATE metadata SET value = 'x' WHERE key = 'migrations'", NULL, NULL, NULL);
        ck_assert_int_eq(db_migrate(&db, err), -1);
        ck_assert_str_eq(err, "invalid migration level found in metadata table: x");
        sqlite3_exec(db.h, "UPDATE metadata SET value = '9' WHERE key = 'migrations'", NULL, NULL, NULL);
        ck_assert_int_eq(db_migrate(&db, err), 0); /* of a later version: left as it is */
}
END_TEST

START_TEST(a_directory_is_not_a_database)
{
        struct db d;
        struct db_conf other = {0};
        char err[DB_ERROR_BYTES];
        ck_assert_int_eq(db_conf_parse(&other, "/nonexistent/x.db", 0, false, err), 0);
        ck_assert_int_ne(db_open(&d, &other, DB_WRITER), 0);
        ck_assert_str_eq(d.error, "unable to open database file (14): file:/nonexistent/x.db: No such file or directory");
        db_conf_fini(&other);
}
END_TEST

static int count_row(void *arg, const char *key, int64_t rowid)
{
        sprintf((char *)arg + strlen(arg), "%s ", key);
        return 0;
}

START_TEST(keys_are_listed_by_pattern_in_pages)
{
        char all[128] = "";
        set("a||1", "1", NULL, false, 0);
        set("a||2", "1", NULL, false, 0);
        set("b||3", "1", NULL, false, 0);
        set("a%4", "1", NULL, false, 0);
        ck_assert_int_eq(db_keys_like(&db, "a||%", NULL, 0, count_row, all), 0);
        ck_assert_str_eq(all, "a||1 a||2 ");
        all[0] = 0;
        ck_assert_int_eq(db_keys_like(&db, "a\\%_", NULL, 0, count_row, all), 0);
        ck_assert_str_eq(all, "a%4 ");
        all[0] = 0;
        ck_assert_int_eq(db_keys_like(&db, "%", "1", 2, count_row, all), 0);
        ck_assert_str_eq(all, "a||2 b||3 ");
}
END_TEST

START_TEST(cleanup_takes_expired_rows_and_waits_its_interval)
{
        int64_t rows;
        set("old", "1", NULL, false, 5);
        set("new", "1", NULL, false, 5);
        sqlite3_exec(db.h, "UPDATE state SET expiration_time = '2020-01-01 00:00:00' WHERE key = 'old'", NULL, NULL, NULL);
        ck_assert_int_eq(db_cleanup(&db, 60000, &rows), 0);
        ck_assert_int_eq(rows, 1);
        ck_assert_int_eq(db_cleanup(&db, 60000, &rows), 0);
        ck_assert_int_eq(rows, -1);
        ck_assert(get(&db, "new").found);
}
END_TEST

START_TEST(a_reader_cannot_write_and_sees_commits)
{
        struct db reader;
        open_it(&reader, DB_READER);
        ck_assert_int_ne(sqlite3_exec(reader.h, "DELETE FROM state", NULL, NULL, NULL), 0);
        ck_assert(!get(&reader, "k").found);
        set("k", "1", NULL, false, 0);
        ck_assert(get(&reader, "k").found);
        sqlite3_exec(db.h, "CREATE TABLE other (x)", NULL, NULL, NULL); /* statements are compiled again */
        ck_assert(get(&reader, "k").found);
        db_close(&reader);
}
END_TEST

/* ---- group commit ---- */

static struct write_op put(const char *key, const char *value, const char *etag)
{
        return (struct write_op){.kind = WRITE_SET, .set = {.key = key, .value = value, .value_n = strlen(value), .etag = etag}};
}

static struct writer *writer;
static int done, conflicts;

static void one_write(void *arg)
{
        char key[32];
        long i = (long)arg;
        snprintf(key, sizeof key, "k%ld", i);
        struct write_op op = put(key, "1", i % 10 == 9 ? "no such etag" : NULL);
        struct write_req req = {.ops = &op, .n = 1};
        int r = writer_run(writer, &req);
        conflicts += r == DAPR_ETAG_MISMATCH;
        if (r && r != DAPR_ETAG_MISMATCH)
                ck_abort_msg("%d %s", r, req.error ? req.error : "");
        write_req_fini(&req);
        done++;
}

ON_LOOP_TEST(writes_of_many_fibers_all_land_and_failures_stay_alone)
{
        struct scope s;
        scope_init(&s);
        db_setup();
        done = conflicts = 0;
        ck_assert_int_eq(writer_start(&writer, &db, 0), 0);
        for (long i = 0; i < 500; i++)
                ck_assert_int_eq(fiber_go(&s, "w", one_write, (void *)i), 0);
        scope_join(&s);
        ck_assert_int_eq(done, 500);
        ck_assert_int_eq(conflicts, 50);
        writer_stop(writer);
        open_it(&db, DB_WRITER);
        ck_assert(get(&db, "k8").found && !get(&db, "k9").found && get(&db, "k498").found);
        db_teardown();
}

ON_LOOP_TEST(a_transaction_is_all_or_nothing_and_a_bulk_is_not)
{
        db_setup();
        ck_assert_int_eq(writer_start(&writer, &db, 0), 0);
        struct write_op ops[] = {put("a", "1", NULL), put("b", "1", "wrong"), put("c", "1", NULL)};
        struct write_req tx = {.ops = ops, .n = 3, .atomic = true}, bulk = {.ops = ops, .n = 3};
        struct db reader;
        open_it(&reader, DB_READER);
        ck_assert_int_eq(writer_run(writer, &tx), DAPR_ETAG_MISMATCH);
        ck_assert(!get(&reader, "a").found && !get(&reader, "c").found);
        ck_assert_int_eq(writer_run(writer, &bulk), DAPR_ETAG_MISMATCH);
        ck_assert(get(&reader, "a").found && !get(&reader, "b").found && get(&reader, "c").found);
        ck_assert_int_eq(ops[0].code, 0);
        ck_assert_int_eq(ops[1].code, DAPR_ETAG_MISMATCH);
        ops[1] = (struct write_op){.kind = WRITE_DELETE, .key = "a"};
        tx = (struct write_req){.ops = ops, .n = 3, .atomic = true};
        ck_assert_int_eq(writer_run(writer, &tx), 0);
        ck_assert(!get(&reader, "a").found);
        write_req_fini(&tx);
        free(bulk.error);
        db_close(&reader);
        writer_stop(writer);
        db_conf_fini(&conf);
        remove_dir();
}

static char *big;

static void small_write(void *arg)
{
        struct write_op op = put(arg, "1", NULL);
        struct write_req req = {.ops = &op, .n = 1};
        ck_assert_int_eq(writer_run(writer, &req), 0);
        write_req_fini(&req);
        done++;
}

static void big_write(void *arg)
{
        struct write_op op = put("big", big, NULL);
        struct write_req req = {.ops = &op, .n = 1};
        ck_assert_int_eq(writer_run(writer, &req), DAPR_RESOURCE_EXHAUSTED);
        ck_assert_str_eq(req.error, "database or disk is full (13)");
        write_req_fini(&req);
        done++;
}

ON_LOOP_TEST(a_full_disk_fails_only_what_does_not_fit)
{
        struct scope s;
        scope_init(&s);
        db_setup();
        sqlite3_exec(db.h, "PRAGMA max_page_count = 100", NULL, NULL, NULL);
        big = malloc(1000001);
        memset(big, '1', 1000000);
        big[1000000] = 0;
        done = 0;
        ck_assert_int_eq(writer_start(&writer, &db, 0), 0);
        fiber_go(&s, "a", small_write, "a");
        fiber_go(&s, "big", big_write, NULL);
        fiber_go(&s, "b", small_write, "b");
        scope_join(&s);
        ck_assert_int_eq(done, 3);
        writer_stop(writer);
        open_it(&db, DB_WRITER);
        ck_assert(get(&db, "a").found && get(&db, "b").found && !get(&db, "big").found);
        db_teardown();
        free(big);
}

ON_LOOP_TEST(a_lock_of_another_process_is_waited_for_and_then_reported)
{
        struct db other;
        db_setup();
        open_it(&other, DB_WRITER);
        sqlite3_busy_timeout(db.h, 50);
        ck_assert_int_eq(writer_start(&writer, &db, 0), 0);
        ck_assert_int_eq(sqlite3_exec(other.h, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
        struct write_op op = put("a", "1", NULL);
        struct write_req req = {.ops = &op, .n = 1};
        ck_assert_int_eq(writer_run(writer, &req), DAPR_UNAVAILABLE);
        ck_assert_str_eq(req.error, "database is locked (5) (SQLITE_BUSY)");
        write_req_fini(&req);
        sqlite3_exec(other.h, "COMMIT", NULL, NULL, NULL);
        db_close(&other);
        writer_stop(writer);
        db_conf_fini(&conf);
        remove_dir();
}

ON_LOOP_TEST(the_writer_cleans_up_on_its_interval)
{
        struct db reader;
        db_setup();
        set("old", "1", NULL, false, 5);
        sqlite3_exec(db.h, "UPDATE state SET expiration_time = '2020-01-01 00:00:00'", NULL, NULL, NULL);
        ck_assert_int_eq(writer_start(&writer, &db, 150), 0);
        open_it(&reader, DB_READER);
        char all[64] = "x";
        for (int i = 0; i < 100 && all[0]; i++) {
                sqlite3_stmt *st;
                fiber_sleep(0.02);
                sqlite3_prepare_v2(reader.h, "SELECT key FROM state", -1, &st, NULL);
                if (sqlite3_step(st) != SQLITE_ROW)
                        all[0] = 0;
                sqlite3_finalize(st);
        }
        ck_assert_str_eq(all, "");
        db_close(&reader);
        writer_stop(writer);
        db_conf_fini(&conf);
        remove_dir();
}

int main(void)
{
        Suite *s = suite_create("sqlite");
        TCase *t = tcase_create("strings"), *d = tcase_create("db"), *w = tcase_create("writer");
        tcase_add_loop_test(t, connection_strings_mean_what_they_mean_to_the_reference, 0, sizeof strings / sizeof *strings);
        tcase_add_test(t, identifiers_are_letters_digits_and_underscores);
        tcase_add_checked_fixture(d, db_setup, db_teardown);
        tcase_add_test(d, a_value_comes_back_with_a_new_etag_each_time);
        tcase_add_test(d, an_etag_must_match);
        tcase_add_test(d, first_write_wins_unless_expired);
        tcase_add_test(d, a_ttl_is_told_and_removed_by_the_next_write);
        tcase_add_test(d, binary_values_are_base64_in_the_table);
        tcase_add_test(d, opening_again_keeps_the_rows_and_the_migration_level);
        tcase_add_test(d, a_directory_is_not_a_database);
        tcase_add_test(d, keys_are_listed_by_pattern_in_pages);
        tcase_add_test(d, cleanup_takes_expired_rows_and_waits_its_interval);
        tcase_add_test(d, a_reader_cannot_write_and_sees_commits);
        tcase_add_test(w, writes_of_many_fibers_all_land_and_failures_stay_alone);
        tcase_add_test(w, a_transaction_is_all_or_nothing_and_a_bulk_is_not);
        tcase_add_test(w, a_full_disk_fails_only_what_does_not_fit);
        tcase_add_test(w, a_lock_of_another_process_is_waited_for_and_then_reported);
        tcase_add_test(w, the_writer_cleans_up_on_its_interval);
        suite_add_tcase(s, t);
        suite_add_tcase(s, d);
        suite_add_tcase(s, w);
        return run_suite(s);
}
