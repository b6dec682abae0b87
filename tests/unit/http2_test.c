/*
 * HTTP/2 sessions: a peer that writes frames by hand against the server and the client, and the two against each other over a
 * socket pair.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "sdk/base/log.h"
#include "sdk/net/http2_impl.h"
#include "tests/unit/net_test.h"

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
enum { SMALL_WINDOW = 65535 };

static struct {
        struct h2_conn *conn;        /* the side under test */
        struct h2_stream *s[128];    /* streams that on_stream gave */
        int streams, closes, close_err, rooms;
        void (*then)(struct h2_stream *s);
} T;

static void on_stream(struct h2_conn *c, struct h2_stream *s)
{
        if (T.streams < 128)
                T.s[T.streams] = s;
        T.streams++;
        if (T.then)
                T.then(s);
}

static void on_close(struct h2_conn *c, int err)
{
        T.closes++;
        T.close_err = err;
        T.conn = NULL;
}

static void on_room(struct h2_conn *c)
{
        T.rooms++;
}

static void socket_pair(struct conn **a, struct conn **b)
{
        int fd[2];
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
        *a = conn_new(fd[0]);
        *b = conn_new(fd[1]);
        ck_assert(*a && *b);
}

/* The side under test, and the other end of its socket. */
static struct conn *begin(struct h2_conf conf)
{
        struct conn *mine, *theirs;
        memset(&T, 0, sizeof(T));
        socket_pair(&mine, &theirs);
        conf.on_stream = on_stream;
        conf.on_close = on_close;
        conf.on_room = on_room;
        T.conn = h2_conn_new(mine, &conf);
        ck_assert_ptr_nonnull(T.conn);
        return theirs;
}

static void finish(struct conn *io)
{
        conn_free(io);
        WAIT_FOR(T.closes == 1);
        h2_pool_fini();
}

/* ---- frames by hand ---- */

struct frame {
        size_t n;
        int type, flags;
        uint32_t id;
        const uint8_t *p; /* valid until the next one is read */
};

static void put_frame(struct conn *io, int type, int flags, uint32_t id, const void *p, size_t n)
{
        const char head[9] = {(char)(n >> 16), (char)(n >> 8), (char)n,        (char)type,   (char)flags,
                              (char)(id >> 24), (char)(id >> 16), (char)(id >> 8), (char)id};
        conn_write(io, head, 9);
        conn_write(io, p, n);
}

static void put_preface(struct conn *io)
{
        conn_write(io, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
        put_frame(io, SETTINGS, 0, 0, NULL, 0);
}

/* HPACK without any table or Huffman: literal, never indexed. */
static void put_field(struct buf *b, const char *name, const char *value)
{
        size_t n = strlen(name), v = strlen(value);
        buf_addc(b, 0x10);
        buf_addc(b, (char)n);
        buf_add(b, name, n);
        if (v < 127) {
                buf_addc(b, (char)v);
        } else {
                buf_addc(b, 127);
                for (v -= 127; v > 127; v >>= 7)
                        buf_addc(b, (char)(v | 128));
                buf_addc(b, (char)v);
                v = strlen(value);
        }
        buf_add(b, value, v);
}

static void put_request(struct conn *io, uint32_t id, const char *path, int flags)
{
        struct buf b = {0};
        put_field(&b, ":method", "POST");
        put_field(&b, ":scheme", "http");
        put_field(&b, ":path", path);
        put_field(&b, ":authority", "x");
        put_frame(io, HEADERS, END_HEADERS | flags, id, b.p, b.len);
        buf_fini(&b);
}

static size_t skip_frame; /* bytes of the frame handed out last */

/* False at the end of the connection. */
static bool get_frame(struct conn *io, struct frame *f)
{
        buf_consume(&io->in, skip_frame);
        skip_frame = 0;
        for (;;) {
                const uint8_t *p = (const uint8_t *)io->in.p + io->in.off;
                size_t have = buf_len(&io->in);
                if (have >= 9) {
                        size_t n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
                        if (have >= 9 + n) {
                                *f = (struct frame){n, p[3], p[4],
                                                    (uint32_t)p[5] << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8], p + 9};
                                skip_frame = 9 + n;
                                return true;
                        }
                }
                if (conn_read(io) <= 0)
                        return false;
        }
}

