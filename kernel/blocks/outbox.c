/* The outbox. One subscription a store; a message waits for its marker on its own fiber. */
#include "kernel/blocks/outbox.h"

#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/front/errors.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define SCOPE "dapr.outbox"
#define STORE "/dapr.proto.components.v1.StateStore/"
#define PROJECTION "outbox.projection"
#define NO_MEMORY "the request needs more memory than one request may take"

static const double SCAN_DELAY_S = 1, RETRY_FIRST_S = 0.5, RETRY_CAP_S = 3, RETRY_TOTAL_S = 10, RETRY_FACTOR = 3;

struct outbox_store {
        struct outbox_store *next;
        bool gone;                 /* replaced, or its component has none any more: transactions under way may still use it */
        const char *store, *publish_pubsub, *publish_topic, *pubsub;
        bool discard;
        struct subscription_spec spec;
        struct subscription *sub;
};
struct outbox {
        struct outbox_store *list; /* newest first */
        bool started, stopped;
        struct arena arena;
};

/* ---- settings ---- */

/* *ret = NULL: the component has no outbox. */
static int read_store(struct kernel *k, struct outbox *o, const struct component_spec *c, struct outbox_store **ret)
{
        static struct subscription_item many[] = {{"maxConcurrency", "100"}};
        const char *pubsub = component_metadata(c, "outboxPublishPubsub"), *topic = component_metadata(c, "outboxPublishTopic");
        const char *inner = component_metadata(c, "outboxPubsub");
        struct outbox_store *s;

        *ret = NULL;
        if (!pubsub || !*pubsub || !topic || !*topic)
                return 0;
        if (!(s = arena_zalloc(&o->arena, sizeof *s)))
                return -ENOMEM;
        s->store = arena_strdup(&o->arena, str_of(c->name));
        s->publish_pubsub = arena_strdup(&o->arena, str_of(pubsub));
        s->publish_topic = arena_strdup(&o->arena, str_of(topic));
        s->pubsub = inner && *inner ? arena_strdup(&o->arena, str_of(inner)) : s->publish_pubsub;
        s->discard = parse_truthy(component_metadata(c, "outboxDiscardWhenMissingState"));
        s->spec = (struct subscription_spec){
                .origin = SUBSCRIPTION_INTERNAL, .name = "", .pubsub = s->pubsub, .dead_letter = "", .metadata = many, .n_metadata = 1,
                .topic = arena_printf(&o->arena, "%s%s%soutbox", k->opts.own_namespace, k->opts.app_id, topic)};
        if (!s->store || !s->publish_pubsub || !s->publish_topic || !s->pubsub || !s->spec.topic)
                return -ENOMEM;
        *ret = s;
        return 0;
}

static void add(struct outbox *o, struct outbox_store *s)
{
        struct outbox_store **end = &o->list;

        while (*end)
                end = &(*end)->next;
        *end = s;
}

int outbox_init(struct kernel *k)
{
        struct outbox *o = calloc(1, sizeof *o);
        struct outbox_store *s;
        int r = 0;

        if (!o)
                return -ENOMEM;
        k->pubsub->outbox = o;
        for (size_t i = 0; r == 0 && i < k->n_components; i++) {
                if (component_kind_of(k->all_components[i]) != KIND_STATE)
                        continue;
                r = read_store(k, o, component_spec_of(k->all_components[i]), &s);
                if (r == 0 && s)
                        add(o, s);
        }
        return r;
}

static struct outbox_store *find(const struct kernel *k, const char *store)
{
        struct outbox *o = k->pubsub ? k->pubsub->outbox : NULL;

        for (struct outbox_store *s = o ? o->list : NULL; s; s = s->next)
                if (!s->gone && strcmp(s->store, store) == 0)
                        return s;
        return NULL;
}

bool outbox_enabled(const struct kernel *k, const char *store)
{
        return find(k, store) != NULL;
}

/* ---- the transaction's side ---- */

