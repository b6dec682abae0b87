/*
 * The lock building block. The resource's name goes to the store as `lock||<prefix>||<resource>`; the prefix is the app's id unless the
 * component's keyPrefix says otherwise. Like the reference, `namespace` is no strategy here but a prefix of that name.
 */
#include <ctype.h>

#include "dapr/proto/runtime/v1/lock.pb-c.h"
#include "kernel/blocks/state_key.h"
#include "kernel/front/http.h"
#include "kernel/policy/resiliency.h"
#include "plugin/v1/lock.pb-c.h"
#include "sdk/base/pbjson.h"

#define STORE "/microdapr.plugin.v1.Lock/"
#define PREFIX "lock" STATE_KEY_SEPARATOR
#define ILLEGAL "input key/keyPrefix '%s' can't contain '" STATE_KEY_SEPARATOR "'"

typedef Dapr__Proto__Runtime__V1__TryLockRequest try_request;
typedef Dapr__Proto__Runtime__V1__TryLockResponse try_response;
typedef Dapr__Proto__Runtime__V1__UnlockRequest unlock_request;
typedef Dapr__Proto__Runtime__V1__UnlockResponse unlock_response;

static const char *lower_case(struct arena *a, const char *s)
{
        char *to = arena_strdup(a, str_of(s));
        for (char *p = to; p && *p; p++)
                *p = (char)tolower((unsigned char)*p);
        return to;
}

/* The name in the store; NULL with the text of a refusal in *ret_err. */
static const char *stored_name(struct call *c, struct component *store, const char *resource, const char **ret_err)
{
        const char *strategy = component_metadata(component_spec_of(store), "keyPrefix");
        const char *prefix = strategy ? lower_case(c->arena, strategy) : "appid";

        *ret_err = "out of memory";
        if (!state_key_is_legal(str_of(resource))) {
                const char *text = arena_printf(c->arena, ILLEGAL, resource);
                *ret_err = text ? text : *ret_err;
                return NULL;
        }
        if (!prefix)
                return NULL;
        if (!strcmp(prefix, "appid"))
                prefix = c->k->opts.app_id;
        else if (!strcmp(prefix, "name"))
                prefix = component_name(store);
        else if (!strcmp(prefix, "none"))
                return arena_printf(c->arena, PREFIX "%s", resource);
        else
                return arena_printf(c->arena, PREFIX "%s" STATE_KEY_SEPARATOR "%s", prefix, resource);
        return *prefix ? arena_printf(c->arena, PREFIX "%s" STATE_KEY_SEPARATOR "%s", prefix, resource)
                       : arena_printf(c->arena, PREFIX "%s", resource);
}

static struct component *find_store(struct call *c, const char *name, const char *resource, const char *owner)
{
        struct component *store = kernel_component(c->k, KIND_LOCK, str_of(name));

        if (!kernel_component_count(c->k, KIND_LOCK))
                call_fail(c, ERR_LOCK_STORE_NOT_CONFIGURED);
        else if (!*resource)
                call_fail(c, ERR_LOCK_RESOURCE_ID_EMPTY, name);
        else if (!*owner)
                call_fail(c, ERR_LOCK_OWNER_EMPTY, name);
        else if (!store)
                call_fail(c, ERR_LOCK_STORE_NOT_FOUND, name);
        else
                return store;
        return NULL;
}

/* 0, or call_fail(failure) was called. */
static int ask(struct call *c, struct component *store, const char *method, const ProtobufCMessage *req,
               const ProtobufCMessageDescriptor *d, void *resp, enum error_id failure)
{
        struct rpc_status st = {0};
        const char *policy_error;
        int code = resiliency_component_call(c->k, store, c->arena, method, req, d, resp, &st, &policy_error);

        return code ? call_fail(c, failure, policy_error ? policy_error : call_component_error(c, store, &st)) : 0;
}

