/*
 * What becomes of a call's words between the protocols: HTTP headers, gRPC metadata, and the metadata of messages between sidecars
 * ("internal", see message.h); and of its method. Strings borrow from the source or live in a.
 * - Headers that stay on their hop (RFC 9110, 7.6.1), and what Connection names, never pass.
 * - HTTP to gRPC: headers that HTTP itself defines get the prefix "dapr-"; names become lower case.
 * - To HTTP, from either: pseudo headers and "grpc-…" get the prefix "dapr-"; binary metadata stays behind.
 * - Trace headers of requests are not copied from or to gRPC: the app channel writes those of the running call.
 */
#ifndef KERNEL_MESH_CONVERT_H
#define KERNEL_MESH_CONVERT_H

#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

enum { CONVERT_VERBS = 10, CONVERT_POST = 3, CONVERT_CONNECT = 6 };
/* Names of HTTPExtension's verbs; [0] is "". */
extern const char *const convert_verbs[CONVERT_VERBS];
/* The verb's number, POST for one that is none of them. */
int convert_verb(struct str name);

/* The method cleaned of dot segments; p == NULL and a sentence without prefix ("method contains …") in *ret_err when it has characters
 * that no method may have, or when memory is out. */
struct str convert_method(struct arena *a, struct str method, const char **ret_err);
/* The path and query by which an HTTP server is asked for it: escapes in the method stay. p == NULL when memory is out, or when a % in it
 * begins no escape: then *ret_err is a sentence as net/url words it (`base` is the server's URL), else "out of memory". */
struct str convert_path(struct arena *a, const char *base, struct str method, struct str query, const char **ret_err);

/* The length that a header tells; -1: none that can be read. */
int64_t convert_length(struct str s);

/* Headers that stay on their hop, and those that are made anew for each; connection: the value of the Connection header. */
bool convert_is_hop_by_hop(struct str name, struct str connection);

/* Each: 0 or -ENOMEM. */
int convert_http_to_http(struct arena *a, const struct http_headers *from, struct http_headers *to);
int convert_http_to_md(struct arena *a, const struct http_headers *from, bool is_response, struct rpc_mdlist *to);
int convert_md_to_http(struct arena *a, const struct rpc_mdlist *from, struct http_headers *to);
/* Keeps Content-Length, which tells the callee of the body's length. */
int convert_http_to_internal(struct arena *a, const struct http_headers *from, struct http_headers *to);
int convert_md_to_internal(struct arena *a, const struct rpc_mdlist *from, struct http_headers *to);
int convert_internal_to_http(struct arena *a, const struct http_headers *from, struct http_headers *to);
int convert_internal_to_md(struct arena *a, const struct http_headers *from, struct rpc_mdlist *to);

#endif
