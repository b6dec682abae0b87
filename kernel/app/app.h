/*
 * The app channel: how daprd calls the app (API.md 3). One struct app a process; NULL in kernel->app when no --app-port is given.
 * HTTP apps (http, https, h2c) are called through app_http, gRPC apps (grpc, grpcs) through app_grpc; building blocks choose by
 * app_is_grpc(). Each call holds one slot of --app-max-concurrency until its response body has been read, carries dapr-api-token
 * (APP_API_TOKEN) and the trace headers of the calling fiber, and follows no redirects.
 */
#ifndef KERNEL_APP_H
#define KERNEL_APP_H

#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

struct app;
struct kernel;

/* From the options; connects to nothing yet. 0 and *ret (NULL when there is no app port), -EINVAL with a sentence in *ret_err. */
int app_new(struct app **ret, struct kernel *k, struct arena *a, const char **ret_err);
void app_free(struct app *p); /* after all calls have ended */
bool app_is_grpc(const struct app *p);
/* Parks until the app's port takes connections (TLS: and shakes hands): every 100 ms, for ever, logging as the reference does. 0 or
 * -ECANCELED. */
int app_wait_port(struct app *p);

/* One such try, of half a second at most: 0 or -errno. Parks. */
int app_try_port(struct app *p);

struct app_request {
        struct str method;               /* "POST" */
        struct str path;                 /* "/orders", with its query */
        const struct http_header *headers;
        size_t n_headers;
        struct str content_type;         /* p == NULL: none */
        struct str body;
        size_t max_response_bytes;       /* 0 = --max-body-size */
};
struct app_response {
        int status;
        struct http_headers headers;
        struct str body;                 /* in the arena */
};
/* One whole exchange. 0 (any status), -EMSGSIZE (response too large), -ECONNREFUSED, -ECONNRESET, -ETIMEDOUT, -ECANCELED. Parks. */
int app_http(struct app *p, struct arena *a, const struct app_request *in, struct app_response *out);
/* The same streamed: the exchange is http_client's; app_http_close returns connection and slot. With a body in head that is all of it
 * and length does not count; else it follows by http_exchange_write. Strings of head must live until the close. */
int app_http_open(struct app *p, struct arena *a, const struct app_request *head, int64_t length, struct http_exchange **ret);
void app_http_close(struct app *p, struct http_exchange *x);

/* "http://127.0.0.1:8080" of an HTTP app. */
const char *app_base_url(const struct app *p);
/* Why app_http failed with r < 0, in the reference's words: `Post "http://127.0.0.1:80/x": dial tcp 127.0.0.1:80: connect: connection
 * refused`. In a, or static. */
const char *app_http_error(struct app *p, struct arena *a, const struct app_request *in, int r);

/* One unary call to the app's gRPC server ("/dapr.proto.runtime.v1.AppCallback/OnTopicEvent"). As rpc_unary_pb. Parks. */
int app_grpc(struct app *p, struct arena *a, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *resp_d,
             void *resp, const struct rpc_md *md, size_t n_md, struct rpc_status *st);
/* The same with the metadata of the app's answer, whatever its status. */
struct app_grpc_md {
        struct rpc_mdlist headers, trailers;
};
int app_grpc_md(struct app *p, struct arena *a, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *resp_d,
                void *resp, const struct rpc_md *md, size_t n_md, struct app_grpc_md *ret_md, struct rpc_status *st);
/* Any kind of call, for proxying: the app's token is added and nothing else, no slot is taken (a stream may last for ever). As
 * rpc_open. */
int app_grpc_open(struct app *p, struct arena *a, const char *method, const struct rpc_md *md, size_t n_md, struct rpc_call **ret,
                  struct rpc_status *st);
int app_slot_take(struct app *p);               /* parks; 0, -ECANCELED, -ETIMEDOUT */
void app_slot_give(struct app *p);

/* Start and end of what depends on the app's health. app_start: the port is open; without health checks the app is healthy from here
 * on, and this reads its configuration and tells the watchers before it returns (parks); with them probes begin. app_stop: no probe
 * and no watcher runs any more; parks. NULL is fine for both. */
int app_start(struct app *p);
void app_stop(struct app *p);

/* Health (API.md 7.7): healthy once the port is open, or by probes when --enable-app-health-check is set. Watchers are called on a
 * fiber at each change, one after the other in the order of their coming, and may park; a new watcher is called at once with the
 * present state. 0, or -ENOSPC. */
bool app_is_healthy(const struct app *p);
/* No health check speaks against a call: without checks one that comes before the port is open finds that out by itself. */
bool app_takes_calls(const struct app *p);
int app_watch_health(struct app *p, void (*fn)(void *arg, bool healthy), void *arg);

/* What GET /dapr/config answered (API.md 3.2): read once, when the app is first healthy. */
struct app_config {
        struct str json;                 /* the whole answer; "" when there was none */
        const char **entities;
        size_t n_entities;
};
const struct app_config *app_config(const struct app *p);

#endif
