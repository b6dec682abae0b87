/*
 * The publish/subscribe block and its brokers. A broker's settings are made when its component comes up and are looked up by name
 * with it on each call.
 */
#include "kernel/blocks/pubsub/pubsub.h"

#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/pubsub.pb-c.h"
#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/outbox.h"
#include "kernel/blocks/pubsub/pull.h"
#include "sdk/base/loop.h"

double pubsub_now_ms(void)
{
        return loop_now_exact() * 1000;
}

/* ---- topics ---- */

/* Without blanks, as the reference takes them out before it looks. */
static struct str squeeze(struct arena *a, const char *text)
{
        size_t n = strlen(text), m = 0;
        char *p = arena_alloc(a, n + 1);

        for (size_t i = 0; p && i < n; i++)
                if (text[i] != ' ')
                        p[m++] = text[i];
        return str_n(p, p ? m : 0);
}

static int add_topics(struct arena *a, struct str list, struct topic_list *l)
{
        for (struct str rest = list, t; rest.p && (t = str_cut(&rest, ','), 1);) {
                bool there = false;
                for (size_t i = 0; i < l->n; i++)
                        there |= str_eq(l->v[i], t);
                if (there || l->n == PUBSUB_TOPICS_MAX)
                        continue;
                if ((l->n & (l->n - 1)) == 0)
                        l->v = arena_grow(a, l->v, l->n * sizeof *l->v, (l->n ? l->n * 2 : 1) * sizeof *l->v);
                if (!l->v) {
                        l->n = 0;
                        return -ENOMEM;
                }
                l->v[l->n++] = t;
        }
        return 0;
}

int topics_of(struct arena *a, const char *text, struct topic_list *ret)
{
        struct str s;

        *ret = (struct topic_list){0};
        if (!text || !*text)
                return 0;
        s = squeeze(a, text);
        return s.p ? add_topics(a, s, ret) : -ENOMEM;
}

int topics_of_app(struct arena *a, const char *text, const char *app_id, struct topic_list *ret)
{
        struct str s;
        int r = 0;

        *ret = (struct topic_list){0};
        if (!text || !*text)
                return 0;
        s = squeeze(a, text);
        if (!s.p)
                return -ENOMEM;
        for (struct str rest = s, row; r == 0 && rest.p && (row = str_cut(&rest, ';'), 1);) {
                struct str app = str_cut(&row, '=');
                if (!row.p || !str_eqz(app, app_id))
                        continue;
                r = add_topics(a, str_cut(&row, '='), ret);
        }
        return r;
}

static bool has_topic(const struct topic_list *l, struct str topic)
{
        for (size_t i = 0; i < l->n; i++)
                if (str_eq(l->v[i], topic))
                        return true;
        return false;
}

bool broker_allows(const struct broker *b, struct str topic, const struct topic_list *scoped)
{
        if (b->allowed.n && !has_topic(&b->allowed, topic))
                return false;
        if (!has_topic(&b->protected_, topic) && scoped->n == 0)
                return true;
        return has_topic(scoped, topic);
}

struct str broker_topic(struct arena *a, const struct kernel *k, const struct broker *b, struct str topic)
{
        return b->namespace_scoped ? str_of(arena_printf(a, "%s%.*s", k->opts.own_namespace, STR_FMT(topic))) : topic;
}

const char *broker_error(struct arena *a, const struct broker *b, const struct rpc_status *st)
{
        const char *text = b->foreign ? arena_printf(a, "rpc error: code = %s desc = %.*s", rpc_code_name(st->code), STR_FMT(st->message))
                                      : arena_strdup(a, st->message);
        return text ? text : "out of memory";
}

/* ---- brokers ---- */

struct broker *pubsub_broker(struct kernel *k, struct str name)
{
        struct component *c = kernel_component(k, KIND_PUBSUB, name);
        struct broker *b = c && k->pubsub ? map_get(&k->pubsub->brokers, name) : NULL;

        if (b)
                b->component = c;
        return b;
}

static void broker_free(struct broker *b)
{
        struct arena a;

        if (!b)
                return;
        a = b->arena;
        arena_fini(&a);
        free(b);
}

