/*
 * Streams and consumers through JetStream's API: JSON requests to subjects $JS.API.… (https://docs.nats.io/reference/reference-protocols/
 * nats_api_reference). A consumer with a name is used as it is when it is there: its settings must be those of the component.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/pubsub.jetstream/jetstream.h"
#include "sdk/base/json.h"
#include "sdk/base/rfc3339.h"

enum { ANSWER_MAX = 4 << 20, NOT_FOUND = 404 };

static const char *const ack_names[] = {[JS_EXPLICIT] = "explicit", [JS_ALL] = "all", [JS_NONE] = "none"};

/* A consumer as the server tells it. */
struct found {
        char stream[NAME_MAX_BYTES], name[NAME_MAX_BYTES], subject[NAME_MAX_BYTES], group[NAME_MAX_BYTES], filter[NAME_MAX_BYTES];
        char deliver_policy[32], ack_policy[16], start_time[RFC3339_BYTES];
        int64_t ack_wait, max_deliver, max_ack_pending, heartbeat, replicas, rate_limit, start_sequence, first_backoff;
        bool flow_control, memory_storage, bound;
};

/* ---- one request of the API ---- */

/* 0 with the answer's object entered in *ret_r; 404; another positive code, or -errno, with the text in why. */
static int api(struct broker *b, struct nats *n, struct arena *a, const char *subject, struct str body, struct json_reader *ret_r, char why[WHY_MAX])
{
        struct nats_message *m;
        char full[NAME_MAX_BYTES * 3];
        struct str key, text = STR("");
        int64_t code = 0;
        snprintf(full, sizeof(full), "%s%s", b->prefix, subject);
        int r = nats_request(n, str_of(full), STR(""), body, API_S, &m);
        if (r) {
                snprintf(why, WHY_MAX, "%s", r == -EHOSTUNREACH ? "nats: JetStream not enabled" : r == -ETIMEDOUT ? "nats: timeout" : strerror(-r));
                return r == -EHOSTUNREACH ? DAPR_FAILED_PRECONDITION : r;
        }
        struct str answer = arena_str(a, m->payload);
        free(m);
        struct json_reader e;
        json_read_init(ret_r, answer);
        bool good = answer.p && json_enter_object(ret_r);
        for (e = *ret_r; good && json_next_member(&e, a, &key);) {
                if (!str_eqz(key, "error") || !json_enter_object(&e)) {
                        json_skip(&e);
                        continue;
                }
                while (json_next_member(&e, a, &key))
                        if (!(str_eqz(key, "code") && json_read_int64(&e, &code)) && !(str_eqz(key, "description") && json_read_string(&e, a, &text)))
                                json_skip(&e);
                code = code ? code : DAPR_INTERNAL;
        }
        if (!good || e.error) {
                snprintf(why, WHY_MAX, "the server's answer is no JSON object");
                return -EBADMSG;
        }
        if (code)
                snprintf(why, WHY_MAX, "nats: %.*s", STR_FMT(text));
        return (int)code;
}

static void take_text(struct json_reader *r, struct arena *a, char *to, size_t n)
{
        struct str s = STR("");
        if (json_read_string(r, a, &s))
                snprintf(to, n, "%.*s", STR_FMT(s));
        else
                json_skip(r);
}

/* ---- the stream ---- */

static int find_stream(struct broker *b, struct nats *n, struct arena *a, const char *topic, char ret[NAME_MAX_BYTES], char why[WHY_MAX])
{
        struct buf body = {0};
        struct json_writer w;
        struct json_reader r;
        struct str key;
        size_t count = 0;
        json_write_init(&w, &body);
        json_object_begin(&w);
        json_kv(&w, "subject", str_of(topic));
        json_object_end(&w);
        int e = body.failed ? -ENOMEM : api(b, n, a, "STREAM.NAMES", buf_str(&body), &r, why);
        buf_fini(&body);
        if (e)
                return e;
        while (json_next_member(&r, a, &key)) {
                if (!str_eqz(key, "streams") || !json_enter_array(&r)) {
                        json_skip(&r);
                        continue;
                }
                for (; json_next_element(&r); count++)
                        take_text(&r, a, ret, NAME_MAX_BYTES);
        }
        if (count == 1)
                return 0;
        snprintf(why, WHY_MAX, "nats: no stream matches subject%s", count ? ": several do; name one as streamName" : "");
        return NOT_FOUND;
}

