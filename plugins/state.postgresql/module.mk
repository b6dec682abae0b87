PLUGINS += state.postgresql
state.postgresql_SRC := $(wildcard plugins/state.postgresql/*.c plugins/shared/postgres/*.c)
state.postgresql_LD := -lpq
