/* See gunzip.h. zlib reads the headers and checks the sums; here is only what follows a member: the end, or the next one. */
#include "sdk/net/gunzip.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16 }; /* 32 KiB, with gzip's header */

struct gunzip {
        z_stream z;
        bool inside; /* a member has begun and not ended */
};

int gunzip_new(struct gunzip **ret)
{
        struct gunzip *g = calloc(1, sizeof *g);

        if (!g || inflateInit2(&g->z, GZIP_WINDOW) != Z_OK) {
                free(g);
                return -ENOMEM;
        }
        *ret = g;
        return 0;
}

void gunzip_free(struct gunzip *g)
{
        if (!g)
                return;
        inflateEnd(&g->z);
        free(g);
}

static unsigned limited(size_t n)
{
        return n > INT_MAX ? INT_MAX : (unsigned)n;
}

ssize_t gunzip_read(struct gunzip *g, struct str *in, void *p, size_t n)
{
        z_stream *z = &g->z;

        z->next_out = p;
        z->avail_out = limited(n);
        for (;;) {
                unsigned given = limited(in->n), room = z->avail_out;
                int r;

                if (!g->inside && !given)
                        return 0;
                g->inside = true;
                z->next_in = (Bytef *)(uintptr_t)in->p;
                z->avail_in = given;
                r = inflate(z, Z_SYNC_FLUSH);
                *in = str_skip(*in, given - z->avail_in);
                if (r == Z_STREAM_END) {
                        g->inside = false;
                        inflateReset(z);
                } else if (r != Z_OK && r != Z_BUF_ERROR) {
                        return r == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
                }
                if (z->avail_out < room)
                        return room - z->avail_out;
                if (r != Z_STREAM_END && !in->n)
                        return 0;
        }
}

bool gunzip_is_whole(const struct gunzip *g)
{
        return !g->inside;
}
