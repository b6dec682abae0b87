/*
 * The messages between sidecars (dapr.proto.internals.v1), by hand: the head of a call is written straight from its headers and read
 * into plain structs, bodies are framed where they lie. Strings that were read point into the message.
 *
 * Metadata is a list of headers in which a name may repeat. Headers of HTTP origin have canonical names ("Content-Type"), metadata of
 * gRPC origin lower case ones; values of names that end in "-bin" are base64.
 */
#ifndef KERNEL_MESH_MESSAGE_H
#define KERNEL_MESH_MESSAGE_H

#include "sdk/net/http.h"

enum {
        MESH_CHUNK_BYTES = 16 * 1024,  /* of a body in one message; the reference sends 2 KiB and reads any size */
        MESH_CHUNK_ROOM = 32,          /* in front of a chunk, for its frame */
        MESH_METADATA_MAX = 4096,      /* entries of a head */
};

struct mesh_request {
        struct str method, content_type, type_url, query;
        int verb;                      /* of HTTPExtension; 0 = none */
        bool has_message, has_http;
        struct http_headers md;
};
struct mesh_response {
        bool has_status, has_message;
        int code;                      /* HTTP status from 100 on, else a gRPC code */
        struct str message;            /* of the status */
        struct str status;             /* the status as a serialized google.rpc.Status */
        struct str content_type, type_url;
        struct http_headers headers, trailers;
};
/* A piece of a body. */
struct mesh_payload {
        bool present;
        struct str data;
        uint64_t seq;
};

/* First message of a streamed call: the head and, with payload.p != NULL, the first piece (number 0). p == NULL: no memory. */
struct str mesh_put_request(struct arena *a, const struct mesh_request *q, struct str payload);
struct str mesh_put_response(struct arena *a, const struct mesh_response *r, struct str payload);
/* The unary form, with the body in it. */
struct str mesh_put_whole_request(struct arena *a, const struct mesh_request *q, struct str body);
struct str mesh_put_whole_response(struct arena *a, const struct mesh_response *r, struct str body);
/* A later message: data lies at room + MESH_CHUNK_ROOM, n bytes; the frame is written in front of it. The message. */
struct str mesh_put_chunk(char *room, size_t n, uint64_t seq);

/* 0, -EBADMSG (malformed), -E2BIG (more than MESH_METADATA_MAX entries), -ENOMEM. *has_head: the message carried one. The head is
 * only written when it did. */
int mesh_read_request(struct arena *a, struct str msg, struct mesh_request *q, bool *has_head, struct mesh_payload *payload);
int mesh_read_response(struct arena *a, struct str msg, struct mesh_response *r, bool *has_head, struct mesh_payload *payload);
int mesh_read_whole_request(struct arena *a, struct str msg, struct mesh_request *q, struct str *body);
int mesh_read_whole_response(struct arena *a, struct str msg, struct mesh_response *r, struct str *body);

#endif
