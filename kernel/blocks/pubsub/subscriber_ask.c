/*
 * Programmatic subscriptions: the app is asked for them, over HTTP or gRPC, as often as the policy for that says. What cannot be
 * understood is an error of the whole answer, but for a subscription without routes, which is left out.
 */
#include <errno.h>

#include "dapr/proto/runtime/v1/appcallback.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.runtime.processor.subscription"

typedef Dapr__Proto__Runtime__V1__ListTopicSubscriptionsResponse list_response;
typedef Dapr__Proto__Runtime__V1__TopicSubscription topic_subscription;

struct ask {
        struct kernel *k;
        struct arena *a;
        struct app_response http;
        list_response *grpc;
        bool unimplemented;
        const char *err;
};

static int ask_http(void *arg, struct policy_try *t)
{
        struct ask *x = arg;
        struct http_header id = {STR("dapr-app-id"), str_of(x->k->opts.app_id)};
        struct app_request req = {.method = STR("GET"), .path = STR("/dapr/subscribe"), .headers = &id, .n_headers = 1,
                                  .content_type = STR("application/json")};
        int r = app_http(x->k->app, x->a, &req, &x->http);

        if (r)
                x->err = app_http_error(x->k->app, x->a, &req, r);
        return r;
}

static int ask_grpc(void *arg, struct policy_try *t)
{
        struct ask *x = arg;
        Google__Protobuf__Empty req = GOOGLE__PROTOBUF__EMPTY__INIT;
        struct rpc_status st = {0};
        int r = app_grpc(x->k->app, x->a, "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions", &req.base,
                         &dapr__proto__runtime__v1__list_topic_subscriptions_response__descriptor, &x->grpc, NULL, 0, &st);

        x->unimplemented = r == RPC_UNIMPLEMENTED;
        if (r == 0)
                return 0;
        x->grpc = NULL;
        if (x->unimplemented)
                return 0;
        x->err = arena_printf(x->a, "rpc error: code = %s desc = %.*s", rpc_code_name(r), STR_FMT(st.message));
        t->code = r;
        return -1;
}

static int take_http(struct pubsub_block *b, struct ask *x, struct subscription_spec ***ret, size_t *ret_n)
{
        struct subscription_spec **v = NULL;
        size_t n = 0, kept = 0;
        const char *err = "out of memory";

        if (x->http.status == 404) {
                log_debug(SCOPE, "user app did not subscribe to any topic");
                return 0;
        }
        if (x->http.status != 200) {
                log_error(SCOPE, "app returned http status code %d from subscription endpoint", x->http.status);
                return 0;
        }
        if (subscription_read_list(&b->arena, x->http.body, &v, &n, &err)) {
                x->err = arena_printf(x->a, "error getting topics from app: %s", err);
                log_error(SCOPE, "%s", x->err);
                return -EINVAL;
        }
        for (size_t i = 0; i < n; i++) {
                if (v[i]->n_rules)
                        v[kept++] = v[i];
                else
                        log_warn(SCOPE, "topic %s has an empty routes. removing from subscriptions list", v[i]->topic);
        }
        *ret = v;
        *ret_n = kept;
        return 0;
}

static const char *copy(struct arena *a, const char *s)
{
        return s && *s ? arena_strdup(a, str_of(s)) : "";
}

static struct subscription_spec *spec_of(struct arena *a, const topic_subscription *t)
{
        struct subscription_spec *s = arena_new(a, struct subscription_spec);
        size_t n = t->routes ? t->routes->n_rules : 0;

