/* kernel/front/errors.h: outcomes, their JSON and their google.rpc.Status. Expected texts are answers of the reference. */
#include <stdio.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "kernel/front/errors.h"
#include "kernel/front/http.h"
#include "sdk/base/json.h"
#include "tests/unit/on_loop.h"

static struct arena arena;
static struct call c;

static void setup(void)
{
        arena_init(&arena, 0);
        c = (struct call){.arena = &arena, .door = DOOR_HTTP};
}

static void teardown(void)
{
        arena_fini(&arena);
}

static void ck_json(const char *want)
{
        struct buf b = {0};

        error_json(&c, &b);
        buf_addc(&b, '\0');
        ck_assert_str_eq(b.p, want);
        ck_assert(json_valid(str_of(b.p)));
        buf_fini(&b);
}

START_TEST(every_row_is_complete)
{
        for (int i = 0; i < ERROR_ROWS; i++) {
                const struct error_row *r = &error_rows[i];
                ck_assert_msg(r->tag && r->reason && r->category && r->text && r->text[0], "row %d", i);
                ck_assert_msg(r->http_status >= 400 && r->http_status < 600, "row %d", i);
                ck_assert_msg(r->grpc_code > 0 && r->grpc_code <= RPC_UNAUTHENTICATED, "row %d", i);
                ck_assert_msg(r->tag[0] || r->reason[0], "row %d has neither tag nor reason", i);
        }
}
END_TEST

START_TEST(legacy_shape_is_code_and_message)
{
        ck_assert_int_eq(call_fail(&c, ERR_SECRET_STORE_NOT_FOUND, "vault"), -1);
        ck_assert(c.failed);
        ck_assert_int_eq(c.http_status, 401);
        ck_assert_int_eq(c.grpc_code, RPC_INVALID_ARGUMENT);
        ck_json("{\"errorCode\":\"ERR_SECRET_STORE_NOT_FOUND\",\"message\":\"failed finding secret store with key vault\"}");
        ck_assert_ptr_null(error_status_details(&c).p);
}
END_TEST

START_TEST(codes_can_be_overridden)
{
        call_fail_code(&c, ERR_STATE_SAVE, 409, RPC_ABORTED, "store", "etag mismatch");
        ck_assert_int_eq(c.http_status, 409);
        ck_assert_int_eq(c.grpc_code, RPC_ABORTED);
        ck_assert_str_eq(c.message.p, "failed saving state in state store store: etag mismatch");
        call_fail_code(&c, ERR_STATE_SAVE, 0, 0, "store", "x");
        ck_assert_int_eq(c.http_status, 500);
        ck_assert_int_eq(c.grpc_code, RPC_INTERNAL);
}
END_TEST

START_TEST(rich_shape_has_details)
{
        call_fail(&c, ERR_STATE_STORE_NOT_CONFIGURED, "a");
        ck_json("{\"errorCode\":\"ERR_STATE_STORE_NOT_CONFIGURED\",\"message\":\"state store a is not configured\",\"details\":["
                "{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"dapr.io\",\"metadata\":null,"
                "\"reason\":\"DAPR_STATE_NOT_CONFIGURED\"}]}");
        details_info(call_details(&c), "appID", "myapp");
        ck_json("{\"errorCode\":\"ERR_STATE_STORE_NOT_CONFIGURED\",\"message\":\"state store a is not configured\",\"details\":["
                "{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"dapr.io\",\"metadata\":{\"appID\":\"myapp\"},"
                "\"reason\":\"DAPR_STATE_NOT_CONFIGURED\"}]}");
        call_fail(&c, ERR_PUBSUB_NOT_FOUND, "a");
        call_details(&c)->info_object = true;
        ck_json("{\"errorCode\":\"ERR_PUBSUB_NOT_FOUND\",\"message\":\"pubsub a is not found\",\"details\":["
                "{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"dapr.io\",\"metadata\":{},"
                "\"reason\":\"DAPR_PUBSUB_NOT_FOUND\"}]}");
}
END_TEST

START_TEST(without_tag_the_reason_is_the_code_and_metadata_is_sorted)
{
        call_fail(&c, ERR_JOB_GET, "scheduler clients are disabled");
        details_info(call_details(&c), "namespace", "default");
        details_info(call_details(&c), "appID", "myapp");
        ck_json("{\"errorCode\":\"DAPR_SCHEDULER_GET_JOB\",\"message\":\"failed to get job due to: scheduler clients are disabled\","
                "\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"dapr.io\","
                "\"metadata\":{\"appID\":\"myapp\",\"namespace\":\"default\"},\"reason\":\"DAPR_SCHEDULER_GET_JOB\"}]}");
}
END_TEST

