/*
 * Subscriptions as daprctl sees them, over the control socket: GET lists them, POST {pubsub}/{topic}/pause|resume holds them and lets them
 * go ("*" for all). What is paused stays so when the subscription ends and comes again: with the app's health, a broker, or a reload.
 *
 * row: {"pubsub","topic","name" (of a declarative one),"kind" ("declarative","programmatic","streaming"),"state" ("active","paused",
 *       "waiting": no stream yet),"inFlight" and "bytesInFlight" (read and not settled),"maxConcurrency","handedBack"}
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/subscription.h"
#include "kernel/super/control.h"
#include "kernel/super/ledger.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"

#define PREFIX "/v1/subscriptions"
#define SCOPE "dapr.runtime.processor.subscription"

static struct str key_of(struct arena *a, const char *pubsub, const char *topic)
{
        return str_of(arena_printf(a, "%s\n%s", pubsub, topic));
}

#define NOTE_PAUSED "subscription paused"

void subscriptions_note(struct kernel *k, struct ledger *l)
{
        struct map *paused = k->pubsub ? &k->pubsub->paused : NULL;

        for (struct map_entry *e = NULL; paused && (e = map_next(paused, e));) {
                char *key = strndup(e->key, e->key_n);
                if (key)
                        ledger_add_note(l, NOTE_PAUSED, key, "");
                free(key);
        }
}

void subscriptions_take_notes(struct pubsub_block *b, const struct ledger *l)
{
        static char yes;

        for (size_t i = 0; l && i < l->n_notes; i++)
                if (strcmp(l->notes[i].what, NOTE_PAUSED) == 0)
                        map_set(&b->paused, str_of(l->notes[i].name), &yes);
}

bool subscriptions_are_paused(const struct pubsub_block *b, const char *pubsub, const char *topic)
{
        struct arena a = {0};
        struct str key = b->paused.count ? key_of(&a, pubsub, topic) : STR_NULL;
        bool paused = key.p && map_get(&b->paused, key);

        arena_fini(&a);
        return paused;
}

/* ---- rows ---- */

static const char *kind_of(const struct subscription *s)
{
        return s->stream ? "streaming" : s->spec->origin == SUBSCRIPTION_PROGRAMMATIC ? "programmatic" : "declarative";
}

static void number(struct json_writer *w, const char *key, size_t n)
{
        json_key(w, str_of(key));
        json_uint(w, n);
}

static void write_row(struct json_writer *w, const struct subscription *s)
{
        json_object_begin(w);
        json_kv(w, "pubsub", str_of(s->pubsub));
        json_kv(w, "topic", s->topic);
        json_kv(w, "name", str_of(s->spec->name));
        json_kv(w, "kind", str_of(kind_of(s)));
        json_kv(w, "state", str_of(s->paused ? "paused" : s->pull ? "active" : "waiting"));
        number(w, "inFlight", s->in_flight);
        number(w, "bytesInFlight", s->bytes);
        number(w, "maxConcurrency", s->max_concurrency);
        number(w, "handedBack", s->handed_back);
        json_object_end(w);
}

/* ---- which ones ---- */

struct choice {
        struct str pubsub, topic; /* "*" = any */
        bool change, pause;
};

static bool fits(struct str wish, struct str is)
{
        return str_eqz(wish, "*") || str_eq(wish, is);
}

static void set_paused(struct pubsub_block *b, struct subscription *s, bool pause)
{
        static char yes;
        struct arena a = {0};
        struct str key = key_of(&a, s->pubsub, s->spec->topic);

        if (s->paused != pause)
                log_info(SCOPE, "subscription to topic %.*s on pubsub %s is %s", STR_FMT(s->topic), s->pubsub, pause ? "paused" : "resumed");
        if (key.p && pause)
                map_set(&b->paused, key, &yes);
        else if (key.p)
                map_del(&b->paused, key);
        if (pause)
                subscription_pause(s);
        else
                subscription_resume(s);
        arena_fini(&a);
}

/* Appends rows of the list's that fit; their number. */
static size_t choose(struct pubsub_block *b, struct list *l, const struct choice *c, struct json_writer *w)
{
        size_t n = 0;

        list_for_each(at, l) {
                struct subscription *s = list_entry(at, struct subscription, node);
                if (!fits(c->pubsub, str_of(s->pubsub)) || !fits(c->topic, s->topic))
                        continue;
                if (c->change)
                        set_paused(b, s, c->pause);
                write_row(w, s);
                n++;
        }
        return n;
}

/* Those that are paused and do not run at the moment come back unpaused. Their number. */
static size_t forget_paused(struct pubsub_block *b, const struct choice *c)
{
        size_t n = 0;

        for (struct map_entry *e = NULL; (e = map_next(&b->paused, e));) {
                struct str topic = str_n(e->key, e->key_n), pubsub = str_cut(&topic, '\n');
                if (!fits(c->pubsub, pubsub) || !fits(c->topic, topic))
                        continue;
                map_del(&b->paused, str_n(e->key, e->key_n));
                n++;
        }
        return n;
}

static void answer(struct pubsub_block *b, struct http_req *r, const struct choice *c)
{
        struct buf out = {0};
        struct json_writer w;
        size_t n;

        json_write_init(&w, &out);
        json_object_begin(&w);
        json_kv(&w, "appId", str_of(b->k->opts.app_id));
        json_key(&w, STR("subscriptions"));
        json_array_begin(&w);
        n = choose(b, &b->running, c, &w) + choose(b, &b->streams, c, &w);
        json_array_end(&w);
        json_object_end(&w);
        if (c->change && !c->pause)
                n += forget_paused(b, c);
        if (c->change && !n)
                control_refuse(r, 404, "no such subscription runs");
        else
                control_reply(r, 200, &out);
        buf_fini(&out);
}

static void serve(struct http_req *r, struct str rest, void *arg)
{
        struct pubsub_block *b = arg;
        struct choice c = {STR("*"), STR("*"), false, false};
        struct str verb;

        if (!rest.n && str_eqz(r->method, "GET")) {
                answer(b, r, &c);
                return;
        }
        if (rest.n && rest.p[0] == '/')
                rest = str_skip(rest, 1);
        c.pubsub = url_unescape(r->arena, str_cut(&rest, '/'), false);
        c.topic = rest.p ? url_unescape(r->arena, str_cut(&rest, '/'), false) : STR_NULL;
        verb = rest.p ? rest : STR("");
        c.change = true;
        c.pause = str_eqz(verb, "pause");
        if (!str_eqz(r->method, "POST") || !c.pubsub.p || !c.topic.p || (!c.pause && !str_eqz(verb, "resume")))
                control_refuse(r, 404, "unknown path");
        else
                answer(b, r, &c);
}

void subscriptions_serve(struct pubsub_block *b, bool on)
{
        control_serve(b->k->super, PREFIX, on ? serve : NULL, b);
}
