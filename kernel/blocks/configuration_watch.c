/*
 * Subscriptions to configuration changes. The stream to the store is the subscription's own fiber's; the app sees one subscription
 * however often the store's process was started anew. Updates are handed on one after the other: a slow app slows the stream down, and
 * the store keeps what comes meanwhile.
 */
#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/common/v1/common.pb-c.h"
#include "google/protobuf/any.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/configuration.h"
#include "kernel/front/http.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

static const double REOPEN_MIN_S = 0.02, REOPEN_MAX_S = 5;

/* ---- pushing to the app ---- */

static int by_key(const void *a, const void *b)
{
        typedef Microdapr__Plugin__V1__ConfigurationEntry__MetadataEntry pair_t;
        return strcmp((*(pair_t *const *)a)->key, (*(pair_t *const *)b)->key);
}

void configuration_write_item(struct json_writer *w, const config_entry *e)
{
        json_object_begin(w);
        json_kv_nonempty(w, "value", str_of(e->value));
        json_kv_nonempty(w, "version", str_of(e->version));
        if (e->n_metadata) {
                qsort(e->metadata, e->n_metadata, sizeof *e->metadata, by_key);
                json_key(w, STR("metadata"));
                json_object_begin(w);
                for (size_t i = 0; i < e->n_metadata; i++)
                        json_kv(w, e->metadata[i]->key, str_of(e->metadata[i]->value));
                json_object_end(w);
        }
        json_object_end(w);
}

static struct str event_body(struct arena *a, const struct config_watch *s, const config_update *u)
{
        struct buf b = {0};
        struct json_writer w;
        struct str ret;

        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "id", str_of(s->id));
        json_key(&w, STR("items"));
        json_object_begin(&w);
        for (size_t i = 0; i < u->n_items; i++) {
                json_key(&w, str_of(u->items[i]->key));
                configuration_write_item(&w, u->items[i]);
        }
        json_object_end(&w);
        json_object_end(&w);
        buf_addc(&b, '\n');
        ret = b.failed ? STR_NULL : json_escape_html(a, arena_str(a, buf_str(&b)));
        buf_fini(&b);
        return ret;
}

struct push {
        struct config_watch *s;
        struct arena *a;
        const char *path;
        struct str body;
        const char *error;
};

static int push_http(struct push *p, struct policy_try *t)
{
        struct app *app = p->s->b->k->app;
        struct app_request in = {.method = STR("POST"), .content_type = STR("application/json"), .body = p->body};
        struct app_response out = {0};
        int r;

        in.path = str_of(p->path);
        r = app_http(app, p->a, &in, &out);
        if (r) {
                p->error = app_http_error(app, p->a, &in, r);
                return r;
        }
        if (out.status == 200)
                return 0;
        t->code = out.status;
        p->error = arena_printf(p->a, "error sending configuration item to application, status %d", out.status);
        return -EIO;
}

/* A gRPC app sees an invocation of the path, with its slash, as from the reference. */
static int push_grpc(struct push *p, struct policy_try *t)
{
        Dapr__Proto__Common__V1__InvokeRequest req = DAPR__PROTO__COMMON__V1__INVOKE_REQUEST__INIT;
        Dapr__Proto__Common__V1__InvokeResponse *resp;
        Google__Protobuf__Any data = GOOGLE__PROTOBUF__ANY__INIT;
        struct rpc_status st = {0};

        data.value = pb_bytes(p->body);
        req.method = p->path;
        req.data = &data;
        req.content_type = "application/json";
        t->code = app_grpc(p->s->b->k->app, p->a, "/dapr.proto.runtime.v1.AppCallback/OnInvoke", &req.base,
                           &dapr__proto__common__v1__invoke_response__descriptor, &resp, NULL, 0, &st);
        if (!t->code)
                return 0;
        p->error = arena_printf(p->a, "rpc error: code = %s desc = %.*s", rpc_code_name(t->code), STR_FMT(st.message));
        return -EIO;
}

