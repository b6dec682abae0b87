/* The conformance kit for brokers: messages arrive with what was published, failed ones come again, topics are apart, streams end. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "dapr/proto/components/v1/pubsub.pb-c.h"

#define PUBSUB "/dapr.proto.components.v1.PubSub/"
#define ARRIVE_S (c->timeout_s * 1.5) /* 15 s */
#define AGAIN_S (c->timeout_s * 0.4)  /* 4 s */
#define READY "are you there?"
#define READY_POLL_S 0.02
#define TTL_S 1.3
enum { MESSAGES = 10, BIG_BYTES = 256 * 1024, TOPICS = 5 };

typedef Dapr__Proto__Components__V1__PullMessagesResponse message_t;

/* One subscription. */
struct sub {
        struct rpc_call *call;
        struct arena arena;
        bool early;              /* what came first was published before */
};

static const char *topic_of(struct conform *c, const char *name)
{
        const char *z = arena_printf(&c->call, "%s%d-%s", c->topic_prefix, (int)getpid(), name);
        return z ? z : "";
}

static int publish_bytes(struct conform *c, const char *topic, struct str data, const char *ttl)
{
        Dapr__Proto__Components__V1__PublishRequest req = DAPR__PROTO__COMPONENTS__V1__PUBLISH_REQUEST__INIT;
        Dapr__Proto__Components__V1__PublishRequest__MetadataEntry e = DAPR__PROTO__COMPONENTS__V1__PUBLISH_REQUEST__METADATA_ENTRY__INIT, *list[] = {&e};
        req.topic = topic;
        req.pubsub_name = "conformance";
        req.data = pb_bytes(data);
        req.content_type = "text/plain";
        e.key = "ttlInSeconds";
        e.value = ttl ? ttl : "";
        req.metadata = list;
        req.n_metadata = ttl != NULL;
        return conform_ask(c, PUBSUB "Publish", &req.base, NULL, NULL);
}

static int publish(struct conform *c, const char *topic, const char *text)
{
        return publish_bytes(c, topic, str_of(text), NULL);
}

/* Beside the reader: some brokers' Publish returns only when a reader has taken what came before. */
struct publisher {
        struct conform c;
        struct scope scope;
        const char *topic, *fault;
        int n;
};

static void publish_all(void *arg)
{
        struct publisher *p = arg;
        for (int i = 0; i < p->n && !p->fault; i++)
                if (publish(&p->c, p->topic, arena_printf(p->c.arena, "message %d", i)))
                        p->fault = conform_wrong(&p->c, "Publish");
}

static void publisher_start(struct publisher *p, struct conform *c, const char *topic, int n)
{
        *p = (struct publisher){.c = *c, .topic = topic, .n = n};
        arena_init(&p->c.call, 0);
        scope_init(&p->scope);
        fiber_go_flags(&p->scope, "publisher", FIBER_BIG, publish_all, p);
}

