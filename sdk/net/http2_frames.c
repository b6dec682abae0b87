/*
 * Frames on closed streams. nghttp2 keeps no closed streams here and ignores what comes on them; it also tells nothing of DATA that
 * it ignores. So a server looks at the heads of frames before nghttp2 gets them. Of the last streams that the peer itself has ended
 * or reset it keeps the ids: DATA and HEADERS on one of those end the connection (RFC 9113, 5.1). On streams that we have reset they are late,
 * which is no fault; neither are frames on older streams. A WINDOW_UPDATE of nothing is a fault on any stream.
 *
 * Invariant: bytes are fed in runs that end where the next check could depend on them: behind RST_STREAM, and before a faulty frame.
 */
#include "sdk/net/http2_impl.h"

enum { FRAME_HEAD = 9, UPDATE_PAYLOAD = 4, DATA = 0, RST_STREAM = 3, WINDOW_UPDATE = 8 };

void h2_frames_ended(struct h2_conn *c, int32_t id)
{
        c->ended[c->n_ended++ % H2_CLOSED_REMEMBERED] = id;
}

bool h2_frames_was_ended(const struct h2_conn *c, int32_t id)
{
        for (size_t i = 0; i < H2_CLOSED_REMEMBERED; i++)
                if (c->ended[i] == id)
                        return true;
        return false;
}

static uint32_t length_of(const unsigned char *h)
{
        return (uint32_t)h[0] << 16 | (uint32_t)h[1] << 8 | h[2];
}

static uint32_t number(const unsigned char *p)
{
        return ((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]) & 0x7fffffff;
}

/* Bytes of the frame that must be known. */
static unsigned wanted(const struct h2_conn *c)
{
        bool update = c->n_head >= FRAME_HEAD && c->head[3] == WINDOW_UPDATE && length_of(c->head) == UPDATE_PAYLOAD;
        return update ? FRAME_HEAD + UPDATE_PAYLOAD : FRAME_HEAD;
}

static uint32_t fault_of(const struct h2_conn *c)
{
        int32_t id = (int32_t)number(c->head + 5);
        if (c->head[3] == WINDOW_UPDATE && c->n_head == FRAME_HEAD + UPDATE_PAYLOAD)
                return !number(c->head + FRAME_HEAD) && id && id <= c->last_id && !h2_session_knows(c, id) ? H2_PROTOCOL_ERROR : 0;
        if (c->head[3] == DATA && id && id <= c->last_id && !h2_session_knows(c, id) && h2_frames_was_ended(c, id))
                return H2_STREAM_CLOSED;
        return 0;
}

size_t h2_frames_look(struct h2_conn *c, const unsigned char *p, size_t n, uint32_t *ret_code)
{
        size_t at = 0;
        *ret_code = 0;
        while (at < n) {
                if (c->payload_left) {
                        size_t k = c->payload_left < n - at ? c->payload_left : n - at;
                        c->payload_left -= (uint32_t)k;
                        at += k;
                        if (!c->payload_left && c->head[3] == RST_STREAM)
                                return at;
                        continue;
                }
                size_t begin = at;
                while (c->n_head < wanted(c) && at < n)
                        c->head[c->n_head++] = p[at++];
                if (c->n_head < wanted(c))
                        break;
                *ret_code = fault_of(c);
                c->payload_left = length_of(c->head) + FRAME_HEAD - c->n_head;
                c->n_head = 0;
                if (*ret_code)
                        return begin;
        }
        return at;
}
