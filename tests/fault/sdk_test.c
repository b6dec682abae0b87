/* The C plugin SDK end to end: every service, every mode, typed details; and what state.in-memory promises. */
#include <math.h>
#include <sys/wait.h>

#include "dapr/proto/components/v1/secretstore.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "plugin/v1/state.pb-c.h"
#include "tests/fault/fault_plugin.h"

#define P(name) Dapr__Proto__Components__V1__##name
#define D(name) &dapr__proto__components__v1__##name##__descriptor

static void sdk_open(struct fault *f)
{
        char path[128], text[1024];
        fault_init(f);
        snprintf(path, sizeof path, "%s/sdk", f->dir);
        ck_assert_int_eq(mkdir(path, 0755), 0);
        snprintf(text, sizeof text,
                 "name: sdk\nversion: 1\nexecutable: %s/sdk_plugin\ncontract: [1]\nshare: true\n"
                 "types:\n  - type: state.inline\n  - {type: state.worker, versions: [v1, v2]}\n  - type: secretstores.test\n"
                 "metadata:\n  - {name: flag, type: bool, default: 'yes'}\n  - {name: number, type: int, default: 7}\n"
                 "  - {name: wait, type: duration}\n",
                 f->exe_dir);
        snprintf(path, sizeof path, "%s/sdk/plugin.yaml", f->dir);
        fault_file(path, text, 0644);
        fault_open(f);
}

static void expect_fail(struct fault *f, struct component *c, const char *method, const ProtobufCMessage *req,
                        const ProtobufCMessageDescriptor *d, int code, const char *part, struct rpc_status *ret)
{
        struct rpc_status st = {0};
        void *resp;
        int r = component_call(c, &f->arena, method, req, d, &resp, &st);
        if (r != code || !text_has(st.message, part))
                ck_abort_msg("%s: %d %.*s, expected %d %s", method, r, STR_FMT(st.message), code, part);
        ck_assert(!st.transport);
        if (ret)
                *ret = st;
}

/* ---- operations in both modes ---- */

static void get_in_mode(struct fault *f, const char *type, const char *where)
{
        struct rpc_status st = {0};
        P(GetRequest) req = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__INIT;
        P(GetRequest__MetadataEntry) e = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__METADATA_ENTRY__INIT, *list[] = {&e};
        P(GetResponse) *resp;
        char expected[64];
        struct component *c = fault_start(f, fault_spec(f, type, type, NULL, 0));
        req.key = "tools";
        e.key = "x";
        e.value = "meta";
        req.metadata = list;
        req.n_metadata = 1;
        req.consistency = 2;
        double old = fiber_set_deadline(loop_now() + 10);
        if (component_call(c, &f->arena, STATE "Get", &req.base, D(get_response), &resp, &st))
                ck_abort_msg("%.*s", STR_FMT(st.message));
        fiber_restore_deadline(old);
        snprintf(expected, sizeof expected, "%s tools %s meta 2 deadline", type, where);
        ck_assert(str_eq(pb_str(resp->data), str_of(expected)));
        ck_assert_str_eq(resp->etag->value, "e1");
        ck_assert_str_eq(resp->content_type, "text/plain");
        req.key = "missing";
        ck_assert_int_eq(component_call(c, &f->arena, STATE "Get", &req.base, D(get_response), &resp, &st), 0);
        ck_assert(resp->data.len == 0 && !resp->etag);
        req.key = "errno";
        expect_fail(f, c, STATE "Get", &req.base, D(get_response), RPC_INTERNAL, "No space left on device", NULL);
        super_component_stop(f->super, c);
}

ON_LOOP_TEST(get_inline_and_on_workers)
{
        struct fault f;
        sdk_open(&f);
        get_in_mode(&f, "state.inline", "loop");
        get_in_mode(&f, "state.worker", "worker");
        fault_close(&f);
}

