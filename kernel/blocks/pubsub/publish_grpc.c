/* The gRPC door of publishing: PublishEvent, BulkPublishEvent. */
#include <errno.h>

#include "dapr/proto/runtime/v1/pubsub.pb-c.h"
#include "kernel/observe/trace.h"
#include "kernel/blocks/pubsub/pubsub.h"
#include "kernel/front/errors.h"

#define NO_MEMORY "the request needs more memory than one request may take"

typedef Dapr__Proto__Runtime__V1__BulkPublishResponse bulk_response;
typedef Dapr__Proto__Runtime__V1__BulkPublishResponseFailedEntry failed_entry;

struct entry { /* map entries are different types with one layout */
        ProtobufCMessage base;
        const char *key, *value;
};
_Static_assert(sizeof(struct entry) == sizeof(Dapr__Proto__Runtime__V1__PublishEventRequest__MetadataEntry), "layout of map entries");

static int read_map(struct call *c, void *const *entries, size_t n, struct rpc_mdlist *ret)
{
        for (size_t i = 0; i < n; i++) {
                const struct entry *e = entries[i];
                if (rpc_md_add(ret, c->arena, str_of(e->key), str_of(e->value)))
                        return call_fail(c, ERR_UNTYPED, NO_MEMORY);
        }
        return 0;
}

static int check(struct call *c, struct str pubsub, struct str topic, const struct rpc_mdlist *md, struct broker **ret, bool *raw)
{
        const char *err;

        if (publish_check(c, pubsub, md, ret))
                return -1;
        if (!topic.n) {
                call_fail(c, ERR_TOPIC_NAME_EMPTY, (*ret)->name);
                struct error_details *d = call_details(c);
                d->resource_type = "pubsub";
                d->resource_name = (*ret)->name;
                d->resource_owner = "";
                d->resource_description = c->message.p;
                for (size_t i = 0; i < md->n; i++)
                        details_info(d, md->v[i].key.p, md->v[i].value.p);
                return -1;
        }
        return event_is_raw(md, c->arena, raw, &err) ? publish_fail_metadata(c, pubsub, md, err) : 0;
}

int publish_grpc(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        const Dapr__Proto__Runtime__V1__PublishEventRequest *req = (const void *)in;
        struct str pubsub = str_of(req->pubsub_name), topic = str_of(req->topic), data = pb_str(req->data);
        struct rpc_mdlist md = {0};
        struct buf event = {0};
        struct broker *b;
        const char *err = NULL;
        bool raw;
        double since;
        enum publish_result done;

        if (read_map(c, (void *const *)req->metadata, req->n_metadata, &md) || check(c, pubsub, topic, &md, &b, &raw))
                return -1;
        if (raw) {
                struct str parent = publish_parent(c->trace), state = parent.n ? trace_value(c->trace, TRACE_STATE) : STR_NULL;
                rpc_md_add(&md, c->arena, STR("traceid"), parent);
                rpc_md_add(&md, c->arena, STR("tracestate"), state.p ? state : STR(""));
        } else {
                if (publish_envelope(c, b, &event, topic, data, str_of(req->data_content_type), &md, &err)) {
                        buf_fini(&event);
                        return publish_fail_event(c, pubsub, err);
                }
                data = buf_str(&event);
        }
        since = pubsub_now_ms();
        done = pubsub_publish(c->k, c->arena, &(struct publish){.pubsub = pubsub, .topic = topic, .data = data, .md = &md}, &err);
        pubsub_observe_egress(c->k->pubsub->metrics, pubsub, topic, done == PUBLISHED, pubsub_now_ms() - since);
        buf_fini(&event);
        return done == PUBLISHED ? 0 : publish_fail(c, done, pubsub, topic, err);
}

/* One entry of a request, with its event. */
static int read_one(struct call *c, const Dapr__Proto__Runtime__V1__BulkPublishRequestEntry *in, const struct rpc_mdlist *md,
                    const struct broker *b, struct str topic, bool raw, struct bulk_entry *e)
{
        const char *err;

        *e = (struct bulk_entry){.id = str_of(in->entry_id), .event = pb_str(in->event), .content_type = str_of(in->content_type)};
        if (read_map(c, (void *const *)in->metadata, in->n_metadata, &e->md))
                return -1;
        for (size_t i = 0; e->md.n && i < md->n; i++)
                if (!rpc_md_get(&e->md, md->v[i].key.p).p && rpc_md_add(&e->md, c->arena, md->v[i].key, md->v[i].value))
                        return call_fail(c, ERR_UNTYPED, NO_MEMORY);
        if (raw)
                return 0;
        return publish_entry(c, b, topic, e, &err) ? publish_fail_event(c, str_of(b->name), err) : 0;
}

static int read_entries(struct call *c, const Dapr__Proto__Runtime__V1__BulkPublishRequest *req, const struct rpc_mdlist *md,
                        const struct broker *b, bool raw, struct bulk_entry *e)
{
        struct map ids = {0};
        int r = 0;

        for (size_t i = 0; r == 0 && i < req->n_entries; i++) {
                struct str id = str_of(req->entries[i]->entry_id);
                if (!id.n || map_get(&ids, id))
                        r = publish_fail_entries(c, ERR_PUBSUB_MARSHAL_EVENTS, str_of(b->name), str_of(req->topic),
                                                 "entryId is duplicated or not present for entry", true);
                else if (map_set(&ids, id, &e[i]))
                        r = call_fail(c, ERR_UNTYPED, NO_MEMORY);
                else
                        r = read_one(c, req->entries[i], md, b, str_of(req->topic), raw, &e[i]);
        }
        map_fini(&ids);
        return r;
}

static int bulk(struct call *c, const Dapr__Proto__Runtime__V1__BulkPublishRequest *req, struct bulk_entry *e)
{
        struct str pubsub = str_of(req->pubsub_name), topic = str_of(req->topic);
        struct rpc_mdlist md = {0};
        struct broker *b;
        const char *err = NULL;
        size_t failed = 0;
        bool raw;
        double since;
        enum publish_result done;

        if (read_map(c, (void *const *)req->metadata, req->n_metadata, &md) || check(c, pubsub, topic, &md, &b, &raw) ||
            read_entries(c, req, &md, b, raw, e))
                return -1;
        since = pubsub_now_ms();
        done = pubsub_publish_bulk(c->k, c->arena, &(struct publish){.pubsub = pubsub, .topic = topic, .md = &md}, e, req->n_entries, &err);
        for (size_t i = 0; i < req->n_entries; i++)
                failed += e[i].error != NULL;
        pubsub_observe_bulk_egress(c->k->pubsub->metrics, pubsub, topic, done == PUBLISHED, req->n_entries - failed, pubsub_now_ms() - since);
        return done == PUBLISHED ? 0 : publish_fail(c, done, pubsub, topic, err);
}

int publish_grpc_bulk(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        const Dapr__Proto__Runtime__V1__BulkPublishRequest *req = (const void *)in;
        struct bulk_entry *e = arena_zalloc(c->arena, (req->n_entries + 1) * sizeof *e);
        int r;

        if (!e)
                return call_fail(c, ERR_UNTYPED, NO_MEMORY);
        r = bulk(c, req, e);
        publish_entries_end(c, e, req->n_entries);
        return r;
}
