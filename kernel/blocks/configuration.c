/*
 * The configuration building block: reading items, and subscriptions to their changes for gRPC apps (a stream) and HTTP apps (requests
 * to the app). Subscriptions live in configuration_watch.c.
 */
#include "kernel/blocks/configuration.h"

#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/runtime/v1/configuration.pb-c.h"
#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "kernel/policy/resiliency.h"
#include "kernel/super/ledger.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

typedef Dapr__Proto__Runtime__V1__GetConfigurationRequest get_request;
typedef Dapr__Proto__Runtime__V1__GetConfigurationResponse get_response;
typedef Dapr__Proto__Runtime__V1__GetConfigurationResponse__ItemsEntry get_entry;
typedef Dapr__Proto__Runtime__V1__SubscribeConfigurationRequest subscribe_request;
typedef Dapr__Proto__Runtime__V1__SubscribeConfigurationResponse subscribe_response;
typedef Dapr__Proto__Runtime__V1__SubscribeConfigurationResponse__ItemsEntry subscribe_entry;
typedef Dapr__Proto__Common__V1__ConfigurationItem item_t;
typedef Microdapr__Plugin__V1__ConfigurationGetRequest store_get;
typedef Microdapr__Plugin__V1__ConfigurationGetResponse store_items;
typedef Microdapr__Plugin__V1__ConfigurationSubscribeRequest store_subscribe;
typedef Microdapr__Plugin__V1__ConfigurationGetRequest__MetadataEntry metadata_t;

/* Entries of the contracts' maps have one layout. */
_Static_assert(sizeof(metadata_t) == sizeof(Dapr__Proto__Runtime__V1__GetConfigurationRequest__MetadataEntry), "layout of map entries");
_Static_assert(sizeof(Dapr__Proto__Common__V1__ConfigurationItem__MetadataEntry) ==
                       sizeof(Microdapr__Plugin__V1__ConfigurationEntry__MetadataEntry), "layout of map entries");
_Static_assert(sizeof(get_entry) == sizeof(subscribe_entry), "layout of map entries");

/* ---- parts ---- */

static struct component *find_store(struct call *c, const char *name)
{
        struct component *store = kernel_component(c->k, KIND_CONFIGURATION, str_of(name));

        if (!kernel_component_count(c->k, KIND_CONFIGURATION))
                call_fail(c, ERR_CONFIGURATION_STORE_NOT_CONFIGURED);
        else if (!store)
                call_fail(c, ERR_CONFIGURATION_STORE_NOT_FOUND, name);
        return store;
}

static void observe(struct call *c, const char *store, const char *operation, bool ok, double since)
{
        observe_component(c->k->observe, OBSERVE_CONFIGURATION, str_of(store), operation, ok, (loop_now_exact() - since) * 1000);
}

/* "[a b]" */
static const char *list_text(struct arena *a, const char *const *keys, size_t n)
{
        struct buf b = {0};
        const char *ret;

        for (size_t i = 0; i < n; i++)
                buf_printf(&b, "%s%s", i ? " " : "", keys[i]);
        ret = arena_printf(a, "[%.*s]", STR_FMT(buf_str(&b)));
        buf_fini(&b);
        return ret ? ret : "[]";
}

static item_t *item_of(struct arena *a, const config_entry *from)
{
        item_t *item = arena_new(a, item_t);

        if (!item)
                return NULL;
        dapr__proto__common__v1__configuration_item__init(item);
        item->value = from->value;
        item->version = from->version;
        item->metadata = (void *)from->metadata;
        item->n_metadata = from->n_metadata;
        return item;
}

/* Entries of a response's map; NULL: no memory. Of several with one key the last counts. */
static get_entry **entries_of(struct arena *a, config_entry *const *items, size_t n)
{
        get_entry **v = arena_alloc(a, n * sizeof *v);

        for (size_t i = 0; v && i < n; i++) {
                v[i] = arena_new(a, get_entry);
                if (!v[i])
                        return NULL;
                dapr__proto__runtime__v1__get_configuration_response__items_entry__init(v[i]);
                v[i]->key = items[i]->key;
                if (!(v[i]->value = item_of(a, items[i])))
                        return NULL;
        }
        return v;
}

/* ---- get ---- */

