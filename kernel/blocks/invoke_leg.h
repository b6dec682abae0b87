/*
 * One exchange with whoever is called, in the shape of HTTP, whatever it runs over: the own app's HTTP server, one outside, or
 * CallLocalStream to another sidecar. invoke_relay.c knows only this.
 *
 * A leg is opened with the head and what is there of the body; what follows is written, possibly on a fiber of its own; then the answer
 * comes, piece by piece. Each function gives 0 (read: 1 and a piece, 0 at the end) or < 0; after a failure `code` and `why` tell.
 */
#ifndef KERNEL_INVOKE_LEG_H
#define KERNEL_INVOKE_LEG_H

#include "kernel/app/app.h"
#include "kernel/blocks/invoke.h"
#include "kernel/mesh/endpoints.h"

struct leg;
struct leg_ops {
        int (*open)(struct leg *g);
        int (*write)(struct leg *g, char *room, size_t n); /* n bytes at room + MESH_CHUNK_ROOM */
        int (*end)(struct leg *g);
        int (*answer)(struct leg *g);                      /* status and headers */
        int (*read)(struct leg *g, struct str *ret);
        int (*trailers)(struct leg *g, struct http_headers *to); /* behind the last piece */
        void (*abort)(struct leg *g);                      /* wakes whoever waits, with an error */
        void (*close)(struct leg *g);
};
struct leg {
        const struct leg_ops *ops;
        struct call *c;
        struct invoke_dest *dest;
        /* the request */
        struct str method;             /* at the callee, cleaned */
        struct http_headers headers;   /* without those of the hop */
        int64_t length;                /* -1 unknown */
        struct str body;               /* p != NULL: all of it */
        /* the answer */
        int status;                    /* HTTP status, or below 100 a gRPC code */
        struct str content_type, message, details; /* message, details: of a gRPC code */
        struct http_headers answer;
        int64_t content_length;        /* -1 unknown */
        /* failure */
        int code;                      /* gRPC code, of a transport */
        const char *why;
        /* own */
        bool failed_before;            /* the address of the last try is to be avoided */
        double began;
        char *room;
        struct app_request app;
        struct endpoint *endpoint;
        struct endpoint_request outside;
        struct http_exchange *x;
        struct mesh_request request;
        struct mesh_call *call;
};
/* Fills the parts for dest. 0, or < 0 with `why`. leg_fini must follow. */
int leg_init(struct leg *g, struct call *c, struct invoke_dest *dest, struct str method);
void leg_fini(struct leg *g);

#endif
