/*
 * Changes: a trigger of the table notifies a channel with {"data": the row as JSON}. A watch has a connection of its own that listens.
 * While the app is slow nothing is read, and the server keeps what it notifies. When the connection breaks the watch listens again and
 * then tells every item that it watches, since changes may have been missed.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "plugins/configuration.postgresql/store.h"
#include "sdk/base/fiber.h"
#include "sdk/base/json.h"

static const double RETRY_MIN_S = 0.1, RETRY_MAX_S = 5;

struct watch {
        struct dapr_call *c;
        struct store *s;
        struct dapr_config_watch *w;
        const struct dapr_config_query *in;
        const char *channel;
};

static bool is_watched(const struct watch *x, const char *key)
{
        for (size_t i = 0; i < x->in->n; i++)
                if (strcmp(x->in->keys[i], key) == 0)
                        return true;
        return x->in->n == 0;
}

static const char *take_text(struct json_reader *r, struct arena *a)
{
        struct str s;
        if (json_read_null(r))
                return "";
        return json_read_string(r, a, &s) || json_read_raw(r, &s) ? arena_strdup(a, s) : NULL;
}

/* The row in "data"; names of columns without case. False: there is none, or it has no key. */
static bool read_row(struct arena *a, struct str payload, struct dapr_config_item *ret)
{
        struct json_reader r;
        struct str key, raw;
        bool found = false;
        json_read_init(&r, payload);
        for (bool good = json_enter_object(&r); good && json_next_member(&r, a, &key);) {
                if (!str_eqz(key, "data") || !json_enter_object(&r)) {
                        json_skip(&r);
                        continue;
                }
                found = true;
                while (json_next_member(&r, a, &key)) {
                        if (str_ieq(key, STR("key")))
                                ret->key = take_text(&r, a);
                        else if (str_ieq(key, STR("value")))
                                ret->value = take_text(&r, a);
                        else if (str_ieq(key, STR("version")))
                                ret->version = take_text(&r, a);
                        else if (str_ieq(key, STR("metadata")) && json_read_raw(&r, &raw))
                                ret->metadata = metadata_read(a, raw);
                        else
                                json_skip(&r);
                }
        }
        return found && !r.error && ret->key && *ret->key;
}

static int tell(struct watch *x, struct str payload)
{
        struct dapr_config_item item = {0};
        struct arena a;
        int r = 0;
        arena_init(&a, 0);
        if (!read_row(&a, payload, &item))
                dapr_log(DAPR_LOG_WARN, "channel %s: a notification is no {\"data\": {\"key\": …}}: %.*s", x->channel,
                         (int)(payload.n < 200 ? payload.n : 200), payload.p);
        else if (is_watched(x, item.key))
                r = dapr_config_changed(x->w, &item, 1);
        arena_fini(&a);
        return r;
}

static int tell_all(struct watch *x)
{
        struct dapr_config_items items = {0};
        struct arena a;
        arena_init(&a, 0);
        int r = items_read(x->c, x->s, &a, x->in->keys, x->in->n, &items);
        if (!r && items.n)
                r = dapr_config_changed(x->w, items.v, items.n);
        arena_fini(&a);
        return r;
}

/* One connection, until it breaks or the watch ends. */
static int follow(struct watch *x, bool again, struct pg_error *e)
{
        struct pg_listener *l = NULL;
        struct pg_notification n;
        int r = pg_listen(x->s->pg, x->channel, &l, e);
        if (!r)
                r = again ? tell_all(x) : dapr_config_subscribed(x->w);
        while (!r && !(r = pg_listener_next(l, &n, e)))
                r = tell(x, n.payload);
        pg_unlisten(l);
        return r;
}

static bool is_identifier(const char *s)
{
        size_t n = strlen(s);
        if (!n || n > CHANNEL_MAX || isdigit((unsigned char)s[0]))
                return false;
        for (size_t i = 0; i < n; i++)
                if (!isalnum((unsigned char)s[i]) && s[i] != '_')
                        return false;
        return true;
}

int store_subscribe(struct dapr_call *c, void *instance, struct dapr_config_watch *w, const struct dapr_config_query *in)
{
        struct watch x = {.c = c, .s = instance, .w = w, .in = in, .channel = dapr_kvs_get(in->metadata, "pgNotifyChannel")};
        struct pg_error e = {0};
        double pause = RETRY_MIN_S;
        if (!x.channel || !*x.channel)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "unable to subscribe to '%s'. pgNotifyChannel attribute cannot be empty", x.s->table);
        if (!is_identifier(x.channel))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "pgNotifyChannel is %s: write a name of letters, digits and _", x.channel);
        int r = follow(&x, false, &e);
        if (r == PG_REFUSED)
                return pg_fail(c, r, &e, "error listening to channel");
        while (r != -ECANCELED && r != -ENOMEM) {
                dapr_log(DAPR_LOG_WARN, "channel %s: the connection has ended and is made again: %s", x.channel, e.text);
                r = fiber_sleep(pause);
                pause = pause * 2 > RETRY_MAX_S ? RETRY_MAX_S : pause * 2;
                if (!r)
                        r = follow(&x, true, &e);
        }
        return r;
}
