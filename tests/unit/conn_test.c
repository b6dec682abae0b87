/* Connections and listeners, in process: both ends live on one loop. */
#include "tests/unit/net_test.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "sdk/net/dns.h"

struct echo {
        struct listener l;
        int conns, closed, last_err;
        bool half_answer;
};

static void echo_read(struct conn *c)
{
        conn_write(c, c->in.p + c->in.off, buf_len(&c->in));
        buf_clear(&c->in);
        if (conn_out_len(c) > CONN_HIGH_WATER)
                conn_pause_read(c, true);
}

static void echo_drain(struct conn *c)
{
        conn_pause_read(c, false);
}

static void echo_close(struct conn *c, int err)
{
        struct echo *e = c->owner;
        e->closed++;
        e->last_err = err;
        conn_close(c, 1);
}

static const struct conn_handler echo_handler = {echo_read, echo_drain, echo_close};

static void echo_accept(struct listener *l, struct conn *c)
{
        struct echo *e = l->owner;
        e->conns++;
        conn_set_handler(c, &echo_handler, e);
}

static void echo_open(struct echo *e, const char *addr)
{
        *e = (struct echo){0};
        ck_assert_int_eq(listener_open(&e->l, str_of(addr), echo_accept, e), 0);
}

static void expect_echo(struct conn *c, const char *text)
{
        buf_clear(&c->in);
        ck_assert_int_eq(conn_write(c, text, strlen(text)), 0);
        while (buf_len(&c->in) < strlen(text))
                ck_assert_int_eq(conn_read(c), 1);
        ck_assert_mem_eq(c->in.p + c->in.off, text, strlen(text));
}

static void echo_once(const char *listen_at, const char *dial)
{
        struct echo e;
        struct conn *c;
        char target[128];
        echo_open(&e, listen_at);
        if (dial)
                snprintf(target, sizeof(target), dial, listener_port(&e.l));
        else
                snprintf(target, sizeof(target), "%s", listen_at);
        ck_assert_int_eq(conn_dial(str_of(target), &c), 0);
        expect_echo(c, "hello");
        expect_echo(c, "again");
        conn_free(c);
        WAIT_FOR(e.closed == 1);
        ck_assert_int_eq(e.last_err, 0);
        listener_close(&e.l);
        listener_close(&e.l);
}

ON_LOOP_TEST(tcp_echoes_over_ipv4)
{
        echo_once("127.0.0.1:0", "127.0.0.1:%d");
}

ON_LOOP_TEST(tcp_echoes_over_ipv6)
{
        echo_once("[::1]:0", "[::1]:%d");
}

ON_LOOP_TEST(all_interfaces_serve_both_families)
{
        echo_once(":0", "127.0.0.1:%d");
        echo_once(":0", "[::1]:%d");
        echo_once(":0", "localhost:%d");
}

ON_LOOP_TEST(localhost_reaches_a_server_on_either_loopback)
{
        echo_once("127.0.0.1:0", "localhost:%d");
        echo_once("[::1]:0", "localhost:%d");
}

ON_LOOP_TEST(unix_sockets_echo_and_their_file_goes)
{
        char path[64], addr[80];
        struct stat st;
        snprintf(path, sizeof(path), "/tmp/conn_test.%d.sock", getpid());
        snprintf(addr, sizeof(addr), "unix:%s", path);
        echo_once(addr, NULL);
        ck_assert_int_lt(stat(path, &st), 0);
        snprintf(addr, sizeof(addr), "unix://%s", path);
        echo_once(addr, NULL);
        snprintf(addr, sizeof(addr), "unix-abstract:conn_test.%d", getpid());
        echo_once(addr, NULL);
}

