/*
 * The session: HTTP/2 frames by nghttp2, which is known here only.
 *
 * Three steps, never mixed: feed (nghttp2 reads bytes; its callbacks store headers and body in streams and put each stream that
 * changed on the connection's event list), dispatch (http2_conn.c works the list off: owners' callbacks run, fibers are woken),
 * pump (once a turn: frames go to the conn's output, body bytes straight from the stream's buffer). So owners' code never runs
 * inside nghttp2, may call anything in http2.h, and a request that came with its whole body is one event.
 *
 * Credit is returned by h2_consume only. Output is bounded: frames are made only while the conn's output is below its
 * high-water mark, so bytes wait in the streams, where h2_write() parks. What a hostile peer can make us do for little is
 * counted by token buckets (limits in http2.h).
 */
#include <errno.h>
#include <nghttp2/nghttp2.h>

#include "sdk/net/http2_impl.h"

enum { HEADER_OVERHEAD = 32 /* RFC 9113, 6.5.2 */, STACK_HEADERS = 48 };

/* ---- limits ---- */

static bool bucket_take(struct bucket *b, double burst, double per_s)
{
        double now = loop_now();
        b->tokens = b->at ? b->tokens + (now - b->at) * per_s : burst;
        b->at = now ? now : 1e-9;
        if (b->tokens > burst)
                b->tokens = burst;
        if (b->tokens < 1)
                return false;
        b->tokens--;
        return true;
}

/* Ends the session by GOAWAY; the pump closes the connection once it is out. */
static int calm_down(struct h2_conn *c, const char *text)
{
        nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng),
                              NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)text, strlen(text));
        c->going_away = c->final_goaway = true;
        nghttp2_session_terminate_session(c->ng, NGHTTP2_ENHANCE_YOUR_CALM);
        return 0;
}

static int control_frame(struct h2_conn *c)
{
        if (bucket_take(&c->controls, H2_CONTROL_BURST, H2_CONTROL_PER_S))
                return 0;
        return calm_down(c, "too_many_control_frames");
}

/* grpc-go's rule: too early more than twice without anything sent in between. */
static int ping_came(struct h2_conn *c)
{
        double now = loop_now(), last = c->last_ping_in;
        if (control_frame(c) || !c->conf.min_ping_interval_s)
                return 0;
        c->last_ping_in = now;
        if (last && now - last < c->conf.min_ping_interval_s && ++c->strikes > H2_PING_STRIKES)
                return calm_down(c, "too_many_pings");
        return 0;
}

/* ---- nghttp2 callbacks: incoming ---- */

static struct stream *stream_of(struct h2_conn *c, int32_t id)
{
        return nghttp2_session_get_stream_user_data(c->ng, id);
}

/* nghttp2 ignores HEADERS on closed streams (DATA: http2_frames.c). Stream ids that the peer has skipped are used up: HEADERS on one
 * are no late frame. */
static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *f, void *user)
{
        struct h2_conn *c = user;
        if (f->type != NGHTTP2_HEADERS || f->stream_id > c->last_id || stream_of(c, f->stream_id))
                return 0;
        if (f->stream_id > c->skipped_from && f->stream_id < c->skipped_to)
                return nghttp2_session_terminate_session(ng, NGHTTP2_PROTOCOL_ERROR);
        return h2_frames_was_ended(c, f->stream_id) ? nghttp2_session_terminate_session(ng, NGHTTP2_STREAM_CLOSED) : 0;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
        struct h2_conn *c = user;
        if (!c->conf.server || f->headers.cat != NGHTTP2_HCAT_REQUEST) {
                struct stream *s = stream_of(c, f->hd.stream_id);
                if (s)
                        s->header_bytes = 0;
                return 0;
        }
        if (f->hd.stream_id > c->last_id + 2) {
                c->skipped_from = c->last_id;
                c->skipped_to = f->hd.stream_id;
        }
        c->last_id = f->hd.stream_id;
        /* Handlers of streams that were reset still run: they count, whatever the peer does (rapid reset). */
        if (c->final_goaway || c->n_streams >= 2 * (size_t)c->conf.max_streams)
                return nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        struct stream *s = h2_stream_new(c);
        if (!s)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        s->s.id = f->hd.stream_id;
        s->open = s->is_new = true;
        c->n_open++;
        nghttp2_session_set_stream_user_data(ng, s->s.id, s);
        return 0;
}