/* ---- what the server has ---- */

static void read_config(struct json_reader *r, struct arena *a, struct found *f)
{
        const struct {
                const char *key;
                char *to;
                size_t n;
        } texts[] = {{"deliver_subject", f->subject, sizeof(f->subject)}, {"deliver_group", f->group, sizeof(f->group)},
                     {"filter_subject", f->filter, sizeof(f->filter)},    {"deliver_policy", f->deliver_policy, sizeof(f->deliver_policy)},
                     {"ack_policy", f->ack_policy, sizeof(f->ack_policy)}, {"opt_start_time", f->start_time, sizeof(f->start_time)}};
        const struct {
                const char *key;
                int64_t *to;
        } numbers[] = {{"ack_wait", &f->ack_wait},   {"max_deliver", &f->max_deliver},   {"max_ack_pending", &f->max_ack_pending},
                       {"idle_heartbeat", &f->heartbeat}, {"num_replicas", &f->replicas}, {"rate_limit_bps", &f->rate_limit},
                       {"opt_start_seq", &f->start_sequence}};
        struct str key;
        while (json_next_member(r, a, &key)) {
                bool taken = (str_eqz(key, "flow_control") && json_read_bool(r, &f->flow_control)) ||
                             (str_eqz(key, "mem_storage") && json_read_bool(r, &f->memory_storage));
                for (size_t i = 0; !taken && i < sizeof(texts) / sizeof(*texts); i++)
                        if ((taken = str_eqz(key, texts[i].key)))
                                take_text(r, a, texts[i].to, texts[i].n);
                for (size_t i = 0; !taken && i < sizeof(numbers) / sizeof(*numbers); i++)
                        taken = str_eqz(key, numbers[i].key) && json_read_int64(r, numbers[i].to);
                if (!taken && str_eqz(key, "backoff") && json_enter_array(r)) {
                        for (taken = true; json_next_element(r);)
                                if (f->first_backoff || !json_read_int64(r, &f->first_backoff))
                                        json_skip(r);
                }
                if (!taken)
                        json_skip(r);
        }
}

static void read_found(struct json_reader *r, struct arena *a, struct found *f)
{
        struct str key;
        *f = (struct found){0};
        while (json_next_member(r, a, &key)) {
                if (str_eqz(key, "stream_name"))
                        take_text(r, a, f->stream, sizeof(f->stream));
                else if (str_eqz(key, "name"))
                        take_text(r, a, f->name, sizeof(f->name));
                else if (str_eqz(key, "config") && json_enter_object(r))
                        read_config(r, a, f);
                else if (!(str_eqz(key, "push_bound") && json_read_bool(r, &f->bound)))
                        json_skip(r);
        }
}

static int differs(char why[WHY_MAX], const char *durable, const char *field, const char *wanted, const char *there)
{
        snprintf(why, WHY_MAX, "nats: consumer name already in use: the consumer %.60s has %.20s %.60s, the component wants %.60s", durable, field, there, wanted);
        return DAPR_FAILED_PRECONDITION;
}

static int differs_int(char why[WHY_MAX], const char *durable, const char *field, int64_t wanted, int64_t there)
{
        char a[24], b[24];
        snprintf(a, sizeof(a), "%lld", (long long)wanted);
        snprintf(b, sizeof(b), "%lld", (long long)there);
        return wanted && wanted != there ? differs(why, durable, field, a, b) : 0;
}

