/* kernel/blocks/pubsub: CloudEvents, topic scopes; kernel/resources: subscriptions from JSON. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/pubsub.h"
#include "sdk/base/json.h"

#define ck_assert_str(s, z) ck_assert_msg(str_eqz((s), (z)), "\"%.*s\" is not \"%s\"", STR_FMT(s), (z))

static struct arena A;
static struct buf B;

static void setup(void)
{
        A = (struct arena){0};
        B = (struct buf){0};
}

static void teardown(void)
{
        buf_fini(&B);
        arena_fini(&A);
}

static struct event wrapped(const struct event_new *n)
{
        const char *err = NULL;
        struct event e;

        buf_clear(&B);
        ck_assert_msg(event_write(&B, &A, n, &err) == 0, "%s", err ? err : "?");
        ck_assert_int_eq(event_read(&A, buf_str(&B), &e, &err), 0);
        return e;
}

/* ---- wrapping ---- */

static const struct {
        const char *content_type, *data, *member, *value;
} payloads[] = {
        {"application/json", "{\"a\": 1}", "data", "{\"a\": 1}"},
        {"application/json; charset=utf-8", "[1,2]", "data", "[1,2]"},
        {"APPLICATION/JSON", "7 and more", "data", "7"},
        {"application/json", "{broken", "data", "\"{broken\""},
        {"application/json", "", "data", "\"\""},
        {"text/plain", "he\"llo", "data", "\"he\\\"llo\""},
        {"", "hi", "data", "\"hi\""},
        {"application/xml", "<a/>", "data", "\"<a/>\""},
        {"application/octet-stream", "hi", "data_base64", "\"aGk=\""},
        {"application/cloudevents+protobuf", "hi", "data_base64", "\"aGk=\""},
        {"application/x-protobuf", "hi", "data", "\"hi\""},
        {"image/png", "hi", "data", "\"hi\""},
};

START_TEST(data_goes_into_the_event_by_its_content_type)
{
        struct event_new n = {.topic = STR("t"), .pubsub = STR("p"), .content_type = str_of(payloads[_i].content_type),
                              .data = str_of(payloads[_i].data)};
        struct event e = wrapped(&n);
        bool base64 = !strcmp(payloads[_i].member, "data_base64");

        ck_assert_str(e.raw[base64 ? EVENT_DATA_BASE64 : EVENT_DATA], payloads[_i].value);
        ck_assert_ptr_null(e.raw[base64 ? EVENT_DATA : EVENT_DATA_BASE64].p);
        ck_assert_str(event_text(&A, &e, EVENT_DATACONTENTTYPE), payloads[_i].content_type[0] ? payloads[_i].content_type : "text/plain");
        ck_assert_str(event_text(&A, &e, EVENT_SOURCE), "Dapr");
        ck_assert_str(event_text(&A, &e, EVENT_TYPE), "com.dapr.event.sent");
        ck_assert_str(event_text(&A, &e, EVENT_SPECVERSION), "1.0");
        ck_assert_uint_eq(event_text(&A, &e, EVENT_ID).n, UUID_CHARS);
}
END_TEST

START_TEST(metadata_overrides_attributes_without_case)
{
        struct rpc_md md[] = {{STR("CloudEvent.Id"), STR("i")}, {STR("cloudevent.source"), STR("s")}, {STR("cloudevent.TYPE"), STR("ty")},
                              {STR("cloudevent.subject"), STR("su")}, {STR("cloudevent.traceparent"), STR("tp")},
                              {STR("cloudevent.data"), STR("no")}};
        struct rpc_mdlist list = {md, 6, 6};
        struct event_new n = {.topic = STR("t"), .pubsub = STR("p"), .traceid = STR("ti"), .data = STR("x")};

        event_override(&n, &list);
        struct event e = wrapped(&n);
        ck_assert_str(event_text(&A, &e, EVENT_ID), "i");
        ck_assert_str(event_text(&A, &e, EVENT_SOURCE), "s");
        ck_assert_str(event_text(&A, &e, EVENT_TYPE), "ty");
        ck_assert_str(event_text(&A, &e, EVENT_SUBJECT), "su");
        ck_assert_str(event_text(&A, &e, EVENT_TRACEID), "tp");
        ck_assert_str(event_text(&A, &e, EVENT_TRACEPARENT), "tp");
        ck_assert_str(event_text(&A, &e, EVENT_DATA), "x");
}
END_TEST

