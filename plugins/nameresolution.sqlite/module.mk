PLUGINS += nameresolution.sqlite
nameresolution.sqlite_SRC := $(wildcard plugins/nameresolution.sqlite/*.c plugins/shared/sqlite/*.c)
nameresolution.sqlite_LD := -l:libsqlite3.a