static int add_pseudo(struct stream *s, struct str name, struct str value)
{
        struct h2_stream *h = &s->s;
        if (str_eq(name, STR(":method"))) {
                h->method = value;
        } else if (str_eq(name, STR(":scheme"))) {
                h->scheme = value;
        } else if (str_eq(name, STR(":authority"))) {
                h->authority = value;
        } else if (str_eq(name, STR(":path"))) {
                h->path = value;
        } else if (str_eq(name, STR(":status"))) {
                h->status = 0;
                for (size_t i = 0; i < value.n; i++)
                        h->status = h->status * 10 + (value.p[i] - '0');
                s->informational = h->status / 100 == 1;
        }
        return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *f, nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags,
                     void *user)
{
        struct h2_conn *c = user;
        struct stream *s = stream_of(c, f->hd.stream_id);
        nghttp2_vec n = nghttp2_rcbuf_get_buf(name), v = nghttp2_rcbuf_get_buf(value);
        if (!s || s->detached || s->over_limit)
                return 0;
        s->header_bytes += n.len + v.len + HEADER_OVERHEAD;
        if (s->header_bytes > c->conf.max_header_list) {
                s->over_limit = true;
                return 0;
        }
        /* Both with a NUL behind, in one piece. */
        char *p = arena_alloc(&s->s.arena, n.len + v.len + 2);
        if (!p)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        memcpy(p, n.base, n.len + 1);
        memcpy(p + n.len + 1, v.base, v.len + 1);
        struct str ns = {p, n.len}, vs = {p + n.len + 1, v.len};
        if (ns.n && ns.p[0] == ':')
                return add_pseudo(s, ns, vs);
        if (h2_stream_add_header(s, s->s.have_headers ? &s->s.trailers : &s->s.headers, ns, vs))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        return 0;
}

/* Into the reader's own memory. Returns how much of it. */
static size_t to_sink(struct h2_conn *c, struct h2_stream *s, const uint8_t *p, size_t n)
{
        if (buf_len(&s->in))
                return 0;
        n = n < s->sink_n ? n : s->sink_n;
        memcpy(s->sink, p, n);
        s->sink += n;
        s->sink_n -= n;
        nghttp2_session_consume(c->ng, s->id, n);
        return n;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = stream_of(c, id);
        if (s && s->s.sink_n && !s->s.closed) {
                size_t k = to_sink(c, &s->s, p, n);
                p += k;
                n -= k;
                if (s->s.sink_n && !n)
                        return 0;
        }
        if (!s || s->detached || s->s.closed || buf_add(&s->s.in, p, n)) {
                nghttp2_session_consume_connection(ng, n);
                if (s && !s->detached && !s->s.closed) {
                        nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
                        h2_stream_fails(s, -ENOMEM);
                }
                return 0;
        }
        h2_stream_changed(s);
        return 0;
}

static const struct http_header too_large[] = {{{":status", 7}, {"431", 3}}, {{"content-length", 14}, {"0", 1}}};

static void headers_too_large(struct h2_conn *c, struct stream *s)
{
        if (s->is_new) {
                s->is_new = false;
                s->detached = true;
                h2_session_respond(s, &(struct h2_head){.h = too_large, .n = 2, .keep = true}, true);
                return;
        }
        nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->s.id, NGHTTP2_FRAME_SIZE_ERROR);
        h2_stream_fails(s, -EMSGSIZE);
}

