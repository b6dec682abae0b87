/*
 * A subscription: a connection of its own, one consumer, and the messages that are not settled, in the stream's order.
 *
 * Acknowledgements are published to a message's reply subject, which outlives connections: what is in the app's hands stays good when the
 * connection is made anew. While messages are held the server is told so (+WPI) before its ackWait is over: a slow app gets nothing twice.
 * With ackPolicy all a message is acknowledged once all before it are: one that failed holds up the others until it has come again.
 * A consumer that the server has lost is made again; one without a name goes on where it was.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "plugins/pubsub.jetstream/jetstream.h"
#include "sdk/base/loop.h"

enum { SEQUENCE_MAX = 24, CONTROL = 100 };
#define WATCH_S 10.0
#define BIND_WAIT_S 10.0
#define PULSE_MIN_S 0.05

enum item_state { ITEM_HELD, ITEM_ACKED, ITEM_REFUSED };
struct item { /* a message between its arrival and its settlement */
        struct list node;
        struct source *src;
        enum item_state state;
        uint64_t sequence, deliveries;
        char *reply;
};
struct source {
        struct broker *b;
        struct dapr_subscription *sub;
        const char *topic;
        struct nats *nats;
        struct nats_sub inbox;
        char inbox_name[48], listens[NAME_MAX_BYTES]; /* what a new consumer delivers to, and what this one does */
        struct consumer consumer;
        struct list items;    /* ascending by sequence */
        struct map known;     /* sequence as text -> struct item */
        uint64_t last;        /* highest sequence that came */
        struct scope helpers; /* pulse and watch */
        bool left;            /* nothing comes any more */
};

/* ---- answers to the server ---- */

static void answer(struct source *src, struct str reply, struct str text)
{
        int r = src->b->ack == JS_NONE ? 0 : nats_publish(src->nats, reply, text);
        if (r)
                dapr_log(DAPR_LOG_WARN, "subject %s: an answer is lost, the message comes again: %s", src->topic, strerror(-r));
}

static void refuse(struct source *src, struct str reply, bool pause)
{
        char text[64] = "-NAK";
        if (pause && src->b->ack_wait_ns)
                snprintf(text, sizeof(text), "-NAK {\"delay\": %lld}", (long long)src->b->ack_wait_ns);
        answer(src, reply, str_of(text));
}

static size_t sequence_text(char text[SEQUENCE_MAX], uint64_t sequence)
{
        return (size_t)snprintf(text, SEQUENCE_MAX, "%llu", (unsigned long long)sequence);
}

static struct item *item_find(struct source *src, uint64_t sequence)
{
        char text[SEQUENCE_MAX];
        size_t n = sequence_text(text, sequence);
        return map_get(&src->known, str_n(text, n));
}

static void item_free(struct item *i)
{
        char text[SEQUENCE_MAX];
        size_t n = sequence_text(text, i->sequence);
        map_del(&i->src->known, str_n(text, n));
        list_del(&i->node);
        free(i->reply);
        free(i);
}

/* Of ackPolicy all: acknowledges as far as nothing is missing. */
static void acknowledge_front(struct source *src)
{
        while (!list_is_empty(&src->items)) {
                struct item *i = list_entry(src->items.next, struct item, node);
                struct item *next = i->node.next == &src->items ? NULL : list_entry(i->node.next, struct item, node);
                if (i->state != ITEM_ACKED)
                        return;
                if (!next || next->state != ITEM_ACKED)
                        answer(src, str_of(i->reply), STR("+ACK"));
                item_free(i);
        }
}

/* The consumer delivers no more; what waits goes back. */
static void leave(struct source *src)
{
        if (src->left)
                return;
        src->left = true;
        struct list waiting;
        list_init(&waiting);
        while (!list_is_empty(&src->inbox.incoming)) {
                struct list *m = src->inbox.incoming.next;
                list_del(m);
                list_add_tail(&waiting, m);
        }
        nats_unsubscribe(src->nats, &src->inbox);
        while (!list_is_empty(&waiting)) {
                struct nats_message *m = list_entry(waiting.next, struct nats_message, node);
                struct nats_delivery d;
                list_del(&m->node);
                if (nats_delivery_get(m->reply, &d) == 0)
                        refuse(src, m->reply, false);
                free(m);
        }
}

static void settle(struct item *i, enum dapr_outcome outcome)
{
        struct source *src = i->src;
        bool all = src->b->ack == JS_ALL;
        switch (outcome) {
        case DAPR_ACKED:
                if (!all)
                        answer(src, str_of(i->reply), STR("+ACK"));
                i->state = ITEM_ACKED;
                break;
        case DAPR_NACKED:
                refuse(src, str_of(i->reply), true);
                /* one that never comes again must not hold up the others */
                i->state = src->consumer.max_deliver && i->deliveries >= src->consumer.max_deliver ? ITEM_ACKED : ITEM_REFUSED;
                break;
        case DAPR_HANDED_BACK:
                leave(src);
                refuse(src, str_of(i->reply), false);
                i->state = ITEM_REFUSED;
                break;
        }
        if (all)
                acknowledge_front(src);
        else
                item_free(i);
}

