/* log.h: the exact lines, and that threads do not mix them. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sdk/base/log.h"
#include "tests/unit/on_loop.h"

static char dir[] = "/tmp/log_test.XXXXXX", path[64];

static void setup(void)
{
        ck_assert_ptr_nonnull(mkdtemp(dir));
        snprintf(path, sizeof(path), "%s/log", dir);
        setenv("TZ", "UTC", 1);
        ck_assert_int_eq(log_to_file(path), 0);
}

static void teardown(void)
{
        unlink(path);
        rmdir(dir);
}

/* All that was written, with the values of time and instance replaced. */
static const char *written(void)
{
        static const char *const keys[][2] = {
                {"time=\"", "T"}, {"\"time\":\"", "T"}, {"instance=", "H"}, {"\"instance\":\"", "H"}};
        static char raw[65536], out[65536];
        FILE *f = fopen(path, "r");
        raw[fread(raw, 1, sizeof(raw) - 1, f)] = '\0';
        fclose(f);
        char *o = out;
        for (char *p = raw; *p;) {
                size_t i = 0;
                while (i < 4 && strncmp(p, keys[i][0], strlen(keys[i][0])) != 0)
                        i++;
                if (i < 4) {
                        o += sprintf(o, "%s%s", keys[i][0], keys[i][1]);
                        p += strlen(keys[i][0]);
                        p += strcspn(p, "\" ");
                } else {
                        *o++ = *p++;
                }
        }
        *o = '\0';
        return out;
}

START_TEST(text_lines_are_those_of_logrus)
{
        log_setup("app", "1.17.9", false);
        log_info("dapr.runtime", "starting %s", "now");
        log_warn("dapr", "plain");
        log_error("dapr", "%s", "quote \" back \\ tab \t nl \n nul-ish \x01 del \x7f caf\xc3\xa9 bad \xff nbsp \xc2\xa0");
        ck_assert_str_eq(written(),
                         "time=\"T\" level=info msg=\"starting now\" app_id=app instance=H scope=dapr.runtime type=log ver=1.17.9\n"
                         "time=\"T\" level=warning msg=plain app_id=app instance=H scope=dapr type=log ver=1.17.9\n"
                         "time=\"T\" level=error msg=\"quote \\\" back \\\\ tab \\t nl \\n nul-ish \\x01 del \\x7f caf\xc3\xa9 bad "
                         "\\xff nbsp \\u00a0\" app_id=app instance=H scope=dapr type=log ver=1.17.9\n");
}
END_TEST

START_TEST(an_empty_app_id_and_an_empty_message_are_left_out)
{
        log_setup("", NULL, false);
        log_write(LOG_FATAL, "x", STR(""), NULL, 0);
        ck_assert_str_eq(written(), "time=\"T\" level=fatal instance=H scope=x type=log ver=unknown\n");
}
END_TEST

START_TEST(json_lines_have_sorted_keys_and_go_escapes)
{
        log_setup("app", "edge", true);
        log_info("s", "%s", "a \"b\" <c> & \xe2\x80\xa8 \x01 \b \f bad \xff");
        ck_assert_str_eq(written(), "{\"app_id\":\"app\",\"instance\":\"H\",\"level\":\"info\",\"msg\":\"a \\\"b\\\" \\u003cc\\u003e "
                                    "\\u0026 \\u2028 \\u0001 \\b \\f bad \\ufffd\",\"scope\":\"s\",\"time\":\"T\",\"type\":\"log\","
                                    "\"ver\":\"edge\"}\n");
}
END_TEST

START_TEST(fields_are_sorted_in_and_may_replace)
{
        const struct log_field f[] = {{"method", STR("GET /v1")}, {"code", STR("200")}, {"type", STR("request")}};
        log_setup(NULL, "v", false);
        log_write(LOG_INFO, "s", STR("m"), f, 3);
        log_setup(NULL, "v", true);
        log_write(LOG_INFO, "s", STR("m"), f, 3);
        ck_assert_str_eq(written(), "time=\"T\" level=info msg=m code=200 instance=H method=\"GET /v1\" scope=s type=request ver=v\n"
                                    "{\"code\":\"200\",\"instance\":\"H\",\"level\":\"info\",\"method\":\"GET /v1\",\"msg\":\"m\","
                                    "\"scope\":\"s\",\"time\":\"T\",\"type\":\"request\",\"ver\":\"v\"}\n");
}
END_TEST

