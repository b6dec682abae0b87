/* Events to gRPC apps: OnTopicEvent, OnBulkTopicEvent, and the messages that streaming apps get too. */
#include <errno.h>

#include "dapr/proto/runtime/v1/appcallback.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/blocks/state.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/pbjson.h"

#define SCOPE "dapr.runtime.processor.pubsub.subscription.grpc"
#define CALLBACK "/dapr.proto.runtime.v1.AppCallback/"
#define UNEXPECTED "unexpected data type encountered in envelope"

typedef Dapr__Proto__Runtime__V1__TopicEventResponse event_response;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkRequestEntry bulk_entry_msg;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkRequestEntry__MetadataEntry bulk_entry_md;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkRequest__MetadataEntry bulk_md;
typedef Dapr__Proto__Runtime__V1__TopicEventCERequest event_ce;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkResponse bulk_response;

/* ---- the message ---- */

static const char *text(struct arena *a, struct str s)
{
        const char *z = s.n ? arena_strdup(a, s) : "";

        return z ? z : "";
}

/* The event's data as bytes by its content type. 0, or -1 when it is of an unexpected type; *why then says so. */
static int event_data(struct arena *a, const struct event *e, bool with_base64, struct str *ret, const char **why)
{
        struct str raw = e->raw[EVENT_DATA], b64 = e->raw[EVENT_DATA_BASE64], type = event_text(a, e, EVENT_DATACONTENTTYPE);

        *ret = STR("");
        *why = UNEXPECTED;
        if (with_base64 && b64.p && !str_eqz(b64, "null")) {
                struct str t = event_text(a, e, EVENT_DATA_BASE64);
                if (b64.p[0] != '"')
                        return -1;
                *ret = base64_decode(a, t);
                *why = "illegal base64 data";
                return ret->p ? 0 : -1;
        }
        if (!raw.p || str_eqz(raw, "null"))
                return 0;
        if (content_is_text(type)) {
                if (raw.p[0] != '"')
                        return -1;
                *ret = event_text(a, e, EVENT_DATA);
        } else if (content_is_json(type) || content_is_event(type)) {
                *ret = state_json_compact(a, raw);
        }
        *why = "out of memory";
        return ret->p ? 0 : -1;
}

static Google__Protobuf__Struct *extensions(struct arena *a, const struct event *e)
{
        const char *err;
        struct str json = event_extensions(a, e);

        return json.p ? pbjson_read(a, &google__protobuf__struct__descriptor, json, 0, &err) : NULL;
}

topic_event *event_message(const struct outgoing *o, struct delivered *d)
{
        struct arena *a = o->arena;
        topic_event *m = arena_alloc(a, sizeof *m);
        const struct event *e = &o->event;
        struct str data = o->raw_data;
        const char *why = NULL;

        d->err = "out of memory";
        if (!m)
                return NULL;
        dapr__proto__runtime__v1__topic_event_request__init(m);
        if (!data.p && event_data(a, e, true, &data, &why)) {
                d->err = arena_printf(a, "error returned from app while processing pub/sub event: retriable error occurred: %s", why);
                return NULL;
        }
        m->id = text(a, event_text(a, e, EVENT_ID));
        m->source = text(a, event_text(a, e, EVENT_SOURCE));
        m->type = text(a, event_text(a, e, EVENT_TYPE));
        m->spec_version = text(a, event_text(a, e, EVENT_SPECVERSION));
        m->data_content_type = text(a, event_text(a, e, EVENT_DATACONTENTTYPE));
        m->topic = text(a, o->topic);
        m->pubsub_name = o->sub->pubsub;
        m->path = o->path;
        m->data = pb_bytes(data);
        m->extensions = extensions(a, e);
        if (!m->extensions) {
                d->err = "error processing internal cloud event data: unable to unmarshal cloudEvent extensions to proto struct";
                return NULL;
        }
        return m;
}

/* ---- single ---- */

static enum delivery read_status(const struct outgoing *o, int status, double elapsed, struct delivered *d)
{
        const char *id = event_show(o->arena, &o->event, EVENT_ID);

        switch (status) {
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__SUCCESS:
                pubsub_observe_ingress(o->sub->block->metrics, str_of(o->sub->pubsub), "success", NULL, o->topic, elapsed);
                return DELIVERED;
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__DROP:
                pubsub_observe_ingress(o->sub->block->metrics, str_of(o->sub->pubsub), "drop", "success", o->topic, elapsed);
                log_warn(SCOPE, "DROP status returned from app while processing pub/sub event %s", id);
                return DELIVERY_DROPPED;
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__RETRY:
                return delivery_retry(o, d, elapsed, arena_printf(o->arena, "RETRY status returned from app while processing pub/sub event %s: "
                                                                   "retriable error occurred", id));
        default:
                return delivery_retry(o, d, elapsed, arena_printf(o->arena, "unknown status returned from app while processing pub/sub event %s, status: "
                                                                   "%d, err: retriable error occurred", id, status));
        }
}