START_TEST(an_event_passes_through_with_its_gaps_filled)
{
        struct event_new n = {.topic = STR("t"), .pubsub = STR("p"), .content_type = STR("application/cloudevents+json; x=y"),
                              .traceid = STR("tr"), .data = STR("{\"id\":\"1\",\"topic\":\"other\",\"type\":null,\"x\":{\"y\": [1]},"
                                                                "\"traceparent\":\"old\"} rest")};
        struct event e = wrapped(&n);

        ck_assert_str(event_text(&A, &e, EVENT_ID), "1");
        ck_assert_str(event_text(&A, &e, EVENT_TOPIC), "t");
        ck_assert_str(event_text(&A, &e, EVENT_PUBSUBNAME), "p");
        ck_assert_str(event_text(&A, &e, EVENT_TYPE), "com.dapr.event.sent");
        ck_assert_str(event_text(&A, &e, EVENT_SOURCE), "Dapr");
        ck_assert_str(event_text(&A, &e, EVENT_TRACEPARENT), "tr");
        ck_assert_str(event_path(&A, &e, STR("x.y")), "[1]");
        ck_assert_ptr_null(event_path(&A, &e, STR("x.z")).p);
        ck_assert(json_valid(e.json));
}
END_TEST

static const struct {
        const char *data, *error;
} faults[] = {
        {"", "EOF"},
        {"[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"},
        {"\"x\"", "json: cannot unmarshal string into Go value of type map[string]interface {}"},
        {"{\"a\"", "unexpected EOF"},
        {"nope", "invalid character 'o' in literal null (expecting 'u')"},
};

START_TEST(what_is_no_event_is_refused_in_the_words_of_the_reference)
{
        struct event_new n = {.content_type = STR("application/cloudevents+json"), .data = str_of(faults[_i].data)};
        const char *err = NULL;

        ck_assert_int_eq(event_write(&B, &A, &n, &err), -EINVAL);
        ck_assert_str_eq(err, faults[_i].error);
}
END_TEST

START_TEST(raw_bytes_become_an_event_with_the_trace_of_their_message)
{
        struct rpc_md md[] = {{STR("traceid"), STR("a")}, {STR("traceparent"), STR("b")}};
        struct rpc_mdlist list = {md, 2, 2};
        struct event e;
        const char *err;

        ck_assert_int_eq(event_write_raw(&B, &A, STR("\0\xff"), STR("t"), STR("p"), &list), 0);
        ck_assert_int_eq(event_read(&A, buf_str(&B), &e, &err), 0);
        ck_assert_str(event_text(&A, &e, EVENT_DATA_BASE64), "AP8=");
        ck_assert_str(event_text(&A, &e, EVENT_DATACONTENTTYPE), "application/octet-stream");
        ck_assert_str(event_text(&A, &e, EVENT_TRACEID), "b");
        ck_assert_str(event_trace(&A, &e), "b");
}
END_TEST

static const struct {
        const char *text;
        int64_t ns; /* -1 = does not count */
} ttls[] = {{"10", 10000000000}, {"1m", 60000000000}, {"1.5s", 1500000000}, {"-5s", 0}, {"0", 0}, {"-1", -1}, {"x", -1}, {"", -1},
            {"99999999999999999", INT64_MAX}};

START_TEST(ttl_is_seconds_or_a_duration)
{
        struct rpc_md md = {STR("ttlInSeconds"), str_of(ttls[_i].text)};
        struct rpc_mdlist list = {&md, 1, 1};
        int64_t ns = -1;

        ck_assert_int_eq(event_ttl(&list, &ns), ttls[_i].ns >= 0);
        ck_assert_int_eq(ns, ttls[_i].ns);
}
END_TEST

