PLUGINS += bindings.postgresql
bindings.postgresql_SRC := $(wildcard plugins/bindings.postgresql/*.c plugins/shared/postgres/*.c)
bindings.postgresql_LD := -lpq