static uint32_t get32(const uint8_t *p)
{
        return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Reads on until a frame of that type, answering nothing. */
static bool wait_frame(struct conn *io, int type, struct frame *f)
{
        while (get_frame(io, f)) {
                if (f->type == type && !(type == SETTINGS && f->flags & ACK))
                        return true;
        }
        return false;
}

static void expect_goaway(struct conn *io, uint32_t code, const char *text)
{
        struct frame f;
        skip_frame = 0;
        do
                ck_assert(wait_frame(io, GOAWAY, &f));
        while (get32(f.p + 4) != code && get32(f.p + 4) == 0);
        ck_assert_uint_eq(get32(f.p + 4), code);
        if (text)
                ck_assert(str_eqz(str_n(f.p + 8, f.n - 8), text));
        while (get_frame(io, &f))
                ;
        ck_assert(io->eof);
}

/* ---- server ---- */

ON_LOOP_TEST(server_sends_settings_at_accept)
{
        struct conn *io = begin((struct h2_conf){.server = true, .max_streams = 7});
        struct frame f;
        skip_frame = 0;
        ck_assert(get_frame(io, &f));
        ck_assert_int_eq(f.type, SETTINGS);
        ck_assert_uint_eq(f.n, 18);
        ck_assert_uint_eq(get32(f.p + 2), 7);
        finish(io);
}

ON_LOOP_TEST(peer_that_does_not_speak_http2_is_closed)
{
        static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on, a client hello of TLS";
        struct conn *io = begin((struct h2_conf){.server = true});
        struct frame f;
        skip_frame = 0;
        conn_write(io, hello, sizeof(hello));
        ck_assert(get_frame(io, &f));
        ck_assert_int_eq(f.type, SETTINGS);
        WAIT_FOR(T.closes == 1);
        ck_assert_int_lt(T.close_err, 0);
        finish(io);
}

ON_LOOP_TEST(request_and_its_body_are_one_event)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        char text[16];
        put_preface(io);
        put_request(io, 1, "/a", 0);
        put_frame(io, DATA, 0, 1, "hello ", 6);
        put_frame(io, DATA, END_STREAM, 1, "world", 5);
        WAIT_FOR(T.streams == 1);
        struct h2_stream *s = T.s[0];
        ck_assert(str_eqz(s->path, "/a") && str_eqz(s->method, "POST") && str_eqz(s->authority, "x"));
        ck_assert(s->have_headers && s->remote_ended);
        ck_assert_int_eq(h2_read(s, text, sizeof(text)), 11);
        ck_assert_int_eq(memcmp(text, "hello world", 11), 0);
        ck_assert_int_eq(h2_read(s, text, sizeof(text)), 0);
        h2_release(s);
        finish(io);
}

static void send_body_bytes(struct conn *io, uint32_t id, size_t n)
{
        static char zeros[16384];
        for (size_t k; n; n -= k) {
                k = n < sizeof(zeros) ? n : sizeof(zeros);
                put_frame(io, DATA, 0, id, zeros, k);
        }
}

ON_LOOP_TEST(credit_comes_back_when_bytes_are_read)
{
        struct conn *io = begin((struct h2_conf){.server = true, .stream_window = 100000, .conn_window = 200000});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        put_request(io, 1, "/", 0);
        put_frame(io, SETTINGS, ACK, 0, NULL, 0);
        send_body_bytes(io, 1, 100000);
        put_frame(io, PING, 0, 0, "12345678", 8);
        /* Everything was taken in, nothing was read: the only credit is the connection's at the start. */
        while (get_frame(io, &f) && !(f.type == PING && f.flags & ACK)) {
                if (f.type == WINDOW_UPDATE)
                        ck_assert(f.id == 0 && get32(f.p) == 200000 - 65535);
        }
        ck_assert_int_eq(T.streams, 1);
        ck_assert_uint_eq(buf_len(&T.s[0]->in), 100000);
        h2_consume(T.s[0], 60000);
        ck_assert(wait_frame(io, WINDOW_UPDATE, &f));
        ck_assert_uint_eq(f.id, 1);
        ck_assert_uint_eq(get32(f.p), 60000);
        h2_release(T.s[0]);
        finish(io);
}

ON_LOOP_TEST(bytes_of_a_released_stream_give_back_the_connections_credit)
{
        struct conn *io = begin((struct h2_conf){.server = true, .conn_window = 100000});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        put_request(io, 1, "/", 0);
        send_body_bytes(io, 1, 60000);
        WAIT_FOR(T.streams == 1 && buf_len(&T.s[0]->in) == 60000);
        h2_release(T.s[0]);
        bool reset = false, credit = false;
        while ((!reset || !credit) && get_frame(io, &f)) {
                reset |= f.type == RST_STREAM && f.id == 1;
                credit |= f.type == WINDOW_UPDATE && f.id == 0 && get32(f.p) == 60000;
        }
        ck_assert(reset && credit);
        finish(io);
}

ON_LOOP_TEST(sender_beyond_its_window_is_an_error)
{
        struct conn *io = begin((struct h2_conf){.server = true, .stream_window = 70000});
        put_preface(io);
        put_request(io, 1, "/", 0);
        put_frame(io, SETTINGS, ACK, 0, NULL, 0);
        send_body_bytes(io, 1, 80000);
        struct frame f;
        skip_frame = 0;
        ck_assert(wait_frame(io, RST_STREAM, &f));
        ck_assert_uint_eq(get32(f.p), 3);
        WAIT_FOR(T.streams == 1 && T.s[0]->closed);
        h2_release(T.s[0]);
        finish(io);
}

static const struct http_header ok200[] = {{{":status", 7}, {"200", 3}}};

static void put_update(struct conn *io, uint32_t id, uint8_t add)
{
        const char p[4] = {0, 0, 0, (char)add};
        put_frame(io, WINDOW_UPDATE, 0, id, p, 4);
}

