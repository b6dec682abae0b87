/* One fiber reads, compares and changes; everything else only wakes it. */
#include "kernel/reload.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/pubsub.h"
#include "kernel/front/call.h"
#include "kernel/resources/watch.h"
#include "kernel/runtime.h"
#include "kernel/upgrade.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"

#define SCOPE "dapr.runtime.hotreload"
#define RECONCILER "dapr.runtime.hotreload.reconciler"
#define PROCESSOR "dapr.runtime.processor"

struct reload {
        struct kernel *k;
        void (*failed)(void *arg, const char *text);
        void *arg;
        struct folder_watch *watch; /* NULL: the feature is off, or there is no inotify */
        struct sig_watch sighup;
        struct scope scope;
        struct cond wake;
        bool enabled, asked, force, ended;
};

/* What one reading found. */
struct reading {
        struct reload *r;
        struct resource_set set;
        struct arena arena;
        const char *err;
        bool force;
};

/* ---- reading ---- */

static int read_job(void *arg)
{
        struct reading *x = arg;
        struct kernel *k = x->r->k;

        return resources_read(&x->set, &k->opts, &k->config, &x->arena, &x->err);
}

/* 0; <0: nothing is changed (logged, or the process ends). */
static int read_resources(struct reading *x)
{
        struct reload *r = x->r;
        int e = work_run(read_job, x);

        if (e == 0)
                return resources_keep_broken(&x->set, &r->k->resources);
        if (e == -ECANCELED)
                return e;
        if (x->err && str_has_prefix(str_of(x->err), STR("duplicate definition of")))
                r->failed(r->arg, arena_printf(&x->arena, "failed to load resources from disk: %s", x->err));
        else
                log_error(RECONCILER, "Error listing resources, everything stays as it is: %s", x->err ? x->err : strerrordesc_np(-e));
        return e;
}

/* ---- actor state stores: excepted, as in the reference ---- */

static bool names_actor_store(const struct component_spec *c)
{
        if (!str_has_prefix(str_of(c->type), STR("state.")))
                return false;
        for (size_t i = 0; i < c->n_metadata; i++)
                if (c->metadata[i].name && strcasecmp(c->metadata[i].name, "actorstatestore") == 0)
                        return true;
        return false;
}

static bool is_actor_store(const struct kernel *k, const struct component_spec *c)
{
        return c && str_trim(str_of(k->opts.placement_host_address)).n && names_actor_store(c) && parse_truthy(component_metadata(c, "actorstatestore"));
}

/* May `spec` (the new settings, or those that go) take the place of `old` (NULL = nothing runs)? */
static bool verify(const struct kernel *k, const struct component_spec *spec, const struct component_spec *old)
{
        const struct component_spec *named = is_actor_store(k, old) ? spec : names_actor_store(spec) ? spec : old && names_actor_store(old) ? old : NULL;

        if (named)
                log_error(RECONCILER, "Aborting to hot-reload a state store component that is used as an actor state store: %s",
                          component_log_name((struct component_spec *)named));
        return !named;
}

/* ---- components ---- */

static struct component *running(const struct kernel *k, const char *name)
{
        for (size_t i = 0; i < k->n_components; i++)
                if (strcmp(component_name(k->all_components[i]), name) == 0)
                        return k->all_components[i];
        return NULL;
}

static struct component_spec *find_spec(const struct resource_set *set, const char *name)
{
        for (size_t i = 0; i < set->n_components; i++)
                if (strcmp(set->components[i]->name, name) == 0)
                        return set->components[i];
        return NULL;
}

static void remove_component(struct reload *r, struct component *c)
{
        log_debug(RECONCILER, "Received Component deletion, closing: %s", component_log_name((struct component_spec *)component_spec_of(c)));
        runtime_remove_component(r->k, c);
}

static void remove_missing(struct reading *x)
{
        struct kernel *k = x->r->k;

        for (size_t i = 0; i < k->n_components;) {
                struct component *c = k->all_components[i];
                const struct component_spec *old = component_spec_of(c);
                if (find_spec(&x->set, component_name(c)) || !verify(k, old, old)) {
                        i++;
                } else {
                        remove_component(x->r, c);
                        i = 0; /* the list may have changed meanwhile */
                }
        }
}

static void add_component(struct reading *x, struct component_spec *spec, bool fatal)
{
        struct reload *r = x->r;
        const char *err = NULL;

        log_info(RECONCILER, "Adding Component for processing: %s", component_log_name(spec));
        if (runtime_add_component(r->k, spec, fatal, &x->arena, &err))
                r->failed(r->arg, err);
        else if (running(r->k, spec->name))
                log_info(RECONCILER, "Component updated: %s", component_log_name(spec));
}