ON_LOOP_TEST(stale_socket_file_is_replaced_but_a_live_one_is_not)
{
        char addr[80];
        struct echo a, b = {0};
        snprintf(addr, sizeof(addr), "unix:/tmp/conn_test.%d.sock", getpid());
        echo_open(&a, addr);
        ck_assert_int_eq(listener_open(&b.l, str_of(addr), echo_accept, &b), -EADDRINUSE);
        free(a.l.unlink_path);
        a.l.unlink_path = NULL;
        listener_close(&a.l); /* leaves the file */
        echo_open(&b, addr);
        listener_close(&b.l);
}

ON_LOOP_TEST(dial_reports_refusal_bad_targets_and_unknown_names)
{
        struct conn *c;
        struct echo e;
        char target[64];
        echo_open(&e, "127.0.0.1:0");
        snprintf(target, sizeof(target), "127.0.0.1:%d", listener_port(&e.l));
        listener_close(&e.l);
        ck_assert_int_eq(conn_dial(str_of(target), &c), -ECONNREFUSED);
        ck_assert_int_eq(conn_dial(STR("nohost"), &c), -EINVAL);
        ck_assert_int_eq(conn_dial(STR("h:99999"), &c), -EINVAL);
        ck_assert_int_eq(conn_dial(STR("::1:80"), &c), -EINVAL);
        ck_assert_int_eq(conn_dial(STR("unix:"), &c), -EINVAL);
        ck_assert_int_eq(conn_dial(STR("unix:/no/such/socket"), &c), -ENOENT);
        int r = conn_dial(STR("no-such-host.invalid:80"), &c);
        ck_assert(r == -ENOENT || r == -EAGAIN);
}

struct dial_result {
        int r;
        bool done;
};

static void dial_blackhole(void *arg)
{
        struct dial_result *d = arg;
        struct conn *c = NULL;
        fiber_set_deadline(loop_now() + 0.1);
        d->r = conn_dial(STR("192.0.2.1:81"), &c);
        if (!d->r)
                conn_free(c);
        d->done = true;
}

ON_LOOP_TEST(dial_keeps_the_fibers_deadline)
{
        struct scope s;
        struct dial_result d = {0};
        scope_init(&s);
        ck_assert_int_eq(fiber_go(&s, "dial", dial_blackhole, &d), 0);
        scope_join(&s);
        /* Some networks answer for documentation addresses. */
        ck_assert(d.done && (d.r == -ETIMEDOUT || d.r == -ENETUNREACH || d.r == -EHOSTUNREACH || d.r == 0 ||
                             d.r == -ECONNREFUSED));
}

ON_LOOP_TEST(megabytes_pass_with_bounded_buffers)
{
        enum { TOTAL = 32 << 20, CHUNK = 100000 };
        static char chunk[CHUNK];
        struct echo e;
        struct conn *c;
        size_t sent = 0, got = 0, most = 0, wrong = 0;
        echo_open(&e, "unix-abstract:conn_test_mb");
        ck_assert_int_eq(conn_dial(STR("unix-abstract:conn_test_mb"), &c), 0);
        while (got < TOTAL) {
                while (sent < TOTAL && conn_out_len(c) < CONN_HIGH_WATER) {
                        for (size_t i = 0; i < CHUNK; i++)
                                chunk[i] = (char)((sent + i) * 7 >> 3);
                        size_t n = TOTAL - sent < CHUNK ? TOTAL - sent : CHUNK;
                        ck_assert_int_eq(conn_write(c, chunk, n), 0);
                        sent += n;
                }
                ck_assert_int_eq(conn_read(c), 1);
                most = buf_len(&c->in) > most ? buf_len(&c->in) : most;
                const char *p = c->in.p + c->in.off;
                for (size_t i = 0, n = buf_len(&c->in); i < n; i++)
                        wrong += p[i] != (char)((got + i) * 7 >> 3);
                got += buf_len(&c->in);
                buf_clear(&c->in);
        }
        ck_assert_uint_eq(wrong, 0);
        ck_assert_uint_le(most, 2 * CONN_HIGH_WATER);
        conn_free(c);
        WAIT_FOR(e.closed);
        listener_close(&e.l);
}