/* A request that was answered: stream 1 is closed. */
static struct conn *begin_with_closed_stream(void)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        put_request(io, 1, "/", END_STREAM);
        WAIT_FOR(T.streams == 1);
        ck_assert_int_eq(h2_respond_nocopy(T.s[0], ok200, 1, true), 0);
        h2_release(T.s[0]);
        ck_assert(wait_frame(io, HEADERS, &f));
        buf_consume(&io->in, skip_frame);
        return io;
}

ON_LOOP_TEST(data_on_a_stream_that_the_peer_has_ended_is_stream_closed)
{
        struct conn *io = begin_with_closed_stream();
        put_frame(io, DATA, END_STREAM, 1, "x", 1);
        expect_goaway(io, H2_STREAM_CLOSED, NULL);
        finish(io);
}

ON_LOOP_TEST(headers_on_a_stream_that_the_peer_has_ended_are_stream_closed)
{
        struct conn *io = begin_with_closed_stream();
        put_request(io, 1, "/again", END_STREAM);
        expect_goaway(io, H2_STREAM_CLOSED, NULL);
        finish(io);
}

ON_LOOP_TEST(data_behind_the_peers_own_reset_is_stream_closed)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        put_preface(io);
        put_request(io, 1, "/", 0);
        put_frame(io, RST_STREAM, 0, 1, "\0\0\0\x08", 4);
        put_frame(io, DATA, 0, 1, "late", 4); /* in one piece with the reset */
        expect_goaway(io, H2_STREAM_CLOSED, NULL);
        finish(io);
}

ON_LOOP_TEST(heads_of_frames_are_known_however_they_are_cut)
{
        static const char late[] = "\0\0\4\0\0\0\0\0\1late";
        struct conn *io = begin_with_closed_stream();
        for (size_t i = 0; i < sizeof(late) - 1 && !T.closes; i++) {
                conn_write(io, late + i, 1);
                fiber_sleep(0.001);
        }
        expect_goaway(io, H2_STREAM_CLOSED, NULL);
        finish(io);
}

ON_LOOP_TEST(an_empty_window_update_on_a_closed_stream_is_a_protocol_error)
{
        struct conn *io = begin_with_closed_stream();
        put_update(io, 1, 1);
        put_update(io, 1, 0);
        expect_goaway(io, H2_PROTOCOL_ERROR, NULL);
        finish(io);
}

ON_LOOP_TEST(late_frames_of_a_stream_that_was_reset_here_are_no_fault)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        put_request(io, 1, "/", 0);
        WAIT_FOR(T.streams == 1);
        h2_reset(T.s[0], H2_CANCEL);
        h2_release(T.s[0]);
        ck_assert(wait_frame(io, RST_STREAM, &f));
        put_frame(io, DATA, END_STREAM, 1, "late", 4);
        put_request(io, 3, "/next", END_STREAM);
        WAIT_FOR(T.streams == 2);
        h2_release(T.s[1]);
        finish(io);
}

ON_LOOP_TEST(no_more_than_the_last_closed_streams_are_remembered)
{
        struct conn *io = begin_with_closed_stream();
        for (uint32_t i = 0; i < H2_CLOSED_REMEMBERED; i++) {
                int before = T.streams;
                put_request(io, 3 + 2 * i, "/", END_STREAM);
                WAIT_FOR(T.streams == before + 1);
                h2_respond_nocopy(T.s[before], ok200, 1, true);
                h2_release(T.s[before]);
        }
        put_frame(io, DATA, 0, 1, "forgotten", 9);
        put_frame(io, PING, 0, 0, "12345678", 8);
        struct frame f;
        skip_frame = 0;
        ck_assert(wait_frame(io, PING, &f));
        finish(io);
}

ON_LOOP_TEST(an_early_answer_lets_the_request_end)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        put_request(io, 1, "/", 0);
        put_request(io, 3, "/", 0);
        WAIT_FOR(T.streams == 2);
        for (int i = 0; i < 2; i++) {
                h2_respond_nocopy(T.s[i], ok200, 1, true);
                h2_release(T.s[i]);
        }
        ck_assert(wait_frame(io, HEADERS, &f));
        put_frame(io, DATA, END_STREAM, 1, "rest", 4);
        WAIT_FOR(h2_conn_streams(T.conn) == 1);
        ck_assert(wait_frame(io, RST_STREAM, &f)); /* of the one whose rest does not come */
        ck_assert_uint_eq(f.id, 3);
        ck_assert_uint_eq(get32(f.p), H2_NO_ERROR);
        finish(io);
}

ON_LOOP_TEST(header_list_over_the_limit_is_431)
{
        static char big[5000];
        struct conn *io = begin((struct h2_conf){.server = true, .max_header_list = 4096});
        struct buf b = {0};
        struct frame f;
        skip_frame = 0;
        memset(big, 'x', sizeof(big) - 1);
        put_preface(io);
        put_field(&b, ":method", "GET");
        put_field(&b, ":scheme", "http");
        put_field(&b, ":path", "/");
        put_field(&b, ":authority", "x");
        put_field(&b, "big", big);
        put_frame(io, HEADERS, END_HEADERS | END_STREAM, 1, b.p, b.len);
        buf_fini(&b);
        ck_assert(wait_frame(io, HEADERS, &f));
        ck_assert(f.flags & END_STREAM);
        put_request(io, 3, "/next", END_STREAM);
        WAIT_FOR(T.streams == 1);
        ck_assert(str_eqz(T.s[0]->path, "/next"));
        h2_release(T.s[0]);
        finish(io);
}