/* Is the consumer that stands there the one that the component describes? */
static int compare(const struct broker *b, const struct consumer_wish *w, const struct found *f, char why[WHY_MAX])
{
        int r = 0;
        if (!*f->subject)
                return differs(why, b->durable, "kind", "push", "pull");
        if (*f->filter && strcmp(f->filter, w->topic))
                return differs(why, b->durable, "subject", w->topic, f->filter);
        if (strcmp(f->group, b->queue ? b->queue : ""))
                return differs(why, b->durable, "queueGroupName", b->queue ? b->queue : "none", *f->group ? f->group : "none");
        if (strcmp(f->deliver_policy, b->deliver_policy))
                return differs(why, b->durable, "deliverPolicy", b->deliver_policy, f->deliver_policy);
        if (strcmp(f->ack_policy, ack_names[b->ack]))
                return differs(why, b->durable, "ackPolicy", ack_names[b->ack], f->ack_policy);
        if (b->flow_control && !f->flow_control)
                return differs(why, b->durable, "flowControl", "true", "false");
        if (b->memory_storage && !f->memory_storage)
                return differs(why, b->durable, "memoryStorage", "true", "false");
        const struct {
                const char *field;
                int64_t wanted, there;
        } numbers[] = {{"ackWait", b->n_backoff ? 0 : b->ack_wait_ns, f->ack_wait}, {"maxDeliver", b->max_deliver, f->max_deliver},
                       {"maxAckPending", b->max_ack_pending, f->max_ack_pending}, {"heartbeat", b->heartbeat_ns, f->heartbeat},
                       {"replicas", b->replicas, f->replicas}, {"rateLimit", b->rate_limit, f->rate_limit},
                       {"startSequence", b->start_sequence, f->start_sequence}};
        for (size_t i = 0; !r && i < sizeof(numbers) / sizeof(*numbers); i++)
                r = differs_int(why, b->durable, numbers[i].field, numbers[i].wanted, numbers[i].there);
        return r;
}

/* ---- a new one ---- */

static void key_int(struct json_writer *w, const char *key, int64_t v)
{
        if (!v)
                return;
        json_key(w, str_of(key));
        json_int(w, v);
}

static void key_true(struct json_writer *w, const char *key, bool v)
{
        if (!v)
                return;
        json_key(w, str_of(key));
        json_bool(w, true);
}

static void write_config(struct json_writer *w, const struct broker *b, const struct consumer_wish *wish)
{
        char time[RFC3339_BYTES];
        json_kv_nonempty(w, "durable_name", str_of(b->durable));
        json_kv(w, "deliver_subject", str_of(wish->inbox));
        json_kv_nonempty(w, "deliver_group", str_of(b->queue));
        json_kv(w, "deliver_policy", str_of(wish->from ? "by_start_sequence" : b->deliver_policy));
        key_int(w, "opt_start_seq", wish->from ? (int64_t)wish->from : b->start_sequence);
        if (b->start_time && !wish->from && rfc3339_format(time, b->start_time, 0))
                json_kv(w, "opt_start_time", str_of(time));
        json_kv(w, "ack_policy", str_of(ack_names[b->ack]));
        json_kv(w, "replay_policy", STR("instant"));
        json_kv(w, "filter_subject", str_of(wish->topic));
        key_int(w, "ack_wait", b->ack_wait_ns);
        key_int(w, "max_deliver", b->max_deliver);
        key_int(w, "max_ack_pending", b->max_ack_pending);
        key_int(w, "idle_heartbeat", b->heartbeat_ns);
        key_int(w, "num_replicas", b->replicas);
        key_int(w, "rate_limit_bps", b->rate_limit);
        key_true(w, "flow_control", b->flow_control);
        key_true(w, "mem_storage", b->memory_storage);
        if (b->n_backoff) {
                json_key(w, STR("backoff"));
                json_array_begin(w);
                for (size_t i = 0; i < b->n_backoff; i++)
                        json_int(w, b->backoff_ns[i]);
                json_array_end(w);
        }
}

static int create(struct broker *b, struct nats *n, struct arena *a, const char *stream, const struct consumer_wish *wish, struct found *f,
                  char why[WHY_MAX])
{
        char subject[NAME_MAX_BYTES * 2 + 40];
        struct buf body = {0};
        struct json_writer w;
        struct json_reader r;
        if (b->durable)
                snprintf(subject, sizeof(subject), "CONSUMER.DURABLE.CREATE.%s.%s", stream, b->durable);
        else
                snprintf(subject, sizeof(subject), "CONSUMER.CREATE.%s", stream);
        json_write_init(&w, &body);
        json_object_begin(&w);
        json_kv(&w, "stream_name", str_of(stream));
        json_key(&w, STR("config"));
        json_object_begin(&w);
        write_config(&w, b, wish);
        json_object_end(&w);
        json_object_end(&w);
        int e = body.failed ? -ENOMEM : api(b, n, a, subject, buf_str(&body), &r, why);
        buf_fini(&body);
        if (!e)
                read_found(&r, a, f);
        return e;
}

