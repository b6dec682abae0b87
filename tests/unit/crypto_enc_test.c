/* kernel/blocks: the document format dapr.io/enc/v1; personal data in texts */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/crypto_enc.h"
#include "kernel/blocks/pii.h"

#define ck_assert_str(s, z) ck_assert_msg(str_eqz((s), (z)), "\"%.*s\" is not \"%s\"", STR_FMT(s), (z))

static const uint8_t prefix[ENC_NONCE_PREFIX_BYTES] = {1, 2, 3, 4, 5, 6, 7};
static uint8_t file_key[ENC_FILE_KEY_BYTES];

static void unhex(const char *hex, uint8_t *to, size_t n)
{
        ck_assert_int_eq(sodium_hex2bin(to, n, hex, strlen(hex), NULL, NULL, NULL), 0);
}

static void make_keys(struct enc_keys *k, enum enc_cipher cipher)
{
        unhex("4ae3be77186824592c9b6aa625f6ac1ba16fddf60359f3342e6761883a1f82d4", file_key, sizeof file_key);
        ck_assert_int_eq(enc_keys_init(k, file_key, prefix, cipher), 0);
}

START_TEST(keys_are_those_of_other_implementations)
{
        struct enc_keys k;
        uint8_t header[32], payload[32];
        make_keys(&k, ENC_AES_GCM);
        unhex("f702256c0abd7ed84ebee9f897abfbf8e5ad4d5fc19e7907e3e6844be1a24189", header, 32);
        unhex("8cbcf6b6b426c7291e8e1d9f0d8989a20fe93cb38ca8513db1a2b08fa2ecb883", payload, 32);
        ck_assert_mem_eq(k.header, header, 32);
        ck_assert_mem_eq(k.payload, payload, 32);
        enc_keys_fini(&k);
        ck_assert(sodium_is_zero(k.payload, 32));
}
END_TEST

START_TEST(a_header_is_read_as_it_was_written)
{
        struct arena a = {0};
        struct enc_keys k;
        struct enc_manifest m = {STR("my<key>"), 1, STR("wrapped"), ENC_CHACHA20_POLY1305, {1, 2, 3, 4, 5, 6, 7}}, back;
        struct enc_header h;
        struct str text;
        const char *err;
        bool ok;
        make_keys(&k, m.cipher);
        ck_assert_int_eq(enc_header_write(&a, &m, &k, &text), 0);
        for (size_t n = 0; n < text.n; n++)
                ck_assert_int_eq(enc_header_find(str_n(text.p, n), false, &h, &err), -EAGAIN);
        ck_assert_int_eq(enc_header_find(text, false, &h, &err), 0);
        ck_assert_uint_eq(h.n, text.n);
        ck_assert_str(h.manifest, "{\"k\":\"my\\u003ckey\\u003e\",\"kw\":1,\"wfk\":\"d3JhcHBlZA==\",\"cph\":2,\"np\":\"AQIDBAUGBw==\"}");
        ck_assert_int_eq(enc_manifest_read(&a, h.manifest, &back), 0);
        ck_assert_str(back.key_name, "my<key>");
        ck_assert_str(back.wrapped_key, "wrapped");
        ck_assert_int_eq(enc_header_verify(&a, &h, &k, &ok, &err), 0);
        ck_assert(ok);
        k.header[0] ^= 1;
        ck_assert_int_eq(enc_header_verify(&a, &h, &k, &ok, &err), 0);
        ck_assert(!ok);
        arena_fini(&a);
}
END_TEST

START_TEST(a_key_name_that_is_too_long_is_refused)
{
        static char name[ENC_HEADER_MAX_BYTES];
        struct arena a = {0};
        struct enc_keys k;
        struct enc_manifest m = {{name, sizeof name}, 1, STR("x"), ENC_AES_GCM, {0}};
        struct str text;
        memset(name, 'a', sizeof name);
        make_keys(&k, m.cipher);
        ck_assert_int_eq(enc_header_write(&a, &m, &k, &text), -EMSGSIZE);
        arena_fini(&a);
}
END_TEST

