/* state.in-memory through its process: ETags, TTL, transactions, keys, prefixes, as the reference's store of that name. */
#include <time.h>

#include "plugin/v1/state.pb-c.h"
#include "tests/fault/fault_plugin.h"

#define P(name) Dapr__Proto__Components__V1__##name
#define D(name) &dapr__proto__components__v1__##name##__descriptor

struct store {
        struct fault f;
        struct component *c;
        struct rpc_status st;
};

static void open_store(struct store *s)
{
        fault_init(&s->f);
        fault_open(&s->f);
        s->c = fault_start(&s->f, fault_spec(&s->f, "store", "state.in-memory", NULL, 0));
}

/* etag, ttl: NULL = not given. */
static P(SetRequest) *set_req(struct store *s, const char *key, const char *value, const char *etag, int concurrency, const char *ttl)
{
        P(SetRequest) *r = arena_new(&s->f.arena, P(SetRequest));
        P(Etag) *e = arena_new(&s->f.arena, P(Etag));
        P(StateOptions) *o = arena_new(&s->f.arena, P(StateOptions));
        P(SetRequest__MetadataEntry) *m = arena_new(&s->f.arena, P(SetRequest__MetadataEntry));
        dapr__proto__components__v1__set_request__init(r);
        dapr__proto__components__v1__etag__init(e);
        dapr__proto__components__v1__state_options__init(o);
        dapr__proto__components__v1__set_request__metadata_entry__init(m);
        r->key = key;
        r->value = pb_bytes(str_of(value));
        o->concurrency = (unsigned)concurrency;
        r->options = o;
        if (etag) {
                e->value = etag;
                r->etag = e;
        }
        if (ttl) {
                m->key = "ttlInSeconds";
                m->value = ttl;
                r->metadata = arena_alloc(&s->f.arena, sizeof *r->metadata);
                r->metadata[0] = m;
                r->n_metadata = 1;
        }
        return r;
}

static int set(struct store *s, const char *key, const char *value, const char *etag, int concurrency, const char *ttl)
{
        void *resp;
        return component_call(s->c, &s->f.arena, STATE "Set", &set_req(s, key, value, etag, concurrency, ttl)->base, D(set_response), &resp, &s->st);
}

static int del(struct store *s, const char *key, const char *etag)
{
        P(DeleteRequest) r = DAPR__PROTO__COMPONENTS__V1__DELETE_REQUEST__INIT;
        P(Etag) e = DAPR__PROTO__COMPONENTS__V1__ETAG__INIT;
        void *resp;
        r.key = key;
        if (etag) {
                e.value = etag;
                r.etag = &e;
        }
        return component_call(s->c, &s->f.arena, STATE "Delete", &r.base, D(delete_response), &resp, &s->st);
}

static P(GetResponse) *get(struct store *s, const char *key)
{
        P(GetRequest) r = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__INIT;
        P(GetResponse) *resp = NULL;
        r.key = key;
        ck_assert_int_eq(component_call(s->c, &s->f.arena, STATE "Get", &r.base, D(get_response), &resp, &s->st), 0);
        return resp;
}

static bool holds(struct store *s, const char *key, const char *value)
{
        P(GetResponse) *r = get(s, key);
        return value ? str_eqz(pb_str(r->data), value) : r->data.len == 0 && !r->etag;
}

enum { FIRST = 1 };

ON_LOOP_TEST(etags_guard_writes)
{
        struct store s;
        open_store(&s);
        ck_assert_int_eq(set(&s, "k", "1", NULL, 0, NULL), 0);
        const char *first = get(&s, "k")->etag->value;
        ck_assert_int_eq(set(&s, "k", "2", NULL, FIRST, NULL), RPC_FAILED_PRECONDITION);
        ck_assert(text_has(s.st.message, "item already exists and no etag was passed"));
        ck_assert_int_eq(set(&s, "k", "2", "wrong", 0, NULL), RPC_FAILED_PRECONDITION);
        ck_assert(text_has(s.st.message, "state etag not match for key=k: current="));
        ck_assert_int_eq(set(&s, "k", "2", first, FIRST, NULL), 0);
        ck_assert_int_eq(set(&s, "k", "3", first, 0, NULL), RPC_FAILED_PRECONDITION);
        ck_assert_int_eq(set(&s, "new", "1", "x", 0, NULL), RPC_FAILED_PRECONDITION);
        ck_assert(text_has(s.st.message, "state not exist or expired for key=new"));
        ck_assert_int_eq(set(&s, "new", "1", NULL, FIRST, NULL), 0);
        ck_assert_int_eq(set(&s, "k", "4", "", 0, NULL), 0); /* an empty one counts as none */
        ck_assert_int_eq(del(&s, "k", first), RPC_FAILED_PRECONDITION);
        ck_assert_int_eq(del(&s, "k", get(&s, "k")->etag->value), 0);
        ck_assert(holds(&s, "k", NULL));
        ck_assert_int_eq(del(&s, "k", NULL), 0); /* what is not there is deleted already */
        fault_close(&s.f);
}

