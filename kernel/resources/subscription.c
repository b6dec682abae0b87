/* Subscriptions from JSON: of resources (whose YAML was turned into JSON when it was loaded) and of apps. */
#include "kernel/resources/subscription.h"

#include <errno.h>

#include "sdk/base/json.h"

enum { LIST_FIRST = 8, SUBSCRIPTIONS_MAX = 10000, METADATA_MAX = 1000 };

struct reader {
        struct json_reader r;
        struct arena *a;
        const char *error;          /* of type, first one */
        bool no_case;               /* of an app: names as encoding/json takes them, types as they are */
        bool has_route, has_routes; /* which of the two this version of the document has */
};

static bool is(const struct reader *j, struct str name, const char *want)
{
        return j->no_case ? str_ieq(name, str_of(want)) : str_eqz(name, want);
}

static const char *have_name(enum json_type t)
{
        return t == JSON_ARRAY ? "array" : t == JSON_OBJECT ? "object" : t == JSON_STRING ? "string" : t == JSON_NUMBER ? "number" : "bool";
}

/* Resources have the structures of apps under other names, one level deeper. */
static const char *place(const struct reader *j, const char *field)
{
        struct str rest = str_of(field), type = str_cut(&rest, '.');

        if (j->no_case || !rest.p)
                return field;
        type.n -= 4; /* "JSON" */
        return arena_printf(j->a, "%.*s%s.spec.%.*s", STR_FMT(type), str_eqz(type, "Subscription") ? "Spec" : "", STR_FMT(rest));
}

static void wrong(struct reader *j, const char *field, const char *want)
{
        enum json_type t = json_peek(&j->r);

        field = place(j, field);
        if (!j->error && t != JSON_ERROR)
                j->error = *field ? arena_printf(j->a, "json: cannot unmarshal %s into Go struct field %s of type %s", have_name(t), field, want)
                                  : arena_printf(j->a, "json: cannot unmarshal %s into Go value of type %s", have_name(t), want);
        json_skip(&j->r);
}

static const char *text(struct reader *j, const char *field)
{
        struct str s;
        const char *z;

        if (json_read_null(&j->r))
                return "";
        if (!j->no_case && (json_peek(&j->r) == JSON_NUMBER || json_peek(&j->r) == JSON_TRUE || json_peek(&j->r) == JSON_FALSE)) {
                json_read_raw(&j->r, &s); /* a scalar of YAML, as it was written */
        } else if (json_peek(&j->r) == JSON_NUMBER || !json_read_string(&j->r, j->a, &s)) {
                wrong(j, field, "string");
                return "";
        }
        z = arena_strdup(j->a, s);
        return z ? z : "";
}

static int number(struct reader *j, const char *field)
{
        int64_t v = 0;

        if (!json_read_null(&j->r) && (!json_read_int64(&j->r, &v) || v > INT32_MAX || v < INT32_MIN))
                wrong(j, field, "int32");
        return (int)v;
}

static bool enter_object(struct reader *j, const char *field, const char *want)
{
        if (json_read_null(&j->r))
                return false;
        if (json_enter_object(&j->r))
                return true;
        wrong(j, field, want);
        return false;
}

static void add_rule(struct reader *j, struct subscription_spec *s, const char *match, const char *path)
{
        if (s->n_rules == SUBSCRIPTION_RULES_MAX)
                return;
        if (s->n_rules % LIST_FIRST == 0)
                s->rules = arena_grow(j->a, s->rules, s->n_rules * sizeof *s->rules, (s->n_rules + LIST_FIRST) * sizeof *s->rules);
        if (s->rules)
                s->rules[s->n_rules++] = (struct subscription_rule){match, path};
        else
                s->n_rules = 0;
}

static void read_rules(struct reader *j, struct subscription_spec *s)
{
        struct str name;

        if (json_read_null(&j->r))
                return;
        if (!json_enter_array(&j->r)) {
                wrong(j, "RoutesJSON.routes.rules", "[]*pubsub.RuleJSON");
                return;
        }
        while (json_next_element(&j->r)) {
                const char *match = "", *path = "";
                if (!enter_object(j, "RoutesJSON.routes.rules", "pubsub.RuleJSON"))
                        continue;
                while (json_next_member(&j->r, j->a, &name)) {
                        if (is(j, name, "match"))
                                match = text(j, "RuleJSON.routes.rules.match");
                        else if (is(j, name, "path"))
                                path = text(j, "RuleJSON.routes.rules.path");
                        else
                                json_skip(&j->r);
                }
                add_rule(j, s, match, path);
        }
}

static const char *read_routes(struct reader *j, struct subscription_spec *s)
{
        const char *fallback = "";
        struct str name;

        if (!enter_object(j, "SubscriptionJSON.routes", "pubsub.RoutesJSON"))
                return fallback;
        while (json_next_member(&j->r, j->a, &name)) {
                if (is(j, name, "rules"))
                        read_rules(j, s);
                else if (is(j, name, "default"))
                        fallback = text(j, "RoutesJSON.routes.default");
                else
                        json_skip(&j->r);
        }
        return fallback;
}

static void read_metadata(struct reader *j, struct subscription_spec *s)
{
        struct str name;

        if (!enter_object(j, "SubscriptionJSON.metadata", "map[string]string"))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                const char *key = arena_strdup(j->a, name), *value = text(j, "SubscriptionJSON.metadata");
                if (!key || !value || s->n_metadata == METADATA_MAX)
                        continue;
                if (s->n_metadata % LIST_FIRST == 0)
                        s->metadata = arena_grow(j->a, s->metadata, s->n_metadata * sizeof *s->metadata,
                                                 (s->n_metadata + LIST_FIRST) * sizeof *s->metadata);
                if (!s->metadata)
                        return;
                s->metadata[s->n_metadata++] = (struct subscription_item){key, value};
        }
}