enum delivery deliver_grpc(const struct outgoing *o, struct delivered *d)
{
        struct arena *a = o->arena;
        struct rpc_status st = {0};
        event_response *resp = NULL;
        size_t n_md;
        struct rpc_md *md = app_metadata(a, o->md, &n_md);
        topic_event *m = event_message(o, d);
        const char *id;
        double since, elapsed;
        int code;

        if (!m || !md)
                return delivery_retry(o, d, 0, d->err);
        since = pubsub_now_ms();
        code = app_grpc(o->sub->block->k->app, a, CALLBACK "OnTopicEvent", &m->base,
                        &dapr__proto__runtime__v1__topic_event_response__descriptor, &resp, md, n_md, &st);
        elapsed = pubsub_now_ms() - since;
        if (!code)
                return read_status(o, (int)resp->status, elapsed, d);
        id = event_show(a, &o->event, EVENT_ID);
        if (code == RPC_UNIMPLEMENTED) {
                log_warn(SCOPE, "non-retriable error returned from app while processing pub/sub event %s: rpc error: code = %s desc = %.*s", id,
                         rpc_code_name(code), STR_FMT(st.message));
                pubsub_observe_ingress(o->sub->block->metrics, str_of(o->sub->pubsub), "drop", NULL, o->topic, elapsed);
                return DELIVERED;
        }
        d->code = code;
        d->lost = code == RPC_UNAVAILABLE;
        return delivery_retry(o, d, elapsed,
                     arena_printf(a, "error returned from app while processing pub/sub event %s: retriable error occurred: rpc error: code = %s "
                                     "desc = %.*s", id, rpc_code_name(code), STR_FMT(st.message)));
}

/* ---- bulk ---- */

static event_ce *ce_message(struct arena *a, const struct event *e, const char **why)
{
        event_ce *m = arena_alloc(a, sizeof *m);
        struct str data;

        *why = "out of memory";
        if (!m)
                return NULL;
        dapr__proto__runtime__v1__topic_event_cerequest__init(m);
        if (event_data(a, e, true, &data, why))
                return NULL;
        m->id = text(a, event_text(a, e, EVENT_ID));
        m->source = text(a, event_text(a, e, EVENT_SOURCE));
        m->type = text(a, event_text(a, e, EVENT_TYPE));
        m->spec_version = text(a, event_text(a, e, EVENT_SPECVERSION));
        m->data_content_type = text(a, event_text(a, e, EVENT_DATACONTENTTYPE));
        m->data = pb_bytes(data);
        m->extensions = extensions(a, e);
        return m->extensions ? m : NULL;
}

static bulk_entry_msg *entry_message(struct bulk_delivery *b, size_t i, const char **why)
{
        struct arena *a = b->arena;
        const struct message *m = b->m[i];
        bulk_entry_msg *x = arena_alloc(a, sizeof *x);

        *why = "out of memory";
        if (!x)
                return NULL;
        dapr__proto__runtime__v1__topic_event_bulk_request_entry__init(x);
        x->entry_id = m->entry_id;
        x->content_type = m->content_type.n ? text(a, m->content_type) : b->events[i].json.p ? "application/cloudevents+json" : "application/octet-stream";
        x->metadata = arena_alloc(a, (m->md.n + 1) * sizeof *x->metadata);
        for (size_t j = 0; x->metadata && j < m->md.n; j++) {
                bulk_entry_md *e = arena_alloc(a, sizeof *e);
                if (!e)
                        return NULL;
                dapr__proto__runtime__v1__topic_event_bulk_request_entry__metadata_entry__init(e);
                e->key = text(a, m->md.v[j].key);
                e->value = text(a, m->md.v[j].value);
                x->metadata[x->n_metadata++] = e;
        }
        if (b->events[i].json.p) {
                x->event_case = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST_ENTRY__EVENT_CLOUD_EVENT;
                x->cloud_event = ce_message(a, &b->events[i], why);
                return x->cloud_event ? x : NULL;
        }
        x->event_case = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST_ENTRY__EVENT_BYTES;
        x->bytes = pb_bytes(m->data);
        return x;
}

static int all_failed(struct bulk_delivery *b, const char *err)
{
        b->counts[1] += (int64_t)b->n;
        b->err = err ? err : "out of memory";
        for (size_t i = 0; i < b->n; i++)
                b->m[i]->error = b->err;
        return -1;
}

