/* A healthy plugin under the supervisor. */
#include "dapr/proto/components/v1/state.pb-c.h"
#include "tests/fault/fault.h"

#define STATE "/dapr.proto.components.v1.StateStore/"

static int set(struct component *c, struct arena *a, const char *key, const char *value, const char *etag, struct rpc_status *st)
{
        Dapr__Proto__Components__V1__SetRequest req = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT;
        Dapr__Proto__Components__V1__Etag e = DAPR__PROTO__COMPONENTS__V1__ETAG__INIT;
        Dapr__Proto__Components__V1__SetResponse *resp;
        req.key = key;
        req.value = pb_bytes(str_of(value));
        if (etag) {
                e.value = etag;
                req.etag = &e;
        }
        return component_call(c, a, STATE "Set", &req.base, &dapr__proto__components__v1__set_response__descriptor, &resp, st);
}

static int get(struct component *c, struct arena *a, const char *key, Dapr__Proto__Components__V1__GetResponse **resp, struct rpc_status *st)
{
        Dapr__Proto__Components__V1__GetRequest req = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__INIT;
        req.key = key;
        return component_call(c, a, STATE "Get", &req.base, &dapr__proto__components__v1__get_response__descriptor, resp, st);
}

ON_LOOP_TEST(a_plugin_starts_and_serves)
{
        struct fault f;
        struct component *c;
        struct rpc_status st = {0};
        const char *err;
        Dapr__Proto__Components__V1__GetResponse *resp;
        fault_init(&f);
        fault_open(&f);
        double t0 = loop_now_exact();
        int r = super_component_start(f.super, fault_spec(&f, "store", "state.in-memory", NULL, 0), &f.arena, &c, &err);
        if (r)
                ck_abort_msg("start: %s", err);
        printf("start: %.1f ms\n", (loop_now_exact() - t0) * 1e3);
        ck_assert_int_eq(set(c, &f.arena, "k", "value", NULL, &st), 0);
        ck_assert_int_eq(get(c, &f.arena, "k", &resp, &st), 0);
        ck_assert(str_eq(pb_str(resp->data), STR("value")));
        ck_assert_uint_eq(strlen(resp->etag->value), 36);
        struct component_status cs;
        component_status_get(c, &f.arena, &cs);
        ck_assert_int_eq(cs.state, PLUGIN_READY);
        ck_assert_int_gt(cs.pid, 0);
        printf("plugin rss %.1f MB\n", (double)cs.rss_bytes / 1e6);
        fault_close(&f);
}

int main(void)
{
        Suite *s = suite_create("super");
        TCase *t = tcase_create("healthy");
        tcase_add_test(t, a_plugin_starts_and_serves);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
