/* Events to HTTP apps: POST of the CloudEvent to the route, and what the answer means (API.md 3.3). */
#include <errno.h>

#include "kernel/app/app.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.runtime.processor.pubsub.subscription.http"
#define RETRIABLE "retriable error occurred: "

static bool is_token(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if (c <= ' ' || c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", c))
                        return false;
        }
        return s.n > 0;
}

static bool is_value(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f)
                        return false;
        return true;
}

struct rpc_md *app_metadata(struct arena *a, const struct rpc_mdlist *md, size_t *ret_n)
{
        static const char *const never[] = {"content-type", "content-length", "traceparent", "tracestate", "grpc-trace-bin", "host",
                                            "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
                                            "te", "trailer", "transfer-encoding", "upgrade", "dapr-app-id"};
        struct rpc_md *v = arena_alloc(a, (md->n + 4) * sizeof *v); /* room for the caller's */
        size_t n = 0;

        for (size_t i = 0; v && i < md->n; i++) {
                char *key = arena_strdup(a, md->v[i].key);
                bool skip = !key || !is_token(md->v[i].key) || !is_value(md->v[i].value);
                for (char *c = key; c && *c; c++)
                        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
                for (size_t j = 0; !skip && j < sizeof never / sizeof *never; j++)
                        skip = strcmp(key, never[j]) == 0;
                if (!skip)
                        v[n++] = (struct rpc_md){str_of(key), md->v[i].value};
        }
        *ret_n = n;
        return v;
}

static struct http_header *headers(struct arena *a, const struct rpc_mdlist *list, size_t *ret_n)
{
        size_t n;
        struct rpc_md *md = app_metadata(a, list, &n);
        struct http_header *h = arena_alloc(a, (n + 1) * sizeof *h);

        *ret_n = 0;
        for (size_t i = 0; md && h && i < n; i++)
                if (!str_has_suffix(md[i].key, STR("-bin")))
                        h[(*ret_n)++] = (struct http_header){md[i].key, md[i].value};
        return md ? h : NULL;
}

/* The route as a request target: cleaned up to its query, as Go's path.Clean. */
static struct str target_of(struct arena *a, const char *route)
{
        struct str rest = str_of(route), path = str_cut(&rest, '?');

        path = path_clean(a, str_of(arena_printf(a, "/%.*s", STR_FMT(path))));
        return rest.p && path.p ? str_of(arena_printf(a, "%.*s?%.*s", STR_FMT(path), STR_FMT(rest))) : path;
}

/* {"status": "..."}; empty when there is none or it cannot be read, which count as success. */
static struct str read_status(struct arena *a, struct str body)
{
        struct json_reader r;
        struct str name, status = STR("");

        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return STR("");
        while (json_next_member(&r, a, &name)) {
                if (!str_ieq(name, STR("status")) || json_peek(&r) == JSON_NULL)
                        json_skip(&r);
                else if (!json_read_string(&r, a, &status))
                        return STR("");
        }
        return r.error ? STR("") : status;
}

static enum delivery read_answer(const struct outgoing *o, struct str body, double elapsed, struct delivered *d)
{
        struct arena *a = o->arena;
        struct str status = read_status(a, body), pubsub = str_of(o->sub->pubsub);
        const char *id = event_show(a, &o->event, EVENT_ID);

        if (!status.n || str_eqz(status, "SUCCESS")) {
                pubsub_observe_ingress(o->sub->block->metrics, pubsub, "success", NULL, o->topic, elapsed);
                return DELIVERED;
        }
        if (str_eqz(status, "DROP")) {
                pubsub_observe_ingress(o->sub->block->metrics, pubsub, "drop", "success", o->topic, elapsed);
                log_warn(SCOPE, "DROP status returned from app while processing pub/sub event %s", id);
                return DELIVERY_DROPPED;
        }
        if (str_eqz(status, "RETRY"))
                return delivery_retry(o, d, elapsed,
                             arena_printf(a, "RETRY status returned from app while processing pub/sub event %s: retriable error occurred", id));
        return delivery_retry(o, d, elapsed,
                     arena_printf(a, "unknown status returned from app while processing pub/sub event %s, status: %.*s, err: retriable error occurred",
                                  id, STR_FMT(status)));
}