ON_LOOP_TEST(pings_too_often_end_the_connection)
{
        struct conn *io = begin((struct h2_conf){.server = true, .min_ping_interval_s = 10});
        put_preface(io);
        for (int i = 0; i < 5; i++)
                put_frame(io, PING, 0, 0, "12345678", 8);
        expect_goaway(io, H2_ENHANCE_YOUR_CALM, "too_many_pings");
        finish(io);
}

ON_LOOP_TEST(control_frames_in_masses_end_the_connection)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        put_preface(io);
        for (int i = 0; i < H2_CONTROL_BURST + 100 && T.closes == 0; i++) {
                put_frame(io, PRIORITY, 0, 1, "\0\0\0\0\20", 5);
                if (i % 500 == 0)
                        conn_flush(io);
        }
        expect_goaway(io, H2_ENHANCE_YOUR_CALM, "too_many_control_frames");
        finish(io);
}

ON_LOOP_TEST(peer_that_does_not_read_its_acks_is_closed)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        put_preface(io);
        for (int i = 0; i < 100000 && T.closes == 0 && !io->error; i++) {
                put_frame(io, PING, 0, 0, "12345678", 8);
                if (i % 500 == 0)
                        fiber_yield();
        }
        WAIT_FOR(T.closes == 1);
        finish(io);
}

static void release_now(struct h2_stream *s)
{
        h2_release(s);
}

ON_LOOP_TEST(rapid_resets_end_the_connection)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        T.then = release_now;
        put_preface(io);
        for (uint32_t i = 0; i < H2_RESET_BURST + 2000 && T.closes == 0 && !io->error; i++) {
                put_request(io, 2 * i + 1, "/", 0);
                put_frame(io, RST_STREAM, 0, 2 * i + 1, "\0\0\0\10", 4);
                if (i % 100 == 0)
                        fiber_yield();
        }
        WAIT_FOR(T.closes == 1);
        finish(io);
}

ON_LOOP_TEST(handlers_of_reset_streams_count)
{
        struct conn *io = begin((struct h2_conf){.server = true, .max_streams = 10});
        put_preface(io);
        for (uint32_t i = 0; i < 50; i++) {
                put_request(io, 2 * i + 1, "/", 0);
                fiber_sleep(0.001); /* each comes alone, so that its handler starts */
                put_frame(io, RST_STREAM, 0, 2 * i + 1, "\0\0\0\10", 4);
        }
        fiber_sleep(0.05);
        ck_assert_int_eq(T.streams, 20);
        for (int i = 0; i < T.streams; i++) {
                ck_assert(T.s[i]->closed);
                ck_assert_int_eq(T.s[i]->error, -ECANCELED);
                h2_release(T.s[i]);
        }
        put_request(io, 201, "/again", END_STREAM);
        WAIT_FOR(T.streams == 21);
        h2_release(T.s[20]);
        finish(io);
}

ON_LOOP_TEST(endless_continuation_ends_the_connection)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        put_preface(io);
        put_frame(io, HEADERS, 0, 1, NULL, 0);
        for (int i = 0; i < 1000 && T.closes == 0 && !io->error; i++) {
                put_frame(io, CONTINUATION, 0, 1, NULL, 0);
                if (i % 10 == 0)
                        fiber_yield();
        }
        WAIT_FOR(T.closes == 1);
        ck_assert_int_eq(T.streams, 0);
        finish(io);
}

ON_LOOP_TEST(frame_over_the_maximum_is_an_error)
{
        static char big[20000];
        struct conn *io = begin((struct h2_conf){.server = true});
        put_preface(io);
        put_request(io, 1, "/", 0);
        put_frame(io, DATA, 0, 1, big, sizeof(big));
        expect_goaway(io, 6, NULL);
        WAIT_FOR(T.closes == 1);
        ck_assert(T.s[0]->closed);
        h2_release(T.s[0]);
        finish(io);
}

ON_LOOP_TEST(truncated_request_fails_its_stream)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        char text[8];
        put_preface(io);
        put_request(io, 1, "/", 0);
        conn_write(io, "\0\0\10\0\0\0\0\0\1abc", 12);
        WAIT_FOR(T.streams == 1);
        conn_free(io);
        WAIT_FOR(T.closes == 1);
        ck_assert(T.s[0]->closed);
        ck_assert_ptr_null(T.s[0]->conn);
        ck_assert_int_eq(h2_read(T.s[0], text, 8), 3);
        ck_assert_int_lt(h2_read(T.s[0], text, 8), 0);
        ck_assert_int_lt(h2_send(T.s[0], "x", 1, false), 0);
        h2_release(T.s[0]);
        h2_pool_fini();
}

static const struct http_header extra[] = {{{"x-test", 6}, {"yes", 3}}};

