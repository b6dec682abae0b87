/* Subscription resources as the metadata lists them. v1alpha1 has one route, v2alpha1 rules and a default. */
#include <errno.h>

#include "kernel/blocks/metadata.h"
#include "sdk/base/json.h"

typedef Dapr__Proto__Runtime__V1__PubsubSubscription subscription;
typedef Dapr__Proto__Runtime__V1__PubsubSubscription__MetadataEntry entry;
typedef Dapr__Proto__Runtime__V1__PubsubSubscriptionRule rule;

enum { LIST_MAX = 256 };

static const char *text(struct json_reader *r, struct arena *a)
{
        struct str s;
        const char *z;

        if (json_peek(r) != JSON_STRING || !json_read_string(r, a, &s)) {
                json_skip(r);
                return "";
        }
        z = arena_strdup(a, s);
        return z ? z : "";
}

static void add_rule(struct arena *a, subscription *s, const char *match, const char *path)
{
        rule *x = arena_new(a, rule);

        if (!x || s->rules->n_rules == LIST_MAX)
                return;
        dapr__proto__runtime__v1__pubsub_subscription_rule__init(x);
        x->match = match;
        x->path = path;
        s->rules->rules[s->rules->n_rules++] = x;
}

static void read_rules(struct json_reader *r, struct arena *a, subscription *s)
{
        struct str name;

        if (!json_enter_array(r))
                return;
        while (json_next_element(r) && json_enter_object(r)) {
                const char *match = "", *path = "";
                while (json_next_member(r, a, &name)) {
                        if (str_eqz(name, "match"))
                                match = text(r, a);
                        else if (str_eqz(name, "path"))
                                path = text(r, a);
                        else
                                json_skip(r);
                }
                add_rule(a, s, match, path);
        }
}

static void read_routes(struct json_reader *r, struct arena *a, subscription *s)
{
        const char *fallback = NULL;
        struct str name;

        if (!json_enter_object(r))
                return;
        while (json_next_member(r, a, &name)) {
                if (str_eqz(name, "rules") && json_peek(r) == JSON_ARRAY)
                        read_rules(r, a, s);
                else if (str_eqz(name, "default"))
                        fallback = text(r, a);
                else
                        json_skip(r);
        }
        if (fallback && *fallback)
                add_rule(a, s, "", fallback);
}

static void read_metadata(struct json_reader *r, struct arena *a, subscription *s)
{
        struct str name;

        if (!json_enter_object(r))
                return;
        while (json_next_member(r, a, &name)) {
                entry *e = arena_new(a, entry);
                const char *key = arena_strdup(a, name), *value = text(r, a);
                if (!e || !key || s->n_metadata == LIST_MAX)
                        continue;
                dapr__proto__runtime__v1__pubsub_subscription__metadata_entry__init(e);
                e->key = key;
                e->value = value;
                s->metadata[s->n_metadata++] = e;
        }
}

static void read_spec(struct json_reader *r, struct arena *a, subscription *s)
{
        struct str name;

        if (!json_enter_object(r))
                return;
        while (json_next_member(r, a, &name)) {
                if (str_eqz(name, "pubsubname"))
                        s->pubsub_name = text(r, a);
                else if (str_eqz(name, "topic"))
                        s->topic = text(r, a);
                else if (str_eqz(name, "deadLetterTopic"))
                        s->dead_letter_topic = text(r, a);
                else if (str_eqz(name, "route"))
                        add_rule(a, s, "", text(r, a));
                else if (str_eqz(name, "routes") && json_peek(r) == JSON_OBJECT)
                        read_routes(r, a, s);
                else if (str_eqz(name, "metadata") && json_peek(r) == JSON_OBJECT)
                        read_metadata(r, a, s);
                else
                        json_skip(r);
        }
}

static subscription *read_one(struct arena *a, struct str json)
{
        subscription *s = arena_new(a, subscription);
        struct json_reader r;
        struct str name;

        if (!s)
                return NULL;
        dapr__proto__runtime__v1__pubsub_subscription__init(s);
        s->type = DAPR__PROTO__RUNTIME__V1__PUBSUB_SUBSCRIPTION_TYPE__DECLARATIVE;
        s->rules = arena_new(a, Dapr__Proto__Runtime__V1__PubsubSubscriptionRules);
        s->metadata = arena_zalloc(a, LIST_MAX * sizeof s->metadata[0]);
        if (!s->rules || !s->metadata)
                return NULL;
        dapr__proto__runtime__v1__pubsub_subscription_rules__init(s->rules);
        if (!(s->rules->rules = arena_zalloc(a, LIST_MAX * sizeof s->rules->rules[0])))
                return NULL;
        json_read_init(&r, json);
        if (!json_enter_object(&r))
                return s;
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "spec") && json_peek(&r) == JSON_OBJECT)
                        read_spec(&r, a, s);
                else
                        json_skip(&r);
        }
        return s;
}

int metadata_fill_subscriptions(struct kernel *k, struct arena *a, metadata_message *m)
{
        const struct resource_set *set = &k->resources;

        m->subscriptions = arena_zalloc(a, (set->n_others + 1) * sizeof m->subscriptions[0]);
        if (!m->subscriptions)
                return -ENOMEM;
        for (size_t i = 0; i < set->n_others; i++) {
                if (strcmp(set->others[i]->kind, "Subscription") != 0)
                        continue;
                if (!(m->subscriptions[m->n_subscriptions++] = read_one(a, set->others[i]->json)))
                        return -ENOMEM;
        }
        return 0;
}