static void headers_came(struct h2_conn *c, struct stream *s, bool end)
{
        if (s->over_limit) {
                headers_too_large(c, s);
        } else if (s->informational) {
                s->s.headers.n = 0;
                s->s.status = 0;
                s->informational = false;
                return;
        } else {
                s->s.have_headers = true;
        }
        s->s.remote_ended |= end;
        h2_stream_changed(s);
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
        struct h2_conn *c = user;
        struct stream *s;
        bool end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
        switch (f->hd.type) {
        case NGHTTP2_DATA:
                if (!f->hd.length && !end)
                        return control_frame(c);
                s = end ? stream_of(c, f->hd.stream_id) : NULL;
                if (s) {
                        s->s.remote_ended = true;
                        h2_stream_changed(s);
                }
                return 0;
        case NGHTTP2_HEADERS:
                s = stream_of(c, f->hd.stream_id);
                if (s && !s->detached)
                        headers_came(c, s, end);
                return 0;
        case NGHTTP2_RST_STREAM:
                s = stream_of(c, f->hd.stream_id);
                if (s)
                        s->peer_reset = true;
                if (!bucket_take(&c->resets, H2_RESET_BURST, H2_RESET_PER_S))
                        return calm_down(c, "too_many_resets");
                return 0;
        case NGHTTP2_PING:
                if (f->hd.flags & NGHTTP2_FLAG_ACK) {
                        c->pinging = false;
                        if (c->drain_at)
                                c->drain_at = -1;
                        return 0;
                }
                return ping_came(c);
        case NGHTTP2_SETTINGS:
                c->seen_settings = true;
                return f->hd.flags & NGHTTP2_FLAG_ACK ? 0 : control_frame(c);
        case NGHTTP2_GOAWAY:
                c->going_away = true;
                return 0;
        case NGHTTP2_WINDOW_UPDATE:
                return 0;
        default:
                return control_frame(c);
        }
}

static int error_of(const struct stream *s, uint32_t code)
{
        switch (code) {
        case NGHTTP2_NO_ERROR:
                return s->s.remote_ended && !s->s.conn->conf.server ? -EPIPE : -ECONNRESET;
        case NGHTTP2_CANCEL:
                return -ECANCELED;
        case NGHTTP2_REFUSED_STREAM:
                return -ENETRESET;
        case NGHTTP2_PROTOCOL_ERROR:
                return -EPROTO;
        default:
                return -ECONNRESET;
        }
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = stream_of(c, id);
        if (!s)
                return 0;
        s->open = false;
        c->n_open--;
        if (c->conf.server && (s->s.remote_ended || s->peer_reset))
                h2_frames_ended(c, id);
        if (c->was_full)
                defer_run(&c->pump);
        if (s->detached) {
                h2_stream_free(s);
                return 0;
        }
        if (code || !s->s.remote_ended || !s->end_sent) {
                s->s.rst_code = code;
                h2_stream_fails(s, error_of(s, code));
        }
        h2_stream_changed(s);
        return 0;
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int code, void *user)
{
        return control_frame(user);
}

/* ---- nghttp2 callbacks: outgoing ---- */

/* With copies (h2_*) nghttp2 lowers and keeps the strings; without, they stay ours. Values that differ each time would only
 * push useful entries out of the peer's table. */
static void nv_fill(nghttp2_nv *nv, const struct http_header *h, size_t n, uint8_t flags)
{
        for (size_t i = 0; i < n; i++) {
                struct str k = h[i].name;
                bool varies = (k.n == 12 && !memcmp(k.p, "grpc-timeout", 12)) || (k.n == 11 && !memcmp(k.p, "traceparent", 11)) ||
                              (k.n == 14 && !memcmp(k.p, "grpc-trace-bin", 14));
                nv[i] = (nghttp2_nv){(uint8_t *)k.p, (uint8_t *)h[i].value.p, k.n, h[i].value.n,
                                     varies ? flags | NGHTTP2_NV_FLAG_NO_INDEX : flags};
        }
}

enum { NO_COPY = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };

