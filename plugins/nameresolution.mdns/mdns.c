/*
 * nameresolution.mdns: sidecars on one network find one another without a server. A name that is asked for is browsed for at most
 * BROWSE_S; every packet from the group is read for the apps that are known here, so addresses come and go as their sidecars say. In
 * the background the apps that were asked for lately are browsed for again; an address that is not confirmed is forgotten.
 */
#include <arpa/inet.h>
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugins/nameresolution.mdns/mdns.h"
#include "sdk/base/fiber.h"
#include "sdk/base/map.h"

#define BROWSE_S 1.0
enum {
        REFRESH_S = 30,
        ADDRESS_S = 60,     /* an address lives so long without being heard of */
        APP_IDLE_S = 600,   /* an app that is not asked for is forgotten */
        ANSWER_S = 5,       /* the runtime may use an answer so long */
        APPS_MAX = 4096,
        ADDRESSES_MAX = 64, /* of one app */
        SERVICES_MAX = 32,  /* instances read from one packet */
        ADDR_TEXT = 64,
};
#define FRESH_S 0.2 /* the same, while further instances may still answer */

struct address {
        char text[ADDR_TEXT];
        bool v6;
        double until;
};
struct app {
        char *id;
        struct mdns_name service;
        struct address v[ADDRESSES_MAX];
        size_t n;
        double used, found; /* when it was asked for; when the first address came */
        double ask_again;   /* not before */
        struct cond changed;
        unsigned waiting;
};
struct resolver {
        struct mdns_net net;
        struct responder self;
        struct map apps;    /* service name, see mdns_name_key() -> struct app */
        struct timer refresh;
};

/* ---- addresses ---- */

static void expire(struct app *app)
{
        size_t kept = 0;
        for (size_t i = 0; i < app->n; i++)
                if (app->v[i].until > loop_now())
                        app->v[kept++] = app->v[i];
        app->n = kept;
}

static void forget(struct app *app, const char *text)
{
        for (size_t i = 0; i < app->n; i++)
                if (strcmp(app->v[i].text, text) == 0) {
                        memmove(&app->v[i], &app->v[i + 1], (--app->n - i) * sizeof app->v[0]);
                        return;
                }
}

static void learn(struct app *app, const char *text, bool v6)
{
        for (size_t i = 0; i < app->n; i++)
                if (strcmp(app->v[i].text, text) == 0) {
                        app->v[i].until = loop_now() + ADDRESS_S;
                        return;
                }
        expire(app);
        if (app->n == ADDRESSES_MAX)
                return;
        if (app->n == 0)
                app->found = loop_now();
        struct address *a = &app->v[app->n++];
        snprintf(a->text, sizeof a->text, "%s", text);
        a->v6 = v6;
        a->until = loop_now() + ADDRESS_S;
        cond_broadcast(&app->changed);
}

/* ---- packets ---- */

/* The app that this instance's name belongs to. */
static struct app *app_of(struct resolver *r, const struct mdns_name *instance)
{
        uint8_t bytes[MDNS_NAME_MAX];
        struct str key = mdns_name_key(instance, bytes);
        struct app *app = NULL;

        for (size_t n; !app && (n = mdns_label_bytes(key)); )
                app = map_get(&r->apps, key = str_skip(key, n));
        return app;
}

/* What the packet says beside the SRV record: is it the app's, and where. */
static void read_service(struct app *app, const struct mdns_record *srv, struct str packet)
{
        struct mdns_reader in;
        struct mdns_record rec;
        bool ours = false, have4 = false, have6 = false;
        char ip[INET6_ADDRSTRLEN], text[2][ADDR_TEXT];

        if (mdns_read_init(&in, packet))
                return;
        while (mdns_read(&in, &rec) == 1) {
                if (rec.section == MDNS_QUESTION)
                        continue;
                if (rec.type == MDNS_TXT && mdns_name_eq(&rec.name, &srv->name)) {
                        ours = str_eqz(rec.text, app->id);
                } else if (rec.type == MDNS_A && !have4 && mdns_name_eq(&rec.name, &srv->target)) {
                        have4 = inet_ntop(AF_INET, &rec.addr.v4, ip, sizeof ip);
                        snprintf(text[0], sizeof text[0], "%s:%u", ip, srv->port);
                } else if (rec.type == MDNS_AAAA && !have6 && mdns_name_eq(&rec.name, &srv->target)) {
                        have6 = inet_ntop(AF_INET6, &rec.addr.v6, ip, sizeof ip);
                        snprintf(text[1], sizeof text[1], "[%s]:%u", ip, srv->port);
                }
        }
        if (!ours || srv->port == 0)
                return;
        if (have4 && srv->ttl)
                learn(app, text[0], false);
        else if (have4)
                forget(app, text[0]);
        if (have6 && srv->ttl)
                learn(app, text[1], true);
        else if (have6)
                forget(app, text[1]);
}

static void on_packet(void *arg, struct str packet, const struct mdns_from *from)
{
        struct resolver *r = arg;
        struct mdns_reader in;
        struct mdns_record rec;
        int services = 0;

        if (mdns_read_init(&in, packet))
                return;
        if (!in.response) {
                responder_on_query(&r->self, packet, from);
                return;
        }
        while (services < SERVICES_MAX && mdns_read(&in, &rec) == 1) {
                struct app *app = rec.section != MDNS_QUESTION && rec.type == MDNS_SRV ? app_of(r, &rec.name) : NULL;
                if (!app)
                        continue;
                services++;
                read_service(app, &rec, packet);
        }
}

/* ---- asking ---- */

