/*
 * What the kernel says to a fresh process: Hello, the verdict, Init for each component, then the health stream for as long as
 * it lives; and Drain at the end. One fiber each, in the life's scope: they end with it.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/opts.h"
#include "kernel/super/history.h"
#include "kernel/super/keep.h"
#include "kernel/super/ledger.h"
#include "kernel/super/plugin.h"
#include "plugin/v1/lifecycle.pb-c.h"

enum { TYPE_BYTES = 128 };

#define LIFECYCLE "/microdapr.plugin.v1.Lifecycle/"

typedef Microdapr__Plugin__V1__HelloResponse hello_t;

int life_go(struct life *l, const char *name, fiber_fn fn)
{
        life_ref(l);
        int r = fiber_go(&l->scope, name, fn, l);
        if (r)
                life_unref(l);
        return r;
}

static double seconds_left(double deadline)
{
        double s = deadline - loop_now();
        return s > 0.001 ? s : 0.001;
}

/* ---- Hello ---- */

static unsigned common_version(const hello_t *h)
{
        for (size_t i = 0; i < h->n_contract_versions; i++)
                if (h->contract_versions[i] == CONTRACT_VERSION)
                        return CONTRACT_VERSION;
        return 0;
}

static bool says_type(const hello_t *h, const char *type)
{
        for (size_t i = 0; i < h->n_component_types; i++)
                if (strcasecmp(h->component_types[i]->type, type) == 0)
                        return true;
        return false;
}

/* NULL = accepted; else why not, with *ret_fix. */
static const char *judge(struct plugin *p, const hello_t *h, struct arena *a, const char **ret_fix)
{
        struct buf b = {0};
        if (!common_version(h)) {
                uint32_t newest = 0;
                for (size_t i = 0; i < h->n_contract_versions; i++) {
                        buf_printf(&b, "%s%u", i ? ", " : "", h->contract_versions[i]);
                        newest = h->contract_versions[i] > newest ? h->contract_versions[i] : newest;
                }
                const char *why = arena_printf(a, "%s %s speaks version %.*s of the plugin contract, this daprd speaks %d", p->name,
                                               h->plugin_version, STR_FMT(buf_str(&b)), CONTRACT_VERSION);
                buf_fini(&b);
                *ret_fix = newest > CONTRACT_VERSION ? "update daprd, or install an older version of the plugin"
                                                     : "install a newer version of the plugin";
                return why;
        }
        list_for_each(pos, &p->instances) {
                const struct instance *c = list_entry(pos, struct instance, in_plugin);
                if (says_type(h, c->spec->type))
                        continue;
                *ret_fix = "its plugin.yaml and its program do not belong together: install the plugin again";
                return arena_printf(a, "%s does not serve %s", p->name, c->spec->type);
        }
        return NULL;
}

#define FEATURES_KNOWN ((uintptr_t)1 << 31) /* a type without features is known too */

static struct str type_key(const char *type, char *to, size_t n)
{
        size_t i = 0;
        for (; type[i] && i < n; i++)
                to[i] = (char)(type[i] >= 'A' && type[i] <= 'Z' ? type[i] + 32 : type[i]);
        return str_n(to, i);
}

/* What Hello said about the component's type; components that join a shared process come after it. */
static void take_features(struct instance *c)
{
        char key[TYPE_BYTES];
        c->features = (unsigned)((uintptr_t)map_get(&c->plugin->features, type_key(c->spec->type, key, sizeof key)) & ~FEATURES_KNOWN);
        if (c->component->kind == KIND_BINDING)
                c->features &= component_directions(c->spec);
}

static void note_features(struct plugin *p, const hello_t *h)
{
        char key[TYPE_BYTES];
        map_fini(&p->features);
        for (size_t i = 0; i < h->n_component_types; i++) {
                uintptr_t bits = FEATURES_KNOWN;
                for (size_t k = 0; k < h->component_types[i]->n_features; k++)
                        bits |= component_feature_bit(str_of(h->component_types[i]->features[k]));
                map_set(&p->features, type_key(h->component_types[i]->type, key, sizeof key), (void *)bits);
        }
}