static int fail(struct call *c, const char *err)
{
        struct error_details *d;

        call_fail(c, ERR_PUBLISH_OUTBOX, err);
        d = call_details(c);
        details_info(d, "appID", c->k->opts.app_id);
        details_info(d, "error", err);
        return -1;
}

static bool is_projection(struct call *c, const struct state_item *i)
{
        struct str v = rpc_md_get(&i->md, PROJECTION);

        return !i->is_delete && v.n && parse_truthy(arena_strdup(c->arena, v));
}

static struct str content_type_of(const struct state_item *i)
{
        struct str t = i->content_type.n ? i->content_type : rpc_md_get(&i->md, "contentType");

        return t.p ? t : STR("");
}

/* The event's data: a string's own text, all else as it stands. */
static struct str payload_of(struct call *c, const struct state_item *i)
{
        struct json_reader r;
        struct str text;

        if (c->door == DOOR_GRPC || !i->is_json || content_is_json(content_type_of(i)))
                return i->value;
        json_read_init(&r, i->value);
        return json_read_string(&r, c->arena, &text) ? text : i->value;
}

static int publish_one(struct call *c, const struct outbox_store *s, const struct state_item *item, const struct state_item *value,
                       struct str id, const char **ret_err)
{
        struct event_new n = {.id = id, .source = str_of(c->k->opts.app_id), .topic = STR(""), .pubsub = str_of(s->pubsub),
                              .content_type = content_type_of(value), .data = payload_of(c, value),
                              .tracestate = trace_value(c->trace, TRACE_STATE)};
        struct event_add *add = arena_alloc(c->arena, (item->md.n + 1) * sizeof *add);
        struct str traceid = publish_parent(c->trace);
        struct buf b = {0};
        struct event e;
        size_t n_add = 0;
        int r = add ? event_wrap(&b, &n) : -ENOMEM;

        *ret_err = NO_MEMORY;
        if (r == 0) {
                add[n_add++] = (struct event_add){"traceid", traceid, true};
                for (size_t i = 0; i < item->md.n; i++) {
                        struct rpc_md *md = &item->md.v[i];
                        if (!str_eqz(md->key, "data") && !str_eqz(md->key, "id"))
                                add[n_add++] = (struct event_add){arena_strdup(c->arena, md->key), md->value, true};
                }
                r = event_read(c->arena, buf_str(&b), &e, ret_err);
        }
        if (r == 0)
                r = event_extend(c->arena, &e, add, n_add);
        if (r == 0 && pubsub_publish(c->k, c->arena, &(struct publish){.pubsub = str_of(s->pubsub), .topic = str_of(s->spec.topic), .data = e.json},
                                     ret_err) != PUBLISHED)
                r = -EIO;
        buf_fini(&b);
        return r;
}

int outbox_publish(struct call *c, const char *store, struct state_item **items, size_t *n)
{
        const struct outbox_store *s = find(c->k, store);
        struct state_item *in = *items, *out = arena_alloc(c->arena, (*n * 2 + 1) * sizeof *out);
        size_t kept = 0, markers;

        if (!out)
                return fail(c, NO_MEMORY);
        for (size_t i = 0; i < *n; i++)
                if (!is_projection(c, &in[i]))
                        out[kept++] = in[i];
        markers = kept;
        for (size_t i = 0; i < kept; i++) {
                const struct state_item *value = &out[i];
                char *id = arena_alloc(c->arena, UUID_CHARS + sizeof "outbox-");
                const char *err = NO_MEMORY;
                if (out[i].is_delete)
                        continue;
                for (size_t j = 0; j < *n; j++)
                        if (is_projection(c, &in[j]) && str_eq(in[j].stored_key, out[i].stored_key))
                                value = &in[j];
                if (!id || uuid_random(id + strlen("outbox-")))
                        return fail(c, NO_MEMORY);
                memcpy(id, "outbox-", strlen("outbox-"));
                if (publish_one(c, s, &out[i], value, str_of(id), &err))
                        return fail(c, err);
                out[markers++] = (struct state_item){.key = str_of(id), .stored_key = str_of(id), .value = STR("\"0\""), .is_json = true};
        }
        *items = out;
        *n = markers;
        return 0;
}