ON_LOOP_TEST(graceful_end_lets_streams_finish)
{
        struct conn *io = begin((struct h2_conf){.server = true});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        put_request(io, 1, "/", END_STREAM);
        WAIT_FOR(T.streams == 1);
        h2_conn_goaway(T.conn);
        ck_assert(wait_frame(io, GOAWAY, &f));
        ck_assert_uint_eq(get32(f.p), 0x7fffffff);
        ck_assert(wait_frame(io, PING, &f));
        char ping[8];
        memcpy(ping, f.p, 8);
        put_request(io, 3, "/", END_STREAM); /* crossed the notice on its way */
        put_frame(io, PING, ACK, 0, ping, 8);
        ck_assert(wait_frame(io, GOAWAY, &f));
        ck_assert_uint_eq(get32(f.p), 3);
        ck_assert_int_eq(T.streams, 2);
        ck_assert_int_eq(T.closes, 0);
        for (int i = 0; i < 2; i++) {
                ck_assert_int_eq(h2_respond(T.s[i], 200, extra, 1, true), 0);
                h2_release(T.s[i]);
        }
        ck_assert(wait_frame(io, HEADERS, &f));
        ck_assert(wait_frame(io, HEADERS, &f));
        WAIT_FOR(T.closes == 1);
        ck_assert_int_eq(T.close_err, 0);
        finish(io);
}

ON_LOOP_TEST(idle_connection_ends)
{
        struct conn *io = begin((struct h2_conf){.server = true, .idle_timeout_s = 0.1});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        put_request(io, 1, "/", END_STREAM);
        WAIT_FOR(T.streams == 1);
        fiber_sleep(0.3);
        ck_assert_int_eq(T.closes, 0);
        h2_respond(T.s[0], 200, NULL, 0, true);
        h2_release(T.s[0]);
        ck_assert(wait_frame(io, GOAWAY, &f));
        WAIT_FOR(T.closes == 1);
        finish(io);
}

ON_LOOP_TEST(peer_that_is_silent_after_a_ping_is_lost)
{
        struct conn *io = begin((struct h2_conf){.server = true, .ping_interval_s = 0.1, .ping_timeout_s = 0.1});
        struct frame f;
        skip_frame = 0;
        put_preface(io);
        for (int i = 0; i < 3; i++) {
                ck_assert(wait_frame(io, PING, &f));
                char ping[8];
                memcpy(ping, f.p, 8);
                put_frame(io, PING, ACK, 0, ping, 8);
        }
        ck_assert_int_eq(T.closes, 0);
        WAIT_FOR(T.closes == 1);
        ck_assert_int_eq(T.close_err, -ETIMEDOUT);
        finish(io);
}

static int hc_count;

static void forget(struct h2_conn *c, struct h2_stream *s)
{
        hc_count++;
        ck_assert(str_eqz(s->path, "/up") && str_eqz(s->authority, "a.b") && str_eqz(s->method, "GET"));
        ck_assert_uint_eq(s->headers.n, 1);
        ck_assert(str_eqz(s->headers.v[0].name, "x-other"));
        ck_assert(s->remote_ended);
        h2_respond(s, 200, NULL, 0, true);
        h2_release(s);
}

ON_LOOP_TEST(upgraded_request_is_stream_one)
{
        struct conn *mine, *io;
        struct frame f;
        memset(&T, 0, sizeof(T));
        skip_frame = 0;
        socket_pair(&mine, &io);
        struct http_header v[] = {{STR("Host"), STR("a.b")}, {STR("X-Other"), STR("1")}, {STR("Upgrade"), STR("h2c")}};
        const struct http_headers h = {v, 3, 3};
        const struct h2_conf conf = {.server = true, .on_stream = forget, .on_close = on_close};
        ck_assert_ptr_nonnull(h2_conn_new_upgrade(mine, &conf, STR("\0\3\0\0\0\144"), STR("GET"), STR("/up"), &h));
        put_preface(io);
        ck_assert(wait_frame(io, HEADERS, &f));
        ck_assert_uint_eq(f.id, 1);
        ck_assert(f.flags & END_STREAM);
        ck_assert_int_eq(hc_count, 1);
        finish(io);
}

/* ---- client ---- */

static struct h2_stream *client_open(const char *path, bool end)
{
        int err = 0;
        struct h2_stream *s = h2_open(T.conn, STR("POST"), STR("http"), STR("x"), str_of(path), NULL, 0, end, &err);
        ck_assert_int_eq(err, 0);
        return s;
}

static void put_status(struct conn *io, uint32_t id, const char *status, int flags)
{
        struct buf b = {0};
        put_field(&b, ":status", status);
        put_frame(io, HEADERS, END_HEADERS | flags, id, b.p, b.len);
        buf_fini(&b);
}

ON_LOOP_TEST(informational_responses_are_skipped)
{
        struct conn *io = begin((struct h2_conf){0});
        struct h2_stream *s = client_open("/", true);
        put_frame(io, SETTINGS, 0, 0, NULL, 0);
        put_status(io, 1, "103", 0);
        put_status(io, 1, "100", 0);
        put_status(io, 1, "204", END_STREAM);
        ck_assert_int_eq(h2_wait_headers(s), 0);
        ck_assert_int_eq(s->status, 204);
        ck_assert(s->remote_ended);
        h2_release(s);
        finish(io);
}

