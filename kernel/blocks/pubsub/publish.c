/*
 * Publishing: checks of names and scopes, the call under the broker's outbound policy, and what both doors share. A message's bytes
 * are copied once, into the request to the broker.
 */
#include <errno.h>

#include "dapr/proto/components/v1/pubsub.pb-c.h"
#include "kernel/observe/trace.h"
#include "kernel/blocks/pubsub/pubsub.h"
#include "kernel/front/errors.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/log.h"
#include "sdk/base/wire.h"

#define SERVICE "/dapr.proto.components.v1.PubSub/"
#define NO_MEMORY "the request needs more memory than one request may take"

typedef Dapr__Proto__Components__V1__BulkMessageEntry entry_msg;
typedef Dapr__Proto__Components__V1__BulkMessageEntry__MetadataEntry entry_md;
typedef Dapr__Proto__Components__V1__BulkPublishRequest__MetadataEntry request_md;
typedef Dapr__Proto__Components__V1__BulkPublishResponse bulk_response;

static const struct rpc_mdlist no_metadata;

/* ---- one ---- */

static size_t md_size(const struct rpc_md *m)
{
        return wire_bytes_size(m->key.n) + wire_bytes_size(m->value.n);
}

static struct str pack(struct arena *a, const struct publish *p, struct str topic)
{
        const struct rpc_mdlist *md = p->md ? p->md : &no_metadata;
        size_t n = wire_bytes_size(p->data.n) + wire_bytes_size(p->pubsub.n) + wire_bytes_size(topic.n);
        uint8_t *out, *at;

        for (size_t i = 0; i < md->n; i++)
                n += wire_bytes_size(md_size(&md->v[i]));
        if (p->content_type.n)
                n += wire_bytes_size(p->content_type.n);
        at = out = arena_alloc(a, n);
        if (!out)
                return STR_NULL;
        at = wire_put_bytes(at, 1, p->data.p, p->data.n);
        at = wire_put_bytes(at, 2, p->pubsub.p, p->pubsub.n);
        at = wire_put_bytes(at, 3, topic.p, topic.n);
        for (size_t i = 0; i < md->n; i++) {
                at = wire_put_head(at, 4, md_size(&md->v[i]));
                at = wire_put_bytes(at, 1, md->v[i].key.p, md->v[i].key.n);
                at = wire_put_bytes(at, 2, md->v[i].value.p, md->v[i].value.n);
        }
        if (p->content_type.n)
                at = wire_put_bytes(at, 5, p->content_type.p, p->content_type.n);
        return str_n(out, (size_t)(at - out));
}

struct sending {
        struct arena *a;
        struct broker *broker;
        struct component *component;
        struct str request;
        const char *err;
};

static int send_once(void *arg, struct policy_try *t)
{
        struct sending *s = arg;
        struct rpc_status st = {0};
        struct str resp;

        if (component_call_bytes(s->component, s->a, SERVICE "Publish", s->request, &resp, &st) == 0)
                return 0;
        s->err = broker_error(s->a, s->broker, &st);
        return -1;
}

/* The broker, if the app may publish to the topic. */
static enum publish_result find(struct kernel *k, struct arena *a, const struct publish *p, struct broker **ret, const char **ret_err)
{
        struct broker *b = pubsub_broker(k, p->pubsub);

        if (!b) {
                *ret_err = arena_printf(a, "pubsub '%.*s' not found", STR_FMT(p->pubsub));
                return PUBLISH_NOT_FOUND;
        }
        if (!broker_allows(b, p->topic, &b->publishing)) {
                *ret_err = arena_printf(a, "topic %.*s is not allowed for app id %s", STR_FMT(p->topic), k->opts.app_id);
                return PUBLISH_FORBIDDEN;
        }
        *ret = b;
        return PUBLISHED;
}

static enum publish_result run(struct kernel *k, struct sending *s, struct str request, const char **ret_err)
{
        struct policy policy = {0};
        int r;

        s->request = request;
        if (!request.p) {
                *ret_err = NO_MEMORY;
                return PUBLISH_FAILED;
        }
        resiliency_component(k, str_of(s->broker->name), KIND_PUBSUB, POLICY_OUTBOUND, &policy);
        r = (int)policy_run(&policy, send_once, s);
        if (r == POLICY_OK)
                return PUBLISHED;
        *ret_err = r == POLICY_FAILED ? s->err : policy_result_text((enum policy_result)r);
        return PUBLISH_FAILED;
}

