PLUGINS += pubsub.redis
pubsub.redis_SRC := $(wildcard plugins/pubsub.redis/*.c plugins/shared/options/*.c plugins/shared/redis/*.c)
pubsub.redis_LD := -l:libhiredis.a
