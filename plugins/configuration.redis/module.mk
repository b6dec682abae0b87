PLUGINS += configuration.redis
configuration.redis_SRC := $(wildcard plugins/configuration.redis/*.c plugins/shared/redis/*.c)
configuration.redis_LD := -l:libhiredis.a