static int broker_new(struct broker **ret, struct kernel *k, struct component *c)
{
        const struct component_spec *spec = component_spec_of(c);
        struct broker *b = calloc(1, sizeof *b);
        struct arena *a;

        if (!b)
                return -ENOMEM;
        a = &b->arena;
        b->foreign = component_is_foreign(c);
        b->namespace_scoped = spec->namespace_scoped;
        b->name = arena_strdup(a, str_of(spec->name));
        if (!b->name || topics_of_app(a, component_metadata(spec, "publishingScopes"), k->opts.app_id, &b->publishing) ||
            topics_of_app(a, component_metadata(spec, "subscriptionScopes"), k->opts.app_id, &b->subscribing) ||
            topics_of(a, component_metadata(spec, "allowedTopics"), &b->allowed) ||
            topics_of(a, component_metadata(spec, "protectedTopics"), &b->protected_)) {
                broker_free(b);
                return -ENOMEM;
        }
        *ret = b;
        return 0;
}

static int block_get(struct kernel *k)
{
        struct pubsub_block *b = k->pubsub;

        if (b)
                return 0;
        b = k->pubsub = calloc(1, sizeof *b);
        if (!b)
                return -ENOMEM;
        b->k = k;
        list_init(&b->running);
        list_init(&b->streams);
        list_init(&b->internal);
        list_init(&b->starting);
        list_init(&b->opening);
        fmutex_init(&b->lock);
        cond_init(&b->hung);
        scope_init(&b->scope);
        scope_init(&b->leaving);
        return 0;
}

static bool same_topics(const struct topic_list *a, const struct topic_list *b)
{
        if (a->n != b->n)
                return false;
        for (size_t i = 0; i < a->n; i++)
                if (!str_eq(a->v[i], b->v[i]))
                        return false;
        return true;
}

static bool same_broker(const struct broker *a, const struct broker *b)
{
        return a->foreign == b->foreign && a->namespace_scoped == b->namespace_scoped && same_topics(&a->publishing, &b->publishing) &&
               same_topics(&a->subscribing, &b->subscribing) && same_topics(&a->allowed, &b->allowed) &&
               same_topics(&a->protected_, &b->protected_);
}

static int on_component(struct kernel *k, struct component *c, struct arena *a, const char **ret_err)
{
        struct broker *b, *old;

        if (component_kind_of(c) != KIND_PUBSUB)
                return 0;
        *ret_err = "out of memory";
        if (block_get(k) || broker_new(&b, k, c))
                return -1;
        old = map_get(&k->pubsub->brokers, str_of(b->name));
        if (old && same_broker(old, b)) { /* another version of its plugin: nothing new is to be known */
                broker_free(b);
                return 0;
        }
        if (map_set(&k->pubsub->brokers, str_of(b->name), b)) {
                broker_free(b);
                return -1;
        }
        b->retired = old;
        return 0;
}

/* ---- brokers that come, move and go ---- */

static bool tell(struct component *c, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *d)
{
        struct rpc_status st = {0};
        struct arena a = {0};
        void *resp;
        double old = fiber_set_deadline(loop_now_exact() + PUBSUB_PAUSE_S);
        int r = component_call(c, &a, method, req, d, &resp, &st);

        fiber_restore_deadline(old);
        arena_fini(&a);
        return r == 0;
}

static bool pause_broker(struct component *c)
{
        Dapr__Proto__Components__V1__PauseRequest req = DAPR__PROTO__COMPONENTS__V1__PAUSE_REQUEST__INIT;

        return tell(c, PUBSUB_SERVICE "Pause", &req.base, &dapr__proto__components__v1__pause_response__descriptor);
}

static void resume_broker(struct component *c)
{
        Dapr__Proto__Components__V1__ResumeRequest req = DAPR__PROTO__COMPONENTS__V1__RESUME_REQUEST__INIT;

        tell(c, PUBSUB_SERVICE "Resume", &req.base, &dapr__proto__components__v1__resume_response__descriptor);
}

static bool is_ours(struct kernel *k, const struct component *c)
{
        return k->pubsub && component_kind_of(c) == KIND_PUBSUB;
}

static void arrived(struct kernel *k, struct component *c)
{
        if (is_ours(k, c)) {
                subscriber_arrived(k->pubsub, component_name(c));
                outbox_broker_arrived(k, component_name(c));
        } else if (k->pubsub && component_kind_of(c) == KIND_STATE) {
                outbox_changed(k, component_name(c));
        }
}

