/*
 * What gRPC writes on the wire, without any I/O: message frames, timeouts, percent coding of grpc-message, "-bin" metadata,
 * gzip, the mappings of HTTP and RST_STREAM codes. Facts: grpc/doc/PROTOCOL-HTTP2.md; texts as grpc-go has them.
 */
#ifndef SDK_NET_RPC_WIRE_H
#define SDK_NET_RPC_WIRE_H

#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

enum { RPC_FRAME_HEAD = 5, RPC_TIMEOUT_BYTES = 12 };
#define RPC_DEFAULT_MAX_RECV ((int64_t)4 * 1024 * 1024)

struct rpc_frame {
        bool compressed;
        uint32_t n;
};
void rpc_frame_put(char out[RPC_FRAME_HEAD], bool compressed, size_t n);
/* 1 and *ret when the head is there, 0 = needs more, -EBADMSG = unknown flag bits. */
int rpc_frame_get(struct str in, struct rpc_frame *ret);

/* "100m", at most 8 digits and a unit, rounded up; seconds <= 0 gives "0n". Returns the length. */
size_t rpc_timeout_format(char out[RPC_TIMEOUT_BYTES], double seconds);
/* 0, or -EINVAL: empty, over 8 digits, unknown unit. */
int rpc_timeout_parse(struct str s, double *ret_seconds);

/* Bytes outside 0x20..0x7e and '%' become %XX; p == NULL when the arena is full. s itself when nothing is to be done. */
struct str rpc_percent_encode(struct arena *a, struct str s);
/* Bad escapes stay as they are. */
struct str rpc_percent_decode(struct arena *a, struct str s);
/* Base64 without padding, as grpc-go sends it. */
struct str rpc_bin_encode(struct arena *a, struct str s);

/* Names that applications may not send or do not see. */
bool rpc_is_reserved(struct str key);
/* Appends what may be sent, coded; others are left out. -ENOMEM. */
int rpc_md_to_headers(struct arena *a, const struct rpc_md *md, size_t n, struct http_header *out, size_t *ret_n);
/* Appends all metadata of received headers, decoded; `keep` copies strings into a, else they are borrowed. -ENOMEM. */
int rpc_md_from_headers(struct arena *a, const struct http_headers *h, bool keep, struct rpc_mdlist *out);

/* p == NULL: no memory. */
struct str rpc_gzip(struct arena *a, struct str s);
/* 0 and *ret, -EMSGSIZE over max (-1 = unlimited), -EBADMSG, -ENOMEM. */
int rpc_gunzip(struct arena *a, struct str s, int64_t max, struct str *ret);

/* "application/grpc", with "+x" or ";x" behind or not. */
bool rpc_is_grpc_content(struct str content_type);
int rpc_code_of_http(int status);
int rpc_code_of_rst(uint32_t code, const char **ret_name); /* name as in "stream terminated by RST_STREAM with error code: CANCEL" */
int rpc_code_of_errno(int err);

/* Sets a status with text. */
void rpc_status_set(struct rpc_status *st, struct arena *a, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