static void ask(struct resolver *r, struct app *app)
{
        struct mdns_writer w;
        mdns_write_init(&w, 0, false);
        mdns_write_question(&w, &app->service, MDNS_PTR);
        if (!w.failed)
                mdns_net_send(&r->net, w.b, w.n, 0);
}

static void app_free(struct app *app)
{
        free(app->id);
        free(app);
}

static void on_refresh(struct timer *t)
{
        struct resolver *r = container_of(t, struct resolver, refresh);

        mdns_net_rescan(&r->net);
        for (struct map_entry *e = NULL; (e = map_next(&r->apps, e));) {
                struct app *app = e->value;
                expire(app);
                if (app->waiting || loop_now() - app->used < APP_IDLE_S) {
                        ask(r, app);
                } else {
                        map_del(&r->apps, str_n(e->key, e->key_n));
                        app_free(app);
                }
        }
}

/* 0, or > 0 with the failure set. */
static int app_get(struct dapr_call *c, struct resolver *r, const char *id, struct app **ret)
{
        uint8_t bytes[MDNS_NAME_MAX];
        struct mdns_name service;
        char *text = dapr_printf(c, "%s.local.", id);

        if (!text)
                return -ENOMEM;
        if (!*id || mdns_name_set(&service, str_of(text)))
                return dapr_fail(c, DAPR_NOT_FOUND, "couldn't find service: %s", id);
        struct str key = mdns_name_key(&service, bytes);
        *ret = map_get(&r->apps, key);
        if (*ret)
                return 0;
        if (r->apps.count >= APPS_MAX)
                return dapr_fail(c, DAPR_RESOURCE_EXHAUSTED, "couldn't find service: %s: more than %d names were asked for in the last minutes",
                                 id, APPS_MAX);
        struct app *app = calloc(1, sizeof *app);
        if (!app)
                return -ENOMEM;
        app->id = strdup(id);
        app->service = service;
        cond_init(&app->changed);
        if (!app->id || map_set(&r->apps, key, app)) {
                app_free(app);
                return -ENOMEM;
        }
        *ret = app;
        return 0;
}

/* Parks until there is an address. 0 or a code. */
static int browse(struct dapr_call *c, struct resolver *r, struct app *app)
{
        double deadline = loop_now() + BROWSE_S, pause = 0.05;
        int w = 0;

        app->waiting++;
        while (app->n == 0 && loop_now() < deadline && w != -ECANCELED && !dapr_is_cancelled(c)) {
                if (loop_now() >= app->ask_again) { /* one of those that wait asks */
                        ask(r, app);
                        app->ask_again = loop_now() + pause;
                        pause *= 2;
                }
                w = cond_wait_until(&app->changed, app->ask_again < deadline ? app->ask_again : deadline);
        }
        app->waiting--;
        if (app->n)
                return 0;
        return w == -ECANCELED ? w : dapr_fail(c, DAPR_NOT_FOUND, "couldn't find service: %s", app->id);
}

static int resolve(struct dapr_call *c, void *instance, const struct dapr_resolve *in, struct dapr_addresses *out)
{
        struct resolver *r = instance;
        struct app *app;
        int code = app_get(c, r, in->id, &app);

        if (code)
                return code;
        app->used = loop_now();
        for (size_t i = 0; i < in->n_failed; i++)
                forget(app, in->failed[i]);
        expire(app);
        code = app->n ? 0 : browse(c, r, app);
        if (code)
                return code;
        const char **v = dapr_alloc(c, app->n * sizeof *v);
        for (int v6 = 0; v && v6 < 2 && out->n == 0; v6++) /* IPv6 only where there is no IPv4 */
                for (size_t i = 0; i < app->n; i++)
                        if (app->v[i].v6 == v6 && !(v[out->n++] = dapr_strdup(c, app->v[i].text)))
                                return -ENOMEM;
        out->v = v;
        out->ttl_s = loop_now() - app->found < 1 ? FRESH_S : ANSWER_S;
        return v ? 0 : -ENOMEM;
}

/* ---- life ---- */

static void close_resolver(void *instance)
{
        struct resolver *r = instance;

        timer_stop(&r->refresh);
        responder_fini(&r->self);
        mdns_net_close(&r->net);
        for (struct map_entry *e = NULL; (e = map_next(&r->apps, e));)
                app_free(e->value);
        map_fini(&r->apps);
        free(r);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const struct dapr_sidecar *s = dapr_sidecar(c);
        struct resolver *r = calloc(1, sizeof *r);
        char why[256];

        if (!r)
                return -ENOMEM;
        timer_init(&r->refresh, on_refresh);
        if (responder_init(&r->self, &r->net, s->app_id, s->address, s->internal_port, why, sizeof why)) {
                free(r);
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s", why);
        }
        if (mdns_net_open(&r->net, on_packet, r, why, sizeof why)) {
                free(r);
                return dapr_fail(c, DAPR_FAILED_PRECONDITION, "%s", why);
        }
        responder_announce(&r->self);
        timer_start(&r->refresh, REFRESH_S, REFRESH_S);
        dapr_log(DAPR_LOG_INFO, "local service entry announced: %s -> %s:%d", s->app_id, s->address, s->internal_port);
        *instance = r;
        return 0;
}

static const struct dapr_name_ops ops = {.mode = DAPR_FIBER, .init = init, .close = close_resolver, .resolve = resolve};
static const struct dapr_component_type types[] = {{.type = "nameresolution.mdns", .versions = "v1", .names = &ops}};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &(struct dapr_plugin){"nameresolution.mdns", "1.0.0", types, 1});
}