enum delivery deliver_http(const struct outgoing *o, struct delivered *d)
{
        struct app *app = o->sub->block->k->app;
        struct arena *a = o->arena;
        struct app_request req = {.method = STR("POST"), .path = target_of(a, o->path), .content_type = STR("application/cloudevents+json"),
                                  .body = o->body};
        struct app_response resp = {0};
        double since = pubsub_now_ms(), elapsed;
        const char *id;
        int r;

        req.headers = headers(a, o->md, &req.n_headers);
        r = req.headers && req.path.p ? app_http(app, a, &req, &resp) : -ENOMEM;
        elapsed = pubsub_now_ms() - since;
        d->lost = r == -ECONNREFUSED || r == -ECONNRESET || r == -EPIPE;
        if (r)
                return delivery_retry(o, d, elapsed,
                             arena_printf(a, "error returned from app channel while sending pub/sub event to app: " RETRIABLE "%s",
                                          app_http_error(app, a, &req, r)));
        if (resp.status >= 200 && resp.status <= 299)
                return read_answer(o, resp.body, elapsed, d);
        id = event_show(a, &o->event, EVENT_ID);
        if (resp.status == 404) {
                log_error(SCOPE, "non-retriable error returned from app while processing pub/sub event %s: %.*s. status code returned: %d", id,
                          STR_FMT(resp.body), resp.status);
                pubsub_observe_ingress(o->sub->block->metrics, str_of(o->sub->pubsub), "drop", NULL, o->topic, elapsed);
                return DELIVERY_DROPPED;
        }
        d->code = resp.status;
        return delivery_retry(o, d, elapsed,
                     arena_printf(a, RETRIABLE "retriable error returned from app while processing pub/sub event %s, topic: %s, body: %.*s. status "
                                               "code returned: %d", id, event_show(a, &o->event, EVENT_TOPIC), STR_FMT(resp.body), resp.status));
}

/* ---- bulk ---- */

static void write_entry(struct json_writer *w, const struct bulk_delivery *b, size_t i)
{
        const struct message *m = b->m[i];

        json_object_begin(w);
        json_kv(w, "entryId", str_of(m->entry_id));
        json_key(w, STR("event"));
        json_raw(w, b->bodies[i]);
        json_key(w, STR("metadata"));
        json_object_begin(w);
        for (size_t j = 0; j < m->md.n; j++) {
                json_key(w, m->md.v[j].key);
                json_string(w, m->md.v[j].value);
        }
        json_object_end(w);
        json_kv(w, "contentType",
                m->content_type.n ? m->content_type : b->events[i].json.p ? STR("application/cloudevents+json") : STR("application/octet-stream"));
        json_object_end(w);
}

static int write_envelope(struct buf *out, const struct bulk_delivery *b)
{
        char id[UUID_CHARS + 1];
        struct json_writer w;

        if (uuid_random(id))
                return -EIO;
        json_write_init(&w, out);
        json_object_begin(&w);
        json_key(&w, STR("entries"));
        json_array_begin(&w);
        for (size_t i = 0; i < b->n; i++)
                write_entry(&w, b, i);
        json_array_end(&w);
        json_kv(&w, "id", str_of(id));
        json_key(&w, STR("metadata"));
        json_object_begin(&w);
        json_kv(&w, "pubsubName", str_of(b->sub->pubsub));
        json_object_end(&w);
        json_kv(&w, "pubsubname", str_of(b->sub->pubsub));
        json_kv(&w, "topic", b->sub->topic);
        json_kv(&w, "type", STR("com.dapr.event.sent.bulk"));
        json_object_end(&w);
        return out->failed ? -ENOMEM : 0;
}

static int all_failed(struct bulk_delivery *b, const char *err)
{
        b->counts[1] += (int64_t)b->n;
        b->err = err ? err : "out of memory";
        for (size_t i = 0; i < b->n; i++)
                b->m[i]->error = b->err;
        return -1;
}

