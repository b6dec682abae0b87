/*
 * Reading from input bindings. While the app is healthy every component that the app wants (or whose direction says so) has a reader:
 * a fiber that keeps one Read stream open and opens it again when it ends. Each event has its own fiber, which delivers it and sends
 * its acknowledgement; nothing is acknowledged before the app has answered.
 *
 * Stopping: no more events are taken (late ones are answered with a failure, so that the component delivers them again), those in the
 * app's hands are awaited, their acknowledgements go out, then the stream is closed.
 *
 * A stream outlives its reader's loop as long as one of its events does (refs): an event of a process that has died is still
 * delivered, its acknowledgement goes nowhere.
 */
#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/bindings.pb-c.h"
#include "kernel/app/app.h"
#include "kernel/blocks/bindings.h"
#include "kernel/observe/observe.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"

#define READ "/dapr.proto.components.v1.InputBinding/Read"
#define INPUT_SCOPE "dapr.runtime.processor.binding.input"

enum { EVENTS_AT_ONCE = 1000, CLOSE_MS = 400, LINGER_MS = 400, REOPEN_MIN_MS = 20, REOPEN_MAX_MS = 5000, STABLE_MS = 10000 };

struct reader {
        struct bindings *b;
        struct binding *x;
        struct scope scope;        /* the loop */
        struct scope events;
        struct fsem slots;         /* for events in flight */
        struct cond changed;       /* an event has ended, or the loop has */
        size_t in_flight;
        bool closed, loop_ended;
        struct stream *stream;     /* the present one */
        struct reader *older;      /* reads from where the component was until the move is over */
};

struct stream {
        struct rpc_call *rpc;
        struct arena arena;
        struct fmutex sending;
        unsigned refs;
        bool dead;                 /* finished: nothing can be sent */
};

struct event {
        struct reader *r;
        struct stream *s;
        struct arena arena;
        const char *id;
        struct binding_event e;
};

static void stream_unref(struct stream *s)
{
        if (--s->refs)
                return;
        arena_fini(&s->arena);
        free(s);
}

/* ---- one event ---- */

static void acknowledge(struct event *v, struct str reply, const char *err)
{
        Dapr__Proto__Components__V1__ReadRequest ack = DAPR__PROTO__COMPONENTS__V1__READ_REQUEST__INIT;
        Dapr__Proto__Components__V1__AckResponseError failed = DAPR__PROTO__COMPONENTS__V1__ACK_RESPONSE_ERROR__INIT;
        struct stream *s = v->s;
        int r = -EPIPE;

        ack.message_id = v->id;
        ack.response_data = pb_bytes(reply);
        if (err) {
                failed.message = err;
                ack.response_error = &failed;
        }
        fiber_shield_begin();
        if (fmutex_lock(&s->sending) == 0) {
                struct str bytes = s->dead ? STR_NULL : pb_pack(&v->arena, &ack.base);
                r = bytes.p ? rpc_send(s->rpc, bytes) : -EPIPE;
                fmutex_unlock(&s->sending);
        }
        fiber_shield_end();
        if (r)
                log_error(INPUT_SCOPE, "error when ack'ing message %s of binding %s", v->id, v->r->x->name);
}

static void deliver(struct event *v)
{
        struct reader *r = v->r;
        struct str reply = STR_NULL;
        const char *err = NULL;
        double began = loop_now_exact();

        if (r->closed) {
                acknowledge(v, reply, "input binding is closed");
                return;
        }
        if (bindings_to_app(r->b, &v->e, &reply, &err) == 0)
                err = NULL;
        observe_component(r->b->k->observe, OBSERVE_INPUT_BINDING, str_of(r->x->name), "", !err, (loop_now_exact() - began) * 1000);
        if (err)
                log_debug(INPUT_SCOPE, "error from app consumer for binding [%s]: %s", r->x->name, err);
        acknowledge(v, reply, err);
}

static void event_end(struct event *v)
{
        struct reader *r = v->r;

        stream_unref(v->s);
        arena_fini(&v->arena);
        free(v);
        r->in_flight--;
        fsem_give(&r->slots);
        cond_broadcast(&r->changed);
}

