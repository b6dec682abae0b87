/* Locks: microdapr.plugin.v1.Lock from one ops table. Jobs as in state.c. */
#include <errno.h>

#include "plugin/v1/lock.pb-c.h"
#include "sdk/plugin/runtime.h"
#include "sdk/plugin/state_codec.h"

_Static_assert((int)MICRODAPR__PLUGIN__V1__LOCK_UNLOCK_RESPONSE__STATUS__LOCK_BELONGS_TO_OTHERS == DAPR_LOCK_OF_OTHERS &&
                       (int)MICRODAPR__PLUGIN__V1__LOCK_UNLOCK_RESPONSE__STATUS__INTERNAL_ERROR == DAPR_UNLOCK_FAILED,
               "numbers of the outcomes");

struct job {
        struct dapr_call *dc;
        const struct dapr_lock_ops *ops;
        struct dapr_lock in;
        bool taken;
        enum dapr_unlock outcome;
};

static int job_try(void *arg)
{
        struct job *j = arg;
        return j->ops->try_lock(j->dc, j->dc->inst->obj, &j->in, &j->taken);
}

static int job_unlock(void *arg)
{
        struct job *j = arg;
        return j->ops->unlock(j->dc, j->dc->inst->obj, &j->in, &j->outcome);
}

static int lock_try(struct dapr_call *dc, struct str req)
{
        Microdapr__Plugin__V1__LockTryResponse out = MICRODAPR__PLUGIN__V1__LOCK_TRY_RESPONSE__INIT;
        struct job j = {.dc = dc, .ops = dc->inst->type->lock};
        const Microdapr__Plugin__V1__LockTryRequest *in =
                pb_unpack(dc->arena, &microdapr__plugin__v1__lock_try_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        j.in = (struct dapr_lock){in->resource, in->owner, in->expiry_s};
        int r = sdk_run(dc, j.ops->mode, job_try, &j);
        out.success = j.taken;
        return r ? sdk_outcome(dc, r) : sdk_reply_pb(dc, &out.base);
}

static int lock_unlock(struct dapr_call *dc, struct str req)
{
        Microdapr__Plugin__V1__LockUnlockResponse out = MICRODAPR__PLUGIN__V1__LOCK_UNLOCK_RESPONSE__INIT;
        struct job j = {.dc = dc, .ops = dc->inst->type->lock};
        const Microdapr__Plugin__V1__LockUnlockRequest *in =
                pb_unpack(dc->arena, &microdapr__plugin__v1__lock_unlock_request__descriptor, req);
        if (!in)
                return sdk_bad_request(dc);
        j.in = (struct dapr_lock){.resource = in->resource, .owner = in->owner};
        int r = sdk_run(dc, j.ops->mode, job_unlock, &j);
        out.status = (int)j.outcome;
        return r ? sdk_outcome(dc, r) : sdk_reply_pb(dc, &out.base);
}

/* ---- the component ---- */

static int lock_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* LockInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_LOCK, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int lock_features(struct dapr_call *dc, struct str req)
{
        return sdk_reply(dc, STR("")); /* none are defined */
}

static int lock_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define LOCK "/microdapr.plugin.v1.Lock/"
static const struct sdk_method methods[] = {
        {LOCK "Init", SDK_LOCK, lock_init, .any_instance = true},
        {LOCK "Features", SDK_LOCK, lock_features, true, .any_instance = true},
        {LOCK "Ping", SDK_LOCK, lock_ping, true, .any_instance = true},
        {LOCK "TryLock", SDK_LOCK, lock_try},
        {LOCK "Unlock", SDK_LOCK, lock_unlock},
};
const struct sdk_service sdk_lock_service = {methods, sizeof methods / sizeof *methods};