static void take_status(struct bulk_delivery *b, const char *id, int status, bool *seen, bool *dropped)
{
        size_t i = 0;

        while (i < b->n && strcmp(id, b->m[i]->entry_id) != 0)
                i++;
        if (i == b->n) {
                log_warn(SCOPE, "Invalid entry id received from app while processing pub/sub event %s", id);
                return;
        }
        seen[i] = true;
        b->m[i]->error = NULL;
        switch (status) {
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__SUCCESS: b->counts[0]++; break;
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__DROP:
                b->counts[2]++;
                dropped[i] = true;
                log_warn(SCOPE, "DROP status returned from app while processing pub/sub event for entry id: %s", id);
                break;
        case DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__RETRY:
                b->counts[1]++;
                b->m[i]->error = arena_printf(b->arena, "RETRY status returned from app while processing pub/sub event for entry id: %s", id);
                break;
        default:
                b->counts[1]++;
                b->m[i]->error = arena_printf(b->arena, "unknown status returned from app while processing pub/sub event  for entry id %s: %d", id,
                                              status);
        }
}

static int read_bulk_answer(struct bulk_delivery *b, const bulk_response *resp, const bool *sent, bool *dropped)
{
        bool *seen = arena_zalloc(b->arena, b->n + 1), failed = false;

        if (!seen)
                return all_failed(b, NULL);
        for (size_t i = 0; i < resp->n_statuses; i++)
                take_status(b, resp->statuses[i]->entry_id, (int)resp->statuses[i]->status, seen, dropped);
        for (size_t i = 0; i < b->n; i++) {
                if (sent[i] && !seen[i]) {
                        b->counts[1]++;
                        b->m[i]->error = arena_printf(b->arena, "Response not received, RETRY required while processing bulk subscribe event for entry id: %s",
                                                      b->m[i]->entry_id);
                }
                failed |= b->m[i]->error != NULL;
        }
        b->err = "Few message(s) have failed during bulk subscribe operation";
        return failed ? -1 : 0;
}

static int bulk_failed(struct bulk_delivery *b, int code, const struct rpc_status *st)
{
        if (code != RPC_UNIMPLEMENTED) {
                b->code = code;
                b->lost = code == RPC_UNAVAILABLE;
                return all_failed(b, arena_printf(b->arena, "error returned from app while processing bulk pub/sub event: rpc error: code = %s desc = %.*s",
                                                  rpc_code_name(code), STR_FMT(st->message)));
        }
        log_warn(SCOPE, "non-retriable error returned from app while processing bulk pub/sub event: rpc error: code = %s desc = %.*s",
                 rpc_code_name(code), STR_FMT(st->message));
        b->counts[2] += (int64_t)b->n;
        for (size_t i = 0; i < b->n; i++)
                b->m[i]->error = NULL;
        return 0;
}

int bulk_grpc(struct bulk_delivery *b, bool *dropped)
{
        Dapr__Proto__Runtime__V1__TopicEventBulkRequest req = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST__INIT;
        bulk_md name = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST__METADATA_ENTRY__INIT, *names[1] = {&name};
        struct rpc_md md = {STR("pubsubname"), str_of(b->sub->pubsub)};
        struct app *app = b->sub->block->k->app;
        const ProtobufCMessageDescriptor *d = &dapr__proto__runtime__v1__topic_event_bulk_response__descriptor;
        struct rpc_status st = {0};
        bulk_response *resp = NULL;
        bool *sent = arena_zalloc(b->arena, b->n + 1);
        char id[UUID_CHARS + 1];
        double since;
        int code;

        req.entries = arena_alloc(b->arena, (b->n + 1) * sizeof *req.entries);
        if (!sent || !req.entries || uuid_random(id))
                return all_failed(b, NULL);
        for (size_t i = 0; i < b->n; i++) {
                const char *why;
                req.entries[req.n_entries] = entry_message(b, i, &why);
                sent[i] = req.entries[req.n_entries] != NULL;
                req.n_entries += sent[i];
                if (!sent[i]) {
                        b->counts[1]++;
                        b->m[i]->error = why;
                }
        }
        name.key = "pubsubName";
        name.value = b->sub->pubsub;
        req.metadata = names;
        req.n_metadata = 1;
        req.id = id;
        req.topic = b->sub->spec->topic;
        req.pubsub_name = b->sub->pubsub;
        req.type = "com.dapr.event.sent.bulk";
        req.path = b->path;
        since = pubsub_now_ms();
        code = app_grpc(app, b->arena, CALLBACK "OnBulkTopicEvent", &req.base, d, &resp, &md, 1, &st);
        if (code == RPC_UNIMPLEMENTED) {
                log_warn(SCOPE, "falling back to OnBulkTopicEventAlpha1 due to unimplemented error: rpc error: code = %s desc = %.*s",
                         rpc_code_name(code), STR_FMT(st.message));
                code = app_grpc(app, b->arena, "/dapr.proto.runtime.v1.AppCallbackAlpha/OnBulkTopicEventAlpha1", &req.base, d, &resp, &md, 1, &st);
        }
        b->elapsed_ms = pubsub_now_ms() - since;
        return code ? bulk_failed(b, code, &st) : read_bulk_answer(b, resp, sent, dropped);
}