static int look_up(struct broker *b, struct nats *n, struct arena *a, const char *stream, const char *name, struct found *f, char why[WHY_MAX])
{
        char subject[NAME_MAX_BYTES * 2 + 40];
        struct json_reader r;
        snprintf(subject, sizeof(subject), "CONSUMER.INFO.%s.%s", stream, name);
        int e = api(b, n, a, subject, STR(""), &r, why);
        if (!e)
                read_found(&r, a, f);
        return e;
}

/* What the server answers as HTTP-like numbers, as an outcome. */
static int outcome(int code)
{
        return code <= 0 || code < 100 ? code : code == NOT_FOUND ? DAPR_NOT_FOUND : code == 503 ? DAPR_UNAVAILABLE : DAPR_FAILED_PRECONDITION;
}

static void take(const struct found *f, struct consumer *ret)
{
        int64_t wait = f->first_backoff && (f->first_backoff < f->ack_wait || !f->ack_wait) ? f->first_backoff : f->ack_wait;
        snprintf(ret->stream, sizeof(ret->stream), "%s", f->stream);
        snprintf(ret->name, sizeof(ret->name), "%s", f->name);
        snprintf(ret->subject, sizeof(ret->subject), "%s", f->subject);
        ret->ack_wait_s = wait > 0 ? (double)wait / 1e9 : 30;
        ret->max_deliver = f->max_deliver > 0 ? (uint64_t)f->max_deliver : 0;
        ret->max_ack_pending = f->max_ack_pending > 0 ? (size_t)f->max_ack_pending : 0;
}

int consumer_bind(struct broker *b, struct nats *n, const struct consumer_wish *w, struct consumer *ret, char why[WHY_MAX])
{
        struct arena a;
        struct found f = {0};
        char stream[NAME_MAX_BYTES] = "";
        int r = 0;
        arena_init(&a, ANSWER_MAX);
        if (b->stream)
                snprintf(stream, sizeof(stream), "%s", b->stream);
        else
                r = find_stream(b, n, &a, w->topic, stream, why);
        bool there = false;
        if (!r && b->durable) {
                r = look_up(b, n, &a, stream, b->durable, &f, why);
                there = r == 0;
                if (there)
                        r = compare(b, w, &f, why);
                else if (r == NOT_FOUND)
                        r = 0;
        }
        if (!r && there && f.bound && !b->queue && strcmp(f.subject, w->inbox)) {
                snprintf(why, WHY_MAX, "nats: consumer is already bound to a subscription");
                r = DAPR_ALREADY_EXISTS;
        }
        if (!r && !there)
                r = create(b, n, &a, stream, w, &f, why);
        arena_fini(&a);
        if (!r)
                take(&f, ret);
        return outcome(r);
}

int consumer_is_there(struct broker *b, struct nats *n, const struct consumer *c)
{
        struct arena a;
        struct found f;
        char why[WHY_MAX];
        arena_init(&a, ANSWER_MAX);
        int r = look_up(b, n, &a, c->stream, c->name, &f, why);
        arena_fini(&a);
        return r == NOT_FOUND ? 0 : r == 0 ? 1 : r < 0 ? r : -EIO;
}

uint64_t consumer_stream_end(struct broker *b, struct nats *n, const struct consumer *c)
{
        char subject[NAME_MAX_BYTES + 20], why[WHY_MAX];
        struct json_reader r;
        struct arena a;
        struct str key;
        uint64_t last = 0;
        snprintf(subject, sizeof(subject), "STREAM.INFO.%s", c->stream);
        arena_init(&a, ANSWER_MAX);
        bool good = api(b, n, &a, subject, STR(""), &r, why) == 0;
        while (good && json_next_member(&r, &a, &key)) {
                if (!str_eqz(key, "state") || !json_enter_object(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_member(&r, &a, &key))
                        if (!(str_eqz(key, "last_seq") && json_read_uint64(&r, &last)))
                                json_skip(&r);
        }
        arena_fini(&a);
        return last;
}