static const char *publisher_end(struct publisher *p)
{
        scope_join(&p->scope);
        arena_fini(&p->c.call);
        return p->fault;
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

static void sub_answer(struct sub *s, const message_t *m, bool ok)
{
        Dapr__Proto__Components__V1__PullMessagesRequest req = DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
        Dapr__Proto__Components__V1__AckMessageError e = DAPR__PROTO__COMPONENTS__V1__ACK_MESSAGE_ERROR__INIT;
        e.message = "simulated";
        req.ack_message_id = m->id;
        req.ack_error = ok ? NULL : &e;
        rpc_send_pb(s->call, &req.base);
}

/* The next message within the time; NULL when none comes. The kit's own question of sub_stand is nobody's message. A receive that
 * passes its deadline ends the stream: each check reads on a fresh one, and only what must come. */
static message_t *sub_next(struct sub *s, double timeout_s)
{
        double old = fiber_set_deadline(loop_now_exact() + timeout_s);
        message_t *m = NULL;
        int r;
        while ((r = rpc_recv_pb(s->call, &dapr__proto__components__v1__pull_messages_response__descriptor, &m)) == 1 && str_eqz(pb_str(m->data), READY))
                sub_answer(s, m, true);
        fiber_restore_deadline(old);
        return r == 1 ? m : NULL;
}

struct asking {
        struct conform c;
        const char *topic;
        bool heard;
};

static void ask_until_heard(void *arg)
{
        struct asking *q = arg;
        while (!q->heard && publish(&q->c, q->topic, READY) == 0 && fiber_sleep(READY_POLL_S) == 0)
                arena_reset(&q->c.call);
}

/* A new subscription, once it gets what is published: some brokers keep nothing for who comes later. NULL or what is wrong. */
static const char *sub_stand(struct conform *c, struct sub *s, const char *topic)
{
        struct asking q = {.c = *c, .topic = topic};
        struct scope scope;
        message_t *m = NULL;
        TRY(sub_open(c, s, topic), "PullMessages");
        arena_init(&q.c.call, 0);
        scope_init(&scope);
        fiber_go_flags(&scope, "asking", FIBER_BIG, ask_until_heard, &q);
        double old = fiber_set_deadline(loop_now_exact() + ARRIVE_S);
        q.heard = rpc_recv_pb(s->call, &dapr__proto__components__v1__pull_messages_response__descriptor, &m) == 1;
        fiber_restore_deadline(old);
        s->early = q.heard && !str_eqz(pb_str(m->data), READY);
        if (q.heard)
                sub_answer(s, m, true);
        bool heard = q.heard;
        q.heard = true;
        scope_join(&scope);
        arena_fini(&q.c.call);
        if (!heard)
                sub_close(s);
        return heard ? NULL : "nothing that is published arrives";
}

/* NULL or what is wrong with it; *ret_i: which of the ten it is. */
static const char *check_message(struct conform *c, const message_t *m, const char *topic, int *ret_i)
{
        struct str data = pb_str(m->data);
        *ret_i = data.n == 9 && str_has_prefix(data, STR("message ")) ? data.p[8] - '0' : -1;
        MUST(*m->id, "a message has no id");
        MUST(strcmp(m->topic_name, topic) == 0, conform_text(c, "a message names the topic '%s'", m->topic_name));
        MUST(*ret_i >= 0 && *ret_i < MESSAGES, conform_text(c, "a message reads %s; \"message 0\" to \"message %d\" were published", conform_quote(c, data), MESSAGES - 1));
        return NULL;
}

static const char *take_ten(struct conform *c, struct sub *s, const char *topic)
{
        bool seen[MESSAGES] = {false};
        int i, last = -1;
        for (int n = 0; n < MESSAGES;) {
                message_t *m = sub_next(s, ARRIVE_S);
                MUST(m, conform_text(c, "%d of %d messages arrived in time", n, MESSAGES));
                HOLD(check_message(c, m, topic, &i));
                MUST(!c->ordered || seen[i] || i == last + 1, conform_text(c, "message %d came after message %d", i, last));
                if (!seen[i])
                        n++;
                last = seen[i] ? last : i;
                seen[i] = true;
                sub_answer(s, m, true);
        }
        return NULL;
}

static const char *messages_arrive(struct conform *c)
{
        struct sub s;
        struct publisher p;
        const char *topic = topic_of(c, "arrive");
        HOLD(sub_stand(c, &s, topic));
        publisher_start(&p, c, topic, MESSAGES);
        const char *fault = take_ten(c, &s, topic), *failed = NULL;
        sub_close(&s);
        failed = publisher_end(&p);
        return failed ? failed : fault;
}

static const char *big_messages(struct conform *c)
{
        struct sub s;
        const char *topic = topic_of(c, "big"), *fault = NULL;
        char *big = arena_alloc(&c->call, BIG_BYTES);
        MUST(big, "out of memory");
        for (size_t i = 0; i < BIG_BYTES; i++)
                big[i] = (char)(i * 31 >> 3);
        HOLD(sub_stand(c, &s, topic));
        if (publish_bytes(c, topic, str_n(big, BIG_BYTES), NULL))
                fault = conform_wrong(c, "Publish of 256 KiB");
        message_t *m = fault ? NULL : sub_next(&s, ARRIVE_S);
        if (!fault && (!m || !str_eq(pb_str(m->data), str_n(big, BIG_BYTES))))
                fault = m ? "a message of 256 KiB arrives as another one" : "a message of 256 KiB does not arrive";
        if (m)
                sub_answer(&s, m, true);
        sub_close(&s);
        return fault;
}

static const char *failed_messages_come_again(struct conform *c)
{
        struct sub s;
        const char *topic = topic_of(c, "again"), *fault = NULL;
        HOLD(sub_stand(c, &s, topic));
        if (publish(c, topic, "twice"))
                fault = conform_wrong(c, "Publish");
        message_t *m = fault ? NULL : sub_next(&s, ARRIVE_S);
        if (!fault && !m)
                fault = "the message does not arrive";
        if (m) {
                sub_answer(&s, m, false);
                m = sub_next(&s, AGAIN_S);
                if (!m)
                        fault = conform_skip(c, "a message that failed does not come again soon (the broker or its settings may not do that)");
                else if (!str_eqz(pb_str(m->data), "twice"))
                        fault = "a message that failed comes again with other bytes";
                if (m)
                        sub_answer(&s, m, true);
        }
        sub_close(&s);
        return fault;
}

static const char *topics_are_apart(struct conform *c)
{
        struct sub s[TOPICS];
        const char *topics[TOPICS], *fault = NULL;
        int n = 0;
        for (; n < TOPICS && !fault; n++) {
                topics[n] = topic_of(c, arena_printf(&c->call, "apart-%d", n));
                fault = sub_stand(c, &s[n], topics[n]);
                if (fault)
                        break;
        }
        for (int i = n - 1; i >= 0 && !fault; i--)
                if (publish(c, topics[i], topics[i]))
                        fault = conform_wrong(c, "Publish");
        for (int i = 0; i < n && !fault; i++) {
                message_t *m = sub_next(&s[i], ARRIVE_S);
                if (!m || !str_eqz(pb_str(m->data), topics[i]))
                        fault = m ? "a message of another topic arrives" : "a message does not arrive";
                if (m)
                        sub_answer(&s[i], m, true);
        }
        for (int i = 0; i < n; i++)
                sub_close(&s[i]);
        return fault;
}

static const char *subscribers_stop_alone(struct conform *c)
{
        struct sub a, b;
        const char *topic = topic_of(c, "alone");
        HOLD(sub_stand(c, &a, topic));
        sub_close(&a);
        HOLD(sub_stand(c, &b, topic));
        const char *fault = publish(c, topic, "after") ? conform_wrong(c, "Publish") : NULL;
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
        bool seen[MESSAGES] = {false};
        int k;
        for (int i = 0; i < MESSAGES; i++) {
                dapr__proto__components__v1__bulk_message_entry__init(&e[i]);
                e[i].entry_id = arena_printf(&c->call, "%d", i);
                e[i].event = pb_bytes(str_of(arena_printf(&c->call, "message %d", i)));
                e[i].content_type = "text/plain";
                list[i] = &e[i];
        }
        req.entries = list;
        req.n_entries = MESSAGES;
        req.topic = topic_of(c, "bulk");
        HOLD(sub_stand(c, &s, req.topic));
        int r = conform_ask(c, PUBSUB "BulkPublish", &req.base, &dapr__proto__components__v1__bulk_publish_response__descriptor, &resp);
        const char *fault = r ? conform_wrong(c, "BulkPublish") : resp->n_failed_entries ? "an entry failed" : NULL;
        for (int n = 0; n < MESSAGES && !fault;) {
                message_t *m = sub_next(&s, ARRIVE_S);
                if (!m) {
                        fault = conform_text(c, "%d of %d entries arrived", n, MESSAGES);
                        break;
                }
                fault = check_message(c, m, req.topic, &k);
                if (!fault && !seen[k])
                        n += seen[k] = true;
                sub_answer(&s, m, true);
        }
        sub_close(&s);
        bool lacks = r == RPC_UNIMPLEMENTED && !conform_has(c, "BULK_PUBSUB");
        return lacks ? conform_skip(c, "it has no bulk publish") : fault;
}

/* ---- what is declared ---- */

static const char *wildcards(struct conform *c)
{
        static const char *const signs[] = {"*", "+", "#"}; /* brokers differ */
        for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
                struct sub s;
                const char *base = topic_of(c, "wild"), *slash = signs[i][0] == '*' ? "" : "/";
                const char *pattern = arena_printf(&c->call, "%s%s%s", base, slash, signs[i]), *topic = arena_printf(&c->call, "%s%sone", base, slash);
                struct asking q = {.c = *c, .topic = topic};
                struct scope scope;
                if (sub_open(c, &s, pattern))
                        continue;
                arena_init(&q.c.call, 0);
                scope_init(&scope);
                fiber_go_flags(&scope, "asking", FIBER_BIG, ask_until_heard, &q);
                message_t *m = NULL;
                double old = fiber_set_deadline(loop_now_exact() + AGAIN_S);
                bool heard = rpc_recv_pb(s.call, &dapr__proto__components__v1__pull_messages_response__descriptor, &m) == 1;
                fiber_restore_deadline(old);
                bool named = heard && (strcmp(m->topic_name, topic) == 0 || strcmp(m->topic_name, pattern) == 0);
                if (heard)
                        sub_answer(&s, m, true);
                q.heard = true;
                scope_join(&scope);
                arena_fini(&q.c.call);
                sub_close(&s);
                if (heard)
                        return named ? NULL : "a message of a pattern names neither its own topic nor the pattern";
        }
        return "SUBSCRIBE_WILDCARDS is declared, but no pattern (PREFIX*, PREFIX/+, PREFIX/#) matches a topic";
}

