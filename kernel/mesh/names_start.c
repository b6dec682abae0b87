/*
 * The resolver's start: the Configuration's nameResolution becomes the spec of a component named "nr", its configuration the
 * metadata, and what others must know of this sidecar follows in Init.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/host.h"
#include "kernel/mesh/names.h"
#include "kernel/mesh/names_internal.h"
#include "kernel/observe/observe.h"
#include "plugin/v1/nameresolution.pb-c.h"
#include "sdk/base/log.h"
#include "sdk/base/yaml.h"

#define SCOPE "dapr.runtime"

/* ---- the spec ---- */

/* Scalars as text, the rest as JSON; NULL = null or no memory. */
static const char *value_text(struct arena *a, const struct yaml_node *n)
{
        struct str s;
        struct buf b = {0};
        const char *z = NULL;

        if (n->kind == YAML_SCALAR)
                return yaml_string(a, n, YAML_V3, &s) == 0 && s.p ? arena_strdup(a, s) : NULL;
        if (yaml_to_json(&b, n, YAML_V3) == 0)
                z = arena_strdup(a, buf_str(&b));
        buf_fini(&b);
        return z;
}

static int fill_metadata(struct component_spec *s, const struct yaml_node *conf)
{
        if (!conf || conf->kind != YAML_MAP)
                return 0;
        s->file = conf->file;
        s->line = conf->line;
        s->metadata = arena_zalloc(&s->arena, (conf->n + 1) * sizeof *s->metadata);
        if (!s->metadata)
                return -ENOMEM;
        for (const struct yaml_item *i = conf->items; i; i = i->next) {
                const char *value = value_text(&s->arena, i->value);
                if (value)
                        s->metadata[s->n_metadata++] =
                                (struct metadata_item){.name = arena_strdup(&s->arena, i->key->text), .value = value, .line = i->value->line};
        }
        return 0;
}

static const char *own_address(const struct daprd_opts *o, char *to, size_t n)
{
        static const char *const local[] = {"127.0.0.1", "localhost", "[::1]"};
        const char *listen = o->dapr_internal_grpc_listen_address;

        for (size_t i = 0; i < sizeof local / sizeof *local; i++)
                if (listen && strcmp(listen, local[i]) == 0)
                        return i == 2 ? "::1" : listen;
        return host_address(o, to, n) ? "" : to;
}

static int pack_instance(struct names *n, struct arena *a)
{
        Microdapr__Plugin__V1__NameResolutionInitRequest req = MICRODAPR__PLUGIN__V1__NAME_RESOLUTION_INIT_REQUEST__INIT;
        Microdapr__Plugin__V1__NameResolutionInstance of = MICRODAPR__PLUGIN__V1__NAME_RESOLUTION_INSTANCE__INIT;
        struct kernel *k = n->k;
        struct str json = configuration_section(&k->config, "nameResolution.configuration");
        char address[64];

        req.configuration = json.p ? arena_strdup(a, json) : "";
        if (!req.configuration)
                return -ENOMEM;
        of.app_id = (char *)k->opts.app_id;
        of.namespace_ = (char *)k->opts.own_namespace;
        of.address = (char *)own_address(&k->opts, address, sizeof address);
        of.internal_port = (uint32_t)k->opts.dapr_internal_grpc_port;
        of.http_port = (uint32_t)k->opts.dapr_http_port;
        of.app_port = (uint32_t)k->opts.app_port;
        of.metrics_port = (uint32_t)k->opts.metrics_port;
        req.instance = &of;
        n->spec->init_more = pb_pack(a, &req.base);
        return n->spec->init_more.p ? 0 : -ENOMEM;
}

static int make_spec(struct names *n)
{
        const struct configuration *cfg = &n->k->config;
        struct component_spec *s = calloc(1, sizeof *s);

        if (!s)
                return -ENOMEM;
        n->spec = s;
        arena_init(&s->arena, 0);
        n->name = cfg->name_resolution_component;
        if (!n->name || !*n->name)
                n->name = strcmp(n->k->opts.mode, "kubernetes") == 0 ? "kubernetes" : "mdns";
        n->version = cfg->name_resolution_version && *cfg->name_resolution_version ? cfg->name_resolution_version : "v1";
        s->name = "nr";
        s->namespace_ = s->secret_store = "";
        s->type = arena_printf(&s->arena, "nameresolution.%s", n->name);
        s->version = n->version;
        s->init_timeout_ns = 5000000000;
        if (!s->type)
                return -ENOMEM;
        return fill_metadata(s, yaml_path(cfg->doc, "spec.nameResolution.configuration")) || pack_instance(n, &s->arena) ? -ENOMEM : 0;
}

/* ---- the start ---- */

static void failed(struct names *n, int r, const char *err)
{
        bool creation = r == -ENOENT;

        log_error(SCOPE, "[%s_COMPONENT_FAILURE]: initialization error occurred for nr (%s/%s): %s", creation ? "CREATE" : "INIT", n->name,
                  n->version, err);
        observe_component_init_failed(n->k->observe, "nameResolution", creation ? "creation" : "init", n->name);
        n->why = creation ? NULL : arena_strdup(&n->spec->arena, str_of(err));
        n->state = NAMES_FAILED;
}

static void start_fiber(void *arg)
{
        struct names *n = arg;
        const char *err = "out of memory";
        struct arena a;
        int r;

        arena_init(&a, 0);
        r = super_component_start(n->k->super, n->spec, &a, &n->component, &err);
        if (n->state != NAMES_STARTING) {
                arena_fini(&a);
                return;
        }
        if (r) {
                failed(n, r, err);
        } else {
                n->state = NAMES_READY;
                log_info(SCOPE, "Initialized name resolution to %s", n->name);
        }
        cond_broadcast(&n->changed);
        arena_fini(&a);
}

int names_start(struct kernel *k)
{
        struct names *n = calloc(1, sizeof *n);
        int r;

        if (!n)
                return -ENOMEM;
        k->names = n;
        n->k = k;
        list_init(&n->by_use);
        cond_init(&n->changed);
        scope_init(&n->scope);
        r = make_spec(n);
        return r ? r : fiber_go_flags(&n->scope, "names", FIBER_BIG, start_fiber, n);
}

void names_stop(struct kernel *k)
{
        struct names *n = k->names;

        if (!n)
                return;
        n->state = NAMES_STOPPED;
        cond_broadcast(&n->changed);
        scope_cancel(&n->scope);
        scope_join(&n->scope);
}

void names_free(struct kernel *k)
{
        struct names *n = k->names;

        if (!n)
                return;
        names_cache_fini(n);
        if (n->spec)
                component_spec_free(n->spec);
        free(n);
        k->names = NULL;
}