static void note_hello(struct plugin *p, const hello_t *h)
{
        free(p->reported_name);
        free(p->reported_version);
        p->reported_name = strdup(h->plugin_name);
        p->reported_version = strdup(h->plugin_version);
        map_fini(&p->idempotent);
        for (size_t i = 0; i < h->n_idempotent_methods; i++)
                map_set(&p->idempotent, str_of(h->idempotent_methods[i]), p);
        note_features(p, h);
}

static int say_hello(struct life *l, struct arena *a, const struct rpc_opts *o, hello_t **ret, struct rpc_status *st)
{
        struct plugin *p = l->plugin;
        Microdapr__Plugin__V1__HelloRequest req = MICRODAPR__PLUGIN__V1__HELLO_REQUEST__INIT;
        uint32_t versions[] = {CONTRACT_VERSION};
        req.kernel_version = DAPR_VERSION;
        req.contract_versions = versions;
        req.n_contract_versions = 1;
        if (!list_is_empty(&p->instances)) {
                const struct instance *c = list_entry(p->instances.next, struct instance, in_plugin);
                req.instance_name = p->manifest->share ? "" : c->spec->name;
                req.component_type = c->spec->type;
                req.component_version = c->spec->version ? c->spec->version : "";
        } else if (p->adopted && p->adopted->n_instances) {
                req.component_type = p->adopted->instances[0].type;
                req.component_version = p->adopted->instances[0].version;
        }
        return rpc_unary_pb(l->ch, a, LIFECYCLE "Hello", &req.base, &microdapr__plugin__v1__hello_response__descriptor, ret, o, st);
}

static int say_verdict(struct life *l, struct arena *a, const struct rpc_opts *o, const char *refusal, const char *fix,
                       struct rpc_status *st)
{
        Microdapr__Plugin__V1__AcceptRequest req = MICRODAPR__PLUGIN__V1__ACCEPT_REQUEST__INIT;
        Microdapr__Plugin__V1__AcceptResponse *resp;
        req.accepted = refusal == NULL;
        req.contract_version = refusal ? 0 : CONTRACT_VERSION;
        req.refusal = refusal ? refusal : "";
        req.fix = fix ? fix : "";
        if (!refusal && l->token[0] && l->plugin->super->linger_s > 0) {
                req.linger_ms = (uint32_t)(l->plugin->super->linger_s * 1000);
                req.linger_token = l->token;
        }
        return rpc_unary_pb(l->ch, a, LIFECYCLE "Accept", &req.base, &microdapr__plugin__v1__accept_response__descriptor, &resp, o, st);
}

/* A process that answers, but not as a plugin: its end will not come by itself. */
static void not_a_plugin(struct life *l, const struct rpc_status *st)
{
        if (l->ended)
                return;
        if (st->code == RPC_DEADLINE_EXCEEDED) {
                plugin_event(l->plugin, EV_TIMEOUT);
        } else if (st->transport) {
                plugin_set_error(l->plugin, "no gRPC on its socket (%.*s)", STR_FMT(st->message));
                plugin_event(l->plugin, EV_LOST);
        } else {
                plugin_set_error(l->plugin, "does not speak the plugin contract: Hello was answered with %s (%.*s)",
                                 rpc_code_name(st->code), STR_FMT(st->message));
                plugin_event(l->plugin, EV_REFUSED);
        }
}

static void start_components(struct plugin *p)
{
        struct life *l = p->life;
        list_for_each(pos, &p->instances)
                if (instance_init_start(list_entry(pos, struct instance, in_plugin)))
                        break;
        if (list_is_empty(&p->instances) && p->life == l)
                plugin_event(p, EV_READY);
}

static void hello_own(struct life *l, struct arena *a)
{
        struct plugin *p = l->plugin;
        struct rpc_opts o = {.timeout_s = life_limit_s(l, p->super->tuning.hello_timeout_s)};
        struct rpc_status st = {0};
        const char *fix = NULL;
        hello_t *h;
        int r = rpc_channel_connect(l->ch);
        if (l->ended)
                return;
        if (r) {
                st = (struct rpc_status){.code = RPC_UNAVAILABLE, .transport = true, .message = str_of(strerrordesc_np(-r))};
                not_a_plugin(l, &st);
                return;
        }
        plugin_event(p, EV_CONNECTED);
        if (say_hello(l, a, &o, &h, &st)) {
                not_a_plugin(l, &st);
                return;
        }
        if (l->ended)
                return;
        const char *refusal = judge(p, h, a, &fix);
        if (refusal) {
                plugin_set_error(p, "was refused: %s; %s", refusal, fix);
                say_verdict(l, a, &o, refusal, fix, &st);
                if (!l->ended)
                        plugin_event(p, EV_REFUSED);
                return;
        }
        note_hello(p, h);
        if (p->super->linger_s > 0) { /* before it may linger: who comes after us must know of it */
                keep_note(p->super);
                keep_flush(p->super);
        }
        if (l->ended)
                return;
        if (say_verdict(l, a, &o, NULL, NULL, &st)) {
                not_a_plugin(l, &st);
                return;
        }
        if (l->ended)
                return;
        timer_stop(&l->start_timer);
        plugin_event(p, EV_HELLO);
        if (life_health_start(l) == 0)
                start_components(p);
}

