/*
 * Components: one fiber each. A fiber resolves references (waiting for its secret store when it needs one), has the supervisor start
 * the plugin, and asks the blocks. The caller takes the results in the reference's order: it publishes and logs each, or stops at
 * the first failure that is not ignored, so the log reads as if they were started one after the other.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/front/call.h"
#include "kernel/observe/observe.h"
#include "kernel/runtime.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime.processor"

/* So many at once: a start's time limit runs while it waits for the processor. */
enum { STARTS_AT_ONCE = 8 };
enum start_state { START_RUNNING, START_DONE };

struct start {
        struct starts *all;
        struct component_spec *spec;
        struct component *component;
        enum start_state state;
        bool published;   /* or given up: who waits for it may look */
        bool unready;     /* its secret store is not there: neither started nor an error */
        const char *kind; /* of the failure: "INIT_COMPONENT_FAILURE"; NULL = err stands alone */
        const char *err;  /* NULL = it came up */
        struct arena arena;
};
struct starts {
        struct kernel *k;
        bool hot;  /* a failure is no reason to stop the process */
        bool late; /* everything else runs: it is listed when its streams have begun */
        size_t n;
        struct start *v;
        struct cond changed;
        struct fsem slots;
};

/* ---- one component, on its fiber ---- */

static bool has_category(const char *type)
{
        for (int kind = 0; kind < KIND_N; kind++) {
                struct str c = str_of(component_kind_category((enum component_kind)kind));
                /* name resolvers come from the Configuration, not from Component resources */
                if (kind != KIND_NAMERESOLUTION && str_has_prefix(str_of(type), c) && type[c.n] == '.')
                        return true;
        }
        return false;
}

static int get_secret(void *arg, const char *store, const char *secret, const char *key, struct arena *a, const char **value,
                      const char **err)
{
        return secrets_resolve(arg, store, secret, key, a, value, err);
}

/* Waits until the secret store that s needs has been published or has failed. */
static void wait_for_store(struct start *s)
{
        const char *name = component_needs_store(s->spec, &s->all->k->opts);

        if (!name)
                return;
        for (size_t i = 0; i < s->all->n; i++) {
                struct start *other = &s->all->v[i];
                if (other == s || strcmp(other->spec->name, name) != 0)
                        continue;
                while (!other->published && cond_wait(&s->all->changed) == 0)
                        ;
                return;
        }
}

static void fail(struct start *s, const char *kind, const char *err)
{
        s->kind = kind;
        s->err = err ? err : "out of memory";
}

/* One field more, or in the place of the one that is there. */
static int set_metadata(struct component_spec *c, const char *name, const char *value)
{
        struct metadata_item *v = arena_alloc(&c->arena, (c->n_metadata + 1) * sizeof *v);
        size_t at = 0;

        if (!v)
                return -ENOMEM;
        if (c->n_metadata)
                memcpy(v, c->metadata, c->n_metadata * sizeof *v);
        while (at < c->n_metadata && !(v[at].name && strcasecmp(v[at].name, name) == 0))
                at++;
        v[at] = (struct metadata_item){.name = name, .value = value};
        c->metadata = v;
        c->n_metadata += at == c->n_metadata;
        return 0;
}

/* A broker that names no consumer group gets one for the app. */
static int add_consumer_id(struct component_spec *c, const char *app_id)
{
        const char *have = component_metadata(c, "consumerID");

        if (!str_has_prefix(str_of(c->type), STR("pubsub.")) || (have && str_trim(str_of(have)).n))
                return 0;
        return set_metadata(c, "consumerID", app_id);
}

/* spec.wasm.strictSandbox of the Configuration counts whatever the component says. */
static int add_strict_sandbox(struct component_spec *c, const struct configuration *config)
{
        bool wasm = strcasecmp(c->type, "middleware.http.wasm") == 0 || strcasecmp(c->type, "bindings.wasm") == 0;

        return wasm && config->wasm_strict_sandbox ? set_metadata(c, "strictSandbox", "true") : 0;
}