ON_LOOP_TEST(set_shows_everything_and_checks_ttl)
{
        struct fault f;
        P(SetRequest) req = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT;
        P(Etag) etag = DAPR__PROTO__COMPONENTS__V1__ETAG__INIT;
        P(StateOptions) o = DAPR__PROTO__COMPONENTS__V1__STATE_OPTIONS__INIT;
        P(SetRequest__MetadataEntry) e = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__METADATA_ENTRY__INIT, *list[] = {&e};
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "s", "state.worker", NULL, 0));
        req.key = "show";
        req.value = pb_bytes(STR("V"));
        etag.value = "7";
        req.etag = &etag;
        o.concurrency = 1;
        o.consistency = 2;
        req.options = &o;
        req.content_type = "a/b";
        e.key = "ttlInSeconds";
        e.value = "30";
        req.metadata = list;
        req.n_metadata = 1;
        expect_fail(&f, c, STATE "Set", &req.base, D(set_response), RPC_ALREADY_EXISTS,
                    "value V etag 7 type a/b ttl 30 concurrency 1 consistency 2", NULL);
        e.value = "-1";
        expect_fail(&f, c, STATE "Set", &req.base, D(set_response), RPC_ALREADY_EXISTS, "ttl -1", NULL);
        e.value = "soon";
        expect_fail(&f, c, STATE "Set", &req.base, D(set_response), RPC_INVALID_ARGUMENT, "incorrect value for metadata 'ttlInSeconds'", NULL);
        e.value = "-2";
        expect_fail(&f, c, STATE "Set", &req.base, D(set_response), RPC_INVALID_ARGUMENT, "must be -1 or greater", NULL);
        fault_close(&f);
}

/* ---- details ---- */

static const Google__Rpc__Status *details(struct fault *f, const struct rpc_status *st)
{
        const Google__Rpc__Status *s = pb_unpack(&f->arena, &google__rpc__status__descriptor, st->details);
        ck_assert(s != NULL);
        ck_assert_int_eq(s->code, st->code);
        return s;
}

static void expect_etag(struct fault *f, const struct rpc_status *st, const char *description)
{
        const Google__Rpc__Status *s = details(f, st);
        ck_assert_uint_eq(s->n_details, 1);
        ck_assert_str_eq(s->details[0]->type_url, "type.googleapis.com/google.rpc.BadRequest");
        const Google__Rpc__BadRequest *b = pb_unpack(&f->arena, &google__rpc__bad_request__descriptor, pb_str(s->details[0]->value));
        ck_assert(b && b->n_field_violations == 1);
        ck_assert_str_eq(b->field_violations[0]->field, "etag");
        ck_assert_str_eq(b->field_violations[0]->description, description);
}

ON_LOOP_TEST(etag_errors_carry_the_contracts_details)
{
        struct fault f;
        struct rpc_status st;
        P(SetRequest) req = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT;
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "s", "state.inline", NULL, 0));
        req.key = "etag1";
        expect_fail(&f, c, STATE "Set", &req.base, D(set_response), RPC_FAILED_PRECONDITION,
                    "possible etag mismatch. error from state store: etag1 is not given", &st);
        expect_etag(&f, &st, "etag1 is not given");
        req.key = "invalid";
        expect_fail(&f, c, STATE "Set", &req.base, D(set_response), RPC_INVALID_ARGUMENT, "invalid etag value: no number", &st);
        expect_etag(&f, &st, "no number");
        fault_close(&f);
}

static void bulk_set(struct fault *f, struct component *c, const char **keys, size_t n, int code, const char *part, struct rpc_status *st)
{
        P(BulkSetRequest) req = DAPR__PROTO__COMPONENTS__V1__BULK_SET_REQUEST__INIT;
        P(SetRequest) *v = arena_alloc(&f->arena, n * sizeof *v), **list = arena_alloc(&f->arena, n * sizeof *list);
        P(BulkSetResponse) *resp;
        for (size_t i = 0; i < n; i++) {
                dapr__proto__components__v1__set_request__init(&v[i]);
                v[i].key = keys[i];
                list[i] = &v[i];
        }
        req.items = list;
        req.n_items = n;
        if (code)
                expect_fail(f, c, STATE "BulkSet", &req.base, D(bulk_set_response), code, part, st);
        else
                ck_assert_int_eq(component_call(c, &f->arena, STATE "BulkSet", &req.base, D(bulk_set_response), &resp, st), 0);
}

static const char *info(const Google__Rpc__ErrorInfo *i, const char *key)
{
        for (size_t k = 0; k < i->n_metadata; k++)
                if (strcmp(i->metadata[k]->key, key) == 0)
                        return i->metadata[k]->value;
        return "";
}

