/* Multicast DNS packets: what is written reads back, compressed names are followed backwards only, and no cut packet is read past its
 * end. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "plugins/nameresolution.mdns/packet.h"

static struct mdns_name name_of(const char *text)
{
        struct mdns_name n;
        ck_assert_int_eq(mdns_name_set(&n, str_of(text)), 0);
        return n;
}

/* Reads all of a copy that ends where the memory does. Returns the records read, or < 0. */
static int read_all(const void *p, size_t n, struct mdns_record *v, int max)
{
        char *copy = malloc(n ? n : 1);
        struct mdns_reader r;
        struct mdns_record rec;
        int count = 0, got = -EBADMSG;
        memcpy(copy, p, n);
        if (mdns_read_init(&r, str_n(copy, n)) == 0)
                while ((got = mdns_read(&r, &rec)) == 1) {
                        rec.text = STR_NULL; /* in the copy */
                        if (count < max)
                                v[count] = rec;
                        count++;
                }
        free(copy);
        return got < 0 ? got : count;
}

static void write_sidecar(struct mdns_writer *w)
{
        struct mdns_name service = name_of("myapp.local."), instance = name_of("host:1.myapp.local"), host = name_of("host.local");
        uint8_t v4[4] = {192, 0, 2, 1}, v6[16] = {0xfd, [15] = 1};
        mdns_write_init(w, 7, true);
        mdns_write_question(w, &service, MDNS_PTR);
        mdns_write_ptr(w, MDNS_ANSWER, &service, 3200, &instance);
        mdns_write_srv(w, MDNS_ADDITIONAL, &instance, 3200, true, 50002, &host);
        mdns_write_txt(w, MDNS_ADDITIONAL, &instance, 3200, false, STR("myapp"));
        mdns_write_addr(w, MDNS_ADDITIONAL, &host, 120, false, v4, 4);
        mdns_write_addr(w, MDNS_ADDITIONAL, &host, 120, false, v6, 16);
        ck_assert(!w->failed);
}

START_TEST(what_is_written_reads_back)
{
        static struct mdns_writer w;
        struct mdns_reader r;
        static struct mdns_record rec[6];
        struct mdns_name service = name_of("MyApp.Local"), instance = name_of("host:1.myapp.local"), host = name_of("host.local");
        write_sidecar(&w);
        ck_assert_int_eq(mdns_read_init(&r, str_n(w.b, w.n)), 0);
        ck_assert(r.response && r.id == 7);
        for (int i = 0; i < 6; i++)
                ck_assert_int_eq(mdns_read(&r, &rec[i]), 1);
        struct mdns_record end;
        ck_assert_int_eq(mdns_read(&r, &end), 0);
        ck_assert(rec[0].section == MDNS_QUESTION && rec[0].type == MDNS_PTR && mdns_name_eq(&rec[0].name, &service));
        ck_assert(rec[1].section == MDNS_ANSWER && rec[1].ttl == 3200 && mdns_name_eq(&rec[1].target, &instance));
        ck_assert(rec[2].section == MDNS_ADDITIONAL && rec[2].port == 50002 && rec[2].top_bit && rec[2].class == 1);
        ck_assert(mdns_name_eq(&rec[2].target, &host));
        ck_assert(rec[3].type == MDNS_TXT && str_eqz(rec[3].text, "myapp"));
        ck_assert(rec[4].type == MDNS_A && rec[4].addr.v4.s_addr == htonl(0xc0000201));
        ck_assert(rec[5].type == MDNS_AAAA && rec[5].addr.v6.s6_addr[15] == 1);
}
END_TEST

START_TEST(a_packet_cut_anywhere_is_refused)
{
        static struct mdns_writer w;
        static struct mdns_record rec[6];
        write_sidecar(&w);
        for (size_t n = 0; n < w.n; n++)
                ck_assert_int_eq(read_all(w.b, n, rec, 6), -EBADMSG);
        ck_assert_int_eq(read_all(w.b, w.n, rec, 6), 6);
}
END_TEST

/* 1 answer: PTR a.local -> b.a.local by pointers. */
static const char compressed[] = "\0\0\x84\0\0\0\0\1\0\0\0\0"
                                 "\1a\5local\0\0\x0c\0\1\0\0\x0c\x80\0\4\1b\xc0\x0c";

START_TEST(compressed_names_are_followed)
{
        struct mdns_record rec;
        struct mdns_name want = name_of("b.a.local");
        ck_assert_int_eq(read_all(compressed, sizeof compressed - 1, &rec, 1), 1);
        ck_assert(mdns_name_eq(&rec.target, &want));
}
END_TEST

START_TEST(pointers_go_backwards_only)
{
        char p[sizeof compressed - 1];
        struct mdns_record rec;
        const size_t last = sizeof p - 1;
        memcpy(p, compressed, sizeof p);
        for (int target = 0; target < 0x40; target++) {
                p[last] = (char)target;
                int r = read_all(p, sizeof p, &rec, 1);
                if (target == 12 || target == 14) /* the labels of the name before */
                        ck_assert_int_eq(r, 1);
                if (target < 12 || (size_t)target >= sizeof p - 4) /* the header, itself, what follows */
                        ck_assert_int_eq(r, -EBADMSG);
        }
}
END_TEST

