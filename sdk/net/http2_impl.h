/* Inside of http2*.c only: connections and streams as they are kept, and what the three files owe each other. */
#ifndef SDK_NET_HTTP2_IMPL_H
#define SDK_NET_HTTP2_IMPL_H

#include "sdk/base/spare.h"
#include "sdk/net/http2.h"

struct nghttp2_session;
enum { H2_PREFACE_BYTES = 24 }; /* of the client: no frame */

/* Tokens that come back with time. */
struct bucket {
        double tokens, at;
};

struct h2_conn {
        struct nghttp2_session *ng;
        struct conn *io;
        struct h2_conf conf;
        struct defer pump;
        struct timer tick;
        struct list streams;         /* all, attached and detached */
        struct list events;          /* changed ones */
        size_t n_streams, n_open;    /* n_open: known to nghttp2 */
        int busy;                    /* our own frames on the stack */
        bool dead;                   /* torn down, memory stays while busy */
        bool going_away;             /* no new streams: GOAWAY came or was asked for */
        bool final_goaway;           /* ours has its last stream id */
        bool seen_settings, was_full, pinging;
        double last_recv, opened_at, idle_since, ping_at;
        double drain_at;             /* draining: when the last stream id goes out; < 0 = now */
        double last_ping_in;
        int strikes;
        int32_t last_id, skipped_from, skipped_to; /* server: ids between the last two were never used */
        int32_t ended[H2_CLOSED_REMEMBERED];       /* server: the last closed streams that the peer itself ended or reset */
        unsigned n_ended;                          /* ever; the ring's next place */
        struct bucket resets, controls;
        struct list lingering;       /* server: answered streams whose request has not ended, oldest first */
        unsigned char head[13];      /* of the frame that is coming in: its head, and what is looked at of its payload */
        unsigned n_head;
        uint32_t payload_left;
};

struct stream {
        struct h2_stream s;          /* first: handed out */
        struct list link, event, linger;
        double linger_until;
        struct buf out;
        bool queued, is_new, detached;
        bool open;                   /* known to nghttp2 */
        bool peer_reset;             /* by RST_STREAM */
        bool head_sent, end_sent, parked; /* parked: nghttp2 asked for body and there was none */
        bool over_limit, above_high, responded, informational;
        size_t header_bytes;
        const struct http_header *trailers;
        size_t n_trailers;
        bool has_trailers;
        struct stream *next_free;
};

static inline struct stream *h2_priv(struct h2_stream *s)
{
        return (struct stream *)s;
}

/* ---- http2_stream.c ---- */
struct stream *h2_stream_new(struct h2_conn *c);
void h2_stream_free(struct stream *s);
/* In buffers of pooled streams: those grow and never shrink, so without a limit each would some day have seen a long message. */
enum { H2_POOL_SMALL_BYTES = 2048 * 1024, H2_POOL_LARGE_BYTES = 1024 * 1024, H2_POOL_KEEP = 16 /* streams, when nobody needs more */ };
size_t h2_pool_bytes(void);
size_t h2_pool_count(void);
void h2_stream_changed(struct stream *s);        /* to the event list */
void h2_stream_fails(struct stream *s, int err); /* closed, if it was not */
void h2_stream_lingers(struct stream *s);        /* the whole answer is out: the rest of the request is dropped, for a while */

/* ---- http2_conn.c ---- */
void h2_conn_tick_at(struct h2_conn *c, double at); /* the timer runs then at the latest */

/* ---- http2_frames.c ---- */
/* How many of the n bytes may be fed to nghttp2 at once; *ret_code: 0, or the error that ends the connection before them. */
size_t h2_frames_look(struct h2_conn *c, const unsigned char *p, size_t n, uint32_t *ret_code);
void h2_frames_ended(struct h2_conn *c, int32_t id); /* a stream that the peer has ended or reset is closed */
bool h2_frames_was_ended(const struct h2_conn *c, int32_t id);
int h2_stream_add_header(struct stream *s, struct http_headers *l, struct str name, struct str value);

/* ---- http2.c: what nghttp2 does for us; none of these runs owners' code ---- */
int h2_session_new(struct h2_conn *c);           /* 0, -ENOMEM */
void h2_session_free(struct h2_conn *c);
int h2_session_settings(struct h2_conn *c);      /* queues ours; 0, -ENOMEM */
int h2_session_recv(struct h2_conn *c);          /* all of the conn's input; 0, -EPROTO, -ENOMEM */
int h2_session_send(struct h2_conn *c);          /* frames to the conn's output up to its high-water mark; 0, -ENOMEM */
bool h2_session_wants_write(const struct h2_conn *c);
bool h2_session_is_over(const struct h2_conn *c); /* nothing to read or write any more */
bool h2_session_may_open(const struct h2_conn *c);
size_t h2_session_max_open(const struct h2_conn *c);
void h2_session_ping(struct h2_conn *c);
void h2_session_notice(struct h2_conn *c);       /* server: GOAWAY without a last stream id, then a ping */
void h2_session_goaway(struct h2_conn *c, uint32_t code, const char *text);
int h2_session_upgrade(struct h2_conn *c, struct str settings, bool is_head, struct stream *s); /* s is stream 1 */
/* HEADERS of a request or response: those of `first` (names static) and h; `keep` = no copies are made. */
struct h2_head {
        const struct http_header *first, *h;
        size_t n_first, n;
        bool keep;
};
int h2_session_request(struct stream *s, const struct h2_head *head, bool end_stream); /* 0, -ENOMEM, -ENETRESET */
int h2_session_respond(struct stream *s, const struct h2_head *head, bool end_stream); /* 0, -ENOMEM */
int h2_session_inform(struct stream *s, const struct h2_head *head);                   /* 1xx */
void h2_session_resume(struct stream *s);        /* there is more to send */
void h2_session_reset(struct stream *s, uint32_t code);
void h2_session_consume(struct stream *s, size_t n);
bool h2_session_knows(const struct h2_conn *c, int32_t id); /* is the stream open? */

#endif
