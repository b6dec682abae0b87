/* state.redis: what its files share. */
#ifndef PLUGINS_STATE_REDIS_STORE_H
#define PLUGINS_STATE_REDIS_STORE_H

#include "dapr/plugin.h"
#include "plugins/shared/redis/redis.h"

struct query_schema { /* one entry of the metadata field queryIndexes */
        char *name;
        struct query_index {
                char *path, *type; /* JSON path without "$.", TEXT or NUMERIC */
        } *indexes;
        size_t n;
};
struct store {
        struct redis *redis;
        bool has_json;        /* the server has RedisJSON: values with contentType application/json are documents */
        bool has_default_ttl;
        int64_t default_ttl_s;
        struct query_schema *schemas;
        size_t n_schemas;
};

int store_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
void store_close(void *instance);
int store_get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out);
int store_set(struct dapr_call *c, void *instance, const struct dapr_set *in);
int store_del(struct dapr_call *c, void *instance, const struct dapr_delete *in);
int store_keys_like(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out);
int store_query(struct dapr_call *c, void *instance, const struct dapr_query *in, struct dapr_query_result *out);

/* RedisJSON documents: {"data": value, "version": n}. */
int json_get(struct dapr_call *c, struct store *s, const char *key, struct dapr_item *out);
int json_set(struct dapr_call *c, struct store *s, const struct dapr_set *in);

/* queryIndexes: parsed at Init, registered with FT.CREATE when the server can search. */
int query_schemas_parse(struct dapr_call *c, struct store *s, const char *json);
int query_schemas_register(struct dapr_call *c, struct store *s);
void query_schemas_free(struct store *s);

#endif