static void event_fiber(void *arg)
{
        struct event *v = arg;

        deliver(v);
        event_end(v);
}

/* The message lives in the stream's memory until the next one: the event takes a copy. */
static int event_fill(struct event *v, const Dapr__Proto__Components__V1__ReadResponse *m)
{
        struct arena *a = &v->arena;

        v->id = arena_strdup(a, str_of(m->message_id));
        v->e = (struct binding_event){.binding = v->r->x, .arena = a, .data = arena_str(a, pb_str(m->data))};
        for (size_t i = 0; i < m->n_metadata; i++) {
                struct str key = arena_str(a, str_of(m->metadata[i]->key)), value = arena_str(a, str_of(m->metadata[i]->value));
                if (!key.p || !value.p || rpc_md_add(&v->e.md, a, key, value))
                        return -ENOMEM;
        }
        return v->id && v->e.data.p ? 0 : -ENOMEM;
}

/* Takes a slot of the reader's. 0 or -errno. */
static int event_start(struct reader *r, struct stream *s, const Dapr__Proto__Components__V1__ReadResponse *m)
{
        struct event *v = calloc(1, sizeof *v);
        int e;

        if (!v) {
                fsem_give(&r->slots);
                return -ENOMEM;
        }
        arena_init(&v->arena, 0);
        v->r = r;
        v->s = s;
        s->refs++;
        r->in_flight++;
        e = event_fill(v, m);
        if (e == 0)
                e = fiber_go(&r->events, "binding-event", event_fiber, v);
        if (e)
                event_end(v);
        return e;
}

/* ---- the stream ---- */

static int open_stream(struct reader *r, struct component *c, struct stream **ret, struct rpc_status *st)
{
        struct stream *s = c ? calloc(1, sizeof *s) : NULL;
        int code;

        if (!c) {
                *st = (struct rpc_status){.code = RPC_NOT_FOUND, .message = STR("it is gone")};
                return RPC_NOT_FOUND;
        }

        if (!s) {
                *st = (struct rpc_status){.code = RPC_RESOURCE_EXHAUSTED, .message = STR("out of memory")};
                return RPC_RESOURCE_EXHAUSTED;
        }
        arena_init(&s->arena, 0);
        fmutex_init(&s->sending);
        s->refs = 1;
        code = component_open(c, &s->arena, READ, &s->rpc, st);
        if (code) {
                st->message = STR_NULL; /* it lies in the arena */
                stream_unref(s);
                return code;
        }
        s->rpc->flags |= RPC_REUSE;
        *ret = s;
        return 0;
}

static void read_events(struct reader *r, struct stream *s)
{
        const Dapr__Proto__Components__V1__ReadResponse *m;

        while (fsem_take(&r->slots) == 0) {
                if (rpc_recv_pb(s->rpc, &dapr__proto__components__v1__read_response__descriptor, &m) != 1) {
                        fsem_give(&r->slots);
                        break;
                }
                if (event_start(r, s, m))
                        break;
        }
}

static void close_stream(struct reader *r, struct stream *s)
{
        fiber_shield_begin();
        if (fmutex_lock(&s->sending) == 0) {
                s->dead = true;
                rpc_cancel(s->rpc);
                rpc_finish(s->rpc);
                fmutex_unlock(&s->sending);
        }
        fiber_shield_end();
        if (!r->closed && s->rpc->status.code && s->rpc->status.code != RPC_CANCELLED)
                log_error(INPUT_SCOPE, "failed to receive binding message of %s: rpc error: code = %s desc = %.*s", r->x->name,
                          rpc_code_name(s->rpc->status.code), STR_FMT(s->rpc->status.message));
}

static void loop_fiber(void *arg)
{
        struct reader *r = arg;
        unsigned pause_ms = REOPEN_MIN_MS;

        while (!r->closed) {
                struct rpc_status st = {0};
                double began = loop_now_exact();
                int code = r->stream ? 0 : open_stream(r, binding_component(r->b->k, r->x), &r->stream, &st);
                if (code == 0) {
                        read_events(r, r->stream);
                        close_stream(r, r->stream);
                        stream_unref(r->stream);
                        r->stream = NULL;
                } else if (!r->closed) {
                        log_error(BINDINGS_SCOPE, "error reading from input binding %s: %s", r->x->name, rpc_code_name(code));
                }
                if (loop_now_exact() - began > STABLE_MS / 1e3)
                        pause_ms = REOPEN_MIN_MS;
                if (r->closed || fiber_sleep(pause_ms / 1e3))
                        break;
                pause_ms = pause_ms * 2 > REOPEN_MAX_MS ? REOPEN_MAX_MS : pause_ms * 2;
        }
        r->loop_ended = true;
        cond_broadcast(&r->changed);
}