START_TEST(an_event_expires)
{
        struct event_new n = {.topic = STR("t"), .pubsub = STR("p"), .data = STR("x"), .has_ttl = true, .ttl_ns = -5000000000};
        struct event e = wrapped(&n);

        ck_assert(event_has_expired(&A, &e));
        n.ttl_ns = 60000000000;
        e = wrapped(&n);
        ck_assert(!event_has_expired(&A, &e));
        n.has_ttl = false;
        e = wrapped(&n);
        ck_assert(!event_has_expired(&A, &e));
}
END_TEST

START_TEST(extensions_are_what_has_no_field)
{
        struct event e;
        const char *err;
        struct event_add add[] = {{"new", STR("1"), false}, {"id", STR("2"), false}, {"type", STR("3"), true}, {"none", STR_NULL, true}};

        ck_assert_int_eq(event_read(&A, STR("{\"id\":\"a\",\"type\":\"b\",\"x\":1,\"topic\":\"t\",\"data\":{}}"), &e, &err), 0);
        ck_assert_str(event_extensions(&A, &e), "{\"x\":1,\"topic\":\"t\"}");
        ck_assert_int_eq(event_extend(&A, &e, add, 4), 0);
        ck_assert_str(e.json, "{\"id\":\"a\",\"x\":1,\"topic\":\"t\",\"data\":{},\"new\":\"1\",\"type\":\"3\"}");
        ck_assert_str_eq(event_show(&A, &e, EVENT_SUBJECT), "<nil>");
}
END_TEST

START_TEST(text_that_is_no_utf8_is_replaced)
{
        struct event e;
        const char *err;

        ck_assert_int_eq(event_read(&A, STR("{\"id\":\"a\xff\",\"data\":1}"), &e, &err), 0);
        ck_assert_str(event_text(&A, &e, EVENT_ID), "a\xef\xbf\xbd");
}
END_TEST

START_TEST(raw_payload_is_a_boolean_of_go)
{
        struct rpc_md md = {STR("rawPayload"), STR("T")};
        struct rpc_mdlist list = {&md, 1, 1};
        const char *err = NULL;
        bool raw;

        ck_assert_int_eq(event_is_raw(&list, &A, &raw, &err), 0);
        ck_assert(raw);
        md.value = STR("yes");
        ck_assert_int_eq(event_is_raw(&list, &A, &raw, &err), -EINVAL);
        ck_assert_str_eq(err, "rawPayload value must be a valid boolean: actual is 'yes'");
}
END_TEST

/* ---- scopes ---- */

START_TEST(scopes_are_lists_of_topics_for_an_app)
{
        struct topic_list l;

        ck_assert_int_eq(topics_of_app(&A, "a=t1, t2,t1;b=;c=t3=x", "a", &l), 0);
        ck_assert_uint_eq(l.n, 2);
        ck_assert_str(l.v[1], "t2");
        ck_assert_int_eq(topics_of_app(&A, "a=t1;b=", "b", &l), 0);
        ck_assert_uint_eq(l.n, 1); /* one topic without a name: nothing is allowed */
        ck_assert_int_eq(topics_of_app(&A, "a=t1", "x", &l), 0);
        ck_assert_uint_eq(l.n, 0);
}
END_TEST

START_TEST(a_topic_must_be_allowed_and_a_protected_one_granted)
{
        struct broker b = {0};
        struct topic_list none = {0}, some;

        ck_assert(broker_allows(&b, STR("t"), &none));
        topics_of(&A, "t,u", &b.allowed);
        ck_assert(broker_allows(&b, STR("t"), &none));
        ck_assert(!broker_allows(&b, STR("v"), &none));
        topics_of(&A, "u", &b.protected_);
        ck_assert(!broker_allows(&b, STR("u"), &none));
        topics_of(&A, "u", &some);
        ck_assert(broker_allows(&b, STR("u"), &some));
        ck_assert(!broker_allows(&b, STR("t"), &some));
}
END_TEST