static store_items *get_items(struct call *c, const char *name, const store_get *ask)
{
        struct component *store = find_store(c, name);
        struct rpc_status st = {0};
        store_items *answer = NULL;
        const char *policy_error;
        double since = loop_now_exact();
        int code;

        if (!store)
                return NULL;
        code = resiliency_component_call(c->k, store, c->arena, CONFIGURATION_STORE "Get", &ask->base,
                                         &microdapr__plugin__v1__configuration_get_response__descriptor, &answer, &st, &policy_error);
        observe(c, name, "get", !code, since);
        if (!code)
                return answer;
        call_fail(c, ERR_CONFIGURATION_GET, list_text(c->arena, ask->keys, ask->n_keys), name,
                  policy_error ? policy_error : call_component_error(c, store, &st));
        return NULL;
}

static int get_configuration(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const get_request *in = (const void *)req;
        get_response *out = (void *)resp;
        store_get ask = MICRODAPR__PLUGIN__V1__CONFIGURATION_GET_REQUEST__INIT;
        store_items *answer;

        ask.keys = in->keys;
        ask.n_keys = in->n_keys;
        ask.metadata = (void *)in->metadata;
        ask.n_metadata = in->n_metadata;
        answer = get_items(c, in->store_name, &ask);
        if (!answer)
                return -1;
        out->items = entries_of(c->arena, answer->items, answer->n_items);
        out->n_items = answer->n_items;
        return out->items ? 0 : call_fail(c, ERR_CONFIGURATION_GET, list_text(c->arena, in->keys, in->n_keys), in->store_name, "out of memory");
}

/* ---- subscribe ---- */

static struct config_watch *subscribe(struct call *c, const char *name, const store_subscribe *ask,
                                      void (*deliver)(struct config_watch *s, const config_update *u))
{
        struct component *store = find_store(c, name);
        struct config_watch *s = NULL;
        const char *err;
        double since = loop_now_exact();
        int code;

        if (!store)
                return NULL;
        code = config_watch_start(c, c->k->watches, store, &ask->base, deliver, &s, &err);
        observe(c, name, "subscribe", !code, since);
        if (!code)
                return s;
        call_fail(c, ERR_CONFIGURATION_SUBSCRIBE, list_text(c->arena, ask->keys, ask->n_keys), name, err);
        return NULL;
}

static void send_update(struct config_watch *s, const config_update *u)
{
        subscribe_response out = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_CONFIGURATION_RESPONSE__INIT;
        struct arena a;
        struct str bytes;

        while (!s->announced && !s->ended)
                if (cond_wait(&s->changed))
                        return;
        if (s->ended)
                return;
        arena_init(&a, 0);
        out.id = s->id;
        out.items = (void *)entries_of(&a, u->items, u->n_items);
        out.n_items = u->n_items;
        bytes = out.items ? pb_pack(&a, &out.base) : STR_NULL;
        if (!bytes.p)
                log_error(CONFIGURATION_SCOPE, "an update of configuration store %s is lost: out of memory", s->store);
        else if (rpc_send(s->client, bytes))
                log_debug(CONFIGURATION_SCOPE, "the app's stream of subscription %s takes no update", s->id);
        arena_fini(&a);
}

