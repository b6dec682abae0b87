PLUGINS += middleware.http.routeralias
middleware.http.routeralias_SRC := $(wildcard plugins/middleware.http.routeralias/*.c)
