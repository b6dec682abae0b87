/*
 * The HTTP form of the metadata: members in the reference's order, empty ones left out as encoding/json's omitempty does, one
 * newline at the end. The member "microdapr" of a component is ours: how the process behind it fares.
 */
#include <math.h>

#include "kernel/blocks/metadata.h"
#include "sdk/base/json.h"

static void plugin_state(struct json_writer *w, struct arena *a, const struct component *c)
{
        struct component_status s = {0};

        component_status_get(c, a, &s);
        json_key(w, STR("microdapr"));
        json_object_begin(w);
        json_kv(w, "state", str_of(plugin_state_name(s.state)));
        json_kv_nonempty(w, "plugin", str_of(s.plugin_name));
        json_kv_nonempty(w, "version", str_of(s.plugin_version));
        if (s.pid) {
                json_key(w, STR("pid"));
                json_int(w, s.pid);
        }
        if (s.foreign)
                json_kv_nonempty(w, "socket", str_of(s.socket));
        if (s.backend_known) {
                json_key(w, STR("backendReachable"));
                json_bool(w, s.backend_reachable);
        }
        json_key(w, STR("restarts"));
        json_uint(w, s.restarts);
        json_key(w, STR("sinceSeconds"));
        json_int(w, (int64_t)floor(s.since_s));
        if (s.last_death != DEATH_NONE)
                json_kv(w, "lastDeath", str_of(death_class_name(s.last_death)));
        json_kv_nonempty(w, "lastError", str_of(s.last_error));
        json_kv_nonempty(w, "fault", str_of(s.fault));
        json_object_end(w);
}

static void components(struct json_writer *w, struct kernel *k, struct arena *a, const metadata_message *m)
{
        if (!m->n_registered_components)
                return;
        json_key(w, STR("components"));
        json_array_begin(w);
        for (size_t i = 0; i < m->n_registered_components; i++) {
                const Dapr__Proto__Runtime__V1__RegisteredComponents *r = m->registered_components[i];
                json_object_begin(w);
                json_kv_nonempty(w, "name", str_of(r->name));
                json_kv_nonempty(w, "type", str_of(r->type));
                json_kv_nonempty(w, "version", str_of(r->version));
                if (r->n_capabilities) {
                        json_key(w, STR("capabilities"));
                        json_array_begin(w);
                        for (size_t j = 0; j < r->n_capabilities; j++)
                                json_string(w, str_of(r->capabilities[j]));
                        json_array_end(w);
                }
                if (i < k->n_components)
                        plugin_state(w, a, k->all_components[i]);
                json_object_end(w);
        }
        json_array_end(w);
}

static void subscriptions(struct json_writer *w, const metadata_message *m)
{
        static const char *const types[] = {"UNKNOWN", "DECLARATIVE", "PROGRAMMATIC", "STREAMING"};

        if (!m->n_subscriptions)
                return;
        json_key(w, STR("subscriptions"));
        json_array_begin(w);
        for (size_t i = 0; i < m->n_subscriptions; i++) {
                const Dapr__Proto__Runtime__V1__PubsubSubscription *s = m->subscriptions[i];
                json_object_begin(w);
                json_kv(w, "pubsubname", str_of(s->pubsub_name));
                json_kv(w, "topic", str_of(s->topic));
                if (s->n_metadata) {
                        json_key(w, STR("metadata"));
                        json_object_begin(w);
                        for (size_t j = 0; j < s->n_metadata; j++)
                                json_kv(w, s->metadata[j]->key, str_of(s->metadata[j]->value));
                        json_object_end(w);
                }
                if (s->rules && s->rules->n_rules) {
                        json_key(w, STR("rules"));
                        json_array_begin(w);
                        for (size_t j = 0; j < s->rules->n_rules; j++) {
                                json_object_begin(w);
                                json_kv_nonempty(w, "match", str_of(s->rules->rules[j]->match));
                                json_kv_nonempty(w, "path", str_of(s->rules->rules[j]->path));
                                json_object_end(w);
                        }
                        json_array_end(w);
                }
                json_kv(w, "deadLetterTopic", str_of(s->dead_letter_topic));
                json_kv(w, "type", str_of(types[(unsigned)s->type < 4 ? s->type : 0]));
                json_object_end(w);
        }
        json_array_end(w);
}

