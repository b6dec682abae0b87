/*
 * Brokers: dapr.proto.components.v1.PubSub from one ops table. Subscriptions are in pubsub_pull.c. Jobs as in state.c.
 * Publish is a hot path: its request is read by hand (field numbers: proto/dapr/proto/components/v1/pubsub.proto).
 */
#include "sdk/plugin/pubsub.h"

#include <errno.h>

#include "dapr/proto/components/v1/pubsub.pb-c.h"
#include "sdk/base/fiber.h"
#include "sdk/base/wire.h"
#include "sdk/plugin/state_codec.h"

typedef Dapr__Proto__Components__V1__BulkPublishResponseFailedEntry failed_entry;

struct job {
        struct dapr_call *dc;
        const struct dapr_pubsub_ops *ops;
        struct dapr_publish one;
        struct dapr_bulk_publish many;
        struct dapr_bulk_result *results;
        size_t next;               /* the first entry that nobody has begun */
        double deadline;           /* of the request */
};

static int text(struct dapr_call *dc, struct str s, const char **ret)
{
        *ret = arena_strdup(dc->arena, s);
        return *ret ? 0 : -ENOMEM;
}

/* ---- one message ---- */

static int job_publish(void *arg)
{
        struct job *j = arg;
        return j->ops->publish(j->dc, j->dc->inst->obj, &j->one);
}

/* PublishRequest { data = 1, pubsub_name = 2, topic = 3, metadata = 4, content_type = 5 } */
static int read_publish(struct dapr_call *dc, struct str req, struct dapr_publish *ret)
{
        struct wire w = wire_of(req);
        struct wire_field f;
        int r = 0;
        *ret = (struct dapr_publish){.topic = "", .data = {"", 0}, .content_type = ""};
        bool metadata = false;
        while (r == 0 && wire_next(&w, &f)) {
                if (!f.bytes.p)
                        continue;
                if (f.number == 1)
                        ret->data = (struct dapr_bytes){f.bytes.p, f.bytes.n};
                else if (f.number == 3)
                        r = text(dc, f.bytes, &ret->topic);
                else if (f.number == 4)
                        metadata = true;
                else if (f.number == 5)
                        r = text(dc, f.bytes, &ret->content_type);
        }
        if (r == 0 && w.bad)
                r = -EBADMSG;
        return r || !metadata ? r : state_read_map(dc, req, 4, &ret->metadata);
}

static int pubsub_publish(struct dapr_call *dc, struct str req)
{
        struct job j = {.dc = dc, .ops = dc->inst->type->pubsub};
        int r = read_publish(dc, req, &j.one);
        if (r == 0)
                r = sdk_run(dc, j.ops->mode, job_publish, &j);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

/* ---- many ---- */

/* Publishes the entries that nobody has begun. An entry's failure is read before anything parks: the call has one message for all. */
static void publish_rest(struct job *j)
{
        while (j->next < j->many.n) {
                size_t i = j->next++;
                const struct dapr_bulk_entry *e = &j->many.entries[i];
                struct dapr_publish one = {j->many.topic, e->data, e->content_type, e->metadata};
                j->results[i].code = j->ops->publish(j->dc, j->dc->inst->obj, &one);
                if (j->results[i].code)
                        j->results[i].message = sdk_text(j->dc, j->results[i].code);
                j->dc->message = NULL;
        }
}

static void bulk_fiber(void *arg)
{
        struct job *j = arg;
        fiber_set_deadline(j->deadline);
        publish_rest(j);
}

static int publish_at_once(struct job *j)
{
        struct scope scope;
        size_t fibers = j->ops->bulk_at_once < DAPR_BULK_AT_ONCE_MAX ? j->ops->bulk_at_once : DAPR_BULK_AT_ONCE_MAX;
        int r = 0;
        j->deadline = fiber_deadline();
        scope_init(&scope);
        for (size_t i = 0; i < j->many.n && i < fibers && r == 0; i++)
                r = fiber_go(&scope, "bulk", bulk_fiber, j);
        scope_join(&scope);
        return j->next < j->many.n ? r ? r : -ECANCELED : 0;
}

static int job_bulk_publish(void *arg)
{
        struct job *j = arg;
        if (j->ops->bulk_publish)
                return j->ops->bulk_publish(j->dc, j->dc->inst->obj, &j->many, j->results);
        if (j->ops->mode == DAPR_FIBER && j->ops->bulk_at_once > 1)
                return publish_at_once(j);
        publish_rest(j);
        return 0;
}

/* BulkMessageEntry { entry_id = 1, event = 2, content_type = 3, metadata = 4 } */
static int read_entry(struct dapr_call *dc, struct str msg, struct dapr_bulk_entry *ret)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        int r = 0;
        *ret = (struct dapr_bulk_entry){.id = "", .data = {"", 0}, .content_type = ""};
        while (r == 0 && wire_next(&w, &f)) {
                if (f.number == 1 && f.bytes.p)
                        r = text(dc, f.bytes, &ret->id);
                else if (f.number == 2 && f.bytes.p)
                        ret->data = (struct dapr_bytes){f.bytes.p, f.bytes.n};
                else if (f.number == 3 && f.bytes.p)
                        r = text(dc, f.bytes, &ret->content_type);
        }
        if (r == 0 && w.bad)
                r = -EBADMSG;
        return r ? r : state_read_map(dc, msg, 4, &ret->metadata);
}