START_TEST(help_violation_and_resource_stand_before_the_info)
{
        struct error_details *d;

        call_fail(&c, ERR_STATE_ILLEGAL_KEY, "input key/keyPrefix 'a||b' can't contain '||'");
        d = call_details(&c);
        d->field = "a||b";
        d->field_description = c.message.p;
        d->resource_type = "state";
        d->resource_name = "store";
        d->help_url = "https://example.com";
        d->help_description = "read";
        ck_json("{\"errorCode\":\"ERR_MALFORMED_REQUEST\",\"message\":\"input key/keyPrefix 'a||b' can't contain '||'\",\"details\":["
                "{\"@type\":\"type.googleapis.com/google.rpc.Help\",\"links\":[{\"description\":\"read\",\"url\":\"https://example.com\"}]},"
                "{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\",\"field_violations\":[{\"field\":\"a||b\","
                "\"description\":\"input key/keyPrefix 'a||b' can't contain '||'\"}]},"
                "{\"@type\":\"type.googleapis.com/google.rpc.ResourceInfo\",\"description\":\"\",\"owner\":\"\","
                "\"resource_name\":\"store\",\"resource_type\":\"state\"},"
                "{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"dapr.io\",\"metadata\":null,"
                "\"reason\":\"DAPR_STATE_ILLEGAL_KEY\"}]}");
}
END_TEST

static void ck_info(const char *reason, size_t n_metadata)
{
        struct str bytes = error_status_details(&c);
        Google__Rpc__Status *st = pb_unpack(&arena, &google__rpc__status__descriptor, bytes);
        Google__Rpc__ErrorInfo *info;
        Google__Protobuf__Any *last;

        ck_assert_ptr_nonnull(st);
        ck_assert_int_eq(st->code, c.grpc_code);
        ck_assert_str_eq(st->message, c.message.p);
        last = st->details[st->n_details - 1];
        ck_assert_str_eq(last->type_url, "type.googleapis.com/google.rpc.ErrorInfo");
        info = pb_unpack(&arena, &google__rpc__error_info__descriptor, pb_str(last->value));
        ck_assert_ptr_nonnull(info);
        ck_assert_str_eq(info->reason, reason);
        ck_assert_str_eq(info->domain, "dapr.io");
        ck_assert_uint_eq(info->n_metadata, n_metadata);
}

START_TEST(grpc_gets_the_details_as_a_status)
{
        c.door = DOOR_GRPC;
        call_fail(&c, ERR_STATE_TOO_MANY_TRANSACTIONS, 3, 2);
        details_info(call_details(&c), "currentOpsTransaction", "3");
        details_info(call_details(&c), "maxOpsPerTransaction", "2");
        ck_info("DAPR_STATE_TOO_MANY_TRANSACTIONS", 2);
        ck_assert_str_eq(c.message.p, "the transaction contains 3 operations, which is more than what the state store supports: 2");
        call_fail(&c, ERR_INVOKE_OUTPUT_BINDING, "b", "gone");
        ck_info("ERR_INVOKE_OUTPUT_BINDING", 0); /* legacy on HTTP, rich here */
        c.door = DOOR_HTTP;
        ck_json("{\"errorCode\":\"ERR_INVOKE_OUTPUT_BINDING\",\"message\":\"error invoking output binding b: gone\"}");
}
END_TEST

START_TEST(metadata_beyond_eight_entries_is_dropped)
{
        call_fail(&c, ERR_JOB_EMPTY);
        for (int i = 0; i < 20; i++)
                details_info(call_details(&c), "k", "v");
        ck_assert_uint_eq(c.details->n_info, 8);
}
END_TEST

START_TEST(without_memory_the_rows_text_goes_out)
{
        struct arena none;

        arena_init(&none, 1);
        c.arena = &none;
        call_fail(&c, ERR_SECRET_STORES_NOT_CONFIGURED);
        ck_assert_str_eq(c.message.p, "secret store is not configured");
        details_info(call_details(&c), "k", "v"); /* goes nowhere */
        ck_assert_ptr_null(c.details);
        arena_fini(&none);
}
END_TEST

START_TEST(json_is_written_for_html)
{
        struct str s = json_escape_html(&arena, STR("{\"a\":\"<b>&\"}"));

        ck_assert(str_eqz(s, "{\"a\":\"\\u003cb\\u003e\\u0026\"}"));
        s = json_escape_html(&arena, STR("plain"));
        ck_assert(str_eqz(s, "plain"));
}
END_TEST

int main(void)
{
        Suite *s = suite_create("errors");
        TCase *t = tcase_create("errors");

        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, every_row_is_complete);
        tcase_add_test(t, legacy_shape_is_code_and_message);
        tcase_add_test(t, codes_can_be_overridden);
        tcase_add_test(t, rich_shape_has_details);
        tcase_add_test(t, without_tag_the_reason_is_the_code_and_metadata_is_sorted);
        tcase_add_test(t, help_violation_and_resource_stand_before_the_info);
        tcase_add_test(t, grpc_gets_the_details_as_a_status);
        tcase_add_test(t, metadata_beyond_eight_entries_is_dropped);
        tcase_add_test(t, without_memory_the_rows_text_goes_out);
        tcase_add_test(t, json_is_written_for_html);
        suite_add_tcase(s, t);
        return run_suite(s);
}
