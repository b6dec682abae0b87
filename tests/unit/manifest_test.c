/* plugin.yaml: what is read, what is refused and with which place; metadata against it; names that are near. */
#include <check.h>
#include <stdlib.h>

#include "kernel/super/manifest.h"
#include "sdk/base/near.h"
#include "sdk/base/buf.h"

#define GOOD                                                                                                    \
        "name: state.x\nversion: 1.10\ncontract: [1, 2]\ntypes:\n  - type: state.x\n    versions: [v1, v2]\n"    \
        "  - {type: state.y}\n"

static struct arena A;

static void setup(void)
{
        arena_init(&A, 0);
}
static void teardown(void)
{
        arena_fini(&A);
}

static struct manifest *good(const char *text)
{
        struct manifest *m = NULL;
        const char *err = NULL;
        if (manifest_parse(str_of(text), "/p/state.x/plugin.yaml", &m, &A, &err))
                ck_abort_msg("%s", err);
        return m;
}

static void bad(const char *text, const char *part)
{
        struct manifest *m = NULL;
        const char *err = "";
        ck_assert_int_lt(manifest_parse(str_of(text), "f.yaml", &m, &A, &err), 0);
        if (!strstr(err, part))
                ck_abort_msg("'%s' does not hold '%s'", err, part);
}

START_TEST(reads_what_is_there_and_defaults_the_rest)
{
        struct manifest *m = good(GOOD "share: yes\nvolatile: true\nenvironment: [TZ]\nmetadata:\n"
                                       "  - {name: timeout, type: duration, default: 2s, aliases: [wait], sensitive: true}\n"
                                       "sandbox: {network: [{connect: \"*\", reason: r}]}\n");
        ck_assert_str_eq(m->name, "state.x");
        ck_assert_str_eq(m->version, "1.10"); /* as written */
        ck_assert_str_eq(m->executable, "/p/state.x/state.x");
        ck_assert_uint_eq(m->n_contract, 2);
        ck_assert_uint_eq(m->contract[1], 2);
        ck_assert(m->share && m->is_volatile);
        ck_assert(m->hang_after_s < 0); /* not given */
        ck_assert_uint_eq(m->n_environment, 1);
        ck_assert_int_eq(m->fields[0].kind, FIELD_DURATION);
        ck_assert(m->fields[0].sensitive);
        ck_assert(manifest_field(m, "TIMEOUT") == &m->fields[0] && manifest_field(m, "wait") == &m->fields[0]);
        ck_assert(manifest_field(m, "other") == NULL);
        ck_assert(m->rights.confined && m->rights.n == 1 && m->rights.v[0].kind == RIGHT_CONNECT);
        manifest_free(m);
        m = good("name: a\nversion: 1\ncontract: [1]\ntypes: [{type: a.b}]\nexecutable: /bin/x\nhangAfter: 1m30s\n");
        ck_assert_double_eq(m->hang_after_s, 90);
        manifest_free(m);
        m = good(GOOD "hangAfter: 0\n");
        ck_assert_double_eq(m->hang_after_s, 0);
        manifest_free(m);
        m = good("name: a\nversion: 1\ncontract: [1]\ntypes: [{type: a.b}]\nexecutable: /bin/x\n");
        ck_assert_str_eq(m->executable, "/bin/x");
        manifest_free(m);
}
END_TEST

START_TEST(serves_types_and_versions)
{
        struct manifest *m = good(GOOD);
        ck_assert(manifest_serves(m, "State.X", "") && manifest_serves(m, "state.x", "v0") && manifest_serves(m, "state.x", "V2"));
        ck_assert(!manifest_serves(m, "state.x", "v3"));
        ck_assert(manifest_serves(m, "state.y", "v1") && !manifest_serves(m, "state.y", "v2"));
        ck_assert(!manifest_serves(m, "state.z", "v1") && manifest_has_type(m, "state.Y"));
        manifest_free(m);
}
END_TEST