static void hello_foreign(struct life *l)
{
        struct plugin *p = l->plugin;
        double old = fiber_set_deadline(loop_now() + p->super->tuning.hello_timeout_s);
        int r = rpc_channel_connect(l->ch);
        fiber_restore_deadline(old);
        if (l->ended)
                return;
        if (r) {
                plugin_set_error(p, "cannot connect to %s: %s", p->path, strerrordesc_np(-r));
                plugin_set_death(p, DEATH_PROTOCOL);
                plugin_event(p, EV_EXIT);
                return;
        }
        plugin_event(p, EV_CONNECTED);
        if (foreign_ping_start(l) == 0)
                start_components(p);
}

static void hello_fiber(void *arg)
{
        struct life *l = arg;
        struct arena a;
        arena_init(&a, 4 * 1024 * 1024);
        if (l->plugin->manifest)
                hello_own(l, &a);
        else
                hello_foreign(l);
        arena_fini(&a);
        life_unref(l);
}

int life_hello_start(struct life *l)
{
        return life_go(l, "plugin-hello", hello_fiber);
}

const char *life_hello_again(struct life *l, struct arena *a)
{
        struct plugin *p = l->plugin;
        struct rpc_opts o = {.timeout_s = p->super->tuning.hello_timeout_s};
        struct rpc_status st = {0};
        const char *fix;
        hello_t *h;
        if (say_hello(l, a, &o, &h, &st))
                return arena_printf(a, "Hello was answered with %s (%.*s)", rpc_code_name(st.code), STR_FMT(st.message));
        const char *refusal = judge(p, h, a, &fix);
        if (refusal)
                return refusal;
        note_hello(p, h);
        if (say_verdict(l, a, &o, NULL, NULL, &st))
                return arena_printf(a, "Accept was answered with %s (%.*s)", rpc_code_name(st.code), STR_FMT(st.message));
        return NULL;
}

/* ---- Init ---- */

struct init_arg {
        struct instance *i;
        struct life *l;
};

static const char *own_text(struct instance *c, struct arena *a, const struct rpc_status *st)
{
        const char *text = arena_strdup(a, st->message);
        if (c->plugin->manifest || st->transport)
                return text ? text : "";
        const char *foreign = arena_printf(a, "rpc error: code = %s desc = %s", rpc_code_name(st->code), text ? text : "");
        return foreign ? foreign : "";
}

/* Init and Features. 0 or the gRPC code. */
static int init_once(struct instance *c, struct life *l, struct arena *a, struct rpc_status *st)
{
        struct rpc_md md[] = {c->md,
                              {STR("x-component-type"), str_of(c->spec->type)},
                              {STR("x-component-version"), str_of(c->spec->version ? c->spec->version : "")}};
        int64_t ns = c->spec->init_timeout_ns > 0 ? c->spec->init_timeout_ns : 5000000000;
        struct rpc_opts o = {.md = md, .n_md = c->plugin->manifest ? 3 : 1, .timeout_s = life_limit_s(l, (double)ns / 1e9)};
        struct str resp;
        int r = RPC_UNIMPLEMENTED;
        if (c->plugin->manifest)
                take_features(c);
        for (size_t i = 0; kind_service(c->component->kind, i); i++) {
                const char *service = kind_service(c->component->kind, i);
                if (!instance_serves(c, service))
                        continue;
                r = rpc_unary(l->ch, a, arena_printf(a, "/%s/Init", service), c->init_request, &resp, &o, st);
                if (r || l->ended)
                        return r ? r : RPC_UNAVAILABLE;
                /* What Hello tells are the features of the type; an instance may have fewer. */
                if (!c->plugin->manifest || c->features)
                        r = instance_ask_features(c, l, a, service, st);
                if (r)
                        return r;
                if (c->component->kind == KIND_BINDING && c->plugin->manifest) /* one instance for both directions */
                        break;
        }
        if (r == RPC_UNIMPLEMENTED && c->component->kind == KIND_BINDING)
                return 0; /* its direction leaves nothing of what the plugin serves */
        if (r == RPC_UNIMPLEMENTED && st->code == RPC_OK)
                *st = (struct rpc_status){.code = r, .message = STR("the plugin serves no component of this kind")};
        return r;
}

