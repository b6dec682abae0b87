/*
 * Route table as a tree of path segments. At each step a literal segment is tried before a {parameter} and that before a
 * {rest...}; when the deeper part or the method does not fit, the next is tried.
 */
#ifndef KERNEL_ROUTER_H
#define KERNEL_ROUTER_H

#include "kernel/front/call.h"

enum { ROUTE_PARAMS_MAX = 6 };

struct route_match {
        const struct http_route *route;
        struct {
                struct str name, value; /* value as on the wire */
        } param[ROUTE_PARAMS_MAX];
        size_t n;
        bool path_exists;               /* some route has this path, if with other methods */
        char allow[64];                 /* methods of the path when none fits: "GET, PUT" */
};

struct router;
int router_new(struct router **ret);
void router_free(struct router *r);
/* Keeps the row. 0, -ENOMEM, or -EEXIST when path and method are taken (nothing is replaced). */
int router_add(struct router *r, const struct http_route *route);
/* path: cleaned, without trailing slash, still percent-encoded. False: no route; m->path_exists tells 405 from 404. */
bool router_find(const struct router *r, struct str method, struct str path, struct route_match *m);

#endif