static int submit_trailers(nghttp2_session *ng, struct stream *s)
{
        nghttp2_nv fixed[STACK_HEADERS], *nv = fixed;
        if (s->n_trailers > STACK_HEADERS && !(nv = arena_alloc(&s->s.arena, s->n_trailers * sizeof(*nv))))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        nv_fill(nv, s->trailers, s->n_trailers, NO_COPY);
        return nghttp2_submit_trailer(ng, s->s.id, nv, s->n_trailers);
}

static ssize_t read_body(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t n, uint32_t *flags, nghttp2_data_source *src,
                         void *user)
{
        struct stream *s = src->ptr;
        size_t have = buf_len(&s->out);
        if (!have && !s->s.local_ended) {
                s->parked = true;
                return NGHTTP2_ERR_DEFERRED;
        }
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        if (have > n)
                return (ssize_t)n;
        if (s->s.local_ended) {
                *flags |= NGHTTP2_DATA_FLAG_EOF;
                if (s->has_trailers) {
                        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
                        if (submit_trailers(ng, s))
                                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
                }
        }
        return (ssize_t)have;
}

static int send_body(nghttp2_session *ng, nghttp2_frame *f, const uint8_t *head, size_t n, nghttp2_data_source *src, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = src->ptr;
        struct buf *out = &c->io->out;
        if (s->s.closed)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* reset since the frame was made */
        if (buf_len(out) > CONN_HIGH_WATER)
                return NGHTTP2_ERR_WOULDBLOCK;
        /* A frame between the body and its trailers that carries nothing and ends nothing need not exist. */
        if (!n && !(f->hd.flags & NGHTTP2_FLAG_END_STREAM))
                return 0;
        if (buf_reserve(out, 9 + n))
                return NGHTTP2_ERR_CALLBACK_FAILURE;
        buf_add(out, head, 9);
        buf_add(out, s->out.p + s->out.off, n);
        buf_consume(&s->out, n);
        if (s->above_high && buf_len(&s->out) < H2_STREAM_LOW_WATER) {
                s->above_high = false;
                h2_stream_changed(s);
        }
        return 0;
}

static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
        struct h2_conn *c = user;
        /* The ping that tells when the peer has read our notice; nghttp2 would send it before the notice. */
        if (f->hd.type == NGHTTP2_GOAWAY && c->drain_at && !c->final_goaway)
                return nghttp2_submit_ping(ng, NGHTTP2_FLAG_NONE, (const uint8_t *)"draining");
        if (f->hd.type != NGHTTP2_DATA && f->hd.type != NGHTTP2_HEADERS)
                return 0;
        c->strikes = 0;
        struct stream *s = stream_of(c, f->hd.stream_id);
        if (!s)
                return 0;
        s->head_sent = true;
        if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
                s->end_sent = true;
                if (s->detached && !s->s.remote_ended)
                        h2_stream_lingers(s);
        }
        return 0;
}

/* Mostly because a header block is too large; a request's stream is then closed by nghttp2, a response's must be by us. */
static int on_frame_not_sent(nghttp2_session *ng, const nghttp2_frame *f, int err, void *user)
{
        struct h2_conn *c = user;
        struct stream *s = f->hd.type == NGHTTP2_HEADERS ? stream_of(c, f->hd.stream_id) : NULL;
        if (!s || s->s.closed || !s->open)
                return 0;
        if (f->headers.cat != NGHTTP2_HCAT_REQUEST)
                nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
        if (err == NGHTTP2_ERR_FRAME_SIZE_ERROR)
                h2_stream_fails(s, -E2BIG);
        return 0;
}

static nghttp2_session_callbacks *make_callbacks(void)
{
        nghttp2_session_callbacks *cb;
        if (nghttp2_session_callbacks_new(&cb))
                return NULL;
        nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_session_callbacks_set_send_data_callback(cb, send_body);
        nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
        nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_sent);
        return cb;
}

/* ---- sessions ---- */

