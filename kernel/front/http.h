/* The HTTP door: how one request of the API or the public server is handled. */
#ifndef KERNEL_FRONT_HTTP_H
#define KERNEL_FRONT_HTTP_H

#include "kernel/front/cors.h"
#include "kernel/front/router.h"

struct http_door {
        struct kernel *k;
        struct router *router;
        const struct http_route *fallback; /* for what no route takes; NULL: plain 404 and 405 */
        struct cors cors;
        struct pipeline *pipeline;         /* filters around the routes; NULL: none */
        struct str token;                  /* empty: none asked for */
        bool log_calls, log_health, obfuscate;
};

/* For http_server_conf.handler; arg is a struct http_door. */
void http_door_serve(struct http_req *r, void *arg);

/* Read errors as the reference words them: "stream too large" for -EMSGSIZE and so on. */
const char *body_error(int err);
/* text/plain, as net/http's http.Error writes it; text ends with a newline. */
void reply_text(struct call *c, int status, const char *text);
/* < > & as \u003c \u003e \u0026; borrows json when it holds none of them. */
struct str json_escape_html(struct arena *a, struct str json);

#endif