START_TEST(limits_are_kept)
{
        struct mdns_record rec;
        struct mdns_name n;
        char many[12] = "\0\0\x84\0\0\0\0\0\0\0\0\0", label[66], *big = calloc(1, MDNS_PACKET_MAX + 1);
        many[6] = 2;
        many[7] = 1; /* 513 records */
        ck_assert_int_eq(read_all(many, 12, &rec, 1), -EBADMSG);
        big[2] = (char)0x84;
        ck_assert_int_eq(read_all(big, MDNS_PACKET_MAX, &rec, 1), 0);
        ck_assert_int_eq(read_all(big, MDNS_PACKET_MAX + 1, &rec, 1), -EBADMSG);
        memset(label, 'x', 64);
        label[64] = '\0';
        ck_assert_int_eq(mdns_name_set(&n, str_of(label)), -EINVAL);
        label[63] = '\0';
        ck_assert_int_eq(mdns_name_set(&n, str_of(label)), 0);
        char text[4 * 64 + 1];
        for (int i = 0; i < 4; i++) {
                memset(text + i * 64, 'y', 63);
                text[i * 64 + 63] = i < 3 ? '.' : '\0';
        }
        ck_assert_int_eq(mdns_name_set(&n, str_of(text)), -EINVAL); /* 257 bytes */
        text[4 * 64 - 3] = '\0';
        ck_assert_int_eq(mdns_name_set(&n, str_of(text)), 0); /* 255 */
        ck_assert_int_eq(mdns_name_set(&n, STR("a..b")), -EINVAL);
        ck_assert_int_eq(mdns_name_set(&n, STR("")), -EINVAL);
        ck_assert_int_eq(mdns_name_set(&n, STR(".")), -EINVAL);
        free(big);
}
END_TEST

START_TEST(a_chain_of_pointers_has_an_end)
{
        /* an unknown record whose data are a name and pointers, each to the one before; a question whose name is the nth of them */
        static const char head[] = "\0\0\x84\0\0\0\0\2\0\0\0\0"
                                   "\1a\0\0\x2f\0\1\0\0\0\1\0\x64\1b\0";
        char p[200];
        struct mdns_record rec[2];
        for (int hops = 1; hops <= 48; hops++) {
                size_t at = sizeof head - 1, first = at - 3;
                memcpy(p, head, at);
                for (int i = 0; i < 48; i++, at += 2) {
                        p[at] = (char)0xc0;
                        p[at + 1] = (char)(i ? at - 2 : first);
                }
                p[at++] = 0; /* 100 bytes of data */
                p[at++] = (char)0xc0;
                p[at++] = (char)(first + 3 + 2 * (size_t)(hops - 2 + 0));
                if (hops == 1)
                        p[at - 1] = (char)first;
                memcpy(p + at, "\0\1\0\1\0\0\0\1\0\4\1\2\3\4", 14);
                ck_assert_int_eq(read_all(p, at + 14, rec, 2), hops <= MDNS_HOPS_MAX ? 2 : -EBADMSG);
        }
}
END_TEST

START_TEST(other_records_are_passed_over)
{
        static const char p[] = "\0\0\x84\0\0\0\0\2\0\0\0\0"
                                "\1a\0\0\x2f\0\1\0\0\0\1\0\3xyz"
                                "\1a\0\0\1\0\1\0\0\0\1\0\4\1\2\3\4";
        struct mdns_record rec[2];
        ck_assert_int_eq(read_all(p, sizeof p - 1, rec, 2), 2);
        ck_assert(rec[0].type == 47 && rec[1].type == MDNS_A && rec[1].addr.v4.s_addr == htonl(0x01020304));
}
END_TEST

START_TEST(what_does_not_fit_is_not_sent)
{
        static struct mdns_writer w;
        struct mdns_name n = name_of("a-name-of-some-length.local");
        mdns_write_init(&w, 0, true);
        for (int i = 0; i < 100 && !w.failed; i++)
                mdns_write_txt(&w, MDNS_ANSWER, &n, 1, false, STR("text"));
        ck_assert(w.failed && w.n <= MDNS_OUT_MAX);
}
END_TEST

START_TEST(keys_keep_case_and_lose_labels)
{
        struct mdns_name n = name_of("Host:1.MyApp.local");
        uint8_t bytes[MDNS_NAME_MAX];
        struct str key = mdns_name_key(&n, bytes);
        key = str_skip(key, mdns_label_bytes(key));
        ck_assert(str_eq(key, str_n("\5MyApp\5local", 13)));
        key = str_skip(key, mdns_label_bytes(key));
        key = str_skip(key, mdns_label_bytes(key));
        ck_assert_uint_eq(key.n, 1);
        ck_assert_uint_eq(mdns_label_bytes(key), 0);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("mdns_packet");
        TCase *t = tcase_create("packets");
        suite_add_tcase(s, t);
        tcase_add_test(t, what_is_written_reads_back);
        tcase_add_test(t, a_packet_cut_anywhere_is_refused);
        tcase_add_test(t, compressed_names_are_followed);
        tcase_add_test(t, pointers_go_backwards_only);
        tcase_add_test(t, limits_are_kept);
        tcase_add_test(t, a_chain_of_pointers_has_an_end);
        tcase_add_test(t, other_records_are_passed_over);
        tcase_add_test(t, what_does_not_fit_is_not_sent);
        tcase_add_test(t, keys_keep_case_and_lose_labels);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
