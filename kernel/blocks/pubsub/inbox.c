/*
 * The messages of a subscription that are in the kernel: read from the stream's bytes, each handled on a fiber of its own or in the
 * lane of its ordering key behind the message before it, and settled. Whoever settles a message sends its acknowledgement itself, on
 * the stream that it came by, if that still lives: a broker hands out again what a dead stream left open.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/pull.h"
#include "sdk/base/log.h"
#include "sdk/base/wire.h"

#define SCOPE "dapr.runtime.processor.subscription"

struct lane {
        struct list waiting; /* struct message.node */
        struct str key;
        char text[];
};

/* ---- acknowledgements ---- */

static struct str pack_ack(struct arena *a, struct str id, const char *err)
{
        struct str text = str_of(err ? err : "");
        size_t inner = wire_bytes_size(text.n), n = wire_bytes_size(id.n) + (err ? wire_bytes_size(inner) : 0);
        uint8_t *out = arena_alloc(a, n), *at = out;

        if (!out)
                return STR_NULL;
        at = wire_put_bytes(at, 2, id.p, id.n);
        if (err) {
                at = wire_put_head(at, 3, inner);
                at = wire_put_bytes(at, 1, text.p, text.n);
        }
        return str_n(out, (size_t)(at - out));
}

static void acknowledge(struct message *m, const char *err)
{
        struct pull *p = m->pull;
        struct str ack = pack_ack(&m->arena, m->id, err);
        int r = -EPIPE;

        if (!ack.p || p->dead)
                return;
        if (fmutex_lock(&p->sending) == 0) {
                if (!p->dead)
                        r = rpc_send(p->call, ack);
                fmutex_unlock(&p->sending);
        }
        if (r && !p->dead && !m->sub->closed)
                log_error(SCOPE, "error when ack'ing message %.*s from topic %.*s", STR_FMT(m->id), STR_FMT(m->topic));
}

/* ---- one message ---- */

static void message_free(struct message *m)
{
        struct subscription *s = m->sub;

        s->in_flight--;
        s->bytes -= m->bytes;
        pull_unref(m->pull);
        arena_fini(&m->arena);
        free(m);
        cond_broadcast(&s->changed);
}

void message_settle(struct message *m, enum outcome outcome, const char *err)
{
        if (outcome == OUTCOME_NACK)
                log_error(SCOPE, "error when handling message on topic %.*s", STR_FMT(m->topic));
        if (outcome == OUTCOME_HOLD)
                m->sub->handed_back++;
        else
                acknowledge(m, outcome == OUTCOME_NACK ? err ? err : "the message was not processed" : NULL);
        message_free(m);
}

static struct str without_first(struct arena *a, struct str s, struct str what)
{
        ptrdiff_t i = what.n ? str_find(s, what) : -1;

        if (i < 0)
                return s;
        return str_of(arena_printf(a, "%.*s%.*s", (int)i, s.p, STR_FMT(str_skip(s, (size_t)i + what.n))));
}

static bool read_pair(struct message *m, struct str bytes)
{
        struct wire w = wire_of(bytes);
        struct wire_field f;
        struct str key = STR(""), value = STR("");

        while (wire_next(&w, &f)) {
                if (f.number == 1 && f.bytes.p)
                        key = f.bytes;
                else if (f.number == 2 && f.bytes.p)
                        value = f.bytes;
        }
        return !w.bad && rpc_md_add(&m->md, &m->arena, key, value) == 0;
}

static bool read_fields(struct message *m, struct str bytes)
{
        struct wire w = wire_of(bytes);
        struct wire_field f;

        m->id = m->topic = m->content_type = m->data = STR("");
        while (wire_next(&w, &f)) {
                if (!f.bytes.p)
                        continue;
                switch (f.number) {
                case 1: m->data = f.bytes; break;
                case 2: m->topic = f.bytes; break;
                case 3:
                        if (!read_pair(m, f.bytes))
                                return false;
                        break;
                case 4: m->content_type = f.bytes; break;
                case 5: m->id = f.bytes; break;
                default: break;
                }
        }
        return !w.bad;
}

