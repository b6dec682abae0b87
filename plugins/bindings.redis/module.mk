PLUGINS += bindings.redis
bindings.redis_SRC := $(wildcard plugins/bindings.redis/*.c plugins/shared/redis/*.c plugins/shared/binding/*.c)
bindings.redis_LD := -l:libhiredis.a