static const char *const bad_manifests[] = {
        "", "{}", "[]", "null", "{\"kw\":1,\"wfk\":\"AQID\",\"cph\":1,\"np\":\"AQIDBAUGBw==\"", "{\"kw\":0,\"wfk\":\"AQID\",\"cph\":1,\"np\":\"AQIDBAUGBw==\"}",
        "{\"kw\":6,\"wfk\":\"AQID\",\"cph\":1,\"np\":\"AQIDBAUGBw==\"}", "{\"kw\":1,\"wfk\":\"\",\"cph\":1,\"np\":\"AQIDBAUGBw==\"}",
        "{\"kw\":1,\"wfk\":\"AQID\",\"cph\":3,\"np\":\"AQIDBAUGBw==\"}", "{\"kw\":1,\"wfk\":\"AQID\",\"cph\":1,\"np\":\"AQIDBAUG\"}",
        "{\"kw\":\"1\",\"wfk\":\"AQID\",\"cph\":1,\"np\":\"AQIDBAUGBw==\"}", "{\"kw\":1,\"wfk\":\"!\",\"cph\":1,\"np\":\"AQIDBAUGBw==\"}",
        "{\"kw\":1,\"wfk\":\"AQID\",\"cph\":1,\"np\":\"AQIDBAUGBw==\"} x",
};

START_TEST(manifests_that_are_wrong_are_refused)
{
        struct arena a = {0};
        struct enc_manifest m;
        ck_assert_int_eq(enc_manifest_read(&a, str_of(bad_manifests[_i]), &m), -EBADMSG);
        arena_fini(&a);
}
END_TEST

START_TEST(a_segment_opens_only_in_its_place)
{
        struct enc_keys k;
        uint8_t data[100 + ENC_TAG_BYTES] = "text", copy[sizeof data];
        make_keys(&k, _i ? ENC_AES_GCM : ENC_CHACHA20_POLY1305);
        enc_seal(&k, data, 100, 7, false);
        memcpy(copy, data, sizeof data);
        ck_assert(!enc_open(&k, copy, sizeof copy, 8, false));
        memcpy(copy, data, sizeof data);
        ck_assert(!enc_open(&k, copy, sizeof copy, 7, true));
        memcpy(copy, data, sizeof data);
        ck_assert(!enc_open(&k, copy, sizeof copy - 1, 7, false));
        ck_assert(!enc_open(&k, copy, ENC_TAG_BYTES - 1, 7, false));
        ck_assert(enc_open(&k, data, sizeof data, 7, false));
        ck_assert_str_eq((char *)data, "text");
}
END_TEST

/* ---- personal data ---- */

static const struct {
        const char *text, *scrubbed;
} texts[] = {
        {"nothing here", "nothing here"},
        {"", ""},
        {"call +2222222222", "call <PHONE_NUMBER>"},
        {"at test@test.com or b@c.de", "at <EMAIL_ADDRESS> or <EMAIL_ADDRESS>"},
        {"from 10.8.9.1", "from <IP>"},
        {"my ssn is 123-45-6789", "my ssn is <US_SSN>"},
        {"P.O. Box 123", "<PO_BOX>"},
        {"card 4111 1111 1111 1111.", "card <CREDIT_CARD>."},
        {"GB82WEST12345698765432", "<IBAN>"},
        {"see https://example.com/a/12345 please", "see https://example.com/a/12345 please"},
        {"4111-1111-1111-1111 90210-1234 10.0.0.1", "<CREDIT_CARD> <ZIP_CODE> <IP>"},
        {"DE8937040044053201300000:1B:44:11:3A:B7", "<IBAN><MAC_ADDRESS>"},
        {"\xff\xfe 10.0.0.1", "\xff\xfe <IP>"},
};

START_TEST(personal_data_gives_way)
{
        struct arena a = {0};
        struct pii *p;
        struct str out;
        ck_assert_int_eq(pii_new(&p), 0);
        ck_assert_int_eq(pii_scrub(p, str_of(texts[_i].text), &a, &out), 0);
        ck_assert_str(out, texts[_i].scrubbed);
        pii_free(p);
        arena_fini(&a);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("documents and personal data");
        TCase *d = tcase_create("documents"), *p = tcase_create("personal data");
        tcase_add_test(d, keys_are_those_of_other_implementations);
        tcase_add_test(d, a_header_is_read_as_it_was_written);
        tcase_add_test(d, a_key_name_that_is_too_long_is_refused);
        tcase_add_loop_test(d, manifests_that_are_wrong_are_refused, 0, sizeof bad_manifests / sizeof *bad_manifests);
        tcase_add_loop_test(d, a_segment_opens_only_in_its_place, 0, 2);
        tcase_add_loop_test(p, personal_data_gives_way, 0, sizeof texts / sizeof *texts);
        suite_add_tcase(s, d);
        suite_add_tcase(s, p);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
