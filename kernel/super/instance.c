/*
 * Instances: one initialised component inside a plugin, with the Init request that makes it. A call holds the instance that it runs
 * in; one that is on its way out is freed when nothing holds it any more.
 */
#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/common.pb-c.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/super/plugin.h"

static void add_default(void *arg, const char *name, const char *value)
{
        struct metadata_item **end = arg;
        *(*end)++ = (struct metadata_item){.name = name, .value = value};
}

/* The metadata as given, then the manifest's defaults of what is left out. */
static int pack_init(struct instance *c, struct arena *a)
{
        typedef Dapr__Proto__Components__V1__MetadataRequest__PropertiesEntry entry_t;
        const struct component_spec *spec = c->spec;
        const struct manifest *m = c->plugin->manifest;
        size_t room = spec->n_metadata + (m ? m->n_fields : 0);
        struct metadata_item *all = arena_zalloc(a, room * sizeof *all), *end = all;
        entry_t *entries = arena_alloc(a, room * sizeof *entries), **list = arena_alloc(a, room * sizeof *list);
        if (!all || !entries || !list)
                return -ENOMEM;
        for (size_t i = 0; i < spec->n_metadata; i++)
                if (spec->metadata[i].name)
                        *end++ = spec->metadata[i];
        if (m)
                manifest_defaults(m, spec, add_default, &end);
        for (size_t i = 0; i < (size_t)(end - all); i++) {
                dapr__proto__components__v1__metadata_request__properties_entry__init(&entries[i]);
                entries[i].key = all[i].name;
                entries[i].value = all[i].value ? all[i].value : "";
                list[i] = &entries[i];
        }
        Dapr__Proto__Components__V1__MetadataRequest md = DAPR__PROTO__COMPONENTS__V1__METADATA_REQUEST__INIT;
        Dapr__Proto__Components__V1__InitRequest req = DAPR__PROTO__COMPONENTS__V1__INIT_REQUEST__INIT;
        md.properties = list;
        md.n_properties = (size_t)(end - all);
        req.metadata = &md; /* InitRequest of every kind looks like this one */
        size_t n = protobuf_c_message_get_packed_size(&req.base), more = spec->init_more.n;
        char *bytes = malloc(n + more + 1);
        if (!bytes)
                return -ENOMEM;
        protobuf_c_message_pack(&req.base, (uint8_t *)bytes);
        if (more)
                memcpy(bytes + n, spec->init_more.p, more);
        c->init_request = str_n(bytes, n + more);
        return 0;
}

/* May a name stand in gRPC metadata as it is? Others go base64-coded, in metadata whose name ends in -bin. */
static bool is_metadata_text(const char *name)
{
        size_t n = strlen(name);
        for (size_t i = 0; i < n; i++)
                if (name[i] < ' ' || name[i] > '~')
                        return false;
        return n && name[0] != ' ' && name[n - 1] != ' ';
}

int instance_new(struct instance **ret, struct plugin *p, const struct component_spec *spec, struct arena *a)
{
        struct instance *i = calloc(1, sizeof *i);
        if (!i)
                return -ENOMEM;
        list_init(&i->in_plugin);
        i->plugin = p;
        i->spec = component_spec_ref((struct component_spec *)spec);
        i->log_name = strdup(component_log_name((struct component_spec *)spec));
        if (!i->log_name || pack_init(i, a)) {
                instance_free(i);
                return -ENOMEM;
        }
        i->md.key = is_metadata_text(spec->name) ? STR("x-component-instance") : STR("x-component-instance-bin");
        i->md.value = str_of(spec->name);
        list_add_tail(&p->instances, &i->in_plugin);
        *ret = i;
        return 0;
}

void instance_free(struct instance *i)
{
        if (!i)
                return;
        list_del(&i->in_plugin);
        if (i->init_request.p)
                explicit_bzero((char *)i->init_request.p, i->init_request.n); /* it holds secrets */
        free((char *)i->init_request.p);
        free(i->log_name);
        component_spec_free((struct component_spec *)i->spec);
        free(i);
}

void instance_attach(struct instance *i, struct component *c)
{
        i->component = c;
}

void instance_hold(struct instance *i)
{
        i->inflight++;
}

void instance_release(struct instance *i)
{
        if (--i->inflight == 0 && i->stopping)
                cond_broadcast(&i->plugin->changed);
}

bool instance_is_usable(const struct instance *i)
{
        const struct plugin *p = i->plugin;
        return plugin_is_callable(p) && i->init_life == p->life->number;
}

void instance_wait_idle(struct instance *i)
{
        fiber_shield_begin();
        while (i->inits || i->inflight)
                cond_wait(&i->plugin->changed);
        fiber_shield_end();
}
