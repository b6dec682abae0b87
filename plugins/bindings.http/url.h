/* URLs of requests, taken apart. */
#ifndef BINDINGS_HTTP_URL_H
#define BINDINGS_HTTP_URL_H

#include "sdk/base/arena.h"

struct url {
        bool https;
        struct str host;     /* without brackets */
        const char *target;  /* "host:port", to dial */
        struct str authority; /* as the Host header has it: without a default port */
        struct str user;     /* "name:password", decoded; p == NULL: none */
        const char *path;    /* with query, at least "/" */
};
/* 0; -EINVAL with a text in *ret_err; -ENOMEM. Strings in a or of the text. */
int url_parse(struct url *u, struct arena *a, struct str text, const char **ret_err);
/* Where a Location header leads from u, as text. NULL = no memory. */
const char *url_resolve(const struct url *u, struct arena *a, struct str location);

#endif
