/*
 * Subscriptions: one PullMessages stream is one run of the plugin's subscribe operation. Messages go out with an id, the
 * acknowledgements that come back bear it.
 *
 * In flight: a table of slots that grows up to the limit; an id is a slot and its generation, so a late or repeated
 * acknowledgement finds nothing. Each unanswered message counts as work that a drain waits for.
 *
 * Fibers: the handler's receives acknowledgements; one runs the operation; the plugin may start more. When the stream ends,
 * however it does, the receiver stops deliveries, hands back what is unanswered and then cancels the others, in this order.
 * Worker threads never touch a fiber: they post a delivery to the loop and sleep.
 */
#include "sdk/plugin/pubsub.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/flags.h"
#include "sdk/base/loop.h"
#include "sdk/base/wire.h"
#include "sdk/plugin/state_codec.h"

enum { SLOT_BITS = 10, SLOTS_FIRST = 16, SMALL_MESSAGE_BYTES = 2048, ID_MAX = 24, NO_SLOT = -1 };
_Static_assert(DAPR_IN_FLIGHT_MAX <= 1 << SLOT_BITS, "a slot's number fits in an id");

struct slot {
        dapr_done_fn done; /* NULL = free */
        void *arg;
        uint64_t generation;
        int next_free;
};
struct dapr_subscription {
        struct list node; /* in runtime.subscriptions */
        struct dapr_call *dc;
        struct rpc_call *rpc;
        struct instance *inst;
        struct fiber *receiver;  /* the handler's */
        struct scope scope;      /* the operation and the plugin's further fibers */
        struct dapr_topic topic;
        struct slot *slots;
        size_t n_slots, in_flight, limit;
        int free_slot;
        unsigned delivering;     /* fibers inside dapr_deliver */
        struct cond credit;      /* one may go on; also at the end */
        struct cond ended;
        int result;              /* of the operation */
        bool op_returned, over;  /* over: nothing is in flight and nothing will be */
        atomic_bool stopped;     /* takes no more messages */
};

/* ---- messages in flight ---- */

static int grow(struct dapr_subscription *s)
{
        size_t n = s->n_slots ? s->n_slots * 2 : SLOTS_FIRST;
        if (n > s->limit)
                n = s->limit;
        struct slot *v = realloc(s->slots, n * sizeof *v);
        if (!v)
                return -ENOMEM;
        for (size_t i = n; i-- > s->n_slots;) {
                v[i] = (struct slot){.next_free = s->free_slot};
                s->free_slot = (int)i;
        }
        s->slots = v;
        s->n_slots = n;
        return 0;
}

/* A slot for one more; there is credit. Its number, or -ENOMEM. */
static int slot_take(struct dapr_subscription *s, dapr_done_fn done, void *arg)
{
        if (s->free_slot == NO_SLOT && grow(s))
                return -ENOMEM;
        int i = s->free_slot;
        struct slot *slot = &s->slots[i];
        s->free_slot = slot->next_free;
        slot->done = done;
        slot->arg = arg;
        s->in_flight++;
        sdk_work_begin(s->dc->rt);
        return i;
}

static void slot_give(struct dapr_subscription *s, int i)
{
        struct slot *slot = &s->slots[i];
        slot->done = NULL;
        slot->generation++;
        slot->next_free = s->free_slot;
        s->free_slot = i;
        s->in_flight--;
        sdk_work_end(s->dc->rt);
        cond_signal(&s->credit);
}

static void answer(struct dapr_subscription *s, int i, enum dapr_outcome outcome)
{
        struct slot slot = s->slots[i];
        slot_give(s, i);
        slot.done(slot.arg, outcome);
}

static unsigned hand_back(struct dapr_subscription *s)
{
        unsigned n = 0;
        for (size_t i = 0; i < s->n_slots; i++)
                if (s->slots[i].done) {
                        answer(s, (int)i, DAPR_HANDED_BACK);
                        n++;
                }
        return n;
}

static void stop(struct dapr_subscription *s)
{
        s->stopped = true;
        cond_broadcast(&s->credit);
}

void sdk_pubsub_stop(struct runtime *rt)
{
        list_for_each(pos, &rt->subscriptions)
                stop(list_entry(pos, struct dapr_subscription, node));
}