/* ---- the other side ---- */

/* Sleeps, unless the subscription is stopping: then false. */
static bool rest(struct subscription *s, double seconds)
{
        double until = loop_now_exact() + seconds;

        while (!s->closed) {
                int r = cond_wait_until(&s->changed, until);
                if (r == -ETIMEDOUT)
                        return true;
                if (r)
                        return false;
        }
        return false;
}

struct marker {
        struct subscription *sub;
        const struct outbox_store *store;
        struct arena *a;
        struct state_item item;
        const char *err;
};

static int ask_store(struct marker *m, const char *method, struct str req, struct str *resp)
{
        struct component *c = kernel_component(m->sub->block->k, KIND_STATE, str_of(m->store->store));
        struct rpc_status st = {0};

        if (!c) {
                m->err = arena_printf(m->a, "cannot get outbox state: state store %s not found", m->store->store);
                return -1;
        }
        if (req.p && component_call_bytes(c, m->a, method, req, resp, &st) == 0)
                return 0;
        m->err = req.p ? arena_strdup(m->a, st.message) : NO_MEMORY;
        return -1;
}

static int look(struct marker *m)
{
        struct state_value v = {0};
        struct str resp;

        if (ask_store(m, STORE "Get", state_pack_get_request(m->a, &m->item), &resp) || state_read_get_response(m->a, resp, &v))
                return -1;
        if (v.data.n)
                return 0;
        m->err = arena_printf(m->a, "cannot publish outbox message to topic %s with pubsub %s: outbox state not found", m->store->publish_topic,
                              m->store->publish_pubsub);
        return -1;
}

static int forget(struct marker *m)
{
        struct str resp;

        return ask_store(m, STORE "Delete", state_pack_delete_request(m->a, &m->item), &resp);
}

/* 0; -1: in vain; -ECANCELED: stopping. */
static int with_retries(struct marker *m, int (*fn)(struct marker *))
{
        double end = loop_now_exact() + RETRY_TOTAL_S;

        for (double wait = RETRY_FIRST_S;; wait = wait * RETRY_FACTOR < RETRY_CAP_S ? wait * RETRY_FACTOR : RETRY_CAP_S) {
                if (fn(m) == 0)
                        return 0;
                if (loop_now_exact() + wait > end)
                        return -1;
                if (!rest(m->sub, wait))
                        return -ECANCELED;
        }
}

static enum outcome pass_on(struct message *msg, struct event *e, const struct outbox_store *s, const char **ret_err)
{
        struct event_add add[] = {{"topic", str_of(s->publish_topic), true}, {"pubsubname", str_of(s->publish_pubsub), true}};
        struct publish p = {.pubsub = str_of(s->publish_pubsub), .topic = str_of(s->publish_topic),
                            .content_type = event_text(&msg->arena, e, EVENT_DATACONTENTTYPE)};

        *ret_err = NO_MEMORY;
        if (event_extend(&msg->arena, e, add, 2))
                return OUTCOME_NACK;
        p.data = e->json;
        return pubsub_publish(msg->sub->block->k, &msg->arena, &p, ret_err) == PUBLISHED ? OUTCOME_ACK : OUTCOME_NACK;
}

static enum outcome handle(struct message *msg, const char **ret_err)
{
        const struct outbox_store *s = msg->sub->arg;
        struct marker m = {.sub = msg->sub, .store = s, .a = &msg->arena, .err = NO_MEMORY};
        struct event e;
        enum outcome outcome;
        int r;

