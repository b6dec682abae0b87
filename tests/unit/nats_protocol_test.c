/* NATS operations: what is written reads back, half an operation waits, bad ones are refused; headers, subjects, replies of JetStream. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugins/shared/nats/nkey.h"
#include "plugins/shared/nats/protocol.h"

static struct nats_op read_one(struct str s, size_t *used)
{
        struct nats_op op;
        ck_assert_int_eq(nats_op_get(s, &op, used), 1);
        return op;
}

START_TEST(operations_of_a_server_are_read)
{
        static const struct {
                const char *in;
                enum nats_kind kind;
                const char *text, *subject, *reply, *headers, *payload;
                uint64_t sid;
        } v[] = {
                {"PING\r\n", NATS_PING, "", "", "", "", "", 0},
                {"pong\n", NATS_PONG, "", "", "", "", "", 0},
                {"+OK\r\n", NATS_OK, "", "", "", "", "", 0},
                {"INFO {\"a\":1} \r\n", NATS_INFO, "{\"a\":1}", "", "", "", "", 0},
                {"-ERR 'Unknown Protocol'\r\n", NATS_ERR, "Unknown Protocol", "", "", "", "", 0},
                {"MSG a.b 7 5\r\nhello\r\n", NATS_MSG, "", "a.b", "", "", "hello", 7},
                {"MSG a.b 18446744073709551615 r.1 0\r\n\r\n", NATS_MSG, "", "a.b", "r.1", "", "", UINT64_MAX},
                {"HMSG s 1 12 14\r\nNATS/1.0\r\n\r\nok\r\n", NATS_MSG, "", "s", "", "NATS/1.0\r\n\r\n", "ok", 1},
                {"hmsg\ts  1\tr 12 12\r\nNATS/1.0\r\n\r\n\r\n", NATS_MSG, "", "s", "r", "NATS/1.0\r\n\r\n", "", 1},
        };
        for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) {
                size_t used, n = strlen(v[i].in);
                struct nats_op op;
                for (size_t k = 0; k < n; k++)
                        ck_assert_int_eq(nats_op_get(str_n(v[i].in, k), &op, &used), 0);
                op = read_one(str_of(v[i].in), &used);
                ck_assert_uint_eq(used, n);
                ck_assert(op.kind == v[i].kind && op.sid == v[i].sid && str_eqz(op.text, v[i].text) && str_eqz(op.subject, v[i].subject));
                ck_assert(str_eqz(op.reply, v[i].reply) && str_eqz(op.headers, v[i].headers) && str_eqz(op.payload, v[i].payload));
        }
}
END_TEST

START_TEST(bad_operations_are_refused)
{
        static const char *const bad[] = {
                "HELLO\r\n", "\r\n", "MSG\r\n", "MSG a 1\r\n", "MSG a x 1\r\n", "MSG a 1 -1\r\n", "MSG a 1 r x 1\r\n", "MSG a 1 2\r\nabcd\r\n",
                "HMSG a 1 5 4\r\nabcd\r\n", "HMSG a 1 4\r\nabcd\r\n", "MSG a 1 99999999999999999999999\r\n", "MSG a 18446744073709551616 1\r\n",
                "MSG a b c d e f g h i j\r\n"};
        struct nats_op op;
        size_t used;
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                ck_assert_int_eq(nats_op_get(str_of(bad[i]), &op, &used), -EBADMSG);
        ck_assert_int_eq(nats_op_get(STR("MSG a 1 67108865\r\n"), &op, &used), -EMSGSIZE);
        char *line = malloc(NATS_LINE_MAX + 1);
        memset(line, 'x', NATS_LINE_MAX + 1);
        ck_assert_int_eq(nats_op_get(str_n(line, NATS_LINE_MAX - 1), &op, &used), 0);
        ck_assert_int_eq(nats_op_get(str_n(line, NATS_LINE_MAX + 1), &op, &used), -EMSGSIZE);
        free(line);
}
END_TEST

START_TEST(what_a_client_sends)
{
        struct buf b = {0};
        nats_put_pub(&b, STR("a"), STR(""), STR(""), STR("x"));
        nats_put_pub(&b, STR("a"), STR("r"), STR("NATS/1.0\r\nK: v\r\n\r\n"), STR("xyz"));
        nats_put_sub(&b, STR("t.>"), STR(""), 2);
        nats_put_sub(&b, STR("t"), STR("q"), 3);
        nats_put_unsub(&b, 3);
        ck_assert(str_eqz(buf_str(&b), "PUB a 1\r\nx\r\nHPUB a r 18 21\r\nNATS/1.0\r\nK: v\r\n\r\nxyz\r\nSUB t.> 2\r\nSUB t q 3\r\nUNSUB 3\r\n"));
        buf_fini(&b);
}
END_TEST

START_TEST(headers_and_statuses)
{
        struct str words, h = STR("NATS/1.0 100 FlowControl Request\r\nNats-Last: 7\r\nodd\r\nEmpty:\r\n\r\n");
        ck_assert_int_eq(nats_status(h, &words), 100);
        ck_assert(str_eqz(words, "FlowControl Request"));
        ck_assert(str_eqz(nats_header(h, STR("nats-last")), "7"));
        ck_assert(nats_header(h, STR("Empty")).p && nats_header(h, STR("Empty")).n == 0);
        ck_assert(!nats_header(h, STR("odd")).p && !nats_header(h, STR("none")).p && !nats_header(STR(""), STR("x")).p);
        ck_assert_int_eq(nats_status(STR("NATS/1.0 503\r\n\r\n"), &words), 503);
        ck_assert_uint_eq(words.n, 0);
        ck_assert_int_eq(nats_status(STR("NATS/1.0\r\n\r\n"), &words), 0);
        ck_assert_int_eq(nats_status(STR(""), &words), 0);
}
END_TEST

START_TEST(subjects_and_names)
{
        static const char *const good[] = {"a", "a.b", "orders.x-1", "a*b", "$JS.API"}, *const patterns[] = {"*", ">", "a.*.b", "a.>"};
        static const char *const bad[] = {"", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\n", "a.>.b", ">.a"};
        for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
                ck_assert(!nats_subject_fault(str_of(good[i]), false) && !nats_subject_fault(str_of(good[i]), true));
        for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
                ck_assert(nats_subject_fault(str_of(patterns[i]), false) && !nats_subject_fault(str_of(patterns[i]), true));
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                ck_assert(nats_subject_fault(str_of(bad[i]), true));
        ck_assert(nats_is_name(STR("a-b")) && !nats_is_name(STR("")) && !nats_is_name(STR("a.b")) && !nats_is_name(STR("a*")) && !nats_is_name(STR("a/b")));
}
END_TEST

START_TEST(replies_of_jetstream)
{
        struct nats_delivery d;
        ck_assert_int_eq(nats_delivery_get(STR("$JS.ACK.ORDERS.app.2.42.7.1700000000.3"), &d), 0);
        ck_assert(str_eqz(d.stream, "ORDERS") && str_eqz(d.consumer, "app") && d.deliveries == 2 && d.sequence == 42);
        ck_assert_int_eq(nats_delivery_get(STR("$JS.ACK.hub.ACC.ORDERS.app.1.43.8.1700000000.0.rnd"), &d), 0);
        ck_assert(str_eqz(d.stream, "ORDERS") && d.deliveries == 1 && d.sequence == 43);
        ck_assert_int_eq(nats_delivery_get(STR("_INBOX.1"), &d), -EBADMSG);
        ck_assert_int_eq(nats_delivery_get(STR("$JS.ACK.ORDERS.app.2.x.7.1.3"), &d), -EBADMSG);
        ck_assert_int_eq(nats_delivery_get(STR("$JS.ACK.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q"), &d), -EBADMSG);
        ck_assert_int_eq(nats_delivery_get(STR(""), &d), -EBADMSG);
}
END_TEST

/* A seed of thirty-two bytes 0 … 31, and what Ed25519 makes of "nonce" with it. */
START_TEST(seeds_sign)
{
        const char *seed = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";
        char sig[NKEY_SIGNATURE_BYTES];
        ck_assert(nkey_is_user_seed(str_of(seed)));
        ck_assert_int_eq(nkey_sign(str_of(seed), STR("nonce"), sig), 0);
        ck_assert_str_eq(sig, "-HTq4d6DDHVNb8MsTRAZtSIa0vXA_yuZblwTA7JT5wYzmKBxJ2wpYfjHh7hcptZlidbVw_6ZLyubjm_yDk-OCQ");
        for (size_t i = 0; seed[i]; i++) { /* the checksum finds a wrong letter; the last has two bits that say nothing */
                char wrong[64];
                snprintf(wrong, sizeof(wrong), "%s", seed);
                wrong[i] = wrong[i] == 'B' ? 'C' : 'B';
                ck_assert(!nkey_is_user_seed(str_of(wrong)));
        }
        ck_assert(!nkey_is_user_seed(STR("")) && !nkey_is_user_seed(STR("SU")));
        ck_assert_int_eq(nkey_sign(STR("SU"), STR("nonce"), sig), -EINVAL);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("nats");
        TCase *t = tcase_create("protocol");
        tcase_add_test(t, operations_of_a_server_are_read);
        tcase_add_test(t, bad_operations_are_refused);
        tcase_add_test(t, what_a_client_sends);
        tcase_add_test(t, headers_and_statuses);
        tcase_add_test(t, subjects_and_names);
        tcase_add_test(t, replies_of_jetstream);
        tcase_add_test(t, seeds_sign);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
