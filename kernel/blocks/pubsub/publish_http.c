/* The HTTP door of publishing: POST, PUT /v1.0/publish/{pubsub}/{topic...} and the bulk form. */
#include <errno.h>

#include "kernel/blocks/pubsub/pubsub.h"
#include "kernel/blocks/state_json.h"
#include "kernel/front/errors.h"
#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.runtime.http"
#define MISMATCH "error: mismatch between contentType and event"
#define ENTRY "bulkPublishMessageEntry"

struct request {
        struct broker *broker;
        struct str pubsub, topic;
        struct rpc_mdlist md;
        bool raw;
};

static void out_of_memory(struct call *c)
{
        call_fail(c, ERR_UNTYPED, "the request needs more memory than one request may take");
        reply_error(c);
}

/* Names and metadata, checked in the reference's order. */
static bool begin(struct call *c, struct request *r)
{
        *r = (struct request){.pubsub = route_param(c, "pubsubname"), .topic = route_param(c, "topic")};
        if (call_query_metadata(c, &r->md)) {
                out_of_memory(c);
                return false;
        }
        if (publish_check(c, r->pubsub, &r->md, &r->broker) == 0)
                return true;
        reply_error(c);
        return false;
}

static bool read_raw_flag(struct call *c, struct request *r)
{
        const char *err;

        if (event_is_raw(&r->md, c->arena, &r->raw, &err) == 0)
                return true;
        publish_fail_metadata(c, r->pubsub, &r->md, err);
        reply_error(c);
        return false;
}

static void publish(struct call *c)
{
        struct request r;
        struct buf event = {0};
        struct str body;
        const char *err = NULL;
        double since;
        enum publish_result done;
        int unread;

        if (!begin(c, &r))
                return;
        unread = http_req_body(c->http, &body);
        if (unread) {
                publish_fail(c, PUBLISH_FAILED, r.pubsub, r.topic, body_error(unread));
                reply_error(c);
                return;
        }
        if (!read_raw_flag(c, &r))
                return;
        if (!r.raw) {
                int x = publish_envelope(c, r.broker, &event, r.topic, body, http_headers_get(&c->http->headers, "Content-Type"), &r.md, &err);
                if (x) {
                        buf_fini(&event);
                        publish_fail_event(c, r.pubsub, err);
                        reply_error(c);
                        return;
                }
                body = buf_str(&event);
        }
        since = pubsub_now_ms();
        done = pubsub_publish(c->k, c->arena, &(struct publish){.pubsub = r.pubsub, .topic = r.topic, .data = body, .md = &r.md}, &err);
        pubsub_observe_egress(c->k->pubsub->metrics, r.pubsub, r.topic, done == PUBLISHED, pubsub_now_ms() - since);
        buf_fini(&event);
        if (done == PUBLISHED) {
                reply_empty(c);
                return;
        }
        publish_fail(c, done, r.pubsub, r.topic, err);
        reply_error(c);
}

/* ---- bulk ---- */

/* As Go counts the first byte that does not belong into base64. */
static size_t base64_fault(struct str s)
{
        size_t i = 0;

        for (; i < s.n; i++) {
                unsigned char ch = (unsigned char)s.p[i];
                if (ch != '\r' && ch != '\n' && !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", ch ? ch : ' '))
                        break;
        }
        return i;
}

/* The bytes of an entry's event by its content type. NULL, or why there are none. */
static const char *event_bytes(struct arena *a, struct str raw, struct str content_type, struct str *ret)
{
        struct json_reader r;
        struct str text;

        if (content_is_json(content_type) || content_is_event(content_type)) {
                *ret = raw.p ? raw : STR("null");
                return NULL;
        }
        json_read_init(&r, raw);
        if (!raw.p || raw.p[0] != '"' || !json_read_string(&r, a, &text) || (!content_is_binary(content_type) && !content_is_text(content_type)))
                return MISMATCH;
        *ret = text;
        if (!content_is_binary(content_type))
                return NULL;
        *ret = base64_decode(a, text);
        if (ret->p && text.n % 4 == 0)
                return NULL;
        return arena_printf(a, "error: unable to decode base64 application/octect-stream data: illegal base64 data at input byte %zu",
                            base64_fault(text));
}

struct entry_in {
        struct str event; /* raw JSON */
        bool has_metadata;
};

static void read_entry(struct state_json *j, struct bulk_entry *e, struct entry_in *in)
{
        struct str name;

        if (!state_json_object(j, "", "http." ENTRY))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                if (str_ieq(name, STR("entryId"))) {
                        state_json_string(j, ENTRY ".entryId", &e->id);
                } else if (str_ieq(name, STR("event"))) {
                        json_read_raw(&j->r, &in->event);
                } else if (str_ieq(name, STR("contentType"))) {
                        state_json_string(j, ENTRY ".contentType", &e->content_type);
                } else if (str_ieq(name, STR("metadata"))) {
                        in->has_metadata |= json_peek(&j->r) == JSON_OBJECT;
                        state_json_map(j, ENTRY ".metadata", &e->md);
                } else {
                        json_skip(&j->r);
                }
        }
}

struct entries {
        struct bulk_entry *v;
        struct entry_in *in;
        size_t n, cap;
};