static void log_failure(struct component_spec *spec, const char *err, bool kept)
{
        const char *name = component_log_name(spec);

        log_error(PROCESSOR, "Failed to init component %s: [INIT_COMPONENT_FAILURE]: initialization error occurred for %s: %s", name, name, err);
        if (kept)
                log_error(RECONCILER, "Component %s stays as it was: the change in %s:%d is not taken", spec->name, spec->file, spec->line);
}

/* Another type under the old name, and it does not come up: as the reference has it. */
static void replace_failed(struct reading *x, struct component *c, struct component_spec *spec, const char *err)
{
        const char *name = component_log_name(spec), *text;

        log_failure(spec, err, false);
        remove_component(x->r, c);
        text = arena_printf(&x->arena,
                            "process component %s error: [INIT_COMPONENT_FAILURE]: initialization error occurred for %s: "
                            "[INIT_COMPONENT_FAILURE]: initialization error occurred for %s: %s",
                            spec->name, name, name, err);
        if (spec->ignore_errors) {
                log_error(PROCESSOR, "Ignoring error processing component: %s", text);
                return;
        }
        log_warn(PROCESSOR, "Error processing component, daprd will exit gracefully: %s", text);
        x->r->failed(x->r->arg, text ? text : "out of memory");
}

static void exchange(struct reading *x, struct component *c, struct component_spec *spec)
{
        struct swap_request q = {.why = "reload", .spec = spec};
        const struct component_spec *old = component_spec_of(c);
        const char *before = arena_strdup(&x->arena, str_of(component_log_name((struct component_spec *)old))), *err = NULL;
        bool same_type = strcasecmp(old->type, spec->type) == 0;

        if (super_component_swap(x->r->k->super, c, &q, &x->arena, &err)) {
                if (same_type)
                        log_failure(spec, err, true);
                else
                        replace_failed(x, c, spec, err);
                return;
        }
        log_info(RECONCILER, "Closing existing Component to reload: %s", before ? before : spec->name);
        log_info(PROCESSOR, "Component loaded: %s", component_log_name(spec));
        log_info(RECONCILER, "Component updated: %s", component_log_name(spec));
}

/* Another kind under the old name: both are there for a moment. */
static void exchange_kind(struct reading *x, struct component *c, struct component_spec *spec)
{
        add_component(x, spec, !spec->ignore_errors);
        log_info(RECONCILER, "Closing existing Component to reload: %s", component_log_name((struct component_spec *)component_spec_of(c)));
        remove_component(x->r, c);
}

static bool same_kind(const struct component *c, const struct component_spec *spec)
{
        struct str category = str_of(component_kind_category(component_kind_of(c)));

        return str_has_prefix(str_of(spec->type), category) && spec->type[category.n] == '.';
}

/* Is spec what c runs by? Secrets that have changed in their store are a change. */
static bool is_unchanged(struct reading *x, struct component *c, struct component_spec *spec)
{
        const struct component_spec *now = component_spec_of(c);
        const char *err = NULL;
        bool has_secrets = false;

        if (now == spec)
                return true;
        if (!component_spec_same(now, spec))
                return false;
        for (size_t i = 0; i < spec->n_metadata; i++)
                has_secrets |= spec->metadata[i].secret_name != NULL;
        return !has_secrets || runtime_resolve_component(x->r->k, spec, &err) || component_secrets_same(now, spec);
}

static void update_component(struct reading *x, struct component *c, struct component_spec *spec)
{
        struct kernel *k = x->r->k;
        const struct component_spec *refused = component_refused(c);
        const char *err = NULL;
        int r;

        if (is_unchanged(x, c, spec)) {
                log_debug(RECONCILER, "Component update skipped: no changes detected: %s", component_log_name(spec));
                return;
        }
        if (refused && !x->force && component_spec_same(refused, spec)) {
                log_debug(RECONCILER, "Component update skipped: it was tried and refused: %s", component_log_name(spec));
                return;
        }
        if (!verify(k, spec, component_spec_of(c)))
                return;
        if (!same_kind(c, spec)) {
                exchange_kind(x, c, spec);
                return;
        }
        r = runtime_resolve_component(k, spec, &err);
        if (r)
                log_failure(spec, r == 1 ? "its secret store isn't loaded" : err ? err : "out of memory", true);
        else
                exchange(x, c, spec);
}