static int try_lock(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const try_request *in = (const void *)req;
        Microdapr__Plugin__V1__LockTryRequest ask_for = MICRODAPR__PLUGIN__V1__LOCK_TRY_REQUEST__INIT;
        Microdapr__Plugin__V1__LockTryResponse *answer;
        struct component *store;
        const char *err;

        if (in->expiry_in_seconds <= 0)
                return call_fail(c, ERR_LOCK_EXPIRY_NOT_POSITIVE, in->store_name);
        store = find_store(c, in->store_name, in->resource_id, in->lock_owner);
        if (!store)
                return -1;
        ask_for.resource = stored_name(c, store, in->resource_id, &err);
        if (!ask_for.resource)
                return call_fail(c, ERR_TRY_LOCK, err);
        ask_for.owner = in->lock_owner;
        ask_for.expiry_s = in->expiry_in_seconds;
        if (ask(c, store, STORE "TryLock", &ask_for.base, &microdapr__plugin__v1__lock_try_response__descriptor, &answer, ERR_TRY_LOCK))
                return -1;
        ((try_response *)resp)->success = answer->success;
        return 0;
}

static int unlock(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const unlock_request *in = (const void *)req;
        Microdapr__Plugin__V1__LockUnlockRequest ask_for = MICRODAPR__PLUGIN__V1__LOCK_UNLOCK_REQUEST__INIT;
        Microdapr__Plugin__V1__LockUnlockResponse *answer;
        struct component *store = find_store(c, in->store_name, in->resource_id, in->lock_owner);
        const char *err;

        if (!store)
                return -1;
        ask_for.resource = stored_name(c, store, in->resource_id, &err);
        if (!ask_for.resource)
                return call_fail(c, ERR_UNLOCK, err);
        ask_for.owner = in->lock_owner;
        if (ask(c, store, STORE "Unlock", &ask_for.base, &microdapr__plugin__v1__lock_unlock_response__descriptor, &answer, ERR_UNLOCK))
                return -1;
        ((unlock_response *)resp)->status = (int)answer->status;
        return 0;
}

/* ---- HTTP: zero values are written, the outcome of an unlock is a number ---- */

static void http_try_lock(struct call *c)
{
        try_response out = DAPR__PROTO__RUNTIME__V1__TRY_LOCK_RESPONSE__INIT;
        try_request *in = call_body_message(c, &dapr__proto__runtime__v1__try_lock_request__descriptor);

        if (!in)
                return;
        in->store_name = arena_strdup(c->arena, route_param(c, "storeName"));
        if (try_lock(c, &in->base, &out.base))
                reply_error(c);
        else
                reply_message(c, &out.base, PBJSON_EMIT_ZERO);
}

static void http_unlock(struct call *c)
{
        unlock_response out = DAPR__PROTO__RUNTIME__V1__UNLOCK_RESPONSE__INIT;
        unlock_request *in = call_body_message(c, &dapr__proto__runtime__v1__unlock_request__descriptor);

        if (!in)
                return;
        in->store_name = arena_strdup(c->arena, route_param(c, "storeName"));
        if (unlock(c, &in->base, &out.base))
                reply_error(c);
        else
                reply_message(c, &out.base, PBJSON_EMIT_ZERO | PBJSON_ENUM_NUMBERS);
}

/* ---- the component ---- */

static int on_component(struct kernel *k, struct component *comp, struct arena *a, const char **ret_err)
{
        const char *prefix = component_kind_of(comp) == KIND_LOCK ? component_metadata(component_spec_of(comp), "keyPrefix") : NULL;

        if (!prefix || state_key_is_legal(str_of(prefix)))
                return 0;
        *ret_err = lower_case(a, prefix);
        *ret_err = *ret_err ? arena_printf(a, "failed to save lock keyprefix: " ILLEGAL, *ret_err) : "out of memory";
        return -1;
}

static const struct http_route http_routes[] = {
        {"POST", "/v1.0-alpha1/lock/{storeName}", "lock", "v1alpha1", "TryLock", http_try_lock},
        {"POST", "/v1.0-alpha1/unlock/{storeName}", "unlock", "v1alpha1", "Unlock", http_unlock},
};
static const struct grpc_route grpc_routes[] = {
        {"TryLockAlpha1", "lock.v1alpha1", &dapr__proto__runtime__v1__try_lock_request__descriptor,
         &dapr__proto__runtime__v1__try_lock_response__descriptor, try_lock, NULL},
        {"UnlockAlpha1", "unlock.v1alpha1", &dapr__proto__runtime__v1__unlock_request__descriptor,
         &dapr__proto__runtime__v1__unlock_response__descriptor, unlock, NULL},
};
const struct block lock_block_def = {
        .name = "lock",
        .http = http_routes,
        .n_http = sizeof http_routes / sizeof *http_routes,
        .grpc = grpc_routes,
        .n_grpc = sizeof grpc_routes / sizeof *grpc_routes,
        .component = on_component,
};