ON_LOOP_TEST(values_expire)
{
        struct store s;
        open_store(&s);
        ck_assert_int_eq(set(&s, "short", "v", NULL, 0, "1"), 0);
        ck_assert_int_eq(set(&s, "long", "v", NULL, 0, "100"), 0);
        ck_assert_int_eq(set(&s, "off", "v", NULL, 0, "1"), 0);
        ck_assert_int_eq(set(&s, "off", "v", NULL, 0, "-1"), 0);
        P(GetResponse) *r = get(&s, "long");
        ck_assert_uint_eq(r->n_metadata, 1);
        ck_assert_str_eq(r->metadata[0]->key, "ttlExpireTime");
        struct tm tm = {0};
        ck_assert(strptime(r->metadata[0]->value, "%Y-%m-%dT%H:%M:%SZ", &tm) != NULL);
        time_t left = timegm(&tm) - time(NULL);
        ck_assert(left >= 98 && left <= 101);
        ck_assert_uint_eq(get(&s, "off")->n_metadata, 0);
        fiber_sleep(1.1);
        ck_assert(holds(&s, "short", NULL));
        ck_assert(holds(&s, "off", "v"));
        ck_assert_int_eq(set(&s, "short", "again", NULL, FIRST, NULL), 0); /* an expired one is no longer in the way */
        fault_close(&s.f);
}

static int transact(struct store *s, P(SetRequest) *a, P(SetRequest) *b, const char *delete)
{
        P(TransactionalStateRequest) r = DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_REQUEST__INIT;
        P(TransactionalStateOperation) ops[3], *list[3];
        P(DeleteRequest) d = DAPR__PROTO__COMPONENTS__V1__DELETE_REQUEST__INIT;
        void *resp;
        for (int i = 0; i < 3; i++) {
                dapr__proto__components__v1__transactional_state_operation__init(&ops[i]);
                ops[i].request_case = i == 1 ? DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_DELETE
                                             : DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_SET;
                list[i] = &ops[i];
        }
        d.key = delete;
        ops[0].set = a;
        ops[1].delete_ = &d;
        ops[2].set = b;
        r.operations = list;
        r.n_operations = 3;
        return component_call(s->c, &s->f.arena, "/dapr.proto.components.v1.TransactionalStateStore/Transact", &r.base,
                              D(transactional_state_response), &resp, &s->st);
}

ON_LOOP_TEST(transactions_are_all_or_nothing)
{
        struct store s;
        open_store(&s);
        ck_assert_int_eq(set(&s, "old", "v", NULL, 0, NULL), 0);
        ck_assert_int_eq(transact(&s, set_req(&s, "a", "1", NULL, 0, NULL), set_req(&s, "b", "2", "wrong", 0, NULL), "old"), RPC_FAILED_PRECONDITION);
        ck_assert(holds(&s, "a", NULL) && holds(&s, "b", NULL) && holds(&s, "old", "v"));
        ck_assert_int_eq(transact(&s, set_req(&s, "a", "1", NULL, 0, NULL), set_req(&s, "a", "2", NULL, 0, NULL), "old"), 0);
        ck_assert(holds(&s, "a", "2") && holds(&s, "old", NULL));
        fault_close(&s.f);
}

static const char *keys_like(struct store *s, const char *pattern, unsigned page, const char *token, const char **ret_token)
{
        Microdapr__Plugin__V1__KeysLikeRequest r = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST__INIT;
        Microdapr__Plugin__V1__KeysLikeResponse *resp;
        r.pattern = pattern;
        r.continuation_token = token ? token : "";
        if (page) {
                r._page_size_case = MICRODAPR__PLUGIN__V1__KEYS_LIKE_REQUEST___PAGE_SIZE_PAGE_SIZE;
                r.page_size = page;
        }
        if (component_call(s->c, &s->f.arena, "/microdapr.plugin.v1.StateStoreExtra/KeysLike", &r.base,
                           &microdapr__plugin__v1__keys_like_response__descriptor, &resp, &s->st))
                return arena_strdup(&s->f.arena, s->st.message);
        const char *all = "";
        for (size_t i = 0; i < resp->n_keys; i++)
                all = arena_printf(&s->f.arena, "%s%s ", all, resp->keys[i]);
        if (ret_token)
                *ret_token = resp->continuation_token;
        return all;
}

