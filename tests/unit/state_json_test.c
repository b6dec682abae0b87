/* kernel/blocks: JSON bodies of the state API, messages to stores written by hand, secret scopes */
#include <check.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/front/json_fault.h"
#include "kernel/blocks/secrets.h"
#include "kernel/blocks/state_json.h"

#define ck_assert_str(s, z) ck_assert_msg(str_eqz((s), (z)), "\"%.*s\" is not \"%s\"", STR_FMT(s), (z))

static struct arena A;

static void setup(void)
{
        A = (struct arena){0};
}

static void teardown(void)
{
        arena_fini(&A);
}

/* ---- white space ---- */

static const char *const spaced[][2] = {
        {"1", "1"},
        {"{\"a\": 1,\n \"b\" : [ 1 , 2 ]\t}", "{\"a\":1,\"b\":[1,2]}"},
        {"\"a b\\\" c\"", "\"a b\\\" c\""},
        {"[\"x\\\\\" , \" \"]", "[\"x\\\\\",\" \"]"},
        {"[\"a longer string of plain text with a \\\" in it\" ,  \"and another one, quite long\" ]",
         "[\"a longer string of plain text with a \\\" in it\",\"and another one, quite long\"]"},
        {"\"\"", "\"\""},
};

START_TEST(white_space_goes_except_in_strings)
{
        struct str in = str_of(spaced[_i][0]), out = state_json_compact(&A, in);
        ck_assert_str(out, spaced[_i][1]);
        if (in.n == out.n)
                ck_assert_ptr_eq(out.p, in.p); /* nothing to do, nothing copied */
}
END_TEST

/* ---- items ---- */

static const char *read_one(const char *text, struct state_item *i)
{
        struct state_json j;
        state_json_begin(&j, &A, str_of(text));
        state_json_item(&j, i);
        return state_json_error(&j);
}

START_TEST(an_item_is_read_with_all_its_members)
{
        struct state_item i;
        ck_assert_ptr_null(read_one("{\"key\":\"k\",\"value\":{\"a\": [1]},\"etag\":\"e\",\"metadata\":{\"x\":\"1\",\"x\":\"2\"},"
                                    "\"options\":{\"concurrency\":\"first-write\",\"consistency\":\"strong\"},\"contentType\":\"t\","
                                    "\"other\":[{}]}", &i));
        ck_assert_str(i.key, "k");
        ck_assert_str(i.value, "{\"a\":[1]}");
        ck_assert(i.has_etag && i.is_json && !i.is_null);
        ck_assert_str(i.etag, "e");
        ck_assert_uint_eq(i.md.n, 1);
        ck_assert_str(i.md.v[0].value, "2");
        ck_assert_int_eq(i.concurrency, STATE_CONCURRENCY_FIRST_WRITE);
        ck_assert_int_eq(i.consistency, STATE_CONSISTENCY_STRONG);
        ck_assert_str(i.content_type, "t");
        ck_assert_ptr_null(i.bad_option);
}
END_TEST

START_TEST(names_have_no_case_and_null_is_nothing)
{
        struct state_item i;
        ck_assert_ptr_null(read_one("{\"Key\":\"a\",\"KEY\":\"k\",\"Value\":\"v\",\"etag\":null,\"metadata\":null,\"options\":null}", &i));
        ck_assert_str(i.key, "k");
        ck_assert_str(i.value, "\"v\"");
        ck_assert(!i.has_etag && i.md.n == 0);
        ck_assert_ptr_null(read_one("{}", &i));
        ck_assert(i.is_null && i.key.n == 0);
        ck_assert_str(i.value, "null");
        ck_assert_ptr_null(read_one("{\"value\":null}", &i));
        ck_assert(i.is_null);
}
END_TEST

START_TEST(unknown_options_are_kept_for_the_store_to_refuse)
{
        struct state_item i;
        ck_assert_ptr_null(read_one("{\"options\":{\"concurrency\":\"x\",\"consistency\":\"eventual\"}}", &i));
        ck_assert_str_eq(i.bad_option, "unrecognized concurrency model 'x'");
        ck_assert_int_eq(i.consistency, STATE_CONSISTENCY_EVENTUAL);
        ck_assert_ptr_null(read_one("{\"options\":{\"concurrency\":\"x\",\"consistency\":\"y\"}}", &i));
        ck_assert_str_eq(i.bad_option, "unrecognized consistency model 'y'");
}
END_TEST