START_TEST(many_fields_do_not_overflow)
{
        static struct log_field f[100];
        static char names[100][16];
        for (int i = 0; i < 100; i++) {
                snprintf(names[i], sizeof(names[i]), "f%d", i);
                f[i] = (struct log_field){names[i], STR("v")};
        }
        log_write(LOG_INFO, "s", STR("m"), f, 100);
        log_setup("a", "v", true);
        log_write(LOG_INFO, "s", STR("m"), f, 100);
        const char *w = written();
        ck_assert_ptr_nonnull(strstr(w, "f0=v"));
        ck_assert_ptr_nonnull(strstr(w, "\"time\":\"T\""));
}
END_TEST

START_TEST(levels_filter_and_parse)
{
        static const struct {
                const char *text;
                enum log_level level;
        } rows[] = {{"debug", LOG_DEBUG}, {"INFO", LOG_INFO}, {"warn", LOG_WARN}, {"warning", LOG_WARN}, {"error", LOG_ERROR}, {"fatal", LOG_FATAL}};
        enum log_level l;
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
                ck_assert_int_eq(log_level_parse(str_of(rows[i].text), &l), 0);
                ck_assert_int_eq(l, rows[i].level);
        }
        ck_assert_int_eq(log_level_parse(STR("loud"), &l), -EINVAL);
        ck_assert_str_eq(log_level_name(LOG_WARN), "warning");
        log_debug("s", "not seen");
        log_set_level(LOG_ERROR);
        log_warn("s", "not seen");
        ck_assert_str_eq(written(), "");
        log_set_level(LOG_DEBUG);
        ck_assert_int_eq(log_get_level(), LOG_DEBUG);
        log_debug("s", "seen");
        ck_assert_ptr_nonnull(strstr(written(), "level=debug msg=seen"));
}
END_TEST

START_TEST(time_is_rfc3339_without_trailing_zeros)
{
        char raw[256] = "";
        log_info("s", "m");
        FILE *f = fopen(path, "r");
        ck_assert_ptr_nonnull(fgets(raw, sizeof(raw), f));
        fclose(f);
        int y, mo, d, h, mi, s, end = 0;
        char frac[16] = "";
        ck_assert_int_ge(sscanf(raw, "time=\"%4d-%2d-%2dT%2d:%2d:%2d%n.%9[0-9]", &y, &mo, &d, &h, &mi, &s, &end, frac), 6);
        ck_assert_int_ge(y, 2024);
        size_t n = strlen(frac);
        ck_assert(n == 0 || frac[n - 1] != '0');
        ck_assert_int_eq(strncmp(raw + end + (n ? n + 1 : 0), "Z\" ", 3), 0);
}
END_TEST

START_TEST(the_zone_is_written_as_an_offset)
{
        setenv("TZ", "XXX-05:30", 1);
        tzset();
        char raw[256] = "";
        log_info("s", "m");
        FILE *f = fopen(path, "r");
        ck_assert_ptr_nonnull(fgets(raw, sizeof(raw), f));
        fclose(f);
        ck_assert_ptr_nonnull(strstr(raw, "+05:30\" level"));
}
END_TEST

START_TEST(errno_survives_and_percent_m_works)
{
        errno = ENOENT;
        log_info("s", "%m");
        ck_assert_int_eq(errno, ENOENT);
        ck_assert_ptr_nonnull(strstr(written(), "No such file"));
}
END_TEST

START_TEST(a_file_that_cannot_be_opened_is_reported)
{
        ck_assert_int_eq(log_to_file("/nonexistent/dir/log"), -ENOENT);
        log_info("s", "still here");
        ck_assert_ptr_nonnull(strstr(written(), "still here"));
}
END_TEST

enum { THREADS = 4, LINES = 200 };