static int push_once(void *arg, struct policy_try *t)
{
        struct push *p = arg;

        p->error = "out of memory";
        return app_is_grpc(p->s->b->k->app) ? push_grpc(p, t) : push_http(p, t);
}

static void push_item(struct config_watch *s, const config_update *u, const char *key)
{
        struct arena a;
        struct policy policy;
        struct push p = {.s = s, .a = &a};
        struct str segment;
        enum policy_result r = POLICY_FAILED;

        arena_init(&a, 0);
        segment = app_is_grpc(s->b->k->app) ? str_of(key) : url_escape_path(&a, str_of(key));
        p.path = segment.p ? arena_printf(&a, "/configuration/%s/%.*s", s->store, STR_FMT(segment)) : NULL;
        p.body = event_body(&a, s, u);
        p.error = "out of memory";
        if (p.path && p.body.p) {
                resiliency_component(s->b->k, str_of(s->store), KIND_CONFIGURATION, POLICY_INBOUND, &policy);
                r = policy_run(&policy, push_once, &p);
        }
        if (r != POLICY_OK && !s->ended)
                log_error(CONFIGURATION_SCOPE, "error sending configuration item to the app: %s",
                          r == POLICY_FAILED ? p.error : policy_result_text(r));
        arena_fini(&a);
}

void config_watch_push(struct config_watch *s, const config_update *u)
{
        for (size_t i = 0; i < u->n_items && !s->ended; i++)
                push_item(s, u, u->items[i]->key);
}

/* ---- the stream ---- */

/* A text of c's kind for a failed stream, in the subscription's memory. */
static void note_failure(struct config_watch *s, struct component *store, const struct rpc_status *st)
{
        struct call words = {.k = s->b->k, .arena = &s->arena};

        s->code = st->code ? st->code : RPC_UNAVAILABLE;
        s->error = store ? call_component_error(&words, store, st) : "the store is gone";
        s->state = SUB_FAILED;
        cond_broadcast(&s->changed);
}

static int open_stream(struct config_watch *s, struct component *store, struct arena *a, struct rpc_call **ret, struct rpc_status *st)
{
        int code = component_open(store, a, CONFIGURATION_STORE "Subscribe", ret, st);

        if (code)
                return code;
        (*ret)->flags |= RPC_REUSE;
        if (rpc_send(*ret, s->request) == 0)
                rpc_send_end(*ret);
        return 0;
}

/* The stream stands: it is the one that counts, and one before it ends, after the update that it may be handing on. */
static void take_over(struct config_watch *s)
{
        struct fiber *before = s->reader;

        if (before == fiber_self())
                return;
        s->reader = fiber_self();
        if (before && !s->delivering)
                fiber_cancel(before);
}

static bool is_present(const struct config_watch *s)
{
        return !s->ended && (!s->reader || s->reader == fiber_self());
}

static void hand_on(struct config_watch *s, const config_update *u)
{
        s->delivering = true;
        s->deliver(s, u);
        s->delivering = false;
}

/* Reads until the stream's end. Returns whether it had come to stand. */
static bool read_updates(struct config_watch *s, struct rpc_call *rpc)
{
        const config_update *u;
        bool stood = false;

        while (rpc_recv_pb(rpc, &microdapr__plugin__v1__configuration_update__descriptor, &u) == 1) {
                if (!stood)
                        take_over(s);
                stood = true;
                if (s->state == SUB_OPENING) {
                        s->state = SUB_OPEN;
                        cond_broadcast(&s->changed);
                }
                if (u->n_items)
                        hand_on(s, u);
                if (!is_present(s) || s->away)
                        break;
        }
        return stood;
}

