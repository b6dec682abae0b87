/* See metrics_serve.h. What fits in one portion has a length; more is sent as a stream. */
#include "kernel/observe/metrics_serve.h"

#include <errno.h>

/* b: the first portion, after which there are more. */
static int stream(struct metrics *m, struct http_req *r, struct metrics_at *at, struct buf *b)
{
        int more = 1, e;

        while ((e = http_resp_write(r, buf_str(b))) == 0 && more > 0) {
                buf_clear(b);
                more = metrics_write_some(m, at, b);
                if (more < 0)
                        return more;
        }
        return e ? e : http_resp_end(r, NULL, 0);
}

int metrics_serve(struct metrics *m, struct http_req *r, struct str content_type)
{
        const struct http_header h = {STR("Content-Type"), content_type};
        struct metrics_at at = {0};
        struct buf b = {0};
        int e = metrics_write_some(m, &at, &b);

        if (e == 0) {
                e = http_resp_send(r, 200, &h, 1, buf_str(&b));
        } else if (e > 0) {
                e = http_resp_begin(r, 200, &h, 1, -1);
                if (e == 0)
                        e = stream(m, r, &at, &b);
        }
        buf_fini(&b);
        return e;
}