/* ---- subscriptions ---- */

START_TEST(an_apps_list_has_routes_of_both_forms)
{
        struct subscription_spec **v;
        const char *err = NULL;
        size_t n;
        struct str json = STR("[{\"PubsubName\":\"p\",\"topic\":\"a\",\"route\":\"/a\",\"metadata\":{\"k\":\"v\"}},"
                              "{\"pubsubname\":\"p\",\"topic\":\"b\",\"routes\":{\"rules\":[{\"match\":\"true\",\"path\":\"/x\"}],\"default\":\"/d\"},"
                              "\"bulkSubscribe\":{\"enabled\":true,\"maxMessagesCount\":5},\"deadLetterTopic\":\"dl\"},"
                              "{\"pubsubname\":\"p\",\"topic\":\"c\"}]");

        ck_assert_int_eq(subscription_read_list(&A, json, &v, &n, &err), 0);
        ck_assert_uint_eq(n, 3);
        ck_assert_str_eq(v[0]->pubsub, "p");
        ck_assert_str_eq(v[0]->rules[0].path, "/a");
        ck_assert_str_eq(subscription_metadata(v[0], "k"), "v");
        ck_assert_uint_eq(v[1]->n_rules, 2);
        ck_assert_str_eq(v[1]->rules[1].match, "");
        ck_assert_str_eq(v[1]->rules[1].path, "/d");
        ck_assert(v[1]->bulk);
        ck_assert_int_eq(v[1]->bulk_max_messages, 5);
        ck_assert_str_eq(v[1]->dead_letter, "dl");
        ck_assert_uint_eq(v[2]->n_rules, 0);
}
END_TEST

static const struct {
        const char *json;
        int r;
} lists[] = {{"", 0}, {"null", 0}, {"[]", 0}, {"{}", -EINVAL}, {"[1]", -EINVAL}, {"[{\"topic\":1}]", -EINVAL}, {"[{", -EINVAL},
             {"[{\"routes\":{\"rules\":7}}]", -EINVAL}, {"[{\"metadata\":{\"a\":1}}]", -EINVAL}};

START_TEST(a_wrong_list_is_an_error)
{
        struct subscription_spec **v;
        const char *err = NULL;
        size_t n;

        ck_assert_int_eq(subscription_read_list(&A, str_of(lists[_i].json), &v, &n, &err), lists[_i].r);
        ck_assert(lists[_i].r == 0 || err);
}
END_TEST

#define N(a) ((int)(sizeof(a) / sizeof *(a)))

int main(void)
{
        Suite *s = suite_create("pubsub");
        TCase *t = tcase_create("all");

        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_loop_test(t, data_goes_into_the_event_by_its_content_type, 0, N(payloads));
        tcase_add_test(t, metadata_overrides_attributes_without_case);
        tcase_add_test(t, an_event_passes_through_with_its_gaps_filled);
        tcase_add_loop_test(t, what_is_no_event_is_refused_in_the_words_of_the_reference, 0, N(faults));
        tcase_add_test(t, raw_bytes_become_an_event_with_the_trace_of_their_message);
        tcase_add_loop_test(t, ttl_is_seconds_or_a_duration, 0, N(ttls));
        tcase_add_test(t, an_event_expires);
        tcase_add_test(t, extensions_are_what_has_no_field);
        tcase_add_test(t, text_that_is_no_utf8_is_replaced);
        tcase_add_test(t, raw_payload_is_a_boolean_of_go);
        tcase_add_test(t, scopes_are_lists_of_topics_for_an_app);
        tcase_add_test(t, a_topic_must_be_allowed_and_a_protected_one_granted);
        tcase_add_test(t, an_apps_list_has_routes_of_both_forms);
        tcase_add_loop_test(t, a_wrong_list_is_an_error, 0, N(lists));
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? 1 : 0;
}
