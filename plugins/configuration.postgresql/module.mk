PLUGINS += configuration.postgresql
configuration.postgresql_SRC := $(wildcard plugins/configuration.postgresql/*.c plugins/shared/postgres/*.c)
configuration.postgresql_LD := -lpq
