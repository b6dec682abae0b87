/* The conformance kit for brokers: messages arrive with what was published, failed ones come again, topics are apart, streams end. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "dapr/proto/components/v1/pubsub.pb-c.h"

#define PUBSUB "/dapr.proto.components.v1.PubSub/"
#define ARRIVE_S 15.0
#define AGAIN_S 4.0
#define QUIET_S 0.3
enum { MESSAGES = 10 };

typedef Dapr__Proto__Components__V1__PullMessagesResponse message_t;

/* One subscription. */
struct sub {
        struct rpc_call *call;
        struct arena arena;
};

static const char *topic_of(struct conform *c, const char *name)
{
        const char *z = arena_printf(&c->call, "%s%d-%s", c->topic_prefix, (int)getpid(), name);
        return z ? z : "";
}

static int publish(struct conform *c, const char *topic, const char *text)
{
        Dapr__Proto__Components__V1__PublishRequest req = DAPR__PROTO__COMPONENTS__V1__PUBLISH_REQUEST__INIT;
        req.topic = topic;
        req.pubsub_name = "conformance";
        req.data = pb_bytes(str_of(text));
        req.content_type = "text/plain";
        return conform_ask(c, PUBSUB "Publish", &req.base, NULL, NULL);
}

static int sub_open(struct conform *c, struct sub *s, const char *topic)
{
        Dapr__Proto__Components__V1__PullMessagesRequest req = DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
        Dapr__Proto__Components__V1__Topic t = DAPR__PROTO__COMPONENTS__V1__TOPIC__INIT;
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
        arena_init(&s->arena, 0);
        t.name = topic;
        req.topic = &t;
        int r = rpc_open(c->ch, &s->arena, PUBSUB "PullMessages", &o, &s->call, &c->status);
        if (r == 0)
                rpc_send_pb(s->call, &req.base);
        return r;
}

static int sub_close(struct sub *s)
{
        rpc_cancel(s->call);
        int code = rpc_finish(s->call);
        arena_fini(&s->arena);
        return code;
}

/* The next message within the time; NULL when none comes. */
static message_t *sub_next(struct sub *s, double timeout_s)
{
        message_t *m = NULL;
        double old = fiber_set_deadline(loop_now_exact() + timeout_s);
        int r = rpc_recv_pb(s->call, &dapr__proto__components__v1__pull_messages_response__descriptor, &m);
        fiber_restore_deadline(old);
        return r == 1 ? m : NULL;
}

static void sub_answer(struct sub *s, const message_t *m, bool ok)
{
        Dapr__Proto__Components__V1__PullMessagesRequest req = DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
        Dapr__Proto__Components__V1__AckMessageError e = DAPR__PROTO__COMPONENTS__V1__ACK_MESSAGE_ERROR__INIT;
        e.message = "simulated";
        req.ack_message_id = m->id;
        req.ack_error = ok ? NULL : &e;
        rpc_send_pb(s->call, &req.base);
}

/* A stream whose receive has passed its deadline is over: each check reads on a fresh one, and only what must come. */
static const char *messages_arrive(struct conform *c)
{
        struct sub s;
        const char *topic = topic_of(c, "arrive"), *fault = NULL;
        bool seen[MESSAGES] = {false};
        if (sub_open(c, &s, topic))
                return conform_wrong(c, "PullMessages");
        fiber_sleep(QUIET_S);
        for (int i = 0; i < MESSAGES && !fault; i++)
                if (publish(c, topic, arena_printf(&c->call, "message %d", i)))
                        fault = conform_wrong(c, "Publish");
        for (int n = 0; n < MESSAGES && !fault;) {
                message_t *m = sub_next(&s, ARRIVE_S);
                if (!m) {
                        fault = conform_text(c, "%d of %d messages arrived within 15 s", n, MESSAGES);
                        break;
                }
                int i = m->data.len > 8 ? m->data.data[8] - '0' : -1;
                if (!*m->id)
                        fault = "a message has no id";
                else if (strcmp(m->topic_name, topic) != 0)
                        fault = conform_text(c, "a message names the topic '%s'", m->topic_name);
                else if (i < 0 || i >= MESSAGES || m->data.len != 9)
                        fault = "a message has other bytes than were published";
                else if (!seen[i]) {
                        seen[i] = true;
                        n++;
                }
                sub_answer(&s, m, true);
        }
        sub_close(&s);
        return fault;
}

