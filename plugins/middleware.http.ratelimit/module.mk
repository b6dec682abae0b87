PLUGINS += middleware.http.ratelimit
middleware.http.ratelimit_SRC := $(wildcard plugins/middleware.http.ratelimit/*.c)
