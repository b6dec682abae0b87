/* POST /v1.0/shutdown and Shutdown: asks for a stop and answers before it begins. */
#include "google/protobuf/empty.pb-c.h"
#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "kernel/front/call.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.api"
#define FORCE_KEY "dapr-force-shutdown"

static void ask(struct kernel *k, bool force)
{
        if (force)
                log_warn(SCOPE, "Force shutdown requested, exiting immediately without graceful shutdown");
        else
                log_info(SCOPE, "Shutdown requested via API");
        kernel_shutdown(k, force);
}

static int grpc_shutdown(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        bool force = false;

        for (size_t i = 0; i < c->rpc->md_in.n; i++)
                force |= str_eqz(c->rpc->md_in.v[i].key, FORCE_KEY) && str_ieq(c->rpc->md_in.v[i].value, STR("true"));
        ask(c->k, force);
        return 0;
}

static void http_shutdown(struct call *c)
{
        ask(c->k, str_ieq(http_headers_get(&c->http->headers, FORCE_KEY), STR("true")));
        reply_empty(c);
}

static const struct http_route http_rows[] = {
        {"POST", "/v1.0/shutdown", "shutdown", "v1", "Shutdown", http_shutdown},
};
static const struct grpc_route grpc_rows[] = {
        {"Shutdown", "shutdown.v1", &dapr__proto__runtime__v1__shutdown_request__descriptor, &google__protobuf__empty__descriptor,
         grpc_shutdown, NULL},
};
const struct block shutdown_block_def = {.name = "shutdown", .http = http_rows, .n_http = sizeof http_rows / sizeof http_rows[0],
                                         .grpc = grpc_rows, .n_grpc = sizeof grpc_rows / sizeof grpc_rows[0]};
