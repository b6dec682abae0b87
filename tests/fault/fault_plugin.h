/* Installing plugins made up by a test, and calls to state stores. */
#ifndef TESTS_FAULT_FAULT_PLUGIN_H
#define TESTS_FAULT_FAULT_PLUGIN_H

#include <sys/stat.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "tests/fault/fault.h"

#define STATE "/dapr.proto.components.v1.StateStore/"

static inline void fault_file(const char *path, const char *text, mode_t mode)
{
        FILE *out = fopen(path, "w");
        ck_assert(out != NULL);
        fputs(text, out);
        fclose(out);
        ck_assert_int_eq(chmod(path, mode), 0);
}

/* A folder with a manifest; executable NULL = tests/faulty of the build. */
static inline void fault_install(struct fault *f, const char *name, const char *executable, const char *extra)
{
        char path[256], text[2048];
        snprintf(path, sizeof path, "%s/%s", f->dir, name);
        ck_assert_int_eq(mkdir(path, 0755), 0);
        snprintf(text, sizeof text,
                 "name: %s\nversion: 1.2.3\nexecutable: %s%s\ncontract: [1]\nenvironment: [FAULT_MODE]\n"
                 "types:\n  - type: %s\n  - {type: state.alias, versions: [v1, v2]}\n%s",
                 name, executable ? "" : f->exe_dir, executable ? executable : "/faulty", name, extra ? extra : "");
        snprintf(path, sizeof path, "%s/%s/plugin.yaml", f->dir, name);
        fault_file(path, text, 0644);
}

static inline struct component *fault_start(struct fault *f, struct component_spec *spec)
{
        struct component *c = NULL;
        const char *err = NULL;
        if (super_component_start(f->super, spec, &f->arena, &c, &err))
                ck_abort_msg("start: %s", err);
        return c;
}

/* A start that must fail: its text holds `part`. Returns the error. */
static inline int fault_refused(struct fault *f, struct component_spec *spec, const char *part)
{
        struct component *c = NULL;
        const char *err = "";
        int r = super_component_start(f->super, spec, &f->arena, &c, &err);
        ck_assert_int_lt(r, 0);
        if (!strstr(err, part))
                ck_abort_msg("'%s' does not hold '%s'", err, part);
        return r;
}

static inline int fault_get(struct component *c, struct arena *a, const char *key, struct str *ret, struct rpc_status *st)
{
        Dapr__Proto__Components__V1__GetRequest req = DAPR__PROTO__COMPONENTS__V1__GET_REQUEST__INIT;
        Dapr__Proto__Components__V1__GetResponse *resp;
        req.key = key;
        int r = component_call(c, a, STATE "Get", &req.base, &dapr__proto__components__v1__get_response__descriptor, &resp, st);
        if (r == 0 && ret)
                *ret = pb_str(resp->data);
        return r;
}

static inline int fault_set(struct component *c, struct arena *a, const char *key, const char *value, struct rpc_status *st)
{
        Dapr__Proto__Components__V1__SetRequest req = DAPR__PROTO__COMPONENTS__V1__SET_REQUEST__INIT;
        Dapr__Proto__Components__V1__SetResponse *resp;
        req.key = key;
        req.value = pb_bytes(str_of(value));
        return component_call(c, a, STATE "Set", &req.base, &dapr__proto__components__v1__set_response__descriptor, &resp, st);
}

static inline struct component_status fault_status(struct fault *f, struct component *c)
{
        struct component_status st;
        component_status_get(c, &f->arena, &st);
        return st;
}

static inline bool text_has(struct str s, const char *part)
{
        return str_find(s, str_of(part)) >= 0;
}

#endif
