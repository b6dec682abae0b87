/* Exchanging plugins: which calls may be done twice, how times are counted, when a candidate is called slow or leaking. */
#include <check.h>
#include <stdio.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/super/swap.h"
#include "sdk/base/pb.h"

typedef Dapr__Proto__Components__V1__SetRequest set_request;

#define STORE "/dapr.proto.components.v1.StateStore/"

static bool repeated(const char *method, const ProtobufCMessage *m)
{
        struct arena a;
        arena_init(&a, 0);
        bool may = call_may_be_repeated(&a, method, m ? pb_pack(&a, m) : STR(""));
        arena_fini(&a);
        return may;
}

START_TEST(only_what_ends_the_same_is_done_twice)
{
        Dapr__Proto__Components__V1__Etag etag = DAPR__PROTO__COMPONENTS__V1__ETAG__INIT;
        Dapr__Proto__Components__V1__StateOptions options = DAPR__PROTO__COMPONENTS__V1__STATE_OPTIONS__INIT;
        Dapr__Proto__Components__V1__BulkSetRequest bulk = DAPR__PROTO__COMPONENTS__V1__BULK_SET_REQUEST__INIT;
        Dapr__Proto__Components__V1__DeleteRequest del = DAPR__PROTO__COMPONENTS__V1__DELETE_REQUEST__INIT;
        set_request set = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT, other = set, *items[] = {&set, &other};
        set.key = other.key = del.key = "k";
        bulk.items = items;
        bulk.n_items = 2;
        ck_assert(repeated(STORE "Set", &set.base) && repeated(STORE "BulkSet", &bulk.base) && repeated(STORE "Delete", &del.base));
        options.concurrency = DAPR__PROTO__COMPONENTS__V1__STATE_OPTIONS__STATE_CONCURRENCY__CONCURRENCY_LAST_WRITE;
        set.options = &options;
        ck_assert(repeated(STORE "Set", &set.base));
        options.concurrency = DAPR__PROTO__COMPONENTS__V1__STATE_OPTIONS__STATE_CONCURRENCY__CONCURRENCY_FIRST_WRITE;
        ck_assert(!repeated(STORE "Set", &set.base) && !repeated(STORE "BulkSet", &bulk.base));
        set.options = NULL;
        etag.value = "1";
        other.etag = del.etag = &etag;
        ck_assert(repeated(STORE "Set", &set.base) && !repeated(STORE "Set", &other.base) && !repeated(STORE "BulkSet", &bulk.base));
        ck_assert(!repeated(STORE "Delete", &del.base));
        ck_assert(repeated("/dapr.proto.components.v1.PubSub/Publish", NULL));
        ck_assert(!repeated("/dapr.proto.components.v1.OutputBinding/Invoke", NULL));
        ck_assert(!repeated("/dapr.proto.components.v1.TransactionalStateStore/Transact", NULL));
}
END_TEST

START_TEST(bytes_that_are_no_request_are_not_sent_again)
{
        struct arena a;
        arena_init(&a, 0);
        ck_assert(!call_may_be_repeated(&a, STORE "Set", STR("\xff\xff")));
        arena_fini(&a);
}
END_TEST

START_TEST(times_are_right_within_a_fifth)
{
        struct shadow_times t = {0};
        ck_assert(shadow_times_ms(&t, 0.99) == 0);
        for (int i = 1; i <= 1000; i++)
                shadow_times_add(&t, i / 1e3);
        ck_assert(shadow_times_ms(&t, 0.5) >= 500 && shadow_times_ms(&t, 0.5) < 600);
        ck_assert(shadow_times_ms(&t, 0.99) >= 990 && shadow_times_ms(&t, 0.99) < 1190);
        shadow_times_add(&t, 1e9);
        shadow_times_add(&t, 0);
        ck_assert(t.n == 1002 && t.buckets[SHADOW_BUCKETS - 1] == 1 && t.buckets[0] == 1);
}
END_TEST

static const char *verdict(const struct shadow *s)
{
        static char text[300];
        struct arena a;
        arena_init(&a, 0);
        const char *why = shadow_verdict(s, &a);
        snprintf(text, sizeof text, "%s", why ? why : "");
        arena_fini(&a);
        return text;
}

static void answer(struct shadow *s, size_t part, double theirs, double present)
{
        for (int i = 0; i < SHADOW_P99_READS; i++) {
                shadow_times_add(&s->theirs[part], theirs);
                shadow_times_add(&s->present[part], present);
        }
}

START_TEST(one_pause_is_no_verdict_but_being_slow_is)
{
        static struct shadow s;
        s = (struct shadow){.seconds = 2};
        for (size_t i = 0; i < SHADOW_SAMPLES; i++)
                answer(&s, i, i < SHADOW_SLOWER_PARTS - 1 ? 0.1 : 0.002, 0.002);
        ck_assert_str_eq(verdict(&s), "");
        answer(&s, SHADOW_SAMPLES - 1, 0.1, 0.002);
        answer(&s, SHADOW_SAMPLES - 1, 0.1, 0.002);
        ck_assert(strstr(verdict(&s), "slower under shadow: p50"));
        s.differences = 1;
        ck_assert(strstr(verdict(&s), "wrong answers"));
}
END_TEST

START_TEST(what_grows_on_leaks_and_what_fills_up_does_not)
{
        static struct shadow s;
        s = (struct shadow){.seconds = 2};
        for (size_t i = 0; i <= SHADOW_SAMPLES; i++) {
                s.memory[0][i] = (10 + 4 * i) << 20;
                s.memory[1][i] = 20 << 20;
        }
        ck_assert(strstr(verdict(&s), "leaks under shadow: it has grown by 16.0 MiB, to 42.0"));
        s.memory[1][SHADOW_SAMPLES] = 30 << 20; /* so does the present one */
        ck_assert_str_eq(verdict(&s), "");
        s.memory[1][SHADOW_SAMPLES] = 20 << 20;
        s.memory[0][SHADOW_SAMPLES] = s.memory[0][SHADOW_SAMPLES - 1]; /* it has stopped */
        ck_assert_str_eq(verdict(&s), "");
        s.memory[0][SHADOW_SAMPLES] = 42 << 20;
        s.seconds = 1;
        ck_assert_str_eq(verdict(&s), "");
}
END_TEST

int main(void)
{
        Suite *s = suite_create("swap");
        TCase *t = tcase_create("swap");
        tcase_add_test(t, only_what_ends_the_same_is_done_twice);
        tcase_add_test(t, bytes_that_are_no_request_are_not_sent_again);
        tcase_add_test(t, times_are_right_within_a_fifth);
        tcase_add_test(t, one_pause_is_no_verdict_but_being_slow_is);
        tcase_add_test(t, what_grows_on_leaks_and_what_fills_up_does_not);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
