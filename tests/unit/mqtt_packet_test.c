/* MQTT packets: what is written reads back, half a packet waits, bad ones are refused; filters as the specification's examples. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "plugins/shared/mqtt/packet.h"

static struct mqtt_packet read_one(struct buf *b)
{
        struct mqtt_packet p;
        size_t used;
        ck_assert_int_eq(mqtt_packet_get(buf_str(b), &p, &used), 1);
        ck_assert_uint_eq(used, buf_len(b));
        return p;
}

START_TEST(a_publish_reads_back)
{
        static const size_t sizes[] = {0, 1, 100, 127, 128, 16383, 16384, 2097152};
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
                for (uint8_t qos = 0; qos < 3; qos++) {
                        struct buf b = {0};
                        char *payload = calloc(1, sizes[i] + 1);
                        struct mqtt_publish in = {STR("a/b"), str_n(payload, sizes[i]), qos ? 65535 : 0, qos, qos == 1, qos == 2}, out;
                        ck_assert_int_eq(mqtt_put_publish(&b, &in), 0);
                        struct mqtt_packet p = read_one(&b);
                        ck_assert_int_eq(p.type, MQTT_PUBLISH);
                        ck_assert_int_eq(mqtt_publish_get(&p, &out), 0);
                        ck_assert(str_eq(out.topic, in.topic) && out.payload.n == sizes[i]);
                        ck_assert(out.id == in.id && out.qos == qos && out.retain == in.retain && out.dup == in.dup);
                        buf_fini(&b);
                        free(payload);
                }
}
END_TEST

START_TEST(half_a_packet_waits_for_the_rest)
{
        struct buf b = {0};
        struct mqtt_publish m = {STR("topic"), STR("payload"), 7, 1, false, false};
        struct mqtt_packet p;
        size_t used;
        mqtt_put_publish(&b, &m);
        for (size_t n = 0; n < buf_len(&b); n++)
                ck_assert_int_eq(mqtt_packet_get(str_n(b.p, n), &p, &used), 0);
        buf_fini(&b);
}
END_TEST

START_TEST(bad_packets_are_refused)
{
        static const struct str bad[] = {STR("\x30\x00"), STR("\x30\x01\x00"), STR("\x30\x02\x00\x05"), STR("\x32\x03\x00\x01t"),
                                         STR("\x32\x05\x00\x01t\x00\x00"), STR("\x36\x05\x00\x01t\x00\x01")};
        struct mqtt_packet p;
        struct mqtt_publish m;
        size_t used;
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                ck_assert_int_eq(mqtt_packet_get(bad[i], &p, &used), 1);
                ck_assert_int_eq(mqtt_publish_get(&p, &m), -EBADMSG);
        }
        ck_assert_int_eq(mqtt_packet_get(STR("\x30\xff\xff\xff\xff\x01"), &p, &used), -EBADMSG);
        ck_assert_int_eq(mqtt_packet_get(STR("\x30\xff\xff\xff\x7f"), &p, &used), -EMSGSIZE);
        p = (struct mqtt_packet){MQTT_PUBACK, 0, STR("\x01")};
        ck_assert_int_eq(mqtt_id_get(&p), -1);
}
END_TEST

START_TEST(connect_says_who_we_are)
{
        struct buf b = {0};
        ck_assert_int_eq(mqtt_put_connect(&b, "me", "u", "pw", true, 30), 0);
        struct mqtt_packet p = read_one(&b);
        ck_assert(str_eq(p.body, str_n("\0\4MQTT\4\xc2\0\x1e\0\2me\0\1u\0\2pw", 21)));
        buf_clear(&b);
        mqtt_put_connect(&b, "me", NULL, NULL, false, 0);
        p = read_one(&b);
        ck_assert(str_eq(p.body, str_n("\0\4MQTT\4\0\0\0\0\2me", 14)));
        buf_fini(&b);
}
END_TEST

START_TEST(filters_fit_as_specified)
{
        static const struct {
                const char *filter, *topic;
                bool fits;
        } rows[] = {
                {"sport/tennis/player1/#", "sport/tennis/player1", true}, {"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
                {"sport/#", "sport", true}, {"#", "a/b", true}, {"sport/tennis/+", "sport/tennis/player1", true},
                {"sport/tennis/+", "sport/tennis/player1/ranking", false}, {"sport/+", "sport", false}, {"sport/+", "sport/", true},
                {"+/+", "/finance", true}, {"/+", "/finance", true}, {"+", "/finance", false}, {"a", "a", true}, {"a", "a/b", false},
                {"a/b", "a", false}, {"a", "A", false}, {"$share/g/a/+", "a/b", true}, {"$share/g/a", "a", true}, {"$share/g", "a", false},
                {"$share/g/#", "x/y", true},
        };
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
                ck_assert_msg(mqtt_topic_fits(str_of(rows[i].filter), str_of(rows[i].topic)) == rows[i].fits, "%s %s", rows[i].filter, rows[i].topic);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("mqtt packets");
        TCase *t = tcase_create("packets");
        tcase_add_test(t, a_publish_reads_back);
        tcase_add_test(t, half_a_packet_waits_for_the_rest);
        tcase_add_test(t, bad_packets_are_refused);
        tcase_add_test(t, connect_says_who_we_are);
        tcase_add_test(t, filters_fit_as_specified);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
