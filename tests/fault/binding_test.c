/* Bindings through the C plugin SDK: events and acknowledgements in both modes, how a stream ends, what an invoke answers. */
#include "dapr/proto/components/v1/bindings.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "tests/fault/fault_plugin.h"

#define READ "/dapr.proto.components.v1.InputBinding/Read"
#define INVOKE "/dapr.proto.components.v1.OutputBinding/Invoke"

typedef Dapr__Proto__Components__V1__ReadResponse event_t;

static void bindings_open(struct fault *f)
{
        char path[128], text[1024];
        fault_init(f);
        snprintf(path, sizeof path, "%s/b", f->dir);
        ck_assert_int_eq(mkdir(path, 0755), 0);
        snprintf(text, sizeof text,
                 "name: b\nversion: 1\nexecutable: %s/binding_plugin\ncontract: [1]\nshare: true\n"
                 "types:\n  - type: bindings.fiber\n  - type: bindings.worker\n  - type: bindings.both\n",
                 f->exe_dir);
        snprintf(path, sizeof path, "%s/b/plugin.yaml", f->dir);
        fault_file(path, text, 0644);
        fault_open(f);
}

static struct component *start(struct fault *f, const char *type, const char *mode, const char *direction)
{
        const char **md = arena_alloc(&f->arena, 4 * sizeof *md);
        md[0] = "mode";
        md[1] = mode;
        md[2] = "direction";
        md[3] = direction;
        return fault_start(f, fault_spec(f, arena_printf(&f->arena, "%s-%s", type, mode), type, md, direction ? 2 : 1));
}

static struct rpc_call *read_stream(struct fault *f, struct component *c)
{
        struct rpc_status st = {0};
        struct rpc_call *call;
        if (component_open(c, &f->arena, READ, &call, &st))
                ck_abort_msg("%.*s", STR_FMT(st.message));
        return call;
}

static const event_t *expect_event(struct rpc_call *call, const char *text)
{
        const event_t *e;
        double old = fiber_set_deadline(loop_now() + 10);
        ck_assert_int_eq(rpc_recv_pb(call, &dapr__proto__components__v1__read_response__descriptor, &e), 1);
        fiber_restore_deadline(old);
        if (!str_eqz(pb_str(e->data), text))
                ck_abort_msg("event '%.*s', not '%s'", STR_FMT(pb_str(e->data)), text);
        ck_assert_str_eq(e->content_type, "text/plain");
        ck_assert_uint_eq(e->n_metadata, 1);
        return e;
}

static void acknowledge(struct rpc_call *call, const char *id, const char *reply, const char *error)
{
        Dapr__Proto__Components__V1__ReadRequest ack = DAPR__PROTO__COMPONENTS__V1__READ_REQUEST__INIT;
        Dapr__Proto__Components__V1__AckResponseError failed = DAPR__PROTO__COMPONENTS__V1__ACK_RESPONSE_ERROR__INIT;
        ack.message_id = id;
        ack.response_data = pb_bytes(str_of(reply));
        failed.message = error;
        ack.response_error = error ? &failed : NULL;
        ck_assert_int_eq(rpc_send_pb(call, &ack.base), 0);
}

static void expect_end(struct rpc_call *call, int code)
{
        const event_t *e;
        double old = fiber_set_deadline(loop_now() + 10);
        ck_assert_int_le(rpc_recv_pb(call, &dapr__proto__components__v1__read_response__descriptor, &e), 0);
        ck_assert_int_eq(rpc_finish(call), code);
        fiber_restore_deadline(old);
}

static void talk(struct fault *f, const char *type)
{
        struct component *c = start(f, type, "", NULL);
        struct rpc_call *call = read_stream(f, c);
        acknowledge(call, "unknown", "x", NULL); /* of no event: nothing happens */
        acknowledge(call, expect_event(call, "first")->message_id, "a", NULL);
        acknowledge(call, expect_event(call, "a|")->message_id, "", "no");
        acknowledge(call, expect_event(call, "|no")->message_id, "", NULL);
        const char *id = expect_event(call, "|")->message_id;
        rpc_send_end(call); /* with an event that nobody answered */
        expect_end(call, RPC_OK);
        (void)id;
        super_component_stop(f->super, c);
}

ON_LOOP_TEST(events_are_answered_in_both_modes)
{
        struct fault f;
        bindings_open(&f);
        talk(&f, "bindings.fiber");
        talk(&f, "bindings.worker");
        fault_close(&f);
}

ON_LOOP_TEST(a_reader_that_goes_away_frees_its_thread)
{
        struct fault f;
        bindings_open(&f);
        struct component *c = start(&f, "bindings.worker", "", NULL);
        for (int i = 0; i < 8; i++) { /* four times the threads */
                struct rpc_call *call = read_stream(&f, c);
                expect_event(call, "first");
                rpc_cancel(call);
                rpc_finish(call);
        }
        fault_close(&f);
}

