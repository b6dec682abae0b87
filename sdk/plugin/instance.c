/*
 * Instances: made by Init, named by the calls, replaced by a further Init of the same name, closed when their last call has
 * ended. A failed Init leaves what was there before.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/loop.h"
#include "sdk/plugin/runtime.h"

struct str sdk_call_instance(const struct rpc_call *c)
{
        struct str name = rpc_md_get(&c->md_in, "x-component-instance");
        return name.p ? name : rpc_md_get(&c->md_in, "x-component-instance-bin"); /* names that are not printable ASCII */
}

struct instance *sdk_instance_find(struct runtime *rt, enum sdk_kind kind, struct str name)
{
        struct instance *only = NULL;
        size_t n = 0;
        if (rt->recent && rt->recent->kind == kind && str_eqz(name, rt->recent->name))
                return rt->recent;
        list_for_each(pos, &rt->instances) {
                struct instance *i = list_entry(pos, struct instance, node);
                if (i->kind != kind || !i->ready)
                        continue;
                if (str_eqz(name, i->name))
                        return rt->recent = i;
                only = i;
                n++;
        }
        return name.p == NULL && n == 1 ? only : NULL; /* a caller by hand, without the metadata */
}

static bool type_is(const struct dapr_component_type *t, enum sdk_kind kind, struct str type, struct str version)
{
        if (sdk_kind_of(t) != kind || !str_ieq(type, str_of(t->type)))
                return false;
        for (struct str rest = str_of(t->versions ? t->versions : "v1"), v; rest.p && (v = str_trim(str_cut(&rest, ',')), 1);)
                if (str_ieq(v, version) || (version.n == 0 && str_ieq(v, STR("v1"))))
                        return true;
        return false;
}

static const struct dapr_component_type *find_type(const struct runtime *rt, enum sdk_kind kind, struct str type, struct str version)
{
        if (str_ieq(version, STR("v0")))
                version = STR("");
        for (size_t i = 0; type.n && i < rt->plugin->n_types; i++)
                if (type_is(&rt->plugin->types[i], kind, type, version))
                        return &rt->plugin->types[i];
        return NULL;
}

const struct dapr_component_type *sdk_call_type(const struct dapr_call *dc, enum sdk_kind kind)
{
        const struct runtime *rt = dc->rt;
        if (dc->inst)
                return dc->inst->type;
        struct str type = rpc_md_get(&dc->rpc->md_in, "x-component-type"), version = rpc_md_get(&dc->rpc->md_in, "x-component-version");
        const struct dapr_component_type *t = find_type(rt, kind, type, version);
        if (!t)
                t = find_type(rt, kind, str_of(rt->wanted_type), str_of(rt->wanted_version));
        for (size_t i = 0; !t && i < rt->plugin->n_types; i++)
                if (sdk_kind_of(&rt->plugin->types[i]) == kind)
                        t = &rt->plugin->types[i];
        return t;
}

unsigned sdk_call_features(const struct dapr_call *dc, enum sdk_kind kind)
{
        return dc->inst ? dc->inst->features : sdk_features(sdk_call_type(dc, kind));
}

/* ---- init ---- */

struct init_job {
        struct dapr_call *dc;
        struct instance *inst;
        struct dapr_metadata md;
};

static int job_init(void *arg)
{
        struct init_job *j = arg;
        const struct dapr_component_type *t = j->inst->type;
        const struct sdk_ops *ops = sdk_ops_of(t);
        return ops->init ? ops->init(j->dc, &j->md, &j->inst->obj) : 0;
}

static struct instance *instance_new(struct runtime *rt, enum sdk_kind kind, struct str name, const struct dapr_component_type *t)
{
        struct instance *i = calloc(1, sizeof *i);
        if (!i)
                return NULL;
        i->name = strndup(name.p ? name.p : "", name.n);
        if (!i->name) {
                free(i);
                return NULL;
        }
        i->kind = kind;
        i->type = t;
        i->features = sdk_features(t);
        i->refs = 1;
        list_add_tail(&rt->instances, &i->node);
        return i;
}

static void instance_drop(struct runtime *rt, struct instance *i)
{
        list_del(&i->node);
        if (rt->recent == i)
                rt->recent = NULL;
        sdk_instance_unref(rt, i);
}

int sdk_instance_init(struct dapr_call *dc, enum sdk_kind kind, struct dapr_kvs metadata)
{
        struct runtime *rt = dc->rt;
        struct instance *old = dc->inst;
        struct str name = sdk_call_instance(dc->rpc);
        dc->inst = NULL; /* the type comes from the call, also when an instance is replaced */
        const struct dapr_component_type *t = sdk_call_type(dc, kind);
        struct init_job j = {.dc = dc, .inst = instance_new(rt, kind, name, t), .md = {metadata}};
        if (!j.inst) {
                dc->inst = old;
                return -ENOMEM;
        }
        dc->inst = j.inst;
        int r = sdk_run(dc, sdk_mode(t), job_init, &j);
        dc->inst = old; /* its reference is the caller's */
        if (r) {
                instance_drop(rt, j.inst);
                return r;
        }
        if (old && old->ready)
                instance_drop(rt, old);
        j.inst->ready = true;
        cond_broadcast(&rt->health);
        return 0;
}

void sdk_instance_ref(struct instance *i)
{
        i->refs++;
}

static int job_close(void *arg)
{
        struct instance *i = arg;
        const struct sdk_ops *ops = sdk_ops_of(i->type);
        if (ops->close)
                ops->close(i->obj);
        return 0;
}

void sdk_instance_unref(struct runtime *rt, struct instance *i)
{
        if (--i->refs > 0)
                return;
        if (i->ready) {
                struct dapr_call dc = {.rt = rt};
                sdk_run(&dc, fiber_self() ? sdk_mode(i->type) : DAPR_INLINE, job_close, i);
        }
        free(i->name);
        free(i->backend_error);
        free(i);
}

void sdk_instances_close(struct runtime *rt)
{
        while (!list_is_empty(&rt->instances))
                instance_drop(rt, list_entry(rt->instances.next, struct instance, node));
}

/* ---- health of what stands behind ---- */

static int job_ping(void *arg)
{
        struct dapr_call *dc = arg;
        return sdk_ops_of(dc->inst->type)->ping(dc, dc->inst->obj);
}

int sdk_instance_ping(struct dapr_call *dc)
{
        const struct dapr_component_type *t = dc->inst ? dc->inst->type : NULL;
        if (!t || !sdk_ops_of(t)->ping)
                return 0;
        return sdk_run(dc, sdk_mode(t), job_ping, dc);
}

void sdk_backend_report(struct runtime *rt, const char *name, bool up, const char *reason)
{
        list_for_each(pos, &rt->instances) {
                struct instance *i = list_entry(pos, struct instance, node);
                if (strcmp(i->name, name ? name : "") != 0)
                        continue;
                if (i->backend_known && i->backend_up == up)
                        continue;
                i->backend_known = true;
                i->backend_up = up;
                if (!up) {
                        free(i->backend_error);
                        i->backend_error = strdup(reason ? reason : "");
                        snprintf(rt->last_error, sizeof rt->last_error, "%s", reason ? reason : "");
                }
                cond_broadcast(&rt->health);
        }
}
