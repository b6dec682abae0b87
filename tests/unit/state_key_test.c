/* kernel/blocks: prefixes of state keys, encryption of values */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/encryption.h"
#include "kernel/blocks/state_key.h"

#define ck_assert_str(s, z) ck_assert_msg(str_eqz((s), (z)), "\"%.*s\" is not \"%s\"", STR_FMT(s), (z))

/* ---- prefixes ---- */

static const struct {
        const char *strategy, *app_id, *namespace_, *prefix;
} prefixes[] = {
        {NULL, "app", "", "app||"},          {"appid", "app", "ns", "app||"},      {"AppID", "app", "", "app||"},
        {NULL, "", "", ""},                  {"name", "app", "ns", "store||"},     {"none", "app", "ns", ""},
        {"namespace", "app", "ns", "ns.app||"}, {"namespace", "app", "", "app||"}, {"namespace", "", "ns", ""},
        {"MyPrefix", "app", "ns", "myprefix||"}, {"", "app", "ns", "||"},
};

START_TEST(the_strategy_makes_the_prefix)
{
        struct arena a = {0};
        struct state_key_scope scope = {prefixes[_i].app_id, prefixes[_i].namespace_, "store"};
        ck_assert_str(state_key_prefix(&a, prefixes[_i].strategy, &scope), prefixes[_i].prefix);
        arena_fini(&a);
}
END_TEST

START_TEST(a_key_may_not_hold_the_separator)
{
        ck_assert(state_key_is_legal(STR("a|b")));
        ck_assert(state_key_is_legal(STR("")));
        ck_assert(!state_key_is_legal(STR("a||b")));
        ck_assert(!state_key_is_legal(STR("||")));
}
END_TEST

START_TEST(the_app_sees_the_part_between_the_separators)
{
        ck_assert_str(state_key_original(STR("app||key")), "key");
        ck_assert_str(state_key_original(STR("key")), "key");
        ck_assert_str(state_key_original(STR("app||key||more")), "key");
        ck_assert_str(state_key_original(STR("app||")), "");
        ck_assert_str(state_key_original(STR("")), "");
}
END_TEST

/* ---- encryption ---- */

static struct encryption_key *key(const char *name, const char *hex)
{
        struct arena a = {0};
        struct encryption_key *k = NULL;
        const char *err = NULL;
        ck_assert_int_eq(encryption_key_new(&k, name, hex, &a, &err), 0);
        arena_fini(&a);
        return k;
}

#define KEY16 "000102030405060708090a0b0c0d0e0f"
#define KEY24 KEY16 "1011121314151617"
#define KEY32 KEY16 KEY16

START_TEST(a_value_survives_encryption_with_each_key_length)
{
        const char *hex[] = {KEY16, KEY24, KEY32};
        const char *values[] = {"", "x", "\"a longer value of more than one block of sixteen bytes\""};
        struct arena a = {0};
        struct encryption e = {.primary = key("k", hex[_i])};
        const char *err;
        struct str enc, again, dec;
        for (size_t i = 0; i < 3; i++) {
                ck_assert_int_eq(encryption_encrypt(&e, &a, str_of(values[i]), &enc), 0);
                ck_assert_int_eq(encryption_encrypt(&e, &a, str_of(values[i]), &again), 0);
                ck_assert(!str_eq(enc, again)); /* a new nonce each time */
                ck_assert(str_has_suffix(enc, STR("||k")));
                ck_assert_int_eq(encryption_decrypt(&e, &a, "s", enc, &dec, &err), 0);
                ck_assert_str(dec, values[i]);
        }
        encryption_fini(&e);
        arena_fini(&a);
}
END_TEST

/* Nonce 000102…0b, AES-128-GCM of "value1" under KEY16, made by two other implementations. */
START_TEST(values_of_other_writers_are_read)
{
        struct arena a = {0};
        struct encryption e = {.primary = key("k", KEY16)};
        struct str dec;
        const char *err = NULL;
        ck_assert_msg(encryption_decrypt(&e, &a, "s", STR("AAECAwQFBgcICQoL5Q3LuwMq90P3NKPcwPMMPZ7O4HShuw==||k"), &dec, &err) == 0, "%s", err);
        ck_assert_str(dec, "value1");
        encryption_fini(&e);
        arena_fini(&a);
}
END_TEST

START_TEST(old_values_are_read_with_the_secondary_key)
{
        struct arena a = {0};
        struct encryption old = {.primary = key("old", KEY16)}, e = {.primary = key("new", KEY32), .secondary = key("old", KEY16)};
        struct str enc, dec;
        const char *err;
        ck_assert_int_eq(encryption_encrypt(&old, &a, STR("v"), &enc), 0);
        ck_assert_int_eq(encryption_decrypt(&e, &a, "s", enc, &dec, &err), 0);
        ck_assert_str(dec, "v");
        ck_assert_int_eq(encryption_decrypt(&(struct encryption){.primary = e.primary}, &a, "s", enc, &dec, &err), -EBADMSG);
        ck_assert_str_eq(err, "could not decrypt data for state store s: no encryption key is named old");
        encryption_fini(&old);
        encryption_fini(&e);
        arena_fini(&a);
}
END_TEST

START_TEST(what_was_not_written_so_is_refused)
{
        static const char *const bad[] = {"plain", "plain||", "AAAA||k", "????????????????????????????????????????||k",
                                          "AAECAwQFBgcICQoLAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==||k"};
        struct arena a = {0};
        struct encryption e = {.primary = key("k", KEY16)};
        struct str dec;
        const char *err;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                err = NULL;
                ck_assert_int_eq(encryption_decrypt(&e, &a, "s", str_of(bad[i]), &dec, &err), -EBADMSG);
                ck_assert_ptr_nonnull(err);
        }
        ck_assert_int_eq(encryption_decrypt(&e, &a, "s", STR(""), &dec, &err), 0);
        ck_assert_uint_eq(dec.n, 0);
        encryption_fini(&e);
        arena_fini(&a);
}
END_TEST

START_TEST(keys_must_be_hex_of_a_good_length)
{
        static const char *const bad[][2] = {{"0", "encoding/hex: odd length hex string"},
                                             {"zz", "encoding/hex: invalid byte: U+007A at position 0"},
                                             {"00", "crypto/aes: invalid key size 1"},
                                             {KEY32 "00", "crypto/aes: invalid key size 33"},
                                             {"", "crypto/aes: invalid key size 0"}};
        struct arena a = {0};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                struct encryption_key *k = NULL;
                const char *err = NULL;
                ck_assert_int_eq(encryption_key_new(&k, "k", bad[i][0], &a, &err), -EINVAL);
                ck_assert_str_eq(err, bad[i][1]);
        }
        encryption_key_free(NULL);
        arena_fini(&a);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("state keys and encryption");
        TCase *k = tcase_create("keys"), *e = tcase_create("encryption");
        tcase_add_loop_test(k, the_strategy_makes_the_prefix, 0, sizeof prefixes / sizeof *prefixes);
        tcase_add_test(k, a_key_may_not_hold_the_separator);
        tcase_add_test(k, the_app_sees_the_part_between_the_separators);
        tcase_add_loop_test(e, a_value_survives_encryption_with_each_key_length, 0, 3);
        tcase_add_test(e, values_of_other_writers_are_read);
        tcase_add_test(e, old_values_are_read_with_the_secondary_key);
        tcase_add_test(e, what_was_not_written_so_is_refused);
        tcase_add_test(e, keys_must_be_hex_of_a_good_length);
        suite_add_tcase(s, k);
        suite_add_tcase(s, e);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