static void first_init_failed(struct instance *c, struct arena *a, const struct rpc_status *st)
{
        snprintf(c->init_error, sizeof c->init_error, "%s", own_text(c, a, st));
        c->init_code = st->code;
        c->init_failed = true;
        cond_broadcast(&c->plugin->changed);
}

static void init_done(struct instance *c, struct life *l)
{
        struct plugin *p = c->plugin;
        if (c->started && p->manifest && !p->restarting && c->init_life != l->number)
                history_note(p->super, c->spec->name, "started again", "%s %s, process %d", p->name, plugin_version(p), (int)l->pid);
        c->init_life = l->number;
        c->started = true;
        c->init_error[0] = '\0';
        plugin_event(p, EV_READY);
        plugin_notify(p);
}

/* False: no further attempt in this life. */
static bool init_attempt(struct instance *c, struct life *l, struct arena *a, unsigned nth)
{
        struct plugin *p = c->plugin;
        struct rpc_status st = {0};
        int r = init_once(c, l, a, &st);
        if (l->ended || c->stopping)
                return false;
        if (r == 0) {
                init_done(c, l);
                return false;
        }
        if (st.transport && !st.unprocessed)
                return false; /* the end of the life says more */
        if (!c->started && st.transport && p->manifest)
                return true; /* it has not heard of it: no answer */
        if (!c->started) {
                first_init_failed(c, a, &st);
                return false;
        }
        snprintf(c->init_error, sizeof c->init_error, "Init failed: %s", own_text(c, a, &st));
        if (nth == 0)
                log_warn(SUPER_SCOPE, "component %s: Init of the new process failed: %s; trying again", c->log_name, own_text(c, a, &st));
        if (r == RPC_DEADLINE_EXCEEDED && p->manifest) {
                plugin_event(p, EV_TIMEOUT);
                return false;
        }
        return true;
}

static void init_fiber(void *arg)
{
        struct init_arg *i = arg;
        struct instance *c = i->i;
        struct life *l = i->l;
        const struct super_tuning *t = &c->plugin->super->tuning;
        free(i);
        for (unsigned nth = 0;; nth++) {
                struct arena a;
                arena_init(&a, 4 * 1024 * 1024);
                bool again = init_attempt(c, l, &a, nth);
                arena_fini(&a);
                double pause = t->backoff_min_s * pow(2, nth < 16 ? nth : 16);
                if (!again || fiber_sleep(pause < t->backoff_max_s ? pause : t->backoff_max_s) || l->ended || c->stopping)
                        break;
        }
        c->inits--;
        cond_broadcast(&c->plugin->changed);
        life_unref(l);
}

int instance_init_start(struct instance *c)
{
        struct life *l = c->plugin->life;
        struct init_arg *i = malloc(sizeof *i);
        if (!i)
                return -ENOMEM;
        *i = (struct init_arg){c, l};
        life_ref(l);
        c->inits++;
        int r = fiber_go(&l->scope, "plugin-init", init_fiber, i);
        if (r) {
                c->inits--;
                free(i);
                life_unref(l);
        }
        return r;
}

/* ---- health ---- */