ON_LOOP_TEST(a_read_that_returns_ends_the_stream)
{
        struct fault f;
        bindings_open(&f);
        const char *types[] = {"bindings.fiber", "bindings.worker"};
        for (int i = 0; i < 2; i++) {
                struct rpc_call *call = read_stream(&f, start(&f, types[i], "fail", NULL));
                expect_end(call, RPC_UNAVAILABLE);
                ck_assert(str_eqz(call->status.message, "nothing to read"));
                expect_end(read_stream(&f, start(&f, types[i], "end", NULL)), RPC_OK);
        }
        fault_close(&f);
}

ON_LOOP_TEST(tasks_deliver_at_once)
{
        struct fault f;
        bindings_open(&f);
        struct rpc_call *call = read_stream(&f, start(&f, "bindings.fiber", "tasks", NULL));
        const char *one = expect_event(call, "one")->message_id, *two = expect_event(call, "two")->message_id;
        acknowledge(call, two, "", NULL);
        acknowledge(call, one, "", NULL);
        rpc_send_end(call);
        expect_end(call, RPC_OK);
        fault_close(&f);
}

static int invoke(struct fault *f, struct component *c, const char *operation, Dapr__Proto__Components__V1__InvokeResponse **ret,
                  struct rpc_status *st)
{
        Dapr__Proto__Components__V1__InvokeRequest req = DAPR__PROTO__COMPONENTS__V1__INVOKE_REQUEST__INIT;
        Dapr__Proto__Components__V1__InvokeRequest__MetadataEntry e = DAPR__PROTO__COMPONENTS__V1__INVOKE_REQUEST__METADATA_ENTRY__INIT,
                                                                  *list[] = {&e};
        req.operation = operation;
        req.data = pb_bytes(STR("\0\1data"));
        e.key = "what";
        e.value = "there";
        req.metadata = list;
        req.n_metadata = 1;
        return component_call(c, &f->arena, INVOKE, &req.base, &dapr__proto__components__v1__invoke_response__descriptor, ret, st);
}

ON_LOOP_TEST(invokes_answer_data_and_metadata_also_when_they_fail)
{
        struct fault f;
        struct rpc_status st = {0};
        Dapr__Proto__Components__V1__InvokeResponse *resp;
        bindings_open(&f);
        struct component *c = start(&f, "bindings.both", "", NULL);
        ck_assert_uint_eq(component_features(c), FEATURE_INPUT_BINDING | FEATURE_OUTPUT_BINDING);
        ck_assert_int_eq(invoke(&f, c, "echo", &resp, &st), 0);
        ck_assert(str_eq(pb_str(resp->data), STR("\0\1data")));
        ck_assert_str_eq(resp->content_type, "a/b");
        ck_assert_str_eq(resp->metadata[0]->value, "because");
        ck_assert_int_eq(invoke(&f, c, "nothing", &resp, &st), 0);
        ck_assert_uint_eq(protobuf_c_message_get_packed_size(&resp->base), 0);
        ck_assert_int_eq(invoke(&f, c, "empty", &resp, &st), 0);
        ck_assert_uint_gt(protobuf_c_message_get_packed_size(&resp->base), 0);
        ck_assert_int_eq(invoke(&f, c, "fail", &resp, &st), RPC_NOT_FOUND);
        ck_assert(str_eqz(st.message, "not there"));
        const Google__Rpc__Status *s = pb_unpack(&f.arena, &google__rpc__status__descriptor, st.details);
        const Google__Rpc__ErrorInfo *info = pb_unpack(&f.arena, &google__rpc__error_info__descriptor, pb_str(s->details[0]->value));
        ck_assert_str_eq(info->reason, "BINDING_RESPONSE");
        ck_assert_str_eq(info->metadata[0]->key, "why");
        fault_close(&f);
}

ON_LOOP_TEST(direction_leaves_out_the_other_half)
{
        struct fault f;
        bindings_open(&f);
        struct component *in = start(&f, "bindings.both", "i", "input"), *out = start(&f, "bindings.both", "o", " OUTPUT ,x"),
                         *none = start(&f, "bindings.fiber", "n", "output");
        ck_assert_uint_eq(component_features(in), FEATURE_INPUT_BINDING);
        ck_assert_uint_eq(component_features(out), FEATURE_OUTPUT_BINDING);
        ck_assert_uint_eq(component_features(none), 0);
        ck_assert(!component_serves(in, "dapr.proto.components.v1.OutputBinding"));
        fault_close(&f);
}

int main(void)
{
        Suite *s = suite_create("binding");
        TCase *t = tcase_create("binding");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, events_are_answered_in_both_modes);
        tcase_add_test(t, a_reader_that_goes_away_frees_its_thread);
        tcase_add_test(t, a_read_that_returns_ends_the_stream);
        tcase_add_test(t, tasks_deliver_at_once);
        tcase_add_test(t, invokes_answer_data_and_metadata_also_when_they_fail);
        tcase_add_test(t, direction_leaves_out_the_other_half);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