int h2_session_new(struct h2_conn *c)
{
        nghttp2_option *o;
        nghttp2_session_callbacks *cb = make_callbacks();
        if (!cb)
                return -ENOMEM;
        int r = nghttp2_option_new(&o);
        if (!r) {
                nghttp2_option_set_no_auto_window_update(o, 1);
                /* gRPC lets a value end with a space, and error texts of other implementations do */
                nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(o, 1);
                nghttp2_option_set_no_closed_streams(o, 1); /* it would keep as many as may be open, for priorities that nobody uses */
                nghttp2_option_set_max_outbound_ack(o, H2_MAX_ACKS);
                nghttp2_option_set_max_send_header_block_length(o, H2_MAX_SEND_HEADERS);
                nghttp2_option_set_max_continuations(o, H2_MAX_CONTINUATIONS);
                nghttp2_option_set_stream_reset_rate_limit(o, H2_RESET_BURST, H2_RESET_PER_S);
                r = c->conf.server ? nghttp2_session_server_new2(&c->ng, cb, c, o) : nghttp2_session_client_new2(&c->ng, cb, c, o);
                nghttp2_option_del(o);
        }
        nghttp2_session_callbacks_del(cb);
        return r ? -ENOMEM : 0;
}

int h2_session_settings(struct h2_conn *c)
{
        const nghttp2_settings_entry server[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->conf.max_streams},
                                                 {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->conf.stream_window},
                                                 {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, c->conf.max_header_list}};
        const nghttp2_settings_entry client[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                                 {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->conf.stream_window},
                                                 {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, c->conf.max_header_list}};
        if (nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, c->conf.server ? server : client, 3))
                return -ENOMEM;
        if (nghttp2_session_set_local_window_size(c->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)c->conf.conn_window))
                return -ENOMEM;
        return 0;
}

void h2_session_free(struct h2_conn *c)
{
        nghttp2_session_del(c->ng);
        c->ng = NULL;
}

/* ---- operations ---- */

int h2_session_recv(struct h2_conn *c)
{
        struct buf *in = &c->io->in;
        while (buf_len(in)) {
                uint32_t code = 0;
                const uint8_t *p = (const uint8_t *)in->p + in->off;
                size_t part = c->conf.server ? h2_frames_look(c, p, buf_len(in), &code) : buf_len(in);
                ssize_t n = part ? nghttp2_session_mem_recv(c->ng, p, part) : 0;
                if (n < 0)
                        return n == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
                if (code)
                        nghttp2_session_terminate_session(c->ng, code);
                buf_consume(in, code ? buf_len(in) : (size_t)n);
        }
        return 0;
}

bool h2_session_knows(const struct h2_conn *c, int32_t id)
{
        return nghttp2_session_get_stream_user_data(c->ng, id);
}

int h2_session_send(struct h2_conn *c)
{
        struct buf *out = &c->io->out;
        size_t before = buf_len(out);
        while (buf_len(out) <= CONN_HIGH_WATER) {
                const uint8_t *p;
                ssize_t n = nghttp2_session_mem_send(c->ng, &p);
                if (n < 0 || (n && buf_add(out, p, (size_t)n)))
                        return -ENOMEM;
                if (!n)
                        break;
        }
        if (buf_len(out) != before)
                conn_flush_soon(c->io);
        return 0;
}

bool h2_session_wants_write(const struct h2_conn *c)
{
        return nghttp2_session_want_write(c->ng);
}

bool h2_session_is_over(const struct h2_conn *c)
{
        return !nghttp2_session_want_read(c->ng) && !nghttp2_session_want_write(c->ng);
}

bool h2_session_may_open(const struct h2_conn *c)
{
        return nghttp2_session_check_request_allowed(c->ng);
}