static void update_components(struct reading *x)
{
        struct kernel *k = x->r->k;
        struct component_spec **order = calloc(x->set.n_components + 1, sizeof *order);
        const char **stores = calloc(k->n_components + 1, sizeof *stores);
        size_t n_stores = 0;

        for (size_t i = 0; stores && i < k->n_components; i++)
                if (component_kind_of(k->all_components[i]) == KIND_SECRETSTORE)
                        stores[n_stores++] = component_name(k->all_components[i]);
        if (order && stores) {
                resources_order(&x->set, &k->opts, stores, n_stores, order);
                /* changed ones first, then new ones */
                for (size_t i = 0; i < x->set.n_components && !x->r->ended; i++) {
                        struct component *c = running(k, order[i]->name);
                        if (c)
                                update_component(x, c, order[i]);
                }
                for (size_t i = 0; i < x->set.n_components && !x->r->ended; i++)
                        if (!running(k, order[i]->name) && verify(k, order[i], NULL))
                                add_component(x, order[i], false);
        }
        free(order);
        free(stores);
}

/* ---- subscriptions ---- */

static struct raw_resource **find_other(struct resource_set *set, const struct raw_resource *like)
{
        for (size_t i = 0; i < set->n_others; i++)
                if (strcmp(set->others[i]->kind, like->kind) == 0 && strcmp(set->others[i]->name, like->name) == 0)
                        return &set->others[i];
        return NULL;
}

static bool is_subscription(const struct raw_resource *r)
{
        return strcmp(r->kind, "Subscription") == 0;
}

static bool is_same_resource(const struct raw_resource *a, const struct raw_resource *b)
{
        return strcmp(a->api_version, b->api_version) == 0 && str_eq(a->json, b->json);
}

/* Unchanged ones, and those that are wrong now, keep their old self: what runs by it goes on. Returns whether there is a change. */
static bool match_subscriptions(struct reading *x)
{
        struct resource_set *old = &x->r->k->resources;
        bool changed = false;

        for (size_t i = 0; i < x->set.n_others; i++) {
                struct raw_resource *r = x->set.others[i], **before = is_subscription(r) ? find_other(old, r) : NULL;
                if (!is_subscription(r))
                        continue;
                if (before && (is_same_resource(*before, r) || !subscriber_accepts(r))) {
                        x->set.others[i] = *before;
                        *before = r;
                        continue;
                }
                changed = true;
                if (before)
                        log_info(RECONCILER, "Closing existing Subscription to reload: %s", r->name);
                log_info(RECONCILER, "Adding Subscription for processing: %s", r->name);
        }
        for (size_t i = 0; i < old->n_others; i++) {
                if (!is_subscription(old->others[i]) || find_other(&x->set, old->others[i]))
                        continue;
                changed = true;
                log_debug(RECONCILER, "Received Subscription deletion, closing: %s", old->others[i]->name);
        }
        return changed;
}

static void update_subscriptions(struct reading *x)
{
        struct kernel *k = x->r->k;
        struct resource_set old = k->resources;

        if (match_subscriptions(x) && k->pubsub && subscriber_reload(k->pubsub, &x->set))
                log_error(RECONCILER, "Failed to reload Subscriptions: out of memory");
        k->resources = x->set;
        x->set = old;
}

/* ---- everything else: Resiliency, HTTPEndpoint, Configuration ---- */

/* They are read by many parts at their start; so the start is what happens again, in place: nobody notices (upgrade.h). */
static bool is_for_start(const struct raw_resource *r)
{
        return !is_subscription(r);
}

static bool has_same(const struct resource_set *set, const struct raw_resource *r)
{
        struct raw_resource **other = find_other((struct resource_set *)set, r);

        return other && is_same_resource(*other, r);
}

static const struct raw_resource *first_changed(const struct resource_set *a, const struct resource_set *b)
{
        for (size_t i = 0; i < a->n_others; i++)
                if (is_for_start(a->others[i]) && !has_same(b, a->others[i]))
                        return a->others[i];
        return NULL;
}

struct config_look {
        struct kernel *k;
        struct configuration now;
        const char *err;
};

static int config_job(void *arg)
{
        struct config_look *x = arg;

        return configuration_load(&x->now, &x->k->opts, &x->err);
}

/* Are the --config files other ones than at the start? Ones that are wrong are told of and count as unchanged. */
static bool config_changed(struct kernel *k)
{
        struct config_look *x = calloc(1, sizeof *x);
        bool changed = false;
        int r;

        if (!x)
                return false;
        x->k = k;
        r = work_run(config_job, x);
        if (r)
                log_error(RECONCILER, "The Configuration stays as it was: %s", x->err ? x->err : strerrordesc_np(-r));
        else
                changed = !str_eq(x->now.json, k->config.json);
        configuration_fini(&x->now);
        free(x);
        return changed;
}

static void start_again(struct reading *x, const char *why)
{
        const char *err = "";

        log_info(RECONCILER, "%s has changed: daprd starts again in place", why);
        if (upgrade_ask(x->r->k, "", &x->arena, &err))
                log_error(RECONCILER, "%s is not taken: %s", why, err);
}

/* ---- the fiber ---- */