ON_LOOP_TEST(bulk_errors_name_each_item)
{
        struct fault f;
        struct rpc_status st;
        const char *good[] = {"a", "b"}, *one[] = {"a", "etag1", "b"}, *many[] = {"etag1", "a", "show", "invalid"};
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "s", "state.worker", NULL, 0));
        bulk_set(&f, c, good, 2, 0, "", &st);
        bulk_set(&f, c, NULL, 0, 0, "", &st);
        bulk_set(&f, c, one, 3, RPC_FAILED_PRECONDITION, "possible etag mismatch", &st);
        expect_etag(&f, &st, "etag1 is not given");
        bulk_set(&f, c, many, 4, RPC_FAILED_PRECONDITION, "etag1 is not given\nvalue ", &st);
        const Google__Rpc__Status *s = details(&f, &st);
        ck_assert_uint_eq(s->n_details, 3);
        const Google__Rpc__ErrorInfo *i = pb_unpack(&f.arena, &google__rpc__error_info__descriptor, pb_str(s->details[0]->value));
        ck_assert_str_eq(i->reason, "ITEM_FAILED");
        ck_assert_str_eq(info(i, "key"), "etag1");
        ck_assert_str_eq(info(i, "etag"), "mismatch");
        i = pb_unpack(&f.arena, &google__rpc__error_info__descriptor, pb_str(s->details[1]->value));
        ck_assert_str_eq(info(i, "key"), "show");
        ck_assert_str_eq(info(i, "code"), "6");
        ck_assert_str_eq(info(i, "etag"), "");
        /* a thousand failures still fit into headers */
        const char **lots = arena_alloc(&f.arena, 1000 * sizeof *lots);
        for (size_t k = 0; k < 1000; k++)
                lots[k] = "etag-of-some-length";
        bulk_set(&f, c, lots, 1000, RPC_FAILED_PRECONDITION, "possible etag mismatch", &st);
        fault_close(&f);
}

ON_LOOP_TEST(bulk_get_and_delete_fall_back_to_single_ones)
{
        struct fault f;
        struct rpc_status st;
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "s", "state.worker", NULL, 0));
        P(BulkGetRequest) req = DAPR__PROTO__COMPONENTS__V1__BULK_GET_REQUEST__INIT;
        P(GetRequest) v[3], *list[3];
        P(BulkGetResponse) *resp;
        const char *keys[] = {"a", "bad", "missing"};
        for (int i = 0; i < 3; i++) {
                dapr__proto__components__v1__get_request__init(&v[i]);
                v[i].key = keys[i];
                list[i] = &v[i];
        }
        req.items = list;
        req.n_items = 3;
        ck_assert_int_eq(component_call(c, &f.arena, STATE "BulkGet", &req.base, D(bulk_get_response), &resp, &st), 0);
        ck_assert_uint_eq(resp->n_items, 3);
        ck_assert_str_eq(resp->items[0]->key, "a");
        ck_assert(text_has(pb_str(resp->items[0]->data), "s a worker"));
        ck_assert_str_eq(resp->items[1]->error, "bad key bad");
        ck_assert(resp->items[2]->data.len == 0 && !resp->items[2]->error[0]);
        P(BulkDeleteRequest) del = DAPR__PROTO__COMPONENTS__V1__BULK_DELETE_REQUEST__INIT;
        P(DeleteRequest) d[2], *dl[2];
        for (int i = 0; i < 2; i++) {
                dapr__proto__components__v1__delete_request__init(&d[i]);
                d[i].key = keys[i];
                dl[i] = &d[i];
        }
        del.items = dl;
        del.n_items = 2;
        expect_fail(&f, c, STATE "BulkDelete", &del.base, D(bulk_delete_response), RPC_PERMISSION_DENIED, "not yours", &st);
        ck_assert_uint_eq(details(&f, &st)->n_details, 1);
        fault_close(&f);
}

