/*
 * The state building block: its stores and their settings. A store's settings are made when its component comes up: the prefix
 * of its keys, its encryption keys. They are looked up by name on each call, as the component is, so that a replaced component
 * never meets the settings of the old one.
 */
#include "kernel/blocks/state.h"

#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/state_key.h"
#include "kernel/front/errors.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.runtime.processor.state"

double state_now(void)
{
        return loop_now_exact() * 1000;
}

void state_observe(struct call *c, const struct state_store *s, const char *operation, bool ok, double since)
{
        observe_component(c->k->observe, OBSERVE_STATE, str_of(s->name), operation, ok, state_now() - since);
}

/* ---- requests ---- */

static int store_missing(struct call *c, enum error_id id, struct str name, bool universal)
{
        call_fail(c, id, arena_strdup(c->arena, name));
        if (!universal && *c->k->opts.app_id)
                details_info(call_details(c), "appID", c->k->opts.app_id);
        return -1;
}

int state_store_find(struct call *c, struct str name, bool universal, struct state_store **ret)
{
        struct kernel *k = c->k;
        struct component *comp = kernel_component(k, KIND_STATE, name);
        struct state_store *s = comp && k->state ? map_get(&k->state->stores, name) : NULL;
        if (!s)
                return store_missing(c, kernel_component_count(k, KIND_STATE) ? ERR_STATE_STORE_NOT_FOUND : ERR_STATE_STORE_NOT_CONFIGURED,
                                     name, universal);
        s->component = comp;
        *ret = s;
        return 0;
}

static int illegal_key(struct call *c, const struct state_store *s, struct str key)
{
        const char *field = arena_strdup(c->arena, key);
        const char *text = arena_printf(c->arena, "%sinput key/keyPrefix '%.*s' can't contain '" STATE_KEY_SEPARATOR "'",
                                        c->door == DOOR_HTTP ? "api error: code = InvalidArgument desc = " : "", STR_FMT(key));
        call_fail(c, ERR_STATE_ILLEGAL_KEY, text ? text : "");
        struct error_details *d = call_details(c);
        d->resource_type = "state";
        d->resource_name = s->name;
        d->field = field ? field : "";
        d->field_description = text;
        return -1;
}

int state_item_key(struct call *c, struct state_store *s, struct state_item *i)
{
        if (!state_key_is_legal(i->key))
                return illegal_key(c, s, i->key);
        if (!s->prefix.n) {
                i->stored_key = i->key;
                return 0;
        }
        char *p = arena_alloc(c->arena, s->prefix.n + i->key.n);
        if (!p)
                return call_fail(c, ERR_UNTYPED, "out of memory");
        memcpy(p, s->prefix.p, s->prefix.n);
        if (i->key.n)
                memcpy(p + s->prefix.n, i->key.p, i->key.n);
        i->stored_key = str_n(p, s->prefix.n + i->key.n);
        return 0;
}

/* ---- stores ---- */

static void store_free(struct state_store *s)
{
        if (!s)
                return;
        encryption_fini(&s->enc);
        arena_fini(&s->arena);
        free(s);
}

static int read_key(const struct component_spec *spec, const char *item, struct encryption_key **ret, struct arena *a, const char **ret_err)
{
        for (size_t i = 0; i < spec->n_metadata; i++) {
                const struct metadata_item *m = &spec->metadata[i];
                const char *why = NULL;
                if (strcmp(m->name, item) || *ret)
                        continue;
                if (!m->secret_name) {
                        log_warn(SCOPE, "%s of state store %s is ignored: an encryption key must come from a secretKeyRef", item, spec->name);
                        continue;
                }
                if (!m->value || !*m->value) {
                        *ret_err = arena_printf(a, "failed to extract encryption key: failed to extract encryption key: secret %s has no key %s",
                                                m->secret_name, m->secret_key ? m->secret_key : m->secret_name);
                        return -1;
                }
                if (encryption_key_new(ret, m->secret_name, m->value, a, &why)) {
                        *ret_err = why ? why : "out of memory";
                        return -1;
                }
        }
        return 0;
}

static int read_encryption(struct state_store *s, const struct component_spec *spec, struct arena *a, const char **ret_err)
{
        if (read_key(spec, "primaryEncryptionKey", &s->enc.primary, a, ret_err) ||
            read_key(spec, "secondaryEncryptionKey", &s->enc.secondary, a, ret_err))
                return -1;
        if (s->enc.primary) {
                log_info(SCOPE, "Automatic encryption enabled for state store %s", s->name);
                log_info(SCOPE, "WARNING: Automatic state store encryption should never be used to store more than 4 billion items in the "
                                "state store (including updates). Storing more items than that can cause the private key to be exposed.");
        }
        return 0;
}

static int read_prefix(struct kernel *k, struct state_store *s, const struct component_spec *spec, struct arena *a, const char **ret_err)
{
        const char *strategy = component_metadata(spec, "keyPrefix");
        struct state_key_scope scope = {k->opts.app_id, k->opts.namespace_, s->name};
        if (strategy && !state_key_is_legal(str_of(strategy))) {
                *ret_err = arena_printf(a, "failed to save lock keyprefix: api error: code = InvalidArgument desc = input key/keyPrefix '%s' "
                                           "can't contain '" STATE_KEY_SEPARATOR "'", strategy);
                return -1;
        }
        s->prefix = state_key_prefix(&s->arena, strategy, &scope);
        return s->prefix.p ? 0 : -1;
}

/* What was read of the component is the same, and no secret is in it. */
static bool same_store(const struct state_store *a, const struct state_store *b)
{
        return a->foreign == b->foreign && str_eq(a->prefix, b->prefix) && !a->enc.primary && !b->enc.primary;
}

static int on_component(struct kernel *k, struct component *comp, struct arena *a, const char **ret_err)
{
        if (component_kind_of(comp) != KIND_STATE)
                return 0;
        const struct component_spec *spec = component_spec_of(comp);
        struct state_store *s = calloc(1, sizeof *s), *old;
        *ret_err = "out of memory";
        if (!k->state)
                k->state = calloc(1, sizeof *k->state);
        if (!s || !k->state) {
                free(s);
                return -1;
        }
        s->name = arena_strdup(&s->arena, str_of(spec->name));
        s->foreign = component_is_foreign(comp);
        s->max_ops = STATE_MAX_OPS_UNKNOWN;
        int r = !s->name ? -1 : read_encryption(s, spec, a, ret_err) ? -ENOENT : read_prefix(k, s, spec, a, ret_err);
        if (r) {
                store_free(s);
                return r;
        }
        old = map_get(&k->state->stores, str_of(s->name));
        if (old && same_store(old, s)) { /* another version of its plugin: it is only asked anew what it can do at once */
                old->max_ops = STATE_MAX_OPS_UNKNOWN;
                store_free(s);
                return 0;
        }
        if (map_set(&k->state->stores, str_of(s->name), s)) {
                store_free(s);
                return -1;
        }
        s->retired = old;
        return 0;
}

static void fini(struct kernel *k)
{
        if (!k->state)
                return;
        for (struct map_entry *e = NULL; (e = map_next(&k->state->stores, e));)
                for (struct state_store *s = e->value, *next; s; s = next) {
                        next = s->retired;
                        store_free(s);
                }
        map_fini(&k->state->stores);
        free(k->state);
        k->state = NULL;
}

const struct block state_block_def = {
        .name = "state",
        .http = state_http_routes,
        .n_http = STATE_HTTP_ROUTES,
        .grpc = state_grpc_routes,
        .n_grpc = STATE_GRPC_ROUTES,
        .component = on_component,
        .fini = fini,
};