/* One life of the stream. Returns whether it had come to stand. */
static bool follow(struct config_watch *s, struct component *store)
{
        struct rpc_status st = {.code = RPC_UNAVAILABLE, .message = STR("the store is gone")};
        struct rpc_call *rpc;
        struct arena a;
        bool stood = false;

        arena_init(&a, 0);
        if (store && open_stream(s, store, &a, &rpc, &st) == 0) {
                stood = read_updates(s, rpc);
                fiber_shield_begin();
                rpc_cancel(rpc);
                rpc_finish(rpc);
                fiber_shield_end();
                st = rpc->status;
        }
        if (s->state == SUB_OPENING)
                note_failure(s, store, &st);
        else if (is_present(s) && !s->away)
                log_warn(CONFIGURATION_SCOPE, "the subscription %s to configuration store %s is made anew: %.*s", s->id, s->store,
                         STR_FMT(st.message));
        arena_fini(&a);
        return stood;
}

static void stream_fiber(void *arg)
{
        struct config_watch *s = arg;
        double pause = REOPEN_MIN_S;

        while (!s->ended) {
                while (s->away && !s->ended)
                        if (cond_wait(&s->changed))
                                break;
                if (follow(s, kernel_component(s->b->k, KIND_CONFIGURATION, str_of(s->store))))
                        pause = REOPEN_MIN_S;
                if (s->state == SUB_FAILED || !is_present(s) || fiber_sleep(pause))
                        break;
                pause = pause * 2 > REOPEN_MAX_S ? REOPEN_MAX_S : pause * 2;
        }
        if (s->reader == fiber_self())
                s->reader = NULL;
}

/* ---- a store that moves ---- */

struct move {
        struct config_watch *s;
        struct component *to;  /* NULL when it may not be used any more */
        bool over;
        struct cond changed;
};

static void move_over(struct move *m)
{
        m->to = NULL;
        m->over = true;
        cond_broadcast(&m->changed);
}

static void move_fiber(void *arg)
{
        struct move *m = arg;
        struct config_watch *s = m->s;
        struct rpc_call *rpc;
        struct rpc_status st = {0};
        struct arena a;
        bool opened;

        arena_init(&a, 0);
        opened = m->to && open_stream(s, m->to, &a, &rpc, &st) == 0;
        move_over(m); /* m is gone from here */
        if (opened) {
                read_updates(s, rpc);
                fiber_shield_begin();
                rpc_cancel(rpc);
                rpc_finish(rpc);
                fiber_shield_end();
        }
        arena_fini(&a);
        if (is_present(s) && s->reader)
                stream_fiber(s); /* it is the present one, and goes on as such */
}

void config_watch_move(struct config_watch *s, struct component *to)
{
        struct move m = {.s = s, .to = to};

        if (s->ended || s->state != SUB_OPEN)
                return;
        cond_init(&m.changed);
        if (fiber_go(&s->scope, "configuration-move", move_fiber, &m))
                return;
        fiber_shield_begin();
        while (!m.over)
                cond_wait(&m.changed);
        fiber_shield_end();
}

void config_watch_leave(struct config_watch *s)
{
        s->away = true;
        if (s->reader && !s->delivering && s->state == SUB_OPEN) {
                scope_cancel(&s->scope);
                fiber_shield_begin();
                scope_join(&s->scope);
                fiber_shield_end();
                scope_init(&s->scope);
                s->reader = NULL;
        }
}

void config_watch_arrive(struct config_watch *s)
{
        bool running = s->scope.count > 0;

        s->away = false;
        cond_broadcast(&s->changed);
        if (!running && !s->ended && fiber_go(&s->scope, "configuration-watch", stream_fiber, s))
                log_error(CONFIGURATION_SCOPE, "the subscription %s to configuration store %s cannot go on: out of memory", s->id, s->store);
}

/* ---- life ---- */

static void discard(struct config_watch *s)
{
        arena_fini(&s->arena);
        free(s);
}

static void stop_stream(struct config_watch *s)
{
        fiber_shield_begin();
        scope_cancel(&s->scope);
        scope_join(&s->scope);
        fiber_shield_end();
}