/* ---- readers ---- */

/* More than the app takes at once would only wait, here instead of in the component, and hold up a stop. */
static int events_at_once(const struct kernel *k)
{
        int n = k->opts.app_max_concurrency;

        return n > 0 && n < EVENTS_AT_ONCE ? n : EVENTS_AT_ONCE;
}

static struct reader *reader_new(struct bindings *b, struct binding *x)
{
        struct reader *r = calloc(1, sizeof *r);

        if (!r)
                return NULL;
        r->b = b;
        r->x = x;
        scope_init(&r->scope);
        scope_init(&r->events);
        cond_init(&r->changed);
        fsem_init(&r->slots, events_at_once(b->k));
        return r;
}

/* Takes r. */
static int reader_run(struct reader *r)
{
        int e = fiber_go(&r->scope, "binding-read", loop_fiber, r);

        if (e) {
                if (r->stream) {
                        close_stream(r, r->stream);
                        stream_unref(r->stream);
                }
                free(r);
                return e;
        }
        r->x->reader = r;
        return 0;
}

static int reader_start(struct bindings *b, struct binding *x)
{
        struct reader *r = reader_new(b, x);

        return r ? reader_run(r) : -ENOMEM;
}

/* One more, on the instance that takes over; the present one goes on beside it. */
static int reader_start_at(struct bindings *b, struct binding *x, struct component *to, struct reader *older)
{
        struct reader *r = reader_new(b, x);
        struct rpc_status st = {0};

        if (!r)
                return -ENOMEM;
        r->older = older;
        if (open_stream(r, to, &r->stream, &st))
                r->stream = NULL; /* the loop tries again */
        return reader_run(r);
}

/* Half-closes: a component that is done with its acknowledgements ends the stream; one that does not is cut off soon. */
static void end_stream(struct reader *r)
{
        double until = loop_now_exact() + CLOSE_MS / 1e3;
        struct stream *s = r->stream;

        if (s) {
                s->refs++;
                if (fmutex_lock(&s->sending) == 0) {
                        if (!s->dead)
                                rpc_send_end(s->rpc);
                        fmutex_unlock(&s->sending);
                }
                stream_unref(s);
        }
        while (r->stream && !r->loop_ended)
                if (cond_wait_until(&r->changed, until))
                        break;
        scope_cancel(&r->scope);
        scope_join(&r->scope);
}

static void wait_in_flight(struct reader *r)
{
        while (r->in_flight)
                cond_wait(&r->changed);
}

static void reader_stop(struct reader *r)
{
        bool busy;

        if (!r)
                return;
        r->closed = true;
        fiber_shield_begin();
        busy = r->in_flight > 0;
        wait_in_flight(r);
        /* a component of the reference's contract may hand its last answers on by itself: it gets the reference's moment for that */
        if (busy && r->x->foreign)
                fiber_sleep(LINGER_MS / 1e3);
        wait_in_flight(r);
        end_stream(r);
        scope_join(&r->events);
        fiber_shield_end();
        free(r);
}

static void stop_reading(struct binding *x)
{
        struct reader *r = x->reader;

        x->reader = NULL;
        while (r) {
                struct reader *older = r->older;
                reader_stop(r);
                r = older;
        }
}

/* ---- all of them ---- */

/* The app is asked, then reading starts. */
static void start_one(struct bindings *b, struct binding *x)
{
        const char *err = NULL;
        struct arena a;
        int wants;

        arena_init(&a, 0);
        wants = bindings_app_wants(b, x, &a, &err);
        if (wants < 0)
                log_warn("dapr.runtime", "failed to read from bindings: %s ", err ? err : "out of memory");
        else if (!wants)
                log_info(BINDINGS_SCOPE, "app has not subscribed to binding %s.", x->name);
        else if (reader_start(b, x))
                log_error(BINDINGS_SCOPE, "error reading from input binding %s: out of memory", x->name);
        arena_fini(&a);
}