static void *writer(void *arg)
{
        for (int i = 0; i < LINES; i++)
                log_info("s", "thread-%d-%0100d-end", *(int *)arg, i);
        return NULL;
}

START_TEST(lines_of_threads_never_mix)
{
        static int ids[THREADS] = {0, 1, 2, 3};
        pthread_t t[THREADS];
        char line[512];
        int n = 0, id, seen[THREADS] = {0};
        for (int i = 0; i < THREADS; i++)
                ck_assert_int_eq(pthread_create(&t[i], NULL, writer, &ids[i]), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(t[i], NULL);
        FILE *f = fopen(path, "r");
        while (fgets(line, sizeof(line), f)) {
                ck_assert_int_eq(strncmp(line, "time=", 5), 0);
                ck_assert_int_eq(sscanf(strstr(line, "msg=thread-"), "msg=thread-%d-", &id), 1);
                ck_assert_ptr_nonnull(strstr(line, "-end "));
                seen[id]++;
                n++;
        }
        fclose(f);
        ck_assert_int_eq(n, THREADS * LINES);
        ck_assert_int_eq(seen[0], LINES);
}
END_TEST

/* A pipe that is full and non-blocking: the line waits and comes out whole. */

static int pipe_fd[2];

static void *drains(void *arg)
{
        char *all = arg;
        size_t n = 0;
        for (ssize_t r; (r = read(pipe_fd[0], all + n, 200000 - n)) > 0;)
                n += (size_t)r;
        all[n] = '\0';
        return NULL;
}

START_TEST(a_full_nonblocking_stdout_is_waited_for)
{
        static char big[90000], all[200001];
        pthread_t t;
        memset(big, 'x', sizeof(big) - 1);
        ck_assert_int_eq(pipe2(pipe_fd, O_NONBLOCK), 0);
        ck_assert_int_eq(fcntl(pipe_fd[0], F_SETFL, 0), 0);
        ck_assert_int_eq(dup2(pipe_fd[1], STDOUT_FILENO), STDOUT_FILENO);
        close(pipe_fd[1]);
        ck_assert_int_eq(pthread_create(&t, NULL, drains, all), 0);
        log_write(LOG_INFO, "s", str_of(big), NULL, 0);
        log_write(LOG_INFO, "s", STR("last"), NULL, 0);
        close(STDOUT_FILENO);
        pthread_join(t, NULL);
        close(pipe_fd[0]);
        ck_assert_uint_gt(strlen(all), sizeof(big));
        ck_assert_ptr_nonnull(strstr(all, "msg=last"));
}
END_TEST

START_TEST(a_reader_that_went_away_is_ignored)
{
        ck_assert_int_eq(pipe(pipe_fd), 0);
        close(pipe_fd[0]);
        signal(SIGPIPE, SIG_IGN);
        ck_assert_int_eq(dup2(pipe_fd[1], STDOUT_FILENO), STDOUT_FILENO);
        log_info("s", "nobody reads this");
        close(pipe_fd[1]);
        close(STDOUT_FILENO);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("log");
        TCase *t = tcase_create("log");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, text_lines_are_those_of_logrus);
        tcase_add_test(t, an_empty_app_id_and_an_empty_message_are_left_out);
        tcase_add_test(t, json_lines_have_sorted_keys_and_go_escapes);
        tcase_add_test(t, fields_are_sorted_in_and_may_replace);
        tcase_add_test(t, many_fields_do_not_overflow);
        tcase_add_test(t, levels_filter_and_parse);
        tcase_add_test(t, time_is_rfc3339_without_trailing_zeros);
        tcase_add_test(t, the_zone_is_written_as_an_offset);
        tcase_add_test(t, errno_survives_and_percent_m_works);
        tcase_add_test(t, a_file_that_cannot_be_opened_is_reported);
        tcase_add_test(t, lines_of_threads_never_mix);
        suite_add_tcase(s, t);
        t = tcase_create("stdout");
        tcase_add_test(t, a_full_nonblocking_stdout_is_waited_for);
        tcase_add_test(t, a_reader_that_went_away_is_ignored);
        suite_add_tcase(s, t);
        return run_suite(s);
}
