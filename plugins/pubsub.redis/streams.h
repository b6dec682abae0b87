/*
 * pubsub.redis, inside. A topic is a stream with a consumer group (consumerID); an entry has the field `data` and, when the publisher
 * gave some, `metadata` as a JSON object: the reference's layout, so both can share streams and groups.
 */
#ifndef PUBSUB_REDIS_STREAMS_H
#define PUBSUB_REDIS_STREAMS_H

#include "plugins/shared/redis/redis.h"
#include "sdk/base/fiber.h"
#include "sdk/base/list.h"
#include "sdk/base/map.h"

enum { ID_MAX = 48, QUEUE_DEPTH_MAX = 10000, WARN_EVERY_S = 10 };

struct broker { /* one component */
        struct redis *redis;
        char *group;              /* consumerID: the group's name and the consumer's; NULL = only publishing */
        int64_t processing_ms, redeliver_ms; /* one of them 0 = no redelivery */
        int64_t queue_depth, max_len, ttl_ms;
        struct fsem workers;      /* messages that the app may have in hand, all subscriptions together */
};
struct source { /* one subscription */
        struct broker *b;
        struct dapr_subscription *sub;
        const char *stream;
        struct redis *reader;     /* blocks at the server */
        struct map known;         /* id -> struct entry: ours, not to be claimed again */
        struct list done;         /* struct entry.node, to be acknowledged */
        struct list back;         /* to be given back at the end */
        struct scope helpers;     /* settle and reclaim */
        struct cond have_done;
        double next_error_log;
};
struct entry {
        struct list node;
        struct source *src;
        const redisReply *fields; /* until it was delivered */
        char id[ID_MAX];
};

static inline bool redelivers(const struct broker *b)
{
        return b->processing_ms > 0 && b->redeliver_ms > 0;
}

/* subscribe.c */
int streams_subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic);
/* Delivers the entries of a reply ([[id, [field, value, …]], …], nil for those that are gone). 0, or -ECANCELED at the end: the rest is
 * in src->back then. Parks. */
int source_deliver(struct source *src, const redisReply *entries);
/* Creates the group, and the stream. 0, -errno, or DAPR_INTERNAL with the server's text in err. */
int source_group(struct source *src, char *err, size_t err_n);
/* Logs, but not more often than every few seconds. */
void source_warn(struct source *src, const char *what, const char *why);
/* A command of the reply's kind: 0, -errno, or DAPR_INTERNAL when the server answered an error (logged). Parks. */
int source_do(struct source *src, const char *what, int key, const struct redis_arg *argv, int argc, redisReply **ret);

/* settle.c */
void settle_fiber(void *arg);            /* struct source *: acknowledges what is done */
void settle_rest(struct source *src);    /* at the end: acknowledges the last ones, gives the others back. Parks, shielded. */

/* reclaim.c */
void reclaim_fiber(void *arg);           /* struct source *: claims what others, or an earlier life, left unanswered */

#endif