        if (!s || n >= SUBSCRIPTION_RULES_MAX)
                return NULL;
        *s = (struct subscription_spec){.origin = SUBSCRIPTION_PROGRAMMATIC, .name = "", .pubsub = copy(a, t->pubsub_name),
                                        .topic = copy(a, t->topic), .dead_letter = copy(a, t->dead_letter_topic)};
        s->rules = arena_alloc(a, (n + 1) * sizeof *s->rules);
        s->metadata = arena_alloc(a, (t->n_metadata + 1) * sizeof *s->metadata);
        if (!s->rules || !s->metadata || !s->pubsub || !s->topic || !s->dead_letter)
                return NULL;
        for (size_t i = 0; i < n; i++)
                s->rules[s->n_rules++] = (struct subscription_rule){copy(a, t->routes->rules[i]->match), copy(a, t->routes->rules[i]->path)};
        if ((t->routes && *t->routes->default_) || !s->n_rules)
                s->rules[s->n_rules++] = (struct subscription_rule){"", t->routes ? copy(a, t->routes->default_) : ""};
        for (size_t i = 0; i < t->n_metadata; i++)
                s->metadata[s->n_metadata++] = (struct subscription_item){copy(a, t->metadata[i]->key), copy(a, t->metadata[i]->value)};
        if (t->bulk_subscribe) {
                s->bulk = t->bulk_subscribe->enabled;
                s->bulk_max_messages = t->bulk_subscribe->max_messages_count;
                s->bulk_max_await_ms = t->bulk_subscribe->max_await_duration_ms;
        }
        return a->exhausted ? NULL : s;
}

static int take_grpc(struct pubsub_block *b, struct ask *x, struct subscription_spec ***ret, size_t *ret_n)
{
        size_t n = x->grpc ? x->grpc->n_subscriptions : 0;

        if (x->unimplemented)
                log_info(SCOPE, "pubsub subscriptions: gRPC app does not implement ListTopicSubscriptions");
        if (!n)
                log_debug(SCOPE, "user app did not subscribe to any topic");
        *ret = arena_alloc(&b->arena, (n + 1) * sizeof **ret);
        if (!*ret)
                return -ENOMEM;
        for (*ret_n = 0; *ret_n < n; ++*ret_n)
                if (!((*ret)[*ret_n] = spec_of(&b->arena, x->grpc->subscriptions[*ret_n])))
                        return -ENOMEM;
        return 0;
}

static int check_rules(struct subscription_spec *const *v, size_t n, struct ask *x)
{
        for (size_t i = 0; i < n; i++) {
                struct rule_set *rules = NULL;
                int r = rules_new(&rules, v[i], x->a, &x->err);
                rules_free(rules);
                if (r)
                        return r;
        }
        return 0;
}

static void log_topics(struct subscription_spec *const *v, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                struct buf b = {0};
                bool first = true;
                for (size_t j = 0; j < i; j++)
                        first &= strcmp(v[j]->pubsub, v[i]->pubsub) != 0;
                if (!first)
                        continue;
                for (size_t j = i; j < n; j++)
                        if (strcmp(v[j]->pubsub, v[i]->pubsub) == 0)
                                buf_printf(&b, "%s%s", buf_len(&b) ? " " : "", v[j]->topic);
                log_info(SCOPE, "app is subscribed to the following topics: [[%.*s]] through pubsub=%s", STR_FMT(buf_str(&b)), v[i]->pubsub);
                buf_fini(&b);
        }
}

int subscriber_ask(struct pubsub_block *b)
{
        struct kernel *k = b->k;
        struct arena a = {0};
        struct ask x = {.k = k, .a = &a};
        struct policy policy = {0};
        struct subscription_spec **v = NULL;
        size_t n = 0;
        bool grpc = app_is_grpc(k->app);
        int r;

        if (b->asked_app || !kernel_component_count(k, KIND_PUBSUB))
                return 0;
        b->asked_app = true;
        if (k->opts.disable_subscribe_endpoint) {
                log_warn(SCOPE, "Skipping programmatic subscription loading (see 'disable-init-endpoints' flag/annotation)");
                return 0;
        }
        resiliency_builtin(k, POLICY_INITIALIZATION_RETRIES, &policy);
        r = (int)policy_run(&policy, grpc ? ask_grpc : ask_http, &x);
        if (r) {
                if (r != POLICY_FAILED)
                        x.err = policy_result_text((enum policy_result)r);
                if (grpc)
                        log_error(SCOPE, "error getting topic list from app: %s", x.err);
                r = -EIO;
        } else {
                r = grpc ? take_grpc(b, &x, &v, &n) : take_http(b, &x, &v, &n);
        }
        if (r == 0)
                r = check_rules(v, n, &x);
        if (r == 0) {
                log_topics(v, n);
                b->programmatic = v;
                b->n_programmatic = n;
        } else {
                log_warn("dapr.runtime", "failed to subscribe to topics: %s", x.err ? x.err : "out of memory");
        }
        arena_fini(&a);
        return r;
}