unsigned sdk_pubsub_hand_back(struct runtime *rt)
{
        unsigned n = 0;
        list_for_each(pos, &rt->subscriptions)
                n += hand_back(list_entry(pos, struct dapr_subscription, node));
        return n;
}

void sdk_pubsub_pause(struct instance *inst, bool paused)
{
        inst->paused = paused;
        list_for_each(pos, &sdk_runtime()->subscriptions) {
                struct dapr_subscription *s = list_entry(pos, struct dapr_subscription, node);
                if (s->inst == inst)
                        cond_broadcast(&s->credit);
        }
}

/* ---- delivery, on the loop's thread ---- */

static size_t entry_size(const struct dapr_kv *kv)
{
        return wire_bytes_size(strlen(kv->key)) + wire_bytes_size(strlen(kv->value));
}

/* PullMessagesResponse { data = 1, topic_name = 2, metadata = 3, content_type = 4, id = 5 } */
static size_t message_size(const struct dapr_message *m, struct str topic, struct str type, size_t id_n)
{
        size_t n = wire_bytes_size(m->data.n) + wire_bytes_size(topic.n) + wire_bytes_size(type.n) + wire_bytes_size(id_n);
        for (size_t i = 0; i < m->metadata.n; i++)
                n += wire_bytes_size(entry_size(&m->metadata.v[i]));
        return n;
}

static size_t put_message(uint8_t *at, const struct dapr_message *m, struct str topic, struct str type, struct str id)
{
        uint8_t *p = at;
        if (m->data.n)
                p = wire_put_bytes(p, 1, m->data.p, m->data.n);
        p = wire_put_bytes(p, 2, topic.p, topic.n);
        for (size_t i = 0; i < m->metadata.n; i++) {
                const struct dapr_kv *kv = &m->metadata.v[i];
                p = wire_put_head(p, 3, entry_size(kv));
                p = wire_put_bytes(p, 1, kv->key, strlen(kv->key));
                p = wire_put_bytes(p, 2, kv->value, strlen(kv->value));
        }
        if (type.n)
                p = wire_put_bytes(p, 4, type.p, type.n);
        p = wire_put_bytes(p, 5, id.p, id.n);
        return (size_t)(p - at);
}

static int send_message(struct dapr_subscription *s, const struct dapr_message *m, int slot)
{
        uint8_t small[SMALL_MESSAGE_BYTES], *big = NULL;
        char id[ID_MAX];
        struct str topic = str_of(m->topic ? m->topic : s->topic.name), type = str_of(m->content_type ? m->content_type : "");
        int id_n = snprintf(id, sizeof id, "%" PRIu64, s->slots[slot].generation << SLOT_BITS | (unsigned)slot);
        size_t n = message_size(m, topic, type, (size_t)id_n);
        if (n > sizeof small && !(big = malloc(n)))
                return -ENOMEM;
        n = put_message(big ? big : small, m, topic, type, str_n(id, (size_t)id_n));
        int r = rpc_send(s->rpc, str_n((char *)(big ? big : small), n));
        free(big);
        return r == -ENOMEM || r == -ETIMEDOUT ? r : r ? -ECANCELED : 0;
}

static int wait_credit(struct dapr_subscription *s)
{
        while (!s->stopped && (s->in_flight >= s->limit || s->inst->paused)) {
                int r = cond_wait(&s->credit);
                if (r)
                        return r;
        }
        return s->stopped ? -ECANCELED : 0;
}

static int deliver(struct dapr_subscription *s, const struct dapr_message *m, dapr_done_fn done, void *arg)
{
        s->delivering++;
        int r = wait_credit(s);
        int slot = r ? r : slot_take(s, done, arg);
        if (slot >= 0) {
                uint64_t generation = s->slots[slot].generation;
                r = send_message(s, m, slot);
                if (r && s->slots[slot].generation == generation)
                        slot_give(s, slot);
                else
                        r = 0; /* gone out, or handed back while it was waiting to go out */
        } else {
                r = slot;
        }
        s->dc->rt->calls += r == 0;
        if (--s->delivering == 0 && s->over)
                cond_broadcast(&s->ended);
        return r;
}

struct waiting {
        struct fiber *fiber;
        enum dapr_outcome outcome;
        bool answered;
};