ON_LOOP_TEST(goaway_tells_which_streams_were_not_processed)
{
        struct conn *io = begin((struct h2_conf){0});
        struct h2_stream *s[3];
        int err = 0;
        for (int i = 0; i < 3; i++)
                s[i] = client_open("/", false);
        put_frame(io, SETTINGS, 0, 0, NULL, 0);
        fiber_sleep(0.02);
        put_frame(io, GOAWAY, 0, 0, "\0\0\0\3\0\0\0\0", 8);
        WAIT_FOR(s[2]->closed);
        ck_assert_int_eq(s[2]->error, -ENETRESET);
        ck_assert(!s[0]->closed && !s[1]->closed);
        ck_assert(!h2_conn_is_usable(T.conn));
        ck_assert_int_ge(T.rooms, 1);
        ck_assert_ptr_null(h2_open(T.conn, STR("GET"), STR("http"), STR("x"), STR("/"), NULL, 0, true, &err));
        ck_assert_int_eq(err, -ENETRESET);
        put_status(io, 1, "200", END_STREAM);
        ck_assert_int_eq(h2_wait_headers(s[0]), 0);
        for (int i = 0; i < 3; i++)
                h2_release(s[i]);
        WAIT_FOR(T.closes == 1);
        ck_assert_int_eq(T.close_err, 0);
        finish(io);
}

ON_LOOP_TEST(refused_stream_was_not_processed)
{
        struct conn *io = begin((struct h2_conf){0});
        struct h2_stream *s = client_open("/", true);
        put_frame(io, SETTINGS, 0, 0, NULL, 0);
        put_frame(io, RST_STREAM, 0, 1, "\0\0\0\7", 4);
        ck_assert_int_eq(h2_wait_headers(s), -ENETRESET);
        ck_assert_uint_eq(s->rst_code, H2_REFUSED_STREAM);
        h2_release(s);
        finish(io);
}

ON_LOOP_TEST(stream_outlives_its_connection)
{
        struct conn *io = begin((struct h2_conf){0});
        struct h2_stream *s = client_open("/", false), *never;
        put_frame(io, SETTINGS, 0, 0, "\0\3\0\0\0\1", 6);
        fiber_sleep(0.02);
        ck_assert(!h2_conn_has_room(T.conn));
        never = client_open("/", false);
        fiber_sleep(0.02);
        conn_free(io);
        ck_assert_int_lt(h2_wait_headers(s), 0);
        ck_assert_int_eq(s->error, -ECONNRESET);
        ck_assert_int_eq(never->error, -ENETRESET); /* its headers had not left */
        ck_assert_ptr_null(s->conn);
        h2_reset(s, H2_CANCEL);
        h2_consume(s, 10);
        h2_release(s);
        h2_release(never);
        ck_assert_int_eq(T.closes, 1);
        h2_pool_fini();
}

ON_LOOP_TEST(room_is_told_when_a_stream_ends)
{
        struct conn *io = begin((struct h2_conf){0});
        put_frame(io, SETTINGS, 0, 0, "\0\3\0\0\0\2", 6);
        fiber_sleep(0.02);
        struct h2_stream *a = client_open("/", true), *b = client_open("/", true);
        ck_assert(!h2_conn_has_room(T.conn));
        fiber_sleep(0.02);
        ck_assert_int_eq(T.rooms, 0);
        put_status(io, 1, "200", END_STREAM);
        WAIT_FOR(T.rooms == 1);
        ck_assert(h2_conn_has_room(T.conn));
        h2_release(a);
        h2_release(b);
        finish(io);
}

ON_LOOP_TEST(response_headers_over_the_limit_fail_the_stream)
{
        static char big[3000];
        struct conn *io = begin((struct h2_conf){.max_header_list = 2000});
        struct h2_stream *s = client_open("/", true);
        struct buf b = {0};
        memset(big, 'x', sizeof(big) - 1);
        put_field(&b, ":status", "200");
        put_field(&b, "big", big);
        put_frame(io, SETTINGS, 0, 0, NULL, 0);
        put_frame(io, HEADERS, END_HEADERS, 1, b.p, b.len);
        buf_fini(&b);
        ck_assert_int_eq(h2_wait_headers(s), -EMSGSIZE);
        h2_release(s);
        finish(io);
}

/* ---- both ---- */

struct both {
        struct h2_conn *client;
        struct h2_stream *s;
        int client_closes;
};

static void client_closed(struct h2_conn *c, int err)
{
        ((struct both *)h2_conn_owner(c))->client_closes++;
}

static void both_start(struct both *b, struct h2_conf server)
{
        int err;
        struct conn *io = begin(server);
        const struct h2_conf conf = {.on_close = client_closed, .owner = b};
        *b = (struct both){.client = h2_conn_new(io, &conf)};
        ck_assert_ptr_nonnull(b->client);
        b->s = h2_open(b->client, STR("POST"), STR("http"), STR("x"), STR("/both"), extra, 1, false, &err);
        ck_assert_ptr_nonnull(b->s);
        WAIT_FOR(T.streams == 1);
}

static void both_stop(struct both *b)
{
        h2_release(b->s);
        h2_conn_close(b->client, 0);
        WAIT_FOR(T.closes == 1);
        ck_assert_int_eq(b->client_closes, 1);
        h2_pool_fini();
}

