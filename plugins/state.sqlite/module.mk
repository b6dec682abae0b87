PLUGINS += state.sqlite
state.sqlite_SRC := $(wildcard plugins/state.sqlite/*.c plugins/shared/sqlite/*.c)
state.sqlite_LD := -l:libsqlite3.a
