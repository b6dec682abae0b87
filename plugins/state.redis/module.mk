PLUGINS += state.redis
state.redis_SRC := $(wildcard plugins/state.redis/*.c plugins/shared/redis/*.c)
state.redis_LD := -l:libhiredis.a