static void take_status(struct bulk_delivery *b, struct str id, struct str status, bool *seen, bool *dropped)
{
        size_t i = 0;

        while (i < b->n && !str_eqz(id, b->m[i]->entry_id))
                i++;
        if (i == b->n) {
                log_warn(SCOPE, "Invalid entry id received from app while processing pub/sub event %.*s", STR_FMT(id));
                return;
        }
        seen[i] = true;
        b->m[i]->error = NULL;
        dropped[i] = false;
        if (str_eqz(status, "SUCCESS")) {
                b->counts[0]++;
        } else if (str_eqz(status, "DROP")) {
                b->counts[2]++;
                dropped[i] = true;
                log_warn(SCOPE, "DROP status returned from app while processing pub/sub event %.*s", STR_FMT(id));
        } else {
                b->counts[1]++;
                b->m[i]->error = !status.n || str_eqz(status, "RETRY")
                                         ? arena_printf(b->arena, "RETRY required while processing bulk subscribe event for entry id: %.*s",
                                                        STR_FMT(id))
                                         : arena_printf(b->arena, "unknown status returned from app while processing bulk subscribe event %.*s: %.*s",
                                                        STR_FMT(id), STR_FMT(status));
        }
}

/* {"statuses":[{"entryId","status"}]}. NULL, or why it cannot be read. */
static const char *read_statuses(struct bulk_delivery *b, struct str body, bool *seen, bool *dropped)
{
        struct json_reader r;
        struct str name;

        json_read_init(&r, body);
        if (json_peek(&r) == JSON_END)
                return "EOF";
        if (!json_enter_object(&r))
                return "the answer is not a JSON object";
        while (json_next_member(&r, b->arena, &name)) {
                if (!str_ieq(name, STR("statuses")) || !json_enter_array(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_element(&r)) {
                        struct str id = STR(""), status = STR("");
                        if (!json_enter_object(&r)) {
                                json_skip(&r);
                                continue;
                        }
                        while (json_next_member(&r, b->arena, &name))
                                if (!(str_ieq(name, STR("entryId")) && json_read_string(&r, b->arena, &id)) &&
                                    !(str_ieq(name, STR("status")) && json_read_string(&r, b->arena, &status)))
                                        json_skip(&r);
                        take_status(b, id, status, seen, dropped);
                }
        }
        return r.error;
}

static int read_bulk_answer(struct bulk_delivery *b, struct str body, bool *dropped)
{
        bool *seen = arena_zalloc(b->arena, b->n + 1), failed = false;
        const char *err = seen ? read_statuses(b, body, seen, dropped) : "out of memory";

        if (err)
                return all_failed(b, arena_printf(b->arena, "failed unmarshalling app response for bulk subscribe: %s", err));
        for (size_t i = 0; i < b->n; i++) {
                if (!seen[i]) {
                        b->counts[1]++;
                        b->m[i]->error = arena_printf(b->arena, "Response not received, RETRY required while processing bulk subscribe event for entry id: %s",
                                                      b->m[i]->entry_id);
                }
                failed |= b->m[i]->error != NULL;
        }
        b->err = "Few message(s) have failed during bulk subscribe operation";
        return failed ? -1 : 0;
}

int bulk_http(struct bulk_delivery *b, bool *dropped)
{
        struct app *app = b->sub->block->k->app;
        struct http_header name = {STR("pubsubname"), str_of(b->sub->pubsub)};
        struct app_request req = {.method = STR("POST"), .path = target_of(b->arena, b->path), .content_type = STR("application/json"),
                                  .headers = &name, .n_headers = 1};
        struct app_response resp = {0};
        struct buf body = {0};
        double since = pubsub_now_ms();
        int r = write_envelope(&body, b);

        req.body = buf_str(&body);
        if (r == 0)
                r = app_http(app, b->arena, &req, &resp);
        buf_fini(&body);
        b->elapsed_ms = pubsub_now_ms() - since;
        b->lost = r == -ECONNREFUSED || r == -ECONNRESET || r == -EPIPE;
        if (r)
                return all_failed(b, arena_printf(b->arena, "error from app channel while sending pub/sub event to app: %s",
                                                  app_http_error(app, b->arena, &req, r)));
        if (resp.status >= 200 && resp.status <= 299)
                return read_bulk_answer(b, resp.body, dropped);
        if (resp.status == 404) {
                log_error(SCOPE, "Non-retriable error returned from app while processing bulk pub/sub event. status code returned: %d",
                          resp.status);
                b->counts[2] += (int64_t)b->n;
                for (size_t i = 0; i < b->n; i++)
                        b->m[i]->error = NULL;
                return 0;
        }
        all_failed(b, arena_printf(b->arena, "Retriable error returned from app while processing bulk pub/sub event, topic: %.*s. status code returned: %d",
                                   STR_FMT(b->sub->topic), resp.status));
        log_warn(SCOPE, "%s", b->err);
        return -1;
}