static void on_done(void *arg, enum dapr_outcome outcome)
{
        settle(arg, outcome);
}

/* ---- messages that come ---- */

static struct item *item_new(struct source *src, const struct nats_message *m, const struct nats_delivery *d)
{
        char text[SEQUENCE_MAX];
        size_t n = sequence_text(text, d->sequence);
        struct item *i = calloc(1, sizeof(*i));
        char *reply = strndup(m->reply.p, m->reply.n);
        if (!i || !reply || map_set(&src->known, str_n(text, n), i)) {
                free(i);
                free(reply);
                return NULL;
        }
        *i = (struct item){.src = src, .sequence = d->sequence, .deliveries = d->deliveries, .reply = reply};
        struct list *before = src->items.prev;
        while (before != &src->items && list_entry(before, struct item, node)->sequence > i->sequence)
                before = before->prev;
        list_add_head(before, &i->node);
        return i;
}

/* The item of a message that is to be delivered; NULL: it is held already, and answered by its newest reply subject. -ENOMEM. */
static int take(struct source *src, const struct nats_message *m, struct item **ret)
{
        struct nats_delivery d;
        *ret = NULL;
        if (nats_delivery_get(m->reply, &d)) {
                dapr_log(DAPR_LOG_WARN, "subject %s: a message did not come from JetStream and is left", src->topic);
                return 0;
        }
        struct item *i = item_find(src, d.sequence);
        if (!i) {
                *ret = item_new(src, m, &d);
                if (*ret && d.sequence > src->last)
                        src->last = d.sequence;
                return *ret ? 0 : -ENOMEM;
        }
        char *reply = strndup(m->reply.p, m->reply.n);
        if (!reply)
                return -ENOMEM;
        free(i->reply);
        i->reply = reply;
        i->deliveries = d.deliveries;
        if (i->state == ITEM_REFUSED) { /* ackPolicy all: it has come again */
                i->state = ITEM_HELD;
                *ret = i;
        }
        return 0;
}

static int deliver(struct source *src, struct nats_message *m)
{
        struct item *i = NULL;
        char *subject = strndup(m->subject.p, m->subject.n);
        struct dapr_kv md = {"Topic", subject};
        struct dapr_message out = {.data = {m->payload.p, m->payload.n}, .metadata = {&md, subject ? 1 : 0}};
        int r = subject ? take(src, m, &i) : -ENOMEM;
        if (!r && i && !src->b->single) {
                while ((r = dapr_deliver(src->sub, &out, on_done, i)) == -ENOMEM && fiber_sleep(0.1) == 0)
                        ;
                if (r)
                        settle(i, DAPR_HANDED_BACK);
        } else if (!r && i) {
                r = dapr_deliver_wait(src->sub, &out);
                settle(i, r == 0 ? DAPR_ACKED : r == DAPR_INTERNAL ? DAPR_NACKED : DAPR_HANDED_BACK);
                r = r == -ECANCELED ? r : 0;
        }
        free(subject);
        return r == -ENOMEM ? 0 : r; /* unanswered, the server delivers it again */
}

/* Heartbeats, and the question whether all before it was taken. */
static void on_control(struct source *src, const struct nats_message *m)
{
        struct str stalled = nats_header(m->headers, STR("Nats-Consumer-Stalled"));
        if (m->reply.n)
                nats_publish(src->nats, m->reply, STR(""));
        else if (stalled.n)
                nats_publish(src->nats, stalled, STR(""));
}

static int consume(struct source *src)
{
        for (;;) {
                struct nats_message *m;
                struct str words;
                int r = nats_next(src->nats, &src->inbox, &m);
                if (r)
                        return r;
                if (nats_status(m->headers, &words) == CONTROL)
                        on_control(src, m);
                else if (!nats_status(m->headers, &words))
                        r = deliver(src, m);
                free(m);
                if (r)
                        return r;
        }
}

/* ---- while it runs ---- */

static void pulse_fiber(void *arg)
{
        struct source *src = arg;
        struct nats_delivery d;
        while (fiber_sleep(fmax(src->consumer.ack_wait_s / 3, PULSE_MIN_S)) == 0) {
                if (!nats_is_connected(src->nats))
                        continue;
                list_for_each(pos, &src->items)
                        if (list_entry(pos, struct item, node)->state != ITEM_REFUSED)
                                answer(src, str_of(list_entry(pos, struct item, node)->reply), STR("+WPI"));
                list_for_each(pos, &src->inbox.incoming) {
                        const struct nats_message *m = list_entry(pos, struct nats_message, node);
                        if (src->inbox.sid && nats_delivery_get(m->reply, &d) == 0)
                                answer(src, m->reply, STR("+WPI"));
                }
        }
}