static void wake_waiting(void *arg, enum dapr_outcome outcome)
{
        struct waiting *w = arg;
        w->outcome = outcome;
        w->answered = true;
        fiber_wake(w->fiber);
}

static int deliver_wait(struct dapr_subscription *s, const struct dapr_message *m)
{
        struct waiting w = {.fiber = fiber_self()};
        int r = deliver(s, m, wake_waiting, &w);
        if (r)
                return r;
        fiber_shield_begin(); /* the answer comes for certain: at the latest when the subscription ends */
        while (!w.answered)
                fiber_park();
        fiber_shield_end();
        return w.outcome == DAPR_ACKED ? 0 : w.outcome == DAPR_NACKED ? DAPR_INTERNAL : -ECANCELED;
}

/* ---- delivery from a worker thread ---- */

struct posted {
        struct dapr_subscription *s;
        const struct dapr_message *m;
        dapr_done_fn done;
        void *arg;
        int (*fn)(struct posted *p);
        int result;
        bool finished;
        pthread_mutex_t lock;
        pthread_cond_t cond;
};

static void posted_finish(struct posted *p, int result)
{
        pthread_mutex_lock(&p->lock);
        p->result = result;
        p->finished = true;
        pthread_cond_signal(&p->cond);
        pthread_mutex_unlock(&p->lock);
}

static void posted_fiber(void *arg)
{
        struct posted *p = arg;
        posted_finish(p, p->fn(p));
}

static void posted_start(void *arg)
{
        struct posted *p = arg;
        int r = fiber_go(&p->s->scope, "deliver", posted_fiber, p);
        if (r)
                posted_finish(p, r);
}

static int run_posted(struct posted *p)
{
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->cond, NULL);
        loop_post(posted_start, p);
        pthread_mutex_lock(&p->lock);
        while (!p->finished)
                pthread_cond_wait(&p->cond, &p->lock);
        pthread_mutex_unlock(&p->lock);
        pthread_cond_destroy(&p->cond);
        pthread_mutex_destroy(&p->lock);
        return p->result;
}

static int posted_deliver(struct posted *p)
{
        return deliver(p->s, p->m, p->done, p->arg);
}

static int posted_deliver_wait(struct posted *p)
{
        return deliver_wait(p->s, p->m);
}

static int posted_subscribed(struct posted *p)
{
        return rpc_send_headers(p->s->rpc);
}

static int posted_end(struct posted *p)
{
        return dapr_subscription_wait(p->s);
}

/* ---- what plugins call ---- */

int dapr_deliver(struct dapr_subscription *s, const struct dapr_message *m, dapr_done_fn done, void *arg)
{
        struct posted p = {.s = s, .m = m, .done = done, .arg = arg, .fn = posted_deliver};
        return sdk_on_loop() ? deliver(s, m, done, arg) : run_posted(&p);
}

int dapr_deliver_wait(struct dapr_subscription *s, const struct dapr_message *m)
{
        struct posted p = {.s = s, .m = m, .fn = posted_deliver_wait};
        return sdk_on_loop() ? deliver_wait(s, m) : run_posted(&p);
}

void dapr_subscribed(struct dapr_subscription *s)
{
        struct posted p = {.s = s, .fn = posted_subscribed};
        if (sdk_on_loop())
                rpc_send_headers(s->rpc);
        else
                run_posted(&p);
}

int dapr_subscription_wait(struct dapr_subscription *s)
{
        struct posted p = {.s = s, .fn = posted_end};
        if (!sdk_on_loop())
                return run_posted(&p);
        while (!s->over)
                if (cond_wait(&s->ended))
                        break;
        return -ECANCELED;
}

bool dapr_subscription_is_ended(const struct dapr_subscription *s)
{
        return s->stopped;
}

int dapr_subscription_go(struct dapr_subscription *s, const char *name, void (*fn)(void *arg), void *arg)
{
        return sdk_on_loop() ? fiber_go(&s->scope, name, fn, arg) : -EINVAL;
}

/* ---- the stream ---- */