/* BulkPublishRequest { entries = 1, pubsub_name = 2, topic = 3, metadata = 4 } */
static int read_bulk(struct dapr_call *dc, struct str req, struct job *j)
{
        struct str *parts, *topic;
        size_t n, n_topic;
        int r = state_read_repeated(dc, req, 1, &parts, &n);
        if (r == 0)
                r = state_read_repeated(dc, req, 3, &topic, &n_topic);
        if (r == 0)
                r = state_read_map(dc, req, 4, &j->many.metadata);
        if (r == 0)
                r = text(dc, n_topic ? topic[n_topic - 1] : STR(""), &j->many.topic);
        if (r)
                return r;
        struct dapr_bulk_entry *entries = arena_alloc(dc->arena, n * sizeof *entries);
        j->results = arena_zalloc(dc->arena, n * sizeof *j->results);
        if (!entries || !j->results)
                return -ENOMEM;
        for (size_t i = 0; r == 0 && i < n; i++)
                r = read_entry(dc, parts[i], &entries[i]);
        j->many.entries = entries;
        j->many.n = n;
        return r;
}

static int pubsub_bulk_publish(struct dapr_call *dc, struct str req)
{
        struct job j = {.dc = dc, .ops = dc->inst->type->pubsub};
        Dapr__Proto__Components__V1__BulkPublishResponse out = DAPR__PROTO__COMPONENTS__V1__BULK_PUBLISH_RESPONSE__INIT;
        int r = read_bulk(dc, req, &j);
        if (r == 0)
                r = sdk_run(dc, j.ops->mode, job_bulk_publish, &j);
        if (r)
                return sdk_outcome(dc, r);
        out.failed_entries = arena_alloc(dc->arena, j.many.n * sizeof *out.failed_entries);
        for (size_t i = 0; out.failed_entries && i < j.many.n; i++) {
                if (j.results[i].code == 0)
                        continue;
                failed_entry *e = arena_new(dc->arena, failed_entry);
                if (!e)
                        return sdk_outcome(dc, -ENOMEM);
                dapr__proto__components__v1__bulk_publish_response_failed_entry__init(e);
                e->entry_id = j.many.entries[i].id;
                e->error = j.results[i].message ? j.results[i].message : "failed";
                out.failed_entries[out.n_failed_entries++] = e;
        }
        return out.failed_entries ? sdk_reply_pb(dc, &out.base) : sdk_outcome(dc, -ENOMEM);
}

/* ---- the rest ---- */

static int pubsub_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* PubSubInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_PUBSUB, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int pubsub_features(struct dapr_call *dc, struct str req)
{
        Dapr__Proto__Components__V1__FeaturesResponse out = DAPR__PROTO__COMPONENTS__V1__FEATURES_RESPONSE__INIT;
        unsigned have = sdk_call_features(dc, SDK_PUBSUB);
        const char *names[8];
        out.features = names;
        for (unsigned bit = 1; bit && bit <= have && out.n_features < sizeof names / sizeof *names; bit <<= 1)
                if ((have & bit) && sdk_feature_name(bit))
                        names[out.n_features++] = sdk_feature_name(bit);
        return sdk_reply_pb(dc, &out.base);
}

static int pubsub_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int pubsub_pause(struct dapr_call *dc, struct str req)
{
        sdk_pubsub_pause(dc->inst, true);
        return sdk_reply(dc, STR(""));
}

static int pubsub_resume(struct dapr_call *dc, struct str req)
{
        sdk_pubsub_pause(dc->inst, false);
        return sdk_reply(dc, STR(""));
}

#define PUBSUB "/dapr.proto.components.v1.PubSub/"
static const struct sdk_method methods[] = {
        {PUBSUB "Init", SDK_PUBSUB, pubsub_init, .any_instance = true},
        {PUBSUB "Features", SDK_PUBSUB, pubsub_features, true, .any_instance = true},
        {PUBSUB "Ping", SDK_PUBSUB, pubsub_ping, true, .any_instance = true},
        /* At least once holds for publishers too: after a crash the runtime sends again what was not answered. */
        {PUBSUB "Publish", SDK_PUBSUB, pubsub_publish, true},
        {PUBSUB "BulkPublish", SDK_PUBSUB, pubsub_bulk_publish, true},
        {PUBSUB "PullMessages", SDK_PUBSUB, sdk_pubsub_pull, .stream = true},
        {PUBSUB "Pause", SDK_PUBSUB, pubsub_pause, true, DAPR_FEATURE_PAUSE},
        {PUBSUB "Resume", SDK_PUBSUB, pubsub_resume, true, DAPR_FEATURE_PAUSE},
};
const struct sdk_service sdk_pubsub_service = {methods, sizeof methods / sizeof *methods};
