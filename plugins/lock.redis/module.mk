PLUGINS += lock.redis
lock.redis_SRC := $(wildcard plugins/lock.redis/*.c plugins/shared/redis/*.c)
lock.redis_LD := -l:libhiredis.a