/* A broker whose messages live in the old process is read until it is empty; another one hands them out anew, and stops at once. */
static void moving(struct kernel *k, struct component *c, struct component *to)
{
        struct broker *b = is_ours(k, c) ? pubsub_broker(k, str_of(component_name(c))) : NULL;

        if (!b)
                return;
        if (c == to)
                resume_broker(c);
        subscriber_moving(k->pubsub, b->name, to);
        b->paused = c != to && strcmp(component_spec_of(c)->type, "pubsub.in-memory") != 0 && pause_broker(c);
}

static void moved(struct kernel *k, struct component *c)
{
        struct broker *b = is_ours(k, c) ? pubsub_broker(k, str_of(component_name(c))) : NULL;

        if (b)
                subscriber_moved(k->pubsub, b->name, b->paused);
        else if (k->pubsub && component_kind_of(c) == KIND_STATE)
                outbox_changed(k, component_name(c));
}

static void leaving(struct kernel *k, struct component *c)
{
        if (is_ours(k, c))
                subscriber_left(k->pubsub, component_name(c));
        else if (k->pubsub && component_kind_of(c) == KIND_STATE)
                outbox_changed(k, component_name(c));
}

/* ---- life ---- */

static void app_changed(void *arg, bool healthy)
{
        struct kernel *k = arg;

        if (healthy) {
                subscriber_start(k->pubsub);
                outbox_start(k);
        } else {
                subscriber_stop(k->pubsub);
        }
}

static int init(struct kernel *k)
{
        int r = block_get(k);

        if (r || (r = pubsub_metrics_new(&k->pubsub->metrics, k)) || (r = subscriber_init(k->pubsub)) || (r = outbox_init(k)))
                return r;
        subscriptions_take_notes(k->pubsub, k->ledger);
        subscriptions_serve(k->pubsub, true);
        if (k->app)
                return app_watch_health(k->app, app_changed, k);
        outbox_start(k);
        return 0;
}

static void quiesce(struct kernel *k)
{
        if (!k->pubsub)
                return;
        if (!k->pubsub->closed)
                subscriptions_serve(k->pubsub, false);
        subscriber_quiesce(k->pubsub, k->upgrading);
        outbox_stop(k);
}

static void hang_up(struct kernel *k)
{
        if (k->pubsub)
                subscriber_hang_up(k->pubsub);
}

static void fini(struct kernel *k)
{
        struct pubsub_block *b = k->pubsub;

        if (!b)
                return;
        quiesce(k);
        hang_up(k);
        outbox_fini(k);
        scope_cancel(&b->scope);
        scope_join(&b->scope);
        for (struct map_entry *e = NULL; (e = map_next(&b->brokers, e));)
                for (struct broker *x = e->value, *next; x; x = next) {
                        next = x->retired;
                        broker_free(x);
                }
        map_fini(&b->brokers);
        map_fini(&b->paused);
        pubsub_metrics_free(b->metrics);
        free(b->declared);
        arena_fini(&b->arena);
        free(b);
        k->pubsub = NULL;
}

static const struct grpc_route grpc_rows[PUBSUB_GRPC_ROUTES] = {
        {"PublishEvent", "publish.v1", &dapr__proto__runtime__v1__publish_event_request__descriptor, &google__protobuf__empty__descriptor,
         publish_grpc, NULL},
        {"BulkPublishEvent", "publish.v1", &dapr__proto__runtime__v1__bulk_publish_request__descriptor,
         &dapr__proto__runtime__v1__bulk_publish_response__descriptor, publish_grpc_bulk, NULL},
        {"BulkPublishEventAlpha1", "publish.v1alpha1", &dapr__proto__runtime__v1__bulk_publish_request__descriptor,
         &dapr__proto__runtime__v1__bulk_publish_response__descriptor, publish_grpc_bulk, NULL},
        {"SubscribeTopicEventsAlpha1", "subscribe.v1alpha1", NULL, NULL, NULL, stream_subscribe},
};
const struct block pubsub_block_def = {
        .name = "pubsub",
        .http = pubsub_http_routes,
        .n_http = PUBSUB_HTTP_ROUTES,
        .grpc = grpc_rows,
        .n_grpc = PUBSUB_GRPC_ROUTES,
        .component = on_component,
        .init = init,
        .arrived = arrived,
        .moving = moving,
        .moved = moved,
        .leaving = leaving,
        .quiesce = quiesce,
        .hang_up = hang_up,
        .note = subscriptions_note,
        .fini = fini,
};