int runtime_resolve_component(struct kernel *k, struct component_spec *spec, const char **ret_err)
{
        int r = component_resolve(spec, &k->opts, get_secret, k, ret_err);

        if (r == 0)
                r = add_consumer_id(spec, k->opts.app_id);
        return r ? r : add_strict_sandbox(spec, &k->config);
}

/* The blocks' say on a component that is up. 0, or the first refusal. */
static int ask_blocks(struct kernel *k, struct component *c, struct arena *a, const char **ret_err)
{
        for (size_t i = 0; i < k->n_blocks; i++) {
                int r = k->blocks[i]->component ? k->blocks[i]->component(k, c, a, ret_err) : 0;
                if (r)
                        return r;
        }
        return 0;
}

static void start_one(struct start *s)
{
        struct kernel *k = s->all->k;
        const char *err = NULL;
        int r;

        if (!has_category(s->spec->type)) {
                fail(s, NULL, arena_printf(&s->arena, "incorrect type %s", s->spec->type));
                return;
        }
        wait_for_store(s);
        r = runtime_resolve_component(k, s->spec, &err);
        if (r == 1) {
                s->unready = true;
                return;
        }
        if (r) {
                fail(s, "INIT_COMPONENT_FAILURE", err);
                return;
        }
        if (fsem_take(&s->all->slots)) {
                fail(s, "INIT_COMPONENT_FAILURE", "context canceled");
                return;
        }
        r = super_component_start(k->super, s->spec, &s->arena, &s->component, &err);
        fsem_give(&s->all->slots);
        if (r) {
                s->component = NULL;
                fail(s, r == -ENOENT ? "CREATE_COMPONENT_FAILURE" : "INIT_COMPONENT_FAILURE", err);
                return;
        }
        r = ask_blocks(k, s->component, &s->arena, &err);
        if (r) {
                fail(s, r == -ENOENT ? "CREATE_COMPONENT_FAILURE" : "INIT_COMPONENT_FAILURE", err);
                super_component_stop(k->super, s->component);
                s->component = NULL;
        }
}

static void start_fiber(void *arg)
{
        struct start *s = arg;

        start_one(s);
        s->state = START_DONE;
        cond_broadcast(&s->all->changed);
}

/* ---- results, in order ---- */

static int publish(struct kernel *k, struct component *c)
{
        return map_set(&k->components[component_kind_of(c)], str_of(component_name(c)), c);
}

/* From now on everybody sees it. */
static int list_it(struct kernel *k, struct component *c)
{
        struct component **all = realloc(k->all_components, (k->n_components + 1) * sizeof *all);

        if (!all)
                return -ENOMEM;
        k->all_components = all;
        all[k->n_components++] = c;
        return 0;
}

/* As the reference words it: its filters are built, and fail, one layer deeper. */
static const char *filter_failure(struct start *s)
{
        const struct component_spec *spec = s->spec;
        bool is_unknown = s->kind[0] == 'C';

        s->kind = "CREATE_COMPONENT_FAILURE";
        return arena_printf(&s->arena, "process component %s error: %s%s", spec->name,
                            is_unknown ? "" : arena_printf(&s->arena, "error creating HTTP middleware %s/%s: ", spec->type, spec->version), s->err);
}

/* Logs the failure; its text for the caller when it is fatal, else NULL. */
static const char *report_failure(struct start *s, struct arena *a)
{
        struct component_spec *spec = s->spec;
        const char *name = component_log_name(spec), *text = s->err;

        if (s->kind) {
                if (str_has_prefix(str_of(spec->type), STR("middleware.")))
                        text = filter_failure(s);
                bool creation = s->kind[0] == 'C';
                text = arena_printf(&s->arena, "[%s]: initialization error occurred for %s: %s", s->kind, name, text);
                log_error(SCOPE, "Failed to init component %s: %s", name, text);
                text = arena_printf(&s->arena, "[INIT_COMPONENT_FAILURE]: initialization error occurred for %s: %s", name, text);
                observe_component_init_failed(s->all->k->observe, spec->type, creation ? "creation" : "init", spec->name);
                if (creation)
                        observe_component_init_failed(s->all->k->observe, spec->type, "init", spec->name);
        }
        text = arena_printf(a, "process component %s error: %s", spec->name, text);
        if (spec->ignore_errors || s->all->hot || s->all->k->opts.tolerate_component_errors) {
                log_error(SCOPE, "Ignoring error processing component: %s", text);
                return NULL;
        }
        log_warn(SCOPE, "Error processing component, daprd will exit gracefully: %s", text);
        return text ? text : "out of memory";
}