/* A listener that takes connections and leaves them alone. */
static struct conn *idle_conn;
static void idle_accept(struct listener *l, struct conn *c)
{
        idle_conn = c;
}

static void idle_pair(struct listener *l, struct conn **c)
{
        idle_conn = NULL;
        ck_assert_int_eq(listener_open(l, STR("127.0.0.1:0"), idle_accept, NULL), 0);
        ck_assert_int_eq(conn_dial(str_of(l->addr), c), 0);
        WAIT_FOR(idle_conn);
        listener_close(l);
}

static void throttled_writer(void *arg)
{
        struct conn *c = arg;
        static char block[10000];
        int r = 0;
        while (!r) {
                r = conn_write(c, block, sizeof(block));
                if (!r)
                        r = conn_throttle(c);
                ck_assert_uint_le(conn_out_len(c), CONN_HIGH_WATER + sizeof(block));
        }
        ck_assert(r == -EPIPE || r == -ECONNRESET);
}

ON_LOOP_TEST(a_reader_that_does_not_read_stops_the_writer_and_its_end_frees_him)
{
        struct listener l;
        struct conn *c;
        struct scope s;
        scope_init(&s);
        idle_pair(&l, &c);
        ck_assert_int_eq(fiber_go(&s, "writer", throttled_writer, c), 0);
        WAIT_FOR(c->above_high && c->events & IO_WRITE);
        fiber_sleep(0.05);
        ck_assert_uint_eq(s.count, 1);
        conn_free(idle_conn);
        scope_join(&s);
        conn_free(c);
}

ON_LOOP_TEST(reading_stops_when_nobody_takes_the_bytes)
{
        struct listener l;
        struct conn *c;
        static char block[1 << 20];
        idle_pair(&l, &c);
        for (int i = 0; i < 16; i++)
                conn_write(c, block, sizeof(block));
        ck_assert_int_eq(conn_read(idle_conn), 1);
        fiber_sleep(0.1);
        ck_assert_uint_lt(buf_len(&idle_conn->in), CONN_HIGH_WATER + 6 * CONN_READ_BYTES);
        size_t before = buf_len(&idle_conn->in);
        ck_assert_int_eq(conn_read(idle_conn), 1);
        ck_assert_uint_gt(buf_len(&idle_conn->in), before);
        conn_free(c);
        conn_free(idle_conn);
}

ON_LOOP_TEST(end_of_stream_and_half_close)
{
        struct listener l;
        struct conn *c;
        idle_pair(&l, &c);
        conn_write(c, "last", 4);
        conn_close(c, 1);
        while (buf_len(&idle_conn->in) < 4)
                ck_assert_int_eq(conn_read(idle_conn), 1);
        ck_assert_int_eq(conn_read(idle_conn), 0);
        ck_assert_int_eq(conn_read(idle_conn), 0);
        ck_assert_int_eq(conn_write(idle_conn, "x", 1), 0); /* the peer has only ended its own side */
        ck_assert_int_eq(conn_flush(idle_conn), 0);
        conn_free(idle_conn);
        fiber_sleep(0.02);
}

ON_LOOP_TEST(close_sends_what_is_pending_to_a_slow_reader)
{
        struct listener l;
        struct conn *c;
        enum { TOTAL = 8 << 20 };
        static char block[TOTAL];
        size_t got = 0;
        memset(block, 'b', sizeof(block));
        idle_pair(&l, &c);
        conn_write(c, block, sizeof(block));
        conn_close(c, 10);
        for (int r; (r = conn_read(idle_conn));) {
                ck_assert_int_eq(r, 1);
                got += buf_len(&idle_conn->in);
                buf_clear(&idle_conn->in);
        }
        ck_assert_uint_eq(got, TOTAL);
        conn_free(idle_conn);
        fiber_sleep(0.02);
}