static void endpoints(struct json_writer *w, const metadata_message *m)
{
        if (!m->n_http_endpoints)
                return;
        json_key(w, STR("httpEndpoints"));
        json_array_begin(w);
        for (size_t i = 0; i < m->n_http_endpoints; i++) {
                json_object_begin(w);
                json_kv(w, "name", str_of(m->http_endpoints[i]->name));
                json_object_end(w);
        }
        json_array_end(w);
}

static void nonzero(struct json_writer *w, const char *key, int64_t v)
{
        if (v) {
                json_key(w, str_of(key));
                json_int(w, v);
        }
}

static void app(struct json_writer *w, const Dapr__Proto__Runtime__V1__AppConnectionProperties *p)
{
        json_key(w, STR("appConnectionProperties"));
        json_object_begin(w);
        nonzero(w, "port", p->port);
        json_kv_nonempty(w, "protocol", str_of(p->protocol));
        json_kv_nonempty(w, "channelAddress", str_of(p->channel_address));
        nonzero(w, "maxConcurrency", p->max_concurrency);
        if (p->health) {
                json_key(w, STR("health"));
                json_object_begin(w);
                json_kv_nonempty(w, "healthCheckPath", str_of(p->health->health_check_path));
                json_kv_nonempty(w, "healthProbeInterval", str_of(p->health->health_probe_interval));
                json_kv_nonempty(w, "healthProbeTimeout", str_of(p->health->health_probe_timeout));
                nonzero(w, "healthThreshold", p->health->health_threshold);
                json_object_end(w);
        }
        json_object_end(w);
}

static void actors(struct json_writer *w, const Dapr__Proto__Runtime__V1__ActorRuntime *r)
{
        static const char *const states[] = {"INITIALIZING", "DISABLED", "RUNNING"};

        json_key(w, STR("actorRuntime"));
        json_object_begin(w);
        json_kv(w, "runtimeStatus", str_of(states[(unsigned)r->runtime_status < 3 ? r->runtime_status : 0]));
        json_key(w, STR("hostReady"));
        json_bool(w, r->host_ready);
        json_kv_nonempty(w, "placement", str_of(r->placement));
        json_object_end(w);
}

void metadata_json(struct kernel *k, struct arena *a, const metadata_message *m, struct buf *out)
{
        struct json_writer w;

        json_write_init(&w, out);
        json_object_begin(&w);
        json_kv_nonempty(&w, "id", str_of(m->id));
        json_kv_nonempty(&w, "runtimeVersion", str_of(m->runtime_version));
        if (m->n_enabled_features) {
                json_key(&w, STR("enabledFeatures"));
                json_array_begin(&w);
                for (size_t i = 0; i < m->n_enabled_features; i++)
                        json_string(&w, str_of(m->enabled_features[i]));
                json_array_end(&w);
        }
        components(&w, k, a, m);
        json_key(&w, STR("extended"));
        json_object_begin(&w);
        for (size_t i = 0; i < m->n_extended_metadata; i++)
                json_kv(&w, m->extended_metadata[i]->key, str_of(m->extended_metadata[i]->value));
        json_object_end(&w);
        subscriptions(&w, m);
        endpoints(&w, m);
        app(&w, m->app_connection_properties);
        actors(&w, m->actor_runtime);
        json_key(&w, STR("workflows"));
        json_object_begin(&w);
        nonzero(&w, "connectedWorkers", m->workflows->connected_workers);
        json_object_end(&w);
        json_object_end(&w);
        buf_addc(out, '\n');
}