START_TEST(faults_name_place_key_and_fix)
{
        bad("", "f.yaml: the file is empty");
        bad("- a\n", "f.yaml:1:1: a plugin manifest is a map");
        bad("name: [\n", "f.yaml:");
        bad(GOOD "exectuable: x\n", "f.yaml:8:1: unknown key 'exectuable' in a plugin manifest; did you mean 'executable'?");
        bad(GOOD "name: z\n", "f.yaml:8");
        bad("version: 1\ncontract: [1]\ntypes: [{type: a.b}]\n", "'name' is missing");
        bad("name: a\nversion: 1\ntypes: [{type: a.b}]\n", "'contract' is missing");
        bad("name: a\nversion: 1\ncontract: [zwei]\ntypes: [{type: a.b}]\n", "f.yaml:3:11: 'contract' must list version numbers");
        bad("name: a\nversion: 1\ncontract: [1]\n", "'types' is missing");
        bad("name: a\nversion: 1\ncontract: [1]\ntypes: [{type: ab}]\n", "f.yaml:4:16: 'ab' is not a component type");
        bad("name: a\nversion: 1\ncontract: [1]\ntypes: [ab]\n", "each entry of 'types' must be a map");
        bad(GOOD "hangAfter: 10ms\n", "f.yaml:8:12: 'hangAfter' must be a duration from 1s to 24h, or 0 for never, not '10ms'");
        bad(GOOD "hangAfter: soon\n", "not 'soon'");
        bad(GOOD "share: perhaps\n", "f.yaml:8:8: 'share' must be true or false");
        bad(GOOD "metadata: {a: b}\n", "'metadata' must be a list");
        bad(GOOD "metadata:\n  - {name: a, type: number}\n", "f.yaml:9:21: unknown type 'number'");
        bad(GOOD "metadata:\n  - {name: a, type: int, default: many}\n", "default 'many' of 'a' is not a whole number");
        bad(GOOD "metadata:\n  - {name: a, type: enum}\n", "the enum 'a' has no 'values'");
        bad(GOOD "metadata:\n  - {name: a, required: true, default: 1}\n", "is required and has a default");
        bad(GOOD "metadata:\n  - {type: int}\n", "'name' is missing");
        bad(GOOD "environment: TZ\n", "'environment' must be a list of texts");
        bad(GOOD "sandbox: none\n", "'sandbox' must be a map");
        bad(GOOD "sandbox: {disk: all}\n", "f.yaml:8:11: unknown key 'disk' in 'sandbox'");
        bad(GOOD "sandbox: {files: [{access: read}]}\n", "'path' is missing");
        bad(GOOD "sandbox: {files: [{path: /x, access: all}]}\n", "'access' must be read or write");
        bad(GOOD "sandbox: {network: [{reason: x}]}\n", "either 'connect' or 'listen'");
        bad(GOOD "sandbox: {network: [{listen: 70000}]}\n", "'listen' must be a number from 1 to 65535");
        bad(GOOD "sandbox: {files: [{path: '${nothing}'}]}\n", "'${nothing}' names no field of 'metadata'");
        bad(GOOD "share: true\nmetadata: [{name: f}]\nsandbox: {files: [{path: '${f}'}]}\n", "'share' must be false");
        bad(GOOD "sandbox: {limits: {memory: 12}}\n", "'memory' must be a quantity");
}
END_TEST

START_TEST(a_missing_file_is_enoent)
{
        struct manifest *m;
        const char *err;
        ck_assert_int_eq(manifest_read("/nowhere/plugin.yaml", &m, &A, &err), -2);
}
END_TEST

static struct component_spec spec(struct metadata_item *items, size_t n)
{
        return (struct component_spec){.name = "store", .type = "state.x", .version = "v1", .file = "c.yaml", .line = 3, .metadata = items,
                                       .n_metadata = n};
}

static void default_found(void *arg, const char *name, const char *value)
{
        struct buf *b = arg;
        buf_printf(b, "%s=%s;", name, value);
}

START_TEST(metadata_is_checked_field_by_field)
{
        struct manifest *m = good(GOOD "metadata:\n"
                                       "  - {name: host, required: true, missing: no host given}\n"
                                       "  - {name: password, sensitive: true, type: int}\n"
                                       "  - {name: mode, type: enum, values: [fast, safe]}\n"
                                       "  - {name: ratio, type: float, default: '0.5'}\n"
                                       "  - {name: size, type: bytes, default: 4Mi}\n"
                                       "  - {name: tls, type: bool, default: 'no'}\n");
        struct metadata_item wrong[] = {{.name = "Password", .value = "geheim", .line = 7}, {.name = "mode", .value = "quick", .line = 8},
                                        {.name = "ratio", .value = "half", .line = 9},      {.name = "size", .value = "big", .line = 10},
                                        {.name = "tls", .value = "maybe", .line = 11},      {.name = "unknown", .value = "?", .line = 12}};
        struct component_spec s = spec(wrong, 6);
        const char *err = "";
        ck_assert_int_eq(manifest_check(m, &s, &A, &err), -22);
        ck_assert_str_eq(err, "c.yaml:7: metadata field 'Password' of state.x has a value that is not a whole number\n"
                              "c.yaml:8: metadata field 'mode' of state.x is 'quick', which is not one of the values that the plugin knows: fast, safe\n"
                              "c.yaml:9: metadata field 'ratio' of state.x is 'half', which is not a number\n"
                              "c.yaml:10: metadata field 'size' of state.x is 'big', which is not a size such as 4Mi or 1048576\n"
                              "c.yaml:11: metadata field 'tls' of state.x is 'maybe', which is not a boolean: true or false\n"
                              "no host given (metadata field 'host' of state.x, c.yaml:3)");
        struct metadata_item right[] = {{.name = "HOST", .value = "h"}, {.name = "mode", .value = "FAST"}, {.name = "tls", .value = ""},
                                        {.name = "size", .value = "1Gi"}, {.name = "keyPrefix", .value = "none"}};
        s = spec(right, 5);
        ck_assert_int_eq(manifest_check(m, &s, &A, &err), 0);
        struct buf b = {0};
        manifest_defaults(m, &s, default_found, &b);
        ck_assert(str_eq(buf_str(&b), STR("ratio=0.5;tls=no;")));
        buf_fini(&b);
        manifest_free(m);
}
END_TEST