static const char *const faults[][2] = {
        {"", "EOF"},
        {"[]", "json: cannot unmarshal array into Go value of type state.SetRequest"},
        {"{\"key\":1}", "json: cannot unmarshal number into Go struct field SetRequest.key of type string"},
        {"{\"etag\":true,\"key\":1}", "json: cannot unmarshal bool into Go struct field SetRequest.etag of type string"},
        {"{\"metadata\":{\"a\":1}}", "json: cannot unmarshal number into Go struct field SetRequest.metadata of type string"},
        {"{\"metadata\":[]}", "json: cannot unmarshal array into Go struct field SetRequest.metadata of type map[string]string"},
        {"{\"options\":\"x\"}", "json: cannot unmarshal string into Go struct field SetRequest.options of type state.SetStateOption"},
        {"{\"value\":tru}", "invalid character '}' in literal true (expecting 'e')"},
        {"{\"key\":\"a\",}", "invalid character '}' looking for beginning of object key string"},
        {"{\"key\":\"a\"", "unexpected EOF"},
};

START_TEST(what_is_wrong_is_said)
{
        struct state_item i;
        const char *why = read_one(faults[_i][0], &i);
        ck_assert_ptr_nonnull(why);
        ck_assert_str_eq(why, faults[_i][1]);
}
END_TEST

/* ---- the reference's words: text, what a decoder says, what a whole text's reader says ---- */

static const char *const json_faults[][3] = {
        {"", "EOF", "unexpected end of JSON input"},
        {" \n", "EOF", "unexpected end of JSON input"},
        {"[1,2", "unexpected EOF", "unexpected end of JSON input"},
        {"tru", "unexpected EOF", "invalid character ' ' in literal true (expecting 'e')"},
        {"1.", "unexpected EOF", "invalid character ' ' after decimal point in numeric literal"},
        {"1 2", NULL, "invalid character '2' after top-level value"},
        {"01", NULL, "invalid character '1' after top-level value"},
        {"foobar", "invalid character 'o' in literal false (expecting 'a')", NULL},
        {"[1,]", "invalid character ']' looking for beginning of value", NULL},
        {"[1 2]", "invalid character '2' after array element", NULL},
        {"{\"a\":1 2}", "invalid character '2' after object key:value pair", NULL},
        {"{\"a\" 1}", "invalid character '1' after object key", NULL},
        {"{a:1}", "invalid character 'a' looking for beginning of object key string", NULL},
        {"\"\\x\"", "invalid character 'x' in string escape code", NULL},
        {"\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape", NULL},
        {"\"a\nb\"", "invalid character '\\n' in string literal", NULL},
        {"-x", "invalid character 'x' in numeric literal", NULL},
        {"1e+x", "invalid character 'x' in exponent of numeric literal", NULL},
        {"\xc3", "invalid character '\xc3\x83' looking for beginning of value", NULL},
        {"'a'", "invalid character '\\'' looking for beginning of value", NULL},
};

START_TEST(faults_of_json_are_said_as_the_reference_says_them)
{
        const char *const *row = json_faults[_i];
        const char *decoder = json_fault(&A, str_of(row[0]), false), *whole = json_fault(&A, str_of(row[0]), true);
        ck_assert_pstr_eq(decoder, row[1]);
        ck_assert_pstr_eq(whole, row[2] ? row[2] : row[1]); /* NULL: both say the same */
}
END_TEST

START_TEST(good_json_has_no_fault)
{
        ck_assert_ptr_null(json_fault(&A, STR(" {\"a\":[1,-0.5e+3,true,null,\"\\u00fc\\n\",{}]} "), true));
        ck_assert_ptr_null(json_fault(&A, STR("[] trailing"), false));
        ck_assert_ptr_null(json_fault(&A, STR("12"), true));
}
END_TEST

START_TEST(queries_are_checked_as_the_reference_checks_them)
{
        static const char *const rows[][2] = {
                {"{\"filter\":{\"AND\":[{\"EQ\":{\"a\":1}},{\"OR\":[{\"IN\":{\"b\":[1]}},{\"GT\":{\"c\":1}}]}]},\"sort\":[{\"key\":\"k\",\"order\":\"DESC\"}]}", NULL},
                {"{}", NULL},
                {"null", NULL},
                {"{\"filter\":{\"OR\":[1,2]}}", "filter unit must be a map"},
                {"{\"filter\":{\"AND\":[{\"EQ\":{\"a\":1}},{}]}}", "filter unit must have a single element"},
                {"{\"filter\":{\"EQ\":{\"a\":1},\"NEQ\":{\"b\":1}}}", "filter unit must have a single element"},
                {"{\"filter\":{\"AND\":[{\"EQ\":{\"a\":1}}]}}", "AND filter must contain at least two entries"},
                {"{\"filter\":{\"OR\":{}}}", "OR filter must be an array"},
                {"{\"filter\":{\"EQ\":1}}", "EQ filter must be a map"},
                {"{\"filter\":{\"EQ\":{\"a\":1,\"b\":2}}}", "EQ filter must contain a single key/value pair"},
                {"{\"filter\":{\"IN\":{\"a\":1}}}", "IN filter value must be an array"},
                {"{\"filter\":{\"XX\":{}}}", "unsupported filter \"XX\""},
                {"{\"page\":{\"limit\":\"x\"}}", "json: cannot unmarshal string into Go struct field Pagination.page.limit of type int"},
                {"{} x", "invalid character 'x' after top-level value"},
                {"", "unexpected end of JSON input"},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                Dapr__Proto__Components__V1__Query q = DAPR__PROTO__COMPONENTS__V1__QUERY__INIT;
                Dapr__Proto__Components__V1__Pagination page = DAPR__PROTO__COMPONENTS__V1__PAGINATION__INIT;
                q.pagination = &page;
                ck_assert_pstr_eq(state_query_read(&A, rows[i][0], &q), rows[i][1]);
                if (i == 0)
                        ck_assert(q.n_filter == 1 && q.n_sort == 1 && q.sort[0]->order == DAPR__PROTO__COMPONENTS__V1__SORTING__ORDER__DESC);
        }
}
END_TEST