static const char *read_entries(struct call *c, struct str body, struct entries *e)
{
        struct state_json j;

        state_json_begin(&j, c->arena, body);
        if (!j.error && state_json_array(&j, "", "[]http." ENTRY))
                while (json_next_element(&j.r)) {
                        if (e->n == e->cap) {
                                size_t more = e->cap ? e->cap * 2 : 16;
                                e->v = arena_grow(c->arena, e->v, e->cap * sizeof *e->v, more * sizeof *e->v);
                                e->in = arena_grow(c->arena, e->in, e->cap * sizeof *e->in, more * sizeof *e->in);
                                e->cap = more;
                        }
                        if (!e->v || !e->in)
                                return "out of memory";
                        e->v[e->n] = (struct bulk_entry){.id = STR(""), .content_type = STR("")};
                        e->in[e->n] = (struct entry_in){0};
                        read_entry(&j, &e->v[e->n], &e->in[e->n]);
                        e->n++;
                }
        return state_json_error(&j);
}

static int entries_fail(struct call *c, const struct request *r, enum error_id id, const char *err, bool with_error)
{
        publish_fail_entries(c, id, r->pubsub, r->topic, err, with_error);
        reply_error(c);
        return -1;
}

/* Events to bytes, ids checked, metadata of the request put under that of each entry. */
static int check_entries(struct call *c, const struct request *r, struct entries *e)
{
        struct map ids = {0};
        int x = 0;

        for (size_t i = 0; x == 0 && i < e->n; i++) {
                struct bulk_entry *b = &e->v[i];
                const char *err = event_bytes(c->arena, e->in[i].event, b->content_type, &b->event);
                if (err) {
                        x = entries_fail(c, r, ERR_PUBSUB_MARSHAL_ENVELOPE, err, true);
                        break;
                }
                for (size_t m = 0; e->in[i].has_metadata && m < r->md.n; m++)
                        if (!rpc_md_get(&b->md, arena_strdup(c->arena, r->md.v[m].key)).p)
                                rpc_md_add(&b->md, c->arena, r->md.v[m].key, r->md.v[m].value);
                if (!b->id.n || map_get(&ids, b->id))
                        x = entries_fail(c, r, ERR_PUBSUB_MARSHAL_EVENTS, "entryId is duplicated or not present for entry", true);
                else if (map_set(&ids, b->id, b))
                        x = entries_fail(c, r, ERR_PUBSUB_MARSHAL_EVENTS, "out of memory", true);
        }
        map_fini(&ids);
        return x;
}

static int wrap_entries(struct call *c, const struct request *r, struct entries *e)
{
        for (size_t i = 0; !r->raw && i < e->n; i++) {
                const char *err;
                if (publish_entry(c, r->broker, r->topic, &e->v[i], &err)) {
                        publish_fail_event(c, r->pubsub, err);
                        reply_error(c);
                        return -1;
                }
        }
        return 0;
}

static void reply_failed(struct call *c, const struct entries *e)
{
        struct buf out = {0};
        struct json_writer w;

        log_debug(SCOPE, "api error: code = %s desc = %.*s", rpc_code_name(c->grpc_code), STR_FMT(c->message));
        observe_error_code(c->k->observe, call_error_code(c), error_rows[c->error].category);
        json_write_init(&w, &out);
        json_object_begin(&w);
        json_key(&w, STR("failedEntries"));
        json_array_begin(&w);
        for (size_t i = 0; i < e->n; i++) {
                if (!e->v[i].error)
                        continue;
                json_object_begin(&w);
                json_kv(&w, "entryId", e->v[i].id);
                json_kv_nonempty(&w, "error", str_of(e->v[i].error));
                json_object_end(&w);
        }
        json_array_end(&w);
        json_kv(&w, "errorCode", STR("ERR_PUBSUB_PUBLISH_MESSAGE"));
        json_object_end(&w);
        if (out.failed)
                out_of_memory(c);
        else
                reply_json(c, c->http_status, buf_str(&out));
        buf_fini(&out);
}

static void bulk(struct call *c, struct entries *e)
{
        struct request r;
        struct str body;
        const char *err;
        size_t failed = 0;
        double since;
        enum publish_result done;
        int unread;

        if (!begin(c, &r) || !read_raw_flag(c, &r))
                return;
        unread = http_req_body(c->http, &body);
        err = unread ? body_error(unread) : read_entries(c, body, e);
        if (err) {
                entries_fail(c, &r, ERR_PUBSUB_UNMARSHAL_EVENTS, err, false);
                return;
        }
        if (check_entries(c, &r, e) || wrap_entries(c, &r, e))
                return;
        since = pubsub_now_ms();
        done = pubsub_publish_bulk(c->k, c->arena, &(struct publish){.pubsub = r.pubsub, .topic = r.topic, .md = &r.md}, e->v, e->n, &err);
        for (size_t i = 0; i < e->n; i++)
                failed += e->v[i].error != NULL;
        pubsub_observe_bulk_egress(c->k->pubsub->metrics, r.pubsub, r.topic, done == PUBLISHED, e->n - failed, pubsub_now_ms() - since);
        if (done == PUBLISHED) {
                reply_empty(c);
                return;
        }
        publish_fail(c, done, r.pubsub, r.topic, err);
        if (done == PUBLISH_FAILED)
                reply_failed(c, e);
        else
                reply_error(c);
}

static void publish_bulk(struct call *c)
{
        struct entries e = {0};

        bulk(c, &e);
        publish_entries_end(c, e.v, e.n);
}

const struct http_route pubsub_http_routes[PUBSUB_HTTP_ROUTES] = {
        {"POST,PUT", "/v1.0/publish/{pubsubname}/{topic...}", "publish", "v1", "PublishEvent", publish},
        {"POST,PUT", "/v1.0/publish/bulk/{pubsubname}/{topic...}", "publish", "v1", "BulkPublishEvent", publish_bulk},
        {"POST,PUT", "/v1.0-alpha1/publish/bulk/{pubsubname}/{topic...}", "publish", "v1alpha1", "BulkPublishEvent", publish_bulk},
};
