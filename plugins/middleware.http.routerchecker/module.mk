PLUGINS += middleware.http.routerchecker
middleware.http.routerchecker_SRC := $(wildcard plugins/middleware.http.routerchecker/*.c)