static struct message *message_new(struct subscription *s, struct pull *p, struct str bytes)
{
        struct message *m = calloc(1, sizeof *m);
        struct str copy;

        if (!m)
                return NULL;
        arena_init(&m->arena, PUBSUB_MESSAGE_ARENA_MAX);
        copy = arena_str(&m->arena, bytes);
        if (!copy.p || !read_fields(m, copy)) {
                log_error(SCOPE, "a message from pubsub %s on topic %.*s could not be read", s->pubsub, STR_FMT(s->topic));
                arena_fini(&m->arena);
                free(m);
                return NULL;
        }
        m->sub = s;
        m->pull = p;
        p->refs++;
        m->bytes = bytes.n;
        if (!m->topic.n)
                m->topic = s->topic;
        else if (s->broker_topic.n != s->topic.n)
                m->topic = without_first(&m->arena, m->topic, str_of(s->block->k->opts.own_namespace));
        s->in_flight++;
        s->bytes += m->bytes;
        return m;
}

/* ---- to the app ---- */

static void handle(struct message *m)
{
        struct subscription *s = m->sub;
        enum outcome outcome = OUTCOME_HOLD;
        const char *err = NULL;

        if (subscription_wait_resumed(s) && !m->pull->closed && fsem_take(&s->slots) == 0) {
                if (!s->closed)
                        outcome = s->handle(m, &err);
                fsem_give(&s->slots);
        }
        message_settle(m, outcome, err);
}

static void message_fiber(void *arg)
{
        handle(arg);
}

/* ---- lanes ---- */

static void lane_fiber(void *arg)
{
        struct lane *l = arg;
        struct subscription *s = NULL;

        while (!list_is_empty(&l->waiting)) {
                struct message *m = list_entry(l->waiting.next, struct message, node);
                list_del(&m->node);
                s = m->sub;
                handle(m);
        }
        if (s)
                map_del(&s->lanes, l->key);
        free(l);
}

static struct str ordering_value(struct message *m)
{
        struct str path = m->sub->ordering_key;
        struct event e = {.json = m->data};

        if (str_has_prefix(path, STR("metadata.")))
                return rpc_md_get(&m->md, path.p + strlen("metadata."));
        if (str_has_prefix(path, STR("event.")))
                path = str_skip(path, strlen("event."));
        return event_path(&m->arena, &e, path);
}

/* Puts the message behind the one before it with the same key. False: it has no key. */
static bool into_lane(struct message *m)
{
        struct subscription *s = m->sub;
        struct str key = ordering_value(m);
        struct lane *l;

        if (!key.p)
                return false;
        l = map_get(&s->lanes, key);
        if (l) {
                list_add_tail(&l->waiting, &m->node);
                return true;
        }
        l = calloc(1, sizeof *l + key.n + 1);
        if (!l || map_set(&s->lanes, key, l)) {
                free(l);
                return false;
        }
        list_init(&l->waiting);
        if (key.n)
                memcpy(l->text, key.p, key.n);
        l->key = str_n(l->text, key.n);
        list_add_tail(&l->waiting, &m->node);
        if (fiber_go(&s->handling, "lane", lane_fiber, l)) {
                map_del(&s->lanes, l->key);
                free(l);
                return false;
        }
        return true;
}

void message_take(struct subscription *s, struct pull *p, struct str bytes)
{
        struct message *m = message_new(s, p, bytes);

        if (!m)
                return;
        if (s->closed)
                message_settle(m, OUTCOME_HOLD, NULL);
        else if (s->batcher)
                batcher_add(s, m);
        else if ((!s->ordering_key.n || !into_lane(m)) && fiber_go(&s->handling, "message", message_fiber, m))
                handle(m); /* no more fibers: the reader itself, which slows the stream down */
}