/* ---- messages ---- */

static struct state_item sample(void)
{
        struct state_item i = {.stored_key = STR("app||k"), .value = STR("v\0w"), .has_etag = true, .etag = STR("e"),
                               .concurrency = 1, .consistency = 2, .content_type = STR("text/plain")};
        rpc_md_add(&i.md, &A, STR("m"), STR("1"));
        rpc_md_add(&i.md, &A, STR("empty"), STR(""));
        return i;
}

START_TEST(requests_are_what_the_contract_says)
{
        struct state_item i = sample();
        const Dapr__Proto__Components__V1__SetRequest *set =
                pb_unpack(&A, &dapr__proto__components__v1__set_request__descriptor, state_pack_set_request(&A, &i));
        ck_assert_ptr_nonnull(set);
        ck_assert_str_eq(set->key, "app||k");
        ck_assert(set->value.len == 3 && !memcmp(set->value.data, "v\0w", 3));
        ck_assert_str_eq(set->etag->value, "e");
        ck_assert_uint_eq(set->n_metadata, 2);
        ck_assert_str_eq(set->metadata[0]->value, "1");
        ck_assert_str_eq(set->metadata[1]->key, "empty");
        ck_assert_int_eq(set->options->concurrency, 1);
        ck_assert_int_eq(set->options->consistency, 2);
        ck_assert_str_eq(set->content_type, "text/plain");
        const Dapr__Proto__Components__V1__DeleteRequest *del =
                pb_unpack(&A, &dapr__proto__components__v1__delete_request__descriptor, state_pack_delete_request(&A, &i));
        ck_assert(del && del->etag && del->n_metadata == 2 && del->options->consistency == 2);
        const Dapr__Proto__Components__V1__GetRequest *get =
                pb_unpack(&A, &dapr__proto__components__v1__get_request__descriptor, state_pack_get_request(&A, &i));
        ck_assert(get && get->consistency == 2 && get->n_metadata == 2);
        ck_assert_str_eq(get->key, "app||k");
}
END_TEST

START_TEST(an_empty_etag_is_not_no_etag)
{
        struct state_item i = {.stored_key = STR("k"), .has_etag = true};
        const Dapr__Proto__Components__V1__SetRequest *set =
                pb_unpack(&A, &dapr__proto__components__v1__set_request__descriptor, state_pack_set_request(&A, &i));
        ck_assert(set && set->etag && !*set->etag->value);
        i.has_etag = false;
        set = pb_unpack(&A, &dapr__proto__components__v1__set_request__descriptor, state_pack_set_request(&A, &i));
        ck_assert(set && !set->etag);
}
END_TEST

START_TEST(bulks_and_transactions_hold_their_items)
{
        struct state_item i[2] = {sample(), {.stored_key = STR("b"), .is_delete = true}};
        struct rpc_mdlist md = {0};
        rpc_md_add(&md, &A, STR("p"), STR("q"));
        const Dapr__Proto__Components__V1__BulkGetRequest *bulk = pb_unpack(
                &A, &dapr__proto__components__v1__bulk_get_request__descriptor, state_pack_bulk(&A, STATE_BULK_GET, i, 2, 300));
        ck_assert(bulk && bulk->n_items == 2 && bulk->options->parallelism == 300);
        bulk = pb_unpack(&A, &dapr__proto__components__v1__bulk_get_request__descriptor, state_pack_bulk(&A, STATE_BULK_GET, i, 0, -1));
        ck_assert(bulk && bulk->n_items == 0 && bulk->options->parallelism == -1);
        const Dapr__Proto__Components__V1__TransactionalStateRequest *tx =
                pb_unpack(&A, &dapr__proto__components__v1__transactional_state_request__descriptor, state_pack_transaction(&A, i, 2, &md));
        ck_assert(tx && tx->n_operations == 2 && tx->n_metadata == 1);
        ck_assert_str_eq(tx->operations[0]->set->key, "app||k");
        ck_assert_str_eq(tx->operations[1]->delete_->key, "b");
}
END_TEST