ON_LOOP_TEST(linger_ends_by_its_timer)
{
        struct listener l;
        struct conn *c;
        static char block[8 << 20];
        idle_pair(&l, &c);
        conn_write(c, block, sizeof(block));
        conn_close(c, 0.1);
        fiber_sleep(0.2);
        conn_free(idle_conn);
}

static void free_in_read(struct conn *c)
{
        conn_free(c);
}
static void close_in_read(struct conn *c)
{
        conn_write(c, "bye", 3);
        conn_close(c, 0);
}

ON_LOOP_TEST(a_handler_may_free_or_close_its_own_conn)
{
        static const struct conn_handler frees = {.on_read = free_in_read}, closes = {.on_read = close_in_read};
        for (int i = 0; i < 2; i++) {
                struct listener l;
                struct conn *c;
                idle_pair(&l, &c);
                conn_set_handler(idle_conn, i ? &closes : &frees, NULL);
                conn_write(c, "x", 1);
                int r;
                while ((r = conn_read(c)) == 1)
                        ;
                ck_assert_int_eq(r, 0);
                ck_assert_uint_eq(buf_len(&c->in), i ? 3 : 0);
                conn_free(c);
        }
}

ON_LOOP_TEST(a_new_handler_is_told_what_was_there_before)
{
        struct listener l;
        struct conn *c;
        struct echo e = {0};
        idle_pair(&l, &c);
        conn_write(c, "early", 5);
        ck_assert_int_eq(conn_read(idle_conn), 1);
        conn_set_handler(idle_conn, &echo_handler, &e);
        ck_assert_int_eq(conn_read(c), 1);
        ck_assert_uint_eq(buf_len(&c->in), 5);
        conn_free(c);
        WAIT_FOR(e.closed);
        /* and of the end */
        idle_pair(&l, &c);
        conn_free(c);
        ck_assert_int_eq(conn_read(idle_conn), 0);
        e.closed = 0;
        conn_set_handler(idle_conn, &echo_handler, &e);
        WAIT_FOR(e.closed == 1);
}

ON_LOOP_TEST(a_reset_reaches_reader_and_writer)
{
        struct listener l;
        struct conn *c;
        struct linger hard = {.l_onoff = 1};
        idle_pair(&l, &c);
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        conn_free(c);
        ck_assert_int_eq(conn_read(idle_conn), -ECONNRESET);
        ck_assert_int_eq(conn_write(idle_conn, "x", 1), -ECONNRESET);
        ck_assert_int_eq(conn_flush(idle_conn), -ECONNRESET);
        conn_free(idle_conn);
}

ON_LOOP_TEST(paused_listener_queues_connections)
{
        struct echo e;
        struct conn *c;
        echo_open(&e, "127.0.0.1:0");
        listener_pause(&e.l, true);
        ck_assert_int_eq(conn_dial(str_of(e.l.addr), &c), 0);
        fiber_sleep(0.05);
        ck_assert_int_eq(e.conns, 0);
        listener_pause(&e.l, false);
        expect_echo(c, "now");
        conn_free(c);
        listener_close(&e.l);
        WAIT_FOR(e.closed);
}

ON_LOOP_TEST(a_listener_without_descriptors_tries_again)
{
        struct echo e;
        struct conn *c;
        struct rlimit old, low;
        echo_open(&e, "127.0.0.1:0");
        listener_pause(&e.l, true);
        ck_assert_int_eq(conn_dial(str_of(e.l.addr), &c), 0);
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
        low = old;
        low.rlim_cur = (rlim_t)c->fd + 1;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        listener_pause(&e.l, false);
        fiber_sleep(0.15);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
        ck_assert_int_eq(e.conns, 0);
        expect_echo(c, "after all");
        conn_free(c);
        listener_close(&e.l);
        WAIT_FOR(e.closed);
}