/* PullMessagesRequest { topic = 1, ack_message_id = 2, ack_error = 3 } */
static void take_ack(struct dapr_subscription *s, struct str msg)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        struct str id = STR_NULL;
        bool failed = false;
        int64_t n;
        while (wire_next(&w, &f)) {
                if (f.number == 2 && f.bytes.p)
                        id = f.bytes;
                else if (f.number == 3 && f.bytes.p)
                        failed = true;
        }
        if (w.bad || parse_int64(id, &n) || n < 0)
                return;
        size_t i = (size_t)n & ((1 << SLOT_BITS) - 1);
        if (i < s->n_slots && s->slots[i].done && s->slots[i].generation == (uint64_t)n >> SLOT_BITS)
                answer(s, (int)i, failed ? DAPR_NACKED : DAPR_ACKED);
}

static int read_topic(struct dapr_subscription *s)
{
        struct str msg, *parts, *name;
        size_t n, n_name;
        int64_t limit;
        int r = rpc_recv(s->rpc, &msg);
        if (r <= 0)
                return r < 0 ? r : -EBADMSG;
        r = state_read_repeated(s->dc, msg, 1, &parts, &n);
        if (r || n == 0)
                return r ? r : -EBADMSG;
        r = state_read_repeated(s->dc, parts[n - 1], 1, &name, &n_name); /* Topic { name = 1, metadata = 2 } */
        if (r == 0)
                r = state_read_map(s->dc, parts[n - 1], 2, &s->topic.metadata);
        if (r)
                return r;
        s->topic.name = arena_strdup(s->dc->arena, n_name ? name[n_name - 1] : STR(""));
        const char *wish = dapr_kvs_get(s->topic.metadata, "microdapr.maxInFlight");
        s->limit = DAPR_IN_FLIGHT_MAX;
        if (wish && parse_int64(str_of(wish), &limit) == 0 && limit > 0 && limit < DAPR_IN_FLIGHT_MAX)
                s->limit = (size_t)limit;
        s->topic.max_in_flight = s->limit;
        return s->topic.name ? 0 : -ENOMEM;
}

static int job_subscribe(void *arg)
{
        struct dapr_subscription *s = arg;
        return s->inst->type->pubsub->subscribe(s->dc, s->inst->obj, s, &s->topic);
}

/* The operation. When it returns by itself, nobody wants to hear of its messages any more, and the stream ends. */
static void op_fiber(void *arg)
{
        struct dapr_subscription *s = arg;
        s->result = sdk_run(s->dc, s->inst->type->pubsub->mode, job_subscribe, s);
        if (s->over)
                return;
        s->op_returned = true;
        stop(s);
        for (size_t i = 0; i < s->n_slots; i++)
                if (s->slots[i].done)
                        slot_give(s, (int)i);
        fiber_cancel(s->receiver);
}

static void run(struct dapr_subscription *s)
{
        struct str msg;
        while (rpc_recv(s->rpc, &msg) == 1)
                take_ack(s, msg);
        stop(s);
        hand_back(s);
        s->over = true;
        s->dc->gone = true;
        cond_broadcast(&s->ended);
        fiber_shield_begin();
        scope_cancel(&s->scope);
        scope_join(&s->scope);
        while (s->delivering)
                cond_wait(&s->ended);
        fiber_shield_end();
}

int sdk_pubsub_pull(struct dapr_call *dc, struct str req)
{
        struct dapr_subscription s = {.dc = dc, .rpc = dc->rpc, .inst = dc->inst, .receiver = fiber_self(), .free_slot = NO_SLOT};
        if (!dc->inst->type->pubsub->subscribe)
                return sdk_outcome(dc, dapr_fail(dc, DAPR_UNIMPLEMENTED, "%s cannot subscribe", dc->inst->type->type));
        scope_init(&s.scope);
        cond_init(&s.credit);
        cond_init(&s.ended);
        dc->rpc->flags |= RPC_REUSE;
        int r = read_topic(&s);
        if (r)
                return r == -ECANCELED ? r : sdk_outcome(dc, r);
        list_add_tail(&dc->rt->subscriptions, &s.node);
        r = fiber_go(&s.scope, "subscribe", op_fiber, &s);
        if (r == 0)
                run(&s);
        else
                s.op_returned = true, s.result = r;
        list_del(&s.node);
        free(s.slots);
        if (s.op_returned && s.result && s.result != -ECANCELED)
                return sdk_outcome(dc, s.result);
        return dc->rt->draining ? rpc_fail(dc->rpc, RPC_UNAVAILABLE, "the plugin is being stopped") : 0;
}