ON_LOOP_TEST(buffers_of_pooled_streams_have_a_limit)
{
        static const size_t sizes[] = {16 * 1024, 200 * 1024};
        enum { N = 300 };
        struct h2_conn c = {.n_streams = 1};
        struct stream *s[N];

        list_init(&c.streams);
        for (size_t k = 0; k < 2; k++) {
                for (size_t i = 0; i < N; i++) {
                        ck_assert_ptr_nonnull(s[i] = h2_stream_new(&c));
                        ck_assert_int_eq(buf_reserve(&s[i]->s.in, sizes[k]), 0);
                        ck_assert_int_eq(buf_reserve(&s[i]->out, sizes[k]), 0);
                }
                for (size_t i = 0; i < N; i++)
                        h2_stream_free(s[i]);
                ck_assert_uint_gt(h2_pool_bytes(), H2_POOL_LARGE_BYTES / 2);
                ck_assert_uint_le(h2_pool_bytes(), H2_POOL_SMALL_BYTES + H2_POOL_LARGE_BYTES);
        }
        ck_assert_uint_gt(h2_pool_count(), H2_POOL_KEEP);
        WAIT_FOR(h2_pool_count() == H2_POOL_KEEP);
        h2_pool_fini();
        ck_assert_uint_eq(h2_pool_bytes(), 0);
}

ON_LOOP_TEST(headers_body_and_trailers_pass)
{
        struct both b;
        char text[32];
        both_start(&b, (struct h2_conf){.server = true});
        struct h2_stream *s = T.s[0];
        ck_assert_uint_eq(s->headers.n, 1);
        ck_assert(str_eqz(s->headers.v[0].name, "x-test") && str_eqz(s->headers.v[0].value, "yes"));
        ck_assert_int_eq(h2_write(b.s, "ping", 4), 0);
        ck_assert_int_eq(h2_read(s, text, sizeof(text)), 4);
        ck_assert_int_eq(h2_send_trailers(b.s, extra, 1), 0);
        ck_assert_int_eq(h2_read(s, text, sizeof(text)), 0);
        ck_assert_uint_eq(s->trailers.n, 1);
        ck_assert_int_eq(h2_respond(s, 103, extra, 1, false), 0);
        ck_assert_int_eq(h2_respond(s, 200, extra, 1, false), 0);
        ck_assert_int_eq(h2_respond(s, 200, extra, 1, false), -EINVAL);
        ck_assert_int_eq(h2_send(s, "pong", 4, false), 0);
        ck_assert_int_eq(h2_send_trailers(s, extra, 1), 0);
        ck_assert_int_eq(h2_send(s, "more", 4, false), -EPIPE);
        h2_release(s);
        ck_assert_int_eq(h2_wait_headers(b.s), 0);
        ck_assert_int_eq(b.s->status, 200);
        ck_assert_int_eq(h2_read(b.s, text, sizeof(text)), 4);
        ck_assert_int_eq(h2_read(b.s, text, sizeof(text)), 0);
        ck_assert_uint_eq(b.s->trailers.n, 1);
        both_stop(&b);
}

struct writer {
        struct h2_stream *s;
        size_t written;
        int result;
};

static void write_fiber(void *arg)
{
        static char block[16 * 1024];
        struct writer *w = arg;
        while (w->written < 64 << 20 && !(w->result = h2_write(w->s, block, sizeof(block))))
                w->written += sizeof(block);
        if (!w->result)
                h2_send(w->s, NULL, 0, true);
}

ON_LOOP_TEST(slow_reader_stops_its_writer)
{
        struct both b;
        struct scope sc;
        static char text[65536];
        scope_init(&sc);
        both_start(&b, (struct h2_conf){.server = true, .stream_window = 256 * 1024});
        struct writer w = {.s = b.s};
        ck_assert_int_eq(fiber_go(&sc, "write", write_fiber, &w), 0);
        fiber_sleep(0.2);
        size_t written = w.written;
        ck_assert_uint_le(written, 256 * 1024 + H2_STREAM_HIGH_WATER + 16 * 1024);
        ck_assert_uint_le(buf_len(&T.s[0]->in), 256 * 1024);
        fiber_sleep(0.1);
        ck_assert_uint_eq(w.written, written);
        size_t total = 0;
        ssize_t n;
        while ((n = h2_read(T.s[0], text, sizeof(text))) > 0) {
                total += (size_t)n;
                ck_assert_uint_le(w.written - total, 256 * 1024 + 2 * H2_STREAM_HIGH_WATER + 65536);
        }
        ck_assert_int_eq(n, 0);
        ck_assert_uint_eq(total, 64 << 20);
        scope_join(&sc);
        h2_release(T.s[0]);
        both_stop(&b);
}

ON_LOOP_TEST(reset_wakes_the_writer_with_an_error)
{
        struct both b;
        struct scope sc;
        scope_init(&sc);
        both_start(&b, (struct h2_conf){.server = true});
        struct writer w = {.s = b.s};
        ck_assert_int_eq(fiber_go(&sc, "write", write_fiber, &w), 0);
        fiber_sleep(0.05);
        h2_release(T.s[0]);
        scope_join(&sc);
        ck_assert_int_eq(w.result, -ECANCELED);
        both_stop(&b);
}

