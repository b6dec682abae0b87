/*
 * The app channel's object: where the app is, how it is spoken to, and how many calls may run at once. Connections are made by the
 * HTTP client and the gRPC channel when they are needed and again when they were lost.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/app/internal.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/net/tls.h"

#define SCOPE "dapr.runtime"

enum { DIAL_PERIOD_MS = 100, DIAL_TIMEOUT_MS = 500, LOG_EVERY = 100, CONNS_MAX = 1024, CONNS_IDLE = 64 };

/* ---- life ---- */

static int tls_new(struct app *p, struct arena *a, const char **ret_err)
{
        static const char *const h2[] = {"h2", NULL};
        char err[200];
        /* the app is on this machine or in this pod: the reference checks no certificate either */
        int r = tls_context_new(&p->tls, &(struct tls_options){.insecure_skip_verify = true, .alpn = p->is_grpc ? h2 : NULL}, err, sizeof err);

        if (r)
                *ret_err = arena_printf(a, "failed to create app channel: %s", err);
        return r;
}

static int client_new(struct app *p)
{
        const struct daprd_opts *o = &p->k->opts;

        if (p->is_grpc)
                return rpc_channel_new(&p->grpc, &(struct rpc_channel_conf){.target = str_of(p->target),
                                                                            .tls = p->tls,
                                                                            .server_name = str_of(o->app_channel_address),
                                                                            .max_recv_bytes = o->max_body_size > 0 ? o->max_body_size : -1});
        return http_client_new(&p->http, &(struct http_client_conf){.target = str_of(p->target),
                                                                    .h2 = strcmp(o->app_protocol, "h2c") == 0,
                                                                    .tls = p->tls,
                                                                    .server_name = str_of(o->app_channel_address),
                                                                    .gzip = HTTP_GZIP_UNPACK,
                                                                    .max_conns = CONNS_MAX,
                                                                    .max_idle = CONNS_IDLE,
                                                                    .max_header_bytes = app_header_bytes(p)});
}

int app_new(struct app **ret, struct kernel *k, struct arena *a, const char **ret_err)
{
        const struct daprd_opts *o = &k->opts;
        struct app *p;
        bool v6 = strchr(o->app_channel_address, ':') && o->app_channel_address[0] != '[';
        int r;

        *ret = NULL;
        *ret_err = NULL;
        if (o->app_port <= 0)
                return 0;
        if (!(p = calloc(1, sizeof *p))) {
                *ret_err = "out of memory";
                return -ENOMEM;
        }
        p->k = k;
        p->is_grpc = strncmp(o->app_protocol, "grpc", 4) == 0;
        p->has_tls = strcmp(o->app_protocol, "https") == 0 || strcmp(o->app_protocol, "grpcs") == 0;
        p->token = str_of(o->app_api_token);
        snprintf(p->target, sizeof p->target, v6 ? "[%s]:%d" : "%s:%d", o->app_channel_address, o->app_port);
        snprintf(p->base_url, sizeof p->base_url, "%s://%s", p->has_tls ? "https" : "http", p->target);
        p->limited = o->app_max_concurrency > 0;
        fsem_init(&p->slots, o->app_max_concurrency);
        scope_init(&p->scope);
        cond_init(&p->changed);
        fmutex_init(&p->telling);
        arena_init(&p->config_arena, 0);
        r = p->has_tls ? tls_new(p, a, ret_err) : 0;
        if (r == 0)
                r = client_new(p);
        if (r) {
                *ret_err = *ret_err ? *ret_err : "out of memory";
                app_free(p);
                return r == -ENOMEM ? r : -EINVAL;
        }
        *ret = p;
        return 0;
}

void app_free(struct app *p)
{
        if (!p)
                return;
        if (p->http)
                http_client_free(p->http);
        if (p->grpc)
                rpc_channel_close(p->grpc);
        map_fini(&p->open);
        tls_context_unref(p->tls);
        arena_fini(&p->config_arena);
        free(p);
}

bool app_is_grpc(const struct app *p)
{
        return p->is_grpc;
}

const char *app_base_url(const struct app *p)
{
        return p->base_url;
}

/* ---- the port ---- */

int app_try_port(struct app *p)
{
        double old = fiber_set_deadline(loop_now_exact() + DIAL_TIMEOUT_MS / 1e3);
        struct conn *c;
        int r = conn_dial(str_of(p->target), &c);

        if (r == 0) {
                if (p->has_tls)
                        r = conn_start_tls(c, p->tls, str_of(p->k->opts.app_channel_address), false);
                conn_free(c);
        }
        fiber_restore_deadline(old);
        if (r == 0 && p->grpc)
                rpc_channel_retry_now(p->grpc);
        return r;
}

int app_wait_port(struct app *p)
{
        const struct daprd_opts *o = &p->k->opts;

        log_info(SCOPE, "application protocol: %s. waiting on port %d.  This will block until the app is listening on that port.",
                 o->app_protocol, o->app_port);
        for (unsigned tries = 1;; tries++) {
                int r = app_try_port(p);
                if (r == 0) {
                        log_info(SCOPE, "application discovered on port %d", o->app_port);
                        return 0;
                }
                if (r == -ECANCELED || fiber_sleep(DIAL_PERIOD_MS / 1e3) == -ECANCELED)
                        return -ECANCELED;
                if (tries % LOG_EVERY == 0)
                        log_info(SCOPE, "waiting for application to listen on port %d", o->app_port);
        }
}

/* ---- slots ---- */

int app_slot_take(struct app *p)
{
        return p->limited ? fsem_take(&p->slots) : 0;
}

void app_slot_give(struct app *p)
{
        if (p->limited)
                fsem_give(&p->slots);
}
