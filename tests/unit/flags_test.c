/* flags.h: values, forms of argv, errors, texts. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/flags.h"
#include "tests/unit/fault.h"
#include "tests/unit/on_loop.h"

struct opts {
        int first;
        bool verbose, mtls, port_given;
        int api_logging;
        const char *app_id, *mode, *old;
        int port, public_port, concurrency;
        int64_t big, wait_ns, block_ns, body;
        struct flag_list paths, sets;
};

#define AT(f) offsetof(struct opts, f)
static const struct flag_row rows[] = {
        {"App", FLAG_GROUP},
        {"app-id", FLAG_STRING, AT(app_id), .help = "Name of the application.", .short_name = 'a'},
        {"mode", FLAG_STRING, AT(mode), "standalone", "MODE", "standalone or kubernetes."},
        {"app-max-concurrency", FLAG_INT, AT(concurrency), "-1", "N", "Most requests at once."},
        {"verbose", FLAG_BOOL, AT(verbose), .help = "Say more.", .short_name = 'v'},
        {"Ports", FLAG_GROUP},
        {"dapr-http-port", FLAG_PORT, AT(port), "3500", "PORT", "HTTP port of the API.", .given = AT(port_given), .short_name = 'p'},
        {"dapr-public-port", FLAG_PORT, AT(public_port), .help = "Port of health and metadata."},
        {"enable-mtls", FLAG_BOOL, AT(mtls), "true", .help = "Encrypt what passes between sidecars."},
        {"enable-api-logging", FLAG_TRISTATE, AT(api_logging), .help = "Log API calls."},
        {"resources-path", FLAG_LIST, AT(paths), "a,b", "PATH", "Folders | of resources."},
        {"set", FLAG_ARRAY, AT(sets), NULL, "KEY=VALUE", "One setting."},
        {"wait", FLAG_DURATION, AT(wait_ns), "5s", NULL, "How long to wait."},
        {"block", FLAG_DURATION, AT(block_ns), .help = "How long to block; a sentence that is long enough to be wrapped on "
                                                       "every terminal that is not far wider than what people use."},
        {"max-body-size", FLAG_QUANTITY, AT(body), "4Mi", NULL, "Largest body."},
        {"big", FLAG_INT64, AT(big), .help = "A number."},
        {"Hidden things", FLAG_GROUP},
        {"secret-switch", FLAG_STRING, AT(old), .help = "Never shown.", .attr = FLAG_HIDDEN},
        {"components-path", FLAG_STRING, AT(old), .help = "Old.", .attr = FLAG_DEPRECATED, .note = "use --resources-path"},
};
static const struct flag_program program = {"prog", "A program's summary.", "prog [flags]", "  prog --app-id a\n", rows,
                                            sizeof(rows) / sizeof(*rows)};
static struct opts o;
static char err[256];
static char *args[32];

/* Splits at spaces; "~" stands for an empty argument. */
static int parse(const char *line)
{
        static char copy[512];
        int n = 0;
        snprintf(copy, sizeof(copy), "prog %s", line);
        for (char *save, *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
                args[n++] = strcmp(t, "~") ? t : "";
        args[n] = NULL;
        memset(&o, 0xa5, sizeof(o));
        return flags_parse(&program, &o, n, args, err, sizeof(err));
}

#define PARSES(line, positionals) ck_assert_msg(parse(line) == (positionals), "%s: %s", line, err)
#define FAILS(line, text)                            \
        do {                                         \
                ck_assert_int_eq(parse(line), -EINVAL); \
                ck_assert_str_eq(err, text);         \
        } while (0)
#define DONE flags_free(&program, &o)

START_TEST(defaults_come_from_the_rows)
{
        PARSES("", 0);
        ck_assert_str_eq(o.app_id, "");
        ck_assert_str_eq(o.mode, "standalone");
        ck_assert_int_eq(o.port, 3500);
        ck_assert_int_eq(o.public_port, -1);
        ck_assert_int_eq(o.concurrency, -1);
        ck_assert(o.mtls && !o.verbose && !o.port_given);
        ck_assert_int_eq(o.api_logging, -1);
        ck_assert_uint_eq(o.paths.n, 2);
        ck_assert_uint_eq(o.sets.n, 0);
        ck_assert_int_eq(o.wait_ns, 5000000000);
        ck_assert_int_eq(o.block_ns, -1);
        ck_assert_int_eq(o.body, 4 << 20);
        DONE;
}
END_TEST

START_TEST(every_form_of_a_flag_is_read)
{
        PARSES("--dapr-http-port 1 -mode=kubernetes --app-id=a=b -app-max-concurrency -5 --verbose --enable-mtls=false", 0);
        ck_assert_int_eq(o.port, 1);
        ck_assert(o.port_given && o.verbose && !o.mtls);
        ck_assert_str_eq(o.mode, "kubernetes");
        ck_assert_str_eq(o.app_id, "a=b");
        ck_assert_int_eq(o.concurrency, -5);
        DONE;
        PARSES("-p 7 -v -a x", 0);
        ck_assert_int_eq(o.port, 7);
        ck_assert(o.verbose);
        ck_assert_str_eq(o.app_id, "x");
        DONE;
        PARSES("-p8 -v=false -a=y -enable-api-logging", 0);
        ck_assert_int_eq(o.port, 8);
        ck_assert(!o.verbose);
        ck_assert_str_eq(o.app_id, "y");
        ck_assert_int_eq(o.api_logging, 1);
        DONE;
        PARSES("--dapr-http-port ~ --enable-api-logging=0 --mode a --mode b", 0);
        ck_assert_int_eq(o.port, -1);
        ck_assert_int_eq(o.api_logging, 0);
        ck_assert_str_eq(o.mode, "b");
        DONE;
}
END_TEST

START_TEST(positional_arguments_move_to_the_front)
{
        PARSES("one --verbose two - -- --mode three", 5);
        ck_assert_str_eq(args[1], "one");
        ck_assert_str_eq(args[2], "two");
        ck_assert_str_eq(args[3], "-");
        ck_assert_str_eq(args[4], "--mode");
        ck_assert_str_eq(args[5], "three");
        DONE;
        PARSES("--verbose false", 1); /* a boolean takes its value by '=' only */
        ck_assert(o.verbose);
        DONE;
}
END_TEST

START_TEST(lists_split_repeat_and_replace_their_default)
{
        PARSES("--resources-path x,y --resources-path=z --set a=1,2 --set b", 0);
        ck_assert_uint_eq(o.paths.n, 3);
        ck_assert_str_eq(o.paths.v[0], "x");
        ck_assert_str_eq(o.paths.v[2], "z");
        ck_assert_uint_eq(o.sets.n, 2);
        ck_assert_str_eq(o.sets.v[0], "a=1,2");
        DONE;
        PARSES("--resources-path \"a,b\",\"c\"\"d\",", 0);
        ck_assert_uint_eq(o.paths.n, 3);
        ck_assert_str_eq(o.paths.v[0], "a,b");
        ck_assert_str_eq(o.paths.v[1], "c\"d");
        ck_assert_str_eq(o.paths.v[2], "");
        DONE;
        PARSES("--resources-path ~", 0);
        ck_assert_uint_eq(o.paths.n, 0);
        DONE;
        DONE; /* twice is harmless */
}
END_TEST

START_TEST(errors_name_flag_value_and_fix)
{
        FAILS("--dapr-http-port x", "invalid argument \"x\" for \"--dapr-http-port\" flag: expected a port between 0 and 65535");
        FAILS("--dapr-http-port=65536",
              "invalid argument \"65536\" for \"--dapr-http-port\" flag: expected a port between 0 and 65535");
        FAILS("--verbose=maybe", "invalid argument \"maybe\" for \"--verbose\" flag: expected true or false");
        FAILS("--app-max-concurrency 3000000000", "invalid argument \"3000000000\" for \"--app-max-concurrency\" flag: expected a "
                                                  "whole number between -2147483648 and 2147483647");
        FAILS("--wait soon", "invalid argument \"soon\" for \"--wait\" flag: expected a duration such as 500ms, 10s or 1h30m");
        FAILS("--max-body-size 4MB", "invalid argument \"4MB\" for \"--max-body-size\" flag: expected a size such as 4Mi, 512Ki or "
                                     "1000000");
        FAILS("--resources-path \"a", "invalid argument \"\"a\" for \"--resources-path\" flag: expected values separated by "
                                      "commas, with every quote closed");
        FAILS("--mode", "flag needs an argument: --mode; write --mode=MODE");
        FAILS("--dapr-htpp-port 1", "unknown flag: --dapr-htpp-port; did you mean --dapr-http-port?");
        FAILS("-verbos", "unknown flag: -verbos; did you mean --verbose?");
        FAILS("--http-port=1", "unknown flag: --http-port; did you mean --dapr-http-port?");
        FAILS("--zzzzzzzz", "unknown flag: --zzzzzzzz; `prog --help` lists the flags");
        FAILS("--secret-switc", "unknown flag: --secret-switc; `prog --help` lists the flags");
        FAILS("--=x", "unknown flag: --; `prog --help` lists the flags");
        FAILS("-vx", "unknown flag: -vx; `prog --help` lists the flags");
        char one[2] = "zz";
        char *argv[] = {"prog", "--nope", NULL};
        ck_assert_int_eq(flags_parse(&program, &o, 2, argv, one, 1), -EINVAL);
        ck_assert_int_eq(one[1], 'z');
}
END_TEST

/* What a text function writes. */
static char *text_of(void (*fn)(const struct flag_program *, FILE *))
{
        char *p = NULL;
        size_t n;
        FILE *f = open_memstream(&p, &n);
        fn(&program, f);
        fclose(f);
        return p;
}

static void plain_help(const struct flag_program *p, FILE *f)
{
        flags_help(p, f, false);
}

static void coloured_help(const struct flag_program *p, FILE *f)
{
        flags_help(p, f, true);
}

START_TEST(help_is_grouped_aligned_and_wrapped)
{
        setenv("COLUMNS", "80", 1);
        char *t = text_of(plain_help);
        ck_assert_ptr_nonnull(strstr(t, "A program's summary.\n\nUsage:\n  prog [flags]\n\nApp:\n"));
        ck_assert_ptr_nonnull(strstr(t, "\n  -a, --app-id TEXT                   Name of the application.\n"));
        ck_assert_ptr_nonnull(strstr(t, "\n      --mode MODE                     standalone or kubernetes. (default\n"
                                        "                                      standalone)\n"));
        ck_assert_ptr_nonnull(strstr(t, "\n      --enable-mtls                   Encrypt"));
        ck_assert_ptr_nonnull(strstr(t, "\nExamples:\n  prog --app-id a\n"));
        ck_assert_ptr_null(strstr(t, "secret-switch"));
        ck_assert_ptr_null(strstr(t, "components-path"));
        ck_assert_ptr_null(strstr(t, "Hidden things"));
        ck_assert_ptr_null(strchr(t, '\x1b'));
        for (char *line = strtok(t, "\n"); line; line = strtok(NULL, "\n"))
                ck_assert_uint_le(strlen(line), 80);
        free(t);
        t = text_of(coloured_help);
        ck_assert_ptr_nonnull(strstr(t, "\x1b[1mPorts:\x1b[0m"));
        free(t);
}
END_TEST

START_TEST(help_is_printed_on_request)
{
        ck_assert_ptr_nonnull(freopen("/dev/null", "w", stdout));
        ck_assert_int_eq(parse("--help"), -ECANCELED);
        ck_assert_int_eq(parse("--verbose -h"), -ECANCELED);
}
END_TEST

START_TEST(man_page_and_reference_page_come_from_the_rows)
{
        char *t = text_of(flags_man);
        ck_assert_ptr_nonnull(strstr(t, ".TH \"prog\" 1\n"));
        ck_assert_ptr_nonnull(strstr(t, "\\fB\\-\\-dapr\\-http\\-port\\fR \\fIPORT\\fR\nHTTP port of the API. Default: 3500."));
        ck_assert_ptr_nonnull(strstr(t, "Deprecated: use \\-\\-resources\\-path."));
        ck_assert_ptr_null(strstr(t, "secret"));
        free(t);
        t = text_of(flags_markdown);
        ck_assert_ptr_nonnull(strstr(t, "## Ports\n\n| Flag | Default | Meaning |\n"));
        ck_assert_ptr_nonnull(strstr(t, "| `--dapr-http-port PORT`, `-p` | `3500` | HTTP port of the API. |\n"));
        ck_assert_ptr_nonnull(strstr(t, "Folders \\| of resources."));
        ck_assert_ptr_null(strstr(t, "secret"));
        free(t);
}
END_TEST

static void bash(const struct flag_program *p, FILE *f)
{
        flags_completion(p, "bash", f);
}

static void zsh(const struct flag_program *p, FILE *f)
{
        flags_completion(p, "zsh", f);
}

static void fish(const struct flag_program *p, FILE *f)
{
        flags_completion(p, "fish", f);
}

static void other_shell(const struct flag_program *p, FILE *f)
{
        flags_completion(p, "tcsh", f);
}

START_TEST(completion_lists_what_help_lists)
{
        static char cmd[4096];
        char *t = text_of(bash);
        ck_assert_ptr_nonnull(strstr(t, " --dapr-http-port"));
        ck_assert_ptr_null(strstr(t, "secret-switch"));
        ck_assert_ptr_null(strstr(t, "components-path"));
        snprintf(cmd, sizeof(cmd), "bash -c '%s\nCOMP_WORDS=(prog --dapr-h); COMP_CWORD=1; _prog; test \"$COMPREPLY\" = --dapr-http-port'", t);
        if (!strchr(t, '\'') && system("command -v bash >/dev/null") == 0)
                ck_assert_int_eq(system(cmd), 0);
        free(t);
        t = text_of(zsh);
        ck_assert_ptr_nonnull(strstr(t, "'--mode=[standalone or kubernetes.]:MODE:'"));
        ck_assert_ptr_nonnull(strstr(t, "'*--resources-path=[Folders | of resources.]:PATH:_files'"));
        free(t);
        t = text_of(fish);
        ck_assert_ptr_nonnull(strstr(t, "complete -c prog -l dapr-http-port -s p -x -d 'HTTP port of the API.'\n"));
        free(t);
        t = text_of(other_shell);
        ck_assert_str_eq(t, "");
        free(t);
}
END_TEST

/* ---- values ---- */

struct value_row {
        const char *text;
        int64_t want; /* BAD = refused */
};
enum { BAD = -987654321 };

static void check_rows(const struct value_row *r, size_t n, int (*fn)(struct str, int64_t *))
{
        for (size_t i = 0; i < n; i++) {
                int64_t v = BAD;
                int e = fn(str_of(r[i].text), &v);
                ck_assert_msg(e == (r[i].want == BAD ? -EINVAL : 0) && v == r[i].want, "\"%s\": %d, %lld", r[i].text, e, (long long)v);
        }
}
#define CHECK_ROWS(rows, fn) check_rows(rows, sizeof(rows) / sizeof(*(rows)), fn)

START_TEST(integers_are_those_of_go)
{
        static const struct value_row t[] = {
                {"0", 0}, {"-12", -12}, {"+7", 7}, {"0x1F", 31}, {"0o17", 15}, {"017", 15}, {"0b101", 5}, {"-0x10", -16},
                {"9223372036854775807", INT64_MAX}, {"-9223372036854775808", INT64_MIN}, {"9223372036854775808", BAD},
                {"", BAD}, {"-", BAD}, {"1 ", BAD}, {"0x", BAD}, {"09", BAD}, {"1e3", BAD}, {"--1", BAD}, {"99999999999999999999999999", BAD},
        };
        CHECK_ROWS(t, parse_int64);
}
END_TEST

START_TEST(durations_are_those_of_go)
{
        static const struct value_row t[] = {
                {"0", 0}, {"5s", 5000000000}, {"-1.5h", -5400000000000}, {"1h2m3.5s", 3723500000000}, {"10ms", 10000000}, {"1us", 1000},
                {"1\u00b5s", 1000}, {"1\u03bcs", 1000}, {"3ns", 3}, {".5s", 500000000}, {"1.s", 1000000000}, {"+2m", 120000000000},
                {"0.3333333333333333333h", 1200000000000}, {"9007199254.740993ms", 9007199254740993}, {"9223372036854775.807us", INT64_MAX},
                {"0.100000000000000000000h", 360000000000}, {"0.830103483285477580700h", 2988372539827}, {"9223372036854775807ns", INT64_MAX}, {"-9223372036854775808ns", INT64_MIN},
                {"0.00000000000000000000000000000000000000000001h", 0}, {"2562047h47m16.854775807s", INT64_MAX},
                {"9223372036854775808ns", BAD}, {"2562048h", BAD}, {"", BAD}, {"5", BAD}, {"s", BAD}, {".s", BAD}, {"-", BAD}, {"1d", BAD},
                {"1 s", BAD}, {"1.2.3s", BAD}, {"1hs", BAD}, {"99999999999999999999999999h", BAD},
        };
        CHECK_ROWS(t, parse_duration);
}
END_TEST

START_TEST(quantities_are_those_of_kubernetes)
{
        static const struct value_row t[] = {
                {"0", 0}, {"4Mi", 4 << 20}, {"4Ki", 4096}, {"100M", 100000000}, {"1e3", 1000}, {"1E3", 1000}, {"1E", 1000000000000000000},
                {"1.5Gi", 1610612736}, {"100m", 1}, {"1500m", 2}, {"-1500m", -2}, {"1n", 1}, {".5k", 500}, {"5.", 5}, {"2e-1", 1}, {"7Ei", 8070450532247928832},
                {"0.0000000000000000000000000000000000000000001", 1}, {"9223372036854775807", INT64_MAX}, {"-8Ei", INT64_MIN}, {"0Ei", 0},
                {"8Ei", BAD}, {"", BAD}, {"Mi", BAD}, {"4MB", BAD}, {"4mi", BAD}, {"1e", BAD}, {"1e+", BAD}, {"1e1000", BAD}, {"1e99", BAD},
                {"0x10", BAD}, {"1 Mi", BAD}, {"--1", BAD}, {"1.2.3", BAD}, {"K", BAD}, {"99999999999999999999999", BAD},
        };
        static const struct value_row tiny[] = {{"0.0000000000000000000000000000000000000000000", 0}};
        CHECK_ROWS(tiny, parse_quantity);
        for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
                check_rows(&t[i], 1, parse_quantity);
}
END_TEST

START_TEST(booleans_are_those_of_go)
{
        bool b = false;
        ck_assert(parse_bool(STR("True"), &b) == 0 && b);
        ck_assert(parse_bool(STR("f"), &b) == 0 && !b);
        ck_assert_int_eq(parse_bool(STR("yes"), &b), -EINVAL);
        ck_assert_int_eq(parse_bool(STR(""), &b), -EINVAL);
}
END_TEST

static bool parse_with_faults(void *arg)
{
        char *argv[] = {"prog", "--resources-path", "a,b,\"c\"", "--set", "x", "--set", "y", "rest", NULL};
        struct opts opts;
        char e[64];
        int r = flags_parse(&program, &opts, 8, argv, e, sizeof(e));
        if (r == -ENOMEM)
                return strcmp(e, "out of memory") == 0;
        bool ok = r == 1 && opts.paths.n == 3 && opts.sets.n == 2;
        flags_free(&program, &opts);
        return ok;
}

START_TEST(toggles_are_those_of_the_reference)
{
        static const char *const yes[] = {"y", "YES", "true", "T", "On", "1", " true\t"}, *const no[] = {"", "n", "0", "2", "yes please", "enabled", "tru", "01"};

        for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
                ck_assert_msg(parse_truthy(yes[i]), "%s", yes[i]);
        for (size_t i = 0; i < sizeof no / sizeof *no; i++)
                ck_assert_msg(!parse_truthy(no[i]), "%s", no[i]);
        ck_assert(!parse_truthy(NULL));
}
END_TEST

START_TEST(a_failed_allocation_is_an_error_that_frees_all)
{
        ck_assert_int_ge(fault_each(parse_with_faults, NULL), 10);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("flags");
        TCase *t = tcase_create("flags");
        tcase_add_test(t, defaults_come_from_the_rows);
        tcase_add_test(t, every_form_of_a_flag_is_read);
        tcase_add_test(t, positional_arguments_move_to_the_front);
        tcase_add_test(t, lists_split_repeat_and_replace_their_default);
        tcase_add_test(t, errors_name_flag_value_and_fix);
        tcase_add_test(t, help_is_grouped_aligned_and_wrapped);
        tcase_add_test(t, help_is_printed_on_request);
        tcase_add_test(t, man_page_and_reference_page_come_from_the_rows);
        tcase_add_test(t, completion_lists_what_help_lists);
        tcase_add_test(t, integers_are_those_of_go);
        tcase_add_test(t, durations_are_those_of_go);
        tcase_add_test(t, quantities_are_those_of_kubernetes);
        tcase_add_test(t, booleans_are_those_of_go);
        tcase_add_test(t, toggles_are_those_of_the_reference);
        tcase_add_test(t, a_failed_allocation_is_an_error_that_frees_all);
        suite_add_tcase(s, t);
        return run_suite(s);
}