static int by_text(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The first message tells the id. The call lasts until the app leaves or unsubscribes. */
static int subscribe_stream(struct call *c)
{
        subscribe_response hello = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_CONFIGURATION_RESPONSE__INIT;
        store_subscribe ask = MICRODAPR__PLUGIN__V1__CONFIGURATION_SUBSCRIBE_REQUEST__INIT;
        subscribe_request *in;
        struct config_watch *s;
        double since;
        int r = rpc_recv_pb(c->rpc, &dapr__proto__runtime__v1__subscribe_configuration_request__descriptor, &in);

        if (r <= 0)
                return r ? r : -EBADMSG;
        if (in->n_keys)
                qsort(in->keys, in->n_keys, sizeof *in->keys, by_text);
        ask.keys = in->keys;
        ask.n_keys = in->n_keys;
        ask.metadata = (void *)in->metadata;
        ask.n_metadata = in->n_metadata;
        s = subscribe(c, in->store_name, &ask, send_update);
        if (!s)
                return -1;
        hello.id = s->id;
        r = rpc_send_pb(c->rpc, &hello.base);
        s->announced = true;
        rpc_call_lasts(c->rpc);
        cond_broadcast(&s->changed);
        while (r == 0 && !s->ended)
                r = cond_wait(&s->changed);
        if (r == 0 && c->k->upgrading && c->k->watches->closed)
                r = call_fail_code(c, ERR_UNTYPED, 0, RPC_UNAVAILABLE, "daprd goes on in another program: subscribe again");
        since = loop_now_exact();
        config_watch_end(s);
        observe(c, in->store_name, "unsubscribe", true, since);
        return r;
}

static int unsubscribe(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const Dapr__Proto__Runtime__V1__UnsubscribeConfigurationRequest *in = (const void *)req;
        Dapr__Proto__Runtime__V1__UnsubscribeConfigurationResponse *out = (void *)resp;
        struct config_watch *s = config_watch_find(c->k->watches, in->id);
        const char *text;

        if (!s || !s->client) {
                text = arena_printf(c->arena, error_rows[ERR_CONFIGURATION_UNSUBSCRIBE].text, in->id, "subscription does not exist");
                out->message = text ? text : "";
                observe_error_code(c->k->observe, error_rows[ERR_CONFIGURATION_UNSUBSCRIBE].tag, error_rows[ERR_CONFIGURATION_UNSUBSCRIBE].category);
                return 0;
        }
        log_warn(CONFIGURATION_SCOPE, "Unsubscribing using UnsubscribeConfiguration is deprecated. Disconnect from the SubscribeConfiguration RPC instead.");
        config_watch_ask_end(s);
        out->ok = true;
        return 0;
}

/* ---- HTTP ---- */

/* Query parameters: all of `key`, and metadata.<k>. False = answered. */
static bool read_query(struct call *c, const char ***ret_keys, size_t *ret_n, metadata_t ***ret_md, size_t *ret_n_md)
{
        struct str rest = c->http->query, k, v;
        struct rpc_mdlist md = {0};
        size_t cap = 1;
        bool ok;

        for (size_t i = 0; i < rest.n; i++)
                cap += rest.p[i] == '&';
        *ret_keys = arena_alloc(c->arena, cap * sizeof **ret_keys);
        ok = *ret_keys && !call_query_metadata(c, &md) && (*ret_md = arena_alloc(c->arena, md.n * sizeof **ret_md));
        while (ok && *ret_n < cap && query_next(c->arena, &rest, &k, &v))
                if (str_eqz(k, "key"))
                        ok = ((*ret_keys)[(*ret_n)++] = arena_strdup(c->arena, v)) != NULL;
        for (; ok && *ret_n_md < md.n; ++*ret_n_md) {
                metadata_t *e = arena_new(c->arena, metadata_t);
                if (!(ok = e != NULL))
                        break;
                microdapr__plugin__v1__configuration_get_request__metadata_entry__init(e);
                e->key = arena_strdup(c->arena, md.v[*ret_n_md].key);
                e->value = arena_strdup(c->arena, md.v[*ret_n_md].value);
                ok = e->key && e->value;
                (*ret_md)[*ret_n_md] = e;
        }
        if (!ok) {
                call_fail(c, ERR_UNTYPED, "out of memory");
                reply_error(c);
        }
        return ok;
}

static int by_key(const void *a, const void *b)
{
        return strcmp((*(config_entry *const *)a)->key, (*(config_entry *const *)b)->key);
}

static void http_get(struct call *c)
{
        store_get ask = MICRODAPR__PLUGIN__V1__CONFIGURATION_GET_REQUEST__INIT;
        store_items *answer;
        struct buf b = {0};
        struct json_writer w;

        if (!read_query(c, (const char ***)&ask.keys, &ask.n_keys, &ask.metadata, &ask.n_metadata))
                return;
        answer = get_items(c, arena_strdup(c->arena, route_param(c, "storeName")), &ask);
        if (!answer) {
                reply_error(c);
                return;
        }
        if (!answer->n_items) {
                reply_empty(c);
                return;
        }
        qsort(answer->items, answer->n_items, sizeof *answer->items, by_key);
        json_write_init(&w, &b);
        json_object_begin(&w);
        for (size_t i = 0; i < answer->n_items; i++) {
                if (i + 1 < answer->n_items && !strcmp(answer->items[i]->key, answer->items[i + 1]->key))
                        continue; /* asked for twice */
                json_key(&w, str_of(answer->items[i]->key));
                configuration_write_item(&w, answer->items[i]);
        }
        json_object_end(&w);
        buf_addc(&b, '\n');
        if (b.failed) {
                call_fail(c, ERR_UNTYPED, "out of memory");
                reply_error(c);
        } else {
                reply_json(c, 200, json_escape_html(c->arena, buf_str(&b)));
        }
        buf_fini(&b);
}

static void http_subscribe(struct call *c)
{
        store_subscribe ask = MICRODAPR__PLUGIN__V1__CONFIGURATION_SUBSCRIBE_REQUEST__INIT;
        const char *name = arena_strdup(c->arena, route_param(c, "storeName"));
        struct config_watch *s = NULL;

        if (!read_query(c, (const char ***)&ask.keys, &ask.n_keys, (metadata_t ***)&ask.metadata, &ask.n_metadata))
                return;
        if (!find_store(c, name) || (!c->k->app && call_fail(c, ERR_APP_CHANNEL_NIL)) || !(s = subscribe(c, name, &ask, config_watch_push)))
                reply_error(c);
        else
                reply_json(c, 200, str_of(arena_printf(c->arena, "{\"id\":\"%s\"}\n", s->id)));
}

static void http_unsubscribe(struct call *c)
{
        const char *name = arena_strdup(c->arena, route_param(c, "storeName"));
        const char *id = arena_strdup(c->arena, route_param(c, "id")), *why;
        struct config_watch *s;
        struct buf b = {0};
        struct json_writer w;
        double since = loop_now_exact();

        if (!find_store(c, name)) {
                reply_error(c);
                return;
        }
        s = config_watch_find(c->k->watches, id);
        if (s && strcmp(s->store, name) != 0)
                s = NULL;
        if (s)
                config_watch_ask_end(s);
        observe(c, name, "unsubscribe", s != NULL, since);
        if (s) {
                reply_json(c, 200, STR("{\"ok\":true}\n"));
                return;
        }
        why = arena_printf(c->arena, "subscription with id %s does not exist", id);
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "message", str_of(arena_printf(c->arena, error_rows[ERR_CONFIGURATION_UNSUBSCRIBE].text, id, why ? why : "")));
        json_object_end(&w);
        buf_addc(&b, '\n');
        reply_json(c, 500, b.failed ? STR("{}\n") : json_escape_html(c->arena, buf_str(&b)));
        buf_fini(&b);
}