ON_LOOP_TEST(transactions_queries_and_keys)
{
        struct fault f;
        struct rpc_status st;
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "s", "state.worker", NULL, 0));
        P(TransactionalStateRequest) req = DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_REQUEST__INIT;
        P(TransactionalStateOperation) ops[3], *list[3];
        P(SetRequest) set = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT;
        P(DeleteRequest) del = DAPR__PROTO__COMPONENTS__V1__DELETE_REQUEST__INIT;
        P(SetRequest__MetadataEntry) e = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__METADATA_ENTRY__INIT, *el[] = {&e};
        set.key = "k1";
        del.key = "k2";
        e.key = "ttlInSeconds";
        e.value = "9";
        set.metadata = el;
        set.n_metadata = 1;
        for (int i = 0; i < 3; i++) {
                dapr__proto__components__v1__transactional_state_operation__init(&ops[i]);
                ops[i].request_case = i == 1 ? DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_DELETE
                                             : DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_SET;
                if (i == 1)
                        ops[i].delete_ = &del;
                else
                        ops[i].set = &set;
                list[i] = &ops[i];
        }
        req.operations = list;
        req.n_operations = 2;
        const char *transact = "/dapr.proto.components.v1.TransactionalStateStore/Transact";
        expect_fail(&f, c, transact, &req.base, D(transactional_state_response), RPC_FAILED_PRECONDITION, "set k1 ttl 9;delete k2; 0", NULL);
        req.n_operations = 3;
        expect_fail(&f, c, transact, &req.base, D(transactional_state_response), RPC_INVALID_ARGUMENT, "may hold 2 operations, this one has 3", NULL);
        P(MultiMaxSizeRequest) max = DAPR__PROTO__COMPONENTS__V1__MULTI_MAX_SIZE_REQUEST__INIT;
        P(MultiMaxSizeResponse) *max_resp;
        ck_assert_int_eq(component_call(c, &f.arena, "/dapr.proto.components.v1.TransactionalStoreMultiMaxSize/MultiMaxSize", &max.base,
                                        D(multi_max_size_response), &max_resp, &st), 0);
        ck_assert_int_eq(max_resp->max_size, 2);

        P(QueryRequest) q = DAPR__PROTO__COMPONENTS__V1__QUERY_REQUEST__INIT;
        P(Query) query = DAPR__PROTO__COMPONENTS__V1__QUERY__INIT;
        P(Query__FilterEntry) fe = DAPR__PROTO__COMPONENTS__V1__QUERY__FILTER_ENTRY__INIT, *fl[] = {&fe};
        P(Sorting) so = DAPR__PROTO__COMPONENTS__V1__SORTING__INIT, *sl[] = {&so};
        P(Pagination) page = DAPR__PROTO__COMPONENTS__V1__PAGINATION__INIT;
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
        P(QueryResponse) *qr;
        any.value = pb_bytes(STR("{\"a\":1}"));
        fe.key = "EQ";
        fe.value = &any;
        query.filter = fl;
        query.n_filter = 1;
        so.key = "x";
        so.order = 1;
        query.sort = sl;
        query.n_sort = 1;
        page.limit = 3;
        page.token = "t";
        query.pagination = &page;
        q.query = &query;
        const char *method = "/dapr.proto.components.v1.QueriableStateStore/Query";
        ck_assert_int_eq(component_call(c, &f.arena, method, &q.base, D(query_response), &qr, &st), 0);
        ck_assert(str_eq(pb_str(qr->items[0]->data),
                         STR("{\"filter\":{\"EQ\":{\"a\":1}},\"sort\":[{\"key\":\"x\",\"order\":\"DESC\"}],\"page\":{\"limit\":3,\"token\":\"t\"}}")));
        ck_assert_str_eq(qr->token, "next");
        any.value = pb_bytes(STR("{\"a\":"));
        expect_fail(&f, c, method, &q.base, D(query_response), RPC_INVALID_ARGUMENT, "not a valid message", NULL);

        Microdapr__Plugin__V1__KeysLikeRequest kl = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST__INIT;
        Microdapr__Plugin__V1__KeysLikeResponse *kr;
        kl.pattern = "a%";
        kl._page_size_case = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST___PAGE_SIZE_PAGE_SIZE;
        kl.page_size = 5;
        ck_assert_int_eq(component_call(c, &f.arena, "/microdapr.plugin.v1.StateStoreExtra/KeysLike", &kl.base,
                                        &microdapr__plugin__v1__keys_like_response__descriptor, &kr, &st), 0);
        ck_assert_str_eq(kr->keys[0], "a% 5 none");
        ck_assert_str_eq(kr->continuation_token, "more");
        Microdapr__Plugin__V1__DeleteWithPrefixRequest dp = MICRODAPR__PLUGIN__V1__DELETE_WITH_PREFIX_REQUEST__INIT;
        Microdapr__Plugin__V1__DeleteWithPrefixResponse *dr;
        dp.prefix = "a||b";
        ck_assert_int_eq(component_call(c, &f.arena, "/microdapr.plugin.v1.StateStoreExtra/DeleteWithPrefix", &dp.base,
                                        &microdapr__plugin__v1__delete_with_prefix_response__descriptor, &dr, &st), 0);
        ck_assert_int_eq(dr->count, 6); /* "a||b||" */
        fault_close(&f);
}