static void read_bulk(struct reader *j, struct subscription_spec *s)
{
        struct str name;

        if (!enter_object(j, "SubscriptionJSON.bulkSubscribe", "pubsub.BulkSubscribeJSON"))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                if (is(j, name, "enabled")) {
                        if (!json_read_null(&j->r) && !json_read_bool(&j->r, &s->bulk))
                                wrong(j, "BulkSubscribeJSON.bulkSubscribe.enabled", "bool");
                } else if (is(j, name, "maxMessagesCount")) {
                        s->bulk_max_messages = number(j, "BulkSubscribeJSON.bulkSubscribe.maxMessagesCount");
                } else if (is(j, name, "maxAwaitDurationMs")) {
                        s->bulk_max_await_ms = number(j, "BulkSubscribeJSON.bulkSubscribe.maxAwaitDurationMs");
                } else {
                        json_skip(&j->r);
                }
        }
}

/* The members of one subscription; the object has been entered. */
static void read_members(struct reader *j, struct subscription_spec *s)
{
        const char *route = "", *fallback = "";
        struct str name;

        s->name = s->pubsub = s->topic = s->dead_letter = "";
        while (json_next_member(&j->r, j->a, &name)) {
                if (is(j, name, "pubsubname"))
                        s->pubsub = text(j, "SubscriptionJSON.pubsubname");
                else if (is(j, name, "topic"))
                        s->topic = text(j, "SubscriptionJSON.topic");
                else if (is(j, name, "deadLetterTopic"))
                        s->dead_letter = text(j, "SubscriptionJSON.deadLetterTopic");
                else if (is(j, name, "route") && j->has_route)
                        route = text(j, "SubscriptionJSON.route");
                else if (is(j, name, "routes") && j->has_routes)
                        fallback = read_routes(j, s);
                else if (is(j, name, "metadata"))
                        read_metadata(j, s);
                else if (is(j, name, "bulkSubscribe"))
                        read_bulk(j, s);
                else
                        json_skip(&j->r);
        }
        if (*fallback)
                add_rule(j, s, "", fallback);
        else if (*route)
                add_rule(j, s, "", route);
}

const char *subscription_metadata(const struct subscription_spec *s, const char *key)
{
        for (size_t i = 0; i < s->n_metadata; i++)
                if (strcmp(s->metadata[i].key, key) == 0)
                        return s->metadata[i].value;
        return NULL;
}

int subscription_read(struct arena *a, const struct raw_resource *r, struct subscription_spec **ret, const char **ret_err)
{
        struct subscription_spec *s = arena_new(a, struct subscription_spec);
        bool is_first = str_has_suffix(str_of(r->api_version), STR("/v1alpha1"));
        struct reader j = {.a = a, .has_route = is_first, .has_routes = !is_first};
        struct str name;

        if (!s)
                return -ENOMEM;
        s->name = s->pubsub = s->topic = s->dead_letter = "";
        json_read_init(&j.r, r->json);
        if (json_enter_object(&j.r))
                while (json_next_member(&j.r, a, &name)) {
                        if (str_eqz(name, "spec") && json_enter_object(&j.r))
                                read_members(&j, s);
                        else
                                json_skip(&j.r);
                }
        s->origin = SUBSCRIPTION_DECLARATIVE;
        s->name = arena_strdup(a, str_of(r->name));
        if (a->exhausted || !s->name)
                return -ENOMEM;
        if (j.error) {
                *ret_err = arena_printf(a, "error unmarshaling JSON: while decoding JSON: %s", j.error);
                return -EINVAL;
        }
        *ret = s;
        return 0;
}

int subscription_read_list(struct arena *a, struct str json, struct subscription_spec ***ret, size_t *ret_n, const char **ret_err)
{
        struct reader j = {.a = a, .no_case = true, .has_route = true, .has_routes = true};
        struct subscription_spec **v = NULL;
        size_t n = 0;

        *ret = NULL;
        *ret_n = 0;
        json_read_init(&j.r, json);
        if (json_peek(&j.r) == JSON_END)
                return 0;
        if (!json_read_null(&j.r)) {
                if (!json_enter_array(&j.r))
                        wrong(&j, "", "[]pubsub.SubscriptionJSON");
                else
                        while (n < SUBSCRIPTIONS_MAX && json_next_element(&j.r)) {
                                struct subscription_spec *s = arena_new(a, struct subscription_spec);
                                if (n % LIST_FIRST == 0)
                                        v = arena_grow(a, v, n * sizeof *v, (n + LIST_FIRST) * sizeof *v);
                                if (!s || !v)
                                        return -ENOMEM;
                                s->name = s->pubsub = s->topic = s->dead_letter = "";
                                s->origin = SUBSCRIPTION_PROGRAMMATIC;
                                if (enter_object(&j, "", "pubsub.SubscriptionJSON"))
                                        read_members(&j, s);
                                s->origin = SUBSCRIPTION_PROGRAMMATIC;
                                v[n++] = s;
                        }
        }
        if (a->exhausted)
                return -ENOMEM;
        if (j.r.error || j.error) {
                *ret_err = j.r.error ? arena_printf(a, "%s at byte %zu", j.r.error, j.r.error_pos + 1) : j.error;
                return -EINVAL;
        }
        *ret = v;
        *ret_n = n;
        return 0;
}