/* ---- the block ---- */

#define NOTE_WATCH "configuration watch" /* name: the id; text: store, space, request by base64 */

/* An HTTP app subscribes once: its subscriptions go over to another program. */
static void note(struct kernel *k, struct ledger *l)
{
        list_for_each(at, &k->watches->list) {
                const struct config_watch *s = list_entry(at, struct config_watch, node);
                if (s->client || s->ended)
                        continue;
                struct str request = base64_encode(&l->arena, s->request);
                const char *text = request.p ? arena_printf(&l->arena, "%s %.*s", s->store, STR_FMT(request)) : NULL;
                if (!text || ledger_add_note(l, NOTE_WATCH, s->id, text))
                        log_error(CONFIGURATION_SCOPE, "subscription %s to configuration store %s is lost: out of memory", s->id, s->store);
        }
}

static void take_note(struct kernel *k, const struct ledger_note *n)
{
        const char *space = strrchr(n->text, ' ');
        struct arena a;

        arena_init(&a, 0);
        struct str store = str_n(n->text, space ? (size_t)(space - n->text) : 0), request = space ? base64_decode(&a, str_of(space + 1)) : STR_NULL;
        if (!request.p || config_watch_resume(k->watches, n->name, arena_strdup(&a, store), request))
                log_error(CONFIGURATION_SCOPE, "subscription %s to a configuration store is lost", n->name);
        arena_fini(&a);
}

