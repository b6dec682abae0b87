/*
 * Shadow traffic: for a while a component's reads go to a candidate too, after they were answered, and the answers are compared. A
 * write in between makes two reads differ without anybody's fault; so a difference counts only when the present one answers the same
 * before and after the candidate was asked, and when it stands after all were asked again. Nothing of a value is kept or shown, and only SHADOW_CALLS_MAX comparisons run at once: reads beyond that are not compared.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/super/swap.h"

enum { AGAIN = 3 };
static const double AGAIN_AFTER_S = 0.02;

/* Reads: they change nothing, and two that answer the same are equal byte by byte. */
static const char *const reads[] = {
        "/dapr.proto.components.v1.StateStore/Get",          "/dapr.proto.components.v1.StateStore/BulkGet",
        "/dapr.proto.components.v1.QueriableStateStore/Query", "/dapr.proto.components.v1.SecretStore/Get",
        "/dapr.proto.components.v1.SecretStore/BulkGet",     "/microdapr.plugin.v1.ConfigurationStore/Get",
        "/microdapr.plugin.v1.StateStoreExtra/KeysLike",     "/microdapr.plugin.v1.Crypto/GetKey",
};

struct compared {
        struct shadow *s;
        const char *method;
        struct arena arena;
        struct str req, resp;
        int code;
};

static const char *difference(const struct compared *k, int code, struct str resp, char *text, size_t n)
{
        if (code != k->code)
                snprintf(text, n, "%s: %s instead of %s", strrchr(k->method, '/') + 1, rpc_code_name(code), rpc_code_name(k->code));
        else if (code == 0 && !str_eq(resp, k->resp))
                snprintf(text, n, "%s: another answer (%zu bytes, the present one has %zu)", strrchr(k->method, '/') + 1, resp.n, k->resp.n);
        else
                return NULL;
        return text;
}

static int ask(struct compared *k, struct instance *i, struct str *ret)
{
        struct rpc_status st = {0};
        *ret = STR_NULL;
        return instance_call(i, &k->arena, k->method, k->req, ret, &st);
}

/* Asks the candidate, then the present one again. What differs, in text; NULL: nothing, or a write came between. */
static const char *compare_once(struct compared *k, char *text, size_t n)
{
        struct str theirs, now;
        int code = ask(k, k->s->candidate, &theirs);
        const char *differs = difference(k, code, theirs, text, n);
        if (!differs || !k->s->c->now)
                return differs;
        int after = ask(k, k->s->c->now, &now);
        bool stands = after == k->code && (after || str_eq(now, k->resp));
        k->code = after;
        k->resp = now;
        return stands ? differs : NULL;
}

static void compare_fiber(void *arg)
{
        struct compared *k = arg;
        struct shadow *s = k->s;
        char text[SHADOW_EXAMPLE_BYTES];
        const char *differs = compare_once(k, text, sizeof text);
        for (int i = 0; differs && i < AGAIN; i++) {
                if (fiber_sleep(AGAIN_AFTER_S) || !s->c->now)
                        break;
                k->code = ask(k, s->c->now, &k->resp);
                differs = compare_once(k, text, sizeof text);
        }
        s->reads++;
        if (differs && s->differences++ == 0)
                memcpy(s->example, text, sizeof s->example);
        s->running--;
        arena_fini(&k->arena);
        free(k);
}

static const char *read_method(const char *method)
{
        for (size_t i = 0; i < sizeof reads / sizeof *reads; i++)
                if (strcmp(reads[i], method) == 0)
                        return reads[i];
        return NULL;
}

void shadow_call(struct component *c, const char *method, struct str req, int code, struct str resp)
{
        struct shadow *s = c->shadow;
        const char *read = read_method(method);
        struct compared *k = read && s->running < SHADOW_CALLS_MAX ? calloc(1, sizeof *k) : NULL;
        if (!k)
                return;
        *k = (struct compared){.s = s, .method = read, .code = code};
        arena_init(&k->arena, 0);
        k->req = arena_str(&k->arena, req);
        k->resp = arena_str(&k->arena, resp);
        s->running++;
        if ((req.n && !k->req.p) || (resp.n && !k->resp.p) || fiber_go(&s->scope, "shadow", compare_fiber, k)) {
                s->running--;
                arena_fini(&k->arena);
                free(k);
        }
}

void shadow_run(struct shadow *s, double seconds)
{
        double until = loop_now() + seconds;
        scope_init(&s->scope);
        s->c->shadow = s;
        while (instance_is_usable(s->candidate))
                if (cond_wait_until(&s->candidate->plugin->changed, until))
                        break;
        s->c->shadow = NULL;
        fiber_shield_begin();
        scope_join(&s->scope);
        fiber_shield_end();
}