/* NULL, or the text of a fatal failure. */
static const char *take_result(struct start *s, struct arena *a)
{
        struct kernel *k = s->all->k;

        log_debug(SCOPE, "Loading component: %s", component_log_name(s->spec));
        if (s->unready)
                return NULL;
        if (s->err)
                return report_failure(s, a);
        if (publish(k, s->component) || (!s->all->late && list_it(k, s->component)))
                return "out of memory";
        if (!str_has_prefix(str_of(s->spec->type), STR("middleware."))) /* those the reference does not count */
                observe_component_init(k->observe, s->spec->type);
        observe_component_loaded(k->observe);
        log_info(SCOPE, "Component loaded: %s", component_log_name(s->spec));
        return NULL;
}

static const char *take_all(struct starts *all, struct arena *a)
{
        for (size_t i = 0; i < all->n; i++) {
                struct start *s = &all->v[i];
                const char *text;
                while (s->state != START_DONE)
                        if (cond_wait(&all->changed))
                                return "context canceled";
                text = take_result(s, a);
                s->published = true;
                cond_broadcast(&all->changed);
                if (text)
                        return text;
        }
        return NULL;
}

/* Runs all starts to their end. NULL, or the text of the failure that stopped them. */
static const char *run(struct starts *all, struct arena *a)
{
        struct scope scope;
        const char *text;

        scope_init(&scope);
        cond_init(&all->changed);
        fsem_init(&all->slots, STARTS_AT_ONCE);
        for (size_t i = 0; i < all->n; i++)
                if (fiber_go_flags(&scope, "component", FIBER_BIG, start_fiber, &all->v[i]))
                        start_fiber(&all->v[i]);
        text = take_all(all, a);
        if (text)
                scope_cancel(&scope);
        fiber_shield_begin();
        scope_join(&scope);
        fiber_shield_end();
        return text;
}

static void starts_fini(struct starts *all)
{
        for (size_t i = 0; i < all->n; i++)
                arena_fini(&all->v[i].arena);
        free(all->v);
}

static int starts_init(struct starts *all, struct kernel *k, size_t n)
{
        *all = (struct starts){.k = k};
        all->v = calloc(n ? n : 1, sizeof *all->v);
        return all->v ? 0 : -ENOMEM;
}

static void starts_add(struct starts *all, struct component_spec *spec)
{
        struct start *s = &all->v[all->n++];

        s->all = all;
        s->spec = spec;
        arena_init(&s->arena, 0);
}

int runtime_start_components(struct kernel *k, struct arena *a, const char **ret_err)
{
        size_t total = k->resources.n_components, ready;
        struct component_spec **order = calloc(total + 1, sizeof *order);
        struct starts all;
        const char *text;

        *ret_err = "out of memory";
        if (!order || starts_init(&all, k, total)) {
                free(order);
                return -ENOMEM;
        }
        ready = resources_order(&k->resources, &k->opts, NULL, 0, order);
        for (size_t i = 0; i < total; i++) {
                log_debug("dapr.runtime", "Found component: %s", component_log_name(order[i]));
                if (i < ready)
                        starts_add(&all, order[i]);
                else
                        log_warn("dapr.runtime.processor.secret", "Component %s references a secret store that isn't loaded: %s",
                                 order[i]->name, component_needs_store(order[i], &k->opts));
        }
        text = run(&all, a);
        free(order);
        starts_fini(&all);
        *ret_err = text;
        return text ? -EINVAL : 0;
}

static void arrive(struct kernel *k, struct component *c)
{
        for (size_t i = 0; i < k->n_blocks; i++)
                if (k->blocks[i]->arrived)
                        k->blocks[i]->arrived(k, c);
}