START_TEST(kinds_take_what_the_reference_takes)
{
        static const struct {
                enum manifest_kind kind;
                const char *good[8], *bad[4];
        } rows[] = {
                {FIELD_STRING, {"", "anything"}, {NULL}},
                {FIELD_BOOL, {"true", "False", "yes", "off", "1", "t", " on "}, {"2", "ja"}},
                {FIELD_INT, {"0", "-5", "9223372036854775807"}, {"1.5", "x", "99999999999999999999"}},
                {FIELD_FLOAT, {"1", "-2.5e3", "0.1"}, {"nan", "x", "1,5"}},
                {FIELD_DURATION, {"30s", "1h2m", "1.5s", "20"}, {"5 apples", "s"}},
                {FIELD_BYTES, {"1024", "4Mi", "1G"}, {"4 Mi", "-"}},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct manifest_field f = {.name = "f", .kind = rows[i].kind};
                for (size_t k = 0; k < 8 && rows[i].good[k]; k++)
                        if (manifest_value_fault(&f, str_of(rows[i].good[k])))
                                ck_abort_msg("%s refuses '%s'", manifest_kind_name(f.kind), rows[i].good[k]);
                for (size_t k = 0; k < 4 && rows[i].bad[k]; k++)
                        if (!manifest_value_fault(&f, str_of(rows[i].bad[k])))
                                ck_abort_msg("%s takes '%s'", manifest_kind_name(f.kind), rows[i].bad[k]);
        }
}
END_TEST

START_TEST(a_required_field_that_is_misspelt_is_named)
{
        struct manifest *m = good(GOOD "metadata:\n  - {name: host, required: true, missing: no host given}\n"
                                       "  - {name: path, required: true, description: The file.}\n");
        struct metadata_item items[] = {{.name = "hots", .value = "h", .line = 7}, {.name = "pathh", .value = "p", .line = 8}, {.name = "other", .value = "?", .line = 9}};
        struct component_spec s = spec(items, 3);
        const char *err = "";
        ck_assert_int_eq(manifest_check(m, &s, &A, &err), -22);
        ck_assert_str_eq(err, "no host given (metadata field 'host' of state.x, c.yaml:3; 'hots' is given, which it does not know)\n"
                              "c.yaml:8: metadata field 'path' of state.x is missing; 'pathh' is given, which it does not know: The file.");
        manifest_free(m);
}
END_TEST

START_TEST(edits_are_counted_up_to_a_limit)
{
        ck_assert_uint_eq(edit_distance(STR("state.redis"), STR("state.Redis"), 2), 0);
        ck_assert_uint_eq(edit_distance(STR("state.redis"), STR("state.reddis"), 2), 1);
        ck_assert_uint_eq(edit_distance(STR("state.redis"), STR("state.rediss2"), 2), 2);
        ck_assert_uint_eq(edit_distance(STR("abc"), STR("xyz"), 2), 3);
        ck_assert_uint_eq(edit_distance(STR(""), STR("ab"), 2), 2);
}
END_TEST

START_TEST(every_shipped_manifest_is_good)
{
        static const char *const files[] = {"plugins/state.in-memory/plugin.yaml", "plugins/state.sqlite/plugin.yaml",
                                            "plugins/state.redis/plugin.yaml", "plugins/secretstores.local.file/plugin.yaml",
                                            "plugins/secretstores.local.env/plugin.yaml"};
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
                struct manifest *m;
                const char *err = "";
                int r = manifest_read(files[i], &m, &A, &err);
                if (r == -2)
                        continue; /* run from another folder */
                if (r)
                        ck_abort_msg("%s", err);
                manifest_free(m);
        }
}
END_TEST

int main(void)
{
        Suite *s = suite_create("manifest");
        TCase *t = tcase_create("manifest");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, reads_what_is_there_and_defaults_the_rest);
        tcase_add_test(t, serves_types_and_versions);
        tcase_add_test(t, faults_name_place_key_and_fix);
        tcase_add_test(t, a_missing_file_is_enoent);
        tcase_add_test(t, metadata_is_checked_field_by_field);
        tcase_add_test(t, kinds_take_what_the_reference_takes);
        tcase_add_test(t, a_required_field_that_is_misspelt_is_named);
        tcase_add_test(t, edits_are_counted_up_to_a_limit);
        tcase_add_test(t, every_shipped_manifest_is_good);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