START_TEST(replies_are_read_in_place)
{
        Dapr__Proto__Components__V1__GetResponse m = DAPR__PROTO__COMPONENTS__V1__GET_RESPONSE__INIT;
        Dapr__Proto__Components__V1__Etag etag = DAPR__PROTO__COMPONENTS__V1__ETAG__INIT;
        Dapr__Proto__Components__V1__GetResponse__MetadataEntry e = DAPR__PROTO__COMPONENTS__V1__GET_RESPONSE__METADATA_ENTRY__INIT;
        Dapr__Proto__Components__V1__GetResponse__MetadataEntry *list[] = {&e};
        struct state_value v;
        m.data = pb_bytes(STR("data"));
        etag.value = "1";
        m.etag = &etag;
        e.key = "ttlExpireTime";
        e.value = "x";
        m.metadata = list;
        m.n_metadata = 1;
        struct str bytes = pb_pack(&A, &m.base);
        ck_assert_int_eq(state_read_get_response(&A, bytes, &v), 0);
        ck_assert_str(v.data, "data");
        ck_assert(v.data.p > bytes.p && v.data.p < bytes.p + bytes.n);
        ck_assert_str(v.etag, "1");
        ck_assert_str(rpc_md_get(&v.md, "ttlExpireTime"), "x");
        for (size_t n = 1; n < bytes.n; n++) /* cut anywhere: an error or a shorter message, never more */
                state_read_get_response(&A, str_n(bytes.p, n), &v);
        ck_assert_int_eq(state_read_get_response(&A, STR(""), &v), 0);
        ck_assert(!v.has_etag && !v.data.n);
        ck_assert_int_ne(state_read_get_response(&A, STR("\x0a\xff\xff"), &v), 0);
}
END_TEST

START_TEST(bulk_replies_keep_their_order)
{
        struct state_value *v;
        size_t n;
        ck_assert_int_eq(state_read_bulk_response(&A, STR("\x0a\x06\x0a\x01" "a" "\x12\x01" "1" "\x0a\x06\x0a\x01" "b" "\x22\x01" "e"), &v, &n), 0);
        ck_assert_uint_eq(n, 2);
        ck_assert_str(v[0].key, "a");
        ck_assert_str(v[0].data, "1");
        ck_assert_str(v[1].error, "e");
        ck_assert_int_ne(state_read_bulk_response(&A, STR("\x0a\x06\x0a"), &v, &n), 0);
}
END_TEST

/* ---- secret scopes ---- */

START_TEST(scopes_allow_by_list_then_by_default)
{
        const char *ab[] = {"a", "b"};
        struct secret_scope none = {0}, deny = {.default_access = "Deny"}, listed = {.default_access = "deny", .allowed = ab, .n_allowed = 2},
                            but = {.default_access = "allow", .denied = ab, .n_denied = 2};
        ck_assert(secret_scope_allows(&none, "x"));
        ck_assert(!secret_scope_allows(&deny, "x"));
        ck_assert(secret_scope_allows(&listed, "b") && !secret_scope_allows(&listed, "c"));
        ck_assert(!secret_scope_allows(&but, "a") && secret_scope_allows(&but, "c"));
}
END_TEST

int main(void)
{
        Suite *s = suite_create("state messages");
        TCase *t = tcase_create("json and wire");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_loop_test(t, white_space_goes_except_in_strings, 0, sizeof spaced / sizeof *spaced);
        tcase_add_test(t, an_item_is_read_with_all_its_members);
        tcase_add_test(t, names_have_no_case_and_null_is_nothing);
        tcase_add_test(t, unknown_options_are_kept_for_the_store_to_refuse);
        tcase_add_loop_test(t, what_is_wrong_is_said, 0, sizeof faults / sizeof *faults);
        tcase_add_loop_test(t, faults_of_json_are_said_as_the_reference_says_them, 0, sizeof json_faults / sizeof *json_faults);
        tcase_add_test(t, good_json_has_no_fault);
        tcase_add_test(t, queries_are_checked_as_the_reference_checks_them);
        tcase_add_test(t, requests_are_what_the_contract_says);
        tcase_add_test(t, an_empty_etag_is_not_no_etag);
        tcase_add_test(t, bulks_and_transactions_hold_their_items);
        tcase_add_test(t, replies_are_read_in_place);
        tcase_add_test(t, bulk_replies_keep_their_order);
        tcase_add_test(t, scopes_allow_by_list_then_by_default);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
