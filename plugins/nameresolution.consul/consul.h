/* One name resolver on Consul: settings and requests (agent.c), answers and what is kept of them (main.c). */
#ifndef PLUGINS_CONSUL_CONSUL_H
#define PLUGINS_CONSUL_CONSUL_H

#include <dapr/plugin.h>

#include "plugins/shared/web/web.h"
#include "sdk/base/fiber.h"
#include "sdk/base/map.h"

enum {
        CONSUL_ANSWER_MAX = 8 << 20,
        CONSUL_WATCHES_MAX = 1024,  /* apps whose addresses are kept up to date; others are asked for each time */
        CONSUL_ADDRESSES_MAX = 64,  /* of one app */
        CONSUL_HEADERS_MAX = 4,
        CONSUL_FILE_MAX = 1 << 20,  /* of a certificate, key or token */
};

struct consul {
        struct arena arena;         /* of the settings */
        struct str conf;            /* canonical JSON, see schema.h */
        struct web_site *site;
        struct http_header headers[CONSUL_HEADERS_MAX];
        size_t n_headers;
        struct str query;           /* "&dc=…": what each question carries */
        struct http_header cache_control; /* value.p NULL = none */
        struct str registration;    /* JSON; p NULL = nothing is registered */
        const char *id, *name;      /* of the registration */
        const char *port_key;
        bool use_cache, deregister;
        bool registered;
        struct scope scope;         /* watches */
        struct map watches;         /* app id -> struct watch */
};

/* Reads the settings into s (zeroed). 0, or a code with the text set. Parks. */
int consul_configure(struct dapr_call *c, struct consul *s);
/* One request to the agent. 0 with status 2xx; or -errno or DAPR_INTERNAL, and a sentence in *ret_err (in a or static). Parks. */
int consul_request(struct consul *s, struct arena *a, const char *method, const char *path, bool cached, struct str body,
                   struct web_answer *ret, const char **ret_err);
/* What follows "/v1/health/service/<app>?" for healthy instances. */
const char *consul_health_path(struct consul *s, struct arena *a, const char *app_id, bool cached);

#endif