/* One attempt, until the stream stands. */
static int try_open(void *arg, struct policy_try *t)
{
        struct config_watch *s = arg;
        int r;

        scope_init(&s->scope);
        s->state = SUB_OPENING;
        s->error = "out of memory";
        r = fiber_go(&s->scope, "configuration-watch", stream_fiber, s);
        while (r == 0 && s->state == SUB_OPENING)
                r = cond_wait(&s->changed);
        if (r == 0 && s->state == SUB_OPEN)
                return 0;
        if (s->state == SUB_FAILED)
                t->code = s->code;
        stop_stream(s);
        return r ? r : -EIO;
}

static struct config_watch *make(struct configuration_block *b, const char *store, const ProtobufCMessage *request, struct str packed)
{
        struct config_watch *s = calloc(1, sizeof *s);

        if (!s)
                return NULL;
        arena_init(&s->arena, 0);
        cond_init(&s->changed);
        scope_init(&s->scope);
        list_init(&s->node);
        s->b = b;
        s->store = arena_strdup(&s->arena, str_of(store));
        s->request = request ? pb_pack(&s->arena, request) : arena_str(&s->arena, packed);
        if (s->store && s->request.p && uuid_random(s->id) == 0)
                return s;
        discard(s);
        return NULL;
}

int config_watch_start(struct call *c, struct configuration_block *b, struct component *store, const ProtobufCMessage *request,
                       void (*deliver)(struct config_watch *s, const config_update *u), struct config_watch **ret, const char **ret_err)
{
        struct config_watch *s = b->closed || b->count >= SUBSCRIPTIONS_MAX ? NULL : make(b, component_name(store), request, STR_NULL);
        struct policy p;
        enum policy_result r;

        *ret_err = b->closed ? "the runtime is shutting down" : b->count >= SUBSCRIPTIONS_MAX ? "too many subscriptions" : "out of memory";
        if (!s)
                return RPC_RESOURCE_EXHAUSTED;
        s->deliver = deliver;
        s->client = c->rpc;
        b->count++;
        resiliency_component(c->k, str_of(s->store), KIND_CONFIGURATION, POLICY_OUTBOUND, &p);
        r = policy_run(&p, try_open, s);
        if (r == POLICY_OK && b->closed) {
                stop_stream(s);
                r = POLICY_CANCELED;
        }
        if (r == POLICY_OK) {
                list_add_tail(&b->list, &s->node);
                *ret = s;
                return 0;
        }
        *ret_err = r == POLICY_FAILED ? arena_strdup(c->arena, str_of(s->error)) : policy_result_text(r);
        if (!*ret_err)
                *ret_err = "out of memory";
        b->count--;
        discard(s);
        return RPC_INTERNAL;
}

int config_watch_resume(struct configuration_block *b, const char *id, const char *store, struct str request)
{
        struct config_watch *s = store && strlen(id) == UUID_CHARS && b->count < SUBSCRIPTIONS_MAX ? make(b, store, NULL, request) : NULL;

        if (!s)
                return -ENOMEM;
        memcpy(s->id, id, UUID_CHARS);
        s->deliver = config_watch_push;
        s->state = SUB_OPEN;
        if (fiber_go(&s->scope, "configuration-watch", stream_fiber, s)) {
                discard(s);
                return -ENOMEM;
        }
        b->count++;
        list_add_tail(&b->list, &s->node);
        return 0;
}

void config_watch_end(struct config_watch *s)
{
        s->ended = true;
        list_del(&s->node);
        s->b->count--;
        stop_stream(s);
        discard(s);
}

void config_watch_ask_end(struct config_watch *s)
{
        s->ended = true;
        if (s->client)
                cond_broadcast(&s->changed);
        else
                config_watch_end(s);
}

struct config_watch *config_watch_find(struct configuration_block *b, const char *id)
{
        list_for_each(at, &b->list) {
                struct config_watch *s = list_entry(at, struct config_watch, node);
                if (!s->ended && !strcmp(s->id, id))
                        return s;
        }
        return NULL;
}