size_t h2_session_max_open(const struct h2_conn *c)
{
        return nghttp2_session_get_remote_settings(c->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

void h2_session_ping(struct h2_conn *c)
{
        nghttp2_submit_ping(c->ng, NGHTTP2_FLAG_NONE, NULL);
}

void h2_session_notice(struct h2_conn *c)
{
        nghttp2_submit_shutdown_notice(c->ng); /* on_frame_sent adds the ping */
}

void h2_session_goaway(struct h2_conn *c, uint32_t code, const char *text)
{
        nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng), code,
                              (const uint8_t *)text, strlen(text));
}

int h2_session_upgrade(struct h2_conn *c, struct str settings, bool is_head, struct stream *s)
{
        if (nghttp2_session_upgrade2(c->ng, (const uint8_t *)settings.p, settings.n, is_head, s))
                return -EPROTO;
        s->s.id = c->last_id = 1;
        s->open = true;
        c->n_open++;
        return 0;
}

/* NULL = no memory. */
static nghttp2_nv *make_nv(struct stream *s, const struct h2_head *head, nghttp2_nv *fixed)
{
        size_t n = head->n_first + head->n;
        nghttp2_nv *nv = n <= STACK_HEADERS ? fixed : arena_alloc(&s->s.arena, n * sizeof(*nv));
        if (nv) {
                nv_fill(nv, head->first, head->n_first, NGHTTP2_NV_FLAG_NO_COPY_NAME);
                nv_fill(nv + head->n_first, head->h, head->n, head->keep ? NO_COPY : 0);
        }
        return nv;
}

int h2_session_request(struct stream *s, const struct h2_head *head, bool end_stream)
{
        struct h2_conn *c = s->s.conn;
        nghttp2_nv fixed[STACK_HEADERS], *nv = make_nv(s, head, fixed);
        nghttp2_data_provider body = {{.ptr = s}, read_body};
        if (!nv)
                return -ENOMEM;
        s->s.local_ended = end_stream;
        int32_t id = nghttp2_submit_request(c->ng, NULL, nv, head->n_first + head->n, end_stream ? NULL : &body, s);
        if (id < 0)
                return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -ENETRESET;
        s->s.id = id;
        s->open = true;
        c->n_open++;
        defer_run(&c->pump);
        return 0;
}

int h2_session_respond(struct stream *s, const struct h2_head *head, bool end_stream)
{
        struct h2_conn *c = s->s.conn;
        nghttp2_nv fixed[STACK_HEADERS], *nv = make_nv(s, head, fixed);
        nghttp2_data_provider body = {{.ptr = s}, read_body};
        if (!nv || nghttp2_submit_response(c->ng, s->s.id, nv, head->n_first + head->n, end_stream ? NULL : &body))
                return -ENOMEM;
        s->responded = true;
        s->s.local_ended = end_stream;
        defer_run(&c->pump);
        return 0;
}

int h2_session_inform(struct stream *s, const struct h2_head *head)
{
        struct h2_conn *c = s->s.conn;
        nghttp2_nv fixed[STACK_HEADERS], *nv = make_nv(s, head, fixed);
        if (!nv || nghttp2_submit_headers(c->ng, NGHTTP2_FLAG_NONE, s->s.id, NULL, nv, head->n_first + head->n, NULL))
                return -ENOMEM;
        defer_run(&c->pump);
        return 0;
}

void h2_session_resume(struct stream *s)
{
        struct h2_conn *c = s->s.conn;
        if (s->parked) {
                s->parked = false;
                nghttp2_session_resume_data(c->ng, s->s.id);
        }
        defer_run(&c->pump);
}

void h2_session_reset(struct stream *s, uint32_t code)
{
        struct h2_conn *c = s->s.conn;
        if (s->open && c) {
                nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->s.id, code);
                defer_run(&c->pump);
        }
}

void h2_session_consume(struct stream *s, size_t n)
{
        struct h2_conn *c = s->s.conn;
        if (!c || c->dead)
                return;
        /* A stream that nghttp2 has closed gives back to the connection only. */
        nghttp2_session_consume(c->ng, s->s.id, n);
        if (nghttp2_session_want_write(c->ng))
                defer_run(&c->pump);
}