static const char *failed_messages_come_again(struct conform *c)
{
        struct sub s;
        const char *topic = topic_of(c, "again"), *fault = NULL;
        if (sub_open(c, &s, topic))
                return conform_wrong(c, "PullMessages");
        fiber_sleep(QUIET_S);
        if (publish(c, topic, "twice"))
                fault = conform_wrong(c, "Publish");
        message_t *m = fault ? NULL : sub_next(&s, ARRIVE_S);
        if (!fault && !m)
                fault = "the message does not arrive";
        if (m) {
                sub_answer(&s, m, false);
                m = sub_next(&s, AGAIN_S);
                if (!m)
                        fault = conform_skip(c, "a message that failed does not come again within 4 s (the broker or its settings may not do that)");
                else
                        sub_answer(&s, m, true);
        }
        sub_close(&s);
        return fault;
}

static const char *topics_are_apart(struct conform *c)
{
        struct sub a, b;
        const char *ta = topic_of(c, "apart-a"), *tb = topic_of(c, "apart-b"), *fault = NULL;
        if (sub_open(c, &a, ta) || sub_open(c, &b, tb))
                return conform_wrong(c, "PullMessages");
        fiber_sleep(QUIET_S);
        if (publish(c, tb, "for b") || publish(c, ta, "for a"))
                fault = conform_wrong(c, "Publish");
        message_t *m = fault ? NULL : sub_next(&a, ARRIVE_S);
        if (!fault && (!m || !str_eqz(pb_str(m->data), "for a")))
                fault = m ? "a message of another topic arrives" : "a message does not arrive";
        if (m)
                sub_answer(&a, m, true);
        m = fault ? NULL : sub_next(&b, ARRIVE_S);
        if (!fault && (!m || !str_eqz(pb_str(m->data), "for b")))
                fault = m ? "a message of another topic arrives" : "a message does not arrive";
        if (m)
                sub_answer(&b, m, true);
        sub_close(&a);
        sub_close(&b);
        return fault;
}

static const char *subscribers_stop_alone(struct conform *c)
{
        struct sub a, b;
        const char *topic = topic_of(c, "alone");
        if (sub_open(c, &a, topic))
                return conform_wrong(c, "PullMessages");
        fiber_sleep(QUIET_S);
        sub_close(&a);
        if (sub_open(c, &b, topic))
                return conform_wrong(c, "PullMessages after another has ended");
        const char *fault = NULL;
        fiber_sleep(QUIET_S);
        if (publish(c, topic, "after"))
                fault = conform_wrong(c, "Publish");
        message_t *m = fault ? NULL : sub_next(&b, ARRIVE_S);
        if (!fault && !m)
                fault = "a new subscription gets nothing after another has ended";
        if (m)
                sub_answer(&b, m, true);
        sub_close(&b);
        return fault;
}

static const char *bulk_publish(struct conform *c)
{
        Dapr__Proto__Components__V1__BulkPublishRequest req = DAPR__PROTO__COMPONENTS__V1__BULK_PUBLISH_REQUEST__INIT;
        Dapr__Proto__Components__V1__BulkPublishResponse *resp;
        Dapr__Proto__Components__V1__BulkMessageEntry e[MESSAGES], *list[MESSAGES];
        struct sub s;
        for (int i = 0; i < MESSAGES; i++) {
                dapr__proto__components__v1__bulk_message_entry__init(&e[i]);
                e[i].entry_id = arena_printf(&c->call, "%d", i);
                e[i].event = pb_bytes(str_of(e[i].entry_id));
                e[i].content_type = "text/plain";
                list[i] = &e[i];
        }
        req.entries = list;
        req.n_entries = MESSAGES;
        req.topic = topic_of(c, "bulk");
        if (sub_open(c, &s, req.topic))
                return conform_wrong(c, "PullMessages");
        fiber_sleep(QUIET_S);
        int r = conform_ask(c, PUBSUB "BulkPublish", &req.base, &dapr__proto__components__v1__bulk_publish_response__descriptor, &resp);
        const char *fault = r ? conform_wrong(c, "BulkPublish") : resp->n_failed_entries ? "an entry failed" : NULL;
        for (int i = 0; i < MESSAGES && !fault; i++) {
                message_t *m = sub_next(&s, ARRIVE_S);
                if (m)
                        sub_answer(&s, m, true);
                else
                        fault = conform_text(c, "%d of %d entries arrived", i, MESSAGES);
        }
        sub_close(&s);
        return r == RPC_UNIMPLEMENTED ? conform_skip(c, "it has no bulk publish") : fault;
}

const struct conform_check conform_pubsub_checks[] = {
        {"ten messages arrive as they were", messages_arrive},
        {"messages that failed come again", failed_messages_come_again},
        {"topics are apart", topics_are_apart},
        {"subscribers stop alone", subscribers_stop_alone},
        {"bulk publish", bulk_publish},
};
const size_t conform_pubsub_n = sizeof conform_pubsub_checks / sizeof *conform_pubsub_checks;