        if (event_read(&msg->arena, msg->data, &e, ret_err))
                return OUTCOME_NACK;
        m.item.key = m.item.stored_key = event_text(&msg->arena, &e, EVENT_ID);
        if (!rest(msg->sub, SCAN_DELAY_S))
                return OUTCOME_HOLD;
        r = with_retries(&m, look);
        if (r == -ECANCELED)
                return OUTCOME_HOLD;
        if (r) {
                log_error(SCOPE, "failed to publish outbox topic to pubsub %s: %s, %s", s->publish_pubsub, m.err,
                          s->discard ? "discarding message" : "rejecting for later processing");
                *ret_err = m.err;
                return s->discard ? OUTCOME_ACK : OUTCOME_NACK;
        }
        outcome = pass_on(msg, &e, s, ret_err);
        if (outcome != OUTCOME_ACK)
                return outcome;
        r = with_retries(&m, forget);
        *ret_err = m.err;
        return r == 0 ? OUTCOME_ACK : r == -ECANCELED ? OUTCOME_HOLD : OUTCOME_NACK;
}

static void start_one(struct kernel *k, struct outbox_store *s)
{
        struct arena a = {0};
        const char *err = NULL;

        if (!kernel_component(k, KIND_PUBSUB, str_of(s->pubsub))) {
                log_warn(SCOPE, "could not subscribe to internal outbox topic: outbox pubsub %s not loaded", s->pubsub);
        } else if (subscription_start(&s->sub, k->pubsub, &s->spec, handle, s, &a, &err)) {
                s->sub = NULL;
                log_warn("dapr.runtime", "failed to subscribe to outbox topics: %s", err);
        } else {
                list_add_tail(&k->pubsub->internal, &s->sub->node);
        }
        arena_fini(&a);
}

static void stop_one(struct outbox_store *s)
{
        struct subscription *sub = s->sub;

        s->sub = NULL;
        if (!sub)
                return;
        list_del(&sub->node);
        subscription_stop(sub, false);
}

void outbox_start(struct kernel *k)
{
        struct outbox *o = k->pubsub->outbox;

        if (!o || o->started)
                return;
        o->started = true;
        for (struct outbox_store *s = o->list; s; s = s->next)
                if (!s->gone)
                        start_one(k, s);
}

static bool is_same(const struct outbox_store *a, const struct outbox_store *b)
{
        return a == b || (a && b && !strcmp(a->publish_pubsub, b->publish_pubsub) && !strcmp(a->publish_topic, b->publish_topic) &&
                          !strcmp(a->pubsub, b->pubsub) && a->discard == b->discard);
}

void outbox_changed(struct kernel *k, const char *store)
{
        struct outbox *o = k->pubsub->outbox;
        struct component *c = kernel_component(k, KIND_STATE, str_of(store));
        struct outbox_store *old = o ? find(k, store) : NULL, *s = NULL;

        if (!o || (c && read_store(k, o, component_spec_of(c), &s)) || is_same(old, s))
                return;
        if (old) {
                old->gone = true;
                stop_one(old);
        }
        if (s) {
                add(o, s);
                if (o->started && !o->stopped)
                        start_one(k, s);
        }
}

void outbox_broker_arrived(struct kernel *k, const char *pubsub)
{
        struct outbox *o = k->pubsub->outbox;

        for (struct outbox_store *s = o && o->started && !o->stopped ? o->list : NULL; s; s = s->next)
                if (!s->gone && !s->sub && strcmp(s->pubsub, pubsub) == 0)
                        start_one(k, s);
}

void outbox_stop(struct kernel *k)
{
        struct outbox *o = k->pubsub->outbox;

        if (!o)
                return;
        o->stopped = true;
        for (struct outbox_store *s = o->list; s; s = s->next)
                stop_one(s);
}

void outbox_fini(struct kernel *k)
{
        struct outbox *o = k->pubsub ? k->pubsub->outbox : NULL;
        struct arena a;

        if (!o)
                return;
        a = o->arena;
        free(o);
        arena_fini(&a);
        k->pubsub->outbox = NULL;
}
