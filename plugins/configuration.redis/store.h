/* configuration.redis, inside: main.c is the component and reads items, watch.c tells their changes. */
#ifndef CONFIGURATION_REDIS_STORE_H
#define CONFIGURATION_REDIS_STORE_H

#include "plugins/shared/redis/redis.h"

struct store {
        struct redis *redis;
        int db;
        bool cluster;
};

/* The item of a key's value "value||version"; false = none: no string, or nothing before the bars. Points into the reply, which it
 * cuts; key is borrowed. */
bool item_read(const char *key, redisReply *value, struct dapr_config_item *ret);
/* Calls fn for the names of all keys, some perhaps twice. 0, or what redis_do or fn returned. Parks. */
int store_each_key(struct store *s, int (*fn)(void *arg, const char *key), void *arg);
int store_subscribe(struct dapr_call *c, void *instance, struct dapr_config_watch *w, const struct dapr_config_query *in);

#endif
