PLUGINS += bindings.http
bindings.http_SRC := $(wildcard plugins/bindings.http/*.c)