static void stop_fiber(void *arg)
{
        stop_reading(arg);
}

static void stop_all(struct bindings *b)
{
        struct scope scope;

        scope_init(&scope);
        for (struct map_entry *e = NULL; (e = map_next(&b->map, e));) {
                struct binding *x = e->value;
                if (x->reader && fiber_go(&scope, "binding-stop", stop_fiber, x))
                        stop_reading(x);
        }
        fiber_shield_begin();
        scope_join(&scope);
        fiber_shield_end();
}

/* In the order of their initialisation; the map may change while the app is asked. */
static void start_all(struct bindings *b)
{
        struct kernel *k = b->k;

        for (size_t i = 0; i < k->n_components && b->reading; i++) {
                struct binding *x;
                if (component_kind_of(k->all_components[i]) != KIND_BINDING)
                        continue;
                x = map_get(&b->map, str_of(component_name(k->all_components[i])));
                if (x && x->input && !x->reader)
                        start_one(b, x);
        }
}

static void app_changed(void *arg, bool healthy)
{
        struct bindings *b = arg;

        if (fmutex_lock(&b->changing))
                return;
        b->reading = healthy && !b->stopped;
        if (b->reading)
                start_all(b);
        else
                stop_all(b);
        fmutex_unlock(&b->changing);
}

int bindings_input_init(struct kernel *k)
{
        struct bindings *b = k->bindings;

        if (!k->app || b->watching)
                return 0;
        b->watching = true;
        return app_watch_health(k->app, app_changed, b);
}

/* ---- components that come, change and go ---- */

static void stop_retired(struct binding *x)
{
        for (struct binding *old = x->retired; old; old = old->retired)
                stop_reading(old);
}

void bindings_input_arrived(struct bindings *b, struct binding *x)
{
        if (!b->reading || fmutex_lock(&b->changing))
                return;
        stop_retired(x);
        if (b->reading && x->input && !x->reader && binding_component(b->k, x))
                start_one(b, x);
        fmutex_unlock(&b->changing);
}

/* What is read now: of x, or of the one that x has replaced. */
static struct reader *present_reader(struct binding *x)
{
        for (; x; x = x->retired)
                if (x->reader)
                        return x->reader;
        return NULL;
}

void bindings_input_moving(struct bindings *b, struct binding *x, struct component *to)
{
        struct reader *r;
        const char *err = NULL;
        struct arena a;

        if (fmutex_lock(&b->changing))
                return;
        r = present_reader(x);
        arena_init(&a, 0);
        if (b->reading && x->input && (r || x->retired) && (r && r->x == x ? 1 : bindings_app_wants(b, x, &a, &err)) > 0) {
                if (reader_start_at(b, x, to, r))
                        log_error(BINDINGS_SCOPE, "error reading from input binding %s: out of memory", x->name);
                else if (r && r->x != x)
                        r->x->reader = NULL; /* it is the new one's older one */
        }
        arena_fini(&a);
        fmutex_unlock(&b->changing);
}

void bindings_input_moved(struct bindings *b, struct binding *x)
{
        struct reader *r;

        if (fmutex_lock(&b->changing))
                return;
        stop_retired(x);
        while (x->reader && (r = x->reader->older)) {
                x->reader->older = r->older;
                reader_stop(r);
        }
        fmutex_unlock(&b->changing);
}

void bindings_input_left(struct bindings *b, struct binding *x)
{
        if (fmutex_lock(&b->changing))
                return;
        stop_retired(x);
        stop_reading(x);
        fmutex_unlock(&b->changing);
}

void bindings_input_quiesce(struct kernel *k)
{
        struct bindings *b = k->bindings;

        if (!b)
                return;
        b->stopped = true;
        b->reading = false;
        fiber_shield_begin();
        if (fmutex_lock(&b->changing) == 0) {
                stop_all(b);
                fmutex_unlock(&b->changing);
        }
        fiber_shield_end();
}