enum publish_result pubsub_publish(struct kernel *k, struct arena *a, const struct publish *p, const char **ret_err)
{
        struct broker *b;
        enum publish_result r = find(k, a, p, &b, ret_err);
        struct str topic;

        if (r != PUBLISHED)
                return r;
        topic = broker_topic(a, k, b, p->topic);
        struct sending s = {.a = a, .broker = b, .component = b->component};
        return run(k, &s, topic.p ? pack(a, p, topic) : STR_NULL, ret_err);
}

/* ---- many ---- */

struct bulk {
        struct kernel *k;
        struct arena *a;
        struct broker *broker;
        struct component *component;
        const struct publish *p;
        struct str topic;
        struct bulk_entry *e;
        size_t n, next;
        const char *err;             /* of the whole, or the first of an entry */
};

/* Puts p's pairs as entries of a map field; the types have one layout. */
static int put_metadata(struct arena *a, const struct rpc_mdlist *md, void (*init)(request_md *), request_md ***ret, size_t *ret_n)
{
        request_md **v = arena_alloc(a, (md->n + 1) * sizeof *v);

        for (size_t i = 0; v && i < md->n; i++) {
                v[i] = arena_alloc(a, sizeof **v);
                if (!v[i])
                        return -ENOMEM;
                init(v[i]);
                v[i]->key = arena_strdup(a, md->v[i].key);
                v[i]->value = arena_strdup(a, md->v[i].value);
                if (!v[i]->key || !v[i]->value)
                        return -ENOMEM;
        }
        *ret = v;
        *ret_n = v ? md->n : 0;
        return v ? 0 : -ENOMEM;
}
_Static_assert(sizeof(entry_md) == sizeof(request_md), "layout of map entries");

static entry_msg *entry_message(struct arena *a, const struct bulk_entry *e)
{
        entry_msg *m = arena_alloc(a, sizeof *m);
        request_md **md;
        size_t n;

        if (!m)
                return NULL;
        dapr__proto__components__v1__bulk_message_entry__init(m);
        m->entry_id = arena_strdup(a, e->id);
        m->event = pb_bytes(e->event);
        m->content_type = arena_strdup(a, e->content_type);
        if (!m->entry_id || !m->content_type ||
            put_metadata(a, &e->md, (void (*)(request_md *))dapr__proto__components__v1__bulk_message_entry__metadata_entry__init, &md, &n))
                return NULL;
        m->metadata = (entry_md **)md;
        m->n_metadata = n;
        return m;
}

/* The entries that have not been published yet, as one request. */
static struct str pack_bulk(struct bulk *b)
{
        Dapr__Proto__Components__V1__BulkPublishRequest m = DAPR__PROTO__COMPONENTS__V1__BULK_PUBLISH_REQUEST__INIT;
        request_md **md;
        size_t n;

        m.topic = arena_strdup(b->a, b->topic);
        m.pubsub_name = arena_strdup(b->a, b->p->pubsub);
        m.entries = arena_alloc(b->a, (b->n + 1) * sizeof *m.entries);
        if (!m.topic || !m.pubsub_name || !m.entries ||
            put_metadata(b->a, b->p->md ? b->p->md : &no_metadata, dapr__proto__components__v1__bulk_publish_request__metadata_entry__init,
                         &md, &n))
                return STR_NULL;
        m.metadata = md;
        m.n_metadata = n;
        for (size_t i = 0; i < b->n; i++)
                if (b->e[i].error && !(m.entries[m.n_entries++] = entry_message(b->a, &b->e[i])))
                        return STR_NULL;
        return pb_pack(b->a, &m.base);
}

static bool take_failures(struct bulk *b, const bulk_response *resp)
{
        for (size_t i = 0; i < b->n; i++)
                b->e[i].error = NULL;
        for (size_t i = 0; i < resp->n_failed_entries; i++)
                for (size_t j = 0; j < b->n; j++)
                        if (str_eqz(b->e[j].id, resp->failed_entries[i]->entry_id)) {
                                const char *why = resp->failed_entries[i]->error;
                                b->e[j].error = *why ? why : "the message was not published";
                                if (!b->broker->foreign && i == 0) /* as when they are sent one by one */
                                        b->err = b->e[j].error;
                        }
        return resp->n_failed_entries > 0;
}