ON_LOOP_TEST(released_response_still_goes_out_whole)
{
        struct both b;
        static char text[65536], block[8 << 20];
        size_t total = 0;
        ssize_t n;
        both_start(&b, (struct h2_conf){.server = true});
        struct h2_stream *s = T.s[0];
        h2_respond(s, 200, NULL, 0, false);
        h2_send(s, block, sizeof(block), false);
        h2_send_trailers(s, extra, 1);
        h2_release(s);
        while ((n = h2_read(b.s, text, sizeof(text))) > 0)
                total += (size_t)n;
        ck_assert_int_eq(n, 0);
        ck_assert_uint_eq(total, sizeof(block));
        ck_assert_uint_eq(b.s->trailers.n, 1);
        /* We had not ended: the server told us to stop. */
        WAIT_FOR(b.s->closed);
        ck_assert_int_eq(b.s->error, -EPIPE);
        both_stop(&b);
}

ON_LOOP_TEST(half_made_frame_of_a_reset_stream_goes_nowhere)
{
        struct both b;
        int err;
        static char block[4 << 20];
        both_start(&b, (struct h2_conf){.server = true, .stream_window = 16 << 20, .conn_window = 16 << 20});
        conn_pause_read(h2_conn_io(T.conn), true);
        h2_send(b.s, block, sizeof(block), false);
        fiber_sleep(0.05);
        ck_assert_uint_gt(h2_unsent(b.s), 0);
        h2_release(b.s);
        b.s = h2_open(b.client, STR("GET"), STR("http"), STR("x"), STR("/next"), NULL, 0, true, &err);
        ck_assert_ptr_nonnull(b.s);
        fiber_sleep(0.02);
        conn_pause_read(h2_conn_io(T.conn), false);
        WAIT_FOR(T.streams == 2);
        ck_assert(T.s[0]->closed);
        h2_respond(T.s[1], 200, NULL, 0, true);
        ck_assert_int_eq(h2_wait_headers(b.s), 0);
        h2_release(T.s[0]);
        h2_release(T.s[1]);
        both_stop(&b);
}

static void add_all(TCase *t)
{
        tcase_add_test(t, server_sends_settings_at_accept);
        tcase_add_test(t, peer_that_does_not_speak_http2_is_closed);
        tcase_add_test(t, request_and_its_body_are_one_event);
        tcase_add_test(t, credit_comes_back_when_bytes_are_read);
        tcase_add_test(t, bytes_of_a_released_stream_give_back_the_connections_credit);
        tcase_add_test(t, sender_beyond_its_window_is_an_error);
        tcase_add_test(t, data_on_a_stream_that_the_peer_has_ended_is_stream_closed);
        tcase_add_test(t, headers_on_a_stream_that_the_peer_has_ended_are_stream_closed);
        tcase_add_test(t, data_behind_the_peers_own_reset_is_stream_closed);
        tcase_add_test(t, heads_of_frames_are_known_however_they_are_cut);
        tcase_add_test(t, an_empty_window_update_on_a_closed_stream_is_a_protocol_error);
        tcase_add_test(t, late_frames_of_a_stream_that_was_reset_here_are_no_fault);
        tcase_add_test(t, no_more_than_the_last_closed_streams_are_remembered);
        tcase_add_test(t, an_early_answer_lets_the_request_end);
        tcase_add_test(t, header_list_over_the_limit_is_431);
        tcase_add_test(t, pings_too_often_end_the_connection);
        tcase_add_test(t, control_frames_in_masses_end_the_connection);
        tcase_add_test(t, peer_that_does_not_read_its_acks_is_closed);
        tcase_add_test(t, rapid_resets_end_the_connection);
        tcase_add_test(t, handlers_of_reset_streams_count);
        tcase_add_test(t, endless_continuation_ends_the_connection);
        tcase_add_test(t, frame_over_the_maximum_is_an_error);
        tcase_add_test(t, truncated_request_fails_its_stream);
        tcase_add_test(t, graceful_end_lets_streams_finish);
        tcase_add_test(t, idle_connection_ends);
        tcase_add_test(t, peer_that_is_silent_after_a_ping_is_lost);
        tcase_add_test(t, upgraded_request_is_stream_one);
        tcase_add_test(t, informational_responses_are_skipped);
        tcase_add_test(t, goaway_tells_which_streams_were_not_processed);
        tcase_add_test(t, refused_stream_was_not_processed);
        tcase_add_test(t, stream_outlives_its_connection);
        tcase_add_test(t, room_is_told_when_a_stream_ends);
        tcase_add_test(t, response_headers_over_the_limit_fail_the_stream);
        tcase_add_test(t, headers_body_and_trailers_pass);
        tcase_add_test(t, slow_reader_stops_its_writer);
        tcase_add_test(t, reset_wakes_the_writer_with_an_error);
        tcase_add_test(t, released_response_still_goes_out_whole);
        tcase_add_test(t, buffers_of_pooled_streams_have_a_limit);
        tcase_add_test(t, half_made_frame_of_a_reset_stream_goes_nowhere);
}

int main(void)
{
        Suite *s = suite_create("http2");
        TCase *t = tcase_create("http2");
        tcase_set_timeout(t, 30);
        add_all(t);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