ON_LOOP_TEST(keys_are_found_by_pattern_and_page)
{
        struct store s;
        const char *t = NULL;
        open_store(&s);
        const char *keys[] = {"user1", "user2", "us_r", "us%r", "käse", "order1"};
        for (int i = 0; i < 6; i++)
                ck_assert_int_eq(set(&s, keys[i], "v", NULL, 0, NULL), 0);
        ck_assert_str_eq(keys_like(&s, "user%", 0, NULL, NULL), "user1 user2 ");
        ck_assert_str_eq(keys_like(&s, "us_r%", 0, NULL, NULL), "user1 user2 us_r us%r ");
        ck_assert_str_eq(keys_like(&s, "us\\_r", 0, NULL, NULL), "us_r ");
        ck_assert_str_eq(keys_like(&s, "us\\%r", 0, NULL, NULL), "us%r ");
        ck_assert_str_eq(keys_like(&s, "k_se", 0, NULL, NULL), "käse ");
        ck_assert_str_eq(keys_like(&s, "%1", 0, NULL, NULL), "user1 order1 ");
        ck_assert_str_eq(keys_like(&s, "%r%1", 0, NULL, NULL), "user1 order1 ");
        ck_assert_str_eq(keys_like(&s, "nothing", 0, NULL, NULL), "");
        ck_assert_str_eq(keys_like(&s, "", 0, NULL, NULL), "keys like pattern cannot be empty");
        ck_assert_str_eq(keys_like(&s, "%", 4, NULL, &t), "user1 user2 us_r us%r ");
        ck_assert_str_eq(t, "4");
        ck_assert_str_eq(keys_like(&s, "%", 4, t, &t), "käse order1 ");
        ck_assert_str_eq(t, "");
        ck_assert(strstr(keys_like(&s, "%", 4, "x", NULL), "invalid continue token") != NULL);
        fault_close(&s.f);
}

ON_LOOP_TEST(prefixes_reach_one_level)
{
        struct store s;
        Microdapr__Plugin__V1__DeleteWithPrefixRequest r = MICRODAPR__PLUGIN__V1__DELETE_WITH_PREFIX_REQUEST__INIT;
        Microdapr__Plugin__V1__DeleteWithPrefixResponse *resp;
        const char *method = "/microdapr.plugin.v1.StateStoreExtra/DeleteWithPrefix";
        const ProtobufCMessageDescriptor *d = &microdapr__plugin__v1__delete_with_prefix_response__descriptor;
        open_store(&s);
        const char *keys[] = {"a||1", "a||2", "a||b||3", "ab||1", "a"};
        for (int i = 0; i < 5; i++)
                ck_assert_int_eq(set(&s, keys[i], "v", NULL, 0, NULL), 0);
        r.prefix = "a";
        ck_assert_int_eq(component_call(s.c, &s.f.arena, method, &r.base, d, &resp, &s.st), 0);
        ck_assert_int_eq(resp->count, 2);
        ck_assert(holds(&s, "a||1", NULL) && holds(&s, "a||b||3", "v") && holds(&s, "ab||1", "v") && holds(&s, "a", "v"));
        r.prefix = "||";
        ck_assert_int_eq(component_call(s.c, &s.f.arena, method, &r.base, d, &resp, &s.st), RPC_INVALID_ARGUMENT);
        fault_close(&s.f);
}

ON_LOOP_TEST(large_and_empty_values)
{
        struct store s;
        open_store(&s);
        size_t n = 8 * 1024 * 1024; /* above gRPC's usual limit */
        char *big = arena_alloc(&s.f.arena, n + 1);
        memset(big, 'x', n);
        big[n] = '\0';
        ck_assert_int_eq(set(&s, "big", big, NULL, 0, NULL), 0);
        ck_assert_uint_eq(get(&s, "big")->data.len, n);
        ck_assert_int_eq(set(&s, "empty", "", NULL, 0, NULL), 0);
        ck_assert(get(&s, "empty")->data.len == 0 && get(&s, "empty")->etag);
        fault_close(&s.f);
}

int main(void)
{
        Suite *s = suite_create("state.in-memory");
        TCase *t = tcase_create("store");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, etags_guard_writes);
        tcase_add_test(t, values_expire);
        tcase_add_test(t, transactions_are_all_or_nothing);
        tcase_add_test(t, keys_are_found_by_pattern_and_page);
        tcase_add_test(t, prefixes_reach_one_level);
        tcase_add_test(t, large_and_empty_values);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