static int send_native(void *arg, struct policy_try *t)
{
        struct bulk *b = arg;
        struct str req = pack_bulk(b), bytes;
        struct rpc_status st = {0};
        bulk_response *resp;

        if (!req.p) {
                b->err = NO_MEMORY;
                t->permanent = true;
                return -1;
        }
        if (component_call_bytes(b->component, b->a, SERVICE "BulkPublish", req, &bytes, &st)) {
                b->err = broker_error(b->a, b->broker, &st);
                return -1;
        }
        resp = pb_unpack(b->a, &dapr__proto__components__v1__bulk_publish_response__descriptor, bytes);
        if (!resp) {
                b->err = "the broker's reply is not a valid message";
                return -1;
        }
        b->err = "bulk publish failed";
        return take_failures(b, resp) ? -1 : 0;
}

static void singles_fiber(void *arg)
{
        struct bulk *b = arg;

        while (b->next < b->n) {
                struct bulk_entry *e = &b->e[b->next++];
                struct publish p = {.pubsub = b->p->pubsub, .data = e->event, .content_type = e->content_type, .md = &e->md};
                struct sending s = {.a = b->a, .broker = b->broker, .component = b->component, .request = STR_NULL};
                struct policy_try t = {.attempt = 1};
                if (!e->error)
                        continue;
                s.request = pack(b->a, &p, b->topic);
                if (!s.request.p)
                        e->error = NO_MEMORY;
                else
                        e->error = send_once(&s, &t) ? s.err : NULL;
                if (e->error && !b->err)
                        b->err = e->error;
        }
}

static int send_singles(void *arg, struct policy_try *t)
{
        struct bulk *b = arg;
        struct scope scope = SCOPE_INIT(scope);

        b->next = 0;
        b->err = NULL;
        for (size_t i = 1; i < b->n && i < PUBSUB_BULK_PUBLISH_AT_ONCE; i++)
                if (fiber_go(&scope, "bulk-publish", singles_fiber, b))
                        break;
        singles_fiber(b);
        scope_join(&scope);
        return b->err ? -1 : 0;
}

enum publish_result pubsub_publish_bulk(struct kernel *k, struct arena *a, const struct publish *p, struct bulk_entry *e, size_t n,
                                        const char **ret_err)
{
        struct bulk b = {.k = k, .a = a, .p = p, .e = e, .n = n};
        enum publish_result r = find(k, a, p, &b.broker, ret_err);
        struct policy policy = {0};
        bool native;
        int done;

        if (r != PUBLISHED)
                return r;
        b.component = b.broker->component;
        b.topic = broker_topic(a, k, b.broker, p->topic);
        for (size_t i = 0; i < n; i++)
                e[i].error = "not sent";
        /* every plugin of ours takes many messages in one call, whatever its broker has; the feature is what the reference's tells */
        native = !b.broker->foreign || (component_features(b.component) & FEATURE_BULK_PUBLISH);
        if (!native)
                log_debug("dapr.runtime.pubsub.publisher",
                          "pubsub %s does not implement the BulkPublish API; falling back to publishing messages individually", b.broker->name);
        resiliency_component(k, str_of(b.broker->name), KIND_PUBSUB, POLICY_OUTBOUND, &policy);
        done = (int)policy_run(&policy, native ? send_native : send_singles, &b);
        if (done == POLICY_OK)
                return PUBLISHED;
        *ret_err = done == POLICY_FAILED ? b.err : policy_result_text((enum policy_result)done);
        for (size_t i = 0; i < n; i++)
                if (e[i].error && (done != POLICY_FAILED || strcmp(e[i].error, "not sent") == 0))
                        e[i].error = *ret_err;
        return PUBLISH_FAILED;
}

/* ---- what the doors share ---- */

static void resource(struct call *c, struct str pubsub)
{
        struct error_details *d = call_details(c);
        const char *name = arena_strdup(c->arena, pubsub);

        d->resource_type = "pubsub";
        d->resource_name = name ? name : "";
        d->resource_owner = "";
        d->resource_description = c->message.p;
}

static void info_metadata(struct call *c, const struct rpc_mdlist *md)
{
        struct error_details *d = call_details(c);

        for (size_t i = 0; md && i < md->n; i++) {
                const char *key = arena_strdup(c->arena, md->v[i].key), *value = arena_strdup(c->arena, md->v[i].value);
                if (key && value)
                        details_info(d, key, value);
        }
        d->info_object = md != NULL && c->door == DOOR_HTTP;
}

int publish_check(struct call *c, struct str pubsub, const struct rpc_mdlist *md, struct broker **ret)
{
        if (!pubsub.n) {
                call_fail(c, ERR_PUBSUB_EMPTY);
                resource(c, pubsub);
                info_metadata(c, md);
                return -1;
        }
        *ret = pubsub_broker(c->k, pubsub);
        if (*ret)
                return 0;
        call_fail(c, ERR_PUBSUB_NOT_FOUND, arena_strdup(c->arena, pubsub));
        info_metadata(c, c->door == DOOR_HTTP ? md : NULL);
        return -1;
}