/* Finds or makes the consumer, and listens where it delivers. */
static int bind_consumer(struct source *src, uint64_t from, char why[WHY_MAX])
{
        struct consumer_wish w = {.topic = src->topic, .inbox = src->inbox_name, .from = from};
        double limit = loop_now() + BIND_WAIT_S;
        int r;
        if (!src->inbox.sid) { /* first: nothing that the consumer sends may find nobody */
                snprintf(src->listens, sizeof(src->listens), "%s", src->inbox_name);
                src->inbox.subject = src->listens;
                src->inbox.queue = src->b->queue;
                if ((r = nats_subscribe(src->nats, &src->inbox)))
                        return r;
        }
        /* the server may not yet know that an earlier life of ours has ended */
        while ((r = consumer_bind(src->b, src->nats, &w, &src->consumer, why)) == DAPR_ALREADY_EXISTS && loop_now() < limit)
                if (fiber_sleep(0.2))
                        return -ECANCELED;
        if (r)
                return r;
        src->inbox.max_incoming = src->consumer.max_ack_pending > NATS_INCOMING_MAX ? src->consumer.max_ack_pending : NATS_INCOMING_MAX;
        if (strcmp(src->consumer.subject, src->listens) == 0)
                return 0;
        nats_unsubscribe(src->nats, &src->inbox);
        snprintf(src->listens, sizeof(src->listens), "%s", src->consumer.subject);
        return nats_subscribe(src->nats, &src->inbox);
}

/* Where a consumer without a name goes on: behind what was settled. 0 = from the beginning, also of a stream that is a new one. */
static uint64_t position(struct source *src)
{
        if (src->b->durable || !src->last || consumer_stream_end(src->b, src->nats, &src->consumer) < src->last)
                return 0;
        list_for_each(pos, &src->items)
                if (list_entry(pos, struct item, node)->state != ITEM_ACKED)
                        return list_entry(pos, struct item, node)->sequence;
        return src->last + 1;
}

static void watch_fiber(void *arg)
{
        struct source *src = arg;
        char why[WHY_MAX] = "";
        for (;;) {
                int r = nats_wait_change(src->nats, loop_now() + WATCH_S);
                if (r == -ECANCELED || src->left)
                        return;
                while (!src->left && (r = consumer_is_there(src->b, src->nats, &src->consumer)) == 0) {
                        uint64_t from = position(src);
                        dapr_log(DAPR_LOG_WARN, "subject %s: the server has lost the consumer, which is made again", src->topic);
                        r = bind_consumer(src, from, why);
                        if (r == -ECANCELED)
                                return;
                        if (r)
                                dapr_log(DAPR_LOG_WARN, "subject %s: cannot make the consumer again: %s", src->topic, *why ? why : strerror(-r));
                        if (r && fiber_sleep(1))
                                return;
                }
                if (r == -ECANCELED)
                        return;
        }
}

/* ---- the life of a subscription ---- */

static int start(struct dapr_call *c, struct source *src)
{
        char why[WHY_MAX] = "";
        uint64_t random[2] = {0};
        const char *fault = nats_subject_fault(str_of(src->topic), true);
        if (!fault && strlen(src->topic) >= NAME_MAX_BYTES)
                fault = "is too long";
        if (fault)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "jetstream: the topic %s %s", src->topic, fault);
        if (getrandom(random, sizeof(random), 0) != sizeof(random))
                return -EIO;
        snprintf(src->inbox_name, sizeof(src->inbox_name), "_INBOX.%016llx%08llx", (unsigned long long)random[0],
                 (unsigned long long)random[1] & 0xffffffff);
        int r = nats_open(&src->nats, &src->b->s, NULL, API_S, why, sizeof(why));
        if (!r)
                r = bind_consumer(src, 0, why);
        if (!r)
                r = fiber_go(&src->helpers, "watch", watch_fiber, src);
        if (!r && src->b->ack != JS_NONE)
                r = fiber_go(&src->helpers, "pulse", pulse_fiber, src);
        if (!r || r == -ECANCELED || r == -ENOMEM)
                return r;
        return dapr_fail(c, r > 0 ? r : DAPR_UNAVAILABLE, "jetstream: cannot subscribe to %s: %s", src->topic, *why ? why : strerror(-r));
}

int jetstream_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic)
{
        struct source src = {.b = instance, .sub = s, .topic = topic->name};
        list_init(&src.items);
        nats_sub_init(&src.inbox);
        scope_init(&src.helpers);
        int r = start(c, &src);
        if (!r) {
                dapr_subscribed(s);
                consume(&src);
                r = dapr_subscription_wait(s);
        }
        fiber_shield_begin();
        scope_cancel(&src.helpers);
        scope_join(&src.helpers);
        if (src.nats)
                leave(&src);
        nats_close(src.nats);
        fiber_shield_end();
        while (!list_is_empty(&src.items))
                item_free(list_entry(src.items.next, struct item, node));
        map_fini(&src.known);
        return r;
}