static void look_up(void *arg)
{
        struct net_addr addrs[DNS_MAX_ADDRS];
        char name[256] = "";
        gethostname(name, sizeof(name) - 1);
        int n = dns_resolve(str_of(name), 80, addrs);
        /* what the machine's own name gives is its own business */
        ck_assert(n == -ENOENT || n == -EAGAIN || n == -ECANCELED || (n > 0 && n <= DNS_MAX_ADDRS));
        for (int i = 0; i < n; i++) {
                char text[64];
                net_addr_text(&addrs[i], text, sizeof(text));
                ck_assert(str_has_suffix(str_of(text), STR(":80")));
        }
        *(int *)arg = n;
}

ON_LOOP_TEST(names_are_looked_up_and_given_up)
{
        struct scope s;
        int n = 0;
        scope_init(&s);
        look_up(&n);
        ck_assert_int_ne(n, 0);
        fiber_go(&s, "look up", look_up, &n);
        fiber_yield();
        scope_cancel(&s);
        scope_join(&s);
}

START_TEST(addresses_are_split_and_printed)
{
        struct str h;
        uint16_t p;
        struct net_addr a;
        char text[112];
        ck_assert_int_eq(net_addr_split(STR("[fe80::1]:8080"), &h, &p), 0);
        ck_assert(str_eq(h, STR("fe80::1")) && p == 8080);
        ck_assert_int_eq(net_addr_split(STR(":80"), &h, &p), 0);
        ck_assert(h.n == 0 && p == 80);
        static const char *const bad[] = {"", ":", "x", "x:", "x:y", "x:65536", "x:-1", "[::1]", "[::1", "a:b:1", "x:000080"};
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
                ck_assert_msg(net_addr_split(str_of(bad[i]), &h, &p) == -EINVAL, "%s", bad[i]);
        ck_assert_int_eq(net_addr_literal(STR("::ffff:10.0.0.1"), 5, &a), 0);
        net_addr_text(&a, text, sizeof(text));
        ck_assert_str_eq(text, "10.0.0.1:5");
        ck_assert_int_eq(net_addr_unix(STR("unix:///run/x.sock"), &a), 0);
        net_addr_text(&a, text, sizeof(text));
        ck_assert_str_eq(text, "unix:/run/x.sock");
        char longpath[200] = "unix:/";
        memset(longpath + 6, 'a', 150);
        ck_assert_int_eq(net_addr_unix(str_of(longpath), &a), -ENAMETOOLONG);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("conn");
        TCase *t = tcase_create("conn");
        tcase_add_test(t, tcp_echoes_over_ipv4);
        tcase_add_test(t, tcp_echoes_over_ipv6);
        tcase_add_test(t, all_interfaces_serve_both_families);
        tcase_add_test(t, localhost_reaches_a_server_on_either_loopback);
        tcase_add_test(t, unix_sockets_echo_and_their_file_goes);
        tcase_add_test(t, stale_socket_file_is_replaced_but_a_live_one_is_not);
        tcase_add_test(t, dial_reports_refusal_bad_targets_and_unknown_names);
        tcase_add_test(t, dial_keeps_the_fibers_deadline);
        tcase_add_test(t, megabytes_pass_with_bounded_buffers);
        tcase_add_test(t, a_reader_that_does_not_read_stops_the_writer_and_its_end_frees_him);
        tcase_add_test(t, reading_stops_when_nobody_takes_the_bytes);
        tcase_add_test(t, end_of_stream_and_half_close);
        tcase_add_test(t, close_sends_what_is_pending_to_a_slow_reader);
        tcase_add_test(t, linger_ends_by_its_timer);
        tcase_add_test(t, a_handler_may_free_or_close_its_own_conn);
        tcase_add_test(t, a_new_handler_is_told_what_was_there_before);
        tcase_add_test(t, a_reset_reaches_reader_and_writer);
        tcase_add_test(t, paused_listener_queues_connections);
        tcase_add_test(t, a_listener_without_descriptors_tries_again);
        tcase_add_test(t, names_are_looked_up_and_given_up);
        tcase_add_test(t, addresses_are_split_and_printed);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
