/*
 * Input bindings: one Read stream is one run of the plugin's read operation. Events go out with a number, the acknowledgements that
 * come back bear it; the task that delivered an event waits for its own.
 *
 * Fibers: the handler's runs the operation; one receives acknowledgements; the plugin may start more (dapr_reader_go). When the
 * runtime ends the stream the receiver marks the reader as gone, wakes everybody and cancels the operation; when the operation
 * returns first the receiver is cancelled. A worker thread never touches a fiber: it posts a delivery to the loop and sleeps.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "dapr/proto/components/v1/bindings.pb-c.h"
#include "sdk/base/loop.h"
#include "sdk/base/map.h"
#include "sdk/plugin/binding.h"

typedef Dapr__Proto__Components__V1__ReadResponse event_t;
typedef Dapr__Proto__Components__V1__ReadResponse__MetadataEntry event_entry;
typedef Dapr__Proto__Components__V1__ReadRequest ack_t;

enum { EVENTS_MAX = 10000 }; /* deliveries of one reader that wait at once */

struct dapr_reader {
        struct runtime *rt;
        struct dapr_call *dc;
        struct rpc_call *rpc;
        struct fiber *op;          /* runs the operation */
        struct scope scope;        /* the receiver and the plugin's further fibers */
        struct fmutex sending;
        struct map waiting;        /* message id -> struct delivery */
        uint64_t next_id;
        bool op_ended;
        atomic_bool gone;
};

struct delivery {
        struct cond done;
        bool answered;
        int result;
        struct dapr_event_reply *reply;
};

/* ---- replies ---- */

void dapr_event_reply_free(struct dapr_event_reply *reply)
{
        free(reply->memory);
        *reply = (struct dapr_event_reply){0};
}

static int keep_reply(struct dapr_event_reply *to, const ack_t *ack)
{
        size_t n = ack->response_data.len, m = ack->response_error ? strlen(ack->response_error->message) + 1 : 0;
        char *memory = malloc(n + 1 + m);
        if (!memory)
                return -ENOMEM;
        if (n)
                memcpy(memory, ack->response_data.data, n);
        memory[n] = '\0';
        to->memory = memory;
        to->data = (struct dapr_bytes){memory, n};
        if (m)
                to->error = memcpy(memory + n + 1, ack->response_error->message, m);
        return 0;
}

static void take_ack(struct dapr_reader *r, const ack_t *ack)
{
        struct delivery *d = map_del(&r->waiting, str_of(ack->message_id));
        if (!d)
                return; /* of an event that nobody waits for any more */
        d->result = ack->response_error ? DAPR_INTERNAL : 0;
        if (d->reply && keep_reply(d->reply, ack))
                d->result = -ENOMEM;
        d->answered = true;
        cond_broadcast(&d->done);
}

static void reader_is_gone(struct dapr_reader *r)
{
        r->gone = true;
        r->dc->gone = true;
        for (struct map_entry *e = NULL; (e = map_next(&r->waiting, e));)
                cond_broadcast(&((struct delivery *)e->value)->done);
}

static void receive_fiber(void *arg)
{
        struct dapr_reader *r = arg;
        const ack_t *ack;
        while (rpc_recv_pb(r->rpc, &dapr__proto__components__v1__read_request__descriptor, &ack) == 1)
                take_ack(r, ack);
        reader_is_gone(r);
        if (!r->op_ended)
                fiber_cancel(r->op);
}

/* ---- events, on the loop's thread ---- */

static int pack(struct arena *a, const struct dapr_event *e, const char *id, struct str *ret)
{
        event_t m = DAPR__PROTO__COMPONENTS__V1__READ_RESPONSE__INIT;
        m.data = pb_bytes(str_n(e->data.p, e->data.n));
        m.content_type = e->content_type ? e->content_type : "";
        m.message_id = id;
        m.metadata = arena_alloc(a, e->metadata.n * sizeof *m.metadata);
        for (; m.metadata && m.n_metadata < e->metadata.n; m.n_metadata++) {
                event_entry *x = arena_new(a, event_entry);
                if (!x)
                        return -ENOMEM;
                dapr__proto__components__v1__read_response__metadata_entry__init(x);
                x->key = e->metadata.v[m.n_metadata].key;
                x->value = e->metadata.v[m.n_metadata].value;
                m.metadata[m.n_metadata] = x;
        }
        *ret = m.metadata ? pb_pack(a, &m.base) : STR_NULL;
        return ret->p ? 0 : -ENOMEM;
}

static int send_event(struct dapr_reader *r, const struct dapr_event *e, const char *id)
{
        struct arena a;
        struct str bytes;
        arena_init(&a, 0);
        int x = pack(&a, e, id, &bytes);
        if (x == 0 && (x = fmutex_lock(&r->sending)) == 0) {
                x = rpc_send(r->rpc, bytes);
                fmutex_unlock(&r->sending);
        }
        arena_fini(&a);
        return x == -ENOMEM ? x : x ? -ECANCELED : 0;
}

