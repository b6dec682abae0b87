/*
 * middleware.http.uppercase: bodies in capitals, of requests, responses or both; for tests and demonstrations. A character whose bytes
 * are cut by the end of a piece waits for the next piece; bytes that are no UTF-8 become U+FFFD.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <wctype.h>


enum { CHAR_BYTES = 4 };

static locale_t unicode; /* case mapping of all characters, whatever the process's own locale */

struct tail { /* of one body: the beginning of a character */
        unsigned char p[CHAR_BYTES];
        size_t n;
};
struct bodies {
        struct tail request, response;
};

static int start(void)
{
        unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
        return unicode ? 0 : -errno;
}

static void stop(void)
{
        freelocale(unicode);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        static const unsigned to_request = DAPR_HTTP_REQUEST_BODY, to_response = DAPR_HTTP_RESPONSE_BODY, both = to_request | to_response;
        const char *direction = dapr_md_string(md, "direction");

        *instance = (void *)&to_request; /* any other word too */
        if (direction && strcasecmp(direction, "response") == 0)
                *instance = (void *)&to_response;
        if (direction && strcasecmp(direction, "both") == 0)
                *instance = (void *)&both;
        return 0;
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        unsigned wants = *(const unsigned *)instance;

        if (!x->has_body)
                wants &= ~(unsigned)DAPR_HTTP_REQUEST_BODY;
        if (!wants)
                return 0;
        x->user = calloc(1, sizeof(struct bodies));
        dapr_http_want(c, wants | DAPR_HTTP_END);
        return x->user ? 0 : -ENOMEM;
}

/* Bytes of the character that begins at p: 0 = cut off by the end, 1 also for what begins none. */
static size_t char_bytes(const unsigned char *p, size_t n)
{
        size_t want = p[0] < 0xc2 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 1, have = 1;

        while (have < want && have < n && (p[have] & 0xc0) == 0x80)
                have++;
        if (have == want)
                return want;
        return have == n ? 0 : 1;
}

static size_t put(unsigned char *to, uint32_t c)
{
        if (c < 0x80)
                return to[0] = (unsigned char)c, 1;
        if (c < 0x800)
                return to[0] = (unsigned char)(0xc0 | c >> 6), to[1] = (unsigned char)(0x80 | (c & 63)), 2;
        if (c < 0x10000)
                return to[0] = (unsigned char)(0xe0 | c >> 12), to[1] = (unsigned char)(0x80 | (c >> 6 & 63)), to[2] = (unsigned char)(0x80 | (c & 63)), 3;
        return to[0] = (unsigned char)(0xf0 | c >> 18), to[1] = (unsigned char)(0x80 | (c >> 12 & 63)), to[2] = (unsigned char)(0x80 | (c >> 6 & 63)),
               to[3] = (unsigned char)(0x80 | (c & 63)), 4;
}

/* One whole character of n bytes. */
static size_t upper(unsigned char *to, const unsigned char *p, size_t n)
{
        uint32_t c;

        if (n == 1)
                return put(to, p[0] >= 0x80 ? 0xfffd : p[0] >= 'a' && p[0] <= 'z' ? (uint32_t)(p[0] - 32) : p[0]);
        c = p[0] & (0xffu >> (n + 1));
        for (size_t i = 1; i < n; i++)
                c = c << 6 | (p[i] & 63);
        if ((n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff)) || (c >= 0xd800 && c <= 0xdfff))
                return put(to, 0xfffd);
        return put(to, (uint32_t)towupper_l((wint_t)c, unicode));
}

static int body(struct dapr_call *c, struct tail *tail, struct dapr_bytes in, bool last, struct dapr_bytes *out)
{
        size_t n = tail->n + in.n, i = 0, used = 0;
        unsigned char *all = dapr_alloc(c, n + 1), *to = dapr_alloc(c, 3 * n + CHAR_BYTES); /* a byte that is none grows to three */

        if (!all || !to)
                return -ENOMEM;
        memcpy(all, tail->p, tail->n);
        if (in.n)
                memcpy(all + tail->n, in.p, in.n);
        tail->n = 0;
        while (i < n) {
                size_t take = char_bytes(all + i, n - i);
                if (!take && !last) {
                        tail->n = n - i;
                        memcpy(tail->p, all + i, tail->n);
                        break;
                }
                take = take ? take : 1;
                used += upper(to + used, all + i, take);
                i += take;
        }
        *out = (struct dapr_bytes){to, used};
        return 0;
}

static int request_body(struct dapr_call *c, void *instance, struct dapr_http *x, struct dapr_bytes in, bool last, struct dapr_bytes *out)
{
        return body(c, &((struct bodies *)x->user)->request, in, last, out);
}

static int response_body(struct dapr_call *c, void *instance, struct dapr_http *x, struct dapr_bytes in, bool last, struct dapr_bytes *out)
{
        return body(c, &((struct bodies *)x->user)->response, in, last, out);
}

static void done(void *instance, struct dapr_http *x)
{
        free(x->user);
}

static const struct dapr_middleware_ops ops = {
        .mode = DAPR_INLINE,
        .init = init,
        .request = request,
        .request_body = request_body,
        .response_body = response_body,
        .done = done,
};
static const struct dapr_component_type types[] = {{.type = "middleware.http.uppercase", .versions = "v1", .middleware = &ops}};
static const struct dapr_plugin plugin = {.name = "middleware.http.uppercase", .version = "1.0.0", .types = types, .n_types = 1, .start = start, .stop = stop};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