int publish_fail_metadata(struct call *c, struct str pubsub, const struct rpc_mdlist *md, const char *err)
{
        call_fail(c, ERR_PUBSUB_REQUEST_METADATA, err);
        resource(c, pubsub);
        info_metadata(c, md);
        return -1;
}

int publish_fail_event(struct call *c, struct str pubsub, const char *err)
{
        call_fail(c, ERR_PUBSUB_CLOUD_EVENTS_SER);
        resource(c, pubsub);
        details_info(call_details(c), "appID", c->k->opts.app_id);
        details_info(call_details(c), "error", err);
        return -1;
}

int publish_fail_entries(struct call *c, enum error_id id, struct str pubsub, struct str topic, const char *err, bool with_error)
{
        call_fail(c, id, arena_strdup(c->arena, topic), arena_strdup(c->arena, pubsub), err);
        resource(c, pubsub);
        details_info(call_details(c), "appID", c->k->opts.app_id);
        if (with_error)
                details_info(call_details(c), "error", err);
        return -1;
}

int publish_fail(struct call *c, enum publish_result r, struct str pubsub, struct str topic, const char *err)
{
        const char *t = arena_strdup(c->arena, topic), *p = arena_strdup(c->arena, pubsub);

        if (!t || !p)
                return call_fail(c, ERR_UNTYPED, NO_MEMORY);
        if (r == PUBLISH_FORBIDDEN)
                call_fail(c, ERR_PUBSUB_FORBIDDEN, t, c->k->opts.app_id);
        else if (r == PUBLISH_NOT_FOUND)
                call_fail(c, ERR_PUBSUB_GONE, p);
        else
                call_fail(c, ERR_PUBSUB_PUBLISH_MESSAGE, t, p, err);
        resource(c, pubsub);
        details_info(call_details(c), "error", err);
        details_info(call_details(c), "topic", t);
        return -1;
}

struct str publish_parent(const struct trace *t)
{
        return t && t->has_ctx && span_context_is_valid(&t->ctx) ? t->value[TRACE_PARENT] : STR("");
}

static int envelope(struct call *c, const struct trace *t, const struct broker *b, struct buf *out, struct event_new *n,
                    const struct rpc_mdlist *md, const char **ret_err)
{
        n->source = str_of(c->k->opts.app_id);
        n->pubsub = str_of(b->name);
        n->traceid = publish_parent(t);
        n->tracestate = n->traceid.n ? trace_value(t, TRACE_STATE) : STR_NULL;
        if (!content_is_event(n->content_type))
                event_override(n, md);
        n->has_ttl = !(component_features(b->component) & FEATURE_MESSAGE_TTL) && event_ttl(md, &n->ttl_ns);
        *ret_err = "out of memory";
        return event_write(out, c->arena, n, ret_err);
}

int publish_envelope(struct call *c, const struct broker *b, struct buf *out, struct str topic, struct str data, struct str content_type,
                     const struct rpc_mdlist *md, const char **ret_err)
{
        struct event_new n = {.topic = topic, .content_type = content_type, .data = data};

        return envelope(c, c->trace, b, out, &n, md, ret_err);
}

int publish_entry(struct call *c, const struct broker *b, struct str topic, struct bulk_entry *e, const char **ret_err)
{
        struct event_new n = {.topic = topic, .content_type = e->content_type, .data = e->event};
        struct buf event = {0};
        int r;

        if (tracer_is_active(c->k->tracer) && (e->trace = arena_alloc(c->arena, sizeof *e->trace)))
                trace_begin_child(e->trace, c->k->tracer, c->trace, SPAN_PRODUCER, c->http ? c->http->path : c->rpc->method);
        r = envelope(c, e->trace ? e->trace : c->trace, b, &event, &n, &e->md, ret_err);
        if (r == 0 && !(e->event = arena_str(c->arena, buf_str(&event))).p) {
                *ret_err = "out of memory";
                r = -ENOMEM;
        }
        buf_fini(&event);
        return r;
}

void publish_entries_end(struct call *c, struct bulk_entry *e, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                if (!e[i].trace)
                        continue;
                if (c->http)
                        trace_status_http(e[i].trace, c->http->status);
                else if (c->failed)
                        trace_status_grpc(e[i].trace, c->grpc_code, c->message);
                trace_end(e[i].trace);
        }
}