static int deliver(struct dapr_reader *r, const struct dapr_event *e, struct dapr_event_reply *reply)
{
        struct delivery d = {.reply = reply};
        char id[24];
        if (r->gone || r->rt->draining)
                return -ECANCELED;
        if (r->waiting.count >= EVENTS_MAX)
                return -EAGAIN;
        snprintf(id, sizeof id, "%" PRIu64, ++r->next_id);
        cond_init(&d.done);
        int x = map_set(&r->waiting, str_of(id), &d);
        if (x)
                return x;
        sdk_work_begin(r->rt);
        r->rt->calls++;
        x = send_event(r, e, id);
        while (x == 0 && !d.answered && !r->gone)
                x = cond_wait(&d.done) ? -ECANCELED : 0;
        map_del(&r->waiting, str_of(id));
        sdk_work_end(r->rt);
        if (d.answered)
                x = d.result;
        else if (x == 0)
                x = -ECANCELED;
        r->rt->errors += x != 0;
        return x;
}

/* ---- events from a worker thread ---- */

struct posted {
        struct dapr_reader *r;
        const struct dapr_event *e;
        struct dapr_event_reply *reply;
        int result;
        bool done;
        pthread_mutex_t lock;
        pthread_cond_t cond;
};

static void posted_done(struct posted *p, int result)
{
        pthread_mutex_lock(&p->lock);
        p->result = result;
        p->done = true;
        pthread_cond_signal(&p->cond);
        pthread_mutex_unlock(&p->lock);
}

static void posted_fiber(void *arg)
{
        struct posted *p = arg;
        posted_done(p, deliver(p->r, p->e, p->reply));
}

static void posted_start(void *arg)
{
        struct posted *p = arg;
        int x = p->r->gone ? -ECANCELED : fiber_go(&p->r->scope, "event", posted_fiber, p);
        if (x)
                posted_done(p, x);
}

static int deliver_posted(struct dapr_reader *r, const struct dapr_event *e, struct dapr_event_reply *reply)
{
        struct posted p = {.r = r, .e = e, .reply = reply, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        loop_post(posted_start, &p);
        pthread_mutex_lock(&p.lock);
        while (!p.done)
                pthread_cond_wait(&p.cond, &p.lock);
        pthread_mutex_unlock(&p.lock);
        pthread_cond_destroy(&p.cond);
        pthread_mutex_destroy(&p.lock);
        return p.result;
}

int dapr_binding_event(struct dapr_reader *r, const struct dapr_event *e, struct dapr_event_reply *reply)
{
        return sdk_on_loop() ? deliver(r, e, reply) : deliver_posted(r, e, reply);
}

bool dapr_reader_is_cancelled(const struct dapr_reader *r)
{
        return r->gone || (sdk_on_loop() && fiber_is_cancelled());
}

/* ---- tasks ---- */

struct task {
        struct dapr_reader *r;
        void (*fn)(struct dapr_reader *r, void *arg);
        void *arg;
};

static void task_fiber(void *arg)
{
        struct task t = *(struct task *)arg;
        free(arg);
        t.fn(t.r, t.arg);
}

int dapr_reader_go(struct dapr_reader *r, void (*fn)(struct dapr_reader *r, void *arg), void *arg)
{
        struct task *t = sdk_on_loop() ? malloc(sizeof *t) : NULL;
        if (!t)
                return sdk_on_loop() ? -ENOMEM : -EINVAL;
        *t = (struct task){r, fn, arg};
        int x = fiber_go(&r->scope, "reader", task_fiber, t);
        if (x)
                free(t);
        return x;
}

/* ---- the stream ---- */

struct read_job {
        struct dapr_reader *r;
        const struct dapr_binding_ops *ops;
};

static int job_read(void *arg)
{
        struct read_job *j = arg;
        return j->ops->read(j->r->dc, j->r->dc->inst->obj, j->r);
}

int sdk_binding_read(struct dapr_call *dc, struct str req)
{
        struct dapr_reader r = {.rt = dc->rt, .dc = dc, .rpc = dc->rpc, .op = fiber_self()};
        struct read_job j = {&r, dc->inst->type->binding};
        scope_init(&r.scope);
        fmutex_init(&r.sending);
        dc->rpc->flags |= RPC_REUSE;
        int x = rpc_send_headers(dc->rpc);
        if (x == 0)
                x = fiber_go(&r.scope, "acks", receive_fiber, &r);
        if (x)
                return x;
        x = sdk_run(dc, j.ops->mode, job_read, &j);
        r.op_ended = true;
        bool ended = r.gone;
        reader_is_gone(&r);
        fiber_shield_begin();
        scope_cancel(&r.scope);
        scope_join(&r.scope);
        fiber_shield_end();
        map_fini(&r.waiting);
        return x == 0 || ended || x == -ECANCELED ? 0 : sdk_outcome(dc, x);
}
