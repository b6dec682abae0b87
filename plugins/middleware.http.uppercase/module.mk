PLUGINS += middleware.http.uppercase
middleware.http.uppercase_SRC := $(wildcard plugins/middleware.http.uppercase/*.c)