static const char *messages_expire(struct conform *c)
{
        struct sub s;
        const char *topic = topic_of(c, "expires");
        HOLD(sub_stand(c, &s, topic));
        sub_close(&s);
        TRY(publish_bytes(c, topic, STR("too late"), "1"), "Publish with a TTL");
        fiber_sleep(TTL_S);
        HOLD(sub_stand(c, &s, topic));
        message_t *m = publish(c, topic, "in time") ? NULL : sub_next(&s, ARRIVE_S);
        const char *fault = !m ? "a message does not arrive" : s.early || str_eqz(pb_str(m->data), "too late") ? "a message with a TTL of 1 s arrives after it" : NULL;
        if (m)
                sub_answer(&s, m, true);
        sub_close(&s);
        return fault;
}

const struct conform_check conform_pubsub_checks[] = {
        {"ten messages arrive as they were", messages_arrive},
        {"messages of 256 KiB", big_messages},
        {"messages that failed come again", failed_messages_come_again},
        {"five topics are apart", topics_are_apart},
        {"subscribers stop alone", subscribers_stop_alone},
        {"bulk publish", bulk_publish},
        {"patterns of topics", wildcards, "SUBSCRIBE_WILDCARDS"},
        {"messages expire", messages_expire, "MESSAGE_TTL"},
};
const size_t conform_pubsub_n = sizeof conform_pubsub_checks / sizeof *conform_pubsub_checks;