ON_LOOP_TEST(secrets)
{
        struct fault f;
        struct rpc_status st;
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "vault", "secretstores.test", NULL, 0));
        ck_assert_uint_eq(component_features(c), FEATURE_MULTIPLE_VALUES_PER_SECRET);
        P(GetSecretRequest) req = DAPR__PROTO__COMPONENTS__V1__GET_SECRET_REQUEST__INIT;
        P(GetSecretResponse) *resp;
        const char *get = "/dapr.proto.components.v1.SecretStore/Get";
        req.key = "db";
        ck_assert_int_eq(component_call(c, &f.arena, get, &req.base, D(get_secret_response), &resp, &st), 0);
        ck_assert_uint_eq(resp->n_data, 2);
        ck_assert_str_eq(resp->data[1]->value, "p");
        req.key = "none";
        expect_fail(&f, c, get, &req.base, D(get_secret_response), RPC_NOT_FOUND, "secret none not found", NULL);
        P(BulkGetSecretRequest) all = DAPR__PROTO__COMPONENTS__V1__BULK_GET_SECRET_REQUEST__INIT;
        P(BulkGetSecretResponse) *ar;
        ck_assert_int_eq(component_call(c, &f.arena, "/dapr.proto.components.v1.SecretStore/BulkGet", &all.base, D(bulk_get_secret_response), &ar, &st), 0);
        ck_assert_uint_eq(ar->n_data, 2);
        ck_assert_uint_eq(ar->data[0]->value->n_secrets, 2);
        fault_close(&f);
}

ON_LOOP_TEST(requests_that_are_no_messages)
{
        struct fault f;
        struct rpc_status st;
        struct str resp;
        static const char *const methods[] = {STATE "Get", STATE "Set", STATE "Delete", STATE "BulkGet", STATE "BulkSet", STATE "BulkDelete",
                                              "/dapr.proto.components.v1.TransactionalStateStore/Transact",
                                              "/dapr.proto.components.v1.QueriableStateStore/Query",
                                              "/microdapr.plugin.v1.StateStoreExtra/KeysLike"};
        static const struct str bad[] = {STR("\x0a\xff"), STR("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), STR("\x0f"), STR("\x0a\x05"), STR("\x00\x00")};
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "s", "state.inline", NULL, 0));
        for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
                for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
                        ck_assert_int_eq(component_call_bytes(c, &f.arena, methods[i], bad[k], &resp, &st), RPC_INVALID_ARGUMENT);
        ck_assert_int_eq(component_call_bytes(c, &f.arena, STATE "Nothing", STR(""), &resp, &st), RPC_UNIMPLEMENTED);
        ck_assert_int_eq(fault_status(&f, c).restarts, 0);
        fault_close(&f);
}

ON_LOOP_TEST(metadata_arrives_typed_with_defaults)
{
        struct fault f;
        const char *md[] = {"wait", "90", "Text", "hello", "extra", "1"}, *bad[] = {"fail", "1"};
        sdk_open(&f);
        struct component *c = fault_start(&f, fault_spec(&f, "s", "state.inline", md, 3));
        ck_assert_int_eq(fault_status(&f, c).state, PLUGIN_READY);
        fault_refused(&f, fault_spec(&f, "t", "state.inline", bad, 1), "Connection refused");
        fault_close(&f);
}

ON_LOOP_TEST(a_plugin_explains_itself)
{
        struct fault f;
        char cmd[700], line[128] = "";
        fault_init(&f);
        fault_open(&f);
        snprintf(cmd, sizeof cmd, "%s/sdk_plugin --manifest | grep -c state.worker", f.exe_dir);
        FILE *in = popen(cmd, "r");
        ck_assert(in && fgets(line, sizeof line, in));
        ck_assert_str_eq(line, "1\n");
        pclose(in);
        snprintf(cmd, sizeof cmd, "%s/sdk_plugin 3<&- 2>/dev/null", f.exe_dir);
        ck_assert_int_eq(WEXITSTATUS(system(cmd)), 2);
        snprintf(cmd, sizeof cmd, "%s/sdk_plugin --wrong 2>/dev/null", f.exe_dir);
        ck_assert_int_eq(WEXITSTATUS(system(cmd)), 2);
        fault_close(&f);
}

int main(void)
{
        Suite *s = suite_create("sdk");
        TCase *t = tcase_create("sdk");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, get_inline_and_on_workers);
        tcase_add_test(t, set_shows_everything_and_checks_ttl);
        tcase_add_test(t, etag_errors_carry_the_contracts_details);
        tcase_add_test(t, bulk_errors_name_each_item);
        tcase_add_test(t, bulk_get_and_delete_fall_back_to_single_ones);
        tcase_add_test(t, transactions_queries_and_keys);
        tcase_add_test(t, secrets);
        tcase_add_test(t, requests_that_are_no_messages);
        tcase_add_test(t, metadata_arrives_typed_with_defaults);
        tcase_add_test(t, a_plugin_explains_itself);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