static void take_report(struct life *l, const Microdapr__Plugin__V1__HealthReport *r)
{
        struct plugin *p = l->plugin;
        l->report_at = loop_now();
        bool changed = !p->backend_known || p->backend_up != (bool)r->backend_reachable;
        p->backend_known = true;
        p->backend_up = r->backend_reachable;
        if (r->last_error[0] || changed)
                snprintf(p->backend_error, sizeof p->backend_error, "%s", r->last_error);
        if (changed && !p->backend_up) {
                log_warn(SUPER_SCOPE, "plugin %s: its backend is not reachable: %s", p->name, p->backend_error);
                plugin_note(p, "backend lost", p->backend_error);
        } else if (changed && p->state == PLUGIN_DEGRADED) {
                log_info(SUPER_SCOPE, "plugin %s: its backend is reachable again", p->name);
                plugin_note(p, "backend back", "");
        }
        if (!r->alive) {
                plugin_set_error(p, "asked to be restarted");
                life_kill(l, DEATH_PROTOCOL);
        } else {
                plugin_event(p, p->backend_up ? EV_BACKEND_UP : EV_BACKEND_DOWN);
                life_judge_report(l, r);
        }
}

static void tell_log_level(struct life *l, struct arena *a)
{
        Microdapr__Plugin__V1__SetLogLevelRequest req = MICRODAPR__PLUGIN__V1__SET_LOG_LEVEL_REQUEST__INIT;
        Microdapr__Plugin__V1__SetLogLevelResponse *resp;
        struct rpc_opts o = {.timeout_s = l->plugin->super->tuning.hello_timeout_s};
        struct rpc_status st;
        if (log_get_level() == LOG_INFO)
                return;
        req.level = log_level_name(log_get_level());
        rpc_unary_pb(l->ch, a, LIFECYCLE "SetLogLevel", &req.base, &microdapr__plugin__v1__set_log_level_response__descriptor, &resp, &o,
                     &st);
}

static void read_reports(struct life *l, struct rpc_call *c)
{
        const Microdapr__Plugin__V1__HealthReport *report;
        while (rpc_recv_pb(c, &microdapr__plugin__v1__health_report__descriptor, &report) == 1 && !l->ended)
                take_report(l, report);
}

static void health_fiber(void *arg)
{
        struct life *l = arg;
        struct plugin *p = l->plugin;
        Microdapr__Plugin__V1__HealthRequest req = MICRODAPR__PLUGIN__V1__HEALTH_REQUEST__INIT;
        struct rpc_opts o = {.flags = RPC_REUSE};
        struct rpc_status st = {0};
        struct rpc_call *c;
        struct arena a;
        arena_init(&a, 4 * 1024 * 1024);
        tell_log_level(l, &a);
        req.interval_ms = (uint32_t)(p->super->tuning.health_interval_s * 1000);
        req.hang_after_ms = (uint64_t)(plugin_hang_after_s(p) * 1000);
        if (!l->ended && rpc_open(l->ch, &a, LIFECYCLE "Health", &o, &c, &st) == 0) {
                if (rpc_send_pb(c, &req.base) == 0 && rpc_send_end(c) == 0)
                        read_reports(l, c);
                if (l->ended)
                        rpc_cancel(c);
                rpc_finish(c);
                st = c->status;
        }
        if (!l->ended && !st.transport && p->state != PLUGIN_DRAINING) {
                plugin_set_error(p, "ended its health stream (%s: %.*s)", rpc_code_name(st.code), STR_FMT(st.message));
                life_kill(l, DEATH_PROTOCOL);
        }
        arena_fini(&a);
        life_unref(l);
}

int life_health_start(struct life *l)
{
        life_watchdog_start(l);
        return life_go(l, "plugin-health", health_fiber);
}

/* ---- Drain ---- */

static void drain_fiber(void *arg)
{
        struct life *l = arg;
        struct plugin *p = l->plugin;
        Microdapr__Plugin__V1__DrainRequest req = MICRODAPR__PLUGIN__V1__DRAIN_REQUEST__INIT;
        Microdapr__Plugin__V1__DrainResponse *resp;
        double grace = seconds_left(p->drain_deadline);
        struct rpc_opts o = {.timeout_s = grace};
        struct rpc_status st;
        struct arena a;
        arena_init(&a, 1024 * 1024);
        req.timeout_ms = (uint32_t)(grace * 1000);
        if (p->manifest)
                rpc_unary_pb(l->ch, &a, LIFECYCLE "Drain", &req.base, &microdapr__plugin__v1__drain_response__descriptor, &resp, &o, &st);
        arena_fini(&a);
        if (!l->ended)
                plugin_event(p, EV_DRAINED);
        life_unref(l);
}

int life_drain_start(struct life *l, double grace_s)
{
        l->plugin->drain_deadline = loop_now() + grace_s;
        return life_go(l, "plugin-drain", drain_fiber);
}
