/*
 * HTTP/1.1 messages (RFC 9112) between buffers: heads, bodies, and what is written. No I/O, no fibers; shared by server,
 * client and fuzzer. Reading is strict: whatever two readers could understand differently is refused.
 */
#ifndef SDK_NET_HTTP1_H
#define SDK_NET_HTTP1_H

#include "sdk/net/http.h"

enum {
        HTTP1_MAX_HEADERS = 256,         /* fields in a head or a trailer */
        HTTP1_MAX_CHUNK_LINE = 256,      /* size and extensions of a chunk */
        HTTP1_MAX_TRAILER_BYTES = 8192,
};

/* Looks for the end of a head in what has come so far. *scanned (0 at first) remembers how far it got.
 * > 0 = bytes of the head with its empty line; 0 = more is needed; -EMSGSIZE over max; -EBADMSG line ends that are not CRLF, stray
 * CR, folded lines. */
ssize_t http1_head_scan(struct str in, size_t *scanned, size_t max);

struct http1_head {
        bool response;            /* set before the call */
        struct str method, target;
        int status;
        int version;              /* 10 or 11 */
        struct http_headers headers;
        int64_t content_length;   /* -1 = none given */
        bool chunked;
        bool keep_alive;          /* as version and Connection say */
        bool expect_continue;
        bool upgrade;             /* Connection: upgrade */
        struct str host;          /* p == NULL: none */
        /* of a request that is refused: the answer's status and why, as Go words it ("" = nothing to add) */
        int refuse;
        const char *why;
};
/* Reads a whole head; `text` must live as long as the result (it borrows). 0, -EBADMSG (requests: refuse and why are set), -ENOMEM.
 * headers.v may be preset to the caller's storage with its cap. */
int http1_head_parse(struct http1_head *h, struct arena *a, struct str text);

/* Is the first line of a head of no HTTP/1 at all: three words, of which the second has the form of no target and the third does
 * not begin with "HTTP"? To a port that speaks HTTP/2 too this is a wrong preface (RFC 9113, 3.4). */
bool http1_is_foreign(struct str head);

enum http1_body_kind { HTTP1_BODY_NONE, HTTP1_BODY_LENGTH, HTTP1_BODY_CHUNKED, HTTP1_BODY_TO_END };
struct http1_body {
        enum http1_body_kind kind;
        int state;                /* of the chunked form */
        bool done;
        uint64_t left;            /* of the length, or of the current chunk */
        size_t trailer_bytes;
        struct arena *arena;      /* for trailers; NULL drops them */
        struct http_headers trailers;
};
void http1_body_init(struct http1_body *b, enum http1_body_kind kind, uint64_t length, struct arena *a);
/* Moves body bytes from in to p. > 0; 0 = complete (b->done); -EAGAIN = more input is needed; -EBADMSG; -ENOMEM (trailers). */
ssize_t http1_body_read(struct http1_body *b, struct buf *in, void *p, size_t n);
/* How a response's body is delimited, and from where on a request's is. */
enum http1_body_kind http1_body_of_response(const struct http1_head *h, struct str request_method);

/* ---- writing; errors show in buf.failed ---- */
/* Name and value with CRLF. Line breaks in values become spaces, a field whose name is no token is left out. */
void http1_put_header(struct buf *b, struct str name, struct str value);
void http1_put_uint(struct buf *b, uint64_t v);
void http1_put_chunk_size(struct buf *b, size_t n);   /* "1f\r\n" */
/* "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\n", made once a second. */
struct str http1_date_line(void);
bool http1_is_token(struct str s);
/* Fields that belong to one connection and its framing: not for the caller to set. */
enum http1_field { HTTP1_PLAIN, HTTP1_DATE, HTTP1_CONNECTION, HTTP1_CONTENT_LENGTH, HTTP1_TRANSFER_ENCODING, HTTP1_HOST };
enum http1_field http1_field_kind(struct str name);

#endif
