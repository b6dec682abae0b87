/* GET /v1.0/healthz and /v1.0/healthz/outbound: asked often, so the ready case does nothing but look. */
#include "kernel/front/call.h"

static void healthz(struct call *c)
{
        struct buf names = {0};
        struct str id;

        if (!health_check(&c->k->health, HEALTH_ALL, &names)) {
                buf_addc(&names, '\0');
                call_fail(c, ERR_HEALTH_NOT_READY, names.failed ? "" : names.p);
                buf_fini(&names);
                reply_error(c);
                return;
        }
        /* asked by name resolvers: is this still the app they know? */
        id = call_query(c, "appid");
        if (id.p && !str_eqz(id, c->k->opts.app_id)) {
                call_fail(c, ERR_HEALTH_APPID_NOT_MATCH);
                reply_error(c);
                return;
        }
        reply_empty(c);
}

static void outbound(struct call *c)
{
        if (health_check(&c->k->health, HEALTH_OUTBOUND, NULL)) {
                reply_empty(c);
                return;
        }
        call_fail(c, ERR_OUTBOUND_HEALTH_NOT_READY);
        reply_error(c);
}

static const struct http_route http_rows[] = {
        {"GET", "/v1.0/healthz", "healthz", "v1", "Healthz", healthz, .always_allowed = true, .health_check = true, .public_ = true},
        {"GET", "/v1.0/healthz/outbound", "healthz", "v1", "HealthzOutbound", outbound, .always_allowed = true, .health_check = true,
         .public_ = true},
};
const struct block health_block_def = {.name = "health", .http = http_rows, .n_http = sizeof http_rows / sizeof http_rows[0]};