static int init(struct kernel *k)
{
        k->watches = calloc(1, sizeof *k->watches);
        if (!k->watches)
                return -ENOMEM;
        k->watches->k = k;
        list_init(&k->watches->list);
        for (size_t i = 0; k->ledger && i < k->ledger->n_notes; i++)
                if (strcmp(k->ledger->notes[i].what, NOTE_WATCH) == 0)
                        take_note(k, &k->ledger->notes[i]);
        return 0;
}

static struct config_watch *next_open(struct configuration_block *b)
{
        list_for_each(at, &b->list) {
                struct config_watch *s = list_entry(at, struct config_watch, node);
                if (!s->ended)
                        return s;
        }
        return NULL;
}

/* Streams end, which lets the APIs stop; apps are pushed to no more. */
static void hang_up(struct kernel *k)
{
        struct config_watch *s;

        if (!k->watches)
                return; /* the start failed before the block's */
        k->watches->closed = true;
        while ((s = next_open(k->watches)))
                config_watch_ask_end(s);
}

static struct config_watch *next_of_store(struct configuration_block *b, const char *store, unsigned round)
{
        list_for_each(at, &b->list) {
                struct config_watch *s = list_entry(at, struct config_watch, node);
                if (!s->ended && s->round != round && !strcmp(s->store, store)) {
                        s->round = round;
                        return s;
                }
        }
        return NULL;
}

/* fn parks, and the list may change meanwhile. */
static void each_watch(struct kernel *k, struct component *c, struct component *to, void (*fn)(struct config_watch *s, struct component *to))
{
        struct config_watch *s;
        unsigned round;

        if (component_kind_of(c) != KIND_CONFIGURATION || !k->watches)
                return;
        round = ++k->watches->round;
        while ((s = next_of_store(k->watches, component_name(c), round)))
                fn(s, to);
}

static void leave_one(struct config_watch *s, struct component *to)
{
        config_watch_leave(s);
}

static void arrive_one(struct config_watch *s, struct component *to)
{
        config_watch_arrive(s);
}

static void arrived(struct kernel *k, struct component *c)
{
        each_watch(k, c, NULL, arrive_one);
}

static void moving(struct kernel *k, struct component *c, struct component *to)
{
        each_watch(k, c, to, config_watch_move);
}

static void leaving(struct kernel *k, struct component *c)
{
        each_watch(k, c, NULL, leave_one);
}

static void fini(struct kernel *k)
{
        free(k->watches);
        k->watches = NULL;
}

#define HTTP(prefix, version)                                                                                                            \
        {"GET", prefix "configuration/{storeName}", "configuration", version, "GetConfiguration", http_get},                             \
        {"GET", prefix "configuration/{storeName}/subscribe", "configuration", version, "SubscribeConfiguration", http_subscribe},       \
        {"GET", prefix "configuration/{storeName}/{id}/unsubscribe", "configuration", version, "UnsubscribeConfiguration", http_unsubscribe}
static const struct http_route http_routes[] = {HTTP("/v1.0/", "v1"), HTTP("/v1.0-alpha1/", "v1alpha1")};

#define GRPC(suffix, group)                                                                                                              \
        {"GetConfiguration" suffix, group, &dapr__proto__runtime__v1__get_configuration_request__descriptor,                             \
         &dapr__proto__runtime__v1__get_configuration_response__descriptor, get_configuration, NULL},                                    \
        {"SubscribeConfiguration" suffix, group, NULL, NULL, NULL, subscribe_stream},                                                    \
        {"UnsubscribeConfiguration" suffix, group, &dapr__proto__runtime__v1__unsubscribe_configuration_request__descriptor,             \
         &dapr__proto__runtime__v1__unsubscribe_configuration_response__descriptor, unsubscribe, NULL}
static const struct grpc_route grpc_routes[] = {GRPC("", "configuration.v1"), GRPC("Alpha1", "configuration.v1alpha1")};

const struct block configuration_block_def = {
        .name = "configuration",
        .http = http_routes,
        .n_http = sizeof http_routes / sizeof *http_routes,
        .grpc = grpc_routes,
        .n_grpc = sizeof grpc_routes / sizeof *grpc_routes,
        .init = init,
        .arrived = arrived,
        .moving = moving,
        .leaving = leaving,
        .hang_up = hang_up,
        .note = note,
        .fini = fini,
};