static void reconcile(struct reload *r, bool force)
{
        struct reading x = {.r = r, .force = force};

        arena_init(&x.arena, 0);
        if (read_resources(&x) == 0) {
                const struct raw_resource *other = first_changed(&x.set, &r->k->resources);
                if (!other)
                        other = first_changed(&r->k->resources, &x.set);
                const char *why = other ? arena_printf(&x.arena, "%s %s", other->kind, other->name) : NULL;
                remove_missing(&x);
                update_components(&x);
                update_subscriptions(&x);
                if (!why && force && config_changed(r->k))
                        why = "The Configuration";
                if (why && !r->ended)
                        start_again(&x, why);
        }
        resource_set_fini(&x.set);
        arena_fini(&x.arena);
}

static void reload_fiber(void *arg)
{
        struct reload *r = arg;

        while (!r->ended) {
                double until = loop_now() + RELOAD_EVERY_S;
                int e = 0;
                while (e == 0 && !r->asked && !r->ended)
                        e = r->enabled ? cond_wait_until(&r->wake, until) : cond_wait(&r->wake);
                if (r->ended || e == -ECANCELED)
                        return;
                bool force = r->force;
                r->asked = r->force = false;
                log_debug(RECONCILER, e ? "Running scheduled Component reconcile" : "Reconciling all Component");
                reconcile(r, force);
        }
}

void reload_ask(struct kernel *k, bool force)
{
        if (!k->reload)
                return;
        k->reload->asked = true;
        k->reload->force |= force;
        cond_broadcast(&k->reload->wake);
}

static void on_change(void *arg)
{
        struct reload *r = arg;
        reload_ask(r->k, false);
}

static void on_sighup(struct sig_watch *w, int signo)
{
        struct reload *r = container_of(w, struct reload, sighup);

        log_info("dapr.signals", "Received signal 'hangup'; reading the resources again");
        reload_ask(r->k, true);
}

static void start_watch(struct reload *r)
{
        const struct flag_list *dirs = &r->k->opts.resources_path;
        struct buf b = {0};
        int e;

        log_info("dapr.runtime", "Hot reloading enabled. Daprd will reload 'Component' and 'Subscription' resources on change.");
        for (size_t i = 0; i < dirs->n; i++)
                buf_printf(&b, "%s%s", i ? ", " : "", dirs->v[i]);
        log_info("dapr.runtime.hotreload.loader.disk", "Watching directories: [%.*s]", STR_FMT(buf_str(&b)));
        buf_fini(&b);
        e = folder_watch_new(&r->watch, dirs->v, dirs->n, on_change, r);
        if (e)
                log_warn(SCOPE, "cannot watch the resources folders (%s): they are read every %d seconds", strerrordesc_np(-e), RELOAD_EVERY_S);
        log_info(RECONCILER, "Starting to watch Component updates");
        log_info(RECONCILER, "Starting to watch Subscription updates");
}

void reload_targets(struct kernel *k, int targets[2])
{
        bool on = configuration_feature(&k->config, "HotReload");

        targets[0] = on ? health_add(&k->health, "component-reconciler", HEALTH_ALL) : -1;
        targets[1] = on ? health_add(&k->health, "subscription-reconciler", HEALTH_ALL) : -1;
}

int reload_start(struct kernel *k, const int targets[2], void (*failed)(void *arg, const char *text), void *arg)
{
        struct reload *r = calloc(1, sizeof *r);
        sigset_t hup;

        if (!r)
                return -ENOMEM;
        *r = (struct reload){.k = k, .failed = failed, .arg = arg, .enabled = configuration_feature(&k->config, "HotReload")};
        scope_init(&r->scope);
        cond_init(&r->wake);
        k->reload = r;
        if (r->enabled)
                start_watch(r);
        else
                log_debug(SCOPE, "Hot reloading disabled");
        sig_watch_start(&r->sighup, SIGHUP, on_sighup);
        sigemptyset(&hup);
        sigaddset(&hup, SIGHUP);
        sigprocmask(SIG_UNBLOCK, &hup, NULL);
        if (fiber_go_flags(&r->scope, "reload", FIBER_BIG, reload_fiber, r)) {
                reload_stop(k);
                return -ENOMEM;
        }
        for (int i = 0; i < 2 && r->enabled; i++)
                health_set(&k->health, targets[i], true);
        return 0;
}

void reload_stop(struct kernel *k)
{
        struct reload *r = k->reload;

        if (!r)
                return;
        r->ended = true;
        folder_watch_free(r->watch);
        sig_watch_stop(&r->sighup);
        cond_broadcast(&r->wake);
        fiber_shield_begin();
        scope_cancel(&r->scope);
        scope_join(&r->scope);
        fiber_shield_end();
        k->reload = NULL;
        free(r);
}
