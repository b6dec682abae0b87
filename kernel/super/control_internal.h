/* What the files of the control service share. */
#ifndef KERNEL_SUPER_CONTROL_INTERNAL_H
#define KERNEL_SUPER_CONTROL_INTERNAL_H

#include "kernel/super/control.h"
#include "kernel/super/plugin.h"
#include "sdk/base/json.h"
#include "sdk/net/http.h"

struct control {
        struct super *super;
        struct http_server *server;
        char path[128];
        struct {
                const char *prefix;
                control_fn fn;
                void *arg;
        } routes[CONTROL_ROUTES_MAX]; /* of other parts */
};

/* ---- control.c ---- */
void control_kv(struct json_writer *w, const char *key, const char *value);
void control_number(struct json_writer *w, const char *key, uint64_t v);
void control_time(char to[40], int64_t at_ns); /* RFC 3339 */

/* ---- control_swap.c ---- */
/* POST /v1/plugins/{component}/{verb}. False: there is no such verb. Parks. */
bool control_post(struct control *k, struct http_req *r, struct component *c, struct str verb);
void control_upgrade(struct control *k, struct http_req *r); /* POST /v1/upgrade */
/* GET /v1/plugins/{component}/history; also of one that is gone. */
void control_history(struct control *k, struct http_req *r, struct str name);

/* Of the query; NULL = not given. In the request's arena. */
const char *control_query(struct http_req *r, const char *key);

/* ---- control_drill.c ---- */
void control_fault_row(struct json_writer *w, const struct component *c, struct arena *a); /* "fault", when there is one */
void control_fault(struct control *k, struct http_req *r, struct component *c);
void control_unfault(struct control *k, struct http_req *r, struct component *c);
void control_tap_start(struct control *k, struct http_req *r, struct component *c);
void control_tap_stop(struct control *k, struct http_req *r, struct component *c);
void control_tap_take(struct http_req *r, struct component *c);
void control_call(struct control *k, struct http_req *r, struct component *c); /* parks */

#endif