static void arrive_all(struct starts *all)
{
        for (size_t i = 0; i < all->n; i++) {
                struct component *c = all->v[i].published ? all->v[i].component : NULL;
                if (!c)
                        continue;
                arrive(all->k, c);
                if (list_it(all->k, c))
                        log_error(SCOPE, "Component %s runs, but is not listed: out of memory", component_name(c));
        }
}

static bool is_published(const struct kernel *k, const struct component_spec *spec)
{
        for (size_t i = 0; i < k->n_components; i++)
                if (strcmp(component_name(k->all_components[i]), spec->name) == 0)
                        return true;
        return false;
}

void runtime_type_appeared(struct kernel *k, const char *type)
{
        struct starts all;
        struct arena a;

        if (k->shutting_down || starts_init(&all, k, k->resources.n_components))
                return;
        arena_init(&a, 0);
        for (size_t i = 0; i < k->resources.n_components; i++) {
                struct component_spec *spec = k->resources.components[i];
                if (!is_published(k, spec) && strcasecmp(spec->type, type) == 0)
                        starts_add(&all, spec);
        }
        all.late = true;
        run(&all, &a);
        arrive_all(&all);
        starts_fini(&all);
        arena_fini(&a);
}

int runtime_add_component(struct kernel *k, struct component_spec *spec, bool fatal, struct arena *a, const char **ret_err)
{
        struct starts all;
        const char *text;

        *ret_err = "out of memory";
        if (starts_init(&all, k, 1))
                return -ENOMEM;
        all.hot = !fatal;
        all.late = true;
        starts_add(&all, spec);
        text = run(&all, a);
        if (all.v[0].unready)
                log_warn("dapr.runtime.processor.secret", "Component %s references a secret store that isn't loaded: %s", spec->name,
                         component_needs_store(spec, &k->opts));
        arrive_all(&all);
        starts_fini(&all);
        *ret_err = text;
        return text ? -EINVAL : 0;
}

static void unpublish(struct kernel *k, struct component *c)
{
        struct map *m = &k->components[component_kind_of(c)];
        size_t n = 0;

        if (map_get(m, str_of(component_name(c))) == c)
                map_del(m, str_of(component_name(c)));
        for (size_t i = 0; i < k->n_components; i++)
                if (k->all_components[i] != c)
                        k->all_components[n++] = k->all_components[i];
        k->n_components = n;
}

void runtime_remove_component(struct kernel *k, struct component *c)
{
        unpublish(k, c);
        runtime_on_leave(k, c);
        super_component_stop(k->super, c);
}

/* ---- exchanges ---- */

int runtime_on_move(void *arg, struct component *c, struct component *to, bool other_spec, struct arena *a, const char **ret_err)
{
        struct kernel *k = arg;
        int r = ask_blocks(k, to, a, ret_err);

        for (size_t i = 0; r == 0 && i < k->n_blocks; i++)
                if (k->blocks[i]->moving)
                        k->blocks[i]->moving(k, c, to);
        return r;
}

void runtime_on_moved(void *arg, struct component *c)
{
        struct kernel *k = arg;

        for (size_t i = 0; i < k->n_blocks; i++)
                if (k->blocks[i]->moved)
                        k->blocks[i]->moved(k, c);
}

void runtime_on_leave(void *arg, struct component *c)
{
        struct kernel *k = arg;

        for (size_t i = 0; i < k->n_blocks; i++)
                if (k->blocks[i]->leaving)
                        k->blocks[i]->leaving(k, c);
}

void runtime_on_arrive(void *arg, struct component *c)
{
        arrive(arg, c);
}

void runtime_stop_components(struct kernel *k, double grace_s)
{
        for (size_t i = 0; i < k->n_components; i++)
                log_info("dapr.runtime", "Shutting down component %s",
                         component_log_name((struct component_spec *)component_spec_of(k->all_components[i])));
        runtime_unpublish_components(k);
        if (k->super)
                super_stop(k->super, grace_s);
}

/* Out of sight first: the metrics server still answers. */
void runtime_unpublish_components(struct kernel *k)
{
        k->n_components = 0;
        free(k->all_components);
        k->all_components = NULL;
        for (int i = 0; i < KIND_N; i++)
                map_fini(&k->components[i]);
}
